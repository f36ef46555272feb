//! Directives and the configuration that they fill.
//!
//! | directive | context | default |
//! | --- | --- | --- |
//! | `tollgate on\|off` | http, server, location | off |
//! | `tollgate_health on\|off` | http, server, location | off |
//! | `tollgate_region DIR` | http | /run/tollgate |
//! | `tollgate_state DIR` | http | /var/lib/tollgate |
//! | `tollgate_master_key FILE` | http | DIR of `tollgate_state`/master.key |
//! | `tollgate_balancer` | upstream | - |

use std::ffi::{c_char, c_void};
use std::mem::offset_of;
use std::path::PathBuf;

use ngx::ffi::{
    NGX_CONF_FLAG, NGX_CONF_NOARGS, NGX_CONF_TAKE1, NGX_HTTP_LOC_CONF, NGX_HTTP_LOC_CONF_OFFSET,
    NGX_HTTP_MAIN_CONF, NGX_HTTP_MAIN_CONF_OFFSET, NGX_HTTP_SRV_CONF, NGX_HTTP_UPS_CONF, ngx_command_t,
    ngx_conf_set_flag_slot, ngx_conf_set_str_slot, ngx_conf_t, ngx_flag_t, ngx_http_conf_ctx_t, ngx_str_t,
    ngx_uint_t,
};

use super::guard::{CONF_OK, conf_guarded, guarded};
use super::{balancer, module, pool};

const UNSET: isize = -1;

/// `http {}` level settings.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct MainConf {
    region: ngx_str_t,
    state: ngx_str_t,
    master_key: ngx_str_t,
}

/// `location {}` level settings.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct LocConf {
    pub enabled: ngx_flag_t,
    /// Requests are health checks.
    pub health: ngx_flag_t,
}

/// Where things are, resolved.
#[derive(Clone, Debug)]
pub(crate) struct Paths {
    pub region: PathBuf,
    pub state: PathBuf,
    pub master_key: PathBuf,
}

impl MainConf {
    pub fn paths(&self) -> Paths {
        let path = |s: &ngx_str_t, default: &str| {
            let text = String::from_utf8_lossy(s.as_bytes());
            PathBuf::from(if text.is_empty() { default } else { &text })
        };
        let state = path(&self.state, "/var/lib/tollgate");
        let master_key = if self.master_key.len == 0 {
            state.join("master.key")
        } else {
            path(&self.master_key, "")
        };
        Paths {
            region: path(&self.region, "/run/tollgate"),
            state,
            master_key,
        }
    }
}

pub(crate) unsafe extern "C" fn create_main_conf(cf: *mut ngx_conf_t) -> *mut c_void {
    guarded("create_main_conf", std::ptr::null_mut(), || {
        // SAFETY: nginx passes a live configuration context.
        pool::zeroed::<MainConf>(unsafe { (*cf).pool }).map_or(std::ptr::null_mut(), |c| (&raw mut *c).cast())
    })
}

pub(crate) unsafe extern "C" fn create_loc_conf(cf: *mut ngx_conf_t) -> *mut c_void {
    guarded("create_loc_conf", std::ptr::null_mut(), || {
        // SAFETY: as above.
        let Some(conf) = pool::zeroed::<LocConf>(unsafe { (*cf).pool }) else {
            return std::ptr::null_mut();
        };
        conf.enabled = UNSET;
        conf.health = UNSET;
        (&raw mut *conf).cast()
    })
}

pub(crate) unsafe extern "C" fn merge_loc_conf(
    _cf: *mut ngx_conf_t,
    prev: *mut c_void,
    conf: *mut c_void,
) -> *mut c_char {
    // SAFETY: both were made by create_loc_conf.
    let (prev, conf) = unsafe { (&*prev.cast::<LocConf>(), &mut *conf.cast::<LocConf>()) };
    for (flag, inherited) in [(&mut conf.enabled, prev.enabled), (&mut conf.health, prev.health)] {
        if *flag == UNSET {
            *flag = if inherited == UNSET { 0 } else { inherited };
        }
    }
    CONF_OK
}

unsafe extern "C" fn set_balancer(
    cf: *mut ngx_conf_t,
    _cmd: *mut ngx_command_t,
    _conf: *mut c_void,
) -> *mut c_char {
    conf_guarded("tollgate_balancer", cf, || balancer::configure(cf))
}

const fn command(
    name: ngx_str_t,
    kind: u32,
    set: unsafe extern "C" fn(*mut ngx_conf_t, *mut ngx_command_t, *mut c_void) -> *mut c_char,
    conf: usize,
    offset: usize,
) -> ngx_command_t {
    ngx_command_t {
        name,
        type_: kind as ngx_uint_t,
        set: Some(set),
        conf,
        offset,
        post: std::ptr::null_mut(),
    }
}

const HTTP_SRV_LOC: u32 = NGX_HTTP_MAIN_CONF | NGX_HTTP_SRV_CONF | NGX_HTTP_LOC_CONF;

pub(crate) static mut COMMANDS: [ngx_command_t; 7] = [
    command(
        ngx::ngx_string!("tollgate"),
        HTTP_SRV_LOC | NGX_CONF_FLAG,
        ngx_conf_set_flag_slot,
        NGX_HTTP_LOC_CONF_OFFSET,
        offset_of!(LocConf, enabled),
    ),
    command(
        ngx::ngx_string!("tollgate_health"),
        HTTP_SRV_LOC | NGX_CONF_FLAG,
        ngx_conf_set_flag_slot,
        NGX_HTTP_LOC_CONF_OFFSET,
        offset_of!(LocConf, health),
    ),
    command(
        ngx::ngx_string!("tollgate_region"),
        NGX_HTTP_MAIN_CONF | NGX_CONF_TAKE1,
        ngx_conf_set_str_slot,
        NGX_HTTP_MAIN_CONF_OFFSET,
        offset_of!(MainConf, region),
    ),
    command(
        ngx::ngx_string!("tollgate_state"),
        NGX_HTTP_MAIN_CONF | NGX_CONF_TAKE1,
        ngx_conf_set_str_slot,
        NGX_HTTP_MAIN_CONF_OFFSET,
        offset_of!(MainConf, state),
    ),
    command(
        ngx::ngx_string!("tollgate_master_key"),
        NGX_HTTP_MAIN_CONF | NGX_CONF_TAKE1,
        ngx_conf_set_str_slot,
        NGX_HTTP_MAIN_CONF_OFFSET,
        offset_of!(MainConf, master_key),
    ),
    command(
        ngx::ngx_string!("tollgate_balancer"),
        NGX_HTTP_UPS_CONF | NGX_CONF_NOARGS,
        set_balancer,
        0,
        0,
    ),
    // SAFETY: nginx ends the list at an entry whose name is empty; every field may be zero.
    unsafe { std::mem::zeroed() },
];

/// This module's `http {}` settings of the cycle that is being configured.
pub(crate) fn main_conf_of(cf: *mut ngx_conf_t) -> Option<MainConf> {
    // SAFETY: inside http{} cf->ctx is an ngx_http_conf_ctx_t whose arrays have a slot per HTTP module.
    unsafe {
        let ctx = (*cf).ctx.cast::<ngx_http_conf_ctx_t>().as_ref()?;
        (*ctx.main_conf.add(module::ctx_index()))
            .cast::<MainConf>()
            .as_ref()
            .copied()
    }
}
