//! Which version of HTTP a connection speaks, where its first bytes have to be read to tell.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

use super::listen::Version;

/// What a client of HTTP/2 sends first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Reads until the version can be told, and no further than the preface. Without a bound of its own.
///
/// # Errors
///
/// When the connection breaks, or ends before that.
pub(super) async fn read<I: AsyncRead + AsyncWrite + Unpin>(
    mut io: I,
) -> io::Result<(Version, Again<I>)> {
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
    let first = first.freeze();
    Ok((version, Again { first, io }))
}

/// A connection whose first bytes come once more.
#[derive(Debug)]
pub(super) struct Again<I> {
    first: Bytes,
    io: I,
}

impl<I: AsyncRead + Unpin> AsyncRead for Again<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buffer);
        }
        let many = self.first.len().min(buffer.remaining());
        buffer.put_slice(&self.first[..many]);
        self.first.advance(many);
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Again<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
