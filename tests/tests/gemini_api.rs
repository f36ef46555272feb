//! Clients of Gemini's own API: the model in the path, streams as events and as arrays, keys in the query.

use serde_json::{Value, json};
use tollgate_tests::access;
use tollgate_tests::documents::Documents;
use tollgate_tests::gateway::Gateway;
use tollgate_tests::http::{Request, Response};
use tollgate_tests::mock::{MockLlm, words};

/// `sha256("sk-client")`.
const KEY: &str = "sk-client";
const KEY_SHA256: &str = "9317152c7ce9662afd2deb4078472692a4d84040d09f9c3d2b2d3688f057c7de";
const UPSTREAM_KEY: &str = "AIza-of-the-gateway";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Whole,
    Events,
    Array,
}

const FORMS: [Form; 3] = [Form::Whole, Form::Events, Form::Array];

fn documents(google: &MockLlm, options: &str, limits: &Value) -> Documents {
    Documents::new()
        .provider(json!({ "id": "google", "protocol": "gemini", "base_url": google.url(),
            "credentials": { "type": "header", "name": "x-goog-api-key", "key": UPSTREAM_KEY } }))
        .model_value(json!({ "name": "flash", "tokenizer": "o200k_base",
            "deployments": [{ "provider": "google", "upstream_model": format!("gemini-2.5-flash?{options}") }] }))
        .openai("open", &google.url())
        .model_value(json!({ "name": "gpt", "deployments": [{ "provider": "open" }] }))
        .limited("c", limits.clone())
}

fn limits(output: u64) -> Value {
    json!([{ "name": "in", "metric": "input_tokens", "max": 100_000, "window": "10m" },
        { "name": "out", "metric": "output_tokens", "max": output, "window": "10m" }])
}

async fn serving(options: &str, output: u64) -> (Gateway, MockLlm) {
    let google = MockLlm::start().await;
    let documents = documents(&google, options, &limits(output));
    (Gateway::with(documents).start().await, google)
}

fn body() -> Value {
    json!({ "contents": [{ "role": "user", "parts": [{ "text": " hello the water" }] }],
        "generationConfig": { "temperature": 0.5, "maxOutputTokens": 40 } })
}

fn ask(form: Form, model: &str, body: &Value) -> Request {
    let method = match form {
        Form::Whole => "generateContent",
        Form::Events => "streamGenerateContent?alt=sse",
        Form::Array => "streamGenerateContent",
    };
    Request::post(&format!("/v1beta/models/{model}:{method}"), body).channel("c")
}

/// The `GenerateContentResponse`s of an answer.
fn responses(form: Form, answer: &Response) -> Vec<Value> {
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let kind = answer.header("content-type").unwrap_or_default();
    assert_eq!(
        kind.starts_with("text/event-stream"),
        form == Form::Events,
        "{kind}"
    );
    match form {
        Form::Whole => vec![answer.json()],
        Form::Events => answer.events().iter().map(|event| event.json()).collect(),
        Form::Array => answer.json().as_array().expect("an array").clone(),
    }
}

fn text(responses: &[Value]) -> String {
    responses
        .iter()
        .filter_map(|response| response["candidates"][0]["content"]["parts"][0]["text"].as_str())
        .collect()
}

fn finish(responses: &[Value]) -> &str {
    let last = responses.last().expect("a response");
    last["candidates"][0]["finishReason"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn every_form_is_passed_on_under_the_upstreams_name_and_charged_as_served() {
    let (gateway, google) = serving("tokens=7", 1_000).await;
    for (count, form) in FORMS.into_iter().enumerate() {
        let answer = gateway.send(&ask(form, "flash", &body())).await;
        let all = responses(form, &answer);
        assert_eq!(text(&all), words::text(0, 7), "{form:?} {}", answer.text());
        assert_eq!(finish(&all), "STOP");
        let used = &all.last().unwrap()["usageMetadata"];
        assert_eq!(used["candidatesTokenCount"], 7, "{form:?} {used}");
        let record = google.stats().last().unwrap();
        let method = if form == Form::Whole {
            "generateContent"
        } else {
            "streamGenerateContent?alt=sse"
        };
        assert_eq!(
            record.target,
            format!("/v1beta/models/gemini-2.5-flash%3Ftokens%3D7:{method}")
        );
        assert_eq!(record.header("x-goog-api-key"), Some(UPSTREAM_KEY));
        assert_eq!(record.header("channelcode"), None);
        assert_eq!(record.json().unwrap(), body(), "{form:?}");
        let entries = access::entries(&gateway.nginx, "c", count + 1).await;
        let served = google.stats().total();
        let input = served.prompt_tokens / served.requests;
        assert_eq!(
            entries.last().unwrap().charged(),
            (input, 7, "upstream"),
            "{form:?}"
        );
        assert_eq!(entries.last().unwrap().get("model"), "flash");
    }
    gateway.wait_idle().await;
    let served = google.stats().total();
    assert_eq!(gateway.used("c", "in").await, served.prompt_tokens);
    assert_eq!(gateway.used("c", "out").await, served.completion_tokens);
    gateway.stop().await;
}

#[tokio::test]
async fn the_maximum_is_lowered_or_added_where_gemini_has_it() {
    let (gateway, google) = serving("tokens=60", 20).await;
    for config in [
        None,
        Some(json!({})),
        Some(Value::Null),
        Some(json!({ "maxOutputTokens": 500 })),
        Some(json!({ "temperature": 1 })),
        Some(json!({ "max_output_tokens": 500, "temperature": 1 })),
        Some(json!({ "maxOutputTokens": null })),
    ] {
        let mut body = json!({ "contents": [{ "parts": [{ "text": " hello" }] }] });
        if let Some(config) = &config {
            body["generationConfig"] = config.clone();
        }
        let answer = gateway.send(&ask(Form::Whole, "flash", &body)).await;
        assert_eq!(answer.status(), 200, "{config:?} {}", answer.text());
        let sent = google.stats().last().unwrap().json().unwrap();
        let sent = &sent["generationConfig"];
        let most = sent["maxOutputTokens"]
            .as_u64()
            .or(sent["max_output_tokens"].as_u64());
        assert_eq!(most, Some(20), "{config:?} became {sent}");
        let temperature = config.as_ref().map_or(Value::Null, |c| c["temperature"].clone());
        assert_eq!(sent["temperature"], temperature);
        gateway.wait_idle().await;
        gateway.advance(std::time::Duration::from_secs(1_300));
    }
    for (twice, message) in [
        (
            r#"{"contents":[],"generationConfig":{},"generation_config":{}}"#,
            "generation",
        ),
        (
            r#"{"contents":[],"generationConfig":{"maxOutputTokens":1,"max_output_tokens":2}}"#,
            "",
        ),
        (r#"{"contents":[],"generationConfig":{"maxOutputTokens":-1}}"#, ""),
    ] {
        let target = "/v1beta/models/flash:generateContent";
        let request = Request::post_bytes(target, twice.as_bytes().to_vec()).channel("c");
        let answer = gateway.send(&request).await;
        assert_eq!(answer.status(), 400, "{twice} {message}");
        assert_eq!(answer.json()["error"]["status"], "INVALID_ARGUMENT");
    }
    gateway.stop().await;
}

#[tokio::test]
async fn a_stream_ends_at_its_reservation_in_geminis_shape() {
    for form in [Form::Events, Form::Array] {
        let (gateway, google) = serving("tokens=60&ignore_max=yes", 20).await;
        let answer = gateway.send(&ask(form, "flash", &body())).await;
        let all = responses(form, &answer);
        assert_eq!(text(&all), words::text(0, 20), "{form:?} {}", answer.text());
        assert_eq!(finish(&all), "MAX_TOKENS", "{form:?} {}", answer.text());
        let used = &all.last().unwrap()["usageMetadata"];
        assert_eq!(used["candidatesTokenCount"], 20, "{used}");
        let sent = google.stats().last().unwrap().json().unwrap();
        assert_eq!(sent["generationConfig"]["maxOutputTokens"], 20);
        gateway.wait_idle().await;
        assert_eq!(gateway.used("c", "out").await, 20);
        gateway.stop().await;
    }
}

#[tokio::test]
async fn a_stream_cut_anywhere_says_the_same() {
    for form in [Form::Events, Form::Array] {
        let (gateway, _google) = serving("tokens=30&split=1..9&eol=crlf", 1_000).await;
        let answer = gateway.send(&ask(form, "flash", &body())).await;
        let all = responses(form, &answer);
        assert_eq!(text(&all), words::text(0, 30), "{form:?} {}", answer.text());
        gateway.stop().await;
    }
}

#[tokio::test]
async fn a_death_in_mid_answer_is_told_in_geminis_shape() {
    for form in [Form::Events, Form::Array] {
        for fault in ["close=mid", "reset=mid"] {
            let (gateway, google) = serving(&format!("tokens=20&{fault}"), 1_000).await;
            let answer = gateway.send(&ask(form, "flash", &body())).await;
            let all = responses(form, &answer);
            let last = all.last().expect("a response");
            assert_eq!(last["error"]["code"], 502, "{form:?} {fault} {}", answer.text());
            assert!(last["error"]["message"].is_string());
            gateway.wait_idle().await;
            let served = google.stats().total().completion_tokens;
            let charged = gateway.used("c", "out").await;
            assert!(charged > 0 && charged <= served, "{fault}: {charged} of {served}");
            gateway.stop().await;
        }
    }
}

fn assert_google(answer: &Response, status: u16, word: &str, reason: &str) {
    assert_eq!(answer.status(), status, "{}", answer.text());
    let error = &answer.json()["error"];
    assert_eq!((&error["code"], &error["status"]), (&json!(status), &json!(word)));
    assert_eq!(error["details"][0]["reason"], reason, "{error}");
}

#[tokio::test]
async fn errors_have_googles_shape() {
    let (gateway, _google) = serving("tokens=5", 1_000).await;
    let answer = gateway.send(&ask(Form::Whole, "flsh", &body())).await;
    assert_google(&answer, 404, "NOT_FOUND", "model_not_found");
    assert!(
        answer.text().contains("did you mean \\\"flash\\\"?"),
        "{}",
        answer.text()
    );
    let stranger = Request::post("/v1beta/models/flash:generateContent", &body());
    let answer = gateway.send(&stranger).await;
    assert_google(&answer, 401, "UNAUTHENTICATED", "channel_required");
    let answer = gateway.send(&ask(Form::Whole, "gpt", &body())).await;
    assert_google(&answer, 400, "INVALID_ARGUMENT", "api_not_served");
    let huge = ask(
        Form::Whole,
        "flash",
        &json!({ "contents": [{ "parts": [{ "text": " hello".repeat(200_000) }] }] }),
    );
    let answer = gateway.send(&huge).await;
    assert_google(&answer, 429, "RESOURCE_EXHAUSTED", "rate_limit_exceeded");
    gateway.wait_idle().await;
    gateway.stop().await;
}

#[tokio::test]
async fn a_key_may_stand_in_header_or_query_and_goes_no_further() {
    let google = MockLlm::start().await;
    let documents = documents(&google, "tokens=5", &json!([]))
        .setting("channel_source", json!([{ "api_key": true }]))
        .channel(json!({ "code": "keyed", "keys": [{ "id": "k", "sha256": KEY_SHA256 }] }));
    let gateway = Gateway::with(documents).start().await;
    let target = "/v1beta/models/flash:streamGenerateContent";
    for (request, alt) in [
        (
            Request::post(&format!("{target}?alt=sse"), &body()).header("x-goog-api-key", KEY),
            "sse",
        ),
        (
            Request::post(&format!("{target}?alt=sse&key={KEY}"), &body()),
            "sse",
        ),
        (
            Request::post(&format!("{target}?key={KEY}&prettyPrint=false"), &body()),
            "json",
        ),
    ] {
        let answer = gateway.send(&request).await;
        assert_eq!(answer.status(), 200, "{}", answer.text());
        let record = google.stats().last().unwrap();
        assert!(!record.target.contains("key"), "{}", record.target);
        assert!(record.target.contains("?alt=sse"), "{}", record.target);
        assert_eq!(record.target.contains("prettyPrint=false"), alt == "json");
        assert_eq!(record.header("x-goog-api-key"), Some(UPSTREAM_KEY));
        assert!(!format!("{record:?}").contains(KEY));
    }
    for request in [
        Request::post(&format!("{target}?key=wrong"), &body()),
        // Only Gemini's API has its key there.
        Request::post(
            &format!("/v1/chat/completions?key={KEY}"),
            &json!({ "model": "gpt", "messages": [] }),
        ),
    ] {
        assert_eq!(gateway.send(&request).await.status(), 401);
    }
    gateway.stop().await;
}

#[tokio::test]
async fn an_attempt_that_fails_moves_to_the_next_deployment_under_its_name() {
    let (first, second) = (MockLlm::start().await, MockLlm::start().await);
    let provider =
        |id: &str, mock: &MockLlm| json!({ "id": id, "protocol": "gemini", "base_url": mock.url() });
    let documents = Documents::new()
        .provider(provider("a", &first))
        .provider(provider("b", &second))
        .model_value(
            json!({ "name": "flash", "routing": { "balance": "round_robin" }, "deployments": [
            { "provider": "a", "upstream_model": "one?status=503" },
            { "provider": "b", "upstream_model": "two?tokens=5" }] }),
        )
        .limited("c", limits(1_000));
    let gateway = Gateway::with(documents).start().await;
    for form in FORMS {
        for _ in 0..2 {
            let answer = gateway.send(&ask(form, "flash", &body())).await;
            let all = responses(form, &answer);
            assert_eq!(text(&all), words::text(0, 5), "{form:?} {}", answer.text());
            let target = second.stats().last().unwrap().target;
            assert!(target.starts_with("/v1beta/models/two%3Ftokens%3D5:"), "{target}");
            assert_eq!(
                target.matches("alt=").count(),
                usize::from(form != Form::Whole),
                "{target}"
            );
        }
    }
    assert!(first.stats().total().requests > 0);
    gateway.stop().await;
}
