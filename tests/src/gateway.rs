//! A whole instance: mock LLM, documents, daemon, and nginx with the module.

use crate::daemon::Daemon;
use crate::documents::Documents;
use crate::http::{self, Request, Response};
use crate::mock::MockLlm;
use crate::nginx::{Config, Nginx};
use crate::site::Site;
use crate::wait::{PATIENCE, wait_for, wait_until};
use std::net::SocketAddr;
use std::time::Duration;
use tollgate_shm::Region;

/// The `http` block of most tests: the gateway under `/v1/`, its health check and `/v1beta/`, bare nginx under `/bare/` for comparison.
pub const HTTP: &str = "
    tollgate_region {{region}};
    tollgate_state {{state}};
    client_header_buffer_size 8k;
    client_max_body_size 128m;
    log_format tollgate '$status channel=$tollgate_channel model=$tollgate_model deployment=$tollgate_deployment '
                        'decision=$tollgate_decision input=$tollgate_input_tokens output=$tollgate_output_tokens '
                        'source=$tollgate_usage_source experiment=$tollgate_experiment group=$tollgate_experiment_group';
    access_log {{prefix}}/access.log tollgate;
    upstream models { tollgate_balancer; }
    upstream bare { server {{mock}}; keepalive 256; }
    server {
        listen {{http}};
        location /v1/ {
            tollgate on;
            include {{root}}/nginx-conf/tollgate_proxy.conf;
        }
        location /v1beta/ {
            tollgate on;
            include {{root}}/nginx-conf/tollgate_proxy.conf;
        }
        location = /tollgate/health {
            tollgate_health on;
        }
        location /bare/ {
            proxy_pass http://bare/;
            proxy_http_version 1.1;
            proxy_set_header Connection '';
            proxy_buffering off;
        }
    }
";

/// A running instance. Fields are in the order in which they must end.
#[derive(Debug)]
pub struct Gateway {
    /// nginx with the module.
    pub nginx: Nginx,
    /// The daemon.
    pub daemon: Daemon,
    /// Its folders.
    pub site: Site,
    /// The only provider, unless the documents name others.
    pub mock: MockLlm,
}

/// A [`Gateway`] about to be started.
#[derive(Debug)]
pub struct Builder {
    documents: Documents,
    config: Config,
}

impl Builder {
    /// Worker processes; 1 by default.
    #[must_use]
    pub fn workers(self, count: u32) -> Self {
        self.nginx(|config| config.workers(count))
    }

    /// Changes what nginx is started with.
    #[must_use]
    pub fn nginx(mut self, change: impl FnOnce(Config) -> Config) -> Self {
        self.config = change(self.config);
        self
    }

    /// Starts everything and waits until the gateway decides about requests. The provider `mock` is added to the
    /// documents.
    ///
    /// # Panics
    /// If a part does not come up.
    pub async fn start(self) -> Gateway {
        let mock = MockLlm::start().await;
        let site = Site::new();
        self.documents.any("mock", &mock.url()).write(&site);
        let daemon = Daemon::start(&site).await;
        wait_until("the first snapshot", PATIENCE, || {
            Region::open(&site.region()).is_ok_and(|region| region.generation() > 0)
        })
        .await;
        let nginx = site.fill(self.config).set("mock", mock.address()).start().await;
        let gateway = Gateway {
            nginx,
            daemon,
            site,
            mock,
        };
        gateway.wait_deciding().await;
        gateway
    }
}

impl Gateway {
    /// An instance with these documents.
    pub fn with(documents: Documents) -> Builder {
        Builder {
            documents,
            config: Nginx::config(HTTP).with_module(),
        }
    }

    /// Where clients go.
    pub fn address(&self) -> SocketAddr {
        self.nginx.address()
    }

    /// Sends a request through the gateway.
    ///
    /// # Panics
    /// If there is no complete answer.
    pub async fn send(&self, request: &Request) -> Response {
        http::send(self.address(), request)
            .await
            .expect("the gateway answers")
    }

    /// What counts against a channel's limit now, by the daemon's word.
    ///
    /// # Panics
    /// If the channel has no limit of that name.
    pub async fn used(&self, channel: &str, limit: &str) -> u64 {
        let region = self.region();
        // The daemon's API follows a moment after the workers.
        let answer = wait_for("the API to show what is in force", PATIENCE, || async {
            let answer = self.daemon.get(&format!("/channels/{channel}/limits")).await;
            (answer["generation"] == region.generation()).then_some(answer)
        })
        .await;
        let limits = answer["limits"].as_array().expect("a list of limits");
        let found = limits.iter().find(|it| it["name"] == limit);
        let found = found.unwrap_or_else(|| panic!("no {limit} among {limits:?}"));
        found["used"].as_u64().expect("a number")
    }

    /// Opens the shared region, to read counters or to move its clock.
    ///
    /// # Panics
    /// If it cannot be opened.
    pub fn region(&self) -> Region {
        Region::open(&self.site.region()).expect("the region opens")
    }

    /// Moves the clock of all windows forward.
    pub fn advance(&self, time: Duration) {
        let milliseconds = u64::try_from(time.as_millis()).expect("a reasonable time");
        self.region().advance_clock_for_tests(milliseconds);
    }

    /// Moves the clock to just after the start of a fixed window of this length, so that none ends within the test.
    pub fn align(&self, window: Duration) {
        let length = u64::try_from(window.as_millis()).expect("a reasonable time");
        let region = self.region();
        region.advance_clock_for_tests(length - region.now_ms() % length);
    }

    /// Replaces the documents and waits until every worker has taken them up.
    ///
    /// # Panics
    /// If that takes longer than [`PATIENCE`].
    pub async fn publish(&self, documents: Documents) {
        let region = self.region();
        let before = region.generation();
        documents.any("mock", &self.mock.url()).write(&self.site);
        wait_until("a new generation", PATIENCE, || region.generation() > before).await;
    }

    /// Waits until requests are decided about: any answer but 503 for want of a snapshot.
    async fn wait_deciding(&self) {
        let request = Request::chat("no such model", " hello").channel("no such channel");
        wait_for("the gateway to decide", PATIENCE, || async {
            let answer = http::send(self.address(), &request).await.ok()?;
            (answer.status() != 503).then_some(())
        })
        .await;
    }

    /// Waits until nothing is in flight: connection counts are back at 0.
    ///
    /// # Panics
    /// If something stays.
    pub async fn wait_idle(&self) {
        let region = self.region();
        wait_until("nothing in flight", PATIENCE, || region.inflight(1).is_empty()).await;
    }

    /// Kills nginx and the daemon (SIGKILL): the instance is gone. Its mock stays.
    ///
    /// # Panics
    /// If something of it does not run.
    pub fn kill(&mut self) {
        self.daemon.kill();
        self.nginx.kill();
    }

    /// Ends nginx and the daemon gracefully; the logs are looked at.
    ///
    /// # Panics
    /// As [`Nginx::stop`] and [`Daemon::stop`].
    pub async fn stop(self) {
        let Self {
            nginx,
            mut daemon,
            site,
            mock,
        } = self;
        nginx.stop().await;
        daemon.stop().await;
        drop((daemon, site, mock));
    }
}
