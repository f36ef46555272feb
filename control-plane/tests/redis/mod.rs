//! A real Redis of a test's own: one server or three masters, killed, brought back, brought back as it was before.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "test code; each test file uses a part of it"
)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::watch;
use tollgate::config::{ConfigStatus, StatusWatch};
use tollgate::secrets::CredentialFolder;
use tollgate::shared::Shared;
use tollgate_policy::documents::Settings;

pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Redis {
    child: Option<Child>,
    pub port: u16,
    dir: tempfile::TempDir,
    options: Vec<String>,
}

impl Redis {
    pub fn start(options: &[&str]) -> Redis {
        // A cluster's bus listens 10,000 ports higher.
        let port = loop {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            if port < 55_000 {
                break port;
            }
        };
        let mut redis = Redis {
            child: None,
            port,
            dir: tempfile::tempdir().unwrap(),
            options: options.iter().map(|o| (*o).to_owned()).collect(),
        };
        redis.run();
        redis
    }

    /// Starts it with what its files know.
    pub fn run(&mut self) {
        let child = Command::new("redis-server")
            .args([
                "--port",
                &self.port.to_string(),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
            ])
            .args(["--appendonly", "yes", "--appendfsync", "always", "--dir"])
            .arg(self.dir.path())
            .args(&self.options)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server of Debian's package redis-server");
        self.child = Some(child);
        until("Redis to answer", || self.ask("PING").starts_with("+PONG"));
    }

    /// Sends a command without arguments that need quotes; the answer as it comes, for short ones.
    pub fn ask(&self, command: &str) -> String {
        let answer = || {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
            stream.set_read_timeout(Some(PATIENCE)).ok()?;
            stream.write_all(format!("{command}\r\n").as_bytes()).ok()?;
            let mut answer = vec![0; 65_536];
            let length = stream.read(&mut answer).ok()?;
            answer.truncate(length);
            Some(String::from_utf8_lossy(&answer).into_owned())
        };
        answer().unwrap_or_default()
    }

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn files(&self) -> PathBuf {
        self.dir.path().join("appendonlydir")
    }

    /// What its files know now.
    pub fn keep(&self) -> tempfile::TempDir {
        let kept = tempfile::tempdir().unwrap();
        copy(&self.files(), kept.path());
        kept
    }

    /// Kills it and starts it with what its files knew then: everything since is lost.
    pub fn lose_all_since(&mut self, kept: &Path) {
        self.kill();
        std::fs::remove_dir_all(self.files()).unwrap();
        std::fs::create_dir(self.files()).unwrap();
        copy(kept, &self.files());
        self.run();
    }

    pub fn settings(&self) -> Value {
        json!({ "urls": [format!("redis://127.0.0.1:{}", self.port)], "timeout": "2s" })
    }
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Three masters that share the slots, and the settings that name them.
pub fn cluster() -> (Vec<Redis>, Value) {
    let nodes: Vec<Redis> = (0..3)
        .map(|_| Redis::start(&["--cluster-enabled", "yes"]))
        .collect();
    for (node, slots) in nodes.iter().zip(["0 5460", "5461 10922", "10923 16383"]) {
        node.ask(&format!("CLUSTER ADDSLOTSRANGE {slots}"));
        node.ask(&format!("CLUSTER MEET 127.0.0.1 {}", nodes[0].port));
    }
    until("the cluster to form", || {
        nodes
            .iter()
            .all(|n| n.ask("CLUSTER INFO").contains("cluster_state:ok"))
    });
    let urls: Vec<String> = nodes
        .iter()
        .map(|n| format!("redis://127.0.0.1:{}", n.port))
        .collect();
    (nodes, json!({ "kind": "cluster", "urls": urls, "timeout": "2s" }))
}

pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "waited for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A configuration that names this Redis; it lasts as long as the sender.
pub fn config(redis: &Value) -> (watch::Sender<Arc<ConfigStatus>>, StatusWatch) {
    let settings: Settings = serde_json::from_value(json!({ "redis": redis })).unwrap();
    watch::channel(Arc::new(ConfigStatus {
        settings: Arc::new(settings),
        ..ConfigStatus::default()
    }))
}

pub fn shared(config: &StatusWatch) -> Shared {
    Shared::new(config.clone(), CredentialFolder("/nonexistent".into()))
}
