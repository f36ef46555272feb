//! The real daemon, `tollgate serve`, on the folders of a [`Site`].

use crate::http::{self, Request, Response};
use crate::port::Port;
use crate::process;
use crate::programs;
use crate::site::{Site, TOKEN};
use crate::wait::{PATIENCE, wait_blocking, wait_for, wait_until};
use rustix::process::Signal;
use serde_json::Value;
use std::fs::OpenOptions;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

/// A daemon of one [`Site`]. It can die and come back; dropped, it is ended and its log is looked at.
#[derive(Debug)]
pub struct Daemon {
    /// `None` if its documents are elsewhere, as the arguments say.
    config: Option<PathBuf>,
    state: PathBuf,
    region: PathBuf,
    port: Port,
    child: Option<Child>,
    arguments: Vec<String>,
}

impl Daemon {
    /// Starts it and waits until its API answers.
    ///
    /// # Panics
    /// If it does not come up; its log is shown.
    pub async fn start(site: &Site) -> Self {
        Self::start_with(site, &[]).await
    }

    /// As [`Self::start`], with further arguments.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub async fn start_with(site: &Site, arguments: &[&str]) -> Self {
        Self::start_on(site, Some(site.config()), arguments).await
    }

    /// Starts it without a folder of documents: the arguments say where they are.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub async fn start_without_config(site: &Site, arguments: &[&str]) -> Self {
        Self::start_on(site, None, arguments).await
    }

    async fn start_on(site: &Site, config: Option<PathBuf>, arguments: &[&str]) -> Self {
        let mut daemon = Self {
            config,
            state: site.state(),
            region: site.region(),
            port: Port::free(),
            child: None,
            arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
        };
        daemon.restart().await;
        daemon
    }

    /// Starts it again after [`Self::kill`] or [`Self::stop`], on the same folders and port.
    ///
    /// # Panics
    /// If it runs already or does not come up.
    pub async fn restart(&mut self) {
        assert!(self.child.is_none(), "the daemon runs already");
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_path())
            .expect("a file for the log");
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "TERM"])
            .arg(programs::daemon())
            .arg("serve")
            .args(
                self.config
                    .iter()
                    .flat_map(|dir| ["--config".into(), dir.clone()]),
            )
            .arg("--state")
            .arg(&self.state)
            .arg("--region")
            .arg(&self.region)
            .arg("--listen")
            .arg(self.port.address().to_string())
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log twice"))
            .stderr(log)
            .spawn()
            .expect("setpriv starts the daemon");
        self.child = Some(child);
        wait_for("the daemon's API", PATIENCE, || async {
            let alive = self
                .child
                .as_ref()
                .is_some_and(|child| process::is_alive(child.id()));
            assert!(alive, "the daemon ended:\n{}", self.log());
            http::send(self.address(), &Request::get("/api/v1/health"))
                .await
                .ok()
                .filter(|it| it.status() == 200 || self.config.is_none())
        })
        .await;
    }

    /// Changes what it is started with the next time.
    pub fn set_arguments(&mut self, arguments: &[&str]) {
        self.arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
    }

    /// Its process id.
    ///
    /// # Panics
    /// If it does not run.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the daemon runs").id()
    }

    /// Kills it (SIGKILL).
    ///
    /// # Panics
    /// If it does not run.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("the daemon runs");
        child.kill().expect("the daemon is killed");
        child.wait().expect("the daemon is waited for");
    }

    /// Ends it (TERM) and waits.
    ///
    /// # Panics
    /// If it does not end, or not with success.
    pub async fn stop(&mut self) {
        let mut child = self.child.take().expect("the daemon runs");
        process::signal(child.id(), Signal::TERM);
        wait_until("the daemon to exit", PATIENCE, || {
            child.try_wait().is_ok_and(|status| status.is_some())
        })
        .await;
        let status = child.wait().expect("the daemon is waited for");
        assert!(
            status.success(),
            "the daemon ended with {status}:\n{}",
            self.log()
        );
    }

    /// Where its API listens.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Asks the API.
    ///
    /// # Panics
    /// If there is no answer.
    pub async fn api(&self, request: Request) -> Response {
        let request = request.header("Authorization", &format!("Bearer {TOKEN}"));
        http::send(self.address(), &request)
            .await
            .expect("the API answers")
    }

    /// GETs JSON from the API, by a path below `/api/v1`.
    ///
    /// # Panics
    /// If the answer is not 200.
    pub async fn get(&self, path: &str) -> Value {
        let response = self.api(Request::get(&format!("/api/v1{path}"))).await;
        assert_eq!(response.status(), 200, "GET {path}: {}", response.text());
        response.json()
    }

    /// Runs `tollgate` with other arguments, for its command line.
    ///
    /// # Panics
    /// If it cannot be run.
    pub fn command(arguments: &[&str]) -> Output {
        Command::new(programs::daemon())
            .args(arguments)
            .output()
            .expect("tollgate runs")
    }

    /// What it has logged, over all its lives.
    pub fn log(&self) -> String {
        let bytes = std::fs::read(self.log_path()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn log_path(&self) -> PathBuf {
        self.state.with_file_name("daemon.log")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            process::signal(child.id(), Signal::TERM);
            let ended = wait_blocking(PATIENCE, || child.try_wait().is_ok_and(|status| status.is_some()));
            if !ended {
                let _ = child.kill();
                let _ = child.wait();
            }
            assert!(
                ended || std::thread::panicking(),
                "the daemon did not end:\n{}",
                self.log()
            );
        }
        let log = self.log();
        if std::thread::panicking() {
            println!("--- the daemon's log\n{log}");
        } else {
            let panic = log.lines().find(|line| line.contains("panicked"));
            assert!(panic.is_none(), "the daemon logged: {panic:?}");
        }
    }
}
