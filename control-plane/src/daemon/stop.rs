//! Tells threads and tasks to end, and lets threads sleep until then.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

/// A flag that is raised once. Clones share it.
#[derive(Clone)]
pub struct Stop {
    shared: Arc<(Mutex<bool>, Condvar)>,
    tasks: watch::Sender<bool>,
}

impl Default for Stop {
    fn default() -> Self {
        Stop {
            shared: Arc::default(),
            tasks: watch::Sender::new(false),
        }
    }
}

impl Stop {
    /// Ends everything.
    pub fn raise(&self) {
        let (flag, wake) = &*self.shared;
        *flag.lock().unwrap_or_else(PoisonError::into_inner) = true;
        wake.notify_all();
        self.tasks.send_replace(true);
    }

    /// Sleeps; returns whether it is time to end. Returns early when it is.
    pub fn sleep(&self, duration: Duration) -> bool {
        let (flag, wake) = &*self.shared;
        let until = Instant::now() + duration;
        let mut raised = flag.lock().unwrap_or_else(PoisonError::into_inner);
        while !*raised {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            raised = wake
                .wait_timeout(raised, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        true
    }

    /// For tasks.
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.tasks.subscribe()
    }
}
