//! Following one submission to its end.

use std::time::{Duration, Instant};

use bowline_agent::{
    Chunk, ChunkBody,
    approval::{Answer, Answered, Approval},
};

use super::Ready;
use crate::{
    cli::{
        hand::Follow,
        screen::Screen,
        signals::{Signals, Stop},
    },
    error::Error,
    follow::{Begin, Begun, Happened},
    service::Reply,
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
    submission: String,
    follow: Follow,
    began: Instant,
}

impl Turn {
    /// Takes a submission up.
    pub(super) async fn begin(
        ready: &mut Ready,
        begin: Begin,
        screen: &mut Screen,
    ) -> Result<Self, Error> {
        let (begun, follow) = take_up(ready, begin).await?;
        if begun.deduplicated {
            screen.line("this key was sent before: nothing is sent again");
        }
        Ok(Self {
            submission: begun.submission_id,
            follow,
            began: Instant::now(),
        })
    }

    /// The submission.
    pub(super) fn submission(&self) -> &str {
        &self.submission
    }

    /// How long it has been followed.
    pub(super) fn took(&self) -> Duration {
        self.began.elapsed()
    }

    /// Hands a person's answer over; the submission goes on.
    pub(super) async fn decide(
        &mut self,
        ready: &mut Ready,
        approval: &Approval,
        answer: Answer,
    ) -> Result<(), Error> {
        let answered = Answered {
            approval_id: approval.approval_id.clone(),
            answer,
        };
        if let Err(error) = ready.hand.answer(answered.clone()).await {
            ready.find_again(error).await?;
            (_, self.follow) = take_up(ready, Begin::Answer(answered)).await?;
        }
        Ok(())
    }

    /// Asks to abort the submission.
    pub(super) async fn abort(&mut self, ready: &mut Ready) -> Result<(), Error> {
        let (agent, id) = (ready.agent.clone(), ready.id.clone());
        if let Err(error) = ready.hand.abort(&agent, &id, &self.submission).await {
            ready.find_again(error).await?;
            let begin = Begin::GoOn(self.submission.clone());
            (_, self.follow) = take_up(ready, begin).await?;
            ready.hand.abort(&agent, &id, &self.submission).await?;
        }
        Ok(())
    }

    /// Shows what happens until the submission settles or somebody asks to stop. May be called again
    /// after that.
    pub(super) async fn follow(
        &mut self,
        ready: &mut Ready,
        screen: &mut Screen,
        signals: &mut Signals,
    ) -> Result<Ended, Error> {
        loop {
            let happened = tokio::select! {
                biased;
                stop = signals.next() => return Ok(Ended::Stopped(stop)),
                happened = self.follow.next() => happened,
            };
            match happened {
                Ok(Happened::Chunk(chunk)) => show(&chunk, screen)?,
                Ok(Happened::Missed(missed)) => screen.missed(missed),
                Ok(Happened::Parked(waiting)) => return Ok(Ended::Parked(waiting)),
                Ok(Happened::Settled(reply)) => return Ok(Ended::Settled(reply)),
                Err(error) => {
                    ready.find_again(error).await?;
                    let begin = Begin::GoOn(self.submission.clone());
                    (_, self.follow) = take_up(ready, begin).await?;
                }
            }
        }
    }
}

/// Takes a submission up with whoever has the data. What was refused because that one ends is asked of the
/// next; what may have been taken is not sent twice.
async fn take_up(ready: &mut Ready, begin: Begin) -> Result<(Begun, Follow), Error> {
    loop {
        let begun = ready
            .hand
            .begin(&ready.agent, &ready.id, begin.clone())
            .await;
        match begun {
            Ok(begun) => return Ok(begun),
            Err(error) if error.code == "local_failed" && matches!(begin, Begin::Send(_)) => {
                return Err(error);
            }
            Err(error) => ready.find_again(error).await?,
        }
    }
}

/// Requests for consent are shown by whoever asks for the answer, whether they are new or not.
fn show(chunk: &Chunk, screen: &mut Screen) -> Result<(), Error> {
    match &chunk.body {
        ChunkBody::ApprovalRequested { .. } => Ok(()),
        _ => screen.chunk(chunk),
    }
}
