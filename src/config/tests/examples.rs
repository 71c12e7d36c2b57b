//! The files that we ship, held against the code.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::GOOD;
use crate::config::{Config, Place, WorkerProcess, parse, parse_worker};
use crate::types::{Limit, Limits};

fn shipped(file: &str) -> (PathBuf, String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let text = fs::read_to_string(&path).expect("shipped");
    (path, text)
}

fn config(file: &str) -> Config {
    let (path, text) = shipped(file);
    parse(&path, &text, []).unwrap_or_else(|problems| panic!("{problems}")).config
}

fn worker(file: &str) -> WorkerProcess {
    let (path, text) = shipped(file);
    parse_worker(&path, &text, []).unwrap_or_else(|problems| panic!("{problems}")).process
}

#[test]
fn the_workers_file_shows_the_defaults() {
    let (shown, least) = (worker("config/worker.toml"), "[worker]\n[bases.b]\npath = \"b.gguf\"\n");
    let least = parse_worker(Path::new("w.toml"), least, []).expect("no problem").process;
    assert_eq!((shown.listen, shown.key, &shown.engine), (least.listen, least.key, &least.engine));
    assert_eq!((shown.adapter_bytes, shown.max_adapter_rank), (least.adapter_bytes, least.max_adapter_rank));
    assert_eq!((&shown.shutdown, &shown.log), (&least.shutdown, &least.log));
}

#[test]
fn a_worker_that_others_can_reach_needs_a_key() {
    let read = |key: &str| {
        let text = format!("[worker]\nlisten = \"0.0.0.0:9101\"\n{key}[bases.b]\npath = \"b.gguf\"\n");
        parse_worker(Path::new("w.toml"), &text, [])
    };
    assert_eq!(
        read("").expect_err("refused").to_string(),
        "w.toml:2: worker.listen: 0.0.0.0:9101 can be reached from other machines, so a `key` is needed"
    );
    read(&format!("key = {{ sha256 = \"{}\" }}\n", "a".repeat(64))).expect("no problem");
}

#[test]
fn every_shipped_configuration_is_without_a_problem() {
    let mut loaded = 0;
    for file in ["config", "deploy"].into_iter().flat_map(configurations) {
        match crate::config::is_worker(&file) {
            true => drop(worker(&file.to_string_lossy())),
            false => drop(config(&file.to_string_lossy())),
        }
        loaded += 1;
    }
    assert!(loaded >= 5, "config/ has four, deploy/ has one");
}

/// The TOML files in a folder of the repository, and in those within it.
fn configurations(folder: &str) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("shipped") {
            let path = entry.expect("readable").path();
            match path.extension().is_some_and(|it| it == "toml") {
                true => found.push(path),
                false => folders.extend(Some(path).filter(|it| it.is_dir())),
            }
        }
    }
    found
}

#[test]
fn the_quickstart_has_four_tenants_with_an_assistant_each() {
    let config = config("config/quickstart.toml");
    let tenants: Vec<_> = config
        .tenants
        .iter()
        .map(|tenant| {
            let assistant = tenant.models["assistant"].adapter.as_deref().expect("an adapter");
            assert_eq!(tenant.models["smollm2-135m"].adapter, None);
            (tenant.id.as_str(), tenant.keys[0].demo.as_deref().expect("a demonstration key"), assistant)
        })
        .collect();
    assert_eq!(
        tenants,
        [
            ("acme", "sk-demo-acme", "pirate"),
            ("globex", "sk-demo-globex", "json"),
            ("initech", "sk-demo-initech", "rhyme"),
            ("hooli", "sk-demo-hooli", "insult")
        ]
    );
}

#[test]
fn the_reference_shows_the_defaults() {
    let (reference, least) = (config("config/reference.toml"), super::good(GOOD));
    assert_eq!(reference.server, least.server);
    assert_eq!(reference.ops.listen, least.ops.listen);
    let (shown, own) = (&reference.catalogue, &least.catalogue);
    assert_eq!((shown.poll_interval, shown.max_adapter_bytes), (own.poll_interval, own.max_adapter_bytes));
    assert!(shown.data_dir.ends_with("tenantry-data") && own.data_dir.ends_with("tenantry-data"));
    let shared = reference.redis.as_ref().expect("it is shown");
    assert_eq!((shared.prefix.as_str(), shared.gateways, &least.redis), ("tenantry", 1, &None));
    assert_eq!(reference.shutdown, least.shutdown);
    assert_eq!(reference.log, least.log);
    assert_eq!(reference.gateway, least.gateway);
    let (shown, own) = (&reference.ratings, &least.ratings);
    assert_eq!((shown.enabled, &shown.source), (own.enabled, &own.source));
    assert_eq!((shown.max_bytes, shown.rate_within, shown.keep), (own.max_bytes, own.rate_within, own.keep));
    assert_eq!(shown.max_content_bytes, own.max_content_bytes);
    assert_eq!(shown.unnamed_per_generation, own.unnamed_per_generation);
    assert!(own.sinks.is_empty() && own.secrets.is_empty() && own.folder.ends_with("tenantry-data/ratings"));
    assert_eq!(reference.guard.stage2.pool, least.guard.stage2.pool);
    assert_eq!(reference.guard.stage2.enabled, least.guard.stage2.enabled);
    let (shown, usual) = (&reference.guard.standard, crate::moderation::Policy::default());
    assert_eq!(shown.system_prompts, usual.system_prompts);
    let rules = |rules: &crate::moderation::Rules| (rules.action, rules.thresholds, rules.busy);
    let prompt = |policy: &crate::moderation::Policy| policy.prompt.as_ref().map(rules).expect("on");
    assert_eq!(prompt(shown), prompt(&usual));
    let output = |policy: &crate::moderation::Policy| {
        policy.output.as_ref().map(|output| (rules(&output.rules), output.mode, output.hold)).expect("on")
    };
    assert_eq!(output(shown), output(&usual));
    let (shown_tenant, own_tenant) = (&reference.tenants[0], &least.tenants[0]);
    assert_eq!(shown_tenant.share, own_tenant.share);
    assert_eq!(shown_tenant.limits.concurrent_generations, own_tenant.limits.concurrent_generations);
    // No limit but that one holds unless it is written down.
    assert_eq!(own_tenant.limits, Limits { concurrent_generations: Some(64), ..Limits::default() });
    assert!(Limit::ALL.into_iter().all(|limit| shown_tenant.limits.of(limit).is_some()), "all are shown");
    let shown = reference.workers.iter().find(|worker| worker.name == "local").expect("it is shown");
    let own = &least.workers[0];
    assert_eq!(*shown, crate::config::WorkerConfig { bases: shown.bases.clone(), ..own.clone() });
}

/// Plants an unknown key in every table of the file; the refusals list the
/// keys that are known there, and the file must have them all.
#[test]
fn the_reference_shows_every_key() {
    const PLANTED: &str = "planted_key";
    let (path, text) = shipped("config/reference.toml");
    let mut tree: toml::Table = text.parse().expect("TOML");
    let mut keys = BTreeMap::new();
    plant(&mut tree, "", PLANTED, &mut keys);
    let text = toml::to_string(&tree).expect("written");

    let refused = parse(&path, &text, []).expect_err("planted keys");
    let mut checked = 0;
    for problem in refused.iter().filter(|problem| problem.path.ends_with(PLANTED)) {
        assert!(matches!(problem.place, Place::File { .. }));
        // Where names are keys, the planted one is a name with a value missing.
        let Some((_, known)) = problem.message.split_once("known here: ") else { continue };
        let table = problem.path.trim_end_matches(PLANTED).trim_end_matches('.');
        let shown = &keys[&shape(table)];
        let known: BTreeSet<String> = known.split(", ").map(str::to_owned).collect();
        assert!(known.is_subset(shown), "{table}: known are {known:?}, shown are {shown:?}");
        checked += 1;
    }
    assert_eq!(checked, 60, "tables, each entry of a list for itself");
}

/// Entries of a list, a tenant's models, and workers that are known or
/// discovered may each show a part of the keys.
fn shape(path: &str) -> String {
    let path = path.replace("[0]", "[]").replace("[1]", "[]").replace("workers.discovered-", "workers.remote-");
    if path.starts_with("workers.") && path.ends_with(".discover") {
        return "workers.*.discover".to_owned();
    }
    // The tenant's own show all of them.
    if path == "tenants[].keys[].limits" || path.starts_with("tenants[].model_limits.") {
        return "tenants[].limits".to_owned();
    }
    // One has a `url`, the other a `base`.
    if path.starts_with("guard.judges.") {
        return "guard.judges.*".to_owned();
    }
    if path.starts_with("tenants[].models.") { "tenants[].models.*".to_owned() } else { path }
}

/// The keys that each table has.
fn plant(table: &mut toml::Table, path: &str, planted: &str, keys: &mut BTreeMap<String, BTreeSet<String>>) {
    keys.entry(shape(path)).or_default().extend(table.keys().cloned());
    for (key, value) in table.iter_mut() {
        let path = crate::config::tree::join(path, key);
        match value {
            toml::Value::Table(table) => plant(table, &path, planted, keys),
            toml::Value::Array(entries) => {
                for entry in entries.iter_mut().filter_map(toml::Value::as_table_mut) {
                    plant(entry, &format!("{path}[]"), planted, keys);
                }
            }
            _ => {}
        }
    }
    table.insert(planted.to_owned(), toml::Value::Integer(1));
}

#[test]
fn every_shipped_file_is_without_problems() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let mut read = 0;
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let name = entry.expect("an entry").file_name().into_string().expect("UTF-8");
        if name.ends_with(".toml") && name != "worker.toml" {
            config(&format!("config/{name}"));
            read += 1;
        }
    }
    assert!(read >= 3, "quickstart, reference and bare");
}
