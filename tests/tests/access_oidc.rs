//! Sign-in at an identity provider, through the real daemon: who gets in, as what, and who does not.

use serde_json::{Value, json};
use tollgate_tests::daemon::Daemon;
use tollgate_tests::documents::Documents;
use tollgate_tests::http::{self, Request, Response};
use tollgate_tests::identity::{CLIENT, CLIENT_SECRET, IdentityProvider, Lie};
use tollgate_tests::site::Site;

/// A browser: cookies, and going where it is sent.
#[derive(Default)]
struct Browser {
    cookies: Vec<(String, String)>,
    /// What it would like to have.
    accept: &'static str,
}

impl Browser {
    async fn get(&mut self, daemon: &Daemon, path: &str) -> Response {
        let cookies: Vec<String> = self.cookies.iter().map(|(n, v)| format!("{n}={v}")).collect();
        let request = Request::get(path)
            .header("cookie", &cookies.join("; "))
            .header("accept", self.accept);
        let answer = http::send(daemon.address(), &request).await.expect("an answer");
        for (name, value) in &answer.head.headers {
            if name.eq_ignore_ascii_case("set-cookie") {
                let (name, value) = value.split(';').next().unwrap().split_once('=').unwrap();
                self.cookies.retain(|(n, _)| n != name);
                self.cookies.push((name.to_owned(), value.to_owned()));
            }
        }
        answer
    }

    /// Goes to the provider; the path with which it sends the browser back.
    async fn go(&mut self, daemon: &Daemon, provider: &IdentityProvider, back: &str) -> String {
        let sent = self.get(daemon, &format!("/api/v1/oidc/login?back={back}")).await;
        assert_eq!(sent.status(), 303, "{}", sent.text());
        let to = sent.header("location").unwrap().to_owned();
        let target = to
            .strip_prefix(&provider.issuer())
            .expect("the provider's address");
        let there = http::send(provider.address(), &Request::get(target))
            .await
            .unwrap();
        assert_eq!(there.status(), 302, "{}", there.text());
        let returned = there.header("location").unwrap();
        returned[returned.find("/api/").unwrap()..].to_owned()
    }

    async fn sign_in(&mut self, daemon: &Daemon, provider: &IdentityProvider) -> Response {
        let returned = self.go(daemon, provider, "/channels").await;
        self.get(daemon, &returned).await
    }

    async fn session(&mut self, daemon: &Daemon) -> Value {
        self.get(daemon, "/api/v1/session").await.json()
    }
}

async fn started(provider: &IdentityProvider) -> (Site, Daemon) {
    let documents = Documents::new()
        .provider(json!({ "id": "p", "protocol": "openai", "base_url": "http://127.0.0.1:9" }))
        .model_value(json!({ "name": "m", "deployments": [{ "provider": "p" }] }));
    let site = Site::new();
    documents.write(&site);
    let folder = site.state().join("credentials");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("oidc"), format!("{CLIENT_SECRET}\n")).unwrap();
    let daemon = Daemon::start(&site).await;
    let settings = json!({ "api": { "oidc": {
        "issuer": provider.issuer(), "client_id": CLIENT, "client_secret_ref": "oidc",
        "redirect_url": format!("http://{}/api/v1/oidc/callback", daemon.address()),
        "roles": [{ "value": "admins", "roles": ["admin"] },
                  { "value": "team-*", "roles": ["viewer"], "channels": ["team-*"] }] } } });
    let request = Request::new("PATCH", "/api/v1/settings").header("if-match", "*");
    let request = Request {
        body: settings.to_string().into_bytes(),
        ..request
    };
    let answer = daemon.api(request).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    (site, daemon)
}

fn mia() -> Value {
    json!({ "sub": "7", "preferred_username": "Mia", "name": "Mia M.", "groups": ["admins", "x"] })
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_the_provider_vouches_for_is_signed_in_with_the_roles_it_says() {
    let provider = IdentityProvider::start().await;
    let (site, mut daemon) = started(&provider).await;
    provider.set_claims(mia());
    let mut browser = Browser::default();
    let ways = browser.get(&daemon, "/api/v1/login/ways").await.json();
    assert_eq!(ways["oidc"]["path"], "/api/v1/oidc/login", "{ways}");
    let done = browser.sign_in(&daemon, &provider).await;
    assert_eq!(
        (done.status(), done.header("location")),
        (303, Some("/channels")),
        "{}",
        done.text()
    );
    let session = browser.session(&daemon).await;
    assert_eq!(
        (
            &session["account"]["name"],
            &session["account"]["roles"],
            &session["account"]["channels"]
        ),
        (&json!("mia"), &json!(["admin"]), &json!(["*"])),
        "{session}"
    );
    assert_eq!(browser.get(&daemon, "/api/v1/accounts").await.status(), 200);

    // Another group next time: the account follows, and so do sessions that are open.
    provider.set_claims(json!({ "sub": "7", "preferred_username": "mia", "groups": ["team-a"] }));
    // The provider signs with another key by now.
    provider.rotate();
    let mut second = Browser::default();
    // Somebody else has to be left who may do everything.
    let boss = Request::post("/api/v1/accounts", &json!({ "name": "boss", "roles": ["admin"] }));
    assert_eq!(daemon.api(boss).await.status(), 201);
    let done = second.sign_in(&daemon, &provider).await;
    assert_eq!(done.status(), 303, "{}", done.text());
    let session = browser.session(&daemon).await;
    assert_eq!(session["account"]["roles"], json!(["viewer"]), "{session}");
    assert_eq!(browser.get(&daemon, "/api/v1/accounts").await.status(), 403);

    let audit = daemon.get("/audit?actor=mia&action=sign_in").await;
    assert_eq!(audit["items"].as_array().unwrap().len(), 2, "{audit}");
    assert_eq!(audit["items"][0]["outcome"], "ok", "{audit}");
    // Nothing that proves anything is written down.
    daemon.stop().await;
    let secrets: Vec<String> = browser
        .cookies
        .iter()
        .map(|(_, value)| value.clone())
        .filter(|value| !value.is_empty())
        .chain([CLIENT_SECRET.to_owned()])
        .collect();
    let log = daemon.log();
    for secret in &secrets {
        assert!(!log.contains(secret.as_str()), "{secret} in the log");
        for entry in std::fs::read_dir(site.state()).unwrap() {
            let path = entry.unwrap().path();
            let bytes = if path.is_file() {
                std::fs::read(&path).unwrap()
            } else {
                Vec::new()
            };
            assert!(
                !bytes.windows(secret.len()).any(|w| w == secret.as_bytes()),
                "{secret} in {}",
                path.display()
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lies_other_browsers_and_strangers_are_refused() {
    let provider = IdentityProvider::start().await;
    let (_site, daemon) = started(&provider).await;
    provider.set_claims(mia());
    for lie in [
        Lie::Nonce,
        Lie::Audience,
        Lie::Issuer,
        Lie::Expired,
        Lie::Key,
        Lie::Unsigned,
    ] {
        provider.lie(lie);
        let mut browser = Browser::default();
        let answer = browser.sign_in(&daemon, &provider).await;
        assert_eq!(answer.status(), 403, "{lie:?}: {}", answer.text());
        assert_eq!(browser.session(&daemon).await["signed_in"], false, "{lie:?}");
    }
    provider.lie(Lie::None);

    // Somebody else's link, a link that was used, and one that nobody began.
    let mut browser = Browser::default();
    let returned = browser.go(&daemon, &provider, "").await;
    let mut other = Browser::default();
    assert_eq!(other.get(&daemon, &returned).await.status(), 403, "no cookie");
    assert_eq!(
        browser.get(&daemon, &returned).await.status(),
        403,
        "it was taken by the other"
    );
    let returned = browser.go(&daemon, &provider, "//evil.example").await;
    let done = browser.get(&daemon, &returned).await;
    assert_eq!(
        (done.status(), done.header("location")),
        (303, Some("/")),
        "nobody is sent elsewhere"
    );
    assert_eq!(browser.get(&daemon, &returned).await.status(), 403, "once");
    let made_up = "/api/v1/oidc/callback?code=x&state=y";
    assert_eq!(browser.get(&daemon, made_up).await.status(), 403);
    let denied = "/api/v1/oidc/callback?error=access_denied&state=y";
    assert_eq!(browser.get(&daemon, denied).await.status(), 403);

    // No role; and the name of a local account.
    provider.set_claims(json!({ "sub": "8", "preferred_username": "bo", "groups": ["x"] }));
    assert_eq!(Browser::default().sign_in(&daemon, &provider).await.status(), 403);
    provider.set_claims(json!({ "sub": "9", "preferred_username": "admin", "groups": ["admins"] }));
    let answer = Browser::default().sign_in(&daemon, &provider).await;
    assert_eq!(answer.status(), 403, "{}", answer.text());
    // A browser goes on to the page that asks for a name, and the audit log has it all the same.
    let mut browser = Browser {
        accept: "text/html,application/xhtml+xml,*/*;q=0.8",
        ..Browser::default()
    };
    let answer = browser.sign_in(&daemon, &provider).await;
    assert_eq!(answer.status(), 403);
    assert!(
        answer.text().contains("url=/?sign_in=account"),
        "{}",
        answer.text()
    );
    let answer = browser.get(&daemon, made_up).await;
    assert_eq!(answer.status(), 403);
    assert!(
        answer.text().contains("url=/?sign_in=expired"),
        "{}",
        answer.text()
    );
    let denied = daemon.get("/audit?outcome=denied").await;
    let rows = denied["items"].as_array().unwrap();
    let why = |text: &str| {
        rows.iter()
            .any(|row| row["action"] == "sign_in" && row["reason"].as_str().unwrap().contains(text))
    };
    // Those that followed within a minute are counted in the first one.
    assert!(why("nonce"), "{denied}");
    // A provider that is gone locks nobody out.
    drop(provider);
    let login = Request::post(
        "/api/v1/accounts",
        &json!({ "name": "local", "roles": ["viewer"] }),
    );
    let password = daemon.api(login).await.json()["password"]
        .as_str()
        .unwrap()
        .to_owned();
    let body = json!({ "name": "local", "password": password });
    let answer = http::send(daemon.address(), &Request::post("/api/v1/login", &body))
        .await
        .unwrap();
    assert_eq!(answer.status(), 200, "{}", answer.text());
}
