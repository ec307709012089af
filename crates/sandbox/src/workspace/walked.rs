//! Where looking up a path ended.

use std::sync::Arc;

use super::entry::{DirId, Entry, ROOT};

/// Where a lookup ended.
#[derive(Clone)]
pub(crate) struct Walked {
    /// From the root to the parent. Empty for the root itself.
    pub(crate) dirs: Vec<(DirId, Arc<str>)>,
    /// Directories that are missing between the parent and `name`.
    pub(crate) missing: Vec<Arc<str>>,
    /// What is missing is what a link points to.
    pub(crate) dangling: bool,
    /// The last name; empty for the root.
    pub(crate) name: Arc<str>,
    pub(crate) entry: Option<Arc<Entry>>,
}

impl Walked {
    pub(crate) fn parent(&self) -> DirId {
        self.dirs.last().map_or(ROOT, |(id, _)| *id)
    }

    pub(crate) fn is_root(&self) -> bool {
        self.dirs.is_empty()
    }

    /// The path without links.
    pub(crate) fn path(&self) -> String {
        let names = self
            .dirs
            .iter()
            .skip(1)
            .map(|(_, name)| name)
            .chain(&self.missing);
        let mut path = String::new();
        for name in names.chain((!self.is_root()).then_some(&self.name)) {
            path.push('/');
            path.push_str(name);
        }
        if path.is_empty() { "/".into() } else { path }
    }
}
