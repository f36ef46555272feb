//! Debian's Lua module in the same nginx: whoever Lua refuses is neither decided about nor charged.

use serde_json::json;
use tollgate_tests::documents::Documents;
use tollgate_tests::gateway::{Gateway, HTTP};
use tollgate_tests::http::Request;
use tollgate_tests::nginx::Nginx;
use tollgate_tests::programs;

#[tokio::test]
async fn lua_refuses_before_anything_is_charged() {
    if programs::nginx().name != "debian" {
        // The module is Debian's; `make test-e2e TOLLGATE_NGINX=debian` comes here again.
        return;
    }
    let script = "
            access_by_lua_block {
                if ngx.var.http_x_lua == 'deny' then
                    ngx.status = 403
                    ngx.say('lua')
                    return ngx.exit(403)
                end
                ngx.req.read_body()
                ngx.req.set_header('x-from-lua', 'yes')
            }
            header_filter_by_lua_block { ngx.header['x-lua'] = ngx.var.tollgate_channel }
            log_by_lua_block { ngx.log(ngx.NOTICE, 'lua saw ', ngx.var.tollgate_output_tokens, ' tokens') }
            tollgate on;";
    let http = HTTP.replace("tollgate on;", script);
    assert_ne!(http, HTTP);
    let documents = Documents::new()
        .model("m", "mock?tokens=5")
        .limited("c", json!([{ "metric": "requests", "max": 2, "window": "10m" }]));
    let gateway = Gateway::with(documents)
        .nginx(|_| Nginx::config(&http).with_module().with_lua())
        .start()
        .await;
    let chat = || Request::chat("m", " hello").channel("c");
    for _ in 0..5 {
        let answer = gateway.send(&chat().header("x-lua", "deny")).await;
        assert_eq!((answer.status(), answer.text().trim()), (403, "lua"));
    }
    for stream in [false, true] {
        let answer = gateway.send(&chat().set("stream", stream)).await;
        assert_eq!(
            (answer.status(), answer.header("x-lua")),
            (200, Some("c")),
            "{}",
            answer.text()
        );
        assert_eq!(
            gateway.mock.stats().last().unwrap().header("x-from-lua"),
            Some("yes")
        );
    }
    assert_eq!(gateway.send(&chat()).await.status(), 429);
    gateway.wait_idle().await;
    assert!(gateway.nginx.error_log().contains("lua saw 5 tokens"));
    gateway.stop().await;
}
