//! How models are counted: the snapshot's rules made ready once per generation, and the tokenizers that they use.

use std::path::Path;

use self_cell::self_cell;
use tollgate_meter::counting::{Engine, ModelCounter, TextPattern, TextRule};
use tollgate_meter::request::{Formula, ImagePrice};
use tollgate_meter::tokenizer::{Counter, StepCounter, StreamCounter, Vocabulary, builtin};
use tollgate_policy::documents::Images;
use tollgate_policy::{CountingView, Snapshot};
use tollgate_shm::MappedFile;

use crate::ngx::log;

/// How one model is counted.
pub(crate) struct Counting {
    pub rule: TextRule,
    pub formula: Formula,
    /// 24 bits that change with whatever decides a count.
    pub version: u32,
    /// Whether counts are estimates.
    pub estimate: bool,
    /// Whether the daemon learns the factor from what upstreams report.
    pub learns: bool,
    /// Thousandths of our own count above which an upstream's usage is suspicious.
    suspicious_factor: u64,
    tokenizer: Tokenizer,
}

#[derive(Clone, PartialEq, Eq)]
enum Tokenizer {
    BuiltIn,
    /// By the checksum of what it was compiled from; of that name.
    File {
        source: u64,
        name: Box<str>,
    },
}

/// Figures that differ by no more than this are no lie.
const SLACK: u64 = 64;

impl Counting {
    pub fn new(view: &CountingView<'_>) -> Counting {
        let patterns = view.patterns().filter_map(|(pattern, units)| {
            // Validated by the daemon; one that this version cannot use is left out.
            TextPattern::new(pattern, units)
                .inspect_err(|e| log::error(format_args!("tollgate: counting rule {:?}: {e}", view.rule())))
                .ok()
        });
        Counting {
            rule: TextRule {
                ratios: view.ratios(),
                patterns: patterns.collect(),
                factor: view.factor(),
                minimum: view.minimum(),
                maximum: view.maximum(),
                most_per_byte: view.most_per_byte(),
            },
            formula: Formula {
                parts: view.parts(),
                image: match view.images() {
                    Images::Fixed { tokens } => ImagePrice::Fixed { tokens },
                    Images::Tiles { base, per_tile } => ImagePrice::Tiles { base, per_tile },
                    Images::Patches { cap, percent } => ImagePrice::Patches { cap, percent },
                    Images::Areas { cap } => ImagePrice::Areas { cap },
                    Images::Crops { per_crop, most } => ImagePrice::Crops { per_crop, most },
                },
                audio_second: view.audio_second(),
            },
            version: view.version(),
            estimate: view.is_estimate(),
            learns: view.learns(),
            suspicious_factor: view.suspicious_factor().into(),
            tokenizer: match (view.vocabulary(), view.tokenizer()) {
                (Some((_, source)), name) => Tokenizer::File {
                    source,
                    name: name.into(),
                },
                _ => Tokenizer::BuiltIn,
            },
        }
    }

    /// Whether an upstream's figure is more than the model's factor above `most`, what it can be at most by our own count.
    pub fn is_above(&self, reported: u64, most: u64) -> bool {
        let allowed = u128::from(most) * u128::from(self.suspicious_factor) / 1_000 + u128::from(SLACK);
        u128::from(reported) > allowed
    }

    /// Whether it is more than the factor below `least`.
    pub fn is_below(&self, reported: u64, least: u64) -> bool {
        let allowed = u128::from(reported) * u128::from(self.suspicious_factor) / 1_000 + u128::from(SLACK);
        u128::from(least) > allowed
    }
}

self_cell!(
    struct MappedCounter {
        owner: MappedFile,
        #[not_covariant]
        dependent: Counter,
    }
);

impl Engine for MappedCounter {
    fn count(&mut self, text: &str) -> u64 {
        self.with_dependent_mut(|_, counter| Engine::count(counter, text))
    }

    fn push(&mut self, stream: &mut StreamCounter, text: &str) {
        self.with_dependent_mut(|_, counter| stream.push(counter, text));
    }

    fn finish(&mut self, stream: StreamCounter) -> u64 {
        self.with_dependent_mut(|_, counter| stream.finish(counter))
    }

    fn feed(&mut self, steps: &mut StepCounter, part: &str, last: bool) {
        self.with_dependent_mut(|_, counter| steps.feed(counter, part, last));
    }

    fn step(&mut self, steps: &mut StepCounter, left: &mut usize) -> Option<u64> {
        self.with_dependent_mut(|_, counter| steps.step(counter, left))
    }
}

/// A tokenizer from a file.
struct FromFile {
    source: u64,
    name: Box<str>,
    counter: MappedCounter,
}

impl FromFile {
    /// Maps a compiled vocabulary. A file that is damaged, foreign or another than the snapshot means is refused.
    fn open(path: &Path, source: u64, name: &str) -> Result<FromFile, String> {
        let mapped = MappedFile::open(path).map_err(|e| e.to_string())?;
        let counter = MappedCounter::try_new(mapped, |bytes| {
            let vocabulary = Vocabulary::from_bytes(bytes).map_err(|e| e.to_string())?;
            if vocabulary.source() != source {
                return Err("it was compiled from another file".to_owned());
            }
            Ok(Counter::new(vocabulary))
        })?;
        Ok(FromFile {
            source,
            name: name.into(),
            counter,
        })
    }

    /// The same from the first folder where it can be used: the region's, which the daemon fills, or the state folder's, for
    /// an nginx that starts first.
    fn open_any(folders: [&Path; 2], file: &str, source: u64, name: &str) -> Result<FromFile, String> {
        let mut reasons = Vec::new();
        for folder in folders {
            let path = folder.join("tokenizers").join(file);
            match FromFile::open(&path, source, name) {
                Ok(opened) => return Ok(opened),
                Err(reason) => reasons.push(format!("{}: {reason}", path.display())),
            }
        }
        Err(reasons.join(", "))
    }
}

/// The tokenizers of this worker. The one that is part of the binary is made at first use, the others when a generation
/// comes that uses them, so that no request waits for a file.
#[derive(Default)]
pub(crate) struct Tokenizers {
    built_in: Option<Counter<'static>>,
    files: Vec<FromFile>,
}

impl Tokenizers {
    /// Maps what a new generation uses and lets go of what it does not. A file that can be used in none of the folders leaves
    /// the former one of that name in place.
    pub fn follow(&mut self, snapshot: Snapshot<'_>, folders: [&Path; 2]) {
        let mut former = std::mem::take(&mut self.files);
        for model in snapshot.models() {
            let Some(view) = model.counting() else { continue };
            let Some((file, source)) = view.vocabulary() else {
                continue;
            };
            let name = view.tokenizer();
            if self.files.iter().any(|f| &*f.name == name) {
                continue;
            }
            let known = former.iter().position(|f| f.source == source && &*f.name == name);
            let taken = match known {
                Some(at) => Some(former.swap_remove(at)),
                None => match FromFile::open_any(folders, file, source, name) {
                    Ok(opened) => Some(opened),
                    Err(reason) => {
                        let former = former
                            .iter()
                            .position(|f| &*f.name == name)
                            .map(|at| former.swap_remove(at));
                        let instead = if former.is_some() {
                            "the former one"
                        } else {
                            "o200k_base"
                        };
                        log::error(format_args!(
                            "tollgate: cannot use the tokenizer {file}: {reason}; going on with {instead}"
                        ));
                        former
                    }
                },
            };
            self.files.extend(taken);
        }
    }

    /// A counter for a model. One whose tokenizer is not there any more, or could not be read, counts with what is nearest.
    pub fn counter<'a>(&'a mut self, counting: &'a Counting) -> ModelCounter<'a> {
        let engine: Option<&mut dyn Engine> = if counting.rule.ratios.is_some() {
            None
        } else {
            self.engine(&counting.tokenizer)
        };
        ModelCounter::new(&counting.rule, engine)
    }

    fn engine(&mut self, tokenizer: &Tokenizer) -> Option<&mut dyn Engine> {
        if let Tokenizer::File { source, name } = tokenizer {
            let exact = self.files.iter().position(|f| f.source == *source);
            if let Some(found) = exact
                .or_else(|| self.files.iter().position(|f| f.name == *name))
                .and_then(|at| self.files.get_mut(at))
            {
                return Some(&mut found.counter);
            }
        }
        if self.built_in.is_none() {
            self.built_in = builtin().ok().map(Counter::new);
        }
        self.built_in.as_mut().map(|counter| counter as &mut dyn Engine)
    }
}
