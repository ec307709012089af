#!/bin/sh
# Runs the cases: sh tests/run.sh [CASE]...
#
# A case is a directory tests/cases/CASE with `cmd`, the arguments of tally (one line, read by the
# shell in that directory), `expected`, what it must print, and, when it must fail, `status`.

here=$(cd "$(dirname "$0")" && pwd)
tally="$here/../bin/tally"
passed=0
failed=0

if [ $# -eq 0 ]; then
    for dir in "$here"/cases/*; do
        set -- "$@" "$(basename "$dir")"
    done
fi

for case in "$@"; do
    dir="$here/cases/$case"
    if [ ! -f "$dir/cmd" ]; then
        echo "FAIL $case: no such case"
        failed=$((failed + 1))
        continue
    fi
    want_status=0
    [ -f "$dir/status" ] && want_status=$(cat "$dir/status")
    want=$(cat "$dir/expected")
    got=$(cd "$dir" && eval "sh \"$tally\" $(cat cmd)" 2>&1)
    status=$?
    if [ "$status" -eq "$want_status" ] && [ "$got" = "$want" ]; then
        echo "ok   $case"
        passed=$((passed + 1))
    else
        echo "FAIL $case: tally $(cat "$dir/cmd") (exit $status, expected $want_status)"
        echo "$got" | diff "$dir/expected" - | sed 's/^/     /'
        failed=$((failed + 1))
    fi
done

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
