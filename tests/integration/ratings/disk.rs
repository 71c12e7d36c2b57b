//! The server on a disk that is full: ratings are refused, generations go on,
//! and with room again all is as before, without anybody's help.

use std::time::Duration;

use serde_json::{Value, json};

use crate::ratings::outside::{Disk, Gateway, events_in};

const EMBEDDED: &str = "[workers.local]\ndriver = \"embedded\"\nbases = [\"smollm2\"]\nthreads = 2\ncontext = 512\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_ratings_alone_and_recovers() {
    let disk = Disk::small();
    let gateway = Gateway::start(EMBEDDED, &disk);
    gateway.ready().await;
    let mut answered = Vec::new();
    for _ in 0..2 {
        let id = gateway.generation("acme").await;
        for _ in 0..50 {
            answered.push(rate(&gateway, &id, answered.len()).await.expect("there is room"));
        }
        disk.fill(&gateway);
        let mut refusal = None;
        while refusal.is_none() {
            match rate(&gateway, &id, answered.len()).await {
                Ok(ack) => answered.push(ack),
                Err(answer) => refusal = Some(answer),
            }
            assert!(answered.len() < 20_000, "a full disk takes no ratings for ever");
        }
        let refusal = refusal.expect("it was refused");
        assert_eq!(refusal.status(), 503);
        let wait: u64 = refusal.headers()["retry-after"].to_str().expect("ASCII").parse().expect("seconds");
        assert!((1..=60).contains(&wait), "{wait}");
        let error: Value = refusal.json().await.expect("JSON");
        assert_eq!(
            (&error["error"]["type"], &error["error"]["code"]),
            (&json!("overloaded_error"), &json!("spool_full"))
        );
        for _ in 0..5 {
            gateway.generation("acme").await;
        }
        disk.free(&gateway);
        let again = async {
            loop {
                match rate(&gateway, &id, answered.len()).await {
                    Ok(ack) => break ack,
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        };
        answered.push(tokio::time::timeout(Duration::from_secs(30), again).await.expect("there is room again"));
    }
    gateway.delivered().await;
    let metrics = gateway.metrics().await;
    let count = |line: &str| {
        let value = metrics.lines().find_map(|it| it.strip_prefix(line)?.trim().parse::<u64>().ok());
        value.unwrap_or_else(|| panic!("{line} is missing of {metrics}"))
    };
    assert!(count("tenantry_ratings_total{outcome=\"spool_full\"}") >= 2);
    assert!(count("tenantry_generation_events_total{outcome=\"dropped\"}") >= 1, "no event had room");
    assert_eq!(count("tenantry_ratings_total{outcome=\"recorded\"}"), answered.len() as u64);
    let mut delivered: Vec<String> = Vec::new();
    for event in events_in(&gateway.within(&disk, "events")) {
        let id = event["id"].as_str().expect("an id").to_owned();
        if event["type"] == "generation.rated" && !delivered.contains(&id) {
            delivered.push(id);
        }
    }
    assert_eq!(delivered, answered, "in order, each once");
}

/// The rating's id, or the refusal.
async fn rate(gateway: &Gateway, generation: &str, number: usize) -> Result<String, reqwest::Response> {
    let rating = json!({ "generation_id": generation, "thumb": "up", "end_user": "ann",
                         "idempotency_key": format!("k{number}") });
    let answer = gateway.post("acme", "/v1/ratings", &rating).await.expect("an answer");
    if answer.status() != 200 {
        return Err(answer);
    }
    let ack: Value = answer.json().await.expect("JSON");
    Ok(ack["id"].as_str().expect("an id").to_owned())
}
