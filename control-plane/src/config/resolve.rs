//! Names of providers into addresses. Workers resolve nothing: what they connect to stands in the snapshot.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tollgate_policy::documents::{Documents, Endpoint};

/// Longest wait for one name.
const PATIENCE: Duration = Duration::from_secs(3);

/// A name and a port.
type Target = (String, u16);

/// Addresses as they were last seen. A name that cannot be resolved any more keeps its old addresses.
#[derive(Default)]
pub struct Resolver {
    known: BTreeMap<Target, Vec<SocketAddr>>,
}

/// What a provider's base URL points to; `None` if it cannot be read.
fn target(base_url: &str) -> Option<Target> {
    let endpoint = Endpoint::parse(base_url).ok()?;
    Some((endpoint.host, endpoint.port))
}

async fn lookup(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    match tokio::time::timeout(PATIENCE, tokio::net::lookup_host((host, port))).await {
        // In a fixed order: the same answer in another order is no change.
        Ok(Ok(addresses)) => Ok(addresses.collect::<BTreeSet<_>>().into_iter().collect()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

impl Resolver {
    /// Asks for the names that these documents use: all of them, or only those that are not known. Returns the names
    /// that could not be resolved, with the reason.
    pub async fn refresh(&mut self, documents: &Documents, all: bool) -> Vec<(String, String)> {
        let wanted: BTreeSet<Target> = documents
            .providers
            .iter()
            .filter_map(|p| target(&p.value.base_url))
            .collect();
        self.known.retain(|target, _| wanted.contains(target));
        let mut lookups = tokio::task::JoinSet::new();
        for (host, port) in wanted {
            if let Ok(ip) = host.parse::<IpAddr>() {
                self.known.insert((host, port), vec![SocketAddr::new(ip, port)]);
            } else if all || !self.known.contains_key(&(host.clone(), port)) {
                lookups.spawn(async move {
                    let answer = lookup(&host, port).await;
                    ((host, port), answer)
                });
            }
        }
        let mut failed = Vec::new();
        while let Some(done) = lookups.join_next().await {
            match done {
                Ok((target, Ok(addresses))) if !addresses.is_empty() => {
                    self.known.insert(target, addresses);
                }
                Ok((target, Ok(_))) => failed.push((target.0, "it has no address".to_owned())),
                Ok((target, Err(reason))) => failed.push((target.0, reason)),
                Err(_) => {}
            }
        }
        failed
    }

    /// The addresses of every provider, by its id; empty where nothing is known.
    pub fn addresses(&self, documents: &Documents) -> BTreeMap<String, Vec<SocketAddr>> {
        let of = |url: &str| {
            target(url)
                .and_then(|t| self.known.get(&t).cloned())
                .unwrap_or_default()
        };
        documents
            .providers
            .iter()
            .map(|p| (p.value.id.clone(), of(&p.value.base_url)))
            .collect()
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
        let mut resolver = Resolver::default();
        let failed = resolver.refresh(&documents, false).await;
        assert_eq!(failed.len(), 1);
        assert_eq!(failed[0].0, "no-such-name.invalid");
        let addresses = resolver.addresses(&documents);
        assert_eq!(addresses["a"], ["127.0.0.1:81".parse().unwrap()]);
        assert_eq!(addresses["b"], ["[::1]:443".parse().unwrap()]);
        assert!(
            addresses["c"]
                .iter()
                .all(|a| a.ip().is_loopback() && a.port() == 82)
        );
        assert!(!addresses["c"].is_empty() && addresses["d"].is_empty());
    }
}
