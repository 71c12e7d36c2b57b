//! Whether a loaded adapter answers as itself: its probe, asked or recorded.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{error, warn};

use super::work::Shared;
use crate::adapters::Artifact;
use crate::pool::prover::{Proof, Recorded};
use crate::worker::WorkerError;

/// How long nobody has to use an adapter before its probe is recorded beside requests.
pub(super) const SETTLED: Duration = Duration::from_secs(3);

/// Ends with its task, however that ends.
struct Proving(Arc<Shared>);

// === impl Shared ===

impl Shared {
    /// As [`Shared::prove`], beside what else runs: no load begins meanwhile
    /// where that could mix adapters up.
    pub(super) async fn prove_beside(&self, artifact: &Artifact) -> Result<(), WorkerError> {
        let _running = match self.driver.loads_only_when_idle() {
            true => Some(self.activity.run(true).await),
            false => None,
        };
        self.prove(artifact).await
    }

    /// Asks the adapter its probe, or records one where it has none.
    pub(super) async fn prove(&self, artifact: &Artifact) -> Result<(), WorkerError> {
        let Artifact { key, base } = artifact;
        let outcome = match self.catalogue.probe(base, &key.digest) {
            Some(Some(probe)) => match self.prover.compare(artifact, &probe).await? {
                Proof::Matches => "match",
                Proof::CannotTell => "unproven",
                Proof::Mismatches => {
                    self.metrics.adapter_probed("mismatch");
                    error!(worker = %self.worker, adapter = %key, "the worker answers with another adapter than it was given; quarantined");
                    return Err(WorkerError::AdapterMismatch("its answer to the probe is another's".to_owned()));
                }
            },
            Some(None) => "indistinct",
            // Elsewhere it takes the worker for seconds: later, while it is idle.
            None if self.driver.batch_invariant() => self.record(artifact).await,
            None => "unproven",
        };
        self.metrics.adapter_probed(outcome);
        Ok(())
    }

    /// Records a probe where the answers are sure to be the adapter's own: on
    /// an engine whose answers depend on nothing else, or one that runs nothing
    /// else from beginning to end. That none could be recorded keeps nobody
    /// from using the adapter.
    async fn record(&self, artifact: &Artifact) -> &'static str {
        let Artifact { key, base } = artifact;
        let begun = self.activity.begun();
        let alone = || {
            let status = self.driver.status();
            self.activity.is_idle() && status.batch_rows + status.waiting == 0
        };
        if !self.driver.batch_invariant() && !alone() {
            return "unproven";
        }
        let recorded = self.prover.record(artifact).await;
        let undisturbed = self.driver.batch_invariant() || self.activity.begun() == begun;
        let (probe, outcome) = match recorded {
            Ok(Recorded::Probe(probe)) if undisturbed => (Some(probe), "recorded"),
            Ok(Recorded::Indistinct) if undisturbed => (None, "indistinct"),
            Ok(_) => return "unproven",
            Err(error) => {
                warn!(worker = %self.worker, adapter = %key, %error, "no probe recorded");
                return "unproven";
            }
        };
        let written = self.catalogue.record_probe(base, &key.digest, probe);
        // Nobody waits for a database.
        self.tasks.spawn_on(written, &self.runtime);
        outcome
    }

    pub(super) fn prove_later(self: &Arc<Self>, artifact: &Artifact) {
        let unneeded = self.catalogue.probe(&artifact.base, &artifact.key.digest).is_some();
        if unneeded || !self.activity.is_idle() || self.driver.loads_only_when_idle() {
            return;
        }
        // Who publishes it asks for it next, and would wait behind the probe.
        let now = Instant::now();
        if self.entries().get(&artifact.key).is_none_or(|entry| entry.unused_for(now) < SETTLED) {
            return;
        }
        // One at a time: two would not be alone.
        if self.proving.swap(true, Ordering::AcqRel) {
            return;
        }
        let (shared, artifact) = (self.clone(), artifact.clone());
        let proving = async move {
            let _proving = Proving(shared.clone());
            let Ok(_pin) = shared.pin(&artifact).await else { return };
            // A load for it may have recorded it.
            if shared.catalogue.probe(&artifact.base, &artifact.key.digest).is_some() {
                return;
            }
            let outcome = shared.record(&artifact).await;
            if outcome != "unproven" {
                shared.metrics.adapter_probed(outcome);
            }
        };
        self.tasks.spawn_on(proving, &self.runtime);
    }
}

// === impl Proving ===

impl Drop for Proving {
    fn drop(&mut self) {
        self.0.proving.store(false, Ordering::Release);
    }
}
