//! The script of a scripted model: its YAML form and what is checked when it is read.

use serde::Deserialize;
use serde_json::Value;

use crate::message::Usage;

/// A script file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Script {
    /// What is answered, call by call.
    #[serde(default)]
    pub(super) turns: Vec<Turn>,
    /// What happens when there are more calls than turns.
    #[serde(default)]
    pub(super) at_end: AtEnd,
    /// Other turns for some submissions; the first that matches is taken.
    #[serde(default)]
    pub(super) by_message: Vec<Branch>,
    /// What the conversation is summarised as, the n-th time; the last one repeats.
    #[serde(default = "a_summary")]
    pub(super) summaries: Vec<Turn>,
}

/// What a script without `summaries` says.
fn a_summary() -> Vec<Turn> {
    let text = "The conversation so far, as a script sums it up.".to_owned();
    vec![Turn {
        text,
        ..Turn::default()
    }]
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum AtEnd {
    #[default]
    Error,
    RepeatLast,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Branch {
    /// The text of the submission must match it.
    #[serde(rename = "match")]
    pub(super) pattern: Pattern,
    pub(super) turns: Vec<Turn>,
    /// As the script's own when it is left out.
    pub(super) at_end: Option<AtEnd>,
}

/// One answer.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Turn {
    pub(super) thinking: String,
    pub(super) text: String,
    pub(super) tools: Vec<Tool>,
    pub(super) expect: Option<Expect>,
    pub(super) stream: Pace,
    pub(super) fault: Option<Fault>,
    pub(super) usage: Option<ScriptUsage>,
    pub(super) stop: Option<Stop>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tool {
    pub(super) name: String,
    /// The arguments; a text is sent as it is, so that it may be broken JSON.
    #[serde(default)]
    pub(super) input: Value,
}

/// What the request must look like.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Expect {
    pub(super) last_tool: Option<String>,
    pub(super) matches: Option<Pattern>,
    pub(super) is_error: Option<bool>,
    pub(super) system: Option<Pattern>,
    pub(super) tools: Vec<String>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Pace {
    /// Characters in a piece.
    pub(super) chars: usize,
    /// The wait before each piece.
    pub(super) delay_ms: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            chars: 12,
            delay_ms: 0,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Fault {
    pub(super) kind: FaultKind,
    /// How many characters of thinking, text and arguments arrive first.
    #[serde(default)]
    pub(super) after_chars: usize,
    /// How many tries of the call fail.
    #[serde(default = "one")]
    pub(super) attempts: u32,
    /// What a rate limit asks to wait.
    #[serde(default)]
    pub(super) retry_after_ms: Option<u64>,
}

fn one() -> u32 {
    1
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum FaultKind {
    RateLimit,
    Overloaded,
    Error,
    Cut,
    Stall,
    Network,
    Auth,
    ContextOverflow,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Stop {
    Length,
    Refused,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ScriptUsage {
    input: u64,
    output: u64,
    cache_read: u64,
    cache_write: u64,
}

impl From<ScriptUsage> for Usage {
    fn from(usage: ScriptUsage) -> Self {
        let ScriptUsage {
            input,
            output,
            cache_read,
            cache_write,
        } = usage;
        Self {
            input,
            output,
            cache_read,
            cache_write,
            cache_write_hour: 0,
        }
    }
}

/// A regular expression, compiled when the script is read.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Pattern(regex::Regex);

impl TryFrom<String> for Pattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let compiled = regex::RegexBuilder::new(&text).multi_line(false).build();
        compiled.map(Self).map_err(|error| {
            let why = error.to_string();
            let why = why.lines().last().unwrap_or_default().trim().to_owned();
            format!("`{text}` is not a regular expression: {why}")
        })
    }
}

impl Pattern {
    pub(super) fn is_match(&self, text: &str) -> bool {
        self.0.is_match(text)
    }

    pub(super) fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl Script {
    /// Reads a script.
    ///
    /// # Errors
    ///
    /// One line with the place and what is wrong there.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let script: Self = serde_saphyr::from_str(text).map_err(|error| {
            let place = error.location().map(|at| format!("line {}: ", at.line()));
            let why = error.without_snippet().to_string();
            // The place is said once, in front.
            let why = why.lines().next().unwrap_or_default();
            let why = match why.split_once(" at line ") {
                Some((why, _)) => why,
                None => why,
            };
            format!("{}{why}", place.unwrap_or_default())
        })?;
        if script.turns.is_empty() && script.by_message.is_empty() {
            return Err("there are no `turns`".to_owned());
        }
        let branches = script.by_message.iter().map(|branch| &branch.turns);
        for turn in [&script.turns, &script.summaries]
            .into_iter()
            .chain(branches)
            .flatten()
        {
            if turn.stream.chars == 0 {
                return Err("`stream.chars` must be at least 1".to_owned());
            }
            let bad = turn.tools.iter().find(|tool| {
                !matches!(
                    tool.input,
                    Value::Null | Value::Object(_) | Value::String(_)
                )
            });
            if let Some(tool) = bad {
                return Err(format!(
                    "the `input` of tool `{}` is not a mapping",
                    tool.name
                ));
            }
        }
        Ok(script)
    }
}
