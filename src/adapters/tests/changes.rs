use super::*;

fn answering(catalogue: &Catalogue, name: &str) -> Option<u32> {
    let route = catalogue.resolve(&TenantId::new(TENANT), name)?;
    route.adapter.map(|key| key.revision)
}

/// A gateway that sees no more of others' changes than when it opened.
async fn late(shared: &Shared, name: &str) -> Arc<Catalogue> {
    opened(Config { poll_interval: Duration::from_secs(600), ..shared.config(name) }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_saw_no_change_starts_without_the_database_all_the_same() {
    let shared = Shared::new();
    let one = shared.gateway("one").await;
    published(&one, "support", "weights").await;
    let other = late(&shared, "other").await;
    assert_eq!(answering(&other, "support"), Some(1));
    drop(other);
    shared.take_database();
    let other = shared.gateway("other").await;
    assert!(other.down().is_some());
    assert_eq!(answering(&other, "support"), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_gateway_has_not_seen_yet_is_changed_as_it_is() {
    let (shared, tenant) = (Shared::new(), TenantId::new(TENANT));
    let one = shared.gateway("one").await;
    for weights in ["first", "second", "third"] {
        published(&one, "support", weights).await;
    }
    let other = late(&shared, "other").await;
    one.retire(&tenant, "support", 2).await.expect("retired");
    assert_eq!(other.pin(&tenant, "support", 2).await, Err(ChangeError::Retired(2)));
    assert_eq!(answering(&other, "support"), Some(3), "the name is not dead");

    let other = late(&shared, "other").await;
    one.retire(&tenant, "support", 1).await.expect("retired");
    assert_eq!(other.roll_back(&tenant, "support").await, Err(ChangeError::NothingBefore));
    assert_eq!(answering(&other, "support"), Some(3));

    let other = late(&shared, "other").await;
    published(&one, "support", "fourth").await;
    assert_eq!(other.pin(&tenant, "support", 4).await.expect("pinned").key.revision, 4);
    assert_eq!(other.delete(&tenant, "support", 4).await, Err(ChangeError::NotRetired(4)));
    one.retire(&tenant, "support", 4).await.expect("retired");
    assert_eq!(answering(&one, "support"), Some(3), "its pin went with it");
    assert_eq!(other.delete(&tenant, "support", 4).await, Ok(()));
    let gone = ChangeError::NotFound("support@4".to_owned());
    assert_eq!(one.pin(&tenant, "support", 4).await, Err(gone.clone()));
    assert_eq!(one.retire(&tenant, "support", 4).await, Err(gone.clone()));
    assert_eq!(one.delete(&tenant, "support", 4).await, Err(gone));
    let nobody = ChangeError::NotFound("nobody".to_owned());
    assert_eq!(one.latest(&tenant, "nobody").await, Err(nobody.clone()));
    assert_eq!(one.roll_back(&tenant, "nobody").await, Err(nobody));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_name_with_a_living_revision_answers_whoever_pins_and_retires() {
    let (shared, tenant) = (Shared::new(), TenantId::new(TENANT));
    let (one, other) = (shared.gateway("one").await, shared.gateway("other").await);
    for round in 0..20 {
        let name = format!("name-{round}");
        published(&one, &name, "first").await;
        published(&one, &name, "second").await;
        other.refresh().await;
        let (pinned, retired) = tokio::join!(one.pin(&tenant, &name, 1), other.retire(&tenant, &name, 1));
        retired.expect("retired");
        assert!(matches!(pinned, Ok(_) | Err(ChangeError::Retired(1)),), "{pinned:?}");
        one.refresh().await;
        assert_eq!(answering(&one, &name), Some(2), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn rows_are_read_as_of_one_moment() {
    let (shared, tenant) = (Shared::new(), TenantId::new(TENANT));
    let (one, other) = (shared.gateway("one").await, late(&shared, "other").await);
    published(&one, "support", "first").await;
    let writing = tokio::spawn(async move {
        for round in 2..60 {
            published(&one, "support", &format!("weights {round}")).await;
            one.pin(&tenant, "support", round).await.expect("pinned");
            one.retire(&tenant, "support", round).await.expect("retired");
        }
    });
    let mut moments = 0;
    while !writing.is_finished() {
        let rows = other.backing().expect("backed").database.rows().await.expect("read");
        for (_, _, pinned) in &rows.pins {
            let row = rows.adapters.iter().find(|row| row.revision == *pinned).expect("what is pinned is there");
            assert_eq!(row.retired, None, "what is pinned answers: {rows:?}");
            moments += 1;
        }
    }
    writing.await.expect("written");
    assert!(moments > 0, "a pin was seen");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_older_look_never_comes_after_a_newer() {
    let shared = Shared::new();
    let one = shared.gateway("one").await;
    let looking: Vec<_> = (0..4)
        .map(|_| {
            let one = one.clone();
            tokio::spawn(async move {
                for _ in 0..50 {
                    one.refresh().await;
                }
            })
        })
        .collect();
    let watching = one.clone();
    let watched = std::thread::spawn(move || {
        let mut seen = 0;
        while seen < 30 {
            let version = watching.snapshot.load().version;
            assert!(version >= seen, "{version} after {seen}");
            seen = version;
        }
    });
    for round in 0..30 {
        published(&one, "support", &format!("weights {round}")).await;
    }
    for task in looking {
        task.await.expect("it looked");
    }
    watched.join().expect("it only grew");
}
