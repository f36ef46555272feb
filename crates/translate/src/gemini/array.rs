//! Gemini's other form of a stream: one JSON array that grows, which clients get that do not ask for events. The
//! gateway asks the deployment for events in any case, since it must see where an answer may end.

use crate::sse::Reader;
use crate::stream::MAX_EVENT;

/// Turns a stream of events into an array of what they carry.
#[derive(Default)]
pub struct GeminiArray {
    reader: Reader,
    begun: bool,
    ended: bool,
}

impl GeminiArray {
    /// Takes more of the stream of events, cut anywhere, and appends what becomes of it to `out`.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        if self.ended {
            return;
        }
        let begun = &mut self.begun;
        let fits = self.reader.push(bytes, MAX_EVENT, |event| {
            element(begun, event.data, out);
            true
        });
        if fits.is_err() {
            let error = br#"{"error":{"code":502,"message":"an event of the deployment's stream is longer than 16 MiB","status":"INTERNAL"}}"#;
            element(&mut self.begun, error, out);
            self.close(out);
        }
    }

    /// The stream of events is over.
    pub fn end(&mut self, out: &mut Vec<u8>) {
        if self.ended {
            return;
        }
        let begun = &mut self.begun;
        self.reader.end(|event| {
            element(begun, event.data, out);
            true
        });
        self.close(out);
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(if self.begun { b"\n]\n" } else { b"[]\n" });
        self.ended = true;
    }
}

fn element(begun: &mut bool, data: &[u8], out: &mut Vec<u8>) {
    // Not Gemini's, but of servers that call themselves compatible.
    if data.trim_ascii() == b"[DONE]" {
        return;
    }
    out.extend_from_slice(if *begun { b",\r\n" } else { b"[" });
    *begun = true;
    out.extend_from_slice(data);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::GeminiArray;

    fn array(pieces: &[&[u8]]) -> String {
        let mut array = GeminiArray::default();
        let mut out = Vec::new();
        for piece in pieces {
            array.push(piece, &mut out);
        }
        array.end(&mut out);
        array.end(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn events_become_elements_at_once() {
        let mut stream = GeminiArray::default();
        let mut out = Vec::new();
        stream.push(b"data: {\"a\":1}\n\n", &mut out);
        assert_eq!(out, b"[{\"a\":1}");
        assert_eq!(array(&[b": nothing\n\n"]), "[]\n");
        assert_eq!(
            array(&[b"data: {\"a\":1}\r\n\r\ndata: {\"b\":\ndata: 2}\n\ndata: [DONE]\n\n"]),
            "[{\"a\":1},\r\n{\"b\":\n2}\n]\n"
        );
    }

    #[test]
    fn an_endless_event_ends_the_array() {
        let mut stream = GeminiArray::default();
        let mut out = Vec::new();
        stream.push(b"data: 1\n\ndata: ", &mut out);
        for _ in 0..17 {
            stream.push(&vec![b'x'; 1 << 20], &mut out);
        }
        stream.end(&mut out);
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(value[1]["error"]["code"], 502);
    }

    proptest! {
        #[test]
        fn where_the_stream_is_cut_does_not_matter(
            numbers in prop::collection::vec(0..1000_u32, 0..6),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let text: String = numbers.iter().map(|n| format!("data: {{\"n\":{n}}}\r\n\r\n")).collect();
            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
            at.extend([0, text.len()]);
            at.sort_unstable();
            let pieces: Vec<&[u8]> = at.windows(2).map(|pair| &text.as_bytes()[pair[0]..pair[1]]).collect();
            let value: Vec<serde_json::Value> = serde_json::from_str(&array(&pieces)).unwrap();
            prop_assert_eq!(value.iter().map(|v| v["n"].as_u64().unwrap()).collect::<Vec<_>>(),
                numbers.iter().map(|n| u64::from(*n)).collect::<Vec<_>>());
        }
    }
}
