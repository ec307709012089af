//! Inboxes and outboxes.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::{Case, ConformanceError, Outcome, actor, batches::together, recording};
use crate::{ActorId, Batch, InboxMessage, OutboxMessage, Store, Timestamp};

pub(crate) fn message(id: &str) -> InboxMessage {
    InboxMessage {
        id: id.into(),
        from: None,
        time: Timestamp::from_millis(5),
        body: Bytes::from(format!("{{\"id\":\"{id}\"}}")),
    }
}

fn outgoing(to: &ActorId, id: &str) -> OutboxMessage {
    let InboxMessage {
        id,
        from: _,
        time,
        body,
    } = message(id);
    OutboxMessage {
        to: to.clone(),
        id,
        time,
        body,
    }
}

async fn ids(case: Case, store: &dyn Store, of: &ActorId) -> Result<Vec<String>, ConformanceError> {
    let messages = case.ok(store.inbox(of, 1000).await)?;
    Ok(messages.into_iter().map(|message| message.id).collect())
}

/// Messages wait in order of arrival; a second one with the same id changes nothing.
pub async fn a_message_arrives_once(store: &dyn Store) -> Outcome {
    let case = Case("a_message_arrives_once");
    let one = actor("one");
    let first = InboxMessage {
        from: Some(actor("sender")),
        ..message("b")
    };
    case.same(
        "new",
        &true,
        &case.ok(store.send(&one, first.clone()).await)?,
    )?;
    case.same(
        "new",
        &true,
        &case.ok(store.send(&one, message("a")).await)?,
    )?;
    case.same(
        "again",
        &false,
        &case.ok(store.send(&one, message("b")).await)?,
    )?;
    case.same(
        "to another",
        &true,
        &case.ok(store.send(&actor("two"), message("b")).await)?,
    )?;
    case.same(
        "order",
        &vec!["b".to_owned(), "a".into()],
        &ids(case, store, &one).await?,
    )?;
    case.same(
        "message",
        &vec![first],
        &case.ok(store.inbox(&one, 1).await)?,
    )?;
    case.same(
        "the actor does not exist by that",
        &None,
        &case.ok(store.head(&one).await)?,
    )?;
    case.invalid(store.send(&one, message("")).await)
}

/// A message that a batch has taken is gone, and its id stays known.
pub async fn a_taken_message_does_not_arrive_again(store: &dyn Store) -> Outcome {
    let case = Case("a_taken_message_does_not_arrive_again");
    let one = actor("one");
    case.ok(store.send(&one, message("a")).await)?;
    case.ok(store.send(&one, message("b")).await)?;
    let mut batch = recording(&one, 1, 0, 1);
    batch.inbox_acks.push("a".into());
    case.ok(store.commit(batch).await)?;
    case.same(
        "left",
        &vec!["b".to_owned()],
        &ids(case, store, &one).await?,
    )?;
    case.same(
        "again",
        &false,
        &case.ok(store.send(&one, message("a")).await)?,
    )?;
    case.same(
        "left",
        &vec!["b".to_owned()],
        &ids(case, store, &one).await?,
    )?;
    let mut again = Batch::new(one.clone(), 1, 1);
    again.inbox_acks = vec!["a".into(), "b".into()];
    case.ok(store.commit(again).await)?;
    case.same(
        "left",
        &Vec::<String>::new(),
        &ids(case, store, &one).await?,
    )?;
    let mut unknown = Batch::new(one.clone(), 1, 1);
    unknown.inbox_acks.push("c".into());
    case.invalid(store.commit(unknown).await)
}

/// A message of a batch's outbox arrives once, from the batch's actor, in the order of commits.
pub async fn the_outbox_is_delivered_exactly_once(store: &dyn Store) -> Outcome {
    let case = Case("the_outbox_is_delivered_exactly_once");
    let (one, two) = (actor("one"), actor("two"));
    let mut batch = recording(&one, 1, 0, 1);
    batch.outbox = vec![
        outgoing(&two, "a"),
        outgoing(&two, "b"),
        outgoing(&two, "a"),
        outgoing(&one, "self"),
    ];
    case.ok(store.commit(batch).await)?;
    case.same(
        "not before delivery",
        &Vec::<String>::new(),
        &ids(case, store, &two).await?,
    )?;
    let first = case.ok(store.deliver(1).await)?;
    case.same("oldest first", &vec![outgoing(&two, "a")], &first)?;
    case.ok(store.deliver(10).await)?;
    case.same(
        "nothing is left",
        &0,
        &case.ok(store.deliver(10).await)?.len(),
    )?;
    case.same(
        "arrived",
        &vec!["a".to_owned(), "b".into()],
        &ids(case, store, &two).await?,
    )?;
    case.same(
        "to itself",
        &vec!["self".to_owned()],
        &ids(case, store, &one).await?,
    )?;
    let from = case
        .ok(store.inbox(&two, 1).await)?
        .into_iter()
        .map(|message| message.from)
        .next();
    case.same("sender", &Some(Some(one.clone())), &from)?;

    // Sent again after it was taken, by id: it does not come back.
    let mut taking = recording(&two, 1, 0, 1);
    taking.inbox_acks = vec!["a".into(), "b".into()];
    case.ok(store.commit(taking).await)?;
    let mut repeated = Batch::new(one.clone(), 1, 1);
    repeated.outbox.push(outgoing(&two, "a"));
    case.ok(store.commit(repeated).await)?;
    case.ok(store.deliver(10).await)?;
    case.same(
        "not again",
        &Vec::<String>::new(),
        &ids(case, store, &two).await?,
    )
}

/// Deliveries that run at the same time, or whose caller has gone, neither lose nor repeat.
pub async fn an_interrupted_delivery_is_not_repeated(store: &dyn Store) -> Outcome {
    let case = Case("an_interrupted_delivery_is_not_repeated");
    let (one, two) = (actor("one"), actor("two"));
    let mut batch = recording(&one, 1, 0, 1);
    let sent: BTreeSet<String> = (0..50).map(|n| format!("m{n}")).collect();
    batch.outbox = sent.iter().map(|id| outgoing(&two, id)).collect();
    case.ok(store.commit(batch).await)?;
    // A caller that gives up after asking.
    let mut abandoned = Box::pin(store.deliver(7));
    std::future::poll_fn(|context| {
        let _ = abandoned.as_mut().poll(context);
        std::task::Poll::Ready(())
    })
    .await;
    drop(abandoned);
    let mut told = BTreeSet::new();
    for delivered in together((0..4).map(|_| store.deliver(20)).collect()).await {
        for message in case.ok(delivered)? {
            case.holds("each is delivered by one call", told.insert(message.id))?;
        }
    }
    let arrived = ids(case, store, &two).await?;
    case.same("arrivals", &50, &arrived.len())?;
    case.same("messages", &sent, &arrived.into_iter().collect())?;
    case.same(
        "nothing is left",
        &0,
        &case.ok(store.deliver(100).await)?.len(),
    )
}

/// Actors with waiting messages are listed, each once, until they have taken them.
pub async fn waiting_actors_are_found(store: &dyn Store) -> Outcome {
    let case = Case("waiting_actors_are_found");
    for n in 0..3 {
        let one = actor(&format!("actor {n}"));
        case.ok(store.send(&one, message("a")).await)?;
        case.ok(store.send(&one, message("b")).await)?;
    }
    let mut taking = recording(&actor("actor 1"), 1, 0, 1);
    taking.inbox_acks = vec!["a".into(), "b".into()];
    case.ok(store.commit(taking).await)?;
    let waiting: BTreeSet<_> = case.ok(store.inbox_actors(10).await)?.into_iter().collect();
    case.same(
        "waiting",
        &BTreeSet::from([actor("actor 0"), actor("actor 2")]),
        &waiting,
    )?;
    case.same("limit", &1, &case.ok(store.inbox_actors(1).await)?.len())
}
