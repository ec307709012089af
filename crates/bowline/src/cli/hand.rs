//! Whoever changes what is stored: this process, or the one that has the data and is reached by its
//! socket. A command does not notice which.

mod remote;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bowline_agent::{Agent, actor, approval::Answered, record::Compaction};
use bowline_runtime::submission::{self, Submission};
use bowline_store::{SqliteStore, Store};
use tokio::{
    task::JoinHandle,
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

use self::remote::Hearing;
pub(super) use self::remote::Remote;
use super::{place::Place, signals::Signals, terminal::Terminal, watch::Changes};
use crate::{
    error::Error,
    follow::{Begin, Begun, Following, Happened},
    server::{App, Settings, Socket},
    service::{Reply, Service},
};

/// How long those who came through the socket have to leave.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);
/// How long a process that has ended its own work goes on for those who came through the socket.
const LINGER: Duration = Duration::from_secs(60);
/// How long a server that begins waits for a command that has the data.
const LENT: Duration = Duration::from_secs(600);
/// How long nobody is told that it goes on.
const UNTOLD: Duration = Duration::from_millis(500);
/// How long data is waited for that a process has which does not listen: it begins or ends.
const CHANGE_OF_HANDS: Duration = Duration::from_secs(10);

/// The data, for a command that changes it and runs nothing.
pub(super) enum Data {
    /// For this process alone.
    Own(Arc<SqliteStore>),
    /// Another process has it.
    Remote(Remote),
}

impl Data {
    /// Takes the data, or finds the process that has it. One that begins or ends does not listen, and is
    /// waited for.
    pub(super) async fn open(place: &Place) -> Result<Self, Error> {
        let until = Instant::now() + CHANGE_OF_HANDS;
        let mut changes = None;
        loop {
            let mut error = match place.take() {
                Ok(store) => return Ok(Self::Own(store)),
                Err(error) if error.code == "store_locked" => error,
                Err(error) => return Err(error),
            };
            match Remote::find(place).await {
                Ok(Some(remote)) => return Ok(Self::Remote(remote)),
                Ok(None) => {}
                Err(unreached) if has_ended(&unreached) => error = unreached,
                Err(refused) => return Err(refused),
            }
            match &mut changes {
                // Looked at once more, since it may have happened before it was watched for.
                None => changes = Some(Changes::of([place.data.clone()])?),
                Some(changes) => {
                    if timeout_at(until, changes.next()).await.is_err() {
                        return Err(error);
                    }
                }
            }
        }
    }
}

/// Takes the data for a process that keeps it. A command that has it for its own work is waited for, and so is
/// a process that begins or ends; a server is not.
pub(super) async fn keep(place: &Place, terminal: Terminal) -> Result<Arc<SqliteStore>, Error> {
    let began = Instant::now();
    let (mut waits, mut changes) = (CHANGE_OF_HANDS, None);
    loop {
        let mut error = match place.take() {
            Ok(store) => return Ok(store),
            Err(error) if error.code == "store_locked" => error,
            Err(error) => return Err(error),
        };
        if let Ok(Some(owner)) = Remote::find(place).await {
            let pid = owner.pid();
            if !owner.lends() {
                error.hint = format!(
                    "it is a server, process {pid}: the other commands work beside it; `kill {pid}` stops it"
                );
                return Err(error);
            }
            error.hint = format!("it is a command, process {pid}, that has not ended");
            if waits < LENT {
                waits = LENT;
                terminal.say(format_args!(
                    "Process {pid} has this data, and lets go of it when its command ends: waiting, for ten minutes at most. Ctrl-C gives up."
                ));
            }
        }
        match &mut changes {
            // Looked at once more, since it may have happened before it was watched for.
            None => changes = Some(Changes::of([place.data.clone()])?),
            Some(changes) => {
                if timeout_at(began + waits, changes.next()).await.is_err() {
                    return Err(error);
                }
            }
        }
    }
}

/// Whether the process that had the data did not answer because it has ended or is about to.
fn has_ended(error: &Error) -> bool {
    matches!(error.code.as_str(), "local_failed" | "runtime_unavailable")
}

/// Whoever changes what is stored.
pub(super) enum Hand {
    /// This process.
    Own(Own),
    /// The process that has the data.
    Remote(Remote),
}

/// What this process runs itself.
pub(super) struct Own {
    service: Service,
    /// Other commands come in here meanwhile.
    socket: Mutex<Option<(CancellationToken, JoinHandle<()>)>>,
}

/// How a command runs what it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Running {
    /// One conversation.
    Alone,
    /// All that is due as well.
    All,
}

/// Follows a submission.
pub(super) enum Follow {
    Own(Box<Following>),
    Remote(Hearing),
}

impl Hand {
    /// Takes the data, with this agent where one is needed; or finds the process that has it.
    pub(super) async fn open(
        place: &Place,
        agent: Option<Agent>,
        running: Running,
    ) -> Result<Self, Error> {
        let bowline = match Data::open(place).await? {
            Data::Own(store) => place.on(store),
            Data::Remote(remote) => return Ok(Self::Remote(remote)),
        };
        let bowline = match agent {
            Some(agent) => bowline.agent(agent),
            None => bowline,
        };
        let service = match running {
            Running::Alone => bowline.start_alone(),
            Running::All => bowline.start(),
        };
        let socket = match Socket::bind(&place.data) {
            Ok(socket) => {
                let settings = Settings {
                    drain: LEAVE_WITHIN,
                    ..Settings::default()
                };
                let stop = CancellationToken::new();
                let project = place.project.clone();
                // Read when somebody asks for one, so that a run does not wait for all of them.
                let lookup = move |name: &str| project.agent(name, None);
                let app = App::new(service.clone(), settings).with_lookup(lookup);
                let serving = socket.serve(&app, stop.clone());
                Some((stop, serving))
            }
            Err(error) => {
                tracing::info!(%error, "no local socket: other commands cannot come in meanwhile");
                None
            }
        };
        Ok(Self::Own(Own {
            service,
            socket: Mutex::new(socket),
        }))
    }

    /// The store, for reading.
    pub(super) fn store(&self) -> &dyn Store {
        match self {
            Self::Own(own) => &**own.service.store(),
            Self::Remote(remote) => remote.store(),
        }
    }

    /// The submissions that have not settled, in order.
    pub(super) async fn open_submissions(
        &self,
        agent: &str,
        id: &str,
    ) -> Result<Vec<Submission>, Error> {
        Ok(submission::open(self.store(), &actor(agent, id)).await?)
    }

    /// Takes a submission up, and follows it.
    pub(super) async fn begin(
        &self,
        agent: &str,
        id: &str,
        begin: Begin,
    ) -> Result<(Begun, Follow), Error> {
        match self {
            Self::Own(own) => {
                let begun = Following::begin(&own.service, agent, id, begin).await;
                begun.map(|(begun, following)| (begun, Follow::Own(Box::new(following))))
            }
            Self::Remote(remote) => {
                let begun = remote.begin(agent, id, begin).await;
                begun.map(|(begun, hearing)| (begun, Follow::Remote(hearing)))
            }
        }
    }

    /// Waits for the answer to a submission.
    pub(super) async fn reply(
        &self,
        agent: &str,
        id: &str,
        submission: &str,
    ) -> Result<Reply, Error> {
        match self {
            Self::Own(own) => own.service.reply(agent, id, submission).await,
            Self::Remote(remote) => remote.reply(agent, id, submission).await,
        }
    }

    /// Asks to abort one submission.
    pub(super) async fn abort(
        &self,
        agent: &str,
        id: &str,
        submission: &str,
    ) -> Result<bool, Error> {
        match self {
            Self::Own(own) => own.service.abort(agent, id, Some(submission)).await,
            Self::Remote(remote) => remote.abort(agent, id, submission).await,
        }
    }

    /// Answers an approval or a question; the run goes on.
    pub(super) async fn answer(&self, answered: Answered) -> Result<(), Error> {
        match self {
            Self::Own(own) => own.service.answer(answered).await.map(|_| ()),
            Self::Remote(remote) => remote.answer(&answered).await,
        }
    }

    /// Compacts a conversation now.
    pub(super) async fn compact(
        &self,
        agent: &str,
        id: &str,
        instructions: Option<String>,
    ) -> Result<Option<Compaction>, Error> {
        match self {
            Self::Own(own) => own.service.compact(agent, id, instructions).await,
            Self::Remote(remote) => remote.compact(agent, id, instructions).await,
        }
    }

    /// Deletes a conversation whole.
    pub(super) async fn delete(&self, agent: &str, id: &str) -> Result<bool, Error> {
        match self {
            Self::Own(own) => own.service.delete(agent, id).await,
            Self::Remote(remote) => remote.delete(agent, id).await,
        }
    }

    /// Whether what was asked of the process that has the data can be asked again, of this one or of the next
    /// that has it: it has ended, and does so whenever its own work is done. A server that ends is started
    /// again by whoever keeps it, and must find the data free.
    pub(super) fn passes_on(&self, error: &Error) -> bool {
        matches!(self, Self::Remote(remote) if remote.lends() && has_ended(error))
    }

    /// Stops in good order when what others run through this process has ended, in a minute at most, or
    /// when somebody asks to. They go on by themselves then.
    pub(super) async fn leave(&self, bound: Duration, terminal: Terminal, signals: &mut Signals) {
        if let Self::Own(own) = self {
            let runtime = own.service.runtime();
            if !runtime.rest(UNTOLD).await {
                terminal.say(
                    "other commands run in this process: it ends when they do, in a minute at most; ctrl-C ends it now, and they go on",
                );
                tokio::select! {
                    biased;
                    _ = signals.next() => {}
                    _ = runtime.rest(LINGER) => {}
                }
            }
        }
        self.stop(bound).await;
    }

    /// Stops what this process runs, in good order; another process goes on.
    pub(super) async fn stop(&self, bound: Duration) {
        let Self::Own(own) = self else {
            return;
        };
        let socket = own
            .socket
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some((stop, serving)) = socket {
            stop.cancel();
            let _ = serving.await;
        }
        own.service.stop(bound).await;
    }
}

impl Follow {
    /// The next thing that happens, as [`Following::next`] tells it. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<Happened, Error> {
        match self {
            Self::Own(following) => following.next().await,
            Self::Remote(hearing) => hearing.next().await,
        }
    }
}
