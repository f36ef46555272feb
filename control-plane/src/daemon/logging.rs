//! The daemon's own log: one line an event, to standard error or to a file that can be rotated.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// A log file that is opened anew after it was moved away.
#[derive(Clone)]
pub struct LogFile {
    path: PathBuf,
    file: Arc<Mutex<File>>,
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .open(path)
}

impl LogFile {
    /// Opens the file for appending.
    ///
    /// # Errors
    /// If that is not possible.
    pub fn open(path: &Path) -> io::Result<LogFile> {
        Ok(LogFile {
            path: path.to_owned(),
            file: Arc::new(Mutex::new(open(path)?)),
        })
    }

    /// Goes on in a new file of the same name.
    ///
    /// # Errors
    /// If it cannot be opened; the old one is still written to then.
    pub fn reopen(&self) -> io::Result<()> {
        let file = open(&self.path)?;
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = file;
        Ok(())
    }
}

/// One line on its way to the file.
pub struct LogLine(Arc<Mutex<File>>);

impl Write for LogLine {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(buf)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for LogFile {
    type Writer = LogLine;
    fn make_writer(&self) -> LogLine {
        LogLine(Arc::clone(&self.file))
    }
}

/// Begins to log; `filter` as in `info` or `tollgate=debug`. A second call in one process does nothing.
pub fn init(filter: &str, file: Option<LogFile>) {
    // The Nacos client logs what it is asked and each failure many times over; what matters of it is said by us.
    let quiet = if filter.contains("nacos_sdk") {
        filter.to_owned()
    } else {
        format!("{filter},nacos_sdk=off")
    };
    let filter = EnvFilter::try_new(quiet).unwrap_or_else(|_| EnvFilter::new("info,nacos_sdk=off"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_target(false);
    let _ = match file {
        Some(file) => builder.with_writer(file).try_init(),
        None => builder.with_writer(io::stderr).try_init(),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moved_log_file_is_opened_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.log");
        let log = LogFile::open(&path).unwrap();
        log.make_writer().write_all(b"one\n").unwrap();
        let moved = dir.path().join("t.log.1");
        std::fs::rename(&path, &moved).unwrap();
        log.make_writer().write_all(b"two\n").unwrap();
        log.reopen().unwrap();
        log.make_writer().write_all(b"three\n").unwrap();
        assert_eq!(std::fs::read_to_string(moved).unwrap(), "one\ntwo\n");
        assert_eq!(std::fs::read_to_string(path).unwrap(), "three\n");
    }
}
