//! The vocabulary every room speaks: ids, tenants, requests, events, errors.
//!
//! Nothing here does I/O, spawns, locks or reads a clock, and nothing here
//! imports another room. A word that two rooms share belongs here; a word that
//! only one room uses stays in that room.

mod error;
mod event;
mod finding;
mod id;
mod limits;
mod request;
mod secret;
mod tenant;
mod trace;

pub use error::{Error, ErrorKind};
pub use event::{Delta, Event, Extra, Finish, FinishReason, TokenLogprob, TopLogprob, Usage};
pub use finding::{Action, Finding, Side, Stage};
pub use id::{AdapterKey, BaseName, GenerationId, TenantId};
pub use limits::{Limit, Limits, Priority, QueueOrder, Share};
pub use request::{GenerateRequest, Input, Message, More, Prompt, Role, Route, Sampling};
pub use secret::Secret;
pub use tenant::{Caller, Key, ModelRoute, Tenant};
pub use trace::{SpanId, TraceContext, TraceId};
