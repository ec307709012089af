use std::{collections::BTreeMap, time::Duration};

use bowline_sandbox::{
    shell::{Shell, ShellOptions, ShellOutcome, ShellState},
    workspace::{Overlay, WorkspaceLimits},
};

use crate::support::{World, put, text};

async fn sh(overlay: &Overlay, command: &str) -> ShellOutcome {
    Shell::new()
        .run(
            overlay,
            ShellState::default(),
            command,
            &ShellOptions::default(),
        )
        .await
}

async fn out(overlay: &Overlay, command: &str) -> String {
    let outcome = sh(overlay, command).await;
    assert_eq!(
        (outcome.exit_code, outcome.stderr.as_str()),
        (0, ""),
        "{command}"
    );
    outcome.stdout
}

#[tokio::test]
async fn commands_work_on_the_files_of_the_overlay() {
    let world = World::new();
    let overlay = world.begin().await;
    put(&overlay, "data/in.txt", "b\na\nb\n").await;
    assert_eq!(
        out(&overlay, "pwd; echo ~").await,
        "/workspace\n/workspace\n"
    );
    assert_eq!(
        out(
            &overlay,
            "sort data/in.txt | uniq -c | sort -rn | head -1 | awk '{print $2}'"
        )
        .await,
        "b\n"
    );
    assert_eq!(
        out(&overlay, "grep -rn a data; find . -name '*.txt'").await,
        "data/in.txt:2:a\n./data/in.txt\n"
    );
    assert_eq!(
        out(&overlay, "sed -i s/b/c/ data/in.txt; cat data/*.txt").await,
        "c\na\nc\n"
    );
    assert_eq!(
        out(
            &overlay,
            "cat <<E > new.txt\n$((6*7))\nE\ncp -r data copy; mv copy moved; ls"
        )
        .await,
        "data\nmoved\nnew.txt\n"
    );
    assert_eq!(
        out(&overlay, "echo '{\"a\":[1,2]}' | jq -c '.a'").await,
        "[1,2]\n"
    );
    assert_eq!(out(&overlay, "f() { echo \"<$1>\"; }; f x; test -d moved && rm -r moved; ls -a moved 2>/dev/null || echo gone").await, "<x>\ngone\n");
    assert_eq!(
        out(
            &overlay,
            "ln -s data link; cat link/in.txt | wc -l; readlink link"
        )
        .await,
        "3\ndata\n"
    );
    assert_eq!(text(&overlay, "new.txt").await, "42\n");
    assert_eq!(text(&overlay, "data/in.txt").await, "c\na\nc\n");
}

#[tokio::test]
async fn a_script_file_runs_and_its_exit_code_is_told() {
    let overlay = World::new().begin().await;
    put(
        &overlay,
        "test.sh",
        "#!/bin/bash\necho checking >&2\nexit 3\n",
    )
    .await;
    for command in ["sh test.sh", "chmod +x test.sh; ./test.sh"] {
        let outcome = sh(&overlay, command).await;
        assert_eq!(
            (outcome.exit_code, outcome.stderr.as_str()),
            (3, "checking\n"),
            "{command}"
        );
    }
}

/// SH-9
#[tokio::test]
async fn the_state_lasts_through_a_conversation_also_as_json() {
    let overlay = World::new().begin().await;
    let shell = Shell::new();
    let options = ShellOptions::default();
    let first = shell
        .run(
            &overlay,
            ShellState::default(),
            "mkdir d; cd d; export X=1; y=2; greet() { echo \"hi $1 $X$y\"; }; alias l=ls",
            &options,
        )
        .await;
    assert!(first.state_changed);
    assert_eq!(first.state.cwd(), "/workspace/d");
    let json = serde_json::to_string(&first.state).unwrap();
    assert!(json.len() < 8000, "{} bytes: {json}", json.len());
    let restored: ShellState = serde_json::from_str(&json).unwrap();
    for state in [first.state, restored] {
        let shell = Shell::new();
        let second = shell
            .run(&overlay, state.clone(), "greet you; pwd", &options)
            .await;
        assert_eq!(second.stdout, "hi you 12\n/workspace/d\n");
        assert!(!second.state_changed);
        let third = shell.run(&overlay, second.state, "echo $X", &options).await;
        assert_eq!(third.stdout, "1\n");
    }
}

#[tokio::test]
async fn two_conversations_do_not_share_a_state() {
    let overlay = World::new().begin().await;
    let shell = Shell::new();
    let options = ShellOptions::default();
    let one = shell
        .run(
            &overlay,
            ShellState::default(),
            "secret=1; cd /tmp",
            &options,
        )
        .await;
    let other = shell
        .run(
            &overlay,
            ShellState::default(),
            "echo \"[$secret]\"; pwd",
            &options,
        )
        .await;
    assert_eq!(other.stdout, "[]\n/workspace\n");
    assert_eq!(
        shell
            .run(&overlay, one.state, "echo $secret", &options)
            .await
            .stdout,
        "1\n"
    );
}

#[tokio::test]
async fn variables_given_for_a_command_are_not_kept() {
    let overlay = World::new().begin().await;
    let env = BTreeMap::from([("TOKEN".to_owned(), "abc".to_owned())]);
    let options = ShellOptions {
        env,
        ..ShellOptions::default()
    };
    let outcome = Shell::new()
        .run(
            &overlay,
            ShellState::default(),
            "echo $TOKEN; printenv TOKEN",
            &options,
        )
        .await;
    assert_eq!(outcome.stdout, "abc\nabc\n");
    assert!(
        !serde_json::to_string(&outcome.state)
            .unwrap()
            .contains("abc")
    );
}

#[tokio::test]
async fn a_working_directory_that_is_gone_is_said() {
    let overlay = World::new().begin().await;
    let shell = Shell::new();
    let options = ShellOptions::default();
    let first = shell
        .run(&overlay, ShellState::default(), "mkdir d; cd d", &options)
        .await;
    overlay.remove("d", true, false).await.unwrap();
    let second = shell.run(&overlay, first.state, "pwd", &options).await;
    assert_eq!(second.stdout, "/workspace\n");
    assert!(
        second.stderr.contains("/workspace/d: no such directory"),
        "{}",
        second.stderr
    );
}

/// SH-7
#[tokio::test]
async fn a_command_without_end_is_stopped_and_others_go_on() {
    let overlay = World::new().begin().await;
    let options = ShellOptions {
        timeout: Duration::from_millis(300),
        ..ShellOptions::default()
    };
    for command in [
        "echo before; while :; do :; done",
        "echo before; sleep 50",
        "echo before; awk 'BEGIN { while (1) x++ }'",
    ] {
        let shell = Shell::new();
        let run = shell.run(&overlay, ShellState::default(), command, &options);
        let other = async {
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            "went on"
        };
        let (outcome, other) = tokio::join!(run, other);
        assert_eq!(other, "went on");
        assert!(outcome.timed_out, "{command}: {outcome:?}");
        assert_eq!(outcome.exit_code, 124);
        assert!(
            outcome
                .stderr
                .ends_with("Command timed out after 0.3 seconds."),
            "{}",
            outcome.stderr
        );
    }
}

/// SH-4
#[tokio::test]
async fn a_number_that_the_shell_gives_is_right_or_the_command_fails() {
    let overlay = World::new().begin().await;
    assert_eq!(out(&overlay, "seq 1 300000 | wc -l").await, "300000\n");
    assert_eq!(
        out(&overlay, "sort -n <(seq 1 300000) | tail -1").await,
        "300000\n"
    );
    assert_eq!(
        out(&overlay, "seq 1 300000 | sort -n | tail -1").await,
        "300000\n"
    );
    assert_eq!(out(&overlay, "yes | head -20000 | wc -l").await, "20000\n");
    assert_eq!(out(&overlay, "yes abc def | head -1").await, "abc def\n");
    assert_eq!(
        out(&overlay, "for i in $(seq 20000); do :; done; echo $i").await,
        "20000\n"
    );
    assert_eq!(
        out(&overlay, "seq 1 400000 > f; wc -l < f; tail -1 f").await,
        "400000\n400000\n"
    );
    let outcome = sh(&overlay, "seq 1 3000000").await;
    assert!(
        outcome.truncated,
        "{} {}",
        outcome.exit_code,
        outcome.stdout.len()
    );
    assert_ne!(outcome.exit_code, 0);
    assert!(
        outcome.stderr.contains("output limit"),
        "{}",
        outcome.stderr
    );
}

#[tokio::test]
async fn seq_counts_like_the_real_one() {
    let overlay = World::new().begin().await;
    let cases = [
        ("seq 3", "1\n2\n3\n"),
        ("seq 2 4", "2\n3\n4\n"),
        ("seq 5 -2 1", "5\n3\n1\n"),
        ("seq 3 1", ""),
        ("seq -w 8 10", "08\n09\n10\n"),
        ("seq -s, 1 3", "1,2,3\n"),
        ("seq -s ' ' -1 1", "-1 0 1\n"),
        ("seq 0 0.5 1", "0.0\n0.5\n1.0\n"),
        ("seq 1 2.5", "1\n2\n"),
        ("seq -f 'f%03g.txt' 2", "f001.txt\nf002.txt\n"),
        ("seq -f %.2f 1 2", "1.00\n2.00\n"),
    ];
    for (command, expected) in cases {
        assert_eq!(out(&overlay, command).await, expected, "{command}");
    }
    assert_eq!(sh(&overlay, "seq x").await.exit_code, 1);
}

/// SH-6
#[tokio::test]
async fn a_hostile_script_is_stopped_with_a_clear_error() {
    let limits = WorkspaceLimits {
        step_bytes: 4 << 20,
        ..WorkspaceLimits::default()
    };
    let world = World::with_limits(limits);
    let overlay = world.begin().await;
    let options = ShellOptions {
        timeout: Duration::from_secs(20),
        ..ShellOptions::default()
    };
    let run = |command: &'static str| {
        let (overlay, options) = (overlay.child(), options.clone());
        async move {
            Shell::new()
                .run(&overlay, ShellState::default(), command, &options)
                .await
        }
    };
    for (command, message) in [
        ("yes > full", "quota"),
        ("f() { f | f & f; }; f", ""),
        ("f() { f; }; f", ""),
        ("yes | head -c 10G | wc -c", ""),
        ("x=a; while :; do x=$x$x; done", ""),
        (
            "printf 'a%.0s' $(seq 100000) | sed 's/a/&&&&&&&&&&/g' | sed 's/a/&&&&&&&&&&/g' | sed 's/a/&&&&&&&&&&&/g' | wc -c",
            "",
        ),
    ] {
        let outcome = run(command).await;
        assert_ne!(outcome.exit_code, 0, "{command}: {}", outcome.stdout.len());
        assert!(
            outcome.stderr.to_lowercase().contains(message) && !outcome.stderr.is_empty(),
            "{command}: {outcome:?}"
        );
    }
}

/// SH-3
#[tokio::test]
async fn a_brace_range_that_would_be_left_as_it_is_is_refused() {
    let overlay = World::new().begin().await;
    assert_eq!(out(&overlay, "echo {1..10000} | wc -w").await, "10000\n");
    for command in [
        "for i in {1..20000}; do :; done",
        "echo a{1..100001..5}",
        "x=1; echo {-1..-99999}",
    ] {
        let outcome = sh(&overlay, command).await;
        assert_eq!(outcome.exit_code, 1, "{command}");
        assert!(outcome.stderr.contains("use seq"), "{}", outcome.stderr);
    }
    assert_eq!(
        out(&overlay, "echo '{1..20000}' \"{1..20000}\" # {1..20000}").await,
        "{1..20000} {1..20000}\n"
    );
    assert_eq!(
        out(&overlay, "cat <<'E'\n{1..20000}\nE\necho $((1+1)) ${x:-a}").await,
        "{1..20000}\n2 a\n"
    );
}

#[tokio::test]
async fn a_long_session_does_not_run_out_of_commands() {
    let overlay = World::new().begin().await;
    let shell = Shell::new();
    let mut state = ShellState::default();
    for n in 0..1100 {
        let outcome = shell
            .run(&overlay, state, "echo hi", &ShellOptions::default())
            .await;
        assert_eq!(outcome.stdout, "hi\n", "command {n}: {outcome:?}");
        state = outcome.state;
    }
}

/// SH-1
#[tokio::test]
async fn there_is_no_network_and_no_host() {
    let overlay = World::new().begin().await;
    for command in [
        "curl http://127.0.0.1:1/",
        "cat /etc/hostname /root/.bashrc",
        "ssh localhost true",
        "python3 -c 'print(1)'",
    ] {
        let outcome = sh(&overlay, command).await;
        assert_ne!(outcome.exit_code, 0, "{command}: {outcome:?}");
    }
}

#[tokio::test]
async fn syntax_errors_are_told_like_bash_does() {
    let overlay = World::new().begin().await;
    let outcome = sh(&overlay, "if then fi").await;
    assert_eq!(outcome.exit_code, 2);
    assert!(
        outcome.stderr.contains("syntax error"),
        "{}",
        outcome.stderr
    );
}

#[tokio::test]
async fn dropping_the_run_stops_the_command() {
    let world = World::new();
    let overlay = world.begin().await;
    let shell = Shell::new();
    let options = ShellOptions::default();
    let run = shell.run(
        &overlay,
        ShellState::default(),
        "echo 1 > started; while :; do echo x >> f; done",
        &options,
    );
    let _ = tokio::time::timeout(Duration::from_millis(50), run).await;
    // The next command gets an interpreter of its own.
    assert_eq!(
        shell
            .run(&overlay, ShellState::default(), "echo ok", &options)
            .await
            .stdout,
        "ok\n"
    );
}

#[tokio::test]
async fn a_command_in_a_loop_leaves_the_pipe_to_the_next_read() {
    let overlay = World::new().begin().await;
    put(&overlay, "a", "1\n").await;
    put(&overlay, "b", "2\n").await;
    for body in [
        "cat $f",
        "grep . $f",
        "head -n 1 $f",
        "sort $f",
        "sed '' $f",
        "awk 1 $f",
    ] {
        let command = format!(
            "find . -type f | sort | while read -r f; do {body}; done; \
             for f in a b; do echo $f; done | while read -r f; do {body} < /dev/null; done"
        );
        let outcome = sh(&overlay, &command).await;
        assert_eq!(outcome.stdout, "1\n2\n1\n2\n", "{body}: {}", outcome.stderr);
    }
}

/// Each way to feed a loop, with each kind of command in it; the words are those of the machine's shell.
#[tokio::test]
async fn each_command_in_a_loop_leaves_the_pipe_to_the_next_read() {
    let overlay = World::new().begin().await;
    put(&overlay, "a", "x1\ny\n").await;
    put(&overlay, "b", "x2\n").await;
    put(&overlay, "list", "a\nb\n").await;
    let loops = [
        "for f in a b; do echo $f; done | while read -r f; do BODY; done",
        "{ echo a; echo b; } | while read f; do BODY; done",
        "ls a b | while read f; do BODY; done",
        "cat list | while read f; do BODY; done",
        "printf 'b\\na\\n' | sort | while read f; do BODY; done",
        "while read f; do BODY; done < list",
        "while read f; do BODY; done < <(cat list)",
        "g() { while read f; do BODY; done; }; for f in a b; do echo $f; done | g",
        "seq 2 | while read n; do echo $n; done | tr 12 ab | while read f; do BODY; done",
    ];
    let bodies = [
        ("cat $f", "x1\ny\nx2\n"),
        ("cat $f | wc -l", "2\n1\n"),
        ("LC_ALL=C grep x $f", "x1\nx2\n"),
        ("grep x $f | head -1", "x1\nx2\n"),
        ("if ! grep -q 2 $f; then echo $f; fi", "a\n"),
        ("n=$(grep -c x $f); echo $n", "1\n1\n"),
        ("echo $(cat $f)", "x1 y\nx2\n"),
        ("echo $f | tr ab cd", "c\nd\n"),
        ("echo $f | cat", "a\nb\n"),
        ("cat < $f | while read l; do echo $l; done", "x1\ny\nx2\n"),
        ("sort $f", "x1\ny\nx2\n"),
        ("head -1 $f", "x1\nx2\n"),
    ];
    for looped in loops {
        for (body, stdout) in bodies {
            let command = looped.replace("BODY", body);
            let outcome = sh(&overlay, &command).await;
            assert_eq!(outcome.stdout, stdout, "{command}: {}", outcome.stderr);
        }
    }
    let shell = Shell::new();
    let options = ShellOptions::default();
    let mut state = ShellState::default();
    for (command, stdout) in [
        ("cat list | while read f; do cat $f; done", "x1\ny\nx2\n"),
        ("alias; shopt -q expand_aliases || echo off", "off\n"),
        ("type -t cat", "file\n"),
    ] {
        let outcome = shell.run(&overlay, state, command, &options).await;
        assert_eq!(outcome.stdout, stdout, "{command}");
        state = outcome.state;
    }
}

#[tokio::test]
async fn a_loop_in_a_loop_reads_only_its_own_pipe() {
    let overlay = World::new().begin().await;
    put(&overlay, "list", "1\n2\n").await;
    for outer in [
        "seq 2 | while read n; do BODY; done",
        "for n in 1 2; do echo $n; done | while read n; do BODY; done",
        "printf '1\\n2\\n' | while read n; do BODY; done",
        "cat list | while read n; do BODY; done",
        "while read n; do BODY; done < list",
    ] {
        for (body, each) in [
            ("echo x | while read l; do echo $n$l; done", "Nx\n"),
            (
                "printf 'x\\ny\\n' | while read l; do echo $n$l; done",
                "Nx\nNy\n",
            ),
            ("echo x | sort | while read l; do echo $n$l; done", "Nx\n"),
            ("echo x | cat | while read l; do echo $n$l; done", "Nx\n"),
            (
                "echo $n; cat list | wc -l | while read l; do echo $l; done",
                "N\n2\n",
            ),
            ("echo x | { read l; echo $n$l; }", "Nx\n"),
        ] {
            let command = outer.replace("BODY", body);
            let outcome = sh(&overlay, &command).await;
            let stdout = [each.replace('N', "1"), each.replace('N', "2")].concat();
            assert_eq!(outcome.stdout, stdout, "{command}: {}", outcome.stderr);
        }
    }
}

/// What a command's text says of it must be true, since nobody looks at the state afterwards.
#[tokio::test]
async fn what_changes_the_state_is_seen_however_it_is_written() {
    let overlay = World::new().begin().await;
    put(&overlay, "d/f", "1\n").await;
    let options = ShellOptions::default();
    let shell = Shell::new();
    let fresh = ShellState::default();
    let first = shell.run(&overlay, fresh, "y=1", &options).await.state;
    for command in [
        "echo $[y++]",
        ": ${z:=1}",
        "echo a && cd d",
        "echo a & cd d",
        "echo a>g;export q",
        "printf -v q 1",
        "echo a; read q < d/f",
        "echo 2>&1\ncd d",
        "echo x &>g; cd d",
        "ls | sort; let y++",
        "for q in 1; do :; done",
        "echo a; echo() { y=2; }",
        "'cd' d",
        "\\cd d",
        "true || ls; cd d",
    ] {
        let command = command.replace("\\n", "\n");
        let outcome = shell.run(&overlay, first.clone(), &command, &options).await;
        assert!(outcome.state_changed, "{command}: {outcome:?}");
    }
    let hidden = shell
        .run(&overlay, first.clone(), "ls() { y=2; }", &options)
        .await;
    let outcome = shell.run(&overlay, hidden.state, "ls", &options).await;
    assert!(outcome.state_changed, "{outcome:?}");
    let plain = "echo a | sort > g; cat g d/f | wc -l; ls d && grep 1 d/f; find . -name 'f*'; head -1 g 2>&1";
    let outcome = shell.run(&overlay, first, plain, &options).await;
    assert_eq!(outcome.stdout, "2\nf\n1\n./d/f\na\n");
    assert!(!outcome.state_changed);
    let next = shell
        .run(&overlay, outcome.state, "echo $y; pwd", &options)
        .await;
    assert_eq!(next.stdout, "1\n/workspace\n");
}

/// SH-29
#[tokio::test]
async fn what_a_loop_would_lose_from_its_pipe_stops_the_call() {
    let overlay = World::new().begin().await;
    put(&overlay, "a", "1\n").await;
    for body in ["cat $f", "grep -c . $f"] {
        // Aliases are the call's own.
        let command = format!(
            "unalias -a; for f in a a a; do echo $f; done | while read -r f; do {body}; done"
        );
        let outcome = sh(&overlay, &command).await;
        assert_eq!(outcome.exit_code, 137, "{outcome:?}");
        assert!(outcome.stderr.contains("< /dev/null"), "{}", outcome.stderr);
    }
}

#[tokio::test]
async fn a_filter_sees_the_shell_that_it_stands_in() {
    let overlay = World::new().begin().await;
    put(&overlay, "d/a", "b\na\n").await;
    for (command, stdout) in [
        ("cd d && sort a", "a\nb\n"),
        ("export x=1; awk 'BEGIN { print ENVIRON[\"x\"] }'", "1\n"),
        ("x=2 jq -n 'env.x'", "\"2\"\n"),
        ("paste <(echo 1) <(echo 2)", "1\t2\n"),
        ("diff <(echo 1) <(echo 1) && echo same", "same\n"),
        ("echo x | tee >(cat) >/dev/null", "x\n"),
        ("echo 1 | tee /dev/stderr 2>/dev/null", "1\n"),
        ("diff /dev/null d/a | head -n 1", "0a1,2\n"),
        ("sort < d/a | sort -r - | head -1", "b\n"),
        ("yes | head -c 1M | wc -c", "1048576\n"),
        ("yes | head -n 3 | wc -l", "3\n"),
        (
            "printf 'a\\nb' | head -c 3; seq 9 | head -2; seq 9 | head -n -8",
            "a\nb1\n2\n1\n",
        ),
        ("seq 3 | sort -o out -r; cat out", "3\n2\n1\n"),
        (
            "awk 'BEGIN { system(\"seq 3 | sort -r | head -1\") }'",
            "3\n",
        ),
        (
            "set -o pipefail; seq 3 | sort --no-such 2>/dev/null | cat || echo failed",
            "failed\n",
        ),
        ("sort() { echo mine; }; echo x | sort", "mine\n"),
        (
            "printf '\\xff\\xfe' | gzip -c | gunzip -c | od -An -tx1",
            " ff fe\n",
        ),
    ] {
        let outcome = sh(&overlay, command).await;
        assert_eq!(outcome.stdout, stdout, "{command}: {}", outcome.stderr);
        assert_eq!(outcome.exit_code, 0, "{command}: {}", outcome.stderr);
    }
}

/// Text of `times` times `piece`.
fn many(piece: &str, times: usize) -> String {
    piece.repeat(times)
}

/// SH-31
#[tokio::test]
async fn what_nests_too_deeply_is_stopped_and_the_process_goes_on() {
    let overlay = World::new().begin().await;
    put(&overlay, "t", "a\n").await;
    // Each takes less of the stack in `command` than in the others.
    let words = [
        ("env ", 2000),
        ("command ", 6000),
        ("nice ", 2000),
        ("xargs ", 2000),
        ("timeout 9 ", 2000),
        ("exec ", 2000),
        ("eval ", 2000),
    ];
    let mut commands: Vec<String> = words
        .iter()
        .map(|(word, times)| format!("{} true < t", many(word, *times)))
        .collect();
    let within =
        |before: &str, piece: &str, after: &str| format!("{before}{}{after}", many(piece, 20_000));
    commands.extend([
        "printf 'exec ./a\\n' > a; chmod +x a; ./a".to_owned(),
        "printf './b\\n' > b; chmod +x b; ./b".to_owned(),
        "x='eval \"$x\"'; eval \"$x\"".to_owned(),
        "f() { exec bash -c f; }; export -f f; f".to_owned(),
        "f() { if [ $1 -gt 0 ]; then for i in 1; do while true; do case x in x) { ( eval \"f $(($1-1)) | cat\" ); };; esac; break; done; done; else echo e; fi; }; f 17".to_owned(),
        within("jq '", "[", "' t"),
        within("jq -n '", "(", "'"),
        within("jq -n '", "1+", "1'"),
        format!("{}; jq -nf p", within("printf '", "[", "' > p")),
        within("echo '", "(", "1' | bc"),
        within("echo '", "-", "1' | bc"),
        within("find . ", "! ", "-name x"),
        within("/usr/bin/find . ", "\\( ", "-name x"),
        within("test ", "\\( ", "x"),
        within("[ ", "! ", "x ]"),
    ]);
    for command in commands {
        let begin: String = command.chars().take(60).collect();
        // A stack that runs out ends the process: then this is the last line.
        println!("{begin}");
        let outcome = sh(&overlay, &command).await;
        assert_ne!(outcome.exit_code, 0, "{begin}");
        assert!(!outcome.stderr.is_empty(), "{begin}");
    }
    assert_eq!(
        out(&overlay, "gzip -c t | zcat; gzip t; zcat t.gz").await,
        "a\na\n"
    );
    let nested = "jq -n 'reduce range(100000) as $x (null; [.]) | [.] | 1'; echo after";
    assert_eq!(out(&overlay, nested).await, "1\nafter\n");
}

#[tokio::test]
async fn a_program_that_is_stopped_does_not_go_on() {
    let overlay = World::new().begin().await;
    for command in ["jq -n 'def f: f; f'", "jq -n 'last(range(1e12))'"] {
        let options = ShellOptions {
            timeout: Duration::from_secs(1),
            ..ShellOptions::default()
        };
        let outcome = Shell::new()
            .run(&overlay, ShellState::default(), command, &options)
            .await;
        assert_ne!(outcome.exit_code, 0, "{command}: {outcome:?}");
    }
    let outcome = sh(&overlay, "awk 'BEGIN { while (1) {} }'").await;
    assert!(outcome.stderr.contains("loop"), "{outcome:?}");
    let outcome = sh(&overlay, "printf 'x%.0s' {1..1500} | sed ':a;s/x/y/;ta'").await;
    assert!(outcome.truncated && outcome.exit_code != 0, "{outcome:?}");
}
