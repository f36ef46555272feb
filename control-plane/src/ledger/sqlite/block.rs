//! Blocks of the request log: many lines in one value.
//!
//! A row and two index entries for each request cost more than all else that the daemon does with it; a line in a
//! block costs some fifty bytes. Which channels, models and classes stand in a block is said by its index, so that a
//! search opens only blocks that hold something wanted.
//!
//! A line: time (difference to the line before), who, deployment (0 for none), class and source in one byte, status,
//! generation, request id (16 bytes), flags with two more bits for "a limit follows" and "a rule follows", tokens,
//! latency, time to the first byte plus one (0 for none), bill, cost and the versions of their prices, limit, rule (8 bytes
//! each). A line whose flags have bit 4 ends with its experiment's group.
//! An index: for each who, ascending, the difference to the one before and a bit for each class.

use std::collections::BTreeMap;

use tollgate_shm::{Class, Event};

use super::bytes::{Bytes, put, put_signed};

/// Lines of a full block: a search decodes whole blocks.
pub const BLOCK_LINES: u32 = 512;
/// Lines that are enough for a block when its batch ends. Until there are, it is written anew with each batch.
pub const ENOUGH_LINES: u32 = BLOCK_LINES / 2;

/// Stands where a group's number would: the line is an attempt, which is in none.
const IN_NO_GROUP: u32 = u32::MAX;

/// Bit of a line's flags, in the place of [`Event::ATTEMPT`]: a group follows.
const GROUPED: u32 = 1 << 4;

/// A line as blocks hold it; names are numbers of the store's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredLine {
    /// Unix milliseconds.
    pub time_ms: u64,
    /// Channel and model.
    pub who: u32,
    /// Deployment, 0 for none.
    pub deployment: u32,
    /// Experiment's group, 0 for none.
    pub group: u32,
    /// The rest of it.
    pub event: Event,
}

/// A block that is being filled.
#[derive(Clone, Debug, Default)]
pub struct Block {
    lines: u32,
    from_ms: u64,
    to_ms: u64,
    last_ms: u64,
    who: BTreeMap<u32, u8>,
    data: Vec<u8>,
}

fn class_of(event: &Event) -> u8 {
    Class::from_number(event.class.into()).unwrap_or(Class::Internal) as u8
}

impl Block {
    /// A block with these lines; `None` if they are damaged.
    pub fn read(data: &[u8]) -> Option<Block> {
        let mut block = Block::default();
        for line in lines(data) {
            block.add(&line?);
        }
        Some(block)
    }

    /// Empties it, but for its memory.
    pub fn clear(&mut self) {
        let mut data = std::mem::take(&mut self.data);
        data.clear();
        *self = Block {
            data,
            ..Block::default()
        };
    }

    /// Lines in it.
    pub fn lines(&self) -> u32 {
        self.lines
    }

    /// Earliest and latest time in it.
    pub fn times_ms(&self) -> (u64, u64) {
        (self.from_ms, self.to_ms)
    }

    /// The lines.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// Who stands in it, for [`holds`].
    pub fn index(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.who.len() * 3);
        let mut before = 0;
        for (who, classes) in &self.who {
            put(&mut out, u64::from(who - before));
            out.push(*classes);
            before = *who;
        }
        out
    }

    /// Appends a line.
    pub fn add(&mut self, line: &StoredLine) {
        let event = &line.event;
        let class = class_of(event);
        (self.from_ms, self.to_ms) = if self.lines == 0 {
            (line.time_ms, line.time_ms)
        } else {
            (self.from_ms.min(line.time_ms), self.to_ms.max(line.time_ms))
        };
        self.lines += 1;
        *self.who.entry(line.who).or_default() |= 1 << class;

        let out = &mut self.data;
        put_signed(out, line.time_ms.wrapping_sub(self.last_ms).cast_signed());
        self.last_ms = line.time_ms;
        put(out, line.who.into());
        put(out, line.deployment.into());
        out.push(class | event.source << 4);
        put(out, event.status.into());
        put(out, event.generation.into());
        for half in event.request_id {
            out.extend_from_slice(&half.to_le_bytes());
        }
        let (limit, rule) = (event.limit_key != 0, event.rule_hash != 0);
        let group = match event.is_attempt() {
            true => IN_NO_GROUP,
            false => line.group,
        };
        let grouped = if group == 0 { 0 } else { GROUPED };
        put(
            out,
            u64::from(event.flags & !GROUPED | grouped) << 2 | u64::from(limit) << 1 | u64::from(rule),
        );
        let [reserved_input, reserved_output] = event.reserved;
        let [price, provider_price] = event.prices;
        for n in [
            event.input_tokens,
            event.output_tokens,
            event.cached_tokens,
            event.reasoning_tokens,
            event.estimated_tokens,
            event.counted_tokens,
            event.debt_tokens,
            reserved_input,
            reserved_output,
            event.latency_us,
            event.first_token_us.wrapping_add(1),
            event.bill,
            event.cost,
            price,
            provider_price,
        ] {
            put(out, n.into());
        }
        for (there, word) in [(limit, event.limit_key), (rule, event.rule_hash)] {
            if there {
                out.extend_from_slice(&word.to_le_bytes());
            }
        }
        if group != 0 {
            put(out, group.into());
        }
    }
}

/// Whether a block with this index has a line of one of these and one of these classes (a bit each); `None` if the
/// index is damaged.
pub fn holds(index: &[u8], mut wanted: impl FnMut(u32) -> bool, classes: u8) -> Option<bool> {
    let mut bytes = Bytes(index);
    let mut who = 0u32;
    while !bytes.is_empty() {
        who = who.checked_add(bytes.small()?)?;
        let (there, rest) = bytes.0.split_first()?;
        bytes.0 = rest;
        if there & classes != 0 && wanted(who) {
            return Some(true);
        }
    }
    Some(false)
}

/// The lines of a block, oldest first; ends with `None` where they are damaged.
pub fn lines(data: &[u8]) -> impl Iterator<Item = Option<StoredLine>> {
    let mut bytes = Bytes(data);
    let mut last_ms = 0u64;
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let line = line(&mut bytes, last_ms);
        match &line {
            Some(line) => last_ms = line.time_ms,
            None => bytes = Bytes(&[]),
        }
        Some(line)
    })
}

fn line(bytes: &mut Bytes<'_>, last_ms: u64) -> Option<StoredLine> {
    let time_ms = last_ms.wrapping_add(bytes.signed()?.cast_unsigned());
    let (who, deployment) = (bytes.small()?, bytes.small()?);
    let (kind, rest) = bytes.0.split_first()?;
    bytes.0 = rest;
    let status = u16::try_from(bytes.number()?).ok()?;
    let generation = bytes.small()?;
    let request_id = [bytes.word()?, bytes.word()?];
    let flags = bytes.number()?;
    let mut numbers = [0; 15];
    for n in &mut numbers {
        *n = bytes.small()?;
    }
    let [
        input_tokens,
        output_tokens,
        cached_tokens,
        reasoning_tokens,
        estimated_tokens,
        counted_tokens,
        debt_tokens,
        reserved_input,
        reserved_output,
        latency_us,
        first_token_us,
        bill,
        cost,
        price,
        provider_price,
    ] = numbers;
    let limit_key = if flags & 2 == 0 { 0 } else { bytes.word()? };
    let rule_hash = if flags & 1 == 0 { 0 } else { bytes.word()? };
    let flags = u32::try_from(flags >> 2).ok()?;
    let group = if flags & GROUPED == 0 { 0 } else { bytes.small()? };
    let (group, attempt) = match group {
        IN_NO_GROUP => (0, Event::ATTEMPT),
        group => (group, 0),
    };
    Some(StoredLine {
        time_ms,
        who,
        deployment,
        group,
        event: Event {
            time_ms,
            request_id,
            generation,
            status,
            class: kind & 15,
            source: kind >> 4,
            input_tokens,
            output_tokens,
            cached_tokens,
            reasoning_tokens,
            latency_us,
            first_token_us: first_token_us.wrapping_sub(1),
            debt_tokens,
            flags: flags & !GROUPED | attempt,
            limit_key,
            rule_hash,
            reserved: [reserved_input, reserved_output],
            estimated_tokens,
            counted_tokens,
            bill,
            cost,
            prices: [price, provider_price],
            ..Event::default()
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_line() -> impl Strategy<Value = StoredLine> {
        let words = proptest::array::uniform5(any::<u64>());
        let numbers = proptest::array::uniform20((any::<u32>(), 0u32..32).prop_map(|(n, shift)| n >> shift));
        (words, numbers, 0u8..8, 0u8..16, any::<u16>(), 0u8..4).prop_map(
            |([time_ms, high, low, limit, rule], n, class, source, status, there)| StoredLine {
                time_ms,
                who: n[0],
                deployment: n[1],
                group: if source < 4 || n[10] & Event::ATTEMPT != 0 {
                    0
                } else {
                    n[15]
                },
                event: Event {
                    time_ms,
                    request_id: [high, low],
                    generation: n[2],
                    status,
                    class,
                    source,
                    input_tokens: n[3],
                    output_tokens: n[4],
                    cached_tokens: n[5],
                    reasoning_tokens: n[6],
                    latency_us: n[7],
                    first_token_us: n[8],
                    debt_tokens: n[9],
                    flags: n[10],
                    limit_key: if there & 1 == 0 { 0 } else { limit },
                    rule_hash: if there & 2 == 0 { 0 } else { rule },
                    reserved: [n[11], n[12]],
                    estimated_tokens: n[13],
                    counted_tokens: n[14],
                    bill: n[15],
                    cost: n[16],
                    prices: [n[17], n[18]],
                    ..Event::default()
                },
            },
        )
    }

    proptest! {
        #[test]
        fn lines_come_back_and_the_index_knows_them(written in proptest::collection::vec(any_line(), 1..20)) {
            let mut block = Block::default();
            for line in &written {
                block.add(line);
            }
            let read: Vec<_> = lines(block.data()).map(|l| l.unwrap()).collect();
            prop_assert_eq!(&read, &written);
            let again = Block::read(block.data()).unwrap();
            prop_assert_eq!(again.index(), block.index());
            prop_assert_eq!((again.lines(), again.times_ms()), (written.len() as u32, block.times_ms()));
            prop_assert_eq!(block.times_ms().0, written.iter().map(|l| l.time_ms).min().unwrap());
            prop_assert_eq!(block.times_ms().1, written.iter().map(|l| l.time_ms).max().unwrap());
            for who in written.iter().map(|l| l.who).chain([7]) {
                for class in 0..8 {
                    let there = written.iter().any(|l| l.who == who && l.event.class == class);
                    prop_assert_eq!(holds(&block.index(), |w| w == who, 1 << class), Some(there));
                }
            }
            // A block that was cut short is not taken for a whole one.
            let cut = &block.data()[..block.data().len() - 1];
            prop_assert!(Block::read(cut).is_none());
        }

        #[test]
        fn foreign_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = lines(&bytes).count();
            let _ = holds(&bytes, |_| false, 255);
        }
    }
}
