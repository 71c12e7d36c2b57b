//! How the process comes to its end, in named phases.
//!
//! Running → Draining: not ready, no new connections, running streams go on.
//! Draining → Flushing: the deadline has come; what still runs ends with a
//! typed error, and its last bytes are sent. Flushing → Stopped: connections
//! that are still there are closed.

use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

/// How long the last bytes of streams that were cut off may take.
const FLUSH: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Starting,
    Running,
    Draining,
    Flushing,
    Stopped,
}

/// Tells every part of the process which phase it is in. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Shutdown {
    phase: watch::Sender<Phase>,
    /// Listeners close and connections finish.
    pub drain: CancellationToken,
    /// Streams end.
    pub cut_off: CancellationToken,
    /// Connections end.
    pub kill: CancellationToken,
    /// Connections of clients; the process waits for them.
    pub connections: TaskTracker,
}

// === impl Phase ===

impl Phase {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Draining => "draining",
            Self::Flushing => "flushing",
            Self::Stopped => "stopped",
        }
    }
}

// === impl Shutdown ===

impl Default for Shutdown {
    fn default() -> Self {
        Self {
            phase: watch::Sender::new(Phase::Starting),
            drain: CancellationToken::new(),
            cut_off: CancellationToken::new(),
            kill: CancellationToken::new(),
            connections: TaskTracker::new(),
        }
    }
}

impl Shutdown {
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    pub fn running(&self) {
        self.enter(Phase::Running);
    }

    /// Goes through the phases to the end. Streams have `deadline` to finish by themselves.
    pub async fn run(&self, deadline: Duration) {
        self.enter(Phase::Draining);
        self.drain.cancel();
        self.connections.close();
        info!(connections = self.connections.len(), seconds = deadline.as_secs_f64(), "draining");
        if tokio::time::timeout(deadline, self.connections.wait()).await.is_err() {
            warn!(connections = self.connections.len(), "the drain deadline has come; ending running streams");
            self.enter(Phase::Flushing);
            self.cut_off.cancel();
            // Whoever has not read its last bytes by then is cut off below.
            let _ = tokio::time::timeout(FLUSH, self.connections.wait()).await;
        }
        self.kill.cancel();
        self.connections.wait().await;
        self.enter(Phase::Stopped);
        info!("stopped");
    }

    fn enter(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }
}
