//! Publishing adapters to a running gateway: live at once, never another
//! tenant's, and nothing that is wrong gets in.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

use crate::support::{Server, quickstart_like, repository};

const QUESTION: &str = "What do rabbits eat?";

fn artifact(name: &str) -> PathBuf {
    repository("config/quickstart/adapters").join(name)
}

fn admin(server: &Server, path: &str) -> String {
    format!("http://{}/admin/v1/adapters{path}", server.addresses().ops)
}

/// A publish of what lies in `folder`.
async fn publish(server: &Server, tenant: &str, name: &str, folder: &Path) -> (u16, Value) {
    publish_with(server, tenant, name, folder, &[]).await
}

async fn publish_with(server: &Server, tenant: &str, name: &str, folder: &Path, more: &[(&str, &str)]) -> (u16, Value) {
    let mut form = Form::new().text("tenant", tenant.to_owned()).text("name", name.to_owned());
    if !more.iter().any(|(field, _)| *field == "base") {
        form = form.text("base", "smollm2-135m");
    }
    for (field, value) in more {
        form = form.text((*field).to_owned(), (*value).to_owned());
    }
    for file in ["adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"] {
        if let Ok(bytes) = fs::read(folder.join(file)) {
            form = form.part(file, Part::bytes(bytes).file_name("anything/at/all"));
        }
    }
    sent(server.client.post(admin(server, "")).multipart(form)).await
}

async fn sent(request: reqwest::RequestBuilder) -> (u16, Value) {
    let response = request.send().await.expect("an answer");
    let status = response.status().as_u16();
    (status, response.json().await.unwrap_or(Value::Null))
}

async fn change(server: &Server, path: &str, revision: Value) -> (u16, Value) {
    sent(server.client.post(admin(server, path)).json(&json!({ "revision": revision }))).await
}

async fn asked(server: &Server, tenant: &str, model: &str) -> Result<String, u16> {
    let body = json!({
        "model": model, "temperature": 0, "max_tokens": 12, "messages": [{ "role": "user", "content": QUESTION }],
    });
    let response = server.post(tenant, "/v1/chat/completions", &body).await;
    if response.status() != 200 {
        return Err(response.status().as_u16());
    }
    let answer: Value = response.json().await.expect("JSON");
    Ok(answer["choices"][0]["message"]["content"].as_str().expect("text").to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_published_adapter_answers_at_once_and_to_its_tenant_alone() {
    Server::with(|server| async move {
        assert_eq!(asked(&server, "acme", "support").await, Err(404));
        let since = Instant::now();
        let (status, told) = publish(&server, "acme", "support", &artifact("json")).await;
        assert_eq!(status, 201, "{told}");
        assert_eq!(
            (&told["revision"], &told["serving"], &told["state"]),
            (&json!(1), &json!(true), &json!("published"))
        );
        let first = asked(&server, "acme", "support").await.expect("an answer");
        assert!(since.elapsed() < Duration::from_secs(2), "from publish to answer: {:?}", since.elapsed());
        assert!(first.starts_with("{\"question\""), "{first}");
        assert_eq!(asked(&server, "globex", "support").await, Err(404), "another tenant's");

        let models: Value = server.get("acme", "/v1/models").await.json().await.expect("JSON");
        let listed = |models: &Value| models["data"].as_array().expect("a list").iter().any(|it| it["id"] == "support");
        assert!(listed(&models), "{models}");
        let models: Value = server.get("globex", "/v1/models").await.json().await.expect("JSON");
        assert!(!listed(&models), "{models}");

        let (_, told) = sent(server.client.get(admin(&server, "/acme/support/1"))).await;
        assert_eq!((&told["state"], &told["resident_on"]), (&json!("resident"), &json!(["local"])));
        let (status, again) = publish(&server, "acme", "support", &artifact("json")).await;
        assert_eq!((status, &again["revision"]), (200, &json!(1)), "the same artifact is the same revision");
        let (_, metrics) = server.ops("/metrics").await;
        assert!(metrics.contains("tenantry_adapter_publishes_total{outcome=\"ok\"} 2"), "{metrics}");
        assert!(metrics.contains("tenantry_adapters{state=\"published\"} 1"), "{metrics}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn revisions_are_pinned_rolled_back_retired_and_deleted() {
    Server::with(|server| async move {
        publish(&server, "acme", "support", &artifact("json")).await;
        let (status, told) = publish(&server, "acme", "support", &artifact("pirate")).await;
        assert_eq!((status, &told["revision"]), (201, &json!(2)));
        let starts = async |model: &str, with: &str| {
            let text = asked(&server, "acme", model).await.expect("an answer");
            assert!(text.starts_with(with), "{model}: {text}");
        };
        starts("support", "Ar").await;
        starts("support@1", "{").await;
        assert_eq!(change(&server, "/acme/support/serving", json!("previous")).await.0, 200);
        starts("support", "{").await;
        assert_eq!(
            change(&server, "/acme/support/serving", json!("previous")).await.1["error"]["code"],
            "nothing_before"
        );
        assert_eq!(change(&server, "/acme/support/serving", json!("latest")).await.1["revision"], 2);
        starts("support", "Ar").await;
        assert_eq!(change(&server, "/acme/support/serving", json!(1)).await.1["pinned"], true);
        starts("support", "{").await;
        assert_eq!(change(&server, "/acme/support/serving", json!(7)).await.0, 404);

        // What runs on a retired revision finishes, and then it is unloaded everywhere.
        let body = json!({ "model": "support@1", "prompt": "Once", "max_tokens": 60, "ignore_eos": true });
        let (running, retired) = tokio::join!(server.post("acme", "/v1/completions", &body), async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            sent(server.client.post(admin(&server, "/acme/support/1/retire"))).await
        });
        assert_eq!((running.status().as_u16(), retired.0), (200, 200));
        assert_eq!(asked(&server, "acme", "support@1").await, Err(404));
        starts("support", "Ar").await;
        let since = Instant::now();
        while sent(server.client.get(admin(&server, "/acme/support/1"))).await.1["state"] != "retired" {
            assert!(since.elapsed() < Duration::from_secs(5), "it is unloaded");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let delete = async |path: &str| sent(server.client.delete(admin(&server, path))).await;
        assert_eq!(delete("/acme/support/2").await.1["error"]["code"], "adapter_not_retired");
        assert_eq!(delete("/acme/support/1").await.0, 204);
        assert_eq!(delete("/acme/support/1").await.0, 404);
        let (_, told) = publish(&server, "acme", "support", &artifact("json")).await;
        assert_eq!(told["revision"], 3, "a number is never given twice");
    })
    .await;
}

/// An artifact with one thing wrong.
fn spoilt(change: impl FnOnce(&Path)) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        fs::copy(artifact("pirate").join(file), folder.path().join(file)).expect("copied");
    }
    change(folder.path());
    folder
}

fn edit_config(folder: &Path, from: &str, to: &str) {
    let path = folder.join("adapter_config.json");
    let text = fs::read_to_string(&path).expect("read");
    assert!(text.contains(from), "{text}");
    fs::write(path, text.replace(from, to)).expect("written");
}

fn edit_weights(folder: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let path = folder.join("adapter_model.safetensors");
    let mut bytes = fs::read(&path).expect("read");
    change(&mut bytes);
    fs::write(path, bytes).expect("written");
}

/// Replaces in the head, where lengths stay the same.
fn edit_head(folder: &Path, from: &str, to: &str) {
    assert_eq!(from.len(), to.len());
    edit_weights(folder, |bytes| {
        let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).expect("in the head");
        bytes[at..at + from.len()].copy_from_slice(to.as_bytes());
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn every_wrong_artifact_is_refused_with_its_reason_and_traffic_goes_on() {
    Server::with(|server| async move {
        let before = asked(&server, "acme", "assistant").await.expect("an answer");
        let refused = async |folder: &Path, code: &str, says: &str| {
            let (status, told) = publish(&server, "acme", "support", folder).await;
            assert_eq!((status, told["error"]["code"].as_str()), (422, Some(code)), "{told}");
            let message = told["error"]["message"].as_str().expect("a message");
            assert!(message.contains(says), "{message}");
            assert!(!message.contains("/tmp") && !message.contains("staging"), "no place of the server: {message}");
        };
        let invalid = async |change: &dyn Fn(&Path), says: &str| {
            let folder = spoilt(change);
            refused(folder.path(), "adapter_invalid", says).await;
        };
        let remove = |file: &'static str| move |folder: &Path| fs::remove_file(folder.join(file)).expect("removed");
        invalid(&remove("adapter_config.json"), "adapter_config.json is missing").await;
        invalid(&remove("adapter_model.safetensors"), "adapter_model.safetensors is missing").await;
        invalid(&|it| edit_weights(it, |bytes| bytes.truncate(bytes.len() - 7)), "adapter_model.safetensors: ").await;
        invalid(&|it| edit_weights(it, |bytes| bytes[0] ^= 0xff), "adapter_model.safetensors: ").await;
        invalid(&|it| edit_head(it, "[8,576]", "[8,577]"), "do not hold F16 numbers of shape [8, 577]").await;
        invalid(&|it| edit_head(it, "[8,576]", "[9,512]"), "has shape [9, 512], the base needs [8, 576]").await;
        invalid(&|it| edit_config(it, "\"r\": 8", "\"r\": 4"), "has rank 8, adapter_config.json says r = 4").await;
        invalid(&|it| edit_config(it, "\"r\": 8", "\"r\": 65"), "`r` is 65, at most 64 is allowed").await;
        invalid(&|it| edit_config(it, "\"q_proj\"", "\"x_proj\""), "target module").await;
        let nan = |bytes: &mut Vec<u8>| {
            let at = bytes.len() - 4;
            bytes[at..].copy_from_slice(&f32::NAN.to_le_bytes());
        };
        invalid(&|it| edit_weights(it, nan), "is NaN").await;
        let other = "meta-llama/Llama-3.2-1B";
        invalid(&|it| edit_config(it, "HuggingFaceTB/SmolLM2-135M-Instruct", other), "was trained on").await;
        let pickle = spoilt(|it| {
            fs::rename(it.join("adapter_model.safetensors"), it.join("adapter_model.bin")).expect("renamed");
        });
        refused(pickle.path(), "adapter_invalid", "is a pickle").await;

        let wrong = "0".repeat(64);
        let (status, told) = publish_with(&server, "acme", "support", &artifact("pirate"), &[("digest", &wrong)]).await;
        assert_eq!((status, told["error"]["code"].as_str()), (422, Some("digest_mismatch")), "{told}");
        let traversal = archive("../adapter_config.json");
        let form = Form::new().text("tenant", "acme").text("name", "support").text("base", "smollm2-135m");
        let form = form.part("archive", Part::bytes(traversal).file_name("a.tar"));
        let (status, told) = sent(server.client.post(admin(&server, "")).multipart(form)).await;
        assert_eq!((status, told["error"]["code"].as_str()), (422, Some("unsafe_archive")), "{told}");
        let said = "the archive is not safe to read: `../adapter_config.json` leads out of its folder";
        assert_eq!(told["error"]["message"], said);

        let (_, list) = sent(server.client.get(admin(&server, "?tenant=acme&name=support"))).await;
        assert_eq!(list["adapters"], json!([]));
        let refusals = list["refused"].as_array().expect("a list");
        assert!(refusals.len() >= 13, "{list}");
        assert_eq!((&refusals[0]["state"], &refusals[0]["reason"]), (&json!("refused"), &json!(said)));
        assert_eq!(asked(&server, "acme", "support").await, Err(404), "nothing of it is visible");
        assert_eq!(asked(&server, "acme", "assistant").await.expect("an answer"), before);
    })
    .await;
}

/// A tar with one file, whose name nothing has looked at.
fn archive(name: &str) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_size(2);
    header.as_gnu_mut().expect("GNU").name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_cksum();
    let mut builder = tar::Builder::new(Vec::new());
    builder.append(&header, &b"{}"[..]).expect("in memory");
    builder.into_inner().expect("in memory")
}

#[tokio::test(flavor = "multi_thread")]
async fn names_tenants_bases_and_browsers_are_looked_at() {
    Server::with(|server| async move {
        let code = async |tenant: &str, name: &str, more: &[(&str, &str)]| {
            let (status, told) = publish_with(&server, tenant, name, &artifact("pirate"), more).await;
            (status, told["error"]["code"].as_str().unwrap_or_default().to_owned())
        };
        let is = |status: u16, code: &str| (status, code.to_owned());
        assert_eq!(code("nobody", "support", &[]).await, is(404, "unknown_tenant"));
        assert_eq!(code("acme", "../x", &[]).await, is(400, "invalid_name"));
        assert_eq!(code("acme", "", &[]).await, is(400, "invalid_name"));
        assert_eq!(code("acme", "pirate", &[]).await, is(409, "name_taken"), "the configuration's adapter");
        assert_eq!(code("acme", "assistant", &[]).await, is(409, "name_taken"), "the configuration's model");
        assert_eq!(code("acme", "support", &[("base", "gpt")]).await, is(400, "unknown_base"));
        assert_eq!(code("acme", "support", &[("more", "x")]).await, is(400, "invalid_request"));
        for uri in ["http://example.com/x", "file:///etc", "s3://other/x", "store:../../etc", "/etc"] {
            let body = json!({ "tenant": "acme", "name": "support", "base": "smollm2-135m", "uri": uri });
            let (status, told) = sent(server.client.post(admin(&server, "")).json(&body)).await;
            assert_eq!((status, told["error"]["code"].as_str()), (400, Some("invalid_uri")), "{uri}: {told}");
        }
        let body = json!({ "tenant": "acme", "name": "support", "base": "smollm2-135m", "uri": "store:nothing" });
        let (status, told) = sent(server.client.post(admin(&server, "")).json(&body)).await;
        assert_eq!((status, told["error"]["code"].as_str()), (404, Some("artifact_not_found")), "{told}");

        let request = server.client.get(admin(&server, "")).header("origin", "http://evil.example");
        assert_eq!(sent(request).await.0, 403);
        let public = server.client.get(server.url("/admin/v1/adapters")).bearer_auth("sk-demo-acme");
        assert_eq!(sent(public).await.0, 404, "tenants have no admin API");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_api_asks_for_its_key() {
    let hash = tenantry::auth::KeyHash::of(b"admin-key");
    let config = quickstart_like(&format!("[ops.admin_key]\nsha256 = \"{hash}\"\n"));
    Server::with_config(&config, |server| async move {
        let list = || server.client.get(admin(&server, ""));
        assert_eq!(sent(list()).await.0, 401);
        assert_eq!(sent(list().bearer_auth("sk-demo-acme")).await.0, 401);
        assert_eq!(sent(list().bearer_auth("admin-key")).await.0, 200);
    })
    .await;
}

/// Two gateways on one database and one store.
#[tokio::test(flavor = "multi_thread")]
async fn gateways_on_one_catalogue_see_each_others_publishes() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = format!("{}\n[catalogue]\ndata_dir = {:?}\n", quickstart_like(""), folder.path());
    let (one, other) = (Server::start(&config).await, Server::start(&config).await);
    let (status, told) = publish(&one, "acme", "support", &artifact("json")).await;
    assert_eq!(status, 201, "{told}");
    let since = Instant::now();
    let text = loop {
        match asked(&other, "acme", "support").await {
            Ok(text) => break text,
            Err(status) => assert_eq!((status, since.elapsed() < Duration::from_secs(2)), (404, true)),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(text.starts_with("{\"question\""), "{text}");
    sent(other.client.post(admin(&other, "/acme/support/1/retire"))).await;
    let since = Instant::now();
    while asked(&one, "acme", "support").await.is_ok() {
        assert!(since.elapsed() < Duration::from_secs(2), "retired everywhere");
    }
    one.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_database_nothing_is_published_and_all_else_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let config = format!("{}\n[catalogue]\ndata_dir = {data:?}\npoll_interval = \"50ms\"\n", quickstart_like(""));
    let server = Server::start(&config).await;
    assert_eq!(publish(&server, "acme", "support", &artifact("json")).await.0, 201);
    let before = asked(&server, "acme", "support").await.expect("an answer");
    server.stop().await;

    // A database that no process can open.
    for file in ["catalogue.db", "catalogue.db-wal", "catalogue.db-shm"] {
        let _ = fs::remove_file(data.join(file));
    }
    fs::create_dir(data.join("catalogue.db")).expect("in the way");
    let server = Server::start(&config).await;
    assert_eq!(asked(&server, "acme", "support").await.expect("from what was seen last"), before);
    let (status, told) = publish(&server, "acme", "more", &artifact("pirate")).await;
    assert_eq!((status, told["error"]["code"].as_str()), (503, Some("catalogue_unavailable")), "{told}");
    let (_, metrics) = server.ops("/metrics").await;
    assert!(metrics.contains("tenantry_catalogue_up 0"), "{metrics}");
    assert_eq!(server.ops("/readyz").await.0, 200);
    server.stop().await;
}

/// A server of this test's own, started by one of our scripts.
struct Service {
    script: &'static str,
    process: std::process::Child,
    folder: tempfile::TempDir,
    port: u16,
}

impl Service {
    fn start(script: &'static str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port").port();
        // Another user may own what is in it.
        let data = folder.path().join("data");
        fs::create_dir(&data).expect("made");
        let open = std::process::Command::new("chmod").arg("755").arg(folder.path()).status();
        assert!(open.expect("chmod runs").success());
        let process = Self::spawn(script, &data, port);
        Self { script, process, folder, port }
    }

    fn spawn(script: &str, data: &Path, port: u16) -> std::process::Child {
        let services = std::env::var_os("TENANTRY_TEST_DATA").unwrap_or_else(|| repository(".tenantry").into());
        std::process::Command::new("bash")
            .arg(repository("scripts").join(script))
            .arg(data)
            .arg(port.to_string())
            .env("DATA_DIR", services)
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("the script runs; `make test` installs the services")
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Waits until somebody listens.
    async fn up(&self) {
        let since = Instant::now();
        while tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
            assert!(since.elapsed() < Duration::from_secs(30), "{} comes up; `make test` installs it", self.script);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn stop(&mut self) {
        let ended = std::process::Command::new("kill").args(["-INT", &self.process.id().to_string()]).status();
        assert!(ended.expect("kill runs").success());
        self.process.wait().expect("it ends");
    }

    fn start_again(&mut self) {
        self.process = Self::spawn(self.script, &self.data(), self.port);
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if self.process.try_wait().is_ok_and(|ended| ended.is_none()) {
            self.stop();
        }
    }
}

/// Gateways on machines of their own share artifacts through S3.
#[tokio::test(flavor = "multi_thread")]
async fn artifacts_in_s3_reach_every_gateway() {
    let s3 = Service::start("start-s3.sh");
    fs::create_dir(s3.data().join("adapters")).expect("a bucket");
    s3.up().await;
    let folder = tempfile::tempdir().expect("a folder");
    let secret = |name: &str, text: String| {
        let path = folder.path().join(name);
        fs::write(&path, text).expect("written");
        format!("file:{}", path.display())
    };
    let database = secret("url", format!("sqlite://{}?mode=rwc", folder.path().join("shared.db").display()));
    let (access, good) = (secret("access", "tenantry".to_owned()), secret("secret", "tenantry-secret".to_owned()));
    let config = |name: &str, key: &str| {
        format!(
            "{}\n[catalogue]\ndata_dir = {:?}\ndatabase = \"{database}\"\npoll_interval = \"100ms\"\n\
             [catalogue.s3]\nbucket = \"adapters\"\nprefix = \"prod\"\nendpoint = \"http://127.0.0.1:{}\"\n\
             access_key = \"{access}\"\nsecret_key = \"{key}\"\n",
            quickstart_like(""),
            folder.path().join(name),
            s3.port
        )
    };
    let (one, other) = (Server::start(&config("one", &good)).await, Server::start(&config("other", &good)).await);
    let (status, told) = publish(&one, "acme", "support", &artifact("json")).await;
    assert_eq!(status, 201, "{told}");
    let stored = format!("prod/adapters/acme/{}/adapter_config.json", told["digest"].as_str().expect("a digest"));
    assert!(s3.data().join("adapters").join(&stored).exists(), "{stored}");
    let since = Instant::now();
    let text = loop {
        if let Ok(text) = asked(&other, "acme", "support").await {
            break text;
        }
        assert!(since.elapsed() < Duration::from_secs(2), "it answers everywhere within 2 seconds");
    };
    assert!(text.starts_with("{\"question\""), "{text}");

    // What is in the store already is published by its place.
    let uri = format!("s3://adapters/{}", stored.trim_end_matches("/adapter_config.json"));
    let body = json!({ "tenant": "globex", "name": "mine", "base": "smollm2-135m", "uri": uri });
    let (status, told) = sent(other.client.post(admin(&other, "")).json(&body)).await;
    assert_eq!(status, 201, "{told}");
    assert!(asked(&other, "globex", "mine").await.expect("an answer").starts_with("{\"question\""));
    one.stop().await;
    other.stop().await;

    let wrong = secret("wrong", "another-secret".to_owned());
    let stranger = Server::start(&config("stranger", &wrong)).await;
    let (status, told) = publish(&stranger, "acme", "more", &artifact("pirate")).await;
    assert_eq!((status, told["error"]["code"].as_str()), (503, Some("artifact_store_unavailable")), "{told}");
    assert!(!told.to_string().contains("another-secret"), "{told}");
    stranger.stop().await;
}

/// Two gateways on one Postgres, and what they do without it.
#[tokio::test(flavor = "multi_thread")]
async fn two_gateways_on_one_postgres() {
    let mut postgres = Service::start("start-postgres.sh");
    postgres.up().await;
    let folder = tempfile::tempdir().expect("a folder");
    let url = folder.path().join("url");
    fs::write(&url, format!("postgres://postgres@127.0.0.1:{}/postgres\n", postgres.port)).expect("written");
    // One store, as several gateways need one; a folder serves where they are on one machine.
    let config = |_: &str| {
        format!(
            "{}\n[catalogue]\ndata_dir = {:?}\ndatabase = \"file:{}\"\npoll_interval = \"100ms\"\n",
            quickstart_like(""),
            folder.path().join("data"),
            url.display()
        )
    };
    let (one, other) = (Server::start(&config("one")).await, Server::start(&config("other")).await);
    let up = async |server: &Server, up: bool| {
        let (since, line) = (Instant::now(), format!("tenantry_catalogue_up {}", u8::from(up)));
        while !server.ops("/metrics").await.1.contains(&line) {
            assert!(since.elapsed() < Duration::from_secs(20), "the catalogue's database is seen to be {up}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    up(&one, true).await;
    up(&other, true).await;
    // Both publish the same name at once: no revision is lost or given twice.
    let (pirate, json) = (artifact("pirate"), artifact("json"));
    let (first, second) =
        tokio::join!(publish(&one, "acme", "support", &pirate), publish(&other, "acme", "support", &json));
    assert_eq!((first.0, second.0), (201, 201), "{first:?} {second:?}");
    let mut revisions = [first.1["revision"].as_u64(), second.1["revision"].as_u64()];
    revisions.sort_unstable();
    assert_eq!(revisions, [Some(1), Some(2)]);
    let since = Instant::now();
    for server in [&one, &other] {
        for model in ["support@1", "support@2"] {
            while asked(server, "acme", model).await.is_err() {
                assert!(since.elapsed() < Duration::from_secs(2), "seen by both within 2 seconds");
            }
        }
        assert_eq!(asked(server, "globex", "support").await, Err(404));
    }
    let before = asked(&one, "acme", "support").await.expect("an answer");
    postgres.stop();
    up(&one, false).await;
    assert_eq!(asked(&one, "acme", "support").await.expect("without the database"), before);
    let (status, told) = publish(&one, "acme", "more", &pirate).await;
    assert_eq!((status, told["error"]["code"].as_str()), (503, Some("catalogue_unavailable")), "{told}");
    postgres.start_again();
    up(&one, true).await;
    assert_eq!(publish(&one, "acme", "more", &pirate).await.0, 201, "it can be published again");
    one.stop().await;
    other.stop().await;
}
