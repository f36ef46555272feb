//! A large gateway: its documents, and a day of requests.

use std::collections::HashMap;

use serde_json::json;
use tollgate::ledger::{
    Batch, COUNTER_NAMES, Keep, Line, Lines, Results, Served, ServedDelta, SqliteStore, Store,
};
use tollgate_shm::{Class, Event};

use super::history::{EXPERIMENTS, GROUPS, SHADOWS};
use super::support::{Daemon, Folders};

/// How large.
pub struct Large {
    pub channels: u64,
    pub models: u64,
    /// Of the request log, over a day.
    pub rows: u64,
}

/// Begin of the day, a multiple of a day.
pub const DAY: u64 = 1_700_006_400;
/// Counters that are not zero.
const USED: [&str; 7] = [
    "ok",
    "limit",
    "input_tokens",
    "output_tokens",
    "latency_us",
    "bill_micro",
    "cost_micro",
];
/// Tables of packed buckets.
pub const PACKED: [&str; 3] = ["usage_packed", "served_packed", "shadow_packed"];
/// Lines that go into the ledger at a time.
const AT_ONCE: u64 = 50_000;

/// Code of the n-th channel.
pub fn channel(n: u64) -> String {
    format!("app{n:05}")
}

/// Name of the n-th model.
pub fn model(n: u64) -> String {
    format!("model-{n:04}")
}

/// Who makes the n-th request: a tenth of the channels make most of them, as in life.
pub fn caller(large: &Large, n: u64) -> (u64, u64) {
    let scattered = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    let channels = if scattered.is_multiple_of(10) {
        large.channels
    } else {
        (large.channels / 10).max(1)
    };
    let channel = scattered / 10 % channels;
    // Each channel uses a few models.
    (channel, (channel * 7 + scattered % 3) % large.models)
}

impl Large {
    /// Folders with its documents.
    pub fn folders(&self) -> Folders {
        let folders = Folders::new();
        let channels: Vec<_> = (0..self.channels)
            .map(|n| json!({"code": channel(n), "name": format!("Application {n}"), "trusted": true, "tags": [format!("t{}", n % 10)],
                "limits": [{"metric": "input_tokens", "max": 10_000, "window": "10m"}, {"metric": "requests", "max": 50, "window": "1s"},
                           {"metric": "connections", "max": 9}]}))
            .collect();
        folders.write("channels", &json!({"channels": channels}));
        let models: Vec<_> = (0..self.models)
            .map(|n| {
                let mut of = json!({"name": model(n), "deployments": [
                    {"provider": "p", "id": format!("{}/a", model(n)), "version": "v1"},
                    {"provider": "p", "id": format!("{}/b", model(n)), "version": "v2"}]});
                if n < EXPERIMENTS {
                    let group = |g: &&str| json!({"name": g, "share": 30.0});
                    let groups: Vec<_> = GROUPS.iter().map(group).collect();
                    of["experiment"] = json!({"name": format!("e{n}"), "by": "channel", "groups": groups});
                }
                of
            })
            .collect();
        folders.write("models", &json!({"models": models}));
        let rules: Vec<_> = (0..500)
            .map(|n| json!({"name": format!("rule {n}"), "priority": n, "when": {"field": "body.model", "op": "eq", "value": format!("m{n}")},
                "then": if n < SHADOWS { json!({"shadow": {"deny": {}}}) } else { json!({"tag": "x"}) }}))
            .collect();
        folders.write("rules", &json!({"rules": rules}));
        folders
    }

    /// Puts a day of requests and their usage into the ledger; the number of the last line.
    pub fn fill(&self, daemon: &Daemon) -> u64 {
        let ledger = daemon.folders.state().join("tollgate.db");
        let mut store = SqliteStore::open(&ledger).unwrap();
        let mut sums: HashMap<(u64, u64, (u64, u64)), [i64; 2]> = HashMap::new();
        let mut written = 0;
        while written < self.rows {
            let end = self.rows.min(written + AT_ONCE);
            let mut lines = Lines {
                deployments: (0..self.models).map(|n| format!("{}/a", model(n))).collect(),
                ..Lines::default()
            };
            let mut places = HashMap::new();
            let mut served: HashMap<(u64, u64), Results> = HashMap::new();
            for n in written..end {
                let who = caller(self, n);
                let at_s = n * 86_400 / self.rows;
                let refused = n.is_multiple_of(50);
                let place = *places
                    .entry(who)
                    .or_insert_with(|| lines.add_who(&channel(who.0), &model(who.1)));
                let line = Line {
                    event: Event {
                        request_id: [n, n.rotate_left(17)],
                        status: if refused { 429 } else { 200 },
                        class: if refused { Class::Limit } else { Class::Ok } as u8,
                        input_tokens: 200,
                        output_tokens: 100,
                        latency_us: 900,
                        ..Event::default()
                    },
                    time_ms: (DAY + at_s) * 1_000,
                    who: place,
                    deployment: who.1 as u32,
                    group: u32::MAX,
                };
                if !refused {
                    let minute = (DAY + at_s) / 60 * 60;
                    served.entry((minute, who.1)).or_default().add_event(&line.event);
                }
                lines.requests.push(line);
                // Minutes of the last two hours only: they are not kept long.
                for step in [0, 60, 600] {
                    if step != 60 || at_s >= 79_200 {
                        let bucket = (DAY + at_s).checked_div(step).map_or(0, |n| n * step);
                        let sum = sums.entry((step, bucket, who)).or_default();
                        sum[usize::from(refused)] += 1;
                    }
                }
            }
            let batch = Batch {
                region: daemon.region.id(),
                requests: lines,
                served: served
                    .into_iter()
                    .map(|((minute, n), results)| ServedDelta {
                        minute,
                        served: Served {
                            deployment: format!("{}/a", model(n)),
                            model: model(n),
                            version: "v1".into(),
                        },
                        results,
                    })
                    .collect(),
                ..Batch::default()
            };
            store.commit(&batch).unwrap();
            written = end;
        }
        drop(store);
        let mut db = rusqlite::Connection::open(&ledger).unwrap();
        let names: Vec<&str> = COUNTER_NAMES
            .iter()
            .filter(|n| !USED.contains(n))
            .copied()
            .collect();
        let zeros = vec!["0"; names.len()].join(", ");
        let sql = format!(
            "INSERT INTO usage (step, bucket, channel, model, \"{}\", \"{}\")
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?5 * 200, ?5 * 100, ?5 * 900, ?5 * 1500, ?5 * 1100, {zeros})",
            USED.join("\", \""),
            names.join("\", \"")
        );
        let mut sums: Vec<_> = sums.into_iter().collect();
        sums.sort_unstable_by_key(|(key, _)| *key);
        let insert = db.transaction().unwrap();
        let mut statement = insert.prepare(&sql).unwrap();
        for ((step, bucket, who), [ok, limit]) in sums {
            let row = rusqlite::params![
                step as i64,
                bucket as i64,
                channel(who.0),
                model(who.1),
                ok,
                limit
            ];
            statement.execute(row).unwrap();
        }
        drop(statement);
        insert.commit().unwrap();
        drop(db);
        pack(&mut SqliteStore::open(&ledger).unwrap(), &ledger);
        self.rows
    }
}

/// What the daemon does every other second, until nothing is left of it.
pub fn pack(store: &mut SqliteStore, ledger: &std::path::Path) {
    let db = rusqlite::Connection::open(ledger).unwrap();
    let mut packed = 0;
    loop {
        store
            .prune(&Keep {
                now: DAY + 2 * 86_400,
                minutes_from: 0,
                ten_minutes_from: 0,
                requests_from_ms: 0,
                requests: u64::MAX >> 1,
            })
            .unwrap();
        let count = |table: &str| -> i64 {
            db.query_row(&format!("SELECT COUNT(*) FROM {table}"), [], |r| r.get(0))
                .unwrap_or(0)
        };
        let now = PACKED.iter().map(|table| count(table)).sum();
        if now == packed {
            return;
        }
        packed = now;
    }
}
