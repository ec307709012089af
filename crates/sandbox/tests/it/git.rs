//! Version control against the machine's git: what one writes the other reads.

use std::{path::Path, process::Command};

use bowline_sandbox::{
    archive::{export_tar, unpack_archive},
    git::{CommitOptions, GitError, Repository},
    shell::{Shell, ShellOptions, ShellOutcome, ShellState},
    workspace::Overlay,
};
use bytes::Bytes;

use crate::support::{World, put, text};

/// The machine's git in a directory, without settings of the machine; its standard output.
pub(crate) fn real(dir: &Path, args: &[&str]) -> String {
    let done = Command::new("git")
        .args([
            "-c",
            "init.defaultBranch=main",
            "-c",
            "user.name=real",
            "-c",
            "user.email=real@example.com",
        ])
        .args([
            "-c",
            "commit.gpgsign=false",
            "-c",
            "safe.directory=*",
            "-c",
            "core.autocrlf=false",
            "-c",
            "diff.renames=false",
        ])
        .args(args)
        .current_dir(dir)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("HOME", "/nonexistent")
        .env("GIT_AUTHOR_DATE", "1795341600 +0200")
        .env("GIT_COMMITTER_DATE", "1795341600 +0200")
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "git {args:?}: {stderr}");
    // The name of the function behind a hunk is left out here (SH-26).
    let text = String::from_utf8(done.stdout).unwrap();
    let cut = |line: &str| match line.strip_prefix("@@ ").and_then(|rest| rest.find(" @@")) {
        Some(end) => format!("{}\n", &line[..end + 6]),
        None => line.to_owned(),
    };
    text.split_inclusive('\n').map(cut).collect()
}

pub(crate) async fn sh(overlay: &Overlay, command: &str) -> ShellOutcome {
    Shell::new()
        .run(
            overlay,
            ShellState::default(),
            command,
            &ShellOptions::default(),
        )
        .await
}

pub(crate) async fn ok(overlay: &Overlay, command: &str) -> String {
    let done = sh(overlay, command).await;
    assert_eq!(
        done.exit_code, 0,
        "{command}: {}{}",
        done.stdout, done.stderr
    );
    done.stdout
}

async fn fails(overlay: &Overlay, command: &str) -> String {
    let done = sh(overlay, command).await;
    assert_ne!(done.exit_code, 0, "{command}: {}", done.stdout);
    done.stderr
}

/// The working directory on the machine's disk.
pub(crate) async fn exported(overlay: &Overlay) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut tar = Vec::new();
    export_tar(overlay, "/workspace", |piece| {
        tar.extend_from_slice(&piece);
        true
    })
    .await
    .unwrap();
    std::fs::write(dir.path().join(".tar"), &tar).unwrap();
    let done = Command::new("tar")
        .args(["xf", ".tar"])
        .current_dir(dir.path())
        .status()
        .unwrap();
    assert!(done.success());
    std::fs::remove_file(dir.path().join(".tar")).unwrap();
    dir
}

/// A directory of the machine as the working directory.
async fn imported(overlay: &Overlay, dir: &Path) {
    let done = Command::new("tar")
        .args(["cf", "-", "."])
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(done.status.success());
    unpack_archive(overlay, Bytes::from(done.stdout), "/workspace")
        .await
        .unwrap();
}

#[tokio::test]
async fn what_the_workspace_commits_is_real_git() {
    let world = World::new();
    let overlay = world.begin().await;
    assert_eq!(
        ok(&overlay, "git init").await,
        "Initialized empty Git repository in /workspace/.git/\n"
    );
    put(&overlay, "a.txt", "one\ntwo\nthree\n").await;
    put(&overlay, "src/deep/b.rs", "fn main() {}\n").await;
    put(&overlay, "src.txt", "sorts between\n").await;
    put(&overlay, "binary", [0, 159, 146, 150]).await;
    put(&overlay, "target/out", "built").await;
    put(&overlay, ".gitignore", "/target\n*.log\n!keep.log\n").await;
    put(&overlay, "x.log", "no").await;
    put(&overlay, "src/keep.log", "yes").await;
    ok(&overlay, "chmod +x a.txt; ln -s a.txt link; mkdir empty").await;
    assert_eq!(
        ok(&overlay, "git status --porcelain").await,
        "?? .gitignore\n?? a.txt\n?? binary\n?? link\n?? src.txt\n?? src/\n"
    );
    ok(&overlay, "git add -A").await;
    let first = ok(&overlay, "git commit -m 'First  ' -m 'Body'").await;
    assert!(
        first.starts_with("[main (root-commit) ") && first.contains("] First\n 7 files changed"),
        "{first}"
    );
    ok(
        &overlay,
        "sed -i s/two/2/ a.txt; rm src.txt; echo more > new; git mv src/deep/b.rs src/c.rs",
    )
    .await;
    assert_eq!(
        ok(&overlay, "git status -s").await,
        " M a.txt\n D src.txt\nA  src/c.rs\nD  src/deep/b.rs\n?? new\n"
    );
    ok(
        &overlay,
        "git checkout -q -b topic && git add . && git commit -qm Second && git tag v1 -m 'A tag'",
    )
    .await;
    ok(
        &overlay,
        "git switch main && echo theirs > other && git add other && git commit -qm Third",
    )
    .await;
    let merged = ok(&overlay, "git merge topic").await;
    assert!(
        merged.starts_with("Merge made by the 'ort' strategy.\n"),
        "{merged}"
    );
    put(&overlay, "a.txt", "one\n2\nthree\nfour\n").await;

    let dir = exported(&overlay).await;
    real(dir.path(), &["fsck", "--strict", "--full"]);
    for args in [
        &["status", "--porcelain"][..],
        &["log", "--format=%H %an <%ae> %at %s|%b|%P"],
        &["log", "--format=%h %ad%d", "--reverse", "topic"],
        &["diff"],
        &["diff", "HEAD~1"],
        &["diff", "--stat", "HEAD~1", "HEAD"],
        &["diff", "--numstat", "v1~1", "topic"],
        &["diff", "--name-status", "topic", "main"],
        &["ls-files", "-s"],
        &["branch", "-v"],
        &["show", "v1~0:a.txt"],
        &["cat-file", "-p", "HEAD^{tree}"],
        &["rev-parse", "HEAD^2", "v1^{commit}", "main~1"],
        &["log", "--oneline", "--", "a.txt"],
    ] {
        let line = args
            .iter()
            .map(|arg| format!("'{arg}'"))
            .collect::<Vec<_>>()
            .join(" ");
        assert_eq!(
            ok(&overlay, &format!("git {line}")).await,
            real(dir.path(), args),
            "{line}"
        );
    }
}

#[tokio::test]
async fn what_real_git_made_is_read_with_its_packs_and_packed_references() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    real(at, &["init", "-q"]);
    let mut lines: Vec<String> = (0..400)
        .map(|n| format!("line {n} of a file that grows\n"))
        .collect();
    for round in 0..12 {
        lines[round * 30] = format!("changed in round {round}\n");
        std::fs::write(at.join("grows.txt"), lines.concat()).unwrap();
        std::fs::create_dir_all(at.join(format!("d{}/e", round % 3))).unwrap();
        std::fs::write(
            at.join(format!("d{}/e/f{round}", round % 3)),
            format!("{round}"),
        )
        .unwrap();
        real(at, &["add", "-A"]);
        real(at, &["commit", "-qm", &format!("Round {round}")]);
    }
    real(at, &["tag", "-a", "v1", "-m", "one", "HEAD~3"]);
    real(at, &["branch", "side", "HEAD~5"]);
    real(at, &["gc", "-q", "--aggressive", "--prune=now"]);
    std::fs::write(at.join("d1/e/f1"), "other").unwrap();
    std::fs::remove_file(at.join("d2/e/f2")).unwrap();
    std::fs::write(at.join("unknown file"), "?").unwrap();
    for version in ["2", "3", "4"] {
        real(
            at,
            &[
                "update-index",
                "--force-write-index",
                "--index-version",
                version,
            ],
        );
        let world = World::new();
        let overlay = world.begin().await;
        imported(&overlay, at).await;
        assert!(overlay.read("/workspace/.git/packed-refs").await.is_ok());
        for args in [
            &["status", "--porcelain"][..],
            &["log", "--format=%H %T %ai %s"],
            &["log", "-p", "-3", "--format=%h"],
            &["diff"],
            &["diff", "side", "v1"],
            &["ls-files", "-s"],
            &["tag"],
            &["branch"],
            &["rev-parse", "side", "v1^{commit}"],
        ] {
            let line = args
                .iter()
                .map(|arg| format!("'{arg}'"))
                .collect::<Vec<_>>()
                .join(" ");
            assert_eq!(
                ok(&overlay, &format!("git {line}")).await,
                real(at, args),
                "{version}: {line}"
            );
        }
        ok(&overlay, "git checkout -q -f; rm 'unknown file'; git checkout -q side && git branch -D main && git commit -q --allow-empty -m Ours").await;
        assert_eq!(ok(&overlay, "git status --porcelain").await, "");
        let back = exported(&overlay).await;
        real(back.path(), &["fsck", "--strict", "--full"]);
        assert_eq!(
            real(back.path(), &["log", "-2", "--format=%s"]),
            "Ours\nRound 6\n"
        );
        assert_eq!(real(back.path(), &["status", "--porcelain"]), "");
        assert_eq!(
            real(back.path(), &["branch", "--format=%(refname)"]),
            "refs/heads/side\n"
        );
    }
}

#[tokio::test]
async fn nothing_of_mine_is_overwritten() {
    let world = World::new();
    let overlay = world.begin().await;
    ok(&overlay, "git init -q; echo 1 > a; echo 1 > b; git add .; git commit -qm one; git switch -q -c other; echo 2 > a; echo 2 > c; git add .; git commit -qm two; git switch -q main").await;
    ok(
        &overlay,
        "echo mine > b; git switch other && test $(cat b) = mine && git switch main",
    )
    .await;
    ok(&overlay, "echo mine > a").await;
    let refused = fails(&overlay, "git switch other").await;
    assert!(
        refused.contains("would be overwritten by checkout:\n\ta\n"),
        "{refused}"
    );
    ok(&overlay, "git restore a; echo mine > c").await;
    let refused = fails(&overlay, "git merge other").await;
    assert!(
        refused.contains("untracked working tree files"),
        "{refused}"
    );
    assert_eq!(text(&overlay, "c").await, "mine\n");
    assert_eq!(
        ok(&overlay, "cat a; git branch --show-current").await,
        "1\nmain\n"
    );
    ok(&overlay, "rm c; echo x >> a; git commit -qam three").await;
    let refused = fails(&overlay, "git merge other").await;
    assert!(refused.starts_with("CONFLICT (content): a\n"), "{refused}");
    assert_eq!(ok(&overlay, "git status -s; cat a").await, "1\nx\n");
    let refused = fails(&overlay, "git branch -d other").await;
    assert!(refused.contains("not fully merged"), "{refused}");
}

#[tokio::test]
async fn changes_of_different_lines_are_merged() {
    let world = World::new();
    let overlay = world.begin().await;
    let base: String = (0..20).map(|n| format!("{n}\n")).collect();
    put(&overlay, "f", &base).await;
    ok(&overlay, "git init -q; git add .; git commit -qm base; git switch -q -c side; sed -i s/^3$/three/ f; echo end >> f; rm -f g; git commit -qam side").await;
    ok(&overlay, "git switch -q main; sed -i 's/^12$/twelve/; 1i start' f; git commit -qam main; git merge side").await;
    let merged = text(&overlay, "f").await;
    let expected = format!(
        "start\n{}end\n",
        base.replace("\n3\n", "\nthree\n")
            .replace("\n12\n", "\ntwelve\n")
    );
    assert_eq!(merged, expected);
}

#[tokio::test]
async fn a_path_stays_in_the_working_tree() {
    let world = World::new();
    let overlay = world.begin().await;
    put(&overlay, "/outside/f", "secret\n").await;
    ok(
        &overlay,
        "git init -q; ln -s /outside d; git add d; git commit -qm link",
    )
    .await;
    assert!(
        fails(&overlay, "git add /outside/f")
            .await
            .contains("outside repository")
    );
    assert!(
        fails(&overlay, "git add d/f")
            .await
            .contains("symbolic link")
    );
    assert!(
        fails(&overlay, "git add ../outside/f")
            .await
            .contains("outside repository")
    );
    assert!(
        fails(&overlay, "git add .git/config")
            .await
            .contains("invalid path")
    );
    // A directory in a commit replaces a link of that name; nothing is written through it.
    ok(&overlay, "git switch -q -c dir; git rm -q d; mkdir d; echo mine > d/f; git add d; git commit -qm dir; git switch -q main; git switch -q dir").await;
    assert_eq!(text(&overlay, "/outside/f").await, "secret\n");
    assert_eq!(text(&overlay, "d/f").await, "mine\n");
    assert!(
        fails(&overlay, "git branch ../../config")
            .await
            .contains("not a valid branch name")
    );
    assert!(
        fails(&overlay, "git status --no-such")
            .await
            .contains("SH-26")
    );
}

#[tokio::test]
async fn typed_operations_and_the_command_see_one_repository() {
    let world = World::new();
    let overlay = world.begin().await;
    let (mut repository, made) = Repository::init(&overlay, "/workspace/p", "main")
        .await
        .unwrap();
    assert!(made);
    put(&overlay, "p/a", "1\n").await;
    repository.add(&[String::new()], false).await.unwrap();
    let options = CommitOptions {
        message: "typed".into(),
        ..CommitOptions::default()
    };
    let done = repository.commit(&options).await.unwrap();
    assert_eq!((done.branch.as_deref(), done.root), (Some("main"), true));
    assert!(matches!(
        repository.commit(&options).await,
        Err(GitError::Refused(_))
    ));
    assert!(repository.status("").await.unwrap().is_clean());
    assert_eq!(
        ok(&overlay, "cd p && git log --format='%H %an'").await,
        format!("{} agent\n", done.id)
    );
    world.commit(&overlay).await;
    let later = world.begin().await;
    let mut repository = Repository::open(&later, "/workspace/p").await.unwrap();
    assert_eq!(repository.log(&[done.id], &[], 10).await.unwrap().len(), 1);
    assert!(matches!(
        Repository::open(&later, "/tmp").await,
        Err(GitError::NotARepository)
    ));
}
