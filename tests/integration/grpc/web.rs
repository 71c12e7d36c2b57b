//! Requests by hand through the router: gRPC-Web, wrong paths, wrong bytes.

use axum::body::{Body, Bytes};
use http::{HeaderMap, Request, StatusCode, Version};
use http_body_util::BodyExt;
use prost::Message as _;
use tower::ServiceExt;

use super::chat;
use super::client::{GenerateEvent, generate_event};
use super::scripted::Server;

const GENERATE: &str = "/tenantry.v1.Inference/Generate";
const WEB: &str = "application/grpc-web+proto";
const GRPC: &str = "application/grpc";

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

/// One message behind its five bytes of prefix.
fn framed(message: &[u8]) -> Vec<u8> {
    let mut frame = vec![0];
    frame.extend(u32::try_from(message.len()).expect("short").to_be_bytes());
    frame.extend(message);
    frame
}

/// The frames of a gRPC-Web body: flag and content.
fn frames(mut body: &[u8]) -> Vec<(u8, &[u8])> {
    let mut frames = Vec::new();
    while let [flag, a, b, c, d, rest @ ..] = body {
        let (content, rest) = rest.split_at(u32::from_be_bytes([*a, *b, *c, *d]) as usize);
        frames.push((*flag, content));
        body = rest;
    }
    frames
}

async fn post(server: &Server, version: Version, path: &str, content_type: &str, body: Vec<u8>) -> Answer {
    let request = Request::post(path)
        .version(version)
        .header("content-type", content_type)
        .header("authorization", "Bearer sk-acme")
        .body(Body::from(body))
        .expect("a request");
    let response = server.router.clone().oneshot(request).await.expect("a router answers");
    let (parts, body) = response.into_parts();
    let body = body.collect().await.expect("a whole body").to_bytes();
    Answer { status: parts.status, headers: parts.headers, body }
}

#[tokio::test]
async fn grpc_web_streams_over_http_1() {
    let server = Server::start().await;
    let answer = post(&server, Version::HTTP_11, GENERATE, WEB, framed(&chat("hello").encode_to_vec())).await;
    assert_eq!((answer.status, &answer.headers["content-type"]), (StatusCode::OK, &WEB.parse().expect("a value")));
    assert!(answer.headers.contains_key("x-generation-id"));
    let frames = frames(&answer.body);
    let (trailers, messages) = frames.split_last().expect("frames");
    let mut text = String::new();
    for (flag, message) in messages {
        assert_eq!(*flag, 0);
        if let Some(generate_event::Event::Delta(delta)) = GenerateEvent::decode(*message).expect("an event").event {
            text += &delta.content;
        }
    }
    assert_eq!(text, "Hello");
    assert_eq!(trailers.0, 0x80);
    assert!(String::from_utf8_lossy(trailers.1).contains("grpc-status:0"), "{trailers:?}");
    server.idle().await;
}

#[tokio::test]
async fn grpc_web_reads_an_error_as_a_status() {
    let server = Server::start().await;
    let answer = post(&server, Version::HTTP_11, GENERATE, WEB, framed(&chat("refuse").encode_to_vec())).await;
    assert_eq!((answer.status, answer.headers["content-type"].as_bytes()), (StatusCode::OK, WEB.as_bytes()));
    assert_eq!(answer.headers["grpc-status"], "3");
    assert_eq!(answer.headers["tenantry-error-code"], "context_length_exceeded");
}

#[tokio::test]
async fn an_unknown_service_or_method_is_unimplemented() {
    let server = Server::start().await;
    for path in ["/tenantry.v1.Inference/Judge", "/tenantry.v1.Nothing/Generate", "/x", "/grpc.health.v1.Health/X"] {
        for (version, spoken) in [(Version::HTTP_2, GRPC), (Version::HTTP_11, WEB)] {
            let answer = post(&server, version, path, spoken, framed(b"")).await;
            assert_eq!(answer.status, StatusCode::OK, "{path}");
            assert_eq!(answer.headers["content-type"], spoken, "{path}");
            assert_eq!(answer.headers["grpc-status"], "12", "{path}");
        }
    }
}

#[tokio::test]
async fn bytes_that_are_no_request_are_the_callers_fault() {
    let server = Server::start().await;
    // Field 1, a string of one byte that is no UTF-8; half a message; a bad prefix; nothing.
    let compressed = [&[1][..], &framed(b"")[1..]].concat();
    for body in [framed(&[0x0a, 1, 0xff]), framed(b"")[..3].to_vec(), vec![123; 9], Vec::new(), compressed] {
        let answer = post(&server, Version::HTTP_2, GENERATE, GRPC, body.clone()).await;
        assert_eq!((answer.status, &answer.headers["grpc-status"]), (StatusCode::OK, &"3".parse().expect("a value")));
        assert_eq!(answer.headers["tenantry-error-code"], "invalid_request", "{body:?}");
    }
    let answer = post(&server, Version::HTTP_2, GENERATE, GRPC, framed(&[0x0a, 1, 0xff])).await;
    let told = answer.headers["grpc-message"].to_str().expect("ASCII");
    assert!(told.starts_with("The%20request%20could%20not%20be%20read:"), "{told}");
    assert!(told.contains("UTF-8"), "{told}");
    server.idle().await;
}

#[tokio::test]
async fn what_is_not_grpc_gets_a_plain_answer() {
    let server = Server::start().await;
    for path in [GENERATE, "/grpc.health.v1.Health/Check"] {
        let json = post(&server, Version::HTTP_2, path, "application/json", b"{}".to_vec()).await;
        assert_eq!(json.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
        assert!(json.body.starts_with(b"This path speaks gRPC"));
        let old = post(&server, Version::HTTP_11, path, GRPC, framed(b"")).await;
        assert_eq!(old.status, StatusCode::HTTP_VERSION_NOT_SUPPORTED);
    }
    let elsewhere = post(&server, Version::HTTP_2, "/x", "application/json", b"{}".to_vec()).await;
    assert_eq!(elsewhere.status, StatusCode::NOT_FOUND);
}
