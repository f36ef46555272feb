//! Response filters: upstream bytes as they come, before gzip and before chunking.
//!
//! An event stream passes as the chain that nginx built, unless an event is incomplete, has to be taken out or ends the
//! stream. Then our own buffers point into nginx's memory, and nginx's buffers count as read only once ours are sent:
//! otherwise nginx would read over bytes that are still queued, or a slow client would make us hold everything.

use std::ptr::null_mut;

use ngx::ffi::{
    ngx_buf_t, ngx_chain_t, ngx_http_output_body_filter_pt, ngx_http_output_header_filter_pt,
    ngx_http_request_t, ngx_http_top_body_filter, ngx_http_top_header_filter, ngx_int_t, ngx_uint_t,
};

use super::guard::{DONE, ERROR, OK, guarded};
use super::request::Request;
use super::{balancer, pool, process};
use crate::gate::{self, Context, Mode, Piece, Plan, Stage};

const BAD_GATEWAY: ngx_int_t = 502;
const UNAVAILABLE: ngx_uint_t = 503;
const HTTP_0_9: ngx_uint_t = 9;

static mut NEXT_HEADER: ngx_http_output_header_filter_pt = None;
static mut NEXT_BODY: ngx_http_output_body_filter_pt = None;

/// Puts the filters in front of those that stand so far.
pub(crate) fn install() {
    // SAFETY: called from postconfiguration, in the master, where nothing else runs.
    unsafe {
        NEXT_HEADER = ngx_http_top_header_filter;
        ngx_http_top_header_filter = Some(header);
        NEXT_BODY = ngx_http_top_body_filter;
        ngx_http_top_body_filter = Some(body);
    }
}

fn next_header(r: *mut ngx_http_request_t) -> ngx_int_t {
    // SAFETY: written before any request exists.
    unsafe { NEXT_HEADER.map_or(ERROR, |next| next(r)) }
}

fn next_body(r: *mut ngx_http_request_t, chain: *mut ngx_chain_t) -> ngx_int_t {
    // SAFETY: as above.
    unsafe { NEXT_BODY.map_or(ERROR, |next| next(r, chain)) }
}

/// What the body filter holds between its calls.
#[derive(Default)]
pub(crate) struct Output {
    pub mode: Option<Mode>,
    /// nginx's buffers that count as unread until ours are sent.
    held: Vec<*mut ngx_buf_t>,
    /// Our links that are on their way.
    busy: Vec<*mut ngx_chain_t>,
    /// Links for reuse: pools never shrink.
    free: Vec<*mut ngx_chain_t>,
    /// Bytes that busy links of our own point to.
    owned: Vec<Vec<u8>>,
    plan: Plan,
    replacement: Option<Vec<u8>>,
    /// Whether the client was told that its connection stays.
    keepalive: bool,
}

unsafe extern "C" fn header(r: *mut ngx_http_request_t) -> ngx_int_t {
    let verdict = guarded("header filter", OK, || {
        // SAFETY: nginx passes the live request.
        let request = unsafe { Request::from_ptr(r) };
        if !request.is_main() {
            return OK;
        }
        let Some(context) = request.context() else {
            return OK;
        };
        if let Some((name, value)) = context.group_header() {
            request.add_named_response_header(name.as_bytes(), value.as_bytes());
        }
        if let Some(policy) = context.degraded {
            request.add_response_header(b"x-tollgate-degraded", policy.name().as_bytes());
        }
        // SAFETY: the live request.
        let failed = u16::try_from(unsafe { (*r).err_status }).unwrap_or(0);
        if failed >= 400 {
            replace_page(request, context, failed);
            return OK;
        }
        if context.stage != Stage::Admitted {
            return OK;
        }
        if is_not_http(r) {
            // nginx would take it for HTTP/0.9 and pass it on without a head; its error page needs one again.
            // SAFETY: the live request, whose request line said which version the client speaks.
            unsafe { (*r).http_version = ((*r).http_major() * 1_000 + (*r).http_minor()) as ngx_uint_t };
            return BAD_GATEWAY;
        }
        request.add_response_header(b"x-request-id", &context.request_id);
        // SAFETY: the upstream, if any, belongs to the live request; buffering is read by nginx after this returns.
        unsafe {
            let Some(u) = (*r).upstream.as_mut() else {
                return OK;
            };
            let out = &mut (*r).headers_out;
            let encoded = !out.content_encoding.is_null() && (*out.content_encoding).value.len > 0;
            let kind = out.content_type.as_bytes();
            let status = u16::try_from(u.headers_in.status_n).unwrap_or(0);
            let mode = gate::response_started(context, status, kind, encoded, process::now_ms());
            context.output.mode = Some(mode);
            let tls = request.has_tls();
            if let Some(cookie) = process::with_worker(|w| gate::session_cookie(w, context, status, tls)) {
                request.add_response_header(b"Set-Cookie", cookie.as_bytes());
            }
            if let Some([_, _, idle]) = context.timeouts_ms() {
                balancer::answer_has_begun(request, u, idle);
            }
            match mode {
                Mode::Pass | Mode::Replace => {}
                Mode::Json => (*r).set_filter_need_in_memory(1),
                Mode::Whole => {
                    context.output.keepalive = (*r).keepalive() == 1;
                    u.set_buffering(0);
                    (*r).set_filter_need_in_memory(1);
                    // The head follows when the answer is complete.
                    return DONE;
                }
                Mode::Sse => {
                    context.output.keepalive = (*r).keepalive() == 1;
                    u.set_buffering(0);
                    if gate::wants_array(context) {
                        announce_kind(request);
                    }
                    // Its length may change: an event taken out, an early end.
                    out.content_length_n = -1;
                    if let Some(length) = out.content_length.as_mut() {
                        length.hash = 0;
                        out.content_length = null_mut();
                    }
                }
            }
        }
        OK
    });
    match verdict {
        OK => next_header(r),
        DONE => OK,
        verdict => verdict,
    }
}

/// Whether the upstream's answer has no status line.
fn is_not_http(r: *mut ngx_http_request_t) -> bool {
    // SAFETY: the live request and its upstream, if it has one.
    unsafe {
        (*r).http_version == HTTP_0_9
            && (*r).http_major() > 0
            && (*r).upstream.as_ref().is_some_and(|u| u.headers_in.status_n == 0)
    }
}

/// The head of nginx's own error page becomes that of the gateway's error.
fn replace_page(request: &mut Request, context: &mut Context, status: u16) {
    if context.stopped {
        // nginx takes it for a time-out, or for want of a peer.
        // SAFETY: the live request, whose head is about to be written.
        unsafe {
            let r = request.raw();
            (*r).err_status = UNAVAILABLE;
            (*r).headers_out.status = UNAVAILABLE;
        }
    }
    let body = gate::failure(context, status).into_bytes();
    request.add_response_header(b"x-request-id", &context.request_id);
    announce_json(request, body.len());
    context.output.mode = Some(Mode::Replace);
    context.output.replacement = Some(body);
}

/// The head speaks of JSON.
fn announce_kind(request: &mut Request) {
    const JSON: &[u8] = b"application/json";
    // SAFETY: the header is about to be sent and belongs to the live request.
    unsafe {
        let out = &mut (*request.raw()).headers_out;
        out.content_type = ngx::ffi::ngx_str_t {
            len: JSON.len(),
            data: JSON.as_ptr().cast_mut(),
        };
        out.content_type_len = JSON.len();
        out.content_type_lowcase = null_mut();
    }
}

/// The head speaks of a JSON body of our own.
fn announce_json(request: &mut Request, length: usize) {
    announce_kind(request);
    // SAFETY: as above.
    unsafe {
        let out = &mut (*request.raw()).headers_out;
        out.content_length_n = length as _;
        if let Some(length) = out.content_length.as_mut() {
            length.hash = 0;
            out.content_length = null_mut();
        }
    }
}

/// An answer that is translated as a whole: nothing leaves, not even the head, before it is complete.
fn whole(request: &mut Request, context: &mut Context, chain: *mut ngx_chain_t) -> ngx_int_t {
    let r = request.raw();
    let (mut last, mut broken, mut fits) = (false, false, true);
    for buf in bufs(chain) {
        broken |= is_special(buf) && is_break(r, buf, context);
        fits &= process::with_worker(|w| gate::keep_whole(w, context, memory(buf)));
        last |= buf.last_buf() == 1;
        buf.pos = buf.last;
    }
    if !fits {
        stop_upstream(r);
    }
    if !last && !broken && fits {
        return OK;
    }
    let (status, body) = gate::whole_answer(context, broken);
    context.ended |= last;
    // Whatever else may come is dropped.
    context.output.mode = Some(Mode::Replace);
    announce_json(request, body.len());
    // SAFETY: as in announce_json; a cleared hash keeps a line from being sent.
    unsafe {
        let out = &mut (*r).headers_out;
        out.status = ngx_uint_t::from(status);
        out.status_line = ngx::ffi::ngx_str_t {
            len: 0,
            data: null_mut(),
        };
        if let Some(encoding) = out.content_encoding.as_mut() {
            encoding.hash = 0;
            out.content_encoding = null_mut();
        }
        // nginx means to close the client's connection, as for a broken answer; but this one is whole.
        if broken && context.output.keepalive {
            (*r).set_keepalive(1);
        }
    }
    // Past the header filter nginx takes no status of a filter any more.
    let rc = next_header(r);
    if rc == ERROR || rc > OK {
        return ERROR;
    }
    context.output.replacement = Some(body);
    replace_body(request, context, null_mut())
}

/// nginx's page is dropped, ours is sent once.
fn replace_body(request: &mut Request, context: &mut Context, chain: *mut ngx_chain_t) -> ngx_int_t {
    let r = request.raw();
    for buf in bufs(chain) {
        buf.pos = buf.last;
    }
    let Some(body) = context.output.replacement.take() else {
        return next_body(r, null_mut());
    };
    let text = pool::string(request.pool(), &body);
    let buf = pool::zeroed::<ngx_buf_t>(request.pool());
    let link = pool::zeroed::<ngx_chain_t>(request.pool());
    let (Some(text), Some(buf), Some(link)) = (text, buf, link) else {
        return ERROR;
    };
    buf.pos = text.data;
    // SAFETY: one past the fresh allocation.
    buf.last = unsafe { text.data.add(text.len) };
    buf.set_memory(1);
    buf.set_last_buf(1);
    buf.set_last_in_chain(1);
    link.buf = buf;
    next_body(r, link)
}

unsafe extern "C" fn body(r: *mut ngx_http_request_t, chain: *mut ngx_chain_t) -> ngx_int_t {
    // A panic must not lose bytes: the chain then passes as it is.
    let planned = guarded("body filter", None, || {
        // SAFETY: nginx passes the live request and a chain of its buffers (or null).
        let request = unsafe { Request::from_ptr(r) };
        if !request.is_main() {
            return None;
        }
        let context = request.context()?;
        match context.output.mode? {
            Mode::Pass => {
                if !gate::note_unread(context, bufs(chain).map(|buf| length(buf)).sum()) {
                    stop_upstream(r);
                }
                note_end(context, chain);
                None
            }
            Mode::Json => {
                for buf in bufs(chain) {
                    process::with_worker(|w| gate::watch_json(w, context, memory(buf)));
                }
                note_end(context, chain);
                None
            }
            Mode::Sse => stream(request, context, chain),
            Mode::Whole => Some(whole(request, context, chain)),
            Mode::Replace => Some(replace_body(request, context, chain)),
        }
    });
    match planned {
        None => next_body(r, chain),
        Some(rc) => rc,
    }
}

fn bufs(chain: *mut ngx_chain_t) -> impl Iterator<Item = &'static mut ngx_buf_t> {
    let mut link = chain;
    std::iter::from_fn(move || {
        // SAFETY: a chain that nginx passes is null-terminated and every link has a buffer; both outlive the call.
        unsafe {
            let this = link.as_ref()?;
            link = this.next;
            this.buf.as_mut()
        }
    })
}

fn memory(buf: &ngx_buf_t) -> &'static [u8] {
    if buf.pos.is_null() || buf.temporary() == 0 && buf.memory() == 0 && buf.mmap() == 0 {
        return &[];
    }
    // SAFETY: a buffer in memory holds pos..last; the slice is only used within the filter call that got the buffer.
    unsafe {
        std::slice::from_raw_parts(
            buf.pos,
            usize::try_from(buf.last.offset_from(buf.pos)).unwrap_or(0),
        )
    }
}

/// Bytes of a buffer, wherever they are.
fn length(buf: &ngx_buf_t) -> u64 {
    let bytes = if buf.in_file() == 1 && memory(buf).is_empty() {
        u64::try_from(buf.file_last - buf.file_pos).ok()
    } else {
        u64::try_from(memory(buf).len()).ok()
    };
    bytes.unwrap_or(0)
}

fn note_end(context: &mut Context, chain: *mut ngx_chain_t) {
    if bufs(chain).any(|b| b.last_buf() == 1) {
        context.ended = true;
    }
}

/// An event stream's bytes. `None`: the chain passes as it is.
fn stream(request: &mut Request, context: &mut Context, chain: *mut ngx_chain_t) -> Option<ngx_int_t> {
    let r = request.raw();
    let mut output = std::mem::take(&mut context.output);
    let result = Stream {
        request,
        context,
        output: &mut output,
    }
    .run(r, chain);
    context.output = output;
    result
}

struct Stream<'a> {
    request: &'a mut Request,
    context: &'a mut Context,
    output: &'a mut Output,
}

impl Stream<'_> {
    fn run(&mut self, r: *mut ngx_http_request_t, chain: *mut ngx_chain_t) -> Option<ngx_int_t> {
        if !self.context.ended {
            if gate::is_overdue(self.context, process::now_ms()) {
                self.context.overdue = true;
                return Some(self.give_up(r, chain));
            }
            // Its regular end passes, with the error before it (`rest`).
            if self.context.stopped && !bufs(chain).any(|buf| buf.last_buf() == 1) {
                return Some(self.give_up(r, chain));
            }
        }
        if chain.is_null() && self.output.busy.is_empty() {
            // nginx wants out what stands behind us: a chain that passed as it was and did not fit into the socket.
            return None;
        }
        if self.output.busy.is_empty() && self.output.held.is_empty() && !self.context.cut {
            // One buffer is the rule; it is decided before anything is built.
            let mut all = bufs(chain);
            if let (Some(buf), None) = (all.next(), all.next()) {
                if is_special(buf) {
                    return self.special(r, chain, buf);
                }
                self.plan(memory(buf));
                if self.output.plan.is_identity(memory(buf).len()) && buf.last_buf() == 0 {
                    return None;
                }
                let links = self.build(buf, Vec::new());
                return Some(self.send(r, links));
            }
        }
        let mut links = Vec::new();
        for buf in bufs(chain) {
            if is_special(buf) {
                if buf.last_buf() == 1 {
                    links.extend(self.rest());
                    self.context.ended = true;
                }
                if self.is_break(r, buf)
                    && let Some(link) = self.broken_end()
                {
                    links.push(link);
                    continue;
                }
                let Some(link) = self.link() else {
                    return Some(ERROR);
                };
                // SAFETY: our own link and buffer, fresh or free.
                unsafe {
                    let copy = &mut *(*link).buf;
                    copy.set_last_buf(buf.last_buf());
                    copy.set_last_in_chain(buf.last_in_chain());
                    copy.set_flush(buf.flush());
                    copy.set_sync(buf.sync());
                }
                links.push(link);
                continue;
            }
            self.plan(memory(buf));
            links = self.build(buf, links);
        }
        Some(self.send(r, links))
    }

    /// The total time is over, or the operator has ended it: an error event, and the upstream is let go.
    fn give_up(&mut self, r: *mut ngx_http_request_t, chain: *mut ngx_chain_t) -> ngx_int_t {
        let text = gate::broken_stream(self.context).unwrap_or_default();
        self.context.ended = true;
        self.context.cut = true;
        self.stop_upstream();
        for buf in bufs(chain) {
            self.output.held.push(buf);
        }
        let links = self.own_bytes(text).into_iter().collect();
        self.send(r, links)
    }

    fn plan(&mut self, bytes: &[u8]) {
        let (context, plan) = (&mut *self.context, &mut self.output.plan);
        process::with_worker(|w| gate::watch_sse(w, context, bytes, plan));
    }

    fn is_break(&self, r: *mut ngx_http_request_t, buf: &ngx_buf_t) -> bool {
        is_break(r, buf, self.context)
    }

    fn special(
        &mut self,
        r: *mut ngx_http_request_t,
        chain: *mut ngx_chain_t,
        buf: &mut ngx_buf_t,
    ) -> Option<ngx_int_t> {
        let link = if buf.last_buf() == 1 {
            let rest = self.rest();
            self.context.ended = true;
            let link = rest?;
            // SAFETY: our own link; nginx's chain follows it for this call only.
            unsafe { (*link).next = chain };
            link
        } else if self.is_break(r, buf) {
            self.broken_end()?
        } else {
            return None;
        };
        self.output.busy.push(link);
        let rc = next_body(r, link);
        self.settle_output();
        Some(rc)
    }

    /// What is left of an event at the stream's regular end.
    fn rest(&mut self) -> Option<*mut ngx_chain_t> {
        let context = &mut *self.context;
        let bytes = if context.stopped && !context.ended {
            context.cut = true;
            gate::broken_stream(context)?
        } else {
            process::with_worker(|w| gate::last_event(w, context))?
        };
        self.own_bytes(bytes)
    }

    /// The upstream died: an error event, and the answer's regular end, so that no client library drops the event
    /// together with the connection. nginx means to close that, as for a broken answer, and would linger for seconds
    /// with the request open; but this one is whole.
    fn broken_end(&mut self) -> Option<*mut ngx_chain_t> {
        let text = gate::broken_stream(self.context)?;
        // The translation may have told the client of an error already.
        let link = if text.is_empty() {
            self.link()?
        } else {
            self.own_bytes(text)?
        };
        let r = self.request.raw();
        // SAFETY: our own link; the live request.
        unsafe {
            (*(*link).buf).set_last_buf(1);
            (*(*link).buf).set_last_in_chain(1);
            if self.output.keepalive && (*r).chunked() == 1 {
                (*r).set_keepalive(1);
            }
        }
        Some(link)
    }

    /// Our links for the pieces of one of nginx's buffers.
    fn build(&mut self, buf: &mut ngx_buf_t, mut links: Vec<*mut ngx_chain_t>) -> Vec<*mut ngx_chain_t> {
        let pieces = std::mem::take(&mut self.output.plan.pieces);
        for piece in pieces {
            let link = match piece {
                Piece::Owned(bytes) => self.own_bytes(bytes),
                Piece::Range(range) => self.link().inspect(|link| {
                    // SAFETY: the range lies within pos..last, which was the chunk that was planned.
                    unsafe {
                        let copy = &mut *(**link).buf;
                        copy.start = buf.pos.add(range.start);
                        copy.pos = copy.start;
                        copy.last = buf.pos.add(range.end);
                        copy.end = copy.last;
                        copy.set_memory(1);
                        copy.set_flush(1);
                    }
                }),
            };
            links.extend(link);
        }
        if buf.last_buf() == 1 {
            links.extend(self.rest());
        }
        if buf.last_buf() == 1
            && let Some(link) = self.link()
        {
            // SAFETY: our own link.
            unsafe { (*(*link).buf).set_last_buf(1) };
            self.context.ended = true;
            links.push(link);
        }
        self.output.held.push(buf);
        if self.output.plan.cut {
            self.stop_upstream();
        }
        links
    }

    fn stop_upstream(&mut self) {
        stop_upstream(self.request.raw());
    }

    fn send(&mut self, r: *mut ngx_http_request_t, links: Vec<*mut ngx_chain_t>) -> ngx_int_t {
        for pair in links.windows(2) {
            if let [a, b] = pair {
                // SAFETY: our own links.
                unsafe { (**a).next = *b };
            }
        }
        let first = links.first().copied().unwrap_or(null_mut());
        self.output.busy.extend(links);
        let pending = !self.output.busy.is_empty();
        let rc = if pending { next_body(r, first) } else { OK };
        self.settle_output();
        rc
    }

    /// Takes back links that have been sent; once all are, nginx may reuse its buffers.
    fn settle_output(&mut self) {
        let output = &mut *self.output;
        let sent = |link: &*mut ngx_chain_t| {
            // SAFETY: our own links stay valid for the life of the request.
            unsafe {
                let buf = &*(**link).buf;
                buf.pos == buf.last
            }
        };
        if output.busy.iter().all(sent) {
            output.free.append(&mut output.busy);
            output.owned.clear();
            for buf in output.held.drain(..) {
                // SAFETY: nginx keeps these buffers while they are unread, which they are until now.
                unsafe { (*buf).pos = (*buf).last };
            }
        }
    }

    /// A link with a clean buffer.
    fn link(&mut self) -> Option<*mut ngx_chain_t> {
        let link = match self.output.free.pop() {
            Some(link) => link,
            None => {
                let buf = pool::zeroed::<ngx_buf_t>(self.request.pool())?;
                let link = pool::zeroed::<ngx_chain_t>(self.request.pool())?;
                link.buf = buf;
                &raw mut *link
            }
        };
        // SAFETY: ours alone while free; an all-zero buffer is nginx's own idea of a clean one.
        unsafe {
            (*(*link).buf) = std::mem::zeroed();
            (*(*link).buf).tag = (&raw const super::module::ngx_http_tollgate_module)
                .cast_mut()
                .cast();
            (*link).next = null_mut();
        }
        Some(link)
    }

    /// `None` for no bytes: nginx takes an empty buffer without flags for a bug.
    fn own_bytes(&mut self, mut bytes: Vec<u8>) -> Option<*mut ngx_chain_t> {
        if bytes.is_empty() {
            return None;
        }
        let link = self.link()?;
        // SAFETY: the vector's heap memory does not move when the vector does, and stays until the link is sent.
        unsafe {
            let buf = &mut *(*link).buf;
            buf.start = bytes.as_mut_ptr();
            buf.pos = buf.start;
            buf.last = buf.start.add(bytes.len());
            buf.end = buf.last;
            buf.set_memory(1);
            buf.set_flush(1);
        }
        self.output.owned.push(bytes);
        Some(link)
    }
}

/// A flush without data while the upstream is gone and the end has not been seen: it died in mid-stream.
fn is_break(r: *mut ngx_http_request_t, buf: &ngx_buf_t, context: &Context) -> bool {
    // SAFETY: the live request; its upstream exists in mid-stream.
    let gone = unsafe {
        (*r).upstream
            .as_ref()
            .is_some_and(|u| u.peer.connection.is_null())
    };
    buf.flush() == 1 && buf.last_buf() == 0 && gone && !context.ended
}

/// Nothing more is wanted: nginx ends the request as if the upstream had finished.
fn stop_upstream(r: *mut ngx_http_request_t) {
    // SAFETY: the live request's upstream. Unbuffered, as the header filter chose for streams, nginx goes by its length; buffered,
    // by what its pipe says, which nginx sets to null when it is done with it.
    unsafe {
        if let Some(u) = (*r).upstream.as_mut() {
            u.length = 0;
            u.set_keepalive(0);
            if u.buffering() == 1
                && let Some(pipe) = u.pipe.as_mut()
            {
                pipe.length = 0;
                pipe.set_upstream_done(1);
            }
        }
    }
}

/// A buffer without data that carries a flag.
fn is_special(buf: &ngx_buf_t) -> bool {
    memory(buf).is_empty() && buf.in_file() == 0
}
