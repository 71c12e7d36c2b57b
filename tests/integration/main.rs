//! Everything that runs the product as its users do, in one binary.

mod cli;
mod engine;
mod grpc;
mod layout;
mod support;
