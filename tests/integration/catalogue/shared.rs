//! Several gateways on one catalogue, and gateways without their database.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tenantry::adapters::Probe;
use tenantry::types::BaseName;

use super::wrong::{digest, edit_config, spoilt};
use super::{admin, artifact, asked, change, publish, sent};
use crate::support::{Server, Service, quickstart_like};

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

/// Pins, refusals, retiring and deleting, of `support` with its revisions 1 and 2.
async fn changes_are_seen_by_both(one: &Server, other: &Server) {
    let is = async |server: &Server, revision: u64, member: &str, wanted: Value| {
        let (since, path) = (Instant::now(), format!("/acme/support/{revision}"));
        loop {
            let (_, told) = sent(server.client.get(admin(server, &path))).await;
            if told[member] == wanted {
                return;
            }
            assert!(since.elapsed() < Duration::from_secs(5), "{member} of {revision} is {wanted}: {told}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let (status, told) = change(one, "/acme/support/serving", json!(1)).await;
    assert_eq!((status, &told["pinned"]), (200, &json!(true)), "{told}");
    is(other, 1, "serving", json!(true)).await;
    let (status, told) = change(other, "/acme/support/serving", json!("previous")).await;
    assert_eq!((status, told["error"]["code"].as_str()), (409, Some("nothing_before")), "{told}");
    assert_eq!(change(other, "/acme/support/serving", json!("latest")).await.1["revision"], 2);
    is(one, 2, "serving", json!(true)).await;
    assert_eq!(change(one, "/acme/support/serving", json!("previous")).await.1["revision"], 1);
    is(other, 1, "pinned", json!(true)).await;

    let folder = spoilt(|it| edit_config(it, "\"r\": 8", "\"r\": 65"));
    assert_eq!(publish(one, "acme", "support", folder.path()).await.0, 422);
    let (_, list) = sent(other.client.get(admin(other, "?tenant=acme&name=support"))).await;
    assert_eq!(list["refused"][0]["reason"], "adapter_config.json: `r` is 65, at most 64 is allowed", "{list}");

    // Retired at one gateway while the other pins to it: the name answers all the same.
    let retire = |server: &Server| sent(server.client.post(admin(server, "/acme/support/1/retire")));
    let (retired, pinned) = tokio::join!(retire(one), change(other, "/acme/support/serving", json!(1)));
    assert_eq!(retired.0, 200, "{retired:?}");
    assert!(matches!(pinned.0, 200 | 409), "{pinned:?}");
    for server in [one, other] {
        is(server, 1, "state", json!("retired")).await;
        is(server, 2, "serving", json!(true)).await;
        assert_eq!(asked(server, "acme", "support@1").await, Err(404));
    }
    let (status, told) = change(other, "/acme/support/serving", json!(1)).await;
    assert_eq!((status, told["error"]["code"].as_str()), (409, Some("adapter_retired")), "{told}");
    let delete = async |server: &Server, path: &str| sent(server.client.delete(admin(server, path))).await;
    assert_eq!(delete(other, "/acme/support/2").await.1["error"]["code"], "adapter_not_retired");
    assert_eq!(delete(other, "/acme/support/1").await.0, 204);
    is(
        one,
        1,
        "error",
        json!({
            "message": "the tenant has no published adapter `support@1`",
            "type": "invalid_request_error",
            "code": "adapter_not_found",
        }),
    )
    .await;
    assert_eq!(delete(one, "/acme/support/1").await.0, 404);
}

/// The first probe that is written stays, and all compare with it.
async fn probes_are_seen_by_both(one: &Server, other: &Server) {
    let base = BaseName::new("smollm2-135m");
    let probe = |answer: &str| Some(Probe { prompt: "Hi".to_owned(), answer: answer.to_owned(), tokens: 4 });
    // One that nobody asks for here: what is asked for has its probe recorded.
    let told = digest(&artifact("rhyme"));
    one.catalogue().record_probe(&base, &told, probe("first")).await;
    other.catalogue().record_probe(&base, &told, probe("second")).await;
    let since = Instant::now();
    for server in [one, other] {
        while server.catalogue().probe(&base, &told).flatten().as_deref() != probe("first").as_ref() {
            assert!(since.elapsed() < Duration::from_secs(2), "seen by both");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// What one gateway served counts for the budget at the other, and limits that
/// are set at one hold at the other.
async fn usage_and_limits_are_shared(one: &Server, other: &Server) {
    let limits = |server: &Server| format!("http://{}/admin/v1/tenants/globex/limits", server.addresses().ops);
    asked(one, "globex", "assistant").await.expect("no limit yet");
    let (status, told) = sent(other.client.put(limits(other)).json(&json!({ "tokens_per_month": 20 }))).await;
    assert_eq!((status, &told["limits"][0]["set"]), (200, &json!(true)), "{told}");
    for server in [one, other] {
        let since = Instant::now();
        while asked(server, "globex", "assistant").await != Err(429) {
            assert!(since.elapsed() < Duration::from_secs(10), "what was used before counts everywhere");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    let used = async |server: &Server| {
        let answer: Value = server.get("globex", "/v1/usage").await.json().await.expect("JSON");
        answer["total"].clone()
    };
    // What a gateway has not written yet the other does not see: it does so at once.
    let since = Instant::now();
    while used(one).await != used(other).await {
        assert!(since.elapsed() < Duration::from_secs(5), "both tell the same");
    }
    assert!(used(one).await["output_tokens"].as_u64() >= Some(12));
    let (status, _) = sent(one.client.delete(limits(one))).await;
    assert_eq!(status, 200);
    asked(one, "globex", "assistant").await.expect("no limit any more");
    let since = Instant::now();
    while asked(other, "globex", "assistant").await.is_err() {
        assert!(since.elapsed() < Duration::from_secs(2), "seen by both");
    }
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
    probes_are_seen_by_both(&one, &other).await;
    changes_are_seen_by_both(&one, &other).await;
    usage_and_limits_are_shared(&one, &other).await;
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
