//! The agent's own tools as the binding `tools`.

use std::sync::Arc;

use async_trait::async_trait;
use bowline_sandbox::isolate::{Value, ViewKind};
use serde_json::Value as Json;

use super::TOOLS;
use crate::{
    approval::Question,
    binding::{Binding, CallError, Method},
    tool::{Mounted, ToolContext, ToolError, ToolOutput},
};

/// The agent's own tools.
pub(crate) struct OwnTools {
    tools: Vec<Mounted>,
    methods: Vec<Method>,
}

impl OwnTools {
    pub(crate) fn new(tools: Vec<Mounted>) -> Self {
        let methods = tools.iter().map(method).collect();
        Self { tools, methods }
    }

    fn find(&self, name: &str) -> Result<&Mounted, CallError> {
        let at = self.methods.iter().position(|one| one.name == name);
        let tool = at.and_then(|at| self.tools.get(at));
        tool.ok_or_else(|| CallError::new("TypeError", format!("there is no tool {name}")))
    }
}

/// The name of a tool as an identifier. What has a function `then` is a promise to JavaScript, which
/// `await` would call.
pub(crate) fn identifier(name: &str) -> String {
    match name {
        "then" => "then_".to_owned(),
        _ => name.replace(['-', '.'], "_"),
    }
}

fn method(tool: &Mounted) -> Method {
    let spec = tool.tool.spec();
    let required = spec.parameters["required"].as_array();
    let needed = required.is_some_and(|names| !names.is_empty());
    let method = Method::new(identifier(&spec.name), spec.description.clone());
    let schema = spec.parameters.clone();
    let method = if needed {
        method.takes("input", schema)
    } else {
        method.may_take("input", schema)
    };
    let method = match tool.tool.returns() {
        Some(schema) => method.gives(schema.clone()),
        None => method,
    };
    method.effect(tool.tool.effect())
}

/// The one argument, as tools take it.
pub(crate) fn argument(arguments: &[Value]) -> Json {
    match arguments.first() {
        None | Some(Value::Undefined) => Json::Object(serde_json::Map::new()),
        Some(value) => value.to_json(),
    }
}

fn thrown(error: ToolError) -> CallError {
    match error {
        ToolError::Refused(text) => CallError::new("ToolError", text),
        ToolError::Store(error) => CallError::Store(error),
    }
}

/// What a tool gave, as code gets it.
pub(crate) fn value(output: ToolOutput) -> Value {
    let text = match output.output {
        Some(output) => Value::from(output),
        None => Value::String(output.text),
    };
    let Some((media_type, bytes)) = output.media else {
        return text;
    };
    let data = Value::View(ViewKind::Uint8, bytes);
    Value::Object(vec![
        ("text".to_owned(), text),
        ("mediaType".to_owned(), Value::String(media_type)),
        ("data".to_owned(), data),
    ])
}

#[async_trait]
impl Binding for OwnTools {
    fn name(&self) -> &str {
        TOOLS
    }

    fn description(&self) -> &str {
        "What the agent may do; each takes one object."
    }

    fn methods(&self) -> &[Method] {
        &self.methods
    }

    fn asks(&self, method: &str, arguments: &[Value]) -> Result<Option<Question>, CallError> {
        let tool = self.find(method)?;
        let arguments = tool.validate(&argument(arguments));
        let arguments = arguments.map_err(|text| CallError::new("TypeError", text))?;
        tool.tool.asks(&arguments).map_err(thrown)
    }

    fn in_workspace(&self, method: &str) -> bool {
        self.find(method).is_ok_and(|tool| tool.tool.in_workspace())
    }

    async fn call(
        &self,
        context: &ToolContext,
        method: &str,
        arguments: Vec<Value>,
    ) -> Result<Value, CallError> {
        let tool = Arc::clone(&self.find(method)?.tool);
        let arguments = self.find(method)?.validate(&argument(&arguments));
        let arguments = arguments.map_err(|text| CallError::new("TypeError", text))?;
        tool.call(context, arguments)
            .await
            .map(value)
            .map_err(thrown)
    }
}
