//! The configuration read again while the gateway runs: all of what is live is
//! changed, or nothing.
//!
//! First everything that can fail is done, beside what runs: the file is read
//! and validated, the artifacts that it names are read, newcomers among the
//! workers and judges are started. Only then are they put in place, which
//! cannot fail. Requests keep the configuration that they began with, and
//! whoever leaves does so when none of those asks for a worker any more.

mod watch;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tracing::{error, info, warn};

use crate::adapters::Artifact;
use crate::config::{Config, Loaded};
use crate::edge::http::{Configuration, Control, LogFilter, Reload};
use crate::gateway::{Change, Gateway, Live, Replaced};
use crate::moderation::Guard;
use crate::pool::Worker;
use crate::telemetry::{Metrics, NoLog};

use super::catalogue::Bases;
use super::discovery::{Waiting, answering};
use super::fleet::{Changed, Fleet};
use super::guard::Judges;
use super::logging::Logging;
use super::{StartError, inspect, ratings};
use watch::Watch;

/// How often it is looked whether anybody goes by the configuration before.
const LOOK: Duration = Duration::from_millis(20);
/// The longest that it is waited for.
const LONGEST: Duration = Duration::from_secs(60);

/// Where adapters of a configuration lie.
type Artifacts = Vec<(Artifact, PathBuf)>;

/// Why the configuration is read again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trigger {
    Signal,
    File,
    /// By whom.
    Operator(String),
}

/// Reads the configuration again and puts it in place. Clones are the same.
#[derive(Clone)]
pub(super) struct Reloader(Arc<Inner>);

/// What it changes, and what that is made of.
pub(super) struct Parts {
    pub(super) gateway: Arc<Gateway>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) bases: Arc<Bases>,
    pub(super) waiting: Waiting,
    pub(super) guard: Guard,
    pub(super) judges: Judges,
    pub(super) fleet: Fleet,
    pub(super) artifacts: Artifacts,
    pub(super) logging: Logging,
}

struct Inner {
    file: PathBuf,
    /// As the process was started with it.
    started: Config,
    gateway: Arc<Gateway>,
    metrics: Arc<Metrics>,
    bases: Arc<Bases>,
    waiting: Waiting,
    guard: Guard,
    logging: Logging,
    /// One reload at a time.
    state: tokio::sync::Mutex<State>,
    told: Mutex<Configuration>,
    /// Of configurations that were replaced and that requests still go by.
    lingering: Mutex<Vec<(u64, Artifacts)>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

struct State {
    judges: Judges,
    fleet: Fleet,
    artifacts: Artifacts,
    /// Demonstration keys that were said to be public.
    public: HashSet<String>,
    count: u64,
}

// === impl Trigger ===

impl Trigger {
    fn as_str(&self) -> &'static str {
        match self {
            Self::Signal => "signal",
            Self::File => "file",
            Self::Operator(_) => "operator",
        }
    }

    fn who(&self) -> &str {
        match self {
            Self::Signal | Self::File => self.as_str(),
            Self::Operator(who) => who,
        }
    }
}

// === impl Reloader ===

impl Reloader {
    pub(super) fn new(file: PathBuf, started: Config, parts: Parts) -> Self {
        let Parts { gateway, metrics, bases, waiting, guard, judges, fleet, artifacts, logging } = parts;
        let public = started.demo_keys().map(|(_, key)| key.to_owned()).collect();
        let now = SystemTime::now();
        metrics.reloads().loaded(now);
        let told = Configuration {
            file: file.display().to_string(),
            watched: started.reload.watch,
            loaded: seconds(now),
            waiting_for_restart: Vec::new(),
            last_reload: None,
        };
        Self(Arc::new(Inner {
            file,
            started,
            gateway,
            metrics,
            bases,
            waiting,
            guard,
            logging,
            state: tokio::sync::Mutex::new(State { judges, fleet, artifacts, public, count: 0 }),
            told: Mutex::new(told),
            lingering: Mutex::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        }))
    }

    /// Looks for changes of the file since it was `read`, where the configuration says so.
    pub(super) fn watch(&self, read: SystemTime) -> Option<AbortOnDropHandle<()>> {
        let settings = &self.0.started.reload;
        if !settings.watch {
            return None;
        }
        let (reloader, interval, mut watch) = (self.clone(), settings.interval, Watch::of(&self.0.file, read));
        Some(AbortOnDropHandle::new(tokio::spawn(async move {
            loop {
                tokio::time::sleep(interval).await;
                if watch.look() {
                    reloader.reload(Trigger::File).await;
                }
            }
        })))
    }

    /// Goes on to its end if nobody waits for it.
    pub(super) async fn reload(&self, trigger: Trigger) -> Reload {
        let inner = self.0.clone();
        let reloading = self.0.tasks.spawn(async move { inner.reload(trigger).await });
        reloading.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    }

    /// Nothing is waited for any more; who is leaving has left.
    pub(super) async fn stop(&self) {
        self.0.stop.cancel();
        self.0.tasks.close();
        // Models may be loading.
        let _ = tokio::time::timeout(super::FLUSH, self.0.tasks.wait()).await;
    }
}

impl Control for Reloader {
    fn configuration(&self) -> Configuration {
        lock(&self.0.told).clone()
    }

    fn reload(&self, who: &str) -> BoxFuture<'static, Reload> {
        let (reloader, trigger) = (self.clone(), Trigger::Operator(who.to_owned()));
        async move { Self::reload(&reloader, trigger).await }.boxed()
    }

    fn log_filter(&self) -> LogFilter {
        self.0.logging.now()
    }

    fn set_log_filter(&self, filter: Option<&str>, lasting: Option<Duration>) -> Result<(), NoLog> {
        match filter {
            Some(filter) => self.0.logging.set(filter, lasting),
            None => self.0.logging.reset(),
        }
    }
}

// === impl Inner ===

impl Inner {
    async fn reload(self: Arc<Self>, trigger: Trigger) -> Reload {
        let mut state = self.state.lock().await;
        let at = SystemTime::now();
        let mut reload = Reload {
            at: seconds(at),
            trigger: trigger.as_str(),
            applied: false,
            problems: Vec::new(),
            waiting_for_restart: Vec::new(),
            workers_started: Vec::new(),
            workers_left: Vec::new(),
        };
        match self.apply(&mut state).await {
            Ok((changed, waiting)) => {
                self.metrics.reloads().applied(at, waiting.len());
                (reload.workers_started, reload.workers_left) = (changed.started, changed.left);
                info!(
                    trigger = reload.trigger,
                    started = reload.workers_started.join(", "),
                    left = reload.workers_left.join(", "),
                    "the configuration was read again"
                );
                if !waiting.is_empty() {
                    warn!(keys = waiting.join(", "), "these keys have changed and wait for a restart");
                }
                (reload.applied, reload.waiting_for_restart) = (true, waiting);
            }
            Err(problems) => {
                self.metrics.reloads().refused();
                for problem in &problems {
                    error!(problem, "the configuration is not taken; all is as before");
                }
                reload.problems = problems;
                reload.waiting_for_restart.clone_from(&lock(&self.told).waiting_for_restart);
            }
        }
        let mut told = lock(&self.told);
        let before = json!(*told);
        if reload.applied {
            told.loaded = reload.at;
            told.waiting_for_restart.clone_from(&reload.waiting_for_restart);
        }
        told.last_reload = Some(reload.clone());
        let after = json!(*told);
        drop(told);
        let action = if reload.applied { "config.reloaded" } else { "config.refused" };
        let subject = "config".to_owned();
        self.gateway.audit(Change { who: trigger.who(), action, subject, tenant: None, before, after });
        reload
    }

    /// What was done, and the keys that wait for a restart; or all that is
    /// wrong, and then nothing was changed.
    async fn apply(self: &Arc<Self>, state: &mut State) -> Result<(Changed, Vec<String>), Vec<String>> {
        let file = self.file.clone();
        let reading = tokio::task::spawn_blocking(move || inspect::load(&file));
        let loaded = reading.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        let Loaded { config, digests, warnings, .. } =
            loaded.map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        let config = Arc::new(config);
        let failed = |error: StartError| vec![error.to_string()];
        let ungiven = self.ungiven(&config);
        if !ungiven.is_empty() {
            return Err(ungiven);
        }
        let prepared = state.fleet.prepare(&config).await.map_err(failed)?;
        let judges = state.judges.changed(&config, self.gateway.shared_pool()).map_err(failed)?;

        // From here on nothing fails.
        for warning in &warnings {
            warn!("{warning}");
        }
        for (tenant, key) in config.demo_keys() {
            if state.public.insert(key.to_owned()) {
                warn!(%tenant, key, "a demonstration key is in use; it is public");
            }
        }
        let resolved = config.resolve(&digests);
        state.count += 1;
        lock(&self.lingering).push((state.count, std::mem::take(&mut state.artifacts)));
        state.artifacts.clone_from(&resolved.adapters);
        self.bases.change(Bases::of(&config));
        self.list_adapters(&state.artifacts).await;
        let changed = state.fleet.change(prepared, &config, &self.gateway, &self.metrics);
        self.waiting.on(&self.gateway, resolved.bases.clone(), state.fleet.followers());
        let live = Live::new(resolved.keyring, resolved.bases).guarded(config.policies());
        let live = live.rating(ratings::policies(&config)).judged_by(self.guard.asking(judges.outside()));
        state.judges = judges;
        let replaced = self.gateway.reconfigure(live);
        self.logging.configured(&config.log.filter);
        self.let_go(state.count, replaced, changed.leaving.clone());
        Ok((changed, self.started.waiting_for_restart(&config)))
    }

    /// Policies that operators gave to tenants and the file has no more: without
    /// them those tenants would be guarded less than they were told.
    fn ungiven(&self, config: &Config) -> Vec<String> {
        let policies = config.policies();
        let accounts = self.gateway.catalogue().accounts();
        let gone = accounts.policies.iter().filter(|given| policies.named(&given.policy).is_none());
        gone.map(|given| {
            let (policy, tenant) = (&given.policy, &given.tenant);
            format!("guard.policies: there is no `{policy}`, which tenant {tenant} was given: take it from it first")
        })
        .collect()
    }

    /// The adapters of the configuration, and of those before as long as
    /// requests ask for them.
    async fn list_adapters(&self, configured: &Artifacts) {
        let mut all = configured.clone();
        for (_, artifacts) in lock(&self.lingering).iter() {
            let more = artifacts.iter().filter(|(one, _)| !configured.iter().any(|(other, _)| other.key == one.key));
            all.extend(more.cloned());
        }
        self.gateway.catalogue().configure(all).await;
    }

    /// Has workers and adapters leave when nobody asks for them any more.
    fn let_go(self: &Arc<Self>, count: u64, replaced: Replaced, leaving: Vec<Arc<Worker>>) {
        let inner = self.clone();
        self.tasks.spawn(async move {
            let forgotten = async {
                while !replaced.is_forgotten() {
                    tokio::time::sleep(LOOK).await;
                }
            };
            let waiting = tokio::time::timeout(LONGEST, forgotten);
            // The end of the process does not wait for it.
            let _ = inner.stop.run_until_cancelled(waiting).await;
            // Those in their places are asked how they are first.
            let replaced = leaving.iter().map(|gone| async {
                let pool = inner.gateway.pool();
                let same = |it: &&Arc<Worker>| it.name() == gone.name() && !Arc::ptr_eq(it, gone);
                let newcomers: Vec<_> = pool.workers().iter().filter(same).cloned().collect();
                answering(&newcomers).await;
            });
            let _ = inner.stop.run_until_cancelled(futures_util::future::join_all(replaced)).await;
            inner.gateway.pool().dismiss(&leaving);
            let state = inner.state.lock().await;
            lock(&inner.lingering).retain(|(other, _)| *other != count);
            inner.list_adapters(&state.artifacts).await;
        });
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
