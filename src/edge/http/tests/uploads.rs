//! Uploads to the admin API, bounded in number and time.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{Request, StatusCode};
use tokio::sync::Semaphore;
use tower::ServiceExt;

use super::super::admin::Uploads;
use super::{Config, Harness, json};
use crate::adapters::{self, ArtifactStore, Catalogue, Inspect, Inspected, PublishError, Sweep, WEIGHTS_FILE};
use crate::edge::http::Admin;
use crate::types::{BaseName, Secret};

/// Refuses every artifact.
struct Nothing;

impl Inspect for Nothing {
    fn knows(&self, _: &BaseName) -> bool {
        true
    }

    fn inspect(&self, _: &BaseName, _: &Path) -> Result<Inspected, PublishError> {
        Err(PublishError::AdapterInvalid("it is nothing".to_owned()))
    }
}

async fn harness(folder: &Path) -> Harness {
    let config = adapters::Config {
        data_dir: folder.to_owned(),
        database: Secret::new(format!("sqlite://{}?mode=rwc", folder.join("catalogue.db").display())),
        artifacts: ArtifactStore::Folder(folder.join("artifacts")),
        poll_interval: Duration::from_secs(60),
        max_adapter_bytes: 1 << 20,
        sweep: Sweep::default(),
    };
    let catalogue = Catalogue::open(config, Vec::new(), Arc::new(Nothing), Arc::default()).await.expect("it opens");
    Harness::of(Vec::new(), Config::default(), catalogue)
}

async fn upload(router: &Router, body: Body) -> Response {
    let request = Request::post("/admin/v1/adapters").header("content-type", "multipart/form-data; boundary=b");
    router.clone().oneshot(request.body(body).expect("a request")).await.expect("infallible")
}

fn form() -> String {
    let field = |name: &str, value: &str| {
        format!("--b\r\ncontent-disposition: form-data; name=\"{name}\"; filename=\"f\"\r\n\r\n{value}\r\n")
    };
    let fields = [("tenant", "acme"), ("name", "support"), ("base", "base"), (WEIGHTS_FILE, "weights")];
    fields.map(|(name, value)| field(name, value)).concat() + "--b--\r\n"
}

/// A client that sends the beginning of a file and then nothing.
fn stalled() -> Body {
    let begun = form().replace("--b--\r\n", "").trim_end().to_owned();
    let begun = stream::once(async { Ok::<_, std::io::Error>(Bytes::from(begun)) });
    Body::from_stream(begun.chain(stream::pending()))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_takes_too_long_ends_and_gives_its_place_to_the_next() {
    let folder = tempfile::tempdir().expect("a folder");
    let harness = harness(folder.path()).await;
    let uploads = Uploads { places: Arc::new(Semaphore::new(1)), timeout: Duration::from_millis(300) };
    let admin = Admin { loopback: true, ..Admin::default() };
    let router = admin.router(Arc::new(harness.gateway.clone().into()), uploads.clone());
    let (slow, next) = tokio::join!(upload(&router, stalled()), async {
        while uploads.places.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        upload(&router, form().into()).await
    });
    assert_eq!(slow.status(), StatusCode::REQUEST_TIMEOUT);
    assert_eq!(json(slow).await["error"]["code"], "upload_timeout");
    assert_eq!(next.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(json(next).await["error"]["message"], "it is nothing");
    let staged = std::fs::read_dir(folder.path().join("staging")).expect("a folder").count();
    assert_eq!(staged, 0, "nothing of it stays");
}
