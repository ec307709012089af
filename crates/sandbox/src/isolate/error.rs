//! Why a program did not run, or did not end by itself.

use std::time::Duration;

/// Why a program did not run, or did not end by itself. An error that the program throws and nobody
/// catches is not one of these: see [`Status::Threw`](super::Status::Threw).
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum IsolateError {
    /// The source cannot be parsed.
    #[error("{file}:{line}:{column}: {message}; correct the code and run it again")]
    Syntax {
        /// The module.
        file: String,
        /// 1 and up.
        line: u32,
        /// 1 and up, in characters.
        column: u32,
        /// What the parser says.
        message: String,
    },
    /// The source, with its modules, is too large.
    #[error(
        "the code has {bytes} bytes, {limit} are allowed; shorten it or read data through a binding"
    )]
    SourceTooLarge {
        /// The size.
        bytes: u64,
        /// What is allowed.
        limit: u64,
    },
    /// The run took longer than it may, waiting included.
    #[error("the code ran longer than {0:?} in all; do less in one run, or raise `wall`")]
    Wall(Duration),
    /// The program used more CPU time than it may.
    #[error(
        "the code used its {0:?} of CPU time; look for an endless loop, do less, or raise `cpu`"
    )]
    Cpu(Duration),
    /// The program needed more memory than it may have.
    #[error(
        "the code needs more than {0} bytes of memory; work on smaller pieces, or raise `memory`"
    )]
    Memory(u64),
    /// All isolates of this process together are at their limit of memory.
    #[error(
        "all running code together needs more than {0} bytes of memory; try again later, or raise the total"
    )]
    MemoryTotal(u64),
    /// Calls nested too deeply.
    #[error("the code calls itself too deeply; use a loop, or look for endless recursion")]
    Stack,
    /// The result is too large.
    #[error("the result is larger than {0} bytes; return less, or write it to a file")]
    Output(u64),
    /// The log is too large.
    #[error("the log is larger than {0} bytes; print less")]
    Log(u64),
    /// Too many calls of bindings.
    #[error("the code made more than {0} calls; do more with each, or raise `calls`")]
    Calls(u32),
    /// The arguments of one call are too large.
    #[error("the arguments of one call have more than {0} bytes; pass less at once")]
    CallSize(u64),
    /// Too many calls wait at the same time.
    #[error("more than {0} calls wait at the same time; await some before making more")]
    Concurrency(u32),
    /// The program waits, and nothing that it waits for can come.
    #[error("the code awaits something that never comes; look for a promise that nothing resolves")]
    Deadlock,
    /// Someone stopped the program.
    #[error("the code was stopped")]
    Stopped,
    /// Too many programs wait for an isolate.
    #[error("{0} programs wait for an isolate already; try again later")]
    QueueFull(u32),
    /// The guest broke its own rules, which hostile code may bring about; it is contained and discarded.
    #[error("the engine inside the isolate failed ({0}); it was discarded, try other code")]
    Fault(String),
    /// An answer does not fit what the program waits for.
    #[error("no call {0} waits for such an answer")]
    NotWaiting(u32),
    /// There is nothing to save: the program does not wait.
    #[error("a program can be saved only while it waits")]
    NotSavable,
    /// The saved program is damaged, forged or of an unknown format.
    #[error("the saved program cannot be used: {0}; run its code again")]
    SavedInvalid(&'static str),
    /// The saved program needs an engine that this binary does not have.
    #[error("the saved program belongs to another version of the engine; run its code again")]
    SavedImage,
    /// The saved program was bound to other bindings.
    #[error("the bindings have changed since the program was saved; run its code again")]
    SavedBindings,
    /// The engine cannot be started on this machine.
    #[error("isolates cannot be started: {0}")]
    Engine(String),
}

impl IsolateError {
    /// The stable type that users see; each has a page in `docs/errors`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Syntax { .. } => "isolate_syntax",
            Self::SourceTooLarge { .. } => "isolate_source_too_large",
            Self::Wall(_) => "isolate_wall",
            Self::Cpu(_) => "isolate_cpu",
            Self::Memory(_) => "isolate_memory",
            Self::MemoryTotal(_) => "isolate_memory_total",
            Self::Stack => "isolate_stack",
            Self::Output(_) => "isolate_output",
            Self::Log(_) => "isolate_log",
            Self::Calls(_) => "isolate_calls",
            Self::CallSize(_) => "isolate_call_size",
            Self::Concurrency(_) => "isolate_concurrency",
            Self::Deadlock => "isolate_deadlock",
            Self::Stopped => "isolate_stopped",
            Self::QueueFull(_) => "isolate_queue_full",
            Self::Fault(_) => "isolate_fault",
            Self::NotWaiting(_) => "isolate_not_waiting",
            Self::NotSavable => "isolate_not_savable",
            Self::SavedInvalid(_) => "isolate_saved_invalid",
            Self::SavedImage => "isolate_saved_image",
            Self::SavedBindings => "isolate_saved_bindings",
            Self::Engine(_) => "isolate_engine",
        }
    }
}
