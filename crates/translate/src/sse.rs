//! Reads server-sent events from bytes as they come. After the WHATWG HTML standard, "Server-sent events": lines end in
//! CR, LF or CR LF, an empty line ends an event, several `data` lines are joined by LF, other fields do not matter here.

use memchr::memchr2;

/// Buffers larger than this are given back after the event that needed them.
const KEPT: usize = 64 * 1024;

/// One event: its name (empty if it has none) and data.
pub(crate) struct Event<'e> {
    pub(crate) name: &'e [u8],
    pub(crate) data: &'e [u8],
}

/// An event was longer than allowed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

/// The state between two pieces of a stream: at most one unfinished line and one unfinished event.
#[derive(Default)]
pub(crate) struct Reader {
    line: Vec<u8>,
    data: Vec<u8>,
    name: Vec<u8>,
    has_data: bool,
    /// The last byte was CR: an LF that follows belongs to it.
    after_cr: bool,
    /// The first line may begin with a byte order mark.
    begun: bool,
}

impl Reader {
    /// Takes more of the stream and calls `event` for each event that is now complete; `event` says whether to go on.
    /// Returns an error if one event (or one line) exceeds `max` bytes.
    pub(crate) fn push(
        &mut self,
        mut bytes: &[u8],
        max: usize,
        mut event: impl FnMut(Event<'_>) -> bool,
    ) -> Result<(), TooLong> {
        while !bytes.is_empty() {
            if std::mem::take(&mut self.after_cr) && bytes.first() == Some(&b'\n') {
                bytes = bytes.get(1..).unwrap_or_default();
                continue;
            }
            let Some(end) = memchr2(b'\r', b'\n', bytes) else {
                if self.line.len() + bytes.len() + self.data.len() > max {
                    return Err(TooLong);
                }
                self.line.extend_from_slice(bytes);
                return Ok(());
            };
            self.after_cr = bytes.get(end) == Some(&b'\r');
            let (rest_of_line, rest) = bytes.split_at_checked(end).unwrap_or((bytes, &[]));
            bytes = rest.get(1..).unwrap_or_default();
            if self.line.len() + rest_of_line.len() + self.data.len() > max {
                return Err(TooLong);
            }
            let go_on = if self.line.is_empty() {
                self.take_line(rest_of_line, &mut event)
            } else {
                let mut line = std::mem::take(&mut self.line);
                line.extend_from_slice(rest_of_line);
                let go_on = self.take_line(&line, &mut event);
                line.clear();
                line.shrink_to(KEPT);
                self.line = line;
                go_on
            };
            if !go_on {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The stream is over: a last event without the empty line behind it is given out too, because some servers leave
    /// that line out.
    pub(crate) fn end(&mut self, mut event: impl FnMut(Event<'_>) -> bool) {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() || self.take_line(&line, &mut event) {
            self.dispatch(&mut event);
        }
    }

    fn take_line(&mut self, line: &[u8], event: &mut impl FnMut(Event<'_>) -> bool) -> bool {
        let line = if std::mem::replace(&mut self.begun, true) {
            line
        } else {
            line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line)
        };
        if line.is_empty() {
            return self.dispatch(event);
        }
        let colon = line.iter().position(|&byte| byte == b':').unwrap_or(line.len());
        let (field, value) = line.split_at_checked(colon).unwrap_or((line, &[]));
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.data.push(b'\n');
                }
                self.data.extend_from_slice(value);
            }
            b"event" => {
                self.name.clear();
                // Names are short; a longer one is none that anyone knows.
                self.name.extend_from_slice(value.get(..64).unwrap_or(value));
            }
            _ => {}
        }
        true
    }

    fn dispatch(&mut self, event: &mut impl FnMut(Event<'_>) -> bool) -> bool {
        let go_on = !std::mem::take(&mut self.has_data)
            || event(Event {
                name: &self.name,
                data: &self.data,
            });
        self.name.clear();
        self.data.clear();
        self.data.shrink_to(KEPT);
        go_on
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Reader, TooLong};

    fn read(chunks: &[&[u8]]) -> Vec<(String, String)> {
        let mut events = Vec::new();
        let mut reader = Reader::default();
        let mut push = |event: super::Event<'_>| {
            events.push((
                String::from_utf8_lossy(event.name).into_owned(),
                String::from_utf8_lossy(event.data).into_owned(),
            ));
            true
        };
        for chunk in chunks {
            reader.push(chunk, 1000, &mut push).unwrap();
        }
        reader.end(&mut push);
        events
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected
            .iter()
            .map(|(name, data)| ((*name).to_owned(), (*data).to_owned()))
            .collect()
    }

    #[test]
    fn fields_are_read_as_the_standard_says() {
        let text = "\u{feff}: comment\nevent: a\ndata:1\ndata: 2\nid: 7\nretry\n\n\n\nevent: lost\n\ndata\n\ndata:  x\r\rdata: last";
        assert_eq!(
            read(&[text.as_bytes()]),
            pairs(&[("a", "1\n2"), ("", ""), ("", " x"), ("", "last")])
        );
    }

    #[test]
    fn an_event_leaves_with_its_last_byte_even_if_that_is_a_cr() {
        let mut seen = 0;
        let mut reader = Reader::default();
        reader
            .push(b"data: 1\r\n\r", 100, |_| {
                seen += 1;
                true
            })
            .unwrap();
        assert_eq!(seen, 1);
        reader
            .push(b"\ndata: 2\r\n\r\n", 100, |_| {
                seen += 1;
                true
            })
            .unwrap();
        assert_eq!(seen, 2);
    }

    #[test]
    fn a_long_event_is_refused_whether_in_one_line_or_in_many() {
        for text in [
            "data: 0123456789",
            "data: 0123456789\n",
            "data: 01234\ndata: 56789\n",
        ] {
            let mut reader = Reader::default();
            assert_eq!(reader.push(text.as_bytes(), 15, |_| true), Err(TooLong), "{text}");
        }
        let mut reader = Reader::default();
        assert_eq!(
            reader.push(b"data: 01234\n\ndata: 56789\n\n", 15, |_| true),
            Ok(())
        );
    }

    #[test]
    fn large_buffers_are_given_back() {
        let mut reader = Reader::default();
        let mut text = b"data: ".to_vec();
        text.extend(vec![b'x'; 1 << 20]);
        reader.push(&text, 1 << 21, |_| true).unwrap();
        reader.push(b"\n\n", 1 << 21, |_| true).unwrap();
        assert!(reader.line.capacity() <= super::KEPT && reader.data.capacity() <= super::KEPT);
    }

    proptest! {
        #[test]
        fn where_the_stream_is_cut_does_not_matter(
            text in "(event: [ab]\n|data: ?[a-zé:]{0,4}\n|:x\n|\n){0,20}",
            ending in prop_oneof![Just("\n"), Just("\r"), Just("\r\n")],
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let whole = read(&[text.as_bytes()]);
            let text = text.replace('\n', ending);
            let bytes = text.as_bytes();
            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            at.extend([0, bytes.len()]);
            at.sort_unstable();
            let chunks: Vec<&[u8]> = at.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            prop_assert_eq!(read(&chunks), whole);
        }
    }
}
