//! lessons 11, and 4: a client that leaves while its adapter is loaded, through
//! the pool, by whom loads are made once for all.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::{BoxFuture, FutureExt};
use tenantry::adapters::{Artifact, Catalogue};
use tenantry::pool::{Lease, Pool, PoolError, ResidencyConfig, Want, Worker, WorkerConfig};
use tenantry::telemetry::Metrics;
use tenantry::types::{AdapterKey, BaseName, GenerationId, ModelRoute, TenantId};
use tenantry::worker::{AdapterLoad, Call, Driver, LoadedAdapter, Started, Status, WorkerError};
use tokio::sync::Semaphore;

use super::{Bench, artifacts, key, question};

/// The bench's driver, whose loads end when they are let.
struct Held {
    driver: Arc<dyn Driver>,
    /// Loads that have begun, and generations that were asked for.
    loads: AtomicUsize,
    generations: AtomicUsize,
    gate: Semaphore,
}

/// As the gateway does.
async fn acquire(pool: &Pool, route: &ModelRoute) -> Result<Lease, PoolError> {
    let (tenant, request) = (TenantId::new("acme"), question(4));
    pool.acquire(Want { tenant: &tenant, route, request: &request }, &[]).await
}

fn worker(driver: Arc<Held>, catalogue: &Arc<Catalogue>) -> Arc<Worker> {
    let residency = ResidencyConfig { adapter_bytes: 512 << 20, adapter_slots: None };
    let config = WorkerConfig { residency, slots: None };
    Worker::new("worker", driver, config, catalogue.clone(), Arc::new(Metrics::default()))
}

pub(super) async fn the_asker_leaves_during_a_load(bench: &Bench) {
    let key = key("acme", "rhyme", 7);
    let artifact = Artifact { key: key.clone(), base: bench.base.clone() };
    let catalogue = Catalogue::fixed(vec![(artifact, artifacts().join("rhyme"))]);
    // What is counted here are requests: the load asks no probe.
    catalogue.record_probe(&bench.base, &key.digest, None).await;
    let held = Arc::new(Held {
        driver: bench.driver.clone(),
        loads: AtomicUsize::new(0),
        generations: AtomicUsize::new(0),
        gate: Semaphore::new(0),
    });
    let worker = worker(held.clone(), &catalogue);
    let pool = Arc::new(Pool::new(vec![worker.clone()], catalogue, Arc::new(Metrics::default())));
    let route = ModelRoute { base: bench.base.clone(), adapter: Some(key.clone()) };

    let asker = tokio::spawn({
        let (pool, route) = (pool.clone(), route.clone());
        async move { generate(&mut acquire(&pool, &route).await.expect("a lease")).await.map(drop) }
    });
    until("the load has begun", || held.loads.load(Ordering::Acquire) == 1).await;
    assert_eq!(worker.leases(), 1);
    asker.abort();
    let _ = asker.await;
    assert_eq!((worker.leases(), worker.pins()), (0, 0), "nothing is held for one that has left");
    held.gate.add_permits(1);
    until("the load ends by itself", || worker.has(&key) && worker.adapter_tasks() == 0).await;
    assert_eq!((bench.running)().await, 0, "the engine was not asked");
    assert_eq!(held.generations.load(Ordering::Acquire), 0);

    let mut lease = acquire(&pool, &route).await.expect("a lease");
    let mut events = generate(&mut lease).await.expect("started").events;
    events.next().await.expect("an event").expect("no error");
    assert_eq!(held.loads.load(Ordering::Acquire), 1, "it was found loaded");
    drop((events, lease));
    assert_eq!((worker.leases(), worker.pins()), (0, 0));
    worker.retire(&key);
    until("it is unloaded", || !worker.has(&key) && worker.adapter_tasks() == 0).await;
    bench.until_running(0).await;
}

async fn generate(lease: &mut Lease) -> Result<Started, WorkerError> {
    let id = GenerationId::new(Default::default());
    lease.generate(id, TenantId::new("acme"), Arc::new(question(4)), None).await
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let since = Instant::now();
    while !holds() {
        assert!(since.elapsed() < Duration::from_secs(30), "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

impl Driver for Held {
    fn bases(&self) -> Vec<BaseName> {
        self.driver.bases()
    }

    fn generate(&self, call: Call) -> BoxFuture<'_, Result<Started, WorkerError>> {
        self.generations.fetch_add(1, Ordering::AcqRel);
        self.driver.generate(call)
    }

    fn accepts(&self, adapter: &AdapterKey) -> bool {
        self.driver.accepts(adapter)
    }

    fn load_adapter(&self, adapter: AdapterLoad) -> BoxFuture<'_, Result<LoadedAdapter, WorkerError>> {
        self.loads.fetch_add(1, Ordering::AcqRel);
        async move {
            let loaded = self.driver.load_adapter(adapter).await;
            self.gate.acquire().await.expect("nobody closes it").forget();
            loaded
        }
        .boxed()
    }

    fn unload_adapter(&self, key: AdapterKey) -> BoxFuture<'_, Result<(), WorkerError>> {
        self.driver.unload_adapter(key)
    }

    fn status(&self) -> Status {
        self.driver.status()
    }

    fn loads_only_when_idle(&self) -> bool {
        self.driver.loads_only_when_idle()
    }

    fn batch_invariant(&self) -> bool {
        self.driver.batch_invariant()
    }

    fn caches_prefixes(&self, adapter: Option<&AdapterKey>) -> bool {
        self.driver.caches_prefixes(adapter)
    }
}
