//! Instances behind HAProxy, whose servers their daemons set, and behind nginx.

use serde_json::{Value, json};
use tollgate_tests::documents::Documents;
use tollgate_tests::haproxy::HaProxy;
use tollgate_tests::http::{self, Connection, Request};
use tollgate_tests::instance::Instance;
use tollgate_tests::load::Load;
use tollgate_tests::mock::MockLlm;
use tollgate_tests::nacos::Nacos;
use tollgate_tests::nginx::Nginx;
use tollgate_tests::wait::{PATIENCE, wait_for, wait_until};

fn hello() -> Request {
    Request::chat("m", " hello").channel("c")
}

/// Instances with one model that the mock serves.
struct Cluster {
    instances: Vec<Instance>,
    nacos: Nacos,
    mock: MockLlm,
}

impl Cluster {
    /// The first instance's daemon sets this HAProxy.
    async fn start(names: &[&str], haproxy: Option<&HaProxy>) -> Self {
        let (nacos, mock) = (Nacos::start().await, MockLlm::start().await);
        let mut cluster = Self {
            instances: Vec::new(),
            nacos,
            mock,
        };
        let socket = haproxy.map(|haproxy| haproxy.socket().display().to_string());
        for (n, name) in names.iter().enumerate() {
            match socket.as_deref().filter(|_| n == 0) {
                Some(socket) => cluster.join(name, &["--haproxy", socket]).await,
                None => cluster.join(name, &[]).await,
            }
        }
        let limits = json!([{ "metric": "connections", "max": 10_000 }]);
        let documents = Documents::new()
            .model("m", "mock?tokens=4")
            .limited("c", limits)
            .any("mock", &cluster.mock.url());
        let all: serde_json::Map<String, Value> = documents
            .all()
            .into_iter()
            .map(|(kind, document)| (kind.to_owned(), document))
            .collect();
        let answer = cluster.instances[0].publish(Value::Object(all)).await;
        assert_eq!(answer.status(), 200, "{}", answer.text());
        cluster.wait_served().await;
        cluster
    }

    async fn join(&mut self, name: &str, arguments: &[&str]) {
        let (nacos, mock) = (self.nacos.address(), self.mock.address());
        self.instances
            .push(Instance::start_with(name, nacos, mock, arguments).await);
    }

    async fn wait_served(&self) {
        for instance in &self.instances {
            wait_for("the instance to serve", PATIENCE, || async {
                (instance.send(&hello()).await.status() == 200).then_some(())
            })
            .await;
        }
    }

    fn decided(&self) -> Vec<u64> {
        self.instances.iter().map(Instance::decided).collect()
    }

    /// How many of so many requests through the balancer each instance gets. None may fail.
    async fn spread(&self, balancer: std::net::SocketAddr, requests: u64) -> Vec<u64> {
        let before = self.decided();
        let load = Load::new(balancer).requests(requests).without_keepalive();
        let report = load.run(|_| hello(), |_, _| {}).await;
        assert_eq!((report.failed(), report.status(200)), (0, requests), "{report:?}");
        self.decided()
            .iter()
            .zip(before)
            .map(|(now, before)| now - before)
            .collect()
    }

    async fn stop(self) {
        for instance in self.instances {
            instance.stop().await;
        }
        drop((self.nacos, self.mock));
    }
}

/// Every instance in turn, at once when it is up.
async fn round_robin() -> HaProxy {
    HaProxy::start(|text| {
        let text = text.replace("balance leastconn", "balance roundrobin");
        text.replace("slowstart 5s ", "")
    })
    .await
}

async fn wait_up(haproxy: &HaProxy, count: usize) {
    wait_until(&format!("{count} instances in HAProxy"), PATIENCE, || {
        haproxy.up() == count
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_join_are_weighted_drained_and_forgotten() {
    let haproxy = round_robin().await;
    let mut cluster = Cluster::start(&["one", "two"], Some(&haproxy)).await;
    wait_up(&haproxy, 2).await;
    let shares = cluster.spread(haproxy.address(), 100).await;
    assert!(shares.iter().all(|share| (45..=55).contains(share)), "{shares:?}");

    // A new one comes and takes its share by itself.
    cluster.join("three", &[]).await;
    wait_up(&haproxy, 3).await;
    let shares = cluster.spread(haproxy.address(), 300).await;
    assert!(
        shares.iter().all(|share| (90..=110).contains(share)),
        "{shares:?}"
    );
    let told = cluster.instances[0].daemon.get("/instances").await;
    assert_eq!(
        told["balancers"][0]["servers"].as_array().map(Vec::len),
        Some(3),
        "{told}"
    );
    assert_eq!(
        (
            &told["balancers"][0]["algorithm"],
            &told["balancers"][0]["cookie"]
        ),
        (&json!("roundrobin"), &json!(null)),
        "{told}"
    );

    // A weight of its own.
    let change = async |through: usize, instance: &str, body: Value| {
        let mut request = Request::post(&format!("/api/v1/instances/{instance}"), &body);
        request.method = "PATCH".to_owned();
        let answer = cluster.instances[through].daemon.api(request).await;
        assert_eq!(answer.status(), 200, "{}", answer.text());
    };
    change(1, "three", json!({ "weight": 50 })).await;
    wait_until("the weight in HAProxy", PATIENCE, || {
        haproxy.column("weight").iter().any(|(_, weight)| weight == "50")
    })
    .await;
    let shares = cluster.spread(haproxy.address(), 250).await;
    assert!((40..=60).contains(&shares[2]), "{shares:?}");

    // A drained one gets nobody new, and what runs there goes on to its end.
    let held = hello()
        .set("stream", true)
        .set("mock", json!({ "tokens": 20, "hold": 5 }));
    let mut streams = Vec::new();
    for _ in 0..6 {
        let mut stream = Connection::open(haproxy.address()).await.unwrap();
        assert_eq!(stream.send(&held).await.unwrap().status, 200);
        streams.push(stream);
    }
    let running = || cluster.instances[1].region().inflight(10).len();
    assert!(running() > 0, "a stream on each");
    change(0, "two", json!({ "drain": true })).await;
    wait_up(&haproxy, 2).await;
    let shares = cluster.spread(haproxy.address(), 60).await;
    assert_eq!(shares[1], 0, "{shares:?}");
    assert!(running() > 0);
    let release = http::send(cluster.mock.address(), &Request::new("POST", "/mock/release")).await;
    assert_eq!(release.unwrap().status(), 200);
    for mut stream in streams {
        let rest = String::from_utf8(stream.read_body().await.unwrap()).unwrap();
        assert!(rest.contains("[DONE]"), "{rest}");
    }
    change(2, "two", json!({ "drain": false })).await;
    wait_up(&haproxy, 3).await;
    let path = "/instances/four/configuration?advertise=127.0.0.1:1";
    let joining = cluster.instances[0].daemon.get(path).await;
    let environment = joining["files"]["tollgate.env"].as_str().unwrap();
    assert!(
        environment.contains(&cluster.nacos.address().to_string()),
        "{environment}"
    );

    // A killed one is out by itself, and its place is free in the end.
    let begun = std::time::Instant::now();
    cluster.instances[2].daemon.kill();
    cluster.instances[2].nginx.kill();
    let load = Load::new(haproxy.address())
        .requests(u64::MAX)
        .without_keepalive();
    let stop = load.stopper();
    let running = tokio::spawn(load.time(PATIENCE).run(|_| hello(), |_, _| {}));
    wait_up(&haproxy, 2).await;
    println!("a killed instance is out after {:?}", begun.elapsed());
    stop.stop();
    let report = running.await.unwrap();
    // What reaches nobody goes elsewhere.
    assert_eq!(report.total(), report.status(200), "{report:?}");
    wait_until("its place to be free", PATIENCE, || {
        haproxy
            .column("status")
            .iter()
            .filter(|(_, state)| state == "MAINT")
            .count()
            == 14
    })
    .await;
    drop(cluster.instances.pop());
    cluster.stop().await;
}

mod load {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn all_instances_are_restarted_one_after_the_other_and_no_request_fails() {
        let haproxy = HaProxy::start(|text| text.replace("slowstart 5s ", "")).await;
        let mut cluster = Cluster::start(&["one", "two", "three"], Some(&haproxy)).await;
        wait_up(&haproxy, 3).await;
        let load = Load::new(haproxy.address())
            .parallel(24)
            .requests(u64::MAX)
            .time(PATIENCE * 4);
        let stop = load.stopper();
        let running = tokio::spawn(load.run(
            |turn| {
                let mock = json!({ "tokens": 20, "interval": "10ms" });
                hello().set("stream", turn.number % 2 == 0).set("mock", mock)
            },
            |_, answer| {
                assert_eq!(answer.status(), 200, "{}", answer.text());
                let whole = answer.text();
                assert!(whole.contains("[DONE]") || whole.contains("usage"), "{whole}");
            },
        ));
        for number in 0..3 {
            let instance = &mut cluster.instances[number];
            let before = instance.nginx.master();
            instance.drain().await;
            wait_up(&haproxy, 2).await;
            wait_until("nothing in flight", PATIENCE, || {
                instance.region().inflight(1).is_empty()
            })
            .await;
            instance.nginx.restart().await;
            instance.daemon.stop().await;
            instance.daemon.restart().await;
            assert_ne!(instance.nginx.master(), before);
            instance.undrain().await;
            wait_up(&haproxy, 3).await;
            let decided = instance.decided();
            wait_until("requests for the new one", PATIENCE, || {
                cluster.instances[number].decided() > decided
            })
            .await;
        }
        stop.stop();
        let report = running.await.unwrap();
        println!(
            "rolling restart: {} requests, {} failed",
            report.total(),
            report.failed()
        );
        assert_eq!(
            (report.failed(), report.total()),
            (0, report.status(200)),
            "{report:?}"
        );
        cluster.stop().await;
    }
}

/// The shipped configuration for nginx as the front, with these servers.
fn front(servers: &str) -> String {
    let shipped = tollgate_tests::programs::root().join("nginx-conf/cluster/nginx.conf");
    let text = std::fs::read_to_string(shipped).expect("the shipped configuration");
    let mut out = String::new();
    for line in text.lines() {
        match line.trim_start().starts_with("server 10.0.0.") {
            true if !out.contains("server 127.") => out.push_str(servers),
            true => {}
            false => out.push_str(&line.replace("listen 8000;", "listen {{http}};")),
        }
        out.push('\n');
    }
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_in_front_spreads_requests_and_leaves_out_what_is_drained() {
    let cluster = Cluster::start(&["one", "two"], None).await;
    let line = |n: usize, rest: &str| {
        let address = cluster.instances[n].nginx.address();
        format!("server {address} weight=1 max_fails=2 fail_timeout=2s{rest};\n")
    };
    let both = front(&(line(0, "") + &line(1, "")));
    let (accepted, told) = Nginx::config(&both).test();
    assert!(accepted, "{told}");
    let mut balancer = Nginx::config(&both).start().await;
    let shares = cluster.spread(balancer.address(), 100).await;
    assert!(shares.iter().all(|share| (40..=60).contains(share)), "{shares:?}");
    let stream = hello().set("stream", true);
    let answer = http::send(balancer.address(), &stream).await.unwrap();
    assert!(answer.events().last().unwrap().is_done());

    cluster.instances[1].drain().await;
    let health = cluster.instances[1].send(&Request::get("/tollgate/health")).await;
    assert_eq!(health.status(), 503);
    balancer
        .reload_with(&front(&(line(0, "") + &line(1, " down"))))
        .await;
    balancer.wait_old_workers_gone(PATIENCE).await;
    let shares = cluster.spread(balancer.address(), 50).await;
    assert_eq!(shares, [50, 0]);
    balancer.stop().await;
    cluster.stop().await;
}
