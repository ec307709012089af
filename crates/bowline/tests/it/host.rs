//! `sandbox: {local: DIR}`: real processes in a directory, and what they cannot do.

use std::{
    collections::BTreeMap,
    fs,
    io::Read as _,
    net::TcpListener,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::Duration,
};

use bowline_sandbox::{
    host::{HostCommand, HostDir, HostLimits, HostOutcome, HostShell, confinable},
    tools::{self, BashInput},
};
use bowline_testkit::place;

use crate::world::World;

/// Figures that stand for what the kernel does, by architecture.
#[cfg(target_arch = "x86_64")]
const CALLS: [(&str, u32); 6] = [
    ("socket", 41),
    ("ptrace", 101),
    ("mount", 165),
    ("unshare", 272),
    ("io_uring_setup", 425),
    ("bpf", 321),
];
#[cfg(target_arch = "aarch64")]
const CALLS: [(&str, u32); 6] = [
    ("socket", 198),
    ("ptrace", 117),
    ("mount", 40),
    ("unshare", 97),
    ("io_uring_setup", 425),
    ("bpf", 280),
];
#[cfg(target_arch = "x86_64")]
const PRLIMIT: u32 = 302;
#[cfg(target_arch = "aarch64")]
const PRLIMIT: u32 = 261;

struct Place {
    about: place::Place,
    dir: HostDir,
}

impl Place {
    fn new() -> Self {
        let about = place::Place::new().unwrap();
        let dir = HostDir::open(&about.inside(), &[]).unwrap();
        Self { about, dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.about.path(name)
    }

    /// Everything outside is as it was.
    fn untouched(&self) {
        assert_eq!(self.about.changes().unwrap(), Vec::<String>::new());
    }
}

fn shell() -> Option<HostShell> {
    match confinable() {
        Ok(()) => Some(HostShell::confined(env!("CARGO_BIN_EXE_bowline")).unwrap()),
        Err(error) => {
            println!("SKIPPED: {error}");
            None
        }
    }
}

async fn run(shell: &HostShell, place: &Place, command: &str, seconds: f64) -> HostOutcome {
    let command = HostCommand {
        command: command.to_owned(),
        timeout: Duration::from_secs_f64(seconds),
    };
    shell
        .run(&place.dir, &command, &BTreeMap::new())
        .await
        .unwrap()
}

/// The ids of processes that work in a directory.
fn working_in(dir: &Path) -> Vec<u32> {
    let processes = fs::read_dir("/proc").unwrap();
    processes
        .filter_map(|process| process.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == dir))
        .collect()
}

#[tokio::test]
async fn work_in_the_directory_is_done_by_real_programs() {
    let Some(shell) = shell() else { return };
    let place = Place::new();
    for (command, expected) in [
        ("echo hi; pwd", format!("hi\n{}\n", place.dir.root())),
        ("echo one > a && cat a && rm a && ls", "one\n".to_owned()),
        (
            "printf '#!/bin/sh\\necho ran\\n' > s && chmod +x s && ./s",
            "ran\n".to_owned(),
        ),
        (
            "mkdir -p d/e && mv d f && ls f && cp -a f g && ls g",
            "e\ne\n".to_owned(),
        ),
        ("seq 3 | sort -r | tr '\\n' ' '", "3 2 1 ".to_owned()),
        ("cat <(echo sub) - </dev/null", "sub\n".to_owned()),
        ("t=$(mktemp) && echo tmp > $t && cat $t", "tmp\n".to_owned()),
        ("timeout 5 true; echo $?", "0\n".to_owned()),
        ("mkfifo p; (echo piped > p &) ; cat p", "piped\n".to_owned()),
        (
            "touch -d 2001-01-01 old; find . -name old -mtime +100",
            "./old\n".to_owned(),
        ),
        ("perl -e 'print 6*7'", "42".to_owned()),
        ("nosuchprogram 2>/dev/null; echo $?", "127\n".to_owned()),
        ("(exit 3); echo $?; exit 4", "3\n".to_owned()),
        (
            "echo ~; echo \"${HOME}\"",
            format!("{0}\n{0}\n", place.dir.root()),
        ),
    ] {
        let outcome = run(&shell, &place, command, 60.0).await;
        assert_eq!(outcome.stdout, expected, "{command}: {outcome:?}");
    }
    let outcome = run(&shell, &place, "echo bad >&2; exit 4", 60.0).await;
    assert_eq!((outcome.exit_code, outcome.stderr.as_str()), (4, "bad\n"));
    let outcome = run(&shell, &place, "kill -SEGV $$", 60.0).await;
    assert_eq!(outcome.exit_code, 128 + 11);
    let input = BashInput {
        command: "seq 3000; exit 2".into(),
        timeout: None,
    };
    let told = tools::host_bash(&place.dir, &shell, input, &BTreeMap::new())
        .await
        .unwrap()
        .text;
    assert!(told.contains("[Showing lines 1001-3000 of 3000."), "{told}");
    assert!(told.ends_with("\n\nCommand exited with code 2"));
}

#[tokio::test]
async fn nothing_outside_is_read_or_changed() {
    let Some(shell) = shell() else { return };
    let place = Place::new();
    let secret = place.path("out/secret");
    symlink(&secret, place.path("in/absolute")).unwrap();
    symlink("../out", place.path("in/relative")).unwrap();
    let (out, me) = (place.path("out"), std::process::id());
    let (out, secret) = (out.display(), secret.display());
    for command in [
        format!("cat {secret}"),
        "cat ../out/secret".into(),
        "cat absolute".into(),
        "cat relative/secret".into(),
        format!("ls {out}"),
        "ls relative/".into(),
        "cat /proc/self/root/etc/shadow".into(),
        format!("cat /proc/self/root{secret}"),
        "cat /proc/self/cwd/../out/secret".to_owned(),
        "cat /etc/shadow".into(),
        format!("cat /proc/{me}/environ"),
        format!("cat /proc/{me}/cmdline"),
        "cat /proc/$PPID/environ".into(),
        format!("ls /proc/{me}/fd"),
        "ls /root /home /var/lib".into(),
        format!("echo x > {secret}"),
        format!("echo x >> {secret}"),
        format!("echo x > {out}/new"),
        format!("truncate -s 0 {secret}"),
        format!("rm {secret}"),
        format!("mv {secret} mine"),
        format!("ln {secret} mine && cat mine"),
        format!("mv s {out}/s"),
        format!("mkdir {out}/d"),
        format!("chmod 777 {secret}"),
        format!("chmod 000 {out}"),
        "chmod 777 absolute".into(),
        format!("chown 12345 {secret}"),
        format!("touch -d 2001-01-01 {secret}"),
        format!("touch -d 2001-01-01 {out}"),
        "mknod b b 8 0 && cat b".into(),
        "cat /dev/mem".into(),
        "echo x > /tmp/bowline-escape".into(),
        "mount -t tmpfs none /mnt".into(),
        "unshare -r true".into(),
        "chroot . true".into(),
        format!("kill -9 {me}"),
        format!("kill -STOP {me}"),
        "kill -9 $PPID".into(),
        "exec 3<>/dev/tcp/127.0.0.1/PORT && echo hello >&3".into(),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        let command = command.replace("PORT", &port);
        let outcome = run(&shell, &place, &command, 60.0).await;
        assert_ne!(outcome.exit_code, 0, "{command}: {outcome:?}");
        assert!(!outcome.stdout.contains("canary"), "{command}: {outcome:?}");
        assert!(!outcome.stdout.contains("root:"), "{command}: {outcome:?}");
        assert!(listener.accept().is_err(), "{command}");
        place.untouched();
    }
    assert!(!Path::new("/tmp/bowline-escape").exists());
}

#[tokio::test]
async fn the_kernel_is_not_asked_for_what_is_not_needed() {
    let Some(shell) = shell() else { return };
    let place = Place::new();
    let me = std::process::id();
    for (name, number) in CALLS {
        let command = format!("perl -e 'exit(syscall({number}, 1, 1, 0, 0, 0) < 0 ? 7 : 0)'");
        let outcome = run(&shell, &place, &command, 60.0).await;
        assert_eq!(outcome.exit_code, 7, "{name}: {outcome:?}");
    }
    // A limit of another process, its parent and whoever runs Bowline.
    let limit = format!(
        "perl -e '$n = pack(\"QQ\", 0, 0); exit(syscall({PRLIMIT}, {me}, 7, $n, 0) < 0 ? 7 : 0)'"
    );
    assert_eq!(run(&shell, &place, &limit, 60.0).await.exit_code, 7);
    let open = "perl -e 'for (3..60) { print \"$_ \" if open(my $file, \"<&=\", $_) }'";
    assert_eq!(run(&shell, &place, open, 60.0).await.stdout, "");
    let env = run(&shell, &place, "env | cut -d= -f1 | sort", 60.0)
        .await
        .stdout;
    for name in env.lines() {
        let known = [
            "HOME", "LANG", "LC_ALL", "LC_CTYPE", "LOGNAME", "OLDPWD", "PATH", "PWD", "SHLVL",
            "TEMP", "TERM", "TMP", "TMPDIR", "TZ", "USER", "_",
        ];
        assert!(known.contains(&name), "{name}");
    }
}

#[tokio::test]
async fn no_process_is_left_when_a_command_ends() {
    let Some(shell) = shell() else { return };
    let unconfined = HostShell::unconfined(env!("CARGO_BIN_EXE_bowline"));
    for shell in [shell, unconfined] {
        let place = Place::new();
        let root = PathBuf::from(place.dir.root());
        let hang = "(trap '' TERM HUP; setsid sleep 1000 & nohup sleep 1000 & sleep 1000) >/dev/null 2>&1 &";
        let outcome = run(&shell, &place, &format!("{hang} echo done"), 60.0).await;
        assert_eq!((outcome.exit_code, outcome.stdout.as_str()), (0, "done\n"));
        assert_eq!(working_in(&root), Vec::<u32>::new());
        let outcome = run(
            &shell,
            &place,
            &format!("echo first; {hang} sleep 1000"),
            0.5,
        )
        .await;
        assert_eq!(
            (outcome.exit_code, outcome.timed_out),
            (124, true),
            "{outcome:?}"
        );
        assert_eq!(outcome.stdout, "first\n");
        assert!(
            outcome.stderr.contains("timed out after 0.5 seconds"),
            "{outcome:?}"
        );
        assert_eq!(working_in(&root), Vec::<u32>::new());
    }
}

#[tokio::test]
async fn a_command_whose_caller_is_gone_is_ended() {
    let Some(shell) = shell() else { return };
    let place = Place::new();
    assert_eq!(run(&shell, &place, "mkfifo p", 60.0).await.exit_code, 0);
    let path = place.path("in/p");
    // Opening waits until the command has, and the end comes when nobody has it open any more.
    let (opened, is_open) = tokio::sync::oneshot::channel();
    let reader = tokio::task::spawn_blocking(move || {
        let mut file = fs::File::open(path).unwrap();
        opened.send(()).unwrap();
        let mut all = String::new();
        file.read_to_string(&mut all).unwrap();
    });
    let command = run(
        &shell,
        &place,
        "exec 3>p; setsid sleep 1000 & sleep 1000",
        600.0,
    );
    tokio::select! {
        outcome = command => panic!("{outcome:?}"),
        opened = is_open => opened.unwrap(),
    }
    reader.await.unwrap();
}

#[tokio::test]
async fn what_a_command_takes_is_bounded() {
    let Some(shell) = shell() else { return };
    let place = Place::new();
    let limits = HostLimits {
        memory_bytes: 256 << 20,
        file_bytes: 1 << 20,
        processes: 64,
        output_bytes: 1 << 20,
        ..HostLimits::default()
    };
    let shell = shell.limits(limits);
    for (command, message) in [
        (
            "for i in $(seq 200); do sleep 5 & done; wait",
            "more than 64 processes",
        ),
        (
            "for i in 1 2 3 4; do perl -e '$x = \"a\" x (100 << 20); sleep 100' & done; wait",
            "256 MiB of memory",
        ),
        ("yes", "printed more than 1048576 bytes"),
        ("head -c 2M /dev/zero > f", "File size limit"),
        ("perl -e '$x = \"a\" x (1 << 30); print 1'", "emory"),
        ("ulimit -n 100000", "limit"),
    ] {
        let outcome = run(&shell, &place, command, 60.0).await;
        assert_ne!(outcome.exit_code, 0, "{command}: {outcome:?}");
        assert!(outcome.stderr.contains(message), "{command}: {outcome:?}");
        assert!(!outcome.timed_out, "{command}: {outcome:?}");
        assert_eq!(
            working_in(Path::new(place.dir.root())),
            Vec::<u32>::new(),
            "{command}"
        );
    }
    let long = run(&shell, &place, &format!(": {}", "x".repeat(200_000)), 60.0).await;
    assert!(
        long.stderr.contains("at most 131071 bytes"),
        "{}",
        long.stderr
    );
}

#[tokio::test]
async fn unconfined_means_that() {
    let place = Place::new();
    let shell = HostShell::unconfined(env!("CARGO_BIN_EXE_bowline"));
    assert_eq!(
        run(&shell, &place, "cat ../out/secret", 60.0).await.stdout,
        "canary"
    );
    let missing = HostShell::unconfined("/nowhere/bowline");
    let command = HostCommand {
        command: "true".into(),
        timeout: Duration::from_secs(60),
    };
    let error = missing
        .run(&place.dir, &command, &BTreeMap::new())
        .await
        .unwrap_err();
    assert_eq!(error.code(), "sandbox_helper");
}

const SCRIPT: &str = r#"
turns:
  - text: "I work."
    tools:
      - {name: read, input: {path: "note.txt"}}
      - {name: write, input: {path: "src/run.sh", content: "echo from $0; cat note.txt\n"}}
      - {name: bash, input: {command: "sh src/run.sh; echo changed > note.txt"}}
      - {name: read, input: {path: "src/run.sh"}}
      - {name: grep, input: {pattern: "changed"}}
      - {name: glob, input: {pattern: "**/*.sh"}}
  - tools: [{name: edit, input: {path: "note.txt", oldText: "changed", newText: "edited"}}]
    expect: {last_tool: glob, matches: "src/run.sh"}
  - text: "Done."
    expect: {last_tool: edit, matches: "had been changed since you last read it"}
"#;

#[test]
fn an_agent_works_in_a_directory_in_the_order_of_its_calls() {
    if shell().is_none() {
        return;
    }
    let world = World::with_script(SCRIPT);
    let agent = |sandbox: &str| {
        let text = format!("---\nmodel: scripted/demo.yaml\nsandbox: {sandbox}\n---\nWork.\n");
        world.write("agents/demo/agent.md", &text);
    };
    world.write("work/note.txt", "a note\n");
    agent("{local: work}");
    let ran = world.run(&["run", "demo", "--id", "a", "-m", "go", "--json"]);
    assert_eq!(ran.status, 0, "{}\n{}", ran.stdout, ran.stderr);
    assert!(
        ran.stdout.contains("from src/run.sh\\na note"),
        "{}",
        ran.stdout
    );
    assert!(ran.stdout.contains("note.txt:1:changed"), "{}", ran.stdout);
    let note = fs::read_to_string(world.path().join("work/note.txt")).unwrap();
    assert_eq!(note, "edited\n");
    // The project itself holds the data, and what says what the agent may do.
    for (sandbox, code) in [
        ("{local: .}", "sandbox_directory"),
        ("{local: agents/demo}", "sandbox_directory"),
        ("{local: gone}", "definition_invalid_value"),
        ("{local: /}", "sandbox_directory"),
    ] {
        agent(sandbox);
        let ran = world.run(&["run", "demo", "--id", "b", "-m", "go", "--json"]);
        assert_eq!(ran.status, 1, "{sandbox} {}", ran.stdout);
        assert!(ran.stdout.contains(code), "{sandbox} {}", ran.stdout);
    }
}

/// Where root's processes could not be bounded, nothing is started.
#[test]
fn without_confinement_there_is_no_agent_in_a_directory() {
    if shell().is_none() {
        return;
    }
    let world = World::with_script("turns:\n  - text: Done.\n");
    world.write("work/note.txt", "a note\n");
    let run = |sandbox: &str, id: &str| {
        let text = format!("---\nmodel: scripted/demo.yaml\nsandbox: {sandbox}\n---\nWork.\n");
        world.write("agents/demo/agent.md", &text);
        let covered = "mount -t tmpfs none /sys/fs/cgroup && exec \"$@\"";
        std::process::Command::new("unshare")
            .args(["--mount", "sh", "-c", covered, "sh"])
            .arg(env!("CARGO_BIN_EXE_bowline"))
            .args(["run", "demo", "--id", id, "-m", "go", "--json"])
            .current_dir(world.path())
            .output()
            .unwrap()
    };
    let ran = run("{local: work}", "a");
    let said = String::from_utf8_lossy(&ran.stdout).into_owned();
    if said.is_empty() {
        println!("SKIPPED: {}", String::from_utf8_lossy(&ran.stderr));
        return;
    }
    assert_eq!(ran.status.code(), Some(1), "{said}");
    assert!(said.contains("sandbox_unconfinable"), "{said}");
    let ran = run("{local: work, unconfined: true}", "b");
    assert_eq!(ran.status.code(), Some(0), "{ran:?}");
}
