//! Why an agent's instance is not moving: what it waits for, since when, and what would move it.

use std::fmt;

use bowline_agent::{
    Conversation,
    approval::{self, Approval},
    conversation::EntryBody,
};
use bowline_runtime::{
    alarm,
    submission::{self, State, Submission},
};
use bowline_store::{ActorId, Store, StoreError, Timestamp};
use serde::Serialize;

/// One thing that an instance waits for.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Waiting {
    /// What for.
    #[serde(flatten)]
    pub cause: Cause,
    /// The submission that waits, where it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub submission_id: Option<String>,
    /// Since when, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// When it goes on by itself, or ends by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// What would move it, in one line.
    pub moves: String,
}

/// What an instance waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "type")]
pub enum Cause {
    /// A person's consent to a call.
    #[serde(rename_all = "camelCase")]
    Approval {
        /// `appr_…`.
        approval_id: String,
        /// The tool.
        tool_name: String,
    },
    /// A person's answer.
    #[serde(rename_all = "camelCase")]
    Question {
        /// `appr_…`.
        approval_id: String,
    },
    /// Somebody outside, without a request that is known.
    Parked,
    /// The submission in front of it.
    Queued {
        /// Which one.
        behind: String,
    },
    /// The submission whose answer answers this one too.
    Joined {
        /// Which one.
        host: String,
    },
    /// The next try of a model call that failed.
    Retry {
        /// The stable name of the error.
        error: String,
        /// What went wrong, in one line.
        message: String,
    },
    /// The work of another process.
    Running,
    /// Somebody to take up what a process left behind when it ended.
    Interrupted,
    /// Its end: somebody asked to abort it.
    Aborting,
    /// A time.
    Timer {
        /// The schedule.
        schedule: String,
    },
    /// Nothing: everything is settled.
    Finished,
}

/// What an instance waits for, in order: its open submissions, then its schedules. One entry of the
/// kind [`Cause::Finished`] when there is nothing.
///
/// `owned` says whether some process has the data directory, `places` which options lead commands to it, each
/// with a blank before it.
///
/// # Errors
///
/// When the store cannot be read.
pub async fn of(
    store: &dyn Store,
    actor: &ActorId,
    conversation: &Conversation,
    owned: bool,
    places: &str,
) -> Result<Vec<Waiting>, StoreError> {
    let open = submission::open(store, actor).await?;
    let approvals: Vec<_> = approval::of(store, actor)
        .await?
        .into_iter()
        .filter(|one| one.answer.is_none())
        .collect();
    let view = View {
        actor,
        conversation,
        owned,
        places,
    };
    let mut waiting = Vec::new();
    let mut front: Option<&Submission> = None;
    for one in &open {
        waiting.extend(view.submission(one, front, &approvals));
        if !matches!(one.state, State::Joined { .. }) {
            front = Some(one);
        }
    }
    for schedule in alarm::list(store, actor).await? {
        waiting.push(Waiting {
            cause: Cause::Timer {
                schedule: schedule.id,
            },
            submission_id: None,
            since: Some(schedule.created_at),
            until: Some(schedule.next),
            moves: if owned {
                "it fires by itself at that time".to_owned()
            } else {
                "it fires at that time while a process serves this data".to_owned()
            },
        });
    }
    if waiting.is_empty() {
        waiting.push(Waiting {
            cause: Cause::Finished,
            submission_id: None,
            since: conversation.settlements.last().map(|last| last.settled_at),
            until: None,
            moves: format!("a message: {} -m TEXT", view.run()),
        });
    }
    Ok(waiting)
}

struct View<'a> {
    actor: &'a ActorId,
    conversation: &'a Conversation,
    owned: bool,
    places: &'a str,
}

impl View<'_> {
    fn run(&self) -> String {
        format!(
            "bowline run {} --id {}{}",
            self.actor.name(),
            quoted(self.actor.key()),
            self.places
        )
    }

    fn submission(
        &self,
        one: &Submission,
        front: Option<&Submission>,
        approvals: &[Approval],
    ) -> Vec<Waiting> {
        let waiting =
            |cause: Cause, since: Timestamp, until: Option<Timestamp>, moves: String| Waiting {
                cause,
                submission_id: Some(one.id.clone()),
                since: Some(since),
                until,
                moves,
            };
        if let Some(asked) = one.abort_requested_at {
            return vec![waiting(Cause::Aborting, asked, None, self.mover())];
        }
        match (&one.state, front) {
            (State::Joined { host }, _) => {
                let cause = Cause::Joined { host: host.clone() };
                vec![waiting(
                    cause,
                    one.accepted_at,
                    None,
                    format!("the answer to {host}"),
                )]
            }
            (State::Parked { since, until }, _) => {
                let ours: Vec<_> = approvals
                    .iter()
                    .filter(|approval| approval.submission_id == one.id)
                    .map(|approval| self.asked(approval))
                    .collect();
                if ours.is_empty() {
                    let moves = "it goes on by itself at that time".to_owned();
                    return vec![waiting(Cause::Parked, *since, Some(*until), moves)];
                }
                ours
            }
            (State::Queued | State::Running, Some(front)) => {
                let cause = Cause::Queued {
                    behind: front.id.clone(),
                };
                let moves = format!(
                    "the end of {0}, or: bowline abort {1} {2} {0}{3}",
                    front.id,
                    self.actor.name(),
                    quoted(self.actor.key()),
                    self.places
                );
                vec![waiting(cause, one.accepted_at, None, moves)]
            }
            (State::Queued | State::Running, None) => vec![self.first(one)],
        }
    }

    /// The submission whose turn it is.
    fn first(&self, one: &Submission) -> Waiting {
        let last = self.conversation.entries.last();
        let since = last
            .filter(|entry| entry.submission.as_deref() == Some(&one.id))
            .map_or(one.accepted_at, |entry| entry.time);
        let mut cause = if self.owned {
            Cause::Running
        } else {
            Cause::Interrupted
        };
        let mut until = one.deadline;
        if self.owned
            && let Some(EntryBody::Assistant {
                error: Some(error), ..
            }) = last.map(|entry| &entry.body)
        {
            until = error.retry_at;
            cause = Cause::Retry {
                error: error.code.clone(),
                message: error.message.clone(),
            };
        }
        Waiting {
            cause,
            submission_id: Some(one.id.clone()),
            since: Some(since),
            until,
            moves: self.mover(),
        }
    }

    /// What goes on with the submission whose turn it is.
    fn mover(&self) -> String {
        let (agent, id) = (self.actor.name(), quoted(self.actor.key()));
        if self.owned {
            let places = self.places;
            format!(
                "the process that has the data; follow it with: bowline tail {agent} {id}{places}"
            )
        } else {
            format!("any process that opens it, for example: {}", self.run())
        }
    }

    /// A call or a question that waits for a person.
    fn asked(&self, approval: &Approval) -> Waiting {
        let places = self.places;
        let id = &approval.approval_id;
        let (cause, moves) = match &approval.question {
            Some(_) => (
                Cause::Question {
                    approval_id: id.clone(),
                },
                format!("bowline answer {id} ANSWER{places}, or bowline reject {id}{places}"),
            ),
            None => (
                Cause::Approval {
                    approval_id: id.clone(),
                    tool_name: approval.tool_name.clone(),
                },
                format!("bowline approve {id}{places}, or bowline reject {id}{places}"),
            ),
        };
        Waiting {
            cause,
            submission_id: Some(approval.submission_id.clone()),
            since: Some(approval.requested_at),
            until: Some(approval.expires_at),
            moves,
        }
    }
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(id) = &self.submission_id {
            write!(f, "{id} ")?;
        }
        match &self.cause {
            Cause::Approval { tool_name, .. } => write!(f, "waits for consent to {tool_name}")?,
            Cause::Question { .. } => f.write_str("waits for an answer")?,
            Cause::Parked => f.write_str("is parked")?,
            Cause::Queued { behind } => write!(f, "waits behind {behind}")?,
            Cause::Joined { host } => write!(f, "joined {host} and settles with it")?,
            Cause::Retry { error, message } => {
                write!(f, "tries a model call again ({error}: {message})")?
            }
            Cause::Running => f.write_str("runs in another process")?,
            Cause::Interrupted => f.write_str("was interrupted, and no process goes on with it")?,
            Cause::Aborting => f.write_str("is about to be aborted")?,
            Cause::Timer { schedule } => write!(f, "schedule {schedule}")?,
            Cause::Finished => f.write_str("finished: nothing is open")?,
        }
        if let Some(since) = self.since {
            write!(f, ", since {since}")?;
        }
        if let Some(until) = self.until {
            write!(f, ", until {until}")?;
        }
        write!(f, "; what moves it: {}", self.moves)
    }
}
