//! What one instance finds out about deployments, the others know: one probes for all, and trouble that workers meet is passed on.

use rustix::process::Signal;
use serde_json::{Value, json};
use std::time::Duration;
use tollgate_shm::{BreakerState, DeploymentView, Readiness, Region, Verdict};
use tollgate_tests::daemon::Daemon;
use tollgate_tests::documents::{Documents, PROVIDER_KEY};
use tollgate_tests::gateway::Gateway;
use tollgate_tests::http::Request;
use tollgate_tests::mock::MockLlm;
use tollgate_tests::process;
use tollgate_tests::redis::Redis;
use tollgate_tests::site::Site;
use tollgate_tests::wait::{PATIENCE, wait_for, wait_until};

fn shared(documents: Documents, redis: &Redis) -> Documents {
    documents.setting("redis", json!({ "urls": [redis.url()], "timeout": "500ms" }))
}

fn probed(url: &str) -> Documents {
    let check = json!({ "path": "/v1/models", "interval": "1s", "unhealthy_after": 2, "healthy_after": 2 });
    Documents::new()
        .model_value(
            json!({ "name": "m", "deployments": [{ "id": "d", "provider": "p", "upstream_model": "d" }] }),
        )
        .provider(json!({
            "id": "p", "protocol": "openai", "base_url": format!("{url}/v1"), "health_check": check,
            "credentials": { "type": "bearer", "key": PROVIDER_KEY },
        }))
        .limited("c", json!([]))
}

fn view(region: &Region, id: &str) -> (DeploymentView, Readiness) {
    let row = region
        .deployment(tollgate_policy::hash_name(id.as_bytes()))
        .expect("a row");
    let view = region.deployment_view(row).expect("a row");
    (view, region.deployment_readiness(row, region.now_ms()))
}

async fn until_verdict(site: &Site, verdict: Verdict) {
    let region = Region::open(&site.region()).expect("the region opens");
    wait_until(&format!("{verdict:?}"), PATIENCE, || {
        view(&region, "d").0.verdict == verdict
    })
    .await;
}

/// Which of them leads, when exactly one does.
async fn leader(all: &[(Site, Daemon)], among: &[usize]) -> usize {
    wait_for("one leader", PATIENCE, || async {
        let mut leaders = Vec::new();
        for index in among {
            let text = all[*index].1.api(Request::get("/metrics")).await.text();
            if text.lines().any(|line| line == "tollgate_leader 1") {
                leaders.push(*index);
            }
        }
        (leaders.len() == 1).then(|| leaders[0])
    })
    .await
}

async fn own_probes(daemon: &Daemon) -> u64 {
    let counts = daemon.get("/deployments/d").await["probe"]["counts"].clone();
    ["passed", "failed", "undecided"]
        .iter()
        .map(|name| counts[name].as_u64().expect("a count"))
        .sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_instance_probes_for_all_and_another_takes_over() {
    let redis = Redis::start().await;
    let mut mock = MockLlm::start().await;
    let mut all = Vec::new();
    for _ in 0..3 {
        let site = Site::new();
        shared(probed(&mock.url()), &redis).write(&site);
        let daemon = Daemon::start(&site).await;
        all.push((site, daemon));
    }
    for (site, _) in &all {
        until_verdict(site, Verdict::Healthy).await;
    }
    let first = leader(&all, &[0, 1, 2]).await;
    mock.stop();
    for (site, _) in &all {
        until_verdict(site, Verdict::Unhealthy).await;
    }
    for (index, (_, daemon)) in all.iter().enumerate() {
        let probes = own_probes(daemon).await;
        assert_eq!(
            probes > 0,
            index == first,
            "{probes} probes by instance {index}, {first} leads"
        );
        let state = daemon.get("/deployments/d").await;
        let reason = state["probe"]["reason"].as_str().expect("a reason");
        assert!(reason.contains("connect"), "{state}");
        assert_eq!(reason.contains("says: "), index != first, "{state}");
    }

    // The leader stands still, which is all that the others see of a machine that is gone.
    process::signal(all[first].1.pid(), Signal::STOP);
    let rest: Vec<usize> = (0..3).filter(|index| *index != first).collect();
    let second = leader(&all, &rest).await;
    let _mock = MockLlm::start_on(mock.address().port()).await;
    for index in &rest {
        until_verdict(&all[*index].0, Verdict::Healthy).await;
    }
    for index in &rest {
        let probes = own_probes(&all[*index].1).await;
        assert_eq!(probes > 0, *index == second);
    }
    // It comes back, and finds that another leads.
    process::signal(all[first].1.pid(), Signal::CONT);
    until_verdict(&all[first].0, Verdict::Healthy).await;
    assert_eq!(leader(&all, &[0, 1, 2]).await, second);

    // One that is stopped leaves the lead at once.
    all[second].1.stop().await;
    let rest: Vec<usize> = (0..3).filter(|index| *index != second).collect();
    leader(&all, &rest).await;
    for index in rest {
        all[index].1.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_each_instance_probes() {
    let mut redis = Redis::start().await;
    let mock = MockLlm::start().await;
    let mut all = Vec::new();
    for _ in 0..2 {
        let site = Site::new();
        shared(probed(&mock.url()), &redis).write(&site);
        let daemon = Daemon::start(&site).await;
        all.push((site, daemon));
    }
    leader(&all, &[0, 1]).await;
    redis.kill();
    for (_, daemon) in &all {
        wait_for("probes of its own", PATIENCE, || async {
            (own_probes(daemon).await > 1).then_some(())
        })
        .await;
    }
    redis.restart().await;
    leader(&all, &[0, 1]).await;
    for (_, mut daemon) in all {
        daemon.stop().await;
    }
}

fn two_deployments(urls: [&str; 2], options: &str) -> Documents {
    let deployments: Vec<Value> = [options, ""]
        .iter()
        .enumerate()
        .map(|(i, options)| {
            json!({ "id": format!("d{i}"), "provider": format!("p{i}"), "upstream_model": format!("d{i}?tokens=4{options}") })
        })
        .collect();
    Documents::new()
        .model_value(json!({
            "name": "m", "deployments": deployments,
            "routing": { "breaker": { "failures": 5, "open": "20s", "max_open": "20s" } },
        }))
        .limited("c", json!([]))
        .openai("p0", urls[0])
        .openai("p1", urls[1])
}

struct Pair {
    _redis: Redis,
    a: Gateway,
    b: Gateway,
}

impl Pair {
    async fn start(urls: [&str; 2], options: &str) -> Self {
        let redis = Redis::start().await;
        let documents = shared(two_deployments(urls, options), &redis);
        let a = Gateway::with(documents.clone()).start().await;
        let b = Gateway::with(documents).start().await;
        Self { _redis: redis, a, b }
    }

    /// Sends requests to one instance, which all succeed, until something is so.
    async fn send_until(gateway: &Gateway, what: &str, condition: impl Fn() -> bool) {
        wait_for(what, PATIENCE, || async {
            let answer = gateway.send(&Request::chat("m", " hello").channel("c")).await;
            assert_eq!(answer.status(), 200, "{}", answer.text());
            condition().then_some(())
        })
        .await;
    }

    async fn stop(self) {
        self.a.stop().await;
        self.b.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asked_to_be_left_alone_is_left_alone_by_all() {
    let mocks = [MockLlm::start().await, MockLlm::start().await];
    let pair = Pair::start([&mocks[0].url(), &mocks[1].url()], "&status=429&retry_after=60").await;
    let (a, b) = (pair.a.region(), pair.b.region());
    Pair::send_until(&pair.a, "429 and Retry-After", || {
        view(&a, "d0").1 == Readiness::Cooling
    })
    .await;
    wait_until("the other instance to know", PATIENCE, || {
        view(&b, "d0").1 == Readiness::Cooling
    })
    .await;
    let (there, here) = (
        view(&a, "d0").0.cooling_until_ms,
        view(&b, "d0").0.cooling_until_ms,
    );
    assert!(here.abs_diff(there) < 5_000, "{here} there {there}");
    let asked = mocks[0].stats().total().requests;
    for _ in 0..40 {
        let answer = pair.b.send(&Request::chat("m", " hello").channel("c")).await;
        assert_eq!(answer.status(), 200);
    }
    assert_eq!(mocks[0].stats().total().requests, asked, "it was left alone");
    assert_eq!(view(&b, "d0").0.attempts, 0);
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_breaker_that_opens_for_what_a_provider_answers_opens_everywhere() {
    let mocks = [MockLlm::start().await, MockLlm::start().await];
    let pair = Pair::start([&mocks[0].url(), &mocks[1].url()], "&status=500").await;
    let (a, b) = (pair.a.region(), pair.b.region());
    Pair::send_until(&pair.a, "an open breaker", || {
        view(&a, "d0").0.breaker == BreakerState::Open
    })
    .await;
    wait_until("the other instance's to open", PATIENCE, || {
        view(&b, "d0").0.breaker == BreakerState::Open
    })
    .await;
    assert_eq!(view(&b, "d0").0.attempts, 0);
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_breaker_that_opens_for_want_of_a_connection_makes_others_watchful() {
    let mut gone = MockLlm::start().await;
    let there = MockLlm::start().await;
    gone.stop();
    let pair = Pair::start([&gone.url(), &there.url()], "").await;
    let (a, b) = (pair.a.region(), pair.b.region());
    Pair::send_until(&pair.a, "an open breaker", || {
        view(&a, "d0").0.breaker == BreakerState::Open
    })
    .await;
    wait_until("the other instance to be watchful", PATIENCE, || {
        view(&b, "d0").0.failures_in_row == 4
    })
    .await;
    assert_eq!(
        view(&b, "d0").0.breaker,
        BreakerState::Closed,
        "it may be the other's network"
    );
    Pair::send_until(&pair.b, "one failure", || {
        view(&b, "d0").0.breaker == BreakerState::Open
    })
    .await;
    let failed: u64 = view(&b, "d0").0.failed.iter().sum();
    assert_eq!(failed, 1, "one was enough");
    tokio::time::timeout(Duration::from_secs(60), pair.stop())
        .await
        .expect("an end");
}
