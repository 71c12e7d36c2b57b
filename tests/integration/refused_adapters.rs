//! A worker that refuses an adapter goes on as if nothing had happened.

use std::path::Path;
use std::sync::Arc;

use futures_util::StreamExt;
use tenantry::engine::files::AdapterLimits;
use tenantry::engine::{self, kernels::Precision};
use tenantry::types::{
    AdapterKey, BaseName, Event, GenerateRequest, GenerationId, Input, Prompt, Route, Sampling, TenantId,
};
use tenantry::worker::{AdapterLoad, Call, Driver, Embedded, EmbeddedConfig, ServedBase, WorkerError};

use crate::support::{base_model, repository};

fn worker() -> Embedded {
    let config = EmbeddedConfig {
        precision: Precision::Fast,
        engine: engine::Config { threads: 2, ..engine::Config::default() },
        adapters: AdapterLimits { max_rank: 64, max_bytes: 64 << 20 },
        adapter_bytes: None,
        memory_bytes: None,
    };
    let base = ServedBase {
        name: BaseName::new("base"),
        path: base_model(),
        also_known_as: vec!["HuggingFaceTB/SmolLM2-135M-Instruct".to_owned()],
    };
    Embedded::start(&config, vec![base]).expect("the base model loads")
}

fn key(name: &str, digest: &str) -> AdapterKey {
    AdapterKey { tenant: TenantId::new("acme"), name: name.into(), revision: 1, digest: digest.into() }
}

fn load(key: AdapterKey, folder: &Path) -> AdapterLoad {
    AdapterLoad { key, base: BaseName::new("base"), folder: folder.to_owned() }
}

async fn text(worker: &Embedded, adapter: Option<AdapterKey>) -> Result<String, WorkerError> {
    let request = GenerateRequest {
        route: Route::Completions,
        model: "any".to_owned(),
        input: Input::Prompts(vec![Prompt::Text("The sea is".to_owned())]),
        sampling: Sampling { temperature: 0.0, ..Sampling::default() },
        stop: Vec::new(),
        max_tokens: Some(40),
        choices: 1,
        logprobs: None,
        ignore_eos: true,
        timeout: None,
        extra: Default::default(),
    };
    let call = Call {
        id: GenerationId::new(Default::default()),
        tenant: TenantId::new("acme"),
        base: BaseName::new("base"),
        adapter,
        request: Arc::new(request),
        trace: None,
    };
    let mut events = worker.generate(call).await?.events;
    let mut text = String::new();
    while let Some(event) = events.next().await {
        if let Event::Delta(delta) = event? {
            text += &delta.text;
        }
    }
    Ok(text)
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_adapters_change_nothing_and_never_become_the_base() {
    let worker = worker();
    let before = text(&worker, None).await.expect("the base answers");

    let broken = tempfile::tempdir().expect("a folder");
    let good = repository("config/quickstart/adapters/pirate");
    std::fs::copy(good.join("adapter_config.json"), broken.path().join("adapter_config.json")).expect("copied");
    let weights = std::fs::read(good.join("adapter_model.safetensors")).expect("read");
    std::fs::write(broken.path().join("adapter_model.safetensors"), &weights[..weights.len() - 1]).expect("written");
    let other_shape = repository("tests/fixtures/tiny/adapters/all_linear");

    let running = text(&worker, None);
    let refusals = async {
        for (folder, reason) in
            [(broken.path(), "adapter_model.safetensors"), (&other_shape, "adapter"), (&good, "digest")]
        {
            let refused = worker.load_adapter(load(key("wrong", "0"), folder)).await.expect_err(reason);
            assert!(matches!(&refused, WorkerError::AdapterInvalid(told) if told.contains(reason)), "{refused}");
            let answered = text(&worker, Some(key("wrong", "0"))).await;
            assert!(matches!(answered, Err(WorkerError::AdapterMissing(_))), "never the base in its place");
        }
    };
    let (running, ()) = tokio::join!(running, refusals);
    assert_eq!(running.expect("it goes on"), before);
    assert_eq!(text(&worker, None).await.expect("the base answers"), before);
}
