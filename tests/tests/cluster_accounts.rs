//! Who signs in at one instance is signed in at the others; failures are counted together; an instance that dies takes no
//! session with it; and without Redis whoever could sign in still can.

use serde_json::{Value, json};
use tollgate_tests::cluster::daemon_at;
use tollgate_tests::daemon::Daemon;
use tollgate_tests::http::{self, Request, Response};
use tollgate_tests::redis::Redis;
use tollgate_tests::wait::{PATIENCE, wait_for};

async fn sign_in(at: &Daemon, name: &str, password: &str) -> Response {
    let request = Request::post("/api/v1/login", &json!({ "name": name, "password": password }));
    http::send(at.address(), &request).await.expect("an answer")
}

fn cookie(answer: &Response) -> String {
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let cookie = answer.header("set-cookie").expect("a cookie");
    cookie.split(';').next().expect("its value").to_owned()
}

/// Whose session an instance takes this for.
async fn whose(at: &Daemon, cookie: &str) -> Value {
    let request = Request::get("/api/v1/session").header("cookie", cookie);
    let answer = http::send(at.address(), &request).await.expect("an answer");
    assert_eq!(answer.status(), 200, "{}", answer.text());
    answer.json()["account"]["name"].clone()
}

async fn account(at: &Daemon, name: &str) -> Response {
    let wanted = json!({ "name": name, "roles": ["viewer"], "password": "correct horse battery" });
    at.api(Request::post("/api/v1/accounts", &wanted)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_counts_at_every_instance_and_outlives_its_own() {
    let mut redis = Redis::start().await;
    let (_site_a, mut a) = daemon_at(&redis).await;
    let (_site_b, b) = daemon_at(&redis).await;
    // Of two first starts one has made the first account.
    let first = |d: &Daemon| d.log().contains("first start");
    assert!(first(&a) != first(&b), "{}\n{}", a.log(), b.log());

    let made = account(&a, "ann").await;
    assert!(made.status() < 300, "{}", made.text());
    let session = cookie(&sign_in(&b, "ann", "correct horse battery").await);
    assert_eq!(whose(&a, &session).await, "ann");

    // An account that is removed is gone everywhere, at once.
    let made = account(&b, "bob").await;
    assert!(made.status() < 300, "{}", made.text());
    let bobs = cookie(&sign_in(&a, "bob", "correct horse battery").await);
    let removed = b.api(Request::new("DELETE", "/api/v1/accounts/bob")).await;
    assert_eq!(removed.status(), 204, "{}", removed.text());
    assert_eq!(whose(&a, &bobs).await, Value::Null);

    // Five failures at one instance are enough for the other.
    let mut statuses = Vec::new();
    for n in 0..12 {
        let at = if n % 2 == 0 { &a } else { &b };
        statuses.push(sign_in(at, "eve", "wrong wrong wrong").await.status());
    }
    let refused = statuses.iter().filter(|s| **s == 401).count();
    assert!(refused <= 6 && statuses.contains(&429), "{statuses:?}");

    a.kill();
    assert_eq!(whose(&b, &session).await, "ann");

    // Once the copy is taken, Redis may go.
    let copies = || async {
        let text = b.api(Request::get("/metrics")).await.text();
        let line = text
            .lines()
            .find_map(|l| l.strip_prefix("tollgate_accounts_copies_total "));
        line.and_then(|n| n.parse::<u64>().ok()).expect("a count")
    };
    // One may have begun before.
    let enough = copies().await + 2;
    wait_for("the copy", PATIENCE, || async {
        (copies().await >= enough).then_some(())
    })
    .await;
    redis.kill();
    assert_eq!(whose(&b, &session).await, "ann");
    let alone = cookie(&sign_in(&b, "ann", "correct horse battery").await);
    assert_eq!(whose(&b, &alone).await, "ann");
    let refused = account(&b, "carl").await;
    assert_eq!(refused.status(), 503, "{}", refused.text());
    assert!(refused.text().contains("Redis"), "{}", refused.text());

    redis.restart().await;
    wait_for("accounts to be changed again", PATIENCE, || async {
        (account(&b, "carl").await.status() < 300).then_some(())
    })
    .await;
    a.restart().await;
    assert_eq!(whose(&a, &session).await, "ann");
    wait_for("the session that was made alone to end", PATIENCE, || async {
        (whose(&b, &alone).await == Value::Null).then_some(())
    })
    .await;
}
