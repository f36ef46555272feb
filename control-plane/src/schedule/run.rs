//! Publishes drafts when their time has come.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::watch;
use tollgate_policy::Problem;

use super::draft::{Draft, State, now_ms};
use super::store::Schedules;
use crate::accounts::{Accounts, Action, RecordsError, Resource};
use crate::audit::{Audit, Detail, Entry, Outcome};
use crate::config::{Change, ConfigSource, DocumentSet, Edit, PutError, edited, parse_set};

/// Longest time between two looks: drafts may come from other instances.
const LOOK: Duration = Duration::from_secs(5);
/// How long an instance that has claimed a draft is waited for.
const CLAIM_MS: u64 = 30_000;
/// Most problems that are kept of a refused draft.
const MOST_PROBLEMS: usize = 20;

/// Publishes what is due.
pub struct Runner {
    /// The drafts.
    pub schedules: Schedules,
    /// Where they are published.
    pub source: Arc<dyn ConfigSource>,
    /// Whether their authors still may.
    pub accounts: Accounts,
    /// Where it is written down.
    pub audit: Audit,
    /// Name of this instance.
    pub instance: String,
}

/// What came of a try.
enum Tried {
    Published(u64),
    Refused(String, Vec<String>),
    /// Nobody's fault: another try may succeed.
    Later(String),
}

impl Runner {
    /// Publishes drafts until it is time to end.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let runner = Arc::new(self);
        let mut changes = runner.schedules.changes();
        loop {
            changes.borrow_and_update();
            let working = Arc::clone(&runner);
            let wait = match tokio::task::spawn_blocking(move || working.look(now_ms())).await {
                Ok(Ok(wait)) => wait,
                Ok(Err(error)) => {
                    tracing::error!(%error, "scheduled changes cannot be looked at");
                    LOOK
                }
                Err(_) => LOOK,
            };
            tokio::select! {
                _ = stop.wait_for(|s| *s) => return,
                _ = changes.changed() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Publishes what is due; how long to wait then.
    fn look(&self, now: u64) -> Result<Duration, RecordsError> {
        let mut all = self.schedules.list()?;
        let due: Vec<_> = all
            .iter()
            .filter(|(draft, _)| draft.is_due(now))
            .cloned()
            .collect();
        if !due.is_empty() {
            for (draft, version) in due {
                self.carry_out(draft, version)?;
            }
            all = self.schedules.list()?;
        }
        let next = all.iter().filter_map(|(draft, _)| draft.next_ms()).min();
        let wait = next.map_or(LOOK, |at| Duration::from_millis(at.saturating_sub(now_ms())));
        Ok(wait.min(LOOK))
    }

    fn carry_out(&self, mut draft: Draft, version: u64) -> Result<(), RecordsError> {
        draft.state = State::Running {
            instance: self.instance.clone(),
            until_ms: now_ms().saturating_add(CLAIM_MS),
        };
        let Some(version) = self.schedules.put(&draft, Some(version))? else {
            // Another instance was faster, or it was cancelled.
            return Ok(());
        };
        let at_ms = now_ms();
        let (state, outcome, reason) = match self.publish(&draft) {
            Tried::Later(reason) => {
                tracing::warn!(id = draft.id, reason, "a scheduled change has to wait");
                return Ok(());
            }
            Tried::Published(version) => {
                let instance = self.instance.clone();
                let state = State::Published {
                    version,
                    instance,
                    at_ms,
                };
                (state, Outcome::Ok, String::new())
            }
            Tried::Refused(reason, problems) => {
                let state = State::Refused {
                    reason: reason.clone(),
                    problems,
                    at_ms,
                };
                (state, Outcome::Failed, reason)
            }
        };
        draft.state = state;
        if self.schedules.put(&draft, Some(version))?.is_none() {
            tracing::warn!(id = draft.id, "another instance has taken a scheduled change up");
            return Ok(());
        }
        self.record(&draft, outcome, reason);
        Ok(())
    }

    fn publish(&self, draft: &Draft) -> Tried {
        if let Some(account) = &draft.account {
            match self.accounts.could(account, Resource::Documents, Action::Update) {
                Ok(true) => {}
                Ok(false) => {
                    let reason = format!("`{account}` may not change documents any more");
                    return Tried::Refused(reason, Vec::new());
                }
                Err(error) => return Tried::Later(format!("accounts cannot be looked at: {error:?}")),
            }
        }
        let present = Arc::clone(&self.source.documents().borrow());
        let edits: Vec<Edit> = draft.edits.iter().map(super::KeptEdit::edit).collect();
        if let Some(version) = done_already(&present, &edits) {
            return Tried::Published(version);
        }
        for edit in &edits {
            if !edit.expected.holds(present.get(&edit.name).map(|d| &d.etag)) {
                return Tried::Refused(changed(&edit.name), Vec::new());
            }
        }
        let (_, problems) = parse_set(&edited(&present, &edits));
        let errors: Vec<&Problem> = problems.iter().filter(|p| p.is_error()).collect();
        if !errors.is_empty() {
            let reason = format!("{} errors in the documents", errors.len());
            let told = errors.iter().take(MOST_PROBLEMS).map(ToString::to_string);
            return Tried::Refused(reason, told.collect());
        }
        let message = match draft.message.as_str() {
            "" => "scheduled".to_owned(),
            message => format!("{message} (scheduled)"),
        };
        let change = Change {
            author: draft.author.clone(),
            message,
            edits,
        };
        match self.source.publish(&change) {
            Ok(version) => Tried::Published(version.number),
            Err(PutError::Changed { document, .. }) => Tried::Refused(changed(&document), Vec::new()),
            Err(error @ (PutError::ReadOnly | PutError::TooLarge { .. })) => {
                Tried::Refused(error.to_string(), Vec::new())
            }
            Err(error @ (PutError::Busy | PutError::Failed { .. })) => Tried::Later(error.to_string()),
        }
    }

    fn record(&self, draft: &Draft, outcome: Outcome, reason: String) {
        let documents: Vec<&str> = draft.edits.iter().map(|e| e.name.as_str()).collect();
        let version = match &draft.state {
            State::Published { version, .. } => Some(*version),
            _ => None,
        };
        let after = json!({ "version": version, "message": draft.message, "documents": documents });
        let entry = Entry {
            actor: draft.account.clone().unwrap_or_else(|| "root".to_owned()),
            via: "schedule".into(),
            resource: Resource::Documents.name().into(),
            action: Action::Update.name().into(),
            target: format!("scheduled change {}", draft.id),
            outcome,
            reason,
            detail: Some(Detail {
                after: Some(after),
                ..Detail::default()
            }),
            ..Entry::default()
        };
        match &draft.state {
            State::Published { version, .. } => {
                tracing::info!(id = draft.id, version, "published a scheduled change");
            }
            _ => tracing::error!(
                id = draft.id,
                reason = entry.reason,
                "a scheduled change was refused"
            ),
        }
        if let Err(error) = self.audit.append(entry) {
            tracing::error!(%error, "a scheduled change is not in the audit log");
        }
    }
}

fn changed(document: &str) -> String {
    format!("`{document}` was changed after this had been scheduled")
}

/// The version in which all of it is already, as after a try that died before it could say so.
fn done_already(present: &DocumentSet, edits: &[Edit]) -> Option<u64> {
    let is_so = |edit: &Edit| match (&edit.bytes, present.get(&edit.name)) {
        (Some(bytes), Some(document)) => document.bytes == *bytes,
        (None, None) => true,
        _ => false,
    };
    present.version.filter(|_| edits.iter().all(is_so))
}
