//! `tenantry keys`: keys for the configuration's file, which need no server,
//! and keys of a running gateway.

use std::io::{self, IsTerminal, Read};
use std::time::{SystemTime, UNIX_EPOCH};

use chrono::DateTime;
use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Map, Value};

use tenantry::auth::{KeyHash, NewKey};

use super::api::Server;
use super::tenants::Priority;
use super::{Failure, note, say};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    server: Server,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a key, and print it this once with its line for the configuration
    New,
    /// Print a key's line for the configuration
    Hash {
        /// The key; left out, it is read from standard input, which keeps it
        /// out of the shell's history
        key: Option<String>,
    },
    /// List a tenant's keys
    List { tenant: String },
    /// Make a key of a tenant, and print it this once
    Create {
        tenant: String,
        /// What it is called
        name: String,
        #[arg(long, value_enum)]
        priority: Option<Priority>,
        #[command(flatten)]
        until: Until,
    },
    /// Make another key of a name, and print it this once
    Rotate {
        tenant: String,
        name: String,
        /// How long the one before holds: 30m, 24h, 7d, or 0
        #[arg(long, default_value = "1h", value_parser = length)]
        overlap: u64,
        #[command(flatten)]
        until: Until,
    },
    /// Have a key hold until another time
    Expire {
        tenant: String,
        name: String,
        #[command(flatten)]
        until: Until,
        /// Until it is revoked
        #[arg(long, conflicts_with = "expires_in", required_unless_present = "expires_in")]
        never: bool,
    },
    /// Take a key away, at once here and within the poll interval at other gateways
    Revoke { tenant: String, name: String },
}

#[derive(Debug, Args)]
struct Until {
    /// How long it holds: 30m, 24h, 90d. Left out: until it is revoked
    #[arg(long, value_name = "TIME", value_parser = length)]
    expires_in: Option<u64>,
}

pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { server, command } = arguments;
    match command {
        Command::New => new(),
        Command::Hash { key } => hash(key),
        command => server.run(async |api| {
            let keys = |tenant: &str| vec!["tenants".to_owned(), tenant.to_owned(), "keys".to_owned()];
            let of = |tenant: &str, more: &[&str]| {
                let mut path = keys(tenant);
                path.extend(more.iter().map(|part| (*part).to_owned()));
                path
            };
            let mut body = Map::new();
            let (method, path) = match &command {
                Command::New | Command::Hash { .. } => return Ok(()),
                Command::List { tenant } => (Method::GET, keys(tenant)),
                Command::Create { tenant, name, priority, until } => {
                    body.insert("name".to_owned(), name.as_str().into());
                    body.extend(priority.map(|priority| ("priority".to_owned(), priority.as_str().into())));
                    body.extend(until.field());
                    (Method::POST, keys(tenant))
                }
                Command::Rotate { tenant, name, overlap, until } => {
                    body.insert("overlap_seconds".to_owned(), (*overlap).into());
                    body.extend(until.field());
                    (Method::POST, of(tenant, &[name, "rotate"]))
                }
                Command::Expire { tenant, name, until, never } => {
                    body.extend(until.field());
                    if *never {
                        body.insert("expires".to_owned(), Value::Null);
                    }
                    (Method::PATCH, of(tenant, &[name]))
                }
                Command::Revoke { tenant, name } => (Method::DELETE, of(tenant, &[name])),
            };
            let path: Vec<&str> = path.iter().map(String::as_str).collect();
            let request = api.request(method.clone(), &path);
            let request = if method == Method::GET || method == Method::DELETE { request } else { request.json(&body) };
            let answer = api.send(request).await?;
            if server.json { say(&answer.to_string()) } else { tell(&answer) }
        }),
    }
}

fn tell(answer: &Value) -> Result<(), Failure> {
    if answer.is_null() {
        return say("done");
    }
    if let Some(key) = answer.get("key").and_then(Value::as_str) {
        note("The key, which is not kept anywhere and cannot be shown again:");
        say(key)?;
        note(&line(answer));
        return Ok(());
    }
    match answer.get("keys").and_then(Value::as_array) {
        Some(keys) => keys.iter().try_for_each(|key| say(&line(key))),
        None => say(&line(answer)),
    }
}

fn line(key: &Value) -> String {
    let text = |name: &str| key.get(name).and_then(Value::as_str).unwrap_or_default();
    let is = |name: &str| key.get(name) == Some(&Value::Bool(true));
    let time = |name: &str| key.get(name).and_then(Value::as_i64).map(day_and_time);
    let mut line = format!("{}  {}  {}", text("name"), text("origin"), text("fingerprint"));
    if let Some(priority) = key.get("priority").and_then(Value::as_str) {
        line += &format!("  {priority}");
    }
    if let Some(expires) = time("expires") {
        line += &format!("  {} {expires}", if is("expired") { "expired" } else { "expires" });
    }
    if is("replaced") {
        line += "  replaced";
    }
    line + &time("last_used").map_or("  not used".to_owned(), |used| format!("  used {used}"))
}

fn day_and_time(seconds: i64) -> String {
    DateTime::from_timestamp(seconds, 0)
        .map_or(seconds.to_string(), |time| time.format("%Y-%m-%dT%H:%M:%SZ").to_string())
}

fn new() -> Result<(), Failure> {
    let key = NewKey::generate().map_err(|error| Failure::Other(format!("no random bits: {error}")))?;
    note("The key, which is not kept anywhere and cannot be shown again, and its line for the tenant's `keys`:");
    say(key.text())?;
    say(&config_line(key.hash()))
}

fn hash(key: Option<String>) -> Result<(), Failure> {
    let key = key.map_or_else(key_from_input, Ok)?;
    let key = key.trim_ascii();
    if key.is_empty() || !key.bytes().all(|c| c.is_ascii_graphic()) {
        return Err(Failure::Other("a key is one or more visible ASCII characters".to_owned()));
    }
    say(&config_line(KeyHash::of(key.as_bytes())))
}

fn config_line(hash: KeyHash) -> String {
    format!("{{ sha256 = \"{hash}\" }}")
}

fn key_from_input() -> Result<String, Failure> {
    /// A longer text is no key but, say, the wrong file.
    const LONGEST: u64 = 4096;

    let input = io::stdin();
    if input.is_terminal() {
        note("The key, then Enter and Ctrl-D:");
    }
    let mut key = String::new();
    let read = input.take(LONGEST).read_to_string(&mut key);
    read.map_err(|error| Failure::Other(format!("standard input: {error}")))?;
    Ok(key)
}

/// Seconds.
pub(super) fn length(text: &str) -> Result<u64, String> {
    let expected = || "expected a length of time such as 30m, 24h or 7d".to_owned();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| expected())?;
    let unit = match &text[digits.len()..] {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        "" if number == 0 => 1,
        _ => return Err(expected()),
    };
    number.checked_mul(unit).ok_or_else(expected)
}

// === impl Until ===

impl Until {
    fn field(&self) -> Option<(String, Value)> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        self.expires_in.map(|seconds| ("expires".to_owned(), Value::from(now.saturating_add(seconds))))
    }
}
