//! What the gateway answers itself, without asking any deployment: lists of models, counts of tokens; and what it
//! passes on without knowing it.

use serde_json::{Value, json};
use tollgate_tests::documents::Documents;
use tollgate_tests::gateway::Gateway;
use tollgate_tests::http::{Request, Response};
use tollgate_tests::mock::MockLlm;

fn documents(far: &MockLlm) -> Documents {
    let mut documents = Documents::new()
        .provider(json!({ "id": "google", "protocol": "gemini", "base_url": far.url() }))
        .openai("open", &far.url())
        .model_value(
            json!({ "name": "gemini-flash", "tokenizer": "o200k_base", "max_output_tokens": 77, "default_max_tokens": 50,
            "deployments": [{ "provider": "google", "upstream_model": "gemini-2.5-flash?tokens=3" }] }),
        );
    for name in ["gpt-4o", "gpt-4o-mini", "secret-gpt", "org/long"] {
        documents = documents.model_value(json!({ "name": name, "tokenizer": "o200k_base",
            "deployments": [{ "provider": "open", "upstream_model": "mock?tokens=3" }] }));
    }
    documents.channel(
        json!({ "code": "c", "trusted": true, "models": { "deny": ["secret-*"] },
            "limits": [{ "name": "r", "metric": "requests", "max": 100, "window": "10m" },
                { "name": "t", "metric": "total_tokens", "max": 1_000, "window": "10m" }] }),
    )
}

fn get(target: &str) -> Request {
    Request::get(target).channel("c")
}

fn names(list: &Value, member: &str) -> Vec<String> {
    let mut names: Vec<String> = list
        .as_array()
        .unwrap_or_else(|| panic!("no list in {list}"))
        .iter()
        .filter_map(|model| model[member].as_str().map(str::to_owned))
        .collect();
    names.sort_unstable();
    names
}

async fn gateway() -> (Gateway, MockLlm) {
    let far = MockLlm::start().await;
    let gateway = Gateway::with(documents(&far)).start().await;
    (gateway, far)
}

#[tokio::test]
async fn models_are_listed_in_the_shape_of_the_api_that_asks() {
    let (gateway, far) = gateway().await;
    let answer = gateway.send(&get("/v1/models")).await.json();
    assert_eq!(answer["object"], "list");
    assert_eq!(
        names(&answer["data"], "id"),
        ["gemini-flash", "gpt-4o", "gpt-4o-mini", "org/long"]
    );
    let answer = gateway
        .send(&get("/v1/models").header("anthropic-version", "2023-06-01"))
        .await;
    let list = answer.json();
    // Translated where it has to be.
    assert_eq!(
        names(&list["data"], "id"),
        ["gemini-flash", "gpt-4o", "gpt-4o-mini", "org/long"]
    );
    assert_eq!(
        (&list["has_more"], &list["data"][0]["type"]),
        (&json!(false), &json!("model"))
    );
    for request in [
        get("/v1beta/models"),
        get("/v1/models").header("x-goog-api-key", "any"),
    ] {
        let list = gateway.send(&request).await.json();
        assert_eq!(names(&list["models"], "name"), ["models/gemini-flash"]);
        assert_eq!(list["models"][0]["outputTokenLimit"], 77);
    }
    assert_eq!(far.stats().total().requests, 0);
    gateway.stop().await;
}

fn error(answer: &Response, status: u16) -> Value {
    assert_eq!(answer.status(), status, "{}", answer.text());
    answer.json()["error"].clone()
}

#[tokio::test]
async fn one_model_is_described_or_told_to_be_unknown_with_its_neighbours() {
    let (gateway, _far) = gateway().await;
    let answer = gateway.send(&get("/v1/models/gpt-4o")).await;
    assert_eq!((answer.status(), &answer.json()["id"]), (200, &json!("gpt-4o")));
    let answer = gateway.send(&get("/v1/models/org/long")).await;
    assert_eq!(answer.json()["id"], "org/long");
    let answer = gateway.send(&get("/v1beta/models/gemini-flash")).await;
    assert_eq!(answer.json()["name"], "models/gemini-flash");
    let anthropic = |target| get(target).header("anthropic-version", "2023-06-01");
    let answer = gateway.send(&anthropic("/v1/models/gpt-4o")).await;
    assert_eq!(
        (&answer.json()["type"], &answer.json()["id"]),
        (&json!("model"), &json!("gpt-4o"))
    );

    let unknown = error(&gateway.send(&get("/v1/models/GPT-4p")).await, 404);
    assert_eq!(unknown["code"], "model_not_found");
    let message = unknown["message"].as_str().unwrap();
    assert!(message.contains("did you mean \"gpt-4o\"?"), "{message}");
    let unknown = error(&gateway.send(&anthropic("/v1/models/gpt-4")).await, 404);
    assert_eq!(unknown["type"], "not_found_error");
    let unknown = error(&gateway.send(&get("/v1beta/models/gemini-flesh")).await, 404);
    assert_eq!(unknown["status"], "NOT_FOUND");
    assert!(
        unknown["message"].as_str().unwrap().contains("gemini-flash"),
        "{unknown}"
    );
    // What the channel may not use is as good as not there, also as a neighbour.
    let unknown = error(&gateway.send(&get("/v1/models/secret-gpt")).await, 404);
    assert!(
        !unknown["message"].as_str().unwrap().contains("did you mean"),
        "{unknown}"
    );
    let unknown = error(&gateway.send(&get("/v1/models/secret-gpr")).await, 404);
    assert!(
        !unknown["message"].as_str().unwrap().contains("did you mean"),
        "{unknown}"
    );

    let chat = Request::chat("gpt-4o-min", " hello").channel("c");
    let unknown = error(&gateway.send(&chat).await, 404);
    assert!(
        unknown["message"]
            .as_str()
            .unwrap()
            .contains("did you mean \"gpt-4o-mini\""),
        "{unknown}"
    );
    gateway.stop().await;
}

fn words(count: usize) -> Value {
    json!([{ "role": "user", "content": " hello".repeat(count) }])
}

#[tokio::test]
async fn tokens_are_counted_here_for_the_price_of_a_request() {
    let (gateway, far) = gateway().await;
    let count = |model: &str, n: usize| {
        let body = json!({ "model": model, "messages": words(n) });
        Request::post("/v1/messages/count_tokens", &body).channel("c")
    };
    // As the model counts it: by the formula of its family, 3 for the answer, 3 for the message, its role, its words.
    let answer = gateway.send(&count("gpt-4o", 3)).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert_eq!(answer.json(), json!({ "input_tokens": 3 + 3 + 1 + 3 }));
    // More than a limit holds, and more than is counted at once.
    for n in [20_000, 300_000] {
        let answer = gateway.send(&count("gpt-4o", n)).await;
        assert_eq!(answer.json(), json!({ "input_tokens": 3 + 3 + 1 + n }));
    }
    let contents = json!([{ "role": "user", "parts": [{ "text": " hello the water" }] }]);
    for body in [
        json!({ "contents": contents }),
        json!({ "generateContentRequest": { "model": "models/gemini-flash", "contents": contents } }),
    ] {
        let request = Request::post("/v1beta/models/gemini-flash:countTokens", &body).channel("c");
        let answer = gateway.send(&request).await;
        assert_eq!(answer.status(), 200, "{}", answer.text());
        assert_eq!(answer.json(), json!({ "totalTokens": 1 + 1 + 3 }), "{body}");
    }
    let unknown = gateway.send(&count("gpt-4oo", 3)).await;
    assert_eq!(unknown.status(), 404);
    let denied = gateway.send(&count("secret-gpt", 3)).await;
    assert_eq!(denied.status(), 403, "{}", denied.text());
    gateway.wait_idle().await;
    assert_eq!(
        far.stats().total().requests + gateway.mock.stats().total().requests,
        0
    );
    assert_eq!(gateway.used("c", "r").await, 5);
    assert_eq!(gateway.used("c", "t").await, 0);
    gateway.stop().await;
}

#[tokio::test]
async fn requests_to_count_are_limited_as_requests() {
    let documents = Documents::new().model("m", "mock?tokens=3").limited(
        "c",
        json!([{ "name": "r", "metric": "requests", "max": 2, "window": "10m" }]),
    );
    let gateway = Gateway::with(documents).start().await;
    let body = json!({ "model": "m", "messages": words(1) });
    let request = Request::post("/v1/messages/count_tokens", &body).channel("c");
    for status in [200, 200, 429] {
        assert_eq!(gateway.send(&request).await.status(), status);
    }
    gateway.stop().await;
}

#[tokio::test]
async fn other_paths_are_passed_on_within_the_limits_of_requests_and_connections() {
    let documents = Documents::new()
        .model("files", "mock")
        .rule(
            json!({ "name": "files", "when": { "field": "path", "op": "matches", "value": "/v1/files*" },
            "then": { "set_model": "files" } }),
        )
        .limited(
            "c",
            json!([{ "name": "r", "metric": "requests", "max": 4, "window": "10m" },
                { "name": "t", "metric": "total_tokens", "max": 10, "window": "10m" },
                { "name": "n", "metric": "connections", "max": 1 }]),
        );
    let gateway = Gateway::with(documents).start().await;
    let upload =
        b"--x\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\nnot json\r\n--x--\r\n".to_vec();
    for (request, target) in [
        (get("/v1/files/abc?limit=2"), "/v1/files/abc?limit=2"),
        (
            Request::new("DELETE", "/v1/files/abc").channel("c"),
            "/v1/files/abc",
        ),
        (
            Request::post_bytes("/v1/files", upload.clone())
                .header("Content-Type", "multipart/form-data; boundary=x")
                .channel("c"),
            "/v1/files",
        ),
        // Without a rule the query may name the model.
        (
            get("/v1/audio/voices?model=files"),
            "/v1/audio/voices?model=files",
        ),
    ] {
        let answer = gateway.send(&request).await;
        // The mock knows no such path, and says so itself.
        assert_eq!(answer.status(), 404, "{target} {}", answer.text());
        assert!(answer.text().contains("no such path"), "{}", answer.text());
        let record = gateway.mock.stats().last().unwrap();
        assert_eq!(record.target, target);
        assert_eq!(record.header("channelcode"), None);
        if target == "/v1/files" {
            assert_eq!(record.body, upload);
        }
        gateway.wait_idle().await;
    }
    let answer = gateway.send(&get("/v1/files/abc")).await;
    assert_eq!(answer.status(), 429, "{}", answer.text());
    // Nobody said which provider this is for.
    let answer = gateway.send(&get("/v1/batches")).await;
    assert_eq!(error(&answer, 400)["code"], "model_required");
    gateway.wait_idle().await;
    assert_eq!(gateway.used("c", "t").await, 0);
    gateway.stop().await;
}
