//! Ratings over the real gateway: taken over HTTP and gRPC, joined with their
//! generations in the log, and there after a restart.

mod crash;
mod disk;
mod outside;
mod torn;

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tonic::metadata::MetadataValue;
use tonic::transport::Endpoint;
use tonic::{Code, Request};

use crate::cli::{tenantry, text};
use crate::grpc::client::RateRequest;
use crate::grpc::client::ratings_client::RatingsClient;
use crate::support::{Server, quickstart_like};

/// The quickstart with a file sink in `folder`; acme's ratings have labels and keep texts.
fn rated(folder: &Path) -> String {
    let events = folder.join("events");
    let sinks = format!(
        "[ratings]\nfolder = {:?}\nunnamed_per_generation = 16\n[ratings.sinks.events]\nkind = \"file\"\nfolder = {events:?}\n",
        folder.join("spool")
    );
    let acme = "id = \"acme\"\nratings = { labels = [\"wrong\", \"off topic\"], keep_content = true }\n";
    quickstart_like(&sinks).replacen("id = \"acme\"\n", acme, 1)
}

async fn generation(server: &Server, tenant: &str) -> String {
    let messages = json!([{ "role": "user", "content": "What do rabbits eat?" }]);
    let body = json!({ "model": "assistant", "max_tokens": 8, "temperature": 0, "messages": messages });
    let response = server.post(tenant, "/v1/chat/completions", &body).await;
    assert_eq!(response.status(), 200);
    response.headers()["x-generation-id"].to_str().expect("ASCII").to_owned()
}

/// The events of the file sink, once there are so many.
async fn events(folder: &Path, count: usize) -> Vec<Value> {
    for _ in 0..200 {
        let mut events = Vec::new();
        for file in std::fs::read_dir(folder.join("events")).into_iter().flatten() {
            let text = std::fs::read_to_string(file.expect("a file").path()).expect("text");
            events.extend(text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")));
        }
        if events.len() >= count {
            return events;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("fewer than {count} events");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rating_is_recorded_once_and_joined_with_its_generation() {
    let folder = tempfile::tempdir().expect("a folder");
    Server::with_config(&rated(folder.path()), |server| async move {
        let id = generation(&server, "acme").await;
        let rating = json!({
            "generation_id": id, "thumb": "down", "score": 2, "labels": ["wrong"], "comment": "Hay?",
            "corrected_text": "Grass.", "end_user": "ann", "idempotency_key": "k1",
        });
        let first: Value = server.post("acme", "/v1/ratings", &rating).await.json().await.expect("JSON");
        assert_eq!(first["status"], "recorded");
        assert!(first["id"].as_str().expect("an id").starts_with("rat_"));
        let again: Value = server.post("acme", "/v1/ratings", &rating).await.json().await.expect("JSON");
        assert_eq!((&again["id"], &again["status"]), (&first["id"], &json!("duplicate")));

        let later = json!([{ "generation_id": id, "thumb": "up", "end_user": "ann" }]);
        let later: Value = server.post("acme", "/v1/ratings", &later).await.json().await.expect("JSON");
        assert_eq!(later[0]["status"], "recorded");

        let events = events(folder.path(), 3).await;
        let of = |kind: &str| events.iter().filter(|event| event["type"] == kind).cloned().collect::<Vec<_>>();
        let [completed] = of("generation.completed").try_into().expect("one generation");
        assert_eq!((&completed["subject"], &completed["tenant"]), (&json!(id), &json!("acme")));
        assert_eq!(
            (&completed["data"]["model"], &completed["data"]["adapter"]["name"]),
            (&json!("assistant"), &json!("pirate"))
        );
        let content = &completed["data"]["content"];
        assert_eq!(
            (&content["kept"], &content["prompt"][0]["content"]),
            (&json!(true), &json!("What do rabbits eat?"))
        );
        assert!(content["completions"][0].as_str().expect("a text").starts_with("Arrr"));
        let [one, two] = of("generation.rated").try_into().expect("two ratings");
        assert_eq!((&one["data"]["idempotency_key"], &one["data"]["corrected_text"]), (&json!("k1"), &json!("Grass.")));
        assert_ne!(one["data"]["end_user"], "ann", "it is hashed");
        assert_eq!(two["data"]["supersedes"], first["id"]);

        let summary: Value = server.get("acme", "/v1/ratings/summary").await.json().await.expect("JSON");
        let line = &summary["data"][0];
        assert_eq!(
            (&line["model"], &line["ratings"], &line["thumbs_up"]),
            (&json!("assistant"), &json!(1), &json!(1.0))
        );
        let others: Value = server.get("globex", "/v1/ratings/summary").await.json().await.expect("JSON");
        assert_eq!(others["data"], json!([]));

        let (_, metrics) = server.ops("/metrics").await;
        for line in [
            "tenantry_ratings_total{outcome=\"recorded\"} 2",
            "tenantry_ratings_total{outcome=\"duplicate\"} 1",
            "tenantry_sink_delivered_total{sink=\"events\"} 3",
        ] {
            assert!(metrics.contains(line), "{line} is missing of {metrics}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_recorded_is_refused_with_its_reason() {
    let folder = tempfile::tempdir().expect("a folder");
    Server::with_config(&rated(folder.path()), |server| async move {
        let (own, foreign) = (generation(&server, "acme").await, generation(&server, "globex").await);
        let forged = format!("{}0000000000000000", &own[..own.len() - 16]);
        for (rating, param, code) in [
            (json!({ "generation_id": foreign, "thumb": "up" }), "generation_id", "generation_not_found"),
            (json!({ "generation_id": forged, "thumb": "up" }), "generation_id", "generation_not_found"),
            (json!({ "generation_id": "gen_x", "thumb": "up" }), "generation_id", "generation_malformed"),
            (json!({ "generation_id": own, "score": 6 }), "score", ""),
            (json!({ "generation_id": own, "labels": ["nonsense"] }), "labels[0]", ""),
            (json!({ "generation_id": own, "thumb": "up", "stars": 5 }), "stars", ""),
            (json!([{ "generation_id": own, "thumb": "up" }, { "generation_id": own, "score": 0 }]), "[1].score", ""),
            (json!({ "generation_id": own }), "", ""),
        ] {
            let response = server.post("acme", "/v1/ratings", &rating).await;
            assert_eq!(response.status(), 400, "{rating}");
            let error: Value = response.json().await.expect("JSON");
            assert_eq!(error["error"]["param"].as_str().unwrap_or_default(), param, "{error}");
            assert_eq!(error["error"]["code"].as_str().unwrap_or_default(), code, "{error}");
        }
        assert_eq!(server.get("acme", "/v1/ratings").await.status(), 405);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_array_is_recorded_whole_or_not_at_all() {
    let folder = tempfile::tempdir().expect("a folder");
    Server::with_config(&rated(folder.path()), |server| async move {
        let id = generation(&server, "acme").await;
        let by = |user: &str| json!({ "generation_id": id, "thumb": "up", "end_user": user });
        let forged = format!("{}0000000000000000", &id[..id.len() - 16]);
        let bad = json!([by("ann"), by("bob"), { "generation_id": forged, "thumb": "up" }]);
        let response = server.post("acme", "/v1/ratings", &bad).await;
        let error: Value = response.json().await.expect("JSON");
        assert_eq!(
            (&error["error"]["param"], &error["error"]["code"]),
            (&json!("[2].generation_id"), &json!("generation_not_found"))
        );

        // Of those without an end user sixteen are taken here.
        let unnamed = json!({ "generation_id": id, "thumb": "down" });
        let many: Value = vec![unnamed.clone(); 15].into();
        assert_eq!(server.post("acme", "/v1/ratings", &many).await.status(), 200);
        let two = json!([unnamed, unnamed]);
        let response = server.post("acme", "/v1/ratings", &two).await;
        assert_eq!(response.status(), 409);
        assert_eq!(response.headers()["x-should-retry"], "false");
        let error: Value = response.json().await.expect("JSON");
        let error = &error["error"];
        assert_eq!((&error["param"], &error["code"]), (&json!("[1].end_user"), &json!("too_many_ratings")));
        let message = error["message"].as_str().expect("a text");
        assert!(message.contains("has 16 ratings without an end user"), "{message}");
        assert_eq!(server.post("acme", "/v1/ratings", &unnamed).await.status(), 200, "the sixteenth was not taken");
        assert_eq!(server.post("acme", "/v1/ratings", &unnamed).await.status(), 409);
        assert_eq!(server.post("acme", "/v1/ratings", &by("ann")).await.status(), 200);

        let events = events(folder.path(), 18).await;
        assert_eq!(events.len(), 18, "of the refused arrays nothing was recorded");
        let (_, metrics) = server.ops("/metrics").await;
        for line in ["{outcome=\"recorded\"} 17", "{outcome=\"unknown\"} 3", "{outcome=\"unnamed\"} 3"] {
            assert!(metrics.contains(&format!("tenantry_ratings_total{line}")), "{line} is missing of {metrics}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn summaries_know_their_tenants() {
    let folder = tempfile::tempdir().expect("a folder");
    Server::with_config(&rated(folder.path()), |server| async move {
        let id = generation(&server, "acme").await;
        let rating = json!({ "generation_id": id, "thumb": "up", "end_user": "ann" });
        assert_eq!(server.post("acme", "/v1/ratings", &rating).await.status(), 200);
        events(folder.path(), 2).await;
        let spool = folder.path().join("spool");
        let spool = spool.to_str().expect("UTF-8");
        let summary = |tenant: &str| tenantry(&["ratings", "summary", "--spool", spool, "--tenant", tenant], "");
        let known = summary("acme");
        assert!(known.status.success(), "{}", text(&known.stderr));
        assert!(text(&known.stdout).contains("up 100 % (21 % to 100 %)"), "{}", text(&known.stdout));
        let unknown = summary("nope");
        assert_eq!((unknown.status.code(), text(&unknown.stdout)), (Some(1), ""));
        assert!(text(&unknown.stderr).contains("knows no tenant `nope`"), "{}", text(&unknown.stderr));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_judges_no_generation_cannot_be_rated() {
    let folder = tempfile::tempdir().expect("a folder");
    Server::with_config(&rated(folder.path()), |server| async move {
        let response = server.post("acme", "/v1/moderations", &json!({ "input": "Good morning." })).await;
        let id = response.json::<Value>().await.expect("JSON")["id"].as_str().expect("an id").to_owned();
        let response = server.post("acme", "/v1/ratings", &json!({ "generation_id": id, "thumb": "up" })).await;
        let error: Value = response.json().await.expect("JSON");
        assert_eq!(error["error"]["code"], "generation_malformed", "{id}: {error}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_of_others_are_lengths_and_hashes_and_blocks_are_told() {
    let folder = tempfile::tempdir().expect("a folder");
    Server::with_config(&rated(folder.path()), |server| async move {
        generation(&server, "globex").await;
        let messages = json!([{ "role": "user", "content": "You are a stupid idiot and a worthless fool." }]);
        let body = json!({ "model": "assistant", "messages": messages });
        assert_eq!(server.post("globex", "/v1/chat/completions", &body).await.status(), 400);
        let events = events(folder.path(), 2).await;
        let text = serde_json::to_string(&events).expect("JSON");
        assert!(!text.contains("rabbits") && !text.contains("idiot"), "{text}");
        let completed = events.iter().find(|event| event["type"] == "generation.completed").expect("told");
        assert_eq!(completed["data"]["content"]["kept"], false);
        assert!(completed["data"]["content"]["completions"][0]["bytes"].as_u64() > Some(0));
        let blocked = events.iter().find(|event| event["type"] == "guard.blocked").expect("told");
        assert_eq!((&blocked["data"]["side"], &blocked["data"]["categories"]), (&json!("prompt"), &json!(["insult"])));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ratings_come_over_grpc_one_by_one_and_as_a_stream() {
    let folder = tempfile::tempdir().expect("a folder");
    Server::with_config(&rated(folder.path()), |server| async move {
        let id = generation(&server, "acme").await;
        let address = format!("http://{}", server.addresses().public);
        let channel = Endpoint::from_shared(address).expect("an address").connect().await.expect("it listens");
        let mut client = RatingsClient::new(channel);
        let key = MetadataValue::from_static("Bearer sk-demo-acme");
        let rating = |number: u32| RateRequest {
            generation_id: id.clone(),
            score: Some(1 + number % 5),
            end_user: Some(format!("user {number}")),
            idempotency_key: Some(format!("key {number}")),
            ..RateRequest::default()
        };
        let with_key = |rating| {
            let mut request = Request::new(rating);
            request.metadata_mut().insert("authorization", key.clone());
            request
        };
        let one = client.rate(with_key(rating(0))).await.expect("recorded").into_inner();
        assert_eq!(one.status, "recorded");

        let sent: Vec<RateRequest> = (0..200).map(rating).collect();
        let mut request = Request::new(futures_util::stream::iter(sent));
        request.metadata_mut().insert("authorization", key.clone());
        let mut acks = client.stream(request).await.expect("taken").into_inner();
        let mut told = Vec::new();
        while let Some(ack) = acks.message().await.expect("no refusal") {
            told.push(ack);
        }
        assert_eq!(told.len(), 200);
        assert_eq!((&told[0].id, &*told[0].status), (&one.id, "duplicate"));
        assert!(told[1..].iter().all(|ack| ack.status == "recorded"));

        let bad = vec![rating(500), RateRequest { thumb: Some("sideways".to_owned()), ..rating(501) }, rating(502)];
        let mut request = Request::new(futures_util::stream::iter(bad));
        request.metadata_mut().insert("authorization", key.clone());
        let mut acks = client.stream(request).await.expect("taken").into_inner();
        assert_eq!(acks.message().await.expect("the first is good").expect("an ack").status, "recorded");
        let status = acks.message().await.expect_err("the second is refused");
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        let nobody = client.rate(Request::new(rating(0))).await.expect_err("no key");
        assert_eq!(nobody.code(), Code::Unauthenticated);
    })
    .await;
}
