//! `fetch` for code, where an agent's `egress` grants it.

use std::sync::Arc;

use async_trait::async_trait;
use bowline_sandbox::{
    egress::{Outside, Request},
    isolate::{Value, ViewKind},
};
use serde_json::json;

use super::{Binding, CallError, Method, arguments::Arguments, http};
use crate::tool::{Effect, OnCrash, ToolContext};

/// The binding `web`: what `fetch` calls. Requests that only read are tried again after a crash, the
/// outcome of others is unknown then.
#[derive(Debug)]
pub struct Web {
    outside: Arc<dyn Outside>,
    methods: Vec<Method>,
}

impl Web {
    /// The name of its global.
    pub const NAME: &'static str = "web";

    /// What stands before a program of these sources, so that `fetch`, `Headers` and `Response` are globals
    /// where the program has this binding: code, or nothing where no source names one of them.
    pub fn before<'a>(sources: impl IntoIterator<Item = &'a str>) -> &'static str {
        const FETCH: &str = include_str!("web/fetch.js");
        let names = ["fetch", "Headers", "Response"];
        let mut sources = sources.into_iter();
        if sources.any(|source| names.iter().any(|name| source.contains(name))) {
            FETCH
        } else {
            ""
        }
    }

    /// Over what enforces the policy.
    pub fn new(outside: Arc<dyn Outside>) -> Self {
        let method = |name: &str, what: &str, on_crash| {
            let request = json!({
                "type": "object", "required": ["url"], "additionalProperties": false,
                "properties": {
                    "url": {"type": "string"}, "method": {"type": "string"},
                    "headers": {"type": "array", "items": {
                        "type": "array", "items": {"type": "string"},
                        "minItems": 2, "maxItems": 2,
                    }},
                    "body": {"anyOf": [{"type": "string"}, {"type": "string", "format": "binary"}]},
                },
            });
            let answer = json!({
                "type": "object", "required": ["status", "url", "headers", "body"],
                "additionalProperties": false,
                "properties": {
                    "status": {"type": "integer"}, "url": {"type": "string"},
                    "headers": {"type": "array", "items": {"type": "array", "items": {"type": "string"}}},
                    "body": {"type": "string", "format": "binary"},
                },
            });
            let method = Method::new(name, what)
                .takes("request", request)
                .gives(answer);
            method.effect(Effect::Outside(on_crash))
        };
        Self {
            outside,
            methods: vec![
                method(
                    "get",
                    "A GET or HEAD request; `fetch` is more convenient.",
                    OnCrash::Retry,
                ),
                method(
                    "send",
                    "Any request; `fetch` is more convenient.",
                    OnCrash::Unknown,
                ),
            ],
        }
    }
}

#[async_trait]
impl Binding for Web {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn description(&self) -> &str {
        "The network, as far as this agent may use it. Use the global `fetch`."
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
        let input = arguments.into_iter().next().unwrap_or_default();
        let mut with = Arguments::fields("fetch", input, &["url", "method", "headers", "body"])?;
        let verb = with
            .text_or_none("method")?
            .unwrap_or_else(|| "GET".to_owned());
        if method == "get" && !matches!(verb.as_str(), "GET" | "HEAD") {
            return Err(with.wrong("get only reads; use send"));
        }
        let mut headers = Vec::new();
        if let Some(Value::Array(pairs)) = with.take("headers") {
            for pair in pairs {
                match pair {
                    Value::Array(pair) => match &pair[..] {
                        [Value::String(name), Value::String(value)] => {
                            headers.push((name.clone(), value.clone()));
                        }
                        _ => return Err(with.wrong("headers must be pairs of strings")),
                    },
                    _ => return Err(with.wrong("headers must be pairs of strings")),
                }
            }
        }
        let url = with.text("url")?;
        let body = match with.take("body") {
            None => bytes::Bytes::new(),
            Some(Value::String(text)) => text.into(),
            Some(Value::Buffer(bytes) | Value::View(_, bytes)) => bytes,
            Some(_) => return Err(with.wrong("body must be text or binary data")),
        };
        let request = Request {
            method: verb,
            url,
            headers,
            body,
        };
        let response = http::send(&*self.outside, context, request).await?;
        let headers = response
            .headers
            .into_iter()
            .map(|(name, value)| Value::Array(vec![Value::String(name), Value::String(value)]));
        Ok(Value::Object(vec![
            ("status".to_owned(), Value::Number(response.status.into())),
            ("url".to_owned(), Value::String(response.url)),
            ("headers".to_owned(), Value::Array(headers.collect())),
            (
                "body".to_owned(),
                Value::View(ViewKind::Uint8, response.body),
            ),
        ]))
    }
}
