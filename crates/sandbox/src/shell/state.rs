//! What lasts from one command of a conversation to the next.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _, ser::Error as _};
use serde_json::Value;

use crate::workspace::WORKING_DIRECTORY;

/// Version of the serialised form.
const VERSION: u64 = 1;

/// Working directory, variables, functions, aliases and options of a shell between two commands.
/// The default is a shell that has just started, in [`WORKING_DIRECTORY`].
///
/// Serialise it (it is JSON) and keep it in a row to make the shell durable. Cloning is cheap.
#[derive(Debug, Clone, Default)]
pub struct ShellState(pub(crate) Option<Arc<bashkit::ShellState>>);

impl ShellState {
    /// The working directory.
    pub fn cwd(&self) -> &str {
        self.0
            .as_ref()
            .and_then(|state| state.cwd.to_str())
            .unwrap_or(WORKING_DIRECTORY)
    }

    /// True for a shell that has just started.
    pub fn is_new(&self) -> bool {
        self.0.is_none()
    }
}

#[derive(Serialize, Deserialize)]
struct Stored {
    v: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    shell: Option<Value>,
}

impl Serialize for ShellState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let shell = self
            .0
            .as_deref()
            .map(serde_json::to_value)
            .transpose()
            .map_err(S::Error::custom)?;
        Stored {
            v: VERSION,
            shell: shell.map(slim),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ShellState {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let stored = Stored::deserialize(deserializer)?;
        if stored.v != VERSION {
            return Err(D::Error::custom(format!(
                "shell state has version {}, this reads {VERSION}",
                stored.v
            )));
        }
        let shell = stored
            .shell
            .map(serde_json::from_value)
            .transpose()
            .map_err(D::Error::custom)?;
        Ok(Self(shell.map(Arc::new)))
    }
}

/// Leaves out what is made again from the rest: empty maps of defaults stay, parsed functions go
/// where their source is there.
fn slim(mut shell: Value) -> Value {
    let functions = shell.get_mut("functions").and_then(Value::as_object_mut);
    for function in functions
        .into_iter()
        .flat_map(|functions| functions.values_mut())
    {
        if let Some(function) = function
            .as_object_mut()
            .filter(|function| function.contains_key("source"))
        {
            function.remove("ast");
        }
    }
    shell
}

/// Whether two states mean the same to the next command.
pub(crate) fn same(one: &bashkit::ShellState, other: &bashkit::ShellState) -> bool {
    let functions = |state: &bashkit::ShellState| {
        let mut all: Vec<_> = state
            .functions
            .iter()
            .map(|(name, function)| (name.clone(), function.source.clone()))
            .collect();
        all.sort_unstable();
        all
    };
    one.cwd == other.cwd
        && one.env == other.env
        && one.variables == other.variables
        && one.var_attrs == other.var_attrs
        && one.namerefs == other.namerefs
        && one.arrays == other.arrays
        && one.assoc_arrays == other.assoc_arrays
        && one.aliases == other.aliases
        && one.dir_stack == other.dir_stack
        && one.functions.len() == other.functions.len()
        && functions(one) == functions(other)
}

/// Bytes of what a state holds, about.
pub(crate) fn size(state: &bashkit::ShellState) -> usize {
    let pairs = |name: &String, value: &String| name.len() + value.len() + 8;
    let map = |map: &std::collections::HashMap<String, String>| {
        map.iter()
            .map(|(name, value)| pairs(name, value))
            .sum::<usize>()
    };
    let arrays = state.arrays.values().flat_map(|array| array.values());
    let assoc = state.assoc_arrays.values().map(map).sum::<usize>();
    let functions = state.functions.iter().map(|(name, function)| {
        // Where there is no source the parsed form is stored, which is larger.
        name.len() + function.source.as_ref().map_or(4096, |source| source.len())
    });
    map(&state.env)
        + map(&state.variables)
        + map(&state.aliases)
        + arrays.map(|value| value.len() + 8).sum::<usize>()
        + assoc
        + functions.sum::<usize>()
}

/// Drops what belongs to one command only.
pub(crate) fn settle(mut state: bashkit::ShellState) -> bashkit::ShellState {
    for name in [
        "_",
        "BASH_COMMAND",
        "LINENO",
        "SECONDS",
        "RANDOM",
        "SRANDOM",
        "EPOCHSECONDS",
        "EPOCHREALTIME",
    ] {
        state.variables.remove(name);
        state.env.remove(name);
    }
    for name in [
        "PIPESTATUS",
        "BASH_SOURCE",
        "FUNCNAME",
        "BASH_LINENO",
        "BASH_REMATCH",
    ] {
        state.arrays.remove(name);
    }
    state.last_exit_code = 0;
    state.last_bg_pid = None;
    state.traps.clear();
    state
}
