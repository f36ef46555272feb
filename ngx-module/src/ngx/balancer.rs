//! `tollgate_balancer`: the peer of an upstream is the deployment that the gate has chosen.

use std::borrow::Cow;
use std::ffi::c_void;
use std::net::{Ipv4Addr, SocketAddr};
use std::ptr::null_mut;

use ngx::ffi::{
    NGX_HTTP_UPSTREAM_CREATE, ngx_array_push, ngx_conf_t, ngx_http_conf_ctx_t, ngx_http_request_t,
    ngx_http_upstream_conf_t, ngx_http_upstream_module, ngx_http_upstream_server_t,
    ngx_http_upstream_srv_conf_t, ngx_http_upstream_t, ngx_int_t, ngx_peer_connection_t, ngx_pool_t,
    ngx_ssl_t, ngx_str_t, ngx_uint_t,
};

use tollgate_policy::snapshot::ConnectionsView;
use tollgate_shm::{DeploymentIndex, Failure};

use super::guard::{BUSY, DONE, ERROR, OK, guarded};
use super::keepalive::{self, Keep};
use super::request::{Request, header_lines};
use super::{pool, process, tls};
use crate::gate::{self, HeadVerdict};

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const PEER_FAILED: ngx_uint_t = 4;
/// What process_header returns for a head that is not taken (`NGX_HTTP_UPSTREAM_INVALID_HEADER`).
const INVALID_HEADER: ngx_int_t = 40;
/// A status that `proxy_next_upstream` of our include lists: nginx knows none of 401's.
const RETRIED: ngx_uint_t = 503;

type Handler = Option<unsafe extern "C" fn(*mut ngx_http_request_t) -> ngx_int_t>;

/// One request's dealings with the balancer; in its pool.
struct Peer {
    request: *mut ngx_http_request_t,
    /// sockaddr_in or sockaddr_in6.
    address: [u8; 28],
    name: ngx_str_t,
    keep: Keep,
    at: SocketAddr,
    only_1_3: bool,
    /// The request's own copy of the location's settings, once it needs one.
    conf: *mut ngx_http_upstream_conf_t,
    /// The location's SSL context; null if it has none.
    location_ssl: *mut ngx_ssl_t,
    process_header: Handler,
    reinit_request: Handler,
    /// The status that came, where nginx is told another one.
    status: Option<u16>,
    /// Why the answer's head was not taken.
    refused: Option<Cow<'static, str>>,
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
            let u = (*r).upstream;
            let peer = Peer {
                request: r,
                address: [0; 28],
                name: ngx_str_t {
                    len: 0,
                    data: std::ptr::null_mut(),
                },
                keep: Keep {
                    key: 0,
                    owner: 0,
                    row: None,
                    limits: ConnectionsView {
                        max_idle: 0,
                        idle_ms: 0,
                        max_requests: 0,
                    },
                },
                at: SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0),
                only_1_3: false,
                conf: null_mut(),
                location_ssl: (*(*u).conf).ssl,
                process_header: (*u).process_header,
                reinit_request: (*u).reinit_request,
                status: None,
                refused: None,
                attempts: 0,
                open: None,
                stale: false,
            };
            let Some(placed) = pool::place(request.pool(), peer) else {
                return ERROR;
            };
            (*u).process_header = Some(process_header);
            (*u).reinit_request = Some(reinit_request);
            let timeouts = request.context().and_then(|c| c.timeouts_ms());
            let location = (*u).conf;
            if let Some([connect, first_byte, _]) = timeouts
                && set_timeouts(request, u, connect, first_byte).is_none()
            {
                return ERROR;
            }
            if (*u).conf != location {
                (*placed).conf = (*u).conf;
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

unsafe extern "C" fn get(pc: *mut ngx_peer_connection_t, data: *mut c_void) -> ngx_int_t {
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
            if context.stopped {
                return BUSY;
            }
            peer.status = None;
            peer.refused = None;
            request.hush(context);
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
            peer.at = target.address;
            peer.keep = Keep {
                key: target.key,
                owner: target.owner,
                row: None,
                limits: target.connections,
            };
            let Some(length) = write_address(&mut peer.address, target.address) else {
                return ERROR;
            };
            // The snapshot that the request pins holds the name for longer than the log phase.
            let name = ngx_str_t {
                len: target.name.len(),
                data: target.name.as_ptr().cast_mut(),
            };
            let u = &mut *(*peer.request).upstream;
            u.set_ssl(u32::from(target.tls.is_some()));
            if let Some(tls) = &target.tls {
                peer.only_1_3 = tls.security.only_1_3;
                let Some(conf) = peer.own_conf(request.pool(), u) else {
                    return ERROR;
                };
                if let Err(reason) = tls::apply(u, conf, peer.location_ssl, tls) {
                    if let Some(deployment) = context.deployment {
                        context.generation.complain(deployment, reason);
                    }
                    return BUSY;
                }
            }
            peer.name = name;
            (*pc).sockaddr = peer.address.as_mut_ptr().cast();
            (*pc).socklen = length;
            (*pc).name = &raw mut peer.name;
            let reused = !fresh && keepalive::take(peer.keep.key, pc);
            peer.open = process::with_worker(|w| gate::attempt_begins(w, context, reused));
            peer.keep.row = peer.open;
            if reused { DONE } else { OK }
        }
    })
}

impl Peer {
    /// The request's own copy of the location's settings.
    unsafe fn own_conf(
        &mut self,
        pool: *mut ngx_pool_t,
        u: &mut ngx_http_upstream_t,
    ) -> Option<&'static mut ngx_http_upstream_conf_t> {
        // SAFETY: u.conf points to the location's settings or to a copy that was made for the request, both plain structs
        // with the layout of this nginx. The copy lies in the request's pool; the caller holds it no longer than the call.
        unsafe {
            if self.conf.is_null() || self.conf != u.conf {
                let copy = pool::zeroed::<ngx_http_upstream_conf_t>(pool)?;
                *copy = *u.conf;
                self.conf = copy;
                u.conf = copy;
            }
            self.conf.as_mut()
        }
    }
}

/// nginx's reading of an answer's head, and ours of what it has read.
unsafe extern "C" fn process_header(r: *mut ngx_http_request_t) -> ngx_int_t {
    guarded("process_header", ERROR, || {
        // SAFETY: nginx calls this for the live request whose peer init_peer has placed; what it replaced is the proxy
        // module's, which may replace itself by the next step of its own.
        unsafe {
            let u = (*r).upstream;
            let peer = &mut *(*u).peer.data.cast::<Peer>();
            (*u).process_header = peer.process_header;
            let rc = peer.process_header.map_or(ERROR, |process| process(r));
            peer.process_header = (*u).process_header;
            (*u).process_header = Some(process_header);
            if rc != OK { rc } else { judge(r, &mut *u, peer) }
        }
    })
}

unsafe fn judge(r: *mut ngx_http_request_t, u: &mut ngx_http_upstream_t, peer: &mut Peer) -> ngx_int_t {
    // SAFETY: as in process_header.
    unsafe {
        let status = u16::try_from(u.headers_in.status_n).unwrap_or(0);
        let head = gate::AnswerHead {
            status,
            length: u64::try_from(u.headers_in.content_length_n).ok(),
            more: u.peer.tries > 1,
        };
        let request = Request::from_ptr(r);
        let Some(context) = request.context() else {
            return OK;
        };
        match process::with_worker(|w| gate::head_arrived(w, context, &head)) {
            HeadVerdict::Pass => OK,
            HeadVerdict::Last => {
                // Otherwise nginx would ask for a peer that is not there, and answer 502.
                u.peer.tries = 1;
                OK
            }
            HeadVerdict::Retry => {
                peer.status = Some(status);
                u.headers_in.status_n = RETRIED;
                OK
            }
            HeadVerdict::Broken(why) => {
                if status == 0 {
                    // nginx takes what is no HTTP for HTTP/0.9, and would write its own errors like that.
                    (*r).http_version = ((*r).http_major() * 1_000 + (*r).http_minor()) as ngx_uint_t;
                }
                peer.refused = Some(why);
                INVALID_HEADER
            }
        }
    }
}

/// Before a further attempt the proxy module begins to read anew.
unsafe extern "C" fn reinit_request(r: *mut ngx_http_request_t) -> ngx_int_t {
    guarded("reinit_request", ERROR, || {
        // SAFETY: as in process_header.
        unsafe {
            let u = (*r).upstream;
            let peer = &mut *(*u).peer.data.cast::<Peer>();
            (*u).process_header = peer.process_header;
            let rc = peer.reinit_request.map_or(ERROR, |reinit| reinit(r));
            peer.process_header = (*u).process_header;
            (*u).process_header = Some(process_header);
            rc
        }
    })
}

unsafe extern "C" fn free(pc: *mut ngx_peer_connection_t, data: *mut c_void, state: ngx_uint_t) {
    guarded("free_peer", (), || {
        // SAFETY: as in get().
        unsafe {
            let peer = &mut *data.cast::<Peer>();
            peer.stale = state & PEER_FAILED != 0 && is_stale(pc, peer.request);
            if let Some(row) = peer.open.take() {
                let resumed =
                    (*pc).cached() == 0 && !(*pc).connection.is_null() && tls::is_resumed((*pc).connection);
                if resumed && state & PEER_FAILED == 0 {
                    // Over TLS 1.2 OpenSSL says nothing of a session that a resumed handshake has renewed, and the former
                    // one is used up.
                    tls::save_session(pc, peer.keep.key);
                }
                let outcome = outcome(peer, pc, state);
                let request = Request::from_ptr(peer.request);
                if let Some(context) = request.context() {
                    process::with_worker(|w| {
                        if resumed {
                            gate::session_resumed(w, row);
                        }
                        gate::attempt_ended(w, context, row, &outcome);
                    });
                }
            }
            keepalive::keep(&peer.keep, pc, (*peer.request).upstream, state);
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
unsafe fn outcome(peer: &mut Peer, pc: *mut ngx_peer_connection_t, state: ngx_uint_t) -> gate::Outcome {
    // SAFETY: nginx frees a peer while the request and its upstream are live; an answer's header lines are in its list.
    unsafe {
        let r = peer.request;
        let u = &mut *(*r).upstream;
        let failed = state & PEER_FAILED != 0;
        let head = u16::try_from(u.headers_in.status_n).unwrap_or(0);
        let status = peer.status.unwrap_or(head);
        let left = if u.buffering() == 1 && !u.pipe.is_null() {
            (*u.pipe).length
        } else {
            u.length
        };
        let retry_after_s = (status == 429 || status == 503)
            .then(|| header_lines(&raw const u.headers_in.headers.part))
            .and_then(|mut lines| lines.find(|h| h.name == b"retry-after"))
            .and_then(|line| std::str::from_utf8(line.value).ok()?.trim().parse().ok());
        let trouble = match peer.refused.take() {
            Some(why) => Some((Failure::Malformed, why)),
            None if status == 0 => Some(no_answer(peer, u, pc)),
            None => None,
        };
        // Whatever its status was, it was not taken.
        let status = if matches!(trouble, Some((Failure::Malformed, _))) {
            0
        } else {
            status
        };
        gate::Outcome {
            failed,
            status,
            // -1: until the connection closes.
            broken: u.header_sent() == 1 && u.upgrade() == 0 && left > 0,
            stale: peer.stale,
            retry_after_s,
            gone: (*(*r).connection).error() == 1,
            trouble,
            address: peer.at,
        }
    }
}

/// Why no answer came.
unsafe fn no_answer(
    peer: &Peer,
    u: &mut ngx_http_upstream_t,
    pc: *mut ngx_peer_connection_t,
) -> (Failure, Cow<'static, str>) {
    // SAFETY: as in outcome(); a connection, if there is one, is still open.
    unsafe {
        let c = (*pc).connection;
        if c.is_null() {
            return (Failure::Connect, "no connection".into());
        }
        if (*(*c).read).timedout() == 1 || (*(*c).write).timedout() == 1 {
            let what = if u.request_sent() == 1 {
                "no answer"
            } else {
                "no connection"
            };
            return (Failure::Timeout, format!("{what} in time").into());
        }
        if u.request_sent() == 0
            && u.ssl() == 1
            && let Some(what) = tls::trouble(u, c)
        {
            tls::forget_session(peer.keep.key);
            return (Failure::Tls, what.into());
        }
        if u.state.as_ref().is_some_and(|state| state.bytes_received > 0) {
            return (
                Failure::Malformed,
                "the answer's head is too long, not HTTP or broken off".into(),
            );
        }
        let what = if u.request_sent() == 1 {
            "the connection ends before an answer"
        } else {
            "no connection"
        };
        (Failure::Connect, what.into())
    }
}

unsafe extern "C" fn set_session(pc: *mut ngx_peer_connection_t, data: *mut c_void) -> ngx_int_t {
    guarded("set_session", ERROR, || {
        // SAFETY: data is what init_peer placed; nginx calls this between the making of the connection's TLS state and
        // the handshake.
        unsafe {
            let peer = &*data.cast::<Peer>();
            tls::set_session(pc, peer.keep.key, peer.only_1_3)
        }
    })
}

unsafe extern "C" fn save_session(pc: *mut ngx_peer_connection_t, data: *mut c_void) {
    guarded("save_session", (), || {
        // SAFETY: as above; nginx calls this when the handshake, or the peer later, has given a session.
        unsafe { tls::save_session(pc, (*data.cast::<Peer>()).keep.key) };
    });
}

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
