//! `find` by names, kinds and depth, over the entries of the workspace: the crate's own asks a dozen layers
//! about each file. It still does all that is asked for otherwise, by the name of its program file, which
//! does not lead here.

use std::sync::Arc;

use async_trait::async_trait;
use bashkit::{
    Builtin, BuiltinContext, BuiltinRegistry, ExecResult, ExecutionPlan, Result, SubCommand,
};

use super::fs::{WorkspaceFs, is_ours};
use crate::workspace::{
    EntryKind, Overlay, WorkspaceError, absolute,
    entry::{DirId, Entry, Node},
};

/// The crate's own.
const OTHER: &str = "/usr/bin/find";
/// Output, in bytes; what is more is an error.
const OUTPUT: usize = 8 << 20;
/// Words of an expression that are read here, so that it cannot nest deeply.
const WORDS: usize = 64;
/// Entries between two points at which other tasks get a turn.
const YIELD_EVERY: usize = 4096;
struct Find(Arc<WorkspaceFs>);

/// `find` alone: what is in a registry is found before what is built in, and hides it only by that name.
pub(super) fn registry(fs: &Arc<WorkspaceFs>) -> BuiltinRegistry {
    let registry = BuiltinRegistry::new();
    registry.insert("find", Arc::new(Find(fs.clone())));
    registry
}

/// A test or an action.
enum Test {
    And(Box<Test>, Box<Test>),
    Or(Box<Test>, Box<Test>),
    Not(Box<Test>),
    /// The last name, or the whole path.
    Text {
        whole: bool,
        pattern: Vec<char>,
        fold: bool,
    },
    Kind(Vec<EntryKind>),
    Print(char),
    Prune,
    Always(bool),
}

struct Plan<'a> {
    roots: Vec<&'a str>,
    test: Test,
    deepest: usize,
    shallowest: usize,
}

/// Reads an expression; each step is `None` for what is not done here.
struct Words<'a> {
    rest: std::iter::Peekable<std::slice::Iter<'a, String>>,
    acts: bool,
}

impl<'a> Plan<'a> {
    fn read(args: &'a [String]) -> Option<Self> {
        let mut rest = args.iter().peekable();
        rest.next_if(|arg| *arg == "-P");
        let begins = |arg: &str| {
            (arg.len() > 1 && arg.starts_with('-')) || matches!(arg, "(" | ")" | "!" | ",")
        };
        let mut roots = Vec::new();
        while let Some(root) = rest.next_if(|arg| !begins(arg)) {
            roots.push(root.as_str());
        }
        if roots.is_empty() {
            roots.push(".");
        }
        if rest.len() > WORDS {
            return None;
        }
        let (mut deepest, mut shallowest) = (usize::MAX, 0);
        loop {
            let bound = if rest.next_if(|arg| *arg == "-maxdepth").is_some() {
                &mut deepest
            } else if rest.next_if(|arg| *arg == "-mindepth").is_some() {
                &mut shallowest
            } else {
                break;
            };
            let number = rest.next()?;
            if !number.bytes().all(|digit| digit.is_ascii_digit()) {
                return None;
            }
            *bound = number.parse().ok()?;
        }
        let mut words = Words { rest, acts: false };
        let test = match words.rest.peek() {
            None => Test::Always(true),
            Some(_) => words.any()?,
        };
        if words.rest.next().is_some() {
            return None;
        }
        let test = if words.acts {
            test
        } else {
            Test::And(Box::new(test), Box::new(Test::Print('\n')))
        };
        Some(Self {
            roots,
            test,
            deepest,
            shallowest,
        })
    }
}

impl Words<'_> {
    fn next_is(&mut self, words: &[&str]) -> bool {
        self.rest
            .next_if(|word| words.contains(&word.as_str()))
            .is_some()
    }

    fn any(&mut self) -> Option<Test> {
        let mut test = self.all()?;
        while self.next_is(&["-o", "-or"]) {
            test = Test::Or(Box::new(test), Box::new(self.all()?));
        }
        Some(test)
    }

    fn all(&mut self) -> Option<Test> {
        let mut test = self.one()?;
        loop {
            let joined = self.next_is(&["-a", "-and"]);
            match self.rest.peek().map(|word| word.as_str()) {
                None | Some("-o" | "-or" | ")") if !joined => return Some(test),
                _ => test = Test::And(Box::new(test), Box::new(self.one()?)),
            }
        }
    }

    fn one(&mut self) -> Option<Test> {
        let word = self.rest.next()?.as_str();
        Some(match word {
            "!" | "-not" => Test::Not(Box::new(self.one()?)),
            "(" => {
                let test = self.any()?;
                if !self.next_is(&[")"]) {
                    return None;
                }
                test
            }
            "-name" | "-iname" | "-path" | "-wholename" | "-ipath" | "-iwholename" => {
                let pattern = self.rest.next()?;
                let fold = word.starts_with("-i");
                // Classes and escapes are the crate's, and so is what is folded beyond ASCII.
                if pattern.contains(['[', '\\']) || (fold && !pattern.is_ascii()) {
                    return None;
                }
                let pattern = if fold {
                    pattern.to_ascii_lowercase()
                } else {
                    pattern.clone()
                };
                Test::Text {
                    whole: !word.ends_with("-name") && !word.ends_with("-iname"),
                    pattern: pattern.chars().collect(),
                    fold,
                }
            }
            "-type" => {
                let kind = |letter: &str| match letter {
                    "f" => Some(EntryKind::File),
                    "d" => Some(EntryKind::Directory),
                    "l" => Some(EntryKind::Symlink),
                    _ => None,
                };
                Test::Kind(
                    self.rest
                        .next()?
                        .split(',')
                        .map(kind)
                        .collect::<Option<_>>()?,
                )
            }
            "-print" | "-print0" => {
                self.acts = true;
                Test::Print(if word == "-print" { '\n' } else { '\0' })
            }
            "-prune" => Test::Prune,
            "-true" => Test::Always(true),
            "-false" => Test::Always(false),
            _ => return None,
        })
    }
}

/// Whether a text matches a pattern of `*`, `?` and characters.
fn matches(pattern: &[char], text: &str, fold: bool) -> bool {
    let (mut at, mut rest) = (0, text.chars());
    // Where the last star was, and what was left of the text when it took its last character.
    let mut star: Option<(usize, std::str::Chars<'_>)> = None;
    loop {
        if let Some('*') = pattern.get(at) {
            at += 1;
            star = Some((at, rest.clone()));
            continue;
        }
        let mut after = rest.clone();
        let Some(c) = after.next() else {
            return at == pattern.len();
        };
        let c = if fold { c.to_ascii_lowercase() } else { c };
        if pattern
            .get(at)
            .is_some_and(|wanted| *wanted == '?' || *wanted == c)
        {
            at += 1;
            rest = after;
            continue;
        }
        let Some((behind, taken)) = &mut star else {
            return false;
        };
        taken.next();
        at = *behind;
        rest = taken.clone();
    }
}

/// One entry that is looked at.
struct Visit {
    entry: Arc<Entry>,
    shown: String,
    depth: usize,
}

impl Visit {
    /// The last name as `-name` sees it.
    fn name(&self) -> &str {
        let shown = self.shown.trim_end_matches('/');
        shown.rsplit('/').next().unwrap_or(shown)
    }
}

struct Walk<'a> {
    overlay: &'a Overlay,
    plan: &'a Plan<'a>,
    out: String,
    failed: bool,
    errors: String,
}

impl Walk<'_> {
    fn holds(&mut self, test: &Test, visit: &Visit, prune: &mut bool) -> bool {
        match test {
            Test::And(one, other) => {
                self.holds(one, visit, prune) && self.holds(other, visit, prune)
            }
            Test::Or(one, other) => {
                self.holds(one, visit, prune) || self.holds(other, visit, prune)
            }
            Test::Not(test) => !self.holds(test, visit, prune),
            Test::Text {
                whole,
                pattern,
                fold,
            } => {
                let text = if *whole { &visit.shown } else { visit.name() };
                matches(pattern, text, *fold)
            }
            Test::Kind(kinds) => kinds.contains(&visit.entry.kind()),
            Test::Print(end) => {
                self.out.push_str(&visit.shown);
                self.out.push(*end);
                true
            }
            Test::Prune => {
                *prune = true;
                true
            }
            Test::Always(holds) => *holds,
        }
    }

    async fn names(
        &self,
        dir: DirId,
    ) -> std::result::Result<Vec<(Arc<str>, Arc<Entry>)>, WorkspaceError> {
        self.overlay.run(|| Ok(self.overlay.peek_list(dir)?)).await
    }

    /// All below a root, each directory before what is in it, in the order of their names.
    async fn below(&mut self, root: Visit) {
        let plan = self.plan;
        let mut pending = vec![root];
        let mut seen = 0;
        while let Some(visit) = pending.pop() {
            seen += 1;
            if seen % YIELD_EVERY == 0 {
                tokio::task::yield_now().await;
            }
            let mut prune = false;
            if visit.depth >= plan.shallowest {
                let before = self.out.len();
                self.holds(&plan.test, &visit, &mut prune);
                if self.out.len() > OUTPUT {
                    self.out.truncate(before);
                    self.errors.push_str("find: output size limit exceeded\n");
                    self.failed = true;
                    return;
                }
            }
            let Node::Directory(dir) = visit.entry.node else {
                continue;
            };
            if prune || visit.depth >= plan.deepest {
                continue;
            }
            match self.names(dir).await {
                Ok(names) => pending.extend(names.into_iter().rev().map(|(name, entry)| {
                    let between = if visit.shown.ends_with('/') { "" } else { "/" };
                    Visit {
                        entry,
                        shown: [&visit.shown, between, &name].concat(),
                        depth: visit.depth + 1,
                    }
                })),
                Err(error) => {
                    let why = error.strerror();
                    self.errors
                        .push_str(&format!("find: '{}': {why}\n", visit.shown));
                    self.failed = true;
                }
            }
        }
    }
}

impl Find {
    /// Where to start, when all of it lies where only the workspace is, and is no link.
    async fn roots(&self, plan: &Plan<'_>, cwd: &str) -> Option<(Overlay, Vec<Visit>)> {
        let overlay = self.0.overlay().ok()?;
        let mut visits = Vec::with_capacity(plan.roots.len());
        for root in &plan.roots {
            let path = absolute(root, cwd);
            if !is_ours(&path) {
                return None;
            }
            // A link with a slash behind it is what it leads to.
            let entry = if root.ends_with('/') {
                overlay.entry(&path, true).await.ok()?
            } else {
                overlay.run(|| Ok(overlay.peek_path(&path)?)).await.ok()??
            };
            visits.push(Visit {
                entry,
                shown: (*root).to_owned(),
                depth: 0,
            });
        }
        Some((overlay, visits))
    }
}

#[async_trait]
impl Builtin for Find {
    async fn execution_plan(&self, ctx: &BuiltinContext<'_>) -> Result<Option<ExecutionPlan>> {
        if let Some(plan) = Plan::read(ctx.args)
            && let Some(cwd) = ctx.cwd.to_str()
            && self.roots(&plan, cwd).await.is_some()
        {
            return Ok(None);
        }
        Ok(Some(ExecutionPlan::Batch {
            commands: vec![SubCommand {
                name: OTHER.to_owned(),
                args: ctx.args.to_vec(),
                stdin: ctx.stdin.cloned(),
                assignments: Vec::new(),
            }],
        }))
    }

    async fn execute(&self, ctx: BuiltinContext<'_>) -> Result<ExecResult> {
        let plan = Plan::read(ctx.args);
        let found = match (&plan, ctx.cwd.to_str()) {
            (Some(plan), Some(cwd)) => self.roots(plan, cwd).await.map(|found| (plan, found)),
            _ => None,
        };
        let Some((plan, (overlay, visits))) = found else {
            return Ok(ExecResult::err(
                "find: the files have changed meanwhile\n",
                1,
            ));
        };
        let mut walk = Walk {
            overlay: &overlay,
            plan,
            out: String::new(),
            failed: false,
            errors: String::new(),
        };
        for visit in visits {
            if walk.out.len() <= OUTPUT && !walk.errors.contains("limit exceeded") {
                walk.below(visit).await;
            }
        }
        let mut result = ExecResult::with_code(walk.out, i32::from(walk.failed));
        result.stderr = walk.errors.into();
        Ok(result)
    }
}
