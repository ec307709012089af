//! The suite that each engine must pass. An engine's tests are one call:
//!
//! ```ignore
//! conformance::all(&MyEngine).await?;
//! ```
//!
//! Each behaviour is also a function of its own. They need nothing but a store, report what they
//! found instead of panicking, and never look at a clock.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    ActorId, Batch, CommitError, Epoch, Record, RowChange, Seq, Store, StoreError, Timestamp,
};

pub mod batches;
pub mod messages;
pub mod rows;
pub mod time;
pub mod whole;

/// Makes the stores that the suite looks at.
#[async_trait]
pub trait Engine: Send + Sync {
    /// A new, empty store.
    async fn fresh(&self) -> Result<Arc<dyn Store>, StoreError>;

    /// The same store after its process ended: closed, and opened again. `None` when the engine keeps
    /// nothing.
    async fn reopen(&self, store: Arc<dyn Store>) -> Result<Option<Arc<dyn Store>>, StoreError>;
}

/// An engine does not keep the contract.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{behaviour}: {detail}")]
pub struct ConformanceError {
    /// The function of this module that failed.
    pub behaviour: &'static str,
    /// What was found instead.
    pub detail: String,
}

/// The result of a behaviour.
pub type Outcome = Result<(), ConformanceError>;

/// Runs every behaviour, each on a fresh store, and verifies that store afterwards.
pub async fn all(engine: &dyn Engine) -> Outcome {
    macro_rules! run {
        ($($module:ident :: $behaviour:ident),* $(,)?) => {$(
            let case = Case(stringify!($behaviour));
            let store = case.ok(engine.fresh().await)?;
            $module::$behaviour(store.as_ref()).await?;
            match store.verify().await {
                Ok(()) | Err(StoreError::Closed(_)) => store.close().await,
                Err(error) => return Err(case.fail(format!("left a damaged store: {error}"))),
            }
        )*};
    }
    run!(
        batches::a_batch_is_all_or_nothing,
        batches::a_refused_batch_does_not_fail_its_neighbours,
        batches::another_sequence_is_a_conflict,
        batches::an_older_epoch_is_fenced,
        batches::a_takeover_needs_a_record,
        batches::of_two_takeovers_with_one_epoch_one_wins,
        batches::records_are_read_in_order_as_they_were_written,
        batches::batches_of_an_actor_are_durable_in_order,
        batches::an_empty_batch_changes_nothing,
        batches::what_is_too_large_is_invalid,
        rows::rows_are_put_replaced_and_deleted,
        rows::a_scan_is_ordered_and_bounded,
        rows::a_prefix_is_deleted_and_nothing_else,
        rows::actors_do_not_share_rows,
        rows::blobs_of_any_size_are_kept,
        rows::a_blob_lives_as_long_as_something_refers_to_it,
        rows::a_blob_that_nothing_refers_to_is_invalid,
        messages::a_message_arrives_once,
        messages::a_taken_message_does_not_arrive_again,
        messages::the_outbox_is_delivered_exactly_once,
        messages::an_interrupted_delivery_is_not_repeated,
        messages::waiting_actors_are_found,
        time::wakes_are_due_in_order,
        time::a_tail_wakes_for_durable_records,
        time::a_closed_store_refuses,
        time::a_purge_keeps_the_fence,
        time::a_purge_leaves_nothing_behind,
        time::actors_are_listed_in_pages,
        whole::a_dump_is_the_whole_actor,
        whole::a_busy_actor_is_left_alone,
    );
    reopening_keeps_everything(engine).await
}

/// What was committed before a store was closed is there when it is opened again, fences included.
pub async fn reopening_keeps_everything(engine: &dyn Engine) -> Outcome {
    let case = Case("reopening_keeps_everything");
    let store = case.ok(engine.fresh().await)?;
    let (kept, purged) = (actor("kept"), actor("purged"));
    let mut batch = recording(&kept, 3, 0, 2);
    batch.rows.push(put("s", b"k", b"v"));
    batch.wake = crate::Wake::At(Timestamp::from_millis(7));
    case.ok(store.commit(batch).await)?;
    case.ok(store.commit(recording(&purged, 5, 0, 1)).await)?;
    case.ok(store.purge(&purged).await)?;
    case.ok(store.send(&kept, messages::message("m")).await)?;
    let heads = (
        case.ok(store.head(&kept).await)?,
        case.ok(store.head(&purged).await)?,
    );
    let records = case.ok(store.read(&kept, 0, 10).await)?;

    let Some(store) = case.ok(engine.reopen(store).await)? else {
        return Ok(());
    };
    case.same(
        "heads",
        &heads,
        &(
            case.ok(store.head(&kept).await)?,
            case.ok(store.head(&purged).await)?,
        ),
    )?;
    case.same(
        "records",
        &records,
        &case.ok(store.read(&kept, 0, 10).await)?,
    )?;
    case.same(
        "row",
        &Some(Bytes::from_static(b"v")),
        &case.ok(store.row(&kept, "s", b"k").await)?,
    )?;
    case.same(
        "wake",
        &Some(Timestamp::from_millis(7)),
        &case.ok(store.next_wake().await)?,
    )?;
    case.same("inbox", &1, &case.ok(store.inbox(&kept, 10).await)?.len())?;
    case.same(
        "second arrival",
        &false,
        &case.ok(store.send(&kept, messages::message("m")).await)?,
    )?;
    case.fenced(store.commit(recording(&kept, 2, 2, 1)).await)?;
    case.fenced(store.commit(recording(&purged, 5, 0, 1)).await)?;
    case.same(
        "next sequence",
        &3,
        &case.ok(store.commit(recording(&kept, 3, 2, 1)).await)?,
    )?;
    case.ok(store.verify().await)?;
    store.close().await;
    Ok(())
}

/// A behaviour that is being looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case(pub(crate) &'static str);

impl Case {
    pub(crate) fn fail(self, detail: String) -> ConformanceError {
        ConformanceError {
            behaviour: self.0,
            detail,
        }
    }

    /// The value, or the error as a finding.
    pub(crate) fn ok<T, E: fmt::Display>(
        self,
        result: Result<T, E>,
    ) -> Result<T, ConformanceError> {
        result.map_err(|error| self.fail(format!("failed: {error}")))
    }

    pub(crate) fn holds(self, what: &str, condition: bool) -> Outcome {
        if condition {
            Ok(())
        } else {
            Err(self.fail(format!("does not hold: {what}")))
        }
    }

    pub(crate) fn same<T: PartialEq + fmt::Debug>(
        self,
        what: &str,
        expected: &T,
        found: &T,
    ) -> Outcome {
        if expected == found {
            Ok(())
        } else {
            Err(self.fail(format!("{what}: expected {expected:?}, found {found:?}")))
        }
    }

    pub(crate) fn invalid<T: fmt::Debug>(self, result: Result<T, CommitError>) -> Outcome {
        match result {
            Err(CommitError::Invalid(_)) => Ok(()),
            other => Err(self.fail(format!("expected an invalid batch, found {other:?}"))),
        }
    }

    pub(crate) fn fenced<T: fmt::Debug>(self, result: Result<T, CommitError>) -> Outcome {
        match result {
            Err(CommitError::Fenced { .. }) => Ok(()),
            other => Err(self.fail(format!("expected a fenced batch, found {other:?}"))),
        }
    }

    pub(crate) fn conflict<T: fmt::Debug>(self, result: Result<T, CommitError>) -> Outcome {
        match result {
            Err(CommitError::Conflict { .. }) => Ok(()),
            other => Err(self.fail(format!("expected a conflict, found {other:?}"))),
        }
    }
}

pub(crate) fn actor(key: &str) -> ActorId {
    ActorId::new("conformance", "one", key)
}

pub(crate) fn record(body: &str) -> Record {
    Record {
        kind: 1,
        version: 1,
        time: Timestamp::from_millis(1_000),
        conversation: "conv_1".into(),
        submission: None,
        attempt: None,
        turn: None,
        body: Bytes::copy_from_slice(body.as_bytes()),
        blobs: Vec::new(),
    }
}

/// A batch of `count` records whose bodies are their sequences.
pub(crate) fn recording(actor: &ActorId, epoch: Epoch, expected: Seq, count: u64) -> Batch {
    let mut batch = Batch::new(actor.clone(), epoch, expected);
    batch.records = (1..=count)
        .map(|n| record(&(expected + n).to_string()))
        .collect();
    batch
}

pub(crate) fn put(space: &'static str, key: &[u8], value: &[u8]) -> RowChange {
    RowChange::Put {
        space,
        key: key.to_vec(),
        value: Bytes::copy_from_slice(value),
        blobs: Vec::new(),
    }
}
