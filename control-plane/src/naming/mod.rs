//! The instances of a cluster: each says of itself in Nacos what it is and what it has in force, and reads what the
//! others say. Nothing here is on the way of a request or of a change: it is what operators, and front balancers, see.

mod registry;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::watch;
use tollgate_shm::Region;

pub use registry::Registry;

use crate::cluster::Figures;
use crate::config::StatusWatch;

/// Time between two looks at the others.
const LOOK: Duration = Duration::from_millis(500);
/// Time between two reports of the load alone.
const LOAD: Duration = Duration::from_secs(5);

/// What an instance says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Member {
    /// Its name.
    pub instance: String,
    /// Where clients reach its nginx; empty if it does not say.
    pub address: String,
    /// Where its API listens.
    pub api: String,
    /// Version of the program.
    pub program: String,
    /// The version of the documents that it has in force; 0 for none.
    pub version: u64,
    /// Generation of its snapshot; each instance counts its own.
    pub generation: u64,
    /// Requests in flight.
    pub in_flight: u64,
    /// Requests decided by the workers that run now.
    pub requests: u64,
    /// Limits over all instances of which it holds a part.
    pub leases: u64,
    /// The front balancer's weight for it, 0..=256.
    pub weight: u32,
    /// Whether workers are there and decide about requests.
    pub serving: bool,
    /// Whether it takes no new clients.
    pub draining: bool,
    /// Whether the documents at its source have errors, so that former ones are in force.
    pub refusing: bool,
    /// Names of the master keys whose credentials it opens, the one that seals first; none if its program is too old to say.
    pub keys: Vec<String>,
}

impl Member {
    /// As metadata of an instance in Nacos.
    fn metadata(&self) -> BTreeMap<String, String> {
        let pairs = [
            ("instance", self.instance.clone()),
            ("address", self.address.clone()),
            ("api", self.api.clone()),
            ("program", self.program.clone()),
            ("version", self.version.to_string()),
            ("generation", self.generation.to_string()),
            ("in_flight", self.in_flight.to_string()),
            ("requests", self.requests.to_string()),
            ("leases", self.leases.to_string()),
            ("weight", self.weight.to_string()),
            ("serving", self.serving.to_string()),
            ("refusing", self.refusing.to_string()),
            ("keys", self.keys.join(",")),
        ];
        pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()
    }

    /// From such metadata; what another version of the program says differently is taken as not said.
    fn from_metadata<'a>(get: impl Fn(&str) -> Option<&'a str>) -> Option<Member> {
        let text = |name: &str| get(name).unwrap_or_default().to_owned();
        let number = |name: &str| get(name).and_then(|n| n.parse().ok()).unwrap_or(0);
        let member = Member {
            instance: text("instance"),
            address: text("address"),
            api: text("api"),
            program: text("program"),
            version: number("version"),
            generation: number("generation"),
            in_flight: number("in_flight"),
            requests: number("requests"),
            leases: number("leases"),
            // Former versions say neither.
            weight: get("weight").and_then(|n| n.parse().ok()).unwrap_or(100),
            serving: get("serving") != Some("false"),
            draining: false,
            refusing: get("refusing") == Some("true"),
            keys: text("keys")
                .split(',')
                .filter(|name| !name.is_empty())
                .map(str::to_owned)
                .collect(),
        };
        (!member.instance.is_empty()).then_some(member)
    }

    /// Whether two reports differ in more than the load.
    fn differs(&self, other: &Member) -> bool {
        *other
            != Member {
                in_flight: other.in_flight,
                requests: other.requests,
                leases: other.leases,
                ..self.clone()
            }
    }
}

/// What is known of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// This instance.
    pub own: Member,
    /// The others that are registered, by name.
    pub others: Vec<Member>,
    /// Whether anybody has told which others there are since the start.
    pub heard: bool,
    /// Why the others are not known.
    pub failure: Option<String>,
}

/// What an instance says of itself comes from here.
pub struct Around {
    /// The region.
    pub region: Arc<Region>,
    /// The configuration's state.
    pub config: StatusWatch,
    /// Where the API listens.
    pub api: SocketAddr,
    /// Where clients reach nginx.
    pub advertise: Option<SocketAddr>,
    /// Figures of limits over all instances.
    pub figures: Arc<Figures>,
    /// Names of the master keys.
    pub keys: Vec<String>,
}

impl Around {
    fn member(&self, instance: &str) -> Member {
        let status = Arc::clone(&self.config.borrow());
        let in_flight = self.region.inflight(usize::MAX).len();
        let workers = self.region.workers();
        let alive = || workers.iter().filter(|worker| worker.alive);
        Member {
            instance: instance.to_owned(),
            address: self.advertise.map(|a| a.to_string()).unwrap_or_default(),
            api: self.api.to_string(),
            program: env!("CARGO_PKG_VERSION").to_owned(),
            version: status.version.unwrap_or(0),
            generation: status.generation(),
            in_flight: u64::try_from(in_flight).unwrap_or(u64::MAX),
            requests: alive().map(|worker| worker.requests).sum(),
            leases: self.figures.held.load(std::sync::atomic::Ordering::Relaxed),
            weight: status.settings.balancer.weight,
            serving: alive().any(|worker| worker.generation > 0),
            draining: self.region.draining(),
            refusing: !status.in_force,
            keys: self.keys.clone(),
        }
    }
}

/// This instance among the others. Clones share it.
#[derive(Clone)]
pub struct Naming {
    members: watch::Sender<Arc<Members>>,
}

impl Naming {
    /// An instance that knows of no others yet.
    pub fn alone(instance: &str) -> Naming {
        let own = Member {
            instance: instance.to_owned(),
            ..Member::default()
        };
        let members = Members {
            own,
            ..Members::default()
        };
        Naming {
            members: watch::Sender::new(Arc::new(members)),
        }
    }

    /// Tells when something is known that was not.
    pub fn changes(&self) -> watch::Receiver<Arc<Members>> {
        self.members.subscribe()
    }

    /// What is known now.
    pub fn members(&self) -> Arc<Members> {
        Arc::clone(&self.members.borrow())
    }

    /// Tells and asks, until it is dropped: the registry forgets whoever does not speak to it any more.
    pub async fn run(self, mut registry: Option<Registry>, around: Around) {
        let instance = self.members().own.instance.clone();
        let mut told: Option<(Member, tokio::time::Instant)> = None;
        let mut config = around.config.clone();
        // As the documents last said; a daemon that starts does not undo what was done by hand.
        let mut drain = false;
        loop {
            let wanted = config.borrow_and_update().settings.balancer.drain;
            if std::mem::replace(&mut drain, wanted) != wanted {
                tracing::info!(
                    draining = wanted,
                    "the documents take this instance out, or in again"
                );
                around.region.set_draining(wanted);
            }
            let own = around.member(&instance);
            let mut found = Ok(Vec::new());
            if let Some(registry) = &mut registry {
                let fresh = told
                    .as_ref()
                    .is_some_and(|(last, at)| !own.differs(last) && (own == *last || at.elapsed() < LOAD));
                let told_now = if fresh { Ok(()) } else { registry.tell(&own).await };
                if !fresh && told_now.is_ok() {
                    told = Some((own.clone(), tokio::time::Instant::now()));
                }
                found = match told_now {
                    Ok(()) => registry.others(&instance).await,
                    Err(error) => Err(error),
                };
            }
            self.note(own, found);
            // A version that takes effect is told at once.
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                changed = config.changed() => if changed.is_err() { return },
            }
        }
    }

    fn note(&self, own: Member, found: Result<Vec<Member>, String>) {
        self.members.send_if_modified(|present| {
            let mut next = Members {
                own,
                ..Members::clone(present)
            };
            match found {
                Ok(others) => {
                    if next.failure.take().is_some() {
                        tracing::info!("the other instances can be seen again");
                    }
                    next.others = others;
                    next.heard = true;
                }
                Err(error) => {
                    if next.failure.is_none() {
                        tracing::warn!(error, "the other instances cannot be seen");
                    }
                    next.failure = Some(error);
                }
            }
            let differs = next != **present;
            if differs {
                *present = Arc::new(next);
            }
            differs
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_instance_says_reads_back() {
        let member = Member {
            instance: "one".into(),
            address: "10.0.0.1:8080".into(),
            api: "10.0.0.1:9180".into(),
            program: "1.2.3".into(),
            version: 7,
            generation: 9,
            in_flight: 3,
            requests: 11,
            leases: 2,
            weight: 50,
            serving: true,
            draining: false,
            refusing: true,
            keys: vec!["0a1b2c3d".into(), "ffffffff".into()],
        };
        let metadata = member.metadata();
        let back = Member::from_metadata(|name| metadata.get(name).map(String::as_str));
        assert_eq!(back, Some(member.clone()));
        assert_eq!(Member::from_metadata(|_| None), None);
        let busy = Member {
            in_flight: 4,
            ..member.clone()
        };
        let newer = Member {
            version: 8,
            ..member.clone()
        };
        assert!(!member.differs(&busy) && member.differs(&newer));
    }
}
