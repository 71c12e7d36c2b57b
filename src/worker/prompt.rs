//! A request's input as tokens of a model.

use crate::engine::files::{ChatMessage, ChatTemplate, GenerationPrompt, ModelFiles, SpecialTokens, Tokenizer};
use crate::types::{Error, Input, Message, Prompt, Role};

/// The tokens of each prompt. An error is the client's to mend.
pub(super) fn prompts(files: &ModelFiles, tokenizer: &Tokenizer, input: &Input) -> Result<Vec<Vec<u32>>, Error> {
    match input {
        Input::Chat(messages) => Ok(vec![chat(files.chat_template(), tokenizer, messages)?]),
        Input::Prompts(prompts) => prompts.iter().map(|prompt| raw(tokenizer, prompt)).collect(),
    }
}

fn chat(template: Option<&ChatTemplate>, tokenizer: &Tokenizer, messages: &[Message]) -> Result<Vec<u32>, Error> {
    let template = template.ok_or_else(|| {
        Error::invalid("messages", "This model has no chat template; use the completions endpoint with a prompt.")
    })?;
    let messages: Vec<ChatMessage> = messages
        .iter()
        .map(|message| ChatMessage { role: template_role(message.role).to_owned(), content: message.content.clone() })
        .collect();
    let rendered = template.render(&messages, GenerationPrompt::Add).map_err(|error| {
        if error.is_clients_fault() {
            Error::invalid("messages", error.to_string())
        } else {
            Error::internal(error.to_string())
        }
    })?;
    tokenizer.encode_prompt(&rendered).map_err(|error| Error::invalid("messages", error.to_string()))
}

fn raw(tokenizer: &Tokenizer, prompt: &Prompt) -> Result<Vec<u32>, Error> {
    match prompt {
        Prompt::Tokens(tokens) => Ok(tokens.clone()),
        Prompt::Text(text) => {
            let mut tokens: Vec<u32> = tokenizer.bos_to_add().into_iter().collect();
            let encoded = tokenizer.encode(text, SpecialTokens::Plain);
            tokens.extend(encoded.map_err(|error| Error::invalid("prompt", error.to_string()))?);
            Ok(tokens)
        }
    }
}

/// Templates know the older name of the developer's role.
fn template_role(role: Role) -> &'static str {
    match role {
        Role::Developer => Role::System.as_str(),
        Role::System | Role::User | Role::Assistant | Role::Tool => role.as_str(),
    }
}
