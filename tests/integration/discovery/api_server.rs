//! A simulated Kubernetes API server: the EndpointSlices of one service, as a
//! list and as a watch, over plain HTTP.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::stream;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

pub(super) const NAMESPACE: &str = "models";
pub(super) const SERVICE: &str = "vllm";

pub(super) struct ApiServer {
    pub(super) address: SocketAddr,
    cluster: Shared,
    _serving: Option<AbortOnDropHandle<()>>,
}

type Shared = Arc<Mutex<Cluster>>;

#[derive(Default)]
struct Cluster {
    version: u64,
    /// Changes before this one are forgotten.
    oldest: u64,
    slices: BTreeMap<String, Value>,
    history: Vec<(u64, Value)>,
    watchers: Vec<mpsc::UnboundedSender<String>>,
    token: String,
    lists: usize,
    /// The version that each watch began at.
    watches: Vec<String>,
    /// That a forgotten place is told as an event, as servers mostly do, and
    /// not by the status.
    gone_as_event: bool,
    watching_forbidden: bool,
}

// === impl ApiServer ===

impl ApiServer {
    pub(super) async fn start() -> Self {
        let cluster = Shared::default();
        {
            let mut cluster = cluster.lock().expect("new");
            cluster.version = 100;
            "first".clone_into(&mut cluster.token);
        }
        let (address, serving) = serve("127.0.0.1:0".parse().expect("an address"), cluster.clone()).await;
        Self { address, cluster, _serving: Some(serving) }
    }

    /// The server goes away, with every connection.
    pub(super) async fn stop(&mut self) {
        self._serving = None;
        self.cluster().watchers.clear();
        tokio::task::yield_now().await;
    }

    pub(super) async fn restart(&mut self) {
        self._serving = Some(serve(self.address, self.cluster.clone()).await.1);
    }

    /// Sets a slice, whose endpoints are addresses with their conditions.
    pub(super) fn put(&self, name: &str, endpoints: &[(&str, Value)]) {
        let mut cluster = self.cluster();
        let kind = if cluster.slices.contains_key(name) { "MODIFIED" } else { "ADDED" };
        let endpoint =
            |(address, conditions): &(&str, Value)| json!({ "addresses": [address], "conditions": conditions });
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {
                "name": name, "namespace": NAMESPACE, "resourceVersion": (cluster.version + 1).to_string(),
                "labels": { "kubernetes.io/service-name": SERVICE },
            },
            "endpoints": endpoints.iter().map(endpoint).collect::<Vec<_>>(),
            "ports": [{ "name": "http", "port": 8000, "protocol": "TCP" }],
        });
        cluster.slices.insert(name.to_owned(), slice.clone());
        cluster.tell(kind, slice);
    }

    pub(super) fn delete(&self, name: &str) {
        let mut cluster = self.cluster();
        let mut slice = cluster.slices.remove(name).expect("it is there");
        slice["metadata"]["resourceVersion"] = json!((cluster.version + 1).to_string());
        cluster.tell("DELETED", slice);
    }

    /// Time passes, with changes that are none of this service's.
    pub(super) fn bookmark(&self) -> String {
        let mut cluster = self.cluster();
        cluster.version += 10;
        let version = cluster.version.to_string();
        let object = json!({ "kind": "EndpointSlice", "metadata": { "resourceVersion": version } });
        cluster.send(&json!({ "type": "BOOKMARK", "object": object }));
        version
    }

    /// Sends something to whoever watches.
    pub(super) fn send(&self, event: &Value) {
        self.cluster().send(event);
    }

    /// Ends all watches.
    pub(super) fn cut(&self) {
        self.cluster().watchers.clear();
    }

    /// Forgets what has changed up to now.
    pub(super) fn compact(&self, as_event: bool) {
        let mut cluster = self.cluster();
        cluster.version += 1;
        cluster.oldest = cluster.version;
        cluster.gone_as_event = as_event;
    }

    pub(super) fn forbid_watching(&self) {
        self.cluster().watching_forbidden = true;
    }

    pub(super) fn set_token(&self, token: &str) {
        token.clone_into(&mut self.cluster().token);
    }

    pub(super) fn lists(&self) -> usize {
        self.cluster().lists
    }

    pub(super) fn watches(&self) -> Vec<String> {
        self.cluster().watches.clone()
    }

    /// Waits until so many watches have begun.
    pub(super) async fn watched(&self, times: usize) {
        let watched = async {
            while self.watches().len() < times {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(std::time::Duration::from_secs(20), watched).await;
        assert!(waited.is_ok(), "watches: {:?}", self.watches());
    }

    fn cluster(&self) -> MutexGuard<'_, Cluster> {
        self.cluster.lock().expect("no test panicked with it")
    }
}

async fn serve(address: SocketAddr, cluster: Shared) -> (SocketAddr, AbortOnDropHandle<()>) {
    let listener = tokio::net::TcpListener::bind(address).await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let path = "/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices";
    let router = Router::new().route(path, get(slices)).with_state(cluster);
    let serving = tokio::spawn(async move { axum::serve(listener, router).await.expect("served") });
    (address, AbortOnDropHandle::new(serving))
}

async fn slices(
    State(cluster): State<Shared>,
    Path(namespace): Path<String>,
    Query(query): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    let mut cluster = cluster.lock().expect("no test panicked with it");
    let bearer = headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    if bearer != format!("Bearer {}", cluster.token) {
        return status(401, "Unauthorized");
    }
    if namespace != NAMESPACE || query["labelSelector"] != format!("kubernetes.io/service-name={SERVICE}") {
        return status(403, "another service was asked for");
    }
    if !query.contains_key("watch") {
        cluster.lists += 1;
        let items: Vec<&Value> = cluster.slices.values().collect();
        let list = json!({
            "kind": "EndpointSliceList", "metadata": { "resourceVersion": cluster.version.to_string() }, "items": items,
        });
        return list.to_string().into_response();
    }
    if cluster.watching_forbidden {
        return status(403, "it may not be watched");
    }
    assert_eq!((&*query["watch"], &*query["allowWatchBookmarks"]), ("true", "true"));
    let seconds: u64 = query["timeoutSeconds"].parse().expect("a number");
    assert!((140..=290).contains(&seconds), "{seconds}");
    let from: u64 = query["resourceVersion"].parse().expect("a version that was told");
    cluster.watches.push(from.to_string());
    cluster.watch(from)
}

fn status(code: u16, message: &str) -> Response {
    (StatusCode::from_u16(code).expect("a status"), failure(code, message).to_string()).into_response()
}

fn failure(code: u16, message: &str) -> Value {
    json!({ "kind": "Status", "status": "Failure", "code": code, "message": message })
}

// === impl Cluster ===

impl Cluster {
    fn watch(&mut self, from: u64) -> Response {
        let (sender, receiver) = mpsc::unbounded_channel();
        if from < self.oldest {
            let gone = failure(410, "too old resource version");
            if !self.gone_as_event {
                return status(410, "too old resource version");
            }
            let event = json!({ "type": "ERROR", "object": gone });
            sender.send(format!("{event}\n")).expect("it is held");
            drop(sender);
        } else {
            for (_, event) in self.history.iter().filter(|(version, _)| *version > from) {
                sender.send(format!("{event}\n")).expect("it is held");
            }
            self.watchers.push(sender);
        }
        let body = stream::unfold(receiver, async |mut receiver| {
            let line: String = receiver.recv().await?;
            Some((Ok::<_, Infallible>(line), receiver))
        });
        Body::from_stream(body).into_response()
    }

    fn tell(&mut self, kind: &str, slice: Value) {
        self.version += 1;
        let event = json!({ "type": kind, "object": slice });
        self.history.push((self.version, event.clone()));
        self.send(&event);
    }

    /// In two pieces: where a line is cut into packets is nobody's promise.
    fn send(&mut self, event: &Value) {
        let line = format!("{event}\n");
        let (one, other) = line.split_at(line.len() / 2);
        self.watchers.retain(|it| it.send(one.to_owned()).and_then(|()| it.send(other.to_owned())).is_ok());
    }
}
