//! The life of master and workers: where the region is, attaching, the periodic tick, leaving.

use std::cell::{RefCell, UnsafeCell};
use std::ffi::c_int;
use std::os::unix::fs::chown;

use ngx::ffi::{
    ngx_add_timer, ngx_core_conf_t, ngx_core_module, ngx_current_msec, ngx_cycle_t, ngx_event_t, ngx_int_t,
    ngx_process, ngx_test_config, ngx_time_update,
};
use tollgate_shm::{Region, Sizes};

use super::conf::Paths;
use super::guard::{ERROR, OK, guarded};
use super::log;
use crate::gate::{MasterKey, WorkerState};

const PROCESS_SINGLE: usize = 0;
const PROCESS_WORKER: usize = 3;
/// How soon an idle worker takes up an edit (a busy one does at its next request): a change is to be everywhere within
/// 100 ms. A tick is a few loads and stores.
const TICK_MS: usize = 50;

/// State of this process. nginx runs all of a process's hooks and handlers on one thread.
pub(super) struct OneThread<T>(pub(super) T);
// SAFETY: only ever touched from nginx's main thread: every access is inside a hook or handler that nginx calls.
unsafe impl<T> Sync for OneThread<T> {}

static PATHS: OneThread<RefCell<Option<Paths>>> = OneThread(RefCell::new(None));
static MASTER_KEY: OneThread<RefCell<Option<MasterKey>>> = OneThread(RefCell::new(None));
static WORKER: OneThread<RefCell<Option<WorkerState>>> = OneThread(RefCell::new(None));
static TICK: OneThread<UnsafeCell<std::mem::MaybeUninit<ngx_event_t>>> =
    OneThread(UnsafeCell::new(std::mem::MaybeUninit::uninit()));

/// Milliseconds of the monotonic clock, as of this turn of the event loop.
pub(crate) fn now_ms() -> u64 {
    // SAFETY: a plain word that nginx updates on this thread.
    unsafe { (&raw const ngx_current_msec).read_volatile() as u64 }
}

/// The same clock, read now: what compares it with another clock must not be late by the work of this turn.
pub(crate) fn fresh_now_ms() -> u64 {
    // SAFETY: nginx's own refresh of its cached times, as its timers call it; on this thread.
    unsafe { ngx_time_update() };
    now_ms()
}

/// Runs with this worker's state. Must not call into nginx in a way that re-enters the module.
pub(crate) fn with_worker<R>(run: impl FnOnce(&mut WorkerState) -> R) -> R {
    let mut slot = WORKER.0.borrow_mut();
    run(slot.get_or_insert_with(WorkerState::detached))
}

pub(crate) fn count_panic() {
    if let Ok(slot) = WORKER.0.try_borrow()
        && let Some(worker) = slot.as_ref()
    {
        worker.count_panic();
    }
}

pub(crate) fn remember_paths(paths: Option<Paths>) {
    *PATHS.0.borrow_mut() = paths;
}

/// Master, once per configuration: the region exists and belongs to the workers' user, the master key is in memory for
/// the workers to inherit. Under `nginx -t` nothing is touched.
pub(crate) unsafe extern "C" fn init_module(cycle: *mut ngx_cycle_t) -> ngx_int_t {
    guarded("init_module", ERROR, || {
        // SAFETY: a plain flag of nginx.
        if unsafe { ngx_test_config } != 0 {
            return OK;
        }
        let Some(paths) = PATHS.0.borrow().clone() else {
            return OK;
        };
        *MASTER_KEY.0.borrow_mut() = match MasterKey::read(&paths.master_key) {
            Ok(key) => Some(key),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            Err(e) => {
                log::error(format_args!(
                    "tollgate: cannot read the master key {}: {e}",
                    paths.master_key.display()
                ));
                None
            }
        };
        match Region::open_or_create(&paths.region, Sizes::default()) {
            Ok(region) => {
                if let Some((uid, gid)) = worker_owner(cycle)
                    && let Err(e) = chown(region.path(), Some(uid), Some(gid))
                {
                    log::warn(format_args!(
                        "tollgate: cannot give the region to the workers' user: {e}"
                    ));
                }
            }
            // Not fatal: nginx serves what else it serves, our locations answer 503 until the region is there.
            Err(e) => log::error(format_args!("tollgate: {e}")),
        }
        OK
    })
}

/// The user that workers change to, when the master runs as root.
fn worker_owner(cycle: *mut ngx_cycle_t) -> Option<(u32, u32)> {
    // SAFETY: conf_ctx has a slot per core module by its index; the core module's is an ngx_core_conf_t.
    unsafe {
        let conf = (*(*cycle).conf_ctx.add(ngx_core_module.index))
            .cast::<ngx_core_conf_t>()
            .as_ref()?;
        let user = conf.user as usize;
        (user != usize::MAX && conf.user != u32::MAX && ngx::ffi::geteuid() == 0)
            .then_some((conf.user, conf.group))
    }
}

pub(crate) unsafe extern "C" fn init_process(_cycle: *mut ngx_cycle_t) -> ngx_int_t {
    guarded("init_process", OK, || {
        // SAFETY: a plain word of nginx.
        let kind = unsafe { ngx_process };
        if kind != PROCESS_WORKER && kind != PROCESS_SINGLE {
            return OK;
        }
        keep_heap();
        let Some(paths) = PATHS.0.borrow().clone() else {
            return OK;
        };
        let mut worker = WorkerState::new(paths.region, paths.state, MASTER_KEY.0.borrow().clone());
        worker.tick(now_ms());
        *WORKER.0.borrow_mut() = Some(worker);
        start_tick();
        super::counting::init();
        OK
    })
}

/// Bodies and buffers come and go with each request; without this glibc gives the heap's top back to the kernel and asks
/// for it again, which costs page faults on the path of requests (measured: 0.9 a request).
fn keep_heap() {
    const M_TRIM_THRESHOLD: c_int = -1;
    const M_MMAP_THRESHOLD: c_int = -3;
    const KEPT: c_int = 64 << 20;
    const MAPPED: c_int = 4 << 20;
    unsafe extern "C" {
        fn mallopt(parameter: c_int, value: c_int) -> c_int;
    }
    // SAFETY: glibc's own function with parameters from its manual; this process has one thread so far.
    unsafe {
        mallopt(M_TRIM_THRESHOLD, KEPT);
        mallopt(M_MMAP_THRESHOLD, MAPPED);
    }
}

/// A timer that a graceful exit does not wait for.
fn start_tick() {
    // SAFETY: TICK is a static of this process and is initialised here, before the timer is armed; ngx_cycle is set.
    unsafe {
        let event = (*TICK.0.get()).write(std::mem::zeroed());
        event.handler = Some(on_tick);
        event.log = (*ngx::ffi::ngx_cycle).log;
        // nginx logs a timer's owner by `data` only in debug builds, as a connection: give it something readable.
        event.data = (&raw const NO_CONNECTION).cast_mut().cast();
        event.set_cancelable(1);
        ngx_add_timer(event, TICK_MS as _);
    }
}

/// What our events have as their data.
pub(super) static NO_CONNECTION: [usize; 32] = [usize::MAX; 32];

unsafe extern "C" fn on_tick(event: *mut ngx_event_t) {
    guarded("tick", (), || {
        if with_worker(|w| w.tick(now_ms())) {
            super::keepalive::close_outdated();
            super::running::end_ordered();
        }
    });
    // SAFETY: event is TICK, which lives as long as the process.
    unsafe { ngx_add_timer(event, TICK_MS as _) };
}

/// A fast stop runs no log phase: what is in flight is settled by what was noted of it.
pub(crate) unsafe extern "C" fn exit_process(_cycle: *mut ngx_cycle_t) {
    guarded("exit_process", (), || {
        if let Some(worker) = WORKER.0.borrow_mut().take() {
            worker.leave();
        }
    });
}
