//! Which version of HTTP a connection speaks, where its first bytes have to be read to tell.

use std::io::{self, Cursor};

use bytes::{BufMut as _, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, join, split};

use super::listen::Version;

/// What a client of HTTP/2 sends first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Reads until the version can be told, and no further than the preface; what was read comes once more from the
/// connection that is returned. Without a bound of its own.
///
/// # Errors
///
/// When the connection breaks, or ends before that.
pub(super) async fn read<I: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    mut io: I,
) -> io::Result<(Version, impl AsyncRead + AsyncWrite + Send + use<I>)> {
    let mut first = BytesMut::with_capacity(PREFACE.len());
    let version = loop {
        if !PREFACE.starts_with(&first) {
            break Version::One;
        }
        if first.len() == PREFACE.len() {
            break Version::Two;
        }
        let room = PREFACE.len() - first.len();
        let mut rest = (&mut first).limit(room);
        if io.read_buf(&mut rest).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    };
    let (read, write) = split(io);
    Ok((version, join(Cursor::new(first).chain(read), write)))
}
