//! Emergency actions over instances that share documents in Nacos and limits in Redis.

use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tollgate_tests::documents::Documents;
use tollgate_tests::http::{Connection, Request};
use tollgate_tests::instance::Instance;
use tollgate_tests::mock::MockLlm;
use tollgate_tests::nacos::Nacos;
use tollgate_tests::redis::Redis;
use tollgate_tests::wait::{PATIENCE, wait_for, wait_until};

const MAX: u64 = 6_000;
const LIMIT: &str = "total_tokens/10m";

struct Cluster {
    instances: Vec<Instance>,
    nacos: Nacos,
    mock: MockLlm,
    redis: Redis,
}

impl Cluster {
    async fn start() -> Self {
        let (nacos, mock, redis) = (Nacos::start().await, MockLlm::start().await, Redis::start().await);
        let mut instances = Vec::new();
        for name in ["one", "two", "three"] {
            instances.push(Instance::start(name, nacos.address(), mock.address()).await);
        }
        let requests = json!([{ "metric": "requests", "max": 100_000, "window": "10m" }]);
        let documents = Documents::new()
            .model("m", "mock")
            .limited(
                "c",
                json!([{ "metric": "total_tokens", "max": MAX, "window": "10m" }]),
            )
            .limited("free", requests)
            .any("mock", &mock.url())
            .setting("redis", json!({ "urls": [redis.url()], "timeout": "500ms" }))
            .setting("lease", json!({ "ttl": "1s" }));
        let all: serde_json::Map<String, Value> = documents
            .all()
            .into_iter()
            .map(|(kind, document)| (kind.to_owned(), document))
            .collect();
        let answer = instances[0].publish(Value::Object(all)).await;
        assert_eq!(answer.status(), 200, "{}", answer.text());
        for instance in &instances {
            wait_for("a lease", PATIENCE, || async {
                let request = Request::chat("m", " hello").channel("free").set("max_tokens", 1);
                (instance.send(&request).await.status() == 200).then_some(())
            })
            .await;
        }
        Self {
            instances,
            nacos,
            mock,
            redis,
        }
    }

    /// Acts through one instance and waits until the version that comes of it is in force at the others.
    async fn act(&self, through: usize, path: &str, body: Value, at: &[usize]) {
        let request = Request::post(&format!("/api/v1/emergency/{path}"), &body);
        let begun = Instant::now();
        let answer = self.instances[through].daemon.api(request).await;
        assert_eq!(answer.status(), 200, "{}", answer.text());
        let version = self.instances[through].version().await;
        for instance in at {
            self.instances[*instance].wait_version(version).await;
        }
        println!("emergency {path}: everywhere after {:?}", begun.elapsed());
    }

    fn tokens(&self) -> u64 {
        let tally = self.mock.stats().total();
        tally.prompt_tokens + tally.completion_tokens
    }

    /// Asks every instance in turn until all of them have refused for a while; what the models served meanwhile.
    async fn saturate(&self) -> u64 {
        let before = self.tokens();
        let request = Request::chat("m", " hello the water is clear")
            .channel("c")
            .set("max_tokens", 30)
            .set("mock", json!({ "tokens": 30 }));
        let mut refused_since: Option<Instant> = None;
        let begun = Instant::now();
        while refused_since.is_none_or(|since| since.elapsed() < Duration::from_secs(3)) {
            assert!(begun.elapsed() < PATIENCE * 2, "still not full");
            let mut admitted = false;
            for instance in &self.instances {
                match instance.send(&request).await.status() {
                    200 => admitted = true,
                    status => assert_eq!(status, 429),
                }
            }
            if admitted {
                refused_since = None;
            } else {
                refused_since.get_or_insert_with(Instant::now);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        self.tokens() - before
    }

    async fn stop(self) {
        for instance in self.instances {
            instance.stop().await;
        }
        drop((self.nacos, self.mock, self.redis));
    }
}

fn within(used: u64, max: u64) {
    println!("used {used} of {max}");
    assert!(used <= max, "{used} of {max}");
    assert!(used >= max * 95 / 100, "only {used} of {max}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_over_instances_is_reset_and_topped_up_without_an_overrun() {
    let cluster = Cluster::start().await;
    within(cluster.saturate().await, MAX);
    let all = [0, 1, 2];
    cluster
        .act(1, "channels/c/limits/reset", json!({ "limit": LIMIT }), &all)
        .await;
    within(cluster.saturate().await, MAX);
    let body = json!({ "limit": LIMIT, "add": 3_000 });
    cluster.act(2, "channels/c/limits/top-up", body, &all).await;
    let used = cluster.saturate().await;
    println!("topped up by 3000: {used}");
    assert!((2_700..=3_000 + MAX / 20).contains(&used), "{used}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_end_everywhere_and_where_the_order_comes_late() {
    let mut cluster = Cluster::start().await;
    let held = Request::chat("m", " hello")
        .channel("free")
        .set("stream", true)
        .set("mock", json!({ "tokens": 20, "hold": 5 }));
    let mut streams = Vec::new();
    for instance in &cluster.instances {
        let mut stream = Connection::open(instance.nginx.address()).await.unwrap();
        assert_eq!(stream.send(&held).await.unwrap().status, 200);
        streams.push(stream);
    }
    cluster.instances[2].daemon.kill();
    cluster
        .act(0, "channels/free/block", json!({ "end_streams": true }), &[0, 1])
        .await;
    let cut_off = streams.pop().expect("three streams");
    for stream in &mut streams {
        let rest = tokio::time::timeout(PATIENCE, stream.read_body()).await;
        let rest = String::from_utf8(rest.expect("it ends").unwrap()).unwrap();
        assert!(rest.contains("ended_by_operator"), "{rest}");
    }
    let third = cluster.instances[2].region();
    assert_eq!(third.inflight(10).len(), 1, "nobody has told the third");
    cluster.instances[2].daemon.restart().await;
    let mut late = cut_off;
    let rest = tokio::time::timeout(PATIENCE, late.read_body()).await;
    let rest = String::from_utf8(rest.expect("it ends").unwrap()).unwrap();
    assert!(rest.contains("ended_by_operator"), "{rest}");
    for instance in &cluster.instances {
        wait_until("nothing in flight", PATIENCE, || {
            instance.region().inflight(1).is_empty()
        })
        .await;
        assert_eq!(instance.send(&held).await.status(), 403);
    }
    cluster.stop().await;
}
