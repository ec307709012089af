//! What the processes of one command may use.

use serde::{Deserialize, Serialize};

/// Bounds of one command and all its processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostLimits {
    /// Processor time of each process, in seconds. Default 3,600.
    pub cpu_seconds: u64,
    /// Memory of all processes together, and data of each, in bytes. Default 4 GiB.
    pub memory_bytes: u64,
    /// Size of each file that is written, in bytes. Default 1 GiB.
    pub file_bytes: u64,
    /// Processes and threads at once. Default 512.
    pub processes: u64,
    /// Open files of each process. Default 4,096.
    pub open_files: u64,
    /// Output of a command, both streams together, in bytes; more ends it. Default 64 MiB.
    pub output_bytes: u64,
}

impl Default for HostLimits {
    fn default() -> Self {
        Self {
            cpu_seconds: 3_600,
            memory_bytes: 4 << 30,
            file_bytes: 1 << 30,
            processes: 512,
            open_files: 4_096,
            output_bytes: 64 << 20,
        }
    }
}
