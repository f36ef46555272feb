//! What a choice costs, in instructions of a worker: they can be counted on a machine that is busy with other things.
//! Needs Valgrind: `cargo test -p tollgate-tests --profile fast --test routing_instructions -- --ignored --nocapture`.

use serde_json::{Value, json};
use tollgate_tests::documents::Documents;
use tollgate_tests::gateway::Gateway;
use tollgate_tests::http::{Connection, Request};

const DEPLOYMENTS: usize = 50;
const USERS: u64 = 200;

fn documents() -> Documents {
    let model = |name: &str, count: usize, routing: Value, experiment: Value| {
        let one = |number| json!({ "id": format!("{name}/{number:02}"), "provider": "mock", "upstream_model": "mock?tokens=1" });
        let deployments: Vec<Value> = (0..count).map(one).collect();
        let mut model = json!({ "name": name, "deployments": deployments, "routing": routing,
            "limits": [{ "metric": "total_tokens", "max": 1_000_000_000, "window": "10m" }] });
        if !experiment.is_null() {
            model["experiment"] = experiment;
        }
        model
    };
    let affinity = json!({ "affinity": "header.x-user" });
    let experiment = json!({ "name": "e", "by": "header.x-user", "groups": [
        { "name": "control", "share": 50 }, { "name": "capped", "share": 50, "cap_max_tokens": 250 } ] });
    Documents::new()
        .model_value(model("one", 1, json!({}), Value::Null))
        .model_value(model("wei", DEPLOYMENTS, json!({}), Value::Null))
        .model_value(model("aff", DEPLOYMENTS, affinity.clone(), Value::Null))
        .model_value(model("exp", DEPLOYMENTS, affinity, experiment))
        .model_value(model("ses", DEPLOYMENTS, json!({ "affinity": "session" }), Value::Null))
        .template(json!({ "name": "t", "routes": [{ "model": "other", "fallback": ["one"] }, { "model": "*", "fallback": [] }],
            "limits": [
                { "metric": "connections", "max": 1_000_000 },
                { "metric": "requests", "max": 1_000_000_000, "window": "10m" },
                { "metric": "input_tokens", "max": 1_000_000_000, "window": "10m" },
                { "metric": "output_tokens", "max": 1_000_000_000, "window": "10m" } ] }))
        .channel(json!({ "code": "c", "trusted": true, "extends": "t" }))
}

/// Instructions of the worker that has served so many requests.
async fn instructions(model: &str, requests: u64) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    let file = format!("--callgrind-out-file={}/out.%p", folder.path().display());
    let gateway = Gateway::with(documents())
        .nginx(|config| config.wrapper(&["valgrind", "-q", "--tool=callgrind", &file]))
        .start()
        .await;
    let mut connection = Connection::open(gateway.address()).await.unwrap();
    let mut cookie = String::new();
    for number in 0..requests {
        if !connection.is_reusable() {
            connection = Connection::open(gateway.address()).await.unwrap();
        }
        let request = Request::chat(model, " hello")
            .channel("c")
            .header("x-user", &format!("user-{:03}", number % USERS))
            .header("Cookie", &cookie);
        let answer = connection.exchange(&request).await.unwrap();
        assert_eq!(answer.status(), 200, "{}", answer.text());
        if let Some(line) = answer.header("set-cookie") {
            cookie = line.split(';').next().unwrap_or_default().to_owned();
        }
    }
    let worker = *gateway.nginx.workers().first().unwrap();
    gateway.stop().await;
    let out = std::fs::read_to_string(folder.path().join(format!("out.{worker}"))).unwrap();
    let total = out
        .lines()
        .find_map(|line| line.strip_prefix("totals: "))
        .unwrap();
    total.trim().parse().unwrap()
}

#[tokio::test]
#[ignore = "minutes under Valgrind"]
async fn fifty_deployments_cost_hardly_more_than_one() {
    let mut each = Vec::new();
    for model in ["one", "wei", "aff", "exp", "ses"] {
        // Both runs have been everywhere once; what they differ in is requests alone.
        let (few, many) = (600, 1_600);
        let cost =
            (instructions(model, many).await - instructions(model, few).await) as f64 / (many - few) as f64;
        println!("{model}: {cost:.0} instructions a request");
        each.push(cost);
    }
    // Of the worker's own instructions; what the kernel does for it comes on top and is the same for all.
    for ((model, most), cost) in [("wei", 1.03), ("aff", 1.03), ("exp", 1.04)]
        .iter()
        .zip(&each[1..])
    {
        let ratio = cost / each[0];
        println!("{model}: {ratio:.4} of a single deployment's");
        assert!(ratio <= *most, "{model}: {ratio}");
    }
}
