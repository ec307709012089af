//! The command line.
//!
//! One file each: `init`, `run`, `show`, `tail`, `abort`, `compact`, `approve`, `reject`, `answer`,
//! `delete`, `export`, `import`, `backup`, `restore`, `agents`, `models`, `spend`, `serve`, `dev`, `auth`,
//! `workspace`,
//! `bench`, `code`, `doctor`, `completions`.
//! Shared by them: `place` finds the project and its data, `hand` changes it here or in the process that
//! has it, `terminal` knows what may be printed
//! where, `watch` tells when files change, `screen` shows a conversation as it happens, `markdown` renders text, `fault` holds what
//! only a command line can get wrong.
//!
//! Nothing else in this crate touches the terminal, the home directory or the environment.

use std::process::ExitCode;

use clap::{ArgAction, Args, CommandFactory as _, Parser, Subcommand};

use crate::{
    error::{Error, Kind},
    telemetry::log::Format,
};

mod abort;
mod agents;
mod answer;
mod approve;
mod auth;
mod backup;
mod bench;
mod code;
mod compact;
mod completions;
mod delete;
mod dev;
mod doctor;
mod export;
mod fault;
mod hand;
mod import;
mod init;
mod markdown;
mod models;
mod place;
mod prompt;
mod reject;
mod restore;
mod run;
mod screen;
mod serve;
mod show;
mod signals;
mod spend;
mod tail;
mod terminal;
mod watch;
mod workspace;

use terminal::Terminal;

/// Runs AI agents so that nothing accepted is ever lost.
///
/// An agent is a folder: its model, skills and instructions. `bowline run` sends it a message; every
/// step of the answer is durable, so that a run that was killed goes on where it was.
///
/// What a command answers goes to standard output, everything else to standard error.
#[derive(Debug, Parser)]
#[command(
    name = "bowline",
    version,
    propagate_version = true,
    max_term_width = 100,
    after_help = "Start with `bowline init my-agent`, then `bowline run hello` in that folder.\n\
        Exit codes: 0 fine, 1 failure, 2 wrong usage, 130 interrupted."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    global: Global,
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Everywhere")]
struct Global {
    /// The project [default: the nearest folder upward with a bowline.toml]
    #[arg(long, value_name = "DIR", global = true)]
    project: Option<std::path::PathBuf>,
    /// Where facts are kept [default: $BOWLINE_DATA, or what bowline.toml says, or .bowline]
    #[arg(long, value_name = "DIR", global = true)]
    data: Option<std::path::PathBuf>,
    /// Answer in JSON
    #[arg(long, global = true)]
    json: bool,
    /// Print only the answer and errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Log to standard error; twice for more. $BOWLINE_LOG takes a filter such as `bowline=debug`
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(init::Init),
    Run(run::Run),
    Show(show::Show),
    Tail(tail::Tail),
    Abort(abort::Abort),
    Compact(compact::Compact),
    Approve(approve::Approve),
    Reject(reject::Reject),
    Answer(answer::AnswerArgs),
    Delete(delete::Delete),
    Export(export::Export),
    Import(import::Import),
    Backup(backup::Backup),
    Restore(restore::Restore),
    Agents(agents::Agents),
    Workspace(workspace::WorkspaceArgs),
    Serve(serve::Serve),
    Dev(dev::Dev),
    Models(models::Models),
    Spend(spend::Spend),
    Auth(auth::Auth),
    Bench(bench::Bench),
    Code(code::Code),
    Doctor(doctor::Doctor),
    Completions(completions::Completions),
}

/// Runs the command that the process was started with. Returns its exit code: 0 fine, 1 failure, 2
/// wrong usage, 130 interrupted, 143 terminated.
pub fn main() -> ExitCode {
    // Before there is a thread: the process may be about to confine itself.
    if let Some(code) = bowline_sandbox::host::helper() {
        return code;
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return wrong_usage(&error),
    };
    let terminal = Terminal::detect(&cli.global);
    // A server logs as its project says, once that was read.
    if !matches!(cli.command, Command::Serve(_)) {
        log(&cli.global, terminal, None, Format::Human);
    }
    let workers = std::thread::available_parallelism().map_or(2, |count| count.get().max(2));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .enable_all()
        .build();
    let outcome = match runtime {
        Ok(runtime) => {
            let outcome = runtime.block_on(execute(&cli, terminal));
            // A thread may still wait for a line that nobody will type.
            runtime.shutdown_background();
            outcome
        }
        Err(error) => Err(fault::Fault::NoThreads(error).into()),
    };
    outcome.unwrap_or_else(|mut error| {
        place::name_damaged(&cli.global, &mut error);
        terminal.error(&error);
        ExitCode::from(match error.kind {
            Kind::Usage => 2,
            Kind::Failure => 1,
        })
    })
}

async fn execute(cli: &Cli, terminal: Terminal) -> Result<ExitCode, Error> {
    let global = &cli.global;
    match &cli.command {
        Command::Init(args) => init::init(args, terminal),
        Command::Run(args) => run::run(args, global, terminal).await,
        Command::Show(args) => show::show(args, global, terminal).await,
        Command::Tail(args) => tail::tail(args, global, terminal).await,
        Command::Abort(args) => abort::abort(args, global, terminal).await,
        Command::Compact(args) => compact::compact(args, global, terminal).await,
        Command::Approve(args) => approve::approve(args, global, terminal).await,
        Command::Reject(args) => reject::reject(args, global, terminal).await,
        Command::Answer(args) => answer::answer(args, global, terminal).await,
        Command::Delete(args) => delete::delete(args, global, terminal).await,
        Command::Export(args) => export::export(args, global, terminal).await,
        Command::Import(args) => import::import(args, global, terminal).await,
        Command::Backup(args) => backup::backup(args, global, terminal).await,
        Command::Restore(args) => restore::restore(args, global, terminal).await,
        Command::Agents(_) => agents::agents(global, terminal),
        Command::Workspace(args) => workspace::workspace(args, global, terminal).await,
        Command::Serve(args) => serve::serve(args, global, terminal).await,
        Command::Dev(args) => dev::dev(args, global, terminal).await,
        Command::Models(args) => models::models(args, global, terminal),
        Command::Spend(args) => spend::spend(args, global, terminal).await,
        Command::Auth(args) => auth::auth(args, terminal),
        Command::Bench(args) => bench::bench(args, terminal).await,
        Command::Code(args) => code::execute(args, &cli.global, terminal).await,
        Command::Doctor(args) => doctor::doctor(args, global, terminal).await,
        Command::Completions(args) => completions::completions(args, &mut Cli::command(), terminal),
    }
}

/// Help and version are no errors, but come as such.
fn wrong_usage(error: &clap::Error) -> ExitCode {
    let json = std::env::args_os().any(|arg| arg == "--json");
    if json && error.use_stderr() {
        let words = error.to_string();
        let line = words.lines().next().unwrap_or_default();
        let message = line.strip_prefix("error: ").unwrap_or(line).to_owned();
        Terminal::print_json_error(&fault::Fault::Arguments(message).into());
    }
    // When nobody reads the help there is nobody to tell.
    let _ = error.print();
    ExitCode::from(if error.use_stderr() { 2 } else { 0 })
}

/// Logs what the environment or the command line asks for; else `usual`, where there is such.
fn log(global: &Global, terminal: Terminal, usual: Option<&str>, format: Format) {
    let filter = match (std::env::var("BOWLINE_LOG"), global.verbose) {
        (Ok(filter), _) if !filter.is_empty() => filter,
        (_, 0) => match usual {
            Some(usual) => usual.to_owned(),
            None => return,
        },
        (_, 1) => "bowline=info".to_owned(),
        (_, _) => "bowline=debug".to_owned(),
    };
    crate::telemetry::log::start(&filter, format, terminal.err.color);
}
