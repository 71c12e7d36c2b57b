//! Kafka, through librdkafka: an idempotent producer. The message is the event
//! (structured content mode), its key the tenant, so that a tenant's events
//! are in one partition, in order.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::{self, BoxFuture};
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::future_producer::DeliveryFuture;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _, PurgeConfig};
use tenantry_types::Secret;
use tokio::time::timeout;

use super::{Entry, Outcome, Sink, all_later};

/// How long the brokers' acknowledgements are waited for.
const ACK: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KafkaConfig {
    /// `host:port`, separated by commas.
    pub brokers: String,
    pub topic: String,
    /// `None`: what is sent can be read on its way.
    pub tls: Option<KafkaTls>,
    pub login: Option<KafkaLogin>,
    /// Further options of librdkafka by their own names, such as
    /// `security.protocol` and `sasl.password`.
    pub options: BTreeMap<String, Secret>,
}

/// PEM texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KafkaTls {
    /// Whose certificates count; by default the machine's.
    pub ca: Option<Secret>,
    /// This gateway's certificate, and its key.
    pub identity: Option<(Secret, Secret)>,
}

/// With SASL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KafkaLogin {
    pub mechanism: SaslMechanism,
    pub username: Secret,
    pub password: Secret,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaslMechanism {
    Plain,
    ScramSha256,
    ScramSha512,
}

pub(crate) struct KafkaSink {
    config: KafkaConfig,
    /// `None` after a failure that a producer does not come back from.
    producer: Option<FutureProducer>,
}

/// What an event's delivery said last.
enum Sent {
    Waits(DeliveryFuture),
    Not(KafkaError),
    /// An event before it was not sent.
    Behind,
}

// === impl KafkaSink ===

impl KafkaSink {
    /// The error says which option librdkafka does not take.
    pub(crate) fn new(config: KafkaConfig) -> Result<Self, String> {
        let producer = Some(producer(&config)?);
        Ok(Self { config, producer })
    }

    async fn send(&mut self, batch: &[Entry]) -> Vec<Outcome> {
        if self.producer.is_none() {
            match producer(&self.config) {
                Ok(producer) => self.producer = Some(producer),
                Err(error) => return all_later(batch, error),
            }
        }
        let Some(producer) = &self.producer else { return all_later(batch, "no producer") };
        let mut sent = Vec::with_capacity(batch.len());
        let mut stopped = false;
        for entry in batch {
            sent.push(if stopped {
                Sent::Behind
            } else {
                match producer.send_result(record(&self.config.topic, entry)) {
                    Ok(delivery) => Sent::Waits(delivery),
                    Err((error, _)) => {
                        stopped = !is_the_events(&error);
                        Sent::Not(error)
                    }
                }
            });
        }
        let alone = batch.len() == 1;
        let outcomes = future::join_all(sent.into_iter().map(|sent| outcome(sent, alone)));
        match timeout(ACK, outcomes).await {
            Ok(outcomes) => {
                // After a failure it is unknown what else of its queue would go out.
                if outcomes.iter().any(|outcome| matches!(outcome, Outcome::Later { .. })) {
                    self.renew();
                }
                outcomes
            }
            Err(_) => {
                self.renew();
                all_later(batch, "the brokers did not acknowledge in time")
            }
        }
    }

    /// Nothing that was queued is sent any more.
    fn renew(&mut self) {
        let Some(old) = self.producer.take() else { return };
        old.purge(PurgeConfig::default().queue().inflight());
        // Its end waits for its threads.
        tokio::task::spawn_blocking(move || drop(old));
    }
}

impl Sink for KafkaSink {
    fn deliver<'a>(&'a mut self, batch: &'a [Entry]) -> BoxFuture<'a, Vec<Outcome>> {
        Box::pin(self.send(batch))
    }
}

fn producer(config: &KafkaConfig) -> Result<FutureProducer, String> {
    let mut options = ClientConfig::new();
    options
        .set("bootstrap.servers", &config.brokers)
        .set("client.id", "tenantry")
        .set("enable.idempotence", "true")
        // Nothing goes out after a message that did not.
        .set("enable.gapless.guarantee", "true")
        // As Java's clients do, so that a key is in one partition whoever writes.
        .set("partitioner", "murmur2_random")
        // A message that expired alone would come after those behind it.
        .set("message.timeout.ms", "0")
        .set("linger.ms", "5");
    let secured = config.tls.is_some() || config.login.is_some();
    secure(&mut options, config)?;
    for (name, value) in &config.options {
        if RESERVED.contains(&name.as_str()) {
            return Err(format!("options: {name} is not to be set, order and delivery rest on it"));
        }
        if secured && name == "security.protocol" {
            return Err(format!("options: {name} is not to be set, tls and username say it"));
        }
        options.set(name, value.expose());
    }
    options.create().map_err(|error| match error {
        // The description of a value that is refused may repeat it.
        KafkaError::ClientConfig(_, _, name, _) => format!("options: librdkafka does not take {name}"),
        other => other.to_string(),
    })
}

/// Sets how the brokers are spoken to.
fn secure(options: &mut ClientConfig, config: &KafkaConfig) -> Result<(), String> {
    let scram = config.login.as_ref().is_some_and(|login| login.mechanism != SaslMechanism::Plain);
    if !crate::KAFKA_TLS && (config.tls.is_some() || scram) {
        return Err("this binary was built without TLS and SCRAM for Kafka (feature kafka-tls)".to_owned());
    }
    match (&config.tls, &config.login) {
        (None, None) => return Ok(()),
        (Some(_), None) => options.set("security.protocol", "ssl"),
        (None, Some(_)) => options.set("security.protocol", "sasl_plaintext"),
        (Some(_), Some(_)) => options.set("security.protocol", "sasl_ssl"),
    };
    if let Some(KafkaTls { ca, identity }) = &config.tls {
        if let Some(ca) = ca {
            options.set("ssl.ca.pem", ca.expose());
        }
        if let Some((certificate, key)) = identity {
            options.set("ssl.certificate.pem", certificate.expose()).set("ssl.key.pem", key.expose());
        }
    }
    if let Some(KafkaLogin { mechanism, username, password }) = &config.login {
        let mechanism = match mechanism {
            SaslMechanism::Plain => "PLAIN",
            SaslMechanism::ScramSha256 => "SCRAM-SHA-256",
            SaslMechanism::ScramSha512 => "SCRAM-SHA-512",
        };
        options.set("sasl.mechanism", mechanism);
        options.set("sasl.username", username.expose()).set("sasl.password", password.expose());
    }
    Ok(())
}

const RESERVED: [&str; 8] = [
    "bootstrap.servers",
    "enable.gapless.guarantee",
    "enable.idempotence",
    "message.timeout.ms",
    "delivery.timeout.ms",
    "max.in.flight",
    "max.in.flight.requests.per.connection",
    "acks",
];

fn record<'a>(topic: &'a str, entry: &'a Entry) -> FutureRecord<'a, str, str> {
    let content = Header { key: "content-type", value: Some("application/cloudevents+json; charset=utf-8") };
    FutureRecord::to(topic)
        .key(entry.tenant.as_str())
        .payload(entry.payload.as_str())
        .headers(OwnedHeaders::new().insert(content))
}

/// `alone`: nothing was sent beside it, so that brokers' words are about it.
async fn outcome(sent: Sent, alone: bool) -> Outcome {
    match sent {
        Sent::Waits(delivery) => match delivery.await {
            Ok(Ok(_)) => Outcome::Taken,
            Ok(Err((error, _))) if alone && is_the_events(&error) => Outcome::refused(error),
            Ok(Err((error, _))) => Outcome::later(error),
            Err(_) => Outcome::later("the producer is gone"),
        },
        Sent::Not(error) if is_the_events(&error) => Outcome::refused(error),
        Sent::Not(error) => Outcome::later(error),
        Sent::Behind => Outcome::Untried,
    }
}

/// Whether it is about this event alone, and for good.
fn is_the_events(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::MessageSizeTooLarge
                | RDKafkaErrorCode::InvalidMessageSize
                | RDKafkaErrorCode::InvalidRecord
        )
    )
}
