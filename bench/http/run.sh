#!/usr/bin/env bash
# Measures the server of agents, and beside it any other that speaks the conversation protocol (POST, event
# streams). Usage:
#
#   bench/http/run.sh [BOWLINE [DIR]] [-- ARGUMENTS OF bowline bench http]
#   PEER=http://127.0.0.1:3000/agents/bench PEER_PID=1234 bench/http/run.sh …
#
# The peer is started by whoever measures, with an agent that answers a message `tools N` after N calls of
# a tool, one after the other, and with a model that is as fast as the scripted one. The same load runs
# against both, one after the other. To look at one server only: bowline bench http --addr HOST:PORT.
set -euo pipefail
bowline=target/debug/bowline dir=${TMPDIR:-/tmp}
[ $# -gt 0 ] && [ "$1" != -- ] && { bowline=$1; shift; }
[ $# -gt 0 ] && [ "$1" != -- ] && { dir=$1; shift; }
[ "${1:-}" = -- ] && shift

echo "== bowline"
"$bowline" bench http --dir "$dir" "$@"

if [ -n "${PEER:-}" ]; then
    rest=${PEER#http://}
    host=${rest%%/*}
    echo "== $PEER"
    "$bowline" bench http --addr "$host" --path "/${rest#*/}" ${PEER_PID:+--pid "$PEER_PID"} "$@"
fi
