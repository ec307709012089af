//! What the tests of the loop stand on: an agent with a script, a store that may die, a process that
//! may be started again.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU32, Ordering},
};

use bowline_agent::{
    Agent, Agents, Conversation, KIND, Outgoing, Render, actor,
    conversation::EntryBody,
    load,
    tool::{self, Effect, ToolError},
};
use bowline_model::{ModelSettings, Models};
use bowline_runtime::{
    Program, Receipt, Runtime, RuntimeError, RuntimeOptions, Settled, Sources, SystemRandom,
};
use bowline_sandbox::workspace::Workspace;
use bowline_store::{ActorId, MemoryStore, Timestamp};
use bowline_testkit::{
    faults::{Death, DyingStore},
    seeded::SeededClock,
};

/// Where the instance of every test lives.
pub(crate) fn instance() -> ActorId {
    actor("worker", "one")
}

/// An agent on a script, and what its outside tool was asked to do.
pub(crate) struct Stage {
    dir: bowline_testkit::canary::Folder,
    pub(crate) store: Arc<dyn bowline_store::Store>,
    /// The effect ids with which the outside tool was called.
    pub(crate) effects: Arc<Mutex<Vec<String>>>,
    pub(crate) effect: Effect,
    /// Whether the outside tool needs a person's consent.
    pub(crate) consent: bool,
    /// What else is said of the agent.
    pub(crate) define: fn(&mut bowline_agent::Definition),
    /// What a directory says of the agent, when there is one.
    pub(crate) base: Option<bowline_agent::Definition>,
    pub(crate) clock: Arc<SeededClock>,
    /// Where code is run; one of its own where there is none.
    pub(crate) engine: Option<bowline_sandbox::isolate::Isolates>,
    /// What code may call besides the tools.
    pub(crate) bindings: Vec<Arc<dyn bowline_agent::binding::Binding>>,
    /// The network of the shell.
    pub(crate) outside: Option<Arc<dyn bowline_sandbox::egress::Outside>>,
    instructions: Arc<Mutex<String>>,
    panics: Arc<AtomicU32>,
}

/// One process: what runs until the store dies.
pub(crate) struct Process {
    pub(crate) runtime: Runtime,
    pub(crate) agents: Agents,
    pub(crate) store: Arc<DyingStore>,
}

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Notice {
    /// What to tell.
    #[allow(dead_code, reason = "only its schema is used")]
    text: String,
}

/// Records the effect id that it is handed, as an outside system would.
struct Outside {
    spec: bowline_model::ToolSpec,
    effect: Effect,
    seen: Arc<Mutex<Vec<String>>>,
}

#[async_trait::async_trait]
impl tool::Tool for Outside {
    fn spec(&self) -> &bowline_model::ToolSpec {
        &self.spec
    }

    fn effect(&self) -> Effect {
        self.effect
    }

    async fn call(
        &self,
        context: &tool::ToolContext,
        arguments: serde_json::Value,
    ) -> Result<tool::ToolOutput, ToolError> {
        self.seen
            .lock()
            .unwrap()
            .push(context.effect_id.clone().unwrap());
        Ok(tool::ToolOutput::text(format!(
            "sent {}",
            arguments["text"].as_str().unwrap()
        )))
    }
}

impl Stage {
    pub(crate) fn new(script: &str) -> Self {
        let dir = bowline_testkit::canary::Folder::new().unwrap();
        std::fs::write(dir.path().join("script.yaml"), script).unwrap();
        Self {
            dir,
            store: Arc::new(MemoryStore::new()),
            effects: Arc::default(),
            effect: Effect::Outside(tool::OnCrash::Unknown),
            consent: false,
            define: |_| {},
            base: None,
            clock: SeededClock::ticking(),
            engine: None,
            bindings: Vec::new(),
            outside: None,
            instructions: Arc::new(Mutex::new("Do the work.".to_owned())),
            panics: Arc::default(),
        }
    }

    /// Another script for the processes that start from now on.
    pub(crate) fn script(&self, text: &str) {
        std::fs::write(self.dir.path().join("script.yaml"), text).unwrap();
    }

    pub(crate) fn instruct(&self, text: &str) {
        text.clone_into(&mut self.instructions.lock().unwrap());
    }

    /// How often the tool `crash` was called.
    pub(crate) fn panics(&self) -> u32 {
        self.panics.load(Ordering::SeqCst)
    }

    pub(crate) fn process(&self, death: Death) -> Process {
        let (consent, define) = (self.consent, self.define);
        let store = DyingStore::new(self.store.clone(), death);
        let (dir, effect, seen) = (
            self.dir.path().to_path_buf(),
            self.effect,
            self.effects.clone(),
        );
        let (instructions, panics) = (self.instructions.clone(), self.panics.clone());
        let (bindings, outside) = (self.bindings.clone(), self.outside.clone());
        let base = self.base.clone();
        let agent = Agent::new("worker", move |cx: &mut Render| {
            bindings.iter().for_each(|one| cx.binding(one.clone()));
            outside.iter().for_each(|one| cx.outside(one.clone()));
            if let Some(base) = &base {
                cx.definition().clone_from(base);
            }
            cx.model("scripted/script.yaml");
            cx.definition().dir = Some(dir.clone());
            cx.definition().limits.turns = 20;
            if consent {
                let required = bowline_agent::definition::Approval::Required;
                cx.definition()
                    .approvals
                    .insert("notify".to_owned(), required);
            }
            define(cx.definition());
            let parameters = tool::schema::of::<Notice>().unwrap();
            let spec = bowline_model::ToolSpec {
                name: "notify".into(),
                description: "Tells somebody.".into(),
                parameters,
            };
            cx.tool(Outside {
                spec,
                effect,
                seen: seen.clone(),
            });
            let panics = panics.clone();
            let crash = tool::from_fn("crash", "Crashes.", move |_: Notice| {
                let before = panics.fetch_add(1, Ordering::SeqCst);
                async move {
                    assert_eq!(before, u32::MAX, "on purpose");
                    Ok::<_, ToolError>(String::new())
                }
            });
            cx.tool(crash.unwrap().effect(Effect::None));
            instructions.lock().unwrap().clone()
        });
        let sources = Sources::new(self.clock.clone(), Arc::new(SystemRandom));
        let models = Models::new(ModelSettings::new(|_| None, self.dir.path()));
        let code = bowline_agent::code::CodeOptions {
            engine: self.engine.clone(),
            ..Default::default()
        };
        let agents = Agents::with_code([agent.unwrap()], models, sources.clone(), code);
        let program: Arc<dyn Program> = Arc::new(agents.clone());
        let options = RuntimeOptions::default();
        let runtime = Runtime::new(
            store.clone(),
            sources,
            options,
            [(KIND.to_owned(), program)],
        );
        Process {
            runtime,
            agents,
            store,
        }
    }

    pub(crate) async fn conversation(&self) -> Conversation {
        load(&*self.store, &instance()).await.unwrap()
    }

    /// The content of a file of the workspace, as it is stored.
    pub(crate) async fn file(&self, path: &str) -> String {
        let workspace = Workspace::open(self.store.clone(), instance());
        let overlay = workspace.begin(Timestamp::default()).await.unwrap();
        match overlay.read(path).await {
            Ok(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
            Err(error) => error.to_string(),
        }
    }
}

impl Process {
    pub(crate) async fn send(&self, text: &str) -> Result<Receipt, RuntimeError> {
        self.runtime
            .submit(&instance(), Outgoing::user(text).into_submission())
            .await
    }

    pub(crate) async fn send_keyed(&self, text: &str, key: &str) -> Result<Receipt, RuntimeError> {
        self.runtime
            .submit(&instance(), Outgoing::user(text).key(key).into_submission())
            .await
    }

    pub(crate) async fn settled(&self, receipt: &Receipt) -> Result<Settled, RuntimeError> {
        self.runtime
            .settled(&instance(), &receipt.submission_id)
            .await
    }

    pub(crate) async fn ask(&self, text: &str) -> Result<Settled, RuntimeError> {
        let receipt = self.send(text).await?;
        self.settled(&receipt).await
    }
}

/// A transcript in short lines, without ids: `user: …`, `assistant: … [calls]`, `result: …`.
pub(crate) fn lines(conversation: &Conversation) -> Vec<String> {
    let mut lines = Vec::new();
    for entry in &conversation.entries {
        match &entry.body {
            EntryBody::User(content) => {
                lines.push(format!("user: {}", bowline_agent::view::text(content)))
            }
            EntryBody::Signal(signal) => lines.push(format!("signal: {}", signal.signal_type)),
            EntryBody::Assistant {
                error: Some(error), ..
            } => lines.push(format!("error: {}", error.code)),
            EntryBody::Assistant {
                message,
                interrupted: true,
                ..
            } => {
                lines.push(format!("interrupted: {}", message.text()));
            }
            EntryBody::Assistant { message, .. } => {
                let calls: Vec<_> = message
                    .tool_calls()
                    .map(|call| call.name.as_str())
                    .collect();
                lines.push(format!("assistant: {} {calls:?}", message.text()));
            }
            EntryBody::ToolResults(results) => {
                for outcome in results {
                    let mark = if outcome.is_error { "failed" } else { "result" };
                    let text = bowline_agent::view::text(&outcome.content);
                    lines.push(format!(
                        "{mark}: {}: {}",
                        outcome.tool_name,
                        text.replace('\n', " ")
                    ));
                }
            }
        }
    }
    lines
}

/// Every tool call has exactly one result, directly after the message that made it.
pub(crate) fn assert_valid(conversation: &Conversation) {
    let mut expected: Vec<String> = Vec::new();
    for entry in &conversation.entries {
        match &entry.body {
            EntryBody::Assistant {
                message,
                error: None,
                interrupted: false,
                ..
            } => {
                assert!(expected.is_empty(), "calls without results: {expected:?}");
                expected = message.tool_calls().map(|call| call.id.clone()).collect();
            }
            EntryBody::ToolResults(results) => {
                let got: Vec<_> = results
                    .iter()
                    .map(|outcome| outcome.tool_call_id.clone())
                    .collect();
                assert_eq!(got, expected);
                expected.clear();
            }
            EntryBody::Assistant { .. } | EntryBody::User(_) | EntryBody::Signal(_) => {}
        }
    }
    assert!(expected.is_empty(), "calls without results: {expected:?}");
    assert!(conversation.open.is_none(), "a message is open");
}
