#!/usr/bin/env bash
# Builds rnacos, the Nacos-compatible server that the tests talk to, into the cache, once per version, and prints the
# path of its binary. A cheap profile: what matters is how long it takes to build, not how fast it answers.
set -euo pipefail

version=0.8.8
cache="${TOLLGATE_CACHE:-$HOME/.cache/tollgate}/rnacos"
stamp="$cache/.tollgate-stamp"
mkdir -p "$cache"

# Two builds at once wait for each other instead of compiling everything twice.
exec 9>"$cache/.lock"
flock 9
if [ "$(cat "$stamp" 2>/dev/null || true)" != "$version" ] || [ ! -x "$cache/bin/rnacos" ]; then
    echo "rnacos: building $version (once, several minutes)" >&2
    started=$SECONDS
    # The targets of the checkout's own builds must not be mixed with these, and these are of no use afterwards.
    CARGO_TARGET_DIR="$cache/target" \
        CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_DEBUG=false CARGO_PROFILE_RELEASE_LTO=off \
        CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_STRIP=symbols \
        cargo install --quiet --locked "rnacos@$version" --root "$cache" >"$cache/build.log" 2>&1 9>&- \
        || { tail -n 30 "$cache/build.log" >&2; echo "rnacos: failed (whole log: $cache/build.log)" >&2; exit 1; }
    rm -rf "$cache/target"
    printf '%s\n' "$version" >"$stamp"
    echo "rnacos: built in $((SECONDS - started)) s" >&2
fi
printf '%s\n' "$cache/bin/rnacos"
