//! Answers that are not streamed: usage, model and text from JSON in pieces of any size, in constant memory.

use super::found::{Found, MODEL, Short, TextSink, Wants};
use super::role::Role;
use super::usage::{RawUsage, Usage};
use super::whole;
use crate::Api;
use crate::json::{Cursor, find_special, is_number, simple_escape};

/// What an answer's body says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Answer {
    /// The upstream's own figures, if there are any.
    pub usage: Option<Usage>,
    /// The model that the upstream says has answered.
    pub model: Option<Short<MODEL>>,
    /// Whether it is an error report.
    pub error: bool,
    /// Whether text was found (and given to the sink).
    pub text: bool,
    /// Whether the body was not JSON or ended early; what was found until then is kept.
    pub malformed: bool,
}

const fn root(api: Api) -> Role {
    match api {
        Api::Responses => Role::Responses,
        Api::AnthropicMessages | Api::AnthropicCountTokens | Api::AnthropicModels => Role::Anthropic,
        _ => Role::OpenAi,
    }
}

fn answer(found: &Found) -> Answer {
    Answer {
        usage: found.usage(),
        model: found.model,
        error: found.error,
        text: found.text,
        malformed: found.malformed,
    }
}

/// Containers whose role is remembered; deeper ones hold nothing of interest but loose text.
const TRACKED: usize = 16;
/// Deepest nesting that is followed.
const MAX_DEPTH: u8 = 128;
/// Longest key that has a role.
const KEY: usize = 32;
/// Longest number that is read; longer ones are malformed.
const NUMBER: usize = 32;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lex {
    /// A value is due; after `[` an end too.
    Value {
        first: bool,
    },
    /// A key is due; after `{` an end too.
    Key {
        first: bool,
    },
    Colon,
    /// A comma or an end is due.
    After,
    String,
    Escape,
    /// `\u` with this many digits seen.
    Unicode {
        digits: u8,
        code: u16,
    },
    Number,
    /// The rest of `true`, `false` or `null`.
    Literal {
        word: Word,
        at: u8,
    },
    Done,
    Broken,
}

/// Named by one byte, so that the state that every byte of a body changes fits into a word of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    True,
    False,
    Null,
}

impl Word {
    const fn spelling(self) -> &'static [u8] {
        match self {
            Self::True => b"true",
            Self::False => b"false",
            Self::Null => b"null",
        }
    }
}

/// Reads one answer's body as it passes. Create one per response; under 1 KB, no heap.
pub struct JsonWatch {
    lex: Lex,
    /// One bit per open container, the innermost lowest: 1 = object.
    objects: u128,
    depth: u8,
    roles: [Role; TRACKED],
    /// The role of the value that is due or being read.
    role: Role,
    in_key: bool,
    key: Short<KEY>,
    key_too_long: bool,
    /// A number, or the beginning of a string that is remembered.
    small: Short<MODEL>,
    /// A high surrogate that waits for its partner.
    surrogate: u16,
    /// The beginning of a UTF-8 character that a chunk's end has cut.
    partial: Short<4>,
    found: Found,
}

impl JsonWatch {
    /// For one response of `api`.
    #[must_use]
    pub fn new(api: Api) -> Self {
        Self {
            lex: Lex::Value { first: false },
            objects: 0,
            depth: 0,
            roles: [Role::Ignore; TRACKED],
            role: root(api),
            in_key: false,
            key: Short::EMPTY,
            key_too_long: false,
            small: Short::EMPTY,
            surrogate: 0,
            partial: Short::EMPTY,
            found: Found {
                wants: Wants::Model,
                ..Found::default()
            },
        }
    }

    /// The fast way for a body that lies in memory whole. `sink` gets the text only if the usage is not complete:
    /// nobody needs it otherwise. A body that is malformed gives no text either: most often it is the beginning of one
    /// that comes in pieces, and whoever then feeds those would count its text twice.
    pub fn whole<S: TextSink + ?Sized>(body: &[u8], api: Api, sink: &mut S) -> Answer {
        let mut found = Found {
            wants: Wants::Model,
            ..Found::default()
        };
        Self::read::<false, S>(body, api, &mut found, sink);
        if found.malformed || found.error || found.usage().is_some_and(|usage| usage.is_complete()) {
            return answer(&found);
        }
        found.usage = RawUsage::default();
        Self::read::<true, S>(body, api, &mut found, sink);
        answer(&found)
    }

    fn read<const TEXT: bool, S: TextSink + ?Sized>(body: &[u8], api: Api, found: &mut Found, sink: &mut S) {
        let mut cursor = Cursor::new(body);
        cursor.skip_whitespace();
        let read = whole::value::<TEXT, S>(&mut cursor, root(api), found, sink);
        found.malformed = read.and_then(|()| cursor.end()).is_err();
    }

    /// Takes the next bytes of the body, cut anywhere. The text of the answer goes to `sink`.
    pub fn feed<S: TextSink + ?Sized>(&mut self, chunk: &[u8], sink: &mut S) {
        let mut at = 0;
        while let Some(&byte) = chunk.get(at) {
            match self.lex {
                Lex::String => at = self.string(chunk, at, sink),
                Lex::Number if matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E') => {
                    if self.small.is_full() || self.small.as_bytes().len() >= NUMBER {
                        // Too long to be a count: a digit of no number makes it none.
                        self.small.set(b"x");
                    } else if self.small.as_bytes() != b"x" {
                        self.small.push(byte);
                    }
                    at += 1;
                }
                Lex::Number => self.number(sink),
                Lex::Done | Lex::Broken => {
                    if !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
                        self.lex = Lex::Broken;
                    }
                    if self.lex == Lex::Broken {
                        return;
                    }
                    at += 1;
                }
                Lex::Value { .. } | Lex::Key { .. } | Lex::Colon | Lex::After
                    if matches!(byte, b' ' | b'\t' | b'\n' | b'\r') =>
                {
                    at += 1;
                }
                _ => {
                    self.token(byte, sink);
                    at += 1;
                }
            }
        }
    }

    /// Whether what has been fed is one whole JSON value.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.lex == Lex::Done
    }

    /// The end of the body: what was found. A body that ended early is `malformed`.
    pub fn finish<S: TextSink + ?Sized>(&mut self, sink: &mut S) -> Answer {
        if self.lex == Lex::Number && self.depth == 0 {
            self.number(sink);
        }
        self.found.malformed = self.lex != Lex::Done;
        if self.found.malformed {
            self.end_partial(sink);
        }
        answer(&self.found)
    }

    fn token<S: TextSink + ?Sized>(&mut self, byte: u8, sink: &mut S) {
        self.lex = match self.lex {
            Lex::Value { first } => self.value(first, byte),
            Lex::Key { first } => match byte {
                b'"' => {
                    self.in_key = true;
                    self.key.clear();
                    self.key_too_long = false;
                    Lex::String
                }
                b'}' if first => self.close(),
                _ => Lex::Broken,
            },
            Lex::Colon if byte == b':' => {
                self.role = self.parent().map_or(Role::Ignore, |parent| {
                    if self.key_too_long {
                        parent.member(b"")
                    } else {
                        parent.member(self.key.as_bytes())
                    }
                });
                Lex::Value { first: false }
            }
            Lex::After => {
                let object = self.objects & 1 == 1;
                match byte {
                    b',' if object => Lex::Key { first: false },
                    b',' => {
                        self.role = self.parent().map_or(Role::Ignore, Role::element);
                        Lex::Value { first: false }
                    }
                    b'}' if object => self.close(),
                    b']' if !object => self.close(),
                    _ => Lex::Broken,
                }
            }
            Lex::Literal { word, at } if word.spelling().get(usize::from(at)) == Some(&byte) => {
                if usize::from(at) + 1 == word.spelling().len() {
                    self.found.literal(self.role, word == Word::Null);
                    self.value_end()
                } else {
                    Lex::Literal { word, at: at + 1 }
                }
            }
            Lex::Escape if byte == b'u' => Lex::Unicode { digits: 0, code: 0 },
            Lex::Escape => match simple_escape(byte) {
                Some(character) => {
                    self.end_partial(sink);
                    self.character(character, sink);
                    Lex::String
                }
                None => Lex::Broken,
            },
            Lex::Unicode { digits, code } => match char::from(byte).to_digit(16) {
                Some(digit) => {
                    let code = (code << 4) | u16::try_from(digit).unwrap_or(0);
                    if digits == 3 {
                        self.unit(code, sink);
                        Lex::String
                    } else {
                        Lex::Unicode {
                            digits: digits + 1,
                            code,
                        }
                    }
                }
                None => Lex::Broken,
            },
            _ => Lex::Broken,
        };
    }

    /// The first byte of a value; `first`: of the first one in an array, so that the array may end instead.
    fn value(&mut self, first: bool, byte: u8) -> Lex {
        match byte {
            b'"' => {
                self.in_key = false;
                self.small.clear();
                Lex::String
            }
            b'{' | b'[' => self.open(byte == b'{'),
            b'-' | b'0'..=b'9' => {
                self.small.clear();
                self.small.push(byte);
                Lex::Number
            }
            b't' => Lex::Literal {
                word: Word::True,
                at: 1,
            },
            b'f' => Lex::Literal {
                word: Word::False,
                at: 1,
            },
            b'n' => Lex::Literal {
                word: Word::Null,
                at: 1,
            },
            b']' if first => self.close(),
            _ => Lex::Broken,
        }
    }

    fn parent(&self) -> Option<Role> {
        let depth = usize::from(self.depth);
        let role = self.roles.get(depth.checked_sub(1)?.min(TRACKED - 1)).copied()?;
        // Below the tracked levels only what is loose stays so.
        if depth > TRACKED && role != Role::Loose {
            Some(Role::Ignore)
        } else {
            Some(role)
        }
    }

    fn open(&mut self, object: bool) -> Lex {
        if self.depth >= MAX_DEPTH {
            return Lex::Broken;
        }
        if object {
            self.found.object(self.role);
        } else if self.role == Role::Error {
            self.found.error = true;
        }
        // An object where an array was due has other members, and the other way round.
        if let Some(slot) = self.roles.get_mut(usize::from(self.depth)) {
            *slot = self.role;
        }
        self.depth += 1;
        self.objects = (self.objects << 1) | u128::from(object);
        if object {
            Lex::Key { first: true }
        } else {
            self.role = self.parent().map_or(Role::Ignore, Role::element);
            Lex::Value { first: true }
        }
    }

    fn close(&mut self) -> Lex {
        self.depth -= 1;
        self.objects >>= 1;
        self.value_end()
    }

    const fn value_end(&self) -> Lex {
        if self.depth == 0 { Lex::Done } else { Lex::After }
    }

    fn number<S: TextSink + ?Sized>(&mut self, sink: &mut S) {
        let number = self.small;
        let long = number.as_bytes() == b"x";
        self.lex = if long || is_number(number.as_bytes()) {
            self.value_end()
        } else {
            Lex::Broken
        };
        if self.role == Role::Loose {
            self.found.text = true;
            sink.text(number.as_str());
        } else if long {
            self.found.string(self.role, b"");
        } else if self.lex != Lex::Broken {
            self.found.number(self.role, number.as_bytes());
        }
    }

    /// Whether the string being read is text of the answer.
    fn is_text(&self) -> bool {
        if self.in_key {
            self.parent() == Some(Role::Loose)
        } else {
            self.role.is_text()
        }
    }

    fn string<S: TextSink + ?Sized>(&mut self, chunk: &[u8], at: usize, sink: &mut S) -> usize {
        let end = find_special(chunk, at);
        if end > at {
            self.end_surrogate(sink);
            let run = chunk.get(at..end).unwrap_or_default();
            if self.is_text() {
                self.found.text = true;
                self.run(run, sink);
            }
            self.remember(run);
        }
        match chunk.get(end) {
            None => return end,
            Some(b'\\') => self.lex = Lex::Escape,
            Some(b'"') => {
                self.end_surrogate(sink);
                self.end_partial(sink);
                if self.in_key {
                    self.lex = Lex::Colon;
                } else {
                    if !self.role.is_text() {
                        let value = self.small;
                        self.found.string(self.role, value.as_bytes());
                    }
                    self.lex = self.value_end();
                }
            }
            Some(_) => self.lex = Lex::Broken,
        }
        end + 1
    }

    /// Keeps the beginning of keys and of strings that are not text.
    fn remember(&mut self, bytes: &[u8]) {
        if self.in_key {
            self.key_too_long |= self.key.as_bytes().len() + bytes.len() > KEY;
            self.key.extend(bytes);
        } else if self.role == Role::Model {
            self.small.extend(bytes);
        }
    }

    fn character<S: TextSink + ?Sized>(&mut self, character: char, sink: &mut S) {
        self.end_surrogate(sink);
        self.plain(character, sink);
    }

    fn plain<S: TextSink + ?Sized>(&mut self, character: char, sink: &mut S) {
        let mut buffer = [0; 4];
        let text = character.encode_utf8(&mut buffer);
        if self.is_text() {
            self.found.text = true;
            sink.text(text);
        }
        self.remember(text.as_bytes());
    }

    /// A `\uXXXX`.
    fn unit<S: TextSink + ?Sized>(&mut self, code: u16, sink: &mut S) {
        self.end_partial(sink);
        match (self.surrogate, code) {
            (high @ 0xd800..0xdc00, 0xdc00..0xe000) => {
                self.surrogate = 0;
                let code = 0x1_0000 + ((u32::from(high) - 0xd800) << 10) + (u32::from(code) - 0xdc00);
                self.plain(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), sink);
            }
            (_, 0xd800..0xdc00) => {
                self.end_surrogate(sink);
                self.surrogate = code;
            }
            _ => {
                let character = char::from_u32(u32::from(code)).unwrap_or(char::REPLACEMENT_CHARACTER);
                self.character(character, sink);
            }
        }
    }

    /// A high surrogate stayed alone.
    fn end_surrogate<S: TextSink + ?Sized>(&mut self, sink: &mut S) {
        if self.surrogate != 0 {
            self.surrogate = 0;
            self.plain(char::REPLACEMENT_CHARACTER, sink);
        }
    }

    /// A cut character was never finished.
    fn end_partial<S: TextSink + ?Sized>(&mut self, sink: &mut S) {
        if !self.partial.is_empty() {
            self.partial.clear();
            sink.text("\u{fffd}");
        }
    }

    /// Gives plain bytes of a text to the sink; a character cut at the end waits for the next chunk.
    fn run<S: TextSink + ?Sized>(&mut self, mut bytes: &[u8], sink: &mut S) {
        while !self.partial.is_empty() {
            let Some((&byte, rest)) = bytes.split_first() else {
                return;
            };
            let mut longer = self.partial;
            longer.push(byte);
            match std::str::from_utf8(longer.as_bytes()) {
                Ok(text) => {
                    sink.text(text);
                    self.partial.clear();
                    bytes = rest;
                }
                Err(error) if error.error_len().is_none() => {
                    self.partial = longer;
                    bytes = rest;
                }
                // The new byte does not continue the character: it begins something itself.
                Err(_) => self.end_partial(sink),
            }
        }
        while !bytes.is_empty() {
            match std::str::from_utf8(bytes) {
                Ok(text) => {
                    sink.text(text);
                    return;
                }
                Err(error) => {
                    let (valid, rest) = bytes.split_at(error.valid_up_to());
                    if let Ok(text) = std::str::from_utf8(valid)
                        && !text.is_empty()
                    {
                        sink.text(text);
                    }
                    let Some(bad) = error.error_len() else {
                        self.partial.set(rest);
                        return;
                    };
                    sink.text("\u{fffd}");
                    bytes = rest.get(bad..).unwrap_or_default();
                }
            }
        }
    }
}
