//! One probe: a connection of its own, to the addresses, with the TLS name, Host and credential that workers use.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tollgate_policy::ProviderView;
use tollgate_policy::documents::{CredentialKind, ProbeKind, Protocol};

use super::completion;
use super::plan::Target;
use super::standing::Outcome;
use super::tls::{TlsConfigs, Trust};
use crate::secrets::MasterKey;

/// As much of an answer as is looked at, bytes.
const MOST_BODY: usize = 64 << 10;
/// The version of Anthropic's API that is asked for.
const ANTHROPIC_VERSION: &str = "2023-06-01";

/// How a provider is reached. Holds a credential: no `Debug`.
pub(super) struct Reach {
    addresses: Vec<SocketAddr>,
    tls: Option<(String, Trust)>,
    host: String,
    prefix: String,
    protocol: Protocol,
    credential: Option<(HeaderName, HeaderValue)>,
}

/// What a probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub outcome: Outcome,
    /// In an operator's words: `status 503`, `connect: connection refused`.
    pub reason: String,
    /// How long it took.
    pub took: Duration,
    /// Tokens of a completion, input and output, as the provider reported them.
    pub tokens: (u64, u64),
}

/// Why a probe did not pass.
enum Trouble {
    /// The provider's fault.
    Failed(String),
    /// Nobody's, or ours.
    Undecided(String),
}

impl Trouble {
    fn failed(what: &str, error: impl std::fmt::Display) -> Trouble {
        Trouble::Failed(format!("{what}: {error}"))
    }
}

impl Reach {
    /// Takes what is needed out of the snapshot in force.
    ///
    /// # Errors
    /// If the credential does not open, in words without it.
    pub fn of(provider: &ProviderView<'_>, key: &MasterKey) -> Result<Reach, String> {
        let trust = match (provider.tls_verify(), provider.ca_file()) {
            (false, _) => Trust::Anyone,
            (true, "") => Trust::System,
            (true, file) => Trust::File(file.to_owned()),
        };
        Ok(Reach {
            addresses: provider.addresses().collect(),
            tls: provider.tls().then(|| (provider.tls_name().to_owned(), trust)),
            host: provider.host().to_owned(),
            prefix: provider.path_prefix().to_owned(),
            protocol: provider.protocol(),
            credential: credential(provider, key)?,
        })
    }
}

fn credential(
    provider: &ProviderView<'_>,
    key: &MasterKey,
) -> Result<Option<(HeaderName, HeaderValue)>, String> {
    let kind = provider.credential_kind();
    if kind == CredentialKind::None {
        return Ok(None);
    }
    let unusable = |_| "the credential cannot be sent".to_owned();
    // Of several the first: a probe asks for the provider, not for its keys.
    let first = provider.credentials().next().ok_or("there is no credential")?;
    let secret = key
        .open(provider.id(), first.sealed)
        .map_err(|e| format!("the credential cannot be opened: {e}"))?;
    let name = HeaderName::from_bytes(provider.credential_header().as_bytes())
        .map_err(|e| format!("the credential's header: {e}"))?;
    let value = match kind {
        CredentialKind::Bearer => {
            let whole = zeroize::Zeroizing::new([b"Bearer ", secret.as_slice()].concat());
            HeaderValue::from_bytes(&whole)
        }
        _ => HeaderValue::from_bytes(&secret),
    };
    let mut value = value.map_err(unusable)?;
    value.set_sensitive(true);
    Ok(Some((name, value)))
}

/// Asks, once. Ends within the check's timeout.
pub(super) async fn probe(target: &Target, reach: Result<Reach, String>, configs: TlsConfigs) -> Finding {
    let limit = Duration::from_millis(target.check.timeout().as_millis());
    let began = Instant::now();
    let attempt = async {
        match reach {
            Ok(reach) => ask(target, &reach, configs, limit).await,
            Err(reason) => Err(Trouble::Undecided(format!("cannot be probed: {reason}"))),
        }
    };
    let result = tokio::time::timeout(limit, attempt).await;
    let took = began.elapsed();
    let (outcome, reason, tokens) = match result {
        Ok(Ok((reason, tokens))) => (Outcome::Passed, reason, tokens),
        Ok(Err(Trouble::Failed(reason))) => (Outcome::Failed, reason, (0, 0)),
        Ok(Err(Trouble::Undecided(reason))) => (Outcome::Undecided, reason, (0, 0)),
        Err(_) => {
            let reason = format!("timeout: not done within {}", target.check.timeout());
            (Outcome::Failed, reason, (0, 0))
        }
    };
    Finding {
        outcome,
        reason,
        took,
        tokens,
    }
}

type Answer = Result<(String, (u64, u64)), Trouble>;

async fn ask(target: &Target, reach: &Reach, configs: TlsConfigs, limit: Duration) -> Answer {
    let stream = connect(&reach.addresses, limit).await?;
    if target.check.kind == ProbeKind::Tcp {
        return Ok(("connected".into(), (0, 0)));
    }
    let request = request(target, reach).map_err(|e| Trouble::Undecided(format!("cannot be probed: {e}")))?;
    let Some((name, trust)) = reach.tls.clone() else {
        return exchange(stream, request, target).await;
    };
    let config = tokio::task::spawn_blocking(move || configs.get(&trust))
        .await
        .map_err(|e| Trouble::Undecided(e.to_string()))?
        .map_err(|e| Trouble::Undecided(format!("cannot be probed: {e}")))?;
    let name = ServerName::try_from(name)
        .map_err(|e| Trouble::Undecided(format!("cannot be probed: the TLS name: {e}")))?;
    let stream = TlsConnector::from(config)
        .connect(name, stream)
        .await
        .map_err(|e| Trouble::failed("tls", e))?;
    exchange(stream, request, target).await
}

/// The first address that takes a connection. Each gets its share of the time.
async fn connect(addresses: &[SocketAddr], limit: Duration) -> Result<TcpStream, Trouble> {
    let share = limit / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
    let mut last = Trouble::Failed("connect: no address is known".into());
    for address in addresses {
        match tokio::time::timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = Trouble::failed("connect", error),
            Err(_) => last = Trouble::failed("timeout", format_args!("no connection to {address}")),
        }
    }
    Err(last)
}

fn request(target: &Target, reach: &Reach) -> Result<Request<Full<Bytes>>, String> {
    let check = &target.check;
    let (method, path, body) = match check.kind {
        ProbeKind::Completion => {
            let (path, body) =
                completion::request(reach.protocol, &target.upstream_model, check.max_tokens())
                    .ok_or("no completion is known for its protocol")?;
            let path = completion::with_prefix(&reach.prefix, &path);
            ("POST", path, Bytes::from(body.to_string()))
        }
        ProbeKind::Http | ProbeKind::Tcp => {
            let model = completion::encoded(&target.upstream_model);
            let path = check.path.as_deref().unwrap_or("/").replace("{model}", &model);
            (check.method.name(), path, Bytes::new())
        }
    };
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, reach.host.as_str())
        .header(header::ACCEPT, "*/*")
        .header(
            header::USER_AGENT,
            concat!("tollgate/", env!("CARGO_PKG_VERSION")),
        )
        .header(header::CONNECTION, "close");
    if reach.protocol == Protocol::Anthropic {
        request = request.header("anthropic-version", ANTHROPIC_VERSION);
    }
    if check.kind == ProbeKind::Completion {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    if let Some((name, value)) = &reach.credential {
        request = request.header(name, value);
    }
    request.body(Full::new(body)).map_err(|e| e.to_string())
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>, target: &Target) -> Answer
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let broken = |e: hyper::Error| Trouble::failed("malformed", e);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    // Ends with this set, whatever happens.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let answer = sender.send_request(request).await.map_err(broken)?;
    judge(answer, target).await
}

async fn judge(answer: Response<hyper::body::Incoming>, target: &Target) -> Answer {
    let check = &target.check;
    let status = answer.status().as_u16();
    let said = format!("status {status}");
    if check.kind == ProbeKind::Completion {
        return match status {
            200..=299 => {
                let body = beginning(answer).await?;
                let answer = serde_json::from_slice(&body)
                    .map_err(|_| Trouble::Failed(format!("malformed: {said}, but the body is not JSON")))?;
                Ok((said, completion::usage(&answer)))
            }
            429 => Err(Trouble::Undecided(format!("{said}: too busy to tell"))),
            _ => Err(Trouble::Failed(said)),
        };
    }
    if !check.expects(status) {
        return Err(match status {
            429 => Trouble::Undecided(format!("{said}: too busy to tell")),
            _ => Trouble::Failed(said),
        });
    }
    if let Some(wanted) = &check.body_contains {
        let body = beginning(answer).await?;
        let found = body
            .windows(wanted.len().max(1))
            .any(|at| at == wanted.as_bytes());
        if !found {
            // Not what stands there instead: it may be anything.
            return Err(Trouble::Failed(format!(
                "body: {said}, but not the expected text"
            )));
        }
    }
    Ok((said, (0, 0)))
}

/// The first [`MOST_BODY`] bytes of a body.
async fn beginning(answer: Response<hyper::body::Incoming>) -> Result<Vec<u8>, Trouble> {
    let mut body = answer.into_body();
    let mut bytes = Vec::new();
    while bytes.len() < MOST_BODY {
        let Some(frame) = body.frame().await else {
            break;
        };
        if let Ok(data) = frame.map_err(|e| Trouble::failed("malformed", e))?.into_data() {
            let room = MOST_BODY - bytes.len();
            bytes.extend_from_slice(data.get(..room).unwrap_or(&data));
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
