//! What the measured server uses, from outside of it.

use crate::telemetry::process::Process;

/// The process of a server that is measured. Where it is not known, or gone, there are no figures.
pub(super) trait Measured {
    /// Its id.
    fn pid(&self) -> Option<u32>;

    /// Seconds of processor time that it has used.
    fn cpu(&self) -> Option<f64> {
        Some(Process::of(self.pid()?)?.cpu_seconds)
    }

    /// Seconds of processor time since [`Self::cpu`] gave `before`.
    fn cpu_since(&self, before: Option<f64>) -> Option<f64> {
        Some(self.cpu()? - before?)
    }

    /// Its resident memory, in KiB.
    fn memory(&self) -> Option<f64> {
        Some(Process::of(self.pid()?)?.resident_kib)
    }

    /// How much that has grown since [`Self::memory`] gave `before`, in KiB.
    fn memory_since(&self, before: Option<f64>) -> Option<f64> {
        Some(self.memory()? - before?)
    }
}
