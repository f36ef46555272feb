//! Puts the daemon together, in the order in which things depend on each other, and takes it apart again.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tollgate_shm::Region;

use super::tls::{TlsFiles, TlsListener};
use super::{Checkpoint, LogFile, Stop, care, instance_name};
use crate::accounts::{Accounts, AccountsError, SharedRecords, SqliteRecords};
use crate::alerts::{AlertDesk, Places, Sight, Watch};
use crate::api::{AppState, Indexes, Peer, app};
use crate::audit::Audit;
use crate::backup::{BackupFolder, Keeper};
use crate::balancer::{BalancerOptions, Balancers};
use crate::cluster::{Cluster, Figures};
use crate::config::{
    ConfigSource, Directory, Document, Fixed, Nacos, NacosOptions, Publisher, StateFolder, VersionFolder,
    parse_set, region_sizes,
};
use crate::counting::Counting;
use crate::health::{Board, Others, Prober};
use crate::ledger::{Drain, SqliteReader, SqliteStore};
use crate::naming::{Around, Naming, Registry};
use crate::oidc::SignIns;
use crate::pulse::Pulses;
use crate::schedule::{Runner, Schedules};
use crate::secrets::{ApiToken, CredentialFolder, MasterKey, Sealer};
use crate::shared::{Elector, RecentReader, RecentWriter, Rumours, Shared, SharedLock, Shipper, UsageReader};

/// How long the end waits for the cluster's usage to be written.
const LAST_SHIPPING: Duration = Duration::from_secs(2);

/// What `tollgate serve` is told.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// Folder of documents; `None` for Nacos or the sample.
    pub config: Option<PathBuf>,
    /// Nacos with the documents.
    pub nacos: Option<NacosOptions>,
    /// Name of this instance, whose own document overrides what all share.
    pub instance: Option<String>,
    /// Where clients reach this instance's nginx, for the others and the front balancer.
    pub advertise: Option<SocketAddr>,
    /// Front balancers that follow the instances.
    pub balancer: Option<BalancerOptions>,
    /// State folder.
    pub state: PathBuf,
    /// Folder of the region.
    pub region: PathBuf,
    /// Address of the API; the settings' one if not given.
    pub listen: Option<SocketAddr>,
    /// TLS for the API; in the clear without it.
    pub tls: Option<TlsFiles>,
    /// File with the API's token; `api.token` in the state folder by default.
    pub token_file: Option<PathBuf>,
    /// File with the master key; `master.key` in the state folder by default.
    pub master_key_file: Option<PathBuf>,
    /// The master key itself, from the environment.
    pub master_key: Option<MasterKey>,
    /// Folder of credentials that documents name by `key_ref`; `credentials` in the state folder by default.
    pub credentials: Option<PathBuf>,
}

/// Why the daemon cannot run. The text says what an operator can do.
#[derive(Debug)]
pub struct DaemonError(String);

impl std::fmt::Display for DaemonError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
impl std::error::Error for DaemonError {}

impl DaemonError {
    fn from(error: impl std::fmt::Display) -> DaemonError {
        DaemonError(error.to_string())
    }

    fn at(what: &str, path: &std::path::Path) -> impl Fn(io::Error) -> DaemonError {
        move |e| DaemonError(format!("cannot {what} {}: {e}", path.display()))
    }
}

/// The configuration that is compiled in.
fn sample() -> Fixed {
    let document = |name: &str, text: &'static str| Document::new(name, text.as_bytes());
    Fixed::new(vec![
        document(
            "tollgate.channels.json",
            include_str!("../../sample/tollgate.channels.json"),
        ),
        document(
            "tollgate.models.json",
            include_str!("../../sample/tollgate.models.json"),
        ),
        document(
            "tollgate.providers.json",
            include_str!("../../sample/tollgate.providers.json"),
        ),
    ])
}

/// The documents, and where the other instances are to be found.
type Source = (Arc<dyn ConfigSource>, Option<Registry>);

fn open_source(options: &ServeOptions, lock: &SharedLock) -> Result<Source, DaemonError> {
    match (&options.nacos, &options.config) {
        (Some(nacos), _) => {
            let source = Nacos::open(nacos.clone(), &options.state)
                .map_err(DaemonError::from)?
                .locked_by(Arc::new(lock.clone()));
            let registry = Registry::new(nacos.clone(), source.login());
            Ok((Arc::new(source), Some(registry)))
        }
        (None, None) => Ok((Arc::new(sample()), None)),
        (None, Some(dir)) => {
            let folder = options.state.join("versions");
            let versions =
                VersionFolder::open(&folder).map_err(DaemonError::at("keep versions in", &folder))?;
            let directory = Directory::open(dir, Some(versions), options.instance.clone())
                .map_err(DaemonError::at("read the configuration in", dir))?;
            Ok((Arc::new(directory), None))
        }
    }
}

/// Opens or creates the region and registers as its daemon.
fn open_region(options: &ServeOptions, source: &dyn ConfigSource) -> Result<Arc<Region>, DaemonError> {
    let (documents, _) = parse_set(&source.documents().borrow());
    let sizes = region_sizes(&documents.settings());
    let region = Region::open_or_create(&options.region, sizes).map_err(DaemonError::from)?;
    region.attach_daemon().map_err(|other| {
        let dir = region.dir().display();
        DaemonError(format!(
            "another daemon, process {}, serves the region {dir}",
            other.pid()
        ))
    })?;
    region.daemon_beat();
    for path in Region::of_other_layouts(&options.region) {
        tracing::warn!(
            path = %path.display(),
            "a region of another layout stands beside this one: what nginx still counts there is booked by that version's daemon alone \
             (docs/cluster.md, Upgrades); remove it when that nginx has ended and that daemon has"
        );
    }
    Ok(Arc::new(region))
}

fn sealer(options: &ServeOptions, state: &StateFolder) -> Result<Sealer, DaemonError> {
    let key = match (&options.master_key, &options.master_key_file) {
        (Some(key), _) => key.clone(),
        (None, Some(path)) => MasterKey::read(path)
            .map_err(DaemonError::from)?
            .with_beside(path),
        (None, None) => {
            let path = state.file("master.key");
            let key = MasterKey::read_or_create(&path).map_err(DaemonError::from)?;
            key.with_beside(&path)
        }
    };
    let folder = options
        .credentials
        .clone()
        .unwrap_or_else(|| state.file("credentials"));
    Ok(Sealer {
        key,
        folder: CredentialFolder(folder),
    })
}

fn token(options: &ServeOptions, state: &StateFolder) -> Result<ApiToken, DaemonError> {
    match &options.token_file {
        Some(path) => ApiToken::read(path),
        None => ApiToken::read_or_create(&state.file("api.token")),
    }
    .map_err(DaemonError::from)
}

fn accounts(state: &StateFolder, shared: &Shared) -> Result<(Accounts, SharedRecords), DaemonError> {
    let local = SqliteRecords::open(&state.file("accounts.db")).map_err(DaemonError::from)?;
    let records = SharedRecords::new(local, shared.clone(), tokio::runtime::Handle::current());
    let accounts = Accounts::new(Arc::new(records.clone())).map_err(DaemonError::from)?;
    Ok((accounts, records))
}

/// Makes the first account, and tells its password to whoever started the daemon: past the log's filters and files,
/// since nobody will be told again.
fn first_run(accounts: &Accounts, scheme: &str, address: SocketAddr) -> Result<(), DaemonError> {
    let password = accounts.first_run().map_err(|error| match error {
        AccountsError::Store(error) => DaemonError::from(error),
        other => DaemonError(format!("the first account cannot be made: {other:?}")),
    })?;
    if let Some(password) = password {
        let text = format!(
            "tollgate: first start. Sign in at {scheme}://{address}/ as admin with the password {password}\n\
             tollgate: it is not shown again; `tollgate account password admin` sets another one\n"
        );
        io::Write::write_all(&mut io::stderr(), text.as_bytes()).map_err(DaemonError::from)?;
    }
    Ok(())
}

/// The first account, if there is none. Where accounts are shared, Redis says so; as long as it does not answer, a start does not
/// wait for it.
async fn begin_accounts(
    accounts: Accounts,
    records: SharedRecords,
    scheme: &'static str,
    address: SocketAddr,
) -> Result<(), DaemonError> {
    let shared = records.is_shared();
    let begin = move || {
        if shared {
            records.sync().map_err(DaemonError::from)?;
        }
        first_run(&accounts, scheme, address)
    };
    let attempt = {
        let begin = begin.clone();
        move || tokio::task::spawn_blocking(begin.clone())
    };
    match attempt().await.map_err(DaemonError::from)? {
        Ok(()) => Ok(()),
        Err(error) if !shared => Err(error),
        Err(error) => {
            tracing::warn!(%error, "the instances' accounts are not known yet");
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    if matches!(attempt().await, Ok(Ok(()))) {
                        return;
                    }
                }
            });
            Ok(())
        }
    }
}

/// A bound socket that does not listen yet: a busy address is found before anything is touched, and nobody connects
/// before there is something to answer.
fn bind(address: SocketAddr) -> Result<tokio::net::TcpSocket, DaemonError> {
    let open = || {
        let socket = match address {
            SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4()?,
            SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6()?,
        };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        Ok(socket)
    };
    open().map_err(|e: io::Error| DaemonError(format!("cannot listen on {address}: {e}")))
}

fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, DaemonError> {
    std::thread::Builder::new()
        .name(name.into())
        .spawn(work)
        .map_err(DaemonError::from)
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// If it cannot start.
pub async fn serve(options: ServeOptions, log: Option<LogFile>) -> Result<(), DaemonError> {
    let mut signals = Signals::new().map_err(DaemonError::from)?;
    let state = StateFolder::open(&options.state).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => DaemonError(format!(
            "another daemon uses the state folder {}",
            options.state.display()
        )),
        _ => DaemonError::at("use the state folder", &options.state)(error),
    })?;
    let lock = SharedLock::new(tokio::runtime::Handle::current());
    let (source, registry) = open_source(&options, &lock)?;
    let listen = match options.listen {
        Some(address) => address,
        None => {
            let text = parse_set(&source.documents().borrow()).0.settings().api.listen;
            text.parse()
                .map_err(|_| DaemonError(format!("`{text}` is no address to listen on")))?
        }
    };
    let socket = bind(listen)?;
    let token = token(&options, &state)?;
    let sealer = sealer(&options, &state)?;
    let region = open_region(&options, &*source)?;

    let mut checkpoint = Checkpoint::new(state.file("counters.ckpt"));
    match checkpoint.restore(&region) {
        Ok(0) => {}
        Ok(counters) => tracing::info!(counters, "restored usage from before the region was made"),
        Err(error) => tracing::error!(%error, "windows begin empty"),
    }
    let ledger = state.file("tollgate.db");
    let store = SqliteStore::open(&ledger).map_err(DaemonError::from)?;
    let reader = SqliteReader::open(&ledger).map_err(DaemonError::from)?;
    let marking = store.marking();
    let counting = Counting::new(options.config.as_deref(), &options.state);
    let mut drain = Drain::new(Arc::clone(&region), store)
        .map_err(DaemonError::from)?
        .teaching(Arc::clone(&counting.learner));

    let mut publisher = Publisher::new(
        Arc::clone(&source),
        Arc::clone(&region),
        state.clone(),
        sealer.clone(),
        counting.clone(),
    );
    publisher.take_present().await;
    let config = publisher.status();
    let probes = Board::default();
    let shared = Shared::new(config.clone(), sealer.folder.clone());
    lock.over(shared.clone());
    let made_up = instance_name::unique(reader.origin().map_err(DaemonError::from)?);
    let name = options.instance.as_deref().unwrap_or(&made_up);
    let elector = Elector::new(shared.clone(), name, region.now_ms());
    let (told, telling) = mpsc::unbounded_channel();
    let (hearing, heard) = mpsc::unbounded_channel();
    let prober = Prober::new(
        Arc::clone(&region),
        config.clone(),
        sealer.key.clone(),
        probes.clone(),
        Others {
            role: elector.role(),
            tell: told,
            hear: heard,
        },
    );
    let rumours = Rumours::new(
        shared.clone(),
        Arc::clone(&region),
        config.clone(),
        &format!("{name} {:08x}", region.id() >> 32),
        elector.role(),
        (telling, hearing),
    );
    // Before the ledger is written to: what changes without a mark is found only by reading everything.
    let shipper = Shipper::new(
        shared.clone(),
        SqliteReader::open(&ledger).map_err(DaemonError::from)?,
        marking,
        Arc::clone(&region),
        config.clone(),
    )
    .map_err(DaemonError::from)?;

    let recent = RecentWriter::new(
        shared.clone(),
        SqliteReader::open(&ledger).map_err(DaemonError::from)?,
        config.clone(),
        name.to_owned(),
    )
    .map_err(DaemonError::from)?;

    let figures = Arc::<Figures>::default();
    let naming = Naming::alone(name);
    let around = Around {
        region: Arc::clone(&region),
        config: config.clone(),
        api: listen,
        advertise: options.advertise,
        figures: Arc::clone(&figures),
        keys: sealer.key.names().1,
    };
    let meeting = naming.clone().run(registry, around);
    let balancers = Balancers::default();
    let balancing = options
        .balancer
        .clone()
        .map(|balancer| tokio::spawn(balancers.clone().run(balancer, naming.clone())));

    let (accounts, records) = accounts(&state, &shared)?;
    let schedules = Schedules::new(accounts.records());
    let audit = Audit::open(&options.state, &sealer.key).map_err(DaemonError::from)?;
    let publishing_later = Runner {
        schedules: schedules.clone(),
        source: Arc::clone(&source),
        accounts: accounts.clone(),
        audit: audit.clone(),
        instance: name.to_owned(),
    };
    let backups = BackupFolder::new(&state.file("backups"));
    let backing_up = Keeper {
        config: config.clone(),
        accounts: accounts.clone(),
        key: sealer.key.clone(),
        folder: backups.clone(),
        audit: audit.clone(),
    };
    let sign_ins = SignIns::new(accounts.clone(), sealer.folder.clone());
    let alerts = AlertDesk::new(name, accounts.records(), sealer.clone());
    let sight = Sight::new(
        Places {
            region: Arc::clone(&region),
            config: config.clone(),
            probes: probes.clone(),
            source: Arc::clone(&source),
            figures: Arc::clone(&figures),
            drain: drain.status(),
            naming: naming.clone(),
            state: options.state.clone(),
            certificate: options.tls.as_ref().map(|tls| tls.certificate.clone()),
        },
        name,
    );
    let watching = Watch::new(
        alerts.clone(),
        config.clone(),
        (elector.role(), shared.clone()),
        sight,
    );
    let app_state = AppState {
        sign_ins,
        backups,
        accounts: accounts.clone(),
        accounts_copy: records.figures(),
        audit: audit.clone(),
        schedules,
        indexes: Indexes::default(),
        alerts,
        pulses: Pulses::new(Arc::clone(&region)),
        secure_cookies: options.tls.is_some() || !listen.ip().is_loopback(),
        region: Arc::clone(&region),
        config: config.clone(),
        source,
        ledger: Arc::new(reader),
        drain: drain.status(),
        token,
        sealer,
        probes,
        naming,
        counting: counting.clone(),
        balancers,
        nacos: options.nacos.clone().map(Arc::new),
        cluster: Arc::clone(&figures),
        usage: UsageReader::new(shared.clone()),
        shipping: shipper.figures(),
        recent: (RecentReader::new(shared.clone()), recent.figures()),
        instance: name.to_owned(),
        named: options.instance.is_some(),
        rumours: rumours.figures(),
        role: elector.role(),
        shared,
        open_metrics: listen.ip().is_loopback(),
        started: Instant::now(),
    };
    let cluster = Cluster::new(
        Arc::clone(&region),
        config.clone(),
        app_state.sealer.folder.clone(),
        figures,
    );
    let stop = Stop::default();
    let auditing = tokio::spawn(care::settle_audit(audit, stop.watch()));
    let threads = [
        thread("region", {
            let (region, stop) = (Arc::clone(&region), stop.clone());
            move || care::watch_over(&region, &stop)
        })?,
        thread("ledger", {
            let (region, stop) = (Arc::clone(&region), stop.clone());
            move || care::keep_ledger(&region, &mut drain, &config, &stop)
        })?,
        thread("checkpoint", {
            let (region, stop) = (Arc::clone(&region), stop.clone());
            move || care::keep_checkpoint(&region, &mut checkpoint, &stop)
        })?,
    ];
    let publishing = tokio::spawn(publisher.run(stop.watch()));
    let probing = tokio::spawn(prober.run(stop.watch()));
    let mut leaving = stop.watch();
    let meeting = tokio::spawn(async move {
        tokio::select! {
            () = meeting => {}
            _ = leaving.wait_for(|s| *s) => {}
        }
    });
    let leasing = tokio::spawn(cluster.run(stop.watch()));
    let publishing_later = tokio::spawn(publishing_later.run(stop.watch()));
    let backing_up = tokio::spawn(backing_up.run(stop.watch()));
    let shipping = tokio::spawn(shipper.run(stop.watch()));
    let showing = tokio::spawn(recent.run(stop.watch()));
    let electing = tokio::spawn(elector.run(stop.watch()));
    let talking = tokio::spawn(rumours.run(stop.watch()));
    let watching = tokio::spawn(watching.run(stop.watch()));

    let listener = socket.listen(1_024).map_err(DaemonError::from)?;
    let scheme = if options.tls.is_some() { "https" } else { "http" };
    begin_accounts(accounts, records.clone(), scheme, listen).await?;
    let keeping = tokio::spawn(records.keep(stop.watch()));
    tracing::info!(address = %listen, region = %options.region.display(), version = env!("CARGO_PKG_VERSION"), "ready");
    let mut ending = stop.watch();
    let service = app(app_state).into_make_service_with_connect_info::<Peer>();
    let ended = async move {
        let _ = ending.wait_for(|s| *s).await;
    };
    let mut server = match &options.tls {
        None => tokio::spawn(
            axum::serve(listener, service)
                .with_graceful_shutdown(ended)
                .into_future(),
        ),
        Some(files) => {
            let listener = TlsListener::new(listener, files)
                .map_err(|e| DaemonError(format!("TLS cannot be used for the API: {e}")))?;
            tokio::spawn(
                axum::serve(listener, service)
                    .with_graceful_shutdown(ended)
                    .into_future(),
            )
        }
    };

    let outcome = tokio::select! {
        () = signals.until_end(log.as_ref()) => Ok(()),
        ended = &mut server => Err(DaemonError(format!("the API ended: {ended:?}"))),
    };
    tracing::info!("stopping");
    stop.raise();
    if let Some(balancing) = balancing {
        balancing.abort();
    }
    let _ = publishing.await;
    let _ = publishing_later.await;
    let _ = backing_up.await;
    let _ = probing.await;
    let _ = meeting.await;
    let _ = leasing.await;
    let _ = showing.await;
    let _ = electing.await;
    let _ = talking.await;
    let _ = watching.await;
    let _ = keeping.await;
    let _ = auditing.await;
    let joined = tokio::task::spawn_blocking(move || threads.into_iter().all(|t| t.join().is_ok()));
    counting.learner.save();
    let joined = joined.await;
    if let Ok(mut shipper) = shipping.await {
        // What the ledger has come to at the end; what does not get there in time goes at the next start.
        let _ = tokio::time::timeout(LAST_SHIPPING, shipper.finish()).await;
    }
    if !joined.unwrap_or(false) {
        return Err(DaemonError("a thread ended with a panic".into()));
    }
    // Connections that are idle or slow do not keep a stopped daemon alive.
    let _ = tokio::time::timeout(Duration::from_secs(2), server).await;
    tracing::info!("stopped");
    outcome
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    reopen: Signal,
}

impl Signals {
    fn new() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            reopen: signal(SignalKind::user_defined1())?,
        })
    }

    /// Returns when it is time to end; opens the log anew on USR1.
    async fn until_end(&mut self, log: Option<&LogFile>) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.reopen.recv() => {
                    if let Some(log) = log && let Err(error) = log.reopen() {
                        tracing::error!(%error, "the log file cannot be opened anew");
                    }
                }
            }
        }
    }
}
