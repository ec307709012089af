//! Functions of a Rust program as a binding.

use std::{fmt, future::Future, sync::Arc};

use async_trait::async_trait;
use bowline_sandbox::isolate::Value;
use futures::future::BoxFuture;
use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value as Json;

use super::{Binding, CallError, Method};
use crate::tool::{
    Effect, ToolContext, ToolError,
    schema::{self, SchemaError},
    validate::Validator,
};

type Run =
    Arc<dyn Fn(ToolContext, Json) -> BoxFuture<'static, Result<Json, CallError>> + Send + Sync>;

/// A binding made of async functions. Each takes one object, whose type gives the declarations, and
/// counts as an outside effect of unknown outcome until [`Functions::effect`] says otherwise.
///
/// ```
/// use bowline_agent::{binding::{Binding as _, Functions}, tool::{Effect, ToolError}};
///
/// #[derive(serde::Deserialize, schemars::JsonSchema)]
/// struct Convert {
///     /// How much.
///     amount: f64,
///     /// For example `EUR`.
///     to: String,
/// }
///
/// let money = Functions::new("money", "Exchange rates of our bank.")
///     .function("convert", "Converts dollars.", |input: Convert| async move {
///         match input.to.as_str() {
///             "EUR" => Ok(input.amount * 0.9),
///             other => Err(ToolError::new(format!("no rate for {other}"))),
///         }
///     })?
///     .effect(Effect::None);
/// assert_eq!(money.methods()[0].name, "convert");
/// # Ok::<(), bowline_agent::tool::schema::SchemaError>(())
/// ```
///
/// Code calls it as `await money.convert({ amount: 3, to: "EUR" })`.
pub struct Functions {
    name: String,
    description: String,
    methods: Vec<Method>,
    run: Vec<(Run, Validator)>,
}

impl fmt::Debug for Functions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Functions")
            .field("name", &self.name)
            .field("methods", &self.methods)
            .finish_non_exhaustive()
    }
}

impl Functions {
    /// A binding without functions yet. The name becomes a global.
    pub fn new(name: impl Into<String>, description: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            description: description.into(),
            methods: Vec::new(),
            run: Vec::new(),
        }
    }

    /// With one more function.
    ///
    /// # Errors
    ///
    /// When the type of its input is no object.
    pub fn function<F, I, Fut, O>(
        self,
        name: &str,
        description: &str,
        function: F,
    ) -> Result<Self, SchemaError>
    where
        F: Fn(I) -> Fut + Send + Sync + 'static,
        I: DeserializeOwned + JsonSchema + Send + 'static,
        Fut: Future<Output = Result<O, ToolError>> + Send + 'static,
        O: Serialize + JsonSchema + Send + 'static,
    {
        self.function_with(name, description, move |_: ToolContext, input: I| {
            function(input)
        })
    }

    /// With one more function that is given the context of its call: the effect id to pass on as
    /// idempotency key, and the token that fires when it should stop.
    ///
    /// # Errors
    ///
    /// As [`Functions::function`].
    pub fn function_with<F, I, Fut, O>(
        mut self,
        name: &str,
        description: &str,
        function: F,
    ) -> Result<Self, SchemaError>
    where
        F: Fn(ToolContext, I) -> Fut + Send + Sync + 'static,
        I: DeserializeOwned + JsonSchema + Send + 'static,
        Fut: Future<Output = Result<O, ToolError>> + Send + 'static,
        O: Serialize + JsonSchema + Send + 'static,
    {
        let parameters = schema::of::<I>()?;
        schema::check(&parameters, name)?;
        let validator = Validator::new(&parameters)?;
        let returns = schemars::schema_for!(O).to_value();
        let method = Method::new(name, description);
        let optional = parameters["required"].as_array().is_none_or(Vec::is_empty);
        let method = if optional {
            method.may_take("input", parameters)
        } else {
            method.takes("input", parameters)
        };
        self.methods.push(method.gives(returns));
        let run: Run = Arc::new(move |context, input| {
            let input = serde_json::from_value(input)
                .map(|input| function(context, input))
                .map_err(|error| CallError::new("TypeError", error.to_string()));
            Box::pin(async move {
                let output = input?.await.map_err(|error| match error {
                    ToolError::Refused(text) => CallError::new("Error", text),
                    ToolError::Store(error) => CallError::Store(error),
                })?;
                serde_json::to_value(output).map_err(|error| {
                    let message = format!("the result has no JSON form: {error}");
                    CallError::new("Error", message)
                })
            })
        });
        self.run.push((run, validator));
        Ok(self)
    }

    /// Declares whether the last function acts outside.
    #[must_use]
    pub fn effect(mut self, effect: Effect) -> Self {
        if let Some(method) = self.methods.last_mut() {
            method.effect = effect;
        }
        self
    }

    /// Lets a person be asked before each call of the last function.
    #[must_use]
    pub fn approval(mut self) -> Self {
        if let Some(method) = self.methods.last_mut() {
            method.approval = true;
        }
        self
    }
}

#[async_trait]
impl Binding for Functions {
    fn name(&self) -> &str {
        &self.name
    }

    fn description(&self) -> &str {
        &self.description
    }

    fn methods(&self) -> &[Method] {
        &self.methods
    }

    async fn call(
        &self,
        context: &ToolContext,
        method: &str,
        arguments: Vec<Value>,
    ) -> Result<Value, CallError> {
        let at = self.methods.iter().position(|known| known.name == method);
        let Some((run, validator)) = at.and_then(|at| self.run.get(at)) else {
            let message = format!("{} has no such method", self.name);
            return Err(CallError::new("TypeError", message));
        };
        let input = match arguments.first() {
            None | Some(Value::Undefined) => Json::Object(serde_json::Map::new()),
            Some(input) => input.to_json(),
        };
        let path = format!("{}.{method}", self.name);
        let input = validator.validate(&path, &input);
        let input = input.map_err(|why| CallError::new("TypeError", why))?;
        tokio::select! {
            done = run(context.clone(), input) => done.map(Value::from),
            () = context.cancel.cancelled() => {
                Err(CallError::new("AbortError", "the call was cancelled"))
            }
        }
    }
}
