//! Several ledgers' usage in one real Redis: what any instance reads is the sum of all ledgers, whatever Redis loses and
//! whenever a daemon dies.

#![recursion_limit = "256"]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "test code"
)]

mod redis;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use redis::{Redis, cluster, config, shared};
use serde_json::Value;
use tokio::sync::watch;
use tollgate::config::{ConfigStatus, StatusWatch};
use tollgate::ledger::{
    Batch, COUNTERS, Counters, Delta, Keep, STEPS, SeriesQuery, SqliteReader, SqliteStore, Store as _,
    UsagePoint, UsageQuery,
};
use tollgate::shared::{Shipper, UsageReader};
use tollgate_shm::{Region, Sizes};

/// Numbers that look random and are the same in each run (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) % n
    }
}

type Sums = BTreeMap<(u64, u64, String, String), Counters>;

/// A ledger and what keeps its copy in Redis.
struct Instance {
    dir: tempfile::TempDir,
    region: Arc<Region>,
    store: SqliteStore,
    shipper: Shipper,
    watch: StatusWatch,
    _config: watch::Sender<Arc<ConfigStatus>>,
}

fn open(dir: &std::path::Path, region: &Arc<Region>, watch: &StatusWatch) -> (SqliteStore, Shipper) {
    let path = dir.join("t.db");
    let store = SqliteStore::open(&path).unwrap();
    let reader = SqliteReader::open(&path).unwrap();
    let region = Arc::clone(region);
    let shipper = Shipper::new(shared(watch), reader, store.marking(), region, watch.clone()).unwrap();
    (store, shipper)
}

impl Instance {
    fn new(redis: &Value) -> Instance {
        let dir = tempfile::tempdir().unwrap();
        let sizes = Sizes {
            counters: 64,
            inflight: 64,
            ring: 64,
            usage: 64,
        };
        let region = Arc::new(Region::open_or_create(dir.path(), sizes).unwrap());
        let (config, watch) = config(redis);
        let (store, shipper) = open(dir.path(), &region, &watch);
        Instance {
            dir,
            region,
            store,
            shipper,
            watch,
            _config: config,
        }
    }

    /// The daemon is killed and comes back: of what was in memory nothing is left.
    fn die(&mut self) {
        (self.store, self.shipper) = open(self.dir.path(), &self.region, &self.watch);
    }

    fn now(&self) -> u64 {
        self.region.now_ms() / 1_000
    }

    fn keep(&self) -> Keep {
        Keep {
            now: self.now(),
            minutes_from: 0,
            ten_minutes_from: 0,
            requests_from_ms: 0,
            requests: 0,
        }
    }

    fn use_some(&mut self, random: &mut Random, all: &mut Sums) {
        let minute = self.now() / 60 * 60 - 60 * random.below(20);
        let mut batch = Batch {
            region: 1,
            ..Batch::default()
        };
        for _ in 0..=random.below(3) {
            let (channel, model) = (format!("c{}", random.below(6)), format!("m {}", random.below(3)));
            let counters = Counters([random.below(100).cast_signed(); COUNTERS]);
            for step in STEPS {
                let bucket = minute.checked_div(step).map_or(0, |n| n * step);
                let sum = all
                    .entry((step, bucket, channel.clone(), model.clone()))
                    .or_default();
                *sum = sum.plus(&counters);
            }
            batch.deltas.push(Delta {
                minute,
                channel,
                model,
                counters,
            });
        }
        self.store.commit(&batch).unwrap();
    }

    /// Ships all that the ledger has, however long Redis needs to be there again.
    async fn ship(&mut self) {
        self.store.prune(&self.keep()).unwrap();
        let figures = self.shipper.figures();
        for _ in 0..200 {
            let failures = figures.failures.load(Relaxed);
            self.shipper.finish().await;
            if figures.failures.load(Relaxed) == failures && figures.depth.load(Relaxed) == 0 {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        panic!("the usage does not get to Redis");
    }

    /// What this instance says of all.
    async fn read(&self) -> Sums {
        let reader = UsageReader::new(shared(&self.watch));
        let mut sums = Sums::new();
        for step in STEPS {
            let query = UsageQuery {
                step,
                from: 0,
                to: u64::MAX,
                channel: None,
                model: None,
                limit: 100_000,
            };
            for point in reader.usage(&query, &|_| true).await.unwrap() {
                let UsagePoint {
                    bucket,
                    channel,
                    model,
                    counters,
                } = point;
                sums.insert((step, bucket, channel, model), counters);
            }
        }
        sums
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sums_of_all_ledgers_are_exact_whatever_redis_loses() {
    for seed in 0..6 {
        let mut random = Random(seed);
        let mut redis = Redis::start(&[]);
        let settings = redis.settings();
        let mut all: Vec<Instance> = (0..3).map(|_| Instance::new(&settings)).collect();
        let mut sums = Sums::new();
        let mut kept = redis.keep();
        for _ in 0..60 {
            let one = random.below(3) as usize;
            match random.below(12) {
                0 => all[one].die(),
                1 => {
                    redis.kill();
                    all[one].shipper.finish().await;
                    redis.run();
                }
                2 => redis.lose_all_since(kept.path()),
                3 => kept = redis.keep(),
                4 => {
                    redis.ask("FLUSHALL");
                }
                5 | 6 => all[one].ship().await,
                _ => all[one].use_some(&mut random, &mut sums),
            }
        }
        // A tag about which nothing has changed since is looked at once in a while; a daemon that starts looks at once.
        for one in &mut all {
            one.die();
            one.ship().await;
        }
        let found = all[0].read().await;
        assert_eq!(found, sums, "seed {seed}");
        assert_eq!(all[2].read().await, sums, "seed {seed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loss_is_noticed_without_a_restart() {
    let redis = Redis::start(&[]);
    let mut one = Instance::new(&redis.settings());
    let mut random = Random(1);
    let mut sums = Sums::new();
    for _ in 0..20 {
        one.use_some(&mut random, &mut sums);
        one.ship().await;
    }
    redis.ask("FLUSHALL");
    // All channels are used again, so that each tag is written to.
    for _ in 0..40 {
        one.use_some(&mut random, &mut sums);
    }
    one.ship().await;
    assert_eq!(one.read().await, sums);
    assert!(one.shipper.figures().repaired.load(Relaxed) > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_former_daemon_sends_late_changes_nothing() {
    let redis = Redis::start(&[]);
    let mut one = Instance::new(&redis.settings());
    let mut random = Random(2);
    let mut sums = Sums::new();
    one.use_some(&mut random, &mut sums);
    one.ship().await;
    // The former daemon's task lives on beside the new one's, over the same ledger.
    let (_, mut former) = open(one.dir.path(), &one.region, &one.watch);
    former.finish().await;
    for _ in 0..10 {
        one.use_some(&mut random, &mut sums);
        one.ship().await;
        former.finish().await;
        assert_eq!(one.read().await, sums);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_of_three_masters_holds_it_as_well() {
    let (nodes, settings) = cluster();
    let mut all: Vec<Instance> = (0..2).map(|_| Instance::new(&settings)).collect();
    let mut random = Random(3);
    let mut sums = Sums::new();
    for _ in 0..30 {
        for one in &mut all {
            one.use_some(&mut random, &mut sums);
        }
    }
    for one in &mut all {
        one.ship().await;
    }
    assert_eq!(all[1].read().await, sums);
    nodes[1].ask("FLUSHALL");
    for one in &mut all {
        one.die();
        one.ship().await;
    }
    assert_eq!(all[0].read().await, sums);
}

#[tokio::test(flavor = "multi_thread")]
async fn series_are_those_of_one_ledger_added_up() {
    let redis = Redis::start(&[]);
    let mut all: Vec<Instance> = (0..2).map(|_| Instance::new(&redis.settings())).collect();
    let mut random = Random(4);
    let mut sums = Sums::new();
    for _ in 0..20 {
        for one in &mut all {
            one.use_some(&mut random, &mut sums);
            one.ship().await;
        }
    }
    let now = all[0].now();
    let reader = UsageReader::new(shared(&all[0].watch));
    for (step, by_channel, by_model) in [
        (60, true, true),
        (600, true, false),
        (1_200, false, true),
        (3_600, false, false),
    ] {
        let query = SeriesQuery {
            step,
            from: now / 3_600 * 3_600 - 3_600,
            to: now + 1,
            by_channel,
            by_model,
            channel: None,
            model: Some("m 1".into()),
        };
        let mut expected: BTreeMap<(String, String), BTreeMap<u64, Counters>> = BTreeMap::new();
        for one in &all {
            let ledger = SqliteReader::open(&one.dir.path().join("t.db")).unwrap();
            let found = ledger.series(&query, usize::MAX, None).unwrap();
            assert_eq!(found.others, None);
            for line in found.lines {
                let sums = expected.entry((line.channel, line.model)).or_default();
                for (n, counters) in line.points.iter().enumerate() {
                    let sum = sums.entry(query.from + n as u64 * step).or_default();
                    *sum = sum.plus(counters);
                }
            }
        }
        for points in expected.values_mut() {
            points.retain(|_, counters| !counters.is_zero());
        }
        assert_eq!(reader.series(&query, &|_| true).await.unwrap(), expected);
    }
    // What somebody may not see is not read.
    let query = UsageQuery {
        step: 0,
        from: 0,
        to: u64::MAX,
        channel: None,
        model: None,
        limit: 100,
    };
    let seen = reader.usage(&query, &|channel| channel == "c1").await.unwrap();
    assert!(!seen.is_empty() && seen.iter().all(|p| p.channel == "c1"));
}
