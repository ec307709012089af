//! Brace ranges that the interpreter would leave unexpanded without a word, so that a loop over
//! `{1..20000}` would run once. They are found before the command runs.

/// Elements that the interpreter expands.
pub(crate) const MAX_RANGE: u64 = 10_000;

/// The first brace range outside of quotes, comments and here-documents that is too long.
pub(crate) fn oversized_range(script: &str) -> Option<&str> {
    let mut rest = script;
    let mut word_start = true;
    let mut ends: Vec<&str> = Vec::new();
    while let Some(c) = rest.chars().next() {
        let mut skip = c.len_utf8();
        match c {
            '\\' => skip += rest[1..].chars().next().map_or(0, char::len_utf8),
            '\'' => skip += rest[1..].find('\'').map_or(rest.len() - 1, |at| at + 1),
            '"' => skip = double_quoted(rest),
            '#' if word_start => skip = rest.find('\n').unwrap_or(rest.len()),
            '<' if rest.starts_with("<<") && !rest.starts_with("<<<") => {
                let word = rest[2..].trim_start_matches(['-', ' ']);
                let word = word
                    .split([' ', '\n', ';', '|', '&', ')'])
                    .next()
                    .unwrap_or_default();
                ends.push(word.trim_matches(['\'', '"', '\\']));
                skip = 2;
            }
            '\n' if !ends.is_empty() => {
                skip += here_documents(&rest[1..], std::mem::take(&mut ends))
            }
            '{' => {
                let range = rest.find('}').map(|end| &rest[..=end]);
                if let Some(range) =
                    range.filter(|range| elements(range).is_some_and(|count| count > MAX_RANGE))
                {
                    return Some(range);
                }
            }
            _ => {}
        }
        word_start = c.is_whitespace() || matches!(c, ';' | '|' | '&' | '(');
        rest = rest.get(skip..).unwrap_or_default();
    }
    None
}

/// Length of a double-quoted part, quotes included.
fn double_quoted(text: &str) -> usize {
    let mut escaped = true;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Length of here-documents that end with these words.
fn here_documents(text: &str, ends: Vec<&str>) -> usize {
    let mut length = 0;
    let mut ends = ends.into_iter();
    let mut end = ends.next();
    for line in text.split_inclusive('\n') {
        let Some(word) = end else { break };
        length += line.len();
        if line.trim_end_matches('\n').trim_start_matches('\t') == word {
            end = ends.next();
        }
    }
    length
}

/// Elements of `{a..b}` or `{a..b..step}`.
fn elements(range: &str) -> Option<u64> {
    let mut parts = range.strip_prefix('{')?.strip_suffix('}')?.split("..");
    let mut number = || parts.next()?.parse::<i64>().ok();
    let (first, last) = (number()?, number()?);
    let step = number().unwrap_or(1).unsigned_abs().max(1);
    Some(first.abs_diff(last) / step + 1)
}
