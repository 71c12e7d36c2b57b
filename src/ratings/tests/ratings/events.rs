//! Events as they are on the wire: against their schemas, and against golden
//! files, which are written anew with `UPDATE_GOLDEN=1`.

use std::time::{Duration, SystemTime};

use jsonschema::Validator;
use serde_json::{Value, json};
use tenantry_ratings::{
    Action, Blocked, Changed, Completed, Config, Content, ContentPolicy, EventType, Policy, Rating, Side, Thumb,
    Verdict,
};
use tenantry_types::TenantId;
use ulid::Ulid;

use crate::support::{Scripted, Taken, completed, folder, keys, policy, repository, running, tenant};

fn schema(name: &str) -> Value {
    let text = std::fs::read_to_string(repository(&format!("proto/events/v1/{name}.json"))).expect("a schema");
    serde_json::from_str(&text).expect("JSON")
}

fn validator(name: &str) -> Validator {
    let schema = schema(name);
    jsonschema::draft202012::meta::validate(&schema).expect("a schema of draft 2020-12");
    jsonschema::draft202012::new(&schema).expect("a schema")
}

fn valid(event: &Value) {
    let kind = event["type"].as_str().expect("a type");
    for (what, name) in [(event, "event"), (&event["data"], kind)] {
        let errors: Vec<_> = validator(name).iter_errors(what).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{name}: {errors:?}\n{what:#}");
    }
    let schema = schema(kind);
    assert_eq!(event["dataschema"], schema["$id"]);
}

fn golden(name: &str, event: &Value) {
    let path = repository(&format!("src/ratings/tests/ratings/golden/{name}.json"));
    let text = serde_json::to_string_pretty(event).expect("JSON") + "\n";
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &text).expect("written");
    }
    let expected = std::fs::read_to_string(&path).expect("a golden file; UPDATE_GOLDEN=1 writes it");
    assert_eq!(text, expected, "{name}");
}

fn at(milliseconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(1_764_300_000_000 + milliseconds)
}

fn taken(taken: &Taken) -> Vec<Value> {
    let taken = taken.lock().expect("not poisoned");
    taken.iter().map(|entry| serde_json::from_str(&entry.payload).expect("JSON")).collect()
}

fn generation(tenant: &TenantId) -> Completed {
    let id = keys().generations.issue(tenant, Ulid::from_parts(1_764_300_000_000, 1));
    let guard = vec![Verdict { side: Side::Prompt, action: Action::Flag, categories: vec!["insult".to_owned()] }];
    Completed { started: at(0), first_event: Some(at(200)), ended: at(700), guard, ..completed(id, tenant, 3) }
}

#[tokio::test]
async fn events_are_as_their_schemas_and_golden_files_say() {
    let folder = folder();
    let (sink, events) = Scripted::willing();
    let config =
        Config { source: "/tenantry/gateway-1".to_owned(), rate_within: Duration::MAX, ..Config::new(folder.path()) };
    let room = running(config.with_sink("one", sink)).await;
    let acme = tenant("acme");
    let end = generation(&acme);
    let keep = Policy { content: ContentPolicy::Keep, ..policy() };
    room.ratings.completed(&end, &keep);
    room.ratings.completed(&end, &policy());
    let messages = json!([{"role": "user", "content": "Who are you?"}]);
    let content = Content { prompt: Some(messages), completions: vec!["You".to_owned(), "I".to_owned()] };
    room.ratings.blocked(
        &Blocked {
            generation: end.generation,
            tenant: acme.clone(),
            model: end.model.clone(),
            base: end.base.clone(),
            adapter: None,
            route: "completions",
            at: at(300),
            side: Side::Completion,
            categories: vec!["threat".to_owned()],
            content: Some(content),
        },
        &keep,
    );
    let rating = Rating {
        generation_id: end.generation.to_string(),
        thumb: Some(Thumb::Down),
        score: Some(2),
        labels: vec!["wrong".to_owned()],
        comment: Some("It is \"no\" parrot.\n🦜".to_owned()),
        corrected_text: Some("A macaw.".to_owned()),
        end_user: Some("ada".to_owned()),
        idempotency_key: Some("k-1".to_owned()),
    };
    let again = Rating { idempotency_key: None, ..rating.clone() };
    let first = room.ratings.rate(&acme, &policy(), rating, at(900)).await.expect("recorded").id;
    let second = room.ratings.rate(&acme, &policy(), again, at(1000)).await.expect("recorded").id;
    room.settled().await;
    let mut events = taken(&events);
    events.iter().for_each(valid);
    assert_eq!(events.len(), 5);
    assert_eq!(events[4]["data"]["supersedes"], first.as_str());
    // What is new with every run.
    for (event, id) in [(3, &first), (4, &second)] {
        assert_eq!((&events[event]["id"], &events[event]["data"]["rating_id"]), (&json!(id), &json!(id)));
        events[event]["id"] = json!("rat_01");
        events[event]["data"]["rating_id"] = json!("rat_01");
    }
    events[4]["data"]["supersedes"] = json!("rat_00");
    assert!(events[2]["id"].as_str().is_some_and(|id| id.starts_with("blk_")));
    events[2]["id"] = json!("blk_01");
    let names = ["completed-kept", "completed-digest", "blocked", "rated", "rated-again"];
    for (name, event) in names.iter().zip(&events) {
        golden(name, event);
    }
    room.stop().await;
}

#[tokio::test]
async fn operators_changes_are_events_in_one_order() {
    let folder = folder();
    let (sink, events) = Scripted::willing();
    let config = Config { source: "/tenantry/gateway-1".to_owned(), ..Config::new(folder.path()) };
    let room = running(config.with_sink("one", sink)).await;
    let change = Changed {
        who: "ops".to_owned(),
        action: "key.created",
        subject: "tenants/acme/keys/main".to_owned(),
        tenant: Some(tenant("acme")),
        at: at(0),
        before: Value::Null,
        after: json!({ "name": "main", "fingerprint": "0123456789ab" }),
    };
    assert!(room.ratings.changed(&change));
    let of_nobody = Changed { action: "log.set", subject: "log".to_owned(), tenant: None, ..change };
    assert!(room.ratings.changed(&of_nobody));
    room.settled().await;
    crate::support::until("delivery", || events.lock().expect("not poisoned").len() == 2).await;
    let mut events = taken(&events);
    events.iter().for_each(valid);
    for (name, event) in ["changed", "changed-of-nobody"].iter().zip(&mut events) {
        assert!(event["id"].as_str().is_some_and(|id| id.starts_with("chg_")));
        event["id"] = json!("chg_01");
        golden(name, event);
    }
    let mut elsewhere = events[0].clone();
    elsewhere["partitionkey"] = json!("acme");
    assert!(!validator("event").is_valid(&elsewhere));
    for field in ["who", "action", "before", "after", "more"] {
        let mut wrong = events[0]["data"].clone();
        wrong[field] = json!(1);
        assert!(!validator("admin.changed").is_valid(&wrong), "{field}");
    }
    room.stop().await;
}

#[tokio::test]
async fn content_is_not_kept_unless_it_may_be_and_is_not_too_long() {
    let folder = folder();
    let (sink, events) = Scripted::willing();
    let config = Config { max_content_bytes: 20, ..Config::new(folder.path()) };
    let room = running(config.with_sink("one", sink)).await;
    let (acme, globex) = (tenant("acme"), tenant("globex"));
    let keep = Policy { content: ContentPolicy::Keep, ..policy() };
    let of = |tenant: &TenantId, words: &str| {
        let content = Content { prompt: Some(words.into()), completions: vec!["x".to_owned()] };
        Completed { content: Some(content), ..generation(tenant) }
    };
    room.ratings.completed(&of(&acme, "nineteen characters"), &keep);
    room.ratings.completed(&of(&acme, "as many as twenty…"), &keep);
    room.ratings.completed(&of(&acme, "nineteen characters"), &policy());
    room.ratings.completed(&of(&globex, "nineteen characters"), &policy());
    room.ratings.completed(&Completed { content: None, ..generation(&acme) }, &keep);
    room.settled().await;
    crate::support::until("delivery", || events.lock().expect("not poisoned").len() == 5).await;
    let events = taken(&events);
    events.iter().for_each(valid);
    let content: Vec<_> = events.iter().map(|event| &event["data"]["content"]).collect();
    assert_eq!(content[0]["prompt"], "nineteen characters");
    assert_eq!(content[1]["kept"], false);
    assert_eq!((&content[2]["prompt"]["bytes"], &content[2]["completions"][0]["bytes"]), (&json!(19), &json!(1)));
    assert_ne!(content[2]["prompt"]["hash"], content[3]["prompt"]["hash"], "tenants' hashes are their own");
    assert!(!events[2].to_string().contains("nineteen"));
    assert_eq!(events[4]["data"].get("content"), None);
    room.stop().await;
}

/// A schema that takes everything would say nothing.
#[test]
fn schemas_refuse_what_is_not_such_an_event() {
    let path = |name| repository(&format!("src/ratings/tests/ratings/golden/{name}.json"));
    let read = |name| -> Value { serde_json::from_slice(&std::fs::read(path(name)).expect("there")).expect("JSON") };
    for (name, kind) in
        [("completed-kept", EventType::Completed), ("rated", EventType::Rated), ("blocked", EventType::Blocked)]
    {
        let event = read(name);
        let validator = validator(kind.as_str());
        let data = event["data"].as_object().expect("an object");
        for field in data.keys() {
            let mut changed = event["data"].clone();
            changed[field] = json!({"no": "such"});
            assert!(!validator.is_valid(&changed), "{name} with another {field}");
        }
        let mut more = event["data"].clone();
        more["more"] = json!(1);
        assert!(!validator.is_valid(&more), "{name} with a field more");
    }
}
