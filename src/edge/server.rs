//! Accepts connections and serves a router on them: HTTP/1.1, HTTP/2 and with
//! it gRPC, on one port.
//!
//! Which protocol a connection speaks is read from its first bytes without
//! taking them, so that an HTTP/1.1 connection does not carry the memory of an
//! HTTP/2 one, and the time a client may take for those bytes is bounded too.
//!
//! There is no TLS here, and no limit on the number of connections: the
//! process's limit of open files is that, and reaching it delays accepting.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::linger::Lingering;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The longest that a client may take for a request's head. An idle
    /// connection is closed after it too.
    pub header_read_timeout: Duration,
    /// The largest request head.
    pub max_header_bytes: usize,
    /// Requests that one HTTP/2 connection may have open.
    pub max_concurrent_streams: u32,
    /// HTTP/2: how often an idle client is asked whether it is still there,
    pub keep_alive_interval: Duration,
    /// and how long its answer may take.
    pub keep_alive_timeout: Duration,
}

/// What every connection of a listener shares.
struct Server {
    router: Router,
    http1: http1::Builder,
    http2: http2::Builder<Streams>,
    header_read_timeout: Duration,
    drain: CancellationToken,
    kill: CancellationToken,
}

/// Where hyper spawns the requests of an HTTP/2 connection, so that they are
/// waited for and ended like the connection itself.
#[derive(Clone)]
struct Streams {
    tasks: TaskTracker,
    kill: CancellationToken,
}

enum Protocol {
    Http1,
    Http2,
}

/// Serves `router` on every connection that `listener` accepts, until `drain`
/// is cancelled. Then it returns and closes the listener; connections finish
/// what they do, or end at once when `kill` is cancelled. Each is a task of `tasks`.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    config: &Config,
    drain: CancellationToken,
    kill: CancellationToken,
    tasks: &TaskTracker,
) {
    let streams = Streams { tasks: tasks.clone(), kill: kill.clone() };
    let server = Arc::new(Server {
        router,
        http1: config.http1(),
        http2: config.http2(streams),
        header_read_timeout: config.header_read_timeout,
        drain: drain.clone(),
        kill,
    });
    while let Some(accepted) = drain.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, _)) => {
                tasks.spawn(server.clone().connection(stream));
            }
            Err(error) if concerns_one_connection(&error) => debug!(%error, "a connection was lost before it began"),
            Err(error) => {
                // Out of files or memory: running requests will give some back.
                warn!(%error, "cannot accept connections");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Reads from the connection's first bytes what it speaks; they stay unread.
async fn protocol(stream: &TcpStream) -> io::Result<Protocol> {
    // No HTTP/1 method begins like HTTP/2's preface.
    const HTTP2: &[u8] = b"PRI ";
    let mut first = [0; HTTP2.len()];
    loop {
        let seen = stream.peek(&mut first).await?;
        if seen == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if first[..seen] != HTTP2[..seen] {
            return Ok(Protocol::Http1);
        }
        if seen == HTTP2.len() {
            return Ok(Protocol::Http2);
        }
        // Peeking is ready at once while unread bytes are there, so it cannot wait for more.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            header_read_timeout: Duration::from_secs(10),
            max_header_bytes: 64 << 10,
            max_concurrent_streams: 256,
            keep_alive_interval: Duration::from_secs(20),
            keep_alive_timeout: Duration::from_secs(20),
        }
    }
}

impl Config {
    fn http1(&self) -> http1::Builder {
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(self.header_read_timeout)
            .max_header_size(self.max_header_bytes);
        builder
    }

    fn http2(&self, streams: Streams) -> http2::Builder<Streams> {
        let mut builder = http2::Builder::new(streams);
        builder
            .timer(TokioTimer::new())
            .max_header_list_size(u32::try_from(self.max_header_bytes).unwrap_or(u32::MAX))
            .max_concurrent_streams(self.max_concurrent_streams)
            .keep_alive_interval(self.keep_alive_interval)
            .keep_alive_timeout(self.keep_alive_timeout);
        builder
    }
}

// === impl Server ===

impl Server {
    async fn connection(self: Arc<Self>, stream: TcpStream) {
        if let Err(error) = stream.set_nodelay(true) {
            // Each late first token would pay 40 ms for it, but it would still come.
            debug!(%error, "cannot set TCP_NODELAY");
        }
        let first_bytes = tokio::time::timeout(self.header_read_timeout, protocol(&stream));
        let protocol = match self.drain.run_until_cancelled(first_bytes).await {
            Some(Ok(Ok(protocol))) => protocol,
            Some(Ok(Err(error))) => return debug!(%error, "a connection ended before its first byte"),
            Some(Err(_)) => return debug!("a connection sent nothing"),
            None => return,
        };
        let io = TokioIo::new(Lingering::new(stream));
        let service = TowerToHyperService::new(self.router.clone());
        let ended = match protocol {
            Protocol::Http1 => self.run(self.http1.serve_connection(io, service)).await,
            Protocol::Http2 => Box::pin(self.run(self.http2.serve_connection(io, service))).await,
        };
        if let Err(error) = ended {
            debug!(%error, "a connection ended");
        }
    }

    async fn run<C: GracefulConnection>(&self, connection: C) -> Result<(), C::Error> {
        let mut connection = pin!(connection);
        tokio::select! {
            biased;
            () = self.kill.cancelled() => return Ok(()),
            ended = connection.as_mut() => return ended,
            () = self.drain.cancelled() => connection.as_mut().graceful_shutdown(),
        }
        tokio::select! {
            biased;
            () = self.kill.cancelled() => Ok(()),
            ended = connection => ended,
        }
    }
}

// === impl Streams ===

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, request: F) {
        let kill = self.kill.clone();
        self.tasks.spawn(async move {
            kill.run_until_cancelled(request).await;
        });
    }
}
