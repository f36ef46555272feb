//! A request as the gate sees it: safe accessors over nginx's struct.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ngx::ffi::{
    NGX_LOG_CRIT, NGX_LOG_ERR, NGX_LOG_INFO, ngx_buf_t, ngx_chain_t, ngx_connection_t, ngx_hash_key,
    ngx_http_request_t, ngx_list_part_t, ngx_list_push, ngx_pool_t, ngx_read_file, ngx_str_t,
    ngx_table_elt_t, off_t, sockaddr_in, sockaddr_in6,
};

use super::conf::LocConf;
use super::{module, pool};
use crate::gate::Context;

/// nginx's request. Only ever used by reference, for the duration of one entry point.
#[repr(transparent)]
pub(crate) struct Request(ngx_http_request_t);

/// Text in the pool of the request that it is kept with.
#[derive(Clone, Copy)]
pub(crate) struct PoolText(ngx_str_t);

impl PoolText {
    pub const EMPTY: PoolText = PoolText(ngx_str_t {
        len: 0,
        data: std::ptr::null_mut(),
    });

    pub fn bytes(&self) -> &[u8] {
        // SAFETY: made by Request::text and kept in that request's context, which lives in the same pool.
        unsafe { bytes(&self.0) }
    }
}

/// One request header line.
#[derive(Clone, Copy)]
pub(crate) struct Header<'a> {
    /// Name in lower case.
    pub name: &'a [u8],
    pub value: &'a [u8],
    element: *mut ngx_table_elt_t,
}

/// Walks nginx's list of header elements, part by part.
pub(crate) struct Headers<'a> {
    part: *const ngx_list_part_t,
    next: usize,
    request: std::marker::PhantomData<&'a Request>,
}

impl<'a> Iterator for Headers<'a> {
    type Item = Header<'a>;

    fn next(&mut self) -> Option<Header<'a>> {
        // SAFETY: the list belongs to the request that 'a borrows; every part's elts holds nelts elements, and both
        // strings of an element point into memory of the request.
        unsafe {
            loop {
                let part = self.part.as_ref()?;
                if self.next >= part.nelts {
                    self.part = part.next;
                    self.next = 0;
                    continue;
                }
                let element = part.elts.cast::<ngx_table_elt_t>().add(self.next);
                self.next += 1;
                let e = &*element;
                let name: &[u8] = if e.lowcase_key.is_null() || e.key.len == 0 {
                    continue;
                } else {
                    std::slice::from_raw_parts(e.lowcase_key, e.key.len)
                };
                return Some(Header {
                    name,
                    value: bytes(&e.value),
                    element,
                });
            }
        }
    }
}

/// The lines of a list of header elements.
///
/// # Safety
/// `part` must be the first part of a live list that outlives `'a`.
pub(crate) unsafe fn header_lines<'a>(part: *const ngx_list_part_t) -> Headers<'a> {
    Headers {
        part,
        next: 0,
        request: std::marker::PhantomData,
    }
}

/// An nginx string's bytes; nginx leaves `data` null in empty ones.
unsafe fn bytes<'a>(s: &ngx_str_t) -> &'a [u8] {
    if s.len == 0 || s.data.is_null() {
        return &[];
    }
    // SAFETY: a non-empty ngx_str_t points to len bytes; the caller bounds the lifetime.
    unsafe { std::slice::from_raw_parts(s.data, s.len) }
}

impl Request {
    /// # Safety
    /// `r` must be the live request of the entry point that calls, and not be borrowed elsewhere in it.
    pub unsafe fn from_ptr<'a>(r: *mut ngx_http_request_t) -> &'a mut Request {
        // SAFETY: repr(transparent); the caller vouches for the pointer.
        unsafe { &mut *r.cast::<Request>() }
    }

    pub fn raw(&mut self) -> *mut ngx_http_request_t {
        &raw mut self.0
    }

    pub fn is_main(&self) -> bool {
        std::ptr::eq(self.0.main, &self.0)
    }

    pub fn pool(&self) -> *mut ngx_pool_t {
        self.0.pool
    }

    pub fn connection(&self) -> *mut ngx_connection_t {
        self.0.connection
    }

    /// Whether the client's connection has TLS.
    pub fn has_tls(&self) -> bool {
        // SAFETY: the live request's connection.
        unsafe { !(*self.connection()).ssl.is_null() }
    }

    fn loc_conf(&self) -> Option<&LocConf> {
        // SAFETY: loc_conf has a slot per HTTP module, ours was filled by create_loc_conf and lives as long as the cycle,
        // which the request keeps alive.
        unsafe {
            (*self.0.loc_conf.add(module::ctx_index()))
                .cast::<LocConf>()
                .as_ref()
        }
    }

    /// Whether `tollgate on` holds where the request is served.
    pub fn enabled(&self) -> bool {
        self.loc_conf().is_some_and(|c| c.enabled == 1)
    }

    /// Whether the request is a health check: `tollgate_health on` holds where it is served.
    pub fn is_health_check(&self) -> bool {
        self.loc_conf().is_some_and(|c| c.health == 1)
    }

    pub fn method(&self) -> &[u8] {
        // SAFETY: nginx's parser set it; the text lives as long as the request.
        unsafe { bytes(&self.0.method_name) }
    }

    pub fn is_head(&self) -> bool {
        self.method() == b"HEAD"
    }

    /// The normalised path, without arguments.
    pub fn path(&self) -> &[u8] {
        // SAFETY: as above.
        unsafe { bytes(&self.0.uri) }
    }

    /// Another path for the upstream; the request line in the logs stays the client's.
    pub fn set_path(&mut self, path: &[u8]) -> Option<()> {
        self.0.uri = pool::string(self.0.pool, path)?;
        self.0.set_valid_unparsed_uri(0);
        Some(())
    }

    /// Other arguments for the upstream.
    pub fn set_args(&mut self, args: &[u8]) -> Option<()> {
        self.0.args = pool::string(self.0.pool, args)?;
        self.0.set_valid_unparsed_uri(0);
        Some(())
    }

    /// Another path and other arguments, percent-encoded as they are to go out.
    pub fn set_target(&mut self, target: &[u8]) -> Option<()> {
        let mut parts = target.splitn(2, |b| *b == b'?');
        self.set_path(parts.next()?)?;
        self.set_args(parts.next().unwrap_or_default())?;
        self.set_quoted(false);
        Some(())
    }

    /// Whether the client's path had percent-encoding, so that the proxy module encodes it again.
    pub fn is_quoted(&self) -> bool {
        self.0.quoted_uri() == 1
    }

    pub fn set_quoted(&mut self, quoted: bool) {
        self.0.set_quoted_uri(u32::from(quoted));
    }

    pub fn args(&self) -> &[u8] {
        // SAFETY: as above.
        unsafe { bytes(&self.0.args) }
    }

    pub fn headers(&self) -> Headers<'_> {
        // SAFETY: the list belongs to the request that is borrowed.
        unsafe { header_lines(&raw const self.0.headers_in.headers.part) }
    }

    pub fn header(&self, name: &[u8]) -> Option<&[u8]> {
        self.headers().find(|h| h.name == name).map(|h| h.value)
    }

    /// Address of the peer, as realip may have corrected it.
    pub fn client_ip(&self) -> Option<IpAddr> {
        const AF_INET: u16 = 2;
        const AF_INET6: u16 = 10;
        // SAFETY: a connection's sockaddr is long enough for the family that it names.
        unsafe {
            let address = (*self.0.connection).sockaddr;
            match address.as_ref()?.sa_family {
                AF_INET => {
                    let v4 = &*address.cast::<sockaddr_in>();
                    Some(IpAddr::V4(Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr))))
                }
                AF_INET6 => {
                    let v6 = &*address.cast::<sockaddr_in6>();
                    let octets: [u8; 16] = std::ptr::read((&raw const v6.sin6_addr).cast());
                    Some(IpAddr::V6(Ipv6Addr::from(octets)).to_canonical())
                }
                _ => None,
            }
        }
    }

    /// Keeps header lines from the upstream: they take the name of one that the proxy module always drops. Nothing
    /// moves, so pointers that nginx holds to the elements stay good.
    pub fn hide_headers(&mut self, private: impl Fn(&[u8]) -> bool) {
        const DROPPED: &[u8] = b"keep-alive";
        // SAFETY: a hash of constant bytes.
        let hash = unsafe { ngx_hash_key(DROPPED.as_ptr().cast_mut(), DROPPED.len()) };
        for header in self.headers() {
            if !private(header.name) {
                continue;
            }
            // SAFETY: the element belongs to this request, and &mut self keeps others from it; the new name is static
            // and never written to by nginx.
            unsafe {
                let element = header.element;
                (*element).key = ngx_str_t {
                    len: DROPPED.len(),
                    data: DROPPED.as_ptr().cast_mut(),
                };
                (*element).lowcase_key = DROPPED.as_ptr().cast_mut();
                (*element).hash = hash;
                (*element).value = ngx_str_t {
                    len: 0,
                    data: DROPPED.as_ptr().cast_mut(),
                };
            }
        }
    }

    /// Adds a line to the answer's header.
    pub fn add_response_header(&mut self, name: &'static [u8], value: &[u8]) -> Option<()> {
        let key = ngx_str_t {
            len: name.len(),
            data: name.as_ptr().cast_mut(),
        };
        self.push_response_header(key, value)
    }

    /// Adds a line whose name is known at run time only.
    pub fn add_named_response_header(&mut self, name: &[u8], value: &[u8]) -> Option<()> {
        let key = pool::string(self.0.pool, name)?;
        self.push_response_header(key, value)
    }

    fn push_response_header(&mut self, key: ngx_str_t, value: &[u8]) -> Option<()> {
        let value = pool::string(self.0.pool, value)?;
        // SAFETY: the list is the request's own; a pushed element is zeroed before it is filled, since 1.28 has a
        // `next` pointer that must be null.
        unsafe {
            let element = ngx_list_push(&raw mut self.0.headers_out.headers)
                .cast::<ngx_table_elt_t>()
                .as_mut()?;
            *element = std::mem::zeroed();
            element.hash = 1;
            element.key = key;
            element.value = value;
        }
        Some(())
    }

    /// The body that has been read, if it is in memory in one piece. It stays there as long as the request is not changed.
    pub fn body_in_place(&self) -> Option<&[u8]> {
        // SAFETY: request_body and its chain belong to the request; a buffer in memory holds pos..last.
        unsafe {
            let Some(first) = self.0.request_body.as_ref().and_then(|body| body.bufs.as_ref()) else {
                return Some(&[]);
            };
            (first.next.is_null() && (*first.buf).in_file() == 0).then(|| memory(&*first.buf))
        }
    }

    /// Bytes of the body that has been read, wherever they are.
    pub fn body_len(&self) -> u64 {
        let mut len = 0;
        // SAFETY: as above; a buffer in a file holds file_pos..file_last.
        unsafe {
            let mut link: *const ngx_chain_t = match self.0.request_body.as_ref() {
                Some(body) => body.bufs,
                None => std::ptr::null(),
            };
            while let Some(chain) = link.as_ref() {
                let buf = &*chain.buf;
                len += if buf.in_file() == 1 {
                    u64::try_from(buf.file_last - buf.file_pos).unwrap_or(0)
                } else {
                    memory(buf).len() as u64
                };
                link = chain.next;
            }
        }
        len
    }

    /// The body's temporary file, if it is in one, stays open until the request ends: it may have to be counted then.
    pub fn preserve_body(&mut self) {
        self.0.set_preserve_body(1);
    }

    /// The body that has been read, in one piece: in place when it is in one buffer, else copied into `scratch`.
    /// `Err` when a temporary file cannot be read.
    pub fn body<'a>(&'a self, scratch: &'a mut Vec<u8>) -> Result<&'a [u8], ()> {
        scratch.clear();
        // SAFETY: request_body and its chain belong to the request; buffers in memory hold pos..last, those in a file
        // hold file_pos..file_last of an open file.
        unsafe {
            let Some(body) = self.0.request_body.as_ref() else {
                return Ok(&[]);
            };
            let Some(first) = body.bufs.as_ref() else {
                return Ok(&[]);
            };
            if first.next.is_null() && (*first.buf).in_file() == 0 {
                return Ok(memory(&*first.buf));
            }
            let mut link: *const ngx_chain_t = first;
            while let Some(chain) = link.as_ref() {
                let buf = &*chain.buf;
                if buf.in_file() == 1 {
                    let len = usize::try_from(buf.file_last - buf.file_pos).map_err(|_| ())?;
                    let start = scratch.len();
                    scratch.resize(start + len, 0);
                    let to = scratch.get_mut(start..).ok_or(())?;
                    let read = ngx_read_file(buf.file, to.as_mut_ptr(), len, buf.file_pos);
                    if usize::try_from(read) != Ok(len) {
                        return Err(());
                    }
                } else {
                    scratch.extend_from_slice(memory(buf));
                }
                link = chain.next;
            }
        }
        Ok(scratch)
    }

    /// The body for as long as the request lives: where it is when it is in one buffer, else a copy in its pool.
    pub fn body_text(&self) -> Option<PoolText> {
        let mut scratch = Vec::new();
        let bytes = self.body(&mut scratch).ok()?;
        let (data, len) = (bytes.as_ptr(), bytes.len());
        if scratch.is_empty() {
            return Some(PoolText(ngx_str_t {
                len,
                data: data.cast_mut(),
            }));
        }
        self.text(scratch.len(), |write| write(&scratch))
    }

    /// The body with some of its bytes changed: `fill` gives its pieces in order, and those that are a part of it stay where
    /// they are. `None` if it is not in one buffer in memory, or there is no memory.
    pub fn spliced(&self, fill: impl FnOnce(&[u8], &mut dyn FnMut(&[u8]))) -> Option<Spliced> {
        let body = self.body_in_place()?;
        let bounds = body.as_ptr_range();
        let mut made = Some(Spliced {
            first: std::ptr::null_mut(),
            len: 0,
        });
        let mut last: *mut ngx_chain_t = std::ptr::null_mut();
        fill(body, &mut |piece| {
            let Some(spliced) = made.as_mut() else { return };
            let range = piece.as_ptr_range();
            let own = bounds.start <= range.start && range.end <= bounds.end;
            let text = if own {
                Some(PoolText(ngx_str_t {
                    len: piece.len(),
                    data: range.start.cast_mut(),
                }))
            } else {
                self.text(piece.len(), |write| write(piece))
            };
            let Some(link) = text.and_then(|text| self.body_chain(&text)) else {
                made = None;
                return;
            };
            spliced.len += piece.len();
            // SAFETY: the links are fresh, of the request's pool, and nobody else knows them yet; each has its buffer.
            unsafe {
                match last.as_mut() {
                    Some(former) => {
                        former.next = link;
                        (*former.buf).set_last_buf(0);
                    }
                    None => spliced.first = link,
                }
            }
            last = link;
        });
        made.filter(|spliced| !spliced.first.is_null())
    }

    /// Replaces the body by what [`Request::spliced`] made of it.
    pub fn install_spliced(&mut self, new: Spliced) -> Option<()> {
        self.install_chain(new.first, new.len)
    }

    /// Replaces the body by `bytes`, for the proxy module and for everyone else who looks at its length.
    pub fn replace_body(&mut self, bytes: &[u8]) -> Option<()> {
        let body = self.text(bytes.len(), |piece| piece(bytes))?;
        self.install_body(&body)
    }

    /// As [`Request::replace_body`], with what [`Request::text`] made.
    pub fn install_body(&mut self, new: &PoolText) -> Option<()> {
        let chain = self.body_chain(new)?;
        self.install_chain(chain, new.0.len)
    }

    fn install_chain(&mut self, chain: *mut ngx_chain_t, len: usize) -> Option<()> {
        let length = len as off_t;
        let mut digits = [0u8; 20];
        let text = pool::string(self.0.pool, decimal(len as u64, &mut digits))?;
        // A Transfer-Encoding line stays as it is: the proxy module drops it by its name and hash, and would pass on one
        // whose hash has been cleared, beside the new Content-Length.
        // SAFETY: all of these are fields of the live request; the temporary file's own cleanup still closes it.
        unsafe {
            let body = self.0.request_body.as_mut()?;
            body.bufs = chain;
            body.buf = std::ptr::null_mut();
            body.temp_file = std::ptr::null_mut();
            let headers = &mut self.0.headers_in;
            headers.content_length_n = length;
            headers.set_chunked(0);
            if let Some(element) = headers.content_length.as_mut() {
                element.value = text;
            }
        }
        Some(())
    }

    /// `len` bytes in the request's pool, filled piece by piece; what does not fit is dropped.
    pub fn text(&self, len: usize, fill: impl FnOnce(&mut dyn FnMut(&[u8]))) -> Option<PoolText> {
        let data = pool::allocate(self.0.pool, len)?;
        let mut at = 0;
        fill(&mut |piece| {
            let fits = piece.get(..piece.len().min(len - at)).unwrap_or_default();
            // SAFETY: data has len bytes, of which the first `at` are filled, and the piece fits behind them.
            unsafe { std::ptr::copy_nonoverlapping(fits.as_ptr(), data.add(at), fits.len()) };
            at += fits.len();
        });
        Some(PoolText(ngx_str_t { len: at, data }))
    }

    /// A chain of one buffer. `start == pos`: a retry rewinds to `start`.
    fn body_chain(&self, PoolText(text): &PoolText) -> Option<*mut ngx_chain_t> {
        let buf = pool::zeroed::<ngx_buf_t>(self.0.pool)?;
        let link = pool::zeroed::<ngx_chain_t>(self.0.pool)?;
        // SAFETY: end is one past the fresh allocation.
        let end = unsafe { text.data.add(text.len) };
        buf.start = text.data;
        buf.pos = text.data;
        buf.last = end;
        buf.end = end;
        buf.set_temporary(1);
        buf.set_last_buf(1);
        link.buf = buf;
        Some(link)
    }

    /// This module's context. A cleared one (internal redirect) is found again through the pool.
    pub fn context<'c>(&mut self) -> Option<&'c mut Context> {
        // SAFETY: the slot holds null or what set_context stored: a Context in the request's own pool. One entry
        // point runs at a time and calls this once, so the reference is unique while it lasts.
        unsafe {
            let slot = self.0.ctx.add(module::ctx_index());
            if (*slot).is_null() && (self.0.internal() == 1 || self.0.filter_finalize() == 1) {
                *slot = pool::find::<Context>(self.0.pool).cast();
            }
            (*slot).cast::<Context>().as_mut()
        }
    }

    /// Moves the context into the request's pool.
    pub fn set_context<'c>(&mut self, context: Context) -> Option<&'c mut Context> {
        let placed = pool::place(self.0.pool, context)?;
        // SAFETY: ctx has a slot per HTTP module; see context().
        unsafe {
            *self.0.ctx.add(module::ctx_index()) = placed.cast();
            Some(&mut *placed)
        }
    }

    /// From the first attempt on, nginx's own lines about upstreams are kept out of the log, one or more for each failed
    /// attempt: the gate says what there is to say, once ([`gate::attempt_ended`](crate::gate)). Whoever wants all of
    /// them sets `error_log` to `info`.
    pub fn hush(&mut self, context: &mut Context) {
        // SAFETY: the connection and its log, which is its own, outlive the request.
        unsafe {
            let Some(log) = (*self.0.connection).log.as_mut() else {
                return;
            };
            if context.log_level == 0 && (NGX_LOG_ERR..NGX_LOG_INFO).contains(&(log.log_level as u32)) {
                context.log_level = log.log_level as u8;
                log.log_level = NGX_LOG_CRIT as _;
            }
        }
    }

    /// The connection's log is as it was.
    pub fn speak(&mut self, context: &mut Context) {
        let level = std::mem::take(&mut context.log_level);
        if level > 0 {
            // SAFETY: as above.
            unsafe {
                if let Some(log) = (*self.0.connection).log.as_mut() {
                    log.log_level = level.into();
                }
            }
        }
    }

    /// HTTP status that was sent; 0 before.
    pub fn response_status(&self) -> u16 {
        let status = if self.0.err_status != 0 {
            self.0.err_status
        } else {
            self.0.headers_out.status
        };
        u16::try_from(status).unwrap_or(0)
    }

    /// Whether the client's connection has failed or was closed by it.
    pub fn client_is_gone(&self) -> bool {
        // SAFETY: the connection outlives the request.
        unsafe { (*self.0.connection).error() == 1 }
    }
}

/// A body made of pieces of the one that the client has sent, and of new ones between them.
pub(crate) struct Spliced {
    first: *mut ngx_chain_t,
    len: usize,
}

unsafe fn memory<'a>(buf: &ngx_buf_t) -> &'a [u8] {
    // SAFETY: a buffer in memory holds pos..last.
    unsafe {
        let len = usize::try_from(buf.last.offset_from(buf.pos)).unwrap_or(0);
        if len == 0 || buf.pos.is_null() {
            &[]
        } else {
            std::slice::from_raw_parts(buf.pos, len)
        }
    }
}

/// Formats a number without allocating.
pub(crate) fn decimal(mut n: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        if let Some(digit) = digits.get_mut(at) {
            *digit = b'0' + (n % 10) as u8;
        }
        n /= 10;
        if n == 0 {
            break;
        }
    }
    digits.get(at..).unwrap_or_default()
}

const _: () = assert!(size_of::<Request>() == size_of::<ngx_http_request_t>());
