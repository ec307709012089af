//! One call of the model, with what is kept while it streams.

use std::{sync::Arc, time::Duration};

use bowline_model::{
    AssistantMessage, AssistantPart, CallPosition, ErrorKind, Event, ModelError, Partial, Purpose,
    Request, ResolvedModel, StopReason, ToolSpec, Usage, gateway::RESERVED_OUTPUT,
};
use bowline_runtime::{Attempt, Instance as _, Step, Submission};
use bowline_store::RowChange;
use futures::StreamExt as _;
use tokio::time::Instant;
use tracing::Instrument as _;

use super::{Stop, model_failure, money};
use crate::{
    conversation::{MessageFacts, start},
    definition::Compaction,
    input::Input,
    instance::{AgentInstance, Draft, draft_key},
    live::{ChunkBody, DeltaKind},
    program::DRAFT,
    record::{CallError, Timing},
    render::Rendered,
};

/// How often streamed text is made durable when nobody but observers in this process follows it.
const DRAFT_EVERY: Duration = Duration::from_secs(1);
/// How often it is made durable while somebody follows what is durable.
const DRAFT_EVERY_FOLLOWED: Duration = Duration::from_millis(100);

/// How long a provider may take to hear that an answer is not wanted any more.
const CANCEL_WITHIN: Duration = Duration::from_secs(2);

/// A message that is complete and not committed.
pub(super) struct Answer {
    pub(super) message_id: String,
    pub(super) message: AssistantMessage,
    pub(super) cost_micro_usd: Option<u64>,
    /// True when its beginning is durable already.
    pub(super) started: bool,
    /// True when it goes on from what was said before a cut.
    pub(super) continues: bool,
    /// How long it took.
    pub(super) timing: Timing,
    /// Removes its drafts, and counts what it cost.
    pub(super) rows: Vec<RowChange>,
}

/// What is known of a message while it streams.
struct Streaming {
    message_id: String,
    response_id: String,
    partial: Partial,
    started: bool,
    /// It goes on from what was said before a cut.
    continues: bool,
    /// Text that is not durable: block, reasoning or not, text.
    fresh: Vec<(u32, bool, String)>,
    pieces: u32,
    /// The block that was made durable last.
    block: u32,
    /// True when a block grew after a later one had begun: what streams is not in the order of the
    /// message then, and only the whole message is made durable.
    held: bool,
    last_draft: Instant,
    money: money::Money,
    /// The submission has a spend limit of its own.
    bounded: bool,
    began: Instant,
    /// From the call to the first piece of the answer.
    first: Option<Duration>,
}

impl Streaming {
    fn begin(
        instance: &AgentInstance,
        submission: &str,
        money: money::Money,
        bounded: bool,
        continues: bool,
    ) -> Self {
        let message_id = instance.shared.sources.id("msg_");
        let response_id = instance.response_id(submission);
        Self {
            response_id: response_id.unwrap_or_else(|| message_id.clone()),
            message_id,
            partial: Partial::default(),
            started: false,
            continues,
            fresh: Vec::new(),
            pieces: 0,
            block: 0,
            held: false,
            last_draft: Instant::now(),
            money,
            bounded,
            began: Instant::now(),
            first: None,
        }
    }

    fn drafts(&self) -> Option<RowChange> {
        let prefix = format!("{}/", self.message_id).into_bytes();
        (self.pieces > 0).then_some(RowChange::DeletePrefix {
            space: DRAFT,
            prefix,
        })
    }

    fn timing(&self) -> Timing {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Timing {
            duration_ms: millis(self.began.elapsed()),
            first_token_ms: self.first.map(millis),
        }
    }

    /// When what is fresh has to become durable.
    fn next_draft(&self, instance: &AgentInstance) -> Instant {
        let followed = instance.shared.observers.is_followed(&instance.actor);
        self.last_draft
            + if followed {
                DRAFT_EVERY_FOLLOWED
            } else {
                DRAFT_EVERY
            }
    }

    fn keep(&mut self, block: usize, reasoning: bool, delta: &str) {
        if delta.is_empty() {
            return;
        }
        let block = u32::try_from(block).unwrap_or(u32::MAX);
        self.held |= block < self.block;
        self.block = self.block.max(block);
        if self.held {
            return;
        }
        match self.fresh.last_mut() {
            Some((last, kind, text)) if *last == block && *kind == reasoning => {
                text.push_str(delta)
            }
            _ => self.fresh.push((block, reasoning, delta.to_owned())),
        }
    }
}

/// What is asked, and of whom.
pub(super) struct Asked<'a> {
    pub(super) rendered: &'a Rendered,
    pub(super) resolved: &'a ResolvedModel,
    pub(super) tools: Arc<Vec<ToolSpec>>,
    /// How often this model was tried before for this call.
    pub(super) tried: u32,
    /// No other model stands in for it.
    pub(super) last: bool,
    /// Tokens that are left for the answer, where the window is known.
    pub(super) room: Option<u64>,
}

/// Calls the model once. `None` when the call failed and may be tried again; that is recorded.
pub(super) async fn call(
    instance: &mut AgentInstance,
    attempt: &Attempt,
    asked: &Asked<'_>,
) -> Result<Option<Answer>, Stop> {
    let submission = attempt.submission().clone();
    let resolved = asked.resolved;
    let mut money = money::Money::default();
    let left = money::settle_left(instance, attempt, resolved).await?;
    let mut request = request(instance, &submission, asked);
    if let Some((message, open)) = left {
        request.resume.clone_from(&open.response_id);
        money.open = Some(open);
        money.resumed = Some(message);
    } else if !instance.anew && resolved.provider.continues(&request) {
        request.begun = instance
            .conversation
            .begun(&submission.id, &resolved.reference);
    }
    let bounded = asked.rendered.definition.limits.spend_usd.is_some();
    let continues = request.begun.is_some();
    let mut streaming = Streaming::begin(instance, &submission.id, money, bounded, continues);
    let span = tell_span(attempt, resolved, &streaming.message_id, asked.tried);
    let streamed = stream(instance, attempt, resolved, &mut request, &mut streaming);
    let streamed = streamed.instrument(span.clone()).await;
    span.in_scope(|| tell_end(&streamed, streaming.timing()));
    match streamed {
        Ok(message) => {
            let counted = money::answered(
                instance,
                attempt,
                resolved,
                &streaming.message_id,
                &streaming.money,
                &message,
            );
            let (cost_micro_usd, mut rows) = counted.await?;
            rows.extend(streaming.drafts());
            Ok(Some(Answer {
                started: streaming.started,
                continues: streaming.continues,
                timing: streaming.timing(),
                message_id: streaming.message_id,
                message,
                cost_micro_usd,
                rows,
            }))
        }
        Err(Broken::Stop(stop)) => Err(stop),
        Err(Broken::Cancelled) => {
            let open = streaming.money.open.as_ref();
            if let Some(id) = open.and_then(|open| open.response_id.clone()) {
                // Nobody will read the rest. The bound keeps the abort from waiting for the provider.
                let _ = tokio::time::timeout(CANCEL_WITHIN, resolved.provider.cancel(&id)).await;
            }
            // What was said until now is kept, and marked.
            record(instance, attempt, resolved, streaming, None, None).await?;
            Err(Stop::Cancelled)
        }
        Err(Broken::Model(error)) => {
            if let (Some(message), Some(open), false) = (
                &streaming.money.resumed,
                &streaming.money.open,
                error.is_transient(),
            ) {
                // It is gone at the provider: the model is asked anew.
                let mut step = Step::new();
                step.rows = money::give_up(instance, attempt, resolved, message, open).await?;
                attempt.commit(step).await?;
                return Ok(None);
            }
            let refused = error.kind == ErrorKind::InvalidRequest && streaming.first.is_none();
            if streaming.continues && refused {
                instance.anew = true;
                let (id, money) = (&streaming.message_id, &streaming.money);
                let counted = money::broken(instance, attempt, resolved, id, money, None);
                let mut step = Step::new();
                step.rows = counted.await?.1;
                if !step.is_empty() {
                    attempt.commit(step).await?;
                }
                return Ok(None);
            }
            // A full window is dealt with before the next call, once for each message.
            let full = error.kind == ErrorKind::ContextOverflow
                && asked.rendered.definition.compaction != Compaction::Off
                && !instance.conversation.recovered();
            let jitter = attempt.sources().fraction();
            let delay = instance.shared.retry.decide(asked.tried, &error, jitter);
            record(instance, attempt, resolved, streaming, Some(&error), delay).await?;
            if delay.is_none() && !asked.last && error.is_worth_another_model() {
                instance.shared.tire(resolved);
            } else if !full {
                retry(instance, attempt, &error, delay).await?;
            }
            Ok(None)
        }
    }
}

/// What a model call does is told within its span.
fn tell_span(
    attempt: &Attempt,
    resolved: &ResolvedModel,
    message_id: &str,
    tried: u32,
) -> tracing::Span {
    let span = tracing::info_span!(
        "model",
        provider = resolved.reference.provider,
        model = resolved.reference.model,
        message = message_id,
        tried,
        span_id = tracing::field::Empty,
    );
    if !span.is_disabled() {
        span.record("span_id", attempt.span_id(message_id));
    }
    span
}

fn tell_end(streamed: &Result<AssistantMessage, Broken>, timing: Timing) {
    let Timing {
        duration_ms,
        first_token_ms,
    } = timing;
    match streamed {
        Ok(message) => {
            let usage = &message.usage;
            tracing::info!(
                duration_ms,
                first_token_ms,
                input = usage.input,
                output = usage.output,
                cache_read = usage.cache_read,
                cache_write = usage.cache_write,
                "the model answered"
            );
        }
        Err(Broken::Model(error)) => {
            tracing::warn!(duration_ms, code = error.code(), %error, "a model call failed");
        }
        Err(Broken::Cancelled | Broken::Stop(_)) => {
            tracing::info!(duration_ms, "a model call was cut");
        }
    }
}

impl From<money::Refused> for Broken {
    fn from(refused: money::Refused) -> Self {
        match refused {
            money::Refused::Stop(stop) => Self::Stop(stop),
            money::Refused::Cancelled => Self::Cancelled,
            money::Refused::Model(error) => Self::Model(error),
        }
    }
}

enum Broken {
    Stop(Stop),
    Cancelled,
    Model(ModelError),
}

fn request(instance: &AgentInstance, submission: &Submission, asked: &Asked<'_>) -> Request {
    let used = instance.conversation.used(&submission.id);
    let text = serde_json::from_value::<Input>(submission.payload.clone());
    Request {
        model: asked.resolved.model.clone(),
        system: instance.conversation.system.clone(),
        messages: instance.view.messages().clone(),
        tools: asked.tools.clone(),
        thinking: asked
            .rendered
            .definition
            .thinking
            .unwrap_or(asked.resolved.default_thinking),
        max_output: match (asked.resolved.max_output, asked.room) {
            (Some(most), Some(room)) => Some(most.min(room)),
            (None, Some(room)) => (room < RESERVED_OUTPUT).then_some(room),
            (most, None) => most,
        },
        position: CallPosition {
            purpose: Purpose::Answer,
            call: used.calls + 1,
            attempt: used.retries,
            submission_text: text
                .map(|input| input.text().to_owned())
                .unwrap_or_default(),
        },
        conversation: Some(instance.conversation.id.clone()),
        cache: instance.shared.models.cache(),
        result: asked.rendered.definition.result.clone(),
        ..Request::default()
    }
}

async fn stream(
    instance: &mut AgentInstance,
    attempt: &Attempt,
    resolved: &ResolvedModel,
    request: &mut Request,
    streaming: &mut Streaming,
) -> Result<AssistantMessage, Broken> {
    let cancel = attempt.cancel().clone();
    let (message_id, money) = (&streaming.message_id, &mut streaming.money);
    let bounded = streaming.bounded;
    let reserved = money::reserve(
        instance, attempt, resolved, request, message_id, money, bounded,
    );
    reserved.await?;
    streaming.began = Instant::now();
    let mut events = tokio::select! {
        biased;
        () = cancel.cancelled() => return Err(Broken::Cancelled),
        events = resolved.provider.stream(request.clone()) => events.map_err(Broken::Model)?,
    };
    if streaming.response_id == streaming.message_id {
        let (message_id, submission_id) = (
            streaming.response_id.clone(),
            attempt.submission().id.clone(),
        );
        let timestamp = attempt.now();
        instance.tell(|| ChunkBody::MessageStarted {
            message_id,
            submission_id,
            timestamp,
        });
    }
    loop {
        let next_draft = streaming.next_draft(instance);
        let event = tokio::select! {
            biased;
            () = cancel.cancelled() => return Err(Broken::Cancelled),
            event = events.next() => event,
            () = tokio::time::sleep_until(next_draft), if !streaming.fresh.is_empty() => {
                draft(instance, attempt, resolved, streaming).await.map_err(Broken::Stop)?;
                continue;
            }
        };
        let event = match event {
            Some(event) => event.map_err(Broken::Model)?,
            // A stream that ends well ends with `Done`, which returns below.
            None => {
                let provider = resolved.reference.provider.clone();
                let cut = ModelError::new(
                    bowline_model::ErrorKind::Cut,
                    provider,
                    "the answer broke off",
                );
                return Err(Broken::Model(cut));
            }
        };
        if let Event::Started {
            response_id: Some(id),
        } = &event
        {
            let (message_id, money) = (&streaming.message_id, &mut streaming.money);
            let kept = money::resumable(instance, attempt, resolved, message_id, money, id);
            kept.await.map_err(Broken::Stop)?;
        } else if streaming.first.is_none() {
            streaming.first = Some(streaming.began.elapsed());
        }
        streaming.partial.apply(&event);
        tell(instance, streaming, &event);
        if let Event::Done(message) = event {
            // A complete answer stands, whatever was cut before it: the next call compacts first.
            let window = resolved.context_window.filter(|window| *window > 0);
            let unsaid = message.stop == StopReason::Length;
            if unsaid && window.is_some_and(|window| message.overflowed_silently(window)) {
                let provider = resolved.reference.provider.clone();
                let what = "the transcript was cut to the model's window";
                let error = ModelError::new(ErrorKind::ContextOverflow, provider, what);
                return Err(Broken::Model(error));
            }
            return Ok(message);
        }
        if Instant::now() >= streaming.next_draft(instance) && !streaming.fresh.is_empty() {
            draft(instance, attempt, resolved, streaming)
                .await
                .map_err(Broken::Stop)?;
        }
    }
}

/// Passes on what streams, at once.
fn tell(instance: &mut AgentInstance, streaming: &mut Streaming, event: &Event) {
    let message_id = streaming.response_id.clone();
    match event {
        Event::Text { index, delta } => {
            streaming.keep(*index, false, delta);
            instance.tell(|| ChunkBody::MessageDelta {
                message_id,
                kind: DeltaKind::Text,
                delta: delta.clone(),
            });
        }
        Event::Thinking { index, delta } => {
            streaming.keep(*index, true, delta);
            if !delta.is_empty() {
                let kind = DeltaKind::Reasoning;
                instance.tell(|| ChunkBody::MessageDelta {
                    message_id,
                    kind,
                    delta: delta.clone(),
                });
            }
        }
        Event::ToolCallEnd { call, .. } => instance.tell(|| ChunkBody::ToolInput {
            message_id,
            tool_call_id: call.id.clone(),
            tool_name: call.name.clone(),
            input: call.arguments.clone(),
        }),
        // Text behind a call would become durable before the call does.
        Event::ToolCallStart { .. } => streaming.held = true,
        Event::Started { .. }
        | Event::TextEnd { .. }
        | Event::ThinkingEnd { .. }
        | Event::ToolCallDelta { .. }
        | Event::Done(_) => {}
    }
}

/// Makes the text that streamed since the last time durable.
async fn draft(
    instance: &mut AgentInstance,
    attempt: &Attempt,
    resolved: &ResolvedModel,
    streaming: &mut Streaming,
) -> Result<(), Stop> {
    let mut step = Step::new();
    if !streaming.started {
        let fact = start(
            &streaming.message_id,
            instance.conversation.leaf(),
            resolved.reference.clone(),
            streaming.continues,
        );
        instance.add(
            &mut step,
            [fact],
            &instance.scope(attempt.submission(), Some(attempt.id())),
        );
    }
    for (block, reasoning, text) in std::mem::take(&mut streaming.fresh) {
        step.put(
            DRAFT,
            draft_key(&streaming.message_id, block, streaming.pieces),
            &Draft { reasoning, text },
        );
        streaming.pieces += 1;
    }
    let records = attempt.commit(step).await?;
    instance.apply(&records)?;
    streaming.started = true;
    streaming.last_draft = Instant::now();
    instance.shared.observers.drafted(&instance.actor);
    Ok(())
}

/// Records a call that gave no answer: what was said, and why it broke off.
async fn record(
    instance: &mut AgentInstance,
    attempt: &Attempt,
    resolved: &ResolvedModel,
    streaming: Streaming,
    error: Option<&ModelError>,
    delay: Option<Duration>,
) -> Result<(), Stop> {
    let drafts = streaming.drafts();
    let timing = streaming.timing();
    let heard = streaming.first.map(|_| {
        let sizes = streaming.partial.parts().iter().map(|part| match part {
            AssistantPart::Text { text, .. } | AssistantPart::Thinking { text, .. } => text.len(),
            AssistantPart::ToolCall(call) => call.arguments.to_string().len(),
        });
        sizes.sum()
    });
    let (message_id, money) = (&streaming.message_id, &streaming.money);
    let counted = money::broken(instance, attempt, resolved, message_id, money, heard);
    let (cost_micro_usd, rows) = counted.await?;
    let stop = if error.is_some() {
        StopReason::Error
    } else {
        StopReason::Aborted
    };
    let reference = resolved.reference.clone();
    let message = streaming
        .partial
        .into_interrupted(reference, stop, Usage::default());
    if error.is_none() && message.parts.is_empty() && !streaming.started {
        if !rows.is_empty() {
            let mut step = Step::new();
            step.rows = rows;
            attempt.commit(step).await?;
        }
        return Ok(());
    }
    let facts = MessageFacts {
        message_id: &streaming.message_id,
        parent_id: instance.conversation.leaf(),
        started: streaming.started,
        message: &message,
        cost_micro_usd,
        timing: Some(timing),
        error: error.map(|error| CallError {
            code: error.code().to_owned(),
            message: error.to_string(),
            retry_at: delay.map(|delay| attempt.now().after(delay)),
        }),
        interrupted: error.is_none(),
        continues: streaming.continues,
    };
    let mut step = Step::new();
    instance.add(
        &mut step,
        facts.facts(),
        &instance.scope(attempt.submission(), Some(attempt.id())),
    );
    step.rows.extend(drafts);
    step.rows.extend(rows);
    let records = attempt.commit(step).await?;
    instance.apply(&records)?;
    Ok(())
}

/// Waits before the next try, or gives up.
async fn retry(
    instance: &mut AgentInstance,
    attempt: &Attempt,
    error: &ModelError,
    delay: Option<Duration>,
) -> Result<(), Stop> {
    let Some(delay) = delay else {
        return Err(Stop::Failed(model_failure(error)));
    };
    let (code, message) = (error.code().to_owned(), error.to_string());
    let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
    instance.tell(|| ChunkBody::ModelRetry {
        error: code,
        message,
        delay_ms,
    });
    tokio::select! {
        () = attempt.cancel().cancelled() => Err(Stop::Cancelled),
        () = tokio::time::sleep(delay) => Ok(()),
    }
}
