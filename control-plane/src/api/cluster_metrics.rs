//! Metrics of what the instances share: the version in force, the server behind the documents, the others.

use super::AppState;
use super::metrics::Text;

pub(super) fn write(text: &mut Text, state: &AppState) {
    let status = state.status();
    text.one(
        "tollgate_config_version",
        "gauge",
        "Version of the documents in force; 0 for none.",
        status.version.unwrap_or(0),
    );
    text.one(
        "tollgate_draining",
        "gauge",
        "1 while this instance takes no new clients.",
        u8::from(state.region.draining()),
    );
    let members = state.naming.members();
    text.family(
        "tollgate_instances",
        "gauge",
        "Instances that are registered, by whether they have our version in force.",
    );
    let count = |same: bool| {
        let others = members.others.iter();
        others
            .filter(|m| (m.version == members.own.version) == same)
            .count()
    };
    text.sample("tollgate_instances", &[("version", "same")], 1 + count(true));
    text.sample("tollgate_instances", &[("version", "other")], count(false));
    balancers(text, state);
    let Some(health) = state.source.health() else {
        return;
    };
    text.one(
        "tollgate_nacos_up",
        "gauge",
        "Whether Nacos answered the last question.",
        u8::from(health.reachable),
    );
    text.one(
        "tollgate_nacos_requests_total",
        "counter",
        "Questions to Nacos.",
        health.requests,
    );
    text.one(
        "tollgate_nacos_failures_total",
        "counter",
        "Questions to Nacos that were not answered, or not as they should.",
        health.failures,
    );
    text.one(
        "tollgate_nacos_wait_seconds_total",
        "counter",
        "Time that answers of Nacos took.",
        health.waited_us as f64 / 1e6,
    );
    if let Some(age) = health.answered_ms_ago {
        text.one(
            "tollgate_nacos_answer_age_seconds",
            "gauge",
            "Time since Nacos last answered.",
            age as f64 / 1e3,
        );
    }
}

fn balancers(text: &mut Text, state: &AppState) {
    let states = state.balancers.states();
    if states.is_empty() {
        return;
    }
    text.family(
        "tollgate_balancer_up",
        "gauge",
        "Whether a front balancer follows the instances, by its runtime socket.",
    );
    for balancer in &*states {
        let labels = [("socket", &*balancer.socket)];
        text.sample(
            "tollgate_balancer_up",
            &labels,
            u8::from(balancer.failure.is_none()),
        );
    }
    text.family(
        "tollgate_balancer_servers",
        "gauge",
        "Instances in a front balancer, by whether their checks succeed.",
    );
    for balancer in &*states {
        for (up, word) in [(true, "up"), (false, "down")] {
            let count = balancer.servers.iter().filter(|server| server.up == up).count();
            let labels = [("socket", &*balancer.socket), ("checks", word)];
            text.sample("tollgate_balancer_servers", &labels, count);
        }
    }
}
