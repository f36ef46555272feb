//! What the daemon's tests share: folders, a configuration, a region, an API without a socket.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "test code; each test file uses a part of it"
)]

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::sync::watch;
use tollgate::accounts::{Accounts, Records, SqliteRecords};
use tollgate::api::{AppState, Indexes, app};
use tollgate::audit::Audit;
use tollgate::backup::BackupFolder;
use tollgate::config::{ConfigSource, Directory, Publisher, StateFolder, VersionFolder};
use tollgate::health::Board;
use tollgate::ledger::{Drain, SqliteReader, SqliteStore};
use tollgate::oidc::SignIns;
use tollgate::schedule::{Runner, Schedules};
use tollgate::secrets::{ApiToken, CredentialFolder, MasterKey, Sealer};
use tollgate::shared::{RecentReader, Shared, UsageReader, alone};
use tollgate_shm::{Region, Sizes};
use tower::ServiceExt;

pub const TOKEN: &str = "a-token-for-tests-only";
pub const SECRET: &str = "sk-very-secret-credential";
pub const PATIENCE: Duration = Duration::from_secs(30);

pub fn sizes() -> Sizes {
    Sizes {
        counters: 1_024,
        inflight: 64,
        ring: 64,
        usage: 64,
    }
}

/// Folders that go away with the test.
pub struct Folders {
    root: tempfile::TempDir,
}

impl Folders {
    /// With a small valid configuration.
    pub fn new() -> Folders {
        let folders = Folders {
            root: tempfile::tempdir().unwrap(),
        };
        fs::create_dir(folders.config()).unwrap();
        folders.write("channels", &channels(10_000));
        folders.write(
            "models",
            &json!({"models": [{"name": "gpt-4o", "aliases": ["4o"], "deployments": [{"provider": "p"}],
                "limits": [{"metric": "requests", "max": 5, "window": "1s"}]}]}),
        );
        folders.write(
            "providers",
            &json!({"providers": [{"id": "p", "protocol": "openai", "base_url": "http://127.0.0.1:9",
                "credentials": {"type": "bearer", "key": SECRET}}]}),
        );
        folders.write(
            "rules",
            &json!({"rules": [{"name": "no opus", "when": {"field": "body.model", "op": "eq", "value": "opus"},
                "then": {"deny": {"status": 403, "code": "no_opus", "message": "no opus here"}}}]}),
        );
        folders.write(
            "settings",
            &json!({"settings": {"region": {"counters": 1024, "inflight": 64, "ring": 4096, "usage": 64}}}),
        );
        folders
    }

    pub fn config(&self) -> PathBuf {
        self.root.path().join("config")
    }
    pub fn state(&self) -> PathBuf {
        self.root.path().join("state")
    }
    pub fn region(&self) -> PathBuf {
        self.root.path().join("region")
    }
    pub fn file(&self, kind: &str) -> PathBuf {
        self.config().join(format!("tollgate.{kind}.json"))
    }
    pub fn write(&self, kind: &str, value: &Value) {
        fs::write(self.file(kind), serde_json::to_vec_pretty(value).unwrap()).unwrap();
    }
}

pub fn channels(max: u64) -> Value {
    json!({"channels": [{"code": "wechat001", "name": "微信", "trusted": true, "limits": [
        {"metric": "input_tokens", "max": max, "window": "10m"},
        {"metric": "connections", "max": 3},
        {"metric": "output_tokens", "max": 500, "window": "10m", "per_model": true}]}]})
}

/// The daemon without its socket and threads: publisher and API.
pub struct Daemon {
    pub folders: Folders,
    pub region: Arc<Region>,
    pub state: AppState,
    pub app: Router,
    pub drain: Drain<SqliteStore>,
    pub records: Arc<dyn Records>,
    stop: watch::Sender<bool>,
}

impl Daemon {
    pub async fn start(folders: Folders) -> Daemon {
        let state_folder = StateFolder::open(&folders.state()).unwrap();
        let versions = VersionFolder::open(&folders.state().join("versions")).unwrap();
        let directory = Directory::open(&folders.config(), Some(versions), Some("one".into())).unwrap();
        let source: Arc<dyn ConfigSource> = Arc::new(directory);
        let region = Arc::new(Region::open_or_create(&folders.region(), sizes()).unwrap());
        let sealer = Sealer {
            key: MasterKey::from_bytes([5; 32]),
            folder: CredentialFolder(folders.state().join("credentials")),
        };
        let ledger = folders.state().join("tollgate.db");
        let records = SqliteRecords::open(&folders.state().join("accounts.db")).unwrap();
        let records: Arc<dyn Records> = Arc::new(records);
        let counting = tollgate::counting::Counting::new(Some(&folders.config()), &folders.state());
        let drain = Drain::new(Arc::clone(&region), SqliteStore::open(&ledger).unwrap()).unwrap();
        let mut publisher = Publisher::new(
            Arc::clone(&source),
            Arc::clone(&region),
            state_folder,
            sealer.clone(),
            counting.clone(),
        );
        publisher.take_present().await;
        let accounts = Accounts::new(Arc::clone(&records)).unwrap();
        let shared = Shared::new(publisher.status(), sealer.folder.clone());
        let state = AppState {
            sign_ins: SignIns::new(accounts.clone(), sealer.folder.clone()),
            region: Arc::clone(&region),
            config: publisher.status(),
            source,
            ledger: Arc::new(SqliteReader::open(&ledger).unwrap()),
            drain: drain.status(),
            token: ApiToken::new(TOKEN),
            indexes: Indexes::default(),
            alerts: tollgate::alerts::AlertDesk::new("one", Arc::clone(&records), sealer.clone()),
            pulses: tollgate::pulse::Pulses::new(Arc::clone(&region)),
            accounts,
            backups: BackupFolder::new(&folders.state().join("backups")),
            schedules: Schedules::new(Arc::clone(&records)),
            audit: Audit::open(&folders.state(), &sealer.key).unwrap(),
            secure_cookies: false,
            sealer,
            probes: Board::default(),
            naming: tollgate::naming::Naming::alone("one"),
            balancers: Default::default(),
            nacos: None,
            cluster: Arc::default(),
            usage: UsageReader::new(shared.clone()),
            shipping: Arc::default(),
            recent: (RecentReader::new(shared.clone()), Arc::default()),
            instance: "one".to_owned(),
            named: true,
            rumours: Arc::default(),
            accounts_copy: Arc::default(),
            role: alone(),
            shared,
            counting,
            open_metrics: true,
            started: Instant::now(),
        };
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(publisher.run(stopped));
        Daemon {
            folders,
            region,
            app: app(state.clone()),
            state,
            drain,
            records,
            stop,
        }
    }

    /// Sends a request without a socket; the answer's body as JSON, or as a JSON string if it is none.
    pub async fn send(&self, request: Request<Body>) -> (StatusCode, axum::http::HeaderMap, Value) {
        let response = self.app.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let value = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
        (parts.status, parts.headers, value)
    }

    pub fn request(method: &str, path: &str) -> axum::http::request::Builder {
        Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {TOKEN}"))
    }

    pub async fn get(&self, path: &str) -> Value {
        let request = Daemon::request("GET", path).body(Body::empty()).unwrap();
        let (status, _, body) = self.send(request).await;
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        body
    }

    pub async fn post(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        let request = Daemon::request("POST", path)
            .body(Body::from(body.to_string()))
            .unwrap();
        let (status, _, body) = self.send(request).await;
        (status, body)
    }

    pub async fn etag(&self, document: &str) -> String {
        let path = format!("/api/v1/documents/{document}");
        let request = Daemon::request("GET", &path).body(Body::empty()).unwrap();
        let (status, headers, body) = self.send(request).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        headers["etag"].to_str().unwrap().to_owned()
    }

    /// Waits until the configuration's state is as wanted.
    pub async fn until(&self, what: impl Fn(&tollgate::config::ConfigStatus) -> bool) {
        let mut config = self.state.config.clone();
        tokio::time::timeout(PATIENCE, config.wait_for(|s| what(s)))
            .await
            .expect("the configuration did not become what it should")
            .unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

impl Daemon {
    /// Publishes scheduled changes as the instance of this name would, until the sender is dropped or says so.
    pub fn run_schedules(&self, instance: &str) -> watch::Sender<bool> {
        let (stop, stopped) = watch::channel(false);
        let runner = Runner {
            schedules: self.state.schedules.clone(),
            source: Arc::clone(&self.state.source),
            accounts: self.state.accounts.clone(),
            audit: self.state.audit.clone(),
            instance: instance.to_owned(),
        };
        tokio::spawn(runner.run(stopped));
        stop
    }

    /// Asks until the answer is as wanted.
    pub async fn eventually(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.get(path).await;
            if wanted(&answer) {
                return answer;
            }
            assert!(Instant::now() < deadline, "{path} stays {answer}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Somebody who has signed in.
pub struct Login {
    pub cookie: String,
    pub csrf: String,
    pub session: Value,
    pub password: String,
}

impl Login {
    /// The request, as their browser would send it from our page.
    pub fn on(&self, request: axum::http::request::Builder) -> axum::http::request::Builder {
        request
            .header("cookie", &self.cookie)
            .header("x-csrf-token", &self.csrf)
    }
}

impl Daemon {
    pub fn root_on(&self, request: axum::http::request::Builder) -> axum::http::request::Builder {
        request.header("authorization", format!("Bearer {TOKEN}"))
    }

    /// Sends JSON with the daemon's own token.
    pub async fn as_root(&self, method: &str, path: &str, body: Option<&Value>) -> (StatusCode, Value) {
        self.send_json(Daemon::request(method, path), body).await
    }

    /// Sends JSON as somebody who has signed in; with `If-Match: *` where something is changed.
    pub async fn as_(
        &self,
        who: &Login,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> (StatusCode, Value) {
        self.send_json(who.on(Request::builder().method(method).uri(path)), body)
            .await
    }

    async fn send_json(
        &self,
        request: axum::http::request::Builder,
        body: Option<&Value>,
    ) -> (StatusCode, Value) {
        let body = body.map_or_else(Body::empty, |b| Body::from(b.to_string()));
        let (status, _, answer) = self
            .send(request.header("if-match", "*").body(body).unwrap())
            .await;
        (status, answer)
    }

    pub async fn role(&self, name: &str, permissions: &Value) {
        let role = json!({"name": name, "permissions": permissions});
        let (status, body) = self.as_root("POST", "/api/v1/roles", Some(&role)).await;
        assert_eq!(status, StatusCode::CREATED, "{body}");
    }

    /// Makes an account and signs in with it.
    pub async fn account(&self, name: &str, roles: &[&str], channels: &[&str]) -> Login {
        let account = json!({"name": name, "roles": roles, "channels": channels});
        let (status, body) = self.as_root("POST", "/api/v1/accounts", Some(&account)).await;
        assert_eq!(status, StatusCode::CREATED, "{body}");
        self.sign_in(name, body["password"].as_str().unwrap())
            .await
            .unwrap()
    }

    /// Signs in; or the status and the answer.
    pub async fn sign_in(&self, name: &str, password: &str) -> Result<Login, (StatusCode, Value)> {
        let body = json!({"name": name, "password": password}).to_string();
        let request = Request::builder()
            .method("POST")
            .uri("/api/v1/login")
            .body(Body::from(body))
            .unwrap();
        let (status, headers, session) = self.send(request).await;
        if status != StatusCode::OK {
            return Err((status, session));
        }
        let cookie = headers["set-cookie"].to_str().unwrap();
        assert!(cookie.contains("; HttpOnly; SameSite=Strict"), "{cookie}");
        Ok(Login {
            cookie: cookie.split(';').next().unwrap().to_owned(),
            csrf: session["csrf"].as_str().unwrap().to_owned(),
            session,
            password: password.to_owned(),
        })
    }
}
