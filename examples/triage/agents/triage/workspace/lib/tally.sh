# The commands of tally, as shell functions. TALLY_LIB is the directory of this file.

tally_usage() {
    cat <<'USAGE'
usage: tally statement [-c CUSTOMER] FILE    totals for each customer
       tally check FILE                      validate a ledger, print nothing but problems
       tally cents AMOUNT...                 what each amount is read as, in cents

FILE is a ledger in CSV, or - for standard input.
USAGE
}

# tally_ledger MODE CUSTOMER FILE
tally_ledger() {
    if [ "$3" = "-" ]; then
        awk -v mode="$1" -v only="$2" \
            -f "$TALLY_LIB/csv.awk" -f "$TALLY_LIB/money.awk" -f "$TALLY_LIB/ledger.awk"
    elif [ -r "$3" ]; then
        awk -v mode="$1" -v only="$2" \
            -f "$TALLY_LIB/csv.awk" -f "$TALLY_LIB/money.awk" -f "$TALLY_LIB/ledger.awk" "$3"
    else
        echo "tally: cannot read $3" >&2
        return 1
    fi
}

tally_cents() {
    for amount in "$@"; do
        echo "$amount"
    done | awk -f "$TALLY_LIB/money.awk" -f "$TALLY_LIB/cents.awk"
}

tally_main() {
    command=${1:-}
    [ $# -gt 0 ] && shift
    case "$command" in
        statement)
            customer=
            if [ "${1:-}" = "-c" ] && [ $# -ge 2 ]; then
                customer=$2
                shift 2
            fi
            [ $# -eq 1 ] || { tally_usage >&2; return 2; }
            tally_ledger statement "$customer" "$1"
            ;;
        check)
            [ $# -eq 1 ] || { tally_usage >&2; return 2; }
            tally_ledger check "" "$1"
            ;;
        cents)
            [ $# -ge 1 ] || { tally_usage >&2; return 2; }
            tally_cents "$@"
            ;;
        help | -h | --help)
            tally_usage
            ;;
        *)
            tally_usage >&2
            return 2
            ;;
    esac
}
