//! Where in a document a byte stands: worked out only for error messages, never on the fast path.

use super::Pause;

/// Longest path that is named, bytes.
const MAX_PATH: usize = 128;

enum Frame {
    Object { key: String, key_due: bool },
    Array { index: usize },
}

/// Dotted path (`messages.0.content`) of the value that begins at or encloses `offset`; empty at the top. Reads
/// only what precedes `offset`, which must be well-formed. Long paths are cut off with `...`, keys are escaped.
pub(crate) fn path_at(body: &[u8], offset: usize, mut pause: Pause<'_>) -> String {
    let mut frames: Vec<Frame> = Vec::new();
    let mut at = 0;
    while at < offset {
        pause.at(at);
        let Some(&byte) = body.get(at) else { break };
        at += 1;
        match byte {
            b'{' => frames.push(Frame::Object {
                key: String::new(),
                key_due: true,
            }),
            b'[' => frames.push(Frame::Array { index: 0 }),
            b'}' | b']' => drop(frames.pop()),
            b',' => match frames.last_mut() {
                Some(Frame::Array { index }) => *index += 1,
                Some(Frame::Object { key, key_due }) => {
                    key.clear();
                    *key_due = true;
                }
                None => {}
            },
            b'"' => {
                let start = at;
                while let Some(&byte) = body.get(at) {
                    pause.at(at);
                    if byte == b'"' {
                        break;
                    }
                    at += 1 + usize::from(byte == b'\\');
                }
                if at < offset
                    && let Some(Frame::Object { key, key_due }) = frames.last_mut()
                    && *key_due
                {
                    *key_due = false;
                    super::decode_lossy(body.get(start..at).unwrap_or_default(), key);
                }
                at += 1;
            }
            _ => {}
        }
    }
    let mut path = String::new();
    for frame in &frames {
        let segment = match frame {
            Frame::Array { index } => index.to_string(),
            Frame::Object { key, key_due: false } => {
                key.chars().take(MAX_PATH).flat_map(char::escape_debug).collect()
            }
            Frame::Object { .. } => continue,
        };
        if path.len() + segment.len() > MAX_PATH {
            path.push_str("...");
            break;
        }
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(&segment);
    }
    path
}

#[cfg(test)]
mod tests {
    use super::Pause;

    fn path_at(body: &[u8], offset: usize) -> String {
        super::path_at(body, offset, Pause::NEVER)
    }

    #[test]
    fn names_the_value_at_an_offset() {
        let body = br#"{"a": 1, "m\u0065": [ {"x":"y,\"z"}, {"content":!"#;
        assert_eq!(path_at(body, 0), "");
        assert_eq!(path_at(body, 6), "a");
        assert_eq!(path_at(body, body.len() - 1), "me.1.content");
        assert_eq!(path_at(br#"{"a":{"b":[[1,2,"#, 16), "a.b.0.2");
        assert_eq!(
            path_at(&b"[".repeat(400), 400),
            format!("{}...", vec!["0"; 65].join("."))
        );
    }
}
