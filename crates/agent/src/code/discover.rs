//! What code finds out by itself: `codemode.search` and `codemode.describe`, and what the model is told
//! in the description of the tool.

use std::fmt::Write as _;

use bowline_sandbox::isolate::{Thrown, Value};
use serde_json::{Value as Json, json};

use super::{CODEMODE, Registry, registry::path};
use crate::binding::{Binding, Method, declare};

/// Most results of one search.
const MOST_RESULTS: usize = 50;
/// Declarations stand in the description of the tool as far as they fit into so many bytes.
const TOLD: usize = 8_000;
/// Most bytes of the names of a namespace whose declarations are longer.
const NAMES: usize = 2_000;
/// Longest query, in bytes; the rest is not looked at.
const LONGEST_QUERY: usize = 1_000;

/// Answers `codemode.*`.
pub(crate) struct Discovery<'a>(pub(crate) &'a Registry);

/// Something that can be found.
struct Candidate<'a> {
    path: String,
    connector: &'a str,
    method: &'a str,
    description: &'a str,
    approval: bool,
    kind: &'static str,
}

impl Discovery<'_> {
    /// The answer to a call, without any effect.
    pub(crate) fn answer(&self, method: &str, arguments: &[Value]) -> Result<Value, Thrown> {
        let Some(text) = arguments.first().and_then(Value::as_str) else {
            let what = format!("{CODEMODE}.{method} takes a string");
            return Err(Thrown::new("TypeError", what));
        };
        match method {
            "search" => Ok(Value::from(self.search(text))),
            "describe" => Ok(Value::from(self.describe(text))),
            other => {
                let what = format!("{CODEMODE}.{other} is not a function");
                Err(Thrown::new("TypeError", what))
            }
        }
    }

    fn candidates(&self) -> impl Iterator<Item = Candidate<'_>> {
        let methods = self.0.bindings().iter().flat_map(move |binding| {
            let of = move |method| candidate(self.0, &**binding, method);
            binding.methods().iter().map(of)
        });
        let snippets = self.0.snippets().iter().map(|snippet| Candidate {
            path: snippet.name.clone(),
            connector: "",
            method: &snippet.name,
            description: &snippet.description,
            approval: false,
            kind: "snippet",
        });
        methods.chain(snippets)
    }

    fn search(&self, query: &str) -> Json {
        let mut query = query;
        if query.len() > LONGEST_QUERY {
            query = &query[..query.floor_char_boundary(LONGEST_QUERY)];
        }
        let wanted = tokens(query);
        let mut found: Vec<_> = self
            .candidates()
            .filter_map(|one| Some((score(&one, &wanted)?, one)))
            .collect();
        found.sort_by(|(a, left), (b, right)| {
            b.total_cmp(a).then_with(|| left.path.cmp(&right.path))
        });
        let total = found.len();
        found.truncate(MOST_RESULTS);
        let results: Vec<_> = found.iter().map(|(score, one)| told(one, *score)).collect();
        json!({"results": results, "total": total, "truncated": total > MOST_RESULTS})
    }

    fn describe(&self, target: &str) -> Json {
        let snippet = self.0.snippets().iter().find(|one| one.name == target);
        if let Some(snippet) = snippet {
            let types = format!("await {CODEMODE}.run({:?}, input?)", snippet.name);
            return json!({"path": target, "kind": "snippet", "description": snippet.description, "types": types});
        }
        let named = |name: &str| self.0.bindings().iter().find(|one| one.name() == name);
        if let Some(binding) = named(target) {
            return json!({"path": target, "kind": "connector", "description": binding.description(), "types": declare::declarations(&**binding)});
        }
        if let Some((namespace, name)) = target.split_once('.')
            && let Some((binding, method)) = self.0.find(namespace, name)
        {
            return json!({
                "path": target, "kind": "method", "description": method.description,
                "requiresApproval": self.0.may_ask(namespace, method), "types": declare::declaration(&**binding, name),
            });
        }
        json!({"path": target, "types": format!("\"{target}\" not found.")})
    }
}

fn candidate<'a>(
    registry: &Registry,
    binding: &'a dyn Binding,
    method: &'a Method,
) -> Candidate<'a> {
    Candidate {
        path: path(binding.name(), &method.name),
        connector: binding.name(),
        method: &method.name,
        description: &method.description,
        approval: registry.may_ask(binding.name(), method),
        kind: "method",
    }
}

fn told(one: &Candidate<'_>, score: f64) -> Json {
    let mut told = json!({
        "path": one.path, "connector": one.connector, "method": one.method,
        "description": one.description, "kind": one.kind, "score": score.round(),
    });
    if one.approval {
        told["requiresApproval"] = Json::Bool(true);
    }
    told
}

/// The words of a name or a text, in small letters: `listIssues`, `list_issues` and `list.issues` have
/// the same.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut word = String::new();
    let mut small = false;
    for c in text.chars() {
        let breaks = c.is_uppercase() && small;
        if (breaks || !c.is_alphanumeric()) && !word.is_empty() {
            tokens.push(std::mem::take(&mut word));
        }
        if c.is_alphanumeric() {
            word.extend(c.to_lowercase());
        }
        small = c.is_lowercase() || c.is_numeric();
    }
    if !word.is_empty() {
        tokens.push(word);
    }
    tokens
}

/// How well it fits; nothing where it does not.
fn score(one: &Candidate<'_>, wanted: &[String]) -> Option<f64> {
    if wanted.is_empty() {
        return Some(0.0);
    }
    let phrase = wanted.join(" ");
    let fields = [
        (&*one.path, 12.0),
        (one.method, 10.0),
        (one.connector, 8.0),
        (one.description, 5.0),
    ];
    let mut total = 0.0;
    let mut hit = vec![false; wanted.len()];
    let (mut whole, mut first, mut exact) = (false, false, false);
    for (field, weight) in fields {
        let words = tokens(field);
        let text = words.join(" ");
        if text.is_empty() {
            continue;
        }
        let strength = if text == phrase {
            exact |= weight >= 10.0;
            14.0
        } else if text.starts_with(&phrase) {
            9.0
        } else if text.contains(&phrase) {
            6.0
        } else {
            0.0
        };
        whole |= strength > 0.0;
        total += strength * weight;
        for (at, word) in wanted.iter().enumerate() {
            let best = words
                .iter()
                .map(|other| alike(word, other))
                .fold(0.0, f64::max);
            hit[at] |= best > 0.0;
            first |= at == 0
                && best > 0.0
                && words.first().is_some_and(|other| alike(word, other) > 0.0);
            total += best * weight;
        }
    }
    let count = |number: usize| f64::from(u32::try_from(number).unwrap_or(u32::MAX));
    let coverage = count(hit.iter().filter(|hit| **hit).count()) / count(wanted.len());
    let needed = if wanted.len() <= 2 { 1.0 } else { 0.6 };
    if total <= 0.0 || (coverage < needed && !whole) {
        return None;
    }
    total += if coverage >= 1.0 {
        25.0
    } else {
        coverage * 10.0
    };
    total += if first { 8.0 } else { 0.0 };
    total += if exact { 20.0 } else { 0.0 };
    Some(total)
}

fn alike(word: &str, other: &str) -> f64 {
    if word == other {
        4.0
    } else if word.starts_with(other) || other.starts_with(word) {
        2.0
    } else if other.contains(word) {
        1.0
    } else {
        0.0
    }
}

/// What the model is told of code mode: how it works, and what there is.
pub(super) fn instructions(registry: &Registry) -> String {
    let mut text = String::from(
        "Run JavaScript or TypeScript that does the work by calling the functions below. Write an async arrow function and return the result:\n\
        async () => { const text = await tools.read({ path: \"a.txt\" }); return text.length; }\n\n\
        Await every call, and use Promise.all for calls that do not depend on each other. Loop, filter and combine in code, and return only what you need. There is no network, file system or process but through these functions. What console.log prints comes back with the result.\n\n\
        codemode.search(\"words\") finds functions; codemode.describe(\"namespace\") or (\"namespace.function\") gives their TypeScript declarations; codemode.run(\"snippet\", input) runs a snippet that it lists.\n",
    );
    let mut room = TOLD;
    for binding in registry.bindings() {
        let whole = declare::declarations(&**binding);
        if whole.len() <= room {
            room -= whole.len();
            let _ = write!(text, "\n{whole}");
            continue;
        }
        let names: Vec<_> = binding
            .methods()
            .iter()
            .map(|one| one.name.as_str())
            .collect();
        let mut list = names.join(", ");
        if list.len() > NAMES {
            list.truncate(list.floor_char_boundary(NAMES));
            list.push_str(", …");
        }
        let (name, what) = (binding.name(), binding.description());
        let _ = write!(
            text,
            "\n/** {what} Declared by codemode.describe({name:?}). */\ndeclare const {name}: {{ {list} }};\n"
        );
    }
    text
}
