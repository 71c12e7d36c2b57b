//! What runs beside the requests: the writer, a shipper for each sink, and
//! the housekeeping.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::error;

use crate::Metrics;
use crate::config::Opened;
use crate::shipper::{Ending, Notes, Shipper, dead_letters};
use crate::spool::{Lock, Log, Spool, Writer};

/// How often the oldest event's age is looked up, and what is past its time removed.
const LOOK: Duration = Duration::from_secs(1);

/// The room's tasks. Ratings wait until they run; dropping them is a crash,
/// which loses nothing that was answered.
pub struct Background {
    pub(crate) writer: Writer,
    pub(crate) _lock: Lock,
    pub(crate) sinks: Vec<Opened>,
    pub(crate) log: Log,
    pub(crate) spool: Spool,
    pub(crate) committed: watch::Receiver<i64>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) folder: PathBuf,
    pub(crate) keep: Duration,
    pub(crate) flush_for: Duration,
}

// === impl Background ===

impl Background {
    /// Runs until `stop`. Then no more is taken ([`SpoolError::Closed`]), what
    /// waited is written, and sinks have [`flush_for`] to take what is left.
    ///
    /// [`SpoolError::Closed`]: crate::SpoolError::Closed
    /// [`flush_for`]: crate::Config::flush_for
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let (tell_writer, writer_stops) = watch::channel(false);
        let (tell_shippers, until) = watch::channel(None);
        let mut shippers = JoinSet::new();
        for (Opened { name, sink, again }, metrics) in self.sinks.into_iter().zip(self.metrics.sinks()) {
            let dead = dead_letters(&self.folder, &name);
            let shipper = Shipper {
                sink,
                again,
                position: None,
                log: self.log.clone(),
                spool: self.spool.clone(),
                committed: self.committed.clone(),
                notes: Notes { name, dead, metrics: metrics.clone() },
            };
            shippers.spawn(shipper.run(Ending { until: until.clone() }));
        }
        let mut writer = JoinSet::new();
        writer.spawn(self.writer.run(writer_stops));

        // One that ends now ended in disorder: the log says so, the others go on.
        let broken = async {
            tokio::join!(joined(&mut shippers), joined(&mut writer));
            std::future::pending().await
        };
        tokio::select! {
            () = keep_house(&self.log, &self.spool, &self.committed, &self.metrics, self.keep) => {}
            () = broken => {}
            () = stop => {}
        }
        self.spool.close().await;
        // Sinks' positions are still written while they end.
        let _ = tell_shippers.send(Some(Instant::now() + self.flush_for));
        joined(&mut shippers).await;
        let _ = tell_writer.send(true);
        joined(&mut writer).await;
    }
}

async fn joined(tasks: &mut JoinSet<()>) {
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            error!(%error, "a task of the ratings ended in disorder");
        }
    }
}

/// Looks at what waits, and lets go of what is past its time. Ends when the
/// spool is closed.
async fn keep_house(log: &Log, spool: &Spool, committed: &watch::Receiver<i64>, metrics: &Metrics, keep: Duration) {
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        let last = *committed.borrow();
        let waiting = i64::try_from(metrics.spool_events()).unwrap_or(i64::MAX);
        // A spool that cannot be read tells nothing new of its age.
        if let Ok(oldest) = log.oldest_after(last - waiting).await {
            metrics.oldest(oldest);
        }
        if let Some(before) = SystemTime::now().checked_sub(keep)
            && !spool.expire(before).await
        {
            return;
        }
    }
}
