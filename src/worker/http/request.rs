//! A request in OpenAI's form, as each kind of endpoint understands it.

use serde_json::{Map, Value, json};

use crate::types::{Error, GenerateRequest, Input, Message, Prompt, Sampling};

/// What one kind of endpoint wants to be told, and what not.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dialect {
    /// Which sampling fields are sent although they have OpenAI's defaults:
    /// the endpoint's own may be others.
    pub(super) explicit: Explicit,
    /// A chat's limit on new tokens.
    pub(super) max_tokens: &'static str,
    /// Whether it can tell the usage so far in every chunk.
    pub(super) running_usage: bool,
    /// Fields that a tenant must not set, each with why.
    pub(super) forbidden: &'static [(&'static str, &'static str)],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Explicit {
    /// Some models refuse to be told at all.
    Nothing,
    Temperature,
    All,
}

/// Where the request goes.
pub(super) fn path(request: &GenerateRequest) -> &'static str {
    match request.input {
        Input::Chat(_) => "/chat/completions",
        Input::Prompts(_) => "/completions",
    }
}

/// The request's body; always for a stream with its usage. `ours` is set last:
/// nothing that a client wrote takes its place.
pub(super) fn body(
    dialect: &Dialect,
    request: &GenerateRequest,
    model: &str,
    ours: Vec<(&'static str, Value)>,
) -> Result<Vec<u8>, Error> {
    let forbidden = request.extra.keys().find(|name| dialect.forbidden.iter().any(|(field, _)| field == name));
    if let Some(name) = forbidden {
        let message = format!("Unsupported parameter: '{name}' is not supported with this model.");
        return Err(Error::invalid(name.clone(), message).with_code("unsupported_parameter"));
    }
    let mut body = request.extra.clone();
    let chat = match &request.input {
        Input::Chat(messages) => {
            body.insert("messages".to_owned(), messages.iter().map(message).collect());
            true
        }
        Input::Prompts(prompts) => {
            body.insert("prompt".to_owned(), prompt(prompts));
            false
        }
    };
    let mut set = |name: &str, value: Value| drop(body.insert(name.to_owned(), value));
    sampling(dialect.explicit, &request.sampling, &mut set);
    if let Some(tokens) = request.max_tokens {
        set(if chat { dialect.max_tokens } else { "max_tokens" }, tokens.into());
    }
    if request.choices > 1 {
        set("n", request.choices.into());
    }
    if !request.stop.is_empty() {
        set("stop", request.stop.clone().into());
    }
    if request.ignore_eos {
        set("ignore_eos", true.into());
    }
    match request.logprobs {
        None => {}
        Some(top) if chat => {
            set("logprobs", true.into());
            set("top_logprobs", top.into());
        }
        Some(top) => set("logprobs", top.into()),
    }
    set("model", model.into());
    set("stream", true.into());
    let mut options = json!({ "include_usage": true });
    if dialect.running_usage {
        options["continuous_usage_stats"] = true.into();
    }
    set("stream_options", options);
    for (name, value) in ours {
        set(name, value);
    }
    Ok(serde_json::to_vec(&body).expect("an object of values has string keys"))
}

fn message(message: &Message) -> Value {
    match &message.more {
        Some(more) => Value::Object(more.as_given.clone()),
        None => json!({ "role": message.role.as_str(), "content": message.content }),
    }
}

fn prompt(prompts: &[Prompt]) -> Value {
    let one = |prompt: &Prompt| match prompt {
        Prompt::Text(text) => Value::from(text.as_str()),
        Prompt::Tokens(tokens) => tokens.as_slice().into(),
    };
    match prompts {
        [prompt] => one(prompt),
        prompts => prompts.iter().map(one).collect(),
    }
}

fn sampling(explicit: Explicit, sampling: &Sampling, set: &mut impl FnMut(&str, Value)) {
    let default = Sampling::default();
    let mut number = |name: &str, value: f32, default: f32, always: bool| {
        if value != default || always {
            set(name, decimal(value));
        }
    };
    let (temperature, all) = (explicit != Explicit::Nothing, explicit == Explicit::All);
    number("temperature", sampling.temperature, default.temperature, temperature);
    number("top_p", sampling.top_p, default.top_p, temperature);
    number("min_p", sampling.min_p, default.min_p, all);
    number("repetition_penalty", sampling.repetition_penalty, default.repetition_penalty, false);
    // llama.cpp's name of the same.
    if all {
        number("repeat_penalty", sampling.repetition_penalty, default.repetition_penalty, true);
    }
    number("presence_penalty", sampling.presence_penalty, default.presence_penalty, false);
    number("frequency_penalty", sampling.frequency_penalty, default.frequency_penalty, false);
    if sampling.top_k != default.top_k || all {
        set("top_k", sampling.top_k.into());
    }
    if let Some(seed) = sampling.seed {
        // Engines read it as a signed number; it only has to be the same each time.
        set("seed", (seed & (i64::MAX as u64)).into());
    }
    if !sampling.logit_bias.is_empty() {
        let bias = |(token, bias): &(u32, f32)| (token.to_string(), decimal(*bias));
        set("logit_bias", Value::Object(sampling.logit_bias.iter().map(bias).collect::<Map<_, _>>()));
    }
}

/// As short as it was written: 0.1, not 0.10000000149.
fn decimal(value: f32) -> Value {
    value.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}
