//! A reader of server-sent events as the WHATWG HTML standard (section 9.2) describes it, written for clarity: it
//! is what the gateway's own splitter is compared with.

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// The `event:` field, if there was one.
    pub name: Option<String>,
    /// The `data:` lines, with `\n` between them.
    pub data: String,
}

impl Event {
    /// The data as JSON.
    ///
    /// # Panics
    /// If it is not JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.data)
            .unwrap_or_else(|error| panic!("{error} in the event {:?}", self.data))
    }

    /// Whether this is OpenAI's end mark.
    pub fn is_done(&self) -> bool {
        self.data == "[DONE]"
    }
}

/// Takes bytes in any pieces and gives events.
#[derive(Debug, Default)]
pub struct SseReader {
    line: Vec<u8>,
    after_cr: bool,
    started: bool,
    event: Event,
    has_data: bool,
    comments: u64,
}

impl SseReader {
    /// Feeds bytes and returns the events that they complete.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        for &byte in bytes {
            if std::mem::take(&mut self.after_cr) && byte == b'\n' {
                continue;
            }
            match byte {
                b'\r' | b'\n' => {
                    self.after_cr = byte == b'\r';
                    events.extend(self.end_line());
                }
                _ => self.line.push(byte),
            }
        }
        events
    }

    /// All events of a complete body. An unfinished one at the end is dropped, as the standard demands.
    pub fn read_all(bytes: &[u8]) -> Vec<Event> {
        Self::default().feed(bytes)
    }

    /// Comment lines so far.
    pub fn comments(&self) -> u64 {
        self.comments
    }

    /// Whether nothing is unfinished: the stream may end here.
    pub fn is_between_events(&self) -> bool {
        self.line.is_empty() && !self.has_data && self.event == Event::default()
    }

    fn end_line(&mut self) -> Option<Event> {
        let line = std::mem::take(&mut self.line);
        let line = String::from_utf8_lossy(&line);
        let line = if std::mem::replace(&mut self.started, true) {
            &line
        } else {
            line.strip_prefix('\u{feff}').unwrap_or(&line)
        };
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            return std::mem::take(&mut self.has_data).then_some(event);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "" => self.comments += 1,
            "event" => self.event.name = Some(value.to_owned()),
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
            }
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str =
        "\u{feff}: hi\r\nevent: a\r\ndata: 1\r\ndata:2\r\n\r\ndata: x\rid: 3\r\rdata\n\ndata: lost";

    #[test]
    fn any_chunking_gives_the_same_events() {
        let event = |name: Option<&str>, data: &str| Event {
            name: name.map(str::to_owned),
            data: data.to_owned(),
        };
        let expected = [event(Some("a"), "1\n2"), event(None, "x"), event(None, "")];
        for size in 1..STREAM.len() {
            let mut reader = SseReader::default();
            let events: Vec<_> = STREAM
                .as_bytes()
                .chunks(size)
                .flat_map(|chunk| reader.feed(chunk))
                .collect();
            assert_eq!(events, expected, "in pieces of {size}");
            assert_eq!(reader.comments(), 1);
            assert!(!reader.is_between_events());
        }
    }
}
