//! `$tollgate_*`: answers from the request's context. All are non-cacheable, since an attempt at another deployment
//! changes them, and none allocates but the numbers.

use ngx::ffi::{
    NGX_HTTP_VAR_NOCACHEABLE, ngx_conf_t, ngx_http_add_variable, ngx_http_request_t, ngx_int_t, ngx_str_t,
    ngx_uint_t, ngx_variable_value_t,
};

use super::guard::{ERROR, OK, guarded};
use super::pool;
use super::request::{Request, decimal};
use crate::gate::{Field, Variable};

/// Every variable with what it shows.
const VARIABLES: &[(&str, Field)] = &[
    // For log_format.
    ("tollgate_channel", Field::Channel),
    ("tollgate_model", Field::Model),
    ("tollgate_deployment", Field::Deployment),
    ("tollgate_version", Field::Version),
    ("tollgate_provider", Field::Provider),
    ("tollgate_decision", Field::Decision),
    ("tollgate_rule", Field::Rule),
    ("tollgate_limit", Field::Limit),
    ("tollgate_class", Field::Class),
    ("tollgate_input_tokens", Field::InputTokens),
    ("tollgate_output_tokens", Field::OutputTokens),
    ("tollgate_cached_tokens", Field::CachedTokens),
    ("tollgate_reasoning_tokens", Field::ReasoningTokens),
    ("tollgate_usage_source", Field::UsageSource),
    ("tollgate_request_id", Field::RequestId),
    ("tollgate_tags", Field::Tags),
    ("tollgate_experiment", Field::Experiment),
    ("tollgate_experiment_group", Field::ExperimentGroup),
    ("tollgate_degraded", Field::Degraded),
    ("tollgate_generation", Field::Generation),
    // For `proxy_set_header Host` and proxy_ssl_name. The former carries the credential: it is empty once the request is
    // settled, so that no log can show it.
    ("tollgate_upstream_head", Field::UpstreamHead),
    ("tollgate_upstream_tls_name", Field::UpstreamTlsName),
];

pub(crate) fn register(cf: *mut ngx_conf_t) -> bool {
    flags_are_where_c_has_them()
        && VARIABLES.iter().enumerate().all(|(index, (name, _))| {
            let mut name = ngx_str_t {
                len: name.len(),
                data: name.as_ptr().cast_mut(),
            };
            // SAFETY: cf is the live configuration context; nginx copies what it keeps of the name.
            unsafe {
                let Some(variable) =
                    ngx_http_add_variable(cf, &raw mut name, NGX_HTTP_VAR_NOCACHEABLE as ngx_uint_t).as_mut()
                else {
                    return false;
                };
                variable.get_handler = Some(get);
                variable.data = index;
            }
            true
        })
}

const VALID: u32 = 1 << 28;
const NO_CACHEABLE: u32 = 1 << 29;
const NOT_FOUND: u32 = 1 << 30;

/// Writes length and flags at once: bindgen's setters go bit by bit, 28 times for a length.
fn set_flags(value: &mut ngx_variable_value_t, len: usize, flags: u32) {
    let len = u32::try_from(len).ok().filter(|len| *len < VALID).unwrap_or(0);
    // SAFETY: the struct begins with one 32-bit unit of bit-fields, `len:28`, `valid`, `no_cacheable`, `not_found`,
    // `escape`, filled from the lowest bit (`flags_are_where_c_has_them` looks before the module is used).
    unsafe { (&raw mut *value).cast::<u32>().write(len | flags) };
}

fn flags_are_where_c_has_them() -> bool {
    // SAFETY: a C struct of integers and a pointer.
    let mut value: ngx_variable_value_t = unsafe { std::mem::zeroed() };
    set_flags(&mut value, 0x0abc_def1, VALID | NO_CACHEABLE);
    let found = (
        value.valid(),
        value.no_cacheable(),
        value.not_found(),
        value.escape(),
    );
    value.len() == 0x0abc_def1 && found == (1, 1, 0, 0)
}

unsafe extern "C" fn get(r: *mut ngx_http_request_t, v: *mut ngx_variable_value_t, data: usize) -> ngx_int_t {
    guarded("variable", ERROR, || {
        // SAFETY: nginx passes the live request and the value to fill.
        let (request, value) = unsafe { (Request::from_ptr(r), &mut *v) };
        set_flags(value, 0, NO_CACHEABLE | NOT_FOUND);
        let Some((_, field)) = VARIABLES.get(data) else {
            return OK;
        };
        let Some(context) = request.context() else {
            return OK;
        };
        let text = match context.variable(*field) {
            Variable::None => return OK,
            // The text belongs to the context or to the snapshot it pins: both outlive the log phase.
            Variable::Text(text) => ngx_str_t {
                len: text.len(),
                data: text.as_ptr().cast_mut(),
            },
            Variable::Number(n) => {
                let mut digits = [0u8; 20];
                let Some(text) = pool::string(request.pool(), decimal(n, &mut digits)) else {
                    return ERROR;
                };
                text
            }
        };
        value.data = text.data;
        set_flags(value, text.len, VALID | NO_CACHEABLE);
        OK
    })
}
