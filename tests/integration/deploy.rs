//! What lies in deploy/, held against the code and against the programs that
//! read it. The checks themselves are Python, in tests/deploy, beside what they
//! need of others' libraries.

mod live;

use std::process::{Command, Stdio};

use crate::clients::python;
use crate::support::repository;

/// Runs one of the checks.
fn check(name: &str, arguments: &[&str]) {
    let output = Command::new(python())
        .arg(repository("tests/deploy").join(name))
        .args(arguments)
        .env("TENANTRY_BINARY", env!("CARGO_BIN_EXE_tenantry"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null())
        .output()
        .expect("Python runs; `make test` installs it");
    let told = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(output.status.success(), "{name}: {}\n{told}", output.status);
}

#[test]
fn rules_and_dashboards_name_metrics_and_labels_that_there_are() {
    check("names.py", &[]);
}

#[test]
fn prometheus_takes_its_rules_and_every_alert_has_a_test_in_which_it_fires() {
    check("rules.py", &[]);
}

#[test]
fn dashboards_are_what_their_program_writes() {
    check("dashboards.py", &[]);
}

#[test]
fn images_are_built_as_they_should_be_and_the_compose_file_is_one() {
    check("images.py", &[]);
}

#[test]
fn the_chart_is_without_problems_and_renders_what_kubernetes_takes() {
    check("chart.py", &[]);
}

#[test]
fn the_systemd_unit_is_without_problems() {
    check("unit.py", &[]);
}
