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

/// A fuzz body.
pub type Body = fn(&[u8]);

/// All bodies, with the names of their corpora.
pub const ALL: [(&str, Body); 7] = [
    ("paths", paths),
    ("patch", patch),
    ("archives", archives),
    ("matcher", matcher),
    ("remote", remote),
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
struct Remote(Mutex<VecDeque<Bytes>>);

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
    let mut answers = VecDeque::new();
    let mut rest = data;
    while let Some(at) = rest.windows(5).position(|five| five == b"\n===\n") {
        answers.push_back(Bytes::copy_from_slice(&rest[..at]));
        rest = &rest[at + 5..];
    }
    answers.push_back(Bytes::copy_from_slice(rest));
    run(|overlay| async move {
        let outside = Remote(Mutex::new(answers));
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
