//! `[code]`: what code may use, one run and all runs of a process together.

use bowline_agent::code::CodeOptions;
use bowline_agent::definition::document::Node;
use bowline_agent::definition::{CodeSettings, Fault};

/// What the isolates of a process may use together. What is not set has the default of [`CodeOptions`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IsolateSettings {
    /// `isolates`: how many live at the same time, 1 to 10,000.
    pub live: Option<u32>,
    /// `isolates_each`: how many of them one conversation may have, 1 to 10,000.
    pub each: Option<u32>,
    /// `busy`: how many runs of code may be between their start and their first wait for something that
    /// takes its time, 1 to 10,000.
    pub busy: Option<u32>,
    /// `waiting`: programs that may wait for an isolate, 0 to 1,000,000.
    pub waiting: Option<u32>,
    /// `total_memory_mib`: memory of all of them together, 16 to 1,048,576; in bytes here.
    pub memory: Option<u64>,
    /// `at_once`: programs that have the CPU at the same time, 1 to 1,024.
    pub at_once: Option<usize>,
}

impl IsolateSettings {
    /// Puts what is set here into `options`.
    pub(crate) fn apply(&self, options: &mut CodeOptions) {
        let isolates = &mut options.isolates;
        isolates.live = self.live.unwrap_or(isolates.live);
        isolates.live_per_owner = self.each.unwrap_or(isolates.live_per_owner);
        isolates.busy = self.busy.unwrap_or(isolates.busy);
        isolates.waiting = self.waiting.unwrap_or(isolates.waiting);
        isolates.memory = self.memory.unwrap_or(isolates.memory);
        options.at_once = self.at_once.unwrap_or(options.at_once);
    }
}

pub(super) fn read(node: &Node) -> Result<(CodeSettings, IsolateSettings), Fault> {
    const OWN: [&str; 6] = [
        "isolates",
        "isolates_each",
        "busy",
        "waiting",
        "total_memory_mib",
        "at_once",
    ];
    let keys: Vec<&str> = CodeSettings::KEYS.into_iter().chain(OWN).collect();
    let table = node.table("code", &keys)?;
    let count = |key: &str, least: u64, most: u64| -> Result<Option<u64>, Fault> {
        let read = |node: &Node| node.count(key, least, most);
        table.get(key).map(read).transpose()
    };
    let small = |key: &str, least: u64, most: u64| -> Result<Option<u32>, Fault> {
        Ok(count(key, least, most)?.and_then(|found| u32::try_from(found).ok()))
    };
    let settings = IsolateSettings {
        live: small("isolates", 1, 10_000)?,
        each: small("isolates_each", 1, 10_000)?,
        busy: small("busy", 1, 10_000)?,
        waiting: small("waiting", 0, 1_000_000)?,
        memory: count("total_memory_mib", 16, 1 << 20)?.map(|mib| mib << 20),
        at_once: small("at_once", 1, 1_024)?.and_then(|found| usize::try_from(found).ok()),
    };
    Ok((CodeSettings::read(&table)?, settings))
}
