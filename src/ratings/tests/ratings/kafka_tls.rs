//! Kafka over TLS, against OpenSSL's own server: whose certificates count, and
//! what the gateway shows of itself. It speaks no Kafka, so nothing is delivered.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tenantry_ratings::{Config, KafkaConfig, KafkaLogin, KafkaTls, SaslMechanism, SinkKind};
use tenantry_types::Secret;

use crate::support::{folder, running, tenant};

struct Authority(TempDir);

/// A listening `openssl s_server`, which asks for a certificate.
struct Server {
    process: Child,
    // It ends when this is closed.
    _input: ChildStdin,
    lines: Receiver<String>,
    port: u16,
}

fn openssl(folder: &Path, arguments: &[&str]) {
    let output = Command::new("openssl").args(arguments).current_dir(folder).output().expect("openssl runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

impl Authority {
    fn new() -> Self {
        let folder = folder();
        let new = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"];
        openssl(
            folder.path(),
            &[&new[..], &["-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=authority"]].concat(),
        );
        Self(folder)
    }

    /// A certificate of this name, and its key.
    fn issue(&self, name: &str) -> (PathBuf, PathBuf) {
        let (key, request, certificate) = (format!("{name}.key"), format!("{name}.csr"), format!("{name}.pem"));
        let (subject, file) = (format!("/CN={name}"), format!("{name}.cnf"));
        std::fs::write(self.0.path().join(&file), "subjectAltName=DNS:localhost,IP:127.0.0.1\n").expect("written");
        let new = ["req", "-newkey", "rsa:2048", "-nodes", "-subj", &subject, "-keyout", &key, "-out", &request];
        openssl(self.0.path(), &new);
        let sign = ["x509", "-req", "-in", &request, "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"];
        let rest = ["-days", "2", "-extfile", &file, "-out", &certificate];
        openssl(self.0.path(), &[&sign[..], &rest].concat());
        (self.0.path().join(certificate), self.0.path().join(key))
    }

    fn certificate(&self) -> Secret {
        read(&self.0.path().join("ca.pem"))
    }
}

fn read(path: &Path) -> Secret {
    Secret::new(std::fs::read_to_string(path).expect("readable"))
}

impl Server {
    fn start(authority: &Authority) -> Self {
        let (certificate, key) = authority.issue("localhost");
        let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").port();
        let mut process = Command::new("openssl")
            .args(["s_server", "-accept", &format!("127.0.0.1:{port}"), "-Verify", "1", "-verify_return_error"])
            .arg("-cert")
            .arg(certificate)
            .arg("-key")
            .arg(key)
            .arg("-CAfile")
            .arg(authority.0.path().join("ca.pem"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("openssl runs");
        let (sender, lines) = channel();
        follow(process.stdout.take().expect("piped"), sender.clone());
        follow(process.stderr.take().expect("piped"), sender);
        let input = process.stdin.take().expect("piped");
        let server = Self { process, _input: input, lines, port };
        server.says("ACCEPT");
        server
    }

    /// Waits for one of its lines, and returns all up to it.
    fn says(&self, words: &str) -> Vec<String> {
        let end = Instant::now() + Duration::from_secs(60);
        let mut said = Vec::new();
        while let Ok(line) = self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            said.push(line);
            if said.last().is_some_and(|line| line.contains(words)) {
                return said;
            }
        }
        panic!("no {words:?} in {said:#?}");
    }

    fn brokers(&self) -> String {
        format!("localhost:{}", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn follow(output: impl std::io::Read + Send + 'static, to: Sender<String>) {
    std::thread::spawn(move || {
        let lines = BufReader::new(output).split(b'\n').map_while(Result::ok);
        for line in lines {
            if to.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                return;
            }
        }
    });
}

fn config(brokers: String, ca: Secret, identity: Option<(Secret, Secret)>) -> KafkaConfig {
    let options = [("reconnect.backoff.max.ms", "100"), ("broker.address.family", "v4")];
    let options = options.map(|(name, value)| (name.to_owned(), Secret::new(value)));
    let tls = Some(KafkaTls { ca: Some(ca), identity });
    KafkaConfig { brokers, topic: "ratings".to_owned(), tls, login: None, options: BTreeMap::from(options) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn brokers_are_known_by_their_authority_and_know_the_gateway_by_its_certificate() {
    let (ours, spool) = (Authority::new(), folder());
    let server = Server::start(&ours);
    let (certificate, key) = ours.issue("gateway");
    let config = config(server.brokers(), ours.certificate(), Some((read(&certificate), read(&key))));
    let config =
        Config { flush_for: Duration::ZERO, ..Config::new(spool.path()) }.with_sink("kafka", SinkKind::Kafka(config));
    let room = running(config).await;
    room.rate_new(&tenant("acme"), None).await;
    let said = tokio::task::spawn_blocking(move || (server.says("CIPHER is"), server)).await.expect("it ends").0;
    let subject = |line: &String| line.starts_with("subject") && line.contains("gateway");
    assert!(said.iter().any(subject), "{said:#?}");
    room.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn brokers_of_another_authority_are_told_nothing() {
    let (theirs, ours, spool) = (Authority::new(), Authority::new(), folder());
    let server = Server::start(&theirs);
    let mut config = config(server.brokers(), ours.certificate(), None);
    let (username, password) = (Secret::new("tenantry"), Secret::new("a password"));
    config.login = Some(KafkaLogin { mechanism: SaslMechanism::ScramSha512, username, password });
    let config =
        Config { flush_for: Duration::ZERO, ..Config::new(spool.path()) }.with_sink("kafka", SinkKind::Kafka(config));
    let room = running(config).await;
    room.rate_new(&tenant("acme"), None).await;
    let said = tokio::task::spawn_blocking(move || (server.says("unknown ca"), server)).await.expect("it ends").0;
    assert!(!said.iter().any(|line| line.contains("CIPHER is")), "{said:#?}");
    room.stop().await;
}
