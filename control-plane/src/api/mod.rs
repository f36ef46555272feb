//! The admin API, `/api/v1`: JSON over HTTP for operators, the dashboard and the command line. Errors are problem
//! documents (RFC 9457).
//!
//! `routes` lists every route with its rule: `guard` applies it before the handler and writes the audit log after it,
//! `openapi` describes it. Beside it there are only `/metrics`, which is open while the API listens on loopback only,
//! and the dashboard's files.

mod accounts;
mod alert_metrics;
mod alerts;
mod audit;
mod backup;
mod cluster_metrics;
mod dashboard;
mod deployment_metrics;
mod deployments;
mod documents;
mod emergency;
mod error;
mod experiments;
mod explain;
mod extract;
mod guard;
mod health;
mod inflight;
mod instance;
mod instances;
mod latency;
mod limits;
mod live;
mod members;
mod metrics;
mod oidc;
mod openapi;
mod parts;
mod publish;
mod requests;
mod reseal;
mod resources;
mod roles;
mod route;
mod routes;
mod schedules;
mod schema;
mod series;
mod session;
mod shadow;
mod shared_metrics;
mod tokenizers;
mod tokens;
mod usage;
mod versions;

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use tokio::sync::watch;
use tollgate_shm::Region;

use crate::accounts::{Accounts, Action, CopyFigures, Resource};
use crate::alerts::AlertDesk;
use crate::audit::Audit;
use crate::backup::BackupFolder;
use crate::balancer::Balancers;
use crate::config::{ConfigSource, ConfigStatus, NacosOptions, StatusWatch};
use crate::counting::Counting;
use crate::health::Board;
use crate::ledger::{DrainStatus, SqliteReader};
use crate::naming::Naming;
use crate::oidc::SignIns;
use crate::pulse::Pulses;
use crate::schedule::Schedules;
use crate::secrets::{ApiToken, Sealer};
use crate::shared::{RecentFigures, RecentReader, Role, RumourFigures, Shared, ShippingFigures, UsageReader};

pub use error::ApiError;
pub use guard::Peer;
pub use openapi::document as openapi;
pub use resources::Indexes;
pub use routes::{Sketch, sketches};

use guard::{Guard, guard};
use route::{Access, Reach, Rule};

/// Before every route.
const BASE: &str = "/api/v1";

/// Most problems in one answer; their number is always told.
const MOST_PROBLEMS: usize = 500;

/// What handlers work with.
#[derive(Clone)]
pub struct AppState {
    /// The region.
    pub region: Arc<Region>,
    /// The configuration's state.
    pub config: StatusWatch,
    /// Where documents are written to.
    pub source: Arc<dyn ConfigSource>,
    /// Entries of documents by their ids.
    pub indexes: Indexes,
    /// The ledger.
    pub ledger: Arc<SqliteReader>,
    /// How the ledger is filled.
    pub drain: Arc<DrainStatus>,
    /// Who has it may do everything.
    pub token: ApiToken,
    /// Who else may do something.
    pub accounts: Accounts,
    /// Sign-ins at an identity provider.
    pub sign_ins: SignIns,
    /// How their copy of what is shared is.
    pub accounts_copy: Arc<CopyFigures>,
    /// What was done.
    pub audit: Audit,
    /// What will be done.
    pub schedules: Schedules,
    /// Backups that were made by themselves.
    pub backups: BackupFolder,
    /// What is wrong, and who is told.
    pub alerts: AlertDesk,
    /// What happens at this moment.
    pub pulses: Pulses,
    /// Seals credentials in documents.
    pub sealer: Sealer,
    /// What probes found.
    pub probes: Board,
    /// What is known of limits over all instances.
    pub cluster: Arc<crate::cluster::Figures>,
    /// What the instances share beside limits.
    pub shared: Shared,
    /// Usage of all instances.
    pub usage: UsageReader,
    /// How this instance's part of it is written.
    pub shipping: Arc<ShippingFigures>,
    /// The newest requests of all instances, and how this one's are written.
    pub recent: (RecentReader, Arc<RecentFigures>),
    /// What this instance is called.
    pub instance: String,
    /// Whether it was given that name.
    pub named: bool,
    /// How much the instances tell each other of deployments.
    pub rumours: Arc<RumourFigures>,
    /// Whether this instance does what one does for all.
    pub role: watch::Receiver<Role>,
    /// Tokenizers, and what was learned about them.
    pub counting: Counting,
    /// This instance among the others.
    pub naming: Naming,
    /// Where the documents are, if that is Nacos.
    pub nacos: Option<Arc<NacosOptions>>,
    /// The front balancers that follow the instances.
    pub balancers: Balancers,
    /// Whether metrics need no token.
    pub open_metrics: bool,
    /// Whether browsers reach the API through TLS only, so that they shall send cookies through nothing else.
    pub secure_cookies: bool,
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
    let mut metrics = Router::new()
        .route("/metrics", get(metrics::read))
        .route("/api/v1/metrics", get(metrics::read));
    if !state.open_metrics {
        let access = Access::May(Resource::Instance, Action::Read);
        let rule = Rule {
            access,
            reach: Reach::Everything,
            max_body: 0,
        };
        metrics = metrics.route_layer(from_fn_with_state(
            Guard {
                state: state.clone(),
                rule,
            },
            guard,
        ));
    }
    routes::all()
        .into_iter()
        .fold(Router::new(), |router, route| route.mount(router, &state))
        .merge(metrics)
        .fallback(dashboard::read)
        .method_not_allowed_fallback(async || ApiError::method_not_allowed())
        .with_state(state)
}
