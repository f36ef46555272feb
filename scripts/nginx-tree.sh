#!/usr/bin/env bash
# Prepares an nginx tree that the module can be built against, and prints where it is, for `eval`:
#
#   tree="$(scripts/nginx-tree.sh pinned)"; eval "$tree"    # 1.28 from the nginx-src crate, configured and compiled
#   tree="$(scripts/nginx-tree.sh checked)"; eval "$tree"   # the same with each pool allocation a malloc, for Valgrind
#   tree="$(scripts/nginx-tree.sh debian)"; eval "$tree"    # Debian's nginx-dev, configured like the packaged binary
#
# Trees live in ${TOLLGATE_CACHE:-~/.cache/tollgate}/nginx and are made once per version and set of flags.
set -euo pipefail

name="${1:-}"
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cache="${TOLLGATE_CACHE:-$HOME/.cache/tollgate}/nginx"
mkdir -p "$cache"

say() { printf '%s\n' "nginx-tree: $*" >&2; }
fail() { say "$*"; exit 1; }

pinned_flags=(
    --with-compat
    --with-threads
    --with-file-aio
    --with-pcre-jit
    --with-http_ssl_module
    --with-http_v2_module
    --with-http_realip_module
    --with-http_stub_status_module
    --with-http_auth_request_module
)
declare -A optimised=(
    [pinned]=-O2
    # Pools would hide from Valgrind where an allocation ends and whether it was freed.
    [checked]="-O1 -g -DNGX_DEBUG_PALLOC=1"
)

# Where cargo keeps the nginx-src crate; fetched if it is not there yet.
nginx_src_manifest() {
    local manifest
    manifest="$(cd "$root" && cargo metadata --format-version 1 --all-features \
        | grep -o '"manifest_path":"[^"]*/nginx-src-[^"]*/Cargo.toml"' | head -n 1 | cut -d '"' -f 4)"
    [ -n "$manifest" ] || fail "the crate nginx-src is not among the workspace's dependencies"
    printf '%s\n' "$manifest"
}

# Runs a step with its output in a log; shows the end of the log when the step fails.
logged() {
    local log="$1"
    shift
    "$@" >"$log" 2>&1 || { tail -n 30 "$log" >&2; fail "failed: $* (whole log: $log)"; }
}

fresh_copy() {
    local source="$1" tree="$2"
    rm -rf "$tree"
    mkdir -p "$tree"
    cp -R "$source/." "$tree/"
    chmod -R u+w "$tree"
}

prepare_pinned() {
    local name="$1" manifest version tree stamp want
    local flags=("${pinned_flags[@]}" "--with-cc-opt=${optimised[$name]}")
    manifest="$(nginx_src_manifest)"
    version="$(basename "$(dirname "$manifest")")"
    tree="$cache/$name"
    stamp="$tree/.tollgate-stamp"
    want="$version ${flags[*]}"
    if [ "$(cat "$stamp" 2>/dev/null || true)" != "$want" ] || [ ! -x "$tree/objs/nginx" ]; then
        say "configuring and compiling $version (once, about a minute)"
        fresh_copy "$(dirname "$manifest")/nginx" "$tree"
        cd "$tree"
        chmod +x configure auto/configure 2>/dev/null || true
        local configure=./configure
        [ -f configure ] || configure=auto/configure
        logged "$tree/configure.log" bash "$configure" --prefix="$tree/prefix" --builddir=objs "${flags[@]}"
        logged "$tree/make.log" make -j "$(nproc)"
        printf '%s\n' "$want" >"$stamp"
    fi
    answer "$tree" "$tree/objs/nginx"
}

prepare_debian() {
    local source=/usr/share/nginx/src tree version stamp want
    [ -f "$source/conf_flags" ] || fail "Debian's nginx-dev is not installed (run scripts/setup.sh)"
    version="$(dpkg-query -W -f '${Version}' nginx-dev)"
    tree="$cache/debian"
    stamp="$tree/.tollgate-stamp"
    want="nginx-dev $version"
    if [ "$(cat "$stamp" 2>/dev/null || true)" != "$want" ]; then
        say "configuring Debian's nginx-dev $version (once)"
        fresh_copy "$source" "$tree"
        cd "$tree"
        # The flags of the packaged binary: several of them (debug, threads, ssl, v2) move struct fields.
        local NGX_CONF_FLAGS=()
        # shellcheck disable=SC1091
        . ./conf_flags
        local configure=./configure
        [ -f configure ] || configure=auto/configure
        logged "$tree/configure.log" bash "$configure" --builddir=objs "${NGX_CONF_FLAGS[@]}" \
            --with-cc-opt="-g -O2 -fPIC -Wdate-time -D_FORTIFY_SOURCE=2" --with-ld-opt="-fPIC"
        printf '%s\n' "$want" >"$stamp"
    fi
    answer "$tree" /usr/sbin/nginx
}

answer() {
    printf 'export NGINX_SOURCE_DIR=%q NGINX_BUILD_DIR=%q NGINX_BINARY=%q\n' "$1" "$1/objs" "$2"
}

# Two builds at once wait for each other instead of writing into the same tree.
exec 9>"$cache/.lock-$name"
case "$name" in
    pinned | checked) flock 9 && prepare_pinned "$name" ;;
    debian) flock 9 && prepare_debian ;;
    *) fail "usage: nginx-tree.sh pinned|checked|debian" ;;
esac
