//! What has to be said to a HAProxy so that its servers are the instances. No I/O.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::ServerState;

/// How long a server that fails its checks may be claimed by no instance before its place is free. An instance whose daemon
/// alone is gone passes its checks and stays.
const UNCLAIMED: Duration = Duration::from_secs(10);

/// What an operator's command says about a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admin {
    Ready,
    Drain,
    Maintenance,
}

impl Admin {
    /// From HAProxy's bits: forced maintenance 1, inherited 2, forced drain 8, inherited 16, by resolution 32.
    pub fn from_bits(bits: u32) -> Admin {
        if bits & (1 | 2 | 32) != 0 {
            Admin::Maintenance
        } else if bits & (8 | 16) != 0 {
            Admin::Drain
        } else {
            Admin::Ready
        }
    }
}

/// A server as HAProxy has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Server {
    pub name: String,
    pub address: Option<SocketAddr>,
    pub up: bool,
    pub admin: Admin,
    pub weight: u32,
}

impl Server {
    pub fn is_used(&self) -> bool {
        self.address.is_some() && self.admin != Admin::Maintenance
    }

    pub fn state(&self) -> ServerState {
        ServerState {
            server: self.name.clone(),
            address: self.address.map(|a| a.to_string()).unwrap_or_default(),
            state: match self.admin {
                Admin::Ready => "ready",
                Admin::Drain => "drain",
                Admin::Maintenance => "maintenance",
            },
            up: self.up,
            weight: self.weight,
        }
    }
}

/// An instance as it is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub address: SocketAddr,
    pub weight: u32,
    pub draining: bool,
}

/// The commands that make the servers of `backend` what is wanted.
///
/// # Errors
/// If there are more instances than places.
pub(super) fn plan(
    backend: &str,
    servers: &[Server],
    wanted: &[Wanted],
    unclaimed: &mut BTreeMap<String, Instant>,
    now: Instant,
) -> Result<Vec<String>, String> {
    let mut commands = Vec::new();
    let set = |server: &Server, what: String| format!("set server {backend}/{} {what}", server.name);
    let mut free: Vec<&Server> = servers.iter().filter(|s| !s.is_used()).collect();
    for instance in wanted {
        let mut places = servers
            .iter()
            .filter(|s| s.is_used() && s.address == Some(instance.address));
        if let Some(server) = places.next() {
            if server.weight != instance.weight {
                commands.push(set(server, format!("weight {}", instance.weight)));
            }
            if (server.admin == Admin::Drain) != instance.draining {
                let state = if instance.draining { "drain" } else { "ready" };
                commands.push(set(server, format!("state {state}")));
            }
            // Somebody else has given it a place at the same time.
            commands.extend(places.map(|twin| set(twin, "state maint".into())));
        } else if !instance.draining {
            // Rather the place that it had before.
            let at = free.iter().position(|s| s.address == Some(instance.address));
            if free.is_empty() {
                return Err(format!(
                    "the backend `{backend}` has {} places and no free one for {}: raise its `server-template`",
                    servers.len(),
                    instance.address
                ));
            }
            let server = free.remove(at.unwrap_or(0));
            let (ip, port) = (instance.address.ip(), instance.address.port());
            commands.push(set(server, format!("addr {ip} port {port}")));
            commands.push(set(server, format!("weight {}", instance.weight)));
            commands.push(set(server, "state ready".into()));
        }
    }
    let is_claimed = |s: &Server| wanted.iter().any(|w| Some(w.address) == s.address);
    let down: Vec<&Server> = servers
        .iter()
        .filter(|s| s.is_used() && !s.up && !is_claimed(s))
        .collect();
    unclaimed.retain(|name, _| down.iter().any(|s| s.name == *name));
    for server in down {
        let since = *unclaimed.entry(server.name.clone()).or_insert(now);
        if now.duration_since(since) >= UNCLAIMED {
            commands.push(set(server, "state maint".into()));
        }
    }
    Ok(commands)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(number: u32, port: u16, up: bool, admin: Admin) -> Server {
        Server {
            name: format!("g{number}"),
            address: (port > 0).then(|| SocketAddr::from(([127, 0, 0, 1], port))),
            up,
            admin,
            weight: 100,
        }
    }

    fn instance(port: u16) -> Wanted {
        Wanted {
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            weight: 100,
            draining: false,
        }
    }

    fn planned(servers: &[Server], wanted: &[Wanted]) -> Vec<String> {
        plan("b", servers, wanted, &mut BTreeMap::new(), Instant::now()).unwrap()
    }

    #[test]
    fn a_new_instance_takes_the_place_that_it_had_or_a_free_one() {
        let mut servers = [
            server(1, 0, false, Admin::Maintenance),
            server(2, 8_002, false, Admin::Maintenance),
        ];
        let added = |name: &str, port: u16| {
            [
                format!("set server b/{name} addr 127.0.0.1 port {port}"),
                format!("set server b/{name} weight 100"),
                format!("set server b/{name} state ready"),
            ]
        };
        assert_eq!(planned(&servers, &[instance(8_002)]), added("g2", 8_002));
        assert_eq!(planned(&servers, &[instance(8_001)]), added("g1", 8_001));
        let both = [added("g2", 8_002), added("g1", 8_003)].concat();
        assert_eq!(planned(&servers, &[instance(8_002), instance(8_003)]), both);
        servers[0] = server(1, 8_001, true, Admin::Ready);
        assert_eq!(planned(&servers, &[instance(8_001)]), [""; 0]);
        let few = plan(
            "b",
            &servers[..1],
            &[instance(8_001), instance(8_002)],
            &mut BTreeMap::new(),
            Instant::now(),
        );
        assert!(few.unwrap_err().contains("1 places"));
    }

    #[test]
    fn weights_drains_and_twins_are_set_right() {
        let servers = [
            server(1, 8_001, true, Admin::Ready),
            server(2, 8_001, true, Admin::Ready),
            server(3, 8_003, true, Admin::Drain),
        ];
        let leaving = Wanted {
            draining: true,
            weight: 20,
            ..instance(8_001)
        };
        assert_eq!(
            planned(&servers, &[leaving, instance(8_003)]),
            [
                "set server b/g1 weight 20",
                "set server b/g1 state drain",
                "set server b/g2 state maint",
                "set server b/g3 state ready",
            ]
        );
        let unknown = Wanted {
            draining: true,
            ..instance(8_009)
        };
        assert_eq!(
            planned(&servers[2..], &[unknown]),
            [""; 0],
            "who is leaving needs no place"
        );
    }

    #[test]
    fn a_place_is_free_once_it_has_been_down_and_unclaimed_for_a_while() {
        let servers = [
            server(1, 8_001, false, Admin::Ready),
            server(2, 8_002, true, Admin::Ready),
        ];
        let (mut unclaimed, begun) = (BTreeMap::new(), Instant::now());
        let mut at = |later: Duration, servers: &[Server]| {
            plan("b", servers, &[], &mut unclaimed, begun + later).unwrap()
        };
        assert_eq!(at(Duration::ZERO, &servers), [""; 0]);
        assert_eq!(at(UNCLAIMED / 2, &servers), [""; 0]);
        // It came back meanwhile: its time begins anew.
        let back = [server(1, 8_001, true, Admin::Ready)];
        assert_eq!(at(UNCLAIMED / 2, &back), [""; 0]);
        assert_eq!(at(UNCLAIMED, &servers), [""; 0]);
        assert_eq!(at(UNCLAIMED * 2, &servers), ["set server b/g1 state maint"]);
    }
}
