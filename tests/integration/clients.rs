//! Clients that are not ours: OpenAI's for Python and Node, Python's gRPC, a
//! browser. `make test` installs them and says where they are.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::process::Command;

use crate::support::{Server, quickstart_like, repository, scratch};

/// Runs a client to its end; its output is shown where it fails.
async fn run(mut command: Command) {
    command.stdin(std::process::Stdio::null()).kill_on_drop(true);
    let shown = format!("{command:?}");
    let output = tokio::time::timeout(Duration::from_secs(240), command.output()).await;
    let output = output.unwrap_or_else(|_| panic!("{shown}: not done after four minutes")).expect("it starts");
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success(), "{shown}: {}\n{text}", output.status);
}

fn python() -> PathBuf {
    std::env::var_os("TENANTRY_TEST_PYTHON").map_or_else(|| repository(".tenantry/venv/bin/python"), PathBuf::from)
}

fn openai(mut command: Command, server: &Server) -> Command {
    command.args(["--base-url", &server.url("/v1"), "--key", "sk-demo-acme", "--model", "assistant"]);
    command.args(["--foreign-model", "globex-only"]);
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stock_openai_client_for_python() {
    let _timed = crate::support::timed().await;
    let limited = "[[tenants]]\nid = \"limited\"\nkeys = [{ demo = \"sk-demo-limited\" }]\n\
                   limits = { requests_per_second = 2 }\nmodels = { base = { base = \"smollm2-135m\" } }\n";
    Server::with_config(&quickstart_like(limited), |server: Arc<Server>| async move {
        let mut command = Command::new(python());
        command.arg(repository("tests/clients/openai_python/client.py"));
        let mut command = openai(command, &server);
        command.args(["--limited-key", "sk-demo-limited", "--limited-model", "base"]);
        run(command).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stock_openai_client_for_node() {
    let _timed = crate::support::timed().await;
    Server::with(|server: Arc<Server>| async move {
        let mut command = Command::new("node");
        command.arg(repository("tests/clients/openai_node/client.mjs"));
        run(openai(command, &server)).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pythons_grpc_client_with_stubs_from_our_protos() {
    let _timed = crate::support::timed().await;
    Server::with(|server: Arc<Server>| async move {
        let mut command = Command::new(python());
        command.arg(repository("tests/clients/grpc/client.py"));
        command.args([&server.addresses().public.to_string(), "sk-demo-acme", "assistant"]);
        run(command).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_playground_in_a_browser() {
    let _timed = crate::support::timed().await;
    Server::with(|server: Arc<Server>| async move {
        let shots = scratch("playground");
        let mut command = Command::new("node");
        command.arg(repository("tests/clients/browser/playground.mjs"));
        command.arg(server.url("")).arg("sk-demo-acme").arg(&shots);
        if let Some(chromium) = std::env::var_os("TENANTRY_TEST_CHROMIUM") {
            command.env("CHROMIUM", chromium);
        }
        run(command).await;
    })
    .await;
}

/// What schemathesis makes up from our OpenAPI document, on a tiny model.
#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_made_up_from_the_openapi_document() {
    let folder = tempfile::tempdir().expect("a folder");
    let model = crate::sharing::tiny(folder.path());
    let key = "sk-admin-of-the-test";
    let hash = tenantry::auth::KeyHash::of(key.as_bytes());
    let config = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\nrequest_timeout = \"20s\"\n[ops]\nlisten = \"127.0.0.1:0\"\n\
         admin_key = {{ sha256 = \"{hash}\" }}\n[bases.tiny]\npath = {model:?}\n[workers.local]\ndriver = \"embedded\"\n\
         bases = [\"tiny\"]\nthreads = 1\ncontext = 64\n[guard.policies.house]\nprompt = {{ action = \"flag\" }}\n\
         [reload]\nwatch = false\n[[tenants]]\nid = \"acme\"\nkeys = [{{ demo = \"sk-demo-acme\" }}]\n\
         [tenants.models]\nassistant = {{ base = \"tiny\" }}\n"
    );
    Server::with_config(&config, |server: Arc<Server>| async move {
        let mut command = Command::new(python());
        command.arg(repository("tests/clients/openapi/client.py"));
        command.args(["--public", &server.url(""), "--operations", &format!("http://{}", server.addresses().ops)]);
        command.args(["--key", "sk-demo-acme", "--admin-key", key]);
        run(command).await;
    })
    .await;
}
