//! `tollgate_balancer`: the peer of an upstream is the deployment that the gate has chosen.

use std::net::SocketAddr;

use ngx::ffi::{
    NGX_HTTP_UPSTREAM_CREATE, ngx_array_push, ngx_conf_t, ngx_http_conf_ctx_t, ngx_http_request_t,
    ngx_http_upstream_conf_t, ngx_http_upstream_module, ngx_http_upstream_server_t,
    ngx_http_upstream_srv_conf_t, ngx_http_upstream_t, ngx_int_t, ngx_peer_connection_t, ngx_str_t,
    ngx_uint_t,
};

use tollgate_shm::DeploymentIndex;

use super::guard::{BUSY, DONE, ERROR, OK, guarded};
use super::request::{Request, header_lines};
use super::{keepalive, pool, process};
use crate::gate;

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const PEER_FAILED: ngx_uint_t = 4;

/// One request's dealings with the balancer; in its pool.
struct Peer {
    request: *mut ngx_http_request_t,
    /// sockaddr_in or sockaddr_in6.
    address: [u8; 28],
    name: ngx_str_t,
    key: u64,
    attempts: u32,
    /// The attempt that has begun and not ended.
    open: Option<DeploymentIndex>,
    /// The cached connection turned out dead: the same deployment again, over a fresh one.
    stale: bool,
}

/// The directive: makes the block valid without a `server` line and puts this balancer in place.
pub(crate) fn configure(cf: *mut ngx_conf_t) -> Result<(), String> {
    // SAFETY: the directive is only allowed inside upstream{}, where cf->ctx holds its srv_conf array and the servers
    // array has been made.
    unsafe {
        let ctx = (*cf).ctx.cast::<ngx_http_conf_ctx_t>();
        let conf =
            (*(*ctx).srv_conf.add(ngx_http_upstream_module.ctx_index)).cast::<ngx_http_upstream_srv_conf_t>();
        if (*conf).peer.init_upstream.is_some() {
            return Err("\"tollgate_balancer\" excludes every other load balancing directive".into());
        }
        let server = ngx_array_push((*conf).servers).cast::<ngx_http_upstream_server_t>();
        if server.is_null() {
            return Err("out of memory".into());
        }
        server.write(std::mem::zeroed());
        (*server).name = ngx::ngx_string!("tollgate");
        (*conf).peer.init_upstream = Some(init_upstream);
        (*conf).flags = NGX_HTTP_UPSTREAM_CREATE as ngx_uint_t;
    }
    Ok(())
}

unsafe extern "C" fn init_upstream(_cf: *mut ngx_conf_t, us: *mut ngx_http_upstream_srv_conf_t) -> ngx_int_t {
    // SAFETY: nginx passes the upstream that configure() has marked.
    unsafe { (*us).peer.init = Some(init_peer) };
    OK
}

unsafe extern "C" fn init_peer(
    r: *mut ngx_http_request_t,
    _us: *mut ngx_http_upstream_srv_conf_t,
) -> ngx_int_t {
    guarded("init_peer", ERROR, || {
        // SAFETY: nginx passes the live request, whose upstream exists by now.
        unsafe {
            let request = Request::from_ptr(r);
            let Some(tries) = request.context().map(|c| c.most_attempts) else {
                super::log::error(format_args!(
                    "tollgate: a request reached \"tollgate_balancer\" without \"tollgate on\" in its location"
                ));
                return ERROR;
            };
            let peer = Peer {
                request: r,
                address: [0; 28],
                name: ngx_str_t {
                    len: 0,
                    data: std::ptr::null_mut(),
                },
                key: 0,
                attempts: 0,
                open: None,
                stale: false,
            };
            let Some(placed) = pool::place(request.pool(), peer) else {
                return ERROR;
            };
            let timeouts = request.context().and_then(|c| c.timeouts_ms());
            let u = (*r).upstream;
            if let Some([connect, first_byte, _]) = timeouts
                && set_timeouts(request, u, connect, first_byte).is_none()
            {
                return ERROR;
            }
            let pc = &mut (*u).peer;
            pc.data = placed.cast();
            pc.get = Some(get);
            pc.free = Some(free);
            pc.tries = tries as ngx_uint_t;
            // nginx calls both unchecked when sessions are reused.
            pc.set_session = Some(set_session);
            pc.save_session = Some(save_session);
        }
        OK
    })
}

/// Gives the request time-outs of its own: a copy of the location's settings if they differ.
unsafe fn set_timeouts(
    request: &Request,
    u: *mut ngx_http_upstream_t,
    connect: u64,
    read: u64,
) -> Option<()> {
    let (connect, read) = (usize::try_from(connect).ok()?, usize::try_from(read).ok()?);
    // SAFETY: u.conf points to the location's settings, a plain struct whose layout is that of this nginx; a request may
    // have a copy of it.
    unsafe {
        let conf = (*u).conf;
        if (*conf).connect_timeout == connect && (*conf).read_timeout == read {
            return Some(());
        }
        let copy = pool::zeroed::<ngx_http_upstream_conf_t>(request.pool())?;
        *copy = *conf;
        copy.connect_timeout = connect;
        copy.read_timeout = read;
        (*u).conf = copy;
    }
    Some(())
}

/// From the first byte on the time between pieces counts.
pub(crate) unsafe fn answer_has_begun(request: &Request, u: *mut ngx_http_upstream_t, idle: u64) {
    // SAFETY: as above; called from the header filter with the live upstream.
    unsafe {
        let connect = (*(*u).conf).connect_timeout as u64;
        set_timeouts(request, u, connect, idle);
    }
}

unsafe extern "C" fn get(pc: *mut ngx_peer_connection_t, data: *mut std::ffi::c_void) -> ngx_int_t {
    guarded("get_peer", ERROR, || {
        // SAFETY: data is what init_peer placed; the request is live while its upstream is.
        unsafe {
            let peer = &mut *data.cast::<Peer>();
            let request = Request::from_ptr(peer.request);
            let Some(context) = request.context() else {
                return ERROR;
            };
            (*pc).set_cached(0);
            (*pc).connection = std::ptr::null_mut();
            let fresh = std::mem::take(&mut peer.stale);
            if peer.attempts > 0 && !fresh {
                // Another deployment: what was built for the former one (key, Host, model) must not reach it.
                match process::with_worker(|w| gate::next_deployment(w, request, context)) {
                    Ok(()) => {}
                    Err(()) => return BUSY,
                }
                let r = peer.request;
                let u = (*r).upstream;
                (*u).request_bufs = if (*r).request_body.is_null() {
                    std::ptr::null_mut()
                } else {
                    (*(*r).request_body).bufs
                };
                match (*u).create_request {
                    Some(create) if create(r) == OK => {}
                    _ => return ERROR,
                }
            }
            let Some(target) = gate::target(context) else {
                return BUSY;
            };
            peer.attempts += 1;
            peer.key = target.key;
            let Some(length) = write_address(&mut peer.address, target.address) else {
                return ERROR;
            };
            // The snapshot that the request pins holds the name for longer than the log phase.
            let name = ngx_str_t {
                len: target.name.len(),
                data: target.name.as_ptr().cast_mut(),
            };
            peer.name = name;
            (*pc).sockaddr = peer.address.as_mut_ptr().cast();
            (*pc).socklen = length;
            (*pc).name = &raw mut peer.name;
            (*(*peer.request).upstream).set_ssl(u32::from(target.tls));
            let reused = !fresh && keepalive::take(peer.key, pc);
            peer.open = process::with_worker(|w| gate::attempt_begins(w, context, reused));
            if reused { DONE } else { OK }
        }
    })
}

unsafe extern "C" fn free(pc: *mut ngx_peer_connection_t, data: *mut std::ffi::c_void, state: ngx_uint_t) {
    guarded("free_peer", (), || {
        // SAFETY: as in get().
        unsafe {
            let peer = &mut *data.cast::<Peer>();
            peer.stale = state & PEER_FAILED != 0 && is_stale(pc, peer.request);
            if let Some(row) = peer.open.take() {
                let outcome = outcome(peer.request, state, peer.stale);
                let request = Request::from_ptr(peer.request);
                if let Some(context) = request.context() {
                    process::with_worker(|w| gate::attempt_ended(w, context, row, &outcome));
                }
            }
            keepalive::keep(peer.key, pc, (*peer.request).upstream, state);
            (*pc).tries = (*pc).tries.saturating_sub(1);
        }
    });
}

/// Whether a failed attempt only met a kept connection that the other side had closed meanwhile: nothing came, and at
/// once. An error status or a time-out on a kept connection is the deployment's answer as on any other.
unsafe fn is_stale(pc: *mut ngx_peer_connection_t, r: *mut ngx_http_request_t) -> bool {
    // SAFETY: nginx frees a peer while the request, its upstream, the attempt's state and its connection, if any, are live.
    unsafe {
        let Some(connection) = (*pc).connection.as_ref().filter(|_| (*pc).cached() == 1) else {
            return false;
        };
        let received = (*(*r).upstream).state.as_ref().map_or(0, |s| s.bytes_received);
        received == 0 && (*connection.read).timedout() == 0 && (*connection.write).timedout() == 0
    }
}

/// What an attempt's end says of the deployment.
unsafe fn outcome(r: *mut ngx_http_request_t, state: ngx_uint_t, stale: bool) -> gate::Outcome {
    // SAFETY: nginx frees a peer while the request and its upstream are live; an answer's header lines are in its list.
    unsafe {
        let u = &*(*r).upstream;
        let status = u16::try_from(u.headers_in.status_n).unwrap_or(0);
        let left = if u.buffering() == 1 && !u.pipe.is_null() {
            (*u.pipe).length
        } else {
            u.length
        };
        let retry_after_s = (status == 429 || status == 503)
            .then(|| header_lines(&raw const u.headers_in.headers.part))
            .and_then(|mut lines| lines.find(|h| h.name == b"retry-after"))
            .and_then(|line| std::str::from_utf8(line.value).ok()?.trim().parse().ok());
        gate::Outcome {
            failed: state & PEER_FAILED != 0,
            status,
            // -1: until the connection closes.
            broken: u.header_sent() == 1 && u.upgrade() == 0 && left > 0,
            stale,
            retry_after_s,
            gone: (*(*r).connection).error() == 1,
        }
    }
}

unsafe extern "C" fn set_session(_pc: *mut ngx_peer_connection_t, _data: *mut std::ffi::c_void) -> ngx_int_t {
    OK
}

unsafe extern "C" fn save_session(_pc: *mut ngx_peer_connection_t, _data: *mut std::ffi::c_void) {}

/// Writes a `sockaddr_in` or `sockaddr_in6` (family, port in network order, address).
fn write_address(to: &mut [u8; 28], address: SocketAddr) -> Option<u32> {
    *to = [0; 28];
    let port = address.port().to_be_bytes();
    to.get_mut(2..4)?.copy_from_slice(&port);
    match address {
        SocketAddr::V4(v4) => {
            to.get_mut(..2)?.copy_from_slice(&AF_INET.to_ne_bytes());
            to.get_mut(4..8)?.copy_from_slice(&v4.ip().octets());
            Some(16)
        }
        SocketAddr::V6(v6) => {
            to.get_mut(..2)?.copy_from_slice(&AF_INET6.to_ne_bytes());
            to.get_mut(8..24)?.copy_from_slice(&v6.ip().octets());
            to.get_mut(24..28)?.copy_from_slice(&v6.scope_id().to_ne_bytes());
            Some(28)
        }
    }
}
