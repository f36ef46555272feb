//! Usage of the whole cluster, read from any of three instances, equals what the mocks served: through a Redis that dies, comes
//! back, or comes back empty, and daemons that are killed.

mod cluster;

mod load {
    use super::cluster::{Crowd, documents, figure, instances, tokens};
    use serde_json::{Value, json};
    use std::sync::atomic::Ordering;
    use tollgate_tests::gateway::Gateway;
    use tollgate_tests::redis::Redis;
    use tollgate_tests::wait::{PATIENCE, wait_for, wait_until};

    /// Waits until so many more requests were served.
    async fn served(crowd: &Crowd, more: u64) {
        let admitted = || crowd.counts.admitted.load(Ordering::Relaxed);
        let wanted = admitted() + more;
        wait_until("requests to be served", PATIENCE, || admitted() >= wanted).await;
    }

    fn number(counters: &Value, name: &str) -> u64 {
        counters[name]
            .as_u64()
            .unwrap_or_else(|| panic!("{name} in {counters}"))
    }

    /// What an instance says the cluster has used of the model `m`: requests that went well, and tokens.
    async fn used(gateway: &Gateway) -> (u64, u64) {
        let answer = gateway.daemon.get("/usage?step=0&scope=cluster&model=m").await;
        assert_eq!(answer["scope"], "cluster", "{answer}");
        let total = &answer["total"];
        let tokens = number(total, "input_tokens") + number(total, "output_tokens");
        (number(total, "ok"), tokens)
    }

    /// What an instance's series add up to.
    async fn in_series(gateway: &Gateway, step: u64) -> (u64, u64) {
        let answer = gateway
            .daemon
            .get(&format!("/usage/series?step={step}&model=m"))
            .await;
        assert_eq!(answer["scope"], "cluster", "{answer}");
        let total = &answer["series"][0]["total"];
        let tokens = number(total, "input_tokens") + number(total, "output_tokens");
        (number(total, "ok"), tokens)
    }

    async fn everywhere(all: &[Gateway], expected: (u64, u64)) {
        for gateway in all {
            wait_for("the whole cluster's usage", PATIENCE * 2, || async {
                let found = used(gateway).await;
                assert!(found <= expected, "{found:?} of {expected:?}");
                (found == expected).then_some(())
            })
            .await;
            for step in [60, 600] {
                assert_eq!(in_series(gateway, step).await, expected);
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn totals_are_those_of_the_mocks_through_faults() {
        let mut redis = Redis::start().await;
        let limits = json!([{ "metric": "total_tokens", "max": 1_000_000_000, "window": "10m" }]);
        let mut all = instances(3, &documents(&redis, &limits)).await;
        let crowd = Crowd::start(&all.iter().collect::<Vec<_>>(), 6);
        served(&crowd, 100).await;
        redis.kill();
        served(&crowd, 100).await;
        all[1].daemon.kill();
        served(&crowd, 100).await;
        redis.restart().await;
        all[2].daemon.kill();
        served(&crowd, 100).await;
        all[1].daemon.restart().await;
        redis.kill();
        all[2].daemon.restart().await;
        served(&crowd, 100).await;
        redis.restart().await;
        served(&crowd, 100).await;
        crowd.end().await;
        for gateway in &all {
            gateway.wait_idle().await;
        }
        let completed: u64 = all.iter().map(|g| g.mock.stats().model("mock").completed).sum();
        let expected = (completed, tokens(&all));
        everywhere(&all, expected).await;
        println!(
            "usage requests {} tokens {} exact at three instances",
            expected.0, expected.1
        );

        // An empty Redis has all of it again from the ledgers.
        redis.restart_empty().await;
        for gateway in &all {
            wait_for("the cluster's usage to be there again", PATIENCE * 2, || async {
                let answer = gateway.daemon.get("/usage?step=0&model=m").await;
                let whole = answer["scope"] == "cluster" && number(&answer["total"], "ok") == completed;
                whole.then_some(())
            })
            .await;
        }
        everywhere(&all, expected).await;
        for gateway in &all {
            wait_for("nothing to wait", PATIENCE, || async {
                (figure(gateway, "tollgate_usage_spool_depth").await == 0).then_some(())
            })
            .await;
        }

        // Without Redis each instance knows its own, and says so.
        redis.kill();
        let own: Vec<Value> = [
            all[0].daemon.get("/usage?step=0&scope=instance&model=m").await,
            all[0].daemon.get("/usage?step=0&model=m").await,
        ]
        .into();
        assert_eq!(own[0]["total"], own[1]["total"]);
        assert_eq!(own[1]["scope"], "instance");
        assert!(
            own[1]["note"].as_str().is_some_and(|n| n.contains("Redis")),
            "{}",
            own[1]
        );
        for gateway in all {
            gateway.stop().await;
        }
    }
}
