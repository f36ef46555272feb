//! The one thing that request and response counting need from a tokenizer.

/// Counts the tokens of one piece of text.
///
/// Chat-format overhead, images and tool schemas are not its business: `request::count_input` adds them.
/// The upper bound that `request::scan` computes holds for counters that never return more tokens than
/// `text` has bytes (every byte-level tokenizer; one with a compatibility normalizer may exceed it).
pub trait TokenCounter {
    /// Tokens of `text`, counted as ordinary text: a special token's spelling is not special.
    fn count(&mut self, text: &str) -> u64;
}

impl<C: TokenCounter + ?Sized> TokenCounter for &mut C {
    fn count(&mut self, text: &str) -> u64 {
        (**self).count(text)
    }
}
