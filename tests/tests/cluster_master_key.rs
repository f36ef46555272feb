//! The master key of instances that share their documents in Nacos is changed while they serve: one after the other, with an
//! instance that is late, and with one that is forgotten.

use serde_json::{Value, json};
use std::path::PathBuf;
use tollgate_tests::daemon::Daemon;
use tollgate_tests::documents::Documents;
use tollgate_tests::http::{Request, Response};
use tollgate_tests::instance::Instance;
use tollgate_tests::mock::MockLlm;
use tollgate_tests::nacos::Nacos;
use tollgate_tests::wait::{PATIENCE, wait_for};

const PROVIDERS: &str = "tollgate.providers.json";
const SECRET: &str = "sk-the-same-all-the-time";

fn key(instance: &Instance, suffix: &str) -> PathBuf {
    instance.site.state().join(format!("master.key{suffix}"))
}

/// What `tollgate rotate-key` says, or why it does not.
fn rotate(instance: &Instance, more: &[&str]) -> Result<String, String> {
    let state = instance.site.state();
    let mut arguments = vec!["rotate-key", "--state", state.to_str().unwrap()];
    arguments.extend(more);
    let output = Daemon::command(&arguments);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(text(&output.stderr)),
    }
}

/// Starts the daemon, and nginx' workers anew: both read their keys then.
async fn start(instance: &mut Instance) {
    instance.daemon.restart().await;
    instance.nginx.reload().await;
}

async fn restart(instance: &mut Instance) {
    instance.daemon.stop().await;
    start(instance).await;
}

/// Takes the next key.
async fn take(instance: &mut Instance) {
    instance.daemon.stop().await;
    rotate(instance, &[]).expect("the key is taken");
    start(instance).await;
}

async fn reseal(instance: &Instance, force: bool) -> Response {
    let request = Request::post("/api/v1/documents/reseal", &json!({ "force": force }));
    instance.daemon.api(request).await
}

async fn sealed(nacos: &Nacos) -> String {
    let text = nacos.get(PROVIDERS).await.expect("the providers");
    let document: Value = serde_json::from_str(&text).unwrap();
    let sealed = &document["providers"][0]["credentials"]["encrypted"];
    sealed.as_str().expect("a sealed credential").to_owned()
}

/// Every instance answers, with the provider's credential.
async fn all_serve(instances: &[&Instance], mock: &MockLlm) {
    for instance in instances {
        mock.stats().reset();
        wait_for("the gateway to answer", PATIENCE, || async {
            let request = Request::chat("gpt-4o", " hello").channel("wechat001");
            (instance.send(&request).await.status() == 200).then_some(())
        })
        .await;
        let last = mock.stats().last().expect("a request");
        let wanted = format!("Bearer {SECRET}");
        assert_eq!(last.header("authorization"), Some(wanted.as_str()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_moves_from_instance_to_instance_while_all_serve() {
    let (nacos, mock) = (Nacos::start().await, MockLlm::start().await);
    let mut one = Instance::start("one", nacos.address(), mock.address()).await;
    let mut two = Instance::start("two", nacos.address(), mock.address()).await;
    let provider = json!({ "id": "mock", "protocol": "openai", "base_url": mock.url(),
        "credentials": { "type": "bearer", "key": SECRET } });
    let documents = Documents::new()
        .channel(json!({ "code": "wechat001", "trusted": true }))
        .model("gpt-4o", "mock")
        .provider(provider);
    let all: serde_json::Map<String, Value> = documents
        .all()
        .into_iter()
        .map(|(kind, document)| (kind.to_owned(), document))
        .collect();
    let answer = one.publish(Value::Object(all)).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let first = answer.json()["version"].as_u64().unwrap();
    two.wait_version(first).await;
    all_serve(&[&one, &two], &mock).await;
    let old = sealed(&nacos).await;

    // Nobody takes a key of which the others cannot know.
    one.daemon.stop().await;
    let error = rotate(&one, &[]).unwrap_err();
    assert!(error.contains("master.key.new"), "{error}");
    let said = rotate(&one, &["--prepare"]).unwrap();
    assert!(said.contains("master.key.new"), "{said}");
    start(&mut one).await;
    take(&mut one).await;
    all_serve(&[&one, &two], &mock).await;

    // The other one does not know it yet: the documents stay as they are, unless somebody wants it so.
    let refused = wait_for("the other instance to be seen", PATIENCE, || async {
        let answer = reseal(&one, false).await;
        answer.text().contains("two").then_some(answer)
    })
    .await;
    assert_eq!(refused.status(), 409, "{}", refused.text());
    assert_eq!(sealed(&nacos).await, old);
    let forced = reseal(&one, true).await;
    assert_eq!(forced.status(), 200, "{}", forced.text());
    let second = forced.json()["version"].as_u64().unwrap();
    assert_eq!(second, first + 1);
    one.wait_version(second).await;
    let new = sealed(&nacos).await;
    assert_ne!(new, old);

    // It goes on with what it has, over a restart too, and says why.
    wait_for("the documents to be refused", PATIENCE, || async {
        let documents = two.daemon.get("/documents").await;
        let told = documents["problems"].to_string().contains("another master key");
        (told && two.version().await == first).then_some(())
    })
    .await;
    all_serve(&[&one, &two], &mock).await;
    restart(&mut two).await;
    all_serve(&[&one, &two], &mock).await;

    // Once it has the key beside its own, it is up to date, before it takes it.
    std::fs::copy(key(&one, ""), key(&two, ".new")).unwrap();
    restart(&mut two).await;
    two.wait_version(second).await;
    all_serve(&[&one, &two], &mock).await;
    take(&mut two).await;
    two.wait_version(second).await;
    all_serve(&[&one, &two], &mock).await;
    let nothing = wait_for("the other instance to be seen", PATIENCE, || async {
        Some(reseal(&two, false).await).filter(|answer| answer.status() == 200)
    })
    .await;
    assert_eq!(nothing.json()["published"], false, "{}", nothing.text());

    // Without the old one, all goes on, but for what was sealed by it.
    for instance in [&mut one, &mut two] {
        std::fs::remove_file(key(instance, ".old")).unwrap();
        restart(instance).await;
        instance.wait_version(second).await;
    }
    all_serve(&[&one, &two], &mock).await;
    let back = Request::post(&format!("/api/v1/versions/{first}/rollback"), &json!({}));
    let answer = one.daemon.api(back).await;
    assert_eq!(answer.status(), 409, "{}", answer.text());
    assert_eq!(sealed(&nacos).await, new);
    for instance in [one, two] {
        instance.stop().await;
    }
    drop((nacos, mock));
}
