//! One of several instances: nginx and a daemon whose documents are in Nacos.

use crate::daemon::Daemon;
use crate::gateway::HTTP;
use crate::http::{self, Request, Response};
use crate::nginx::Nginx;
use crate::port::Port;
use crate::site::Site;
use crate::wait::{PATIENCE, wait_for};
use serde_json::{Value, json};
use std::net::SocketAddr;
use tollgate_shm::Region;

/// A running instance. Fields are in the order in which they must end.
#[derive(Debug)]
pub struct Instance {
    /// nginx with the module.
    pub nginx: Nginx,
    /// The daemon.
    pub daemon: Daemon,
    /// Its folders.
    pub site: Site,
}

impl Instance {
    /// Starts an instance of this name.
    ///
    /// # Panics
    /// If a part does not come up.
    pub async fn start(name: &str, nacos: SocketAddr, mock: SocketAddr) -> Self {
        Self::start_with(name, nacos, mock, &[]).await
    }

    /// As [`Self::start`], with further arguments for the daemon. Where its nginx listens, the others are told.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub async fn start_with(name: &str, nacos: SocketAddr, mock: SocketAddr, arguments: &[&str]) -> Self {
        let (site, port) = (Site::new(), Port::free());
        let (nacos, clients) = (nacos.to_string(), port.address().to_string());
        let mut all = vec!["--nacos", &nacos, "--instance", name, "--advertise", &clients];
        all.extend(arguments);
        let daemon = Daemon::start_without_config(&site, &all).await;
        let config = Nginx::config(HTTP).with_module().port("http", port);
        let nginx = site.fill(config).set("mock", mock).start().await;
        Self { nginx, daemon, site }
    }

    /// Requests that its workers have decided since they started.
    pub fn decided(&self) -> u64 {
        self.region().workers().iter().map(|worker| worker.requests).sum()
    }

    /// Takes it out of the cluster, as `tollgate drain` does.
    ///
    /// # Panics
    /// If the daemon does not.
    pub async fn drain(&self) {
        let answer = self.daemon.api(Request::new("PUT", "/api/v1/drain")).await;
        assert_eq!(answer.status(), 200, "{}", answer.text());
    }

    /// Takes it in again.
    ///
    /// # Panics
    /// If the daemon does not.
    pub async fn undrain(&self) {
        let answer = self.daemon.api(Request::new("DELETE", "/api/v1/drain")).await;
        assert_eq!(answer.status(), 200, "{}", answer.text());
    }

    /// Sends a request through the gateway.
    ///
    /// # Panics
    /// If there is no complete answer.
    pub async fn send(&self, request: &Request) -> Response {
        http::send(self.nginx.address(), request)
            .await
            .expect("the gateway answers")
    }

    /// Opens the shared region.
    ///
    /// # Panics
    /// If it cannot be opened.
    pub fn region(&self) -> Region {
        Region::open(&self.site.region()).expect("the region opens")
    }

    /// Publishes documents, by kind or name, as one version.
    pub async fn publish(&self, documents: Value) -> Response {
        let body = json!({ "documents": documents, "message": "a test" });
        self.daemon.api(Request::post("/api/v1/versions", &body)).await
    }

    /// The version in force, by the daemon's word; 0 for none.
    pub async fn version(&self) -> u64 {
        let documents = self.daemon.get("/documents").await;
        documents["version_in_force"].as_u64().unwrap_or(0)
    }

    /// Waits until a version is in force, and every worker has it.
    ///
    /// # Panics
    /// If that takes longer than [`PATIENCE`].
    pub async fn wait_version(&self, version: u64) {
        wait_for(&format!("version {version}"), PATIENCE, || async {
            (self.version().await == version).then_some(())
        })
        .await;
    }

    /// Ends both gracefully; the logs are looked at.
    ///
    /// # Panics
    /// As [`Nginx::stop`] and [`Daemon::stop`].
    pub async fn stop(self) {
        let Self {
            nginx,
            mut daemon,
            site,
        } = self;
        nginx.stop().await;
        daemon.stop().await;
        drop((daemon, site));
    }
}
