//! The final answer of an agent that owes a value: JSON that fits its `result`.

use std::collections::BTreeMap;

use bowline_runtime::Failure;
use serde_json::Value;

use crate::{
    conversation::{Conversation, EntryBody},
    record::{Fact, Signal},
    tool::validate::Validator,
};

/// The name of the failure, and of the signal that tells a model what is wrong with its answer.
fn code() -> &'static str {
    "result_invalid"
}

/// How often a model is told, for one submission, before the submission fails.
const TOLD: usize = 2;

/// What is wrong with an answer, as the model is told it; nothing when it is a value that fits.
pub(super) fn problem(schema: &Value, text: &str) -> Option<String> {
    let value: Value = match serde_json::from_str(text.trim()) {
        Ok(value) => value,
        Err(error) => {
            return Some(format!(
                "The final answer must be one JSON value and nothing else, without a code fence: {error}."
            ));
        }
    };
    // What cannot be compiled was refused when the agent was loaded.
    let validator = Validator::new(&value_schema(schema)).ok()?;
    let wrapped = serde_json::json!({ "result": value });
    validator.validate("result", &wrapped).err()
}

/// The schema of an object with the value in it: a result may be of any type, arguments are objects.
pub(crate) fn value_schema(schema: &Value) -> Value {
    serde_json::json!({"type": "object", "properties": {"result": schema}, "required": ["result"]})
}

/// Tells the model what is wrong, or gives up.
pub(super) fn tell(
    conversation: &Conversation,
    submission: &str,
    problem: String,
    message_id: String,
    parent_id: Option<String>,
) -> Result<Fact, Failure> {
    let told = conversation.entries.iter().rev();
    let told = told.take_while(|entry| entry.submission.as_deref() == Some(submission));
    let times = told.filter(
        |entry| matches!(&entry.body, EntryBody::Signal(signal) if signal.signal_type == code()),
    );
    if times.count() >= TOLD {
        let first = problem.lines().next().unwrap_or_default().to_owned();
        return Err(Failure::new(
            code(),
            format!("the answer does not fit the agent's `result`: {first}"),
            "simplify the schema or say more about it in the instructions",
        ));
    }
    Ok(Fact::Signal(Signal {
        message_id,
        parent_id,
        signal_type: code().to_owned(),
        content: problem,
        attributes: BTreeMap::new(),
    }))
}
