//! Clients that are not ours: OpenAI's for Python and Node, Python's gRPC, a
//! browser. `make test` installs them and says where they are.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sha2::Digest;
use tokio::process::Command;

use crate::support::process::free_port;
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

pub(crate) fn python() -> PathBuf {
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
        let mut command = browser("playground.mjs", &server);
        command.arg(&shots);
        run(command).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_page_in_a_browser() {
    let _timed = crate::support::timed().await;
    let folder = tempfile::tempdir().expect("a folder");
    let key = "a-key-for-the-operators-of-this-test";
    let digest: String = sha2::Sha256::digest(key).iter().map(|byte| format!("{byte:02x}")).collect();
    let acme = "[tenants.models]\nassistant = { base = \"smollm2-135m\", adapter = \"pirate\" }";
    let config = quickstart_like(&format!(
        "[ratings]\nfolder = {:?}\n[ratings.sinks.file]\nkind = \"file\"\nfolder = {:?}\n",
        folder.path().join("spool"),
        folder.path().join("events"),
    ))
    .replace("[ops]\n", &format!("[ops]\nadmin_key = {{ sha256 = \"{digest}\" }}\n"))
    .replace(acme, &format!("[tenants.limits]\nrequests_per_minute = 5\n{acme}"));
    Server::with_config(&config, |server: Arc<Server>| async move {
        let mut command = browser("status.mjs", &server);
        command.arg(format!("http://{}", server.addresses().ops)).arg(key).arg(scratch("status"));
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

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_origin_rates_in_a_browser() {
    let _timed = crate::support::timed().await;
    let page = free_port();
    let cors = format!("[server.cors]\nallow_origins = [\"http://127.0.0.1:{page}\"]\n");
    Server::with_config(&quickstart_like(&cors), |server: Arc<Server>| async move {
        let mut command = browser("ratings.mjs", &server);
        command.arg(page.to_string());
        run(command).await;
    })
    .await;
}

/// A script that drives a browser, as acme.
fn browser(script: &str, server: &Server) -> Command {
    let mut command = Command::new("node");
    command.arg(repository("tests/clients/browser").join(script));
    command.arg(server.url("")).arg("sk-demo-acme");
    if let Some(chromium) = std::env::var_os("TENANTRY_TEST_CHROMIUM") {
        command.env("CHROMIUM", chromium);
    }
    command
}
