//! Backups: all documents and who may do what, in one archive, and back; on demand, and by themselves.

mod archive;
mod folder;
mod keeper;

pub use archive::{Archive, ArchiveError, FORMAT, Restored, Wish};
pub use folder::{BackupFile, BackupFolder};
pub use keeper::Keeper;
