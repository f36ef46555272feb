//! Settings: everything that exists once.

use super::{Alerts, Backup, Cidr, Limit, Moment, Oidc, Relief, Span, channel::yes};
use schemars::JsonSchema;
use serde::Deserialize;
use std::net::SocketAddr;

/// Where a request says which channel it is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChannelSource {
    /// A request header.
    Header(String),
    /// A query parameter.
    Query(String),
    /// A cookie.
    Cookie(String),
    /// A field of the JSON body.
    Body(String),
    /// `true`: the channel whose key is the bearer token or `x-api-key`.
    ApiKey(bool),
}

/// What a request without a known channel gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UnknownChannel {
    /// 401.
    #[default]
    Deny,
}

/// Sizes of the shared-memory region; changing one takes a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Region {
    /// Counters of limits, 1,024..=16,777,216.
    pub counters: u32,
    /// Requests in flight, 64..=4,194,304.
    pub inflight: u32,
    /// Events that the daemon has not read yet, 64..=4,194,304.
    pub ring: u32,
    /// Rows of usage per channel × model, 64..=4,194,304.
    pub usage: u32,
    /// Worker processes at once, 1..=1,024.
    pub workers: u32,
}

impl Default for Region {
    fn default() -> Self {
        Self {
            counters: 131_072,
            inflight: 65_536,
            ring: 262_144,
            usage: 16_384,
            workers: 64,
        }
    }
}

/// The daemon's log of requests.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RequestLog {
    /// Whether it is kept.
    pub enabled: bool,
    /// Rows kept, at most 100,000,000; the oldest go first.
    pub max_rows: u64,
    /// Age at which rows go.
    pub max_age: Span,
    /// The newest rows of each instance that stand in Redis for all instances to show, at most 100,000 (a row takes about
    /// 400 bytes there); 0 for none.
    pub cluster_rows: u64,
}

impl Default for RequestLog {
    fn default() -> Self {
        Self {
            enabled: true,
            max_rows: 1_000_000,
            max_age: Span::from_millis(7 * 86_400_000),
            cluster_rows: 10_000,
        }
    }
}

/// How long usage is kept.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// Usage in buckets of one minute.
    pub minutes: Span,
    /// Usage in buckets of ten minutes.
    pub ten_minutes: Span,
    /// The whole cluster's usage in buckets of one minute; it lies in Redis' memory.
    pub cluster_minutes: Span,
    /// The whole cluster's usage in buckets of ten minutes.
    pub cluster_ten_minutes: Span,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            minutes: Span::from_millis(2 * 86_400_000),
            ten_minutes: Span::from_millis(90 * 86_400_000),
            cluster_minutes: Span::from_millis(6 * 3_600_000),
            cluster_ten_minutes: Span::from_millis(14 * 86_400_000),
        }
    }
}

/// The admin API.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Api {
    /// Address and port to listen on.
    pub listen: String,
    /// Sign-in at an identity provider, beside accounts with passwords.
    pub oidc: Option<Oidc>,
}

impl Default for Api {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:9180".to_owned(),
            oidc: None,
        }
    }
}

/// The Redis that holds limits over all instances together.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Redis {
    /// Where it is: `redis://host:port/db` or `rediss://…` for TLS; for a cluster or sentinels several.
    pub urls: Vec<String>,
    /// A single server by default; a cluster; or sentinels that know the master.
    #[serde(default)]
    pub kind: RedisKind,
    /// What sentinels call the master.
    #[serde(default = "sentinel_master")]
    pub master: String,
    /// ACL user; the default one if not given.
    pub username: Option<String>,
    /// Name of the credential with the user's password: a file in the daemon's credential folder.
    pub password_ref: Option<String>,
    /// File with the certificates that the server's is checked against; the system's if not given.
    pub ca_file: Option<String>,
    /// What all keys begin with.
    #[serde(default = "redis_prefix")]
    pub prefix: String,
    /// How long an answer may take.
    #[serde(default = "redis_timeout")]
    pub timeout: Span,
}

/// How Redis is run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RedisKind {
    /// One server, or one address that stands for it.
    #[default]
    Single,
    /// Redis Cluster.
    Cluster,
    /// Sentinels name the master.
    Sentinel,
}

fn redis_prefix() -> String {
    "tollgate".to_owned()
}

fn sentinel_master() -> String {
    "mymaster".to_owned()
}

fn redis_timeout() -> Span {
    Span::from_millis(1_000)
}

/// What happens to a limit over all instances while Redis cannot be reached and the lease has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LeasePolicy {
    /// What was set aside beforehand is used: never too much over all instances.
    #[default]
    Share,
    /// The whole maximum is used by each instance.
    Open,
    /// Requests are refused.
    Closed,
}

impl LeasePolicy {
    /// Its name in documents.
    pub fn name(self) -> &'static str {
        match self {
            Self::Share => "share",
            Self::Open => "open",
            Self::Closed => "closed",
        }
    }
}

/// How limits are shared among instances; of no effect without `redis`.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Lease {
    /// How long an instance may use what it holds without hearing from Redis, 1s..=1m.
    pub ttl: Span,
    /// How long a request waits at most for more of a limit, 0..=1s.
    pub wait: Span,
    /// What happens when the lease has ended.
    pub policy: LeasePolicy,
    /// With `share`: how much of a limit all instances together set aside for that, percent, 0..=100.
    pub standing_percent: u8,
    /// How long it stays set aside, 1m..=1d.
    pub standing_ttl: Span,
    /// How far instances' clocks may be apart, for fixed windows, 100ms..=1m.
    pub clock_skew: Span,
    /// How long connections of an instance that is silent count after its lease has ended, 0..=1d. With 0 they come back with the
    /// lease, as if it were dead; as long as the longest request, an instance that is only cut off is counted too.
    pub connections_hold: Span,
}

impl Default for Lease {
    fn default() -> Self {
        Self {
            ttl: Span::from_millis(10_000),
            wait: Span::from_millis(50),
            policy: LeasePolicy::default(),
            standing_percent: 20,
            standing_ttl: Span::from_millis(3_600_000),
            clock_skew: Span::from_millis(1_000),
            connections_hold: Span::from_millis(0),
        }
    }
}

/// How names of providers become addresses.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NameResolution {
    /// Name servers to ask, `address:port`; those of `/etc/resolv.conf` if there are none. `/etc/hosts` counts in any case.
    #[schemars(with = "Vec<String>")]
    pub nameservers: Vec<SocketAddr>,
}

/// All requests are refused with 503 while this is there.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Maintenance {
    /// What clients are told, at most 1,024 bytes.
    pub message: String,
    /// When they should come again (`Retry-After`), 1s..=1d.
    pub retry_after: Span,
}

impl Default for Maintenance {
    fn default() -> Self {
        Self {
            message: "the gateway is being maintained; try again later".to_owned(),
            retry_after: Span::from_millis(60_000),
        }
    }
}

/// How the front balancer treats instances; a part of each instance's own settings.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Balancer {
    /// Share of the clients beside other instances, 0..=256; 0 gets none.
    pub weight: u32,
    /// Takes the instance out when it becomes true, as `tollgate drain` does, and in again when it becomes false.
    pub drain: bool,
}

impl Default for Balancer {
    fn default() -> Self {
        Self {
            weight: 100,
            drain: false,
        }
    }
}

/// What only tests should say.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Testing {
    /// Token windows need not be whole minutes, only whole seconds.
    pub short_windows: bool,
}

/// Everything that exists once.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Where a request says which channel it is; the first source that says something counts.
    pub channel_source: Vec<ChannelSource>,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<Cidr>,
    /// Limits over all channels and models together.
    pub limits: Vec<Limit>,
    /// Sizes of the shared-memory region.
    pub region: Region,
    /// The least that an output reservation is clamped to, in tokens; what is left below it refuses. 1..=65,536.
    pub min_output_reservation: u64,
    /// How many times our own count an upstream may report before its usage is called suspicious, 1..=1,000.
    pub suspicious_usage_factor: f64,
    /// What a request without a known channel gets.
    pub unknown_channel: UnknownChannel,
    /// The daemon's log of requests.
    pub request_log: RequestLog,
    /// How long usage is kept.
    pub retention: Retention,
    /// The admin API.
    pub api: Api,
    /// Backups that the instance makes by itself; none without it.
    pub backup: Option<Backup>,
    /// The Redis that holds limits over all instances together; without it each instance limits for itself.
    pub redis: Option<Redis>,
    /// How limits are shared among instances.
    pub lease: Lease,
    /// How names of providers become addresses.
    pub resolver: NameResolution,
    /// How the front balancer treats the instance.
    pub balancer: Balancer,
    /// What is watched, and who is told.
    pub alerts: Alerts,
    /// Limits of these that were reset or topped up.
    pub relief: Vec<Relief>,
    /// Answers to requests that began before this instant are ended, of whatever channel.
    pub end_streams_before: Option<Moment>,
    /// All requests are refused while this is there.
    pub maintenance: Option<Maintenance>,
    /// What only tests should say.
    pub testing: Testing,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            channel_source: vec![
                ChannelSource::Header("channelcode".to_owned()),
                ChannelSource::ApiKey(yes()),
            ],
            trusted_proxies: Vec::new(),
            limits: Vec::new(),
            region: Region::default(),
            min_output_reservation: 16,
            suspicious_usage_factor: 2.0,
            unknown_channel: UnknownChannel::default(),
            request_log: RequestLog::default(),
            retention: Retention::default(),
            api: Api::default(),
            backup: None,
            redis: None,
            lease: Lease::default(),
            resolver: NameResolution::default(),
            balancer: Balancer::default(),
            alerts: Alerts::default(),
            relief: Vec::new(),
            end_streams_before: None,
            maintenance: None,
            testing: Testing::default(),
        }
    }
}
