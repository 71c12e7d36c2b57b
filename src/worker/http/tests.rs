//! Drivers against a server that follows a script, byte by byte.

mod engines;
mod vllm;

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{OpenAi, OpenAiConfig, RemoteConfig};
use crate::types::{
    BaseName, ErrorKind, Event, FinishReason, GenerateRequest, GenerationId, Input, Message, Role, Route, Sampling,
    Secret, TenantId, Usage,
};
use crate::worker::{Call, Driver, WorkerError};

const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

struct Server {
    listener: TcpListener,
}

struct Connection(TcpStream);

// === impl Server ===

impl Server {
    async fn new() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.expect("a port") }
    }

    fn driver(&self) -> Arc<OpenAi> {
        Arc::new(OpenAi::start(OpenAiConfig { remote: self.remote("/v1") }).expect("a good URL"))
    }

    fn remote(&self, base: &str) -> RemoteConfig {
        RemoteConfig {
            url: format!("http://{}{base}", self.listener.local_addr().expect("bound")),
            key: Some(Secret::new("sk-upstream")),
            models: vec![(BaseName::new("base"), "m".to_owned())],
            connect_timeout: Duration::from_secs(2),
            first_byte_timeout: Duration::from_millis(400),
            stall_timeout: Duration::from_millis(200),
            load_timeout: Duration::from_secs(2),
            // Once, at the start.
            poll_interval: Duration::from_secs(600),
        }
    }

    async fn accept(&self) -> Connection {
        Connection(self.listener.accept().await.expect("a connection").0)
    }
}

// === impl Connection ===

impl Connection {
    /// Reads a request; its head and its body.
    async fn request(&mut self) -> (String, Value) {
        let mut read = Vec::new();
        loop {
            let mut buffer = [0; 4096];
            let count = self.0.read(&mut buffer).await.expect("readable");
            assert!(count > 0, "the client went away");
            read.extend_from_slice(&buffer[..count]);
            let text = String::from_utf8_lossy(&read);
            if let Some((head, body)) = text.split_once("\r\n\r\n")
                && let Ok(body) = serde_json::from_str(body)
            {
                return (head.to_owned(), body);
            }
        }
    }

    async fn write(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.expect("written");
    }

    /// One event, as one chunk of the transfer.
    async fn event(&mut self, data: &str) {
        let event = format!("data: {data}\n\n");
        self.write(&format!("{:x}\r\n{event}\r\n", event.len())).await;
    }

    async fn answer(&mut self, text: &str) {
        self.write(HEAD).await;
        self.event(&piece(text, "null")).await;
        self.event(&piece("", "\"stop\"")).await;
        self.event(r#"{"model":"m","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1}}"#).await;
        self.event("[DONE]").await;
        self.write("0\r\n\r\n").await;
    }

    /// Waits for the client to close its end; how long that took.
    async fn closed(&mut self) -> Duration {
        let since = Instant::now();
        let mut buffer = [0; 64];
        // A reset is a close that had bytes unread.
        while self.0.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
        since.elapsed()
    }
}

fn piece(text: &str, reason: &str) -> String {
    format!(r#"{{"model":"m","choices":[{{"index":0,"delta":{{"content":"{text}"}},"finish_reason":{reason}}}]}}"#)
}

fn request() -> GenerateRequest {
    GenerateRequest {
        route: Route::ChatCompletions,
        model: "what the client wrote".to_owned(),
        input: Input::Chat(vec![Message::text(Role::User, "Hi")]),
        sampling: Sampling { temperature: 0.1, ..Sampling::default() },
        stop: vec!["END".to_owned()],
        max_tokens: Some(5),
        choices: 1,
        logprobs: None,
        ignore_eos: false,
        timeout: None,
        extra: Map::new(),
    }
}

fn call(request: GenerateRequest) -> Call {
    Call {
        id: GenerationId::new(Default::default()),
        tenant: crate::types::TenantId::new("acme"),
        base: BaseName::new("base"),
        adapter: None,
        request: Arc::new(request),
        trace: None,
    }
}

async fn run(driver: &dyn Driver) -> Result<Vec<Event>, WorkerError> {
    let started = driver.generate(call(request())).await?;
    started.events.collect::<Vec<_>>().await.into_iter().collect()
}

fn text(events: &[Event]) -> String {
    let text = |event: &Event| match event {
        Event::Delta(delta) => delta.text.clone(),
        _ => String::new(),
    };
    events.iter().map(text).collect()
}

#[tokio::test]
async fn what_is_sent_is_openais_request_and_what_comes_are_its_events() {
    let server = Server::new().await;
    let driver = server.driver();
    let (events, sent) = tokio::join!(run(&*driver), async {
        let mut connection = server.accept().await;
        let sent = connection.request().await;
        connection.answer("Hello").await;
        sent
    });
    let (head, body) = sent;
    assert!(head.starts_with("POST /v1/chat/completions HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("authorization: Bearer sk-upstream"), "{head}");
    assert_eq!(
        body,
        json!({
            "model": "m", "messages": [{"role": "user", "content": "Hi"}], "temperature": 0.1, "stop": ["END"],
            "max_completion_tokens": 5, "stream": true, "stream_options": {"include_usage": true},
        })
    );
    let events = events.expect("an answer");
    assert_eq!(text(&events), "Hello");
    let usage = Usage { prompt_tokens: 3, completion_tokens: 1, cached_tokens: 0 };
    let end = [Event::Finished { choice: 0, reason: FinishReason::Stop }, Event::Usage(usage)];
    assert_eq!(events[1..], end);
}

#[tokio::test]
async fn a_connection_is_used_again_and_a_closed_one_is_not_missed() {
    let server = Server::new().await;
    let driver = server.driver();
    let (answers, ()) = tokio::join!(
        async {
            let first = text(&run(&*driver).await.expect("an answer"));
            let second = text(&run(&*driver).await.expect("an answer"));
            tokio::time::sleep(Duration::from_millis(50)).await;
            let third = text(&run(&*driver).await.expect("an answer"));
            [first, second, third]
        },
        async {
            let mut connection = server.accept().await;
            connection.request().await;
            connection.answer("one").await;
            connection.request().await;
            connection.answer("two").await;
            drop(connection);
            let mut connection = server.accept().await;
            connection.request().await;
            connection.answer("three").await;
        }
    );
    assert_eq!(answers, ["one", "two", "three"]);
}

#[tokio::test]
async fn an_answer_that_is_cut_or_stalls_ends_with_an_error_behind_what_came() {
    let server = Server::new().await;
    for (cut, says) in [(true, "it closed the connection"), (false, "it was silent for 0.2 seconds")] {
        let driver = server.driver();
        let (events, _held) = tokio::join!(
            async {
                let started = driver.generate(call(request())).await.expect("started");
                started.events.collect::<Vec<_>>().await
            },
            async {
                let mut connection = server.accept().await;
                connection.request().await;
                connection.write(HEAD).await;
                connection.event(&piece("Hel", "null")).await;
                (!cut).then_some(connection)
            }
        );
        assert!(matches!(&events[0], Ok(Event::Delta(delta)) if delta.text == "Hel"), "{events:?}");
        assert!(matches!(&events[1], Err(WorkerError::Failed(why)) if why.starts_with(says)), "{events:?}");
        assert_eq!(events.len(), 2);
    }
}

#[tokio::test]
async fn a_worker_that_does_not_begin_or_is_not_there_is_told_apart() {
    let server = Server::new().await;
    let driver = server.driver();
    let (silent, _held) = tokio::join!(run(&*driver), async {
        let mut connection = server.accept().await;
        connection.request().await;
        connection
    });
    assert_eq!(silent, Err(WorkerError::Failed("it was silent for 0.4 seconds".to_owned())));
    let (driver, address) = (server.driver(), server.listener.local_addr().expect("bound"));
    drop(server);
    let refused = run(&*driver).await.expect_err("nobody is there");
    assert!(matches!(&refused, WorkerError::Unavailable(_)), "{address}: {refused}");
    assert!(driver.status().unhealthy.is_some(), "it is left alone for a while");
}

#[tokio::test]
async fn dropping_closes_the_connection_at_once_in_every_phase() {
    const AT_ONCE: Duration = Duration::from_millis(100);
    let server = Server::new().await;
    let driver = server.driver();

    // Before the head of the answer.
    let asking = tokio::spawn({
        let driver = driver.clone();
        async move { driver.generate(call(request())).await.map(drop) }
    });
    let mut connection = server.accept().await;
    connection.request().await;
    asking.abort();
    assert!(connection.closed().await < AT_ONCE);

    // Within the answer.
    let (started, mut connection) = tokio::join!(driver.generate(call(request())), async {
        let mut connection = server.accept().await;
        connection.request().await;
        connection.write(HEAD).await;
        connection.event(&piece("Hel", "null")).await;
        connection
    });
    drop(started.expect("started").events);
    assert!(connection.closed().await < AT_ONCE);
}

#[tokio::test]
async fn refusals_are_told_in_our_words() {
    let server = Server::new().await;
    let driver = server.driver();
    let refused = async |status: &str, body: Value| {
        let body = body.to_string();
        let (refused, ()) = tokio::join!(run(&*driver), async {
            let mut connection = server.accept().await;
            connection.request().await;
            let length = body.len();
            let head = format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
            connection.write(&format!("{head}{body}")).await;
        });
        refused.expect_err("refused")
    };
    let long = json!({"error": {"message": "the secret inside", "type": "exceed_context_size_error", "code": 400}});
    let WorkerError::Refused(error) = refused("400", long).await else { panic!("refused") };
    assert_eq!(error.kind(), ErrorKind::ContextTooLong);
    assert!(!error.message().contains("secret"));
    assert_eq!(error.detail(), Some("400: the secret inside"));
    let field = json!({"error": {"message": "secret", "param": "temperature"}});
    let WorkerError::Refused(error) = refused("400", field).await else { panic!("refused") };
    assert_eq!((error.kind(), error.param()), (ErrorKind::InvalidRequest, Some("temperature")));
    assert_eq!(error.message(), "Invalid value for 'temperature': this model does not support it.");
    assert_eq!(refused("429", json!({})).await, WorkerError::Busy);
    assert!(matches!(refused("503", json!({})).await, WorkerError::Unavailable(_)));
    assert!(matches!(refused("404", json!({})).await, WorkerError::Unavailable(_)));
    assert!(matches!(refused("500", json!({})).await, WorkerError::Failed(_)));
    // llama.cpp, where the template will not have the messages: a tenant must not stop a worker by it.
    let template = json!({"error": {"code": 500, "message": "Jinja Exception: Conversation roles must alternate"}});
    assert!(matches!(refused("500", template).await, WorkerError::Refused(_)));
    assert!(matches!(refused("401", json!({})).await, WorkerError::Failed(_)));
}

#[tokio::test]
async fn a_field_that_a_tenant_must_not_set_is_refused_by_name() {
    let server = Server::new().await;
    let driver = server.driver();
    for field in ["background", "service_tier", "prompt_cache_key"] {
        let extra = [(field.to_owned(), json!(true))].into_iter().collect();
        let refused = driver.generate(call(GenerateRequest { extra, ..request() })).await.map(|_| ());
        let Err(WorkerError::Refused(error)) = refused else { panic!("{refused:?}") };
        assert_eq!((error.param(), error.code()), (Some(field), Some("unsupported_parameter")));
    }
}

#[tokio::test]
async fn what_one_request_is_answered_keeps_no_other_away() {
    let server = Server::new().await;
    let driver = server.driver();
    for status in ["404", "408", "500", "502", "503", "504", "429"] {
        let (refused, ()) = tokio::join!(run(&*driver), async {
            let mut connection = server.accept().await;
            connection.request().await;
            connection.write(&format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")).await;
        });
        refused.expect_err("refused");
        assert_eq!(driver.status().unhealthy, None, "{status}");
    }
}

#[tokio::test]
async fn a_connection_that_dies_with_a_request_is_tried_once_more_and_not_again() {
    let server = Server::new().await;
    let driver = server.driver();
    let (answers, ()) = tokio::join!(
        async { [run(&*driver).await.map(|events| text(&events)), run(&*driver).await.map(|events| text(&events))] },
        async {
            let mut connection = server.accept().await;
            connection.request().await;
            connection.answer("one").await;
            // Kept, asked again, and gone before a byte of the answer.
            connection.request().await;
            connection.0.set_zero_linger().expect("settable");
            drop(connection);
            // So is the new one.
            let mut connection = server.accept().await;
            connection.request().await;
        }
    );
    assert_eq!(answers[0].as_deref(), Ok("one"));
    assert!(matches!(&answers[1], Err(WorkerError::Failed(_))), "{answers:?}");
}

#[tokio::test]
async fn what_a_worker_says_of_our_credentials_is_not_repeated() {
    let server = Server::new().await;
    let driver = server.driver();
    let (refused, ()) = tokio::join!(run(&*driver), async {
        let mut connection = server.accept().await;
        connection.request().await;
        connection.write("HTTP/1.1 401 X\r\ncontent-length: 11\r\n\r\nsk-upstream").await;
    });
    assert_eq!(refused, Err(WorkerError::Failed("401: it refuses our credentials".to_owned())));
}
