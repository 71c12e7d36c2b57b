//! A real engine, started by one of the scripts.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tenantry::types::BaseName;
use tenantry::worker::RemoteConfig;

use crate::conformance::{FIRST, STALL};

/// A server started by one of our scripts, and all that it started.
pub(crate) struct Engine {
    script: &'static str,
    arguments: &'static [&'static str],
    port: u16,
    child: Child,
}

// === impl Engine ===

impl Engine {
    pub(crate) fn start(script: &'static str, arguments: &'static [&'static str]) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        drop(listener);
        Self { script, arguments, port, child: Self::spawn(script, port, arguments) }
    }

    fn spawn(script: &str, port: u16, arguments: &[&str]) -> Child {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(script);
        Command::new("bash")
            .arg(script)
            .arg(port.to_string())
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("the script runs")
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn restart(&mut self) -> u32 {
        self.end();
        self.child = Self::spawn(self.script, self.port, self.arguments);
        self.child.id()
    }

    /// Ends the process group: an engine may have several processes.
    fn end(&mut self) {
        let group = format!("-{}", self.child.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub(crate) fn remote(&self, path: &str) -> RemoteConfig {
        RemoteConfig {
            url: format!("http://127.0.0.1:{}{path}", self.port),
            key: None,
            models: vec![(BaseName::new("smollm2"), "smollm2".to_owned())],
            connect_timeout: Duration::from_secs(2),
            first_byte_timeout: FIRST,
            // A vLLM on two cores was seen to be silent for 6 s while it loaded.
            stall_timeout: STALL * 3,
            load_timeout: Duration::from_secs(30),
            poll_interval: Duration::from_millis(200),
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.end();
    }
}
