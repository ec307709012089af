//! `bowline dev`.

mod log;
mod reload;

use std::process::ExitCode;

use clap::Args;
use tokio::task::JoinHandle;

use self::{log::Log, reload::Reload};
use super::{
    Global, hand,
    place::Place,
    serve::{Listen, Serving, settings},
    signals::Signals,
    terminal::Terminal,
};
use crate::{error::Error, server::App, service::Service};

/// Serve the agents of a project while you write them.
///
/// It is `bowline serve`, and besides: an agent whose files change is read again, and a conversation goes
/// on with it from its next model call on. A mistake is shown with its line, and the agent stays as it
/// was. What arrives, what the agents say and do, what it costs, and each request that is refused is a line
/// of its own. Web pages that this
/// machine serves may use it.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    bowline dev\n  \
    bowline dev --addr 127.0.0.1:9000\n  \
    bowline dev --json | jq -r 'select(.type == \"submission-settled\").outcome'\n      \
        what happens in all conversations, one JSON object a line")]
pub(super) struct Dev {
    #[command(flatten)]
    listen: Listen,
}

pub(super) async fn dev(
    args: &Dev,
    global: &Global,
    terminal: Terminal,
) -> Result<ExitCode, Error> {
    let place = Place::find(global)?;
    let mut settings = settings(&args.listen, &place)?;
    settings.cors_local = settings.addr.ip().is_loopback();
    // Watched before it is read, so that no change is missed.
    let mut reload = Reload::new(place.project.clone())?;
    let mut bowline = place.on(hand::keep(&place, terminal).await?);
    let signals = Signals::new()?;
    for agent in reload.first(terminal)? {
        bowline = bowline.agent(agent);
    }
    let service = bowline.start();
    let log = Log::new(terminal, service.sources().clone());
    let logging = show(&service, log);
    let refusals = Log::new(terminal, service.sources().clone());
    let app = App::new(service.clone(), settings);
    let app = app.on_refused(move |refused| refusals.refused(refused));
    let serving = Serving::start(&place, app, terminal).await?;
    let reloading = {
        let service = service.clone();
        let log = Log::new(terminal, service.sources().clone());
        tokio::spawn(async move { reload.keep(&service, &log).await })
    };
    let ended = serving.end(&service, signals).await;
    reloading.abort();
    logging.abort();
    ended
}

/// Shows what happens in all conversations.
fn show(service: &Service, mut log: Log) -> JoinHandle<()> {
    use tokio::sync::broadcast::error::RecvError;
    let mut chunks = service.observers().observe_all();
    tokio::spawn(async move {
        loop {
            match chunks.recv().await {
                Ok((actor, chunk)) => log.chunk(&actor, &chunk),
                Err(RecvError::Lagged(missed)) => log.missed(missed),
                Err(RecvError::Closed) => return,
            }
        }
    })
}
