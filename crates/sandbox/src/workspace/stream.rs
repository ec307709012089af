//! Content in pieces, for files that are too large to hold.

use bytes::Bytes;
use futures::stream::{self, Stream, StreamExt};

use super::{Overlay, WorkspaceError, WriteOptions, limits::CHUNK};

impl Overlay {
    /// The bytes of a file, at most 256 KiB at a time, as the file was when this was called.
    ///
    /// # Errors
    ///
    /// As [`Overlay::read`], at once or, for `EIO`, in the stream.
    pub async fn read_stream(
        &self,
        path: &str,
    ) -> Result<impl Stream<Item = Result<Bytes, WorkspaceError>> + Send + use<>, WorkspaceError>
    {
        use super::entry::{Content, Node};
        let entry = self.entry(path, true).await?;
        let shared = self.0.shared.clone();
        let pieces = match &entry.node {
            Node::File(Content::Chunked { chunks, .. }) => chunks.to_vec(),
            _ => super::entry::cut(&self.content(path, &entry).await?),
        };
        Ok(stream::iter(pieces).then(move |piece| {
            let shared = shared.clone();
            async move { shared.chunk(&piece).await.map_err(WorkspaceError::from) }
        }))
    }

    /// Replaces or makes a file from a stream. The file appears when the stream has ended; when the
    /// stream or a limit fails, it is as it was. New content counts towards `step_bytes`.
    ///
    /// # Errors
    ///
    /// As [`Overlay::write`], and the first error of the stream.
    pub async fn write_stream(
        &self,
        path: &str,
        content: impl Stream<Item = Result<Bytes, WorkspaceError>> + Send,
        options: &WriteOptions,
    ) -> Result<u64, WorkspaceError> {
        let mut content = std::pin::pin!(content);
        let limit = self.limits().step_bytes;
        let mut pieces: Vec<Bytes> = Vec::new();
        let mut open = Vec::new();
        let mut size = 0u64;
        while let Some(part) = content.next().await {
            let mut part = part?;
            size += part.len() as u64;
            self.check_size(path, size)?;
            if size > limit {
                return Err(WorkspaceError::Quota {
                    what: "new bytes in one step",
                    limit,
                });
            }
            while !part.is_empty() {
                let fill = part.split_to(part.len().min(CHUNK - open.len()));
                open.extend_from_slice(&fill);
                if open.len() == CHUNK {
                    pieces.push(Bytes::from(std::mem::take(&mut open)));
                }
            }
        }
        pieces.push(Bytes::from(open));
        self.write_pieces(path, pieces, size, options).await?;
        Ok(size)
    }
}
