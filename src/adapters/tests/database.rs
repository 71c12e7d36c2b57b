use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn gateways_that_start_together_on_a_new_database_all_have_its_tables() {
    for _ in 0..5 {
        let shared = Shared::new();
        let starting = (0..6).map(|number| {
            let config = shared.config(&format!("gateway-{number}"));
            tokio::spawn(opened(config))
        });
        for started in starting.collect::<Vec<_>>() {
            assert_eq!(started.await.expect("it opens").down(), None);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_earlier_version_starts_on_a_later_ones_tables() {
    let shared = Shared::new();
    let one = shared.gateway("one").await;
    published(&one, "support", "weights").await;
    drop(one);
    let url = shared.config("one").database;
    sqlx::any::install_default_drivers();
    let pool = sqlx::AnyPool::connect(url.expose()).await.expect("connected");
    let later = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                 VALUES (9999, 'later', TRUE, x'00', 0)";
    sqlx::query(later).execute(&pool).await.expect("written");
    pool.close().await;
    let again = shared.gateway("one").await;
    assert_eq!((again.down(), again.list(None).len()), (None, 1));
}
