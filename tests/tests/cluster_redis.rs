//! Every way to a Redis that the settings know, what is said where there is none, and where it does not suit.

use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tollgate_tests::cluster::{Figures, daemon_at, daemon_with, documents};
use tollgate_tests::daemon::Daemon;
use tollgate_tests::documents::Documents;
use tollgate_tests::gateway::Gateway;
use tollgate_tests::http::Request;
use tollgate_tests::redis::{Redis, RedisCluster, Sentinel};
use tollgate_tests::tls::{Authority, TlsFront, Versions};
use tollgate_tests::wait::{PATIENCE, wait_for};

const USER: &str = "tollgate";
const PASSWORD: &str = "a-redis-password-0123";

/// What docs/cluster-limits.md and docs/redis.md say that the user needs.
const ACL: &[&str] = &[
    "--user",
    USER,
    "on",
    ">a-redis-password-0123",
    "~tollgate:*",
    "&tollgate:*",
    "+eval",
    "+evalsha",
    "+info",
    "+time",
    "+get",
    "+set",
    "+pexpire",
    "+hset",
    "+hdel",
    "+hgetall",
    "+publish",
    "+subscribe",
    "+sadd",
    "+config|get",
    "+ping",
    "+hget",
    "+smembers",
    "+zadd",
    "+zrangebyscore",
    "+zremrangebyscore",
    "+del",
    "+mget",
    "+incr",
    "+multi",
    "+exec",
    "+lindex",
    "+lpush",
    "+ltrim",
    "+lrange",
];

fn with(redis: Value) -> Documents {
    documents()
        .limited(
            "c",
            json!([{ "metric": "total_tokens", "max": 10_000, "window": "10m" }]),
        )
        .setting("redis", redis)
        .channel(json!({ "code": "free", "trusted": true }))
}

/// Waits until the instance has a lease of a limit that is far from full.
async fn admits(gateway: &Gateway) {
    wait_for("an allowance", PATIENCE, || async {
        let answer = gateway.send(&Request::chat("m", " hello").channel("c")).await;
        (answer.status() == 200).then_some(())
    })
    .await;
}

async fn figure(gateway: &Gateway, name: &str) -> u64 {
    Figures::of(&gateway.daemon).await.get(name)
}

fn put_password(gateway: &Gateway, text: &str) {
    let folder = gateway.site.state().join("credentials");
    std::fs::create_dir_all(&folder).expect("a folder for credentials");
    std::fs::write(folder.join("redis"), text).expect("the password's file");
}

/// Waits until the API says why Redis is not reached, and that it is in the log and the metrics as well.
async fn is_told(gateway: &Gateway, kind: &str, why: &str) {
    let failure = wait_for("Redis' trouble in the API", PATIENCE, || async {
        let state = gateway.daemon.get("/instance").await;
        let trouble = &state["redis"]["trouble"];
        let text = trouble["text"].as_str()?.to_owned();
        (trouble["kind"] == kind && text.to_lowercase().contains(why)).then_some(text)
    })
    .await;
    assert!(!failure.contains(PASSWORD) && !gateway.daemon.log().contains(PASSWORD));
    assert!(gateway.daemon.log().contains(&failure), "{failure}");
    assert_eq!(figure(gateway, "tollgate_redis_connected").await, 0);
    // Traffic goes on.
    let answer = gateway.send(&Request::chat("m", " hello").channel("free")).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_with_a_password_over_tls() {
    let redis = Redis::start_with(ACL).await;
    let (authority, stranger) = (Authority::new("ours"), Authority::new("theirs"));
    let front = TlsFront::start(redis.address(), &[authority.certify("localhost")], Versions::Both).await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, authority: &Authority| {
        let path = folder.path().join(name);
        std::fs::write(&path, authority.pem()).expect("certificates");
        path.display().to_string()
    };
    let settings = |ca: &str| {
        json!({ "urls": [format!("rediss://localhost:{}", front.address().port())], "timeout": "500ms",
            "username": USER, "password_ref": "redis", "ca_file": ca })
    };
    let theirs = file("theirs.pem", &stranger);
    let gateway = Gateway::with(with(settings(&theirs))).start().await;
    is_told(&gateway, "settings", "cannot").await;
    put_password(&gateway, PASSWORD);
    is_told(&gateway, "unreachable", "certificate").await;
    gateway
        .publish(with(settings(&file("ours.pem", &authority))))
        .await;
    admits(&gateway).await;
    put_password(&gateway, "another one");
    gateway
        .publish(with(settings(&file("ours2.pem", &authority))))
        .await;
    is_told(&gateway, "refused", "pass").await;
    // A password that is corrected is taken up without another word.
    put_password(&gateway, PASSWORD);
    wait_for("the connection", PATIENCE, || async {
        let state = gateway.daemon.get("/instance").await;
        let redis = &state["redis"];
        (redis["connected"] == true && redis["trouble"].is_null()).then_some(())
    })
    .await;
    admits(&gateway).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sentinels_name_another_master() {
    let mut master = Redis::start().await;
    let replica =
        Redis::start_with(&["--replicaof", "127.0.0.1", &master.address().port().to_string()]).await;
    let sentinel = Sentinel::start(&master).await;
    let settings =
        json!({ "urls": [sentinel.url()], "kind": "sentinel", "master": "mymaster", "timeout": "500ms" });
    let gateway = Gateway::with(with(settings)).start().await;
    admits(&gateway).await;
    wait_for("the replica to follow", PATIENCE, || async {
        let state = replica.ask("INFO replication")?;
        state.contains("master_link_status:up").then_some(())
    })
    .await;
    master.kill();
    wait_for("another master", PATIENCE, || async {
        let state = replica.ask("INFO replication")?;
        state.contains("role:master").then_some(())
    })
    .await;
    let connections = figure(&gateway, "tollgate_redis_connections_total").await;
    wait_for("a connection to it", PATIENCE, || async {
        let now = figure(&gateway, "tollgate_redis_connections_total").await;
        let connected = figure(&gateway, "tollgate_redis_connected").await;
        (now > connections && connected == 1).then_some(())
    })
    .await;
    admits(&gateway).await;
    let kept = replica.ask("KEYS tollgate:*:lease:*").expect("an answer");
    assert!(kept.contains("lease"), "{kept}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_of_three_masters() {
    let redis = RedisCluster::start().await;
    let settings = json!({ "urls": redis.urls(), "kind": "cluster", "timeout": "500ms" });
    let mut list = Vec::new();
    for window in 1..=12 {
        list.push(json!({ "metric": "total_tokens", "max": 10_000, "window": format!("{window}m") }));
    }
    let documents = with(settings).limited("many", json!(list));
    let gateway = Gateway::with(documents).start().await;
    admits(&gateway).await;
    wait_for("leases of a dozen limits", PATIENCE, || async {
        let answer = gateway.send(&Request::chat("m", " hello").channel("many")).await;
        (answer.status() == 200).then_some(())
    })
    .await;
    let with_leases = redis.nodes().iter().filter(|node| {
        let keys = node.ask("KEYS tollgate:*:lease:*").expect("an answer");
        keys.contains("lease")
    });
    assert!(with_leases.count() >= 2, "leases are spread over the masters");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_a_newer_version_are_left_alone() {
    let redis = Redis::start().await;
    assert_eq!(redis.ask("SET tollgate:schema 99").as_deref(), Some("+OK\r\n"));
    let gateway = Gateway::with(with(json!({ "urls": [redis.url()], "timeout": "500ms" })))
        .start()
        .await;
    is_told(&gateway, "settings", "schema 99").await;
    assert_eq!(redis.ask("DEL tollgate:schema").as_deref(), Some(":1\r\n"));
    admits(&gateway).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_do_not_suit_are_said_in_log_api_and_metrics() {
    let redis = Redis::start().await;
    let (_site, good) = daemon_at(&redis).await;
    let state = wait_for("a sign of life", PATIENCE, || async {
        let state = good.get("/instance").await["redis"].clone();
        (state["connected"] == true && state["heartbeat_age_ms"].is_number()).then_some(state)
    })
    .await;
    assert_eq!(state["unsuitable_settings"], json!([]), "{state}");

    for setting in ["appendonly no", "maxmemory-policy allkeys-lru"] {
        let answer = redis.ask(&format!("CONFIG SET {setting}"));
        assert!(answer.is_some_and(|a| a.starts_with("+OK")));
    }
    let (_site, bad) = daemon_at(&redis).await;
    let state = wait_for("a connection", PATIENCE, || async {
        let state = bad.get("/instance").await["redis"].clone();
        (state["connected"] == true).then_some(state)
    })
    .await;
    let said = state["unsuitable_settings"].to_string();
    assert!(
        said.contains("appendonly") && said.contains("noeviction"),
        "{state}"
    );
    let metrics = bad.api(Request::get("/metrics")).await.text();
    assert!(
        metrics
            .lines()
            .any(|l| l == "tollgate_redis_unsuitable_settings 2"),
        "{metrics}"
    );
    assert!(
        bad.log().contains("`maxmemory-policy` is `allkeys-lru`"),
        "{}",
        bad.log()
    );
}

/// What an instance sends is bounded by time and by its limits' hash tags, not by traffic.
#[tokio::test(flavor = "multi_thread")]
async fn an_instance_in_steady_use_asks_seldom() {
    const CHANNELS: usize = 10;
    const MOST: f64 = 16.0;
    let time = Duration::from_secs(15);
    let redis = Redis::start().await;
    let four: Vec<Value> = ["requests", "input_tokens", "output_tokens", "total_tokens"]
        .into_iter()
        .map(|metric| json!({ "metric": metric, "max": 100_000_000_000_u64, "window": "10m" }))
        .collect();
    let codes: Vec<String> = (0..CHANNELS).map(|n| format!("c{n}")).collect();
    let documents = Documents::new()
        .model("m", "mock")
        .setting("redis", json!({ "urls": [redis.url()] }));
    let documents = codes
        .iter()
        .fold(documents, |all, code| all.limited(code, json!(four)));
    let gateway = Gateway::with(documents).start().await;
    let ask = async || {
        let mut statuses = Vec::new();
        for code in &codes {
            let answer = gateway.send(&Request::chat("m", " hello").channel(code)).await;
            statuses.push(answer.status());
        }
        statuses
    };
    // A Redis that is new grants nothing for one lease.
    wait_for("all leases", PATIENCE, || async {
        let all = ask().await.iter().all(|status| *status == 200);
        (all && figure(&gateway, "tollgate_lease_held").await == 4 * CHANNELS as u64).then_some(())
    })
    .await;
    let reports = figure(&gateway, "tollgate_lease_reports_total").await;
    let (count, begun, mut requests) = (redis.count(), Instant::now(), 0);
    while begun.elapsed() < time {
        assert_eq!(ask().await, [200; CHANNELS]);
        requests += CHANNELS;
    }
    let rate = count.get() as f64 / begun.elapsed().as_secs_f64();
    let reports = figure(&gateway, "tollgate_lease_reports_total").await - reports;
    println!("{rate:.1} commands a second, {reports} reports, {requests} requests");
    assert!(
        reports >= 4 * CHANNELS as u64,
        "{reports}: every lease was renewed"
    );
    assert!(rate <= MOST, "{rate:.1} commands a second");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_of_one_name_say_so_and_those_without_one_have_their_own() {
    let redis = Redis::start().await;
    let twin: &[&str] = &["--instance", "twin"];
    let mut all = Vec::new();
    for arguments in [twin, twin, &[], &[]] {
        all.push(daemon_with(&redis, arguments).await);
    }
    let namesakes = async |daemon: &Daemon| {
        let told = daemon.get("/instance").await["redis"]["namesakes"].as_u64();
        let counted = Figures::of(daemon).await.get("tollgate_instance_namesakes");
        (told == Some(counted)).then_some(counted)
    };
    for (_, daemon) in &all[..2] {
        wait_for("the namesake", PATIENCE, || async {
            (namesakes(daemon).await == Some(1)).then_some(())
        })
        .await;
        assert!(daemon.log().contains("has the same name"), "{}", daemon.log());
    }
    let mut names = Vec::new();
    for (_, daemon) in &mut all[2..] {
        let cluster = daemon.get("/instances").await;
        assert_eq!(
            (&cluster["named"], &cluster["instances"][0]["instance"]),
            (&json!(false), &cluster["own"])
        );
        daemon.stop().await;
        daemon.restart().await;
        assert_eq!(
            daemon.get("/instances").await["own"],
            cluster["own"],
            "after a restart"
        );
        names.push(cluster["own"].clone());
    }
    assert_ne!(names[0], names[1]);
    // Who ends is nobody's namesake any more; that takes 20 seconds, and the next exchange.
    all[0].1.stop().await;
    wait_for("the end of the namesake", PATIENCE * 3, || async {
        (namesakes(&all[1].1).await == Some(0)).then_some(())
    })
    .await;
    for (_, daemon) in &mut all[1..] {
        daemon.stop().await;
        assert_eq!(
            daemon.log().contains("has the same name"),
            daemon.log().contains("twin")
        );
    }
}
