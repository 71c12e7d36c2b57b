//! What end users think of generations; and what the log is told of these, for
//! ratings to be joined with.

use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Value, json};
use tenantry_ratings::{
    Ack, Action as LoggedAction, Blocked, Completed, Content, IdError, Policy, RateError, Rating, Ratings,
    Side as LoggedSide, SpoolError, Summary, Verdict,
};
use tracing::error;

use super::Gateway;
use crate::types::{
    Action, AdapterKey, Caller, Delta, Error, ErrorKind, Finding, FinishReason, GenerateRequest, GenerationId, Input,
    Prompt, Side, Tenant, Usage,
};

/// Bytes of one choice that are kept for the log.
const LONGEST: usize = 512 << 10;

/// What is kept of a generation for its event.
pub(super) struct Noted {
    ratings: Ratings,
    policy: Arc<Policy>,
    prompt: Value,
    completions: Vec<String>,
    findings: Vec<Finding>,
    began: SystemTime,
    first: Option<SystemTime>,
}

/// What its record knows of a generation that ended.
pub(super) struct Ended<'a> {
    pub id: GenerationId,
    pub caller: &'a Caller,
    pub model: &'a str,
    pub base: &'a str,
    pub adapter: Option<&'a AdapterKey>,
    pub worker: Option<&'a str>,
    pub route: &'static str,
    pub usage: Usage,
    pub finish: &'static str,
    pub finish_reason: Option<FinishReason>,
}

// === impl Gateway ===

impl Gateway {
    /// The same with ratings taken.
    pub fn rating(mut self, ratings: Option<Ratings>) -> Self {
        self.ratings = ratings;
        self
    }

    pub fn ratings(&self) -> Option<&Ratings> {
        self.ratings.as_ref()
    }

    /// Records ratings in their order, all of them or none: an answer means that they
    /// are on the disk.
    ///
    /// # Errors
    ///
    /// The first that is refused; `param` names its field, with its number where there
    /// are `several`.
    pub async fn rate(&self, caller: &Caller, ratings: Vec<Rating>, several: bool) -> Result<Vec<Ack>, Error> {
        let Some(room) = &self.ratings else { return Err(off()) };
        let policy = self.live.load().rated(&caller.tenant.id);
        let recorded = room.rate_all(&caller.tenant.id, &policy, ratings, SystemTime::now()).await;
        recorded.map_err(|unrated| refused(unrated.why, unrated.at, several))
    }

    /// Notes a rating that could not be read.
    pub fn rating_refused(&self) {
        if let Some(ratings) = &self.ratings {
            ratings.refused();
        }
    }

    /// How the tenant's models and adapters are liked.
    pub async fn liked(&self, tenant: &Tenant) -> Result<Vec<Summary>, Error> {
        let Some(room) = &self.ratings else { return Err(off()) };
        room.reader().summary(Some(&tenant.id)).await.map_err(|failed| {
            error!(%failed, "ratings cannot be summed up");
            Error::new(ErrorKind::Internal, "The ratings cannot be read at the moment.")
        })
    }

    /// An id for what is no generation, and cannot be rated.
    pub fn plain_id(&self) -> GenerationId {
        GenerationId::new(ulid::Ulid::generate())
    }

    /// An id for a generation of the caller's that is about to start.
    pub fn new_id(&self, caller: &Caller) -> GenerationId {
        match &self.ratings {
            Some(ratings) => ratings.issue(&caller.tenant.id),
            None => self.plain_id(),
        }
    }

    /// What will be kept of a generation, where anything is.
    pub(super) fn noted(&self, caller: &Caller, request: &GenerateRequest) -> Option<Noted> {
        let ratings = self.ratings.clone()?;
        let policy = self.live.load().rated(&caller.tenant.id);
        Some(Noted {
            ratings,
            policy,
            prompt: prompt(request),
            completions: Vec::new(),
            findings: Vec::new(),
            began: SystemTime::now(),
            first: None,
        })
    }
}

// === impl Noted ===

impl Noted {
    /// The worker has begun to answer.
    pub(super) fn first_event(&mut self) {
        self.first = Some(SystemTime::now());
    }

    /// What the client is given.
    pub(super) fn sent(&mut self, delta: &Delta) {
        self.findings.extend_from_slice(&delta.findings);
        if delta.text.is_empty() {
            return;
        }
        let choice = delta.choice as usize;
        if self.completions.len() <= choice {
            self.completions.resize_with(choice + 1, String::new);
        }
        let text = &mut self.completions[choice];
        if text.len() < LONGEST {
            text.push_str(&delta.text);
        }
    }

    /// The guard stopped the prompt.
    pub(super) fn blocked(self, ended: &Ended<'_>, finding: &Finding) {
        let content = Content { prompt: Some(self.prompt), completions: Vec::new() };
        self.ratings.blocked(&block(ended, finding, content), &self.policy);
    }

    pub(super) fn ended(self, ended: &Ended<'_>) {
        let Self { ratings, policy, prompt, completions, findings, began, first } = self;
        let content = Content { prompt: Some(prompt), completions };
        for finding in findings.iter().filter(|finding| finding.action == Action::Block) {
            ratings.blocked(&block(ended, finding, content.clone()), &policy);
        }
        let completed = Completed {
            generation: ended.id,
            tenant: ended.caller.tenant.id.clone(),
            model: ended.model.to_owned(),
            base: ended.base.to_owned(),
            adapter: ended.adapter.cloned(),
            worker: ended.worker.map(str::to_owned),
            route: ended.route,
            started: began,
            first_event: first,
            ended: SystemTime::now(),
            prompt_tokens: ended.usage.prompt_tokens.into(),
            completion_tokens: ended.usage.completion_tokens.into(),
            cached_tokens: ended.usage.cached_tokens.into(),
            finish: ended.finish,
            finish_reason: ended.finish_reason.map(FinishReason::as_str),
            guard: findings.iter().map(verdict).collect(),
            content: Some(content),
        };
        ratings.completed(&completed, &policy);
    }
}

fn block(ended: &Ended<'_>, finding: &Finding, content: Content) -> Blocked {
    Blocked {
        generation: ended.id,
        tenant: ended.caller.tenant.id.clone(),
        model: ended.model.to_owned(),
        base: ended.base.to_owned(),
        adapter: ended.adapter.cloned(),
        route: ended.route,
        at: SystemTime::now(),
        side: side(finding.side),
        categories: vec![finding.category.to_string()],
        content: Some(content),
    }
}

fn verdict(finding: &Finding) -> Verdict {
    let action = match finding.action {
        Action::Flag => LoggedAction::Flag,
        Action::Redact => LoggedAction::Redact,
        Action::Block => LoggedAction::Block,
    };
    Verdict { side: side(finding.side), action, categories: vec![finding.category.to_string()] }
}

fn side(side: Side) -> LoggedSide {
    match side {
        Side::Prompt => LoggedSide::Prompt,
        Side::Output => LoggedSide::Completion,
    }
}

/// A prompt as its event has it: messages, a text, or several.
fn prompt(request: &GenerateRequest) -> Value {
    match &request.input {
        Input::Chat(messages) => messages
            .iter()
            .map(|message| match &message.more {
                Some(more) => Value::Object(more.as_given.clone()),
                None => json!({ "role": message.role.as_str(), "content": message.content }),
            })
            .collect(),
        Input::Prompts(prompts) => {
            let value = |prompt: &Prompt| match prompt {
                Prompt::Text(text) => Value::from(text.as_str()),
                Prompt::Tokens(tokens) => Value::from(tokens.as_slice()),
            };
            match prompts.as_slice() {
                [one] => value(one),
                several => several.iter().map(value).collect(),
            }
        }
    }
}

fn off() -> Error {
    Error::new(ErrorKind::UnknownPath, "Ratings are not taken here.")
}

fn refused(error: RateError, at: usize, several: bool) -> Error {
    let path = |field: &str| match (several, field.is_empty()) {
        (false, _) => field.to_owned(),
        (true, true) => format!("[{at}]"),
        (true, false) => format!("[{at}].{field}"),
    };
    match error {
        RateError::Invalid(refusal) => {
            let field = path(&refusal.field);
            let message = if field.is_empty() { refusal.message } else { format!("{field}: {}", refusal.message) };
            let error = Error::new(ErrorKind::InvalidRequest, message);
            if field.is_empty() { error } else { error.with_param(field) }
        }
        RateError::Generation(id) => {
            let field = path("generation_id");
            let (code, message) = match id {
                IdError::Malformed => ("generation_malformed", format!("{field}: it is not a generation's id.")),
                IdError::Unknown => ("generation_not_found", format!("{field}: there is no such generation.")),
                IdError::Expired => ("generation_expired", format!("{field}: the generation is too old to be rated.")),
            };
            Error::invalid(field, message).with_code(code)
        }
        RateError::Spool(SpoolError::Full { retry_after }) => {
            let message = "No more ratings can be kept at the moment. Try again later.";
            Error::new(ErrorKind::SpoolFull, message).with_retry_after(retry_after)
        }
        RateError::Spool(SpoolError::Unnamed { most, .. }) => {
            let field = path("end_user");
            let message = format!(
                "{field}: the generation has {most} ratings without an end user, as many as it may have. Name the end \
                 user: a later rating of the same one takes the place of the one before."
            );
            Error::new(ErrorKind::TooManyRatings, message).with_param(field)
        }
        RateError::Spool(SpoolError::Closed) => super::failure::shutting_down(),
        RateError::Spool(SpoolError::Failed(reason)) => {
            Error::new(ErrorKind::Internal, "The rating could not be recorded. Try again later.").with_detail(reason)
        }
    }
}
