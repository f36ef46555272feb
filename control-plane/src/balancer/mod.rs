//! The front balancer: a HAProxy whose servers are set, weighted, drained and taken out through its runtime socket, as
//! instances come and go. Whether an instance can be used, its own health check says; what is done here is that it is asked.

mod haproxy;
mod plan;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::watch;

pub use haproxy::Address;
use plan::{Server, Wanted, plan};

use crate::naming::{Members, Naming};

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(500);

/// Where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BalancerOptions {
    /// Runtime sockets, one for each HAProxy.
    pub sockets: Vec<Address>,
    /// The backend whose servers are instances.
    pub backend: String,
}

/// A server as HAProxy sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ServerState {
    /// Its name in HAProxy.
    pub server: String,
    /// The instance's address; empty for a place that is free.
    pub address: String,
    /// `ready`, `drain` or `maintenance`.
    pub state: &'static str,
    /// Whether its checks succeed.
    pub up: bool,
    /// Its weight, 0..=256.
    pub weight: u32,
}

/// A HAProxy, as it was last seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct BalancerState {
    /// Its socket.
    pub socket: String,
    /// Why nothing is known or done.
    pub failure: Option<String>,
    /// How its configuration spreads clients, such as `leastconn`; null if it does not say.
    pub algorithm: Option<String>,
    /// The cookie by which its configuration keeps clients where they are; null for none.
    pub cookie: Option<String>,
    /// Its servers that are in use.
    pub servers: Vec<ServerState>,
}

/// What is known of all of them. Clones share it.
#[derive(Clone, Default)]
pub struct Balancers {
    states: watch::Sender<Arc<Vec<BalancerState>>>,
}

impl Balancers {
    /// As they were last seen.
    pub fn states(&self) -> Arc<Vec<BalancerState>> {
        Arc::clone(&self.states.borrow())
    }

    /// Keeps every HAProxy's servers as naming says, until it is dropped.
    pub async fn run(self, options: BalancerOptions, naming: Naming) {
        let mut fronts: Vec<Front> = options.sockets.into_iter().map(Front::new).collect();
        let mut changes = naming.changes();
        loop {
            let members = naming.members();
            let mut states = Vec::new();
            for front in &mut fronts {
                states.push(front.follow(&options.backend, &members).await);
            }
            self.states.send_replace(Arc::new(states));
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                changed = changes.changed() => if changed.is_err() { return },
            }
        }
    }
}

/// One HAProxy.
struct Front {
    address: Address,
    /// Since when servers have been down that no instance claims.
    unclaimed: BTreeMap<String, Instant>,
    failure: Option<String>,
}

/// The instances that clients can be sent to. Not known while naming does not answer: then nothing is changed.
fn wanted(members: &Members) -> Option<Vec<Wanted>> {
    if members.failure.is_some() {
        return None;
    }
    let all = std::iter::once(&members.own).chain(&members.others);
    let reachable = all.filter(|member| member.serving);
    Some(
        reachable
            .filter_map(|member| {
                Some(Wanted {
                    address: member.address.parse().ok()?,
                    weight: member.weight.min(256),
                    draining: member.draining,
                })
            })
            .collect(),
    )
}

impl Front {
    fn new(address: Address) -> Front {
        Front {
            address,
            unclaimed: BTreeMap::new(),
            failure: None,
        }
    }

    async fn follow(&mut self, backend: &str, members: &Members) -> BalancerState {
        let found = self.step(backend, members).await;
        let (servers, failure) = match found {
            Ok(servers) => (servers, None),
            Err(failure) => (Vec::new(), Some(failure)),
        };
        let ways = match &failure {
            None => haproxy::ways(&self.address, backend).await.unwrap_or_default(),
            Some(_) => haproxy::Ways::default(),
        };
        if failure != self.failure {
            match &failure {
                Some(error) => tracing::warn!(socket = %self.address, error, "the balancer cannot be set"),
                None => tracing::info!(socket = %self.address, "the balancer follows again"),
            }
            self.failure.clone_from(&failure);
        }
        BalancerState {
            socket: self.address.to_string(),
            failure,
            algorithm: ways.algorithm,
            cookie: ways.cookie,
            servers: servers
                .iter()
                .filter(|s| s.is_used())
                .map(Server::state)
                .collect(),
        }
    }

    async fn step(&mut self, backend: &str, members: &Members) -> Result<Vec<Server>, String> {
        let servers = haproxy::servers(&self.address, backend).await?;
        let Some(wanted) = wanted(members) else {
            return Ok(servers);
        };
        let commands = plan(backend, &servers, &wanted, &mut self.unclaimed, Instant::now())?;
        if commands.is_empty() {
            return Ok(servers);
        }
        for command in &commands {
            haproxy::set(&self.address, command).await?;
            tracing::info!(socket = %self.address, command, "set the balancer");
        }
        haproxy::servers(&self.address, backend).await
    }
}
