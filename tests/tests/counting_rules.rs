//! What a token is, the configuration says: rules, tokenizers from files, factors that are learned, usage that lies.

use serde_json::{Value, json};
use std::fs;
use tollgate_tests::access;
use tollgate_tests::documents::Documents;
use tollgate_tests::gateway::Gateway;
use tollgate_tests::http::Request;
use tollgate_tests::wait::{PATIENCE, wait_for, wait_until};

const TEXT: &str = "twelve words that everybody knows and a number, namely 4111111111111111, too";

fn ask(model: &str) -> Request {
    Request::chat(model, TEXT)
        .channel("c")
        .set("stream", true)
        .set("mock", json!({ "tokens": 40, "usage": "no" }))
}

/// One channel without a limit on tokens.
fn documents() -> Documents {
    Documents::new().limited("c", json!([{ "metric": "connections", "max": 50 }]))
}

/// What the daemon counts for that request by what is in force.
async fn counted(gateway: &Gateway, model: &str, extra: Value) -> Value {
    let mut body = json!({ "body": { "model": model, "messages": [{ "role": "user", "content": TEXT }] } });
    for (key, value) in extra.as_object().expect("an object") {
        body[key] = value.clone();
    }
    // The daemon's API follows a moment after the workers.
    wait_for("the API to show what is in force", PATIENCE, || async {
        let shown = gateway.daemon.get("/tokenizers").await;
        (shown["generation"] == gateway.region().generation()).then_some(())
    })
    .await;
    let answer = gateway
        .daemon
        .api(Request::post(&format!("/api/v1/tokenizers/{model}/count"), &body))
        .await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    answer.json()["counted"].clone()
}

/// The log's newest line of that many.
async fn newest(gateway: &Gateway, of: usize) -> Value {
    wait_for("the request in the log", PATIENCE, || async {
        let log = gateway.daemon.get("/requests?channel=c").await;
        let lines = log["requests"].as_array()?.clone();
        (lines.len() == of).then(|| lines[0].clone())
    })
    .await
}

/// A rank file of all bytes and these joins.
fn ranks(joins: &[&str]) -> String {
    let mut text = String::new();
    let all: Vec<u8> = (0..=u8::MAX).collect();
    let bytes = all.chunks(1).map(<[u8]>::to_vec);
    for (rank, token) in bytes
        .chain(joins.iter().map(|join| join.as_bytes().to_vec()))
        .enumerate()
    {
        text.push_str(&format!("{} {rank}\n", base64(&token)));
    }
    text
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let mut word = [0; 4];
        word[1..=chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes(word);
        for index in 0..4 {
            if index > chunk.len() {
                out.push('=');
            } else {
                out.push(char::from(LETTERS[(bits >> (18 - 6 * index)) as usize & 63]));
            }
        }
    }
    out
}

#[tokio::test]
async fn a_rule_counts_in_workers_and_daemon_alike_and_is_named_by_its_version() {
    let rule = |tokens: u32| {
        let model =
            json!({ "name": "house", "deployments": [{ "provider": "mock", "upstream_model": "mock" }] });
        documents().model_value(model).counting(json!({
            "name": "house rule", "models": ["house"], "tokenizer": "cl100k_base", "family": "none",
            "patterns": [{ "pattern": "\\d{16}", "tokens": tokens }], "factor": 2.0
        }))
    };
    let gateway = Gateway::with(rule(100)).start().await;
    let first = counted(&gateway, "house", json!({})).await;
    assert_eq!(first["rule"], "house rule");
    assert!(first["tokens"].as_u64().unwrap() > 200, "{first}");
    assert_eq!(gateway.send(&ask("house")).await.status(), 200);
    let line = newest(&gateway, 1).await;
    assert_eq!(
        (&line["input_tokens"], &line["counting"], &line["source"]),
        (&first["tokens"], &first["version"], &json!("counted")),
        "{line}"
    );
    // 40 tokens, twice.
    assert_eq!(line["output_tokens"], 80, "{line}");

    // A draft is tried without being published.
    let draft =
        json!({ "rule": { "name": "x", "factor": 0.5, "tokenizer": "cl100k_base", "family": "none" } });
    let tried = counted(&gateway, "house", draft).await;
    assert!(tried["tokens"].as_u64().unwrap() < 20, "{tried}");

    gateway.publish(rule(5)).await;
    let second = counted(&gateway, "house", json!({})).await;
    assert_ne!(second["version"], first["version"]);
    gateway.publish(rule(100)).await;
    let back = counted(&gateway, "house", json!({})).await;
    assert_eq!(
        (&back["version"], &back["tokens"]),
        (&first["version"], &first["tokens"])
    );
    gateway.stop().await;
}

/// Damages the compiled tokenizer in a folder. It is replaced, not changed in place: workers have the old one mapped.
fn damage(folder: &std::path::Path) {
    let compiled = fs::read_dir(folder)
        .expect("compiled tokenizers")
        .map(|entry| entry.expect("an entry").path())
        .find(|path| path.extension().is_some_and(|it| it == "tgv"))
        .expect("a compiled tokenizer");
    let mut bytes = fs::read(&compiled).expect("its bytes");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let damaged = compiled.with_extension("new");
    fs::write(&damaged, bytes).expect("a damaged tokenizer");
    fs::rename(&damaged, &compiled).expect("a damaged tokenizer in place");
}

#[tokio::test]
async fn a_tokenizer_from_a_file_counts_and_a_broken_one_changes_nothing() {
    let documents = documents().model_value(json!({
        "name": "acme", "tokenizer": "acme", "deployments": [{ "provider": "mock", "upstream_model": "mock" }],
    }));
    let gateway =
        Gateway::with(documents.counting(json!({ "name": "texts", "models": ["acme"], "family": "none" })))
            .start()
            .await;
    let o200k = counted(&gateway, "acme", json!({})).await;
    assert_eq!(
        (&o200k["tokenizer"], &o200k["estimated"]),
        (&json!("o200k_base"), &json!(true))
    );

    let folder = gateway.site.config().join("tokenizers");
    fs::create_dir(&folder).expect("a folder");
    let file = folder.join("acme.gpt2.tiktoken");
    fs::write(&file, ranks(&[" w", "er", "yb", "od"])).expect("a tokenizer");
    let mine = wait_for("the tokenizer", PATIENCE, || async {
        let mine = counted(&gateway, "acme", json!({})).await;
        (mine["tokenizer"] == "acme").then_some(mine)
    })
    .await;
    // A token a byte but for the joins: five in the text, one in its role.
    assert_eq!(mine["tokens"], TEXT.len() as u64 - 5 + 3, "{mine}");
    assert_eq!(mine["estimated"], false);
    assert_eq!(gateway.send(&ask("acme")).await.status(), 200);
    let line = newest(&gateway, 1).await;
    assert_eq!(
        (&line["input_tokens"], &line["counting"]),
        (&mine["tokens"], &mine["version"]),
        "{line}"
    );

    // Truncated: refused, reported, and the former one goes on.
    fs::write(&file, &ranks(&[])[..999]).expect("a broken tokenizer");
    wait_for("the problem", PATIENCE, || async {
        let documents = gateway.daemon.get("/documents").await;
        let problems = documents["problems"].to_string();
        problems.contains("stays in force").then_some(())
    })
    .await;
    assert_eq!(
        counted(&gateway, "acme", json!({})).await["tokens"],
        mine["tokens"]
    );

    // Damaged where the workers map it: new workers refuse it by its checksum and go on without it.
    for folder in [gateway.site.region(), gateway.site.state()] {
        damage(&folder.join("tokenizers"));
    }
    assert_eq!(gateway.send(&ask("acme")).await.status(), 200);
    assert_eq!(newest(&gateway, 2).await["input_tokens"], mine["tokens"]);
    gateway.nginx.reload().await;
    wait_until("the refusal", PATIENCE, || {
        gateway.nginx.error_log().contains("cannot use the tokenizer")
    })
    .await;
    assert_eq!(gateway.send(&ask("acme")).await.status(), 200);
    assert_eq!(newest(&gateway, 3).await["status"], 200);
    gateway.stop().await;
}

#[tokio::test]
async fn a_factor_is_learned_from_what_the_upstream_reports() {
    let documents = documents()
        .model_value(json!({
            "name": "claude-next", "deployments": [{ "provider": "mock", "upstream_model": "mock" }],
        }))
        .counting(json!({ "name": "as openai", "models": ["claude-next"], "family": "openai" }));
    let gateway = Gateway::with(documents).start().await;
    let before = counted(&gateway, "claude-next", json!({})).await;
    assert_eq!(
        (&before["factor"], &before["estimated"]),
        (&json!(1.55), &json!(true))
    );
    // The mock's tokens are o200k's, one for one of ours. One request in eight is counted to learn from.
    let request = Request::chat("claude-next", &TEXT.repeat(4)).channel("c");
    let learned = wait_for("a factor", PATIENCE, || async {
        for _ in 0..20 {
            assert_eq!(gateway.send(&request).await.status(), 200);
        }
        let list = gateway.daemon.get("/tokenizers").await;
        let model = list["models"]
            .as_array()?
            .iter()
            .find(|it| it["model"] == "claude-next")?
            .clone();
        (model["learned"]["samples"].as_u64()? >= 12).then_some(model["learned"].clone())
    })
    .await;
    let near = |value: &Value, what: f64| (value.as_f64().expect("a number") - what).abs() < 0.01;
    assert!(
        near(&learned["factor"], 1.0) && near(&learned["error"], 0.0),
        "{learned}"
    );
    gateway.stop().await;
}

#[tokio::test]
async fn usage_that_lies_by_more_than_the_configured_factor_is_flagged() {
    let model = |name: &str, upstream: &str, factor: Option<f64>| {
        let mut model = json!({ "name": name, "tokenizer": "o200k_base",
            "deployments": [{ "provider": "mock", "upstream_model": upstream }] });
        if let Some(factor) = factor {
            model["suspicious_usage_factor"] = json!(factor);
        }
        model
    };
    let three = "mock?tokens=200&usage=lie:3";
    let documents = documents()
        .setting("suspicious_usage_factor", json!(5.0))
        .model_value(model("patient", three, None))
        .model_value(model("strict", three, Some(1.5)))
        .model_value(model("modest", "mock?tokens=200&usage=lie:0.1", Some(1.5)));
    let gateway = Gateway::with(documents).start().await;
    for (count, (name, suspicious)) in [("patient", false), ("strict", true), ("modest", true)]
        .into_iter()
        .enumerate()
    {
        let request = Request::chat(name, "hello")
            .channel("c")
            .set("stream", true)
            .set("stream_options", json!({ "include_usage": true }));
        assert_eq!(gateway.send(&request).await.status(), 200);
        let _ = access::entries(&gateway.nginx, "c", count + 1).await;
        let line = newest(&gateway, count + 1).await;
        assert_eq!(line["model"], name);
        let flags = line["flags"].as_str().expect("flags");
        assert_eq!(flags.contains("suspicious"), suspicious, "{line}");
    }
    let metrics = gateway.daemon.api(Request::get("/metrics")).await.text();
    assert!(metrics.contains("tollgate_suspicious_usage_total 2"), "{metrics}");
    gateway.stop().await;
}
