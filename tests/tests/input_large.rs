//! Prompts that take long to count: they are counted exactly where that is needed, others hardly wait for it, and
//! whatever happens meanwhile loses nothing.

use serde_json::json;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tollgate_meter::Api;
use tollgate_meter::request::{Formula, count_input};
use tollgate_meter::tokenizer::{Counter, builtin};
use tollgate_tests::access;
use tollgate_tests::documents::Documents;
use tollgate_tests::gateway::Gateway;
use tollgate_tests::http::{Connection, Request};
use tollgate_tests::load::Load;
use tollgate_tests::wait::PATIENCE;

const MIB: usize = 1 << 20;
/// A megabyte's upper bound is above three quarters of it, its count is not.
const NEAR: u64 = 1_300_000;

/// Letters without any pattern: the text that takes longest.
fn letters(bytes: usize) -> String {
    let mut state = 1_u32;
    (0..bytes)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            char::from(b'a' + u8::try_from((state >> 16) % 26).unwrap())
        })
        .collect()
}

fn texts() -> [String; 3] {
    [" ".repeat(MIB), "-".repeat(MIB), letters(MIB)]
}

/// The input by the formulas, counted at once.
fn exact(request: &Request) -> u64 {
    let mut counter = Counter::new(builtin().unwrap());
    count_input(
        &request.body,
        Api::ChatCompletions,
        &Formula::default(),
        &mut counter,
    )
    .unwrap()
    .tokens
}

/// `m` says what was used, `silent` does not.
fn documents() -> Documents {
    Documents::new()
        .model("m", "mock?tokens=5&prompt_tokens=1")
        .model("silent", "mock?tokens=5&prompt_tokens=1&usage=no")
        .limited(
            "near",
            json!([{ "metric": "input_tokens", "max": NEAR, "window": "10m" }]),
        )
        .limited(
            "far",
            json!([{ "metric": "input_tokens", "max": 1_000_000_000, "window": "10m" }]),
        )
}

#[tokio::test]
async fn a_large_prompt_near_its_limit_is_counted_and_not_refused_for_its_bound() {
    let documents = documents()
        .limited(
            "exact",
            json!([{ "metric": "input_tokens", "max": 20_000, "window": "10m" }]),
        )
        .limited(
            "less",
            json!([{ "metric": "input_tokens", "max": 5_000, "window": "10m" }]),
        );
    let gateway = Gateway::with(documents).start().await;
    for text in [" ".repeat(MIB), "-".repeat(MIB)] {
        let request = Request::chat("m", &text);
        let tokens = exact(&request);
        assert!((5_000..20_000).contains(&tokens), "{tokens}");
        let answer = gateway.send(&request.clone().channel("exact")).await;
        assert_eq!(answer.status(), 200, "{}", answer.text());
        let refused = gateway.send(&request.channel("less")).await;
        assert_eq!(refused.status(), 429, "{}", refused.text());
        let wanted = format!("the request needs {tokens};");
        assert!(refused.text().contains(&wanted), "{}: {wanted}", refused.text());
    }
    assert_eq!(gateway.used("exact", "input_tokens/10m").await, 2);
    gateway.stop().await;
}

#[tokio::test]
async fn a_large_prompt_without_usage_is_charged_by_its_exact_count() {
    let gateway = Gateway::with(documents()).start().await;
    let mut sum = 0;
    for (index, text) in texts().into_iter().enumerate() {
        let mut request = Request::chat("silent", &text).channel("far");
        if index == 1 {
            request = request.set("stream", true);
        }
        sum += exact(&request);
        let answer = gateway.send(&request).await;
        assert_eq!(answer.status(), 200, "{}", answer.text());
    }
    // One that stands in a temporary file.
    let request = Request::chat("silent", &" ".repeat(3 * MIB)).channel("far");
    sum += exact(&request);
    assert_eq!(gateway.send(&request).await.status(), 200);
    gateway.wait_idle().await;
    assert_eq!(gateway.used("far", "input_tokens/10m").await, sum);
    // The access log is written before the count is made.
    for entry in access::entries(&gateway.nginx, "far", 4).await {
        assert_eq!(entry.get("source"), "estimated");
        assert!(entry.number("input") > MIB as u64);
        assert_eq!(entry.number("output"), 5);
    }
    gateway.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_while_its_prompt_is_counted_is_charged_nothing() {
    let gateway = Gateway::with(documents()).start().await;
    let request = Request::chat("m", &letters(8 * MIB)).channel("near").to_bytes();
    let mut open = Vec::new();
    for _ in 0..4 {
        let mut connection = Connection::open(gateway.address()).await.unwrap();
        connection.write(&request).await.unwrap();
        open.push(connection);
    }
    // All are read (the last byte is with nginx), then three go; the fourth is counted and refused: 8 MB of letters are
    // more than the limit.
    let mut last = open.pop().unwrap();
    drop(open);
    assert_eq!(last.read_head("POST").await.unwrap().status, 429);
    last.read_body().await.unwrap();
    let entries = access::entries(&gateway.nginx, "near", 4).await;
    let gone = entries.iter().filter(|entry| entry.status == 499).count();
    let refused = entries.iter().filter(|entry| entry.status == 429).count();
    assert_eq!(gone + refused, 4, "{entries:?}");
    assert!(gone >= 1, "{entries:?}");
    gateway.wait_idle().await;
    assert_eq!(gateway.used("near", "input_tokens/10m").await, 0);
    assert_eq!(gateway.mock.stats().total().requests, 0);
    // The worker goes on.
    let small = Request::chat("m", " hello").channel("near");
    assert_eq!(gateway.send(&small).await.status(), 200);
    gateway.stop().await;
}

#[tokio::test]
async fn a_reload_waits_for_what_is_being_counted() {
    let gateway = Gateway::with(documents()).start().await;
    let before = Request::chat("m", &" ".repeat(4 * MIB)).channel("near");
    let mut waiting = Connection::open(gateway.address()).await.unwrap();
    waiting.write(&before.to_bytes()).await.unwrap();
    let after = Request::chat("silent", &letters(4 * MIB)).channel("far");
    assert_eq!(gateway.send(&after).await.status(), 200);
    // One is probably being counted before it is admitted, one after it was answered.
    gateway.nginx.reload().await;
    assert_eq!(waiting.read_head("POST").await.unwrap().status, 200);
    waiting.read_body().await.unwrap();
    drop(waiting);
    gateway.nginx.wait_old_workers_gone(PATIENCE).await;
    gateway.wait_idle().await;
    assert_eq!(gateway.used("far", "input_tokens/10m").await, exact(&after));
    assert_eq!(gateway.used("near", "input_tokens/10m").await, 1);
    gateway.stop().await;
}

#[tokio::test]
async fn a_worker_that_dies_while_it_counts_has_charged_the_bound() {
    let gateway = Gateway::with(documents()).start().await;
    let request = Request::chat("silent", &letters(8 * MIB)).channel("far");
    let exact = exact(&request);
    let mut connection = Connection::open(gateway.address()).await.unwrap();
    connection.write(&request.to_bytes()).await.unwrap();
    assert_eq!(connection.read_head("POST").await.unwrap().status, 200);
    connection.read_body().await.unwrap();
    access::entries(&gateway.nginx, "far", 1).await;
    let worker = gateway.nginx.workers()[0];
    gateway.nginx.kill_worker(worker).await;
    drop(connection);
    gateway.wait_idle().await;
    let used = gateway.used("far", "input_tokens/10m").await;
    assert!((exact..=9 * MIB as u64).contains(&used), "{used}, exact {exact}");
    gateway.stop().await;
}

#[tokio::test]
async fn a_body_that_no_model_takes_is_refused_before_it_is_scanned() {
    let documents = Documents::new()
        .model_value(json!({ "name": "m", "max_body_bytes": MIB,
            "deployments": [{ "provider": "mock", "upstream_model": "mock" }] }))
        .limited(
            "c",
            json!([{ "metric": "requests", "max": 1_000, "window": "10m" }]),
        );
    let gateway = Gateway::with(documents).start().await;
    // It is no JSON, which nobody finds out.
    let request = Request::post_bytes("/v1/chat/completions", vec![b'['; 2 * MIB]).channel("c");
    let answer = gateway.send(&request).await;
    assert_eq!(answer.status(), 413, "{}", answer.text());
    assert_eq!(answer.json()["error"]["code"], "body_too_large");
    let request = Request::post_bytes("/v1/chat/completions", vec![b'['; 1000]).channel("c");
    assert_eq!(gateway.send(&request).await.status(), 400);
    gateway.stop().await;
}

/// The 99th percentile of small requests among which one in 50 is a megabyte, if `large` names its channel.
async fn p99(gateway: &Gateway, large: Option<&'static str>) -> Duration {
    const EVERY: u64 = 50;
    let requests: Vec<_> = texts()
        .iter()
        .map(|text| Request::chat("m", text).channel(large.unwrap_or("far")))
        .collect();
    let small = Request::chat("m", &"The ferry leaves at nine. ".repeat(30)).channel("far");
    let sent: Arc<Mutex<HashMap<u64, Instant>>> = Arc::default();
    let taken: Arc<Mutex<Vec<Duration>>> = Arc::default();
    let (begun, ended) = (Arc::clone(&sent), Arc::clone(&taken));
    let report = Load::new(gateway.address())
        .parallel(8)
        .requests(1_500)
        .run(
            move |turn| {
                if large.is_some() && turn.number % EVERY == EVERY / 2 {
                    let which = usize::try_from(turn.number / EVERY).unwrap() % requests.len();
                    return requests[which].clone();
                }
                begun.lock().unwrap().insert(turn.number, Instant::now());
                small.clone()
            },
            move |turn, answer| {
                if let Some(begun) = sent.lock().unwrap().remove(&turn.number) {
                    ended.lock().unwrap().push(begun.elapsed());
                    assert_eq!(answer.status(), 200, "{}", answer.text());
                }
            },
        )
        .await;
    assert_eq!(report.failed(), 0, "{report:?}");
    assert!(report.status(200) > 1_490, "{report:?}");
    let mut taken = std::mem::take(&mut *taken.lock().unwrap());
    taken.sort_unstable();
    taken[taken.len() * 99 / 100]
}

#[tokio::test]
async fn small_requests_hardly_wait_while_megabytes_are_counted() {
    let gateway = Gateway::with(documents()).start().await;
    let ratio = |a: Duration, b: Duration| a.as_secs_f64() / b.as_secs_f64();
    // The machine is shared: the best of each kind, in up to five rounds.
    let mut best: [Duration; 3] = [Duration::MAX; 3];
    for _ in 0..5 {
        for (best, large) in best.iter_mut().zip([None, Some("far"), Some("near")]) {
            *best = (*best).min(p99(&gateway, large).await);
        }
        if ratio(best[2], best[1]) < 1.5 {
            break;
        }
    }
    let [alone, passed, counted] = best;
    eprintln!(
        "p99 of small requests: alone {alone:?}; with megabytes {passed:?}, {:.2} times; with megabytes counted exactly \
         {counted:?}, {:.2} times that",
        ratio(passed, alone),
        ratio(counted, passed)
    );
    assert!(ratio(counted, passed) < 5.0, "{counted:?} instead of {passed:?}");
    gateway.stop().await;
}

#[tokio::test]
async fn nobody_waits_for_as_long_as_a_prompt_is_counted() {
    let gateway = Gateway::with(documents()).start().await;
    // More than the limit even by its exact count: nothing but counting takes its time.
    let request = Request::chat("m", &letters(12 * MIB)).channel("near").to_bytes();
    let mut large = Connection::open(gateway.address()).await.unwrap();
    large.write(&request).await.unwrap();
    let begun = Instant::now();
    let counted = tokio::spawn(async move {
        let status = large.read_head("POST").await.unwrap().status;
        (status, begun.elapsed())
    });
    let small = Request::chat("m", " hello").channel("far");
    let (mut longest, mut answered) = (Duration::ZERO, 0);
    while !counted.is_finished() {
        let sent = Instant::now();
        assert_eq!(gateway.send(&small).await.status(), 200);
        longest = longest.max(sent.elapsed());
        answered += 1;
    }
    let (status, taken) = counted.await.unwrap();
    assert_eq!(status, 429);
    eprintln!("counted in {taken:?}; {answered} small requests meanwhile, the longest took {longest:?}");
    assert!(answered > 10, "{answered} in {taken:?}");
    assert!(longest < taken / 2, "{longest:?} of {taken:?}");
    gateway.stop().await;
}

/// A body of about so many bytes, all of it small values, with `end` as its last members.
fn small_values(bytes: usize, end: &str) -> Vec<u8> {
    let unit = "[1,{\"a\":\"\\n\"},null],";
    let values = unit.repeat(bytes / unit.len());
    format!("{{\"model\":\"m\",\"messages\":[],\"x\":[{values}0]{end}}}").into_bytes()
}

#[tokio::test]
async fn a_long_body_is_judged_as_a_short_one() {
    let gateway = Gateway::with(documents()).start().await;
    let post = |body| Request::post_bytes("/v1/chat/completions", body).channel("far");
    // In memory, and in a temporary file.
    for bytes in [200_000, 3 * MIB, 9 * MIB] {
        let plain = gateway.send(&post(small_values(bytes, ""))).await;
        assert_eq!(plain.status(), 200, "{bytes}: {}", plain.text());
        let stream = gateway.send(&post(small_values(bytes, ",\"stream\":true"))).await;
        assert_eq!(stream.status(), 200, "{bytes}: {}", stream.text());
        let events = stream.events();
        assert_eq!(events.last().map(|event| event.data.as_str()), Some("[DONE]"));
        for (end, wanted) in [
            (",\"model\":\"n\"", "model: duplicate key"),
            (",\"n\":0", "n: must be at least 1"),
            (",\"a\":[{\"b\":!", "a.0.b: invalid JSON: expected a value"),
        ] {
            let refused = gateway.send(&post(small_values(bytes, end))).await;
            assert_eq!(refused.status(), 400, "{bytes}{end}: {}", refused.text());
            assert!(refused.text().contains(wanted), "{bytes}: {}", refused.text());
        }
        let mut broken = small_values(bytes, "");
        let at = broken.len() / 2;
        broken[at] = 0xff;
        let refused = gateway.send(&post(broken)).await;
        assert_eq!(refused.status(), 400, "{bytes}: {}", refused.text());
        assert!(
            refused.text().contains(&format!("invalid UTF-8 (at byte {at})")),
            "{}",
            refused.text()
        );
    }
    gateway.wait_idle().await;
    assert_eq!(gateway.mock.stats().total().requests, 6);
    gateway.stop().await;
}

#[tokio::test]
async fn clients_that_leave_while_their_bodies_are_scanned_leave_nothing_behind() {
    let gateway = Gateway::with(documents()).start().await;
    let request = Request::post_bytes("/v1/chat/completions", small_values(9 * MIB, "")).channel("far");
    let bytes = request.to_bytes();
    for round in 0..6 {
        let mut open = Vec::new();
        for _ in 0..3 {
            let mut connection = Connection::open(gateway.address()).await.unwrap();
            connection.write(&bytes).await.unwrap();
            open.push(connection);
        }
        // What was read is being scanned now, or is over; a reload comes between.
        drop(open);
        if round == 3 {
            gateway.nginx.reload().await;
        }
    }
    assert_eq!(gateway.send(&request).await.status(), 200);
    gateway.wait_idle().await;
    let log = gateway.nginx.error_log();
    assert!(
        !log.contains("panicked") && !log.contains("exited on signal"),
        "{log}"
    );
    gateway.stop().await;
}
