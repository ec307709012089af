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
    /// What stands before every path.
    root: &'static str,
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
    pub(super) async fn connect(addr: SocketAddr, root: &'static str) -> io::Result<Self> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            addr,
            root,
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
            "{method} {}{path} HTTP/1.1\r\nhost: {}\r\ncontent-length: {}\r\n{headers}\r\n",
            self.root,
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
        let bodiless = matches!(status, 101 | 204 | 304) || method == "HEAD";
        let chunked = header("transfer-encoding").is_some_and(|it| it.contains("chunked"));
        let length = header("content-length").and_then(|it| it.parse::<usize>().ok());
        let mut kept = Vec::new();
        let mut length = length.filter(|_| !bodiless).unwrap_or(0);
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
        if chunked && !bodiless {
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

    /// Asks for events; what came of them is in the buffer.
    async fn ask_events(&mut self, path: &str) -> io::Result<()> {
        self.ask("GET", path, "accept: text/event-stream\r\n", b"")
            .await?;
        let head = self.head().await?;
        if head.starts_with("HTTP/1.1 200") {
            Ok(())
        } else {
            Err(broken("no events"))
        }
    }

    /// Begins to read events, and waits for the first that says where the reader stands.
    pub(super) async fn begin_events(&mut self, path: &str) -> io::Result<()> {
        self.ask_events(path).await?;
        while count(&self.buffer, "control") == 0 {
            self.more().await?;
        }
        // As much as one that rests needs.
        self.buffer = Vec::new();
        Ok(())
    }

    /// The events that are whole, once there are some.
    pub(super) async fn events_now(&mut self) -> io::Result<Vec<u8>> {
        loop {
            // Events end with an empty line; what is behind the last one waits for its rest.
            let end = self.buffer.windows(2).rposition(|two| two == b"\n\n");
            if let Some(end) = end {
                return Ok(self.buffer.drain(..end + 2).collect());
            }
            self.more().await?;
        }
    }

    /// Reads what comes of events until they have this, or more than so many bytes; it ends the connection.
    pub(super) async fn some(mut self, path: &str, most: usize, what: &str) -> io::Result<Vec<u8>> {
        self.ask_events(path).await?;
        while count(&self.buffer, what) == 0 && self.buffer.len() < most {
            self.more().await?;
        }
        Ok(self.buffer)
    }

    /// Begins to post a body of this length, and is gone.
    pub(super) async fn begin(
        mut self,
        path: &str,
        headers: &str,
        part: &[u8],
        length: usize,
    ) -> io::Result<()> {
        let head = format!(
            "POST {}{path} HTTP/1.1\r\nhost: {}\r\ncontent-length: {length}\r\n{headers}\r\n",
            self.root, self.addr
        );
        self.request.extend_from_slice(head.as_bytes());
        self.request.extend_from_slice(part);
        self.stream.write_all(&self.request).await
    }

    /// Reads events until one has this; it ends the connection.
    pub(super) async fn until(mut self, path: &str, what: &str) -> io::Result<()> {
        self.ask_events(path).await?;
        while count(&self.buffer, what) == 0 {
            // Its beginning may be the end of what is here.
            let over = self.buffer.len().saturating_sub(what.len());
            self.buffer.drain(..over);
            self.more().await?;
        }
        Ok(())
    }
}

/// The offset that a reader stands at, after the last control event that is whole.
pub(super) fn last_offset(text: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(text);
    let whole = text.rsplit_once("\n\n")?.0;
    let part = whole.rsplit_once("\"streamNextOffset\":\"")?.1;
    part.split('"').next().map(str::to_owned)
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

/// The records behind which readers stand, after the control events of a text.
pub(super) fn offsets(text: &[u8]) -> Vec<u64> {
    let text = String::from_utf8_lossy(text);
    let parts = text.split("\"streamNextOffset\":\"").skip(1);
    let offset = |part: &str| {
        let (record, piece) = part.split('"').next()?.split_once('_')?;
        let (record, piece): (u64, u64) = (record.parse().ok()?, piece.parse().ok()?);
        // A piece of text stands between two records; other servers count behind the line.
        match (record, piece) {
            (record, 0) => Some(record),
            (0, record) => Some(record),
            (_, _) => None,
        }
    };
    parts.filter_map(offset).collect()
}

/// The value of a figure without labels, in what `/metrics` tells.
pub(super) fn figure(text: &[u8], name: &str) -> Option<f64> {
    let text = String::from_utf8_lossy(text);
    let mut lines = text.lines();
    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

/// How often a text has this.
pub(super) fn count(text: &[u8], what: &str) -> usize {
    let windows = text.windows(what.len());
    windows.filter(|window| *window == what.as_bytes()).count()
}
