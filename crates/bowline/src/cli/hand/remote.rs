//! The other end of the socket in the data directory.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use axum::{
    body::{Body, BodyDataStream, Bytes},
    http::{Method, Request, Response, StatusCode, header},
};
use bowline_agent::{actor, approval::Answered, edit::FileEdit, record::Compaction};
use bowline_runtime::{RuntimeError, submission};
use bowline_store::{SqliteStore, Store};
use futures::StreamExt as _;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::{sync::mpsc, task::JoinHandle};

use crate::{
    archive::Imported,
    cli::{fault::Fault, place::Place},
    error::Error,
    follow::{Begin, Begun, Happened},
    server::local::{
        self,
        wire::{
            Beginning, Compacting, Editing, Importing, Line, MAX_LINE, SPOKEN, VERSION, Which,
            Whose,
        },
    },
    service::{Reply, reply_to},
};

/// Chunks that a slow reader may be behind before it misses some, as in the process itself.
const BUFFER: usize = 4_096;

/// The process that has the data.
pub(crate) struct Remote {
    data: PathBuf,
    /// Opened for reading; what is durable is seen at once.
    store: Arc<SqliteStore>,
    /// How it introduced itself.
    hello: Hello,
}

/// How it introduces itself.
#[derive(Default, Deserialize)]
struct Hello {
    pid: u32,
    lends: bool,
}

#[derive(Deserialize)]
struct Refused {
    error: Error,
}

impl Remote {
    /// Finds the process that has the data. `None` when it does not listen.
    pub(super) async fn find(place: &Place) -> Result<Option<Self>, Error> {
        if connect(&place.data).await?.is_none() {
            return Ok(None);
        }
        let Some(store) = place.read()? else {
            return Ok(None);
        };
        let mut remote = Self {
            data: place.data.clone(),
            store,
            hello: Hello::default(),
        };
        let hello = whole(remote.call(Method::GET, "", Body::empty()).await?).await?;
        remote.hello = serde_json::from_slice(&hello).map_err(|error| gone(&error.to_string()))?;
        Ok(Some(remote))
    }

    /// Whether it is no server, and lets go of the data when its own work is done.
    pub(super) fn lends(&self) -> bool {
        self.hello.lends
    }

    /// The id of the process.
    pub(super) fn pid(&self) -> u32 {
        self.hello.pid
    }

    pub(super) fn store(&self) -> &dyn Store {
        &*self.store
    }

    pub(super) async fn begin(
        &self,
        agent: &str,
        id: &str,
        begin: Begin,
    ) -> Result<(Begun, Hearing), Error> {
        let (head, files) = Beginning::new(agent, id, begin);
        let response = self
            .call(Method::POST, "/begin", body(&head, files))
            .await?;
        let mut lines = Lines::new(response);
        match lines.next().await? {
            Line::Begun(begun) => Ok((begun, Hearing::start(lines))),
            Line::Failed(error) => Err(error),
            Line::Happened(_) => Err(gone("it did not say what it began")),
        }
    }

    pub(super) async fn reply(
        &self,
        agent: &str,
        id: &str,
        submission: &str,
    ) -> Result<Reply, Error> {
        let failed = match self.ask("/reply", &which(agent, id, submission)).await {
            Ok(reply) => return Ok(reply),
            Err(error) => error,
        };
        // A process that ran this one submission ends with it, maybe before it is asked: what is durable tells.
        let actor = actor(agent, id);
        match submission::settled(self.store(), &actor, submission).await? {
            Some(settled) => Ok(reply_to(self.store(), &actor, settled).await?),
            None => Err(failed),
        }
    }

    pub(super) async fn abort(
        &self,
        agent: &str,
        id: &str,
        submission: &str,
    ) -> Result<bool, Error> {
        self.ask("/abort", &which(agent, id, submission)).await
    }

    pub(super) async fn answer(&self, answered: &Answered) -> Result<(), Error> {
        let _: String = self.ask("/answer", answered).await?;
        Ok(())
    }

    pub(super) async fn compact(
        &self,
        agent: &str,
        id: &str,
        instructions: Option<String>,
    ) -> Result<Option<Compaction>, Error> {
        let asked = Compacting {
            whose: whose(agent, id),
            instructions,
        };
        self.ask("/compact", &asked).await
    }

    pub(super) async fn delete(&self, agent: &str, id: &str) -> Result<bool, Error> {
        self.ask("/delete", &whose(agent, id)).await
    }

    /// Changes the files of a conversation; returns what `edit::make` tells.
    pub(crate) async fn edit(
        &self,
        agent: &str,
        id: &str,
        edit: FileEdit,
        origin: String,
        content: Bytes,
    ) -> Result<Value, Error> {
        let asked = Editing {
            whose: whose(agent, id),
            edit,
            origin,
        };
        self.ask_with("/edit", &asked, [content]).await
    }

    /// Brings a conversation in.
    pub(crate) async fn import(&self, id: Option<String>, file: Bytes) -> Result<Imported, Error> {
        self.ask_with("/import", &Importing { id }, [file]).await
    }

    /// Sends a line and the bytes that belong to it, and reads the whole answer.
    async fn ask_with<T: DeserializeOwned>(
        &self,
        path: &str,
        head: &impl Serialize,
        files: impl IntoIterator<Item = Bytes>,
    ) -> Result<T, Error> {
        let response = self.call(Method::POST, path, body(head, files)).await?;
        let bytes = whole(response).await?;
        serde_json::from_slice(&bytes).map_err(|error| gone(&error.to_string()))
    }

    /// Sends a line, and reads the whole answer.
    async fn ask<T: DeserializeOwned>(
        &self,
        path: &str,
        head: &impl Serialize,
    ) -> Result<T, Error> {
        self.ask_with(path, head, []).await
    }

    /// Sends a request on a connection of its own; what was refused is an error.
    async fn call(&self, method: Method, path: &str, body: Body) -> Result<Response<Body>, Error> {
        let stream = connect(&self.data).await?.ok_or(RuntimeError::Stopped)?;
        let broken = |error: hyper::Error| gone(&error.to_string());
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(format!("/local{path}"))
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/json")
            .header(VERSION, SPOKEN)
            .body(body)
            .map_err(|error| gone(&error.to_string()))?;
        let response = sender.send_request(request).await.map_err(broken)?;
        let response = response.map(Body::new);
        if response.status() == StatusCode::OK {
            return Ok(response);
        }
        let status = response.status();
        let bytes = whole(response).await?;
        let refused = serde_json::from_slice::<Refused>(&bytes);
        Err(refused.map_or_else(|_| gone(&status.to_string()), |refused| refused.error))
    }
}

async fn connect(data: &Path) -> Result<Option<tokio::net::UnixStream>, Error> {
    let connected = local::connect(data).await;
    connected.map_err(|error| gone(&error.to_string()))
}

fn gone(why: &str) -> Error {
    Fault::OwnerGone(why.to_owned()).into()
}

fn whose(agent: &str, id: &str) -> Whose {
    Whose {
        agent: agent.to_owned(),
        id: id.to_owned(),
    }
}

fn which(agent: &str, id: &str, submission: &str) -> Which {
    Which {
        whose: whose(agent, id),
        submission: submission.to_owned(),
    }
}

/// A line of JSON, and the bytes that belong to it.
fn body(head: &impl Serialize, files: impl IntoIterator<Item = Bytes>) -> Body {
    let pieces: Vec<_> = [line(head)].into_iter().chain(files).collect();
    let pieces = pieces.into_iter().map(Ok::<_, std::convert::Infallible>);
    Body::from_stream(futures::stream::iter(pieces))
}

fn line(head: &impl Serialize) -> Bytes {
    // Texts, numbers and JSON always have a form.
    let mut line = serde_json::to_vec(head).unwrap_or_default();
    line.push(b'\n');
    line.into()
}

async fn whole(response: Response<Body>) -> Result<Bytes, Error> {
    axum::body::to_bytes(response.into_body(), MAX_LINE)
        .await
        .map_err(|error| gone(&error.to_string()))
}

/// The lines of an answer.
struct Lines {
    body: BodyDataStream,
    read: Vec<u8>,
    /// How much of it was looked at.
    seen: usize,
}

impl Lines {
    fn new(response: Response<Body>) -> Self {
        Self {
            body: response.into_body().into_data_stream(),
            read: Vec::new(),
            seen: 0,
        }
    }

    async fn next(&mut self) -> Result<Line, Error> {
        loop {
            let end = self.read[self.seen..]
                .iter()
                .position(|byte| *byte == b'\n');
            if let Some(end) = end {
                let rest = self.read.split_off(self.seen + end + 1);
                let line = std::mem::replace(&mut self.read, rest);
                self.seen = 0;
                return serde_json::from_slice(&line).map_err(|error| gone(&error.to_string()));
            }
            self.seen = self.read.len();
            if self.seen > MAX_LINE {
                return Err(gone("it sent a line that is too long"));
            }
            match self.body.next().await {
                Some(Ok(piece)) => self.read.extend_from_slice(&piece),
                Some(Err(error)) => return Err(gone(&error.to_string())),
                None => return Err(gone("it ended")),
            }
        }
    }
}

/// Follows a submission in the process that has the data. Lines are read at once, so that the process
/// is not held up by whoever shows them.
pub(crate) struct Hearing {
    lines: mpsc::Receiver<Result<Line, Error>>,
    missed: Arc<AtomicU64>,
    reading: JoinHandle<()>,
}

impl Hearing {
    fn start(mut lines: Lines) -> Self {
        let (sender, receiver) = mpsc::channel(BUFFER);
        let missed = Arc::new(AtomicU64::new(0));
        let count = missed.clone();
        let reading = tokio::spawn(async move {
            loop {
                let line = lines.next().await;
                match line {
                    Ok(chunk @ Line::Happened(Happened::Chunk(_))) => {
                        if sender.try_send(Ok(chunk)).is_err() {
                            count.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    line => {
                        let over = line.is_err();
                        if sender.send(line).await.is_err() || over {
                            return;
                        }
                    }
                }
            }
        });
        Self {
            lines: receiver,
            missed,
            reading,
        }
    }

    /// The next thing that happens. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<Happened, Error> {
        let missed = self.missed.swap(0, Ordering::Relaxed);
        if missed > 0 {
            return Ok(Happened::Missed(missed));
        }
        match self.lines.recv().await {
            Some(Ok(Line::Happened(happened))) => Ok(happened),
            Some(Ok(Line::Failed(error)) | Err(error)) => Err(error),
            Some(Ok(Line::Begun(_))) => Err(gone("it began twice")),
            None => Err(gone("it ended")),
        }
    }
}

impl Drop for Hearing {
    fn drop(&mut self) {
        self.reading.abort();
    }
}
