//! Where events go. A sink takes a batch of them, in order, and says of each
//! what became of it; when to try again is the [shipper](crate::shipper)'s.

pub(crate) mod file;
pub(crate) mod http;
#[cfg(feature = "kafka")]
pub(crate) mod kafka;
pub(crate) mod lines;
#[cfg(feature = "nats")]
pub(crate) mod nats;
pub(crate) mod stdout;

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt as _};

use tokio::time::Instant;

use crate::EventType;

/// An event as sinks get it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its place in the spool.
    pub seq: i64,
    /// Unlike that of any other event of its source: what a receiver knows
    /// redeliveries by.
    pub id: String,
    pub tenant: String,
    pub kind: EventType,
    /// The generation's id.
    pub subject: String,
    /// The CloudEvent in JSON, on one line.
    pub payload: String,
}

/// What became of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is safe with the sink.
    Taken,
    /// It is not, or not known to be; it will be sent again, not before `after`.
    Later { why: String, after: Option<Duration> },
    /// It was not sent: one before it is to come again, or time was up. It
    /// comes again, and that is no failure.
    Untried,
    /// The sink will never take it.
    Refused { why: String },
}

/// A receiver of events.
pub trait Sink: Send {
    /// Takes events and returns an outcome for each. Of a tenant's events none
    /// may be taken after one that is to come again. Cancelled when it takes
    /// more than a minute: whatever it had sent then comes again.
    fn deliver<'a>(&'a mut self, batch: &'a [Entry]) -> BoxFuture<'a, Vec<Outcome>>;

    /// Called once at the end, when nothing more comes.
    fn close(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

// === impl Outcome ===

impl Outcome {
    pub(crate) fn later(why: impl ToString) -> Self {
        Self::Later { why: why.to_string(), after: None }
    }

    pub(crate) fn refused(why: impl ToString) -> Self {
        Self::Refused { why: why.to_string() }
    }
}

/// All of a batch failed alike.
pub(crate) fn all_later(batch: &[Entry], why: impl ToString) -> Vec<Outcome> {
    vec![Outcome::later(why); batch.len()]
}

/// Nothing is begun after this, so that a slow sink keeps what it has taken.
const BEGUN_WITHIN: Duration = Duration::from_secs(20);

/// Sends one event at a time for each tenant, and `together` tenants at once.
/// What follows an event that is to come again waits for it.
pub(crate) async fn by_tenant<'a, F, S>(batch: &'a [Entry], together: usize, send: F) -> Vec<Outcome>
where
    F: Fn(&'a Entry) -> S,
    S: Future<Output = Outcome>,
{
    let mut lanes: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (at, entry) in batch.iter().enumerate() {
        lanes.entry(&entry.tenant).or_default().push(at);
    }
    let (send, end) = (&send, Instant::now() + BEGUN_WITHIN);
    let lane = |lane: Vec<usize>| async move {
        let mut outcomes = Vec::with_capacity(lane.len());
        for at in lane {
            if Instant::now() >= end {
                break;
            }
            let outcome = send(&batch[at]).await;
            let last = matches!(outcome, Outcome::Later { .. });
            outcomes.push((at, outcome));
            if last {
                break;
            }
        }
        outcomes
    };
    let sent: Vec<_> = stream::iter(lanes.into_values().map(lane)).buffer_unordered(together).collect().await;
    let mut outcomes = vec![Outcome::Untried; batch.len()];
    for (at, outcome) in sent.into_iter().flatten() {
        outcomes[at] = outcome;
    }
    outcomes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(number: usize, tenant: u8) -> Entry {
        Entry {
            seq: number as i64,
            id: format!("rat_{number}"),
            tenant: format!("tenant-{tenant}"),
            kind: EventType::Rated,
            subject: String::new(),
            payload: String::new(),
        }
    }

    proptest! {
        /// None is sent after one of its tenant that is to come again.
        #[test]
        fn a_tenants_events_wait_for_the_one_before(
            events in prop::collection::vec((0_u8..3, 0_u8..8), 0..40), together in 1_usize..4
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
            let batch: Vec<_> = events.iter().enumerate().map(|(at, (tenant, _))| entry(at, *tenant)).collect();
            let judged = |at: usize| match events[at].1 {
                0 => Outcome::later("no"),
                1 => Outcome::refused("never"),
                _ => Outcome::Taken,
            };
            let outcomes = runtime.block_on(by_tenant(&batch, together, |entry| {
                let outcome = judged(entry.seq as usize);
                async move { outcome }
            }));
            for (at, (tenant, _)) in events.iter().enumerate() {
                let held = (0..at).any(|before| events[before].0 == *tenant && judged(before) == Outcome::later("no"));
                prop_assert_eq!(&outcomes[at], &if held { Outcome::Untried } else { judged(at) });
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_sink_keeps_what_it_took_in_time() {
        let batch: Vec<_> = (0..30).map(|at| entry(at, 0)).collect();
        let outcomes = by_tenant(&batch, 1, |_| async {
            tokio::time::sleep(Duration::from_secs(3)).await;
            Outcome::Taken
        })
        .await;
        let (taken, rest) = outcomes.split_at(7);
        assert!(taken.iter().all(|it| *it == Outcome::Taken) && rest.iter().all(|it| *it == Outcome::Untried));
    }
}
