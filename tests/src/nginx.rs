//! A real nginx in a temporary prefix.
//!
//! ```no_run
//! # use tollgate_tests::nginx::Nginx;
//! # async fn example() {
//! let nginx = Nginx::config("server { listen {{http}}; location / { proxy_pass http://{{mock}}; } }")
//!     .set("mock", "127.0.0.1:9190")
//!     .workers(2)
//!     .start()
//!     .await;
//! let answer = nginx.address();
//! nginx.stop().await;
//! # }
//! ```
//!
//! `{{http}}` is a free address on the loopback interface; other names in double braces are set by
//! [`Config::set`], or are further free addresses if they begin with `port_`.
//!
//! Logs are read when it ends: an `[alert]`, an `[emerg]`, a process that died by a signal, a panic or a process that
//! stays behind fail the test, unless the test said that it does such a thing.

use crate::port::Port;
use crate::process;
use crate::programs::{self, NginxTree};
use crate::wait::{PATIENCE, wait_blocking, wait_until};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tempfile::TempDir;

/// What an nginx is started with.
#[derive(Debug)]
pub struct Config {
    http: String,
    main: String,
    values: BTreeMap<String, String>,
    ports: BTreeMap<String, Port>,
    environment: Vec<(String, String)>,
    workers: u32,
    connections: u32,
    level: String,
    user: Option<String>,
    module: bool,
    lua: bool,
    tree: Option<NginxTree>,
    wrapper: Vec<String>,
}

impl Config {
    /// Gives a value to `{{name}}`.
    #[must_use]
    pub fn set(mut self, name: &str, value: impl ToString) -> Self {
        self.values.insert(name.to_owned(), value.to_string());
        self
    }

    /// Takes this port for `{{name}}` instead of any that is free.
    #[must_use]
    pub fn port(mut self, name: &str, port: Port) -> Self {
        self.ports.insert(name.to_owned(), port);
        self
    }

    /// Worker processes; 1 by default.
    #[must_use]
    pub fn workers(mut self, count: u32) -> Self {
        self.workers = count;
        self
    }

    /// `worker_connections`; 4096 by default.
    #[must_use]
    pub fn connections(mut self, count: u32) -> Self {
        self.connections = count;
        self
    }

    /// Lines for the main context.
    #[must_use]
    pub fn main(mut self, lines: &str) -> Self {
        self.main.push_str(lines);
        self.main.push('\n');
        self
    }

    /// Loads the module.
    #[must_use]
    pub fn with_module(mut self) -> Self {
        self.module = true;
        self
    }

    /// Loads Debian's Lua module and what it needs; only for the tree `debian`.
    #[must_use]
    pub fn with_lua(mut self) -> Self {
        self.lua = true;
        self
    }

    /// Uses another tree than the one `TOLLGATE_NGINX` names.
    #[must_use]
    pub fn tree(mut self, tree: NginxTree) -> Self {
        self.tree = Some(tree);
        self
    }

    /// The user that workers run as, when the test is run by root; root itself by default.
    #[must_use]
    pub fn user(mut self, name: &str) -> Self {
        self.user = Some(name.to_owned());
        self
    }

    /// Level of the error log; `info` by default.
    #[must_use]
    pub fn log_level(mut self, level: &str) -> Self {
        self.level = level.to_owned();
        self
    }

    /// An environment variable of the master.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl ToString) -> Self {
        self.environment.push((name.to_owned(), value.to_string()));
        self
    }

    /// Starts the master through another program: `valgrind`, `taskset -c 0`, … The program must replace itself
    /// by nginx or be nginx's process (as Valgrind is).
    #[must_use]
    pub fn wrapper(mut self, command: &[&str]) -> Self {
        self.wrapper = command.iter().map(|&argument| argument.to_owned()).collect();
        self
    }

    /// Starts it and waits until all workers run and the first address accepts connections.
    ///
    /// # Panics
    /// If it does not come up; the log is shown.
    pub async fn start(self) -> Nginx {
        let nginx = self.prepare();
        nginx.wait_ready().await;
        nginx
    }

    /// Runs `nginx -t` and returns whether it accepts the configuration, and what it says.
    ///
    /// # Panics
    /// If the program cannot be run.
    pub fn test(mut self) -> (bool, String) {
        let tree = self.tree.clone().unwrap_or_else(programs::nginx);
        let prefix = make_prefix();
        self.write(&tree, prefix.path());
        let output = command(&tree, &self.wrapper, prefix.path())
            .arg("-t")
            .envs(self.environment.iter().cloned())
            .output()
            .expect("nginx -t runs");
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    }

    fn prepare(mut self) -> Nginx {
        let tree = self.tree.clone().unwrap_or_else(programs::nginx);
        let prefix = make_prefix();
        self.write(&tree, prefix.path());
        let child = self.spawn(&tree, prefix.path());
        Nginx {
            prefix,
            child,
            tree,
            config: self,
            expected: Mutex::default(),
        }
    }

    fn spawn(&self, tree: &NginxTree, prefix: &Path) -> Child {
        let stderr = File::create(prefix.join("stderr.log")).expect("a file for stderr");
        command(tree, &self.wrapper, prefix)
            .args(["-g", "daemon off;"])
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", tree.binary.display()))
    }

    fn write(&mut self, tree: &NginxTree, prefix: &Path) {
        let text = self.render(tree, prefix);
        let path = prefix.join("nginx.conf");
        let new = prefix.join("nginx.conf.new");
        std::fs::write(&new, text).expect("a configuration is written");
        std::fs::rename(new, path).expect("a configuration is put in place");
    }

    fn render(&mut self, tree: &NginxTree, prefix: &Path) -> String {
        let mut main = String::new();
        if self.lua {
            assert_eq!(tree.name, "debian", "the Lua module is Debian's");
            for module in ["ndk_http_module", "ngx_http_lua_module"] {
                main.push_str(&format!("load_module /usr/lib/nginx/modules/{module}.so;\n"));
            }
        }
        if self.module {
            main.push_str(&format!("load_module {};\n", tree.module.display()));
        }
        if rustix::process::geteuid().is_root() {
            // A group of that name may not exist: Debian's nobody is in nogroup.
            let user = self.user.as_deref().unwrap_or("root root");
            main.push_str(&format!("user {user};\n"));
        }
        main.push_str(&self.main);
        let text = format!(
            "{main}
worker_processes {workers};
{descriptors}
pid {{{{prefix}}}}/nginx.pid;
error_log {{{{prefix}}}}/error.log {level};
events {{ worker_connections {connections}; }}
http {{
    client_body_temp_path {{{{prefix}}}}/client_body;
    proxy_temp_path {{{{prefix}}}}/proxy;
    fastcgi_temp_path {{{{prefix}}}}/fastcgi;
    uwsgi_temp_path {{{{prefix}}}}/uwsgi;
    scgi_temp_path {{{{prefix}}}}/scgi;
    access_log {{{{prefix}}}}/access.log;
{http}
}}
",
            // Valgrind keeps some for itself and refuses to have that changed.
            descriptors = if self.wrapper.is_empty() {
                "worker_rlimit_nofile 20000;"
            } else {
                ""
            },
            workers = self.workers,
            level = self.level,
            connections = self.connections,
            http = self.http,
        );
        self.fill(&text, prefix)
    }

    fn fill(&mut self, text: &str, prefix: &Path) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once("{{") {
            let (name, after) = behind.split_once("}}").expect("every {{ has its }}");
            out.push_str(before);
            out.push_str(&self.value(name, prefix));
            rest = after;
        }
        out.push_str(rest);
        out
    }

    fn value(&mut self, name: &str, prefix: &Path) -> String {
        if let Some(value) = self.values.get(name) {
            return value.clone();
        }
        match name {
            "prefix" => prefix.display().to_string(),
            "root" => programs::root().display().to_string(),
            _ if name == "http" || name.starts_with("port_") => self
                .ports
                .entry(name.to_owned())
                .or_insert_with(Port::free)
                .address()
                .to_string(),
            _ => panic!("the configuration names {{{{{name}}}}}, which was not set"),
        }
    }
}

/// What a test itself causes, so that the logs may show it.
#[derive(Debug, Default)]
struct Expected {
    killed: Vec<u32>,
    texts: Vec<String>,
}

/// A running nginx. [`Nginx::stop`] ends it gracefully; dropped, it ends at once. Both look at the logs.
#[derive(Debug)]
pub struct Nginx {
    prefix: TempDir,
    child: Child,
    tree: NginxTree,
    config: Config,
    expected: Mutex<Expected>,
}

impl Nginx {
    /// A configuration with this inside its `http` block.
    pub fn config(http: &str) -> Config {
        Config {
            http: http.to_owned(),
            main: String::new(),
            values: BTreeMap::new(),
            ports: BTreeMap::new(),
            environment: Vec::new(),
            workers: 1,
            connections: 4096,
            level: "info".to_owned(),
            user: None,
            module: false,
            lua: false,
            tree: None,
            wrapper: programs::wrapper(),
        }
    }

    /// The address `{{http}}`.
    ///
    /// # Panics
    /// If the configuration does not use it.
    pub fn address(&self) -> SocketAddr {
        self.port("http")
    }

    /// The address that `{{name}}` became.
    ///
    /// # Panics
    /// As [`Self::address`].
    pub fn port(&self, name: &str) -> SocketAddr {
        self.config
            .ports
            .get(name)
            .unwrap_or_else(|| panic!("the configuration has no {{{{{name}}}}}"))
            .address()
    }

    /// The folder it runs in.
    pub fn prefix(&self) -> PathBuf {
        self.prefix.path().to_owned()
    }

    /// The tree it was taken from.
    pub fn tree(&self) -> &NginxTree {
        &self.tree
    }

    /// The master's process id.
    pub fn master(&self) -> u32 {
        self.child.id()
    }

    /// Workers that take connections, in the order of their start; not those that are shutting down.
    pub fn workers(&self) -> Vec<u32> {
        // Under Valgrind nginx cannot write what a process is: all children count.
        let untitled = !self.config.wrapper.is_empty();
        self.processes(|line| line == "nginx: worker process" || (untitled && !line.starts_with("nginx: ")))
    }

    /// Workers that finish what they have begun before they exit.
    pub fn old_workers(&self) -> Vec<u32> {
        self.processes(|line| line == "nginx: worker process is shutting down")
    }

    fn processes(&self, wanted: impl Fn(&str) -> bool) -> Vec<u32> {
        process::children(self.master())
            .into_iter()
            .filter(|pid| wanted(&process::command_line(*pid)))
            .collect()
    }

    /// Waits until all workers run and the first address accepts connections.
    ///
    /// # Panics
    /// If that does not happen; the log is shown.
    pub async fn wait_ready(&self) {
        let address = self.config.ports.values().next().map(Port::address);
        let wanted = usize::try_from(self.config.workers).unwrap_or(usize::MAX);
        let ready = || {
            self.workers().len() >= wanted
                && address.is_none_or(|address| std::net::TcpStream::connect(address).is_ok())
        };
        let start = std::time::Instant::now();
        while !ready() {
            let failed = !process::is_alive(self.master()) || start.elapsed() > PATIENCE;
            assert!(
                !failed,
                "nginx did not come up:\n{}{}",
                self.error_log(),
                self.stderr()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Reads the configuration again (HUP) and waits until new workers run and the old ones take no more
    /// connections.
    ///
    /// # Panics
    /// If that does not happen, for instance because the configuration is refused.
    pub async fn reload(&self) {
        let before = self.workers();
        process::signal(self.master(), Signal::HUP);
        let wanted = usize::try_from(self.config.workers).unwrap_or(usize::MAX);
        wait_until("new workers after a reload", PATIENCE, || {
            let now = self.workers();
            now.len() >= wanted && now.iter().all(|pid| !before.contains(pid))
        })
        .await;
    }

    /// As [`Self::reload`], with the `http` block replaced first.
    ///
    /// # Panics
    /// As [`Self::reload`].
    pub async fn reload_with(&mut self, http: &str) {
        http.clone_into(&mut self.config.http);
        self.config.write(&self.tree, self.prefix.path());
        self.reload().await;
    }

    /// Waits until the workers of former configurations have exited.
    ///
    /// # Panics
    /// If one is still there after the deadline.
    pub async fn wait_old_workers_gone(&self, deadline: Duration) {
        wait_until("old workers to exit", deadline, || self.old_workers().is_empty()).await;
    }

    /// Kills a worker (SIGKILL) and waits until the master has started another.
    ///
    /// # Panics
    /// If it is not a worker of this nginx, or no other is started.
    pub async fn kill_worker(&self, pid: u32) {
        assert!(
            process::children(self.master()).contains(&pid),
            "{pid} is not a worker of this nginx"
        );
        self.expected
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .killed
            .push(pid);
        process::signal(pid, Signal::KILL);
        let wanted = usize::try_from(self.config.workers).unwrap_or(usize::MAX);
        wait_until("a new worker", PATIENCE, || {
            let now = self.workers();
            !now.contains(&pid) && now.len() >= wanted
        })
        .await;
    }

    /// Kills all of it (SIGKILL), the master first, so that it starts no other worker.
    ///
    /// # Panics
    /// If it cannot be waited for.
    pub fn kill(&mut self) {
        let workers = process::children(self.master());
        self.child.kill().expect("nginx is killed");
        workers.iter().for_each(|pid| process::signal(*pid, Signal::KILL));
        self.child.wait().expect("nginx is waited for");
        let gone = wait_blocking(PATIENCE, || !workers.iter().any(|pid| process::is_alive(*pid)));
        assert!(gone, "workers outlive their death");
    }

    /// Asks the workers to open their logs anew (USR1).
    pub fn reopen_logs(&self) {
        process::signal(self.master(), Signal::USR1);
    }

    /// Says that the error log will have a line with this text.
    pub fn expect_in_log(&self, text: &str) {
        self.expected
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .texts
            .push(text.to_owned());
    }

    /// The error log so far.
    pub fn error_log(&self) -> String {
        read(&self.prefix.path().join("error.log"))
    }

    /// The access log so far.
    pub fn access_log(&self) -> String {
        read(&self.prefix.path().join("access.log"))
    }

    /// What was written to the standard error stream so far.
    pub fn stderr(&self) -> String {
        read(&self.prefix.path().join("stderr.log"))
    }

    /// Fails on lines that no healthy run writes: `[alert]`, `[emerg]`, a death by a signal, a panic.
    ///
    /// # Panics
    /// Showing those lines.
    pub fn assert_clean_logs(&self) {
        let expected = self.expected.lock().unwrap_or_else(PoisonError::into_inner);
        let logs = self.error_log() + &self.stderr();
        let unwanted: Vec<&str> = logs.lines().filter(|line| is_unwanted(line, &expected)).collect();
        assert!(unwanted.is_empty(), "nginx logged:\n{}", unwanted.join("\n"));
    }

    /// Ends it gracefully (QUIT) and looks at the logs.
    ///
    /// # Panics
    /// If it does not end, leaves a process behind or has logged what it should not.
    pub async fn stop(mut self) {
        self.quit().await;
    }

    /// Ends it as [`Self::stop`] does and starts it again, on the same ports.
    ///
    /// # Panics
    /// As [`Self::stop`], or if it does not come up again.
    pub async fn restart(&mut self) {
        self.quit().await;
        self.start_again().await;
    }

    /// Starts it again after [`Self::quit`], on the same ports.
    ///
    /// # Panics
    /// If it does not come up again.
    pub async fn start_again(&mut self) {
        self.child = self.config.spawn(&self.tree, self.prefix.path());
        self.wait_ready().await;
    }

    /// Ends it as [`Self::stop`] does.
    ///
    /// # Panics
    /// As [`Self::stop`].
    pub async fn quit(&mut self) {
        let workers = process::children(self.master());
        process::signal(self.master(), Signal::QUIT);
        wait_until("nginx to exit", PATIENCE, || {
            self.child.try_wait().is_ok_and(|status| status.is_some())
        })
        .await;
        wait_until("workers to exit", PATIENCE, || {
            !workers.iter().any(|pid| process::is_alive(*pid))
        })
        .await;
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let workers = process::children(self.master());
            process::signal(self.master(), Signal::TERM);
            let ended = wait_blocking(PATIENCE, || {
                self.child.try_wait().is_ok_and(|status| status.is_some())
            });
            if !ended {
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
            let gone = wait_blocking(Duration::from_secs(5), || {
                !workers.iter().any(|pid| process::is_alive(*pid))
            });
            if !gone {
                workers.iter().for_each(|pid| process::signal(*pid, Signal::KILL));
            }
            assert!(
                std::thread::panicking() || (ended && gone),
                "nginx did not end:\n{}",
                self.error_log()
            );
        }
        if std::thread::panicking() {
            // Only shown for a test that fails: what nginx said.
            println!(
                "--- nginx's error log\n{}{}",
                tail(&self.error_log(), 100),
                tail(&self.stderr(), 50)
            );
        } else {
            self.assert_clean_logs();
        }
    }
}

fn is_unwanted(line: &str, expected: &Expected) -> bool {
    let bad = [
        "[alert]",
        "[emerg]",
        "exited on signal",
        "panicked",
        "stack backtrace",
        "ERROR SUMMARY",
    ];
    if !bad.iter().any(|mark| line.contains(mark)) || line.contains("ERROR SUMMARY: 0 errors") {
        return false;
    }
    let killed = expected
        .killed
        .iter()
        .any(|pid| line.contains(&format!("worker process {pid} exited on signal 9")));
    !killed && !expected.texts.iter().any(|text| line.contains(text.as_str()))
}

fn make_prefix() -> TempDir {
    let prefix = tempfile::Builder::new()
        .prefix("tollgate-nginx-")
        .tempdir()
        .expect("a temporary folder");
    // Workers that are not root must reach their temporary files.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(prefix.path(), mode).expect("the folder is opened");
    prefix
}

/// nginx ends when the thread of the test that started it does, even if that is killed.
fn command(tree: &NginxTree, wrapper: &[String], prefix: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "TERM"])
        .args(wrapper)
        .arg(&tree.binary);
    command
        .arg("-p")
        .arg(prefix)
        .arg("-e")
        .arg(prefix.join("error.log"))
        .arg("-c")
        .arg(prefix.join("nginx.conf"));
    command
}

fn read(path: &Path) -> String {
    std::fs::read(path)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    let mut out = all[all.len().saturating_sub(lines)..].join("\n");
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_declared_deaths_are_accepted() {
        let expected = Expected {
            killed: vec![12],
            texts: vec!["could not be found".to_owned()],
        };
        let unwanted = |line: &str| is_unwanted(line, &expected);
        assert!(!unwanted(
            "2026/01/01 00:00:00 [notice] 1#1: start worker process 12"
        ));
        assert!(!unwanted(
            "2026/01/01 00:00:00 [alert] 1#1: worker process 12 exited on signal 9"
        ));
        assert!(unwanted(
            "2026/01/01 00:00:00 [alert] 1#1: worker process 123 exited on signal 9"
        ));
        assert!(unwanted(
            "2026/01/01 00:00:00 [alert] 1#1: worker process 12 exited on signal 11"
        ));
        assert!(unwanted(
            "2026/01/01 00:00:00 [alert] 9#9: *3 open socket #5 left in connection 6"
        ));
        assert!(!unwanted("2026/01/01 00:00:00 [emerg] 9#9: x could not be found"));
        assert!(unwanted("thread panicked at src/lib.rs"));
        assert!(unwanted("==1== ERROR SUMMARY: 2 errors from 1 contexts"));
        assert!(!unwanted("==1== ERROR SUMMARY: 0 errors from 0 contexts"));
    }
}
