//! What can go wrong between instances and their Redis, one at a time.

use super::{Cluster, MAX};
use crate::wait::{PATIENCE, wait_until};
use std::time::Duration;

/// How much later pieces arrive in [`Fault::RedisDelayed`].
const LATE: Duration = Duration::from_secs(2);
/// How long connections are cut and whole in [`Fault::RedisFlaps`].
const FLAP: Duration = Duration::from_millis(150);

/// Something that is broken for a while. Numbers are instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Redis is killed and comes back with what it knew.
    RedisKilled,
    /// Redis is killed and comes back empty.
    RedisEmpty,
    /// A replica that has missed the latest writes takes over from a Redis that dies.
    RedisFailsOver,
    /// Redis stands still.
    RedisPaused,
    /// Everything on the way to Redis and back takes two seconds longer.
    RedisDelayed,
    /// Connections to Redis break again and again.
    RedisFlaps,
    /// Nothing passes between an instance and Redis; no connection ends.
    CutOff(usize),
    /// An instance's connections to Redis are reset, and no new one is made.
    Reset(usize),
    /// A daemon is killed and comes back.
    DaemonKilled(usize),
    /// A whole instance is killed and does not come back.
    InstanceKilled(usize),
}

impl Fault {
    /// Breaks it.
    pub async fn begin(self, cluster: &mut Cluster) {
        match self {
            Self::RedisFailsOver => {
                let replica = cluster.redis.replica().await;
                replica.ask("REPLICAOF NO ONE");
                cluster.successor = Some(replica);
            }
            Self::RedisKilled | Self::RedisEmpty => cluster.redis.kill(),
            Self::RedisPaused => cluster.redis.pause(),
            Self::RedisDelayed => ways(cluster).for_each(|way| way.delay(LATE)),
            Self::RedisFlaps => {}
            Self::CutOff(i) => way(cluster, i).hold(true),
            Self::Reset(i) => way(cluster, i).cut(),
            Self::DaemonKilled(i) => cluster.members[i].gateway.daemon.kill(),
            Self::InstanceKilled(i) => {
                cluster.members[i].dead = true;
                cluster.members[i].gateway.kill();
            }
        }
    }

    /// Lets it last until the leases of all that it hits have ended, where it is of that kind.
    pub async fn last(self, cluster: &Cluster) {
        let hit = match self {
            Self::RedisKilled | Self::RedisPaused | Self::RedisDelayed => 0..cluster.members.len(),
            Self::CutOff(i) | Self::Reset(i) | Self::DaemonKilled(i) => i..i + 1,
            Self::RedisEmpty | Self::InstanceKilled(_) => 0..0,
            // The writes that get lost.
            Self::RedisFailsOver => {
                let before = cluster.used();
                let enough = (before + MAX / 8).min(MAX / 10 * 9);
                return wait_until("more to be used", PATIENCE, || cluster.used() > enough).await;
            }
            Self::RedisFlaps => return self.last_for(cluster, FLAP * 20).await,
        };
        for member in cluster.members[hit].iter().filter(|m| !m.dead) {
            wait_until("the leases to end", PATIENCE, || member.is_fenced()).await;
        }
    }

    /// Lets it last for so long.
    pub async fn last_for(self, cluster: &Cluster, time: Duration) {
        if self != Self::RedisFlaps {
            return tokio::time::sleep(time).await;
        }
        let mut left = time;
        while !left.is_zero() {
            ways(cluster).for_each(|way| way.cut());
            tokio::time::sleep(FLAP.min(left)).await;
            ways(cluster).for_each(|way| way.mend());
            tokio::time::sleep(FLAP).await;
            left = left.saturating_sub(FLAP * 2);
        }
    }

    /// Mends it.
    pub async fn end(self, cluster: &mut Cluster) {
        match self {
            Self::RedisKilled => cluster.redis.restart().await,
            Self::RedisEmpty => cluster.redis.restart_empty().await,
            Self::RedisFailsOver => {
                if let Some(successor) = cluster.successor.take() {
                    cluster.redis = successor;
                }
                ways(cluster).for_each(|way| way.lead_to(cluster.redis.address()));
            }
            Self::RedisPaused => cluster.redis.resume(),
            Self::RedisDelayed => ways(cluster).for_each(|way| way.delay(Duration::ZERO)),
            Self::CutOff(i) => way(cluster, i).hold(false),
            Self::Reset(i) => way(cluster, i).mend(),
            Self::DaemonKilled(i) => cluster.members[i].gateway.daemon.restart().await,
            Self::RedisFlaps | Self::InstanceKilled(_) => {}
        }
    }
}

fn way(cluster: &Cluster, of: usize) -> &crate::fault::FaultProxy {
    let way = cluster.members[of].way.as_ref();
    way.expect("the instance has a way of its own")
}

fn ways(cluster: &Cluster) -> impl Iterator<Item = &crate::fault::FaultProxy> {
    cluster.members.iter().filter_map(|member| member.way.as_ref())
}
