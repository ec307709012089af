#!/usr/bin/env bash
# Measures Bowline, the reference server on Node (file store) and the crate `durable-streams` (write-ahead
# log), one after the other, each flushing before it answers. Usage:
#
#   bench/streams/run.sh [BOWLINE [DIR]] [-- ARGUMENTS OF bowline bench streams]
#
# A peer that is not there is left out: node with npm for the first, `durable-streams-server` on the path
# for the second (cargo install durable-streams --version 0.1.5 --locked).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
bowline=target/debug/bowline dir=${TMPDIR:-/tmp}
[ $# -gt 0 ] && [ "$1" != -- ] && { bowline=$1; shift; }
[ $# -gt 0 ] && [ "$1" != -- ] && { dir=$1; shift; }
[ "${1:-}" = -- ] && shift
work=$(mktemp -d -p "$dir")
peer=
stop() { [ -z "$peer" ] || kill "$peer" 2>/dev/null || true; }
trap 'stop; rm -rf "$work"' EXIT

echo "== bowline"
"$bowline" bench streams --dir "$work" "$@"

if command -v npm >/dev/null; then
    cp "$here"/{package.json,node-server.mjs} "$work"
    (cd "$work" && npm install --no-package-lock --no-audit --no-fund --loglevel=error >/dev/null)
    (cd "$work" && exec node node-server.mjs "$work/node" >"$work/node.url") &
    peer=$!
    until [ -s "$work/node.url" ]; do read -rt 0.1 <> <(:) || true; done
    url=$(tail -1 "$work/node.url")
    echo "== @durable-streams/server, file store"
    "$bowline" bench streams --addr "${url#http://}" --pid "$peer" "$@" || echo "it failed"
    stop
    peer=
fi

if command -v durable-streams-server >/dev/null; then
    port=${BENCH_PORT:-44370}
    durable-streams-server --host 127.0.0.1 --port "$port" --data-dir "$work/rust" --durability wal >/dev/null 2>&1 &
    peer=$!
    until (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do kill -0 "$peer"; read -rt 0.1 <> <(:) || true; done
    echo "== durable-streams, write-ahead log"
    "$bowline" bench streams --addr "127.0.0.1:$port" --pid "$peer" "$@" || echo "it failed"
fi
