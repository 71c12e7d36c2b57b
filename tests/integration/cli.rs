//! The command as its users run it.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use crate::support::{Server, quickstart_like, repository};

pub(crate) fn tenantry(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tenantry"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut stdin = child.stdin.take().expect("piped");
    // Commands that read nothing may have ended before they are written to.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    child.wait_with_output().expect("it ends")
}

pub(crate) fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

#[test]
fn check_tells_every_problem_and_exits_with_2() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("bad.toml");
    fs::write(&file, "tenants = []\n[server]\nlisten = \"nowhere\"\nport = 1\n").expect("written");
    let name = file.to_str().expect("UTF-8");

    let output = tenantry(&["check", name], "");
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(text(&output.stdout), "");
    let known = "listen, max_body_bytes, header_read_timeout, body_read_timeout, request_timeout, hold, cors";
    assert_eq!(
        text(&output.stderr),
        format!(
            "{name}: bases: missing\n\
             {name}:1: tenants: at least one entry is needed\n\
             {name}:3: server.listen: `nowhere` is not an IP address and a port, such as 127.0.0.1:8080\n\
             {name}:4: server.port: unknown key; known here: {known}\n"
        )
    );
}

#[test]
fn check_reads_the_adapters_too_and_tells_all_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let other_base = folder.path().join("other-base");
    copy_folder(&repository("config/quickstart/adapters/json"), &other_base);
    let config = fs::read_to_string(other_base.join("adapter_config.json")).expect("the adapter's configuration");
    let named = config.replace("HuggingFaceTB/SmolLM2-135M-Instruct", "meta-llama/Llama-3.2-1B");
    fs::write(other_base.join("adapter_config.json"), named).expect("written");
    let file = folder.path().join("bad.toml");
    let text = quickstart_like("")
        .replacen("listen = \"127.0.0.1:0\"", "listen = \"127.0.0.1:99999\"\nport = 1", 1)
        .replace("sk-demo-globex", "sk-demo-acme")
        .replacen("adapter = \"rhyme\" }", "adapter = \"nobody\" }", 1)
        .replacen(&format!("path = {:?}", repository("config/quickstart/adapters/pirate")), "path = \"gone\"", 1)
        .replacen(&format!("path = {:?}", repository("config/quickstart/adapters/json")), "path = \"other-base\"", 1);
    fs::write(&file, text).expect("written");
    for arguments in [vec!["check"], vec!["serve", "--config"]] {
        let output = tenantry(&[&arguments[..], &[file.to_str().expect("UTF-8")]].concat(), "");
        assert_eq!(output.status.code(), Some(2));
        let told = self::text(&output.stderr);
        for part in [
            "server.listen: `127.0.0.1:99999` is not an IP address and a port",
            "server.port: unknown key",
            "tenants[1].keys[0].demo: ",
            "tenants[2].models.assistant.adapter: ",
            "tenants[0].adapters[0].path: ",
            "tenants[1].adapters[0].path: ",
            "meta-llama/Llama-3.2-1B",
        ] {
            assert!(told.contains(part), "{part} is not in\n{told}");
        }
        assert_eq!(told.lines().count(), 6, "{told}");
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir(to).expect("made");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
    }
}

#[test]
fn check_of_a_missing_file_exits_with_2() {
    let output = tenantry(&["check", "/nowhere.toml"], "");
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(text(&output.stderr), "/nowhere.toml: cannot be read: No such file or directory (os error 2)\n");
}

#[test]
fn a_new_key_comes_with_its_line_for_the_configuration() {
    let output = tenantry(&["keys", "new"], "");
    assert!(output.status.success());
    let mut lines = text(&output.stdout).lines();
    let (key, line) = (lines.next().expect("a key"), lines.next().expect("a line"));
    assert!(key.starts_with("sk-tenantry-"), "{key}");

    let hashed = tenantry(&["keys", "hash"], &format!("{key}\n"));
    assert_eq!(text(&hashed.stdout).trim_end(), line);
}

#[test]
fn a_key_is_hashed_from_standard_input_or_an_argument() {
    let line = "{ sha256 = \"d4ffc8c0325f7e8e971bb4d7bc9f6a78c97920b5ac57b24380e53b6c7a96bc13\" }\n";
    let piped = tenantry(&["keys", "hash"], "sk-demo-acme\n");
    assert_eq!(text(&piped.stdout), line);
    assert_eq!(text(&tenantry(&["keys", "hash", "sk-demo-acme"], "").stdout), line);

    let empty = tenantry(&["keys", "hash"], "\n");
    assert_eq!(empty.status.code(), Some(1));
    assert_eq!(text(&empty.stderr), "tenantry: a key is one or more visible ASCII characters\n");
}

#[test]
fn an_unknown_command_exits_with_2_and_names_it() {
    let output = tenantry(&["sreve"], "");
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("sreve"));
}

#[test]
fn texts_are_judged_in_their_order_and_a_bad_line_is_named() {
    let lines = ["you are a stupid worthless idiot", "The train leaves at nine.", "", "fuck off, you m0r0n"];
    let input: String = lines.iter().map(|line| serde_json::json!({ "text": line }).to_string() + "\n").collect();
    let output = tenantry(&["guard", "score"], &input);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let verdicts: Vec<serde_json::Value> =
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let actions: Vec<_> = verdicts.iter().map(|verdict| verdict["action"].as_str().expect("a word")).collect();
    assert_eq!(actions, ["block", "pass", "pass", "block"], "{verdicts:?}");
    for verdict in &verdicts {
        let score = verdict["score"].as_f64().expect("a number");
        let first = verdict["stage1"].as_f64().expect("a number");
        let second = verdict["stage2"].as_f64();
        assert!((0.0..=1.0).contains(&score) && second.is_some() == (first >= 0.2), "{verdict}");
        assert!(second.is_some() || score == first, "{verdict}");
        let categories = verdict["categories"].as_object().expect("by name");
        assert!(categories.values().all(|likely| likely.as_f64().is_some_and(|likely| likely <= score)), "{verdict}");
    }

    let output = tenantry(&["guard", "score", "--every"], &input);
    let verdicts =
        text(&output.stdout).lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
    assert_eq!(verdicts.filter(|verdict| verdict["stage2"].is_f64()).count(), 4, "{}", text(&output.stderr));

    let output = tenantry(&["guard", "score", "--stage2", "nowhere"], &input);
    assert!(!output.status.success() && text(&output.stderr).contains("stage 2: cannot read nowhere/config.json"));

    let output = tenantry(&["guard", "score"], "{\"text\": \"fine\"}\n{\"txt\": 1}\n{\"text\": \"good\"}\n{\n");
    assert_eq!((output.status.code(), text(&output.stdout).lines().count()), (Some(1), 2), "the rest goes on");
    let told = text(&output.stderr);
    for part in ["line 2: expected {\"text\": \"…\"}", "line 4: ", "2 lines could not be judged"] {
        assert!(told.contains(part), "{part} is not in {told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_says_by_its_exit_code_how_a_gateway_is() {
    let away = "[bases.away]\n[workers.away]\ndriver = \"grpc\"\nbases = [\"away\"]\nurl = \"http://127.0.0.1:9\"\n";
    let served = "away = { base = \"away\" }\n\"acme-only\" = {";
    let config = quickstart_like(away).replacen("\"acme-only\" = {", served, 1);
    Server::with_config(&config, |server| async move {
        let ops = format!("http://{}/", server.addresses().ops);
        let health = async |more: &'static [&'static str]| {
            let ops = ops.clone();
            let asked = move || tenantry(&[&["health", "--server", ops.as_str()], more].concat(), "");
            tokio::task::spawn_blocking(asked).await.expect("it runs")
        };
        let output = health(&[]).await;
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), "ok\n"));
        // It runs, and one base model has no worker, once that was found out.
        let mut output = health(&["--ready"]).await;
        for _ in 0..100 {
            if !output.status.success() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            output = health(&["--ready"]).await;
        }
        let told = text(&output.stderr);
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(1), ""));
        assert!(told.contains("away") && told.contains("(503)"), "{told}");
    })
    .await;
    let output = tenantry(&["health", "--server", "http://127.0.0.1:9"], "");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).starts_with("tenantry: http://127.0.0.1:9: "), "{}", text(&output.stderr));
}
