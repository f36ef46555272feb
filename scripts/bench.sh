#!/usr/bin/env bash
# Builds what the bench compares, with full optimization, and runs it: see bench/README.md.
#
#   scripts/bench.sh [--quick] [--with-debian] [options of tests/src/bin/bench]
#
# `make bench BENCH_ARGS=--quick` gives options through make.
# --with-debian also builds the module for Debian's nginx and measures it. The tests' fast build stays as it is:
# everything stands in target/bench.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$root"
say() { printf '%s\n' "bench: $*" >&2; }

trees=(pinned)
arguments=()
# shellcheck disable=SC2086
for argument in "$@" ${BENCH_ARGS:-}; do
    case "$argument" in
        --with-debian) trees+=(debian) ;;
        *) arguments+=("$argument") ;;
    esac
done

[ "$(nproc)" -ge 2 ] || { say "two cores are needed: one for the gateway, one for everything else"; exit 1; }
for program in taskset setpriv redis-server; do
    command -v "$program" >/dev/null || { say "$program is missing: run scripts/setup.sh"; exit 1; }
done

export TOLLGATE_TARGET="$root/target/bench"
for tree in "${trees[@]}"; do
    say "building the module for the $tree nginx (release)"
    scripts/build-module.sh "$tree" release >/dev/null
done
say "building daemon, mock LLM and bench"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$root/target}"
cargo build --quiet -p tollgate --profile fast
cargo build --quiet -p tollgate-tests --bins --profile fast
export TOLLGATE_DAEMON="$CARGO_TARGET_DIR/fast/tollgate"

# The gateways pin themselves to core 0; all else inherits core 1.
exec taskset -c 1 "$CARGO_TARGET_DIR/fast/tollgate-bench" "${arguments[@]}"
