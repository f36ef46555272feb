//! Ten thousand open streams through one nginx, and what each of them costs above bare nginx.

use serde_json::json;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tollgate_tests::documents::{Documents, PROVIDER_KEY};
use tollgate_tests::gateway::{self, Gateway};
use tollgate_tests::http::{Connection, Request};
use tollgate_tests::mock::MockProcess;
use tollgate_tests::nginx::{Config, Nginx};
use tollgate_tests::process;
use tollgate_tests::sse::SseReader;
use tollgate_tests::wait::{wait_for, wait_until};

const STREAMS: usize = 10_000;
/// Text events of each stream.
const TOKENS: u64 = 12;
/// Streams are held before this event: the head of the answer and four texts have arrived by then.
const HELD: u64 = 5;
/// Two cores open, feed and end ten thousand streams.
const LONG: Duration = Duration::from_secs(120);

/// The same for both: two workers, since 10,000 streams are 20,000 descriptors; connections 20 % above twice the
/// streams of a worker; the kernel shares clients out evenly.
fn config(http: &str) -> Config {
    let http = http.replace("listen {{http}};", "listen {{http}} reuseport backlog=4096;");
    Nginx::config(&http)
        .workers(2)
        .connections(12_000)
        .log_level("warn")
}

/// Bare nginx with the buffers of tollgate_proxy.conf.
const BARE: &str = "
    client_header_buffer_size 8k;
    client_body_buffer_size 1m;
    upstream bare { server {{mock}}; keepalive 256; }
    server {
        listen {{http}};
        location / {
            proxy_pass http://bare;
            proxy_http_version 1.1;
            proxy_set_header Connection '';
            proxy_buffering off;
            proxy_buffer_size 16k;
            proxy_buffers 16 16k;
            proxy_busy_buffers_size 32k;
        }
    }
";

fn request(model: &str) -> Request {
    let behaviour = json!({ "tokens": TOKENS, "interval": "250ms", "hold": HELD });
    Request::chat(model, " hello")
        .channel("wechat001")
        .set("stream", true)
        .set("max_tokens", 64)
        .set("mock", behaviour)
}

/// Clients, each with a stream of its own.
struct Crowd {
    held: Arc<AtomicUsize>,
    tasks: Vec<JoinHandle<()>>,
}

impl Crowd {
    /// Opens the streams, a few hundred at a time.
    fn open(address: SocketAddr, model: &str) -> Self {
        let held = Arc::new(AtomicUsize::new(0));
        let doors = Arc::new(Semaphore::new(256));
        let request = Arc::new(request(model));
        let tasks = (0..STREAMS)
            .map(|_| {
                let (held, doors, request) = (Arc::clone(&held), Arc::clone(&doors), Arc::clone(&request));
                tokio::spawn(async move {
                    let door = doors.acquire().await.expect("the doors stay");
                    let mut connection = Connection::open(address).await.expect("a connection");
                    let head = connection.send(&request).await.expect("an answer");
                    assert_eq!(head.status, 200);
                    drop(door);
                    watch(&mut connection, &held).await;
                })
            })
            .collect();
        Self { held, tasks }
    }

    /// Waits until every stream has brought all events before the held one.
    async fn all_held(&self) {
        wait_until("ten thousand streams", LONG, || {
            let failed = self.tasks.iter().any(JoinHandle::is_finished);
            failed || self.held.load(Ordering::Relaxed) == STREAMS
        })
        .await;
    }

    async fn all_end(self) {
        for task in self.tasks {
            tokio::time::timeout(LONG, task)
                .await
                .expect("an end in time")
                .expect("a whole stream");
        }
    }
}

/// Reads a stream to its end.
async fn watch(connection: &mut Connection, held: &AtomicUsize) {
    let mut reader = SseReader::default();
    let mut events = Vec::new();
    let mut counted = false;
    while let Some(piece) = connection.piece().await.expect("the stream goes on") {
        events.extend(reader.feed(&piece));
        if !counted && events.len() as u64 >= HELD {
            counted = true;
            held.fetch_add(1, Ordering::Relaxed);
        }
    }
    assert!(counted && reader.is_between_events());
    assert!(events.last().expect("events").is_done());
    let texts = events
        .iter()
        .filter(|event| event.data.contains("\"content\":\" "))
        .count();
    assert!(texts as u64 >= TOKENS - 1, "{texts} texts in {events:?}");
}

/// What the workers hold, bytes: their own memory, not what is mapped from files.
fn workers_memory(nginx: &Nginx) -> u64 {
    nginx.workers().into_iter().map(process::anonymous_memory).sum()
}

/// Pages that the shared region's files have in memory, bytes.
fn region_memory(gateway: &Gateway) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let files = std::fs::read_dir(gateway.site.region()).expect("the region's folder");
    files
        .map(|file| file.expect("a file").metadata().expect("its size").blocks() * 512)
        .sum()
}

mod load {
    //! Needs the machine for itself: see tests/nextest.toml.

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn ten_thousand_streams_stay_open() {
        let bare = streams_of_bare_nginx().await;
        let ours = streams_of_the_gateway().await;
        let above = (ours - bare) / STREAMS as f64;
        println!(
            "memory a stream: bare nginx {:.0} bytes, the gateway {:.0}: {above:+.0}",
            bare / STREAMS as f64,
            ours / STREAMS as f64
        );
        assert!(above < 8_192.0, "{above} bytes a stream");
    }

    async fn streams_of_bare_nginx() -> f64 {
        let mock = MockProcess::start().await;
        let nginx = config(BARE).set("mock", mock.address()).start().await;
        let before = workers_memory(&nginx);
        let crowd = Crowd::open(nginx.address(), "mock");
        crowd.all_held().await;
        let open = workers_memory(&nginx);
        mock.release().await;
        crowd.all_end().await;
        nginx.stop().await;
        open as f64 - before as f64
    }

    async fn streams_of_the_gateway() -> f64 {
        let mock = MockProcess::start().await;
        let documents = Documents::new()
            .provider(json!({
                "id": "far", "protocol": "openai", "base_url": format!("http://{}", mock.address()),
                "credentials": { "type": "bearer", "key": PROVIDER_KEY },
            }))
            .model_value(json!({
                "name": "gpt-4o", "tokenizer": "o200k_base",
                "deployments": [{ "provider": "far", "upstream_model": "mock" }],
            }))
            .limited(
                "wechat001",
                json!([
                    { "metric": "connections", "max": STREAMS },
                    { "metric": "requests", "max": 1_000_000, "window": "1m" },
                    { "metric": "input_tokens", "max": 100_000_000, "window": "10m" },
                    { "metric": "output_tokens", "max": 100_000_000, "window": "10m" },
                    { "metric": "total_tokens", "max": 100_000_000, "window": "20m" },
                ]),
            );
        let gateway = Gateway::with(documents)
            .nginx(|_| config(gateway::HTTP).with_module())
            .start()
            .await;
        gateway.wait_idle().await;
        let region = gateway.region();
        let before = (workers_memory(&gateway.nginx), region_memory(&gateway));
        let started = Instant::now();
        let crowd = Crowd::open(gateway.address(), "gpt-4o");
        crowd.all_held().await;
        println!(
            "{STREAMS} streams opened in {:.1} s",
            started.elapsed().as_secs_f64()
        );
        let open = (workers_memory(&gateway.nginx), region_memory(&gateway));
        println!(
            "workers {:.1} -> {:.1} MB, region {:.1} -> {:.1} MB, descriptors of the workers {:?}",
            before.0 as f64 / 1e6,
            open.0 as f64 / 1e6,
            before.1 as f64 / 1e6,
            open.1 as f64 / 1e6,
            gateway
                .nginx
                .workers()
                .into_iter()
                .map(process::descriptors)
                .collect::<Vec<_>>()
        );
        assert_eq!(region.inflight(STREAMS + 1).len(), STREAMS);
        assert_eq!(gateway.used("wechat001", "connections").await, STREAMS as u64);
        // One more than the limit holds.
        assert_eq!(gateway.send(&request("gpt-4o")).await.status(), 429);

        mock.release().await;
        crowd.all_end().await;
        gateway.wait_idle().await;
        assert_eq!(gateway.used("wechat001", "connections").await, 0);
        let sent = mock.stats().await;
        assert_eq!(
            (sent["completed"].as_u64(), sent["aborted"].as_u64()),
            (Some(STREAMS as u64), Some(0))
        );
        // The daemon books what the ring tells within moments.
        wait_for("the ledger to have all streams", LONG, || async {
            let total = gateway.daemon.get("/usage?step=0&channel=wechat001").await["total"].take();
            (total["ok"] == STREAMS && total["output_tokens"] == sent["completion_tokens"]).then_some(())
        })
        .await;
        gateway.stop().await;
        (open.0 + open.1) as f64 - (before.0 + before.1) as f64
    }
}
