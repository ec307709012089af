//! `bowline run`.

mod chat;
mod follow;
mod message;
mod parked;
mod tape;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use bowline_agent::{
    Agent, Input, Outgoing, actor,
    approval::{Answer, Answered, Approval},
    code::runs::{self, CodeRun, RunState},
};
use bowline_model::format_usd;
use bowline_runtime::{Outcome, Sources};
use clap::Args;
use serde::Serialize;

use self::{
    follow::{Ended, Turn},
    parked::Said,
    tape::Taped,
};
pub(super) use self::{
    message::{again, places},
    parked::asked,
};
use super::{
    Global,
    fault::Fault,
    hand::{Hand, Running},
    place::Place,
    screen::{Screen, Shown},
    signals::{Signals, Stop},
    terminal::{Terminal, count, duration, grouped, one_line},
};
use crate::{
    error::Error,
    follow::Begin,
    service::{Reply, check_instance},
};

/// How long a run that is stopped may take to stop in good order.
const DRAIN: Duration = Duration::from_secs(5);
/// How often a run is taken up again because the process that had the data ended.
const MAX_CHANGES: usize = 100;

/// Send an agent a message, or talk with it.
///
/// Sends one message and follows the answer. Without -m, on a terminal, it is a conversation: ctrl-C
/// aborts the answer, ctrl-D leaves.
///
/// Every step is durable. Ctrl-C in a run with -m, a crash, a power cut: the same line with the same
/// --id goes on where it was, and does nothing twice. With --key the message is sent once, however
/// often the line is repeated; when it is answered already, the answer is printed again.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    bowline run hello\n      \
        talk with the agent `hello`\n  \
    bowline run triage -m @bug-report.md\n      \
        send it a file as the message\n  \
    git diff | bowline run review -m - --id pr-12 --key pr-12-1 > review.md\n      \
        send it standard input; run again, it goes on or prints the same answer\n  \
    bowline run triage -m \"run the tests\" --json | jq -r 'select(.type == \"run-finished\").outcome'\n      \
        one JSON object a line, for programs")]
pub(super) struct Run {
    /// The agent: a folder below `agents/`
    agent: String,
    /// The message: TEXT, @FILE, or - for standard input
    #[arg(short, long, value_name = "TEXT|@FILE|-", allow_hyphen_values = true)]
    message: Option<String>,
    /// The conversation, any text without `/` [default: a new one]
    #[arg(long)]
    id: Option<String>,
    /// Send the message at most once under this key
    #[arg(long, requires = "id", requires = "message")]
    key: Option<String>,
    /// Add a file to the message; may be repeated
    #[arg(long, value_name = "FILE", requires = "message")]
    attach: Vec<PathBuf>,
    /// Use this model instead of the one that agent.md names
    #[arg(long, value_name = "PROVIDER/MODEL")]
    model: Option<String>,
    #[command(flatten)]
    taped: Taped,
}

/// A run that can begin: nothing was written so far.
struct Ready {
    hand: Hand,
    /// How often another one has had the data meanwhile.
    changes: usize,
    place: Place,
    definition: Agent,
    agent: String,
    id: String,
    /// True when the conversation was not named.
    fresh: bool,
    terminal: Terminal,
    /// The line that goes on with this conversation.
    again: String,
    /// The options that lead to the same project and data.
    places: String,
}

/// The last line of `--json`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Finished<'a> {
    r#type: &'static str,
    agent: &'a str,
    id: &'a str,
    submission_id: &'a str,
    outcome: &'static str,
    text: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a bowline_runtime::Failure>,
    usage: bowline_model::Usage,
    cost_usd: String,
}

pub(super) async fn run(
    args: &Run,
    global: &Global,
    terminal: Terminal,
) -> Result<ExitCode, Error> {
    let mut place = Place::find(global)?;
    place.project.definition(&args.agent)?;
    let tape = args.taped.tape(&place.project)?;
    place.project.tape.clone_from(&tape);
    let outgoing = match &args.message {
        Some(message) => Some(message::read(message, &args.attach, args.key.as_deref())?),
        None if terminal.input && terminal.err.terminal && !terminal.json => None,
        None => return Err(Fault::NoMessage.into()),
    };
    let sources = Sources::system();
    let fresh = args.id.is_none();
    let id = args.id.clone().unwrap_or_else(|| new_id(&sources));
    check_instance(&id)?;
    let agent = place.ready(&args.agent, args.model.as_deref())?;
    let signals = Signals::new()?;
    let hand = Hand::open(&place, Some(agent.clone()), Running::Alone).await?;
    let mine = args.model.as_ref().map(|_| "--model");
    if let (Hand::Remote(_), Some(option)) = (&hand, mine.or(args.taped.given())) {
        return Err(Fault::OwnerDecides(option).into());
    }
    let again = message::again(&args.agent, &id, global);
    let places = message::places(global);
    let ready = Ready {
        hand,
        changes: 0,
        place,
        definition: agent,
        agent: args.agent.clone(),
        id,
        fresh,
        terminal,
        again,
        places,
    };
    let ended = match outgoing {
        Some(outgoing) => ready.once(outgoing, args.key.is_some(), signals).await,
        None => chat::chat(ready, signals).await,
    };
    let saved = args.taped.save(tape.as_ref());
    let code = ended?;
    saved.map(|()| code)
}

impl Ready {
    /// Sends one message, or goes on with it when it is there already, and follows the answer.
    async fn once(
        self,
        outgoing: Outgoing,
        keyed: bool,
        signals: Signals,
    ) -> Result<ExitCode, Error> {
        let mut screen = Screen::new(self.terminal, Shown::Answer);
        let unfinished = if keyed {
            None
        } else {
            self.unfinished(outgoing.input()).await?
        };
        let begin = match unfinished {
            Some(submission) => {
                screen.line("resuming: this message was not finished");
                Begin::GoOn(submission)
            }
            None => Begin::Send(outgoing),
        };
        self.see_through(begin, screen, signals).await
    }

    /// Takes a submission up, and follows it until it settles, waits for a person who is not here, or is stopped.
    async fn see_through(
        mut self,
        begin: Begin,
        mut screen: Screen,
        mut signals: Signals,
    ) -> Result<ExitCode, Error> {
        let mut turn = Turn::begin(&mut self, begin, &mut screen).await?;
        loop {
            let ended = turn.follow(&mut self, &mut screen, &mut signals).await;
            screen.pause()?;
            match ended? {
                Ended::Settled(reply) => {
                    let took = turn.took();
                    return self.settled(&reply, took, &mut screen, signals).await;
                }
                Ended::Stopped(stop) => return Ok(self.stopped(stop, signals).await),
                Ended::Parked(waiting) => {
                    waiting.iter().for_each(|one| screen.expect(one));
                    self.show_code(turn.submission(), &mut screen).await?;
                    if self.terminal.input && self.terminal.err.terminal && !self.terminal.json {
                        let Some(approval) = waiting.first() else {
                            continue;
                        };
                        match self.ask(approval, &mut signals).await? {
                            Said::Decided(decision) => {
                                turn.decide(&mut self, approval, decision).await?;
                                continue;
                            }
                            Said::Later => {}
                            Said::Stop(stop) => return Ok(self.stopped(stop, signals).await),
                        }
                    }
                    return self.parked(&waiting, turn.submission(), signals).await;
                }
            }
        }
    }

    /// Takes the data, or finds who has it now, when the process that had it ended. The error otherwise, with the
    /// line that goes on.
    async fn find_again(&mut self, error: Error) -> Result<(), Error> {
        if self.changes < MAX_CHANGES && self.hand.passes_on(&error) {
            self.changes += 1;
            let definition = Some(self.definition.clone());
            self.hand = Hand::open(&self.place, definition, Running::Alone).await?;
            return Ok(());
        }
        if error.code != "runtime_unavailable" {
            return Err(error);
        }
        let fresh = self.fresh.then_some(self.id.as_str());
        let resume = message::command_line(std::env::args_os(), fresh);
        Err(Error {
            hint: format!("what is done is kept; to go on: {resume}"),
            ..error
        })
    }

    /// Shows what the code has called that waits for a person.
    async fn show_code(&self, submission: &str, screen: &mut Screen) -> Result<(), Error> {
        let runs = runs::of(self.hand.store(), &actor(&self.agent, &self.id)).await?;
        let waits = |run: &&CodeRun| {
            run.state == RunState::Paused && run.submission_id == submission && !self.terminal.json
        };
        if let Some(run) = runs.iter().rfind(waits) {
            screen.waits(run);
        }
        Ok(())
    }

    /// It settled: prints the answer and leaves.
    async fn settled(
        &self,
        reply: &Reply,
        took: Duration,
        screen: &mut Screen,
        mut signals: Signals,
    ) -> Result<ExitCode, Error> {
        let printed = self.finish(screen, reply, took);
        if self.fresh && !self.terminal.json && printed.is_ok() {
            self.terminal.say(format_args!("to go on: {}", self.again));
        }
        self.hand.leave(DRAIN, self.terminal, &mut signals).await;
        printed?;
        if reply.outcome == Outcome::Completed {
            return Ok(ExitCode::SUCCESS);
        }
        self.complain(reply);
        Ok(ExitCode::FAILURE)
    }

    /// It waits for somebody who is not here: says how to answer, and leaves.
    async fn parked(
        &self,
        waiting: &[Approval],
        submission: &str,
        mut signals: Signals,
    ) -> Result<ExitCode, Error> {
        self.name_commands(waiting);
        let finished = Finished {
            r#type: "run-finished",
            agent: &self.agent,
            id: &self.id,
            submission_id: submission,
            outcome: "parked",
            text: "",
            error: None,
            usage: bowline_model::Usage::default(),
            cost_usd: format_usd(0),
        };
        let printed = if self.terminal.json {
            self.terminal.json(&finished)
        } else {
            Ok(())
        };
        self.hand.leave(DRAIN, self.terminal, &mut signals).await;
        printed?;
        Ok(ExitCode::SUCCESS)
    }

    /// The submission of this very message that has not settled, if there is one.
    async fn unfinished(&self, input: &Input) -> Result<Option<String>, Error> {
        let open = self.hand.open_submissions(&self.agent, &self.id).await?;
        let found = open.into_iter().find(|submission| {
            let payload = serde_json::from_value::<Input>(submission.payload.clone());
            submission.abort_requested_at.is_none()
                && payload.is_ok_and(|payload| payload == *input)
        });
        Ok(found.map(|submission| submission.id))
    }

    /// Prints the answer and what it took.
    fn finish(&self, screen: &mut Screen, reply: &Reply, took: Duration) -> Result<(), Error> {
        if self.terminal.json {
            self.terminal.json(&Finished {
                r#type: "run-finished",
                agent: &self.agent,
                id: &self.id,
                submission_id: &reply.submission_id,
                outcome: word(reply.outcome),
                text: &reply.text,
                error: reply.error.as_ref(),
                usage: reply.used.usage,
                cost_usd: format_usd(reply.used.cost_micro_usd),
            })?;
        } else {
            screen.answer(&reply.text)?;
        }
        self.terminal.say(summary(reply, took));
        Ok(())
    }

    /// Says why there is no answer. In JSON the last line has said it.
    fn complain(&self, reply: &Reply) {
        if let Some(failure) = &reply.error
            && !self.terminal.json
        {
            self.terminal.error(&failure.clone().into());
        }
    }

    /// Stops in good order; asked a second time, at once. Nothing is lost either way.
    async fn stopped(&self, stop: Stop, mut signals: Signals) -> ExitCode {
        tokio::select! {
            biased;
            _ = signals.next() => {}
            _ = self.hand.stop(DRAIN) => {}
        }
        let resume =
            message::command_line(std::env::args_os(), self.fresh.then_some(self.id.as_str()));
        self.terminal.error(&Fault::Interrupted { resume }.into());
        stop.exit_code()
    }
}

/// Answers an approval, and follows the run that goes on.
pub(super) async fn go_on(
    place: Place,
    (agent, id): (&str, &str),
    approval: &Approval,
    answer: Answer,
    global: &Global,
    terminal: Terminal,
) -> Result<ExitCode, Error> {
    let signals = Signals::new()?;
    let definition = place.project.agent(agent, None)?;
    let hand = Hand::open(&place, Some(definition.clone()), Running::Alone).await?;
    let ready = Ready {
        hand,
        changes: 0,
        place,
        definition,
        agent: agent.to_owned(),
        id: id.to_owned(),
        fresh: false,
        terminal,
        again: message::again(agent, id, global),
        places: message::places(global),
    };
    let mut screen = Screen::new(terminal, Shown::Answer);
    screen.expect(approval);
    let answered = Answered {
        approval_id: approval.approval_id.clone(),
        answer,
    };
    ready
        .see_through(Begin::Answer(answered), screen, signals)
        .await
}

/// The word for an outcome.
fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Completed => "completed",
        Outcome::Failed => "failed",
        Outcome::Aborted => "aborted",
    }
}

/// What a submission took, in one line.
fn summary(reply: &Reply, took: Duration) -> String {
    let used = &reply.used;
    let mut parts = vec![
        word(reply.outcome).to_owned(),
        count(u64::from(used.calls), "turn"),
        count(u64::from(used.tool_calls), "tool call"),
        format!(
            "{} tokens in, {} out",
            grouped(used.usage.context()),
            grouped(used.usage.output)
        ),
    ];
    if used.cost_micro_usd > 0 {
        parts.push(format!("${}", format_usd(used.cost_micro_usd)));
    }
    parts.push(duration(took));
    one_line(&parts.join(" · "))
}

/// An id for a conversation that nobody named: short enough to type.
fn new_id(sources: &Sources) -> String {
    const LETTERS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
    let random = sources.random();
    let letter =
        |place: u32| LETTERS[usize::try_from((random >> (5 * place)) & 31).unwrap_or(0)] as char;
    (0..10).map(letter).collect()
}
