//! Usage over time, the request log and the live stream, through the API.

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
use http_body_util::BodyExt;
use serde_json::{Value, json};
use support::{Daemon, Folders};
use tollgate::ledger::{
    Batch, Counters, Delta, GroupDelta, Keep, Line, Lines, Results, Served, ServedDelta, ShadowDelta,
    ShadowHits, SqliteStore, Store,
};
use tollgate_policy::{Deeds, hash_name};
use tollgate_shm::{Class, Event, UsageDelta};
use tower::ServiceExt;

/// Begin of the history, a multiple of a day.
const T0: u64 = 1_700_006_400;

/// Three channels and two models over six hours, one bucket of ten minutes each; and as many lines of the log.
fn history(daemon: &Daemon) {
    let mut store = SqliteStore::open(&daemon.folders.state().join("tollgate.db")).unwrap();
    let mut batch = Batch {
        region: daemon.region.id(),
        ..Batch::default()
    };
    let mut lines = Lines {
        deployments: vec!["gpt-4o/p".into()],
        ..Lines::default()
    };
    for n in 0..36u64 {
        for (c, channel) in ["wechat001", "team-a", "team-b"].into_iter().enumerate() {
            for model in ["gpt-4o", "qwen"] {
                let mut counters = Counters::default();
                // `ok` and `input_tokens`: as many as the channel's number says.
                counters.0[0] = c as i64 + 1;
                counters.0[8] = 10 * (c as i64 + 1);
                batch.deltas.push(Delta {
                    minute: T0 + n * 600,
                    channel: channel.into(),
                    model: model.into(),
                    counters,
                });
                let who = lines.add_who(channel, model);
                let event = Event {
                    request_id: [n, c as u64 * 2 + u64::from(model == "qwen")],
                    status: if n % 2 == 0 { 200 } else { 502 },
                    class: if n % 2 == 0 { 0 } else { Class::Upstream as u8 },
                    // A stream that a shadow rule matched; a stream.
                    flags: if n == 7 { 0b1001 } else { 1 },
                    ..Event::default()
                };
                lines.requests.push(Line {
                    event,
                    time_ms: (T0 + n * 600) * 1_000,
                    who,
                    deployment: 0,
                    group: u32::MAX,
                });
            }
        }
    }
    batch.requests = lines;
    // Versions and a group, in every ten minutes.
    let results = |requests: u32| {
        let mut results = Results::default();
        for _ in 0..requests {
            results.add_event(&Event {
                latency_us: 2_000,
                ..Event::default()
            });
        }
        results
    };
    for n in 0..36 {
        let minute = T0 + n * 600;
        for (deployment, model, version, requests) in [
            ("gpt-4o/p", "gpt-4o", "v2", 1),
            ("gpt-4o/q", "gpt-4o", "", if n < 12 { 2 } else { 0 }),
            ("qwen/p", "qwen", "v1", u32::from(n >= 24)),
        ] {
            if requests > 0 {
                batch.served.push(ServedDelta {
                    minute,
                    served: Served {
                        deployment: deployment.into(),
                        model: model.into(),
                        version: version.into(),
                    },
                    results: results(requests),
                });
            }
        }
        for (hits, channel) in [(1, "wechat001"), (2, "team-a"), (3, "team-b")] {
            batch.shadows.push(ShadowDelta {
                of: ShadowHits {
                    bucket: minute,
                    rule: hash_name(b"no opus"),
                    channel: channel.into(),
                    deeds: if channel == "team-a" {
                        Deeds::DENY
                    } else {
                        Deeds::TAG
                    }
                    .0,
                },
                hits,
            });
        }
        batch.groups.push(GroupDelta {
            minute,
            experiment: "e".into(),
            group: "new".into(),
            results: results(1),
        });
    }
    store.commit(&batch).unwrap();
}

fn sum(line: &Value, counter: &str) -> i64 {
    line["values"][counter]
        .as_array()
        .unwrap()
        .iter()
        .map(|n| n.as_i64().unwrap())
        .sum()
}

#[tokio::test]
async fn results_of_a_shadow_are_shown_as_far_as_somebody_sees_channels() {
    let daemon = Daemon::start(Folders::new()).await;
    history(&daemon);
    let reads = json!({"rules": ["read"], "usage": ["read"]});
    daemon.role("reads", &reads).await;
    daemon.role("rules-only", &json!({"rules": ["read"]})).await;
    let all = daemon.account("all", &["reads"], &["*"]).await;
    let team = daemon.account("team", &["reads"], &["team-*"]).await;
    let other = daemon.account("other", &["reads"], &["nobody-*"]).await;
    let blind = daemon.account("blind", &["rules-only"], &["*"]).await;
    let path = format!("/api/v1/rules/no%20opus/shadow?from={T0}&to={}", T0 + 6 * 3_600);
    let shown = |channels: &[(&str, u64)]| -> Value {
        channels
            .iter()
            .map(|(channel, hits)| json!({"channel": channel, "hits": hits}))
            .collect()
    };
    let mut store = SqliteStore::open(&daemon.folders.state().join("tollgate.db")).unwrap();
    // From the tables and the journal, and then from what is packed.
    for packed in [false, true] {
        if packed {
            let keep = Keep {
                now: T0 + 86_400,
                minutes_from: 0,
                ten_minutes_from: 0,
                requests_from_ms: 0,
                requests: 1_000,
            };
            for _ in 0..20 {
                store.prune(&keep).unwrap();
            }
        }
        for (who, hits, requests, refuse, channels, others) in [
            (
                &all,
                216,
                432,
                72,
                shown(&[("team-b", 108), ("team-a", 72), ("wechat001", 36)]),
                0,
            ),
            (&team, 180, 360, 72, shown(&[("team-b", 108), ("team-a", 72)]), 0),
            (&other, 0, 0, 0, json!([]), 0),
            (&blind, 216, 432, 72, json!([]), 216),
        ] {
            let (status, body) = daemon.as_(who, "GET", &path, None).await;
            assert_eq!(status, StatusCode::OK, "{body}");
            assert_eq!(
                (&body["hits"], &body["requests"], &body["would"]["refuse"]),
                (&json!(hits), &json!(requests), &json!(refuse)),
                "{body}"
            );
            assert_eq!(
                (&body["channels"], &body["others"]),
                (&channels, &json!(others)),
                "{body}"
            );
            let values = body["values"].as_array().unwrap();
            assert!(
                values.len() == 36 && values.iter().all(|v| v == hits / 36),
                "{body}"
            );
            let text = body.to_string();
            let seen = |channel: &str| text.contains(channel);
            let sees_all = channels.as_array().unwrap().len() == 3;
            assert_eq!(seen("wechat001"), sees_all, "{body}");
        }
    }
    // Who sees none of its channels learns nothing of a rule that is gone.
    let gone = path.replace("no%20opus", "gone");
    for who in [&all, &team] {
        assert_eq!(daemon.as_(who, "GET", &gone, None).await.0, StatusCode::NOT_FOUND);
    }
}

#[tokio::test]
async fn usage_over_time_is_summed_up_grouped_and_kept_from_others() {
    let daemon = Daemon::start(Folders::new()).await;
    history(&daemon);
    let range = format!("from={T0}&to={}", T0 + 6 * 3_600);
    let all = daemon
        .get(&format!("/api/v1/usage/series?{range}&step=600"))
        .await;
    assert_eq!(all["times"].as_array().unwrap().len(), 36);
    assert_eq!(
        (all["times"][0].as_u64(), &all["others"]),
        (Some(T0), &Value::Null)
    );
    let line = &all["series"][0];
    assert_eq!(
        (
            &line["channel"],
            sum(line, "requests"),
            &line["total"]["input_tokens"]
        ),
        (&Value::Null, 432, &json!(4_320))
    );
    assert_eq!(line["values"]["requests"][35], 12);

    for (step, buckets, each) in [(60, 360, 12), (3_600, 6, 72), (21_600, 1, 432)] {
        let coarse = daemon
            .get(&format!("/api/v1/usage/series?{range}&step={step}"))
            .await;
        assert_eq!(coarse["times"].as_array().unwrap().len(), buckets);
        assert_eq!(coarse["series"][0]["values"]["requests"][0], each, "{step}");
        assert_eq!(sum(&coarse["series"][0], "requests"), 432, "{step}");
    }

    let grouped = daemon
        .get(&format!(
            "/api/v1/usage/series?{range}&step=3600&group_by=channel&top=2"
        ))
        .await;
    let names: Vec<&str> = grouped["series"]
        .as_array()
        .unwrap()
        .iter()
        .map(|l| l["channel"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["team-b", "team-a"], "those with the most requests");
    assert_eq!(sum(&grouped["others"], "requests"), 72);
    let one = daemon
        .get(&format!(
            "/api/v1/usage/series?{range}&group_by=model&channel=team-a&model=qwen"
        ))
        .await;
    assert_eq!(
        (
            one["series"].as_array().unwrap().len(),
            sum(&one["series"][0], "requests")
        ),
        (1, 72)
    );

    let versions = format!("/api/v1/usage/series?{range}&group_by=version");
    let seen = daemon.get(&format!("{versions}&step=21600")).await;
    let lines: Vec<_> = seen["series"]
        .as_array()
        .unwrap()
        .iter()
        .map(|l| (l["model"].as_str(), l["version"].as_str(), sum(l, "requests")))
        .collect();
    assert_eq!(
        lines,
        [
            (Some("gpt-4o"), Some("v2"), 36),
            (Some("gpt-4o"), None, 24),
            (Some("qwen"), Some("v1"), 12)
        ]
    );
    assert!(seen["series"][0]["latency"]["p50_us"].as_u64() >= Some(2_000));
    assert_eq!(seen["series"][0]["latency"]["count"], 36);
    let few = daemon.get(&format!("{versions}&model=gpt-4o&top=1")).await;
    assert_eq!(
        (
            few["series"].as_array().unwrap().len(),
            sum(&few["others"], "requests")
        ),
        (1, 24)
    );
    let deployments = daemon
        .get(&format!("/api/v1/usage/series?{range}&group_by=deployment"))
        .await;
    assert_eq!(deployments["series"].as_array().unwrap().len(), 3);
    assert_eq!(deployments["series"][0]["deployment"], "gpt-4o/p");
    let groups = format!("/api/v1/usage/series?{range}&group_by=group");
    let seen = daemon.get(&groups).await;
    assert_eq!(
        (&seen["series"][0]["group"], sum(&seen["series"][0], "ok")),
        (&json!("new"), 36)
    );
    assert!(daemon.get(&format!("{groups}&experiment=x")).await["series"][0].is_null());
    for bad in ["channel=team-a", "scope=cluster", "experiment=e"] {
        let request = Daemon::request("GET", &format!("{versions}&{bad}"));
        let (status, ..) = daemon.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{bad}");
    }

    let team = daemon.account("team", &["viewer"], &["team-*"]).await;
    for path in [&versions, &groups] {
        let (status, _) = daemon.as_(&team, "GET", path, None).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{path}");
    }
    for (group, lines) in [("none", 1), ("channel", 2), ("model", 2), ("channel_model", 4)] {
        let (_, seen) = daemon
            .as_(
                &team,
                "GET",
                &format!("/api/v1/usage/series?{range}&group_by={group}"),
                None,
            )
            .await;
        let series = seen["series"].as_array().unwrap();
        assert_eq!(series.len(), lines, "{group}");
        assert_eq!(
            series.iter().map(|l| sum(l, "requests")).sum::<i64>(),
            360,
            "{group}"
        );
        assert!(!seen.to_string().contains("wechat001"));
    }
    for bad in ["step=61", "step=0", "from=0", "group_by=x", "steps=60"] {
        let request = Daemon::request("GET", &format!("/api/v1/usage/series?{bad}"))
            .body(Body::empty())
            .unwrap();
        assert_eq!(daemon.send(request).await.0, StatusCode::BAD_REQUEST, "{bad}");
    }
}

#[tokio::test]
async fn requests_are_found_by_what_is_known_of_them() {
    let daemon = Daemon::start(Folders::new()).await;
    history(&daemon);
    let count = async |query: &str| {
        daemon.get(&format!("/api/v1/requests?limit=1000&{query}")).await["requests"]
            .as_array()
            .unwrap()
            .len()
    };
    assert_eq!(count("").await, 216);
    assert_eq!(count("channel=team-a&model=qwen").await, 36);
    assert_eq!(count("status=502").await, 108);
    assert_eq!(count("class=upstream&channel=team-b").await, 36);
    assert_eq!(count("deployment=gpt-4o%2Fp").await, 216);
    assert_eq!(count("deployment=none").await, 0);
    let hour = format!("from_ms={}&to_ms={}", T0 * 1_000, (T0 + 3_600) * 1_000);
    assert_eq!(count(&hour).await, 36);
    assert_eq!(count("id=00000000000000070000000000000005").await, 1);
    assert_eq!(count("id=7").await, 0);
    assert_eq!(
        (
            count("flag=shadow").await,
            count("flag=stream").await,
            count("flag=cut").await
        ),
        (6, 216, 0)
    );
    let bad = Daemon::request("GET", "/api/v1/requests?flag=nonsense");
    assert_eq!(
        daemon.send(bad.body(Body::empty()).unwrap()).await.0,
        StatusCode::BAD_REQUEST
    );
    let mut seen = 0;
    let mut next = String::new();
    loop {
        let page = daemon.get(&format!("/api/v1/requests?limit=50{next}")).await;
        seen += page["requests"].as_array().unwrap().len();
        match page["next"].as_str() {
            Some(end) => next = format!("&before={end}"),
            None => break,
        }
    }
    assert_eq!(seen, 216);
    let newest = daemon.get("/api/v1/requests?limit=1&channel=wechat001").await["requests"][0].clone();
    let one = daemon
        .get(&format!("/api/v1/requests/{}", newest["number"]))
        .await;
    assert_eq!(one, newest);
    let team = daemon.account("team", &["viewer"], &["team-*"]).await;
    let (_, page) = daemon
        .as_(&team, "GET", "/api/v1/requests?limit=1000", None)
        .await;
    assert_eq!(page["requests"].as_array().unwrap().len(), 144);
    assert!(!page.to_string().contains("wechat001"));
    let path = format!("/api/v1/requests/{}", newest["number"]);
    assert_eq!(
        daemon.as_(&team, "GET", &path, None).await.0,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        daemon
            .as_(&team, "GET", "/api/v1/requests/nonsense", None)
            .await
            .0,
        StatusCode::NOT_FOUND
    );
}

/// The next event: its name and its data.
async fn any_event(body: &mut Body) -> (String, Value) {
    let frame = tokio::time::timeout(support::PATIENCE, body.frame())
        .await
        .expect("an event in time");
    let bytes = frame.unwrap().unwrap().into_data().unwrap();
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    assert!(text.ends_with("\n\n"), "{text}");
    let part = |name: &str| text.lines().find_map(|l| l.strip_prefix(name)).unwrap();
    (
        part("event: ").to_owned(),
        serde_json::from_str(part("data: ")).unwrap(),
    )
}

/// The next sample's data; what is said of alerts comes in between when it changes.
async fn event(body: &mut Body) -> Value {
    loop {
        match any_event(body).await {
            (name, data) if name == "sample" => return data,
            (name, _) => assert_eq!(name, "alerts"),
        }
    }
}

#[tokio::test]
async fn the_live_stream_says_once_a_second_what_happens() {
    let daemon = Daemon::start(Folders::new()).await;
    let team = daemon.account("team", &["viewer"], &["team-*"]).await;
    let open = async |request: Request<Body>| {
        let response = daemon.app.clone().oneshot(request).await.unwrap();
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        response.into_body()
    };
    let mut all = open(
        Daemon::request("GET", "/api/v1/live?top=1")
            .body(Body::empty())
            .unwrap(),
    )
    .await;
    let mut some = open(
        team.on(Request::builder().uri("/api/v1/live"))
            .body(Body::empty())
            .unwrap(),
    )
    .await;
    assert_eq!(event(&mut all).await["requests_per_s"], 0.0);
    assert_eq!(event(&mut some).await["requests_per_s"], 0.0);
    let region = &daemon.region;
    for (channel, n) in [(b"wechat001" as &[u8], 30), (b"team-a", 10)] {
        let row = region.usage_index(channel, b"gpt-4o").unwrap();
        for _ in 0..n {
            region.add_usage(
                row,
                &UsageDelta {
                    input_tokens: 5,
                    latency_us: Some(2_000),
                    ..UsageDelta::of(Class::Ok)
                },
            );
        }
    }
    let busy = async |body: &mut Body| loop {
        let sample = event(body).await;
        if sample["requests_per_s"].as_f64().unwrap() > 0.0 {
            return sample;
        }
    };
    let sample = busy(&mut all).await;
    assert_eq!(sample["by_class"]["ok"], 40, "{sample}");
    assert_eq!(
        (
            sample["channels"].as_array().unwrap().len(),
            &sample["channels"][0]["name"]
        ),
        (1, &json!("wechat001"))
    );
    assert!(sample["latency_ms"]["p99"].as_f64().unwrap() >= 2.0, "{sample}");
    let sample = busy(&mut some).await;
    assert_eq!(sample["by_class"]["ok"], 10, "{sample}");
    assert!(!sample.to_string().contains("wechat001"));
}

#[tokio::test]
async fn latencies_are_summed_up_by_channel_and_model_and_kept_from_others() {
    let daemon = Daemon::start(Folders::new()).await;
    let team = daemon.account("team", &["viewer"], &["team-*"]).await;
    for (channel, model, n) in [
        (b"wechat001" as &[u8], b"gpt-4o" as &[u8], 30),
        (b"team-a", b"gpt-4o", 10),
        (b"team-a", b"qwen", 5),
    ] {
        let row = daemon.region.usage_index(channel, model).unwrap();
        for _ in 0..n {
            let usage = UsageDelta {
                latency_us: Some(2_000),
                first_token_us: Some(700),
                ..UsageDelta::of(Class::Ok)
            };
            daemon.region.add_usage(row, &usage);
        }
    }
    let count = async |query: &str| {
        let found = daemon.get(&format!("/api/v1/latency?{query}")).await;
        assert_eq!(
            found["upper_us"].as_array().unwrap().len(),
            found["latency"]["buckets"].as_array().unwrap().len()
        );
        found["latency"]["count"].as_u64().unwrap()
    };
    assert_eq!(count("").await, 45);
    assert_eq!(count("model=gpt-4o").await, 40);
    assert_eq!(count("channel=team-a&model=qwen").await, 5);
    assert_eq!(count("channel=nobody").await, 0);
    let all = daemon.get("/api/v1/latency").await;
    assert!(all["latency"]["p50_us"].as_u64().unwrap() >= 2_000, "{all}");
    assert!(all["first_token"]["p99_us"].as_u64().unwrap() < 2_000, "{all}");
    let (_, some) = daemon.as_(&team, "GET", "/api/v1/latency", None).await;
    assert_eq!(some["latency"]["count"], 15);
}
