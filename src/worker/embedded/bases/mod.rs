//! Which base models are in memory: loaded when a call wants one, once however
//! many ask; pinned while any call runs on it or waits for it; the one used
//! longest ago unloaded when another needs its memory.
//!
//! The table behind the lock ([`table`]) decides at once and never waits; loads
//! and unloads run on threads for blocking work, and go on when those who asked
//! go away. Claims to memory are met in the order in which they came, so that
//! no two base models wait for each other. What has to give way for a claim and
//! is in use takes no further calls: those wait, and have it loaded again.

mod table;
#[cfg(test)]
mod tests;

use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::{info, warn};

use crate::engine::Budget;
use crate::types::BaseName;
use crate::worker::WorkerError;

use super::plan::Share;
use table::{Order, Progress, Table};

/// How base models get into memory.
pub(super) trait Source: Send + Sync + 'static {
    type Base: Send + Sync + 'static;

    /// Takes seconds. An error says why in words.
    fn load(&self, name: &BaseName) -> Result<Self::Base, String>;

    /// Nothing can be done with it any more; loading it again may help.
    fn broken(base: &Self::Base) -> bool;

    /// Nobody uses it, and it is about to be unloaded.
    fn leaving(&self, name: &BaseName);
}

/// A base model that may be loaded.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) name: BaseName,
    pub(super) weights: u64,
    pub(super) share: Share,
}

/// How the base models are doing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Account {
    /// Those for which a call has to wait until they are loaded.
    pub(super) cold: Vec<BaseName>,
    /// What the weights of all others take, and of those on their way in or out.
    pub(super) weights: u64,
    /// Why none of them can be served.
    pub(super) unable: Option<String>,
}

pub(super) struct Bases<S: Source>(Arc<Shared<S>>);

struct Shared<S: Source> {
    source: S,
    /// What those that are not cold take is set aside here.
    pot: Arc<Budget>,
    /// How long a call waits for memory.
    patience: Duration,
    /// Where loads and unloads run: a pin may be dropped by a thread that has
    /// no runtime.
    runtime: Handle,
    table: Mutex<Table<S::Base>>,
    /// A task waits for the moment at which it is worth another look.
    looking: AtomicBool,
}

/// Keeps a base model in memory until dropped.
pub(super) struct Pin<S: Source> {
    // Before the ticket: with the last ticket the base model leaves, and then nobody else may hold it.
    base: Arc<S::Base>,
    ticket: Ticket<S>,
}

/// A place among those who wait for a base model or use it.
struct Ticket<S: Source> {
    shared: Arc<Shared<S>>,
    name: BaseName,
    flight: u64,
    progress: watch::Receiver<Progress>,
}

// === impl Bases ===

impl<S: Source> Bases<S> {
    /// None is loaded. `free` is the most that all may take together; loads
    /// and unloads run on the current runtime.
    pub(super) fn new(source: S, entries: &[Entry], free: u64, pot: Arc<Budget>, patience: Duration) -> Self {
        let table = Mutex::new(Table::new(entries, free, S::broken));
        Self(Arc::new(Shared {
            source,
            pot,
            patience,
            runtime: Handle::current(),
            table,
            looking: AtomicBool::new(false),
        }))
    }

    /// Loads one for which there is room, on this thread: at the start.
    pub(super) fn load_first(&self, name: &BaseName) -> Result<(), String> {
        let now = Instant::now();
        let place = self.0.table().ask(name, now).map_err(|error| error.to_string())?;
        // There is room, so the order is to load just this one.
        drop(self.0.table().advance(&self.0.pot, now));
        let outcome = self.0.load(name);
        // Nobody asked for it, so nobody holds it.
        self.0.release(name, place.flight);
        outcome
    }

    /// Has it loaded where it is not, and keeps it until the pin is dropped.
    /// The error reaches only those who asked for this one.
    pub(super) async fn pin(&self, name: &BaseName) -> Result<Pin<S>, WorkerError> {
        let deadline = Instant::now() + self.0.patience;
        loop {
            let mut ticket = self.0.ask(name)?;
            if let Some(base) = ticket.base(deadline).await? {
                return Ok(Pin { base, ticket });
            }
        }
    }

    pub(super) fn names(&self) -> Vec<BaseName> {
        self.0.table().names()
    }

    pub(super) fn account(&self) -> Account {
        self.0.table().account(Instant::now())
    }

    /// Calls `each` with every base model that is loaded.
    pub(super) fn each_loaded(&self, each: impl FnMut(&S::Base)) {
        self.0.table().each_loaded(each);
    }
}

// === impl Shared ===

impl<S: Source> Shared<S> {
    fn table(&self) -> MutexGuard<'_, Table<S::Base>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(self: &Arc<Self>, name: &BaseName) -> Result<Ticket<S>, WorkerError> {
        let place = self.table().ask(name, Instant::now())?;
        let ticket =
            Ticket { shared: self.clone(), name: name.clone(), flight: place.flight, progress: place.progress };
        self.advance();
        Ok(ticket)
    }

    fn release(self: &Arc<Self>, name: &BaseName, flight: u64) {
        self.table().release(name, flight);
        self.advance_and_look_again();
    }

    /// As [`Shared::advance`], by one who does not wait for anything: those who
    /// do may all be asleep until the end of their patience.
    fn advance_and_look_again(self: &Arc<Self>) {
        let Some(mut at) = self.advance() else { return };
        if self.looking.swap(true, Ordering::AcqRel) {
            return;
        }
        let shared = Arc::downgrade(self);
        self.runtime.spawn(async move {
            loop {
                sleep_until(at).await;
                let Some(shared) = shared.upgrade() else { return };
                shared.looking.store(false, Ordering::Release);
                match shared.advance() {
                    Some(next) if !shared.looking.swap(true, Ordering::AcqRel) => at = next,
                    _ => return,
                }
            }
        });
    }

    /// Starts whatever can be started now. Returns when it is worth another look though nobody has come or gone.
    fn advance(self: &Arc<Self>) -> Option<Instant> {
        let (orders, look_again) = {
            let mut table = self.table();
            let orders = table.advance(&self.pot, Instant::now());
            // Before anybody can ask for what belongs to it.
            for order in &orders {
                if let Order::Unload { name, .. } = order {
                    self.source.leaving(name);
                }
            }
            (orders, table.look_again())
        };
        for order in orders {
            let shared = self.clone();
            self.runtime.spawn_blocking(move || match order {
                Order::Load { name } => drop(shared.load(&name)),
                Order::Unload { name, base } => shared.unload(&name, base),
            });
        }
        look_again
    }

    fn load(self: &Arc<Self>, name: &BaseName) -> Result<(), String> {
        let started = Instant::now();
        let loaded = catch_unwind(AssertUnwindSafe(|| self.source.load(name)));
        let loaded = loaded.unwrap_or_else(|_| Err("loading it panicked".to_owned()));
        let seconds = started.elapsed().as_secs_f64();
        let outcome = match loaded {
            Ok(base) => {
                let bytes = self.table().loaded(name, base);
                info!(base = %name, seconds, bytes, "base model loaded");
                Ok(())
            }
            Err(error) => {
                warn!(base = %name, seconds, error, "base model not loaded");
                self.table().failed(name, &self.pot, Instant::now(), &error);
                Err(error)
            }
        };
        self.advance_and_look_again();
        outcome
    }

    fn unload(self: &Arc<Self>, name: &BaseName, base: Arc<S::Base>) {
        let started = Instant::now();
        // Its threads end in here.
        drop(base);
        let bytes = self.table().unloaded(name, &self.pot);
        info!(base = %name, seconds = started.elapsed().as_secs_f64(), bytes, "base model unloaded");
        self.advance_and_look_again();
    }
}

// === impl Ticket ===

impl<S: Source> Ticket<S> {
    /// Waits until the base model is there. `None` where it has to be asked for anew.
    async fn base(&mut self, deadline: Instant) -> Result<Option<Arc<S::Base>>, WorkerError> {
        loop {
            let now = self.progress.borrow_and_update().clone();
            match now {
                Progress::Ready => return Ok(self.shared.table().base(&self.name, self.flight)),
                Progress::Again => return Ok(None),
                Progress::Failed(error) => return Err(error),
                // The memory is there, so it ends.
                Progress::Loading => self.progress.changed().await.map_err(abandoned)?,
                Progress::Waiting => {
                    let look_again = self.shared.advance();
                    let until = look_again.map_or(deadline, |at| at.min(deadline));
                    match timeout_at(until, self.progress.changed()).await {
                        Ok(changed) => changed.map_err(abandoned)?,
                        Err(_) if Instant::now() >= deadline => return Err(WorkerError::Busy),
                        Err(_) => {}
                    }
                }
            }
        }
    }
}

fn abandoned(_: watch::error::RecvError) -> WorkerError {
    WorkerError::Unavailable("the load of the base model was abandoned".to_owned())
}

impl<S: Source> Drop for Ticket<S> {
    fn drop(&mut self) {
        self.shared.release(&self.name, self.flight);
    }
}

// === impl Pin ===

impl<S: Source> Pin<S> {
    pub(super) fn name(&self) -> &BaseName {
        &self.ticket.name
    }

    /// Lets whoever had something loaded for the base model come back to use
    /// it, before it leaves for another one.
    pub(super) fn keep_for_a_moment(&self) {
        self.ticket.shared.table().keep(&self.ticket.name, Instant::now());
    }
}

impl<S: Source> Deref for Pin<S> {
    type Target = S::Base;

    fn deref(&self) -> &S::Base {
        &self.base
    }
}
