//! Servers of others that the gateway works with, each started by a script of ours.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::repository;

/// A server of this test's own, started by one of our scripts.
pub(crate) struct Service {
    script: &'static str,
    arguments: Vec<String>,
    process: std::process::Child,
    folder: tempfile::TempDir,
    pub(crate) port: u16,
}

// === impl Service ===

impl Service {
    pub(crate) fn start(script: &'static str) -> Self {
        Self::start_with(script, Vec::new())
    }

    /// With what the script wants after its folder and port.
    pub(crate) fn start_with(script: &'static str, arguments: Vec<String>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port").port();
        // Another user may own what is in it.
        let data = folder.path().join("data");
        std::fs::create_dir(&data).expect("made");
        let open = std::process::Command::new("chmod").arg("755").arg(folder.path()).status();
        assert!(open.expect("chmod runs").success());
        let process = Self::spawn(script, &data, port, &arguments);
        Self { script, arguments, process, folder, port }
    }

    fn spawn(script: &str, data: &Path, port: u16, arguments: &[String]) -> std::process::Child {
        let services = std::env::var_os("TENANTRY_TEST_DATA").unwrap_or_else(|| repository(".tenantry").into());
        std::process::Command::new("bash")
            .arg(repository("scripts").join(script))
            .arg(data)
            .arg(port.to_string())
            .args(arguments)
            .env("DATA_DIR", services)
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("the script runs; `make test` installs the services")
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Waits until somebody listens.
    pub(crate) async fn up(&self) {
        let since = Instant::now();
        while tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
            assert!(since.elapsed() < Duration::from_secs(30), "{} comes up; `make test` installs it", self.script);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) fn stop(&mut self) {
        let ended = std::process::Command::new("kill").args(["-INT", &self.process.id().to_string()]).status();
        assert!(ended.expect("kill runs").success());
        self.process.wait().expect("it ends");
    }

    /// Ends it as a crash would.
    pub(crate) fn kill(&mut self) {
        self.process.kill().expect("it ran");
        self.process.wait().expect("it ends");
    }

    pub(crate) fn start_again(&mut self) {
        self.process = Self::spawn(self.script, &self.data(), self.port, &self.arguments);
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if self.process.try_wait().is_ok_and(|ended| ended.is_none()) {
            self.stop();
        }
    }
}
