//! Keys that tests use, and the proof that they come to rest nowhere.
//!
//! Every key of a test begins with [`MARK`]. A [`Folder`] looks through all that a test has left in it
//! (stores, logs, archives, workspaces) when the test ends, and a
//! [`FakeProvider`](crate::provider::FakeProvider) through every prompt that it was sent. So the whole
//! suite is searched, test by test, before anything is removed.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};

/// How every key of a test begins.
pub const MARK: &str = "sk-canary-";
/// A key for tests.
pub const KEY: &str = "sk-canary-0123456789abcdef";

/// Whether bytes hold a key of a test, as it is or in base64.
pub fn holds_key(bytes: &[u8]) -> bool {
    // What base64 makes of the mark at each of its three alignments, without the characters at the
    // edges, which depend on what is beside it.
    let shifted = (0..3).map(|shift| {
        let text = STANDARD_NO_PAD.encode([&[0; 3][..shift], MARK.as_bytes()].concat());
        let from = (shift * 8).div_ceil(6);
        let to = (shift + MARK.len()) * 8 / 6;
        text[from..to].to_owned()
    });
    let mut marks = shifted.chain([MARK.to_owned()]);
    marks.any(|mark| {
        bytes
            .windows(mark.len())
            .any(|part| part == mark.as_bytes())
    })
}

/// A temporary folder that must hold no key when it is dropped, unless the test has failed already.
#[derive(Debug)]
pub struct Folder {
    dir: tempfile::TempDir,
    given: Vec<PathBuf>,
}

impl Folder {
    /// An empty folder.
    ///
    /// # Errors
    ///
    /// When none can be made.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            dir: tempfile::tempdir()?,
            given: Vec::new(),
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The test itself writes a key to this file: a secrets file, for example.
    pub fn keep_key_in(&mut self, file: impl AsRef<Path>) {
        self.given.push(self.path().join(file));
    }

    /// The files that hold a key and should not.
    pub fn leaks(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut left = vec![self.path().to_path_buf()];
        while let Some(path) = left.pop() {
            // What cannot be read (a socket, a file without permission) holds nothing of ours.
            match fs::symlink_metadata(&path) {
                Ok(known) if known.is_dir() => {
                    let entries = fs::read_dir(&path).into_iter().flatten().flatten();
                    left.extend(entries.map(|entry| entry.path()));
                }
                Ok(known)
                    if known.is_file()
                        && !self.given.contains(&path)
                        && fs::read(&path).is_ok_and(|bytes| holds_key(&bytes)) =>
                {
                    found.push(path);
                }
                _ => {}
            }
        }
        found
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let leaks = self.leaks();
            assert!(leaks.is_empty(), "a key came to rest in {leaks:?}");
        }
    }
}
