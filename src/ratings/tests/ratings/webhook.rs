//! The webhook sink against a server that answers as it is told.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use base64::Engine as _;
use hmac::{Hmac, KeyInit as _, Mac as _};
use tenantry_ratings::{Config, HttpConfig, SinkKind};
use tenantry_types::Secret;

use crate::support::{events_in, folder, running, tenant};

const KEY: &str = "a key of the webhook";

#[derive(Clone, Default)]
struct Receiver(Arc<Mutex<Received>>);

#[derive(Default)]
struct Received {
    requests: Vec<(HeaderMap, String)>,
    /// Before it takes everything.
    answers: VecDeque<u16>,
    /// What has this in it is refused for good.
    poison: Option<&'static str>,
}

async fn receive(State(receiver): State<Receiver>, headers: HeaderMap, body: String) -> StatusCode {
    let mut received = receiver.0.lock().expect("not poisoned");
    let poisoned = received.poison.is_some_and(|poison| body.contains(poison));
    received.requests.push((headers, body));
    if poisoned {
        return StatusCode::BAD_REQUEST;
    }
    StatusCode::from_u16(received.answers.pop_front().unwrap_or(204)).expect("a status")
}

async fn serve(answers: &[u16]) -> (Receiver, String) {
    let receiver = Receiver::default();
    receiver.0.lock().expect("not poisoned").answers = answers.iter().copied().collect();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/hook", listener.local_addr().expect("an address"));
    let app = Router::new().route("/hook", post(receive)).with_state(receiver.clone());
    tokio::spawn(async move { axum::serve(listener, app).await });
    (receiver, url)
}

fn hook(url: String) -> SinkKind {
    batched(url, 1)
}

fn batched(url: String, batch: usize) -> SinkKind {
    SinkKind::Http(HttpConfig {
        batch,
        url: Secret::new(url),
        keys: vec![Secret::new(KEY)],
        headers: vec![("authorization".to_owned(), Secret::new("Bearer t"))],
        timeout: Duration::from_secs(10),
    })
}

#[tokio::test]
async fn requests_are_signed_and_tried_again_under_one_id() {
    let folder = folder();
    let (receiver, url) = serve(&[503, 429, 307]).await;
    let room = running(Config::new(folder.path()).with_sink("hook", hook(url))).await;
    let ack = room.rate_new(&tenant("acme"), None).await;
    room.settled().await;
    let requests = std::mem::take(&mut receiver.0.lock().expect("not poisoned").requests);
    assert_eq!(requests.len(), 4, "three were not taken");
    for (headers, body) in &requests {
        let header = |name: &str| headers[name].to_str().expect("text").to_owned();
        assert_eq!(header("webhook-id"), ack.id);
        assert_eq!(header("content-type"), "application/cloudevents+json; charset=utf-8");
        assert_eq!(header("authorization"), "Bearer t");
        let event: serde_json::Value = serde_json::from_str(body).expect("JSON");
        assert_eq!(event["id"], ack.id.as_str());
        let timestamp = header("webhook-timestamp");
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs();
        assert!(now.abs_diff(timestamp.parse().expect("seconds")) < 300);
        let mac = Hmac::<sha2::Sha256>::new_from_slice(KEY.as_bytes()).expect("a key");
        let mac = mac.chain_update(format!("{}.{timestamp}.{body}", ack.id)).finalize().into_bytes();
        let expected = format!("v1,{}", base64::engine::general_purpose::STANDARD.encode(mac));
        assert_eq!(header("webhook-signature"), expected);
    }
    assert_eq!(room.ratings.metrics().sinks()[0].retried(), 3);
    room.stop().await;
}

/// The ids of the events of a request, whose headers are as they should be.
fn batch_of((headers, body): &(HeaderMap, String)) -> Vec<String> {
    let header = |name: &str| headers[name].to_str().expect("text").to_owned();
    assert_eq!(header("content-type"), "application/cloudevents-batch+json; charset=utf-8");
    let (id, timestamp) = (header("webhook-id"), header("webhook-timestamp"));
    assert!(id.starts_with("bat_"), "{id}");
    let mac = Hmac::<sha2::Sha256>::new_from_slice(KEY.as_bytes()).expect("a key");
    let mac = mac.chain_update(format!("{id}.{timestamp}.{body}")).finalize().into_bytes();
    let expected = format!("v1,{}", base64::engine::general_purpose::STANDARD.encode(mac));
    assert_eq!(header("webhook-signature"), expected);
    let events: Vec<serde_json::Value> = serde_json::from_str(body).expect("an array");
    events.iter().map(|event| event["id"].as_str().expect("an id").to_owned()).collect()
}

/// Ratings with these keys, before anything is shipped.
async fn recorded(spool: &std::path::Path, keys: &[&str]) -> Vec<String> {
    let room = running(Config::new(spool)).await;
    let mut ids = Vec::new();
    for key in keys {
        ids.push(room.rate_new(&tenant("acme"), Some(key)).await.id);
    }
    room.stop().await;
    ids
}

#[tokio::test]
async fn batches_are_signed_in_order_and_come_again_under_one_id() {
    let folder = folder();
    let keys: Vec<String> = (0..25).map(|number| format!("k-{number}")).collect();
    let ids = recorded(folder.path(), &keys.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let (receiver, url) = serve(&[204, 503]).await;
    let room = running(Config::new(folder.path()).with_sink("hook", batched(url, 10))).await;
    room.settled().await;
    let requests = std::mem::take(&mut receiver.0.lock().expect("not poisoned").requests);
    let batches: Vec<_> = requests.iter().map(batch_of).collect();
    assert_eq!(batches, [&ids[..10], &ids[10..20], &ids[10..20], &ids[20..]], "the second is tried again");
    assert_eq!(requests[1].0["webhook-id"], requests[2].0["webhook-id"]);
    assert_ne!(requests[0].0["webhook-id"], requests[1].0["webhook-id"]);
    assert_eq!(room.ratings.metrics().sinks()[0].delivered(), 25);
    room.stop().await;
}

#[tokio::test]
async fn a_poison_event_is_found_in_its_batch() {
    let folder = folder();
    let keys = ["a", "b", "c", "d", "e", "poison", "g", "h"];
    let ids = recorded(folder.path(), &keys).await;
    let (receiver, url) = serve(&[]).await;
    receiver.0.lock().expect("not poisoned").poison = Some("poison");
    let room = running(Config::new(folder.path()).with_sink("hook", batched(url, 8))).await;
    room.settled().await;
    let letters = events_in(&folder.path().join("dead-letters"));
    let told: Vec<_> = letters.iter().map(|letter| (&letter["event"]["id"], &letter["reason"])).collect();
    assert_eq!(told, [(&ids[5].clone().into(), &"the webhook answered 400 Bad Request".into())]);
    let requests = std::mem::take(&mut receiver.0.lock().expect("not poisoned").requests);
    let taken = requests.iter().filter(|(_, body)| !body.contains("poison")).flat_map(batch_of);
    let others: Vec<_> = ids.iter().enumerate().filter(|(at, _)| *at != 5).map(|(_, id)| id.clone()).collect();
    assert_eq!(taken.collect::<Vec<_>>(), others, "in order, each once");
    let sink = &room.ratings.metrics().sinks()[0];
    assert_eq!((sink.delivered(), sink.dead_lettered(), sink.retried()), (7, 1, 0));
    room.stop().await;
}

#[tokio::test]
async fn what_the_receiver_cannot_read_is_a_dead_letter() {
    let folder = folder();
    let (receiver, url) = serve(&[422]).await;
    let room = running(Config::new(folder.path()).with_sink("hook", hook(url))).await;
    let first = room.rate_new(&tenant("acme"), None).await;
    room.settled().await;
    let second = room.rate_new(&tenant("acme"), None).await;
    room.settled().await;
    let letters = events_in(&folder.path().join("dead-letters"));
    assert_eq!(letters.len(), 1);
    assert_eq!(
        (&letters[0]["event"]["id"], &letters[0]["reason"]),
        (&first.id.into(), &"the webhook answered 422 Unprocessable Entity".into())
    );
    let last = receiver.0.lock().expect("not poisoned").requests.pop().expect("a request");
    assert_eq!(last.0["webhook-id"].to_str().expect("text"), second.id);
    room.stop().await;
}

#[tokio::test]
async fn wrong_configurations_are_refused_without_their_secrets() {
    let refused = |url: &str, key: &str, header: &str| {
        let config = HttpConfig {
            url: Secret::new(url),
            keys: vec![Secret::new(key)],
            headers: vec![(header.to_owned(), Secret::new("line\nbreak"))],
            timeout: Duration::from_secs(1),
            batch: 1,
        };
        let folder = folder();
        async move {
            let config = Config::new(folder.path()).with_sink("hook", SinkKind::Http(config));
            let opened = tenantry_ratings::Ratings::open(config, crate::support::keys()).await;
            opened.err().expect("refused").to_string()
        }
    };
    assert_eq!(refused("ftp://a", KEY, "x").await, "sink hook: url: only http and https are known");
    assert_eq!(refused("http://a", "short", "x").await, "sink hook: keys: one has fewer than 16 bytes");
    assert_eq!(refused("http://a", KEY, "x y").await, "sink hook: headers: \"x y\" is not a header's name");
    let value = refused("http://a", KEY, "x").await;
    assert_eq!(value, "sink hook: headers: the value of x has characters that no header has");
    let shown = format!("{:?}", hook("http://a".to_owned()));
    assert!(!shown.contains(KEY) && !shown.contains("Bearer"), "{shown}");
}
