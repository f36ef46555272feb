//! The mapping itself: created once by whoever comes first, checked by everyone. The only place that turns
//! offsets into references.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::atomic::{AtomicU64, Relaxed, SeqCst};
use crate::layout::{
    BlockRow, CounterRow, DeploymentRow, EventRow, HEADER_SIZE, Header, InflightRow, LAYOUT_VERSION, MAGIC,
    ShortageRow, Sizes, TABLES, Table, UsageRow, WorkerRow,
};
use crate::process::Identity;

/// Why a region cannot be used. `Io` may pass; the others need an operator, and say what to do.
#[derive(Debug)]
pub enum RegionError {
    /// The file cannot be created, opened or mapped.
    Io {
        /// What was being done.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The file is not a region of this layout, or is damaged.
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl std::fmt::Display for RegionError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            RegionError::Io { action, path, source } => {
                write!(f, "cannot {action} {}: {source}", path.display())
            }
            RegionError::Invalid { path, reason } => {
                write!(
                    f,
                    "region {} is unusable: {reason}; stop nginx and the daemon and remove it",
                    path.display()
                )
            }
        }
    }
}
impl std::error::Error for RegionError {}

/// A mapped region. Cheap to share by reference; unmapped on drop.
pub struct Region {
    base: NonNull<u8>,
    len: usize,
    dir: PathBuf,
    sizes: Sizes,
    offsets: [usize; TABLES],
}

// SAFETY: the mapping is only ever accessed through atomics, and it lives until drop.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

fn file_name() -> String {
    format!("region.v{LAYOUT_VERSION}")
}

/// FNV-1a over words: enough to tell a truncated or foreign header from a whole one.
fn check_words(words: impl Iterator<Item = u64>) -> u64 {
    words.fold(0xcbf2_9ce4_8422_2325, |h, w| {
        (h ^ w).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29)
    })
}

fn wall_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_millis() as u64)
}

fn monotonic_ms() -> u64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    t.tv_sec as u64 * 1000 + t.tv_nsec as u64 / 1_000_000
}

impl Region {
    /// Maps the region in `dir`, creating it with `sizes` when there is none. Two processes may do this at the
    /// same time: the file appears whole or not at all, and the loser uses the winner's.
    pub fn open_or_create(dir: &Path, sizes: Sizes) -> Result<Region, RegionError> {
        match Region::open(dir) {
            Err(RegionError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let path = dir.join(file_name());
        let fail = |action| {
            let path = path.clone();
            move |source: io::Error| RegionError::Io { action, path, source }
        };
        fs::create_dir_all(dir).map_err(fail("create the folder of"))?;
        let temp = dir.join(format!(".{}.{}", file_name(), std::process::id()));
        let _ = fs::remove_file(&temp);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o660)
            .open(&temp)
            .map_err(fail("create"))?;
        let result = Region::fill(&file, dir, sizes.rounded())
            .map_err(fail("fill"))
            .and_then(|()| fs::hard_link(&temp, &path).map_err(fail("publish")));
        let _ = fs::remove_file(&temp);
        match result {
            Err(RegionError::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
            Ok(()) => {}
        }
        Region::open(dir)
    }

    fn fill(file: &File, dir: &Path, sizes: Sizes) -> io::Result<()> {
        let mut offset = HEADER_SIZE;
        let mut tables = Vec::new();
        for table in Table::ALL {
            tables.push((offset, sizes.capacity(table)));
            offset += (sizes.capacity(table) * table.stride()).next_multiple_of(HEADER_SIZE);
        }
        // All pages now: a sparse file would end in SIGBUS in a worker once the tmpfs is full.
        fallocate(file, FallocateFlags::empty(), 0, offset)?;
        let base = Region::map(file, offset as usize)?;
        let region = Region {
            base,
            len: offset as usize,
            dir: dir.to_owned(),
            sizes,
            offsets: [0; TABLES],
        };
        let h = region.header();
        h.total_size.store(offset, Relaxed);
        let wall = wall_ms();
        let seed = check_words(
            [
                wall,
                u64::from(std::process::id()),
                base.as_ptr() as u64,
                monotonic_ms(),
            ]
            .into_iter(),
        );
        h.region_id.store(seed, Relaxed);
        h.created_wall_ms.store(wall, Relaxed);
        h.clock_base_ms
            .store(wall.saturating_sub(monotonic_ms()), Relaxed);
        for (slot, (at, capacity)) in h.tables.iter().zip(tables) {
            let [offset, rows] = slot;
            offset.store(at, Relaxed);
            rows.store(capacity, Relaxed);
        }
        h.version.store(LAYOUT_VERSION, Relaxed);
        h.magic.store(MAGIC, Relaxed);
        h.check.store(region.header_check(), Relaxed);
        Ok(())
    }

    fn header_check(&self) -> u64 {
        let h = self.header();
        let fixed = [
            &h.magic,
            &h.version,
            &h.total_size,
            &h.region_id,
            &h.created_wall_ms,
            &h.clock_base_ms,
        ];
        check_words(
            fixed
                .into_iter()
                .chain(h.tables.iter().flatten())
                .map(|w| w.load(Relaxed)),
        )
    }

    fn map(file: &File, len: usize) -> io::Result<NonNull<u8>> {
        // SAFETY: a fresh shared mapping at an address of the kernel's choice aliases no Rust object.
        let base = unsafe {
            mmap(
                std::ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                file.as_fd(),
                0,
            )?
        };
        NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mapped at address 0"))
    }

    /// Regions of other layouts beside the one that [`Region::open`] maps.
    pub fn of_other_layouts(dir: &Path) -> Vec<PathBuf> {
        let files = fs::read_dir(dir).into_iter().flatten().flatten();
        let is_other = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str());
            let layout = name.and_then(|name| name.strip_prefix("region.v"));
            layout.is_some_and(|n| n.parse::<u64>().is_ok_and(|n| n != LAYOUT_VERSION))
        };
        files.map(|file| file.path()).filter(is_other).collect()
    }

    /// Maps an existing region; a missing one is `Io` with `NotFound`.
    pub fn open(dir: &Path) -> Result<Region, RegionError> {
        let path = dir.join(file_name());
        let fail = |action| {
            let path = path.clone();
            move |source: io::Error| RegionError::Io { action, path, source }
        };
        let invalid = |reason: String| RegionError::Invalid {
            path: path.clone(),
            reason,
        };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(fail("open"))?;
        let len = file.metadata().map_err(fail("inspect"))?.len();
        if len < HEADER_SIZE {
            return Err(invalid(format!("{len} bytes are too few for a header")));
        }
        let base = Region::map(&file, len as usize).map_err(fail("map"))?;
        let mut region = Region {
            base,
            len: len as usize,
            dir: dir.to_owned(),
            sizes: Sizes {
                counters: 0,
                inflight: 0,
                ring: 0,
                usage: 0,
            },
            offsets: [0; TABLES],
        };
        region.validate().map_err(invalid)?;
        Ok(region)
    }

    fn validate(&mut self) -> Result<(), String> {
        let h = self.header();
        if h.magic.load(Relaxed) != MAGIC {
            return Err("the magic number is missing".into());
        }
        let version = h.version.load(Relaxed);
        if version != LAYOUT_VERSION {
            return Err(format!(
                "layout version {version}, this program uses {LAYOUT_VERSION}"
            ));
        }
        if h.check.load(Relaxed) != self.header_check() {
            return Err("the header is damaged".into());
        }
        let total = h.total_size.load(Relaxed);
        if total != self.len as u64 {
            return Err(format!(
                "the file has {} bytes, its header says {total}",
                self.len
            ));
        }
        let mut offsets = [0; TABLES];
        let mut capacities = [0; TABLES];
        for (i, table) in Table::ALL.into_iter().enumerate() {
            let (Some(slot), Some(at), Some(cap)) =
                (h.tables.get(i), offsets.get_mut(i), capacities.get_mut(i))
            else {
                return Err("too many tables".into());
            };
            let [offset, rows] = slot;
            let (offset, capacity) = (offset.load(Relaxed), rows.load(Relaxed));
            let end = capacity
                .checked_mul(table.stride())
                .and_then(|size| size.checked_add(offset));
            if offset < HEADER_SIZE || offset % 128 != 0 || capacity == 0 || end.is_none_or(|end| end > total)
            {
                return Err(format!("table {table:?} lies outside the file"));
            }
            *at = offset as usize;
            *cap = capacity as u32;
        }
        let capacity = |table: Table| capacities.get(table as usize).copied().unwrap_or(0);
        self.offsets = offsets;
        self.sizes = Sizes {
            counters: capacity(Table::Counters),
            inflight: capacity(Table::Inflight),
            ring: capacity(Table::Ring) / crate::MAX_WORKERS as u32,
            usage: capacity(Table::Usage),
        };
        if self.sizes.rounded() != self.sizes || capacity(Table::Workers) != crate::MAX_WORKERS as u32 {
            return Err("the tables have impossible sizes".into());
        }
        Ok(())
    }

    pub(crate) fn header(&self) -> &Header {
        // SAFETY: the mapping is page-aligned and at least HEADER_SIZE long (checked at open, fallocated at
        // creation); Header consists of atomics, for which every bit pattern is valid.
        unsafe { self.base.cast::<Header>().as_ref() }
    }

    fn table<T>(&self, table: Table) -> &[T] {
        let offset = self.offsets.get(table as usize).copied().unwrap_or(0);
        let rows = self.sizes.capacity(table) as usize;
        debug_assert_eq!(size_of::<T>() as u64, table.stride());
        // SAFETY: validate() proved that offset + rows * stride lies inside the mapping and that the offset is a
        // multiple of the row's alignment; rows are atomics only, and the mapping outlives the borrow of self.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(offset).cast(), rows) }
    }

    pub(crate) fn worker_rows(&self) -> &[WorkerRow] {
        self.table(Table::Workers)
    }
    pub(crate) fn counter_rows(&self) -> &[CounterRow] {
        self.table(Table::Counters)
    }
    pub(crate) fn block_rows(&self) -> &[BlockRow] {
        self.table(Table::Blocks)
    }
    pub(crate) fn inflight_rows(&self) -> &[InflightRow] {
        self.table(Table::Inflight)
    }
    pub(crate) fn event_rows(&self) -> &[EventRow] {
        self.table(Table::Ring)
    }
    pub(crate) fn usage_rows(&self) -> &[UsageRow] {
        self.table(Table::Usage)
    }
    pub(crate) fn deployment_rows(&self) -> &[DeploymentRow] {
        self.table(Table::Deployments)
    }

    pub(crate) fn shortage_rows(&self) -> &[ShortageRow] {
        self.table(Table::Shortages)
    }

    /// The folder that holds the region and the snapshots.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The region's file, for changing its owner.
    pub fn path(&self) -> PathBuf {
        self.dir.join(file_name())
    }

    /// Capacities that the region was created with.
    pub fn sizes(&self) -> Sizes {
        self.sizes
    }

    /// Bytes mapped.
    pub fn len_bytes(&self) -> u64 {
        self.len as u64
    }

    /// A number that differs between any two regions: whoever remembers positions in one must start anew in another.
    pub fn id(&self) -> u64 {
        self.header().region_id.load(Relaxed)
    }

    /// Region time in milliseconds since the Unix epoch for a reading of the monotonic clock in milliseconds. It
    /// starts at the wall clock and never jumps; all processes of the machine agree on it.
    pub fn time_at(&self, monotonic_ms: u64) -> u64 {
        let h = self.header();
        monotonic_ms
            .wrapping_add(h.clock_base_ms.load(Relaxed))
            .wrapping_add(h.test_offset_ms.load(Relaxed))
    }

    /// Region time now.
    pub fn now_ms(&self) -> u64 {
        self.time_at(monotonic_ms())
    }

    /// Moves region time forward; for tests, which must not wait for real minutes.
    pub fn advance_clock_for_tests(&self, ms: u64) {
        self.header().test_offset_ms.fetch_add(ms, SeqCst);
    }

    /// Generation of the current snapshot; 0 before the first one.
    pub fn generation(&self) -> u64 {
        self.header().generation.load(SeqCst)
    }

    /// Makes a generation current; its file must be complete. Never goes backwards.
    pub fn publish(&self, generation: u64) {
        let h = self.header();
        h.published_ms.store(self.now_ms(), SeqCst);
        h.generation.fetch_max(generation, SeqCst);
    }

    /// When the current generation was published, region time.
    pub fn published_ms(&self) -> u64 {
        self.header().published_ms.load(SeqCst)
    }

    /// Whether usage from before the region's creation has been restored (the daemon does it once).
    pub fn restored(&self) -> bool {
        self.header().restored.load(SeqCst) != 0
    }

    /// See [`Region::restored`].
    pub fn set_restored(&self) {
        self.header().restored.store(1, SeqCst);
    }

    /// Whether this instance takes no new clients: its health check says so, whoever comes all the same is served.
    pub fn draining(&self) -> bool {
        self.header().draining.load(SeqCst) != 0
    }

    /// See [`Region::draining`].
    pub fn set_draining(&self, draining: bool) {
        self.header().draining.store(draining.into(), SeqCst);
    }

    /// Registers the calling process as the daemon. `Err` names a live one that is already registered.
    pub fn attach_daemon(&self) -> Result<(), Identity> {
        let slot = &self.header().daemon;
        let me = Identity::current();
        loop {
            let word = slot.load(SeqCst);
            let owner = Identity::from_word(word);
            if word != 0 && owner != me && owner.is_alive() {
                return Err(owner);
            }
            if slot.compare_exchange(word, me.word(), SeqCst, SeqCst).is_ok() {
                return Ok(());
            }
        }
    }

    /// Tells that the daemon is alive.
    pub fn daemon_beat(&self) {
        self.header().daemon_heartbeat_ms.store(self.now_ms(), SeqCst);
    }

    /// Last heartbeat of a daemon, region time; 0 if never.
    pub fn daemon_heartbeat_ms(&self) -> u64 {
        self.header().daemon_heartbeat_ms.load(SeqCst)
    }

    /// Gauges of the tables' fill and of what they had to refuse, by name.
    pub fn gauges(&self) -> [(&'static str, u64); 7] {
        let h = self.header();
        let get = |a: &AtomicU64| a.load(Relaxed);
        [
            ("counters_used", get(&h.counters_used)),
            ("counters_refused", get(&h.counters_refused)),
            ("usage_used", get(&h.usage_used)),
            ("usage_refused", get(&h.usage_refused)),
            ("inflight_refused", get(&h.inflight_refused)),
            ("reclaimed_workers", get(&h.reclaimed_workers)),
            ("reclaimed_requests", get(&h.reclaimed_requests)),
        ]
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: base and len are those of our own mapping, and no reference outlives self.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    fn small() -> Sizes {
        Sizes {
            counters: 100,
            inflight: 100,
            ring: 64,
            usage: 64,
        }
    }

    #[test]
    fn two_openers_see_the_same_region() {
        let dir = tempfile::tempdir().unwrap();
        let a = Region::open_or_create(dir.path(), small()).unwrap();
        let b = Region::open_or_create(dir.path(), Sizes::default()).unwrap();
        assert_eq!((a.id(), a.sizes()), (b.id(), b.sizes()));
        assert_eq!(
            a.sizes(),
            Sizes {
                counters: 128,
                inflight: 128,
                ring: 64,
                usage: 64
            }
        );
        a.publish(7);
        assert_eq!(b.generation(), 7);
        b.publish(3);
        assert_eq!(a.generation(), 7);
        a.advance_clock_for_tests(60_000);
        assert!(b.now_ms().abs_diff(wall_ms() + 60_000) < 5_000);
    }

    #[test]
    fn many_creators_at_once_agree() {
        let dir = tempfile::tempdir().unwrap();
        // One creator per thread would share the temp name of this pid: serialise as processes would differ.
        let first = Region::open_or_create(dir.path(), small()).unwrap();
        let ids: Vec<_> = std::thread::scope(|s| {
            let handles: Vec<_> = (0..8)
                .map(|_| s.spawn(|| Region::open_or_create(dir.path(), small()).unwrap().id()))
                .collect();
            handles.into_iter().map(|h| h.join().unwrap()).collect()
        });
        assert!(ids.iter().all(|id| *id == first.id()));
    }

    #[test]
    fn damage_is_refused_with_a_reason() {
        let dir = tempfile::tempdir().unwrap();
        let path = Region::open_or_create(dir.path(), small()).unwrap().path();
        let whole = fs::read(&path).unwrap();
        let refused = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            match Region::open(dir.path()) {
                Err(RegionError::Invalid { reason, .. }) => reason,
                Err(e) => panic!("{e}"),
                Ok(_) => panic!("accepted"),
            }
        };
        assert!(refused(&whole[..100]).contains("too few"));
        assert!(refused(&whole[..8192]).contains("bytes"));
        assert!(refused(&vec![0; whole.len()]).contains("magic"));
        for word in 0..19 {
            let mut bad = whole.clone();
            bad[word * 8] ^= 0x40;
            refused(&bad);
        }
        let mut other = whole.clone();
        other[8] = 9;
        assert!(refused(&other).contains("layout version 9"));
        fs::write(&path, &whole).unwrap();
        assert!(Region::open(dir.path()).is_ok());
    }

    #[test]
    fn a_second_daemon_is_refused_while_the_first_lives() {
        let dir = tempfile::tempdir().unwrap();
        let r = Region::open_or_create(dir.path(), small()).unwrap();
        assert!(r.attach_daemon().is_ok());
        assert!(r.attach_daemon().is_ok(), "the same process may attach again");
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let other = Identity::of(child.id()).unwrap();
        r.header().daemon.store(other.word(), SeqCst);
        assert_eq!(r.attach_daemon(), Err(other));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(r.attach_daemon().is_ok());
    }
}
