//! Writes the parts of a user's content from Anthropic's blocks.

use crate::json::{Json, Object, Str, escape, quoted};
use crate::refusal::{At, Refusal};
use crate::request::required;

/// A user's content: a string if it is one text, else an array of parts.
#[derive(Default)]
pub(super) struct Parts {
    out: Vec<u8>,
    /// The first part's text as it stands in `out`, if there is no other part.
    single: Option<std::ops::Range<usize>>,
    pub(super) count: usize,
}

impl Parts {
    pub(super) const fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn part(&mut self, kind: &str) -> Object<'_> {
        if self.count > 0 {
            self.out.push(b',');
        }
        self.count += 1;
        self.single = None;
        let mut part = Object::open(&mut self.out);
        part.text("type", kind);
        part
    }

    pub(super) fn text(&mut self, text: Str<'_>) {
        if text.is_empty() {
            return;
        }
        let mut part = self.part("text");
        quoted(text, part.key("text"));
        part.close();
        if self.count == 1 {
            let end = self.out.len() - 1;
            self.single = Some(end - text.raw().len() - 2..end);
        }
    }

    pub(super) fn image(&mut self, source: Json<'_>, at: &At<'_>) -> Result<(), Refusal> {
        let at = at.key("source");
        let kind = required(source.get_str("type"), &at, "type")?;
        let mut part = self.part("image_url");
        let mut image = Object::open(part.key("image_url"));
        if kind.is("base64") {
            write_data_url(source, &at, image.key("url"))?;
        } else if kind.is("url") {
            image.string("url", required(source.get_str("url"), &at, "url")?);
        } else {
            return Err(at.key("type").refuse("must be base64 or url on this deployment"));
        }
        image.close();
        part.close();
        Ok(())
    }

    pub(super) fn document(&mut self, document: Json<'_>, at: &At<'_>) -> Result<(), Refusal> {
        let source = required(document.get("source"), at, "source")?;
        let at = at.key("source");
        let kind = required(source.get_str("type"), &at, "type")?;
        if kind.is("text") {
            self.text(required(source.get_str("data"), &at, "data")?);
        } else if kind.is("base64") {
            let mut part = self.part("file");
            let mut file = Object::open(part.key("file"));
            match document.get_str("title") {
                Some(title) => file.string("filename", title),
                None => file.text("filename", "document.pdf"),
            };
            write_data_url(source, &at, file.key("file_data"))?;
            file.close();
            part.close();
        } else {
            return Err(at.key("type").refuse("must be base64 or text on this deployment"));
        }
        Ok(())
    }

    pub(super) fn write(self, out: &mut Vec<u8>) {
        if let Some(text) = self.single.and_then(|range| self.out.get(range)) {
            out.extend_from_slice(text);
        } else {
            out.push(b'[');
            out.extend_from_slice(&self.out);
            out.push(b']');
        }
    }
}

fn write_data_url(source: Json<'_>, at: &At<'_>, out: &mut Vec<u8>) -> Result<(), Refusal> {
    let media_type = required(source.get_str("media_type"), at, "media_type")?;
    let data = required(source.get_str("data"), at, "data")?;
    out.extend_from_slice(b"\"data:");
    escape(&media_type.text(), out);
    out.extend_from_slice(b";base64,");
    out.extend_from_slice(data.raw().as_bytes());
    out.push(b'"');
    Ok(())
}
