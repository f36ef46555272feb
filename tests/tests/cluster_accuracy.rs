//! A limit over several instances under far more requests than it has room for: never exceeded, and nearly used up. `make
//! bench-accuracy` has all cases.

mod load {
    use tollgate_tests::cluster::{Case, Kind, Style};

    async fn case(kind: Kind, style: Style, instances: usize, parallel: usize) {
        let case = Case {
            kind,
            style,
            instances,
            parallel,
        };
        let cluster = Case::cluster(instances, &[case]).await;
        case.play(&cluster).await.assert();
        cluster.stop().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn three_instances_one_client() {
        case(Kind::Sliding, Style::Both, 3, 1).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn three_instances_fifty_clients() {
        case(Kind::Sliding, Style::Plain, 3, 50).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn three_instances_five_hundred_clients() {
        case(Kind::Sliding, Style::Streaming, 3, 500).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn one_instance_fifty_clients() {
        case(Kind::Sliding, Style::Both, 1, 50).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn five_instances_fifty_clients() {
        case(Kind::Sliding, Style::Both, 5, 50).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn three_instances_fixed_window() {
        case(Kind::Fixed, Style::Both, 3, 50).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn three_instances_token_bucket() {
        case(Kind::Bucket, Style::Both, 3, 50).await;
    }
}
