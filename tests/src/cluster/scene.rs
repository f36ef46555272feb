//! One fault while a crowd uses up a limit over three instances: never exceeded, and what is not stranded gets used.

use super::{Cluster, Crowd, Fault, MAX, Order, Style, Verdict, documents};
use crate::wait::{PATIENCE, wait_until};
use serde_json::json;
use std::time::{Duration, Instant};

/// Instances in a scene.
pub(super) const INSTANCES: usize = 3;
/// Whose limit is used up.
const CHANNEL: &str = "c";
/// Between two requests of a client, so that there is something left when the fault is over.
const PAUSE: Duration = Duration::from_millis(100);

/// A lease of a second has ended after that, whatever the machine does.
const DEAD_FOR_SURE: Duration = Duration::from_secs(10);

/// A fault and what it is called.
#[derive(Clone, Copy, Debug)]
pub struct Scene {
    /// Its name in the table.
    pub name: &'static str,
    /// What breaks.
    pub fault: Fault,
}

/// All of them.
pub const SCENES: [Scene; 10] = [
    scene("redis-killed", Fault::RedisKilled),
    scene("redis-empty", Fault::RedisEmpty),
    scene("redis-fails-over", Fault::RedisFailsOver),
    scene("redis-paused", Fault::RedisPaused),
    scene("redis-delayed", Fault::RedisDelayed),
    scene("redis-flaps", Fault::RedisFlaps),
    scene("instance-cut-off", Fault::CutOff(1)),
    scene("instance-reset", Fault::Reset(1)),
    scene("daemon-killed", Fault::DaemonKilled(0)),
    scene("instance-killed", Fault::InstanceKilled(2)),
];

const fn scene(name: &'static str, fault: Fault) -> Scene {
    Scene { name, fault }
}

impl Scene {
    /// Plays it. The fault lasts until the leases that it hits have ended, and then `more`.
    pub async fn play(&self, more: Duration) -> Verdict {
        let mut cluster = begin().await;
        let crowd = crowd(&cluster, PAUSE);
        wait_until("a quarter to be used", PATIENCE, || cluster.used() > MAX / 4).await;
        self.fault.begin(&mut cluster).await;
        self.fault.last(&cluster).await;
        if !more.is_zero() {
            self.fault.last_for(&cluster, more).await;
        }
        self.fault.end(&mut cluster).await;
        finish(self.name, cluster, crowd).await
    }
}

pub(super) async fn begin() -> Cluster {
    let limits = json!([{ "metric": "total_tokens", "max": MAX, "window": "10m" }]);
    Cluster::with_ways(INSTANCES, &documents().limited(CHANNEL, limits)).await
}

pub(super) fn crowd(cluster: &Cluster, pause: Duration) -> Crowd {
    let order = Order {
        channel: CHANNEL.to_owned(),
        parallel: 2 * INSTANCES,
        style: Style::Both,
        pause,
    };
    Crowd::start(cluster, &order)
}

pub(super) async fn finish(name: &str, cluster: Cluster, crowd: Crowd) -> Verdict {
    if cluster.living().count() < INSTANCES {
        // What is stranded is known when the dead one's lease of a second has ended. It may have held nothing.
        let since = Instant::now();
        while cluster.stranded().await == 0 && since.elapsed() < DEAD_FOR_SURE {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    crowd.saturate(&cluster).await;
    let verdict = Verdict {
        stranded: Some(cluster.stranded().await),
        ..Verdict::new(name, cluster.used())
    };
    cluster.stop().await;
    verdict
}
