//! Tenantry: a multi-tenant model-serving gateway. Many tenants' LoRA adapters
//! on a few shared base models, safe and fast.
//!
//! # The rooms
//! | room | its question |
//! |---|---|
//! | [`types`] | what do the words mean? |
//! | [`auth`] | who is calling? |
//! | [`admission`] | may it run now? |
//! | [`moderation`] | is the text allowed? |
//! | [`adapters`] | what adapters exist? |
//! | [`engine`] | what does the model say? (embedded, CPU) |
//! | [`worker`] | how to speak to a worker? |
//! | [`pool`] | which worker, and is the adapter there? |
//! | [`gateway`] | the life of a request |
//! | [`edge`] | HTTP and gRPC |
//! | [`telemetry`] | what operators see |
//! | [`config`] | the file |
//! | [`app`], [`shutdown`] | all of it together, and its end |
//!
//! `engine`, its kernels, `guard`, `ratings` and `types` are crates of their own, in the same places.
//! Rooms import one way, and a test holds them to it. Only `gateway` composes
//! them; only [`app`] knows them all.
//!
//! # The life of a request
//! connection → route → authenticate, before the body is read → parse →
//! [`Gateway::generate`](gateway::Gateway::generate): resolve the model name
//! inside the tenant → admit → acquire a worker with the adapter loaded → start
//! → await the first event → [`EventStream`](gateway::EventStream) → server-sent
//! events or gRPC messages.
//!
//! # Invariants
//! - A model name is resolved inside the caller's tenant; another tenant's is
//!   answered like one that does not exist.
//! - An adapter is identified by tenant, name, revision and digest, in every
//!   map. Where it cannot be loaded the request fails; the base model never
//!   answers in its place.
//! - `Ok` means that the first event exists; what fails before it is a true status.
//! - Dropping is cancelling: what a request holds is given back with its stream.
//! - A row's result does not depend on what else is in the engine's batch.
//! - What a worker said never reaches a tenant in its own words, and what a
//!   tenant said never reaches the log.

pub mod adapters;
pub mod admission;
pub mod app;
pub mod auth;
pub mod config;
pub mod edge;
pub mod gateway;
pub mod moderation;
pub mod pool;
pub mod shutdown;
pub mod telemetry;
pub mod worker;

pub use tenantry_engine as engine;
pub use tenantry_types as types;
