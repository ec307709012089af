//! Constants that can be read without running anything.

use oxc::ast::ast::{
    ArrayExpressionElement, Expression, ObjectPropertyKind, PropertyKind, TSType, TSTypeName,
    UnaryOperator,
};
use oxc::span::{GetSpan, Span};
use serde_json::{Map, Number, Value as Json, json};

use super::combine::{self, Typed};

/// What is no constant, and where.
pub(super) struct NotLiteral(pub(super) Span);

/// The value of a literal: texts, numbers, booleans, null, and lists and objects of them.
pub(super) fn value(expression: &Expression<'_>) -> Result<Json, NotLiteral> {
    let no = || NotLiteral(expression.span());
    match expression {
        Expression::StringLiteral(one) => Ok(one.value.as_str().into()),
        Expression::BooleanLiteral(one) => Ok(one.value.into()),
        Expression::NullLiteral(_) => Ok(Json::Null),
        Expression::NumericLiteral(one) => number(one.value).ok_or_else(no),
        Expression::TemplateLiteral(one) => one
            .single_quasi()
            .map(|text| text.as_str().into())
            .ok_or_else(no),
        Expression::UnaryExpression(one) => match (one.operator, value(&one.argument)?) {
            (UnaryOperator::UnaryNegation, Json::Number(n)) => {
                n.as_f64().and_then(|n| number(-n)).ok_or_else(no)
            }
            (UnaryOperator::UnaryPlus, n @ Json::Number(_)) => Ok(n),
            _ => Err(no()),
        },
        Expression::ArrayExpression(one) => {
            one.elements
                .iter()
                .map(|element| match element {
                    ArrayExpressionElement::SpreadElement(_)
                    | ArrayExpressionElement::Elision(_) => Err(NotLiteral(element.span())),
                    other => other.as_expression().map_or_else(|| Err(no()), value),
                })
                .collect()
        }
        Expression::ObjectExpression(one) => {
            let mut object = Map::new();
            for property in &one.properties {
                let (key, _, inner) = field(property)?;
                object.insert(key, value(inner)?);
            }
            Ok(Json::Object(object))
        }
        other => value(inner(other).ok_or_else(no)?),
    }
}

/// Key, its place and the value of a plain property.
pub(super) fn field<'e, 'a>(
    property: &'e ObjectPropertyKind<'a>,
) -> Result<(String, Span, &'e Expression<'a>), NotLiteral> {
    let no = || NotLiteral(property.span());
    let ObjectPropertyKind::ObjectProperty(one) = property else {
        return Err(no());
    };
    if one.computed || one.method || one.shorthand || one.kind != PropertyKind::Init {
        return Err(no());
    }
    let key = one.key.static_name().ok_or_else(no)?;
    Ok((key.into_owned(), one.key.span(), &one.value))
}

/// What stands in parentheses, or before `as …`, `satisfies …` or `!`.
pub(super) fn inner<'e, 'a>(expression: &'e Expression<'a>) -> Option<&'e Expression<'a>> {
    match expression {
        Expression::ParenthesizedExpression(one) => Some(&one.expression),
        Expression::TSAsExpression(one) => Some(&one.expression),
        Expression::TSSatisfiesExpression(one) => Some(&one.expression),
        Expression::TSNonNullExpression(one) => Some(&one.expression),
        Expression::TSTypeAssertion(one) => Some(&one.expression),
        _ => None,
    }
}

/// A number as JSON: whole ones without a fraction.
pub(super) fn number(value: f64) -> Option<Json> {
    if value.fract() == 0.0 && value.abs() < 9_007_199_254_740_992.0 {
        return Some(Json::from(value as i64));
    }
    Number::from_f64(value).map(Json::Number)
}

/// The type of a constant, as `typeof` gives it.
pub(super) fn type_of(expression: &Expression<'_>) -> Result<Typed, NotLiteral> {
    match expression {
        Expression::TSAsExpression(one) if is_const(&one.type_annotation) => {
            value(&one.expression).map(|value| Typed::new(exact(value)))
        }
        Expression::ParenthesizedExpression(_) | Expression::TSSatisfiesExpression(_) => {
            inner(expression).map_or(Err(NotLiteral(expression.span())), type_of)
        }
        Expression::ArrayExpression(_) | Expression::ObjectExpression(_) => {
            value(expression).map(|value| Typed::new(wide(value)))
        }
        _ => value(expression).map(|value| Typed::new(combine::literal(value))),
    }
}

fn is_const(annotation: &TSType<'_>) -> bool {
    matches!(annotation, TSType::TSTypeReference(one)
        if matches!(&one.type_name, TSTypeName::IdentifierReference(id) if id.name == "const"))
}

/// The schema of a value `as const`.
fn exact(value: Json) -> Json {
    match value {
        Json::Array(items) => {
            let count = items.len();
            let items: Vec<Json> = items.into_iter().map(exact).collect();
            json!({"type": "array", "prefixItems": items, "items": false, "minItems": count, "maxItems": count})
        }
        Json::Object(fields) => combine::object(
            fields
                .into_iter()
                .map(|(name, value)| (name, exact(value), false))
                .collect(),
        ),
        other => combine::literal(other),
    }
}

/// The schema of a value that may be changed.
fn wide(value: Json) -> Json {
    match value {
        Json::Array(items) => {
            let item = combine::union(items.into_iter().map(|item| Typed::new(wide(item))));
            json!({"type": "array", "items": item.schema})
        }
        Json::Object(fields) => combine::object(
            fields
                .into_iter()
                .map(|(name, value)| (name, wide(value), false))
                .collect(),
        ),
        Json::Null => json!({ "type": "null" }),
        Json::Bool(_) => json!({ "type": "boolean" }),
        Json::Number(_) => json!({ "type": "number" }),
        Json::String(_) => json!({ "type": "string" }),
    }
}
