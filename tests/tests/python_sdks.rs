//! The `openai`, `anthropic` and `google-genai` Python SDKs, unmodified, chat and stream through the gateway.
//!
//! `make test-python` runs this: it installs the SDKs and names their interpreter in `TOLLGATE_PYTHON`.

use serde_json::json;
use std::path::Path;
use std::process::Command;
use tollgate_tests::documents::Documents;
use tollgate_tests::gateway::Gateway;
use tollgate_tests::mock::MockLlm;
use tollgate_tests::programs;

const KEY: &str = "sk-python-sdk-key";

/// Answers of exactly 12 tokens, whatever the name the SDK sends.
const MODEL: &str = "mock?tokens=12";

fn pytest(url: &str, environment: &[(&str, &str)]) {
    let python =
        std::env::var("TOLLGATE_PYTHON").expect("TOLLGATE_PYTHON names an interpreter with the SDKs");
    let tests = programs::root().join("tests").join("python");
    let status = Command::new(python)
        .args(["-m", "pytest", "-q", "-p", "no:cacheprovider"])
        .arg(Path::new(&tests))
        .env("TOLLGATE_URL", url)
        .env("TOLLGATE_KEY", KEY)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        // The loopback interface needs no proxy.
        .env("NO_PROXY", "127.0.0.1,localhost")
        .envs(environment.iter().copied())
        .status()
        .expect("pytest runs");
    assert!(status.success(), "pytest: {status}");
}

/// SHA-256 by the system's tool: the harness needs it only here.
fn sha256(text: &str) -> String {
    let output = Command::new("python3")
        .args([
            "-c",
            "import hashlib, sys; print(hashlib.sha256(sys.argv[1].encode()).hexdigest())",
            text,
        ])
        .output()
        .expect("python3 runs");
    String::from_utf8(output.stdout)
        .expect("hexadecimal digits")
        .trim()
        .to_owned()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the SDKs: make test-python"]
async fn sdks_work_through_the_gateway() {
    let far = MockLlm::start().await;
    let translated = [
        ("claude", "anthropic", "claude-sonnet-4-5"),
        ("gemini", "gemini", "gemini-2.5-flash"),
        ("gpt", "openai", "gpt-4o"),
    ];
    let mut documents = Documents::new();
    for (name, protocol, model) in translated {
        documents = documents
            .provider(json!({ "id": name, "protocol": protocol, "base_url": far.url() }))
            .model_value(json!({ "name": name, "tokenizer": "o200k_base", "deployments": [
                { "provider": name, "upstream_model": format!("{model}?tokens=12&tool=yes") }] }))
            .model_value(json!({ "name": format!("{name}-down"), "deployments": [
                { "id": format!("{name}-down"), "provider": name,
                    "upstream_model": format!("{model}?status=503") }] }));
    }
    let documents = documents
        .model("chat", MODEL)
        .model("caller", "mock?tokens=12&tool=yes")
        .model("forbidden", MODEL)
        .channel(
            json!({ "code": "python", "keys": [{ "id": "k1", "sha256": sha256(KEY) }],
            "models": { "deny": ["forbidden"] },
            "limits": [{ "metric": "total_tokens", "max": 100_000, "window": "10m" }] }),
        )
        .channel(
            json!({ "code": "blocked", "keys": [{ "id": "k1", "sha256": sha256(&format!("{KEY}-blocked")) }],
            "limits": [{ "metric": "input_tokens", "max": 0, "window": "10m" }] }),
        );
    let gateway = Gateway::with(documents).workers(2).start().await;
    pytest(&format!("http://{}", gateway.address()), &[]);
    gateway.wait_idle().await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the SDKs: make test-python"]
async fn sdks_work_with_the_mock_alone() {
    let mock = MockLlm::start().await;
    mock.default_tokens(12);
    pytest(&mock.url(), &[("TOLLGATE_BARE", "1")]);
}
