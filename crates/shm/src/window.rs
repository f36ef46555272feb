//! Sliding and fixed windows over packed cells.
//!
//! A cell is one word, `epoch << 40 | count`: which sub-window it counts (24 bits, wrapping) and how much
//! (40 bits). A word is only ever replaced by compare-and-swap, so a killed process leaves either the old or
//! the new value, and a cell resets itself when its epoch comes round again.
//!
//! Sliding: `cells.len()` sub-windows in a ring, `len - 2` of them make up the window; one more is the current,
//! partly elapsed one and the last is being recycled. What counts is every live cell in full, so the sum covers at least one
//! window at any instant (W1: no window of the limit's length ever sees more than the maximum) and at most
//! `window * (len - 1) / (len - 2)` (with 32 cells at least 96.7 % of a limit can be used in steady state).
//!
//! Admission adds first and verifies the sum after (W2). All adds and sums are `SeqCst`, hence totally ordered:
//! of all admissions that together exceed the maximum the last add would have seen every other, and backed out.

use crate::atomic::{AtomicU64, Relaxed, SeqCst};

const COUNT_BITS: u32 = 40;
const EPOCH_MASK: u64 = (1 << 24) - 1;
pub(crate) const MAX_COUNT: u64 = (1 << COUNT_BITS) - 1;
/// How many sub-windows another worker's clock may be ahead of ours.
const AHEAD: u64 = 64;
/// Attempts before a contended admission is refused; each failed one means that another process got through.
const ATTEMPTS: u32 = 64;
/// How long after a refusal takers look before they add, so that what will be refused does not get in others' way.
pub(crate) const CONTESTED_MS: u64 = 250;

fn pack(epoch: u64, count: u64) -> u64 {
    (epoch & EPOCH_MASK) << COUNT_BITS | count.min(MAX_COUNT)
}
fn epoch_of(word: u64) -> u64 {
    word >> COUNT_BITS
}
fn count_of(word: u64) -> u64 {
    word & MAX_COUNT
}
/// How many epochs `epoch` lies behind `now`; values above `EPOCH_MASK - AHEAD` mean it lies ahead.
fn age(now: u64, epoch: u64) -> u64 {
    now.wrapping_sub(epoch) & EPOCH_MASK
}
fn is_ahead(age: u64) -> bool {
    age > EPOCH_MASK - AHEAD
}

/// A window's state in shared memory: its cells and the debt that is yet to be booked into them.
#[derive(Clone, Copy)]
pub(crate) struct Window<'a> {
    pub cells: &'a [AtomicU64],
    pub debt: &'a AtomicU64,
    /// See `CounterRow::contested_until`.
    pub contested_until: &'a AtomicU64,
    /// Length of one cell in milliseconds of region time.
    pub cell_ms: u64,
}

/// What a window holds at an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sum {
    pub used: u64,
    pub debt: u64,
    /// The epoch that new usage belongs to: ours, or a later one that another worker has begun.
    pub epoch: u64,
}

/// What a take is held against.
pub(crate) trait Cap: Copy {
    /// Whether it may fall while a take is under way: then only a value that was read after the add can verify it.
    const MOVES: bool;
    fn now(self) -> u64;
}

impl Cap for u64 {
    const MOVES: bool = false;
    fn now(self) -> u64 {
        self
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Admitted; the epoch is needed to correct the amount later.
    Yes {
        epoch: u64,
    },
    No {
        sum: Sum,
    },
}

impl Window<'_> {
    /// `true` for a fixed window: one cell whose epoch is the window's number.
    fn is_fixed(&self) -> bool {
        self.cells.len() == 1
    }

    /// Epochs of age up to this count in full.
    fn live_ages(&self) -> u64 {
        if self.is_fixed() {
            0
        } else {
            self.cells.len() as u64 - 2
        }
    }

    fn epoch(&self, now_ms: u64) -> u64 {
        (now_ms / self.cell_ms.max(1)) & EPOCH_MASK
    }

    fn cell(&self, epoch: u64) -> &AtomicU64 {
        // One cell or a power of two of them: a mask is the remainder.
        let index = epoch as usize & (self.cells.len() - 1);
        #[expect(
            clippy::indexing_slicing,
            reason = "the index is masked by the length, which is a power of two"
        )]
        &self.cells[index]
    }

    /// Everything that counts against the limit at `now_ms`.
    pub fn sum(&self, now_ms: u64) -> Sum {
        self.sum_from(self.epoch(now_ms))
    }

    /// [`Window::sum`] for a clock in that epoch, so that a take divides once.
    fn sum_from(&self, mut epoch: u64) -> Sum {
        let live = self.live_ages();
        let mut used = 0;
        for cell in self.cells {
            let word = cell.load(SeqCst);
            if count_of(word) == 0 {
                continue;
            }
            let age_now = age(epoch, epoch_of(word));
            if is_ahead(age_now) {
                epoch = epoch_of(word);
                used += count_of(word);
            } else if age_now <= live {
                used += count_of(word);
            }
        }
        Sum {
            used,
            debt: self.debt.load(SeqCst),
            epoch,
        }
    }

    /// Takes `amount` if the window then holds at most `max`.
    ///
    /// While nobody is refused, one pass over the cells is enough: the one that verifies.
    pub fn take<C: Cap>(&self, now_ms: u64, max: C, amount: u64) -> Taken {
        if now_ms >= self.contested_until.load(Relaxed)
            && let Some(taken) = self.take_unseen(now_ms, max, amount)
        {
            return taken;
        }
        let taken = self.take_with_care(now_ms, max, amount);
        if matches!(taken, Taken::No { .. }) {
            self.contested_until.store(now_ms + CONTESTED_MS, Relaxed);
        }
        taken
    }

    /// Adds to the current cell and verifies after. `None`: the cell is not ours to add to yet, or it did not fit and has
    /// been given back.
    fn take_unseen<C: Cap>(&self, now_ms: u64, max: C, amount: u64) -> Option<Taken> {
        let epoch = self.epoch(now_ms);
        let cell = self.cell(epoch);
        let word = cell.load(SeqCst);
        let count = count_of(word).checked_add(amount).filter(|c| *c <= MAX_COUNT)?;
        if epoch_of(word) != epoch || word == 0 {
            return None;
        }
        let fits = || count.saturating_add(self.debt.load(SeqCst)) <= max.now();
        if self.is_fixed() && !fits() {
            return None;
        }
        cell.compare_exchange(word, pack(epoch, count), SeqCst, SeqCst)
            .ok()?;
        if self.is_fixed() && (!C::MOVES || fits()) {
            return Some(Taken::Yes { epoch });
        }
        let after = self.sum_from(epoch);
        if !self.is_fixed() && after.used.saturating_add(after.debt) <= max.now() {
            return Some(Taken::Yes { epoch });
        }
        self.give_back(epoch, amount);
        None
    }

    fn take_with_care<C: Cap>(&self, now_ms: u64, max: C, amount: u64) -> Taken {
        let mut sum = self.sum(now_ms);
        for _ in 0..ATTEMPTS {
            let limit = max.now();
            if sum.used.saturating_add(sum.debt).saturating_add(amount) > limit || amount > MAX_COUNT {
                return Taken::No { sum };
            }
            if self.add(sum, limit, amount) {
                if self.is_fixed() && !C::MOVES {
                    // One word holds the whole window: the swap itself was the verification.
                    return Taken::Yes { epoch: sum.epoch };
                }
                let after = self.sum(now_ms);
                if after.used.saturating_add(after.debt) <= max.now() {
                    return Taken::Yes { epoch: sum.epoch };
                }
                self.give_back(sum.epoch, amount);
            }
            sum = self.sum(now_ms);
        }
        Taken::No { sum }
    }

    /// One try to add to the cell of `sum.epoch`. The winner of a roll-over also books debt into the new cell
    /// (W4: added to the cell first, taken off the debt after; a crash in between charges twice, never nothing).
    fn add(&self, sum: Sum, max: u64, amount: u64) -> bool {
        let cell = self.cell(sum.epoch);
        let word = cell.load(SeqCst);
        let age = age(sum.epoch, epoch_of(word));
        if age == 0 {
            let count = count_of(word).saturating_add(amount);
            if self.is_fixed() && count.saturating_add(self.debt.load(SeqCst)) > max {
                return false;
            }
            return count <= MAX_COUNT
                && cell
                    .compare_exchange(word, pack(sum.epoch, count), SeqCst, SeqCst)
                    .is_ok();
        }
        if is_ahead(age) && word != 0 {
            return false;
        }
        let room = max.saturating_sub(sum.used).saturating_sub(amount);
        let paid = sum.debt.min(room);
        if cell
            .compare_exchange(word, pack(sum.epoch, amount + paid), SeqCst, SeqCst)
            .is_err()
        {
            return false;
        }
        self.take_off_debt(paid);
        true
    }

    /// Books debt into an empty window, up to the maximum. Called when a request is refused: no admission can book a debt
    /// that leaves no room for one, and it would refuse for ever instead of for as many windows as it fills.
    pub fn book_debt(&self, now_ms: u64, max: u64) {
        let sum = self.sum(now_ms);
        let paid = sum.debt.min(max);
        if paid == 0 || sum.used > 0 {
            return;
        }
        let cell = self.cell(sum.epoch);
        let word = cell.load(SeqCst);
        let age = age(sum.epoch, epoch_of(word));
        // Somebody has begun this cell since: what stands in it is theirs and stays.
        let taken = age == 0 && count_of(word) > 0;
        if taken || (is_ahead(age) && word != 0) {
            return;
        }
        let booked = cell.compare_exchange(word, pack(sum.epoch, paid), SeqCst, SeqCst);
        if booked.is_ok() {
            self.take_off_debt(paid);
        }
    }

    /// Never below zero: two may have booked the same debt, if the first was held up before it came here.
    fn take_off_debt(&self, paid: u64) {
        let mut debt = self.debt.load(SeqCst);
        while paid > 0 && debt > 0 {
            let left = debt.saturating_sub(paid);
            match self.debt.compare_exchange(debt, left, SeqCst, SeqCst) {
                Ok(_) => return,
                Err(now) => debt = now,
            }
        }
    }

    /// Returns `amount` that was taken in `epoch`; nothing happens when that cell has been recycled since.
    pub fn give_back(&self, epoch: u64, amount: u64) {
        let cell = self.cell(epoch);
        let mut word = cell.load(SeqCst);
        while epoch_of(word) == epoch & EPOCH_MASK {
            let next = pack(epoch, count_of(word).saturating_sub(amount));
            match cell.compare_exchange(word, next, SeqCst, SeqCst) {
                Ok(_) => return,
                Err(now) => word = now,
            }
        }
    }

    /// Adds what an admitted request used beyond its reservation to the cell it was admitted in, without a check.
    pub fn charge(&self, epoch: u64, amount: u64) {
        let cell = self.cell(epoch);
        let mut word = cell.load(SeqCst);
        while epoch_of(word) == epoch & EPOCH_MASK {
            let next = pack(epoch, count_of(word).saturating_add(amount));
            match cell.compare_exchange(word, next, SeqCst, SeqCst) {
                Ok(_) => return,
                Err(now) => word = now,
            }
        }
    }

    /// Adds to the current cell without a check (restoring usage after a reboot).
    pub fn restore(&self, at_ms: u64, amount: u64) {
        let epoch = self.epoch(at_ms);
        let cell = self.cell(epoch);
        loop {
            let word = cell.load(SeqCst);
            let age = age(epoch, epoch_of(word));
            let next = if age == 0 {
                pack(epoch, count_of(word).saturating_add(amount))
            } else {
                pack(epoch, amount)
            };
            if (is_ahead(age) && word != 0) || cell.compare_exchange(word, next, SeqCst, SeqCst).is_ok() {
                return;
            }
        }
    }

    /// Milliseconds until `amount` would fit if nothing else happened; the whole window when it never fits.
    pub fn wait_for(&self, now_ms: u64, max: u64, amount: u64) -> u64 {
        let cell_ms = self.cell_ms.max(1);
        let sum = self.sum(now_ms);
        let in_cell = now_ms % cell_ms;
        if self.is_fixed() {
            return cell_ms - in_cell;
        }
        let live = self.live_ages();
        let mut excess = sum
            .used
            .saturating_add(sum.debt)
            .saturating_add(amount)
            .saturating_sub(max);
        for oldest in (0..=live).rev() {
            if excess == 0 {
                break;
            }
            let word = self.cell(sum.epoch.wrapping_sub(oldest)).load(SeqCst);
            if age(sum.epoch, epoch_of(word)) == oldest {
                excess = excess.saturating_sub(count_of(word));
            }
            if excess == 0 {
                return (live - oldest + 1) * cell_ms - in_cell;
            }
        }
        if excess == 0 {
            0
        } else {
            (live + 1) * cell_ms - in_cell
        }
    }

    /// What each live cell holds, with the region time at which it began; for checkpoints and charts.
    pub fn live_cells(&self, now_ms: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
        let sum = self.sum(now_ms);
        let cell_ms = self.cell_ms.max(1);
        let base = now_ms / cell_ms;
        (0..=self.live_ages()).filter_map(move |back| {
            let word = self.cell(sum.epoch.wrapping_sub(back)).load(SeqCst);
            (age(sum.epoch, epoch_of(word)) == back && count_of(word) > 0)
                .then(|| (base.saturating_sub(back) * cell_ms, count_of(word)))
        })
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    struct Store {
        cells: Vec<AtomicU64>,
        debt: AtomicU64,
        contested: AtomicU64,
    }
    impl Store {
        fn new(n: usize) -> Store {
            Store {
                cells: (0..n).map(|_| AtomicU64::new(0)).collect(),
                debt: AtomicU64::new(0),
                contested: AtomicU64::new(0),
            }
        }
        fn window(&self, cell_ms: u64) -> Window<'_> {
            Window {
                cells: &self.cells,
                debt: &self.debt,
                contested_until: &self.contested,
                cell_ms,
            }
        }
    }

    const T0: u64 = 1_700_000_000_000;

    #[test]
    fn fills_to_the_last_token_and_not_beyond() {
        for n in [1, 32] {
            let store = Store::new(n);
            let w = store.window(20_000);
            for _ in 0..100 {
                assert!(matches!(w.take(T0, 10_000, 100), Taken::Yes { .. }));
            }
            assert!(matches!(w.take(T0, 10_000, 1), Taken::No { sum } if sum.used == 10_000));
        }
    }

    #[test]
    fn a_debt_larger_than_the_maximum_fills_windows_and_then_ends() {
        for (n, cell_ms) in [(1, 600_000), (32, 20_000)] {
            let store = Store::new(n);
            let w = store.window(cell_ms);
            let start = T0 - T0 % 600_000;
            let mut now = start;
            assert!(matches!(w.take(now, 100, 40), Taken::Yes { .. }));
            store.debt.store(250, SeqCst);
            while let Taken::No { .. } = w.take(now, 100, 20) {
                w.book_debt(now, 100);
                assert!(w.sum(now).used <= 100);
                now += 20_000;
                assert!(now < start + 6_000_000, "refused for ever");
            }
            // The first window holds the 40, two more the debt's first 200, and the fourth has room beside the last 50.
            let minutes = (now - start) / 60_000;
            assert!((30..=31).contains(&minutes), "{n} cells: {minutes} minutes");
            let sum = w.sum(now);
            assert_eq!((sum.used, sum.debt), (70, 0));
        }
    }

    #[test]
    fn fixed_window_starts_anew_and_wait_says_when() {
        let store = Store::new(1);
        let w = store.window(60_000);
        let now = T0 - T0 % 60_000 + 59_000;
        assert!(matches!(w.take(now, 10, 10), Taken::Yes { .. }));
        assert!(matches!(w.take(now, 10, 1), Taken::No { .. }));
        assert_eq!(w.wait_for(now, 10, 1), 1_000);
        assert!(matches!(w.take(now + 1_000, 10, 10), Taken::Yes { .. }));
    }

    #[test]
    fn sliding_wait_is_when_the_oldest_use_leaves() {
        let store = Store::new(32);
        let w = store.window(2_000);
        let now = T0 - T0 % 2_000;
        assert!(matches!(w.take(now, 10, 10), Taken::Yes { .. }));
        let wait = w.wait_for(now + 500, 10, 1);
        assert!((60_000..=62_000).contains(&(wait + 500)), "{wait}");
        assert!(matches!(w.take(now + 500 + wait - 1, 10, 1), Taken::No { .. }));
        assert!(matches!(w.take(now + 500 + wait, 10, 1), Taken::Yes { .. }));
    }

    #[test]
    fn a_refund_in_a_recycled_cell_is_ignored() {
        let store = Store::new(32);
        let w = store.window(1_000);
        let Taken::Yes { epoch } = w.take(T0, 10, 5) else {
            panic!()
        };
        assert!(matches!(w.take(T0 + 32_000, 10, 7), Taken::Yes { .. }));
        w.give_back(epoch, 5);
        assert_eq!(w.sum(T0 + 32_000).used, 7);
    }

    #[test]
    fn debt_counts_at_once_and_is_booked_at_roll_over() {
        for n in [1, 32] {
            let store = Store::new(n);
            let w = store.window(1_000);
            let now = T0 - T0 % 1_000;
            assert!(matches!(w.take(now, 100, 60), Taken::Yes { .. }));
            store.debt.fetch_add(70, SeqCst);
            assert!(
                matches!(w.take(now, 100, 1), Taken::No { .. }),
                "60 + 70 exceed 100 already"
            );
            let later = now + 64_000;
            assert!(
                matches!(w.take(later, 100, 31), Taken::No { .. }),
                "the debt of 70 was not forgiven"
            );
            assert!(matches!(w.take(later, 100, 30), Taken::Yes { .. }));
            assert_eq!(
                w.sum(later),
                Sum {
                    used: 100,
                    debt: 0,
                    epoch: w.epoch(later)
                }
            );
        }
    }

    #[test]
    fn a_clock_behind_the_others_still_sees_their_use() {
        let store = Store::new(32);
        let w = store.window(1_000);
        assert!(matches!(w.take(T0 + 5_000, 10, 10), Taken::Yes { .. }));
        assert!(matches!(w.take(T0, 10, 1), Taken::No { .. }));
    }

    #[test]
    fn parallel_takers_never_exceed_and_use_all() {
        for n in [1, 32] {
            let store = Store::new(n);
            let admitted = AtomicU64::new(0);
            std::thread::scope(|s| {
                for t in 0..4u64 {
                    let (store, admitted) = (&store, &admitted);
                    s.spawn(move || {
                        let w = store.window(20_000);
                        let mut misses = 0;
                        let mut i = t;
                        while misses < 50 {
                            i += 1;
                            match w.take(T0 + i % 40, 100_000, 1 + i % 37) {
                                Taken::Yes { epoch } => {
                                    admitted.fetch_add(1 + i % 37, SeqCst);
                                    if i % 3 == 0 {
                                        w.give_back(epoch, 1 + i % 37);
                                        admitted.fetch_sub(1 + i % 37, SeqCst);
                                    }
                                }
                                Taken::No { .. } => misses += 1,
                            }
                        }
                    });
                }
            });
            let admitted = admitted.load(SeqCst);
            assert_eq!(admitted, store.window(20_000).sum(T0).used);
            assert!(admitted <= 100_000 && admitted > 99_000, "{admitted}");
        }
    }

    proptest! {
        /// W1 against an exact model: at no instant does any trailing window hold more than the maximum.
        #[test]
        fn no_window_ever_exceeds(steps in proptest::collection::vec((0u64..5_000, 1u64..40), 1..300)) {
            let store = Store::new(32);
            let w = store.window(2_000); // 60 s
            let (mut now, max) = (T0, 100);
            let mut log: VecDeque<(u64, u64)> = VecDeque::new();
            for (dt, amount) in steps {
                now += dt;
                if let Taken::Yes { .. } = w.take(now, max, amount) {
                    log.push_back((now, amount));
                }
                while log.front().is_some_and(|(t, _)| t + 60_000 <= now) {
                    log.pop_front();
                }
                prop_assert!(log.iter().map(|(_, a)| a).sum::<u64>() <= max);
            }
        }

        #[test]
        fn live_cells_add_up(takes in proptest::collection::vec((0u64..60_000, 1u64..40), 1..60)) {
            let store = Store::new(32);
            let w = store.window(2_000);
            let mut at: Vec<_> = takes.iter().map(|t| t.0).collect();
            at.sort_unstable();
            for (dt, (_, amount)) in at.iter().zip(&takes) {
                let _ = w.take(T0 + dt, 1_000_000, *amount);
            }
            let now = T0 + 60_000;
            prop_assert_eq!(w.live_cells(now).map(|c| c.1).sum::<u64>(), w.sum(now).used);
        }
    }
}

#[cfg(test)]
#[cfg(loom)]
mod model {
    use super::*;
    use loom::sync::Arc;

    struct Store {
        cells: [AtomicU64; 4],
        debt: AtomicU64,
        contested: AtomicU64,
    }

    /// Two processes, room for one of them, one straddling a roll-over: never both, and the books stay true.
    #[test]
    fn at_most_one_of_two_fits() {
        let mut model = loom::model::Builder::new();
        // Each may make the other back out and try again: bounded, or they could do so without an end.
        model.preemption_bound = Some(3);
        model.max_branches = 20_000;
        model.check(|| {
            let store = Arc::new(Store {
                cells: std::array::from_fn(|_| AtomicU64::new(0)),
                debt: AtomicU64::new(0),
                contested: AtomicU64::new(0),
            });
            let run = |store: Arc<Store>, now: u64| {
                let w = Window {
                    cells: &store.cells,
                    debt: &store.debt,
                    contested_until: &store.contested,
                    cell_ms: 10,
                };
                matches!(w.take(now, 10, 6), Taken::Yes { .. })
            };
            let other = Arc::clone(&store);
            let handle = loom::thread::spawn(move || run(other, 109));
            let mine = run(Arc::clone(&store), 110);
            let theirs = handle.join().unwrap();
            assert!(!(mine && theirs));
            let w = Window {
                cells: &store.cells,
                debt: &store.debt,
                contested_until: &store.contested,
                cell_ms: 10,
            };
            assert_eq!(w.sum(110).used, 6 * (u64::from(mine) + u64::from(theirs)));
        });
    }
}
