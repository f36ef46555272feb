//! What it costs to choose among fifty deployments, and to do all else that routing can do.

use crate::Plan;
use crate::gateways::{Bench, CHANNEL, Running};
use crate::generator::Order;
use crate::load::{self, Sample};
use crate::rounds::median;
use serde_json::{Value, json};
use std::time::Duration;
use tollgate_tests::documents::Documents;
use tollgate_tests::http::Request;

/// Deployments of the models that have many.
pub const DEPLOYMENTS: usize = 50;
/// Callers, by a header.
const USERS: usize = 200;
const CONNECTIONS: usize = 64;

/// The model with a single deployment, which the others are divided by.
pub const SINGLE: &str = "gpt-1x";
/// Its rivals: name, and what the table calls it.
pub const RIVALS: [(&str, &str); 4] = [
    ("gpt-50", "by weight"),
    ("gpt-ah", "by a header (affinity)"),
    (
        "gpt-ex",
        "by a header, callers sorted into an experiment's groups",
    ),
    ("gpt-qu", "the same, with a quota on each deployment"),
];

/// Medians over the rounds.
#[derive(Clone, Debug)]
pub struct Routed {
    /// What it is called.
    pub title: &'static str,
    /// CPU time of a request, microseconds.
    pub cpu: f64,
    /// CPU time ÷ that with a single deployment in the same round.
    pub ratio: f64,
}

/// The models of this part, all at the provider `fast`. Names are as long as one another, so that bodies are.
pub fn models(documents: Documents, limits: &Value) -> Documents {
    let deployments = |model: &str, count: usize, quota: &Value| -> Vec<Value> {
        let one = |number| {
            json!({ "id": format!("{model}/{number:02}"), "provider": "fast", "upstream_model": "gpt-4o",
                "version": if number % 2 == 0 { "even" } else { "odd" }, "limits": quota })
        };
        (0..count).map(one).collect()
    };
    let model = |name: &str, deployments: Vec<Value>| {
        json!({ "name": name, "tokenizer": "o200k_base", "default_max_tokens": 256, "limits": limits,
            "deployments": deployments })
    };
    let none = json!([]);
    let quota = json!([{ "metric": "requests", "max": 1_000_000_000, "window": "1m" }]);
    let mut documents = documents.model_value(model(SINGLE, deployments(SINGLE, 1, &none)));
    for (place, (name, _)) in RIVALS.iter().enumerate() {
        let quota = if place == 3 { &quota } else { &none };
        let mut value = model(name, deployments(name, DEPLOYMENTS, quota));
        if place > 0 {
            value["routing"] = json!({ "affinity": "header.x-user" });
        }
        if place > 1 {
            value["experiment"] = json!({ "name": format!("of-{name}"), "by": "header.x-user", "groups": [
                { "name": "control", "share": 50 }, { "name": "capped", "share": 50, "cap_max_tokens": 250 } ] });
        }
        documents = documents.model_value(value);
    }
    documents
}

/// A template's own routes: looked at for every model, and for none of this part's.
pub fn routes() -> Value {
    json!([{ "model": "tight", "weights": { "tight/mock": 1 } }, { "model": "claim", "fallback": [] }])
}

/// Measures the gateway that routes.
pub fn measure(bench: &Bench, running: &[Running], plan: &Plan) -> Vec<Routed> {
    let Some(gateway) = running.iter().find(|gateway| gateway.kind.is_tollgate()) else {
        return Vec::new();
    };
    let requests = |model: &str| -> Vec<Vec<u8>> {
        let body = String::from_utf8_lossy(&bench.unnamed).replace("gpt-4o", model);
        let of = |user| {
            Request::post_bytes("/v1/chat/completions", body.clone().into_bytes())
                .channel(CHANNEL)
                .header("x-user", &format!("user-{user:03}"))
                .to_bytes()
        };
        (0..USERS).map(of).collect()
    };
    let run = |model: &str| {
        let others = requests(model);
        let time = Duration::from_secs(plan.seconds);
        let first = Order::of(gateway.nginx.address(), others[0].clone(), CONNECTIONS, time);
        let order = Order {
            others,
            every: 1,
            ..first
        };
        load::run(bench, gateway, order)
    };
    let names: Vec<&str> = std::iter::once(SINGLE)
        .chain(RIVALS.iter().map(|(name, _)| *name))
        .collect();
    // Every connection to every deployment is there before time is taken.
    for name in &names {
        run(name);
    }
    let mut rounds: Vec<Vec<Sample>> = Vec::new();
    for round in 1..=plan.rounds {
        eprintln!("bench: routing, round {round} of {}", plan.rounds);
        rounds.push(names.iter().map(|name| run(name)).collect());
    }
    let titles = std::iter::once("a single deployment").chain(RIVALS.iter().map(|(_, title)| *title));
    titles
        .enumerate()
        .map(|(at, title)| Routed {
            title,
            cpu: median(rounds.iter().map(|round| round[at].each())),
            ratio: median(rounds.iter().map(|round| round[at].each() / round[0].each())),
        })
        .collect()
}
