#!/usr/bin/env bash
# Builds the dashboard into admin-ui/dist, if its sources have changed since the last time. The daemon's build takes it from there.
#
#   scripts/ui.sh             install what it is built with, and build
#   scripts/ui.sh packages    only install
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$root/admin-ui"
say() { printf '%s\n' "ui: $*" >&2; }
command -v npm >/dev/null || { say "Node.js with npm is missing: install version 20.19 or newer"; exit 1; }

exec 9>"$root/admin-ui/.lock"
flock 9

stamp() { cat "$@" | sha256sum | cut -d ' ' -f 1; }

packages="$(stamp package.json package-lock.json)"
if [ "$(cat node_modules/.tollgate-packages 2>/dev/null)" != "$packages" ]; then
    say "installing packages (once)"
    npm ci --silent --no-audit --no-fund
    printf '%s' "$packages" >node_modules/.tollgate-packages
fi
[ "${1:-}" != packages ] || exit 0

mapfile -d '' -t files < <(find src public -type f ! -name components.d.ts ! -name '*.test.ts' -print0 | sort -z)
sources="$(stamp index.html vite.config.ts tsconfig.json package-lock.json "${files[@]}")"
if [ ! -f dist/index.html ] || [ "$(cat node_modules/.tollgate-built 2>/dev/null)" != "$sources" ]; then
    say "building the dashboard"
    npm run --silent bundle >&2
    printf '%s' "$sources" >node_modules/.tollgate-built
fi
