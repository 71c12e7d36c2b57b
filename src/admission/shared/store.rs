//! The state that gateways share, in Redis (or Valkey): one script a report, so
//! that each is a step of its own, and many reports a round trip.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, Pipeline, RedisError, Script};
use thiserror::Error;
use tokio_rustls::rustls::crypto::ring;
use ulid::Ulid;

use super::places::DEAD;
use super::slice::{AHEAD, Grant};
use crate::admission::account::{Answer, Due, WINDOWS};
use crate::admission::ledger::Scope;
use crate::types::{Limit, Secret, TenantId};

/// What Redis has to answer within.
const ANSWER: Duration = Duration::from_millis(500);
const CONNECT: Duration = Duration::from_secs(2);
/// A gateway that was not heard of for so long is not counted.
pub(super) const SILENT: Duration = Duration::from_secs(5);

pub(super) const WINDOW: &str = include_str!("window.lua");
pub(super) const PLACES: &str = include_str!("places.lua");
pub(super) const PRESENCE: &str = include_str!("presence.lua");

pub(super) struct Store {
    client: Client,
    /// Of all keys.
    prefix: String,
    /// Names this run of the gateway.
    gateway: String,
    scripts: Scripts,
}

struct Scripts {
    window: Script,
    places: Script,
    presence: Script,
}

/// Who is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Presence {
    /// Names the state that limits are counted in: another one if Redis has lost it.
    pub epoch: u64,
    pub gateways: u32,
}

/// One of a tenant's accounts, and what is reported of it.
#[derive(Debug, Clone)]
pub(super) struct Report<'a> {
    pub tenant: &'a TenantId,
    pub scope: Scope,
    pub due: Due,
}

#[derive(Debug, Error)]
pub enum StoreError {
    /// Never with the URL, which may have a password.
    #[error("not a Redis URL, as in redis://host:6379/0 or rediss://user:password@host:6379/0")]
    Url,
}

/// Redis is away, or does not do what is asked.
#[derive(Debug, Error)]
pub(super) enum Away {
    #[error("{0}")]
    Redis(#[from] RedisError),
    /// It was emptied since.
    #[error("it has lost what was counted")]
    OtherState,
    #[error("an answer that is none: {0}")]
    Answer(String),
}

// === impl Store ===

impl Store {
    pub(super) fn new(url: &Secret, prefix: &str) -> Result<Self, StoreError> {
        // The first one stays; all are the same.
        let _ = ring::default_provider().install_default();
        let client = Client::open(url.expose()).map_err(|_| StoreError::Url)?;
        let scripts =
            Scripts { window: Script::new(WINDOW), places: Script::new(PLACES), presence: Script::new(PRESENCE) };
        Ok(Self { client, prefix: prefix.to_owned(), gateway: Ulid::generate().to_string(), scripts })
    }

    pub(super) async fn connect(&self) -> Result<MultiplexedConnection, Away> {
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT)).set_response_timeout(Some(ANSWER));
        let mut link = self.client.get_multiplexed_async_connection_with_config(&config).await?;
        let mut load = redis::pipe();
        for script in [WINDOW, PLACES, PRESENCE] {
            load.cmd("SCRIPT").arg("LOAD").arg(script).ignore();
        }
        load.query_async::<()>(&mut link).await?;
        Ok(link)
    }

    /// Says that this gateway is there, or that it leaves.
    pub(super) async fn appear(&self, link: &mut MultiplexedConnection, leaving: bool) -> Result<Presence, Away> {
        let silent = if leaving { Duration::ZERO } else { SILENT };
        let mut call = self.call(&self.scripts.presence, &self.key("gateways"));
        // Never what was the name before: the generator is the system's.
        let name = Ulid::generate().random() as u64;
        call.arg(&self.gateway).arg(name).arg(micros(silent));
        let (epoch, gateways): (u64, u32) = call.query_async(link).await?;
        Ok(Presence { epoch, gateways: gateways.max(1) })
    }

    /// Tells what is due, and the answers to it in its order.
    pub(super) async fn report(
        &self,
        link: &mut MultiplexedConnection,
        presence: Presence,
        reports: &[Report<'_>],
    ) -> Result<Vec<Answer>, Away> {
        let mut pipeline = Pipeline::with_capacity(reports.len());
        for report in reports {
            pipeline.add_command(self.asked(presence, report));
        }
        let answers: Vec<Vec<u64>> = pipeline.query_async(link).await?;
        reports.iter().zip(answers).map(|(report, answer)| understood(report.due, &answer)).collect()
    }

    fn asked(&self, Presence { epoch, gateways }: Presence, report: &Report<'_>) -> Cmd {
        match report.due {
            Due::Window { index, limit, report: said } => {
                let (kind, period) = WINDOWS[index];
                let mut call = self.call(&self.scripts.window, &self.account(kind, report));
                call.arg(epoch).arg(limit).arg(micros(period)).arg(said.spent);
                call.arg(gateways).arg(said.wanted).arg(micros(AHEAD)).arg(said.before);
                call.arg(&self.gateway).arg(said.number);
                call
            }
            Due::Places { limit, running, wants } => {
                let mut call = self.call(&self.scripts.places, &self.account(Limit::Concurrency, report));
                call.arg(epoch).arg(limit).arg(&self.gateway).arg(running);
                call.arg(gateways).arg(u8::from(wants)).arg(micros(DEAD));
                call
            }
        }
    }

    fn call(&self, script: &Script, key: &str) -> Cmd {
        let mut call = redis::cmd("EVALSHA");
        call.arg(script.get_hash()).arg(2).arg(key).arg(self.key("state"));
        call
    }

    fn account(&self, limit: Limit, Report { tenant, scope, .. }: &Report<'_>) -> String {
        let of = match scope {
            Scope::Tenant => "tenant".to_owned(),
            Scope::Key(name) => format!("key:{name}"),
            Scope::Model(name) => format!("model:{name}"),
        };
        // A name may have a colon, and so the tenant's length stands before it.
        self.key(&format!("limit:{limit}:{}:{tenant}:{of}", tenant.as_str().len()))
    }

    /// All in one slot, since a script reads two of them.
    fn key(&self, name: &str) -> String {
        format!("{{{}}}:{name}", self.prefix)
    }
}

fn understood(due: Due, answer: &[u64]) -> Result<Answer, Away> {
    match (due, answer) {
        (_, [0]) => Err(Away::OtherState),
        (Due::Window { index, .. }, &[1, granted, remaining, wait, reset]) => {
            let (wait, reset) = (Duration::from_micros(wait), Duration::from_micros(reset));
            Ok(Answer::Window { index, grant: Grant { granted, remaining, wait, reset } })
        }
        (Due::Places { .. }, &[1, granted, free]) => Ok(Answer::Places { granted, free }),
        _ => Err(Away::Answer(format!("{answer:?}"))),
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
