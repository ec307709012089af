//! Old conversations are deleted, where the project says so.

use std::time::Duration;

use bowline_agent::KIND;
use bowline_runtime::{Runtime, RuntimeError, child, submission};
use bowline_store::{ActorId, Timestamp};
use tokio_util::sync::CancellationToken;

/// How often it is looked for what is old enough.
const EVERY: Duration = Duration::from_secs(3_600);
/// Conversations that are looked at between two looks at whether to stop.
const PAGE: usize = 256;

/// What is kept for how long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// How long a conversation is kept after its last record. Default: for ever. Shortest: one hour.
    pub conversations: Option<Duration>,
}

/// What one look came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Conversations that were looked at.
    pub seen: usize,
    /// Those that were deleted.
    pub deleted: usize,
}

impl Retention {
    /// Deletes what is old, now and then once an hour, until it is told to stop.
    pub(crate) async fn enforce(self, runtime: &Runtime, stop: &CancellationToken) {
        if self.conversations.is_none() {
            return;
        }
        loop {
            match self.sweep(runtime, stop).await {
                Ok(swept) if swept.deleted > 0 => {
                    tracing::info!(swept.deleted, swept.seen, "old conversations were deleted");
                }
                Ok(_) => {}
                Err(cause) => tracing::error!(%cause, "old conversations cannot be deleted"),
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    }

    /// Looks at every conversation once, and deletes those that are old and have nothing open: no
    /// submission, nothing parked, no schedule, no message under way, no child.
    ///
    /// # Errors
    ///
    /// When the store cannot be read or written; what was deleted by then stays so.
    pub async fn sweep(
        self,
        runtime: &Runtime,
        stop: &CancellationToken,
    ) -> Result<Swept, RuntimeError> {
        let mut swept = Swept::default();
        let Some(keep) = self.conversations else {
            return Ok(swept);
        };
        let mut after: Option<ActorId> = None;
        while !stop.is_cancelled() {
            let store = runtime.store();
            let page = store.actors(KIND, None, after.as_ref(), PAGE).await?;
            for actor in &page {
                swept.seen += 1;
                swept.deleted += usize::from(retire(runtime, actor, keep).await?);
            }
            after = page.last().cloned();
            if page.len() < PAGE {
                break;
            }
        }
        Ok(swept)
    }
}

async fn retire(runtime: &Runtime, actor: &ActorId, keep: Duration) -> Result<bool, RuntimeError> {
    let store = &**runtime.store();
    let Some(head) = store.head(actor).await?.filter(|head| head.seq > 0) else {
        return Ok(false);
    };
    if head.wake.is_some() {
        return Ok(false);
    }
    let last = store.read(actor, head.seq - 1, 1).await?;
    let is_old = |time: Timestamp| time.after(keep) <= runtime.sources().now();
    if !last.first().is_some_and(|last| is_old(last.record.time)) {
        return Ok(false);
    }
    if !submission::open(store, actor).await?.is_empty()
        || !child::list(store, actor, None, 1).await?.is_empty()
    {
        return Ok(false);
    }
    // Whoever has written since is not idle at this record any more.
    runtime.purge_idle(actor, head.seq).await
}
