//! `[ratings]`: where ratings and the events of generations go.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use super::section::{Entry, Findings, Section, boolean, bytes_in, choice, duration_in, number, text};
use super::tree::Node;
use super::validate::{Folder, id};
use super::{SecretRef, secret, tree};

/// Where ratings and the events of generations go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RatingsConfig {
    pub enabled: bool,
    /// Of the spool; on a local disk.
    pub folder: PathBuf,
    /// The events' `source`.
    pub source: String,
    /// The first signs; empty: a key of this gateway's own, in `folder`.
    pub secrets: Vec<SecretRef>,
    pub max_bytes: u64,
    /// Ratings of one generation that name no end user.
    pub unnamed_per_generation: u32,
    pub rate_within: Duration,
    pub keep: Duration,
    pub max_content_bytes: usize,
    pub sinks: Vec<SinkConfig>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkConfig {
    pub name: String,
    pub kind: SinkKind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SinkKind {
    File {
        folder: PathBuf,
        rotate_bytes: u64,
        rotate_after: Duration,
        compression: Compression,
    },
    Stdout,
    Http {
        url: SecretRef,
        key: SecretRef,
        timeout: Duration,
        /// Events of one request.
        batch: usize,
    },
    Nats {
        servers: SecretRef,
        subject: String,
        stream: Option<String>,
        token: Option<SecretRef>,
        credentials: Option<SecretRef>,
    },
    Kafka {
        brokers: String,
        topic: String,
        tls: Option<KafkaTls>,
        login: Option<KafkaLogin>,
        options: BTreeMap<String, SecretRef>,
    },
}

/// Of a file sink's older files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

/// PEM; without `ca` the machine's own certificates count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KafkaTls {
    pub ca: Option<SecretRef>,
    /// The gateway's own certificate and its key.
    pub identity: Option<(SecretRef, SecretRef)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KafkaLogin {
    pub mechanism: Mechanism,
    pub username: SecretRef,
    pub password: SecretRef,
}

/// Of SASL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    Plain,
    ScramSha256,
    ScramSha512,
}

/// What ratings of a tenant may say, and what events keep of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RatedTenant {
    pub labels: BTreeSet<String>,
    pub keep_content: bool,
}

const MIB: u64 = 1 << 20;
const HOUR: Duration = Duration::from_secs(3600);
const KINDS: [(&str, Kind); 5] = [
    ("file", Kind::File),
    ("stdout", Kind::Stdout),
    ("http", Kind::Http),
    ("nats", Kind::Nats),
    ("kafka", Kind::Kafka),
];
const COMPRESSIONS: [(&str, Compression); 3] =
    [("gzip", Compression::Gzip), ("zstd", Compression::Zstd), ("none", Compression::None)];
const MECHANISMS: [(&str, Mechanism); 3] =
    [("plain", Mechanism::Plain), ("scram-sha-256", Mechanism::ScramSha256), ("scram-sha-512", Mechanism::ScramSha512)];
/// Labels that a tenant may have, and bytes of each.
const MOST_LABELS: usize = 1000;
const LONGEST_LABEL: usize = 64;

#[derive(Debug, Clone, Copy)]
enum Kind {
    File,
    Stdout,
    Http,
    Nats,
    Kafka,
}

pub(super) fn ratings<'a>(
    mut section: Section<'a>,
    folder: &Folder<'_>,
    data_dir: &std::path::Path,
    findings: &'a Findings<'a>,
) -> RatingsConfig {
    let enabled = section.optional("enabled", boolean).unwrap_or(true);
    let spool = section.optional("folder", |node| folder.path(node));
    let source = section.optional("source", source).unwrap_or_else(|| "/tenantry".to_owned());
    let mut secrets = Vec::new();
    for Entry { path, node } in section.list("secrets") {
        secrets.extend(findings.check(&path, secret::reference(folder)(node)));
    }
    let max_bytes = section.optional("max_bytes", bytes_in(MIB..=1 << 40)).unwrap_or(1 << 30);
    let unnamed = section.optional("unnamed_per_generation", number(0..=1_000_000)).unwrap_or(10_000);
    let days = HOUR..=HOUR * 24 * 3650;
    let rate_within = section.optional("rate_within", duration_in(days.clone())).unwrap_or(HOUR * 24 * 30);
    let keep = section.optional("keep", duration_in(days)).unwrap_or(HOUR * 24 * 60);
    let longest = section.optional("max_content_bytes", bytes_in(0..=16 * MIB)).unwrap_or(MIB / 2);
    let mut sinks = Vec::new();
    for (name, entry) in section.named("sinks") {
        findings.check(&entry.path, id(name));
        sinks.extend(sink(name, Section::of(entry, findings), folder));
    }
    for (at, one) in sinks.iter().enumerate() {
        let SinkKind::File { folder, .. } = &one.kind else { continue };
        let same =
            |other: &&SinkConfig| matches!(&other.kind, SinkKind::File { folder: theirs, .. } if theirs == folder);
        if let Some(first) = sinks[..at].iter().find(same) {
            let path = tree::join(&tree::join("ratings.sinks", &one.name), "folder");
            findings.add(&path, format!("the sink `{}` writes to this folder already", first.name));
        }
    }
    if keep < rate_within {
        findings.add(&section.child("keep"), "is shorter than `rate_within`: a rating would miss its generation");
    }
    section.finish();
    RatingsConfig {
        enabled,
        folder: spool.unwrap_or_else(|| data_dir.join("ratings")),
        source,
        secrets,
        max_bytes,
        unnamed_per_generation: unnamed as u32,
        rate_within,
        keep,
        max_content_bytes: longest as usize,
        sinks,
    }
}

fn sink(name: &str, mut section: Section<'_>, folder: &Folder<'_>) -> Option<SinkConfig> {
    let kind = section.required("kind", choice(&KINDS))?;
    let nothing = || SecretRef::File(PathBuf::new());
    let kind = match kind {
        Kind::Stdout => SinkKind::Stdout,
        Kind::File => SinkKind::File {
            // Never used where it is missing: that is a problem.
            folder: section.required("folder", |node| folder.path(node)).unwrap_or_default(),
            rotate_bytes: section.optional("rotate_bytes", bytes_in(MIB / 16..=1 << 40)).unwrap_or(64 * MIB),
            rotate_after: section
                .optional("rotate_after", duration_in(Duration::from_secs(1)..=HOUR * 24 * 365))
                .unwrap_or(HOUR * 24),
            compression: section.optional("compression", choice(&COMPRESSIONS)).unwrap_or(Compression::Gzip),
        },
        Kind::Http => SinkKind::Http {
            url: section.required("url", secret::reference(folder)).unwrap_or_else(nothing),
            key: section.required("key", secret::reference(folder)).unwrap_or_else(nothing),
            timeout: section
                .optional("timeout", duration_in(Duration::from_millis(100)..=Duration::from_secs(300)))
                .unwrap_or(Duration::from_secs(10)),
            batch: section.optional("batch", number(1..=256)).unwrap_or(1) as usize,
        },
        Kind::Nats => SinkKind::Nats {
            servers: section.required("servers", secret::reference(folder)).unwrap_or_else(nothing),
            subject: section.optional("subject", text).unwrap_or_else(|| "tenantry".to_owned()),
            stream: section.optional("stream", text),
            token: section.optional("token", secret::reference(folder)),
            credentials: section.optional("credentials", secret::reference(folder)),
        },
        Kind::Kafka => {
            let brokers = section.required("brokers", text).unwrap_or_default();
            let topic = section.optional("topic", text).unwrap_or_else(|| "tenantry-events".to_owned());
            let tls = section.has("tls").then(|| kafka_tls(section.section("tls"), folder));
            let login = kafka_login(&mut section, folder);
            let mut options = BTreeMap::new();
            for (option, entry) in section.named("options") {
                if let Some(value) = section.check(&entry.path, secret::reference(folder)(entry.node)) {
                    options.insert(option.to_owned(), value);
                }
            }
            SinkKind::Kafka { brokers, topic, tls, login, options }
        }
    };
    section.finish();
    Some(SinkConfig { name: name.to_owned(), kind })
}

fn kafka_tls(mut section: Section<'_>, folder: &Folder<'_>) -> KafkaTls {
    let ca = section.optional("ca", secret::reference(folder));
    let (certificate, key) = (section.has("certificate"), section.has("key"));
    if certificate != key {
        let (missing, other) = if key { ("certificate", "key") } else { ("key", "certificate") };
        section.check::<()>(&section.child(missing), Err(format!("missing: `{other}` is of no use without it")));
    }
    let certificate = section.optional("certificate", secret::reference(folder));
    let key = section.optional("key", secret::reference(folder));
    section.finish();
    KafkaTls { ca, identity: certificate.zip(key) }
}

fn kafka_login(section: &mut Section<'_>, folder: &Folder<'_>) -> Option<KafkaLogin> {
    let (username, password) = (section.has("username"), section.has("password"));
    if username != password {
        let (missing, other) = if password { ("username", "password") } else { ("password", "username") };
        section.check::<()>(&section.child(missing), Err(format!("missing: `{other}` is of no use without it")));
    }
    let username = section.optional("username", secret::reference(folder));
    let password = section.optional("password", secret::reference(folder));
    let mechanism = section.optional("mechanism", choice(&MECHANISMS)).unwrap_or(Mechanism::ScramSha512);
    let (username, password) = username.zip(password)?;
    Some(KafkaLogin { mechanism, username, password })
}

/// Which labels a tenant's ratings may have, and whether its texts are kept.
pub(super) fn of_tenant<'a>(mut section: Section<'a>, findings: &'a Findings<'a>) -> RatedTenant {
    let labels_path = section.child("labels");
    let mut labels = BTreeSet::new();
    for Entry { path, node } in section.list("labels") {
        labels.extend(findings.check(&path, label(node)));
    }
    if labels.len() > MOST_LABELS {
        findings.add(&labels_path, format!("at most {MOST_LABELS} labels, got {}", labels.len()));
    }
    let keep_content = section.optional("keep_content", boolean).unwrap_or(false);
    section.finish();
    RatedTenant { labels, keep_content }
}

fn label(node: &Node) -> Result<String, String> {
    let label = text(node)?;
    let plain = !label.trim().is_empty() && label.len() <= LONGEST_LABEL && !label.chars().any(char::is_control);
    if plain { Ok(label) } else { Err(format!("a label has 1 to {LONGEST_LABEL} bytes and no control characters")) }
}

fn source(node: &Node) -> Result<String, String> {
    let source = text(node)?;
    let plain = !source.is_empty() && source.len() <= 256 && source.bytes().all(|byte| byte.is_ascii_graphic());
    if plain { Ok(source) } else { Err("expected a URI reference of up to 256 characters".to_owned()) }
}

// === impl RatingsConfig ===

impl RatingsConfig {
    /// Every secret with the path of the key that names it.
    pub(super) fn secrets(&self) -> Vec<(String, &SecretRef)> {
        let mut all: Vec<(String, &SecretRef)> =
            self.secrets.iter().enumerate().map(|(at, secret)| (format!("ratings.secrets[{at}]"), secret)).collect();
        for SinkConfig { name, kind } in &self.sinks {
            let path = tree::join("ratings.sinks", name);
            let of: Vec<(&str, &SecretRef)> = match kind {
                SinkKind::File { .. } | SinkKind::Stdout => Vec::new(),
                SinkKind::Http { url, key, .. } => vec![("url", url), ("key", key)],
                SinkKind::Nats { servers, token, credentials, .. } => {
                    let optional = [("token", token), ("credentials", credentials)].into_iter();
                    let given = optional.filter_map(|(key, secret)| Some((key, secret.as_ref()?)));
                    [("servers", servers)].into_iter().chain(given).collect()
                }
                SinkKind::Kafka { tls, login, options, .. } => {
                    let (tls_path, path) = (tree::join(&path, "tls"), tree::join(&path, "options"));
                    all.extend(options.iter().map(|(name, secret)| (tree::join(&path, name), secret)));
                    let identity = tls.iter().filter_map(|tls| tls.identity.as_ref());
                    let of_tls = tls.iter().filter_map(|tls| Some(("ca", tls.ca.as_ref()?)));
                    let of_tls = of_tls
                        .chain(identity.flat_map(|(certificate, key)| [("certificate", certificate), ("key", key)]));
                    all.extend(of_tls.map(|(key, secret)| (tree::join(&tls_path, key), secret)));
                    let login = login.iter();
                    login.flat_map(|it| [("username", &it.username), ("password", &it.password)]).collect()
                }
            };
            all.extend(of.into_iter().map(|(key, secret)| (tree::join(&path, key), secret)));
        }
        all
    }
}
