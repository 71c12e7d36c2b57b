//! What is remembered of a request, and told exactly once: one log line, the
//! counters, the histograms. Never its text.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;
use tracing::{Span, info, warn};

use super::rating::{Ended, Noted};
use super::{Arrival, traced};
use crate::adapters::{Catalogue, Used};
use crate::moderation::Blocked;
use crate::telemetry::{Metrics, ModelMetrics, Trail, Value};
use crate::types::{
    AdapterKey, Caller, Error, ErrorKind, Event, Finding, Finish, FinishReason, GenerateRequest, GenerationId,
    ModelRoute, Route, Tenant, TraceId, Usage,
};

pub(super) struct Record {
    pub(super) id: GenerationId,
    pub(super) caller: Caller,
    pub(super) route: Route,
    catalogue: Arc<Catalogue>,
    metrics: Arc<Metrics>,
    pub(super) started: Instant,
    trail: Arc<Trail>,
    /// Of the log: whatever is told of the request is told in it.
    span: Span,
    /// What its span will say of what was asked for; empty where nobody will see it.
    pub(super) asked_for: Vec<(&'static str, Value)>,
    /// What polling the stream took of the gateway's time.
    own: Duration,
    /// Known once the model name was found in the tenant.
    pub(super) model: Option<Model>,
    pub(super) worker: Option<Arc<str>>,
    /// When it had a place at the workers.
    seated: Option<Instant>,
    first_event: Option<Instant>,
    /// When the client was given its first text.
    pub(super) first_sent: Option<Instant>,
    /// What the guard found, in short.
    pub(super) findings: String,
    /// What its event will say.
    noted: Option<Noted>,
    /// Whether a worker has the prompt, and how long that is expected to be.
    read: Option<(Arc<AtomicBool>, u32)>,
    usage: Option<Usage>,
    /// What is known before the usage comes, for streams that end before it.
    pub(super) seen: Usage,
    pub(super) finish_reason: Option<FinishReason>,
    told: bool,
}

pub(super) struct Model {
    counts: Arc<ModelMetrics>,
    pub(super) name: Arc<str>,
    pub(super) base: String,
    pub(super) adapter: Option<AdapterKey>,
}

/// Logs and counts a request that ended before it became a generation.
pub(super) fn refusal(metrics: &Metrics, tenant: Option<&Tenant>, route: &'static str, error: &Error) {
    let tenant = tenant.map(|tenant| tenant.id.as_str());
    metrics.request(tenant, None, route, error.kind().as_str());
    info!(
        tenant,
        route,
        outcome = error.kind().as_str(),
        code = error.code(),
        error = error.detail(),
        "request refused"
    );
}

// === impl Record ===

impl Record {
    pub(super) fn new(
        Arrival { id, trail }: Arrival,
        caller: &Caller,
        request: &GenerateRequest,
        started: Instant,
        catalogue: &Arc<Catalogue>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let asked_for = if trail.recorded().is_some() { traced::asked_for(request) } else { Vec::new() };
        Self {
            id,
            caller: caller.clone(),
            route: request.route,
            catalogue: catalogue.clone(),
            metrics,
            started,
            trail,
            span: Span::current(),
            asked_for,
            own: Duration::ZERO,
            model: None,
            worker: None,
            seated: None,
            first_event: None,
            first_sent: None,
            findings: String::new(),
            noted: None,
            read: None,
            usage: None,
            seen: Usage::default(),
            finish_reason: None,
            told: false,
        }
    }

    pub(super) fn resolved(&mut self, name: Arc<str>, route: &ModelRoute) {
        let counts = self.metrics.model(self.caller.tenant.id.as_str(), &name);
        self.model = Some(Model { counts, name, base: route.base.to_string(), adapter: route.adapter.clone() });
    }

    /// It has a place at the workers.
    pub(super) fn seated(&mut self) {
        let now = Instant::now();
        self.seated = Some(now);
        self.metrics.queue_wait(now - self.started, self.trace());
    }

    /// It is asked of workers; `read` tells whether one has the prompt.
    pub(super) fn asked(&mut self, read: Arc<AtomicBool>, expected: u64) {
        self.read = Some((read, u32::try_from(expected).unwrap_or(u32::MAX)));
    }

    /// Tokens read and written so far, as far as they are known.
    pub(super) fn used(&self) -> Usage {
        self.usage.unwrap_or(self.seen)
    }

    /// The worker has begun to answer.
    pub(super) fn first_event(&mut self, worker: Arc<str>, prompt_tokens: u32) {
        self.seen.prompt_tokens = prompt_tokens;
        let now = Instant::now();
        self.worker = Some(worker);
        self.first_event = Some(now);
        if let Some(noted) = &mut self.noted {
            noted.first_event();
        }
        self.trail.answered();
        if let Some(model) = &self.model {
            model.counts.worker_first_token(now - self.started, self.trace());
        }
    }

    pub(super) fn event(&mut self, event: &Event) {
        match event {
            Event::Delta(delta) => self.seen.completion_tokens += delta.tokens,
            Event::Finished { .. } => {}
            Event::Usage(usage) => self.usage = Some(*usage),
        }
    }

    /// What the client is given.
    pub(super) fn sent(&mut self, event: &Event) {
        match event {
            Event::Delta(delta) => {
                self.found(&delta.findings);
                if let Some(noted) = &mut self.noted {
                    noted.sent(delta);
                }
                if self.first_sent.is_none() && (!delta.text.is_empty() || delta.extra.is_some()) {
                    let now = Instant::now();
                    self.first_sent = Some(now);
                    if let Some(model) = &self.model {
                        model.counts.first_token(now - self.started, self.trace());
                    }
                }
            }
            Event::Finished { reason, .. } => self.finish_reason = Some(*reason),
            Event::Usage(_) => {}
        }
    }

    /// What its event will be made of.
    pub(super) fn noted(&mut self, noted: Option<Noted>) {
        self.noted = noted;
    }

    /// The guard lets its prompt go no further.
    pub(super) fn blocked(&mut self, blocked: &Blocked) {
        let Blocked::Found(finding) = blocked else { return };
        self.found(std::slice::from_ref(finding));
        if let Some(noted) = self.noted.take()
            && let Some(ended) = self.for_event(self.seen, "content_filter")
        {
            noted.blocked(&ended, finding);
        }
    }

    fn for_event(&self, usage: Usage, finish: &'static str) -> Option<Ended<'_>> {
        let model = self.model.as_ref()?;
        Some(Ended {
            id: self.id,
            caller: &self.caller,
            model: &model.name,
            base: &model.base,
            adapter: model.adapter.as_ref(),
            worker: self.worker.as_deref(),
            route: self.route.as_str(),
            usage,
            finish,
            finish_reason: self.finish_reason,
        })
    }

    /// What the guard found; never the text.
    pub(super) fn found(&mut self, findings: &[Finding]) {
        for Finding { side, action, category, .. } in findings {
            let found = format!("{}/{}/{category}", side.as_str(), action.as_str());
            if !self.findings.split(',').any(|other| other == found) {
                let comma = if self.findings.is_empty() { "" } else { "," };
                let _ = write!(self.findings, "{comma}{found}");
            }
        }
    }

    /// The request failed before its first event.
    pub(super) fn refused(mut self, error: &Error) {
        self.note_read(match error.kind() {
            ErrorKind::Deadline => Finish::Deadline,
            ErrorKind::ShuttingDown => Finish::Drained,
            // A prompt that turned out too long: the worker did what it was asked.
            _ => Finish::Complete,
        });
        self.tell(error.kind().as_str(), Some(error));
    }

    /// The generation ended.
    pub(super) fn ended(&mut self, finish: Finish, error: Option<&Error>) {
        let usage = self.used();
        if let Some(model) = &self.model {
            model.counts.tokens(usage.prompt_tokens.into(), usage.completion_tokens.into());
        }
        self.note(usage, finish);
        self.tell(finish.as_str(), error);
    }

    /// Writes down a prompt that a worker has read of a request that did not
    /// see its first event.
    fn note_read(&mut self, finish: Finish) {
        let Some((_, prompt_tokens)) = self.read.take().filter(|(read, _)| read.load(Ordering::Relaxed)) else {
            return;
        };
        self.seen.prompt_tokens = prompt_tokens;
        if let Some(model) = &self.model {
            model.counts.tokens(prompt_tokens.into(), 0);
        }
        self.note(self.seen, finish);
    }

    /// Writes down what it used.
    fn note(&mut self, usage: Usage, finish: Finish) {
        if let Some(noted) = self.noted.take()
            && let Some(ended) = self.for_event(usage, finish.as_str())
        {
            noted.ended(&ended);
        }
        let Some(model) = &self.model else { return };
        let seated = self.seated.unwrap_or(self.started);
        self.catalogue.note_usage(Used {
            id: self.id.to_string(),
            tenant: self.caller.tenant.id.to_string(),
            key: self.caller.key.name.to_string(),
            model: model.name.to_string(),
            base: model.base.clone(),
            adapter: model.adapter.as_ref().map(ToString::to_string),
            input: usage.prompt_tokens.into(),
            output: usage.completion_tokens.into(),
            cached: usage.cached_tokens.into(),
            queue: seated - self.started,
            service: seated.elapsed(),
            finish: finish.as_str(),
            ended: super::unix_seconds(SystemTime::now()),
        });
    }

    /// The next token came so long after the one before.
    pub(super) fn inter_token(&self, time: Duration) {
        if let Some(model) = &self.model {
            model.counts.inter_token(time);
        }
    }

    /// So much more of the gateway's time went into its stream.
    pub(super) fn spent(&mut self, own: Duration) {
        self.own += own;
    }

    /// The trace that it can be seen in.
    fn trace(&self) -> Option<TraceId> {
        self.trail.recorded()
    }

    fn tell(&mut self, outcome: &'static str, error: Option<&Error>) {
        self.told = true;
        let tenant = self.caller.tenant.id.as_str();
        let model = self.model.as_ref();
        let usage = self.used();
        let route = self.route.as_str();
        match model {
            Some(model) => self.metrics.ended(&model.counts, route, outcome),
            None => self.metrics.request(Some(tenant), None, route, outcome),
        }
        self.trail.spent(self.own);
        self.metrics.overhead(route, self.trail.overhead(), self.trace());
        let failed = error.map(|error| error.kind().as_str());
        self.trail.end(failed, || traced::described(self, outcome));
        let queued = self.seated.map(|at| (at - self.started).as_secs_f64());
        let to_first = self.first_event.map(|at| (at - self.started).as_secs_f64());
        let to_first_sent = self.first_sent.map(|at| (at - self.started).as_secs_f64());
        let guard = (!self.findings.is_empty()).then_some(self.findings.as_str());
        // Never the message: it may quote what the tenant wrote.
        let detail = error.and_then(Error::detail);
        macro_rules! line {
            ($level:ident) => {
                $level!(
                    parent: &self.span,
                    id = %self.id,
                    tenant,
                    key = &*self.caller.key.name,
                    route = self.route.as_str(),
                    model = model.map(|model| &*model.name),
                    base = model.map(|model| &*model.base),
                    adapter = model.and_then(|model| model.adapter.as_ref()).map(tracing::field::display),
                    worker = self.worker.as_deref(),
                    outcome,
                    finish_reason = self.finish_reason.map(FinishReason::as_str),
                    error = detail,
                    prompt_tokens = usage.prompt_tokens,
                    completion_tokens = usage.completion_tokens,
                    queue_seconds = queued,
                    first_event_seconds = to_first,
                    first_sent_seconds = to_first_sent,
                    guard,
                    seconds = self.started.elapsed().as_secs_f64(),
                    "request"
                )
            };
        }
        if error.is_some_and(|error| ours_to_mend(error.kind())) { line!(warn) } else { line!(info) }
    }
}

impl Drop for Record {
    /// A request whose future is dropped before its first event was left by
    /// its client; nobody else gets to tell it.
    fn drop(&mut self) {
        if !self.told {
            self.note_read(Finish::ClientGone);
            self.tell(Finish::ClientGone.as_str(), None);
        }
    }
}

/// Whether an operator should look at it.
fn ours_to_mend(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::Upstream
            | ErrorKind::NoWorker
            | ErrorKind::AdapterUnavailable
            | ErrorKind::AdapterInvalid
            | ErrorKind::Internal
    )
}
