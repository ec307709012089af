//! What the format of an agent knows and this version cannot do yet.

use super::fault::{Fault, FaultKind};

/// A part of the format that may not be built yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Feature {
    ContainerSandbox,
    SchedulesFolder,
    Subagents,
    SubagentsFolder,
    WorkflowsFolder,
}

/// The only place that says so: whoever builds a feature removes its line here. A setting that
/// would be ignored is an error, never a silence.
const NOT_BUILT: &[Feature] = &[
    Feature::ContainerSandbox,
    Feature::SchedulesFolder,
    Feature::Subagents,
    Feature::SubagentsFolder,
    Feature::WorkflowsFolder,
];

impl Feature {
    /// An error when this is not built; `line` is where it is asked for.
    pub(super) fn need(self, line: Option<u32>) -> Result<(), Fault> {
        if !NOT_BUILT.contains(&self) {
            return Ok(());
        }
        Err(Fault::new(
            FaultKind::NotSupported,
            line,
            format!("{}: not supported yet", self.name()),
            self.instead(),
        ))
    }

    fn name(self) -> &'static str {
        match self {
            Self::ContainerSandbox => "`sandbox: {container: …}`",
            Self::SchedulesFolder => "the folder `schedules`",
            Self::Subagents => "`subagents`",
            Self::SubagentsFolder => "the folder `subagents`",
            Self::WorkflowsFolder => "the folder `workflows`",
        }
    }

    fn instead(self) -> &'static str {
        match self {
            Self::ContainerSandbox => "use `sandbox: workspace`",
            Self::SchedulesFolder | Self::SubagentsFolder | Self::WorkflowsFolder => {
                "remove the folder"
            }
            Self::Subagents => "remove the key",
        }
    }
}
