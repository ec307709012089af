//! The workspace against a real directory, over random operations, through commits and reopening.

use std::{fs, path::Path};

use bowline_sandbox::workspace::{EntryKind, Overlay, WriteOptions};
use bowline_testkit::seeded::asked;
use bytes::Bytes;
use proptest::{prelude::*, test_runner::RngSeed};

use crate::support::World;

#[derive(Debug, Clone)]
enum Op {
    Write(String, Content),
    Append(String, Content),
    Mkdir(String, bool),
    Remove(String),
    RemoveAll(String),
    Rename(String, String),
    Symlink(String, String),
    Read(String),
    List(String),
    Chmod(String, u32),
    Commit,
    Reopen,
    Child(bool),
}

/// A path that does not end in `..`: what POSIX does then is to refuse, in many ways.
fn path() -> impl Strategy<Value = String> {
    let name = || prop_oneof![Just("a"), Just("b"), Just("c"), Just("d.txt"), Just("é")];
    let inner = prop_oneof![4 => name(), 1 => Just("..")];
    (prop::collection::vec(inner, 0..3), name()).prop_map(|(mut names, last)| {
        names.push(last);
        names.join("/")
    })
}

/// Bytes as one byte and a length.
type Content = (u8, usize);

fn content() -> impl Strategy<Value = Content> {
    prop_oneof![2 => (any::<u8>(), 0usize..20), 1 => (any::<u8>(), 0usize..600_000)]
}

fn bytes((byte, size): Content) -> Vec<u8> {
    vec![byte; size]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (path(), content()).prop_map(|(path, content)| Op::Write(path, content)),
        2 => (path(), content()).prop_map(|(path, content)| Op::Append(path, content)),
        4 => (path(), any::<bool>()).prop_map(|(path, recursive)| {
            // `WS-6`: `..` after a directory that is still to be made.
            let recursive = recursive && !path.contains("..");
            Op::Mkdir(path, recursive)
        }),
        1 => path().prop_map(Op::Remove),
        1 => path().prop_map(Op::RemoveAll),
        4 => (path(), path()).prop_map(|(from, to)| Op::Rename(from, to)),
        2 => (path(), path()).prop_map(|(target, link)| Op::Symlink(target, link)),
        2 => path().prop_map(Op::Read),
        1 => path().prop_map(Op::List),
        1 => (path(), 0o600u32..0o777).prop_map(|(path, mode)| Op::Chmod(path, mode)),
        1 => Just(Op::Commit),
        1 => Just(Op::Reopen),
        1 => any::<bool>().prop_map(Op::Child),
    ]
}

/// The real root is deep enough that `..` cannot leave it.
const ROOT: &str = "r/r/r/r/r/r";

fn real(root: &Path, op: &Op) -> Result<Vec<u8>, ()> {
    use std::{io::Write, os::unix::fs::PermissionsExt};
    let at = |path: &str| root.join(ROOT).join(path);
    let done = match op {
        Op::Write(path, content) => fs::write(at(path), bytes(*content)),
        Op::Append(path, content) => {
            let file = fs::OpenOptions::new()
                .append(true)
                .create(true)
                .open(at(path));
            file.and_then(|mut file| file.write_all(&bytes(*content)))
        }
        Op::Mkdir(path, true) => fs::create_dir_all(at(path)),
        Op::Mkdir(path, false) => fs::create_dir(at(path)),
        Op::Remove(path) => match fs::symlink_metadata(at(path)) {
            Ok(meta) if meta.is_dir() => fs::remove_dir(at(path)),
            _ => fs::remove_file(at(path)),
        },
        Op::RemoveAll(path) => match fs::symlink_metadata(at(path)) {
            Ok(meta) if meta.is_dir() => fs::remove_dir_all(at(path)),
            _ => fs::remove_file(at(path)),
        },
        Op::Rename(from, to) => fs::rename(at(from), at(to)),
        Op::Symlink(target, link) => std::os::unix::fs::symlink(target, at(link)),
        Op::Read(path) => return fs::read(at(path)).map_err(|_| ()),
        Op::List(path) => return list_real(&at(path)).map_err(|_| ()),
        Op::Chmod(path, mode) => {
            fs::set_permissions(at(path), fs::Permissions::from_mode(*mode | 0o700))
        }
        Op::Commit | Op::Reopen | Op::Child(_) => Ok(()),
    };
    done.map(|()| Vec::new()).map_err(|_| ())
}

fn list_real(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut names: Vec<String> = fs::read_dir(path)?
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    Ok(names.join("\n").into_bytes())
}

async fn ours(overlay: &Overlay, op: &Op) -> Result<Vec<u8>, ()> {
    let at = |path: &str| format!("/{ROOT}/{path}");
    let default = WriteOptions::default();
    let done = match op {
        Op::Write(path, content) => {
            overlay
                .write(&at(path), Bytes::from(bytes(*content)), &default)
                .await
        }
        Op::Append(path, content) => {
            overlay
                .append(&at(path), Bytes::from(bytes(*content)), &default)
                .await
        }
        Op::Mkdir(path, recursive) => overlay.mkdir(&at(path), *recursive).await,
        Op::Remove(path) => overlay.remove(&at(path), false, false).await,
        Op::RemoveAll(path) => overlay.remove(&at(path), true, false).await,
        Op::Rename(from, to) => overlay.rename(&at(from), &at(to)).await,
        Op::Symlink(target, link) => overlay.symlink(target, &at(link)).await,
        Op::Read(path) => {
            return overlay
                .read(&at(path))
                .await
                .map(|bytes| bytes.to_vec())
                .map_err(|_| ());
        }
        Op::List(path) => {
            let names = overlay.list(&at(path)).await.map_err(|_| ())?;
            let names: Vec<String> = names.into_iter().map(|entry| entry.name).collect();
            return Ok(names.join("\n").into_bytes());
        }
        Op::Chmod(path, mode) => overlay.chmod(&at(path), *mode | 0o700).await,
        Op::Commit | Op::Reopen | Op::Child(_) => Ok(()),
    };
    done.map(|()| Vec::new()).map_err(|_| ())
}

/// Everything below a directory, one line each.
fn tree_real(at: &Path, name: &str, out: &mut Vec<String>) {
    use std::os::unix::fs::PermissionsExt;
    let mut entries: Vec<_> = fs::read_dir(at).unwrap().map(Result::unwrap).collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = format!("{name}/{}", entry.file_name().into_string().unwrap());
        let meta = fs::symlink_metadata(entry.path()).unwrap();
        if meta.is_symlink() {
            out.push(format!(
                "{path} -> {}",
                fs::read_link(entry.path()).unwrap().display()
            ));
        } else if meta.is_dir() {
            out.push(format!("{path}/"));
            tree_real(&entry.path(), &path, out);
        } else {
            let hash = blake3::hash(&fs::read(entry.path()).unwrap());
            out.push(format!(
                "{path} {:o} {} {hash}",
                meta.permissions().mode() & 0o777,
                meta.len()
            ));
        }
    }
}

async fn tree_ours(overlay: &Overlay) -> Vec<String> {
    let mut out = Vec::new();
    let mut pending = vec![String::new()];
    while let Some(at) = pending.pop() {
        for entry in overlay.list(&format!("/{ROOT}{at}")).await.unwrap() {
            let path = format!("{at}/{}", entry.name);
            let full = format!("/{ROOT}{path}");
            match entry.stat.kind {
                EntryKind::Symlink => out.push(format!(
                    "{path} -> {}",
                    overlay.read_link(&full).await.unwrap()
                )),
                EntryKind::Directory => {
                    out.push(format!("{path}/"));
                    pending.push(path);
                }
                EntryKind::File => {
                    let hash = blake3::hash(&overlay.read(&full).await.unwrap());
                    out.push(format!(
                        "{path} {:o} {} {hash}",
                        entry.stat.mode, entry.stat.size
                    ));
                }
            }
        }
    }
    out
}

async fn agree(ops: Vec<Op>) {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir_all(directory.path().join(ROOT)).unwrap();
    let mut world = World::new();
    let mut overlay = world.begin().await;
    overlay.mkdir(&format!("/{ROOT}"), true).await.unwrap();
    for op in &ops {
        match op {
            Op::Commit => {
                world.commit(&overlay).await;
                overlay = world.begin().await;
            }
            Op::Reopen => {
                world.commit(&overlay).await;
                world.reopen();
                overlay = world.begin().await;
            }
            // What the child does is either folded in at once, or was only tried.
            Op::Child(merge) => {
                let child = overlay.child();
                let _ = child.remove(&format!("/{ROOT}/a"), true, true).await;
                if *merge {
                    child.merge().unwrap();
                    let _ = real(directory.path(), &Op::RemoveAll("a".into()));
                }
            }
            op => {
                let same = ours(&overlay, op).await == real(directory.path(), op);
                assert!(same, "{op:?} of {ops:?}");
            }
        }
    }
    world.commit(&overlay).await;
    world.reopen();
    let (mut expected, mut found) = (Vec::new(), tree_ours(&world.begin().await).await);
    tree_real(&directory.path().join(ROOT), "", &mut expected);
    expected.sort();
    found.sort();
    assert_eq!(found, expected, "{ops:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, rng_seed: RngSeed::Fixed(seed()), ..ProptestConfig::default() })]
    #[test]
    fn the_workspace_does_what_a_real_directory_does(ops in prop::collection::vec(op(), 1..40)) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(agree(ops));
    }
}

/// The seed: always the same, so that what passed passes again; `BOWLINE_SEED` tries another.
fn seed() -> u64 {
    asked("BOWLINE_SEED").unwrap_or(1)
}

/// `BOWLINE_CASES` sequences; 200 by default.
fn cases() -> u32 {
    asked("BOWLINE_CASES").unwrap_or(200)
}
