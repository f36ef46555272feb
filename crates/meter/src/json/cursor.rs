//! The cursor: one pass, strict, nesting bounded.

use super::lex::find_special;
use super::pause::{EVERY, Pause};
use super::text::decode_lossy;
use super::{Fault, SyntaxError, number};

/// Deepest nesting of arrays and objects.
pub(crate) const MAX_DEPTH: u32 = 128;

/// A string's content as it stands in the text, without its quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RawStr<'a> {
    /// Content, escapes and all.
    pub(crate) raw: &'a [u8],
    /// Whether `raw` has escapes.
    pub(crate) escaped: bool,
}

impl<'a> RawStr<'a> {
    /// The decoded bytes; `scratch` is used only if there are escapes.
    pub(crate) fn decoded<'s>(&self, scratch: &'s mut String) -> &'s [u8]
    where
        'a: 's,
    {
        if !self.escaped {
            return self.raw;
        }
        scratch.clear();
        decode_lossy(self.raw, scratch);
        scratch.as_bytes()
    }

    /// The decoded text, invalid UTF-8 replaced; `scratch` is used only if decoding is needed.
    pub(crate) fn text<'s>(&self, scratch: &'s mut String) -> &'s str
    where
        'a: 's,
    {
        if !self.escaped
            && let Ok(text) = std::str::from_utf8(self.raw)
        {
            return text;
        }
        scratch.clear();
        decode_lossy(self.raw, scratch);
        scratch
    }
}

/// What [`Cursor::walk`] passes on its way.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Part<'a> {
    Key(RawStr<'a>),
    String(RawStr<'a>),
    Number(&'a [u8]),
    /// `true`, `false` or `null`.
    Literal,
    ArrayStart,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    depth: u32,
    pause: Pause<'a>,
}

impl<'a> Cursor<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self::pausing(bytes, Pause::NEVER)
    }

    /// Pauses on its way.
    pub(crate) const fn pausing(bytes: &'a [u8], pause: Pause<'a>) -> Self {
        Self {
            bytes,
            at: 0,
            depth: 0,
            pause,
        }
    }

    pub(crate) const fn at(&self) -> usize {
        self.at
    }

    pub(crate) fn slice(&self, start: usize, end: usize) -> &'a [u8] {
        self.bytes.get(start..end).unwrap_or_default()
    }

    /// The next byte; 0 at the end, which is no token either.
    #[inline]
    pub(crate) fn peek(&self) -> u8 {
        self.bytes.get(self.at).copied().unwrap_or(0)
    }

    #[inline]
    pub(crate) fn skip_whitespace(&mut self) {
        self.next();
    }

    /// The next byte after white space; 0 at the end.
    #[inline(always)]
    fn next(&mut self) -> u8 {
        let next = self.peek();
        if next > b' ' {
            return next;
        }
        if next == b' ' {
            // What many encoders put behind colons and commas.
            self.at += 1;
            let next = self.peek();
            if next > b' ' {
                return next;
            }
        }
        self.blank();
        self.peek()
    }

    /// Past line ends and indentation.
    #[inline(never)]
    fn blank(&mut self) {
        loop {
            let end = self.bytes.len().min(self.at + EVERY);
            let part = self.bytes.get(self.at..end).unwrap_or_default();
            let blank = part
                .iter()
                .position(|byte| !matches!(byte, b' ' | b'\t' | b'\n' | b'\r'));
            self.at += blank.unwrap_or(part.len());
            if self.at < end || end == self.bytes.len() {
                return;
            }
            self.pause.at(self.at);
        }
    }

    /// The fault of not finding `what` here.
    #[cold]
    #[inline(never)]
    pub(crate) fn expected(self, what: &'static str) -> Fault {
        let error = if self.at >= self.bytes.len() {
            SyntaxError::Truncated
        } else {
            SyntaxError::Expected(what)
        };
        Fault { error, at: self.at }
    }

    const fn fault(self, error: SyntaxError) -> Fault {
        Fault { error, at: self.at }
    }

    /// Checks that only white space is left.
    pub(crate) fn end(&mut self) -> Result<(), Fault> {
        self.skip_whitespace();
        if self.at < self.bytes.len() {
            Err(self.fault(SyntaxError::TrailingData))
        } else {
            Ok(())
        }
    }

    /// Reads the string whose opening quote is next.
    #[inline(always)]
    pub(crate) fn string(&mut self) -> Result<RawStr<'a>, Fault> {
        if self.peek() != b'"' {
            return Err(self.expected("a string"));
        }
        let start = self.at + 1;
        let mut end = find_special(self.window(start), start);
        let mut escaped = false;
        if self.bytes.get(end) != Some(&b'"') {
            let first = Self { at: end, ..*self };
            (end, escaped) = first.string_end()?;
        }
        self.at = end + 1;
        Ok(RawStr {
            raw: self.slice(start, end),
            escaped,
        })
    }

    /// The text up to where a search from `from` has to pause.
    #[inline(always)]
    fn window(&self, from: usize) -> &'a [u8] {
        let end = self.bytes.len().min(from + EVERY);
        self.bytes.get(..end).unwrap_or_default()
    }

    /// Where the string ends whose first escape (or whatever is wrong with it, or a window's end) is next: at its closing
    /// quote; and whether it has escapes.
    #[inline(never)]
    fn string_end(mut self) -> Result<(usize, bool), Fault> {
        let mut escaped = false;
        loop {
            self.pause.at(self.at);
            match self.bytes.get(self.at) {
                Some(b'"') => return Ok((self.at, escaped)),
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(0x20..) => self.at = find_special(self.window(self.at), self.at),
                Some(_) => return Err(self.fault(SyntaxError::ControlCharacter)),
                None => return Err(self.fault(SyntaxError::Truncated)),
            }
        }
    }

    #[inline]
    fn escape(&mut self) -> Result<(), Fault> {
        match self.bytes.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 2;
                Ok(())
            }
            Some(b'u') => match self.bytes.get(self.at + 2..self.at + 6) {
                Some(digits) if digits.iter().all(u8::is_ascii_hexdigit) => {
                    self.at += 6;
                    Ok(())
                }
                Some(_) => Err(self.fault(SyntaxError::Escape)),
                None => Err(self.fault(SyntaxError::Truncated)),
            },
            Some(_) => Err(self.fault(SyntaxError::Escape)),
            None => Err(self.fault(SyntaxError::Truncated)),
        }
    }

    /// Reads the number that is next.
    #[inline(always)]
    pub(crate) fn number(&mut self) -> Result<&'a [u8], Fault> {
        // Counts are most of the numbers: digits, and then neither a fraction nor an exponent.
        let mut end = self.at;
        if matches!(self.peek(), b'1'..=b'9') {
            let next = loop {
                end += 1;
                match self.bytes.get(end) {
                    Some(b'0'..=b'9') => {}
                    next => break next,
                }
            };
            if !matches!(next, Some(b'.' | b'e' | b'E')) {
                let start = std::mem::replace(&mut self.at, end);
                return Ok(self.slice(start, end));
            }
        }
        let Some(length) = number::length(self.bytes.get(self.at..).unwrap_or_default()) else {
            return Err(self.fault(SyntaxError::Number));
        };
        let start = self.at;
        self.at += length;
        // `01` and `1x` end in a place where no token may follow: the caller's next step refuses them.
        Ok(self.slice(start, self.at))
    }

    /// Reads `true`, `false` or `null`.
    pub(crate) fn literal(&mut self) -> Result<&'a [u8], Fault> {
        let word: &[u8] = match self.peek() {
            b't' => b"true",
            b'f' => b"false",
            b'n' => b"null",
            _ => return Err(self.expected("a value")),
        };
        let found = self.slice(self.at, self.at + word.len());
        if found != word {
            return Err(self.expected("a value"));
        }
        self.at += word.len();
        Ok(found)
    }

    /// Reads a key and its colon; the value is next.
    #[inline(always)]
    pub(crate) fn key(&mut self) -> Result<RawStr<'a>, Fault> {
        if self.peek() != b'"' {
            return Err(self.expected("a key"));
        }
        let key = self.string()?;
        if self.next() != b':' {
            return Err(self.expected("':'"));
        }
        self.at += 1;
        self.skip_whitespace();
        Ok(key)
    }

    #[inline(always)]
    fn enter(&mut self) -> Result<(), Fault> {
        if self.depth >= MAX_DEPTH {
            return Err(self.fault(SyntaxError::TooDeep));
        }
        self.depth += 1;
        self.at += 1;
        self.skip_whitespace();
        Ok(())
    }

    #[inline]
    const fn leave(&mut self) {
        self.depth -= 1;
        self.at += 1;
    }

    /// Enters the array or object whose bracket is next; if it is empty, leaves it again and says so.
    #[inline(always)]
    pub(crate) fn open(&mut self) -> Result<bool, Fault> {
        // `[` and `{` are two below their partners.
        let closing = self.peek() + 2;
        self.enter()?;
        let empty = self.peek() == closing;
        if empty {
            self.leave();
        }
        Ok(empty)
    }

    /// After a value inside an array or object: whether another one follows (its key is next, if it is an object).
    #[inline(always)]
    pub(crate) fn another(&mut self, object: bool) -> Result<bool, Fault> {
        self.pause.at(self.at);
        match self.next() {
            b',' => {
                self.at += 1;
                self.skip_whitespace();
                Ok(true)
            }
            b'}' if object => {
                self.leave();
                Ok(false)
            }
            b']' if !object => {
                self.leave();
                Ok(false)
            }
            _ if object => Err(self.expected("',' or '}'")),
            _ => Err(self.expected("',' or ']'")),
        }
    }

    /// Reads the object that is next; `each` gets every key and must read its value.
    #[inline]
    pub(crate) fn members<E: From<Fault>>(
        &mut self,
        mut each: impl FnMut(&mut Self, RawStr<'a>) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.peek() != b'{' {
            return Err(self.expected("an object").into());
        }
        if self.open()? {
            return Ok(());
        }
        loop {
            let key = self.key()?;
            each(self, key)?;
            if !self.another(true)? {
                return Ok(());
            }
        }
    }

    /// Reads the array that is next; `each` must read one value a call.
    #[inline]
    pub(crate) fn elements<E: From<Fault>>(
        &mut self,
        mut each: impl FnMut(&mut Self, usize) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.peek() != b'[' {
            return Err(self.expected("an array").into());
        }
        if self.open()? {
            return Ok(());
        }
        for index in 0_usize.. {
            each(self, index)?;
            if !self.another(false)? {
                break;
            }
        }
        Ok(())
    }

    /// Reads whatever value is next without recursion and shows its parts.
    #[inline(always)]
    pub(crate) fn walk(&mut self, mut visit: impl FnMut(Part<'a>)) -> Result<(), Fault> {
        // A copy, so that its fields may live in registers.
        let mut cursor = *self;
        // One bit per open container, the innermost lowest: 1 = object.
        let mut objects = 0_u128;
        let mut open = 0_u32;
        loop {
            match cursor.peek() {
                b'"' => visit(Part::String(cursor.string()?)),
                b'-' | b'0'..=b'9' => visit(Part::Number(cursor.number()?)),
                bracket @ (b'{' | b'[') => {
                    let object = bracket == b'{';
                    if !object {
                        visit(Part::ArrayStart);
                    }
                    if !cursor.open()? {
                        objects = (objects << 1) | u128::from(object);
                        open += 1;
                        if object {
                            visit(Part::Key(cursor.key()?));
                        }
                        continue;
                    }
                }
                _ => {
                    cursor.literal()?;
                    visit(Part::Literal);
                }
            }
            loop {
                if open == 0 {
                    *self = cursor;
                    return Ok(());
                }
                let object = objects & 1 == 1;
                if cursor.another(object)? {
                    if object {
                        visit(Part::Key(cursor.key()?));
                    }
                    break;
                }
                objects >>= 1;
                open -= 1;
            }
        }
    }

    /// Reads and checks whatever value is next.
    #[inline(always)]
    pub(crate) fn skip(&mut self) -> Result<(), Fault> {
        if self.peek() == b'"' {
            return self.string().map(|_| ());
        }
        self.at = self.end_of_value()?;
        Ok(())
    }

    #[inline(never)]
    fn end_of_value(mut self) -> Result<usize, Fault> {
        self.walk(|_| {})?;
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::de::IgnoredAny;

    use super::{Cursor, Fault, SyntaxError};

    fn check(text: &[u8]) -> Result<(), Fault> {
        let mut cursor = Cursor::new(text);
        cursor.skip_whitespace();
        cursor.skip()?;
        cursor.end()
    }

    /// The same text read through `members` and `elements`.
    fn check_structured(text: &[u8]) -> Result<(), Fault> {
        fn value(cursor: &mut Cursor<'_>) -> Result<(), Fault> {
            match cursor.peek() {
                b'{' => cursor.members(|cursor, _| value(cursor)),
                b'[' => cursor.elements(|cursor, _| value(cursor)),
                _ => cursor.skip(),
            }
        }
        let mut cursor = Cursor::new(text);
        cursor.skip_whitespace();
        value(&mut cursor)?;
        cursor.end()
    }

    #[test]
    fn accepts_what_the_grammar_allows() {
        for good in [
            "{}",
            "[]",
            " { } ",
            "[ ]",
            "\"\"",
            "0",
            "-1.5e3",
            "true",
            "null",
            "[1,2 , 3]",
            "[[],{},[{}]]",
            "{\"a\":{\"b\":[1,{\"c\":null}]} , \"d\" : \"\\u00e9\\n\"}",
            "\"\\ud800\"",
            "\r\n\t[false]\n",
        ] {
            assert_eq!(check(good.as_bytes()), Ok(()), "{good}");
            assert_eq!(check_structured(good.as_bytes()), Ok(()), "{good}");
        }
    }

    #[test]
    fn refuses_the_rest_at_the_right_byte() {
        use SyntaxError::{ControlCharacter, Escape, Expected, Number, TrailingData, Truncated};
        for (bad, error, at) in [
            ("", Truncated, 0),
            ("{", Truncated, 1),
            ("[1", Truncated, 2),
            ("[1,", Truncated, 3),
            ("[1,]", Expected("a value"), 3),
            ("{\"a\":1,}", Expected("a key"), 7),
            ("{a:1}", Expected("a key"), 1),
            ("{\"a\" 1}", Expected("':'"), 5),
            ("{\"a\":1 \"b\":2}", Expected("',' or '}'"), 7),
            ("[1 2]", Expected("',' or ']'"), 3),
            ("[1}", Expected("',' or ']'"), 2),
            ("{\"a\":1]", Expected("',' or '}'"), 6),
            ("[01]", Expected("',' or ']'"), 2),
            ("[1.]", Number, 1),
            ("[-]", Number, 1),
            ("[+1]", Expected("a value"), 1),
            ("nul", Expected("a value"), 0),
            ("NaN", Expected("a value"), 0),
            ("\"a", Truncated, 2),
            ("\"a\nb\"", ControlCharacter, 2),
            ("\"\\x\"", Escape, 1),
            ("\"\\u12g4\"", Escape, 1),
            ("\"\\u12", Truncated, 1),
            ("\"\\", Truncated, 1),
            ("{} {}", TrailingData, 3),
            ("\u{feff}{}", Expected("a value"), 0),
        ] {
            assert_eq!(check(bad.as_bytes()), Err(Fault { error, at }), "{bad}");
            assert_eq!(
                check_structured(bad.as_bytes()),
                Err(Fault { error, at }),
                "{bad}"
            );
        }
    }

    #[test]
    fn depth_is_bounded() {
        for (open, close) in [("[", "]"), ("{\"a\":[", "]}")] {
            let levels = 128 / open.matches(['[', '{']).count();
            let good = format!("{}{}", open.repeat(levels), close.repeat(levels));
            assert_eq!(check(good.as_bytes()), Ok(()));
            assert_eq!(check_structured(good.as_bytes()), Ok(()));
            let bad = open.repeat(100_000);
            assert_eq!(check(bad.as_bytes()).unwrap_err().error, SyntaxError::TooDeep);
            assert_eq!(
                check_structured(bad.as_bytes()).unwrap_err().error,
                SyntaxError::TooDeep
            );
        }
    }

    fn json() -> impl proptest::strategy::Strategy<Value = serde_json::Value> {
        use proptest::prelude::*;
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<f64>().prop_map(Into::into),
            ".{0,40}".prop_map(Into::into),
        ];
        leaf.prop_recursive(6, 64, 8, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
                prop::collection::btree_map(".{0,6}", inner, 0..6)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest::proptest! {
        /// Valid and slightly broken documents are judged as `serde_json` judges them (but for lone surrogates
        /// and numbers out of a double's range, which the grammar allows and it does not).
        #[test]
        fn agrees_with_serde_json(value in json(), pretty: bool, at: proptest::sample::Index, byte: u8, mutate: bool) {
            let mut text = if pretty {
                serde_json::to_vec_pretty(&value).unwrap()
            } else {
                serde_json::to_vec(&value).unwrap()
            };
            if mutate {
                let at = at.index(text.len());
                text[at] = byte;
            }
            let ours = check(&text);
            proptest::prop_assert_eq!(ours, check_structured(&text));
            match serde_json::from_slice::<serde_json::Value>(&text) {
                Ok(_) => proptest::prop_assert_eq!(ours, Ok(())),
                Err(error) => {
                    let lenient = error.to_string();
                    proptest::prop_assert!(
                        ours.is_err()
                            || std::str::from_utf8(&text).is_err()
                            || lenient.contains("out of range")
                            || lenient.contains("surrogate")
                            || lenient.contains("hex escape"),
                        "{} accepted: {}", String::from_utf8_lossy(&text), error
                    );
                }
            }
        }

        #[test]
        fn random_bytes_never_panic(bytes: Vec<u8>) {
            let _ = check(&bytes);
        }
    }

    /// JSON with all kinds of blanks, numbers and long strings, in which a few bytes may be wrong.
    fn texts() -> impl Strategy<Value = Vec<u8>> {
        let leaf = prop_oneof![
            3 => "\"([ !#-\\[\\]-~é你]{0,90}|\\\\[\"\\\\/bfnrt]|\\\\u[0-9a-fA-F]{4}){0,4}\"",
            2 => "-?(0|[1-9][0-9]{0,24})(\\.[0-9]{1,12})?([eE][+-]?[0-9]{1,9})?",
            1 => prop::sample::select(vec!["true", "false", "null", "0", "7", "[]", "{}"]).prop_map(str::to_owned),
        ];
        let blank = || {
            prop::sample::select(vec![
                "",
                "",
                "",
                " ",
                "  ",
                "\n",
                "\r\n\t",
                "\n                  ",
            ])
        };
        let value = leaf.prop_recursive(5, 40, 5, move |inner| {
            (
                prop::collection::vec(("[a-z\\\\n_]{0,20}", blank(), inner, blank()), 0..5),
                any::<bool>(),
            )
                .prop_map(|(children, object)| {
                    let children: Vec<String> = children
                        .into_iter()
                        .map(|(key, before, value, after)| match object {
                            true => format!(
                                "{before}\"{}\"{after}:{before}{value}{after}",
                                key.replace('\\', "\\\\")
                            ),
                            false => format!("{before}{value}{after}"),
                        })
                        .collect();
                    let (open, close) = if object { ('{', '}') } else { ('[', ']') };
                    format!("{open}{}{close}", children.join(","))
                })
        });
        let wrong = (
            any::<prop::sample::Index>(),
            prop::sample::select(br#""\{}[],:0-e.ntu x"#.to_vec()),
        );
        (blank(), value, blank(), prop::collection::vec(wrong, 0..3)).prop_map(
            |(before, value, after, wrong)| {
                let mut text = format!("{before}{value}{after}").into_bytes();
                for (at, byte) in wrong {
                    let at = at.index(text.len());
                    // Only what is ASCII stays UTF-8 when it is changed.
                    if text[at].is_ascii() {
                        text[at] = byte;
                    }
                }
                text
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn accepts_what_another_parser_accepts(text in texts()) {
            let other = serde_json::from_slice::<IgnoredAny>(&text).is_ok();
            prop_assert_eq!(check(&text).is_ok(), other, "{}", String::from_utf8_lossy(&text));
            prop_assert_eq!(check_structured(&text), check(&text));
        }
    }
}
