//! The messages and services of `proto/tenantry/worker/v1`, as `build.rs`
//! generates them.
#![allow(
    clippy::all,
    clippy::pedantic,
    rust_2018_idioms,
    unreachable_pub,
    reason = "generated code is not ours to style"
)]

tonic::include_proto!("tenantry.worker.v1");

/// What reflection tells of the above.
pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("tenantry_worker_descriptor");
