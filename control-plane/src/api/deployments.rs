//! Deployments: whether they get requests, and if not, why.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tollgate_policy::snapshot::CredentialView;
use tollgate_policy::{DeploymentView, ProviderView, credential_row, hash_name};
use tollgate_shm::{BreakerState, DeploymentView as Row, Failure, Readiness};

use super::extract::{Path, Query};
use super::limits::no_configuration;
use super::{ApiError, AppState};
use crate::health::{Probed, verdict_name};
use crate::live::{self, LiveLimit};

/// Most deployments on one page.
const MOST: usize = 5_000;

/// Which deployments.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
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

/// `now_ms` and all times of the answer are region time: the wall clock's milliseconds since 1970 at the region's creation,
/// and monotonic since.
fn described(state: &AppState, deployment: &DeploymentView<'_>, live: &Live, now_ms: u64) -> Value {
    let provider = deployment.provider();
    let mut value = json!({
        "id": deployment.id(),
        "model": deployment.model().map(|m| m.name()),
        "provider": provider.map(|p| p.id()),
        "upstream_model": deployment.upstream_model(),
        "version": deployment.version(),
        "weight": deployment.weight(),
        "enabled": deployment.enabled(),
        "addresses": provider.map(|p| p.addresses().map(|a| a.to_string()).collect::<Vec<_>>()),
        "credentials": credentials(state, provider, now_ms),
        "state": live.state,
        "reason": reason(live),
        "quota": live.quota,
        "probe": live.probed.as_ref().map(probe),
    });
    if let (Some(fields), Some(row)) = (value.as_object_mut(), &live.row) {
        fields.extend(readings(row, now_ms));
    }
    value
}

fn readings(row: &Row, now_ms: u64) -> Map<String, Value> {
    let until = (row.breaker != BreakerState::Closed).then_some(row.breaker_until_ms);
    let cooling = Some(row.cooling_until_ms).filter(|until| *until > now_ms);
    let failed: Map<String, Value> = Failure::ALL
        .into_iter()
        .zip(row.failed)
        .map(|(kind, n)| (kind.name().to_owned(), n.into()))
        .collect();
    let fields = json!({
        "breaker": {
            "state": row.breaker.name(),
            "until_ms": until,
            "retry_in_ms": until.map(|until| until.saturating_sub(now_ms)),
            "failures_in_row": row.failures_in_row,
            "opened": row.opened,
        },
        "cooling_until_ms": cooling,
        "cooling_for_ms": cooling.map(|until| until - now_ms),
        "last_failure": row.last_failure.map(|(kind, at_ms)| json!({ "kind": kind.name(), "at_ms": at_ms })),
        "recovered_ms": Some(row.recovered_ms).filter(|at| *at > 0),
        "latency_us": Some(row.latency_us).filter(|us| *us > 0),
        "in_flight": row.in_flight,
        "attempts": row.attempts,
        "failed": failed,
        "connections": {
            "idle": row.idle,
            "active": row.in_flight,
            "made": row.connected,
            "reused": row.reused,
            "tls_resumed": row.resumed,
            "failed": failed_connections(row),
        },
    });
    match fields {
        Value::Object(fields) => fields,
        _ => Map::new(),
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
fn credentials(state: &AppState, provider: Option<ProviderView<'_>>, now_ms: u64) -> Option<Vec<Value>> {
    let provider = provider.filter(|p| p.credentials().len() > 1)?;
    let region = &state.region;
    let one = |credential: CredentialView<'_>| {
        let row = region.deployment(credential_row(provider.id(), credential.id));
        let resting = row.map_or(0, |row| region.deployment_cooling_ms(row, now_ms));
        json!({
            "id": credential.id,
            "weight": credential.weight,
            "resting_for_ms": Some(resting).filter(|ms| *ms > 0),
        })
    };
    Some(provider.credentials().map(one).collect())
}

fn probe(probed: &Probed) -> Value {
    let standing = &probed.standing;
    json!({
        "kind": probed.kind.name(),
        "verdict": verdict_name(standing.verdict),
        "since_ms": standing.since_ms,
        "reason": standing.reason,
        "in_row": standing.in_row,
        "last": probed.last,
        "counts": probed.counts,
    })
}

/// The state of all deployments.
pub(super) async fn all(
    State(state): State<AppState>,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Value>, ApiError> {
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
            shown.push(described(&state, &deployment, &live, now));
        }
    }
    Ok(Json(json!({
        "generation": active.generation(),
        "now_ms": now,
        "offset": wanted.offset,
        "total": total,
        "deployments": shown,
    })))
}

/// The state of one deployment, or, with `/history` behind its id, its last probes. Ids may contain slashes.
pub(super) async fn one(
    State(state): State<AppState>,
    Path(path): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let status = state.status();
    let active = status.active().ok_or_else(no_configuration)?;
    let snapshot = active.snapshot().ok_or_else(no_configuration)?;
    let find = |id: &str| snapshot.deployments().find(|d| d.id() == id);
    let now = state.region.now_ms();
    if let Some(id) = path.strip_suffix("/history")
        && find(id).is_some()
    {
        return Ok(Json(json!({
            "id": id,
            "now_ms": now,
            "probed": state.probes.of(id).is_some(),
            "history": state.probes.history(id).unwrap_or_default(),
        })));
    }
    let deployment =
        find(&path).ok_or_else(|| ApiError::not_found(format!("there is no deployment `{path}`")))?;
    let mut value = described(&state, &deployment, &look_up(&state, &deployment, now), now);
    if let Some(fields) = value.as_object_mut() {
        fields.insert("generation".into(), active.generation().into());
        fields.insert("now_ms".into(), now.into());
    }
    Ok(Json(value))
}
