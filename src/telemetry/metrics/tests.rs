use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::*;
use crate::telemetry::{RatingReading, SinkReading};
use crate::types::{Action, Side, Stage};

/// Type, unit and labels by a metric's name.
type Table = BTreeMap<String, (String, String, BTreeSet<String>)>;

/// Every metric, with a sample of each.
fn all() -> String {
    let metrics = Metrics::default();
    let second = Duration::from_secs(1);
    let trace = Some(TraceId([7; 16]));
    let model = metrics.model("acme", "bot");
    metrics.ended(&model, "chat_completions", "complete");
    metrics.request(None, None, "chat_completions", "unauthenticated");
    model.tokens(3, 4);
    model.first_token(second, trace);
    model.worker_first_token(second, trace);
    model.inter_token(second);
    drop(model.stream());
    metrics.overhead("chat_completions", Duration::from_micros(30), trace);
    metrics.queue_wait(second, trace);
    metrics.limited("acme", "requests_per_minute");
    metrics.limits_shared(true);
    metrics.catalogue_up(true);
    metrics.usage_lost();
    metrics.picked("resident");
    metrics.retried("made");
    metrics.adapter_loaded(second, true);
    metrics.adapter_published("ok");
    metrics.adapter_probed("match");
    metrics.adapter_evicted();
    let guard = metrics.guard();
    guard.verdict(Side::Output, Action::Block, "insult");
    guard.took(Side::Prompt, Stage::Linear, second);
    guard.escalated(Side::Prompt, "judged");
    guard.text(Side::Prompt);
    guard.held(second);
    guard.first_token_held(second);
    let worker = WorkerReading {
        worker: "local".to_owned(),
        batch_rows: 1,
        waiting: 0,
        kv_tokens: 9,
        leases: 1,
        adapters_resident: 2,
        adapters_quarantined: 0,
    };
    let sink = SinkReading { sink: "file".to_owned(), ..SinkReading::default() };
    let readings = Readings {
        workers: vec![worker],
        states: vec![("healthy", 1)],
        queues: vec![("smol".to_owned(), 0)],
        adapters: AdapterReading::default(),
        ratings: Some(RatingReading {
            ratings: vec![("recorded", 1)],
            events: vec![("noted", 1)],
            sinks: vec![sink],
            ..RatingReading::default()
        }),
        limits: vec![("acme".to_owned(), "requests_per_minute", 0.75)],
    };
    metrics.render(&readings).expect("a text")
}

/// What the text declares, with the labels of its samples.
fn declared(text: &str) -> Table {
    let mut table = Table::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a name and a type");
            let total = if kind == "counter" { "_total" } else { "" };
            table.insert(format!("{name}{total}"), (kind.to_owned(), String::new(), BTreeSet::new()));
        } else if let Some(rest) = line.strip_prefix("# UNIT ") {
            let (name, unit) = rest.split_once(' ').expect("a name and a unit");
            let entry = table.keys().find(|key| *key == name || **key == format!("{name}_total")).cloned();
            table.get_mut(&entry.expect("its type comes first")).expect("known").1 = unit.to_owned();
        } else if !line.starts_with('#') {
            let end = line.find(['{', ' ']).expect("a sample");
            let name = &line[..end];
            let name = ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part)).unwrap_or(name);
            let labels = line[end..].strip_prefix('{').map_or("", |rest| rest.split_once('}').expect("closed").0);
            let entry = table.get_mut(name).unwrap_or_else(|| panic!("{name} was not declared"));
            let labels = labels.split(',').filter_map(|label| label.split_once('=')).map(|(name, _)| name.to_owned());
            entry.2.extend(labels.filter(|label| label != "le"));
        }
    }
    table
}

/// The table of the README.
fn documented() -> Table {
    let readme = include_str!("../../../README.md");
    let rows = readme.lines().filter(|line| line.starts_with("| `tenantry_") || line.starts_with("| `process_"));
    let row = |line: &str| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [name, kind, unit, labels, meaning] = cells[..] else { panic!("not five cells: {line}") };
        assert!(!meaning.is_empty(), "{name} says nothing");
        let labels = labels.split(',').map(|label| label.trim().to_owned()).filter(|label| !label.is_empty());
        let known = (kind.trim_end_matches('*').to_owned(), unit.to_owned(), labels.collect());
        (name.trim_matches('`').to_owned(), known)
    };
    rows.map(row).collect()
}

#[test]
fn the_readme_has_every_metric_with_its_type_unit_and_labels() {
    let (is, says) = (declared(&all()), documented());
    for (name, of) in &is {
        assert_eq!(says.get(name), Some(of), "{name}: what the README says, and what there is");
    }
    for name in says.keys() {
        assert!(is.contains_key(name), "{name} is in the README only");
    }
}

#[test]
fn the_histograms_marked_in_the_readme_carry_the_trace_of_a_request() {
    let text = all();
    let readme = include_str!("../../../README.md");
    let rows = readme.lines().filter(|line| line.starts_with("| `tenantry_") && line.contains("| histogram"));
    for row in rows {
        let name = row.split('`').nth(1).expect("a name");
        let exemplar = format!("# {{trace_id=\"{}\"}}", TraceId([7; 16]));
        let has = text.lines().any(|line| line.starts_with(&format!("{name}_bucket")) && line.contains(&exemplar));
        assert_eq!(has, row.contains("histogram*"), "{name}");
    }
}

#[test]
fn buckets_reach_from_a_fast_edge_to_a_slow_model() {
    let text = all();
    let edges = |name: &str| {
        let of = text.lines().filter(|line| line.starts_with(&format!("{name}_bucket")));
        let edges = of.filter_map(|line| line.split("le=\"").nth(1)?.split('"').next()?.parse::<f64>().ok());
        edges.filter(|edge| edge.is_finite()).collect::<Vec<_>>()
    };
    let ttft = edges("tenantry_time_to_first_token_seconds");
    assert_eq!((ttft[0], ttft[ttft.len() - 1]), (0.001, 60.0));
    assert_eq!(edges("tenantry_inter_token_seconds")[0], 0.0001);
    for name in
        ["tenantry_time_to_first_token_seconds", "tenantry_inter_token_seconds", "tenantry_gateway_overhead_seconds"]
    {
        let edges = edges(name);
        assert!(edges.windows(2).all(|pair| pair[0] < pair[1] && pair[1] <= pair[0] * 2.51), "{name}: {edges:?}");
    }
}

#[test]
fn a_hundred_thousand_tenants_make_no_more_series_than_the_bound() {
    let metrics = Metrics::new(Config { tenants: 50, models: 80 }, Traces::default());
    for tenant in 0..100_000 {
        let tenant = format!("t{tenant}");
        for name in ["one", "two"] {
            let model = metrics.model(&tenant, name);
            metrics.ended(&model, "chat_completions", "complete");
            model.tokens(1, 1);
        }
        metrics.request(Some(&tenant), None, "chat_completions", "invalid_request");
        metrics.limited(&tenant, "requests_per_minute");
    }
    let text = metrics.render(&Readings::default()).expect("a text");
    let requests: Vec<&str> = text.lines().filter(|line| line.starts_with("tenantry_requests_total{")).collect();
    // 80 pairs, the other models of 10 tenants, the other tenants', and 51 times no model.
    assert_eq!(requests.len(), 80 + 10 + 1 + 51, "{requests:#?}");
    let count = |part: &str| -> u64 {
        let of = requests.iter().filter(|line| line.contains(part));
        of.map(|line| line.rsplit_once(' ').expect("a value").1.parse::<u64>().expect("a number")).sum()
    };
    assert_eq!(count("outcome=\"complete\""), 200_000, "nothing is lost");
    assert_eq!(count("tenant=\"other\",model=\"other\""), 2 * (100_000 - 50));
    assert_eq!(count("tenant=\"t0\",model=\"two\""), 1, "who came first has its own");
    assert!(text.lines().count() < 15_000, "{} lines", text.lines().count());
}

#[test]
fn the_process_is_measured() {
    let text = all();
    let value = |name: &str| -> f64 {
        let line =
            text.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap_or_else(|| panic!("no {name}"));
        line.rsplit_once(' ').expect("a value").1.parse().expect("a number")
    };
    assert!(value("process_resident_memory_bytes") > 1e6);
    assert!(value("process_open_fds") >= 3.0);
    assert!(value("process_max_fds") >= value("process_open_fds"));
    assert!(value("process_cpu_seconds_total") > 0.0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs_f64();
    let age = now - value("process_start_time_seconds");
    assert!((-2.0..86_400.0).contains(&age), "{age} s old");
}
