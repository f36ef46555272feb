#!/usr/bin/env bash
# Starts a whole cluster on the loopback interface: HAProxy in front of three instances (each nginx + daemon), Redis for
# limits over all of them, a Nacos server for their configuration, and a mock LLM. Prints a curl line and the dashboards'
# addresses, and runs until Ctrl-C. Documents, accounts and usage stay in target/cluster for the next time.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$root"
name=cluster
# shellcheck source=scripts/processes.sh
. "$root/scripts/processes.sh"
profile="${PROFILE:-fast}"
host=127.0.0.1
# The first of each kind of port; an instance's are this plus its number.
front="$host:${TOLLGATE_FRONT_PORT:-8000}"
listen_base="${TOLLGATE_LISTEN_BASE:-8080}"
api_base="${TOLLGATE_API_BASE:-9180}"
mock="$host:${TOLLGATE_MOCK_PORT:-9190}"
redis="$host:${TOLLGATE_REDIS_PORT:-6390}"
nacos_port="${TOLLGATE_NACOS_PORT:-8848}"
nacos="$host:$nacos_port"
run="$root/target/cluster"
case "$profile" in dev) folder=debug ;; *) folder="$profile" ;; esac
bin="$root/target/$folder"

make module-pinned daemon mock nacos PROFILE="$profile"
# shellcheck disable=SC1091
. "$root/target/module/pinned/tree.env"
rnacos="$(scripts/rnacos.sh)"
for program in redis-server haproxy; do
    command -v "$program" >/dev/null || { say "$program is missing: run make setup"; exit 1; }
done

listens=() apis=()
for n in 1 2 3; do
    listens+=("$host:$((listen_base + n))")
    apis+=("$host:$((api_base + n))")
done
require_free "set TOLLGATE_FRONT_PORT, _LISTEN_BASE, _API_BASE, _MOCK_PORT, _REDIS_PORT or _NACOS_PORT" \
    "$front" "${listens[@]}" "${apis[@]}" "$mock" "$redis" "$nacos" "$host:$((nacos_port + 1000))" "$host:$((nacos_port + 2000))"

memory=/dev/shm
[ -d "$memory" ] && [ -w "$memory" ] || memory="$run"
mkdir -p "$run/redis" "$run/nacos" "$run/documents"
regions="$(mktemp -d "$memory/tollgate-cluster.XXXXXX")"
stop() {
    trap - EXIT INT TERM
    say "stopping"
    end_all
    rm -rf "$regions"
}
trap stop EXIT
trap 'exit 0' INT TERM

# One master key for all: credentials in shared documents are sealed with it.
key="$run/master.key"
[ -s "$key" ] || (umask 077 && od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"$key")
user=""
[ "$(id -u)" -ne 0 ] || user="user root root;"
partner_key=sk-sample-partner-key
partner_hash="$(printf %s "$partner_key" | sha256sum | cut -d ' ' -f 1)"
fill() {
    sed -e "s|@MODULE@|$root/target/module/pinned/ngx_http_tollgate_module.so|" -e "s|@RUN@|${here:-}|" \
        -e "s|@REGION@|${region:-}|" -e "s|@ROOT@|$root|" -e "s|@LISTEN@|${listen:-}|" -e "s|@MOCK@|$mock|" \
        -e "s|@USER@|$user|" -e "s|@MASTER_KEY@|$key|" -e "s|@REDIS@|$redis|" \
        -e "s|@PARTNER_KEY_SHA256@|$partner_hash|" "$1"
}

say "mock LLM on $mock"
"$bin/mock-llm" --listen "$mock" >"$run/mock.log" 2>&1 &
pids+=($!)
await "the mock LLM" "$mock" $! "$run/mock.log"

say "Redis on $redis"
redis-server --bind "$host" --port "${redis#*:}" --dir "$run/redis" --save '' --appendonly yes \
    --maxmemory-policy noeviction >"$run/redis.log" 2>&1 &
pids+=($!)
await Redis "$redis" $! "$run/redis.log"

# Now and then rnacos breaks while it starts for the first time, and never answers then.
nacos_works() {
    local url="http://$nacos/nacos/v1/cs/configs" id="dataId=tollgate.ready&group=TOLLGATE_READY"
    curl -sf --max-time 2 -X POST "$url" -d "$id&content=ready" >/dev/null &&
        [ "$(curl -sf --max-time 2 "$url?$id")" = ready ]
}
start_nacos() {
    (cd "$run/nacos" && exec env RNACOS_SDK_HOST="$host" RNACOS_HTTP_PORT="$nacos_port" \
        RNACOS_GRPC_PORT="$((nacos_port + 1000))" RNACOS_HTTP_CONSOLE_PORT="$((nacos_port + 2000))" RNACOS_HTTP_WORKERS=2 \
        RNACOS_DATA_DIR="$run/nacos/data" RNACOS_NAMING_INSTANCE_METADATA_PERSISTENCE_ENABLE=false RUST_LOG=warn \
        "$rnacos") >"$run/nacos.log" 2>&1 &
    nacos_pid=$!
    for _ in $(seq 75); do
        if nacos_works; then return 0; fi
        if ! kill -0 "$nacos_pid" 2>/dev/null || grep -q panicked "$run/nacos.log"; then break; fi
        sleep 0.2
    done
    kill -KILL "$nacos_pid" 2>/dev/null || true
    wait "$nacos_pid" 2>/dev/null || true
    return 1
}
say "Nacos on $nacos"
for attempt in 1 2 3 4 5 6 7 8 9 10; do
    if start_nacos; then break; fi
    [ "$attempt" -lt 10 ] || { say "Nacos did not start:"; tail -n 20 "$run/nacos.log"; exit 1; }
    [ -e "$run/seen" ] || rm -rf "$run/nacos/data"
done
pids+=("$nacos_pid")

say "HAProxy on $front"
sed -e "s|bind :8000|bind $front|" -e "s|/run/haproxy/admin.sock|$run/haproxy.sock|" -e "s|maxconn 60000|maxconn 4000|" \
    nginx-conf/cluster/haproxy.cfg >"$run/haproxy.cfg"
haproxy -db -f "$run/haproxy.cfg" >"$run/haproxy.log" 2>&1 &
pids+=($!)
await HAProxy "$front" $! "$run/haproxy.log"

tollgate() {
    local command="$1" n="$2"
    shift 2
    # shellcheck disable=SC2086
    "$bin/tollgate" $command --url "http://${apis[$((n - 1))]}" --token-file "$run/gateway$n/state/api.token" "$@"
}
# By the first instance, before there is another: its accounts become everybody's, and its password is the one to show.
publish_sample() {
    [ ! -e "$run/seen" ] || return 0
    say "publishing the sample documents"
    for document in nginx-conf/sample/config/*.json nginx-conf/cluster/sample/*.json; do
        fill "$document" >"$run/documents/$(basename "$document")"
    done
    tollgate "config publish" 1 "$run/documents" -m "the sample documents"
    for _ in $(seq 100); do
        grep -q "accounts are in Redis" "$run/gateway1/daemon.log" && break
        sleep 0.1
    done
    : >"$run/seen"
}

for n in 1 2 3; do
    here="$run/gateway$n" region="$regions/gateway$n" listen="${listens[$((n - 1))]}" api="${apis[$((n - 1))]}"
    say "instance gateway$n on $listen, its API on $api"
    mkdir -p "$here/state" "$region"
    # Whoever owns a daemon's state may use its API: one token for all three keeps the command line simple.
    balancer=()
    [ "$n" != 1 ] || balancer=(--haproxy "$run/haproxy.sock")
    "$bin/tollgate" serve --nacos "http://$nacos" --instance "gateway$n" --advertise "$listen" --master-key-file "$key" \
        --state "$here/state" --region "$region" --listen "$api" "${balancer[@]}" >"$here/daemon.log" 2>&1 &
    pids+=($!)
    await "the daemon of gateway$n" "$api" $! "$here/daemon.log"
    fill nginx-conf/cluster/instance.conf >"$here/nginx.conf"
    : >"$here/error.log"
    "$NGINX_BINARY" -p "$here" -e "$here/error.log" -c "$here/nginx.conf" -g 'daemon off;' &
    pids+=($!)
    await "nginx of gateway$n" "$listen" $! "$here/error.log"
    [ "$n" != 1 ] || publish_sample
done

ask() {
    curl -s --max-time 5 "http://$front/v1/chat/completions" -H 'channelcode: wechat001' -H 'content-type: application/json' \
        -d '{"model":"chat-small","max_tokens":1,"messages":[{"role":"user","content":"hello"}]}' -o /dev/null -w '%{http_code}' || true
}
say "waiting until HAProxy has all three"
for _ in $(seq 300); do
    up="$(curl -s --max-time 2 -H "authorization: Bearer $(cat "$run/gateway1/state/api.token")" \
        "http://${apis[0]}/api/v1/instances" | { grep -o '"up":true' || true; } | wc -l)"
    if [ "$up" -eq 3 ] && [ "$(ask)" = 200 ]; then break; fi
    sleep 0.1
done
[ "$up" -eq 3 ] || say "only $up of 3 instances are in HAProxy; see $run/haproxy.log and $run/gateway1/daemon.log"

password="$(sed -n 's/^tollgate: first start.* as admin with the password //p' "$run"/gateway*/daemon.log | head -n 1)"
login="as admin; for another password: $bin/tollgate account password admin --url http://${apis[0]} --token-file $run/gateway1/state/api.token"
[ -z "$password" ] || login="as admin with the password $password (it is not shown again)"

cat <<TEXT

The cluster listens on http://$front (HAProxy). Try:

  curl http://$front/v1/chat/completions -H 'channelcode: wechat001' -H 'content-type: application/json' \\
    -d '{"model":"chat-small","stream":true,"messages":[{"role":"user","content":"How cold is the water?"}]}'

Dashboards: $(printf 'http://%s/ ' "${apis[@]}")
Sign in at the first $login

Limits hold over all three instances. Take one out and in again, or kill one, while requests run:

  $bin/tollgate drain --url http://${apis[1]} --token-file $run/gateway2/state/api.token
  $bin/tollgate drain --off --url http://${apis[1]} --token-file $run/gateway2/state/api.token

Logs are in target/cluster; remove that folder to begin anew. Ctrl-C ends everything.

TEXT
wait
