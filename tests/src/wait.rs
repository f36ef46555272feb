//! Waiting for conditions instead of for time.

use std::future::Future;
use std::time::{Duration, Instant};

/// What every wait may take at most unless it says otherwise: generous, since a busy machine is not a failure.
pub const PATIENCE: Duration = Duration::from_secs(30);

const POLL: Duration = Duration::from_millis(5);

/// Polls until the condition gives a value.
///
/// # Panics
/// When the deadline passes, naming what was waited for.
pub async fn wait_for<T, F>(what: &str, deadline: Duration, mut condition: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let start = Instant::now();
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(start.elapsed() < deadline, "waited {deadline:?} for: {what}");
        tokio::time::sleep(POLL).await;
    }
}

/// Polls until the condition is true.
///
/// # Panics
/// As [`wait_for`].
pub async fn wait_until(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) {
    wait_for(what, deadline, || std::future::ready(condition().then_some(()))).await;
}

/// As [`wait_until`], for places that cannot be async; false when the deadline passes.
pub fn wait_blocking(deadline: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if condition() {
            return true;
        }
        if start.elapsed() >= deadline {
            return false;
        }
        std::thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn returns_as_soon_as_the_condition_holds() {
        let mut asked = 0;
        let value = wait_for("three", PATIENCE, || {
            asked += 1;
            std::future::ready((asked == 3).then_some(asked))
        })
        .await;
        assert_eq!(value, 3);
    }

    #[tokio::test]
    #[should_panic(expected = "the moon")]
    async fn says_what_it_waited_for() {
        wait_until("the moon", Duration::from_millis(20), || false).await;
    }

    #[test]
    fn blocking_wait_gives_up() {
        assert!(!wait_blocking(Duration::from_millis(20), || false));
        assert!(wait_blocking(Duration::ZERO, || true));
    }
}
