//! `[bindings.NAME]`: services over HTTP that the code of agents may call.

use std::collections::BTreeMap;
use std::time::Duration;

use bowline_agent::OnCrash;
use bowline_agent::definition::document::Node;
use bowline_agent::definition::{Fault, FaultKind, allow_list};
use bowline_sandbox::egress::{Allow, EgressLimits};
use bowline_sandbox::isolate::Bindings;

/// One `[bindings.NAME]`.
#[derive(Clone, Debug, PartialEq)]
pub struct BindingSettings {
    /// `description`: one line for the declarations. Default: the title of the document.
    pub description: Option<String>,
    /// `openapi`: a document with the operations of the service.
    pub document: Option<Document>,
    /// `base_url`: where paths start. Default: the first server of the document, or the first host.
    pub base_url: Option<String>,
    /// `hosts`: what may be asked. Default: the host of `base_url`, or of the document's server.
    pub hosts: Allow,
    /// `auth`: the credential, attached here.
    pub auth: Option<Auth>,
    /// `effect`: what becomes of a call that acts and was cut by a crash. Default `unknown`.
    pub effect: OnCrash,
    /// `examples`: operations are answered with the examples of the document, and nothing is sent.
    pub examples: bool,
    /// `timeout` and `max_response_mib`.
    pub limits: EgressLimits,
}

/// Where an OpenAPI document is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// A file, relative to the project.
    File(String),
    /// A URL, read when an agent that has the binding starts.
    Url(String),
}

/// How a service knows who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auth {
    /// How the secret is sent.
    pub kind: AuthKind,
    /// The variable with the secret, or its key in the secrets file.
    pub env: String,
}

/// How a secret is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthKind {
    /// `Authorization: Bearer …`
    Bearer,
    /// `Authorization: Basic …`; the secret is the password of this user, or `user:password` itself.
    Basic(Option<String>),
    /// A header of this name.
    Header(String),
    /// A parameter of the query with this name.
    Query(String),
}

const KEYS: [&str; 9] = [
    "description",
    "openapi",
    "base_url",
    "hosts",
    "auth",
    "effect",
    "examples",
    "timeout",
    "max_response_mib",
];
/// Names of bindings that every agent may have.
const TAKEN: [&str; 4] = ["state", "tools", "codemode", "web"];

/// The global of a binding.
pub(crate) fn global(name: &str) -> String {
    name.replace('-', "_")
}

pub(super) fn read(node: &Node) -> Result<BTreeMap<String, BindingSettings>, Fault> {
    let mut found = BTreeMap::new();
    for (name, line, node) in node.entries("bindings")?.iter() {
        let named = Bindings::none().with(&global(name), ["request"]);
        if TAKEN.contains(&name) || named.is_err() {
            return Err(Fault::new(
                FaultKind::InvalidValue,
                Some(line),
                format!("`{name}` cannot name a binding"),
                "use letters, digits and `_`, and no name that code has already",
            ));
        }
        found.insert(name.to_owned(), one(name, line, node)?);
    }
    Ok(found)
}

fn one(name: &str, line: u32, node: &Node) -> Result<BindingSettings, Fault> {
    let keys = node.table(name, &KEYS)?;
    let text = |key: &str| -> Result<Option<String>, Fault> {
        let text = keys.get(key).map(|node| node.line_of_text(key));
        Ok(text.transpose()?.map(str::to_owned))
    };
    let document = text("openapi")?.map(|place| {
        if place.starts_with("https://") || place.starts_with("http://") {
            Document::Url(place)
        } else {
            Document::File(place)
        }
    });
    let hosts = keys.get("hosts").map(allow_list).transpose()?;
    let hosts = hosts.unwrap_or_default();
    let base_url = text("base_url")?;
    if document.is_none() && base_url.is_none() && hosts.is_empty() {
        return Err(Fault::new(
            FaultKind::MissingKey,
            Some(line),
            format!("`[bindings.{name}]` says neither `openapi` nor `hosts`"),
            "add `openapi = \"FILE\"`, or `hosts = [\"api.example.com\"]`",
        ));
    }
    let mut limits = EgressLimits::default();
    if let Some(node) = keys.get("timeout") {
        let (least, most) = (Duration::from_millis(100), Duration::from_secs(600));
        limits.time = node.duration("timeout", least, most)?;
    }
    if let Some(node) = keys.get("max_response_mib") {
        limits.response = node.count("max_response_mib", 1, 256)? << 20;
    }
    let effect = match keys.get("effect") {
        None => OnCrash::Unknown,
        Some(node) => match node.word("effect", &["retry", "unknown", "ask"])? {
            "retry" => OnCrash::Retry,
            "ask" => OnCrash::Ask,
            _ => OnCrash::Unknown,
        },
    };
    let examples = match keys.get("examples") {
        None => false,
        Some(node) => node.bool("examples")?,
    };
    if examples && document.is_none() {
        return Err(Fault::new(
            FaultKind::MissingKey,
            Some(line),
            format!("`[bindings.{name}]` has `examples` and no document that gives them"),
            "add `openapi = \"FILE\"`, or remove `examples`",
        ));
    }
    Ok(BindingSettings {
        examples,
        description: text("description")?,
        document,
        base_url,
        hosts,
        auth: keys.get("auth").map(auth).transpose()?,
        effect,
        limits,
    })
}

pub(super) fn auth(node: &Node) -> Result<Auth, Fault> {
    let keys = node.table("auth", &["bearer", "basic", "header", "query", "env"])?;
    let env = keys.require(
        "env",
        "name the variable with the secret, as in `env = \"TOKEN\"`",
    )?;
    let mut kinds = Vec::new();
    for (key, _, node) in keys.iter() {
        kinds.push(match key {
            "header" => AuthKind::Header(node.line_of_text(key)?.to_owned()),
            "query" => AuthKind::Query(node.line_of_text(key)?.to_owned()),
            "bearer" if node.bool(key)? => AuthKind::Bearer,
            "basic" => match node.as_bool() {
                Some(true) => AuthKind::Basic(None),
                Some(false) => continue,
                None => AuthKind::Basic(Some(node.line_of_text(key)?.to_owned())),
            },
            _ => continue,
        });
    }
    let wanted =
        "one of `bearer = true`, `basic = \"USER\"`, `header = \"NAME\"`, `query = \"NAME\"`";
    let (Some(kind), None) = (kinds.pop(), kinds.pop()) else {
        return Err(node.wants("auth", wanted));
    };
    Ok(Auth {
        kind,
        env: env.line_of_text("env")?.to_owned(),
    })
}
