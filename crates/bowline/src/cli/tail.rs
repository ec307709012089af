//! `bowline tail`.

use std::{path::Path, process::ExitCode, time::Duration};

use bowline_agent::feed::{Offset, Reader};
use bowline_runtime::submission;
use clap::Args;
use futures::{StreamExt as _, stream::BoxStream};

use super::{
    Global,
    fault::Fault,
    place::Place,
    screen::{Screen, Shown},
    signals::Signals,
    terminal::Terminal,
};
use crate::error::Error;

/// Records read at once.
const PAGE: usize = 500;
/// Some file systems, those of a network above all, do not say when a file changes: there it takes
/// this long until something new is seen.
const UNTOLD: Duration = Duration::from_secs(2);

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
    let mut changes = watch(&place.data)?;
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
            Some(()) = changes.next() => {}
            () = tokio::time::sleep(UNTOLD) => {}
        }
    }
}

/// Tells when a file of the data changes. Many changes in a row are told once.
#[cfg(target_os = "linux")]
fn watch(data: &Path) -> Result<BoxStream<'static, ()>, Error> {
    use inotify::{Inotify, WatchMask};
    let failed = |error: std::io::Error| {
        Error::from(Fault::Watch {
            path: data.to_path_buf(),
            why: error.to_string(),
        })
    };
    let inotify = Inotify::init().map_err(failed)?;
    let changes = WatchMask::MODIFY | WatchMask::CREATE | WatchMask::DELETE | WatchMask::MOVE;
    inotify.watches().add(data, changes).map_err(failed)?;
    let events = inotify.into_event_stream([0; 4_096]).map_err(failed)?;
    Ok(events.ready_chunks(256).map(|_| ()).boxed())
}

/// Elsewhere nobody tells; [`UNTOLD`] is how long something new may take.
#[cfg(not(target_os = "linux"))]
fn watch(_data: &Path) -> Result<BoxStream<'static, ()>, Error> {
    Ok(futures::stream::pending().boxed())
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
