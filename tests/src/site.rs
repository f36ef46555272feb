//! The folders of one instance: configuration, durable state, shared region.

use serde_json::Value;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Temporary folders of one instance; removed when dropped.
#[derive(Debug)]
pub struct Site {
    root: TempDir,
    region: TempDir,
}

impl Site {
    /// Makes empty folders. The region's stands in memory (`/dev/shm`) where there is one, as it does in operation.
    ///
    /// # Panics
    /// If a folder cannot be made.
    pub fn new() -> Self {
        let root = temporary(&std::env::temp_dir());
        let memory = Path::new("/dev/shm");
        let region = temporary(if memory.is_dir() { memory } else { root.path() });
        for folder in ["config", "state"] {
            std::fs::create_dir(root.path().join(folder)).expect("a folder");
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
