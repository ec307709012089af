//! POSIX patterns, basic and extended, as Rust's regular expressions.

/// What a pattern became.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Translated {
    pub(super) regex: String,
    /// A letter behind a backslash that means nothing there.
    pub(super) stray: Option<char>,
}

/// Why a pattern cannot be used.
pub(super) type Refused = String;

struct Reader<'a> {
    chars: std::iter::Peekable<std::str::Chars<'a>>,
    extended: bool,
    stray: Option<char>,
    out: String,
    /// Where the last thing that can be repeated begins; none where nothing can be.
    atom: Option<usize>,
    /// It is repeated already.
    repeated: bool,
    /// Where the open groups begin.
    open: Vec<usize>,
    groups: usize,
}

/// Translates a pattern of `grep` (basic) or `grep -E` (extended).
pub(super) fn translate(pattern: &str, extended: bool) -> Result<Translated, Refused> {
    let mut reader = Reader {
        chars: pattern.chars().peekable(),
        extended,
        stray: None,
        out: String::new(),
        atom: None,
        repeated: false,
        open: Vec::new(),
        groups: 0,
    };
    while let Some(c) = reader.chars.next() {
        reader.next(c)?;
    }
    if !reader.open.is_empty() {
        return Err("Unmatched ( or \\(".into());
    }
    Ok(Translated {
        regex: reader.out,
        stray: reader.stray,
    })
}

impl Reader<'_> {
    fn next(&mut self, c: char) -> Result<(), Refused> {
        match c {
            '\\' => return self.escaped(),
            '[' => return self.class(),
            '.' => self.push("."),
            '*' if self.atom.is_none() => self.push("\\*"),
            '*' => self.repeat("*"),
            '^' if self.extended || self.begins() => self.anchor("^"),
            '$' if self.extended || self.ends() => self.anchor("$"),
            '(' | ')' | '|' | '+' | '?' | '{' if self.extended => return self.operator(c),
            c => self.literal(c),
        }
        Ok(())
    }

    fn escaped(&mut self) -> Result<(), Refused> {
        let Some(c) = self.chars.next() else {
            return Err("Trailing backslash".into());
        };
        match c {
            '(' | ')' | '|' | '+' | '?' | '{' if !self.extended => return self.operator(c),
            '<' | '>' | 'b' | 'B' => self.anchor(&format!("\\{c}")),
            'w' | 'W' => self.push(&format!("\\{c}")),
            's' => self.push("[[:space:]]"),
            'S' => self.push("[^[:space:]]"),
            '`' => self.anchor("\\A"),
            '\'' => self.anchor("\\z"),
            '1'..='9' => {
                if (c as usize - '0' as usize) > self.groups {
                    return Err("Invalid back reference".into());
                }
                return Err(format!(
                    "the back reference \\{c} is not supported (SH-28 in docs/limits.md); use sed"
                ));
            }
            c => {
                if c.is_ascii_alphanumeric() {
                    self.stray.get_or_insert(c);
                }
                self.literal(c);
            }
        }
        Ok(())
    }

    fn operator(&mut self, c: char) -> Result<(), Refused> {
        match c {
            '(' => {
                self.open.push(self.out.len());
                self.groups += 1;
                self.out.push_str("(?:");
                self.atom = None;
            }
            ')' => match self.open.pop() {
                Some(at) => {
                    self.out.push(')');
                    self.atom = Some(at);
                    self.repeated = false;
                }
                None if self.extended => self.literal(')'),
                None => return Err("Unmatched ) or \\)".into()),
            },
            '|' => {
                self.out.push('|');
                self.atom = None;
            }
            '+' | '?' if self.atom.is_none() => self.literal(c),
            '+' => self.repeat("+"),
            '?' => self.repeat("?"),
            _ => return self.interval(),
        }
        Ok(())
    }

    /// Behind `{` or `\{`.
    fn interval(&mut self) -> Result<(), Refused> {
        let rest: String = self.chars.clone().collect();
        let close = if self.extended { "}" } else { "\\}" };
        let body = rest.split_once(close).map(|(body, _)| body);
        let valid = body.filter(|body| {
            let (low, high) = body.split_once(',').unwrap_or((body, body));
            let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
            digits(low) && digits(high) && (!low.is_empty() || body.contains(','))
        });
        let (Some(body), true) = (valid, self.atom.is_some()) else {
            if self.extended {
                self.literal('{');
                return Ok(());
            }
            return Err("Invalid content of \\{\\}".into());
        };
        for _ in 0..body.chars().count() + close.len() {
            self.chars.next();
        }
        let text = match body.split_once(',') {
            Some(("", high)) => format!("{{0,{high}}}"),
            _ => format!("{{{body}}}"),
        };
        self.repeat(&text);
        Ok(())
    }

    /// Repeats the last atom. A second repetition would read as a lazy one, so the first gets a group.
    fn repeat(&mut self, text: &str) {
        if let (true, Some(at)) = (self.repeated, self.atom) {
            self.out.insert_str(at, "(?:");
            self.out.push(')');
        }
        self.out.push_str(text);
        self.repeated = true;
    }

    /// Something that can be repeated.
    fn push(&mut self, text: &str) {
        self.atom = Some(self.out.len());
        self.repeated = false;
        self.out.push_str(text);
    }

    /// Something without a width; a star behind it is a star.
    fn anchor(&mut self, text: &str) {
        self.out.push_str(text);
        self.atom = None;
    }

    fn literal(&mut self, c: char) {
        let mut text = String::new();
        if c.is_ascii_punctuation() {
            text.push('\\');
        }
        text.push(c);
        self.push(&text);
    }

    /// Whether a `^` in a basic pattern stands at a start.
    fn begins(&self) -> bool {
        self.out.is_empty()
            || self.out.ends_with("(?:")
            || (self.out.ends_with('|') && !self.out.ends_with("\\|"))
    }

    /// Whether a `$` in a basic pattern stands at an end.
    fn ends(&self) -> bool {
        let mut ahead = self.chars.clone();
        match ahead.next() {
            None => true,
            Some('\\') => matches!(ahead.next(), Some(')' | '|')),
            Some(_) => false,
        }
    }

    /// A bracket expression; a backslash in it is itself.
    fn class(&mut self) -> Result<(), Refused> {
        let unmatched = || "Unmatched [, [^, [:, [., or [=".to_owned();
        let mut out = String::from("[");
        if self.chars.next_if_eq(&'^').is_some() {
            out.push('^');
        }
        let mut first = true;
        loop {
            match self.chars.next().ok_or_else(unmatched)? {
                ']' if !first => break,
                '[' if self.chars.peek() == Some(&':') => {
                    self.chars.next();
                    let mut name = String::new();
                    loop {
                        match self.chars.next().ok_or_else(unmatched)? {
                            ':' if self.chars.next_if_eq(&']').is_some() => break,
                            c => name.push(c),
                        }
                    }
                    let known = [
                        "alpha", "digit", "alnum", "upper", "lower", "space", "blank", "punct",
                        "print", "graph", "cntrl", "xdigit",
                    ];
                    if !known.contains(&name.as_str()) {
                        return Err("Invalid character class name".into());
                    }
                    out.push_str(&format!("[:{name}:]"));
                }
                '[' if matches!(self.chars.peek(), Some('.' | '=')) => {
                    return Err(
                        "collating elements are not supported (SH-28 in docs/limits.md)".into(),
                    );
                }
                // Between two characters it is a range, at the ends itself.
                '-' if first || self.chars.peek() == Some(&']') => out.push_str("\\-"),
                '-' => out.push('-'),
                c => {
                    if c.is_ascii_punctuation() {
                        out.push('\\');
                    }
                    out.push(c);
                }
            }
            first = false;
        }
        out.push(']');
        self.push(&out);
        Ok(())
    }
}
