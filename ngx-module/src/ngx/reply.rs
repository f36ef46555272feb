//! Answers that the gateway gives itself, past `error_page` and its HTML.

use ngx::ffi::{
    ngx_buf_t, ngx_chain_t, ngx_http_discard_request_body, ngx_http_finalize_request, ngx_http_output_filter,
    ngx_http_send_header, ngx_int_t, ngx_str_t,
};

use super::guard::{DONE, ERROR, OK};
use super::pool;
use super::request::Request;
use crate::gate::Reply;

/// Sends the answer and ends the request's phase. Nothing may touch the request afterwards.
pub(crate) fn send(request: &mut Request, reply: &Reply) -> ngx_int_t {
    const JSON: &[u8] = b"application/json";
    let r = request.raw();
    for (name, value) in &reply.headers {
        if request.add_response_header(name, value.as_bytes()).is_none() {
            return ERROR;
        }
    }
    let head = request.is_head();
    let body = pool::string(request.pool(), reply.body.as_bytes());
    let buf = pool::zeroed::<ngx_buf_t>(request.pool());
    let (Some(body), Some(buf)) = (body, buf) else {
        return ERROR;
    };
    // SAFETY: r is the live request of the calling phase handler; the buffer and its bytes are of its pool.
    unsafe {
        let rc = ngx_http_discard_request_body(r);
        if rc != OK {
            return rc;
        }
        let out = &mut (*r).headers_out;
        out.status = reply.status.into();
        out.content_type = ngx_str_t {
            len: JSON.len(),
            data: JSON.as_ptr().cast_mut(),
        };
        out.content_type_len = JSON.len();
        out.content_type_lowcase = std::ptr::null_mut();
        out.content_length_n = reply.body.len() as _;
        let rc = ngx_http_send_header(r);
        if rc == ERROR || rc > OK || head || (*r).header_only() == 1 {
            ngx_http_finalize_request(r, rc);
            return DONE;
        }
        buf.pos = body.data;
        buf.last = body.data.add(body.len);
        buf.set_memory(1);
        buf.set_last_buf(1);
        buf.set_last_in_chain(1);
        let mut chain = ngx_chain_t {
            buf,
            next: std::ptr::null_mut(),
        };
        let rc = ngx_http_output_filter(r, &raw mut chain);
        ngx_http_finalize_request(r, rc);
    }
    DONE
}
