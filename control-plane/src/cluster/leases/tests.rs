use super::*;
use tollgate_lease::{Era, Ledger};
use tollgate_shm::{Demand, Enforcement, LimitSpec, Metric, RefusalKind, Sizes, Worker};

fn limit() -> LimitSpec {
    LimitSpec {
        // As a row stores it.
        key: 162,
        metric: Metric::Requests,
        algorithm: Algorithm::SlidingWindow,
        enforcement: Enforcement::Strict,
        max: 1_000,
        window_ms: 60_000,
        burst: 1_000,
        max_delay_ms: 0,
        open_when_full: false,
        cluster: true,
    }
}

const SETTINGS: LeaseSettings = LeaseSettings {
    ttl_ms: 10_000,
    policy: Policy::Share(20),
    standing_ttl_ms: 3_600_000,
    clock_skew_ms: 1_000,
    connections_hold_ms: 0,
    timeout_ms: 1_000,
};

struct Instance {
    _dir: tempfile::TempDir,
    region: Arc<Region>,
    leases: Leases,
    worker: Worker,
}

impl Instance {
    fn new() -> Instance {
        let dir = tempfile::tempdir().unwrap();
        let sizes = Sizes {
            counters: 64,
            inflight: 4_096,
            ring: 64,
            usage: 64,
        };
        let region = Arc::new(Region::open_or_create(dir.path(), sizes).unwrap());
        let worker = region.attach_worker().unwrap();
        Instance {
            _dir: dir,
            leases: Leases::resume(Arc::clone(&region), SETTINGS, Arc::default()),
            region,
            worker,
        }
    }

    fn take(&mut self) -> Result<(), RefusalKind> {
        self.take_of(&[limit()])
    }

    fn take_of(&mut self, limits: &[LimitSpec]) -> Result<(), RefusalKind> {
        let demand = Demand {
            limits,
            counters: None,
            input: 0,
            input_exact: true,
            output: 0,
            expected_output: 0,
            min_output: 0,
            usage: None,
            price: [0, 0],
            may_wait: true,
        };
        let now = self.region.now_ms();
        let taken = self.region.reserve(&mut self.worker, now, &demand);
        taken.map(|_| ()).map_err(|r| r.kind)
    }

    fn advance(&self, ms: u64) {
        self.region.advance_clock_for_tests(ms);
    }
}

/// Redis, with every instance's notices delivered at once.
#[derive(Default)]
struct Redis {
    ledgers: HashMap<u64, Ledger>,
    era: Option<Era<u8>>,
}

impl Redis {
    fn new() -> Redis {
        Redis {
            ledgers: HashMap::new(),
            era: Some(Era { run: 0, since: 0 }),
        }
    }

    fn ledger(&self) -> &Ledger {
        &self.ledgers[&limit().key]
    }

    /// One round of every instance; returns how many reports there were.
    fn round(&mut self, instances: &mut [Instance]) -> usize {
        let mut reports = 0;
        for i in 0..instances.len() {
            instances[i].leases.take_shortages();
            for out in instances[i].leases.step().into_iter().flatten() {
                reports += 1;
                let now = instances[i].region.now_ms();
                let ledger = self.ledgers.entry(out.limit).or_default();
                let (answer, notice) = ledger.report(&mut self.era, now, &0, &out.report);
                instances[i].leases.answered(out.row, &out.report, &answer);
                if let Some(notice) = notice {
                    for instance in instances.iter_mut() {
                        instance.leases.noticed(out.limit, &notice);
                    }
                }
            }
        }
        reports
    }
}

#[test]
fn two_instances_use_all_of_a_limit_and_no_more() {
    let mut redis = Redis::new();
    let mut instances = [Instance::new(), Instance::new()];
    let mut admitted = 0;
    let mut idle = 0;
    while idle < 60 {
        let before = admitted;
        for instance in &mut instances {
            while instance.take().is_ok() {
                admitted += 1;
            }
        }
        redis.round(&mut instances);
        instances.iter().for_each(|i| i.advance(25));
        idle = if admitted == before { idle + 1 } else { 0 };
    }
    assert_eq!(admitted, 1_000);
}

#[test]
fn a_daemon_takes_up_what_its_predecessor_held_and_an_idle_one_returns_it() {
    let mut redis = Redis::new();
    let mut instances = [Instance::new()];
    assert_eq!(instances[0].take(), Err(RefusalKind::LeaseShort));
    redis.round(&mut instances);
    assert_eq!(instances[0].take(), Ok(()));
    let held = redis.ledger().counted(instances[0].region.now_ms());
    assert!((15..=500).contains(&held), "{held}");
    let region = Arc::clone(&instances[0].region);
    instances[0].leases = Leases::resume(region, SETTINGS, Arc::default());
    instances[0].advance(5_000);
    assert_eq!(
        redis.round(&mut instances),
        0,
        "two thirds of the lease are not over"
    );
    instances[0].advance(1_000);
    assert_eq!(redis.round(&mut instances), 1, "two thirds of the lease are over");
    assert_eq!(redis.ledger().counted(instances[0].region.now_ms()), held);
    for _ in 0..400 {
        instances[0].advance(250);
        redis.round(&mut instances);
    }
    assert_eq!(redis.ledger().counted(instances[0].region.now_ms()), 0);
}

#[test]
fn without_redis_the_standing_share_is_left_and_open_opens() {
    let mut redis = Redis::new();
    let mut instances = [Instance::new()];
    let _ = instances[0].take();
    redis.round(&mut instances);
    while instances[0].take().is_ok() {}
    instances[0].leases.take_shortages();
    instances[0].advance(70_000);
    instances[0].leases.without_redis();
    let mut admitted = 0;
    while instances[0].take().is_ok() {
        admitted += 1;
    }
    let held = redis.ledger().records.values().next().unwrap().standing;
    assert_eq!(admitted, held, "what was set aside");
    assert!(held > 0);
    assert_eq!(
        instances[0].take(),
        Err(RefusalKind::Limit),
        "waiting would be in vain"
    );

    instances[0].leases.set(LeaseSettings {
        policy: Policy::Open,
        ..SETTINGS
    });
    instances[0].leases.without_redis();
    while instances[0].take().is_ok() {
        admitted += 1;
    }
    assert_eq!(admitted, 1_000);
}

/// Limits whose keys have one hash tag, and one with another.
fn neighbours(count: usize) -> (Vec<LimitSpec>, LimitSpec) {
    let of = |key| LimitSpec { key, ..limit() };
    let tag = script::tag_of(limit().key);
    let keys = || (0..).map(|n| limit().key + n * 16);
    let near = keys().filter(|key| script::tag_of(*key) == tag);
    let far = keys().find(|key| script::tag_of(*key) != tag);
    (near.take(count).map(of).collect(), of(far.unwrap()))
}

#[test]
fn leases_of_one_tag_come_to_be_renewed_together() {
    let mut redis = Redis::new();
    let mut instance = Instance::new();
    let (mut limits, far) = neighbours(3);
    let near = script::tag_of(limits[0].key);
    limits.push(far);
    let mut sizes = Vec::new();
    for ms in (0..36_000).step_by(25) {
        // One after the other; each is in use from then on.
        if ms % 1_500 == 0
            && let Some(limit) = limits.get(ms / 1_500)
        {
            let _ = instance.take_of(std::slice::from_ref(limit));
        } else if ms % 1_500 == 25
            && let Some(limit) = limits.get(ms / 1_500)
        {
            assert_eq!(instance.take_of(std::slice::from_ref(limit)), Ok(()));
        }
        instance.leases.take_shortages();
        for together in instance.leases.step() {
            let tags: Vec<u64> = together.iter().map(|out| script::tag_of(out.limit)).collect();
            assert!(tags.iter().all(|tag| *tag == tags[0]));
            if ms > 20_000 {
                sizes.push((tags[0] == near, tags.len()));
            }
            for out in together {
                let ledger = redis.ledgers.entry(out.limit).or_default();
                let now = instance.region.now_ms();
                let (answer, _) = ledger.report(&mut redis.era, now, &0, &out.report);
                instance.leases.answered(out.row, &out.report, &answer);
            }
        }
        instance.advance(25);
    }
    let of = |is_near| {
        let sizes = sizes.iter().filter(|(near, _)| *near == is_near);
        sizes.map(|(_, size)| *size).collect::<Vec<_>>()
    };
    assert!((2..=3).contains(&of(true).len()), "{sizes:?}");
    assert!(of(true).iter().all(|size| *size == 3), "{sizes:?}");
    assert!(
        of(false).iter().all(|size| *size == 1) && of(false).len() <= 3,
        "{sizes:?}"
    );
}

#[test]
fn what_redis_refuses_is_asked_for_alone_until_it_is_answered() {
    let mut redis = Redis::new();
    let mut instances = [Instance::new()];
    let (limits, _) = neighbours(3);
    let _ = instances[0].take_of(&limits);
    redis.round(&mut instances);
    for limit in &limits {
        let _ = instances[0].take_of(std::slice::from_ref(limit));
    }
    redis.round(&mut instances);
    instances[0].advance(6_500);
    let out = instances[0].leases.step();
    assert_eq!(out.iter().map(Vec::len).collect::<Vec<_>>(), [3]);
    for out in &out[0] {
        instances[0].leases.failed(out.row, out.report.seq, true);
    }
    instances[0].advance(FAILED_MS);
    let out = instances[0].leases.step();
    assert_eq!(out.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1, 1]);
    for out in out.iter().flatten() {
        if out.limit == limits[0].key {
            instances[0].leases.failed(out.row, out.report.seq, true);
        } else {
            let now = instances[0].region.now_ms();
            let ledger = redis.ledgers.get_mut(&out.limit).unwrap();
            let (answer, _) = ledger.report(&mut redis.era, now, &0, &out.report);
            instances[0].leases.answered(out.row, &out.report, &answer);
        }
    }
    instances[0].advance(6_500);
    let out = instances[0].leases.step();
    let mut sizes: Vec<usize> = out.iter().map(Vec::len).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [1, 2], "the one that was refused again stays alone");
}
