//! The exact count of a request's input, with pauses: for bodies that take longer than others should wait.

use std::ops::Range;

use super::count::{Beside, InputCount, walk};
use super::error::ScanError;
use super::formula::{Formula, Part};
use super::input::{Image, InputSink};
use crate::counting::{ModelCounter, TextSteps};
use crate::json::{Pause, RawStr, decode_lossy, separable};
use crate::{Api, TokenCounter};

/// Texts up to this size are counted at once.
const SMALL: usize = 512;
/// Raw bytes of a text that are decoded at once.
const DECODED: usize = 8 * 1024;
/// Decoding and preparing take about this part of the time that counting takes.
const CHEAPER: usize = 8;
/// What finding the next text costs, in bytes of text.
const EACH: usize = 16;

/// Counts what [`super::count_input`] counts, and comes to the same result, in steps of a size that the caller chooses.
///
/// The body is walked once, at the speed of [`super::scan()`], for the places of its texts; these take less memory than the
/// body itself. A text of more than 512 bytes is copied as it is decoded.
#[derive(Debug)]
pub struct InputSteps {
    places: Places,
    sum: InputCount,
    text: Option<OpenText>,
}

/// Where texts are in a body: for each the distance from the end of the one before (it may lie before that), and its
/// length with whether it has escapes, as LEB128 numbers. A text takes at least its two quotes and a separator, its place
/// two bytes if it is short.
#[derive(Debug, Default)]
struct Places {
    bytes: Vec<u8>,
    read: usize,
    end: usize,
}

impl Places {
    fn push(&mut self, range: Range<usize>, escaped: bool) {
        // A distance can be negative: its sign is in the lowest bit.
        let distance = range.start.wrapping_sub(self.end).cast_signed();
        let sign = (distance >> (isize::BITS - 1)).cast_unsigned();
        self.number(((distance << 1).cast_unsigned()) ^ sign);
        self.number(range.len() << 1 | usize::from(escaped));
        self.end = range.end;
    }

    fn number(&mut self, mut number: usize) {
        while number >= 0x80 {
            self.bytes.push((number & 0x7f) as u8 | 0x80);
            number >>= 7;
        }
        self.bytes.push(number as u8);
    }

    /// Back to the first place.
    fn rewind(&mut self) {
        (self.read, self.end) = (0, 0);
    }

    fn next(&mut self) -> Option<(Range<usize>, bool)> {
        let distance = self.next_number()?;
        let length = self.next_number()?;
        let sign = (distance & 1).wrapping_neg();
        let start = self.end.wrapping_add(distance >> 1 ^ sign);
        self.end = start.wrapping_add(length >> 1);
        Some((start..self.end, length & 1 == 1))
    }

    fn next_number(&mut self) -> Option<usize> {
        let mut number = 0;
        for shift in (0..usize::BITS).step_by(7) {
            let byte = *self.bytes.get(self.read)?;
            self.read += 1;
            number |= usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }
}

/// Notes where texts are and adds up the rest.
struct Plan<'b> {
    body: &'b [u8],
    places: Places,
    beside: Beside<'b>,
}

impl InputSink for Plan<'_> {
    fn text(&mut self, text: RawStr<'_>) {
        if text.raw.is_empty() {
            return;
        }
        // Every text is a part of the body.
        let start = text.raw.as_ptr().addr().wrapping_sub(self.body.as_ptr().addr());
        self.places
            .push(start..start.wrapping_add(text.raw.len()), text.escaped);
    }

    fn token_text(&mut self, token: &[u8]) {
        self.text(RawStr {
            raw: token,
            escaped: false,
        });
    }

    fn part(&mut self, part: Part) {
        self.beside.part(part);
    }

    fn ids(&mut self, tokens: u64) {
        self.beside.add(tokens);
    }

    fn audio(&mut self, base64: &[u8]) {
        self.beside.audio(base64);
    }

    fn image(&mut self, image: Image<'_>) {
        self.beside.image(&image);
    }

    fn estimated(&mut self, tokens: u64) {
        self.beside.estimated(tokens);
    }
}

/// A text that is being counted.
#[derive(Debug)]
struct OpenText {
    /// What of it is still to be decoded.
    raw: Range<usize>,
    escaped: bool,
    steps: TextSteps,
}

impl InputSteps {
    /// Walks a body that [`super::scan()`] has accepted and notes what is to be counted. Counts nothing yet.
    ///
    /// # Errors
    /// As [`super::count_input`].
    pub fn begin(body: &[u8], api: Api, formula: &Formula) -> Result<Self, ScanError> {
        Self::walk(body, api, formula, Pause::NEVER)
    }

    /// The same with pauses: `pause` is called at most 16 KB apart.
    ///
    /// # Errors
    /// As [`super::count_input`].
    pub fn begin_pausing(
        body: &[u8],
        api: Api,
        formula: &Formula,
        pause: &dyn Fn(),
    ) -> Result<Self, ScanError> {
        Self::walk(body, api, formula, Pause::calling(pause))
    }

    fn walk(body: &[u8], api: Api, formula: &Formula, pause: Pause<'_>) -> Result<Self, ScanError> {
        let mut plan = Plan {
            body,
            places: Places::default(),
            beside: Beside::new(formula),
        };
        plan.beside.count.hidden_input = walk(body, api, &mut plan, pause)?;
        plan.places.rewind();
        Ok(Self {
            places: plan.places,
            sum: plan.beside.count,
            text: None,
        })
    }

    /// Counts on for as long as about `bytes` bytes of text take. `body` and how is counted must be the same at each
    /// step. The result once all is counted.
    pub fn step(&mut self, body: &[u8], counter: &mut ModelCounter<'_>, bytes: usize) -> Option<InputCount> {
        let mut left = bytes;
        let mut scratch = String::new();
        while left > 0 {
            if let Some(text) = &mut self.text {
                if let Some(units) = text.step(body, counter, &mut left) {
                    self.sum.add_text(units);
                    self.text = None;
                }
                continue;
            }
            let Some((range, escaped)) = self.places.next() else {
                return Some(self.sum.finish(counter));
            };
            left = left.saturating_sub(range.len().min(SMALL) + EACH);
            if range.len() > SMALL {
                self.text = Some(OpenText::new(range, escaped));
                continue;
            }
            let raw = body.get(range).unwrap_or_default();
            let units = counter.count(RawStr { raw, escaped }.text(&mut scratch));
            self.sum.add_text(units);
        }
        None
    }
}

impl OpenText {
    fn new(raw: Range<usize>, escaped: bool) -> Self {
        Self {
            raw,
            escaped,
            steps: TextSteps::default(),
        }
    }

    /// Decodes on, then counts on; takes from `left` what that costs. The text's units at the end.
    fn step(&mut self, body: &[u8], counter: &mut ModelCounter<'_>, left: &mut usize) -> Option<u64> {
        let raw = body.get(self.raw.clone()).unwrap_or_default();
        if raw.is_empty() {
            return counter.step(&mut self.steps, left);
        }
        let end = if self.escaped {
            separable(raw, DECODED)
        } else {
            plain_part(raw, DECODED)
        };
        let mut part = String::new();
        decode_lossy(raw.get(..end).unwrap_or_default(), &mut part);
        self.raw.start += end;
        counter.feed(&mut self.steps, &part, self.raw.is_empty());
        *left = left.saturating_sub((end / CHEAPER).max(1));
        None
    }
}

/// Length of a beginning of at most `most` bytes that ends where a character does.
fn plain_part(raw: &[u8], most: usize) -> usize {
    let mut end = raw.len().min(most);
    while end > 0 && raw.get(end).is_some_and(|byte| byte & 0xc0 == 0x80) {
        end -= 1;
    }
    // Nothing but continuation bytes is no UTF-8: what comes of it does not matter, but that it goes on does.
    if end == 0 { raw.len().min(most) } else { end }
}

#[cfg(test)]
mod tests {
    use super::super::count_input;
    use super::*;
    use crate::counting::{CharacterClass, TextPattern, TextRule};
    use crate::tokenizer::{Counter, builtin};
    use proptest::prelude::*;
    use serde_json::json;

    fn in_steps(body: &[u8], api: Api, counter: &mut ModelCounter<'_>, bytes: usize) -> InputCount {
        let mut steps = InputSteps::begin(body, api, &Formula::default()).unwrap();
        loop {
            if let Some(count) = steps.step(body, counter, bytes) {
                return count;
            }
        }
    }

    fn whole(body: &[u8], api: Api, counter: &mut ModelCounter<'_>) -> InputCount {
        count_input(body, api, &Formula::default(), counter).unwrap()
    }

    /// By each kind of rule.
    fn rules() -> [TextRule; 4] {
        let pattern = TextPattern::new("[a-f]+x?", 1_500).unwrap();
        [
            TextRule::default(),
            TextRule {
                factor: 1_370,
                minimum: 7,
                ..TextRule::default()
            },
            TextRule {
                patterns: vec![pattern],
                ..TextRule::default()
            },
            TextRule {
                ratios: Some([333; CharacterClass::COUNT]),
                ..TextRule::default()
            },
        ]
    }

    fn same(body: &[u8], api: Api) {
        for rule in rules() {
            let mut engine = Counter::new(builtin().unwrap());
            let mut counter = ModelCounter::new(&rule, Some(&mut engine));
            let expected = whole(body, api, &mut counter);
            for bytes in [1, 100, 4096, usize::MAX] {
                let counted = in_steps(body, api, &mut counter, bytes);
                assert_eq!(counted, expected, "{bytes} bytes a step, {rule:?}");
            }
        }
        let rule = TextRule::default();
        let mut guessing = ModelCounter::new(&rule, None);
        let expected = whole(body, api, &mut guessing);
        assert_eq!(in_steps(body, api, &mut guessing, 100), expected);
    }

    fn chat(text: &str) -> Vec<u8> {
        json!({ "messages": [{ "role": "user", "content": text }], "model": "gpt-4o" })
            .to_string()
            .into_bytes()
    }

    #[test]
    fn worst_texts_come_to_the_same_in_steps() {
        let letters: String = (0_u32..60_000)
            .map(|i| char::from(b'a' + (i.wrapping_mul(2_654_435_761) >> 13) as u8 % 26))
            .collect();
        for text in [
            " ".repeat(100_000),
            "-".repeat(100_000),
            "a".repeat(50_001),
            format!("{}x", " ".repeat(30_000)),
            "\u{a0}1".repeat(20_000),
            "\n".repeat(40_000),
            "\"\\\n".repeat(20_000),
            "\u{4f60}\u{597d}".repeat(10_000),
            "\u{1f600}".repeat(9_000),
            "The ferry leaves at nine. ".repeat(3_000),
            letters,
        ] {
            same(&chat(&text), Api::ChatCompletions);
        }
    }

    #[test]
    fn formulas_images_and_many_small_texts_are_the_same() {
        let many: Vec<_> = (0..3_000)
            .map(|i| json!({ "role": "user", "content": i.to_string() }))
            .collect();
        let parts = json!({ "messages": [
            { "role": "user", "name": "n", "content": [
                { "type": "text", "text": "x ".repeat(2_000) },
                { "type": "image_url", "image_url": { "url": "https://example.invalid/a.png", "detail": "low" } },
                { "type": "file", "file": { "file_id": "f" } },
            ] },
        ], "tools": [{ "type": "function", "function": { "name": "f", "parameters": { "properties": { "a": { "type": "string" } } } } }],
            "model": "gpt-4o-mini" });
        // A text that comes after what stands behind it.
        let source = json!({ "messages": [{ "role": "user", "content": [{ "type": "document", "source":
            { "type": "text", "data": "d ".repeat(600), "content": "c ".repeat(600) } }] }], "model": "m" });
        same(
            json!({ "messages": many, "model": "m" }).to_string().as_bytes(),
            Api::ChatCompletions,
        );
        same(parts.to_string().as_bytes(), Api::ChatCompletions);
        same(source.to_string().as_bytes(), Api::AnthropicMessages);
        same(br#"{"prompt":["a","bc",[1,2,3]],"model":"m"}"#, Api::Completions);
        same(b"{}", Api::ChatCompletions);
    }

    #[test]
    fn places_take_less_than_the_body() {
        let many = vec!["a"; 10_000];
        let body = json!({ "input": many }).to_string();
        let steps = InputSteps::begin(body.as_bytes(), Api::Embeddings, &Formula::default()).unwrap();
        assert!(
            steps.places.bytes.len() < body.len(),
            "{} of {}",
            steps.places.bytes.len(),
            body.len()
        );
    }

    #[test]
    fn a_step_does_not_count_much_more_than_it_may() {
        let body = chat(&"-".repeat(200_000));
        let rule = TextRule::default();
        let mut engine = Counter::new(builtin().unwrap());
        let mut counter = ModelCounter::new(&rule, Some(&mut engine));
        let mut steps = InputSteps::begin(&body, Api::ChatCompletions, &Formula::default()).unwrap();
        let mut number = 1;
        while steps.step(&body, &mut counter, 2_000).is_none() {
            number += 1;
        }
        assert!(number > 90, "{number} steps");
    }

    #[test]
    fn a_walk_pauses_and_comes_to_the_same() {
        let body = chat(&"word \"".repeat(100_000));
        let pauses = std::cell::Cell::new(0);
        let pause = || pauses.set(pauses.get() + 1);
        let formula = Formula::default();
        let plain = InputSteps::begin(&body, Api::ChatCompletions, &formula).unwrap();
        let pausing = InputSteps::begin_pausing(&body, Api::ChatCompletions, &formula, &pause).unwrap();
        assert_eq!(format!("{plain:?}"), format!("{pausing:?}"));
        assert!(pauses.get() > 30, "{}", pauses.get());
    }

    #[test]
    fn what_is_no_utf8_ends_all_the_same() {
        let rule = TextRule::default();
        let mut engine = Counter::new(builtin().unwrap());
        let mut counter = ModelCounter::new(&rule, Some(&mut engine));
        let mut body = chat(&"x".repeat(20_000));
        let steps = InputSteps::begin(&body, Api::ChatCompletions, &Formula::default());
        body.iter_mut().for_each(|byte| *byte = 0x80);
        let mut steps = steps.unwrap();
        assert!((0..10_000).any(|_| steps.step(&body, &mut counter, 1_000).is_some()));
    }

    proptest! {
        #[test]
        fn any_text_comes_to_the_same_in_steps(
            texts in proptest::collection::vec("(.|[ a\n\"\\\\\u{1f600}]){0,900}", 0..4),
            bytes in 1_usize..3_000,
            which in 0_usize..4,
        ) {
            let rules = rules();
        let mut engine = Counter::new(builtin().unwrap());
        let mut counter = ModelCounter::new(&rules[which], Some(&mut engine));
            let messages: Vec<_> = texts.iter().map(|text| json!({ "role": "user", "content": text })).collect();
            // Other writers of JSON escape what is not ASCII.
            let plain = json!({ "messages": messages }).to_string();
            let mut escaped = String::new();
            for unit in plain.encode_utf16() {
                match u8::try_from(unit) {
                    Ok(byte) if byte.is_ascii() => escaped.push(byte.into()),
                    _ => escaped.push_str(&format!("\\u{unit:04x}")),
                }
            }
            for body in [plain, escaped] {
                let expected = whole(body.as_bytes(), Api::ChatCompletions, &mut counter);
                prop_assert_eq!(in_steps(body.as_bytes(), Api::ChatCompletions, &mut counter, bytes), expected);
            }
        }
    }
}
