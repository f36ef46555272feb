//! Idle upstream connections, kept per target and never per socket address alone: two providers behind one address
//! share neither a TLS session nor credentials.

use std::cell::RefCell;

use ngx::ffi::{
    ngx_add_timer, ngx_close_connection, ngx_connection_t, ngx_current_msec, ngx_cycle, ngx_del_timer,
    ngx_destroy_pool, ngx_event_t, ngx_exiting, ngx_handle_read_event, ngx_http_upstream_t, ngx_log_t,
    ngx_peer_connection_t, ngx_ssl_shutdown, ngx_terminate, ngx_uint_t,
};

use tollgate_policy::snapshot::ConnectionsView;
use tollgate_shm::DeploymentIndex;

use super::guard::{AGAIN, OK, guarded};
use super::process::{self, OneThread};
use crate::gate;

const PEER_FAILED: ngx_uint_t = 4;
/// Milliseconds after which a connection is renewed, as nginx's own default.
const MAX_AGE_MS: usize = 3_600_000;
const MSG_PEEK: i32 = 2;
const EAGAIN: i32 = 11;

/// The idle connections of one target.
struct Idle {
    key: u64,
    /// Hash of the deployment's id.
    owner: u64,
    /// Where all see how many there are.
    row: Option<DeploymentIndex>,
    connections: Vec<*mut ngx_connection_t>,
}

/// How the connections of a target are kept.
pub(crate) struct Keep {
    pub key: u64,
    pub owner: u64,
    pub row: Option<DeploymentIndex>,
    pub limits: ConnectionsView,
}

#[derive(Default)]
struct Cache {
    /// By target; a worker talks to few, so a walk beats a hash.
    targets: Vec<Idle>,
}

impl Cache {
    fn idle(&mut self, key: u64) -> Option<&mut Idle> {
        self.targets.iter_mut().find(|idle| idle.key == key)
    }
}

static CACHE: OneThread<RefCell<Option<Cache>>> = OneThread(RefCell::new(None));

fn with_cache<R>(run: impl FnOnce(&mut Cache) -> R) -> R {
    run(CACHE.0.borrow_mut().get_or_insert_with(Cache::default))
}

unsafe fn set_log(c: *mut ngx_connection_t, log: *mut ngx_log_t) {
    // SAFETY: c is a live connection; every connection to an upstream has a pool.
    unsafe {
        (*c).log = log;
        (*(*c).read).log = log;
        (*(*c).write).log = log;
        if !(*c).pool.is_null() {
            (*(*c).pool).log = log;
        }
    }
}

/// Hands an idle connection of `key` to the peer; `false` when there is none.
pub(crate) unsafe fn take(key: u64, pc: *mut ngx_peer_connection_t) -> bool {
    let taken = with_cache(|cache| {
        let idle = cache.idle(key)?;
        Some((idle.connections.pop()?, idle.row))
    });
    let Some((c, row)) = taken else {
        return false;
    };
    note_left(row);
    // SAFETY: connections in the cache are live: whatever ends them removes them first (on_idle_event).
    unsafe {
        (*c).set_idle(0);
        (*c).sent = 0;
        (*c).data = std::ptr::null_mut();
        set_log(c, (*pc).log);
        if (*(*c).read).timer_set() == 1 {
            ngx_del_timer((*c).read);
        }
        (*pc).connection = c;
        (*pc).set_cached(1);
    }
    true
}

fn note_left(row: Option<DeploymentIndex>) {
    if let Some(row) = row {
        process::with_worker(|w| gate::connection_left(w, row));
    }
}

/// Closes idle connections that no request of the present configuration would be given.
pub(crate) fn close_outdated() {
    let kept: Vec<(u64, u64)> = with_cache(|cache| cache.targets.iter().map(|t| (t.key, t.owner)).collect());
    if kept.is_empty() {
        return;
    }
    for key in process::with_worker(|w| gate::outdated(w, &kept)) {
        let gone = with_cache(|cache| {
            let at = cache.targets.iter().position(|idle| idle.key == key)?;
            Some(cache.targets.swap_remove(at))
        });
        let Some(gone) = gone else { continue };
        for c in gone.connections {
            note_left(gone.row);
            // SAFETY: it was in the cache, so it is live, and it is in nobody's hands now.
            unsafe { close(c) };
        }
    }
}

/// Keeps the peer's connection for its target if it is fit for another request.
pub(crate) unsafe fn keep(
    keep: &Keep,
    pc: *mut ngx_peer_connection_t,
    u: *mut ngx_http_upstream_t,
    state: ngx_uint_t,
) {
    // SAFETY: nginx calls peer.free with the live upstream; the connection, if any, is live and ours to keep once
    // pc.connection is null.
    unsafe {
        let c = (*pc).connection;
        if c.is_null() || state & PEER_FAILED != 0 {
            return;
        }
        let (read, write) = ((*c).read, (*c).write);
        let broken = (*read).eof() == 1
            || (*read).error() == 1
            || (*read).timedout() == 1
            || (*write).error() == 1
            || (*write).timedout() == 1;
        if broken
            || (*c).requests >= keep.limits.max_requests as ngx_uint_t
            || ngx_current_msec.wrapping_sub((*c).start_time) > MAX_AGE_MS
            || (*u).keepalive() == 0
            || (*u).request_body_sent() == 0
            || ngx_terminate != 0
            || ngx_exiting != 0
            || ngx_handle_read_event(read, 0) != OK
        {
            return;
        }
        let kept = with_cache(|cache| {
            if cache.idle(keep.key).is_none() {
                cache.targets.push(Idle {
                    key: keep.key,
                    owner: keep.owner,
                    row: keep.row,
                    connections: Vec::new(),
                });
            }
            let Some(idle) = cache.idle(keep.key) else {
                return false;
            };
            let room = idle.connections.len() < keep.limits.max_idle as usize;
            if room {
                idle.connections.push(c);
            }
            room
        });
        if !kept {
            return;
        }
        if let Some(row) = keep.row {
            process::with_worker(|w| gate::connection_kept(w, row));
        }
        (*pc).connection = std::ptr::null_mut();
        (*read).set_delayed(0);
        ngx_add_timer(read, keep.limits.idle_ms as _);
        if (*write).timer_set() == 1 {
            ngx_del_timer(write);
        }
        (*write).handler = Some(ignore);
        (*read).handler = Some(on_idle_event);
        // The key travels in the data pointer: an idle connection has no other owner.
        (*c).data = std::ptr::without_provenance_mut(keep.key as usize);
        (*c).set_idle(1);
        set_log(c, (*ngx_cycle).log);
        if (*read).ready() == 1 {
            on_idle_event(read);
        }
    }
}

unsafe extern "C" fn ignore(_event: *mut ngx_event_t) {}

/// An idle connection became readable, timed out or is to be closed because the worker exits.
unsafe extern "C" fn on_idle_event(event: *mut ngx_event_t) {
    guarded("idle connection", (), || {
        // SAFETY: the event is the read event of a connection in the cache; its data is that connection.
        unsafe {
            let c = (*event).data.cast::<ngx_connection_t>();
            if (*c).close() == 0 && (*event).timedout() == 0 {
                let mut byte = 0u8;
                let n = ngx::ffi::recv((*c).fd, (&raw mut byte).cast(), 1, MSG_PEEK);
                if n == -1 && std::io::Error::last_os_error().raw_os_error() == Some(EAGAIN) {
                    (*event).set_ready(0);
                    if ngx_handle_read_event(event, 0) == OK {
                        return;
                    }
                }
            }
            let key = (*c).data.addr() as u64;
            let row = with_cache(|cache| {
                let idle = cache.idle(key);
                let row = idle.and_then(|idle| {
                    idle.connections.retain(|other| *other != c);
                    idle.row
                });
                // Targets come and go with the configuration: forget those without connections.
                cache.targets.retain(|idle| !idle.connections.is_empty());
                row
            });
            note_left(row);
            close(c);
        }
    });
}

unsafe fn close(c: *mut ngx_connection_t) {
    // SAFETY: c is live and in nobody's hands.
    unsafe {
        let ssl = (*c).ssl;
        if !ssl.is_null() {
            (*ssl).set_no_wait_shutdown(1);
            (*ssl).set_no_send_shutdown(1);
            if ngx_ssl_shutdown(c) == AGAIN {
                (*ssl).handler = Some(close_after_shutdown);
                return;
            }
        }
        let pool = (*c).pool;
        if !pool.is_null() {
            ngx_destroy_pool(pool);
        }
        ngx_close_connection(c);
    }
}

unsafe extern "C" fn close_after_shutdown(c: *mut ngx_connection_t) {
    // SAFETY: nginx calls back with the connection whose shutdown has come to its end.
    unsafe { close(c) };
}
