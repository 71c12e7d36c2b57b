//! NATS JetStream. The message is the event (structured content mode); its
//! `Nats-Msg-Id` is the event's id, so that the stream drops a redelivery.
//!
//! Subjects are `<subject>.<tenant>.<event type>`, as in
//! `tenantry.events.acme.generation.rated`.

use std::time::Duration;

use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{self, StorageType};
use async_nats::jetstream::{self, Context};
use async_nats::{Client, ConnectOptions};
use futures_util::future::BoxFuture;
use tenantry_types::Secret;

use super::{Entry, Outcome, Sink, all_later, by_tenant};

/// Tenants whose events are under way at once.
const TOGETHER: usize = 64;
/// How long an acknowledgement is waited for.
const ACK: Duration = Duration::from_secs(5);
/// For how long a stream that is made here knows the ids it has seen.
const DUPLICATES: Duration = Duration::from_secs(600);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NatsConfig {
    /// `nats://host:port` or `tls://host:port`, separated by commas; may hold a
    /// password.
    pub servers: Secret,
    /// What subjects begin with.
    pub subject: String,
    /// Made where it is not there; `None`: somebody else makes a stream of
    /// these subjects.
    pub stream: Option<String>,
    pub login: NatsLogin,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NatsLogin {
    None,
    Token(Secret),
    User {
        name: String,
        password: Secret,
    },
    /// What a `.creds` file holds.
    Credentials(Secret),
}

pub(crate) struct NatsSink {
    config: NatsConfig,
    context: Option<Context>,
}

// === impl NatsSink ===

impl NatsSink {
    /// Connects with the first delivery.
    pub(crate) fn new(config: NatsConfig) -> Result<Self, String> {
        if config.subject.is_empty() || config.subject.split('.').any(|token| token_of(token) != token) {
            return Err("subject: tokens of letters, digits, '-' and '_', separated by dots".to_owned());
        }
        // What is wrong with it is told now, and not while events wait.
        options(&config.login)?;
        Ok(Self { config, context: None })
    }

    async fn connect(&mut self) -> Result<&Context, String> {
        if self.context.is_none() {
            let servers: Vec<&str> = self.config.servers.expose().split(',').map(str::trim).collect();
            let client: Client =
                options(&self.config.login)?.connect(servers).await.map_err(|error| error.to_string())?;
            let mut context = jetstream::new(client);
            context.set_timeout(ACK);
            if let Some(name) = &self.config.stream {
                let stream = stream::Config {
                    name: name.clone(),
                    subjects: vec![format!("{}.>", self.config.subject)],
                    storage: StorageType::File,
                    duplicate_window: DUPLICATES,
                    ..stream::Config::default()
                };
                context.get_or_create_stream(stream).await.map_err(|error| error.to_string())?;
            }
            self.context = Some(context);
        }
        Ok(self.context.as_ref().expect("it was just connected"))
    }
}

impl Sink for NatsSink {
    fn deliver<'a>(&'a mut self, batch: &'a [Entry]) -> BoxFuture<'a, Vec<Outcome>> {
        Box::pin(async move {
            let subject = self.config.subject.clone();
            let context = match self.connect().await {
                Ok(context) => context,
                Err(error) => return all_later(batch, error),
            };
            by_tenant(batch, TOGETHER, |entry| publish(context, &subject, entry)).await
        })
    }

    fn close(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if let Some(context) = self.context.take() {
                // What is not acknowledged comes again in any case.
                let _ = context.client().drain().await;
            }
        })
    }
}

async fn publish(context: &Context, prefix: &str, entry: &Entry) -> Outcome {
    let subject = format!("{prefix}.{}.{}", token_of(&entry.tenant), entry.kind.as_str());
    let message = PublishMessage::build()
        .message_id(&entry.id)
        .header("Content-Type", "application/cloudevents+json; charset=utf-8")
        .payload(entry.payload.clone().into());
    let sent = async { context.send_publish(subject, message).await?.await };
    match sent.await {
        Ok(_) => Outcome::Taken,
        Err(error) => judged(&error),
    }
}

fn judged(error: &PublishError) -> Outcome {
    match error.kind() {
        PublishErrorKind::MaxPayloadExceeded => Outcome::refused(error),
        _ => Outcome::later(error),
    }
}

fn options(login: &NatsLogin) -> Result<ConnectOptions, String> {
    let options = ConnectOptions::new().name("tenantry");
    Ok(match login {
        NatsLogin::None => options,
        NatsLogin::Token(token) => options.token(token.expose().to_owned()),
        NatsLogin::User { name, password } => options.user_and_password(name.clone(), password.expose().to_owned()),
        NatsLogin::Credentials(file) => {
            options.credentials(file.expose()).map_err(|_| "credentials: not the text of a .creds file".to_owned())?
        }
    })
}

/// A subject's token that is unlike that of any other tenant.
fn token_of(tenant: &str) -> String {
    let mut token = String::with_capacity(tenant.len());
    for byte in tenant.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => token.push(byte.into()),
            _ => token.push_str(&format!("%{byte:02X}")),
        }
    }
    token
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenants_cannot_reach_into_each_others_subjects() {
        assert_eq!(token_of("acme-1_b"), "acme-1_b");
        assert_eq!(token_of("a.b>*%"), "a%2Eb%3E%2A%25");
    }
}
