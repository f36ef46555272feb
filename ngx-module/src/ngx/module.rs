//! The module's tables as nginx reads them, and its configuration hooks.
//!
//! `ngx::ngx_modules!` leaves the order table empty, which would put the filters before the copy filter; so the three
//! tables stand here by hand.

use std::ffi::c_char;

use ngx::ffi::{
    NGX_HTTP_MODULE, ngx_array_push, ngx_conf_t, ngx_http_conf_ctx_t, ngx_http_core_main_conf_t,
    ngx_http_core_module, ngx_http_handler_pt, ngx_http_module_t, ngx_http_phase_t,
    ngx_http_phases_NGX_HTTP_LOG_PHASE, ngx_http_phases_NGX_HTTP_PRECONTENT_PHASE, ngx_int_t, ngx_module_t,
    ngx_uint_t,
};

use super::guard::{ERROR, OK, guarded};
use super::{conf, filter, phase, process, variables};

#[unsafe(no_mangle)]
pub static mut ngx_modules: [*const ngx_module_t; 2] =
    [&raw const ngx_http_tollgate_module, std::ptr::null()];

#[unsafe(no_mangle)]
pub static mut ngx_module_names: [*const c_char; 2] =
    [c"ngx_http_tollgate_module".as_ptr(), std::ptr::null()];

/// A filter of the "third-party" place: upstream bytes as they come, before gzip, after the copy filter.
#[unsafe(no_mangle)]
pub static mut ngx_module_order: [*const c_char; 3] = [
    c"ngx_http_tollgate_module".as_ptr(),
    c"ngx_http_copy_filter_module".as_ptr(),
    std::ptr::null(),
];

/// What nginx compares before it loads a module: the build options that decide about struct layouts.
const SIGNATURE: *const c_char = ngx::ffi::NGX_RS_MODULE_SIGNATURE.as_ptr();

static MODULE_CTX: ngx_http_module_t = ngx_http_module_t {
    preconfiguration: Some(preconfiguration),
    postconfiguration: Some(postconfiguration),
    create_main_conf: Some(conf::create_main_conf),
    init_main_conf: None,
    create_srv_conf: None,
    merge_srv_conf: None,
    create_loc_conf: Some(conf::create_loc_conf),
    merge_loc_conf: Some(conf::merge_loc_conf),
};

#[unsafe(no_mangle)]
pub static mut ngx_http_tollgate_module: ngx_module_t = ngx_module_t {
    ctx_index: ngx_uint_t::MAX,
    index: ngx_uint_t::MAX,
    name: std::ptr::null_mut(),
    spare0: 0,
    spare1: 0,
    version: ngx::ffi::nginx_version as ngx_uint_t,
    signature: SIGNATURE,
    ctx: (&raw const MODULE_CTX).cast_mut().cast(),
    commands: (&raw mut conf::COMMANDS).cast(),
    type_: NGX_HTTP_MODULE as ngx_uint_t,
    init_master: None,
    init_module: Some(process::init_module),
    init_process: Some(process::init_process),
    init_thread: None,
    exit_thread: None,
    exit_process: Some(process::exit_process),
    exit_master: None,
    spare_hook0: 0,
    spare_hook1: 0,
    spare_hook2: 0,
    spare_hook3: 0,
    spare_hook4: 0,
    spare_hook5: 0,
    spare_hook6: 0,
    spare_hook7: 0,
};

/// Index of this module's slot in a request's contexts and in configuration arrays.
pub(crate) fn ctx_index() -> usize {
    // SAFETY: nginx writes it while loading the module, before any hook runs, and never again.
    unsafe { ngx_http_tollgate_module.ctx_index }
}

/// A configuration of another HTTP module at `http {}` level.
unsafe fn main_conf<T>(cf: *mut ngx_conf_t, index: usize) -> *mut T {
    // SAFETY: the caller is a hook inside http{}, so cf->ctx holds the arrays.
    unsafe {
        let ctx = (*cf).ctx.cast::<ngx_http_conf_ctx_t>();
        (*(*ctx).main_conf.add(index)).cast()
    }
}

unsafe extern "C" fn preconfiguration(cf: *mut ngx_conf_t) -> ngx_int_t {
    guarded("preconfiguration", ERROR, || {
        if variables::register(cf) { OK } else { ERROR }
    })
}

unsafe extern "C" fn postconfiguration(cf: *mut ngx_conf_t) -> ngx_int_t {
    guarded("postconfiguration", ERROR, || {
        // SAFETY: postconfiguration runs in the master while nothing else does; the arrays are nginx's own and were
        // initialised before.
        unsafe {
            let core: *mut ngx_http_core_main_conf_t = main_conf(cf, ngx_http_core_module.ctx_index);
            if core.is_null() {
                return ERROR;
            }
            let phases = (&raw mut (*core).phases).cast::<ngx_http_phase_t>();
            let precontent =
                &raw mut (*phases.add(ngx_http_phases_NGX_HTTP_PRECONTENT_PHASE as usize)).handlers;
            let handler = ngx_array_push(precontent).cast::<ngx_http_handler_pt>();
            if handler.is_null() {
                return ERROR;
            }
            *handler = Some(phase::precontent);

            // Log handlers run in array order, and the access log reads our variables: settle before it.
            let log = &raw mut (*phases.add(ngx_http_phases_NGX_HTTP_LOG_PHASE as usize)).handlers;
            if ngx_array_push(log).is_null() {
                return ERROR;
            }
            let first = (*log).elts.cast::<ngx_http_handler_pt>();
            std::ptr::copy(first, first.add(1), (*log).nelts - 1);
            *first = Some(phase::log);
        }
        filter::install();
        process::remember_paths(conf::main_conf_of(cf).map(|c| c.paths()));
        OK
    })
}
