//! Messages to nginx's error log.

use std::fmt::Arguments;

use ngx::ffi::{
    NGX_LOG_ALERT, NGX_LOG_EMERG, NGX_LOG_ERR, NGX_LOG_WARN, ngx_conf_log_error, ngx_conf_t, ngx_cycle,
    ngx_log_error_core, ngx_log_t, ngx_str_t, ngx_uint_t,
};

/// Longest line that nginx writes, less its own prefix.
const MAX_TEXT: usize = 1_800;

fn write(level: ngx_uint_t, log: *mut ngx_log_t, text: Arguments<'_>) {
    if log.is_null() {
        return;
    }
    let mut text = text.to_string();
    if text.len() > MAX_TEXT {
        let cut = (0..=MAX_TEXT)
            .rev()
            .find(|i| text.is_char_boundary(*i))
            .unwrap_or(0);
        text.truncate(cut);
    }
    let text = ngx_str_t {
        len: text.len(),
        data: text.as_ptr().cast_mut(),
    };
    // SAFETY: log is a live log of this process; %V takes a pointer to an ngx_str_t, which lives until the call
    // returns, and the format string is a constant.
    unsafe {
        if (*log).log_level >= level {
            ngx_log_error_core(level, log, 0, c"%V".as_ptr(), &raw const text);
        }
    }
}

fn cycle_log() -> *mut ngx_log_t {
    // SAFETY: ngx_cycle points to the current cycle (or nginx's initial one) from before any module code runs.
    unsafe {
        if ngx_cycle.is_null() {
            std::ptr::null_mut()
        } else {
            (*ngx_cycle).log
        }
    }
}

/// Something that must never happen.
pub(crate) fn alert(text: Arguments<'_>) {
    write(NGX_LOG_ALERT as ngx_uint_t, cycle_log(), text);
}
/// Something that an operator has to mend.
pub(crate) fn error(text: Arguments<'_>) {
    write(NGX_LOG_ERR as ngx_uint_t, cycle_log(), text);
}
/// Something that an operator should know.
pub(crate) fn warn(text: Arguments<'_>) {
    write(NGX_LOG_WARN as ngx_uint_t, cycle_log(), text);
}
/// A mistake in the configuration, with file and line.
pub(crate) fn conf_error(cf: *mut ngx_conf_t, message: &str) {
    let text = ngx_str_t {
        len: message.len(),
        data: message.as_ptr().cast_mut(),
    };
    // SAFETY: cf is the configuration context that nginx handed to the calling entry point; see write().
    unsafe {
        ngx_conf_log_error(
            NGX_LOG_EMERG as ngx_uint_t,
            cf,
            0,
            c"%V".as_ptr(),
            &raw const text,
        )
    };
}
