//! What generations used: told to the catalogue as they end, and learnt from it
//! by the budgets.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Gateway, Live};
use crate::adapters::{ChangeError, Days, Sum};
use crate::admission::{Period, Scope};
use crate::types::{Limits, Tenant, TenantId};

/// How often it is looked what others have used of the budgets.
const LOOK: Duration = Duration::from_secs(2);
const DAY: u64 = 24 * 60 * 60;

// === impl Gateway ===

impl Gateway {
    /// What was used in a time, by day, key and model; of one tenant or of all.
    pub async fn usage(&self, tenant: Option<&TenantId>, days: Days) -> Result<Vec<Sum>, ChangeError> {
        self.catalogue().usage(tenant, days).await
    }

    /// Writes down what is noted and not yet written.
    pub async fn flush_usage(&self) -> Result<(), ChangeError> {
        self.catalogue().flush_usage().await
    }

    /// Keeps the budgets up to what other gateways use of them. Never returns.
    pub(super) async fn keep_budgets(&self) {
        loop {
            tokio::time::sleep(LOOK).await;
            // The catalogue tells that its database is away; the budgets then go by what is known.
            let _ = self.learn_budgets().await;
        }
    }

    /// Learns what was used of the budgets before this gateway was started,
    /// and by others.
    pub async fn learn_budgets(&self) -> Result<(), ChangeError> {
        let live = self.live.load_full();
        let now = SystemTime::now();
        for period in [Period::Day, Period::Month] {
            let wanted = |limits: &Limits| match period {
                Period::Day => limits.tokens_per_day.is_some(),
                Period::Month => limits.tokens_per_month.is_some(),
            };
            let budgets = budgets(&live, wanted);
            if budgets.is_empty() {
                continue;
            }
            let (start, _) = period.around(now);
            let today = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() / DAY);
            let sums = self.catalogue().usage_of_others(Days { first: start / DAY, last: today }).await?;
            for (of, tokens) in by_scope(&sums).into_iter().filter(|(of, _)| budgets.contains(of)) {
                self.admission.learn(&of.0, of.1, period, start, tokens);
            }
        }
        Ok(())
    }

    /// Of a tenant's limits, what is left.
    pub(super) fn left(&self, tenant: &Tenant, scope: &Scope, limits: &Limits) -> Vec<(&'static str, u64)> {
        let left = self.admission.left(&tenant.id, scope, limits).into_iter();
        left.map(|(limit, left)| (limit.as_str(), left)).collect()
    }
}

/// The accounts that have a budget.
fn budgets(live: &Live, wanted: impl Fn(&Limits) -> bool) -> HashSet<(TenantId, Scope)> {
    let mut budgets = HashSet::new();
    for tenant in live.keyring().tenants() {
        let models = tenant.model_limits.iter().map(|(name, limits)| (Scope::Model(name.clone()), limits));
        let all = [(Scope::Tenant, &tenant.limits)].into_iter().chain(models);
        budgets.extend(all.filter(|(_, limits)| wanted(limits)).map(|(scope, _)| (tenant.id.clone(), scope)));
        let keys = live.keyring().keys(&tenant.id).filter(|key| wanted(&key.limits));
        budgets.extend(keys.map(|key| (tenant.id.clone(), Scope::Key(key.name.clone()))));
    }
    budgets
}

/// The tokens of all accounts that the sums belong to.
fn by_scope(sums: &[Sum]) -> HashMap<(TenantId, Scope), u64> {
    let mut tokens: HashMap<(TenantId, Scope), u64> = HashMap::new();
    for sum in sums {
        let scopes = [Scope::Tenant, Scope::Key(sum.key.as_str().into()), Scope::Model(sum.model.as_str().into())];
        for scope in scopes {
            *tokens.entry((TenantId::new(sum.tenant.as_str()), scope)).or_default() += sum.input + sum.output;
        }
    }
    tokens
}
