//! What a program may use, and what it has used.

use std::time::Duration;

/// What one program may use. Each limit that is hit stops the program with the
/// [`IsolateError`](super::IsolateError) that names it; no code of the program can catch that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Time from the start, as the caller's clock tells it, waiting included. Default 60 s. The engine
    /// checks it whenever the caller gives it a time; a caller that waits enforces it with
    /// [`Stopper::stop`](super::Stopper::stop).
    pub wall: Duration,
    /// CPU time of the program itself. Default 5 s. Measured each millisecond while it runs.
    pub cpu: Duration,
    /// Linear memory in bytes, the engine's own 2 MiB included. Default 64 MiB, at least 4 MiB, at most
    /// [`Limits::MEMORY_MAX`].
    pub memory: u64,
    /// How deep calls may nest: the part of the guest's stack that they may fill, in bytes. Default and most
    /// [`Limits::STACK`], about 2,000 simple calls; at least [`Limits::STACK_MIN`]. A call beyond it throws a
    /// `RangeError`, which the program may catch.
    pub stack: u32,
    /// The encoded result (or error) in bytes. Default 1 MiB.
    pub output: u32,
    /// All lines of the log together, in bytes. Default 256 KiB.
    pub log: u32,
    /// Calls of bindings and timers in the whole run. Default 10,000.
    pub calls: u32,
    /// The encoded arguments of one call in bytes. Default 4 MiB. A result that is larger reaches the
    /// program as an error that it can catch.
    pub call_bytes: u32,
    /// Calls and timers that wait at the same time. Default 1,000.
    pub concurrency: u32,
}

impl Limits {
    /// The largest memory that can be set: 512 MiB.
    pub const MEMORY_MAX: u64 = 512 << 20;
    /// The stack inside the guest that JavaScript may fill, in bytes: 480 KiB. It is part of the image.
    pub const STACK: u32 = 480 << 10;
    /// The smallest stack that can be set, in bytes: 64 KiB.
    pub const STACK_MIN: u32 = 64 << 10;
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            wall: Duration::from_secs(60),
            cpu: Duration::from_secs(5),
            memory: 64 << 20,
            stack: Self::STACK,
            output: 1 << 20,
            log: 256 << 10,
            calls: 10_000,
            call_bytes: 4 << 20,
            concurrency: 1_000,
        }
    }
}

/// What a program has used so far; it survives being saved and restored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time inside the guest.
    pub cpu: Duration,
    /// Calls of bindings and timers made.
    pub calls: u32,
    /// Bytes of log written.
    pub log: u32,
    /// Bytes of linear memory at its largest.
    pub memory: u64,
    /// Times the guest was entered: once to start and once for each answer.
    pub slices: u32,
}
