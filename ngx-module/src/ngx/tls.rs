//! TLS towards providers: whom each of them is trusted by, and sessions that spare whole handshakes.
//!
//! nginx has one SSL context and one set of `proxy_ssl_*` per location, while the providers behind it differ. nginx reads
//! all of them through the request's `u->conf`, so each attempt gets a copy of the location's settings with those of its
//! provider: nginx itself then asks for the name and verifies it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ffi::{CStr, c_int, c_long};
use std::ptr::null_mut;

use ngx::ffi::{
    BIO_free, BIO_new_mem_buf, ERR_clear_error, NGX_SSL_TLSv1_2, NGX_SSL_TLSv1_3, PEM_read_bio_X509,
    SSL_CTX_free, SSL_CTX_get_cert_store, SSL_CTX_set_verify_depth, SSL_SESSION, SSL_SESSION_free, SSL_ctrl,
    SSL_get_verify_result, SSL_session_reused, X509_STORE_add_cert, X509_free, X509_verify_cert_error_string,
    ngx_connection_t, ngx_cycle, ngx_http_upstream_conf_t, ngx_http_upstream_t, ngx_int_t,
    ngx_peer_connection_t, ngx_ssl_check_host, ngx_ssl_client_session_cache, ngx_ssl_create,
    ngx_ssl_get_session, ngx_ssl_set_session, ngx_ssl_t, ngx_str_t, ngx_uint_t,
};

use super::guard::{ERROR, OK};
use super::process::OneThread;
use crate::gate::{TargetTls, Trust};

/// Certificates between a provider's and one that is trusted; as in `nginx-conf/tollgate_proxy.conf`.
const VERIFY_DEPTH: c_int = 4;
/// Sessions that a worker keeps; the oldest go first.
const MOST_SESSIONS: usize = 512;
/// `SSL_set_min_proto_version` is a macro over `SSL_ctrl` with these.
const SET_MIN_PROTO_VERSION: c_int = 123;
const TLS_1_3: c_long = 0x0304;
const X509_V_OK: c_long = 0;

/// An SSL context of our own: it trusts the certificates that it was made with, and nobody else.
pub(crate) struct ClientContext(Box<ngx_ssl_t>);

impl ClientContext {
    /// A context that trusts the certificates in `pem`. Without any, or if OpenSSL makes none, no handshake succeeds.
    pub fn new(pem: &[u8]) -> ClientContext {
        // SAFETY: a C struct of integers and pointers, which ngx_ssl_create fills; the log is the cycle's, which outlives
        // the worker. The box keeps its address for as long as the context, which points back to it.
        unsafe {
            let mut context = ClientContext(Box::new(std::mem::zeroed()));
            let ssl = &raw mut *context.0;
            (*ssl).log = (*ngx_cycle).log;
            let protocols = (NGX_SSL_TLSv1_2 | NGX_SSL_TLSv1_3) as ngx_uint_t;
            if ngx_ssl_create(ssl, protocols, null_mut()) == OK {
                SSL_CTX_set_verify_depth((*ssl).ctx, VERIFY_DEPTH);
                context.trust(pem);
                // Its first argument is not looked at.
                ngx_ssl_client_session_cache(null_mut(), ssl, 1);
            }
            context
        }
    }

    fn trust(&mut self, pem: &[u8]) {
        let Ok(length) = c_int::try_from(pem.len()) else {
            return;
        };
        // SAFETY: the BIO reads the slice and is freed before it goes; the store takes its own reference to each
        // certificate.
        unsafe {
            let store = SSL_CTX_get_cert_store(self.0.ctx);
            let bio = BIO_new_mem_buf(pem.as_ptr().cast(), length);
            if bio.is_null() || store.is_null() {
                return;
            }
            loop {
                let certificate = PEM_read_bio_X509(bio, null_mut(), None, null_mut());
                if certificate.is_null() {
                    break;
                }
                X509_STORE_add_cert(store, certificate);
                X509_free(certificate);
            }
            BIO_free(bio);
            // The end of the text is an error to OpenSSL, which nginx would log with the next one.
            ERR_clear_error();
        }
    }

    fn as_ptr(&self) -> *mut ngx_ssl_t {
        (&raw const *self.0).cast_mut()
    }
}

impl Drop for ClientContext {
    fn drop(&mut self) {
        // SAFETY: created by new(); connections that still use the context hold references of their own.
        unsafe {
            if !self.0.ctx.is_null() {
                SSL_CTX_free(self.0.ctx);
            }
        }
    }
}

/// Gives the settings of one attempt those of its provider. `location`: the location's SSL context, null if it has none.
///
/// # Safety
/// `conf` must be the attempt's own copy of the location's settings; the target's texts must outlive the attempt.
pub(super) unsafe fn apply(
    u: &mut ngx_http_upstream_t,
    conf: &mut ngx_http_upstream_conf_t,
    location: *mut ngx_ssl_t,
    tls: &TargetTls<'_>,
) -> Result<(), &'static str> {
    let ssl = match &tls.security.trust {
        Trust::Own(own) => own.as_ptr(),
        Trust::Anyone | Trust::Location => location,
    };
    // SAFETY: the location's context lives as long as its cycle, ours as long as the generation.
    if unsafe { ssl.as_ref().is_none_or(|ssl| ssl.ctx.is_null()) } {
        return Err("its location proxies without TLS; see proxy_pass in tollgate_proxy.conf");
    }
    conf.ssl = ssl;
    conf.ssl_verify = ngx_int_t::from(!matches!(tls.security.trust, Trust::Anyone)) as _;
    conf.ssl_server_name = 1;
    conf.ssl_name = null_mut();
    // That is when nginx calls set_session and save_session.
    conf.ssl_session_reuse = 1;
    u.ssl_name = ngx_str_t {
        len: tls.name.len(),
        data: tls.name.as_ptr().cast_mut(),
    };
    Ok(())
}

struct Sessions(VecDeque<(u64, *mut SSL_SESSION)>);

static SESSIONS: OneThread<RefCell<Sessions>> = OneThread(RefCell::new(Sessions(VecDeque::new())));

impl Sessions {
    fn remove(&mut self, key: u64) {
        if let Some(at) = self.0.iter().position(|(k, _)| *k == key)
            && let Some((_, session)) = self.0.remove(at)
        {
            // SAFETY: the store's own reference.
            unsafe { SSL_SESSION_free(session) };
        }
    }

    fn get(&self, key: u64) -> *mut SSL_SESSION {
        self.0
            .iter()
            .find(|(k, _)| *k == key)
            .map_or(null_mut(), |(_, session)| *session)
    }

    fn put(&mut self, key: u64, session: *mut SSL_SESSION) {
        self.remove(key);
        if self.0.len() >= MOST_SESSIONS
            && let Some((_, oldest)) = self.0.pop_front()
        {
            // SAFETY: as above.
            unsafe { SSL_SESSION_free(oldest) };
        }
        self.0.push_back((key, session));
    }
}

/// Before a handshake: what the connection is to offer and to insist on.
///
/// # Safety
/// `pc` must be a peer whose connection has its TLS state and has not begun the handshake.
pub(super) unsafe fn set_session(pc: *mut ngx_peer_connection_t, key: u64, only_1_3: bool) -> ngx_int_t {
    // SAFETY: the caller's word; OpenSSL takes its own reference to the session.
    unsafe {
        let c = (*pc).connection;
        if only_1_3 && SSL_ctrl((*(*c).ssl).connection, SET_MIN_PROTO_VERSION, TLS_1_3, null_mut()) == 0 {
            return ERROR;
        }
        ngx_ssl_set_session(c, SESSIONS.0.borrow().get(key))
    }
}

/// A session that can be taken up by the next connection of this key.
///
/// # Safety
/// `pc` must be a peer whose connection's handshake has given a session.
pub(super) unsafe fn save_session(pc: *mut ngx_peer_connection_t, key: u64) {
    // SAFETY: the caller's word; the reference that is returned is ours.
    unsafe {
        let session = ngx_ssl_get_session((*pc).connection);
        if !session.is_null() {
            SESSIONS.0.borrow_mut().put(key, session);
        }
    }
}

/// Forgets a session: its handshake was not the provider's.
pub(super) fn forget_session(key: u64) {
    SESSIONS.0.borrow_mut().remove(key);
}

/// Whether the connection's handshake took up a former session.
///
/// # Safety
/// `c` must be a live connection.
pub(super) unsafe fn is_resumed(c: *mut ngx_connection_t) -> bool {
    // SAFETY: the caller's word; a handshaked connection has its SSL.
    unsafe {
        (*c).ssl
            .as_ref()
            .is_some_and(|ssl| ssl.handshaked() == 1 && SSL_session_reused(ssl.connection) == 1)
    }
}

/// What is wrong with the TLS of a failed attempt's connection, if anything is.
///
/// # Safety
/// `c` must be the live connection of `u`'s failed attempt.
pub(super) unsafe fn trouble(u: &mut ngx_http_upstream_t, c: *mut ngx_connection_t) -> Option<String> {
    // SAFETY: the caller's word; OpenSSL's texts are static.
    unsafe {
        let ssl = (*c).ssl.as_ref()?;
        if ssl.handshaked() == 0 {
            return Some("the TLS handshake fails".to_owned());
        }
        if (*u.conf).ssl_verify != 1 {
            return None;
        }
        let result = SSL_get_verify_result(ssl.connection);
        if result != X509_V_OK {
            let text = CStr::from_ptr(X509_verify_cert_error_string(result)).to_string_lossy();
            return Some(format!("its certificate is not trusted: {text}"));
        }
        (ngx_ssl_check_host(c, &raw mut u.ssl_name) != OK).then(|| {
            format!(
                "its certificate is not for {}",
                String::from_utf8_lossy(u.ssl_name.as_bytes())
            )
        })
    }
}
