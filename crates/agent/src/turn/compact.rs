//! Making room in the window: a step of its own.
//!
//! A summary is asked for, and then one record says that it stands for what came before. Nothing else
//! changes, so a run that dies anywhere in between has lost a summary and nothing more.

use bowline_model::{
    AssistantMessage, CallPosition, ErrorKind, Event, Message, ModelError, ModelRef, Purpose,
    Request, ResolvedModel, StopReason, Thinking, Transcript, Usage, UserMessage,
    request::CacheRetention,
};
use bowline_runtime::{Attempt, Failure, Instance as _, Step};
use futures::StreamExt as _;

use super::{Stop, model_failure, money};
use crate::{
    context::{
        Shape,
        budget::{self, Budget},
        compaction::{self, Plan, Room},
    },
    definition::{Compaction as Setting, CompactionSettings},
    instance::AgentInstance,
    program::Toolbox,
    record::{Compaction, Fact, LearnedWindow, Trigger},
    render::Rendered,
    spend,
};

/// Tries of one summary after transient failures, the first included.
const TRIES: u32 = 3;
/// Tokens that an answer may have however full the window is: a model that refuses them has no room.
const LEAST_ROOM: u64 = 1_024;
/// How often the part that is summarised is halved when it is too long for the model that writes the
/// summary.
const HALVED: u32 = 6;
/// Bytes of a conversation that are shown to a model whose window is not known.
const SEEN: usize = 300_000;
/// Tokens that a summary which somebody asks for has to stand for: fewer take no more room than the
/// summary itself.
const WORTH: u64 = 256;
/// Bytes of a conversation for each token of room: fewer than usual, since this call must not fail.
const BYTES: u64 = 3;

/// How full the window is, and how it is shared out.
pub(super) struct Fill {
    pub(super) shape: Shape,
    budget: Budget,
    /// The system prompt and the tools, in tokens.
    fixed: u64,
    /// What the next call fills, in tokens.
    tokens: u64,
    /// The same as it is estimated here, whatever the provider counted.
    estimated: u64,
}

impl Fill {
    /// So many tokens as the provider counts them, in tokens as they are estimated here. Where the
    /// provider counts less, the estimate stands.
    fn estimate(&self, tokens: u64) -> u64 {
        if self.tokens <= self.estimated || self.tokens == 0 {
            return tokens;
        }
        let scaled = u128::from(tokens) * u128::from(self.estimated) / u128::from(self.tokens);
        u64::try_from(scaled).unwrap_or(u64::MAX)
    }
}

impl Fill {
    /// Tokens that are left for an answer, where the window is known: providers refuse a limit of output
    /// that does not fit beside what is asked. A twentieth is kept back, since what came last is estimated.
    pub(super) fn room(&self) -> Option<u64> {
        let margin = (self.tokens / 20).max(LEAST_ROOM);
        let left = self.budget.window?.saturating_sub(self.tokens + margin);
        Some(left.max(self.budget.reserve / 2).max(LEAST_ROOM))
    }

    /// So many tokens as they are estimated here, in tokens as the provider counts them, so that what is told
    /// of before and after can be compared.
    fn counted(&self, tokens: u64) -> u64 {
        if self.tokens == 0 || self.estimated == 0 {
            return tokens;
        }
        let scaled = u128::from(tokens) * u128::from(self.tokens) / u128::from(self.estimated);
        u64::try_from(scaled).unwrap_or(u64::MAX)
    }
}

/// How compacting ended.
pub(super) enum Made {
    /// There is a new record.
    Room,
    /// Nothing would have been gained.
    Nothing,
    /// No summary could be had; nothing changed.
    Failed(Failure),
}

/// Brings the view up to date and measures it.
pub(super) async fn measure(
    instance: &mut AgentInstance,
    rendered: &Rendered,
    resolved: &ResolvedModel,
    toolbox: &Toolbox,
) -> Result<Fill, Stop> {
    let conversation = &instance.conversation;
    let budget = Budget::of(
        conversation,
        &resolved.reference,
        resolved.context_window,
        resolved.max_output,
        &settings(rendered),
    );
    let shape = budget.shape(toolbox.readable);
    instance
        .view
        .update(conversation, shape, &*instance.store)
        .await?;
    let fixed = budget::text(conversation.system.len()) + toolbox.tokens;
    Ok(Fill {
        shape,
        budget,
        fixed,
        tokens: instance.view.tokens(fixed),
        estimated: instance.view.estimated(fixed),
    })
}

/// Makes room before a model call where that is needed. True when there is a new record, and the
/// conversation has to be looked at again.
pub(super) async fn ahead(
    instance: &mut AgentInstance,
    attempt: &Attempt,
    rendered: &Rendered,
    resolved: &ResolvedModel,
    fill: &Fill,
) -> Result<bool, Stop> {
    if instance.conversation.overflowed() {
        if instance.conversation.recovered() || rendered.definition.compaction == Setting::Off {
            return Err(Stop::Failed(full(resolved)));
        }
        return match make(
            instance,
            attempt,
            rendered,
            resolved,
            fill,
            Trigger::Overflow,
        )
        .await?
        {
            Made::Room => Ok(true),
            Made::Nothing => Err(Stop::Failed(full(resolved))),
            Made::Failed(failure) => Err(Stop::Failed(failure)),
        };
    }
    if !due(instance, rendered, fill) {
        return Ok(false);
    }
    match make(
        instance,
        attempt,
        rendered,
        resolved,
        fill,
        Trigger::Threshold,
    )
    .await?
    {
        Made::Room => Ok(true),
        Made::Nothing => Ok(false),
        Made::Failed(failure) => {
            // There is still room for an answer; it is tried again when there is less of it.
            tracing::warn!(actor = %instance.actor, %failure, "no summary could be had");
            instance.no_summary_at = Some(fill.tokens);
            Ok(false)
        }
    }
}

fn due(instance: &AgentInstance, rendered: &Rendered, fill: &Fill) -> bool {
    if rendered.definition.compaction == Setting::Off {
        return false;
    }
    let conversation = &instance.conversation;
    let something_new = conversation
        .compacted()
        .is_none_or(|compacted| conversation.entries.len() > compacted.at);
    let failed_lately = instance
        .no_summary_at
        .is_some_and(|tokens| fill.tokens < tokens.saturating_add(fill.budget.reserve / 4));
    let full = fill.tokens > fill.budget.threshold() || many_files(instance);
    something_new && full && !failed_lately
}

fn many_files(instance: &AgentInstance) -> bool {
    let (files, bytes) = instance.view.files();
    files > budget::MAX_FILES || bytes > budget::MAX_FILE_BYTES
}

fn settings(rendered: &Rendered) -> CompactionSettings {
    match &rendered.definition.compaction {
        Setting::On(settings) => settings.clone(),
        Setting::Off => CompactionSettings::default(),
    }
}

/// Somebody asked for it. Nothing to do is no failure.
pub(super) async fn asked(instance: &mut AgentInstance, attempt: &Attempt) -> Result<(), Stop> {
    let rendered = instance.shared.rendered(instance.actor.name())?;
    let resolved = instance.shared.resolve(&rendered)?;
    let toolbox = instance.shared.toolbox(&rendered)?;
    let fill = measure(instance, &rendered, &resolved, &toolbox).await?;
    match make(
        instance,
        attempt,
        &rendered,
        &resolved,
        &fill,
        Trigger::Manual,
    )
    .await?
    {
        Made::Room | Made::Nothing => Ok(()),
        Made::Failed(failure) => Err(Stop::Failed(failure)),
    }
}

/// What a compaction aims at.
struct Aim {
    budget: Budget,
    /// What a refusal has shown of the window.
    window: Option<LearnedWindow>,
    room: Room,
    /// Most tokens of the summary.
    limit: u64,
}

fn aim(
    instance: &AgentInstance,
    rendered: &Rendered,
    resolved: &ResolvedModel,
    fill: &Fill,
    trigger: Trigger,
) -> Aim {
    let settings = settings(rendered);
    let mut budget = fill.budget;
    let mut window = None;
    if trigger == Trigger::Overflow
        && let Some(tokens) =
            budget.learn(fill.tokens, instance.conversation.held(&resolved.reference))
    {
        budget = Budget::shared(Some(tokens), resolved.max_output, &settings);
        let model = resolved.reference.clone();
        window = Some(LearnedWindow { model, tokens });
    }
    let mut limit = compaction::summary_limit(budget.reserve);
    let mut room = Room {
        keep: fill.estimate(budget.keep),
        most: fill
            .estimate(budget.threshold())
            .saturating_sub(fill.fixed)
            .saturating_sub(limit),
    };
    let filled = fill.estimated.saturating_sub(fill.fixed);
    if trigger != Trigger::Threshold || many_files(instance) {
        // It has to become smaller now, however small it is.
        room.keep = room.keep.min(filled / 4);
    }
    if trigger == Trigger::Overflow {
        // There is one try only, and what a token is was estimated wrongly.
        room.most = room.most.min(filled / 4);
        limit = limit.min(filled / 8).max(256);
    }
    Aim {
        budget,
        window,
        room,
        limit,
    }
}

/// Asks for a summary and commits what it stands for.
async fn make(
    instance: &mut AgentInstance,
    attempt: &Attempt,
    rendered: &Rendered,
    resolved: &ResolvedModel,
    fill: &Fill,
    trigger: Trigger,
) -> Result<Made, Stop> {
    let Aim {
        budget,
        window,
        room,
        limit,
    } = aim(instance, rendered, resolved, fill, trigger);
    let shape = budget.shape(fill.shape.readable);
    let conversation = &instance.conversation;
    let Some(plan) = compaction::plan(conversation, room, shape, fill.shape) else {
        return Ok(Made::Nothing);
    };
    let gone = fill.estimated.saturating_sub(fill.fixed + plan.kept);
    if trigger == Trigger::Manual && gone < WORTH {
        return Ok(Made::Nothing);
    }
    let most = usize::try_from(limit * 4).unwrap_or(usize::MAX);
    let files = compaction::files(conversation, &plan);
    let request = compaction::request(conversation, &plan);
    let summary = if plan.from == plan.cut {
        Ok(Summary::kept(instance))
    } else {
        summarise(
            instance,
            attempt,
            rendered,
            resolved,
            &plan,
            (limit, budget.window),
        )
        .await?
    };
    let full = fill
        .budget
        .window
        .is_some_and(|window| fill.tokens >= window);
    let needed = match trigger {
        Trigger::Manual => false,
        Trigger::Threshold => full,
        Trigger::Overflow => true,
    };
    let complete = |text: &str| compaction::complete(text, request.as_deref(), &files, most);
    let summary = match summary {
        Ok(summary) if summary.model.is_none() => summary,
        Ok(summary) => Summary {
            text: complete(&summary.text),
            ..summary
        },
        Err(failure) if needed => {
            // Without room there is no next call at all.
            tracing::warn!(actor = %instance.actor, %failure, "summarised without a model");
            let text = compaction::mechanical(&instance.conversation, &plan, most / 2);
            Summary {
                text: complete(&text),
                ..Summary::default()
            }
        }
        Err(failure) => return Ok(Made::Failed(failure)),
    };
    let baseline = instance.baseline(rendered).await?;
    let conversation = &instance.conversation;
    let leaf = conversation.leaf();
    let system = baseline.system.as_deref().unwrap_or_default();
    let fixed = (fill.fixed + budget::text(system.len()))
        .saturating_sub(budget::text(conversation.system.len()));
    let kept = conversation.entries.get(plan.cut);
    let record = Compaction {
        entry_id: instance.shared.sources.id("msg_"),
        parent_id: leaf.clone(),
        first_kept_entry_id: kept.map(|entry| entry.id.clone()),
        source_leaf_id: leaf,
        tokens_before: fill.tokens,
        tokens_after: fill.counted(fixed + plan.kept + compaction::summary_tokens(&summary.text)),
        trigger,
        details: files,
        request,
        kept_cap: plan.kept_cap,
        window,
        model: summary.model,
        usage: summary.usage,
        cost_micro_usd: summary.cost_micro_usd,
        summary: summary.text,
    };
    let mut step = Step::new();
    step.rows.extend(counted(instance, attempt, &record).await?);
    let scope = instance.scope(attempt.submission(), Some(attempt.id()));
    let facts = [
        Fact::Compaction(Box::new(record)),
        Fact::ResourceSnapshot(baseline),
    ];
    instance.add(&mut step, facts, &scope);
    let records = attempt.commit(step).await?;
    instance.apply(&records)?;
    instance.no_summary_at = None;
    Ok(Made::Room)
}

/// The row that counts what a summary cost.
async fn counted(
    instance: &mut AgentInstance,
    attempt: &Attempt,
    record: &Compaction,
) -> Result<Option<bowline_store::RowChange>, Stop> {
    let Some(model) = &record.model else {
        return Ok(None);
    };
    let made = spend::Made::Answered {
        usage: record.usage,
        cost: record.cost_micro_usd,
    };
    let (store, now) = (instance.store.clone(), attempt.now());
    let counted = instance
        .spending
        .count(&*store, &instance.actor, now, model, made);
    Ok(Some(counted.await?))
}

#[derive(Default)]
struct Summary {
    text: String,
    model: Option<ModelRef>,
    usage: Usage,
    cost_micro_usd: Option<u64>,
}

impl Summary {
    /// The summary that is there already.
    fn kept(instance: &AgentInstance) -> Self {
        let before = instance.conversation.compacted();
        Self {
            text: before.map_or_else(String::new, |before| before.record.summary.clone()),
            ..Self::default()
        }
    }
}

/// Asks for a summary. The inner error is that there is none.
async fn summarise(
    instance: &AgentInstance,
    attempt: &Attempt,
    rendered: &Rendered,
    resolved: &ResolvedModel,
    plan: &Plan,
    (limit, window): (u64, Option<u64>),
) -> Result<Result<Summary, Failure>, Stop> {
    let settings = settings(rendered);
    let writer = match &settings.model {
        None => resolved.clone(),
        Some(name) => match instance.shared.resolve_name(rendered, name) {
            Ok(writer) => writer,
            Err(failure) => return Ok(Err(failure)),
        },
    };
    let max_output = writer.max_output.map_or(limit, |most| most.min(limit));
    let window = match &settings.model {
        None => window,
        Some(_) => writer.context_window.filter(|window| *window > 0),
    };
    let mut most = window.map_or(SEEN, |window| {
        let room = window.saturating_sub(max_output + 1_000).max(window / 4);
        usize::try_from(room * BYTES).unwrap_or(SEEN)
    });
    let conversation = &instance.conversation;
    let asked = conversation.requested.as_ref();
    let asked = asked.filter(|one| one.submission == attempt.submission().id);
    let asked = asked.and_then(|one| one.instructions.as_deref());
    let instructions: Vec<&str> = settings
        .instructions
        .as_deref()
        .into_iter()
        .chain(asked)
        .collect();
    let (mut tried, mut failed, mut halved) = (0, 0, 0);
    loop {
        let text = compaction::prompt(conversation, plan, &instructions, most);
        let mut messages = Transcript::new();
        messages.push(Message::User(UserMessage::text(text)));
        let request = Request {
            model: writer.model.clone(),
            system: compaction::SYSTEM.to_owned(),
            messages,
            tools: Vec::new().into(),
            thinking: Thinking::Off,
            max_output: Some(max_output),
            position: CallPosition {
                purpose: Purpose::Summary,
                call: u32::try_from(conversation.compactions.len()).unwrap_or(u32::MAX) + 1,
                attempt: tried,
                submission_text: String::new(),
            },
            // It is asked once.
            cache: CacheRetention::None,
            ..Request::default()
        };
        let answer = paid(instance, attempt, &writer, request).await?;
        let error = match answer {
            Ok(message) => {
                let price = writer.price.as_ref();
                return Ok(Ok(Summary {
                    text: message.text(),
                    cost_micro_usd: price.map(|price| price.cost(&message.usage)),
                    model: Some(message.model),
                    usage: message.usage,
                }));
            }
            Err(error) => error,
        };
        tried += 1;
        if error.kind == ErrorKind::ContextOverflow && halved < HALVED {
            halved += 1;
            most /= 2;
            continue;
        }
        failed += 1;
        let jitter = attempt.sources().fraction();
        let wait = instance.shared.retry.decide(failed - 1, &error, jitter);
        let Some(wait) = wait.filter(|_| failed < TRIES) else {
            return Ok(Err(model_failure(&error)));
        };
        tokio::select! {
            biased;
            () = attempt.cancel().cancelled() => return Err(Stop::Cancelled),
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Asks within the limits of what may be spent. The inner error is the model's.
async fn paid(
    instance: &AgentInstance,
    attempt: &Attempt,
    writer: &ResolvedModel,
    mut request: Request,
) -> Result<Result<AssistantMessage, ModelError>, Stop> {
    let id = format!("summary_{}", attempt.sources().id("msg_"));
    let asked = async {
        match money::hold(instance, attempt, writer, &mut request, &id).await {
            Ok(held) => {
                let gateway = instance.shared.models.gateway();
                gateway.pace(&writer.reference.provider, &request).await;
                Ok((held, ask(writer, request).await))
            }
            Err(money::Refused::Model(error)) => Ok((None, Err(error))),
            Err(money::Refused::Cancelled) => Err(Stop::Cancelled),
            Err(money::Refused::Stop(stop)) => Err(stop),
        }
    };
    let (held, answer) = tokio::select! {
        biased;
        () = attempt.cancel().cancelled() => return Err(Stop::Cancelled),
        answer = asked => answer?,
    };
    if held.is_some() {
        let price = writer.price.as_ref().zip(answer.as_ref().ok());
        let cost = price.map(|(price, message)| price.cost(&message.usage));
        money::release(instance, attempt, &id, cost).await?;
    }
    Ok(answer)
}

async fn ask(writer: &ResolvedModel, request: Request) -> Result<AssistantMessage, ModelError> {
    let failed =
        |kind: ErrorKind, why: &str| ModelError::new(kind, writer.reference.provider.clone(), why);
    let mut events = writer.provider.stream(request).await?;
    while let Some(event) = events.next().await {
        let Event::Done(message) = event? else {
            continue;
        };
        let empty = message.text().trim().is_empty();
        return match message.stop {
            StopReason::Refused => Err(failed(ErrorKind::Refused, "refused to write a summary")),
            _ if empty => Err(failed(ErrorKind::Protocol, "the summary is empty")),
            StopReason::Stop
            | StopReason::ToolUse
            | StopReason::Length
            | StopReason::Aborted
            | StopReason::Error => Ok(message),
        };
    }
    Err(failed(ErrorKind::Cut, "the summary broke off"))
}

/// The window is full, and nothing more can be done about it.
fn full(resolved: &ResolvedModel) -> Failure {
    let error = ModelError::new(
        ErrorKind::ContextOverflow,
        resolved.reference.provider.clone(),
        "the conversation does not fit into the model's window",
    );
    model_failure(&error)
}
