//! Two daemons' lease tasks on a real Redis: what workers of both may use is never more than the limit, and all of it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "test code"
)]

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tollgate::cluster::{Cluster, Figures};
use tollgate::config::ConfigStatus;
use tollgate::secrets::CredentialFolder;
use tollgate_policy::documents::Settings;
use tollgate_shm::{
    Algorithm, Demand, Enforcement, LimitSpec, Metric, RefusalKind, Region, Settlement, Sizes, Worker,
};

const PATIENCE: Duration = Duration::from_secs(60);
const MAX: u64 = 2_000;

struct Redis {
    child: Child,
    port: u16,
    dir: tempfile::TempDir,
}

impl Redis {
    fn run(port: u16, dir: &std::path::Path, options: &[&str]) -> Child {
        let child = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .args(["--appendonly", "yes", "--appendfsync", "always"])
            .arg("--dir")
            .arg(dir)
            .args(options)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server of Debian's package redis-server");
        until("Redis to listen", || {
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        child
    }

    fn start(options: &[&str]) -> Redis {
        let port = loop {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            if port < 55_000 {
                break port;
            }
        };
        let dir = tempfile::tempdir().unwrap();
        Redis {
            child: Redis::run(port, dir.path(), options),
            port,
            dir,
        }
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "waited for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

struct Instance {
    _dir: tempfile::TempDir,
    region: Arc<Region>,
    worker: Worker,
    figures: Arc<Figures>,
    _config: watch::Sender<Arc<ConfigStatus>>,
    stop: watch::Sender<bool>,
    task: Option<JoinHandle<()>>,
}

impl Instance {
    fn start(redis: &serde_json::Value, secrets: &std::path::Path) -> Instance {
        let dir = tempfile::tempdir().unwrap();
        let sizes = Sizes {
            counters: 64,
            inflight: 4_096,
            ring: 64,
            usage: 64,
        };
        let region = Arc::new(Region::open_or_create(dir.path(), sizes).unwrap());
        let worker = region.attach_worker().unwrap();
        let settings: Settings =
            serde_json::from_value(json!({ "redis": redis, "lease": { "ttl": "1s" } })).unwrap();
        let (config, watching) = watch::channel(Arc::new(ConfigStatus {
            settings: Arc::new(settings),
            ..ConfigStatus::default()
        }));
        let mut instance = Instance {
            _dir: dir,
            region,
            worker,
            figures: Arc::default(),
            _config: config,
            stop: watch::Sender::new(false),
            task: None,
        };
        let cluster = Cluster::new(
            Arc::clone(&instance.region),
            watching,
            CredentialFolder(secrets.to_owned()),
            Arc::clone(&instance.figures),
        );
        instance.task = Some(tokio::spawn(cluster.run(instance.stop.subscribe())));
        instance
    }

    fn take(&mut self, key: u64, units: u64, may_wait: bool) -> Result<(), RefusalKind> {
        let limits = [LimitSpec {
            key,
            metric: Metric::InputTokens,
            algorithm: Algorithm::SlidingWindow,
            enforcement: Enforcement::Strict,
            max: MAX,
            window_ms: 600_000,
            burst: MAX,
            max_delay_ms: 0,
            open_when_full: false,
            cluster: true,
        }];
        let demand = Demand {
            limits: &limits,
            counters: None,
            input: units,
            input_exact: true,
            output: 0,
            expected_output: 0,
            min_output: 0,
            usage: None,
            price: [0, 0],
            may_wait,
        };
        let now = self.region.now_ms();
        let grant = self
            .region
            .reserve(&mut self.worker, now, &demand)
            .map_err(|r| r.kind)?;
        let used = Settlement {
            input: units,
            ..Settlement::default()
        };
        self.region.settle(&mut self.worker, grant.row, now, used);
        Ok(())
    }

    /// As a request does: waits up to 50 ms where waiting may help.
    fn ask(&mut self, key: u64, units: u64) -> bool {
        let end = Instant::now() + Duration::from_millis(50);
        loop {
            match self.take(key, units, Instant::now() < end) {
                Ok(()) => return true,
                Err(RefusalKind::LeaseShort) => std::thread::sleep(Duration::from_millis(2)),
                Err(_) => return false,
            }
        }
    }

    async fn end(mut self) {
        self.stop.send_replace(true);
        if let Some(task) = self.task.take() {
            task.await.unwrap();
        }
    }
}

/// Both ask until both have been refused for a second.
fn saturate(instances: &mut [Instance], key: u64) -> u64 {
    let mut admitted = 0;
    let mut refused_since = Instant::now();
    let mut n = 0;
    let end = Instant::now() + PATIENCE;
    while refused_since.elapsed() < Duration::from_secs(2) {
        assert!(Instant::now() < end);
        for instance in instances.iter_mut() {
            n += 1;
            let units = 1 + n * 7 % 20;
            if instance.ask(key, units) {
                admitted += units;
                refused_since = Instant::now();
            }
        }
        assert!(admitted <= MAX, "{admitted}");
    }
    admitted
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_instances_use_a_limit_up_also_over_a_restart_of_redis() {
    let mut redis = Redis::start(&["--requirepass", "a secret"]);
    let secrets = tempfile::tempdir().unwrap();
    std::fs::write(secrets.path().join("redis"), "a secret\n").unwrap();
    let settings = json!({ "urls": [format!("redis://127.0.0.1:{}", redis.port)], "password_ref": "redis" });
    let mut instances = [
        Instance::start(&settings, secrets.path()),
        Instance::start(&settings, secrets.path()),
    ];
    let (mut instances, redis) = tokio::task::spawn_blocking(move || {
        for instance in &mut instances {
            until("Redis to grant", || instance.ask(480, 1));
        }
        let used = saturate(&mut instances, 160);
        println!("{used} of {MAX}");
        assert!(used >= MAX * 95 / 100, "{used}");
        let commands: u64 = instances.iter().map(|i| i.figures.reports.load(Relaxed)).sum();
        println!("{commands} reports");

        // Half of another limit, then Redis is away for longer than a lease: what was set aside may be used, no more.
        let mut before = 0;
        while before < MAX / 2 {
            before += 10 * u64::from(instances[0].ask(320, 10));
        }
        redis.kill();
        until("the fence", || instances[0].figures.fenced.load(Relaxed) > 0);
        let away = saturate(&mut instances, 320);
        assert!(before + away <= MAX);
        redis.child = Redis::run(redis.port, redis.dir.path(), &["--requirepass", "a secret"]);
        for instance in &mut instances {
            until("Redis to grant again", || instance.ask(480, 1));
        }
        let after = saturate(&mut instances, 320);
        let used = before + away + after;
        println!("{before} before, {away} without Redis, {after} after");
        assert!((MAX * 95 / 100..=MAX).contains(&used), "{used}");
        (instances, redis)
    })
    .await
    .unwrap();
    assert!(instances.iter_mut().all(|i| i.take(160, 100, false).is_err()));
    for instance in instances {
        instance.end().await;
    }
    drop(redis);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_refuses_and_says_so() {
    let redis = Redis::start(&["--requirepass", "a secret"]);
    let secrets = tempfile::tempdir().unwrap();
    std::fs::write(secrets.path().join("redis"), "another\n").unwrap();
    let settings = json!({ "urls": [format!("redis://127.0.0.1:{}", redis.port)], "password_ref": "redis" });
    let mut instance = Instance::start(&settings, secrets.path());
    let instance = tokio::task::spawn_blocking(move || {
        until("a refusal without waiting", || {
            instance.take(160, 1, true) == Err(RefusalKind::Limit)
        });
        assert_eq!(instance.figures.connected.load(Relaxed), 0);
        instance
    })
    .await
    .unwrap();
    instance.end().await;
}
