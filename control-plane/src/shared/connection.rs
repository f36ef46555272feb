//! One connection for all that is shared, made when it is needed and again when it is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use redis::{Cmd, FromRedisValue, Pipeline};
use tokio::sync::Mutex;
use tollgate_policy::documents::Settings;

use crate::cluster::{Link, LinkError, LinkOptions, Script, Trouble};
use crate::config::StatusWatch;
use crate::secrets::CredentialFolder;

/// The first and the longest pause between two attempts to connect; meanwhile everybody is told at once.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Why something that is shared cannot be had.
#[derive(Clone, Debug)]
pub enum SharedError {
    /// The settings name no Redis: nothing is shared.
    NotConfigured,
    /// Redis does not answer, or not as it should.
    Unreachable(String),
}

impl std::fmt::Display for SharedError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            SharedError::NotConfigured => f.write_str("the settings name no Redis"),
            SharedError::Unreachable(reason) => write!(f, "Redis does not answer: {reason}"),
        }
    }
}
impl std::error::Error for SharedError {}

/// What is asked.
#[derive(Clone, Copy)]
enum Question<'a> {
    Command(&'a Cmd),
    Commands(&'a Pipeline),
    Script(&'a Script, &'a [String], &'a [Vec<u8>]),
}

impl Question<'_> {
    fn may_be_asked_twice(self) -> bool {
        match self {
            Question::Command(_) | Question::Commands(_) => true,
            Question::Script(script, ..) => script.is_repeatable(),
        }
    }

    async fn ask<T: FromRedisValue>(self, link: &mut Link) -> Result<T, LinkError> {
        match self {
            Question::Command(command) => link.query(command).await,
            Question::Commands(commands) => link.pipe(commands).await,
            Question::Script(script, keys, arguments) => link.script(script, keys, arguments).await,
        }
    }
}

/// What metrics tell of the connection.
#[derive(Debug, Default)]
pub struct SharedFigures {
    /// Whether the last question was answered.
    pub connected: AtomicU64,
    /// Questions.
    pub questions: AtomicU64,
    /// Questions without a usable answer.
    pub failures: AtomicU64,
    /// Microseconds that answers took, all together.
    pub waited_us: AtomicU64,
    /// Connections made.
    pub connections: AtomicU64,
}

#[derive(Default)]
struct State {
    settings: Option<Arc<Settings>>,
    /// The connection, and which one it is.
    link: Option<(Link, u64)>,
    /// How many attempts have failed, until when none is made, and why.
    failed: Option<(u32, Instant, String)>,
}

/// The connection. Clones share it.
#[derive(Clone)]
pub struct Shared {
    config: StatusWatch,
    folder: CredentialFolder,
    state: Arc<Mutex<State>>,
    figures: Arc<SharedFigures>,
}

impl Shared {
    /// A connection to the Redis that the settings in force name.
    pub fn new(config: StatusWatch, folder: CredentialFolder) -> Shared {
        Shared {
            config,
            folder,
            state: Arc::default(),
            figures: Arc::default(),
        }
    }

    /// Whether the settings in force name a Redis.
    pub fn is_configured(&self) -> bool {
        self.config.borrow().settings.redis.is_some()
    }

    /// How it goes.
    pub fn figures(&self) -> &SharedFigures {
        &self.figures
    }

    /// Connections made so far: over each other one, what is there may be something else.
    pub fn connections(&self) -> u64 {
        self.figures.connections.load(Relaxed)
    }

    /// A key below the prefix.
    pub fn key(&self, rest: &str) -> String {
        let status = self.config.borrow();
        let prefix = status.settings.redis.as_ref().map_or("", |r| &*r.prefix);
        format!("{prefix}:{rest}")
    }

    /// The settings in force.
    pub(super) fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.config.borrow().settings)
    }

    /// How to get there; `None` without a Redis in the settings.
    pub(super) fn options(&self) -> Option<Result<LinkOptions, LinkError>> {
        let settings = self.settings();
        let redis = settings.redis.as_ref()?;
        Some(LinkOptions::of(redis, &self.folder))
    }

    async fn link(&self) -> Result<(Link, u64), SharedError> {
        let settings = self.settings();
        let mut state = self.state.lock().await;
        let way = |s: &Settings| format!("{:?}", s.redis);
        let same = |known: &Arc<Settings>| Arc::ptr_eq(known, &settings) || way(known) == way(&settings);
        if !state.settings.as_ref().is_some_and(same) {
            *state = State::default();
        }
        state.settings = Some(Arc::clone(&settings));
        if let Some(link) = &state.link {
            return Ok(link.clone());
        }
        let attempt = match &state.failed {
            Some((_, until, reason)) if Instant::now() < *until => {
                return Err(SharedError::Unreachable(reason.clone()));
            }
            Some((attempt, ..)) => *attempt,
            None => 0,
        };
        let connected = async {
            let redis = settings.redis.as_ref().ok_or(SharedError::NotConfigured)?;
            let unreachable = |e: LinkError| SharedError::Unreachable(e.to_string());
            let options = LinkOptions::of(redis, &self.folder).map_err(unreachable)?;
            let patience = Duration::from_millis(redis.timeout.as_millis()) * 2;
            // Boxed: whatever asks for something shared would have this within its own future.
            let connect = async {
                let mut link = options.connect(attempt as usize).await?;
                link.agree().await?;
                Ok::<_, LinkError>(link)
            }
            .boxed();
            match tokio::time::timeout(patience, connect).await {
                Ok(connected) => connected.map_err(unreachable),
                Err(_) => Err(SharedError::Unreachable("no connection in time".to_owned())),
            }
        };
        match connected.await {
            Ok(link) => {
                let number = self.figures.connections.fetch_add(1, Relaxed) + 1;
                state.link = Some((link.clone(), number));
                state.failed = None;
                Ok((link, number))
            }
            Err(error) => {
                let pause = (BACKOFF.0 * 2u32.saturating_pow(attempt.min(10))).min(BACKOFF.1);
                self.figures.connected.store(0, Relaxed);
                state.failed = Some((attempt + 1, Instant::now() + pause, error.to_string()));
                Err(error)
            }
        }
    }

    /// Asks over the connection, and notes the answer. After none everything begins anew: the connection may be stuck, or lead to a
    /// server that is no longer the master. A connection that was cut says so when it is next used: what may be asked twice is
    /// asked once more then, over a new one.
    async fn ask<T: FromRedisValue>(&self, question: Question<'_>) -> Result<T, SharedError> {
        let mut attempts = if question.may_be_asked_twice() { 2 } else { 1 };
        loop {
            attempts -= 1;
            let (mut link, number) = self.link().await?;
            let begun = Instant::now();
            let answer = question.ask(&mut link).await;
            let us = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.figures.questions.fetch_add(1, Relaxed);
            self.figures.waited_us.fetch_add(us, Relaxed);
            self.figures.connected.store(answer.is_ok().into(), Relaxed);
            let error = match answer {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            self.figures.failures.fetch_add(1, Relaxed);
            let mut state = self.state.lock().await;
            // Another may be there by now.
            if state.link.as_ref().is_some_and(|(_, of)| *of == number) {
                state.link = None;
            }
            if attempts == 0 || error.trouble() != Trouble::Unreachable {
                return Err(SharedError::Unreachable(error.to_string()));
            }
        }
    }

    /// Sends one command that may be sent twice.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, SharedError> {
        self.ask(Question::Command(command)).await
    }

    /// Sends several commands about keys of one hash tag at once; all of them may be sent twice.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn pipe<T: FromRedisValue>(&self, commands: &Pipeline) -> Result<T, SharedError> {
        self.ask(Question::Commands(commands)).await
    }

    /// Runs a script over keys of one hash tag.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn script<T: FromRedisValue>(
        &self,
        script: &Script,
        keys: &[String],
        arguments: &[Vec<u8>],
    ) -> Result<T, SharedError> {
        self.ask(Question::Script(script, keys, arguments)).await
    }
}
