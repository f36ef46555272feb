//! Which instance does what one must do for all: a lease in Redis with a fencing token.
//!
//! ```text
//!  Alone (no Redis in the settings)
//!  Follower ──lease of the other is over──► Leader(token) ──answers stop until its lease is over──► CutOff
//!     ▲                                        │ another has it            │ Redis answers again
//!     └────────────────────────────────────────┴──────────────────────────┘
//! ```
//! A lease counts from before the question left, so nobody believes to lead when Redis has given the lead to another. Without
//! Redis' answer everybody does the work for itself: that costs provider requests and nothing else.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::{Script, Shared, SharedError};

static LEAD: LazyLock<Script> = LazyLock::new(|| Script::repeatable(include_str!("lead.lua")));
static LEAVE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0",
    )
});

/// How long a lead lasts without being renewed.
const LEASE: Duration = Duration::from_secs(4);
/// What it is shorter by in the leader's own view.
const MARGIN: Duration = Duration::from_millis(400);
/// Time between two questions; a leader's second attempt fits if the first is not answered within a second.
const ASK: Duration = Duration::from_millis(1_500);
/// Time until the next question after one that was not answered.
const AGAIN: Duration = Duration::from_millis(250);

/// What this instance is among the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// There is no Redis: it works for itself.
    Alone,
    /// It works for all, under this fencing token.
    Leader(u64),
    /// Another one does.
    Follower(String),
    /// Redis does not answer: it works for itself.
    CutOff,
}

impl Role {
    /// Whether it does the work.
    pub fn works(&self) -> bool {
        !matches!(self, Role::Follower(_))
    }

    /// Name in the API and in metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Role::Alone => "alone",
            Role::Leader(_) => "leader",
            Role::Follower(_) => "follower",
            Role::CutOff => "cut_off",
        }
    }
}

/// The task that asks.
pub struct Elector {
    shared: Shared,
    /// Different for each life of each daemon.
    id: String,
    role: watch::Sender<Role>,
    /// Until when the last answer counts.
    until: Instant,
}

impl Elector {
    /// An instance of this name that has not asked yet. `life` tells this life of its daemon from others.
    pub fn new(shared: Shared, name: &str, life: u64) -> Elector {
        let role = if shared.is_configured() {
            // Nothing is done twice just because nobody has answered yet.
            Role::Follower(String::new())
        } else {
            Role::Alone
        };
        Elector {
            id: format!("{name} {life:016x}"),
            shared,
            role: watch::Sender::new(role),
            until: Instant::now() + LEASE,
        }
    }

    /// What the instance is.
    pub fn role(&self) -> watch::Receiver<Role> {
        self.role.subscribe()
    }

    fn keys(&self) -> [String; 2] {
        ["{leader}:holder", "{leader}:fence"].map(|key| self.shared.key(key))
    }

    /// Asks until it is time to end; then others may lead at once.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        loop {
            let pause = self.ask().await;
            if tokio::time::timeout(pause, stop.wait_for(|s| *s)).await.is_ok() {
                break;
            }
        }
        let role = self.role.borrow().clone();
        if let Role::Leader(fence) = role {
            let [holder, _] = self.keys();
            let (keys, own) = ([holder], [format!("{fence} {}", self.id).into_bytes()]);
            let left = self.shared.script::<u64>(&LEAVE, &keys, &own);
            let _ = tokio::time::timeout(LEASE, left).await;
        }
    }

    /// Asks once; how long to wait until the next time.
    async fn ask(&mut self) -> Duration {
        let begun = Instant::now();
        let lease = LEASE.as_millis().to_string().into_bytes();
        let answer = if self.shared.is_configured() {
            let (keys, arguments) = (self.keys(), [self.id.clone().into_bytes(), lease]);
            let asked = self.shared.script::<(u64, String)>(&LEAD, &keys, &arguments);
            // A leader whose lease ends while it waits must know.
            let patience = match &*self.role.borrow() {
                Role::Leader(_) => self.until.saturating_duration_since(begun),
                _ => LEASE,
            };
            match tokio::time::timeout(patience, asked).await {
                Ok(answer) => answer,
                Err(_) => Err(SharedError::Unreachable("no answer in time".to_owned())),
            }
        } else {
            Err(SharedError::NotConfigured)
        };
        let (role, pause) = match answer {
            Ok((0, other)) => {
                self.until = begun + LEASE;
                (Role::Follower(other), ASK)
            }
            Ok((fence, _)) => {
                self.until = begun + LEASE - MARGIN;
                (Role::Leader(fence), ASK)
            }
            Err(SharedError::NotConfigured) => (Role::Alone, ASK),
            Err(SharedError::Unreachable(_)) if Instant::now() < self.until => {
                (self.role.borrow().clone(), AGAIN)
            }
            Err(SharedError::Unreachable(_)) => (Role::CutOff, ASK),
        };
        self.role.send_if_modified(|present| {
            let differs = *present != role;
            if differs && (present.works() != role.works() || matches!(role, Role::Leader(_))) {
                tracing::info!(role = role.name(), "work that one instance does for all");
            }
            *present = role;
            differs
        });
        let left = self.until.saturating_duration_since(Instant::now());
        match &*self.role.borrow() {
            // As soon as its own lease is over, and not later.
            Role::Leader(_) => pause.min(left),
            _ => pause,
        }
    }
}

/// What an instance that shares nothing is.
pub fn alone() -> watch::Receiver<Role> {
    static ALONE: LazyLock<Arc<watch::Sender<Role>>> =
        LazyLock::new(|| Arc::new(watch::Sender::new(Role::Alone)));
    ALONE.subscribe()
}
