//! `bowline serve`.

use std::{net::SocketAddr, process::ExitCode, time::Duration};

use clap::Args;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Global, hand, place::Place, signals::Signals, terminal::Terminal};
use crate::{
    config,
    error::Error,
    server::{App, Keys, Server, Settings, Socket, Tls},
    service::Service,
    telemetry::{log::Format, process::raise_file_limit},
};

/// How long what still runs then may take to stop.
const STOP: Duration = Duration::from_secs(10);

/// Serve the agents of a project over HTTP.
///
/// It takes the data directory for itself, goes on with everything that was interrupted, and answers
/// until ctrl-C or SIGTERM. Then it takes no more messages, lets connections and what runs come to an end
/// for at most 30 s, and leaves; the next start goes on with the rest. A second signal ends it at once.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    bowline serve\n  \
    bowline serve --addr 127.0.0.1:9000\n  \
    curl localhost:8787/agents/hello/mia -d '{\"kind\":\"user\",\"body\":\"Hi\"}' -H 'content-type: application/json'")]
pub(super) struct Serve {
    #[command(flatten)]
    listen: Listen,
    /// How lines of the log are written [default: what bowline.toml says, or human]
    #[arg(long, value_name = "FORMAT", value_parser = log_format)]
    log_format: Option<Format>,
}

/// Where to listen.
#[derive(Debug, Args)]
pub(super) struct Listen {
    /// Where to listen [default: what bowline.toml says, or 127.0.0.1:8787]
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = address)]
    addr: Option<SocketAddr>,
    /// The URL that clients see, when a proxy stands in front
    #[arg(long, value_name = "URL")]
    public_url: Option<String>,
}

fn address(text: &str) -> Result<SocketAddr, String> {
    config::address(text).ok_or_else(|| format!("give {} or a port alone", config::ADDRESS))
}

fn log_format(word: &str) -> Result<Format, String> {
    Format::of_word(word.trim()).ok_or_else(|| "it is `human` or `json`".to_owned())
}

pub(super) async fn serve(
    args: &Serve,
    global: &Global,
    terminal: Terminal,
) -> Result<ExitCode, Error> {
    let place = Place::find(global)?;
    let settings = settings(&args.listen, &place)?;
    let format = args.log_format.unwrap_or(place.project.config.server.log);
    let quiet = if global.quiet {
        "bowline=error"
    } else {
        "bowline=warn"
    };
    super::log(global, terminal, Some(quiet), format);
    raise_file_limit();
    let mut bowline = place.on(hand::keep(&place, terminal).await?);
    for agent in place.project.agents()? {
        // One agent with a mistake must not keep the others from being served.
        match place.project.agent(&agent.name, None) {
            Ok(agent) => bowline = bowline.agent(agent),
            Err(error) => terminal.error(&error),
        }
    }
    let signals = Signals::new()?;
    let service = bowline.start();
    let serving = Serving::start(&place, App::new(service.clone(), settings), terminal).await?;
    serving.end(&service, signals).await
}

/// A server that answers.
pub(super) struct Serving {
    stop: CancellationToken,
    task: JoinHandle<bool>,
}

impl Serving {
    /// Listens, and says where.
    pub(super) async fn start(place: &Place, app: App, terminal: Terminal) -> Result<Self, Error> {
        let settings = app.settings();
        let in_the_clear = !settings.addr.ip().is_loopback() && settings.tls.is_none();
        let scheme = if settings.tls.is_some() {
            "https"
        } else {
            "http"
        };
        let mut server = Server::bind(app).await?;
        if in_the_clear {
            terminal.say(format_args!(
                "Keys and messages travel in the clear: set `tls` in `[server]`, or put a proxy in front."
            ));
        }
        match Socket::bind(&place.data) {
            Ok(socket) => server = server.with_socket(socket),
            Err(error) => terminal.say(format_args!(
                "No local socket, so other commands have to wait until this ends: {error}"
            )),
        }
        let addr = server.addr();
        if terminal.json {
            terminal.json(&json!({"type": "serving", "addr": addr.to_string()}))?;
        } else {
            terminal.say(format_args!("Serving {scheme}://{addr}. Ctrl-C stops."));
        }
        let stop = CancellationToken::new();
        let task = tokio::spawn(server.serve(stop.clone()));
        Ok(Self { stop, task })
    }

    /// Waits until somebody asks to stop, and stops in good order; asked again, at once.
    pub(super) async fn end(
        self,
        service: &Service,
        mut signals: Signals,
    ) -> Result<ExitCode, Error> {
        signals.next().await;
        self.stop.cancel();
        let end = async {
            let _ = self.task.await;
            service.stop(STOP).await
        };
        tokio::select! {
            // A server that was asked to stop and did has done its work.
            _ = end => Ok(ExitCode::SUCCESS),
            again = signals.next() => Ok(again.exit_code()),
        }
    }
}

/// How the project and the command line say to listen.
pub(super) fn settings(args: &Listen, place: &Place) -> Result<Settings, Error> {
    let config = &place.project.config;
    let tls = config.server.tls.as_ref();
    let public_url = args.public_url.clone();
    let mut settings = Settings {
        addr: args.addr.unwrap_or(config.server.addr),
        public_url: public_url.or_else(|| config.server.public_url.clone()),
        keys: Keys::new(config.keys.iter().cloned()),
        tls: tls
            .map(|files| Tls::load(&files.cert, &files.key))
            .transpose()?,
        cors: config.server.cors.clone(),
        drain: config.server.drain,
        ..Settings::default()
    };
    config.server.limits.apply(&mut settings);
    Ok(settings)
}
