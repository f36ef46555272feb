//! A limit over three instances while something is broken: never exceeded, and what is not stranded is used. `make
//! bench-accuracy` plays the same scenes for longer, and more schedules.

mod load {
    use std::time::Duration;
    use tollgate_tests::cluster::{SCENES, Schedule};

    async fn scene(name: &str) {
        let scene = SCENES.iter().find(|scene| scene.name == name);
        let scene = scene.expect("a scene of that name");
        scene.play(Duration::ZERO).await.assert();
    }

    async fn schedule(seed: u64) {
        let schedule = Schedule::new(seed);
        println!("{schedule}");
        schedule.play().await.assert();
    }

    /// Redis is killed while clients ask, and comes back with what it knew.
    #[tokio::test(flavor = "multi_thread")]
    async fn redis_is_killed_and_comes_back() {
        scene("redis-killed").await;
    }

    /// Redis comes back empty while every instance lives: they report again, and nothing is granted twice.
    #[tokio::test(flavor = "multi_thread")]
    async fn redis_forgets_everything() {
        scene("redis-empty").await;
    }

    /// A replica that has missed writes takes over.
    #[tokio::test(flavor = "multi_thread")]
    async fn redis_fails_over_and_loses_writes() {
        scene("redis-fails-over").await;
    }

    /// Redis stands still without closing a connection.
    #[tokio::test(flavor = "multi_thread")]
    async fn redis_stands_still() {
        scene("redis-paused").await;
    }

    /// Redis' answers come later than anybody waits for them.
    #[tokio::test(flavor = "multi_thread")]
    async fn redis_is_two_seconds_late() {
        scene("redis-delayed").await;
    }

    /// Connections to Redis break all the time.
    #[tokio::test(flavor = "multi_thread")]
    async fn redis_comes_and_goes() {
        scene("redis-flaps").await;
    }

    /// One instance cannot reach Redis; when it can, what it sent before arrives late.
    #[tokio::test(flavor = "multi_thread")]
    async fn an_instance_is_cut_off_and_comes_back() {
        scene("instance-cut-off").await;
    }

    /// A daemon is killed and started again: it goes on with what its predecessor held.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_daemon_is_killed_and_comes_back() {
        scene("daemon-killed").await;
    }

    /// A whole instance is gone at once: what it held counts as spent, the others use the rest.
    #[tokio::test(flavor = "multi_thread")]
    async fn an_instance_dies() {
        scene("instance-killed").await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn two_faults_at_once_by_lot() {
        schedule(1).await;
    }
}
