//! A tool batch: one step.
//!
//! Calls without an outside effect run in source order, each on an overlay above the last, and are
//! committed once, with their results and the files they wrote. Outside effects are written down
//! before they are done, run beside them, and are committed one by one as they end.
//! One that works on the files too, a command with a network, runs in turn with the local ones.

use std::{
    collections::{HashMap, VecDeque},
    panic::AssertUnwindSafe,
    sync::Arc,
    time::Duration,
};

use bowline_model::ToolCall;
use bowline_runtime::{
    Attempt, Instance as _, Step,
    effect::{self, Intended, Status},
};
use bowline_sandbox::{
    shell::ShellState,
    tools::Seen,
    workspace::{ChangeSet, Overlay},
};
use bowline_store::{Blob, BlobId, RowChange, Timestamp};
use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::{
    Stop,
    code::{self, Job},
    plan::{Planned, plan},
};
use crate::{
    approval::{self, APPROVALS, Approval},
    context,
    definition::SandboxKind,
    instance::AgentInstance,
    program::{SHELL, workspace_failure},
    record::{Attachment, Content, Fact, Scope, ToolOutcome, ToolResultsCommitted},
    tool::{ToolContext, ToolError, ToolOutput, elided::History, sandbox::ShellCell},
};

/// How long a call may take; `bash` has its own, shorter limit.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(3_700);
/// Most calls with an outside effect that run at once; the others of a batch wait.
pub(super) const AT_ONCE: usize = 16;
/// A batch that takes longer than this commits the message that asked for it first, so that a crash
/// does not cost another model call.
pub(super) const SAVE_AFTER: Duration = Duration::from_secs(1);

/// A text with more bytes is a blob of its own; the record has its beginning and its end.
const MAX_TEXT: usize = 256 * 1024;

/// What the model asked for.
pub(super) struct Batch {
    pub(super) message_id: String,
    pub(super) calls: Vec<ToolCall>,
    /// The message was cut off by the output limit: the calls cannot be trusted.
    pub(super) truncated: bool,
    /// What of the message is not committed yet.
    pub(super) pending: Vec<Pending>,
}

/// What a step has to carry besides the results.
pub(super) enum Pending {
    Fact(Box<Fact>),
    Row(RowChange),
    Step(Box<Step>),
}

/// A call that ended.
pub(super) struct Ended {
    pub(super) call: ToolCall,
    pub(super) effect_id: Option<String>,
    pub(super) result: Result<ToolOutput, ToolError>,
    pub(super) took: Duration,
    /// The overlay of a call that returned; its writes are kept.
    pub(super) files: Option<Overlay>,
}

/// Runs what is left of a batch, and closes it.
pub(super) async fn run(
    instance: &mut AgentInstance,
    attempt: &Attempt,
    batch: Batch,
) -> Result<(), Stop> {
    let rendered = match instance.turn.take() {
        Some(rendered) => rendered,
        None => Arc::new(instance.shared.rendered(instance.actor.name())?),
    };
    let toolbox = instance.shared.toolbox(&rendered)?;
    let tools = toolbox.tools.clone();
    let plan = plan(instance, &rendered.definition, &tools, &batch, attempt);
    let files = match &rendered.definition.sandbox {
        SandboxKind::Workspace => {
            let begun = instance.workspace.begin(attempt.now()).await;
            Some(begun.map_err(|error| workspace_failure(&error))?)
        }
        SandboxKind::None | SandboxKind::Local(_) => None,
    };
    let seen = instance.seen.clone();
    instance.shell.start(instance.shell_state.clone(), seen);
    let mut running = Running {
        scope: instance.scope(attempt.submission(), Some(attempt.id())),
        message_id: batch.message_id.clone(),
        pending: batch.pending,
        local: Vec::new(),
        files,
    };
    if let Some(until) = plan.until {
        return Err(running.park(instance, plan.ask, until));
    }
    for (call, text) in plan.refused {
        running.local.push(Ended::refused(call, text));
    }
    for (call, text) in plan.answered {
        running.local.push(Ended::answered(call, text));
    }
    running
        .intend(instance, attempt, &plan.new, plan.closed)
        .await?;
    running
        .work(instance, attempt, &batch.calls, plan.local, plan.outside)
        .await?;
    for (call, job) in plan.code {
        let registry = match &job {
            Job::Code(_) => &toolbox.code,
            Job::Script(..) => &toolbox.scripts,
        };
        let Some(registry) = registry else {
            continue;
        };
        let mode = code::Mode {
            job: &job,
            definition: &rendered.definition,
            registry,
        };
        let ended = code::run(instance, attempt, &mut running, mode, call).await?;
        running.keep(ended)?;
    }
    running.finish(instance, attempt, &batch.calls, true).await
}

impl Ended {
    fn status(&self) -> Status {
        if self.result.is_ok() {
            Status::Done
        } else {
            Status::Failed
        }
    }

    pub(super) fn answered(call: ToolCall, text: String) -> Self {
        let output = ToolOutput {
            output: Some(serde_json::json!({ "answer": text })),
            ..ToolOutput::text(text)
        };
        Self {
            result: Ok(output),
            ..Self::refused(call, String::new())
        }
    }

    pub(super) fn refused(call: ToolCall, text: String) -> Self {
        Self {
            call,
            effect_id: None,
            result: Err(ToolError::Refused(text)),
            took: Duration::ZERO,
            files: None,
        }
    }
}

/// A batch while it runs.
pub(super) struct Running {
    pub(super) scope: Scope,
    message_id: String,
    /// What of the message is not committed yet.
    pub(super) pending: Vec<Pending>,
    /// Calls that ended and are committed when the batch closes.
    local: Vec<Ended>,
    pub(super) files: Option<Overlay>,
}

/// What of the files and the shell a step carries.
pub(super) struct Written {
    changes: Option<ChangeSet>,
    shell: Option<ShellState>,
    seen: Option<Seen>,
}

impl Written {
    /// True when files changed.
    pub(super) fn files(&self) -> bool {
        self.changes.is_some()
    }

    /// The step is durable.
    pub(super) fn applied(self, instance: &mut AgentInstance) {
        if let Some(changes) = &self.changes {
            instance.workspace.committed(changes);
        }
        self.kept(instance);
    }

    /// The same without the files, for an instance that reads them anew.
    pub(super) fn kept(self, instance: &mut AgentInstance) {
        if let Some(seen) = self.seen {
            instance.seen = seen;
        }
        if let Some(state) = self.shell {
            instance.shell_state = state;
        }
    }
}

impl Running {
    /// Nothing of the batch is run before each consent that it needs is given or refused.
    fn park(&mut self, instance: &AgentInstance, mut ask: Vec<Approval>, until: Timestamp) -> Stop {
        approval::in_order(&mut ask);
        let mut step = Step::new();
        self.take_pending(instance, &mut step);
        for approval in ask {
            step.put(APPROVALS, approval.approval_id.as_bytes(), &approval);
            instance.add(&mut step, [Fact::ApprovalRequested(approval)], &self.scope);
        }
        Stop::Parked { step, until }
    }

    /// Writes the intents down, together with the message that asked for them; settles those effects
    /// of an earlier attempt of which nobody knows whether they happened.
    async fn intend(
        &mut self,
        instance: &mut AgentInstance,
        attempt: &Attempt,
        new: &[Intended],
        closed: Vec<(ToolCall, Intended, Status)>,
    ) -> Result<(), Stop> {
        if new.is_empty() && closed.is_empty() {
            return Ok(());
        }
        let mut step = Step::new();
        self.take_pending(instance, &mut step);
        for intended in new {
            effect::intend(&mut step, intended);
            instance.effects.push(intended.clone());
        }
        for (call, intended, status) in closed {
            close(instance, attempt, &mut step, &intended.effect_id, status);
            let ended = match status {
                Status::Done => {
                    Ended::answered(call, "A person says that this was done.".to_owned())
                }
                Status::Failed => {
                    Ended::refused(call, "A person says that this was not done.".to_owned())
                }
                Status::Unknown => Ended::refused(call, super::interrupted()),
            };
            self.outcome(instance, &mut step, &ended);
        }
        let records = attempt.commit(step).await?;
        instance.apply(&records)?;
        Ok(())
    }

    async fn work(
        &mut self,
        instance: &mut AgentInstance,
        attempt: &Attempt,
        calls: &[ToolCall],
        mut local: VecDeque<Planned>,
        mut outside: VecDeque<Planned>,
    ) -> Result<(), Stop> {
        let cancel = attempt.cancel().clone();
        let save_at = Instant::now() + SAVE_AFTER;
        let mut beside = FuturesUnordered::new();
        let mut current: Option<BoxFuture<'static, Ended>> = None;
        let mut order = ordered(calls, &local, &outside);
        loop {
            let turn = |planned: &Planned| {
                !planned.tool.tool.ordered() || order.front() == Some(&planned.call.id)
            };
            if current.is_none()
                && let Some(planned) = local.pop_front_if(|planned| turn(planned))
            {
                let files = self.files.as_ref().map(Overlay::child);
                let shell = Some(instance.shell.clone());
                current = Some(call(planned, files, shell, attempt, &cancel));
            }
            while beside.len() < AT_ONCE
                && let Some(at) = outside.iter().position(turn)
                && let Some(planned) = outside.remove(at)
            {
                let shell = Some(instance.shell.clone());
                beside.push(call(planned, None, shell, attempt, &cancel));
            }
            if current.is_none() && beside.is_empty() {
                return Ok(());
            }
            tokio::select! {
                biased;
                () = cancel.cancelled() => {
                    // Calls that returned keep their writes; what still runs is dropped here.
                    drop(current);
                    self.finish(instance, attempt, &[], false).await?;
                    return Err(Stop::Cancelled);
                }
                ended = async { match &mut current { Some(call) => call.await, None => std::future::pending().await } } => {
                    current = None;
                    order.pop_front_if(|id| *id == ended.call.id);
                    match ended.effect_id.clone() {
                        None => self.keep(ended)?,
                        Some(effect_id) => self.both(instance, attempt, ended, &effect_id).await?,
                    }
                }
                Some(ended) = beside.next(), if !beside.is_empty() => {
                    order.pop_front_if(|id| *id == ended.call.id);
                    self.settle(instance, attempt, ended).await?;
                }
                () = tokio::time::sleep_until(save_at), if !self.pending.is_empty() => {
                    let mut step = Step::new();
                    self.take_pending(instance, &mut step);
                    let records = attempt.commit(step).await?;
                    instance.apply(&records)?;
                }
            }
        }
    }

    /// A local call returned: what it wrote is seen by the next one.
    fn keep(&mut self, mut ended: Ended) -> Result<(), Stop> {
        if let Err(ToolError::Store(error)) = ended.result {
            return Err(error.into());
        }
        if let Some(files) = ended.files.take() {
            files.merge().map_err(|error| workspace_failure(&error))?;
        }
        self.local.push(ended);
        Ok(())
    }

    /// An outside effect ended: its settlement and its outcome are one commit.
    async fn settle(
        &mut self,
        instance: &mut AgentInstance,
        attempt: &Attempt,
        ended: Ended,
    ) -> Result<(), Stop> {
        let mut step = Step::new();
        self.take_pending(instance, &mut step);
        if let Some(effect_id) = &ended.effect_id {
            close(instance, attempt, &mut step, effect_id, ended.status());
        }
        self.outcome(instance, &mut step, &ended);
        let records = attempt.commit(step).await?;
        instance.apply(&records)?;
        Ok(())
    }

    /// A call ended that acted outside and worked on the files: its settlement, the outcomes and the
    /// files until now are one commit.
    async fn both(
        &mut self,
        instance: &mut AgentInstance,
        attempt: &Attempt,
        ended: Ended,
        effect_id: &str,
    ) -> Result<(), Stop> {
        let status = ended.status();
        self.keep(ended)?;
        let mut step = Step::new();
        self.take_pending(instance, &mut step);
        close(instance, attempt, &mut step, effect_id, status);
        self.take_local(instance, &mut step, &[]);
        let written = self.write(instance, attempt, &mut step)?;
        let records = attempt.commit(step).await?;
        written.applied(instance);
        instance.apply(&records)?;
        self.renew(instance, attempt).await
    }

    /// Goes on from what was committed.
    pub(super) async fn renew(
        &mut self,
        instance: &AgentInstance,
        attempt: &Attempt,
    ) -> Result<(), Stop> {
        if self.files.is_some() {
            let begun = instance.workspace.begin(attempt.now()).await;
            self.files = Some(begun.map_err(|error| workspace_failure(&error))?);
        }
        let seen = instance.seen.clone();
        instance.shell.start(instance.shell_state.clone(), seen);
        Ok(())
    }

    /// The last commit of the batch: the results, the files, and that it is complete.
    async fn finish(
        &mut self,
        instance: &mut AgentInstance,
        attempt: &Attempt,
        calls: &[ToolCall],
        complete: bool,
    ) -> Result<(), Stop> {
        if !complete && self.local.is_empty() && self.pending.is_empty() {
            return Ok(());
        }
        let mut step = Step::new();
        self.take_pending(instance, &mut step);
        self.take_local(instance, &mut step, calls);
        if complete {
            let committed = Fact::ToolResultsCommitted(ToolResultsCommitted {
                message_id: instance.shared.sources.id("msg_"),
                assistant_message_id: self.message_id.clone(),
                outcome_ids: calls.iter().map(|call| call.id.clone()).collect(),
            });
            instance.add(&mut step, [committed], &self.scope);
        }
        let written = self.write(instance, attempt, &mut step)?;
        let records = attempt.commit(step).await?;
        written.applied(instance);
        instance.apply(&records)?;
        Ok(())
    }

    /// The outcomes of the calls that ended, in the order of `calls`.
    pub(super) fn take_local(
        &mut self,
        instance: &AgentInstance,
        step: &mut Step,
        calls: &[ToolCall],
    ) {
        let mut ended = std::mem::take(&mut self.local);
        let order: HashMap<&str, usize> = calls
            .iter()
            .enumerate()
            .map(|(at, call)| (call.id.as_str(), at))
            .collect();
        ended.sort_by_key(|ended| {
            let at = order.get(ended.call.id.as_str()).copied();
            at.unwrap_or(usize::MAX)
        });
        for ended in &ended {
            self.outcome(instance, step, ended);
        }
    }

    /// Adds the files and the state of the shell to a step.
    pub(super) fn write(
        &self,
        instance: &AgentInstance,
        attempt: &Attempt,
        step: &mut Step,
    ) -> Result<Written, Stop> {
        let changes = match &self.files {
            Some(files) if !files.is_clean() => {
                let mut changes = files.changes().map_err(|error| workspace_failure(&error))?;
                let origin = format!("{} {}", attempt.submission().id, self.message_id);
                let signed = changes.sign(origin);
                signed.map_err(|error| workspace_failure(&error))?;
                step.rows.extend(changes.rows.iter().cloned());
                step.blobs.extend(changes.blobs.iter().cloned());
                Some(changes)
            }
            Some(_) | None => None,
        };
        let shell = instance.shell.changed();
        if let Some(state) = &shell {
            step.put(SHELL, "state", state);
        }
        let seen = instance.shell.seen_changed();
        if let Some(seen) = &seen {
            step.put(SHELL, "seen", seen);
        }
        Ok(Written {
            changes,
            shell,
            seen,
        })
    }

    /// True when something of the message is not committed.
    pub(super) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    pub(super) fn take_pending(&mut self, instance: &AgentInstance, step: &mut Step) {
        for pending in self.pending.drain(..) {
            match pending {
                Pending::Fact(fact) => instance.add(step, [*fact], &self.scope),
                Pending::Row(row) => step.rows.push(row),
                Pending::Step(more) => step.extend(*more),
            }
        }
    }

    fn outcome(&self, instance: &AgentInstance, step: &mut Step, ended: &Ended) {
        let mut content = Vec::new();
        let mut output = None;
        let mut whole = None;
        let mut text = |text: String| {
            if text.len() <= MAX_TEXT {
                return Content::Text { text };
            }
            // The log and the memory hold what may be seen; the rest is read when it is asked for.
            let short = context::shorten(&text, MAX_TEXT, Some(&ended.call.id)).into_owned();
            let blob = Blob::new(text.into());
            whole = Some(blob.id.to_string());
            step.blobs.push(blob);
            Content::Text { text: short }
        };
        match &ended.result {
            Ok(result) => {
                content.push(text(result.text.clone()));
                if result.text.len() <= MAX_TEXT {
                    output.clone_from(&result.output);
                }
                if let Some((mime_type, bytes)) = &result.media {
                    let digest = BlobId::of(bytes).to_string();
                    content.push(Content::Attachment {
                        attachment: Attachment {
                            id: format!("file_{}", &digest[..26]),
                            mime_type: mime_type.clone(),
                            size: bytes.len() as u64,
                            digest,
                            filename: None,
                        },
                    });
                    step.blobs.push(Blob::new(bytes.clone()));
                }
            }
            Err(error) => content.push(text(error.to_string())),
        }
        let fact = Fact::ToolOutcome(ToolOutcome {
            assistant_message_id: self.message_id.clone(),
            tool_call_id: ended.call.id.clone(),
            tool_name: ended.call.name.clone(),
            is_error: ended.result.is_err(),
            content,
            whole,
            output,
            duration_ms: u64::try_from(ended.took.as_millis()).unwrap_or(u64::MAX),
        });
        instance.add(step, [fact], &self.scope);
    }
}

/// The ids of the calls that run one after another, in source order.
fn ordered(
    calls: &[ToolCall],
    local: &VecDeque<Planned>,
    outside: &VecDeque<Planned>,
) -> VecDeque<String> {
    let all = local.iter().chain(outside);
    let waiting: Vec<&str> = all
        .filter(|planned| planned.tool.tool.ordered())
        .map(|planned| planned.call.id.as_str())
        .collect();
    calls
        .iter()
        .map(|call| call.id.clone())
        .filter(|id| waiting.contains(&id.as_str()))
        .collect()
}

/// Settles an effect.
fn close(
    instance: &mut AgentInstance,
    attempt: &Attempt,
    step: &mut Step,
    effect_id: &str,
    status: Status,
) {
    effect::settle(step, effect_id, status, attempt.now());
    instance.effects.retain(|open| open.effect_id != effect_id);
}

/// One call. It never panics and never takes longer than [`CALL_TIMEOUT`].
fn call(
    planned: Planned,
    files: Option<Overlay>,
    shell: Option<ShellCell>,
    attempt: &Attempt,
    cancel: &CancellationToken,
) -> BoxFuture<'static, Ended> {
    let Planned {
        call,
        tool,
        arguments,
        effect_id,
    } = planned;
    let context = ToolContext {
        call_id: call.id.clone(),
        effect_id: effect_id.clone(),
        files: files.clone(),
        shell,
        history: Some(History::new(
            attempt.store().clone(),
            attempt.actor().clone(),
        )),
        now: attempt.now(),
        cancel: cancel.child_token(),
    };
    let tool = Arc::clone(&tool.tool);
    let span = tracing::info_span!(
        "tool",
        tool = call.name,
        call = call.id,
        span_id = tracing::field::Empty,
    );
    if !span.is_disabled() {
        span.record("span_id", attempt.span_id(&call.id));
    }
    async move {
        let began = Instant::now();
        let run = AssertUnwindSafe(tool.call(&context, arguments)).catch_unwind();
        let (result, returned) = match tokio::time::timeout(CALL_TIMEOUT, run).await {
            Ok(Ok(result)) => (result, true),
            Ok(Err(_)) => (
                Err(ToolError::new(format!("Tool \"{}\" crashed", call.name))),
                false,
            ),
            Err(_) => {
                context.cancel.cancel();
                let seconds = CALL_TIMEOUT.as_secs();
                (
                    Err(ToolError::new(format!(
                        "Tool \"{}\" timed out after {seconds} seconds",
                        call.name
                    ))),
                    false,
                )
            }
        };
        let took = began.elapsed();
        let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        tracing::info!(duration_ms, failed = result.is_err(), "a tool ended");
        Ended {
            call,
            effect_id,
            result,
            took,
            files: files.filter(|_| returned),
        }
    }
    .instrument(span)
    .boxed()
}
