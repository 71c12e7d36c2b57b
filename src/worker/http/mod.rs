//! Workers that speak OpenAI's interface over HTTP.
//!
//! They share the client ([`client`]), the stream's decoding ([`sse`]), the
//! request's form ([`request`]) and the reading of its chunks ([`chunk`]); what
//! each kind of engine does in its own way is in a file of its own.

mod chunk;
mod client;
mod llamacpp;
mod openai;
mod places;
mod poll;
mod request;
mod sse;
#[cfg(test)]
mod tests;
mod upstream;
mod vllm;

pub use client::UrlError;
pub use llamacpp::{Config as LlamaCppConfig, FixedAdapter, LlamaCpp};
pub use openai::{Config as OpenAiConfig, OpenAi};
pub use vllm::{Config as VllmConfig, Vllm};

use std::time::Duration;

use crate::types::{BaseName, Secret};

/// Where a worker is, and how long it may take for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteConfig {
    /// Without the `/v1` for engines; with it for the openai driver.
    pub url: String,
    pub key: Option<Secret>,
    /// Base models, and what the worker calls them.
    pub models: Vec<(BaseName, String)>,
    pub connect_timeout: Duration,
    /// The longest wait for an answer to begin.
    pub first_byte_timeout: Duration,
    /// The longest silence within an answer that has begun.
    pub stall_timeout: Duration,
    /// The longest that loading an adapter may take.
    pub load_timeout: Duration,
    /// How often the worker is asked how it is.
    pub poll_interval: Duration,
}

// === impl RemoteConfig ===

impl RemoteConfig {
    fn timeouts(&self) -> upstream::Timeouts {
        upstream::Timeouts { first_byte: self.first_byte_timeout, stall: self.stall_timeout }
    }

    fn bases(&self) -> Vec<BaseName> {
        self.models.iter().map(|(base, _)| base.clone()).collect()
    }

    fn model(&self, base: &BaseName) -> Option<&str> {
        self.models.iter().find(|(name, _)| name == base).map(|(_, model)| model.as_str())
    }
}
