//! A host directory: the tools do what they do on a workspace, and no path leads out.

use std::{
    fs,
    os::unix::fs::symlink,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bowline_sandbox::{
    host::{ControlGroups, HostDir, HostError},
    tools::{self, EditInput, Files, GlobInput, GrepInput, ReadInput, Seen, WriteInput},
    workspace::WORKING_DIRECTORY,
};
use bowline_testkit::place;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::support::World;

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
}

fn input<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

/// What the model reads of one call.
async fn call(files: &impl Files, seen: &mut Seen, tool: &str, value: Value) -> String {
    let output = match tool {
        "read" => seen.read(files, input::<ReadInput>(value)).await,
        "write" => seen.write(files, input::<WriteInput>(value)).await,
        "edit" => seen.edit(files, input::<EditInput>(value)).await,
        "grep" => tools::grep(files, input::<GrepInput>(value)).await,
        _ => tools::glob(files, input::<GlobInput>(value)).await,
    };
    let told = output.map(|output| output.text);
    let told = told.unwrap_or_else(|failure| format!("refused: {failure}"));
    told.replace(files.working_directory(), "[DIR]")
}

#[tokio::test]
async fn the_tools_do_what_they_do_on_a_workspace() {
    let overlay = World::new().begin().await;
    overlay.mkdir(WORKING_DIRECTORY, true).await.unwrap();
    let place = Place::new();
    let (mut one, mut other) = (Seen::default(), Seen::default());
    let long: String = (0..3000).map(|n| format!("line {n}\n")).collect();
    for (tool, value) in [
        ("read", json!({"path": "missing"})),
        (
            "write",
            json!({"path": "a.txt", "content": "alpha\nbeta\n"}),
        ),
        (
            "write",
            json!({"path": "d/e/b.rs", "content": "fn beta() {}\n"}),
        ),
        ("write", json!({"path": "~/c.txt", "content": "x"})),
        ("write", json!({"path": "d", "content": "x"})),
        ("write", json!({"path": "a.txt/x", "content": "x"})),
        ("write", json!({"path": "", "content": "x"})),
        ("write", json!({"path": "nul\0", "content": "x"})),
        ("write", json!({"path": "long.txt", "content": long})),
        ("write", json!({"path": "bin", "content": "a\0b"})),
        ("read", json!({"path": "a.txt"})),
        ("read", json!({"path": "./d/../a.txt"})),
        ("read", json!({"path": "long.txt"})),
        (
            "read",
            json!({"path": "long.txt", "offset": 2999, "limit": 1}),
        ),
        ("read", json!({"path": "long.txt", "offset": 4000})),
        ("read", json!({"path": "bin"})),
        ("read", json!({"path": "d"})),
        (
            "edit",
            json!({"path": "a.txt", "oldText": "beta", "newText": "gamma"}),
        ),
        (
            "edit",
            json!({"path": "a.txt", "oldText": "nothing", "newText": "x"}),
        ),
        (
            "edit",
            json!({"path": "missing", "oldText": "a", "newText": "x"}),
        ),
        (
            "edit",
            json!({"path": "bin", "oldText": "a", "newText": "x"}),
        ),
        ("grep", json!({"pattern": "alpha|beta"})),
        ("grep", json!({"pattern": "beta", "path": "d"})),
        ("grep", json!({"pattern": "x", "path": "c.txt"})),
        ("grep", json!({"pattern": "beta", "include": "*.rs"})),
        ("grep", json!({"pattern": "beta", "include": "d/**/*.rs"})),
        ("grep", json!({"pattern": "line", "path": "long.txt"})),
        ("grep", json!({"pattern": "("})),
        ("grep", json!({"pattern": "x", "path": "missing"})),
        ("glob", json!({"pattern": "*.txt"})),
        ("glob", json!({"pattern": "d/**"})),
        ("glob", json!({"pattern": "**/{a,b}.*"})),
        ("glob", json!({"pattern": "*.none"})),
        ("glob", json!({"pattern": "*", "path": "missing"})),
    ] {
        let virtually = call(&overlay, &mut one, tool, value.clone()).await;
        let really = call(&place.dir, &mut other, tool, value.clone()).await;
        assert_eq!(virtually, really, "{tool} {value}");
    }
    // A file that somebody else changed.
    fs::write(place.path("in/a.txt"), "other\n").unwrap();
    let value = json!({"path": "a.txt", "content": "mine\n"});
    let told = call(&place.dir, &mut other, "write", value).await;
    assert!(
        told.contains("had been changed since you last read it"),
        "{told}"
    );
}

#[tokio::test]
async fn no_path_leads_out() {
    let place = Place::new();
    let secret = place.path("out/secret").canonicalize().unwrap();
    symlink(&secret, place.path("in/absolute")).unwrap();
    symlink("../out/secret", place.path("in/relative")).unwrap();
    symlink("../out", place.path("in/folder")).unwrap();
    symlink("/proc/self/root", place.path("in/root")).unwrap();
    symlink("loop", place.path("in/loop")).unwrap();
    let secret = secret.to_str().unwrap();
    for path in [
        secret,
        "../out/secret",
        "../../../../../../../../etc/passwd",
        "absolute",
        "relative",
        "folder/secret",
        "folder/../../out/secret",
        "root/etc/passwd",
        "/etc/passwd",
        "/proc/self/environ",
        "loop",
        "in/../../out/secret",
    ] {
        let mut seen = Seen::default();
        for (tool, value) in [
            ("read", json!({"path": path})),
            ("write", json!({"path": path, "content": "x"})),
            (
                "edit",
                json!({"path": path, "oldText": "canary", "newText": "x"}),
            ),
            ("grep", json!({"pattern": ".", "path": path})),
            ("glob", json!({"pattern": "*", "path": path})),
        ] {
            let told = call(&place.dir, &mut seen, tool, value).await;
            assert!(told.starts_with("refused: "), "{tool} {path}: {told}");
        }
        assert_eq!(
            fs::read_to_string(place.path("out/secret")).unwrap(),
            "canary"
        );
    }
    let told = call(
        &place.dir,
        &mut Seen::default(),
        "grep",
        json!({"pattern": "canary"}),
    )
    .await;
    assert_eq!(told, "No matches found.");
    let all = json!({"pattern": "/etc/*"});
    assert!(
        call(&place.dir, &mut Seen::default(), "glob", all)
            .await
            .starts_with("refused")
    );
    // Inside, links are links.
    fs::write(place.path("in/file"), "inside").unwrap();
    symlink("file", place.path("in/link")).unwrap();
    let told = call(
        &place.dir,
        &mut Seen::default(),
        "read",
        json!({"path": "link"}),
    )
    .await;
    assert_eq!(told, "inside");
}

#[tokio::test]
async fn a_directory_that_becomes_a_link_meanwhile_leads_nowhere() {
    use rustix::fs::{CWD, RenameFlags, renameat_with};

    let place = Place::new();
    let (here, link) = (place.path("in/d"), place.path("in/link"));
    fs::create_dir(&here).unwrap();
    fs::write(here.join("secret"), "inside").unwrap();
    symlink(place.path("out"), &link).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let exchange = std::thread::spawn(move || {
        while !stopped.load(Ordering::Relaxed) {
            renameat_with(CWD, &here, CWD, &link, RenameFlags::EXCHANGE).unwrap();
        }
    });
    for _ in 0..2_000 {
        if let Ok(bytes) = place.dir.read("d/secret").await {
            assert_ne!(bytes, "canary");
        }
        let _ = Files::write(&place.dir, "d/secret", Bytes::from("inside"), true).await;
        let _ = Files::write(&place.dir, "d/new/x", Bytes::from("inside"), true).await;
    }
    stop.store(true, Ordering::Relaxed);
    exchange.join().unwrap();
    assert_eq!(
        fs::read_to_string(place.path("out/secret")).unwrap(),
        "canary"
    );
    assert_eq!(fs::read_dir(place.path("out")).unwrap().count(), 1);
}

#[tokio::test]
async fn what_is_no_regular_file_is_not_waited_for() {
    let place = Place::new();
    let made = std::process::Command::new("mkfifo")
        .arg(place.path("in/pipe"))
        .status();
    assert!(made.unwrap().success());
    let _socket = std::os::unix::net::UnixListener::bind(place.path("in/socket")).unwrap();
    for path in ["pipe", "socket"] {
        let mut seen = Seen::default();
        for (tool, value) in [
            ("read", json!({"path": path})),
            ("write", json!({"path": path, "content": "x"})),
        ] {
            let told = call(&place.dir, &mut seen, tool, value).await;
            assert!(told.starts_with("refused: "), "{tool} {path}: {told}");
        }
    }
    let told = call(
        &place.dir,
        &mut Seen::default(),
        "grep",
        json!({"pattern": "x"}),
    )
    .await;
    assert_eq!(told, "No matches found.");
}

#[test]
fn a_directory_with_what_must_stay_out_of_reach_is_refused() {
    let place = Place::new();
    let kept = |path: &str| vec![place.path(path)];
    for (dir, keep_out, fine) in [
        ("in", vec![], true),
        ("in", kept("out"), true),
        ("in", kept("in"), false),
        ("", kept("out/secret"), false),
        ("", kept("in"), false),
        ("in", kept(""), false),
        ("out/secret", vec![], false),
        ("gone", vec![], false),
    ] {
        let opened = HostDir::open(&place.path(dir), &keep_out);
        assert_eq!(opened.is_ok(), fine, "{dir} {keep_out:?}");
        if let Err(error) = opened {
            assert_eq!(error.code(), "sandbox_directory");
            assert!(matches!(error, HostError::Directory { .. }));
        }
    }
}

/// What a kernel tells: a line for each hierarchy, and where they are mounted.
const FIRST: &str = "9:pids:/user/a\n1:name=systemd:/user/a\n";
const SECOND: &str = "0::/user/a\n";
const MOUNTS: &str = "30 25 0:26 / /sys/fs/cgroup/all rw - cgroup2 cgroup2 rw,nsdelegate
31 25 0:27 / /sys/fs/cgroup/cpu rw shared:9 - cgroup cgroup rw,cpu
32 25 0:28 /user /sys/fs/cgroup/the\\040pids rw shared:10 - cgroup cgroup rw,pids
";

#[cfg(target_os = "linux")]
#[test]
fn the_group_of_a_process_is_found_in_both_versions() {
    let top = tempfile::tempdir().unwrap();
    let group = top.path().join("sys/fs/cgroup/all/user/a");
    fs::create_dir_all(&group).unwrap();
    let bounding = |groups: String| {
        let groups = ControlGroups {
            root: top.path().to_owned(),
            groups,
            mounts: MOUNTS.to_owned(),
        };
        groups.bounding()
    };
    let file = |name: &str, text: &str| fs::write(group.join(name), text).unwrap();
    let switched = || fs::read_to_string(group.join("cgroup.subtree_control")).unwrap();
    // Where the hierarchy of its own has the controller, the other one does not.
    let own = top.path().join("sys/fs/cgroup/the pids/a");
    assert_eq!(bounding(format!("{FIRST}{SECOND}")), Ok(own));
    // Part of the hierarchy is mounted, and the process is in another one.
    assert!(bounding("9:pids:/system/b\n".to_owned()).is_err());
    assert!(bounding(String::new()).is_err());

    // No controller, one that is not switched on yet, one that is.
    assert!(bounding(SECOND.to_owned()).unwrap_err().contains("`pids`"));
    file("cgroup.controllers", "cpu memory\n");
    assert!(bounding(SECOND.to_owned()).unwrap_err().contains("`pids`"));
    file("cgroup.controllers", "cpu memory pids\n");
    let unswitchable = bounding(SECOND.to_owned()).unwrap_err();
    assert!(unswitchable.contains("user/a: "), "{unswitchable}");
    file("cgroup.subtree_control", "");
    assert_eq!(bounding(SECOND.to_owned()), Ok(group.clone()));
    assert_eq!(switched(), "+pids");
    file("cgroup.subtree_control", "memory pids\n");
    assert_eq!(bounding(SECOND.to_owned()), Ok(group.clone()));
    assert_eq!(switched(), "memory pids\n");
}
