//! What the daemon spends on a request: events go through a region's rings into a ledger on the disk.
//!
//! `cargo bench -p tollgate --bench drain --profile fast [-- [events]]` prints CPU time per event (user and system, by
//! the kernel's scheduler), first of the drain alone, at several sizes of a batch and numbers of channels, then of a
//! whole daemon that is fed 35,000 requests a second. `-- search 10000000` times searches in a log of that length,
//! `-- daemon` feeds one daemon with rings as they are by default, to be profiled.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "bench code"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tollgate::ledger::{
    Batch, Drain, Line, Lines, RequestQuery, Served, Snapshots, SqliteReader, SqliteStore, Store,
};
use tollgate_shm::{Class, Event, Region, Sizes, UsageDelta, UsageIndex, Worker};

/// Requests a second that the daemon is fed.
const RATE: u64 = 35_000;

/// CPU time of a task or of all tasks of a process, nanoseconds.
fn cpu_ns(schedstat: impl AsRef<Path>) -> u64 {
    let text = fs::read_to_string(schedstat).unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}

/// CPU time of a process by the names of its threads.
fn threads_cpu_ns(pid: u32) -> BTreeMap<String, u64> {
    let mut threads = BTreeMap::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        let task = task.unwrap().path();
        let name = fs::read_to_string(task.join("comm")).unwrap();
        *threads.entry(name.trim().to_owned()).or_default() += cpu_ns(task.join("schedstat"));
    }
    threads
}

/// Callers that take turns, most of them answered, some refused.
struct Traffic<'a> {
    region: &'a Region,
    worker: &'a Worker,
    rows: Vec<UsageIndex>,
    sent: u64,
}

impl<'a> Traffic<'a> {
    fn new(region: &'a Region, worker: &'a Worker, channels: usize) -> Traffic<'a> {
        let row = |i: usize| {
            let channel = format!("channel{i:05}");
            region.usage_index(channel.as_bytes(), b"gpt-4o").unwrap()
        };
        Traffic {
            region,
            worker,
            rows: (0..channels).map(row).collect(),
            sent: 0,
        }
    }

    fn request(&mut self) {
        let n = self.sent;
        self.sent += 1;
        // Scattered, so that neither rows nor ids come in order.
        let scattered = (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let row = self.rows[(scattered >> 33) as usize % self.rows.len()];
        let refused = n.is_multiple_of(50);
        let (input, output) = if refused { (0, 0) } else { (200 + n % 400, n % 150) };
        self.region.add_usage(
            row,
            &UsageDelta {
                input_tokens: input,
                output_tokens: output,
                latency_us: Some(900 + n % 700),
                ..UsageDelta::of(if refused { Class::Limit } else { Class::Ok })
            },
        );
        let event = Event {
            time_ms: self.region.now_ms(),
            usage: row.number(),
            deployment: if refused { u32::MAX } else { (n % 3) as u32 },
            request_id: [scattered, scattered.rotate_left(29)],
            generation: 3,
            status: if refused { 429 } else { 200 },
            class: if refused { Class::Limit } else { Class::Ok } as u8,
            source: u8::from(!refused),
            input_tokens: input as u32,
            output_tokens: output as u32,
            latency_us: 900 + (n % 700) as u32,
            first_token_us: 800 + (n % 600) as u32,
            limit_key: if refused { 0xfeed_beef_0123_4567 } else { 0 },
            reserved: [input as u32, 256],
            ..Event::default()
        };
        self.region.push_event(self.worker, &event);
    }
}

/// Deployments of any number.
struct Names;

impl Snapshots for Names {
    fn deployment(&self, _: u32, index: u32) -> Option<Served> {
        Some(Served {
            deployment: format!("provider/{index}"),
            model: "m".into(),
            version: String::new(),
        })
    }

    fn group(&self, _: u32, _: u32) -> Option<(String, String)> {
        None
    }
}

/// The drain alone, `batch` events at a time.
fn drain(events: u64, batch: u64, channels: usize) {
    let dir = tempfile::tempdir().unwrap();
    let sizes = Sizes {
        counters: 1_024,
        inflight: 64,
        ring: 4_096,
        usage: 16_384,
    };
    let region = Arc::new(Region::open_or_create(dir.path(), sizes).unwrap());
    let worker = region.attach_worker().unwrap();
    let mut traffic = Traffic::new(&region, &worker, channels);
    let store = SqliteStore::open(&dir.path().join("tollgate.db")).unwrap();
    let mut drain = Drain::new(Arc::clone(&region), store).unwrap();
    let (mut spent, mut booked) = (0, 0);
    let mut clock_ms = 0;
    while traffic.sent < events {
        for _ in 0..batch {
            traffic.request();
        }
        // As the daemon does at this rate: the counters are compared once a second.
        let before = clock_ms;
        clock_ms = traffic.sent * 1_000 / RATE;
        let compare = clock_ms / 1_000 != before / 1_000;
        let began = cpu_ns("/proc/thread-self/schedstat");
        booked += drain.step(clock_ms, compare, true, &Names).unwrap() as u64;
        spent += cpu_ns("/proc/thread-self/schedstat") - began;
    }
    assert_eq!(booked, traffic.sent, "no event may be dropped");
    let size = |name: &str| fs::metadata(dir.path().join(name)).map_or(0, |m| m.len());
    println!(
        "drain    batch {batch:>5} channels {channels:>5}  {:.3} us/event  {:>4} bytes/event",
        spent as f64 / 1e3 / booked as f64,
        size("tollgate.db") / booked
    );
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A whole daemon, with a ring of `ring` events for each worker.
fn daemon(seconds: u64, ring: u32, channels: usize) {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config");
    let region_dir = dir.path().join("region");
    fs::create_dir(&config).unwrap();
    let settings = json!({"settings": {"region": {"ring": ring * tollgate_shm::MAX_WORKERS as u32}}});
    fs::write(config.join("tollgate.settings.json"), settings.to_string()).unwrap();
    fs::write(
        config.join("tollgate.channels.json"),
        json!({"channels": [{"code": "channel00001", "name": "one", "trusted": true}]}).to_string(),
    )
    .unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_tollgate"))
        .env_clear()
        .args(["serve", "--listen", "127.0.0.1:0", "--config"])
        .arg(&config)
        .arg("--state")
        .arg(dir.path().join("state"))
        .arg("--region")
        .arg(&region_dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let running = Running(child);
    let began = Instant::now();
    let region = loop {
        match Region::open(&region_dir) {
            Ok(region) if region.generation() > 0 => break region,
            _ => assert!(began.elapsed() < Duration::from_secs(30), "no daemon"),
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let worker = region.attach_worker().unwrap();
    let mut traffic = Traffic::new(&region, &worker, channels);
    let mut feed = |seconds: u64| {
        let (began, first) = (Instant::now(), traffic.sent);
        while traffic.sent - first < seconds * RATE {
            let due = began.elapsed().as_micros() as u64 * RATE / 1_000_000;
            while traffic.sent - first < due {
                traffic.request();
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        traffic.sent - first
    };
    feed(1);
    let before = threads_cpu_ns(running.0.id());
    let sent = feed(seconds);
    let mut spent = threads_cpu_ns(running.0.id());
    for (name, was) in before {
        *spent.entry(name).or_default() -= was;
    }
    let per_event = |ns: u64| ns as f64 / 1e3 / sent as f64;
    let each: Vec<String> = spent
        .iter()
        .map(|(name, ns)| format!("{name} {:.3}", per_event(*ns)))
        .collect();
    println!(
        "daemon   ring  {ring:>5} channels {channels:>5}  {:.3} us/event  {} dropped  ({})",
        per_event(spent.values().sum()),
        region.events_dropped(),
        each.join(", ")
    );
    drop(worker);
}

/// Searches in a log of so many lines, each for a page of a hundred.
fn search(lines: u64) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tollgate.db");
    let mut store = SqliteStore::open(&path).unwrap();
    let channel = |n: u64| match n {
        n if n.is_multiple_of(1_000_003) => "rare".to_owned(),
        n => format!("channel{:05}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 1_000),
    };
    for first in (0..lines).step_by(4_096) {
        let mut requests = Lines::default();
        requests.add_deployment("provider/1".into());
        for n in first..first + 4_096 {
            let who = requests.add_who(&channel(n), "gpt-4o");
            let event = Event {
                request_id: [n, !n],
                class: u8::from(n % 999_983 == 1),
                input_tokens: 300,
                ..Event::default()
            };
            requests.requests.push(Line {
                event,
                time_ms: n,
                who,
                deployment: 0,
                group: u32::MAX,
            });
        }
        let batch = Batch {
            region: 1,
            requests,
            ..Batch::default()
        };
        store.commit(&batch).unwrap();
    }
    let reader = SqliteReader::open(&path).unwrap();
    let some = |text: &str| Some(text.to_owned());
    for (what, channel, class, before) in [
        ("newest", None, None, None),
        ("in the middle", None, None, Some(lines as i64 / 2)),
        ("a channel", some("channel00077"), None, None),
        ("a rare channel", some("rare"), None, None),
        ("a rare class", None, some("client"), None),
        ("a class of a channel", some("channel00077"), some("client"), None),
        ("a class never seen", None, some("internal"), None),
        ("a channel never seen", some("nobody"), None, None),
    ] {
        let query = RequestQuery {
            before,
            channel,
            class,
            model: None,
            limit: 100,
            ..RequestQuery::default()
        };
        let began = Instant::now();
        let found = reader.requests(&query).unwrap().len();
        println!(
            "search   {lines} lines  {what:<22} {:>8.3} ms  {found} found",
            began.elapsed().as_secs_f64() * 1e3
        );
    }
}

fn main() {
    let events = std::env::args()
        .filter_map(|a| a.parse().ok())
        .next()
        .unwrap_or(2_000_000);
    if std::env::args().any(|a| a == "daemon") {
        return daemon((events / RATE).max(1), 1_024, 10);
    }
    if std::env::args().any(|a| a == "search") {
        return search(events);
    }
    for channels in [10, 10_000] {
        for batch in [700, 4_096] {
            drain(events, batch, channels);
        }
    }
    for (ring, channels) in [(1_024, 10), (4_096, 10), (4_096, 10_000)] {
        daemon((events / RATE).clamp(1, 20), ring, channels);
    }
}
