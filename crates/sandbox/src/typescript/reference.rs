//! Types by name: those of the files, type parameters and those that TypeScript brings along.

use oxc::ast::ast::{
    TSEnumDeclaration, TSIndexedAccessType, TSMappedType, TSMappedTypeModifierOperator, TSType,
    TSTypeName, TSTypeOperatorOperator, TSTypeParameterDeclaration, TSTypeParameterInstantiation,
    TSTypeQuery, TSTypeQueryExprName, TSTypeReference,
};
use oxc::span::{GetSpan, Span};
use serde_json::{Value as Json, json};

use super::combine::{self, Typed};
use super::doc::Doc;
use super::graph::{Found, Type};
use super::literal;
use super::schema::{At, Open, Read, Reader};

impl<'a> Reader<'_, 'a> {
    pub(super) fn reference(&self, one: &'a TSTypeReference<'a>, at: &At<'a>) -> Read {
        self.named(&one.type_name, one.type_arguments.as_deref(), one.span, at)
    }

    fn named(
        &self,
        name: &TSTypeName<'a>,
        arguments: Option<&'a TSTypeParameterInstantiation<'a>>,
        span: Span,
        at: &At<'a>,
    ) -> Read {
        match name {
            TSTypeName::IdentifierReference(id) => {
                let name = id.name.as_str();
                if let Some(typed) = at.given.get(name) {
                    self.charge(at, span, combine::size(&typed.schema))?;
                    return Ok(typed.clone());
                }
                match self.graph.find_type(at.file, name) {
                    Some(found) => self.found(found, name, arguments, span, at),
                    None => self.builtin(name, arguments, span, at),
                }
            }
            TSTypeName::QualifiedName(both) => {
                let member = both.right.name.as_str();
                let TSTypeName::IdentifierReference(left) = &both.left else {
                    return Err(self.unknown(&span_text(self, span, at), span, at));
                };
                let name = left.name.as_str();
                match self.graph.find_type(at.file, name) {
                    Some(Found::Namespace(file)) => {
                        let found = self.graph.find_exported(file, member);
                        self.found(found, member, arguments, span, at)
                    }
                    Some(Found::Types(file, types)) => match types.as_slice() {
                        [Type::Enum(one, _)] => self.enum_member(one, member, file, span, at),
                        _ => Err(self.unknown(&format!("{name}.{member}"), span, at)),
                    },
                    Some(Found::Missing) | None => {
                        Err(self.unknown(&format!("{name}.{member}"), span, at))
                    }
                }
            }
            TSTypeName::ThisExpression(_) => Err(self.unknown("this", span, at)),
        }
    }

    fn unknown(&self, name: &str, span: Span, at: &At<'a>) -> super::SourceError {
        let fix = "declare it in this file, or import it from `lib`";
        self.error(
            at,
            span,
            format!("the type `{name}` is not known here"),
            fix,
        )
    }

    fn found(
        &self,
        found: Found<'a>,
        name: &str,
        arguments: Option<&'a TSTypeParameterInstantiation<'a>>,
        span: Span,
        at: &At<'a>,
    ) -> Read {
        let (file, types) = match found {
            Found::Types(file, types) => (file, types),
            Found::Namespace(_) => {
                let message = format!("`{name}` is a whole file, not a type");
                return Err(self.error(at, span, message, "write `name.Type`"));
            }
            Found::Missing => {
                let message = format!("the file that is imported exports no type `{name}`");
                return Err(self.error(at, span, message, "export it there, or correct the name"));
            }
        };
        if let Some(Type::Class) = types.first() {
            let message = format!("`{name}` is a class, and JSON has no classes");
            return Err(self.error(at, span, message, "use an interface with its fields"));
        }
        let mut given = Vec::new();
        for argument in arguments.iter().flat_map(|all| &all.params) {
            given.push(self.read(argument, at)?);
        }
        let key = format!(
            "{file}:{name}<{}>",
            given
                .iter()
                .map(|typed| format!("{}{}", typed.schema, typed.undefined))
                .collect::<String>()
        );
        if let Some(reference) = self.circle(&key, name) {
            return Ok(Typed::new(reference));
        }
        self.open.borrow_mut().push(Open { key, name: None });
        let inside = At {
            depth: at.depth,
            ..At::top(file)
        };
        let read = self.declared(&types, &given, span, &inside);
        let opened = self.open.borrow_mut().pop().and_then(|open| open.name);
        let typed = read?;
        match opened {
            None => Ok(typed),
            Some(name) => {
                let reference = json!({ "$ref": format!("#/$defs/{name}") });
                if leads_to(&typed.schema, &reference) {
                    let message = format!("the type `{name}` is itself");
                    let fix = "put it into a property or a list of itself";
                    return Err(self.error(at, span, message, fix));
                }
                self.defs.borrow_mut().insert(name, typed.schema);
                Ok(Typed {
                    schema: reference,
                    undefined: typed.undefined,
                })
            }
        }
    }

    /// A reference to a type that is being read right now.
    fn circle(&self, key: &str, name: &str) -> Option<Json> {
        let mut open = self.open.borrow_mut();
        let taken: Vec<String> = open
            .iter()
            .filter_map(|one| one.name.clone())
            .chain(self.defs.borrow().keys().cloned())
            .collect();
        let one = open.iter_mut().find(|one| one.key == key)?;
        let name = one.name.get_or_insert_with(|| {
            let mut unique = name.to_owned();
            let mut count = 1;
            while taken.contains(&unique) {
                count += 1;
                unique = format!("{name}{count}");
            }
            unique
        });
        Some(json!({ "$ref": format!("#/$defs/{name}") }))
    }

    fn declared(&self, types: &[Type<'a>], given: &[Typed], span: Span, at: &At<'a>) -> Read {
        let mut whole: Option<Json> = None;
        for one in types {
            let part = match *one {
                Type::Alias(alias, start) => {
                    let at = self.bind(alias.type_parameters.as_deref(), given, at)?;
                    let typed = self.read(&alias.type_annotation, &at)?;
                    let schema = Doc::before(&self.graph.files[at.file], start).apply(
                        self.graph,
                        at.file,
                        typed.schema,
                    )?;
                    return Ok(Typed {
                        schema,
                        undefined: typed.undefined,
                    });
                }
                Type::Enum(one, start) => {
                    let schema = self.enumeration(one, at)?;
                    let doc = Doc::before(&self.graph.files[at.file], start);
                    doc.apply(self.graph, at.file, schema)?
                }
                Type::Interface(one, start) => {
                    let at = self.bind(one.type_parameters.as_deref(), given, at)?;
                    let mut own = self.members(&one.body.body, &at)?;
                    for base in &one.extends {
                        let arguments = base.type_arguments.as_deref();
                        let typed = self.named(&base.type_name, arguments, base.span, &at)?;
                        if !combine::is_object(&typed.schema) {
                            let message = "an interface can extend only an object";
                            return Err(self.error(&at, base.span, message, "use `&`"));
                        }
                        let mut schema = typed.schema;
                        if let Some(object) = schema.as_object_mut() {
                            object.remove("description");
                        }
                        own = combine::extend(schema, own);
                    }
                    let doc = Doc::before(&self.graph.files[at.file], start);
                    doc.apply(self.graph, at.file, own)?
                }
                Type::Class => continue,
            };
            whole = Some(match whole {
                None => part,
                Some(before) => combine::intersection(vec![before, part]),
            });
        }
        match whole {
            Some(schema) => Ok(Typed::new(schema)),
            None => Err(self.error(at, span, "a class is no type of JSON", "use an interface")),
        }
    }

    /// The type parameters with their arguments, or their defaults.
    fn bind(
        &self,
        parameters: Option<&'a TSTypeParameterDeclaration<'a>>,
        given: &[Typed],
        at: &At<'a>,
    ) -> Read<At<'a>> {
        let mut inside = at.clone();
        for (index, parameter) in parameters.iter().flat_map(|all| &all.params).enumerate() {
            let name = parameter.name.name.as_str();
            let typed = match (given.get(index), &parameter.default) {
                (Some(typed), _) => typed.clone(),
                (None, Some(default)) => self.read(default, &inside)?,
                (None, None) => {
                    let message = format!("the type parameter `{name}` has no argument");
                    let fix = "write it in `<…>`, or give the parameter a default";
                    return Err(self.error(&inside, parameter.span, message, fix));
                }
            };
            inside = inside.with(name, typed);
        }
        Ok(inside)
    }

    fn enum_values(
        &self,
        one: &'a TSEnumDeclaration<'a>,
        at: &At<'a>,
    ) -> Read<Vec<(String, Json)>> {
        let mut values: Vec<(String, Json)> = Vec::new();
        let mut next = Some(0.0);
        for member in &one.body.members {
            let value = match &member.initializer {
                Some(init) => literal::value(init).ok(),
                None => next.and_then(literal::number),
            };
            let Some(value @ (Json::String(_) | Json::Number(_))) = value else {
                let message = format!("the value of `{}` is computed", member.id.static_name());
                let fix = "write it as a text or a number";
                return Err(self.error(at, member.span, message, fix));
            };
            next = value.as_f64().map(|value| value + 1.0);
            values.push((member.id.static_name().as_str().to_owned(), value));
        }
        Ok(values)
    }

    fn enumeration(&self, one: &'a TSEnumDeclaration<'a>, at: &At<'a>) -> Read<Json> {
        let values = self.enum_values(one, at)?;
        self.charge(at, one.span, values.len())?;
        if values.is_empty() {
            let message = format!("the enum `{}` has no members", one.id.name);
            return Err(self.error(at, one.span, message, "add one"));
        }
        let all = values.into_iter().map(|(_, value)| combine::literal(value));
        Ok(combine::union(all.map(Typed::new)).schema)
    }

    fn enum_member(
        &self,
        one: &'a TSEnumDeclaration<'a>,
        member: &str,
        file: usize,
        span: Span,
        at: &At<'a>,
    ) -> Read {
        let inside = At::top(file);
        let values = self.enum_values(one, &inside)?;
        match values.into_iter().find(|(name, _)| name == member) {
            Some((_, value)) => Ok(Typed::new(combine::literal(value))),
            None => Err(self.unknown(&format!("{}.{member}", one.id.name), span, at)),
        }
    }

    /// `keyof T`: the names of its properties.
    pub(super) fn key_of(&self, ty: &'a TSType<'a>, at: &At<'a>) -> Read {
        let typed = self.read(ty, at)?;
        let schema = self.resolved(typed.schema);
        match combine::names(&schema) {
            Some(names) if !names.is_empty() => Ok(Typed::new(combine::one_of(
                names.into_iter().map(Json::from).collect(),
            ))),
            _ if schema.get("additionalProperties").is_some() => Ok(Typed::of("string")),
            _ => {
                let message = "`keyof` needs an object with properties";
                Err(self.error(at, ty.span(), message, "write the names as literals"))
            }
        }
    }

    /// What a reference to a definition leads to, when that is known already.
    fn resolved(&self, schema: Json) -> Json {
        let name = schema
            .get("$ref")
            .and_then(Json::as_str)
            .and_then(|name| name.strip_prefix("#/$defs/"));
        name.and_then(|name| self.defs.borrow().get(name).cloned())
            .unwrap_or(schema)
    }

    /// `T["key"]` and `T[number]`.
    pub(super) fn indexed(&self, one: &'a TSIndexedAccessType<'a>, at: &At<'a>) -> Read {
        let of = self.read(&one.object_type, at)?.schema;
        let of = self.resolved(of);
        let index = self.read(&one.index_type, at)?.schema;
        let fail = |message: &str| {
            let fix = "name a property that the type has, or write the type itself";
            Err(self.error(at, one.index_type.span(), message, fix))
        };
        if index == json!({ "type": "number" }) {
            if let Some(Json::Array(items)) = of.get("prefixItems") {
                return Ok(combine::union(items.iter().cloned().map(Typed::new)));
            }
            return match of.get("items") {
                Some(items) => Ok(Typed::new(items.clone())),
                None => fail("only a list has `[number]`"),
            };
        }
        if index == json!({ "type": "string" }) {
            return match of.get("additionalProperties") {
                Some(others) => Ok(Typed::new(others.clone())),
                None => fail("only a record has `[string]`"),
            };
        }
        let Some(keys) = combine::values(&index) else {
            return fail("this index is not read");
        };
        let mut parts = Vec::new();
        for key in keys {
            let found = match &key {
                Json::String(name) => of.get("properties").and_then(|all| all.get(name)),
                Json::Number(at) => at
                    .as_u64()
                    .and_then(|at| usize::try_from(at).ok())
                    .and_then(|at| of.get("prefixItems")?.get(at)),
                _ => None,
            };
            let Some(found) = found else {
                return fail(&format!("the type has no property {key}"));
            };
            self.charge(at, one.span, combine::size(found))?;
            let undefined = key
                .as_str()
                .is_some_and(|name| !combine::is_required(&of, name));
            parts.push(Typed {
                schema: found.clone(),
                undefined,
            });
        }
        Ok(combine::union(parts))
    }

    /// `{ [K in Keys]: T }`.
    pub(super) fn mapped(&self, one: &'a TSMappedType<'a>, at: &At<'a>) -> Read {
        if let Some(name) = &one.name_type {
            let message = "`as` in a mapped type is not read";
            return Err(self.error(at, name.span(), message, "write the properties out"));
        }
        // `keyof T` keeps what is optional in T.
        let source = match &one.constraint {
            TSType::TSTypeOperatorType(of) if of.operator == TSTypeOperatorOperator::Keyof => {
                Some(self.resolved(self.read(&of.type_annotation, at)?.schema))
            }
            _ => None,
        };
        let keys = self.read(&one.constraint, at)?.schema;
        let Some(annotation) = &one.type_annotation else {
            return Err(self.error(at, one.span, "the mapped type has no type", "write one"));
        };
        let name = one.key.name.as_str();
        if keys == json!({ "type": "string" }) {
            let inside = at.with(name, Typed::of("string"));
            let value = self.json(annotation, &inside)?;
            return Ok(Typed::new(
                json!({"type": "object", "additionalProperties": value}),
            ));
        }
        let keys = combine::values(&keys)
            .filter(|keys| keys.iter().all(Json::is_string))
            .ok_or_else(|| {
                let message = "the keys of this mapped type are not read";
                self.error(
                    at,
                    one.constraint.span(),
                    message,
                    "use literals, `string` or `keyof`",
                )
            })?;
        let mut properties = Vec::new();
        for key in keys {
            let Some(text) = key.as_str().map(str::to_owned) else {
                continue;
            };
            let inside = at.with(name, Typed::new(combine::literal(key)));
            let mut typed = self.read(annotation, &inside)?;
            let was = source
                .as_ref()
                .is_some_and(|source| !combine::is_required(source, &text));
            let optional = match one.optional {
                Some(TSMappedTypeModifierOperator::True | TSMappedTypeModifierOperator::Plus) => {
                    true
                }
                Some(TSMappedTypeModifierOperator::Minus) => false,
                None => was || typed.undefined,
            };
            typed.undefined = false;
            properties.push((
                text,
                self.defined(typed, annotation.span(), &inside)?,
                optional,
            ));
        }
        Ok(Typed::new(combine::object(properties)))
    }

    /// `typeof CONSTANT`.
    pub(super) fn query(&self, one: &'a TSTypeQuery<'a>, at: &At<'a>) -> Read {
        let fix = "use a constant of this file, or write the type";
        let TSTypeQueryExprName::IdentifierReference(id) = &one.expr_name else {
            return Err(self.error(at, one.span, "this `typeof` is not read", fix));
        };
        let name = id.name.as_str();
        let Some((file, init)) = self.graph.find_const(at.file, name) else {
            let message = format!("`{name}` is no constant that can be read");
            return Err(self.error(at, one.span, message, fix));
        };
        let typed = literal::type_of(init).map_err(|found| {
            let message = format!("the value of `{name}` is not a literal");
            self.error(&At::top(file), found.0, message, fix)
        })?;
        self.charge(at, one.span, combine::size(&typed.schema))?;
        Ok(typed)
    }

    /// The types that TypeScript brings along.
    fn builtin(
        &self,
        name: &str,
        arguments: Option<&'a TSTypeParameterInstantiation<'a>>,
        span: Span,
        at: &At<'a>,
    ) -> Read {
        let given: Vec<&'a TSType<'a>> =
            arguments.iter().flat_map(|all| all.params.iter()).collect();
        match (name, given.as_slice()) {
            ("Array" | "ReadonlyArray", [item]) => {
                let item = self.json(item, at)?;
                Ok(Typed::new(json!({"type": "array", "items": item})))
            }
            ("Record", [keys, value]) => self.record(keys, value, span, at),
            ("Readonly", [of]) => self.read(of, at),
            ("Promise" | "Awaited" | "PromiseLike", [of]) if self.out => self.read(of, at),
            ("NonNullable", [of]) => {
                let typed = self.read(of, at)?;
                let null = Typed {
                    schema: json!({ "type": "null" }),
                    undefined: true,
                };
                Ok(combine::exclude(typed, &null, false))
            }
            ("Exclude" | "Extract", [of, other]) => {
                let (of, other) = (self.read(of, at)?, self.read(other, at)?);
                Ok(combine::exclude(of, &other, name == "Extract"))
            }
            ("Partial" | "Required", [of]) => {
                let schema = self.object_of(of, at)?;
                Ok(Typed::new(combine::require(schema, name == "Required")))
            }
            ("Pick" | "Omit", [of, keys]) => self.picked(of, keys, name == "Pick", at),
            ("Date", []) if self.out => {
                Ok(Typed::new(json!({"type": "string", "format": "date-time"})))
            }
            ("Uint8Array" | "ArrayBuffer", _) if self.out => {
                Ok(Typed::new(json!({"type": "string", "format": "binary"})))
            }
            ("Uppercase" | "Lowercase" | "Capitalize" | "Uncapitalize", [_]) => {
                Ok(Typed::of("string"))
            }
            ("Object", []) => Ok(Typed::of("object")),
            _ => Err(self.refused(name, span, at)),
        }
    }

    fn refused(&self, name: &str, span: Span, at: &At<'a>) -> super::SourceError {
        let fix = match name {
            "Date" => "use `string` with `@format date-time`",
            "Uint8Array" | "ArrayBuffer" | "Buffer" | "Blob" | "File" => {
                "use `string` and say in the comment that it is base64"
            }
            "Map" | "WeakMap" => "use `Record<string, …>`",
            "Set" | "WeakSet" | "Iterable" => "use an array, with `@uniqueItems` where it matters",
            "URL" => "use `string` with `@format uri`",
            "RegExp" => "use `string`",
            "Promise" | "PromiseLike" | "Awaited" => "take the value itself",
            "Function" => "remove it, or take what it would return",
            "Error" => "take its message as `string`",
            "String" | "Number" | "Boolean" => "write it with a small letter",
            "BigInt" => "use `number`, or `string` for more than 2^53",
            "Array" | "ReadonlyArray" | "Record" | "Partial" | "Required" | "Readonly" | "Pick"
            | "Omit" | "Exclude" | "Extract" | "NonNullable" => "check the types within `<…>`",
            _ => return self.unknown(name, span, at),
        };
        self.error(at, span, format!("`{name}` cannot become JSON here"), fix)
    }

    fn record(&self, keys: &'a TSType<'a>, value: &'a TSType<'a>, span: Span, at: &At<'a>) -> Read {
        let names = self.read(keys, at)?.schema;
        let mut typed = self.read(value, at)?;
        let optional = typed.undefined;
        typed.undefined = false;
        let value = self.defined(typed, value.span(), at)?;
        if let Some(names) = combine::values(&names) {
            self.charge(at, span, names.len() * combine::size(&value))?;
            let properties = names.into_iter().map(|name| {
                let name = match name {
                    Json::String(name) => name,
                    other => other.to_string(),
                };
                (name, value.clone(), optional)
            });
            return Ok(Typed::new(combine::object(properties.collect())));
        }
        match names.get("type").and_then(Json::as_str) {
            Some("string") => {
                let mut schema = json!({"type": "object", "additionalProperties": value});
                if let (Some(pattern), Some(object)) =
                    (names.get("pattern"), schema.as_object_mut())
                {
                    object.insert("propertyNames".to_owned(), json!({ "pattern": pattern }));
                }
                Ok(Typed::new(schema))
            }
            Some("number") => Ok(Typed::new(json!({
                "type": "object",
                "additionalProperties": value,
                "propertyNames": { "pattern": "^-?\\d+(\\.\\d+)?$" },
            }))),
            _ => {
                let message = "the keys of a record are text or literals";
                Err(self.error(at, keys.span(), message, "use `Record<string, …>`"))
            }
        }
    }

    fn object_of(&self, ty: &'a TSType<'a>, at: &At<'a>) -> Read<Json> {
        let schema = self.resolved(self.read(ty, at)?.schema);
        if combine::is_object(&schema) {
            return Ok(schema);
        }
        let message = "only an object can be changed in this way";
        Err(self.error(at, ty.span(), message, "write the type out"))
    }

    fn picked(&self, of: &'a TSType<'a>, keys: &'a TSType<'a>, pick: bool, at: &At<'a>) -> Read {
        let schema = self.object_of(of, at)?;
        let listed = self.read(keys, at)?;
        let Some(listed) = combine::values(&listed.schema) else {
            let message = "the names are no literals";
            return Err(self.error(at, keys.span(), message, "write them as `\"a\" | \"b\"`"));
        };
        if pick {
            let known = combine::names(&schema).unwrap_or_default();
            let missing = listed
                .iter()
                .filter_map(Json::as_str)
                .find(|name| !known.iter().any(|one| one == name));
            if let Some(name) = missing {
                let message = format!("there is no property `{name}` to pick");
                return Err(self.error(at, keys.span(), message, "correct the name"));
            }
        }
        let chosen = |name: &str| listed.iter().any(|one| one == name);
        Ok(Typed::new(combine::filter(schema, |name| {
            chosen(name) == pick
        })))
    }
}

/// Whether a schema comes back to a reference without going into a value.
fn leads_to(schema: &Json, reference: &Json) -> bool {
    schema == reference
        || ["anyOf", "allOf"].iter().any(|keyword| {
            schema
                .get(keyword)
                .and_then(Json::as_array)
                .is_some_and(|all| all.iter().any(|one| leads_to(one, reference)))
        })
}

fn span_text(reader: &Reader<'_, '_>, span: Span, at: &At<'_>) -> String {
    let text = reader.graph.files[at.file].text;
    text.get(span.start as usize..span.end as usize)
        .unwrap_or("")
        .to_owned()
}
