//! One text, one tokenizer: our ids, our count, and our count of the text in parts, against an oracle's ids.

use tollgate_meter::TokenCounter;
use tollgate_meter::tokenizer::{Counter, StepCounter, StreamCounter, Vocabulary, builtin_by_name};

use crate::subject::{Oracle, Subject};
use crate::texts::Rng;

/// Longest piece below which a stream is exact; see `StreamCounter`.
const EXACT_PIECE: usize = 8 * 1024;

/// A counter over a subject's vocabulary.
pub fn counter(subject: &Subject) -> Counter<'_> {
    counter_of(&subject.name, &subject.buffer)
}

/// A counter over the vocabulary in a buffer, or over the built-in one of a name if the buffer is empty.
pub fn counter_of<'b>(name: &str, buffer: &'b [u8]) -> Counter<'b> {
    let vocabulary = match builtin_by_name(name) {
        Some(vocabulary) if buffer.is_empty() => vocabulary,
        _ => Vocabulary::from_bytes(buffer),
    };
    Counter::new(vocabulary.expect("a readable vocabulary"))
}

/// Compares with one oracle and counts in parts of random size; describes the first difference.
pub fn compare(oracle: &Oracle, counter: &mut Counter<'_>, text: &str, rng: &mut Rng) -> Result<(), String> {
    let text = &*oracle.comparable(text);
    let reference = oracle.encode(text);
    let ours = counter.encode(text);
    if ours != reference {
        let at = ours.iter().zip(&reference).take_while(|(a, b)| a == b).count();
        return Err(format!(
            "token {at}: ours {:?}, {} {:?}{}",
            &ours[at..ours.len().min(at + 6)],
            oracle.name(),
            &reference[at..reference.len().min(at + 6)],
            near(text, at, ours.len().max(1)),
        ));
    }
    let count = counter.count(text);
    if count != reference.len() as u64 {
        return Err(format!(
            "count {count} for {} ids{}",
            reference.len(),
            near(text, 0, 1)
        ));
    }
    let largest = rng.pick(&[1, 3, 17, 300, 5000, 70_000]);
    let (mut stream, mut steps, mut rest) = (StreamCounter::new(), StepCounter::default(), text);
    while !rest.is_empty() {
        let size = rest.ceil_char_boundary(1 + rng.below(largest).min(rest.len() - 1));
        let (part, after) = rest.split_at(size);
        stream.push(counter, part);
        steps.feed(counter, part, false);
        rest = after;
    }
    steps.feed(counter, "", true);
    let stepped = loop {
        if let Some(count) = steps.step(counter, &mut (1 + rng.below(largest))) {
            break count;
        }
    };
    if stepped != count {
        return Err(format!(
            "{stepped} for {count} in steps of up to {largest}{}",
            near(text, 0, 1)
        ));
    }
    let streamed = stream.finish(counter);
    if !counter.vocabulary().is_unigram() && longest_piece(counter, text) > EXACT_PIECE {
        return Ok(());
    }
    if streamed != count {
        return Err(format!(
            "streamed {streamed} for {count} in parts of up to {largest}{}",
            near(text, 0, 1)
        ));
    }
    Ok(())
}

fn longest_piece(counter: &Counter<'_>, text: &str) -> usize {
    if text.len() <= EXACT_PIECE {
        return 0;
    }
    let pattern = counter.vocabulary().pattern();
    let (mut at, mut longest) = (0, 0);
    while at < text.len() {
        let end = pattern.piece_end(text, at);
        longest = longest.max(end - at);
        at = end;
    }
    longest
}

/// About where token `at` of `of` stands in a text; all of a short text.
fn near(text: &str, at: usize, of: usize) -> String {
    if text.len() < 300 {
        return format!(" in {text:?}");
    }
    let middle = text.len() * at / of;
    let start = text.floor_char_boundary(middle.saturating_sub(150));
    let end = text.ceil_char_boundary((middle + 150).min(text.len()));
    format!(" near {:?}", &text[start..end])
}
