//! The connection for what instances share, over a real Redis that is restarted between two questions.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "test code"
)]

mod redis;

use redis::{Redis, cluster, config, shared};
use tollgate::shared::{Script, Shared};

const ADD: &str = "return redis.call('INCR', KEYS[1])";

async fn read(shared: &Shared) -> Option<u64> {
    let mut command = ::redis::cmd("GET");
    command.arg(shared.key("{n}"));
    shared.query(&command).await.expect("an answer")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_be_asked_twice_survives_a_restart_of_redis() {
    let mut redis = Redis::start(&[]);
    let (_config, watch) = config(&redis.settings());
    let shared = shared(&watch);
    let add = async |script: &Script| -> Result<u64, _> {
        let keys = [shared.key("{n}")];
        shared.script(script, &keys, &[]).await
    };
    let once = Script::new(ADD);
    add(&once).await.expect("an answer");
    for round in 1..=3 {
        redis.kill();
        redis.run();
        // Many at once find the connection cut; none of them takes the new one away from the others.
        let all: Vec<_> = (0..20)
            .map(|_| {
                let shared = shared.clone();
                tokio::spawn(async move { read(&shared).await })
            })
            .collect();
        for one in all {
            assert_eq!(one.await.unwrap(), Some(1), "round {round}");
        }
    }
    redis.kill();
    redis.run();
    let mut pipe = ::redis::pipe();
    pipe.cmd("GET").arg(shared.key("{n}"));
    let (found,): (u64,) = shared.pipe(&pipe).await.expect("an answer");
    assert_eq!(found, 1);

    // A change is not made again by itself: nobody knows whether it was made.
    redis.kill();
    redis.run();
    add(&once).await.expect_err("the connection is cut");
    let before = read(&shared).await.unwrap();
    assert!(before <= 2, "{before}");
    redis.kill();
    redis.run();
    let repeatable = Script::repeatable(ADD);
    let after = add(&repeatable).await.expect("an answer");
    assert!(after > before, "{before} {after}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_redis_a_question_fails_at_once_and_works_again_after() {
    let mut redis = Redis::start(&[]);
    let (_config, watch) = config(&redis.settings());
    let shared = shared(&watch);
    assert_eq!(read(&shared).await, None);
    redis.kill();
    let mut command = ::redis::cmd("GET");
    command.arg(shared.key("{n}"));
    let asked = shared.query::<Option<u64>>(&command);
    let answer = tokio::time::timeout(redis::PATIENCE, asked)
        .await
        .expect("an end");
    assert!(answer.is_err());
    redis.run();
    let end = std::time::Instant::now() + redis::PATIENCE;
    while shared.query::<Option<u64>>(&command).await.is_err() {
        assert!(std::time::Instant::now() < end, "Redis is there");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_reads_over_a_cluster_too() {
    let (_nodes, settings) = cluster();
    let (_config, watch) = config(&settings);
    let shared = shared(&watch);
    let keys = ["{n}", "{n}:2"].map(|key| shared.key(key));
    let script = Script::repeatable("return {redis.call('TIME'), redis.call('MGET', unpack(KEYS))}");
    let ((seconds, _), found): ((u64, u64), Vec<Option<String>>) =
        shared.script(&script, &keys, &[]).await.expect("an answer");
    assert!(seconds > 1_600_000_000);
    assert_eq!(found, [None, None]);
}
