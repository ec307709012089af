//! The image that isolates start from.

use std::fs;
use std::path::Path;

use sha2::{Digest, Sha256};

use bowline_sandbox::isolate::{
    Answer, Bindings, IsolateError, Isolates, IsolatesOptions, Limits, Program, Start, Status,
    Value,
};
use bowline_store::Timestamp;

use super::isolates;

fn guest(name: &str) -> Vec<u8> {
    fs::read(
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("guest")
            .join(name),
    )
    .unwrap()
}

fn number(bytes: &[u8], at: &mut usize) -> usize {
    let (mut value, mut shift) = (0, 0);
    loop {
        let byte = bytes[*at];
        *at += 1;
        value |= usize::from(byte & 127) << shift;
        shift += 7;
        if byte & 128 == 0 {
            return value;
        }
    }
}

fn sections(image: &[u8]) -> Vec<(u8, &[u8])> {
    let mut at = 8;
    let mut all = Vec::new();
    while at < image.len() {
        let id = image[at];
        at += 1;
        let len = number(image, &mut at);
        all.push((id, &image[at..at + len]));
        at += len;
    }
    all
}

#[test]
fn the_image_is_the_one_whose_hash_is_kept() {
    let hash: String = Sha256::digest(guest("image.wasm"))
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(hash, isolates().image());
    assert_eq!(format!("{hash}\n").into_bytes(), guest("image.sha256"));
    assert!(
        String::from_utf8(guest("NOTICE"))
            .unwrap()
            .contains("Permission is hereby granted")
    );
}

/// A version of the engine that differs in nothing but its hash, and that.
fn another() -> (bytes::Bytes, String) {
    let mut image = guest("image.wasm");
    // A custom section with a name and nothing else.
    image.extend([0, 5, 4, b'o', b'l', b'd', b'r']);
    let hash = Sha256::digest(&image);
    let hash = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    (image.into(), hash)
}

#[tokio::test]
async fn a_program_goes_on_in_the_image_that_it_began_with_and_in_no_other() {
    let (image, hash) = another();
    let older = isolates().with_image(&image, &hash).unwrap();
    assert_eq!(older.image(), hash);
    let program = Program::new("a.ts", "async () => 1 + (await state.get())").unwrap();
    let bindings = Bindings::none().with("state", ["get"]).unwrap();
    let now = Timestamp::from_millis(0);
    let start = Start::new([1; 32], now);
    let slot = older.admit("a").await.unwrap();
    let mut run = older.start(slot, &program, &bindings, &start).unwrap();
    let key = [7; 32];
    let saved = run.save(&key).unwrap();
    drop(run);
    let limits = Limits::default();
    let slot = isolates().admit("a").await.unwrap();
    let refused = isolates().restore(slot, &saved, &key, &bindings, &limits, now);
    assert_eq!(refused.unwrap_err(), IsolateError::SavedImage);

    let again = isolates().with_image(&image, &hash).unwrap();
    let slot = again.admit("a").await.unwrap();
    let mut run = again
        .restore(slot, &saved, &key, &bindings, &limits, now)
        .unwrap();
    run.answer(1, &Answer::Value(Value::integer(2)), now)
        .unwrap();
    assert_eq!(*run.status(), Status::Completed(Value::integer(3)));

    let wrong = isolates().with_image(&image, isolates().image());
    assert_eq!(wrong.unwrap_err(), IsolateError::SavedImage);
    let nonsense = bytes::Bytes::from_static(b"\0asm\x01\0\0\0");
    let hash: String = Sha256::digest(&nonsense)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let wrong = isolates().with_image(&nonsense, &hash).unwrap_err();
    assert_eq!(wrong.code(), "isolate_engine");
}

#[test]
fn compiled_code_that_was_damaged_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let options = IsolatesOptions {
        cache: Some(folder.path().join("cache")),
        live: 1,
        ..IsolatesOptions::default()
    };
    let open = || drop(Isolates::open(&options).unwrap());
    open();
    let files = || {
        let mut files: Vec<_> = fs::read_dir(folder.path().join("cache"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        files
    };
    let all = files();
    let endings: Vec<_> = all.iter().map(|file| file.extension().unwrap()).collect();
    assert_eq!(endings, ["cwasm", "sum"]);
    let code = fs::read(&all[0]).unwrap();
    // As after a loss of power: the right length, and nothing in a part of it.
    let mut torn = code.clone();
    let half = torn.len() / 2;
    torn[half..half + 4_096].fill(0);
    fs::write(&all[0], &torn).unwrap();
    open();
    assert!(fs::read(&all[0]).unwrap() != torn, "it was used as it was");
    assert_eq!(files(), all);
}

/// What is saved is the memory alone. So the stack pointer must be the only other thing that changes,
/// and nothing may run before the first call.
#[test]
fn the_image_has_one_mutable_global_and_no_start() {
    let image = guest("image.wasm");
    let sections = sections(&image);
    let globals = sections.iter().find(|(id, _)| *id == 6).unwrap().1;
    // One entry: an i32 that is mutable.
    assert_eq!(globals[..3], [1, 0x7f, 1]);
    assert!(!sections.iter().any(|(id, _)| *id == 8), "a start section");
    // One table with a fixed size, filled by one segment.
    let table = sections.iter().find(|(id, _)| *id == 4).unwrap().1;
    assert_eq!(table[..3], [1, 0x70, 1]);
    let (mut at, table) = (3, table);
    assert_eq!(number(table, &mut at), number(table, &mut at));
    // What it may ask for: six functions of ours, four of WASI that answer with an error.
    let imports = sections.iter().find(|(id, _)| *id == 2).unwrap().1;
    let mut at = 0;
    let mut names = Vec::new();
    for _ in 0..number(imports, &mut at) {
        let mut name = String::new();
        for _ in 0..2 {
            let len = number(imports, &mut at);
            name += &format!(" {}", String::from_utf8_lossy(&imports[at..at + len]));
            at += len;
        }
        assert_eq!(imports[at], 0, "{name} is no function");
        at += 1;
        number(imports, &mut at);
        names.push(name.trim().to_owned());
    }
    names.sort();
    assert_eq!(
        names,
        [
            "host call",
            "host cancel",
            "host done",
            "host excess",
            "host log",
            "host timer",
            "wasi_snapshot_preview1 fd_close",
            "wasi_snapshot_preview1 fd_fdstat_get",
            "wasi_snapshot_preview1 fd_seek",
            "wasi_snapshot_preview1 fd_write",
        ]
    );
}

#[test]
fn the_compiled_engine_is_kept_where_nobody_else_can_write() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = super::options().cache.unwrap();
    isolates();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    let kept: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "cwasm"))
        .collect();
    assert!(!kept.is_empty());
    assert!(kept.iter().all(|path| mode(path) == 0o600));
}
