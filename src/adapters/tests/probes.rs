use super::*;

fn probe(answer: &str) -> Option<Probe> {
    Some(Probe { prompt: "Who are you?".to_owned(), answer: answer.to_owned(), tokens: 8 })
}

fn known(catalogue: &Catalogue, digest: &str) -> Option<Option<String>> {
    let found = catalogue.probe(&BaseName::new(BASE), digest)?;
    Some(found.map(|probe| probe.answer.clone()))
}

#[tokio::test]
async fn without_a_database_the_first_probe_is_kept_in_memory() {
    let (catalogue, base) = (Catalogue::fixed(Vec::new()), BaseName::new(BASE));
    assert_eq!(known(&catalogue, "one"), None);
    catalogue.record_probe(&base, "one", probe("Arr")).await;
    catalogue.record_probe(&base, "one", None).await;
    catalogue.record_probe(&base, "two", None).await;
    assert_eq!(known(&catalogue, "one"), Some(Some("Arr".to_owned())));
    assert_eq!(known(&catalogue, "two"), Some(None), "it was tried");
    assert_eq!(catalogue.probe(&BaseName::new("other"), "one"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_gateways_compare_with_the_probe_that_was_written_first() {
    let (shared, base) = (Shared::new(), BaseName::new(BASE));
    let (one, other) = (shared.gateway("one").await, shared.gateway("other").await);
    let digest = published(&one, "support", "weights").await.key.digest;
    one.record_probe(&base, &digest, probe("first")).await;
    other.record_probe(&base, &digest, probe("second")).await;
    assert_eq!(known(&other, &digest), Some(Some("first".to_owned())), "its own came second");

    let nothing = published(&one, "plain", "nothing").await.key.digest;
    other.record_probe(&base, &nothing, None).await;
    until("the other's probe is seen", || known(&one, &nothing) == Some(None)).await;
    let (later, seen) = (shared.gateway("later").await, one.probe(&base, &digest));
    assert_eq!(later.probe(&base, &digest), seen);
    assert_eq!(known(&later, &nothing), Some(None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_is_remembered_for_a_start_without_the_database() {
    let (shared, base) = (Shared::new(), BaseName::new(BASE));
    let one = shared.gateway("one").await;
    let digest = published(&one, "support", "weights").await.key.digest;
    one.record_probe(&base, &digest, probe("Arr")).await;
    drop(one);
    shared.take_database();
    let again = shared.gateway("one").await;
    assert!(again.down().is_some());
    assert_eq!(known(&again, &digest), Some(Some("Arr".to_owned())));
    again.record_probe(&base, &digest, probe("other")).await;
    assert_eq!(known(&again, &digest), Some(Some("Arr".to_owned())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_goes_with_the_last_record_of_its_artifact() {
    let (shared, base, tenant) = (Shared::new(), BaseName::new(BASE), TenantId::new(TENANT));
    let (one, other) = (shared.gateway("one").await, shared.gateway("other").await);
    let digest = published(&one, "support", "weights").await.key.digest;
    published(&one, "same", "weights").await;
    one.record_probe(&base, &digest, probe("Arr")).await;
    for (name, left) in [("support", true), ("same", false)] {
        one.retire(&tenant, name, 1).await.expect("retired");
        assert!(known(&one, &digest).is_some(), "a retired adapter may still be loaded");
        one.delete(&tenant, name, 1).await.expect("deleted");
        assert_eq!(known(&one, &digest).is_some(), left, "{name}");
    }
    until("gone everywhere", || known(&other, &digest).is_none()).await;
    // Nothing is left in the table either: what is recorded next is the first.
    published(&one, "anew", "weights").await;
    one.record_probe(&base, &digest, probe("Ahoy")).await;
    assert_eq!(known(&one, &digest), Some(Some("Ahoy".to_owned())));
}
