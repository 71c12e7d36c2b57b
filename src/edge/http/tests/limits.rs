//! What callers are told of their limits, and when.

use super::*;

fn limited(limits: Limits) -> Harness {
    Harness::limited(hello(), Config::default(), Catalogue::fixed(Vec::new()), limits)
}

fn of<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    response.headers().get(name).map(|value| value.to_str().expect("ASCII"))
}

#[tokio::test]
async fn every_answer_tells_how_its_receiver_stands() {
    let limits = Limits { requests_per_minute: Some(3), output_tokens_per_minute: Some(10_000), ..Limits::default() };
    let harness = limited(limits);
    let told = |response: &Response| {
        ["limit-requests", "remaining-requests", "reset-requests", "limit-tokens", "remaining-tokens", "reset-tokens"]
            .map(|name| of(response, &format!("x-ratelimit-{name}")).unwrap_or("nothing").to_owned())
    };
    let fresh = harness.send(get("/v1/models")).await;
    assert_eq!(told(&fresh), ["3", "3", "0s", "10000", "10000", "0s"]);

    let answered = harness.chat(CHAT).await;
    assert_eq!(answered.status(), StatusCode::OK);
    assert_eq!(told(&answered)[..2], ["3", "2"]);
    let reset = told(&answered)[2].clone();
    assert!(reset == "2m0s" || reset.starts_with("1m59"), "{reset}");
    drop(answered);

    let invalid = harness.chat("{").await;
    assert_eq!((invalid.status(), &told(&invalid)[1][..]), (StatusCode::BAD_REQUEST, "2"));
    let unknown = harness.send(get("/v1/models/none")).await;
    assert_eq!((unknown.status(), &told(&unknown)[1][..]), (StatusCode::NOT_FOUND, "2"));

    for left in ["1", "0"] {
        assert_eq!(told(&harness.chat(CHAT).await)[1], left);
    }
    let refused = harness.chat(CHAT).await;
    assert_eq!((refused.status(), &told(&refused)[1][..]), (StatusCode::TOO_MANY_REQUESTS, "0"));
    let after: u64 = of(&refused, "retry-after").expect("told").parse().expect("whole seconds");
    assert!((59..=60).contains(&after), "{after}");
    assert!(of(&refused, "retry-after-ms").is_some() && of(&refused, "x-should-retry").is_none());
    let error = json(refused).await;
    let message = error["error"]["message"].as_str().expect("a text");
    assert!(message.starts_with("Rate limit reached on requests_per_minute: 3. Please try again in "), "{message}");
    assert_eq!((&error["error"]["type"], &error["error"]["code"]), (&"requests".into(), &"rate_limit_exceeded".into()));
    harness.assert_nothing_held();
}

#[tokio::test]
async fn a_limit_is_told_before_the_body_is_read() {
    let harness = limited(Limits { requests_per_minute: Some(1), ..Limits::default() });
    assert_eq!(harness.chat(CHAT).await.status(), StatusCode::OK);
    // A body that never comes would otherwise be waited for.
    let never = Body::from_stream(futures_util::stream::pending::<Result<bytes::Bytes, std::io::Error>>());
    assert_eq!(harness.chat(never).await.status(), StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn a_budget_that_is_used_up_is_no_reason_to_try_again() {
    let harness = limited(Limits { tokens_per_day: Some(1), ..Limits::default() });
    assert_eq!(harness.chat(CHAT).await.status(), StatusCode::OK);
    let refused = harness.chat(CHAT).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(of(&refused, "x-should-retry"), Some("false"));
    let error = json(refused).await;
    assert_eq!(error["error"]["code"], "insufficient_quota");
    assert!(error["error"]["message"].as_str().expect("a text").contains("tokens_per_day: 1"), "{error}");
}

#[tokio::test]
async fn requests_that_are_too_large_are_refused_and_answers_bounded() {
    let limits = Limits { max_prompt_tokens: Some(20), max_output_tokens: Some(7), ..Limits::default() };
    let harness = limited(limits);
    let chat = |words: usize, more: &str| {
        let content = "word ".repeat(words);
        format!(r#"{{"model":"assistant","messages":[{{"role":"user","content":"{content}"}}]{more}}}"#)
    };
    assert_eq!(harness.chat(chat(1, "")).await.status(), StatusCode::OK);
    assert_eq!(harness.worker.seen.lock().expect("no panics")[0].max_tokens, Some(7));
    let refused = json(harness.chat(chat(1, r#","max_tokens":8"#)).await).await;
    assert_eq!(refused["error"]["param"], "max_tokens");
    let refused = json(harness.chat(chat(100, "")).await).await;
    assert_eq!(refused["error"]["code"], "context_length_exceeded");
    assert_eq!(refused["error"]["message"], "The prompt may have at most 20 tokens here.");
    harness.assert_nothing_held();
}
