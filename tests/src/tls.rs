//! TLS in front of a mock: certificates for names, and what clients asked for and took up.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{HandshakeKind, ProtocolVersion, ServerConfig};

/// Signs certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.pem)
    }
}

impl Authority {
    /// A new one.
    ///
    /// # Panics
    /// If no certificate can be made.
    pub fn new(name: &str) -> Self {
        Self::of(name, CertificateParams::new(Vec::new()).expect("parameters"))
    }

    /// A new one whose own certificate ends after that time.
    ///
    /// # Panics
    /// If no certificate can be made.
    pub fn ending(name: &str, after: std::time::Duration) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.not_after = (std::time::SystemTime::now() + after).into();
        Self::of(name, params)
    }

    fn of(name: &str, mut params: CertificateParams) -> Self {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    /// Its own certificate: what `ca_file` holds.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A server's certificate for a name.
    ///
    /// # Panics
    /// If none can be made.
    pub fn certify(&self, name: &str) -> Certificate {
        let params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        let key = KeyPair::generate().expect("a key");
        let signed = params.signed_by(&key, &self.issuer).expect("a certificate");
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Certificate {
            name: name.to_owned(),
            chain: vec![signed.der().clone()],
            key: Arc::new(key),
        }
    }
}

/// A server's certificate and its key.
#[derive(Clone)]
pub struct Certificate {
    name: String,
    chain: Vec<CertificateDer<'static>>,
    key: Arc<PrivateKeyDer<'static>>,
}

/// A handshake that came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// The name that the client asked for.
    pub name: Option<String>,
    /// Whether it took up a former session.
    pub resumed: bool,
    /// Whether it was TLS 1.3.
    pub is_1_3: bool,
}

/// Which versions a front speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Versions {
    /// TLS 1.2 and 1.3.
    Both,
    /// TLS 1.2 alone.
    Only1_2,
}

#[derive(Debug, Default)]
struct Seen {
    done: Vec<Handshake>,
    connections: usize,
}

/// Takes TLS connections and passes their bytes on to a plain server; ends when dropped.
#[derive(Debug)]
pub struct TlsFront {
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct ByName(Vec<(String, Arc<CertifiedKey>)>);

impl ResolvesServerCert for ByName {
    /// The first one for whoever asks for a name that is not there.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let wanted = hello.server_name();
        let found = self.0.iter().find(|(name, _)| Some(&**name) == wanted);
        found.or(self.0.first()).map(|(_, key)| Arc::clone(key))
    }
}

impl TlsFront {
    /// Starts on a free port of the loopback interface.
    ///
    /// # Panics
    /// If it cannot listen, or a certificate is not usable.
    pub async fn start(target: SocketAddr, certificates: &[Certificate], versions: Versions) -> Self {
        let provider = Arc::new(ring::default_provider());
        let versions: &[_] = match versions {
            Versions::Both => &[&TLS13, &TLS12],
            Versions::Only1_2 => &[&TLS12],
        };
        let keys = certificates.iter().map(|certificate| {
            let key = provider
                .key_provider
                .load_private_key(certificate.key.clone_key())
                .expect("a key");
            let certified = CertifiedKey::new(certificate.chain.clone(), key);
            (certificate.name.clone(), Arc::new(certified))
        });
        let resolver = Arc::new(ByName(keys.collect()));
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .expect("known versions")
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        config.ticketer = ring::Ticketer::new().expect("a ticketer");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let seen = Arc::new(Mutex::new(Seen::default()));
        let noted = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                lock(&noted).connections += 1;
                let (acceptor, noted) = (acceptor.clone(), Arc::clone(&noted));
                // Ends with its connection: whoever fails here is the client's finding.
                tokio::spawn(async move { pass_on(stream, acceptor, target, &noted).await });
            }
        });
        Self { address, seen, task }
    }

    /// `https://address`
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Handshakes so far, in their order.
    pub fn handshakes(&self) -> Vec<Handshake> {
        lock(&self.seen).done.clone()
    }

    /// Connections so far, those without a handshake included.
    pub fn connections(&self) -> usize {
        lock(&self.seen).connections
    }
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(seen: &Mutex<Seen>) -> std::sync::MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn pass_on(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    target: SocketAddr,
    seen: &Mutex<Seen>,
) -> io::Result<()> {
    let mut stream = acceptor.accept(stream).await?;
    let session = stream.get_ref().1;
    let handshake = Handshake {
        name: session.server_name().map(str::to_owned),
        resumed: session.handshake_kind() == Some(HandshakeKind::Resumed),
        is_1_3: session.protocol_version() == Some(ProtocolVersion::TLSv1_3),
    };
    lock(seen).done.push(handshake);
    let mut plain = TcpStream::connect(target).await?;
    tokio::io::copy_bidirectional(&mut stream, &mut plain).await?;
    Ok(())
}
