//! What several tests need: the repository's files, and a running Tenantry.

pub(crate) mod dns;
pub(crate) mod process;
mod server;
mod service;

use std::path::{Path, PathBuf};

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

pub(crate) use server::{Server, quickstart_like};
pub(crate) use service::Service;

/// Tests that hold the machine's time against a limit share it; one that keeps
/// it busy for minutes has it alone.
static MACHINE: RwLock<()> = RwLock::const_new(());

/// For a test that measures how soon something happens.
pub(crate) async fn timed() -> RwLockReadGuard<'static, ()> {
    MACHINE.read().await
}

/// For a test that keeps the machine busy.
pub(crate) async fn alone() -> RwLockWriteGuard<'static, ()> {
    MACHINE.write().await
}

/// A file of the repository.
pub(crate) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A client, once the process has a provider for its TLS.
pub(crate) fn http_client() -> reqwest::ClientBuilder {
    // A second call changes nothing.
    let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
}

/// A JSON fixture.
pub(crate) fn fixture<T: serde::de::DeserializeOwned>(path: &str) -> T {
    let path = repository("tests/fixtures").join(path);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Where tests may leave files for the next run.
pub(crate) fn scratch(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// The quickstart's base model, which `make test` fetches.
pub(crate) fn base_model() -> PathBuf {
    let path = std::env::var_os("TENANTRY_TEST_MODEL")
        .map_or_else(|| repository(".tenantry/models/SmolLM2-135M-Instruct.Q4_1.gguf"), PathBuf::from);
    assert!(path.exists(), "{} is missing; `make test` fetches it", path.display());
    path
}
