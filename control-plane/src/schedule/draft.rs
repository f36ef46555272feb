//! A draft, as it is stored.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::config::{Edit, Etag, Expected};

/// What becomes of one document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptEdit {
    /// Its name.
    pub name: String,
    /// Its new text, credentials sealed; `None` takes it away.
    pub text: Option<String>,
    /// The version that the author knew; `None` if it was not there.
    pub known: Option<Etag>,
}

impl KeptEdit {
    /// From an edit of documents that are text; `None` if one is not.
    pub fn of(edit: &Edit) -> Option<KeptEdit> {
        let text = match &edit.bytes {
            Some(bytes) => Some(String::from_utf8(bytes.to_vec()).ok()?),
            None => None,
        };
        let known = match &edit.expected {
            Expected::Exactly(etag) => Some(etag.clone()),
            Expected::Absent | Expected::Anything => None,
        };
        Some(KeptEdit {
            name: edit.name.clone(),
            text,
            known,
        })
    }

    /// As an edit.
    pub fn edit(&self) -> Edit {
        Edit {
            name: self.name.clone(),
            bytes: self.text.as_ref().map(|text| Arc::from(text.as_bytes())),
            expected: Expected::exactly(self.known.as_ref()),
        }
    }
}

/// How far a draft has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum State {
    /// Its time has not come.
    Waiting,
    /// An instance publishes it.
    Running {
        /// Which one.
        instance: String,
        /// When others may take it that this one has died, Unix milliseconds.
        until_ms: u64,
    },
    /// It was published.
    Published {
        /// As which version.
        version: u64,
        /// By which instance.
        instance: String,
        /// When, Unix milliseconds.
        at_ms: u64,
    },
    /// It was not published, and will not be.
    Refused {
        /// Why.
        reason: String,
        /// What is wrong with the documents.
        problems: Vec<String>,
        /// When, Unix milliseconds.
        at_ms: u64,
    },
    /// Somebody did not want it any more.
    Cancelled {
        /// Who.
        by: String,
        /// When, Unix milliseconds.
        at_ms: u64,
    },
}

/// A change with a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draft {
    /// Its id.
    pub id: String,
    /// When it is to be published, Unix milliseconds.
    pub at_ms: u64,
    /// Who wants it, as the version will name them.
    pub author: String,
    /// Their account, which must still be allowed to do this then; `None` for the daemon's owner.
    pub account: Option<String>,
    /// Why.
    pub message: String,
    /// When it was made, Unix milliseconds.
    pub created_ms: u64,
    /// What it changes.
    pub edits: Vec<KeptEdit>,
    /// How far it has come.
    pub state: State,
}

impl Draft {
    /// Whether it is to be published now: its time has come, and nobody is at it who lives.
    pub fn is_due(&self, now_ms: u64) -> bool {
        match &self.state {
            State::Waiting => self.at_ms <= now_ms,
            State::Running { until_ms, .. } => *until_ms <= now_ms,
            _ => false,
        }
    }

    /// When to look at it again, Unix milliseconds; `None` if it has ended.
    pub fn next_ms(&self) -> Option<u64> {
        match &self.state {
            State::Waiting => Some(self.at_ms),
            State::Running { until_ms, .. } => Some(*until_ms),
            _ => None,
        }
    }

    /// When it ended, Unix milliseconds.
    pub fn ended_ms(&self) -> Option<u64> {
        match &self.state {
            State::Published { at_ms, .. }
            | State::Refused { at_ms, .. }
            | State::Cancelled { at_ms, .. } => Some(*at_ms),
            State::Waiting | State::Running { .. } => None,
        }
    }
}

/// The wall clock, which all instances share more or less.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draft_is_due_once_its_time_has_come_and_nobody_lives_who_is_at_it() {
        let mut draft = Draft {
            id: "a".into(),
            at_ms: 100,
            author: "x".into(),
            account: None,
            message: String::new(),
            created_ms: 0,
            edits: Vec::new(),
            state: State::Waiting,
        };
        assert!(!draft.is_due(99) && draft.is_due(100));
        draft.state = State::Running {
            instance: "one".into(),
            until_ms: 200,
        };
        assert!(!draft.is_due(199) && draft.is_due(200));
        assert_eq!((draft.next_ms(), draft.ended_ms()), (Some(200), None));
        draft.state = State::Cancelled {
            by: "y".into(),
            at_ms: 150,
        };
        assert!(!draft.is_due(u64::MAX));
        assert_eq!((draft.next_ms(), draft.ended_ms()), (None, Some(150)));
    }

    #[test]
    fn an_edit_comes_back_as_it_was() {
        let edits = [
            Edit {
                name: "tollgate.rules.json".into(),
                bytes: Some(Arc::from(&b"{}"[..])),
                expected: Expected::Exactly(Etag::of(b"x")),
            },
            Edit {
                name: "tollgate.models.json".into(),
                bytes: None,
                expected: Expected::Absent,
            },
        ];
        for edit in edits {
            assert_eq!(KeptEdit::of(&edit).unwrap().edit(), edit);
        }
        let binary = Edit {
            name: "x".into(),
            bytes: Some(Arc::from(&[0xff][..])),
            expected: Expected::Absent,
        };
        assert_eq!(KeptEdit::of(&binary), None);
    }
}
