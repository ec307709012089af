//! What must hold when a world has come to rest.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
};

use bowline_runtime::{
    Outcome, alarm, child, fiber, kind,
    message::Taken,
    submission::{self, Settled},
};
use bowline_store::{ActorId, Seq, Store, StoredRecord};

use super::{
    journal::Event,
    program::{ANSWER, CHILD, CLOSED, INPUT, STEP, UNPARKED, number},
    world::{KIND, PARENT, Summary},
};

/// Every submission that a client was told of, once, in order.
pub fn acknowledged(events: &[Event]) -> Vec<(ActorId, String)> {
    let mut seen = HashSet::new();
    let told = events.iter().filter_map(|event| match event {
        Event::Acknowledged {
            actor, submission, ..
        } => Some((actor.clone(), submission.clone())),
        _ => None,
    });
    told.filter(|one| seen.insert(one.clone())).collect()
}

/// Every fiber that a client was told of.
pub fn fibers(events: &[Event]) -> Vec<String> {
    let told = events.iter().filter_map(|event| match event {
        Event::Fiber { id } => Some(id.clone()),
        _ => None,
    });
    told.collect()
}

/// The figures of a world.
pub async fn summary(events: &[Event], truth: &dyn Store) -> Summary {
    let count = |is: fn(&Event) -> bool| events.iter().filter(|event| is(event)).count();
    let mut hasher = DefaultHasher::new();
    format!("{events:?}").hash(&mut hasher);
    let messages = events.iter().map(|event| match event {
        Event::Committed { sent, .. } => sent.len(),
        _ => 0,
    });
    let mut unparked = 0;
    for actor in truth
        .actors(KIND, None, None, usize::MAX)
        .await
        .unwrap_or_default()
    {
        let records = truth.read(&actor, 0, usize::MAX).await.unwrap_or_default();
        let goes_on = |one: &&StoredRecord| one.record.kind == UNPARKED;
        unparked += records.iter().filter(goes_on).count();
    }
    Summary {
        commits: count(|event| matches!(event, Event::Committed { .. })),
        processes: count(|event| matches!(event, Event::Started { .. })),
        acknowledged: acknowledged(events).len(),
        messages: messages.sum(),
        fibers: fibers(events).len(),
        unparked,
        deleted: count(|event| matches!(event, Event::Purged { .. })),
        fingerprint: hasher.finish(),
    }
}

/// Checks every property.
///
/// # Errors
///
/// One line that says which property does not hold.
pub async fn all(events: &[Event], truth: &dyn Store, rivals: bool) -> Result<(), String> {
    one_writer(events)?;
    deleted_whole(events)?;
    if !rivals {
        no_step_again(events)?;
    }
    let told = acknowledged(events);
    let failed = |error: bowline_store::StoreError| format!("the store cannot be read: {error}");
    for actor in truth
        .actors(KIND, None, None, usize::MAX)
        .await
        .map_err(failed)?
    {
        let records = truth.read(&actor, 0, usize::MAX).await.map_err(failed)?;
        let open = submission::open(truth, &actor).await.map_err(failed)?;
        if let Some(open) = open.first() {
            return Err(format!("{} of {actor} is still open", open.id));
        }
        let history = History::read(&records)?;
        history.check(&actor)?;
        messages_once(events, &actor, &history)?;
        not_half_deleted(truth, &actor).await?;
        let left = alarm::list(truth, &actor).await.map_err(failed)?;
        history.check_schedules(events, &actor, left.len())?;
        in_order(events, &actor, &history)?;
        for (id, settled) in &history.settled {
            let row = submission::settled(truth, &actor, id)
                .await
                .map_err(failed)?;
            if row.as_ref() != Some(settled) {
                return Err(format!("the row of {id} does not say what its record says"));
            }
        }
        for (_, id) in told.iter().filter(|(of, _)| *of == actor) {
            if !history.settled.contains_key(id) {
                return Err(format!(
                    "{id} of {actor} was acknowledged and never settled"
                ));
            }
        }
    }
    for fiber in truth
        .actors(fiber::KIND, None, None, usize::MAX)
        .await
        .map_err(failed)?
    {
        if !submission::open(truth, &fiber)
            .await
            .map_err(failed)?
            .is_empty()
        {
            return Err(format!("the fiber {fiber} is still open"));
        }
        let records = truth.read(&fiber, 0, usize::MAX).await.map_err(failed)?;
        let ends = records
            .iter()
            .filter(|one| one.record.kind == kind::SUBMISSION_SETTLED);
        if ends.count() != 1 {
            return Err(format!(
                "the fiber {fiber} has no outcome, or more than one"
            ));
        }
    }
    if let Some(actor) = truth.inbox_actors(1).await.map_err(failed)?.first() {
        return Err(format!("{actor} has messages that it never took"));
    }
    truth.verify().await.map_err(failed)
}

/// Each message that was sent to an actor, and no other, was taken once. Those to an actor that was
/// deleted may have gone with it.
fn messages_once(events: &[Event], actor: &ActorId, history: &History) -> Result<(), String> {
    if events
        .iter()
        .any(|event| matches!(event, Event::Purged { actor: of } if of == actor))
    {
        return Ok(());
    }
    let sent = events.iter().filter_map(|event| match event {
        Event::Committed { sent, .. } => Some(sent),
        _ => None,
    });
    let sent: BTreeMap<_, u32> = sent
        .flatten()
        .filter(|(to, _)| to == actor)
        .map(|(_, id)| (id.clone(), 1))
        .collect();
    if sent == history.taken {
        return Ok(());
    }
    let taken = &history.taken;
    Err(format!("{actor} was sent {sent:?} and took {taken:?}"))
}

/// A deletion that took a child took its parent in the end.
fn deleted_whole(events: &[Event]) -> Result<(), String> {
    let deleted = |event: &Event| match event {
        Event::Purged { actor } => Some(actor.clone()),
        _ => None,
    };
    for (at, child) in events.iter().enumerate() {
        let Some(child) = deleted(child).filter(|actor| actor.name() == CHILD) else {
            continue;
        };
        let key = child.key().split('/').next().unwrap_or_default();
        let parent = ActorId::new(KIND, PARENT, key);
        if !events[at..]
            .iter()
            .any(|event| deleted(event).as_ref() == Some(&parent))
        {
            return Err(format!("{child} was deleted, its parent was not"));
        }
    }
    Ok(())
}

/// A child has its parent, and nobody is on the way to be deleted.
async fn not_half_deleted(truth: &dyn Store, actor: &ActorId) -> Result<(), String> {
    let failed = |error: bowline_store::StoreError| format!("the store cannot be read: {error}");
    let mark = truth
        .row(actor, "deleting", b"mark")
        .await
        .map_err(failed)?;
    if mark.is_some() {
        return Err(format!("the deletion of {actor} was never finished"));
    }
    if actor.name() != CHILD {
        return Ok(());
    }
    let key = actor.key().split('/').next().unwrap_or_default();
    let parent = ActorId::new(KIND, PARENT, key);
    let children = child::list(truth, &parent, None, usize::MAX).await;
    if children.map_err(failed)?.contains(actor) {
        Ok(())
    } else {
        Err(format!("{actor} was left behind by its parent"))
    }
}

/// Says what is still open, or due, in a world that should be at rest.
pub async fn unsettled(truth: &dyn Store) -> String {
    let mut text = "something was admitted and never settled:".to_owned();
    for actor in truth
        .actors(KIND, None, None, usize::MAX)
        .await
        .unwrap_or_default()
    {
        let open = submission::open(truth, &actor).await.unwrap_or_default();
        if let Ok(Some(head)) = truth.head(&actor).await
            && head.wake.is_some()
        {
            let open: Vec<_> = open
                .iter()
                .map(|open| (&open.id, &open.state, &open.payload))
                .collect();
            text.push_str(&format!(
                " {actor} at {} is due at {:?} with {open:?} open;",
                head.seq, head.wake
            ));
        }
    }
    text
}

/// No two commits of an actor hold the same sequence, and no older epoch follows a newer one.
fn one_writer(events: &[Event]) -> Result<(), String> {
    let mut heads: HashMap<&ActorId, (Seq, u64)> = HashMap::new();
    for event in events {
        let (actor, epoch, before, after) = match event {
            Event::Committed {
                actor,
                epoch,
                before,
                after,
                ..
            } => (actor, epoch, before, after),
            Event::Purged { actor } => {
                // The next incarnation begins anew, with a greater epoch.
                heads.entry(actor).or_insert((0, 0)).0 = 0;
                continue;
            }
            _ => continue,
        };
        let (seq, newest) = heads.entry(actor).or_insert((0, 0));
        if before != seq || epoch < newest {
            return Err(format!(
                "{actor}: a batch of epoch {epoch} after {before} landed on {seq} of epoch {newest}"
            ));
        }
        (*seq, *newest) = (*after, *epoch);
    }
    Ok(())
}

/// A step whose commit is durable is never done again.
fn no_step_again(events: &[Event]) -> Result<(), String> {
    let mut durable = HashSet::new();
    for event in events {
        match event {
            Event::Committed { actor, steps, .. } => {
                durable.extend(
                    steps
                        .iter()
                        .map(|(submission, step)| (actor, submission, *step)),
                );
            }
            Event::Executed {
                actor,
                submission,
                step,
            } if durable.contains(&(actor, submission, *step)) => {
                return Err(format!(
                    "step {step} of {submission} was done again after it was durable"
                ));
            }
            _ => {}
        }
    }
    Ok(())
}

/// What was acknowledged before another was sent comes before it.
fn in_order(events: &[Event], actor: &ActorId, history: &History) -> Result<(), String> {
    let sent: HashMap<usize, usize> = (0..)
        .zip(events)
        .filter_map(|(at, event)| match event {
            Event::Sent { call } => Some((*call, at)),
            _ => None,
        })
        .collect();
    let fresh: Vec<_> = (0..)
        .zip(events)
        .filter_map(|(at, event): (usize, _)| match event {
            Event::Acknowledged {
                call,
                actor: of,
                submission,
                deduplicated: false,
            } if of == actor => Some((sent.get(call).copied().unwrap_or(at), at, submission)),
            _ => None,
        })
        .collect();
    for (_, told, first) in &fresh {
        for (began, _, second) in fresh.iter().filter(|(began, ..)| began > told) {
            if let (Some(first_at), Some(second_at)) =
                (history.inputs.get(*first), history.inputs.get(*second))
                && first_at > second_at
            {
                return Err(format!(
                    "{second} (sent at {began}) went before {first} (told at {told})"
                ));
            }
        }
    }
    Ok(())
}

#[derive(Default)]
struct History {
    inputs: BTreeMap<String, Seq>,
    steps: BTreeMap<String, BTreeSet<u32>>,
    answered: BTreeSet<String>,
    closed: BTreeSet<String>,
    settled: BTreeMap<String, Settled>,
    marks: BTreeMap<u32, u32>,
    taken: BTreeMap<String, u32>,
    registered: usize,
    fired: usize,
}

impl History {
    fn read(records: &[StoredRecord]) -> Result<Self, String> {
        let mut history = Self::default();
        for stored in records {
            if stored.record.kind == kind::ACTOR_OPENED {
                let body = String::from_utf8_lossy(&stored.record.body).into_owned();
                history.registered += usize::from(body.contains("schedule registered"));
                history.fired += usize::from(body.contains("schedule due"));
            }
            if stored.record.kind == kind::MESSAGE_TAKEN {
                let taken: Taken = serde_json::from_slice(&stored.record.body)
                    .map_err(|error| error.to_string())?;
                *history.taken.entry(taken.message_id).or_default() += 1;
            }
            if stored.record.kind == INPUT {
                let mark = number(stored).map_err(|error| error.to_string())?;
                *history.marks.entry(mark).or_default() += 1;
            }
            let Some(id) = stored.record.submission.clone() else {
                continue;
            };
            if history.settled.contains_key(&id) {
                let of = stored.record.kind;
                return Err(format!(
                    "a record of kind {of} of {id} after its settlement, or a second settlement"
                ));
            }
            let first = match stored.record.kind {
                INPUT => history.inputs.insert(id.clone(), stored.seq).is_none(),
                STEP => {
                    let number = number(stored).map_err(|error| error.to_string())?;
                    history.steps.entry(id.clone()).or_default().insert(number)
                }
                ANSWER => history.answered.insert(id.clone()),
                CLOSED => history.closed.insert(id.clone()),
                kind::SUBMISSION_SETTLED => {
                    let settled = serde_json::from_slice(&stored.record.body)
                        .map_err(|error| error.to_string())?;
                    history.settled.insert(id.clone(), settled).is_none()
                }
                _ => true,
            };
            if !first {
                return Err(format!(
                    "a second record of kind {} of {id}",
                    stored.record.kind
                ));
            }
        }
        Ok(history)
    }

    /// Each schedule that is durable fired, once.
    fn check_schedules(
        &self,
        events: &[Event],
        actor: &ActorId,
        left: usize,
    ) -> Result<(), String> {
        let told =
            |event: &&Event| matches!(event, Event::Scheduled { actor: of, .. } if of == actor);
        let told = events.iter().filter(told).count();
        let (registered, fired) = (self.registered, self.fired);
        if left > 0 || fired != registered || told > registered {
            return Err(format!(
                "{actor}: of {registered} schedules ({told} told) {fired} fired, {left} are left"
            ));
        }
        match self
            .marks
            .iter()
            .find(|(mark, count)| **mark > 0 && **count > 1)
        {
            Some((mark, count)) => Err(format!(
                "{actor}: schedule {mark} was admitted {count} times"
            )),
            None => Ok(()),
        }
    }

    fn check(&self, actor: &ActorId) -> Result<(), String> {
        for (id, settled) in &self.settled {
            let host = settled.answered_by_submission_id.as_ref().unwrap_or(id);
            let of_host = self.settled.get(host).map(|settled| settled.outcome);
            if host != id && of_host.is_some_and(|outcome| outcome != settled.outcome) {
                return Err(format!(
                    "{id} of {actor} joined {host} and ended in another way"
                ));
            }
            let answered = self.answered.contains(host);
            if (settled.outcome == Outcome::Completed) != answered {
                return Err(format!(
                    "{id} of {actor} ended as {:?}, answered: {answered}",
                    settled.outcome
                ));
            }
            if self.closed.contains(id) && settled.outcome == Outcome::Completed {
                return Err(format!(
                    "{id} of {actor} was closed without an answer and completed"
                ));
            }
            if settled.outcome == Outcome::Completed && !self.inputs.contains_key(id) {
                return Err(format!("{id} of {actor} completed without its input"));
            }
        }
        Ok(())
    }
}
