//! Tokenizers that are not part of the binaries: files that operators put into a folder, and those on board. Each is
//! compiled once, to `<name>.<checksum of its source>.tgv`, of which every worker maps the copy beside the region.
//!
//! | file | format |
//! | --- | --- |
//! | `<name>.json` | Hugging Face's `tokenizer.json` or Mistral's `tekken.json` |
//! | `<name>/tokenizer.json`, `<name>/tekken.json` | the same |
//! | `<name>.model`, `<name>/tokenizer.model` | SentencePiece's own, of byte-pair models |
//! | `<name>.<pattern>[.nfc\|.nfkc].tiktoken` | a tiktoken rank file, which does not say how texts are split |
//!
//! An operator's file goes before a tokenizer on board of the same name. A file that cannot be used changes nothing: what
//! was compiled from the one before stays in force.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use tollgate_meter::tokenizer::{
    Normalizer, Pattern, Vocabulary, compile_on_board, is_compiled_on_board, load, on_board_checksum,
};
use tollgate_policy::{Problem, VocabularyFile};
use tollgate_shm::write_atomically;

/// Longest file of a tokenizer.
const MAX_BYTES: u64 = 256 << 20;
/// Compiled files that are kept of one name: workers with an older configuration may still want the former one.
const KEPT: usize = 3;

/// Tells a file's content apart from what it was.
type Stamp = (u64, u64, i64, i64);

/// Where a tokenizer comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    File { path: PathBuf, format: Format },
    OnBoard,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Json,
    Model,
    Ranks {
        pattern: Pattern,
        normalizer: Normalizer,
    },
}

/// What there is of the tokenizers that models want.
#[derive(Debug, Default)]
pub struct Look {
    /// Ready for workers, by name.
    pub ready: BTreeMap<String, VocabularyFile>,
    /// Not compiled yet: [`Tokenizers::compile`] has to be called with each.
    pub missing: Vec<String>,
    /// What is wrong.
    pub problems: Vec<Problem>,
}

#[derive(Debug, Default)]
struct Known {
    /// Checksums of source files by their stamps.
    sources: BTreeMap<PathBuf, (Stamp, u64)>,
    /// Compiled files that are whole, by their stamps, and what their vocabularies can grow texts to.
    verified: BTreeMap<PathBuf, (Stamp, Result<VocabularyFile, String>)>,
    /// Why a source could not be compiled.
    refused: BTreeMap<(String, u64), String>,
    /// Files that the configuration in force uses.
    handed: BTreeSet<String>,
    /// The stamps of everything in the folders at the last look.
    seen: Vec<(PathBuf, Stamp)>,
}

/// The folders.
#[derive(Debug)]
pub struct Tokenizers {
    sources: Vec<PathBuf>,
    compiled: Option<PathBuf>,
    known: Mutex<Known>,
}

fn stamp(path: &Path) -> Option<Stamp> {
    let meta = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    Some((meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec()))
}

impl Tokenizers {
    /// Tokenizers from files in `sources` (the first folder that has one of a name counts) and on board, compiled into
    /// the folder `compiled`.
    pub fn new(sources: Vec<PathBuf>, compiled: Option<PathBuf>) -> Tokenizers {
        Tokenizers {
            sources,
            compiled,
            known: Mutex::default(),
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Names of all tokenizers that operators have added, with the file of each.
    pub fn files(&self) -> BTreeMap<String, PathBuf> {
        let mut names = BTreeSet::new();
        for folder in &self.sources {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let Ok(file) = entry.file_name().into_string() else {
                    continue;
                };
                let name = match file.strip_suffix(".json").or_else(|| file.strip_suffix(".model")) {
                    Some(name) => Some(name.to_owned()),
                    None if file.ends_with(".tiktoken") => rank_file(&file).map(|(name, ..)| name.to_owned()),
                    None if entry.path().is_dir() => Some(file),
                    None => None,
                };
                names.extend(name);
            }
        }
        names
            .into_iter()
            .filter_map(|name| match self.source(&name)? {
                Source::File { path, .. } => Some((name, path)),
                Source::OnBoard => None,
            })
            .collect()
    }

    fn source(&self, name: &str) -> Option<Source> {
        for folder in &self.sources {
            // A model's folder often holds its tokenizer in several formats, the most telling first.
            let files = [
                (folder.join(format!("{name}.json")), Format::Json),
                (folder.join(name).join("tokenizer.json"), Format::Json),
                (folder.join(name).join("tekken.json"), Format::Json),
                (folder.join(format!("{name}.model")), Format::Model),
                (folder.join(name).join("tokenizer.model"), Format::Model),
            ];
            if let Some((path, format)) = files.into_iter().find(|(path, _)| path.is_file()) {
                return Some(Source::File { path, format });
            }
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let file = entry.file_name();
                let Some((of, pattern, normalizer)) = file.to_str().and_then(rank_file) else {
                    continue;
                };
                if of == name {
                    return Some(Source::File {
                        path: entry.path(),
                        format: Format::Ranks { pattern, normalizer },
                    });
                }
            }
        }
        on_board_checksum(name).map(|_| Source::OnBoard)
    }

    /// Whether a file in the folders has come, gone or changed since this was asked last.
    pub fn changed(&self) -> bool {
        let mut seen: Vec<(PathBuf, Stamp)> = self
            .files()
            .into_values()
            .filter_map(|path| Some((path.clone(), stamp(&path)?)))
            .collect();
        seen.sort();
        let mut known = self.known();
        let changed = known.seen != seen;
        known.seen = seen;
        changed
    }

    /// Looks for these tokenizers; the flag says whether a document names it, so that its absence is a problem.
    pub fn look(&self, wanted: &[(String, bool)]) -> Look {
        let mut look = Look::default();
        for (name, named) in wanted {
            let (source, reason) = match self.current(name) {
                Ok(source) => (source, None),
                Err(reason) => (None, Some(reason)),
            };
            let refused = source.and_then(|sum| self.known().refused.get(&(name.clone(), sum)).cloned());
            let mut found = source.and_then(|sum| self.verified(&self.compiled_path(name, sum)?));
            if found.is_none()
                && self.compiled.is_some()
                && is_compiled_on_board(name)
                && matches!(self.source(name), Some(Source::OnBoard))
            {
                // It only has to be written.
                self.compile(name);
                found = source.and_then(|sum| self.verified(&self.compiled_path(name, sum)?));
            }
            if found.is_none() && source.is_some() && refused.is_none() {
                look.missing.push(name.clone());
            }
            // Until there is a better one, what was there before.
            let file = found.or_else(|| self.former(name));
            let wrong = refused.or(reason);
            if let Some(reason) = wrong {
                let instead = match &file {
                    Some(file) => format!("`{}` stays in force", file.file),
                    None => "o200k_base stands in for it".to_owned(),
                };
                look.problems.push(Problem::warning(
                    "",
                    "",
                    format!("tokenizer `{name}`: {reason}; {instead}"),
                ));
            } else if file.is_none() && source.is_none() && *named {
                look.problems.push(Problem::warning(
                    "",
                    "",
                    format!("tokenizer `{name}`: neither on board nor a file in the tokenizers' folder; o200k_base stands in for it"),
                ));
            }
            if let Some(file) = file {
                look.ready.insert(name.clone(), file);
            }
        }
        look
    }

    /// The checksum of a tokenizer's source as it is now; `None` if there is none.
    fn current(&self, name: &str) -> Result<Option<u64>, String> {
        match self.source(name) {
            None => Ok(None),
            Some(Source::OnBoard) => Ok(on_board_checksum(name)),
            Some(Source::File { path, .. }) => {
                let cannot = |e: io::Error| format!("{} cannot be read: {e}", path.display());
                let now = stamp(&path).ok_or_else(|| cannot(io::ErrorKind::NotFound.into()))?;
                if let Some((then, sum)) = self.known().sources.get(&path)
                    && *then == now
                {
                    return Ok(Some(*sum));
                }
                let sum = load::source_checksum(&read(&path).map_err(cannot)?);
                self.known().sources.insert(path, (now, sum));
                Ok(Some(sum))
            }
        }
    }

    fn compiled_path(&self, name: &str, source: u64) -> Option<PathBuf> {
        Some(self.compiled.as_ref()?.join(format!("{name}.{source:016x}.tgv")))
    }

    /// A compiled file, if it is whole.
    fn verified(&self, path: &Path) -> Option<VocabularyFile> {
        let now = stamp(path)?;
        if let Some((then, verdict)) = self.known().verified.get(path)
            && *then == now
        {
            return verdict.clone().ok();
        }
        let verdict = fs::read(path).map_err(|e| e.to_string()).and_then(|bytes| {
            let vocabulary = Vocabulary::from_bytes(&bytes).map_err(|e| e.to_string())?;
            let file = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if !file.ends_with(&format!(".{:016x}.tgv", vocabulary.source())) {
                return Err("it was compiled from another file than its name says".to_owned());
            }
            Ok(VocabularyFile {
                file,
                source: vocabulary.source(),
                growth: u32::try_from(vocabulary.most_tokens(1)).unwrap_or(u32::MAX),
            })
        });
        if let Err(reason) = &verdict {
            tracing::warn!(file = %path.display(), reason, "a compiled tokenizer is refused");
        }
        self.known()
            .verified
            .insert(path.to_owned(), (now, verdict.clone()));
        verdict.ok()
    }

    /// Compiled files of a name, the youngest first.
    fn compiled_files(&self, name: &str) -> Vec<PathBuf> {
        let Some(folder) = &self.compiled else {
            return Vec::new();
        };
        let mut found: Vec<(Stamp, PathBuf)> = fs::read_dir(folder)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| {
                let file = entry.file_name();
                let middle = file.to_str().and_then(|file| {
                    let rest = file.strip_prefix(name)?.strip_prefix('.')?;
                    rest.strip_suffix(".tgv")
                });
                middle.is_some_and(|sum| sum.len() == 16 && sum.bytes().all(|b| b.is_ascii_hexdigit()))
            })
            .filter_map(|entry| Some((stamp(&entry.path())?, entry.path())))
            .collect();
        found.sort_by_key(|((_, _, seconds, nanos), _)| std::cmp::Reverse((*seconds, *nanos)));
        found.into_iter().map(|(_, path)| path).collect()
    }

    fn former(&self, name: &str) -> Option<VocabularyFile> {
        self.compiled_files(name)
            .into_iter()
            .find_map(|path| self.verified(&path))
    }

    /// Compiles a tokenizer and puts it beside the others. Takes seconds. What comes of it shows in the next look.
    pub fn compile(&self, name: &str) {
        let began = std::time::Instant::now();
        let (sum, outcome) = self.compiled_now(name);
        let written = outcome.and_then(|bytes| {
            let path = self.compiled_path(name, sum).ok_or("there is no folder for it")?;
            let folder = path.parent().unwrap_or(Path::new("."));
            let write = fs::create_dir_all(folder).and_then(|()| write_atomically(&path, &bytes));
            write.map_err(|e| format!("{} cannot be written: {e}", path.display()))?;
            // Written anew, it is looked at anew, whatever its time says.
            self.known().verified.remove(&path);
            Ok(bytes.len())
        });
        match written {
            Ok(bytes) => {
                tracing::info!(name, bytes, took = ?began.elapsed(), "compiled a tokenizer");
                for old in self.compiled_files(name).into_iter().skip(KEPT) {
                    let _ = fs::remove_file(old);
                }
            }
            Err(reason) => {
                tracing::warn!(name, reason, "a tokenizer cannot be used");
                self.known().refused.insert((name.to_owned(), sum), reason);
            }
        }
    }

    fn compiled_now(&self, name: &str) -> (u64, Result<Vec<u8>, String>) {
        match self.source(name) {
            None => (0, Err("it is not there any more".to_owned())),
            Some(Source::OnBoard) => (
                on_board_checksum(name).unwrap_or(0),
                compile_on_board(name)
                    .ok_or_else(|| "it is not on board".to_owned())
                    .and_then(|done| done.map_err(|e| e.to_string())),
            ),
            Some(Source::File { path, format }) => match read(&path) {
                Err(e) => (0, Err(format!("{} cannot be read: {e}", path.display()))),
                Ok(bytes) => (
                    load::source_checksum(&bytes),
                    compiled(&bytes, format).map_err(|e| format!("{}: {e}", path.display())),
                ),
            },
        }
    }

    /// A compiled vocabulary's bytes: from its file, or compiled for this once where nothing is kept.
    ///
    /// # Errors
    /// If there is none that can be used.
    pub fn bytes(&self, name: &str, file: &str) -> Result<Vec<u8>, String> {
        match &self.compiled {
            Some(folder) if !file.is_empty() => {
                fs::read(folder.join(file)).map_err(|e| format!("{file} cannot be read: {e}"))
            }
            _ => self.compiled_now(name).1,
        }
    }

    /// Puts what a configuration uses where workers can reach it: beside the region, which their user may read when the
    /// state folder may not be. What the configuration before used stays for those who have not followed yet.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn hand_over(&self, ready: &BTreeMap<String, VocabularyFile>, region: &Path) -> io::Result<()> {
        let Some(compiled) = &self.compiled else {
            return Ok(());
        };
        let folder = region.join("tokenizers");
        let files: BTreeSet<String> = ready.values().map(|file| file.file.clone()).collect();
        if !files.is_empty() {
            fs::create_dir_all(&folder)?;
        }
        for file in &files {
            let there = folder.join(file);
            if self.verified(&there).is_none() {
                write_atomically(&there, &fs::read(compiled.join(file))?)?;
                self.known().verified.remove(&there);
            }
        }
        let before = std::mem::replace(&mut self.known().handed, files.clone());
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !files.contains(&name) && !before.contains(&name) {
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(())
    }

    /// Whether there is a tokenizer of that name to compile.
    pub fn has(&self, name: &str) -> bool {
        self.source(name).is_some()
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    if fs::metadata(path)?.len() > MAX_BYTES {
        return Err(io::Error::other(format!("it has more than {MAX_BYTES} bytes")));
    }
    fs::read(path)
}

/// `<name>.<pattern>[.nfc|.nfkc].tiktoken`.
fn rank_file(file: &str) -> Option<(&str, Pattern, Normalizer)> {
    let rest = file.strip_suffix(".tiktoken")?;
    let (rest, normalizer) = match rest.rsplit_once('.') {
        Some((before, "nfc")) => (before, Normalizer::Nfc),
        Some((before, "nfkc")) => (before, Normalizer::Nfkc),
        _ => (rest, Normalizer::None),
    };
    let (name, pattern) = rest.rsplit_once('.')?;
    Some((name, Pattern::from_name(pattern)?, normalizer))
}

fn compiled(bytes: &[u8], format: Format) -> Result<Vec<u8>, load::LoadError> {
    match format {
        Format::Ranks { pattern, normalizer } => load::rank_file(bytes, pattern, normalizer),
        // Only Mistral's has its tokens' bytes in the head of the file.
        Format::Json if memmem(bytes, b"\"token_bytes\"") => load::tekken_json(bytes),
        Format::Json => load::tokenizer_json(bytes),
        Format::Model => load::sentencepiece_model(bytes),
    }
}

fn memmem(bytes: &[u8], part: &[u8]) -> bool {
    let head = bytes.get(..bytes.len().min(1 << 16)).unwrap_or_default();
    head.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A rank file of all bytes and a few joins.
    fn ranks(joins: &[&str]) -> String {
        use base64::Engine as _;
        let encode = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
        let mut text = String::new();
        for byte in 0..=u8::MAX {
            text.push_str(&format!("{} {byte}\n", encode(&[byte])));
        }
        for (rank, join) in (256..).zip(joins) {
            text.push_str(&format!("{} {rank}\n", encode(join.as_bytes())));
        }
        text
    }

    fn look(tokenizers: &Tokenizers) -> Look {
        tokenizers.look(&[("acme".to_owned(), true)])
    }

    #[test]
    fn a_broken_file_changes_nothing_and_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        let (sources, state) = (dir.path().join("sources"), dir.path().join("state"));
        fs::create_dir(&sources).unwrap();
        let tokenizers = Tokenizers::new(vec![sources.clone()], Some(state.clone()));
        assert_eq!(look(&tokenizers).problems.len(), 1);
        assert!(look(&tokenizers).ready.is_empty());

        let file = sources.join("acme.gpt2.tiktoken");
        fs::write(&file, ranks(&["he", "ll", "hell", "hello"])).unwrap();
        assert!(tokenizers.changed() && !tokenizers.changed());
        assert_eq!(look(&tokenizers).missing, ["acme"]);
        tokenizers.compile("acme");
        let first = look(&tokenizers);
        assert!(first.missing.is_empty() && first.problems.is_empty(), "{first:?}");
        let good = first.ready["acme"].clone();
        let bytes = tokenizers.bytes("acme", &good.file).unwrap();
        assert_eq!(Vocabulary::from_bytes(&bytes).unwrap().tokens(), 260);

        // Truncated in the middle of a line: what was compiled before stays.
        fs::write(&file, &ranks(&["he"])[..2_000]).unwrap();
        assert!(tokenizers.changed());
        assert_eq!(look(&tokenizers).missing, ["acme"]);
        tokenizers.compile("acme");
        let second = look(&tokenizers);
        assert_eq!((&second.ready["acme"], second.missing.len()), (&good, 0));
        assert!(second.problems[0].reason.contains("stays in force"), "{second:?}");

        // A compiled file that is damaged is refused and made anew.
        fs::write(&file, ranks(&["he", "ll", "hell", "hello"])).unwrap();
        let path = state.join(&good.file);
        let mut damaged = fs::read(&path).unwrap();
        *damaged.last_mut().unwrap() ^= 1;
        fs::write(&path, &damaged).unwrap();
        let third = look(&tokenizers);
        assert_eq!((third.missing.len(), third.ready.len()), (1, 0));
        tokenizers.compile("acme");
        assert_eq!(look(&tokenizers).ready["acme"], good);
    }

    #[test]
    fn file_names_say_what_ranks_leave_out() {
        assert!(matches!(
            rank_file("my.own.qwen2.nfc.tiktoken"),
            Some(("my.own", Pattern::Qwen2, Normalizer::Nfc))
        ));
        assert!(matches!(
            rank_file("x.llama3.tiktoken"),
            Some(("x", Pattern::Llama3, Normalizer::None))
        ));
        for name in ["x.tiktoken", "x.nothing.tiktoken", "x.llama3", "llama3.tiktoken"] {
            assert!(rank_file(name).is_none(), "{name}");
        }
    }
}
