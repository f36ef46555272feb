//! Metrics of alerts: those that this instance answers for, so that a sum over instances counts each once.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

use super::AppState;
use super::metrics::Text;
use crate::alerts::State;

pub(super) fn write(text: &mut Text, state: &AppState) {
    let shown = state.alerts.shown();
    let mut counts: BTreeMap<(&str, &str, &str), usize> = BTreeMap::new();
    for (_, alert) in shown
        .alerts()
        .filter(|(of, _)| shown.own.iter().any(|own| own == of))
    {
        if !matches!(alert.state, State::Resolved { .. }) {
            let labels = (alert.rule.name(), alert.severity.name(), alert.state.name());
            *counts.entry(labels).or_default() += 1;
        }
    }
    text.family(
        "tollgate_alerts",
        "gauge",
        "Open alerts that this instance answers for.",
    );
    for ((rule, severity, state), count) in counts {
        let labels = [("rule", rule), ("severity", severity), ("state", state)];
        text.sample("tollgate_alerts", &labels, count);
    }
    text.family(
        "tollgate_alert_deliveries_total",
        "counter",
        "Messages to receivers of alerts; those that failed are sent again.",
    );
    let sent = state.alerts.sent();
    for (result, count) in [("accepted", &sent.accepted), ("failed", &sent.failed)] {
        let labels = [("result", result)];
        text.sample("tollgate_alert_deliveries_total", &labels, count.load(Relaxed));
    }
}
