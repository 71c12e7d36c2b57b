//! Who may use the admin API.
//!
//! It asks for a key. Without one configured it is there on a loopback address
//! alone, and for no browser, since any page may send requests to that: not
//! from another origin, and not by a name of its own that leads here.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::header::{AUTHORIZATION, HOST, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, StatusCode, Uri};
use tracing::Instrument;

use super::Api;
use super::answer::Failure;
use super::control::Steering;
use crate::auth::KeyHash;

/// Who may call it, and who does what it asks of the process.
#[derive(Clone, Default)]
pub struct Admin {
    pub key: Option<AdminKey>,
    /// It listens on an address that no other machine reaches.
    pub loopback: bool,
    pub steering: Steering,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminKey {
    pub hash: KeyHash,
    /// What its bearer is called.
    pub name: Arc<str>,
}

/// Who calls, as audit events name them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Who(pub(super) Arc<str>);

pub(super) async fn authorised(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    match api.admin.allows(request.uri(), request.headers()) {
        Ok(who) => {
            request.extensions_mut().insert(who);
            if request.method().is_safe() {
                return next.run(request).await;
            }
            // A change that has begun is made and told to its end, whoever hangs up.
            let changing = tokio::spawn(next.run(request).in_current_span());
            changing.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
        }
        Err(failure) => failure.response(),
    }
}

// === impl Admin ===

impl Admin {
    fn allows(&self, uri: &Uri, headers: &HeaderMap) -> Result<Who, Failure> {
        let Some(AdminKey { hash: expected, name }) = &self.key else {
            return self.allows_without_key(uri, headers).map(|()| Who("loopback".into()));
        };
        let given = headers.get(AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        match given.map(|key| KeyHash::of(key.trim_ascii())) {
            Some(given) if given == *expected => Ok(Who(name.clone())),
            _ => Err(refusal(StatusCode::UNAUTHORIZED, "invalid_api_key", "The admin API asks for its key.")),
        }
    }

    fn allows_without_key(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Failure> {
        let forbid = |message| Err(refusal(StatusCode::FORBIDDEN, "forbidden", message));
        if !self.loopback {
            return forbid("The admin API needs `ops.admin_key` where other machines can reach it.");
        }
        if headers.contains_key(ORIGIN) {
            return forbid("Browsers may not use the admin API without a key.");
        }
        let asked = headers.get_all(HOST).into_iter().map(|value| value.as_bytes().try_into().ok());
        let named = uri.authority().map(|authority| Some(authority.clone()));
        if !asked.chain(named).all(|host: Option<Authority>| host.is_some_and(|host| is_loopback(host.host()))) {
            return forbid("Without a key the admin API answers to `localhost` and loopback addresses alone.");
        }
        Ok(())
    }
}

fn refusal(status: StatusCode, code: &'static str, message: &str) -> Failure {
    Failure { status, code, message: message.to_owned() }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || address.parse().is_ok_and(|it: std::net::IpAddr| it.is_loopback())
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn allows(uri: &'static str, headers: &[(HeaderName, &'static str)]) -> bool {
        let headers = headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value)));
        let admin = Admin { loopback: true, ..Admin::default() };
        admin.allows(&Uri::from_static(uri), &headers.collect()).is_ok()
    }

    #[test]
    fn without_a_key_it_answers_to_loopback_names_alone() {
        for host in ["localhost", "LOCALHOST:9090", "127.0.0.1:9090", "127.8.8.8", "[::1]:9090"] {
            assert!(allows("/admin/v1/adapters", &[(HOST, host)]), "{host}");
        }
        let strange =
            ["evil.example:9090", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1", "", "[::2]:1"];
        for host in strange {
            assert!(!allows("/admin/v1/adapters", &[(HOST, host)]), "{host}");
        }
        assert!(allows("/admin/v1/adapters", &[]), "not a browser");
        assert!(!allows("/admin/v1/adapters", &[(HOST, "localhost"), (HOST, "evil.example")]));
        assert!(!allows("http://evil.example/admin/v1/adapters", &[]), "as HTTP/2 says it");
        assert!(allows("http://127.0.0.1:9090/admin/v1/adapters", &[]));
        assert!(!allows("/admin/v1/adapters", &[(HOST, "localhost"), (ORIGIN, "http://localhost")]));
    }
}
