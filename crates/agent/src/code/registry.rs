//! What a run of code may call.

use std::{collections::BTreeSet, sync::Arc};

use bowline_sandbox::isolate::{Bindings, Value};
use serde_json::{Map, Value as Json};

use super::{
    CODEMODE, CodeError, TOOLS,
    own::{self, OwnTools},
};
use crate::{
    binding::{Binding, Method, State},
    definition::{Approval as Policy, Definition, SandboxKind},
    render::Rendered,
    tool::{Mounted, script::Script},
};

/// The namespaces of an agent, each with its methods.
pub(crate) struct Registry {
    bindings: Vec<Arc<dyn Binding>>,
    snippets: Vec<super::snippet::Snippet>,
    /// The durable ones of the agent's tools, by method.
    durable: Vec<(String, Arc<Script>, Mounted)>,
    /// What the agent's `approvals` name: a tool, or `binding.method`.
    asks: BTreeSet<String>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.bindings.iter().map(|one| one.name()).collect();
        f.debug_tuple("Registry").field(&names).finish()
    }
}

/// The methods of `codemode` that the host answers; `run` and `step` are code.
const DISCOVERY: [&str; 2] = ["search", "describe"];

/// Namespaces with the names of their methods, as they are written down with a run.
pub(crate) type Spaces = Vec<(String, Vec<String>)>;

impl Registry {
    /// # Errors
    ///
    /// When two have the same name, or a name cannot be one.
    pub(crate) fn new(
        bindings: Vec<Arc<dyn Binding>>,
        snippets: Vec<super::snippet::Snippet>,
    ) -> Result<Self, CodeError> {
        let registry = Self {
            bindings,
            snippets,
            durable: Vec::new(),
            asks: BTreeSet::new(),
        };
        let reserved = registry.bindings.iter().any(|one| one.name() == CODEMODE);
        if reserved {
            let what =
                format!("a binding is named `{CODEMODE}`, which has its own meaning; rename it");
            return Err(CodeError::Binding(what));
        }
        bind(&registry.spaces())?;
        Ok(registry)
    }

    /// What an agent has: its tools, and what its program binds.
    pub(crate) fn of(rendered: &Rendered, own: &[Mounted]) -> Result<Self, CodeError> {
        let mut bindings: Vec<Arc<dyn Binding>> = vec![Arc::new(OwnTools::new(own.to_vec()))];
        bindings.extend(given(rendered));
        let definition = &rendered.definition;
        let mut registry = Self::new(bindings, definition.snippets.clone())?;
        let durable = definition.scripts.iter().filter(|one| one.policy.durable);
        registry.durable = durable
            .filter_map(|script| {
                let name = &script.spec.name;
                let mounted = own.iter().find(|tool| tool.name() == name)?;
                Some((own::identifier(name), Arc::clone(script), mounted.clone()))
            })
            .collect();
        let asks = definition.approvals.iter();
        registry.asks = asks
            .filter(|(_, policy)| **policy != Policy::Never)
            .map(|(name, _)| {
                let whole = path(TOOLS, &own::identifier(name));
                if registry.has(&whole) {
                    whole
                } else {
                    name.clone()
                }
            })
            .collect();
        Ok(registry)
    }

    /// The durable tool in TypeScript that this is: it runs within the run that calls it.
    pub(crate) fn durable(
        &self,
        namespace: &str,
        method: &str,
    ) -> Option<(&Arc<Script>, &Mounted)> {
        let mut found = self.durable.iter().filter(|_| namespace == TOOLS);
        let (_, script, mounted) = found.find(|(name, ..)| name == method)?;
        Some((script, mounted))
    }

    /// Whether a person is, or may be, asked before a call.
    pub(crate) fn may_ask(&self, namespace: &str, method: &Method) -> bool {
        method.approval || self.asks.contains(&path(namespace, &method.name))
    }

    /// The same without its tools: what a tool in TypeScript may call.
    pub(crate) fn without_tools(rendered: &Rendered) -> Result<Self, CodeError> {
        Self::new(given(rendered), Vec::new())
    }

    pub(crate) fn bindings(&self) -> &[Arc<dyn Binding>] {
        &self.bindings
    }

    pub(crate) fn snippets(&self) -> &[super::snippet::Snippet] {
        &self.snippets
    }

    /// All names.
    pub(crate) fn spaces(&self) -> Spaces {
        let own = |binding: &Arc<dyn Binding>| {
            let methods = binding.methods().iter().map(|one| one.name.clone());
            (binding.name().to_owned(), methods.collect())
        };
        let discovery = DISCOVERY.map(str::to_owned).to_vec();
        let codemode = (CODEMODE.to_owned(), discovery);
        self.bindings.iter().map(own).chain([codemode]).collect()
    }

    pub(crate) fn find(
        &self,
        namespace: &str,
        method: &str,
    ) -> Option<(&Arc<dyn Binding>, &Method)> {
        let binding = self.bindings.iter().find(|one| one.name() == namespace)?;
        let method = binding.methods().iter().find(|one| one.name == method)?;
        Some((binding, method))
    }

    /// Whether `approvals` may name this: `binding.method`.
    pub(crate) fn has(&self, path: &str) -> bool {
        path.split_once('.')
            .is_some_and(|(namespace, method)| self.find(namespace, method).is_some())
    }
}

/// What an agent has besides its tools: its files, and what its program binds.
fn given(rendered: &Rendered) -> Vec<Arc<dyn Binding>> {
    let mut bindings: Vec<Arc<dyn Binding>> = Vec::new();
    if rendered.definition.sandbox == SandboxKind::Workspace {
        bindings.push(Arc::new(State::new()));
    }
    bindings.extend(rendered.bindings.iter().cloned());
    bindings
}

/// The names as an isolate binds them.
pub(crate) fn bind(spaces: &Spaces) -> Result<Bindings, CodeError> {
    let mut bindings = Bindings::none();
    for (namespace, methods) in spaces {
        bindings = bindings
            .with(namespace, methods)
            .map_err(|error| CodeError::Binding(error.to_string()))?;
    }
    Ok(bindings)
}

/// `binding.method`.
pub(crate) fn path(namespace: &str, method: &str) -> String {
    format!("{namespace}.{method}")
}

/// The name under which `approvals` speak of a method: a tool's own, or `binding.method`; and what people
/// see it called.
pub(crate) fn said<'a>(
    definition: &'a Definition,
    namespace: &str,
    method: &str,
) -> Option<&'a str> {
    let whole = path(namespace, method);
    let names = definition.approvals.keys().chain(definition.tools.iter());
    let names = names.map(String::as_str);
    names
        .into_iter()
        .find(|name| *name == whole || (namespace == TOOLS && own::identifier(name) == method))
}

/// What a person reads of a call: a tool's own name, or `binding.method`.
pub(crate) fn shown(definition: &Definition, namespace: &str, method: &str) -> String {
    match (said(definition, namespace, method), namespace) {
        (Some(name), _) => name.to_owned(),
        (None, TOOLS) => method.to_owned(),
        (None, _) => path(namespace, method),
    }
}

/// Whether consent is needed for a method, by the agent and then by the method itself.
pub(crate) fn policy<'a>(
    definition: &'a Definition,
    namespace: &str,
    method: &Method,
) -> Option<&'a Policy> {
    static REQUIRED: Policy = Policy::Required;
    said(definition, namespace, &method.name)
        .and_then(|name| definition.approvals.get(name))
        .or_else(|| method.approval.then_some(&REQUIRED))
}

/// The arguments as one JSON object, for people and for conditions: the argument itself where it is the
/// only parameter and an object, else by the names of the parameters.
pub(crate) fn named(method: &Method, arguments: &[Value]) -> Json {
    if let ([_], [only @ Value::Object(_)]) = (method.parameters.as_slice(), arguments) {
        return only.to_json();
    }
    let mut object = Map::new();
    for (at, argument) in arguments.iter().enumerate() {
        let name = method.parameters.get(at);
        let name = name.map_or_else(|| at.to_string(), |parameter| parameter.name.clone());
        object.insert(name, argument.to_json());
    }
    Json::Object(object)
}

/// The arguments that a person changed: the other way round.
pub(crate) fn positional(method: &Method, arguments: &Json) -> Vec<Value> {
    let Json::Object(object) = arguments else {
        return vec![Value::from(arguments.clone())];
    };
    let names = method.parameters.iter().map(|one| one.name.as_str());
    let by_name = !object.is_empty()
        && object
            .keys()
            .all(|key| names.clone().any(|name| name == key));
    // An object that is the only argument may have a property that is named as the parameter is.
    let is_object = |parameter: &crate::binding::Parameter| parameter.schema["type"] == "object";
    match method.parameters.as_slice() {
        [only] if !by_name || is_object(only) => vec![Value::from(arguments.clone())],
        parameters => parameters
            .iter()
            .map(|one| {
                object
                    .get(&one.name)
                    .cloned()
                    .map_or(Value::Undefined, Value::from)
            })
            .collect(),
    }
}
