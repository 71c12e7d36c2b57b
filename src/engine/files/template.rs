//! Turns a list of messages into the text the model was trained on, with the model's own Jinja template.
//!
//! The environment is set up as transformers does it, so that the same template gives the same text. Work is bounded
//! in steps and output in bytes; memory inside a template is not (one that doubles a string forty times over can
//! exhaust it), which is why a template comes with the model the operator chose and never from a tenant.
//!
//! Messages cannot speak as the template: see [`RenderedPrompt`].

use std::io;
use std::time::SystemTime;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Kwargs;
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior, Value, context};

use super::content_guard::ContentGuard;
use super::error::quoted;
use super::template_functions::{formatted_time, python_json, without_generation_tags};

/// About a second at worst. A message takes some hundred steps.
const MAX_STEPS: u64 = 5_000_000;
const MAX_SOURCE_BYTES: usize = 1 << 20;
/// Beyond this no model here has the context, whatever its tokenizer.
const MAX_PROMPT_BYTES: usize = 64 << 20;
const NAME: &str = "chat";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatMessage {
    /// From the gateway's closed set (`system`, `user`, `assistant`, …). It becomes part of the markup.
    pub role: String,
    pub content: String,
}

/// Whether the prompt ends with the opening of the assistant's turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GenerationPrompt {
    Add,
    Omit,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TemplateError {
    /// The template called `raise_exception`, for example because roles do not alternate.
    #[error("the model's chat template refuses these messages: {0}")]
    Rejected(String),
    #[error("`{0}` is not a usable message role")]
    Role(String),
    #[error("the messages contain every private-use character of Unicode")]
    Unencodable,
    #[error("the messages make a prompt of more than {MAX_PROMPT_BYTES} bytes")]
    TooLong,
    #[error("the chat template takes more than {MAX_STEPS} steps for these messages")]
    TooMuchWork,
    #[error("the model's chat template is broken: {0}")]
    Broken(String),
}

impl TemplateError {
    /// Whether other messages would have worked.
    pub fn is_clients_fault(&self) -> bool {
        !matches!(self, Self::Broken(_))
    }
}

/// A prompt that still knows which control tokens its template wrote.
///
/// Where a message spelled one, a guard character that occurs nowhere else breaks the spelling;
/// `Tokenizer::encode_prompt` takes it out after control tokens were looked for. Ordinary messages contain no such
/// spelling and are rendered untouched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenderedPrompt {
    guarded: String,
    guard: Option<char>,
}

impl RenderedPrompt {
    /// What transformers would have rendered.
    pub fn text(&self) -> String {
        match self.guard {
            Some(guard) => self.guarded.replace(guard, ""),
            None => self.guarded.clone(),
        }
    }

    pub(crate) fn guarded_text(&self) -> &str {
        &self.guarded
    }

    pub(crate) fn guard(&self) -> Option<char> {
        self.guard
    }
}

/// A model's template, parsed once.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
    bos_token: String,
    eos_token: String,
    guard: ContentGuard,
}

impl ChatTemplate {
    /// `special_texts` are the tokenizer's control tokens as text.
    pub fn parse(
        source: &str,
        bos_token: Option<&str>,
        eos_token: Option<&str>,
        special_texts: &[String],
    ) -> Result<Self, TemplateError> {
        if source.len() > MAX_SOURCE_BYTES {
            return Err(TemplateError::Broken(format!("it has {} bytes", source.len())));
        }
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(broken)?;
        environment.set_syntax(syntax);
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        environment.set_fuel(Some(MAX_STEPS));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_filter("tojson", tojson);
        environment.add_function("raise_exception", raise_exception);
        environment.add_template_owned(NAME, without_generation_tags(source)).map_err(broken)?;
        Ok(Self {
            environment,
            source: source.to_owned(),
            bos_token: bos_token.unwrap_or_default().to_owned(),
            eos_token: eos_token.unwrap_or_default().to_owned(),
            guard: ContentGuard::new(special_texts),
        })
    }

    pub fn render(
        &self,
        messages: &[ChatMessage],
        generation: GenerationPrompt,
    ) -> Result<RenderedPrompt, TemplateError> {
        self.render_at(messages, generation, SystemTime::now())
    }

    /// With the time that `strftime_now` sees, in UTC.
    pub fn render_at(
        &self,
        messages: &[ChatMessage],
        generation: GenerationPrompt,
        now: SystemTime,
    ) -> Result<RenderedPrompt, TemplateError> {
        if let Some(message) = messages.iter().find(|message| !usable_role(&message.role)) {
            return Err(TemplateError::Role(quoted(&message.role)));
        }
        let guarded = self.guard.protect(messages, &self.source)?;
        let messages = guarded.messages.as_deref().unwrap_or(messages);
        let strftime_now = move |format: &str| -> Result<String, Error> { formatted_time(now, format) };
        let values = context! {
            messages => messages.iter().map(as_value).collect::<Vec<Value>>(),
            add_generation_prompt => generation == GenerationPrompt::Add,
            bos_token => self.bos_token.as_str(),
            eos_token => self.eos_token.as_str(),
            tools => (),
            documents => (),
            strftime_now => Value::from_function(strftime_now),
        };
        let template = self.environment.get_template(NAME).map_err(broken)?;
        let mut prompt = Bounded(Vec::new());
        template.render_captured_to(values, &mut prompt).map_err(classified)?;
        let guarded_text = String::from_utf8(prompt.0).expect("a template writes whole strings");
        Ok(RenderedPrompt { guarded: guarded_text, guard: guarded.guard })
    }

    /// As the model's files have it.
    pub fn source(&self) -> &str {
        &self.source
    }

    pub(crate) fn bos_token(&self) -> &str {
        &self.bos_token
    }

    pub(crate) fn eos_token(&self) -> &str {
        &self.eos_token
    }
}

fn as_value(message: &ChatMessage) -> Value {
    Value::from_pairs([("role", message.role.as_str()), ("content", message.content.as_str())])
}

fn usable_role(role: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    !role.is_empty() && role.len() <= 64 && role.bytes().all(plain)
}

/// Marks an error as the template's deliberate refusal.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

fn raise_exception(message: String) -> Result<String, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, "raise_exception").with_source(Raised(message)))
}

fn tojson(value: &Value, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    // Accepted for compatibility: characters are never escaped, keys stay in their order.
    let _: Option<bool> = options.get("ensure_ascii")?;
    let _: Option<bool> = options.get("sort_keys")?;
    options.assert_all_used()?;
    python_json(value, indent).map(Value::from_safe_string)
}

fn classified(error: Error) -> TemplateError {
    let mut cause: Option<&dyn std::error::Error> = Some(&error);
    while let Some(current) = cause {
        if let Some(Raised(message)) = current.downcast_ref() {
            return TemplateError::Rejected(message.clone());
        }
        if let Some(inner) = current.downcast_ref::<Error>() {
            match inner.kind() {
                ErrorKind::OutOfFuel => return TemplateError::TooMuchWork,
                ErrorKind::WriteFailure => return TemplateError::TooLong,
                _ => {}
            }
        }
        cause = current.source();
    }
    broken(error)
}

fn broken(error: Error) -> TemplateError {
    TemplateError::Broken(error.to_string())
}

/// Refuses to grow past the limit; the only way a write here can fail.
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_PROMPT_BYTES {
            return Err(io::Error::other("prompt too long"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
