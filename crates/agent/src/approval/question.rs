//! A question that the model asks a person.

use bowline_runtime::effect::Status;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Answer, Decision};

/// Most choices of a question.
pub(crate) const MAX_CHOICES: usize = 20;
/// Longest answer, in bytes.
pub const MAX_ANSWER: usize = 64 * 1024;

/// What a person is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Question {
    /// The question.
    pub text: String,
    /// The answers to choose from; empty when any text is an answer. At most 20.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<Choice>,
    /// Whether another text than one of the choices is an answer.
    pub free_text: bool,
}

/// One answer to choose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Choice {
    /// What is answered when it is chosen.
    pub label: String,
    /// What it means.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// The arguments of `ask_question`.
#[derive(Deserialize)]
struct Arguments {
    question: String,
    #[serde(default)]
    choices: Vec<Choice>,
    free_text: Option<bool>,
}

/// What can be said of an effect that was cut, and what it means.
const VERDICTS: [(&str, &str); 4] = [
    ("again", "make the call again, under the same effect id"),
    ("done", "it was done; go on as if it had returned"),
    ("not done", "it was not done; the model is told"),
    ("unknown", "nobody can say; the model is told"),
];

/// The question what became of an effect that was begun and never heard of again.
pub(crate) fn about_effect(tool: &str) -> Question {
    let choice = |(label, description): (&str, &str)| Choice {
        label: label.to_owned(),
        description: Some(description.to_owned()),
    };
    Question {
        text: format!("A call of {tool} was cut. What became of it?"),
        choices: VERDICTS.map(choice).into(),
        free_text: false,
    }
}

/// How the effect settles after this answer; `None` when the call is made again.
pub(crate) fn verdict(answer: &Answer) -> Option<Status> {
    let given = match answer.decision {
        Decision::Answer => answer.text.as_deref(),
        Decision::Approve | Decision::Reject | Decision::Expire | Decision::Withdraw => None,
    };
    match given {
        Some("again") => None,
        Some("done") => Some(Status::Done),
        Some("not done") => Some(Status::Failed),
        Some(_) | None => Some(Status::Unknown),
    }
}

impl Question {
    /// Reads the arguments of `ask_question`.
    ///
    /// # Errors
    ///
    /// A text for the model.
    pub(crate) fn of(arguments: &Value) -> Result<Self, String> {
        let arguments: Arguments = serde_json::from_value(arguments.clone())
            .map_err(|error| format!("The question cannot be asked: {error}"))?;
        let Arguments {
            question,
            choices,
            free_text,
        } = arguments;
        if question.trim().is_empty() {
            return Err("The question cannot be asked: it is empty.".to_owned());
        }
        let free_text = free_text.unwrap_or(true);
        if !free_text && choices.is_empty() {
            let text = "The question cannot be asked: give choices, or allow free text.";
            return Err(text.to_owned());
        }
        for (index, choice) in choices.iter().enumerate() {
            let same =
                |other: &Choice| other.label.trim().eq_ignore_ascii_case(choice.label.trim());
            if choice.label.trim().is_empty() || choices[..index].iter().any(same) {
                return Err(format!(
                    "The question cannot be asked: the label of choice {} is empty or there twice.",
                    index + 1
                ));
            }
        }
        Ok(Self {
            text: question,
            choices,
            free_text,
        })
    }

    /// The answer that a text stands for: the label of a choice, its number from 1, or the text itself
    /// where any text is an answer.
    ///
    /// # Errors
    ///
    /// What would be an answer, in one line.
    pub fn resolve(&self, text: &str) -> Result<String, String> {
        let text = text.trim();
        let by_label = self
            .choices
            .iter()
            .find(|choice| choice.label.trim().eq_ignore_ascii_case(text));
        let by_number = || {
            let number: usize = text.parse().ok()?;
            self.choices.get(number.checked_sub(1)?)
        };
        if let Some(choice) = by_label.or_else(by_number) {
            return Ok(choice.label.clone());
        }
        if text.is_empty() {
            return Err("the answer is empty".to_owned());
        }
        if text.len() > MAX_ANSWER {
            return Err(format!(
                "the answer is longer than {} KiB",
                MAX_ANSWER >> 10
            ));
        }
        if self.free_text {
            return Ok(text.to_owned());
        }
        let labels: Vec<_> = self
            .choices
            .iter()
            .map(|choice| choice.label.as_str())
            .collect();
        Err(format!("the answer is one of: {}", labels.join(", ")))
    }
}
