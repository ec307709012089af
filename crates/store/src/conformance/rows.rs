//! Rows and blobs.

use bytes::Bytes;

use super::{Case, ConformanceError, Outcome, actor, put, record, recording};
use crate::{ActorId, Batch, Blob, BlobId, RowChange, Seq, Store};

/// Commits row changes of an actor that is at `seq`, with no record.
async fn change(
    case: Case,
    store: &dyn Store,
    actor: &ActorId,
    seq: Seq,
    rows: Vec<RowChange>,
) -> Outcome {
    let mut batch = Batch::new(actor.clone(), 1, seq);
    batch.rows = rows;
    case.ok(store.commit(batch).await).map(drop)
}

async fn begin(case: Case, store: &dyn Store, actor: &ActorId) -> Outcome {
    case.ok(store.commit(recording(actor, 1, 0, 1)).await)
        .map(drop)
}

fn delete(space: &'static str, key: &[u8]) -> RowChange {
    RowChange::Delete {
        space,
        key: key.to_vec(),
    }
}

fn referring(key: &[u8], blobs: &[&Blob]) -> RowChange {
    let blobs = blobs.iter().map(|blob| blob.id).collect();
    RowChange::Put {
        space: "s",
        key: key.to_vec(),
        value: Bytes::new(),
        blobs,
    }
}

/// A row is what was put last, within a batch and across batches, until it is deleted.
pub async fn rows_are_put_replaced_and_deleted(store: &dyn Store) -> Outcome {
    let case = Case("rows_are_put_replaced_and_deleted");
    let one = actor("one");
    begin(case, store, &one).await?;
    change(
        case,
        store,
        &one,
        1,
        vec![
            put("s", b"k", b"1"),
            put("s", b"k", b"2"),
            put("t", b"k", b"other"),
        ],
    )
    .await?;
    case.same(
        "row",
        &Some(Bytes::from_static(b"2")),
        &case.ok(store.row(&one, "s", b"k").await)?,
    )?;
    change(
        case,
        store,
        &one,
        1,
        vec![put("s", b"k", b"3"), put("s", b"", b"empty key")],
    )
    .await?;
    case.same(
        "row",
        &Some(Bytes::from_static(b"3")),
        &case.ok(store.row(&one, "s", b"k").await)?,
    )?;
    case.same(
        "empty key",
        &Some(Bytes::from_static(b"empty key")),
        &case.ok(store.row(&one, "s", b"").await)?,
    )?;
    change(
        case,
        store,
        &one,
        1,
        vec![
            delete("s", b"k"),
            delete("s", b"absent"),
            put("s", b"e", b""),
        ],
    )
    .await?;
    case.same(
        "deleted",
        &None,
        &case.ok(store.row(&one, "s", b"k").await)?,
    )?;
    case.same(
        "empty value",
        &Some(Bytes::new()),
        &case.ok(store.row(&one, "s", b"e").await)?,
    )?;
    case.same(
        "other space",
        &Some(Bytes::from_static(b"other")),
        &case.ok(store.row(&one, "t", b"k").await)?,
    )
}

async fn keys(
    case: Case,
    store: &dyn Store,
    actor: &ActorId,
    prefix: &[u8],
    after: Option<&[u8]>,
    limit: usize,
) -> Result<Vec<Vec<u8>>, ConformanceError> {
    let rows = case.ok(store.scan(actor, "s", prefix, after, limit).await)?;
    Ok(rows.into_iter().map(|row| row.key).collect())
}

/// A scan gives the keys with its prefix, after its start, in bytewise order, up to its limit.
pub async fn a_scan_is_ordered_and_bounded(store: &dyn Store) -> Outcome {
    let case = Case("a_scan_is_ordered_and_bounded");
    let one = actor("one");
    begin(case, store, &one).await?;
    let sorted: [&[u8]; 8] = [
        b"",
        b"\x00",
        b"a",
        b"a\x00",
        b"ab",
        b"b",
        b"\xff",
        b"\xff\xff",
    ];
    let shuffled = [5, 0, 7, 2, 4, 1, 6, 3]
        .iter()
        .filter_map(|n| sorted.get(*n));
    let mut rows: Vec<_> = shuffled.map(|key| put("s", key, key)).collect();
    rows.push(put("r", b"a", b""));
    rows.push(put("t", b"a", b""));
    change(case, store, &one, 1, rows).await?;
    let owned = |range: &[&[u8]]| range.iter().map(|key| key.to_vec()).collect::<Vec<_>>();
    case.same(
        "all",
        &owned(&sorted),
        &keys(case, store, &one, b"", None, 100).await?,
    )?;
    case.same(
        "limit",
        &owned(&[b"", b"\x00"]),
        &keys(case, store, &one, b"", None, 2).await?,
    )?;
    case.same(
        "nothing",
        &owned(&[]),
        &keys(case, store, &one, b"", None, 0).await?,
    )?;
    case.same(
        "prefix",
        &owned(&[b"a", b"a\x00", b"ab"]),
        &keys(case, store, &one, b"a", None, 100).await?,
    )?;
    case.same(
        "last prefix",
        &owned(&[b"\xff", b"\xff\xff"]),
        &keys(case, store, &one, b"\xff", None, 100).await?,
    )?;
    case.same(
        "after",
        &owned(&[b"a\x00", b"ab"]),
        &keys(case, store, &one, b"a", Some(b"a"), 100).await?,
    )?;
    case.same(
        "after the prefix",
        &owned(&[]),
        &keys(case, store, &one, b"a", Some(b"b"), 100).await?,
    )?;
    case.same(
        "after all",
        &owned(&[]),
        &keys(case, store, &one, b"", Some(b"\xff\xff"), 100).await?,
    )?;
    case.same(
        "before the prefix",
        &owned(&[b"b"]),
        &keys(case, store, &one, b"b", Some(b"a"), 100).await?,
    )
}

/// Deleting a prefix removes each key that starts with it, in that space only.
pub async fn a_prefix_is_deleted_and_nothing_else(store: &dyn Store) -> Outcome {
    let case = Case("a_prefix_is_deleted_and_nothing_else");
    let one = actor("one");
    begin(case, store, &one).await?;
    let all: [&[u8]; 6] = [b"a", b"b", b"b\x00", b"b\xff\xff", b"c", b"\xff\x01"];
    let mut rows: Vec<_> = all.iter().map(|key| put("s", key, b"")).collect();
    rows.push(put("t", b"b", b""));
    change(case, store, &one, 1, rows).await?;
    let drop_prefix = |prefix: &[u8]| RowChange::DeletePrefix {
        space: "s",
        prefix: prefix.to_vec(),
    };
    change(
        case,
        store,
        &one,
        1,
        vec![drop_prefix(b"b"), put("s", b"bb", b"put after")],
    )
    .await?;
    let left: Vec<&[u8]> = vec![b"a", b"bb", b"c", b"\xff\x01"];
    case.same(
        "left",
        &left,
        &keys(case, store, &one, b"", None, 9)
            .await?
            .iter()
            .map(Vec::as_slice)
            .collect(),
    )?;
    change(case, store, &one, 1, vec![drop_prefix(b"\xff")]).await?;
    case.same(
        "left",
        &3,
        &keys(case, store, &one, b"", None, 9).await?.len(),
    )?;
    change(case, store, &one, 1, vec![drop_prefix(b"")]).await?;
    case.same(
        "left",
        &0,
        &keys(case, store, &one, b"", None, 9).await?.len(),
    )?;
    case.same(
        "other space",
        &true,
        &case.ok(store.row(&one, "t", b"b").await)?.is_some(),
    )
}

/// The same key of two actors is two rows.
pub async fn actors_do_not_share_rows(store: &dyn Store) -> Outcome {
    let case = Case("actors_do_not_share_rows");
    let (one, two) = (ActorId::new("k", "a", "b/c"), ActorId::new("k", "a/b", "c"));
    begin(case, store, &one).await?;
    begin(case, store, &two).await?;
    change(case, store, &one, 1, vec![put("s", b"k", b"1")]).await?;
    case.same(
        "other actor",
        &None,
        &case.ok(store.row(&two, "s", b"k").await)?,
    )?;
    change(
        case,
        store,
        &two,
        1,
        vec![RowChange::DeletePrefix {
            space: "s",
            prefix: Vec::new(),
        }],
    )
    .await?;
    case.same(
        "own row",
        &true,
        &case.ok(store.row(&one, "s", b"k").await)?.is_some(),
    )
}

/// Blobs around the places where engines cut them come back as they were.
pub async fn blobs_of_any_size_are_kept(store: &dyn Store) -> Outcome {
    const CUT: usize = 256 * 1024;
    let case = Case("blobs_of_any_size_are_kept");
    let one = actor("one");
    let sizes = [
        0,
        1,
        CUT - 1,
        CUT,
        CUT + 1,
        2 * CUT,
        3 * 1024 * 1024,
        3 * 1024 * 1024 + 7,
    ];
    let blobs: Vec<_> = sizes.iter().map(|size| Blob::new(pattern(*size))).collect();
    let mut batch = recording(&one, 1, 0, 1);
    batch
        .rows
        .push(referring(b"all", &blobs.iter().collect::<Vec<_>>()));
    batch.blobs.clone_from(&blobs);
    case.ok(store.commit(batch).await)?;
    for blob in &blobs {
        let found = case.ok(store.blob(blob.id).await)?;
        case.holds(
            &format!("{} bytes come back", blob.bytes.len()),
            found.as_ref() == Some(&blob.bytes),
        )?;
    }
    case.same(
        "another",
        &None,
        &case.ok(store.blob(BlobId::of(b"another")).await)?,
    )
}

fn pattern(size: usize) -> Bytes {
    (0..size)
        .map(|at| u8::try_from((at * 31 + at / 251) % 256).unwrap_or(0))
        .collect()
}

/// Rows and records keep a blob alive, also across actors; the last to go takes it along.
pub async fn a_blob_lives_as_long_as_something_refers_to_it(store: &dyn Store) -> Outcome {
    let case = Case("a_blob_lives_as_long_as_something_refers_to_it");
    let (one, two) = (actor("one"), actor("two"));
    let (a, b) = (
        Blob::new(Bytes::from_static(b"a")),
        Blob::new(Bytes::from_static(b"b")),
    );
    let mut batch = recording(&one, 1, 0, 1);
    batch.rows = vec![referring(b"1", &[&a, &b]), referring(b"2", &[&a])];
    batch.blobs = vec![a.clone(), b.clone()];
    case.ok(store.commit(batch).await)?;

    // Giving it again is fine; so is referring to what is there without giving it.
    let mut batch = Batch::new(two.clone(), 1, 0);
    batch.records.push(record("1"));
    batch
        .records
        .iter_mut()
        .for_each(|record| record.blobs.push(a.id));
    batch.rows = vec![referring(b"1", &[&b, &b])];
    batch.blobs = vec![a.clone()];
    case.ok(store.commit(batch).await)?;
    case.ok(store.verify().await)?;

    change(
        case,
        store,
        &one,
        1,
        vec![referring(b"1", &[]), delete("s", b"2")],
    )
    .await?;
    case.same(
        "kept by a record",
        &true,
        &case.ok(store.blob(a.id).await)?.is_some(),
    )?;
    case.same(
        "kept by a row",
        &true,
        &case.ok(store.blob(b.id).await)?.is_some(),
    )?;
    // Moved from one row to another within a batch.
    change(
        case,
        store,
        &two,
        1,
        vec![delete("s", b"1"), referring(b"3", &[&b])],
    )
    .await?;
    case.same("moved", &true, &case.ok(store.blob(b.id).await)?.is_some())?;
    change(
        case,
        store,
        &two,
        1,
        vec![RowChange::DeletePrefix {
            space: "s",
            prefix: Vec::new(),
        }],
    )
    .await?;
    case.same(
        "gone with its last row",
        &None,
        &case.ok(store.blob(b.id).await)?,
    )?;
    case.ok(store.verify().await)?;
    case.ok(store.purge(&two).await)?;
    case.same(
        "gone with its actor",
        &None,
        &case.ok(store.blob(a.id).await)?,
    )
}

/// Bytes that the batch does not refer to, or that are not what their id says, are refused; so is a
/// reference to bytes that nobody gave.
pub async fn a_blob_that_nothing_refers_to_is_invalid(store: &dyn Store) -> Outcome {
    let case = Case("a_blob_that_nothing_refers_to_is_invalid");
    let one = actor("one");
    let blob = Blob::new(Bytes::from_static(b"bytes"));
    let mut batch = recording(&one, 1, 0, 1);
    batch.blobs.push(blob.clone());
    case.invalid(store.commit(batch.clone()).await)?;
    batch.rows.push(referring(b"k", &[&blob]));
    let mut without = batch.clone();
    without.blobs.clear();
    case.invalid(store.commit(without).await)?;
    let mut lying = batch.clone();
    lying.blobs = vec![Blob {
        id: blob.id,
        bytes: Bytes::from_static(b"other bytes"),
    }];
    case.invalid(store.commit(lying).await)?;
    case.same(
        "nothing is kept",
        &None,
        &case.ok(store.blob(blob.id).await)?,
    )?;
    batch.rows.push(delete("s", b"k"));
    case.ok(store.commit(batch).await)?;
    case.same(
        "not kept beyond the batch",
        &None,
        &case.ok(store.blob(blob.id).await)?,
    )
}
