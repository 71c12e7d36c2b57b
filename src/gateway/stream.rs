//! The events of a running generation, as the edges read them: the worker's
//! own, metered, and cut off by deadline and shutdown.
//!
//! This is the one wrapper that every token passes. It owns all that the
//! request holds; dropping it gives everything back and stops the worker.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, Stream};
use prometheus_client::metrics::histogram::Histogram;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::attempt::Attempt;
use super::failure;
use super::record::Record;
use crate::admission::Permit;
use crate::pool::Lease;
use crate::telemetry::StreamGauge;
use crate::types::{Error, Event, Finish};
use crate::worker::EventSource;

/// Yields events in [`Event`]'s order, then `None`; or one `Err`, then `None`.
pub struct EventStream {
    first: Option<Event>,
    /// `None` once the stream has ended and everything was given back.
    running: Option<Running>,
    record: Record,
}

struct Running {
    // Dropped in this order: the worker's work ends before its lease does.
    events: EventSource,
    _lease: Lease,
    _permit: Permit,
    _gauge: StreamGauge,
    limits: Limits,
    inter_token: Histogram,
    last_event: Instant,
}

/// What ends a stream from outside.
struct Limits {
    deadline: Instant,
    timeout: Duration,
    cut_off: CancellationToken,
    /// Ready when one of them is reached, for a stream that waits.
    reached: BoxFuture<'static, ()>,
}

// === impl EventStream ===

impl EventStream {
    pub(super) fn new(
        attempt: Attempt,
        permit: Permit,
        record: Record,
        deadline: Instant,
        timeout: Duration,
        cut_off: CancellationToken,
    ) -> Self {
        let running = Running {
            events: attempt.rest,
            _lease: attempt.lease,
            _permit: permit,
            _gauge: record.stream_gauge(),
            limits: Limits::new(deadline, timeout, cut_off),
            inter_token: record.inter_token(),
            last_event: Instant::now(),
        };
        Self { first: Some(attempt.first), running: Some(running), record }
    }

    fn end(&mut self, finish: Finish, error: Option<&Error>) {
        self.running = None;
        self.record.ended(finish, error);
    }
}

impl Stream for EventStream {
    type Item = Result<Event, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if let Some(first) = this.first.take() {
            this.record.event(&first);
            return Poll::Ready(Some(Ok(first)));
        }
        let Some(running) = &mut this.running else { return Poll::Ready(None) };
        let now = Instant::now();
        let (finish, error) = match running.limits.exceeded(now) {
            Some(reached) => reached,
            None => match running.events.as_mut().poll_next(cx) {
                Poll::Ready(Some(Ok(event))) => {
                    running.inter_token.observe((now - running.last_event).as_secs_f64());
                    running.last_event = now;
                    this.record.event(&event);
                    return Poll::Ready(Some(Ok(event)));
                }
                Poll::Ready(None) => {
                    this.end(Finish::Complete, None);
                    return Poll::Ready(None);
                }
                Poll::Ready(Some(Err(error))) => (Finish::Upstream, failure::worker(&error)),
                Poll::Pending => {
                    let Poll::Ready(()) = running.limits.reached.poll_unpin(cx) else { return Poll::Pending };
                    running.limits.exceeded(running.limits.deadline).expect("the future waits for nothing else")
                }
            },
        };
        this.end(finish, Some(&error));
        Poll::Ready(Some(Err(error)))
    }
}

impl Drop for EventStream {
    fn drop(&mut self) {
        if self.running.is_some() {
            self.end(Finish::ClientGone, None);
        }
    }
}

// === impl Limits ===

impl Limits {
    fn new(deadline: Instant, timeout: Duration, cut_off: CancellationToken) -> Self {
        let cancelled = cut_off.clone().cancelled_owned();
        let reached = async move {
            tokio::select! {
                () = cancelled => {}
                () = tokio::time::sleep_until(deadline) => {}
            }
        };
        Self { deadline, timeout, cut_off, reached: reached.boxed() }
    }

    fn exceeded(&self, now: Instant) -> Option<(Finish, Error)> {
        if self.cut_off.is_cancelled() {
            Some((Finish::Drained, failure::shutting_down()))
        } else if now >= self.deadline {
            Some((Finish::Deadline, failure::deadline(self.timeout)))
        } else {
            None
        }
    }
}
