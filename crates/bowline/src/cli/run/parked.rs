//! A run that waits for a person: asking on a terminal, naming the command elsewhere.

use std::io::{BufRead as _, Write as _};

use bowline_agent::approval::{Answer, Answered, Approval, Decision};
use serde_json::json;

use super::Ready;
use crate::{
    cli::terminal::{clean, one_line},
    error::Error,
};

/// What a person said at the question.
pub(super) enum Said {
    /// Yes or no.
    Decided(Decision),
    /// Nothing: the run stays parked.
    Later,
}

impl Ready {
    /// Shows the call with its full arguments, and asks. Only on a terminal.
    pub(super) async fn ask(&self, approval: &Approval) -> Result<Said, Error> {
        let terminal = self.terminal;
        terminal.always(question(approval));
        let typed = tokio::task::spawn_blocking(|| {
            // A question that cannot be written is not answered either.
            let _ = write!(
                std::io::stderr(),
                "Approve this call? [y]es, [n]o, [l]ater: "
            );
            let mut line = String::new();
            std::io::stdin().lock().read_line(&mut line).map(|_| line)
        });
        let typed = typed.await.ok().and_then(Result::ok).unwrap_or_default();
        Ok(match typed.trim().to_lowercase().as_str() {
            "y" | "yes" => Said::Decided(Decision::Approve),
            "n" | "no" => Said::Decided(Decision::Reject),
            _ => Said::Later,
        })
    }

    /// Hands the answer over; the run goes on.
    pub(super) async fn decide(
        &self,
        approval: &Approval,
        decision: Decision,
    ) -> Result<(), Error> {
        let answer = Answer {
            decision,
            reason: None,
            arguments: None,
        };
        let approval_id = approval.approval_id.clone();
        self.service
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
            terminal.say(question(approval));
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
fn question(approval: &Approval) -> String {
    let arguments = serde_json::to_string_pretty(&approval.arguments).unwrap_or_default();
    let (name, until) = (one_line(&approval.tool_name), approval.expires_at);
    format!(
        "{name} waits for approval, until {until}, with:\n{}",
        clean(&arguments)
    )
}
