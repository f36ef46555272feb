//! TLS towards providers: each is trusted by its own certificates, asked for by its own name, and shares nothing.

use serde_json::{Value, json};
use std::path::PathBuf;
use tollgate_tests::documents::Documents;
use tollgate_tests::gateway::Gateway;
use tollgate_tests::http::Request;
use tollgate_tests::mock::MockLlm;
use tollgate_tests::tls::{Authority, TlsFront, Versions};
use tollgate_tests::wait::{PATIENCE, wait_for, wait_until};

struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Puts a file of certificates in place, by rename.
    fn put(&self, name: &str, pem: &str) -> PathBuf {
        let path = self.0.path().join(name);
        let new = self.0.path().join("new");
        std::fs::write(&new, pem).unwrap();
        std::fs::rename(new, &path).unwrap();
        path
    }
}

/// A provider over TLS that is called `<id>.example`.
fn provider(id: &str, front: &TlsFront, tls: &Value) -> Value {
    json!({
        "id": id, "protocol": "openai", "base_url": front.url(), "tls": tls,
        "credentials": { "type": "bearer", "key": format!("sk-{id}-0123456789") },
    })
}

fn tls(name: &str, ca_file: &std::path::Path) -> Value {
    json!({ "server_name": name, "ca_file": ca_file })
}

fn documents() -> Documents {
    Documents::new().limited(
        "c",
        json!([{ "metric": "requests", "max": 100_000, "window": "10m" }]),
    )
}

fn model(name: &str, provider: &str) -> Value {
    json!({ "name": name, "deployments": [{ "id": name, "provider": provider, "upstream_model": "x?tokens=2" }] })
}

fn chat(model: &str) -> Request {
    Request::chat(model, " hello").channel("c")
}

async fn deployment(gateway: &Gateway, id: &str) -> Value {
    gateway.daemon.get(&format!("/deployments/{id}")).await
}

#[tokio::test]
async fn two_providers_at_one_address_are_told_apart() {
    let (first, second, files) = (Authority::new("first"), Authority::new("second"), Files::new());
    let mock = MockLlm::start().await;
    let certificates = [first.certify("a.example"), second.certify("b.example")];
    let front = TlsFront::start(mock.address(), &certificates, Versions::Both).await;
    let (ca_a, ca_b) = (files.put("a.pem", first.pem()), files.put("b.pem", second.pem()));
    let documents = documents()
        .provider(provider("a", &front, &tls("a.example", &ca_a)))
        .provider(provider("b", &front, &tls("b.example", &ca_b)))
        .model_value(model("ma", "a"))
        .model_value(model("mb", "b"));
    let gateway = Gateway::with(documents).start().await;
    for _ in 0..5 {
        for name in ["ma", "mb"] {
            let answer = gateway.send(&chat(name)).await;
            assert_eq!(answer.status(), 200, "{}", answer.text());
            let key = mock
                .stats()
                .last()
                .unwrap()
                .header("authorization")
                .map(str::to_owned);
            assert_eq!(key.unwrap(), format!("Bearer sk-{}-0123456789", &name[1..]));
        }
    }
    let names: Vec<_> = front.handshakes().into_iter().map(|h| h.name.unwrap()).collect();
    assert_eq!(
        names,
        ["a.example", "b.example"],
        "one connection each, by its own name"
    );
    gateway.stop().await;
}

#[tokio::test]
async fn a_certificate_that_is_not_the_providers_is_a_failed_attempt_and_said_once() {
    let (ours, foreign, files) = (Authority::new("ours"), Authority::new("foreign"), Files::new());
    let mock = MockLlm::start().await;
    let ca = files.put("ours.pem", ours.pem());
    let start = async |certificate| TlsFront::start(mock.address(), &[certificate], Versions::Both).await;
    // The right authority for another name; the right name from an authority that another provider trusts; that one.
    let misnamed = start(ours.certify("other.example")).await;
    let unknown = start(foreign.certify("p.example")).await;
    let foreign_ca = files.put("foreign.pem", foreign.pem());
    let all = documents()
        .provider(provider("misnamed", &misnamed, &tls("p.example", &ca)))
        .provider(provider("unknown", &unknown, &tls("p.example", &ca)))
        .provider(provider("known", &unknown, &tls("p.example", &foreign_ca)))
        .provider(provider(
            "system",
            &unknown,
            &json!({ "server_name": "p.example" }),
        ))
        .provider(provider(
            "anyone",
            &misnamed,
            &json!({ "server_name": "p.example", "verify": false }),
        ));
    let names = ["misnamed", "unknown", "known", "system", "anyone"];
    let all = names
        .iter()
        .fold(all, |all, name| all.model_value(model(name, name)));
    let all = all.model_value(json!({ "name": "both", "deployments": [
        { "id": "bad", "provider": "unknown", "weight": 1_000_000 },
        { "id": "good", "provider": "known", "upstream_model": "x?tokens=2", "weight": 1 },
    ] }));
    let gateway = Gateway::with(all)
        // At `info` nginx's own lines would be there as well.
        .nginx(|config| config.log_level("notice"))
        .start()
        .await;
    for (name, reason) in [
        ("misnamed", "its certificate is not for p.example"),
        ("unknown", "its certificate is not trusted: "),
        ("system", "its certificate is not trusted: "),
    ] {
        for _ in 0..20 {
            let answer = gateway.send(&chat(name)).await;
            assert_eq!(answer.status(), 502, "{}", answer.text());
            assert_eq!(answer.json()["error"]["code"], "upstream_unreachable");
        }
        let log = gateway.nginx.error_log();
        let lines: Vec<&str> = log
            .lines()
            .filter(|line| line.contains(&format!("{name:?} at")))
            .collect();
        assert_eq!(lines.len(), 1, "once for 20 requests: {lines:?}");
        assert!(
            lines[0].contains("(tls)") && lines[0].contains(reason),
            "{lines:?}"
        );
        let state = deployment(&gateway, name).await;
        assert_eq!(state["failed"]["tls"], 20, "{state}");
        assert_eq!(state["connections"]["failed"], 20, "{state}");
    }
    assert!(
        !gateway.nginx.error_log().contains("SSL certificate"),
        "nginx's own lines stay out"
    );
    assert_eq!(
        mock.stats().total().requests,
        0,
        "nothing was sent to whom we do not know"
    );
    for name in ["known", "anyone"] {
        let answer = gateway.send(&chat(name)).await;
        assert_eq!(answer.status(), 200, "{name}: {}", answer.text());
    }
    // What the foreign authority's provider has verified is not taken up by who does not trust it, nor the other way.
    assert_eq!(gateway.send(&chat("unknown")).await.status(), 502);
    assert_eq!(gateway.send(&chat("misnamed")).await.status(), 502);
    for _ in 0..10 {
        let answer = gateway.send(&chat("both")).await;
        assert_eq!(answer.status(), 200, "{}", answer.text());
    }
    gateway.stop().await;
}

#[tokio::test]
async fn sessions_are_resumed_by_their_deployment_alone() {
    for versions in [Versions::Both, Versions::Only1_2] {
        let (authority, files) = (Authority::new("ca"), Files::new());
        let mock = MockLlm::start().await;
        let front = TlsFront::start(mock.address(), &[authority.certify("p.example")], versions).await;
        let ca = files.put("ca.pem", authority.pem());
        let mut unkept = provider("p", &front, &tls("p.example", &ca));
        unkept["connections"] = json!({ "max_idle": 0 });
        let documents = documents()
            .provider(unkept)
            .model_value(model("one", "p"))
            .model_value(model("two", "p"));
        let gateway = Gateway::with(documents).start().await;
        for name in ["one", "one", "one", "two", "two"] {
            let answer = gateway.send(&chat(name)).await;
            assert_eq!(answer.status(), 200, "{}", answer.text());
        }
        let resumed: Vec<bool> = front.handshakes().iter().map(|h| h.resumed).collect();
        assert_eq!(resumed, [false, true, true, false, true], "{versions:?}");
        let state = deployment(&gateway, "one").await;
        assert_eq!(state["connections"]["tls_resumed"], 2, "{state}");
        assert_eq!(
            (&state["connections"]["idle"], &state["connections"]["made"]),
            (&json!(0), &json!(3))
        );
        gateway.stop().await;
    }
}

#[tokio::test]
async fn the_oldest_version_is_the_documents() {
    let (authority, files) = (Authority::new("ca"), Files::new());
    let mock = MockLlm::start().await;
    let certificates = [authority.certify("p.example")];
    let old = TlsFront::start(mock.address(), &certificates, Versions::Only1_2).await;
    let new = TlsFront::start(mock.address(), &certificates, Versions::Both).await;
    let ca = files.put("ca.pem", authority.pem());
    let with = |version: &str| json!({ "server_name": "p.example", "ca_file": ca, "min_version": version });
    let documents = documents()
        .provider(provider("old", &old, &with("1.3")))
        .provider(provider("new", &new, &with("1.3")))
        .provider(provider("lax", &old, &with("1.2")))
        .model_value(model("old", "old"))
        .model_value(model("new", "new"))
        .model_value(model("lax", "lax"));
    let gateway = Gateway::with(documents).start().await;
    for (name, status) in [("old", 502), ("new", 200), ("lax", 200)] {
        let answer = gateway.send(&chat(name)).await;
        assert_eq!(answer.status(), status, "{name}: {}", answer.text());
    }
    assert!(new.handshakes()[0].is_1_3 && !old.handshakes()[0].is_1_3);
    assert_eq!(deployment(&gateway, "old").await["failed"]["tls"], 1);
    gateway.stop().await;
}

#[tokio::test]
async fn trust_that_is_withdrawn_ends_kept_connections_too() {
    let (first, second, files) = (Authority::new("first"), Authority::new("second"), Files::new());
    let mock = MockLlm::start().await;
    let front = TlsFront::start(mock.address(), &[first.certify("p.example")], Versions::Both).await;
    let ca = files.put("ca.pem", first.pem());
    let all = |note: &str| {
        documents()
            .provider(provider("p", &front, &tls("p.example", &ca)))
            .model_value(model("m", "p"))
            .limited(note, json!([]))
    };
    let gateway = Gateway::with(all("before")).start().await;
    for _ in 0..3 {
        assert_eq!(gateway.send(&chat("m")).await.status(), 200);
    }
    assert_eq!(front.connections(), 1);
    wait_until("the connection to be idle", PATIENCE, || {
        mock.stats().connections().1 == 1
    })
    .await;
    files.put("ca.pem", second.pem());
    gateway.publish(all("after")).await;
    wait_until("the kept connection to be closed", PATIENCE, || {
        mock.stats().connections().1 == 0
    })
    .await;
    assert_eq!(gateway.send(&chat("m")).await.status(), 502);
    assert_eq!(mock.stats().total().requests, 3);
    // A file without certificates changes nothing and is said.
    files.put("ca.pem", "none");
    let region = gateway.region();
    let generation = region.generation();
    all("third").any("mock", &gateway.mock.url()).write(&gateway.site);
    wait_for("the daemon to complain", PATIENCE, || async {
        let status = gateway.daemon.get("/documents").await;
        status.to_string().contains("holds no certificate").then_some(())
    })
    .await;
    assert_eq!(region.generation(), generation);
    gateway.stop().await;
}
