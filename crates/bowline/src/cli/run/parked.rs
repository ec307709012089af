//! A run that waits for a person: asking on a terminal, naming the command elsewhere.

use bowline_agent::approval::{Answer, Approval, Question};
use serde_json::json;

use super::Ready;
use crate::{
    cli::{
        prompt::{self, Typed},
        signals::{Signals, Stop},
        terminal::{clean, one_line},
    },
    error::Error,
};

/// What a person said at the question.
pub(super) enum Said {
    /// Yes, no, or an answer.
    Decided(Answer),
    /// Nothing: the run stays parked.
    Later,
    /// To stop: ctrl-C, or somebody else.
    Stop(Stop),
}

impl Ready {
    /// Shows the call with its full arguments, and asks until it is understood. Only on a terminal.
    pub(super) async fn ask(
        &self,
        approval: &Approval,
        signals: &mut Signals,
    ) -> Result<Said, Error> {
        let terminal = self.terminal;
        terminal.always(wanted(approval));
        loop {
            let prompt = match &approval.question {
                None => "Approve this call? [y]es, [n]o, [l]ater: ",
                Some(_) => "Your answer (nothing for later): ",
            };
            let typed = match prompt::ask(prompt, signals).await? {
                Typed::Line(typed) => typed,
                Typed::Nothing | Typed::Leave => return Ok(Said::Later),
                Typed::Stop(stop) => return Ok(Said::Stop(stop)),
            };
            if typed.is_empty() {
                return Ok(Said::Later);
            }
            let Some(question) = &approval.question else {
                match typed.to_lowercase().as_str() {
                    "y" | "yes" => return Ok(Said::Decided(Answer::approve(None))),
                    "n" | "no" => return Ok(Said::Decided(Answer::reject(None))),
                    "l" | "later" => return Ok(Said::Later),
                    _ => continue,
                }
            };
            match question.resolve(&typed) {
                Ok(text) => return Ok(Said::Decided(Answer::text(text))),
                Err(why) => terminal.always(one_line(&why)),
            }
        }
    }

    /// Names the commands that answer, for whoever reads this.
    pub(super) fn name_commands(&self, waiting: &[Approval]) {
        if self.terminal.json {
            for approval in waiting {
                // Whether this can be read is no reason to stop: the run is parked all the same.
                let line = json!({"type": "approval-requested", "approval": approval});
                let _ = self.terminal.json(&line);
            }
        }
        for approval in waiting {
            let id = &approval.approval_id;
            let terminal = self.terminal;
            terminal.say(wanted(approval));
            if approval.question.is_some() {
                terminal.say(format_args!(
                    "to answer: bowline answer {id} ANSWER{}",
                    self.places
                ));
                continue;
            }
            terminal.say(format_args!(
                "to approve: bowline approve {id}{}",
                self.places
            ));
            terminal.say(format_args!(
                "to reject:  bowline reject {id}{}",
                self.places
            ));
        }
    }
}

/// What is asked.
fn wanted(approval: &Approval) -> String {
    let until = approval.expires_at;
    if let Some(question) = &approval.question {
        return format!("a question, until {until}:\n{}", asked(question));
    }
    let arguments = serde_json::to_string_pretty(&approval.arguments).unwrap_or_default();
    let name = one_line(&approval.tool_name);
    format!(
        "{name} waits for approval, until {until}, with:\n{}",
        clean(&arguments)
    )
}

/// A question with its choices, one a line.
pub(crate) fn asked(question: &Question) -> String {
    let mut text = clean(question.text.trim());
    for (number, choice) in (1..).zip(&question.choices) {
        text.push_str(&format!("\n  {number}. {}", one_line(&choice.label)));
        if let Some(description) = &choice.description {
            text.push_str(&format!(": {}", one_line(description)));
        }
    }
    text
}
