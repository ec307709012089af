//! Following one submission to its end.

use std::time::{Duration, Instant};

use bowline_agent::{Chunk, ChunkBody, approval::Approval};

use super::Ready;
use crate::{
    cli::{
        hand::Follow,
        screen::Screen,
        signals::{Signals, Stop},
    },
    error::Error,
    follow::{Begin, Happened},
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
        ready: &Ready,
        begin: Begin,
        screen: &mut Screen,
    ) -> Result<Self, Error> {
        let (begun, follow) = ready.hand.begin(&ready.agent, &ready.id, begin).await?;
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

    /// Shows what happens until the submission settles or somebody asks to stop. May be called again
    /// after that.
    pub(super) async fn follow(
        &mut self,
        screen: &mut Screen,
        signals: &mut Signals,
    ) -> Result<Ended, Error> {
        loop {
            tokio::select! {
                biased;
                stop = signals.next() => return Ok(Ended::Stopped(stop)),
                happened = self.follow.next() => match happened? {
                    Happened::Chunk(chunk) => show(&chunk, screen)?,
                    Happened::Missed(missed) => screen.missed(missed),
                    Happened::Parked(waiting) => return Ok(Ended::Parked(waiting)),
                    Happened::Settled(reply) => return Ok(Ended::Settled(reply)),
                },
            }
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
