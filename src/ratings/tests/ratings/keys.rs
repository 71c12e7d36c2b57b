//! Generation ids, and hashes of users.

use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use tenantry_ratings::{GenerationKeys, Hasher, IdError, KeyError};
use tenantry_types::{GenerationId, TenantId};
use ulid::Ulid;

use crate::support::tenant;

const DAY: Duration = Duration::from_secs(86_400);

fn keys(names: &[&str]) -> GenerationKeys {
    GenerationKeys::new(&names.iter().map(|name| format!("{name}, which is long enough")).collect::<Vec<_>>())
        .expect("keys")
}

fn at(milliseconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(milliseconds)
}

#[test]
fn an_id_is_its_tenants_for_as_long_as_the_retention() {
    let keys = keys(&["one"]);
    let id = keys.issue(&tenant("acme"), Ulid::from_parts(1_000_000, 7)).to_string();
    let verify = |text: &str, name, now| keys.verify(text, &tenant(name), at(now), DAY);
    assert_eq!(verify(&id, "acme", 1_000_000).map(|id| id.ulid()), Ok(Ulid::from_parts(1_000_000, 7)));
    // A clock that is behind is no reason to refuse.
    assert!(verify(&id, "acme", 0).is_ok());
    assert!(verify(&id, "acme", 1_000_000 + 86_400_000).is_ok());
    assert_eq!(verify(&id, "acme", 1_000_001 + 86_400_000), Err(IdError::Expired));
    // Another tenant does not learn how old it is.
    assert_eq!(verify(&id, "globex", 1_000_001 + 86_400_000), Err(IdError::Unknown));
    let unsigned = GenerationId::new(Ulid::from_parts(1_000_000, 7)).to_string();
    for text in ["", "gen_", "gen_1", &unsigned, &id[..id.len() - 1], &format!("{id}0"), &id.to_lowercase(), "rat_é"] {
        assert_eq!(verify(text, "acme", 1_000_000), Err(IdError::Malformed), "{text}");
    }
}

/// The format is a contract with gateways of other versions.
#[test]
fn an_id_stays_what_it_was() {
    let id = keys(&["one"]).issue(&tenant("acme"), Ulid::from_parts(1_700_000_000_000, 1));
    assert_eq!(id.to_string(), "gen_01HF7YAT0000000000000000014GS6QBAGRR3EP5SS");
    let hasher = Hasher::new(b"one, which is long enough").expect("a key");
    assert_eq!(hasher.end_user(&tenant("acme"), "ada"), "65f3494d66dda4e6aa6f07200fde8103");
}

#[test]
fn keys_change_without_losing_generations() {
    let (acme, ulid) = (tenant("acme"), Ulid::from_parts(1, 1));
    let (old, both, new) = (keys(&["old"]), keys(&["new", "old"]), keys(&["new"]));
    let before = old.issue(&acme, ulid).to_string();
    let after = both.issue(&acme, ulid);
    assert_eq!(after, new.issue(&acme, ulid), "the first key signs");
    assert!(both.verify(&before, &acme, at(1), DAY).is_ok());
    assert_eq!(new.verify(&before, &acme, at(1), DAY), Err(IdError::Unknown));
}

#[test]
fn keys_are_long_and_never_shown() {
    assert_eq!(GenerationKeys::new(&["short"]).err(), Some(KeyError::Short));
    assert_eq!(GenerationKeys::new::<&str>(&[]).err(), Some(KeyError::None));
    assert_eq!(format!("{:?}", keys(&["secret", "other"])), "GenerationKeys(2)");
}

#[test]
fn a_user_is_another_one_at_another_tenant() {
    let hasher = Hasher::new(b"a key that is long enough").expect("a key");
    let [acme, globex] = ["acme", "globex"].map(tenant);
    assert_eq!(hasher.end_user(&acme, "ada"), hasher.end_user(&acme, "ada"));
    assert_ne!(hasher.end_user(&acme, "ada"), hasher.end_user(&globex, "ada"));
    assert_ne!(hasher.end_user(&acme, "ada"), hasher.end_user(&acme, "bob"));
    assert!(!hasher.text(&acme, "ada").starts_with(&hasher.end_user(&acme, "ada")), "each purpose has its key");
}

proptest! {
    #[test]
    fn every_id_has_one_text(ulid: u128, name in "[a-z0-9-]{1,20}") {
        let id = keys(&["one"]).issue(&TenantId::new(name), Ulid::from(ulid));
        let text = id.to_string();
        prop_assert_eq!(GenerationId::parse(&text), Some(id));
        prop_assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'));
    }

    #[test]
    fn no_changed_id_is_known(at_byte in 4_usize..46, with in "[0-9A-HJKMNP-TV-Z]", random: u64) {
        let (keys, acme) = (keys(&["one"]), tenant("acme"));
        let text = keys.issue(&acme, Ulid::from_parts(5, random.into())).to_string();
        let mut changed = text.clone();
        changed.replace_range(at_byte..=at_byte, &with);
        prop_assume!(changed != text);
        let verified = keys.verify(&changed, &acme, at(5), Duration::MAX);
        prop_assert!(matches!(verified, Err(IdError::Unknown | IdError::Malformed)));
    }

    #[test]
    fn no_text_is_too_odd_to_be_refused(text: String) {
        let verified = keys(&["one"]).verify(&text, &tenant("acme"), at(5), DAY);
        prop_assert_eq!(verified, Err(IdError::Malformed));
    }
}
