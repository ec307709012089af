//! The `grep` of the shell against the machine's, command by command.

use std::process::Command;

use crate::{
    git::sh,
    support::{World, put},
};

const FILES: [(&str, &[u8]); 9] = [
    (
        "a.txt",
        b"one\ntwo three\nThree\n\nfoo.bar\nfoo-bar\na+b\n(x){2}\nend",
    ),
    (
        "b.txt",
        b"alpha\nbeta\ngamma\nbeta two\nword words\nunder_score\n[brackets]\na|b\n",
    ),
    ("c.log", b"one\none\none\ntwo\none\nx\ny\nz\none\n"),
    ("d/e.txt", b"deep one\n"),
    ("d/f/g.rs", b"fn one() {}\n"),
    ("d/skip/h.txt", b"one\n"),
    ("empty", b""),
    ("binary", b"one\0two\none\n"),
    ("patterns", b"one\nbeta\n"),
];

/// Each is given to both; output and exit code must be the same, lines of a recursive search in any order.
const COMMANDS: &[&str] = &[
    "grep one a.txt",
    "grep one a.txt b.txt",
    "grep -n two a.txt b.txt",
    "grep -i three a.txt",
    "grep -v one c.log",
    "grep -vn one c.log",
    "grep -c one c.log a.txt empty",
    "grep -cv one c.log",
    "grep -l one *.txt c.log",
    "grep -L one *.txt c.log empty",
    "grep -o o a.txt",
    "grep -on 't[a-z]*' a.txt",
    "grep -ob o a.txt",
    "grep -w word b.txt",
    "grep -w foo a.txt",
    "grep -x one c.log",
    "grep -x 'two three' a.txt",
    "grep -F foo.bar a.txt",
    "grep -F '(x){2}' a.txt",
    "grep -Fx one c.log",
    "grep -E 'foo.(bar)' a.txt",
    "grep -E 'a\\+b' a.txt",
    "grep 'a+b' a.txt",
    "grep 'a\\+' b.txt",
    "grep -E 'al|be' b.txt",
    "grep 'al\\|be' b.txt",
    "grep 'a|b' b.txt",
    "grep -E '(al|be)+t' b.txt",
    "grep '\\(al\\|be\\)t' b.txt",
    "grep -E 'e{2}' a.txt",
    "grep 'e\\{2\\}' a.txt",
    "grep -E 'e{1,2}$' a.txt",
    "grep '{2}' a.txt",
    "grep '^one' a.txt c.log",
    "grep 'one$' a.txt c.log",
    "grep '^$' a.txt",
    "grep -c '' a.txt",
    "grep '*' a.txt",
    "grep '^*' a.txt",
    "grep 'a^' a.txt",
    "grep '$x' a.txt",
    "grep '[[:upper:]]' a.txt",
    "grep '[^a-z]' b.txt",
    "grep '[]x]' b.txt",
    "grep '[a\\]' b.txt",
    "grep '\\[b' b.txt",
    "grep -E '^[a-z]+_[a-z]+$' b.txt",
    "grep '\\bword\\b' b.txt",
    "grep '\\<word' b.txt",
    "grep 'word\\>' b.txt",
    "grep '\\w\\+-\\w' a.txt",
    "grep -E '\\s' a.txt",
    "grep -e one -e three a.txt",
    "grep -f patterns a.txt b.txt",
    "printf 'beta\\n' | grep -f - b.txt",
    "grep -A1 two a.txt",
    "grep -B1 Three a.txt",
    "grep -C1 two c.log",
    "grep -n -C1 x c.log",
    "grep -A1 beta b.txt",
    "grep -nA1 two b.txt a.txt",
    "grep -n1 y c.log",
    "grep -m1 one c.log",
    "grep -m2 -n one c.log",
    "grep -m1 -A2 one c.log",
    "grep -m0 one c.log",
    "grep -q one a.txt",
    "grep -q nothing a.txt",
    "grep nothing a.txt",
    "grep -s one missing a.txt",
    "grep -h one a.txt c.log",
    "grep -H one a.txt",
    "grep -r one d",
    "grep -r one",
    "grep -rn one .",
    "grep -rl one d",
    "grep -rL one d",
    "grep -rc one d",
    "grep -rh one d",
    "grep -r --include='*.txt' one .",
    "grep -r --exclude='*.txt' one .",
    "grep -r --exclude-dir=skip one d",
    "grep -rw --include=*.rs --include=*.log one .",
    "grep -ri ONE d",
    "grep -Z -l one a.txt c.log",
    "grep --color=never -c one a.txt",
    "grep one binary",
    "grep -c one binary",
    "grep -a -c one binary",
    "grep -I one binary a.txt",
    "cat c.log | grep -n one",
    "cat c.log | grep -c one - a.txt",
    "egrep 'al|be' b.txt",
    "fgrep -n a+b a.txt",
    "printf 'a\\nb\\nc\\n' | grep -v b | grep -n .",
];

#[tokio::test]
async fn grep_does_what_the_machines_grep_does() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::new();
    let overlay = world.begin().await;
    for (path, content) in FILES {
        let place = dir.path().join(path);
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        std::fs::write(place, content).unwrap();
        put(&overlay, path, content).await;
    }
    let mut wrong = Vec::new();
    for command in COMMANDS {
        let real = Command::new("bash")
            .args(["-c", command])
            .current_dir(dir.path())
            .env("LC_ALL", "C.UTF-8")
            .output()
            .unwrap();
        let ours = sh(&overlay, command).await;
        let mut here = ours.stdout;
        let mut there = String::from_utf8_lossy(&real.stdout).into_owned();
        if command.contains(" -r") {
            let sorted = |text: &str| {
                let mut lines: Vec<&str> = text.lines().collect();
                lines.sort_unstable();
                lines.join("\n")
            };
            (here, there) = (sorted(&here), sorted(&there));
        }
        if (&here, Some(ours.exit_code)) != (&there, real.status.code()) {
            wrong.push(format!(
                "{command}\n  here  {:?} {here:?} {:?}\n  there {:?} {there:?}",
                ours.exit_code,
                ours.stderr,
                real.status.code()
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn what_grep_does_not_have_it_says() {
    let world = World::new();
    let overlay = world.begin().await;
    put(&overlay, "a", "aa\n").await;
    // SH-28
    for (command, why) in [
        ("grep '\\(a\\)\\1' a", "SH-28"),
        ("grep -P 'a(?=a)' a", "SH-28"),
        ("grep '[[.a.]]' a", "SH-28"),
        ("grep --no-such a", "SH-28"),
        ("grep '\\(a' a", "Unmatched"),
        ("grep '[a' a", "Unmatched ["),
        ("grep", "Usage"),
        ("grep x missing", "missing: No such file or directory"),
        ("mkdir d; grep x d", "d: Is a directory"),
    ] {
        let done = sh(&overlay, command).await;
        assert_eq!(done.exit_code, 2, "{command}: {}", done.stderr);
        assert!(done.stderr.contains(why), "{command}: {}", done.stderr);
    }
}

#[tokio::test]
async fn grep_leaves_a_writer_without_end_as_soon_as_it_has_enough() {
    let world = World::new();
    let overlay = world.begin().await;
    let done = sh(&overlay, "yes | grep -m2 y; yes | grep -q y && echo found").await;
    assert_eq!(
        (done.stdout.as_str(), done.exit_code),
        ("y\ny\nfound\n", 0),
        "{}",
        done.stderr
    );
}
