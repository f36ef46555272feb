//! A receiver of alerts: takes messages, or refuses them, and remembers what came.

use crate::port::Port;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use ring::hmac;
use serde_json::Value;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::task::JoinHandle;

/// A message that came.
#[derive(Clone, Debug)]
pub struct Came {
    /// What it was answered.
    pub status: u16,
    /// `Tollgate-Delivery`.
    pub id: String,
    /// `Tollgate-Signature`.
    pub signature: String,
    /// The body as it came.
    pub body: Vec<u8>,
}

impl Came {
    /// The body.
    ///
    /// # Panics
    /// If it is not JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a message is JSON")
    }

    /// Whether its signature is that of this secret: HMAC-SHA256 over `<t>.<body>`.
    pub fn is_signed(&self, secret: &str) -> bool {
        let Some((time, code)) = self
            .signature
            .strip_prefix("t=")
            .and_then(|rest| rest.split_once(",v1="))
        else {
            return false;
        };
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        let said = [time.as_bytes(), b".", &self.body].concat();
        let ours: String = hmac::sign(&key, &said)
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        code == ours
    }
}

#[derive(Debug)]
struct Inner {
    status: u16,
    came: Vec<Came>,
}

/// The receiver. It goes when it is dropped.
#[derive(Debug)]
pub struct Receiver {
    port: Port,
    inner: Arc<Mutex<Inner>>,
    server: JoinHandle<()>,
}

async fn take(State(inner): State<Arc<Mutex<Inner>>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let header = |name: &str| {
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let mut inner = inner.lock().unwrap_or_else(PoisonError::into_inner);
    let status = inner.status;
    inner.came.push(Came {
        status,
        id: header("tollgate-delivery"),
        signature: header("tollgate-signature"),
        body: body.to_vec(),
    });
    StatusCode::from_u16(status).expect("a status")
}

impl Receiver {
    /// One that takes everything.
    ///
    /// # Panics
    /// If it cannot listen.
    pub async fn start() -> Self {
        let port = Port::free();
        let inner = Arc::new(Mutex::new(Inner {
            status: 200,
            came: Vec::new(),
        }));
        let listener = tokio::net::TcpListener::bind(port.address())
            .await
            .expect("the receiver listens");
        let app = Router::new().fallback(take).with_state(Arc::clone(&inner));
        let server = tokio::spawn(async move {
            let _ = axum::serve(listener, app).await;
        });
        Self { port, inner, server }
    }

    /// Its address, with this path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.port.address())
    }

    /// From now on it answers this.
    pub fn answers(&self, status: u16) {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).status = status;
    }

    /// What came, in order.
    pub fn came(&self) -> Vec<Came> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.came.clone()
    }

    /// The alerts of all messages that were taken, as `rule state`, in order.
    pub fn told(&self) -> Vec<String> {
        let taken = self.came().into_iter().filter(|came| came.status < 300);
        taken
            .flat_map(|came| came.json()["alerts"].as_array().cloned().unwrap_or_default())
            .map(|alert| {
                let word = |name: &str| alert[name].as_str().unwrap_or_default().to_owned();
                format!("{} {}", word("rule"), word("state"))
            })
            .collect()
    }

    /// How often this was told.
    pub fn count(&self, what: &str) -> usize {
        self.told().iter().filter(|told| *told == what).count()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}
