//! Another master key: everything that the old one sealed or signed on this host is sealed and signed anew. The daemon
//! must not run. Each step can be repeated: a rotation that was cut short goes on where it was.
//!
//! Instances that share documents change the key one after the other. First each gets the next key beside its own (`prepare`), so
//! that everybody opens what either has sealed; then each takes it (`rotate`); at last one of them seals the documents anew
//! (`tollgate config reseal`).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tollgate_policy::Kind;
use tollgate_shm::write_atomically;

use crate::audit::Audit;
use crate::backup::BackupFolder;
use crate::config::{StateFolder, instance_of, resealed};
use crate::secrets::{MasterKey, beside, create_private};

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rotated {
    /// Documents whose credentials were sealed anew.
    pub documents: Vec<String>,
    /// Backups that were sealed and signed anew.
    pub backups: usize,
    /// Backups that are of another key still, and stay so.
    pub foreign_backups: usize,
    /// Where the old key is kept.
    pub old_key: PathBuf,
}

/// Replaces a file's content; whoever might read it before may read it then.
fn rewrite(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let permissions = fs::metadata(path)?.permissions();
    write_atomically(path, bytes)?;
    fs::set_permissions(path, permissions)
}

/// Makes the next key, if there is none yet; its file. The daemon may run.
///
/// # Errors
/// If there is no key to be followed by another one, or it cannot be written.
pub fn prepare(key_file: &Path) -> Result<PathBuf, String> {
    MasterKey::read(key_file).map_err(|e| e.to_string())?;
    let file = beside(key_file, ".new");
    MasterKey::read_or_create(&file).map_err(|e| e.to_string())?;
    Ok(file)
}

/// Puts the next key in the place of the one in `key_file`, which is kept beside it as `….old`, and seals the documents in `config`
/// anew. Without a folder the documents are shared, and so must the next key be: it is not made here.
///
/// # Errors
/// What went wrong, in words; nothing is lost, and another try goes on.
pub fn rotate(state: &Path, key_file: &Path, config: Option<&Path>) -> Result<Rotated, String> {
    let at = |path: &Path| {
        let path = path.display().to_string();
        move |e: io::Error| format!("{path}: {e}")
    };
    let lock = StateFolder::open(state).map_err(|e| match e.kind() {
        io::ErrorKind::WouldBlock => "the daemon runs; stop it first".to_owned(),
        _ => at(state)(e),
    })?;
    let old = MasterKey::read(key_file).map_err(|e| e.to_string())?;
    let (new_file, old_file) = (beside(key_file, ".new"), beside(key_file, ".old"));
    let new = match config {
        Some(_) => MasterKey::read_or_create(&new_file),
        None => MasterKey::read(&new_file),
    }
    .map_err(|e| e.to_string())?;
    let mut rotated = Rotated {
        old_key: old_file.clone(),
        ..Rotated::default()
    };
    let mut names: Vec<PathBuf> = Vec::new();
    if let Some(config) = config {
        names = fs::read_dir(config)
            .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
            .map_err(at(config))?;
        names.sort();
    }
    for path in names {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let holds = Kind::from_file_name(&name).is_some_and(Kind::holds_secrets);
        if !holds && instance_of(&name).is_none() {
            continue;
        }
        let bytes = fs::read(&path).map_err(at(&path))?;
        if let Some(bytes) = resealed(&bytes, &old, &new).map_err(|e| format!("{name}: {e}"))? {
            rewrite(&path, &bytes).map_err(at(&path))?;
            rotated.documents.push(name);
        }
    }
    let folder = BackupFolder::new(&lock.file("backups"));
    for file in folder.list().map_err(at(state))? {
        let archive = folder
            .read(&file.name)
            .map_err(|e| format!("{}: {e}", file.name))?;
        if archive.verify(&new).is_ok() {
            continue;
        }
        match archive.rekeyed(&old, &new) {
            Ok(archive) => {
                folder
                    .write(&archive)
                    .map_err(|e| format!("{}: {e}", file.name))?;
                rotated.backups += 1;
            }
            Err(_) => rotated.foreign_backups += 1,
        }
    }
    Audit::rekey(state, &old, &new).map_err(|e| e.to_string())?;
    // Its credentials are of the old key. The daemon makes another one.
    if config.is_some()
        && let Err(e) = fs::remove_file(lock.snapshot())
        && e.kind() != io::ErrorKind::NotFound
    {
        return Err(at(&lock.snapshot())(e));
    }
    let text = fs::read(key_file).map_err(at(key_file))?;
    let _ = fs::remove_file(&old_file);
    create_private(&old_file, &text).map_err(at(&old_file))?;
    // At once: there is no moment without a key.
    fs::rename(&new_file, key_file).map_err(at(key_file))?;
    Ok(rotated)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::{Accounts, SqliteRecords};
    use crate::audit::Entry;
    use crate::backup::Archive;
    use crate::config::{Document, DocumentSet, redacted, sealed};
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn credential(text: &[u8]) -> String {
        let document: Value = serde_json::from_slice(text).unwrap();
        document["providers"][0]["credentials"]["encrypted"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    #[test]
    fn everything_opens_with_the_new_key_and_nothing_with_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let (state, config) = (dir.path().join("state"), dir.path().join("config"));
        fs::create_dir_all(&config).unwrap();
        fs::create_dir_all(&state).unwrap();
        let key_file = state.join("master.key");
        let old = MasterKey::read_or_create(&key_file).unwrap();
        let text = json!({"providers": [{"id": "p", "protocol": "openai", "base_url": "https://x.example",
            "credentials": {"type": "bearer", "key": "sk-rotated"}}]});
        let first = sealed(text.to_string().as_bytes(), &old).unwrap().unwrap();
        let document = config.join("tollgate.providers.json");
        fs::write(&document, &first).unwrap();
        fs::write(config.join("tollgate.rules.json"), "{\"rules\": []}").unwrap();
        let audit = Audit::open(&state, &old).unwrap();
        audit.append(Entry::default()).unwrap();
        drop(audit);
        let records = SqliteRecords::open(&state.join("accounts.db")).unwrap();
        let accounts = Accounts::new(Arc::new(records)).unwrap();
        let set = DocumentSet {
            documents: vec![Document::new("tollgate.providers.json", first.clone())],
            ..DocumentSet::default()
        };
        let folder = BackupFolder::new(&state.join("backups"));
        let kept = folder
            .write(&Archive::make(&set, &accounts, &old, 5).unwrap())
            .unwrap();
        folder
            .write(&Archive::make(&set, &accounts, &MasterKey::from_bytes([9; 32]), 6).unwrap())
            .unwrap();
        fs::write(state.join("snapshot.last"), "x").unwrap();

        let running = StateFolder::open(&state).unwrap();
        assert!(
            rotate(&state, &key_file, Some(&config))
                .unwrap_err()
                .contains("runs")
        );
        drop(running);
        let done = rotate(&state, &key_file, Some(&config)).unwrap();
        assert_eq!(
            (done.documents, done.backups, done.foreign_backups),
            (vec!["tollgate.providers.json".to_owned()], 1, 1)
        );
        let new = MasterKey::read(&key_file).unwrap();
        let second = fs::read(&document).unwrap();
        let sealed = credential(&second);
        assert!(old.check_text("p", &sealed).is_err());
        let bytes = new.check_text("p", &sealed).unwrap();
        assert_eq!(new.open("p", &bytes).unwrap().as_slice(), b"sk-rotated");
        assert_eq!(redacted(&first), redacted(&second), "nothing else was changed");
        assert!(Audit::verify_folder(&state, &new).unwrap().intact);
        assert!(!Audit::verify_folder(&state, &old).unwrap().intact);
        let archive = folder.read(&kept.name).unwrap();
        assert!(archive.verify(&new).is_ok() && archive.verify(&old).is_err());
        let inside = credential(archive.content.documents["tollgate.providers.json"].as_bytes());
        assert!(new.check_text("p", &inside).is_ok());
        assert!(!state.join("snapshot.last").exists() && !state.join("master.key.new").exists());
        // The old key is there for what was written before.
        let kept = MasterKey::read(&done.old_key).unwrap();
        assert!(kept.check_text("p", &credential(&first)).is_ok());
    }

    #[test]
    fn a_rotation_that_was_cut_short_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let (state, config) = (dir.path().join("state"), dir.path().join("config"));
        fs::create_dir_all(&config).unwrap();
        fs::create_dir_all(&state).unwrap();
        let key_file = state.join("master.key");
        let old = MasterKey::read_or_create(&key_file).unwrap();
        // It has made the new key, and sealed one of two documents.
        let new = MasterKey::read_or_create(&state.join("master.key.new")).unwrap();
        for (shard, key) in [("a", &new), ("b", &old)] {
            let text = json!({"providers": [{"id": shard, "credentials": {"type": "bearer", "key": "sk"}}]});
            let text = sealed(text.to_string().as_bytes(), key).unwrap().unwrap();
            fs::write(config.join(format!("tollgate.providers.{shard}.json")), text).unwrap();
        }
        let done = rotate(&state, &key_file, Some(&config)).unwrap();
        assert_eq!(done.documents, ["tollgate.providers.b.json"]);
        let now = MasterKey::read(&key_file).unwrap();
        for shard in ["a", "b"] {
            let text = fs::read(config.join(format!("tollgate.providers.{shard}.json"))).unwrap();
            assert!(now.check_text(shard, &credential(&text)).is_ok());
        }
        // A credential of some third key stops it before the key is replaced.
        let text = json!({"providers": [{"id": "c", "credentials": {"type": "bearer", "key": "sk"}}]});
        let third = MasterKey::from_bytes([3; 32]);
        let text = sealed(text.to_string().as_bytes(), &third).unwrap().unwrap();
        fs::write(config.join("tollgate.providers.c.json"), text).unwrap();
        let before = fs::read(&key_file).unwrap();
        assert!(
            rotate(&state, &key_file, Some(&config))
                .unwrap_err()
                .contains("tollgate.providers.c.json")
        );
        assert_eq!(fs::read(&key_file).unwrap(), before);
    }

    #[test]
    fn a_shared_key_is_taken_only_once_it_has_been_handed_out() {
        let dir = tempfile::tempdir().unwrap();
        let (state, key_file) = (dir.path().to_owned(), dir.path().join("master.key"));
        assert!(prepare(&key_file).unwrap_err().contains("master.key"));
        let old = MasterKey::read_or_create(&key_file).unwrap();
        assert!(
            rotate(&state, &key_file, None)
                .unwrap_err()
                .contains("master.key.new")
        );
        let file = prepare(&key_file).unwrap();
        let next = fs::read(&file).unwrap();
        // Again, it is the same.
        prepare(&key_file).unwrap();
        rotate(&state, &key_file, None).unwrap();
        assert_eq!(fs::read(&key_file).unwrap(), next);
        let now = MasterKey::read(&key_file).unwrap().with_beside(&key_file);
        let sealed = old.seal("p", b"sk").unwrap();
        assert!(now.open("p", &sealed).is_ok() && now.alone().open("p", &sealed).is_err());
    }
}
