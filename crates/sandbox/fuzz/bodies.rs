//! The bodies of the fuzz targets: each takes any bytes, must not panic, and checks what always holds.
//! The tests replay them over `corpus`; a fuzzer calls the same functions.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use bowline_sandbox::{
    archive,
    egress::{EgressError, Outside, Request, Response},
    git, isolate, search, tools,
    workspace::{Overlay, Workspace, WorkspaceLimits, WriteOptions, absolute},
};
use bowline_store::{ActorId, MemoryStore, Timestamp};
use bytes::Bytes;

pub mod packs;

/// A fuzz body.
pub type Body = fn(&[u8]);

/// All bodies, with the names of their corpora.
pub const ALL: [(&str, Body); 10] = [
    ("paths", paths),
    ("patch", patch),
    ("archives", archives),
    ("matcher", matcher),
    ("remote", remote),
    ("objects", objects),
    ("packs", pack_files),
    ("index", index),
    ("messages", isolate::fuzz_messages),
    ("code", code),
];

fn run<F: Future<Output = ()>>(body: impl FnOnce(Overlay) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let limits = WorkspaceLimits {
            step_bytes: 1 << 20,
            entries: 2000,
            ..WorkspaceLimits::default()
        };
        let actor = ActorId::new("agent", "fuzz", "one");
        let workspace = Workspace::with_limits(Arc::new(MemoryStore::new()), actor, limits);
        body(workspace.begin(Timestamp::from_millis(0)).await.unwrap()).await;
    });
}

/// Lines are paths: written, linked and read; what was written under a path is read under it.
pub fn paths(data: &[u8]) {
    let text = String::from_utf8_lossy(data).into_owned();
    run(|overlay| async move {
        let mut before = "a";
        for path in text.split('\n').take(50) {
            let plain = absolute(path, "/workspace");
            assert!(plain.starts_with('/') && !plain.split('/').any(|name| name == ".."));
            let _ = overlay.symlink(before, path).await;
            if overlay
                .write(
                    path,
                    Bytes::from_static(b"x"),
                    &WriteOptions::with_parents(),
                )
                .await
                .is_ok()
            {
                assert_eq!(overlay.read(path).await.unwrap(), "x");
                let real = overlay.real_path(path).await.unwrap();
                assert_eq!(overlay.read(&real).await.unwrap(), "x");
                assert_eq!(overlay.real_path(&real).await.unwrap(), real);
            }
            let _ = overlay.rename(before, path).await;
            let _ = search::glob(&overlay, path, "/").await;
            before = path;
        }
        let usage = overlay.usage();
        let summary = search::summarize_tree(&overlay, "/").await.unwrap();
        // The two directories that always exist are not counted.
        assert!(summary.files + summary.directories + summary.links <= usage.entries + 2);
        assert_eq!(summary.bytes, usage.bytes);
    });
}

/// A patch onto two files: it applies or nothing changes.
pub fn patch(data: &[u8]) {
    let text = String::from_utf8_lossy(data).into_owned();
    run(|overlay| async move {
        let lines: String = (1..30).map(|n| format!("line {n}\n")).collect();
        for name in ["a", "b"] {
            overlay
                .write(name, Bytes::from(lines.clone()), &WriteOptions::default())
                .await
                .unwrap();
        }
        if search::patch(&overlay, &text, "/workspace").await.is_err() {
            assert_eq!(overlay.read("a").await.unwrap(), lines);
            assert_eq!(overlay.list("/workspace").await.unwrap().len(), 2);
        }
    });
}

/// An archive: what it holds stays below its destination.
pub fn archives(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    run(|overlay| async move {
        overlay
            .write("in", bytes, &WriteOptions::default())
            .await
            .unwrap();
        let listed = archive::list_archive(&overlay, "in").await.is_ok();
        let unpacked = archive::extract_archive(&overlay, "in", "out")
            .await
            .is_ok();
        assert!(listed || !unpacked);
        let names: Vec<String> = overlay
            .list("/workspace")
            .await
            .unwrap()
            .into_iter()
            .map(|entry| entry.name)
            .collect();
        assert_eq!(
            names,
            if unpacked {
                vec!["in", "out"]
            } else {
                vec!["in"]
            }
        );
        assert_eq!(overlay.list("/").await.unwrap().len(), 2);
        let _ = archive::decompress_file(&overlay, "in", Some("plain")).await;
    });
}

/// Text, old and new, each after a line of `===`: what is not matched keeps its bytes.
pub fn matcher(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut parts = text.split("\n===\n");
    let (Some(text), Some(old)) = (parts.next(), parts.next()) else {
        return;
    };
    let new = parts.next().unwrap_or_default();
    for all in [false, true] {
        if let Ok((after, places)) =
            tools::replace(text, &[tools::Replacement { old, new, all }], "f")
        {
            assert!(places == 1 || all);
            assert_ne!(after, text);
            if places == 1
                && text.matches(old).count() == 1
                && !text.contains('\r')
                && !new.contains('\r')
            {
                assert_eq!(after, text.replacen(old, new, 1));
            }
        }
    }
}

/// A remote that says what it wants.
#[derive(Debug)]
pub struct Remote(Mutex<VecDeque<Bytes>>);

impl Remote {
    /// One that has a branch at this commit, and gives this pack when it is asked for it.
    pub fn with(tip: &str, pack: &[u8]) -> Self {
        let answers = [
            packs::capabilities(),
            packs::references(tip),
            packs::answer(pack),
        ];
        Self(Mutex::new(answers.map(Bytes::from).into()))
    }
}

#[async_trait]
impl Outside for Remote {
    async fn send(&self, request: Request) -> Result<Response, EgressError> {
        let body = self.0.lock().unwrap().pop_front();
        let kind = "application/x-git-upload-pack-advertisement";
        Ok(Response {
            status: 200,
            url: request.url,
            headers: vec![("content-type".into(), kind.into())],
            body: body.unwrap_or_default(),
        })
    }
}

/// What a git remote answers, one answer after the other between lines of `===`: a clone stays in its
/// directory, and one that succeeds is a repository.
pub fn remote(data: &[u8]) {
    let answers = parts(data).map(Bytes::copy_from_slice).collect();
    clones(Remote(Mutex::new(answers)));
}

/// What is between lines of `===`.
fn parts(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(data);
    std::iter::from_fn(move || {
        let left = rest?;
        let end = left.windows(5).position(|five| five == b"\n===\n");
        rest = end.map(|end| &left[end + 5..]);
        Some(&left[..end.unwrap_or(left.len())])
    })
}

fn clones(outside: Remote) {
    run(|overlay| async move {
        let (url, options) = ("https://git.test/p", git::CloneOptions::default());
        let cloned = git::Repository::clone(&overlay, &outside, url, "p", &options).await;
        let names = overlay.list("/workspace").await.unwrap();
        assert!(names.iter().all(|entry| entry.name == "p"), "{names:?}");
        assert_eq!(overlay.list("/").await.unwrap().len(), 2);
        if cloned.is_ok() {
            assert!(overlay.exists("p/.git/HEAD").await.unwrap());
            git::Repository::open(&overlay, "p").await.unwrap();
        }
    });
}

/// Objects between lines of `===`, the kind of each first: `c`, `t`, `b`, `g` for a commit, a tree, a file and
/// a tag, `o` and how many entries back for a delta, `r` and the number of its base for one that names it.
/// `{3}` stands for the id of the fourth object. They come from a remote, and they lie in a `.git`.
pub fn objects(data: &[u8]) {
    let mut made = packs::Objects::new();
    let mut tip = [0; 20];
    for part in parts(data).take(40) {
        let Some((kind, rest)) = part.split_first() else {
            continue;
        };
        let name = match kind {
            b'c' => "commit",
            b't' => "tree",
            b'g' => "tag",
            _ => "blob",
        };
        let base = usize::from(rest.first().copied().unwrap_or(0));
        let place = made
            .ids
            .len()
            .checked_sub(base)
            .and_then(|at| made.ids.get(at));
        let body = rest.get(1..).unwrap_or_default();
        match (kind, place, made.ids.get(base)) {
            (b'o', Some((_, before)), _) => {
                let back = packs::back((made.end() - before) as usize);
                let id = packs::id("delta", &made.end().to_be_bytes());
                made.push(id, packs::entry(6, body.len(), &back, body));
            }
            (b'r', _, Some((base, _))) => {
                let entry = packs::entry(7, body.len(), base, body);
                made.push(packs::id("delta", &made.end().to_be_bytes()), entry);
            }
            _ => {
                let body = named(rest, *kind == b't', &made.ids);
                let id = made.add(name, &body);
                if *kind == b'c' {
                    tip = id;
                }
            }
        }
    }
    let tip = packs::hex(&tip);
    clones(Remote::with(&tip, &made.pack()));
    opens(&[
        ("refs/heads/main", tip.as_bytes()),
        ("objects/pack/p.idx", &made.index()),
        ("objects/pack/p.pack", &made.pack()),
    ]);
}

/// The text with `{3}` replaced by the fourth id, raw or in digits.
fn named(text: &[u8], raw: bool, ids: &[([u8; 20], u32)]) -> Vec<u8> {
    let (mut out, mut at) = (Vec::new(), 0);
    while at < text.len() {
        let id = match text.get(at..at + 3) {
            Some([b'{', digit @ b'0'..=b'9', b'}']) => ids.get(usize::from(digit - b'0')),
            _ => None,
        };
        match id {
            Some((id, _)) if raw => out.extend_from_slice(id),
            Some((id, _)) => out.extend_from_slice(packs::hex(id).as_bytes()),
            None => out.push(text[at]),
        }
        at += if id.is_some() { 3 } else { 1 };
    }
    out
}

/// The index of a pack, and after a line of `===` the pack, as they lie in a `.git`.
pub fn pack_files(data: &[u8]) {
    let (mut parts, none) = (parts(data), &b""[..]);
    let (index, pack) = (parts.next().unwrap_or(none), parts.next().unwrap_or(none));
    let first = index.get(8 + 1024..8 + 1024 + 20).unwrap_or(&[0; 20]);
    opens(&[
        ("refs/heads/main", packs::hex(first).as_bytes()),
        ("objects/pack/p.idx", index),
        ("objects/pack/p.pack", pack),
    ]);
}

/// The index of a working tree, without the checksum at its end.
pub fn index(data: &[u8]) {
    let mut made = packs::Objects::new();
    let file = made.add("blob", b"one\n");
    let inner = made.add("tree", &[&b"100644 b\0"[..], &file].concat());
    let tree = [&b"100644 a\0"[..], &file, b"40000 d\0", &inner].concat();
    let tree = made.add("tree", &tree);
    let tip = made.add("commit", &packs::commit(&tree, "x"));
    opens(&[
        ("refs/heads/main", packs::hex(&tip).as_bytes()),
        ("objects/pack/p.idx", &made.index()),
        ("objects/pack/p.pack", &made.pack()),
        ("index", &packs::summed(data.to_vec())),
    ]);
}

/// Works with a repository whose `.git` has these files: whatever is in them, nothing is written beside
/// it, and what was committed is not told to differ.
fn opens(files: &[(&str, &[u8])]) {
    let files: Vec<(String, Bytes)> = files
        .iter()
        .map(|(name, content)| (format!("p/.git/{name}"), Bytes::copy_from_slice(content)))
        .collect();
    run(|overlay| async move {
        git::Repository::init(&overlay, "p", "main").await.unwrap();
        for (path, content) in files {
            let options = WriteOptions::with_parents();
            // What is too large for the workspace cannot lie in it.
            let _ = overlay.write(&path, content, &options).await;
        }
        let all = [String::new()];
        let mut repository = git::Repository::open(&overlay, "p").await.unwrap();
        let _ = repository.status("").await;
        let _ = repository.branches().await;
        for name in ["HEAD", "HEAD~2", "HEAD^2", "0000"] {
            if let Ok(id) = repository.resolve(name).await {
                let _ = repository.log(&[id], &[], 20).await;
                let _ = {
                    let sides = (git::DiffSide::Empty, git::DiffSide::Commit(id));
                    repository.diff(sides.0, sides.1, &[])
                }
                .await;
            }
        }
        let _ = repository.checkout("main").await;
        let _ = repository.restore(None, &all).await;
        let _ = repository.add(&all, false).await;
        let options = git::CommitOptions {
            message: "m".into(),
            ..git::CommitOptions::default()
        };
        if repository.commit(&options).await.is_ok() {
            let mut again = git::Repository::open(&overlay, "p").await.unwrap();
            let status = again.status("").await.unwrap();
            let staged = |entry: &&git::StatusEntry| {
                !matches!(
                    entry.staged,
                    git::FileState::Same | git::FileState::Untracked
                )
            };
            assert_eq!(status.entries.iter().find(staged), None);
            let id = again.resolve("HEAD").await.unwrap();
            assert_eq!(again.log(&[id], &[], 1).await.unwrap().len(), 1);
        }
        let names = overlay.list("/workspace").await.unwrap();
        assert!(names.iter().all(|entry| entry.name == "p"), "{names:?}");
        assert_eq!(overlay.list("/").await.unwrap().len(), 2);
    });
}

/// Source code of any kind is a program or a typed error, and any stack can be told where it stands.
pub fn code(data: &[u8]) {
    let text = String::from_utf8_lossy(data).into_owned();
    match isolate::Program::new("main.ts", &text) {
        Ok(program) => {
            let _ = program.locate(&text);
            for line in [0, 1, 7, u32::MAX] {
                let _ = program.locate(&format!(
                    "    at f (main.ts:{line}:{line})\n    at main.ts:9"
                ));
            }
        }
        Err(error) => assert!(error.code() == "isolate_syntax", "{error:?}"),
    }
}
