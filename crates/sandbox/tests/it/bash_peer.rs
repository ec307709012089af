//! The shell against the machine's bash, over random small scripts.

use std::{path::Path, process::Command};

use bowline_sandbox::{
    shell::{Shell, ShellOptions, ShellState},
    workspace::{EntryKind, Overlay},
};
use bowline_testkit::seeded::asked;
use proptest::{prelude::*, sample::select, test_runner::RngSeed};

use crate::support::{World, put};

/// Files that each script starts with, and where it runs: beside a directory for its output, which
/// nothing else in it looks at, because whether a command sees what another is writing is a race.
const FILES: [(&str, &str); 4] = [
    ("w/a.txt", "b\na\nb\nc 1\n"),
    ("w/b.txt", "one two\nthree\n"),
    ("w/d/c.log", "x=1\ny=2\n"),
    ("w/empty", ""),
];

fn one_of(choices: &'static [&'static str]) -> BoxedStrategy<String> {
    select(choices).prop_map(str::to_owned).boxed()
}

fn name() -> BoxedStrategy<String> {
    one_of(&["a.txt", "b.txt", "d/c.log", "empty", "new", "d/new"])
}

fn number() -> BoxedStrategy<String> {
    prop_oneof![
        (-9i32..100).prop_map(|number| if number < 0 {
            format!("({number})")
        } else {
            number.to_string()
        }),
        one_of(&["n", "n+1", "0x1f"]),
    ]
    .boxed()
}

fn arithmetic() -> BoxedStrategy<String> {
    number()
        .prop_recursive(2, 6, 2, |inner| {
            prop_oneof![
                (
                    inner.clone(),
                    one_of(&[
                        "+", "-", "*", "<", "<=", "==", "!=", "&&", "||", "&", "|", "^"
                    ]),
                    inner.clone()
                )
                    .prop_map(|(one, sign, other)| format!("({one} {sign} {other})")),
                (
                    inner.clone(),
                    one_of(&["/", "%", "**", "<<", ">>"]),
                    1u32..9
                )
                    .prop_map(|(one, sign, other)| format!("({one} % 1000 {sign} {other})")),
                (inner.clone(), inner.clone(), inner)
                    .prop_map(|(test, one, other)| format!("({test} ? {one} : {other})")),
            ]
        })
        .boxed()
}

fn word() -> BoxedStrategy<String> {
    prop_oneof![
        4 => one_of(&["a", "b", "'q  q'", "\"x $x\"", "$x", "\"$y\"", "-", "ab.c", "\\$x", "$'t\\tt'", "é"]),
        2 => one_of(&["*.txt", "?.txt", "[ab]*", "d/*", "no*match", "*", "{a,b}{1,2}", "{1..3}", "~"]),
        2 => one_of(&["${x:-d}", "${z:-e}", "${x#a}", "${y%b*}", "${x/a/o}", "${#x}", "${x:1:1}", "${x^^}", "${z:+s}", "${y//b/X}", "${y##*a}"]),
        1 => one_of(&["$(echo sub)", "\"$(cat a.txt)\"", "$(cat b.txt)", "$(printf 'p\\n\\n')"]),
        1 => arithmetic().prop_map(|sum| format!("$(({sum}))")),
    ]
    .boxed()
}

fn words() -> impl Strategy<Value = String> {
    prop::collection::vec(word(), 0..4).prop_map(|words| words.join(" "))
}

fn source() -> BoxedStrategy<String> {
    prop_oneof![
        words().prop_map(|words| format!("echo {words}")),
        words().prop_map(|words| format!("printf '%s\\n' x {words}")),
        name().prop_map(|name| format!("cat {name} 2>/dev/null")),
        one_of(&[
            "seq 5",
            "printf 'b 2\\na 10\\nb 2\\n'",
            "grep -n b a.txt",
            "grep -rc x d | sort"
        ]),
    ]
    .boxed()
}

fn filter() -> BoxedStrategy<String> {
    one_of(&[
        "sort",
        "sort -r",
        "sort -u",
        "sort -n",
        "uniq",
        "uniq -c",
        "head -n 2",
        "tail -n 1",
        "tail -n +2",
        "wc -l",
        "wc -c",
        "tr a-z A-Z",
        "tr -d b",
        "sed s/a/b/",
        "sed -n 1p",
        "sed '$d'",
        "grep b",
        "grep -v a",
        "grep -c .",
        "cut -d' ' -f2",
        "cut -d' ' -f1",
        "rev",
        "tac",
        "cat",
        "awk '{print $1}'",
        "awk '{n+=NF} END {print n}'",
        "nl -ba",
        "paste -sd,",
        "while read -r line; do echo \"<$line>\"; done",
        "xargs echo",
        "tee ../out/copy",
    ])
}

fn pipeline() -> BoxedStrategy<String> {
    (
        source(),
        prop::collection::vec(filter(), 0..3),
        select(
            &[
                "",
                "",
                "",
                " > ../out/a",
                " >> ../out/a",
                " > ../out/b 2>&1",
            ][..],
        ),
    )
        .prop_map(|(source, filters, redirect)| {
            let stages: Vec<String> = std::iter::once(source).chain(filters).collect();
            format!("{}{redirect}", stages.join(" | "))
        })
        .boxed()
}

fn test() -> BoxedStrategy<String> {
    prop_oneof![
        one_of(&[
            "[ \"$x\" = a ]",
            "[ -f a.txt ]",
            "[ -d d ]",
            "[ -e no ]",
            "[ -s empty ]",
            "[ -z \"$z\" ]",
            "[[ $y == *b* ]]",
            "[[ $x =~ ^a+$ ]]",
            "[ 3 -gt 2 ]",
            "true",
            "false",
            "! true"
        ]),
        arithmetic().prop_map(|sum| format!("(({sum}))")),
    ]
    .boxed()
}

fn statement() -> BoxedStrategy<String> {
    let simple = prop_oneof![
        6 => pipeline(),
        2 => (one_of(&["x", "y", "z"]), word()).prop_map(|(name, word)| format!("{name}=\"{}\"", word.replace('"', ""))),
        1 => arithmetic().prop_map(|sum| format!("n=$(({sum})); echo $n")),
        1 => (words(), words()).prop_map(|(one, two)| format!("cat <<E\n$x {}\n$((1+1))\nE\necho {two}", one.replace(['\n', '\'', '`', '\\'], ""))),
        1 => words().prop_map(|words| format!("set -- {words}; echo $# \"$1\"; shift 2>/dev/null; echo \"$@\"")),
        1 => words().prop_map(|words| words.replace("${x:1:1}", "b")).prop_map(|words| format!("arr=({words}); echo ${{#arr[@]}} \"${{arr[0]}}\" \"${{arr[@]}}\"")),
        1 => name().prop_map(|name| format!("cp b.txt d/{} 2>/dev/null; echo $?", name.replace('/', ""))),
        1 => name().prop_map(|name| format!("rm {name} 2>/dev/null; echo $?")),
        1 => (name(), name()).prop_map(|(from, to)| format!("[ {from} = {to} ] || mv {from} {to} 2>/dev/null; echo $?")),
        1 => one_of(&["ls", "ls d", "ls | sort -r | head -n 2", "find . -type f | sort", "find . -name '*.txt' -o -type d | sort", "wc -l a.txt b.txt", "wc -c a.txt", "mkdir e 2>/dev/null; echo $?", "mkdir -p p/q; rmdir p/q; ls p", "cd d; pwd | sed 's|.*/||'; cd ..", "(cd d; ls)", "(x=sub; echo $x); echo $x", "echo a >&2", "touch t; ls t", "ln -s a.txt l 2>/dev/null; readlink l"]),
    ];
    simple
        .prop_recursive(2, 8, 3, |inner| {
            prop_oneof![
                (test(), inner.clone(), inner.clone())
                    .prop_map(|(test, then, other)| format!("if {test}; then\n{then}\nelse\n{other}\nfi")),
                (words(), inner.clone()).prop_map(|(words, body)| format!("for i in {words}; do\necho \"i=$i\"\n{body}\ndone")),
                (1u32..4, 0u32..100_000, inner.clone()).prop_map(|(times, id, body)| {
                    format!("k{id}=0; while [ $k{id} -lt {times} ]; do k{id}=$((k{id}+1))\n{body}\ndone")
                }),
                (word(), inner.clone())
                    .prop_map(|(word, body)| format!("case {word} in a|b) echo ab;; *.txt) echo txt;; ?) echo one;; *)\n{body}\n;; esac")),
                (words(), inner.clone(), 0u32..4)
                    .prop_map(|(words, body, code)| format!("f() {{ local v=\"$1\"\n{body}\necho \"f $v $#\"; return {code}; }}; f {words}; echo $?")),
                (test(), inner.clone()).prop_map(|(test, body)| format!("{test} && {{ {body}\n}}; echo $?")),
                (test(), inner).prop_map(|(test, body)| format!("{test} || {{ {body}\n}}; echo $?")),
            ]
        })
        .boxed()
}

fn script() -> impl Strategy<Value = String> {
    prop::collection::vec(statement(), 1..5)
        .prop_map(|statements| format!("x=a; y='a b'; n=3\n{}\n", statements.join("\n")))
}

/// Output, exit code, and every file.
type Seen = (String, i32, Vec<String>);

fn real(script: &str) -> Seen {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    for (path, content) in FILES {
        std::fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
        std::fs::write(root.join(path), content).unwrap();
    }
    std::fs::create_dir(root.join("out")).unwrap();
    let output = Command::new("bash")
        .args(["--noprofile", "--norc", "-c", script])
        .current_dir(root.join("w"))
        .env_clear()
        .envs([
            ("PATH", "/usr/bin:/bin"),
            ("LC_ALL", "C.UTF-8"),
            ("HOME", "/workspace"),
        ])
        .output()
        .unwrap();
    let mut files = Vec::new();
    tree(root, "", &mut files);
    (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        output.status.code().unwrap_or(-1),
        files,
    )
}

fn tree(at: &Path, name: &str, files: &mut Vec<String>) {
    let mut entries: Vec<_> = std::fs::read_dir(at).unwrap().map(Result::unwrap).collect();
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = format!("{name}/{}", entry.file_name().to_string_lossy());
        let meta = std::fs::symlink_metadata(entry.path()).unwrap();
        if meta.is_symlink() {
            files.push(format!(
                "{path} -> {}",
                std::fs::read_link(entry.path()).unwrap().display()
            ));
        } else if meta.is_dir() {
            files.push(format!("{path}/"));
            tree(&entry.path(), &path, files);
        } else {
            files.push(format!(
                "{path} {:?}",
                String::from_utf8_lossy(&std::fs::read(entry.path()).unwrap())
            ));
        }
    }
}

async fn ours(script: &str) -> Seen {
    let overlay = World::new().begin().await;
    for (path, content) in FILES {
        put(&overlay, path, content).await;
    }
    overlay.mkdir("out", false).await.unwrap();
    let options = ShellOptions {
        cwd: Some("/workspace/w".into()),
        ..ShellOptions::default()
    };
    let outcome = Shell::new()
        .run(&overlay, ShellState::default(), script, &options)
        .await;
    let mut files = Vec::new();
    Box::pin(tree_of(&overlay, "", &mut files)).await;
    (outcome.stdout, outcome.exit_code, files)
}

async fn tree_of(overlay: &Overlay, name: &str, files: &mut Vec<String>) {
    for entry in overlay.list(&format!("/workspace{name}")).await.unwrap() {
        let path = format!("{name}/{}", entry.name);
        let full = format!("/workspace{path}");
        match entry.stat.kind {
            EntryKind::Symlink => files.push(format!(
                "{path} -> {}",
                overlay.read_link(&full).await.unwrap()
            )),
            EntryKind::Directory => {
                files.push(format!("{path}/"));
                Box::pin(tree_of(overlay, &path, files)).await;
            }
            EntryKind::File => {
                let bytes = overlay.read(&full).await.unwrap();
                files.push(format!("{path} {:?}", String::from_utf8_lossy(&bytes)));
            }
        }
    }
}

/// The seed: always the same, so that what passed passes again; `BOWLINE_SEED` tries another.
fn seed() -> u64 {
    asked("BOWLINE_SEED").unwrap_or(1)
}

fn cases() -> u32 {
    asked("BOWLINE_SCRIPTS").unwrap_or(60)
}

/// The forms of `find` and `wc` that are done here, and those that the crate does.
#[tokio::test]
async fn find_and_wc_say_what_those_of_the_machine_say() {
    if !Path::new("/usr/bin/bash").exists() {
        return;
    }
    let begin = "mkdir -p d/e .h; touch d/e/Z.TXT .h/x 'd/e/a b'; ln -s d l";
    for script in [
        "find | sort",
        "find . -type f | sort",
        "find d -type d -o -name '*.log' | sort",
        "find . -iname '*.txt' | sort",
        "find ./d/ -name e; find d/ -maxdepth 1 | sort",
        "find . -path './d/*' ! -name '?.log' | sort",
        "find . -mindepth 2 -maxdepth 2 -type f | sort",
        "find . -name d -prune -o -type f -print | sort",
        "find . -name .h -prune -o -name '*.txt' | sort",
        "find . -not \\( -name d -o -name l \\) -type d,l | sort",
        "find a.txt b.txt nothing 2>/dev/null; echo $?",
        "find . -type f -print0 | tr '\\0' '\\n' | sort",
        "find l -name '*'; find l/ | sort",
        "find . -name 'a b' -exec echo '<{}>' \\; -o -empty -name empty",
        "find . -name '*.txt' -exec grep -l b {} + | sort",
        "find . -name '[ab].txt' -size -9 | sort; find . -nothing 2>/dev/null; echo $?",
        "cd d; find .. -name 'c*'; find \"$PWD/e\" -name Z.TXT | sed 's|.*/||'",
        "find . -name '**a?tx*'; find . -name ''; find . -name '*e*t*y*'",
        "wc -l a.txt; wc -c a.txt b.txt; wc -lc d/c.log empty",
        "wc -l < a.txt; cat a.txt b.txt | wc -c; cat b.txt | wc -cl",
        "wc -l nothing a.txt 2>/dev/null; echo $?; wc a.txt; wc -w b.txt; wc --lines empty",
        "printf 'a\\nb' | wc -l; printf '' | wc -c; wc -l -- a.txt; wc -m a.txt",
    ] {
        let script = format!("{begin}\n{script}");
        assert_eq!(ours(&script).await, real(&script), "{script}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, rng_seed: RngSeed::Fixed(seed()), ..ProptestConfig::default() })]
    /// Where the machine has no bash, there is nothing to compare with.
    #[test]
    fn the_shell_does_what_bash_does(script in script()) {
        if Path::new("/usr/bin/bash").exists() {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let found = runtime.block_on(ours(&script));
            prop_assert_eq!(found, real(&script), "{}", script);
        }
    }
}
