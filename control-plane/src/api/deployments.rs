//! Deployments: whether they get requests, and if not, why.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tollgate_policy::snapshot::CredentialView;
use tollgate_policy::{DeploymentView, ProviderView, credential_row, hash_name};
use tollgate_shm::{BreakerState, DeploymentView as Row, Failure, Readiness};

use super::extract::{Path, Query};
use super::limits::no_configuration;
use super::{ApiError, AppState};
use crate::health::{Counts, Entry, Probed, verdict_name};
use crate::live::{self, LiveLimit};

/// Most deployments on one page.
const MOST: usize = 5_000;

/// Which deployments.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// Only those of this model (name or alias).
    model: Option<String>,
    /// Only those at this provider.
    provider: Option<String>,
    /// Only those that are enabled and yet get no requests.
    #[serde(default)]
    trouble: bool,
    /// Deployments to skip.
    #[serde(default)]
    offset: usize,
    /// Deployments to show; 1,000 by default, at most 5,000.
    #[serde(default = "thousand")]
    limit: usize,
}

fn thousand() -> usize {
    1_000
}

/// A provider's credential and whether it rests.
#[derive(Serialize, JsonSchema)]
struct CredentialState {
    id: String,
    weight: u32,
    /// For so many milliseconds from now; null if it does not rest.
    resting_for_ms: Option<u64>,
}

/// What probes found of a deployment.
#[derive(Serialize, JsonSchema)]
struct ProbeState {
    /// `http`, `tcp` or `completion`.
    kind: &'static str,
    /// What is held of it.
    verdict: &'static str,
    /// Since when, region time.
    since_ms: u64,
    /// Why.
    reason: String,
    /// Findings in a row that agree.
    in_row: u32,
    /// The last probe; null before the first.
    last: Option<Entry>,
    counts: Counts,
}

/// A deployment's breaker.
#[derive(Serialize, JsonSchema)]
struct BreakerNow {
    #[schemars(extend("enum" = ["closed", "open", "half_open"]))]
    state: &'static str,
    /// When a trial is allowed, region time; null while it is closed.
    until_ms: Option<u64>,
    /// Milliseconds until then.
    retry_in_ms: Option<u64>,
    failures_in_row: u64,
    /// How often it has opened.
    opened: u64,
}

/// An attempt that failed.
#[derive(Serialize, JsonSchema)]
struct LastFailure {
    kind: &'static str,
    /// Region time.
    at_ms: u64,
}

/// A deployment's connections.
#[derive(Serialize, JsonSchema)]
struct ConnectionCounts {
    /// Kept, and serving nobody now.
    idle: u64,
    active: u64,
    made: u64,
    /// Attempts over one that was already there.
    reused: u64,
    /// TLS handshakes that took up a former session.
    tls_resumed: u64,
    /// Attempts that came to none.
    failed: u64,
}

/// What workers know of a deployment.
#[derive(Serialize, JsonSchema)]
struct Readings {
    breaker: BreakerNow,
    /// Until when it is left alone, region time; null if it is not.
    cooling_until_ms: Option<u64>,
    cooling_for_ms: Option<u64>,
    /// The last attempt that failed; null if none has.
    last_failure: Option<LastFailure>,
    /// When it last began to work again, region time; null if it never stopped.
    recovered_ms: Option<u64>,
    /// Moving average of the time to the first byte; null before the first answer.
    latency_us: Option<u64>,
    /// Requests that it serves now.
    in_flight: u64,
    attempts: u64,
    /// Attempts that failed, by what happened.
    failed: BTreeMap<&'static str, u64>,
    connections: ConnectionCounts,
}

/// A deployment: what it is, and how it stands. Times are region time: the wall clock's milliseconds since 1970 at the
/// region's creation, and monotonic since.
#[derive(Serialize, JsonSchema)]
pub(super) struct DeploymentState {
    id: String,
    /// Name of the model.
    model: Option<String>,
    /// Id of the provider.
    provider: Option<String>,
    /// What the provider calls the model.
    upstream_model: String,
    version: String,
    weight: u32,
    enabled: bool,
    addresses: Option<Vec<String>>,
    /// The provider's credentials; null unless it has several.
    credentials: Option<Vec<CredentialState>>,
    /// Whether it gets requests.
    #[schemars(extend("enum" = ["ready", "trial", "broken", "cooling", "unhealthy", "disabled"]))]
    state: &'static str,
    /// Why it is in that state; empty if there is nothing to say.
    reason: String,
    /// What is left of its provider's quota.
    quota: Vec<LiveLimit>,
    /// What probes found; null if it is not probed.
    probe: Option<ProbeState>,
    /// Missing if the region's table is full.
    #[serde(flatten)]
    readings: Option<Readings>,
}

/// A page of deployments.
#[derive(Serialize, JsonSchema)]
pub(super) struct DeploymentList {
    /// Generation in force.
    generation: u64,
    /// Region time.
    now_ms: u64,
    /// Deployments that were skipped.
    offset: usize,
    /// Number of deployments that were asked for, whatever their state.
    total: usize,
    deployments: Vec<DeploymentState>,
}

/// A deployment at a moment.
#[derive(Serialize, JsonSchema)]
pub(super) struct DeploymentNow {
    #[serde(flatten)]
    deployment: DeploymentState,
    /// Generation in force.
    generation: u64,
    /// Region time.
    now_ms: u64,
}

/// A deployment's last probes.
#[derive(Serialize, JsonSchema)]
pub(super) struct DeploymentHistory {
    id: String,
    /// Region time.
    now_ms: u64,
    /// Whether it is probed.
    probed: bool,
    history: Vec<Entry>,
}

/// A deployment, or, with `/history` behind its id, its last probes.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum OneDeployment {
    /// The deployment.
    Now(Box<DeploymentNow>),
    /// Its last probes.
    History(DeploymentHistory),
}

/// A deployment as the region and the prober know it at this moment.
pub(super) struct Live {
    /// Whether it gets requests.
    pub state: &'static str,
    /// The region's row; `None` if its table is full.
    pub row: Option<Row>,
    /// What probes found; `None` if it is not probed.
    pub probed: Option<Probed>,
    /// What is left of its provider's quota.
    pub quota: Vec<LiveLimit>,
}

/// Looks a deployment up.
pub(super) fn look_up(state: &AppState, deployment: &DeploymentView<'_>, now_ms: u64) -> Live {
    let region = &state.region;
    let index = region.deployment(hash_name(deployment.id().as_bytes()));
    let readiness = index.map_or(Readiness::Ready, |at| region.deployment_readiness(at, now_ms));
    let word = match readiness {
        _ if !deployment.enabled() => "disabled",
        Readiness::Ready => "ready",
        Readiness::Trial => "trial",
        Readiness::Broken => "broken",
        Readiness::Cooling => "cooling",
        Readiness::Unhealthy => "unhealthy",
    };
    Live {
        state: word,
        row: index.and_then(|at| region.deployment_view(at)),
        probed: state.probes.of(deployment.id()),
        quota: deployment
            .limits()
            .iter()
            .filter_map(|limit| live::level(&**region, &limit, ""))
            .collect(),
    }
}

/// Why it is in that state, in an operator's words; empty if there is nothing to say.
fn reason(live: &Live) -> String {
    let last = live.row.as_ref().and_then(|r| r.last_failure);
    let last = last.map_or("unknown", |(kind, _)| kind.name());
    match (live.state, &live.row, &live.probed) {
        ("broken" | "trial", Some(row), _) => {
            format!("{} failures in a row, the last: {last}", row.failures_in_row)
        }
        ("cooling", ..) => "the provider asked to be left alone".into(),
        ("unhealthy", _, Some(probed)) => probed.standing.reason.clone(),
        _ => String::new(),
    }
}

fn described(state: &AppState, deployment: &DeploymentView<'_>, live: Live, now_ms: u64) -> DeploymentState {
    let provider = deployment.provider();
    DeploymentState {
        id: deployment.id().to_owned(),
        model: deployment.model().map(|m| m.name().to_owned()),
        provider: provider.map(|p| p.id().to_owned()),
        upstream_model: deployment.upstream_model().to_owned(),
        version: deployment.version().to_owned(),
        weight: deployment.weight(),
        enabled: deployment.enabled(),
        addresses: provider.map(|p| p.addresses().map(|a| a.to_string()).collect()),
        credentials: credentials(state, provider, now_ms),
        state: live.state,
        reason: reason(&live),
        readings: live.row.as_ref().map(|row| readings(row, now_ms)),
        quota: live.quota,
        probe: live.probed.map(probe),
    }
}

fn readings(row: &Row, now_ms: u64) -> Readings {
    let until = (row.breaker != BreakerState::Closed).then_some(row.breaker_until_ms);
    let cooling = Some(row.cooling_until_ms).filter(|until| *until > now_ms);
    let failed = Failure::ALL.into_iter().zip(row.failed);
    Readings {
        breaker: BreakerNow {
            state: row.breaker.name(),
            until_ms: until,
            retry_in_ms: until.map(|until| until.saturating_sub(now_ms)),
            failures_in_row: row.failures_in_row,
            opened: row.opened,
        },
        cooling_until_ms: cooling,
        cooling_for_ms: cooling.map(|until| until - now_ms),
        last_failure: row.last_failure.map(|(kind, at_ms)| LastFailure {
            kind: kind.name(),
            at_ms,
        }),
        recovered_ms: Some(row.recovered_ms).filter(|at| *at > 0),
        latency_us: Some(row.latency_us).filter(|us| *us > 0),
        in_flight: row.in_flight,
        attempts: row.attempts,
        failed: failed.map(|(kind, n)| (kind.name(), n)).collect(),
        connections: ConnectionCounts {
            idle: row.idle,
            active: row.in_flight,
            made: row.connected,
            reused: row.reused,
            tls_resumed: row.resumed,
            failed: failed_connections(row),
        },
    }
}

/// Attempts that came to no connection.
pub(super) fn failed_connections(row: &Row) -> u64 {
    let failed = Failure::ALL.into_iter().zip(row.failed);
    failed
        .filter(|(kind, _)| matches!(kind, Failure::Connect | Failure::Tls))
        .map(|(_, count)| count)
        .sum()
}

/// The provider's credentials and which of them rest, where it has several.
fn credentials(
    state: &AppState,
    provider: Option<ProviderView<'_>>,
    now_ms: u64,
) -> Option<Vec<CredentialState>> {
    let provider = provider.filter(|p| p.credentials().len() > 1)?;
    let region = &state.region;
    let one = |credential: CredentialView<'_>| {
        let row = region.deployment(credential_row(provider.id(), credential.id));
        let resting = row.map_or(0, |row| region.deployment_cooling_ms(row, now_ms));
        CredentialState {
            id: credential.id.to_owned(),
            weight: credential.weight,
            resting_for_ms: Some(resting).filter(|ms| *ms > 0),
        }
    };
    Some(provider.credentials().map(one).collect())
}

fn probe(probed: Probed) -> ProbeState {
    let standing = probed.standing;
    ProbeState {
        kind: probed.kind.name(),
        verdict: verdict_name(standing.verdict),
        since_ms: standing.since_ms,
        reason: standing.reason,
        in_row: standing.in_row,
        last: probed.last,
        counts: probed.counts,
    }
}

/// The state of all deployments.
pub(super) async fn all(
    State(state): State<AppState>,
    Query(wanted): Query<Wanted>,
) -> Result<Json<DeploymentList>, ApiError> {
    let status = state.status();
    let active = status.active().ok_or_else(no_configuration)?;
    let snapshot = active.snapshot().ok_or_else(no_configuration)?;
    let model = match &wanted.model {
        None => None,
        Some(name) => Some(
            snapshot
                .model(name.as_bytes())
                .ok_or_else(|| ApiError::not_found(format!("there is no model `{name}`")))?
                .index(),
        ),
    };
    let now = state.region.now_ms();
    let chosen = snapshot.deployments().filter(|d| {
        let of_model = model.is_none_or(|index| d.model().is_some_and(|m| m.index() == index));
        let at_provider = wanted
            .provider
            .as_ref()
            .is_none_or(|id| d.provider().is_some_and(|p| p.id() == id));
        of_model && at_provider
    });
    let (mut total, mut shown, mut skipped) = (0, Vec::new(), 0);
    for deployment in chosen {
        total += 1;
        let live = look_up(&state, &deployment, now);
        if wanted.trouble && matches!(live.state, "ready" | "disabled") {
            continue;
        }
        skipped += 1;
        if skipped > wanted.offset && shown.len() < wanted.limit.min(MOST) {
            shown.push(described(&state, &deployment, live, now));
        }
    }
    Ok(Json(DeploymentList {
        generation: active.generation(),
        now_ms: now,
        offset: wanted.offset,
        total,
        deployments: shown,
    }))
}

/// The state of one deployment, or, with `/history` behind its id, its last probes. Ids may contain slashes.
pub(super) async fn one(
    State(state): State<AppState>,
    Path(path): Path<String>,
) -> Result<Json<OneDeployment>, ApiError> {
    let status = state.status();
    let active = status.active().ok_or_else(no_configuration)?;
    let snapshot = active.snapshot().ok_or_else(no_configuration)?;
    let find = |id: &str| snapshot.deployments().find(|d| d.id() == id);
    let now = state.region.now_ms();
    if let Some(id) = path.strip_suffix("/history")
        && find(id).is_some()
    {
        return Ok(Json(OneDeployment::History(DeploymentHistory {
            id: id.to_owned(),
            now_ms: now,
            probed: state.probes.of(id).is_some(),
            history: state.probes.history(id).unwrap_or_default(),
        })));
    }
    let deployment =
        find(&path).ok_or_else(|| ApiError::not_found(format!("there is no deployment `{path}`")))?;
    let live = look_up(&state, &deployment, now);
    Ok(Json(OneDeployment::Now(Box::new(DeploymentNow {
        deployment: described(&state, &deployment, live, now),
        generation: active.generation(),
        now_ms: now,
    }))))
}
