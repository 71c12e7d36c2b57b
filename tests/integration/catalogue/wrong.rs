//! Everything that can be wrong with an artifact, each with its exact reason,
//! while traffic goes on.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

use super::{admin, artifact, asked, publish, publish_with, sent};
use crate::support::Server;

/// Not a number, in half precision.
const F16_NAN: u16 = 0x7e00;

/// An artifact with one thing wrong.
pub(super) fn spoilt(change: impl FnOnce(&Path)) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        fs::copy(artifact("pirate").join(file), folder.path().join(file)).expect("copied");
    }
    change(folder.path());
    folder
}

pub(super) fn edit_config(folder: &Path, from: &str, to: &str) {
    let path = folder.join("adapter_config.json");
    let text = fs::read_to_string(&path).expect("read");
    assert!(text.contains(from), "{text}");
    fs::write(path, text.replace(from, to)).expect("written");
}

fn edit_weights(folder: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let path = folder.join("adapter_model.safetensors");
    let mut bytes = fs::read(&path).expect("read");
    change(&mut bytes);
    fs::write(path, bytes).expect("written");
}

/// Replaces in the head, where lengths stay the same.
fn edit_head(folder: &Path, from: &str, to: &str) {
    assert_eq!(from.len(), to.len());
    edit_weights(folder, |bytes| {
        let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).expect("in the head");
        bytes[at..at + from.len()].copy_from_slice(to.as_bytes());
    });
}

/// A stream's whole text, once it has ended as it should.
async fn streamed(server: &Server) -> String {
    let body = json!({
        "model": "acme-only", "prompt": "Once", "stream": true, "temperature": 0, "max_tokens": 100, "ignore_eos": true,
    });
    let response = server.post("acme", "/v1/completions", &body).await;
    assert_eq!(response.status(), 200);
    let stream = response.text().await.expect("it is not cut off");
    let frames: Vec<&str> = stream.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    let (done, frames) = frames.split_last().expect("frames");
    assert_eq!(*done, "[DONE]");
    let text = |frame: &&str| {
        let frame: Value = serde_json::from_str(frame).expect("JSON");
        frame["choices"][0]["text"].as_str().unwrap_or_default().to_owned()
    };
    frames.iter().map(text).collect()
}

/// As publishers compute it.
pub(super) fn digest(folder: &Path) -> String {
    use sha2::{Digest, Sha256};

    let read = |file: &str| fs::read(folder.join(file)).expect("read");
    let (config, weights) = (read("adapter_config.json"), read("adapter_model.safetensors"));
    let hasher = Sha256::new().chain_update((config.len() as u64).to_le_bytes());
    hasher.chain_update(config).chain_update(weights).finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

type Change = Box<dyn Fn(&Path)>;

/// Every way in which a folder can be wrong, and what its publisher reads.
fn wrong_folders() -> Vec<(Change, &'static str)> {
    let remove = |file: &'static str| move |folder: &Path| fs::remove_file(folder.join(file)).expect("removed");
    let nan = |bytes: &mut Vec<u8>| {
        let at = bytes.len() - 2;
        bytes[at..].copy_from_slice(&F16_NAN.to_le_bytes());
    };
    let pickled = |folder: &Path| {
        fs::rename(folder.join("adapter_model.safetensors"), folder.join("adapter_model.bin")).expect("renamed");
    };
    vec![
        (Box::new(remove("adapter_config.json")), "adapter_config.json is missing"),
        (Box::new(remove("adapter_model.safetensors")), "adapter_model.safetensors is missing"),
        (
            Box::new(|it| edit_weights(it, |bytes| bytes.truncate(bytes.len() - 7))),
            "adapter_model.safetensors: its tensors take 921600 bytes, but 921593 follow the header: cut off or padded",
        ),
        (
            Box::new(|it| edit_weights(it, |bytes| bytes.truncate(5))),
            "adapter_model.safetensors: 5 bytes are too few for a safetensors file",
        ),
        (
            Box::new(|it| edit_weights(it, |bytes| bytes[..8].copy_from_slice(&1_000_000_u64.to_le_bytes()))),
            "adapter_model.safetensors: the header claims 1000000 bytes, the file has 937048 after its length",
        ),
        (
            Box::new(|it| edit_head(it, "[8,576]", "[8,577]")),
            "adapter_model.safetensors: tensor `base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight`: \
             bytes 0 to 9216 do not hold F16 numbers of shape [8, 577]",
        ),
        (
            Box::new(|it| edit_head(it, "[8,576]", "[9,512]")),
            "adapter_model.safetensors: tensor `base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight`: \
             has shape [9, 512], the base needs [8, 576]",
        ),
        (
            Box::new(|it| edit_config(it, "\"r\": 8", "\"r\": 4")),
            "adapter_model.safetensors: tensor `base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight`: \
             has rank 8, adapter_config.json says r = 4",
        ),
        (
            Box::new(|it| edit_config(it, "\"r\": 8", "\"r\": 65")),
            "adapter_config.json: `r` is 65, at most 64 is allowed",
        ),
        (
            Box::new(|it| edit_config(it, "\"q_proj\"", "\"x_proj\"")),
            "adapter_config.json: target module \"x_proj\" is not supported",
        ),
        (
            Box::new(move |it| edit_weights(it, nan)),
            "adapter_model.safetensors: tensor `base_model.model.model.layers.9.self_attn.v_proj.lora_B.weight`: \
             number 1535 is NaN",
        ),
        (
            Box::new(|it| edit_config(it, "HuggingFaceTB/SmolLM2-135M-Instruct", "meta-llama/Llama-3.2-1B")),
            "the adapter was trained on `meta-llama/Llama-3.2-1B`, this base is `HuggingFaceTB/SmolLM2-135M-Instruct`",
        ),
        (
            Box::new(pickled),
            "adapter_model.bin is a pickle, which can run code when it is read; save the adapter as \
             adapter_model.safetensors",
        ),
    ]
}

/// Publishes everything that is wrong, each of which is refused with exactly
/// its reason; the reasons.
async fn publish_what_is_wrong(server: &Server) -> Vec<String> {
    let mut reasons = Vec::new();
    let mut refused = |(status, told): (u16, Value), code: &str, says: String| {
        assert_eq!((status, told["error"]["code"].as_str()), (422, Some(code)), "{told}");
        assert_eq!(told["error"]["message"], says);
        reasons.push(says);
    };
    for (change, says) in wrong_folders() {
        let folder = spoilt(change);
        refused(publish(server, "acme", "support", folder.path()).await, "adapter_invalid", says.to_owned());
    }
    let (wrong, pirate) = ("0".repeat(64), artifact("pirate"));
    let says = format!("the artifact's digest is {}, not {wrong}", digest(&pirate));
    let answer = publish_with(server, "acme", "support", &pirate, &[("digest", &wrong)]).await;
    refused(answer, "digest_mismatch", says);
    for (archive, code, says) in [
        (
            archive("../adapter_config.json"),
            "unsafe_archive",
            "the archive is not safe to read: `../adapter_config.json` leads out of its folder",
        ),
        (
            archive("adapter_config.json")[..700].to_vec(),
            "broken_archive",
            "the archive cannot be read: it is neither a whole .tar nor a whole .tar.gz",
        ),
    ] {
        let form = Form::new().text("tenant", "acme").text("name", "support").text("base", "smollm2-135m");
        let form = form.part("archive", Part::bytes(archive).file_name("a.tar"));
        refused(sent(server.client.post(admin(server, "")).multipart(form)).await, code, says.to_owned());
    }
    reasons
}

#[tokio::test(flavor = "multi_thread")]
async fn every_wrong_artifact_is_refused_with_its_reason_and_traffic_goes_on() {
    Server::with(|server| async move {
        let alone = streamed(&server).await;
        let refused = AtomicBool::new(false);
        let traffic = async {
            let mut streams = 0;
            while !refused.load(Ordering::Acquire) {
                assert_eq!(streamed(&server).await, alone, "what is refused changes nothing");
                streams += 1;
            }
            streams
        };
        let refusals = async {
            let reasons = publish_what_is_wrong(&server).await;
            assert!(server.held().leases > 0, "a stream runs all the while");
            refused.store(true, Ordering::Release);
            reasons
        };
        let (streams, mut reasons) = tokio::join!(traffic, refusals);
        assert!(streams > 0);

        let (_, list) = sent(server.client.get(admin(&server, "?tenant=acme&name=support"))).await;
        assert_eq!(list["adapters"], json!([]));
        reasons.reverse();
        let listed = list["refused"].as_array().expect("a list").iter();
        assert!(listed.clone().all(|it| it["state"] == "refused"), "{list}");
        let listed: Vec<&str> = listed.filter_map(|it| it["reason"].as_str()).collect();
        assert_eq!(listed, reasons, "newest first");
        assert_eq!(asked(&server, "acme", "support").await, Err(404), "nothing of it is visible");
    })
    .await;
}

/// A tar with one file, whose name nothing has looked at.
fn archive(name: &str) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_size(2);
    header.as_gnu_mut().expect("GNU").name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_cksum();
    let mut builder = tar::Builder::new(Vec::new());
    builder.append(&header, &b"{}"[..]).expect("in memory");
    builder.into_inner().expect("in memory")
}
