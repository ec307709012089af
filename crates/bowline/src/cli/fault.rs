//! What only a command line can get wrong.

use std::path::PathBuf;

use crate::error::Error;

/// An error that a command declares itself.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// Arguments that make no sense; the parser says it better on a terminal.
    #[error("{0}")]
    Arguments(String),
    /// No message, and no terminal to ask on.
    #[error("there is no message")]
    NoMessage,
    /// A message without text.
    #[error("the message is empty")]
    EmptyMessage,
    /// Something waits for a person, and what comes behind it waits too.
    #[error("{0} waits for a person")]
    Waits(String),
    /// A file that was named cannot be read.
    #[error("{path}: {why}")]
    UnreadableFile {
        /// As it was typed.
        path: String,
        /// Why.
        why: String,
    },
    /// A folder that has a project already.
    #[error("{0} has a bowline.toml already")]
    ProjectExists(PathBuf),
    /// A file of the new project cannot be written.
    #[error("{path}: {why}")]
    ProjectUnwritable {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// There is no such conversation.
    #[error("there is no conversation {id} with {agent}")]
    NoConversation {
        /// The agent.
        agent: String,
        /// The instance.
        id: String,
        /// Some that there are.
        known: Vec<String>,
    },
    /// The submission that was named is not open.
    #[error("the submission {0} is not open")]
    NotOpen(String),
    /// There is no such approval.
    #[error("nothing waits for the approval {0}")]
    NoApproval(String),
    /// No such run of code, or none that could be taken.
    #[error("there is no run of code {0} in this conversation")]
    NoCodeRun(String),
    /// The agent has a snippet of this name.
    #[error("the agent has a snippet `{0}` already")]
    SnippetExists(String),
    /// The agent has no snippet of this name.
    #[error("the agent has no snippet `{0}`")]
    NoSnippet(String),
    /// There is no data where it should be.
    #[error("there is no data in {0}")]
    NoData(PathBuf),
    /// There is data where a backup should be put.
    #[error("there is data in {0} already")]
    DataExists(PathBuf),
    /// Something is where a backup should be written.
    #[error("{0} is there already, and is not empty")]
    BackupExists(PathBuf),
    /// Nobody said that it shall be done.
    #[error("nothing was changed: this cannot be undone, and was not confirmed")]
    NotConfirmed,
    /// The run was interrupted before the answer was complete.
    #[error("interrupted; what is done is kept")]
    Interrupted {
        /// The command that goes on.
        resume: String,
    },
    /// The code threw an error that it did not catch.
    #[error("{text}")]
    Threw {
        /// Name and message.
        text: String,
        /// Where, a frame each line; may be empty.
        stack: String,
    },
    /// Standard output cannot be written.
    #[error("standard output cannot be written: {0}")]
    Output(std::io::Error),
    /// The terminal cannot be used.
    #[error("the terminal cannot be used: {0}")]
    Terminal(String),
    /// A directory cannot be watched.
    #[error("{path}: cannot be watched: {why}")]
    Watch {
        /// The directory.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The process that has the data was found, and could not be asked.
    #[error("the process that has the data does not answer: {0}")]
    OwnerGone(String),
    /// An option that only a process that has the data can follow.
    #[error("{0} cannot be used while another process has the data")]
    OwnerDecides(&'static str),
    /// What was said to providers cannot be read from a file, or not be kept in one.
    #[error("{path}: {why}")]
    Cassette {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The machine gives no threads.
    #[error("cannot start: {0}")]
    NoThreads(std::io::Error),
}

impl Fault {
    /// The stable name. Each has a page `docs/errors/<code>.md`.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Arguments(_) => "usage_arguments",
            Self::NoMessage | Self::EmptyMessage => "usage_no_message",
            Self::UnreadableFile { .. } => "usage_unreadable_file",
            Self::ProjectExists(_) => "project_exists",
            Self::ProjectUnwritable { .. } => "project_unwritable",
            Self::NoConversation { .. } => "conversation_not_found",
            Self::Waits(_) => "conversation_waits",
            Self::NotOpen(_) => "submission_not_open",
            Self::NoApproval(_) => "approval_not_found",
            Self::NoCodeRun(_) => "code_run_not_found",
            Self::SnippetExists(_) => "snippet_exists",
            Self::NoSnippet(_) => "snippet_not_found",
            Self::NoData(_) => "data_not_found",
            Self::DataExists(_) => "data_exists",
            Self::BackupExists(_) => "backup_exists",
            Self::NotConfirmed => "usage_not_confirmed",
            Self::Interrupted { .. } => "run_interrupted",
            Self::Threw { .. } => "code_threw",
            Self::Output(_) => "output_failed",
            Self::Terminal(_) => "terminal_failed",
            Self::Watch { .. } => "tail_failed",
            Self::OwnerGone(_) => "local_failed",
            Self::OwnerDecides(_) => "local_option",
            Self::Cassette { .. } => "cassette_failed",
            Self::NoThreads(_) => "process_failed",
        }
    }

    fn hint(&self) -> String {
        match self {
            Self::Arguments(_) => "see `bowline help`".to_owned(),
            Self::Waits(_) => {
                "answer it first: see `bowline show`, or end it with `bowline abort`".to_owned()
            }
            Self::NoMessage => {
                "add -m TEXT, -m @FILE or -m -; without -m it needs a terminal".to_owned()
            }
            Self::EmptyMessage => {
                "write something after -m, into its file, or to standard input".to_owned()
            }
            Self::UnreadableFile { .. } => {
                "check the path; it is relative to the current folder".to_owned()
            }
            Self::ProjectExists(_) => "choose another folder: `bowline init DIR`".to_owned(),
            Self::ProjectUnwritable { .. } => {
                "check that you may write there, or choose another folder".to_owned()
            }
            Self::NoConversation { agent, known, .. } if known.is_empty() => {
                format!("start one with `bowline run {agent}`, or check --project and --data")
            }
            Self::NoConversation { agent, known, .. } => {
                format!("the conversations with {agent} are: {}", known.join(", "))
            }
            Self::NotOpen(_) => "`bowline show AGENT ID` lists what is open".to_owned(),
            Self::NoApproval(_) => {
                "`bowline show AGENT ID` lists what is pending; check --project and --data"
                    .to_owned()
            }
            Self::NoCodeRun(_) => "`bowline show AGENT ID --json` lists them: .codeRuns".to_owned(),
            Self::SnippetExists(_) => "add --replace, or choose another name".to_owned(),
            Self::NoSnippet(_) => {
                "`bowline code snippets AGENT` lists those that it has".to_owned()
            }
            Self::NoData(_) => "check the path, --project and --data".to_owned(),
            Self::DataExists(_) => {
                "with --replace it is kept as store.db.replaced, or choose another --data"
                    .to_owned()
            }
            Self::BackupExists(_) => "choose a folder that is not there yet".to_owned(),
            Self::NotConfirmed => "add --yes to do it without being asked".to_owned(),
            Self::Interrupted { resume } => format!("to go on: {resume}"),
            Self::Threw { stack, .. } => stack.trim().to_owned(),
            Self::Output(_) => "check where it is redirected to".to_owned(),
            Self::Terminal(_) => "send one message with -m instead".to_owned(),
            Self::Watch { .. } => "`bowline show AGENT ID` prints what there is so far".to_owned(),
            Self::OwnerGone(_) => {
                "run the same line again: what was accepted is kept, and nothing is done twice"
                    .to_owned()
            }
            Self::OwnerDecides(_) => "leave it out, or stop that process first".to_owned(),
            Self::Cassette { .. } => {
                "check the path after --record or --replay; `bowline run … --record FILE` makes one"
                    .to_owned()
            }
            Self::NoThreads(_) => "check the limits of this user (`ulimit -a`)".to_owned(),
        }
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        let (code, message, hint) = (fault.code(), fault.to_string(), fault.hint());
        match fault {
            Fault::Arguments(_)
            | Fault::NoMessage
            | Fault::EmptyMessage
            | Fault::UnreadableFile { .. }
            | Fault::ProjectExists(_)
            | Fault::NoConversation { .. }
            | Fault::NoApproval(_)
            | Fault::NoCodeRun(_)
            | Fault::SnippetExists(_)
            | Fault::NoSnippet(_)
            | Fault::NoData(_)
            | Fault::DataExists(_)
            | Fault::BackupExists(_)
            | Fault::NotConfirmed
            | Fault::OwnerDecides(_)
            | Fault::NotOpen(_) => Self::usage(code, message, hint),
            Fault::Waits(_)
            | Fault::ProjectUnwritable { .. }
            | Fault::Interrupted { .. }
            | Fault::Threw { .. }
            | Fault::Output(_)
            | Fault::Terminal(_)
            | Fault::Watch { .. }
            | Fault::OwnerGone(_)
            | Fault::Cassette { .. }
            | Fault::NoThreads(_) => Self::failure(code, message, hint),
        }
    }
}
