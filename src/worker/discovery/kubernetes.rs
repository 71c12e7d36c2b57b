//! Workers by Kubernetes: the EndpointSlices of a service, listed once and
//! then watched.
//!
//! A watch ends often and for no reason: it is begun again where it ended. A
//! server that no longer knows that place says so (410, Gone), and all slices
//! are listed anew. A pod's credentials are renewed under way, so each request
//! reads them again.

mod session;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::debug;

use super::Report;
use super::backoff::Backoff;
use super::slices::{ServicePort, Slices};
use crate::types::Secret;
use session::{Event, Failure, Session};

/// Reads the token that requests bring.
pub type ReadToken = Arc<dyn Fn() -> Result<Secret, String> + Send + Sync>;

#[derive(Clone)]
pub struct Config {
    /// Of the API server, such as `https://10.96.0.1:443`.
    pub api: String,
    pub namespace: String,
    pub service: String,
    pub port: ServicePort,
    pub token: Option<ReadToken>,
    /// Certificates in PEM of whoever signed the server's; `None` for those
    /// that the public web trusts.
    pub ca: Option<PathBuf>,
}

/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A watch that ends sooner and told nothing was none.
const SHORT_WATCH: Duration = Duration::from_secs(5);

pub(super) async fn follow(config: Config, report: Report) {
    let mut follower = Follower { config, report, place: None };
    let mut backoff = Backoff::new(LONGEST_PAUSE);
    loop {
        let began = Instant::now();
        let before = follower.place.as_ref().map(|place| place.version.clone());
        let result = follower.step().await;
        // A list is no success before there was a watch.
        let told = before.is_some() && before.as_ref() != follower.place.as_ref().map(|place| &place.version);
        if told || began.elapsed() >= SHORT_WATCH {
            backoff.reset();
        }
        let Err(failure) = result else { continue };
        debug!(service = follower.config.service, %failure, "the API server is asked again");
        follower.failed(&failure);
        tokio::time::sleep(backoff.pause()).await;
    }
}

struct Follower {
    config: Config,
    report: Report,
    /// How far the changes are known; `None` where all has to be listed.
    place: Option<Place>,
}

struct Place {
    slices: Slices,
    version: String,
}

// === impl Follower ===

impl Follower {
    /// Lists where nothing is known; else watches until the watch ends.
    async fn step(&mut self) -> Result<(), Failure> {
        let session = Session::open(&self.config).await?;
        let Some(place) = &mut self.place else {
            let (slices, version) = session.list().await?;
            // Whether it may be watched as well is to be seen.
            self.report.tell_for_now(slices.endpoints(&self.config.port));
            self.place = Some(Place { slices, version });
            return Ok(());
        };
        let mut watch = session.watch(&place.version).await?;
        // The server speaks to us: what is known is up to date.
        self.report.tell(place.slices.endpoints(&self.config.port), None);
        while let Some(event) = watch.next().await? {
            match event {
                Event::Put(slice) => {
                    place.version.clone_from(&slice.metadata.resource_version);
                    place.slices.put(slice);
                }
                Event::Removed(metadata) => {
                    place.slices.remove(&metadata.name);
                    place.version = metadata.resource_version;
                }
                Event::Bookmark(version) => place.version = version,
            }
            self.report.tell(place.slices.endpoints(&self.config.port), None);
        }
        Err(Failure::Ended)
    }

    fn failed(&mut self, failure: &Failure) {
        match failure {
            // Which is no problem as long as it can be begun again.
            Failure::Ended => {}
            Failure::Gone => self.place = None,
            Failure::Unreachable(_) | Failure::Credentials(_) => self.report.failed(failure.to_string()),
            Failure::Refused(_) => {
                self.place = None;
                self.report.failed(failure.to_string());
            }
        }
    }
}
