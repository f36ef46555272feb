//! loom: a worker that takes while the daemon lowers. Whatever the order, what the daemon found covers what the worker took.

use super::*;
use crate::window::Taken;
use loom::sync::Arc;

struct Store {
    cells: [AtomicU64; 4],
    debt: AtomicU64,
    contested: AtomicU64,
    tat: AtomicU64,
    allowance: AtomicU64,
    standing: AtomicU64,
    lease: AtomicU64,
}

const NOW: u64 = 1_000;

impl Store {
    fn new(allowance: u64) -> Arc<Store> {
        Arc::new(Store {
            cells: std::array::from_fn(|_| AtomicU64::new(0)),
            debt: AtomicU64::new(0),
            contested: AtomicU64::new(0),
            tat: AtomicU64::new(0),
            allowance: AtomicU64::new(allowance),
            standing: AtomicU64::new(0),
            lease: AtomicU64::new((2 * NOW) << SPAN_BITS),
        })
    }
    fn lease(&self) -> Lease<'_> {
        Lease {
            allowance: &self.allowance,
            standing: &self.standing,
            lease: &self.lease,
        }
    }
    fn window(&self, cells: usize) -> Window<'_> {
        Window {
            cells: &self.cells[..cells],
            debt: &self.debt,
            contested_until: &self.contested,
            cell_ms: 10,
        }
    }
    fn cap(&self) -> LeaseCap<'_> {
        LeaseCap {
            lease: self.lease(),
            max: 100,
            now_ms: NOW,
            quarters: false,
        }
    }
}

fn lowered(to: u64) -> LeaseWords {
    LeaseWords {
        allowance: to,
        standing: 0,
        fence_ms: 2 * NOW,
        standing_span_ms: 0,
    }
}

fn a_window_covers(cells: usize) {
    loom::model(move || {
        let store = Store::new(10);
        let worker = Arc::clone(&store);
        let taken = loom::thread::spawn(move || {
            matches!(worker.window(cells).take(NOW, worker.cap(), 6), Taken::Yes { .. })
        });
        let covered = store
            .lease()
            .lower(&lowered(2), || store.window(cells).sum(NOW).used);
        let taken = taken.join().unwrap();
        let used = store.window(cells).sum(NOW).used;
        assert_eq!(used, 6 * u64::from(taken));
        assert!(used <= covered, "{used} in use, {covered} kept");
    });
}

#[test]
fn lowering_a_sliding_window_sees_every_take_that_stays() {
    a_window_covers(4);
}

#[test]
fn lowering_a_fixed_window_sees_every_take_that_stays() {
    a_window_covers(1);
}

#[test]
fn lowering_a_bucket_keeps_the_units_of_every_take() {
    loom::model(|| {
        let store = Store::new(10);
        let worker = Arc::clone(&store);
        let taken = loom::thread::spawn(move || {
            let bucket = bucket::Bucket {
                tat: &worker.tat,
                max: worker.cap(),
                whole: 100,
                window_ms: 1_000,
            };
            matches!(bucket.take(NOW, 6, 100), bucket::Passed::After { .. })
        });
        store.lease().write(&lowered(8));
        bucket::rescale(&store.tat, NOW, 10, 8);
        let covered = bucket::covering(&store.tat, NOW, 8, 100, 100, 1_000).max(8);
        let taken = taken.join().unwrap();
        let now = bucket::covering(&store.tat, NOW, 8, 100, 100, 1_000);
        assert!(taken);
        assert!(now >= 6, "{now} of 6 units are left");
        assert!(now <= covered.max(8), "{now} in use, {covered} kept");
    });
}

#[test]
fn raising_a_bucket_keeps_the_units_of_every_take() {
    loom::model(|| {
        let store = Store::new(10);
        let worker = Arc::clone(&store);
        let taken = loom::thread::spawn(move || {
            let bucket = bucket::Bucket {
                tat: &worker.tat,
                max: worker.cap(),
                whole: 100,
                window_ms: 1_000,
            };
            matches!(bucket.take(NOW, 6, 100), bucket::Passed::After { .. })
        });
        bucket::rescale(&store.tat, NOW, 10, 50);
        store.lease().write(&lowered(50));
        assert!(taken.join().unwrap());
        let now = bucket::covering(&store.tat, NOW, 50, 100, 100, 1_000);
        assert!(now >= 6, "{now} of 6 units are left");
    });
}
