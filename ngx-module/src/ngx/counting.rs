//! Turns of the event loop for what is counted in slices.
//!
//! A posted event of ours runs once per turn, after everything else that the turn has brought: `ngx_posted_next_events`
//! makes the next turn look for events without waiting and puts ours behind them. A timer that a graceful exit waits for
//! is armed as long as there is something to count, since nginx does not ask for posted events before it exits.

use std::cell::{RefCell, UnsafeCell};
use std::collections::VecDeque;
use std::mem::MaybeUninit;
use std::time::Instant;

use ngx::ffi::{
    ngx_add_timer, ngx_connection_t, ngx_cycle, ngx_del_timer, ngx_event_t, ngx_http_block_reading,
    ngx_http_core_run_phases, ngx_http_log_ctx_t, ngx_http_request_empty_handler, ngx_http_request_t,
    ngx_http_run_posted_requests, ngx_http_test_reading, ngx_int_t, ngx_post_event, ngx_posted_events,
    ngx_posted_next_events,
};

use super::guard::{AGAIN, ERROR, guarded};
use super::process::{self, NO_CONNECTION, OneThread};
use super::request::Request;
use crate::gate::{self, Stage};

/// The timer that keeps a worker from exiting; it is armed again when it fires.
const HOLD_MS: usize = 60_000;

/// A request's place among those that wait to be counted. Dropped with the request's context, whatever ends the request.
pub(crate) struct Ticket(u64);

impl Drop for Ticket {
    fn drop(&mut self) {
        // Nothing that can end a request runs while the queue is borrowed.
        QUEUE
            .0
            .borrow_mut()
            .waiting
            .retain(|(number, _)| *number != self.0);
    }
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<(u64, *mut ngx_http_request_t)>,
    next: u64,
    /// Whether a finished request had the last turn.
    settled_last: bool,
}

static QUEUE: OneThread<RefCell<Queue>> = OneThread(RefCell::new(Queue {
    waiting: VecDeque::new(),
    next: 1,
    settled_last: false,
}));

struct Events {
    turn: ngx_event_t,
    hold: ngx_event_t,
}

static EVENTS: OneThread<UnsafeCell<MaybeUninit<Events>>> = OneThread(UnsafeCell::new(MaybeUninit::uninit()));

/// A worker starts.
pub(super) fn init() {
    // SAFETY: EVENTS is a static of this process, written here before anything can be posted; both are plain C structs,
    // valid when zeroed.
    unsafe {
        let events = (*EVENTS.0.get()).write(std::mem::zeroed());
        for (event, handler) in [
            (
                &mut events.turn,
                on_turn as unsafe extern "C" fn(*mut ngx_event_t),
            ),
            (&mut events.hold, on_hold),
        ] {
            event.handler = Some(handler);
            event.log = (*ngx_cycle).log;
            event.data = (&raw const NO_CONNECTION).cast_mut().cast();
        }
    }
}

fn events() -> *mut Events {
    EVENTS.0.get().cast()
}

/// There is something to count.
pub(crate) fn wake() {
    // SAFETY: init has run: requests are served only after it.
    unsafe {
        let Events { turn, hold } = &mut *events();
        ngx_post_event(turn, &raw mut ngx_posted_next_events);
        if hold.timer_set() == 0 {
            ngx_add_timer(hold, HOLD_MS as _);
        }
    }
}

unsafe extern "C" fn on_hold(event: *mut ngx_event_t) {
    // SAFETY: the timer is deleted when nothing is left to count, so something is.
    unsafe { ngx_add_timer(event, HOLD_MS as _) };
}

/// Parks a request until it is counted.
pub(super) fn park(request: &mut Request) -> ngx_int_t {
    let r = request.raw();
    // SAFETY: the live request and its connection. As limit_req does: a client that leaves is noticed.
    unsafe {
        let read = (*request.connection()).read;
        if (*read).ready() == 1 {
            ngx_post_event(read, &raw mut ngx_posted_events);
        } else if ngx::ffi::ngx_handle_read_event(read, 0) != 0 {
            return ERROR;
        }
        (*r).read_event_handler = Some(ngx_http_test_reading);
        (*r).write_event_handler = Some(ngx_http_request_empty_handler);
    }
    let number = {
        let mut queue = QUEUE.0.borrow_mut();
        let number = queue.next;
        queue.next += 1;
        queue.waiting.push_back((number, r));
        number
    };
    if let Some(context) = request.context() {
        context.stage = Stage::Counting;
        gate::hold_ticket(context, Ticket(number));
    }
    wake();
    AGAIN
}

unsafe extern "C" fn on_turn(_event: *mut ngx_event_t) {
    guarded("counting", (), turn);
    let left = QUEUE.0.borrow().waiting.len() + process::with_worker(|w| w.unsettled.len());
    if left > 0 {
        return wake();
    }
    // SAFETY: as in wake.
    unsafe {
        let hold = &raw mut (*events()).hold;
        if (*hold).timer_set() == 1 {
            ngx_del_timer(hold);
        }
    }
}

/// Gives one turn's time to those who wait, in turn; ends early once a request goes on, which takes time as well.
fn turn() {
    let unsettled = process::with_worker(|w| w.unsettled.len());
    let waiting = QUEUE.0.borrow().waiting.len();
    let until = Instant::now() + gate::turn(waiting + unsettled);
    loop {
        let (request, settles) = {
            let mut queue = QUEUE.0.borrow_mut();
            let unsettled = process::with_worker(|w| w.unsettled.len()) > 0;
            let settles = unsettled && (!queue.settled_last || queue.waiting.is_empty());
            queue.settled_last = settles;
            let request = if settles { None } else { queue.waiting.pop_front() };
            (request, settles)
        };
        if settles {
            process::with_worker(|w| gate::count_unsettled(w, until));
        } else if let Some((number, r)) = request {
            // SAFETY: a request leaves the queue before its memory goes: its context, which holds the ticket, is in its
            // pool.
            let request = unsafe { Request::from_ptr(r) };
            let done = request.context().is_none_or(|context| {
                process::with_worker(|w| gate::count_request(w, request, context, until))
            });
            if done {
                return resume(r);
            }
            QUEUE.0.borrow_mut().waiting.push_back((number, r));
        } else {
            return;
        }
        if Instant::now() >= until {
            return;
        }
    }
}

fn resume(r: *mut ngx_http_request_t) {
    // SAFETY: the request is live and its phase handler stands at ours. It may be gone after the phases, its connection's
    // memory is not: the order in which nginx's own event handlers do this.
    unsafe {
        if let Some(context) = Request::from_ptr(r).context() {
            context.stage = Stage::Counted;
        }
        let connection: *mut ngx_connection_t = (*r).connection;
        let log_context = (*(*connection).log).data.cast::<ngx_http_log_ctx_t>();
        if let Some(log_context) = log_context.as_mut() {
            log_context.current_request = r;
        }
        (*r).read_event_handler = Some(ngx_http_block_reading);
        (*r).write_event_handler = Some(ngx_http_core_run_phases);
        ngx_http_core_run_phases(r);
        ngx_http_run_posted_requests(connection);
    }
}
