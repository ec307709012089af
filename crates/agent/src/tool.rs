//! Tools: what a model may do.

use std::{fmt, future::Future, marker::PhantomData, sync::Arc};

use async_trait::async_trait;
use bowline_model::ToolSpec;
pub use bowline_runtime::effect::OnCrash;
use bowline_sandbox::workspace::Overlay;
use bowline_store::{StoreError, Timestamp};
use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

pub mod elided;
pub mod framework;
pub mod sandbox;
pub mod schema;
pub mod script;
pub mod validate;

use validate::Validator;

use crate::approval::Question;

/// Whether a call does something outside of Bowline, and what recovery does with one that was cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing outside: a call that was cut is simply run again.
    None,
    /// Something outside: the intent is written down first, and a call that was cut follows this.
    Outside(OnCrash),
}

/// What a model may do. The trait is object safe; [`from_fn`] makes one from an async function.
#[async_trait]
pub trait Tool: Send + Sync + 'static {
    /// Name, description and parameters, as the model sees them.
    fn spec(&self) -> &ToolSpec;

    /// Whether it acts outside. The default is the careful one: yes, and the outcome of a call that
    /// was cut is unknown.
    fn effect(&self) -> Effect {
        Effect::Outside(OnCrash::Unknown)
    }

    /// Whether calls of one answer to tools that say so run one after another, in the order of the answer,
    /// also when they act outside. The default is no: calls that act outside run at once.
    fn ordered(&self) -> bool {
        false
    }

    /// Whether it works on the files and in the shell also when it acts outside. Such calls run one after
    /// the other, and what each wrote is committed with its result. The default is no: it gets no files
    /// then, and runs beside the others.
    fn in_workspace(&self) -> bool {
        false
    }

    /// JSON Schema of [`ToolOutput::output`], for code that calls it. The default is nothing: unknown.
    fn returns(&self) -> Option<&Value> {
        None
    }

    /// What a person has to be asked in place of the call; the answer is its result, and
    /// [`Tool::call`] is not called. The default is nothing.
    ///
    /// # Errors
    ///
    /// A text for the model, when the arguments make no question.
    fn asks(&self, arguments: &Value) -> Result<Option<Question>, ToolError> {
        let _ = arguments;
        Ok(None)
    }

    /// Runs it. The arguments have been checked against the parameters.
    ///
    /// # Errors
    ///
    /// A text for the model, which goes on with it.
    async fn call(&self, context: &ToolContext, arguments: Value) -> Result<ToolOutput, ToolError>;
}

/// What a call is given besides its arguments.
#[derive(Debug, Clone)]
pub struct ToolContext {
    /// The id of the call.
    pub call_id: String,
    /// The id of the effect, the same for every try: hand it to the outside as idempotency key.
    pub effect_id: Option<String>,
    /// The files, for a call without an outside effect and for one that says [`Tool::in_workspace`]: what
    /// it writes is committed with its result.
    pub files: Option<Overlay>,
    /// The shell of the conversation.
    pub shell: Option<sandbox::ShellCell>,
    /// The records of the conversation.
    pub history: Option<elided::History>,
    /// The time of the step.
    pub now: Timestamp,
    /// Fires when the call should stop; what it does afterwards is lost.
    pub cancel: CancellationToken,
}

/// What a call gives back.
#[derive(Debug, Clone, Default)]
pub struct ToolOutput {
    /// What the model reads.
    pub text: String,
    /// An image or a document that the model sees: media type and bytes.
    pub media: Option<(String, Bytes)>,
    /// What a program sees; the text when there is none.
    pub output: Option<Value>,
}

impl ToolOutput {
    /// Text only.
    pub fn text(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            media: None,
            output: None,
        }
    }
}

/// Why a call gave no result.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ToolError {
    /// The model reads this and goes on.
    #[error("{0}")]
    Refused(String),
    /// The store failed; the model cannot help, and the step ends.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ToolError {
    /// An error with a text for the model.
    pub fn new(text: impl Into<String>) -> Self {
        Self::Refused(text.into())
    }
}

/// A tool with its compiled parameters.
#[derive(Clone)]
pub struct Mounted {
    /// The tool.
    pub tool: Arc<dyn Tool>,
    validator: Arc<Validator>,
}

impl fmt::Debug for Mounted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Mounted")
            .field(&self.tool.spec().name)
            .finish()
    }
}

impl Mounted {
    /// Checks a tool and compiles its parameters.
    ///
    /// # Errors
    ///
    /// When its name or its parameters cannot be sent to a model.
    pub fn new(tool: Arc<dyn Tool>) -> Result<Self, schema::SchemaError> {
        schema::check(&tool.spec().parameters, &tool.spec().name)?;
        let validator = Arc::new(Validator::new(&tool.spec().parameters)?);
        Ok(Self { tool, validator })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.tool.spec().name
    }

    /// The arguments as the tool takes them, or a text for the model.
    pub fn validate(&self, arguments: &Value) -> Result<Value, String> {
        self.validator.validate(self.name(), arguments)
    }
}

/// A tool from an async function over a type with a JSON Schema. It counts as an outside effect of
/// unknown outcome until [`FnTool::effect`] says otherwise.
///
/// ```
/// use bowline_agent::tool::{self, Effect, ToolError};
///
/// #[derive(serde::Deserialize, schemars::JsonSchema)]
/// struct Sum {
///     /// The numbers to add.
///     numbers: Vec<f64>,
/// }
///
/// let sum = tool::from_fn("sum", "Adds numbers.", |input: Sum| async move {
///     Ok::<_, ToolError>(input.numbers.iter().sum::<f64>())
/// })?
/// .effect(Effect::None);
/// # Ok::<(), bowline_agent::tool::schema::SchemaError>(())
/// ```
///
/// # Errors
///
/// When the name is not one that models take, or the type is not an object.
pub fn from_fn<F, I, Fut, O>(
    name: &str,
    description: &str,
    function: F,
) -> Result<FnTool<F, I>, schema::SchemaError>
where
    F: Fn(I) -> Fut + Send + Sync + 'static,
    I: DeserializeOwned + JsonSchema + Send + 'static,
    Fut: Future<Output = Result<O, ToolError>> + Send + 'static,
    O: Serialize + Send + 'static,
{
    let parameters = schema::of::<I>()?;
    schema::check(&parameters, name)?;
    Ok(FnTool {
        spec: ToolSpec {
            name: name.to_owned(),
            description: description.to_owned(),
            parameters,
        },
        effect: Effect::Outside(OnCrash::Unknown),
        function,
        input: PhantomData,
    })
}

/// A tool made by [`from_fn`].
pub struct FnTool<F, I> {
    spec: ToolSpec,
    effect: Effect,
    function: F,
    input: PhantomData<fn(I)>,
}

impl<F, I> fmt::Debug for FnTool<F, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FnTool")
            .field("name", &self.spec.name)
            .field("effect", &self.effect)
            .finish_non_exhaustive()
    }
}

impl<F, I> FnTool<F, I> {
    /// Declares whether it acts outside.
    #[must_use]
    pub fn effect(mut self, effect: Effect) -> Self {
        self.effect = effect;
        self
    }
}

#[async_trait]
impl<F, I, Fut, O> Tool for FnTool<F, I>
where
    F: Fn(I) -> Fut + Send + Sync + 'static,
    I: DeserializeOwned + JsonSchema + Send + 'static,
    Fut: Future<Output = Result<O, ToolError>> + Send + 'static,
    O: Serialize + Send + 'static,
{
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn effect(&self) -> Effect {
        self.effect
    }

    async fn call(
        &self,
        _context: &ToolContext,
        arguments: Value,
    ) -> Result<ToolOutput, ToolError> {
        let input =
            serde_json::from_value(arguments).map_err(|error| ToolError::new(error.to_string()))?;
        let output = (self.function)(input).await?;
        let output = serde_json::to_value(output)
            .map_err(|error| ToolError::new(format!("the result has no JSON form: {error}")))?;
        let text = match &output {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        Ok(ToolOutput {
            text,
            media: None,
            output: Some(output),
        })
    }
}
