//! A limit over several instances under far more requests than it has room for: never exceeded, and nearly used up.

mod cluster;

mod load {
    use super::cluster::{Crowd, MAX, documents, instances, tokens};
    use serde_json::json;
    use tollgate_tests::redis::Redis;

    async fn case(kind: &str, count: usize, parallel: usize) {
        let redis = Redis::start().await;
        let limits = json!([{ "metric": "total_tokens", "max": MAX, "window": "10m", "algorithm": kind }]);
        let all = instances(count, &documents(&redis.url(), &limits)).await;
        let each: Vec<_> = all.iter().collect();
        Crowd::start(&each, parallel).saturate(&each).await;
        let used = tokens(&all);
        let ratio = used as f64 / MAX as f64;
        println!("case {kind}-{count}x{parallel} ratio {ratio:.3}");
        for gateway in all {
            gateway.stop().await;
        }
        assert!(used <= MAX, "{used} of {MAX}");
        assert!(ratio >= 0.95, "only {used} of {MAX}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn three_instances_one_client() {
        case("sliding_window", 3, 1).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn three_instances_fifty_clients() {
        case("sliding_window", 3, 50).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn three_instances_five_hundred_clients() {
        case("sliding_window", 3, 500).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn one_instance_fifty_clients() {
        case("sliding_window", 1, 50).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn five_instances_fifty_clients() {
        case("sliding_window", 5, 50).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn three_instances_fixed_window() {
        case("fixed_window", 3, 50).await;
    }
}
