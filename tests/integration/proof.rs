//! The right adapter, proven: on real weights, with a worker that answers with
//! another adapter than it was given, as engines were seen to do
//! (vllm-project/vllm#47724).

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tenantry::adapters::{Artifact, Catalogue};
use tenantry::engine::files::AdapterLimits;
use tenantry::engine::{self, kernels::Precision};
use tenantry::pool::{Pool, PoolError, ResidencyConfig, Want, Worker, WorkerConfig, WorkerError};
use tenantry::telemetry::{Metrics, Readings};
use tenantry::types::{
    AdapterKey, BaseName, GenerateRequest, Input, Message, ModelRoute, Role, Route, Sampling, TenantId,
};
use tenantry::worker::{
    AdapterLoad, Call, Driver, Embedded, EmbeddedConfig, LoadedAdapter, ServedBase, Started, Status,
};

use crate::conformance::{artifacts, key};
use crate::support::base_model;

const BASE: &str = "smollm2";

fn embedded() -> Arc<Embedded> {
    let config = EmbeddedConfig {
        precision: Precision::Fast,
        engine: engine::Config { threads: 2, context: Some(2048), ..engine::Config::default() },
        adapters: AdapterLimits { max_rank: 64, max_bytes: 64 << 20 },
        adapter_bytes: None,
        memory_bytes: None,
    };
    let source = vec!["HuggingFaceTB/SmolLM2-135M-Instruct".to_owned()];
    let served = ServedBase { name: BaseName::new(BASE), path: base_model(), also_known_as: source };
    Arc::new(Embedded::start(&config, vec![served]).expect("it starts"))
}

/// Answers with `other` where it is asked for `mixed`.
struct MixedUp {
    engine: Arc<Embedded>,
    mixed: AdapterKey,
    /// `None`: with the base model.
    other: Option<AdapterKey>,
}

impl Driver for MixedUp {
    fn bases(&self) -> Vec<BaseName> {
        self.engine.bases()
    }

    fn generate(&self, mut call: Call) -> BoxFuture<'_, Result<Started, WorkerError>> {
        if call.adapter.as_ref() == Some(&self.mixed) {
            call.adapter = self.other.clone();
        }
        self.engine.generate(call)
    }

    fn load_adapter(&self, adapter: AdapterLoad) -> BoxFuture<'_, Result<LoadedAdapter, WorkerError>> {
        self.engine.load_adapter(adapter)
    }

    fn unload_adapter(&self, _: AdapterKey) -> BoxFuture<'_, Result<(), WorkerError>> {
        // What it shares with the other worker stays.
        async { Ok(()) }.boxed()
    }

    fn status(&self) -> Status {
        self.engine.status()
    }
}

struct Bench {
    catalogue: Arc<Catalogue>,
    metrics: Arc<Metrics>,
    engine: Arc<Embedded>,
}

impl Bench {
    fn new() -> Self {
        let base = BaseName::new(BASE);
        let listed = ["pirate", "json", "rhyme"]
            .map(|name| (Artifact { key: key("acme", name, 1), base: base.clone() }, artifacts().join(name)));
        let catalogue = Catalogue::fixed(listed.to_vec());
        Self { catalogue, metrics: Arc::new(Metrics::default()), engine: embedded() }
    }

    fn pool(&self, name: &'static str, driver: Arc<dyn Driver>) -> Pool {
        let residency = ResidencyConfig { adapter_bytes: 1 << 30, adapter_slots: None };
        let config = WorkerConfig { residency, slots: None };
        let worker = Worker::new(name, driver, config, self.catalogue.clone(), self.metrics.clone());
        Pool::new(vec![worker], self.catalogue.clone(), self.metrics.clone())
    }

    async fn acquire(&self, pool: &Pool, adapter: &str) -> Result<(), PoolError> {
        let request = GenerateRequest {
            route: Route::ChatCompletions,
            model: "m".to_owned(),
            input: Input::Chat(vec![Message::text(Role::User, "Hi")]),
            sampling: Sampling::default(),
            stop: Vec::new(),
            max_tokens: Some(1),
            choices: 1,
            logprobs: None,
            ignore_eos: false,
            timeout: None,
            extra: Default::default(),
        };
        let tenant = TenantId::new("acme");
        let route = ModelRoute { base: BaseName::new(BASE), adapter: Some(key("acme", adapter, 1)) };
        pool.acquire(Want { tenant: &tenant, route: &route, request: &request }, &[]).await.map(drop)
    }

    fn probes(&self, outcome: &str) -> u64 {
        let text = self.metrics.render(&Readings::default()).expect("metrics render");
        let name = format!("tenantry_adapter_probes_total{{outcome=\"{outcome}\"}} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&name));
        line.map_or(0, |count| count.parse().expect("a number"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_load_is_proven_and_a_worker_that_mixes_adapters_up_is_found_out() {
    let bench = Bench::new();
    let honest = bench.pool("honest", bench.engine.clone());
    for name in ["pirate", "json", "rhyme"] {
        bench.acquire(&honest, name).await.expect("loaded");
        let digest = &key("acme", name, 1).digest;
        let probe = bench.catalogue.probe(&BaseName::new(BASE), digest).flatten();
        let probe = probe.unwrap_or_else(|| panic!("{name} can be told from its base"));
        assert!(probe.tokens <= 8, "a probe is short: {probe:?}");
    }
    assert_eq!(bench.probes("recorded"), 3);

    // Another worker that has the same weights proves them by what the first recorded.
    let second = bench.pool("second", bench.engine.clone());
    bench.acquire(&second, "pirate").await.expect("loaded");
    assert_eq!((bench.probes("recorded"), bench.probes("match")), (3, 1));

    for other in [Some(key("acme", "json", 1)), Some(key("acme", "rhyme", 1)), None] {
        let before = bench.probes("mismatch");
        let mixed = MixedUp { engine: bench.engine.clone(), mixed: key("acme", "pirate", 1), other };
        let pool = bench.pool("mixed", Arc::new(mixed));
        bench.acquire(&pool, "json").await.expect("this one it has right");
        let found = bench.acquire(&pool, "pirate").await;
        let Err(PoolError::Worker { source: WorkerError::AdapterMismatch(_), .. }) = found else {
            panic!("it answers with another adapter: {found:?}");
        };
        assert_eq!(bench.probes("mismatch"), before + 1);
        // It is not asked for that adapter again, and for the others it is.
        let again = bench.acquire(&pool, "pirate").await;
        assert!(matches!(again, Err(PoolError::BackingOff { .. })), "{again:?}");
        assert_eq!(bench.probes("mismatch"), before + 1, "without another load");
        bench.acquire(&pool, "json").await.expect("it is there");
        assert_eq!(pool.worker("mixed").expect("there").adapters_quarantined(), 1);
    }
}
