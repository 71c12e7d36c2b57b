//! What a crash of the machine leaves behind the last write that was answered.

use std::fs::OpenOptions;
use std::io::Write as _;

use serde_json::{Value, json};

use crate::ratings::outside::{Disk, Gateway, events_in};

const EMBEDDED: &str = "[workers.local]\ndriver = \"embedded\"\nbases = [\"smollm2\"]\nthreads = 2\ncontext = 512\n";
/// A page of the log, and the header before it.
const FRAME: usize = 4096 + 24;

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_last_write_costs_nothing_that_was_answered() {
    let mut gateway = Gateway::start(EMBEDDED, &Disk::Usual);
    gateway.ready().await;
    let mut answered: Vec<Value> = Vec::new();
    for kind in 0..4 {
        let generation = gateway.generation("acme").await;
        for _ in 0..20 {
            let rating = rating(&generation, answered.len());
            let answer = gateway.post("acme", "/v1/ratings", &rating).await.expect("an answer");
            assert_eq!(answer.status(), 200);
            let ack: Value = answer.json().await.expect("JSON");
            assert_eq!(ack["status"], "recorded");
            answered.push(json!({ "rating": rating, "id": ack["id"] }));
        }
        gateway.process.end();
        let path = gateway.folder.path().join("data/ratings/spool.sqlite-wal");
        let log = std::fs::read(&path).expect("the log is there");
        // What looks like the next frame, and is not whole.
        let mut torn = log[log.len() - FRAME..].to_vec();
        match kind {
            0 => torn.truncate(24),
            1 => torn.truncate(2000),
            2 => torn[FRAME - 1] ^= 0x55,
            _ => torn = vec![0xFF; 3 * FRAME],
        }
        let mut file = OpenOptions::new().append(true).open(&path).expect("the log is there");
        file.write_all(&torn).and_then(|()| file.sync_all()).expect("written");
        gateway.process.begin();
        gateway.ready().await;
        for rated in &answered {
            let answer = gateway.post("acme", "/v1/ratings", &rated["rating"]).await.expect("an answer");
            let ack: Value = answer.json().await.expect("JSON");
            assert_eq!((&ack["id"], &ack["status"]), (&rated["id"], &json!("duplicate")));
        }
    }
    gateway.delivered().await;
    let mut delivered: Vec<Value> = Vec::new();
    for event in events_in(&gateway.folder.path().join("events")) {
        if event["type"] == "generation.rated" && !delivered.contains(&event["id"]) {
            delivered.push(event["id"].clone());
        }
    }
    let answered: Vec<Value> = answered.into_iter().map(|rated| rated["id"].clone()).collect();
    assert_eq!(delivered, answered);
}

fn rating(generation: &str, number: usize) -> Value {
    json!({ "generation_id": generation, "score": 4, "end_user": "ann", "idempotency_key": format!("k{number}") })
}
