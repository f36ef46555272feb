//! The newest requests of all instances are seen at each of them, once each.

use serde_json::{Value, json};
use std::collections::BTreeSet;
use tollgate_tests::cluster::{Cluster, documents};
use tollgate_tests::gateway::Gateway;
use tollgate_tests::http::{self, Request};
use tollgate_tests::wait::{PATIENCE, wait_for};

async fn page(at: &Gateway, query: &str) -> Value {
    at.daemon.get(&format!("/requests?scope=cluster&{query}")).await
}

/// Serves requests at each instance.
async fn serve(cluster: &Cluster, channel: &str, each: usize) {
    for member in &cluster.members {
        for _ in 0..each {
            let answer = member
                .gateway
                .send(&Request::chat("m", " hello").channel(channel))
                .await;
            assert_eq!(answer.status(), 200, "{}", answer.text());
        }
        member.gateway.wait_idle().await;
    }
}

/// Waits until an instance sees so many requests of a channel, and gives their ids.
async fn seen(at: &Gateway, channel: &str, count: usize) -> BTreeSet<String> {
    wait_for("the requests of all instances", PATIENCE, || async {
        let path = format!("/api/v1/requests?scope=cluster&channel={channel}&limit=1000");
        let answer = at.daemon.api(Request::get(&path)).await;
        if answer.status() == 503 {
            // A connection that a restart of Redis has cut.
            return None;
        }
        let found = answer.json();
        let lines = found["requests"].as_array().expect("lines");
        assert!(lines.len() <= count, "{found}");
        let of = |line: &Value| line["request_id"].as_str().expect("an id").to_owned();
        (lines.len() == count).then(|| lines.iter().map(of).collect())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn any_instance_shows_the_newest_requests_of_all() {
    let documents = documents()
        .channel(json!({ "code": "a", "trusted": true }))
        .channel(json!({ "code": "b", "trusted": true }));
    let mut cluster = Cluster::start(3, &documents).await;
    serve(&cluster, "a", 4).await;
    serve(&cluster, "b", 1).await;
    let all = seen(&cluster.members[0].gateway, "a", 12).await;
    assert_eq!(all.len(), 12, "each has an id of its own: {all:?}");
    for member in &cluster.members {
        assert_eq!(seen(&member.gateway, "a", 12).await, all);
        assert_eq!(seen(&member.gateway, "b", 3).await.len(), 3);
    }

    // Page by page each comes once, and newest first.
    let at = &cluster.members[1].gateway;
    let (mut lines, mut next) = (Vec::new(), Value::Null);
    loop {
        let before = next
            .as_str()
            .map_or(String::new(), |next| format!("&before={next}"));
        let found = page(at, &format!("limit=4{before}")).await;
        let ours = |line: &&Value| line["channel"] == "a" || line["channel"] == "b";
        lines.extend(found["requests"].as_array().unwrap().iter().filter(ours).cloned());
        next = found["next"].clone();
        if next.is_null() {
            break;
        }
    }
    let ids: BTreeSet<&str> = lines.iter().map(|l| l["request_id"].as_str().unwrap()).collect();
    assert_eq!((lines.len(), ids.len()), (15, 15));
    let times: Vec<u64> = lines.iter().map(|l| l["time_ms"].as_u64().unwrap()).collect();
    assert!(times.is_sorted_by(|a, b| a >= b), "{times:?}");
    let id = lines[7]["request_id"].as_str().unwrap();
    let found = page(at, &format!("id={id}")).await;
    assert_eq!(found["requests"], json!([lines[7]]));

    // Whoever may see one channel sees one channel.
    let account =
        json!({ "name": "ann", "roles": ["viewer"], "channels": ["b"], "password": "correct horse battery" });
    let made = at.daemon.api(Request::post("/api/v1/accounts", &account)).await;
    assert!(made.status() < 300, "{}", made.text());
    let login = json!({ "name": "ann", "password": "correct horse battery" });
    let login = http::send(at.daemon.address(), &Request::post("/api/v1/login", &login))
        .await
        .unwrap();
    assert_eq!(login.status(), 200, "{}", login.text());
    let cookie = login
        .header("set-cookie")
        .and_then(|c| c.split(';').next())
        .expect("a cookie");
    let narrowed = Request::get("/api/v1/requests?scope=cluster").header("cookie", cookie);
    let narrowed = http::send(at.daemon.address(), &narrowed).await.unwrap();
    let lines = narrowed.json()["requests"].as_array().expect("lines").clone();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines.iter().all(|line| line["channel"] == "b"));

    // An empty Redis has the newest again once there is a new one.
    cluster.redis.restart_empty().await;
    serve(&cluster, "a", 1).await;
    assert!(seen(&cluster.members[2].gateway, "a", 15).await.is_superset(&all));

    let wrong = at
        .daemon
        .api(Request::get("/api/v1/requests?scope=cluster&before=7"))
        .await;
    assert_eq!(wrong.status(), 400, "{}", wrong.text());
    cluster.redis.kill();
    let refused = at
        .daemon
        .api(Request::get("/api/v1/requests?scope=cluster"))
        .await;
    assert_eq!(refused.status(), 503, "{}", refused.text());
    cluster.stop().await;
}
