//! Documents that are huge, or not where they are looked for: it is said clearly, and traffic goes on.

use serde_json::json;
use std::time::Instant;
use tollgate_tests::daemon::Daemon;
use tollgate_tests::documents::Documents;
use tollgate_tests::gateway::Gateway;
use tollgate_tests::http::Request;
use tollgate_tests::nacos::Nacos;
use tollgate_tests::site::Site;
use tollgate_tests::wait::{PATIENCE, wait_for};

fn documents() -> Documents {
    Documents::new().model("m", "mock").limited("c", json!([]))
}

/// Waits until an error that has these words is in the API, the metrics and the log.
async fn is_told(daemon: &Daemon, words: &str) {
    wait_for("the mistake to be told", PATIENCE, || async {
        let state = daemon.get("/instance").await;
        state["problems"].to_string().contains(words).then_some(())
    })
    .await;
    let metrics = daemon.api(Request::get("/metrics")).await.text();
    let errors = metrics
        .lines()
        .find_map(|line| line.strip_prefix("tollgate_config_problems{severity=\"error\"} "));
    assert_ne!(errors, Some("0"), "{metrics}");
    assert!(daemon.log().contains(words), "{}", daemon.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_of_20_megabytes_takes_effect_or_is_refused_by_name() {
    let gateway = Gateway::with(documents()).start().await;
    let generation = gateway.region().generation();
    let ask = async || {
        gateway
            .send(&Request::chat("m", " hello").channel("c"))
            .await
            .status()
    };

    let broken = format!("{{ \"channels\": [ {}", "{},".repeat(7_000_000));
    gateway.site.write_text("channels", &broken);
    is_told(&gateway.daemon, "not JSON").await;
    assert_eq!(ask().await, 200);
    assert_eq!(gateway.region().generation(), generation);

    let name = "n".repeat(250);
    let mut channels = vec![json!({ "code": "c", "trusted": true })];
    for number in 0..70_000 {
        channels
            .push(json!({ "code": format!("c{number}"), "trusted": true, "name": name, "tags": ["a", "b"] }));
    }
    let text = json!({ "channels": channels }).to_string();
    assert!(text.len() > 20_000_000, "{}", text.len());
    let begun = Instant::now();
    gateway.site.write_text("channels", &text);
    wait_for("the last channel", PATIENCE, || async {
        let request = Request::chat("m", " hello").channel("c69999");
        (gateway.send(&request).await.status() == 200).then_some(())
    })
    .await;
    println!("{} bytes in force after {:?}", text.len(), begun.elapsed());
    assert_eq!(ask().await, 200);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_without_documents_is_named() {
    let nacos = Nacos::start().await;
    let site = Site::new();
    let address = nacos.address().to_string();
    let arguments = [
        "--nacos",
        &address,
        "--nacos-namespace",
        "nowhere",
        "--instance",
        "one",
    ];
    let daemon = Daemon::start_without_config(&site, &arguments).await;
    is_told(&daemon, "of the namespace `nowhere`").await;
}
