# One CSV record (RFC 4180) into fields.
#
# A field in double quotes may hold commas, and a double quote written twice. A record stays on one
# line: tally does not read quoted line breaks, it reports them as an open quote.

# csv_split(LINE, FIELDS): the number of fields, or -1 when a quote is left open.
function csv_split(line, fields,    i, n, c, field, quoted, len) {
    sub(/\r$/, "", line)
    for (i in fields) delete fields[i]
    n = 0
    field = ""
    quoted = 0
    len = length(line)
    for (i = 1; i <= len; i++) {
        c = substr(line, i, 1)
        if (quoted) {
            if (c != "\"") {
                field = field c
            } else if (substr(line, i + 1, 1) == "\"") {
                field = field "\""
                i++
            } else {
                quoted = 0
            }
        } else if (c == "\"" && field == "") {
            quoted = 1
        } else if (c == ",") {
            fields[++n] = field
            field = ""
        } else {
            field = field c
        }
    }
    if (quoted) return -1
    fields[++n] = field
    return n
}
