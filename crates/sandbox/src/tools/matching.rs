//! Finding the text that a model means.
//!
//! Each text is looked for exactly, with line endings made equal; if it is nowhere, once more with
//! what models get wrong made equal too: compatibility forms (NFKC), spaces at line ends, curly quotes,
//! dashes, special spaces. Whatever matched, only the matched bytes are replaced.

use std::ops::Range;

use unicode_normalization::{UnicodeNormalization, char::canonical_combining_class};

/// A text to replace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replacement<'a> {
    /// What is there.
    pub old: &'a str,
    /// What takes its place.
    pub new: &'a str,
    /// Every occurrence; else it must be the only one.
    pub all: bool,
}

/// Replaces texts in `text`, all matched against it as it is; returns the result and the number of
/// places. `path` is for messages.
///
/// # Errors
///
/// A message for the model: nothing to do, empty or missing text, several places without `all`,
/// overlap, or a result that is the same.
pub fn replace(
    text: &str,
    edits: &[Replacement<'_>],
    path: &str,
) -> Result<(String, usize), String> {
    if edits.is_empty() {
        return Err("Give at least one edit.".into());
    }
    let body = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mark = &text[..text.len() - body.len()];
    let ending = line_ending(body);
    let exact = View::exact(body);
    let mut fuzzy = None;
    let mut places: Vec<(Range<usize>, usize)> = Vec::new();
    for (index, edit) in edits.iter().enumerate() {
        let name = if edits.len() == 1 {
            "oldText".to_owned()
        } else {
            format!("edits[{index}].oldText")
        };
        if edit.old.is_empty() {
            return Err(format!("{name} must not be empty."));
        }
        let old = edit.old.replace("\r\n", "\n");
        let mut found = exact.find(&old);
        if found.is_empty() {
            found = fuzzy
                .get_or_insert_with(|| View::fuzzy(body))
                .find(&View::fuzzy(&old).text);
        }
        match found.len() {
            0 => {
                return Err(format!(
                    "Could not find {name} in {path}. It must match exactly, including whitespace and indentation. Read the file again."
                ));
            }
            1 => {}
            count if !edit.all => {
                return Err(format!(
                    "Found {count} occurrences of {name} in {path}. Give more context to make it unique, or set replaceAll."
                ));
            }
            _ => {}
        }
        places.extend(found.into_iter().map(|place| (place, index)));
    }
    places.sort_unstable_by_key(|(place, _)| (place.start, place.end));
    for pair in places.windows(2) {
        if let [(one, first), (other, second)] = pair
            && (other.start < one.end || one == other)
        {
            let (first, second) = (first.min(second), first.max(second));
            return Err(format!(
                "edits[{first}] and edits[{second}] overlap in {path}. Merge them into one edit."
            ));
        }
    }
    let mut out = String::with_capacity(text.len());
    out.push_str(mark);
    let mut at = 0;
    for (place, index) in &places {
        out.push_str(&body[at..place.start]);
        let new = edits
            .get(*index)
            .map_or("", |edit| edit.new)
            .replace("\r\n", "\n");
        out.push_str(&if ending == "\n" {
            new
        } else {
            new.replace('\n', ending)
        });
        at = place.end;
    }
    out.push_str(&body[at..]);
    if out == text {
        return Err(format!(
            "No changes made to {path}: the new text is the same as the old one."
        ));
    }
    Ok((out, places.len()))
}

/// The line ending that a text uses first.
fn line_ending(text: &str) -> &'static str {
    match text.find('\n') {
        Some(at) if text[..at].ends_with('\r') => "\r\n",
        _ => "\n",
    }
}

/// A text made comparable, with the way back to the bytes it was made from.
struct View {
    text: String,
    /// For each piece: where it begins in `text`, and the bytes that it stands for.
    pieces: Vec<(usize, Range<usize>)>,
}

impl View {
    /// Line endings made equal.
    fn exact(source: &str) -> Self {
        let mut view = Self {
            text: String::with_capacity(source.len()),
            pieces: Vec::new(),
        };
        let mut at = 0;
        for (found, _) in source.match_indices("\r\n") {
            view.push_plain(source, at..found);
            view.push("\n", found..found + 2);
            at = found + 2;
        }
        view.push_plain(source, at..source.len());
        view
    }

    /// A stretch that stands for itself, byte by byte.
    fn push_plain(&mut self, source: &str, range: Range<usize>) {
        if !range.is_empty() {
            self.pieces.push((self.text.len(), range.clone()));
            self.text.push_str(&source[range]);
        }
    }

    fn push(&mut self, text: &str, range: Range<usize>) {
        self.pieces.push((self.text.len(), range));
        self.text.push_str(text);
    }

    /// Everything made equal that models get wrong.
    fn fuzzy(source: &str) -> Self {
        let mut view = Self {
            text: String::with_capacity(source.len()),
            pieces: Vec::new(),
        };
        let mut at = 0;
        for line in source.split_inclusive('\n') {
            let content = line.strip_suffix('\n').unwrap_or(line);
            let content = content.strip_suffix('\r').unwrap_or(content);
            let kept = content.trim_end();
            let mut clusters = clusters(kept).peekable();
            while let Some(cluster) = clusters.next() {
                let start = at + cluster.start;
                // What is cut off at the end of the line goes with its last character.
                let end = if clusters.peek().is_none() {
                    at + content.len()
                } else {
                    at + cluster.end
                };
                let text: String = kept[cluster].nfkc().map(plain).collect();
                view.push(&text, start..end);
            }
            if line.ends_with('\n') {
                // Of an empty line the spaces go with its end.
                let start = if kept.is_empty() {
                    at
                } else {
                    at + content.len()
                };
                view.push("\n", start..at + line.len());
            }
            at += line.len();
        }
        view
    }

    /// The bytes of every place where `wanted` is, without overlaps.
    fn find(&self, wanted: &str) -> Vec<Range<usize>> {
        if wanted.is_empty() {
            return Vec::new();
        }
        self.text
            .match_indices(wanted)
            .map(|(at, _)| self.start(at)..self.end(at + wanted.len()))
            .collect()
    }

    /// The source byte where the character at `at` begins.
    fn start(&self, at: usize) -> usize {
        let index = self
            .pieces
            .partition_point(|(begin, _)| *begin <= at)
            .saturating_sub(1);
        let Some((begin, range)) = self.pieces.get(index) else {
            return 0;
        };
        range.start + self.inside(index, at - begin)
    }

    /// The source byte after the character that ends at `at`.
    fn end(&self, at: usize) -> usize {
        let index = self
            .pieces
            .partition_point(|(begin, _)| *begin < at)
            .saturating_sub(1);
        let Some((begin, range)) = self.pieces.get(index) else {
            return 0;
        };
        let length = self.length(index);
        if at - begin == length {
            range.end
        } else {
            range.start + self.inside(index, at - begin)
        }
    }

    /// How far into its source an offset of a piece is: all the way where it stands for itself.
    fn inside(&self, index: usize, offset: usize) -> usize {
        let plain = self
            .pieces
            .get(index)
            .is_some_and(|(_, range)| range.len() == self.length(index));
        if plain { offset } else { 0 }
    }

    fn length(&self, index: usize) -> usize {
        let begin = self.pieces.get(index).map_or(0, |(begin, _)| *begin);
        self.pieces
            .get(index + 1)
            .map_or(self.text.len(), |(next, _)| *next)
            - begin
    }
}

/// Characters together with the marks that combine with them.
fn clusters(text: &str) -> impl Iterator<Item = Range<usize>> {
    let mut chars = text.char_indices().peekable();
    std::iter::from_fn(move || {
        let (start, first) = chars.next()?;
        let mut end = start + first.len_utf8();
        while let Some((at, next)) =
            chars.next_if(|(_, next)| canonical_combining_class(*next) != 0)
        {
            end = at + next.len_utf8();
        }
        Some(start..end)
    })
}

/// The plain form of a character.
fn plain(c: char) -> char {
    match c {
        '\u{2018}'..='\u{201b}' => '\'',
        '\u{201c}'..='\u{201f}' => '"',
        '\u{2010}'..='\u{2015}' | '\u{2212}' => '-',
        '\u{a0}' | '\u{2000}'..='\u{200a}' | '\u{202f}' | '\u{205f}' | '\u{3000}' => ' ',
        c => c,
    }
}
