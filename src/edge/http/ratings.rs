//! `POST /v1/ratings`: what end users think of generations; and
//! `GET /v1/ratings/summary`: what came of it.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use http::HeaderMap;
use serde::Serialize;
use serde_json::Value;
use tenantry_ratings::{Rating, Summary};

use super::generate::json;
use super::{Edge, body};
use crate::edge::limits;
use crate::types::{Caller, Error, ErrorKind};

const ROUTE: &str = "ratings";
const SUMMARY: &str = "ratings_summary";

#[derive(Serialize)]
struct List {
    object: &'static str,
    data: Vec<Summary>,
}

pub(super) async fn rate(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let caller = match edge.authenticate(&head.headers) {
        Ok(caller) => caller,
        Err(error) => return edge.refuse(None, ROUTE, &error),
    };
    let response = match record(&edge, &caller, &head, body).await {
        Ok(body) => json(body.into()),
        Err(error) => edge.refuse(Some(&caller), ROUTE, &error),
    };
    edge.told(&caller, None, response)
}

async fn record(
    edge: &Edge,
    caller: &Caller,
    head: &http::request::Parts,
    body: axum::body::Body,
) -> Result<Vec<u8>, Error> {
    let bytes = body::read(&head.headers, body, &edge.config).await?;
    let read = parse(&bytes);
    if read.is_err() {
        edge.gateway.rating_refused();
    }
    let (ratings, several) = read?;
    let acks = edge.gateway.rate(caller, ratings, several).await?;
    edge.gateway.record_success(&caller.tenant, ROUTE);
    let body = if several { serde_json::to_vec(&acks) } else { serde_json::to_vec(&acks[0]) };
    Ok(body.expect("an ack is texts"))
}

/// The ratings of a body, and whether it is an array of them.
fn parse(body: &[u8]) -> Result<(Vec<Rating>, bool), Error> {
    let malformed = |error: serde_json::Error| {
        Error::new(ErrorKind::InvalidRequest, format!("The request body is not valid JSON: {error}."))
    };
    let rating = |value: Value, path: &str| {
        Rating::from_json(value).map_err(|refusal| {
            let field = match (path.is_empty(), refusal.field.is_empty()) {
                (true, _) => refusal.field,
                (false, true) => path.to_owned(),
                (false, false) => format!("{path}.{}", refusal.field),
            };
            let message = if field.is_empty() { refusal.message } else { format!("{field}: {}", refusal.message) };
            let error = Error::new(ErrorKind::InvalidRequest, message);
            if field.is_empty() { error } else { error.with_param(field) }
        })
    };
    match serde_json::from_slice(body).map_err(malformed)? {
        Value::Array(entries) => {
            limits::rated(entries.len())?;
            let each = entries.into_iter().enumerate();
            Ok((each.map(|(at, entry)| rating(entry, &format!("[{at}]"))).collect::<Result<_, _>>()?, true))
        }
        one => Ok((vec![rating(one, "")?], false)),
    }
}

pub(super) async fn summary(State(edge): State<Arc<Edge>>, headers: HeaderMap) -> Response {
    let caller = match edge.authenticate(&headers) {
        Ok(caller) => caller,
        Err(error) => return edge.refuse(None, SUMMARY, &error),
    };
    let response = match edge.gateway.liked(&caller.tenant).await {
        Ok(data) => json(serde_json::to_vec(&List { object: "list", data }).expect("texts and numbers").into()),
        Err(error) => edge.refuse(Some(&caller), SUMMARY, &error),
    };
    edge.told(&caller, None, response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_rating_or_an_array_of_them_is_read() {
        let one = r#"{"generation_id":"gen_1","thumb":"up"}"#;
        let (ratings, several) = parse(one.as_bytes()).expect("one");
        assert_eq!((ratings.len(), several), (1, false));
        let (ratings, several) = parse(format!("[{one},{one}]").as_bytes()).expect("two");
        assert_eq!((ratings.len(), several), (2, true));
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_its_path() {
        let many = format!("[{}]", ["{}"; 257].join(","));
        for (body, param) in [
            ("{", None),
            ("7", None),
            ("[]", Some("ratings")),
            (many.as_str(), Some("ratings")),
            (r#"{"thumb":"up"}"#, Some("generation_id")),
            (r#"{"generation_id":"gen_1","thumb":"sideways"}"#, Some("thumb")),
            (r#"[{"generation_id":"gen_1","thumb":"up"},{"generation_id":"gen_1","stars":5}]"#, Some("[1].stars")),
        ] {
            assert_eq!(parse(body.as_bytes()).expect_err(body).param(), param, "{body}");
        }
    }
}
