//! A run that waits for a person: asking on a terminal, naming the command elsewhere.

use std::io::{BufRead as _, Write as _};

use bowline_agent::approval::{Answer, Answered, Approval, Question};
use serde_json::json;

use super::Ready;
use crate::{
    cli::terminal::{clean, one_line},
    error::Error,
};

/// What a person said at the question.
pub(super) enum Said {
    /// Yes, no, or an answer.
    Decided(Answer),
    /// Nothing: the run stays parked.
    Later,
}

impl Ready {
    /// Shows the call with its full arguments, and asks. Only on a terminal.
    pub(super) async fn ask(&self, approval: &Approval) -> Result<Said, Error> {
        let terminal = self.terminal;
        terminal.always(wanted(approval));
        let Some(question) = &approval.question else {
            let typed = typed("Approve this call? [y]es, [n]o, [l]ater: ").await;
            return Ok(match typed.to_lowercase().as_str() {
                "y" | "yes" => Said::Decided(Answer::approve(None)),
                "n" | "no" => Said::Decided(Answer::reject(None)),
                _ => Said::Later,
            });
        };
        loop {
            let typed = typed("Your answer (nothing for later): ").await;
            if typed.is_empty() {
                return Ok(Said::Later);
            }
            match question.resolve(&typed) {
                Ok(text) => return Ok(Said::Decided(Answer::text(text))),
                Err(why) => terminal.always(one_line(&why)),
            }
        }
    }

    /// Hands the answer over; the run goes on.
    pub(super) async fn decide(&self, approval: &Approval, answer: Answer) -> Result<(), Error> {
        let approval_id = approval.approval_id.clone();
        self.hand
            .answer(Answered {
                approval_id,
                answer,
            })
            .await?;
        Ok(())
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

/// Asks for a line, on a thread of its own.
async fn typed(prompt: &'static str) -> String {
    let typed = tokio::task::spawn_blocking(move || {
        // A question that cannot be written is not answered either.
        let _ = write!(std::io::stderr(), "{prompt}");
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line).map(|_| line)
    });
    let typed = typed.await.ok().and_then(Result::ok).unwrap_or_default();
    typed.trim().to_owned()
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
