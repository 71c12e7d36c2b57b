use super::*;

fn configured(folder: &Path, weights: &[u8]) -> (Artifact, PathBuf) {
    fs::write(folder.join(CONFIG_FILE), "{}").expect("written");
    fs::write(folder.join(WEIGHTS_FILE), weights).expect("written");
    let digest = Files::read(folder, u64::MAX).expect("read").digest();
    let key = AdapterKey { tenant: TenantId::new(TENANT), name: "listed".into(), revision: 1, digest: digest.into() };
    (Artifact { key, base: BaseName::new(BASE) }, folder.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_artifact_is_copied_once_and_a_damaged_copy_anew() {
    let shared = Shared::new();
    let one = shared.gateway("one").await;
    let key = published(&one, "support", "weights").await.key;
    let asking: Vec<_> = (0..8)
        .map(|_| {
            let (one, key) = (one.clone(), key.clone());
            tokio::spawn(async move { one.fetch(&key).await })
        })
        .collect();
    let mut folders = Vec::new();
    for asked in asking {
        folders.push(asked.await.expect("it ends").expect("fetched"));
    }
    folders.dedup();
    let [folder] = &folders[..] else { panic!("one folder: {folders:?}") };
    assert_eq!(fs::read(folder.join(WEIGHTS_FILE)).expect("there"), b"weights");
    assert_eq!(fs::read_dir(folder.parent().expect("one")).expect("a folder").count(), 1, "nothing is left beside it");
    assert!(!one.list(None)[0].fetching && one.list(None)[0].fetched);

    fs::write(folder.join(WEIGHTS_FILE), "damaged").expect("written");
    drop(one);
    let again = shared.gateway("one").await;
    let folder = again.fetch(&key).await.expect("fetched");
    assert_eq!(fs::read(folder.join(WEIGHTS_FILE)).expect("there"), b"weights");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_artifact_in_the_store_that_is_not_what_its_record_says_is_invalid() {
    let shared = Shared::new();
    let one = shared.gateway("one").await;
    let key = published(&one, "support", "weights").await.key;
    let stored = shared.0.path().join("artifacts/adapters").join(TENANT).join(&*key.digest);
    fs::write(stored.join(WEIGHTS_FILE), "other").expect("written");
    let refused = one.fetch(&key).await.expect_err("it is another");
    let found = Files { config: "{}".into(), weights: "other".into() }.digest();
    assert_eq!(refused, FetchError::Invalid(format!("the artifact's digest is {found}, not {}", key.digest)));
    assert!(!one.list(None)[0].fetching && !one.list(None)[0].fetched);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_configuration_lists_may_be_larger_than_what_may_be_published() {
    let (shared, folder) = (Shared::new(), tempfile::tempdir().expect("a folder"));
    let (artifact, from) = configured(folder.path(), &vec![7; 2 << 20]);
    let config = shared.config("one");
    let (key, most) = (artifact.key.clone(), config.max_adapter_bytes);
    let one = Catalogue::open(config, vec![(artifact, from.clone())], Arc::new(Any), Arc::default());
    let copy = one.await.expect("it opens").fetch(&key).await.expect("fetched");
    assert_eq!(digest_of(&copy).expect("read"), *key.digest);
    let refused = Files::read(&from, most).expect_err("too large to be published");
    assert_eq!(refused.to_string(), "adapter_model.safetensors has more than 1048576 bytes");
    assert!(Files::read(&from, 2 << 20).is_ok(), "just long enough");
}
