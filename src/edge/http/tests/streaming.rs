//! Streams: their frames, their ends, their silences.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http_body_util::BodyExt;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::{CHAT_STREAM, Harness, Step, delta, finished, frames, hello, post, refusal, usage};
use crate::types::FinishReason;
use crate::worker::WorkerError;

const KEEP_ALIVE: &str = ": keep-alive";

fn chunk(rest: &str) -> String {
    format!(
        r#"data: {{"id":"ID","object":"chat.completion.chunk","created":0,"model":"assistant","system_fingerprint":null,"choices":[{rest}}}"#
    )
}

fn contents(frames: &[String]) -> Vec<&str> {
    let content = |frame: &'_ String| frame.split_once("\"content\":\"").map(|(_, rest)| rest.len());
    frames
        .iter()
        .map(|frame| match content(frame) {
            Some(rest) => {
                let rest = &frame[frame.len() - rest..];
                &rest[..rest.find('"').expect("the text ends")]
            }
            None => frame.as_str(),
        })
        .collect()
}

#[tokio::test]
async fn a_stream_is_chunks_and_done() {
    let harness = Harness::new(hello());
    let response = harness.chat(CHAT_STREAM).await;
    assert_eq!(response.status(), StatusCode::OK);
    for (name, value) in [
        ("content-type", "text/event-stream; charset=utf-8"),
        ("cache-control", "no-cache"),
        ("x-accel-buffering", "no"),
    ] {
        assert_eq!(response.headers()[name], value);
    }
    assert_eq!(
        frames(response).await,
        [
            chunk(
                r#"{"index":0,"delta":{"role":"assistant","content":"Hello"},"logprobs":null,"finish_reason":null}]"#
            ),
            chunk(r#"{"index":0,"delta":{"content":" world"},"logprobs":null,"finish_reason":null}]"#),
            chunk(r#"{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]"#),
            "data: [DONE]".to_owned(),
        ]
    );
    assert_eq!(harness.outcomes("complete"), 1);
    harness.assert_nothing_held();
}

#[tokio::test]
async fn usage_comes_last_where_it_is_asked_for() {
    let harness = Harness::new(hello());
    let body = CHAT_STREAM.replace("\"stream\":true", "\"stream\":true,\"stream_options\":{\"include_usage\":true}");
    let frames = frames(harness.chat(body).await).await;
    assert!(frames[0].ends_with("\"usage\":null}") && frames[2].ends_with("\"usage\":null}"));
    assert!(frames[3].contains(r#""choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5"#));
    assert_eq!((frames.len(), frames[4].as_str()), (5, "data: [DONE]"));
}

#[tokio::test]
async fn a_completion_streams_as_well() {
    let harness = Harness::new(hello());
    let body = r#"{"model":"assistant","prompt":"Hi","stream":true}"#;
    let frames = frames(harness.send(post("/v1/completions", body)).await).await;
    assert!(frames[0].contains(r#""object":"text_completion""#));
    assert!(frames[0].ends_with(r#""choices":[{"text":"Hello","index":0,"logprobs":null,"finish_reason":null}]}"#));
}

#[tokio::test]
async fn a_failure_before_the_first_event_is_a_status() {
    let harness = Harness::new(vec![Step::Fail(WorkerError::Busy)]);
    let response = harness.chat(CHAT_STREAM).await;
    assert_eq!(response.headers()["retry-after"], "1");
    let (status, _, code, _) = refusal(response).await;
    assert_eq!((status, code), (StatusCode::SERVICE_UNAVAILABLE, json!("queue_full")));
    harness.assert_nothing_held();
}

#[tokio::test]
async fn a_failure_in_the_middle_is_the_last_frame_and_nothing_is_done() {
    let harness = Harness::new(vec![delta("Hel"), Step::Fail(WorkerError::Failed("its own words".to_owned()))]);
    let frames = frames(harness.chat(CHAT_STREAM).await).await;
    assert_eq!(
        frames[1..],
        [
            r#"data: {"error":{"message":"The model's worker failed.","type":"server_error","param":null,"code":"upstream_error"}}"#
        ]
    );
    assert_eq!(harness.outcomes("upstream"), 1);
    harness.assert_nothing_held();
}

#[tokio::test]
async fn a_shutdown_ends_a_stream_with_its_reason() {
    let never = Arc::new(Semaphore::new(0));
    let harness = Harness::new(vec![delta("Hel"), Step::Gate(never)]);
    let response = harness.chat(CHAT_STREAM).await;
    let cut_off = harness.cut_off.clone();
    let (frames, ()) = tokio::join!(frames(response), async move { cut_off.cancel() });
    assert_eq!(frames.len(), 2);
    assert!(frames[1].contains("\"code\":\"shutting_down\""), "{}", frames[1]);
    harness.assert_nothing_held();
}

#[tokio::test(start_paused = true)]
async fn a_long_wait_begins_the_stream_and_fills_its_silence() {
    let wait = |seconds| Step::Wait(Duration::from_secs(seconds));
    let script = vec![wait(35), delta("A"), wait(5), delta("B"), wait(25), finished(FinishReason::Stop), usage()];
    let harness = Harness::new(script);
    let began = Instant::now();
    let response = harness.chat(CHAT_STREAM).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(began.elapsed().as_secs(), 10, "the hold");
    let frames = frames(response).await;
    assert_eq!(
        contents(&frames)[..7],
        [KEEP_ALIVE, KEEP_ALIVE, KEEP_ALIVE, "A", "B", KEEP_ALIVE, KEEP_ALIVE],
        "at 10, 20, 30, 35, 40, 50, 60 seconds"
    );
    assert_eq!(frames.last().map(String::as_str), Some("data: [DONE]"));
    harness.assert_nothing_held();
}

#[tokio::test(start_paused = true)]
async fn a_failure_after_the_hold_is_a_frame() {
    let busy = Step::Fail(WorkerError::Busy);
    let harness = Harness::new(vec![Step::Wait(Duration::from_secs(12)), busy]);
    let frames = frames(harness.chat(CHAT_STREAM).await).await;
    assert_eq!(frames.len(), 2);
    assert_eq!(frames[0], KEEP_ALIVE);
    assert!(frames[1].starts_with("data: {\"error\":{") && frames[1].contains("\"code\":\"queue_full\""));
    harness.assert_nothing_held();
}

#[tokio::test(start_paused = true)]
async fn dropping_the_body_gives_everything_back_whenever_it_happens() {
    let never = Step::Gate(Arc::new(Semaphore::new(0)));
    // While the client waits for the first event after the hold.
    let harness = Harness::new(vec![never.clone()]);
    let response = harness.chat(CHAT_STREAM).await;
    assert_eq!(harness.gateway.held().permits, 1);
    drop(response);
    harness.assert_nothing_held();
    assert_eq!(harness.outcomes("client_gone"), 1);

    // In the middle of the stream.
    let harness = Harness::new(vec![delta("Hel"), never.clone()]);
    let mut body = harness.chat(CHAT_STREAM).await.into_body();
    body.frame().await.expect("a frame").expect("no error");
    assert_eq!((harness.gateway.held().leases, harness.gateway.held().sequences), (1, 1));
    drop(body);
    harness.assert_nothing_held();

    // Before there is a response at all.
    for body in [CHAT_STREAM, super::CHAT] {
        let harness = Harness::new(vec![never.clone()]);
        let answer = tokio::time::timeout(Duration::from_secs(5), harness.chat(body)).await;
        assert!(answer.is_err(), "the worker says nothing");
        harness.assert_nothing_held();
    }
}
