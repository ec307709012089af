#!/usr/bin/env bash
# Measures `bowline bench isolate` and its peers, one after the other. Usage:
#
#   bench/isolate/run.sh [BOWLINE [RUNS]] [-- ARGUMENTS OF bowline bench isolate]
#
# The peers come from their registries by the lock files in this folder, into a cache: workerd and isolated-vm
# (npm; the second needs a prebuilt binary or a C++ compiler), pydantic-monty and the native QuickJS that loops
# are compared with (PyPI, in an environment of its own). One that cannot be had is named and left out.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
bowline=$here/../../target/debug/bowline runs=300
[ $# -gt 0 ] && [ "$1" != -- ] && { bowline=$1; shift; }
[ $# -gt 0 ] && [ "$1" != -- ] && { runs=$1; shift; }
[ "${1:-}" = -- ] && shift
cache=${XDG_CACHE_HOME:-$HOME/.cache}/bowline/bench-isolate
mkdir -p "$cache"
cp "$here"/*.{json,mjs,py,capnp,txt} "$cache"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Installs once for each state of the lock file; what failed is tried again at the next run.
installed() { # LOCKFILE COMMAND...
    local lock=$1 state
    shift
    state=$(sha256sum <"$cache/$lock")
    [ "$(cat "$cache/$lock.installed" 2>/dev/null)" = "$state" ] && return
    (cd "$cache" && "$@" >"$cache/$lock.log" 2>&1) || { echo "$lock cannot be installed: $(tail -n 1 "$cache/$lock.log")"; return 1; }
    echo "$state" >"$cache/$lock.installed"
}
python() { python3 -m venv "$cache/python" && "$cache/python/bin/pip" install --quiet --requirement requirements.txt; }

qjs=()
if installed requirements.txt python; then
    printf '#!/bin/sh\nexec "%s/python/bin/python" "%s/qjs.py" "$@"\n' "$cache" "$cache" >"$work/qjs"
    chmod +x "$work/qjs"
    command -v qjs >/dev/null || qjs=(--qjs "$work/qjs")
fi

echo "== bowline"
"$bowline" bench --dir "$work" isolate --runs "$runs" "${qjs[@]}" "$@"

peer() { # NAME COMMAND...
    echo "== $1"
    shift
    (cd "$cache" && "$@") || echo "it failed"
}
# Only isolated-vm needs its install script, which fetches or compiles its binary.
packages() { npm ci --ignore-scripts --no-audit --no-fund --loglevel=error && { npm rebuild isolated-vm --foreground-scripts || true; }; }
if installed package-lock.json packages; then
    peer "workerd, a dynamic worker for each run" node workerd.mjs "$runs"
    if [ -n "$(find "$cache/node_modules/isolated-vm" -name 'isolated_vm.node' -print -quit)" ]; then
        peer "isolated-vm" node ivm.mjs "$runs"
    else
        echo "== isolated-vm cannot be had: no binary for this node, and it could not be compiled (package-lock.json.log)"
    fi
fi
[ ! -x "$cache/python/bin/monty" ] || peer "pydantic-monty, Python" python/bin/python monty.py "$runs"
