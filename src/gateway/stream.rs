//! The events of a running generation, as the edges read them: the worker's
//! own, metered, and cut off by deadline and shutdown.
//!
//! This is the one wrapper that every token passes, and the guard with it: where a
//! policy looks at answers, the worker's events go in there and what was judged
//! comes out. What the request holds
//! lives in here; dropping the stream gives everything back and stops the
//! worker. A reader that does not read is not polled, so the limits are kept by
//! a task of the stream's own, which takes away what the request holds.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::Stream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::attempt::{self, Attempt};
use super::failure;
use super::record::Record;
use crate::admission::Permit;
use crate::moderation::OutputGuard;
use crate::pool::{EventSource, Lease, Outcome};
use crate::telemetry::StreamGauge;
use crate::types::{Error, Event, Finish};

/// A reader that has not come for so long stands still.
const STANDS_STILL: Duration = Duration::from_secs(1);

/// Yields events in [`Event`]'s order, then `None`; or one `Err`, then `None`.
pub struct EventStream {
    shared: Arc<Mutex<Shared>>,
    /// Ends the stream when its time is up; ended with it.
    _limit: AbortOnDropHandle<()>,
}

/// What the reader and the limit both reach.
struct Shared {
    /// Without a guard: the event that was waited for already.
    first: Option<Event>,
    /// What the worker said is sent when this has judged it.
    guard: Option<OutputGuard>,
    /// How the worker's part ended, while the guard still has some of it.
    ended: Option<(Finish, Option<Error>)>,
    /// `None` once the stream has ended and everything was given back.
    running: Option<Running>,
    /// What a limit ended the stream with, until it is told.
    cut: Option<Error>,
    reader: Option<Waker>,
    /// When the reader was given an event and has not come for the next.
    idle: Option<Instant>,
    /// Since when only the guard is waited for.
    judging: Option<Instant>,
    record: Record,
}

/// All that a running generation holds.
struct Running {
    // Dropped in this order: the worker's work ends before its lease does.
    events: EventSource,
    lease: Lease,
    permit: Permit,
    _gauge: StreamGauge,
    last_token: Instant,
}

/// What ends a stream from outside.
pub(super) struct Limits {
    pub deadline: Instant,
    pub timeout: Duration,
    pub cut_off: CancellationToken,
}

// === impl EventStream ===

impl EventStream {
    pub(super) fn new(
        attempt: Attempt,
        mut permit: Permit,
        gauge: StreamGauge,
        mut record: Record,
        mut guard: Option<OutputGuard>,
        limits: Limits,
        tasks: &TaskTracker,
    ) -> Self {
        record.event(&attempt.first);
        let used = record.used();
        permit.used(used.prompt_tokens.into(), used.completion_tokens.into());
        let mut lease = attempt.lease;
        lease.generated(tokens(&attempt.first));
        let running = Running { events: attempt.rest, lease, permit, _gauge: gauge, last_token: Instant::now() };
        let first = match &mut guard {
            Some(guard) => {
                guard.push(attempt.first);
                None
            }
            None => Some(attempt.first),
        };
        let shared = Arc::new(Mutex::new(Shared {
            first,
            guard,
            ended: None,
            running: Some(running),
            cut: None,
            reader: None,
            idle: Some(Instant::now()),
            judging: None,
            record,
        }));
        let limit = tasks.spawn(limits.keep(shared.clone()));
        Self { shared, _limit: AbortOnDropHandle::new(limit) }
    }
}

impl Stream for EventStream {
    type Item = Result<Event, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let shared = &mut *lock(&self.shared);
        let polled_at = Instant::now();
        shared.idle = Some(polled_at);
        let began = shared.judging.take().unwrap_or(polled_at);
        let polled = if shared.guard.is_some() { shared.poll_judged(cx) } else { shared.poll_unjudged(cx) };
        let now = Instant::now();
        shared.record.spent(now - began);
        shared.judging = (polled.is_pending() && shared.awaits_guard()).then_some(now);
        match &polled {
            Poll::Ready(Some(Ok(event))) => shared.record.sent(event),
            Poll::Ready(_) => {}
            Poll::Pending => {
                shared.idle = None;
                match &mut shared.reader {
                    Some(reader) => reader.clone_from(cx.waker()),
                    reader => *reader = Some(cx.waker().clone()),
                }
            }
        }
        polled
    }
}

impl Drop for EventStream {
    fn drop(&mut self) {
        let mut shared = lock(&self.shared);
        if shared.running.is_some() || shared.ended.is_some() {
            shared.end(Finish::ClientGone, None);
        }
    }
}

/// How many tokens an event brings.
fn tokens(event: &Event) -> u32 {
    match event {
        Event::Delta(delta) => delta.tokens,
        Event::Finished { .. } | Event::Usage(_) => 0,
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Shared ===

impl Shared {
    /// Whether the next event depends on the guard's own models alone.
    fn awaits_guard(&self) -> bool {
        let waits = |guard: &OutputGuard| !guard.asks_outside() && (self.ended.is_some() || guard.is_full());
        self.guard.as_ref().is_some_and(waits)
    }

    /// The worker's next event as it is.
    fn poll_unjudged(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Event, Error>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        let Some(polled) = self.poll_worker(cx) else { return Poll::Ready(self.cut.take().map(Err)) };
        match std::task::ready!(polled) {
            Ok(event) => Poll::Ready(Some(Ok(event))),
            Err((finish, error)) => {
                self.end(finish, error.as_ref());
                Poll::Ready(error.map(Err))
            }
        }
    }

    /// The next event that was judged.
    fn poll_judged(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Event, Error>>> {
        loop {
            let Some(guard) = &mut self.guard else { return Poll::Ready(self.cut.take().map(Err)) };
            if let Poll::Ready(event) = guard.poll(cx) {
                if guard.has_stopped() && !guard.awaits_usage() && self.running.take().is_some() {
                    // What it wrote and nobody may read was generated all the same.
                    guard.push(Event::Usage(self.record.used()));
                    self.ended = Some((Finish::GuardStopped, None));
                }
                return Poll::Ready(Some(Ok(event)));
            }
            if let Some((finish, error)) = self.ended.take_if(|_| guard.is_done()) {
                let finish = if guard.has_stopped() && error.is_none() { Finish::GuardStopped } else { finish };
                self.end(finish, error.as_ref());
                return Poll::Ready(error.map(Err));
            }
            if self.ended.is_some() || guard.is_full() {
                return Poll::Pending;
            }
            let Some(polled) = self.poll_worker(cx) else { return Poll::Ready(self.cut.take().map(Err)) };
            let said = std::task::ready!(polled);
            let Some(guard) = &mut self.guard else { continue };
            match said {
                Ok(event) => guard.push(event),
                Err(ended) => {
                    self.running = None;
                    self.ended = Some(ended);
                    guard.end();
                }
            }
        }
    }

    /// What the worker says next, counted; or how it ended. `None` once it has.
    #[expect(clippy::type_complexity, reason = "it is taken apart where it is called")]
    fn poll_worker(&mut self, cx: &mut Context<'_>) -> Option<Poll<Result<Event, (Finish, Option<Error>)>>> {
        let running = self.running.as_mut()?;
        Some(match running.events.as_mut().poll_next(cx) {
            Poll::Ready(Some(Ok(event))) => {
                let tokens = tokens(&event);
                if tokens > 0 {
                    running.lease.generated(tokens);
                    let now = Instant::now();
                    self.record.inter_token(now - running.last_token);
                    running.last_token = now;
                }
                self.record.event(&event);
                let used = self.record.used();
                running.permit.used(used.prompt_tokens.into(), used.completion_tokens.into());
                Poll::Ready(Ok(event))
            }
            Poll::Ready(Some(Err(error))) => {
                running.lease.ended(attempt::outcome(&error));
                Poll::Ready(Err((Finish::Upstream, Some(failure::worker(&error)))))
            }
            Poll::Ready(None) => {
                running.lease.ended(Outcome::Succeeded);
                Poll::Ready(Err((Finish::Complete, None)))
            }
            Poll::Pending => Poll::Pending,
        })
    }

    /// A stream that nobody reads takes no steps at its worker, and has no place
    /// among those that do: others may have it.
    fn give_way(&mut self) {
        let stands = self.idle.is_some_and(|since| since.elapsed() >= STANDS_STILL);
        if let Some(running) = self.running.as_mut().filter(|_| stands) {
            running.permit.leave_place();
        }
    }

    fn end(&mut self, finish: Finish, error: Option<&Error>) {
        self.running = None;
        self.guard = None;
        self.ended = None;
        self.record.ended(finish, error);
    }
}

// === impl Limits ===

impl Limits {
    /// Waits for the first limit that is reached, and ends the stream.
    async fn keep(self, shared: Arc<Mutex<Shared>>) {
        let looking = async {
            loop {
                tokio::time::sleep(STANDS_STILL).await;
                lock(&shared).give_way();
            }
        };
        let (finish, error) = tokio::select! {
            () = self.cut_off.cancelled() => (Finish::Drained, failure::shutting_down()),
            () = tokio::time::sleep_until(self.deadline) => (Finish::Deadline, failure::deadline(self.timeout)),
            () = looking => return,
        };
        let reader = {
            let mut shared = lock(&shared);
            if shared.running.is_none() && shared.ended.is_none() {
                return;
            }
            shared.end(finish, Some(&error));
            shared.cut = Some(error);
            shared.reader.take()
        };
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}
