//! Usage of the whole cluster, read from any of three instances, equals what the mocks served: through a Redis that dies, comes
//! back, or comes back empty, and daemons that are killed.

mod load {
    use serde_json::{Value, json};
    use std::time::Duration;
    use tollgate_tests::cluster::{Cluster, Crowd, Figures, Order, Style, documents};
    use tollgate_tests::gateway::Gateway;
    use tollgate_tests::wait::{PATIENCE, wait_for};

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

    async fn everywhere(cluster: &Cluster, expected: (u64, u64)) {
        for member in &cluster.members {
            let gateway = &member.gateway;
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
        let limits = json!([{ "metric": "total_tokens", "max": 1_000_000_000, "window": "10m" }]);
        let mut cluster = Cluster::start(3, &documents().limited("c", limits)).await;
        let order = Order {
            channel: "c".to_owned(),
            parallel: 6,
            style: Style::Both,
            pause: Duration::ZERO,
        };
        let crowd = Crowd::start(&cluster, &order);
        crowd.served(100).await;
        cluster.redis.kill();
        crowd.served(100).await;
        cluster.members[1].gateway.daemon.kill();
        crowd.served(100).await;
        cluster.redis.restart().await;
        cluster.members[2].gateway.daemon.kill();
        crowd.served(100).await;
        cluster.members[1].gateway.daemon.restart().await;
        cluster.redis.kill();
        cluster.members[2].gateway.daemon.restart().await;
        crowd.served(100).await;
        cluster.redis.restart().await;
        crowd.served(100).await;
        crowd.end().await;
        for member in &cluster.members {
            member.gateway.wait_idle().await;
        }
        let completed = cluster
            .members
            .iter()
            .map(|m| m.gateway.mock.stats().model("mock").completed);
        let completed: u64 = completed.sum();
        let expected = (completed, cluster.used());
        everywhere(&cluster, expected).await;
        println!(
            "usage requests {} tokens {} exact at three instances",
            expected.0, expected.1
        );

        // An empty Redis has all of it again from the ledgers.
        cluster.redis.restart_empty().await;
        for member in &cluster.members {
            wait_for("the cluster's usage to be there again", PATIENCE * 2, || async {
                let answer = member.gateway.daemon.get("/usage?step=0&model=m").await;
                let whole = answer["scope"] == "cluster" && number(&answer["total"], "ok") == completed;
                whole.then_some(())
            })
            .await;
        }
        everywhere(&cluster, expected).await;
        for member in &cluster.members {
            wait_for("nothing to wait", PATIENCE, || async {
                let figures = Figures::of(&member.gateway.daemon).await;
                (figures.get("tollgate_usage_spool_depth") == 0).then_some(())
            })
            .await;
        }

        // Without Redis each instance knows its own, and says so.
        cluster.redis.kill();
        let own: Vec<Value> = [
            cluster.members[0]
                .gateway
                .daemon
                .get("/usage?step=0&scope=instance&model=m")
                .await,
            cluster.members[0]
                .gateway
                .daemon
                .get("/usage?step=0&model=m")
                .await,
        ]
        .into();
        assert_eq!(own[0]["total"], own[1]["total"]);
        assert_eq!(own[1]["scope"], "instance");
        assert!(
            own[1]["note"].as_str().is_some_and(|n| n.contains("Redis")),
            "{}",
            own[1]
        );
        cluster.stop().await;
    }
}
