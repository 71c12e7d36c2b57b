//! What becomes of each event of a group, in the order they came: pure.

use std::collections::HashMap;

use super::item::{NewRating, counted};

/// What the tables say of a group's ratings, and how much there is room for.
pub(super) struct Plan {
    /// The rating of a tenant's idempotency key.
    keys: HashMap<(String, String), String>,
    /// The rating of a tenant's generation by an end user that holds.
    current: HashMap<(String, String, String), String>,
    /// Bytes.
    room: u64,
    /// Of the room, what generations leave to ratings.
    reserve: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Decision {
    Record { payload: String, supersedes: Option<String> },
    Duplicate { of: String },
    Full,
}

// === impl Plan ===

impl Plan {
    pub(super) fn new(room: u64, reserve: u64) -> Self {
        Self { keys: HashMap::new(), current: HashMap::new(), room, reserve }
    }

    pub(super) fn known_key(&mut self, tenant: String, key: String, rating: String) {
        self.keys.insert((tenant, key), rating);
    }

    pub(super) fn known_rating(&mut self, tenant: String, generation: String, end_user: String, rating: String) {
        self.current.insert((tenant, generation, end_user), rating);
    }

    pub(super) fn rating(&mut self, new: &NewRating, source: &str) -> Decision {
        let tenant = new.tenant.as_str().to_owned();
        let key = new.rating.idempotency_key.clone().map(|key| (tenant.clone(), key));
        if let Some(first) = key.as_ref().and_then(|key| self.keys.get(key)) {
            return Decision::Duplicate { of: first.clone() };
        }
        // Nobody knows whether two without a name are the same user.
        let user = new.rating.end_user.clone().map(|user| (tenant, new.rating.generation_id.clone(), user));
        let supersedes = user.as_ref().and_then(|user| self.current.get(user)).cloned();
        let payload = new.payload(source, supersedes.as_deref());
        if !self.takes(counted(&payload), 0) {
            return Decision::Full;
        }
        if let Some(key) = key {
            self.keys.insert(key, new.id.clone());
        }
        if let Some(user) = user {
            self.current.insert(user, new.id.clone());
        }
        Decision::Record { payload, supersedes }
    }

    /// Whether there is room for a generation's event.
    pub(super) fn event(&mut self, payload: &str) -> bool {
        self.takes(counted(payload), self.reserve)
    }

    fn takes(&mut self, bytes: u64, reserve: u64) -> bool {
        let fits = bytes <= self.room.saturating_sub(reserve);
        if fits {
            self.room -= bytes;
        }
        fits
    }
}
