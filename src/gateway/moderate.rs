//! Texts that a tenant wants judged and not answered.

use std::sync::Arc;

use futures_util::StreamExt;
use tokio::time::Instant;
use tracing::info;

use super::Gateway;
use crate::admission::Estimate;
use crate::moderation::Judgement;
use crate::types::{Caller, Error, GenerationId};

/// The name under which limits of a model may be set for it.
const MODEL: &str = "moderation";
/// Texts of one request that are judged side by side.
const TOGETHER: usize = 2;

// === impl Gateway ===

impl Gateway {
    /// Judges texts one by one, in their order, as the policy of the tenant and of
    /// `model` says. It counts as a request, and as no tokens.
    pub async fn moderate(
        &self,
        id: GenerationId,
        caller: &Caller,
        model: Option<&str>,
        texts: Vec<String>,
        route: &'static str,
    ) -> Result<Vec<Judgement>, Error> {
        let began = Instant::now();
        let tenant = &caller.tenant;
        let none = Estimate { input: 0, output: 0 };
        let admitted = self.admission.admit(caller, &Arc::from(MODEL), none);
        let permit = admitted.map_err(|refusal| {
            let error = self.refused(caller, &refusal);
            self.record_refusal(Some(tenant), route, &error);
            error
        })?;
        let live = self.live.load_full();
        let policy = live.policies().of(&tenant.id, model.unwrap_or_default()).clone();
        let guard = live.guard().unwrap_or(&self.guard);
        let count = texts.len();
        let judging = texts.into_iter().map(|text| guard.moderate(&policy, text));
        let judged: Vec<Judgement> = futures_util::stream::iter(judging).buffered(TOGETHER).collect().await;
        drop(permit);
        self.metrics.request(Some(tenant.id.as_str()), None, route, "complete");
        let flagged = judged.iter().filter(|judgement| judgement.is_flagged()).count();
        let seconds = began.elapsed().as_secs_f64();
        info!(%id, tenant = %tenant.id, key = &*caller.key.name, route, texts = count, flagged, seconds, "moderation");
        Ok(judged)
    }
}
