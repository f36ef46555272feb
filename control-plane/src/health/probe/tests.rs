//! Probes against servers that are as they should not be.

use std::sync::Arc;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::*;

fn target(check: serde_json::Value) -> Target {
    Target {
        provider: "p".into(),
        deployments: vec!["m/p".into()],
        upstream_model: "m".into(),
        check: serde_json::from_value(check).unwrap(),
        endpoint: String::new(),
    }
}

fn reach(address: SocketAddr, tls: Option<(&str, Trust)>) -> Reach {
    Reach {
        addresses: vec![address],
        tls: tls.map(|(name, trust)| (name.to_owned(), trust)),
        host: "p.example".into(),
        prefix: "/v1".into(),
        protocol: Protocol::Openai,
        credential: None,
    }
}

async fn run(check: serde_json::Value, reach: Reach) -> Finding {
    probe(&target(check), Ok(reach), TlsConfigs::default()).await
}

/// A server that reads a request's head and then sends these bytes, each time; over TLS if asked.
async fn server(answer: Vec<u8>, tls: Option<TlsAcceptor>) -> SocketAddr {
    async fn serve<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, answer: &[u8]) {
        let mut head = Vec::new();
        let mut piece = [0; 1_024];
        while !head.windows(4).any(|at| at == b"\r\n\r\n") {
            match stream.read(&mut piece).await {
                Ok(0) | Err(_) => return,
                Ok(n) => head.extend_from_slice(&piece[..n]),
            }
        }
        let _ = stream.write_all(answer).await;
        let _ = stream.shutdown().await;
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            match &tls {
                None => serve(stream, &answer).await,
                Some(acceptor) => {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        serve(stream, &answer).await;
                    }
                }
            }
        }
    });
    address
}

fn ok(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

#[tokio::test]
async fn certificates_are_verified_as_the_document_says() {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(vec!["models.example".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let address = server(ok("{}"), Some(TlsAcceptor::from(Arc::new(config)))).await;
    let dir = tempfile::tempdir().unwrap();
    let own = dir.path().join("own.pem");
    std::fs::write(&own, cert.pem()).unwrap();
    let other = dir.path().join("other.pem");
    let stranger = generate_simple_self_signed(vec!["models.example".to_owned()]).unwrap();
    std::fs::write(&other, stranger.cert.pem()).unwrap();
    let file = |path: &std::path::Path| Trust::File(path.to_str().unwrap().to_owned());
    let missing = dir.path().join("missing.pem");

    let cases = [
        ("models.example", file(&own), Outcome::Passed, "status 200"),
        ("other.example", file(&own), Outcome::Failed, "tls: "),
        ("models.example", file(&other), Outcome::Failed, "tls: "),
        ("models.example", Trust::System, Outcome::Failed, "tls: "),
        ("other.example", Trust::Anyone, Outcome::Passed, "status 200"),
        (
            "models.example",
            file(&missing),
            Outcome::Undecided,
            "cannot be probed: `",
        ),
    ];
    for (name, trust, outcome, reason) in cases {
        let shown = format!("{name} {trust:?}");
        let found = run(
            json!({"path": "/", "timeout": "9s"}),
            reach(address, Some((name, trust))),
        )
        .await;
        assert_eq!(found.outcome, outcome, "{shown}: {}", found.reason);
        assert!(found.reason.starts_with(reason), "{shown}: {}", found.reason);
    }
    // No TLS where some is expected.
    let plain = server(ok("{}"), None).await;
    let found = run(json!({"path": "/"}), reach(plain, Some(("x", Trust::Anyone)))).await;
    assert_eq!(found.outcome, Outcome::Failed, "{}", found.reason);
}

#[tokio::test]
async fn what_is_no_answer_fails_with_its_kind() {
    let garbage = server(b"\x00\x01 this is no HTTP\r\n\r\n".to_vec(), None).await;
    let found = run(json!({"path": "/"}), reach(garbage, None)).await;
    assert!(found.reason.starts_with("malformed: "), "{}", found.reason);
    assert_eq!(found.outcome, Outcome::Failed);

    let closed = server(Vec::new(), None).await;
    let found = run(json!({"path": "/"}), reach(closed, None)).await;
    assert!(found.reason.starts_with("malformed: "), "{}", found.reason);

    // Nobody accepts: the kernel does, and nothing ever comes.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let check = json!({"path": "/", "timeout": "50ms"});
    let found = run(check, reach(silent.local_addr().unwrap(), None)).await;
    assert_eq!(found.reason, "timeout: not done within 50ms");
    let tcp = json!({"type": "tcp"});
    let found = run(tcp.clone(), reach(silent.local_addr().unwrap(), None)).await;
    assert_eq!((found.outcome, &*found.reason), (Outcome::Passed, "connected"));

    let gone = silent.local_addr().unwrap();
    drop(silent);
    let found = run(tcp.clone(), reach(gone, None)).await;
    assert!(found.reason.starts_with("connect: "), "{}", found.reason);
    let mut nowhere = reach(gone, None);
    nowhere.addresses.clear();
    assert_eq!(run(tcp, nowhere).await.reason, "connect: no address is known");
}

#[tokio::test]
async fn the_second_address_is_tried_when_the_first_refuses() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let refusing = gone.local_addr().unwrap();
    drop(gone);
    let mut both = reach(refusing, None);
    both.addresses.push(server(ok("fine"), None).await);
    let found = run(json!({"path": "/", "body_contains": "fin"}), both).await;
    assert_eq!(found.outcome, Outcome::Passed, "{}", found.reason);
}

#[tokio::test]
async fn only_the_beginning_of_a_body_is_read() {
    // Longer than what is looked at, and never ended: the text behind it does not count, and nobody waits for more.
    let mut answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\nearly".to_vec();
    answer.extend(vec![b'x'; MOST_BODY]);
    answer.extend_from_slice(b"late");
    let address = server(answer, None).await;
    for (text, outcome) in [("early", Outcome::Passed), ("late", Outcome::Failed)] {
        let found = run(json!({"path": "/", "body_contains": text}), reach(address, None)).await;
        assert_eq!(found.outcome, outcome, "{text}: {}", found.reason);
        assert!(!found.reason.contains("early"), "{}", found.reason);
    }
}

#[tokio::test]
async fn completions_pass_by_json_and_tell_their_tokens() {
    let check = json!({"type": "completion"});
    let usage = r#"{"usage": {"prompt_tokens": 8, "completion_tokens": 1}}"#;
    let found = run(check.clone(), reach(server(ok(usage), None).await, None)).await;
    assert_eq!((found.outcome, found.tokens), (Outcome::Passed, (8, 1)));
    let found = run(check.clone(), reach(server(ok("<html>"), None).await, None)).await;
    assert!(found.reason.contains("not JSON"), "{}", found.reason);
    let busy = b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n".to_vec();
    let found = run(check, reach(server(busy, None).await, None)).await;
    assert_eq!(found.outcome, Outcome::Undecided, "{}", found.reason);
}
