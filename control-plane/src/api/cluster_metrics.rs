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
    redis(text, state);
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

/// What is wrong with the Redis of limits over all instances, and what came of it.
fn redis(text: &mut Text, state: &AppState) {
    text.one(
        "tollgate_degraded_requests_total",
        "counter",
        "Requests decided while a lease that they needed had ended: by the policy `lease.policy`.",
        state.region.degraded_requests(),
    );
    let found = state.cluster.found().map(|found| found.trouble);
    text.family(
        "tollgate_redis_trouble",
        "gauge",
        "1 for what is wrong with Redis now.",
    );
    for (trouble, _) in state.cluster.failures_by_kind() {
        let is = u8::from(found == Some(trouble));
        text.sample("tollgate_redis_trouble", &[("kind", trouble.name())], is);
    }
    text.family(
        "tollgate_redis_failures_total",
        "counter",
        "Questions to Redis, and attempts to connect, that failed.",
    );
    for (trouble, count) in state.cluster.failures_by_kind() {
        text.sample(
            "tollgate_redis_failures_total",
            &[("kind", trouble.name())],
            count,
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
