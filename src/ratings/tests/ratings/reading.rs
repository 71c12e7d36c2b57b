//! Summaries, following and exports.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tenantry_ratings::{
    Config, ContentPolicy, EventType, Export, Policy, Position, Rating, Reader, Revision, Summary, Thumb, write_jsonl,
};
use tenantry_types::TenantId;

use crate::support::{Running, completed, folder, policy, running, tenant, thumb};

fn keeping() -> Policy {
    Policy { content: ContentPolicy::Keep, ..policy() }
}

/// A generation by the adapter's revision, and a rating of it.
async fn rated(room: &Running, tenant: &TenantId, revision: u32, policy: &Policy, rating: Rating) -> String {
    let id = room.ratings.issue(tenant);
    room.ratings.completed(&completed(id, tenant, revision), policy);
    room.rate(tenant, Rating { generation_id: id.to_string(), ..rating }).await.expect("recorded").id
}

fn judged(up: bool, score: Option<u8>) -> Rating {
    Rating { thumb: Some(if up { Thumb::Up } else { Thumb::Down }), score, ..Rating::default() }
}

#[tokio::test]
async fn revisions_are_compared() {
    let folder = folder();
    let room = running(Config::new(folder.path())).await;
    let acme = tenant("acme");
    for (revision, up, down) in [(1, 4, 6), (2, 8, 2)] {
        for number in 0..up + down {
            let rating = judged(number < up, (number == 0).then_some(revision as u8 + 2));
            rated(&room, &acme, revision, &policy(), rating).await;
        }
    }
    // Superseded ratings do not count.
    let id = room.ratings.issue(&acme);
    room.ratings.completed(&completed(id, &acme, 3), &policy());
    for up in [true, false] {
        let rating = Rating { end_user: Some("ada".to_owned()), ..judged(up, None) };
        room.rate(&acme, Rating { generation_id: id.to_string(), ..rating }).await.expect("recorded");
    }
    // Of a generation that this gateway did not serve.
    room.rate_new(&acme, None).await;
    rated(&room, &tenant("globex"), 1, &policy(), judged(true, None)).await;

    let summary = room.ratings.reader().summary(Some(&acme)).await.expect("readable");
    let [unknown, one, two, three] = &summary[..] else { panic!("{summary:?}") };
    assert_eq!((unknown.model.as_deref(), unknown.ratings), (None, 1));
    assert_eq!(one.revision, Some(Revision { adapter: "tone".to_owned(), number: 1 }));
    assert_eq!((one.ratings, one.thumbs, one.thumbs_up, one.scores, one.mean_score), (10, 10, Some(0.4), 1, Some(3.0)));
    assert_eq!(one.change, None);
    let interval = two.thumbs_up_interval.expect("thumbs");
    assert!(interval.low > 0.4 && interval.high < 1.0, "{interval:?}");
    let change = two.change.as_ref().expect("a revision before");
    assert!(change.since == 1 && (change.thumbs_up.expect("thumbs") - 0.4).abs() < 1e-9);
    assert_eq!(change.mean_score, Some(1.0));
    assert_eq!((three.ratings, three.thumbs_up), (1, Some(0.0)));
    assert_eq!(three.change.as_ref().map(|it| (it.since, it.mean_score)), Some((2, None)));
    let all = room.ratings.reader().summary(None).await.expect("readable");
    let tenants: Vec<_> = all.iter().map(|it: &Summary| it.tenant.as_str()).collect();
    assert_eq!(tenants, ["acme", "acme", "acme", "acme", "globex"]);
    room.stop().await;
}

#[tokio::test]
async fn who_follows_sees_a_tenants_events_as_they_come() {
    let folder = folder();
    let room = running(Config::new(folder.path())).await;
    let (acme, globex) = (tenant("acme"), tenant("globex"));
    let before = room.rate_new(&acme, None).await;
    // Another process reads the same folder.
    let reader = Reader::open(folder.path());
    let mut next = reader.tail(Some(acme.clone()), &[EventType::Rated], Position::Next);
    let mut all = reader.tail(None, &[], Position::Oldest);
    assert_eq!(all.next().await.expect("readable").id, before.id);
    let following = tokio::spawn(async move { next.next().await.map(|entry| entry.id) });
    // It has begun when it waits: until then there is nothing that tells it from one that has not.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let other = room.rate_new(&globex, None).await;
    let ours = rated(&room, &acme, 1, &policy(), judged(true, None)).await;
    assert_eq!(following.await.expect("it ends").expect("readable"), ours);
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let entry = all.next().await.expect("readable");
        seen.push((entry.kind, entry.id));
    }
    assert_eq!(seen[0], (EventType::Rated, other.id));
    assert_eq!((seen[1].0, &seen[2]), (EventType::Completed, &(EventType::Rated, ours)));
    room.stop().await;
}

#[tokio::test]
async fn an_export_has_what_was_kept() {
    let folder = folder();
    let room = running(Config::new(folder.path())).await;
    let acme = tenant("acme");
    let rating = Rating {
        score: Some(2),
        labels: vec!["wrong".to_owned(), "late".to_owned()],
        corrected_text: Some("A macaw.".to_owned()),
        end_user: Some("ada".to_owned()),
        idempotency_key: Some("k".to_owned()),
        ..Rating::default()
    };
    let kept = rated(&room, &acme, 7, &keeping(), rating).await;
    let digest = rated(&room, &acme, 7, &policy(), judged(true, Some(5))).await;
    rated(&room, &tenant("globex"), 1, &keeping(), judged(true, Some(5))).await;
    let bare = room.rate(&acme, thumb(room.ratings.issue(&acme), None)).await.expect("recorded").id;

    let reader = room.ratings.reader();
    let export = async |export: Export| -> Vec<Value> {
        let mut lines = Vec::new();
        let count = write_jsonl(reader.export(export), &mut lines).await.expect("written");
        let text = String::from_utf8(lines).expect("UTF-8");
        let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(rows.len() as u64, count);
        rows
    };
    let of_acme = Export { tenant: Some(acme.clone()), ..Export::default() };
    let rows = export(of_acme.clone()).await;
    assert_eq!(
        rows.iter().map(|row| &row["rating_id"]).collect::<Vec<_>>(),
        [&json!(kept), &json!(digest), &json!(bare)]
    );
    let first = &rows[0];
    assert_eq!((&first["prompt"], &first["completion"]), (&json!("Who are you?"), &json!("A parrot.")));
    assert_eq!((&first["corrected_text"], &first["score"]), (&json!("A macaw."), &json!(2)));
    assert_eq!((&first["labels"], &first["revision"]), (&json!(["wrong", "late"]), &json!(7)));
    assert_eq!(first["end_user"].as_str().expect("hashed").len(), 32);
    assert_eq!((rows[1].get("prompt"), &rows[1]["model"]), (None, &json!("support")));
    assert_eq!(rows[2].get("model"), None);

    let best = export(Export { min_score: Some(3), ..of_acme.clone() }).await;
    assert_eq!(best.iter().map(|row| &row["rating_id"]).collect::<Vec<_>>(), [&json!(digest)]);
    assert_eq!(export(Export::default()).await.len(), 4);
    let future = SystemTime::now() + Duration::from_secs(60);
    assert_eq!(export(Export { since: Some(future), ..of_acme.clone() }).await, [] as [Value; 0]);
    assert_eq!(export(Export { until: Some(future), ..of_acme }).await.len(), 3);
    room.stop().await;
}

#[tokio::test]
async fn a_long_export_is_read_in_pages() {
    let folder = folder();
    let room = running(Config::new(folder.path())).await;
    let acme = tenant("acme");
    let acks = (0..200).map(|_| room.rate_new(&acme, None));
    let mut recorded: Vec<_> = futures_util::future::join_all(acks).await.into_iter().map(|ack| ack.id).collect();
    let mut rows = room.ratings.reader().export(Export::default());
    let mut exported = Vec::new();
    while let Some(row) = rows.next().await.expect("readable") {
        exported.push(row.rating_id);
    }
    recorded.sort();
    exported.sort();
    assert_eq!(exported, recorded);
    room.stop().await;
}

#[cfg(feature = "parquet")]
#[tokio::test]
async fn parquet_says_what_jsonl_says() {
    use parquet::file::reader::{FileReader as _, SerializedFileReader};
    use parquet::record::{Field, RowAccessor as _};

    let folder = folder();
    let room = running(Config::new(folder.path())).await;
    let acme = tenant("acme");
    let labels = ["rude", "late"].map(str::to_owned).to_vec();
    rated(&room, &acme, 1, &keeping(), Rating { labels, score: Some(4), ..Rating::default() }).await;
    rated(&room, &acme, 2, &policy(), judged(false, None)).await;
    room.rate_new(&acme, None).await;
    let (mut lines, file) = (Vec::new(), folder.path().join("export.parquet"));
    let reader = room.ratings.reader();
    write_jsonl(reader.export(Export::default()), &mut lines).await.expect("written");
    let to = std::fs::File::create(&file).expect("made");
    let count = tenantry_ratings::write_parquet(reader.export(Export::default()), to).await.expect("written");
    assert_eq!(count, 3);
    let expected = String::from_utf8(lines).expect("UTF-8");
    let expected = expected.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let read = SerializedFileReader::new(std::fs::File::open(&file).expect("there")).expect("parquet");
    let rows: Vec<_> = read.get_row_iter(None).expect("rows").map(|row| row.expect("a row")).collect();
    assert_eq!(rows.len(), 3);
    for (row, expected) in rows.iter().zip(expected) {
        for (name, field) in row.get_column_iter() {
            let wanted = expected.get(name).cloned().unwrap_or(Value::Null);
            match (name.as_str(), field) {
                ("time", Field::TimestampMillis(at)) => {
                    let at = chrono::DateTime::from_timestamp_millis(*at).expect("a time");
                    assert_eq!(json!(at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)), wanted);
                }
                _ => assert_eq!(json_of(field), wanted, "{name}"),
            }
        }
    }
    assert_eq!(rows[0].get_list(11).expect("labels").len(), 2);
    room.stop().await;
}

#[cfg(feature = "parquet")]
fn json_of(field: &parquet::record::Field) -> Value {
    use parquet::record::Field;
    match field {
        Field::Null => Value::Null,
        Field::Str(text) => json!(text),
        Field::Int(number) => json!(number),
        Field::UInt(number) => json!(number),
        Field::ListInternal(list) => list.elements().iter().map(json_of).collect(),
        other => panic!("{other} is of no type that is written"),
    }
}
