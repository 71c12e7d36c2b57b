//! What becomes of each event of a group, in the order they came: pure.

use std::collections::HashMap;

use super::item::{NewRating, counted};
use crate::event::EventType;

/// What the tables say of a group's ratings, and how much there is room for.
pub(super) struct Plan {
    /// The rating of a tenant's idempotency key.
    keys: HashMap<Key, String>,
    /// The rating of a tenant's generation by an end user that holds.
    current: HashMap<User, String>,
    /// Ratings of a tenant's generation that name no end user.
    unnamed: HashMap<(String, String), u32>,
    most_unnamed: u32,
    /// Bytes.
    room: u64,
    /// Of the room, what generations leave to ratings.
    reserve: u64,
}

/// Tenant and idempotency key.
type Key = (String, String);
/// Tenant, generation and end user.
type User = (String, String, String);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Decision {
    Record { payload: String, supersedes: Option<String> },
    Duplicate { of: String },
}

/// Why none of some ratings is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    Full,
    /// The generation of the one at this place has as many without an end user as it may.
    Unnamed {
        at: usize,
    },
}

/// What recording a rating changed of the plan.
struct Change {
    key: Option<Key>,
    user: Option<(User, Option<String>)>,
    unnamed: Option<(String, String)>,
}

// === impl Plan ===

impl Plan {
    pub(super) fn new(room: u64, reserve: u64, most_unnamed: u32) -> Self {
        let (keys, current, unnamed) = Default::default();
        Self { keys, current, unnamed, most_unnamed, room, reserve }
    }

    pub(super) fn known_key(&mut self, tenant: String, key: String, rating: String) {
        self.keys.insert((tenant, key), rating);
    }

    pub(super) fn known_rating(&mut self, tenant: String, generation: String, end_user: String, rating: String) {
        self.current.insert((tenant, generation, end_user), rating);
    }

    pub(super) fn known_unnamed(&mut self, tenant: String, generation: String, ratings: u32) {
        self.unnamed.insert((tenant, generation), ratings);
    }

    /// A decision for each of them; where one cannot be recorded, none is.
    pub(super) fn ratings(&mut self, ratings: &[NewRating], source: &str) -> Result<Vec<Decision>, Refused> {
        let room = self.room;
        let (mut decisions, mut changes) = (Vec::with_capacity(ratings.len()), Vec::new());
        for (at, new) in ratings.iter().enumerate() {
            match self.rating(new, at, source, &mut changes) {
                Ok(decision) => decisions.push(decision),
                Err(refused) => {
                    self.room = room;
                    changes.into_iter().rev().for_each(|change| self.undo(change));
                    return Err(refused);
                }
            }
        }
        Ok(decisions)
    }

    fn rating(
        &mut self,
        new: &NewRating,
        at: usize,
        source: &str,
        changes: &mut Vec<Change>,
    ) -> Result<Decision, Refused> {
        let (tenant, generation) = (new.tenant.as_str().to_owned(), new.rating.generation_id.clone());
        let key = new.rating.idempotency_key.clone().map(|key| (tenant.clone(), key));
        if let Some(first) = key.as_ref().and_then(|key| self.keys.get(key)) {
            return Ok(Decision::Duplicate { of: first.clone() });
        }
        // Nobody knows whether two without a name are the same user.
        let (user, unnamed) = match new.rating.end_user.clone() {
            Some(user) => (Some((tenant, generation, user)), None),
            None => (None, Some((tenant, generation))),
        };
        if unnamed.as_ref().is_some_and(|of| self.unnamed.get(of).copied().unwrap_or(0) >= self.most_unnamed) {
            return Err(Refused::Unnamed { at });
        }
        let supersedes = user.as_ref().and_then(|user| self.current.get(user)).cloned();
        let payload = new.payload(source, supersedes.as_deref());
        if !self.takes(counted(&payload), 0) {
            return Err(Refused::Full);
        }
        if let Some(key) = &key {
            self.keys.insert(key.clone(), new.id.clone());
        }
        let user = user.map(|user| (user.clone(), self.current.insert(user, new.id.clone())));
        if let Some(of) = &unnamed {
            *self.unnamed.entry(of.clone()).or_default() += 1;
        }
        changes.push(Change { key, user, unnamed });
        Ok(Decision::Record { payload, supersedes })
    }

    fn undo(&mut self, change: Change) {
        let Change { key, user, unnamed } = change;
        if let Some(key) = key {
            self.keys.remove(&key);
        }
        match user {
            Some((user, Some(before))) => drop(self.current.insert(user, before)),
            Some((user, None)) => drop(self.current.remove(&user)),
            None => {}
        }
        if let Some(count) = unnamed.and_then(|of| self.unnamed.get_mut(&of)) {
            *count -= 1;
        }
    }

    /// Whether there is room for an event. What an operator changed may have what
    /// is kept for ratings: tenants' traffic must not push it out.
    pub(super) fn event(&mut self, kind: EventType, payload: &str) -> bool {
        let reserve = if kind == EventType::Changed { 0 } else { self.reserve };
        self.takes(counted(payload), reserve)
    }

    fn takes(&mut self, bytes: u64, reserve: u64) -> bool {
        let fits = bytes <= self.room.saturating_sub(reserve);
        if fits {
            self.room -= bytes;
        }
        fits
    }
}
