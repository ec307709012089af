//! Repositories that are small and would become large. `quotas` looks at the memory that they take.

use bowline_sandbox::{
    git::{CloneOptions, DiffSide, GitError, ObjectId, Repository},
    workspace::Overlay,
};

use crate::{
    fuzz::bodies::{
        Remote,
        packs::{Objects, back, commit, delta, entry, hex, summed},
    },
    support::{World, put},
};

/// A repository with these objects, whose branch is at the last one.
async fn holding(objects: &Objects) -> (Overlay, Repository, ObjectId) {
    let overlay = World::new().begin().await;
    let (repository, _) = Repository::init(&overlay, "p", "main").await.unwrap();
    let tip = hex(&objects.ids.last().unwrap().0);
    put(&overlay, "p/.git/refs/heads/main", &tip).await;
    put(&overlay, "p/.git/objects/pack/p.idx", objects.index()).await;
    put(&overlay, "p/.git/objects/pack/p.pack", objects.pack()).await;
    (overlay, repository, ObjectId::from_hex(&tip).unwrap())
}

fn is_limit<T>(done: Result<T, GitError>, words: &str) {
    let Err(error) = done else {
        panic!("there is no limit: {words}");
    };
    assert_eq!(error.code(), "git_limit", "{error}");
    assert!(error.to_string().contains(words), "{error}");
}

/// Orders that copy 64 KiB from the beginning of the base so many times.
fn copies(times: usize) -> Vec<u8> {
    vec![0x80; times]
}

/// A blob of 64 KiB, and small deltas that make 32 MiB of it each.
fn expanding(deltas: u8) -> Objects {
    let mut objects = Objects::new();
    objects.add("blob", &[b'x'; 1 << 16]);
    let first = objects.end();
    let start = objects.ids[0].1;
    for number in 0..deltas {
        // One byte more, so that each makes another object.
        let orders = [copies(511), vec![1, number]].concat();
        let body = delta(1 << 16, (511 << 16) + 1, &orders);
        let distance = (objects.end() - start) as usize;
        objects.push([number; 20], entry(6, body.len(), &back(distance), &body));
    }
    assert!(objects.end() - first < 32 << 10);
    objects
}

async fn deltas_that_expand() {
    let objects = expanding(70);
    is_limit(taken(&objects).await, "unpacking the objects");
    // As they lie in a repository: one after the other is read.
    let (_overlay, mut repository, _) = holding(&objects).await;
    let mut done = Ok(Vec::new());
    for (id, _) in &objects.ids {
        let id = ObjectId::from_hex(&hex(id)).unwrap();
        done = repository.log(&[id], &[], 1).await;
        if !matches!(done, Err(GitError::Unknown(_))) {
            break;
        }
    }
    is_limit(done, "unpacking the objects");
}

async fn a_chain_of_deltas_without_end() {
    let mut objects = Objects::new();
    objects.add("blob", b"base");
    let mut before = objects.ids[0].1;
    for number in 0..5_000u32 {
        let here = objects.end();
        // The base with one byte more.
        let length = 4 + number as usize;
        let [low, high] = (length as u16).to_le_bytes();
        let orders = [0xb0, low, high, 1, b'x'];
        let body = delta(length, length + 1, &orders);
        let distance = back((here - before) as usize);
        let id = [&number.to_be_bytes()[..], &[0; 16]].concat();
        objects.push(
            id.try_into().unwrap(),
            entry(6, body.len(), &distance, &body),
        );
        before = here;
    }
    is_limit(taken(&objects).await, "a chain of deltas");
    let last = objects.ids.last().unwrap().0;
    let (_overlay, mut repository, _) = holding(&objects).await;
    let id = ObjectId::from_hex(&hex(&last)).unwrap();
    is_limit(repository.log(&[id], &[], 1).await, "a chain of deltas");
}

/// A pack as a remote sends it.
async fn taken(objects: &Objects) -> Result<(), GitError> {
    let overlay = World::new().begin().await;
    let tip = hex(&objects.ids[0].0);
    let remote = Remote::with(&tip, &objects.pack());
    let options = CloneOptions::default();
    let done = Repository::clone(&overlay, &remote, "https://h/p", "p", &options).await;
    done.map(|_| ())
}

async fn directories_that_hold_each_other() {
    // No file at all, and 2^60 directories.
    let mut objects = Objects::new();
    let mut tree = objects.add("tree", b"");
    for _ in 0..60 {
        let body = [&b"40000 a\0"[..], &tree, b"40000 b\0", &tree].concat();
        tree = objects.add("tree", &body);
    }
    objects.add("commit", &commit(&tree, "x"));
    let (_overlay, mut repository, _) = holding(&objects).await;
    is_limit(repository.status("").await, "too many files");
}

async fn paths_that_grow() {
    // A long name above many others.
    let mut objects = Objects::new();
    let file = objects.add("blob", b"x");
    let files: Vec<u8> = (0..1_000)
        .flat_map(|number| [format!("100644 {number:04}\0").as_bytes(), &file].concat())
        .collect();
    let files = objects.add("tree", &files);
    let name = vec![b'a'; 1 << 20];
    let tree = objects.add("tree", &[b"40000 ", &name[..], b"\0", &files].concat());
    objects.add("commit", &commit(&tree, "x"));
    let (_overlay, mut repository, _) = holding(&objects).await;
    is_limit(repository.status("").await, "the paths of a commit");

    // Each compressed path of an index is the one before with a byte more.
    let mut index = b"DIRC\0\0\0\x04".to_vec();
    index.extend(20_000u32.to_be_bytes());
    for _ in 0..20_000 {
        index.extend([0; 24]);
        index.extend(0o100_644u32.to_be_bytes());
        index.extend([0; 12]);
        index.extend([7; 20]);
        index.extend([0x0f, 0xff, 0, b'a', 0]);
    }
    let overlay = World::new().begin().await;
    let (mut repository, _) = Repository::init(&overlay, "p", "main").await.unwrap();
    put(&overlay, "p/.git/index", summed(index)).await;
    is_limit(repository.status("").await, "the paths of the index");
}

async fn commits_without_end() {
    let message = "x".repeat(1_000_000);
    let mut objects = Objects::new();
    let tree = objects.add("tree", b"");
    let mut parent: Option<[u8; 20]> = None;
    for _ in 0..80 {
        let body = String::from_utf8(commit(&tree, &message)).unwrap();
        let line = parent.map(|id| format!("parent {}\n", hex(&id)));
        let body = body.replacen("author", &(line.unwrap_or_default() + "author"), 1);
        parent = Some(objects.add("commit", body.as_bytes()));
    }
    let (_overlay, mut repository, tip) = holding(&objects).await;
    is_limit(repository.log(&[tip], &[], 100).await, "the commits");
    assert_eq!(repository.log(&[tip], &[], 10).await.unwrap().len(), 10);

    let mut objects = Objects::new();
    let tree = objects.add("tree", b"");
    objects.add("commit", &commit(&tree, &"x".repeat(2 << 20)));
    let (_overlay, mut repository, tip) = holding(&objects).await;
    is_limit(repository.log(&[tip], &[], 1).await, "a commit has");
}

async fn files_that_are_one_large_object() {
    let mut objects = Objects::new();
    let file = objects.add("blob", ("x".repeat(1_000) + "\n").repeat(500).as_bytes());
    let files: Vec<u8> = (0..1_000)
        .flat_map(|number| [format!("100644 {number:04}\0").as_bytes(), &file].concat())
        .collect();
    let tree = objects.add("tree", &files);
    objects.add("commit", &commit(&tree, "x"));
    let (_overlay, mut repository, tip) = holding(&objects).await;
    let diff = repository.diff(DiffSide::Empty, DiffSide::Commit(tip), &[]);
    is_limit(diff.await, "the differences");
}

async fn a_section_on_many_lines() {
    let overlay = World::new().begin().await;
    let (repository, _) = Repository::init(&overlay, "p", "main").await.unwrap();
    let config = format!("[{}]\n{}", "a".repeat(1 << 20), "\n".repeat(1 << 20));
    put(&overlay, "p/.git/config", config).await;
    repository.branches().await.unwrap();
    Repository::open(&overlay, "p").await.unwrap();
    put(&overlay, "p/.git/packed-refs", vec![b'\n'; 20 << 20]).await;
    is_limit(repository.branches().await, ".git/packed-refs has");
}

/// All of it, in the process whose memory is looked at.
pub(crate) async fn all_are_refused() {
    deltas_that_expand().await;
    a_chain_of_deltas_without_end().await;
    directories_that_hold_each_other().await;
    paths_that_grow().await;
    commits_without_end().await;
    files_that_are_one_large_object().await;
    a_section_on_many_lines().await;
}
