use std::path::PathBuf;

use super::super::database::Place;
use super::*;

const NEVER: Duration = Duration::from_secs(3600);

fn stored(shared: &Shared, digest: &str) -> PathBuf {
    shared.0.path().join("artifacts/adapters").join(TENANT).join(digest)
}

fn has_files(folder: &Path) -> bool {
    [CONFIG_FILE, WEIGHTS_FILE].iter().all(|file| folder.join(file).exists())
}

fn place(digest: &str) -> Place {
    Place { tenant: TENANT.to_owned(), digest: digest.to_owned() }
}

/// Sweeps all the time, what has been unnamed for so long.
async fn sweeping(shared: &Shared, name: &str, artifacts_after: Duration, copies_after: Duration) -> Arc<Catalogue> {
    let sweep = Sweep { every: Duration::from_millis(20), artifacts_after, copies_after };
    opened(Config { sweep, ..shared.config(name) }).await
}

async fn deleted(catalogue: &Catalogue, name: &str, revision: u32) {
    let tenant = TenantId::new(TENANT);
    catalogue.retire(&tenant, name, revision).await.expect("retired");
    catalogue.delete(&tenant, name, revision).await.expect("deleted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_artifact_is_there_until_it_is_swept_and_others_are_not_touched() {
    let shared = Shared::new();
    let one = sweeping(&shared, "one", Duration::from_secs(1), NEVER).await;
    let (kept, digest) =
        (published(&one, "kept", "kept").await, published(&one, "support", "weights").await.key.digest);
    published(&one, "same", "weights").await;
    // Another deployment's, in the same store.
    let foreign = stored(&shared, &"0".repeat(64));
    fs::create_dir(&foreign).expect("made");
    fs::write(foreign.join(CONFIG_FILE), "{}").expect("written");
    fs::write(foreign.join(WEIGHTS_FILE), "").expect("written");

    deleted(&one, "support", 1).await;
    let unnamed = one.backing().expect("backed").database.unnamed(now() + 100).await.expect("read");
    assert_eq!(unnamed, [], "another name has it");
    deleted(&one, "same", 1).await;
    assert!(has_files(&stored(&shared, &digest)), "not at once");
    until("it is swept", || !has_files(&stored(&shared, &digest))).await;
    assert!(has_files(&stored(&shared, &kept.key.digest)) && has_files(&foreign));
    // What was swept is published like what never was.
    published(&one, "support", "weights").await;
    assert!(has_files(&stored(&shared, &digest)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_broken_off_publish_stored_is_swept() {
    let shared = Shared::new();
    let one = shared.gateway("one").await;
    let backing = one.backing().expect("backed");
    let files = Files { config: "{}".into(), weights: "weights".into() };
    let digest = files.digest();
    backing.database.claim(&place(&digest), now() - 10).await.expect("claimed");
    backing.store.put(&place(&digest), &files).await.expect("stored");
    drop(one);
    let _other = sweeping(&shared, "other", Duration::from_secs(5), NEVER).await;
    until("it is swept", || !has_files(&stored(&shared, &digest))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_artifact_that_is_published_again_is_not_swept() {
    let shared = Shared::new();
    let one = shared.gateway("one").await;
    let digest = published(&one, "support", "weights").await.key.digest;
    deleted(&one, "support", 1).await;
    let (backing, place) = (one.backing().expect("backed"), place(&digest));
    let removing = async { panic!("it is removed while it is published") };

    // A publish has begun: it is stored, and not yet written down.
    let since = now() + 100;
    backing.database.claim(&place, since).await.expect("claimed");
    assert!(!backing.database.sweep(&place, since, removing).await.expect("swept"));
    // It is written down, and a sweep that found it earlier comes to it.
    published(&one, "support", "weights").await;
    backing.database.claim(&place, since).await.expect("claimed by the next");
    let removing = async { panic!("it is removed though it has a record") };
    assert!(!backing.database.sweep(&place, since + 1, removing).await.expect("swept"));
    assert_eq!(backing.database.unnamed(since + 1).await.expect("read"), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_that_fails_is_tried_again() {
    let shared = Shared::new();
    let one = shared.gateway("one").await;
    let (backing, place) = (one.backing().expect("backed"), place("some"));
    // So new that the gateway's own sweep leaves it alone.
    let since = now() + 100;
    backing.database.claim(&place, since).await.expect("claimed");
    assert!(!backing.database.sweep(&place, since + 1, async { false }).await.expect("swept"));
    assert_eq!(backing.database.unnamed(since + 1).await.expect("read"), std::slice::from_ref(&place));
    assert!(backing.database.sweep(&place, since + 1, async { true }).await.expect("swept"));
    assert_eq!(backing.database.unnamed(since + 1).await.expect("read"), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_that_nothing_names_are_removed_after_a_while() {
    let (shared, tenant) = (Shared::new(), TenantId::new(TENANT));
    let one = sweeping(&shared, "one", NEVER, Duration::from_millis(400)).await;
    let (kept, retired) = (published(&one, "kept", "kept").await.key, published(&one, "old", "old").await.key);
    let gone = published(&one, "gone", "gone").await.key;
    let mut folders = Vec::new();
    for key in [&kept, &retired, &gone] {
        folders.push(one.fetch(key).await.expect("fetched"));
    }
    let left = folders[0].with_file_name(".left-by-a-copy-that-broke-off");
    fs::create_dir(&left).expect("made");
    one.retire(&tenant, "old", 1).await.expect("retired");
    deleted(&one, "gone", 1).await;
    assert!(folders[2].is_dir(), "a worker may read it once more");
    until("both are removed", || !folders[2].exists() && !left.exists()).await;
    assert!(folders[0].is_dir() && folders[1].is_dir(), "a record names them");
    // Published again, it is copied again.
    let again = published(&one, "gone", "gone").await.key;
    assert_eq!(again.digest, gone.digest);
    assert!(has_files(&one.fetch(&again).await.expect("fetched")));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_database_no_copy_is_removed() {
    let shared = Shared::new();
    let one = shared.gateway("one").await;
    let key = published(&one, "support", "weights").await.key;
    let folder = one.fetch(&key).await.expect("fetched");
    drop(one);
    shared.take_database();
    fs::remove_file(shared.0.path().join("one/catalogue.json")).expect("removed");
    let again = sweeping(&shared, "one", NEVER, Duration::ZERO).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(again.list(None).is_empty() && has_files(&folder));
}
