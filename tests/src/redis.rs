//! A real Redis (Debian's `redis-server`) on a free port: started, paused, killed, brought back with or without what it knew.

use crate::port::Port;
use crate::process::signal;
use crate::wait::{PATIENCE, wait_until};
use rustix::process::Signal;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// A running Redis with an append-only file; ends when dropped.
#[derive(Debug)]
pub struct Redis {
    child: Option<Child>,
    port: Port,
    dir: TempDir,
}

impl Redis {
    /// Starts one and waits until it answers.
    ///
    /// # Panics
    /// If it does not.
    pub async fn start() -> Self {
        let mut redis = Self {
            child: None,
            port: Port::free(),
            dir: tempfile::tempdir().expect("a folder"),
        };
        redis.run().await;
        redis
    }

    async fn run(&mut self) {
        let child = Command::new("redis-server")
            .args(["--port", &self.port.number().to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "yes", "--appendfsync", "always"])
            .args(["--maxmemory-policy", "noeviction"])
            .arg("--dir")
            .arg(self.dir.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server of Debian's package redis-server");
        self.child = Some(child);
        wait_until("Redis to answer", PATIENCE, || {
            self.ask("PING").is_some_and(|answer| answer.starts_with("+PONG"))
        })
        .await;
    }

    /// What the settings' document says of it.
    pub fn url(&self) -> String {
        format!("redis://{}", self.port.address())
    }

    /// Sends a command without arguments that need quotes; the answer as it comes, for short ones.
    pub fn ask(&self, command: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.port.address()).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        stream.write_all(format!("{command}\r\n").as_bytes()).ok()?;
        let mut answer = vec![0; 65_536];
        let length = stream.read(&mut answer).ok()?;
        answer.truncate(length);
        Some(String::from_utf8_lossy(&answer).into_owned())
    }

    /// Commands that it has processed.
    ///
    /// # Panics
    /// If it does not tell.
    pub fn commands(&self) -> u64 {
        let stats = self.ask("INFO stats").expect("statistics");
        let line = stats
            .lines()
            .find_map(|l| l.strip_prefix("total_commands_processed:"));
        line.and_then(|n| n.trim().parse().ok()).expect("a number")
    }

    /// Stops answering, without closing a connection.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Goes on after [`Self::pause`].
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, which: Signal) {
        if let Some(child) = &self.child {
            signal(child.id(), which);
        }
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it again with what its file knows.
    pub async fn restart(&mut self) {
        self.kill();
        self.run().await;
    }

    /// Starts it again, empty.
    ///
    /// # Panics
    /// If its files cannot be removed.
    pub async fn restart_empty(&mut self) {
        self.kill();
        let files = self.dir.path().join("appendonlydir");
        std::fs::remove_dir_all(files).expect("its files are removed");
        self.run().await;
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}
