//! Money: the bill is what was served times the price, whatever happens; limits of it are as strict as those of tokens.

use serde_json::{Value, json};
use tollgate_tests::documents::Documents;
use tollgate_tests::gateway::Gateway;
use tollgate_tests::http::{Connection, Request};
use tollgate_tests::mock::MockLlm;
use tollgate_tests::sse::SseReader;
use tollgate_tests::wait::{PATIENCE, wait_for, wait_until};

/// Millionths a token: what the channel pays, and what each provider takes.
const PRICE: (u64, u64) = (3, 15);
const COST_A: (u64, u64) = (1, 4);
const COST_B: (u64, u64) = (2, 6);

fn price((input, output): (u64, u64)) -> Value {
    json!({ "input": input, "output": output.to_string() })
}

/// Two deployments at two providers, in turn.
fn documents(a: &MockLlm, b: &MockLlm, limits: Value) -> Documents {
    Documents::new()
        .openai("a", &a.url())
        .openai("b", &b.url())
        .model_value(
            json!({ "name": "m", "tokenizer": "o200k_base", "price": price(PRICE),
            "routing": { "balance": "round_robin" }, "deployments": [
                { "id": "at-a", "provider": "a", "upstream_model": "mock", "cost": price(COST_A) },
                { "id": "at-b", "provider": "b", "upstream_model": "mock", "cost": price(COST_B) }] }),
        )
        .limited("c", limits)
}

fn hello(stream: bool, mock: Value) -> Request {
    Request::chat("m", " hello the water")
        .channel("c")
        .set("max_tokens", 100)
        .set("stream", stream)
        .set("mock", mock)
}

/// What the mocks have served, at these prices.
fn worth(mocks: [(&MockLlm, (u64, u64)); 2]) -> u64 {
    mocks
        .into_iter()
        .flat_map(|(mock, price)| {
            mock.stats()
                .records()
                .into_iter()
                .map(move |record| (record, price))
        })
        .map(|(record, (input, output))| record.prompt_tokens * input + record.completion_tokens * output)
        .sum()
}

/// The ledger's totals, once it has so many requests.
async fn booked(gateway: &Gateway, requests: u64) -> Value {
    wait_for("the ledger", PATIENCE, || async {
        let usage = gateway.daemon.get("/usage?step=0&channel=c").await["total"].clone();
        (usage["requests"] == requests).then_some(usage)
    })
    .await
}

/// Reads so many texts of a stream that then falls silent, and leaves.
async fn leave_after(gateway: &Gateway, texts: usize) {
    let request = hello(true, json!({ "tokens": 80, "hang": "mid", "at": texts + 1 }));
    let mut connection = Connection::open(gateway.address()).await.unwrap();
    assert_eq!(connection.send(&request).await.unwrap().status, 200);
    let mut reader = SseReader::default();
    let mut read = 0;
    while read < texts {
        let piece = connection.piece().await.unwrap().expect("more");
        let texts = reader.feed(&piece).into_iter().filter(|event| {
            let content = &event.json()["choices"][0]["delta"]["content"];
            content.as_str().is_some_and(|text| !text.is_empty())
        });
        read += texts.count();
    }
}

#[tokio::test]
async fn bill_and_cost_are_what_was_served_times_the_prices_under_failover_and_aborts() {
    let (a, b) = (MockLlm::start().await, MockLlm::start().await);
    let limits = json!([{ "name": "money", "metric": "cost", "max": 10_000_000, "window": "10m" }]);
    let gateway = Gateway::with(documents(&a, &b, limits)).workers(2).start().await;
    let mut requests = 0;
    for round in 0..10 {
        for stream in [false, true] {
            let answer = gateway.send(&hello(stream, json!({ "tokens": 7 + round }))).await;
            assert_eq!(answer.status(), 200, "{}", answer.text());
            requests += 1;
        }
        // Nobody can serve it, and nobody is paid.
        if round == 4 {
            assert_eq!(
                gateway
                    .send(&hello(false, json!({ "status": 400 })))
                    .await
                    .status(),
                400
            );
            requests += 1;
        }
    }
    for texts in [1, 12, 25] {
        leave_after(&gateway, texts).await;
        requests += 1;
    }
    wait_until("the mocks to notice", PATIENCE, || {
        a.stats().total().in_flight + b.stats().total().in_flight == 0
    })
    .await;
    gateway.wait_idle().await;
    let usage = booked(&gateway, requests).await;
    let bill = worth([(&a, PRICE), (&b, PRICE)]);
    assert_eq!(usage["bill_micro"], bill, "{usage}");
    assert_eq!(
        usage["cost_micro"],
        worth([(&a, COST_A), (&b, COST_B)]),
        "{usage}"
    );
    assert_eq!(gateway.used("c", "money").await, bill);
    assert!(a.stats().total().requests > 5 && b.stats().total().requests > 5);
    gateway.stop().await;
}

#[tokio::test]
async fn a_request_that_moves_is_billed_once_and_paid_where_it_was_served() {
    let (a, b) = (MockLlm::start().await, MockLlm::start().await);
    let documents = Documents::new()
        .openai("a", &a.url())
        .openai("b", &b.url())
        .model_value(json!({ "name": "m", "tokenizer": "o200k_base", "price": price(PRICE),
            "routing": { "balance": "round_robin" }, "deployments": [
                { "id": "at-a", "provider": "a", "upstream_model": "mock?status=503", "cost": price(COST_A) },
                { "id": "at-b", "provider": "b", "upstream_model": "mock?tokens=9", "cost": price(COST_B) }] }))
        .limited("c", json!([]));
    let gateway = Gateway::with(documents).start().await;
    for _ in 0..6 {
        let answer = gateway.send(&Request::chat("m", " hello").channel("c")).await;
        assert_eq!(answer.status(), 200, "{}", answer.text());
    }
    let usage = booked(&gateway, 6).await;
    let served = b.stats().total();
    let at = |(input, output): (u64, u64)| served.prompt_tokens * input + served.completion_tokens * output;
    assert_eq!(
        (&usage["bill_micro"], &usage["cost_micro"]),
        (&json!(at(PRICE)), &json!(at(COST_B)))
    );
    let log = gateway.daemon.get("/requests?limit=10&channel=c").await;
    let lines = log["requests"]
        .as_array()
        .unwrap_or_else(|| panic!("no requests in {log}"));
    assert_eq!(lines.len(), 6);
    for line in lines {
        assert_eq!(line["bill_micro"], at(PRICE) / 6, "{line}");
        assert_eq!(line["cost_micro"], at(COST_B) / 6);
        assert_eq!(
            (
                line["price"].as_str().unwrap().len(),
                line["cost_price"].as_str().unwrap().len()
            ),
            (6, 6)
        );
        assert_ne!(line["price"], line["cost_price"]);
    }
    assert!(lines.iter().any(|line| line["attempts"] == 2), "{log}");
    gateway.stop().await;
}

#[tokio::test]
async fn a_limit_of_money_is_strict_clamps_the_output_and_says_what_is_left() {
    let (a, b) = (MockLlm::start().await, MockLlm::start().await);
    let limits = json!([{ "name": "money", "metric": "cost", "max": 1_000, "window": "10m" }]);
    let gateway = Gateway::with(documents(&a, &b, limits)).start().await;
    // More than the money buys: (1,000 - 10 × 3) / 15 = 64 tokens.
    let answer = gateway.send(&hello(true, json!({ "tokens": 90 }))).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let record = [&a, &b]
        .into_iter()
        .find_map(|mock| mock.stats().last())
        .expect("a record");
    let input = record.prompt_tokens;
    let bought = (1_000 - input * PRICE.0) / PRICE.1;
    assert_eq!(record.json().unwrap()["max_tokens"], bought);
    assert_eq!(record.completion_tokens, bought);
    gateway.wait_idle().await;
    let used = input * PRICE.0 + bought * PRICE.1;
    assert_eq!(gateway.used("c", "money").await, used);
    let answer = gateway.send(&hello(false, json!({ "tokens": 5 }))).await;
    assert_eq!(answer.status(), 429, "{}", answer.text());
    assert_eq!(answer.header("x-ratelimit-limit-cost"), Some("1000"));
    assert_eq!(
        answer.header("x-ratelimit-remaining-cost"),
        Some(&*(1_000 - used).to_string())
    );
    assert!(answer.text().contains("money"), "{}", answer.text());
    gateway.stop().await;
}

#[tokio::test]
async fn many_at_once_never_spend_more_than_there_is() {
    let (a, b) = (MockLlm::start().await, MockLlm::start().await);
    let limits = json!([{ "name": "money", "metric": "cost", "max": 20_000, "window": "10m" }]);
    let gateway = Gateway::with(documents(&a, &b, limits)).workers(2).start().await;
    let mut statuses = Vec::new();
    let mut running = tokio::task::JoinSet::new();
    for n in 0..60 {
        let address = gateway.address();
        let request = hello(n % 2 == 0, json!({ "tokens": 50 }));
        running.spawn(async move {
            tollgate_tests::http::send(address, &request)
                .await
                .unwrap()
                .status()
        });
    }
    while let Some(status) = running.join_next().await {
        statuses.push(status.unwrap());
    }
    gateway.wait_idle().await;
    let spent = worth([(&a, PRICE), (&b, PRICE)]);
    assert!(spent <= 20_000, "{spent}");
    assert_eq!(gateway.used("c", "money").await, spent);
    assert!(statuses.contains(&200) && statuses.contains(&429), "{statuses:?}");
    gateway.stop().await;
}

#[tokio::test]
async fn each_attempt_that_another_one_followed_has_a_line_with_what_its_provider_may_take() {
    let (a, b) = (MockLlm::start().await, MockLlm::start().await);
    let model = |name: &str, first: &str, patience: &str| {
        json!({ "name": name, "tokenizer": "o200k_base", "price": price(PRICE),
            "routing": { "balance": "weighted" }, "timeouts": { "first_token": patience }, "deployments": [
                { "id": format!("{name}-a"), "provider": "a", "upstream_model": first, "weight": 1_000, "cost": price(COST_A) },
                { "id": format!("{name}-b"), "provider": "b", "upstream_model": "mock?tokens=9", "weight": 1, "cost": price(COST_B) }] })
    };
    let documents = Documents::new()
        .openai("a", &a.url())
        .openai("b", &b.url())
        .model_value(model("refuses", "mock?status=503", "30s"))
        .model_value(model("hangs", "mock?hang=before", "2s"))
        .limited("c", json!([]));
    let gateway = Gateway::with(documents).start().await;
    let input = 8;
    for (name, status, class, source) in [
        ("refuses", 503, "upstream", "none"),
        ("hangs", 0, "timeout", "estimated"),
    ] {
        // The first deployment is asked first in 1,000 of 1,001 requests.
        let lines = wait_for("an attempt", PATIENCE, || async {
            let answer = gateway.send(&Request::chat(name, " hello").channel("c")).await;
            assert_eq!(answer.status(), 200, "{}", answer.text());
            let id = answer.header("x-request-id").expect("a request id").to_owned();
            let lines = wait_for("its line", PATIENCE, || async {
                let log = gateway.daemon.get(&format!("/requests?id={id}")).await;
                log["requests"]
                    .as_array()
                    .filter(|lines| !lines.is_empty())
                    .cloned()
            })
            .await;
            (lines.len() == 2).then_some(lines)
        })
        .await;
        let [request, attempt] = lines.try_into().expect("two lines");
        assert_eq!(
            (&request["attempts"], &attempt["attempts"]),
            (&json!(2), &json!(1))
        );
        assert_eq!(
            (&*request["flags"].to_string(), &attempt["flags"]),
            ("\"\"", &json!("attempt"))
        );
        assert_eq!(request["deployment"], format!("{name}-b"));
        assert_eq!(attempt["deployment"], format!("{name}-a"));
        // A provider that took the request and said nothing may take money for its input, of which the bound is known.
        let bound = attempt["input_tokens"].as_u64().expect("a number");
        assert!(
            if source == "none" {
                bound == 0
            } else {
                bound >= input
            },
            "{attempt}"
        );
        let cost = bound * COST_A.0;
        let told = ["status", "class", "source", "cost_micro", "bill_micro"].map(|field| &attempt[field]);
        assert_eq!(
            told,
            [
                &json!(status),
                &json!(class),
                &json!(source),
                &json!(cost),
                &json!(0)
            ],
            "{attempt}"
        );
        assert_eq!(request["cost_micro"], input * COST_B.0 + 9 * COST_B.1);
    }
    // They are in no sum and in no ordinary page of the log.
    let log = gateway.daemon.get("/requests?limit=100&channel=c").await;
    let lines = log["requests"].as_array().expect("requests");
    assert!(lines.iter().all(|line| line["flags"] == ""), "{log}");
    let usage = booked(&gateway, lines.len() as u64).await;
    assert_eq!(
        usage["cost_micro"].as_u64(),
        lines.iter().map(|line| line["cost_micro"].as_u64()).sum()
    );
    gateway.stop().await;
}
