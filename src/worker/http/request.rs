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
    /// Fields that a tenant must not set, each with why; `a.b` is the field
    /// `b` of the object `a`.
    pub(super) forbidden: &'static [(&'static str, &'static str)],
    /// What it does with the address of an image or a sound.
    pub(super) media: Media,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Media {
    /// It is elsewhere, and fetches what anybody could.
    Fetched,
    /// It would fetch it from inside our network, or read it from its disk.
    InlineOnly,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Explicit {
    /// Some models refuse to be told at all.
    Nothing,
    /// All of them: an engine takes what is not said from the model's
    /// `generation_config.json`, or has defaults of its own.
    All { repetition_penalty: &'static str },
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
    if let Some((field, _)) = dialect.forbidden.iter().find(|(field, _)| is_set(&request.extra, field)) {
        return Err(unsupported((*field).to_owned()));
    }
    if let (Media::InlineOnly, Input::Chat(messages)) = (dialect.media, &request.input) {
        inline_only(messages)?;
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

fn unsupported(path: String) -> Error {
    let message = format!("Unsupported parameter: '{path}' is not supported with this model.");
    Error::invalid(path, message).with_code("unsupported_parameter")
}

fn is_set(fields: &Map<String, Value>, path: &str) -> bool {
    match path.split_once('.') {
        None => fields.contains_key(path),
        Some((object, field)) => fields.get(object).is_some_and(|object| object.get(field).is_some()),
    }
}

/// Refuses the first content part that names something to be fetched, or that
/// is a tensor file.
fn inline_only(messages: &[Message]) -> Result<(), Error> {
    for (index, message) in messages.iter().enumerate() {
        let parts = message.more.as_ref().and_then(|more| more.as_given.get("content")?.as_array());
        for (place, part) in parts.into_iter().flatten().enumerate() {
            let path = format!("messages[{index}].content[{place}]");
            let kind = part.get("type").and_then(Value::as_str).unwrap_or_default();
            if kind.ends_with("_embeds")
                || part.as_object().is_some_and(|part| part.keys().any(|it| it.ends_with("_embeds")))
            {
                return Err(unsupported(path));
            }
            if names_an_address(part) {
                let message = format!("Invalid '{path}': with this model, give the content itself as a 'data:' URL.");
                return Err(Error::invalid(path, message));
            }
        }
    }
    Ok(())
}

/// Whether a field for addresses holds one that is not the content itself.
fn names_an_address(value: &Value) -> bool {
    let elsewhere = |value: &Value| value.as_str().is_some_and(|url| !url.trim_start().starts_with("data:"));
    match value {
        Value::Object(fields) => fields.iter().any(|(name, value)| {
            (name == "url" || name.ends_with("_url")) && elsewhere(value) || names_an_address(value)
        }),
        Value::Array(values) => values.iter().any(names_an_address),
        _ => false,
    }
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
    let (all, repetition_penalty) = match explicit {
        Explicit::Nothing => (false, "repetition_penalty"),
        Explicit::All { repetition_penalty } => (true, repetition_penalty),
    };
    number("temperature", sampling.temperature, default.temperature, all);
    number("top_p", sampling.top_p, default.top_p, all);
    number("min_p", sampling.min_p, default.min_p, all);
    number(repetition_penalty, sampling.repetition_penalty, default.repetition_penalty, all);
    number("presence_penalty", sampling.presence_penalty, default.presence_penalty, all);
    number("frequency_penalty", sampling.frequency_penalty, default.frequency_penalty, all);
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
