//! Doc comments: what they say, and their tags as keywords of a schema.

use oxc::ast::Comment;
use oxc::span::Span;
use serde_json::{Map, Value as Json};

use super::graph::{File, Graph};
use super::{SourceError, SourceErrorKind};

/// A doc comment.
#[derive(Clone, Debug, Default)]
pub(super) struct Doc<'a> {
    /// The text before the first tag.
    pub(super) text: String,
    tags: Vec<Tag<'a>>,
}

#[derive(Clone, Debug)]
struct Tag<'a> {
    name: &'a str,
    text: String,
    span: Span,
}

/// What kind of value a tag has, and of which types it speaks.
#[derive(Clone, Copy)]
enum Kind {
    Number(&'static [&'static str]),
    Count(&'static [&'static str]),
    Text(&'static [&'static str]),
}

const NUMBERS: &[&str] = &["number", "integer"];

/// The tags that are keywords of JSON Schema.
const KEYWORDS: [(&str, Kind); 12] = [
    ("minimum", Kind::Number(NUMBERS)),
    ("maximum", Kind::Number(NUMBERS)),
    ("exclusiveMinimum", Kind::Number(NUMBERS)),
    ("exclusiveMaximum", Kind::Number(NUMBERS)),
    ("multipleOf", Kind::Number(NUMBERS)),
    ("minLength", Kind::Count(&["string"])),
    ("maxLength", Kind::Count(&["string"])),
    ("minItems", Kind::Count(&["array"])),
    ("maxItems", Kind::Count(&["array"])),
    ("minProperties", Kind::Count(&["object"])),
    ("maxProperties", Kind::Count(&["object"])),
    ("pattern", Kind::Text(&["string"])),
];

impl<'a> Doc<'a> {
    /// The comment right before an offset of a file.
    pub(super) fn before(file: &File<'a>, start: u32) -> Self {
        let comments = &file.program.comments;
        let mut at = comments.partition_point(|comment| comment.span.end <= start);
        let mut end = start;
        while let Some(comment) = at.checked_sub(1).and_then(|at| comments.get(at)) {
            let between = file.text.get(comment.span.end as usize..end as usize);
            if !between.is_some_and(|text| text.trim().is_empty()) {
                break;
            }
            if is_doc(file.text, comment) {
                return Self::parse(file.text, comment.content_span());
            }
            end = comment.span.start;
            at -= 1;
        }
        Self::default()
    }

    fn parse(text: &'a str, span: Span) -> Self {
        let mut doc = Self::default();
        let mut at = span.start as usize;
        let content = text.get(at..span.end as usize).unwrap_or("");
        for line in content.split_inclusive('\n') {
            let start = at;
            at += line.len();
            let inner = line.trim_start();
            let inner = match inner.strip_prefix('*') {
                Some(rest) => rest.strip_prefix(' ').unwrap_or(rest),
                None => inner,
            };
            let offset = start + (line.len() - inner.len());
            let inner = inner.trim_end();
            let tag = inner
                .trim_start()
                .strip_prefix('@')
                .filter(|tag| tag.starts_with(|c: char| c.is_ascii_alphabetic()));
            if let Some(tag) = tag {
                let offset = u32::try_from(offset).unwrap_or(span.start);
                doc.tag(tag, Span::new(offset, offset));
                continue;
            }
            let said = match doc.tags.last_mut() {
                Some(tag) => &mut tag.text,
                None => &mut doc.text,
            };
            if !said.is_empty() {
                said.push('\n');
            }
            said.push_str(&plain(inner));
        }
        doc.text = doc.text.trim().to_owned();
        for tag in &mut doc.tags {
            tag.text = tag.text.trim().to_owned();
        }
        doc
    }

    /// A line that begins with a tag; after one with a short value another may follow.
    fn tag(&mut self, line: &'a str, span: Span) {
        let mut next = Some(line);
        while let Some(line) = next {
            let end = line.find(|c: char| !c.is_ascii_alphanumeric());
            let (name, rest) = line.split_at(end.unwrap_or(line.len()));
            let short = KEYWORDS.iter().any(|(known, kind)| {
                *known == name && matches!(kind, Kind::Number(_) | Kind::Count(_))
            }) || matches!(name, "integer" | "uniqueItems" | "deprecated" | "format");
            let (text, after) = match rest.split_once(" @") {
                Some((text, after)) if short => (text, Some(after)),
                _ => (rest, None),
            };
            self.tags.push(Tag {
                name,
                text: text.trim().to_owned(),
                span,
            });
            next = after;
        }
    }

    /// What the tag `@param name` says.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters()
            .find(|(path, _)| *path == name)
            .map(|(_, text)| text)
    }

    /// What the tags `@param` say: of what, and the text.
    pub(super) fn parameters(&self) -> impl Iterator<Item = (&str, &str)> {
        self.tags
            .iter()
            .filter(|tag| tag.name == "param")
            .filter_map(|tag| {
                let mut text = tag.text.as_str();
                if text.starts_with('{') {
                    text = text.split_once('}')?.1.trim_start();
                }
                let (name, said) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
                let name = name.trim_matches(['[', ']']);
                Some((name, said.trim_start().trim_start_matches('-').trim_start()))
            })
    }

    /// What the tag `@returns` says.
    pub(super) fn returns(&self) -> Option<&str> {
        self.tags
            .iter()
            .find(|tag| matches!(tag.name, "returns" | "return"))
            .map(|tag| tag.text.as_str())
            .filter(|text| !text.is_empty())
    }

    /// The schema with what the comment says. What was there is replaced.
    pub(super) fn apply(
        &self,
        graph: &Graph<'a>,
        file: usize,
        schema: Json,
    ) -> Result<Json, SourceError> {
        let Json::Object(mut object) = schema else {
            return Ok(schema);
        };
        if !self.text.is_empty() {
            object.insert("description".to_owned(), self.text.as_str().into());
        }
        for tag in &self.tags {
            let fail = |message: String, fix: &str| {
                graph.error(SourceErrorKind::Type, file, tag.span, message, fix)
            };
            if let Some((name, kind)) = KEYWORDS.iter().find(|(name, _)| *name == tag.name) {
                let value =
                    keyword(*kind, &object, tag).map_err(|(message, fix)| fail(message, fix))?;
                object.insert((*name).to_owned(), value);
                continue;
            }
            match tag.name {
                "format" => {
                    if tag.text.is_empty() {
                        let fix = "name a format of JSON Schema, such as `@format email`";
                        return Err(fail("`@format` has no value".to_owned(), fix));
                    }
                    object.insert("format".to_owned(), tag.text.as_str().into());
                }
                "default" | "example" => {
                    let value = literal(tag, &object).ok_or_else(|| {
                        let fix = "write a value of JSON, with quotes around a text";
                        fail(
                            format!("the value of `@{}` does not fit its type", tag.name),
                            fix,
                        )
                    })?;
                    if tag.name == "default" {
                        object.insert("default".to_owned(), value);
                    } else if let Json::Array(all) = object
                        .entry("examples")
                        .or_insert_with(|| Json::Array(Vec::new()))
                    {
                        all.push(value);
                    }
                }
                "title" => {
                    object.insert("title".to_owned(), tag.text.as_str().into());
                }
                "deprecated" => {
                    object.insert("deprecated".to_owned(), Json::Bool(true));
                }
                "uniqueItems" => {
                    object.insert("uniqueItems".to_owned(), Json::Bool(tag.text != "false"));
                }
                "integer" => integer(&mut object).map_err(|message| {
                    fail(message, "put `@integer` before a property of type `number`")
                })?,
                "type" | "asType" if tag.text.trim_matches(['{', '}']) == "integer" => {
                    integer(&mut object).map_err(|message| {
                        fail(message, "put it before a property of type `number`")
                    })?;
                }
                _ => {}
            }
        }
        Ok(Json::Object(object))
    }
}

fn is_doc(text: &str, comment: &Comment) -> bool {
    let span = comment.span;
    comment.is_block()
        && text
            .get(span.start as usize..span.end as usize)
            .is_some_and(|text| text.starts_with("/**") && text.len() > 4)
}

/// `{@link X}` as `X`.
fn plain(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("{@") {
        let Some((inner, next)) = after.split_once('}') else {
            break;
        };
        out.push_str(before);
        let words = inner
            .split_once(char::is_whitespace)
            .map_or("", |(_, words)| words.trim());
        // `{@link TARGET the words}` and `{@link TARGET | the words}`.
        let said = words
            .split_once(|c: char| c == '|' || c.is_whitespace())
            .map_or(words, |(_, said)| said.trim_start_matches(['|', ' ']));
        out.push_str(said);
        rest = next;
    }
    out.push_str(rest);
    out
}

fn types(object: &Map<String, Json>) -> Vec<&str> {
    match object.get("type") {
        Some(Json::String(one)) => vec![one],
        Some(Json::Array(all)) => all.iter().filter_map(Json::as_str).collect(),
        _ => Vec::new(),
    }
}

fn keyword(
    kind: Kind,
    object: &Map<String, Json>,
    tag: &Tag<'_>,
) -> Result<Json, (String, &'static str)> {
    let (of, value) = match kind {
        Kind::Number(of) => (of, number(&tag.text)),
        Kind::Count(of) => (of, tag.text.parse::<u64>().ok().map(Json::from)),
        Kind::Text(of) => {
            let text = tag.text.trim_matches('`');
            // As a regular expression of JavaScript is often written.
            let text = text
                .strip_prefix('/')
                .and_then(|text| text.strip_suffix('/'))
                .unwrap_or(text);
            (of, (!text.is_empty()).then(|| Json::from(text)))
        }
    };
    let has = types(object);
    if !has.is_empty() && !has.iter().any(|one| of.contains(one)) {
        let message = format!(
            "`@{}` is for {}, and this is {}",
            tag.name,
            of.join(" or "),
            has.join(" or ")
        );
        return Err((message, "remove the tag, or change the type"));
    }
    value.ok_or_else(|| {
        let fix = match kind {
            Kind::Number(_) => "write a number after it",
            Kind::Count(_) => "write a whole number after it, 0 or more",
            Kind::Text(_) => "write a regular expression after it",
        };
        (format!("`@{}` has the value `{}`", tag.name, tag.text), fix)
    })
}

fn number(text: &str) -> Option<Json> {
    match serde_json::from_str(text) {
        Ok(value @ Json::Number(_)) => Some(value),
        _ => None,
    }
}

/// The value of `@default` and `@example`: JSON, or a text as it stands.
fn literal(tag: &Tag<'_>, object: &Map<String, Json>) -> Option<Json> {
    let text = tag.text.trim_matches('`');
    let types = types(object);
    let fits = |value: &Json| {
        types.is_empty()
            || types.iter().any(|kind| match *kind {
                "string" => value.is_string(),
                "number" => value.is_number(),
                "integer" => value.is_i64() || value.is_u64(),
                "boolean" => value.is_boolean(),
                "array" => value.is_array(),
                "object" => value.is_object(),
                _ => value.is_null(),
            })
    };
    if let Ok(value) = serde_json::from_str::<Json>(text)
        && fits(&value)
    {
        return Some(value);
    }
    let single = text
        .strip_prefix('\'')
        .and_then(|text| text.strip_suffix('\''))
        .unwrap_or(text);
    let value = Json::from(single);
    (fits(&value) && !single.is_empty()).then_some(value)
}

fn integer(object: &mut Map<String, Json>) -> Result<(), String> {
    match object.get_mut("type") {
        Some(Json::String(kind)) if matches!(kind.as_str(), "number" | "integer") => {
            "integer".clone_into(kind);
        }
        Some(Json::Array(kinds)) if kinds.iter().any(|kind| kind == "number") => {
            for kind in kinds.iter_mut().filter(|kind| **kind == "number") {
                *kind = "integer".into();
            }
        }
        _ => return Err("only a number can be an integer".to_owned()),
    }
    Ok(())
}
