//! What a workspace may grow to.

/// Bounds of one workspace. Each is a typed error when hit, never a silent cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkspaceLimits {
    /// Content of all files together, in bytes. Default 1 GiB (`EDQUOT`).
    pub bytes: u64,
    /// Files, directories and symbolic links together. Default 1,000,000 (`EDQUOT`).
    pub entries: u64,
    /// One file, in bytes. Default 1 GiB, at most 4 GiB (`EFBIG`).
    pub file_bytes: u64,
    /// New content that an overlay may hold before it is committed, in bytes; this is what bounds the
    /// memory of a step. Default 128 MiB (`EDQUOT`).
    pub step_bytes: u64,
    /// A whole path, in bytes. Default 4,096 (`ENAMETOOLONG`).
    pub path_length: usize,
    /// One component of a path, in bytes. Default 255 (`ENAMETOOLONG`).
    pub name_length: usize,
    /// Components of a path that is created. Default 100 (`ENAMETOOLONG`).
    pub depth: usize,
    /// Symbolic links followed in one lookup. Default 40 (`ELOOP`).
    pub symlinks: usize,
}

impl Default for WorkspaceLimits {
    fn default() -> Self {
        Self {
            bytes: 1 << 30,
            entries: 1_000_000,
            file_bytes: 1 << 30,
            step_bytes: 128 << 20,
            path_length: 4096,
            name_length: 255,
            depth: 100,
            symlinks: 40,
        }
    }
}

/// The largest `file_bytes`: the list of a file's chunks must fit into one row.
pub(crate) const FILE_CEILING: u64 = 4 << 30;
/// Content up to this size lives in the entry's own row.
pub(crate) const INLINE: usize = 8 << 10;
/// Larger content is cut into chunks of this size, each a blob.
pub(crate) const CHUNK: usize = 256 << 10;
/// Inline content that the cache of committed entries keeps in memory.
pub(crate) const CACHED_INLINE: usize = 32 << 20;
/// Chunks that are kept in memory after they were read or written.
pub(crate) const CACHED_CHUNKS: usize = 8 << 20;
/// Entries that the cache keeps between two overlays.
pub(crate) const CACHED_ENTRIES: usize = 200_000;
/// Paths that the summary of one change set names.
pub(crate) const SUMMARY_PATHS: usize = 10_000;
/// The largest file that an operation takes whole into memory to change or to search it.
pub(crate) const HELD: u64 = 64 << 20;
