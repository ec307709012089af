//! Services over HTTP as bindings.
//!
//! The credential stays here: [`Outside`] attaches it, and takes it out of what comes back. What an agent
//! may ask is decided there too.

mod message;

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use bowline_sandbox::{
    egress::{EgressError, Outside, Request, Response},
    isolate::{Thrown, Value},
};
use serde_json::{Value as Json, json};

use super::{Binding, CallError, Method, arguments::Arguments, openapi::Operation};
use crate::tool::{Effect, OnCrash, ToolContext};

/// What a service does with a call that acts and was cut by a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServiceEffect {
    /// The policy of calls other than GET and HEAD, which are always tried again.
    pub on_crash: OnCrash,
}

impl Default for ServiceEffect {
    /// The outcome is unknown.
    fn default() -> Self {
        Self {
            on_crash: OnCrash::Unknown,
        }
    }
}

/// A service over HTTP: one method for each operation of its document, and `get` and `request` for
/// everything else.
pub struct Service {
    name: String,
    description: String,
    base: Option<String>,
    outside: Arc<dyn Outside>,
    methods: Vec<Method>,
    operations: Vec<Operation>,
    examples: bool,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service")
            .field("name", &self.name)
            .field("base", &self.base)
            .field("methods", &self.methods.len())
            .finish_non_exhaustive()
    }
}

/// The name of the method for reading.
const GET: &str = "get";
/// The name of the method for everything.
const REQUEST: &str = "request";

impl Service {
    /// A service at `base`, a URL that paths are added to; without one, paths are whole URLs.
    pub fn new(
        name: impl Into<String>,
        description: impl Into<String>,
        base: Option<String>,
        outside: Arc<dyn Outside>,
        effect: ServiceEffect,
    ) -> Self {
        let plain = |name: &str, what: &str, properties: Json, required: Json| {
            Method::new(name, what).takes(
                "input",
                json!({
                    "type": "object", "additionalProperties": false,
                    "properties": properties, "required": required,
                }),
            )
        };
        let answer = json!({
            "type": "object", "required": ["status", "ok", "headers", "body"],
            "additionalProperties": false,
            "properties": {
                "status": {"type": "integer"}, "ok": {"type": "boolean"},
                "headers": {"type": "object", "additionalProperties": {"type": "string"}},
                "body": {},
            },
        });
        let path = json!({"type": "string"});
        let map = json!({"type": "object", "additionalProperties": {}});
        let get = plain(
            GET,
            "Reads a path of the service. JSON is parsed, text is a string, everything else bytes; any status is an answer.",
            json!({"path": path, "query": map, "headers": map}),
            json!(["path"]),
        );
        let request = plain(
            REQUEST,
            "Any request to the service. A body that is no text and no bytes is sent as JSON.",
            json!({"method": {"type": "string"}, "path": path, "query": map, "headers": map, "body": {}}),
            json!(["method", "path"]),
        );
        Self {
            name: name.into(),
            description: description.into(),
            base,
            outside,
            methods: vec![
                get.gives(answer.clone())
                    .effect(Effect::Outside(OnCrash::Retry)),
                request
                    .gives(answer)
                    .effect(Effect::Outside(effect.on_crash)),
            ],
            operations: Vec::new(),
            examples: false,
        }
    }

    /// Answers each operation with the example of its document, and sends nothing. Arguments are checked
    /// as ever; what has no example throws.
    #[must_use]
    pub fn with_examples(mut self) -> Self {
        self.examples = true;
        self
    }

    /// An answer that nobody was asked for.
    fn example(&self, method: &str, example: Option<&Json>) -> Result<Value, CallError> {
        let none = || {
            let name = &self.name;
            let text = format!("{name} answers with examples, and {name}.{method} has none");
            CallError::new("HttpError", text)
        };
        example.cloned().map(Value::from).ok_or_else(none)
    }

    /// With the operations of a document. An operation has precedence over `get` and `request`.
    #[must_use]
    pub fn with_operations(mut self, operations: Vec<Operation>, effect: ServiceEffect) -> Self {
        let named = |name: &str| operations.iter().any(|operation| operation.name == name);
        self.methods.retain(|method| !named(&method.name));
        let mut methods: Vec<Method> = operations
            .iter()
            .map(|operation| {
                let reads = matches!(operation.method.as_str(), "GET" | "HEAD");
                let on_crash = if reads {
                    OnCrash::Retry
                } else {
                    effect.on_crash
                };
                let mut method = operation.describe().effect(Effect::Outside(on_crash));
                method.reverts = operation.undo.as_deref().is_some_and(named);
                method
            })
            .collect();
        methods.append(&mut self.methods);
        self.methods = methods;
        self.operations = operations;
        self
    }

    /// The URL of a path, which may be a whole URL: what may be asked is decided by the policy.
    fn url(&self, path: &str) -> Result<String, CallError> {
        if path.starts_with("https://") || path.starts_with("http://") {
            return Ok(path.to_owned());
        }
        match &self.base {
            Some(base) if path.starts_with('/') => {
                Ok(format!("{}{path}", base.trim_end_matches('/')))
            }
            Some(_) => Err(CallError::new("TypeError", "path must begin with /")),
            None => Err(CallError::new("TypeError", "path must be a whole URL here")),
        }
    }

    async fn plain(
        &self,
        context: &ToolContext,
        method: &Method,
        arguments: Vec<Value>,
    ) -> Result<Value, CallError> {
        let input = arguments.into_iter().next().unwrap_or_default();
        let of = format!("{}.{}", self.name, method.name);
        let mut with =
            Arguments::fields(&of, input, &["method", "path", "query", "headers", "body"])?;
        let verb = with
            .text_or_none("method")?
            .unwrap_or_else(|| "GET".to_owned());
        let verb = verb.to_ascii_uppercase();
        if method.name == GET && !matches!(verb.as_str(), "GET" | "HEAD") {
            return Err(with.wrong("get only reads; use request"));
        }
        let mut url = self.url(&with.text("path")?)?;
        let query = message::pairs(with.take("query"), "query")?;
        message::add_query(&mut url, &query);
        let mut request = Request {
            method: verb,
            headers: message::pairs(with.take("headers"), "headers")?,
            ..Request::get(url)
        };
        message::set_body(&mut request, with.take_any("body"));
        if self.examples {
            return self.example(&method.name, None);
        }
        let response = self.send(context, request).await?;
        let headers = response
            .headers
            .iter()
            .map(|(name, value)| (name.clone(), Value::from(value.as_str())));
        Ok(Value::Object(vec![
            ("status".to_owned(), Value::Number(response.status.into())),
            (
                "ok".to_owned(),
                Value::Bool((200..300).contains(&response.status)),
            ),
            ("headers".to_owned(), Value::Object(headers.collect())),
            ("body".to_owned(), message::body(&response)),
        ]))
    }

    async fn operation(
        &self,
        context: &ToolContext,
        operation: &Operation,
        arguments: Vec<Value>,
    ) -> Result<Value, CallError> {
        let input = arguments.into_iter().next().unwrap_or_default();
        let (path, query, headers, body) = operation.fill(&self.name, input)?;
        let mut url = self.url(&path)?;
        message::add_query(&mut url, &query);
        let mut request = Request {
            method: operation.method.clone(),
            headers,
            ..Request::get(url)
        };
        if let Some(media) = &operation.body {
            message::set_body_as(&mut request, body, media)?;
        }
        if self.examples {
            return self.example(&operation.name, operation.example.as_ref());
        }
        let response = self.send(context, request).await?;
        if (200..300).contains(&response.status) {
            return Ok(message::body(&response));
        }
        let message = format!(
            "{}.{}: {} {} answered {}",
            self.name, operation.name, operation.method, operation.path, response.status
        );
        let thrown = Thrown::new("HttpError", message)
            .with("status", Value::Number(response.status.into()))
            .with("body", message::excerpt(&response));
        Err(CallError::Thrown(Box::new(thrown)))
    }

    async fn send(
        &self,
        context: &ToolContext,
        mut request: Request,
    ) -> Result<Response, CallError> {
        let acts = !matches!(request.method.as_str(), "GET" | "HEAD");
        if let Some(id) = context.effect_id.as_ref().filter(|_| acts) {
            let given = |(name, _): &(String, String)| name.eq_ignore_ascii_case(IDEMPOTENCY_KEY);
            if !request.headers.iter().any(given) {
                request
                    .headers
                    .push((IDEMPOTENCY_KEY.to_owned(), id.clone()));
            }
        }
        send(&*self.outside, context, request).await
    }
}

impl Service {
    /// The operation that undoes a method, if there is one.
    fn undoes(&self, method: &str) -> Option<&Operation> {
        let named = |name: &str| self.operations.iter().find(|known| known.name == name);
        named(named(method)?.undo.as_deref()?)
    }
}

/// The header that lets a service recognise a call that comes again.
pub(super) const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Sends a request until the call is cancelled.
pub(super) async fn send(
    outside: &dyn Outside,
    context: &ToolContext,
    request: Request,
) -> Result<Response, CallError> {
    tokio::select! {
        answer = outside.send(request) => answer.map_err(refused),
        () = context.cancel.cancelled() => Err(CallError::new("AbortError", "the call was cancelled")),
    }
}

fn refused(error: EgressError) -> CallError {
    let thrown = Thrown::new("Error", error.to_string()).with("code", Value::from(error.code()));
    CallError::Thrown(Box::new(thrown))
}

#[async_trait]
impl Binding for Service {
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
        if let Some(operation) = self.operations.iter().find(|known| known.name == method) {
            return self.operation(context, operation, arguments).await;
        }
        match self.methods.iter().find(|known| known.name == method) {
            Some(method) => self.plain(context, method, arguments).await,
            None => {
                let message = format!("{} has no such method", self.name);
                Err(CallError::new("TypeError", message))
            }
        }
    }

    async fn revert(
        &self,
        context: &ToolContext,
        method: &str,
        arguments: &[Value],
        result: &Value,
    ) -> Result<(), CallError> {
        // An answer out of the document was never sent.
        let Some(undo) = self.undoes(method).filter(|_| !self.examples) else {
            return Ok(());
        };
        let input = undo.undoing(arguments.first(), result);
        self.operation(context, undo, vec![input]).await.map(|_| ())
    }
}

pub use message::query_text;
