//! The requests that this worker has let through, so that they can be ended from outside of their own events.
//!
//! Nothing is written to a client from here: a request is marked, its upstream's read event is posted, and nginx ends it by
//! its own ways, through our filters.

use std::cell::RefCell;
use std::num::NonZeroU32;

use ngx::ffi::{ngx_http_request_t, ngx_post_event, ngx_posted_events};

use super::process::{self, OneThread};
use super::request::Request;
use crate::gate::{self, Mode};

/// A request's place on the list. Dropped at settlement, or with the context, which lies in the request's pool.
pub(crate) struct Place(NonZeroU32);

impl Place {
    /// Position on the list.
    fn index(&self) -> usize {
        self.0.get() as usize - 1
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Nothing that can end a request runs while the list is borrowed.
        let mut list = LIST.0.borrow_mut();
        if let Some(place) = list.requests.get_mut(self.index()) {
            *place = std::ptr::null_mut();
            list.free.push(self.0);
        }
    }
}

struct List {
    requests: Vec<*mut ngx_http_request_t>,
    /// Places in it that hold nobody.
    free: Vec<NonZeroU32>,
}

static LIST: OneThread<RefCell<List>> = OneThread(RefCell::new(List {
    requests: Vec::new(),
    free: Vec::new(),
}));

/// Puts a request that has been let through on the list.
pub(super) fn enter(request: &mut Request) {
    let r = request.raw();
    let place = {
        let mut list = LIST.0.borrow_mut();
        let next = u32::try_from(list.requests.len() + 1).ok();
        let number = list.free.pop().or_else(|| NonZeroU32::new(next?));
        let Some(place) = number.map(Place) else { return };
        match list.requests.get_mut(place.index()) {
            Some(free) => *free = r,
            None => list.requests.push(r),
        }
        place
    };
    if let Some(context) = request.context() {
        context.running = Some(place);
    }
}

/// Ends the requests that the configuration wants to end.
pub(super) fn end_ordered() {
    if !process::with_worker(|w| w.has_order_to_end()) {
        return;
    }
    // Posting an event ends no request yet, so the list stays what it is meanwhile.
    let requests: Vec<_> = LIST.0.borrow().requests.clone();
    for r in requests.into_iter().filter(|r| !r.is_null()) {
        // SAFETY: a request leaves the list before its memory goes: its context, which holds the place, is in its pool.
        let request = unsafe { Request::from_ptr(r) };
        if let Some(context) = request.context()
            && !context.stopped
            && !context.ended
            && process::with_worker(|w| gate::is_to_end(w, context))
        {
            // SAFETY: the request is live.
            context.stopped = unsafe { end(r, context.output.mode) };
        }
    }
}

/// Has nginx end a request. False if that is left to itself: an answer whose head is gone, or is held, and whose body
/// comes in one go.
unsafe fn end(r: *mut ngx_http_request_t, mode: Option<Mode>) -> bool {
    // SAFETY: the live request, its upstream if it has one already, and that one's connection if there is one.
    unsafe {
        let Some(u) = (*r).upstream.as_mut() else {
            // It waits for its turn; the balancer refuses it.
            return true;
        };
        let read = match u.peer.connection.as_ref() {
            Some(connection) => connection.read,
            None => return u.header_sent() == 0,
        };
        match mode {
            // As if the upstream had finished: the filter writes the end before it.
            Some(Mode::Sse) => {
                u.length = 0;
                u.set_keepalive(0);
            }
            // As if it were too late, and nothing else were left to try.
            _ if u.upgrade() == 1 => (*read).set_timedout(1),
            None => {
                u.peer.tries = 1;
                (*read).set_timedout(1);
            }
            Some(_) => return false,
        }
        ngx_post_event(read, &raw mut ngx_posted_events);
    }
    true
}
