//! What long charts and long lists are made of: three months of roll-ups, and all that people have done.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use tollgate::accounts::{Expected, Record, Table};
use tollgate::alerts::{Places, Sight, Watch};
use tollgate::audit::{Audit, Entry, Outcome};
use tollgate::ledger::{
    Batch, GroupDelta, Keep, Results, Served, ServedDelta, ShadowDelta, ShadowHits, SqliteStore, Store,
};
use tollgate::schedule::now_ms;
use tollgate::secrets::MasterKey;
use tollgate::shared::alone;
use tollgate_policy::{Deeds, hash_name};
use tollgate_shm::Event;

use super::large::{DAY, Large, PACKED, channel, model, pack};
use super::support::Daemon;

/// Days before the one with requests that roll-ups are made for.
const MADE: u64 = 6;
/// Days that there are roll-ups of, as many as are kept by default: those before are copies.
pub const DAYS: u64 = 90;
/// Models with an experiment.
pub const EXPERIMENTS: u64 = 10;
/// Groups of each.
pub const GROUPS: [&str; 3] = ["old", "new", "other"];
/// Rules in shadow mode.
pub const SHADOWS: u64 = 4;
/// Channels that a rule in shadow mode meets in ten minutes; twenty times as many in a day.
const MET: u64 = 1_250;
/// Rows of the audit log.
const AUDITED: u64 = 500_000;
/// Accounts, tokens.
const PEOPLE: u64 = 2_000;
/// Changes that are published later.
const LATER: u64 = 20;

/// Rows of the audit log, before the daemon opens it.
pub fn audit(state: &Path, key: &MasterKey) {
    std::fs::create_dir_all(state).unwrap();
    let one = Entry {
        at_ms: DAY * 1_000,
        actor: "someone".into(),
        via: "session".into(),
        address: "192.0.2.7".into(),
        method: "PATCH".into(),
        resource: "channels".into(),
        action: "update".into(),
        status: 200,
        ..Entry::default()
    };
    let log = Audit::open(state, key).unwrap();
    log.append(one.clone()).unwrap();
    drop(log);
    let mut db = rusqlite::Connection::open(state.join("audit.db")).unwrap();
    let insert = db.transaction().unwrap();
    let sql = "INSERT INTO audit (seq, entry, hash) VALUES (?1, ?2, zeroblob(32))";
    let mut statement = insert.prepare(sql).unwrap();
    for seq in 2..=AUDITED {
        let code = channel(seq % 10_000);
        let diff = json!({"before": null, "after": null, "diff": [
            {"op": "replace", "path": "/limits/0/max", "from": seq, "to": seq + 1}]});
        let entry = Entry {
            at_ms: DAY * 1_000 + seq * 10_000,
            actor: format!("person{}", seq % 50),
            path: format!("/api/v1/channels/{code}"),
            target: code,
            outcome: if seq % 100 == 0 {
                Outcome::Denied
            } else {
                Outcome::Ok
            },
            detail: serde_json::from_value(diff).unwrap_or_default(),
            ..one.clone()
        };
        let text = serde_json::to_string(&entry).unwrap();
        statement.execute(rusqlite::params![seq as i64, text]).unwrap();
    }
    drop(statement);
    insert.commit().unwrap();
}

/// Ten minutes of what deployments served, groups came to and rules in shadow mode met.
fn ten_minutes(large: &Large, region: u64, bucket: u64) -> Batch {
    let of = |requests: u64| {
        let mut results = Results::default();
        for n in 0..requests {
            results.add_event(&Event {
                latency_us: 500 + 400 * n as u32,
                first_token_us: 300 + 200 * n as u32,
                ..Event::default()
            });
        }
        results
    };
    let shapes = [of(3), of(5), of(9)];
    let shape = |n: u64| shapes[n as usize % shapes.len()];
    let mut batch = Batch {
        region,
        ..Batch::default()
    };
    for n in 0..large.models {
        for (deployment, version) in [("a", "v1"), ("b", "v2")] {
            batch.served.push(ServedDelta {
                minute: bucket,
                served: Served {
                    deployment: format!("{}/{deployment}", model(n)),
                    model: model(n),
                    version: version.into(),
                },
                results: shape(n + bucket / 600),
            });
        }
    }
    for n in 0..EXPERIMENTS {
        for group in GROUPS {
            batch.groups.push(GroupDelta {
                minute: bucket,
                experiment: format!("e{n}"),
                group: group.into(),
                results: shape(n),
            });
        }
    }
    for rule in 0..SHADOWS {
        // One of them meets many.
        let met = if rule == 0 { MET } else { 20 };
        for n in 0..met.min(large.channels) {
            let place = (n * 8 + bucket / 600 * 31 + rule) % large.channels;
            batch.shadows.push(ShadowDelta {
                of: ShadowHits {
                    bucket,
                    rule: hash_name(format!("rule {rule}").as_bytes()),
                    channel: channel(place),
                    deeds: Deeds::DENY.0,
                },
                hits: 1 + n % 5,
            });
        }
    }
    batch
}

/// Roll-ups of three months, of which the last day is there already.
pub fn roll_ups(large: &Large, daemon: &Daemon) {
    let ledger = daemon.folders.state().join("tollgate.db");
    let mut store = SqliteStore::open(&ledger).unwrap();
    let first = DAY - MADE * 86_400;
    let end = DAY + 86_400;
    let mut bucket = first;
    while bucket < end {
        let mut batch = ten_minutes(large, daemon.region.id(), bucket);
        if bucket >= DAY {
            // Its requests have been served already.
            batch.served.clear();
        }
        store.commit(&batch).unwrap();
        bucket += 600;
    }
    // Folds what is left.
    let keep = Keep {
        now: DAY + 2 * 86_400,
        minutes_from: 0,
        ten_minutes_from: 0,
        requests_from_ms: 0,
        requests: u64::MAX >> 1,
    };
    std::thread::sleep(std::time::Duration::from_secs(11));
    store.prune(&keep).unwrap();
    drop(store);
    let db = rusqlite::Connection::open(&ledger).unwrap();
    // Minutes are not kept that long.
    for table in ["served", "experiment_results"] {
        let sql = format!("DELETE FROM {table} WHERE step = 60 AND bucket < ?1");
        db.execute(&sql, [DAY as i64]).unwrap();
    }
    drop(db);
    pack(&mut SqliteStore::open(&ledger).unwrap(), &ledger);
    let db = rusqlite::Connection::open(&ledger).unwrap();
    copy(&db, "usage_packed", 1, DAYS);
    for table in PACKED.iter().skip(1) {
        copy(&db, table, MADE + 1, DAYS);
    }
    // One channel's usage is read from rows.
    let code = channel(large.channels / 20);
    for day in 1..DAYS {
        let sql = "INSERT INTO usage SELECT * FROM usage WHERE channel = ?1 AND step = 600 AND bucket >= ?2";
        let columns: Vec<String> = db
            .prepare("SELECT * FROM usage LIMIT 0")
            .unwrap()
            .column_names()
            .iter()
            .map(|name| match *name {
                "bucket" => format!("bucket - {}", day * 86_400),
                name => format!("\"{name}\""),
            })
            .collect();
        let sql = sql.replace("SELECT *", &format!("SELECT {}", columns.join(", ")));
        db.execute(&sql, rusqlite::params![code, DAY as i64]).unwrap();
    }
}

/// Copies packed buckets of the last `made` days to those before, until there are `days` of them.
fn copy(db: &rusqlite::Connection, table: &str, made: u64, days: u64) {
    let Ok(statement) = db.prepare(&format!("SELECT * FROM {table} LIMIT 0")) else {
        return;
    };
    let from = (DAY + 86_400 - made * 86_400) as i64;
    let mut back = made;
    while back < days {
        let columns: Vec<String> = statement
            .column_names()
            .iter()
            .map(|name| match *name {
                "bucket" => format!("bucket - {}", back * 86_400),
                name => name.to_owned(),
            })
            .collect();
        let sql = format!(
            "INSERT INTO {table} SELECT {} FROM {table} WHERE step >= 600 AND bucket >= ?1",
            columns.join(", ")
        );
        db.execute(&sql, [from]).unwrap();
        back += made;
    }
}

/// As many records as that, like the one that there is.
fn multiply(daemon: &Daemon, table: Table, name: &str, wanted: u64) {
    let records = &daemon.records;
    let first = records.list(table, now_ms()).unwrap().remove(0);
    let mut value: Value = serde_json::from_slice(&first.value).unwrap();
    for n in 1..wanted {
        let key = format!("x{n:07}");
        value[name] = json!(key);
        let record = Record {
            key,
            version: 0,
            value: value.to_string().into_bytes(),
            expires_ms: None,
        };
        records.put(table, &record, Expected::Absent, now_ms()).unwrap();
    }
}

fn alert(n: u64, state: &Value) -> Value {
    json!({"id": format!("{n:016x}"), "rule": "limit_nearly_used", "severity": "warning", "labels": {"channel": channel(n), "limit": "input"},
        "state": state, "value": 95.0, "threshold": 90.0, "text": format!("a limit of channel {} is nearly used up", channel(n)),
        "told": {"ops": {"firing": 1, "at_ms": now_ms(), "resolved": false, "tried": false}}})
}

/// The books of this instance and of what it watches for all, with as many alerts as they hold.
async fn alerts(daemon: &Daemon) {
    let now = now_ms();
    let firing = json!({"is": "firing", "begun_ms": now, "since_ms": now, "clear_ms": null});
    let over = json!({"is": "resolved", "begun_ms": now, "since_ms": now, "at_ms": now});
    for (book, of) in ["instance one", "cluster"].into_iter().enumerate() {
        let alerts: Vec<Value> = (0..700)
            .map(|n| alert(book as u64 * 1_000 + n, if n < 500 { &firing } else { &over }))
            .collect();
        let record = Record {
            key: of.into(),
            version: 0,
            value: json!({"alerts": alerts, "deliveries": {}, "seen": {}})
                .to_string()
                .into_bytes(),
            expires_ms: None,
        };
        let records = &daemon.records;
        records
            .put(Table::Alerts, &record, Expected::Absent, now)
            .unwrap();
    }
    let sight = Sight::new(
        Places {
            region: Arc::clone(&daemon.region),
            config: daemon.state.config.clone(),
            probes: daemon.state.probes.clone(),
            source: Arc::clone(&daemon.state.source),
            figures: Arc::default(),
            drain: daemon.drain.status(),
            naming: daemon.state.naming.clone(),
            state: daemon.folders.state(),
            certificate: None,
        },
        "one",
    );
    let watch = Watch::new(
        daemon.state.alerts.clone(),
        daemon.state.config.clone(),
        (alone(), daemon.state.shared.clone()),
        sight,
    );
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let watching = tokio::spawn(watch.run(stopped));
    daemon
        .eventually("/api/v1/alerts", |list| {
            list["alerts"].as_array().is_some_and(|all| all.len() >= 1_400)
        })
        .await;
    stop.send_replace(true);
    watching.await.unwrap();
}

/// All that people have done.
pub async fn people(daemon: &Daemon) {
    let post = |path: &'static str, body: Value| async move {
        let (status, answer) = daemon.as_root("POST", path, Some(&body)).await;
        assert!(status.is_success(), "{path}: {answer}");
        answer
    };
    post(
        "/api/v1/accounts",
        json!({"name": "x", "roles": ["viewer"], "channels": ["app*"]}),
    )
    .await;
    multiply(daemon, Table::Accounts, "name", PEOPLE);
    let login = daemon.account("y", &["admin"], &["*"]).await;
    let token = json!({"label": "machine"});
    let (status, answer) = daemon.as_(&login, "POST", "/api/v1/tokens", Some(&token)).await;
    assert!(status.is_success(), "{answer}");
    multiply(daemon, Table::Tokens, "id", PEOPLE);
    for n in 0..100 {
        let role = json!({"name": format!("role{n}"), "permissions": {"channels": ["read"]}});
        post("/api/v1/roles", role).await;
    }
    for n in 0..150 {
        let silence = json!({"for": "1h", "comment": "for a while", "labels": {"channel": channel(n)}});
        post("/api/v1/alerts/silences", silence).await;
    }
    // Versions, and the audit log's newest rows.
    for n in 0..100 {
        let path = format!("/api/v1/rules/rule%20{n}");
        let body = json!({"enabled": false});
        let (status, answer) = daemon.as_root("PATCH", &path, Some(&body)).await;
        assert!(status.is_success(), "{path}: {answer}");
    }
    let document = daemon.get("/api/v1/documents/tollgate.channels.json").await;
    let draft = json!({"at_ms": now_ms() + 86_400_000, "message": "later",
        "documents": {"tollgate.channels.json": document}});
    let (status, answer) = daemon.as_root("POST", "/api/v1/schedules", Some(&draft)).await;
    assert!(status.is_success(), "{answer}");
    multiply(daemon, Table::Schedules, "id", LATER);
    alerts(daemon).await;
}
