//! The files of a module, and what each declares, imports and exports.

use std::collections::HashMap;

use oxc::allocator::Allocator;
use oxc::ast::ast::{
    BindingPattern, Declaration, ExportDefaultDeclarationKind, Expression, Function,
    ImportDeclarationSpecifier, ModuleExportName, Program, Statement, StringLiteral,
    TSEnumDeclaration, TSInterfaceDeclaration, TSTypeAliasDeclaration, VariableDeclarationKind,
};
use oxc::parser::Parser;
use oxc::span::{GetSpan, SourceType, Span};

use super::{Find, MAX_BYTES, MAX_FILES, SourceError, SourceErrorKind};
use crate::isolate::{Problem, position};

/// The files, the module's own first.
pub(super) struct Graph<'a> {
    pub(super) files: Vec<File<'a>>,
}

/// One file.
pub(super) struct File<'a> {
    pub(super) name: &'a str,
    pub(super) text: &'a str,
    pub(super) program: &'a Program<'a>,
    /// Types by their local names; an interface may be declared in parts.
    pub(super) types: HashMap<&'a str, Vec<Type<'a>>>,
    pub(super) values: HashMap<&'a str, Value<'a>>,
    /// What is imported, by its local name: a file, and what of it.
    imports: HashMap<&'a str, (usize, What<'a>)>,
    exports: HashMap<&'a str, Exported<'a>>,
    stars: Vec<usize>,
}

/// A declared type, and where its statement starts: comments stand before that.
#[derive(Clone, Copy)]
pub(super) enum Type<'a> {
    Alias(&'a TSTypeAliasDeclaration<'a>, u32),
    Interface(&'a TSInterfaceDeclaration<'a>, u32),
    Enum(&'a TSEnumDeclaration<'a>, u32),
    Class,
}

/// A declared value.
#[derive(Clone, Copy)]
pub(super) enum Value<'a> {
    Const(&'a Expression<'a>, u32),
    Variable,
    Function(&'a Function<'a>, u32),
}

/// What an import takes from a file.
#[derive(Clone, Copy)]
enum What<'a> {
    Named(&'a str),
    All,
}

/// What an exported name is.
#[derive(Clone, Copy)]
enum Exported<'a> {
    Local(&'a str),
    From(usize, &'a str),
}

/// What a name of a type leads to.
pub(super) enum Found<'a> {
    Types(usize, Vec<Type<'a>>),
    /// `import * as name`.
    Namespace(usize),
    /// The import leads to a file that exports no such type.
    Missing,
}

impl<'a> Graph<'a> {
    pub(super) fn read(
        allocator: &'a Allocator,
        name: &str,
        find: Find<'_>,
    ) -> Result<Self, SourceError> {
        let mut graph = Self { files: Vec::new() };
        let text = match find(name) {
            Ok(Some(text)) => text,
            Ok(None) => return Err(unread(name, "does not exist".to_owned())),
            Err(why) => return Err(unread(name, why)),
        };
        let mut bytes = 0;
        graph.add(allocator, name, &text, &mut bytes)?;
        let mut next = 0;
        while next < graph.files.len() {
            graph.follow(allocator, next, find, &mut bytes)?;
            next += 1;
        }
        Ok(graph)
    }

    fn add(
        &mut self,
        allocator: &'a Allocator,
        name: &str,
        text: &str,
        bytes: &mut usize,
    ) -> Result<usize, SourceError> {
        *bytes += text.len();
        if *bytes > MAX_BYTES || self.files.len() >= MAX_FILES {
            let message = format!(
                "with this file the module has more than {MAX_FILES} files or {MAX_BYTES} bytes"
            );
            return Err(SourceError {
                message,
                fix: "import less".to_owned(),
                ..unread(name, String::new())
            });
        }
        let text = allocator.alloc_str(text);
        let parsed = Parser::new(allocator, text, SourceType::ts()).parse();
        if let Some(first) = parsed.diagnostics.iter().next() {
            let problem = Problem::new(first);
            let (line, column) = position(text, problem.offset);
            return Err(SourceError {
                kind: SourceErrorKind::Syntax,
                file: name.to_owned(),
                line,
                column,
                message: problem.message,
                fix: "correct it".to_owned(),
            });
        }
        let program: &'a Program<'a> = allocator.alloc(parsed.program);
        let mut file = File {
            name: allocator.alloc_str(name),
            text,
            program,
            types: HashMap::new(),
            values: HashMap::new(),
            imports: HashMap::new(),
            exports: HashMap::new(),
            stars: Vec::new(),
        };
        for statement in &program.body {
            file.statement(statement);
        }
        self.files.push(file);
        Ok(self.files.len() - 1)
    }

    /// Reads what a file imports, and remembers what each name leads to.
    fn follow(
        &mut self,
        allocator: &'a Allocator,
        from: usize,
        find: Find<'_>,
        bytes: &mut usize,
    ) -> Result<(), SourceError> {
        let program = self.files[from].program;
        for statement in &program.body {
            match statement {
                Statement::ImportDeclaration(import) => {
                    let to = self.target(allocator, from, &import.source, find, bytes)?;
                    for specifier in import.specifiers.iter().flatten() {
                        let (local, what) = match specifier {
                            ImportDeclarationSpecifier::ImportSpecifier(one) => {
                                (&one.local, What::Named(export_name(&one.imported)))
                            }
                            ImportDeclarationSpecifier::ImportDefaultSpecifier(one) => {
                                (&one.local, What::Named("default"))
                            }
                            ImportDeclarationSpecifier::ImportNamespaceSpecifier(one) => {
                                (&one.local, What::All)
                            }
                        };
                        self.files[from]
                            .imports
                            .insert(local.name.as_str(), (to, what));
                    }
                }
                Statement::ExportFromDeclaration(export) => {
                    let to = self.target(allocator, from, &export.source, find, bytes)?;
                    for one in &export.specifiers {
                        self.files[from].exports.insert(
                            export_name(&one.exported),
                            Exported::From(to, export_name(&one.local)),
                        );
                    }
                }
                Statement::ExportAllDeclaration(export) => {
                    let to = self.target(allocator, from, &export.source, find, bytes)?;
                    if export.exported.is_none() {
                        self.files[from].stars.push(to);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn target(
        &mut self,
        allocator: &'a Allocator,
        from: usize,
        source: &StringLiteral<'a>,
        find: Find<'_>,
        bytes: &mut usize,
    ) -> Result<usize, SourceError> {
        let specifier = source.value.as_str();
        let fail = |graph: &Self, message: String, fix: &str| {
            graph.error(SourceErrorKind::Import, from, source.span, message, fix)
        };
        if !specifier.starts_with("./") && !specifier.starts_with("../") {
            let message = format!("`{specifier}` is a package, and packages cannot be imported");
            let fix = "import a file such as `../lib/text`, and put what you need there";
            return Err(fail(self, message, fix));
        }
        let Some(path) = beside(self.files[from].name, specifier) else {
            let message = format!("`{specifier}` leads out of the project");
            return Err(fail(self, message, "import a file of the project's `lib`"));
        };
        for name in candidates(&path) {
            if let Some(at) = self.files.iter().position(|file| file.name == name) {
                return Ok(at);
            }
            match find(&name) {
                Ok(Some(text)) => return self.add(allocator, &name, &text, bytes),
                Ok(None) => {}
                Err(why) => {
                    let fix = "import a file of the agent's or the project's `lib`";
                    return Err(fail(self, format!("`{specifier}`: {why}"), fix));
                }
            }
        }
        let message = format!("there is no file `{path}`, also not with `.ts`");
        Err(fail(
            self,
            message,
            "check the path: it starts from the folder of this file",
        ))
    }

    /// An error at a place of a file.
    pub(super) fn error(
        &self,
        kind: SourceErrorKind,
        file: usize,
        span: Span,
        message: impl Into<String>,
        fix: impl Into<String>,
    ) -> SourceError {
        let (line, column) = self.place(file, span);
        SourceError {
            kind,
            file: self.files[file].name.to_owned(),
            line,
            column,
            message: message.into(),
            fix: fix.into(),
        }
    }

    /// Line and column of a place, from 1.
    pub(super) fn place(&self, file: usize, span: Span) -> (u32, u32) {
        position(self.files[file].text, span.start as usize)
    }

    /// What the name of a type leads to in a file; nothing when the file does not know it.
    pub(super) fn find_type(&self, file: usize, name: &str) -> Option<Found<'a>> {
        let here = &self.files[file];
        if let Some(types) = here.types.get(name) {
            return Some(Found::Types(file, types.clone()));
        }
        match *here.imports.get(name)? {
            (to, What::All) => Some(Found::Namespace(to)),
            (to, What::Named(name)) => Some(self.find_exported(to, name)),
        }
    }

    /// The type that a file exports under a name.
    pub(super) fn find_exported(&self, file: usize, name: &str) -> Found<'a> {
        self.exported(file, name, &mut Vec::new())
            .unwrap_or(Found::Missing)
    }

    fn exported(&self, file: usize, name: &str, seen: &mut Vec<usize>) -> Option<Found<'a>> {
        // Exports may lead in a circle; each hop is another file or name, and both are few.
        if seen.len() > MAX_FILES {
            return None;
        }
        seen.push(file);
        let here = &self.files[file];
        match here.exports.get(name) {
            Some(Exported::Local(local)) => {
                if let Some(types) = here.types.get(local) {
                    return Some(Found::Types(file, types.clone()));
                }
                match *here.imports.get(local)? {
                    (to, What::All) => Some(Found::Namespace(to)),
                    (to, What::Named(name)) => self.exported(to, name, seen),
                }
            }
            Some(Exported::From(to, name)) => self.exported(*to, name, seen),
            None => here
                .stars
                .iter()
                .filter(|_| name != "default")
                .find_map(|to| (!seen.contains(to)).then(|| self.exported(*to, name, seen))?),
        }
    }

    /// The constant that a name leads to, and its file.
    pub(super) fn find_const(
        &self,
        file: usize,
        name: &str,
    ) -> Option<(usize, &'a Expression<'a>)> {
        let (mut file, mut name) = (file, name);
        for _ in 0..MAX_FILES {
            let here = &self.files[file];
            if let Some(Value::Const(init, _)) = here.values.get(name) {
                return Some((file, init));
            }
            let next = match here.imports.get(name) {
                Some((to, What::Named(next))) => (*to, *next),
                Some((_, What::All)) | None => return None,
            };
            (file, name) = match self.files[next.0].exports.get(next.1)? {
                Exported::Local(local) => (next.0, *local),
                Exported::From(to, name) => (*to, *name),
            };
        }
        None
    }
}

impl<'a> File<'a> {
    fn statement(&mut self, statement: &'a Statement<'a>) {
        let start = statement.span().start;
        match statement {
            Statement::ExportDeclaration(export) => {
                self.declare(&export.declaration, start, true);
            }
            Statement::ExportNamedDeclaration(export) => {
                for one in &export.specifiers {
                    self.exports.insert(
                        export_name(&one.exported),
                        Exported::Local(export_name(&one.local)),
                    );
                }
            }
            Statement::ExportDefaultDeclaration(export) => match &export.declaration {
                ExportDefaultDeclarationKind::TSInterfaceDeclaration(one) => {
                    let name = one.id.name.as_str();
                    self.types
                        .entry(name)
                        .or_default()
                        .push(Type::Interface(one, start));
                    self.exports.insert("default", Exported::Local(name));
                }
                ExportDefaultDeclarationKind::Identifier(one) => {
                    self.exports
                        .insert("default", Exported::Local(one.name.as_str()));
                }
                _ => {}
            },
            other => {
                if let Some(declaration) = other.as_declaration() {
                    self.declare(declaration, start, false);
                }
            }
        }
    }

    fn declare(&mut self, declaration: &'a Declaration<'a>, start: u32, exported: bool) {
        let mut names: Vec<&'a str> = Vec::new();
        match declaration {
            Declaration::TSTypeAliasDeclaration(one) => {
                names.push(one.id.name.as_str());
                self.add_type(one.id.name.as_str(), Type::Alias(one, start));
            }
            Declaration::TSInterfaceDeclaration(one) => {
                names.push(one.id.name.as_str());
                self.add_type(one.id.name.as_str(), Type::Interface(one, start));
            }
            Declaration::TSEnumDeclaration(one) => {
                names.push(one.id.name.as_str());
                self.add_type(one.id.name.as_str(), Type::Enum(one, start));
            }
            Declaration::ClassDeclaration(one) => {
                if let Some(id) = &one.id {
                    names.push(id.name.as_str());
                    self.add_type(id.name.as_str(), Type::Class);
                }
            }
            Declaration::FunctionDeclaration(one) => {
                if let Some(id) = &one.id {
                    names.push(id.name.as_str());
                    // The signatures of an overloaded function come before its body, which is kept.
                    self.values
                        .insert(id.name.as_str(), Value::Function(one, start));
                }
            }
            Declaration::VariableDeclaration(all) => {
                for one in &all.declarations {
                    let BindingPattern::BindingIdentifier(id) = &one.id else {
                        continue;
                    };
                    names.push(id.name.as_str());
                    let value = match &one.init {
                        Some(init) if all.kind == VariableDeclarationKind::Const => {
                            Value::Const(init, start)
                        }
                        _ => Value::Variable,
                    };
                    self.values.insert(id.name.as_str(), value);
                }
            }
            _ => {}
        }
        if exported {
            for name in names {
                self.exports.insert(name, Exported::Local(name));
            }
        }
    }

    fn add_type(&mut self, name: &'a str, what: Type<'a>) {
        self.types.entry(name).or_default().push(what);
    }

    /// The local name of what is exported as `default`, when that is a name.
    pub(super) fn default_name(&self) -> Option<&'a str> {
        match self.exports.get("default") {
            Some(Exported::Local(name)) => Some(name),
            Some(Exported::From(..)) | None => None,
        }
    }

    /// The name of a value as it stands in the file.
    pub(super) fn text_of(&self, name: &str) -> Option<&'a str> {
        self.values.get_key_value(name).map(|(name, _)| *name)
    }

    /// Whether a local name is exported as itself.
    pub(super) fn exports(&self, name: &str) -> bool {
        matches!(self.exports.get(name), Some(Exported::Local(local)) if *local == name)
    }
}

fn unread(name: &str, why: String) -> SourceError {
    SourceError {
        kind: SourceErrorKind::Import,
        file: name.to_owned(),
        line: 1,
        column: 1,
        message: why,
        fix: "check the file".to_owned(),
    }
}

fn export_name<'a>(name: &ModuleExportName<'a>) -> &'a str {
    match name {
        ModuleExportName::IdentifierName(one) => one.name.as_str(),
        ModuleExportName::IdentifierReference(one) => one.name.as_str(),
        ModuleExportName::StringLiteral(one) => one.value.as_str(),
    }
}

/// The path that a specifier means beside a file; nothing when it leads out.
fn beside(file: &str, specifier: &str) -> Option<String> {
    let mut parts: Vec<&str> = file.split('/').collect();
    parts.pop();
    for part in specifier.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

/// The names under which a path may be found, in the order in which the engine looks for them.
fn candidates(path: &str) -> Vec<String> {
    let ends = ["", ".ts", ".js", ".mts", ".mjs", "/index.ts", "/index.js"];
    let mut names: Vec<String> = ends.iter().map(|end| format!("{path}{end}")).collect();
    if let Some(stem) = path.strip_suffix(".js") {
        names.push(format!("{stem}.ts"));
    }
    names
}
