//! Remotes: the machine's `git http-backend` behind the allow-list, and remotes that lie.

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use bowline_sandbox::{
    egress::{
        Allow, Credential, EgressError, EgressLimits, Guarded, Outside, Request, Response, Wire,
    },
    git::{CloneOptions, Repository},
    shell::{Shell, ShellOptions, ShellOutcome, ShellState},
    workspace::Overlay,
};
use bowline_testkit::git::{Asked, backend};
use bytes::Bytes;

use crate::{
    fuzz::bodies::packs::{answer, capabilities, commit, entry, hex, id, pack, references},
    git::{exported, real},
    support::{World, put, text},
};

const SECRET: &str = "hunter2-very-secret";

/// A server that runs git's own CGI program for each request, if the right secret comes with it.
#[derive(Debug)]
struct Backend {
    root: PathBuf,
}

#[async_trait]
impl Wire for Backend {
    async fn resolve(&self, _: &str, _: u16) -> Result<Vec<IpAddr>, String> {
        Ok(vec![IpAddr::from([93, 184, 216, 34])])
    }

    async fn exchange(
        &self,
        request: Request,
        _: &[SocketAddr],
        _: u64,
    ) -> Result<Response, EgressError> {
        let path = request.url.splitn(4, '/').nth(3).unwrap();
        let asked = Asked {
            target: format!("/{path}"),
            method: request.method,
            headers: request.headers,
            body: request.body,
        };
        let allowed = asked.header("authorization") == format!("Bearer {SECRET}");
        let done = allowed.then(|| backend(&self.root, &asked).unwrap());
        Ok(Response {
            status: done.as_ref().map_or(401, |done| done.status),
            url: request.url,
            headers: done
                .as_ref()
                .map(|done| done.headers.clone())
                .unwrap_or_default(),
            body: done.map(|done| done.body).unwrap_or_default(),
        })
    }
}

fn guarded(root: &Path) -> Arc<dyn Outside> {
    let allow = Allow::new(["git.example"]).unwrap();
    let wire = Arc::new(Backend {
        root: root.to_owned(),
    });
    Arc::new(
        Guarded::new(wire, allow, EgressLimits::default())
            .with_credential(Credential::bearer(SECRET)),
    )
}

async fn sh(overlay: &Overlay, outside: &Arc<dyn Outside>, command: &str) -> ShellOutcome {
    let options = ShellOptions {
        outside: Some(outside.clone()),
        ..ShellOptions::default()
    };
    Shell::new()
        .run(overlay, ShellState::default(), command, &options)
        .await
}

async fn ok(overlay: &Overlay, outside: &Arc<dyn Outside>, command: &str) -> String {
    let done = sh(overlay, outside, command).await;
    assert_eq!(
        done.exit_code, 0,
        "{command}: {}{}",
        done.stdout, done.stderr
    );
    done.stdout + &done.stderr
}

/// A repository on the machine with a few commits, and a bare copy of it to serve.
fn served() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let (work, bare) = (dir.path().join("work"), dir.path().join("p.git"));
    std::fs::create_dir(&work).unwrap();
    real(&work, &["init", "-q"]);
    for round in 0..5 {
        std::fs::write(
            work.join("f.txt"),
            format!("round {round}\n{}", "same\n".repeat(200)),
        )
        .unwrap();
        std::fs::write(work.join(format!("g{round}")), "g\n").unwrap();
        real(&work, &["add", "-A"]);
        real(&work, &["commit", "-qm", &format!("Round {round}")]);
    }
    real(&work, &["tag", "-a", "v1", "-m", "one"]);
    real(&work, &["branch", "side", "HEAD~2"]);
    real(dir.path(), &["clone", "-q", "--bare", "work", "p.git"]);
    real(&work, &["remote", "add", "origin", bare.to_str().unwrap()]);
    real(&work, &["fetch", "-q"]);
    (dir, work, bare)
}

#[tokio::test]
async fn a_repository_is_cloned_fetched_pulled_and_pushed() {
    let (dir, work, bare) = served();
    let outside = guarded(dir.path());
    let world = World::new();
    let overlay = world.begin().await;
    let url = "https://git.example/p.git";
    ok(&overlay, &outside, &format!("git clone {url}")).await;
    assert_eq!(
        ok(&overlay, &outside, "cd p && git log --format='%H %s'").await,
        real(&work, &["log", "--format=%H %s"])
    );
    assert_eq!(
        ok(
            &overlay,
            &outside,
            "cd p && git status --porcelain && git tag && git branch -r"
        )
        .await,
        "v1\n  origin/HEAD\n  origin/main\n  origin/side\n"
    );
    assert!(text(&overlay, "p/f.txt").await.starts_with("round 4\n"));

    // Fast-forward.
    std::fs::write(work.join("h"), "h\n").unwrap();
    real(&work, &["add", "-A"]);
    real(&work, &["commit", "-qm", "Theirs"]);
    real(&work, &["push", "-q", "origin", "main"]);
    let pulled = ok(&overlay, &outside, "cd p && git pull").await;
    assert!(
        pulled.contains("Fast-forward\n") && pulled.contains("create mode 100644 h"),
        "{pulled}"
    );
    assert!(
        ok(&overlay, &outside, "cd p && git pull && git fetch")
            .await
            .starts_with("Already up to date.\n")
    );

    // Both sides have commits: the push is refused, the pull merges, the next push goes.
    std::fs::write(work.join("h"), "h2\n").unwrap();
    real(&work, &["commit", "-qam", "Theirs again"]);
    real(&work, &["push", "-q", "origin", "main"]);
    put(&overlay, "p/mine", "mine\n").await;
    ok(
        &overlay,
        &outside,
        "cd p && git add . && git commit -qm Mine",
    )
    .await;
    let refused = sh(&overlay, &outside, "cd p && git push").await;
    assert_eq!(refused.exit_code, 1);
    assert!(
        refused.stderr.contains("git pull first"),
        "{}",
        refused.stderr
    );
    ok(
        &overlay,
        &outside,
        "cd p && git pull && git push && git push -u origin HEAD:refs/heads/topic",
    )
    .await;
    assert_eq!(
        ok(&overlay, &outside, "cd p && git status -sb").await,
        "## main\n"
    );
    real(&bare, &["fsck", "--strict", "--full"]);
    let log = real(&bare, &["log", "-1", "--format=%s|%an", "main"]);
    assert_eq!(
        log,
        "Merge branch 'main' of https://git.example/p.git|agent\n"
    );
    assert_eq!(
        real(&bare, &["rev-parse", "topic"]),
        real(&bare, &["rev-parse", "main"])
    );
    ok(
        &overlay,
        &outside,
        "cd p && git push --delete origin topic && git push --tags",
    )
    .await;
    assert_eq!(real(&bare, &["branch", "--list", "topic"]), "");

    let back = exported(&overlay).await;
    real(&back.path().join("p"), &["fsck", "--strict", "--full"]);
    // The secret is nowhere: not in a file, not in what was printed.
    let found = Command::new("grep")
        .args(["-rlF", SECRET])
        .arg(back.path())
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");
}

#[tokio::test]
async fn a_shallow_clone_knows_where_it_ends() {
    let (dir, work, _) = served();
    let outside = guarded(dir.path());
    let world = World::new();
    let overlay = world.begin().await;
    ok(
        &overlay,
        &outside,
        "git clone -q --depth 2 https://git.example/p.git q",
    )
    .await;
    assert_eq!(
        ok(&overlay, &outside, "cd q && git log --format=%s").await,
        "Round 4\nRound 3\n"
    );
    std::fs::write(work.join("h"), "h\n").unwrap();
    real(&work, &["add", "-A"]);
    real(&work, &["commit", "-qm", "Theirs"]);
    real(&work, &["push", "-q", "origin", "main"]);
    ok(
        &overlay,
        &outside,
        "cd q && git pull -q && git log -1 --format=%s | grep Theirs",
    )
    .await;
    let back = exported(&overlay).await;
    real(&back.path().join("q"), &["fsck", "--full"]);
}

#[tokio::test]
async fn the_network_is_denied_by_default_and_a_url_has_no_secret() {
    let (dir, ..) = served();
    let outside = guarded(dir.path());
    let world = World::new();
    let overlay = world.begin().await;
    let none = crate::git::sh(&overlay, "git clone https://git.example/p.git").await;
    assert_eq!(none.exit_code, 128);
    assert!(
        none.stderr.contains("`egress` in its agent.md"),
        "{}",
        none.stderr
    );
    let other = sh(
        &overlay,
        &outside,
        "git clone https://elsewhere.example/p.git",
    )
    .await;
    assert!(
        other.stderr.contains("not on the allow-list"),
        "{}",
        other.stderr
    );
    let missing = sh(&overlay, &outside, "git clone https://git.example/none.git").await;
    assert!(missing.stderr.contains("not found"), "{}", missing.stderr);
    let secret = sh(
        &overlay,
        &outside,
        "git clone https://user:pw@git.example/p.git",
    )
    .await;
    assert!(
        secret.stderr.contains("must not hold a name or password"),
        "{}",
        secret.stderr
    );
    for command in [
        "git remote add o https://u:pw@git.example/p.git",
        "git config remote.o.url https://u:pw@h/x",
        "git config http.extraHeader 'Authorization: x'",
    ] {
        let done = sh(&overlay, &outside, &format!("git init -q; {command}")).await;
        assert_ne!(done.exit_code, 0, "{command}");
        assert!(!done.stderr.contains("pw"), "{}", done.stderr);
    }
    let unknown = Guarded::new(
        Arc::new(Backend {
            root: dir.path().into(),
        }),
        Allow::new(["git.example"]).unwrap(),
        EgressLimits::default(),
    );
    let unknown: Arc<dyn Outside> = Arc::new(unknown);
    let refused = sh(&overlay, &unknown, "git clone https://git.example/p.git").await;
    assert!(
        refused.stderr.contains("Authentication failed")
            && refused.stderr.contains("needs a credential"),
        "{}",
        refused.stderr
    );
    assert_eq!(ok(&overlay, &outside, "ls").await, "");
}

/// A remote that has one branch, and answers a fetch with whatever it was given.
#[derive(Debug)]
struct Liar {
    tip: String,
    pack: Mutex<Vec<u8>>,
}

#[async_trait]
impl Outside for Liar {
    async fn send(&self, request: Request) -> Result<Response, EgressError> {
        let asked = String::from_utf8_lossy(&request.body).into_owned();
        let body = if request.method == "GET" {
            capabilities()
        } else if asked.contains("command=ls-refs") {
            references(&self.tip)
        } else {
            answer(&self.pack.lock().unwrap())
        };
        Ok(Response {
            status: 200,
            url: request.url,
            headers: vec![(
                "content-type".into(),
                "application/x-git-upload-pack-advertisement".into(),
            )],
            body: Bytes::from(body),
        })
    }
}

/// A commit whose tree has one entry of this mode and name.
fn commit_of(mode: &str, name: &[u8], blob: &[u8]) -> (String, Vec<u8>) {
    let tree = [mode.as_bytes(), b" ", name, b"\0", &id("blob", blob)].concat();
    let commit = commit(&id("tree", &tree), "x");
    let entries = [
        entry(1, commit.len(), &[], &commit),
        entry(2, tree.len(), &[], &tree),
        entry(3, blob.len(), &[], blob),
    ];
    (hex(&id("commit", &commit)), pack(3, &entries))
}

#[tokio::test]
async fn a_remote_that_lies_gets_nowhere() {
    let (tip, good) = commit_of("100644", b"f", b"fine\n");
    let blob = |size: usize, body: &[u8]| entry(3, size, &[], body);
    let long_delta = [&[100u8, 5][..], &[0x90, 5]].concat();
    let mut damaged = good.clone();
    damaged[20] ^= 1;
    let hostile: Vec<(&str, Vec<u8>, &str)> = vec![
        ("checksum", damaged, "checksum"),
        (
            "more objects than there are",
            pack(4, &[blob(4, b"base")]),
            "cannot be read",
        ),
        (
            "a size that is wrong",
            pack(1, &[blob(400, b"base")]),
            "cannot be unpacked",
        ),
        (
            "a bomb",
            pack(1, &[blob(4, &vec![0; 1 << 20])]),
            "cannot be unpacked",
        ),
        (
            "an object beyond the limit",
            pack(1, &[blob(1 << 40, b"x")]),
            "limit",
        ),
        ("very many objects", pack(u32::MAX, &[]), "limit"),
        (
            "a delta of itself",
            pack(1, &[entry(6, 4, &[0], &[4, 4, 0x90, 4])]),
            "cannot be read",
        ),
        (
            "a delta before the start",
            pack(1, &[entry(6, 4, &[120], &[4, 4, 0x90, 4])]),
            "cannot be read",
        ),
        (
            "a delta of nothing",
            pack(1, &[entry(7, 4, &[7; 20], &[4, 4, 0x90, 4])]),
            "nowhere",
        ),
        (
            "a delta past its base",
            pack(
                2,
                &[
                    blob(4, b"base"),
                    entry(
                        6,
                        long_delta.len(),
                        &[blob(4, b"base").len() as u8],
                        &long_delta,
                    ),
                ],
            ),
            "delta",
        ),
        (
            "something else",
            pack(1, &[blob(4, b"base")]),
            "necessary objects",
        ),
        ("no pack", b"hello".to_vec(), "cannot be read"),
    ];
    for (what, pack, why) in hostile {
        let world = World::new();
        let overlay = world.begin().await;
        let outside: Arc<dyn Outside> = Arc::new(Liar {
            tip: tip.clone(),
            pack: Mutex::new(pack),
        });
        let done = sh(&overlay, &outside, "git clone https://h/p").await;
        assert_eq!(done.exit_code, 128, "{what}: {}", done.stderr);
        assert!(done.stderr.contains(why), "{what}: {}", done.stderr);
        assert_eq!(ok(&overlay, &outside, "ls -A").await, "", "{what}");
    }
    let fine: Arc<dyn Outside> = Arc::new(Liar {
        tip,
        pack: Mutex::new(good),
    });
    let world = World::new();
    let overlay = world.begin().await;
    assert!(
        ok(&overlay, &fine, "git clone https://h/p && cat p/f")
            .await
            .starts_with("fine\n")
    );
}

/// Answers with more than the connection takes.
#[derive(Debug)]
struct Narrow(EgressError);

#[async_trait]
impl Outside for Narrow {
    async fn send(&self, _: Request) -> Result<Response, EgressError> {
        Err(self.0.clone())
    }
}

#[tokio::test]
async fn what_the_connection_does_not_take_is_a_limit_of_git() {
    for error in [
        EgressError::RequestTooLarge(77),
        EgressError::ResponseTooLarge(77),
    ] {
        let overlay = World::new().begin().await;
        let options = CloneOptions::default();
        let done = Repository::clone(&overlay, &Narrow(error), "https://h/p", "p", &options).await;
        let error = done.unwrap_err();
        assert_eq!(error.code(), "git_limit");
        assert!(error.to_string().contains("(limit 77)"), "{error}");
    }
}

#[tokio::test]
async fn a_name_in_a_commit_cannot_lead_elsewhere() {
    for (mode, name) in [
        ("100644", &b".."[..]),
        ("100644", b"."),
        ("100644", b"a/../../x"),
        ("100644", b"/etc/x"),
        ("40000", b".git"),
        ("100644", b".GIT"),
        ("100644", b".git "),
        ("100644", b"git~1"),
        ("100644", ".g\u{200c}it".as_bytes()),
        ("100644", b".git::$INDEX_ALLOCATION"),
        ("100644", b"a\xff"),
        ("100644", b""),
    ] {
        let (tip, pack) = commit_of(mode, name, b"evil");
        let world = World::new();
        let overlay = world.begin().await;
        let outside: Arc<dyn Outside> = Arc::new(Liar {
            tip,
            pack: Mutex::new(pack),
        });
        let done = sh(&overlay, &outside, "git clone https://h/p").await;
        assert_eq!(done.exit_code, 128, "{name:?}: {}", done.stderr);
        assert_eq!(ok(&overlay, &outside, "ls -A").await, "", "{name:?}");
    }
}
