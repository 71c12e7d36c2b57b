//! Requests to an API server, with the credentials of the moment.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use reqwest::{Client, RequestBuilder, Response, StatusCode, redirect};
use serde::Deserialize;
use thiserror::Error;
use tokio::time::Instant;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};

use super::Config;
use crate::types::Secret;
use crate::worker::discovery::backoff::chance;
use crate::worker::discovery::slices::{EndpointSlice, Metadata, Slices};

/// The longest wait for an answer to begin, and for a list to end.
const ANSWER: Duration = Duration::from_secs(30);
const CONNECT: Duration = Duration::from_secs(5);
/// How long the server is asked to keep a watch; less, up to a half by chance.
const WATCH: Duration = Duration::from_secs(290);
/// What a watch may be late with its end before the server is taken for lost.
const LATE: Duration = Duration::from_secs(10);
/// Finds a server that went away without a word in the midst of a watch.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// A slice has at most a thousand endpoints of some hundred bytes; a list,
/// some dozens of slices.
const LONGEST_LINE: usize = 4 << 20;
const LONGEST_LIST: usize = 64 << 20;

#[derive(Debug, Error)]
pub(super) enum Failure {
    #[error("the watch ended")]
    Ended,
    /// What happened since is not known any more.
    #[error("the place of the watch is gone")]
    Gone,
    #[error("the API server cannot be reached: {0}")]
    Unreachable(String),
    #[error("{0}")]
    Credentials(String),
    #[error("the API server refuses: {0}")]
    Refused(String),
}

pub(super) enum Event {
    /// New or changed.
    Put(EndpointSlice),
    Removed(Metadata),
    /// Nothing has changed up to here.
    Bookmark(String),
}

pub(super) struct Session {
    client: Client,
    token: Option<Secret>,
    url: String,
    selector: String,
}

/// Changes as they happen.
pub(super) struct Watch {
    response: Response,
    /// Of the line that has not ended.
    line: BytesMut,
    until: Instant,
}

#[derive(Deserialize)]
struct List {
    #[serde(default)]
    metadata: Metadata,
    items: Option<Vec<EndpointSlice>>,
}

#[derive(Deserialize)]
struct Line {
    #[serde(rename = "type")]
    kind: String,
    object: serde_json::Value,
}

/// What the server says of an error.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    code: u16,
    message: String,
}

// === impl Session ===

impl Session {
    pub(super) async fn open(config: &Config) -> Result<Self, Failure> {
        let config = config.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let token = config.token.as_ref().map(|read| read()).transpose().map_err(Failure::Credentials)?;
            let client = client(config.ca.as_deref())?;
            let url = format!("{}/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices", config.api, config.namespace);
            let selector = format!("kubernetes.io/service-name={}", config.service);
            Ok(Self { client, token, url, selector })
        });
        reading.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    }

    /// All slices, and the version at which they are that.
    pub(super) async fn list(&self) -> Result<(Slices, String), Failure> {
        let listing = async {
            let mut response = answer(self.request()).await?;
            let mut body = BytesMut::new();
            while let Some(data) = response.chunk().await.map_err(unreachable)? {
                take(&mut body, &data, LONGEST_LIST)?;
            }
            let list: List = serde_json::from_slice(&body).map_err(|error| senseless(&error))?;
            Ok((Slices::of(list.items.unwrap_or_default()), list.metadata.resource_version))
        };
        let late = |_| Err(Failure::Unreachable("it did not answer in time".to_owned()));
        tokio::time::timeout(ANSWER, listing).await.unwrap_or_else(late)
    }

    /// What changes from that version on.
    pub(super) async fn watch(&self, version: &str) -> Result<Watch, Failure> {
        let length = WATCH.mul_f64(1.0 - chance() / 2.0);
        let seconds = length.as_secs().to_string();
        let query = [
            ("watch", "true"),
            ("allowWatchBookmarks", "true"),
            ("resourceVersion", version),
            ("timeoutSeconds", &seconds),
        ];
        let until = Instant::now() + length + LATE;
        let answering = answer(self.request().query(&query));
        let late = |_| Err(Failure::Unreachable("it did not answer in time".to_owned()));
        let response = tokio::time::timeout(ANSWER, answering).await.unwrap_or_else(late)?;
        Ok(Watch { response, line: BytesMut::new(), until })
    }

    fn request(&self) -> RequestBuilder {
        let request = self.client.get(&self.url).query(&[("labelSelector", &self.selector)]);
        match &self.token {
            Some(token) => request.bearer_auth(token.expose()),
            None => request,
        }
    }
}

fn client(ca: Option<&Path>) -> Result<Client, Failure> {
    let roots = match ca {
        None => RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() },
        Some(file) => signers(file).map_err(|error| Failure::Credentials(format!("{}: {error}", file.display())))?,
    };
    let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider has the default versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Client::builder()
        .tls_backend_preconfigured(tls)
        // A token is for this server alone.
        .redirect(redirect::Policy::none())
        .no_proxy()
        .connect_timeout(CONNECT)
        .tcp_keepalive(KEEP_ALIVE)
        .build()
        .map_err(|error| Failure::Credentials(error.to_string()))
}

fn signers(file: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|error| error.to_string())? {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() { Err("it holds no certificate".to_owned()) } else { Ok(roots) }
}

/// The head of an answer, with the status of a success.
async fn answer(request: RequestBuilder) -> Result<Response, Failure> {
    let mut response = request.send().await.map_err(unreachable)?;
    let status = response.status();
    if status == StatusCode::OK {
        return Ok(response);
    }
    let mut body = BytesMut::new();
    while let Some(data) = response.chunk().await.map_err(unreachable)? {
        take(&mut body, &data, LONGEST_LINE)?;
    }
    let said: Status = serde_json::from_slice(&body).unwrap_or_default();
    Err(refused(status.as_u16(), &said.message))
}

fn refused(code: u16, message: &str) -> Failure {
    match code {
        410 => Failure::Gone,
        code => Failure::Refused(format!("{code} {message}").trim_end().to_owned()),
    }
}

fn unreachable(error: reqwest::Error) -> Failure {
    let error = error.without_url();
    let mut told = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        told = format!("{told}: {cause}");
        source = cause.source();
    }
    Failure::Unreachable(told)
}

fn senseless(error: &serde_json::Error) -> Failure {
    Failure::Refused(format!("its answer cannot be read: {error}"))
}

fn take(buffer: &mut BytesMut, data: &[u8], most: usize) -> Result<(), Failure> {
    if buffer.len() + data.len() > most {
        return Err(Failure::Refused(format!("its answer has more than {most} bytes")));
    }
    buffer.extend_from_slice(data);
    Ok(())
}

// === impl Watch ===

impl Watch {
    /// The next change; `None` when the watch has ended.
    pub(super) async fn next(&mut self) -> Result<Option<Event>, Failure> {
        loop {
            if let Some(end) = self.line.iter().position(|byte| *byte == b'\n') {
                let line = self.line.split_to(end + 1);
                if let Some(event) = event(&line)? {
                    return Ok(Some(event));
                }
                continue;
            }
            // Cut off in the midst, or left without a word: it is begun again
            // where it was, and that fails where the server is away.
            let data = match tokio::time::timeout_at(self.until, self.response.chunk()).await {
                Ok(Ok(Some(data))) => data,
                Ok(Ok(None) | Err(_)) | Err(_) => return Ok(None),
            };
            take(&mut self.line, &data, LONGEST_LINE)?;
        }
    }
}

/// `None` for what a later version may have to say.
fn event(line: &[u8]) -> Result<Option<Event>, Failure> {
    if line.trim_ascii().is_empty() {
        return Ok(None);
    }
    let Line { kind, object } = serde_json::from_slice(line).map_err(|error| senseless(&error))?;
    let slice = |object| serde_json::from_value::<EndpointSlice>(object).map_err(|error| senseless(&error));
    match kind.as_str() {
        "ADDED" | "MODIFIED" => Ok(Some(Event::Put(slice(object)?))),
        "DELETED" => Ok(Some(Event::Removed(slice(object)?.metadata))),
        "BOOKMARK" => Ok(Some(Event::Bookmark(slice(object)?.metadata.resource_version))),
        "ERROR" => {
            let said: Status = serde_json::from_value(object).unwrap_or_default();
            Err(refused(said.code, &said.message))
        }
        _ => Ok(None),
    }
}
