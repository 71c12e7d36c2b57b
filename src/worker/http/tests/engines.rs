//! What holds of vLLM and llama.cpp alone.

use super::*;
use crate::types::{AdapterKey, More, TenantId};
use crate::worker::http::{FixedAdapter, LlamaCpp, LlamaCppConfig, Vllm, VllmConfig};
use crate::worker::{AdapterLoad, LoadedAdapter};

#[tokio::test]
async fn what_a_workers_own_network_or_caches_hold_cannot_be_asked_for() {
    let server = Server::new().await;
    let vllm = Vllm::start(VllmConfig { remote: server.remote(""), sleep_after: None }).expect("a good URL");
    let refused = async |request: GenerateRequest| match vllm.generate(call(request)).await.map(drop) {
        Err(WorkerError::Refused(error)) => error.param().unwrap_or_default().to_owned(),
        other => panic!("{other:?}"),
    };
    for (field, value, path) in [
        ("cache_salt", json!("another tenant's"), "cache_salt"),
        ("lora_path", json!("/"), "lora_path"),
        ("chat_template_kwargs", json!({"chat_template": "{{ x }}"}), "chat_template_kwargs.chat_template"),
    ] {
        let extra = [(field.to_owned(), value)].into_iter().collect();
        assert_eq!(refused(GenerateRequest { extra, ..request() }).await, path);
    }
    for part in [
        json!({"type": "image_url", "image_url": {"url": "http://169.254.169.254/latest"}}),
        json!({"type": "image_url", "image_url": "file:///etc/passwd"}),
        json!({"type": "audio_url", "audio_url": {"url": " https://inside"}}),
        json!({"type": "image_embeds", "image_embeds": "AAAA"}),
    ] {
        let as_given = json!({"role": "user", "content": [{"type": "text", "text": "?"}, part]});
        let Value::Object(as_given) = as_given else { unreachable!("an object") };
        let more = Some(Box::new(More { as_given, refusal: None }));
        let input = Input::Chat(vec![Message { more, ..Message::text(Role::User, "?") }]);
        assert_eq!(refused(GenerateRequest { input, ..request() }).await, "messages[0].content[1]");
    }
}

/// llama.cpp's server with these files as its adapters: answers what it is
/// asked until a request for tokens comes, whose body it returns.
async fn llamacpp(connection: &mut Connection, files: &[&str], slots: usize) -> Option<Value> {
    loop {
        let mut read = Vec::new();
        let request = loop {
            let mut buffer = [0; 4096];
            let count = connection.0.read(&mut buffer).await.ok().filter(|count| *count > 0)?;
            read.extend_from_slice(&buffer[..count]);
            let text = String::from_utf8_lossy(&read).into_owned();
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            if head.starts_with("GET") || !body.is_empty() {
                break text;
            }
        };
        if request.contains("/chat/completions") {
            let (_, body) = request.split_once("\r\n\r\n").expect("a body");
            let body: Value = serde_json::from_str(body).expect("JSON");
            return Some(body);
        }
        let adapter = |(id, file): (usize, &&str)| json!({"id": id, "path": format!("/x/{file}"), "scale": 0.0});
        let body = match request.contains("/lora-adapters") {
            true => Value::from_iter(files.iter().enumerate().map(adapter)),
            false => Value::from_iter((0..slots).map(|id| json!({"id": id, "is_processing": false}))),
        };
        let body = body.to_string();
        connection.write(&format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())).await;
    }
}

#[tokio::test]
async fn a_llamacpp_that_came_back_with_other_ids_answers_nobody_with_them() {
    let server = Server::new().await;
    let adapter = |tenant: &str, file: &str| FixedAdapter {
        tenant: TenantId::new(tenant),
        name: "a".into(),
        revision: 1,
        file: file.to_owned(),
    };
    let adapters = vec![adapter("acme", "a.gguf"), adapter("globex", "b.gguf"), adapter("globex", "gone.gguf")];
    let driver = LlamaCpp::start(LlamaCppConfig { remote: server.remote(""), adapters }).expect("a good URL");
    let mine = AdapterKey { tenant: TenantId::new("acme"), name: "a".into(), revision: 1, digest: "d".into() };
    let call = || Call { adapter: Some(mine.clone()), ..call(request()) };
    let early = driver.generate(call()).await.map(drop);
    assert!(matches!(&early, Err(WorkerError::Unavailable(_))), "nothing is known yet: {early:?}");

    let (answers, lists) = tokio::join!(
        async {
            while driver.status().unhealthy.is_some() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let mut answers = Vec::new();
            for _ in 0..3 {
                let events = match driver.generate(call()).await {
                    Ok(started) => started.events.collect::<Vec<_>>().await.into_iter().collect(),
                    Err(error) => Err(error),
                };
                answers.push(events.map(|events: Vec<Event>| text(&events)));
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            answers
        },
        async {
            let mut lists = Vec::new();
            // The first run of the server, then one that has the files the other way round.
            let mut connection = server.accept().await;
            lists.push(llamacpp(&mut connection, &["a.gguf", "b.gguf"], 0).await);
            connection.answer("mine").await;
            drop(connection);
            let mut connection = server.accept().await;
            lists.push(llamacpp(&mut connection, &["b.gguf", "a.gguf"], 0).await);
            connection.answer("another's").await;
            // It is asked on a connection of its own what it has now.
            let mut asked = server.accept().await;
            let asked_again = llamacpp(&mut asked, &["b.gguf", "a.gguf"], 0);
            lists.push(asked_again.await);
            asked.answer("mine").await;
            lists
        }
    );
    assert_eq!(answers[0].as_deref(), Ok("mine"));
    assert!(matches!(&answers[1], Err(WorkerError::Unavailable(_))), "{answers:?}");
    assert_eq!(answers[2].as_deref(), Ok("mine"));
    let list = |first: f64, second: f64| Some(json!([{"id": 0, "scale": first}, {"id": 1, "scale": second}]));
    let lists: Vec<_> = lists.into_iter().map(|body| body.map(|body| body["lora"].clone())).collect();
    assert_eq!(lists, [list(1.0, 0.0), list(1.0, 0.0), list(0.0, 1.0)]);
    let other = |tenant: &str| AdapterKey { tenant: TenantId::new(tenant), ..mine.clone() };
    assert!(driver.accepts(&mine) && driver.accepts(&other("globex")) && !driver.accepts(&other("initech")));
}

#[tokio::test]
async fn what_vllm_says_of_a_load_is_told_apart_by_its_words_not_its_status() {
    let server = Server::new().await;
    let vllm = Vllm::start(VllmConfig { remote: server.remote(""), sleep_after: None }).expect("a good URL");
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("adapter_model.safetensors"), [0; 7]).expect("written");
    let digest = "d".repeat(64);
    let key = AdapterKey { tenant: TenantId::new("acme"), name: "a".into(), revision: 3, digest: digest.into() };
    let load = AdapterLoad { key: key.clone(), base: BaseName::new("base"), folder: folder.path().to_owned() };
    let loaded = async |status: &str, message: &str| {
        let body = json!({"error": {"message": message}}).to_string();
        let answer =
            format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let serve = async {
            loop {
                let mut connection = server.accept().await;
                let mut read = vec![0; 4096];
                let count = connection.0.read(&mut read).await.expect("readable");
                if read[..count].starts_with(b"GET") {
                    continue; // It is being asked how it is.
                }
                if !read[..count].ends_with(b"}") {
                    let _ = connection.0.read(&mut read).await;
                }
                connection.write(&answer).await;
            }
        };
        tokio::select! { loaded = vllm.load_adapter(load.clone()) => loaded, () = serve => unreachable!("endless") }
    };
    assert_eq!(loaded("200", "").await, Ok(LoadedAdapter { bytes: 7 }));
    assert_eq!(loaded("400", "'x' has already been loaded.").await, Ok(LoadedAdapter { bytes: 7 }));
    for broken in
        ["LoRA rank 64 is greater than max_lora_rank 16.", "/x doesn't contain tensors", "invalid header length"]
    {
        assert!(matches!(loaded("500", broken).await, Err(WorkerError::AdapterInvalid(_))), "{broken}");
    }
    for (status, other) in [("404", "No adapter found for /x"), ("500", "out of memory")] {
        assert!(matches!(loaded(status, other).await, Err(WorkerError::AdapterUnavailable(_))), "{other}");
    }
}

/// llama.cpp does not see a client go whose request waits there.
#[tokio::test]
async fn a_llamacpp_is_sent_no_more_than_it_has_slots() {
    let server = Server::new().await;
    let config = LlamaCppConfig { remote: server.remote(""), adapters: Vec::new() };
    let driver = LlamaCpp::start(config).expect("a good URL");
    let mut looks = server.accept().await;
    let known = async {
        while driver.status().slots != Some(1) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        () = known => {}
        asked = llamacpp(&mut looks, &[], 1) => panic!("asked for tokens: {asked:?}"),
    }
    // The connection of the looks is free by now.
    let (first, _) = tokio::join!(driver.generate(call(request())), async {
        let body = llamacpp(&mut looks, &[], 1).await.expect("a request for tokens");
        // What it keeps of a base model's prompts would be every tenant's.
        assert_eq!(body["cache_prompt"], json!(false));
        looks.write(HEAD).await;
        looks.event(&piece("one", "null")).await;
    });
    let mut first = first.expect("it began").events;
    first.next().await.expect("an event").expect("no error");

    let sent = async { server.accept().await };
    {
        let waiting = driver.generate(call(request()));
        let waits = async {
            tokio::time::sleep(Duration::from_millis(150)).await;
            driver.waiting()
        };
        tokio::select! {
            _ = waiting => panic!("there is one slot"),
            _ = sent => panic!("it was sent all the same"),
            waits = waits => assert_eq!(waits, 1),
        }
    }
    assert_eq!(driver.waiting(), 0, "it has left");
    drop(first);
    let script = async {
        let mut connection = server.accept().await;
        llamacpp(&mut connection, &[], 1).await;
        connection.answer("two").await;
        // What it has now is asked for again, since the connection is new.
        let mut asked = server.accept().await;
        llamacpp(&mut asked, &[], 1).await
    };
    let second = tokio::select! {
        second = driver.generate(call(request())) => second.expect("the slot is free").events,
        asked = script => panic!("asked for more tokens: {asked:?}"),
    };
    let events: Vec<Event> = second.map(|event| event.expect("no error")).collect().await;
    assert_eq!(text(&events), "two");
}
