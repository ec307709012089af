//! What the tools work on.

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    host::HostDir,
    search::{self, GlobMatch, GrepLine, GrepQuery, GrepSummary, SearchError},
    workspace::{Overlay, WORKING_DIRECTORY, WorkspaceError, WriteOptions},
};

/// Files that the tools work on: a workspace or a directory of the machine. Paths are absolute, or start at
/// the working directory.
#[async_trait]
pub trait Files: Send + Sync {
    /// Where relative paths start; absolute.
    fn working_directory(&self) -> &str;

    /// The size of a file, in bytes.
    async fn size(&self, path: &str) -> Result<u64, WorkspaceError>;

    /// At most so many bytes of a file, from an offset on.
    async fn read_range(
        &self,
        path: &str,
        offset: u64,
        length: usize,
    ) -> Result<Bytes, WorkspaceError>;

    /// All of a file.
    async fn read(&self, path: &str) -> Result<Bytes, WorkspaceError>;

    /// Makes or replaces a file; with `parents` also the directories that are missing.
    async fn write(&self, path: &str, bytes: Bytes, parents: bool) -> Result<(), WorkspaceError>;

    /// Another number when the file is another.
    async fn fingerprint(&self, path: &str) -> Result<u64, WorkspaceError>;

    /// As [`search::grep()`].
    async fn grep(
        &self,
        query: &GrepQuery,
        path: &str,
        found: &mut (dyn FnMut(GrepLine) -> bool + Send),
    ) -> Result<GrepSummary, SearchError>;

    /// As [`search::glob()`].
    async fn glob(&self, pattern: &str, base: &str) -> Result<Vec<GlobMatch>, SearchError>;
}

#[async_trait]
impl Files for Overlay {
    fn working_directory(&self) -> &str {
        WORKING_DIRECTORY
    }

    async fn size(&self, path: &str) -> Result<u64, WorkspaceError> {
        Ok(self.stat(path).await?.size)
    }

    async fn read_range(
        &self,
        path: &str,
        offset: u64,
        length: usize,
    ) -> Result<Bytes, WorkspaceError> {
        Overlay::read_range(self, path, offset, length).await
    }

    async fn read(&self, path: &str) -> Result<Bytes, WorkspaceError> {
        Overlay::read(self, path).await
    }

    async fn write(&self, path: &str, bytes: Bytes, parents: bool) -> Result<(), WorkspaceError> {
        let options = if parents {
            WriteOptions::with_parents()
        } else {
            WriteOptions::default()
        };
        Overlay::write(self, path, bytes, &options).await.map(drop)
    }

    async fn fingerprint(&self, path: &str) -> Result<u64, WorkspaceError> {
        Overlay::fingerprint(self, path).await
    }

    async fn grep(
        &self,
        query: &GrepQuery,
        path: &str,
        found: &mut (dyn FnMut(GrepLine) -> bool + Send),
    ) -> Result<GrepSummary, SearchError> {
        search::grep(self, query, path, found).await
    }

    async fn glob(&self, pattern: &str, base: &str) -> Result<Vec<GlobMatch>, SearchError> {
        search::glob(self, pattern, base).await
    }
}

#[async_trait]
impl Files for HostDir {
    fn working_directory(&self) -> &str {
        self.root()
    }

    async fn size(&self, path: &str) -> Result<u64, WorkspaceError> {
        HostDir::size(self, path).await
    }

    async fn read_range(
        &self,
        path: &str,
        offset: u64,
        length: usize,
    ) -> Result<Bytes, WorkspaceError> {
        HostDir::read_range(self, path, offset, length).await
    }

    async fn read(&self, path: &str) -> Result<Bytes, WorkspaceError> {
        HostDir::read_range(self, path, 0, usize::MAX).await
    }

    async fn write(&self, path: &str, bytes: Bytes, parents: bool) -> Result<(), WorkspaceError> {
        HostDir::write(self, path, bytes, parents).await
    }

    async fn fingerprint(&self, path: &str) -> Result<u64, WorkspaceError> {
        HostDir::fingerprint(self, path).await
    }

    async fn grep(
        &self,
        query: &GrepQuery,
        path: &str,
        found: &mut (dyn FnMut(GrepLine) -> bool + Send),
    ) -> Result<GrepSummary, SearchError> {
        HostDir::grep(self, query, path, found).await
    }

    async fn glob(&self, pattern: &str, base: &str) -> Result<Vec<GlobMatch>, SearchError> {
        HostDir::glob(self, pattern, base).await
    }
}
