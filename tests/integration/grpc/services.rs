//! The services beside inference, and what is not there.

use futures_util::{StreamExt, stream};
use tonic::Code;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_reflection::pb;

use super::channel;
use super::scripted::Server;

fn asked(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

#[tokio::test]
async fn health_follows_the_workers_and_needs_no_key() {
    let server = Server::start().await;
    let mut client = HealthClient::new(channel(&server).await);
    for service in ["", "tenantry.v1.Inference"] {
        for (unhealthy, expected) in [(None, ServingStatus::Serving), (Some("gone"), ServingStatus::NotServing)] {
            server.worker.set_unhealthy(unhealthy);
            let answer = client.check(asked(service)).await.expect("a known service").into_inner();
            assert_eq!(answer.status(), expected, "{service:?} with {unhealthy:?}");
        }
    }
    let status = client.check(asked("tenantry.v1.Nothing")).await.expect_err("unknown");
    assert_eq!(status.code(), Code::NotFound);
}

#[tokio::test]
async fn a_health_watch_sees_the_shutdown_and_does_not_hold_it_up() {
    let server = Server::start().await;
    let mut client = HealthClient::new(channel(&server).await);
    let mut watch = client.watch(asked("")).await.expect("it starts").into_inner();
    let mut unknown = client.watch(asked("x")).await.expect("it starts").into_inner();
    let status = |answer: Option<HealthCheckResponse>| answer.map(|answer| answer.status());
    assert_eq!(status(watch.message().await.expect("no error")), Some(ServingStatus::Serving));
    assert_eq!(status(unknown.message().await.expect("no error")), Some(ServingStatus::ServiceUnknown));
    server.draining.cancel();
    assert_eq!(status(watch.message().await.expect("no error")), Some(ServingStatus::NotServing));
    assert_eq!(watch.message().await.expect_err("it ends").code(), Code::Unavailable);
    assert_eq!(unknown.message().await.expect_err("it ends").code(), Code::Unavailable);
}

/// The two versions differ in nothing but their names.
macro_rules! reflected {
    ($server:expr, $version:ident) => {{
        use pb::$version::server_reflection_client::ServerReflectionClient;
        use pb::$version::server_reflection_request::MessageRequest;
        use pb::$version::server_reflection_response::MessageResponse;
        let ask = |what| pb::$version::ServerReflectionRequest { host: String::new(), message_request: Some(what) };
        let asked = [
            ask(MessageRequest::ListServices(String::new())),
            ask(MessageRequest::FileContainingSymbol("tenantry.v1.Inference".to_owned())),
        ];
        let mut client = ServerReflectionClient::new(channel($server).await);
        let answers = client.server_reflection_info(stream::iter(asked)).await.expect("it starts").into_inner();
        let answers: Vec<_> = answers.map(|it| it.expect("no error").message_response.expect("set")).collect().await;
        let [MessageResponse::ListServicesResponse(services), MessageResponse::FileDescriptorResponse(file)] =
            &answers[..]
        else {
            panic!("not what was asked for: {answers:?}");
        };
        assert!(!file.file_descriptor_proto.is_empty());
        let mut names: Vec<String> = services.service.iter().map(|service| service.name.clone()).collect();
        names.sort();
        names
    }};
}

#[tokio::test]
async fn reflection_names_every_service_in_both_versions() {
    let server = Server::start().await;
    let common = ["grpc.health.v1.Health", "tenantry.v1.Inference"];
    for names in [reflected!(&server, v1), reflected!(&server, v1alpha)] {
        for name in common {
            assert!(names.iter().any(|it| it == name), "{name} in {names:?}");
        }
    }
}
