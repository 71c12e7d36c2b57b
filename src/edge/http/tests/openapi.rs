//! `proto/openapi.json`, held against the routes that there are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use http::{Request, StatusCode};
use serde_json::Value;
use tower::ServiceExt;

use super::{Harness, bytes, hello};
use crate::edge::http::{Admin, ops, ops_router, routes};

type Methods = BTreeSet<String>;

fn document() -> Value {
    serde_json::from_str(include_str!("../../../../proto/openapi.json")).expect("JSON")
}

/// By path and listener.
fn documented() -> BTreeMap<(String, bool), Methods> {
    let document = document();
    let paths = document["paths"].as_object().expect("an object");
    let methods = |item: &Value| {
        let item = item.as_object().expect("an object");
        item.keys().filter(|key| *key != "servers").map(|key| key.to_uppercase()).collect::<Methods>()
    };
    let operations = |item: &Value| item["servers"][0]["url"] == "http://127.0.0.1:9090";
    paths.iter().map(|(path, item)| ((path.clone(), operations(item)), methods(item))).collect()
}

/// What a route takes, as it says itself.
async fn allowed(router: &Router, path: &str) -> Methods {
    let asked = path.replace("{*name}", "x").replace("{revision}", "1").replace(['{', '}'], "");
    let request = Request::builder().method("PROPFIND").uri(asked).body(Body::empty()).expect("a request");
    let response = router.clone().oneshot(request).await.expect("infallible");
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED, "{path}");
    let allow = response.headers()["allow"].to_str().expect("text");
    // Whatever answers GET answers HEAD.
    allow.split(',').filter(|method| *method != "HEAD").map(str::to_owned).collect()
}

#[tokio::test]
async fn every_route_is_documented_with_its_methods_and_nothing_else_is() {
    let harness = Harness::new(hello());
    let admin = Admin { loopback: true, ..Admin::default() };
    let operations = ops_router(Arc::new(harness.gateway.clone().into()), admin, Arc::new(Vec::new));
    let mut served = BTreeMap::new();
    for endpoint in routes() {
        let path = endpoint.path.replace("{*", "{");
        served.insert((path, false), allowed(&harness.router, endpoint.path).await);
    }
    for path in ops::paths() {
        served.insert((path.to_owned(), true), allowed(&operations, path).await);
    }
    assert_eq!(served, documented());
    let request = Request::get("/openapi.json").body(Body::empty()).expect("a request");
    let answer = operations.oneshot(request).await.expect("infallible");
    let told: Value = serde_json::from_slice(&bytes(answer).await).expect("JSON");
    assert_eq!(told, document());
}

#[test]
fn what_the_document_refers_to_is_in_it() {
    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str));
                fields.values().for_each(|value| references(value, found));
            }
            Value::Array(entries) => entries.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let document = document();
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(found.len() > 100);
    for reference in found {
        let pointer = reference.strip_prefix('#').expect("in this document");
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
    // An operation is known by a name of its own, and parameters of a path are declared.
    let mut names = BTreeSet::new();
    for (path, item) in document["paths"].as_object().expect("an object") {
        for (method, operation) in item.as_object().expect("an object").iter().filter(|(key, _)| *key != "servers") {
            assert!(names.insert(operation["operationId"].as_str().expect("a name")), "{method} {path}");
            let declared = operation["parameters"].as_array().into_iter().flatten();
            let declared = declared.filter(|it| it["in"] == "path").filter_map(|it| it["name"].as_str());
            let declared: BTreeSet<&str> = declared.collect();
            let used: BTreeSet<&str> =
                path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
            assert_eq!(declared, used, "{method} {path}");
        }
    }
}
