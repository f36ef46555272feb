//! Redis in every kind of trouble: requests go on by the policy, the answers, the log, the API and the metrics say so, and it ends.

use serde_json::{Value, json};
use std::time::Duration;
use tollgate_tests::cluster::{Cluster, Figures, documents};
use tollgate_tests::http::{Request, Response};
use tollgate_tests::redis::Redis;
use tollgate_tests::wait::{PATIENCE, wait_for, wait_until};

/// The maximum, in requests.
const MAX: u64 = 1_000;

/// One instance under this policy, which has used some of its limit and holds more.
async fn instance(policy: &str) -> Cluster {
    let limits = json!([{ "metric": "requests", "max": MAX, "window": "10m" }]);
    let documents = documents()
        .limited("c", limits)
        .setting("lease", json!({ "ttl": "1s", "policy": policy }));
    let cluster = Cluster::with_ways(1, &documents).await;
    // A Redis that is new grants nothing for the length of a lease.
    wait_whole(&cluster).await;
    for _ in 0..5 {
        let answer = ask(&cluster).await;
        assert_eq!(
            (answer.status(), degraded(&answer)),
            (200, None),
            "{}",
            answer.text()
        );
    }
    cluster
}

async fn ask(cluster: &Cluster) -> Response {
    let gateway = &cluster.members[0].gateway;
    gateway.send(&Request::chat("m", " hello").channel("c")).await
}

/// What an answer says of how it was decided.
fn degraded(answer: &Response) -> Option<&str> {
    answer.header("x-tollgate-degraded")
}

async fn wait_fenced(cluster: &Cluster) {
    let member = &cluster.members[0];
    wait_until("the lease to end", PATIENCE, || member.is_fenced()).await;
}

/// Waits until answers are decided by a lease again.
async fn wait_whole(cluster: &Cluster) {
    cluster.wait_settled().await;
    wait_for("an answer decided by a lease", PATIENCE, || async {
        let answer = ask(cluster).await;
        (answer.status() == 200 && degraded(&answer).is_none()).then_some(())
    })
    .await;
}

async fn api(cluster: &Cluster) -> Value {
    cluster.members[0].gateway.daemon.get("/instance").await["redis"].clone()
}

#[tokio::test]
async fn a_share_is_used_and_no_more() {
    let mut cluster = instance("share").await;
    cluster.redis.kill();
    wait_fenced(&cluster).await;
    let mut admitted = 0;
    loop {
        let answer = ask(&cluster).await;
        assert_eq!(degraded(&answer), Some("share"), "{}", answer.text());
        match answer.status() {
            200 => admitted += 1,
            429 => break,
            other => panic!("{other}: {}", answer.text()),
        }
    }
    assert!((1..=MAX / 5).contains(&admitted), "{admitted}");
    let figures = Figures::of(&cluster.members[0].gateway.daemon).await;
    assert!(figures.get("tollgate_degraded_requests_total") > admitted);
    assert_eq!(figures.get("tollgate_lease_fenced"), 1);
    cluster.redis.restart().await;
    wait_whole(&cluster).await;
    cluster.stop().await;
}

#[tokio::test]
async fn open_lets_the_whole_limit_through_and_no_more() {
    let mut cluster = instance("open").await;
    cluster.redis.kill();
    wait_fenced(&cluster).await;
    let used = cluster.members[0].gateway.used("c", "requests/10m").await;
    for _ in used..MAX {
        let answer = ask(&cluster).await;
        assert_eq!(
            (answer.status(), degraded(&answer)),
            (200, Some("open")),
            "{}",
            answer.text()
        );
    }
    let answer = ask(&cluster).await;
    assert_eq!((answer.status(), degraded(&answer)), (429, Some("open")));
    cluster.redis.restart().await;
    cluster.wait_settled().await;
    cluster.stop().await;
}

#[tokio::test]
async fn closed_refuses() {
    let mut cluster = instance("closed").await;
    cluster.redis.kill();
    wait_fenced(&cluster).await;
    let answer = ask(&cluster).await;
    assert_eq!(
        (answer.status(), degraded(&answer)),
        (429, Some("closed")),
        "{}",
        answer.text()
    );
    cluster.redis.restart().await;
    wait_whole(&cluster).await;
    cluster.stop().await;
}

/// Breaks Redis, and sees that everyone is told of trouble of this kind and requests go on; mends it, and sees that it is over.
async fn trouble(
    kind: &str,
    break_it: impl AsyncFnOnce(&mut Cluster),
    mend_it: impl AsyncFnOnce(&mut Cluster),
) {
    let mut cluster = instance("share").await;
    break_it(&mut cluster).await;
    let metric = format!("tollgate_redis_trouble{{kind=\"{kind}\"}}");
    wait_for(&format!("trouble: {kind}"), PATIENCE, || async {
        let figures = Figures::of(&cluster.members[0].gateway.daemon).await;
        (figures.get(&metric) == 1).then_some(())
    })
    .await;
    let told = api(&cluster).await;
    assert_eq!(told["trouble"]["kind"], kind, "{told}");
    wait_fenced(&cluster).await;
    let answer = ask(&cluster).await;
    assert_eq!(
        (answer.status(), degraded(&answer)),
        (200, Some("share")),
        "{}",
        answer.text()
    );

    mend_it(&mut cluster).await;
    wait_whole(&cluster).await;
    wait_for("the trouble to be over", PATIENCE, || async {
        let told = api(&cluster).await;
        (told["connected"] == true && told["trouble"].is_null()).then_some(())
    })
    .await;
    let log = cluster.members[0].gateway.daemon.log();
    let lines = log
        .lines()
        .filter(|line| line.contains(&format!("trouble=\"{kind}\"")));
    assert_eq!(lines.count(), 1, "told once, not once per attempt:\n{log}");
    assert!(log.contains("Redis answers again"), "{log}");
    cluster.stop().await;
}

#[tokio::test]
async fn gone() {
    trouble(
        "unreachable",
        async |cluster| cluster.redis.kill(),
        async |cluster| cluster.redis.restart().await,
    )
    .await;
}

#[tokio::test]
async fn ten_seconds_late() {
    let way =
        |cluster: &mut Cluster, late: Duration| cluster.members[0].way.as_ref().expect("a way").delay(late);
    trouble(
        "slow",
        async |cluster| way(cluster, Duration::from_secs(10)),
        async |cluster| way(cluster, Duration::ZERO),
    )
    .await;
}

#[tokio::test]
async fn out_of_memory() {
    trouble(
        "full",
        async |cluster| set(&cluster.redis, "CONFIG SET maxmemory 1"),
        async |cluster| set(&cluster.redis, "CONFIG SET maxmemory 0"),
    )
    .await;
}

#[tokio::test]
async fn a_wrong_password() {
    trouble(
        "refused",
        async |cluster| {
            set(&cluster.redis, "CONFIG SET requirepass another");
            // Whoever is in stays in.
            let _ = cluster
                .redis
                .ask("AUTH another\r\nCLIENT KILL TYPE normal SKIPME yes");
        },
        async |cluster| {
            let answer = cluster.redis.ask("AUTH another\r\nCONFIG SET requirepass \"\"");
            assert!(answer.is_some_and(|answer| answer.starts_with("+OK")));
        },
    )
    .await;
}

#[tokio::test]
async fn a_master_without_its_replicas() {
    trouble(
        "read_only",
        async |cluster| set(&cluster.redis, "CONFIG SET min-replicas-to-write 1"),
        async |cluster| set(&cluster.redis, "CONFIG SET min-replicas-to-write 0"),
    )
    .await;
}

/// What stands under the limit's key is no lease.
#[tokio::test]
async fn answers_that_are_errors() {
    trouble(
        "failing",
        async |cluster| {
            let answer = cluster.redis.ask("KEYS *lease*").expect("the keys");
            let key = answer.lines().nth(2).expect("a key").to_owned();
            set(&cluster.redis, &format!("SET {key} nonsense"));
        },
        async |cluster| set(&cluster.redis, "FLUSHALL"),
    )
    .await;
}

fn set(redis: &Redis, command: &str) {
    let answer = redis.ask(command).expect("an answer");
    assert!(answer.starts_with("+OK"), "{command}: {answer}");
}

/// A flush looks like lost writes: nothing is granted until everyone has reported, and what is held goes on.
#[tokio::test]
async fn flushed() {
    let cluster = instance("share").await;
    set(&cluster.redis, "FLUSHALL");
    wait_for("a quarantine", PATIENCE, || async {
        let told = api(&cluster).await;
        (told["leases"]["quarantined"] == 1).then_some(())
    })
    .await;
    let answer = ask(&cluster).await;
    assert_eq!(
        (answer.status(), degraded(&answer)),
        (200, None),
        "{}",
        answer.text()
    );
    wait_whole(&cluster).await;
    cluster.stop().await;
}
