//! One live instance of an agent: its conversation, its files, its shell.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use bowline_model::{AssistantMessage, AssistantPart, StopReason, Usage};
use bowline_runtime::{
    Attempt, Closing, Edit, Failure, Finish, Instance, Progress, Step, Submission,
    effect::{self, Intended, Status},
};
use bowline_sandbox::{
    shell::ShellState,
    tools::Seen,
    workspace::{ChangeSet, Workspace},
};
use bowline_store::{ActorId, BlobId, RowChange, Store, StoreError, StoredRecord};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    approval::{APPROVALS, Answered, Approval, Decision},
    attachment,
    code::journal,
    context::{self, View},
    conversation::{Conversation, Entry, EntryBody, MessageFacts, Next},
    edit,
    input::{INITIAL_DATA, Input},
    live::{Chunk, ChunkBody, Position},
    program::{DRAFT, SHELL, Seed, Shared, workspace_failure},
    record::{
        self, CompactionRequested, Content, Created, Fact, ResourceSnapshot, Scope, Signal,
        ToolOutcome, ToolResultsCommitted,
    },
    render::Rendered,
    skill,
    spend::Spending,
    tool::sandbox::ShellCell,
    turn, view,
};

/// One live instance.
pub(crate) struct AgentInstance {
    pub(crate) shared: Arc<Shared>,
    pub(crate) actor: ActorId,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) conversation: Conversation,
    pub(crate) workspace: Workspace,
    pub(crate) shell: ShellCell,
    pub(crate) shell_state: ShellState,
    /// The files that the model has seen.
    pub(crate) seen: Seen,
    /// Effects that were intended and not settled.
    pub(crate) effects: Vec<Intended>,
    /// What its model calls cost.
    pub(crate) spending: Spending,
    /// What a new instance starts with; gone once it is committed.
    seed: Option<Seed>,
    /// What a conversation that begins is told of its files.
    agents_md: Option<String>,
    /// The id of a conversation that is not committed yet.
    new_id: String,
    /// What the model sees, as far as it is built.
    pub(crate) view: View,
    /// How full the window was when a summary failed last.
    pub(crate) no_summary_at: Option<u64>,
    /// A provider refused to go on from an answer that was cut off: it is asked anew.
    pub(crate) anew: bool,
    /// The agent as it was for the last model call, until what that asked for is done.
    pub(crate) turn: Option<Arc<Rendered>>,
    /// Number of the next chunk after the last record.
    chunk: u64,
    /// Files that somebody outside changes, until that is durable.
    edited: Option<ChangeSet>,
}

impl std::fmt::Debug for AgentInstance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AgentInstance")
            .field("actor", &self.actor)
            .finish_non_exhaustive()
    }
}

/// A piece of a message that streams and is not complete.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Draft {
    pub(crate) reasoning: bool,
    pub(crate) text: String,
}

/// Key of a draft row: the message, the block, the number of the piece.
pub(crate) fn draft_key(message: &str, block: u32, piece: u32) -> Vec<u8> {
    let mut key = format!("{message}/").into_bytes();
    key.extend(block.to_be_bytes());
    key.extend(piece.to_be_bytes());
    key
}

impl AgentInstance {
    pub(crate) async fn open(
        shared: Arc<Shared>,
        actor: ActorId,
        store: Arc<dyn Store>,
        conversation: Conversation,
        workspace: Workspace,
        seed: Option<Seed>,
        agents_md: Option<String>,
    ) -> Result<Self, StoreError> {
        let new_id = shared.sources.id("conv_");
        let mut shell_state = ShellState::default();
        let mut seen = Seen::default();
        let mut effects = Vec::new();
        let mut spending = Spending::default();
        if !conversation.id.is_empty() {
            spending = Spending::load(&*store, &actor).await?;
            effects = effect::open(&*store, &actor).await?;
            if let Some(row) = store.row(&actor, SHELL, b"state").await? {
                shell_state = serde_json::from_slice(&row).map_err(|error| {
                    StoreError::Corrupt(format!("the shell's state does not decode: {error}"))
                })?;
            }
            if let Some(row) = store.row(&actor, SHELL, b"seen").await? {
                seen = serde_json::from_slice(&row).map_err(|error| {
                    StoreError::Corrupt(format!("the files seen do not decode: {error}"))
                })?;
            }
        }
        let shell = ShellCell::default();
        Ok(Self {
            shared,
            actor,
            store,
            conversation,
            workspace,
            shell,
            shell_state,
            seen,
            effects,
            spending,
            seed,
            agents_md,
            new_id,
            view: View::default(),
            no_summary_at: None,
            anew: false,
            turn: None,
            chunk: 0,
            edited: None,
        })
    }

    /// Where a fact of this submission belongs.
    pub(crate) fn scope(&self, submission: &Submission, attempt: Option<&str>) -> Scope {
        Scope {
            conversation: self.conversation_id().to_owned(),
            submission: Some(submission.id.clone()),
            attempt: attempt.map(str::to_owned),
            turn: None,
        }
    }

    /// Adds facts to a step.
    pub(crate) fn add(
        &self,
        step: &mut Step,
        facts: impl IntoIterator<Item = Fact>,
        scope: &Scope,
    ) {
        let now = self.shared.sources.now();
        for fact in facts {
            for file in fact.attachments() {
                attachment::index(step, file);
            }
            step.records.push(fact.record(now, scope));
        }
    }

    /// What a new instance was given together with its first message.
    fn given(&self, submission: &Submission, parent: &mut Option<String>) -> Option<Fact> {
        let data = submission.payload.get(INITIAL_DATA)?;
        if !self.conversation.id.is_empty() {
            return None;
        }
        let message_id = self.shared.sources.id("msg_");
        let parent_id = parent.replace(message_id.clone());
        Some(Fact::Signal(Signal {
            message_id,
            parent_id,
            signal_type: "initial_data".to_owned(),
            content: data.to_string(),
            attributes: BTreeMap::new(),
        }))
    }

    /// The step that makes the input of a submission part of the history.
    pub(crate) fn input(&self, submission: &Submission, parent: &mut Option<String>) -> Vec<Fact> {
        let message_id = self.shared.sources.id("msg_");
        let parent_id = parent.replace(message_id.clone());
        let fact = match serde_json::from_value(submission.payload.clone()) {
            Ok(Input::Signal {
                signal_type,
                body,
                attributes,
            }) => Fact::Signal(Signal {
                message_id,
                parent_id,
                signal_type,
                content: body,
                attributes,
            }),
            Ok(Input::Compact { instructions }) => {
                *parent = parent_id;
                Fact::CompactionRequested(CompactionRequested { instructions })
            }
            Ok(Input::RollBack { .. }) => Fact::Signal(Signal {
                message_id,
                parent_id,
                signal_type: "code_rollback".to_owned(),
                content: "A person wants undone what the last run of code did outside.".to_owned(),
                attributes: BTreeMap::new(),
            }),
            Ok(input @ Input::User { .. }) => Fact::UserMessage(record::UserMessage {
                message_id,
                parent_id,
                content: input.content(),
            }),
            // A payload of another program's making is shown to the model as it is.
            Err(_) => Fact::UserMessage(record::UserMessage {
                message_id,
                parent_id,
                content: vec![Content::Text {
                    text: submission.payload.to_string(),
                }],
            }),
        };
        vec![fact]
    }

    /// What the model has to be told because the agent changed since it was last told.
    pub(crate) fn narrate(&self, rendered: &Rendered, parent: &mut Option<String>) -> Vec<Fact> {
        let Some(told) = &self.conversation.resources else {
            return Vec::new();
        };
        let snapshot = self.snapshot(rendered, None);
        let mut signal = |signal_type: &str, content: String| {
            let message_id = self.shared.sources.id("msg_");
            let parent_id = parent.replace(message_id.clone());
            let attributes = BTreeMap::new();
            Fact::Signal(Signal {
                message_id,
                parent_id,
                signal_type: signal_type.to_owned(),
                content,
                attributes,
            })
        };
        let mut facts = Vec::new();
        if told.instructions_digest != snapshot.instructions_digest {
            let text = format!(
                "Your instructions changed. They are now:\n\n{}",
                rendered.definition.instructions
            );
            facts.push(signal("instructions", text));
        }
        if told.skills_digest != snapshot.skills_digest {
            let catalogue = skill::catalogue(&rendered.definition.skills);
            let text = catalogue.unwrap_or_else(|| "There are no skills any more.".to_owned());
            facts.push(signal(
                "resources",
                format!("The skills changed. They are now:\n\n{text}"),
            ));
        }
        if let (Some(before), Some(now)) = (&told.tools, &snapshot.tools)
            && before != now
        {
            facts.push(signal("resources", changed_tools(before, now)));
        }
        if !facts.is_empty() {
            facts.push(Fact::ResourceSnapshot(snapshot));
        }
        facts
    }

    /// What identifies what the model is told of the agent now.
    fn snapshot(&self, rendered: &Rendered, system: Option<String>) -> ResourceSnapshot {
        let catalogue = skill::catalogue(&rendered.definition.skills).unwrap_or_default();
        let digest = |text: &str| BlobId::of(text.as_bytes()).to_string()[..16].to_owned();
        let toolbox = self.shared.toolbox(rendered).ok();
        ResourceSnapshot {
            system,
            instructions_digest: digest(&rendered.definition.instructions),
            skills_digest: digest(&catalogue),
            tools: toolbox.map(|toolbox| toolbox.digests.clone()),
        }
    }

    /// The system prompt as it is composed now, for a conversation that begins or is compacted.
    fn system(&self, rendered: &Rendered, agents_md: Option<&str>) -> String {
        let date = self.shared.sources.now().to_string();
        context::system(&rendered.definition, agents_md, &date[..10])
    }

    /// What the model is told of the agent from a compaction on.
    pub(crate) async fn baseline(&self, rendered: &Rendered) -> Result<ResourceSnapshot, Failure> {
        let agents_md = self.shared.agents_md(rendered).await;
        let agents_md = agents_md.map_err(|error| workspace_failure(&error))?;
        let system = self.system(rendered, agents_md.as_deref());
        Ok(self.snapshot(rendered, Some(system)))
    }

    /// The id of the response to a submission: that of its first message.
    pub(crate) fn response_id(&self, submission: &str) -> Option<String> {
        let mut first = None;
        for entry in self.conversation.entries.iter().rev() {
            match (&entry.body, entry.submission.as_deref() == Some(submission)) {
                (EntryBody::Assistant { .. }, true) => first = Some(entry.id.clone()),
                (EntryBody::User(_), true) => break,
                _ => {}
            }
        }
        first
    }

    /// Writes down what was decided about an approval.
    pub(crate) fn decide(
        &self,
        step: &mut Step,
        submission: &Submission,
        approval: Approval,
        mut answered: Answered,
    ) {
        answered.approval_id.clone_from(&approval.approval_id);
        let row = Approval {
            answer: Some(answered.answer.clone()),
            ..approval
        };
        step.put(APPROVALS, row.approval_id.as_bytes(), &row);
        let scope = self.scope(submission, None);
        self.add(step, [Fact::ApprovalAnswered(answered)], &scope);
    }

    /// Tells whoever follows the conversation.
    pub(crate) fn tell(&mut self, body: impl FnOnce() -> ChunkBody) {
        let position = Position {
            batch: self.conversation.seq,
            index: self.chunk,
        };
        self.chunk += 1;
        let conversation_id = self.conversation_id();
        let chunk = || Chunk {
            body: body(),
            conversation_id: conversation_id.to_owned(),
            position,
        };
        self.shared.observers.tell(&self.actor, chunk);
    }

    fn conversation_id(&self) -> &str {
        if self.conversation.id.is_empty() {
            &self.new_id
        } else {
            &self.conversation.id
        }
    }

    /// Tells what became durable.
    fn tell_durable(&mut self, fact: Fact, submission: Option<&str>, entry: Option<&Entry>) {
        match fact {
            Fact::UserMessage(_) | Fact::Signal(_) => {
                let message = match entry.map(|entry| (entry, &entry.body)) {
                    Some((entry, EntryBody::User(content))) => view::user(entry, content),
                    Some((entry, EntryBody::Signal(signal))) => view::signal(entry, signal),
                    _ => return,
                };
                self.tell(|| ChunkBody::MessageAppended { message });
            }
            Fact::ToolOutcome(outcome) => self.tell(|| ChunkBody::of_outcome(&outcome)),
            Fact::AssistantCompleted(done) => {
                self.tell(|| ChunkBody::Usage {
                    usage: done.usage,
                    cost_micro_usd: done.cost_micro_usd,
                });
            }
            Fact::SubmissionSettled(settled) => {
                if let Some(message_id) = submission.and_then(|id| self.response_id(id)) {
                    self.tell(|| ChunkBody::MessageCompleted { message_id });
                }
                self.tell(|| ChunkBody::SubmissionSettled {
                    submission_id: settled.submission_id,
                    outcome: settled.outcome,
                    error: settled.error,
                    answered_by_submission_id: settled.answered_by_submission_id,
                });
            }
            Fact::ApprovalRequested(approval) => {
                self.tell(|| ChunkBody::ApprovalRequested { approval });
            }
            Fact::ApprovalAnswered(answered) => {
                self.tell(|| ChunkBody::ApprovalAnswered { answered });
            }
            Fact::Compaction(compaction) => self.tell(|| ChunkBody::compacted(&compaction)),
            Fact::CodeBoundary(boundary) => {
                if let Some(body) = ChunkBody::of_boundary(&boundary) {
                    self.tell(|| body);
                }
            }
            Fact::Created(_)
            | Fact::AssistantStarted(_)
            | Fact::AssistantText(_)
            | Fact::AssistantReasoning(_)
            | Fact::AssistantToolCall(_)
            | Fact::ToolResultsCommitted(_)
            | Fact::ResourceSnapshot(_)
            | Fact::CompactionRequested(_)
            | Fact::AttemptStarted(_)
            | Fact::Runtime => {}
        }
    }
}

/// What the model is told when it has other tools than before.
fn changed_tools(before: &BTreeMap<String, String>, now: &BTreeMap<String, String>) -> String {
    let list = |names: Vec<&String>| {
        let names: Vec<_> = names.into_iter().map(|name| format!("`{name}`")).collect();
        names.join(", ")
    };
    let new: Vec<_> = now
        .keys()
        .filter(|name| !before.contains_key(*name))
        .collect();
    let gone: Vec<_> = before
        .keys()
        .filter(|name| !now.contains_key(*name))
        .collect();
    let other: Vec<_> = now
        .iter()
        .filter(|(name, digest)| before.get(*name).is_some_and(|old| old != *digest))
        .map(|(name, _)| name)
        .collect();
    let mut text = String::from("Your tools changed.");
    for (what, names) in [("New", new), ("No longer there", gone), ("Changed", other)] {
        if !names.is_empty() {
            text.push_str(&format!("\n{what}: {}.", list(names)));
        }
    }
    text.push_str(&format!("\nAll of them: {}.", list(now.keys().collect())));
    text
}

#[async_trait]
impl Instance for AgentInstance {
    fn accept(&mut self, submission: &Submission) -> Step {
        let mut step = Step::new();
        let scope = self.scope(submission, None);
        let mut parent = self.conversation.leaf();
        let mut facts = Vec::new();
        let rendered = self.shared.rendered(self.actor.name());
        if self.conversation.id.is_empty() {
            let now = self.shared.sources.now();
            facts.push(Fact::Created(Created {
                uid: self.shared.sources.id("inst_"),
                created_at: now,
            }));
            let agents_md = self.agents_md.clone();
            if let Ok(rendered) = &rendered {
                let system = self.system(rendered, agents_md.as_deref());
                facts.push(Fact::ResourceSnapshot(
                    self.snapshot(rendered, Some(system)),
                ));
            }
            if let Some(seed) = &self.seed {
                step.rows.extend(seed.changes.rows.iter().cloned());
                step.blobs.extend(seed.changes.blobs.iter().cloned());
            }
        } else if let Ok(rendered) = &rendered {
            facts.extend(self.narrate(rendered, &mut parent));
        }
        facts.extend(self.given(submission, &mut parent));
        facts.extend(self.input(submission, &mut parent));
        self.add(&mut step, facts, &scope);
        step
    }

    fn apply(&mut self, records: &[StoredRecord]) -> Result<(), StoreError> {
        if let Some(changes) = self.edited.take() {
            self.workspace.committed(&changes);
        }
        for stored in records {
            let before = self.conversation.entries.len();
            self.conversation.apply(std::slice::from_ref(stored))?;
            self.chunk = 0;
            let fact = Fact::of(stored)?;
            self.shared.census.take(self.actor.name(), &fact);
            if let Fact::Created(_) = &fact
                && let Some(seed) = self.seed.take()
            {
                self.workspace.committed(&seed.changes);
            }
            let entry = self.conversation.entries.get(before).cloned();
            self.tell_durable(fact, stored.record.submission.as_deref(), entry.as_ref());
        }
        Ok(())
    }

    fn progress(&self, submission: &Submission) -> Progress {
        match self.conversation.next(&submission.id) {
            Next::Input => Progress::Absent,
            Next::Nothing => Progress::Completed,
            Next::Repair | Next::CallModel | Next::Compact | Next::RunTools { .. } => {
                Progress::Interrupted
            }
        }
    }

    async fn repair(&mut self, submission: &Submission) -> Result<Step, StoreError> {
        let mut step = Step::new();
        let Some(open) = self.conversation.open.clone() else {
            return Ok(step);
        };
        let message_id = open.started.message_id.clone();
        let prefix = format!("{message_id}/").into_bytes();
        let mut parts: BTreeMap<Vec<u8>, Draft> = BTreeMap::new();
        let mut after: Option<Vec<u8>> = None;
        loop {
            let rows = self
                .store
                .scan(&self.actor, DRAFT, &prefix, after.as_deref(), 256)
                .await?;
            for row in &rows {
                let piece: Draft = serde_json::from_slice(&row.value).map_err(|error| {
                    StoreError::Corrupt(format!("a draft does not decode: {error}"))
                })?;
                let block = row
                    .key
                    .get(prefix.len()..prefix.len() + 4)
                    .unwrap_or_default()
                    .to_vec();
                let part = parts.entry(block).or_insert(Draft {
                    reasoning: piece.reasoning,
                    text: String::new(),
                });
                part.text.push_str(&piece.text);
            }
            match rows.last() {
                Some(last) if rows.len() == 256 => after = Some(last.key.clone()),
                _ => break,
            }
        }
        let parts = parts.into_values().map(|draft| {
            if draft.reasoning {
                AssistantPart::Thinking {
                    text: draft.text,
                    signature: None,
                    redacted: false,
                }
            } else {
                AssistantPart::Text {
                    text: draft.text,
                    signature: None,
                }
            }
        });
        let message = AssistantMessage {
            model: open.started.model_info.clone(),
            parts: parts.collect(),
            stop: StopReason::Aborted,
            usage: Usage::default(),
            response_id: None,
        };
        let facts = MessageFacts {
            message_id: &message_id,
            parent_id: None,
            started: true,
            message: &message,
            cost_micro_usd: None,
            timing: None,
            error: None,
            interrupted: true,
            continues: open.started.continues,
        };
        let mut scope = self.scope(submission, None);
        scope.submission.clone_from(&open.submission);
        self.add(&mut step, facts.facts(), &scope);
        step.rows.push(RowChange::DeletePrefix {
            space: DRAFT,
            prefix,
        });
        Ok(step)
    }

    async fn run(&mut self, attempt: &mut Attempt) -> Finish {
        match turn::run(self, attempt).await {
            Ok(step) => Finish::Completed(step),
            Err(turn::Stop::Parked { step, until }) => Finish::Parked { step, until },
            Err(turn::Stop::Halted(halt)) => Finish::Halted(halt),
            Err(turn::Stop::Cancelled) => Finish::Cancelled,
            Err(turn::Stop::Failed(failure)) => Finish::Failed(failure),
        }
    }

    fn answer(&mut self, submission: &Submission, answer: &Value) -> Result<Step, Failure> {
        let answered: Answered = serde_json::from_value(answer.clone()).map_err(|error| {
            Failure::new("approval_invalid", format!("not an answer: {error}"), "")
        })?;
        let known = self.conversation.approvals.values();
        let Some(approval) = known
            .into_iter()
            .find(|one| one.approval_id == answered.approval_id)
        else {
            let what = format!("nothing waits for approval {}", answered.approval_id);
            return Err(Failure::new(
                "approval_not_found",
                what,
                "see `bowline show` for what is pending",
            ));
        };
        let mut answered = answered;
        answered.answer = approval.check(answered.answer)?;
        if approval.answer.is_some() {
            return Ok(Step::new());
        }
        if let Some(arguments) = &answered.answer.arguments {
            let rendered = self.shared.rendered(self.actor.name())?;
            let toolbox = self.shared.toolbox(&rendered)?;
            let checked = toolbox.validate(&approval.tool_name, arguments);
            let checked = checked
                .map_err(|text| Failure::new("approval_invalid", text, "correct the arguments"))?;
            answered.answer.arguments = Some(checked);
        }
        let mut step = Step::new();
        self.decide(&mut step, submission, approval.clone(), answered);
        Ok(step)
    }

    fn expire(&mut self, submission: &Submission) -> Step {
        let now = self.shared.sources.now();
        let mut step = Step::new();
        let open = self.conversation.approvals.values();
        let over: Vec<_> = open
            .filter(|one| one.answer.is_none() && one.expires_at <= now)
            .cloned()
            .collect();
        for approval in over {
            self.decide(&mut step, submission, approval, Decision::Expire.into());
        }
        step
    }

    fn withdraw(&mut self, submission: &Submission) -> Step {
        let mut step = Step::new();
        let waiting = self.conversation.approvals.values();
        let open: Vec<_> = waiting
            .filter(|one| one.answer.is_none())
            .cloned()
            .collect();
        for approval in open {
            self.decide(&mut step, submission, approval, Decision::Withdraw.into());
        }
        step
    }

    async fn edit(&mut self, edit: &Edit) -> Result<(Step, Value), Failure> {
        if self.conversation.id.is_empty() {
            let what = "the conversation has not begun";
            return Err(Failure::new(
                "conversation_not_found",
                what,
                "send a message first",
            ));
        }
        let now = self.shared.sources.now();
        let (changes, told) = edit::make(&self.workspace, now, edit).await?;
        let mut step = Step::new();
        if !changes.is_empty() {
            step.rows.extend(changes.rows.iter().cloned());
            step.blobs.extend(changes.blobs.iter().cloned());
            self.edited = Some(changes);
        }
        Ok((step, told))
    }

    fn close(&mut self, submission: &Submission, closing: &Closing) -> Step {
        let mut step = Step::new();
        if Input::is_compact(&submission.payload) {
            // The conversation is as it was; the model need not know.
            return step;
        }
        let scope = self.scope(submission, None);
        let mut facts = Vec::new();
        let open = self
            .conversation
            .approvals
            .values()
            .filter(|one| one.answer.is_none());
        for approval in open.cloned().collect::<Vec<_>>() {
            self.decide(&mut step, submission, approval, Decision::Reject.into());
        }
        let mut parent = self.conversation.leaf();
        let mut interrupted = Vec::new();
        if let Next::RunTools {
            message_id, calls, ..
        } = self.conversation.next(&submission.id)
        {
            for call in calls
                .iter()
                .filter(|call| !self.conversation.outcomes.contains_key(&call.id))
            {
                interrupted.push(call.name.clone());
                facts.push(Fact::ToolOutcome(ToolOutcome {
                    assistant_message_id: message_id.clone(),
                    tool_call_id: call.id.clone(),
                    tool_name: call.name.clone(),
                    is_error: true,
                    content: vec![Content::Text {
                        text: turn::interrupted(),
                    }],
                    whole: None,
                    output: None,
                    duration_ms: 0,
                }));
            }
            journal::forget(&mut step);
            let results = self.shared.sources.id("msg_");
            parent = Some(results.clone());
            facts.push(Fact::ToolResultsCommitted(ToolResultsCommitted {
                message_id: results,
                assistant_message_id: message_id,
                outcome_ids: calls.iter().map(|call| call.id.clone()).collect(),
            }));
        }
        let (signal_type, content) = match closing {
            Closing::Aborted => (
                "submission_aborted",
                "The work on the last message was stopped.".to_owned(),
            ),
            Closing::Failed(failure) => (
                "submission_interrupted",
                format!("The work on the last message ended with an error: {failure}"),
            ),
        };
        let mut attributes = BTreeMap::new();
        if !interrupted.is_empty() {
            attributes.insert(
                "interruptedTools".to_owned(),
                json!(interrupted).to_string(),
            );
        }
        facts.push(Fact::Signal(Signal {
            message_id: self.shared.sources.id("msg_"),
            parent_id: parent,
            signal_type: signal_type.to_owned(),
            content,
            attributes,
        }));
        self.add(&mut step, facts, &scope);
        let now = self.shared.sources.now();
        for open in self.effects.drain(..) {
            effect::settle(&mut step, &open.effect_id, Status::Unknown, now);
        }
        step
    }
}
