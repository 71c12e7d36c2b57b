//! What is looked for in whose texts, and what is done about it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tenantry_guard::{Category, Lists, Score};

use crate::types::{Action, Stage, TenantId};

/// For one model name of one tenant.
#[derive(Debug)]
pub struct Policy {
    /// `None`: prompts are not looked at.
    pub prompt: Option<Rules>,
    /// Whether what the application says of itself is looked at as well: system and
    /// developer messages, definitions of tools.
    pub system_prompts: bool,
    /// `None`: answers are not looked at.
    pub output: Option<Output>,
}

#[derive(Debug)]
pub struct Output {
    pub rules: Rules,
    pub mode: Mode,
    /// The longest that a finished word waits to be judged.
    pub hold: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Nothing is sent that was not judged.
    Strict,
    /// Everything is sent at once, and no more once something was found.
    Async,
}

/// For one side.
#[derive(Debug)]
pub struct Rules {
    /// What is done where a model or a judge finds something; a list's entry says
    /// itself what is done.
    pub action: Action,
    /// From which score on, in the order of [`Category::ALL`]; `None`: not looked for.
    pub thresholds: [Option<f32>; Category::ALL.len()],
    pub lists: Arc<Lists>,
    /// The name of a judge outside, who is asked in addition.
    pub judge: Option<Arc<str>>,
    pub busy: Busy,
}

/// What decides where the second stage has no time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Busy {
    /// The first.
    Stage1,
    /// Nobody: the text is blocked.
    Block,
}

/// Who has which policy.
#[derive(Debug, Clone)]
pub struct Policies {
    standard: Arc<Policy>,
    tenants: HashMap<TenantId, OfTenant>,
    named: BTreeMap<String, Arc<Policy>>,
}

/// A tenant's, where it is not the standard one.
#[derive(Debug, Clone)]
pub struct OfTenant {
    pub own: Arc<Policy>,
    /// By the model's name as clients write it.
    pub models: BTreeMap<Arc<str>, Arc<Policy>>,
}

/// How likely a text is of one kind, 0 to 1, and whether that is enough to count.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Kind {
    pub category: Category,
    pub score: f32,
    pub counts: bool,
    /// Whether the policy looks for it.
    pub wanted: bool,
}

/// What a text's scores come to.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Found {
    pub action: Action,
    pub stage: Stage,
    pub category: Arc<str>,
    pub score: f32,
}

// === impl Found ===

impl Found {
    /// Nobody could judge a text that has to be judged.
    pub(super) fn unjudged() -> Self {
        Self { action: Action::Block, stage: Stage::Unjudged, category: "unjudged".into(), score: 1.0 }
    }
}

// === impl Policies ===

impl Policies {
    pub fn new(standard: Arc<Policy>, tenants: HashMap<TenantId, OfTenant>) -> Self {
        Self { standard, tenants, named: BTreeMap::new() }
    }

    /// The same with policies known by their names.
    #[must_use]
    pub fn naming(self, named: BTreeMap<String, Arc<Policy>>) -> Self {
        Self { named, ..self }
    }

    pub fn named(&self, name: &str) -> Option<&Arc<Policy>> {
        self.named.get(name)
    }

    /// All that have a name.
    pub fn all(&self) -> impl Iterator<Item = (&str, &Arc<Policy>)> {
        self.named.iter().map(|(name, policy)| (name.as_str(), policy))
    }

    pub fn standard(&self) -> &Arc<Policy> {
        &self.standard
    }

    /// The tenant's own, where it is not the standard one.
    pub fn of_tenant(&self, tenant: &TenantId) -> Option<&OfTenant> {
        self.tenants.get(tenant)
    }

    pub fn set(&mut self, tenant: TenantId, own: OfTenant) {
        self.tenants.insert(tenant, own);
    }

    /// Nobody's texts are looked at.
    pub fn unguarded() -> Self {
        let policy = Policy { prompt: None, system_prompts: false, output: None };
        Self::new(Arc::new(policy), HashMap::new())
    }

    pub fn of(&self, tenant: &TenantId, model: &str) -> &Arc<Policy> {
        let Some(own) = self.tenants.get(tenant) else { return &self.standard };
        own.models.get(model).unwrap_or(&own.own)
    }
}

impl Default for Policies {
    fn default() -> Self {
        Self::new(Arc::new(Policy::default()), HashMap::new())
    }
}

// === impl Policy ===

impl Default for Policy {
    /// Blocks on both sides whatever the models find; no lists.
    fn default() -> Self {
        let output = Output { rules: Rules::default(), mode: Mode::Strict, hold: Output::HOLD };
        Self { prompt: Some(Rules::default()), system_prompts: false, output: Some(output) }
    }
}

// === impl Output ===

impl Output {
    pub const HOLD: Duration = Duration::from_millis(300);

    /// Whether text may be sent before it is judged: where it is at most told what
    /// was found, there is nothing to wait for.
    pub(super) fn sends_at_once(&self) -> bool {
        let tells = self.rules.action == Action::Flag && self.rules.lists.is_empty();
        // Who blocks what nobody has judged has to wait for the judgement.
        self.mode == Mode::Async || tells && self.rules.busy == Busy::Stage1 && self.rules.judge.is_none()
    }
}

// === impl Rules ===

impl Rules {
    /// What scores come to: `toxic` by all stages that have looked, of the kinds that
    /// stage 1 told. It counts as the likeliest kind, and as any other that reaches
    /// its own threshold.
    pub(super) fn find(&self, toxic: f32, kinds: &Score, stage: Stage) -> Option<Found> {
        let counting = self.categories(toxic, kinds).into_iter().filter(|kind| kind.counts);
        let Kind { category, .. } = counting.max_by(|one, other| one.score.total_cmp(&other.score))?;
        Some(Found { action: self.action, stage, category: category.as_str().into(), score: toxic })
    }

    /// Every kind by itself, in the order of [`Category::ALL`].
    pub(super) fn categories(&self, toxic: f32, kinds: &Score) -> [Kind; Category::ALL.len()] {
        let share = if kinds.toxic > 0.0 { toxic / kinds.toxic } else { 0.0 };
        let likeliest = kinds.category();
        Category::ALL.map(|category| {
            let score = (kinds.of(category) * share).min(toxic);
            let over = |threshold| toxic >= threshold && (category == likeliest || score >= threshold);
            let threshold = self.thresholds[category as usize];
            Kind { category, score, counts: threshold.is_some_and(over), wanted: threshold.is_some() }
        })
    }

    /// From which score on each category counts; `None`: it is not looked for.
    pub fn by_category(&self) -> impl Iterator<Item = (&'static str, Option<f32>)> {
        Category::ALL.into_iter().map(|category| (category.as_str(), self.thresholds[category as usize]))
    }

    /// The lowest score at which something is found.
    pub(super) fn least(&self) -> f32 {
        self.thresholds.iter().flatten().copied().fold(f32::INFINITY, f32::min)
    }
}

impl Default for Rules {
    fn default() -> Self {
        let lists = Lists::new([]).expect("no entry can be wrong");
        Self {
            action: Action::Block,
            thresholds: [Some(tenantry_guard::THRESHOLD); Category::ALL.len()],
            lists: Arc::new(lists),
            judge: None,
            busy: Busy::Stage1,
        }
    }
}

#[cfg(test)]
mod tests {
    use tenantry_guard::{Linear, Normalised};

    use super::*;

    #[test]
    fn a_category_that_is_not_looked_for_is_not_found() {
        let kinds = Linear::embedded().score(&Normalised::of("you stupid idiot"));
        assert_eq!(kinds.category(), Category::Insult);
        let mut rules = Rules::default();
        let found = rules.find(kinds.toxic, &kinds, Stage::Linear).expect("an insult");
        assert_eq!((&*found.category, found.action, found.score), ("insult", Action::Block, kinds.toxic));
        rules.thresholds[Category::Insult as usize] = None;
        assert_eq!(rules.find(kinds.toxic, &kinds, Stage::Linear), None);
    }

    #[test]
    fn the_score_of_both_stages_is_held_against_the_threshold() {
        let kinds = Linear::embedded().score(&Normalised::of("you stupid idiot"));
        let rules = Rules::default();
        assert!(rules.find(tenantry_guard::THRESHOLD - 0.01, &kinds, Stage::Encoder).is_none());
        assert!(rules.find(tenantry_guard::THRESHOLD, &kinds, Stage::Encoder).is_some());
    }

    #[test]
    fn a_model_name_has_its_own_policy_and_other_tenants_none_of_it() {
        let policy = || Arc::new(Policy::default());
        let (standard, own, of_model) = (policy(), policy(), policy());
        let models = [(Arc::from("strict"), of_model.clone())].into();
        let tenants = [(TenantId::new("acme"), OfTenant { own: own.clone(), models })].into();
        let policies = Policies::new(standard.clone(), tenants);
        let of = |tenant, model| policies.of(&TenantId::new(tenant), model);
        assert!(Arc::ptr_eq(of("acme", "strict"), &of_model));
        assert!(Arc::ptr_eq(of("acme", "other"), &own));
        assert!(Arc::ptr_eq(of("globex", "strict"), &standard));
    }
}
