//! Streams: each upstream event becomes the client's events at once.

use crate::answer::{Fault, Piece, Progress};
use crate::sse::{Event, Reader};
use crate::{Context, Pair, Protocol, anthropic, gemini, openai};

/// Bytes of the longest upstream event that is translated; a longer one ends the stream with an error event.
pub const MAX_EVENT: usize = 16 * 1024 * 1024;

/// Translates one stream of server-sent events.
///
/// Feed the upstream's bytes as they come with [`Self::push`], cut anywhere; call [`Self::end`] when the upstream has
/// closed. What is appended to `out` always ends with a whole event. After the client's last event, or after an error
/// event, nothing more is written.
pub struct StreamTranslator {
    reader: Reader,
    translation: Translation,
    ended: bool,
}

struct Translation {
    upstream: Upstream,
    client: Client,
}

enum Upstream {
    OpenAi(openai::StreamReader),
    Anthropic(anthropic::StreamReader),
    Gemini(gemini::StreamReader),
}

enum Client {
    OpenAi(openai::StreamWriter),
    Anthropic(anthropic::StreamWriter),
}

impl Client {
    fn piece(&mut self, piece: Piece<'_>, out: &mut Vec<u8>) {
        match self {
            Self::OpenAi(writer) => writer.piece(piece, out),
            Self::Anthropic(writer) => writer.piece(piece, out),
        }
    }
}

impl Translation {
    fn event(&mut self, event: &Event<'_>, out: &mut Vec<u8>) -> Result<Progress, Fault> {
        let client = &mut self.client;
        let mut emit = |piece: Piece<'_>| client.piece(piece, out);
        match &mut self.upstream {
            Upstream::OpenAi(reader) => reader.event(event, &mut emit),
            Upstream::Anthropic(reader) => reader.event(event, &mut emit),
            Upstream::Gemini(reader) => reader.event(event, &mut emit),
        }
    }

    fn finished(&self) -> bool {
        match &self.upstream {
            Upstream::OpenAi(reader) => reader.finished(),
            Upstream::Anthropic(reader) => reader.finished(),
            Upstream::Gemini(reader) => reader.finished(),
        }
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        match &mut self.client {
            Client::OpenAi(writer) => writer.finish(out),
            Client::Anthropic(writer) => writer.finish(out),
        }
    }

    fn fail(&self, fault: &Fault, out: &mut Vec<u8>) {
        match &self.client {
            Client::OpenAi(_) => openai::write_error_event(fault, out),
            Client::Anthropic(_) => anthropic::write_error_event(fault, out),
        }
    }
}

impl StreamTranslator {
    /// A translator at the beginning of a stream.
    #[must_use]
    pub fn new(pair: Pair, context: Context) -> Self {
        let upstream = match pair.upstream() {
            Protocol::OpenAiChat => Upstream::OpenAi(openai::StreamReader::default()),
            Protocol::AnthropicMessages => Upstream::Anthropic(anthropic::StreamReader::default()),
            Protocol::Gemini => Upstream::Gemini(gemini::StreamReader::default()),
        };
        let client = match pair.client() {
            Protocol::AnthropicMessages => Client::Anthropic(anthropic::StreamWriter::new(context)),
            Protocol::OpenAiChat | Protocol::Gemini => Client::OpenAi(openai::StreamWriter::new(context)),
        };
        Self {
            reader: Reader::default(),
            translation: Translation { upstream, client },
            ended: false,
        }
    }

    /// Takes more of the upstream's bytes and appends the client's events that follow from them.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        if self.ended {
            return;
        }
        let (translation, ended) = (&mut self.translation, &mut self.ended);
        let result = self.reader.push(bytes, MAX_EVENT, |event| {
            *ended = !step(translation, &event, out);
            !*ended
        });
        if result.is_err() && !self.ended {
            self.fail(
                &Fault::malformed("an event of the deployment's stream is longer than 16 MiB"),
                out,
            );
        }
    }

    /// The upstream has closed: appends what is missing to a proper end, an error event if the answer is not complete.
    pub fn end(&mut self, out: &mut Vec<u8>) {
        if self.ended {
            return;
        }
        let (translation, ended) = (&mut self.translation, &mut self.ended);
        self.reader.end(|event| {
            *ended = !step(translation, &event, out);
            !*ended
        });
        if self.ended {
            return;
        }
        if self.translation.finished() {
            self.translation.finish(out);
            self.ended = true;
        } else {
            self.fail(&Fault::malformed("the deployment's stream broke off"), out);
        }
    }

    /// Ends the stream with an error event of the gateway's own making, e.g. after a time-out of the upstream.
    pub fn abort(&mut self, kind: crate::ErrorKind, code: &str, message: &str, out: &mut Vec<u8>) {
        if !self.ended {
            self.fail(
                &Fault {
                    kind,
                    code: Some(code.to_owned()),
                    message: message.to_owned(),
                },
                out,
            );
        }
    }

    /// Whether the client has got its last event.
    #[must_use]
    pub const fn ended(&self) -> bool {
        self.ended
    }

    fn fail(&mut self, fault: &Fault, out: &mut Vec<u8>) {
        self.translation.fail(fault, out);
        self.ended = true;
    }
}

/// Translates one event; false if it was the last.
fn step(translation: &mut Translation, event: &Event<'_>, out: &mut Vec<u8>) -> bool {
    match translation.event(event, out) {
        Ok(Progress::More) => true,
        Ok(Progress::Done) => {
            if translation.finished() {
                translation.finish(out);
            } else {
                translation.fail(
                    &Fault::malformed("the deployment's stream ended without a reason"),
                    out,
                );
            }
            false
        }
        Err(fault) => {
            translation.fail(&fault, out);
            false
        }
    }
}
