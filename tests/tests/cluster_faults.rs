//! A limit over three instances while something is broken: never exceeded, and what is not stranded is used.

mod cluster;

mod load {
    use super::cluster::{Crowd, MAX, admits, documents, figure, instances, tokens};
    use rustix::process::Signal;
    use serde_json::json;
    use std::time::Duration;
    use tollgate_tests::process;
    use tollgate_tests::redis::Redis;
    use tollgate_tests::wait::{PATIENCE, wait_for};

    fn limits() -> serde_json::Value {
        json!([{ "metric": "total_tokens", "max": MAX, "window": "10m" }])
    }

    fn report(name: &str, used: u64, stranded: u64) {
        let ratio = used as f64 / MAX as f64;
        println!("fault {name} ratio {ratio:.3} stranded {stranded}");
        assert!(used <= MAX, "{used} of {MAX}");
        let least = (MAX - stranded) * 95 / 100;
        assert!(used >= least, "only {used} of {MAX}, {stranded} stranded");
    }

    /// Redis is killed while clients ask, and comes back with what it knew.
    #[tokio::test(flavor = "multi_thread")]
    async fn redis_is_killed_and_comes_back() {
        let mut redis = Redis::start().await;
        let all = instances(3, &documents(&redis.url(), &limits())).await;
        let each: Vec<_> = all.iter().collect();
        let crowd = Crowd::start(&each, 6);
        tokio::time::sleep(Duration::from_millis(150)).await;
        redis.kill();
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(tokens(&all) <= MAX);
        redis.restart().await;
        for gateway in &all {
            admits(gateway).await;
        }
        crowd.saturate(&each).await;
        let used = tokens(&all);
        for gateway in all {
            gateway.stop().await;
        }
        report("redis-killed", used, 0);
    }

    /// Redis comes back empty while every instance lives: they report again, and nothing is granted twice.
    #[tokio::test(flavor = "multi_thread")]
    async fn redis_forgets_everything() {
        let mut redis = Redis::start().await;
        let all = instances(3, &documents(&redis.url(), &limits())).await;
        let each: Vec<_> = all.iter().collect();
        let crowd = Crowd::start(&each, 6);
        tokio::time::sleep(Duration::from_millis(150)).await;
        redis.restart_empty().await;
        for gateway in &all {
            admits(gateway).await;
        }
        crowd.saturate(&each).await;
        let used = tokens(&all);
        for gateway in all {
            gateway.stop().await;
        }
        report("redis-empty", used, 0);
    }

    /// Redis stands still for three seconds without closing a connection.
    #[tokio::test(flavor = "multi_thread")]
    async fn redis_stands_still() {
        let redis = Redis::start().await;
        let all = instances(3, &documents(&redis.url(), &limits())).await;
        let each: Vec<_> = all.iter().collect();
        let crowd = Crowd::start(&each, 6);
        tokio::time::sleep(Duration::from_millis(150)).await;
        redis.pause();
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(tokens(&all) <= MAX);
        redis.resume();
        for gateway in &all {
            admits(gateway).await;
        }
        crowd.saturate(&each).await;
        let used = tokens(&all);
        for gateway in all {
            gateway.stop().await;
        }
        report("redis-paused", used, 0);
    }

    /// A daemon is killed and started again: it goes on with what its predecessor held.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_daemon_is_killed_and_comes_back() {
        let redis = Redis::start().await;
        let mut all = instances(3, &documents(&redis.url(), &limits())).await;
        let crowd = Crowd::start(&all.iter().collect::<Vec<_>>(), 6);
        tokio::time::sleep(Duration::from_millis(150)).await;
        all[0].daemon.kill();
        tokio::time::sleep(Duration::from_secs(2)).await;
        all[0].daemon.restart().await;
        admits(&all[0]).await;
        let each: Vec<_> = all.iter().collect();
        crowd.saturate(&each).await;
        let used = tokens(&all);
        for gateway in all {
            gateway.stop().await;
        }
        report("daemon-killed", used, 0);
    }

    /// A whole instance is gone at once: what it held counts as spent, the others use the rest.
    #[tokio::test(flavor = "multi_thread")]
    async fn an_instance_dies() {
        let redis = Redis::start().await;
        let mut all = instances(3, &documents(&redis.url(), &limits())).await;
        let crowd = Crowd::start(&all.iter().collect::<Vec<_>>(), 6);
        tokio::time::sleep(Duration::from_millis(150)).await;
        all[2].daemon.kill();
        let mut dead = all[2].nginx.workers();
        dead.push(all[2].nginx.master());
        for pid in dead {
            process::signal(pid, Signal::STOP);
        }
        let alive: Vec<_> = all.iter().take(2).collect();
        crowd.abandon();
        let crowd = Crowd::start(&alive, 6);
        // Its lease has to end before what is stranded is known.
        let stranded = wait_for("what is stranded", PATIENCE, || async {
            let figure = figure(alive[0], "tollgate_lease_stranded_units").await;
            (figure > 0).then_some(figure)
        })
        .await;
        crowd.saturate(&alive).await;
        let used = tokens(&all);
        let mut dead = all[2].nginx.workers();
        dead.push(all[2].nginx.master());
        for pid in dead {
            process::signal(pid, Signal::CONT);
        }
        for gateway in all {
            drop(gateway);
        }
        report("instance-killed", used, stranded);
    }
}
