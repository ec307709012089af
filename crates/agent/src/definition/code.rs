//! What a run of code may use, as files say it.

use std::time::Duration;

use super::CodeLimits;
use super::document::{Node, Table};
use super::fault::Fault;

/// The limits of code that a file sets; the others are left to someone else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CodeSettings {
    /// `wall`, see [`CodeLimits::wall`]: 10 ms to a day.
    pub wall: Option<Duration>,
    /// `cpu`, see [`CodeLimits::cpu`]: 10 ms to an hour.
    pub cpu: Option<Duration>,
    /// `memory_mib`, see [`CodeLimits::memory`]: 4 to 512, in bytes here.
    pub memory: Option<u64>,
    /// `stack_kib`, see [`CodeLimits::stack`]: 64 to 480, in bytes here.
    pub stack: Option<u32>,
    /// `output_kib`, see [`CodeLimits::output`]: 1 to 65,536, in bytes here.
    pub output: Option<u32>,
    /// `log_kib`, see [`CodeLimits::log`]: 1 to 65,536, in bytes here.
    pub log: Option<u32>,
    /// `calls`, see [`CodeLimits::calls`]: 1 to 1,000,000.
    pub calls: Option<u32>,
    /// `call_kib`, see [`CodeLimits::call_bytes`]: 1 to 65,536, in bytes here.
    pub call_bytes: Option<u32>,
    /// `concurrency`, see [`CodeLimits::concurrency`]: 1 to 10,000.
    pub concurrency: Option<u32>,
}

impl CodeSettings {
    /// The keys that it reads.
    pub const KEYS: [&'static str; 9] = [
        "wall",
        "cpu",
        "memory_mib",
        "stack_kib",
        "output_kib",
        "log_kib",
        "calls",
        "call_kib",
        "concurrency",
    ];

    /// Reads its keys of a table, which may have others.
    ///
    /// # Errors
    ///
    /// A fault with its line for a value that is not allowed.
    pub fn read(table: &Table<'_>) -> Result<Self, Fault> {
        const MIB: u64 = 1 << 20;
        let duration = |key: &str, most: u64| -> Result<Option<Duration>, Fault> {
            let (least, most) = (Duration::from_millis(10), Duration::from_secs(most));
            let read = |node: &Node| node.duration(key, least, most);
            table.get(key).map(read).transpose()
        };
        let count = |key: &str, least: u64, most: u64| -> Result<Option<u64>, Fault> {
            let read = |node: &Node| node.count(key, least, most);
            table.get(key).map(read).transpose()
        };
        let small = |key: &str, unit: u64, least: u64, most: u64| -> Result<Option<u32>, Fault> {
            let found = count(key, least, most)?;
            Ok(found.and_then(|found| u32::try_from(found * unit).ok()))
        };
        let stack = |bytes: u32| u64::from(bytes >> 10);
        let (least, most) = (stack(CodeLimits::STACK_MIN), stack(CodeLimits::STACK));
        Ok(Self {
            wall: duration("wall", 86_400)?,
            cpu: duration("cpu", 3_600)?,
            memory: count("memory_mib", 4, CodeLimits::MEMORY_MAX / MIB)?.map(|mib| mib * MIB),
            stack: small("stack_kib", 1_024, least, most)?,
            output: small("output_kib", 1_024, 1, 65_536)?,
            log: small("log_kib", 1_024, 1, 65_536)?,
            calls: small("calls", 1, 1, 1_000_000)?,
            call_bytes: small("call_kib", 1_024, 1, 65_536)?,
            concurrency: small("concurrency", 1, 1, 10_000)?,
        })
    }

    /// `limits` with the values that are set here in place of its own.
    pub fn apply(&self, limits: CodeLimits) -> CodeLimits {
        CodeLimits {
            wall: self.wall.unwrap_or(limits.wall),
            cpu: self.cpu.unwrap_or(limits.cpu),
            memory: self.memory.unwrap_or(limits.memory),
            stack: self.stack.unwrap_or(limits.stack),
            output: self.output.unwrap_or(limits.output),
            log: self.log.unwrap_or(limits.log),
            calls: self.calls.unwrap_or(limits.calls),
            call_bytes: self.call_bytes.unwrap_or(limits.call_bytes),
            concurrency: self.concurrency.unwrap_or(limits.concurrency),
        }
    }
}
