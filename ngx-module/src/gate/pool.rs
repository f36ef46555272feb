//! A model's deployments as a worker picks from them: what the snapshot says of them, and where their shared state is.

use std::cell::{OnceCell, RefCell};
use std::rc::Rc;

use tollgate_meter::Api;
use tollgate_policy::balance::{self, Candidate, Line, RoundRobin};
use tollgate_policy::documents::{Balance, Protocol};
use tollgate_policy::session::SessionSigner;
use tollgate_policy::{DeploymentView, ModelView, RouteView, Snapshot};
use tollgate_shm::{
    BreakerSpec, CounterIndex, DeploymentIndex, LimitSpec, MAX_LIMITS_PER_REQUEST, Readiness, Region,
};

use super::terms::spec;
use super::translate::{Way, way};

/// Deployments that were tried for one request, by position.
pub(crate) type Tried = [u64; 4];

/// How old a sign of life of the daemon may be, for its probes to count, milliseconds.
const DAEMON_ALIVE_MS: u64 = 15_000;

pub(crate) struct Member {
    pub index: u32,
    /// `None` while the region's table is full: then without a breaker.
    pub row: Option<DeploymentIndex>,
    /// 0: only for those who ask for it by its id.
    weight: u32,
    /// Attempts that it is good for: one with each credential.
    tries: usize,
    version: Box<str>,
    /// The provider's own quota.
    pub quota: Vec<LimitSpec>,
    /// Where it is counted; `None` while the region's table is full.
    pub quota_rows: Option<Vec<CounterIndex>>,
    protocol: Protocol,
}

pub(crate) struct Pool {
    pub members: Vec<Member>,
    /// The members at full weight, by position.
    full: Vec<Candidate>,
    line: Line,
    /// The only one that has a weight.
    only: Option<usize>,
    /// What stands for the members in cookies, by position.
    marks: OnceCell<Vec<u64>>,
    pub breaker: BreakerSpec,
    /// Attempts that a request for the model may make, those at models that stand in included.
    most_attempts: u32,
    /// The same for one that names its deployment.
    pinned_attempts: u32,
    balance: Balance,
    panic_percent: u32,
    slow_start_ms: u64,
    turns: RefCell<RoundRobin>,
}

/// What a choice depends on beside the pool.
pub(crate) struct Wish<'a> {
    pub tried: &'a Tried,
    /// Only deployments that can serve this API, translated or not.
    pub api: Api,
    /// Only deployments of this version.
    pub version: Option<&'a str>,
    /// Only this deployment, by its index.
    pub pinned: Option<u32>,
    /// The deployment that the caller's session is with, by its index, as long as it can serve.
    pub home: Option<u32>,
    /// What keeps the caller with one deployment.
    pub affinity: Option<u64>,
    /// Region time.
    pub now_ms: u64,
}

/// Whether requests can be sent to it, if only by those who ask for it by its id.
fn is_there(deployment: &DeploymentView<'_>) -> bool {
    deployment.enabled()
        && deployment
            .provider()
            .is_some_and(|p| p.enabled() && p.addresses().len() > 0)
}

pub(super) fn is_usable(deployment: &DeploymentView<'_>) -> bool {
    deployment.weight() > 0 && is_there(deployment)
}

pub(super) fn is_tried(tried: &Tried, position: usize) -> bool {
    tried
        .get(position / 64)
        .is_some_and(|word| word >> (position % 64) & 1 == 1)
}

pub(super) fn set_tried(tried: &mut Tried, position: usize) {
    if let Some(word) = tried.get_mut(position / 64) {
        *word |= 1 << (position % 64);
    }
}

pub(super) fn clear_tried(tried: &mut Tried, position: usize) {
    if let Some(word) = tried.get_mut(position / 64) {
        *word &= !(1 << (position % 64));
    }
}

/// Attempts that a deployment is good for: one with each of its provider's credentials.
fn attempts(deployment: &DeploymentView<'_>) -> usize {
    deployment.provider().map_or(1, |p| p.credentials().len().max(1))
}

impl Pool {
    /// `route`: a channel's own way to them.
    pub fn new(
        model: &ModelView<'_>,
        route: Option<&RouteView<'_>>,
        snapshot: Snapshot<'_>,
        region: &Region,
    ) -> Rc<Pool> {
        let cluster = snapshot.settings().cluster();
        let weights = route.and_then(|r| r.weights(model));
        let weight = |position: usize, d: &DeploymentView<'_>| {
            let own = weights.as_ref().map(|w| w.get(position).copied().unwrap_or(0));
            own.unwrap_or(d.weight())
        };
        let members: Vec<Member> = model
            .deployments()
            .enumerate()
            .filter(|(_, d)| is_there(d))
            .map(|(position, d)| {
                let quota: Vec<LimitSpec> = d
                    .limits()
                    .iter()
                    .take(MAX_LIMITS_PER_REQUEST)
                    .map(|l| spec(&l, 0, cluster))
                    .collect();
                Member {
                    index: d.index(),
                    quota_rows: region.locate(&quota),
                    quota,
                    row: region.deployment(tollgate_policy::hash_name(d.id().as_bytes())),
                    weight: weight(position, &d),
                    tries: attempts(&d),
                    version: d.version().into(),
                    protocol: d.provider().map_or(Protocol::Other, |p| p.protocol()),
                }
            })
            .collect();
        let routing = model.routing();
        let usable = |name: &str| {
            let model = snapshot.model(name.as_bytes());
            model.map_or(0, |m| {
                m.deployments().filter(is_usable).map(|d| attempts(&d)).sum()
            })
        };
        let stand_ins: usize = match route.and_then(|r| r.fallback()) {
            Some(own) => own.map(usable).sum(),
            None => model.fallback().map(usable).sum(),
        };
        let weighted = || members.iter().enumerate().filter(|(_, m)| m.weight > 0);
        let total = |own: usize| {
            let all = u32::try_from(own + stand_ins).unwrap_or(u32::MAX);
            all.clamp(1, routing.attempts)
        };
        let only = weighted()
            .next()
            .filter(|_| weighted().count() == 1)
            .map(|(at, _)| at);
        let full: Vec<Candidate> = members
            .iter()
            .enumerate()
            .map(|(position, member)| Candidate {
                index: u32::try_from(position).unwrap_or(u32::MAX),
                weight: u64::from(member.weight) * 1_000,
                in_flight: 0,
                latency_us: 0,
            })
            .collect();
        Rc::new(Pool {
            most_attempts: total(weighted().map(|(_, m)| m.tries).sum()),
            pinned_attempts: total(members.iter().map(|m| m.tries).max().unwrap_or(1)),
            line: Line::new(&full),
            full,
            only,
            marks: OnceCell::new(),
            members,
            breaker: BreakerSpec {
                failures: routing.breaker_failures,
                open_ms: routing.breaker_open_ms,
                max_open_ms: routing.breaker_max_open_ms,
            },
            balance: routing.balance,
            panic_percent: routing.panic_percent,
            slow_start_ms: routing.slow_start_ms,
            turns: RefCell::default(),
        })
    }

    /// Attempts that a request may make, which may name its deployment.
    pub fn most_attempts(&self, pinned: bool) -> u32 {
        if pinned {
            self.pinned_attempts
        } else {
            self.most_attempts
        }
    }

    /// Whether the model has more deployments than one that get requests by their weight.
    pub fn has_others(&self) -> bool {
        self.only.is_none()
    }

    /// Whether one of those has not been tried.
    pub fn has_untried(&self, tried: &Tried) -> bool {
        let mut numbered = self.members.iter().enumerate();
        numbered.any(|(position, member)| member.weight > 0 && !is_tried(tried, position))
    }

    pub fn position(&self, index: u32) -> Option<usize> {
        self.members.iter().position(|m| m.index == index)
    }

    /// The member with this mark in cookies, by its index.
    pub fn marked(&self, mark: u64, signer: &SessionSigner, snapshot: Snapshot<'_>) -> Option<u32> {
        let of = |member: &Member| {
            snapshot
                .deployment(member.index)
                .map_or(0, |d| signer.mark(d.id()))
        };
        let marks = self.marks.get_or_init(|| self.members.iter().map(of).collect());
        let position = marks.iter().position(|m| *m == mark)?;
        Some(self.members.get(position)?.index)
    }

    /// Position of the deployment for a request; `random`: 64 even bits.
    pub fn choose(&self, region: &Region, wish: &Wish<'_>, random: u64) -> Option<usize> {
        // Nothing to choose from: a breaker would only turn a failing deployment into a refusing gateway.
        if wish.pinned.is_some() || self.only.is_some() {
            let position = match wish.pinned {
                Some(index) => self.position(index),
                None => self.only,
            };
            let position = position.filter(|at| !is_tried(wish.tried, *at) && self.is_wanted(*at, wish))?;
            if let Some(row) = self.members.get(position)?.row
                && region.deployment_readiness(row, wish.now_ms) == Readiness::Trial
            {
                // Sent or not is not the question, but what comes of it closes a breaker that is shown.
                region.take_trial(row, wish.now_ms);
            }
            return Some(position);
        }
        self.at_home(region, wish)
            .or_else(|| self.at_once(region, wish, random))
            .or_else(|| self.with_care(region, wish, random))
    }

    /// Where the caller's session is, if that can serve.
    fn at_home(&self, region: &Region, wish: &Wish<'_>) -> Option<usize> {
        let position = self.position(wish.home?)?;
        let member = self.members.get(position)?;
        let ready = |row| self.readiness(region, row, wish.now_ms) == Readiness::Ready;
        let fit = member.weight > 0
            && !is_tried(wish.tried, position)
            && self.is_wanted(position, wish)
            && member.row.is_none_or(ready);
        fit.then_some(position)
    }

    fn is_wanted(&self, position: usize, wish: &Wish<'_>) -> bool {
        self.members.get(position).is_some_and(|m| {
            way(wish.api, m.protocol) != Way::Unable
                && wish.version.is_none_or(|version| &*m.version == version)
        })
    }

    /// Where the choice depends on the weights alone, it is made first and looked at after: all deployments work, as a
    /// rule.
    fn at_once(&self, region: &Region, wish: &Wish<'_>, random: u64) -> Option<usize> {
        if wish.version.is_some() || *wish.tried != [0; 4] {
            return None;
        }
        let picked = match (wish.affinity, self.balance) {
            (Some(key), _) => self.line.at(key),
            (None, Balance::Weighted) => self.line.at(random),
            _ => None,
        };
        let position = picked?;
        let member = self.members.get(position)?;
        if way(wish.api, member.protocol) == Way::Unable {
            return None;
        }
        let fit = member.row.is_none_or(|row| {
            self.readiness(region, row, wish.now_ms) == Readiness::Ready
                && region
                    .deployment_recovered_ms(row)
                    .saturating_add(self.slow_start_ms)
                    <= wish.now_ms
        });
        fit.then_some(position)
    }

    fn with_care(&self, region: &Region, wish: &Wish<'_>, random: u64) -> Option<usize> {
        let mut working = 0;
        let (mut all, mut ready, mut rest) = (Vec::new(), Vec::new(), Vec::new());
        for (position, (member, full)) in self.members.iter().zip(&self.full).enumerate() {
            if member.weight == 0 || !self.is_wanted(position, wish) {
                continue;
            }
            all.push(*full);
            let readiness = member
                .row
                .map_or(Readiness::Ready, |row| self.readiness(region, row, wish.now_ms));
            working += usize::from(readiness == Readiness::Ready);
            if is_tried(wish.tried, position) {
                continue;
            }
            let trial = readiness == Readiness::Trial;
            if trial && member.row.is_none_or(|row| region.take_trial(row, wish.now_ms)) {
                // Somebody has to find out, and a failure is not the client's to see.
                return Some(position);
            }
            match readiness {
                Readiness::Ready => ready.push(self.candidate(region, member, full, wish)),
                _ => rest.push(*full),
            }
        }
        // Below the threshold our verdict is more likely to be wrong than so many deployments.
        if self.panic_percent > 0
            && (ready.is_empty() || working * 100 < self.panic_percent as usize * all.len())
        {
            ready.append(&mut rest);
            ready.sort_unstable_by_key(|c| c.index);
        }
        let picked = match (wish.affinity, self.balance) {
            (Some(key), _) => balance::sticky(&all, &ready, key),
            (None, Balance::Weighted) => balance::weighted(&ready, random),
            (None, Balance::RoundRobin) => self.turns.borrow_mut().pick(&ready),
            (None, Balance::LeastConnections) => balance::least_connections(&ready, random),
            (None, Balance::Latency) => balance::latency(&ready, random),
        }?;
        Some(picked as usize)
    }

    /// The daemon's verdict counts while the daemon lives.
    fn readiness(&self, region: &Region, row: DeploymentIndex, now_ms: u64) -> Readiness {
        match region.deployment_readiness(row, now_ms) {
            Readiness::Unhealthy if now_ms.saturating_sub(region.daemon_heartbeat_ms()) > DAEMON_ALIVE_MS => {
                Readiness::Ready
            }
            readiness => readiness,
        }
    }

    fn candidate(&self, region: &Region, member: &Member, full: &Candidate, wish: &Wish<'_>) -> Candidate {
        let Some(row) = member.row else { return *full };
        let recovered_ms = region.deployment_recovered_ms(row);
        let weight = if recovered_ms == 0 {
            full.weight
        } else {
            balance::warmed_up(
                member.weight,
                wish.now_ms.saturating_sub(recovered_ms),
                self.slow_start_ms,
            )
        };
        let (in_flight, latency_us) = match self.balance {
            Balance::LeastConnections | Balance::Latency => region.deployment_load(row),
            _ => (0, 0),
        };
        Candidate {
            index: full.index,
            weight,
            in_flight,
            latency_us,
        }
    }
}
