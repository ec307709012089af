//! Wakes, tails, and the ends of actors and stores.

use bytes::Bytes;

use super::{Case, Outcome, actor, batches::together, messages::message, put, recording};
use crate::{
    ActorId, Batch, Blob, CommitError, OutboxMessage, RowChange, Store, StoreError, Timestamp, Wake,
};

type Step<'a> = std::pin::Pin<Box<dyn Future<Output = bool> + Send + 'a>>;

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

/// Wakes are due from their time on, earliest first; a batch sets, keeps or clears its actor's.
pub async fn wakes_are_due_in_order(store: &dyn Store) -> Outcome {
    let case = Case("wakes_are_due_in_order");
    case.same("none", &None, &case.ok(store.next_wake().await)?)?;
    for (key, wake) in [("late", 30), ("early", 10), ("middle", 20)] {
        let mut batch = recording(&actor(key), 1, 0, 1);
        batch.wake = Wake::At(at(wake));
        case.ok(store.commit(batch).await)?;
    }
    case.ok(store.commit(recording(&actor("never"), 1, 0, 1)).await)?;
    case.same("next", &Some(at(10)), &case.ok(store.next_wake().await)?)?;
    case.same("before", &Vec::new(), &case.ok(store.due(at(9), 10).await)?)?;
    let due = vec![(actor("early"), at(10)), (actor("middle"), at(20))];
    case.same("due", &due, &case.ok(store.due(at(20), 10).await)?)?;
    case.same("limit", &1, &case.ok(store.due(at(99), 1).await)?.len())?;

    let set = |key: &str, wake| {
        let mut batch = recording(&actor(key), 1, 1, 1);
        batch.wake = wake;
        store.commit(batch)
    };
    case.ok(set("early", Wake::Clear).await)?;
    case.ok(set("middle", Wake::Keep).await)?;
    case.ok(set("late", Wake::At(at(-5))).await)?;
    let due = vec![(actor("late"), at(-5)), (actor("middle"), at(20))];
    case.same("due", &due, &case.ok(store.due(at(99), 10).await)?)?;
    case.same(
        "head",
        &Some(Some(at(20))),
        &case
            .ok(store.head(&actor("middle")).await)?
            .map(|head| head.wake),
    )?;
    case.same("next", &Some(at(-5)), &case.ok(store.next_wake().await)?)
}

/// A follower learns of records that were there before and of those that come, and of nothing else.
pub async fn a_tail_wakes_for_durable_records(store: &dyn Store) -> Outcome {
    let case = Case("a_tail_wakes_for_durable_records");
    let one = actor("one");
    let mut early = store.tail(&one);
    case.ok(store.commit(recording(&one, 1, 0, 2)).await)?;
    case.same("from the first", &Some(2), &early.beyond(0).await)?;
    let mut late = store.tail(&one);
    case.same("what was there", &Some(2), &late.beyond(1).await)?;
    drop(early);
    drop(late);
    let mut again = store.tail(&one);
    case.same("a new follower", &Some(2), &again.beyond(0).await)?;

    let mut other = again.clone();
    let follower: Step<'_> = Box::pin(async { other.beyond(2).await == Some(3) });
    let writer: Step<'_> = Box::pin(async {
        // Neither a refused batch nor another actor wakes it.
        let refused = store.commit(recording(&one, 1, 0, 1)).await.is_err();
        let others = store
            .commit(recording(&actor("two"), 1, 0, 5))
            .await
            .is_ok();
        let done = store.commit(recording(&one, 1, 2, 1)).await.is_ok();
        refused && others && done
    });
    case.same(
        "woken",
        &vec![true, true],
        &together(vec![follower, writer]).await,
    )?;
    store.close().await;
    case.same("after closing", &None, &again.beyond(3).await)
}

/// A closed store takes and gives nothing.
pub async fn a_closed_store_refuses(store: &dyn Store) -> Outcome {
    let case = Case("a_closed_store_refuses");
    let one = actor("one");
    case.ok(store.commit(recording(&one, 1, 0, 1)).await)?;
    store.close().await;
    store.close().await;
    let commit = store.commit(recording(&one, 1, 1, 1)).await;
    case.holds("commit", matches!(commit, Err(CommitError::Closed(_))))?;
    let send = store.send(&one, message("m")).await;
    case.holds("send", matches!(send, Err(CommitError::Closed(_))))?;
    let head = store.head(&one).await;
    case.holds("head", matches!(head, Err(StoreError::Closed(_))))?;
    case.same("tail", &None, &store.tail(&one).beyond(9).await)
}

/// A purged actor begins again at sequence 0 with a greater epoch; writers from before are fenced.
pub async fn a_purge_keeps_the_fence(store: &dyn Store) -> Outcome {
    let case = Case("a_purge_keeps_the_fence");
    let one = actor("one");
    case.ok(store.commit(recording(&one, 7, 0, 3)).await)?;
    case.ok(store.purge(&one).await)?;
    case.fenced(store.commit(recording(&one, 7, 3, 1)).await)?;
    case.fenced(store.commit(recording(&one, 7, 0, 1)).await)?;
    let Some(head) = case.ok(store.head(&one).await)? else {
        return Err(case.fail("the epoch of a purged actor is forgotten".into()));
    };
    case.same("sequence", &0, &head.seq)?;
    case.holds("the epoch has grown", head.epoch > 7)?;
    let next = head.epoch + 1;
    case.same(
        "begins again",
        &1,
        &case.ok(store.commit(recording(&one, next, 0, 1)).await)?,
    )?;
    case.ok(store.purge(&one).await)?;
    case.ok(store.purge(&one).await)?;
    case.fenced(store.commit(recording(&one, next, 0, 1)).await)?;
    case.ok(store.purge(&actor("never was")).await)?;
    case.same(
        "nobody",
        &None,
        &case.ok(store.head(&actor("never was")).await)?,
    )
}

/// A purge takes everything of the actor and nothing of others.
pub async fn a_purge_leaves_nothing_behind(store: &dyn Store) -> Outcome {
    let case = Case("a_purge_leaves_nothing_behind");
    let (one, two) = (actor("one"), actor("two"));
    let blob = Blob::new(Bytes::from_static(b"blob"));
    for id in [&one, &two] {
        let mut batch = recording(id, 1, 0, 2);
        batch.rows = vec![put("s", b"k", b"v")];
        batch.wake = Wake::At(at(1));
        if *id == one {
            let value = Bytes::new();
            batch.rows.push(RowChange::Put {
                space: "s",
                key: b"b".to_vec(),
                value,
                blobs: vec![blob.id],
            });
            batch.blobs = vec![blob.clone()];
            let body = Bytes::from_static(b"{}");
            batch.outbox = vec![OutboxMessage {
                to: two.clone(),
                id: "m".into(),
                time: at(1),
                body,
            }];
        }
        case.ok(store.commit(batch).await)?;
        case.ok(store.send(id, message("m")).await)?;
    }
    case.ok(store.purge(&one).await)?;
    case.same(
        "records",
        &0,
        &case.ok(store.read(&one, 0, 10).await)?.len(),
    )?;
    case.same(
        "rows",
        &0,
        &case.ok(store.scan(&one, "s", b"", None, 10).await)?.len(),
    )?;
    case.same("blob", &None, &case.ok(store.blob(blob.id).await)?)?;
    case.same("inbox", &0, &case.ok(store.inbox(&one, 10).await)?.len())?;
    case.same("outbox", &0, &case.ok(store.deliver(10).await)?.len())?;
    case.same(
        "due",
        &vec![(two.clone(), at(1))],
        &case.ok(store.due(at(9), 10).await)?,
    )?;
    case.same(
        "listed",
        &vec![two.clone()],
        &case.ok(store.actors(two.kind(), None, None, 10).await)?,
    )?;
    case.same(
        "waiting",
        &vec![two.clone()],
        &case.ok(store.inbox_actors(10).await)?,
    )?;
    case.same(
        "the other's records",
        &2,
        &case.ok(store.read(&two, 0, 10).await)?.len(),
    )?;
    case.same(
        "a message may come again",
        &true,
        &case.ok(store.send(&one, message("m")).await)?,
    )
}

/// Actors of a kind are listed in order of name and key, in pages, by name or all.
pub async fn actors_are_listed_in_pages(store: &dyn Store) -> Outcome {
    let case = Case("actors_are_listed_in_pages");
    let kind = |name: &str, key: &str| ActorId::new("k", name, key);
    let sorted = [
        kind("a", "1"),
        kind("a", "2"),
        kind("a", "3"),
        kind("a b", "0"),
        kind("b", ""),
        kind("c", "1"),
    ];
    for actor in sorted
        .iter()
        .rev()
        .chain([&ActorId::new("j", "a", "1"), &ActorId::new("l", "a", "1")])
    {
        case.ok(store.commit(recording(actor, 1, 0, 1)).await)?;
    }
    case.ok(store.send(&kind("a", "only a message"), message("m")).await)?;
    case.ok(store.commit(Batch::new(kind("a", "nothing"), 0, 0)).await)?;
    let mut paged = Vec::new();
    loop {
        let page = case.ok(store.actors("k", None, paged.last(), 4).await)?;
        case.holds("a page is not longer than asked", page.len() <= 4)?;
        if page.is_empty() {
            break;
        }
        paged.extend(page);
    }
    case.same("all", &sorted.to_vec(), &paged)?;
    let named = case.ok(store.actors("k", Some("a"), None, 10).await)?;
    case.same(
        "named",
        &sorted.get(..3).unwrap_or_default(),
        &named.as_slice(),
    )?;
    let rest = case.ok(store.actors("k", Some("a"), sorted.first(), 10).await)?;
    case.same(
        "the rest",
        &sorted.get(1..3).unwrap_or_default(),
        &rest.as_slice(),
    )?;
    case.same(
        "another kind",
        &0,
        &case.ok(store.actors("m", None, None, 10).await)?.len(),
    )
}
