//! `tollgate serve`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args as ClapArgs;
use zeroize::Zeroizing;

use super::Failure;
use crate::daemon::{LogFile, ServeOptions, TlsFiles, init_logging, serve};
use crate::secrets::{KeyError, MasterKey};

/// Environment variable with the master key itself. No option, because options are for everybody to see.
const MASTER_KEY: &str = "TOLLGATE_MASTER_KEY";

#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// Folder of documents, `tollgate.KIND.json`
    #[arg(
        long,
        value_name = "DIR",
        env = "TOLLGATE_CONFIG",
        required_unless_present_any = ["sample", "nacos"]
    )]
    config: Option<PathBuf>,
    /// Use the compiled-in sample configuration
    #[arg(long, conflicts_with = "config")]
    sample: bool,
    #[command(flatten)]
    cluster: super::cluster::ClusterArgs,
    /// Folder for the ledger, the last good snapshot and generated keys
    #[arg(
        long,
        value_name = "DIR",
        env = "TOLLGATE_STATE",
        default_value = "/var/lib/tollgate"
    )]
    state: PathBuf,
    /// Folder of the region that is shared with nginx; a tmpfs
    #[arg(
        long,
        value_name = "DIR",
        env = "TOLLGATE_REGION",
        default_value = "/run/tollgate"
    )]
    region: PathBuf,
    /// Address of the admin API; the settings' `api.listen` by default
    #[arg(long, value_name = "ADDR", env = "TOLLGATE_LISTEN")]
    listen: Option<SocketAddr>,
    /// Certificate chain of the API, PEM; with --tls-key
    #[arg(long, value_name = "FILE", env = "TOLLGATE_TLS_CERT", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Key of the API's certificate, PEM
    #[arg(long, value_name = "FILE", env = "TOLLGATE_TLS_KEY", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// File with the API's bearer token; made in the state folder by default
    #[arg(long, value_name = "FILE", env = "TOLLGATE_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// File with the 32-byte master key; made in the state folder by default. TOLLGATE_MASTER_KEY may hold the key itself
    #[arg(long, value_name = "FILE", env = "TOLLGATE_MASTER_KEY_FILE")]
    master_key_file: Option<PathBuf>,
    /// Folder with the credentials that documents name by `key_ref`; the service manager's by default
    #[arg(long, value_name = "DIR", env = "CREDENTIALS_DIRECTORY")]
    credentials: Option<PathBuf>,
    /// Log to a file instead of standard error; opened anew on USR1
    #[arg(long, value_name = "FILE", env = "TOLLGATE_LOG_FILE")]
    log_file: Option<PathBuf>,
    /// What to log: error, warn, info, debug
    #[arg(long, value_name = "LEVEL", env = "TOLLGATE_LOG", default_value = "info")]
    log: String,
}

pub(super) fn master_key() -> Result<Option<MasterKey>, Failure> {
    let Some(text) = std::env::var_os(MASTER_KEY) else {
        return Ok(None);
    };
    let text = Zeroizing::new(text.into_encoded_bytes());
    let key = MasterKey::parse(&text).ok_or_else(|| KeyError::Malformed {
        origin: MASTER_KEY.into(),
    })?;
    Ok(Some(key))
}

pub(super) fn run(args: Args) -> Result<(), Failure> {
    let log = args.log_file.as_deref().map(LogFile::open).transpose()?;
    init_logging(&args.log, log.clone());
    let options = ServeOptions {
        config: args.config,
        nacos: args.cluster.nacos()?,
        instance: args.cluster.instance()?,
        advertise: args.cluster.advertise(),
        balancer: args.cluster.balancer()?,
        state: args.state,
        region: args.region,
        listen: args.listen,
        tls: args
            .tls_cert
            .zip(args.tls_key)
            .map(|(certificate, key)| TlsFiles { certificate, key }),
        token_file: args.token_file,
        master_key_file: args.master_key_file,
        master_key: master_key()?,
        credentials: args.credentials,
    };
    // Publishing a large configuration keeps one of these busy; the API goes on with the others.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(3)
        .enable_all()
        .build()?;
    runtime.block_on(serve(options, log))?;
    Ok(())
}
