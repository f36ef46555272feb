//! Events from workers to the daemon: one ring per worker slot, one writer and one reader each.
//!
//! The writer fills the record and then moves the head (E1): a crash at any point leaves only whole records before
//! the head. It never waits: a full ring drops the event and counts it, and the totals stay exact because they are
//! read from the usage table.

use crate::atomic::{Acquire, Relaxed, Release};
use crate::layout::EVENT_WORDS;
use crate::region::Region;
use crate::workers::{Worker, WorkerSlot};

/// One finished request, an attempt of one, or what a rule in shadow mode would have done with one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Event {
    /// When it ended, region time in milliseconds.
    pub time_ms: u64,
    /// Statistics row (channel × model) it was booked to.
    pub usage: u32,
    /// Index of the deployment in the snapshot of `generation`; `u32::MAX` for none.
    pub deployment: u32,
    /// Request id.
    pub request_id: [u64; 2],
    /// Generation of the snapshot that decided it.
    pub generation: u32,
    /// HTTP status sent.
    pub status: u16,
    /// Number of the [`crate::Class`].
    pub class: u8,
    /// Where the counts come from: 0 none, 1 upstream, 2 counted, 3 estimated; 4 for a [`Event::shadow`].
    pub source: u8,
    /// Tokens.
    pub input_tokens: u32,
    /// Tokens.
    pub output_tokens: u32,
    /// Tokens.
    pub cached_tokens: u32,
    /// Tokens.
    pub reasoning_tokens: u32,
    /// Microseconds.
    pub latency_us: u32,
    /// Microseconds; `u32::MAX` when nothing came.
    pub first_token_us: u32,
    /// Tokens.
    pub debt_tokens: u32,
    /// Bit 0 stream, bit 1 suspicious usage, bit 2 cut at its reservation, bit 3 shadow rule hit, bit 4
    /// [`Event::ATTEMPT`]; from bit 5 on the number of upstream attempts, at most 7; from bit 8 on the version of the
    /// counting rule.
    pub flags: u32,
    /// Key of the limit that refused it, 0 for none.
    pub limit_key: u64,
    /// Hash of the rule that decided, 0 for none.
    pub rule_hash: u64,
    /// Tokens reserved: input and output.
    pub reserved: [u32; 2],
    /// Part of all tokens that is an estimate.
    pub estimated_tokens: u32,
    /// Part of all tokens that was counted here.
    pub counted_tokens: u32,
    /// The input counted here beside the upstream, to learn from: tokens of the texts by the tokenizer alone, and of
    /// everything else by the formula; 0 for none.
    pub sample: [u32; 2],
    /// The group of an experiment, as its position in the snapshot of `generation` + 1, at most 65,535; 0 for none.
    pub group: u32,
    /// What the channel pays, in millionths of the currency's unit; `u32::MAX` for more than that.
    pub bill: u32,
    /// What the provider takes, likewise.
    pub cost: u32,
    /// Versions of the two prices, 24 bits each; 0 for none.
    pub prices: [u32; 2],
}

/// Versions of prices have 24 bits.
const VERSION: u32 = 0xff_ffff;

fn pair(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}
fn unpair(word: u64) -> (u32, u32) {
    (word as u32, (word >> 32) as u32)
}

impl Event {
    /// In the flags of what is no request but an attempt of one, after which another one followed: in no statistics.
    pub const ATTEMPT: u32 = 1 << 4;

    /// Whether this is an attempt and not a request; true of an [`Event::shadow`] as well.
    pub fn is_attempt(&self) -> bool {
        self.flags & Event::ATTEMPT != 0
    }

    const SHADOW: u8 = 4;

    /// What a rule in shadow mode would have done with this request: its hash, and its deeds, a bit each. Whoever does not know
    /// of such events takes it for an attempt, and so puts it into no sum.
    pub fn shadow(&self, rule_hash: u64, deeds: u16) -> Event {
        Event {
            time_ms: self.time_ms,
            usage: self.usage,
            deployment: u32::MAX,
            request_id: self.request_id,
            generation: self.generation,
            status: deeds,
            class: self.class,
            source: Event::SHADOW,
            first_token_us: u32::MAX,
            flags: Event::ATTEMPT,
            rule_hash,
            ..Event::default()
        }
    }

    /// Whether this is what a rule in shadow mode would have done, and no request.
    pub fn is_shadow(&self) -> bool {
        self.source == Event::SHADOW
    }

    /// Deeds of the rule in shadow mode.
    pub fn shadow_deeds(&self) -> u16 {
        self.status
    }

    fn encode(&self) -> [u64; EVENT_WORDS] {
        let kind = u32::from(self.status) | u32::from(self.class) << 16 | u32::from(self.source) << 24;
        let [id0, id1] = self.request_id;
        let [r0, r1] = self.reserved;
        let [s0, s1] = self.sample;
        let [p0, p1] = self.prices;
        [
            self.time_ms,
            pair(self.usage, self.deployment),
            id0,
            id1,
            pair(self.generation, kind),
            pair(self.input_tokens, self.output_tokens),
            pair(self.cached_tokens, self.reasoning_tokens),
            pair(self.latency_us, self.first_token_us),
            pair(self.debt_tokens, self.flags),
            self.limit_key,
            self.rule_hash,
            pair(r0, r1),
            pair(self.estimated_tokens, self.counted_tokens),
            pair(s0, s1),
            pair(self.bill, self.cost),
            u64::from(p0 & VERSION) | u64::from(p1 & VERSION) << 24 | u64::from(self.group.min(0xffff)) << 48,
        ]
    }

    fn decode(words: [u64; EVENT_WORDS]) -> Event {
        let [
            time_ms,
            a,
            id0,
            id1,
            b,
            c,
            d,
            e,
            f,
            limit_key,
            rule_hash,
            g,
            h,
            i,
            j,
            k,
        ] = words;
        let (generation, kind) = unpair(b);
        Event {
            time_ms,
            usage: unpair(a).0,
            deployment: unpair(a).1,
            request_id: [id0, id1],
            generation,
            status: kind as u16,
            class: (kind >> 16) as u8,
            source: (kind >> 24) as u8,
            input_tokens: unpair(c).0,
            output_tokens: unpair(c).1,
            cached_tokens: unpair(d).0,
            reasoning_tokens: unpair(d).1,
            latency_us: unpair(e).0,
            first_token_us: unpair(e).1,
            debt_tokens: unpair(f).0,
            flags: unpair(f).1,
            limit_key,
            rule_hash,
            reserved: [unpair(g).0, unpair(g).1],
            estimated_tokens: unpair(h).0,
            counted_tokens: unpair(h).1,
            sample: [unpair(i).0, unpair(i).1],
            bill: unpair(j).0,
            cost: unpair(j).1,
            prices: [k as u32 & VERSION, (k >> 24) as u32 & VERSION],
            group: (k >> 48) as u32,
        }
    }
}

impl Region {
    fn event_slot(&self, slot: usize, position: u64) -> Option<&crate::layout::EventRow> {
        let per_worker = self.sizes().ring as usize;
        self.event_rows()
            .get(slot * per_worker + position as usize % per_worker.max(1))
    }

    /// Puts an event on the worker's ring; `false` when it is full.
    pub fn push_event(&self, worker: &Worker, event: &Event) -> bool {
        let WorkerSlot(slot) = worker.slot;
        let Some(row) = self.worker_row(worker.slot) else {
            return false;
        };
        let head = row.ring_head.load(Relaxed);
        if head.wrapping_sub(row.ring_tail.load(Acquire)) >= u64::from(self.sizes().ring) {
            row.ring_dropped.fetch_add(1, Relaxed);
            return false;
        }
        let Some(record) = self.event_slot(usize::from(slot), head) else {
            return false;
        };
        for (word, value) in record.words.iter().zip(event.encode()) {
            word.store(value, Relaxed);
        }
        row.ring_head.store(head + 1, Release);
        true
    }

    /// Positions of every ring's reader and the events lost so far, by worker slot.
    pub fn ring_tails(&self) -> Vec<u64> {
        self.worker_rows()
            .iter()
            .map(|r| r.ring_tail.load(Relaxed))
            .collect()
    }

    /// Events that were dropped because a ring was full, over all workers.
    pub fn events_dropped(&self) -> u64 {
        self.worker_rows()
            .iter()
            .map(|r| r.ring_dropped.load(Relaxed))
            .sum()
    }

    /// Events that wait, over all workers.
    pub fn ring_depth(&self) -> u64 {
        let depth =
            |r: &crate::layout::WorkerRow| r.ring_head.load(Acquire).wrapping_sub(r.ring_tail.load(Relaxed));
        self.worker_rows().iter().map(depth).sum()
    }

    /// Reads up to `most` events of one slot's ring from `tail` on, without consuming them. Returns the new position:
    /// store it together with what was made of the events, then hand it to [`Region::consume_events`].
    pub fn read_events(&self, slot: usize, tail: u64, most: usize, out: &mut Vec<Event>) -> u64 {
        let Some(row) = self.worker_rows().get(slot) else {
            return tail;
        };
        let head = row.ring_head.load(Acquire);
        let waiting = head.wrapping_sub(tail);
        // A position from another life of the region: begin at the oldest record that is still whole.
        let mut at = if waiting > u64::from(self.sizes().ring) {
            row.ring_tail.load(Relaxed)
        } else {
            tail
        };
        for _ in 0..head.wrapping_sub(at).min(most as u64) {
            let Some(record) = self.event_slot(slot, at) else {
                break;
            };
            let mut words = [0; EVENT_WORDS];
            for (to, from) in words.iter_mut().zip(&record.words) {
                *to = from.load(Relaxed);
            }
            out.push(Event::decode(words));
            at = at.wrapping_add(1);
        }
        at
    }

    /// Frees the records before `tail` for the writer.
    pub fn consume_events(&self, slot: usize, tail: u64) {
        if let Some(row) = self.worker_rows().get(slot) {
            row.ring_tail.store(tail, Release);
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use crate::Sizes;

    #[test]
    fn events_arrive_whole_in_order_and_overflow_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let r = Region::open_or_create(
            dir.path(),
            Sizes {
                counters: 64,
                inflight: 64,
                ring: 64,
                usage: 64,
            },
        )
        .unwrap();
        let w = r.attach_worker().unwrap();
        let slot = usize::from(w.slot.0);
        let total = 50_000u64;
        let (mut got, mut tail) = (Vec::new(), 0);
        std::thread::scope(|s| {
            s.spawn(|| {
                for i in 0..total {
                    let e = Event {
                        time_ms: i,
                        usage: i as u32,
                        rule_hash: i * 7,
                        ..Event::default()
                    };
                    while !r.push_event(&w, &e) {
                        std::thread::yield_now();
                    }
                }
            });
            while (got.len() as u64) < total {
                tail = r.read_events(slot, tail, 100, &mut got);
                r.consume_events(slot, tail);
            }
        });
        assert!(
            got.iter()
                .enumerate()
                .all(|(i, e)| e.time_ms == i as u64 && e.rule_hash == e.time_ms * 7)
        );
        let before = r.events_dropped();
        for _ in 0..65 {
            r.push_event(&w, &Event::default());
        }
        assert_eq!((r.events_dropped() - before, r.ring_depth()), (1, 64));
    }

    #[test]
    fn encoding_keeps_every_field() {
        let e = Event {
            time_ms: 1,
            usage: 2,
            deployment: 3,
            request_id: [4, 5],
            generation: 6,
            status: 429,
            class: 3,
            source: 2,
            input_tokens: 7,
            output_tokens: 8,
            cached_tokens: 9,
            reasoning_tokens: 10,
            latency_us: 11,
            first_token_us: 12,
            debt_tokens: 13,
            flags: 14,
            limit_key: 15,
            rule_hash: 16,
            reserved: [17, 18],
            estimated_tokens: 19,
            counted_tokens: 20,
            sample: [21, 22],
            group: 23,
            bill: 24,
            cost: 25,
            prices: [26, 27],
        };
        assert_eq!(Event::decode(e.encode()), e);
        // What a rule in shadow mode would have done is no request, also to those who know of attempts alone.
        let hit = Event::decode(e.shadow(77, 0x81).encode());
        assert_eq!(
            (hit.is_shadow(), hit.is_attempt(), e.is_shadow()),
            (true, true, false)
        );
        assert_eq!(
            (hit.shadow_deeds(), hit.rule_hash, hit.time_ms, hit.usage),
            (0x81, 77, 1, 2)
        );
        assert_eq!(
            (hit.request_id, hit.input_tokens, hit.flags),
            ([4, 5], 0, Event::ATTEMPT)
        );
    }
}
