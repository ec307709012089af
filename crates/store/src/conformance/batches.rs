//! Atomicity, fences, histories.

use bytes::Bytes;

use super::{Case, Outcome, actor, put, record, recording};
use crate::{
    ActorId, Batch, Blob, BlobId, OutboxMessage, Record, RowChange, Store, Timestamp, Wake, limits,
};

/// A batch that is refused leaves nothing: no record, row, blob, wake or message.
pub async fn a_batch_is_all_or_nothing(store: &dyn Store) -> Outcome {
    let case = Case("a_batch_is_all_or_nothing");
    let one = actor("one");
    case.ok(store.commit(recording(&one, 1, 0, 1)).await)?;
    let before = case.ok(store.head(&one).await)?;

    let blob = Blob::new(Bytes::from_static(b"never kept"));
    let mut batch = recording(&one, 1, 1, 2);
    batch.rows.push(RowChange::Put {
        space: "s",
        key: b"k".to_vec(),
        value: Bytes::new(),
        blobs: vec![blob.id],
    });
    // The store cannot know that this one is missing before it has looked.
    let missing = BlobId::of(b"nobody has this");
    batch.rows.push(RowChange::Put {
        space: "s",
        key: b"l".to_vec(),
        value: Bytes::new(),
        blobs: vec![missing],
    });
    batch.blobs.push(blob.clone());
    batch.wake = Wake::At(Timestamp::from_millis(1));
    batch.outbox.push(OutboxMessage {
        to: actor("two"),
        id: "m".into(),
        time: Timestamp::from_millis(1),
        body: Bytes::from_static(b"{}"),
    });
    case.invalid(store.commit(batch.clone()).await)?;
    case.same("head", &before, &case.ok(store.head(&one).await)?)?;
    case.same(
        "records",
        &1,
        &case.ok(store.read(&one, 0, 10).await)?.len(),
    )?;
    case.same("row", &None, &case.ok(store.row(&one, "s", b"k").await)?)?;
    case.same("blob", &None, &case.ok(store.blob(blob.id).await)?)?;
    case.same("wake", &None, &case.ok(store.next_wake().await)?)?;
    case.same("delivered", &0, &case.ok(store.deliver(10).await)?.len())?;

    batch.rows.pop();
    case.same("sequence", &3, &case.ok(store.commit(batch).await)?)?;
    case.same(
        "row",
        &true,
        &case.ok(store.row(&one, "s", b"k").await)?.is_some(),
    )?;
    case.same(
        "blob",
        &Some(blob.bytes),
        &case.ok(store.blob(blob.id).await)?,
    )?;
    case.same(
        "wake",
        &Some(Timestamp::from_millis(1)),
        &case.ok(store.next_wake().await)?,
    )?;
    case.same("delivered", &1, &case.ok(store.deliver(10).await)?.len())
}

/// Batches that are handed in together succeed or fail each for itself.
pub async fn a_refused_batch_does_not_fail_its_neighbours(store: &dyn Store) -> Outcome {
    let case = Case("a_refused_batch_does_not_fail_its_neighbours");
    let batches = (0..64_u64).map(|n| {
        let one = actor(&format!("neighbour {n}"));
        let mut batch = recording(&one, 1, if n % 4 == 1 { 9 } else { 0 }, 1);
        if n % 4 == 2 {
            batch
                .rows
                .push(put("s", b"first", b"written before the batch fails"));
            batch.inbox_acks.push("never arrived".into());
        }
        batch
    });
    let commits: Vec<_> = batches.map(|batch| store.commit(batch)).collect();
    for (n, result) in together(commits).await.into_iter().enumerate() {
        let one = actor(&format!("neighbour {n}"));
        let head = case.ok(store.head(&one).await)?;
        match n % 4 {
            1 => case.conflict(result)?,
            2 => case.invalid(result)?,
            _ => case.same("sequence", &1, &case.ok(result)?)?,
        }
        case.same("there", &!matches!(n % 4, 1 | 2), &head.is_some())?;
    }
    Ok(())
}

/// `expected_seq` other than the actor's last sequence is refused, whatever else the batch holds.
pub async fn another_sequence_is_a_conflict(store: &dyn Store) -> Outcome {
    let case = Case("another_sequence_is_a_conflict");
    let one = actor("one");
    case.conflict(store.commit(recording(&one, 1, 1, 1)).await)?;
    case.ok(store.commit(recording(&one, 1, 0, 2)).await)?;
    case.conflict(store.commit(recording(&one, 1, 0, 1)).await)?;
    case.conflict(store.commit(recording(&one, 1, 3, 1)).await)?;
    case.conflict(store.commit(recording(&one, 2, 1, 1)).await)?;
    case.conflict(store.commit(Batch::new(one.clone(), 1, 1)).await)?;
    let mut wrong = recording(&one, 1, 0, 0);
    wrong.rows.push(put("s", &[0; limits::MAX_KEY + 1], b""));
    case.conflict(store.commit(wrong).await)?;
    case.same(
        "sequence",
        &3,
        &case.ok(store.commit(recording(&one, 1, 2, 1)).await)?,
    )
}

/// A writer whose epoch is older than the actor's is refused, whatever else its batch holds.
pub async fn an_older_epoch_is_fenced(store: &dyn Store) -> Outcome {
    let case = Case("an_older_epoch_is_fenced");
    let one = actor("one");
    case.ok(store.commit(recording(&one, 4, 0, 1)).await)?;
    case.ok(store.commit(recording(&one, 5, 1, 1)).await)?;
    case.fenced(store.commit(recording(&one, 4, 2, 1)).await)?;
    case.fenced(store.commit(recording(&one, 4, 1, 1)).await)?;
    case.fenced(store.commit(Batch::new(one.clone(), 4, 2)).await)?;
    case.same(
        "sequence",
        &3,
        &case.ok(store.commit(recording(&one, 5, 2, 1)).await)?,
    )?;
    let records = case.ok(store.read(&one, 0, 10).await)?;
    let epochs: Vec<_> = records.iter().map(|record| record.epoch).collect();
    case.same("epochs", &vec![4, 5, 5], &epochs)?;
    case.same(
        "epoch",
        &Some(5),
        &case.ok(store.head(&one).await)?.map(|head| head.epoch),
    )
}

/// A batch with a greater epoch and without a record is invalid, and takes nothing over.
pub async fn a_takeover_needs_a_record(store: &dyn Store) -> Outcome {
    let case = Case("a_takeover_needs_a_record");
    let one = actor("one");
    let mut rows = Batch::new(one.clone(), 1, 0);
    rows.rows.push(put("s", b"k", b"v"));
    case.invalid(store.commit(rows.clone()).await)?;
    case.invalid(store.commit(Batch::new(one.clone(), 1, 0)).await)?;
    case.same("head", &None, &case.ok(store.head(&one).await)?)?;
    rows.records.push(record("1"));
    case.ok(store.commit(rows).await)?;
    case.invalid(store.commit(Batch::new(one.clone(), 2, 1)).await)?;
    let mut more = Batch::new(one.clone(), 1, 1);
    more.rows.push(put("s", b"k", b"w"));
    case.same("the owner goes on", &1, &case.ok(store.commit(more).await)?)
}

/// Two writers that take an actor over with the same epoch: one of them owns it, the other is told.
pub async fn of_two_takeovers_with_one_epoch_one_wins(store: &dyn Store) -> Outcome {
    let case = Case("of_two_takeovers_with_one_epoch_one_wins");
    let one = actor("one");
    case.ok(store.commit(recording(&one, 1, 0, 1)).await)?;
    let results = together(vec![
        store.commit(recording(&one, 2, 1, 1)),
        store.commit(recording(&one, 2, 1, 1)),
    ])
    .await;
    case.same(
        "winners",
        &1,
        &results.iter().filter(|result| result.is_ok()).count(),
    )?;
    for result in results.into_iter().filter(Result::is_err) {
        case.conflict(result)?;
    }
    case.same(
        "records",
        &2,
        &case.ok(store.read(&one, 0, 10).await)?.len(),
    )
}

/// A history is read back as it was written, in order, from any place and in pieces.
pub async fn records_are_read_in_order_as_they_were_written(store: &dyn Store) -> Outcome {
    let case = Case("records_are_read_in_order_as_they_were_written");
    let one = actor("one");
    let full = Record {
        kind: u16::MAX,
        version: u8::MAX,
        time: Timestamp::from_millis(-1),
        conversation: "conv_ünïcode".into(),
        submission: Some("sub".into()),
        attempt: Some(String::new()),
        turn: Some("turn".into()),
        body: Bytes::from(vec![b'x'; 100_000]),
        blobs: Vec::new(),
    };
    let mut batch = recording(&one, 1, 0, 4);
    batch.records.push(full.clone());
    case.same("sequence", &5, &case.ok(store.commit(batch).await)?)?;
    case.ok(store.commit(recording(&one, 1, 5, 2)).await)?;
    case.ok(store.commit(recording(&actor("other"), 1, 0, 3)).await)?;

    let all = case.ok(store.read(&one, 0, 100).await)?;
    let seqs: Vec<_> = all.iter().map(|record| record.seq).collect();
    case.same("sequences", &vec![1, 2, 3, 4, 5, 6, 7], &seqs)?;
    case.same(
        "record",
        &Some(&full),
        &all.get(4).map(|stored| &stored.record),
    )?;
    let part = case.ok(store.read(&one, 3, 3).await)?;
    case.same("part", &all.get(3..6).unwrap_or_default(), &part.as_slice())?;
    case.same("end", &0, &case.ok(store.read(&one, 7, 10).await)?.len())?;
    case.same(
        "past the end",
        &0,
        &case.ok(store.read(&one, 70, 10).await)?.len(),
    )?;
    case.same(
        "nobody",
        &0,
        &case.ok(store.read(&actor("nobody"), 0, 10).await)?.len(),
    )
}

/// Batches that one writer hands in without waiting become durable in that order.
pub async fn batches_of_an_actor_are_durable_in_order(store: &dyn Store) -> Outcome {
    let case = Case("batches_of_an_actor_are_durable_in_order");
    let one = actor("one");
    let commits: Vec<_> = (0..200)
        .map(|n| store.commit(recording(&one, 1, n, 1)))
        .collect();
    for (n, result) in together(commits).await.into_iter().enumerate() {
        case.same("sequence", &(n as u64 + 1), &case.ok(result)?)?;
    }
    let records = case.ok(store.read(&one, 0, 1000).await)?;
    let bodies = records
        .iter()
        .enumerate()
        .all(|(n, stored)| stored.record.body == (n + 1).to_string().as_bytes());
    case.holds("bodies are in order", bodies)
}

/// An empty batch of the owner returns the sequence, and costs no flush.
pub async fn an_empty_batch_changes_nothing(store: &dyn Store) -> Outcome {
    let case = Case("an_empty_batch_changes_nothing");
    let one = actor("one");
    case.same(
        "sequence",
        &0,
        &case.ok(store.commit(Batch::new(one.clone(), 0, 0)).await)?,
    )?;
    case.same("head", &None, &case.ok(store.head(&one).await)?)?;
    case.ok(store.commit(recording(&one, 1, 0, 1)).await)?;
    let flushes = store.metrics().flushes;
    case.same(
        "sequence",
        &1,
        &case.ok(store.commit(Batch::new(one.clone(), 1, 1)).await)?,
    )?;
    case.same("flushes", &flushes, &store.metrics().flushes)
}

/// Parts of a batch above their limit are invalid; those at their limit are kept.
pub async fn what_is_too_large_is_invalid(store: &dyn Store) -> Outcome {
    let case = Case("what_is_too_large_is_invalid");
    let one = actor("one");
    case.ok(store.commit(recording(&one, 1, 0, 1)).await)?;
    let with = |row: RowChange| {
        let mut batch = Batch::new(one.clone(), 1, 1);
        batch.rows.push(row);
        batch
    };
    let space: &'static str = "0123456789012345678901234567890123456789012345678901234567890123";
    let long: &'static str = "01234567890123456789012345678901234567890123456789012345678901234";
    let (key, value) = (vec![0; limits::MAX_KEY], vec![1; limits::MAX_VALUE]);
    case.ok(store.commit(with(put(space, &key, &value))).await)?;
    case.same(
        "row",
        &Some(Bytes::from(value.clone())),
        &case.ok(store.row(&one, space, &key).await)?,
    )?;
    case.invalid(store.commit(with(put(long, b"k", b"v"))).await)?;
    case.invalid(
        store
            .commit(with(put("s", &[0; limits::MAX_KEY + 1], b"v")))
            .await,
    )?;
    case.invalid(
        store
            .commit(with(put("s", b"k", &vec![1; limits::MAX_VALUE + 1])))
            .await,
    )?;
    let part = "x".repeat(ActorId::MAX_PART);
    case.ok(store.commit(recording(&actor(&part), 1, 0, 1)).await)?;
    case.invalid(
        store
            .commit(recording(&actor(&(part + "x")), 1, 0, 1))
            .await,
    )?;
    let mut body = Batch::new(one.clone(), 1, 1);
    body.records.push(record(&"x".repeat(limits::MAX_BODY + 1)));
    case.invalid(store.commit(body).await)
}

/// Polls all futures from the first to the last until each is done.
pub(super) async fn together<T>(futures: Vec<impl Future<Output = T>>) -> Vec<T> {
    let mut running: Vec<_> = futures
        .into_iter()
        .map(|future| (Box::pin(future), None))
        .collect();
    std::future::poll_fn(move |context| {
        let mut pending = false;
        for (future, result) in &mut running {
            if result.is_none() {
                match future.as_mut().poll(context) {
                    std::task::Poll::Ready(value) => *result = Some(value),
                    std::task::Poll::Pending => pending = true,
                }
            }
        }
        if pending {
            return std::task::Poll::Pending;
        }
        std::task::Poll::Ready(
            running
                .iter_mut()
                .filter_map(|(_, result)| result.take())
                .collect(),
        )
    })
    .await
}
