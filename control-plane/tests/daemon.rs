//! The real program: killed, restarted, started twice, in any order.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "test code"
)]

mod support;

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use support::{Folders, PATIENCE, SECRET, channels};
use tollgate::ledger::{Counter, SqliteReader, UsageQuery};
use tollgate_policy::Snapshot;
use tollgate_shm::{Class, Event, Region, SnapshotFiles, UsageDelta, UsageIndex, Worker};

/// A daemon that is killed when the test ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn command(folders: &Folders) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command
        .env_clear()
        .args(["serve", "--listen", "127.0.0.1:0", "--config"])
        .arg(folders.config())
        .arg("--state")
        .arg(folders.state())
        .arg("--region")
        .arg(folders.region())
        .stdin(Stdio::null());
    command
}

fn wait_for<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn log_file(folders: &Folders) -> std::path::PathBuf {
    folders.config().with_file_name("daemon.log")
}

fn start(folders: &Folders) -> Running {
    let log = log_file(folders);
    let before = fs::read_to_string(&log)
        .unwrap_or_default()
        .matches(" ready ")
        .count();
    let child = command(folders).arg("--log-file").arg(&log).spawn().unwrap();
    let mut running = Running(child);
    wait_for("the daemon's start", || {
        let text = fs::read_to_string(&log).unwrap_or_default();
        assert!(
            running.0.try_wait().unwrap().is_none(),
            "the daemon ended:\n{text}"
        );
        (text.matches(" ready ").count() > before).then_some(())
    });
    running
}

fn totals(folders: &Folders) -> Option<(i64, i64, i64)> {
    let reader = SqliteReader::open(&folders.state().join("tollgate.db")).ok()?;
    let query = |step| UsageQuery {
        step,
        from: 0,
        to: u64::MAX,
        channel: Some("wechat001".into()),
        model: None,
        limit: 1_000_000,
    };
    let [first, minutes, ten_minutes, again] = [0, 60, 600, 0].map(|step| {
        let points = reader.usage(&query(step)).unwrap();
        points.iter().fold((0, 0, 0), |(requests, input, output), p| {
            (
                requests + p.counters.requests(),
                input + p.counters.get(Counter::InputTokens),
                output + p.counters.get(Counter::OutputTokens),
            )
        })
    });
    // A batch may have been committed between the queries.
    if first != again {
        return None;
    }
    assert!(
        first == minutes && minutes == ten_minutes,
        "the steps disagree: {first:?} {minutes:?} {ten_minutes:?}"
    );
    Some(first)
}

/// One request as the module reports it: counted, then put on the ring, which may be full.
fn request(region: &Region, worker: &Worker, row: UsageIndex, n: u64) {
    let (input, output) = (n % 97 + 1, n % 13);
    region.add_usage(
        row,
        &UsageDelta {
            input_tokens: input,
            output_tokens: output,
            ..UsageDelta::of(Class::Ok)
        },
    );
    region.push_event(
        worker,
        &Event {
            time_ms: region.now_ms(),
            usage: row.number(),
            deployment: u32::MAX,
            input_tokens: input as u32,
            output_tokens: output as u32,
            ..Event::default()
        },
    );
}

#[test]
fn a_daemon_killed_at_any_instant_neither_loses_nor_doubles_usage() {
    let folders = Folders::new();
    let mut daemon = start(&folders);
    let region = Region::open(&folders.region()).unwrap();
    let worker = region.attach_worker().unwrap();
    let row = region.usage_index(b"wechat001", b"gpt-4o").unwrap();
    let (mut n, mut want) = (0u64, (0i64, 0i64, 0i64));
    for round in 0..12u64 {
        // Load, with the kill somewhere in the middle of it. Rounds differ in how long they go on.
        let until = Instant::now() + Duration::from_millis(90 + round * 37);
        let kill_at = Instant::now() + Duration::from_millis(40 + round * 29);
        let mut killed = false;
        while Instant::now() < until || !killed {
            for _ in 0..5 {
                request(&region, &worker, row, n);
                want = (want.0 + 1, want.1 + (n % 97 + 1) as i64, want.2 + (n % 13) as i64);
                n += 1;
            }
            if !killed && Instant::now() >= kill_at {
                daemon.0.kill().unwrap();
                daemon.0.wait().unwrap();
                killed = true;
            }
            std::thread::sleep(Duration::from_micros(300));
        }
        daemon = start(&folders);
    }
    let began = Instant::now();
    let got = wait_for("the ledger's agreement with the region", || {
        let got = totals(&folders)?;
        (got == want || began.elapsed() > Duration::from_secs(20)).then_some(got)
    });
    assert_eq!(got, want, "after {n} requests and 12 kills");
    assert!(
        region.events_dropped() > 0,
        "the rings were never full, so half of this test did nothing"
    );
    drop(daemon);
}

#[test]
fn a_second_daemon_is_refused() {
    let folders = Folders::new();
    let first = start(&folders);
    let same = command(&folders).output().unwrap();
    assert!(!same.status.success());
    let text = String::from_utf8_lossy(&same.stderr).into_owned();
    assert!(text.contains("another daemon uses the state folder"), "{text}");
    let other_state = tempfile::tempdir().unwrap();
    let mut with_other_state = command(&folders);
    with_other_state.arg("--state").arg(other_state.path());
    // clap takes an option once: give the arguments anew.
    let other = Command::new(env!("CARGO_BIN_EXE_tollgate"))
        .env_clear()
        .args(["serve", "--listen", "127.0.0.1:0", "--config"])
        .arg(folders.config())
        .arg("--state")
        .arg(other_state.path())
        .arg("--region")
        .arg(folders.region())
        .output()
        .unwrap();
    assert!(!other.status.success());
    let text = String::from_utf8_lossy(&other.stderr).into_owned();
    let pid = first.0.id().to_string();
    assert!(
        text.contains("another daemon, process") && text.contains(&pid),
        "{text}"
    );
    drop(first);
    // Its death is noticed, whatever way it died.
    let _second = start(&folders);
}

#[test]
fn after_a_reboot_the_last_good_configuration_and_the_windows_are_back() {
    let folders = Folders::new();
    let daemon = start(&folders);
    let region = Region::open(&folders.region()).unwrap();
    let generation = region.generation();
    let spec = {
        let file = SnapshotFiles::new(region.dir()).open(generation).unwrap();
        let snapshot = Snapshot::open(&file).unwrap();
        let channel = snapshot.channel_by_code(b"wechat001").unwrap();
        tollgate::live::spec(&channel.limits().iter().find(|l| l.window_ms() > 0).unwrap(), "").unwrap()
    };
    region.restore_usage(&spec, region.now_ms(), 4_321);
    let checkpoint = folders.state().join("counters.ckpt");
    // An empty one has 48 bytes, one counter 280 more.
    wait_for("the checkpoint", || {
        (fs::metadata(&checkpoint).ok()?.len() > 300).then_some(())
    });
    drop((daemon, region));
    fs::remove_dir_all(folders.region()).unwrap();
    fs::write(folders.file("channels"), "{").unwrap();

    let daemon = start(&folders);
    let region = Region::open(&folders.region()).unwrap();
    assert_eq!(region.generation(), generation, "what was good is in force again");
    assert_eq!(region.level(&spec, region.now_ms()).used, 4_321);
    folders.write("channels", &channels(5));
    wait_for("the repaired configuration", || {
        (region.generation() > generation).then_some(())
    });
    assert_eq!(
        region.level(&spec, region.now_ms()).used,
        4_321,
        "an edit keeps usage"
    );
    drop(daemon);
}

#[test]
fn a_restart_changes_nothing_and_secrets_never_reach_the_log() {
    let folders = Folders::new();
    let mut daemon = start(&folders);
    let region = Region::open(&folders.region()).unwrap();
    let generation = region.generation();
    let id = rustix::process::Pid::from_child(&daemon.0);
    rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    assert!(
        daemon.0.wait().unwrap().success(),
        "a stop on SIGTERM is a success"
    );
    let daemon = start(&folders);
    assert_eq!(region.generation(), generation);
    drop(daemon);
    let log = fs::read_to_string(log_file(&folders)).unwrap();
    let token = fs::read_to_string(folders.state().join("api.token")).unwrap();
    let key = fs::read_to_string(folders.state().join("master.key")).unwrap();
    assert!(log.contains("published") && log.contains("stopped"), "{log}");
    for secret in [SECRET, token.trim(), key.trim()] {
        assert!(!log.contains(secret));
    }
}

#[test]
fn the_command_line_checks_documents_and_explains_requests() {
    let folders = Folders::new();
    let tollgate = |args: &[&str]| {
        let out = Command::new(env!("CARGO_BIN_EXE_tollgate"))
            .env_clear()
            .args(args)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
        (out.status.code(), text)
    };
    let config = folders.config();
    let config = config.to_str().unwrap();
    let (code, text) = tollgate(&["check", config]);
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("1 channels, 1 models, 1 providers, 1 rules: 0 errors"),
        "{text}"
    );
    assert_eq!(
        tollgate(&["check", "--strict", config]).0,
        Some(1),
        "a trusted channel is worth a warning"
    );

    let body = r#"{"model":"gpt-4o","max_tokens":9,"messages":[]}"#;
    let (code, text) = tollgate(&["explain", config, "-H", "channelcode: wechat001", "-d", body]);
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("admitted") && text.contains("input_tokens/10m"),
        "{text}"
    );
    let (code, text) = tollgate(&["explain", config, "-d", body]);
    assert_eq!(code, Some(1));
    assert!(text.contains("refused by channel: 401"), "{text}");

    fs::write(
        folders.file("rules"),
        r#"{"rules": [{"name": 1, "then": {}}], "x": 1}"#,
    )
    .unwrap();
    let (code, text) = tollgate(&["check", config]);
    assert_eq!(code, Some(1));
    assert!(text.matches("error: tollgate.rules.json").count() >= 2, "{text}");
    let (code, text) = tollgate(&["schema", "limits"]);
    assert!(code != Some(0) && text.contains("channels, models"), "{text}");
    let (code, text) = tollgate(&["schema", "channels"]);
    assert!(code == Some(0) && text.contains("$schema"));
}
