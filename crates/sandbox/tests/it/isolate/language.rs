//! The language: small cases run in an isolate and in the machine's node, with the same outcome.
//!
//! `language.txt` has one case a line. `ts:` begins one with types, whose outcome stands after `//=`;
//! both engines run what is left of it without its types. `//! ID` marks a difference that
//! `docs/limits.md` lists.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use bowline_sandbox::isolate::{Bindings, Limits, Program, Start, Status, Value};

use super::{finish, isolates, start};

const CASES: &str = include_str!("language.txt");
const SHOW: &str = include_str!("show.js");
const MAIN: &str =
    "import { outcome } from './show.js'; export default () => outcome(() => import('./case.js'));";

struct Case {
    line: usize,
    source: String,
    expected: Option<String>,
    differs: Option<String>,
    /// What an engine gets; none where it cannot be parsed.
    script: Option<String>,
}

fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    for (at, text) in CASES.lines().enumerate() {
        if text.is_empty() || text.starts_with("# ") {
            continue;
        }
        let (text, differs) = match text.split_once(" //! ") {
            Some((text, id)) => (text, Some(id.to_owned())),
            None => (text, None),
        };
        let (text, expected) = match text.split_once(" //= ") {
            Some((text, expected)) => (text, Some(expected.to_owned())),
            None => (text, None),
        };
        let source = text.strip_prefix("ts: ").unwrap_or(text).to_owned();
        let script = Program::new("case.js", &source)
            .ok()
            .map(|program| program.script().to_owned());
        all.push(Case {
            line: at + 1,
            source,
            expected,
            differs,
            script,
        });
    }
    all
}

fn in_isolate(case: &Case) -> String {
    let Some(script) = &case.script else {
        return "throws SyntaxError".to_owned();
    };
    let program = Program::new("main.js", MAIN)
        .and_then(|program| program.module("show.js", SHOW))
        .and_then(|program| program.module("case.js", script))
        .unwrap();
    let limits = Limits {
        cpu: std::time::Duration::from_secs(20),
        ..Limits::default()
    };
    let begin = isolates().start(
        isolates().try_admit("language").unwrap(),
        &program,
        &Bindings::none(),
        &Start { limits, ..start() },
    );
    match finish(begin.unwrap()).status() {
        Status::Completed(Value::String(text)) => text.clone(),
        Status::Stopped(bowline_sandbox::isolate::IsolateError::Deadlock) => "never".to_owned(),
        other => format!("{other:?}"),
    }
}

/// The outcomes of the machine's node, by line; none where there is no node.
fn in_node(cases: &[Case]) -> Option<BTreeMap<usize, String>> {
    Command::new("node")
        .arg("--version")
        .output()
        .ok()
        .filter(|out| out.status.success())?;
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("package.json"), "{\"type\":\"module\"}").unwrap();
    let mut main = String::from(
        "import { outcome } from './show.js';\nprocess.on('unhandledRejection', () => {});\n",
    );
    // One after the other: timers of equal length stand in one list of node's, which a slow machine lets
    // overtake shorter ones.
    main.push_str(
        "const say = (n, o) => console.log(JSON.stringify([n, o]));\nlet open = null;\n\
         const next = () => { if (!left.length) return; const n = open = left.shift(); \
         outcome(() => import(`./${n}/case.js`)).then((o) => { open = null; say(n, o); next() }) };\n\
         process.on('beforeExit', () => { if (open !== null) { say(open, 'never'); open = null; next() } });\n",
    );
    let lines: Vec<_> = cases.iter().map(|case| case.line).collect();
    for case in cases {
        let text = case.script.as_ref().unwrap_or(&case.source);
        std::fs::create_dir(path(&case.line.to_string())).unwrap();
        std::fs::write(path(&format!("{}/case.js", case.line)), text).unwrap();
    }
    writeln!(main, "const left = {lines:?};\nnext();").unwrap();
    std::fs::write(path("main.js"), main).unwrap();
    std::fs::write(path("show.js"), SHOW).unwrap();
    let out = Command::new("node")
        .arg(path("main.js"))
        .env("TZ", "America/New_York")
        .output()
        .unwrap();
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    let lines = String::from_utf8(out.stdout).unwrap();
    Some(
        lines
            .lines()
            .map(|line| serde_json::from_str::<(usize, String)>(line).unwrap())
            .collect(),
    )
}

#[test]
fn the_language_is_that_of_node_but_for_what_is_listed() {
    let cases = cases();
    assert!(cases.len() >= 400, "{} cases", cases.len());
    let node = in_node(&cases);
    if node.is_none() {
        println!(
            "SKIPPED: there is no `node`, so only the cases with an expected outcome are compared"
        );
    }
    let limits = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/limits.md");
    let limits = std::fs::read_to_string(limits).unwrap();
    let mut wrong = String::new();
    for case in &cases {
        let here = in_isolate(case);
        let there = node.as_ref().and_then(|node| node.get(&case.line));
        let agrees = there.is_none_or(|there| *there == here)
            && case.expected.as_ref().is_none_or(|text| *text == here);
        let fine = match &case.differs {
            Some(id) => limits.contains(&format!("| {id} |")) && (node.is_none() || !agrees),
            None => agrees,
        };
        if !fine {
            writeln!(
                wrong,
                "{}: {}\n  here  {here}\n  node  {there:?}\n  wants {:?}",
                case.line, case.source, case.expected
            )
            .unwrap();
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}
