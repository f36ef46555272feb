//! Editors at several instances that share a Redis: the lock there lets one publish at a time, and Nacos' own conditions, which this
//! server ignores, are not needed.

use serde_json::{Value, json};
use tollgate_tests::documents::Documents;
use tollgate_tests::http::{Request, Response};
use tollgate_tests::instance::Instance;
use tollgate_tests::mock::MockLlm;
use tollgate_tests::nacos::Nacos;
use tollgate_tests::redis::Redis;
use tollgate_tests::wait::{PATIENCE, wait_for};

const CHANNELS: &str = "tollgate.channels.json";

fn channels(max: u64) -> Value {
    let limits = json!([{ "metric": "total_tokens", "max": max, "window": "10m" }]);
    json!({ "channels": [{ "code": "wechat001", "trusted": true, "limits": limits }] })
}

async fn etag(at: &Instance) -> String {
    let request = Request::get(&format!("/api/v1/documents/{CHANNELS}"));
    let answer = at.daemon.api(request).await;
    answer.header("etag").expect("a version").to_owned()
}

async fn put(at: &Instance, etag: &str, max: u64) -> Response {
    let mut request = Request::new("PUT", &format!("/api/v1/documents/{CHANNELS}?message=test"))
        .header("If-Match", etag)
        .header("Content-Type", "application/json");
    request.body = channels(max).to_string().into_bytes();
    at.daemon.api(request).await
}

/// The token under which the document was last written.
fn fence(redis: &Redis) -> u64 {
    let answer = redis
        .ask(&format!("HGET tollgate:{{publish}}:fences {CHANNELS}"))
        .expect("an answer");
    answer.lines().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_editors_one_publishes_under_a_token_that_grows() {
    let mut redis = Redis::start().await;
    let (nacos, mock) = (Nacos::start().await, MockLlm::start().await);
    let mut all = Vec::new();
    for name in ["one", "two"] {
        all.push(Instance::start(name, nacos.address(), mock.address()).await);
    }
    let documents = Documents::new()
        .model("gpt-4o", "mock")
        .any("mock", &mock.url())
        .setting("redis", json!({ "urls": [redis.url()], "timeout": "500ms" }));
    let mut first: serde_json::Map<String, Value> = documents
        .all()
        .into_iter()
        .map(|(kind, document)| (kind.to_owned(), document))
        .collect();
    first.insert("channels".into(), channels(1_000));
    let answer = all[0].publish(Value::Object(first)).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let mut version = answer.json()["version"].as_u64().expect("a version");
    for instance in &all {
        instance.wait_version(version).await;
    }

    let mut last = fence(&redis);
    for round in 0..6 {
        let known = etag(&all[0]).await;
        let (a, b) = tokio::join!(
            put(&all[0], &known, 2_000 + round),
            put(&all[1], &known, 3_000 + round)
        );
        let mut statuses = [a.status(), b.status()];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 409], "{} {}", a.text(), b.text());
        let refused = if a.status() == 409 { a.json() } else { b.json() };
        assert_eq!(
            refused["diff"]["differences"][0]["path"], "channels[wechat001].limits[0].max",
            "{refused}"
        );
        version += 1;
        for instance in &all {
            instance.wait_version(version).await;
        }
        let token = fence(&redis);
        assert!(token > last, "{token} after {last}");
        last = token;
    }

    // Whoever died with the lock keeps it until it ends.
    assert!(redis.ask("SET tollgate:{publish}:holder dead PX 1500").is_some());
    let known = etag(&all[1]).await;
    let answer = put(&all[1], &known, 4_000).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert!(fence(&redis) > last);

    // Without Redis the claim in Nacos decides, as ever.
    redis.kill();
    version += 1;
    for instance in &all {
        instance.wait_version(version).await;
    }
    let known = etag(&all[0]).await;
    let (a, b) = tokio::join!(put(&all[0], &known, 5_000), put(&all[1], &known, 6_000));
    let mut statuses = [a.status(), b.status()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409], "{} {}", a.text(), b.text());
    wait_for("the last version everywhere", PATIENCE, || async {
        for instance in &all {
            if instance.version().await != version + 1 {
                return None;
            }
        }
        Some(())
    })
    .await;
    for instance in all {
        instance.stop().await;
    }
}
