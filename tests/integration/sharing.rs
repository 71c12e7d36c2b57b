//! Three gateways that share their tenants' limits through a real Redis, which
//! is killed and comes back.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Server, Service, repository, timed};

const MINUTE: Duration = Duration::from_secs(60);

/// A tenant, its limit, and the requests that it allows in a minute.
const TENANTS: [(&str, &str, u32); 3] = [
    ("minutes", "requests_per_minute = 600", 600),
    ("seconds", "requests_per_second = 10", 600),
    // Each answer has four.
    ("tokens", "output_tokens_per_minute = 1600", 400),
];

/// A model of a few kilobytes, with a tokenizer of as many words.
pub(crate) fn tiny(folder: &Path) -> PathBuf {
    let tiny = folder.join("tiny");
    std::fs::create_dir(&tiny).expect("made");
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(repository("tests/fixtures/tiny/llama3").join(file), tiny.join(file)).expect("copied");
    }
    let config: Value = serde_json::from_slice(&std::fs::read(tiny.join("config.json")).expect("read")).expect("JSON");
    let words = config["vocab_size"].as_u64().expect("a number");
    let words: serde_json::Map<_, _> = (0..words).map(|word| (format!("w{word}"), json!(word))).collect();
    let level = json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true });
    let tokenizer = json!({
        "version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": level, "post_processor": null,
        "decoder": level, "model": { "type": "BPE", "vocab": words, "merges": [] }
    });
    std::fs::write(tiny.join("tokenizer.json"), tokenizer.to_string()).expect("written");
    tiny
}

fn config(redis: &Path, tiny: &Path) -> String {
    let mut text = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n[ops]\nlisten = \"127.0.0.1:0\"\n[shutdown]\ndrain_timeout = \"5s\"\n\
         [redis]\nurl = \"file:{}\"\ngateways = 3\n[bases.tiny]\npath = {tiny:?}\n\
         [workers.local]\ndriver = \"embedded\"\nbases = [\"tiny\"]\nthreads = 1\ncontext = 256\n",
        redis.display()
    );
    for (tenant, limit, _) in TENANTS {
        text += &format!(
            "[[tenants]]\nid = \"{tenant}\"\nkeys = [{{ demo = \"sk-demo-{tenant}\" }}]\nlimits = {{ {limit} }}\n\
             [tenants.models]\ntiny = {{ base = \"tiny\" }}\n"
        );
    }
    text
}

/// How many were answered with what, by tenant.
type Answers = Arc<Mutex<BTreeMap<(&'static str, u16), u32>>>;

/// Each gateway has the whole of each limit asked of it, and so all have three
/// times as much.
async fn offered(servers: &[Arc<Server>], time: Duration) -> BTreeMap<(&'static str, u16), u32> {
    let answers = Answers::default();
    let mut loads = Vec::new();
    for server in servers {
        for (tenant, _, a_minute) in TENANTS {
            let (server, answers) = (server.clone(), answers.clone());
            loads.push(tokio::spawn(async move {
                let mut ticks = tokio::time::interval(MINUTE / a_minute);
                let end = Instant::now() + time;
                let mut asked = Vec::new();
                while Instant::now() < end {
                    ticks.tick().await;
                    let (server, answers) = (server.clone(), answers.clone());
                    asked.push(tokio::spawn(async move {
                        let body = json!({
                            "model": "tiny", "prompt": [1, 2, 3], "max_tokens": 4, "ignore_eos": true, "temperature": 0
                        });
                        let answer = server.post(tenant, "/v1/completions", &body).await;
                        *answers.lock().expect("no panic").entry((tenant, answer.status().as_u16())).or_default() += 1;
                    }));
                }
                for request in asked {
                    request.await.expect("an answer");
                }
            }));
        }
    }
    for load in loads {
        load.await.expect("no panic");
    }
    let answers = answers.lock().expect("no panic");
    answers.clone()
}

/// Within 2 % of the limits; `more` may come beside what a minute has.
fn hold(answers: &BTreeMap<(&'static str, u16), u32>, more: impl Fn(&str) -> u32) {
    let others: Vec<_> = answers.keys().filter(|(_, status)| ![200, 429].contains(status)).collect();
    assert!(others.is_empty(), "{answers:?}");
    for (tenant, limit, a_minute) in TENANTS {
        let admitted = answers.get(&(tenant, 200)).copied().unwrap_or(0);
        let (least, most) = (a_minute - a_minute / 50, a_minute + a_minute / 50 + more(tenant));
        assert!((least..=most).contains(&admitted), "{tenant}, {limit}: {least} to {most}, got {answers:?}");
    }
}

async fn until_shared(servers: &[Arc<Server>], shared: bool) {
    let line = format!("tenantry_limits_shared{{store=\"redis\"}} {}", u8::from(shared));
    let since = Instant::now();
    for server in servers {
        while !server.ops("/metrics").await.1.lines().any(|it| it == line) {
            assert!(since.elapsed() < Duration::from_secs(20), "no {line}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_gateways_admit_what_the_limits_allow_and_go_on_without_redis() {
    let _timed = timed().await;
    let mut redis = Service::start("start-redis.sh");
    redis.up().await;
    let folder = tempfile::tempdir().expect("a folder");
    let url = folder.path().join("url");
    std::fs::write(&url, format!("redis://127.0.0.1:{}/0\n", redis.port)).expect("written");
    let tiny = tiny(folder.path());
    let mut servers = Vec::new();
    for _ in 0..3 {
        servers.push(Arc::new(Server::start(&config(&url, &tiny)).await));
    }
    until_shared(&servers, true).await;
    for server in &servers {
        let since = Instant::now();
        while !server.ops("/metrics").await.1.contains("\ntenantry_gateways 3\n") {
            assert!(since.elapsed() < Duration::from_secs(10), "each knows of the others");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    // A second's worth may be used at once.
    hold(&offered(&servers, MINUTE).await, |tenant| if tenant == "seconds" { 10 } else { 0 });

    redis.kill();
    until_shared(&servers, false).await;
    hold(&offered(&servers, MINUTE).await, |_| 6);

    redis.start_again();
    until_shared(&servers, true).await;
    hold(&offered(&servers, MINUTE).await, |_| 6);

    for server in servers {
        Arc::into_inner(server).expect("nobody else has it").stop().await;
    }
}

/// A gateway that cannot reach Redis serves, and says so.
#[tokio::test(flavor = "multi_thread")]
async fn without_redis_from_the_start_a_gateway_keeps_to_its_share() {
    let folder = tempfile::tempdir().expect("a folder");
    let url = folder.path().join("url");
    std::fs::write(&url, "redis://127.0.0.1:1/0\n").expect("written");
    let config = config(&url, &tiny(folder.path())).replace("requests_per_minute = 600", "requests_per_minute = 9");
    Server::with_config(&config, |server| async move {
        until_shared(std::slice::from_ref(&server), false).await;
        let body = json!({ "model": "tiny", "prompt": [1, 2, 3], "max_tokens": 1 });
        for status in [200, 200, 200, 429] {
            let answer = server.post("minutes", "/v1/completions", &body).await;
            assert_eq!(answer.status(), status);
            assert_eq!(answer.headers()["x-ratelimit-limit-requests"], "9");
        }
    })
    .await;
}
