//! An agent as a Rust value: a function that is asked before every model call what the agent is.

use std::{fmt, sync::Arc};

use bowline_sandbox::egress::Outside;
use serde_json::Value;

use crate::{
    binding::Binding,
    definition::{AgentName, Definition, InvalidName, Limits, SandboxKind},
    skill::Skill,
    tool::Tool,
};

/// What an agent is at this moment: what its directory says, and the tools of its program.
#[derive(Clone)]
pub struct Rendered {
    /// What the agent knows and may do.
    pub definition: Definition,
    /// Tools that the program brings.
    pub tools: Vec<Arc<dyn Tool>>,
    /// What else code may call, when the agent runs code.
    pub bindings: Vec<Arc<dyn Binding>>,
    /// The network of its shell. Without one, `git` and `curl` reach nothing.
    pub outside: Option<Arc<dyn Outside>>,
}

impl fmt::Debug for Rendered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rendered")
            .field("definition", &self.definition)
            .finish_non_exhaustive()
    }
}

/// An agent. Made from a directory by [`Agent::from_definition`], or from a function.
///
/// ```
/// use bowline_agent::{Agent, Render};
///
/// let greeter = Agent::new("greeter", |cx: &mut Render| {
///     cx.model("anthropic/claude-sonnet-4-6");
///     "Greet whoever writes, in one line."
/// })?;
/// # Ok::<(), bowline_agent::definition::InvalidName>(())
/// ```
#[derive(Clone)]
pub struct Agent {
    name: AgentName,
    render: Arc<dyn Fn() -> Rendered + Send + Sync>,
    state: Option<Arc<CheckState>>,
    bindings: Vec<Arc<dyn Binding>>,
    outside: Option<Arc<dyn Outside>>,
}

/// Says whether a value may be the shared state of an instance; if not, why.
type CheckState = dyn Fn(&Value) -> Result<(), String> + Send + Sync;

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agent")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Agent {
    /// An agent that a function describes. The function is called before every model call and must be
    /// quick; it returns the instructions.
    ///
    /// # Errors
    ///
    /// When the name is not one that an agent can have.
    pub fn new<F, S>(name: &str, render: F) -> Result<Self, InvalidName>
    where
        F: Fn(&mut Render) -> S + Send + Sync + 'static,
        S: Into<String>,
    {
        let name = AgentName::new(name)?;
        let named = name.clone();
        let render = move || {
            let mut cx = Render {
                rendered: Rendered {
                    definition: Definition::new(named.clone(), "", ""),
                    tools: Vec::new(),
                    bindings: Vec::new(),
                    outside: None,
                },
            };
            let instructions = render(&mut cx).into();
            cx.rendered.definition.instructions = instructions;
            cx.rendered
        };
        Ok(Self {
            name,
            render: Arc::new(render),
            state: None,
            bindings: Vec::new(),
            outside: None,
        })
    }

    /// The agent that a directory describes.
    pub fn from_definition(definition: Definition) -> Self {
        let name = definition.name.clone();
        Self {
            name,
            render: Arc::new(move || Rendered {
                definition: definition.clone(),
                tools: Vec::new(),
                bindings: Vec::new(),
                outside: None,
            }),
            state: None,
            bindings: Vec::new(),
            outside: None,
        }
    }

    /// Checks what is about to become the shared state of an instance, whoever sets it. The check must be
    /// quick; a value that it refuses changes nothing. By default every value may be the state.
    #[must_use]
    pub fn check_state<F>(mut self, check: F) -> Self
    where
        F: Fn(&Value) -> Result<(), String> + Send + Sync + 'static,
    {
        self.state = Some(Arc::new(check));
        self
    }

    /// With namespaces that its code may call besides those that its function adds.
    #[must_use]
    pub fn with_bindings(mut self, bindings: impl IntoIterator<Item = Arc<dyn Binding>>) -> Self {
        self.bindings.extend(bindings);
        self
    }

    /// With a network for its shell, unless its function gives one. Each command is then an outside effect.
    #[must_use]
    pub fn with_outside(mut self, outside: Arc<dyn Outside>) -> Self {
        self.outside = Some(outside);
        self
    }

    /// Whether a value may be the state; if not, why.
    pub(crate) fn may_be_state(&self, next: &Value) -> Result<(), String> {
        self.state.as_ref().map_or(Ok(()), |check| check(next))
    }

    /// Its name.
    pub fn name(&self) -> &AgentName {
        &self.name
    }

    /// What it is at this moment.
    pub fn rendered(&self) -> Rendered {
        let mut rendered = (self.render)();
        rendered.bindings.extend(self.bindings.iter().cloned());
        rendered.outside = rendered.outside.or_else(|| self.outside.clone());
        rendered
    }
}

/// What a render function decides.
#[derive(Debug)]
pub struct Render {
    rendered: Rendered,
}

impl Render {
    /// The model: `provider/model`, or a name from `[models]`. Required.
    pub fn model(&mut self, model: impl Into<String>) {
        self.rendered.definition.model = model.into();
    }

    /// What the agent works in. Default: a workspace.
    pub fn sandbox(&mut self, sandbox: SandboxKind) {
        self.rendered.definition.sandbox = sandbox;
    }

    /// Adds a tool.
    pub fn tool(&mut self, tool: impl Tool) {
        self.rendered.tools.push(Arc::new(tool));
    }

    /// Adds a tool that is shared.
    pub fn shared_tool(&mut self, tool: Arc<dyn Tool>) {
        self.rendered.tools.push(tool);
    }

    /// Adds a namespace that code may call; it has no use without [`Render::code`].
    pub fn binding(&mut self, binding: Arc<dyn Binding>) {
        self.rendered.bindings.push(binding);
    }

    /// Gives `git` and `curl` in the shell a network, which knows what is allowed. Each command is then an
    /// outside effect. Give the same one each time: another one compiles the tools anew.
    pub fn outside(&mut self, outside: Arc<dyn Outside>) {
        self.rendered.outside = Some(outside);
    }

    /// Gives the model one tool that runs code in place of the list of tools.
    pub fn code(&mut self) {
        self.rendered.definition.code = Some(crate::code::default_limits());
    }

    /// Adds a skill.
    pub fn skill(&mut self, skill: Skill) {
        self.rendered.definition.skills.push(skill);
    }

    /// What a submission may use at most.
    pub fn limits(&mut self, limits: Limits) {
        self.rendered.definition.limits = limits;
    }

    /// Everything else that a directory can say.
    pub fn definition(&mut self) -> &mut Definition {
        &mut self.rendered.definition
    }
}
