//! What a generation's span says, by OpenTelemetry's conventions for generative
//! AI. Never its text.

use super::record::{Model, Record};
use crate::telemetry::{Described, Value};
use crate::types::{GenerateRequest, Input, Route};

type Attributes = Vec<(&'static str, Value)>;

/// What the client asked for, where it said so.
pub(super) fn asked_for(request: &GenerateRequest) -> Attributes {
    let GenerateRequest { sampling, max_tokens, stop, choices, .. } = request;
    let mut attributes = Attributes::new();
    let float = |value: f32| Value::Float(f64::from(value));
    attributes.push(("gen_ai.request.temperature", float(sampling.temperature)));
    attributes.push(("gen_ai.request.top_p", float(sampling.top_p)));
    attributes.extend(sampling.seed.map(|it| ("gen_ai.request.seed", Value::Number(it.cast_signed()))));
    attributes.extend(max_tokens.map(|it| ("gen_ai.request.max_tokens", Value::Number(it.into()))));
    if *choices > 1 {
        attributes.push(("gen_ai.request.choice.count", Value::Number((*choices).into())));
    }
    // The strings themselves are the tenant's text.
    if !stop.is_empty() {
        attributes.push(("tenantry.request.stop_sequences", Value::Number(stop.len() as i64)));
    }
    let prompts = match &request.input {
        Input::Chat(messages) => ("tenantry.request.messages", messages.len()),
        Input::Prompts(prompts) => ("tenantry.request.prompts", prompts.len()),
    };
    attributes.push((prompts.0, Value::Number(prompts.1 as i64)));
    attributes
}

/// The span of a request that has ended.
pub(super) fn described(record: &Record, outcome: &'static str) -> Described {
    let text = |text: &str| Value::Text(text.to_owned());
    let (operation, path) = match record.route {
        Route::ChatCompletions => ("chat", "/v1/chat/completions"),
        Route::Completions => ("text_completion", "/v1/completions"),
        Route::GrpcGenerate => ("chat", "tenantry.v1.Inference/Generate"),
    };
    let mut shared = vec![
        ("gen_ai.operation.name", text(operation)),
        ("gen_ai.provider.name", text("tenantry")),
        ("gen_ai.response.id", Value::Text(record.id.to_string())),
        ("tenantry.tenant", text(record.caller.tenant.id.as_str())),
    ];
    let mut name = operation.to_owned();
    if let Some(Model { name: model, base, adapter, .. }) = &record.model {
        name = format!("{operation} {model}");
        shared.push(("gen_ai.request.model", text(model)));
        shared.push(("gen_ai.response.model", text(model)));
        shared.push(("tenantry.base", text(base)));
        shared.extend(adapter.as_ref().map(|key| ("tenantry.adapter", Value::Text(key.to_string()))));
    }
    let mut own = record.asked_for.clone();
    own.push(("tenantry.key", text(&record.caller.key.name)));
    own.push(("tenantry.outcome", text(outcome)));
    own.push(match record.route {
        Route::GrpcGenerate => ("rpc.method", text(path)),
        Route::ChatCompletions | Route::Completions => ("http.route", text(path)),
    });
    own.extend(record.worker.as_deref().map(|worker| ("tenantry.worker", text(worker))));
    let usage = record.used();
    own.push(("gen_ai.usage.input_tokens", Value::Number(usage.prompt_tokens.into())));
    own.push(("gen_ai.usage.output_tokens", Value::Number(usage.completion_tokens.into())));
    let reason = record.finish_reason.map(|reason| Value::Texts(vec![reason.as_str().to_owned()]));
    own.extend(reason.map(|reason| ("gen_ai.response.finish_reasons", reason)));
    if !record.findings.is_empty() {
        let findings = record.findings.split(',').map(str::to_owned).collect();
        own.push(("tenantry.guard.findings", Value::Texts(findings)));
    }
    let first = record.first_sent.map(|at| (at - record.started).as_secs_f64());
    own.extend(first.map(|seconds| ("tenantry.time_to_first_token", Value::Float(seconds))));
    Described { name, shared, own }
}
