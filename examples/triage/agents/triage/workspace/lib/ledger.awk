# The ledger: reads entries, keeps a total for each customer, prints statements.
#
# Variables: mode = statement | check, only = one customer's name (empty: all of them).
# Needs csv.awk and money.awk.

BEGIN {
    header = "date,customer,document,description,net,vat"
    failed = 0
    customers = 0
}

{ sub(/\r$/, "") }

FNR == 1 {
    if ($0 != header) fail("the first line must be: " header)
    next
}

$0 == "" { next }

{
    n = csv_split($0, field)
    if (n < 0) { fail("a quote is left open"); next }
    if (n != 6) { fail("6 fields expected, " n " found"); next }
    if (field[1] !~ /^[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]$/) { fail("not a date: " field[1]); next }
    if (!money_valid(field[5])) { fail("not an amount: " field[5]); next }
    if (field[6] !~ /^[0-9]+$/) { fail("not a VAT rate: " field[6]); next }
    entries++
    if (only == "" || only == field[2]) add(field[2], money_parse(field[5]), field[6] + 0)
}

END {
    if (failed) exit 1
    if (mode == "check") { print entries + 0 " entries, no problem found"; exit 0 }
    if (only != "" && customers == 0) {
        print "tally: no entries for customer: " only > "/dev/stderr"
        exit 1
    }
    print_statement()
}

function add(customer, net, rate,    vat) {
    if (!(customer in documents)) name[++customers] = customer
    vat = money_vat(net, rate)
    documents[customer]++
    nets[customer] += net
    vats[customer] += vat
}

function print_statement(    i, who, all, net, vat) {
    row("customer", "docs", "net", "vat", "gross")
    for (i = 1; i <= customers; i++) {
        who = name[i]
        all += documents[who]
        net += nets[who]
        vat += vats[who]
        row(who, documents[who], money_format(nets[who]), money_format(vats[who]), money_format(nets[who] + vats[who]))
    }
    row("TOTAL", all + 0, money_format(net + 0), money_format(vat + 0), money_format(net + vat))
}

function row(a, b, c, d, e) {
    printf "%-20s %5s %12s %10s %12s\n", a, b, c, d, e
}

function fail(why) {
    print "tally: line " FNR ": " why > "/dev/stderr"
    failed = 1
}
