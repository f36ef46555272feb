//! Names of providers into addresses. Workers resolve nothing: what they connect to stands in the snapshot.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tollgate_policy::documents::{Documents, Endpoint, Provider};

/// Longest wait for one name.
const PATIENCE: Duration = Duration::from_secs(3);

/// A name and a port.
pub type Target = (String, u16);

/// What came of asking for names: addresses in a fixed order, so that the same answer in another order is no change,
/// or why there are none.
pub type Answers = Vec<(Target, Result<Vec<SocketAddr>, String>)>;

/// Addresses as they were last seen. A name that cannot be resolved any more keeps its old addresses.
#[derive(Default)]
pub struct Resolver {
    known: BTreeMap<Target, Vec<SocketAddr>>,
    failed: BTreeMap<Target, String>,
}

/// What publishing needs to know of a provider from outside its document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// Its id.
    pub id: String,
    /// Host and port; `None` if its base URL cannot be read.
    target: Option<Target>,
    /// The named credential that it uses.
    pub key_ref: Option<String>,
}

impl Upstream {
    /// All providers of these documents.
    pub fn all(documents: &Documents) -> Vec<Upstream> {
        let upstream = |p: &Provider| Upstream {
            id: p.id.clone(),
            target: Endpoint::parse(&p.base_url).ok().map(|e| (e.host, e.port)),
            key_ref: p.credentials.key_ref.clone(),
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

async fn lookup(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    let addresses: BTreeSet<SocketAddr> =
        match tokio::time::timeout(PATIENCE, tokio::net::lookup_host((host, port))).await {
            Ok(Ok(addresses)) => addresses.collect(),
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_) => return Err(format!("no answer within {} s", PATIENCE.as_secs())),
        };
    if addresses.is_empty() {
        return Err("it has no address".to_owned());
    }
    Ok(addresses.into_iter().collect())
}

/// Asks for names, all at once; takes 3 s at most.
pub async fn ask(names: BTreeSet<Target>) -> Answers {
    let mut lookups = tokio::task::JoinSet::new();
    for (host, port) in names {
        lookups.spawn(async move {
            let answer = lookup(&host, port).await;
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
        names.retain(|t| !self.known.contains_key(t) && !self.failed.contains_key(t));
        names
    }

    /// Takes note of answers.
    pub fn learn(&mut self, answers: Answers) {
        for (target, answer) in answers {
            match answer {
                Ok(addresses) => {
                    self.failed.remove(&target);
                    self.known.insert(target, addresses);
                }
                Err(reason) => {
                    self.failed.insert(target, reason);
                }
            }
        }
    }

    /// Names of these providers that could not be resolved when they were last asked for, and why.
    pub fn failures(&self, upstreams: &[Upstream]) -> Vec<(String, String)> {
        let names = names(upstreams);
        let failed = self.failed.iter().filter(|(target, _)| names.contains(*target));
        failed
            .map(|((host, _), reason)| (host.clone(), reason.clone()))
            .collect()
    }

    fn of(&self, target: &Target) -> Vec<SocketAddr> {
        match target.0.parse::<IpAddr>() {
            Ok(ip) => vec![SocketAddr::new(ip, target.1)],
            Err(_) => self.known.get(target).cloned().unwrap_or_default(),
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
        resolver.learn(ask(unknown).await);
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
        resolver.learn(vec![(name.clone(), Ok(vec![address]))]);
        resolver.learn(vec![(name.clone(), Err("down".into()))]);
        assert_eq!(resolver.addresses(&upstreams)["a"], [address]);
        assert_eq!(resolver.failures(&upstreams).len(), 1);
        resolver.learn(vec![(name, Ok(vec![address]))]);
        assert!(resolver.failures(&upstreams).is_empty());
    }
}
