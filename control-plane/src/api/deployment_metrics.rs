//! Metrics of deployments. Every series has the labels `deployment`, `model` and `provider`.

use tollgate_shm::{BreakerState, DeploymentView as Row, Failure, Verdict};

use super::AppState;
use super::deployments::{Live, failed_connections, look_up};
use super::metrics::Text;

/// Deployments that are shown; of the others only the number is told.
const MOST: usize = 2_000;

struct Shown {
    id: String,
    model: String,
    provider: String,
    live: Live,
}

impl Shown {
    fn labels(&self) -> [(&str, &str); 3] {
        [
            ("deployment", &self.id),
            ("model", &self.model),
            ("provider", &self.provider),
        ]
    }

    fn with<'a>(&'a self, label: &'a str, value: &'a str) -> [(&'a str, &'a str); 4] {
        let [a, b, c] = self.labels();
        [a, b, c, (label, value)]
    }
}

fn shown(state: &AppState) -> (Vec<Shown>, usize) {
    let status = state.status();
    let Some(snapshot) = status.active().and_then(|a| a.snapshot()) else {
        return (Vec::new(), 0);
    };
    let now = state.region.now_ms();
    let all = snapshot.deployments();
    let omitted = all.len().saturating_sub(MOST);
    let shown = all.take(MOST).map(|d| Shown {
        id: d.id().to_owned(),
        model: d.model().map_or("", |m| m.name()).to_owned(),
        provider: d.provider().map_or("", |p| p.id()).to_owned(),
        live: look_up(state, &d, now),
    });
    (shown.collect(), omitted)
}

type Reading = fn(&Row) -> Option<f64>;

/// Name, kind, help and value of what each row has one number of.
const ROWS: [(&str, &str, &str, Reading); 9] = [
    (
        "tollgate_deployment_breaker_state",
        "gauge",
        "State of the breaker: 0 closed, 1 half-open, 2 open.",
        |row| {
            Some(match row.breaker {
                BreakerState::Closed => 0.0,
                BreakerState::HalfOpen => 1.0,
                BreakerState::Open => 2.0,
            })
        },
    ),
    (
        "tollgate_deployment_breaker_opened_total",
        "counter",
        "How often the breaker has opened.",
        |row| Some(row.opened as f64),
    ),
    (
        "tollgate_deployment_failures_in_row",
        "gauge",
        "Failures since the last success.",
        |row| Some(row.failures_in_row as f64),
    ),
    (
        "tollgate_deployment_cooling_until_seconds",
        "gauge",
        "Region time until which the provider asked to be left alone; 0 if it never did.",
        |row| Some(row.cooling_until_ms as f64 / 1e3),
    ),
    (
        "tollgate_deployment_latency_seconds",
        "gauge",
        "Moving average of the time to the first byte.",
        |row| (row.latency_us > 0).then(|| row.latency_us as f64 / 1e6),
    ),
    (
        "tollgate_deployment_in_flight",
        "gauge",
        "Attempts that it serves now.",
        |row| Some(row.in_flight as f64),
    ),
    (
        "tollgate_deployment_idle_connections",
        "gauge",
        "Connections that workers keep for further requests and that serve none now.",
        |row| Some(row.idle as f64),
    ),
    (
        "tollgate_deployment_tls_resumed_total",
        "counter",
        "TLS handshakes that took up a former session.",
        |row| Some(row.resumed as f64),
    ),
    (
        "tollgate_deployment_attempts_total",
        "counter",
        "Attempts.",
        |row| Some(row.attempts as f64),
    ),
];

/// Writes the metrics of all deployments.
pub(super) fn write(text: &mut Text, state: &AppState) {
    let (shown, omitted) = shown(state);
    text.family(
        "tollgate_deployments_omitted",
        "gauge",
        "Deployments that have no series of their own because there are too many.",
    );
    text.sample("tollgate_deployments_omitted", &[], omitted);
    text.family(
        "tollgate_deployment_state",
        "gauge",
        "1, with the state: ready, trial, broken, cooling, unhealthy or disabled.",
    );
    for d in &shown {
        text.sample("tollgate_deployment_state", &d.with("state", d.live.state), 1);
    }
    for (name, kind, help, of) in ROWS {
        text.family(name, kind, help);
        for d in &shown {
            if let Some(value) = d.live.row.as_ref().and_then(of) {
                text.sample(name, &d.labels(), value);
            }
        }
    }
    let rows = || shown.iter().filter_map(|d| Some((d, d.live.row.as_ref()?)));
    text.family(
        "tollgate_deployment_failures_total",
        "counter",
        "Attempts that failed, by kind.",
    );
    for (d, row) in rows() {
        for (kind, n) in Failure::ALL.into_iter().zip(row.failed) {
            text.sample(
                "tollgate_deployment_failures_total",
                &d.with("kind", kind.name()),
                n,
            );
        }
    }
    text.family(
        "tollgate_deployment_connections_total",
        "counter",
        "Attempts by their connection: a new one, one that was there, or none that could be made.",
    );
    for (d, row) in rows() {
        for (how, n) in [
            ("made", row.connected),
            ("reused", row.reused),
            ("failed", failed_connections(row)),
        ] {
            text.sample(
                "tollgate_deployment_connections_total",
                &d.with("connection", how),
                n,
            );
        }
    }
    probes(text, state, &shown);
}

fn probes(text: &mut Text, state: &AppState, shown: &[Shown]) {
    text.family(
        "tollgate_deployment_healthy",
        "gauge",
        "1 if probes find it working, 0 if not; no series while that is not known.",
    );
    for d in shown {
        let verdict = d.live.probed.as_ref().map(|p| p.standing.verdict);
        let value = match verdict {
            Some(Verdict::Healthy) => 1,
            Some(Verdict::Unhealthy) => 0,
            Some(Verdict::Unknown) | None => continue,
        };
        text.sample("tollgate_deployment_healthy", &d.labels(), value);
    }
    // A probe of a whole provider is counted once, not once for each of its deployments.
    let all = state.probes.all();
    let targets = || all.iter().take(MOST);
    let label = |p: &crate::health::Probed| match p.deployments.as_slice() {
        [one] if p.per_deployment => one.clone(),
        _ => String::new(),
    };
    text.family(
        "tollgate_probes_total",
        "counter",
        "Probes by provider (and deployment, where each has its own) and outcome, since the target is probed.",
    );
    for p in targets() {
        let (deployment, counts) = (label(p), p.counts);
        for (outcome, n) in [
            ("passed", counts.passed),
            ("failed", counts.failed),
            ("undecided", counts.undecided),
        ] {
            let labels = [
                ("provider", &*p.provider),
                ("deployment", &deployment),
                ("outcome", outcome),
            ];
            text.sample("tollgate_probes_total", &labels, n);
        }
    }
    text.family(
        "tollgate_probe_tokens_total",
        "counter",
        "Tokens of probes that are real completions. No channel pays for them.",
    );
    for p in targets().filter(|p| p.kind == tollgate_policy::documents::ProbeKind::Completion) {
        let deployment = label(p);
        for (kind, n) in [
            ("input", p.counts.input_tokens),
            ("output", p.counts.output_tokens),
        ] {
            let labels = [
                ("provider", &*p.provider),
                ("deployment", &deployment),
                ("kind", kind),
            ];
            text.sample("tollgate_probe_tokens_total", &labels, n);
        }
    }
    text.family("tollgate_probe_seconds", "gauge", "How long the last probe took.");
    for p in targets() {
        if let Some(last) = &p.last {
            let deployment = label(p);
            let labels = [("provider", &*p.provider), ("deployment", &deployment)];
            text.sample("tollgate_probe_seconds", &labels, last.latency_us as f64 / 1e6);
        }
    }
}
