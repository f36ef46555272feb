//! The mock as a process of its own: descriptors are limited per process, and ten thousand streams need them all.

use crate::http::{self, Request};
use crate::port::Port;
use crate::wait::{PATIENCE, wait_for};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// A running `mock-llm`; ends when dropped.
#[derive(Debug)]
pub struct MockProcess {
    port: Port,
    child: Child,
}

impl MockProcess {
    /// Starts it and waits until it answers.
    ///
    /// # Panics
    /// If it does not come up.
    pub async fn start() -> Self {
        let port = Port::free();
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(binary())
            .args(["--keep", "0", "--listen", &port.address().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("setpriv starts the mock");
        let mock = Self { port, child };
        wait_for("the mock's answer", PATIENCE, || async {
            http::send(mock.address(), &Request::get("/mock/health"))
                .await
                .ok()
        })
        .await;
        mock
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets streams with the option `hold` go on: `POST /mock/release`.
    ///
    /// # Panics
    /// If it does not answer.
    pub async fn release(&self) {
        let answer = http::send(self.address(), &Request::new("POST", "/mock/release")).await;
        assert_eq!(answer.expect("the mock answers").status(), 200);
    }

    /// What it received and sent: `GET /mock/stats`.
    ///
    /// # Panics
    /// If it does not answer.
    pub async fn stats(&self) -> Value {
        http::send(self.address(), &Request::get("/mock/stats"))
            .await
            .expect("the mock answers")
            .json()
    }
}

impl Drop for MockProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Cargo puts the programs of this package beside the folder of its test programs.
fn binary() -> PathBuf {
    let own = std::env::current_exe().expect("the path of this program");
    let folder = own.ancestors().find(|folder| folder.join("mock-llm").is_file());
    folder
        .unwrap_or_else(|| panic!("no mock-llm near {}", own.display()))
        .join("mock-llm")
}
