//! What a model call may cost, and what it has cost in the end.

use bowline_model::{
    AssistantMessage, ErrorKind, ModelError, Price, Request, ResolvedModel, gateway::Unpriced,
};
use bowline_runtime::{Attempt, Step};
use bowline_store::RowChange;

use super::Stop;
use crate::{
    conversation::EntryBody,
    instance::AgentInstance,
    spend::{self, Made, Open, StoreLedger},
};

/// The price of what costs nothing.
const FREE: Price = Price {
    input: 0,
    output: 0,
    cache_read: None,
    cache_write: None,
};

/// Where a call stands with money.
#[derive(Debug, Default)]
pub(super) struct Money {
    /// The row that says that it is under way, once there is one.
    pub(super) open: Option<Open>,
    /// The message whose cut-off answer is read again.
    pub(super) resumed: Option<String>,
}

/// Which model of the chain is next, and how often it was tried: counted from the records. A failure
/// that was not followed by another try of the same model was followed by the next model.
pub(super) fn failures(instance: &AgentInstance, submission: &str) -> (usize, u32) {
    let (mut at, mut tried) = (0, 0);
    let mut trailing = Vec::new();
    for entry in instance.conversation.entries.iter().rev() {
        match &entry.body {
            EntryBody::Assistant {
                error: Some(error), ..
            } if entry.submission.as_deref() == Some(submission) => trailing.push(error),
            EntryBody::Assistant {
                interrupted: true, ..
            } => {}
            _ => break,
        }
    }
    let full = ErrorKind::ContextOverflow.code();
    for error in trailing.into_iter().rev() {
        if error.retry_at.is_some() {
            tried += 1;
        } else if error.code != full {
            at += 1;
            tried = 0;
        }
    }
    (at, tried)
}

/// Accounts for calls that were cut off before, and finds the one whose answer can be read again.
pub(super) async fn settle_left(
    instance: &mut AgentInstance,
    attempt: &Attempt,
    resolved: &ResolvedModel,
) -> Result<Option<(String, Open)>, Stop> {
    ready(instance, attempt).await?;
    let mut step = Step::new();
    let mut found = None;
    for (message, open) in std::mem::take(&mut instance.spending.left) {
        let same = open.model == resolved.reference && open.submission == attempt.submission().id;
        if same && open.response_id.is_some() && resolved.provider.resumes() && found.is_none() {
            found = Some((message, open));
            continue;
        }
        step.rows
            .extend(give_up(instance, attempt, resolved, &message, &open).await?);
    }
    if !step.is_empty() {
        attempt.commit(step).await?;
    }
    Ok(found)
}

/// Counts what a call that will never end is likely to have cost.
pub(super) async fn give_up(
    instance: &mut AgentInstance,
    attempt: &Attempt,
    resolved: &ResolvedModel,
    message: &str,
    open: &Open,
) -> Result<Vec<RowChange>, Stop> {
    let now = attempt.now();
    let price = resolved.price.as_ref();
    let cost = price.map(|price| spend::waste(&instance.conversation, price, 0));
    let store = instance.store.clone();
    let made = Made::Cut { cost };
    let counted = instance
        .spending
        .count(&*store, &instance.actor, now, &open.model, made);
    let row = counted.await?;
    settle(instance, attempt, message, cost.unwrap_or(0));
    Ok(vec![row, spend::closed(message)])
}

async fn ready(instance: &AgentInstance, attempt: &Attempt) -> Result<(), Stop> {
    let ledger = StoreLedger {
        store: &*instance.store,
        sources: attempt.sources(),
    };
    let gateway = instance.shared.models.gateway();
    let account = spend::account(&instance.actor);
    let ready = gateway.ready(&ledger, &account).await;
    ready.map_err(|error| Stop::Failed(super::model_failure(&error)))
}

/// Reserves what a call can cost, durably, and waits for its turn at the provider. `bounded` is a
/// submission with a limit of its own, which a model of unknown price cannot be held to.
pub(super) async fn reserve(
    instance: &mut AgentInstance,
    attempt: &Attempt,
    resolved: &ResolvedModel,
    request: &mut Request,
    message: &str,
    money: &mut Money,
    bounded: bool,
) -> Result<(), Refused> {
    let gateway = instance.shared.models.gateway().clone();
    let account = spend::account(&instance.actor);
    let strict = gateway.policy().unpriced == Unpriced::Refuse;
    // A script costs nothing.
    let free = resolved.reference.api == "scripted";
    if bounded && strict && !free && resolved.price.is_none() {
        let what = format!(
            "limits.spend_usd applies, and the price of {} is not known",
            request.model
        );
        let error = ModelError::new(ErrorKind::Unpriced, "gateway", what);
        return Err(Refused::Model(error));
    }
    if gateway.limits(&account) && money.resumed.is_none() {
        let held = tokio::select! {
            biased;
            () = attempt.cancel().cancelled() => return Err(Refused::Cancelled),
            held = hold(instance, attempt, resolved, request, message) => held?,
        };
        money.open = held;
    }
    tokio::select! {
        biased;
        () = attempt.cancel().cancelled() => Err(Refused::Cancelled),
        () = gateway.pace(&resolved.reference.provider, request) => Ok(()),
    }
}

/// Reserves, durably, what a call can cost, if a limit applies.
pub(super) async fn hold(
    instance: &AgentInstance,
    attempt: &Attempt,
    resolved: &ResolvedModel,
    request: &mut Request,
    id: &str,
) -> Result<Option<Open>, Refused> {
    let gateway = instance.shared.models.gateway();
    let account = spend::account(&instance.actor);
    let ledger = StoreLedger {
        store: &*instance.store,
        sources: attempt.sources(),
    };
    let free = (resolved.reference.api == "scripted").then_some(FREE);
    let price = resolved.price.or(free);
    let held = gateway.reserve(&ledger, &account, id, price.as_ref(), request);
    let Some(held) = held.await.map_err(Refused::Model)? else {
        return Ok(None);
    };
    let open = Open {
        model: resolved.reference.clone(),
        submission: attempt.submission().id.clone(),
        at: attempt.now(),
        reserved: held.micro_usd,
        response_id: None,
    };
    let mut step = Step::new();
    step.rows.push(spend::opened(id, &open));
    let committed = attempt.commit(step).await;
    committed.map_err(|halt| Refused::Stop(Stop::Halted(halt)))?;
    held.keep();
    Ok(Some(open))
}

/// Ends what [`hold`] began.
pub(super) async fn release(
    instance: &AgentInstance,
    attempt: &Attempt,
    id: &str,
    cost: Option<u64>,
) -> Result<(), Stop> {
    settle(instance, attempt, id, cost.unwrap_or(0));
    let mut step = Step::new();
    step.rows.push(spend::closed(id));
    attempt.commit(step).await?;
    Ok(())
}

/// Why a call is not made.
pub(super) enum Refused {
    Stop(Stop),
    Cancelled,
    Model(ModelError),
}

/// Makes the provider's id of an answer durable, where it can be read again by it.
pub(super) async fn resumable(
    instance: &AgentInstance,
    attempt: &Attempt,
    resolved: &ResolvedModel,
    message: &str,
    money: &mut Money,
    response_id: &str,
) -> Result<(), Stop> {
    if money.resumed.is_some() || !resolved.provider.resumes() {
        return Ok(());
    }
    let mut open = money.open.take().unwrap_or(Open {
        model: resolved.reference.clone(),
        submission: attempt.submission().id.clone(),
        at: attempt.now(),
        reserved: 0,
        response_id: None,
    });
    open.response_id = Some(response_id.to_owned());
    let mut step = Step::new();
    step.rows.push(spend::opened(message, &open));
    attempt.commit(step).await?;
    debug_assert!(instance.spending.left.is_empty());
    money.open = Some(open);
    Ok(())
}

/// Counts a call that was answered: its cost, and the rows that say so.
pub(super) async fn answered(
    instance: &mut AgentInstance,
    attempt: &Attempt,
    resolved: &ResolvedModel,
    message_id: &str,
    money: &Money,
    message: &AssistantMessage,
) -> Result<(Option<u64>, Vec<RowChange>), Stop> {
    let usage = message.usage;
    let cost = resolved.price.as_ref().map(|price| price.cost(&usage));
    let made = Made::Answered { usage, cost };
    let rows = end(instance, attempt, resolved, message_id, money, made).await?;
    Ok((cost, rows))
}

/// Counts a call that broke off: its cost, estimated, and the rows that say so. Nothing is counted for
/// one that the provider did not begin to answer. An answer that can be read again stays open.
pub(super) async fn broken(
    instance: &mut AgentInstance,
    attempt: &Attempt,
    resolved: &ResolvedModel,
    message_id: &str,
    money: &Money,
    heard: Option<usize>,
) -> Result<(Option<u64>, Vec<RowChange>), Stop> {
    if let Some(open) = money.open.clone().filter(|open| open.response_id.is_some()) {
        let message = money.resumed.clone().unwrap_or(message_id.to_owned());
        instance.spending.left.insert(message, open);
        return Ok((None, Vec::new()));
    }
    let Some(characters) = heard else {
        settle(instance, attempt, message_id, 0);
        let row = money.open.as_ref().map(|_| spend::closed(message_id));
        return Ok((None, row.into_iter().collect()));
    };
    let price = resolved.price.as_ref();
    let cost = price.map(|price| spend::waste(&instance.conversation, price, characters));
    let made = Made::Cut { cost };
    let rows = end(instance, attempt, resolved, message_id, money, made).await?;
    Ok((cost, rows))
}

async fn end(
    instance: &mut AgentInstance,
    attempt: &Attempt,
    resolved: &ResolvedModel,
    message_id: &str,
    money: &Money,
    made: Made,
) -> Result<Vec<RowChange>, Stop> {
    let store = instance.store.clone();
    let (now, model) = (attempt.now(), &resolved.reference);
    let counted = instance
        .spending
        .count(&*store, &instance.actor, now, model, made);
    let mut rows = vec![counted.await?];
    let open = money.resumed.as_deref().unwrap_or(message_id);
    if money.open.is_some() {
        rows.push(spend::closed(open));
    }
    let (Made::Answered { cost, .. } | Made::Cut { cost }) = made;
    settle(instance, attempt, open, cost.unwrap_or(0));
    Ok(rows)
}

fn settle(instance: &AgentInstance, attempt: &Attempt, message: &str, cost: u64) {
    let account = spend::account(&instance.actor);
    let now = attempt.now().as_millis();
    let gateway = instance.shared.models.gateway();
    gateway.settle(&account, message, now, cost);
}
