//! Limits over two instances that are no windows of tokens: money, and connections with those of the dead.

use serde_json::{Value, json};
use tollgate_tests::cluster::{Cluster, documents};
use tollgate_tests::http::{Connection, Request};
use tollgate_tests::wait::{PATIENCE, wait_for};

/// Millionths that a million input and output tokens cost.
const PRICE: (u64, u64) = (3, 15);

fn priced() -> Value {
    json!({ "name": "paid", "tokenizer": "o200k_base", "price": { "input": PRICE.0, "output": PRICE.1 },
        "deployments": [{ "provider": "mock", "upstream_model": "mock" }] })
}

#[tokio::test]
async fn two_instances_spend_a_sum_of_money_and_no_more() {
    const MOST: u64 = 30_000;
    let limits = json!([{ "metric": "cost", "max": MOST, "window": "10m" }]);
    let documents = documents().model_value(priced()).limited("c", limits);
    let cluster = Cluster::start(2, &documents).await;
    let request = Request::chat("paid", " hello the water")
        .channel("c")
        .set("max_tokens", 10)
        .set("mock", json!({ "tokens": 10 }));
    // Some 200 millionths each, at one instance and the other, until both refuse again and again.
    let mut refused = 0;
    while refused < 40 {
        for member in &cluster.members {
            let answer = member.gateway.send(&request).await;
            match answer.status() {
                200 => refused = 0,
                429 => refused += 1,
                other => panic!("{other}: {}", answer.text()),
            }
        }
        cluster.wait_settled().await;
    }
    let tally = cluster
        .members
        .iter()
        .map(|m| m.gateway.mock.stats().model("mock"));
    let spent: u64 = tally
        .map(|t| t.prompt_tokens * PRICE.0 + t.completion_tokens * PRICE.1)
        .sum();
    assert!(spent <= MOST, "{spent}");
    assert!(spent * 100 >= MOST * 95, "{spent}");
    for member in &cluster.members {
        assert!(
            member.gateway.mock.stats().model("mock").requests > 0,
            "both had a part"
        );
    }
    cluster.stop().await;
}

/// A stream that stays open, if it is admitted.
async fn open(cluster: &Cluster, member: usize) -> Option<Connection> {
    let request = Request::chat("m", " hello")
        .channel("c")
        .set("stream", true)
        .set("mock", json!({ "tokens": 50, "hang": "mid" }));
    let address = cluster.members[member].gateway.address();
    let mut connection = Connection::open(address).await.expect("a connection");
    let head = connection.send(&request).await.expect("an answer");
    (head.status == 200).then_some(connection)
}

/// Opens streams until there are so many.
async fn open_until(cluster: &Cluster, member: usize, count: usize) -> Vec<Connection> {
    let mut streams = Vec::new();
    while streams.len() < count {
        let stream = wait_for(&format!("{count} connections at {member}"), PATIENCE, || {
            open(cluster, member)
        })
        .await;
        streams.push(stream);
    }
    streams
}

#[tokio::test]
async fn connections_of_a_dead_instance_come_back_with_its_lease() {
    const MOST: usize = 10;
    let limits = json!([{ "metric": "connections", "max": MOST }]);
    // Nothing is set aside beyond the lease: that would come back later.
    let documents = documents()
        .limited("c", limits)
        .setting("lease", json!({ "ttl": "1s", "standing_percent": 0 }));
    let mut cluster = Cluster::start(2, &documents).await;
    let lost = open_until(&cluster, 0, 6).await;
    let mut kept = open_until(&cluster, 1, MOST - 6).await;
    for member in 0..2 {
        assert!(open(&cluster, member).await.is_none(), "all are in use");
    }

    cluster.members[0].dead = true;
    cluster.members[0].gateway.kill();
    drop(lost);
    kept.extend(open_until(&cluster, 1, 6).await);
    assert_eq!(kept.len(), MOST);
    assert!(open(&cluster, 1).await.is_none(), "all are in use again");
    drop(kept);
    cluster.stop().await;
}
