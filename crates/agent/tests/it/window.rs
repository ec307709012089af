//! A model with a window that can be full, and an agent on it.

use std::{
    fmt,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use bowline_agent::{
    Agent, Agents, Conversation, KIND, Outgoing, Render,
    definition::{Compaction, CompactionSettings, SandboxKind},
    load,
    tool::{self, Effect, ToolError},
};
use bowline_model::{
    AssistantMessage, AssistantPart, ErrorKind, Event, EventStream, Message, ModelError, ModelRef,
    ModelSettings, Models, Provider, Purpose, Request, ResolvedModel, ResultPart, StopReason,
    ToolCall, Usage, UserPart,
};
use bowline_runtime::{Outcome, Program, Runtime, RuntimeOptions, Settled, Sources};
use bowline_store::{MemoryStore, Store};
use bowline_testkit::{
    faults::{Death, DyingStore},
    seeded::{SeededClock, SeededRandom},
};

use crate::stage::instance;

/// What a model does with a request.
pub(crate) enum Says {
    Text(String),
    /// Calls `give` with so many bytes each.
    Calls(Vec<usize>),
    Fails(ErrorKind),
    /// Calls `read_elided` with this id and offset.
    Reads(String, u64),
    /// Answers, and says that it read so many tokens.
    Counted(String, u64),
}

type Answer = Box<dyn FnMut(&Request) -> Says + Send>;

/// A model that counts what it is sent, refuses what does not fit, and keeps every request.
pub(crate) struct Mind {
    /// What really fits, in tokens; 0 for everything.
    pub(crate) window: u64,
    /// What a token really is.
    pub(crate) bytes: u64,
    /// Whether it tells how much it read.
    pub(crate) counts: bool,
    seen: Mutex<Vec<Request>>,
    answer: Mutex<Answer>,
}

impl fmt::Debug for Mind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mind")
    }
}

impl Mind {
    pub(crate) fn new(window: u64, answer: impl FnMut(&Request) -> Says + Send + 'static) -> Self {
        Self {
            window,
            bytes: 4,
            counts: true,
            seen: Mutex::default(),
            answer: Mutex::new(Box::new(answer)),
        }
    }

    /// The requests for an answer, or those for a summary.
    pub(crate) fn asked(&self, purpose: Purpose) -> Vec<Request> {
        let seen = self.seen.lock().unwrap();
        let of = |one: &&Request| one.position.purpose == purpose;
        seen.iter().filter(of).cloned().collect()
    }

    fn tokens(&self, request: &Request) -> u64 {
        let tools: usize = request
            .tools
            .iter()
            .map(|tool| tool.description.len() + 100)
            .sum();
        let messages: usize = request.messages.iter().map(|one| bytes(one)).sum();
        ((request.system.len() + tools + messages) as u64).div_ceil(self.bytes)
    }
}

fn bytes(message: &Message) -> usize {
    match message {
        Message::User(user) => user
            .parts
            .iter()
            .map(|part| match part {
                UserPart::Text { text } => text.len(),
                UserPart::File(file) => file.data.len(),
            })
            .sum(),
        Message::Assistant(said) => said
            .parts
            .iter()
            .map(|part| match part {
                AssistantPart::Text { text, .. } | AssistantPart::Thinking { text, .. } => {
                    text.len()
                }
                AssistantPart::ToolCall(call) => call.arguments.to_string().len(),
            })
            .sum(),
        Message::ToolResult(result) => result
            .parts
            .iter()
            .map(|part| match part {
                ResultPart::Text { text } => text.len(),
                ResultPart::File(file) => file.data.len(),
            })
            .sum(),
    }
}

#[async_trait]
impl Provider for Mind {
    async fn stream(&self, request: Request) -> Result<EventStream, ModelError> {
        self.seen.lock().unwrap().push(request.clone());
        let context = self.tokens(&request);
        let fail = |kind| Err(ModelError::new(kind, "mind", "on purpose"));
        if self.window > 0 && context > self.window {
            return fail(ErrorKind::ContextOverflow);
        }
        let nth = self.seen.lock().unwrap().len();
        let (parts, input, stop) = match (self.answer.lock().unwrap())(&request) {
            Says::Fails(kind) => return fail(kind),
            Says::Text(text) => (
                vec![AssistantPart::Text {
                    text,
                    signature: None,
                }],
                context,
                StopReason::Stop,
            ),
            Says::Counted(text, input) => (
                vec![AssistantPart::Text {
                    text,
                    signature: None,
                }],
                input,
                StopReason::Stop,
            ),
            Says::Reads(id, offset) => {
                let arguments = format!("{{\"id\":\"{id}\",\"offset\":{offset}}}");
                let call = ToolCall::from_text(format!("r{nth}"), "read_elided".into(), &arguments);
                (
                    vec![AssistantPart::ToolCall(call)],
                    context,
                    StopReason::ToolUse,
                )
            }
            Says::Calls(sizes) => {
                let call = |(at, size): (usize, usize)| {
                    let arguments = format!("{{\"size\":{size}}}");
                    AssistantPart::ToolCall(ToolCall::from_text(
                        format!("c{nth}_{at}"),
                        "give".into(),
                        &arguments,
                    ))
                };
                (
                    sizes.into_iter().enumerate().map(call).collect(),
                    context,
                    StopReason::ToolUse,
                )
            }
        };
        let usage = Usage {
            input: if self.counts { input } else { 0 },
            ..Usage::default()
        };
        let message = AssistantMessage {
            model: self.model_ref(&request.model),
            parts,
            stop,
            usage,
            response_id: None,
        };
        let events = [
            Ok(Event::Started { response_id: None }),
            Ok(Event::Done(message)),
        ];
        Ok(Box::pin(futures::stream::iter(events)))
    }

    fn model_ref(&self, model: &str) -> ModelRef {
        ModelRef {
            api: "test".into(),
            provider: "mind".into(),
            model: model.into(),
        }
    }
}

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Size {
    /// Bytes to give.
    size: usize,
}

/// An agent on such a model.
pub(crate) struct Window {
    pub(crate) mind: Arc<Mind>,
    /// What is said of its window.
    pub(crate) known: Option<u64>,
    pub(crate) compaction: Compaction,
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) seed: u64,
    pub(crate) turns: u32,
    pub(crate) instructions: Arc<Mutex<String>>,
}

/// One process.
pub(crate) struct Process {
    pub(crate) runtime: Runtime,
    pub(crate) store: Arc<DyingStore>,
}

impl Window {
    pub(crate) fn new(mind: Mind, known: Option<u64>) -> Self {
        Self {
            mind: Arc::new(mind),
            known,
            compaction: Compaction::On(CompactionSettings::default()),
            store: Arc::new(MemoryStore::new()),
            seed: 1,
            turns: 200,
            instructions: Arc::new(Mutex::new("Do the work.".to_owned())),
        }
    }

    pub(crate) fn process(&self, death: Death) -> Process {
        let store = DyingStore::new(self.store.clone(), death);
        let (compaction, turns, instructions) = (
            self.compaction.clone(),
            self.turns,
            self.instructions.clone(),
        );
        let agent = Agent::new("worker", move |cx: &mut Render| {
            cx.model("mind");
            cx.sandbox(SandboxKind::None);
            cx.definition().compaction = compaction.clone();
            cx.definition().limits.turns = turns;
            cx.definition().limits.tool_calls = 100_000;
            let give = tool::from_fn("give", "Gives so many bytes.", |size: Size| async move {
                Ok::<_, ToolError>(text(size.size))
            });
            cx.tool(give.unwrap().effect(Effect::None));
            if instructions.lock().unwrap().contains("EXTRA") {
                let extra = tool::from_fn("extra", "Gives more.", |size: Size| async move {
                    Ok::<_, ToolError>(text(size.size))
                });
                cx.tool(extra.unwrap().effect(Effect::None));
            }
            instructions.lock().unwrap().clone()
        });
        let sources = Sources::new(SeededClock::ticking(), SeededRandom::new(self.seed));
        let model = ResolvedModel {
            context_window: self.known,
            ..ResolvedModel::new(self.mind.clone(), "m")
        };
        let models = Models::new(ModelSettings::new(|_| None, ".")).provide("mind", model);
        let agents = Agents::new([agent.unwrap()], models, sources.clone());
        let program: Arc<dyn Program> = Arc::new(agents.clone());
        let runtime = Runtime::new(
            store.clone(),
            sources,
            RuntimeOptions::default(),
            [(KIND.to_owned(), program)],
        );
        Process { runtime, store }
    }

    pub(crate) async fn conversation(&self) -> Conversation {
        load(&*self.store as &dyn Store, &instance()).await.unwrap()
    }

    /// What led to the present state.
    pub(crate) async fn explained(&self) -> String {
        let mut lines = Vec::new();
        for one in &self.conversation().await.compactions {
            let mut record = one.record.clone();
            record.summary = format!("({} bytes)", record.summary.len());
            record.request = None;
            let (at, kept) = (one.at, one.first_kept);
            lines.push(format!("compaction at {at}, kept from {kept}: {record:?}"));
        }
        for request in self.mind.asked(Purpose::Answer).iter().rev().take(4) {
            let sizes: Vec<_> = request.messages.iter().map(|one| bytes(one)).collect();
            let tokens = self.mind.tokens(request);
            lines.push(format!("asked with {tokens} tokens: {sizes:?}"));
        }
        lines.join("\n")
    }

    /// What holds for every history: no call without its result, none that ends on the model's own
    /// words, and what was sent once is sent again unless the conversation was compacted.
    pub(crate) async fn check(&self) {
        let conversation = self.conversation().await;
        crate::stage::assert_valid(&conversation);
        let mut breaks = 0;
        let mut before: Option<Request> = None;
        for request in self.mind.asked(Purpose::Answer) {
            valid(&request);
            if let Some(before) = &before {
                let same = request.system == before.system
                    && request.tools == before.tools
                    && request.messages.len() >= before.messages.len()
                    && before
                        .messages
                        .iter()
                        .zip(&request.messages)
                        .all(|(one, other)| Arc::ptr_eq(one, other) || one == other);
                breaks += usize::from(!same);
            }
            before = Some(request);
        }
        assert!(
            breaks <= conversation.compactions.len(),
            "{breaks} times the prefix changed, {} compactions",
            conversation.compactions.len()
        );
    }
}

impl Process {
    pub(crate) async fn send(&self, message: Outgoing) -> Settled {
        let receipt = self
            .runtime
            .submit(&instance(), message.into_submission())
            .await
            .unwrap();
        self.runtime
            .settled(&instance(), &receipt.submission_id)
            .await
            .unwrap()
    }

    pub(crate) async fn ask(&self, text: impl Into<String>) -> Settled {
        self.send(Outgoing::user(text)).await
    }

    pub(crate) async fn answered(&self, text: impl Into<String>) {
        let settled = self.ask(text).await;
        assert_eq!(settled.outcome, Outcome::Completed, "{:?}", settled.error);
    }
}

/// Every call has its results directly after it, and the last word is not the model's.
fn valid(request: &Request) {
    let mut open: Vec<&str> = Vec::new();
    for message in &request.messages {
        match &**message {
            Message::ToolResult(result) => {
                assert_eq!(
                    open.first(),
                    Some(&result.call_id.as_str()),
                    "a result without its call"
                );
                open.remove(0);
            }
            Message::User(_) => assert!(open.is_empty(), "calls without results: {open:?}"),
            Message::Assistant(said) => {
                assert!(open.is_empty(), "calls without results: {open:?}");
                open = said.tool_calls().map(|call| call.id.as_str()).collect();
            }
        }
    }
    assert!(open.is_empty(), "calls without results: {open:?}");
    assert!(!matches!(
        request.messages.last().map(|one| &**one),
        Some(Message::Assistant(_)) | None
    ));
}

/// So many bytes of text.
pub(crate) fn text(bytes: usize) -> String {
    const WORDS: &str = "All work and no play makes a dull text. ";
    let mut text = WORDS.repeat(bytes / WORDS.len() + 1);
    text.truncate(bytes);
    text
}
