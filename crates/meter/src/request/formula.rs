//! What a request costs beside its texts. The numbers of a model family are data of the configuration; here stands what
//! they mean.

use super::audio;
use super::image::ImagePrice;

/// A part of a request that costs tokens of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Every chat request, once: the begin of the conversation and the head of the answer that the template puts behind
    /// it.
    Request,
    /// Every message: the marks around it. Its role counts as a text.
    Message,
    /// Every `name` in a message, beside its text.
    Name,
    /// A request with tools, once.
    Tools,
    /// Every tool.
    Tool,
    /// Every key of a schema that is no keyword of JSON Schema, beside its text.
    SchemaKey,
    /// Every value in a tool or schema, beside its text: punctuation of the rendering.
    SchemaValue,
    /// Every key and value of JSON that the model reads as such (Anthropic's tool inputs), beside its text.
    JsonValue,
}

impl Part {
    /// How many there are.
    pub const COUNT: usize = Self::JsonValue as usize + 1;
}

/// The prices of one model's requests, in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Formula {
    /// By [`Part`].
    pub parts: [u32; Part::COUNT],
    /// Images, by their size.
    pub image: ImagePrice,
    /// A second of audio in the input.
    pub audio_second: u32,
}

impl Default for Formula {
    /// OpenAI's: see the cookbook "How to count tokens with tiktoken" (3 a message, 1 a name, 3 once; a function 7 and
    /// 3 a property, 12 once), 10 tokens a second of audio by the guide "Audio".
    fn default() -> Self {
        Self {
            parts: [3, 3, 1, 12, 7, 3, 1, 1],
            image: ImagePrice::Tiles {
                base: 85,
                per_tile: 170,
            },
            audio_second: 10,
        }
    }
}

impl Formula {
    pub(super) fn part(&self, part: Part) -> u64 {
        self.parts.get(part as usize).copied().unwrap_or(0).into()
    }

    /// Tokens of audio that lasts this many thousandths of a second.
    pub(super) fn audio(&self, milliseconds: u64) -> u64 {
        milliseconds
            .saturating_mul(self.audio_second.into())
            .div_ceil(1_000)
    }
}

/// What a walk over a body has found, before any model's prices: multiplied out by [`InputTally::bound`].
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct InputTally {
    /// Raw bytes of all texts: never fewer than those of what they decode to.
    pub text_bytes: u64,
    /// Parts with prices of their own, by [`Part`].
    pub parts: [u64; Part::COUNT],
    /// Token ids and what is only estimated from its size, in tokens.
    pub fixed: u64,
    /// Characters of base64 that are audio.
    pub audio_characters: u64,
    /// Images.
    pub images: u32,
}

impl InputTally {
    pub(super) fn part(&mut self, part: Part) {
        if let Some(count) = self.parts.get_mut(part as usize) {
            *count += 1;
        }
    }

    /// Everything but the texts, at most. Saturating.
    #[must_use]
    pub fn beside_texts(&self, formula: &Formula) -> u64 {
        let parts = self
            .parts
            .iter()
            .zip(&formula.parts)
            .map(|(count, price)| count.saturating_mul((*price).into()))
            .fold(self.fixed, u64::saturating_add);
        let images = u64::from(self.images).saturating_mul(formula.image.upper_bound());
        let audio = formula.audio(audio::longest(self.audio_characters));
        parts.saturating_add(images).saturating_add(audio)
    }

    /// The most input tokens that this can be, if texts of so many bytes have at most `texts(bytes)`.
    #[must_use]
    pub fn bound(&self, formula: &Formula, texts: impl FnOnce(u64) -> u64) -> u64 {
        self.beside_texts(formula).saturating_add(texts(self.text_bytes))
    }
}
