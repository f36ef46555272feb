//! Idle upstream connections, kept per target and never per socket address alone: two providers behind one address
//! share neither a TLS session nor credentials.

use std::cell::RefCell;

use ngx::ffi::{
    ngx_add_timer, ngx_close_connection, ngx_connection_t, ngx_current_msec, ngx_cycle, ngx_del_timer,
    ngx_destroy_pool, ngx_event_t, ngx_exiting, ngx_handle_read_event, ngx_http_upstream_t, ngx_log_t,
    ngx_peer_connection_t, ngx_ssl_shutdown, ngx_terminate, ngx_uint_t,
};

use super::guard::{AGAIN, OK, guarded};

const PEER_FAILED: ngx_uint_t = 4;
/// Idle connections a worker keeps for one target.
const MAX_IDLE_PER_TARGET: usize = 256;
/// Milliseconds an idle connection is kept.
const IDLE_MS: usize = 60_000;
/// Requests and milliseconds after which a connection is renewed, as nginx's own defaults.
const MAX_REQUESTS: ngx_uint_t = 1_000;
const MAX_AGE_MS: usize = 3_600_000;
const MSG_PEEK: i32 = 2;
const EAGAIN: i32 = 11;

#[derive(Default)]
struct Cache {
    /// By target; a worker talks to few, so a walk beats a hash.
    targets: Vec<(u64, Vec<*mut ngx_connection_t>)>,
}

impl Cache {
    fn idle(&mut self, key: u64) -> Option<&mut Vec<*mut ngx_connection_t>> {
        self.targets
            .iter_mut()
            .find(|(k, _)| *k == key)
            .map(|(_, idle)| idle)
    }
}

struct OneThread<T>(T);
// SAFETY: only touched from nginx's main thread.
unsafe impl<T> Sync for OneThread<T> {}
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
    let Some(c) = with_cache(|cache| cache.idle(key).and_then(Vec::pop)) else {
        return false;
    };
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

/// Keeps the peer's connection for `key` if it is fit for another request.
pub(crate) unsafe fn keep(
    key: u64,
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
            || (*c).requests >= MAX_REQUESTS
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
            if cache.idle(key).is_none() {
                cache.targets.push((key, Vec::new()));
            }
            let Some(idle) = cache.idle(key) else { return false };
            let room = idle.len() < MAX_IDLE_PER_TARGET;
            if room {
                idle.push(c);
            }
            room
        });
        if !kept {
            return;
        }
        (*pc).connection = std::ptr::null_mut();
        (*read).set_delayed(0);
        ngx_add_timer(read, IDLE_MS as _);
        if (*write).timer_set() == 1 {
            ngx_del_timer(write);
        }
        (*write).handler = Some(ignore);
        (*read).handler = Some(on_idle_event);
        // The key travels in the data pointer: an idle connection has no other owner.
        (*c).data = std::ptr::without_provenance_mut(key as usize);
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
            with_cache(|cache| {
                if let Some(idle) = cache.idle(key) {
                    idle.retain(|other| *other != c);
                }
                // Targets come and go with the configuration: forget those without connections.
                cache.targets.retain(|(_, idle)| !idle.is_empty());
            });
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
