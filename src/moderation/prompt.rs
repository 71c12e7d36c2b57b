//! The prompt's side: every text of a request that the model will read.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use serde_json::{Map, Value};
use tenantry_guard::Normalised;

use super::escapes::Readable;
use super::judge::{Hits, Judge, Question};
use super::policy::{Found, Policy};
use crate::types::{Action, Finding, GenerateRequest, Input, Message, Prompt, Role, Side, Stage};

/// What a span is replaced with.
const REDACTED: &str = "[redacted]";
/// Fields of messages that name things, and those that hold no text.
const NAMES: [&str; 6] = ["id", "role", "type", "tool_call_id", "url", "data"];
/// Fields of a request in which the application speaks for itself, or says nothing.
const OWN: [&str; 10] = [
    "tools",
    "tool_choice",
    "functions",
    "function_call",
    "response_format",
    "structured_outputs",
    "user",
    "metadata",
    "safety_identifier",
    "prompt_cache_key",
];
/// Findings that are told of one prompt.
const MOST_FINDINGS: usize = 16;

/// A prompt that may not be asked.
#[derive(Debug, Clone, PartialEq)]
pub enum Blocked {
    Found(Finding),
    /// Its tokens cannot be read here, at this field.
    Unreadable(String),
}

/// Looks at all of a request's texts, and takes out of them what the policy wants
/// out. Gives what the client is to be told of.
pub(super) async fn check(
    judge: &Arc<Judge>,
    policy: &Arc<Policy>,
    request: &mut GenerateRequest,
    mut decoded: Vec<Option<String>>,
) -> Result<Vec<Finding>, Blocked> {
    let Some(rules) = &policy.prompt else { return Ok(Vec::new()) };
    decoded.resize(request.input.prompts() as usize, None);
    if let Some(place) = unreadable(request, &decoded) {
        return Err(Blocked::Unreadable(place));
    }
    let mut texts = Vec::new();
    visit(request, &mut decoded, policy.system_prompts, &mut |place, text| {
        if !text.is_empty() {
            texts.push((Arc::<str>::from(place), text.clone()));
        }
    });
    // Many small texts take as long as a large one.
    let bytes: usize = texts.iter().map(|(_, text)| text.len()).sum();
    let (mut findings, mut out) = (Vec::new(), HashMap::new());
    let mut verdicts: Vec<(Action, Arc<str>)> = Vec::new();
    for (place, text) in texts {
        judge.metrics().text(Side::Prompt);
        let finding = |found: Found, span| Finding {
            side: Side::Prompt,
            action: found.action,
            stage: found.stage,
            category: found.category,
            score: found.score,
            place: place.clone(),
            span,
        };
        // Offsets are the same in what is read of it.
        let text = if place.ends_with(".arguments") { Readable::of(&text) } else { text };
        let mut spans = Vec::new();
        if !rules.lists.is_empty() {
            let (lists, read) = (rules.lists.clone(), text.clone());
            let look = move || Hits::of(&lists, &read, &Normalised::of(&read), 0);
            let hits = judge.aside(bytes, look).await;
            let listed = |action, category| Found { action, stage: Stage::Lists, category, score: 1.0 };
            if let Some((action, span, category)) = hits.worst {
                return Err(blocked(judge, finding(listed(action, category), Some(span))));
            }
            for (span, category) in hits.redact {
                verdicts.push((Action::Redact, category.clone()));
                findings.push(finding(listed(Action::Redact, category), Some(span.clone())));
                spans.push(span);
            }
        }
        let question = Question { text, from: 0 };
        let opinion = judge.clone().opinion(policy.clone(), Side::Prompt, question).await;
        if let Some(found) = opinion.found {
            let action = found.action;
            let bounds = match (opinion.spans.first(), opinion.spans.last()) {
                (Some(first), Some(last)) => Some(first.start..last.end),
                _ => None,
            };
            verdicts.push((action, found.category.clone()));
            match action {
                Action::Block => return Err(blocked(judge, finding(found, bounds))),
                // As many as are taken out.
                Action::Redact => {
                    findings.extend(opinion.spans.iter().map(|span| finding(found.clone(), Some(span.clone()))));
                    spans.extend(opinion.spans);
                }
                Action::Flag => findings.push(finding(found, bounds)),
            }
        }
        findings.truncate(MOST_FINDINGS);
        if !spans.is_empty() {
            out.insert(place, joined(spans));
        }
    }
    if !out.is_empty() {
        visit(request, &mut decoded, policy.system_prompts, &mut |place, text| {
            if let Some(spans) = out.get(place.as_str()) {
                *text = without(text, spans);
            }
        });
        replace_tokens(request, decoded, |place| out.contains_key(place));
        refresh(request, |place| out.contains_key(place));
    }
    for (action, category) in verdicts {
        judge.metrics().verdict(Side::Prompt, action, &category);
    }
    Ok(findings)
}

fn blocked(judge: &Judge, finding: Finding) -> Blocked {
    judge.metrics().verdict(Side::Prompt, finding.action, &finding.category);
    Blocked::Found(finding)
}

/// The first prompt that is given as tokens whose text is not known.
fn unreadable(request: &GenerateRequest, decoded: &[Option<String>]) -> Option<String> {
    let Input::Prompts(prompts) = &request.input else { return None };
    let unknown = |(prompt, text): (&Prompt, &Option<String>)| matches!(prompt, Prompt::Tokens(_)) && text.is_none();
    let at = prompts.iter().zip(decoded).position(unknown)?;
    Some(prompt_place(prompts.len(), at))
}

/// Puts the texts of tokens that were changed in the place of the tokens.
fn replace_tokens(request: &mut GenerateRequest, decoded: Vec<Option<String>>, changed: impl Fn(&str) -> bool) {
    let Input::Prompts(prompts) = &mut request.input else { return };
    let count = prompts.len();
    for (at, (prompt, text)) in prompts.iter_mut().zip(decoded).enumerate() {
        if let Some(text) = text.filter(|_| matches!(prompt, Prompt::Tokens(_)) && changed(&prompt_place(count, at))) {
            *prompt = Prompt::Text(text);
        }
    }
}

fn prompt_place(prompts: usize, at: usize) -> String {
    if prompts == 1 { "prompt".to_owned() } else { format!("prompt[{at}]") }
}

/// Every text and where it stands; `own` are those in which the application speaks
/// for itself.
fn visit(
    request: &mut GenerateRequest,
    decoded: &mut [Option<String>],
    own: bool,
    seen: &mut dyn FnMut(String, &mut String),
) {
    match &mut request.input {
        Input::Chat(messages) => {
            for (at, message) in messages.iter_mut().enumerate() {
                if own || !matches!(message.role, Role::System | Role::Developer) {
                    visit_message(message, &format!("messages[{at}]"), seen);
                }
            }
        }
        Input::Prompts(prompts) => {
            let count = prompts.len();
            for (at, (prompt, decoded)) in prompts.iter_mut().zip(decoded).enumerate() {
                match (prompt, decoded) {
                    (Prompt::Text(text), _) | (Prompt::Tokens(_), Some(text)) => seen(prompt_place(count, at), text),
                    (Prompt::Tokens(_), None) => {}
                }
            }
        }
    }
    for (name, value) in &mut request.extra {
        if own || !OWN.contains(&name.as_str()) {
            visit_value(value, name, seen);
        }
    }
}

fn visit_message(message: &mut Message, path: &str, seen: &mut dyn FnMut(String, &mut String)) {
    seen(format!("{path}.content"), &mut message.content);
    let Some(more) = &mut message.more else { return };
    // Parts are looked at one by one as well: their whole is what the worker above reads.
    visit_fields(&mut more.as_given, path, seen);
}

fn visit_fields(fields: &mut Map<String, Value>, path: &str, seen: &mut dyn FnMut(String, &mut String)) {
    for (name, value) in fields.iter_mut().filter(|(name, _)| !NAMES.contains(&name.as_str())) {
        // Its whole was looked at; of parts each is, by itself.
        if name == "content" && value.is_string() {
            continue;
        }
        visit_value(value, &format!("{path}.{name}"), seen);
    }
}

fn visit_value(value: &mut Value, path: &str, seen: &mut dyn FnMut(String, &mut String)) {
    match value {
        Value::String(text) => seen(path.to_owned(), text),
        Value::Array(entries) => {
            for (at, entry) in entries.iter_mut().enumerate() {
                visit_value(entry, &format!("{path}[{at}]"), seen);
            }
        }
        Value::Object(fields) => visit_fields(fields, path, seen),
        _ => {}
    }
}

/// A message that was changed is no more what the client wrote: its content as it
/// was given and the text that was read of it are made one again. What crosses its
/// parts is found in the whole alone, so that one counts where it was changed.
fn refresh(request: &mut GenerateRequest, changed: impl Fn(&str) -> bool) {
    let Input::Chat(messages) = &mut request.input else { return };
    for (at, message) in messages.iter_mut().enumerate() {
        let Some(more) = &mut message.more else { continue };
        let Some(content) = more.as_given.get_mut("content") else { continue };
        let whole = changed(&format!("messages[{at}].content"));
        match content {
            Value::String(text) => text.clone_from(&message.content),
            Value::Array(parts) if whole => {
                let is_text = |part: &Value| part["type"] == "text";
                let mut first = true;
                parts.retain(|part| !is_text(part) || std::mem::take(&mut first));
                if let Some(part) = parts.iter_mut().find(|part| is_text(part)) {
                    part["text"] = message.content.clone().into();
                }
            }
            Value::Array(parts) => {
                message.content = parts.iter().filter_map(|part| part["text"].as_str()).collect();
            }
            _ => {}
        }
    }
}

fn joined(mut spans: Vec<Range<usize>>) -> Vec<Range<usize>> {
    spans.sort_by_key(|span| span.start);
    let mut joined: Vec<Range<usize>> = Vec::with_capacity(spans.len());
    for span in spans {
        match joined.last_mut() {
            Some(last) if span.start <= last.end => last.end = last.end.max(span.end),
            _ => joined.push(span),
        }
    }
    joined
}

fn without(text: &str, spans: &[Range<usize>]) -> String {
    let mut rest = String::with_capacity(text.len());
    let mut at = 0;
    for span in spans {
        rest.push_str(&text[at..span.start]);
        rest.push_str(REDACTED);
        at = span.end;
    }
    rest.push_str(&text[at..]);
    rest
}
