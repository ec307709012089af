//! What a submission may use at most.

use std::time::Duration;

use bowline_sandbox::workspace::WorkspaceLimits;

use super::code::CodeSettings;
use super::document::Node;
use super::fault::Fault;

/// What one submission may use at most. When a limit is hit the submission ends with an error that
/// names it.
pub use bowline_runtime::Budget as Limits;

/// The limits that a file sets; the others are left to someone else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LimitSettings {
    /// See [`Limits::spend_usd`]: micro-dollars.
    pub spend_usd: Option<u64>,
    /// See [`Limits::turns`]: 1 to 100,000.
    pub turns: Option<u32>,
    /// See [`Limits::tool_calls`]: 0 to 1,000,000.
    pub tool_calls: Option<u32>,
    /// See [`Limits::wall`]: 1 s to 30 days.
    pub wall: Option<Duration>,
    /// See [`Limits::attempts`]: 1 to 1,000.
    pub attempts: Option<u32>,
    /// See [`Limits::tokens`]: at least 1.
    pub tokens: Option<u64>,
    /// See [`Limits::depth`]: 0 to 16.
    pub depth: Option<u32>,
    /// `workspace_mib`, see [`WorkspaceLimits::bytes`]: 1 to 1,048,576, in bytes here.
    pub workspace_bytes: Option<u64>,
    /// `workspace_entries`, see [`WorkspaceLimits::entries`]: 1 to 100,000,000.
    pub workspace_entries: Option<u64>,
    /// `file_mib`, see [`WorkspaceLimits::file_bytes`]: 1 to 4,096, in bytes here.
    pub file_bytes: Option<u64>,
    /// What a run of code may use: `[code]` of `bowline.toml`, which is no key of `limits`.
    pub code: CodeSettings,
}

impl LimitSettings {
    const KEYS: [&'static str; 10] = [
        "spend_usd",
        "turns",
        "tool_calls",
        "wall",
        "attempts",
        "tokens",
        "depth",
        "workspace_mib",
        "workspace_entries",
        "file_mib",
    ];

    /// Reads the value of the key `limits`.
    ///
    /// # Errors
    ///
    /// A fault with its line for an unknown key, or a value that is not allowed.
    pub fn read(node: &Node) -> Result<Self, Fault> {
        let table = node.table("limits", &Self::KEYS)?;
        let count = |key: &str, min: u64, max: u64| -> Result<Option<u64>, Fault> {
            table
                .get(key)
                .map(|node| node.count(key, min, max))
                .transpose()
        };
        let small = |key: &str, min: u64, max: u32| -> Result<Option<u32>, Fault> {
            Ok(count(key, min, u64::from(max))?.and_then(|count| u32::try_from(count).ok()))
        };
        let mib = |key: &str, most: u64| -> Result<Option<u64>, Fault> {
            Ok(count(key, 1, most)?.map(|mib| mib << 20))
        };
        const DAY: Duration = Duration::from_secs(86_400);
        Ok(Self {
            spend_usd: table
                .get("spend_usd")
                .map(|node| node.usd("spend_usd"))
                .transpose()?,
            turns: small("turns", 1, 100_000)?,
            tool_calls: small("tool_calls", 0, 1_000_000)?,
            wall: table
                .get("wall")
                .map(|node| node.duration("wall", Duration::from_secs(1), 30 * DAY))
                .transpose()?,
            attempts: small("attempts", 1, 1_000)?,
            tokens: count("tokens", 1, u64::MAX >> 1)?,
            depth: small("depth", 0, 16)?,
            workspace_bytes: mib("workspace_mib", 1 << 20)?,
            workspace_entries: count("workspace_entries", 1, 100_000_000)?,
            file_bytes: mib("file_mib", 4096)?,
            code: CodeSettings::default(),
        })
    }

    /// `limits` with the values that are set here in place of its own.
    pub fn apply(&self, limits: Limits) -> Limits {
        Limits {
            spend_usd: self.spend_usd.or(limits.spend_usd),
            turns: self.turns.unwrap_or(limits.turns),
            tool_calls: self.tool_calls.unwrap_or(limits.tool_calls),
            wall: self.wall.unwrap_or(limits.wall),
            attempts: self.attempts.unwrap_or(limits.attempts),
            tokens: self.tokens.or(limits.tokens),
            depth: self.depth.unwrap_or(limits.depth),
        }
    }

    /// `limits` of a workspace with the values that are set here in place of its own.
    pub fn apply_to_workspace(&self, limits: WorkspaceLimits) -> WorkspaceLimits {
        WorkspaceLimits {
            bytes: self.workspace_bytes.unwrap_or(limits.bytes),
            entries: self.workspace_entries.unwrap_or(limits.entries),
            file_bytes: self.file_bytes.unwrap_or(limits.file_bytes),
            ..limits
        }
    }
}
