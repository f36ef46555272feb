#!/usr/bin/env bash
# Builds the module against one nginx tree and installs it into target/module/<name>/:
#
#   scripts/build-module.sh pinned|checked|debian [profile]     trees of scripts/nginx-tree.sh
#   scripts/build-module.sh custom [profile]                    NGINX_SOURCE_DIR and NGINX_BUILD_DIR from the environment
#
# Beside the .so stands tree.env: the nginx binary it belongs to and the profile it was built with.
set -euo pipefail

name="${1:-}"
profile="${2:-fast}"
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
crate=ngx_http_tollgate_module

case "$name" in
    pinned | checked | debian)
        tree="$("$root/scripts/nginx-tree.sh" "$name")"
        eval "$tree"
        ;;
    custom)
        : "${NGINX_SOURCE_DIR:?set NGINX_SOURCE_DIR to the nginx source}"
        NGINX_BUILD_DIR="${NGINX_BUILD_DIR:-$NGINX_SOURCE_DIR/objs}"
        NGINX_BINARY="${NGINX_BINARY:-$NGINX_BUILD_DIR/nginx}"
        export NGINX_SOURCE_DIR NGINX_BUILD_DIR NGINX_BINARY
        ;;
    *)
        echo "usage: build-module.sh pinned|checked|debian|custom [profile]" >&2
        exit 1
        ;;
esac

# Each tree has its own target folder: the bindings differ, and one would rebuild the other.
# TOLLGATE_TARGET moves all of them, for a second checkout user on the same machine.
base="${TOLLGATE_TARGET:-$root/target}"
export CARGO_TARGET_DIR="$base/ngx-$name"
case "$profile" in dev) folder=debug ;; *) folder="$profile" ;; esac

(cd "$root" && cargo build --quiet -p "$crate" --profile "$profile")

out="$base/module/$name"
mkdir -p "$out"
built="$CARGO_TARGET_DIR/$folder/lib$crate.so"
# By rename: a running nginx keeps the image it mapped, an overwritten one would crash it.
if ! cmp -s "$built" "$out/$crate.so"; then
    cp "$built" "$out/.$crate.so.new"
    mv -f "$out/.$crate.so.new" "$out/$crate.so"
fi
printf 'NGINX_SOURCE_DIR=%s\nNGINX_BUILD_DIR=%s\nNGINX_BINARY=%s\nPROFILE=%s\n' \
    "$NGINX_SOURCE_DIR" "$NGINX_BUILD_DIR" "$NGINX_BINARY" "$profile" >"$out/tree.env"
printf '%s\n' "$out/$crate.so"
