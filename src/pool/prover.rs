//! Asks a worker for probes' answers. Speaks to the driver itself: what is
//! asked here is nobody's request.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;

use super::probe::{self, LONGEST, QUESTIONS, Step};
use crate::adapters::{Artifact, Probe};
use crate::types::{AdapterKey, BaseName, Delta, Event, FinishReason, GenerateRequest, GenerationId, TenantId};
use crate::worker::{Call, Driver, WorkerError};

/// The longest that one probe may take: it is a few tokens.
const LIMIT: Duration = Duration::from_secs(60);

/// A worker whose queue is full is asked again so much later.
const LATER: Duration = Duration::from_millis(100);

/// Whose requests probes are, where the engine keeps tenants apart. No tenant
/// of the configuration can have this name.
const PROBER: &str = "(probe)";

pub(super) struct Prover {
    driver: Arc<dyn Driver>,
    /// What the base models answer here, by question.
    bases: Mutex<HashMap<Asked, Arc<[Step]>>>,
}

/// A base model, and one of the questions.
type Asked = (BaseName, usize);

/// What came of comparing an adapter's answer with its probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    Matches,
    Mismatches,
    /// It answered nothing that could be compared.
    CannotTell,
}

/// What came of looking for a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Recorded {
    Probe(Probe),
    /// The adapter answers like its base.
    Indistinct,
    /// This worker does not say how sure it was of its tokens.
    CannotTell,
}

struct Answer {
    text: String,
    /// `None` where the worker told no log-probabilities.
    steps: Option<Vec<Step>>,
}

// === impl Prover ===

impl Prover {
    pub(super) fn new(driver: Arc<dyn Driver>) -> Self {
        Self { driver, bases: Mutex::default() }
    }

    /// Asks the loaded adapter what its probe asks.
    pub(super) async fn compare(&self, artifact: &Artifact, probe: &Probe) -> Result<Proof, WorkerError> {
        let request = probe::request(&probe.prompt, probe.tokens, None);
        let answer = self.ask(&artifact.base, Some(&artifact.key), request).await?;
        Ok(match probe::matches(probe, &answer.text) {
            true => Proof::Matches,
            // A parser of the engine's has put it elsewhere, say.
            false if answer.text.trim().is_empty() => Proof::CannotTell,
            false => Proof::Mismatches,
        })
    }

    /// Looks for what tells the loaded adapter from its base. What is found
    /// was asked once more, as it will be after each load.
    pub(super) async fn record(&self, artifact: &Artifact) -> Result<Recorded, WorkerError> {
        for (index, question) in QUESTIONS.iter().enumerate() {
            let request = probe::request(question, LONGEST, Some(2));
            let adapter = self.ask(&artifact.base, Some(&artifact.key), request);
            let (adapter, base) = tokio::try_join!(adapter, self.base(&artifact.base, index))?;
            let (Some(steps), Some(base)) = (adapter.steps, base) else { return Ok(Recorded::CannotTell) };
            if let Some(probe) = probe::choose(question, &steps, &base)
                && self.compare(artifact, &probe).await? == Proof::Matches
            {
                return Ok(Recorded::Probe(probe));
            }
        }
        Ok(Recorded::Indistinct)
    }

    async fn base(&self, base: &BaseName, index: usize) -> Result<Option<Arc<[Step]>>, WorkerError> {
        let place = (base.clone(), index);
        let known = self.bases.lock().unwrap_or_else(PoisonError::into_inner).get(&place).cloned();
        if known.is_some() {
            return Ok(known);
        }
        let request = probe::request(QUESTIONS[index], LONGEST, Some(2));
        let Some(steps) = self.ask(base, None, request).await?.steps else { return Ok(None) };
        let steps: Arc<[Step]> = steps.into();
        self.bases.lock().unwrap_or_else(PoisonError::into_inner).insert(place, steps.clone());
        Ok(Some(steps))
    }

    async fn ask(
        &self,
        base: &BaseName,
        adapter: Option<&AdapterKey>,
        request: GenerateRequest,
    ) -> Result<Answer, WorkerError> {
        let call = Call {
            id: GenerationId::new(ulid::Ulid::generate()),
            tenant: TenantId::new(PROBER),
            base: base.clone(),
            adapter: adapter.cloned(),
            request: Arc::new(request),
            trace: None,
        };
        let late = |_| Err(WorkerError::AdapterUnavailable("it did not answer its probe in time".to_owned()));
        let asking = async {
            loop {
                match self.answer(call.clone()).await {
                    // A full queue says nothing of the adapter.
                    Err(WorkerError::Busy) => tokio::time::sleep(LATER).await,
                    // A request of ours: whoever waits for the load has asked something else.
                    Err(WorkerError::Refused(error)) => {
                        let why = error.detail().unwrap_or(error.message());
                        return Err(WorkerError::AdapterUnavailable(format!("it refuses the probe: {why}")));
                    }
                    answered => return answered,
                }
            }
        };
        tokio::time::timeout(LIMIT, asking).await.unwrap_or_else(late)
    }

    async fn answer(&self, call: Call) -> Result<Answer, WorkerError> {
        let mut events = self.driver.generate(call).await?.events;
        let (mut text, mut steps, mut silent) = (String::new(), Some(Vec::new()), false);
        while let Some(event) = events.next().await {
            let (more, tokens, logprobs) = match event? {
                Event::Delta(Delta { text, tokens, logprobs, .. }) => (text, tokens, logprobs),
                // The token that ended it is none of its text.
                Event::Finished { reason: FinishReason::Stop, .. } if silent => {
                    steps.as_mut().map(Vec::pop);
                    continue;
                }
                Event::Finished { .. } | Event::Usage(_) => continue,
            };
            text += &more;
            if tokens > 0 && logprobs.is_empty() {
                steps = None;
            }
            silent = tokens > 0 && more.is_empty();
            let told: Option<Vec<Step>> = logprobs.iter().map(probe::step).collect();
            steps = steps.zip(told).map(|(mut steps, told): (Vec<Step>, _)| {
                steps.extend(told);
                steps
            });
        }
        Ok(Answer { text, steps })
    }
}
