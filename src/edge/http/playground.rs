//! The playground: one page, in the binary, that speaks to the gateway it came
//! from and to nothing else.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, StatusCode};
use sha2::{Digest, Sha256};

use super::Edge;

const PAGE: &str = include_str!("playground.html");
/// Where the page wants the demonstration keys.
const DEMO_KEYS: &str = "{{DEMO_KEYS}}";
/// The page holds keys, so nothing may load from or report to elsewhere.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The page as one server serves it.
pub(super) struct Playground {
    page: Bytes,
    tag: HeaderValue,
}

pub(super) async fn page(State(edge): State<Arc<Edge>>, headers: HeaderMap) -> Response {
    let Playground { page, tag } = &edge.playground;
    let known = headers.get(IF_NONE_MATCH).is_some_and(|tags| names(tags.as_bytes(), tag.as_bytes()));
    let mut response = Response::new(if known { Body::empty() } else { Body::from(page.clone()) });
    if known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(ETAG, tag.clone());
    response
}

// === impl Playground ===

impl Playground {
    /// `demo_keys` are public and offered as buttons.
    pub(super) fn new(demo_keys: &[String]) -> Self {
        // Keys are plain by the configuration's rules; anything else stays out of the page's markup.
        let plain = |key: &&String| key.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(&c));
        let keys: Vec<&str> = demo_keys.iter().filter(plain).map(String::as_str).collect();
        let page = Bytes::from(PAGE.replace(DEMO_KEYS, &keys.join(",")));
        let digits: String = Sha256::digest(&page).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let tag = HeaderValue::try_from(format!("\"{digits}\"")).expect("hexadecimal digits are a header value");
        Self { page, tag }
    }
}

/// Whether the list of `if-none-match` names the tag; proxies may have made it weak.
fn names(list: &[u8], tag: &[u8]) -> bool {
    let entry = |entry: &[u8]| {
        let entry = entry.trim_ascii();
        entry == b"*" || entry.strip_prefix(b"W/").unwrap_or(entry) == tag
    };
    list.split(|byte| *byte == b',').any(entry)
}
