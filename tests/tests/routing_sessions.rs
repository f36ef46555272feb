//! Sessions: a cookie that the gateway signs keeps a caller with one deployment.

use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;
use tollgate_tests::documents::Documents;
use tollgate_tests::gateway::Gateway;
use tollgate_tests::http::{Request, Response};

fn documents(deployments: &[(&str, &str)], session: &Value) -> Documents {
    let one = |(id, options): &(&str, &str)| json!({ "id": id, "provider": "mock", "upstream_model": format!("{id}?tokens=2{options}") });
    let deployments: Vec<Value> = deployments.iter().map(one).collect();
    Documents::new()
        .model_value(json!({ "name": "m", "deployments": deployments,
            "routing": { "affinity": "session", "session": session, "breaker": { "failures": 1_000 } } }))
        .model_value(json!({ "name": "plain", "deployments": [{ "provider": "mock", "upstream_model": "p?tokens=2" }] }))
        .limited("c", json!([]))
}

const THREE: &[(&str, &str)] = &[("one", ""), ("two", ""), ("three", "")];

fn chat(cookie: Option<&str>) -> Request {
    let request = Request::chat("m", " hello").channel("c");
    match cookie {
        Some(cookie) => request.header("Cookie", &format!("theme=dark; {cookie}; lang=de")),
        None => request,
    }
}

fn served(answer: &Response) -> String {
    assert_eq!(answer.status(), 200, "{}", answer.text());
    answer.model()
}

/// Name and value of the cookie that an answer sets.
fn cookie(answer: &Response) -> Option<String> {
    let line = answer.header("set-cookie")?;
    Some(line.split(';').next().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn a_caller_stays_with_its_deployment_until_that_is_out_or_gone() {
    let gateway = Gateway::with(documents(THREE, &json!({})))
        .workers(2)
        .start()
        .await;
    let mut homes = BTreeSet::new();
    let mut callers = Vec::new();
    for _ in 0..40 {
        let answer = gateway.send(&chat(None)).await;
        let home = served(&answer);
        let line = answer.header("set-cookie").unwrap();
        for part in [
            "tollgate_session_",
            "; Path=/; Max-Age=3600; HttpOnly; SameSite=Lax",
        ] {
            assert!(line.contains(part), "{line}");
        }
        assert!(!line.contains("Secure") && !line.contains(&home), "{line}");
        homes.insert(home.clone());
        callers.push((cookie(&answer).unwrap(), home));
    }
    assert_eq!(homes.len(), 3, "callers are balanced");
    for (cookie, home) in &callers {
        for _ in 0..3 {
            let answer = gateway.send(&chat(Some(cookie))).await;
            assert_eq!(
                (served(&answer), answer.header("set-cookie")),
                (home.clone(), None)
            );
        }
    }
    // The upstream sees none of it.
    assert_eq!(gateway.mock.stats().last().unwrap().header("cookie"), None);

    // Out: another serves, and the caller moves there. Streams too.
    let (moving, _) = callers.iter().find(|(_, home)| home == "two").unwrap().clone();
    gateway
        .publish(documents(
            &[("one", ""), ("two", "&status=500"), ("three", "")],
            &json!({}),
        ))
        .await;
    let answer = gateway.send(&chat(Some(&moving)).set("stream", true)).await;
    assert_eq!(answer.status(), 200);
    let moved = cookie(&answer).expect("a new cookie");
    gateway.publish(documents(THREE, &json!({}))).await;
    let home = served(&gateway.send(&chat(Some(&moved))).await);
    assert_ne!(home, "two");
    for _ in 0..10 {
        assert_eq!(served(&gateway.send(&chat(Some(&moved))).await), home);
    }

    // Gone: likewise. The others stay where they were.
    gateway
        .publish(documents(&[("one", ""), ("three", "")], &json!({})))
        .await;
    for (cookie_of, home) in &callers {
        let answer = gateway.send(&chat(Some(cookie_of))).await;
        let now = served(&answer);
        assert_eq!(cookie(&answer).is_some(), home == "two", "{home}");
        assert!(now == *home || home == "two" && now != "two");
    }
    // A model without sessions sets no cookie.
    let plain = gateway.send(&Request::chat("plain", " hello").channel("c")).await;
    assert_eq!((plain.status(), plain.header("set-cookie")), (200, None));
    gateway.stop().await;
}

#[tokio::test]
async fn foreign_forged_and_old_cookies_are_replaced() {
    let session = json!({ "lifetime": "10s", "same_site": "strict", "secure": true });
    let gateway = Gateway::with(documents(THREE, &session)).start().await;
    let other = Gateway::with(documents(THREE, &session)).start().await;
    let answer = gateway.send(&chat(None)).await;
    let line = answer.header("set-cookie").unwrap();
    assert!(
        line.ends_with("; Max-Age=10; HttpOnly; SameSite=Strict; Secure"),
        "{line}"
    );
    let good = cookie(&answer).unwrap();
    let (name, value) = good.split_once('=').unwrap();

    // The same master key stands behind both in tests, so the same cookie is good for both instances.
    assert_eq!(cookie(&other.send(&chat(Some(&good))).await), None);
    let mut flipped = value.to_owned().into_bytes();
    flipped[10] = if flipped[10] == b'A' { b'B' } else { b'A' };
    let flipped = String::from_utf8(flipped).unwrap();
    let forged = [
        String::new(),
        "1.".to_owned(),
        "x".repeat(5_000),
        flipped,
        value[..20].to_owned(),
        format!("{value}A"),
    ];
    for forged in forged {
        let answer = gateway.send(&chat(Some(&format!("{name}={forged}")))).await;
        served(&answer);
        assert!(cookie(&answer).is_some(), "{forged} is replaced");
    }
    // Another model's cookie has another name; under this model's name it is not ours.
    let renamed = format!("{}={value}", name.replace("session_", "session_0"));
    assert!(cookie(&gateway.send(&chat(Some(&renamed))).await).is_some());

    // After half of its time it is renewed.
    let answer = gateway.send(&chat(None)).await;
    let good = cookie(&answer).unwrap();
    tokio::time::sleep(Duration::from_millis(6_200)).await;
    let renewed = gateway.send(&chat(Some(&good))).await;
    assert_eq!(served(&renewed), served(&answer));
    assert!(cookie(&renewed).is_some_and(|cookie| cookie != good));
    gateway.stop().await;
    other.stop().await;
}
