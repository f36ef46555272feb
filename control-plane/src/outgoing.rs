//! HTTP to others than providers: the command line to its daemon, the daemon to who knows its people. Blocks.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};

/// Certificates of a file, or those that the system trusts.
fn roots(ca_file: Option<&Path>) -> Result<RootCerts, String> {
    let found: Vec<CertificateDer<'static>> = match ca_file {
        None => rustls_native_certs::load_native_certs().certs,
        Some(path) => CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect)
            .map_err(|e| format!("{} cannot be read: {e}", path.display()))?,
    };
    if let (true, Some(path)) = (found.is_empty(), ca_file) {
        return Err(format!("{} holds no certificate", path.display()));
    }
    Ok(found
        .iter()
        .map(|der| Certificate::from_der(der).to_owned())
        .into())
}

/// A client that follows no redirect, and takes every status for an answer.
///
/// # Errors
/// If the certificates cannot be read.
pub fn agent(ca_file: Option<&Path>, patience: Duration) -> Result<ureq::Agent, String> {
    let tls = TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()))
        .root_certs(roots(ca_file)?)
        .build();
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(patience))
        .http_status_as_error(false)
        .max_redirects(0)
        .tls_config(tls)
        .build();
    Ok(config.into())
}
