//! `GET /v1/usage`: what the caller's tenant has used, by day, key and model.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::response::Response;
use chrono::NaiveDate;
use http::HeaderMap;
use serde::Serialize;

use super::Edge;
use super::generate::json;
use crate::edge::refusal::quoted;
use crate::gateway::{Days, UsageSum};
use crate::types::{Caller, Error, ErrorKind};

const ROUTE: &str = "usage";

/// Days that are told where the request does not say which.
const USUAL: u64 = 30;
/// The most days of one answer.
const MOST: u64 = 400;

#[derive(Serialize)]
pub(super) struct List {
    object: &'static str,
    /// The first and the last day, both included.
    from: String,
    to: String,
    data: Vec<Used>,
    total: Counts,
}

#[derive(Serialize)]
struct Used {
    /// Of UTC.
    day: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<String>,
    key: String,
    model: String,
    #[serde(flatten)]
    counts: Counts,
}

#[derive(Serialize, Default, Clone, Copy)]
struct Counts {
    requests: u64,
    input_tokens: u64,
    output_tokens: u64,
    /// Of the input, what an engine's cache had.
    cached_tokens: u64,
}

pub(super) async fn usage(State(edge): State<Arc<Edge>>, headers: HeaderMap, RawQuery(query): RawQuery) -> Response {
    let caller = match edge.authenticate(&headers) {
        Ok(caller) => caller,
        Err(error) => return edge.refuse(None, ROUTE, &error),
    };
    let response = match read(&edge, &caller, query.as_deref().unwrap_or_default()).await {
        Ok(list) => json(serde_json::to_vec(&list).expect("texts and numbers").into()),
        Err(error) => edge.refuse(Some(&caller), ROUTE, &error),
    };
    edge.told(&caller, None, response)
}

async fn read(edge: &Edge, caller: &Caller, query: &str) -> Result<List, Error> {
    let days = days(query)?;
    let sums = edge.gateway.usage(Some(&caller.tenant.id), days).await;
    let sums = sums.map_err(|error| {
        Error::new(ErrorKind::Internal, "The usage cannot be read at the moment.").with_detail(error.to_string())
    })?;
    Ok(List::of(sums, days, false))
}

/// The days that a query asks for: `from` and `to`, as `2026-11-27`.
pub(super) fn days(query: &str) -> Result<Days, Error> {
    let today = today();
    let (mut from, mut to) = (None, None);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=').unwrap_or((pair, "")) {
            ("from", day) => from = Some(parse("from", day)?),
            ("to", day) => to = Some(parse("to", day)?),
            // Others' business, or an operator's.
            ("tenant", _) => {}
            (other, _) => {
                let message = format!("Unknown query parameter: '{}'. Known here: from, to.", quoted(other));
                return Err(Error::invalid("query", message));
            }
        }
    }
    let last = to.unwrap_or(today);
    let first = from.unwrap_or(last.saturating_sub(USUAL - 1));
    if first > last {
        return Err(Error::invalid("from", "'from' is after 'to'."));
    }
    if last - first >= MOST {
        return Err(Error::invalid("from", format!("At most {MOST} days may be asked for at once.")));
    }
    Ok(Days { first, last })
}

fn parse(name: &'static str, day: &str) -> Result<u64, Error> {
    let date = NaiveDate::parse_from_str(day, "%Y-%m-%d").ok();
    let days = date.and_then(|date| u64::try_from(date.to_epoch_days()).ok());
    days.ok_or_else(|| Error::invalid(name, format!("'{name}' is not a day such as 2026-11-27: '{}'.", quoted(day))))
}

fn today() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |since| since.as_secs() / (24 * 60 * 60))
}

fn written(day: u64) -> String {
    let date = i32::try_from(day).ok().and_then(NaiveDate::from_epoch_days);
    date.map_or_else(|| day.to_string(), |date| date.to_string())
}

// === impl List ===

impl List {
    /// `named`: each line says whose it is.
    pub(super) fn of(sums: Vec<UsageSum>, days: Days, named: bool) -> Self {
        let mut total = Counts::default();
        let data = sums.into_iter().map(|sum| {
            let counts = Counts {
                requests: sum.requests,
                input_tokens: sum.input,
                output_tokens: sum.output,
                cached_tokens: sum.cached,
            };
            total.requests += counts.requests;
            total.input_tokens += counts.input_tokens;
            total.output_tokens += counts.output_tokens;
            total.cached_tokens += counts.cached_tokens;
            let tenant = named.then_some(sum.tenant);
            Used { day: written(sum.day), tenant, key: sum.key, model: sum.model, counts }
        });
        let data = data.collect();
        Self { object: "list", from: written(days.first), to: written(days.last), data, total }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_read_and_what_is_none_is_refused_by_name() {
        let read = days("from=2026-11-01&to=2026-11-30").expect("two days");
        assert_eq!((written(read.first), written(read.last)), ("2026-11-01".to_owned(), "2026-11-30".to_owned()));
        let usual = days("").expect("the usual");
        assert_eq!(usual.last - usual.first, USUAL - 1);
        for (query, param) in [
            ("from=2026-13-01", "from"),
            ("to=yesterday", "to"),
            ("from=1969-12-31", "from"),
            ("from=2026-11-02&to=2026-11-01", "from"),
            ("from=2020-01-01&to=2026-11-01", "from"),
            ("day=1", "query"),
        ] {
            assert_eq!(days(query).expect_err(query).param(), Some(param), "{query}");
        }
    }
}
