//! The folders of one instance: configuration, durable state, shared region.

use crate::nginx::Config;
use serde_json::Value;
use std::fs::{OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The token that the API asks for in tests.
pub const TOKEN: &str = "test-token-0123456789abcdef0123456789abcdef";

/// The master key for credentials in tests, 32 bytes as hexadecimal digits.
pub const MASTER_KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

/// Temporary folders of one instance; removed when dropped.
#[derive(Debug)]
pub struct Site {
    root: TempDir,
    region: TempDir,
}

impl Site {
    /// Makes empty folders, but for the token of the API and the master key, which a daemon would invent. The region's stands in memory (`/dev/shm`) where there is one, as it does in operation.
    ///
    /// # Panics
    /// If a folder cannot be made.
    pub fn new() -> Self {
        let root = temporary(&std::env::temp_dir());
        let memory = Path::new("/dev/shm");
        let region = temporary(if memory.is_dir() { memory } else { root.path() });
        // Workers that are not root must reach the region.
        std::fs::set_permissions(region.path(), Permissions::from_mode(0o755)).expect("the folder is opened");
        for folder in ["config", "state"] {
            std::fs::create_dir(root.path().join(folder)).expect("a folder");
        }
        for (name, secret) in [("api.token", TOKEN), ("master.key", MASTER_KEY)] {
            let path = root.path().join("state").join(name);
            let file = OpenOptions::new()
                .create_new(true)
                .write(true)
                .mode(0o600)
                .open(path);
            file.and_then(|mut file| file.write_all(secret.as_bytes()))
                .expect("a secret is written");
        }
        Self { root, region }
    }

    /// Configuration documents.
    pub fn config(&self) -> PathBuf {
        self.root.path().join("config")
    }

    /// What the daemon keeps over a restart.
    pub fn state(&self) -> PathBuf {
        self.root.path().join("state")
    }

    /// What nginx and the daemon share.
    pub fn region(&self) -> PathBuf {
        self.region.path().to_owned()
    }

    /// Gives `{{region}}`, `{{state}}` and `{{config}}` their values.
    #[must_use]
    pub fn fill(&self, config: Config) -> Config {
        config
            .set("region", self.region().display())
            .set("state", self.state().display())
            .set("config", self.config().display())
    }

    /// Writes `tollgate.<kind>.json` by rename, so that no reader sees half of it.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn write(&self, kind: &str, document: &Value) {
        self.write_text(kind, &document.to_string());
    }

    /// As [`Self::write`], with any text, also one that is not valid.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn write_text(&self, kind: &str, text: &str) {
        let path = self.config().join(format!("tollgate.{kind}.json"));
        let new = self.root.path().join("new-document");
        std::fs::write(&new, text).expect("a document is written");
        std::fs::rename(new, path).expect("a document is put in place");
    }
}

impl Default for Site {
    fn default() -> Self {
        Self::new()
    }
}

fn temporary(parent: &Path) -> TempDir {
    tempfile::Builder::new()
        .prefix("tollgate-test-")
        .tempdir_in(parent)
        .expect("a temporary folder")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_replaced_and_folders_removed() {
        let site = Site::new();
        site.write("channels", &serde_json::json!({ "channels": [] }));
        site.write_text("channels", "{");
        assert_eq!(
            std::fs::read_to_string(site.config().join("tollgate.channels.json")).unwrap(),
            "{"
        );
        let folders = [site.config(), site.state(), site.region()];
        assert!(folders.iter().all(|folder| folder.is_dir()));
        drop(site);
        assert!(folders.iter().all(|folder| !folder.exists()));
    }
}
