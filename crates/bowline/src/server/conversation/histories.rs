//! Histories, put together once and then kept up with.
//!
//! A conversation whose history is asked for has a task that owns it: what it read once it does not read
//! again, so an answer costs what is new, and what is sent. The task ends when nobody asks for a while, when
//! others need the room, or with the server.

use std::{
    collections::HashMap,
    fmt, io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bowline_agent::{
    feed::{self, Assembly, Identity, NotThere, Offset, Reader, UiOutcome},
    view::UiMessage,
};
use bowline_store::{ActorId, Store, StoreError};
use bytes::Bytes;
use serde::Serialize;
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Most histories that are kept.
const MOST: usize = 256;
/// Most bytes of all histories that are kept, as JSON; beyond, the one that was not asked for the longest goes.
const MOST_BYTES: usize = 64 * 1024 * 1024;
/// Largest history that is kept, in bytes of JSON; a larger one is put together for each request.
const LARGEST: usize = 16 * 1024 * 1024;
/// How long a history is kept when nobody asks for it.
const LINGER: Duration = Duration::from_secs(60);
/// Requests that wait for one history; a further one waits for room.
const WAITING: usize = 64;
/// Records read at once.
const PAGE: usize = 1_000;
/// How often a request is handed over again when it met a task that was just ending.
const KNOCKS: usize = 4;

/// The histories of a server. Cheap to clone.
#[derive(Clone)]
pub(in crate::server) struct Histories(Arc<Inner>);

struct Inner {
    store: Arc<dyn Store>,
    /// A std mutex: it is held for lookups only.
    kept: Mutex<HashMap<ActorId, Kept>>,
    stop: CancellationToken,
    /// Ends all tasks with the server.
    _guard: DropGuard,
}

struct Kept {
    requests: mpsc::Sender<Request>,
    bytes: Arc<AtomicUsize>,
    used: Instant,
}

impl fmt::Debug for Histories {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Histories").finish_non_exhaustive()
    }
}

/// Which part of a history is asked for; all of it by default.
#[derive(Debug, Clone, Default)]
pub(in crate::server) struct Wanted {
    /// Only so many of the last messages.
    pub(in crate::server) limit: Option<usize>,
    /// Only those before this one.
    pub(in crate::server) before: Option<String>,
}

/// A history as it is sent.
#[derive(Debug, Clone)]
pub(in crate::server) struct Told {
    /// JSON.
    pub(in crate::server) body: Bytes,
    /// From where it can be followed.
    pub(in crate::server) offset: Offset,
}

/// Why there is none.
#[derive(Debug, Clone)]
pub(in crate::server) enum Untold {
    /// There is no such conversation.
    Conversation,
    /// The conversation has no message of this id.
    Message,
    /// It cannot be read.
    Store(StoreError),
    /// The server stops.
    Stopped,
    /// It has no form in JSON.
    Form(String),
}

impl From<StoreError> for Untold {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

struct Request {
    wanted: Wanted,
    reply: oneshot::Sender<Result<Told, Untold>>,
}

impl Histories {
    pub(in crate::server) fn new(store: Arc<dyn Store>) -> Self {
        let stop = CancellationToken::new();
        Self(Arc::new(Inner {
            store,
            kept: Mutex::default(),
            _guard: stop.clone().drop_guard(),
            stop,
        }))
    }

    /// The history of a conversation, or a part of it, as it is now.
    pub(in crate::server) async fn tell(
        &self,
        actor: &ActorId,
        wanted: &Wanted,
    ) -> Result<Told, Untold> {
        for _ in 0..KNOCKS {
            let (reply, answer) = oneshot::channel();
            let request = Request {
                wanted: wanted.clone(),
                reply,
            };
            if self.task(actor).send(request).await.is_err() {
                continue;
            }
            match answer.await {
                Ok(told) => return told,
                // It ended before it came to this request.
                Err(_) => continue,
            }
        }
        Err(Untold::Stopped)
    }

    /// Where requests for a history go; a task is begun where there is none.
    fn task(&self, actor: &ActorId) -> mpsc::Sender<Request> {
        let mut kept = self.0.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if let Some(known) = kept.get_mut(actor)
            && !known.requests.is_closed()
        {
            known.used = now;
            return known.requests.clone();
        }
        kept.retain(|_, one| !one.requests.is_closed());
        make_room(&mut kept);
        let (requests, receiver) = mpsc::channel(WAITING);
        let bytes = Arc::new(AtomicUsize::new(0));
        let task = Task {
            store: self.0.store.clone(),
            actor: actor.clone(),
            bytes: bytes.clone(),
            folded: None,
        };
        tokio::spawn(task.run(receiver, self.0.stop.clone()));
        let one = Kept {
            requests: requests.clone(),
            bytes,
            used: now,
        };
        kept.insert(actor.clone(), one);
        requests
    }
}

/// Lets go of those that were not asked for the longest, until one more fits. A task without senders ends.
fn make_room(kept: &mut HashMap<ActorId, Kept>) {
    loop {
        let sizes = kept.values().map(|one| one.bytes.load(Ordering::Relaxed));
        if kept.len() < MOST && sizes.sum::<usize>() <= MOST_BYTES {
            return;
        }
        let oldest = kept.iter().min_by_key(|(_, one)| one.used);
        let Some(oldest) = oldest.map(|(actor, _)| actor.clone()) else {
            return;
        };
        kept.remove(&oldest);
    }
}

/// The task of one history.
struct Task {
    store: Arc<dyn Store>,
    actor: ActorId,
    bytes: Arc<AtomicUsize>,
    folded: Option<Folded>,
}

/// A history as far as it was read.
struct Folded {
    reader: Reader,
    assembly: Assembly,
    bytes: usize,
    /// All of it as it was sent last.
    sent: Option<Told>,
}

impl Task {
    async fn run(mut self, mut requests: mpsc::Receiver<Request>, stop: CancellationToken) {
        loop {
            let request = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                request = tokio::time::timeout(LINGER, requests.recv()) => request,
            };
            let Ok(Some(request)) = request else {
                // Whoever comes just now finds it closed, and begins another.
                requests.close();
                while let Some(late) = requests.recv().await {
                    drop(late);
                }
                return;
            };
            if request.reply.is_closed() {
                continue;
            }
            let told = self.tell(&request.wanted).await;
            self.folded = self.folded.take().filter(|one| one.bytes <= LARGEST);
            let bytes = self.folded.as_ref().map_or(0, Folded::weight);
            self.bytes.store(bytes, Ordering::Relaxed);
            let _ = request.reply.send(told);
        }
    }

    async fn tell(&mut self, wanted: &Wanted) -> Result<Told, Untold> {
        let Some(identity) = feed::identity(&*self.store, &self.actor).await? else {
            return Err(Untold::Conversation);
        };
        // One that was deleted and begun anew has another identity.
        let same = |folded: &Folded| *folded.reader.identity() == identity;
        let mut folded = match self.folded.take().filter(same) {
            Some(folded) => folded,
            None => Folded::begin(&self.store, &self.actor).await?,
        };
        folded.catch_up().await?;
        let told = folded.tell(&identity, wanted);
        self.folded = Some(folded);
        told
    }
}

/// A history, or a part of it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct View<'a> {
    v: u32,
    conversation_id: &'a str,
    offset: String,
    incarnation: &'a str,
    messages: &'a [UiMessage],
    settlements: Vec<&'a UiOutcome>,
    /// Whether there are messages before these; only of a part.
    #[serde(skip_serializing_if = "Option::is_none")]
    more: Option<bool>,
}

impl Folded {
    async fn begin(store: &Arc<dyn Store>, actor: &ActorId) -> Result<Self, Untold> {
        match Reader::start(store.clone(), actor, Offset::START).await? {
            Ok(reader) => Ok(Self {
                reader,
                assembly: Assembly::default(),
                bytes: 0,
                sent: None,
            }),
            Err(NotThere::Conversation | NotThere::Offset) => Err(Untold::Conversation),
        }
    }

    /// Reads what is new.
    async fn catch_up(&mut self) -> Result<(), Untold> {
        loop {
            let page = self.reader.next(PAGE).await?;
            for chunk in page.entries.into_iter().flat_map(|entry| entry.chunks) {
                let mut count = Count(0);
                // What cannot be counted cannot be sent either, which is told then.
                let _ = serde_json::to_writer(&mut count, &chunk.body);
                self.bytes += count.0;
                self.assembly.apply(chunk.body);
            }
            if page.up_to_date {
                return Ok(());
            }
        }
    }

    /// What it takes in memory, about.
    fn weight(&self) -> usize {
        let sent = self.sent.as_ref().map_or(0, |sent| sent.body.len());
        self.bytes + sent
    }

    fn tell(&mut self, identity: &Identity, wanted: &Wanted) -> Result<Told, Untold> {
        let offset = self.reader.offset();
        let whole = wanted.limit.is_none() && wanted.before.is_none();
        if whole && let Some(sent) = self.sent.as_ref().filter(|sent| sent.offset == offset) {
            return Ok(sent.clone());
        }
        let all = self.assembly.messages();
        let end = match &wanted.before {
            None => all.len(),
            Some(id) => self.assembly.place(id).ok_or(Untold::Message)?,
        };
        let first = end.saturating_sub(wanted.limit.unwrap_or(usize::MAX));
        let messages = all.get(first..end).unwrap_or_default();
        let settlements = if whole {
            self.assembly.settlements().iter().collect()
        } else {
            settled_by(self.assembly.settlements(), messages)
        };
        let view = View {
            v: 1,
            conversation_id: &identity.conversation_id,
            offset: offset.to_string(),
            incarnation: &identity.uid,
            messages,
            settlements,
            more: (!whole).then_some(first > 0),
        };
        let body = serde_json::to_vec(&view).map_err(|error| Untold::Form(error.to_string()))?;
        let told = Told {
            body: body.into(),
            offset,
        };
        if whole {
            self.sent = Some(told.clone());
        }
        Ok(told)
    }
}

/// How the submissions of some messages ended, in order.
fn settled_by<'a>(all: &'a [UiOutcome], messages: &[UiMessage]) -> Vec<&'a UiOutcome> {
    let of: std::collections::HashSet<&str> = messages
        .iter()
        .filter_map(|one| one.submission_id.as_deref())
        .collect();
    let ours = |one: &&UiOutcome| of.contains(one.submission_id.as_str());
    all.iter().filter(ours).collect()
}

/// Counts the bytes that are written to it.
struct Count(usize);

impl io::Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
