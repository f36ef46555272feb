//! The state machine of alerts, and what receivers are sent.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tollgate_policy::documents::{AlertReceiver, AlertRuleName, AlertSeverity, Alerts, ReceiverKind};

use super::book::{MOST_OPEN, MOST_TOLD};
use super::*;

const SECOND: u64 = 1_000;
const T: u64 = 1_000_000_000;

fn settings(value: Value) -> Alerts {
    serde_json::from_value(value).unwrap()
}

/// One receiver, rules without patience unless the test says otherwise.
fn plain(rules: Value) -> Alerts {
    settings(json!({ "repeat_interval": "1h", "rules": rules,
        "receivers": [{ "name": "ops", "url": "http://127.0.0.1:1/" }] }))
}

fn down(value: f64) -> Reading {
    let labels = [("deployment", "m/p")];
    Reading::new(AlertRuleName::DeploymentDown, &labels, value, "it is down".into())
}

fn errors(percent: f64) -> Reading {
    let labels = [("model", "m")];
    Reading::new(
        AlertRuleName::ErrorRate,
        &labels,
        percent,
        format!("{percent} % failed"),
    )
}

struct Bench {
    book: Book,
    settings: Alerts,
    marks: Marks,
    now: u64,
}

impl Bench {
    fn new(settings: Alerts) -> Bench {
        Bench {
            book: Book::default(),
            settings,
            marks: Marks::default(),
            now: T,
        }
    }

    /// Time passes, and then this is found.
    fn after(&mut self, seconds: u64, readings: &[Reading]) -> Vec<&'static str> {
        self.look(seconds, readings, true)
    }

    fn look(&mut self, seconds: u64, readings: &[Reading], complete: bool) -> Vec<&'static str> {
        self.now += seconds * SECOND;
        self.book.take(&Look {
            readings,
            settings: &self.settings,
            complete,
            now_ms: self.now,
        });
        self.book.alerts.iter().map(|alert| alert.state.name()).collect()
    }

    fn receiver(&self) -> &AlertReceiver {
        &self.settings.receivers[0]
    }

    /// What the receiver is to be told.
    fn due(&self) -> Vec<Notice> {
        let due = self
            .book
            .due(self.receiver(), &self.settings, &self.marks, (false, self.now));
        due.into_iter().map(|(_, notice)| notice).collect()
    }

    /// The receiver is told what it is to be told.
    fn tell(&mut self, outcome: Result<(), String>) -> Vec<Notice> {
        let receiver = self.receiver().clone();
        let due = self
            .book
            .due(&receiver, &self.settings, &self.marks, (false, self.now));
        let notices: Vec<(String, Notice)> = due
            .iter()
            .map(|(index, notice)| (self.book.alerts[*index].id.clone(), *notice))
            .collect();
        self.book.told(&receiver.name, &notices, &outcome, self.now);
        due.into_iter().map(|(_, notice)| notice).collect()
    }

    /// What a restart leaves: the book as it was kept.
    fn restart(&mut self) {
        let text = serde_json::to_vec(&self.book).unwrap();
        self.book = serde_json::from_slice(&text).unwrap();
    }
}

#[test]
fn something_must_last_before_it_fires_and_be_over_for_a_while_before_it_ends() {
    let mut bench = Bench::new(plain(
        json!({ "deployment_down": { "for": "30s", "clear_after": "60s" } }),
    ));
    assert_eq!(bench.after(0, &[down(1.0)]), ["pending"]);
    assert_eq!(bench.after(29, &[down(1.0)]), ["pending"]);
    assert!(bench.due().is_empty(), "nobody is told of what is pending");
    assert_eq!(bench.after(1, &[down(1.0)]), ["firing"]);
    assert_eq!(bench.tell(Ok(())), [Notice::Firing(0)]);
    assert_eq!(bench.after(10, &[]), ["firing"]);
    assert_eq!(bench.after(59, &[]), ["firing"]);
    assert_eq!(bench.after(1, &[]), ["resolved"]);
    assert_eq!(bench.tell(Ok(())), [Notice::Resolved]);
    assert!(bench.due().is_empty());
    // The next time is another alert.
    let first = bench.book.alerts[0].id.clone();
    bench.after(1, &[down(1.0)]);
    assert_ne!(bench.book.alerts[1].id, first);
}

#[test]
fn what_is_over_before_it_lasted_is_nothing() {
    let mut bench = Bench::new(plain(json!({ "deployment_down": { "for": "30s" } })));
    assert_eq!(bench.after(0, &[down(1.0)]), ["pending"]);
    assert!(bench.after(20, &[]).is_empty());
    assert_eq!(bench.after(20, &[down(1.0)]), ["pending"], "it begins anew");
    // A breaker that tries a request now and then is neither well nor a new trouble.
    assert_eq!(bench.after(20, &[down(Reading::UNDECIDED)]), ["pending"]);
    assert_eq!(bench.after(10, &[down(Reading::UNDECIDED)]), ["firing"]);
    let mut other = Bench::new(plain(json!({})));
    assert!(other.after(0, &[down(Reading::UNDECIDED)]).is_empty());
}

#[test]
fn a_value_that_swings_around_the_threshold_tells_once() {
    let rules = json!({ "error_rate": { "threshold": 10.0, "for": "0s", "clear_after": "60s" } });
    let mut bench = Bench::new(plain(rules));
    assert!(bench.after(0, &[errors(9.9)]).is_empty());
    assert_eq!(bench.after(1, &[errors(10.0)]), ["firing"]);
    assert_eq!(bench.tell(Ok(())), [Notice::Firing(0)]);
    for _ in 0..100 {
        // Near the threshold nothing ends, and below it only what stays there.
        assert_eq!(bench.after(70, &[errors(9.1)]), ["firing"]);
        assert_eq!(bench.after(30, &[errors(2.0)]), ["firing"]);
        assert_eq!(bench.after(30, &[errors(11.0)]), ["firing"]);
        let alert = &bench.book.alerts[0];
        assert!(matches!(alert.state, State::Firing { clear_ms: None, .. }));
    }
    let told = &bench.book.alerts[0].told["ops"];
    assert_eq!((told.firing, told.resolved), (1, false));
    bench.after(1, &[errors(8.9)]);
    assert_eq!(bench.after(60, &[errors(8.9)]), ["resolved"]);
}

#[test]
fn values_that_are_too_low_work_the_other_way_round() {
    let mut bench = Bench::new(plain(
        json!({ "disk_low": { "threshold": 10.0, "for": "0s", "clear_after": "0s" } }),
    ));
    let free = |percent| Reading::new(AlertRuleName::DiskLow, &[], percent, String::new());
    assert!(bench.after(0, &[free(10.1)]).is_empty());
    assert_eq!(bench.after(1, &[free(10.0)]), ["firing"]);
    assert_eq!(bench.after(1, &[free(11.1)]), ["firing"]);
    assert_eq!(bench.after(1, &[free(11.2)]), ["resolved"]);
}

#[test]
fn a_restart_neither_forgets_nor_tells_again() {
    let rules = json!({ "deployment_down": { "for": "30s", "clear_after": "0s" } });
    let mut bench = Bench::new(plain(rules));
    bench.after(0, &[down(1.0)]);
    bench.restart();
    assert_eq!(
        bench.after(30, &[down(1.0)]),
        ["firing"],
        "what was pending has lasted"
    );
    assert_eq!(bench.tell(Ok(())), [Notice::Firing(0)]);
    let id = bench.book.alerts[0].id.clone();
    bench.restart();
    // Just after a start not everything is known: nothing ends.
    assert_eq!(bench.look(1, &[], false), ["firing"]);
    assert_eq!(bench.look(1, &[down(1.0)], false), ["firing"]);
    assert!(bench.due().is_empty());
    assert_eq!(bench.after(1, &[]), ["resolved"]);
    bench.restart();
    assert_eq!(bench.tell(Ok(())), [Notice::Resolved]);
    bench.restart();
    assert!(bench.due().is_empty());
    assert_eq!(bench.book.alerts[0].id, id);
}

#[test]
fn a_receiver_that_fails_is_told_until_it_takes_it_and_then_never_again() {
    let mut bench = Bench::new(plain(
        json!({ "deployment_down": { "for": "0s", "clear_after": "0s" } }),
    ));
    bench.after(0, &[down(1.0)]);
    for _ in 0..3 {
        assert_eq!(bench.tell(Err("answered 500".into())), [Notice::Firing(0)]);
        bench.after(1, &[down(1.0)]);
    }
    let delivery = &bench.book.deliveries["ops"];
    assert_eq!((delivery.failures, delivery.error.as_str()), (3, "answered 500"));
    assert_eq!(bench.tell(Ok(())), [Notice::Firing(0)]);
    assert!(bench.due().is_empty());
    let delivery = &bench.book.deliveries["ops"];
    assert_eq!((delivery.failures, delivery.error.as_str()), (0, ""));

    // Of what began and ended while it could not be reached it is told that it was.
    bench.after(1, &[]);
    bench.tell(Ok(()));
    bench.after(1, &[down(1.0)]);
    bench.tell(Err("answered 500".into()));
    bench.after(1, &[]);
    assert_eq!(bench.tell(Ok(())), [Notice::Resolved]);
}

#[test]
fn what_lasts_is_told_again_unless_somebody_looks_at_it() {
    let mut bench = Bench::new(plain(json!({ "deployment_down": { "for": "0s" } })));
    bench.after(0, &[down(1.0)]);
    bench.tell(Ok(()));
    bench.after(3_599, &[down(1.0)]);
    assert!(bench.due().is_empty());
    bench.after(1, &[down(1.0)]);
    assert_eq!(bench.tell(Ok(())), [Notice::Firing(1)]);
    let ack = Ack {
        by: "mia".into(),
        at_ms: bench.now,
        comment: String::new(),
    };
    bench.marks.acks.insert(bench.book.alerts[0].id.clone(), ack);
    bench.after(3_600, &[down(1.0)]);
    assert!(bench.due().is_empty());
    bench.after(0, &[]);
    bench.after(3_600, &[]);
    assert_eq!(bench.due(), [Notice::Resolved], "that it is over is told");
}

#[test]
fn a_silence_holds_back_and_what_lasts_longer_is_told_then() {
    let mut bench = Bench::new(plain(
        json!({ "deployment_down": { "for": "0s", "clear_after": "0s" } }),
    ));
    let silence = |rule, labels: &[(&str, &str)]| Silence {
        id: "s".into(),
        rule,
        labels: labels.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect(),
        starts_ms: T,
        ends_ms: T + 100 * SECOND,
        comment: String::new(),
        by: String::new(),
    };
    bench.after(0, &[down(1.0)]);
    for (rule, labels, covers) in [
        (None, vec![], true),
        (Some(AlertRuleName::DeploymentDown), vec![], true),
        (Some(AlertRuleName::ErrorRate), vec![], false),
        (None, vec![("deployment", "m/*")], true),
        (None, vec![("deployment", "n/*")], false),
        (None, vec![("channel", "*c")], false),
    ] {
        bench.marks.silences = vec![silence(rule, &labels)];
        assert_eq!(bench.due().is_empty(), covers, "{rule:?} {labels:?}");
    }
    bench.marks.silences = vec![silence(None, &[])];
    // What begins and ends in silence is told to nobody.
    bench.after(1, &[]);
    assert!(bench.due().is_empty());
    bench.after(1, &[down(1.0)]);
    bench.after(97, &[down(1.0)]);
    assert!(bench.due().is_empty());
    bench.after(1, &[down(1.0)]);
    assert_eq!(bench.due(), [Notice::Firing(0)]);
}

#[test]
fn receivers_hear_of_what_they_asked_for() {
    let mut bench = Bench::new(settings(json!({
        "rules": { "deployment_down": { "for": "0s", "severity": "info" }, "error_rate": { "for": "0s" } },
        "receivers": [
            { "name": "all", "url": "http://127.0.0.1:1/" },
            { "name": "bad", "url": "http://127.0.0.1:1/", "min_severity": "warning" },
            { "name": "one", "url": "http://127.0.0.1:1/", "rules": ["deployment_down"] },
        ] })));
    bench.after(0, &[down(1.0), errors(50.0)]);
    let told = |index: usize| -> Vec<AlertRuleName> {
        let receiver = &bench.settings.receivers[index];
        let due = bench
            .book
            .due(receiver, &bench.settings, &bench.marks, (false, bench.now));
        due.iter().map(|(at, _)| bench.book.alerts[*at].rule).collect()
    };
    assert_eq!(told(0).len(), 2);
    assert_eq!(told(1), [AlertRuleName::ErrorRate]);
    assert_eq!(told(2), [AlertRuleName::DeploymentDown]);
    let quiet = bench.book.due(
        &bench.settings.receivers[0],
        &bench.settings,
        &bench.marks,
        (true, bench.now),
    );
    assert!(quiet.is_empty(), "maintenance");
}

#[test]
fn a_rule_that_is_switched_off_ends_what_it_found() {
    let mut bench = Bench::new(plain(json!({ "deployment_down": { "for": "0s" } })));
    bench.after(0, &[down(1.0)]);
    bench.tell(Ok(()));
    bench.settings = plain(json!({ "deployment_down": { "enabled": false } }));
    assert_eq!(bench.after(1, &[down(1.0)]), ["resolved"]);
    assert_eq!(bench.due(), [Notice::Resolved]);
    assert_eq!(bench.after(1, &[down(1.0)]), ["resolved"], "and none begins");
}

#[test]
fn a_storm_is_bounded() {
    let mut bench = Bench::new(plain(
        json!({ "error_rate": { "for": "0s", "clear_after": "0s" } }),
    ));
    let storm: Vec<Reading> = (0..MOST_OPEN + 100)
        .map(|n| {
            let model = format!("m{n}");
            Reading::new(
                AlertRuleName::ErrorRate,
                &[("model", &model)],
                50.0,
                "x".repeat(100),
            )
        })
        .collect();
    assert_eq!(bench.after(0, &storm).len(), MOST_OPEN);
    assert_eq!(bench.book.left_out, 100);
    let mut messages = 0;
    while !bench.tell(Ok(())).is_empty() {
        messages += 1;
    }
    assert_eq!(messages, MOST_OPEN.div_ceil(MOST_TOLD));
    bench.after(1, &[]);
    assert!(bench.book.alerts.len() <= 200, "{}", bench.book.alerts.len());
    bench.after(8 * 86_400, &[]);
    assert!(bench.book.alerts.is_empty(), "what is over is shown for a week");
}

#[test]
fn two_books_of_the_same_become_one() {
    let rules = json!({ "deployment_down": { "for": "0s" }, "error_rate": { "for": "0s" } });
    let (mut one, mut two) = (Bench::new(plain(rules.clone())), Bench::new(plain(rules)));
    one.after(0, &[down(1.0)]);
    two.after(5, &[down(1.0), errors(50.0)]);
    two.tell(Ok(()));
    let id = one.book.alerts[0].id.clone();
    one.book.merge(two.book.clone());
    assert_eq!(one.book.alerts.len(), 2);
    assert_eq!(one.book.alerts[0].id, id);
    assert!(one.due().is_empty(), "what one of them told is told");
    let before = one.book.clone();
    one.book.merge(two.book);
    assert_eq!(one.book, before);
}

#[test]
fn an_instance_that_was_drained_is_not_missed() {
    let mut book = Book::default();
    let there = |names: &[(&str, bool)]| -> Vec<(String, bool)> {
        names
            .iter()
            .map(|(name, draining)| ((*name).into(), *draining))
            .collect()
    };
    assert!(
        book.missing(&there(&[("a", false), ("b", false), ("c", true)]), T)
            .is_empty()
    );
    let gone = book.missing(&there(&[("a", false)]), T + 1);
    assert_eq!(gone, [("b".to_owned(), T)]);
    assert!(
        book.missing(&there(&[("a", false), ("b", false)]), T + 2)
            .is_empty()
    );
    book.missing(&there(&[("a", false)]), T + 3);
    assert!(
        book.missing(&there(&[("a", false)]), T + 86_400_010).is_empty(),
        "after a day it is forgotten"
    );
}

fn message() -> Message {
    let mut bench = Bench::new(plain(json!({ "error_rate": { "for": "0s" } })));
    let labels = [("model", "<m>")];
    let text = "50 % of <m> & more failed".to_owned();
    bench.after(0, &[Reading::new(AlertRuleName::ErrorRate, &labels, 50.0, text)]);
    Message::new("one", vec![ToldOf::of(&bench.book.alerts[0], Notice::Firing(0))])
}

#[test]
fn our_own_form_is_signed_and_says_everything() {
    let message = message();
    let post = message.post(ReceiverKind::Webhook, Some(b"hush"), T);
    let body: Value = serde_json::from_slice(&post.body).unwrap();
    let alert = &body["alerts"][0];
    assert_eq!(
        (&body["version"], &body["test"], &body["instance"]),
        (&json!(1), &json!(false), &json!("one"))
    );
    assert_eq!(
        (&alert["rule"], &alert["severity"], &alert["state"]),
        (&json!("error_rate"), &json!("warning"), &json!("firing"))
    );
    assert_eq!(
        (&alert["value"], &alert["threshold"], &alert["unit"]),
        (&json!(50.0), &json!(10.0), &json!("percent"))
    );
    assert_eq!(alert["key"], format!("{}.0", alert["id"].as_str().unwrap()));
    let headers: BTreeMap<&str, String> = post.headers.iter().cloned().collect();
    assert_eq!(headers["Tollgate-Delivery"], message.id);
    assert_eq!(
        headers["Tollgate-Signature"],
        signature(b"hush", T / 1_000, &post.body)
    );
    assert_ne!(signature(b"hush", 1, b"x"), signature(b"other", 1, b"x"));
    assert_eq!(message.post(ReceiverKind::Webhook, None, T).headers.len(), 1);
    // RFC 4231, test case 2, with our time before it left out of the data: the key is `Jefe`.
    let known = signature(b"Jefe", 0, b"what do ya want for nothing?");
    assert!(known.starts_with("t=0,v1=") && known.len() == 7 + 64);
    // The same things again are the same message.
    assert_eq!(Message::new("one", message.alerts.clone()).id, message.id);
}

#[test]
fn chats_get_what_they_take() {
    let message = message();
    let body = |kind, secret: Option<&[u8]>| -> (Post, Value) {
        let post = message.post(kind, secret, T);
        let body = serde_json::from_slice(&post.body).unwrap();
        (post, body)
    };
    let (_, slack) = body(ReceiverKind::Slack, None);
    assert_eq!(
        slack["text"],
        "*[WARNING]* error_rate: 50 % of &lt;m&gt; &amp; more failed"
    );
    let (post, ding) = body(ReceiverKind::Dingtalk, Some(b"hush"));
    assert_eq!(
        ding["markdown"]["text"],
        "**[WARNING]** error_rate: 50 % of <m> & more failed"
    );
    assert!(
        post.query.starts_with("timestamp=1000000000&sign=") && !post.query.contains('+'),
        "{}",
        post.query
    );
    let (_, feishu) = body(ReceiverKind::Feishu, Some(b"hush"));
    assert_eq!(
        (&feishu["msg_type"], &feishu["timestamp"]),
        (&json!("text"), &json!("1000000"))
    );
    assert_eq!(feishu["sign"].as_str().unwrap().len(), 44);
    let (_, wecom) = body(ReceiverKind::Wecom, None);
    assert_eq!(wecom["msgtype"], "markdown");
    let many = Message::new(
        "one",
        std::iter::repeat_n(message.alerts[0].clone(), 200).collect(),
    );
    assert!(many.post(ReceiverKind::Wecom, None, T).body.len() < 4_096);
    let trial = Message::trial("one", "x".into()).post(ReceiverKind::Slack, None, T);
    assert!(String::from_utf8(trial.body).unwrap().contains("[TEST]"));

    assert_eq!(taken(ReceiverKind::Webhook, 204, b""), Ok(()));
    assert!(taken(ReceiverKind::Webhook, 302, b"").is_err());
    assert_eq!(taken(ReceiverKind::Dingtalk, 200, br#"{"errcode":0}"#), Ok(()));
    let refused = taken(
        ReceiverKind::Wecom,
        200,
        br#"{"errcode":93000,"errmsg":"invalid webhook url"}"#,
    );
    assert_eq!(
        refused.unwrap_err(),
        "refused it with code 93000: invalid webhook url"
    );
    assert!(
        taken(
            ReceiverKind::Feishu,
            200,
            br#"{"code":19021,"msg":"sign match fail"}"#
        )
        .is_err()
    );
}

#[test]
fn marks_are_bounded() {
    let mut marks = Marks::default();
    for n in 0..3_000u64 {
        let ack = Ack {
            by: String::new(),
            at_ms: n,
            comment: String::new(),
        };
        marks.acks.insert(format!("{n}"), ack);
    }
    marks.prune(T);
    assert_eq!(marks.acks.len(), 2_000);
    assert!(marks.acks.values().all(|ack| ack.at_ms >= 1_000));
    assert_eq!(
        AlertSeverity::Critical.max(AlertSeverity::Info),
        AlertSeverity::Critical
    );
}
