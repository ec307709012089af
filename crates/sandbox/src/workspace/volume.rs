//! Volumes: the row layout that makes snapshots and forks one row.
//!
//! A row of space `file` has the key `volume (u32) · directory (u64) · name`. The live volume holds
//! what was written since it was made; below it lies its base, and so on. A snapshot freezes the live
//! volume and puts an empty one above it. Because directories are numbers, moving one is one row,
//! whatever is in it, and a listing is one range scan for each volume of the chain.

use bowline_store::{RowChange, StoreError};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::entry::{DirId, FIRST_DIR};

/// The space of all rows of a workspace.
pub const SPACE: &str = "file";

pub(crate) type VolumeId = u32;

/// Volume 0 has no files: its rows describe the others.
const HEADERS: VolumeId = 0;

/// Header of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Volume {
    #[serde(skip)]
    pub(crate) id: VolumeId,
    /// What lies below.
    #[serde(rename = "p", default, skip_serializing_if = "Option::is_none")]
    pub(crate) base: Option<VolumeId>,
    /// Change sets committed since the workspace exists.
    #[serde(rename = "g")]
    pub(crate) generation: u64,
    /// The next free directory number.
    #[serde(rename = "n")]
    pub(crate) next_dir: DirId,
    /// Content, in bytes, the base included.
    #[serde(rename = "b")]
    pub(crate) bytes: u64,
    /// Entries, the base included.
    #[serde(rename = "e")]
    pub(crate) entries: u64,
    /// The live volume.
    #[serde(rename = "l", default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) live: bool,
    /// Name of the fork whose live volume this is.
    #[serde(rename = "f", default, skip_serializing_if = "Option::is_none")]
    pub(crate) fork: Option<String>,
    /// Name of the snapshot that this volume is.
    #[serde(rename = "s", default, skip_serializing_if = "Option::is_none")]
    pub(crate) label: Option<String>,
    /// When it was frozen, in milliseconds.
    #[serde(rename = "t", default, skip_serializing_if = "Option::is_none")]
    pub(crate) frozen: Option<i64>,
}

impl Volume {
    pub(crate) fn first() -> Self {
        Self {
            id: 1,
            base: None,
            generation: 0,
            next_dir: FIRST_DIR,
            bytes: 0,
            entries: 0,
            live: true,
            fork: None,
            label: None,
            frozen: None,
        }
    }

    /// The row of this header.
    pub(crate) fn put(&self) -> Result<RowChange, StoreError> {
        let value = serde_json::to_vec(self).map_err(|error| StoreError::Io(error.to_string()))?;
        Ok(RowChange::Put {
            space: SPACE,
            key: header_key(self.id),
            value: Bytes::from(value),
            blobs: Vec::new(),
        })
    }

    pub(crate) fn read(key: &[u8], value: &[u8]) -> Result<Self, StoreError> {
        let id = key
            .get(4..8)
            .and_then(|id| id.try_into().ok())
            .map(VolumeId::from_be_bytes);
        let volume = serde_json::from_slice::<Self>(value).ok();
        match (id, volume) {
            (Some(id), Some(volume)) => Ok(Self { id, ..volume }),
            _ => Err(StoreError::Corrupt(
                "the header of a workspace volume cannot be read".into(),
            )),
        }
    }
}

/// Prefix of all headers.
pub(crate) fn headers() -> Vec<u8> {
    HEADERS.to_be_bytes().to_vec()
}

pub(crate) fn header_key(id: VolumeId) -> Vec<u8> {
    [HEADERS.to_be_bytes(), id.to_be_bytes()].concat()
}

/// Prefix of all entries of a directory in a volume.
pub(crate) fn dir_key(volume: VolumeId, dir: DirId) -> Vec<u8> {
    let mut key = Vec::with_capacity(12 + 32);
    key.extend_from_slice(&volume.to_be_bytes());
    key.extend_from_slice(&dir.to_be_bytes());
    key
}

pub(crate) fn entry_key(volume: VolumeId, dir: DirId, name: &str) -> Vec<u8> {
    let mut key = dir_key(volume, dir);
    key.extend_from_slice(name.as_bytes());
    key
}
