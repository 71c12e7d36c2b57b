//! A guard model that the pool serves, as a judge of texts.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use tokio::time::Instant;
use ulid::Ulid;

use crate::moderation::{Breaker, Outside, OutsideError, Sentence};
use crate::pool::{Pool, Started, Want};
use crate::types::{
    BaseName, Event, GenerateRequest, GenerationId, Input, Message, ModelRoute, Role, Route, Sampling, TenantId,
};

/// Whose what the judge's engine remembers is. No tenant can have this id.
const OWN: &str = "_guard";
/// What the model is asked, in the manner of Llama Guard (Inan et al., "Llama Guard:
/// LLM-based Input-Output Safeguard for Human-AI Conversations", 2023).
const TASK: &str = "Task: Check if there is unsafe content in the text below according to our safety policy with the \
                    categories below.\n\n<BEGIN UNSAFE CONTENT CATEGORIES>\nS1: Insult.\nS2: Hate.\nS3: Threat.\n\
                    S4: Profanity.\n<END UNSAFE CONTENT CATEGORIES>\n\n<BEGIN TEXT>\n";
const ANSWER: &str = "\n<END TEXT>\n\nProvide your safety assessment for the text above:\n- First line must read \
                      'safe' or 'unsafe'.\n- If unsafe, a second line must include a comma-separated list of violated \
                      categories.";
const CATEGORIES: [(&str, &str); 4] = [("S1", "insult"), ("S2", "hate"), ("S3", "threat"), ("S4", "profanity")];
/// Of its answer.
const TOKENS: u32 = 16;

/// Asks one of the pool's base models.
pub struct PoolJudge {
    pool: Arc<Pool>,
    route: ModelRoute,
    timeout: Duration,
    closed: bool,
    breaker: Breaker,
}

// === impl PoolJudge ===

impl PoolJudge {
    /// `closed`: a text that it does not judge within `timeout` is blocked.
    pub fn new(pool: Arc<Pool>, base: BaseName, timeout: Duration, closed: bool) -> Self {
        let route = ModelRoute { base, adapter: None };
        Self { pool, route, timeout, closed, breaker: Breaker::default() }
    }

    async fn ask(&self, text: &str) -> Result<Option<Sentence>, String> {
        let request = Arc::new(GenerateRequest {
            route: Route::ChatCompletions,
            model: self.route.base.to_string(),
            input: Input::Chat(vec![Message::text(Role::User, format!("{TASK}{text}{ANSWER}"))]),
            sampling: Sampling { temperature: 0.0, ..Sampling::default() },
            stop: Vec::new(),
            max_tokens: Some(TOKENS),
            choices: 1,
            logprobs: None,
            ignore_eos: false,
            timeout: None,
            extra: serde_json::Map::new(),
        });
        let own = TenantId::new(OWN);
        let want = Want { tenant: &own, route: &self.route, request: &request };
        let mut lease = self.pool.acquire(want, &[]).await.map_err(|error| error.to_string())?;
        let id = GenerationId::new(Ulid::generate());
        let started = lease.generate(id, own.clone(), request.clone(), None).await;
        let Started { prompt_tokens, mut events } = started.map_err(|error| error.to_string())?;
        let mut answer = String::new();
        let mut begun = false;
        while let Some(event) = events.next().await {
            let event = event.map_err(|error| error.to_string())?;
            if !std::mem::replace(&mut begun, true) {
                lease.began(prompt_tokens);
            }
            if let Event::Delta(delta) = event {
                answer.push_str(&delta.text);
            }
        }
        sentence(&answer)
    }
}

impl Outside for PoolJudge {
    fn judge<'a>(&'a self, text: &'a str) -> BoxFuture<'a, Result<Option<Sentence>, OutsideError>> {
        Box::pin(async move {
            let failed = |reason: String| OutsideError { reason, closed: self.closed };
            if !self.breaker.allows(Instant::now()) {
                return Err(failed("it is left alone after failures".to_owned()));
            }
            let asked = tokio::time::timeout(self.timeout, self.ask(text)).await;
            let answer = asked.unwrap_or_else(|_| Err(format!("no answer within {:?}", self.timeout)));
            match &answer {
                Ok(_) => self.breaker.answered(),
                // Parts are short enough for any context, so that it is not the text.
                Err(_) => self.breaker.failed(Instant::now()),
            }
            answer.map_err(failed)
        })
    }
}

/// What an answer says: nothing is made of one that does not keep to its form.
fn sentence(answer: &str) -> Result<Option<Sentence>, String> {
    let mut lines = answer.trim().lines().map(str::trim);
    match (lines.next(), lines.next()) {
        (Some("safe"), None) => Ok(None),
        (Some("unsafe"), codes) => {
            let first = codes.and_then(|codes| codes.split(',').next()).map(str::trim);
            let known = CATEGORIES.iter().find(|(code, _)| Some(*code) == first);
            let category = known.map_or("unsafe", |(_, category)| category);
            Ok(Some(Sentence { category: category.into(), score: 1.0 }))
        }
        // Not repeated: it may quote the text.
        _ => Err("its answer is neither `safe` nor `unsafe`".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_strictly() {
        let found = |category: &str| Ok(Some(Sentence { category: category.into(), score: 1.0 }));
        assert_eq!(sentence("\n\nsafe"), Ok(None));
        assert_eq!(sentence("unsafe\nS2,S1"), found("hate"));
        assert_eq!(sentence("unsafe"), found("unsafe"));
        assert_eq!(sentence("unsafe\nS99"), found("unsafe"));
        for odd in ["", "Safe.", "I think it is safe", "safe\nS1", "safety"] {
            assert!(sentence(odd).is_err(), "{odd}");
        }
    }
}
