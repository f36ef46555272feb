//! The API through its router, without a socket.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "test code"
)]

mod support;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use serde_json::{Value, json};
use support::{Daemon, Folders, SECRET, channels};
use tollgate_shm::{Class, Event, UsageDelta};

#[tokio::test]
async fn everything_but_health_and_metrics_needs_the_token() {
    let daemon = Daemon::start(Folders::new()).await;
    let plain = |path: &str| {
        Request::builder()
            .uri(path.to_owned())
            .body(Body::empty())
            .unwrap()
    };
    for path in ["/api/v1/health", "/metrics", "/api/v1/metrics"] {
        assert_eq!(daemon.send(plain(path)).await.0, StatusCode::OK, "{path}");
    }
    for path in [
        "/documents",
        "/documents/channels",
        "/schema/channels",
        "/usage",
        "/limits",
        "/channels/wechat001/limits",
        "/instance",
        "/inflight",
        "/requests",
        "/deployments",
        "/deployments/gpt-4o/p",
        "/deployments/gpt-4o%2Fp/history",
    ] {
        let path = format!("/api/v1{path}");
        let (status, headers, body) = daemon.send(plain(&path)).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{path}");
        assert_eq!(headers["content-type"], "application/problem+json");
        assert_eq!(headers["www-authenticate"], "Bearer");
        assert_eq!(body["status"], 401);
        daemon.get(&path).await;
    }
    let wrong = Request::builder()
        .uri("/api/v1/limits")
        .header("authorization", "Bearer a-token-for-tests-onlx")
        .body(Body::empty())
        .unwrap();
    assert_eq!(daemon.send(wrong).await.0, StatusCode::UNAUTHORIZED);
    let mut closed = daemon.state.clone();
    closed.open_metrics = false;
    let answer = tower::ServiceExt::oneshot(tollgate::api::app(closed), plain("/metrics")).await;
    assert_eq!(answer.unwrap().status(), StatusCode::UNAUTHORIZED);
    let missing = Daemon::request("GET", "/api/v1/nothing")
        .body(Body::empty())
        .unwrap();
    assert_eq!(daemon.send(missing).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn credentials_are_never_shown_and_survive_a_round_trip() {
    let daemon = Daemon::start(Folders::new()).await;
    let on_disk = std::fs::read_to_string(daemon.folders.file("providers")).unwrap();
    assert!(
        !on_disk.contains(SECRET) && on_disk.contains("\"encrypted\""),
        "{on_disk}"
    );
    let shown = daemon.get("/api/v1/documents/providers").await;
    assert_eq!(shown["providers"][0]["credentials"]["encrypted"], "***");
    for path in ["/api/v1/documents", "/api/v1/instance", "/metrics"] {
        assert!(!daemon.get(path).await.to_string().contains(SECRET), "{path}");
    }
    let sealed_before = sealed_credential(&daemon);

    // What was shown, edited and sent back keeps the credential.
    let mut edited = shown.clone();
    edited["providers"][0]["base_url"] = json!("http://127.0.0.1:10");
    let (status, body) = put(&daemon, "providers", &edited, &daemon.etag("providers").await).await;
    assert_eq!(
        (status, &body["in_force"]),
        (StatusCode::OK, &json!(true)),
        "{body}"
    );
    assert_eq!(sealed_credential(&daemon), sealed_before);

    // A new credential in the clear is sealed before it is written.
    edited["providers"][0]["credentials"] = json!({"type": "bearer", "key": "sk-another-one"});
    let (status, _) = put(&daemon, "providers", &edited, &daemon.etag("providers").await).await;
    assert_eq!(status, StatusCode::OK);
    assert_ne!(sealed_credential(&daemon), sealed_before);
    assert!(
        !std::fs::read_to_string(daemon.folders.file("providers"))
            .unwrap()
            .contains("sk-another-one")
    );

    // Nothing is stored for a provider that is new.
    edited["providers"][0] = json!({"id": "q", "protocol": "openai", "base_url": "http://127.0.0.1:9",
        "credentials": {"type": "bearer", "encrypted": "***"}});
    let (status, body) = put(&daemon, "providers", &edited, &daemon.etag("providers").await).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{body}");
}

/// The plain credential that workers would find in the snapshot.
fn sealed_credential(daemon: &Daemon) -> Vec<u8> {
    let status = daemon.state.config.borrow().clone();
    let active = status.active().unwrap();
    let snapshot = active.snapshot().unwrap();
    let sealed = snapshot
        .provider(0)
        .unwrap()
        .credentials()
        .next()
        .unwrap()
        .sealed
        .to_vec();
    daemon.state.sealer.key.open("p", &sealed).unwrap().to_vec()
}

async fn put(daemon: &Daemon, document: &str, body: &Value, etag: &str) -> (StatusCode, Value) {
    let request = Daemon::request("PUT", &format!("/api/v1/documents/{document}"))
        .header("if-match", etag)
        .body(Body::from(body.to_string()))
        .unwrap();
    let (status, _, body) = daemon.send(request).await;
    (status, body)
}

#[tokio::test]
async fn documents_are_written_under_optimistic_locking_and_validated_together() {
    let daemon = Daemon::start(Folders::new()).await;
    let first = daemon.etag("channels").await;
    let generation = daemon.region.generation();

    let request = Daemon::request("PUT", "/api/v1/documents/channels?dry_run=true")
        .header("if-match", &first)
        .body(Body::from(channels(7).to_string()))
        .unwrap();
    let (status, _, body) = daemon.send(request).await;
    assert_eq!((status, &body["written"]), (StatusCode::OK, &json!(false)));

    let (status, body) = put(&daemon, "channels", &channels(20_000), &first).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert_eq!(
        (&body["in_force"], &body["generation"]),
        (&json!(true), &json!(generation + 1))
    );
    assert_eq!(daemon.region.generation(), generation + 1);

    let (status, body) = put(&daemon, "channels", &channels(30_000), &first).await;
    assert_eq!(
        status,
        StatusCode::CONFLICT,
        "the second editor of a version loses"
    );
    assert_eq!(body["compared_with"], json!("your version"), "{body}");
    let difference = &body["diff"]["differences"][0];
    assert_eq!(
        (&difference["path"], &difference["old"], &difference["new"]),
        (
            &json!("channels[wechat001].limits[0].max"),
            &json!(10_000),
            &json!(20_000)
        ),
        "{body}"
    );
    let blind = Daemon::request("PUT", "/api/v1/documents/channels")
        .body(Body::from(channels(1).to_string()))
        .unwrap();
    assert_eq!(daemon.send(blind).await.0, StatusCode::PRECONDITION_REQUIRED);

    // References into other documents count: a channel cannot extend what is not there.
    let mut dangling = channels(1);
    dangling["channels"][0]["extends"] = json!("missing");
    dangling["channels"][0]["limits"][0]["metric"] = json!("inputs");
    let before = std::fs::read(daemon.folders.file("channels")).unwrap();
    let (status, body) = put(&daemon, "channels", &dangling, &daemon.etag("channels").await).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let paths: Vec<&str> = body["problems"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|p| p["severity"] == "error")
        .map(|p| p["path"].as_str().unwrap())
        .collect();
    assert!(
        paths.iter().any(|p| p.contains("extends")) && paths.iter().any(|p| p.contains("metric")),
        "{body}"
    );
    assert_eq!(std::fs::read(daemon.folders.file("channels")).unwrap(), before);

    let (status, body) = daemon
        .post(
            "/api/v1/documents/validate",
            &json!({"documents": {"channels": dangling}}),
        )
        .await;
    assert_eq!((status, &body["valid"]), (StatusCode::OK, &json!(false)));
    let (_, body) = daemon
        .post(
            "/api/v1/documents/validate",
            &json!({"documents": {"channels": channels(5)}}),
        )
        .await;
    assert_eq!(body["valid"], json!(true), "{body}");

    // A new document, a shard, an ambiguous kind, a name that is none.
    let create = |name: &str, body: Value| {
        Daemon::request("PUT", &format!("/api/v1/documents/{name}"))
            .header("if-none-match", "*")
            .body(Body::from(body.to_string()))
            .unwrap()
    };
    let (status, _, body) = daemon
        .send(create("templates", json!({"templates": [{"name": "t"}]})))
        .await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let shard = json!({"channels": [{"code": "app002", "trusted": true}]});
    let (status, _, body) = daemon
        .send(create("tollgate.channels.eu.json", shard.clone()))
        .await;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert_eq!(
        daemon.send(create("channels", shard.clone())).await.0,
        StatusCode::CONFLICT
    );
    assert_eq!(
        daemon.send(create("tollgate.channels.eu.json", shard)).await.0,
        StatusCode::PRECONDITION_FAILED
    );
    for name in ["..%2Fchannels.json", "passwd", ".channels.json"] {
        assert_eq!(
            daemon.send(create(name, json!({}))).await.0,
            StatusCode::NOT_FOUND,
            "{name}"
        );
    }
}

#[tokio::test]
async fn usage_limits_and_requests_show_what_workers_did() {
    let mut daemon = Daemon::start(Folders::new()).await;
    let region = daemon.region.clone();
    let mut worker = region.attach_worker().unwrap();
    let row = region.usage_index(b"wechat001", b"gpt-4o").unwrap();
    let status = daemon.state.config.borrow().clone();
    let active = status.active().unwrap().clone();
    let snapshot = active.snapshot().unwrap();
    let channel = snapshot.channel_by_code(b"wechat001").unwrap();
    let limits: Vec<_> = channel
        .limits()
        .iter()
        .filter_map(|l| tollgate::live::spec(&l, "gpt-4o"))
        .collect();
    let input = channel
        .limits()
        .iter()
        .position(|l| l.name() == "input_tokens/10m")
        .unwrap();
    let demand = tollgate_shm::Demand {
        limits: &limits,
        counters: None,
        input: 100,
        input_exact: true,
        output: 50,
        expected_output: 10,
        min_output: 1,
        usage: Some(row),
        may_wait: false,
        price: [0, 0],
    };
    let grant = region.reserve(&mut worker, region.now_ms(), &demand).unwrap();
    let inflight = daemon.get("/api/v1/inflight").await;
    assert_eq!(inflight["requests"][0]["channel"], "wechat001");
    assert_eq!(inflight["requests"][0]["reserved_output"], 50);

    let live = daemon.get("/api/v1/channels/wechat001/limits?model=4o").await;
    let of = |live: &Value, name: &str| {
        let all = live["limits"].as_array().unwrap().clone();
        all.into_iter()
            .find(|l| l["name"].as_str().unwrap().starts_with(name))
            .unwrap_or_else(|| panic!("{name} in {live}"))
    };
    assert_eq!(of(&live, "input_tokens")["used"], 100);
    assert_eq!(of(&live, "connections")["left"], 2);
    assert_eq!(of(&live, "output_tokens")["used"], 50);
    assert_eq!(of(&live, "requests")["scope"], "model");

    region.settle(
        &mut worker,
        grant.row,
        region.now_ms(),
        tollgate_shm::Settlement {
            input: 90,
            output: 20,
            cost: 0,
        },
    );
    region.add_usage(
        row,
        &UsageDelta {
            input_tokens: 90,
            output_tokens: 20,
            latency_us: Some(2_000),
            ..UsageDelta::of(Class::Ok)
        },
    );
    region.push_event(
        &worker,
        &Event {
            time_ms: region.now_ms(),
            usage: row.number(),
            deployment: 0,
            generation: active.generation() as u32,
            request_id: [1, 2],
            status: 200,
            input_tokens: 90,
            output_tokens: 20,
            latency_us: 2_000,
            limit_key: limits[input].key,
            rule_hash: tollgate_policy::hash_name(b"no opus"),
            ..Event::default()
        },
    );
    daemon.drain.step(0, true, true, &*status).unwrap();

    let all = daemon.get("/api/v1/limits").await;
    assert_eq!(of(&all["channels"][0], "input_tokens")["used"], 90);
    for step in [0, 60, 600] {
        let usage = daemon
            .get(&format!("/api/v1/usage?step={step}&channel=wechat001"))
            .await;
        assert_eq!(usage["total"]["input_tokens"], 90, "{usage}");
        assert_eq!(usage["points"][0]["ok"], 1);
        assert_eq!(usage["points"][0]["model"], "gpt-4o");
    }
    assert_eq!(
        daemon.get("/api/v1/usage?channel=other").await["points"],
        json!([])
    );
    let log = daemon.get("/api/v1/requests?limit=1").await;
    let line = &log["requests"][0];
    assert_eq!(line["request_id"], "00000000000000010000000000000002");
    assert_eq!(
        (&line["deployment"], &line["rule"]),
        (&json!("gpt-4o/p"), &json!("no opus"))
    );
    assert_eq!(line["limit"], "input_tokens/10m");
    let before = log["next"].as_str().unwrap();
    assert_eq!(
        daemon.get(&format!("/api/v1/requests?before={before}")).await["requests"],
        json!([])
    );

    let metrics = daemon.get("/metrics").await;
    let metrics = metrics.as_str().unwrap();
    for line in [
        "tollgate_requests_total{channel=\"wechat001\",model=\"gpt-4o\",class=\"ok\"} 1",
        "tollgate_tokens_total{channel=\"wechat001\",model=\"gpt-4o\",kind=\"input\"} 90",
        "tollgate_request_duration_seconds_bucket{model=\"gpt-4o\",le=\"0.002048\"} 1",
        "tollgate_request_duration_seconds_bucket{model=\"gpt-4o\",le=\"0.001024\"} 0",
        "tollgate_workers 1",
        "tollgate_generation 1",
        "tollgate_ring_depth 0",
        "tollgate_config_problems{severity=\"error\"} 0",
    ] {
        assert!(metrics.lines().any(|l| l == line), "{line} is not in\n{metrics}");
    }
    assert!(metrics.contains("tollgate_process_open_fds{role=\"daemon\""));
    let instance = daemon.get("/api/v1/instance").await;
    assert_eq!(instance["workers"][0]["pid"], std::process::id());
    assert_eq!(instance["ledger"]["events"], 1);
    let bad = Daemon::request("GET", "/api/v1/usage?step=7")
        .body(Body::empty())
        .unwrap();
    assert_eq!(daemon.send(bad).await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn explain_says_what_would_happen_and_takes_nothing() {
    let daemon = Daemon::start(Folders::new()).await;
    let ask = |headers: Value, body: Value| json!({"headers": headers, "body": body});
    let chat = |model: &str| json!({"model": model, "max_tokens": 40, "messages": [{"role": "user", "content": "hello"}]});
    let channel = json!({"channelcode": "wechat001"});

    let (status, body) = daemon
        .post("/api/v1/explain", &ask(channel.clone(), chat("4o")))
        .await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let e = &body["explanation"];
    assert_eq!(e["admitted"], true, "{e}");
    assert_eq!(
        e["model"],
        json!({"asked": "4o", "name": "gpt-4o", "permitted": true})
    );
    assert_eq!(e["channel"]["source"], "header channelcode");
    assert_eq!(e["rules"][0]["matched"], false);
    assert_eq!(e["rules"][0]["failed"], "body.model eq \"opus\"");
    assert_eq!(e["output"], json!({"wanted": 40, "reserved": 40}));
    assert_eq!(e["limits"].as_array().unwrap().len(), 4);
    assert!(
        e["limits"]
            .as_array()
            .unwrap()
            .iter()
            .all(|l| l["fits"] == true && l["used"] == 0)
    );
    assert_eq!(e["deployments"][0]["id"], "gpt-4o/p");
    assert_eq!(
        daemon.region.gauges()[0],
        ("counters_used", 0),
        "nothing was taken"
    );

    for (headers, body, decided_by, code) in [
        (json!({}), chat("gpt-4o"), "channel", "channel_required"),
        (
            json!({"channelcode": "nobody"}),
            chat("gpt-4o"),
            "channel",
            "unknown_channel",
        ),
        (channel.clone(), json!("{\"model\": "), "body", "invalid_body"),
        (channel.clone(), chat("opus"), "rule", "no_opus"),
        (channel.clone(), chat("gpt-5"), "model", "model_not_found"),
        (
            channel.clone(),
            json!({"messages": []}),
            "model",
            "model_required",
        ),
    ] {
        let (_, answer) = daemon.post("/api/v1/explain", &ask(headers, body.clone())).await;
        let e = &answer["explanation"];
        assert_eq!(
            (e["decided_by"].as_str(), e["code"].as_str()),
            (Some(decided_by), Some(code)),
            "{body}: {e}"
        );
    }

    // With the limit nearly used up the same request does not fit, and the answer names the limit.
    let snapshot_limits: Vec<_> = {
        let status = daemon.state.config.borrow().clone();
        let snapshot = status.active().unwrap().snapshot().unwrap();
        let channel = snapshot.channel_by_code(b"wechat001").unwrap();
        channel
            .limits()
            .iter()
            .filter_map(|l| tollgate::live::spec(&l, "gpt-4o"))
            .collect()
    };
    daemon
        .region
        .restore_usage(&snapshot_limits[0], daemon.region.now_ms(), 9_999);
    let (_, answer) = daemon
        .post("/api/v1/explain", &ask(channel, chat("gpt-4o")))
        .await;
    let e = &answer["explanation"];
    assert_eq!(
        (e["decided_by"].as_str(), e["status"].as_u64()),
        (Some("limit"), Some(429)),
        "{e}"
    );
    assert!(e["message"].as_str().unwrap().contains("input_tokens/10m"), "{e}");
    let (status, _) = daemon.post("/api/v1/explain", &json!({"heders": {}})).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn schemas_are_served_for_every_kind() {
    let daemon = Daemon::start(Folders::new()).await;
    for kind in tollgate_policy::Kind::ALL {
        let schema = daemon.get(&format!("/api/v1/schema/{}", kind.name())).await;
        assert!(schema["properties"].get(kind.name()).is_some());
    }
    let bad = Daemon::request("GET", "/api/v1/schema/x")
        .body(Body::empty())
        .unwrap();
    assert_eq!(daemon.send(bad).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn deployments_show_what_workers_saw_and_why_they_are_left_alone() {
    use tollgate_shm::{BreakerSpec, Failure};
    let folders = Folders::new();
    folders.write(
        "models",
        &json!({"models": [{"name": "gpt-4o", "aliases": ["4o"], "deployments": [{"provider": "p",
            "limits": [{"metric": "requests", "max": 600, "window": "1m"}]}]}]}),
    );
    let daemon = Daemon::start(folders).await;
    let fresh = daemon.get("/api/v1/deployments/gpt-4o/p").await;
    assert_eq!(
        (&fresh["quota"][0]["scope"], &fresh["quota"][0]["left"]),
        (&json!("deployment"), &json!(600)),
        "{fresh}"
    );
    assert_eq!(
        (
            &fresh["state"],
            &fresh["breaker"]["state"],
            &fresh["probe"],
            &fresh["latency_us"]
        ),
        (&json!("ready"), &json!("closed"), &Value::Null, &Value::Null),
        "{fresh}"
    );
    let region = &daemon.region;
    let row = region
        .deployment(tollgate_policy::hash_name(b"gpt-4o/p"))
        .unwrap();
    let worker = region.attach_worker().unwrap();
    let spec = BreakerSpec {
        failures: 2,
        open_ms: 3_000_000,
        max_open_ms: 3_000_000,
    };
    region.begin_attempt(&worker, row, false);
    region.begin_attempt(&worker, row, true);
    region.end_attempt(&worker, row);
    region.note_success(row, region.now_ms(), Some(1_500));
    region.note_failure(row, region.now_ms(), Failure::Status, &spec);
    region.note_failure(row, region.now_ms(), Failure::Timeout, &spec);
    let listed = daemon
        .get("/api/v1/deployments?model=4o&provider=p&trouble=true")
        .await;
    let broken = &listed["deployments"][0];
    assert_eq!(broken["id"], "gpt-4o/p", "{listed}");
    assert_eq!(broken["state"], "broken");
    assert_eq!(broken["reason"], "2 failures in a row, the last: timeout");
    assert!(
        broken["breaker"]["retry_in_ms"].as_u64().unwrap() > 2_000_000,
        "{listed}"
    );
    assert_eq!(
        (&broken["in_flight"], &broken["attempts"], &broken["latency_us"]),
        (&json!(1), &json!(2), &json!(1_500))
    );
    assert_eq!(
        broken["connections"],
        json!({"made": 1, "reused": 1, "active": 1, "idle": 0, "failed": 0, "tls_resumed": 0})
    );
    assert_eq!(
        broken["failed"],
        json!({"connect": 0, "timeout": 1, "status": 1, "malformed": 0, "full": 0, "refused": 0, "slow": 0, "tls": 0})
    );
    assert_eq!(
        (
            &listed["total"],
            &daemon.get("/api/v1/deployments?provider=other").await["total"]
        ),
        (&json!(1), &json!(0))
    );
    let metrics = daemon.get("/metrics").await;
    let metrics = metrics.as_str().unwrap();
    let labels = "deployment=\"gpt-4o/p\",model=\"gpt-4o\",provider=\"p\"";
    for series in [
        format!("tollgate_deployment_state{{{labels},state=\"broken\"}} 1"),
        format!("tollgate_deployment_breaker_state{{{labels}}} 2"),
        format!("tollgate_deployment_failures_total{{{labels},kind=\"status\"}} 1"),
        format!("tollgate_deployment_connections_total{{{labels},connection=\"reused\"}} 1"),
        format!("tollgate_deployment_latency_seconds{{{labels}}} 0.0015"),
    ] {
        assert!(metrics.contains(&series), "{series} is not in {metrics}");
    }
    for path in ["/api/v1/deployments/none", "/api/v1/deployments?model=none"] {
        let request = Daemon::request("GET", path).body(Body::empty()).unwrap();
        assert_eq!(daemon.send(request).await.0, StatusCode::NOT_FOUND, "{path}");
    }
}
