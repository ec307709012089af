//! Differences of texts, as unified diffs that `patch` takes.

use similar::TextDiff;

use super::SearchError;
use crate::workspace::{Overlay, WorkspaceError};

/// Largest file that is compared, in bytes.
pub const MAX_DIFF: u64 = 16 << 20;
/// Lines of context around a change.
const CONTEXT: usize = 3;
/// Time after which a coarser but right difference is taken.
const DEADLINE: std::time::Duration = std::time::Duration::from_secs(2);

/// The unified diff of two texts with three lines of context; empty when they are equal. The names
/// are those of the two header lines.
pub fn unified_diff(old: &str, new: &str, old_name: &str, new_name: &str) -> String {
    if old == new {
        return String::new();
    }
    let diff = TextDiff::configure().timeout(DEADLINE).diff_lines(old, new);
    diff.unified_diff()
        .context_radius(CONTEXT)
        .header(old_name, new_name)
        .to_string()
}

/// The unified diff of two files.
///
/// # Errors
///
/// As [`Overlay::read`], `EFBIG` above [`MAX_DIFF`], [`SearchError::Pattern`] for a file that is not
/// text.
pub async fn diff_files(overlay: &Overlay, old: &str, new: &str) -> Result<String, SearchError> {
    let (before, after) = (text(overlay, old).await?, text(overlay, new).await?);
    Ok(unified_diff(&before, &after, old, new))
}

/// The text of a file that can be compared.
pub(crate) async fn text(overlay: &Overlay, path: &str) -> Result<String, SearchError> {
    if overlay.stat(path).await?.size > MAX_DIFF {
        return Err(WorkspaceError::TooLarge {
            path: path.into(),
            limit: MAX_DIFF,
        }
        .into());
    }
    let bytes = overlay.read(path).await?.to_vec();
    String::from_utf8(bytes).map_err(|_| SearchError::Pattern(format!("{path} is not UTF-8 text")))
}
