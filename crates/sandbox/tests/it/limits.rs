//! The intentional differences of `docs/limits.md`, by their ids. Those of the shell's figures that
//! other tests show already carry their id there.

use std::time::{Duration, SystemTime};

use bowline_sandbox::{
    archive,
    shell::{Shell, ShellOptions, ShellOutcome, ShellState},
    workspace::Overlay,
};
use bowline_store::Timestamp;

use crate::support::{World, posix, put, text};

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

/// WS-1
#[tokio::test]
async fn the_time_of_a_directory_is_when_it_was_made() {
    let world = World::new();
    let overlay = world.begin().await;
    overlay.mkdir("d", false).await.unwrap();
    let made = overlay.stat("d").await.unwrap().modified;
    world.commit(&overlay).await;
    let overlay = world
        .workspace
        .begin(Timestamp::from_millis(made.as_millis() + 1000))
        .await
        .unwrap();
    put(&overlay, "d/a", "1").await;
    assert_eq!(overlay.stat("d").await.unwrap().modified, made);
    assert!(overlay.stat("d/a").await.unwrap().modified > made);
}

/// WS-2
#[tokio::test]
async fn there_are_no_hard_links_and_no_special_files() {
    let overlay = World::new().begin().await;
    put(&overlay, "a", "1").await;
    for command in ["mkfifo p", "mknod n p"] {
        let outcome = sh(&overlay, command).await;
        assert_ne!(outcome.exit_code, 0, "{command}");
        assert!(!outcome.stderr.is_empty(), "{command}");
    }
    assert_eq!(sh(&overlay, "ln a b; readlink b").await.stdout, "a\n");
}

/// WS-3
#[tokio::test]
async fn modes_are_shown_and_not_enforced() {
    let overlay = World::new().begin().await;
    put(&overlay, "a", "1").await;
    overlay.chmod("a", 0o000).await.unwrap();
    assert_eq!(overlay.stat("a").await.unwrap().mode, 0);
    assert_eq!(text(&overlay, "a").await, "1");
    put(&overlay, "a", "2").await;
    let outcome = sh(&overlay, "stat -c %a a; cat a").await;
    assert_eq!(outcome.stdout, "0\n2");
}

/// WS-4
#[tokio::test]
async fn there_is_no_access_time() {
    let overlay = World::new().begin().await;
    put(&overlay, "a", "1").await;
    assert_eq!(
        sh(&overlay, "cat a >/dev/null; stat -c %X a").await.stdout,
        "%X\n"
    );
}

/// WS-5
#[tokio::test]
async fn a_name_that_is_not_utf8_is_refused() {
    let overlay = World::new().begin().await;
    let mut header = tar::Header::new_ustar();
    header.as_old_mut().name[0] = 0xff;
    header.set_size(0);
    header.set_mode(0o644);
    header.set_cksum();
    let mut builder = tar::Builder::new(Vec::new());
    builder.append(&header, std::io::empty()).unwrap();
    put(&overlay, "a.tar", builder.into_inner().unwrap()).await;
    let error = archive::extract_archive(&overlay, "a.tar", "out")
        .await
        .unwrap_err();
    assert!(error.to_string().contains("not UTF-8"), "{error}");
}

/// WS-6, WS-7
#[tokio::test]
async fn dots_are_refused_where_posix_guesses() {
    let overlay = World::new().begin().await;
    put(&overlay, "d/a", "1").await;
    assert_eq!(posix(overlay.mkdir("no/../x", true).await), "ENOENT");
    assert_eq!(posix(overlay.rename("d/..", "e").await), "EINVAL");
    assert_eq!(posix(overlay.remove("d/..", true, true).await), "EINVAL");
}

/// WS-8
#[tokio::test]
async fn all_writes_of_a_step_have_the_same_time() {
    let overlay = World::new().begin().await;
    put(&overlay, "a", "1").await;
    put(&overlay, "b", "1").await;
    assert_eq!(
        overlay.stat("a").await.unwrap().modified,
        overlay.stat("b").await.unwrap().modified
    );
}

/// SH-2
#[tokio::test]
async fn functions_nest_sixteen_deep_and_a_deeper_one_fails() {
    let overlay = World::new().begin().await;
    let nest = |depth: u32| {
        format!("f() {{ if [ $1 -gt 1 ]; then f $(($1-1)); else echo end; fi; }}; f {depth}")
    };
    assert_eq!(sh(&overlay, &nest(16)).await.stdout, "end\n");
    let outcome = sh(&overlay, &nest(17)).await;
    assert_ne!(outcome.exit_code, 0);
    assert!(
        !outcome.stderr.is_empty() && !outcome.stdout.contains("end"),
        "{outcome:?}"
    );
}

/// SH-3
#[tokio::test]
async fn a_long_range_in_a_script_file_stays_as_it_is() {
    let overlay = World::new().begin().await;
    put(
        &overlay,
        "s.sh",
        "for i in {1..20000}; do echo $i; done | head -1",
    )
    .await;
    assert_eq!(sh(&overlay, "bash s.sh").await.stdout, "{1..20000}\n");
}

/// SH-5, SH-12
#[tokio::test]
async fn a_filter_that_stops_early_says_so_on_its_standard_error() {
    let overlay = World::new().begin().await;
    let told = sh(&overlay, "yes | head -c 2000000 | expand | wc -c").await;
    assert!(told.truncated && told.exit_code != 0, "{told:?}");
    assert!(told.stderr.contains("limit"), "{}", told.stderr);
    let hidden = sh(
        &overlay,
        "yes | head -c 2000000 | expand 2>/dev/null | wc -c",
    )
    .await;
    assert_eq!((hidden.exit_code, hidden.truncated), (0, false));
    let failed = sh(
        &overlay,
        "set -o pipefail; yes | head -c 2000000 | expand 2>/dev/null | wc -c",
    )
    .await;
    assert_ne!(failed.exit_code, 0);
}

/// SH-8
#[tokio::test]
async fn sleep_goes_on_until_the_command_ends_and_timeout_has_a_limit() {
    let overlay = World::new().begin().await;
    let options = ShellOptions {
        timeout: Duration::from_millis(100),
        ..ShellOptions::default()
    };
    let outcome = Shell::new()
        .run(&overlay, ShellState::default(), "sleep 2h", &options)
        .await;
    assert!(outcome.timed_out);
    assert_eq!(sh(&overlay, "sleep 0 0.001s 0m").await.exit_code, 0);
    assert_eq!(
        sh(&overlay, "sleep x").await.stderr,
        "sleep: invalid time interval 'x'\n"
    );
    assert_eq!(sh(&overlay, "sleep").await.exit_code, 1);
    assert!(
        sh(&overlay, "timeout --help")
            .await
            .stdout
            .contains("300 seconds")
    );
}

/// SH-9
#[tokio::test]
async fn traps_and_background_jobs_end_with_their_command() {
    let overlay = World::new().begin().await;
    let shell = Shell::new();
    let options = ShellOptions::default();
    let first = shell
        .run(
            &overlay,
            ShellState::default(),
            "trap 'echo trapped' EXIT; set -u; x=1; (sleep 0.01; echo 1 > done) &",
            &options,
        )
        .await;
    // The command has waited for its job.
    assert!(overlay.exists("done").await.unwrap());
    let second = shell
        .run(&overlay, first.state, "trap; jobs; echo \"$x\"", &options)
        .await;
    assert_eq!(
        (second.stdout.as_str(), second.stderr.as_str()),
        ("1\n", "")
    );
    // Options end with it too.
    assert_eq!(
        shell
            .run(&overlay, second.state, "echo $unset", &options)
            .await
            .exit_code,
        0
    );
}

/// SH-10
#[tokio::test]
async fn date_shows_the_time_of_the_machine() {
    let overlay = World::new().begin().await;
    let before = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let shown: u64 = sh(&overlay, "date +%s")
        .await
        .stdout
        .trim()
        .parse()
        .unwrap();
    assert!(shown >= before, "{shown} {before}");
}

/// SH-11
#[tokio::test]
async fn seq_refuses_a_format_that_it_does_not_know() {
    let overlay = World::new().begin().await;
    let outcome = sh(&overlay, "seq -f %e 3").await;
    assert_eq!(outcome.exit_code, 1);
    assert!(outcome.stderr.contains("%g, %f"), "{}", outcome.stderr);
}

/// SH-13
#[tokio::test]
async fn a_read_of_dev_zero_ends() {
    let overlay = World::new().begin().await;
    assert_eq!(
        sh(&overlay, "head -c 2M /dev/zero | wc -c").await.stdout,
        "1048576\n"
    );
    assert!(!sh(&overlay, "cat /dev/urandom").await.stderr.is_empty());
}

/// SH-14
#[tokio::test]
async fn a_command_reads_the_file_that_it_is_redirected_to() {
    let overlay = World::new().begin().await;
    put(&overlay, "f", "b\na\n").await;
    assert_eq!(sh(&overlay, "stat -c %s f > f; cat f").await.stdout, "4\n");
    // Those that read text find it empty, as with bash.
    assert_eq!(sh(&overlay, "sort f > f; cat f").await.stdout, "");
}

/// SH-15
#[tokio::test]
async fn an_endless_command_says_where_it_ends() {
    let overlay = World::new().begin().await;
    let outcome = sh(&overlay, "yes | wc -c").await;
    assert!(
        outcome.exit_code != 0 && outcome.stderr.contains("yes: output limit"),
        "{outcome:?}"
    );
}

/// SH-16
#[tokio::test]
async fn backquotes_in_a_nested_function_stay_as_they_are() {
    let overlay = World::new().begin().await;
    let nested =
        |command: &str| format!("f() {{ g() {{ x=\"{command}\"; echo \"$x\"; }}; g; }}; f");
    assert_eq!(
        sh(&overlay, &nested("`echo tick`")).await.stdout,
        "`echo tick`\n"
    );
    assert_eq!(sh(&overlay, &nested("$(echo tick)")).await.stdout, "tick\n");
}

/// SH-17
#[tokio::test]
async fn cut_counts_characters() {
    let overlay = World::new().begin().await;
    assert_eq!(sh(&overlay, "echo éa | cut -c1").await.stdout, "é\n");
}

/// SH-18, SH-19
#[tokio::test]
async fn a_command_that_takes_too_much_memory_is_stopped() {
    let overlay = World::new().begin().await;
    let outcome = sh(&overlay, "{ yes; yes; yes; yes; } | wc -w").await;
    assert_eq!(outcome.exit_code, 137, "{outcome:?}");
    assert!(outcome.stderr.contains("memory"), "{}", outcome.stderr);
    put(&overlay, "large", vec![b'a'; (64 << 20) + 1]).await;
    let outcome = sh(&overlay, "wc -w large").await;
    assert_ne!(outcome.exit_code, 0);
    assert!(
        outcome.stderr.contains("File too large"),
        "{}",
        outcome.stderr
    );
    assert_eq!(sh(&overlay, "cat large | head -c 2").await.stdout, "aa");
    let counted = sh(&overlay, "wc -c large; cat large large large | wc -c").await;
    assert_eq!(counted.stdout, "67108865 large\n201326595\n", "{counted:?}");
    put(&overlay, "lines", vec![b'\n'; 10 << 20]).await;
    let outcome = sh(&overlay, "sort lines").await;
    assert!(
        outcome.stderr.contains("File too large"),
        "{}",
        outcome.stderr
    );
}

/// SH-20
#[tokio::test]
async fn a_state_that_is_too_large_is_not_kept() {
    let overlay = World::new().begin().await;
    let (shell, options) = (Shell::new(), ShellOptions::default());
    let state = ShellState::default();
    let first = shell.run(&overlay, state, "small=1", &options).await;
    let large = "x=$(yes | head -c 1000000); small=2; echo ${#x}";
    let second = shell.run(&overlay, first.state, large, &options).await;
    assert_eq!((second.exit_code, second.stdout.as_str()), (0, "999999\n"));
    assert!(second.stderr.contains("not kept"), "{}", second.stderr);
    assert!(!second.state_changed);
    let third = shell
        .run(&overlay, second.state, "echo $small ${#x}", &options)
        .await;
    assert_eq!(third.stdout, "1 0\n");
}

/// SH-21
#[tokio::test]
async fn a_copy_onto_itself_succeeds() {
    let overlay = World::new().begin().await;
    put(&overlay, "a", "1").await;
    let outcome = sh(&overlay, "cp a a && mv a a && cat a").await;
    assert_eq!((outcome.exit_code, outcome.stdout.as_str()), (0, "1"));
}

/// SH-22
#[tokio::test]
async fn an_empty_slice_without_quotes_is_one_element() {
    let overlay = World::new().begin().await;
    let script = "a=(1 2); b=(${a[@]:5}); c=(\"${a[@]:5}\"); echo ${#b[@]} ${#c[@]}";
    assert_eq!(sh(&overlay, script).await.stdout, "1 0\n");
}

/// SH-23
#[tokio::test]
async fn a_missing_value_in_a_here_document_ends_the_script() {
    let overlay = World::new().begin().await;
    let outcome = sh(&overlay, "cat <<E\n${x:?no}\nE\necho after").await;
    assert!(!outcome.stdout.contains("after"), "{outcome:?}");
    assert!(!outcome.stderr.is_empty());
}

/// SH-24
#[tokio::test]
async fn a_recursive_grep_is_in_order() {
    let overlay = World::new().begin().await;
    for name in ["z", "a", "m/x", "m/b", "b"] {
        put(&overlay, name, "needle\n").await;
    }
    // The first has to read the directories, the second knows which files hold the word.
    for _ in 0..2 {
        assert_eq!(
            sh(&overlay, "grep -rl needle .").await.stdout,
            "./a\n./b\n./m/b\n./m/x\n./z\n"
        );
    }
}

/// SH-25
#[tokio::test]
async fn printf_has_a_widest_field() {
    let overlay = World::new().begin().await;
    assert_eq!(
        sh(&overlay, "printf '%10000s' x | wc -c").await.stdout,
        "10000\n"
    );
    assert_ne!(
        sh(&overlay, "printf '%20000s' x | wc -c").await.stdout,
        "20000\n"
    );
}

/// SH-26
#[tokio::test]
async fn git_says_what_it_does_not_have() {
    let overlay = World::new().begin().await;
    assert_eq!(sh(&overlay, "git init -q .").await.exit_code, 0);
    for command in ["git rebase main", "git stash", "git status --no-such"] {
        let outcome = sh(&overlay, command).await;
        assert_ne!(outcome.exit_code, 0, "{command}");
        assert!(outcome.stderr.contains("SH-26"), "{}", outcome.stderr);
    }
}

/// SH-27
#[tokio::test]
async fn curl_takes_no_credentials_and_always_checks() {
    let overlay = World::new().begin().await;
    for (options, why) in [
        ("-u me:secret", "outside of the shell"),
        ("-k", "always checked"),
        ("--proxy-digest", "SH-27"),
    ] {
        let outcome = sh(&overlay, &format!("curl {options} https://example.com")).await;
        assert_eq!(outcome.exit_code, 2, "{options}");
        assert!(outcome.stderr.contains(why), "{}", outcome.stderr);
    }
}

/// SH-32
#[tokio::test]
async fn bc_fails_where_it_is_not_exact() {
    let overlay = World::new().begin().await;
    for (exact, result) in [("2^49", "562949953421312\n"), ("scale=3; 10/3", "3.333\n")] {
        let outcome = sh(&overlay, &format!("echo '{exact}' | bc")).await;
        assert_eq!((outcome.exit_code, outcome.stdout.as_str()), (0, result));
    }
    for inexact in [
        "2^100",
        "99999999999999999999 * 3",
        "scale=20; 1/3",
        "while (1) 1",
    ] {
        let outcome = sh(&overlay, &format!("echo '{inexact}' | bc")).await;
        assert_ne!(outcome.exit_code, 0, "{inexact}: {outcome:?}");
        assert!(outcome.stdout.is_empty(), "{inexact}: {outcome:?}");
    }
}

/// SH-33
#[tokio::test]
async fn a_long_listing_has_columns_of_its_own() {
    let overlay = World::new().begin().await;
    put(&overlay, "a", "123").await;
    let outcome = sh(&overlay, "ls -l | awk '{ print NF, $1, $2, $5 }'; ls -a").await;
    assert_eq!(outcome.stdout, "5 -rw-r--r-- 3 a\na\n");
    for option in ["-S", "-p"] {
        let outcome = sh(&overlay, &format!("ls {option}")).await;
        assert_ne!(outcome.exit_code, 0, "{option}");
    }
}

/// SH-34 and SH-35
#[tokio::test]
async fn options_that_are_not_there_are_refused() {
    let overlay = World::new().begin().await;
    put(&overlay, "a/x", "1\n").await;
    put(&overlay, "b/x", "2\n").await;
    let options = ["-r", "-w", "-i", "-b", "-B", "-N", "-s", "-y", "-c", "-U1"];
    let mut commands: Vec<String> = options
        .iter()
        .map(|option| format!("diff {option} a/x b/x"))
        .collect();
    commands.extend(
        [
            "date -d 'Jan 5 2021' +%F",
            "date -d '2020-01-01 +1 day' +%F",
            "zip -q a.zip a/x",
            "grep -f <(echo a) a/x",
            "find . -links 1",
        ]
        .map(str::to_owned),
    );
    for command in commands {
        let outcome = sh(&overlay, &command).await;
        assert_ne!(outcome.exit_code, 0, "{command}: {outcome:?}");
        assert!(!outcome.stderr.is_empty(), "{command}");
    }
    let outcome = sh(&overlay, "diff -q a/x b/x; diff -u a/x b/x | tail -2").await;
    assert!(outcome.stdout.ends_with("-1\n+2\n"), "{outcome:?}");
}
