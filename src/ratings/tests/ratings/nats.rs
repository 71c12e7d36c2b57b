//! The NATS sink against a real server with JetStream, which is killed.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use async_nats::jetstream::{self, stream};
use futures_util::StreamExt as _;
use serde_json::Value;
use tempfile::TempDir;
use tenantry_ratings::{Config, NatsConfig, NatsLogin, SinkKind};
use tenantry_types::Secret;

use crate::support::{Running, folder, repository, running, tenant, until};

struct Server {
    process: Child,
    folder: TempDir,
    port: u16,
}

impl Server {
    async fn start() -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port").port();
        let folder = folder();
        let process = Self::spawn(folder.path(), port);
        let server = Self { process, folder, port };
        server.up().await;
        server
    }

    fn spawn(folder: &Path, port: u16) -> Child {
        let services = std::env::var_os("TENANTRY_TEST_DATA").map_or_else(|| repository(".tenantry"), PathBuf::from);
        Command::new("bash")
            .arg(repository("scripts/start-nats.sh"))
            .args([folder.as_os_str(), port.to_string().as_ref()])
            .env("DATA_DIR", services)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the script runs; `make test` installs the services")
    }

    async fn up(&self) {
        let port = self.port;
        until("the start of nats-server, which `make test` installs,", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        })
        .await;
    }

    /// As a crash would.
    fn kill(&mut self) {
        self.process.kill().expect("it ran");
        self.process.wait().expect("it ends");
    }

    async fn start_again(&mut self) {
        self.process = Self::spawn(self.folder.path(), self.port);
        self.up().await;
    }

    fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// The stream's messages, each with its subject and its `Nats-Msg-Id`.
    async fn messages(&self) -> Vec<(String, String, Value)> {
        let context = jetstream::new(async_nats::connect(self.url()).await.expect("connected"));
        let stream = context.get_stream("RATINGS").await.expect("the stream");
        let count = stream.cached_info().state.messages as usize;
        let consumer = stream.create_consumer(jetstream::consumer::pull::OrderedConfig::default());
        let messages = consumer.await.expect("a consumer").messages().await.expect("messages");
        let read = messages.take(count).map(|message| {
            let message = message.expect("a message");
            let id = message.headers.as_ref().and_then(|it| it.get("Nats-Msg-Id")).expect("an id").to_string();
            (message.subject.to_string(), id, serde_json::from_slice(&message.payload).expect("JSON"))
        });
        read.collect().await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have been killed already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

async fn room(spool: &Path, server: &Server, stream: Option<&str>) -> Running {
    let sink = NatsConfig {
        servers: Secret::new(server.url()),
        subject: "tenantry.events".to_owned(),
        stream: stream.map(str::to_owned),
        login: NatsLogin::None,
    };
    running(Config::new(spool).with_sink("nats", SinkKind::Nats(sink))).await
}

async fn rate(room: &Running, count: usize) -> Vec<String> {
    let mut recorded = Vec::new();
    for number in 0..count {
        let name = if number % 2 == 0 { "acme" } else { "glo.bex" };
        recorded.push(room.rate_new(&tenant(name), None).await.id);
    }
    recorded
}

#[tokio::test]
async fn events_reach_the_stream_once_and_in_order_though_the_server_is_killed() {
    let spool = folder();
    let mut server = Server::start().await;
    let room = room(spool.path(), &server, Some("RATINGS")).await;
    let mut recorded = rate(&room, 40).await;
    room.settled().await;
    for _ in 0..3 {
        server.kill();
        recorded.extend(rate(&room, 20).await);
        server.start_again().await;
        recorded.extend(rate(&room, 20).await);
        room.settled().await;
    }
    room.stop().await;
    let messages = server.messages().await;
    for (name, subject) in
        [("acme", "tenantry.events.acme.generation.rated"), ("glo.bex", "tenantry.events.glo%2Ebex.generation.rated")]
    {
        let of_tenant = messages.iter().filter(|(_, _, event)| event["tenant"] == name);
        let (mut ids, mut expected) = (Vec::new(), recorded.iter().skip(usize::from(name != "acme")).step_by(2));
        for (to, id, event) in of_tenant {
            assert_eq!((to.as_str(), event["id"].as_str()), (subject, Some(id.as_str())));
            ids.push(id);
            assert_eq!(Some(id), expected.next(), "in order, none twice");
        }
        assert_eq!(expected.next(), None);
    }
}

/// The position is lost, all is sent again, and the stream drops it.
#[tokio::test]
async fn the_stream_drops_what_it_has_seen() {
    let (first, second) = (folder(), folder());
    let server = Server::start().await;
    let room_of_first = room(first.path(), &server, Some("RATINGS")).await;
    let mut recorded = rate(&room_of_first, 10).await;
    room_of_first.settled().await;
    room_of_first.stop().await;
    for file in ["spool.sqlite", "spool.sqlite-wal"] {
        let file = |folder: &tempfile::TempDir| folder.path().join(file);
        if file(&first).exists() {
            std::fs::copy(file(&first), file(&second)).expect("copied");
        }
    }
    let forget = "DELETE FROM positions";
    let url = format!("sqlite:{}", second.path().join("spool.sqlite").display());
    let mut connection = <sqlx::SqliteConnection as sqlx::Connection>::connect(&url).await.expect("opened");
    sqlx::query(forget).execute(&mut connection).await.expect("forgotten");
    sqlx::Connection::close(connection).await.expect("closed");
    let room_of_second = room(second.path(), &server, Some("RATINGS")).await;
    room_of_second.settled().await;
    assert_eq!(room_of_second.ratings.metrics().sinks()[0].delivered(), 10);
    let mut ids: Vec<_> = server.messages().await.into_iter().map(|(_, id, _)| id).collect();
    // Tenants do not wait for each other.
    ids.sort();
    recorded.sort();
    assert_eq!(ids, recorded);
    room_of_second.stop().await;
}

/// Somebody else makes the stream, and late.
#[tokio::test]
async fn without_a_stream_events_wait_for_it() {
    let spool = folder();
    let server = Server::start().await;
    let room = room(spool.path(), &server, None).await;
    let recorded = rate(&room, 3).await;
    let sink = room.ratings.metrics().sinks()[0].clone();
    until("a retry", || sink.retried() > 0).await;
    assert_eq!(sink.delivered(), 0);
    let context = jetstream::new(async_nats::connect(server.url()).await.expect("connected"));
    let config = stream::Config {
        name: "RATINGS".to_owned(),
        subjects: vec!["tenantry.events.>".to_owned()],
        duplicate_window: Duration::from_secs(60),
        ..stream::Config::default()
    };
    context.create_stream(config).await.expect("made");
    room.settled().await;
    let ids: Vec<_> = server.messages().await.into_iter().map(|(_, id, _)| id).collect();
    assert_eq!(ids.len(), recorded.len());
    room.stop().await;
}
