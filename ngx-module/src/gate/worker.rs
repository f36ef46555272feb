//! What one worker holds: the region, its slot in it, the current snapshot, scratch space.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use self_cell::self_cell;
use tollgate_meter::request::{FieldPath, RequestFacts};
use tollgate_policy::session::SessionSigner;
use tollgate_policy::{RuleSet, Snapshot};
use tollgate_shm::{MappedFile, Region, Sizes, SnapshotFiles, Worker};

use super::counting::{Counting, Tokenizers};
use super::credentials::MasterKey;
use super::memo::Memo;
use super::pool::Pool;
use super::slices::UnsettledQueue;
use super::terms::KeptTerms;
use super::upstream::{Contexts, Upstream};
use crate::ngx::{log, process};

/// How often, in milliseconds, a missing region or an unreadable snapshot is tried again.
const RETRY_MS: u64 = 1_000;
/// Largest stock of further attempts, in hundredths.
const MOST_RETRIES: u64 = 100_000;

self_cell!(
    struct MappedSnapshot {
        owner: MappedFile,
        #[covariant]
        dependent: Snapshot,
    }
);

/// One configuration, as this worker uses it. Requests that began with it keep it alive.
pub(crate) struct Generation {
    file: MappedSnapshot,
    pub number: u64,
    pub rules: Rc<Rules>,
    countings: Memo<Counting>,
    /// The longest body that any model takes.
    pub largest_body: u64,
    in_maintenance: bool,
    /// Requests that began later are ended by no order in it; Unix milliseconds, as [`Generation::began_by`] takes them.
    pub newest_end_ms: u64,
    /// The wall clock when nginx's clock was 0, as of when the generation was taken up.
    epoch_ms: u64,
    /// What [`Generation::upstream`] has made, by provider index.
    pub(super) upstreams: Memo<Upstream>,
    pub(super) contexts: Rc<Contexts>,
    /// Deployments that cannot be used in this generation, and were said to be so.
    complaints: RefCell<Vec<u32>>,
    /// What [`Generation::pool`] has made, by model index.
    pools: Memo<Pool>,
    /// The same for channels' own routes, by route and model.
    route_pools: RefCell<HashMap<(u32, u32), Rc<Pool>>>,
}

/// Compiled rules; shared by generations whose rules are the same.
pub(crate) struct Rules {
    pub checksum: u64,
    pub set: RuleSet,
    pub paths: Vec<FieldPath>,
}

impl Generation {
    fn load(file: MappedFile, former: Option<&Rc<Generation>>) -> Result<Generation, String> {
        let file = MappedSnapshot::try_new(file, |bytes| Snapshot::open(bytes)).map_err(|e| e.to_string())?;
        let snapshot = *file.borrow_dependent();
        let checksum = snapshot.rules_checksum();
        let rules = match former.filter(|f| f.rules.checksum == checksum) {
            Some(former) => Rc::clone(&former.rules),
            None => {
                let set = RuleSet::decode(snapshot.rules_blob()).map_err(|e| e.to_string())?;
                let paths = set
                    .body_paths()
                    .iter()
                    .map(|p| FieldPath::parse(p).map_err(|e| e.to_string()));
                let paths = paths.collect::<Result<_, _>>()?;
                Rc::new(Rules { checksum, set, paths })
            }
        };
        let number = snapshot.generation();
        let largest_body = snapshot.models().map(|m| m.max_body_bytes()).max().unwrap_or(0);
        let settings = snapshot.settings();
        let (in_maintenance, newest_end_ms) = (settings.maintenance().is_some(), settings.newest_end_ms());
        Ok(Generation {
            number,
            in_maintenance,
            newest_end_ms,
            epoch_ms: wall_ms().saturating_sub(process::fresh_now_ms()),
            rules,
            countings: Memo::default(),
            largest_body,
            upstreams: Memo::default(),
            contexts: former.map(|f| Rc::clone(&f.contexts)).unwrap_or_default(),
            complaints: RefCell::default(),
            pools: Memo::default(),
            route_pools: RefCell::default(),
            file,
        })
    }

    pub fn snapshot(&self) -> Snapshot<'_> {
        *self.file.borrow_dependent()
    }

    /// Whether a reading of nginx's clock, in milliseconds, was taken before an instant of the wall clock, in Unix
    /// milliseconds. Three readings are cut to whole milliseconds on the way: within that grain the answer is yes, for an
    /// order that misses a stream is not given again.
    pub fn began_by(&self, clock_ms: u64, wall_ms: u64) -> bool {
        const GRAIN_MS: u64 = 2;
        wall_ms != 0 && self.epoch_ms + clock_ms <= wall_ms + GRAIN_MS
    }

    /// Whether all requests are refused: what clients are told, and when they should come again.
    pub fn maintenance(&self) -> Option<(&str, u32)> {
        if self.in_maintenance {
            self.snapshot().settings().maintenance()
        } else {
            None
        }
    }

    /// A model's deployments, looked up once per generation and worker.
    pub fn pool(&self, model: u32, region: &Region) -> Option<Rc<Pool>> {
        let make = || {
            let snapshot = self.snapshot();
            Some(Pool::new(&snapshot.model_at(model)?, None, snapshot, region))
        };
        self.pools.get(model, || make().ok_or(())).ok()
    }

    /// A model's deployments as a channel's own route sees them, likewise.
    pub fn route_pool(&self, route: u32, model: u32, region: &Region) -> Option<Rc<Pool>> {
        if let Some(known) = self.route_pools.borrow().get(&(route, model)) {
            return Some(Rc::clone(known));
        }
        let snapshot = self.snapshot();
        let made = Pool::new(
            &snapshot.model_at(model)?,
            snapshot.route(route).as_ref(),
            snapshot,
            region,
        );
        self.route_pools
            .borrow_mut()
            .insert((route, model), Rc::clone(&made));
        Some(made)
    }

    /// Says why a deployment cannot be used: once, not for each request.
    pub fn complain(&self, deployment: u32, reason: &str) {
        let mut said = self.complaints.borrow_mut();
        if !said.contains(&deployment) {
            said.push(deployment);
            let deployment = self.snapshot().deployment(deployment);
            let id = deployment.map_or("", |d| d.id());
            log::error(format_args!(
                "tollgate: the deployment {id:?} cannot be used: {reason}"
            ));
        }
    }

    /// How the model of that number is counted.
    pub fn counting(&self, model: u32) -> Option<Rc<Counting>> {
        let make = || {
            Some(Rc::new(Counting::new(
                &self.snapshot().model_at(model)?.counting()?,
            )))
        };
        self.countings.get(model, || make().ok_or(())).ok()
    }
}

fn wall_ms() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

/// A worker that is attached to a region.
pub(crate) struct Attached {
    pub region: Arc<Region>,
    pub worker: Worker,
}

/// Everything that one worker process holds.
pub(crate) struct WorkerState {
    region_dir: PathBuf,
    state_dir: PathBuf,
    pub master_key: Option<MasterKey>,
    /// Signs the cookies of sessions; as the master key is there or not.
    pub signer: Option<SessionSigner>,
    /// Whether it has been said that there is none.
    pub unsigned: bool,
    pub attached: Option<Attached>,
    generation: Option<Rc<Generation>>,
    /// The generation that could not be used, and when to try it again.
    failed: Option<(u64, u64)>,
    reported: Option<String>,
    /// The generation of the last tick.
    ticked: u64,
    /// The newest order to end streams that has been carried out.
    ended_ms: u64,
    pub facts: RequestFacts,
    pub scratch: Vec<u8>,
    pub tokenizers: Tokenizers,
    pub unsettled: UnsettledQueue,
    pub terms: KeptTerms,
    /// Hundredths of further attempts that this worker may make: see [`WorkerState::take_retry`].
    retries: u64,
    retries_ms: u64,
    random: u64,
}

impl WorkerState {
    /// A worker without a region: every request is answered with 503.
    pub fn detached() -> WorkerState {
        WorkerState::new(PathBuf::new(), PathBuf::new(), None)
    }

    pub fn new(region_dir: PathBuf, state_dir: PathBuf, master_key: Option<MasterKey>) -> WorkerState {
        // Seeds differ per process: std's hasher keys come from the system's random source.
        let seed = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), std::process::id());
        WorkerState {
            region_dir,
            state_dir,
            signer: master_key.as_ref().and_then(MasterKey::signer),
            unsigned: false,
            master_key,
            attached: None,
            generation: None,
            failed: None,
            reported: None,
            ticked: 0,
            ended_ms: 0,
            facts: RequestFacts::new(),
            scratch: Vec::new(),
            tokenizers: Tokenizers::default(),
            unsettled: UnsettledQueue::default(),
            terms: KeptTerms::default(),
            retries: MOST_RETRIES,
            retries_ms: 0,
            random: seed | 1,
        }
    }

    /// A request of a model that allows `percent` further attempts per 100 requests.
    pub fn allow_retries(&mut self, percent: u32) {
        self.retries = (self.retries + u64::from(percent)).min(MOST_RETRIES);
    }

    /// Takes one further attempt from the worker's budget: a share of its requests, beside ten a second, so that trouble
    /// upstream does not multiply the load there. Bursts of a thousand pass, since a deployment's end meets all of its
    /// requests at once.
    pub fn take_retry(&mut self) -> bool {
        const PER_MS: u64 = 1;
        let now_ms = process::now_ms();
        let passed = now_ms.saturating_sub(self.retries_ms);
        self.retries_ms = now_ms;
        self.retries = (self.retries + passed * PER_MS).min(MOST_RETRIES);
        let enough = self.retries >= 100;
        if enough {
            self.retries -= 100;
        }
        enough
    }

    /// 64 random bits (splitmix64): request ids and weighted choices, nothing secret.
    pub fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The configuration that a new request begins with; follows the region's generation.
    pub fn current(&mut self, monotonic_ms: u64) -> Option<Rc<Generation>> {
        let published = self.attached.as_ref().map(|a| a.region.generation());
        let have = self.generation.as_ref().map(|g| g.number);
        if published.is_none() || (published != have && (published != Some(0) || have.is_none())) {
            self.refresh(monotonic_ms);
        }
        self.generation.clone()
    }

    /// The configuration that is in use; requests in flight may have a former one.
    pub fn generation(&self) -> Option<&Rc<Generation>> {
        self.generation.as_ref()
    }

    fn refresh(&mut self, monotonic_ms: u64) {
        let published = self.attached.as_ref().map_or(0, |a| a.region.generation());
        let too_early = self
            .failed
            .is_some_and(|(failed, retry_at)| failed == published && monotonic_ms < retry_at);
        if too_early || self.region_dir.as_os_str().is_empty() {
            return;
        }
        match self.try_refresh(monotonic_ms) {
            Ok(()) => {
                self.reported = None;
                self.failed = None;
            }
            Err(reason) => {
                self.failed = Some((published, monotonic_ms + RETRY_MS));
                // Once per state, not per request.
                if self.reported.as_ref() != Some(&reason) {
                    log::error(format_args!("tollgate: {reason}"));
                    self.reported = Some(reason);
                }
            }
        }
    }

    fn try_refresh(&mut self, monotonic_ms: u64) -> Result<(), String> {
        if self.attached.is_none() {
            let region =
                Region::open_or_create(&self.region_dir, Sizes::default()).map_err(|e| e.to_string())?;
            let worker = region
                .attach_worker()
                .ok_or("every worker slot of the region is taken by a live process")?;
            self.attached = Some(Attached {
                region: Arc::new(region),
                worker,
            });
        }
        let Some(attached) = &self.attached else {
            return Ok(());
        };
        let published = attached.region.generation();
        if published != 0 && self.generation.as_ref().is_some_and(|g| g.number == published) {
            return Ok(());
        }
        let (file, whence) = if published == 0 {
            let path = self.state_dir.join("snapshot.last");
            (MappedFile::open(&path), path)
        } else {
            let files = SnapshotFiles::new(attached.region.dir());
            (files.open(published), files.path(published))
        };
        let file = file.map_err(|e| match published {
            0 => format!(
                "no configuration yet: the daemon has published none and {} is not there: {e}",
                whence.display()
            ),
            _ => format!("cannot map {}: {e}", whence.display()),
        })?;
        let loaded = Generation::load(file, self.generation.as_ref()).map_err(|e| {
            format!(
                "cannot use {}: {e}; going on with the former one",
                whence.display()
            )
        })?;
        attached.worker.beat(
            &attached.region,
            loaded.number,
            attached.region.time_at(monotonic_ms),
        );
        self.tokenizers
            .follow(loaded.snapshot(), [&self.region_dir, &self.state_dir]);
        self.generation = Some(Rc::new(loaded));
        Ok(())
    }

    /// Several times a second: follows the configuration even without traffic, shows that the worker lives, and sweeps
    /// for the dead when no daemon does. Returns whether the configuration is another than at the last tick.
    pub fn tick(&mut self, monotonic_ms: u64) -> bool {
        let generation = self.current(monotonic_ms).map_or(0, |g| g.number);
        let changed = std::mem::replace(&mut self.ticked, generation) != generation;
        let Some(attached) = &self.attached else {
            return changed;
        };
        let now = attached.region.time_at(monotonic_ms);
        attached.worker.beat(&attached.region, generation, now);
        if now.saturating_sub(attached.region.daemon_heartbeat_ms()) > 5_000 {
            attached.region.sweep_dead_workers();
        }
        changed
    }

    /// Whether the configuration has an order to end streams that has not been carried out here.
    pub fn has_order_to_end(&mut self) -> bool {
        let newest = self.generation.as_ref().map_or(0, |g| g.newest_end_ms);
        std::mem::replace(&mut self.ended_ms, newest) < newest
    }

    pub fn count_panic(&self) {
        if let Some(attached) = &self.attached {
            attached.worker.count_panic(&attached.region);
        }
    }

    /// The process ends: whatever is still in flight is settled by what was noted of it.
    pub fn leave(mut self) {
        super::settle::give_up_counting(&mut self);
        if let Some(Attached { region, worker }) = self.attached.take() {
            worker.detach(&region);
        }
    }
}
