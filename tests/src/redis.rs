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
    options: Vec<String>,
}

impl Redis {
    /// Starts one and waits until it answers.
    ///
    /// # Panics
    /// If it does not.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// As [`Self::start`], with further options of the command line.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub async fn start_with(options: &[&str]) -> Self {
        let mut redis = Self {
            child: None,
            port: Port::free(),
            dir: tempfile::tempdir().expect("a folder"),
            options: options.iter().map(|&option| option.to_owned()).collect(),
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
            .args(&self.options)
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
        ask(self.port.address(), command)
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

fn ask(address: SocketAddr, command: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.write_all(format!("{command}\r\n").as_bytes()).ok()?;
    let mut answer = vec![0; 65_536];
    let length = stream.read(&mut answer).ok()?;
    answer.truncate(length);
    Some(String::from_utf8_lossy(&answer).into_owned())
}

/// A sentinel that watches one master, on its own.
#[derive(Debug)]
pub struct Sentinel {
    child: Child,
    port: Port,
    _dir: TempDir,
}

impl Sentinel {
    /// Starts one and waits until it knows the master.
    ///
    /// # Panics
    /// If it does not.
    pub async fn start(master: &Redis) -> Self {
        let (port, dir) = (Port::free(), tempfile::tempdir().expect("a folder"));
        let file = dir.path().join("sentinel.conf");
        let text = format!(
            "bind 127.0.0.1\nport {}\nsentinel monitor mymaster 127.0.0.1 {} 1\n\
             sentinel down-after-milliseconds mymaster 1000\nsentinel failover-timeout mymaster 5000\n",
            port.number(),
            master.address().port(),
        );
        std::fs::write(&file, text).expect("its configuration");
        let child = Command::new("redis-server")
            .arg(&file)
            .arg("--sentinel")
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server of Debian's package redis-server");
        let sentinel = Self {
            child,
            port,
            _dir: dir,
        };
        wait_until("the sentinel to know a replica", PATIENCE, || {
            ask(sentinel.port.address(), "SENTINEL REPLICAS mymaster")
                .is_some_and(|answer| answer.contains("runid"))
        })
        .await;
        sentinel
    }

    /// What the settings' document says of it.
    pub fn url(&self) -> String {
        format!("redis://{}", self.port.address())
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A cluster of three masters without replicas.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<Redis>,
    _buses: Vec<Port>,
}

impl RedisCluster {
    /// Starts it and waits until all nodes serve all slots.
    ///
    /// # Panics
    /// If they do not.
    pub async fn start() -> Self {
        let (mut nodes, mut buses) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            let bus = Port::free();
            let number = bus.number().to_string();
            let options = ["--cluster-enabled", "yes", "--cluster-port", &number];
            nodes.push(Redis::start_with(&options).await);
            buses.push(bus);
        }
        let slots = ["0 5460", "5461 10922", "10923 16383"];
        for (node, slots) in nodes.iter().zip(slots) {
            let answer = node.ask(&format!("CLUSTER ADDSLOTSRANGE {slots}"));
            assert_eq!(answer.as_deref(), Some("+OK\r\n"));
        }
        for (other, bus) in nodes.iter().zip(&buses).skip(1) {
            let meet = format!(
                "CLUSTER MEET 127.0.0.1 {} {}",
                other.address().port(),
                bus.number()
            );
            assert_eq!(nodes[0].ask(&meet).as_deref(), Some("+OK\r\n"));
        }
        wait_until("the cluster to be whole", PATIENCE, || {
            nodes.iter().all(|node| {
                node.ask("CLUSTER INFO").is_some_and(|info| {
                    info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
                })
            })
        })
        .await;
        Self { nodes, _buses: buses }
    }

    /// Its nodes.
    pub fn nodes(&self) -> &[Redis] {
        &self.nodes
    }

    /// What the settings' document says of it.
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(Redis::url).collect()
    }
}
