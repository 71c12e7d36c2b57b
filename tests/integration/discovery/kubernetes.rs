//! A followed service of Kubernetes, against a simulated API server.

use std::sync::{Arc, Mutex};

use serde_json::json;
use tenantry::types::Secret;
use tenantry::worker::discovery::{KubernetesConfig, ServicePort, Source};

use super::Followed;
use super::api_server::{ApiServer, NAMESPACE, SERVICE};

/// What a pod's token file holds.
type Token = Arc<Mutex<&'static str>>;

fn follow(server: &ApiServer) -> (Followed, Token) {
    let token = Token::new(Mutex::new("first"));
    let read = token.clone();
    let config = KubernetesConfig {
        api: format!("http://{}", server.address),
        namespace: NAMESPACE.to_owned(),
        service: SERVICE.to_owned(),
        port: ServicePort::Name("http".to_owned()),
        token: Some(Arc::new(move || Ok(Secret::new(*read.lock().expect("a token"))))),
        ca: None,
    };
    (Followed::start(Source::Kubernetes(config)), token)
}

fn ready(address: &str) -> (&str, serde_json::Value) {
    (address, json!({ "ready": true, "serving": true, "terminating": false }))
}

fn ending(address: &str) -> (&str, serde_json::Value) {
    (address, json!({ "ready": false, "serving": true, "terminating": true }))
}

#[tokio::test]
async fn slices_are_listed_once_and_then_watched() {
    let server = ApiServer::start().await;
    server.put("vllm-a", &[ready("10.0.0.1"), ready("10.0.0.2")]);
    let (mut followed, _) = follow(&server);
    followed.are(&["10.0.0.1:8000", "10.0.0.2:8000"]).await;
    server.watched(1).await;
    server.put("vllm-b", &[ready("10.0.0.2"), ready("10.0.0.3")]);
    followed.are(&["10.0.0.1:8000", "10.0.0.2:8000", "10.0.0.3:8000"]).await;
    // A pod on its way out still serves what it runs, and is given nothing new.
    server.put("vllm-a", &[ending("10.0.0.1"), ready("10.0.0.2")]);
    followed.are(&["10.0.0.2:8000", "10.0.0.3:8000"]).await;
    server.delete("vllm-b");
    followed.are(&["10.0.0.2:8000"]).await;
    server.put("vllm-a", &[]);
    followed.are(&[]).await;
    assert_eq!((server.lists(), server.watches().len()), (1, 1));
}

#[tokio::test]
async fn a_watch_that_is_cut_goes_on_where_it_was() {
    let server = ApiServer::start().await;
    server.put("vllm-a", &[ready("10.0.0.1")]);
    let (mut followed, _) = follow(&server);
    server.watched(1).await;
    server.cut();
    server.put("vllm-a", &[ready("10.0.0.2")]);
    followed.are(&["10.0.0.2:8000"]).await;
    let version = server.bookmark();
    // What comes after the bookmark shows that it has been read.
    server.put("vllm-a", &[ready("10.0.0.3")]);
    followed.are(&["10.0.0.3:8000"]).await;
    let last = server.bookmark();
    assert_ne!(version, last);
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    server.cut();
    server.watched(3).await;
    assert_eq!(server.watches().last(), Some(&last), "a bookmark is where the next watch begins");
    assert_eq!(server.lists(), 1);
    assert_eq!(followed.now().len(), 1);
}

#[tokio::test]
async fn a_place_that_is_forgotten_is_listed_anew() {
    for as_event in [true, false] {
        let server = ApiServer::start().await;
        server.put("vllm-a", &[ready("10.0.0.1")]);
        let (mut followed, _) = follow(&server);
        followed.are(&["10.0.0.1:8000"]).await;
        server.watched(1).await;
        server.cut();
        server.put("vllm-b", &[ready("10.0.0.2")]);
        server.delete("vllm-a");
        server.compact(as_event);
        followed.are(&["10.0.0.2:8000"]).await;
        assert_eq!(server.lists(), 2);
        server.watched(3).await;
        server.put("vllm-b", &[ready("10.0.0.3")]);
        followed.are(&["10.0.0.3:8000"]).await;
    }
}

#[tokio::test]
async fn what_a_watch_says_of_errors_and_of_things_to_come_does_no_harm() {
    let server = ApiServer::start().await;
    server.put("vllm-a", &[ready("10.0.0.1")]);
    let (mut followed, _) = follow(&server);
    server.watched(1).await;
    server.send(&json!({ "type": "OF_A_LATER_VERSION", "object": {} }));
    server.put("vllm-a", &[ready("10.0.0.2")]);
    followed.are(&["10.0.0.2:8000"]).await;
    assert_eq!(server.lists(), 1);
    server.send(&json!({ "type": "ERROR", "object": { "code": 500, "message": "etcd is away" } }));
    let problem = followed.problem().await;
    assert_eq!(problem, "the API server refuses: 500 etcd is away");
    assert_eq!(followed.now().len(), 1, "it is still known");
    followed.are(&["10.0.0.2:8000"]).await;
    assert_eq!(server.lists(), 2);
}

#[tokio::test]
async fn while_the_server_is_away_everybody_stays() {
    let mut server = ApiServer::start().await;
    server.put("vllm-a", &[ready("10.0.0.1")]);
    let (mut followed, _) = follow(&server);
    followed.are(&["10.0.0.1:8000"]).await;
    server.watched(1).await;
    server.stop().await;
    let problem = followed.problem().await;
    assert!(problem.starts_with("the API server cannot be reached: "), "{problem}");
    assert_eq!(followed.now().len(), 1);
    server.put("vllm-a", &[ready("10.0.0.2")]);
    server.restart().await;
    followed.are(&["10.0.0.2:8000"]).await;
}

#[tokio::test]
async fn a_token_is_read_again_for_each_request() {
    let server = ApiServer::start().await;
    server.put("vllm-a", &[ready("10.0.0.1")]);
    let (mut followed, token) = follow(&server);
    server.watched(1).await;
    // The old one ends, and the file has the new one a moment later.
    server.set_token("second");
    server.cut();
    let problem = followed.problem().await;
    assert_eq!(problem, "the API server refuses: 401 Unauthorized");
    assert!(!problem.contains("first"));
    *token.lock().expect("a token") = "second";
    server.put("vllm-a", &[ready("10.0.0.2")]);
    followed.are(&["10.0.0.2:8000"]).await;
}

#[tokio::test]
async fn a_service_that_may_not_be_watched_is_a_problem_that_stays() {
    let server = ApiServer::start().await;
    server.put("vllm-a", &[ready("10.0.0.1")]);
    server.forbid_watching();
    let (mut followed, _) = follow(&server);
    assert_eq!(followed.problem().await, "the API server refuses: 403 it may not be watched");
    followed.found.borrow_and_update();
    tokio::time::sleep(std::time::Duration::from_secs(4)).await;
    assert!((2..=4).contains(&server.lists()), "{} lists, with growing pauses", server.lists());
    assert!(!followed.found.has_changed().expect("followed"), "neither well again nor worse");
    assert_eq!(followed.now().len(), 1, "what was listed is known");
}
