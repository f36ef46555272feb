//! Several instances that share one Redis, the crowds that ask them for more than there is, and what can go wrong meanwhile.

mod case;
mod crowd;
mod fault;
mod scene;
mod schedule;
mod verdict;

pub use case::{Case, Kind};
pub use crowd::{Crowd, Order, Style};
pub use fault::Fault;
pub use scene::{SCENES, Scene};
pub use schedule::Schedule;
pub use verdict::Verdict;

use crate::daemon::Daemon;
use crate::documents::Documents;
use crate::fault::FaultProxy;
use crate::gateway::Gateway;
use crate::http::Request;
use crate::redis::Redis;
use crate::site::Site;
use crate::wait::{PATIENCE, wait_for};
use serde_json::{Value, json};

/// The maximum of a limit that is to be used up.
pub const MAX: u64 = 10_000;

/// One of several instances.
#[derive(Debug)]
pub struct Member {
    /// The instance.
    pub gateway: Gateway,
    /// Its own way to Redis, where faults are to be made.
    pub way: Option<FaultProxy>,
    /// It was killed and does not come back.
    pub dead: bool,
}

/// Running instances. Fields are in the order in which they must end.
#[derive(Debug)]
pub struct Cluster {
    /// The instances.
    pub members: Vec<Member>,
    /// What they share.
    pub redis: Redis,
    /// Who takes over from it.
    pub successor: Option<Redis>,
}

/// Documents with the model `m` at the mock, and leases of one second.
pub fn documents() -> Documents {
    Documents::new()
        .model("m", "mock")
        .setting("lease", json!({ "ttl": "1s" }))
}

/// What the settings say of a Redis at this address.
pub fn redis_setting(url: &str) -> Value {
    json!({ "urls": [url], "timeout": "500ms" })
}

/// A daemon without nginx, with this Redis in its settings, and where it lives.
pub async fn daemon_at(redis: &Redis) -> (Site, Daemon) {
    daemon_with(redis, &[]).await
}

/// The same with further arguments.
pub async fn daemon_with(redis: &Redis, arguments: &[&str]) -> (Site, Daemon) {
    let site = Site::new();
    Documents::new()
        .model("m", "mock")
        .any("mock", "http://127.0.0.1:9")
        .limited("c", json!([]))
        .setting("redis", redis_setting(&redis.url()))
        .write(&site);
    let daemon = Daemon::start_with(&site, arguments).await;
    (site, daemon)
}

impl Cluster {
    /// Starts a Redis and instances that reach it directly; waits until all do.
    pub async fn start(count: usize, documents: &Documents) -> Self {
        let redis = Redis::start().await;
        let mut members = Vec::new();
        for _ in 0..count {
            members.push(Member::start(documents, &redis.url(), None).await);
        }
        Self::settled(members, redis).await
    }

    /// As [`Self::start`], each instance with a way to Redis of its own.
    pub async fn with_ways(count: usize, documents: &Documents) -> Self {
        let redis = Redis::start().await;
        let mut members = Vec::new();
        for _ in 0..count {
            let way = FaultProxy::start(redis.address()).await;
            let url = format!("redis://{}", way.address());
            members.push(Member::start(documents, &url, Some(way)).await);
        }
        Self::settled(members, redis).await
    }

    async fn settled(members: Vec<Member>, redis: Redis) -> Self {
        let cluster = Self {
            members,
            redis,
            successor: None,
        };
        cluster.wait_settled().await;
        cluster
    }

    /// Instances that live.
    pub fn living(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| !member.dead)
    }

    /// Tokens that the mocks have seen on the way, those of the dead instances too.
    pub fn used(&self) -> u64 {
        let tally = self.members.iter().map(|m| m.gateway.mock.stats().model("mock"));
        tally.map(|t| t.prompt_tokens + t.completion_tokens).sum()
    }

    /// Whether every living instance is granted what there is: it reaches Redis, has no lease that has run out, and knows of no
    /// quarantine.
    pub async fn is_settled(&self) -> bool {
        for member in self.living() {
            let figures = Figures::of(&member.gateway.daemon).await;
            let bad = ["tollgate_lease_fenced", "tollgate_lease_quarantined"];
            if figures.get("tollgate_redis_connected") != 1 || bad.iter().any(|name| figures.get(name) > 0) {
                return false;
            }
        }
        true
    }

    /// How often each living instance has sent reports, and connected to Redis.
    pub async fn reports(&self) -> Vec<(u64, u64)> {
        let mut all = Vec::new();
        for member in self.living() {
            let figures = Figures::of(&member.gateway.daemon).await;
            all.push((
                figures.get("tollgate_lease_commands_total"),
                figures.get("tollgate_redis_connections_total"),
            ));
        }
        all
    }

    /// Waits until every living instance has connected anew since `before` and a report of it was answered after that: of two
    /// reports on one limit the first has been.
    pub async fn wait_reported(&self, before: &[(u64, u64)]) {
        let connected = wait_for("new connections to Redis", PATIENCE, || async {
            let now = self.reports().await;
            let all = now.iter().zip(before).all(|(now, before)| now.1 > before.1);
            all.then_some(now)
        })
        .await;
        wait_for("reports", PATIENCE, || async {
            let now = self.reports().await;
            let all = now.iter().zip(&connected).all(|(now, then)| now.0 >= then.0 + 2);
            all.then_some(())
        })
        .await;
        self.wait_settled().await;
    }

    /// Waits for [`Self::is_settled`].
    pub async fn wait_settled(&self) {
        wait_for("every instance to be granted what there is", PATIENCE, || async {
            self.is_settled().await.then_some(())
        })
        .await;
    }

    /// Units that count for dead instances, by the word of a living one.
    pub async fn stranded(&self) -> u64 {
        let member = self.living().next().expect("an instance lives");
        Figures::of(&member.gateway.daemon)
            .await
            .get("tollgate_lease_stranded_units")
    }

    /// Ends the living gracefully; their logs are looked at.
    pub async fn stop(self) {
        for member in self.members {
            if member.dead {
                drop(member);
            } else {
                member.gateway.stop().await;
            }
        }
    }
}

impl Member {
    async fn start(documents: &Documents, url: &str, way: Option<FaultProxy>) -> Self {
        let documents = documents.clone().setting("redis", redis_setting(url));
        Self {
            gateway: Gateway::with(documents).start().await,
            way,
            dead: false,
        }
    }

    /// Whether no lease that it holds runs any more, by its shared memory: the daemon need not live.
    pub fn is_fenced(&self) -> bool {
        let region = self.gateway.region();
        let now = region.now_ms();
        region
            .leased_rows()
            .filter_map(|row| region.lease_view(row))
            .all(|view| view.words.allowance == 0 || view.words.fence_ms <= now)
    }
}

/// A daemon's metrics.
#[derive(Debug)]
pub struct Figures(String);

impl Figures {
    /// Asks for them.
    ///
    /// # Panics
    /// If the daemon does not answer.
    pub async fn of(daemon: &Daemon) -> Self {
        Self(daemon.api(Request::get("/metrics")).await.text())
    }

    /// The figure of that name, labels included.
    ///
    /// # Panics
    /// If there is none, or it is no whole number.
    pub fn get(&self, name: &str) -> u64 {
        let mut lines = self.0.lines();
        let figure = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        figure
            .and_then(|n| n.parse().ok())
            .unwrap_or_else(|| panic!("no {name}"))
    }
}
