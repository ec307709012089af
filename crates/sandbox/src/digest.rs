//! Checksums of files.

use futures::StreamExt;

use crate::workspace::{Overlay, WorkspaceError};

/// Which checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Digest {
    /// MD5, for comparing with what others publish; it proves nothing.
    Md5,
    /// SHA-1, as MD5.
    Sha1,
    /// SHA-256.
    #[default]
    Sha256,
    /// BLAKE3.
    Blake3,
}

/// The checksum of a file, in hexadecimal, read in pieces.
///
/// # Errors
///
/// As [`Overlay::read`].
pub async fn digest_file(
    overlay: &Overlay,
    path: &str,
    digest: Digest,
) -> Result<String, WorkspaceError> {
    match digest {
        Digest::Md5 => digest_with::<md5::Md5>(overlay, path).await,
        Digest::Sha1 => digest_with::<sha1::Sha1>(overlay, path).await,
        Digest::Sha256 => digest_with::<sha2::Sha256>(overlay, path).await,
        Digest::Blake3 => {
            let mut hasher = blake3::Hasher::new();
            feed(overlay, path, |piece| {
                hasher.update(piece);
            })
            .await?;
            Ok(hasher.finalize().to_string())
        }
    }
}

async fn digest_with<D: sha2::Digest + Send>(
    overlay: &Overlay,
    path: &str,
) -> Result<String, WorkspaceError> {
    let mut hasher = D::new();
    feed(overlay, path, |piece| hasher.update(piece)).await?;
    Ok(hasher
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

async fn feed(
    overlay: &Overlay,
    path: &str,
    mut each: impl FnMut(&[u8]) + Send,
) -> Result<(), WorkspaceError> {
    let mut pieces = std::pin::pin!(overlay.read_stream(path).await?);
    while let Some(piece) = pieces.next().await {
        each(&piece?);
    }
    Ok(())
}
