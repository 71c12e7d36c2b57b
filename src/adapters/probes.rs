//! Probes: what each artifact answers to a prompt of its own, so that whoever
//! loads it can prove that it is this adapter which answers.
//!
//! One is recorded for each base model and artifact, by whoever is first; all
//! gateways then compare with the same. This room keeps them and makes none.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use tracing::warn;

use super::catalogue::Catalogue;
use super::database::{Down, ProbeRow};
use super::{lock, now};
use crate::types::BaseName;

/// What an artifact answers to a prompt, greedy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    pub prompt: String,
    pub answer: String,
    /// The answer's length.
    pub tokens: u32,
}

/// Base model and digest.
pub(super) type Probed = (BaseName, Arc<str>);

/// Those that this gateway knows; `None` where nothing distinct was found.
#[derive(Debug, Default)]
pub(super) struct Probes(Mutex<HashMap<Probed, Option<Arc<Probe>>>>);

// === impl Catalogue ===

impl Catalogue {
    /// What was recorded for an artifact: `None` where nothing was yet, and
    /// `Some(None)` where no prompt was found that it answers unlike its base.
    pub fn probe(&self, base: &BaseName, digest: &str) -> Option<Option<Arc<Probe>>> {
        self.probes.get(base, digest)
    }

    /// Records what an artifact answers. It is known here at once, and to all
    /// gateways once what is returned has run: the database then has it. What
    /// was recorded before stays.
    pub fn record_probe(
        self: &Arc<Self>,
        base: &BaseName,
        digest: &str,
        probe: Option<Probe>,
    ) -> impl Future<Output = ()> + Send + use<> {
        let row = ProbeRow {
            base: base.to_string(),
            digest: digest.to_owned(),
            probe: probe.as_ref().map(|probe| serde_json::to_string(probe).expect("texts and a number")),
        };
        self.probes.keep(base, digest, probe);
        let catalogue = self.clone();
        async move { catalogue.write_probe(&row).await }
    }

    async fn write_probe(&self, row: &ProbeRow) {
        let Some(backing) = &self.backing else { return };
        let written = async {
            backing.ready().await?;
            backing.database.record_probe(row, now()).await
        };
        match written.await {
            // Another gateway may have been first.
            Ok(()) => self.refresh().await,
            Err(Down(why)) => {
                warn!(base = row.base, digest = row.digest, why, "an adapter's probe is known to this gateway alone");
            }
        }
    }
}

// === impl Probes ===

impl Probes {
    fn get(&self, base: &BaseName, digest: &str) -> Option<Option<Arc<Probe>>> {
        lock(&self.0).get(&(base.clone(), digest.into())).cloned()
    }

    fn keep(&self, base: &BaseName, digest: &str, probe: Option<Probe>) {
        lock(&self.0).entry((base.clone(), digest.into())).or_insert_with(|| probe.map(Arc::new));
    }

    /// Takes over what the database has. What it does not have (it was away)
    /// stays for as long as there is such an artifact.
    pub(super) fn follow(&self, rows: &[ProbeRow], named: &HashSet<Probed>) {
        let mut probes = lock(&self.0);
        probes.retain(|probed, _| named.contains(probed));
        for row in rows {
            let probe = match row.probe.as_deref().map(serde_json::from_str::<Probe>).transpose() {
                Ok(probe) => probe,
                Err(error) => {
                    warn!(base = row.base, digest = row.digest, %error, "a probe cannot be read");
                    continue;
                }
            };
            probes.insert((BaseName::new(row.base.as_str()), row.digest.as_str().into()), probe.map(Arc::new));
        }
    }
}
