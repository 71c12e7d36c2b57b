//! Traces, as a collector receives them: from a gateway whose worker is another
//! gateway, so that the trace goes on over HTTP.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::{Span, status::StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tonic::{Request, Response, Status};

use crate::support::{Server, quickstart_like};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// What it was sent: the service's name, the key that came along, the span.
type Received = Arc<Mutex<Vec<(String, String, Span)>>>;

/// An OTLP collector.
struct Collector(Received);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let key = request.metadata().get("x-collector-key").and_then(|key| key.to_str().ok()).unwrap_or_default();
        let key = key.to_owned();
        for resource in request.into_inner().resource_spans {
            let attributes = resource.resource.map(|resource| resource.attributes).unwrap_or_default();
            let name = attributes.into_iter().find(|pair| pair.key == "service.name").and_then(|pair| pair.value);
            let Some(Any::StringValue(name)) = name.and_then(|value| value.value) else {
                return Err(Status::invalid_argument("a service has a name"));
            };
            let spans = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            self.0.lock().expect("whole").extend(spans.map(|span| (name.clone(), key.clone(), span)));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

async fn collector() -> (SocketAddr, Received) {
    let received = Received::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let service = TraceServiceServer::new(Collector(received.clone()));
    let incoming = futures_util::stream::unfold(listener, async |listener| {
        let stream = listener.accept().await.map(|(stream, _)| stream);
        Some((stream, listener))
    });
    tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming.boxed()));
    (address, received)
}

fn attribute(span: &Span, name: &str) -> Option<Value> {
    let value = span.attributes.iter().find(|pair| pair.key == name)?.value.clone()?.value?;
    Some(match value {
        Any::StringValue(text) => json!(text),
        Any::IntValue(number) => json!(number),
        Any::DoubleValue(number) => json!(number),
        Any::BoolValue(bool) => json!(bool),
        Any::ArrayValue(array) => array
            .values
            .into_iter()
            .map(|value| match value.value {
                Some(Any::StringValue(text)) => json!(text),
                other => panic!("{other:?}"),
            })
            .collect(),
        other => panic!("{other:?}"),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn traces(collector: SocketAddr, service: &str, more: &str) -> String {
    format!("[traces]\nendpoint = \"http://{collector}\"\nservice_name = \"{service}\"\n{more}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_one_tree_of_spans_through_two_gateways() {
    let (address, received) = collector().await;
    let folder = tempfile::tempdir().expect("a folder");
    let key = folder.path().join("key");
    std::fs::write(&key, "collector-key").expect("written");
    let headers = format!("headers = {{ x-collector-key = \"file:{}\" }}\n", key.display());
    let inner = Server::start(&quickstart_like(&traces(address, "inner", &headers))).await;
    let demo = folder.path().join("demo");
    std::fs::write(&demo, "sk-demo-acme").expect("written");
    let outer = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n[ops]\nlisten = \"127.0.0.1:0\"\n[bases.smollm2-135m]\n\
         [workers.inner]\ndriver = \"openai\"\nbases = [\"smollm2-135m\"]\nurl = \"{}\"\nkey = \"file:{}\"\n\
         [[tenants]]\nid = \"hooli\"\nkeys = [{{ demo = \"sk-demo-hooli\" }}]\n\
         [tenants.models]\nbot = {{ base = \"smollm2-135m\" }}\n{}",
        inner.url("/v1"),
        demo.display(),
        traces(address, "outer", "sample = 0.0\n"),
    );
    let outer = Server::start(&outer).await;
    outer.ready().await;

    let ask = |stream: bool, parent: Option<&str>, model: &str| {
        let body = json!({"model": model, "max_tokens": 4, "stream": stream, "temperature": 0,
            "messages": [{"role": "user", "content": "Say a secret word."}]});
        let request = outer.client.post(outer.url("/v1/chat/completions")).bearer_auth("sk-demo-hooli").json(&body);
        match parent {
            Some(parent) => request.header("traceparent", parent).header("tracestate", "vendor=1"),
            None => request,
        }
    };
    let answer = ask(true, Some(PARENT), "bot").send().await.expect("an answer");
    assert_eq!(answer.status(), 200);
    let text = answer.text().await.expect("whole");
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    // Its client does not record it, and it does not itself.
    assert_eq!(ask(false, None, "bot").send().await.expect("an answer").status(), 200);
    // A refusal, recorded.
    let refused = ask(false, Some(&PARENT.replace("00f067aa0ba902b7", "00f067aa0ba902b8")), "no-such-model");
    assert_eq!(refused.send().await.expect("an answer").status(), 404);
    // A request that is no generation.
    let models = outer.client.get(outer.url("/v1/models")).bearer_auth("sk-demo-hooli");
    let models = models.header("traceparent", PARENT).header("tracestate", "vendor=1");
    assert_eq!(models.send().await.expect("an answer").status(), 200);
    outer.stop().await;
    inner.stop().await;

    let received = received.lock().expect("whole");
    let of = |service: &str| received.iter().filter(|it| it.0 == service).map(|it| it.2.clone()).collect::<Vec<_>>();
    assert!(received.iter().filter(|it| it.0 == "inner").all(|it| it.1 == "collector-key"), "it was sent along");
    let (outer, inner) = (of("outer"), of("inner"));
    assert!(outer.iter().all(|span| hex(&span.trace_id) == TRACE), "what nobody records is not there: {outer:#?}");
    let all = outer.iter().chain(inner.iter().filter(|span| hex(&span.trace_id) == TRACE));
    for span in all.clone() {
        let text = format!("{span:?}");
        assert!(!text.contains("secret word") && !text.contains("sk-demo"), "{text}");
        assert!(span.start_time_unix_nano <= span.end_time_unix_nano, "{span:#?}");
        assert_eq!(span.trace_state, "vendor=1");
    }

    let named = |spans: &[Span], name: &str, kind: SpanKind| {
        let mut found = spans.iter().filter(|span| span.name == name && span.kind == kind as i32).cloned();
        let first = found.next().unwrap_or_else(|| panic!("no {name} in {spans:#?}"));
        assert!(found.next().is_none(), "{name} twice");
        first
    };
    let server = named(&outer, "chat bot", SpanKind::Server);
    assert_eq!(hex(&server.parent_span_id), "00f067aa0ba902b7");
    for (name, value) in [
        ("gen_ai.operation.name", json!("chat")),
        ("gen_ai.request.model", json!("bot")),
        ("gen_ai.request.max_tokens", json!(4)),
        ("gen_ai.request.temperature", json!(0.0)),
        ("gen_ai.usage.output_tokens", json!(4)),
        ("gen_ai.response.finish_reasons", json!(["length"])),
        ("tenantry.tenant", json!("hooli")),
        ("tenantry.outcome", json!("complete")),
        ("tenantry.worker", json!("inner")),
        ("http.route", json!("/v1/chat/completions")),
    ] {
        assert_eq!(attribute(&server, name), Some(value), "{name}");
    }
    assert!(attribute(&server, "gen_ai.response.id").is_some_and(|id| text.contains(id.as_str().expect("a text"))));
    for step in ["guard.prompt", "admission.wait", "adapter.load"] {
        let span = named(&outer, step, SpanKind::Internal);
        assert_eq!(span.parent_span_id, server.span_id, "{step}");
        assert!(span.start_time_unix_nano >= server.start_time_unix_nano, "{step}");
        assert!(span.end_time_unix_nano <= server.end_time_unix_nano, "{step}");
    }
    let call = named(&outer, "chat bot", SpanKind::Client);
    assert_eq!(call.parent_span_id, server.span_id);
    assert_eq!(call.events[0].name, "first_token");
    assert!(call.events[0].time_unix_nano >= call.start_time_unix_nano);

    // The other gateway's is a child of the call.
    let inner_trace: Vec<Span> = inner.into_iter().filter(|span| hex(&span.trace_id) == TRACE).collect();
    let theirs = named(&inner_trace, "chat smollm2-135m", SpanKind::Server);
    assert_eq!(theirs.parent_span_id, call.span_id);
    assert_eq!(attribute(&theirs, "tenantry.tenant"), Some(json!("acme")));

    let refused = named(&outer, "chat", SpanKind::Server);
    assert_eq!(hex(&refused.parent_span_id), "00f067aa0ba902b8");
    assert_eq!(attribute(&refused, "error.type"), Some(json!("model_not_found")));
    assert_eq!(refused.status.expect("a status").code, StatusCode::Error as i32);
    let models = named(&outer, "GET /v1/models", SpanKind::Server);
    assert_eq!(attribute(&models, "http.response.status_code"), Some(json!(200)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_costs_no_request_and_is_told() {
    let config = quickstart_like(&traces("127.0.0.1:9".parse().expect("an address"), "t", "timeout = \"200ms\"\n"));
    let server = Server::start(&config).await;
    let answer = server.ask("acme", "smollm2-135m", "Hi").await;
    assert!(!answer.is_empty());
    // Batches go every five seconds.
    for _ in 0..100 {
        let (_, metrics) = server.ops("/metrics").await;
        let dropped = metrics.lines().find_map(|line| line.strip_prefix("tenantry_trace_spans_dropped_total "));
        if dropped.is_some_and(|dropped| dropped != "0") {
            let exemplar = metrics.lines().any(|line| {
                line.starts_with("tenantry_time_to_first_token_seconds_bucket{") && line.contains("# {trace_id=\"")
            });
            assert!(exemplar, "{metrics}");
            server.stop().await;
            return;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    panic!("no span was told to be lost");
}
