//! The methods that a client may call.

use std::sync::Arc;

use bowline_agent::{
    approval::{Answer, Answered, Decision},
    feed::Offset,
};
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use super::failed;
use crate::server::{
    App, Refusal, Scope,
    conversation::{Target, deliver, history, parse, stream},
};

/// One call of one client.
pub(super) struct Call {
    pub(super) app: App,
    pub(super) target: Arc<Target>,
    pub(super) id: String,
    pub(super) replies: mpsc::Sender<Value>,
}

impl Call {
    /// Does what is asked, and answers.
    pub(super) async fn run(self, method: &str, args: Vec<Value>) {
        let outcome = tokio::select! {
            outcome = self.answer(method, args) => outcome,
            // Nobody is there to be answered.
            () = self.replies.closed() => return,
        };
        let frame = match outcome {
            Ok(result) => json!({
                "type": "rpc", "id": self.id, "success": true, "result": result, "done": true,
            }),
            Err(refusal) if refusal.status().is_server_error() => {
                tracing::error!(error = %refusal, code = refusal.code(), method, "a call failed");
                failed(&self.id, "something went wrong in the server")
            }
            Err(refusal) => failed(&self.id, &refusal.to_string()),
        };
        let _ = self.replies.send(frame).await;
    }

    async fn answer(&self, method: &str, args: Vec<Value>) -> Result<Value, Refusal> {
        let mut args = args.into_iter();
        let first = args.next().unwrap_or_default();
        let second = args.next().unwrap_or_default();
        match method {
            "send" => self.send(first, second).await,
            "ask" => self.ask(first, second).await,
            "abort" => self.abort(&first).await,
            "history" => self.history(&first).await,
            "approvals" => self.approvals().await,
            "approve" => self.decide(Decision::Approve, &first, &second).await,
            "reject" => self.decide(Decision::Reject, &first, &second).await,
            "answer" => self.decide(Decision::Answer, &first, &second).await,
            _ => {
                let method = method.escape_debug();
                Err(Refusal::InvalidRequest(format!(
                    "Method {method} does not exist"
                )))
            }
        }
    }

    /// `send(message, {idempotencyKey?, uid?, initialData?})`: the receipt. A message is a text, or an
    /// object as the conversation protocol has it.
    async fn send(&self, message: Value, options: Value) -> Result<Value, Refusal> {
        self.target.require(Scope::Send)?;
        let accepted = deliver(&self.app, &self.target, parse(whole(message, options)?)?).await?;
        let mut receipt = json!({
            "submissionId": accepted.receipt.submission_id,
            "acceptedAt": accepted.receipt.accepted_at,
            "offset": accepted.offset,
            "uid": accepted.uid,
        });
        if accepted.receipt.deduplicated {
            receipt["deduplicated"] = Value::Bool(true);
        }
        Ok(receipt)
    }

    /// `ask(message, options)`: sends, and streams the chunks of the conversation until the message is
    /// settled; the result is its outcome with the text of the answer.
    async fn ask(&self, message: Value, options: Value) -> Result<Value, Refusal> {
        let mut receipt = self.send(message, options).await?;
        let submission = receipt["submissionId"].as_str().unwrap_or_default();
        let submission = submission.to_owned();
        let offset = receipt["offset"].as_str().and_then(Offset::parse);
        let service = self.app.service();
        let reply = service.reply(&self.target.agent, &self.target.id, &submission);
        let streaming = stream(
            &self.app,
            &self.target,
            offset.unwrap_or(Offset::START),
            |chunk| {
                let frame = json!({
                    "type": "rpc", "id": self.id, "success": true, "result": chunk, "done": false,
                });
                let settles = chunk["type"] == "submission-settled"
                    && chunk["submissionId"].as_str() == Some(&submission);
                let replies = self.replies.clone();
                async move { replies.send(frame).await.is_ok() && !settles }
            },
        );
        let (reply, streamed) = tokio::join!(reply, streaming);
        streamed?;
        let reply = reply?;
        receipt["outcome"] = json!(reply.outcome);
        receipt["text"] = json!(reply.text);
        if let Some(error) = reply.error {
            receipt["error"] = json!(error);
        }
        Ok(receipt)
    }

    /// `abort(submissionId?)`: ends one, or all that is open.
    async fn abort(&self, submission: &Value) -> Result<Value, Refusal> {
        self.target.require(Scope::Send)?;
        // Whoever meant one must not end all.
        let submission = text(submission, "a submission")?;
        let there = self.app.store().head(&self.target.actor).await?.is_some();
        let (agent, id) = (&self.target.agent, &self.target.id);
        let service = self.app.service();
        let aborted = there && service.abort(agent, id, submission).await?;
        Ok(json!({"aborted": aborted}))
    }

    /// `history({limit?, before?})`: as the conversation protocol has it.
    async fn history(&self, page: &Value) -> Result<Value, Refusal> {
        self.target.require(Scope::Read)?;
        let before = text(field(page, "before")?, "`before`")?;
        let limit = match field(page, "limit")? {
            Value::Null => None,
            limit => {
                let number = limit.as_u64().and_then(|limit| usize::try_from(limit).ok());
                let what = || Refusal::InvalidRequest("`limit` is a number".to_owned());
                Some(number.ok_or_else(what)?)
            }
        };
        history(&self.app, &self.target, limit, before).await
    }

    /// `approvals()`: those that wait.
    async fn approvals(&self) -> Result<Value, Refusal> {
        self.target.require(Scope::Read)?;
        let (agent, id) = (&self.target.agent, &self.target.id);
        let approvals = self.app.service().approvals(agent, id).await?;
        let open: Vec<_> = approvals
            .into_iter()
            .filter(|one| one.answer.is_none())
            .collect();
        Ok(json!(open))
    }

    /// `approve(approvalId, {reason?, arguments?})`, `reject(approvalId, reason or {reason?, rollback?})`, and
    /// `answer(approvalId, text)` for a question.
    async fn decide(
        &self,
        decision: Decision,
        approval: &Value,
        more: &Value,
    ) -> Result<Value, Refusal> {
        self.target.require(Scope::Send)?;
        let (agent, id) = (&self.target.agent, &self.target.id);
        let known = self.app.service().approvals(agent, id).await?;
        let wanted = text(approval, "an approval")?.unwrap_or_default();
        // An id of another conversation is none here.
        if !known.iter().any(|one| one.approval_id == wanted) {
            let what = "nothing in this conversation waits for this approval";
            return Err(crate::Error::failure("approval_not_found", what, "").into());
        }
        let (said, more) = match more {
            Value::String(said) => (Some(said.as_str()), &Value::Null),
            more => (None, more),
        };
        let reason = text(field(more, "reason")?, "`reason`")?;
        let (reason, said) = match decision {
            Decision::Answer => (reason, said.or(text(field(more, "text")?, "`text`")?)),
            Decision::Approve | Decision::Reject | Decision::Expire | Decision::Withdraw => {
                (said.or(reason), None)
            }
        };
        let rollback = match field(more, "rollback")? {
            Value::Null => false,
            Value::Bool(rollback) => *rollback,
            _ => {
                let what = "`rollback` is true or false";
                return Err(Refusal::InvalidRequest(what.to_owned()));
            }
        };
        let answered = Answered {
            approval_id: wanted.to_owned(),
            answer: Answer {
                decision,
                reason: reason.map(str::to_owned),
                arguments: more.get("arguments").cloned(),
                text: said.map(str::to_owned),
                rollback,
            },
        };
        let (_, submission) = self.app.service().answer(answered).await?;
        Ok(json!({"submissionId": submission}))
    }
}

/// An argument that is a text, or not given.
fn text<'a>(value: &'a Value, what: &str) -> Result<Option<&'a str>, Refusal> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text)),
        _ => Err(Refusal::InvalidRequest(format!("{what} is a text"))),
    }
}

/// A field of an argument that is an object, or not given.
fn field<'a>(value: &'a Value, name: &str) -> Result<&'a Value, Refusal> {
    match value {
        Value::Null => Ok(value),
        Value::Object(fields) => Ok(fields.get(name).unwrap_or(&Value::Null)),
        _ => {
            let what = format!("`{name}` is a field of an object");
            Err(Refusal::InvalidRequest(what))
        }
    }
}

/// A message together with its options, as the body of a POST has them.
fn whole(message: Value, options: Value) -> Result<Value, Refusal> {
    let mut fields = match message {
        Value::String(body) => {
            let mut fields = Map::new();
            fields.insert("kind".to_owned(), json!("user"));
            fields.insert("body".to_owned(), Value::String(body));
            fields
        }
        Value::Object(fields) => fields,
        _ => {
            return Err(Refusal::InvalidRequest(
                "a message is a text or an object".to_owned(),
            ));
        }
    };
    for key in ["idempotencyKey", "uid", "initialData"] {
        field(&options, key)?;
        if let Some(value) = options.get(key) {
            fields
                .entry(key.to_owned())
                .or_insert_with(|| value.clone());
        }
    }
    Ok(Value::Object(fields))
}
