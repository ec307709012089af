# `tally cents`: one amount a line, and the cents it is read as. Needs money.awk.

{
    if (money_valid($0)) {
        print $0 " = " money_parse($0)
    } else {
        print "tally: not an amount: " $0 > "/dev/stderr"
        failed = 1
    }
}

END { exit failed + 0 }
