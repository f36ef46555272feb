//! The archive. Credentials stand in it as they stand in the documents, sealed with the master key, which is not part of
//! it; a code of the same key says that nobody changed it.

use std::collections::BTreeMap;
use std::sync::Arc;

use hmac::{Hmac, Mac};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use tollgate_policy::{Kind, Problem};

use crate::accounts::{Accounts, AccountsError, KeptRecord};
use crate::config::{
    Change, ConfigSource, Document, DocumentSet, Edit, Expected, PutError, edited, instance_of, parse_set,
    resealed, sealed,
};
use crate::secrets::{MasterKey, SealError};

/// The form of archives that this program writes and reads.
pub const FORMAT: &str = "tollgate-backup/1";

/// What an archive holds.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "BackupContent")]
pub struct Content {
    /// `tollgate-backup/1`.
    pub format: String,
    /// Version of the program that wrote it.
    pub version: String,
    /// Unix milliseconds.
    pub created_at_ms: u64,
    /// Text of each document.
    pub documents: BTreeMap<String, String>,
    /// Accounts, custom roles and API tokens, without anything that could be used to sign in.
    pub accounts: Vec<KeptRecord>,
}

/// An archive.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Backup")]
pub struct Archive {
    /// What it holds.
    pub content: Content,
    /// Shows that the content is what a daemon with the same master key wrote.
    pub code: String,
}

/// Why an archive was not made or not restored.
#[derive(Debug)]
pub enum ArchiveError {
    /// A document is no text.
    NoText(String),
    /// A credential in the clear cannot be sealed.
    Unsealed(SealError),
    /// It is of another form.
    Format(String),
    /// It was changed, or written with another master key.
    Code,
    /// It names a document that cannot be one.
    Name(String),
    /// Its documents are not valid, together with those that stay.
    Invalid(Vec<Problem>),
    /// The documents cannot be written.
    Put(PutError),
    /// The accounts cannot be read or written.
    Accounts(AccountsError),
    /// It cannot be written as JSON.
    Json(serde_json::Error),
}

impl std::fmt::Display for ArchiveError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ArchiveError::NoText(name) => write!(f, "`{name}` is no text"),
            ArchiveError::Unsealed(error) => write!(f, "a credential cannot be sealed: {error}"),
            ArchiveError::Format(format) => write!(f, "`{format}` is not `{FORMAT}`"),
            ArchiveError::Code => {
                f.write_str("the archive was changed, or written by a daemon with another master key")
            }
            ArchiveError::Name(name) => write!(f, "`{name}` is no name of a document"),
            ArchiveError::Invalid(problems) => {
                let errors = problems.iter().filter(|p| p.is_error()).count();
                write!(f, "its documents have {errors} errors")
            }
            ArchiveError::Put(error) => error.fmt(f),
            ArchiveError::Accounts(error) => write!(f, "accounts: {error:?}"),
            ArchiveError::Json(error) => error.fmt(f),
        }
    }
}
impl std::error::Error for ArchiveError {}

/// What is to be restored.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// Who wants it.
    pub author: String,
    /// Only say what would happen.
    pub dry_run: bool,
    /// Whether accounts, roles and tokens are restored too.
    pub accounts: bool,
}

/// What was restored.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Restored {
    /// Whether anything was written; not for a dry run.
    pub written: bool,
    /// Documents that are other than before.
    pub changed: Vec<String>,
    /// Documents that the archive does not have; they stay as they are.
    pub left: Vec<String>,
    /// Accounts, roles and tokens that were written.
    pub accounts: usize,
}

fn code(key: &MasterKey, content: &Content) -> Result<String, ArchiveError> {
    let text = serde_json::to_vec(content).map_err(ArchiveError::Json)?;
    // A key of any length will do.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key.derived("backup").as_slice()) else {
        return Err(ArchiveError::Code);
    };
    mac.update(&text);
    let bytes = mac.finalize().into_bytes();
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

impl Archive {
    /// Everything that makes this gateway what it is. May block.
    ///
    /// # Errors
    /// See [`ArchiveError`].
    pub fn make(
        documents: &DocumentSet,
        accounts: &Accounts,
        key: &MasterKey,
        now_ms: u64,
    ) -> Result<Archive, ArchiveError> {
        let mut texts = BTreeMap::new();
        for document in &documents.documents {
            let bytes = match document.kind() {
                // What stands there in the clear because its source is for reading only is sealed here.
                Some(kind) if kind.holds_secrets() => sealed(&document.bytes, key)
                    .map_err(ArchiveError::Unsealed)?
                    .unwrap_or_else(|| document.bytes.to_vec()),
                _ => document.bytes.to_vec(),
            };
            let text = String::from_utf8(bytes).map_err(|_| ArchiveError::NoText(document.name.clone()))?;
            texts.insert(document.name.clone(), text);
        }
        let content = Content {
            format: FORMAT.into(),
            version: env!("CARGO_PKG_VERSION").into(),
            created_at_ms: now_ms,
            documents: texts,
            accounts: accounts.export().map_err(ArchiveError::Accounts)?,
        };
        let code = code(key, &content)?;
        Ok(Archive { content, code })
    }

    /// Whether it is of our form, and nobody changed it.
    ///
    /// # Errors
    /// [`ArchiveError::Format`] or [`ArchiveError::Code`] if not.
    pub fn verify(&self, key: &MasterKey) -> Result<(), ArchiveError> {
        if self.content.format != FORMAT {
            return Err(ArchiveError::Format(self.content.format.clone()));
        }
        let ours = code(key, &self.content)?;
        if bool::from(ours.as_bytes().ct_eq(self.code.as_bytes())) {
            Ok(())
        } else {
            Err(ArchiveError::Code)
        }
    }

    /// The same, sealed and signed with another key.
    ///
    /// # Errors
    /// If it is not of the old key, or a credential in it is not.
    pub fn rekeyed(&self, old: &MasterKey, new: &MasterKey) -> Result<Archive, ArchiveError> {
        self.verify(old)?;
        let mut content = self.content.clone();
        for text in content.documents.values_mut() {
            if let Some(bytes) = resealed(text.as_bytes(), old, new).map_err(ArchiveError::Unsealed)? {
                *text = String::from_utf8(bytes).map_err(|_| ArchiveError::NoText(String::new()))?;
            }
        }
        let code = code(new, &content)?;
        Ok(Archive { content, code })
    }

    /// The documents that it would put in place of others, and what is wrong with all of them together.
    ///
    /// # Errors
    /// If it names a document that cannot be one.
    pub fn edits(&self, present: &DocumentSet) -> Result<(Vec<Edit>, Vec<Problem>), ArchiveError> {
        let mut edits = Vec::new();
        for (name, text) in &self.content.documents {
            let known = Kind::from_file_name(name).is_some() || instance_of(name).is_some();
            if !known || name.contains(['/', '\\']) || name.starts_with('.') {
                return Err(ArchiveError::Name(name.clone()));
            }
            let document = Document::new(name.clone(), text.clone().into_bytes());
            let before = present.get(name);
            if before.is_none_or(|before| before.etag != document.etag) {
                edits.push(Edit {
                    name: document.name,
                    bytes: Some(document.bytes),
                    expected: Expected::exactly(before.map(|before| &before.etag)),
                });
            }
        }
        let (_, problems) = parse_set(&edited(present, &edits));
        Ok((edits, problems))
    }

    /// Makes the gateway what it was. Documents that the archive does not have stay; nothing is written unless all of
    /// them together are valid. May block.
    ///
    /// # Errors
    /// See [`ArchiveError`].
    pub fn restore(
        &self,
        source: &dyn ConfigSource,
        present: &Arc<DocumentSet>,
        accounts: &Accounts,
        wish: &Wish,
    ) -> Result<Restored, ArchiveError> {
        let (edits, problems) = self.edits(present)?;
        if problems.iter().any(Problem::is_error) {
            return Err(ArchiveError::Invalid(problems));
        }
        let changed = edits.iter().map(|e| e.name.clone()).collect();
        if !wish.dry_run && !edits.is_empty() {
            let message = format!("restored the backup of {}", self.content.created_at_ms);
            // One version: all of it or nothing.
            let change = Change {
                author: wish.author.clone(),
                message,
                edits,
            };
            source.publish(&change).map_err(ArchiveError::Put)?;
        }
        let left = present.documents.iter().map(|d| &d.name);
        let left = left.filter(|n| !self.content.documents.contains_key(*n)).cloned();
        let accounts = match wish.accounts {
            true if wish.dry_run => self.content.accounts.len(),
            true => accounts
                .import(&self.content.accounts)
                .map_err(ArchiveError::Accounts)?,
            false => 0,
        };
        Ok(Restored {
            written: !wish.dry_run,
            changed,
            left: left.collect(),
            accounts,
        })
    }
}
