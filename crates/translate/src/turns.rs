//! A chat's messages as turns: messages of one side that follow each other become one.

use crate::openai::Part;
use crate::refusal::{At, Refusal};

/// How a protocol writes one part of a message.
pub(crate) type WritePart = fn(Part<'_>, &At<'_>, &mut Vec<u8>) -> Result<(), Refusal>;

/// Turns being written, with commas between.
pub(crate) struct Turns {
    out: Vec<u8>,
    role: Option<&'static str>,
    /// The key of a turn's parts.
    list: &'static str,
}

impl Turns {
    pub(crate) fn new(list: &'static str, capacity: usize) -> Self {
        Self {
            out: Vec::with_capacity(capacity),
            role: None,
            list,
        }
    }

    /// Begins a part of a turn, and the turn if the last one was the other side's.
    pub(crate) fn begin(&mut self, role: &'static str) -> &mut Vec<u8> {
        if self.role == Some(role) {
            self.out.push(b',');
        } else {
            if self.role.is_some() {
                self.out.extend_from_slice(b"]},");
            }
            self.out.extend_from_slice(b"{\"role\":\"");
            self.out.extend_from_slice(role.as_bytes());
            self.out.extend_from_slice(b"\",\"");
            self.out.extend_from_slice(self.list.as_bytes());
            self.out.extend_from_slice(b"\":[");
            self.role = Some(role);
        }
        &mut self.out
    }

    /// Writes a part of a chat's message. Empty texts are left out: Anthropic forbids them, and to Gemini they say nothing.
    pub(crate) fn part(
        &mut self,
        role: &'static str,
        part: Part<'_>,
        at: &At<'_>,
        write: WritePart,
    ) -> Result<(), Refusal> {
        match part {
            Part::Text { text, .. } if text.is_empty() => Ok(()),
            _ => write(part, at, self.begin(role)),
        }
    }

    /// Appends parts, each with its comma in front, to the turn that was begun last.
    pub(crate) fn append(&mut self, parts: &mut Vec<u8>) {
        self.out.append(parts);
    }

    /// The turns.
    ///
    /// # Errors
    /// If there is none.
    pub(crate) fn finish(mut self) -> Result<Vec<u8>, Refusal> {
        if self.role.is_none() {
            return Err(At::ROOT
                .key("messages")
                .refuse("must contain something besides system messages"));
        }
        self.out.extend_from_slice(b"]}");
        Ok(self.out)
    }
}
