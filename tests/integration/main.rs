//! Everything that runs the product as its users do, in one binary.

mod accounts;
mod admission;
mod bases;
mod catalogue;
mod chaos;
mod cli;
mod clients;
#[path = "../conformance/mod.rs"]
mod conformance;
mod deploy;
mod disconnect;
mod discovery;
mod drivers;
mod engine;
mod grpc;
mod guard;
mod http;
mod layout;
mod model_files;
mod proof;
mod ratings;
mod refused_adapters;
mod reload;
mod sharing;
mod shutdown;
mod slow_readers;
mod support;
mod traces;
