#!/usr/bin/env bash
# Makes the virtual environment of the Python SDK tests (tests/python/requirements.txt) in the cache, once per
# content of that file, and prints the path of its interpreter.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cache="${TOLLGATE_CACHE:-$HOME/.cache/tollgate}"
requirements="$root/tests/python/requirements.txt"
venv="$cache/python"
mkdir -p "$cache"

exec 9>"$cache/.lock-python"
flock 9
if ! cmp -s "$requirements" "$venv/.tollgate-stamp"; then
    echo "python-env: installing the SDKs (once)" >&2
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$requirements" >&2
    cp "$requirements" "$venv/.tollgate-stamp"
fi
printf '%s\n' "$venv/bin/python"
