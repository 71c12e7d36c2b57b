//! The gRPC edge over real sockets, with a scripted worker behind it.

mod errors;
mod guarded;
mod scripted;
mod services;
mod web;

pub(crate) mod client {
    #![allow(clippy::all, unreachable_pub, rust_2018_idioms, dead_code, reason = "generated code is not ours to style")]
    include!(concat!(env!("OUT_DIR"), "/client/tenantry.v1.rs"));
}

use std::time::Duration;

use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Streaming};

use client::generate_event::Event;
use client::inference_client::InferenceClient;
use client::{GenerateEvent, GenerateRequest, ListModelsRequest, Message};
use scripted::Server;

async fn connect(server: &Server) -> InferenceClient<Channel> {
    InferenceClient::new(channel(server).await)
}

async fn channel(server: &Server) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{}", server.address)).expect("an address");
    endpoint.connect().await.expect("the server listens")
}

fn chat(content: &str) -> GenerateRequest {
    let message = Message { role: "user".to_owned(), content: content.to_owned() };
    GenerateRequest { model: "assistant".to_owned(), messages: vec![message], ..Default::default() }
}

/// The message with the key in its metadata.
fn with_key<T>(key: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let value = MetadataValue::try_from(format!("Bearer {key}")).expect("ASCII");
    request.metadata_mut().insert("authorization", value);
    request
}

async fn next(stream: &mut Streaming<GenerateEvent>) -> GenerateEvent {
    stream.message().await.expect("no error").expect("one more event")
}

fn delta(event: &GenerateEvent) -> &str {
    match &event.event {
        Some(Event::Delta(delta)) => &delta.content,
        other => panic!("not a delta: {other:?}"),
    }
}

#[tokio::test]
async fn a_generation_streams_its_events_and_gives_everything_back() {
    let server = Server::start().await;
    let answer = connect(&server).await.generate(with_key("sk-acme", chat("hello"))).await.expect("it starts");
    let id = answer.metadata().get("x-generation-id").expect("in the initial metadata").to_str().expect("ASCII");
    assert!(id.starts_with("gen_"), "{id}");
    let id = id.to_owned();

    let mut stream = answer.into_inner();
    let mut told = Vec::new();
    while let Some(event) = stream.message().await.expect("no error") {
        assert_eq!((&*event.id, &*event.model), (&*id, "assistant"));
        assert!(event.created > 1_700_000_000);
        told.push(event.event.expect("every event says something"));
    }
    let said =
        |content: &str| Event::Delta(client::Delta { index: 0, content: content.to_owned(), ..Default::default() });
    let usage = client::Usage { prompt_tokens: 5, completion_tokens: 3, total_tokens: 8, cached_tokens: 1 };
    let finish = client::Finish { index: 0, finish_reason: "stop".to_owned() };
    assert_eq!(told, [said("Hel"), said("lo"), Event::Finish(finish), Event::Usage(usage)]);
    server.idle().await;
}

#[tokio::test]
async fn a_client_that_cancels_mid_stream_ends_the_work() {
    let server = Server::start().await;
    let mut client = connect(&server).await;
    let mut stream = client.generate(with_key("sk-acme", chat("hold"))).await.expect("it starts").into_inner();
    assert_eq!(delta(&next(&mut stream).await), "Wait");
    let held = server.gateway.held();
    assert_eq!((held.permits, held.leases, held.sequences), (1, 1, 1));
    drop(stream);
    server.idle().await;
}

#[tokio::test]
async fn a_client_that_cancels_before_the_first_event_ends_the_work() {
    let server = Server::start().await;
    let mut client = connect(&server).await;
    let call = client.generate(with_key("sk-acme", chat("never")));
    let begun = async {
        while server.gateway.held().sequences == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::select! {
        answer = call => panic!("there is no first event: {answer:?}"),
        () = begun => {}
    }
    server.idle().await;
}

#[tokio::test]
async fn a_tenant_is_told_of_its_own_models_alone() {
    let server = Server::start().await;
    let mut client = connect(&server).await;
    for (key, model) in [("sk-acme", "assistant"), ("sk-globex", "other")] {
        let models = client.list_models(with_key(key, ListModelsRequest {})).await.expect("a known key").into_inner();
        let names: Vec<&str> = models.models.iter().map(|model| &*model.id).collect();
        assert_eq!(names, [model]);
        assert!(models.models[0].created > 1_700_000_000);
    }
}
