//! A real Redis (Debian's `redis-server`) on a free port: started, paused, killed, brought back with or without what it knew.

use crate::port::Port;
use crate::process::signal;
use crate::wait::{PATIENCE, wait_until};
use rustix::process::Signal;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
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

    /// Starts another that follows this one, and waits until it knows all that this one does.
    ///
    /// # Panics
    /// If it does not.
    pub async fn replica(&self) -> Self {
        let replica = Self::start().await;
        let master = self.address();
        replica.ask(&format!("REPLICAOF {} {}", master.ip(), master.port()));
        wait_until("the replica to follow", PATIENCE, || {
            let state = replica.ask("INFO replication").unwrap_or_default();
            state.contains("master_link_status:up")
        })
        .await;
        replica
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
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

    /// Its process id.
    ///
    /// # Panics
    /// If it does not run.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("Redis runs").id()
    }

    /// Counts the commands that clients send from now on, not those that scripts run.
    ///
    /// # Panics
    /// If it does not tell.
    pub fn count(&self) -> CommandCount {
        let mut stream = TcpStream::connect(self.port.address()).expect("Redis accepts");
        stream.write_all(b"MONITOR\r\n").expect("a command");
        let mut lines = BufReader::new(stream.try_clone().expect("the connection twice")).lines();
        let begun = lines.next().and_then(Result::ok);
        assert_eq!(begun.as_deref(), Some("+OK"), "MONITOR");
        let count = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&count);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                counter.fetch_add(u64::from(!line.contains(" lua] ")), Ordering::Relaxed);
            }
        });
        CommandCount { count, stream }
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

/// A running count; ends when dropped.
#[derive(Debug)]
pub struct CommandCount {
    count: Arc<AtomicU64>,
    stream: TcpStream,
}

impl CommandCount {
    /// Commands so far.
    pub fn get(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

impl Drop for CommandCount {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}
