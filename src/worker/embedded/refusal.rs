//! What this engine does not take, in OpenAI's words.

use crate::engine::SubmitError;
use crate::types::{Error, ErrorKind, GenerateRequest, Input};
use crate::worker::WorkerError;

/// Names the first thing that this engine does not know.
pub(super) fn refuse_unsupported(request: &GenerateRequest) -> Result<(), Error> {
    if let Input::Chat(messages) = &request.input {
        let mut refusals = messages.iter().filter_map(|message| message.more.as_ref()?.refusal.as_ref());
        if let Some(refusal) = refusals.next() {
            return Err(refusal.clone());
        }
    }
    match request.extra.keys().next() {
        None => Ok(()),
        Some(field) => Err(Error::invalid(
            field.clone(),
            format!("Unsupported parameter: '{field}' is not supported with this model."),
        )
        .with_code("unsupported_parameter")),
    }
}

/// The engine's refusal in OpenAI's words.
pub(super) fn refusal(error: SubmitError, input: &Input) -> WorkerError {
    let field = match input {
        Input::Chat(_) => "messages",
        Input::Prompts(_) => "prompt",
    };
    WorkerError::Refused(match error {
        SubmitError::EmptyPrompt => Error::invalid(field, format!("'{field}' must hold at least one token.")),
        SubmitError::UnknownToken { token, vocabulary } => Error::invalid(
            field,
            format!("Invalid token {token} in '{field}': the model's vocabulary has {vocabulary} tokens."),
        ),
        SubmitError::PromptTooLong { prompt, context } => Error::new(
            ErrorKind::ContextTooLong,
            format!(
                "This model's maximum context length is {context} tokens. However, your {field} resulted in {prompt} \
                 tokens. Please reduce the length of the {field}."
            ),
        )
        .with_param(field),
        SubmitError::TooManyTokens { prompt, max_tokens, context } => Error::new(
            ErrorKind::ContextTooLong,
            format!(
                "This model's maximum context length is {context} tokens. However, you requested {} tokens ({prompt} \
                 in the {field}, {max_tokens} in the completion). Please reduce the length of the {field} or \
                 completion.",
                prompt as u64 + u64::from(max_tokens)
            ),
        )
        .with_param("max_tokens"),
        SubmitError::UnknownBias { token, vocabulary } => Error::invalid(
            "logit_bias",
            format!("Invalid token {token} in 'logit_bias': the model's vocabulary has {vocabulary} tokens."),
        ),
        SubmitError::TooManySequences { sequences, most } => Error::invalid(
            "n",
            format!("The request asks for {sequences} completions; this model takes up to {most} at one time."),
        ),
        SubmitError::QueueFull => return WorkerError::Busy,
        SubmitError::Stopped => return WorkerError::Unavailable(error.to_string()),
    })
}
