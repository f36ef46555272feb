#!/usr/bin/env bash
# Makes the dashboard's types, admin-ui/src/api/schema.d.ts, from what the daemon says of its API.
#
#   scripts/api-types.sh          write them
#   scripts/api-types.sh check    fail if they are not what they would be now
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
types="$root/admin-ui/src/api/schema.d.ts"
"$root/scripts/ui.sh" packages

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
cargo run --quiet --manifest-path "$root/Cargo.toml" -p tollgate --profile "${PROFILE:-fast}" -- openapi >"$work/openapi.json"
(cd "$root/admin-ui" && npx --no-install openapi-typescript "$work/openapi.json" --default-non-nullable=false \
    --root-types --root-types-no-schema-prefix -o "$work/schema.d.ts" >/dev/null)

if [ "${1:-}" != check ]; then
    cp "$work/schema.d.ts" "$types"
elif ! diff -u "$types" "$work/schema.d.ts" >&2; then
    echo "api-types: the API has changed and the dashboard's types have not: make api-types" >&2
    exit 1
fi
