//! The daemon's own questions to providers: what it asks, what it makes of the answers, and whom it tells.

use serde_json::{Value, json};
use std::collections::BTreeSet;
use tollgate_shm::{Readiness, Region, Verdict};
use tollgate_tests::daemon::Daemon;
use tollgate_tests::documents::{Documents, PROVIDER_KEY};
use tollgate_tests::http::Request;
use tollgate_tests::mock::MockLlm;
use tollgate_tests::site::Site;
use tollgate_tests::wait::{PATIENCE, wait_for, wait_until};

/// One model with these deployments at one provider, which is probed as `check` says.
fn documents(url: &str, check: Option<&Value>, upstream_models: &[&str]) -> Documents {
    let deployments: Vec<Value> = upstream_models
        .iter()
        .enumerate()
        .map(|(i, name)| json!({ "id": format!("m/d{i}"), "provider": "p", "upstream_model": name }))
        .collect();
    let mut provider = json!({
        "id": "p", "protocol": "openai", "base_url": format!("{url}/v1"), "host_header": "p.example",
        "credentials": { "type": "bearer", "key": PROVIDER_KEY },
    });
    if let Some(check) = check {
        provider["health_check"] = check.clone();
    }
    Documents::new()
        .model_value(json!({ "name": "m", "deployments": deployments }))
        .provider(provider)
        .limited("c", json!([]))
}

fn models_check() -> Value {
    json!({ "path": "/v1/models", "interval": "1s", "unhealthy_after": 2, "healthy_after": 2 })
}

async fn start(documents: Documents) -> (Site, Daemon) {
    let site = Site::new();
    documents.write(&site);
    let daemon = Daemon::start(&site).await;
    (site, daemon)
}

async fn until_verdict(daemon: &Daemon, id: &str, verdict: &str) -> Value {
    wait_for(&format!("{id} to be {verdict}"), PATIENCE, || async {
        let state = daemon.get(&format!("/deployments/{id}")).await;
        let found = state["probe"]["verdict"].as_str().unwrap_or("none") == verdict;
        found.then_some(state)
    })
    .await
}

/// What workers see.
fn seen(site: &Site, id: &str) -> (Verdict, Readiness) {
    let region = Region::open(&site.region()).unwrap();
    let row = region
        .deployment(tollgate_policy::hash_name(id.as_bytes()))
        .unwrap();
    let view = region.deployment_view(row).unwrap();
    (view.verdict, region.deployment_readiness(row, region.now_ms()))
}

#[tokio::test]
async fn a_provider_that_goes_away_is_noticed_and_comes_back() {
    let mut mock = MockLlm::start().await;
    let (site, daemon) = start(documents(&mock.url(), Some(&models_check()), &["a", "b"])).await;
    for id in ["m/d0", "m/d1"] {
        until_verdict(&daemon, id, "healthy").await;
        assert_eq!(seen(&site, id), (Verdict::Healthy, Readiness::Ready));
    }
    let asked = mock.stats().last().unwrap();
    assert_eq!(
        (
            &*asked.method,
            &*asked.target,
            asked.header("host"),
            asked.header("authorization")
        ),
        (
            "GET",
            "/v1/models",
            Some("p.example"),
            Some(&*format!("Bearer {PROVIDER_KEY}"))
        )
    );

    mock.stop();
    let state = until_verdict(&daemon, "m/d0", "unhealthy").await;
    assert_eq!(state["state"], "unhealthy", "{state}");
    assert!(state["reason"].as_str().unwrap().contains("connect"), "{state}");
    for id in ["m/d0", "m/d1"] {
        assert_eq!(
            seen(&site, id),
            (Verdict::Unhealthy, Readiness::Unhealthy),
            "{id}"
        );
    }
    let metrics = daemon.api(Request::get("/metrics")).await.text();
    let series = "tollgate_deployment_healthy{deployment=\"m/d0\",model=\"m\",provider=\"p\"} 0";
    assert!(metrics.contains(series), "{metrics}");
    let trouble = daemon.get("/deployments?trouble=true").await;
    assert_eq!(
        (
            &trouble["total"],
            trouble["deployments"].as_array().unwrap().len()
        ),
        (&json!(2), 2)
    );
    let token = site.state().join("api.token");
    let address = format!("http://{}", daemon.address());
    let shown = Daemon::command(&[
        "status",
        "--url",
        &address,
        "--token-file",
        token.to_str().unwrap(),
    ]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned() + &String::from_utf8_lossy(&shown.stderr);
    assert!(
        shown.contains("2 of 2 in trouble") && shown.contains("m/d1 unhealthy: "),
        "{shown}"
    );

    let _mock = MockLlm::start_on(mock.address().port()).await;
    until_verdict(&daemon, "m/d1", "healthy").await;
    assert_eq!(seen(&site, "m/d0"), (Verdict::Healthy, Readiness::Ready));
    for path in ["/deployments/m/d0/history", "/deployments/m%2Fd0/history"] {
        let answer = daemon.get(path).await;
        let history = answer["history"].as_array().unwrap();
        let outcomes: BTreeSet<&str> = history.iter().filter_map(|e| e["outcome"].as_str()).collect();
        assert_eq!(outcomes, BTreeSet::from(["failed", "passed"]), "{answer}");
        assert!(history.iter().all(|e| e["kind"] == "http"), "{answer}");
        assert!(
            history
                .windows(2)
                .all(|two| two[0]["at_ms"].as_u64() <= two[1]["at_ms"].as_u64()),
            "{answer}"
        );
    }
    // One line a change, whatever the number of probes and deployments; and never the credential.
    let log = daemon.log();
    let lines = |what: &str| log.lines().filter(|line| line.contains(what)).count();
    assert_eq!((lines(" unhealthy: "), lines(" healthy: ")), (1, 2), "{log}");
    let everything = log.clone() + &daemon.get("/deployments").await.to_string();
    assert!(!everything.contains(PROVIDER_KEY));
}

#[tokio::test]
async fn edits_apply_at_once_and_what_is_not_probed_is_unknown() {
    let mock = MockLlm::start().await;
    let with = |check: Option<Value>| documents(&mock.url(), check.as_ref(), &["a"]);
    // The mock knows no such path.
    let mut check = models_check();
    check["path"] = json!("/nothing");
    let (site, daemon) = start(with(Some(check.clone()))).await;
    let state = until_verdict(&daemon, "m/d0", "unhealthy").await;
    assert!(
        state["reason"].as_str().unwrap().contains("status 404"),
        "{state}"
    );

    check["expected_status"] = json!(["200-299", 404]);
    with(Some(check.clone())).write(&site);
    until_verdict(&daemon, "m/d0", "healthy").await;

    check["body_contains"] = json!("a text that stands nowhere");
    with(Some(check)).write(&site);
    let state = until_verdict(&daemon, "m/d0", "unhealthy").await;
    assert!(
        state["reason"].as_str().unwrap().contains("expected text"),
        "{state}"
    );

    with(Some(
        json!({ "type": "tcp", "interval": "1s", "healthy_after": 1 }),
    ))
    .write(&site);
    until_verdict(&daemon, "m/d0", "healthy").await;

    with(None).write(&site);
    until_verdict(&daemon, "m/d0", "none").await;
    wait_until("the verdict to be unknown", PATIENCE, || {
        seen(&site, "m/d0") == (Verdict::Unknown, Readiness::Ready)
    })
    .await;
    let history = daemon.get("/deployments/m/d0/history").await;
    assert_eq!(
        (&history["probed"], &history["history"]),
        (&json!(false), &json!([]))
    );
}

#[tokio::test]
async fn completions_are_per_deployment_spaced_and_nobodys_usage() {
    let mock = MockLlm::start().await;
    let check = json!({ "type": "completion", "interval": "1s", "max_per_minute": 60, "unhealthy_after": 1 });
    let models = ["a", "b?status=500", "c?status=429"];
    let (site, daemon) = start(documents(&mock.url(), Some(&check), &models)).await;
    until_verdict(&daemon, "m/d0", "healthy").await;
    let state = until_verdict(&daemon, "m/d1", "unhealthy").await;
    assert!(
        state["reason"].as_str().unwrap().contains("status 500"),
        "{state}"
    );
    assert_eq!(seen(&site, "m/d0").1, Readiness::Ready);
    assert_eq!(seen(&site, "m/d1").1, Readiness::Unhealthy);
    wait_until("seven completions", PATIENCE, || {
        mock.stats().total().requests >= 7
    })
    .await;
    let busy = daemon.get("/deployments/m/d2").await;
    assert_eq!(busy["probe"]["verdict"], "unknown", "429 says nothing: {busy}");

    let records = mock.stats().records();
    for record in &records {
        assert_eq!(record.target, "/v1/chat/completions");
        assert_eq!(record.json().unwrap()["max_tokens"], 1);
    }
    let span = records[6].at_unix_ms - records[0].at_unix_ms;
    assert!(
        span >= 5_500,
        "seven at one a second take six seconds, not {span} ms"
    );
    let (paid, reported) = wait_for("the tokens to be shown", PATIENCE, || async {
        let counts = daemon.get("/deployments/m/d0").await["probe"]["counts"].clone();
        let tally = mock.stats().model("a");
        let reported = (&counts["input_tokens"], &counts["output_tokens"])
            == (&json!(tally.prompt_tokens), &json!(tally.completion_tokens));
        reported.then_some((tally.completion_tokens, counts))
    })
    .await;
    assert!(paid > 0, "{reported}");
    let usage = daemon.get("/usage").await;
    assert!(
        !usage.to_string().contains("\"m\""),
        "no channel's usage: {usage}"
    );
}

#[tokio::test]
async fn a_daemon_that_ends_takes_its_verdicts_back() {
    let mock = MockLlm::start().await;
    let mut check = models_check();
    check["path"] = json!("/nothing");
    let (site, mut daemon) = start(documents(&mock.url(), Some(&check), &["a"])).await;
    until_verdict(&daemon, "m/d0", "unhealthy").await;
    assert_eq!(seen(&site, "m/d0").0, Verdict::Unhealthy);
    daemon.stop().await;
    assert_eq!(seen(&site, "m/d0").0, Verdict::Unknown);

    // One that is killed cannot; the next one does, as soon as it is there.
    daemon.restart().await;
    until_verdict(&daemon, "m/d0", "unhealthy").await;
    daemon.kill();
    assert_eq!(seen(&site, "m/d0").0, Verdict::Unhealthy);
    documents(&mock.url(), None, &["a"]).write(&site);
    daemon.restart().await;
    wait_until("the verdict to be unknown", PATIENCE, || {
        seen(&site, "m/d0").0 == Verdict::Unknown
    })
    .await;
}
