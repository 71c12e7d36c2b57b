//! `[guard]`: what is looked for in prompts and answers, and who has which policy.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tenantry_guard::{Action as Listed, Category, Entry as ListEntry, ListError, Lists, Pattern};

use crate::moderation::{Busy, Mode, OfTenant, Output, Policies, Policy, PoolConfig, Rules};
use crate::types::{Action, BaseName};

use super::section::{Entry, Findings, Section, boolean, choice, decimal, duration_in, number, text};
use super::tree::{Node, Value};
use super::validate::{Folder, id};
use super::workers::no_base;
use super::{BaseConfig, Config, SecretRef, TenantConfig, secret};

/// What is looked for in prompts and answers.
#[derive(Debug, Clone, Default)]
pub struct GuardConfig {
    pub stage2: Stage2Config,
    pub judges: Vec<JudgeConfig>,
    pub policies: BTreeMap<String, Arc<Policy>>,
    /// Of tenants that name no policy.
    pub standard: Arc<Policy>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage2Config {
    pub enabled: bool,
    /// A folder with a classifier; `None` for the one in the binary.
    pub path: Option<PathBuf>,
    pub pool: PoolConfig,
}

/// A judge beside the guard's own models.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JudgeConfig {
    pub name: Arc<str>,
    pub kind: JudgeKind,
    pub timeout: Duration,
    /// Whether what it does not judge is blocked.
    pub closed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JudgeKind {
    /// OpenAI's `/v1/moderations`, somewhere.
    Endpoint { url: String, key: Option<SecretRef>, model: Option<String> },
    /// A guard model that the pool serves.
    Pool { base: BaseName },
}

const ACTIONS: [(&str, Action); 3] = [("block", Action::Block), ("redact", Action::Redact), ("flag", Action::Flag)];
const BUSY: [(&str, Busy); 2] = [("stage1", Busy::Stage1), ("block", Busy::Block)];
/// What a judge that does not answer means.
const FAILURE: [(&str, bool); 2] = [("allow", false), ("block", true)];

type NamedLists = BTreeMap<String, Vec<ListEntry>>;

/// The policies by their names, for those who name them.
#[derive(Default)]
pub(super) struct Named(BTreeMap<String, Arc<Policy>>);

/// What policies may name.
struct Known<'a> {
    lists: NamedLists,
    judges: Vec<&'a str>,
    findings: &'a Findings<'a>,
}

pub(super) fn guard(
    mut section: Section<'_>,
    folder: &Folder<'_>,
    bases: &[BaseConfig],
    findings: &Findings<'_>,
) -> (GuardConfig, Named) {
    let stage2 = stage2(section.section("stage2"), folder);
    let mut lists = NamedLists::new();
    for (name, entry) in section.named("lists") {
        lists.insert(name.to_owned(), list(name, entry, findings));
    }
    let judges: Vec<JudgeConfig> = section
        .named("judges")
        .into_iter()
        .filter_map(|(name, entry)| judge(name, entry, folder, bases, findings))
        .collect();
    let known = Known { lists, judges: judges.iter().map(|judge| &*judge.name).collect(), findings };
    let mut policies = Named::default();
    for (name, entry) in section.named("policies") {
        findings.check(&entry.path, id(name));
        policies.0.insert(name.to_owned(), Arc::new(known.policy(Section::of(entry, findings))));
    }
    let standard = section.optional("policy", |node| policies.policy(node));
    section.finish();
    let named = policies.0.clone();
    (GuardConfig { stage2, judges, policies: named, standard: standard.unwrap_or_default() }, policies)
}

fn stage2(mut section: Section<'_>, folder: &Folder<'_>) -> Stage2Config {
    let usual = PoolConfig::default();
    let enabled = section.optional("enabled", boolean).unwrap_or(true);
    let path = section.optional("path", |node| folder.path(node));
    let mut count = |key, usual: NonZeroUsize, most| {
        let given = section.optional(key, number(1..=most)).and_then(|number| NonZeroUsize::new(number as usize));
        given.unwrap_or(usual)
    };
    let threads = count("threads", usual.threads, 64);
    let batch = count("batch", usual.batch, 64);
    let queue = count("queue", usual.queue, 65_536);
    let wait = section.optional("wait", duration_in(Duration::from_millis(1)..=Duration::from_secs(60)));
    section.finish();
    Stage2Config { enabled, path, pool: PoolConfig { threads, batch, queue, wait: wait.unwrap_or(usual.wait) } }
}

fn list<'a>(name: &str, entry: Entry<'a>, findings: &'a Findings<'a>) -> Vec<ListEntry> {
    let mut section = Section::of(entry, findings);
    let category = section.optional("category", text).unwrap_or_else(|| name.to_owned());
    let (mut entries, mut paths) = (Vec::new(), Vec::new());
    for (key, action) in [("block", Listed::Block), ("redact", Listed::Redact), ("allow", Listed::Allow)] {
        for Entry { path, node } in section.list(key) {
            if let Some(pattern) = findings.check(&path, text(node).and_then(|text| pattern(&text))) {
                entries.push(ListEntry { pattern, action, category: category.clone() });
                paths.push(path);
            }
        }
    }
    let path = section.path.clone();
    section.finish();
    if let Err(error) = Lists::new(entries.clone()) {
        findings.add(place(&error).and_then(|at| paths.get(at)).unwrap_or(&path), without_place(&error));
        return Vec::new();
    }
    entries
}

/// `/…/` is a regular expression, `word*` a stem, and all else a word or several.
fn pattern(text: &str) -> Result<Pattern, String> {
    if let Some(regex) = text.strip_prefix('/').and_then(|text| text.strip_suffix('/')) {
        let empty = "the regular expression is empty".to_owned();
        return if regex.is_empty() { Err(empty) } else { Ok(Pattern::Regex(regex.to_owned())) };
    }
    Ok(match text.strip_suffix('*') {
        Some(stem) => Pattern::Stem(stem.to_owned()),
        None => Pattern::Word(text.to_owned()),
    })
}

fn place(error: &ListError) -> Option<usize> {
    match error {
        ListError::TooLong { entry, .. }
        | ListError::Empty { entry, .. }
        | ListError::NotAWord { entry, .. }
        | ListError::Regex { entry, .. } => Some(*entry),
        ListError::TooMany { .. } | ListError::TooManyRegexes { .. } | ListError::Automaton { .. } => None,
    }
}

/// The path says which entry it is.
fn without_place(error: &ListError) -> String {
    let text = error.to_string();
    match text.split_once(": ") {
        Some((before, rest)) if before.starts_with("entry ") => rest.to_owned(),
        _ => text,
    }
}

fn judge<'a>(
    name: &str,
    entry: Entry<'a>,
    folder: &Folder<'_>,
    bases: &[BaseConfig],
    findings: &'a Findings<'a>,
) -> Option<JudgeConfig> {
    findings.check(&entry.path, id(name));
    let mut section = Section::of(entry, findings);
    let (url, base) = (section.has("url"), section.has("base"));
    if section.is_table() && url == base {
        let message = if url { "has both `url` and `base`" } else { "has neither `url` nor `base`" };
        findings.add(&section.path, message);
    }
    let url = section.optional("url", |node| {
        let url = text(node)?;
        let plain = url.starts_with("http://") || url.starts_with("https://");
        if plain { Ok(url) } else { Err("expected an http:// or https:// address".to_owned()) }
    });
    let key = section.optional("key", secret::reference(folder));
    let model = section.optional("model", text);
    let base = section.optional("base", |node| {
        let base = BaseName::new(text(node)?);
        let known = bases.iter().any(|known| known.name == base);
        known.then(|| base.clone()).ok_or_else(|| no_base(&base, bases))
    });
    let range = Duration::from_millis(10)..=Duration::from_secs(60);
    let timeout = section.optional("timeout", duration_in(range)).unwrap_or(Duration::from_secs(2));
    let closed = section.optional("on_failure", choice(&FAILURE)).unwrap_or(false);
    let path = section.path.clone();
    section.finish();
    if base.is_some() && (key.is_some() || model.is_some()) {
        findings.add(&path, "`key` and `model` are for a judge with a `url`");
    }
    let kind = match (url, base) {
        (Some(url), _) => JudgeKind::Endpoint { url, key, model },
        (None, Some(base)) => JudgeKind::Pool { base },
        (None, None) => return None,
    };
    Some(JudgeConfig { name: name.into(), kind, timeout, closed })
}

// === impl Named ===

impl Named {
    /// The policy that a value names.
    pub(super) fn policy(&self, node: &Node) -> Result<Arc<Policy>, String> {
        let name = text(node)?;
        self.0.get(&name).cloned().ok_or_else(|| match self.0.is_empty() {
            true => format!("there is no policy `{name}`; none is defined under `guard.policies`"),
            false => {
                let known: Vec<&str> = self.0.keys().map(String::as_str).collect();
                format!("there is no policy `{name}`; defined are {}", known.join(", "))
            }
        })
    }
}

// === impl Known ===

impl<'a> Known<'a> {
    fn policy(&self, mut section: Section<'a>) -> Policy {
        let mut entries = Vec::new();
        for Entry { path, node } in section.list("lists") {
            let named = text(node).and_then(|name| {
                self.lists.get(&name).ok_or_else(|| format!("there is no list `{name}` under `guard.lists`"))
            });
            entries.extend(self.findings.check(&path, named).into_iter().flatten().cloned());
        }
        let lists_path = section.child("lists");
        let lists = self.findings.check(&lists_path, Lists::new(entries).map_err(|error| error.to_string()));
        let lists = Arc::new(lists.unwrap_or_else(|| Lists::new([]).expect("no entry can be wrong")));
        let system_prompts = section.optional("system_prompts", boolean).unwrap_or(false);
        let prompt = self.prompt(section.section("prompt"), &lists);
        let output = self.output(section.section("output"), &lists);
        section.finish();
        Policy { prompt, system_prompts, output }
    }

    fn prompt(&self, mut section: Section<'a>, lists: &Arc<Lists>) -> Option<Rules> {
        let on = section.optional("mode", choice(&[("on", true), ("off", false)])).unwrap_or(true);
        let rules = self.rules(&mut section, lists);
        section.finish();
        on.then_some(rules)
    }

    fn output(&self, mut section: Section<'a>, lists: &Arc<Lists>) -> Option<Output> {
        let modes = [("strict", Some(Mode::Strict)), ("async", Some(Mode::Async)), ("off", None)];
        let mode = section.optional("mode", choice(&modes)).unwrap_or(Some(Mode::Strict));
        let range = Duration::from_millis(10)..=Duration::from_secs(60);
        let hold = section.optional("hold", duration_in(range)).unwrap_or(Output::HOLD);
        let rules = self.rules(&mut section, lists);
        if mode == Some(Mode::Async) && rules.action == Action::Redact {
            let message =
                "nothing can be redacted of what was sent already: with \"async\" it is \"block\" or \"flag\"";
            self.findings.add(&section.child("action"), message);
        }
        if mode == Some(Mode::Async) && lists.redacts() {
            let message =
                "a list of the policy has `redact` entries, and nothing can be redacted of what was sent already";
            self.findings.add(&section.child("mode"), message);
        }
        section.finish();
        mode.map(|mode| Output { rules, mode, hold })
    }

    fn rules(&self, section: &mut Section<'a>, lists: &Arc<Lists>) -> Rules {
        let usual = Rules::default();
        let action = section.optional("action", choice(&ACTIONS)).unwrap_or(usual.action);
        let threshold = section.optional("threshold", decimal(0.01..=1.0));
        let mut thresholds = usual.thresholds.map(|of| threshold.map_or(of, |threshold| Some(threshold as f32)));
        let mut categories = section.section("categories");
        for category in Category::ALL {
            let key = category.as_str();
            if let Some(own) = categories.optional(key, |node| match &node.value {
                Value::Text(off) if off == "off" => Ok(None),
                _ => decimal(0.01..=1.0)(node).map(Some).map_err(|error| format!("{error}, or \"off\"")),
            }) {
                thresholds[category as usize] = own.map(|threshold| threshold as f32);
            }
        }
        categories.finish();
        let judge = section.optional("judge", |node| {
            let name = text(node)?;
            let known = self.judges.contains(&name.as_str());
            known
                .then(|| Arc::from(name.as_str()))
                .ok_or_else(|| format!("there is no judge `{name}` under `guard.judges`"))
        });
        let busy = section.optional("busy", choice(&BUSY)).unwrap_or(usual.busy);
        Rules { action, thresholds, lists: lists.clone(), judge, busy }
    }
}

// === impl Config ===

impl Config {
    /// Who has which policy.
    pub fn policies(&self) -> Policies {
        let standard = &self.guard.standard;
        let of = |tenant: &TenantConfig| {
            let own = tenant.guard.as_ref().unwrap_or(standard);
            let differs = !Arc::ptr_eq(own, standard) || !tenant.model_guards.is_empty();
            let policies = OfTenant { own: own.clone(), models: tenant.model_guards.clone() };
            differs.then(|| (tenant.id.clone(), policies))
        };
        Policies::new(standard.clone(), self.tenants.iter().filter_map(of).collect())
            .naming(self.guard.policies.clone())
    }
}

// === impl Stage2Config ===

impl Default for Stage2Config {
    fn default() -> Self {
        Self { enabled: true, path: None::<PathBuf>, pool: PoolConfig::default() }
    }
}
