//! What only a connection can show: shutdown, deadlines, clients that leave.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{CHAT, CHAT_STREAM, Harness, Step, delta, finished, hello, usage};
use crate::edge::http::Config;
use crate::edge::server::{self, serve};
use crate::gateway::Held;
use crate::types::FinishReason;

/// Long enough for loopback, short enough to wait for.
const SOON: Duration = Duration::from_secs(5);

struct Served {
    harness: Harness,
    address: SocketAddr,
    drain: CancellationToken,
    kill: CancellationToken,
    tasks: TaskTracker,
}

impl Served {
    async fn new(harness: Harness) -> Self {
        let config = server::Config { header_read_timeout: Duration::from_millis(300), ..server::Config::default() };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (drain, kill, tasks) = (CancellationToken::new(), CancellationToken::new(), TaskTracker::new());
        let router = harness.router.clone();
        tasks.spawn({
            let (drain, kill, tasks) = (drain.clone(), kill.clone(), tasks.clone());
            async move { serve(listener, router, &config, drain, kill, &tasks).await }
        });
        Self { harness, address, drain, kill, tasks }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("the listener accepts")
    }

    async fn post(&self, body: &str) -> TcpStream {
        let mut stream = self.connect().await;
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer sk-acme\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all((head + body).as_bytes()).await.expect("the request is taken");
        stream
    }

    async fn assert_nothing_held_soon(&self) {
        let given_back = async {
            while self.harness.gateway.held() != Held::default() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(SOON, given_back).await.expect("everything is given back");
    }

    async fn assert_ends_soon(&self) {
        self.tasks.close();
        tokio::time::timeout(SOON, self.tasks.wait()).await.expect("every task ends");
        assert_eq!(self.harness.gateway.held(), Held::default());
    }
}

async fn read_until(stream: &mut TcpStream, mark: &str) -> String {
    let mut seen = String::new();
    let read = async {
        while !seen.contains(mark) {
            let mut buffer = [0; 4096];
            let count = stream.read(&mut buffer).await.expect("readable");
            assert!(count > 0, "closed before {mark}: {seen}");
            seen.push_str(std::str::from_utf8(&buffer[..count]).expect("text"));
        }
    };
    tokio::time::timeout(SOON, read).await.unwrap_or_else(|_| panic!("no {mark} in time"));
    seen
}

async fn rest(stream: &mut TcpStream) -> String {
    let mut rest = Vec::new();
    // A reset is an end as well, for the tests that provoke one.
    let _ = tokio::time::timeout(SOON, stream.read_to_end(&mut rest)).await.expect("the connection ends");
    String::from_utf8(rest).expect("text")
}

fn client() -> reqwest::ClientBuilder {
    // TLS needs one provider for the process, used or not.
    let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
}

fn h2() -> reqwest::Client {
    client().http2_prior_knowledge().build().expect("a client")
}

fn gated() -> (Harness, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let script = vec![delta("Hel"), Step::Gate(gate.clone()), delta("lo"), finished(FinishReason::Stop), usage()];
    (Harness::new(script), gate)
}

#[tokio::test]
async fn both_protocols_are_served_on_one_port() {
    let served = Served::new(Harness::new(hello())).await;
    let url = format!("http://{}/v1/chat/completions", served.address);
    for client in [client().build().expect("a client"), h2()] {
        let response = client.post(&url).bearer_auth("sk-acme").body(CHAT).send().await.expect("a response");
        assert_eq!(response.status(), 200);
        assert!(response.text().await.expect("a body").contains("Hello world"));
    }
    served.drain.cancel();
    served.assert_ends_soon().await;
}

#[tokio::test]
async fn a_client_that_leaves_stops_the_worker_over_either_protocol() {
    let (harness, _gate) = gated();
    let served = Served::new(harness).await;
    let mut stream = served.post(CHAT_STREAM).await;
    read_until(&mut stream, "Hel").await;
    assert_eq!(served.harness.gateway.held().sequences, 1);
    drop(stream);
    served.assert_nothing_held_soon().await;

    let url = format!("http://{}/v1/chat/completions", served.address);
    let client = h2();
    let mut response = client.post(&url).bearer_auth("sk-acme").body(CHAT_STREAM).send().await.expect("a response");
    response.chunk().await.expect("a chunk");
    assert_eq!(served.harness.gateway.held().sequences, 1);
    drop(response);
    served.assert_nothing_held_soon().await;
}

#[tokio::test]
async fn draining_lets_a_stream_finish_and_takes_no_new_connection() {
    let (harness, gate) = gated();
    let served = Served::new(harness).await;
    let mut stream = served.post(CHAT_STREAM).await;
    read_until(&mut stream, "Hel").await;
    let mut idle = served.connect().await;
    served.drain.cancel();
    assert_eq!(rest(&mut idle).await, "", "an idle connection is closed");
    let refused = async {
        while TcpStream::connect(served.address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, refused).await.expect("the port is closed");
    gate.add_permits(1);
    let rest = rest(&mut stream).await;
    assert!(rest.contains("[DONE]"), "{rest}");
    drop(stream);
    served.assert_ends_soon().await;
}

#[tokio::test]
async fn killing_ends_streams_at_once_over_either_protocol() {
    for http2 in [false, true] {
        let (harness, _gate) = gated();
        let served = Served::new(harness).await;
        let (mut plain, mut multiplexed) = (None, None);
        if http2 {
            let url = format!("http://{}/v1/chat/completions", served.address);
            let mut response =
                h2().post(&url).bearer_auth("sk-acme").body(CHAT_STREAM).send().await.expect("a response");
            response.chunk().await.expect("a chunk");
            multiplexed = Some(response);
        } else {
            let mut stream = served.post(CHAT_STREAM).await;
            read_until(&mut stream, "Hel").await;
            plain = Some(stream);
        }
        served.drain.cancel();
        served.kill.cancel();
        served.assert_ends_soon().await;
        drop((plain, multiplexed));
    }
}

#[tokio::test]
async fn a_client_that_dawdles_over_its_head_is_left() {
    let served = Served::new(Harness::new(hello())).await;
    for sent in ["", "PR", "POST /v1/chat", "GET / HTTP/1.1\r\nhost: x\r\n"] {
        let mut stream = served.connect().await;
        stream.write_all(sent.as_bytes()).await.expect("the bytes are taken");
        assert_eq!(rest(&mut stream).await, "", "{sent}");
    }
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let served = Served::new(Harness::new(hello())).await;
    let mut stream = served.connect().await;
    let head = format!("GET / HTTP/1.1\r\nx-long: {}\r\n\r\n", "x".repeat(80 << 10));
    stream.write_all(head.as_bytes()).await.expect("the bytes are taken");
    assert!(rest(&mut stream).await.starts_with("HTTP/1.1 431 "));
}

#[tokio::test]
async fn an_early_answer_reaches_a_client_that_is_still_writing() {
    let served = Served::new(Harness::with(hello(), Config { max_body_bytes: 1000, ..Config::default() })).await;
    let mut stream = served.connect().await;
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer sk-acme\r\n";
    stream.write_all(format!("{head}content-length: 8000000\r\n\r\n").as_bytes()).await.expect("written");
    // The whole body goes out before the answer is read, as simple clients do it.
    for _ in 0..8 {
        stream.write_all(&vec![b' '; 1_000_000]).await.expect("the server goes on reading");
    }
    assert!(read_until(&mut stream, "\r\n\r\n").await.starts_with("HTTP/1.1 413 "));
}

#[tokio::test]
async fn a_stranger_is_answered_before_a_body_is_sent() {
    let served = Served::new(Harness::new(hello())).await;
    let mut stream = served.connect().await;
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\nexpect: 100-continue\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("written");
    assert!(read_until(&mut stream, "\r\n\r\n").await.starts_with("HTTP/1.1 401 "));
}
