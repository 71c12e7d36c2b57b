//! Everything that runs the product as its users do, in one binary.

mod engine;
mod grpc;
mod support;
