//! Tenantry: a multi-tenant model-serving gateway.
#![forbid(unsafe_op_in_unsafe_fn)]

pub mod adapters;
pub mod admission;
pub mod auth;
pub mod edge;
pub mod gateway;
pub mod pool;
pub mod telemetry;
pub mod types;
pub mod worker;
