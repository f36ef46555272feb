//! Nothing unwinds into nginx: every entry point runs inside one of these.

use std::panic::{AssertUnwindSafe, catch_unwind};

use ngx::ffi::{ngx_conf_t, ngx_int_t};

use super::process;

/// Runs an entry point; a panic is logged, counted and answered with `on_panic`.
pub(crate) fn guarded<T>(entry: &'static str, on_panic: T, run: impl FnOnce() -> T) -> T {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(value) => value,
        Err(payload) => {
            let text = payload
                .downcast_ref::<&str>()
                .copied()
                .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
                .unwrap_or("no message");
            process::count_panic();
            super::log::alert(format_args!("tollgate: panic in {entry}: {text}"));
            on_panic
        }
    }
}

/// The answer of a configuration handler: null is success, `NGX_CONF_ERROR` is -1.
pub(crate) const CONF_OK: *mut std::ffi::c_char = std::ptr::null_mut();
pub(crate) const CONF_ERROR: *mut std::ffi::c_char = usize::MAX as *mut std::ffi::c_char;

pub(crate) const OK: ngx_int_t = 0;
pub(crate) const ERROR: ngx_int_t = -1;
pub(crate) const AGAIN: ngx_int_t = -2;
pub(crate) const BUSY: ngx_int_t = -3;
pub(crate) const DONE: ngx_int_t = -4;
pub(crate) const DECLINED: ngx_int_t = -5;

/// A configuration entry point.
pub(crate) fn conf_guarded(
    entry: &'static str,
    cf: *mut ngx_conf_t,
    run: impl FnOnce() -> Result<(), String>,
) -> *mut std::ffi::c_char {
    match guarded(entry, Err("the module panicked".to_owned()), run) {
        Ok(()) => CONF_OK,
        Err(message) => {
            super::log::conf_error(cf, &message);
            CONF_ERROR
        }
    }
}
