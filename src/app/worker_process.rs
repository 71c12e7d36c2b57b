//! `tenantry worker`: the embedded engine in a process of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::TaskTracker;
use tracing::info;
use ulid::Ulid;

use crate::config::{EngineConfig, LoadedWorker};
use crate::edge;
use crate::shutdown::Shutdown;
use crate::worker::Embedded;

use super::{DriverError, StartError, drivers, listen};

/// A running worker process.
pub struct WorkerApp {
    address: SocketAddr,
    shutdown: Shutdown,
    drain_timeout: Duration,
    servers: TaskTracker,
}

/// Calls beyond what the engines take, which are told so; on the same
/// connection, none has to wait for a stream to learn that.
const MORE_STREAMS: usize = 1024;

/// For one gateway's connection: all that the engines can run and keep waiting.
fn max_streams(engine: &EngineConfig, bases: usize) -> u32 {
    let each = engine.queue.saturating_add(engine.max_batch_rows);
    let streams = each.saturating_mul(bases).saturating_add(MORE_STREAMS);
    // What HTTP/2 counts to.
    u32::try_from(streams).unwrap_or(u32::MAX).min(i32::MAX as u32)
}

// === impl WorkerApp ===

impl WorkerApp {
    /// Loads the models and serves gateways.
    pub async fn start(loaded: LoadedWorker) -> Result<Self, StartError> {
        let process = loaded.process;
        let listener = listen(process.listen).await?;
        let config = drivers::embedded(&process.engine, process.max_adapter_rank, Some(process.adapter_bytes));
        let bases = drivers::bases(process.bases.iter());
        let server = edge::server::Config {
            max_concurrent_streams: max_streams(&process.engine, bases.len()),
            ..edge::server::Config::default()
        };
        let loading = tokio::task::spawn_blocking(move || Embedded::start(&config, bases));
        let embedded = loading.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        let failed = |source| StartError::Worker { worker: "worker".to_owned(), source: DriverError::Embedded(source) };
        let embedded = Arc::new(embedded.map_err(failed)?);

        let (shutdown, servers) = (Shutdown::default(), TaskTracker::new());
        let service =
            edge::worker::Service::new(embedded, Ulid::generate().to_string(), process.key, shutdown.drain.clone());
        let router = service.router();
        let Shutdown { drain, kill, connections, .. } = shutdown.clone();
        let address = listener.address;
        servers.spawn(async move {
            edge::server::serve(listener.listener, router, &server, drain, kill, &connections).await;
        });
        shutdown.running();
        info!(%address, "serving gateways");
        Ok(Self { address, shutdown, drain_timeout: process.shutdown.drain_timeout, servers })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets running generations finish within the drain deadline.
    pub async fn drain(self) {
        self.shutdown.run(self.drain_timeout).await;
        self.servers.close();
        self.servers.wait().await;
    }
}
