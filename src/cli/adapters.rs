//! `tenantry adapters`: the admin API from the command line.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use reqwest::multipart::{Form, Part};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use super::api::{Api, Server, other};
use super::{Failure, say};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    server: Server,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Publish a PEFT folder, a .tar or .tar.gz of one, or a place in the artifact store
    Publish {
        #[arg(long)]
        tenant: String,
        #[arg(long)]
        name: String,
        /// The base model that it was trained on, by the gateway's name for it
        #[arg(long)]
        base: String,
        /// Refuse it unless its digest is this
        #[arg(long)]
        digest: Option<String>,
        /// A folder, an archive, or an s3:// or store: place
        path: String,
    },
    /// List revisions and refused publishes
    List {
        #[arg(long)]
        tenant: Option<String>,
        #[arg(long)]
        name: Option<String>,
    },
    /// Have the name answer with one revision
    Pin {
        #[command(flatten)]
        of: Name,
        #[arg(long)]
        revision: u32,
    },
    /// Have the name answer with the newest revision again
    Latest {
        #[command(flatten)]
        of: Name,
    },
    /// Have the name answer with the revision before the one it answers with now
    Rollback {
        #[command(flatten)]
        of: Name,
    },
    /// Take a revision out of service; what runs on it finishes
    Retire {
        #[command(flatten)]
        of: Name,
        #[arg(long)]
        revision: u32,
    },
    /// Delete a retired revision
    Delete {
        #[command(flatten)]
        of: Name,
        #[arg(long)]
        revision: u32,
    },
}

#[derive(Debug, Args)]
struct Name {
    #[arg(long)]
    tenant: String,
    #[arg(long)]
    name: String,
}

pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { server, command } = arguments;
    server.run(async |api| {
        let answer = ask(&api, command).await?;
        if server.json { say(&answer.to_string()) } else { tell(&answer) }
    })
}

async fn ask(api: &Api, command: Command) -> Result<Value, Failure> {
    let serving = |of: &Name, revision: Value| {
        api.request(Method::POST, &["adapters", &of.tenant, &of.name, "serving"]).json(&json!({ "revision": revision }))
    };
    let revision = |method, of: &Name, revision: u32, more: &[&str]| {
        let number = revision.to_string();
        let mut path = vec!["adapters", &of.tenant, &of.name, &number];
        path.extend(more);
        api.request(method, &path)
    };
    let request = match command {
        Command::Publish { tenant, name, base, digest, path } => {
            publish(api, tenant, name, base, digest, &path).await?
        }
        Command::List { tenant, name } => {
            let filter = [("tenant", tenant), ("name", name)];
            let filter: Vec<_> = filter.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
            api.request(Method::GET, &["adapters"]).query(&filter)
        }
        Command::Pin { of, revision } => serving(&of, revision.into()),
        Command::Latest { of } => serving(&of, "latest".into()),
        Command::Rollback { of } => serving(&of, "previous".into()),
        Command::Retire { of, revision: number } => revision(Method::POST, &of, number, &["retire"]),
        Command::Delete { of, revision: number } => revision(Method::DELETE, &of, number, &[]),
    };
    api.send(request).await
}

async fn publish(
    api: &Api,
    tenant: String,
    name: String,
    base: String,
    digest: Option<String>,
    path: &str,
) -> Result<RequestBuilder, Failure> {
    let request = api.request(Method::POST, &["adapters"]);
    if path.starts_with("s3://") || path.starts_with("store:") {
        let body = json!({ "tenant": tenant, "name": name, "base": base, "uri": path, "digest": digest });
        return Ok(request.json(&body));
    }
    let mut form = Form::new().text("tenant", tenant).text("name", name).text("base", base);
    if let Some(digest) = digest {
        form = form.text("digest", digest);
    }
    let path = Path::new(path);
    if path.is_file() {
        return Ok(request.multipart(form.part("archive", part(path)?)));
    }
    let mut found = false;
    // A pickle is sent by name alone, for the server to say what is wrong with it.
    for file in ["adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"] {
        let file_path: PathBuf = path.join(file);
        if file_path.is_file() {
            found = true;
            let part = if file.ends_with(".bin") { Part::bytes(Vec::new()) } else { part(&file_path)? };
            form = form.part(file, part.file_name(file));
        }
    }
    if !found {
        return Err(other(format!("{}: has no adapter_config.json", path.display())));
    }
    Ok(request.multipart(form))
}

fn part(path: &Path) -> Result<Part, Failure> {
    let bytes = std::fs::read(path).map_err(|error| other(format!("{}: {error}", path.display())))?;
    Ok(Part::bytes(bytes).file_name("file"))
}

fn tell(answer: &Value) -> Result<(), Failure> {
    let Some(adapters) = answer.get("adapters").and_then(Value::as_array) else {
        return if answer.is_null() { say("done") } else { say(&line(answer)) };
    };
    for adapter in adapters {
        say(&line(adapter))?;
    }
    for refused in answer.get("refused").and_then(Value::as_array).into_iter().flatten() {
        let text = |name: &str| refused.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        say(&format!("{}/{}  refused  {} ({})", text("tenant"), text("name"), text("reason"), text("code")))?;
    }
    Ok(())
}

fn line(adapter: &Value) -> String {
    let text = |name: &str| adapter.get(name).and_then(Value::as_str).unwrap_or_default();
    let number = |name: &str| adapter.get(name).and_then(Value::as_u64).unwrap_or_default();
    let is = |name: &str| adapter.get(name) == Some(&Value::Bool(true));
    let workers: Vec<&str> =
        adapter.get("resident_on").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let state = match workers.is_empty() {
        true => text("state").to_owned(),
        false => format!("{} on {}", text("state"), workers.join(", ")),
    };
    let serving = match (is("serving"), is("pinned")) {
        (true, true) => "  serving (pinned)",
        (true, false) => "  serving",
        (false, _) => "",
    };
    format!(
        "{}/{}@{}  {state}{serving}  base {}  rank {}  digest {}",
        text("tenant"),
        text("name"),
        number("revision"),
        text("base"),
        number("rank"),
        text("digest").get(..12).unwrap_or_default()
    )
}
