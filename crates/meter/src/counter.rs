//! The one thing that request and response counting need from a tokenizer.

/// Counts the tokens of one piece of text.
///
/// Chat-format overhead, images and tool schemas are not its business: `request::count_input` adds them.
/// How many tokens a text of so many bytes has at most is the counter's to say where a bound is needed: a byte-level
/// tokenizer has never more than bytes.
pub trait TokenCounter {
    /// Tokens of `text`, counted as ordinary text: a special token's spelling is not special. A counter whose texts may
    /// have parts of a token returns units of its own, which [`Self::tokens`] brings to tokens in the end.
    fn count(&mut self, text: &str) -> u64;

    /// Tokens that the units of all texts of a request make.
    fn tokens(&self, units: u64) -> u64 {
        units
    }
}

impl<C: TokenCounter + ?Sized> TokenCounter for &mut C {
    fn count(&mut self, text: &str) -> u64 {
        (**self).count(text)
    }

    fn tokens(&self, units: u64) -> u64 {
        (**self).tokens(units)
    }
}
