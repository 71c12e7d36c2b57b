//! Which worker a conversation was at last: its prefix cache may still hold
//! what was said before. A bounded memory of hashes; no text is kept.
//!
//! A conversation is recognised by the messages that it had at its last
//! request, or a raw prompt by its beginning. Tenant, base model and adapter
//! are part of every hash.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};

use crate::types::{GenerateRequest, Input, ModelRoute, Prompt, TenantId};

/// Conversations that are remembered at least; twice as many at most.
const REMEMBERED: usize = 32_768;
/// Raw prompts are compared in pieces of this many bytes.
const PIECE: usize = 512;
/// Prompts beyond this many pieces or messages are compared up to it.
const PLACES: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Conversations {
    /// Unguessable: nobody can have another's conversation taken for its own.
    hasher: RandomState,
    state: Mutex<Generations>,
}

/// Two of them: when the younger is full it becomes the older, and what was
/// in that and not used again is forgotten.
#[derive(Debug, Default)]
struct Generations {
    young: HashMap<u64, Arc<str>>,
    old: HashMap<u64, Arc<str>>,
}

/// A request's prefixes, shortest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Prefixes(Vec<Prefix>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Prefix {
    hash: u64,
    bytes: usize,
}

/// Where a request's beginning was before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Before {
    pub worker: Arc<str>,
    /// Of the prompt, how much the worker has seen.
    pub bytes: usize,
}

// === impl Conversations ===

impl Conversations {
    pub(super) fn prefixes(&self, tenant: &TenantId, route: &ModelRoute, request: &GenerateRequest) -> Prefixes {
        let mut hasher = self.hasher.build_hasher();
        (tenant.as_str(), route.base.as_str(), &route.adapter).hash(&mut hasher);
        let (mut prefixes, mut bytes) = (Vec::new(), 0);
        match &request.input {
            Input::Chat(messages) => {
                for message in messages.iter().take(PLACES) {
                    (message.role, &message.content).hash(&mut hasher);
                    bytes += message.content.len();
                    prefixes.push(Prefix { hash: hasher.finish(), bytes });
                }
            }
            Input::Prompts(prompts) => {
                // Several prompts are no conversation.
                if let [Prompt::Text(text)] = prompts.as_slice() {
                    for piece in text.as_bytes().chunks_exact(PIECE).take(PLACES) {
                        piece.hash(&mut hasher);
                        bytes += PIECE;
                        prefixes.push(Prefix { hash: hasher.finish(), bytes });
                    }
                }
            }
        }
        Prefixes(prefixes)
    }

    /// The worker that has seen most of this request.
    pub(super) fn before(&self, prefixes: &Prefixes) -> Option<Before> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        prefixes.0.iter().rev().find_map(|prefix| {
            let worker = state.young.get(&prefix.hash).or_else(|| state.old.get(&prefix.hash))?;
            Some(Before { worker: worker.clone(), bytes: prefix.bytes })
        })
    }

    /// The request went to this worker.
    pub(super) fn went(&self, prefixes: &Prefixes, worker: &Arc<str>) {
        let Some(whole) = prefixes.0.last() else { return };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.young.len() >= REMEMBERED {
            state.old = std::mem::take(&mut state.young);
        }
        state.young.insert(whole.hash, worker.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{BaseName, Message, Role, Route, Sampling};

    fn request(input: Input) -> GenerateRequest {
        GenerateRequest {
            route: Route::ChatCompletions,
            model: "m".to_owned(),
            input,
            sampling: Sampling::default(),
            stop: Vec::new(),
            max_tokens: None,
            choices: 1,
            logprobs: None,
            ignore_eos: false,
            timeout: None,
            extra: Default::default(),
        }
    }

    fn chat(texts: &[&str]) -> GenerateRequest {
        request(Input::Chat(texts.iter().map(|text| Message::text(Role::User, *text)).collect()))
    }

    fn route() -> ModelRoute {
        ModelRoute { base: BaseName::new("base"), adapter: None }
    }

    #[test]
    fn a_longer_conversation_is_found_where_it_was_and_another_tenants_is_not() {
        let conversations = Conversations::default();
        let (mine, other) = (TenantId::new("acme"), TenantId::new("globex"));
        let first = conversations.prefixes(&mine, &route(), &chat(&["hello"]));
        assert_eq!(conversations.before(&first), None);
        conversations.went(&first, &"w1".into());
        let longer = chat(&["hello", "hi there", "and now?"]);
        let before = conversations.before(&conversations.prefixes(&mine, &route(), &longer));
        assert_eq!(before, Some(Before { worker: "w1".into(), bytes: 5 }));
        assert_eq!(conversations.before(&conversations.prefixes(&other, &route(), &longer)), None);
        let elsewhere = ModelRoute { base: BaseName::new("other"), adapter: None };
        assert_eq!(conversations.before(&conversations.prefixes(&mine, &elsewhere, &longer)), None);
        assert_eq!(conversations.before(&conversations.prefixes(&mine, &route(), &chat(&["hello!"]))), None);
    }

    #[test]
    fn a_raw_prompt_is_found_by_its_beginning() {
        let conversations = Conversations::default();
        let tenant = TenantId::new("acme");
        let prefixes = |text: String| {
            conversations.prefixes(&tenant, &route(), &request(Input::Prompts(vec![Prompt::Text(text)])))
        };
        conversations.went(&prefixes("a".repeat(700)), &"w1".into());
        let before = conversations.before(&prefixes("a".repeat(2_000)));
        assert_eq!(before, Some(Before { worker: "w1".into(), bytes: PIECE }));
        assert_eq!(conversations.before(&prefixes("b".repeat(2_000))), None);
        assert_eq!(conversations.before(&prefixes("a".repeat(100))), None, "too short to tell");
    }

    #[test]
    fn the_memory_is_bounded_and_forgets_what_was_not_used() {
        let conversations = Conversations::default();
        let tenant = TenantId::new("acme");
        let of = |number: usize| conversations.prefixes(&tenant, &route(), &chat(&[&number.to_string()]));
        for number in 0..3 * REMEMBERED {
            conversations.went(&of(number), &"w".into());
        }
        let state = conversations.state.lock().expect("no panic");
        assert!(state.young.len() <= REMEMBERED && state.old.len() <= REMEMBERED);
        drop(state);
        assert_eq!(conversations.before(&of(0)), None);
        assert!(conversations.before(&of(3 * REMEMBERED - 1)).is_some());
    }
}
