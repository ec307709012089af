//! `grep`, `egrep`, `fgrep`, over ripgrep's libraries: the crate's own takes ten times as long for the
//! files of a directory.

mod options;
mod pattern;

use std::{collections::HashSet, io, sync::Arc};

use async_trait::async_trait;
use bashkit::{Command, CommandContext, CommandStatus, Result};
use bytes::Bytes;
use grep_matcher::Matcher;
use grep_regex::{RegexMatcher, RegexMatcherBuilder};
use grep_searcher::{Searcher, SearcherBuilder, Sink, SinkContext, SinkMatch};

use super::{
    commands::{Left, PIPE_CLOSED, read_piece, write},
    fs::{READ_BYTES, WorkspaceFs},
};
use crate::workspace::{
    Overlay, WORKING_DIRECTORY, WorkspaceError, absolute,
    entry::{DirId, Entry, Node},
    path,
};
use options::{Binary, Options, Syntax, Walk};

/// Output that is collected before it is written.
const BLOCK: usize = 16 << 10;
/// Bytes searched before other tasks get a turn.
const YIELD_EVERY: usize = 4 << 20;
/// Linked directories on the way to a file, with `-R`.
const LINKS: usize = 40;
/// What the regular expressions may take, in bytes.
const REGEX_BYTES: usize = 10 << 20;

pub(crate) struct Grep(pub(crate) Arc<WorkspaceFs>);

#[async_trait]
impl Command for Grep {
    async fn execute(&self, ctx: CommandContext<'_>) -> Result<CommandStatus> {
        let overlay = self.0.overlay()?;
        let cwd = ctx.cwd.to_str().unwrap_or(WORKING_DIRECTORY).to_owned();
        let mut options = match Options::read(ctx.name, ctx.args) {
            Ok(options) => options,
            Err(message) => return refused(&ctx, &message).await,
        };
        for file in std::mem::take(&mut options.pattern_files) {
            let text = if file == "-" {
                all_input(&ctx).await?
            } else {
                read(&overlay, &absolute(&file, &cwd)).await
            };
            match text {
                Ok(text) => {
                    let text = String::from_utf8_lossy(&text).into_owned();
                    options.patterns.extend(text.lines().map(str::to_owned));
                }
                Err(error) => {
                    return refused(&ctx, &format!("grep: {file}: {}", error.strerror())).await;
                }
            }
        }
        let (matcher, warning) = match matcher(&options) {
            Ok(built) => built,
            Err(message) => return refused(&ctx, &format!("grep: {message}")).await,
        };
        if let Some(warning) = warning {
            ctx.stderr.write_all(warning.as_bytes()).await?;
        }
        let files = !options.files.is_empty() && !options.files.iter().any(|file| file == "-");
        let lost = Left::new(&self.0, files);
        let mut searcher = SearcherBuilder::new();
        searcher
            .before_context(options.before)
            .after_context(options.after)
            .invert_match(options.invert);
        let mut run = Run {
            fs: &self.0,
            ctx: &ctx,
            overlay,
            cwd,
            named: options.named(),
            options,
            matcher,
            searcher: searcher.build(),
            out: Vec::new(),
            open: true,
            selected: false,
            failed: false,
            grouped: false,
            notes: Vec::new(),
            since_yield: 0,
        };
        run.all().await?;
        run.flush(0).await?;
        if !run.open {
            return Ok(PIPE_CLOSED);
        }
        let code = match (run.failed, run.selected) {
            (true, true) if run.options.quiet => 0,
            (true, _) => 2,
            (false, true) => 0,
            (false, false) => 1,
        };
        lost.tell(&ctx).await?;
        Ok(CommandStatus::with_code(code))
    }
}

async fn refused(ctx: &CommandContext<'_>, message: &str) -> Result<CommandStatus> {
    ctx.stderr
        .write_all(format!("{message}\n").as_bytes())
        .await?;
    Ok(CommandStatus::with_code(2))
}

async fn read(overlay: &Overlay, path: &str) -> std::result::Result<Bytes, WorkspaceError> {
    let stat = overlay.stat(path).await?;
    if stat.size > READ_BYTES {
        return Err(WorkspaceError::TooLarge {
            path: path.into(),
            limit: READ_BYTES,
        });
    }
    overlay.read(path).await
}

/// All of the standard input, bounded.
async fn all_input(ctx: &CommandContext<'_>) -> Result<std::result::Result<Bytes, WorkspaceError>> {
    let mut all = Vec::new();
    while let Some(more) = ctx.stdin.read_chunk().await? {
        all.extend_from_slice(&more);
        if all.len() as u64 > READ_BYTES {
            return Ok(Err(WorkspaceError::TooLarge {
                path: "(standard input)".into(),
                limit: READ_BYTES,
            }));
        }
    }
    Ok(Ok(Bytes::from(all)))
}

/// The patterns as one matcher, and a warning.
fn matcher(options: &Options) -> std::result::Result<(RegexMatcher, Option<String>), String> {
    let mut warning = None;
    let mut parts = Vec::new();
    for pattern in &options.patterns {
        let part = match options.syntax {
            Syntax::Fixed => regex_escape(pattern),
            Syntax::Rust => pattern.clone(),
            Syntax::Basic | Syntax::Extended => {
                let done = pattern::translate(pattern, options.syntax == Syntax::Extended)?;
                if let Some(letter) = done.stray {
                    warning.get_or_insert(format!("grep: warning: stray \\ before {letter}\n"));
                }
                done.regex
            }
        };
        parts.push(if options.line {
            format!("^(?:{part})$")
        } else {
            part
        });
    }
    // No pattern at all (an empty file of patterns) matches nothing.
    let joined = match &parts[..] {
        [] => "[^\\x00-\\x{10FFFF}]".to_owned(),
        [one] => one.clone(),
        many => many
            .iter()
            .map(|part| format!("(?:{part})"))
            .collect::<Vec<_>>()
            .join("|"),
    };
    let mut builder = RegexMatcherBuilder::new();
    builder
        .case_insensitive(options.ignore_case)
        .word(options.word && !options.line)
        .multi_line(true)
        .line_terminator(Some(b'\n'))
        .size_limit(REGEX_BYTES);
    let built = builder.build(&joined).map_err(|error| {
        let why = error.to_string();
        let why = why
            .lines()
            .last()
            .unwrap_or_default()
            .trim_start_matches("error: ")
            .to_owned();
        match options.syntax {
            Syntax::Rust => format!(
                "{why} (look-around and back references are not supported: SH-28 in docs/limits.md)"
            ),
            Syntax::Basic | Syntax::Extended | Syntax::Fixed => why,
        }
    })?;
    Ok((built, warning))
}

fn regex_escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii_punctuation() {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// One call of the command.
struct Run<'a, 'c> {
    fs: &'a WorkspaceFs,
    ctx: &'a CommandContext<'c>,
    overlay: Overlay,
    cwd: String,
    options: Options,
    matcher: RegexMatcher,
    searcher: Searcher,
    /// Names are printed.
    named: bool,
    out: Vec<u8>,
    /// The reader of the output is there.
    open: bool,
    selected: bool,
    failed: bool,
    /// A group of lines was printed, so that a separator comes before the next one.
    grouped: bool,
    /// For the standard error.
    notes: Vec<u8>,
    since_yield: usize,
}

/// What was found in one file, so far.
#[derive(Default)]
struct Tally {
    lines: u64,
    /// Lines that came before this piece of the input.
    above: u64,
    /// Bytes that came before it.
    offset: u64,
    binary: bool,
    /// Lines of it were printed.
    printed: bool,
    /// Lines behind the last match that is wanted.
    trailing: usize,
}

impl Run<'_, '_> {
    async fn all(&mut self) -> Result<()> {
        let mut files = std::mem::take(&mut self.options.files);
        let bare = files.is_empty();
        if bare {
            files.push(if self.options.walk == Walk::None {
                "-".into()
            } else {
                ".".into()
            });
        }
        for file in files {
            if !self.open || (self.options.quiet && self.selected) {
                return Ok(());
            }
            if file == "-" {
                self.input().await?;
            } else {
                self.path(&file, bare).await?;
            }
        }
        Ok(())
    }

    async fn error(&mut self, name: &str, why: &str) -> Result<()> {
        self.failed = true;
        if !self.options.silent {
            self.ctx
                .stderr
                .write_all(format!("grep: {name}: {why}\n").as_bytes())
                .await?;
        }
        Ok(())
    }

    /// Searches the standard input piece by piece, so that who writes without end can be stopped.
    async fn input(&mut self) -> Result<()> {
        let name = self
            .options
            .label
            .clone()
            .unwrap_or_else(|| "(standard input)".into());
        let mut tally = Tally::default();
        let mut held: Vec<u8> = Vec::new();
        // Lines of context may lie in the piece before.
        let whole = self.options.before > 0 || self.options.after > 0;
        let mut more = true;
        while more {
            match read_piece(self.ctx, self.fs).await? {
                Some(piece) => held.extend_from_slice(&piece),
                None => more = false,
            }
            if held.len() as u64 > READ_BYTES {
                return self.error(&name, "too much for one search").await;
            }
            let end = match memchr::memrchr(b'\n', &held) {
                Some(end) if more && !whole => end + 1,
                _ if more => continue,
                _ => held.len(),
            };
            tally.binary |= held[..end].contains(&0);
            let rest = held.split_off(end);
            let go_on = self.search(&name, &held, &mut tally);
            tally.above += memchr::memchr_iter(b'\n', &held).count() as u64;
            tally.offset += held.len() as u64;
            held = rest;
            self.flush(BLOCK).await?;
            if !go_on || !self.open {
                break;
            }
        }
        self.finish(&name, &tally);
        self.flush(BLOCK).await
    }

    /// Searches what was named on the command line.
    async fn path(&mut self, file: &str, bare: bool) -> Result<()> {
        let place = absolute(file, &self.cwd);
        let entry = match self.overlay.entry(&place, true).await {
            Ok(entry) => entry,
            Err(error) => return self.error(file, &error.strerror()).await,
        };
        let Node::Directory(dir) = entry.node else {
            let base = file.rsplit('/').next().unwrap_or(file);
            if !self.options.wants(base) {
                return Ok(());
            }
            return self.file(file, &place, &entry).await;
        };
        if self.options.walk == Walk::None {
            if self.options.skip_directories {
                return Ok(());
            }
            return self.directory_refused(file).await;
        }
        if !bare
            && !self.options.enters(
                file.trim_end_matches('/')
                    .rsplit('/')
                    .next()
                    .unwrap_or(file),
            )
        {
            return Ok(());
        }
        let shown = if bare {
            String::new()
        } else {
            format!("{}/", file.trim_end_matches('/'))
        };
        let shown = if file == "/" { "/".into() } else { shown };
        self.below(dir, shown, place).await
    }

    async fn directory_refused(&mut self, file: &str) -> Result<()> {
        if !self.options.silent {
            self.ctx
                .stderr
                .write_all(format!("grep: {file}: Is a directory\n").as_bytes())
                .await?;
        }
        self.failed = true;
        Ok(())
    }

    /// Searches all files below a directory, in the order of their paths. `shown` is what their names
    /// begin with in the output, `place` where the directory is.
    async fn below(&mut self, dir: DirId, shown: String, place: String) -> Result<()> {
        let mut pending: Vec<(Arc<Entry>, String, String, usize)> = Vec::new();
        let mut seen: HashSet<DirId> = HashSet::from([dir]);
        if let Err(error) = self.push_names(dir, &shown, &place, 0, &mut pending).await {
            return self.error(&shown, &error.strerror()).await;
        }
        while let Some((entry, shown, place, links)) = pending.pop() {
            if !self.open || (self.options.quiet && self.selected) {
                return Ok(());
            }
            let mut links = links;
            let entry = match &entry.node {
                Node::Symlink(_) if self.options.walk == Walk::Links && links < LINKS => {
                    links += 1;
                    match self.overlay.entry(&place, true).await {
                        Ok(entry) => entry,
                        Err(error) => {
                            self.error(&shown, &error.strerror()).await?;
                            continue;
                        }
                    }
                }
                Node::Symlink(_) => continue,
                Node::File(_) | Node::Directory(_) => entry,
            };
            let name = shown.rsplit('/').next().unwrap_or(&shown);
            match entry.node {
                Node::Directory(dir) if self.options.enters(name) => {
                    // Through links a directory may be met again.
                    if self.options.walk == Walk::Links && !seen.insert(dir) {
                        continue;
                    }
                    if let Err(error) = self
                        .push_names(dir, &format!("{shown}/"), &place, links, &mut pending)
                        .await
                    {
                        self.error(&shown, &error.strerror()).await?;
                    }
                }
                Node::Directory(_) => {}
                Node::File(_) | Node::Symlink(_) if self.options.wants(name) => {
                    self.file(&shown, &place, &entry).await?;
                }
                Node::File(_) | Node::Symlink(_) => {}
            }
        }
        Ok(())
    }

    async fn push_names(
        &mut self,
        dir: DirId,
        shown: &str,
        place: &str,
        links: usize,
        pending: &mut Vec<(Arc<Entry>, String, String, usize)>,
    ) -> std::result::Result<(), WorkspaceError> {
        let names = self
            .overlay
            .run(|| Ok(self.overlay.peek_list(dir)?))
            .await?;
        for (name, entry) in names.into_iter().rev() {
            pending.push((
                entry,
                format!("{shown}{name}"),
                path::join(place, &name),
                links,
            ));
        }
        Ok(())
    }

    async fn file(&mut self, shown: &str, place: &str, entry: &Entry) -> Result<()> {
        if entry.size() > READ_BYTES {
            return self
                .error(shown, "File too large (a command holds all that it reads)")
                .await;
        }
        let bytes = match self.overlay.content(place, entry).await {
            Ok(bytes) => bytes,
            Err(error) => return self.error(shown, &error.strerror()).await,
        };
        if let Some(meter) = self.fs.meter() {
            meter.moved(bytes.len() as u64);
        }
        let mut tally = Tally {
            binary: memchr::memchr(0, &bytes).is_some(),
            ..Tally::default()
        };
        self.search(shown, &bytes, &mut tally);
        self.finish(shown, &tally);
        self.since_yield += bytes.len();
        if self.since_yield > YIELD_EVERY {
            self.since_yield = 0;
            tokio::task::yield_now().await;
        }
        self.flush(BLOCK).await
    }

    /// Searches a piece; whether more of the same file is wanted.
    fn search(&mut self, name: &str, bytes: &[u8], tally: &mut Tally) -> bool {
        let binary = tally.binary && self.options.binary != Binary::Text;
        if binary && self.options.binary == Binary::Skip {
            return false;
        }
        if self.options.max == Some(tally.lines) {
            return false;
        }
        let mut sink = Lines {
            only_first: self.options.quiet
                || self.options.list
                || self.options.list_without
                || (binary && !self.options.count),
            printing: !(self.options.quiet
                || self.options.list
                || self.options.list_without
                || self.options.count
                || binary),
            name,
            named: self.named,
            options: &self.options,
            matcher: &self.matcher,
            out: &mut self.out,
            grouped: &mut self.grouped,
            tally,
            stopped: false,
        };
        // Our sink never fails, and the text is in memory.
        let _ = self.searcher.search_slice(&self.matcher, bytes, &mut sink);
        !sink.stopped
    }

    /// What is printed after a file.
    fn finish(&mut self, name: &str, tally: &Tally) {
        let found = tally.lines > 0;
        let options = &self.options;
        self.selected |= found;
        if options.quiet {
            return;
        }
        let end = if options.null { b'\0' } else { b'\n' };
        if options.list || options.list_without {
            if found != options.list_without {
                self.out.extend_from_slice(name.as_bytes());
                self.out.push(end);
            }
        } else if options.count {
            if self.named {
                self.out.extend_from_slice(name.as_bytes());
                self.out.push(if options.null { b'\0' } else { b':' });
            }
            self.out
                .extend_from_slice(format!("{}\n", tally.lines).as_bytes());
        } else if found && tally.binary && options.binary == Binary::Told {
            self.notes
                .extend_from_slice(format!("grep: {name}: binary file matches\n").as_bytes());
        }
    }

    async fn flush(&mut self, from: usize) -> Result<()> {
        if !self.notes.is_empty() {
            self.ctx
                .stderr
                .write_all(&std::mem::take(&mut self.notes))
                .await?;
        }
        if self.out.len() > from || (from == 0 && !self.out.is_empty()) {
            self.open = write(self.ctx, self.fs, &self.out).await?;
            self.out.clear();
        }
        Ok(())
    }
}

/// Prints the lines of one file.
struct Lines<'a> {
    name: &'a str,
    named: bool,
    options: &'a Options,
    matcher: &'a RegexMatcher,
    out: &'a mut Vec<u8>,
    grouped: &'a mut bool,
    tally: &'a mut Tally,
    printing: bool,
    only_first: bool,
    stopped: bool,
}

impl Lines<'_> {
    fn head(&mut self, line: Option<u64>, offset: u64, sign: u8) {
        if self.named {
            self.out.extend_from_slice(self.name.as_bytes());
            self.out.push(if self.options.null { b'\0' } else { sign });
        }
        if self.options.numbers {
            let number = line.unwrap_or(0) + self.tally.above;
            self.out.extend_from_slice(number.to_string().as_bytes());
            self.out.push(sign);
        }
        if self.options.offsets {
            self.out
                .extend_from_slice((offset + self.tally.offset).to_string().as_bytes());
            self.out.push(sign);
        }
    }

    fn line(&mut self, line: Option<u64>, offset: u64, bytes: &[u8], sign: u8) {
        self.separate();
        self.head(line, offset, sign);
        self.out.extend_from_slice(bytes);
        if !bytes.ends_with(b"\n") {
            self.out.push(b'\n');
        }
    }

    /// Between the lines of two files comes what comes between two groups of lines.
    fn separate(&mut self) {
        let context = self.options.before > 0 || self.options.after > 0;
        if context && !self.tally.printed && *self.grouped {
            self.out.extend_from_slice(b"--\n");
        }
        self.tally.printed = true;
        *self.grouped = true;
    }

    /// The matches in a line, each on a line of its own.
    fn parts(&mut self, line: Option<u64>, offset: u64, bytes: &[u8]) {
        let text = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        let mut at = 0;
        while at <= text.len() {
            let Ok(Some(found)) = self.matcher.find_at(text, at) else {
                break;
            };
            if found.is_empty() {
                at = found.end() + 1;
                continue;
            }
            self.separate();
            self.head(line, offset + found.start() as u64, b':');
            self.out
                .extend_from_slice(&text[found.start()..found.end()]);
            self.out.push(b'\n');
            at = found.end();
        }
    }
}

impl Sink for Lines<'_> {
    type Error = io::Error;

    fn matched(
        &mut self,
        _: &Searcher,
        found: &SinkMatch<'_>,
    ) -> std::result::Result<bool, io::Error> {
        if self.options.max == Some(self.tally.lines) {
            // Behind the last match that is wanted, others are only context.
            if self.tally.trailing < self.options.after && self.printing {
                self.tally.trailing += 1;
                self.line(
                    found.line_number(),
                    found.absolute_byte_offset(),
                    found.bytes(),
                    b'-',
                );
                return Ok(true);
            }
            self.stopped = true;
            return Ok(false);
        }
        self.tally.lines += 1;
        if self.printing {
            if !self.options.only_matching {
                self.line(
                    found.line_number(),
                    found.absolute_byte_offset(),
                    found.bytes(),
                    b':',
                );
            } else if !self.options.invert {
                self.parts(
                    found.line_number(),
                    found.absolute_byte_offset(),
                    found.bytes(),
                );
            }
        }
        let full = self.options.max == Some(self.tally.lines);
        self.stopped |= self.only_first || (full && self.options.after == 0);
        Ok(!self.stopped)
    }

    fn context(
        &mut self,
        _: &Searcher,
        context: &SinkContext<'_>,
    ) -> std::result::Result<bool, io::Error> {
        if self.options.max == Some(self.tally.lines) {
            self.tally.trailing += 1;
            if self.tally.trailing > self.options.after {
                self.stopped = true;
                return Ok(false);
            }
        }
        if self.printing && !self.options.only_matching {
            self.line(
                context.line_number(),
                context.absolute_byte_offset(),
                context.bytes(),
                b'-',
            );
        }
        Ok(true)
    }

    fn context_break(&mut self, _: &Searcher) -> std::result::Result<bool, io::Error> {
        if self.printing && self.tally.printed {
            self.out.extend_from_slice(b"--\n");
        }
        Ok(true)
    }
}
