//! Questions to Nacos, each with a time limit. A client of its own answers them, because the library's client answers
//! for whatever it listens to from its own memory, and what is read here must be what the server has.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nacos_sdk::api::config::{ConfigChangeListener, ConfigResponse, ConfigService, ConfigServiceBuilder};
use nacos_sdk::api::error::Error;
use nacos_sdk::api::plugin::AuthPlugin;
use nacos_sdk::api::props::ClientProps;
use tokio::sync::{OnceCell, mpsc};

use super::NacosOptions;
use super::login::Login;
use crate::config::SourceHealth;

/// Longest wait for one answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// Why Nacos did not do what it was asked.
#[derive(Clone, Debug)]
pub(super) enum NacosError {
    /// It cannot be reached; worth a retry.
    Unreachable(String),
    /// It does not know the user or the password, or does not let the user.
    Refused(String),
    /// It answered something else.
    Failed(String),
}

impl std::fmt::Display for NacosError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            NacosError::Unreachable(why) => write!(f, "Nacos cannot be reached: {why}"),
            NacosError::Refused(why) => write!(f, "Nacos refuses: {why}"),
            NacosError::Failed(why) => write!(f, "Nacos failed: {why}"),
        }
    }
}
impl std::error::Error for NacosError {}

impl From<NacosError> for std::io::Error {
    fn from(error: NacosError) -> std::io::Error {
        std::io::Error::other(error.to_string())
    }
}

#[derive(Default)]
struct Tally {
    answered: Option<Instant>,
    failing: Option<String>,
    requests: u64,
    failures: u64,
    waited_us: u64,
}

/// A content and the hash that Nacos knows it by.
pub(super) struct Read {
    pub text: String,
    pub md5: String,
}

/// Asks.
pub(super) struct Client {
    props: ClientProps,
    login: Option<Arc<Login>>,
    asker: OnceCell<ConfigService>,
    listener: OnceCell<ConfigService>,
    tally: Mutex<Tally>,
}

/// Says which data id has changed.
struct Wake(mpsc::UnboundedSender<String>);

impl ConfigChangeListener for Wake {
    fn notify(&self, changed: ConfigResponse) {
        let _ = self.0.send(changed.data_id().clone());
    }
}

/// What the library is told of the server.
pub fn props(options: &NacosOptions) -> ClientProps {
    ClientProps::new()
        .env_first(false)
        .server_addr(options.servers.join(","))
        .namespace(options.namespace.clone())
        .app_name("tollgate")
}

impl Client {
    pub fn new(options: &NacosOptions) -> Client {
        Client {
            props: props(options),
            login: options.account.clone().map(|a| Arc::new(Login::new(a))),
            asker: OnceCell::new(),
            listener: OnceCell::new(),
            tally: Mutex::default(),
        }
    }

    /// What logs in, for other clients of the same server.
    pub fn login(&self) -> Option<Arc<dyn AuthPlugin>> {
        self.login.clone().map(|login| login as Arc<dyn AuthPlugin>)
    }

    async fn connect(&self) -> Result<ConfigService, NacosError> {
        let mut builder = ConfigServiceBuilder::new(self.props.clone());
        if let Some(login) = self.login() {
            builder = builder.with_auth_plugin(login);
        }
        match tokio::time::timeout(CONNECT, builder.build()).await {
            Ok(Ok(service)) => Ok(service),
            Ok(Err(error)) => Err(NacosError::Unreachable(error.to_string())),
            Err(_) => Err(NacosError::Unreachable(format!(
                "no connection within {CONNECT:?}"
            ))),
        }
    }

    fn tally(&self) -> std::sync::MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How it is.
    pub fn health(&self) -> SourceHealth {
        let tally = self.tally();
        let age = |at: Instant| u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX);
        SourceHealth {
            reachable: tally.answered.is_some() && tally.failing.is_none(),
            reason: tally.failing.clone().unwrap_or_default(),
            answered_ms_ago: tally.answered.map(age),
            requests: tally.requests,
            failures: tally.failures,
            waited_us: tally.waited_us,
        }
    }

    /// The library's error in our terms.
    fn explained(&self, error: &Error) -> NacosError {
        let text = error.to_string();
        let refused = ["403", "401", "PERMISSION", "permission", "token"];
        if refused.iter().any(|word| text.contains(word)) {
            let why = self.login.as_ref().and_then(|l| l.failure());
            return NacosError::Refused(why.unwrap_or(text));
        }
        match error {
            Error::ErrResult(_)
            | Error::ErrResponse(..)
            | Error::InvalidParam(..)
            | Error::Serialization(_) => match self.login.as_ref().and_then(|l| l.failure()) {
                Some(why) => NacosError::Refused(why),
                None => NacosError::Failed(text),
            },
            _ => NacosError::Unreachable(text),
        }
    }

    /// Asks one question.
    async fn ask<T>(
        &self,
        question: impl AsyncFnOnce(ConfigService) -> Result<T, Error>,
    ) -> Result<T, NacosError> {
        let began = Instant::now();
        let asker = self.asker.get_or_try_init(|| self.connect()).await;
        let answer = match asker {
            Ok(asker) => match tokio::time::timeout(PATIENCE, question(asker.clone())).await {
                Ok(answer) => answer.map_err(|e| self.explained(&e)),
                Err(_) => Err(NacosError::Unreachable(format!("no answer within {PATIENCE:?}"))),
            },
            Err(error) => Err(error),
        };
        let mut tally = self.tally();
        tally.requests += 1;
        tally.waited_us += u64::try_from(began.elapsed().as_micros()).unwrap_or(0);
        match &answer {
            Ok(_) => {
                tally.answered = Some(Instant::now());
                tally.failing = None;
            }
            Err(error) => {
                tally.failures += 1;
                tally.failing = Some(error.to_string());
            }
        }
        answer
    }

    /// A content as the server has it; `None` if it has none.
    pub async fn get(&self, group: &str, id: &str) -> Result<Option<Read>, NacosError> {
        self.ask(
            async |asker| match asker.get_config(id.to_owned(), group.to_owned()).await {
                Ok(found) => Ok(Some(Read {
                    text: found.content().clone(),
                    md5: found.md5().clone(),
                })),
                Err(Error::ConfigNotFound(_)) => Ok(None),
                Err(error) => Err(error),
            },
        )
        .await
    }

    /// Writes a content. `md5`: only over the content of that hash, if the server cares.
    pub async fn put(&self, group: &str, id: &str, text: &str, md5: Option<&str>) -> Result<(), NacosError> {
        let json = Some("json".to_owned());
        let (id, group, text) = (id.to_owned(), group.to_owned(), text.to_owned());
        let written = self
            .ask(async |asker| match md5 {
                Some(md5) => {
                    asker
                        .publish_config_cas(id, group, text, json, md5.to_owned())
                        .await
                }
                None => asker.publish_config(id, group, text, json).await,
            })
            .await?;
        if written {
            return Ok(());
        }
        Err(NacosError::Failed("it did not take a content".into()))
    }

    /// Takes a content away.
    pub async fn remove(&self, group: &str, id: &str) -> Result<(), NacosError> {
        let removed = self
            .ask(async |asker| asker.remove_config(id.to_owned(), group.to_owned()).await)
            .await?;
        if removed {
            return Ok(());
        }
        Err(NacosError::Failed("it did not take a content away".into()))
    }

    /// Has changes of a data id told, beside whatever is told already.
    pub async fn listen(
        &self,
        group: &str,
        id: &str,
        changed: &mpsc::UnboundedSender<String>,
    ) -> Result<(), NacosError> {
        let listener = self.listener.get_or_try_init(|| self.connect()).await?;
        let wake = Arc::new(Wake(changed.clone()));
        let adding = listener.add_listener(id.to_owned(), group.to_owned(), wake);
        match tokio::time::timeout(PATIENCE, adding).await {
            Ok(added) => added.map_err(|e| self.explained(&e)),
            Err(_) => Err(NacosError::Unreachable(format!("no answer within {PATIENCE:?}"))),
        }
    }
}
