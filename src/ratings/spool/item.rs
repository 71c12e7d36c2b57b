//! What the writer is asked for.

use std::time::SystemTime;

use tenantry_types::TenantId;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::SpoolError;
use crate::event::{Envelope, EventType, RatedData};
use crate::rating::Rating;

/// What an event's row and its indexes take beside its text.
const ROW: u64 = 512;

pub(crate) struct Item {
    pub(super) what: What,
    /// Its part of the memory that waiting events may take.
    pub(super) _room: Option<OwnedSemaphorePermit>,
}

pub(super) enum What {
    /// All of them are recorded, or none.
    Ratings(Vec<NewRating>, oneshot::Sender<Result<Vec<Recorded>, SpoolError>>),
    Event(Box<NewEvent>),
    /// All up to here are with the sink.
    Position {
        sink: String,
        seq: i64,
    },
    /// Dropped when all that came before it is written.
    Barrier(#[expect(dead_code, reason = "its drop is the message")] oneshot::Sender<()>),
    /// Nothing older than this is kept, once every sink has it.
    Expire {
        before: SystemTime,
    },
}

/// A rating that may be recorded.
#[derive(Debug, Clone)]
pub(crate) struct NewRating {
    /// `rat_<ulid>`.
    pub(crate) id: String,
    pub(crate) tenant: TenantId,
    pub(crate) at: SystemTime,
    /// Its `end_user` is the hash already.
    pub(crate) rating: Rating,
}

/// An event of a generation.
#[derive(Debug, Clone)]
pub(crate) struct NewEvent {
    pub(crate) id: String,
    pub(crate) tenant: TenantId,
    pub(crate) kind: EventType,
    pub(crate) subject: String,
    pub(crate) at: SystemTime,
    pub(crate) payload: String,
    /// Where the event is a generation's end.
    pub(crate) generation: Option<NewGeneration>,
}

#[derive(Debug, Clone)]
pub(crate) struct NewGeneration {
    pub(crate) model: String,
    pub(crate) base: String,
    pub(crate) adapter: Option<String>,
    pub(crate) revision: Option<u32>,
    pub(crate) digest: Option<String>,
}

/// What became of a rating.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recorded {
    pub(crate) id: String,
    pub(crate) duplicate: bool,
}

// === impl NewRating ===

impl NewRating {
    pub(super) fn payload(&self, source: &str, supersedes: Option<&str>) -> String {
        let rating = &self.rating;
        let data = RatedData {
            rating_id: &self.id,
            generation_id: &rating.generation_id,
            thumb: rating.thumb,
            score: rating.score,
            labels: &rating.labels,
            comment: rating.comment.as_deref(),
            corrected_text: rating.corrected_text.as_deref(),
            end_user: rating.end_user.as_deref(),
            idempotency_key: rating.idempotency_key.as_deref(),
            supersedes,
        };
        let envelope = Envelope {
            id: &self.id,
            source,
            kind: EventType::Rated,
            subject: &rating.generation_id,
            tenant: self.tenant.as_str(),
            at: self.at,
        };
        envelope.json(data)
    }

    /// About what it takes, before its payload is made.
    pub(super) fn estimate(&self) -> u64 {
        let rating = &self.rating;
        let texts = [&rating.comment, &rating.corrected_text, &rating.end_user, &rating.idempotency_key];
        let texts: usize = texts.into_iter().flatten().chain(&rating.labels).map(String::len).sum();
        // A text may take more in JSON, and the rest of the event is some 700 bytes.
        (texts + texts / 4 + 1024) as u64 + ROW
    }
}

/// What a payload counts against the spool's bound.
pub(super) fn counted(payload: &str) -> u64 {
    payload.len() as u64 + ROW
}

// === impl Item ===

impl Item {
    /// Bytes it may add to the spool.
    pub(super) fn estimate(&self) -> u64 {
        match &self.what {
            What::Ratings(ratings, _) => ratings.iter().map(NewRating::estimate).sum(),
            What::Event(event) => counted(&event.payload),
            What::Position { .. } | What::Barrier(_) | What::Expire { .. } => 0,
        }
    }
}
