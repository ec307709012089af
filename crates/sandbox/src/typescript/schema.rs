//! Types as JSON Schema.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use oxc::ast::ast::{
    PropertyKey, TSLiteral, TSSignature, TSTemplateLiteralType, TSTupleElement, TSType,
    TSTypeOperatorOperator, UnaryOperator,
};
use oxc::span::{GetSpan, Span};
use serde_json::{Map, Value as Json, json};

use super::combine::{self, Typed};
use super::doc::Doc;
use super::graph::Graph;
use super::{MAX_DEPTH, MAX_PARTS, SourceError, SourceErrorKind, literal};

/// Reads the types of one parameter or result.
pub(super) struct Reader<'g, 'a> {
    pub(super) graph: &'g Graph<'a>,
    /// Whether the values go out: then a result may be nothing, a date or bytes.
    pub(super) out: bool,
    left: Cell<usize>,
    /// The named types that are being read, the outermost first.
    pub(super) open: RefCell<Vec<Open>>,
    pub(super) defs: RefCell<Map<String, Json>>,
}

/// A named type that is being read.
pub(super) struct Open {
    /// What it is, with its arguments.
    pub(super) key: String,
    /// Its name in `$defs`, once something within refers to it.
    pub(super) name: Option<String>,
}

/// Where a type stands.
#[derive(Clone)]
pub(super) struct At<'a> {
    pub(super) file: usize,
    /// The type parameters that have a meaning here.
    pub(super) given: Rc<BTreeMap<&'a str, Typed>>,
    pub(super) depth: usize,
}

impl<'a> At<'a> {
    pub(super) fn top(file: usize) -> Self {
        Self {
            file,
            given: Rc::default(),
            depth: 0,
        }
    }

    pub(super) fn with(&self, name: &'a str, typed: Typed) -> Self {
        let mut given = (*self.given).clone();
        given.insert(name, typed);
        Self {
            given: Rc::new(given),
            ..self.clone()
        }
    }
}

pub(super) type Read<T = Typed> = Result<T, SourceError>;

impl<'g, 'a> Reader<'g, 'a> {
    pub(super) fn new(graph: &'g Graph<'a>, out: bool) -> Self {
        Self {
            graph,
            out,
            left: Cell::new(MAX_PARTS),
            open: RefCell::default(),
            defs: RefCell::default(),
        }
    }

    /// The schema with its definitions.
    pub(super) fn finish(self, schema: Json) -> Json {
        let defs = self.defs.into_inner();
        if defs.is_empty() {
            return schema;
        }
        // An object must stand at the top: providers take nothing else there.
        let schema = schema
            .get("$ref")
            .and_then(Json::as_str)
            .and_then(|name| name.strip_prefix("#/$defs/"))
            .and_then(|name| defs.get(name))
            .cloned()
            .unwrap_or(schema);
        match schema {
            Json::Object(mut object) => {
                object.insert("$defs".to_owned(), Json::Object(defs));
                Json::Object(object)
            }
            other => other,
        }
    }

    pub(super) fn error(
        &self,
        at: &At<'a>,
        span: Span,
        message: impl Into<String>,
        fix: impl Into<String>,
    ) -> SourceError {
        self.graph
            .error(SourceErrorKind::Type, at.file, span, message, fix)
    }

    /// Counts parts, so that types which copy each other stay small.
    pub(super) fn charge(&self, at: &At<'a>, span: Span, parts: usize) -> Read<()> {
        match self.left.get().checked_sub(parts) {
            Some(left) => {
                self.left.set(left);
                Ok(())
            }
            None => Err(self.error(
                at,
                span,
                format!("the type has more than {MAX_PARTS} parts"),
                "make it smaller, or take `unknown`",
            )),
        }
    }

    /// A type that must have values which JSON can have.
    pub(super) fn json(&self, ty: &'a TSType<'a>, at: &At<'a>) -> Read<Json> {
        let typed = self.read(ty, at)?;
        self.defined(typed, ty.span(), at)
    }

    pub(super) fn defined(&self, typed: Typed, span: Span, at: &At<'a>) -> Read<Json> {
        if typed.undefined {
            return Err(self.error(
                at,
                span,
                "JSON has no `undefined`",
                "use `null`, or make a property optional with `?`",
            ));
        }
        if typed.schema == Json::Bool(false) {
            let message = "no value has the type `never`";
            return Err(self.error(at, span, message, "remove it, or write another type"));
        }
        Ok(typed.schema)
    }

    pub(super) fn read(&self, ty: &'a TSType<'a>, at: &At<'a>) -> Read {
        let span = ty.span();
        self.charge(at, span, 1)?;
        if at.depth >= MAX_DEPTH {
            let message = format!("more than {MAX_DEPTH} types lie within each other");
            return Err(self.error(at, span, message, "make the type flatter"));
        }
        let at = &At {
            depth: at.depth + 1,
            ..at.clone()
        };
        match ty {
            TSType::TSStringKeyword(_) => Ok(Typed::of("string")),
            TSType::TSNumberKeyword(_) => Ok(Typed::of("number")),
            TSType::TSBooleanKeyword(_) => Ok(Typed::of("boolean")),
            TSType::TSNullKeyword(_) => Ok(Typed::of("null")),
            TSType::TSObjectKeyword(_) => Ok(Typed::of("object")),
            TSType::TSAnyKeyword(_) | TSType::TSUnknownKeyword(_) => Ok(Typed::new(json!({}))),
            TSType::TSUndefinedKeyword(_) | TSType::TSVoidKeyword(_) => Ok(Typed::undefined()),
            TSType::TSNeverKeyword(_) => Ok(Typed::never()),
            TSType::TSLiteralType(one) => self.literal(&one.literal, at),
            TSType::TSParenthesizedType(one) => self.read(&one.type_annotation, at),
            TSType::TSArrayType(one) => {
                let item = self.json(&one.element_type, at)?;
                Ok(Typed::new(json!({"type": "array", "items": item})))
            }
            TSType::TSTupleType(one) => self.tuple(&one.element_types, at),
            TSType::TSUnionType(one) => {
                let parts: Result<Vec<Typed>, _> =
                    one.types.iter().map(|part| self.read(part, at)).collect();
                Ok(combine::union(parts?))
            }
            TSType::TSIntersectionType(one) => self.intersection(&one.types, at),
            TSType::TSTypeLiteral(one) => self.members(&one.members, at).map(Typed::new),
            TSType::TSTypeReference(one) => self.reference(one, at),
            TSType::TSTypeOperatorType(one) => match one.operator {
                TSTypeOperatorOperator::Readonly => self.read(&one.type_annotation, at),
                TSTypeOperatorOperator::Keyof => self.key_of(&one.type_annotation, at),
                TSTypeOperatorOperator::Unique => Err(self.no(span, at, "a symbol")),
            },
            TSType::TSTemplateLiteralType(one) => self.template(one, at),
            TSType::TSIndexedAccessType(one) => self.indexed(one, at),
            TSType::TSMappedType(one) => self.mapped(one, at),
            TSType::TSTypeQuery(one) => self.query(one, at),
            TSType::TSBigIntKeyword(_) => Err(self.error(
                at,
                span,
                "JSON has no `bigint`",
                "use `number`, or `string` for more than 2^53",
            )),
            TSType::TSSymbolKeyword(_) => Err(self.no(span, at, "a symbol")),
            TSType::TSFunctionType(_) | TSType::TSConstructorType(_) => {
                Err(self.function(span, at))
            }
            TSType::TSConditionalType(_) | TSType::TSInferType(_) => Err(self.error(
                at,
                span,
                "a conditional type is not read",
                "write the type that it comes to",
            )),
            TSType::TSImportType(_) => Err(self.error(
                at,
                span,
                "`import(…)` in a type is not read",
                "import the type at the top of the file: `import type { … } from …`",
            )),
            TSType::TSThisType(_) | TSType::TSTypePredicate(_) | TSType::TSIntrinsicKeyword(_) => {
                Err(self.no(span, at, "this type"))
            }
            TSType::TSNamedTupleMember(_)
            | TSType::JSDocNullableType(_)
            | TSType::JSDocNonNullableType(_)
            | TSType::JSDocUnknownType(_) => Err(self.no(span, at, "this type")),
        }
    }

    fn no(&self, span: Span, at: &At<'a>, what: &str) -> SourceError {
        let fix = "use text, numbers, booleans, null, lists or objects";
        self.error(at, span, format!("JSON cannot have {what}"), fix)
    }

    fn function(&self, span: Span, at: &At<'a>) -> SourceError {
        let message = "a function cannot be passed as JSON";
        self.error(at, span, message, "remove it, or take what it would return")
    }

    fn literal(&self, one: &TSLiteral<'a>, at: &At<'a>) -> Read {
        let value = match one {
            TSLiteral::StringLiteral(one) => Some(one.value.as_str().into()),
            TSLiteral::BooleanLiteral(one) => Some(Json::Bool(one.value)),
            TSLiteral::NumericLiteral(one) => literal::number(one.value),
            TSLiteral::TemplateLiteral(one) => one.single_quasi().map(|text| text.as_str().into()),
            TSLiteral::UnaryExpression(one) if one.operator == UnaryOperator::UnaryNegation => {
                literal::value(&one.argument)
                    .ok()
                    .and_then(|value| literal::number(-value.as_f64()?))
            }
            TSLiteral::BigIntLiteral(_) | TSLiteral::UnaryExpression(_) => None,
        };
        match value {
            Some(value) => Ok(Typed::new(combine::literal(value))),
            None => Err(self.no(one.span(), at, "this literal")),
        }
    }

    fn intersection(&self, types: &'a [TSType<'a>], at: &At<'a>) -> Read {
        let mut parts = Vec::new();
        let mut undefined = true;
        for ty in types {
            let typed = self.read(ty, at)?;
            undefined &= typed.undefined;
            parts.push(typed.schema);
        }
        let schema = combine::intersection(parts);
        let conflict = schema
            .get("allOf")
            .and_then(Json::as_array)
            .is_some_and(|all| {
                let kinds: Vec<_> = all.iter().filter_map(|part| part.get("type")).collect();
                kinds.windows(2).any(|pair| pair[0] != pair[1])
            });
        if schema == Json::Bool(false) || conflict {
            let span = types.first().map_or(Span::new(0, 0), GetSpan::span);
            let message = "no value can have all of these types";
            return Err(self.error(at, span, message, "use `|`, or one of them"));
        }
        Ok(Typed { schema, undefined })
    }

    fn tuple(&self, elements: &'a [TSTupleElement<'a>], at: &At<'a>) -> Read {
        let (mut items, mut required) = (Vec::new(), 0);
        let mut rest = Json::Bool(false);
        for (index, element) in elements.iter().enumerate() {
            let span = element.span();
            let (inner, label_optional) = match element {
                TSTupleElement::TSNamedTupleMember(one) => (&one.element_type, one.optional),
                other => (other, false),
            };
            match inner {
                TSTupleElement::TSRestType(one) => {
                    if index + 1 < elements.len() {
                        let message = "what follows `...` in a tuple cannot be said in JSON Schema";
                        return Err(self.error(at, span, message, "move it to the end"));
                    }
                    let list = self.json(&one.type_annotation, at)?;
                    rest = list.get("items").cloned().unwrap_or(json!({}));
                }
                TSTupleElement::TSOptionalType(one) => {
                    items.push(self.json(&one.type_annotation, at)?);
                }
                other => {
                    let Some(ty) = other.as_ts_type() else {
                        return Err(self.no(span, at, "this element"));
                    };
                    items.push(self.json(ty, at)?);
                    if !label_optional {
                        required = items.len();
                    }
                }
            }
        }
        let mut object = Map::new();
        object.insert("type".to_owned(), "array".into());
        object.insert("minItems".to_owned(), required.into());
        if rest == Json::Bool(false) {
            object.insert("maxItems".to_owned(), items.len().into());
        }
        if !items.is_empty() {
            object.insert("prefixItems".to_owned(), Json::Array(items));
        }
        object.insert("items".to_owned(), rest);
        Ok(Typed::new(Json::Object(object)))
    }

    /// The members of an interface or an object type.
    pub(super) fn members(&self, members: &'a [TSSignature<'a>], at: &At<'a>) -> Read<Json> {
        let mut properties = Vec::new();
        let mut others = None;
        for member in members {
            match member {
                TSSignature::TSPropertySignature(one) => {
                    let name = self.key(&one.key, one.computed, at)?;
                    let Some(annotation) = &one.type_annotation else {
                        let message = format!("the property `{name}` has no type");
                        return Err(self.error(at, one.span, message, "write one after `:`"));
                    };
                    let mut typed = self.read(&annotation.type_annotation, at)?;
                    let optional = one.optional || typed.undefined;
                    typed.undefined = false;
                    // `name?: never` means that it must not be there.
                    let schema = if optional && typed.schema == Json::Bool(false) {
                        json!({ "not": {} })
                    } else {
                        self.defined(typed, annotation.type_annotation.span(), at)?
                    };
                    let doc = Doc::before(&self.graph.files[at.file], one.span.start);
                    let schema = doc.apply(self.graph, at.file, schema)?;
                    properties.push((name, schema, optional));
                }
                TSSignature::TSIndexSignature(one) => {
                    let mut typed = self.read(&one.type_annotation.type_annotation, at)?;
                    typed.undefined = false;
                    others = Some(self.defined(typed, one.span, at)?);
                }
                TSSignature::TSMethodSignature(one) => return Err(self.function(one.span, at)),
                TSSignature::TSCallSignatureDeclaration(one) => {
                    return Err(self.function(one.span, at));
                }
                TSSignature::TSConstructSignatureDeclaration(one) => {
                    return Err(self.function(one.span, at));
                }
            }
        }
        let bare = properties.is_empty();
        let mut object = combine::object(properties);
        if let (Some(others), Some(object)) = (others, object.as_object_mut()) {
            if bare {
                object.remove("properties");
            }
            object.insert("additionalProperties".to_owned(), others);
        }
        Ok(object)
    }

    fn key(&self, key: &PropertyKey<'a>, computed: bool, at: &At<'a>) -> Read<String> {
        let literal = matches!(
            key,
            PropertyKey::StringLiteral(_) | PropertyKey::NumericLiteral(_)
        );
        match key.static_name() {
            Some(name) if !computed || literal => Ok(name.into_owned()),
            _ => Err(self.error(
                at,
                key.span(),
                "the name of this property is computed",
                "write it out",
            )),
        }
    }

    /// `` `id-${number}` `` as a pattern.
    fn template(&self, one: &'a TSTemplateLiteralType<'a>, at: &At<'a>) -> Read {
        let mut pattern = "^".to_owned();
        for (index, quasi) in one.quasis.iter().enumerate() {
            let text = quasi.value.cooked.unwrap_or(quasi.value.raw);
            escape(text.as_str(), &mut pattern);
            let Some(ty) = one.types.get(index) else {
                continue;
            };
            let typed = self.read(ty, at)?;
            match part(&typed) {
                Some(part) => pattern.push_str(&part),
                None => {
                    let fix = "use `string`, `number`, `boolean` or literals there";
                    let message = "this part of a template is not read";
                    return Err(self.error(at, ty.span(), message, fix));
                }
            }
        }
        pattern.push('$');
        Ok(Typed::new(json!({"type": "string", "pattern": pattern})))
    }
}

/// What a part of a template may be, as a regular expression.
fn part(typed: &Typed) -> Option<String> {
    if let Some(values) = combine::values(&typed.schema) {
        let mut out = "(".to_owned();
        for (index, value) in values.iter().enumerate() {
            out.push_str(if index > 0 { "|" } else { "" });
            match value {
                Json::String(text) => escape(text, &mut out),
                other => escape(&other.to_string(), &mut out),
            }
        }
        out.push(')');
        return Some(out);
    }
    if typed.schema.as_object()?.len() > 2 {
        return None;
    }
    if let Some(inner) = typed.schema.get("pattern").and_then(Json::as_str) {
        let inner = inner.strip_prefix('^')?.strip_suffix('$')?;
        return Some(format!("({inner})"));
    }
    match typed.schema.get("type")?.as_str()? {
        "string" => Some("[\\s\\S]*".to_owned()),
        "number" => Some("-?\\d+(\\.\\d+)?".to_owned()),
        "boolean" => Some("(true|false)".to_owned()),
        _ => None,
    }
}

fn escape(text: &str, out: &mut String) {
    for c in text.chars() {
        if "\\^$.|?*+()[]{}/".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
}
