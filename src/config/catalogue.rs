//! `[catalogue]`, where published adapters are kept, and `[redis]`, where limits
//! are shared.

use std::path::PathBuf;
use std::time::Duration;

use super::secret;
use super::section::{Section, bytes_in, duration_in, number, text};
use super::tree::Node;
use super::validate::Folder;
use super::workers::MIB;
use super::{CatalogueConfig, RedisConfig, S3Config, SecretRef};

/// The engine takes no larger adapters.
const MAX_ADAPTER_BYTES: u64 = 1_024 * MIB;

pub(super) fn catalogue(mut section: Section<'_>, folder: &Folder<'_>) -> CatalogueConfig {
    let data_dir = section.optional("data_dir", |node| folder.path(node));
    let database = section.optional("database", secret::reference(folder));
    let range = Duration::from_millis(50)..=Duration::from_secs(60);
    let poll_interval = section.optional("poll_interval", duration_in(range)).unwrap_or(Duration::from_millis(500));
    let max_adapter_bytes =
        section.optional("max_adapter_bytes", bytes_in(1..=MAX_ADAPTER_BYTES)).unwrap_or(MAX_ADAPTER_BYTES);
    let s3 = section.has("s3").then(|| s3(section.section("s3"), folder));
    section.finish();
    let data_dir = data_dir.unwrap_or_else(|| folder.0.join("tenantry-data"));
    CatalogueConfig { data_dir, database, s3, poll_interval, max_adapter_bytes }
}

fn s3(mut section: Section<'_>, folder: &Folder<'_>) -> S3Config {
    let bucket = section.required("bucket", text).unwrap_or_default();
    let prefix = section.optional("prefix", text).unwrap_or_default();
    let endpoint = section.optional("endpoint", text);
    let region = section.optional("region", text).unwrap_or_else(|| "us-east-1".to_owned());
    // The placeholders are never read: a missing key is a problem.
    let mut key =
        |name| section.required(name, secret::reference(folder)).unwrap_or_else(|| SecretRef::File(PathBuf::new()));
    let (access_key, secret_key) = (key("access_key"), key("secret_key"));
    section.finish();
    S3Config { bucket, prefix, endpoint, region, access_key, secret_key }
}

pub(super) fn redis(mut section: Section<'_>, folder: &Folder<'_>) -> RedisConfig {
    // Never read, as above.
    let url = section.required("url", secret::reference(folder)).unwrap_or_else(|| SecretRef::File(PathBuf::new()));
    let prefix = section.optional("prefix", prefix).unwrap_or_else(|| "tenantry".to_owned());
    let gateways = section.optional("gateways", number(1..=1_000)).map_or(1, |gateways| gateways as u32);
    section.finish();
    RedisConfig { url, prefix, gateways }
}

/// It stands in braces, which keep a cluster from parting what belongs together.
fn prefix(node: &Node) -> Result<String, String> {
    let text = text(node)?;
    let plain = |c: char| c.is_ascii_graphic() && !['{', '}'].contains(&c);
    match !text.is_empty() && text.len() <= 64 && text.chars().all(plain) {
        true => Ok(text.to_owned()),
        false => Err("expected up to 64 characters of visible ASCII without braces".to_owned()),
    }
}
