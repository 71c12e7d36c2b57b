//! Is the text allowed? Prompts are judged before anything runs
//! ([`Guard::check_prompt`]), answers as they are written ([`Guard::output`]).
//!
//! What judges is the crate `tenantry-guard`: word lists, a linear model, and an
//! encoder for what that one doubts, which runs in a pool of threads ([`Stage2`]).
//! This room decides what is judged together, whose policy counts, and what is sent.

mod escapes;
mod judge;
mod outside;
mod policy;
mod prompt;
mod stage2;
mod stream;

use std::collections::HashMap;
use std::sync::Arc;

use tenantry_guard::{Category, Normalised};

use crate::telemetry::Metrics;
use crate::types::{Action, Finding, GenerateRequest, Side, Stage};

pub use judge::{Outside, OutsideError, Scores, Sentence};
pub use outside::{Breaker, Endpoint, EndpointConfig};
pub use policy::{Busy, Kind, Mode, OfTenant, Output, Policies, Policy, Rules};
pub use prompt::Blocked;
pub use stage2::{Classifier, PoolConfig, Stage2};
pub use stream::OutputGuard;

use judge::{Hits, Judge};

/// Findings that are told of one text.
const MOST_FINDINGS: usize = 16;

/// What judges for a gateway, whatever the tenant.
#[derive(Clone)]
pub struct Guard {
    judge: Arc<Judge>,
}

/// One text's judgement by itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgement {
    pub scores: Scores,
    /// Those that the policy looks for and those that it does not.
    pub kinds: Vec<Kind>,
    /// What the policy makes of it.
    pub findings: Vec<Finding>,
}

// === impl Judgement ===

impl Judgement {
    pub fn is_flagged(&self) -> bool {
        !self.findings.is_empty()
    }

    /// OpenAI's categories that the models were trained for, then our own and those of
    /// lists: the name, whether it counts, and how likely it is. What is not among them
    /// was not looked for.
    pub fn categories(&self) -> Vec<(Arc<str>, bool, f32)> {
        let of = |category: Category| self.kinds.iter().find(|kind| kind.category == category);
        let told = |name: &str, categories: &[Category]| {
            let mut kinds =
                categories.iter().filter_map(|category| of(*category)).filter(|kind| kind.wanted).peekable();
            kinds.peek()?;
            let (counts, score) = kinds.fold((false, 0.0), |(counts, score): (bool, f32), kind| {
                (counts || kind.counts, score.max(kind.score))
            });
            Some((Arc::from(name), counts, score))
        };
        let mut all: Vec<(Arc<str>, bool, f32)> = [
            told("harassment", &[Category::Insult, Category::Threat]),
            told("harassment/threatening", &[Category::Threat]),
            told("hate", &[Category::Hate]),
            told("insult", &[Category::Insult]),
            told("profanity", &[Category::Profanity]),
            told("threat", &[Category::Threat]),
        ]
        .into_iter()
        .flatten()
        .collect();
        for finding in self.findings.iter().filter(|finding| finding.stage == Stage::Lists) {
            match all.iter_mut().find(|(name, ..)| *name == finding.category) {
                Some((_, counts, score)) => (*counts, *score) = (true, 1.0),
                None => all.push((finding.category.clone(), true, 1.0)),
            }
        }
        all
    }
}

// === impl Guard ===

impl Guard {
    /// `stage2`: `None` where stage 1 decides alone. `outside` has the judges that
    /// policies name.
    pub fn new(stage2: Option<Stage2>, outside: HashMap<Arc<str>, Arc<dyn Outside>>, metrics: Arc<Metrics>) -> Self {
        Self { judge: Arc::new(Judge::new(stage2, outside, metrics)) }
    }

    /// The same with other judges outside; texts that are being judged keep theirs.
    #[must_use]
    pub fn asking(&self, outside: HashMap<Arc<str>, Arc<dyn Outside>>) -> Self {
        let Judge { stage2, metrics, .. } = &*self.judge;
        Self::new(stage2.clone(), outside, metrics.clone())
    }

    /// Judges all that a request's model will read; spans are taken out of it where
    /// the policy says so. Gives what was found and did not stop it. `decoded` has the
    /// texts of prompts that are given as tokens, by their number, as far as they are known.
    ///
    /// # Errors
    ///
    /// Why it may not be asked.
    pub async fn check_prompt(
        &self,
        policy: &Arc<Policy>,
        request: &mut GenerateRequest,
        decoded: Vec<Option<String>>,
    ) -> Result<Vec<Finding>, Blocked> {
        prompt::check(&self.judge, policy, request, decoded).await
    }

    /// What judges an answer of so many choices. `flags`, the findings of its prompt,
    /// are told with it. `None` where nothing is to be judged or told.
    pub fn output(&self, policy: &Arc<Policy>, choices: u32, flags: Vec<Finding>) -> Option<OutputGuard> {
        OutputGuard::new(policy.clone(), self.judge.clone(), choices, flags)
    }

    /// One text by itself, under the rules for prompts; where these are not looked at,
    /// under those for answers, or the standard ones. Nothing is blocked by it.
    pub async fn moderate(&self, policy: &Arc<Policy>, text: String) -> Judgement {
        self.judge.metrics().text(Side::Prompt);
        let bytes = text.len();
        let scores = self.judge.score(Side::Prompt, text.clone()).await;
        let standard = Rules::default();
        let rules = policy.rules(Side::Prompt).or_else(|| policy.rules(Side::Output)).unwrap_or(&standard);
        let stage = if scores.stage2.is_some() { Stage::Encoder } else { Stage::Linear };
        let finding = |action, stage, category: Arc<str>, score, span| Finding {
            side: Side::Prompt,
            action,
            stage,
            category,
            score,
            place: "input".into(),
            span,
        };
        let mut findings = Vec::new();
        let lists = rules.lists.clone();
        let look = move || Hits::of(&lists, &text, &Normalised::of(&text), 0);
        let Hits { worst, redact } = self.judge.aside(bytes, look).await;
        let redact = redact.into_iter().map(|(span, category)| (Action::Redact, span, category));
        for (action, span, category) in worst.into_iter().chain(redact).take(MOST_FINDINGS) {
            findings.push(finding(action, Stage::Lists, category, 1.0, Some(span)));
        }
        if let Some(found) = rules.find(scores.toxic, &scores.stage1, stage) {
            findings.push(finding(found.action, found.stage, found.category, found.score, None));
        }
        Judgement { kinds: rules.categories(scores.toxic, &scores.stage1).to_vec(), scores, findings }
    }
}
