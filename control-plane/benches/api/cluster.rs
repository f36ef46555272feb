//! The newest requests of all instances, as many as Redis keeps by default.

use serde_json::{Value, json};
use tollgate::ledger::{Batch, Line, Lines, SqliteReader, SqliteStore, Store};
use tollgate::shared::RecentWriter;
use tollgate_shm::Event;

use super::redis::Redis;
use super::support::{Daemon, Folders, channels};

/// Instances, and lines that each has in Redis.
const INSTANCES: u64 = 5;
const LINES: u64 = 10_000;

/// What is asked for.
pub fn routes() -> Vec<String> {
    let most = "/api/v1/requests?scope=cluster&limit=100";
    vec![
        most.to_owned(),
        format!("{most}&channel=app00007"),
        format!("{most}&class=limit"),
        // Nothing fits: all of them are looked at.
        format!("{most}&status=599"),
    ]
}

/// A daemon with such a Redis.
pub async fn start() -> (Daemon, Redis) {
    let redis = Redis::start(&["--appendfsync", "no"]);
    let folders = Folders::new();
    folders.write("channels", &channels(10_000));
    folders.write(
        "settings",
        &json!({"settings": {"redis": redis.settings(),
        "region": {"counters": 1024, "inflight": 64, "ring": 4096, "usage": 64}}}),
    );
    let daemon = Daemon::start(folders).await;
    let ledger = daemon.folders.state().join("tollgate.db");
    let mut lines = Lines::default();
    let who = lines.add_who("app00000", "model-0000");
    let event = Event {
        status: 200,
        input_tokens: 200,
        output_tokens: 100,
        latency_us: 900,
        ..Event::default()
    };
    lines.requests.push(Line {
        event,
        time_ms: 1_700_000_000_000,
        who,
        deployment: u32::MAX,
        group: u32::MAX,
    });
    let batch = Batch {
        region: daemon.region.id(),
        requests: lines,
        ..Batch::default()
    };
    let mut store = SqliteStore::open(&ledger).unwrap();
    store.commit(&batch).unwrap();
    // A line as an instance writes it; the others are like it.
    let reader = SqliteReader::open(&ledger).unwrap();
    let writer = RecentWriter::new(
        daemon.state.shared.clone(),
        reader,
        daemon.state.config.clone(),
        "one".into(),
    )
    .unwrap();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let writing = tokio::spawn(writer.run(stopped));
    daemon
        .eventually("/api/v1/requests?scope=cluster", |page| {
            !page["requests"].as_array().unwrap().is_empty()
        })
        .await;
    stop.send_replace(true);
    writing.await.unwrap();
    multiply(&daemon, &redis);
    (daemon, redis)
}

/// Lists of other instances, with lines like the one that is there.
fn multiply(daemon: &Daemon, redis: &Redis) {
    let url = format!("redis://127.0.0.1:{}", redis.port);
    let mut link = ::redis::Client::open(url).unwrap().get_connection().unwrap();
    let key = |rest: &str| daemon.state.shared.key(&format!("{{requests}}:{rest}"));
    let lists: Vec<String> = ::redis::cmd("ZRANGE")
        .arg(key("instances"))
        .arg(0)
        .arg(-1)
        .query(&mut link)
        .unwrap();
    let list = key(&format!("of:{}", lists[0]));
    let line: String = ::redis::cmd("LINDEX").arg(list).arg(0).query(&mut link).unwrap();
    let entry: Value = serde_json::from_str(line.split_once(' ').unwrap().1).unwrap();
    for instance in 0..INSTANCES {
        let name = format!("{instance:016x}");
        let mut push = ::redis::cmd("LPUSH");
        push.arg(key(&format!("of:{name}")));
        for n in 0..LINES {
            let mut entry = entry.clone();
            entry["instance"] = json!(format!("instance-{instance}"));
            entry["time_ms"] = json!(1_700_000_000_000 + n * 10 + instance);
            entry["channel"] = json!(format!("app{:05}", n % 1_000));
            if n % 50 == 0 {
                entry["class"] = json!("limit");
                entry["status"] = json!(429);
            }
            push.arg(format!("{} {entry}", n + 1));
        }
        push.exec(&mut link).unwrap();
        ::redis::cmd("ZADD")
            .arg(key("instances"))
            .arg(1_700_000_000)
            .arg(name)
            .exec(&mut link)
            .unwrap();
    }
}
