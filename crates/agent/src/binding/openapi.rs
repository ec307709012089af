//! OpenAPI documents as methods: versions 3.0 and 3.1, in JSON or YAML.

use std::collections::HashSet;

use bowline_sandbox::isolate::Value;
use serde_json::{Map, Value as Json, json};

use super::{CallError, Method, arguments::Arguments, http::query_text};

/// Largest document, in bytes.
pub const MAX_DOCUMENT: usize = 8 << 20;
/// Operations of one document.
pub const MAX_OPERATIONS: usize = 2_000;
/// Parts of a schema that one operation may come to when references are written out; what goes beyond is
/// left open.
const MAX_PARTS: usize = 20_000;
/// Depth of a schema with its references written out.
const MAX_DEPTH: usize = 24;

/// What a document offers.
#[derive(Debug, Clone)]
pub struct Document {
    /// What it is for, from its title.
    pub title: String,
    /// The URL of the first server; it may be relative to where the document is.
    pub server: Option<String>,
    /// Its operations, in the order of their paths.
    pub operations: Vec<Operation>,
    /// What was left out, and why; one line each.
    pub warnings: Vec<String>,
}

/// One operation.
#[derive(Debug, Clone)]
pub struct Operation {
    pub(super) name: String,
    pub(super) method: String,
    pub(super) path: String,
    description: String,
    parameters: Vec<Parameter>,
    /// The media type of its body.
    pub(super) body: Option<String>,
    body_schema: Json,
    body_required: bool,
    returns: Option<Json>,
    /// What it answers in an example of the document.
    pub(super) example: Option<Json>,
    /// The operation that undoes it: `x-bowline-undo`.
    pub(super) undo: Option<String>,
}

#[derive(Debug, Clone)]
struct Parameter {
    /// What code calls it.
    key: String,
    name: String,
    place: Place,
    required: bool,
    explode: bool,
    schema: Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Path,
    Query,
    Header,
}

/// A document cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}; give a document of OpenAPI 3.0 or 3.1 in JSON or YAML")]
pub struct DocumentError(String);

impl DocumentError {
    /// The stable type that users see.
    pub fn code(&self) -> &'static str {
        "binding_document"
    }
}

impl Document {
    /// Reads a document.
    ///
    /// # Errors
    ///
    /// [`DocumentError`] when it is none, or too large.
    pub fn parse(text: &str) -> Result<Self, DocumentError> {
        if text.len() > MAX_DOCUMENT {
            return Err(DocumentError(format!(
                "it has more than {MAX_DOCUMENT} bytes"
            )));
        }
        let root: Json = match serde_json::from_str(text) {
            Ok(root) => root,
            Err(_) if text.trim_start().starts_with('{') => {
                return Err(DocumentError("it is no JSON".to_owned()));
            }
            Err(_) => serde_saphyr::from_str(text).map_err(|error| {
                // What follows on other lines shows the document.
                let text = error.to_string();
                let line = text.lines().next().unwrap_or_default();
                DocumentError(format!("it is no YAML: {line}"))
            })?,
        };
        let version = root["openapi"].as_str().unwrap_or_default();
        if !version.starts_with("3.") {
            return Err(DocumentError("it is no OpenAPI 3 document".to_owned()));
        }
        let mut document = Self {
            title: root["info"]["title"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
            server: root["servers"][0]["url"].as_str().map(str::to_owned),
            operations: Vec::new(),
            warnings: Vec::new(),
        };
        let paths = root["paths"].as_object();
        for (path, item) in paths.into_iter().flatten() {
            let item = Inliner::of(&root).resolved(item);
            for method in ["get", "head", "post", "put", "patch", "delete", "options"] {
                if let Some(operation) = item.get(method) {
                    document.add(&root, path, method, item, operation)?;
                }
            }
        }
        if document.operations.is_empty() {
            return Err(DocumentError("it has no operations".to_owned()));
        }
        Ok(document)
    }

    fn add(
        &mut self,
        root: &Json,
        path: &str,
        method: &str,
        item: &Json,
        operation: &Json,
    ) -> Result<(), DocumentError> {
        let given = operation["operationId"].as_str();
        let name = given.map_or_else(|| identifier(&format!("{method}_{path}")), identifier);
        let label = format!("{} {path}", method.to_ascii_uppercase());
        if let Some(other) = self.operations.iter().find(|other| other.name == name) {
            let other = format!("{} {}", other.method, other.path);
            let line = format!("{label} is left out: its name `{name}` is that of {other}");
            self.warnings.push(line);
            return Ok(());
        }
        match Operation::read(root, (name, method, path), item, operation) {
            Ok(operation) => self.operations.push(operation),
            Err(why) => self.warnings.push(format!("{label} is left out: {why}")),
        }
        if self.operations.len() > MAX_OPERATIONS {
            return Err(DocumentError(format!(
                "it has more than {MAX_OPERATIONS} operations"
            )));
        }
        Ok(())
    }
}

impl Operation {
    fn read(
        root: &Json,
        (name, method, path): (String, &str, &str),
        item: &Json,
        operation: &Json,
    ) -> Result<Self, String> {
        let mut inliner = Inliner::of(root);
        let mut parameters: Vec<Parameter> = Vec::new();
        // Those of the operation stand for those of its path with the same name and place.
        for parameter in both(&operation["parameters"], &item["parameters"]) {
            let parameter = inliner.resolved(parameter);
            if let Some(parameter) = Parameter::read(&mut inliner, parameter, &parameters)? {
                parameters.push(parameter);
            }
        }
        let (body, body_schema, body_required) = match operation.get("requestBody") {
            None => (None, json!({}), false),
            Some(body) => {
                let body = inliner.resolved(body);
                let (media, schema) = inliner
                    .content(&body["content"])
                    .ok_or("its body has no media type that can be sent")?;
                (
                    Some(media),
                    schema,
                    body["required"].as_bool().unwrap_or(false),
                )
            }
        };
        let responses = operation["responses"].as_object();
        let success = responses
            .into_iter()
            .flatten()
            .find(|(status, _)| status.starts_with('2'));
        let success = success.map(|(_, response)| inliner.resolved(response));
        let returns = success.and_then(|response| {
            inliner
                .content(&response["content"])
                .map(|(_, schema)| schema)
        });
        let example = success.and_then(|response| inliner.example(&response["content"]));
        let text = |key: &str| operation[key].as_str().unwrap_or_default().trim();
        let (summary, long) = (text("summary"), text("description"));
        let description = match (summary, long) {
            ("", long) => long.to_owned(),
            (summary, "") => summary.to_owned(),
            (summary, long) => format!("{summary}\n{long}"),
        };
        for name in templates(path) {
            let known = |p: &Parameter| p.place == Place::Path && p.name == name;
            if !parameters.iter().any(known) {
                return Err(format!("it has no parameter for {{{name}}}"));
            }
        }
        Ok(Self {
            name,
            method: method.to_ascii_uppercase(),
            path: path.to_owned(),
            description,
            parameters,
            body,
            body_schema,
            body_required,
            returns,
            example,
            undo: operation["x-bowline-undo"].as_str().map(identifier),
        })
    }

    /// As code sees it.
    pub(super) fn describe(&self) -> Method {
        let mut properties = Map::new();
        let mut required = Vec::new();
        for parameter in &self.parameters {
            properties.insert(parameter.key.clone(), parameter.schema.clone());
            if parameter.required {
                required.push(parameter.key.clone());
            }
        }
        if self.body.is_some() {
            properties.insert(BODY.to_owned(), self.body_schema.clone());
            if self.body_required {
                required.push(BODY.to_owned());
            }
        }
        let optional = required.is_empty();
        let none = properties.is_empty();
        let input = json!({
            "type": "object", "properties": properties, "required": required,
            "additionalProperties": false,
        });
        let description = match self.description.as_str() {
            "" => format!("{} {}", self.method, self.path),
            text => text.to_owned(),
        };
        let method = Method::new(self.name.clone(), description);
        let method = match (none, optional) {
            (true, _) => method,
            (false, true) => method.may_take("input", input),
            (false, false) => method.takes("input", input),
        };
        match &self.returns {
            Some(schema) => method.gives(schema.clone()),
            None => method,
        }
    }

    /// Its argument when it undoes another operation: each parameter from what that one gave, else from what
    /// it was given.
    pub(super) fn undoing(&self, given: Option<&Value>, gave: &Value) -> Value {
        let keys = self.parameters.iter().map(|one| one.key.as_str());
        let keys = keys.chain(self.body.is_some().then_some(BODY));
        let field = |value: &Value, key: &str| {
            let Value::Object(fields) = value else {
                return None;
            };
            let mut fields = fields.iter();
            let found = fields.find(|(name, _)| name == key)?;
            Some(found.1.clone())
        };
        let found = |key: &str| field(gave, key).or_else(|| field(given?, key));
        let fields = keys.filter_map(|key| Some((key.to_owned(), found(key)?)));
        Value::Object(fields.collect())
    }

    /// Path, query, headers and body from the one argument.
    pub(super) fn fill(&self, service: &str, input: Value) -> Result<Filled, CallError> {
        let of = format!("{service}.{}", self.name);
        let mut keys: Vec<&str> = self.parameters.iter().map(|p| p.key.as_str()).collect();
        if self.body.is_some() {
            keys.push(BODY);
        }
        let input = match input {
            Value::Undefined | Value::Null => Value::Object(Vec::new()),
            input => input,
        };
        let mut with = Arguments::fields(&of, input, &keys)?;
        let mut path = self.path.clone();
        let (mut query, mut headers) = (Vec::new(), Vec::new());
        for parameter in &self.parameters {
            let value = match with.take(&parameter.key) {
                Some(value) => value,
                None if parameter.required => {
                    return Err(with.wrong(&format!("{} is missing", parameter.key)));
                }
                None => continue,
            };
            let texts = match &value {
                Value::Array(items) | Value::Set(items) => items.iter().map(query_text).collect(),
                value => vec![query_text(value)],
            };
            match parameter.place {
                Place::Path => {
                    let text = texts.join(",");
                    if matches!(text.as_str(), "" | "." | "..") {
                        return Err(
                            with.wrong(&format!("{} cannot be a part of a path", parameter.key))
                        );
                    }
                    path = path.replace(&format!("{{{}}}", parameter.name), &escaped(&text));
                }
                Place::Query if parameter.explode => {
                    query.extend(texts.into_iter().map(|text| (parameter.name.clone(), text)));
                }
                Place::Query => query.push((parameter.name.clone(), texts.join(","))),
                Place::Header => headers.push((parameter.name.clone(), texts.join(","))),
            }
        }
        let body = with.take_any(BODY);
        if self.body_required && body.as_ref().is_none_or(|body| *body == Value::Undefined) {
            return Err(with.wrong("body is missing"));
        }
        Ok((path, query, headers, body))
    }
}

/// Path, query, headers and body.
pub(super) type Filled = (
    String,
    Vec<(String, String)>,
    Vec<(String, String)>,
    Option<Value>,
);

/// What code calls the body.
const BODY: &str = "body";

impl Parameter {
    /// Nothing for one that is there already, or that is not code's to set.
    fn read<'a>(
        inliner: &mut Inliner<'a>,
        from: &'a Json,
        others: &[Self],
    ) -> Result<Option<Self>, String> {
        let name = from["name"].as_str().ok_or("a parameter has no name")?;
        let (place, place_name) = match from["in"].as_str() {
            Some("path") => (Place::Path, "path"),
            Some("query") => (Place::Query, "query"),
            Some("header") => (Place::Header, "header"),
            // Cookies are credentials, and credentials are attached by the host.
            _ => return Ok(None),
        };
        let reserved = ["accept", "content-type", "authorization"];
        let is_reserved = reserved
            .iter()
            .any(|other| name.eq_ignore_ascii_case(other));
        let is_known = others
            .iter()
            .any(|other| other.place == place && other.name == name);
        if is_known || (place == Place::Header && is_reserved) {
            return Ok(None);
        }
        let taken = name == BODY || others.iter().any(|other| other.key == name);
        let key = if taken {
            format!("{place_name}_{name}")
        } else {
            name.to_owned()
        };
        let mut schema = match from.get("schema") {
            Some(schema) => inliner.inline(schema),
            None => inliner
                .content(&from["content"])
                .map_or(json!({}), |(_, schema)| schema),
        };
        if let (Some(schema), Some(text)) = (schema.as_object_mut(), from["description"].as_str()) {
            schema
                .entry("description")
                .or_insert_with(|| Json::from(text));
        }
        Ok(Some(Self {
            key,
            name: name.to_owned(),
            place,
            required: place == Place::Path || from["required"].as_bool().unwrap_or(false),
            explode: from["explode"].as_bool().unwrap_or(true),
            schema,
        }))
    }
}

/// Writes local references out.
struct Inliner<'a> {
    root: &'a Json,
    left: usize,
    open: HashSet<String>,
}

impl<'a> Inliner<'a> {
    fn of(root: &'a Json) -> Self {
        Self {
            root,
            left: MAX_PARTS,
            open: HashSet::new(),
        }
    }

    /// What a reference stands for, or the thing itself.
    fn resolved(&self, mut part: &'a Json) -> &'a Json {
        for _ in 0..MAX_DEPTH {
            let Some(target) = part.get("$ref").and_then(Json::as_str) else {
                break;
            };
            let Some(found) = target.strip_prefix('#').and_then(|p| self.root.pointer(p)) else {
                break;
            };
            part = found;
        }
        part
    }

    /// The media type that is sent or read, and its schema.
    fn content(&mut self, content: &'a Json) -> Option<(String, Json)> {
        let content = content.as_object()?;
        let is = |wanted: &str| {
            content.iter().find(move |(media, _)| {
                media
                    .split(';')
                    .next()
                    .is_some_and(|media| media.trim() == wanted)
            })
        };
        let json = || content.iter().find(|(media, _)| media.contains("json"));
        let text = || content.iter().find(|(media, _)| media.starts_with("text/"));
        let (media, found) = is("application/json")
            .or_else(json)
            .or_else(|| is("application/x-www-form-urlencoded"))
            .or_else(|| is("application/octet-stream"))
            .or_else(text)
            .or_else(|| {
                content
                    .iter()
                    .find(|(media, _)| !media.starts_with("multipart/"))
            })?;
        let media = if media.contains('*') {
            "application/octet-stream"
        } else {
            media
        };
        let schema = found
            .get("schema")
            .map_or(json!({}), |schema| self.inline(schema));
        Some((media.to_owned(), schema))
    }

    /// The first example of what is read.
    fn example(&self, content: &'a Json) -> Option<Json> {
        let media = content.as_object()?.values();
        let mut given = media.filter_map(|media| {
            let named = media["examples"].as_object();
            let first = named.and_then(|named| named.values().next());
            let first = first.and_then(|first| self.resolved(first).get("value"));
            let of_schema = media["schema"].get("example");
            media.get("example").or(first).or(of_schema)
        });
        given.next().cloned()
    }

    fn inline(&mut self, part: &'a Json) -> Json {
        self.at(part, 0)
    }

    fn at(&mut self, part: &'a Json, depth: usize) -> Json {
        if self.left == 0 || depth > MAX_DEPTH {
            return json!({});
        }
        self.left -= 1;
        match part {
            Json::Object(fields) => {
                let Some(target) = fields.get("$ref").and_then(Json::as_str) else {
                    let inlined = fields.iter();
                    return inlined
                        .map(|(key, part)| (key.clone(), self.at(part, depth + 1)))
                        .collect();
                };
                let found = target.strip_prefix('#').and_then(|p| self.root.pointer(p));
                let (Some(found), true) = (found, self.open.insert(target.to_owned())) else {
                    return json!({});
                };
                let inlined = self.at(found, depth + 1);
                self.open.remove(target);
                inlined
            }
            Json::Array(items) => items.iter().map(|item| self.at(item, depth + 1)).collect(),
            other => other.clone(),
        }
    }
}

fn both<'a>(one: &'a Json, other: &'a Json) -> impl Iterator<Item = &'a Json> {
    let list = |json: &'a Json| json.as_array().map(Vec::as_slice).unwrap_or_default();
    list(one).iter().chain(list(other))
}

/// The names in braces of a path.
fn templates(path: &str) -> impl Iterator<Item = &str> {
    path.split('{')
        .skip(1)
        .filter_map(|part| part.split('}').next())
}

/// A part of a path that no server takes for more than one.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Any name as an identifier of JavaScript.
fn identifier(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '_' | '$' => out.push(c),
            '-' | '.' | ' ' | '/' if !out.ends_with('_') => out.push('_'),
            _ => {}
        }
    }
    let trimmed = out.trim_end_matches('_');
    out.truncate(trimmed.len().max(1).min(out.len()));
    if out.is_empty() || out.starts_with(|c: char| c.is_ascii_digit()) {
        out.insert(0, '_');
    }
    out.truncate(128);
    // What has a function `then` is a promise to JavaScript, which `await` would call.
    if out == "then" {
        out.push('_');
    }
    out
}
