//! As much of HTTP/1.1 as the load needs.

use std::{
    io::{self, Error, ErrorKind},
    net::SocketAddr,
    time::Instant,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// One connection, with one request at a time.
#[derive(Debug)]
pub(super) struct Client {
    stream: TcpStream,
    addr: SocketAddr,
    request: Vec<u8>,
    buffer: Vec<u8>,
}

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) next_offset: String,
    /// When the first byte of the body, or the end of the head, was here.
    pub(super) first: Instant,
    /// When all of it was here.
    pub(super) at: Instant,
    /// Bytes of the body.
    pub(super) length: usize,
    /// The body, its first megabyte at most.
    pub(super) body: Vec<u8>,
}

const KEPT: usize = 1024 * 1024;

fn broken(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, what.to_owned())
}

impl Client {
    pub(super) async fn connect(addr: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            addr,
            request: Vec::new(),
            buffer: Vec::with_capacity(2048),
        })
    }

    async fn ask(
        &mut self,
        method: &str,
        path: &str,
        headers: &str,
        body: &[u8],
    ) -> io::Result<()> {
        self.request.clear();
        let head = format!(
            "{method} /v1/stream/{path} HTTP/1.1\r\nhost: {}\r\ncontent-length: {}\r\n{headers}\r\n",
            self.addr,
            body.len()
        );
        self.request.extend_from_slice(head.as_bytes());
        self.request.extend_from_slice(body);
        self.stream.write_all(&self.request).await
    }

    async fn more(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// The head of an answer; what came behind it stays in the buffer.
    async fn head(&mut self) -> io::Result<String> {
        self.buffer.clear();
        loop {
            let end = self.buffer.windows(4).position(|four| four == b"\r\n\r\n");
            if let Some(end) = end {
                let head = String::from_utf8_lossy(self.buffer.get(..end).unwrap_or_default());
                let head = head.into_owned();
                self.buffer.drain(..end + 4);
                return Ok(head);
            }
            self.more().await?;
        }
    }

    /// Sends a request and reads the answer.
    pub(super) async fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &str,
        body: &[u8],
    ) -> io::Result<Answer> {
        self.ask(method, path, headers, body).await?;
        let head = self.head().await?;
        let mut first = Instant::now();
        let status = head.get(9..12).and_then(|text| text.parse().ok());
        let status: u16 = status.ok_or_else(|| broken("no status"))?;
        let header = |name: &str| {
            let mut lines = head.split("\r\n");
            lines.find_map(|line| {
                let (known, value) = line.split_once(':')?;
                known
                    .eq_ignore_ascii_case(name)
                    .then(|| value.trim().to_owned())
            })
        };
        let chunked = header("transfer-encoding").is_some_and(|it| it.contains("chunked"));
        let length = header("content-length").and_then(|it| it.parse::<usize>().ok());
        let mut kept = Vec::new();
        let mut length = match length {
            _ if status == 204 || status == 304 => 0,
            Some(length) => length,
            None => 0,
        };
        let mut left = length;
        if left > 0 && self.buffer.is_empty() {
            self.more().await?;
            first = Instant::now();
        }
        while left > 0 {
            if self.buffer.is_empty() {
                self.more().await?;
            }
            let taken = self.buffer.len().min(left);
            let room = KEPT.saturating_sub(kept.len()).min(taken);
            kept.extend_from_slice(self.buffer.get(..room).unwrap_or_default());
            self.buffer.drain(..taken);
            left -= taken;
        }
        if chunked && status != 204 {
            loop {
                let size = self.chunk(&mut kept).await?;
                length += size;
                if size == 0 {
                    break;
                }
            }
        }
        Ok(Answer {
            status,
            next_offset: header("stream-next-offset").unwrap_or_default(),
            first,
            at: Instant::now(),
            length,
            body: kept,
        })
    }

    /// One chunk of a body in chunks; its size.
    async fn chunk(&mut self, kept: &mut Vec<u8>) -> io::Result<usize> {
        let line = loop {
            if let Some(end) = self.buffer.windows(2).position(|two| two == b"\r\n") {
                break end;
            }
            self.more().await?;
        };
        let text =
            String::from_utf8_lossy(self.buffer.get(..line).unwrap_or_default()).into_owned();
        let size = usize::from_str_radix(text.split(';').next().unwrap_or_default().trim(), 16);
        let size = size.map_err(|_| broken("a chunk without a size"))?;
        while self.buffer.len() < line + 2 + size + 2 {
            self.more().await?;
        }
        let data = self
            .buffer
            .get(line + 2..line + 2 + size)
            .unwrap_or_default();
        let room = KEPT.saturating_sub(kept.len()).min(size);
        kept.extend_from_slice(data.get(..room).unwrap_or_default());
        self.buffer.drain(..line + 2 + size + 2);
        Ok(size)
    }

    /// Begins to read events, and waits for the first.
    pub(super) async fn begin_events(&mut self, path: &str) -> io::Result<()> {
        self.ask("GET", path, "accept: text/event-stream\r\n", b"")
            .await?;
        let head = self.head().await?;
        if !head.starts_with("HTTP/1.1 200") {
            return Err(broken("no events"));
        }
        while !self.buffer.windows(7).any(|seven| seven == b"control") {
            self.more().await?;
        }
        Ok(())
    }

    /// Reads events until the connection ends, and hands on the stamp of each message.
    pub(super) async fn events(
        &mut self,
        path: &str,
        note: &mut (dyn FnMut(u64, Instant) + Send),
    ) -> io::Result<()> {
        self.begin_events(path).await?;
        self.buffer.clear();
        loop {
            self.more().await?;
            let at = Instant::now();
            // Events end with an empty line; what is behind the last one waits for its rest.
            let end = self.buffer.windows(2).rposition(|two| two == b"\n\n");
            let Some(end) = end else { continue };
            let whole: Vec<u8> = self.buffer.drain(..end + 2).collect();
            for sent in stamps(&whole) {
                note(sent, at);
            }
        }
    }
}

/// The stamps of the messages in a text.
pub(super) fn stamps(text: &[u8]) -> Vec<u64> {
    let text = String::from_utf8_lossy(text);
    let parts = text.split("\"t\":").skip(1);
    parts
        .filter_map(|part| {
            let digits: String = part.chars().take_while(char::is_ascii_digit).collect();
            digits.parse().ok()
        })
        .collect()
}
