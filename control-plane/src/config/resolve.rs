//! Names of providers into addresses. Workers resolve nothing: what they connect to stands in the snapshot.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use tollgate_policy::documents::{Documents, Endpoint, Provider};

/// Longest wait for one name.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long an answer holds at least and at most, whatever it says. `/etc/hosts` says nothing and may be edited.
const HOLDS: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(300);
const HOSTS_HOLD: Duration = Duration::from_secs(30);
/// What a name that could not be resolved waits for.
const RETRY: Duration = Duration::from_secs(2);

/// A name and a port.
pub type Target = (String, u16);

/// Addresses in a fixed order, so that the same answer in another order is no change, and how long they hold.
type Answer = Result<(Vec<SocketAddr>, Duration), String>;

/// What came of asking for names.
pub type Answers = Vec<(Target, Answer)>;

/// What is known of a name. Addresses stay as they were last seen if it cannot be resolved any more.
#[derive(Debug)]
struct Known {
    addresses: Vec<SocketAddr>,
    failed: Option<String>,
    /// When it is to be asked for again.
    due: Instant,
}

/// Addresses as they were last seen.
#[derive(Default)]
pub struct Resolver {
    known: BTreeMap<Target, Known>,
}

/// What publishing needs to know of a provider from outside its document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// Its id.
    pub id: String,
    /// Host and port; `None` if its base URL cannot be read.
    target: Option<Target>,
    /// The named credentials that it uses.
    pub key_refs: Vec<String>,
    /// The file with the certificates that it is trusted by.
    pub ca_file: Option<String>,
}

impl Upstream {
    /// All providers of these documents.
    pub fn all(documents: &Documents) -> Vec<Upstream> {
        let upstream = |p: &Provider| Upstream {
            id: p.id.clone(),
            target: Endpoint::parse(&p.base_url).ok().map(|e| (e.host, e.port)),
            key_refs: p.credentials.references().map(str::to_owned).collect(),
            ca_file: p.tls.ca_file.clone(),
        };
        documents.providers.iter().map(|p| upstream(&p.value)).collect()
    }
}

/// The names that providers use; addresses written as such are none.
pub fn names(upstreams: &[Upstream]) -> BTreeSet<Target> {
    upstreams
        .iter()
        .filter_map(|u| u.target.clone())
        .filter(|(host, _)| host.parse::<IpAddr>().is_err())
        .collect()
}

/// Asks the given name servers, or those of the system if there are none. Made anew for each round, so that edits of
/// `/etc/resolv.conf` and `/etc/hosts` count and nothing is held for longer than we say.
fn resolver(servers: &[SocketAddr]) -> Result<TokioResolver, String> {
    let fail = |e: hickory_resolver::net::NetError| e.to_string();
    let mut builder = if servers.is_empty() {
        TokioResolver::builder_tokio().map_err(fail)?
    } else {
        let server = |address: &SocketAddr| {
            let at = |mut connection: ConnectionConfig| {
                connection.port = address.port();
                connection
            };
            let connections = vec![at(ConnectionConfig::udp()), at(ConnectionConfig::tcp())];
            NameServerConfig::new(address.ip(), true, connections)
        };
        let config = ResolverConfig::from_parts(None, Vec::new(), servers.iter().map(server).collect());
        TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
    };
    let options = builder.options_mut();
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.timeout = Duration::from_secs(1);
    options.attempts = 2;
    builder.build().map_err(fail)
}

async fn lookup(resolver: &TokioResolver, host: &str, port: u16) -> Answer {
    let found = match tokio::time::timeout(PATIENCE, resolver.lookup_ip(host)).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => return Err(error.to_string()),
        Err(_) => return Err(format!("no answer within {} s", PATIENCE.as_secs())),
    };
    let holds = found.valid_until().saturating_duration_since(Instant::now());
    // Answers from the hosts file hold for a day.
    let holds = if holds > Duration::from_secs(80_000) {
        HOSTS_HOLD
    } else {
        holds
    };
    let addresses: BTreeSet<SocketAddr> = found.iter().map(|ip| SocketAddr::new(ip, port)).collect();
    if addresses.is_empty() {
        return Err("it has no address".to_owned());
    }
    Ok((
        addresses.into_iter().collect(),
        holds.clamp(*HOLDS.start(), *HOLDS.end()),
    ))
}

/// Asks for names, all at once; takes 3 s at most. No servers: the system's.
pub async fn ask(names: BTreeSet<Target>, servers: &[SocketAddr]) -> Answers {
    let resolver = match resolver(servers) {
        Ok(resolver) => resolver,
        Err(reason) => {
            return names
                .into_iter()
                .map(|name| (name, Err(reason.clone())))
                .collect();
        }
    };
    let mut lookups = tokio::task::JoinSet::new();
    for (host, port) in names {
        let resolver = resolver.clone();
        lookups.spawn(async move {
            let answer = lookup(&resolver, &host, port).await;
            ((host, port), answer)
        });
    }
    let mut answers = Answers::new();
    while let Some(done) = lookups.join_next().await {
        answers.extend(done.ok());
    }
    answers
}

impl Resolver {
    /// Names that nobody has asked for yet. Those that failed are asked for again with all others, from time to time,
    /// so that a dead name does not delay every change of the documents.
    pub fn unknown(&self, upstreams: &[Upstream]) -> BTreeSet<Target> {
        let mut names = names(upstreams);
        names.retain(|target| !self.known.contains_key(target));
        names
    }

    /// Names whose answer does not hold any more, by `when`.
    pub fn due(&self, upstreams: &[Upstream], when: Instant) -> BTreeSet<Target> {
        let mut names = names(upstreams);
        names.retain(|target| self.known.get(target).is_none_or(|known| known.due <= when));
        names
    }

    /// When the first of these names is to be asked for again.
    pub fn next_due(&self, upstreams: &[Upstream]) -> Option<Instant> {
        let names = names(upstreams);
        names
            .iter()
            .filter_map(|t| self.known.get(t))
            .map(|known| known.due)
            .min()
    }

    /// Takes note of answers.
    pub fn learn(&mut self, answers: Answers) {
        let now = Instant::now();
        for (target, answer) in answers {
            match answer {
                Ok((addresses, holds)) => {
                    let due = now + holds;
                    let known = Known {
                        addresses,
                        failed: None,
                        due,
                    };
                    self.known.insert(target, known);
                }
                Err(reason) => {
                    let addresses = self.known.remove(&target).map(|k| k.addresses);
                    let known = Known {
                        addresses: addresses.unwrap_or_default(),
                        failed: Some(reason),
                        due: now + RETRY,
                    };
                    self.known.insert(target, known);
                }
            }
        }
    }

    /// Names of these providers that could not be resolved when they were last asked for, and why.
    pub fn failures(&self, upstreams: &[Upstream]) -> Vec<(String, String)> {
        let names = names(upstreams);
        let known = names
            .iter()
            .filter_map(|target| Some((target, self.known.get(target)?)));
        known
            .filter_map(|((host, _), known)| Some((host.clone(), known.failed.clone()?)))
            .collect()
    }

    fn of(&self, target: &Target) -> Vec<SocketAddr> {
        match target.0.parse::<IpAddr>() {
            Ok(ip) => vec![SocketAddr::new(ip, target.1)],
            Err(_) => self
                .known
                .get(target)
                .map(|k| k.addresses.clone())
                .unwrap_or_default(),
        }
    }

    /// The addresses of every provider, by its id; empty where nothing is known.
    pub fn addresses(&self, upstreams: &[Upstream]) -> BTreeMap<String, Vec<SocketAddr>> {
        let of = |u: &Upstream| u.target.as_ref().map(|t| self.of(t)).unwrap_or_default();
        upstreams.iter().map(|u| (u.id.clone(), of(u))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn literal_addresses_need_nobody_and_unknown_names_are_reported() {
        let text = br#"{"providers":[
            {"id":"a","protocol":"openai","base_url":"http://127.0.0.1:81/v1"},
            {"id":"b","protocol":"openai","base_url":"https://[::1]"},
            {"id":"c","protocol":"openai","base_url":"http://localhost:82"},
            {"id":"d","protocol":"openai","base_url":"http://no-such-name.invalid"}]}"#;
        let (documents, problems) = Documents::parse(&[("providers.json".into(), &text[..])]);
        assert!(problems.is_empty(), "{problems:?}");
        let upstreams = Upstream::all(&documents);
        let mut resolver = Resolver::default();
        let unknown = resolver.unknown(&upstreams);
        assert_eq!(unknown.len(), 2);
        resolver.learn(ask(unknown, &[]).await);
        assert!(
            resolver.unknown(&upstreams).is_empty(),
            "a name that failed is not asked for at once"
        );
        assert_eq!(resolver.failures(&upstreams)[0].0, "no-such-name.invalid");
        let addresses = resolver.addresses(&upstreams);
        assert_eq!(addresses["a"], ["127.0.0.1:81".parse().unwrap()]);
        assert_eq!(addresses["b"], ["[::1]:443".parse().unwrap()]);
        assert!(
            addresses["c"]
                .iter()
                .all(|a| a.ip().is_loopback() && a.port() == 82)
        );
        assert!(!addresses["c"].is_empty() && addresses["d"].is_empty());
    }

    #[test]
    fn a_name_that_fails_later_keeps_its_addresses() {
        let text = br#"{"providers":[{"id":"a","protocol":"openai","base_url":"http://name.test"}]}"#;
        let upstreams = Upstream::all(&Documents::parse(&[("providers.json".into(), &text[..])]).0);
        let name = ("name.test".to_owned(), 80);
        let mut resolver = Resolver::default();
        let address: SocketAddr = "10.0.0.1:80".parse().unwrap();
        let minute = Duration::from_secs(60);
        resolver.learn(vec![(name.clone(), Ok((vec![address], minute)))]);
        let now = Instant::now();
        assert!(resolver.due(&upstreams, now).is_empty());
        assert!(resolver.next_due(&upstreams).unwrap() > now + minute / 2);
        assert_eq!(resolver.due(&upstreams, now + minute).len(), 1);
        resolver.learn(vec![(name.clone(), Err("down".into()))]);
        assert_eq!(resolver.addresses(&upstreams)["a"], [address]);
        assert_eq!(resolver.failures(&upstreams).len(), 1);
        resolver.learn(vec![(name, Ok((vec![address], minute)))]);
        assert!(resolver.failures(&upstreams).is_empty());
    }
}
