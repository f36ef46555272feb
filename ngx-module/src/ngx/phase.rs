//! The request's way through nginx's phases: decided in PRECONTENT (after auth, limit_req and Lua), settled in LOG.

use ngx::ffi::{
    ngx_add_timer, ngx_http_block_reading, ngx_http_core_run_phases, ngx_http_finalize_request,
    ngx_http_read_client_request_body, ngx_http_request_t, ngx_http_test_reading, ngx_int_t,
};

use super::guard::{AGAIN, DECLINED, DONE, ERROR, guarded};
use super::request::Request;
use super::{counting, process, reply, running};
use crate::gate::{self, Stage, Verdict};

const INTERNAL_SERVER_ERROR: ngx_int_t = 500;
const SPECIAL_RESPONSE: ngx_int_t = 300;
/// How long a request waits that is short of an allowance, before it looks again.
const SHORT_MS: u64 = 2;

pub(crate) unsafe extern "C" fn precontent(r: *mut ngx_http_request_t) -> ngx_int_t {
    guarded("precontent", INTERNAL_SERVER_ERROR, || {
        // SAFETY: nginx passes the live request.
        let request = unsafe { Request::from_ptr(r) };
        if !request.is_main() {
            return DECLINED;
        }
        if request.is_health_check() {
            let reply = process::with_worker(gate::health);
            return reply::send(request, &reply);
        }
        if !request.enabled() {
            return DECLINED;
        }
        if request.context().is_none() {
            let context = match process::with_worker(|w| gate::begin(w, request)) {
                Ok(context) => context,
                Err(reply) => return reply::send(request, &reply),
            };
            let Some(context) = request.set_context(context) else {
                return INTERNAL_SERVER_ERROR;
            };
            if let Some(reply) = context.take_reply() {
                return reply::send(request, &reply);
            }
        }
        step(request)
    })
}

fn step(request: &mut Request) -> ngx_int_t {
    if stage(request) == Stage::Identified
        && let Some(rc) = read_body(request)
    {
        return rc;
    }
    let Some(context) = request.context() else {
        return DECLINED;
    };
    match context.stage {
        Stage::BodyRead | Stage::Counted => match process::with_worker(|w| gate::decide(w, request, context))
        {
            Verdict::Proxy { delay_ms } => {
                running::enter(request);
                if delay_ms == 0 {
                    DECLINED
                } else {
                    delay(request, delay_ms)
                }
            }
            Verdict::Count => counting::park(request),
            Verdict::Wait => delay(request, SHORT_MS),
            Verdict::Reply(answer) => reply::send(request, &answer),
        },
        Stage::Counting => AGAIN,
        Stage::Admitted | Stage::Closed => DECLINED,
        Stage::Waiting | Stage::Reading | Stage::Identified => DONE,
    }
}

fn stage(request: &mut Request) -> Stage {
    request.context().map_or(Stage::Closed, |c| c.stage)
}

fn set_stage(request: &mut Request, stage: Stage) {
    if let Some(context) = request.context() {
        context.stage = stage;
    }
}

/// Asks for the body. `None`: it was there already. No reference to the context may be held meanwhile: `body_arrived`
/// takes its own, within the call or later.
fn read_body(request: &mut Request) -> Option<ngx_int_t> {
    set_stage(request, Stage::Reading);
    let r = request.raw();
    // SAFETY: the live request.
    let rc = unsafe { ngx_http_read_client_request_body(r, Some(body_arrived)) };
    if rc >= SPECIAL_RESPONSE {
        set_stage(request, Stage::Closed);
        return Some(rc);
    }
    if stage(request) == Stage::Reading {
        set_stage(request, Stage::Waiting);
        // SAFETY: gives back the reference that reading holds; the phases resume from body_arrived.
        unsafe { ngx_http_finalize_request(r, DONE) };
        return Some(DONE);
    }
    // The body was there: give the reference back and go on in line.
    // SAFETY: reading has raised the main request's count by one.
    unsafe {
        let main = (*r).main;
        (*main).set_count((*main).count() - 1);
        (*r).write_event_handler = Some(ngx_http_core_run_phases);
    }
    None
}

unsafe extern "C" fn body_arrived(r: *mut ngx_http_request_t) {
    let resume = guarded("body_arrived", false, || {
        // SAFETY: nginx passes the live request.
        let request = unsafe { Request::from_ptr(r) };
        let Some(context) = request.context() else {
            return false;
        };
        let waiting = context.stage == Stage::Waiting;
        context.stage = Stage::BodyRead;
        waiting
    });
    if resume {
        // SAFETY: the request is live and its phase handler stands at ours; nothing touches r after the call.
        unsafe {
            (*r).write_event_handler = Some(ngx_http_core_run_phases);
            ngx_http_core_run_phases(r);
        }
    }
}

/// Waits as limit_req does: its turn in a leaky bucket, or a moment for more of an allowance.
fn delay(request: &mut Request, delay_ms: u64) -> ngx_int_t {
    let r = request.raw();
    // SAFETY: the live request and its connection; the timer is on the connection's own write event, which nginx
    // deletes with the connection.
    unsafe {
        let connection = request.connection();
        if ngx::ffi::ngx_handle_read_event((*connection).read, 0) != 0 {
            return ERROR;
        }
        (*r).read_event_handler = Some(ngx_http_test_reading);
        (*r).write_event_handler = Some(delay_over);
        (*(*connection).write).set_delayed(1);
        ngx_add_timer((*connection).write, delay_ms as _);
    }
    AGAIN
}

unsafe extern "C" fn delay_over(r: *mut ngx_http_request_t) {
    // SAFETY: nginx passes the live request to its write handler.
    unsafe {
        let write = (*(*r).connection).write;
        if (*write).delayed() == 1 {
            if ngx::ffi::ngx_handle_write_event(write, 0) != 0 {
                ngx_http_finalize_request(r, INTERNAL_SERVER_ERROR);
            }
            return;
        }
        (*r).read_event_handler = Some(ngx_http_block_reading);
        (*r).write_event_handler = Some(ngx_http_core_run_phases);
        ngx_http_core_run_phases(r);
    }
}

pub(crate) unsafe extern "C" fn log(r: *mut ngx_http_request_t) -> ngx_int_t {
    guarded("log", ERROR, || {
        // SAFETY: nginx passes the live request.
        let request = unsafe { Request::from_ptr(r) };
        if request.is_main()
            && let Some(context) = request.context()
        {
            request.speak(context);
            process::with_worker(|w| gate::settle(w, Some(request), context));
        }
        0
    })
}
