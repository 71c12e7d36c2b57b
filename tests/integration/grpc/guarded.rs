//! No method goes by the guard, and what clients read of it.

use prost::Message;
use prost_types::FileDescriptorSet;
use tenantry::edge::grpc::pb::FILE_DESCRIPTOR_SET;
use tenantry::moderation::Policies;
use tonic::Code;

use super::client::generate_event::Event;
use super::client::{GenerateRequest, ModerateRequest};
use super::scripted::Server;
use super::{chat, connect, with_key};

const INSULT: &str = "You are a stupid idiot and a worthless fool.";

/// Methods, by their full names, and what the guard has to do with each.
fn methods() -> Vec<String> {
    let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).expect("compiled in");
    let mut methods = Vec::new();
    for file in &set.file {
        for service in &file.service {
            let names = service.method.iter().map(|method| method.name());
            methods.extend(names.map(|name| format!("{}.{}/{name}", file.package(), service.name())));
        }
    }
    methods
}

#[tokio::test]
async fn every_method_is_guarded_or_has_a_reason() {
    let server = Server::with(Policies::default()).await;
    let methods = methods();
    assert!(methods.len() >= 3, "{methods:?}");
    for method in methods {
        match method.as_str() {
            "tenantry.v1.Inference/Generate" => {
                let prompt = GenerateRequest {
                    model: "assistant".to_owned(),
                    prompt: Some(INSULT.to_owned()),
                    ..GenerateRequest::default()
                };
                for (request, place) in [(chat(INSULT), "messages[0].content"), (prompt, "prompt")] {
                    let refused = connect(&server).await.generate(with_key("sk-acme", request)).await;
                    let status = refused.expect_err("the prompt is blocked");
                    assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
                    let told =
                        |name: &str| status.metadata().get(name).map(|it| it.to_str().expect("ASCII").to_owned());
                    assert_eq!(told("tenantry-error-code").as_deref(), Some("content_filter"));
                    assert_eq!(told("tenantry-error-param").as_deref(), Some(place));
                    assert!(status.message().contains("insult") && !status.message().contains("idiot"));
                }
            }
            // It tells names of the configuration.
            "tenantry.v1.Inference/ListModels" => {}
            // It tells what the guard says, and no model reads it.
            "tenantry.v1.Inference/Moderate" => {}
            // No model reads them, and nobody is answered with them.
            "tenantry.v1.Ratings/Rate" | "tenantry.v1.Ratings/Stream" => {}
            other => panic!("{other} is not known here: is what it takes and gives judged?"),
        }
    }
    server.idle().await;
}

#[tokio::test]
async fn a_blocked_answer_ends_before_it() {
    let server = Server::with(Policies::default()).await;
    let mut stream =
        connect(&server).await.generate(with_key("sk-acme", chat("insult"))).await.expect("it starts").into_inner();
    let (mut text, mut finish, mut guard, mut usage) = (String::new(), None, Vec::new(), None);
    while let Some(event) = stream.message().await.expect("no error") {
        match event.event.expect("every event says something") {
            Event::Delta(delta) => {
                text.push_str(&delta.content);
                guard.extend(delta.guard);
            }
            Event::Finish(end) => finish = Some(end.finish_reason),
            Event::Usage(told) => usage = Some(told),
        }
    }
    assert!("Hello. You are a".starts_with(text.trim_end()) && !text.contains("st"), "{text}");
    assert_eq!(finish.as_deref(), Some("content_filter"));
    let [finding] = guard.as_slice() else { panic!("{guard:?}") };
    assert_eq!((&*finding.side, &*finding.action, &*finding.category), ("output", "block", "insult"));
    assert!(usage.expect("usage is counted").completion_tokens > 0);
    server.idle().await;
}

#[tokio::test]
async fn texts_are_judged_without_an_answer() {
    let server = Server::with(Policies::default()).await;
    let mut client = connect(&server).await;
    let input = vec!["Rabbits eat hay.".to_owned(), INSULT.to_owned()];
    let answer = client.moderate(with_key("sk-acme", ModerateRequest { input, model: None })).await.expect("judged");
    let id = answer.metadata().get("x-generation-id").expect("in the metadata").to_str().expect("ASCII").to_owned();
    let told = answer.into_inner();
    assert_eq!(told.id, id);
    let flagged: Vec<bool> = told.results.iter().map(|result| result.flagged).collect();
    assert_eq!(flagged, [false, true]);
    let insult = told.results[1].categories.iter().find(|category| category.name == "insult").expect("looked for");
    assert!(insult.flagged && insult.score > 0.5);
    let none = client.moderate(with_key("sk-acme", ModerateRequest::default())).await.expect_err("nothing to judge");
    assert_eq!(none.code(), Code::InvalidArgument);
    let unknown = client.moderate(with_key("sk-nobody", ModerateRequest::default())).await.expect_err("no key");
    assert_eq!(unknown.code(), Code::Unauthenticated);
}
