//! An actor as a whole: taken out, put in, deleted when nothing of it is under way.

use bytes::Bytes;

use super::{Case, Outcome, actor, messages::message, recording};
use crate::{Blob, DumpError, RowChange, Store, Timestamp, Wake};

/// Everything of an actor comes out, and makes the same actor under another address.
pub async fn a_dump_is_the_whole_actor(store: &dyn Store) -> Outcome {
    let case = Case("a_dump_is_the_whole_actor");
    let (one, other) = (actor("one"), actor("other"));
    case.holds("nobody", case.ok(store.dump(&one).await)?.is_none())?;
    let blob = Blob::new(Bytes::from(vec![9; 700_000]));
    let mut batch = recording(&one, 4, 0, 3);
    batch.records[1].blobs.push(blob.id);
    batch.rows.push(RowChange::Put {
        space: "b",
        key: vec![0, 255],
        value: Bytes::from_static(b"value"),
        blobs: vec![blob.id],
    });
    batch.rows.push(super::put("a", b"", b""));
    batch.blobs.push(blob.clone());
    batch.wake = Wake::At(Timestamp::from_millis(77));
    case.ok(store.commit(batch).await)?;

    let Some(dump) = case.ok(store.dump(&one).await)? else {
        return Err(case.fail("there is no dump".to_owned()));
    };
    let mut file = Vec::new();
    case.ok(dump.write(&mut file))?;
    let read = case.ok(crate::Dump::read(&mut file.as_slice()))?;
    case.same("rows", &dump.rows, &read.rows)?;
    case.same("records", &dump.records, &read.records)?;
    case.holds(
        "what is there is not replaced",
        matches!(
            read.clone().put(store, &one).await,
            Err(DumpError::Exists(_))
        ),
    )?;
    case.ok(read.put(store, &other).await)?;
    for of in [&one, &other] {
        let found = case.ok(store.head(of).await)?;
        let wake = found.and_then(|head| head.wake);
        case.same("wake", &Some(Timestamp::from_millis(77)), &wake)?;
        let records = case.ok(store.read(of, 0, 10).await)?;
        let records: Vec<_> = records.into_iter().map(|stored| stored.record).collect();
        case.same("history", &dump.records, &records)?;
        let value = case.ok(store.row(of, "b", &[0, 255]).await)?;
        case.same("row", &Some(Bytes::from_static(b"value")), &value)?;
    }
    case.ok(store.purge(&one).await)?;
    case.same(
        "blob",
        &Some(blob.bytes),
        &case.ok(store.blob(blob.id).await)?,
    )?;
    // Where one was deleted, one can be put again; the fence is kept.
    let Some(dump) = case.ok(store.dump(&other).await)? else {
        return Err(case.fail("there is no second dump".to_owned()));
    };
    case.ok(dump.put(store, &one).await)?;
    case.fenced(store.commit(recording(&one, 4, 3, 1)).await)
}

/// An actor that has something under way is neither dumped nor deleted in passing.
pub async fn a_busy_actor_is_left_alone(store: &dyn Store) -> Outcome {
    let case = Case("a_busy_actor_is_left_alone");
    let one = actor("one");
    case.ok(store.purge_idle(&one, 0).await)?;
    case.ok(store.commit(recording(&one, 1, 0, 2)).await)?;
    case.conflict(store.purge_idle(&one, 1).await)?;
    let mut batch = recording(&one, 1, 2, 1);
    batch.wake = Wake::At(Timestamp::from_millis(1));
    case.ok(store.commit(batch).await)?;
    case.conflict(store.purge_idle(&one, 3).await)?;
    let mut batch = recording(&one, 1, 3, 1);
    batch.wake = Wake::Clear;
    case.ok(store.commit(batch).await)?;
    case.ok(store.send(&one, message("m")).await)?;
    case.conflict(store.purge_idle(&one, 4).await)?;
    case.holds(
        "a message is under way",
        matches!(store.dump(&one).await, Err(DumpError::Busy)),
    )?;
    let mut batch = recording(&one, 1, 4, 1);
    batch.inbox_acks.push("m".to_owned());
    case.ok(store.commit(batch).await)?;
    case.ok(store.purge_idle(&one, 5).await)?;
    case.same(
        "history",
        &0,
        &case.ok(store.read(&one, 0, 10).await)?.len(),
    )?;
    case.fenced(store.commit(recording(&one, 1, 0, 1)).await)
}
