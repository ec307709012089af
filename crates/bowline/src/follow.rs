//! One submission from its beginning to its end, for whoever shows it to a person: in this process, or
//! through the socket in the data directory.

use std::{collections::HashSet, future::Future, pin::Pin, sync::Arc, time::Duration};

use bowline_agent::{
    Chunk, ChunkBody, Outgoing, actor,
    approval::{Answered, Approval},
};
use bowline_runtime::submission::State;
use bowline_store::{Seq, Tail};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::broadcast::{
        Receiver,
        error::{RecvError, TryRecvError},
    },
    time::Instant,
};

use crate::{
    error::Error,
    service::{Reply, Service},
};

/// How a submission is taken up.
#[derive(Clone)]
pub(crate) enum Begin {
    /// It is sent now.
    Send(Outgoing),
    /// It is there, and goes on.
    GoOn(String),
    /// It waits for this.
    Answer(Answered),
}

/// What was taken up.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Begun {
    /// The submission.
    pub(crate) submission_id: String,
    /// True when its key was sent before, and nothing was sent now.
    pub(crate) deduplicated: bool,
}

/// What happened to a submission.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Happened {
    /// Something in its conversation.
    Chunk(Arc<Chunk>),
    /// So many chunks that were not seen, because they came too fast.
    Missed(u64),
    /// It waits for a person.
    Parked(Vec<Approval>),
    /// It settled. The last one.
    Settled(Reply),
}

type Settling = Pin<Box<dyn Future<Output = Result<Reply, Error>> + Send>>;

/// Follows one submission.
pub(crate) struct Following {
    service: Service,
    agent: String,
    id: String,
    submission: String,
    chunks: Receiver<Arc<Chunk>>,
    open: bool,
    tail: Tail,
    seen: Seq,
    /// `None` once it has settled.
    settling: Option<Settling>,
    /// What is told when the chunks before it have been told.
    next: Option<Happened>,
    /// Approvals whose chunk has come, or will not come because they were asked for before.
    asked: HashSet<String>,
    /// Until when the chunks of a commit that parked it are waited for.
    late: Option<Instant>,
    /// Whether such a chunk has come, so that it is to be looked at again.
    again: bool,
}

/// How long the chunks of a commit may come after it.
const LATE: Duration = Duration::from_secs(1);

impl Following {
    /// Takes a submission up and follows it.
    ///
    /// # Errors
    ///
    /// When it is refused; nothing is kept then.
    pub(crate) async fn begin(
        service: &Service,
        agent: &str,
        id: &str,
        begin: Begin,
    ) -> Result<(Begun, Self), Error> {
        // Before it begins, so that nothing is missed.
        let chunks = service.observe(agent, id);
        let asked = service.approvals(agent, id).await?;
        let begun = |submission_id, deduplicated| Begun {
            submission_id,
            deduplicated,
        };
        let begun = match begin {
            Begin::Send(outgoing) => {
                let receipt = service.send(agent, id, outgoing).await?;
                begun(receipt.submission_id, receipt.deduplicated)
            }
            Begin::GoOn(submission) => {
                service.wake(agent, id).await?;
                begun(submission, false)
            }
            Begin::Answer(answered) => {
                let (_, submission) = service.answer(answered).await?;
                service.wake(agent, id).await?;
                begun(submission, false)
            }
        };
        let submission = begun.submission_id.clone();
        let settling: Settling = {
            let (service, agent, id) = (service.clone(), agent.to_owned(), id.to_owned());
            let submission = submission.clone();
            Box::pin(async move { service.reply(&agent, &id, &submission).await })
        };
        let following = Self {
            tail: service.store().tail(&actor(agent, id)),
            service: service.clone(),
            agent: agent.to_owned(),
            id: id.to_owned(),
            submission,
            chunks,
            open: true,
            seen: 0,
            settling: Some(settling),
            next: None,
            asked: asked.into_iter().map(|one| one.approval_id).collect(),
            late: None,
            again: false,
        };
        Ok((begun, following))
    }

    /// The next thing that happens. Cancel-safe. After [`Happened::Parked`] it may be called again, and
    /// goes on when the answer is given; after [`Happened::Settled`] it never returns.
    ///
    /// # Errors
    ///
    /// When the process is stopping, or the store fails.
    pub(crate) async fn next(&mut self) -> Result<Happened, Error> {
        loop {
            if self.next.is_some() {
                match self.chunks.try_recv() {
                    Ok(chunk) => return Ok(self.chunk(chunk)),
                    Err(TryRecvError::Lagged(missed)) => return Ok(Happened::Missed(missed)),
                    Err(TryRecvError::Empty | TryRecvError::Closed) => {}
                }
                if let Some(next) = self.next.take() {
                    return Ok(next);
                }
            }
            let due = if self.again {
                Some(Instant::now())
            } else {
                self.late
            };
            tokio::select! {
                biased;
                chunk = self.chunks.recv(), if self.open => match chunk {
                    Ok(chunk) => return Ok(self.chunk(chunk)),
                    Err(RecvError::Lagged(missed)) => return Ok(Happened::Missed(missed)),
                    Err(RecvError::Closed) => self.open = false,
                },
                reply = settled(&mut self.settling) => {
                    self.settling = None;
                    self.next = Some(Happened::Settled(reply?));
                }
                // Whatever is committed may have parked it: also a part of what it waits for that was
                // asked for long ago.
                seq = next_look(&mut self.tail, self.seen, due), if self.settling.is_some() => {
                    self.look(seq).await?;
                }
            }
        }
    }

    /// Whether it is worked on, by itself or with the one that it joined.
    ///
    /// # Errors
    ///
    /// When the store fails.
    pub(crate) async fn is_running(&mut self) -> Result<bool, Error> {
        let open = self.service.open_submissions(&self.agent, &self.id).await?;
        let ours = open.iter().find(|one| one.id == self.submission);
        Ok(ours.is_some_and(|one| match one.state {
            State::Running | State::Joined { .. } => true,
            State::Queued | State::Parked { .. } => false,
        }))
    }

    /// Looks whether it is parked.
    async fn look(&mut self, seq: Option<Seq>) -> Result<(), Error> {
        let whose = (&*self.agent, &*self.id);
        let waiting = waiting(&self.service, whose, &self.submission).await?;
        self.seen = seq.unwrap_or(self.seen);
        self.again = false;
        let told = |one: &Approval| self.asked.contains(&one.approval_id);
        let over = self.late.is_some_and(|late| Instant::now() >= late);
        if waiting.is_empty() {
            self.late = None;
        } else if over || !self.open || waiting.iter().all(told) {
            self.late = None;
            self.next = Some(Happened::Parked(waiting));
        } else {
            // It is durable before it is told, and its chunks come before.
            self.late.get_or_insert_with(|| Instant::now() + LATE);
        }
        Ok(())
    }

    fn chunk(&mut self, chunk: Arc<Chunk>) -> Happened {
        if let ChunkBody::ApprovalRequested { approval } = &chunk.body {
            self.asked.insert(approval.approval_id.clone());
            self.again = self.late.is_some();
        }
        Happened::Chunk(chunk)
    }
}

/// The next commit; `None` when the time is over to look again.
async fn next_look(tail: &mut Tail, seen: Seq, due: Option<Instant>) -> Option<Seq> {
    let commit = async {
        match tail.beyond(seen).await {
            Some(seq) => seq,
            None => std::future::pending().await,
        }
    };
    match due {
        Some(due) => tokio::time::timeout_at(due, commit).await.ok(),
        None => Some(commit.await),
    }
}

/// What a submission waits for; nothing while it is not parked.
async fn waiting(
    service: &Service,
    (agent, id): (&str, &str),
    submission: &str,
) -> Result<Vec<Approval>, Error> {
    let open = service.open_submissions(agent, id).await?;
    let parked = open
        .iter()
        .any(|one| one.id == submission && matches!(one.state, State::Parked { .. }));
    if !parked {
        return Ok(Vec::new());
    }
    let approvals = service.approvals(agent, id).await?;
    let open = |one: &Approval| one.answer.is_none() && one.submission_id == submission;
    Ok(approvals.into_iter().filter(open).collect())
}

/// Waits for the settlement; for ever once it was told.
async fn settled(settling: &mut Option<Settling>) -> Result<Reply, Error> {
    match settling {
        Some(settling) => settling.as_mut().await,
        None => std::future::pending().await,
    }
}
