//! The log: one line an event on standard error, as text or as JSON.

use std::io::{IsTerminal, stderr};

use serde::Deserialize;
use tracing_subscriber::EnvFilter;

use super::log_filter;

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    pub format: Format,
    /// A level, or directives such as `info,tenantry::pool=debug`.
    pub filter: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    Text,
    Json,
}

impl Default for Config {
    fn default() -> Self {
        Self { format: Format::Text, filter: "info".to_owned() }
    }
}

impl Config {
    /// What is wrong with the filter, if anything is.
    pub fn check(&self) -> Result<(), String> {
        EnvFilter::builder().parse(&self.filter).map(drop).map_err(|error| error.to_string())?;
        // A word that is no level would be taken for a crate, and silence all others.
        let levels = ["off", "error", "warn", "info", "debug", "trace"];
        for word in self.filter.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            let plain = word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            let known = levels.contains(&&*word.to_ascii_lowercase()) || word.starts_with("tenantry");
            if plain && !known && word.parse::<u8>().is_err() {
                return Err(format!(
                    "`{word}` is not a level; a crate is named with its level, such as `{word}=debug`"
                ));
            }
        }
        Ok(())
    }
}

/// Sends this process's log to standard error. Does nothing where a log is set
/// up already, as in tests.
pub fn init(config: &Config) {
    let filter = EnvFilter::builder().parse_lossy(&config.filter);
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
    // The only error is that a log is there already.
    let _ = match config.format {
        Format::Text => {
            let log = log.with_ansi(stderr().is_terminal()).with_filter_reloading();
            let handle = log.reload_handle();
            log_filter::register(&config.filter, move |filter| handle.reload(filter).is_ok());
            log.try_init()
        }
        Format::Json => {
            let log = log.json().flatten_event(true).with_current_span(true).with_span_list(false);
            let log = log.with_filter_reloading();
            let handle = log.reload_handle();
            log_filter::register(&config.filter, move |filter| handle.reload(filter).is_ok());
            log.try_init()
        }
    };
}
