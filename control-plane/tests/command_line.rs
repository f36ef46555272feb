//! The command line against a real daemon, over TLS: entries, usage, backups, versions; and who it does not trust.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "test code"
)]

mod support;

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use support::{Folders, PATIENCE, SECRET};

/// A daemon whose API speaks TLS; killed when the test ends.
struct Running {
    child: Child,
    folders: Folders,
    url: String,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An authority and a certificate of it for loopback, as PEM: authority, chain, key.
fn certificates() -> (String, String, String) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let authority = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let own = KeyPair::generate().unwrap();
    let names = vec!["127.0.0.1".to_owned()];
    let certificate = CertificateParams::new(names)
        .unwrap()
        .signed_by(&own, &issuer)
        .unwrap();
    (authority, certificate.pem(), own.serialize_pem())
}

impl Running {
    fn start() -> Running {
        let folders = Folders::new();
        let root = folders.config().parent().unwrap().to_owned();
        let (authority, chain, key) = certificates();
        for (name, text) in [("ca.pem", authority), ("cert.pem", chain), ("key.pem", key)] {
            fs::write(root.join(name), text).unwrap();
        }
        let (other, ..) = certificates();
        fs::write(root.join("other.pem"), other).unwrap();
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let log = root.join("daemon.log");
        let child = Command::new(env!("CARGO_BIN_EXE_tollgate"))
            .env_clear()
            .args(["serve", "--listen", &format!("127.0.0.1:{port}"), "--config"])
            .arg(folders.config())
            .arg("--state")
            .arg(folders.state())
            .arg("--region")
            .arg(folders.region())
            .arg("--tls-cert")
            .arg(root.join("cert.pem"))
            .arg("--tls-key")
            .arg(root.join("key.pem"))
            .arg("--log-file")
            .arg(&log)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut running = Running {
            child,
            folders,
            url: format!("https://127.0.0.1:{port}"),
        };
        let began = Instant::now();
        while !fs::read_to_string(&log).unwrap_or_default().contains(" ready ") {
            assert!(running.child.try_wait().unwrap().is_none(), "the daemon ended");
            assert!(began.elapsed() < PATIENCE, "the daemon does not start");
            std::thread::sleep(Duration::from_millis(5));
        }
        running
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
        let root = self.folders.config().parent().unwrap().to_owned();
        command
            .env_clear()
            .env("TOLLGATE_URL", &self.url)
            .env("TOLLGATE_CA_FILE", root.join("ca.pem"))
            .env("TOLLGATE_TOKEN_FILE", self.folders.state().join("api.token"))
            .args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    fn refused(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(!output.status.success(), "{arguments:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    fn with_input(&self, arguments: &[&str], input: &Value) -> String {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.to_string().as_bytes()).unwrap();
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {error}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

#[test]
fn entries_are_listed_shown_changed_added_and_removed() {
    let daemon = Running::start();
    let table = daemon.ok(&["channel", "list"]);
    assert!(table.starts_with("ID "), "{table}");
    assert!(table.contains("wechat001  微信  yes"), "{table}");
    let all: Value = serde_json::from_str(&daemon.ok(&["channel", "list", "--json"])).unwrap();
    assert_eq!(all[0]["id"], "wechat001");
    assert_eq!(
        daemon.ok(&[
            "channel",
            "set",
            "wechat001",
            "enabled=false",
            "name=Team 7",
            "models.allow=[\"gpt-*\"]"
        ]),
        "changed wechat001\n"
    );
    let one: Value = serde_json::from_str(&daemon.ok(&["channel", "get", "wechat001"])).unwrap();
    assert_eq!(
        (&one["enabled"], &one["name"], &one["models"]["allow"]),
        (&json!(false), &json!("Team 7"), &json!(["gpt-*"]))
    );
    let stale = daemon.refused(&["channel", "set", "wechat001", "name=x", "--if-match", "0123"]);
    assert!(stale.contains("409"), "{stale}");
    let wrong = daemon.refused(&[
        "channel",
        "set",
        "wechat001",
        "limits=[{\"metric\":\"requests\",\"max\":1}]",
    ]);
    assert!(wrong.contains("422") && wrong.contains("window"), "{wrong}");

    let made = json!({"code": "new", "trusted": true});
    let dry = daemon.with_input(&["channel", "create", "--dry-run"], &made);
    assert!(dry.contains("would be added new"), "{dry}");
    assert!(daemon.refused(&["channel", "get", "new"]).contains("404"));
    let added = daemon.with_input(&["channel", "create"], &made);
    assert_eq!(added, "added new\n");
    assert_eq!(daemon.ok(&["channel", "delete", "new"]), "removed new\n");

    let deployments = daemon.ok(&["deployment", "gpt-4o", "list"]);
    assert!(
        deployments.contains("gpt-4o/p") && deployments.contains(" p "),
        "{deployments}"
    );
    assert_eq!(
        daemon.ok(&["deployment", "gpt-4o", "set", "gpt-4o/p", "weight=7"]),
        "changed gpt-4o/p\n"
    );
    for sort in [
        "model",
        "provider",
        "rule",
        "template",
        "rule-template",
        "tokenizer",
    ] {
        assert!(daemon.ok(&[sort, "list"]).starts_with("ID"), "{sort}");
    }
    let providers = daemon.ok(&["provider", "list", "--json"]);
    assert!(
        !providers.contains(SECRET) && providers.contains("***"),
        "{providers}"
    );
    for usage in [
        &["usage", "--since", "2h"] as &[&str],
        &["usage", "--by", "channel"],
        &["channel", "usage", "wechat001"],
        &["model", "usage", "gpt-4o", "--step", "10m"],
    ] {
        assert!(daemon.ok(usage).contains("REQUESTS"), "{usage:?}");
    }
}

#[test]
fn nobody_is_believed_without_the_right_certificate_and_token() {
    let daemon = Running::start();
    let root = daemon.folders.config().parent().unwrap().to_owned();
    let other = root.join("other.pem");
    let untrusted = daemon.refused(&["status", "--ca-file", other.to_str().unwrap()]);
    assert!(untrusted.contains("does not answer"), "{untrusted}");
    let by_system = daemon
        .command(&["status"])
        .env_remove("TOLLGATE_CA_FILE")
        .output()
        .unwrap();
    assert!(!by_system.status.success());
    let plain = daemon.url.replace("https", "http");
    assert!(!daemon.refused(&["status", "--url", &plain]).is_empty());
    let token = |text: &str| {
        let output = daemon
            .command(&["channel", "list"])
            .env("TOLLGATE_TOKEN", text)
            .output()
            .unwrap();
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (done, error) = token("tgt_0123456789ab_not-a-token");
    assert!(
        !done && error.contains("401") && !error.contains("not-a-token"),
        "{error}"
    );
    let right = fs::read_to_string(daemon.folders.state().join("api.token")).unwrap();
    assert!(
        token(right.trim()).0,
        "the environment's token goes before the file's"
    );
    // A token never stands where everybody on the host can read it.
    let help = daemon.ok(&["channel", "list", "--help"]);
    assert!(
        !help.contains("--token ") && help.contains("--token-file"),
        "{help}"
    );
}

#[test]
fn documents_and_backups_go_out_and_come_back() {
    let daemon = Running::start();
    let root = daemon.folders.config().parent().unwrap().to_owned();
    let path = |name: &str| root.join(name).to_str().unwrap().to_owned();
    let (exported, archive) = (path("exported"), path("archive.json"));
    assert!(
        daemon
            .ok(&["config", "export", &exported])
            .contains("tollgate.channels.json")
    );
    assert!(daemon.ok(&["backup", "make", &archive]).contains("documents"));
    assert!(
        daemon.refused(&["backup", "make", &archive]).contains("exists"),
        "nothing is overwritten"
    );
    let key = daemon.folders.state().join("master.key");
    let key = key.to_str().unwrap();
    assert!(
        daemon
            .ok(&["backup", "verify", &archive, "--master-key-file", key])
            .starts_with("whole")
    );
    let mut forged: Value = serde_json::from_str(&fs::read_to_string(&archive).unwrap()).unwrap();
    forged["content"]["version"] = json!("9");
    let (bad, good) = (path("forged.json"), archive.as_str());
    fs::write(&bad, forged.to_string()).unwrap();
    assert!(
        daemon
            .refused(&["backup", "verify", &bad, "--master-key-file", key])
            .contains("changed")
    );

    daemon.ok(&["channel", "set", "wechat001", "name=other"]);
    let dry = daemon.ok(&["backup", "restore", good, "--dry-run"]);
    assert!(dry.starts_with("would change: tollgate.channels.json"), "{dry}");
    daemon.ok(&["backup", "restore", good]);
    assert!(daemon.ok(&["channel", "get", "wechat001"]).contains("微信"));
    // What was exported says nothing of credentials, and publishing it keeps the stored ones.
    let text = fs::read_to_string(root.join("exported/tollgate.providers.json")).unwrap();
    assert!(
        text.contains("***") && !text.contains("encrypted\": \"v"),
        "{text}"
    );
    daemon.ok(&["channel", "set", "wechat001", "name=other"]);
    let published = daemon.ok(&["config", "publish", &exported, "-m", "back"]);
    assert!(published.contains("is published"), "{published}");
    assert!(daemon.ok(&["channel", "get", "wechat001"]).contains("微信"));
}

#[test]
fn what_is_scheduled_is_listed_and_cancelled() {
    let daemon = Running::start();
    let root = daemon.folders.config().parent().unwrap().to_owned();
    let exported = root.join("exported").to_str().unwrap().to_owned();
    daemon.ok(&["config", "export", &exported]);
    let far = daemon.refused(&["config", "schedule", &exported, "--at", "2999-01-01T00:00:00Z"]);
    assert!(far.contains("422") && far.contains("at_ms"), "{far}");
    let today = tollgate::schedule::now_ms() / 86_400_000;
    let at = midnight(today + 40);
    let id = daemon.ok(&["config", "schedule", &exported, "--at", &at, "-m", "later"]);
    let listed = daemon.ok(&["config", "scheduled"]);
    assert!(
        listed.contains(id.trim()) && listed.contains("waiting"),
        "{listed}"
    );
    daemon.ok(&["config", "cancel", id.trim()]);
    assert!(daemon.ok(&["config", "scheduled"]).contains("cancelled"));
}

/// The begin of a day since 1970 as RFC 3339.
fn midnight(days: u64) -> String {
    let (mut year, mut left) = (1970, days);
    loop {
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let length = if leap { 366 } else { 365 };
        if left < length {
            let lengths = [
                31,
                if leap { 29 } else { 28 },
                31,
                30,
                31,
                30,
                31,
                31,
                30,
                31,
                30,
                31,
            ];
            let mut month = 0;
            while left >= lengths[month] {
                left -= lengths[month];
                month += 1;
            }
            return format!("{year:04}-{:02}-{:02}T00:00:00Z", month + 1, left + 1);
        }
        left -= length;
        year += 1;
    }
}

#[test]
fn risks_are_told_and_decide_the_exit_code() {
    let daemon = Running::start();
    let config = daemon.folders.config();
    let state = daemon.folders.state();
    let (config, state) = (config.to_str().unwrap(), state.to_str().unwrap());
    let output = daemon.run(&["check", config, "--security", "--state", state]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!output.status.success());
    assert!(text.contains("high   channel_without_key"), "{text}");
    let clean = daemon.run(&["check", config]);
    assert!(clean.status.success(), "only with --security");
    let output = daemon.run(&["check", config, "--security", "--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["findings"][0]["risk"], "high", "{report}");
    assert!(!text.contains(SECRET) && !report.to_string().contains(SECRET));
    for shell in ["bash", "zsh", "fish"] {
        assert!(daemon.ok(&["completion", shell]).contains("tollgate"), "{shell}");
    }
    let document: Value = serde_json::from_str(&daemon.ok(&["openapi"])).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
}
