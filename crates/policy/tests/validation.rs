//! Every problem is found at once, and named by file, path and reason.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected should end there"
)]

mod support;

use serde_json::{Value, json};
use support::{base, compiled, parse, problems};
use tollgate_policy::{Documents, Kind, Problem, Severity, compile, schema, validate};

fn patched(pointer: &str, value: Value) -> Value {
    let mut documents = base();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = documents.pointer_mut(parent).unwrap();
    match parent {
        Value::Array(list) => list.push(value),
        parent => parent[key] = value,
    }
    documents
}

fn errors(documents: &Value) -> Vec<(String, String)> {
    let found = problems(documents).into_iter().filter(Problem::is_error);
    found.map(|problem| (problem.path, problem.reason)).collect()
}

#[test]
fn a_sound_configuration_has_warnings_at_most() {
    let problems = problems(&base());
    assert!(
        problems
            .iter()
            .all(|problem| problem.severity == Severity::Warning),
        "{problems:?}"
    );
    let paths: Vec<&str> = problems.iter().map(|problem| problem.path.as_str()).collect();
    assert_eq!(paths, ["channels[1].trusted"]);
}

/// One edit, the path that is named, a part of the reason.
#[test]
fn each_problem_is_named() {
    let cases = [
        ("/channels/0/code", json!(""), "channels[0].code", "1..=64 bytes"),
        (
            "/channels/0/code",
            json!("a\nb"),
            "channels[0].code",
            "control characters",
        ),
        (
            "/channels/0/code",
            json!("x".repeat(65)),
            "channels[0].code",
            "1..=64 bytes",
        ),
        ("/channels/0/code", json!("plain"), "channels[1].code", "already"),
        (
            "/channels/0/extends",
            json!("standart"),
            "channels[0].extends",
            "unknown template",
        ),
        ("/channels/0/keys", json!([]), "channels[0].keys", "trusted"),
        (
            "/channels/0/keys/-",
            json!({"id": "k1", "sha256": "02".repeat(32)}),
            "channels[0].keys[1].id",
            "two keys",
        ),
        (
            "/channels/0/keys/-",
            json!({"id": "k2", "sha256": "01".repeat(32)}),
            "channels[0].keys[1].sha256",
            "already",
        ),
        (
            "/channels/0/keys/0/sha256",
            json!("abc"),
            "channels[0].keys[0].sha256",
            "64 hexadecimal",
        ),
        (
            "/channels/0/keys/0/expires_at",
            json!("tomorrow"),
            "channels[0].keys[0].expires_at",
            "RFC 3339",
        ),
        (
            "/channels/0/limit",
            json!([]),
            "channels[0].limit",
            "unknown field",
        ),
        (
            "/channels/0/models/deny/-",
            json!("default"),
            "channels[0].models.deny[1]",
            "alias",
        ),
        (
            "/channels/0/limits/2/window",
            json!("90s"),
            "channels[0].limits[2].window",
            "whole minutes",
        ),
        (
            "/channels/0/limits/2/window",
            json!("0m"),
            "channels[0].limits[2].window",
            "longer than 0",
        ),
        (
            "/channels/0/limits/2/window",
            json!("10"),
            "channels[0].limits[2].window",
            "not a duration",
        ),
        (
            "/channels/0/limits/2/window",
            Value::Null,
            "channels[0].limits[2].window",
            "missing",
        ),
        (
            "/channels/0/limits/1/window",
            json!("250ms"),
            "channels[0].limits[1].window",
            "whole seconds",
        ),
        (
            "/channels/0/limits/0/window",
            json!("1m"),
            "channels[0].limits[0].window",
            "no window",
        ),
        (
            "/channels/0/limits/0/max",
            json!(-1),
            "channels[0].limits[0].max",
            "whole number",
        ),
        (
            "/channels/0/limits/0/max",
            json!(1_u64 << 63),
            "channels[0].limits[0].max",
            "0..=549755813887",
        ),
        (
            "/channels/0/limits/0/max",
            json!(1.5),
            "channels[0].limits[0].max",
            "whole number",
        ),
        (
            "/channels/0/limits/0/algorithm",
            json!("fixed_window"),
            "channels[0].limits[0].algorithm",
            "concurrency",
        ),
        (
            "/channels/0/limits/2/algorithm",
            json!("leaky_bucket"),
            "channels[0].limits[2].algorithm",
            "delays requests",
        ),
        (
            "/channels/0/limits/2/algorithm",
            json!("concurrency"),
            "channels[0].limits[2].algorithm",
            "for connections",
        ),
        (
            "/models/0/price",
            json!({ "input": 1, "output": 2, "currency": "usd" }),
            "models[0].price.currency",
            "three capital letters",
        ),
        (
            "/models/0/price",
            json!({ "input": 0.0000001, "output": 2 }),
            "models[0].price.input",
            "not an amount",
        ),
        (
            "/models/0/price",
            json!({ "input": 1, "output": 5000 }),
            "models[0].price.output",
            "at most 4000",
        ),
        (
            "/channels/0/limits/2/metric",
            json!("input_token"),
            "channels[0].limits[2].metric",
            "unknown value",
        ),
        (
            "/channels/0/limits/2/burst",
            json!(5),
            "channels[0].limits[2].burst",
            "only `token_bucket`",
        ),
        (
            "/channels/0/limits/1/max_delay",
            json!("1s"),
            "channels[0].limits[1].max_delay",
            "only `leaky_bucket`",
        ),
        (
            "/channels/0/limits/3/model",
            json!("gpt-4"),
            "channels[0].limits[3].model",
            "unknown model",
        ),
        (
            "/channels/0/limits/3/model",
            json!("default"),
            "channels[0].limits[3].model",
            "alias",
        ),
        (
            "/channels/0/limits/-",
            json!({"metric": "connections", "max": 1}),
            "channels[0].limits[4]",
            "counts the same",
        ),
        (
            "/channels/0/limits/-",
            json!({"metric": "requests", "max": 1, "window": "2s", "name": "connections"}),
            "channels[0].limits[4].name",
            "same name",
        ),
        (
            "/templates/0/extends",
            json!("standard"),
            "templates[0].extends",
            "extend each other",
        ),
        (
            "/templates/0/extends",
            json!("root"),
            "templates[0].extends",
            "extend each other",
        ),
        (
            "/templates/0/extends",
            json!("rot"),
            "templates[0].extends",
            "unknown template",
        ),
        (
            "/templates/0/name",
            json!("standard"),
            "templates[1].name",
            "already",
        ),
        ("/models/1/name", json!("default"), "models[1].name", "already"),
        (
            "/models/0/deployments",
            json!([]),
            "models[0].deployments",
            "1..=256",
        ),
        (
            "/models/0/deployments/0/provider",
            json!("open"),
            "models[0].deployments[0].provider",
            "unknown provider",
        ),
        (
            "/models/1/deployments/0/id",
            json!("spare"),
            "models[1].deployments[0].id",
            "already",
        ),
        (
            "/models/0/deployments/0/weight",
            json!(1_000_001),
            "models[0].deployments[0].weight",
            "0..=1000000",
        ),
        (
            "/models/0/default_max_tokens",
            json!(99_999),
            "models[0].default_max_tokens",
            "exceed",
        ),
        (
            "/models/0/max_body_bytes",
            json!(0),
            "models[0].max_body_bytes",
            "must be 1",
        ),
        (
            "/models/1/timeouts/idle",
            json!("0s"),
            "models[1].timeouts.idle",
            "1ms",
        ),
        (
            "/models/1/fallback/-",
            json!("qwen-max"),
            "models[1].fallback[1]",
            "its own fallback",
        ),
        (
            "/models/0/limits/0/model",
            json!("gpt-4o"),
            "models[0].limits[0].model",
            "already",
        ),
        (
            "/providers/0/base_url",
            json!("api.example.com"),
            "providers[0].base_url",
            "http",
        ),
        (
            "/providers/0/protocol",
            json!("open_ai"),
            "providers[0].protocol",
            "unknown value",
        ),
        (
            "/providers/0/credentials/key_ref",
            json!("x"),
            "providers[0].credentials",
            "only one of",
        ),
        (
            "/providers/0/credentials/keys",
            json!([{ "id": "a", "key": "k" }]),
            "providers[0].credentials",
            "only one of",
        ),
        (
            "/providers/0/credentials",
            json!({ "type": "bearer", "keys": [{ "id": "a", "key": "k" }, { "id": "a", "key": "l" }] }),
            "providers[0].credentials.keys[1].id",
            "has this id",
        ),
        (
            "/providers/0/credentials",
            json!({ "type": "bearer", "keys": [{ "id": "a", "key": "k", "key_ref": "l" }] }),
            "providers[0].credentials.keys[0]",
            "exactly one of",
        ),
        (
            "/providers/0/credentials",
            json!({ "type": "bearer", "keys": [{ "id": "a", "key": "k", "weight": 0 }] }),
            "providers[0].credentials.keys[0].weight",
            "1..=1000",
        ),
        (
            "/providers/0/connections",
            json!({ "max_requests": 0 }),
            "providers[0].connections.max_requests",
            "must be",
        ),
        (
            "/providers/0/connections",
            json!({ "idle_timeout": "10ms" }),
            "providers[0].connections.idle_timeout",
            "1s..=1h",
        ),
        (
            "/providers/1/tls",
            json!({ "min_version": "1.3" }),
            "providers[1].tls",
            "makes no difference",
        ),
        (
            "/providers/0/credentials/name",
            json!("x"),
            "providers[0].credentials.name",
            "has a name",
        ),
        (
            "/providers/1/credentials/name",
            json!("Host"),
            "providers[1].credentials.name",
            "cannot carry",
        ),
        (
            "/providers/1/tls",
            json!({"server_name": "x"}),
            "providers[1].tls",
            "makes no difference",
        ),
        (
            "/providers/1/health_check",
            json!({"path": "x", "interval": "1s"}),
            "providers[1].health_check.path",
            "begin with",
        ),
        (
            "/providers/1/health_check",
            json!({"type": "http"}),
            "providers[1].health_check.path",
            "missing",
        ),
        (
            "/providers/1/health_check",
            json!({"path": "/m/{model}"}),
            "providers[1].health_check.path",
            "needs",
        ),
        (
            "/providers/1/health_check",
            json!({"path": "/m", "expected_status": []}),
            "providers[1].health_check.expected_status",
            "empty",
        ),
        (
            "/providers/1/health_check",
            json!({"path": "/m", "method": "HEAD", "body_contains": "ok"}),
            "providers[1].health_check.body_contains",
            "no body",
        ),
        (
            "/providers/1/health_check",
            json!({"path": "/m", "max_tokens": 1}),
            "providers[1].health_check.max_tokens",
            "not `completion`",
        ),
        (
            "/providers/1/health_check",
            json!({"path": "/m", "jitter_percent": 51}),
            "providers[1].health_check.jitter_percent",
            "0..=50",
        ),
        (
            "/providers/1/health_check",
            json!({"type": "tcp", "path": "/m"}),
            "providers[1].health_check.path",
            "not `http`",
        ),
        (
            "/providers/1/health_check",
            json!({"type": "completion", "max_per_minute": 0}),
            "providers[1].health_check.max_per_minute",
            "1..=60",
        ),
        (
            "/providers/1/health_check",
            json!({"path": "/m", "timeout": "11s"}),
            "providers[1].health_check.timeout",
            "interval",
        ),
        (
            "/rules/1/name",
            json!("no huge completions"),
            "rules[1].name",
            "already",
        ),
        (
            "/rules/0/when/all/1/op",
            json!("gtt"),
            "rules[0].when.all[1].op",
            "unknown value",
        ),
        (
            "/rules/0/when/all/1/op",
            json!("cidr"),
            "rules[0].when.all[1].op",
            "cannot be asked",
        ),
        (
            "/rules/0/when/all/1/value",
            json!("many"),
            "rules[0].when.all[1].value",
            "compares numbers",
        ),
        (
            "/rules/0/when/all/0/value",
            json!(5),
            "rules[0].when.all[0].value",
            "expected a string",
        ),
        (
            "/rules/0/when/all/0/field",
            json!("headers.x"),
            "rules[0].when.all[0].field",
            "unknown field",
        ),
        (
            "/rules/0/when/all/-",
            json!({}),
            "rules[0].when.all[2]",
            "exactly one of",
        ),
        ("/rules/0/when/any", json!([]), "rules[0].when", "exactly one of"),
        (
            "/rules/0/when/all/-",
            json!({"field": "path", "op": "regex", "value": "a("}),
            "rules[0].when.all[2].value",
            "no regular expression",
        ),
        (
            "/rules/0/when/all/-",
            json!({"field": "path", "op": "regex", "value": "(\\w{1000}){1000}"}),
            "rules[0].when.all[2].value",
            "too large",
        ),
        (
            "/rules/0/when/all/-",
            json!({"field": "client.ip", "op": "cidr", "value": ["10.0.0.0/8", "10.0.0.0/99"]}),
            "rules[0].when.all[2].value.[1]",
            "prefix length",
        ),
        (
            "/rules/0/when/all/-",
            json!({"field": "time", "value": {"zone": "Mars"}}),
            "rules[0].when.all[2].value.zone",
            "zone",
        ),
        ("/rules/0/then", json!([]), "rules[0].then", "empty list"),
        ("/rules/0/then", json!({}), "rules[0].then", "does nothing"),
        (
            "/rules/0/then/deny/status",
            json!(200),
            "rules[0].then.deny.status",
            "400..=599",
        ),
        ("/rules/0/then/allow", json!(true), "rules[0].then", "both"),
        (
            "/rules/0/then/set_model",
            json!("gpt-5"),
            "rules[0].then.set_model",
            "unknown model",
        ),
        (
            "/rules/0/then/set_channel",
            json!("nobody"),
            "rules[0].then.set_channel",
            "unknown channel",
        ),
        (
            "/rules/1/template",
            json!("cap to"),
            "rules[1].template",
            "unknown rule template",
        ),
        ("/rules/1/with/cup", json!(1), "rules[1].with.cup", "no parameter"),
        (
            "/rules/1/with",
            json!({}),
            "rules[1].with",
            "needs the parameter `hours`",
        ),
        (
            "/rules/1/with/cap",
            json!("lots"),
            "rules[1].with",
            "cap_max_tokens",
        ),
        (
            "/rules/1/with/hours",
            json!("late"),
            "rules[1].with",
            "when.value.hours",
        ),
        ("/rules/1/then", json!({"tag": "x"}), "rules[1].then", "neither"),
        (
            "/rule_templates/0/then/tag",
            json!("${nope}"),
            "rule_templates[0].parameters",
            "not declared",
        ),
        (
            "/settings/channel_source",
            json!([]),
            "settings.channel_source",
            "1..=8",
        ),
        (
            "/settings/channel_source/-",
            json!({"header": "a b"}),
            "settings.channel_source[3]",
            "no name",
        ),
        (
            "/settings/channel_source/-",
            json!({"api_key": true}),
            "settings.channel_source[3]",
            "twice",
        ),
        (
            "/settings/trusted_proxies/-",
            json!("10.0.0.0/64"),
            "settings.trusted_proxies[1]",
            "prefix length",
        ),
        (
            "/settings/region",
            json!({"counters": 5}),
            "settings.region.counters",
            "must be 1024",
        ),
        (
            "/settings/min_output_reservation",
            json!(0),
            "settings.min_output_reservation",
            "1..=65536",
        ),
        (
            "/settings/api",
            json!({"listen": "localhost"}),
            "settings.api.listen",
            "address and a port",
        ),
    ];
    for (pointer, value, path, reason) in cases {
        let documents = patched(pointer, value.clone());
        let found = errors(&documents);
        assert!(
            found.iter().any(|(p, r)| p == path && r.contains(reason)),
            "{pointer} = {value}: expected `{path}` … `{reason}`, found {found:#?}"
        );
        let (parsed, mut all) = parse(&documents);
        if all.is_empty() {
            all = support::compile_with(&parsed, 1).expect_err(pointer);
        }
        let file = format!("tollgate.{}.json", path.split(['[', '.']).next().unwrap());
        assert!(
            all.iter()
                .any(|problem| problem.document == file && problem.path == path),
            "{pointer}: {all:?}"
        );
    }
}

#[test]
fn all_of_them_come_at_once() {
    let mut documents = base();
    documents["channels"][0]["limits"][0]["max"] = json!("many");
    documents["channels"][0]["limits"][2]["window"] = json!("61s");
    documents["channels"][1]["trusted"] = json!(false);
    documents["models"][0]["deployments"][0]["provider"] = json!("nobody");
    documents["rules"][0]["then"]["deny"]["status"] = json!(99);
    documents["settings"]["region"] = json!({ "workers": 0, "ringg": 1 });
    let mut paths: Vec<String> = errors(&documents).into_iter().map(|(path, _)| path).collect();
    paths.sort();
    assert_eq!(
        paths,
        [
            "channels[0].limits[0].max",
            // Named as written, although the first limit could not be decoded.
            "channels[0].limits[2].window",
            "channels[1].keys",
            "models[0].deployments[0].provider",
            "rules[0].then.deny.status",
            "settings.region.ringg",
            "settings.region.workers",
        ]
    );
}

#[test]
fn what_is_wrong_with_alerts_is_named() {
    let receiver = |more: Value| {
        let mut receiver = json!({ "name": "ops", "url": "https://example.com/hook" });
        let fields = more.as_object().unwrap().clone();
        receiver.as_object_mut().unwrap().extend(fields);
        json!({ "receivers": [receiver] })
    };
    let cases = [
        (json!({ "repeat_interval": "59s" }), "repeat_interval", "1m..=31d"),
        (
            json!({ "rules": { "error_rate": { "threshold": 101.0 } } }),
            "rules.error_rate.threshold",
            "percent",
        ),
        (
            json!({ "rules": { "model_down": { "threshold": 1.0 } } }),
            "rules.model_down.threshold",
            "has none",
        ),
        (
            json!({ "rules": { "disk_low": { "for": "25h" } } }),
            "rules.disk_low.for",
            "must be 0",
        ),
        (
            json!({ "rules": { "eror_rate": {} } }),
            "rules.eror_rate",
            "unknown field",
        ),
        (receiver(json!({ "name": "" })), "receivers[0].name", "1..=64"),
        (receiver(json!({ "name": "a/b" })), "receivers[0].name", "letters"),
        (
            receiver(json!({ "url": "ftp://x" })),
            "receivers[0].url",
            "https://",
        ),
        (
            receiver(json!({ "url": "https://user:hush@x/" })),
            "receivers[0].url",
            "no password",
        ),
        (
            receiver(json!({ "url": null })),
            "receivers[0].url",
            "`secret_url`",
        ),
        (
            receiver(json!({ "secret_url": { "key": "https://x/" } })),
            "receivers[0].secret_url",
            "one of them",
        ),
        (
            receiver(json!({ "secret": { "key": "a", "key_ref": "b" } })),
            "receivers[0].secret",
            "exactly one",
        ),
        (
            receiver(json!({ "kind": "slack", "secret": { "key": "a" } })),
            "receivers[0].secret",
            "no signature",
        ),
        (
            receiver(json!({ "rules": ["nonsense"] })),
            "receivers[0].rules[0]",
            "unknown value",
        ),
        (
            json!({ "receivers": [{ "name": "a", "url": "https://x/" }, { "name": "a", "url": "https://y/" }] }),
            "receivers[1].name",
            "already",
        ),
    ];
    for (alerts, path, reason) in cases {
        let found = errors(&patched("/settings/alerts", alerts.clone()));
        assert_eq!(found.len(), 1, "{alerts}: {found:?}");
        assert_eq!(found[0].0, format!("settings.alerts.{path}"), "{alerts}");
        assert!(
            found[0].1.contains(reason) && !found[0].1.contains("hush"),
            "{found:?}"
        );
    }
    let sound = json!({ "receivers": [{ "name": "值班", "kind": "dingtalk", "secret_url": { "key_ref": "robot" },
        "secret": { "key_ref": "robot-sign" }, "rules": ["model_down"], "min_severity": "critical" }],
        "rules": { "disk_low": { "threshold": 5, "enabled": true, "severity": "critical", "for": "1d" } } });
    assert_eq!(errors(&patched("/settings/alerts", sound)), []);
    let open = receiver(json!({ "kind": "wecom" }));
    let warned = problems(&patched("/settings/alerts", open));
    assert!(
        warned
            .iter()
            .any(|p| p.path == "settings.alerts.receivers[0].url"),
        "{warned:?}"
    );
}

#[test]
fn short_windows_are_for_tests_only() {
    let mut documents = patched("/settings/testing", json!({ "short_windows": true }));
    documents["channels"][0]["limits"][2]["window"] = json!("2s");
    assert_eq!(errors(&documents), []);
    assert!(
        problems(&documents)
            .iter()
            .any(|problem| problem.path == "settings.testing.short_windows")
    );
    documents["channels"][0]["limits"][2]["window"] = json!("1500ms");
    assert_eq!(errors(&documents).len(), 1);
}

#[test]
fn too_many_limits_on_one_request_name_the_channel() {
    let limits = |n: u64| -> Vec<Value> {
        (1..=n)
            .map(|n| json!({ "metric": "requests", "max": 1, "window": format!("{n}s") }))
            .collect()
    };
    let mut documents = base();
    // 2 inherited ones stay, 1 is global, 1 is the model's.
    documents["channels"][1] =
        json!({ "code": "busy", "trusted": true, "extends": "root", "limits": limits(13) });
    assert_eq!(errors(&documents), []);
    documents["channels"][1]["limits"] = json!(limits(14));
    let found = errors(&documents);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].0, "channels[1].limits");
    assert!(
        found[0].1.contains("17 limits") && found[0].1.contains("`busy`") && found[0].1.contains("`gpt-4o`"),
        "{found:?}"
    );
    // Limits for different models do not add up.
    let split: Vec<Value> = (1..=24)
        .map(|n| json!({ "metric": "requests", "max": 1, "window": format!("{n}s"), "model": if n % 2 == 0 { "gpt-4o" } else { "qwen-max" } }))
        .collect();
    documents["channels"][1]["limits"] = json!(split);
    assert_eq!(errors(&documents), []);
}

#[test]
fn hints_name_what_was_meant() {
    for (pointer, value, hint) in [
        ("/channels/0/limts", json!([]), "did you mean `limits`?"),
        (
            "/channels/0/extends",
            json!("standart"),
            "did you mean `standard`?",
        ),
        (
            "/channels/0/limits/2/metric",
            json!("input_token"),
            "did you mean `input_tokens`?",
        ),
        (
            "/models/0/deployments/0/provider",
            json!("opnai"),
            "did you mean `openai`?",
        ),
        (
            "/rules/0/when/all/0/field",
            json!("headers.x"),
            "did you mean `header.x`?",
        ),
    ] {
        let found = problems(&patched(pointer, value));
        assert!(
            found.iter().any(|problem| problem.hint.as_deref() == Some(hint)),
            "{hint}: {found:?}"
        );
    }
}

#[test]
fn broken_documents_are_named_and_do_not_drag_others_in() {
    let files = |channels: &str, templates: &str| {
        let files = [
            ("channels.json".to_owned(), channels.as_bytes()),
            ("tollgate.templates.json".to_owned(), templates.as_bytes()),
        ];
        let (documents, mut problems) = Documents::parse(&files);
        problems.extend(validate(&documents));
        let refused = support::compile_with(&documents, 1).is_err();
        (
            problems.into_iter().filter(Problem::is_error).collect::<Vec<_>>(),
            refused,
        )
    };
    let channel = "{\"channels\":[{\"code\":\"a\",\"trusted\":true,\"extends\":\"t\"}]}";
    let (found, refused) = files(channel, "{\n\"templates\": [}");
    assert!(refused);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(
        (found[0].document.as_str(), found[0].path.as_str()),
        ("tollgate.templates.json", "line 2 column 15")
    );
    let (found, _) = files(channel, "{\"templates\":[]}");
    assert_eq!((found.len(), found[0].path.as_str()), (1, "channels[0].extends"));
    for (text, path) in [
        ("[]", ""),
        ("{}", ""),
        ("{\"channels\":{}}", "channels"),
        ("{\"channels\":[],\"chanels\":1}", "chanels"),
        (
            "{\"channels\":[{\"code\":\"a\",\"trusted\":true,\"trusted\":true}]}",
            "channels[0].trusted",
        ),
        ("{\"channels\":[],\"channels\":[]}", "channels"),
        ("{\"channels\":[7]}", "channels[0]"),
    ] {
        let (found, refused) = files(text, "{\"templates\":[]}");
        assert!(refused, "{text}");
        assert_eq!(
            found
                .iter()
                .map(|problem| problem.path.as_str())
                .collect::<Vec<_>>(),
            [path],
            "{text}"
        );
    }
}

#[test]
fn shards_add_up_and_strange_files_are_mentioned() {
    let files = [
        (
            "tollgate.channels.a.json".to_owned(),
            &b"{\"channels\":[{\"code\":\"a\",\"trusted\":true}]}"[..],
        ),
        (
            "tollgate.channels.b.json".to_owned(),
            &b"{\"channels\":[{\"code\":\"b\",\"trusted\":true},{\"code\":\"a\",\"trusted\":true}]}"[..],
        ),
        ("tollgate.alerts.json".to_owned(), &b"{}"[..]),
        ("chanels.json".to_owned(), &b"{}"[..]),
    ];
    let (documents, mut problems) = Documents::parse(&files);
    problems.extend(validate(&documents));
    assert_eq!(documents.channels.len(), 3);
    let duplicate = problems.iter().find(|problem| problem.is_error()).unwrap();
    assert_eq!(
        (duplicate.document.as_str(), duplicate.path.as_str()),
        ("tollgate.channels.b.json", "channels[1].code")
    );
    let hints: Vec<_> = problems
        .iter()
        .filter_map(|problem| problem.hint.as_deref())
        .collect();
    let alerts = "alerts stand in the settings, as `alerts`";
    assert_eq!(hints, [alerts, "did you mean `channels`?"]);
}

#[test]
fn credentials_are_not_repeated_in_problems() {
    for credentials in [
        json!("sk-very-secret"),
        json!(["sk-very-secret"]),
        json!({ "type": "sk-very-secret" }),
        json!({ "type": "bearer", "key": ["sk-very-secret"] }),
        json!({ "type": "none", "key": "sk-very-secret" }),
        json!({ "type": "bearer", "key": "sk-very-secret\n" }),
    ] {
        let found = problems(&patched("/providers/0/credentials", credentials.clone()));
        assert!(found.iter().any(Problem::is_error), "{credentials}");
        assert!(!format!("{found:?}").contains("very-secret"), "{found:?}");
    }
    let found = problems(&patched(
        "/providers/0/base_url",
        json!("https://user:very-secret@x"),
    ));
    assert!(found.iter().any(Problem::is_error) && !format!("{found:?}").contains("very-secret"));
}

#[test]
fn statuses_of_probes_are_numbers_and_ranges() {
    let check = |statuses: Value| {
        let (documents, problems) = parse(&patched(
            "/providers/1/health_check",
            json!({"path": "/v1/models", "expected_status": statuses}),
        ));
        assert!(problems.is_empty(), "{problems:?}");
        documents.providers[1].value.health_check.clone().unwrap()
    };
    let some = check(json!([204, "300-302", "401"]));
    for (status, healthy) in [
        (200, false),
        (204, true),
        (299, false),
        (300, true),
        (302, true),
        (401, true),
    ] {
        assert_eq!(some.expects(status), healthy, "{status}");
    }
    let usual = check(Value::Null);
    for (status, healthy) in [(199, false), (200, true), (399, true), (400, false), (503, false)] {
        assert_eq!(usual.expects(status), healthy, "{status}");
    }
    for wrong in [
        json!([99]),
        json!([600]),
        json!(["300-200"]),
        json!(["2xx"]),
        json!([-1]),
        json!([2.5]),
    ] {
        let patch = json!({"path": "/", "expected_status": wrong});
        let (_, problems) = parse(&patched("/providers/1/health_check", patch));
        assert!(
            problems.iter().any(|p| p.path.contains("expected_status")),
            "{wrong}: {problems:?}"
        );
    }
}

#[test]
fn every_kind_has_a_schema_that_knows_its_fields() {
    for kind in Kind::ALL {
        let schema = schema(kind);
        assert_eq!(schema["required"], json!([kind.name()]));
        let text = schema.to_string();
        let expected = match kind {
            Kind::Channels => "expires_at",
            Kind::Models => "first_token",
            Kind::Providers => "base_url",
            Kind::Rules => "cap_max_tokens",
            Kind::Templates => "extends",
            Kind::RuleTemplates => "parameters",
            Kind::Tokenizers => "patterns",
            Kind::Settings => "trusted_proxies",
        };
        assert!(text.contains(expected), "{kind:?}");
        // No reference leads nowhere.
        for reference in text.split("\"#/$defs/").skip(1) {
            let name = reference.split('"').next().unwrap();
            assert!(schema["$defs"].get(name).is_some(), "{kind:?}: {name}");
        }
    }
}

#[test]
fn compile_refuses_what_validate_refuses() {
    assert!(compiled(&base()).is_ok());
    let (documents, _) = parse(&patched("/channels/0/extends", json!("nobody")));
    let input = tollgate_policy::CompileInput {
        generation: 1,
        created_unix_ms: 0,
        resolved: &|_| Vec::new(),
        authorities: &|_| Ok(Vec::new()),
        counting: tollgate_policy::CountingInput::default(),
        seal: &|_, _| Ok(Vec::new()),
    };
    let problems = compile(&documents, &input).unwrap_err();
    assert!(
        problems
            .iter()
            .any(|problem| problem.path == "channels[0].extends")
    );
}

#[test]
fn a_deployments_quota_is_checked_where_it_stands() {
    let mut documents = support::base();
    documents["models"][0]["deployments"][0]["limits"] = json!([
        { "metric": "requests", "max": 5, "window": "1m", "algorithm": "leaky_bucket" },
        { "metric": "input_tokens", "max": 5, "window": "7s" },
    ]);
    let problems = support::compiled(&documents).unwrap_err();
    let paths: Vec<&str> = problems
        .iter()
        .map(|p| &*p.path)
        .filter(|path| path.starts_with("models"))
        .collect();
    assert_eq!(
        paths,
        [
            "models[0].deployments[0].limits[1].window",
            "models[0].deployments[0].limits[0].algorithm"
        ]
    );
}

fn experiment() -> Value {
    json!({ "name": "shorter", "by": "header.X-User", "header": "X-Group", "groups": [
        { "name": "control", "share": 12.5 },
        { "name": "short", "share": 12.5, "cap_max_tokens": 100, "set_version": "v1" },
        { "name": "other", "share": 0.1, "set_model": "qwen-max" },
        { "name": "llama", "share": 0.1, "set_deployment": "spare" } ] })
}

#[test]
fn each_problem_of_an_experiment_is_named() {
    assert_eq!(errors(&patched("/models/0/experiment", experiment())), []);
    let cases = [
        ("/name", json!("a b"), "experiment.name", "1..=64 letters"),
        ("/by", json!("prompt"), "experiment.by", "keeps from the start"),
        ("/by", json!("session"), "experiment.by", "keeps from the start"),
        ("/by", json!("user"), "experiment.by", "none of"),
        ("/header", json!("x group"), "experiment.header", "no header name"),
        (
            "/header",
            json!("Set-Cookie"),
            "experiment.header",
            "meaning of its own",
        ),
        ("/groups", json!([]), "experiment.groups", "1..=16"),
        (
            "/groups/1/name",
            json!("control"),
            "experiment.groups[1].name",
            "two groups",
        ),
        (
            "/groups/1/name",
            json!("a=b"),
            "experiment.groups[1].name",
            "1..=64 letters",
        ),
        (
            "/groups/1/share",
            json!(0.0001),
            "experiment.groups[1].share",
            "steps of 0.001",
        ),
        (
            "/groups/1/share",
            json!(87.5),
            "experiment.groups",
            "more than 100",
        ),
        (
            "/groups/1/set_version",
            json!("v2"),
            "experiment.groups[1].set_version",
            "has the version `v2`",
        ),
        (
            "/groups/1/cap_max_tokens",
            json!(0),
            "experiment.groups[1].cap_max_tokens",
            "1 or more",
        ),
        (
            "/groups/2/set_model",
            json!("qwen"),
            "experiment.groups[2].set_model",
            "unknown model",
        ),
        (
            "/groups/3/set_deployment",
            json!("sparse"),
            "experiment.groups[3].set_deployment",
            "unknown deployment",
        ),
        (
            "/groups/3/set_deployment",
            json!("qwen-max/local"),
            "experiment.groups[3].set_deployment",
            "of `qwen-max`",
        ),
        (
            "/groups/3/set_version",
            json!("v1"),
            "experiment.groups[3].set_version",
            "leave it out",
        ),
    ];
    for (pointer, value, path, reason) in cases {
        let mut changed = experiment();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        changed.pointer_mut(parent).unwrap()[key] = value;
        let found = errors(&patched("/models/0/experiment", changed));
        assert_eq!(found.len(), 1, "{pointer}: {found:?}");
        assert_eq!(found[0].0, format!("models[0].{path}"), "{pointer}");
        assert!(found[0].1.contains(reason), "{pointer}: {}", found[0].1);
    }
    let mut twice = patched("/models/0/experiment", experiment());
    twice["models"][1]["experiment"] =
        json!({ "name": "shorter", "by": "channel", "groups": [{ "name": "all", "share": 100 }] });
    assert_eq!(errors(&twice)[0].0, "models[1].experiment.name");
}

#[test]
fn each_problem_of_a_route_is_named() {
    let cases = [
        (json!({ "model": "gpt-4o", "deployment": "spare" }), "", ""),
        (
            json!({ "model": "gpt-4o", "version": "v1", "weights": { "gpt-4o/openai": 3, "spare": 0 } }),
            "",
            "",
        ),
        (json!({ "model": "*", "fallback": [] }), "", ""),
        (json!({ "model": "*" }), "", "says neither"),
        (
            json!({ "model": "gpt-4o", "deployment": "sparse" }),
            ".deployment",
            "unknown deployment",
        ),
        (
            json!({ "model": "qwen*", "deployment": "spare" }),
            ".deployment",
            "which `qwen*` does not match",
        ),
        (
            json!({ "model": "gpt-4o", "deployment": "spare", "version": "v1" }),
            ".deployment",
            "leaves nothing",
        ),
        (
            json!({ "model": "gpt*", "version": "v2" }),
            ".version",
            "has the version",
        ),
        (
            json!({ "model": "gpt*", "version": "latest" }),
            ".version",
            "has the version",
        ),
        (
            json!({ "model": "gpt-4o", "weights": { "spare": 0 } }),
            ".weights",
            "above 0",
        ),
        (
            json!({ "model": "gpt-4o", "weights": { "spare": 1_000_001 } }),
            ".weights.spare",
            "0..=1000000",
        ),
        (
            json!({ "model": "gpt-4o", "fallback": ["qwen"] }),
            ".fallback[0]",
            "unknown model",
        ),
        (
            json!({ "model": "gpt-4o", "fallback": ["qwen-max", "qwen-max"] }),
            ".fallback[1]",
            "twice",
        ),
    ];
    for (route, path, reason) in cases {
        for (of, at) in [
            ("/channels/0/routes", "channels[0]"),
            ("/templates/1/routes", "templates[1]"),
        ] {
            let found = errors(&patched(of, json!([route])));
            if reason.is_empty() {
                assert_eq!(found, [], "{route}");
                continue;
            }
            assert_eq!(found.len(), 1, "{route}: {found:?}");
            assert_eq!(
                found[0].0.trim_end_matches('.'),
                format!("{at}.routes[0]{path}"),
                "{route}"
            );
            assert!(found[0].1.contains(reason), "{route}: {}", found[0].1);
        }
    }
}

#[test]
fn a_rule_can_only_name_a_deployment_that_is_there() {
    let rule = |then: Value| patched("/rules/-", json!({ "name": "pin", "then": then }));
    assert_eq!(errors(&rule(json!({ "set_deployment": "spare" }))), []);
    for (then, path, reason) in [
        (
            json!({ "set_deployment": "sparse" }),
            "then.set_deployment",
            "unknown deployment",
        ),
        (
            json!({ "shadow": { "set_deployment": "sparse" } }),
            "then.set_deployment",
            "unknown deployment",
        ),
        (
            json!({ "set_deployment": "spare", "set_version": "v1" }),
            "then.set_version",
            "leave it out",
        ),
    ] {
        let found = errors(&rule(then));
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].0, format!("rules[2].{path}"));
        assert!(found[0].1.contains(reason), "{}", found[0].1);
    }
    let session = |session: Value| {
        errors(&patched(
            "/models/0/routing",
            json!({ "affinity": "session", "session": session }),
        ))
    };
    assert_eq!(
        session(json!({ "lifetime": "1d", "same_site": "none", "secure": true })),
        []
    );
    assert_eq!(
        session(json!({ "lifetime": "31d" }))[0].0,
        "models[0].routing.session.lifetime"
    );
    assert_eq!(
        session(json!({ "same_site": "none" }))[0].0,
        "models[0].routing.session.same_site"
    );
}
