//! A client that goes away stops the engine's work, whatever it speaks.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use serde_json::{Value, json};
use tonic::transport::Endpoint;

use crate::grpc::client::inference_client::InferenceClient;
use crate::grpc::client::{GenerateRequest, generate_event};
use crate::support::process::{Process, free_port, worker_config, worker_status};
use crate::support::{Server, quickstart_like};

fn long(stream: bool) -> Value {
    json!({ "model": "assistant", "prompt": "Once upon a time", "max_tokens": 1800, "ignore_eos": true, "stream": stream })
}

async fn engine_stops(server: &Server) {
    server.nothing_held().await;
    let (_, metrics) = server.ops("/metrics").await;
    assert!(metrics.contains("tenantry_engine_batch_rows{worker=\"local\"} 0"), "{metrics}");
    assert!(metrics.contains("tenantry_engine_kv_tokens{worker=\"local\"} 0"), "{metrics}");
    assert!(metrics.contains("outcome=\"client_gone\"} 1"), "{metrics}");
}

async fn leaves_a_stream(server: Arc<Server>, client: reqwest::Client) {
    let request = client.post(server.url("/v1/completions")).bearer_auth("sk-demo-acme").json(&long(true));
    let mut stream = request.send().await.expect("an answer").bytes_stream();
    stream.next().await.expect("a chunk").expect("bytes");
    assert_eq!(server.held().sequences, 1);
    drop((stream, client));
    engine_stops(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leaving_a_stream_over_http1_stops_the_engine() {
    let _timed = crate::support::timed().await;
    Server::with(|server| {
        leaves_a_stream(server, crate::support::http_client().http1_only().build().expect("a client"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leaving_a_stream_over_http2_stops_the_engine() {
    let _timed = crate::support::timed().await;
    let client = crate::support::http_client().http2_prior_knowledge().build().expect("a client");
    Server::with(|server| leaves_a_stream(server, client)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leaving_before_the_whole_answer_is_there_stops_the_engine() {
    let _timed = crate::support::timed().await;
    Server::with(|server| async move {
        let request = server.client.post(server.url("/v1/completions")).bearer_auth("sk-demo-acme").json(&long(false));
        let asked = tokio::time::timeout(Duration::from_millis(500), request.send()).await;
        assert!(asked.is_err(), "1800 tokens take longer than that");
        engine_stops(&server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_a_grpc_call_stops_the_engine() {
    let _timed = crate::support::timed().await;
    Server::with(|server| async move {
        let endpoint = Endpoint::from_shared(format!("http://{}", server.addresses().public)).expect("an address");
        let mut client = InferenceClient::new(endpoint.connect().await.expect("a connection"));
        let mut request = tonic::Request::new(GenerateRequest {
            model: "assistant".to_owned(),
            prompt: Some("Once upon a time".to_owned()),
            max_tokens: Some(1800),
            ignore_eos: Some(true),
            ..GenerateRequest::default()
        });
        request.metadata_mut().insert("authorization", "Bearer sk-demo-acme".parse().expect("ASCII"));
        let mut stream = client.generate(request).await.expect("a stream").into_inner();
        let first = stream.next().await.expect("an event").expect("an event");
        assert!(matches!(first.event, Some(generate_event::Event::Delta(_))));
        assert_eq!(server.held().sequences, 1);
        drop(stream);
        engine_stops(&server).await;
    })
    .await;
}

/// The same with the engine in another process: what it says of itself counts.
#[tokio::test(flavor = "multi_thread")]
async fn leaving_before_the_whole_answer_is_there_stops_an_engine_elsewhere() {
    let _timed = crate::support::timed().await;
    // 100 ms, and what a machine that runs other tests may be late by.
    const WITHIN: Duration = Duration::from_millis(250);
    let port = free_port();
    let worker = worker_config(port, "").replace("bases.smollm2", "bases.smollm2-135m");
    let _process = Process::start("worker", &worker);
    let here = "driver = \"embedded\"\nbases = [\"smollm2-135m\"]\nthreads = 2\ncontext = 2048\n";
    let there = format!(
        "driver = \"grpc\"\nbases = [\"smollm2-135m\"]\nurl = \"http://127.0.0.1:{port}\"\npoll_interval = \"50ms\"\n"
    );
    let config = quickstart_like("").replacen(here, &there, 1);
    assert!(config.contains(&there), "{config}");
    Server::with_config(&config, |server| async move {
        server.ready().await;
        // The adapter is loaded and proven first: what runs then is the request alone.
        server.ask("acme", "assistant", "Hi").await;
        for _ in 0..3 {
            let asking = tokio::spawn({
                let request = server.client.post(server.url("/v1/completions"));
                request.bearer_auth("sk-demo-acme").json(&long(false)).send()
            });
            while worker_status(port).await.batch_rows == 0 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            let left = std::time::Instant::now();
            asking.abort();
            loop {
                let asked = left.elapsed();
                let status = worker_status(port).await;
                if status.batch_rows + status.waiting == 0 {
                    break;
                }
                assert!(asked < WITHIN, "{asked:?} later it still generates");
            }
        }
    })
    .await;
}
