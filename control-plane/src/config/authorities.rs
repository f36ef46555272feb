//! Certificates that providers' documents say to trust. Workers read no files: what they trust stands in the snapshot.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;

use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use xxhash_rust::xxh3::Xxh3;

/// Longest file, bytes: six times what a system trusts.
const MOST: u64 = 1 << 20;

/// The files of one set of documents, as they are now.
pub(super) struct Authorities {
    files: BTreeMap<String, Result<Vec<u8>, String>>,
}

impl Authorities {
    /// Reads files, each once.
    pub fn read<'p>(paths: impl Iterator<Item = &'p str>) -> Authorities {
        let mut files = BTreeMap::new();
        for path in paths {
            if !files.contains_key(path) {
                files.insert(path.to_owned(), read(path));
            }
        }
        Authorities { files }
    }

    /// What stands in a file.
    ///
    /// # Errors
    /// If it cannot be read, or has no certificate that anything can be checked against.
    pub fn of(&self, path: &str) -> Result<Vec<u8>, String> {
        let unread = || Err(format!("`{path}` has not been read"));
        self.files.get(path).cloned().unwrap_or_else(unread)
    }

    /// Differs when a file's content does.
    pub fn fingerprint(&self) -> u128 {
        let mut hash = Xxh3::new();
        for (path, content) in &self.files {
            let content = match content {
                Ok(bytes) => bytes,
                Err(reason) => reason.as_bytes(),
            };
            for part in [path.as_bytes(), content] {
                hash.update(&part.len().to_le_bytes());
                hash.update(part);
            }
        }
        hash.digest128()
    }
}

fn read(path: &str) -> Result<Vec<u8>, String> {
    let fail = |error: &dyn std::fmt::Display| format!("`{path}` cannot be read: {error}");
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|e| fail(&e))?;
    file.take(MOST + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| fail(&e))?;
    if bytes.len() as u64 > MOST {
        return Err(format!("`{path}` is longer than {MOST} bytes"));
    }
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&bytes) {
        let certificate = certificate.map_err(|e| fail(&e))?;
        store.add(certificate).map_err(|e| fail(&e))?;
    }
    if store.is_empty() {
        return Err(format!("`{path}` holds no certificate"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_taken_if_it_holds_certificates_and_seen_when_it_changes() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let certified = || rcgen::generate_simple_self_signed(["ca.test".to_owned()]).unwrap();
        let (good, bad, gone) = (path("good.pem"), path("bad.pem"), path("gone.pem"));
        std::fs::write(&good, certified().cert.pem()).unwrap();
        std::fs::write(&bad, "nothing").unwrap();
        let read = || Authorities::read([&*good, &*bad, &*gone, &*good].into_iter());
        let first = read();
        assert!(first.of(&good).unwrap().starts_with(b"-----BEGIN CERTIFICATE"));
        assert!(first.of(&bad).unwrap_err().contains("no certificate"));
        assert!(first.of(&gone).unwrap_err().contains("cannot be read"));
        assert!(first.of("/other").is_err());
        assert_eq!(first.fingerprint(), read().fingerprint());
        std::fs::write(&good, certified().cert.pem()).unwrap();
        assert_ne!(first.fingerprint(), read().fingerprint());
        std::fs::write(&good, vec![b'x'; MOST as usize + 1]).unwrap();
        assert!(read().of(&good).unwrap_err().contains("longer"));
    }
}
