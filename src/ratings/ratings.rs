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

/// Which of some ratings is at fault that none was recorded, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("[{at}]: {why}")]
pub struct Unrated {
    pub at: usize,
    pub why: RateError,
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
            let sink = sink.open(&names)?;
            names.push(sink.name.clone());
            sinks.push(sink);
        }
        let metrics = Arc::new(Metrics::of_sinks(&names));
        let opening = Opening {
            folder: &config.folder,
            max_bytes: config.max_bytes,
            most_unnamed: config.most_unnamed,
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
        let acks = self.rate_all(tenant, policy, vec![rating], now).await.map_err(|unrated| unrated.why)?;
        Ok(acks.into_iter().next().expect("one was recorded"))
    }

    /// Records ratings in their order: all of them, or none where one is refused.
    pub async fn rate_all(
        &self,
        tenant: &TenantId,
        policy: &Policy,
        ratings: Vec<Rating>,
        now: SystemTime,
    ) -> Result<Vec<Ack>, Unrated> {
        let count = ratings.len();
        let recorded = self.try_rate(tenant, policy, ratings, now).await;
        match &recorded {
            Ok(acks) => acks.iter().for_each(|ack| self.0.metrics.recorded(ack.status == Status::Duplicate)),
            Err(unrated) => self.0.metrics.refuse(unrated.why.reason(), count as u64),
        }
        recorded
    }

    async fn try_rate(
        &self,
        tenant: &TenantId,
        policy: &Policy,
        ratings: Vec<Rating>,
        now: SystemTime,
    ) -> Result<Vec<Ack>, Unrated> {
        let keys = &self.0.keys;
        let new = |(at, mut rating): (usize, Rating)| {
            let unrated = |why| Unrated { at, why };
            rating.check(&policy.labels).map_err(|refusal| unrated(RateError::Invalid(refusal)))?;
            let verified = keys.generations.verify(&rating.generation_id, tenant, now, self.0.rate_within);
            verified.map_err(|error| unrated(RateError::Generation(error)))?;
            rating.end_user = rating.end_user.map(|name| keys.hasher.end_user(tenant, &name));
            Ok(NewRating { id: format!("rat_{}", Ulid::generate()), tenant: tenant.clone(), at: now, rating })
        };
        let new: Vec<NewRating> = ratings.into_iter().enumerate().map(new).collect::<Result<_, _>>()?;
        let recorded = self.0.spool.ratings(new).await.map_err(|error| match error {
            SpoolError::Unnamed { at, .. } => Unrated { at, why: RateError::Spool(error) },
            error => Unrated { at: 0, why: RateError::Spool(error) },
        })?;
        let status = |duplicate| if duplicate { Status::Duplicate } else { Status::Recorded };
        Ok(recorded.into_iter().map(|it| Ack { id: it.id, status: status(it.duplicate) }).collect())
    }

    /// Notes a refusal that was found before [`rate`](Self::rate) was asked,
    /// such as a rating that could not be parsed.
    pub fn refused(&self) {
        self.0.metrics.refuse(Reason::Invalid, 1);
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
            Self::Spool(SpoolError::Unnamed { .. }) => Reason::Unnamed,
            Self::Spool(SpoolError::Failed(_) | SpoolError::Closed) => Reason::Failed,
        }
    }
}
