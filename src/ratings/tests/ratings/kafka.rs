//! The Kafka sink against librdkafka's mock cluster, with errors of its brokers.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use serde_json::Value;
use tenantry_ratings::{Config, KafkaConfig, KafkaLogin, KafkaTls, SaslMechanism, SinkKind};
use tenantry_types::Secret;

use crate::support::{Running, events_in, folder, running, tenant, until};

const TOPIC: &str = "ratings";
const PARTITIONS: i32 = 4;

struct Cluster(MockCluster<'static, DefaultProducerContext>);

/// What a message says: key, partition, content type, event.
struct Read {
    key: String,
    partition: i32,
    content_type: String,
    event: Value,
}

impl Cluster {
    fn start() -> Self {
        let cluster = MockCluster::new(2).expect("a cluster");
        cluster.create_topic(TOPIC, PARTITIONS, 2).expect("a topic");
        Self(cluster)
    }

    fn fail(&self, errors: &[RDKafkaRespErr]) {
        self.0.request_errors(RDKafkaApiKey::Produce, errors);
    }

    /// All messages, each partition's in order.
    async fn read(&self) -> Vec<Read> {
        let brokers = self.0.bootstrap_servers();
        tokio::task::spawn_blocking(move || read(&brokers)).await.expect("it ends")
    }
}

fn read(brokers: &str) -> Vec<Read> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("group.id", "tests").set("enable.partition.eof", "true");
    let consumer: BaseConsumer = config.create().expect("a consumer");
    let mut all = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        all.add_partition_offset(TOPIC, partition, Offset::Beginning).expect("a partition");
    }
    consumer.assign(&all).expect("assigned");
    let (mut messages, mut ended) = (Vec::new(), 0);
    while ended < PARTITIONS {
        match consumer.poll(Duration::from_secs(60)).expect("something comes") {
            Ok(message) => messages.push(Read {
                key: message.key_view::<str>().expect("a key").expect("text").to_owned(),
                partition: message.partition(),
                content_type: message.headers().map_or(String::new(), |headers| {
                    assert_eq!(headers.get(0).key, "content-type");
                    String::from_utf8_lossy(headers.get(0).value.expect("a value")).into_owned()
                }),
                event: serde_json::from_slice(message.payload().expect("a payload")).expect("JSON"),
            }),
            Err(rdkafka::error::KafkaError::PartitionEOF(_)) => ended += 1,
            Err(error) => panic!("{error}"),
        }
    }
    messages
}

async fn room(spool: &Path, cluster: &Cluster, options: &[(&str, &str)]) -> Running {
    let options = options.iter().map(|(name, value)| ((*name).to_owned(), Secret::new(*value)));
    let config = KafkaConfig {
        brokers: cluster.0.bootstrap_servers(),
        topic: TOPIC.to_owned(),
        tls: None,
        login: None,
        options: options.collect::<BTreeMap<_, _>>(),
    };
    running(Config::new(spool).with_sink("kafka", SinkKind::Kafka(config))).await
}

/// What was recorded, by tenant.
type Recorded = HashMap<String, Vec<String>>;

async fn rate(room: &Running, count: usize, recorded: &mut Recorded) {
    for number in 0..count {
        let name = format!("tenant-{}", number % 5);
        let id = room.rate_new(&tenant(&name), None).await.id;
        recorded.entry(name).or_default().push(id);
    }
}

/// Each tenant's events are in one partition and in order, once to who drops
/// what it has seen.
fn check(messages: &[Read], recorded: &Recorded) {
    let mut delivered = Recorded::new();
    let mut partitions = HashMap::new();
    for message in messages {
        assert_eq!(message.event["tenant"], message.key.as_str());
        assert_eq!(*partitions.entry(&message.key).or_insert(message.partition), message.partition);
        assert_eq!(message.content_type, "application/cloudevents+json; charset=utf-8");
        let of_tenant = delivered.entry(message.key.clone()).or_default();
        let id = message.event["id"].as_str().expect("an id").to_owned();
        if !of_tenant.contains(&id) {
            of_tenant.push(id);
        }
    }
    assert_eq!(&delivered, recorded);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenants_events_are_in_one_partition_and_in_order() {
    let (spool, cluster) = (folder(), Cluster::start());
    let room = room(spool.path(), &cluster, &[]).await;
    let mut recorded = Recorded::new();
    rate(&room, 100, &mut recorded).await;
    room.settled().await;
    let messages = cluster.read().await;
    assert_eq!(messages.len(), 100, "none came twice");
    check(&messages, &recorded);
    room.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn brokers_errors_cost_time_alone() {
    use RDKafkaRespErr as Error;
    let (spool, cluster) = (folder(), Cluster::start());
    let room = room(spool.path(), &cluster, &[("retry.backoff.ms", "10"), ("retry.backoff.max.ms", "50")]).await;
    let mut recorded = Recorded::new();
    // What librdkafka tries again by itself.
    cluster.fail(&[
        Error::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
        Error::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
        Error::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
    ]);
    rate(&room, 30, &mut recorded).await;
    room.settled().await;
    // And what it gives up on, with messages behind it.
    cluster.fail(&[Error::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED; 3]);
    rate(&room, 60, &mut recorded).await;
    room.settled().await;
    assert!(room.ratings.metrics().sinks()[0].retried() > 0, "the sink was asked again");
    check(&cluster.read().await, &recorded);
    assert_eq!(room.ratings.metrics().sinks()[0].dead_lettered(), 0);
    room.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn brokers_that_are_down_are_waited_for() {
    let (spool, cluster) = (folder(), Cluster::start());
    let room = room(spool.path(), &cluster, &[("reconnect.backoff.max.ms", "100")]).await;
    let mut recorded = Recorded::new();
    rate(&room, 10, &mut recorded).await;
    room.settled().await;
    for broker in [1, 2] {
        cluster.0.broker_down(broker).expect("down");
    }
    rate(&room, 20, &mut recorded).await;
    assert_eq!(room.ratings.metrics().spool_events(), 20);
    for broker in [1, 2] {
        cluster.0.broker_up(broker).expect("up");
    }
    room.settled().await;
    check(&cluster.read().await, &recorded);
    room.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_is_too_large_is_a_dead_letter() {
    let (spool, cluster) = (folder(), Cluster::start());
    let room = room(spool.path(), &cluster, &[("message.max.bytes", "2000")]).await;
    let mut recorded = Recorded::new();
    rate(&room, 2, &mut recorded).await;
    let acme = tenant("acme");
    let mut rating = crate::support::thumb(room.ratings.issue(&acme), None);
    rating.comment = Some("x".repeat(4000));
    let poison = room.rate(&acme, rating).await.expect("recorded").id;
    rate(&room, 2, &mut recorded).await;
    room.settled().await;
    check(&cluster.read().await, &recorded);
    let letters = events_in(&spool.path().join("dead-letters"));
    assert_eq!(
        letters.iter().map(|letter| &letter["event"]["id"]).collect::<Vec<_>>(),
        [&poison.into()] as [&Value; 1]
    );
    let sink = room.ratings.metrics().sinks()[0].clone();
    until("the count", || sink.dead_lettered() == 1).await;
    room.stop().await;
}

/// Of brokers that are not there.
fn nobody() -> KafkaConfig {
    let (brokers, topic) = ("127.0.0.1:1".to_owned(), TOPIC.to_owned());
    KafkaConfig { brokers, topic, tls: None, login: None, options: BTreeMap::new() }
}

/// Why it is refused; empty where it is not.
async fn refused(config: KafkaConfig) -> String {
    let folder = folder();
    let config = Config::new(folder.path()).with_sink("kafka", SinkKind::Kafka(config));
    let opened = tenantry_ratings::Ratings::open(config, crate::support::keys()).await;
    opened.err().map_or(String::new(), |error| error.to_string())
}

fn login(mechanism: SaslMechanism) -> Option<KafkaLogin> {
    Some(KafkaLogin { mechanism, username: Secret::new("tenantry"), password: Secret::new("a password") })
}

fn tls(ca: Option<&str>) -> Option<KafkaTls> {
    Some(KafkaTls { ca: ca.map(Secret::new), identity: None })
}

#[tokio::test]
async fn a_login_is_in_the_clear_or_says_what_it_needs() {
    assert_eq!(refused(KafkaConfig { login: login(SaslMechanism::Plain), ..nobody() }).await, "");
    let twice = BTreeMap::from([("security.protocol".to_owned(), Secret::new("ssl"))]);
    let twice = KafkaConfig { login: login(SaslMechanism::Plain), options: twice, ..nobody() };
    let message = "sink kafka: options: security.protocol is not to be set, tls and username say it";
    assert_eq!(refused(twice).await, message);
    let secured = [
        KafkaConfig { tls: tls(None), ..nobody() },
        KafkaConfig { login: login(SaslMechanism::ScramSha256), ..nobody() },
        KafkaConfig { tls: tls(None), login: login(SaslMechanism::ScramSha512), ..nobody() },
    ];
    for config in secured {
        let expected = match tenantry_ratings::KAFKA_TLS {
            true => "",
            false => "sink kafka: this binary was built without TLS and SCRAM for Kafka (feature kafka-tls)",
        };
        assert_eq!(refused(config).await, expected);
    }
    let broken = refused(KafkaConfig { tls: tls(Some("no PEM, but secret")), ..nobody() }).await;
    assert!(!broken.is_empty() && !broken.contains("secret"), "{broken}");
}

#[tokio::test]
async fn options_that_order_rests_on_are_not_to_be_set() {
    let option = |name: &str, value: &str| {
        let options = BTreeMap::from([(name.to_owned(), Secret::new(value))]);
        refused(KafkaConfig { options, ..nobody() })
    };
    let reserved = "sink kafka: options: enable.idempotence is not to be set, order and delivery rest on it";
    assert_eq!(option("enable.idempotence", "false").await, reserved);
    let unknown = option("compression.type", "secret-value").await;
    assert_eq!(unknown, "sink kafka: options: librdkafka does not take compression.type");
}
