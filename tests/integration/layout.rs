//! Who may import whom: every path under `src/` that leads to another room is
//! held against the table below, and `unsafe` against the one folder for it.

mod tokens;

use std::fs;
use std::path::{Path, PathBuf};

use tokens::{Token, tokens};

/// A room and what it may import: a room, or one item of a room. `*Config` is
/// any room's own configuration. A room may always import itself.
const TABLE: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("telemetry", &["types"]),
    ("auth", &["types", "telemetry"]),
    ("admission", &["types", "telemetry"]),
    // A crate of its own, that knows nothing of the rest but what its encoder computes with.
    ("guard", &["engine::kernels"]),
    ("moderation", &["types", "telemetry", "guard"]),
    ("adapters", &["types", "telemetry"]),
    // A crate of its own.
    ("ratings", &["types"]),
    // A crate of its own, as is `types`.
    ("engine", &["types"]),
    // A crate of their own again, which the engine and the guard share.
    ("engine/kernels", &[]),
    ("worker", &["types", "telemetry", "engine"]),
    ("pool", &["types", "telemetry", "engine", "worker", "adapters"]),
    ("gateway", &["types", "telemetry", "auth", "admission", "moderation", "pool", "adapters", "ratings"]),
    // The admin API speaks of the catalogue; ratings are what the room reads.
    ("edge", &["types", "telemetry", "auth", "gateway", "adapters", "ratings"]),
    // The service of `tenantry worker`, which has no gateway.
    ("edge/worker", &["types", "auth", "worker"]),
    // The hash is what a key in the file is read as.
    ("config", &["types", "*Config", "telemetry::LogFormat", "auth::KeyHash", "guard", "moderation"]),
    ("shutdown", &["types", "telemetry"]),
    ("app", &["*"]),
    ("lib", &["*"]),
    // `auth` makes keys; `engine` and `telemetry` serve single commands.
    ("cli", &["app", "config", "auth", "engine", "guard", "ratings", "telemetry", "types"]),
    ("main", &["app", "config", "cli", "telemetry"]),
];

/// Rooms that are crates of their own, in which `crate` is the room.
const CRATES: [&str; 4] = ["engine", "guard", "ratings", "types"];

/// Where `unsafe` may stand.
const KERNELS: &str = "src/engine/kernels/";

/// A path that a file follows, from the crate's root on.
#[derive(Debug, PartialEq, Eq)]
struct Reference {
    line: usize,
    path: Vec<String>,
}

#[test]
fn rooms_import_only_what_the_table_allows() {
    let mut breaches = Vec::new();
    for (file, text) in sources() {
        breaches.extend(breaches_of(&file, &text));
    }
    assert!(breaches.is_empty(), "imports against the table:\n{}", breaches.join("\n"));
}

#[test]
fn unsafe_stands_in_the_kernels_only() {
    let mut breaches = Vec::new();
    for (file, text) in sources().into_iter().filter(|(file, _)| !file.starts_with(KERNELS)) {
        let tokens = tokens(&text);
        breaches.extend(tokens.iter().filter(|t| t.text == "unsafe").map(|t| format!("{file}:{}", t.line)));
    }
    assert!(breaches.is_empty(), "unsafe outside {KERNELS}:\n{}", breaches.join("\n"));
}

#[test]
fn a_planted_breach_is_found() {
    let planted = r#"
//! Of crate::edge in a comment, nothing.
use std::fmt; use super::{AdapterKey, key::{self, KeyHash}};
use crate::{types::Tenant, pool::{Pool, Worker as W}};
const TEXT: &str = "crate::gateway \" crate::edge";
const RAW: (&str, char) = (r"crate::gateway", '"');
mod tests {
    use super::super::super::gateway::Gateway;
    fn f<'a>(_: &'a crate::edge::Server) {}
    use super::*;
}
fn g() -> super::super::worker::Call { crate :: config :: load() }
"#;
    assert_eq!(
        breaches_of("src/auth/ring.rs", planted),
        [
            "src/auth/ring.rs:4: auth imports pool::Pool",
            "src/auth/ring.rs:4: auth imports pool::Worker",
            "src/auth/ring.rs:8: auth imports gateway::Gateway",
            "src/auth/ring.rs:9: auth imports edge::Server",
            "src/auth/ring.rs:12: auth imports worker::Call",
            "src/auth/ring.rs:12: auth imports config::load",
        ]
    );
}

#[test]
fn single_items_are_told_apart_from_their_rooms() {
    let text = "use crate::gateway::Config; use crate::telemetry::LogConfig; use crate::auth::{KeyHash, NewKey};\n";
    assert_eq!(breaches_of("src/config/mod.rs", text), ["src/config/mod.rs:1: config imports auth::NewKey"]);
    assert_eq!(breaches_of("src/main.rs", "use tenantry::pool;"), ["src/main.rs:1: main imports pool"]);
    assert_eq!(breaches_of("src/auth/id.rs", "use crate::*;"), ["src/auth/id.rs:1: auth imports *"]);
    let text = "use tenantry_types::Tenant; use crate::pool; use tenantry_engine::Model;\n";
    assert_eq!(breaches_of("src/engine/mod.rs", text), Vec::<String>::new());
    assert_eq!(breaches_of("src/auth/key.rs", text).len(), 2);
    let text = "use tenantry_kernels::Team; use tenantry_engine::Model;\n";
    assert_eq!(
        breaches_of("src/guard/encoder/bert.rs", text),
        ["src/guard/encoder/bert.rs:1: guard imports engine::Model"]
    );
    let text = "use tenantry_types::Tenant;\n";
    let breach = "src/engine/kernels/team.rs:1: engine/kernels imports types::Tenant";
    assert_eq!(breaches_of("src/engine/kernels/team.rs", text), [breach]);
    assert_eq!(breaches_of("src/odd.rs", ""), ["src/odd.rs: no such room in the table"]);
}

fn breaches_of(file: &str, text: &str) -> Vec<String> {
    let module = module_of(file);
    let room = room_of(file);
    let Some((_, allowed)) = TABLE.iter().find(|(name, _)| *name == room) else {
        return vec![format!("{file}: no such room in the table")];
    };
    let references = references(&module, text);
    let own = room.split('/').next().unwrap_or(room);
    let others = references.iter().filter(|it| it.path.first().is_some_and(|target| *target != own));
    let breaches = others.filter(|it| !allowed.iter().any(|rule| allows(rule, &it.path)));
    breaches.map(|it| format!("{file}:{}: {room} imports {}", it.line, it.path.join("::"))).collect()
}

fn allows(rule: &str, path: &[String]) -> bool {
    match rule.strip_prefix('*') {
        Some(suffix) => path.last().is_some_and(|item| item.ends_with(suffix)),
        None => rule.split("::").enumerate().all(|(at, segment)| path.get(at).is_some_and(|it| it == segment)),
    }
}

/// `src/pool/pick.rs` is in the room `pool`; a part of a room may have a row of its own.
fn room_of(file: &str) -> &str {
    let inner = file.strip_prefix("src/").expect("a source file").trim_end_matches(".rs");
    let within = |name: &str| inner.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let rows = TABLE.iter().map(|(name, _)| *name).filter(|name| within(name));
    rows.max_by_key(|name| name.len()).unwrap_or_else(|| inner.split('/').next().unwrap_or(inner))
}

/// `src/pool/pick.rs` is the module `pool::pick`; the roots are the empty path.
fn module_of(file: &str) -> Vec<String> {
    let inner = file.strip_prefix("src/").expect("a source file").trim_end_matches(".rs");
    let mut module: Vec<String> = inner.split('/').map(str::to_owned).collect();
    if module.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
        module.pop();
    }
    module
}

fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    let mut folders: Vec<PathBuf> = vec![root.join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("readable").path();
            // A room's tests may stand in for the rooms behind it.
            if path.ends_with("tests") || path.ends_with("tests.rs") {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let file = path.strip_prefix(root).expect("below the root").to_string_lossy().into_owned();
                sources.push((file, fs::read_to_string(&path).expect("UTF-8")));
            }
        }
    }
    sources.sort();
    sources
}

// === paths ===

/// Every path in the text that starts at the crate's root or at a parent.
fn references(module: &[String], text: &str) -> Vec<Reference> {
    let tokens = tokens(text);
    let mut references = Vec::new();
    // The path of modules written inline, with the depth of braces around each.
    let mut inline: Vec<(String, usize)> = Vec::new();
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        let follows = |offset: usize, text: &str| tokens.get(at + offset).is_some_and(|t| t.text == text);
        let continues = at > 0 && tokens[at - 1].text == "::";
        match token.text.as_str() {
            "mod" if follows(2, "{") => {
                inline.push((tokens[at + 1].text.clone(), depth));
                depth += 1;
                at += 3;
            }
            "{" => {
                depth += 1;
                at += 1;
            }
            "}" => {
                depth = depth.saturating_sub(1);
                inline.pop_if(|(_, around)| *around == depth);
                at += 1;
            }
            "crate" | "tenantry" | "tenantry_engine" | "tenantry_kernels" | "tenantry_types" | "super"
                if follows(1, "::") && !continues =>
            {
                let mut start: Vec<String> = match token.text.as_str() {
                    "super" => module.iter().cloned().chain(inline.iter().map(|(name, _)| name.clone())).collect(),
                    "crate" => module.iter().take(1).filter(|room| CRATES.contains(&room.as_str())).cloned().collect(),
                    "tenantry_kernels" => vec!["engine".to_owned(), "kernels".to_owned()],
                    name => name.strip_prefix("tenantry_").map(str::to_owned).into_iter().collect(),
                };
                if token.text == "super" {
                    start.pop();
                }
                at = tree(&tokens, at + 2, start, &mut references);
            }
            _ => at += 1,
        }
    }
    references
}

/// Reads what may follow `::`, a segment or a group in braces, and returns
/// where it ends.
fn tree(tokens: &[Token], mut at: usize, mut path: Vec<String>, references: &mut Vec<Reference>) -> usize {
    let mut line = 0;
    while let Some(token) = tokens.get(at) {
        line = token.line;
        match token.text.as_str() {
            "{" => {
                at += 1;
                while tokens.get(at).is_some_and(|t| t.text != "}") {
                    at = tree(tokens, at, path.clone(), references).max(at + 1);
                    if tokens.get(at).is_some_and(|t| t.text == "as") {
                        at += 2;
                    }
                    if tokens.get(at).is_some_and(|t| t.text == ",") {
                        at += 1;
                    }
                }
                return at + 1;
            }
            "self" => {}
            "super" => drop(path.pop()),
            name => path.push(name.to_owned()),
        }
        at += 1;
        if tokens.get(at).is_none_or(|t| t.text != "::") {
            break;
        }
        at += 1;
    }
    references.push(Reference { line, path });
    at
}
