//! The admin API, `/api/v1`: JSON over HTTP for operators, the dashboard and the command line. Errors are problem
//! documents (RFC 9457). Everything but health needs the bearer token; metrics are open while the API listens on
//! loopback only.

mod auth;
mod cluster_metrics;
mod deployment_metrics;
mod deployments;
mod documents;
mod error;
mod experiments;
mod explain;
mod health;
mod inflight;
mod instance;
mod instances;
mod limits;
mod metrics;
mod requests;
mod schema;
mod tokenizers;
mod usage;
mod versions;

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware;
use axum::routing::{get, post};
use tollgate_shm::Region;

use crate::config::{ConfigSource, ConfigStatus, StatusWatch};
use crate::counting::Counting;
use crate::health::Board;
use crate::ledger::{DrainStatus, SqliteReader};
use crate::naming::Naming;
use crate::secrets::{ApiToken, Sealer};

pub use error::ApiError;

/// Most problems in one answer; their number is always told.
const MOST_PROBLEMS: usize = 500;

/// Longest body of a request to the API.
const MAX_BODY: usize = 256 << 20;

/// What handlers work with.
#[derive(Clone)]
pub struct AppState {
    /// The region.
    pub region: Arc<Region>,
    /// The configuration's state.
    pub config: StatusWatch,
    /// Where documents are written to.
    pub source: Arc<dyn ConfigSource>,
    /// The ledger.
    pub ledger: Arc<SqliteReader>,
    /// How the ledger is filled.
    pub drain: Arc<DrainStatus>,
    /// Who has it may do everything.
    pub token: ApiToken,
    /// Seals credentials in documents.
    pub sealer: Sealer,
    /// What probes found.
    pub probes: Board,
    /// What is known of limits over all instances.
    pub cluster: Arc<crate::cluster::Figures>,
    /// Tokenizers, and what was learned about them.
    pub counting: Counting,
    /// This instance among the others.
    pub naming: Naming,
    /// Whether metrics need no token.
    pub open_metrics: bool,
    /// When the daemon started.
    pub started: Instant,
}

impl AppState {
    fn status(&self) -> Arc<ConfigStatus> {
        Arc::clone(&self.config.borrow())
    }
}

/// The API as a service; tests call it without a socket.
pub fn app(state: AppState) -> Router {
    let guarded = Router::new()
        .route("/documents", get(documents::list))
        .route("/documents/validate", post(documents::check))
        .route("/documents/{name}", get(documents::read).put(documents::write))
        .route("/versions", get(versions::list).post(versions::publish))
        .route("/versions/{number}", get(versions::one))
        .route("/versions/{number}/diff", get(versions::difference))
        .route("/versions/{number}/rollback", post(versions::rollback))
        .route("/versions/{number}/documents/{name}", get(versions::document))
        .route("/schema/{kind}", get(schema::read))
        .route("/usage", get(usage::read))
        .route("/channels/{code}/limits", get(limits::of_channel))
        .route("/limits", get(limits::all))
        .route("/instance", get(instance::read))
        .route("/instances", get(instances::list))
        .route(
            "/drain",
            get(instances::draining)
                .put(instances::drain)
                .delete(instances::undrain),
        )
        .route("/deployments", get(deployments::all))
        .route("/deployments/{*id}", get(deployments::one))
        .route("/experiments", get(experiments::all))
        .route("/experiments/{name}", get(experiments::one))
        .route("/inflight", get(inflight::read))
        .route("/requests", get(requests::read))
        .route("/tokenizers", get(tokenizers::list))
        .route("/tokenizers/{name}/count", post(tokenizers::count_one))
        .route("/explain", post(explain::answer))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .route_layer(middleware::from_fn_with_state(state.clone(), auth::require));
    let mut shown = Router::new()
        .route("/metrics", get(metrics::read))
        .route("/api/v1/metrics", get(metrics::read));
    if !state.open_metrics {
        shown = shown.route_layer(middleware::from_fn_with_state(state.clone(), auth::require));
    }
    Router::new()
        .route("/api/v1/health", get(health::read))
        .nest("/api/v1", guarded)
        .merge(shown)
        .fallback(async || ApiError::not_found("there is nothing here"))
        .method_not_allowed_fallback(async || ApiError::method_not_allowed())
        .with_state(state)
}
