//! Between the wire's messages and the product's own, both ways: the driver
//! and the worker's service read and write the same types.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::pb;
use crate::types::{
    AdapterKey, Delta, Error, ErrorKind, Event, FinishReason, GenerateRequest, GenerationId, Input, Message, More,
    Prompt, Role, Route, Sampling, TenantId, TokenLogprob, TopLogprob, Usage,
};
use crate::worker::{Call, WorkerError};

/// Codes that an error may carry beside its kind's own; the vocabulary keeps
/// them as constants.
const CODES: [&str; 1] = ["unsupported_parameter"];

/// What a peer sent that has no meaning here: another version's, or no peer's.
pub type Unreadable = String;

// === keys ===

pub fn key_to_pb(key: &AdapterKey) -> pb::AdapterKey {
    pb::AdapterKey {
        tenant: key.tenant.to_string(),
        name: key.name.to_string(),
        revision: key.revision,
        digest: key.digest.to_string(),
    }
}

pub fn key_from_pb(key: pb::AdapterKey) -> AdapterKey {
    AdapterKey {
        tenant: TenantId::new(key.tenant),
        name: key.name.into(),
        revision: key.revision,
        digest: key.digest.into(),
    }
}

// === requests ===

pub fn call_to_pb(call: &Call) -> pb::GenerateRequest {
    let request = &*call.request;
    pb::GenerateRequest {
        id: call.id.to_string(),
        tenant: call.tenant.to_string(),
        base: call.base.to_string(),
        adapter: call.adapter.as_ref().map(key_to_pb),
        input: Some(input_to_pb(&request.input)),
        sampling: Some(sampling_to_pb(&request.sampling)),
        stop: request.stop.clone(),
        max_tokens: request.max_tokens,
        choices: request.choices,
        logprobs: request.logprobs.map(u32::from),
        ignore_eos: request.ignore_eos,
        extra_json: if request.extra.is_empty() { String::new() } else { json(&request.extra) },
    }
}

/// The call as the worker's own driver runs it. What only a gateway needs (the
/// model's name, the route, the client's deadline) did not travel.
pub fn call_from_pb(call: pb::GenerateRequest) -> Result<Call, Unreadable> {
    let choices = if call.choices == 0 { Err("`choices` is 0".to_owned()) } else { Ok(call.choices) }?;
    let logprobs =
        call.logprobs.map(|top| u8::try_from(top).map_err(|_| format!("`logprobs` is {top}"))).transpose()?;
    let request = GenerateRequest {
        route: Route::GrpcGenerate,
        model: call.base.clone(),
        input: input_from_pb(call.input.ok_or("`input` is missing")?)?,
        sampling: sampling_from_pb(call.sampling.unwrap_or_default()),
        stop: call.stop,
        max_tokens: call.max_tokens,
        choices,
        logprobs,
        ignore_eos: call.ignore_eos,
        timeout: None,
        extra: object(&call.extra_json)?,
    };
    Ok(Call {
        id: GenerationId::parse(&call.id).ok_or_else(|| format!("`{}` is not a generation's id", call.id))?,
        tenant: TenantId::new(call.tenant),
        base: crate::types::BaseName::new(call.base),
        adapter: call.adapter.map(key_from_pb),
        request: Arc::new(request),
        trace: None,
    })
}

fn input_to_pb(input: &Input) -> pb::generate_request::Input {
    match input {
        Input::Chat(messages) => {
            let message = |message: &Message| pb::Message {
                role: message.role.as_str().to_owned(),
                content: message.content.clone(),
                as_given_json: message.more.as_ref().map(|more| json(&more.as_given)),
                refusal: message.more.as_ref().and_then(|more| more.refusal.as_ref()).map(refusal_to_pb),
            };
            pb::generate_request::Input::Chat(pb::Chat { messages: messages.iter().map(message).collect() })
        }
        Input::Prompts(prompts) => {
            let prompt = |prompt: &Prompt| pb::Prompt {
                prompt: Some(match prompt {
                    Prompt::Text(text) => pb::prompt::Prompt::Text(text.clone()),
                    Prompt::Tokens(ids) => pb::prompt::Prompt::Tokens(pb::Tokens { ids: ids.clone() }),
                }),
            };
            pb::generate_request::Input::Prompts(pb::Prompts { prompts: prompts.iter().map(prompt).collect() })
        }
    }
}

fn input_from_pb(input: pb::generate_request::Input) -> Result<Input, Unreadable> {
    match input {
        pb::generate_request::Input::Chat(chat) if chat.messages.is_empty() => Err("`messages` is empty".to_owned()),
        pb::generate_request::Input::Chat(chat) => {
            chat.messages.into_iter().map(message_from_pb).collect::<Result<_, _>>().map(Input::Chat)
        }
        pb::generate_request::Input::Prompts(them) if them.prompts.is_empty() => Err("`prompts` is empty".to_owned()),
        pb::generate_request::Input::Prompts(them) => {
            let prompt = |prompt: pb::Prompt| match prompt.prompt {
                Some(pb::prompt::Prompt::Text(text)) => Ok(Prompt::Text(text)),
                Some(pb::prompt::Prompt::Tokens(tokens)) => Ok(Prompt::Tokens(tokens.ids)),
                None => Err("a prompt is missing".to_owned()),
            };
            them.prompts.into_iter().map(prompt).collect::<Result<_, _>>().map(Input::Prompts)
        }
    }
}

fn message_from_pb(message: pb::Message) -> Result<Message, Unreadable> {
    let role = Role::parse(&message.role).ok_or_else(|| format!("`{}` is not a role", message.role))?;
    let refusal = message.refusal.map(refusal_from_pb);
    let more = match message.as_given_json {
        Some(text) => Some(Box::new(More { as_given: object(&text)?, refusal })),
        None => None,
    };
    Ok(Message { role, content: message.content, more })
}

fn sampling_to_pb(sampling: &Sampling) -> pb::Sampling {
    pb::Sampling {
        temperature: sampling.temperature,
        top_p: sampling.top_p,
        top_k: sampling.top_k,
        min_p: sampling.min_p,
        repetition_penalty: sampling.repetition_penalty,
        presence_penalty: sampling.presence_penalty,
        frequency_penalty: sampling.frequency_penalty,
        seed: sampling.seed,
        logit_bias: sampling.logit_bias.iter().map(|&(token, bias)| pb::LogitBias { token, bias }).collect(),
    }
}

fn sampling_from_pb(sampling: pb::Sampling) -> Sampling {
    Sampling {
        temperature: sampling.temperature,
        top_p: sampling.top_p,
        top_k: sampling.top_k,
        min_p: sampling.min_p,
        repetition_penalty: sampling.repetition_penalty,
        presence_penalty: sampling.presence_penalty,
        frequency_penalty: sampling.frequency_penalty,
        seed: sampling.seed,
        logit_bias: sampling.logit_bias.into_iter().map(|bias| (bias.token, bias.bias)).collect(),
    }
}

// === events ===

pub fn event_to_pb(event: Event) -> pb::generate_event::Event {
    use pb::generate_event::Event as Told;
    match event {
        // The embedded engine says nothing beyond our vocabulary, so `extra` does not travel.
        Event::Delta(Delta { choice, text, tokens, logprobs, extra: _, findings: _ }) => {
            let token = |token: TokenLogprob| pb::TokenLogprob {
                token: Some(top_to_pb(token.token)),
                top: token.top.into_iter().map(top_to_pb).collect(),
            };
            Told::Delta(pb::Delta { choice, text, tokens, logprobs: logprobs.into_iter().map(token).collect() })
        }
        Event::Finished { choice, reason } => {
            Told::Finished(pb::Finished { choice, reason: reason.as_str().to_owned() })
        }
        Event::Usage(usage) => Told::Usage(pb::Usage {
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            cached_tokens: usage.cached_tokens,
        }),
    }
}

/// `Err` where the worker failed, or said what does not belong here.
pub fn event_from_pb(event: pb::generate_event::Event) -> Result<Event, WorkerError> {
    use pb::generate_event::Event as Told;
    let failed = |what: String| Err(WorkerError::Failed(what));
    match event {
        Told::Started(_) => failed("it said twice that it had started".to_owned()),
        Told::Error(error) => Err(error_from_pb(error)),
        Told::Delta(delta) => {
            let token = |token: pb::TokenLogprob| TokenLogprob {
                token: top_from_pb(token.token.unwrap_or_default()),
                top: token.top.into_iter().map(top_from_pb).collect(),
            };
            Ok(Event::Delta(Delta {
                choice: delta.choice,
                text: delta.text,
                tokens: delta.tokens,
                logprobs: delta.logprobs.into_iter().map(token).collect(),
                extra: None,
                findings: Vec::new(),
            }))
        }
        Told::Finished(pb::Finished { choice, reason }) => match FinishReason::parse(&reason) {
            Some(reason) => Ok(Event::Finished { choice, reason }),
            None => failed(format!("a choice finished for the reason `{reason}`")),
        },
        Told::Usage(usage) => Ok(Event::Usage(Usage {
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            cached_tokens: usage.cached_tokens,
        })),
    }
}

fn top_to_pb(top: TopLogprob) -> pb::TopLogprob {
    pb::TopLogprob { bytes: top.bytes, logprob: top.logprob }
}

fn top_from_pb(top: pb::TopLogprob) -> TopLogprob {
    TopLogprob { bytes: top.bytes, logprob: top.logprob }
}

// === errors ===

pub fn error_to_pb(error: &WorkerError) -> pb::Error {
    use pb::error::Kind;
    let told = |kind: Kind, detail: &str| pb::Error { kind: kind.into(), detail: detail.to_owned(), refusal: None };
    match error {
        WorkerError::Refused(refusal) => pb::Error {
            refusal: Some(refusal_to_pb(refusal)),
            ..told(Kind::Refused, refusal.detail().unwrap_or_default())
        },
        WorkerError::Busy => told(Kind::Busy, ""),
        WorkerError::Unavailable(why) => told(Kind::Unavailable, why),
        WorkerError::Failed(why) => told(Kind::Failed, why),
        WorkerError::AdapterInvalid(why) => told(Kind::AdapterInvalid, why),
        WorkerError::AdapterMissing(why) => told(Kind::AdapterMissing, why),
        // Only gateways compare answers with probes.
        WorkerError::AdapterMismatch(why) | WorkerError::AdapterUnavailable(why) => told(Kind::AdapterUnavailable, why),
    }
}

pub fn error_from_pb(error: pb::Error) -> WorkerError {
    use pb::error::Kind;
    let (kind, detail) = (error.kind(), error.detail);
    match (kind, error.refusal) {
        (Kind::Refused, Some(refusal)) => {
            let refusal = refusal_from_pb(refusal);
            WorkerError::Refused(if detail.is_empty() { refusal } else { refusal.with_detail(detail) })
        }
        (Kind::Busy, _) => WorkerError::Busy,
        (Kind::Unavailable, _) => WorkerError::Unavailable(detail),
        (Kind::AdapterInvalid, _) => WorkerError::AdapterInvalid(detail),
        (Kind::AdapterMissing, _) => WorkerError::AdapterMissing(detail),
        (Kind::AdapterUnavailable, _) => WorkerError::AdapterUnavailable(detail),
        (Kind::Refused | Kind::Failed | Kind::Unspecified, _) => WorkerError::Failed(detail),
    }
}

fn refusal_to_pb(refusal: &Error) -> pb::RequestError {
    pb::RequestError {
        kind: refusal.kind().as_str().to_owned(),
        message: refusal.message().to_owned(),
        param: refusal.param().map(str::to_owned),
        code: refusal.code().map(str::to_owned),
    }
}

fn refusal_from_pb(refusal: pb::RequestError) -> Error {
    let kinds = [ErrorKind::InvalidRequest, ErrorKind::ContextTooLong];
    let Some(kind) = kinds.into_iter().find(|kind| kind.as_str() == refusal.kind) else {
        return Error::internal(refusal.message);
    };
    let mut error = Error::new(kind, refusal.message);
    if let Some(param) = refusal.param {
        error = error.with_param(param);
    }
    match CODES.into_iter().find(|code| Some(*code) == refusal.code.as_deref()) {
        Some(code) => error.with_code(code),
        None => error,
    }
}

fn json(object: &Map<String, Value>) -> String {
    serde_json::to_string(object).expect("an object of values has string keys")
}

fn object(text: &str) -> Result<Map<String, Value>, Unreadable> {
    if text.is_empty() {
        return Ok(Map::new());
    }
    serde_json::from_str(text).map_err(|error| format!("not a JSON object: {error}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::types::BaseName;

    #[test]
    fn a_call_is_the_same_after_the_wire() {
        let more = More {
            as_given: json!({"role": "user", "content": "Hi", "name": "Ann"}).as_object().expect("an object").clone(),
            refusal: Some(Error::invalid("messages[0].name", "No.").with_code("unsupported_parameter")),
        };
        let named = Message { more: Some(Box::new(more)), ..Message::text(Role::User, "Hi") };
        let inputs = [
            Input::Chat(vec![Message::text(Role::System, "Be short."), named]),
            Input::Prompts(vec![Prompt::Text("a".to_owned()), Prompt::Tokens(vec![1, 2])]),
        ];
        for input in inputs {
            let request = GenerateRequest {
                route: Route::GrpcGenerate,
                model: "base".to_owned(),
                input,
                sampling: Sampling {
                    temperature: 0.5,
                    seed: Some(7),
                    logit_bias: vec![(3, -1.5)],
                    ..Sampling::default()
                },
                stop: vec!["END".to_owned()],
                max_tokens: Some(9),
                choices: 2,
                logprobs: Some(0),
                ignore_eos: true,
                timeout: None,
                extra: json!({"tools": [1]}).as_object().expect("an object").clone(),
            };
            let key = AdapterKey { tenant: TenantId::new("t"), name: "n".into(), revision: 3, digest: "d".into() };
            let id = GenerationId::new(Default::default());
            let tenant = TenantId::new("t");
            let call = Call {
                id,
                tenant,
                base: BaseName::new("base"),
                adapter: Some(key),
                request: Arc::new(request),
                trace: None,
            };
            let read = call_from_pb(call_to_pb(&call)).expect("read");
            assert_eq!(
                (read.id, &read.tenant, &read.base, &read.adapter),
                (call.id, &call.tenant, &call.base, &call.adapter)
            );
            assert_eq!(read.request, call.request);
        }
    }

    #[test]
    fn an_error_is_the_same_after_the_wire() {
        let why = || "why".to_owned();
        for error in [
            WorkerError::Refused(Error::invalid("a", "b").with_code("unsupported_parameter").with_detail("c")),
            WorkerError::Refused(Error::new(ErrorKind::ContextTooLong, "long")),
            WorkerError::Busy,
            WorkerError::Unavailable(why()),
            WorkerError::Failed(why()),
            WorkerError::AdapterInvalid(why()),
            WorkerError::AdapterMissing(why()),
            WorkerError::AdapterUnavailable(why()),
        ] {
            assert_eq!(error_from_pb(error_to_pb(&error)), error);
        }
    }

    #[test]
    fn an_event_is_the_same_after_the_wire() {
        let top = |text: &str| TopLogprob { bytes: text.into(), logprob: -0.5 };
        let logprobs = vec![TokenLogprob { token: top("a"), top: vec![top("a"), top("b")] }];
        for event in [
            Event::Delta(Delta {
                choice: 1,
                text: "a".to_owned(),
                tokens: 1,
                logprobs,
                extra: None,
                findings: Vec::new(),
            }),
            Event::Finished { choice: 1, reason: FinishReason::Length },
            Event::Usage(Usage { prompt_tokens: 1, completion_tokens: 2, cached_tokens: 3 }),
        ] {
            assert_eq!(event_from_pb(event_to_pb(event.clone())), Ok(event));
        }
    }

    #[test]
    fn what_has_no_meaning_is_told() {
        let call = |change: fn(&mut pb::GenerateRequest)| {
            let input = pb::generate_request::Input::Prompts(pb::Prompts {
                prompts: vec![pb::Prompt { prompt: Some(pb::prompt::Prompt::Text("a".to_owned())) }],
            });
            let id = GenerationId::new(Default::default()).to_string();
            let mut call = pb::GenerateRequest { id, input: Some(input), choices: 1, ..Default::default() };
            change(&mut call);
            call_from_pb(call).map(|_| ()).unwrap_err()
        };
        assert_eq!(call(|call| call.choices = 0), "`choices` is 0");
        assert_eq!(call(|call| call.logprobs = Some(300)), "`logprobs` is 300");
        assert_eq!(call(|call| call.input = None), "`input` is missing");
        assert_eq!(call(|call| call.id = "7".to_owned()), "`7` is not a generation's id");
        assert!(call(|call| call.extra_json = "[]".to_owned()).starts_with("not a JSON object"));
    }
}
