//! Logging in to Nacos: a token for a user and a password, renewed before it expires. The client library's own plugin
//! puts the password into a URL and into its debug log; this one does neither, and says what went wrong.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nacos_sdk::api::plugin::{AuthContext, AuthPlugin, LoginIdentityContext, RequestResource};
use serde::Deserialize;
use zeroize::Zeroizing;

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// Where every generation of Nacos takes a login; the first that knows the path answers.
const PATHS: [&str; 2] = ["/nacos/v1/auth/login", "/nacos/v3/auth/user/login"];

/// Who logs in.
#[derive(Clone)]
pub struct Account {
    /// The user.
    pub user: String,
    /// The password.
    pub password: Zeroizing<String>,
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Account").field("user", &self.user).finish()
    }
}

#[derive(Default)]
struct State {
    token: Option<String>,
    renew_at: Option<Instant>,
    failure: Option<String>,
}

/// Holds the token that goes with every request.
pub struct Login {
    account: Account,
    agent: ureq::Agent,
    state: Arc<Mutex<State>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    access_token: String,
    /// Seconds.
    token_ttl: u64,
}

impl Login {
    /// Nobody has logged in yet.
    pub fn new(account: Account) -> Login {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(PATIENCE))
            .http_status_as_error(false)
            .build();
        Login {
            account,
            agent: config.into(),
            state: Arc::default(),
        }
    }

    /// Why there is no token; `None` if there is one or nobody has tried yet.
    pub fn failure(&self) -> Option<String> {
        self.state().failure.clone()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn ask(agent: &ureq::Agent, account: &Account, server: &str) -> Result<Answer, String> {
    let mut refused = String::new();
    for path in PATHS {
        let form = [
            ("username", account.user.as_str()),
            ("password", account.password.as_str()),
        ];
        let mut answer = agent
            .post(format!("http://{server}{path}"))
            .send_form(form)
            .map_err(|e| format!("Nacos at {server} cannot be logged in to: {e}"))?;
        let status = answer.status();
        if status.is_success() {
            return answer
                .body_mut()
                .read_json()
                .map_err(|_| format!("Nacos at {server} answers a login with something else than a token"));
        }
        refused = format!(
            "Nacos at {server} refuses the user `{}` or the password (HTTP {})",
            account.user,
            status.as_u16()
        );
        if status.as_u16() != 404 {
            break;
        }
    }
    Err(refused)
}

#[async_trait::async_trait]
impl AuthPlugin for Login {
    async fn login(&self, servers: Arc<Vec<String>>, _: Arc<AuthContext>) {
        if self.state().renew_at.is_some_and(|at| at > Instant::now()) {
            return;
        }
        let mut failure = "there is no server to log in to".to_owned();
        for server in servers.iter() {
            let (agent, account, server) = (self.agent.clone(), self.account.clone(), server.clone());
            let asked = tokio::task::spawn_blocking(move || ask(&agent, &account, &server)).await;
            match asked.unwrap_or_else(|e| Err(e.to_string())) {
                Ok(answer) => {
                    let renew_in = Duration::from_secs(answer.token_ttl / 10);
                    *self.state() = State {
                        token: Some(answer.access_token),
                        renew_at: Instant::now().checked_add(renew_in),
                        failure: None,
                    };
                    return;
                }
                Err(reason) => failure = reason,
            }
        }
        // The old token may still do.
        self.state().failure = Some(failure);
    }

    fn get_login_identity(&self, _: RequestResource) -> LoginIdentityContext {
        match &self.state().token {
            Some(token) => LoginIdentityContext::default().add_context("accessToken", token.as_str()),
            None => LoginIdentityContext::default(),
        }
    }
}
