//! What lies in deploy/, held against the code and against the programs that
//! read it. The checks themselves are Python, in tests/deploy, beside what they
//! need of others' libraries.

mod live;

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use tenantry::telemetry::{Metrics, RatingReading, Readings, SinkReading, WorkerReading};
use tenantry::types::{Action, Limit, Side, Stage};

use crate::clients::python;
use crate::support::repository;

/// Metrics that rules and dashboards name before the code has them.
const PENDING: [&str; 2] = ["tenantry_gateway_overhead_seconds", "tenantry_limit_utilisation"];

/// Runs one of the checks, which reads `input`.
fn check(name: &str, arguments: &[&str], input: &str) {
    let mut child = Command::new(python())
        .arg(repository("tests/deploy").join(name))
        .args(arguments)
        .env("TENANTRY_BINARY", env!("CARGO_BIN_EXE_tenantry"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("Python runs; `make test` installs it");
    // A check that reads nothing may have ended.
    let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
    let output = child.wait_with_output().expect("it ends");
    let told = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(output.status.success(), "{name}: {}\n{told}", output.status);
}

/// The text of `/metrics` with every family in it.
fn every_metric() -> String {
    let metrics = Metrics::default();
    let (tenant, model, moment) = ("tenant", "model", Duration::from_millis(1));
    metrics.request(Some(tenant), Some(model), "chat_completions", "complete");
    metrics.tokens(tenant, model, 1, 1);
    metrics.first_token(tenant, model, moment);
    metrics.worker_first_token(tenant, model, moment);
    metrics.inter_token(tenant, model).observe(0.001);
    let stream = metrics.stream(tenant);
    metrics.limited(tenant, Limit::RequestsPerMinute.as_str());
    metrics.adapter_loaded(moment, true);
    metrics.adapter_published("ok");
    metrics.adapter_probed("match");
    metrics.limits_shared(true);
    metrics.picked("affinity");
    metrics.retried("made");
    metrics.guard().verdict(Side::Prompt, Action::Block, "insult");
    metrics.guard().took(Side::Prompt, Stage::Linear, moment);
    metrics.guard().escalated(Side::Prompt, "judged");
    metrics.guard().text(Side::Prompt);
    let worker = WorkerReading {
        worker: "local".to_owned(),
        batch_rows: 0,
        waiting: 0,
        kv_tokens: 0,
        leases: 0,
        adapters_resident: 0,
        adapters_quarantined: 0,
    };
    let ratings = RatingReading {
        ratings: vec![("recorded", 1)],
        events: vec![("noted", 1)],
        sinks: vec![SinkReading { sink: "events".to_owned(), ..SinkReading::default() }],
        ..RatingReading::default()
    };
    let readings = Readings {
        workers: vec![worker],
        states: vec![("healthy", 1)],
        queues: vec![("base".to_owned(), 0)],
        ratings: Some(ratings),
        ..Readings::default()
    };
    let text = metrics.render(&readings).expect("text");
    drop(stream);
    text
}

#[test]
fn rules_and_dashboards_name_metrics_and_labels_that_there_are() {
    check("names.py", &PENDING, &every_metric());
}

#[test]
fn prometheus_takes_its_rules_and_every_alert_has_a_test_in_which_it_fires() {
    check("rules.py", &[], "");
}

#[test]
fn dashboards_are_what_their_program_writes() {
    check("dashboards.py", &[], "");
}

#[test]
fn images_are_built_as_they_should_be_and_the_compose_file_is_one() {
    check("images.py", &[], "");
}

#[test]
fn the_chart_is_without_problems_and_renders_what_kubernetes_takes() {
    check("chart.py", &[], "");
}

#[test]
fn the_systemd_unit_is_without_problems() {
    check("unit.py", &[], "");
}
