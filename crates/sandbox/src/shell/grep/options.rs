//! The command line of `grep`.

use crate::search::Glob;

/// How patterns are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Syntax {
    Basic,
    Extended,
    Fixed,
    /// `-P`: that of Rust's `regex` crate, which is Perl's without look-around and back references.
    Rust,
}

/// What is done with directories.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Walk {
    None,
    /// `-r`: links on the way are left out.
    Plain,
    /// `-R`: links are followed.
    Links,
}

/// What is done with files that have a null byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Binary {
    /// One line says that they match.
    Told,
    /// `-a`.
    Text,
    /// `-I`.
    Skip,
}

/// A parsed command line.
#[derive(Debug)]
pub(super) struct Options {
    pub(super) syntax: Syntax,
    pub(super) patterns: Vec<String>,
    /// Files with patterns, one a line.
    pub(super) pattern_files: Vec<String>,
    pub(super) files: Vec<String>,
    pub(super) walk: Walk,
    pub(super) binary: Binary,
    pub(super) ignore_case: bool,
    pub(super) invert: bool,
    pub(super) word: bool,
    pub(super) line: bool,
    pub(super) count: bool,
    pub(super) list: bool,
    pub(super) list_without: bool,
    pub(super) only_matching: bool,
    pub(super) quiet: bool,
    pub(super) silent: bool,
    pub(super) numbers: bool,
    pub(super) offsets: bool,
    pub(super) null: bool,
    pub(super) skip_directories: bool,
    pub(super) label: Option<String>,
    pub(super) max: Option<u64>,
    pub(super) before: usize,
    pub(super) after: usize,
    with_name: Option<bool>,
    /// Globs and whether they include; the last that matches counts.
    globs: Vec<(Glob, bool)>,
    exclude_dirs: Vec<Glob>,
}

/// Long options that take a value, and their short forms.
const VALUES: [(&str, char); 7] = [
    ("--regexp", 'e'),
    ("--file", 'f'),
    ("--max-count", 'm'),
    ("--after-context", 'A'),
    ("--before-context", 'B'),
    ("--context", 'C'),
    ("--directories", 'd'),
];
/// Long options without one.
const FLAGS: [(&str, char); 25] = [
    ("--basic-regexp", 'G'),
    ("--extended-regexp", 'E'),
    ("--fixed-strings", 'F'),
    ("--perl-regexp", 'P'),
    ("--ignore-case", 'i'),
    ("--invert-match", 'v'),
    ("--word-regexp", 'w'),
    ("--line-regexp", 'x'),
    ("--count", 'c'),
    ("--files-with-matches", 'l'),
    ("--files-without-match", 'L'),
    ("--only-matching", 'o'),
    ("--quiet", 'q'),
    ("--silent", 'q'),
    ("--no-messages", 's'),
    ("--line-number", 'n'),
    ("--byte-offset", 'b'),
    ("--with-filename", 'H'),
    ("--no-filename", 'h'),
    ("--recursive", 'r'),
    ("--dereference-recursive", 'R'),
    ("--text", 'a'),
    ("--null", 'Z'),
    ("--initial-tab", 'T'),
    ("--binary", 'U'),
];
/// Long options that change nothing here.
const IGNORED: [&str; 5] = [
    "--color",
    "--colour",
    "--line-buffered",
    "--no-ignore-case",
    "--mmap",
];

impl Options {
    /// Reads a command line; the error is what to print.
    pub(super) fn read(name: &str, args: &[String]) -> Result<Self, String> {
        let mut options = Self {
            syntax: match name {
                "egrep" => Syntax::Extended,
                "fgrep" => Syntax::Fixed,
                _ => Syntax::Basic,
            },
            patterns: Vec::new(),
            pattern_files: Vec::new(),
            files: Vec::new(),
            walk: Walk::None,
            binary: Binary::Told,
            ignore_case: false,
            invert: false,
            word: false,
            line: false,
            count: false,
            list: false,
            list_without: false,
            only_matching: false,
            quiet: false,
            silent: false,
            numbers: false,
            offsets: false,
            null: false,
            skip_directories: false,
            label: None,
            max: None,
            before: 0,
            after: 0,
            with_name: None,
            globs: Vec::new(),
            exclude_dirs: Vec::new(),
        };
        let mut operands: Vec<&str> = Vec::new();
        let mut args = args.iter().map(String::as_str);
        while let Some(arg) = args.next() {
            if arg == "--" {
                operands.extend(args.by_ref());
            } else if let Some(long) = arg.strip_prefix("--") {
                let name = &arg[..2 + long.find('=').unwrap_or(long.len())];
                let value = long.split_once('=').map(|(_, value)| value);
                options.long(name, value, &mut args)?;
            } else if arg.len() > 1 && arg.starts_with('-') {
                options.short(&arg[1..], &mut args)?;
            } else {
                operands.push(arg);
            }
        }
        if options.patterns.is_empty() && options.pattern_files.is_empty() {
            if operands.is_empty() {
                return Err("Usage: grep [OPTION]... PATTERNS [FILE]...".into());
            }
            options.pattern(operands.remove(0));
        }
        options.files = operands.into_iter().map(str::to_owned).collect();
        // Context makes no sense where no lines are printed.
        if options.count || options.list || options.list_without || options.quiet {
            (options.before, options.after) = (0, 0);
        }
        Ok(options)
    }

    fn pattern(&mut self, text: &str) {
        self.patterns.extend(text.split('\n').map(str::to_owned));
    }

    fn short<'a>(
        &mut self,
        mut rest: &'a str,
        args: &mut impl Iterator<Item = &'a str>,
    ) -> Result<(), String> {
        while let Some(letter) = rest.chars().next() {
            rest = &rest[letter.len_utf8()..];
            if letter.is_ascii_digit() {
                let end = rest
                    .find(|c: char| !c.is_ascii_digit())
                    .unwrap_or(rest.len());
                self.value('C', &format!("{letter}{}", &rest[..end]))?;
                rest = &rest[end..];
            } else if VALUES.iter().any(|(_, short)| *short == letter) {
                let value = if rest.is_empty() {
                    args.next()
                } else {
                    Some(rest)
                };
                let value =
                    value.ok_or(format!("grep: option requires an argument -- '{letter}'"))?;
                return self.value(letter, value);
            } else {
                self.flag(letter)?;
            }
        }
        Ok(())
    }

    fn long<'a>(
        &mut self,
        name: &'a str,
        value: Option<&'a str>,
        args: &mut impl Iterator<Item = &'a str>,
    ) -> Result<(), String> {
        if IGNORED.contains(&name) {
            return Ok(());
        }
        if let Some((_, letter)) = FLAGS.iter().find(|(long, _)| *long == name) {
            return self.flag(*letter);
        }
        let taken = [
            "--include",
            "--exclude",
            "--exclude-dir",
            "--label",
            "--binary-files",
        ];
        if !taken.contains(&name) && !VALUES.iter().any(|(long, _)| *long == name) {
            return Err(format!(
                "grep: unrecognized option '{name}' (SH-28 in docs/limits.md)"
            ));
        }
        let value = value.or_else(|| args.next());
        let value = value.ok_or(format!("grep: option '{name}' requires an argument"))?;
        let glob =
            |text: &str| Glob::new(text).map_err(|error| format!("grep: {name}={text}: {error}"));
        match name {
            "--include" => self.globs.push((glob(value)?, true)),
            "--exclude" => self.globs.push((glob(value)?, false)),
            "--exclude-dir" => self.exclude_dirs.push(glob(value)?),
            "--label" => self.label = Some(value.to_owned()),
            "--binary-files" => {
                self.binary = match value {
                    "text" => Binary::Text,
                    "without-match" => Binary::Skip,
                    "binary" => Binary::Told,
                    _ => return Err("grep: invalid argument for --binary-files".into()),
                };
            }
            _ => {
                let letter = VALUES
                    .iter()
                    .find(|(long, _)| *long == name)
                    .map_or('e', |(_, letter)| *letter);
                self.value(letter, value)?;
            }
        }
        Ok(())
    }

    fn value(&mut self, letter: char, value: &str) -> Result<(), String> {
        let length = || {
            let number = value
                .parse::<usize>()
                .map_err(|_| format!("grep: {value}: invalid context length argument"));
            // More lines than any file has.
            number.map(|number| number.min(1 << 24))
        };
        match letter {
            'e' => self.pattern(value),
            'f' => self.pattern_files.push(value.to_owned()),
            'm' => {
                let number = value
                    .parse::<i64>()
                    .map_err(|_| "grep: invalid max count".to_owned())?;
                self.max = u64::try_from(number).ok();
            }
            'A' => self.after = length()?,
            'B' => self.before = length()?,
            'C' => (self.before, self.after) = (length()?, length()?),
            _ => match value {
                "recurse" => self.walk = Walk::Plain,
                "skip" => self.skip_directories = true,
                "read" => {}
                _ => {
                    return Err(format!(
                        "grep: invalid argument '{value}' for '--directories'"
                    ));
                }
            },
        }
        Ok(())
    }

    fn flag(&mut self, letter: char) -> Result<(), String> {
        match letter {
            'G' => self.syntax = Syntax::Basic,
            'E' => self.syntax = Syntax::Extended,
            'F' => self.syntax = Syntax::Fixed,
            'P' => self.syntax = Syntax::Rust,
            'i' | 'y' => self.ignore_case = true,
            'v' => self.invert = true,
            'w' => self.word = true,
            'x' => self.line = true,
            'c' => self.count = true,
            'l' => (self.list, self.list_without) = (true, false),
            'L' => (self.list, self.list_without) = (false, true),
            'o' => self.only_matching = true,
            'q' => self.quiet = true,
            's' => self.silent = true,
            'n' => self.numbers = true,
            'b' => self.offsets = true,
            'H' => self.with_name = Some(true),
            'h' => self.with_name = Some(false),
            'r' => self.walk = Walk::Plain,
            'R' => self.walk = Walk::Links,
            'a' => self.binary = Binary::Text,
            'I' => self.binary = Binary::Skip,
            'Z' => self.null = true,
            // Tabs, and what concerns other systems.
            'T' | 'U' | 'u' => {}
            letter => {
                return Err(format!(
                    "grep: invalid option -- '{letter}' (SH-28 in docs/limits.md)"
                ));
            }
        }
        Ok(())
    }

    /// Whether names are printed.
    pub(super) fn named(&self) -> bool {
        self.with_name
            .unwrap_or(self.files.len() > 1 || self.walk != Walk::None)
    }

    /// Whether a file of this name is searched.
    pub(super) fn wants(&self, name: &str) -> bool {
        match self.globs.iter().rev().find(|(glob, _)| glob.matches(name)) {
            Some((_, include)) => *include,
            // With an `--include` first, what no glob names is left out.
            None => self.globs.first().is_none_or(|(_, include)| !include),
        }
    }

    /// Whether a directory of this name is searched.
    pub(super) fn enters(&self, name: &str) -> bool {
        !self.exclude_dirs.iter().any(|glob| glob.matches(name))
    }
}
