//! Requests that wait for a place at the workers of one base model. Which is
//! next the [`FairQueue`] says; here is who waits for its word.

mod room;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::queue::{Account, Ask, Bounds, FairQueue, Full, Served, Ticket};
use super::{Refusal, lock};
use crate::types::{Priority, TenantId};
use room::Room;

/// How long it is measured at least how fast a full line is served.
const MEASURED: Duration = Duration::from_secs(1);
/// Of what was measured last, in a moving average.
const NEWEST: f64 = 0.3;
/// An interactive request is refused only where it would miss its time by far:
/// the estimate may be wrong, and somebody waits.
const BENEFIT: f64 = 2.0;

/// The line of one base model.
#[derive(Default)]
pub(super) struct Line {
    state: Mutex<State>,
    /// Of the places, in percent: the last ones, for tenants that have few.
    headroom: u32,
}

#[derive(Default)]
struct State {
    queue: FairQueue<TenantId, Call>,
    /// Sequences that the workers run at one time; 0 where there is none, and
    /// then nobody has to wait to learn that.
    seats: u32,
    taken: u32,
    room: Room,
    pace: Pace,
}

/// Tells who waits that it is its turn, or that it waits in vain.
type Call = oneshot::Sender<Result<Seat, Refusal>>;

/// Tokens a second, while requests wait.
#[derive(Default)]
struct Pace {
    since: Option<Instant>,
    done: u64,
    rate: Option<f64>,
}

/// A place at the workers, held until dropped.
pub(super) struct Seat {
    line: Arc<Line>,
    seats: u32,
    account: Option<Account<TenantId>>,
    /// What the request took, as far as it came.
    pub took: Option<u64>,
}

/// How long a request may wait, and beside how many.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    pub until: Instant,
    pub bounds: Bounds,
}

/// Takes the request out of the line when nobody waits for it any more.
struct Waiting<'a> {
    line: &'a Arc<Line>,
    ticket: Option<Ticket<TenantId>>,
}

// === impl Line ===

impl Line {
    /// Of the places, the last `headroom` percent are for tenants that have few,
    /// while others are about.
    pub(super) fn new(headroom: u32) -> Self {
        Self { state: Mutex::default(), headroom }
    }

    /// The workers run so many sequences at one time.
    pub(super) fn resize(self: &Arc<Self>, seats: u32) {
        let mut state = lock(&self.state);
        state.seats = seats;
        // Also where nothing has changed: the time may have come for some who wait.
        self.serve(state);
    }

    /// Waits for a place.
    pub(super) async fn enter(self: &Arc<Self>, ask: Ask<TenantId>, patience: Patience) -> Result<Seat, Refusal> {
        let (call, called) = oneshot::channel();
        let waiting = {
            let mut state = lock(&self.state);
            state.room.asks(&ask.tenant, Instant::now());
            let wait = state.wait(&ask);
            let mut bounds = patience.bounds;
            if state.has_room(&ask, self.headroom) {
                // It goes past those who may not have the place.
                bounds.of_all = bounds.of_all.saturating_add(1);
            } else if let Some(wait) = wait {
                let left = patience.until.saturating_duration_since(Instant::now());
                let benefit = if ask.class == Priority::Interactive { BENEFIT } else { 1.0 };
                if wait > left.mul_f64(benefit) {
                    return Err(Refusal::TooLate { wait });
                }
            }
            let pushed = state.queue.push(ask, bounds, call).map_err(|(full, _)| Refusal::Full {
                of_tenant: full == Full::OfTenant,
                wait: wait.unwrap_or_default(),
            })?;
            if let Some(displaced) = pushed.displaced {
                let _ = displaced.send(Err(Refusal::Full { of_tenant: false, wait: wait.unwrap_or_default() }));
            }
            state.pace.begin();
            self.serve(state);
            Waiting { line: self, ticket: Some(pushed.ticket) }
        };
        let answer = tokio::time::timeout_at(patience.until, called).await;
        match answer {
            Ok(Ok(answer)) => {
                waiting.called();
                answer
            }
            // The sender is never dropped without a word but with the line.
            Ok(Err(_)) => Err(Refusal::TooLate { wait: Duration::ZERO }),
            Err(_) => {
                drop(waiting);
                Err(Refusal::Waited)
            }
        }
    }

    /// Of a tenant so many may wait: the newest of the others leave, and are told why.
    pub(super) fn keep(&self, tenant: &TenantId, most: usize, why: &Refusal) {
        let leaving = lock(&self.state).queue.evict(tenant, most);
        for call in leaving {
            let _ = call.send(Err(why.clone()));
        }
    }

    pub(super) fn waiting(&self) -> usize {
        lock(&self.state).queue.len()
    }

    pub(super) fn taken(&self) -> u32 {
        lock(&self.state).taken
    }

    /// Gives free places to those whose turn it is. Takes the lock with it: a
    /// place that nobody wants any more comes back here when it is dropped.
    fn serve(self: &Arc<Self>, mut state: std::sync::MutexGuard<'_, State>) {
        let mut unwanted = Vec::new();
        while let Some(Served { value: call, account }) = state.next(self.headroom) {
            let seats = account.seats();
            state.taken += seats;
            state.room.take(account.tenant(), seats);
            let seat = Seat { line: self.clone(), seats, account: Some(account), took: None };
            if let Err(Ok(seat)) = call.send(Ok(seat)) {
                unwanted.push(seat);
            }
        }
        if state.queue.is_empty() {
            state.pace.pause();
        }
        drop(state);
        drop(unwanted);
    }
}

// === impl State ===

impl State {
    /// Whether it would be served at once.
    fn has_room(&self, ask: &Ask<TenantId>, headroom: u32) -> bool {
        let may = |tenant: &TenantId, more| self.may(tenant, more, headroom, Instant::now());
        self.free() >= ask.seats && may(&ask.tenant, ask.seats) && self.queue.next(may).is_none()
    }

    fn may(&self, tenant: &TenantId, more: u32, headroom: u32, now: Instant) -> bool {
        let kept = u64::from(self.seats) * u64::from(headroom) / 100;
        self.seats == 0 || self.room.may(tenant, more, self.free(), kept as u32, now)
    }

    fn free(&self) -> u32 {
        match (self.seats, self.taken) {
            // One that needs more than there are has them to itself.
            (0, _) | (_, 0) => u32::MAX,
            (seats, taken) => seats.saturating_sub(taken),
        }
    }

    fn next(&mut self, headroom: u32) -> Option<Served<TenantId, Call>> {
        let now = Instant::now();
        let next = self.queue.next(|tenant, more| self.may(tenant, more, headroom, now))?;
        self.queue.pop(next, self.free())
    }

    /// How long a request would have to wait, where it can be told.
    fn wait(&self, ask: &Ask<TenantId>) -> Option<Duration> {
        let rate = self.pace.rate.filter(|rate| *rate > 0.0)?;
        Some(Duration::from_secs_f64((self.queue.ahead(ask) as f64 / rate).min(1e6)))
    }
}

// === impl Pace ===

impl Pace {
    fn begin(&mut self) {
        self.since.get_or_insert_with(Instant::now);
    }

    fn pause(&mut self) {
        (self.since, self.done) = (None, 0);
    }

    fn done(&mut self, tokens: u64) {
        let Some(since) = self.since else { return };
        self.done += tokens;
        let passed = since.elapsed();
        if passed < MEASURED {
            return;
        }
        let measured = self.done as f64 / passed.as_secs_f64();
        self.rate = Some(self.rate.map_or(measured, |rate| rate + (measured - rate) * NEWEST));
        (self.since, self.done) = (Some(Instant::now()), 0);
    }
}

// === impl Waiting ===

impl Waiting<'_> {
    /// It waits no more.
    fn called(mut self) {
        self.ticket = None;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket.take() else { return };
        let mut state = lock(&self.line.state);
        if state.queue.remove(ticket).is_some() {
            // Behind a large one there may be a small one that has room.
            self.line.serve(state);
        }
    }
}

// === impl Seat ===

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = lock(&self.line.state);
        state.taken -= self.seats;
        if let Some(account) = self.account.take() {
            state.room.give_back(account.tenant(), self.seats);
            let took = self.took.unwrap_or(0);
            state.pace.done(took);
            state.queue.settle(account, took);
        }
        self.line.serve(state);
    }
}

#[cfg(test)]
mod tests;
