#!/usr/bin/env bash
# Starts a whole gateway on the loopback interface: mock LLM, daemon and nginx with the sample configuration of
# nginx-conf/sample. Prints the dashboard's address, a curl line to try, and then a live table of the channels, until Ctrl-C.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$root"
profile="${PROFILE:-fast}"
listen="${TOLLGATE_LISTEN:-127.0.0.1:8080}"
api="${TOLLGATE_API:-127.0.0.1:9180}"
mock="${TOLLGATE_MOCK:-127.0.0.1:9190}"
partner_key=sk-sample-partner-key
run="$root/target/run"
case "$profile" in dev) folder=debug ;; *) folder="$profile" ;; esac
bin="$root/target/$folder"

name=run
# shellcheck source=scripts/processes.sh
. "$root/scripts/processes.sh"

make module-pinned daemon mock PROFILE="$profile"
# shellcheck disable=SC1091
. "$root/target/module/pinned/tree.env"

require_free "set TOLLGATE_LISTEN, TOLLGATE_API or TOLLGATE_MOCK to another one" "$listen" "$api" "$mock"

mkdir -p "$run/config" "$run/state" "$run/proxy" "$run/client_body"
memory=/dev/shm
[ -d "$memory" ] && [ -w "$memory" ] || memory="$run"
region="$(mktemp -d "$memory/tollgate-run.XXXXXX")"

stop() {
    trap - EXIT INT TERM
    end_all
    rm -rf "$region"
}
trap stop EXIT
trap 'exit 0' INT TERM

fill() {
    sed -e "s|@MODULE@|$root/target/module/pinned/ngx_http_tollgate_module.so|" -e "s|@RUN@|$run|" \
        -e "s|@REGION@|$region|" -e "s|@ROOT@|$root|" -e "s|@LISTEN@|$listen|" -e "s|@MOCK@|$mock|" \
        -e "s|@USER@|$user|" -e "s|@PARTNER_KEY_SHA256@|$(printf %s "$partner_key" | sha256sum | cut -d ' ' -f 1)|" "$1"
}
user=""
[ "$(id -u)" -ne 0 ] || user="user root root;"
for document in nginx-conf/sample/config/*.json; do
    fill "$document" >"$run/config/$(basename "$document")"
done
fill nginx-conf/sample/nginx.conf >"$run/nginx.conf"

"$bin/mock-llm" --listen "$mock" >"$run/mock.log" 2>&1 &
pids+=($!)
await "the mock LLM" "$mock" $! "$run/mock.log"

"$bin/tollgate" serve --config "$run/config" --state "$run/state" --region "$region" --listen "$api" \
    >"$run/daemon.log" 2>&1 &
pids+=($!)
await "the daemon" "$api" $! "$run/daemon.log"

: >"$run/error.log"
"$NGINX_BINARY" -p "$run" -e "$run/error.log" -c "$run/nginx.conf" -g 'daemon off;' &
gateway=$!
pids+=("$gateway")
await nginx "$listen" "$gateway" "$run/error.log"

# The daemon tells the first account's password once, at its very first start.
password="$(sed -n 's/^tollgate: first start.* as admin with the password //p' "$run/daemon.log")"
if [ -n "$password" ]; then
    login="Sign in at http://$api/ as admin with the password $password (it is not shown again)"
else
    login="Sign in at http://$api/ as admin; for another password: $bin/tollgate account password admin --url http://$api --token-file $run/state/api.token"
fi

# A little traffic, so that the dashboard has something to show: two requests a second, TOLLGATE_VISITORS=0 for none.
visitors() {
    local channels=(visitor001 visitor001 mobile002 visitor001 wechat001) models=(chat-small chat-large chat-small) n=0
    while sleep 0.5; do
        n=$((n + 1))
        curl --silent --output /dev/null --max-time 10 "http://$listen/v1/chat/completions" \
            -H "channelcode: ${channels[$((n % 5))]}" -H 'content-type: application/json' \
            -d "{\"model\":\"${models[$((n % 3))]}\",\"stream\":$([ $((n % 2)) = 0 ] && echo true || echo false),\"max_tokens\":$((16 + n % 90)),\"messages\":[{\"role\":\"user\",\"content\":\"Question $n: how cold is the water?\"}]}" || true
    done
}
if [ "${TOLLGATE_VISITORS:-1}" != 0 ]; then
    visitors &
    pids+=($!)
fi

cat <<TEXT

$login

Tollgate listens on http://$listen, its API on http://$api, logs are in target/run. Try:

  curl http://$listen/v1/chat/completions -H 'channelcode: wechat001' -H 'content-type: application/json' \\
    -d '{"model":"chat-small","stream":true,"messages":[{"role":"user","content":"How cold is the water?"}]}'

  The channel partner003 has a key instead of a code: -H 'authorization: Bearer $partner_key'

TEXT

if [ -t 1 ]; then
    "$bin/tollgate" top --url "http://$api" --token-file "$run/state/api.token"
else
    wait "$gateway"
fi
