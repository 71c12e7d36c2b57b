//! A generation at an OpenAI-compatible endpoint, from request to last event.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use http::StatusCode;
use serde_json::Value;
use tokio::time::Instant;

use super::RemoteConfig;
use super::chunk::{ModelCheck, Reader, shortened};
use super::client::{Client, ClientError, Response};
use super::request::{self, Dialect};
use super::sse::Decoder;
use crate::types::{Error, ErrorKind, GenerateRequest, TraceContext};
use crate::worker::{EventSource, Started, WorkerError};

/// Of an answer that is no stream.
pub(super) const MAX_ANSWER: usize = 4 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Timeouts {
    pub(super) first_byte: Duration,
    pub(super) stall: Duration,
}

/// One generation to run.
pub(super) struct Generation<'a> {
    pub(super) request: &'a GenerateRequest,
    /// What the worker calls the model.
    pub(super) model: &'a str,
    pub(super) check: ModelCheck,
    /// Before `/chat/completions`.
    pub(super) prefix: &'static str,
    /// Fields of the driver's own.
    pub(super) ours: Vec<(&'static str, Value)>,
    pub(super) trace: Option<&'a TraceContext>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Fault {
    /// Nobody takes connections there.
    Unreachable(String),
    /// It was asked, or could not be: this request's affair.
    Worker(WorkerError),
}

/// An answer that is being read.
pub(super) struct Answer {
    response: Response,
    decoder: Decoder,
    reader: Reader,
    stall: Duration,
    /// Given back when the answer has been read, or is not wanted any more.
    _held: Option<Box<dyn Send>>,
}

/// `missing` says what it means that the worker does not know the model.
pub(super) async fn generate(
    client: &Arc<Client>,
    timeouts: Timeouts,
    dialect: &Dialect,
    generation: Generation<'_>,
    missing: impl FnOnce(String) -> WorkerError,
) -> Result<Answer, Fault> {
    let Generation { request, model, check, prefix, ours, trace } = generation;
    let body = request::body(dialect, request, model, ours).map_err(WorkerError::Refused)?;
    let path = format!("{prefix}{}", request::path(request));
    let response = tokio::time::timeout(timeouts.first_byte, client.post_traced(&path, body, trace)).await;
    let response = response.map_err(|_| silent(timeouts.first_byte))??;
    if response.status != StatusCode::OK {
        let status = response.status;
        let text = tokio::time::timeout(timeouts.stall, response.bytes(MAX_ANSWER)).await;
        let text = text.ok().and_then(Result::ok).unwrap_or_default();
        return Err(refusal(status, &text, missing).into());
    }
    let reader = Reader::new(request, check, dialect.running_usage);
    let mut answer = Answer { response, decoder: Decoder::default(), reader, stall: timeouts.stall, _held: None };
    // Until it is known how long the prompt is, or an event exists.
    while !answer.reader.has_events() && answer.reader.prompt_tokens().is_none() {
        answer.read(timeouts.first_byte).await?;
    }
    Ok(answer)
}

fn events(answer: Answer) -> EventSource {
    let next = async |answer: Option<Answer>| {
        let mut answer = answer?;
        loop {
            if let Some(event) = answer.reader.event() {
                let last = answer.reader.done() && !answer.reader.has_events();
                if last {
                    answer.finish().await;
                    return Some((Ok(event), None));
                }
                return Some((Ok(event), Some(answer)));
            }
            let stall = answer.stall;
            if let Err(error) = answer.read(stall).await {
                return Some((Err(error), None));
            }
        }
    };
    Box::pin(stream::unfold(Some(answer), next).boxed())
}

// === impl Fault ===

impl From<ClientError> for Fault {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Connect(_) | ClientError::ConnectTimeout => Self::Unreachable(error.to_string()),
            ClientError::Http(_) | ClientError::TooLong(_) | ClientError::Request(_) => {
                Self::Worker(failed(&error.to_string()))
            }
        }
    }
}

impl From<WorkerError> for Fault {
    fn from(error: WorkerError) -> Self {
        Self::Worker(error)
    }
}

impl From<Fault> for WorkerError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Unreachable(why) => Self::Unavailable(why),
            Fault::Worker(error) => error,
        }
    }
}

// === impl Answer ===

impl Answer {
    /// When the connection that it comes on was made.
    pub(super) fn connected(&self) -> Instant {
        self.response.connected()
    }

    /// Keeps `held` for as long as the answer is being read.
    pub(super) fn holding(self, held: impl Send + 'static) -> Self {
        Self { _held: Some(Box::new(held)), ..self }
    }

    pub(super) fn into_started(self) -> Started {
        Started { prompt_tokens: self.reader.prompt_tokens(), events: events(self) }
    }

    /// Reads on until something new was understood, for at most `patience`.
    async fn read(&mut self, patience: Duration) -> Result<(), WorkerError> {
        if let Some(data) = self.decoder.next_event() {
            return self.reader.data(&data);
        }
        let data = tokio::time::timeout(patience, self.response.data()).await.map_err(|_| silent(patience))?;
        match data {
            Ok(Some(bytes)) => {
                self.decoder.push(&bytes).map_err(|_| failed("an event of its answer is too long"))?;
                Ok(())
            }
            Ok(None) => Err(failed("it ended its answer early")),
            Err(error) => Err(failed(&error.to_string())),
        }
    }

    /// Behind the last event there is only the body's end. The connection is
    /// kept where that comes at once.
    async fn finish(mut self) {
        const AT_ONCE: Duration = Duration::from_millis(20);
        if let Ok(Ok(None)) = tokio::time::timeout(AT_ONCE, self.response.data()).await {
            self.response.done();
        }
    }
}

/// Asks `/detokenize` for the text of tokens, which stands in `field` of the answer.
/// `None` where the worker does not tell it.
pub(super) async fn text_of(client: &Arc<Client>, remote: &RemoteConfig, body: &Value, field: &str) -> Option<String> {
    let asking = async {
        let response = client.post("/detokenize", body.to_string().into_bytes()).await.ok()?;
        let answer = response.status.is_success().then_some(response)?.bytes(MAX_ANSWER).await.ok()?;
        let answer: Value = serde_json::from_slice(&answer).ok()?;
        answer.get(field)?.as_str().map(str::to_owned)
    };
    tokio::time::timeout(remote.timeouts().first_byte, asking).await.ok()?
}

fn failed(what: &str) -> WorkerError {
    WorkerError::Failed(what.to_owned())
}

fn silent(time: Duration) -> WorkerError {
    WorkerError::Failed(format!("it was silent for {} seconds", time.as_secs_f64()))
}

/// The text of an error in OpenAI's form, for the log.
pub(super) fn error_text(body: &[u8]) -> String {
    let error: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    let text = error.pointer("/error/message").or_else(|| error.get("message")).and_then(Value::as_str);
    shortened(text.unwrap_or(&String::from_utf8_lossy(body)))
}

/// An answer other than 200. What the worker wrote goes to the log; what the
/// client reads are our words.
fn refusal(status: StatusCode, body: &[u8], missing: impl FnOnce(String) -> WorkerError) -> WorkerError {
    let text = error_text(body);
    let detail = format!("{}: {text}", status.as_u16());
    match status.as_u16() {
        400 | 413 | 422 => WorkerError::Refused(invalid(body, &text).with_detail(detail)),
        // They are ours, and such a text may show a part of them.
        401 | 403 => WorkerError::Failed(format!("{}: it refuses our credentials", status.as_u16())),
        404 => missing(detail),
        429 => WorkerError::Busy,
        408 | 502..=504 => WorkerError::Unavailable(detail),
        // llama.cpp's, where the model's template refuses the messages.
        500 if text.contains("Jinja Exception") => WorkerError::Refused(invalid(body, &text).with_detail(detail)),
        _ => WorkerError::Failed(detail),
    }
}

pub(super) fn invalid(body: &[u8], text: &str) -> Error {
    let error: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    let error = error.get("error").unwrap_or(&error);
    let said = |name: &str| error.get(name).and_then(Value::as_str).unwrap_or_default();
    let param = said("param").trim_start_matches("body.");
    let too_long = said("code") == "context_length_exceeded"
        || said("type") == "exceed_context_size_error"
        || text.contains("maximum context length")
        || text.contains("max_model_len");
    if too_long {
        let message = "The request does not fit into this model's context: prompt and completion together are too \
                       long. Please reduce the length of either one.";
        return Error::new(ErrorKind::ContextTooLong, message);
    }
    // A plain name is a field of the request; anything else is the worker's inside.
    let plain = !param.is_empty()
        && param.len() <= 64
        && param.bytes().all(|c| c.is_ascii_alphanumeric() || b"_.[]".contains(&c));
    if text.starts_with("n must be 1") {
        return Error::invalid("n", "Invalid value for 'n': this model gives one choice where the temperature is 0.");
    }
    match plain {
        true => {
            Error::invalid(param.to_owned(), format!("Invalid value for '{param}': this model does not support it."))
        }
        false => Error::new(ErrorKind::InvalidRequest, "This model does not support a value of the request."),
    }
}
