//! `POST /v1/moderations`: texts judged and not answered, in OpenAI's shape.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use http::HeaderValue;
use serde::Serialize;
use serde_json::{Map, Value};

use super::generate::{GENERATION_ID, json};
use super::parse::{Moderated, moderated};
use super::{Edge, body, error};
use crate::gateway::Judgement;
use crate::types::Caller;

const ROUTE: &str = "moderations";
/// What judged, where the request names no model of the tenant's.
const MODEL: &str = "tenantry-guard";

#[derive(Serialize)]
struct Moderation<'a> {
    id: &'a str,
    model: &'a str,
    results: Vec<Judged>,
}

#[derive(Serialize)]
struct Judged {
    flagged: bool,
    categories: Map<String, Value>,
    category_scores: Map<String, Value>,
    category_applied_input_types: Map<String, Value>,
}

pub(super) async fn moderations(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let caller = match edge.authenticate(&head.headers) {
        Ok(caller) => caller,
        Err(error) => return edge.refuse(None, ROUTE, &error),
    };
    let response = answer(&edge, &caller, &head, body).await;
    edge.told(&caller, None, response)
}

async fn answer(edge: &Edge, caller: &Caller, head: &http::request::Parts, body: axum::body::Body) -> Response {
    let refuse = |error| edge.refuse(Some(caller), ROUTE, &error);
    if let Err(error) = edge.gateway.check(caller) {
        return refuse(error);
    }
    let bytes = match body::read(&head.headers, body, &edge.config).await {
        Ok(bytes) => bytes,
        Err(error) => return refuse(error),
    };
    let Moderated { texts, model } = match moderated(&bytes) {
        Ok(moderated) => moderated,
        Err(error) => return refuse(error),
    };
    let id = edge.gateway.plain_id();
    // From here on the gateway tells how the request ended.
    let mut response = match edge.gateway.moderate(id, caller, model.as_deref(), texts, ROUTE).await {
        Ok(judged) => {
            let results = judged.iter().map(Judged::of).collect();
            let body = Moderation { id: &id.to_string(), model: model.as_deref().unwrap_or(MODEL), results };
            json(serde_json::to_vec(&body).expect("texts and numbers").into())
        }
        Err(error) => error::response(&error),
    };
    let id = HeaderValue::try_from(id.to_string()).expect("a generation's id is letters and digits");
    response.headers_mut().insert(GENERATION_ID, id);
    response
}

// === impl Judged ===

impl Judged {
    fn of(judgement: &Judgement) -> Self {
        let categories = judgement.categories();
        let each = |value: fn(bool, f32) -> Value| {
            categories.iter().map(|(name, flagged, score)| (name.to_string(), value(*flagged, *score))).collect()
        };
        Self {
            flagged: judgement.is_flagged(),
            categories: each(|flagged, _| flagged.into()),
            category_scores: each(|_, score| score.into()),
            category_applied_input_types: each(|_, _| vec!["text"].into()),
        }
    }
}
