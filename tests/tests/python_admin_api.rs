//! The admin API against its own description, by schemathesis: thousands of requests, right and wrong, that it makes up
//! from the OpenAPI. None may end in a 5xx, and every answer must be what the description says.
//!
//! `make test-python` runs this: it installs schemathesis and names its interpreter in `TOLLGATE_PYTHON`.

use serde_json::json;
use std::process::Command;
use tollgate_tests::daemon::Daemon;
use tollgate_tests::documents::Documents;
use tollgate_tests::programs;
use tollgate_tests::site::{Site, TOKEN};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs schemathesis: make test-python"]
async fn the_api_is_what_it_says_of_itself() {
    let python =
        std::env::var("TOLLGATE_PYTHON").expect("TOLLGATE_PYTHON names an interpreter with schemathesis");
    let documents = Documents::new()
        .provider(json!({ "id": "p", "protocol": "openai", "base_url": "http://127.0.0.1:9" }))
        .model_value(
            json!({ "name": "chat", "tokenizer": "o200k_base", "deployments": [{ "provider": "p" }] }),
        );
    let site = Site::new();
    documents.write(&site);
    let mut daemon = Daemon::start(&site).await;
    let status = Command::new(python)
        .args(["-m", "schemathesis.cli", "run"])
        .arg(format!("http://{}/api/v1/openapi.json", daemon.address()))
        .args(["-H", &format!("Authorization: Bearer {TOKEN}")])
        // The live stream does not end; it has a test of its own.
        .args([
            "--exclude-path",
            "/live",
            "--phases",
            "examples,coverage,fuzzing",
            "--max-examples",
            "12",
            // Of what it makes up for a part of a path, it throws most away itself.
            "--suppress-health-check",
            "filter_too_much",
        ])
        .args([
            "--checks",
            "not_a_server_error,response_schema_conformance,content_type_conformance,status_code_conformance",
        ])
        .env("NO_PROXY", "127.0.0.1,localhost")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(programs::root().join("target"))
        .status()
        .expect("schemathesis runs");
    assert!(status.success(), "schemathesis: {status}");
    daemon.stop().await;
}
