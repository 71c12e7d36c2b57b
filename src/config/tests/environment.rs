use std::path::Path;

use super::{GOOD, variables};
use crate::config::{Config, parse};

fn with(pairs: &[(&str, &str)]) -> Config {
    parse(Path::new("conf/t.toml"), GOOD, variables(pairs)).expect("no problem").config
}

fn problems(pairs: &[(&str, &str)]) -> String {
    parse(Path::new("conf/t.toml"), GOOD, variables(pairs)).expect_err("a problem").to_string()
}

#[test]
fn a_variable_sets_a_key_whether_or_not_the_file_does() {
    let config = with(&[
        ("TENANTRY_SERVER__LISTEN", "127.0.0.1:99"),
        ("TENANTRY_SERVER__MAX_BODY_BYTES", "2048"),
        ("TENANTRY_SERVER__CORS__ALLOW_ORIGINS", "[\"*\"]"),
        ("TENANTRY_LOG__FORMAT", "\"json\""),
        ("TENANTRY_TENANTS__0__LIMITS__CONCURRENT_GENERATIONS", "3"),
        ("TENANTRY_TENANTS__0__KEYS__0__NAME", "2026"),
    ]);
    assert_eq!(config.server.listen.port(), 99);
    assert_eq!(config.server.max_body_bytes, 2048);
    assert_eq!(config.server.cors, crate::config::Cors::Any);
    assert_eq!(config.log.format, crate::telemetry::LogFormat::Json);
    assert_eq!(config.tenants[0].limits.concurrent_generations, Some(3));
    assert_eq!(&*config.tenants[0].keys[0].name, "2026", "a text needs no quotes");
}

#[test]
fn a_segment_has_no_case_and_stands_for_keys_with_other_characters() {
    let text =
        GOOD.replace("one", "Smol-LM2.135m").to_lowercase().replace("bases.smol-lm2.135m", "bases.\"smol-lm2.135m\"");
    let pairs = variables(&[("TENANTRY_Bases__SMOL_lm2_135M__PATH", "other.gguf")]);
    let config = parse(Path::new("conf/t.toml"), &text, pairs).expect("no problem").config;
    let base = config.bases.iter().find(|base| base.name.as_str() == "smol-lm2.135m").expect("still there");
    assert_eq!(
        base.path.as_deref().expect("a path"),
        Path::new("other.gguf"),
        "a path in a variable is relative to the working directory"
    );
}

#[test]
fn lists_grow_at_their_end() {
    let config =
        with(&[("TENANTRY_TENANTS__1__ID", "globex"), ("TENANTRY_TENANTS__1__KEYS__0__DEMO", "sk-demo-globex")]);
    assert_eq!(config.tenants[1].id.as_str(), "globex");
}

#[test]
fn other_variables_are_left_alone() {
    with(&[("TENANTRY_PORT", "tcp://10.0.0.1:80"), ("TENANTRYX__Y", "1"), ("PATH", "/bin")]);
}

#[test]
fn problems_name_the_variable() {
    assert_eq!(
        problems(&[
            ("TENANTRY_BASES__ONE__PATH__X", "1"),
            ("TENANTRY_GATEWAY__ATTEMPTS", "many"),
            ("TENANTRY_SERVER__LISEN", "x"),
            ("TENANTRY_SERVR__LISTEN", "x"),
            ("TENANTRY_TENANTS__7__ID", "x"),
            ("TENANTRY_TENANTS__FIRST__ID", "x"),
        ]),
        "\
TENANTRY_BASES__ONE__PATH__X: there is no `x` in a text
TENANTRY_GATEWAY__ATTEMPTS: gateway.attempts: expected a number, found a text
TENANTRY_SERVER__LISEN: server.lisen: unknown key; known here: listen, max_body_bytes, header_read_timeout, body_read_timeout, request_timeout, hold, cors
TENANTRY_SERVR__LISTEN: servr: unknown key; known here: server, ops, shutdown, log, metrics, reload, queue, gateway, catalogue, ratings, bases, workers, guard, tenants
TENANTRY_TENANTS__7__ID: the list has 1 entries, none at 7
TENANTRY_TENANTS__FIRST__ID: `first` is not an entry's number in a list"
    );
}

#[cfg(unix)]
#[test]
fn a_value_that_is_not_unicode_is_a_problem() {
    use std::os::unix::ffi::OsStringExt as _;
    let pair = ("TENANTRY_LOG__FILTER".into(), std::ffi::OsString::from_vec(vec![0xff]));
    let refused = parse(Path::new("t.toml"), GOOD, [pair]).expect_err("a problem");
    assert_eq!(refused.to_string(), "TENANTRY_LOG__FILTER: its value is not UTF-8");
}

#[test]
fn a_segment_that_two_keys_answer_to_is_a_problem() {
    let text = format!("{GOOD}\"o-n\" = {{ base = \"one\" }}\n\"o_n\" = {{ base = \"one\" }}\n")
        .replace("models = {", "[tenants.models]\n#");
    let pairs = variables(&[("TENANTRY_TENANTS__0__MODELS__O_N__BASE", "two")]);
    let refused = parse(Path::new("t.toml"), &text, pairs).expect_err("a problem");
    assert_eq!(refused.to_string(), "TENANTRY_TENANTS__0__MODELS__O_N__BASE: `o_n` may be `o-n` or `o_n`");
}
