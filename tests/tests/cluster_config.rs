//! Three instances share their documents in Nacos: a change through one of them, or in Nacos itself, is in force at all
//! within a second, one that is wrong is in force nowhere, and Nacos may go away.

use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tollgate_tests::documents::Documents;
use tollgate_tests::http::Request;
use tollgate_tests::instance::Instance;
use tollgate_tests::load::Load;
use tollgate_tests::mock::MockLlm;
use tollgate_tests::nacos::Nacos;
use tollgate_tests::wait::{PATIENCE, wait_for, wait_until};

const CHANNELS: &str = "tollgate.channels.json";
/// What a change may take, told by the issue.
const SECOND: Duration = Duration::from_secs(1);

fn channels(max: u64) -> Value {
    let limits = json!([{ "metric": "total_tokens", "max": max, "window": "10m" }]);
    json!({ "channels": [{ "code": "wechat001", "trusted": true, "limits": limits }] })
}

fn hello() -> Request {
    Request::chat("gpt-4o", " hello").channel("wechat001")
}

struct Cluster {
    instances: Vec<Instance>,
    nacos: Nacos,
    mock: MockLlm,
}

impl Cluster {
    /// Instances with version 1: one model, and a channel with a limit of a billion tokens.
    async fn start(names: &[&str]) -> Self {
        let (nacos, mock) = (Nacos::start().await, MockLlm::start().await);
        let mut instances = Vec::new();
        for name in names {
            instances.push(Instance::start(name, nacos.address(), mock.address()).await);
        }
        let documents = Documents::new().model("gpt-4o", "mock").any("mock", &mock.url());
        let mut all: serde_json::Map<String, Value> = documents
            .all()
            .into_iter()
            .map(|(kind, document)| (kind.to_owned(), document))
            .collect();
        all.insert("channels".into(), channels(1_000_000_000));
        let answer = instances[0].publish(Value::Object(all)).await;
        assert_eq!(answer.status(), 200, "{}", answer.text());
        let cluster = Self {
            instances,
            nacos,
            mock,
        };
        cluster
            .wait_version(answer.json()["version"].as_u64().unwrap())
            .await;
        for instance in &cluster.instances {
            wait_for("the gateway to decide", PATIENCE, || async {
                (instance.send(&hello()).await.status() == 200).then_some(())
            })
            .await;
        }
        cluster
    }

    async fn wait_version(&self, version: u64) {
        for instance in &self.instances {
            instance.wait_version(version).await;
        }
    }

    async fn etag(&self, instance: usize) -> String {
        let request = Request::get(&format!("/api/v1/documents/{CHANNELS}"));
        let answer = self.instances[instance].daemon.api(request).await;
        answer.header("etag").expect("a version").to_owned()
    }

    async fn put(&self, instance: usize, etag: &str, document: &Value) -> tollgate_tests::http::Response {
        let mut request = Request::new("PUT", &format!("/api/v1/documents/{CHANNELS}?message=test"))
            .header("If-Match", etag);
        request.body = document.to_string().into_bytes();
        self.instances[instance].daemon.api(request).await
    }

    async fn stop(self) {
        for instance in self.instances {
            instance.stop().await;
        }
        drop((self.nacos, self.mock));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_editors_one_is_told_what_the_other_did_and_the_way_back_is_exact() {
    let cluster = Cluster::start(&["one", "two"]).await;
    let first = cluster.instances[0].version().await;
    let before = cluster.nacos.get(CHANNELS).await.expect("the document");
    let etag = cluster.etag(0).await;
    let (seven, eight) = (channels(1_000_000_007), channels(1_000_000_008));
    let (a, b) = tokio::join!(cluster.put(0, &etag, &seven), cluster.put(1, &etag, &eight));
    let mut statuses = [a.status(), b.status()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409], "{} {}", a.text(), b.text());
    let refused = if a.status() == 409 { a.json() } else { b.json() };
    let difference = &refused["diff"]["differences"][0];
    assert_eq!(
        difference["path"], "channels[wechat001].limits[0].max",
        "{refused}"
    );
    assert_eq!(difference["old"], 1_000_000_000, "{refused}");
    cluster.wait_version(first + 1).await;

    let back = Request::post(&format!("/api/v1/versions/{first}/rollback"), &json!({}));
    let answer = cluster.instances[1].daemon.api(back).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    cluster.wait_version(first + 2).await;
    assert_eq!(
        cluster.nacos.get(CHANNELS).await.as_deref(),
        Some(before.as_str())
    );
    let list = cluster.instances[0].daemon.get("/versions").await;
    assert_eq!(list["versions"].as_array().map(Vec::len), Some(3), "{list}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_in_nacos_is_refused_everywhere_and_said() {
    let cluster = Cluster::start(&["one", "two"]).await;
    let first = cluster.instances[0].version().await;
    let generations: Vec<u64> = cluster
        .instances
        .iter()
        .map(|i| i.region().generation())
        .collect();
    let later = json!({ "channels": [{ "code": "wechat001", "trusted": true, "invented_later": 1 }] });
    for (text, named) in [
        ("{ \"channels\": [", "not JSON"),
        (later.to_string().as_str(), "invented_later"),
    ] {
        cluster.nacos.put(CHANNELS, text).await;
        for instance in &cluster.instances {
            wait_for("the mistake to be told", PATIENCE, || async {
                let state = instance.daemon.get("/instance").await;
                state["problems"].to_string().contains(named).then_some(())
            })
            .await;
            assert_eq!(instance.send(&hello()).await.status(), 200);
            let metrics = instance.daemon.api(Request::get("/metrics")).await.text();
            assert!(
                metrics.contains("tollgate_config_problems{severity=\"error\"} 1"),
                "{metrics}"
            );
            assert!(instance.daemon.log().contains(named));
        }
    }
    let now: Vec<u64> = cluster
        .instances
        .iter()
        .map(|i| i.region().generation())
        .collect();
    assert_eq!(generations, now);
    assert_eq!(cluster.instances[1].version().await, first);
    // The API brings the former one back, and it is still that version.
    let back = Request::post(&format!("/api/v1/versions/{first}/rollback"), &json!({}));
    let answer = cluster.instances[0].daemon.api(back).await;
    assert_eq!(
        (answer.status(), &answer.json()["version"]),
        (200, &json!(first)),
        "{}",
        answer.text()
    );
    for instance in &cluster.instances {
        wait_for("the mistake to be gone", PATIENCE, || async {
            (instance.daemon.get("/instance").await["errors"] == 0).then_some(())
        })
        .await;
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rapid_edits_everywhere_end_in_one_version() {
    let cluster = Cluster::start(&["one", "two", "three"]).await;
    let first = cluster.instances[0].version().await;
    for edit in 0..10_u64 {
        let at = usize::try_from(edit).unwrap() % cluster.instances.len();
        let document = json!({ "channels": channels(2_000_000_000 + edit) });
        // Not by version: whoever comes last wins.
        let answer = wait_for("the edit to be taken", PATIENCE, || async {
            let answer = cluster.instances[at].publish(document.clone()).await;
            (answer.status() != 409).then_some(answer)
        })
        .await;
        assert_eq!(answer.status(), 200, "{}", answer.text());
    }
    cluster.wait_version(first + 10).await;
    for instance in &cluster.instances {
        let all = wait_for("the instances to agree", PATIENCE, || async {
            let all = instance.daemon.get("/instances").await;
            let seen = all["instances"].as_array().is_some_and(|l| l.len() == 3);
            (seen && all["converged"] == true && all["version"] == first + 10).then_some(all)
        })
        .await;
        let versions: Vec<&Value> = all["instances"]
            .as_array()
            .unwrap()
            .iter()
            .map(|i| &i["version"])
            .collect();
        assert!(versions.iter().all(|v| **v == first + 10), "{all}");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_s_own_document_is_its_own() {
    let cluster = Cluster::start(&["one", "two"]).await;
    let own = json!({ "instance": { "settings": { "limits": [{ "metric": "requests", "max": 1, "window": "1h" }] } } });
    let answer = cluster.instances[0]
        .publish(json!({ "tollgate.instance.two.json": own }))
        .await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    cluster
        .wait_version(answer.json()["version"].as_u64().unwrap())
        .await;
    let (one, two) = (&cluster.instances[0], &cluster.instances[1]);
    wait_for("the instance's own limit", PATIENCE, || async {
        (two.send(&hello()).await.status() == 429).then_some(())
    })
    .await;
    for _ in 0..3 {
        assert_eq!(one.send(&hello()).await.status(), 200);
    }
    let shown = two.daemon.get("/documents").await["overrides"][0].clone();
    assert_eq!(
        (shown["path"].as_str(), shown["document"].as_str()),
        (Some("settings.limits"), Some("tollgate.instance.two.json")),
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_nacos_the_last_good_documents_stay_in_force_also_after_a_restart() {
    let mut cluster = Cluster::start(&["one"]).await;
    let first = cluster.instances[0].version().await;
    cluster.nacos.kill();
    let instance = &mut cluster.instances[0];
    wait_for("the outage to be told", PATIENCE, || async {
        let state = instance.daemon.get("/documents").await;
        let told = state["problems"].to_string().contains("Nacos cannot be reached");
        (told && state["in_force"] == true).then_some(())
    })
    .await;
    assert_eq!(instance.send(&hello()).await.status(), 200);
    // Also in a new region: everything is made of what is on the disk.
    instance.daemon.kill();
    instance.daemon.restart().await;
    assert_eq!(instance.version().await, first);
    assert_eq!(instance.send(&hello()).await.status(), 200);
    let answer = instance.publish(json!({ "channels": channels(5) })).await;
    assert_eq!(answer.status(), 503, "{}", answer.text());
    assert!(answer.text().contains("Nacos"), "{}", answer.text());
    let metrics = instance.daemon.api(Request::get("/metrics")).await.text();
    assert!(metrics.contains("tollgate_nacos_up 0"), "{metrics}");
    cluster.nacos.restart().await;
    wait_for("Nacos to be found again", Duration::from_secs(100), || async {
        let answer = cluster.instances[0]
            .publish(json!({ "channels": channels(1_000_000_009) }))
            .await;
        (answer.status() == 200).then_some(())
    })
    .await;
    cluster.wait_version(first + 1).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_instance_leaves_and_serves_whoever_still_comes() {
    let cluster = Cluster::start(&["one", "two"]).await;
    let [one, two] = cluster.instances.as_slice() else {
        panic!("two instances");
    };
    let health = |instance: &'static str| Request::get("/tollgate/health").header("x-for", instance);
    let answer = one.send(&health("one")).await;
    assert_eq!(
        (answer.status(), answer.json()["status"].as_str()),
        (200, Some("ok"))
    );
    let seen = |from: &Value| {
        let list = from["instances"].as_array().cloned().unwrap_or_default();
        list.iter()
            .map(|i| i["instance"].as_str().unwrap_or_default().to_owned())
            .collect::<Vec<_>>()
    };
    wait_for("both to be seen", PATIENCE, || async {
        (seen(&two.daemon.get("/instances").await) == ["two", "one"]).then_some(())
    })
    .await;
    let slow = hello()
        .set("stream", true)
        .set("mock", json!({ "tokens": 42, "interval": "50ms" }));
    let stats = cluster.mock.stats();
    let (stream, ()) = tokio::join!(one.send(&slow), async {
        wait_until("the stream to run", PATIENCE, || stats.total().in_flight == 1).await;
        let answer = one.daemon.api(Request::new("PUT", "/api/v1/drain")).await;
        assert_eq!(answer.json()["draining"], true, "{}", answer.text());
        wait_for("the health check to say so", PATIENCE, || async {
            (one.send(&health("one")).await.status() == 503).then_some(())
        })
        .await;
        wait_for("the others to see it leave", PATIENCE, || async {
            (seen(&two.daemon.get("/instances").await) == ["two"]).then_some(())
        })
        .await;
        assert_eq!(one.send(&hello()).await.status(), 200);
    });
    assert_eq!(stream.status(), 200);
    assert!(
        stream
            .events()
            .last()
            .is_some_and(tollgate_tests::sse::Event::is_done)
    );
    one.daemon.api(Request::new("DELETE", "/api/v1/drain")).await;
    assert_eq!(one.send(&health("one")).await.status(), 200);
    wait_for("both to be seen again", PATIENCE, || async {
        (seen(&two.daemon.get("/instances").await) == ["two", "one"]).then_some(())
    })
    .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_is_too_large_for_nacos_is_spread_over_shards() {
    const CHANNELS: usize = 6_000;
    let cluster = Cluster::start(&["one", "two"]).await;
    let first = cluster.instances[0].version().await;
    let mut list = channels(1_000_000_000);
    let entries = list["channels"].as_array_mut().expect("a list");
    entries.extend((0..CHANNELS).map(
        |number| json!({ "code": format!("app{number:05}"), "trusted": true, "name": "x".repeat(200) }),
    ));
    // Through the command line, from a folder.
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("tollgate.channels.json"), list.to_string()).expect("a document");
    let url = format!("http://{}", cluster.instances[0].daemon.address());
    let token = cluster.instances[0]
        .site
        .state()
        .join("api.token")
        .display()
        .to_string();
    let dir = folder.path().display().to_string();
    let run = |arguments: &[&str]| {
        let all = [arguments, &["--url", &url, "--token-file", &token]].concat();
        let output = tollgate_tests::daemon::Daemon::command(&all);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "{text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        text
    };
    let told = run(&["config", "publish", &dir, "-m", "many channels"]);
    assert!(
        told.contains(&format!("version {} is published", first + 1)),
        "{told}"
    );
    cluster.wait_version(first + 1).await;
    for instance in &cluster.instances {
        for code in ["wechat001", "app00000", "app05999"] {
            let request = Request::chat("gpt-4o", " hello").channel(code);
            wait_for("the channel to be known", PATIENCE, || async {
                (instance.send(&request).await.status() == 200).then_some(())
            })
            .await;
        }
    }
    let documents = cluster.instances[1].daemon.get("/documents").await;
    let shards: Vec<u64> = documents["documents"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|d| d["kind"] == "channels")
        .map(|d| d["bytes"].as_u64().expect("a number"))
        .collect();
    assert!(
        shards.len() > 8 && shards.iter().all(|bytes| *bytes < 200_000),
        "{shards:?}"
    );
    assert_eq!(cluster.nacos.get("tollgate.channels.json").await, None);
    let told = run(&["config", "history", "-n", "1"]);
    assert!(told.starts_with('*') && told.contains("many channels"), "{told}");
    let told = run(&["config", "rollback", &first.to_string()]);
    assert!(told.contains("in force"), "{told}");
    assert!(cluster.nacos.get("tollgate.channels.json").await.is_some());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_or_namespace_is_said() {
    use tollgate_tests::daemon::Daemon;
    use tollgate_tests::nacos::{PASSWORD, USER};
    use tollgate_tests::site::Site;
    let nacos = Nacos::start_with_auth().await;
    let address = nacos.address().to_string();
    let site = Site::new();
    let password = site.state().join("nacos.password");
    let mut arguments = vec![
        "--nacos",
        &address,
        "--instance",
        "one",
        "--nacos-user",
        USER,
        "--nacos-password-file",
    ];
    let path = password.display().to_string();
    arguments.push(&path);
    std::fs::write(&password, "wrong").unwrap();
    let mut daemon = Daemon::start_without_config(&site, &arguments).await;
    let problems = |daemon: &Value| daemon["problems"].to_string();
    let told = wait_for("the password to be refused", PATIENCE, || async {
        let told = problems(&daemon.get("/documents").await);
        told.contains(USER).then_some(told)
    })
    .await;
    assert!(told.contains("refuses the user"), "{told}");
    daemon.stop().await;
    std::fs::write(&password, format!("{PASSWORD}\n")).unwrap();
    daemon.restart().await;
    let told = wait_for("the right password to be taken", PATIENCE, || async {
        let told = problems(&daemon.get("/documents").await);
        told.contains("there are no documents").then_some(told)
    })
    .await;
    assert!(told.contains("namespace"), "{told}");
    let log = daemon.log();
    assert!(!log.contains(PASSWORD), "{log}");
    daemon.stop().await;
}

mod load {
    //! Needs the machine for itself: see tests/nextest.toml.

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn changes_are_in_force_at_all_instances_within_a_second_without_a_failed_request() {
        let cluster = Cluster::start(&["one", "two", "three"]).await;
        let first = cluster.instances[0].version().await;
        let (mut stops, mut running) = (Vec::new(), Vec::new());
        for instance in &cluster.instances {
            // Not so much that the daemons starve: what is measured is not the scheduler.
            let load = Load::new(instance.nginx.address())
                .parallel(8)
                .pause(Duration::from_millis(20))
                .requests(u64::MAX);
            stops.push(load.stopper());
            running.push(tokio::spawn(load.run(|_| hello(), |_, _| {})));
        }
        let mut times = Vec::new();
        for edit in 0..8_u64 {
            let document = channels(3_000_000_000 + edit);
            let before: Vec<u64> = cluster
                .instances
                .iter()
                .map(|i| i.region().generation())
                .collect();
            let begun = Instant::now();
            let by_hand = edit % 2 == 1;
            if by_hand {
                cluster.nacos.put(CHANNELS, &document.to_string()).await;
            } else {
                let answer = cluster.instances[0]
                    .publish(json!({ "channels": document }))
                    .await;
                assert_eq!(answer.status(), 200, "{}", answer.text());
            }
            for (instance, before) in cluster.instances.iter().zip(before) {
                let region = instance.region();
                while region
                    .workers()
                    .iter()
                    .any(|worker| worker.alive && worker.generation <= before)
                {
                    assert!(begun.elapsed() < PATIENCE, "{:?}", region.workers());
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            }
            times.push((if by_hand { "in Nacos" } else { "through one" }, begun.elapsed()));
            // What was edited by hand becomes a version; the next edit is not to meet that.
            cluster.wait_version(first + edit + 1).await;
        }
        for stop in stops {
            stop.stop();
        }
        println!("changed -> every worker of three instances uses it: {times:?}");
        for report in running {
            let report = report.await.unwrap();
            assert_eq!(report.failed(), 0, "{:?}", report.errors);
            assert_eq!(report.status(200), report.total(), "{:?}", report.statuses);
        }
        for how in ["in Nacos", "through one"] {
            let mut of: Vec<Duration> = times
                .iter()
                .filter(|(by, _)| *by == how)
                .map(|(_, t)| *t)
                .collect();
            of.sort_unstable();
            assert!(of[of.len() / 2] < SECOND, "{how}: {of:?}");
        }
        cluster.stop().await;
    }
}
