#!/usr/bin/env bash
# Installs what Debian's archive has and this machine lacks. Without root or a password-free sudo it prints the
# line to run instead and exits 1. No service is started by it: nginx, Redis and HAProxy are run by the tests
# themselves.
set -euo pipefail

packages=(
    build-essential ca-certificates curl git
    pkg-config clang libclang-dev
    libpcre2-dev zlib1g-dev libssl-dev openssl
    nginx nginx-dev libnginx-mod-http-ndk libnginx-mod-http-lua
    lua-cjson lua-nginx-redis redis-server
    haproxy
    chromium fonts-noto-cjk
    wrk valgrind util-linux procps
    python3 python3-venv
)

say() { printf '%s\n' "setup: $*"; }

command -v cargo >/dev/null || { say "Rust is missing: install it with rustup (https://rustup.rs), 1.95 or newer"; exit 1; }

if ! command -v dpkg-query >/dev/null; then
    say "not a Debian system: the equivalents of these packages are needed: ${packages[*]}"
    exit 0
fi

missing=()
for package in "${packages[@]}"; do
    state="$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)"
    [ "$state" = installed ] || missing+=("$package")
done
if [ "${#missing[@]}" -eq 0 ]; then
    exit 0
fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
        as_root=(sudo -n)
    else
        say "these packages are missing and need root:"
        say "    sudo apt-get install --no-install-recommends -y ${missing[*]}"
        exit 1
    fi
fi

# Packages of servers start them on installation unless a policy forbids it.
policy=/usr/sbin/policy-rc.d
made_policy=no
restore() {
    if [ "$made_policy" = yes ]; then "${as_root[@]}" rm -f "$policy"; fi
}
trap restore EXIT
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
    made_policy=yes
    "${as_root[@]}" chmod 755 "$policy"
fi

say "installing ${missing[*]}"
install=(env DEBIAN_FRONTEND=noninteractive apt-get install --no-install-recommends -y -qq "${missing[@]}")
log="$(mktemp)"
if ! "${as_root[@]}" "${install[@]}" >"$log" 2>&1; then
    # A package list that was never fetched, or is too old: once more with a fresh one.
    "${as_root[@]}" apt-get update -qq >>"$log" 2>&1 || true
    if ! "${as_root[@]}" "${install[@]}" >>"$log" 2>&1; then
        tail -n 20 "$log" >&2
        say "failed (whole log: $log)"
        exit 1
    fi
fi
rm -f "$log"
