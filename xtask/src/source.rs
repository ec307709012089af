//! Just enough Rust to tell code from comments and strings.

use std::ops::Range;

/// Rust source in which comments and the insides of literals are blanked, byte for byte, so that
/// positions stay the same and what is left to search is code.
pub(crate) struct Source<'a> {
    text: &'a str,
    /// The code; blanked bytes are spaces, line breaks stay.
    pub(crate) code: String,
    strings: Vec<Range<usize>>,
}

impl<'a> Source<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        let mut scan = Scan {
            bytes: text.as_bytes(),
            at: 0,
            code: text.as_bytes().to_vec(),
            strings: Vec::new(),
        };
        scan.run();
        Self {
            text,
            // Only whole characters are blanked, so this never replaces anything.
            code: String::from_utf8_lossy(&scan.code).into_owned(),
            strings: scan.strings,
        }
    }

    /// The bodies of all functions of a name, as byte ranges without their braces.
    pub(crate) fn bodies(&self, function: &str) -> Vec<Range<usize>> {
        let head = format!("fn {function}(");
        self.code
            .match_indices(&head)
            .filter(|(at, _)| !ends_in_word(&self.code[..*at]))
            .filter_map(|(at, _)| self.body(at))
            .collect()
    }

    fn body(&self, from: usize) -> Option<Range<usize>> {
        let open = from + self.code[from..].find(['{', ';'])?;
        let mut depth = 0_usize;
        for (offset, byte) in self.code[open..].bytes().enumerate() {
            match byte {
                // A signature without a body.
                b';' if depth == 0 => return None,
                b'{' => depth += 1,
                b'}' if depth == 1 => return Some(open + 1..open + offset),
                b'}' => depth -= 1,
                _ => {}
            }
        }
        None
    }

    /// The string literals in a range, as written, without their quotes.
    pub(crate) fn strings_in(&self, range: &Range<usize>) -> Vec<&'a str> {
        self.strings
            .iter()
            .filter(|s| range.contains(&s.start))
            .map(|s| &self.text[s.clone()])
            .collect()
    }

    /// The string literals that are the first argument of a call, as written, each with the byte
    /// position of the call. `call` ends with its bracket, as in `Failure::new(`.
    pub(crate) fn first_arguments(&self, call: &str) -> Vec<(usize, &'a str)> {
        self.code
            .match_indices(call)
            .filter(|(at, _)| !ends_in_word(&self.code[..*at]))
            .filter_map(|(at, _)| {
                let rest = &self.code[at + call.len()..];
                let quote = self.code.len() - rest.trim_start().len();
                let literal = self.strings.iter().find(|s| s.start == quote + 1)?;
                Some((at, &self.text[literal.clone()]))
            })
            .collect()
    }

    /// The names after `mod`, with whether the module is in a file of its own (`mod name;`).
    pub(crate) fn modules(&self) -> Vec<(&str, bool)> {
        let mut found = Vec::new();
        for (at, word) in self.code.match_indices("mod ") {
            if ends_in_word(&self.code[..at]) {
                continue;
            }
            let rest = self.code[at + word.len()..].trim_start();
            let end = rest.find(|c: char| !is_word(c)).unwrap_or(rest.len());
            match rest[end..].trim_start().chars().next() {
                Some(';') => found.push((&rest[..end], true)),
                Some('{') => found.push((&rest[..end], false)),
                Some(_) | None => {}
            }
        }
        found
    }

    /// The line of a byte position, from 1.
    pub(crate) fn line(&self, at: usize) -> usize {
        self.text[..at].bytes().filter(|b| *b == b'\n').count() + 1
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn ends_in_word(text: &str) -> bool {
    text.chars().next_back().is_some_and(is_word)
}

struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
    code: Vec<u8>,
    strings: Vec<Range<usize>>,
}

impl Scan<'_> {
    fn run(&mut self) {
        while let Some(byte) = self.byte(0) {
            match (byte, self.byte(1)) {
                (b'/', Some(b'/')) => self.line_comment(),
                (b'/', Some(b'*')) => self.block_comment(),
                (b'"', _) => self.string(0),
                (b'r', Some(b'"' | b'#')) if !self.after_word() => self.raw_string(),
                (b'\'', _) => self.quote(),
                _ => self.at += 1,
            }
        }
    }

    fn byte(&self, offset: usize) -> Option<u8> {
        self.bytes.get(self.at + offset).copied()
    }

    /// Whether the `r` here only ends a word. `br` and `cr` begin raw strings too.
    fn after_word(&self) -> bool {
        let before = &self.bytes[..self.at];
        let word = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
        match before.last() {
            Some(b'b' | b'c') => word(before.iter().nth_back(1)),
            last => word(last),
        }
    }

    fn blank(&mut self, range: Range<usize>) {
        for byte in &mut self.code[range] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
    }

    fn line_comment(&mut self) {
        let start = self.at;
        while self.byte(0).is_some_and(|b| b != b'\n') {
            self.at += 1;
        }
        self.blank(start..self.at);
    }

    fn block_comment(&mut self) {
        let start = self.at;
        let mut depth = 0_usize;
        while let Some(byte) = self.byte(0) {
            match (byte, self.byte(1)) {
                (b'/', Some(b'*')) => {
                    depth += 1;
                    self.at += 2;
                }
                (b'*', Some(b'/')) => {
                    depth -= 1;
                    self.at += 2;
                    if depth == 0 {
                        break;
                    }
                }
                _ => self.at += 1,
            }
        }
        self.blank(start..self.at);
    }

    /// A string literal, here at its opening quote. Raw ones end at a quote and `hashes` hashes.
    fn string(&mut self, hashes: usize) {
        self.at += 1;
        let start = self.at;
        while let Some(byte) = self.byte(0) {
            let closes = byte == b'"' && (1..=hashes).all(|n| self.byte(n) == Some(b'#'));
            if closes {
                break;
            }
            // An escape is possible only where there are no hashes; `r""` comes in by `raw_string`.
            self.at += if byte == b'\\' && hashes == 0 { 2 } else { 1 };
        }
        self.at = self.at.min(self.bytes.len());
        self.strings.push(start..self.at);
        self.blank(start..self.at);
        self.at += 1 + hashes;
    }

    fn raw_string(&mut self) {
        let mut hashes = 0;
        while self.byte(1 + hashes) == Some(b'#') {
            hashes += 1;
        }
        if self.byte(1 + hashes) != Some(b'"') {
            // A raw identifier.
            self.at += 1;
        } else if hashes == 0 {
            let start = self.at + 2;
            let end = (start..self.bytes.len()).find(|i| self.bytes[*i] == b'"');
            let end = end.unwrap_or(self.bytes.len());
            self.strings.push(start..end);
            self.blank(start..end);
            self.at = end + 1;
        } else {
            self.at += 1 + hashes;
            self.string(hashes);
        }
    }

    /// A character literal or a lifetime.
    fn quote(&mut self) {
        let start = self.at + 1;
        let rest = &self.bytes[start.min(self.bytes.len())..];
        let length = match rest.first() {
            Some(b'\\') => rest.iter().skip(2).position(|b| *b == b'\'').map(|n| n + 2),
            Some(first) => {
                let width = match first {
                    0xF0.. => 4,
                    0xE0.. => 3,
                    0xC0.. => 2,
                    _ => 1,
                };
                (rest.get(width) == Some(&b'\'')).then_some(width)
            }
            None => None,
        };
        if let Some(length) = length {
            self.blank(start..start + length);
            self.at = start + length + 1;
        } else {
            self.at = start;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRICKY: &str = r####"
/* } /* nested " */ fn code( */
fn decode() -> &'static str { "not_this" }
trait Named { fn code(&self) -> &'static str; }
impl<'a> A<'a> {
    fn code(&self) -> &'static str {
        // "commented_out" }
        match self { A::X('"') => "first\"_one", A::Y('}') => r#"second"one"#, A::Z('\'') => r"third\" }
    }
}
fn after() { "other" }
mod a; pub(crate) mod b { } // mod c;
"####;

    #[test]
    fn the_strings_of_a_function_are_found_among_tricky_text() {
        let source = Source::new(TRICKY);
        assert_eq!(source.code.len(), TRICKY.len());
        let bodies = source.bodies("code");
        assert_eq!(bodies.len(), 1);
        assert_eq!(
            source.strings_in(&bodies[0]),
            [r#"first\"_one"#, "second\"one", "third\\"]
        );
        assert_eq!(source.line(bodies[0].start), 6);
    }

    #[test]
    fn a_first_argument_is_found_only_where_it_is_a_literal() {
        let text = r#"
// Failure::new("in_a_comment")
a::Failure::new("same_line", "second");
Failure::new( // why
    "next_line",
    other("inner"));
Failure::new(&format!("made_{x}"), "second");
Failure::new(error.code(), "second");
OtherFailure::new("another_type")
"#;
        let found: Vec<_> = Source::new(text)
            .first_arguments("Failure::new(")
            .into_iter()
            .map(|(_, name)| name)
            .collect();
        assert_eq!(found, ["same_line", "next_line"]);
    }

    #[test]
    fn modules_are_told_apart_by_where_their_text_is() {
        assert_eq!(Source::new(TRICKY).modules(), [("a", true), ("b", false)]);
    }

    #[test]
    fn text_that_ends_in_the_middle_of_a_literal_is_no_failure() {
        for text in ["\"open", "r#\"open", "'", "'\\", "/* open", "\"\\", "r"] {
            assert_eq!(Source::new(text).code.len(), text.len());
        }
    }
}
