//! The guard's policies as operators see them, and giving them to tenants while
//! the gateway runs.

use serde::Serialize;
use serde_json::{Value, json};

use super::Gateway;
use super::audit::Change;
use super::tenants::is_model_name;
use crate::adapters::ChangeError;
use crate::moderation::{Busy, Mode, Policy, Rules};
use crate::types::{Action, TenantId};

/// A policy of the configuration. Of its lists only whether it has
/// any: they may be words that nobody wants to read.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PolicyCard {
    pub name: String,
    /// `null`: prompts are not looked at.
    pub prompt: Value,
    pub system_prompts: bool,
    /// `null`: answers are not looked at.
    pub output: Value,
}

/// A policy that an operator gave to a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GivenPolicy {
    /// `None`: for all models that have no other.
    pub model: Option<String>,
    pub policy: String,
    /// The configuration has it; if not, the tenant's own holds.
    pub known: bool,
}

// === impl Gateway ===

impl Gateway {
    /// Those that have a name.
    pub fn policies(&self) -> Vec<PolicyCard> {
        let live = self.live.load_full();
        live.policies().all().map(|(name, policy)| PolicyCard::of(name, policy)).collect()
    }

    /// What operators gave to a tenant; `None` where there is no such tenant.
    pub fn given_policies(&self, tenant: &TenantId) -> Option<Vec<GivenPolicy>> {
        let live = self.live.load_full();
        live.keyring().tenant(tenant)?;
        let accounts = self.catalogue().accounts();
        let own = accounts.policies.iter().filter(|given| given.tenant == *tenant);
        let given = own.map(|given| GivenPolicy {
            model: given.model.as_deref().map(str::to_owned),
            policy: given.policy.to_string(),
            known: live.policies().named(&given.policy).is_some(),
        });
        Some(given.collect())
    }

    /// Gives a tenant a policy, for one of its model names or for all that have
    /// no other; `None` takes it away.
    pub async fn set_policy(
        &self,
        who: &str,
        tenant: &TenantId,
        model: Option<&str>,
        policy: Option<&str>,
    ) -> Result<(), ChangeError> {
        let unknown = |what: String| ChangeError::Unknown(what);
        let before = self.given_policies(tenant).ok_or_else(|| unknown(format!("tenant `{tenant}`")))?;
        if let Some(name) = policy
            && self.live.load().policies().named(name).is_none()
        {
            let name: String = name.chars().take(100).collect();
            return Err(ChangeError::Invalid(format!("`policy`: the configuration has no policy `{name}`")));
        }
        if model.is_some_and(|model| !is_model_name(model)) {
            let rule = "a model's name has 1 to 128 characters, no control characters, and is neither `.` nor `..`";
            return Err(ChangeError::Invalid(rule.to_owned()));
        }
        if !self.catalogue().set_policy(tenant, model, policy).await? {
            return Ok(());
        }
        self.assemble();
        let of = |given: &[GivenPolicy]| json!(given.iter().find(|given| given.model.as_deref() == model));
        let subject = match model {
            Some(model) => format!("tenants/{tenant}/models/{model}/policy"),
            None => format!("tenants/{tenant}/policy"),
        };
        let action = if policy.is_some() { "policy.given" } else { "policy.taken" };
        let after = of(&self.given_policies(tenant).unwrap_or_default());
        self.audit(Change { who, action, subject, tenant: Some(tenant), before: of(&before), after });
        Ok(())
    }
}

// === impl PolicyCard ===

impl PolicyCard {
    fn of(name: &str, policy: &Policy) -> Self {
        let output = policy.output.as_ref().map(|output| {
            let mut told = rules(&output.rules);
            told["mode"] = json!(match output.mode {
                Mode::Strict => "strict",
                Mode::Async => "async",
            });
            told["hold_milliseconds"] = json!(u64::try_from(output.hold.as_millis()).unwrap_or(u64::MAX));
            told
        });
        Self {
            name: name.to_owned(),
            prompt: json!(policy.prompt.as_ref().map(rules)),
            system_prompts: policy.system_prompts,
            output: json!(output),
        }
    }
}

fn rules(rules: &Rules) -> Value {
    // Two decimals are what is written in a configuration.
    let threshold = |of: Option<f32>| of.map(|of| (f64::from(of) * 1e4).round() / 1e4);
    let categories = rules.by_category().map(|(category, of)| (category.to_owned(), json!(threshold(of))));
    let categories: serde_json::Map<String, Value> = categories.collect();
    json!({
        "action": match rules.action {
            Action::Flag => "flag",
            Action::Redact => "redact",
            Action::Block => "block",
        },
        "thresholds": categories,
        "judge": rules.judge.as_deref(),
        "busy": match rules.busy {
            Busy::Stage1 => "stage1",
            Busy::Block => "block",
        },
        "has_lists": !rules.lists.is_empty(),
    })
}
