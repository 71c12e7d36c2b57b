//! What takes events from the spool to a sink: one task for each, so that one
//! that is down, slow or refusing costs the others nothing.
//!
//! Events are delivered at least once, each tenant's in order: whoever drops
//! events whose `id` it has seen gets each once. A position is noted when all
//! before it is with the sink, or in the sink's file of dead letters. Where a
//! sink fails for one tenant alone, the others' events go on to the end of a batch.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::FutureExt as _;
use serde_json::value::RawValue;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tracing::{error, info, warn};

use crate::SinkKind;
use crate::breaker::Breaker;
use crate::event::time;
use crate::metrics::SinkMetrics;
use crate::sinks::file::Shared;
use crate::sinks::lines::{FileCompression, Rotation};
use crate::sinks::{Entry, Outcome, Sink};
use crate::spool::{Batch, Log, Spool};

/// A delivery that takes longer is given up and tried again.
const LONGEST_DELIVERY: Duration = Duration::from_secs(60);
/// How long the spool is let alone when it could not be read.
const AGAIN: Duration = Duration::from_secs(1);

pub(crate) struct Shipper {
    pub(crate) sink: Box<dyn Sink>,
    /// What another one is made of, when this one is not to be trusted any more.
    pub(crate) again: Option<SinkKind>,
    /// `None`: as it was noted in the spool.
    pub(crate) position: Option<i64>,
    pub(crate) log: Log,
    pub(crate) spool: Spool,
    pub(crate) committed: watch::Receiver<i64>,
    pub(crate) notes: Notes,
}

/// What is told and counted of a sink, and where its dead letters go.
pub(crate) struct Notes {
    pub(crate) name: String,
    pub(crate) dead: Shared,
    pub(crate) metrics: Arc<SinkMetrics>,
}

/// When to stop.
#[derive(Clone)]
pub(crate) struct Ending {
    /// Set when nothing more comes into the spool: what is in it may be sent
    /// until then.
    pub(crate) until: watch::Receiver<Option<Instant>>,
}

/// One line of a file of dead letters.
#[derive(serde::Serialize)]
struct DeadLetter<'a> {
    sink: &'a str,
    reason: &'a str,
    at: String,
    event: &'a RawValue,
}

// === impl Shipper ===

impl Shipper {
    /// Ships until the end: as far as it comes before the deadline.
    pub(crate) async fn run(mut self, ending: Ending) {
        tokio::select! {
            () = self.keep_shipping(ending.clone()) => {}
            () = ending.deadline() => {
                warn!(sink = self.notes.name, "what the sink did not take is sent after the next start");
            }
        }
        // A sink that hangs does not hold the end.
        let _ = timeout(AGAIN, self.sink.close()).await;
    }

    /// A panic is a bug in a sink or in its library: it goes on with a new sink
    /// where the last one was, later and later.
    async fn keep_shipping(&mut self, ending: Ending) {
        let mut breaker = Breaker::default();
        loop {
            let shipped = AssertUnwindSafe(self.ship(ending.clone(), &mut breaker)).catch_unwind().await;
            let Err(panic) = shipped else { return };
            self.notes.panicked(&mut breaker, &what_panicked(&*panic)).await;
            match self.again.as_ref().and_then(SinkKind::again).map(SinkKind::open) {
                Some(Ok(sink)) => self.sink = sink,
                Some(Err(why)) => error!(sink = self.notes.name, why, "the sink could not be made again"),
                None => {}
            }
        }
    }

    async fn ship(&mut self, mut ending: Ending, breaker: &mut Breaker) {
        let mut position = loop {
            if let Some(position) = self.position {
                break position;
            }
            match self.log.position(&self.notes.name).await {
                Ok(position) => break position,
                Err(error) => self.notes.unreadable(&error).await,
            }
        };
        loop {
            let batch = match self.log.after(position, Batch::USUAL).await {
                Ok(batch) => batch,
                Err(error) => {
                    self.notes.unreadable(&error).await;
                    continue;
                }
            };
            let Some(last) = batch.last().map(|entry| entry.seq) else {
                if ending.is_near() {
                    return;
                }
                tokio::select! {
                    moved = self.committed.wait_for(|last| *last > position) => {
                        if moved.is_err() {
                            return;
                        }
                    }
                    () = ending.nears() => {}
                }
                continue;
            };
            self.deliver(batch, breaker).await;
            position = last;
            self.position = Some(last);
            // Where the writer is gone, some events come twice after the next start.
            self.spool.moved(&self.notes.name, position).await;
        }
    }

    /// Returns when every event is with the sink or in the file of dead letters.
    async fn deliver(&mut self, mut pending: Vec<Entry>, breaker: &mut Breaker) {
        while !pending.is_empty() {
            let tried = if breaker.is_open() { &pending[..1] } else { &pending[..] };
            let outcomes = match timeout(LONGEST_DELIVERY, self.sink.deliver(tried)).await {
                Ok(outcomes) => outcomes,
                Err(_) => crate::sinks::all_later(tried, "it took too long"),
            };
            let (mut taken, mut failure) = (0, None);
            let mut outcomes = outcomes.into_iter();
            let mut left = Vec::new();
            for entry in pending {
                match outcomes.next() {
                    Some(Outcome::Taken) => {
                        taken += 1;
                        self.notes.metrics.deliver();
                    }
                    Some(Outcome::Refused { why }) => match self.notes.bury(&entry, &why).await {
                        Ok(()) => taken += 1,
                        Err(error) => {
                            failure.get_or_insert((format!("a dead letter could not be written: {error}"), None));
                            left.push(entry);
                        }
                    },
                    Some(Outcome::Later { why, after }) => {
                        failure.get_or_insert((why, after));
                        left.push(entry);
                    }
                    Some(Outcome::Untried) | None => left.push(entry),
                }
            }
            pending = left;
            if taken > 0 {
                self.notes.succeeded(breaker);
            }
            if taken == 0 && !pending.is_empty() {
                failure.get_or_insert(("it took nothing".to_owned(), None));
            }
            if let Some((why, after)) = failure {
                self.notes.failed(breaker, &why, after).await;
            }
        }
    }
}

// === impl Notes ===

impl Notes {
    /// Puts away an event that the sink refuses for good.
    async fn bury(&self, entry: &Entry, reason: &str) -> std::io::Result<()> {
        let event = RawValue::from_string(entry.payload.clone())?;
        let letter = DeadLetter { sink: &self.name, reason, at: time(SystemTime::now()), event: &event };
        let mut line = serde_json::to_vec(&letter)?;
        line.push(b'\n');
        self.dead.append(line).await?;
        error!(sink = self.name, event = entry.id, reason, "the sink refused an event, which is a dead letter now");
        self.metrics.dead_letter();
        Ok(())
    }

    fn succeeded(&self, breaker: &mut Breaker) {
        if breaker.is_open() {
            info!(sink = self.name, "the sink takes events again");
        }
        breaker.succeeded();
        self.metrics.breaker(false);
    }

    async fn failed(&self, breaker: &mut Breaker, why: &str, after: Option<Duration>) {
        let mut random = [0; 8];
        // Without a random number all pause alike.
        let _ = getrandom::fill(&mut random);
        let was_open = breaker.is_open();
        let pause = breaker.failed(u64::from_ne_bytes(random), after);
        if breaker.is_open() && !was_open {
            warn!(sink = self.name, why, "the sink takes no events; they are kept");
        }
        self.metrics.breaker(breaker.is_open());
        self.metrics.retry();
        sleep(pause).await;
    }

    async fn panicked(&self, breaker: &mut Breaker, why: &str) {
        error!(sink = self.name, why, "the sink panicked and is begun again");
        self.metrics.restart();
        self.failed(breaker, why, None).await;
    }

    async fn unreadable(&self, error: &sqlx::Error) {
        error!(sink = self.name, %error, "the spool cannot be read");
        sleep(AGAIN).await;
    }
}

fn what_panicked(panic: &(dyn Any + Send)) -> String {
    let said = panic.downcast_ref::<String>().map(String::as_str);
    said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked").to_owned()
}

/// A sink's file of dead letters.
pub(crate) fn dead_letters(folder: &Path, sink: &str) -> Shared {
    let rotation = Rotation { compression: FileCompression::None, ..Rotation::default() };
    Shared::new(&folder.join("dead-letters"), sink, rotation)
}

// === impl Ending ===

impl Ending {
    fn is_near(&self) -> bool {
        self.until.borrow().is_some()
    }

    async fn nears(&mut self) {
        // Whoever would tell is gone: that is the end too.
        let _ = self.until.wait_for(Option::is_some).await;
    }

    async fn deadline(mut self) {
        let until = self.until.wait_for(Option::is_some).await.map_or(None, |until| *until);
        if let Some(until) = until {
            tokio::time::sleep_until(until).await;
        }
    }
}
