//! The room's front: [`Ratings`].

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use tenantry_types::{GenerationId, TenantId};
use ulid::Ulid;

use crate::background::Background;
use crate::data::{self, ChangedData, Texts};
use crate::event::{Envelope, EventType};
use crate::spool::{NewEvent, NewGeneration, NewRating, Opened, Opening, Spool};
use crate::{
    Blocked, Changed, Completed, Config, ContentPolicy, IdError, Keys, Metrics, OpenError, Rating, Reader, Reason,
    Refusal, SpoolError,
};

/// What operators' changes are kept in order by, all of them together. No tenant's
/// id has capital letters.
const OPERATORS: &str = "OPERATORS";

/// Takes ratings and generations' events. Clones are the same.
#[derive(Clone)]
pub struct Ratings(Arc<Inner>);

struct Inner {
    keys: Keys,
    spool: Spool,
    reader: Reader,
    metrics: Arc<Metrics>,
    source: String,
    rate_within: Duration,
    max_content_bytes: usize,
}

/// What a tenant's configuration says of ratings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// That ratings may have.
    pub labels: BTreeSet<String>,
    pub content: ContentPolicy,
}

/// A rating is on the disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ack {
    /// `rat_<ulid>`.
    pub id: String,
    pub status: Status,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Recorded,
    /// The tenant's idempotency key was known already. Whatever this rating
    /// says, the first one holds, and its id is the answer.
    Duplicate,
}

/// Why a rating was not recorded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RateError {
    #[error("generation_id: {0}")]
    Generation(IdError),
    #[error(transparent)]
    Invalid(Refusal),
    #[error(transparent)]
    Spool(SpoolError),
}

// === impl Ratings ===

impl Ratings {
    /// Opens the spool. Nothing is written or sent before the background runs.
    pub async fn open(config: Config, keys: Keys) -> Result<(Self, Background), OpenError> {
        let mut names = Vec::new();
        let mut sinks = Vec::new();
        for sink in config.sinks {
            let (name, sink) = sink.open(&names)?;
            names.push(name.clone());
            sinks.push((name, sink));
        }
        let metrics = Arc::new(Metrics::of_sinks(&names));
        let opening = Opening {
            folder: &config.folder,
            max_bytes: config.max_bytes,
            source: &config.source,
            sinks: names,
            metrics: metrics.clone(),
        };
        let Opened { spool, writer, lock, committed } = Spool::open(opening).await?;
        let reader = Reader::open(&config.folder);
        let background = Background {
            writer,
            _lock: lock,
            sinks,
            log: reader.log(),
            spool: spool.clone(),
            committed,
            metrics: metrics.clone(),
            folder: config.folder,
            keep: config.keep,
            flush_for: config.flush_for,
        };
        let inner = Inner {
            keys,
            spool,
            reader,
            metrics,
            source: config.source,
            rate_within: config.rate_within,
            max_content_bytes: config.max_content_bytes,
        };
        Ok((Self(Arc::new(inner)), background))
    }

    /// A new generation's id.
    pub fn issue(&self, tenant: &TenantId) -> GenerationId {
        self.0.keys.generations.issue(tenant, Ulid::generate())
    }

    /// Records a rating: returns when it is on the disk. Waits while the
    /// writer is behind. Dropped before it returns, it may be recorded.
    pub async fn rate(
        &self,
        tenant: &TenantId,
        policy: &Policy,
        rating: Rating,
        now: SystemTime,
    ) -> Result<Ack, RateError> {
        let recorded = self.try_rate(tenant, policy, rating, now).await;
        match &recorded {
            Ok(ack) => self.0.metrics.recorded(ack.status == Status::Duplicate),
            Err(error) => self.0.metrics.refuse(error.reason()),
        }
        recorded
    }

    async fn try_rate(
        &self,
        tenant: &TenantId,
        policy: &Policy,
        mut rating: Rating,
        now: SystemTime,
    ) -> Result<Ack, RateError> {
        rating.check(&policy.labels).map_err(RateError::Invalid)?;
        let keys = &self.0.keys;
        let verified = keys.generations.verify(&rating.generation_id, tenant, now, self.0.rate_within);
        verified.map_err(RateError::Generation)?;
        rating.end_user = rating.end_user.map(|name| keys.hasher.end_user(tenant, &name));
        let id = format!("rat_{}", Ulid::generate());
        let new = NewRating { id, tenant: tenant.clone(), at: now, rating };
        let recorded = self.0.spool.rating(new).await.map_err(RateError::Spool)?;
        let status = if recorded.duplicate { Status::Duplicate } else { Status::Recorded };
        Ok(Ack { id: recorded.id, status })
    }

    /// Notes a refusal that was found before [`rate`](Self::rate) was asked,
    /// such as a rating that could not be parsed.
    pub fn refused(&self) {
        self.0.metrics.refuse(Reason::Invalid);
    }

    /// Notes a generation that ended. Never waits; where there is no room the
    /// event is dropped and counted.
    pub fn completed(&self, end: &Completed, policy: &Policy) {
        let id = end.generation.to_string();
        let adapter = end.adapter.as_ref();
        let generation = NewGeneration {
            model: end.model.clone(),
            base: end.base.clone(),
            adapter: adapter.map(|adapter| adapter.name.to_string()),
            revision: adapter.map(|adapter| adapter.revision),
            digest: adapter.map(|adapter| adapter.digest.to_string()),
        };
        let event = Envelope {
            id: &id,
            source: &self.0.source,
            kind: EventType::Completed,
            subject: &id,
            tenant: end.tenant.as_str(),
            at: end.ended,
        };
        let payload = event.json(data::completed(end, &id, self.texts(policy)));
        self.note(&event, &end.tenant, payload, Some(generation));
    }

    /// Notes what the guard did not let through; as [`completed`](Self::completed).
    pub fn blocked(&self, block: &Blocked, policy: &Policy) {
        let generation = block.generation.to_string();
        let event = Envelope {
            id: &format!("blk_{}", Ulid::generate()),
            source: &self.0.source,
            kind: EventType::Blocked,
            subject: &generation,
            tenant: block.tenant.as_str(),
            at: block.at,
        };
        let payload = event.json(data::blocked(block, &generation, self.texts(policy)));
        self.note(&event, &block.tenant, payload, None);
    }

    /// Notes what an operator has changed. Never waits; false where there was no room.
    pub fn changed(&self, change: &Changed) -> bool {
        let partition = TenantId::new(OPERATORS);
        let event = Envelope {
            id: &format!("chg_{}", Ulid::generate()),
            source: &self.0.source,
            kind: EventType::Changed,
            subject: &change.subject,
            tenant: OPERATORS,
            at: change.at,
        };
        let Changed { who, action, before, after, .. } = change;
        let data = ChangedData { who, action, before, after };
        let payload = event.keyed(change.tenant.as_ref().map(TenantId::as_str), OPERATORS, data);
        self.note(&event, &partition, payload, None)
    }

    /// Whether there was room.
    fn note(
        &self,
        event: &Envelope<'_>,
        tenant: &TenantId,
        payload: String,
        generation: Option<NewGeneration>,
    ) -> bool {
        let noted = self.0.spool.event(NewEvent {
            id: event.id.to_owned(),
            tenant: tenant.clone(),
            kind: event.kind,
            subject: event.subject.to_owned(),
            at: event.at,
            payload,
            generation,
        });
        if !noted {
            self.0.metrics.dropped();
        }
        noted
    }

    fn texts(&self, policy: &Policy) -> Texts<'_> {
        Texts { policy: policy.content, hasher: &self.0.keys.hasher, longest: self.0.max_content_bytes }
    }

    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.0.metrics
    }

    pub fn reader(&self) -> &Reader {
        &self.0.reader
    }
}

// === impl RateError ===

impl RateError {
    /// What it is counted as.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Generation(IdError::Malformed) => Reason::Malformed,
            Self::Generation(IdError::Unknown) => Reason::Unknown,
            Self::Generation(IdError::Expired) => Reason::Expired,
            Self::Invalid(_) => Reason::Invalid,
            Self::Spool(SpoolError::Full { .. }) => Reason::Full,
            Self::Spool(SpoolError::Failed(_) | SpoolError::Closed) => Reason::Failed,
        }
    }
}
