//! Counting outside the workers: tokenizers that operators add, factors that are learned, and texts and requests counted
//! for whoever asks.

mod count;
mod learner;
mod tokenizers;

use std::path::Path;
use std::sync::Arc;

pub use count::{Counted, What, count};
pub use learner::{Learned, Learner};
pub use tokenizers::{Look, Tokenizers};

/// What counting needs in the daemon.
#[derive(Clone, Debug)]
pub struct Counting {
    /// Where tokenizers lie.
    pub tokenizers: Arc<Tokenizers>,
    /// What was learned.
    pub learner: Arc<Learner>,
}

impl Counting {
    /// With operators' tokenizers in `config/tokenizers` and `state/tokenizers`, compiled ones and what was learned in the
    /// state folder.
    pub fn new(config: Option<&Path>, state: &Path) -> Counting {
        let compiled = state.join("tokenizers");
        let mut sources: Vec<_> = config.map(|dir| dir.join("tokenizers")).into_iter().collect();
        sources.push(compiled.clone());
        Counting {
            tokenizers: Arc::new(Tokenizers::new(sources, Some(compiled))),
            learner: Arc::new(Learner::open(Some(state.join("learned.json")))),
        }
    }

    /// Without a state folder: what is compiled is not kept, and nothing is learned.
    pub fn offline(config: &Path) -> Counting {
        Counting {
            tokenizers: Arc::new(Tokenizers::new(vec![config.join("tokenizers")], None)),
            learner: Arc::new(Learner::open(None)),
        }
    }
}
