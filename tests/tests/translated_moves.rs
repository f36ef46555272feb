//! Which deployment takes a request that has to be translated, and from one protocol to the next and back.

mod translated;

use serde_json::{Value, json};
use tollgate_tests::access;
use tollgate_tests::documents::Documents;
use tollgate_tests::gateway::Gateway;
use tollgate_tests::http::Request;
use tollgate_tests::mock::words;
use translated::{Party, Protocol, read};

/// A model whose deployments are tried in the order of the list; the third is that of a model that stands in for it.
async fn in_order(parties: &[(&Party, &str)]) -> Gateway {
    let mut documents = Documents::new();
    let mut deployments = Vec::new();
    for ((party, options), weight) in parties.iter().zip([1_000_000, 1, 1]) {
        deployments.push(party.deployment(weight, options));
        documents = documents.provider(party.provider());
    }
    let third = deployments.split_off(deployments.len().min(2));
    let mut fallback = Vec::new();
    if !third.is_empty() {
        fallback.push("stand-in");
        documents = documents
            .model_value(json!({ "name": "stand-in", "tokenizer": "o200k_base", "deployments": third }));
    }
    let limits = json!([{ "name": "requests", "metric": "requests", "max": 1_000, "window": "10m" },
        { "name": "out", "metric": "output_tokens", "max": 1_000, "window": "10m" }]);
    let documents = documents
        .model_value(
            json!({ "name": "m", "tokenizer": "o200k_base", "deployments": deployments,
            "fallback": fallback, "routing": { "balance": "weighted" } }),
        )
        .limited("c", limits);
    Gateway::with(documents).start().await
}

#[tokio::test]
async fn a_request_moves_from_protocol_to_protocol_and_back() {
    let failing = "tokens=4&status=503";
    for (client, order) in [
        (
            Protocol::OpenAi,
            [Protocol::Anthropic, Protocol::OpenAi, Protocol::Gemini],
        ),
        (
            Protocol::OpenAi,
            [Protocol::OpenAi, Protocol::Gemini, Protocol::OpenAi],
        ),
        (
            Protocol::OpenAi,
            [Protocol::Gemini, Protocol::Anthropic, Protocol::OpenAi],
        ),
        (
            Protocol::Anthropic,
            [Protocol::OpenAi, Protocol::Anthropic, Protocol::OpenAi],
        ),
        (
            Protocol::Anthropic,
            [Protocol::Anthropic, Protocol::OpenAi, Protocol::Anthropic],
        ),
    ] {
        let parties = [
            Party::start("first", order[0]).await,
            Party::start("second", order[1]).await,
            Party::start("third", order[2]).await,
        ];
        let [first, second, third] = &parties;
        let gateway = in_order(&[(first, failing), (second, failing), (third, "tokens=4")]).await;
        for (round, stream) in [false, true].into_iter().enumerate() {
            let answer = gateway.send(&client.request("m", 30, stream)).await;
            assert_eq!(answer.status(), 200, "{client:?} {order:?} {}", answer.text());
            let read = read(client, stream, &answer);
            assert_eq!((&*read.text, &*read.finish), (&*words::text(0, 4), client.stop()));
            for (party, options) in [(first, failing), (second, failing), (third, "tokens=4")] {
                let record = party.mock.stats().last().unwrap();
                party.assert_own(&record, options, stream);
                let body = record.json().unwrap();
                assert_eq!(party.protocol.max_tokens(&body), 30, "{order:?} {body}");
                // The client's own lines come back with its own protocol.
                if party.protocol == client {
                    let (name, value) = match client {
                        Protocol::Anthropic => ("anthropic-beta", "some-beta"),
                        _ => ("openai-organization", "org-1"),
                    };
                    assert_eq!(record.header(name), Some(value), "{order:?} {record:?}");
                }
                assert_eq!(party.mock.stats().total().requests, 1 + round as u64);
            }
            let entry = access::entries(&gateway.nginx, "c", 1 + round)
                .await
                .pop()
                .unwrap();
            let served = third.mock.stats().last().unwrap();
            assert_eq!((entry.get("deployment"), entry.number("output")), ("third", 4));
            assert!(served.json().is_some());
        }
        gateway.wait_idle().await;
        assert_eq!(gateway.used("c", "requests").await, 2);
        assert_eq!(gateway.used("c", "out").await, 8);
        gateway.stop().await;
    }
}

#[tokio::test]
async fn usage_that_only_we_asked_for_stays_ours_over_all_attempts() {
    for order in [
        [Protocol::OpenAi, Protocol::Anthropic],
        [Protocol::Anthropic, Protocol::OpenAi],
    ] {
        let first = Party::start("first", order[0]).await;
        let second = Party::start("second", order[1]).await;
        let gateway = in_order(&[(&first, "status=500"), (&second, "tokens=4")]).await;
        let request = Request::chat("m", " hello").channel("c").set("stream", true);
        let answer = gateway.send(&request).await;
        let read = read(Protocol::OpenAi, true, &answer);
        assert_eq!(
            (read.usage, &*read.text),
            (None, &*words::text(0, 4)),
            "{order:?}"
        );
        let charged = &access::entries(&gateway.nginx, "c", 1).await[0];
        let input = second.mock.stats().total().prompt_tokens;
        assert_eq!(charged.charged(), (input, 4, "upstream"), "{order:?}");
        gateway.stop().await;
    }
}

#[tokio::test]
async fn what_a_protocol_cannot_say_goes_to_one_that_can_or_is_refused_by_name() {
    let claude = Party::start("claude", Protocol::Anthropic).await;
    let gpt = Party::start("gpt", Protocol::OpenAi).await;
    let gateway = in_order(&[(&claude, "tokens=4"), (&gpt, "tokens=4")]).await;
    let request = Request::chat("m", " hello").channel("c").set("n", 2);
    let answer = gateway.send(&request).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert_eq!(answer.json()["choices"].as_array().map(Vec::len), Some(2));
    let served = [&claude, &gpt].map(|party| party.mock.stats().total().requests);
    assert_eq!(served, [0, 1]);
    let body = gpt.mock.stats().last().unwrap().json().unwrap();
    assert_eq!(body["model"], "gpt-4o?tokens=4");
    // An API that only one of the two serves goes there too.
    let embed = json!({ "model": "m", "input": ["a"] });
    let answer = gateway
        .send(&Request::post("/v1/embeddings", &embed).channel("c"))
        .await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert_eq!(claude.mock.stats().total().requests, 0);
    gateway.stop().await;

    let gateway = in_order(&[(&claude, "tokens=4")]).await;
    let answer = gateway.send(&request).await;
    assert_eq!(answer.status(), 400, "{}", answer.text());
    let error = &answer.json()["error"];
    assert_eq!(
        (&error["param"], &error["code"]),
        (&json!("n"), &json!("untranslatable_request"))
    );
    for (path, body) in [
        ("/v1/embeddings", embed),
        ("/v1/responses", json!({ "model": "m", "input": "a" })),
        ("/v1/completions", json!({ "model": "m", "prompt": "a" })),
    ] {
        let answer = gateway.send(&Request::post(path, &body).channel("c")).await;
        assert_eq!(answer.status(), 400, "{}", answer.text());
        let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(
            message.contains(path) && message.contains("anthropic"),
            "{message}"
        );
    }
    assert_eq!(claude.mock.stats().total().requests, 0);
    gateway.wait_idle().await;
    assert_eq!(gateway.used("c", "out").await, 0);
    gateway.stop().await;
}

#[tokio::test]
async fn a_channel_in_the_body_is_not_the_upstreams_business() {
    let claude = Party::start("claude", Protocol::Anthropic).await;
    let documents = Documents::new()
        .model_value(json!({ "name": "m", "deployments": [claude.deployment(1, "tokens=4")] }))
        .provider(claude.provider())
        .setting("channel_source", json!([{ "body": "tenant" }]))
        .limited("c", json!([]));
    let gateway = Gateway::with(documents).start().await;
    let request = Request::chat("m", " hello").set("tenant", "c");
    let answer = gateway.send(&request).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let sent: Value = claude.mock.stats().last().unwrap().json().unwrap();
    assert!(!sent.to_string().contains("tenant"), "{sent}");
    gateway.stop().await;
}
