//! The operations listener.

use std::sync::Arc;

use axum::body::Body;
use http::{Request, StatusCode};
use tower::ServiceExt;

use super::{Harness, bytes, hello};
use crate::edge::http::ops_router;

#[tokio::test]
async fn the_operations_listener_tells_metrics_health_and_readiness() {
    let harness = Harness::new(hello());
    let ask = |reasons: Vec<String>, path: &str| {
        let admin = crate::edge::http::Admin { loopback: true, ..Default::default() };
        let router = ops_router(Arc::new(harness.gateway.clone().into()), admin, Arc::new(move || reasons.clone()));
        let request = Request::get(path).body(Body::empty()).expect("a request");
        async move { router.oneshot(request).await.expect("infallible") }
    };
    let metrics = ask(Vec::new(), "/metrics").await;
    assert!(metrics.headers()["content-type"].to_str().expect("text").starts_with("application/openmetrics-text"));
    assert!(bytes(metrics).await.ends_with(b"# EOF\n"));
    assert_eq!(bytes(ask(Vec::new(), "/healthz").await).await, "ok");
    assert_eq!(bytes(ask(Vec::new(), "/readyz").await).await, r#"{"status":"ready"}"#);
    let draining = ask(vec!["draining".to_owned()], "/readyz").await;
    assert_eq!(draining.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(bytes(draining).await, r#"{"status":"not_ready","reasons":["draining"]}"#);
    assert_eq!(ask(Vec::new(), "/v1/models").await.status(), StatusCode::NOT_FOUND);
}
