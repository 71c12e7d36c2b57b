//! A small HTTP/1.1 client for streams: one connection a request, kept for the
//! next one when an answer was read to its end.
//!
//! A connection is polled by whoever waits for its answer, so there is no task
//! and no channel between the worker's bytes and the gateway, and dropping a
//! future or a response closes the socket, which is how a worker learns that
//! nobody wants its answer any more.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::types::{Secret, TraceContext};

/// Connections that are kept for later.
const IDLE: usize = 64;

/// One worker's address.
pub(super) struct Client {
    host: String,
    port: u16,
    tls: Option<TlsConnector>,
    /// Of every path: `/v1` of `https://api.example.com/v1`.
    base: String,
    host_header: HeaderValue,
    key: Option<HeaderValue>,
    connect_timeout: Duration,
    idle: Mutex<Vec<Connection>>,
}

struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// Does the connection's reading and writing while it is polled; `None`
    /// once it has ended.
    io: Option<Io>,
    made: Instant,
}

type Io = http1::Connection<TokioIo<Box<dyn Stream>>, Full<Bytes>>;

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// An answer whose body is still to be read. Dropping it closes its connection.
pub(super) struct Response {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    body: Incoming,
    connection: Connection,
    client: Arc<Client>,
}

#[derive(Debug, Error)]
#[error("`{url}` is not an address of a worker: {reason}")]
pub struct UrlError {
    pub url: String,
    pub reason: String,
}

#[derive(Debug, Error)]
pub(super) enum ClientError {
    #[error("it cannot be connected to: {0}")]
    Connect(io::Error),
    #[error("it did not answer the connection in time")]
    ConnectTimeout,
    #[error("it closed the connection: {0}")]
    Http(#[from] hyper::Error),
    #[error("its answer has more than {0} bytes")]
    TooLong(usize),
    #[error("the request cannot be written: {0}")]
    Request(#[from] http::Error),
}

// === impl Client ===

impl Client {
    pub(super) fn new(url: &str, key: Option<&Secret>, connect_timeout: Duration) -> Result<Arc<Self>, UrlError> {
        let wrong = |reason: &str| UrlError { url: url.to_owned(), reason: reason.to_owned() };
        let uri: Uri = url.parse().map_err(|_| wrong("it is no URL"))?;
        let host = uri.host().ok_or_else(|| wrong("it has no host"))?;
        let secure = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(wrong("it begins with neither http:// nor https://")),
        };
        let authority = uri.authority().ok_or_else(|| wrong("it has no host"))?;
        let bearer = |key: &Secret| {
            let mut value = HeaderValue::try_from(format!("Bearer {}", key.expose())).ok()?;
            value.set_sensitive(true);
            Some(value)
        };
        Ok(Arc::new(Self {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: uri.port_u16().unwrap_or(if secure { 443 } else { 80 }),
            tls: secure.then(tls),
            base: uri.path().trim_end_matches('/').to_owned(),
            host_header: HeaderValue::try_from(authority.as_str()).map_err(|_| wrong("its host is no host"))?,
            key: key.map(|key| bearer(key).ok_or_else(|| wrong("its key cannot be sent in a header"))).transpose()?,
            connect_timeout,
            idle: Mutex::default(),
        }))
    }

    pub(super) async fn get(self: &Arc<Self>, path: &str) -> Result<Response, ClientError> {
        self.send(Method::GET, path, Bytes::new(), None).await
    }

    pub(super) async fn post(self: &Arc<Self>, path: &str, json: Vec<u8>) -> Result<Response, ClientError> {
        self.send(Method::POST, path, json.into(), None).await
    }

    /// The same as a part of a trace.
    pub(super) async fn post_traced(
        self: &Arc<Self>,
        path: &str,
        json: Vec<u8>,
        trace: Option<&TraceContext>,
    ) -> Result<Response, ClientError> {
        self.send(Method::POST, path, json.into(), trace).await
    }

    /// Sends a request and waits for the answer's head.
    async fn send(
        self: &Arc<Self>,
        method: Method,
        path: &str,
        body: Bytes,
        trace: Option<&TraceContext>,
    ) -> Result<Response, ClientError> {
        if let Some(connection) = self.kept() {
            match self.exchange(connection, self.request(&method, path, &body, trace)?).await {
                Ok(response) => return Ok(response),
                // It may have been closed at any time; nothing of an answer has been seen. A new one can't be stale, so
                // that a request which kills its worker is not sent again and again.
                Err(error) if is_stale(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let connection = self.connect().await?;
        Ok(self.exchange(connection, self.request(&method, path, &body, trace)?).await?)
    }

    fn request(
        &self,
        method: &Method,
        path: &str,
        body: &Bytes,
        trace: Option<&TraceContext>,
    ) -> Result<Request<Full<Bytes>>, http::Error> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header(HOST, self.host_header.clone())
            .header(ACCEPT, HeaderValue::from_static("*/*"));
        if method == Method::POST {
            request = request.header(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if let Some(key) = &self.key {
            request = request.header(AUTHORIZATION, key.clone());
        }
        if let Some(trace) = trace {
            request = request.header("traceparent", trace.traceparent());
            if let Some(state) = &trace.state {
                request = request.header("tracestate", &**state);
            }
        }
        request.body(Full::new(body.clone()))
    }

    async fn exchange(
        self: &Arc<Self>,
        mut connection: Connection,
        request: Request<Full<Bytes>>,
    ) -> Result<Response, hyper::Error> {
        let answer = connection.sender.send_request(request);
        let answer = drive(&mut connection.io, answer).await?;
        let (head, body) = answer.into_parts();
        Ok(Response { status: head.status, headers: head.headers, body, connection, client: self.clone() })
    }

    async fn connect(&self) -> Result<Connection, ClientError> {
        let connecting = async {
            let made = Instant::now();
            let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(ClientError::Connect)?;
            stream.set_nodelay(true).map_err(ClientError::Connect)?;
            let stream: Box<dyn Stream> = match &self.tls {
                None => Box::new(stream),
                Some(tls) => {
                    let invalid = |_| ClientError::Connect(io::Error::other("its host cannot have a certificate"));
                    let name = ServerName::try_from(self.host.clone()).map_err(invalid)?;
                    Box::new(tls.connect(name, stream).await.map_err(ClientError::Connect)?)
                }
            };
            let (sender, io) = http1::handshake(TokioIo::new(stream)).await?;
            Ok(Connection { sender, io: Some(io), made })
        };
        tokio::time::timeout(self.connect_timeout, connecting).await.map_err(|_| ClientError::ConnectTimeout)?
    }

    /// A connection that was kept and that the worker has not closed.
    fn kept(&self) -> Option<Connection> {
        loop {
            let mut connection = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
            let ended = connection.io.as_mut().is_none_or(|io| io.now_or_never().is_some());
            if !ended && connection.sender.is_ready() {
                return Some(connection);
            }
        }
    }

    fn keep(&self, mut connection: Connection) {
        let ended = connection.io.as_mut().is_none_or(|io| io.now_or_never().is_some());
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if !ended && connection.sender.is_ready() && idle.len() < IDLE {
            idle.push(connection);
        }
    }
}

/// Waits for `work`, whose bytes `io` carries.
async fn drive<T>(io: &mut Option<Io>, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    poll_fn(|cx| {
        if let Some(connection) = io
            && Pin::new(connection).poll(cx).is_ready()
        {
            // Whatever ended it, the work learns it from its own end.
            *io = None;
        }
        match work.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(done),
            Poll::Pending => {
                // What the work has just asked for is to be written now.
                if let Some(connection) = io
                    && Pin::new(connection).poll(cx).is_ready()
                {
                    *io = None;
                    cx.waker().wake_by_ref();
                }
                Poll::Pending
            }
        }
    })
    .await
}

/// Whether a connection ended before the first byte of an answer.
fn is_stale(error: &hyper::Error) -> bool {
    let reset = || std::error::Error::source(error).is_some_and(|source| source.is::<io::Error>());
    error.is_closed() || error.is_canceled() || error.is_incomplete_message() || reset()
}

fn tls() -> TlsConnector {
    let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has the default versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config).into()
}

// === impl Response ===

impl Response {
    /// When its connection was made.
    pub(super) fn connected(&self) -> Instant {
        self.connection.made
    }

    /// The next bytes of the body; `None` after the last.
    pub(super) async fn data(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            match drive(&mut self.connection.io, self.body.frame()).await {
                None => return Ok(None),
                Some(Err(error)) => return Err(error.into()),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// The whole body, of at most `most` bytes.
    pub(super) async fn bytes(mut self, most: usize) -> Result<Bytes, ClientError> {
        let mut all = BytesMut::new();
        while let Some(data) = self.data().await? {
            if all.len() + data.len() > most {
                return Err(ClientError::TooLong(most));
            }
            all.extend_from_slice(&data);
        }
        self.done();
        Ok(all.freeze())
    }

    /// The body was read to its end: the connection may serve another request.
    pub(super) fn done(self) {
        self.client.keep(self.connection);
    }
}
