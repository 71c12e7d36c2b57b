//! What is known of one request's way: its place in a trace, the steps it has
//! taken, and how long it waited for others in each.

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::export::{Described, Exporter, Spanned};
use super::random;
use crate::types::{SpanId, TraceContext, TraceId};

/// A part of a request's way that can take time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Its body arrives.
    Body,
    /// It waits for a place at the workers.
    Queue,
    /// The guard reads its prompt.
    Prompt,
    /// The same, with a judge outside who is asked as well.
    Judge,
    /// A worker is picked, and its adapter made ready there.
    Adapter,
    /// A worker answers it.
    Worker,
}

/// One request's.
pub struct Trail {
    began: SystemTime,
    started: Instant,
    /// The span that stands for the request, in whose name workers are asked.
    own: Option<TraceContext>,
    parent: Option<SpanId>,
    sender: Option<Arc<Exporter>>,
    steps: Mutex<Steps>,
}

#[derive(Default)]
struct Steps {
    open: Option<Open>,
    /// Time that others took.
    waited: Duration,
    /// The gateway's own time up to the first event.
    until_answered: Option<Duration>,
    /// And since.
    since: Duration,
    /// Those that ended, where the request is recorded.
    done: Vec<Spanned>,
    /// Whether somebody else than the edge tells its end.
    handed_over: bool,
}

struct Open {
    step: Step,
    since: Instant,
    span: Option<SpanId>,
    /// The worker that is asked.
    worker: Option<Arc<str>>,
    answered: Option<Instant>,
}

// === impl Step ===

impl Step {
    /// Of its span; `None`: it has none.
    fn span(self) -> Option<&'static str> {
        match self {
            Self::Body => None,
            Self::Queue => Some("admission.wait"),
            Self::Prompt | Self::Judge => Some("guard.prompt"),
            Self::Adapter => Some("adapter.load"),
            Self::Worker => Some("worker.call"),
        }
    }

    /// Whether others take that time.
    fn is_wait(self) -> bool {
        match self {
            Self::Body | Self::Judge | Self::Queue | Self::Adapter | Self::Worker => true,
            Self::Prompt => false,
        }
    }
}

// === impl Trail ===

impl Default for Trail {
    fn default() -> Self {
        Self::new(None, None, None)
    }
}

impl fmt::Debug for Trail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trail").field("own", &self.own).finish_non_exhaustive()
    }
}

impl Trail {
    pub(super) fn new(sender: Option<Arc<Exporter>>, own: Option<TraceContext>, parent: Option<SpanId>) -> Self {
        Self { began: SystemTime::now(), started: Instant::now(), own, parent, sender, steps: Mutex::default() }
    }

    /// Of the log's lines; `None` where nobody traces the request.
    pub fn id(&self) -> Option<TraceId> {
        self.own.as_ref().map(|own| own.trace)
    }

    /// The trace's id where it is recorded, and can be looked at.
    pub fn recorded(&self) -> Option<TraceId> {
        self.sender.as_ref().and(self.id())
    }

    pub fn started(&self) -> Instant {
        self.started
    }

    /// What was until now was not the gateway's time: the message had to arrive.
    pub fn arrived(&self) {
        self.lock().waited = self.started.elapsed();
    }

    /// From now on whoever runs the request tells its end.
    pub fn hand_over(&self) {
        self.lock().handed_over = true;
    }

    pub fn is_handed_over(&self) -> bool {
        self.lock().handed_over
    }

    /// The step before, if one was going on, has ended well.
    pub fn enter(&self, step: Step) {
        self.begin(step, None);
    }

    /// A worker is asked; returns what it may know of the trace.
    pub fn ask(&self, worker: &Arc<str>) -> Option<TraceContext> {
        self.begin(Step::Worker, Some(worker.clone()));
        let mut context = self.own.clone()?;
        if let Some(span) = self.lock().open.as_ref().and_then(|open| open.span) {
            context.span = span;
        }
        Some(context)
    }

    /// The worker that was asked has begun to answer; from now on the gateway
    /// tells its own part by [`Trail::spent`].
    pub fn answered(&self) {
        let now = Instant::now();
        let steps = &mut *self.lock();
        if let Some(open) = &mut steps.open {
            open.answered = Some(now);
            steps.waited += now - open.since;
        }
        steps.until_answered = Some((now - self.started).saturating_sub(steps.waited));
    }

    pub fn spent(&self, own: Duration) {
        self.lock().since += own;
    }

    /// The step that was going on has ended.
    pub fn leave(&self) {
        self.close(&mut self.lock(), None);
    }

    /// The step that was going on has failed.
    pub fn failed(&self, error: impl Into<Cow<'static, str>>) {
        self.close(&mut self.lock(), Some(error.into()));
    }

    /// The gateway's own time until now: what is left without the waiting.
    pub fn overhead(&self) -> Duration {
        let steps = &*self.lock();
        let own = steps.until_answered.unwrap_or_else(|| {
            let waits = steps.open.as_ref().filter(|open| open.step.is_wait());
            self.started.elapsed().saturating_sub(steps.waited + waits.map_or(Duration::ZERO, |it| it.since.elapsed()))
        });
        own + steps.since
    }

    /// The request has come to its end. `describe` is asked where it is recorded.
    pub fn end(&self, error: Option<&'static str>, describe: impl FnOnce() -> Described) {
        let Some(sender) = &self.sender else { return };
        let Some(own) = &self.own else { return };
        let mut steps = self.lock();
        self.close(&mut steps, error.map(Cow::Borrowed));
        let children = std::mem::take(&mut steps.done);
        drop(steps);
        sender.send(own, self.parent, self.began, self.at(Instant::now()), describe(), error, children);
    }

    fn begin(&self, step: Step, worker: Option<Arc<str>>) {
        let span = self.sender.as_ref().and(step.span()).map(|_| SpanId(random()));
        let mut steps = self.lock();
        self.close(&mut steps, None);
        steps.open = Some(Open { step, since: Instant::now(), span, worker, answered: None });
    }

    fn close(&self, steps: &mut Steps, error: Option<Cow<'static, str>>) {
        let Some(Open { step, since, span, worker, answered }) = steps.open.take() else { return };
        let now = Instant::now();
        if step.is_wait() && answered.is_none() {
            steps.waited += now - since;
        }
        if let (Some(span), Some(name)) = (span, step.span()) {
            let (from, to) = (self.at(since), self.at(now));
            let answered = answered.map(|at| self.at(at));
            steps.done.push(Spanned { span, name, from, to, worker, answered, error });
        }
    }

    /// The time of day of an instant of the request.
    fn at(&self, instant: Instant) -> SystemTime {
        self.began + (instant - self.started)
    }

    fn lock(&self) -> MutexGuard<'_, Steps> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
