//! Alerts: what fails is told to receivers once, and that it is over; whoever looks at it or silences it is heard.

use rustix::process::Signal;
use serde_json::{Value, json};
use tollgate_tests::daemon::Daemon;
use tollgate_tests::documents::{Documents, PROVIDER_KEY};
use tollgate_tests::gateway::Gateway;
use tollgate_tests::http::Request;
use tollgate_tests::mock::MockLlm;
use tollgate_tests::process;
use tollgate_tests::receiver::{Came, Receiver};
use tollgate_tests::redis::Redis;
use tollgate_tests::site::Site;
use tollgate_tests::tls::Authority;
use tollgate_tests::wait::{PATIENCE, wait_for, wait_until};

const SECRET: &str = "hush-0123456789-the-receivers-secret";
const TOKEN: &str = "hush-9876543210-in-the-address";
const FIRES: &str = "deployment_down firing";
const OVER: &str = "deployment_down resolved";

/// Rules without patience, and a receiver of what this is about.
fn alerts(receiver: &Receiver, rules: &[&str]) -> Value {
    let quick = json!({ "for": "0s", "clear_after": "0s" });
    json!({
        "rules": { "deployment_down": quick, "model_down": quick },
        "receivers": [{ "name": "ops", "secret_url": { "key": receiver.url(&format!("/{TOKEN}")) },
            "secret": { "key": SECRET }, "rules": rules }],
    })
}

fn documents(mock: &MockLlm, alerts: Value) -> Documents {
    Documents::new()
        .model_value(json!({
            "name": "m",
            "deployments": [{ "id": "d", "provider": "p", "upstream_model": "d?tokens=4" }],
            "routing": { "breaker": { "failures": 2, "open": "300ms", "max_open": "1s" }, "slow_start": "0s" },
            "timeouts": { "connect": "1s" },
        }))
        .openai("p", &mock.url())
        .limited("c", json!([]))
        .setting("alerts", alerts)
}

fn chat() -> Request {
    Request::chat("m", " hello").channel("c").set("max_tokens", 4)
}

/// Asks until the deployment's breaker is open.
async fn fail(gateway: &Gateway) {
    wait_for("the breaker to open", PATIENCE, || async {
        assert_ne!(gateway.send(&chat()).await.status(), 200);
        let state = gateway.daemon.get("/deployments/d").await;
        (state["breaker"]["state"] == "open").then_some(())
    })
    .await;
}

/// Asks until it is answered.
async fn heal(gateway: &Gateway) {
    wait_for("an answer", PATIENCE, || async {
        (gateway.send(&chat()).await.status() == 200).then_some(())
    })
    .await;
}

/// The alert of a rule that fires, once it is known at this daemon.
async fn firing(daemon: &Daemon, rule: &str, is: impl Fn(&Value) -> bool) -> Value {
    wait_for("an alert that fires", PATIENCE, || async {
        let list = daemon.get(&format!("/alerts?state=firing&rule={rule}")).await;
        let alert = list["alerts"][0].clone();
        (alert.is_object() && is(&alert)).then_some(alert)
    })
    .await
}

async fn told(receiver: &Receiver, what: &str) {
    wait_until(&format!("`{what}`"), PATIENCE, || receiver.count(what) > 0).await;
}

async fn post(daemon: &Daemon, path: &str, body: &Value) -> Value {
    let answer = daemon.api(Request::post(&format!("/api/v1{path}"), body)).await;
    assert!(answer.status() < 300, "{path}: {}", answer.text());
    answer.json()
}

async fn metric(daemon: &Daemon, line: &str) -> Option<u64> {
    let text = daemon.api(Request::get("/metrics")).await.text();
    let found = text.lines().find_map(|text| text.strip_prefix(line));
    found.and_then(|value| value.trim().parse().ok())
}

/// Everything below a folder.
fn files(folder: &std::path::Path, found: &mut Vec<(String, Vec<u8>)>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files(&path, found);
        } else if let Ok(bytes) = std::fs::read(&path) {
            found.push((path.display().to_string(), bytes));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_told_signed_and_that_it_is_over_and_no_secret_shows() {
    let (mut mock, receiver) = (MockLlm::start().await, Receiver::start().await);
    let rules = ["deployment_down", "model_down"];
    let gateway = Gateway::with(documents(&mock, alerts(&receiver, &rules)))
        .start()
        .await;
    heal(&gateway).await;
    mock.stop();
    fail(&gateway).await;
    told(&receiver, FIRES).await;
    told(&receiver, "model_down firing").await;
    for came in receiver.came() {
        assert!(came.is_signed(SECRET), "{came:?}");
        assert!(!came.is_signed("another secret"));
        assert_eq!(came.json()["test"], false);
    }
    let alerts = receiver.came().iter().map(Came::json).collect::<Vec<_>>();
    let all = alerts
        .iter()
        .flat_map(|message| message["alerts"].as_array().unwrap());
    let down = all
        .clone()
        .find(|alert| alert["rule"] == "deployment_down")
        .unwrap();
    assert_eq!(
        down["labels"],
        json!({ "deployment": "d", "model": "m", "provider": "p" })
    );
    assert_eq!(
        (&down["severity"], &down["repeat"]),
        (&json!("warning"), &json!(0))
    );
    let alert = firing(&gateway.daemon, "deployment_down", |_| true).await;
    assert_eq!(
        (&alert["id"], &alert["acknowledged"]),
        (&down["id"], &Value::Null)
    );
    let line = "tollgate_alerts{rule=\"deployment_down\",severity=\"warning\",state=\"firing\"}";
    assert_eq!(metric(&gateway.daemon, line).await, Some(1));

    // The address is the mock's again.
    let _mock = MockLlm::start_on(mock.address().port()).await;
    heal(&gateway).await;
    told(&receiver, OVER).await;
    told(&receiver, "model_down resolved").await;
    assert_eq!((receiver.count(FIRES), receiver.count(OVER)), (1, 1));
    wait_for("nothing that fires", PATIENCE, || async {
        let list = gateway.daemon.get("/alerts?state=firing").await;
        let ours = |alert: &&Value| rules.contains(&alert["rule"].as_str().unwrap());
        (list["alerts"].as_array().unwrap().iter().filter(ours).count() == 0).then_some(())
    })
    .await;

    // A trial arrives as well.
    let trial = post(&gateway.daemon, "/alerts/receivers/ops/test", &json!({})).await;
    assert_eq!((&trial["accepted"], &trial["error"]), (&json!(true), &json!("")));
    let last = receiver.came().last().cloned().unwrap();
    assert!(last.is_signed(SECRET) && last.json()["test"] == true, "{last:?}");

    for path in [
        "/settings",
        "/documents/tollgate.settings.json",
        "/alerts",
        "/versions",
        "/backup",
        "/audit",
    ] {
        let text = gateway.daemon.get(path).await.to_string();
        for secret in [SECRET, TOKEN] {
            assert!(!text.contains(secret), "{path}: {text}");
        }
    }
    let mut found = vec![("log".to_owned(), gateway.daemon.log().into_bytes())];
    for folder in [gateway.site.config(), gateway.site.state()] {
        files(&folder, &mut found);
    }
    assert!(found.len() > 10, "{}", found.len());
    for (name, bytes) in &found {
        for secret in [SECRET, TOKEN] {
            let there = bytes.windows(secret.len()).any(|w| w == secret.as_bytes());
            assert!(!there, "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_fails_is_tried_again_and_told_once() {
    let (mut mock, receiver) = (MockLlm::start().await, Receiver::start().await);
    let gateway = Gateway::with(documents(&mock, alerts(&receiver, &["deployment_down"])))
        .start()
        .await;
    receiver.answers(500);
    mock.stop();
    fail(&gateway).await;
    let failed = wait_for("two attempts", PATIENCE, || async {
        let list = gateway.daemon.get("/alerts").await;
        (list["receivers"][0]["failures"].as_u64() >= Some(2)).then(|| list["receivers"][0].clone())
    })
    .await;
    assert_eq!(
        (&failed["name"], &failed["error"]),
        (&json!("ops"), &json!("answered 500"))
    );
    receiver.answers(200);
    told(&receiver, FIRES).await;
    firing(&gateway.daemon, "deployment_down", |alert| {
        alert["told"][0]["firing"] == 1
    })
    .await;
    let came = receiver.came();
    let (taken, refused): (Vec<&Came>, Vec<&Came>) = came.iter().partition(|came| came.status == 200);
    assert_eq!(taken.len(), 1, "{came:?}");
    assert!(refused.len() >= 2);
    assert!(
        came.iter().all(|one| one.id == came[0].id && !one.id.is_empty()),
        "one id, to know it by"
    );
    let counter = |result: &str| format!("tollgate_alert_deliveries_total{{result=\"{result}\"}}");
    assert_eq!(metric(&gateway.daemon, &counter("accepted")).await, Some(1));
    assert_eq!(
        metric(&gateway.daemon, &counter("failed")).await,
        Some(refused.len() as u64)
    );
    let list = gateway.daemon.get("/alerts").await;
    assert_eq!(
        (&list["receivers"][0]["error"], &list["receivers"][0]["failures"]),
        (&json!(""), &json!(0))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silence_holds_back_an_ack_is_shown_and_a_restart_tells_nothing_again() {
    let (mut mock, receiver) = (MockLlm::start().await, Receiver::start().await);
    let rules = ["deployment_down", "model_down"];
    let mut gateway = Gateway::with(documents(&mock, alerts(&receiver, &rules)))
        .start()
        .await;
    let silence =
        json!({ "rule": "deployment_down", "labels": { "model": "m*" }, "for": "1h", "comment": "moving" });
    let silence = post(&gateway.daemon, "/alerts/silences", &silence).await;
    mock.stop();
    fail(&gateway).await;
    // What the silence does not cover comes; by then the other would have come too.
    told(&receiver, "model_down firing").await;
    let alert = firing(&gateway.daemon, "deployment_down", |alert| {
        !alert["silence"].is_null()
    })
    .await;
    assert_eq!(alert["silence"], silence["id"]);
    let trial = post(&gateway.daemon, "/alerts/receivers/ops/test", &json!({})).await;
    assert_eq!(trial["accepted"], true);
    assert_eq!(receiver.count(FIRES), 0, "{:?}", receiver.told());

    let path = format!("/api/v1/alerts/silences/{}", silence["id"].as_str().unwrap());
    let ended = gateway.daemon.api(Request::new("DELETE", &path)).await;
    assert_eq!(ended.status(), 200, "{}", ended.text());
    told(&receiver, FIRES).await;
    let alert = firing(&gateway.daemon, "deployment_down", |alert| {
        alert["told"][0]["firing"] == 1
    })
    .await;
    let ack = format!("/alerts/{}/ack", alert["id"].as_str().unwrap());
    let seen = post(&gateway.daemon, &ack, &json!({ "comment": "on it" })).await;
    assert_eq!(seen["acknowledged"]["comment"], "on it");

    gateway.daemon.kill();
    gateway.daemon.restart().await;
    let same = firing(&gateway.daemon, "deployment_down", |alert| {
        !alert["acknowledged"].is_null()
    })
    .await;
    assert_eq!(
        (&same["id"], &same["started_ms"]),
        (&alert["id"], &alert["started_ms"])
    );
    // Both are over after the restart, so what is told then was told after everything that could be told again.
    let _mock = MockLlm::start_on(mock.address().port()).await;
    heal(&gateway).await;
    told(&receiver, OVER).await;
    told(&receiver, "model_down resolved").await;
    for once in [FIRES, OVER, "model_down firing", "model_down resolved"] {
        assert_eq!(receiver.count(once), 1, "{once}: {:?}", receiver.told());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_instances_one_tells_and_the_other_goes_on_when_it_is_gone() {
    let redis = Redis::start().await;
    let (mut mock, receiver) = (MockLlm::start().await, Receiver::start().await);
    let check = json!({ "path": "/v1/models", "interval": "1s", "unhealthy_after": 2, "healthy_after": 2 });
    let documents = Documents::new()
        .model_value(
            json!({ "name": "m", "deployments": [{ "id": "d", "provider": "p", "upstream_model": "d" }] }),
        )
        .provider(json!({
            "id": "p", "protocol": "openai", "base_url": format!("{}/v1", mock.url()), "health_check": check,
            "credentials": { "type": "bearer", "key": PROVIDER_KEY },
        }))
        .limited("c", json!([]))
        .setting("redis", json!({ "urls": [redis.url()], "timeout": "500ms" }))
        .setting("alerts", alerts(&receiver, &["deployment_down"]));
    let mut all = Vec::new();
    for name in ["one", "two"] {
        let site = Site::new();
        documents.write(&site);
        // Secrets of receivers are sealed with the master key that all instances have.
        let daemon = Daemon::start_with(&site, &["--instance", name]).await;
        all.push((site, daemon));
    }
    mock.stop();
    told(&receiver, FIRES).await;
    for (_, daemon) in &all {
        // Either shows what one of them keeps for both.
        let alert = firing(daemon, "deployment_down", |alert| alert["told"][0]["firing"] == 1).await;
        assert_eq!(alert["instance"], "");
    }
    assert_eq!(receiver.count(FIRES), 1, "{:?}", receiver.told());

    let leader = wait_for("one leader", PATIENCE, || async {
        let first = metric(&all[0].1, "tollgate_leader").await;
        let second = metric(&all[1].1, "tollgate_leader").await;
        match (first, second) {
            (Some(1), Some(0)) => Some(0),
            (Some(0), Some(1)) => Some(1),
            _ => None,
        }
    })
    .await;
    process::signal(all[leader].1.pid(), Signal::STOP);
    let other = &all[1 - leader].1;
    wait_for("the other to lead", PATIENCE, || async {
        (metric(other, "tollgate_leader").await == Some(1)).then_some(())
    })
    .await;
    let _mock = MockLlm::start_on(mock.address().port()).await;
    told(&receiver, OVER).await;
    assert_eq!(
        (receiver.count(FIRES), receiver.count(OVER)),
        (1, 1),
        "{:?}",
        receiver.told()
    );
    process::signal(all[leader].1.pid(), Signal::CONT);
}

/// Two whole instances at one Redis.
#[tokio::test(flavor = "multi_thread")]
async fn what_two_instances_use_of_a_limit_is_judged_together() {
    const MAX: u64 = 10_000;
    let (redis, receiver) = (Redis::start().await, Receiver::start().await);
    let mut alerts = alerts(&receiver, &["limit_nearly_used"]);
    alerts["rules"]["limit_nearly_used"] = json!({ "for": "0s" });
    let documents = Documents::new()
        .model("m", "mock?tokens=300")
        .limited(
            "c",
            json!([{ "name": "much", "metric": "total_tokens", "max": MAX, "window": "10m" }]),
        )
        .setting("redis", json!({ "urls": [redis.url()], "timeout": "500ms" }))
        .setting("alerts", alerts);
    let mut gateways = Vec::new();
    for _ in 0..2 {
        gateways.push(Gateway::with(documents.clone()).start().await);
    }
    // Half of it through each: far from the threshold for whoever looks at one of them alone.
    let request = Request::chat("m", " hello").channel("c").set("max_tokens", 300);
    for gateway in &gateways {
        wait_for("half of the limit to be used", PATIENCE, || async {
            let tally = gateway.mock.stats().total();
            if tally.prompt_tokens + tally.completion_tokens > MAX * 46 / 100 {
                return Some(());
            }
            gateway.send(&request).await;
            None
        })
        .await;
        let used = gateway.used("c", "much").await;
        assert!(used < MAX * 60 / 100, "{used}");
    }
    told(&receiver, "limit_nearly_used firing").await;
    for gateway in &gateways {
        let alert = firing(&gateway.daemon, "limit_nearly_used", |_| true).await;
        assert_eq!(alert["labels"], json!({ "channel": "c", "limit": "much" }));
        assert!(alert["value"].as_f64() >= Some(90.0), "{alert}");
    }
    for gateway in gateways {
        gateway.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_ends_soon_is_told_of() {
    let (mock, receiver) = (MockLlm::start().await, Receiver::start().await);
    let day = std::time::Duration::from_secs(86_400);
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, days: u32| {
        let path = folder.path().join(name);
        std::fs::write(&path, Authority::ending(name, day * days).pem()).expect("a certificate");
        path.to_str().expect("a path").to_owned()
    };
    let (soon, late) = (file("soon.pem", 3), file("late.pem", 30));
    let provider = |id: &str, ca_file: &str| json!({ "id": id, "protocol": "openai", "base_url": "https://127.0.0.1:9", "tls": { "ca_file": ca_file } });
    let documents = documents(&mock, alerts(&receiver, &["certificate_expiring"]))
        .provider(provider("ends", &soon))
        .provider(provider("lasts", &late));
    let gateway = Gateway::with(documents).start().await;
    let alert = firing(&gateway.daemon, "certificate_expiring", |_| true).await;
    assert_eq!(alert["labels"]["file"], soon, "{alert}");
    let days = alert["value"].as_f64().expect("days");
    assert!((2.9..=3.0).contains(&days), "{alert}");
    assert!(
        alert["summary"]
            .as_str()
            .expect("words")
            .contains("provider ends"),
        "{alert}"
    );
    told(&receiver, "certificate_expiring firing").await;
    let all = gateway.daemon.get("/alerts?rule=certificate_expiring").await;
    assert_eq!(all["alerts"].as_array().map(Vec::len), Some(1), "{all}");
    gateway.stop().await;
}
