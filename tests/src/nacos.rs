//! A real Nacos server (rnacos) with a folder of its own, and what an operator does in its console.

use crate::fault::FaultProxy;
use crate::http::{self, Request, Response};
use crate::port::Port;
use crate::process;
use crate::programs;
use crate::wait::{PATIENCE, wait_blocking, wait_for};
use rustix::process::Signal;
use std::fs::OpenOptions;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Distance of the gRPC port, which clients rely on.
const GRPC: u16 = 1_000;
/// What a start may take at most.
const START: Duration = Duration::from_secs(15);
/// Times that a start is tried.
const ATTEMPTS: u32 = 10;
/// The group of the documents.
pub const GROUP: &str = "TOLLGATE";
/// The user of a server that asks for one.
pub const USER: &str = "nacos";
/// Its password.
pub const PASSWORD: &str = "nacos-password-0123";

/// A Nacos server. It can die and come back; dropped, it is ended.
#[derive(Debug)]
pub struct Nacos {
    ports: [Port; 2],
    console: Port,
    folder: TempDir,
    auth: bool,
    /// Whether it has ever worked.
    ready: bool,
    child: Option<Child>,
}

impl Nacos {
    /// Starts one that lets everybody in, and waits until a written content reads back.
    ///
    /// # Panics
    /// If it does not come up.
    pub async fn start() -> Self {
        Self::launch(false).await
    }

    /// Starts one that asks for [`USER`] and [`PASSWORD`].
    ///
    /// # Panics
    /// As [`Self::start`].
    pub async fn start_with_auth() -> Self {
        Self::launch(true).await
    }

    async fn launch(auth: bool) -> Self {
        let mut nacos = Self {
            ports: Port::pair(GRPC),
            console: Port::free(),
            folder: tempfile::Builder::new()
                .prefix("tollgate-nacos-")
                .tempdir()
                .expect("a temporary folder"),
            auth,
            ready: false,
            child: None,
        };
        nacos.restart().await;
        nacos
    }

    /// Starts it again on the same folder and ports.
    ///
    /// # Panics
    /// If it runs already or does not come up.
    pub async fn restart(&mut self) {
        assert!(self.child.is_none(), "Nacos runs already");
        // Now and then rnacos applies its first log entry before its parts know each other, panics, and never answers.
        for _ in 1..ATTEMPTS {
            let panics = self.panics();
            self.spawn();
            if self.is_ready(panics).await {
                self.ready = true;
                return;
            }
            self.kill();
            // What a broken start has left behind breaks the next one.
            if !self.ready {
                let _ = std::fs::remove_dir_all(self.folder.path().join("data"));
            }
        }
        panic!("Nacos did not come up {ATTEMPTS} times");
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn panics(&self) -> usize {
        self.log().matches("panicked").count()
    }

    /// Waits until a written content reads back; false if the server has broken while it started, beyond the panics
    /// that its log had before.
    async fn is_ready(&self, before: usize) -> bool {
        let started = Instant::now();
        wait_for("Nacos to give back what it was given", PATIENCE, || async {
            if self.panics() > before || started.elapsed() > START {
                return Some(false);
            }
            let text = "{\"ready\":true}";
            let put = self.try_put("", "tollgate.test.ready", text).await?;
            let got = self.try_get("", "tollgate.test.ready").await?;
            (put.status() == 200 && got.status() == 200 && got.text() == text).then_some(true)
        })
        .await
    }

    fn spawn(&mut self) {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.folder.path().join("log"))
            .expect("a file for the log");
        let [http, grpc] = &self.ports;
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "TERM"])
            .arg(programs::nacos())
            .env("RNACOS_SDK_HOST", "127.0.0.1")
            .env("RNACOS_HTTP_PORT", http.number().to_string())
            .env("RNACOS_GRPC_PORT", grpc.number().to_string())
            .env("RNACOS_HTTP_CONSOLE_PORT", self.console.number().to_string())
            .env("RNACOS_HTTP_WORKERS", "2")
            .env("RNACOS_DATA_DIR", self.folder.path().join("data"))
            .env("RNACOS_ENABLE_OPEN_API_AUTH", self.auth.to_string())
            .env("RNACOS_INIT_ADMIN_USERNAME", USER)
            .env("RNACOS_INIT_ADMIN_PASSWORD", PASSWORD)
            // Otherwise an instance keeps the metadata that it first came with.
            .env("RNACOS_NAMING_INSTANCE_METADATA_PERSISTENCE_ENABLE", "false")
            .env("RUST_LOG", "warn")
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log twice"))
            .stderr(log)
            .spawn()
            .expect("setpriv starts Nacos");
        self.child = Some(child);
    }

    /// Kills it (SIGKILL).
    ///
    /// # Panics
    /// If it does not run.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("Nacos runs");
        child.kill().expect("Nacos is killed");
        child.wait().expect("Nacos is waited for");
    }

    /// Where its clients go.
    pub fn address(&self) -> SocketAddr {
        self.ports[0].address()
    }

    /// Two proxies in front of it, one per port.
    ///
    /// # Panics
    /// If they cannot listen.
    pub async fn proxied(&self) -> NacosProxy {
        let [http, grpc] = Port::pair(GRPC);
        NacosProxy {
            http: FaultProxy::on(http, self.ports[0].address()).await,
            grpc: FaultProxy::on(grpc, self.ports[1].address()).await,
        }
    }

    async fn token(&self) -> Option<String> {
        if !self.auth {
            return Some(String::new());
        }
        let form = format!("username={USER}&password={PASSWORD}");
        let request = form_request("/nacos/v1/auth/login", form);
        let answer = http::send(self.address(), &request).await.ok()?;
        let answer: serde_json::Value = serde_json::from_str(&answer.text()).ok()?;
        let token = answer["accessToken"].as_str()?;
        Some(format!("&accessToken={token}"))
    }

    async fn try_put(&self, namespace: &str, id: &str, text: &str) -> Option<Response> {
        let token = self.token().await?;
        let target = format!("/nacos/v1/cs/configs?dataId={id}&group={GROUP}&tenant={namespace}{token}");
        let form = format!("content={}", encoded(text));
        let request = form_request(&target, form);
        http::send(self.address(), &request).await.ok()
    }

    async fn try_get(&self, namespace: &str, id: &str) -> Option<Response> {
        let token = self.token().await?;
        let target = format!("/nacos/v1/cs/configs?dataId={id}&group={GROUP}&tenant={namespace}{token}");
        http::send(self.address(), &Request::get(&target)).await.ok()
    }

    /// Writes a content, as an operator in the console.
    ///
    /// # Panics
    /// If it is not taken.
    pub async fn put(&self, id: &str, text: &str) {
        let answer = self.try_put("", id, text).await.expect("Nacos answers");
        assert_eq!(answer.status(), 200, "{}", answer.text());
    }

    /// A content; `None` if there is none.
    ///
    /// # Panics
    /// If Nacos does not answer.
    pub async fn get(&self, id: &str) -> Option<String> {
        let answer = self.try_get("", id).await.expect("Nacos answers");
        (answer.status() == 200).then(|| answer.text())
    }

    /// Deletes a content, as an operator in the console.
    ///
    /// # Panics
    /// If it is not deleted.
    pub async fn delete(&self, id: &str) {
        let token = self.token().await.expect("a token");
        let target = format!("/nacos/v1/cs/configs?dataId={id}&group={GROUP}&tenant={token}");
        let answer = http::send(self.address(), &Request::new("DELETE", &target)).await;
        assert_eq!(answer.expect("Nacos answers").status(), 200);
    }
}

impl Drop for Nacos {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("--- the log of Nacos\n{}", self.log());
        }
        if let Some(mut child) = self.child.take() {
            process::signal(child.id(), Signal::TERM);
            if !wait_blocking(PATIENCE, || child.try_wait().is_ok_and(|status| status.is_some())) {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}

/// Nacos behind proxies.
#[derive(Debug)]
pub struct NacosProxy {
    http: FaultProxy,
    grpc: FaultProxy,
}

impl NacosProxy {
    /// Where its clients go.
    pub fn address(&self) -> SocketAddr {
        self.http.address()
    }

    /// Ends all connections and lets no new one through.
    pub fn cut(&self) {
        self.http.cut();
        self.grpc.cut();
    }

    /// Lets connections through again.
    pub fn mend(&self) {
        self.http.mend();
        self.grpc.mend();
    }
}

fn form_request(target: &str, form: String) -> Request {
    let mut request =
        Request::new("POST", target).header("Content-Type", "application/x-www-form-urlencoded");
    request.body = form.into_bytes();
    request
}

/// For a form.
fn encoded(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes()
        .fold(String::with_capacity(text.len()), |mut out, byte| {
            if byte.is_ascii_alphanumeric() {
                out.push(char::from(byte));
            } else {
                let _ = write!(out, "%{byte:02X}");
            }
            out
        })
}
