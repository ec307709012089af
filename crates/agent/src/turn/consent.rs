//! Whether a call may be made: what the agent says of it, and what a person answered.

use bowline_store::Timestamp;
use serde_json::Value;

use crate::{
    approval::{Approval, Decision},
    definition::Approval as Policy,
};

/// Whether a call may be made.
pub(super) enum Consent {
    /// Yes, with these arguments.
    Given(Value),
    /// It is a question, and this is the answer.
    Answered(String),
    /// No; the model is told why.
    Refused(String),
    /// It was asked for and is not answered; it ends then.
    Open(Timestamp),
    /// It has to be asked for.
    Ask(Value),
}

pub(super) fn consent(
    policy: Option<&Policy>,
    approval: Option<&Approval>,
    arguments: Value,
    question: bool,
) -> Consent {
    let needed = question
        || match policy {
            None | Some(Policy::Never) => false,
            Some(Policy::Required) => true,
            Some(Policy::When(condition)) => condition.holds(&arguments),
        };
    let Some(approval) = approval else {
        return if needed {
            Consent::Ask(arguments)
        } else {
            Consent::Given(arguments)
        };
    };
    // What was asked for stays asked for, also when the agent changed meanwhile.
    let Some(answer) = &approval.answer else {
        return Consent::Open(approval.expires_at);
    };
    match (answer.decision, &answer.text) {
        (Decision::Approve, _) => Consent::Given(answer.arguments.clone().unwrap_or(arguments)),
        (Decision::Answer, Some(text)) => Consent::Answered(text.clone()),
        (Decision::Answer | Decision::Reject | Decision::Expire | Decision::Withdraw, _) => {
            Consent::Refused(answer.refusal(question))
        }
    }
}
