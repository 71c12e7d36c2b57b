//! The ratings' room as the configuration wants it.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use tenantry_ratings::{
    Background, ContentPolicy, FileCompression, FileConfig, HttpConfig, KAFKA_TLS, KafkaConfig, KafkaLogin, KafkaTls,
    Keys, NatsConfig, NatsLogin, OpenError, Policy, Ratings, Rotation, SaslMechanism, SinkKind as Kind,
};

use super::StartError;
use crate::config::{self, Compression, Config, Mechanism, Problem, RatingsConfig, SecretRef, SinkConfig, SinkKind};
use crate::types::TenantId;

/// Gateways on one data_dir.
const MOST_SPOOLS: u32 = 64;
/// Random bytes of a key that is made here.
const KEY_BYTES: usize = 32;

/// Opens the spool; `None` where ratings are off.
pub(super) async fn open(config: &Config) -> Result<Option<(Ratings, Background)>, StartError> {
    let settings = &config.ratings;
    if !settings.enabled {
        return Ok(None);
    }
    let keys = keys(settings).map_err(StartError::Ratings)?;
    // Gateways on one data_dir have a spool each.
    for number in 1.. {
        let folder = if number == 1 { settings.folder.clone() } else { settings.folder.join(number.to_string()) };
        match open_in(settings, &folder, keys.clone()).await {
            Err(Failure::Open(OpenError::Held(_))) if number < MOST_SPOOLS => {}
            Err(Failure::Open(error)) => return Err(StartError::Ratings(error.to_string())),
            Err(Failure::Sink(error)) => return Err(StartError::Ratings(error)),
            Ok(opened) => return Ok(Some(opened)),
        }
    }
    Ok(None)
}

enum Failure {
    Open(OpenError),
    Sink(String),
}

async fn open_in(settings: &RatingsConfig, folder: &Path, keys: Keys) -> Result<(Ratings, Background), Failure> {
    let mut opened = tenantry_ratings::Config::new(folder);
    opened.source.clone_from(&settings.source);
    opened.max_bytes = settings.max_bytes;
    opened.most_unnamed = settings.unnamed_per_generation;
    opened.rate_within = settings.rate_within;
    opened.keep = settings.keep;
    opened.max_content_bytes = settings.max_content_bytes;
    for SinkConfig { name, kind } in &settings.sinks {
        let kind = sink(kind).map_err(|error| Failure::Sink(format!("sink {name}: {error}")))?;
        opened = opened.with_sink(name, kind);
    }
    Ratings::open(opened, keys).await.map_err(Failure::Open)
}

/// What each tenant's ratings may say, and what is kept of its texts.
pub(super) fn policies(config: &Config) -> HashMap<TenantId, Policy> {
    let policy = |rated: &crate::config::RatedTenant| Policy {
        labels: rated.labels.clone(),
        content: if rated.keep_content { ContentPolicy::Keep } else { ContentPolicy::Digest },
    };
    config.tenants.iter().map(|tenant| (tenant.id.clone(), policy(&tenant.ratings))).collect()
}

fn keys(settings: &RatingsConfig) -> Result<Keys, String> {
    let mut secrets = Vec::new();
    for secret in &settings.secrets {
        secrets.push(secret.read()?.expose().as_bytes().to_vec());
    }
    if secrets.is_empty() {
        let path = settings.folder.join("key");
        secrets.push(own_key(&path).map_err(|error| format!("{}: {error}", path.display()))?);
    }
    Keys::of(&secrets).map_err(|error| error.to_string())
}

/// The key in a file, made where it is not there. No one else may read it.
fn own_key(path: &Path) -> io::Result<Vec<u8>> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut key = [0; KEY_BYTES];
    getrandom::fill(&mut key).map_err(io::Error::other)?;
    match fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(mut file) => {
            file.write_all(&key)?;
            file.sync_all()?;
            Ok(key.to_vec())
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let key = fs::read(path)?;
            if key.len() == KEY_BYTES { Ok(key) } else { Err(io::Error::other("it is not a key that was made here")) }
        }
        Err(error) => Err(error),
    }
}

fn sink(kind: &SinkKind) -> Result<Kind, String> {
    let optional = |secret: &Option<SecretRef>| secret.as_ref().map(SecretRef::read).transpose();
    Ok(match kind {
        SinkKind::Stdout => Kind::Stdout,
        SinkKind::File { folder, rotate_bytes, rotate_after, compression } => Kind::File(FileConfig {
            folder: folder.clone(),
            rotation: Rotation {
                bytes: *rotate_bytes,
                age: *rotate_after,
                compression: match compression {
                    Compression::None => FileCompression::None,
                    Compression::Gzip => FileCompression::Gzip,
                    Compression::Zstd => FileCompression::Zstd,
                },
            },
        }),
        SinkKind::Http { url, key, timeout, batch } => Kind::Http(HttpConfig {
            url: url.read()?,
            keys: vec![key.read()?],
            headers: Vec::new(),
            timeout: *timeout,
            batch: *batch,
        }),
        SinkKind::Nats { servers, subject, stream, token, credentials } => Kind::Nats(NatsConfig {
            servers: servers.read()?,
            subject: subject.clone(),
            stream: stream.clone(),
            login: match (optional(token)?, optional(credentials)?) {
                (Some(token), _) => NatsLogin::Token(token),
                (None, Some(credentials)) => NatsLogin::Credentials(credentials),
                (None, None) => NatsLogin::None,
            },
        }),
        SinkKind::Kafka { brokers, topic, tls, login, options } => Kind::Kafka(KafkaConfig {
            brokers: brokers.clone(),
            topic: topic.clone(),
            tls: tls.as_ref().map(kafka_tls).transpose()?,
            login: login.as_ref().map(kafka_login).transpose()?,
            options: options
                .iter()
                .map(|(name, value)| Ok((name.clone(), value.read()?)))
                .collect::<Result<_, String>>()?,
        }),
    })
}

fn kafka_tls(tls: &config::KafkaTls) -> Result<KafkaTls, String> {
    let identity = tls.identity.as_ref().map(|(certificate, key)| Ok::<_, String>((certificate.read()?, key.read()?)));
    Ok(KafkaTls { ca: tls.ca.as_ref().map(SecretRef::read).transpose()?, identity: identity.transpose()? })
}

fn kafka_login(login: &config::KafkaLogin) -> Result<KafkaLogin, String> {
    let mechanism = match login.mechanism {
        Mechanism::Plain => SaslMechanism::Plain,
        Mechanism::ScramSha256 => SaslMechanism::ScramSha256,
        Mechanism::ScramSha512 => SaslMechanism::ScramSha512,
    };
    Ok(KafkaLogin { mechanism, username: login.username.read()?, password: login.password.read()? })
}

/// What the configuration asks for and this binary was built without.
pub(super) fn not_built(config: &Config) -> Option<Problem> {
    if KAFKA_TLS {
        return None;
    }
    config.ratings.sinks.iter().find_map(|SinkConfig { name, kind }| {
        let SinkKind::Kafka { tls, login, .. } = kind else { return None };
        let (key, what) = match (tls, login) {
            (Some(_), _) => ("tls", "TLS"),
            (None, Some(login)) if login.mechanism != Mechanism::Plain => ("mechanism", "SCRAM"),
            _ => return None,
        };
        let message = format!("this binary speaks no {what} to Kafka: build it with `--features kafka-tls`");
        Some(config.problem(&format!("ratings.sinks.{name}.{key}"), message))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_read_by_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ratings").join("key");
        let made = own_key(&path).expect("made");
        assert_eq!(own_key(&path).expect("read"), made);
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        fs::write(&path, "short").expect("written");
        assert!(own_key(&path).is_err());
    }
}
