//! A small OpenID Connect provider: discovery, authorization code with PKCE, ES256 keys that can be rotated, and the lies
//! that a client must see through. Whoever comes is signed in at once, as [`IdentityProvider::set_claims`] says.

use axum::extract::{Form, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::net::TcpListener;

/// The client that may use it.
pub const CLIENT: &str = "tollgate-test";
/// Its secret.
pub const CLIENT_SECRET: &str = "oidc-client-secret-do-not-show";

/// What is wrong with the next ID tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lie {
    /// Nothing.
    #[default]
    None,
    /// Another nonce than the client's.
    Nonce,
    /// For another client.
    Audience,
    /// By another issuer.
    Issuer,
    /// Over since an hour.
    Expired,
    /// Signed with a key that is not published.
    Key,
    /// Not signed at all.
    Unsigned,
}

/// A code that has not been exchanged.
struct Code {
    nonce: String,
    challenge: String,
    redirect: String,
}

struct Inner {
    issuer: String,
    claims: Value,
    lie: Lie,
    key: Key,
    codes: HashMap<String, Code>,
    given: u64,
}

struct Key {
    id: String,
    pair: EcdsaKeyPair,
}

impl Key {
    fn new(id: String) -> Self {
        let random = SystemRandom::new();
        let document =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("a key");
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random);
        Self {
            id,
            pair: pair.expect("a key"),
        }
    }

    fn public(&self) -> Value {
        // An uncompressed point: 4, x, y.
        let point = self.pair.public_key().as_ref();
        json!({ "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.id,
            "x": URL_SAFE_NO_PAD.encode(&point[1..33]), "y": URL_SAFE_NO_PAD.encode(&point[33..65]) })
    }

    fn sign(&self, claims: &Value) -> String {
        let head = json!({ "alg": "ES256", "typ": "JWT", "kid": self.id });
        let text = [&head, claims]
            .map(|part| URL_SAFE_NO_PAD.encode(part.to_string()))
            .join(".");
        let signature = self
            .pair
            .sign(&SystemRandom::new(), text.as_bytes())
            .expect("a signature");
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

type Shared = Arc<Mutex<Inner>>;

fn locked(shared: &Shared) -> MutexGuard<'_, Inner> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A running provider; ends when dropped.
pub struct IdentityProvider {
    address: SocketAddr,
    shared: Shared,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for IdentityProvider {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl IdentityProvider {
    /// Starts on a free port of the loopback interface.
    ///
    /// # Panics
    /// If it cannot listen.
    pub async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("a free port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Mutex::new(Inner {
            issuer: format!("http://{address}"),
            claims: json!({}),
            lie: Lie::None,
            key: Key::new("first".into()),
            codes: HashMap::new(),
            given: 0,
        }));
        let app = Router::new()
            .route("/.well-known/openid-configuration", get(configuration))
            .route("/keys", get(keys))
            .route("/authorize", get(authorize))
            .route("/token", post(token))
            .with_state(Arc::clone(&shared));
        let task = tokio::spawn(async move {
            axum::serve(listener, app).await.expect("the provider serves");
        });
        Self {
            address,
            shared,
            task,
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// As it calls itself.
    #[must_use]
    pub fn issuer(&self) -> String {
        locked(&self.shared).issuer.clone()
    }

    /// Who is signed in there: claims of the ID token.
    pub fn set_claims(&self, claims: Value) {
        locked(&self.shared).claims = claims;
    }

    /// What is wrong with ID tokens from now on.
    pub fn lie(&self, lie: Lie) {
        locked(&self.shared).lie = lie;
    }

    /// Signs with another key from now on.
    pub fn rotate(&self) {
        let mut inner = locked(&self.shared);
        let id = format!("{}-next", inner.key.id);
        inner.key = Key::new(id);
    }
}

async fn configuration(State(shared): State<Shared>) -> Json<Value> {
    let issuer = locked(&shared).issuer.clone();
    Json(json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{issuer}/authorize"),
        "token_endpoint": format!("{issuer}/token"),
        "jwks_uri": format!("{issuer}/keys"),
        "response_types_supported": ["code"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
        "code_challenge_methods_supported": ["S256"],
    }))
}

async fn keys(State(shared): State<Shared>) -> Json<Value> {
    Json(json!({ "keys": [locked(&shared).key.public()] }))
}

fn refused(why: &str) -> Response {
    let body = json!({ "error": "invalid_request", "error_description": why });
    (StatusCode::BAD_REQUEST, Json(body)).into_response()
}

async fn authorize(State(shared): State<Shared>, Query(asked): Query<HashMap<String, String>>) -> Response {
    let text = |name: &str| asked.get(name).cloned().unwrap_or_default();
    if text("response_type") != "code" || text("client_id") != CLIENT {
        return refused("not this client's kind of request");
    }
    if text("code_challenge_method") != "S256" || text("code_challenge").len() < 43 {
        return refused("PKCE with S256 is required");
    }
    if !text("scope").split(' ').any(|scope| scope == "openid") {
        return refused("the scope openid is required");
    }
    let mut inner = locked(&shared);
    inner.given += 1;
    let code = format!("code-{}", inner.given);
    let redirect = text("redirect_uri");
    let kept = Code {
        nonce: text("nonce"),
        challenge: text("code_challenge"),
        redirect: redirect.clone(),
    };
    inner.codes.insert(code.clone(), kept);
    let to = format!("{redirect}?code={code}&state={}", text("state"));
    (StatusCode::FOUND, [(header::LOCATION, to)]).into_response()
}

fn knows_secret(headers: &HeaderMap) -> bool {
    let expected = format!("Basic {}", STANDARD.encode(format!("{CLIENT}:{CLIENT_SECRET}")));
    headers
        .get(header::AUTHORIZATION)
        .is_some_and(|value| value.as_bytes() == expected.as_bytes())
}

async fn token(
    State(shared): State<Shared>,
    headers: HeaderMap,
    Form(asked): Form<HashMap<String, String>>,
) -> Response {
    let text = |name: &str| asked.get(name).cloned().unwrap_or_default();
    if !knows_secret(&headers) {
        return (
            StatusCode::UNAUTHORIZED,
            Json(json!({ "error": "invalid_client" })),
        )
            .into_response();
    }
    let mut inner = locked(&shared);
    // A code is good for one exchange.
    let Some(code) = inner.codes.remove(&text("code")) else {
        return (StatusCode::BAD_REQUEST, Json(json!({ "error": "invalid_grant" }))).into_response();
    };
    let digest = ring::digest::digest(&ring::digest::SHA256, text("code_verifier").as_bytes());
    if URL_SAFE_NO_PAD.encode(digest) != code.challenge || text("redirect_uri") != code.redirect {
        return (StatusCode::BAD_REQUEST, Json(json!({ "error": "invalid_grant" }))).into_response();
    }
    Json(
        json!({ "access_token": "of-no-use", "token_type": "Bearer", "expires_in": 60,
        "id_token": id_token(&inner, &code) }),
    )
    .into_response()
}

fn id_token(inner: &Inner, code: &Code) -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs());
    let began = if inner.lie == Lie::Expired {
        now - 7_200
    } else {
        now
    };
    let issuer = if inner.lie == Lie::Issuer {
        "http://127.0.0.1:1"
    } else {
        &inner.issuer
    };
    let mut claims = json!({
        "iss": issuer,
        "aud": if inner.lie == Lie::Audience { "somebody-else" } else { CLIENT },
        "iat": began,
        "exp": began + 3_600,
        "nonce": if inner.lie == Lie::Nonce { "another" } else { &code.nonce },
    });
    if let (Some(all), Some(own)) = (claims.as_object_mut(), inner.claims.as_object()) {
        all.extend(own.clone());
    }
    match inner.lie {
        Lie::Key => Key::new(inner.key.id.clone()).sign(&claims),
        Lie::Unsigned => {
            let head = json!({ "alg": "none" });
            let text = [&head, &claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
            format!("{}.", text.join("."))
        }
        _ => inner.key.sign(&claims),
    }
}
