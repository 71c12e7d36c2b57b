use std::path::Path;

use proptest::prelude::*;

use super::{GOOD, read, variables};
use crate::config::{AdapterEntry, BaseConfig, Config, Inspect, load, parse};

/// The problems of `GOOD` with one piece of its text replaced.
fn problems(piece: &str, by: &str) -> String {
    let text = GOOD.replacen(piece, by, 1);
    assert_ne!(text, GOOD, "{piece} is not in the good file");
    strip(&read(&text).expect_err(by).to_string())
}

/// The problems of `GOOD` with `before` put in front.
fn prefixed(before: &str) -> String {
    strip(&read(&format!("{before}{GOOD}")).expect_err(before).to_string())
}

/// Without file and line, which other tests look at.
fn strip(problems: &str) -> String {
    let without = |line: &str| line.split_once(": ").map(|(_, rest)| rest.to_owned()).expect("a place");
    problems.lines().map(without).collect::<Vec<_>>().join("\n")
}

#[test]
fn every_problem_is_reported_at_once_with_its_line_and_path() {
    let text = r#"
[server]
listen = "localhost:8080"
lisen = 1
hold = 10
[server.cors]
allow_origins = ["https://a.example/", "*"]
[ops]
listen = "127.0.0.1:99999"
[log]
format = "xml"
filter = "a=b=c"
[gateway]
attempts = 0
[bases.one]
path = 3
[bases."Two 2"]
[workers.local]
driver = "cuda"
bases = ["one", "three"]
kv_bytes = "1 GB"
[[tenants]]
id = "acme"
limits = { concurrent_generations = 0, tokens = 1 }
keys = [{ sha256 = "abc" }, { demo = "sk-demo-a" }]
adapters = [{ name = "pirate", base = "four" }]
[tenants.models]
assistant = { base = "one", adapter = "parrot" }
[[tenants]]
id = "acme"
keys = [{ demo = "sk-demo-a" }, {}]
"#;
    assert_eq!(
        read(text).expect_err("problems").to_string(),
        r#"conf/t.toml:3: server.listen: `localhost:8080` is not an IP address and a port, such as 127.0.0.1:8080
conf/t.toml:4: server.lisen: unknown key; known here: listen, max_body_bytes, header_read_timeout, body_read_timeout, request_timeout, hold, cors
conf/t.toml:5: server.hold: expected a length of time such as "500ms", "10s" or "2m"
conf/t.toml:7: server.cors.allow_origins[0]: `https://a.example/` is not an origin, such as https://example.com, nor "*"
conf/t.toml:9: ops.listen: `127.0.0.1:99999` is not an IP address and a port, such as 127.0.0.1:8080
conf/t.toml:11: log.format: "xml" is not known here; expected "text" or "json"
conf/t.toml:12: log.filter: error parsing level filter: expected one of "off", "error", "warn", "info", "debug", "trace", or a number 0-5
conf/t.toml:14: gateway.attempts: 0 is out of range: from 1 to 10
conf/t.toml:16: bases.one.path: expected a text, found a number
conf/t.toml:17: bases."Two 2": `Two 2` is not a name of 1 to 64 characters out of a-z, 0-9, `.`, `_` and `-`
conf/t.toml:17: bases."Two 2": no worker serves this base model
conf/t.toml:19: workers.local.driver: "cuda" is not known here; expected "embedded" or "grpc" or "vllm" or "llamacpp" or "openai"
conf/t.toml:20: workers.local.bases[1]: there is no base model `three`; there is Two 2, one
conf/t.toml:21: workers.local.kv_bytes: expected an amount of memory such as "512MiB", "1GB" or a number of bytes
conf/t.toml:24: tenants[0].limits.concurrent_generations: 0 is out of range: from 1 to 1000000
conf/t.toml:24: tenants[0].limits.tokens: unknown key; known here: requests_per_second, requests_per_minute, input_tokens_per_minute, output_tokens_per_minute, tokens_per_day, tokens_per_month, concurrent_generations, max_prompt_tokens, max_output_tokens
conf/t.toml:25: tenants[0].keys[0].sha256: a key's hash is 64 hexadecimal digits (`tenantry keys hash` prints it)
conf/t.toml:26: tenants[0].adapters[0].base: there is no base model `four`; there is Two 2, one
conf/t.toml:26: tenants[0].adapters[0].path: missing
conf/t.toml:28: tenants[0].models.assistant.adapter: the tenant has no adapter `parrot`
conf/t.toml:30: tenants[1].id: `acme` is the id of another tenant already, at tenants[0].id
conf/t.toml:31: tenants[1].keys[0].demo: the same key as tenants[0].keys[1].demo
conf/t.toml:31: tenants[1].keys[1]: has neither `sha256` nor `demo`"#
    );
}

#[test]
fn an_empty_file_lacks_what_is_required() {
    assert_eq!(read("").expect_err("empty").to_string(), "conf/t.toml: bases: missing\nconf/t.toml: tenants: missing");
    assert_eq!(
        strip(&read("bases = {}\ntenants = []").expect_err("empty").to_string()),
        "bases: at least one entry is needed\ntenants: at least one entry is needed"
    );
}

#[test]
fn redis_is_named_and_its_keys_have_a_plain_prefix() {
    let redis = |keys: &str| prefixed(&format!("[redis]\n{keys}\n"));
    assert_eq!(redis("gateways = 2"), "redis.url: missing");
    let written = redis("url = \"redis://:hunter2@host:6379\"");
    assert!(written.starts_with("redis.url: a secret is named, not written"), "{written}");
    assert!(!written.contains("hunter2"));
    for (keys, path) in [
        ("prefix = \"a{b}\"", "redis.prefix: expected up to 64"),
        ("prefix = \"\"", "redis.prefix: "),
        ("gateways = 0", "redis.gateways: "),
        ("host = \"h\"", "redis.host: "),
    ] {
        let told = redis(&format!("url = \"env:TENANTRY_REDIS_URL\"\n{keys}"));
        assert!(told.starts_with(path), "{told}");
    }
}

#[test]
fn references_are_followed() {
    assert_eq!(
        problems("base = \"one\", adapter", "base = \"two\", adapter"),
        "tenants[0].models.assistant.adapter: the adapter `pirate` is for the base model `one`, not `two`"
    );
    assert_eq!(
        problems("{ base = \"one\" }", "{ base = \"three\" }"),
        "tenants[0].models.one.base: there is no base model `three`; there is one, two"
    );
    assert_eq!(
        problems("bases = [\"one\", \"two\"]", "bases = [\"one\"]"),
        "bases.two: no worker serves this base model"
    );
    assert_eq!(problems("\"two\"]", "\"two\", \"one\"]"), "workers.local.bases[2]: `one` is listed twice");
    assert_eq!(
        problems("adapters = [", "adapters = [{ name = \"pirate\", base = \"one\", path = \"p\" }, "),
        "tenants[0].adapters[1].name: the tenant has another adapter `pirate` already"
    );
}

#[test]
fn listeners_do_not_meet() {
    let taken = "ops.listen: 127.0.0.1:80 is where `server.listen` listens already";
    assert_eq!(prefixed("server.listen = \"127.0.0.1:80\"\nops.listen = \"127.0.0.1:80\"\n"), taken);
    assert_eq!(prefixed("server.listen = \"0.0.0.0:80\"\nops.listen = \"127.0.0.1:80\"\n"), taken);
    read(&format!("server.listen = \"127.0.0.1:0\"\nops.listen = \"127.0.0.1:0\"\n{GOOD}")).expect("ports to be given");
}

#[test]
fn keys_are_one_of_two_kinds_and_all_different() {
    let hash = "ce3325d67df1de7f65394baf6cb19b46d4b37ba3d79fdb3a73a6db8f1ea5c51f";
    let key = |text: &str| problems("{ demo = \"sk-demo-acme\" }", text);
    assert_eq!(key(""), "tenants[0].keys: at least one entry is needed");
    assert_eq!(
        key(&format!("{{ demo = \"sk-demo-acme\", sha256 = \"{hash}\" }}")),
        "tenants[0].keys[0]: has both `sha256` and `demo`"
    );
    assert_eq!(
        key("{ demo = \"sk-live-1\" }"),
        "tenants[0].keys[0].demo: a demonstration key is public and has the form `sk-demo-name`; a real key goes in as `sha256`"
    );
    let same = crate::auth::KeyHash::of(b"sk-demo-acme").to_string().to_uppercase();
    assert_eq!(
        key(&format!("{{ demo = \"sk-demo-acme\" }}, {{ sha256 = \"{same}\" }}")),
        "tenants[0].keys[1].sha256: the same key as tenants[0].keys[0].demo"
    );
    assert_eq!(key("\"sk-demo-acme\""), "tenants[0].keys[0]: expected a table, found a text");
}

#[test]
fn numbers_and_names_have_their_ranges() {
    let worker = |line: &str| problems("driver =", &format!("{line}\ndriver ="));
    assert_eq!(worker("max_batch_rows = 0"), "workers.local.max_batch_rows: 0 is out of range: from 1 to 1024");
    assert_eq!(worker("threads = -1"), "workers.local.threads: -1 is out of range: from 0 to 1024");
    assert_eq!(worker("queue = 1.5"), "workers.local.queue: expected a number, found a number with a point");
    assert_eq!(worker("kv_bytes = \"1KiB\""), "workers.local.kv_bytes: 1KiB is out of range: from 1MiB to 1024GiB");
    assert_eq!(prefixed("server.hold = \"1h\"\n"), "server.hold: 1h is out of range: from 1ms to 10m");
    assert_eq!(
        prefixed("server.cors.allow_origins = [\"*\", \"https://a.example\"]\n"),
        "server.cors.allow_origins: \"*\" allows every origin and stands alone"
    );
    assert_eq!(
        problems("id = \"acme\"", "id = \"\""),
        "tenants[0].id: `` is not a name of 1 to 64 characters out of a-z, 0-9, `.`, `_` and `-`"
    );
    assert_eq!(
        problems("\"one\" = {", "\"\\u0007\" = {"),
        "tenants[0].models.\"\\u{7}\": a model's name has 1 to 128 characters and no control characters, and is neither `.` nor `..`"
    );
    assert_eq!(prefixed("tenants = 1\n#").lines().next(), Some("duplicate key"));
}

#[test]
fn a_file_that_is_not_toml_is_told_with_line_and_column() {
    assert_eq!(
        read("[server]\nlisten = \"a\nx").expect_err("broken").to_string(),
        "conf/t.toml:2:12: invalid basic string, expected `\"`\nconf/t.toml:3:2: key with no value, expected `=`"
    );
}

/// Finds something wrong with everything.
struct Refusing;

impl Inspect for Refusing {
    fn base(&mut self, base: &BaseConfig, _: &Config) -> Result<(), String> {
        Err(format!("{} is no model", base.name))
    }

    fn adapter(&mut self, adapter: &AdapterEntry, base: &BaseConfig, _: &Config) -> Result<Option<String>, String> {
        Err(format!("{} is not for {}", adapter.name, base.name))
    }

    fn classifier(&mut self, _: &Path) -> Result<(), String> {
        Ok(())
    }
}

#[test]
fn a_missing_file_is_a_problem_of_its_own() {
    let refused = load(Path::new("/nowhere/t.toml"), [], Refusing).expect_err("missing").to_string();
    assert_eq!(refused, "/nowhere/t.toml: cannot be read: No such file or directory (os error 2)");
}

#[test]
fn paths_that_are_not_on_the_disk_are_reported_beside_all_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("t.toml");
    std::fs::write(folder.path().join("one.gguf"), "").expect("written");
    std::fs::create_dir(folder.path().join("adapters")).expect("made");
    std::fs::write(folder.path().join("adapters/pirate"), "").expect("written");
    std::fs::create_dir(folder.path().join("adapters/json")).expect("made");
    let more = "[[tenants]]\nid = \"b\"\nkeys = [{ demo = \"sk-demo-b\" }]\n\
                adapters = [{ name = \"json\", base = \"one\", path = \"adapters/json\" }]\n";
    std::fs::write(&file, format!("{GOOD}{more}[more]\n")).expect("written");
    let refused = load(&file, [], Refusing).expect_err("problems").to_string();
    let refused = refused.replace(&folder.path().display().to_string(), "D");
    assert_eq!(
        refused,
        "\
D/t.toml:3: bases.one.path: one is no model
D/t.toml:5: bases.two.path: /models/two: No such file or directory (os error 2)
D/t.toml:12: tenants[0].adapters[0].path: D/adapters/pirate: is not a folder
D/t.toml:17: tenants[1].adapters[0].path: json is not for one
D/t.toml:18: more: unknown key; known here: server, ops, shutdown, log, metrics, reload, queue, gateway, catalogue, ratings, bases, workers, guard, tenants"
    );
}

proptest! {
    #[test]
    fn no_text_makes_the_loader_panic(text in "\\PC{0,200}", value in "\\PC{0,40}", name in "[A-Z0-9_]{0,40}") {
        let name = format!("TENANTRY_{name}");
        let _ = parse(Path::new("t.toml"), &text, variables(&[(&name, &value)]));
    }

    #[test]
    fn no_change_to_a_good_file_makes_the_loader_panic(at in 0..GOOD.len(), length in 0..40_usize, by in "[\\[\\]{}=.,\"#a-z0-9\n ]{0,12}") {
        let end = (at + length).min(GOOD.len());
        let text = format!("{}{by}{}", &GOOD[..at], &GOOD[end..]);
        let _ = parse(Path::new("t.toml"), &text, []);
    }
}
