# Money is counted in whole cents, so that sums are exact.

# money_valid(TEXT): whether TEXT is an amount: an optional minus, digits, at most two decimals.
function money_valid(text) {
    return text ~ /^-?[0-9]+(\.[0-9][0-9]?)?$/
}

# money_parse(TEXT): the amount in cents. TEXT must be valid.
function money_parse(text,    parts, n, units, cents) {
    n = split(text, parts, ".")
    units = parts[1] + 0
    cents = 0
    if (n > 1) cents = substr(parts[2] "0", 1, 2) + 0
    if (units < 0) return units * 100 - cents
    return units * 100 + cents
}

# money_format(CENTS): the amount with two decimals.
function money_format(cents,    sign) {
    sign = ""
    if (cents < 0) {
        sign = "-"
        cents = -cents
    }
    return sprintf("%s%d.%02d", sign, int(cents / 100), cents % 100)
}

# money_vat(NET, RATE): the tax on NET cents at RATE per cent, half a cent rounded away from zero.
function money_vat(net, rate,    hundredths) {
    hundredths = net * rate
    if (hundredths < 0) return -int((-hundredths + 50) / 100)
    return int((hundredths + 50) / 100)
}
