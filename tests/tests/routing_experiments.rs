//! Experiments: who is in which group, what becomes of it, and who learns of it.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use tollgate_tests::access;
use tollgate_tests::documents::Documents;
use tollgate_tests::gateway::Gateway;
use tollgate_tests::http::{Request, Response};
use tollgate_tests::wait::{PATIENCE, wait_for};

const USERS: usize = 400;

/// `d0` serves everybody, `d1` nobody but those who are sent to it.
fn documents(groups: &Value) -> Documents {
    Documents::new()
        .model_value(json!({
            "name": "m",
            "deployments": [
                { "id": "d0", "provider": "mock", "upstream_model": "d0?tokens=4", "version": "v0" },
                { "id": "d1", "provider": "mock", "upstream_model": "d1?tokens=8", "version": "v1", "weight": 0 } ],
            "experiment": { "name": "exp", "by": "header.x-user", "header": "X-Group", "groups": groups },
        }))
        .model_value(json!({ "name": "other", "deployments": [
            { "id": "o", "provider": "mock", "upstream_model": "o?tokens=6" } ] }))
        .limited("c", json!([{ "metric": "output_tokens", "max": 1_000_000, "window": "10m", "model": "other" }]))
        .channel(json!({ "code": "narrow", "trusted": true, "models": { "allow": ["m"] } }))
        .channel(json!({ "code": "routed", "trusted": true, "routes": [{ "model": "m", "version": "v0" }] }))
        .rule(json!({ "name": "testers", "when": { "field": "header.x-tester", "op": "exists" },
            "then": { "set_deployment": "d1" } }))
}

fn chat(user: usize) -> Request {
    Request::chat("m", " hello")
        .channel("c")
        .header("x-user", &format!("user {user}"))
}

/// The group that an answer says, and the deployment's name of the model.
fn seen(answer: &Response) -> (String, String) {
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let group = answer.header("x-group").unwrap_or_default().to_owned();
    (group, answer.model())
}

async fn groups(gateway: &Gateway) -> BTreeMap<usize, String> {
    let mut groups = BTreeMap::new();
    for user in 0..USERS {
        let (group, model) = seen(&gateway.send(&chat(user)).await);
        assert_eq!(model, if group == "exp=new" { "d1" } else { "d0" }, "{group}");
        groups.insert(user, group);
    }
    groups
}

async fn explained(gateway: &Gateway, request: &Value) -> Value {
    let request = Request::post("/api/v1/explain", request);
    gateway.daemon.api(request).await.json()["explanation"].clone()
}

#[tokio::test]
async fn callers_are_sorted_told_and_counted() {
    let shares = |each: f64| {
        json!([{ "name": "old", "share": each },
            { "name": "new", "share": each, "set_deployment": "d1" }])
    };
    let gateway = Gateway::with(documents(&shares(30.0))).workers(2).start().await;
    let first = groups(&gateway).await;
    assert_eq!(groups(&gateway).await, first, "callers stay");
    let count = |group: &str| first.values().filter(|g| *g == group).count();
    // Of 400: 120 ± 9.2; five standard deviations.
    for group in ["exp=old", "exp=new"] {
        assert!(count(group).abs_diff(120) < 46, "{group}: {}", count(group));
    }

    // The daemon sorts them likewise, and has their results.
    for user in 0..20 {
        let request = json!({ "headers": { "channelcode": "c", "x-user": format!("user {user}") },
            "body": { "model": "m", "messages": [{ "role": "user", "content": "x" }] } });
        let said = explained(&gateway, &request).await;
        let group = said["experiment"]["group"]
            .as_str()
            .map_or(String::new(), |g| format!("exp={g}"));
        assert_eq!(group, first[&user], "{said}");
        let chosen = usize::from(group == "exp=new");
        assert_eq!(said["deployments"][chosen]["share"], 1.0, "{said}");
    }
    let results = wait_for("all results", PATIENCE, || async {
        let answer = gateway.daemon.get("/experiments/exp").await;
        let sum: u64 = answer["groups"]
            .as_array()?
            .iter()
            .filter_map(|g| g["requests"].as_u64())
            .sum();
        (sum as usize == 2 * (count("exp=old") + count("exp=new"))).then_some(answer)
    })
    .await;
    // By version, what each deployment has served; by group, the same as above.
    for (by, name, wanted) in [
        (
            "version",
            "version",
            [
                ("v0", 2 * (USERS - count("exp=new"))),
                ("v1", 2 * count("exp=new")),
            ],
        ),
        (
            "group",
            "group",
            [("old", 2 * count("exp=old")), ("new", 2 * count("exp=new"))],
        ),
    ] {
        let path = format!("/usage/series?group_by={by}");
        wait_for("usage by version and group", PATIENCE, || async {
            let answer = gateway.daemon.get(&path).await;
            let requests = |of: &str| {
                let lines = answer["series"].as_array()?.iter();
                let mut lines = lines.filter(|line| line[name] == *of);
                lines.next()?["total"]["requests"].as_u64()
            };
            let all = wanted.iter().all(|(of, n)| requests(of) == Some(*n as u64));
            all.then_some(())
        })
        .await;
    }
    for (at, name, tokens, deployment) in [(0, "old", 4, "d0"), (1, "new", 8, "d1")] {
        let group = &results["groups"][at];
        let requests = 2 * count(&format!("exp={name}"));
        assert_eq!(
            (group["name"].as_str(), group["share"].as_f64()),
            (Some(name), Some(30.0))
        );
        assert_eq!(
            (&group["requests"], &group["ok"], &group["errors"]),
            (&json!(requests), &json!(requests), &json!(0))
        );
        assert_eq!(group["output_tokens"], tokens * requests);
        assert_eq!(group["latency"]["count"], requests);
        assert!(
            group["latency"]["p99_us"].as_u64() >= group["latency"]["p50_us"].as_u64(),
            "{group}"
        );
        let log = gateway
            .daemon
            .get(&format!("/requests?experiment=exp&group={name}&limit=1000"))
            .await;
        let lines = log["requests"].as_array().unwrap();
        assert_eq!(lines.len(), requests);
        assert!(
            lines
                .iter()
                .all(|l| l["group"] == name && l["deployment"] == deployment),
            "{}",
            lines[0]
        );
    }
    let all = gateway.daemon.get("/experiments").await;
    assert_eq!(all["experiments"][0]["groups"][1]["set_deployment"], "d1");
    assert_eq!(all["experiments"][0]["by"], "header.x-user");

    // Both grow: nobody changes sides.
    gateway.publish(documents(&shares(50.0))).await;
    for (user, group) in groups(&gateway).await {
        assert!(!group.is_empty());
        assert!(
            first[&user].is_empty() || first[&user] == group,
            "{user}: {} to {group}",
            first[&user]
        );
    }
    let entries = access::entries(&gateway.nginx, "c", 3 * USERS).await;
    let last = entries.last().unwrap();
    assert_eq!(last.get("experiment"), "exp");
    assert!(["old", "new"].contains(&last.get("group")));
    gateway.stop().await;
}

#[tokio::test]
async fn a_group_can_cap_tokens_and_go_on_with_another_model() {
    let groups = json!([{ "name": "short", "share": 50, "cap_max_tokens": 2 },
        { "name": "else", "share": 50, "set_model": "other" }]);
    let gateway = Gateway::with(documents(&groups)).start().await;
    let mut others = 0;
    for user in 0..40 {
        let answer = gateway.send(&chat(user)).await;
        let tokens = answer.json()["usage"]["completion_tokens"].clone();
        match seen(&answer) {
            (group, model) if group == "exp=short" => assert_eq!((&*model, tokens), ("d0", json!(2))),
            (group, model) => {
                others += 1;
                assert_eq!((&*group, &*model, tokens), ("exp=else", "o", json!(6)));
            }
        }
    }
    assert!((5..35).contains(&others), "{others}");
    gateway.wait_idle().await;
    // The limits are those of the model that it went on with.
    assert_eq!(gateway.used("c", "output_tokens/10m:other").await, 6 * others);
    // Who may not use all of its models takes no part.
    for user in 0..20 {
        let request = Request::chat("m", " hello")
            .channel("narrow")
            .header("x-user", &format!("user {user}"));
        assert_eq!(
            seen(&gateway.send(&request).await),
            (String::new(), "d0".to_owned())
        );
    }
    gateway.stop().await;
}

#[tokio::test]
async fn who_has_chosen_takes_no_part() {
    let groups = json!([{ "name": "all", "share": 100, "set_version": "v0" }]);
    let gateway = Gateway::with(documents(&groups)).start().await;
    assert_eq!(seen(&gateway.send(&chat(1)).await).0, "exp=all");
    let outside = [
        (
            Request::chat("m@v0", " hello").channel("c").header("x-user", "u"),
            "d0",
        ),
        (Request::chat("m", " hello").channel("c"), "d0"),
        (
            Request::chat("m", " hello")
                .channel("routed")
                .header("x-user", "u"),
            "d0",
        ),
        // Also where it has no weight.
        (chat(1).header("x-tester", "yes"), "d1"),
    ];
    for (request, model) in outside {
        let answer = seen(&gateway.send(&request).await);
        assert_eq!(answer, (String::new(), model.to_owned()), "{request:?}");
    }
    let chat = json!({ "model": "m", "messages": [{ "role": "user", "content": "x" }] });
    let said = explained(
        &gateway,
        &json!({ "headers": { "channelcode": "routed", "x-user": "u" }, "body": chat }),
    )
    .await;
    assert_eq!(said["experiment"]["group"], Value::Null);
    assert!(
        said["experiment"]["reason"]
            .as_str()
            .unwrap()
            .contains("has chosen"),
        "{said}"
    );
    let said = explained(
        &gateway,
        &json!({ "headers": { "channelcode": "c", "x-tester": "y" }, "body": chat }),
    )
    .await;
    assert_eq!(
        (&said["changes"]["deployment"], &said["deployments"][1]["share"]),
        (&json!("d1"), &json!(1.0))
    );
    gateway.stop().await;
}
