//! Metrics for Prometheus (text exposition format 0.0.4).

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::Ordering::Relaxed;

use axum::extract::{Query, State};
use axum::http::{HeaderName, header};
use serde::Deserialize;
use tollgate_shm::{Class, HISTOGRAM_BUCKETS, UsageTotals, bucket_upper_us};

use super::AppState;
use crate::process::{Resources, resources};

/// Above so many rows of usage, channels are added up unless all are asked for.
const MOST_ROWS: usize = 2_000;
const TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How much detail.
#[derive(Debug, Deserialize)]
pub(super) struct Wanted {
    /// `auto` (by channel up to 2,000 rows of usage), `all`, `none`.
    #[serde(default)]
    channels: Channels,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Channels {
    #[default]
    Auto,
    All,
    None,
}

/// Metrics being written.
#[derive(Default)]
pub(super) struct Text(String);

impl Text {
    pub(super) fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    pub(super) fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        self.0.push_str(name);
        for (i, (label, text)) in labels.iter().enumerate() {
            self.0.push(if i == 0 { '{' } else { ',' });
            let _ = write!(self.0, "{label}=\"");
            for c in text.chars() {
                match c {
                    '\\' => self.0.push_str("\\\\"),
                    '"' => self.0.push_str("\\\""),
                    '\n' => self.0.push_str("\\n"),
                    c => self.0.push(c),
                }
            }
            self.0.push('"');
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }

    pub(super) fn one(&mut self, name: &str, kind: &str, help: &str, value: impl std::fmt::Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }
}

fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

fn add(to: &mut UsageTotals, from: &UsageTotals) {
    for (a, b) in to.classes.iter_mut().zip(from.classes) {
        *a += b;
    }
    to.input_tokens += from.input_tokens;
    to.output_tokens += from.output_tokens;
    to.cached_tokens += from.cached_tokens;
    to.reasoning_tokens += from.reasoning_tokens;
    to.estimated_tokens += from.estimated_tokens;
    to.counted_tokens += from.counted_tokens;
    to.debt_tokens += from.debt_tokens;
    to.bill += from.bill;
    to.cost += from.cost;
    to.suspicious += from.suspicious;
    to.latency_us_sum += from.latency_us_sum;
    for (to, from) in [
        (&mut to.latency, &from.latency),
        (&mut to.first_token, &from.first_token),
    ] {
        to.resize(HISTOGRAM_BUCKETS, 0);
        for (a, b) in to.iter_mut().zip(from) {
            *a += b;
        }
    }
}

type Rows = BTreeMap<(String, String), UsageTotals>;

fn usage(text: &mut Text, rows: &Rows) {
    text.family(
        "tollgate_requests_total",
        "counter",
        "Requests by channel, model and how they ended.",
    );
    for ((channel, model), t) in rows {
        for (class, n) in Class::ALL.into_iter().zip(t.classes).filter(|(_, n)| *n > 0) {
            let labels = [("channel", &**channel), ("model", model), ("class", class.name())];
            text.sample("tollgate_requests_total", &labels, n);
        }
    }
    text.family(
        "tollgate_tokens_total",
        "counter",
        "Tokens charged by channel, model and kind.",
    );
    for ((channel, model), t) in rows {
        let kinds = [
            ("input", t.input_tokens),
            ("output", t.output_tokens),
            ("cached", t.cached_tokens),
            ("reasoning", t.reasoning_tokens),
            ("estimated", t.estimated_tokens),
            ("counted", t.counted_tokens),
            ("debt", t.debt_tokens),
        ];
        for (kind, n) in kinds.into_iter().filter(|(_, n)| *n > 0) {
            let labels = [("channel", &**channel), ("model", model), ("kind", kind)];
            text.sample("tollgate_tokens_total", &labels, n);
        }
    }
    for (name, help, of) in [
        (
            "tollgate_bill_micro_total",
            "What channels pay, in millionths of the currency's unit.",
            (|t| t.bill) as fn(&UsageTotals) -> u64,
        ),
        (
            "tollgate_cost_micro_total",
            "What providers take, in millionths of the currency's unit.",
            |t| t.cost,
        ),
    ] {
        text.family(name, "counter", help);
        for ((channel, model), t) in rows.iter().filter(|(_, t)| of(t) > 0) {
            text.sample(name, &[("channel", &**channel), ("model", model)], of(t));
        }
    }
    let suspicious: u64 = rows.values().map(|t| t.suspicious).sum();
    text.one(
        "tollgate_suspicious_usage_total",
        "counter",
        "Answers whose reported usage contradicted our count.",
        suspicious,
    );
}

/// Histograms by model: buckets are two per doubling, which is finer than dashboards need; every second one is shown.
fn histograms(text: &mut Text, rows: &Rows) {
    let mut models: BTreeMap<&str, UsageTotals> = BTreeMap::new();
    for ((_, model), totals) in rows {
        add(models.entry(model).or_default(), totals);
    }
    type Buckets = fn(&UsageTotals) -> &[u64];
    let families: [(&str, &str, Buckets); 2] = [
        (
            "tollgate_request_duration_seconds",
            "Time from the request to the end of the answer.",
            |t| &t.latency,
        ),
        (
            "tollgate_first_byte_seconds",
            "Time from the request to the first byte of the answer.",
            |t| &t.first_token,
        ),
    ];
    for (name, help, of) in families {
        text.family(name, "histogram", help);
        for (model, totals) in &models {
            let mut sum = 0;
            for (bucket, n) in of(totals).iter().enumerate() {
                sum += n;
                if bucket % 2 == 0 && bucket + 1 < HISTOGRAM_BUCKETS {
                    let le = seconds(bucket_upper_us(bucket)).to_string();
                    text.sample(&format!("{name}_bucket"), &[("model", model), ("le", &le)], sum);
                }
            }
            text.sample(
                &format!("{name}_bucket"),
                &[("model", model), ("le", "+Inf")],
                sum,
            );
            text.sample(&format!("{name}_count"), &[("model", model)], sum);
            if name == "tollgate_request_duration_seconds" {
                let total = seconds(totals.latency_us_sum);
                text.sample(&format!("{name}_sum"), &[("model", model)], total);
            }
        }
    }
}

fn region(text: &mut Text, state: &AppState) {
    let region = &state.region;
    let sizes = region.sizes();
    text.family(
        "tollgate_region_capacity",
        "gauge",
        "Rows that a table of the region has.",
    );
    for (table, n) in [
        ("counters", sizes.counters),
        ("inflight", sizes.inflight),
        ("ring", sizes.ring),
        ("usage", sizes.usage),
    ] {
        text.sample("tollgate_region_capacity", &[("table", table)], n);
    }
    for (name, n) in region.gauges() {
        let (kind, unit) = if name.ends_with("_used") {
            ("gauge", "")
        } else {
            ("counter", "_total")
        };
        let help = "See the gauge's name; used rows are never freed while the region lives.";
        text.one(&format!("tollgate_region_{name}{unit}"), kind, help, n);
    }
    text.one(
        "tollgate_region_bytes",
        "gauge",
        "Size of the region.",
        region.len_bytes(),
    );
    text.one(
        "tollgate_requests_in_flight",
        "gauge",
        "Requests being served now.",
        region.inflight(usize::MAX).len(),
    );
    text.one(
        "tollgate_ring_depth",
        "gauge",
        "Events that wait for the ledger.",
        region.ring_depth(),
    );
    text.one(
        "tollgate_ring_dropped_total",
        "counter",
        "Events lost to full rings; their usage is booked all the same.",
        region.events_dropped(),
    );
}

fn daemon(text: &mut Text, state: &AppState) {
    for (name, kind, help, value) in state.cluster.all() {
        text.one(name, kind, help, value);
    }
    let status = state.status();
    let (errors, warnings) = status.counts();
    text.one(
        "tollgate_generation",
        "gauge",
        "Generation of the configuration in force.",
        state.region.generation(),
    );
    text.one(
        "tollgate_documents_in_force",
        "gauge",
        "1 if the documents as they are now are in force.",
        u8::from(status.in_force),
    );
    text.family("tollgate_config_problems", "gauge", "Problems of the documents.");
    text.sample("tollgate_config_problems", &[("severity", "error")], errors);
    text.sample("tollgate_config_problems", &[("severity", "warning")], warnings);
    text.one(
        "tollgate_ledger_events_total",
        "counter",
        "Events booked.",
        state.drain.events.load(Relaxed),
    );
    text.one(
        "tollgate_ledger_commits_total",
        "counter",
        "Batches committed.",
        state.drain.commits.load(Relaxed),
    );
    text.one(
        "tollgate_ledger_failures_total",
        "counter",
        "Batches that could not be committed; they are tried again.",
        state.drain.failures.load(Relaxed),
    );
    text.one(
        "tollgate_daemon_uptime_seconds",
        "gauge",
        "Age of the daemon.",
        state.started.elapsed().as_secs_f64(),
    );
    text.family("tollgate_build_info", "gauge", "Version of the daemon.");
    text.sample(
        "tollgate_build_info",
        &[("version", env!("CARGO_PKG_VERSION"))],
        1,
    );
}

fn processes(text: &mut Text, state: &AppState) {
    let region = &state.region;
    let workers = region.workers();
    let alive = workers.iter().filter(|w| w.alive).count();
    text.one(
        "tollgate_workers",
        "gauge",
        "Worker processes that are attached and alive.",
        alive,
    );
    let behind = workers
        .iter()
        .filter(|w| w.alive && w.generation != region.generation())
        .count();
    text.one(
        "tollgate_workers_behind",
        "gauge",
        "Workers that have not had a request since the last generation.",
        behind,
    );
    text.family(
        "tollgate_worker_panics_total",
        "counter",
        "Panics that an entry point caught.",
    );
    text.family("tollgate_worker_requests_total", "counter", "Requests decided.");
    for w in &workers {
        let slot = w.slot.to_string();
        text.sample("tollgate_worker_panics_total", &[("slot", &slot)], w.panics);
        text.sample("tollgate_worker_requests_total", &[("slot", &slot)], w.requests);
    }
    let all = std::iter::once(("daemon", String::new(), std::process::id()))
        .chain(workers.iter().map(|w| ("worker", w.slot.to_string(), w.pid)));
    let seen: Vec<(&str, String, Resources)> = all
        .filter_map(|(r, s, pid)| Some((r, s, resources(pid)?)))
        .collect();
    type Reading = fn(&Resources) -> Option<f64>;
    let families: [(&str, &str, &str, Reading); 4] = [
        (
            "tollgate_process_cpu_seconds_total",
            "counter",
            "Processor time, user and system.",
            |r| Some(r.cpu_seconds),
        ),
        (
            "tollgate_process_resident_bytes",
            "gauge",
            "Resident memory.",
            |r| Some(r.resident_bytes as f64),
        ),
        ("tollgate_process_open_fds", "gauge", "Open descriptors.", |r| {
            r.descriptors.map(|n| n as f64)
        }),
        ("tollgate_process_threads", "gauge", "Threads.", |r| {
            Some(r.threads as f64)
        }),
    ];
    for (name, kind, help, of) in families {
        text.family(name, kind, help);
        for (role, slot, resources) in &seen {
            if let Some(value) = of(resources) {
                text.sample(name, &[("role", role), ("slot", slot)], value);
            }
        }
    }
}

/// All metrics.
pub(super) async fn read(
    State(state): State<AppState>,
    Query(wanted): Query<Wanted>,
) -> ([(HeaderName, &'static str); 1], String) {
    let all = state.region.all_usage();
    let by_channel = match wanted.channels {
        Channels::All => true,
        Channels::None => false,
        Channels::Auto => all.len() <= MOST_ROWS,
    };
    let mut rows = Rows::new();
    for (_, totals) in all {
        let channel = if by_channel {
            totals.channel.clone()
        } else {
            String::new()
        };
        add(rows.entry((channel, totals.model.clone())).or_default(), &totals);
    }
    let mut text = Text::default();
    usage(&mut text, &rows);
    histograms(&mut text, &rows);
    region(&mut text, &state);
    processes(&mut text, &state);
    super::deployment_metrics::write(&mut text, &state);
    super::cluster_metrics::write(&mut text, &state);
    super::shared_metrics::write(&mut text, &state);
    super::alert_metrics::write(&mut text, &state);
    daemon(&mut text, &state);
    ([(header::CONTENT_TYPE, TYPE)], text.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        let mut text = Text::default();
        text.sample("a", &[("x", "q\"b\\n\n"), ("y", "渠道")], 1.5);
        text.sample("b", &[], 2);
        assert_eq!(text.0, "a{x=\"q\\\"b\\\\n\\n\",y=\"渠道\"} 1.5\nb 2\n");
    }
}
