//! `bowline tail`.

use std::process::ExitCode;

use bowline_agent::feed::{Offset, Reader};
use bowline_runtime::submission;
use clap::Args;

use super::{
    Global,
    place::Place,
    screen::{Screen, Shown},
    signals::Signals,
    terminal::Terminal,
    watch::Changes,
};
use crate::error::Error;

/// Records read at once.
const PAGE: usize = 500;

/// Follow a conversation that another process runs.
///
/// Shows what becomes durable from now on: messages, tool calls, outcomes. Text comes about once a
/// second, since it is read from the data. Ctrl-C ends it; nothing that it does disturbs the run.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    bowline tail triage t1\n  \
    bowline tail triage t1 --all --exit\n      \
        from the first message, until nothing is open\n  \
    bowline tail triage t1 --json | jq -r 'select(.type == \"tool-input\").toolName'")]
pub(super) struct Tail {
    /// The agent
    agent: String,
    /// The conversation
    id: String,
    /// Begin with the first message instead of now
    #[arg(long)]
    all: bool,
    /// End when nothing is open
    #[arg(long)]
    exit: bool,
}

pub(super) async fn tail(
    args: &Tail,
    global: &Global,
    terminal: Terminal,
) -> Result<ExitCode, Error> {
    let place = Place::find(global)?;
    let reading = place.conversation(&args.agent, &args.id).await?;
    let mut signals = Signals::new()?;
    let mut changes = Changes::of([place.data.clone()])?;
    let mut screen = Screen::new(terminal, Shown::Everything);
    let from = if args.all {
        Offset::START
    } else {
        Offset::after(reading.conversation.seq)
    };
    let Ok(mut reader) = Reader::start(reading.store.clone(), &reading.actor, from).await? else {
        return Err(place.missing(&args.agent, &args.id, &[]));
    };
    loop {
        news(&mut reader, &mut screen).await?;
        if args.exit
            && submission::open(&*reading.store, &reading.actor)
                .await?
                .is_empty()
        {
            // What settled it may have come between the two.
            news(&mut reader, &mut screen).await?;
            screen.pause()?;
            return Ok(ExitCode::SUCCESS);
        }
        tokio::select! {
            biased;
            stop = signals.next() => {
                screen.pause()?;
                return Ok(stop.exit_code());
            }
            () = changes.next() => {}
        }
    }
}

/// Shows what is new.
async fn news(reader: &mut Reader, screen: &mut Screen) -> Result<(), Error> {
    loop {
        let page = reader.next(PAGE).await?;
        for chunk in page.entries.iter().flat_map(|entry| &entry.chunks) {
            screen.chunk(chunk)?;
        }
        if page.up_to_date {
            return Ok(());
        }
    }
}
