//! TLS towards providers, as their documents want it.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme, crypto,
};

/// Whom to trust.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Trust {
    /// Whoever answers.
    Anyone,
    /// Those that the system trusts.
    System,
    /// Those in a file.
    File(String),
}

/// Configurations that were made: reading the system's certificates takes milliseconds. Blocks.
#[derive(Clone, Default)]
pub(super) struct TlsConfigs {
    made: Arc<Mutex<BTreeMap<Trust, Arc<ClientConfig>>>>,
}

impl TlsConfigs {
    /// Reads all files anew when they are next needed.
    pub fn forget(&self) {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The configuration for that trust.
    ///
    /// # Errors
    /// If the certificates cannot be read.
    pub fn get(&self, trust: &Trust) -> Result<Arc<ClientConfig>, String> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = made.get(trust) {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(config(trust)?);
        made.insert(trust.clone(), Arc::clone(&config));
        Ok(config)
    }
}

fn roots(trust: &Trust) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    match trust {
        Trust::Anyone => {}
        Trust::System => {
            let found = rustls_native_certs::load_native_certs();
            store.add_parsable_certificates(found.certs);
            if store.is_empty() {
                return Err("the system trusts no certificate".into());
            }
        }
        Trust::File(path) => {
            let fail = |error: &dyn std::fmt::Display| format!("`{path}` cannot be read: {error}");
            // Through `File`, for the error's own words.
            std::fs::File::open(path).map_err(|e: io::Error| fail(&e))?;
            let found = CertificateDer::pem_file_iter(path).map_err(|e| fail(&e))?;
            for certificate in found {
                store
                    .add(certificate.map_err(|e| fail(&e))?)
                    .map_err(|e| fail(&e))?;
            }
            if store.is_empty() {
                return Err(format!("`{path}` holds no certificate"));
            }
        }
    }
    Ok(store)
}

fn config(trust: &Trust) -> Result<ClientConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?;
    let builder = match trust {
        Trust::Anyone => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Unverified(provider))),
        trust => builder.with_root_certificates(roots(trust)?),
    };
    let mut config = builder.with_no_client_auth();
    // A resumed session would not show the certificate again.
    config.resumption = tokio_rustls::rustls::client::Resumption::disabled();
    Ok(config)
}

/// `"verify": false`: any certificate will do, but its key must be the one that signs.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
