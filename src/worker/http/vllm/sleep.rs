//! vLLM's sleep mode: an engine that nobody needs gives its GPU's memory back
//! and keeps its weights in the machine's. One that was started with
//! `--enable-sleep-mode`, and with `VLLM_SERVER_DEV_MODE=1` in its environment,
//! offers it.
//!
//! Whoever put the engine to sleep, a call of ours wakes it first: it would take
//! a request in its sleep, and not answer. Put to sleep it is by us only where
//! that is configured, and only while nobody's request is there. What is here
//! was held against the interface of vLLM 0.32 and tested with a server that
//! follows a script, not on a GPU.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt, Shared};
use http::StatusCode;
use serde_json::Value;
use tokio::time::Instant;
use tracing::{info, warn};

use super::look::Seen;
use crate::worker::http::client::{Client, ClientError};
use crate::worker::http::upstream::MAX_ANSWER;

/// Whether one engine sleeps, and what is done about it.
pub(super) struct Sleeper {
    client: Arc<Client>,
    /// How long nobody has to need it before it is put to sleep.
    after: Option<Duration>,
    /// The longest that falling asleep, or waking up, may take.
    limit: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The run of the engine that the rest is about.
    instance: String,
    phase: Phase,
    /// Calls of ours that it has, or that wait for it to wake up.
    ours: usize,
    /// Since when nobody needed it, and how much it had done until then.
    idle: Option<(Instant, f64)>,
    /// It could not be put to sleep.
    sleepless: bool,
    change: Option<Change>,
    /// How often `phase` was set by a change: an answer to an earlier question is stale.
    changes: u64,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Phase {
    #[default]
    Unknown,
    /// It has no sleep mode.
    Sleepless,
    Awake,
    /// Or about to be.
    Asleep,
}

type Done = Shared<BoxFuture<'static, Result<(), String>>>;

/// A change under way. Many may wait for it, and it goes on when none does; it
/// ends by itself, within its limit.
#[derive(Clone)]
struct Change {
    wakes: Wakes,
    done: Done,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wakes {
    Up,
    No,
}

/// A call of ours: while it is held, the engine is not put to sleep.
pub(super) struct Busy(Arc<Sleeper>);

// === impl Sleeper ===

impl Sleeper {
    pub(super) fn new(client: Arc<Client>, after: Option<Duration>, limit: Duration) -> Arc<Self> {
        Arc::new(Self { client, after, limit, state: Mutex::default() })
    }

    /// Waits for the engine to be awake, and wakes it where it sleeps.
    pub(super) async fn awake(self: &Arc<Self>) -> Result<Busy, String> {
        let busy = Busy::new(self);
        let asleep = self.state().phase == Phase::Asleep;
        if asleep {
            let waking = self.wake();
            waking.await.map_err(|why| format!("it sleeps and does not wake up: {why}"))?;
        }
        Ok(busy)
    }

    pub(super) fn is_asleep(&self) -> bool {
        self.state().phase == Phase::Asleep
    }

    /// Nothing is known any more: the engine was lost.
    pub(super) fn forget(&self) {
        let mut state = self.state();
        *state =
            State { ours: state.ours, changes: state.changes + 1, change: state.change.take(), ..State::default() };
    }

    /// Asks whether it sleeps, and does what follows from that.
    pub(super) async fn look(self: &Arc<Self>, seen: &Seen) {
        let (phase, changing, changes) = self.meet(seen.instance());
        if changing || phase == Phase::Sleepless {
            return;
        }
        let answer = self.asks("/is_sleeping").await;
        let now = match answer {
            Ok((StatusCode::OK, said)) if said.get("is_sleeping") == Some(&Value::Bool(true)) => Phase::Asleep,
            Ok((StatusCode::OK, _)) => Phase::Awake,
            Ok((StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED, _)) => Phase::Sleepless,
            // The next look tells.
            Ok(_) | Err(_) => return,
        };
        let mut state = self.state();
        if state.change.is_some() || state.changes != changes {
            return;
        }
        state.phase = now;
        let idle = if now == Phase::Awake { state.idle_for(seen) } else { None };
        let needed = state.ours > 0;
        drop(state);
        match (now, self.after) {
            // It fell asleep under a call of ours.
            (Phase::Asleep, _) if needed => drop(self.wake()),
            (Phase::Awake, Some(after)) if idle.is_some_and(|idle| idle >= after) => self.sleep(),
            _ => {}
        }
    }

    fn meet(&self, instance: &str) -> (Phase, bool, u64) {
        let mut state = self.state();
        if state.instance != instance {
            let (ours, changes) = (state.ours, state.changes + 1);
            *state = State { instance: instance.to_owned(), ours, changes, ..State::default() };
        }
        (state.phase, state.change.is_some(), state.changes)
    }

    /// One change for all who ask; it waits for the one that is under way.
    fn wake(self: &Arc<Self>) -> Done {
        let mut state = self.state();
        match state.change.take() {
            Some(change) if change.wakes == Wakes::Up => state.change.insert(change).done.clone(),
            before => {
                let me = self.clone();
                let done = in_background(async move {
                    if let Some(falling_asleep) = before {
                        let _ = falling_asleep.done.await;
                    }
                    let woken = me.within_limit(me.wake_up()).await;
                    me.settled(Wakes::Up, if woken.is_ok() { Phase::Awake } else { Phase::Asleep });
                    woken
                });
                state.change.insert(Change { wakes: Wakes::Up, done }).done.clone()
            }
        }
    }

    /// Unless a call has come in the meantime. One that comes from now on wakes
    /// it again.
    fn sleep(self: &Arc<Self>) {
        let mut state = self.state();
        if state.ours > 0 || state.change.is_some() || state.sleepless {
            return;
        }
        state.phase = Phase::Asleep;
        state.changes += 1;
        let me = self.clone();
        let done = in_background(async move {
            let slept = me.within_limit(me.fall_asleep()).await;
            let Err(why) = &slept else {
                info!("a vLLM that nobody needed sleeps");
                me.settled(Wakes::No, Phase::Asleep);
                return slept;
            };
            warn!(why, "a vLLM cannot be put to sleep");
            // It may have stopped to run requests all the same.
            let woken = me.within_limit(me.wake_up()).await;
            me.state().sleepless = true;
            me.settled(Wakes::No, if woken.is_ok() { Phase::Awake } else { Phase::Asleep });
            slept
        });
        state.change = Some(Change { wakes: Wakes::No, done });
    }

    async fn fall_asleep(&self) -> Result<(), String> {
        // Weights are kept in the machine's memory; a request that came from elsewhere in the meantime is finished, and
        // not broken off.
        match self.tells("/sleep?level=1&mode=wait").await? {
            StatusCode::OK => Ok(()),
            status => Err(format!("/sleep answers {}", status.as_u16())),
        }
    }

    async fn wake_up(&self) -> Result<(), String> {
        let status = self.tells("/wake_up").await?;
        if status != StatusCode::OK {
            return Err(format!("/wake_up answers {}", status.as_u16()));
        }
        match self.asks("/is_sleeping").await? {
            (StatusCode::OK, said) if said.get("is_sleeping") == Some(&Value::Bool(false)) => Ok(()),
            (status, said) => Err(format!("/is_sleeping answers {}: {said}", status.as_u16())),
        }
    }

    async fn within_limit(&self, change: impl Future<Output = Result<(), String>>) -> Result<(), String> {
        let late = |_| Err(format!("it takes longer than {} seconds", self.limit.as_secs_f64()));
        tokio::time::timeout(self.limit, change).await.unwrap_or_else(late)
    }

    async fn asks(&self, path: &str) -> Result<(StatusCode, Value), String> {
        let told = |error: ClientError| error.to_string();
        let response = self.client.get(path).await.map_err(told)?;
        let status = response.status;
        let text = response.bytes(MAX_ANSWER).await.map_err(told)?;
        Ok((status, serde_json::from_slice(&text).unwrap_or(Value::Null)))
    }

    async fn tells(&self, path: &str) -> Result<StatusCode, String> {
        let told = |error: ClientError| error.to_string();
        let response = self.client.post(path, Vec::new()).await.map_err(told)?;
        let status = response.status;
        response.bytes(MAX_ANSWER).await.map_err(told)?;
        Ok(status)
    }

    /// A change is over. Waking it up may have taken the place of putting it to
    /// sleep.
    fn settled(&self, wakes: Wakes, phase: Phase) {
        let mut state = self.state();
        state.phase = phase;
        state.changes += 1;
        state.change = state.change.take().filter(|change| change.wakes != wakes);
        state.idle = None;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn in_background(change: impl Future<Output = Result<(), String>> + Send + 'static) -> Done {
    let task = tokio::spawn(change);
    async move { task.await.unwrap_or_else(|error| Err(error.to_string())) }.boxed().shared()
}

// === impl State ===

impl State {
    /// How long nobody has needed the engine, others than us included.
    fn idle_for(&mut self, seen: &Seen) -> Option<Duration> {
        if self.ours > 0 || seen.status.batch_rows > 0 || seen.status.waiting > 0 {
            self.idle = None;
            return None;
        }
        // What came and went between two looks has left its tokens.
        let idle =
            self.idle.filter(|(_, done)| *done == seen.prompt_tokens).unwrap_or((Instant::now(), seen.prompt_tokens));
        self.idle = Some(idle);
        Some(idle.0.elapsed())
    }
}

// === impl Busy ===

impl Busy {
    fn new(sleeper: &Arc<Sleeper>) -> Self {
        let mut state = sleeper.state();
        state.ours += 1;
        state.idle = None;
        drop(state);
        Self(sleeper.clone())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.state().ours -= 1;
    }
}
