//! Rules as operators write them, against requests.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected should end there"
)]

mod support;

use serde_json::{Value as Json, json};
use std::{borrow::Cow, net::IpAddr};
use support::compiled;
use tollgate_policy::{Decision, Deeds, Facts, RuleSet, Shadowed, Snapshot, Value};

struct Request {
    body: Json,
    paths: Vec<String>,
    ip: Option<IpAddr>,
    now: i64,
}

impl Facts for Request {
    fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        match name {
            "channelcode" => Some("wechat001".into()),
            "x-count" => Some("12".into()),
            _ => None,
        }
    }
    fn query(&self, name: &str) -> Option<Cow<'_, str>> {
        (name == "debug").then(|| "1".into())
    }
    fn cookie(&self, name: &str) -> Option<Cow<'_, str>> {
        (name == "tier").then(|| "gold".into())
    }
    fn body(&self, path_index: usize) -> Option<Value<'_>> {
        let pointer = format!("/{}", self.paths[path_index].replace('.', "/"));
        Some(match self.body.pointer(&pointer)? {
            Json::Null => Value::Null,
            Json::Bool(value) => Value::Bool(*value),
            Json::Number(value) => Value::Number(value.as_f64()?),
            Json::String(value) => Value::String(value.as_str().into()),
            _ => Value::Other,
        })
    }
    fn client_ip(&self) -> Option<IpAddr> {
        self.ip
    }
    fn method(&self) -> &str {
        "POST"
    }
    fn path(&self) -> &str {
        "/v1/chat/completions"
    }
    fn channel(&self) -> Option<&str> {
        Some("wechat001")
    }
    fn model(&self) -> Option<&str> {
        Some("gpt-4o")
    }
    fn prompt_bytes(&self) -> u64 {
        5_000
    }
    fn now_unix(&self) -> i64 {
        self.now
    }
}

fn rules(list: Json) -> RuleSet {
    let mut documents = support::base();
    documents["rules"] = list;
    let bytes = compiled(&documents).unwrap();
    RuleSet::decode(Snapshot::open(&bytes).unwrap().rules_blob()).unwrap()
}

fn request(set: &RuleSet) -> Request {
    Request {
        body: json!({ "model": "gpt-4o", "max_tokens": 5000, "stream": true, "user": null, "metadata": { "tags": ["a", "b"] },
                      "messages": [{ "role": "system", "content": "be brief" }] }),
        paths: set.body_paths().to_vec(),
        ip: Some("10.1.2.3".parse().unwrap()),
        // 2026-11-23 (a Monday) 10:00 in Shanghai.
        now: 1_795_399_200,
    }
}

fn holds(condition: Json) -> bool {
    let set = rules(json!([{ "name": "r", "when": condition, "then": { "tag": "t" } }]));
    !set.evaluate(&request(&set)).matched.is_empty()
}

#[test]
fn conditions_hold_or_not() {
    let cases = [
        ("header.ChannelCode", "matches", json!("wechat*"), true),
        ("header.channelcode", "eq", json!("wechat"), false),
        ("header.x-count", "gt", json!(11), true),
        ("header.channelcode", "gt", json!(0), false),
        ("query.debug", "eq", json!("1"), true),
        ("cookie.tier", "in", json!(["silver", "gold"]), true),
        ("cookie.tier", "in", json!(["silver"]), false),
        ("body.max_tokens", "gt", json!(4096), true),
        ("body.max_tokens", "gt", json!(5000), false),
        ("body.max_tokens", "ge", json!(5000), true),
        ("body.max_tokens", "lt", json!(5000.5), true),
        ("body.max_tokens", "le", json!(4999), false),
        ("body.max_tokens", "in", json!([1, 5000]), true),
        ("body.max_tokens", "eq", json!("5000"), false),
        ("body.stream", "eq", json!(true), true),
        ("body.user", "eq", Json::Null, true),
        ("body.user", "exists", json!(true), true),
        ("body.absent", "exists", json!(false), true),
        ("body.absent", "exists", json!(true), false),
        ("body.absent", "ne", json!(1), true),
        ("body.absent", "eq", Json::Null, false),
        ("body.absent", "lt", json!(1), false),
        ("body.messages", "exists", json!(true), true),
        ("body.messages", "ne", json!("x"), true),
        ("body.messages[0].role", "eq", json!("system"), true),
        ("body.messages.0.content", "contains", json!("brief"), true),
        ("body.messages.0.content", "contains", json!("Brief"), false),
        ("body.metadata.tags[1]", "eq", json!("b"), true),
        ("client.ip", "cidr", json!("10.0.0.0/8"), true),
        ("client.ip", "cidr", json!(["192.168.0.0/16", "10.1.2.3"]), true),
        ("client.ip", "in", json!(["10.1.2.4"]), false),
        ("client.ip", "ne", json!("10.1.2.3"), false),
        ("client.ip", "exists", json!(true), true),
        ("method", "eq", json!("POST"), true),
        ("path", "regex", json!("^/v1/(chat/)?completions$"), true),
        ("path", "regex", json!("^/v2"), false),
        ("channel", "matches", json!("wechat00?"), true),
        ("model", "ne", json!("gpt-4o"), false),
        (
            "time",
            "in",
            json!({ "hours": "09:00-18:00", "weekdays": ["mon"], "zone": "Asia/Shanghai" }),
            true,
        ),
        (
            "time",
            "in",
            json!({ "hours": "09:00-18:00", "weekdays": ["mon"] }),
            false,
        ),
    ];
    for (field, op, value, expected) in cases {
        let condition = json!({ "field": field, "op": op, "value": value });
        assert_eq!(holds(condition.clone()), expected, "{condition}");
        assert_eq!(holds(json!({ "not": condition })), !expected, "not {condition}");
        let absent = json!({ "field": "query.absent", "op": "eq", "value": "x" });
        assert_eq!(holds(json!({ "all": [condition, { "not": absent }] })), expected);
        assert_eq!(holds(json!({ "any": [absent, condition] })), expected);
    }
}

#[test]
fn an_unknown_address_is_in_no_range() {
    let set = rules(json!([
        { "name": "in", "when": { "field": "client.ip", "op": "cidr", "value": "::/0" }, "then": { "tag": "in" } },
        { "name": "ne", "when": { "field": "client.ip", "op": "ne", "value": "10.1.2.3" }, "then": { "tag": "ne" } },
        { "name": "no", "when": { "field": "client.ip", "op": "exists", "value": false }, "then": { "tag": "no" } } ]));
    let mut request = request(&set);
    request.ip = None;
    let tags: Vec<String> = set
        .evaluate(&request)
        .tags
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(tags, ["ne", "no"]);
}

#[test]
fn priority_orders_and_later_rules_see_what_earlier_ones_set() {
    let set = rules(json!([
        { "name": "c", "priority": -5, "when": { "field": "model", "op": "eq", "value": "qwen-max" }, "then": { "tag": "saw model" } },
        { "name": "a", "priority": 5, "then": [{ "set_model": "qwen-max" }, { "cap_max_tokens": 300, "tag": "x" }] },
        { "name": "b", "then": { "set_channel": "plain", "cap_max_tokens": 200, "tag": "x" } },
        { "name": "b2", "when": { "field": "channel", "op": "eq", "value": "plain" }, "then": { "cap_max_tokens": 900 } },
        { "name": "off", "enabled": false, "priority": 99, "then": { "deny": {} } }
    ]));
    let outcome = set.evaluate(&request(&set));
    let names: Vec<&str> = outcome.matched.iter().map(AsRef::as_ref).collect();
    assert_eq!(names, ["a", "b", "b2", "c"]);
    assert_eq!(outcome.decision, Decision::Continue);
    assert_eq!(
        (outcome.set_model.as_deref(), outcome.set_channel.as_deref()),
        (Some("qwen-max"), Some("plain"))
    );
    assert_eq!(outcome.cap_max_tokens, Some(200));
    assert_eq!(
        outcome.tags.iter().map(AsRef::as_ref).collect::<Vec<&str>>(),
        ["x", "saw model"]
    );
}

#[test]
fn deny_and_allow_end_the_evaluation_and_shadow_does_not() {
    let set = rules(json!([
        { "name": "shadowed", "priority": 3, "then": { "shadow": { "deny": { "status": 429, "code": "busy" } } } },
        { "name": "deny", "priority": 2, "when": { "field": "body.max_tokens", "op": "gt", "value": 4096 },
          "then": { "deny": { "status": 400, "code": "max_tokens_exceeded", "message": "at most 4096" }, "tag": "late" } },
        { "name": "allow", "priority": 1, "then": { "allow": true } },
        { "name": "never", "then": { "tag": "never" } }
    ]));
    let mut big = request(&set);
    let outcome = set.evaluate(&big);
    assert_eq!(
        outcome.decision,
        Decision::Deny {
            rule: "deny".into(),
            status: 400,
            code: "max_tokens_exceeded".into(),
            message: "at most 4096".into()
        }
    );
    let hit = Shadowed {
        rule: "shadowed".into(),
        actions: ["deny 429 busy".into()].into(),
        deeds: Deeds::DENY,
    };
    assert_eq!(outcome.shadow, [hit]);
    assert_eq!(outcome.tags, ["late".into()]);
    big.body["max_tokens"] = json!(10);
    let (outcome, traces) = set.explain(&big);
    assert_eq!(outcome.decision, Decision::Allow { rule: "allow".into() });
    assert_eq!(outcome, set.evaluate(&big));
    let traces: Vec<_> = traces
        .iter()
        .map(|t| (&*t.rule, t.matched, t.failed.as_deref()))
        .collect();
    assert_eq!(
        traces,
        [
            ("shadowed", Some(true), None),
            ("deny", Some(false), Some("body.max_tokens gt 4096")),
            ("allow", Some(true), None),
            ("never", None, None),
        ]
    );
}

#[test]
fn templates_are_filled_in() {
    let bytes = compiled(&support::base()).unwrap();
    let set = RuleSet::decode(Snapshot::open(&bytes).unwrap().rules_blob()).unwrap();
    assert_eq!(
        (set.len(), set.header_names(), set.body_paths()),
        (2, &["channelcode".to_owned()][..], &["max_tokens".to_owned()][..])
    );
    let mut night = request(&set);
    night.body["max_tokens"] = json!(1);
    night.now = "2026-11-23T23:00:00Z"
        .parse::<jiff::Timestamp>()
        .unwrap()
        .as_second();
    let outcome = set.evaluate(&night);
    assert_eq!(
        (outcome.cap_max_tokens, outcome.tags),
        (Some(256), vec!["cap-256".into()])
    );
}

#[test]
fn damaged_rules_are_an_error() {
    for blob in [
        "{",
        "[{}]",
        "[{\"name\":\"r\",\"priority\":0,\"then\":[{\"tag\":\"\"}]}]",
        "7",
    ] {
        assert!(RuleSet::decode(blob.as_bytes()).is_err(), "{blob}");
    }
}

#[test]
fn long_prompts_go_to_another_version() {
    let set = rules(json!([
        { "name": "long", "priority": 2, "when": { "field": "prompt_bytes", "op": "gt", "value": 4_096 },
          "then": { "set_version": "long-context" } },
        { "name": "longer", "priority": 1, "when": { "field": "prompt_bytes", "op": "gt", "value": 5_000 },
          "then": { "set_version": "never" } },
    ]));
    let outcome = set.evaluate(&request(&set));
    assert_eq!(outcome.set_version.as_deref(), Some("long-context"));
}

#[test]
fn the_last_word_on_model_version_and_deployment_counts() {
    let set = rules(json!([
        { "name": "a", "priority": 3, "then": { "set_version": "v1" } },
        { "name": "b", "priority": 2, "then": { "set_deployment": "spare" } },
    ]));
    let outcome = set.evaluate(&request(&set));
    assert_eq!(
        (outcome.set_version, outcome.set_deployment.as_deref()),
        (None, Some("spare"))
    );
    let set = rules(json!([
        { "name": "b", "priority": 2, "then": { "set_deployment": "spare" } },
        { "name": "c", "priority": 1, "then": { "set_model": "qwen-max", "set_version": "v2" } },
        { "name": "d", "priority": 0, "then": { "shadow": { "set_deployment": "spare" } } },
    ]));
    let outcome = set.evaluate(&request(&set));
    assert_eq!(
        (outcome.set_version.as_deref(), outcome.set_deployment),
        (Some("v2"), None)
    );
    assert_eq!(&*outcome.shadow[0].actions[0], "set_deployment spare");
}

#[test]
fn a_rule_in_shadow_mode_is_one_hit_with_all_its_deeds() {
    let set = rules(json!([
        { "name": "both", "priority": 2, "then": [
            { "shadow": [{ "tag": "x" }, { "set_model": "qwen-max" }] },
            { "tag": "real" },
            { "shadow": { "deny": { "status": 400, "code": "no" } } } ] },
        { "name": "none", "priority": 1, "when": { "field": "channel", "op": "eq", "value": "nobody" },
          "then": { "shadow": { "allow": true } } },
    ]));
    let outcome = set.evaluate(&request(&set));
    assert_eq!(outcome.decision, Decision::Continue);
    assert_eq!((outcome.tags.len(), outcome.set_model), (1, None));
    let [hit] = &outcome.shadow[..] else {
        panic!("{:?}", outcome.shadow)
    };
    let actions: Vec<&str> = hit.actions.iter().map(AsRef::as_ref).collect();
    assert_eq!(
        (&*hit.rule, &actions[..]),
        ("both", &["tag x", "set_model qwen-max", "deny 400 no"][..])
    );
    assert_eq!(hit.deeds, Deeds::TAG.and(Deeds::SET_MODEL).and(Deeds::DENY));
    assert!(hit.deeds.has(Deeds::DENY) && !hit.deeds.has(Deeds::ALLOW));
}
