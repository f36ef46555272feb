//! What a worker makes of a provider, once per generation: the header lines of its credentials, which of them are at rest,
//! and whom its certificate is checked against.

use std::cell::RefCell;
use std::rc::Rc;

use tollgate_policy::balance::{Candidate, RoundRobin};
use tollgate_policy::documents::CredentialKind;
use tollgate_policy::snapshot::ConnectionsView;
use tollgate_policy::{ProviderView, credential_row, hash_name};
use tollgate_shm::{DeploymentIndex, Region};

use super::credentials::MasterKey;
use crate::ngx::tls::ClientContext;

/// Whom a provider's certificate is checked against.
pub(crate) enum Trust {
    /// Nobody: whoever answers is taken for it.
    Anyone,
    /// Those that the location trusts, as a rule the system's.
    Location,
    /// Those of its own document and nobody else.
    Own(Rc<ClientContext>),
}

/// How a provider is spoken to over TLS.
pub(crate) struct Security {
    pub trust: Trust,
    pub only_1_3: bool,
    /// Differs where neither connections nor sessions may be shared.
    id: u64,
}

/// One of a provider's credentials, as header lines.
pub(crate) struct Head {
    /// Without the first line's name: `<Host>` and the credential's line behind it.
    pub lines: Box<[u8]>,
    /// What it is called; empty for the only one.
    pub name: Box<str>,
    /// What its connections may be shared by, beside deployment and address: see [`identity`].
    id: u64,
    weight: u64,
    /// Where all workers know whether it is at rest; `None` for the only one, or while the region's table is full.
    row: Option<DeploymentIndex>,
}

/// A provider as this worker uses it.
pub(crate) struct Upstream {
    pub heads: Vec<Head>,
    pub security: Security,
    pub connections: ConnectionsView,
    turns: RefCell<RoundRobin>,
}

/// Contexts of the certificates that providers are trusted by, by a hash of those. Shared by generations and providers.
pub(crate) type Contexts = RefCell<Vec<(u64, Rc<ClientContext>)>>;

impl Upstream {
    pub fn new(
        provider: &ProviderView<'_>,
        key: Option<&MasterKey>,
        region: Option<&Region>,
        contexts: &Contexts,
    ) -> Result<Upstream, &'static str> {
        let several = provider.credentials().len() > 1;
        let mut heads = Vec::new();
        if provider.credential_kind() == CredentialKind::None {
            heads.push(Head::new(provider, None, "")?);
        }
        for credential in provider.credentials() {
            let secret = key
                .and_then(|key| key.open(provider.id(), credential.sealed))
                .ok_or("the provider's credential cannot be opened; is the master key the daemon's?")?;
            let head = Head::new(provider, Some(&secret), credential.id)?;
            heads.push(Head {
                weight: credential.weight.into(),
                row: region
                    .filter(|_| several)
                    .and_then(|r| r.deployment(credential_row(provider.id(), credential.id))),
                ..head
            });
        }
        if heads.is_empty() {
            return Err("the provider has no credential");
        }
        let (security, connections) = (Security::new(provider, contexts), provider.connections());
        for head in &mut heads {
            head.id = identity(provider, &security, &connections, head.id);
        }
        Ok(Upstream {
            heads,
            security,
            connections,
            turns: RefCell::default(),
        })
    }

    /// The credential for the next attempt: those that are not at rest take turns by weight. If all are, the one whose rest
    /// ends first.
    pub fn pick(&self, region: Option<&Region>, now_ms: u64) -> u16 {
        let Some(region) = region.filter(|_| self.heads.len() > 1) else {
            return 0;
        };
        let numbered = || (0..).zip(&self.heads);
        let ready: Vec<Candidate> = numbered()
            .filter(|(_, head)| head.rest_ms(region, now_ms) == 0)
            .map(|(index, head)| Candidate {
                index,
                weight: head.weight,
                in_flight: 0,
                latency_us: 0,
            })
            .collect();
        let picked = self.turns.borrow_mut().pick(&ready);
        let soonest = || {
            numbered()
                .min_by_key(|(_, head)| head.rest_ms(region, now_ms))
                .map(|(i, _)| i)
        };
        let index: Option<u32> = picked.or_else(soonest);
        index.and_then(|i| u16::try_from(i).ok()).unwrap_or(0)
    }

    /// The name of one of several credentials that is not at rest.
    pub fn working(&self, region: &Region, credential: u16, now_ms: u64) -> Option<&str> {
        let head = self.heads.get(usize::from(credential))?;
        (self.heads.len() > 1 && head.rest_ms(region, now_ms) == 0).then_some(&*head.name)
    }

    /// One of the credentials rests until then. Returns how long it takes until one of them can be used, milliseconds.
    pub fn rest(&self, region: &Region, credential: u16, now_ms: u64, until_ms: u64) -> u64 {
        let row = self.heads.get(usize::from(credential)).and_then(|head| head.row);
        match row {
            Some(row) => region.cool_down(row, until_ms),
            None => return until_ms.saturating_sub(now_ms),
        }
        self.soonest_ms(region, now_ms)
    }

    /// How long it takes until one of the credentials can be used, milliseconds.
    fn soonest_ms(&self, region: &Region, now_ms: u64) -> u64 {
        let rests = self.heads.iter().map(|head| head.rest_ms(region, now_ms));
        rests.min().unwrap_or(0)
    }

    /// Whether there is a credential to go on with, beside that one.
    pub fn has_another(&self, region: &Region, credential: u16, now_ms: u64) -> bool {
        (0u16..)
            .zip(&self.heads)
            .any(|(index, head)| index != credential && head.rest_ms(region, now_ms) == 0)
    }

    /// What differs wherever a connection must not be shared: see [`Head::id`].
    pub fn identity(&self, credential: u16) -> u64 {
        self.heads.get(usize::from(credential)).map_or(0, |head| head.id)
    }
}

/// A hash of all that decides whether a connection may be used for a request of this provider: credential and Host, TLS
/// name and trust, and by which settings it was kept. No connection is used with two credentials: providers may bind what
/// they have seen on one (quotas, an account's region, abuse) to it.
fn identity(
    provider: &ProviderView<'_>,
    security: &Security,
    connections: &ConnectionsView,
    lines: u64,
) -> u64 {
    let parts = [
        lines,
        hash_name(provider.tls_name().as_bytes()),
        u64::from(provider.tls()),
        security.id,
        connections.max_idle.into(),
        connections.idle_ms.into(),
        connections.max_requests.into(),
    ];
    hash_name(&parts.map(u64::to_le_bytes).concat())
}

impl Security {
    fn new(provider: &ProviderView<'_>, contexts: &Contexts) -> Security {
        let only_1_3 = provider.tls_1_3_only();
        let (trust, id) = if !provider.tls_verify() {
            (Trust::Anyone, 1)
        } else if provider.ca_file().is_empty() {
            (Trust::Location, 2)
        } else {
            let pem = provider.authorities();
            let id = hash_name(pem);
            (Trust::Own(context(contexts, id, pem)), id)
        };
        Security {
            trust,
            only_1_3,
            id: id.rotate_left(u32::from(only_1_3)),
        }
    }
}

fn context(contexts: &Contexts, id: u64, pem: &[u8]) -> Rc<ClientContext> {
    let mut all = contexts.borrow_mut();
    if let Some((_, known)) = all.iter().find(|(other, _)| *other == id) {
        return Rc::clone(known);
    }
    // Generations that are gone leave theirs behind.
    all.retain(|(_, context)| Rc::strong_count(context) > 1);
    let made = Rc::new(ClientContext::new(pem));
    all.push((id, Rc::clone(&made)));
    made
}

impl Head {
    fn new(provider: &ProviderView<'_>, secret: Option<&str>, name: &str) -> Result<Head, &'static str> {
        let mut lines = provider.host().as_bytes().to_vec();
        if let Some(secret) = secret {
            if secret.bytes().any(|b| b.is_ascii_control()) {
                return Err("the provider's credential has a character that no header can carry");
            }
            lines.extend_from_slice(b"\r\n");
            lines.extend_from_slice(provider.credential_header().as_bytes());
            lines.extend_from_slice(b": ");
            if provider.credential_kind() == CredentialKind::Bearer {
                lines.extend_from_slice(b"Bearer ");
            }
            lines.extend_from_slice(secret.as_bytes());
        }
        Ok(Head {
            id: hash_name(&lines),
            lines: lines.into(),
            name: name.into(),
            weight: 1,
            row: None,
        })
    }

    fn rest_ms(&self, region: &Region, now_ms: u64) -> u64 {
        self.row
            .map_or(0, |row| region.deployment_cooling_ms(row, now_ms))
    }
}
