//! Limits that several gateways share. Each spends its part without asking, and
//! settles with the others through Redis, beside the requests and never for
//! one of them: [`Slice`] says how. While Redis is away each keeps to its
//! share of every limit, the limit by the gateways there were.

mod places;
mod slice;
mod store;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use redis::aio::MultiplexedConnection;
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{info, warn};

use super::ledger::{Ledger, Mode, Now};
use super::lock;
use crate::telemetry::Metrics;
use crate::types::{Secret, TenantId};

pub(super) use places::Places;
pub(super) use slice::{Grant, Report, Slice, share};
pub use store::StoreError;

use store::{Away, Presence, Store};

/// How often it is looked what is due.
const TICK: Duration = Duration::from_millis(25);
const APPEAR: Duration = Duration::from_secs(1);
const AGAIN: Duration = Duration::from_millis(500);
/// Reports of one round trip.
const TOGETHER: usize = 500;
/// The longest that the end waits for Redis.
const LEAVE: Duration = Duration::from_secs(1);

/// What this gateway shares with others.
pub struct Sharing {
    store: Store,
    metrics: Arc<Metrics>,
    mode: SharedMode,
    /// Tenants with something to report, since they were last looked for.
    touched: Mutex<Vec<Tenant>>,
    /// Rung when there is one.
    bell: Notify,
}

type Tenant = (TenantId, Arc<Mutex<Ledger>>);

/// Whether Redis is there, and how many gateways.
struct SharedMode(AtomicU64);

// === impl Sharing ===

impl Sharing {
    /// `gateways` are counted on until Redis has told how many there are.
    pub fn new(url: &Secret, prefix: &str, gateways: u32, metrics: Arc<Metrics>) -> Result<Self, StoreError> {
        Ok(Self {
            store: Store::new(url, prefix)?,
            metrics,
            mode: SharedMode::new(gateways),
            touched: Mutex::default(),
            bell: Notify::new(),
        })
    }

    pub(super) fn mode(&self) -> Mode {
        self.mode.get()
    }

    /// Something of the tenant's may have to be reported.
    pub(super) fn touch(&self, tenant: &TenantId, ledger: &Arc<Mutex<Ledger>>) {
        lock(&self.touched).push((tenant.clone(), ledger.clone()));
        self.bell.notify_one();
    }

    /// Settles with the other gateways. Never returns.
    pub(super) async fn keep(&self, began: Instant) {
        let mut tenants = Vec::new();
        let mut told = false;
        loop {
            let away = match self.follow(began, &mut tenants, &mut told).await {
                Err(away) => away,
                Ok(never) => match never {},
            };
            for (_, ledger) in &tenants {
                lock(ledger).unanswered();
            }
            if matches!(away, Away::OtherState) {
                info!("limits are counted anew: the shared state was lost");
                tokio::time::sleep(TICK).await;
                continue;
            }
            self.mode.away();
            self.metrics.limits_shared(false);
            if !std::mem::replace(&mut told, true) {
                warn!(error = %away, "limits are not shared: each gateway keeps to its share until Redis is back");
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn follow(
        &self,
        began: Instant,
        tenants: &mut Vec<Tenant>,
        told: &mut bool,
    ) -> Result<std::convert::Infallible, Away> {
        let mut link = self.store.connect().await?;
        let mut presence = self.store.appear(&mut link, false).await?;
        let mut appeared = Instant::now();
        // Until all has been told that was used meanwhile, each keeps to its share.
        tenants.append(&mut lock(&self.touched));
        self.settle(&mut link, presence, began, tenants).await?;
        self.there(presence);
        if std::mem::take(told) {
            info!(gateways = presence.gateways, "limits are shared again");
        }
        loop {
            if appeared.elapsed() >= APPEAR {
                presence = self.store.appear(&mut link, false).await?;
                self.there(presence);
                appeared = Instant::now();
            }
            tenants.append(&mut lock(&self.touched));
            self.settle(&mut link, presence, began, tenants).await?;
            let now = self.now(began);
            tenants.retain(|(_, ledger)| lock(ledger).tidy(now));
            if tenants.is_empty() {
                let _ = tokio::time::timeout_at(appeared + APPEAR, self.bell.notified()).await;
            } else {
                tokio::time::sleep(TICK).await;
            }
        }
    }

    fn there(&self, presence: Presence) {
        self.mode.set(presence.gateways);
        self.metrics.limits_shared(true);
        self.metrics.gateways(presence.gateways);
    }

    /// Reports what is due of the tenants.
    async fn settle(
        &self,
        link: &mut MultiplexedConnection,
        presence: Presence,
        began: Instant,
        tenants: &[Tenant],
    ) -> Result<(), Away> {
        let mut reports = Vec::new();
        let (mut ledgers, now) = (Vec::new(), self.now(began));
        for (tenant, ledger) in tenants {
            lock(ledger).due(presence.epoch, false, now, |scope, due| {
                reports.push(store::Report { tenant, scope: scope.clone(), due });
                ledgers.push(ledger);
            });
        }
        for (reports, ledgers) in reports.chunks(TOGETHER).zip(ledgers.chunks(TOGETHER)) {
            let answers = self.store.report(link, presence, reports).await?;
            let now = self.now(began);
            for ((report, ledger), answer) in reports.iter().zip(ledgers).zip(answers) {
                lock(ledger).answered(&report.scope, answer, presence.epoch, now);
            }
        }
        Ok(())
    }

    /// Gives back what was granted and not used, and is not counted any more.
    pub(super) async fn leave(&self, began: Instant, tenants: Vec<Tenant>) {
        let leaving = async {
            let mut link = self.store.connect().await?;
            let presence = self.store.appear(&mut link, true).await?;
            let now = self.now(began);
            let mut reports = Vec::new();
            for (tenant, ledger) in &tenants {
                let mut ledger = lock(ledger);
                ledger.unanswered();
                ledger.due(presence.epoch, true, now, |scope, due| {
                    reports.push(store::Report { tenant, scope: scope.clone(), due });
                });
            }
            for reports in reports.chunks(TOGETHER) {
                self.store.report(&mut link, presence, reports).await?;
            }
            Ok::<(), Away>(())
        };
        if !matches!(tokio::time::timeout(LEAVE, leaving).await, Ok(Ok(()))) {
            info!("the last of what was used was not shared: Redis is away");
        }
    }

    fn now(&self, began: Instant) -> Now {
        Now { moment: began.elapsed(), time: SystemTime::now(), mode: self.mode() }
    }
}

// === impl SharedMode ===

impl SharedMode {
    const THERE: u64 = 1 << 32;

    fn new(gateways: u32) -> Self {
        Self(AtomicU64::new(u64::from(gateways)))
    }

    fn get(&self) -> Mode {
        let value = self.0.load(Ordering::Relaxed);
        let gateways = value as u32;
        if value & Self::THERE == 0 { Mode::Apart { gateways } } else { Mode::Shared { gateways } }
    }

    fn set(&self, gateways: u32) {
        self.0.store(Self::THERE | u64::from(gateways), Ordering::Relaxed);
    }

    fn away(&self) {
        self.0.fetch_and(!Self::THERE, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
