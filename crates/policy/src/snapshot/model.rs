//! Models, deployments and providers, in place.

use super::price::price;
use super::{
    AddressRecord, AffinityView, Code, CountingRecord, CountingView, CredentialRecord, DeploymentRecord,
    ExperimentView, LimitList, ModelRecord, ProviderRecord, Section, Snapshot, flag,
};
use crate::documents::{Balance, CredentialKind, Protocol, SameSite};
use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

/// How long each stage of a request may take, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeoutsMs {
    /// To connect, TLS included.
    pub connect: u64,
    /// From the request's last byte to the answer's first.
    pub first_token: u64,
    /// Between two pieces of the answer.
    pub idle: u64,
    /// All of it.
    pub total: u64,
}

/// The cookie of the affinity `session`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionView {
    /// How long it is good for, seconds.
    pub lifetime_s: u32,
    /// Over TLS only.
    pub secure: bool,
    /// Which requests of other sites a browser sends it with.
    pub same_site: SameSite,
}

/// How a model's requests are spread over its deployments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoutingView<'a> {
    /// How a deployment is picked.
    pub balance: Balance,
    /// What keeps a caller with one of them.
    pub affinity: Option<AffinityView<'a>>,
    /// The cookie of the affinity `session`.
    pub session: SessionView,
    /// The version that `latest` means; may be empty.
    pub latest: &'a str,
    /// Percent of the deployments that must be in working order.
    pub panic_percent: u32,
    /// How long a deployment that works again takes to its full weight, milliseconds.
    pub slow_start_ms: u64,
    /// Failures in a row that open the breaker.
    pub breaker_failures: u32,
    /// How long it stays open at first, milliseconds.
    pub breaker_open_ms: u64,
    /// How long it stays open at most, milliseconds.
    pub breaker_max_open_ms: u64,
    /// Attempts for one request, the first included.
    pub attempts: u32,
    /// Further attempts per 100 requests.
    pub retry_percent: u32,
}

/// A model.
#[derive(Clone, Copy)]
pub struct ModelView<'a> {
    snapshot: Snapshot<'a>,
    record: &'a ModelRecord,
    index: u32,
}

impl<'a> ModelView<'a> {
    pub(super) fn new(snapshot: Snapshot<'a>, record: &'a ModelRecord, index: u32) -> Self {
        Self {
            snapshot,
            record,
            index,
        }
    }

    /// Position in this snapshot; differs between generations.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// The canonical name, whichever alias it was found by.
    pub fn name(&self) -> &'a str {
        self.snapshot.text(self.record.name)
    }

    /// [`crate::hash_name`] of the name: the same in every generation.
    pub fn name_hash(&self) -> u64 {
        self.record.hash.get()
    }

    /// Other names.
    pub fn aliases(&self) -> impl ExactSizeIterator<Item = &'a str> + use<'a> {
        self.snapshot.texts(self.record.aliases)
    }

    /// Names of the models to try if this one cannot answer.
    pub fn fallback(&self) -> impl ExactSizeIterator<Item = &'a str> + use<'a> {
        self.snapshot.texts(self.record.fallback)
    }

    /// Where requests may go.
    pub fn deployments(&self) -> impl ExactSizeIterator<Item = DeploymentView<'a>> + use<'a> {
        let snapshot = self.snapshot;
        let start = self.record.deployments.start.get();
        super::numbered(
            snapshot.run(Section::Deployments, self.record.deployments),
            move |record, index| DeploymentView::new(snapshot, record, start.saturating_add(index)),
        )
    }

    /// Limits over all channels.
    pub fn limits(&self) -> LimitList<'a> {
        LimitList::new(self.snapshot, self.record.limits, 0)
    }

    /// The most output tokens a client may ask for.
    pub fn max_output_tokens(&self) -> u64 {
        self.record.max_output_tokens.get()
    }

    /// Output tokens asked for if the client names no number.
    pub fn default_max_tokens(&self) -> u64 {
        self.record.default_max_tokens.get()
    }

    /// Longest request body, in bytes.
    pub fn max_body_bytes(&self) -> u64 {
        self.record.max_body_bytes.get()
    }

    /// How long each stage may take.
    pub fn timeouts(&self) -> TimeoutsMs {
        TimeoutsMs {
            connect: self.record.connect_ms.get(),
            first_token: self.record.first_token_ms.get(),
            idle: self.record.idle_ms.get(),
            total: self.record.total_ms.get(),
        }
    }

    /// How its requests are spread over its deployments.
    pub fn routing(&self) -> RoutingView<'a> {
        let record = self.record;
        RoutingView {
            balance: Balance::from_code(record.balance, Balance::Weighted),
            affinity: AffinityView::from_code(record.affinity, self.snapshot.text(record.affinity_name)),
            session: SessionView {
                lifetime_s: record.session_s.get(),
                secure: record.session_flags & flag::SECURE != 0,
                same_site: SameSite::from_code(record.same_site, SameSite::Lax),
            },
            latest: self.snapshot.text(record.latest),
            panic_percent: record.panic_percent.into(),
            slow_start_ms: record.slow_start_ms.get().into(),
            breaker_failures: record.breaker_failures.get().max(1),
            breaker_open_ms: record.breaker_open_ms.get().into(),
            breaker_max_open_ms: record.breaker_max_open_ms.get().into(),
            attempts: u32::from(record.attempts).max(1),
            retry_percent: record.retry_percent.into(),
        }
    }

    /// The experiment that sorts its callers.
    pub fn experiment(&self) -> Option<ExperimentView<'a>> {
        let at = self.record.experiment.get().checked_sub(1)?;
        let record = self
            .snapshot
            .records(Section::Experiments)
            .get(usize::try_from(at).ok()?)?;
        Some(ExperimentView::new(self.snapshot, record))
    }

    /// What channels pay for it.
    pub fn price(&self) -> Option<super::PriceView<'a>> {
        price(self.snapshot, Section::Prices, self.index)
    }

    /// How it is counted; `None` only in a corrupt snapshot.
    pub fn counting(&self) -> Option<CountingView<'a>> {
        let records = self.snapshot.records::<CountingRecord>(Section::Countings);
        let record = records.get(usize::try_from(self.index).ok()?)?;
        Some(CountingView::new(self.snapshot, record))
    }
}

impl fmt::Debug for ModelView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelView")
            .field("index", &self.index)
            .field("name", &self.name())
            .finish_non_exhaustive()
    }
}

/// A deployment.
#[derive(Clone, Copy)]
pub struct DeploymentView<'a> {
    snapshot: Snapshot<'a>,
    record: &'a DeploymentRecord,
    index: u32,
}

impl<'a> DeploymentView<'a> {
    pub(super) fn new(snapshot: Snapshot<'a>, record: &'a DeploymentRecord, index: u32) -> Self {
        Self {
            snapshot,
            record,
            index,
        }
    }

    /// Position in this snapshot; differs between generations.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Unique in the configuration, the same in every generation.
    pub fn id(&self) -> &'a str {
        self.snapshot.text(self.record.id)
    }

    /// Share of the traffic among the model's deployments, 0..=1,000,000.
    pub fn weight(&self) -> u32 {
        self.record.weight.get()
    }

    /// Its provider's own quota.
    pub fn limits(&self) -> LimitList<'a> {
        LimitList::new(self.snapshot, self.record.limits, 0)
    }

    /// Whether neither it nor its provider is switched off.
    pub fn enabled(&self) -> bool {
        self.record.flags & flag::ENABLED != 0
    }

    /// What the provider takes for it.
    pub fn cost(&self) -> Option<super::PriceView<'a>> {
        price(self.snapshot, Section::Costs, self.index)
    }

    /// What the provider calls the model.
    pub fn upstream_model(&self) -> &'a str {
        self.snapshot.text(self.record.upstream_model)
    }

    /// Version label; may be empty.
    pub fn version(&self) -> &'a str {
        self.snapshot.text(self.record.version)
    }

    /// The endpoint; `None` only in a corrupt snapshot.
    pub fn provider(&self) -> Option<ProviderView<'a>> {
        self.snapshot.provider(self.record.provider.get())
    }

    /// The model it serves; `None` only in a corrupt snapshot.
    pub fn model(&self) -> Option<ModelView<'a>> {
        self.snapshot.model_at(self.record.model.get())
    }
}

impl fmt::Debug for DeploymentView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeploymentView")
            .field("index", &self.index)
            .field("id", &self.id())
            .finish_non_exhaustive()
    }
}

/// How connections to a provider are kept, by each worker and for each deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionsView {
    /// Idle ones at most.
    pub max_idle: u32,
    /// How long one may be idle, milliseconds.
    pub idle_ms: u32,
    /// Requests over one.
    pub max_requests: u32,
}

/// One of a provider's credentials.
#[derive(Clone, Copy)]
pub struct CredentialView<'a> {
    /// What it is called; empty if it is the only one.
    pub id: &'a str,
    /// As `CompileInput::seal` sealed it.
    pub sealed: &'a [u8],
    /// Its share of the requests.
    pub weight: u32,
}

/// A provider.
#[derive(Clone, Copy)]
pub struct ProviderView<'a> {
    snapshot: Snapshot<'a>,
    record: &'a ProviderRecord,
    index: u32,
}

impl<'a> ProviderView<'a> {
    pub(super) fn new(snapshot: Snapshot<'a>, record: &'a ProviderRecord, index: u32) -> Self {
        Self {
            snapshot,
            record,
            index,
        }
    }

    /// Position in this snapshot; differs between generations.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Its id.
    pub fn id(&self) -> &'a str {
        self.snapshot.text(self.record.id)
    }

    /// The API it speaks.
    pub fn protocol(&self) -> Protocol {
        Protocol::from_code(self.record.protocol, Protocol::Other)
    }

    /// Where it listens, as the daemon resolved it; may be empty.
    pub fn addresses(&self) -> impl ExactSizeIterator<Item = SocketAddr> + use<'a> {
        self.snapshot
            .run::<AddressRecord>(Section::Addresses, self.record.addresses)
            .iter()
            .map(|address| {
                let v6 = Ipv6Addr::from(address.ip);
                let ip = match v6.to_ipv4_mapped() {
                    Some(v4) if address.v4 != 0 => IpAddr::V4(v4),
                    _ => IpAddr::V6(v6),
                };
                SocketAddr::new(ip, address.port.get())
            })
    }

    /// Whether it is called over TLS.
    pub fn tls(&self) -> bool {
        self.record.flags & flag::TLS != 0
    }

    /// Whether its certificate is verified.
    pub fn tls_verify(&self) -> bool {
        self.record.flags & flag::TLS_VERIFY != 0
    }

    /// Name for SNI and verification.
    pub fn tls_name(&self) -> &'a str {
        self.snapshot.text(self.record.tls_name)
    }

    /// File with the certificates to trust; empty for the system's.
    pub fn ca_file(&self) -> &'a str {
        self.snapshot.text(self.record.ca_file)
    }

    /// What stood in that file, PEM; empty for the system's.
    pub fn authorities(&self) -> &'a [u8] {
        self.snapshot.blob(self.record.authorities)
    }

    /// Whether nothing older than TLS 1.3 is spoken.
    pub fn tls_1_3_only(&self) -> bool {
        self.record.flags & flag::TLS_1_3 != 0
    }

    /// How connections to it are kept.
    pub fn connections(&self) -> ConnectionsView {
        ConnectionsView {
            max_idle: self.record.max_idle.get(),
            idle_ms: self.record.idle_ms.get(),
            max_requests: self.record.max_requests.get(),
        }
    }

    /// The Host header, with the port if it is not the scheme's own.
    pub fn host(&self) -> &'a str {
        self.snapshot.text(self.record.host)
    }

    /// What is put before the path that the client called: empty or `/prefix`.
    pub fn path_prefix(&self) -> &'a str {
        self.snapshot.text(self.record.path_prefix)
    }

    /// How the credential is sent.
    pub fn credential_kind(&self) -> CredentialKind {
        CredentialKind::from_code(self.record.credential_kind, CredentialKind::None)
    }

    /// The header that carries the credential, in lower case; empty if none is sent.
    pub fn credential_header(&self) -> &'a str {
        self.snapshot.text(self.record.credential_header)
    }

    /// What may be sent in it, one at a time; none if no credential is sent.
    pub fn credentials(&self) -> impl ExactSizeIterator<Item = CredentialView<'a>> + use<'a> {
        let snapshot = self.snapshot;
        snapshot
            .run::<CredentialRecord>(Section::Credentials, self.record.credentials)
            .iter()
            .map(move |record| CredentialView {
                id: snapshot.text(record.id),
                sealed: snapshot.blob(record.sealed),
                weight: record.weight.get().max(1),
            })
    }

    /// Whether it is not switched off.
    pub fn enabled(&self) -> bool {
        self.record.flags & flag::ENABLED != 0
    }
}

impl fmt::Debug for ProviderView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProviderView")
            .field("index", &self.index)
            .field("id", &self.id())
            .finish_non_exhaustive()
    }
}
