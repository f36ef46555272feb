//! The gateways that are compared, and what stands around them: upstreams, Redis, the daemon.

use rustix::process::Signal;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use tollgate_shm::Region;
use tollgate_tests::daemon::Daemon;
use tollgate_tests::documents::Documents;
use tollgate_tests::http::{self, Request};
use tollgate_tests::mock::MockProcess;
use tollgate_tests::nginx::Nginx;
use tollgate_tests::port::Port;
use tollgate_tests::process;
use tollgate_tests::programs::{self, NginxTree};
use tollgate_tests::site::Site;
use tollgate_tests::wait::{PATIENCE, wait_for, wait_until};

use crate::Plan;
use crate::cluster::Instance;
use crate::generator::Generator;

/// The caller of all timed requests.
pub const CHANNEL: &str = "wechat042";
/// A caller who has used four fifths of its limits, so that every input is counted exactly before it is admitted.
pub const NEAR: &str = "near";
/// Bytes of a request's body.
const REQUEST_BYTES: usize = 1024;
/// Bytes of an answer's body.
const ANSWER_BYTES: usize = 600;
/// Far above what any round can use.
const NEVER: u64 = 100_000_000_000;
/// What makes the channel [`NEAR`] near its limits.
const FOUR_FIFTHS: &str = "mock?tokens=1&prompt_tokens=80000000000";

const BARE: &str = include_str!("../../../../bench/bare.conf");
const OFF: &str = include_str!("../../../../bench/off.conf");
const ON: &str = include_str!("../../../../bench/tollgate.conf");
const LUA: &str = include_str!("../../../../bench/lua.conf");

/// One of the compared gateways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `proxy_pass` and nothing else.
    Bare,
    /// The same with the module loaded.
    Off,
    /// The module with every limit on.
    On,
    /// The same, each limit over all instances.
    Cluster,
    /// Debian's nginx, `proxy_pass` and nothing else.
    DebianBare,
    /// Debian's nginx with the module and every limit on.
    DebianOn,
    /// Lua on Debian's nginx, counters in a shared dict.
    LuaDict,
    /// Lua on Debian's nginx, counters in Redis.
    LuaRedis,
}

impl Kind {
    const ALL: [Self; 8] = [
        Self::Bare,
        Self::Off,
        Self::On,
        Self::Cluster,
        Self::DebianBare,
        Self::DebianOn,
        Self::LuaDict,
        Self::LuaRedis,
    ];

    /// Those whose programs are there: the module for Debian's nginx is built on request only.
    pub fn available() -> Vec<Self> {
        let debian = programs::target().join("module/debian/tree.env").is_file();
        Self::ALL
            .into_iter()
            .filter(|kind| *kind != Self::DebianOn || debian)
            .collect()
    }

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Off => "off",
            Self::On => "on",
            Self::Cluster => "cluster",
            Self::DebianBare => "debian-bare",
            Self::DebianOn => "debian-on",
            Self::LuaDict => "lua-dict",
            Self::LuaRedis => "lua-redis",
        }
    }

    /// Its name in the table.
    pub fn title(self) -> &'static str {
        match self {
            Self::Bare => "bare nginx 1.28",
            Self::Off => "Tollgate loaded, off",
            Self::On => "**Tollgate, all limits on**",
            Self::Cluster => "**Tollgate, all limits over all instances**; daemon and Redis counted in",
            Self::DebianBare => "bare nginx 1.22 (Debian)",
            Self::DebianOn => "**Tollgate, all limits on** (Debian)",
            Self::LuaDict => "nginx + Lua, shared dict (Debian)",
            Self::LuaRedis => "nginx + Lua + Redis (Debian)",
        }
    }

    /// The bare nginx with the same binary.
    pub fn base(self) -> Self {
        match self {
            Self::Bare | Self::Off | Self::On | Self::Cluster => Self::Bare,
            _ => Self::DebianBare,
        }
    }

    /// Whether it decides about requests.
    pub fn is_gateway(self) -> bool {
        self.is_tollgate() || self.is_lua()
    }

    /// Whether the module is on.
    pub fn is_tollgate(self) -> bool {
        matches!(self, Self::On | Self::Cluster | Self::DebianOn)
    }

    /// Whether it uses the region that most share; the limit that is tested is then the same.
    pub fn shares_region(self) -> bool {
        matches!(self, Self::Off | Self::On | Self::DebianOn)
    }

    fn is_lua(self) -> bool {
        matches!(self, Self::LuaDict | Self::LuaRedis)
    }

    fn tree(self) -> NginxTree {
        match self {
            Self::Bare | Self::Off | Self::On | Self::Cluster => programs::nginx_named("pinned"),
            Self::DebianOn => programs::nginx_named("debian"),
            _ => NginxTree {
                name: "debian".to_owned(),
                binary: "/usr/sbin/nginx".into(),
                module: PathBuf::new(),
            },
        }
    }
}

/// What the mock is asked to do; only Tollgate maps model names, the others pass them on.
#[derive(Clone, Copy, Debug)]
pub enum Upstream {
    /// 200 events, 2 ms apart, so that each leaves by itself.
    Stream,
    /// One event a second, for four minutes.
    Open,
    /// 20 tokens, for the limit test.
    Tight,
    /// An answer that claims four fifths of a channel's limits.
    Claim,
}

impl Upstream {
    const ALL: [Self; 4] = [Self::Stream, Self::Open, Self::Tight, Self::Claim];

    /// The model name that tells the mock.
    pub fn mock_model(self) -> &'static str {
        match self {
            Self::Stream => "mock?tokens=200&chunks=200&interval=2ms",
            Self::Open => "mock?tokens=250&chunks=250&interval=1s",
            Self::Tight => "mock?tokens=20",
            Self::Claim => FOUR_FIFTHS,
        }
    }

    fn public_model(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::Open => "open",
            Self::Tight => "tight",
            Self::Claim => "claim",
        }
    }

    /// A chat request for it through this gateway.
    pub fn request(self, kind: Kind) -> Request {
        let model = if kind.is_tollgate() {
            self.public_model()
        } else {
            self.mock_model()
        };
        let channel = match self {
            Self::Tight => "tight",
            Self::Claim => NEAR,
            Self::Stream | Self::Open => CHANNEL,
        };
        let request = Request::chat(model, "How cold is the water today?").channel(channel);
        let request = match self {
            Self::Tight | Self::Claim => request,
            Self::Stream | Self::Open => request.set("stream", true),
        };
        let prefix = if kind.is_tollgate() { "" } else { "/stream" };
        Request {
            target: format!("{prefix}{}", request.target),
            ..request
        }
    }
}

/// A compared gateway that runs.
#[derive(Debug)]
pub struct Running {
    /// Which one.
    pub kind: Kind,
    /// Its nginx.
    pub nginx: Nginx,
    /// Processes on the request's path besides the worker.
    pub path: Vec<u32>,
    /// Processes beside the request's path.
    pub beside: Vec<u32>,
}

impl Running {
    /// The only worker.
    pub fn worker(&self) -> u32 {
        *self.nginx.workers().first().expect("a worker runs")
    }
}

/// What all gateways share.
#[derive(Debug)]
pub struct Bench {
    /// 1 KB chat request that names no `max_tokens`.
    pub unnamed: Vec<u8>,
    /// The same size, naming one.
    pub named: Vec<u8>,
    /// The upstream for streams and for the limit test.
    pub mock: MockProcess,
    /// Load generator, and upstream of plain requests.
    pub fast: Generator,
    /// What stands behind [`Kind::Cluster`].
    pub cluster: Option<Instance>,
    daemon: Option<Daemon>,
    redis: Option<Redis>,
    site: Site,
}

impl Bench {
    /// Starts upstreams, and Redis and the daemon where a gateway needs them.
    pub async fn prepare(plan: &Plan) -> Self {
        let fast = Generator::start(answer().into_bytes());
        let mock = MockProcess::start().await;
        let site = Site::new();
        documents(fast.address(), mock.address()).write(&site);
        // The module that is off needs a region too, as in operation.
        let needs_daemon = plan.kinds.iter().any(|kind| kind.shares_region());
        let daemon = if needs_daemon {
            Some(Daemon::start(&site).await)
        } else {
            None
        };
        if daemon.is_some() {
            wait_published(&site).await;
        }
        let cluster = if plan.kinds.contains(&Kind::Cluster) {
            Some(Instance::start(documents(fast.address(), mock.address())).await)
        } else {
            None
        };
        let redis = if plan.kinds.contains(&Kind::LuaRedis) {
            Some(Redis::start().await)
        } else {
            None
        };
        Self {
            unnamed: request(None).into_bytes(),
            named: request(Some(256)).into_bytes(),
            mock,
            fast,
            cluster,
            daemon,
            redis,
            site,
        }
    }

    /// Starts a gateway on core 0.
    pub async fn start(&self, kind: Kind, connections: u32) -> Running {
        let config = match kind {
            Kind::Bare | Kind::DebianBare => Nginx::config(BARE),
            Kind::Off => Nginx::config(&format!("{OFF}{BARE}")).with_module(),
            Kind::On | Kind::Cluster | Kind::DebianOn => Nginx::config(ON).with_module(),
            Kind::LuaDict => Nginx::config(LUA).with_lua().set("counters", "dict"),
            Kind::LuaRedis => Nginx::config(LUA).with_lua().set("counters", "redis"),
        };
        let redis_port = self.redis.as_ref().map_or(0, |redis| redis.port.number());
        let instance = self.cluster.as_ref().filter(|_| kind == Kind::Cluster);
        let site = instance.map_or(&self.site, |instance| &instance.site);
        let nginx = site
            .fill(config.tree(kind.tree()))
            .set("fast", self.fast.address())
            .set("mock", self.mock.address())
            .set("redis_port", redis_port)
            .connections(connections)
            .log_level("error")
            .wrapper(&["taskset", "-c", "0"])
            .start()
            .await;
        let mut running = Running {
            kind,
            nginx,
            path: Vec::new(),
            beside: Vec::new(),
        };
        if kind == Kind::LuaRedis {
            running
                .path
                .extend(self.redis.as_ref().map(|redis| redis.child.id()));
        }
        if let Some(instance) = instance {
            running.path.extend([instance.daemon.pid(), instance.redis.pid()]);
        } else if kind.is_tollgate() {
            running.beside.extend(self.daemon.as_ref().map(Daemon::pid));
        }
        let request = Request::post_bytes("/v1/chat/completions", self.unnamed.clone()).channel(CHANNEL);
        wait_for("the gateway's first answer", PATIENCE, || async {
            let answer = http::send(running.nginx.address(), &request).await.ok()?;
            (answer.status() == 200 && answer.body.len() == ANSWER_BYTES).then_some(())
        })
        .await;
        running
    }

    /// Ends what was started.
    pub async fn stop(self) {
        if let Some(mut instance) = self.cluster {
            instance.daemon.stop().await;
        }
        if let Some(mut daemon) = self.daemon {
            daemon.stop().await;
        }
    }
}

async fn wait_published(site: &Site) {
    wait_until("the first snapshot", PATIENCE, || {
        Region::open(&site.region()).is_ok_and(|region| region.generation() > 0)
    })
    .await;
}

/// Debian's Redis, without persistence.
#[derive(Debug)]
struct Redis {
    port: Port,
    child: Child,
}

impl Redis {
    async fn start() -> Self {
        let port = Port::free();
        let child = Command::new("setpriv")
            .args([
                "--pdeathsig",
                "KILL",
                "redis-server",
                "--bind",
                "127.0.0.1",
                "--save",
                "",
            ])
            .args(["--appendonly", "no", "--port", &port.number().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("setpriv starts Redis");
        wait_until("Redis", PATIENCE, || {
            std::net::TcpStream::connect(port.address()).is_ok()
        })
        .await;
        Self { port, child }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        process::signal(self.child.id(), Signal::TERM);
        let _ = self.child.wait();
    }
}

/// A hundred channels with the limits of `bench/gateway.lua`, and one with a limit that is reached.
fn documents(fast: SocketAddr, mock: SocketAddr) -> Documents {
    let total = json!([{ "metric": "total_tokens", "max": NEVER, "window": "10m" }]);
    let mut documents = Documents::new()
        // The region's sizes are those of operation.
        .setting("region", json!({}))
        .setting(
            "limits",
            json!([{ "metric": "total_tokens", "max": 5 * NEVER, "window": "10m" }]),
        )
        .openai("fast", &format!("http://{fast}"))
        .openai("mock", &format!("http://{mock}"))
        .template(
            json!({ "name": "all", "routes": crate::routing::routes(), "limits": [
            { "metric": "connections", "max": NEVER },
            { "metric": "requests", "max": NEVER, "window": "10m" },
            { "metric": "input_tokens", "max": NEVER, "window": "10m" },
            { "metric": "output_tokens", "max": NEVER, "window": "10m" },
            { "metric": "total_tokens", "max": NEVER, "window": "10m" },
            { "metric": "total_tokens", "max": NEVER, "window": "10m", "per_model": true },
        ] }),
        )
        .model_value(model("gpt-4o", "fast", "gpt-4o", &total))
        .limited(
            "tight",
            json!([{ "metric": "total_tokens", "max": crate::limit_test::LIMIT, "window": "10m" }]),
        );
    documents = documents.channel(json!({ "code": NEAR, "trusted": true, "extends": "all" }));
    for upstream in Upstream::ALL {
        documents = documents.model_value(model(
            upstream.public_model(),
            "mock",
            upstream.mock_model(),
            &total,
        ));
    }
    documents = crate::routing::models(documents, &total);
    for number in 0..100 {
        let code = format!("wechat{number:03}");
        documents = documents.channel(json!({ "code": code, "trusted": true, "extends": "all" }));
    }
    documents
}

fn model(name: &str, provider: &str, upstream: &str, limits: &Value) -> Value {
    json!({
        "name": name, "tokenizer": "o200k_base", "default_max_tokens": 256, "limits": limits,
        "deployments": [{ "provider": provider, "upstream_model": upstream }],
    })
}

/// A chat request with this text.
pub fn with_text(text: &str) -> Vec<u8> {
    json!({ "model": "gpt-4o", "messages": [{ "role": "user", "content": text }] })
        .to_string()
        .into_bytes()
}

/// A chat request of [`REQUEST_BYTES`].
fn request(max_tokens: Option<u64>) -> String {
    let make = |text: &str| {
        let mut body = json!({
            "model": "gpt-4o", "temperature": 0.2, "messages": [
                { "role": "system", "content": "You answer questions about the harbour's timetable, briefly." },
                { "role": "user", "content": text },
            ],
        });
        if let Some(most) = max_tokens {
            body["max_tokens"] = most.into();
        }
        body.to_string()
    };
    let empty = make("").len();
    make(&prose(REQUEST_BYTES - empty))
}

/// A chat completion whose body has [`ANSWER_BYTES`].
fn answer() -> String {
    let make = |text: &str| {
        json!({
            "id": "chatcmpl-000000000000", "object": "chat.completion", "created": 1_700_000_000, "model": "gpt-4o",
            "choices": [{
                "index": 0, "finish_reason": "stop", "message": { "role": "assistant", "content": text },
            }],
            "usage": { "prompt_tokens": 228, "completion_tokens": 70, "total_tokens": 298 },
        })
        .to_string()
    };
    let empty = make("").len();
    let body = make(&prose(ANSWER_BYTES - empty));
    let head = "HTTP/1.1 200 OK\r\nServer: mock\r\nContent-Type: application/json\r\n";
    format!("{head}Content-Length: {}\r\n\r\n{body}", body.len())
}

fn prose(bytes: usize) -> String {
    let sentence = "The ferry to the island leaves from the second pier at nine, and the way back takes an hour longer. ";
    sentence.chars().cycle().take(bytes).collect()
}
