//! Failures as a gRPC client meets them: code, text and metadata.

use std::time::Duration;

use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Status};

use super::scripted::{MAX_MESSAGE, Server};
use super::{chat, connect, delta, next, with_key};
use crate::grpc::client::{GenerateRequest, ListModelsRequest};

/// The status of a call that must fail before its first event.
async fn refused(server: &Server, request: Request<GenerateRequest>) -> Status {
    let status = connect(server).await.generate(request).await.expect_err("refused before its first event");
    server.idle().await;
    status
}

#[track_caller]
fn assert_told(status: &Status, code: Code, message: &str, error_code: &str) {
    assert_eq!((status.code(), status.message()), (code, message));
    assert_eq!(metadata(status, "tenantry-error-code"), Some(error_code));
}

fn metadata<'a>(status: &'a Status, key: &str) -> Option<&'a str> {
    status.metadata().get(key).map(|value| value.to_str().expect("ASCII"))
}

#[tokio::test]
async fn callers_without_a_known_key_learn_nothing_else() {
    let server = Server::start().await;
    let missing = "You didn't provide an API key. Provide it in an Authorization header using Bearer auth \
                   (Authorization: Bearer YOUR_KEY).";
    let status = refused(&server, Request::new(GenerateRequest::default())).await;
    assert_told(&status, Code::Unauthenticated, missing, "unauthenticated");

    let status = refused(&server, with_key("sk-unknown", GenerateRequest::default())).await;
    assert_told(&status, Code::Unauthenticated, "Incorrect API key provided.", "unauthenticated");

    let mut request = Request::new(chat("hello"));
    request.metadata_mut().insert("authorization", MetadataValue::from_static("Basic sk-acme"));
    let scheme = "The Authorization header is malformed. It must be of the form `Authorization: Bearer YOUR_KEY`.";
    assert_told(&refused(&server, request).await, Code::Unauthenticated, scheme, "unauthenticated");

    let status = connect(&server).await.list_models(ListModelsRequest {}).await.expect_err("no key");
    assert_told(&status, Code::Unauthenticated, missing, "unauthenticated");
}

#[tokio::test]
async fn another_tenants_model_is_like_none_at_all() {
    let server = Server::start().await;
    for model in ["other", "nobodys"] {
        let request = GenerateRequest { model: model.to_owned(), ..chat("hello") };
        let status = refused(&server, with_key("sk-acme", request)).await;
        let text = format!("The model `{model}` does not exist or you do not have access to it.");
        assert_told(&status, Code::NotFound, &text, "model_not_found");
        assert_eq!(metadata(&status, "tenantry-error-param"), Some("model"));
        assert!(metadata(&status, "x-generation-id").is_some_and(|id| id.starts_with("gen_")));
    }
}

#[tokio::test]
async fn a_request_out_of_range_names_its_field() {
    let server = Server::start().await;
    let request = GenerateRequest { temperature: Some(2.5), ..chat("hello") };
    let status = refused(&server, with_key("sk-acme", request)).await;
    let text = "Invalid value for 'temperature': expected a number from 0 to 2, got 2.5.";
    assert_told(&status, Code::InvalidArgument, text, "invalid_request");
    assert_eq!(metadata(&status, "tenantry-error-param"), Some("temperature"));
}

#[tokio::test]
async fn what_the_worker_says_of_the_request_reaches_the_client_and_the_rest_does_not() {
    let server = Server::start().await;
    let status = refused(&server, with_key("sk-acme", chat("refuse"))).await;
    assert_told(&status, Code::InvalidArgument, "The context holds 8 tokens.", "context_length_exceeded");

    let status = refused(&server, with_key("sk-acme", chat("fail"))).await;
    assert_told(&status, Code::Unavailable, "The model's worker failed.", "upstream_error");

    server.worker.set_unhealthy(Some("on fire"));
    let status = refused(&server, with_key("sk-acme", chat("hello"))).await;
    let text = "No worker can serve this model at the moment.";
    assert_told(&status, Code::Unavailable, text, "no_worker");
    assert_eq!(metadata(&status, "retry-after"), Some("1"));
}

#[tokio::test]
async fn a_failure_mid_stream_ends_the_stream_with_its_status() {
    let server = Server::start().await;
    let mut client = connect(&server).await;
    let mut stream = client.generate(with_key("sk-acme", chat("break"))).await.expect("it starts").into_inner();
    let first = next(&mut stream).await;
    assert_eq!(delta(&first), "Half");
    let status = stream.message().await.expect_err("the worker broke");
    assert_told(&status, Code::Unavailable, "The model's worker failed.", "upstream_error");
    assert_eq!(metadata(&status, "x-generation-id"), Some(&*first.id));
    server.idle().await;
}

#[tokio::test]
async fn a_tenant_over_its_limit_is_told_when_to_come_back() {
    let server = Server::start().await;
    let mut client = connect(&server).await;
    let held = client.generate(with_key("sk-acme", chat("hold"))).await.expect("the first one starts");
    let status = client.generate(with_key("sk-acme", chat("hello"))).await.expect_err("one at a time");
    let text = "Rate limit reached on concurrent_generations: at most 1 generations may run at one time. \
                Try again when one has ended.";
    assert_told(&status, Code::ResourceExhausted, text, "rate_limit_exceeded");
    assert_eq!(metadata(&status, "retry-after"), Some("1"));
    drop(held);
    server.idle().await;
}

#[tokio::test]
async fn every_answer_says_how_its_receiver_stands_with_its_limits() {
    let server = Server::start().await;
    let mut client = connect(&server).await;
    for left in ["1", "0"] {
        let answer = client.generate(with_key("sk-initech", chat("hello"))).await.expect("within its limits");
        let told = |key: &str| answer.metadata().get(key).map(|value| value.to_str().expect("ASCII"));
        assert_eq!(told("x-ratelimit-limit-requests"), Some("2"));
        assert_eq!(told("x-ratelimit-remaining-requests"), Some(left));
        assert_eq!(told("x-ratelimit-limit-tokens"), Some("1000"));
        let mut stream = answer.into_inner();
        while stream.message().await.expect("no error").is_some() {}
    }
    let status = refused(&server, with_key("sk-initech", chat("hello"))).await;
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("requests_per_minute: 2"), "{}", status.message());
    assert_eq!(metadata(&status, "tenantry-error-code"), Some("rate_limit_exceeded"));
    assert_eq!(metadata(&status, "x-ratelimit-limit-requests"), Some("2"));
    assert_eq!(metadata(&status, "x-ratelimit-remaining-requests"), Some("0"));
    assert_eq!(metadata(&status, "tenantry-limit"), Some("requests_per_minute"));
    let reset = metadata(&status, "x-ratelimit-reset-requests").expect("when all is there again");
    assert!((reset.starts_with("1m") || reset == "2m0s") && reset.ends_with('s'), "{reset}");
    let wait: u64 = metadata(&status, "retry-after").and_then(|wait| wait.parse().ok()).expect("seconds");
    assert!((1..=120).contains(&wait), "{wait}");
}

#[tokio::test]
async fn the_clients_deadline_ends_the_generation() {
    let server = Server::start().await;
    let mut request = with_key("sk-acme", chat("hold"));
    request.set_timeout(Duration::from_millis(200));
    let mut stream = connect(&server).await.generate(request).await.expect("it starts").into_inner();
    assert_eq!(delta(&next(&mut stream).await), "Wait");
    let status = stream.message().await.expect_err("its time is up");
    assert_told(&status, Code::DeadlineExceeded, "The request did not finish within 0.2 seconds.", "timeout");
    server.idle().await;

    let mut request = with_key("sk-acme", chat("hello"));
    request.metadata_mut().insert("grpc-timeout", MetadataValue::from_static("soon"));
    let status = refused(&server, request).await;
    let text = "Invalid grpc-timeout: expected one to eight digits and a unit of H, M, S, m, u or n.";
    assert_told(&status, Code::InvalidArgument, text, "invalid_request");
    assert_eq!(metadata(&status, "tenantry-error-param"), Some("grpc-timeout"));
}

#[tokio::test]
async fn a_message_over_the_limit_is_refused_by_its_size() {
    let server = Server::start().await;
    let status = refused(&server, with_key("sk-acme", chat(&"x".repeat(MAX_MESSAGE)))).await;
    let text = "The request is too large: a message may have 65536 bytes.";
    assert_told(&status, Code::ResourceExhausted, text, "request_too_large");

    let status = refused(&server, with_key("sk-unknown", chat(&"x".repeat(MAX_MESSAGE)))).await;
    assert_eq!(status.code(), Code::Unauthenticated, "whoever has no key is not read at all");
}
