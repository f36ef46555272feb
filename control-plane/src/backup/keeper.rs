//! Makes backups as the settings say, and removes old ones.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tollgate_policy::documents::Backup;

use super::{Archive, ArchiveError, BackupFile, BackupFolder};
use crate::accounts::{Accounts, Action, Resource};
use crate::audit::{Audit, Entry, Outcome};
use crate::config::StatusWatch;
use crate::schedule::now_ms;
use crate::secrets::MasterKey;

/// Longest time between two looks at the clock.
const LOOK: Duration = Duration::from_secs(60);
/// Wait after a backup that failed.
const AGAIN: Duration = Duration::from_secs(60);

/// Makes backups.
pub struct Keeper {
    /// What is put into them, and the settings.
    pub config: StatusWatch,
    /// What else is put into them.
    pub accounts: Accounts,
    /// Seals.
    pub key: MasterKey,
    /// Where they are kept.
    pub folder: BackupFolder,
    /// Where it is written down.
    pub audit: Audit,
}

impl Keeper {
    /// Makes backups until it is time to end.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let keeper = Arc::new(self);
        let mut config = keeper.config.clone();
        loop {
            let settings = config.borrow_and_update().settings.backup;
            let wait = match settings {
                None => LOOK,
                Some(settings) => {
                    let keeper = Arc::clone(&keeper);
                    let looked = tokio::task::spawn_blocking(move || keeper.look(settings));
                    looked.await.unwrap_or(AGAIN)
                }
            };
            tokio::select! {
                _ = stop.wait_for(|s| *s) => return,
                changed = config.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(wait.min(LOOK)) => {}
            }
        }
    }

    /// Makes a backup if it is time for one; how long to wait then.
    fn look(&self, settings: Backup) -> Duration {
        let every = settings.every.as_millis();
        let newest = self
            .folder
            .list()
            .ok()
            .and_then(|files| Some(files.first()?.created_at_ms));
        // A clock that was set back does not keep backups from being made.
        let age = newest.map(|at| now_ms().abs_diff(at));
        if let Some(age) = age.filter(|age| *age < every) {
            return Duration::from_millis(every - age);
        }
        match self.make(usize::try_from(settings.keep).unwrap_or(usize::MAX)) {
            Ok(file) => {
                tracing::info!(name = file.name, bytes = file.bytes, "made a backup");
                self.record(&file.name, Outcome::Ok, String::new());
                Duration::from_millis(every)
            }
            Err(error) => {
                tracing::error!(%error, "no backup was made");
                self.record("", Outcome::Failed, error.to_string());
                AGAIN
            }
        }
    }

    fn make(&self, keep: usize) -> Result<BackupFile, ArchiveError> {
        let documents = Arc::clone(&self.config.borrow().documents);
        let archive = Archive::make(&documents, &self.accounts, &self.key, now_ms())?;
        let file = self.folder.write(&archive)?;
        // What cannot be read back is none.
        self.folder.read(&file.name)?.verify(&self.key)?;
        self.folder.prune(keep)?;
        Ok(file)
    }

    fn record(&self, target: &str, outcome: Outcome, reason: String) {
        let entry = Entry {
            actor: "tollgate".into(),
            via: "schedule".into(),
            resource: Resource::Backup.name().into(),
            action: Action::Execute.name().into(),
            target: target.into(),
            outcome,
            reason,
            ..Entry::default()
        };
        if let Err(error) = self.audit.append(entry) {
            tracing::error!(%error, "a backup is not in the audit log");
        }
    }
}
