//! Following one submission to its end.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bowline_agent::{Chunk, ChunkBody, approval::Approval};
use bowline_runtime::submission::{State, Submission};
use tokio::sync::broadcast::{Receiver, error::RecvError};

use super::Ready;
use crate::{
    cli::{
        screen::Screen,
        signals::{Signals, Stop},
    },
    error::Error,
    service::{Reply, Service},
};

/// How following ended.
pub(super) enum Ended {
    /// The submission settled.
    Settled(Reply),
    /// It waits for a person.
    Parked(Vec<Approval>),
    /// Somebody asked to stop; the submission goes on.
    Stopped(Stop),
}

/// One submission that is followed.
pub(super) struct Turn {
    service: Service,
    agent: String,
    id: String,
    submission: String,
    chunks: Receiver<Arc<Chunk>>,
    began: Instant,
}

impl Turn {
    /// `chunks` must have been there before the submission was sent.
    pub(super) fn new(ready: &Ready, submission: String, chunks: Receiver<Arc<Chunk>>) -> Self {
        let (service, agent, id) = (ready.service.clone(), ready.agent.clone(), ready.id.clone());
        Self {
            service,
            agent,
            id,
            submission,
            chunks,
            began: Instant::now(),
        }
    }

    /// The submission.
    pub(super) fn submission(&self) -> &str {
        &self.submission
    }

    /// How long it has been followed.
    pub(super) fn took(&self) -> Duration {
        self.began.elapsed()
    }

    /// Shows what happens until the submission settles or somebody asks to stop. May be called again
    /// after that.
    pub(super) async fn follow(
        &mut self,
        screen: &mut Screen,
        signals: &mut Signals,
    ) -> Result<Ended, Error> {
        let service = self.service.clone();
        let (agent, id, submission) =
            (self.agent.clone(), self.id.clone(), self.submission.clone());
        let reply = service.reply(&agent, &id, &submission);
        tokio::pin!(reply);
        let mut open = true;
        // Whatever is committed may have parked it: also a part of what it waits for that was asked
        // for long ago.
        let mut tail = self
            .service
            .store()
            .tail(&bowline_agent::actor(&agent, &id));
        let mut seen = 0;
        loop {
            tokio::select! {
                biased;
                stop = signals.next() => return Ok(Ended::Stopped(stop)),
                chunk = self.chunks.recv(), if open => match chunk {
                    Ok(chunk) => self.show(&chunk, screen)?,
                    Err(RecvError::Lagged(missed)) => screen.missed(missed),
                    Err(RecvError::Closed) => open = false,
                },
                reply = &mut reply => {
                    self.drain(screen)?;
                    return Ok(Ended::Settled(reply?));
                }
                Some(seq) = tail.beyond(seen) => {
                    seen = seq;
                    let waiting = self.waiting().await?;
                    if !waiting.is_empty() {
                        self.drain(screen)?;
                        return Ok(Ended::Parked(waiting));
                    }
                }
            }
        }
    }

    /// Shows what has happened and was not shown.
    fn drain(&mut self, screen: &mut Screen) -> Result<(), Error> {
        while let Ok(chunk) = self.chunks.try_recv() {
            self.show(&chunk, screen)?;
        }
        Ok(())
    }

    /// Requests for consent are shown by whoever asks for the answer, whether they are new or not.
    fn show(&self, chunk: &Chunk, screen: &mut Screen) -> Result<(), Error> {
        match &chunk.body {
            ChunkBody::ApprovalRequested { .. } => Ok(()),
            _ => screen.chunk(chunk),
        }
    }

    /// What this submission waits for; nothing while it is not parked.
    async fn waiting(&self) -> Result<Vec<Approval>, Error> {
        let open = self.service.open_submissions(&self.agent, &self.id).await?;
        let ours = |one: &&Submission| {
            one.id == self.submission && matches!(one.state, State::Parked { .. })
        };
        if open.iter().find(ours).is_none() {
            return Ok(Vec::new());
        }
        let approvals = self.service.approvals(&self.agent, &self.id).await?;
        let open = |one: &Approval| one.answer.is_none() && one.submission_id == self.submission;
        Ok(approvals.into_iter().filter(open).collect())
    }
}
