//! Every store of accounts does the same: the embedded one, Redis, a cluster of it, and the one over both.

#![recursion_limit = "256"]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "test code"
)]

mod redis;

use redis::{Redis, cluster, config, shared};
use serde_json::Value;
use tokio::runtime::Handle;
use tollgate::accounts::{Expected, Record, Records, RedisRecords, SharedRecords, SqliteRecords, Table};

/// What every store must do, as a test.
fn conformance(store: &dyn Records) {
    let record = |key: &str, value: &str, expires_ms| Record {
        key: key.into(),
        version: 0,
        value: value.as_bytes().to_vec(),
        expires_ms,
    };
    let put = |r: &Record, expected, now| {
        store
            .put(Table::Accounts, r, expected, now)
            .expect("the store works")
    };
    let get = |key: &str, now| {
        store
            .get(Table::Accounts, key, now)
            .expect("the store works")
            .map(|r| (r.version, String::from_utf8(r.value).expect("text")))
    };
    assert_eq!(get("a", 0), None);
    let first = put(&record("a", "1", None), Expected::Absent, 0).expect("nothing was there");
    assert_eq!(put(&record("a", "2", None), Expected::Absent, 0), None);
    assert_eq!(
        put(&record("a", "2", None), Expected::Version(first + 7), 0),
        None
    );
    assert_eq!(get("a", 0), Some((first, "1".into())));
    let second = put(&record("a", "2", None), Expected::Version(first), 0).expect("the version was right");
    assert!(second > first);
    assert_eq!(put(&record("a", "3", None), Expected::Version(first), 0), None);
    assert!(put(&record("a", "3", None), Expected::Anything, 0).is_some());
    assert_eq!(
        store.get(Table::Roles, "a", 0).expect("the store works"),
        None,
        "tables are apart"
    );

    // What has expired is absent for every call, and a new record may take its place.
    put(&record("b", "x", Some(100)), Expected::Absent, 0);
    assert!(get("b", 99).is_some() && get("b", 100).is_none());
    let keys = |now| -> Vec<String> {
        let all = store.list(Table::Accounts, now).expect("the store works");
        all.into_iter().map(|r| r.key).collect()
    };
    assert_eq!(keys(99), ["a", "b"]);
    assert_eq!(keys(100), ["a"]);
    assert_eq!(put(&record("b", "y", None), Expected::Version(1), 100), None);
    assert!(put(&record("b", "y", Some(200)), Expected::Absent, 100).is_some());
    store.prune(300).expect("the store works");
    assert_eq!(keys(0), ["a"]);
    assert!(store.remove(Table::Accounts, "a").expect("the store works"));
    assert!(!store.remove(Table::Accounts, "a").expect("the store works"));

    // A key that comes back does not come back as a version that somebody may still know.
    let again = put(&record("a", "1", None), Expected::Absent, 0).expect("nothing was there");
    assert!(again > second, "{again} after {second}");
}

fn record(key: &str, value: &str) -> Record {
    Record {
        key: key.into(),
        version: 0,
        value: value.as_bytes().to_vec(),
        expires_ms: None,
    }
}

fn add(store: &dyn Records, table: Table, key: &str, value: &str) {
    store
        .put(table, &record(key, value), Expected::Anything, 0)
        .unwrap()
        .unwrap();
}

fn value(store: &dyn Records, table: Table, key: &str) -> Option<String> {
    let found = store.get(table, key, 0).unwrap()?;
    Some(String::from_utf8(found.value).unwrap())
}

/// Runs it off the runtime's threads, as the daemon does.
async fn blocking(work: impl FnOnce() + Send + 'static) {
    tokio::task::spawn_blocking(work).await.unwrap();
}

/// The store over both, of an instance with this folder.
fn of_instance(dir: &std::path::Path, settings: &Value) -> SharedRecords {
    let (_config, watch) = config(settings);
    let local = SqliteRecords::open(&dir.join("accounts.db")).unwrap();
    SharedRecords::new(local, shared(&watch), Handle::current())
}

#[test]
fn the_embedded_store_conforms() {
    let dir = tempfile::tempdir().unwrap();
    conformance(&SqliteRecords::open(&dir.path().join("accounts.db")).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_conforms() {
    let redis = Redis::start(&[]);
    let (_config, watch) = config(&redis.settings());
    let store = RedisRecords::new(shared(&watch), Handle::current());
    blocking(move || conformance(&store)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_of_redis_conforms() {
    let (_nodes, settings) = cluster();
    let (_config, watch) = config(&settings);
    let store = RedisRecords::new(shared(&watch), Handle::current());
    blocking(move || conformance(&store)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_over_both_conforms_and_many_writers_lose_nothing() {
    let redis = Redis::start(&[]);
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let stores: Vec<SharedRecords> = dirs
        .iter()
        .map(|d| of_instance(d.path(), &redis.settings()))
        .collect();
    blocking(move || {
        conformance(&stores[0]);
        let add = |store: &SharedRecords| {
            loop {
                let present = store.get(Table::Throttles, "n", 0).unwrap();
                let (n, expected) = present.map_or((0, Expected::Absent), |r| {
                    let n: u64 = String::from_utf8(r.value).unwrap().parse().unwrap();
                    (n, Expected::Version(r.version))
                });
                let next = record("n", &(n + 1).to_string());
                if store.put(Table::Throttles, &next, expected, 0).unwrap().is_some() {
                    return;
                }
            }
        };
        std::thread::scope(|scope| {
            for store in &stores {
                for _ in 0..2 {
                    scope.spawn(|| (0..25).for_each(|_| add(store)));
                }
            }
        });
        assert_eq!(value(&stores[1], Table::Throttles, "n").unwrap(), "100");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_redis_loses_comes_back_from_the_instances() {
    let mut redis = Redis::start(&[]);
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let a = of_instance(dirs[0].path(), &redis.settings());
    let b = of_instance(dirs[1].path(), &redis.settings());
    blocking(move || {
        a.sync().unwrap();
        b.sync().unwrap();
        add(&a, Table::Accounts, "admin", "1");
        add(&a, Table::Sessions, "s", "of admin");
        b.sync().unwrap();
        let old = redis.keep();
        add(&b, Table::Accounts, "admin", "2");
        add(&b, Table::Accounts, "gone", "x");
        b.remove(Table::Accounts, "gone").unwrap();
        a.sync().unwrap();
        b.sync().unwrap();

        // Everything, and later only the last changes.
        redis.ask("FLUSHALL");
        a.sync().unwrap();
        b.sync().unwrap();
        for store in [&a, &b] {
            assert_eq!(value(store, Table::Accounts, "admin").unwrap(), "2");
            assert_eq!(value(store, Table::Sessions, "s").unwrap(), "of admin");
            assert_eq!(value(store, Table::Accounts, "gone"), None);
        }
        redis.lose_all_since(old.path());
        // Whoever knows more wins, whoever comes first.
        while a.sync().is_err() {}
        while b.sync().is_err() {}
        assert_eq!(value(&a, Table::Accounts, "admin").unwrap(), "2");
        assert_eq!(value(&b, Table::Accounts, "gone"), None);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_joins_takes_what_is_shared() {
    let redis = Redis::start(&[]);
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let settings = redis.settings();
    let paths = dirs.each_ref().map(|d| d.path().to_owned());
    let handle = Handle::current();
    // Both had accounts of their own before there was a Redis.
    for (path, password) in paths.iter().zip(["first", "second"]) {
        let local = SqliteRecords::open(&path.join("accounts.db")).unwrap();
        for _ in 0..3 {
            add(&local, Table::Accounts, "admin", password);
        }
    }
    add(
        &SqliteRecords::open(&paths[1].join("accounts.db")).unwrap(),
        Table::Accounts,
        "only here",
        "x",
    );
    blocking(move || {
        let _entered = handle.enter();
        let a = of_instance(&paths[0], &settings);
        a.sync().unwrap();
        let b = of_instance(&paths[1], &settings);
        b.sync().unwrap();
        for store in [&a, &b] {
            assert_eq!(value(store, Table::Accounts, "admin").unwrap(), "first");
            assert_eq!(value(store, Table::Accounts, "only here"), None);
        }
        // What gave way is kept beside.
        let kept = SqliteRecords::open(&paths[1].join("accounts.before.db")).unwrap();
        assert_eq!(value(&kept, Table::Accounts, "admin").unwrap(), "second");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_logins_go_on_and_changes_wait() {
    let mut redis = Redis::start(&[]);
    let dir = tempfile::tempdir().unwrap();
    let store = of_instance(dir.path(), &redis.settings());
    blocking(move || {
        store.sync().unwrap();
        add(&store, Table::Accounts, "admin", "1");
        add(&store, Table::Sessions, "s", "of admin");
        store.sync().unwrap();
        redis.kill();
        assert_eq!(value(&store, Table::Accounts, "admin").unwrap(), "1");
        assert_eq!(value(&store, Table::Sessions, "s").unwrap(), "of admin");
        add(&store, Table::Sessions, "t", "made here");
        add(&store, Table::Throttles, "n", "1");
        assert_eq!(value(&store, Table::Sessions, "t").unwrap(), "made here");
        let refused = store.put(Table::Accounts, &record("admin", "2"), Expected::Anything, 0);
        assert!(refused.unwrap_err().to_string().contains("Redis"));
        assert!(store.remove(Table::Accounts, "admin").is_err());
        redis.run();
        while store.sync().is_err() {}
        assert_eq!(value(&store, Table::Accounts, "admin").unwrap(), "1");
        assert_eq!(
            value(&store, Table::Sessions, "t"),
            None,
            "it was of this instance alone"
        );
        add(&store, Table::Accounts, "admin", "2");
    })
    .await;
}
