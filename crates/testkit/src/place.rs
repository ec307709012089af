//! A directory for an agent on the machine, with things beside it that are none of its business.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

/// What stands in the file that nobody may read.
pub const SECRET: &str = "canary";

/// `in`, where an agent works, and `out/secret`, which it must not reach. Gone when it is dropped.
#[derive(Debug)]
pub struct Place {
    _top: tempfile::TempDir,
    path: PathBuf,
}

impl Place {
    /// A new one; the modes of what is outside are 0755 and 0644.
    ///
    /// # Errors
    ///
    /// When none can be made.
    pub fn new() -> io::Result<Self> {
        let top = tempfile::tempdir()?;
        let path = top.path().canonicalize()?;
        let place = Self { _top: top, path };
        fs::create_dir(place.inside())?;
        fs::create_dir(place.path("out"))?;
        fs::write(place.path("out/secret"), SECRET)?;
        fs::set_permissions(place.path("out"), fs::Permissions::from_mode(0o755))?;
        fs::set_permissions(place.path("out/secret"), fs::Permissions::from_mode(0o644))?;
        Ok(place)
    }

    /// Where the agent works.
    pub fn inside(&self) -> PathBuf {
        self.path("in")
    }

    /// A path, without links, from above both on: `in/file`, `out/secret`.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// What is not as it was outside, one line each.
    ///
    /// # Errors
    ///
    /// When it cannot be looked at.
    pub fn changes(&self) -> io::Result<Vec<String>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(self.path("out"))? {
            let name = entry?.file_name();
            if name != "secret" {
                found.push(format!("out/{} is there", name.display()));
            }
        }
        if fs::read_to_string(self.path("out/secret"))? != SECRET {
            found.push("out/secret is another".to_owned());
        }
        for (name, wanted) in [("out", 0o755), ("out/secret", 0o644)] {
            let about = fs::metadata(self.path(name))?;
            let mode = about.permissions().mode() & 0o7777;
            if mode != wanted {
                found.push(format!("{name} has mode {mode:o}"));
            }
            // Commands try to set a time of long ago.
            let age = about.modified()?.elapsed().unwrap_or_default();
            if age.as_secs() > 3_600 {
                found.push(format!("{name} has another time"));
            }
        }
        Ok(found)
    }
}
