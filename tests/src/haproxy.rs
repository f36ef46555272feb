//! A real HAProxy (Debian's) with the configuration of `nginx-conf/cluster`, on a free port.

use crate::port::Port;
use crate::programs;
use crate::wait::{PATIENCE, wait_until};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// A running HAProxy; ends when dropped.
#[derive(Debug)]
pub struct HaProxy {
    child: Child,
    port: Port,
    dir: TempDir,
}

impl HaProxy {
    /// Starts one; `change` may alter the configuration as it is shipped.
    ///
    /// # Panics
    /// If it does not listen.
    pub async fn start(change: impl FnOnce(String) -> String) -> Self {
        let (dir, port) = (tempfile::tempdir().expect("a folder"), Port::free());
        let shipped = programs::root().join("nginx-conf/cluster/haproxy.cfg");
        let shipped = std::fs::read_to_string(shipped).expect("the shipped configuration");
        let text = change(shipped)
            .replace("maxconn 60000", "maxconn 2000")
            .replace("bind :8000", &format!("bind {}", port.address()))
            .replace(
                "/run/haproxy/admin.sock",
                &dir.path().join("admin.sock").display().to_string(),
            );
        let file = dir.path().join("haproxy.cfg");
        std::fs::write(&file, text).expect("its configuration");
        let log = std::fs::File::create(dir.path().join("haproxy.log")).expect("its log");
        // In the foreground, and gone with the test that started it.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "haproxy", "-db", "-f"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log twice"))
            .stderr(log)
            .spawn()
            .expect("haproxy of Debian's package haproxy");
        let haproxy = Self { child, port, dir };
        wait_until("HAProxy to listen", PATIENCE, || {
            TcpStream::connect(haproxy.address()).is_ok() && haproxy.socket().exists()
        })
        .await;
        haproxy
    }

    /// Where clients go.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Its runtime socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("admin.sock")
    }

    /// Gives a command to the runtime socket.
    ///
    /// # Panics
    /// If there is no answer.
    pub fn ask(&self, command: &str) -> String {
        let mut stream = UnixStream::connect(self.socket()).expect("the runtime socket");
        stream
            .write_all(format!("{command}\n").as_bytes())
            .expect("a command");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    }

    /// A figure of each server of the backend `tollgate` (columns of `show stat`), by the server's name.
    ///
    /// # Panics
    /// If there is no such column.
    pub fn column(&self, name: &str) -> Vec<(String, String)> {
        let table = self.ask("show stat");
        let mut lines = table.lines().filter(|line| !line.is_empty());
        let names: Vec<&str> = lines
            .next()
            .expect("the columns")
            .trim_start_matches("# ")
            .split(',')
            .collect();
        let at = names
            .iter()
            .position(|n| *n == name)
            .expect("a column of that name");
        lines
            .map(|line| line.split(',').collect::<Vec<_>>())
            .filter(|row| row[0] == "tollgate" && row[1].starts_with("gateway"))
            .map(|row| (row[1].to_owned(), row[at].to_owned()))
            .collect()
    }

    /// Servers whose checks succeed, or that have none yet.
    pub fn up(&self) -> usize {
        let states = self.column("status");
        states.iter().filter(|(_, state)| state.starts_with("UP")).count()
    }
}

impl Drop for HaProxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.dir.path().join("haproxy.log")).unwrap_or_default();
            println!("--- HAProxy's log\n{log}");
        }
    }
}
