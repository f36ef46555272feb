//! Writes JSON member by member; strings of the input are copied as they are escaped.

use super::Str;

/// Appends `text` escaped, without quotes.
pub(crate) fn escape(text: &str, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let bytes = text.as_bytes();
    let mut copied = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        let short = match byte {
            b'"' => b'"',
            b'\\' => b'\\',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0..0x20 => b'u',
            _ => continue,
        };
        out.extend_from_slice(bytes.get(copied..at).unwrap_or_default());
        out.extend_from_slice(&[b'\\', short]);
        if short == b'u' {
            let low = HEX.get(usize::from(byte & 15)).copied().unwrap_or(b'0');
            out.extend_from_slice(&[b'0', b'0', b'0' + (byte >> 4), low]);
        }
        copied = at + 1;
    }
    out.extend_from_slice(bytes.get(copied..).unwrap_or_default());
}

/// Appends a decimal number.
pub(super) fn number(mut value: u64, out: &mut Vec<u8>) {
    let mut digits = [0_u8; 20];
    let mut used = 0;
    for slot in digits.iter_mut().rev() {
        *slot = b'0' + (value % 10) as u8;
        used += 1;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(digits.len() - used..).unwrap_or_default());
}

/// Writes an object member by member.
pub(crate) struct Object<'o> {
    out: &'o mut Vec<u8>,
    any: bool,
}

impl<'o> Object<'o> {
    pub(crate) fn open(out: &'o mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, any: false }
    }

    /// Begins a member; its value is then appended to what is returned. `name` needs no escaping.
    pub(crate) fn key(&mut self, name: &str) -> &mut Vec<u8> {
        self.out.extend_from_slice(if self.any { b",\"" } else { b"\"" });
        self.any = true;
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    /// A member whose name is a string of the input.
    pub(crate) fn key_of(&mut self, name: Str<'_>) -> &mut Vec<u8> {
        self.key(name.raw())
    }

    pub(crate) fn raw(&mut self, name: &str, json: &str) -> &mut Self {
        self.key(name).extend_from_slice(json.as_bytes());
        self
    }

    pub(crate) fn string(&mut self, name: &str, value: Str<'_>) -> &mut Self {
        quoted(value, self.key(name));
        self
    }

    pub(crate) fn text(&mut self, name: &str, value: &str) -> &mut Self {
        let out = self.key(name);
        out.push(b'"');
        escape(value, out);
        out.push(b'"');
        self
    }

    pub(crate) fn number(&mut self, name: &str, value: u64) -> &mut Self {
        number(value, self.key(name));
        self
    }

    /// Closes by hand what was opened by hand in the last member.
    pub(crate) fn raw_end(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    pub(crate) fn close(self) {
        self.out.push(b'}');
    }
}

/// Writes an array element by element.
pub(crate) struct Array<'o> {
    out: &'o mut Vec<u8>,
    any: bool,
}

impl<'o> Array<'o> {
    pub(crate) fn open(out: &'o mut Vec<u8>) -> Self {
        out.push(b'[');
        Self { out, any: false }
    }

    /// Begins an element.
    pub(crate) fn item(&mut self) -> &mut Vec<u8> {
        if self.any {
            self.out.push(b',');
        }
        self.any = true;
        self.out
    }

    pub(crate) fn close(self) {
        self.out.push(b']');
    }
}

/// Appends a string of the input with its quotes.
pub(crate) fn quoted(value: Str<'_>, out: &mut Vec<u8>) {
    out.push(b'"');
    out.extend_from_slice(value.raw().as_bytes());
    out.push(b'"');
}
