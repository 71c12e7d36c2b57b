//! Places at an engine that does not notice a client's going while its request
//! waits there. Requests wait here instead, where leaving is dropping.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use arc_swap::ArcSwapOption;
use futures_util::Stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::types::Event;
use crate::worker::{EventSource, WorkerError};

#[derive(Default)]
pub(super) struct Places {
    /// `None` before the engine has said how many it has: nobody waits then.
    now: ArcSwapOption<Slots>,
    waiting: AtomicU64,
}

struct Slots {
    places: u32,
    free: Arc<Semaphore>,
}

/// Taken until dropped.
pub(super) struct Place(#[expect(dead_code, reason = "held for its drop")] Option<OwnedSemaphorePermit>);

/// Counts one that waits, as long as it does.
struct Waiting<'a>(&'a AtomicU64);

struct Holding {
    events: EventSource,
    _place: Place,
}

// === impl Places ===

impl Places {
    /// The engine has so many. Those who wait do so for the new ones; who has
    /// one of the old ones keeps it.
    pub(super) fn resize(&self, places: u32) {
        if self.places() == Some(places) {
            return;
        }
        let now = Slots { places, free: Arc::new(Semaphore::new(places as usize)) };
        if let Some(before) = self.now.swap(Some(Arc::new(now))) {
            before.free.close();
        }
    }

    pub(super) fn places(&self) -> Option<u32> {
        self.now.load().as_ref().map(|now| now.places)
    }

    /// Requests that wait for places.
    pub(super) fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Acquire)
    }

    /// Takes `wanted` places, in the order of asking; all, where there are fewer.
    pub(super) async fn take(&self, wanted: u32) -> Place {
        let _waiting = Waiting::new(&self.waiting);
        loop {
            let Some(now) = self.now.load_full() else { return Place(None) };
            // Closed: another number of places holds.
            if let Ok(permit) = now.free.clone().acquire_many_owned(wanted.min(now.places)).await {
                return Place(Some(permit));
            }
        }
    }
}

// === impl Waiting ===

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicU64) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

// === impl Place ===

impl Place {
    /// The events hold the place until they are dropped.
    pub(super) fn with(self, events: EventSource) -> EventSource {
        Box::pin(Holding { events, _place: self })
    }
}

impl Stream for Holding {
    type Item = Result<Event, WorkerError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.events.as_mut().poll_next(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn one_more_waits_and_leaves_without_a_trace() {
        let places = Places::default();
        places.resize(2);
        let (one, _two) = (places.take(1).await, places.take(1).await);
        {
            let mut third = pin!(places.take(1));
            assert!((&mut third).now_or_never().is_none());
            assert_eq!(places.waiting(), 1);
        }
        assert_eq!(places.waiting(), 0);
        drop(one);
        assert!(places.take(1).now_or_never().is_some());
    }

    #[tokio::test]
    async fn another_number_of_places_holds_for_those_who_wait() {
        let places = Places::default();
        assert!(places.take(9).now_or_never().is_some(), "how many is not known");
        places.resize(1);
        let _old = places.take(1).await;
        let mut waiting = pin!(places.take(1));
        assert!((&mut waiting).now_or_never().is_none());
        places.resize(1);
        assert!((&mut waiting).now_or_never().is_none(), "as many as before");
        places.resize(2);
        assert!(waiting.now_or_never().is_some());
    }

    #[tokio::test]
    async fn who_wants_more_than_there_are_gets_all() {
        let places = Places::default();
        places.resize(2);
        let all = places.take(5).await;
        assert!(places.take(1).now_or_never().is_none());
        drop(all);
        assert!(places.take(1).now_or_never().is_some());
    }
}
