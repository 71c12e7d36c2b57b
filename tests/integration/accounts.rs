//! Tenants, keys and policies that operators make while gateways run, and what
//! is written down of it.

use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Server, Service, quickstart_like};

fn config(folder: &TempDir, more: &str) -> String {
    format!("{}{more}\n[catalogue]\ndata_dir = {:?}\n", quickstart_like(""), folder.path())
}

/// One of several gateways on a database, with a folder of its own.
fn sharing(folder: &TempDir, name: &str, database: &str) -> String {
    let file = folder.path().join("database-url");
    std::fs::write(&file, database).expect("written");
    format!(
        "{}[catalogue]\ndata_dir = {:?}\ndatabase = \"file:{}\"\npoll_interval = \"50ms\"\n",
        quickstart_like(""),
        folder.path().join(name),
        file.display()
    )
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs()
}

async fn ask(server: &Server, key: &str, model: &str) -> (u16, Value) {
    let body = json!({ "model": model, "prompt": "Once", "max_tokens": 1 });
    let request = server.client.post(server.url("/v1/completions")).bearer_auth(key).json(&body);
    let response = request.send().await.expect("an answer");
    (response.status().as_u16(), response.json().await.expect("JSON"))
}

async fn status(server: &Server, key: &str, model: &str) -> u16 {
    ask(server, key, model).await.0
}

async fn make_key(server: &Server, tenant: &str, body: Value) -> String {
    let (status, made) = server.admin("POST", &format!("tenants/{tenant}/keys"), Some(body)).await;
    assert_eq!(status, 201, "{made}");
    made["key"].as_str().expect("the key").to_owned()
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let since = Instant::now();
    while !is_so().await {
        assert!(since.elapsed() < Duration::from_secs(20), "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_and_its_key_are_made_used_disabled_and_deleted() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(&config(&folder, "")).await;
    let wanted = json!({ "id": "umbrella", "weight": 3, "models": { "base": { "base": "smollm2-135m" },
        "tuned": { "base": "smollm2-135m", "adapter": "later" } } });
    let (code, made) = server.admin("POST", "tenants", Some(wanted.clone())).await;
    assert_eq!((code, &made["origin"], &made["weight"]), (201, &json!("api"), &json!(3)), "{made}");
    assert_eq!(made["models"][0], json!({"name": "base", "base": "smollm2-135m", "adapter": null, "answers": true}));
    assert_eq!(made["models"][1]["answers"], false, "nothing is published yet");
    assert_eq!(server.admin("POST", "tenants", Some(wanted)).await.1["error"]["code"], "already_exists");

    let key = make_key(&server, "umbrella", json!({ "name": "main" })).await;
    assert!(key.len() >= "sk-tenantry-".len() + 32, "128 random bits at least");
    assert_eq!(status(&server, &key, "base").await, 200);
    assert_eq!(status(&server, &key, "tuned").await, 404);
    assert_eq!(status(&server, &key, "assistant").await, 404, "another tenant's");
    let (_, listed) = server.admin("GET", "tenants/umbrella/keys", None).await;
    assert!(!listed.to_string().contains(&key), "shown once");
    assert_eq!((&listed["keys"][0]["name"], &listed["keys"][0]["origin"]), (&json!("main"), &json!("api")));
    assert!(listed["keys"][0]["last_used"].as_u64().is_some_and(|used| now() - used < 60), "{listed}");
    // Nowhere on the disk either, but for its hash.
    for entry in std::fs::read_dir(folder.path()).expect("a folder") {
        let bytes = std::fs::read(entry.expect("an entry").path()).unwrap_or_default();
        assert!(!bytes.windows(key.len()).any(|window| window == key.as_bytes()));
    }

    let (code, changed) = server.admin("PATCH", "tenants/umbrella", Some(json!({ "disabled": true }))).await;
    assert_eq!((code, &changed["disabled"], &changed["weight"]), (200, &json!(true), &json!(3)), "{changed}");
    let (code, error) = ask(&server, &key, "base").await;
    assert_eq!((code, &error["error"]["code"]), (403, &json!("forbidden")), "{error}");
    assert_eq!(server.admin("PATCH", "tenants/umbrella", Some(json!({ "disabled": false }))).await.0, 200);
    assert_eq!(status(&server, &key, "base").await, 200);

    let usage = async || server.admin("GET", "usage?tenant=umbrella", None).await.1;
    until("its usage is written down", async || usage().await.to_string().contains("base")).await;

    assert_eq!(server.admin("DELETE", "tenants/umbrella", None).await.0, 204);
    assert_eq!(status(&server, &key, "base").await, 401);
    assert_eq!(server.admin("GET", "tenants/umbrella", None).await.0, 404);
    assert!(usage().await.to_string().contains("base"), "what it used is to be paid for all the same");
    // Another of the same id has none of the first one's keys, and nothing of what that used.
    assert_eq!(server.admin("POST", "tenants", Some(json!({ "id": "umbrella" }))).await.0, 201);
    assert_eq!(status(&server, &key, "base").await, 401);
    assert!(!usage().await.to_string().contains("base"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_rotated_with_an_overlap_expire_and_are_revoked_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(&config(&folder, "")).await;
    // A tenant of the configuration may be given keys.
    let first = make_key(&server, "acme", json!({ "name": "extra", "priority": "batch" })).await;
    assert_eq!(status(&server, &first, "assistant").await, 200);
    let rotate = async |overlap: u64| {
        let body = json!({ "overlap_seconds": overlap });
        let (code, made) = server.admin("POST", "tenants/acme/keys/extra/rotate", Some(body)).await;
        assert_eq!((code, &made["priority"]), (200, &json!("batch")), "{made}");
        made["key"].as_str().expect("the key").to_owned()
    };
    let second = rotate(3600).await;
    assert_eq!([status(&server, &first, "assistant").await, status(&server, &second, "assistant").await], [200, 200]);
    let (_, listed) = server.admin("GET", "tenants/acme/keys", None).await;
    let extra: Vec<&Value> =
        listed["keys"].as_array().expect("a list").iter().filter(|key| key["name"] == "extra").collect();
    assert_eq!([&extra[0]["replaced"], &extra[1]["replaced"]], [&json!(false), &json!(true)], "{listed}");
    assert!(extra[1]["expires"].as_u64().is_some_and(|expires| expires > now() + 3500), "{listed}");
    let third = rotate(1).await;
    assert_eq!(status(&server, &third, "assistant").await, 200);
    until("its time is over", async || status(&server, &second, "assistant").await == 401).await;
    let (_, error) = ask(&server, &second, "assistant").await;
    assert_eq!(error["error"]["message"], "The API key has expired.");
    assert_eq!(status(&server, &first, "assistant").await, 401, "no key of the name holds for longer");
    let (code, expiring) =
        server.admin("PATCH", "tenants/acme/keys/extra", Some(json!({ "expires": now() + 600 }))).await;
    assert_eq!(code, 200, "{expiring}");

    assert_eq!(server.admin("DELETE", "tenants/acme/keys/extra", None).await.0, 204);
    assert_eq!(status(&server, &third, "assistant").await, 401);
    assert_eq!(
        server
            .post("acme", "/v1/completions", &json!({"model": "assistant", "prompt": "x", "max_tokens": 1}))
            .await
            .status(),
        200
    );

    let short = make_key(&server, "acme", json!({ "name": "short", "expires": now() + 2 })).await;
    until("it expires", async || status(&server, &short, "assistant").await == 401).await;
    let (code, longer) = server.admin("PATCH", "tenants/acme/keys/short", Some(json!({ "expires": null }))).await;
    assert_eq!((code, &longer["expires"]), (200, &json!(null)), "{longer}");
    assert_eq!(status(&server, &short, "assistant").await, 200);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_refused_by_what_is_wrong_with_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let named = "[[tenants]]\nid = \"named\"\nkeys = [{ demo = \"sk-demo-named\", name = \"main\" }]\n";
    let server = Server::start(&config(&folder, named)).await;
    let long = "x".repeat(65);
    for (method, path, body, status, says) in [
        (
            "POST",
            "tenants",
            json!({ "id": "acme" }),
            409,
            "tenant `acme` is of the configuration's file: change it there",
        ),
        ("PATCH", "tenants/acme", json!({ "weight": 2 }), 409, "tenant `acme` is of the configuration's file"),
        ("DELETE", "tenants/acme", Value::Null, 409, "tenant `acme` is of the configuration's file"),
        ("POST", "tenants", json!({ "id": "No Such" }), 400, "the tenant's id has 1 to 64 characters out of a-z"),
        ("POST", "tenants", json!({ "id": ".." }), 400, "the tenant's id has 1 to 64 characters"),
        ("POST", "tenants/acme/keys", json!({ "name": "." }), 400, "neither `.` nor `..`"),
        ("PUT", "log", json!({ "filter": "inof" }), 400, "`inof` is not a level"),
        ("POST", "tenants", json!({ "id": long }), 400, "the tenant's id has 1 to 64 characters"),
        ("POST", "tenants", json!({ "id": "x", "weight": 0 }), 400, "`weight`: 0 is out of range: from 1 to 1000"),
        ("POST", "tenants", json!({ "id": "x", "color": 1 }), 400, "unknown field `color`, expected one of `id`"),
        ("POST", "tenants", json!(["x"]), 400, "it has to be an object"),
        ("POST", "tenants", json!({}), 400, "missing field `id`"),
        (
            "POST",
            "tenants",
            json!({ "id": "x", "models": { "m": { "base": "none" } } }),
            400,
            "`models.m.base`: there is no base model `none`",
        ),
        (
            "POST",
            "tenants",
            json!({ "id": "x", "priority": "urgent" }),
            400,
            "unknown variant `urgent`, expected `interactive` or `batch`",
        ),
        ("PATCH", "tenants/nobody", json!({}), 404, "there is no tenant `nobody`"),
        ("GET", "tenants/nobody/keys", Value::Null, 404, "There is no tenant `nobody`."),
        ("POST", "tenants/nobody/keys", json!({ "name": "x" }), 404, "there is no tenant `nobody`"),
        ("POST", "tenants/acme/keys", json!({ "name": "X" }), 400, "the key's name has 1 to 64 characters"),
        ("POST", "tenants/acme/keys", json!({ "name": "x", "expires": 1 }), 400, "`expires` is a time in the future"),
        ("POST", "tenants/named/keys", json!({ "name": "main" }), 409, "there is a key `main` of tenant named"),
        (
            "DELETE",
            "tenants/named/keys/main",
            Value::Null,
            409,
            "key `main` of tenant `named` is of the configuration's file",
        ),
        (
            "POST",
            "tenants/named/keys/main/rotate",
            json!({}),
            409,
            "key `main` of tenant `named` is of the configuration's file",
        ),
        ("DELETE", "tenants/acme/keys/none", Value::Null, 404, "there is no key `none` of tenant acme"),
        (
            "POST",
            "tenants/acme/keys/none/rotate",
            json!({ "overlap_seconds": 9_999_999 }),
            400,
            "`overlap_seconds` is at most 2592000.",
        ),
        ("PATCH", "tenants/acme/keys/none", json!({}), 400, "missing field `expires`"),
        (
            "PUT",
            "tenants/acme/policy",
            json!({ "policy": "none" }),
            400,
            "`policy`: the configuration has no policy `none`",
        ),
        ("GET", "policies/none", Value::Null, 404, "The configuration has no policy `none`."),
        ("PUT", "tenants", Value::Null, 405, "Not allowed to PUT on /admin/v1/tenants."),
    ] {
        let (got, told) = server.admin(method, path, (!body.is_null()).then_some(body)).await;
        let message = told["error"]["message"].as_str().unwrap_or_default();
        assert_eq!(got, status, "{method} {path}: {told}");
        assert!(message.contains(says), "{method} {path}: {message}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_gateway_is_told_all_on_an_sqlite_file_know() {
    let folder = tempfile::tempdir().expect("a folder");
    let database = format!("sqlite://{}?mode=rwc", folder.path().join("shared.db").display());
    Box::pin(all_are_told(&folder, &database)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_gateway_is_told_all_on_a_postgres_know() {
    let postgres = Service::start("start-postgres.sh");
    postgres.up().await;
    let folder = tempfile::tempdir().expect("a folder");
    let database = format!("postgres://postgres@127.0.0.1:{}/postgres", postgres.port);
    Box::pin(all_are_told(&folder, &database)).await;
}

async fn all_are_told(folder: &TempDir, database: &str) {
    let (one, other) = tokio::join!(async { Server::start(&sharing(folder, "one", database)).await }, async {
        Server::start(&sharing(folder, "other", database)).await
    });
    // A database that starts beside other work takes connections before it answers.
    for server in [&one, &other] {
        until("the database answers", async || server.ops("/metrics").await.1.contains("tenantry_catalogue_up 1"))
            .await;
    }
    let models = json!({ "base": { "base": "smollm2-135m" } });
    assert_eq!(one.admin("POST", "tenants", Some(json!({ "id": "umbrella", "models": models }))).await.0, 201);
    let key = make_key(&one, "umbrella", json!({ "name": "main" })).await;
    assert_eq!(status(&one, &key, "base").await, 200);
    until("the other knows it", async || status(&other, &key, "base").await == 200).await;
    // All that is written, by either.
    let (code, rotated) = other.admin("POST", "tenants/umbrella/keys/main/rotate", Some(json!({}))).await;
    assert_eq!(code, 200, "{rotated}");
    let second = rotated["key"].as_str().expect("the key").to_owned();
    until("the first knows it", async || status(&one, &second, "base").await == 200).await;
    assert_eq!(other.admin("PATCH", "tenants/umbrella/keys/main", Some(json!({ "expires": null }))).await.0, 200);
    assert_eq!(other.admin("PATCH", "tenants/umbrella", Some(json!({ "weight": 4 }))).await.1["weight"], 4);
    assert_eq!(
        one.admin("PUT", "tenants/umbrella/keys/main/limits", Some(json!({ "requests_per_minute": 99 }))).await.0,
        200
    );
    assert_eq!(one.admin("DELETE", "tenants/umbrella/models/base/policy", None).await.0, 200);
    one.gateway().flush_key_uses().await;
    let (_, listed) = other.admin("GET", "tenants/umbrella/keys", None).await;
    assert!(listed["keys"][0]["last_used"].is_u64(), "{listed}");
    assert_eq!(other.admin("DELETE", "tenants/umbrella/keys/main", None).await.0, 204);
    assert_eq!(status(&other, &key, "base").await, 401, "at once where it was asked");
    let since = Instant::now();
    until("the first knows it", async || status(&one, &key, "base").await == 401).await;
    assert!(since.elapsed() < Duration::from_secs(5), "soon elsewhere");
    // Two that make the same at one time.
    let wanted = || Some(json!({ "id": "twice" }));
    let (first, second) =
        tokio::join!(one.admin("POST", "tenants", wanted()), other.admin("POST", "tenants", wanted()));
    let mut codes = [first.0, second.0];
    codes.sort_unstable();
    assert_eq!(codes, [201, 409]);
    one.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_is_given_and_taken_while_requests_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let policies = "[guard.lists.house]\nblock = [\"bonus\"]\n[guard.policies.house]\nlists = [\"house\"]\n";
    let server = Server::start(&config(&folder, policies)).await;
    let ask = async || {
        let body = json!({ "model": "assistant", "prompt": "My bonus is", "max_tokens": 1 });
        server.post("acme", "/v1/completions", &body).await.status().as_u16()
    };
    assert_eq!(ask().await, 200);
    let (code, given) = server.admin("PUT", "tenants/acme/policy", Some(json!({ "policy": "house" }))).await;
    assert_eq!((code, &given["given"][0]), (200, &json!({"model": null, "policy": "house", "known": true})), "{given}");
    assert_eq!(ask().await, 400);
    assert_eq!(server.admin("DELETE", "tenants/acme/policy", None).await.1["given"], json!([]));
    assert_eq!(ask().await, 200);
    assert_eq!(
        server.admin("PUT", "tenants/acme/models/assistant/policy", Some(json!({ "policy": "house" }))).await.0,
        200
    );
    assert_eq!(ask().await, 400);
    let body = json!({ "model": "smollm2-135m", "prompt": "My bonus is", "max_tokens": 1 });
    assert_eq!(server.post("acme", "/v1/completions", &body).await.status(), 200, "of that model alone");
    let (_, all) = server.admin("GET", "policies", None).await;
    assert_eq!(
        (&all["policies"][0]["name"], &all["policies"][0]["prompt"]["has_lists"]),
        (&json!("house"), &json!(true))
    );
    assert!(!all.to_string().contains("bonus"));
    server.stop().await;
}

/// Every change is an event that says who, what, before and after, and holds no secret.
#[tokio::test(flavor = "multi_thread")]
async fn changes_are_written_to_the_events_log() {
    let folder = tempfile::tempdir().expect("a folder");
    let sink = folder.path().join("events");
    let ratings = format!(
        "[ratings]\nenabled = true\n[ratings.sinks.events]\nkind = \"file\"\nfolder = {sink:?}\n[reload]\nwatch = false\n"
    );
    let server = Server::start(&config(&folder, &ratings)).await;
    assert_eq!(server.admin("POST", "tenants", Some(json!({ "id": "umbrella" }))).await.0, 201);
    let key = make_key(&server, "umbrella", json!({ "name": "main" })).await;
    let (_, rotated) = server.admin("POST", "tenants/umbrella/keys/main/rotate", Some(json!({}))).await;
    let second = rotated["key"].as_str().expect("the key").to_owned();
    assert_eq!(server.admin("PUT", "tenants/umbrella/limits", Some(json!({ "requests_per_minute": 5 }))).await.0, 200);
    assert_eq!(server.admin("DELETE", "tenants/umbrella/limits", None).await.0, 200);
    assert_eq!(server.admin("POST", "workers/local/drain", None).await.0, 200);
    assert_eq!(server.admin("POST", "workers/local/drain", None).await.0, 200, "no change");
    assert_eq!(server.admin("POST", "workers/local/undrain", None).await.0, 200);
    assert_eq!(server.admin("POST", "config/reload", None).await.0, 200);
    assert_eq!(server.admin("DELETE", "tenants/umbrella/keys/main", None).await.0, 204);
    assert_eq!(server.admin("DELETE", "tenants/umbrella", None).await.0, 204);
    server.stop().await;

    let mut text = String::new();
    for entry in std::fs::read_dir(&sink).expect("the sink's folder") {
        text += &std::fs::read_to_string(entry.expect("an entry").path()).expect("lines");
    }
    assert!(!text.contains(&key) && !text.contains(&second), "no secret");
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let changes: Vec<&Value> = events.iter().filter(|event| event["type"] == "admin.changed").collect();
    let told: Vec<(&str, &str)> = changes
        .iter()
        .map(|it| (it["data"]["action"].as_str().expect("text"), it["subject"].as_str().expect("text")))
        .collect();
    assert_eq!(
        told,
        [
            ("tenant.created", "tenants/umbrella"),
            ("key.created", "tenants/umbrella/keys/main"),
            ("key.rotated", "tenants/umbrella/keys/main"),
            ("limits.set", "tenants/umbrella/limits"),
            ("limits.reset", "tenants/umbrella/limits"),
            ("worker.drained", "workers/local"),
            ("worker.undrained", "workers/local"),
            ("config.reloaded", "config"),
            ("key.revoked", "tenants/umbrella/keys/main"),
            ("tenant.deleted", "tenants/umbrella"),
        ]
    );
    assert!(changes.iter().all(|it| it["data"]["who"] == "loopback" && it["partitionkey"] == "OPERATORS"));
    assert_eq!((&changes[0]["tenant"], &changes[0]["data"]["before"]), (&json!("umbrella"), &Value::Null));
    assert_eq!(changes[3]["data"]["after"]["requests_per_minute"], 5);
    assert_eq!(changes[4]["data"]["before"]["requests_per_minute"], 5);
    assert_eq!((&changes[5]["tenant"], &changes[5]["data"]["after"]), (&Value::Null, &json!({ "drained": true })));
    assert_eq!(changes[9]["data"]["after"], Value::Null);
}

/// The command as operators use it.
#[tokio::test(flavor = "multi_thread")]
async fn all_of_it_from_the_command_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let policies = "[guard.policies.house]\nprompt = { action = \"flag\" }\n[reload]\nwatch = false\n";
    let server = Server::start(&config(&folder, policies)).await;
    let url = format!("http://{}", server.addresses().ops);
    let run = async |arguments: &str| {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_tenantry"));
        let output = command.args(arguments.split(' ')).args(["--server", &url]).output().await.expect("it runs");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8").trim_end().to_owned();
        match output.status.success() {
            true => Ok(text(output.stdout)),
            false => Err(text(output.stderr)),
        }
    };
    let said = async |arguments: &str| run(arguments).await.unwrap_or_else(|error| panic!("{arguments}: {error}"));

    let made = said("tenants create umbrella --weight 2 --model base=smollm2-135m").await;
    assert_eq!(made, "umbrella  api  weight 2  interactive  keys 0  models base=smollm2-135m");
    let key = said("keys create umbrella main --expires-in 1h").await;
    assert!(key.starts_with("sk-tenantry-") && !key.contains('\n'), "the key alone: {key}");
    assert_eq!(status(&server, &key, "base").await, 200);
    let second = said("keys rotate umbrella main --overlap 0").await;
    assert_eq!([status(&server, &key, "base").await, status(&server, &second, "base").await], [401, 200]);
    let listed = said("keys list umbrella").await;
    assert!(listed.lines().count() == 2 && listed.contains("expired") && listed.contains("replaced"), "{listed}");
    said("keys expire umbrella main --never").await;
    let card: Value = serde_json::from_str(&said("tenants show umbrella --json").await).expect("JSON");
    assert_eq!((&card["weight"], &card["keys"]), (&json!(2), &json!(2)));
    assert!(said("tenants disable umbrella").await.contains("  disabled  "));
    assert_eq!(status(&server, &second, "base").await, 403);
    said("tenants enable umbrella").await;
    said("tenants set umbrella --model other=smollm2-135m").await;
    assert_eq!([status(&server, &second, "base").await, status(&server, &second, "other").await], [404, 200]);
    assert_eq!(said("policies list").await, "house  prompt flag  output block");
    assert_eq!(said("policies give umbrella house --model other").await, "umbrella  other  house");
    assert_eq!(said("policies take umbrella --model other").await, "umbrella  as the configuration says");
    assert_eq!(said("keys revoke umbrella main").await, "done");
    assert_eq!(status(&server, &second, "other").await, 401);
    assert_eq!(said("tenants delete umbrella").await, "done");
    assert_eq!(said("reload").await, "the configuration was read again");
    assert!(said("reload --status").await.ends_with(|c: char| c.is_ascii_digit()));
    server.rewrite("tenants = [");
    let refused = run("reload").await.expect_err("it is broken");
    assert!(refused.contains("(configuration_refused, 422)"), "{refused}");
    let why = run("reload --status").await.expect_err("the last one was refused");
    assert_eq!(why, "tenantry: the last reload was refused, and changed nothing");
    // In this process the log is the test's own.
    assert!(run("log-level set debug --for 1m").await.expect_err("refused").contains("(no_log, 409)"));
    assert_eq!(said("log-level show").await, "info");
    let refused = run("tenants delete acme").await.expect_err("refused");
    assert_eq!(refused, "tenantry: tenant `acme` is of the configuration's file: change it there (configured, 409)");
    server.stop().await;
}
