//! What every gateway has to pass before it is timed: 10,000 tokens, never more, and at least 95 % of them used.

use crate::gateways::{Bench, Running, Upstream};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tollgate_tests::http;
use tollgate_tests::load::Load;
use tollgate_tests::wait::{PATIENCE, wait_for, wait_until};

/// Tokens of the limit on the channel `tight`, input and output, in 10 minutes.
pub const LIMIT: u64 = 10_000;
/// Seconds of the limit's window.
const WINDOW: u64 = 600;
const PARALLEL: usize = 50;
/// More than the limit can admit at some 30 tokens each.
const REQUESTS: u64 = 1_500;
/// The Lua gateways' windows are fixed: none may end within the test.
const MARGIN: u64 = 20;

/// How a gateway held the limit.
#[derive(Clone, Debug)]
pub struct Held {
    /// What it is called.
    pub title: String,
    /// Tokens that the upstream counted ÷ limit.
    pub used: f64,
}

/// Tests those that have limits.
///
/// # Panics
/// If one admits more than the limit or less than 95 % of it.
pub async fn all(bench: &Bench, running: &[Running]) -> Vec<Held> {
    let mut held = Vec::new();
    let mut tollgate_done = false;
    for gateway in running.iter().filter(|gateway| gateway.kind.is_gateway()) {
        // Both share one region, and with it the limit.
        if gateway.kind.shares_region() && std::mem::replace(&mut tollgate_done, true) {
            continue;
        }
        held.push(test(bench, gateway).await);
    }
    held
}

async fn test(bench: &Bench, gateway: &Running) -> Held {
    wait_until(
        "a window that is long enough",
        Duration::from_secs(MARGIN + 10),
        || WINDOW - now() % WINDOW > MARGIN,
    )
    .await;
    let before = tokens(bench).await;
    let request = Upstream::Tight.request(gateway.kind);
    let load = Load::new(gateway.nginx.address())
        .parallel(PARALLEL)
        .requests(REQUESTS);
    let sent = request.clone();
    let report = load
        .run(
            move |_| sent.clone(),
            |_, answer| match answer.status() {
                200 => {}
                429 => assert!(
                    answer.header("retry-after").is_some(),
                    "no Retry-After: {answer:?}"
                ),
                _ => panic!("{answer:?}"),
            },
        )
        .await;
    assert_eq!(report.failed(), 0, "{report:?}");
    // Until one is refused twice with nothing in flight: the Lua gateway over Redis settles shortly after the answer.
    wait_for("a last refusal", PATIENCE, || async {
        for _ in 0..2 {
            let answer = http::send(gateway.nginx.address(), &request).await.ok()?;
            if answer.status() != 429 {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Some(())
    })
    .await;
    let used = tokens(bench).await - before;
    let title = gateway.kind.title().to_owned();
    assert!(
        used <= LIMIT && used * 100 >= LIMIT * 95,
        "{title}: {used} of {LIMIT} tokens"
    );
    Held {
        title,
        used: used as f64 / LIMIT as f64,
    }
}

async fn tokens(bench: &Bench) -> u64 {
    let stats = wait_for("the mock to finish", PATIENCE, || async {
        Some(bench.mock.stats().await).filter(|stats| stats["in_flight"] == 0)
    })
    .await;
    let total = |key: &str| stats[key].as_u64().expect("the mock counts");
    total("prompt_tokens") + total("completion_tokens")
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs())
}
