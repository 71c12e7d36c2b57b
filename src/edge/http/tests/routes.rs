//! Everything that is answered in one piece: routes, headers, refusals.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, Request, StatusCode};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::{CHAT, Harness, Step, bytes, delta, get, hello, json, post, refusal, usage, without_time};
use crate::edge::http::{AllowOrigins, Config, Cors};
use crate::types::{Error, FinishReason};
use crate::worker::WorkerError;

#[tokio::test]
async fn a_chat_is_answered_in_one_piece() {
    let harness = Harness::new(hello());
    let response = harness.chat(CHAT).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "application/json");
    let id = response.headers()["x-generation-id"].clone();
    let answer = json(response).await;
    assert_eq!(answer["id"], id.to_str().expect("text"));
    assert_eq!(answer["model"], "assistant");
    assert_eq!(answer["choices"][0]["message"]["content"], "Hello world");
    assert_eq!(answer["usage"]["total_tokens"], 5);
    assert_eq!(harness.outcomes("complete"), 1);
    harness.assert_nothing_held();
}

#[tokio::test]
async fn a_completion_is_answered_in_one_piece() {
    let harness = Harness::new(vec![delta("x"), super::finished(FinishReason::Length), usage()]);
    let answer = json(harness.send(post("/v1/completions", r#"{"model":"org/model","prompt":"Hi"}"#)).await).await;
    assert_eq!((&answer["object"], &answer["choices"][0]["text"]), (&json!("text_completion"), &json!("x")));
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
}

#[tokio::test]
async fn a_worker_that_fails_half_way_is_a_true_status_for_an_answer_in_one_piece() {
    let harness = Harness::new(vec![delta("x"), Step::Fail(WorkerError::Failed("its own words".into()))]);
    let (status, param, code, message) = refusal(harness.chat(CHAT).await).await;
    assert_eq!((status, param, code), (StatusCode::BAD_GATEWAY, Value::Null, json!("upstream_error")));
    assert_eq!(message, "The model's worker failed.");
    assert_eq!(harness.outcomes("upstream"), 1);
    harness.assert_nothing_held();
}

#[tokio::test]
async fn what_the_worker_refuses_is_answered_in_its_words_and_recorded_once() {
    let error = Error::invalid("tools", "Unsupported parameter: 'tools'.");
    let harness = Harness::new(vec![Step::Fail(WorkerError::Refused(error))]);
    let response = harness.chat(CHAT).await;
    assert!(response.headers().contains_key("x-generation-id"));
    let (status, param, ..) = refusal(response).await;
    assert_eq!((status, param), (StatusCode::BAD_REQUEST, json!("tools")));
    assert_eq!(harness.outcomes("invalid_request"), 1);
}

#[tokio::test]
async fn a_limit_says_when_to_come_back() {
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let harness = Harness::new([vec![Step::Gate(gate.clone())], hello()].concat());
    let (first, second) = tokio::join!(harness.chat(CHAT), async {
        let second = harness.chat(CHAT).await;
        gate.add_permits(1);
        second
    });
    assert_eq!(first.status(), StatusCode::OK);
    assert_eq!(second.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(second.headers()["retry-after"], "1");
    assert_eq!(second.headers()["retry-after-ms"], "1000");
    let error = json(second).await;
    assert_eq!(error["error"]["type"], "concurrency");
    assert_eq!(error["error"]["code"], "rate_limit_exceeded");
}

#[tokio::test]
async fn a_stranger_is_refused_before_the_body_is_read() {
    let harness = Harness::new(hello());
    for (authorization, says) in [
        (None, "You didn't provide an API key."),
        (Some("Basic c2s="), "The Authorization header is malformed."),
        (Some("Bearer sk-other"), "Incorrect API key provided."),
    ] {
        let never = stream::pending::<Result<Bytes, Infallible>>();
        let mut request = Request::post("/v1/chat/completions").body(Body::from_stream(never)).expect("a request");
        if let Some(value) = authorization {
            request.headers_mut().insert("authorization", HeaderValue::from_static(value));
        }
        let response = harness.send(request).await;
        assert_eq!(response.headers()["www-authenticate"], "Bearer");
        let (status, param, code, message) = refusal(response).await;
        assert_eq!((status, param, code), (StatusCode::UNAUTHORIZED, Value::Null, json!("invalid_api_key")));
        assert!(message.starts_with(says), "{message}");
    }
    for path in ["/v1/completions", "/v1/models", "/v1/models/assistant"] {
        let method = if path == "/v1/completions" { "POST" } else { "GET" };
        let request = Request::builder().method(method).uri(path).body(Body::empty()).expect("a request");
        assert_eq!(harness.send(request).await.status(), StatusCode::UNAUTHORIZED, "{path}");
    }
    assert_eq!(harness.outcomes("unauthenticated"), 6);
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_without_reading_it_all() {
    let harness = Harness::with(hello(), Config { max_body_bytes: 100, ..Config::default() });
    let mut declared = post("/v1/chat/completions", vec![b' '; 101]);
    declared.headers_mut().insert("content-length", 101.into());
    // Chunks without end and without a declared length.
    let chunks = stream::repeat_with(|| Ok::<_, Infallible>(Bytes::from_static(&[b' '; 40])));
    let endless = post("/v1/chat/completions", Body::from_stream(chunks));
    for request in [declared, endless] {
        let (status, _, code, message) = refusal(harness.send(request).await).await;
        assert_eq!((status, code), (StatusCode::PAYLOAD_TOO_LARGE, json!("request_too_large")));
        assert_eq!(message, "The request body is too large: at most 100 bytes are accepted.");
    }
    assert_eq!(harness.outcomes("request_too_large"), 2);
    let exact = format!("{CHAT:100}");
    assert_eq!(harness.chat(exact).await.status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_arrive_is_not_waited_for_for_ever() {
    let harness = Harness::new(hello());
    let never = Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
    let response = harness.chat(never).await;
    assert_eq!(response.headers()["x-should-retry"], "false");
    let (status, .., message) = refusal(response).await;
    assert_eq!(status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(message, "The request body did not arrive within 30 seconds.");
}

#[tokio::test]
async fn a_body_in_pieces_and_a_large_one_are_read_like_any_other() {
    let harness = Harness::new(hello());
    let pieces: Vec<_> =
        CHAT.as_bytes().chunks(7).map(|piece| Ok::<_, Infallible>(Bytes::from_static(piece))).collect();
    assert_eq!(harness.chat(Body::from_stream(stream::iter(pieces))).await.status(), StatusCode::OK);
    assert_eq!(harness.chat(CHAT.to_owned() + &" ".repeat(400_000)).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn only_json_is_read() {
    let harness = Harness::new(hello());
    let typed = |kind: Option<&'static str>| {
        let mut request = post("/v1/chat/completions", CHAT);
        request.headers_mut().remove("content-type");
        if let Some(kind) = kind {
            request.headers_mut().insert("content-type", HeaderValue::from_static(kind));
        }
        harness.send(request)
    };
    for kind in [None, Some("Application/JSON; charset=utf-8"), Some("application/vnd.api+json")] {
        assert_eq!(typed(kind).await.status(), StatusCode::OK, "{kind:?}");
    }
    let (status, _, _, message) = refusal(typed(Some("text/plain")).await).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(message, "Unsupported content type 'text/plain': this endpoint reads 'application/json'.");
}

#[tokio::test]
async fn a_malformed_body_is_refused_and_recorded_once() {
    let harness = Harness::new(hello());
    let (status, ..) = refusal(harness.chat("{").await).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(harness.outcomes("invalid_request"), 1);
    assert!(harness.worker.seen.lock().expect("not poisoned").is_empty());
}

#[tokio::test]
async fn models_are_the_tenants_own() {
    let harness = Harness::new(hello());
    let list = json(harness.send(get("/v1/models")).await).await;
    assert_eq!(list["object"], "list");
    let names: Vec<&Value> = list["data"].as_array().expect("a list").iter().map(|model| &model["id"]).collect();
    assert_eq!(names, ["assistant", "org/model"]);
    for path in ["/v1/models/org/model", "/v1/models/org%2Fmodel"] {
        let text = String::from_utf8(bytes(harness.send(get(path)).await).await.to_vec()).expect("text");
        assert_eq!(without_time(&text), r#"{"id":"org/model","object":"model","created":0,"owned_by":"acme"}"#);
    }
    for path in ["/v1/models/other", "/v1/models/%ff"] {
        let (status, param, code, _) = refusal(harness.send(get(path)).await).await;
        assert_eq!((status, param, code), (StatusCode::NOT_FOUND, json!("model"), json!("model_not_found")), "{path}");
    }
}

#[tokio::test]
async fn head_works_where_get_does() {
    let harness = Harness::new(hello());
    for path in ["/", "/v1/models", "/v1/models/assistant"] {
        let mut request = get(path);
        *request.method_mut() = http::Method::HEAD;
        let response = harness.send(request).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        assert!(bytes(response).await.is_empty(), "{path}");
    }
}

#[tokio::test]
async fn unknown_paths_and_methods_are_told_in_openais_form() {
    let harness = Harness::new(hello());
    let (status, param, code, message) = refusal(harness.send(get("/v1/x?key=secret")).await).await;
    assert_eq!((status, param, code), (StatusCode::NOT_FOUND, Value::Null, json!("unknown_url")));
    assert_eq!(message, "Unknown request URL: GET /v1/x. Please check the URL for typos.");
    for (request, allow) in [(get("/v1/chat/completions"), "POST"), (post("/v1/models", ""), "GET,HEAD")] {
        let path = request.uri().path().to_owned();
        let method = request.method().clone();
        let response = harness.send(request).await;
        assert_eq!(response.headers()["allow"], allow);
        let (status, _, code, message) = refusal(response).await;
        assert_eq!((status, code), (StatusCode::METHOD_NOT_ALLOWED, json!("method_not_allowed")));
        assert_eq!(message, format!("Not allowed to {method} on {path}."));
    }
    let mut grpc = post("/acme.Unknown/Call", "");
    grpc.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    let response = harness.send(grpc).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["grpc-status"], "12");
}

#[tokio::test]
async fn every_response_has_a_request_id_and_a_sensible_one_is_the_clients() {
    let harness = Harness::new(hello());
    for path in ["/", "/v1/x", "/v1/models", "/v1/chat/completions"] {
        let response = harness.send(get(path)).await;
        let id = response.headers()["x-request-id"].to_str().expect("text");
        assert!(id.starts_with("req_") && id.len() == 30, "{id}");
        assert!(response.headers().contains_key("openai-processing-ms"));
    }
    let long = "x".repeat(129);
    for (sent, echoed) in [("trace-1.a_B", true), ("", false), ("two words", false), (long.as_str(), false)] {
        let mut request = post("/v1/chat/completions", CHAT);
        request.headers_mut().insert("x-request-id", HeaderValue::from_str(sent).expect("a value"));
        let response = harness.send(request).await;
        assert_eq!(response.headers()["x-request-id"] == sent, echoed, "{sent}");
    }
}

#[tokio::test]
async fn the_playground_is_one_page_that_loads_nothing() {
    let harness = Harness::new(hello());
    let response = harness.send(get("/")).await;
    assert_eq!(response.headers()["content-type"], "text/html; charset=utf-8");
    assert!(response.headers()["content-security-policy"].to_str().expect("text").starts_with("default-src 'none'"));
    let tag = response.headers()["etag"].clone();
    assert!(bytes(response).await.starts_with(b"<!"));
    let mut again = get("/");
    again.headers_mut().insert("if-none-match", tag);
    let response = harness.send(again).await;
    assert_eq!(response.status(), StatusCode::NOT_MODIFIED);
    assert!(bytes(response).await.is_empty());
}

#[tokio::test]
async fn other_origins_read_answers_only_where_the_configuration_says_so() {
    let page = HeaderValue::from_static("https://app.example");
    let ask = |harness: &Harness, method: &str| {
        let mut request = post("/v1/chat/completions", CHAT);
        *request.method_mut() = method.parse().expect("a method");
        request.headers_mut().insert("origin", page.clone());
        request.headers_mut().insert("access-control-request-method", HeaderValue::from_static("POST"));
        request.headers_mut().insert("access-control-request-headers", HeaderValue::from_static("authorization"));
        let router = harness.router.clone();
        async move { router.oneshot(request).await.expect("infallible") }
    };
    let closed = Harness::new(hello());
    assert!(!ask(&closed, "POST").await.headers().contains_key("access-control-allow-origin"));
    assert_eq!(ask(&closed, "OPTIONS").await.status(), StatusCode::METHOD_NOT_ALLOWED);

    let cors = Cors { allow_origins: AllowOrigins::List(vec![page.clone()]), max_age: Duration::from_secs(60) };
    let open = Harness::with(hello(), Config { cors: Some(cors), ..Config::default() });
    let preflight = ask(&open, "OPTIONS").await;
    assert_eq!(preflight.status(), StatusCode::OK);
    assert_eq!(preflight.headers()["access-control-allow-origin"], page);
    assert_eq!(preflight.headers()["access-control-allow-headers"], "authorization");
    assert_eq!(preflight.headers()["access-control-max-age"], "60");
    assert!(preflight.headers().contains_key("x-request-id"));
    let answer = ask(&open, "POST").await;
    let exposed = answer.headers()["access-control-expose-headers"].to_str().expect("text");
    for name in ["x-generation-id", "grpc-status", "tenantry-error-code", "tenantry-error-param"] {
        assert!(exposed.contains(name), "{name} is not in {exposed}");
    }
}
