//! Agents that run on a data directory.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bowline_agent::{
    Agent, Agents, Chunk, Conversation, KIND, Outgoing, actor,
    approval::{self, Answered, Approval},
    census::Tally,
    code::{
        CodeOptions,
        runs::{self, CodeRun},
    },
    conversation::{Compacted, EntryBody, Used},
    live::Observers,
    load, load_after,
    record::Compaction,
    tool::sandbox::HostAccess,
    view,
};
use bowline_model::{Clock, ModelSettings, Models, Secret};
use bowline_runtime::{
    Failure, Outcome, Program, Receipt, Runtime, RuntimeOptions, Settled, Sources, Submission,
    fiber::{Fibers, Handler, Handlers},
    submission,
};
use bowline_store::{ActorId, SqliteOptions, SqliteStore, Store, StoreError, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use crate::{
    error::Error,
    retention::Retention,
    server::{self, App, Settings},
};

/// A data directory, and the agents that will run on it.
#[derive(Debug)]
pub struct Bowline {
    store: Arc<dyn Store>,
    agents: Vec<Agent>,
    models: ModelSettings,
    sources: Sources,
    options: RuntimeOptions,
    retention: Retention,
    host: Option<HostAccess>,
    code: CodeOptions,
    fibers: Vec<(String, Arc<dyn Handler>)>,
}

impl Bowline {
    /// Opens a data directory; it is made when it is not there.
    ///
    /// # Errors
    ///
    /// When another process uses it, or its data is damaged or of a newer version.
    pub fn open(data: impl AsRef<Path>) -> Result<Self, Error> {
        Ok(Self::on(SqliteStore::open(
            data.as_ref(),
            SqliteOptions::default(),
        )?))
    }

    /// Runs on a store that is open already.
    pub fn on(store: Arc<dyn Store>) -> Self {
        let env = |name: &str| std::env::var(name).ok().map(Secret::new);
        Self {
            store,
            agents: Vec::new(),
            models: ModelSettings::new(env, "."),
            sources: Sources::system(),
            options: RuntimeOptions::default(),
            retention: Retention::default(),
            host: None,
            code: CodeOptions::default(),
            fibers: Vec::new(),
        }
    }

    /// The store.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Adds an agent.
    #[must_use]
    pub fn agent(mut self, agent: Agent) -> Self {
        self.agents.push(agent);
        self
    }

    /// Adds what the fibers of a name do: checkpointed tasks that [`Service::fibers`] starts. The name is kept
    /// for as long as fibers of it are open.
    #[must_use]
    pub fn fiber(mut self, name: impl Into<String>, handler: Arc<dyn Handler>) -> Self {
        self.fibers.push((name.into(), handler));
        self
    }

    /// Sets the models and where their keys come from. Default: the environment.
    #[must_use]
    pub fn models(mut self, models: ModelSettings) -> Self {
        self.models = models;
        self
    }

    /// Sets where time, randomness and ids come from. Default: the machine.
    #[must_use]
    pub fn sources(mut self, sources: Sources) -> Self {
        self.sources = sources;
        self
    }

    /// Sets how actors live in memory.
    #[must_use]
    pub fn options(mut self, options: RuntimeOptions) -> Self {
        self.options = options;
        self
    }

    /// Says what agents with `sandbox: {local: …}` need: the helper that confines processes, and what they
    /// must not reach. Default: nothing, and such an agent cannot run.
    #[must_use]
    pub fn host(mut self, access: HostAccess) -> Self {
        self.host = Some(access);
        self
    }

    /// Sets what is deleted when it is old. Default: nothing.
    #[must_use]
    pub fn retention(mut self, retention: Retention) -> Self {
        self.retention = retention;
        self
    }

    /// Sets how code of models and tools is run. Default: an engine that is compiled anew in each process,
    /// when code is run first; with a folder as cache the next process takes milliseconds.
    #[must_use]
    pub fn code(mut self, options: CodeOptions) -> Self {
        self.code = options;
        self
    }

    /// Starts within the current Tokio runtime: what was interrupted goes on, what is due is done,
    /// messages are carried, until [`Service::stop`] or the last clone of the service is dropped.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime.
    pub fn start(self) -> Service {
        let retention = self.retention;
        let service = self.start_alone();
        let (runtime, stop) = (service.runtime.clone(), service.stop.0.clone());
        tokio::spawn(async move {
            tokio::join!(
                runtime.supervise(stop.clone()),
                retention.enforce(&runtime, &stop)
            );
        });
        service
    }

    /// Starts as [`Bowline::start`] does, and gives the routes of the agents, for an `axum` application
    /// that has its own listener: `/agents/**`, `/v1/**` and `/openapi.json`, to be merged and not nested.
    ///
    /// The application lets callers in: a layer of its own around the routes puts an
    /// [`Access`](crate::server::Access) among the extensions of a request, or `settings` has keys.
    /// Without either every request is answered `unauthorized`. Of the settings those count that are not
    /// about connections. Call [`App::stop`] at the end.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime.
    pub fn router(self, settings: Settings) -> (axum::Router, App) {
        let app = App::new(self.start(), settings);
        let (streams, ending) = (app.streams().clone(), app.draining().clone());
        tokio::spawn(async move { streams.supervise(ending).await });
        (server::embedded(app.clone()), app)
    }

    /// Starts without a supervisor, for a process that is there for one conversation: nothing that was
    /// interrupted goes on before [`Service::resume`], [`Service::wake`] or a message, and schedules
    /// fire only in conversations that are awake.
    pub fn start_alone(mut self) -> Service {
        if self.models.clock.now().is_none() {
            let sources = self.sources.clone();
            self.models.clock = Clock::new(move || {
                SystemTime::UNIX_EPOCH + sources.now().since(Timestamp::default())
            });
        }
        let models = Models::new(self.models);
        let mut agents = Agents::with_code(self.agents, models, self.sources.clone(), self.code);
        if let Some(host) = self.host {
            agents = agents.with_host(host);
        }
        let program: Arc<dyn Program> = Arc::new(agents.clone());
        let mut programs = vec![(KIND.to_owned(), program)];
        // Without handlers, fibers of another process are left alone.
        let any = !self.fibers.is_empty();
        let fibers = Handlers::new(self.fibers);
        programs.extend(any.then(|| fibers.program()));
        let runtime = Runtime::new(self.store, self.sources, self.options, programs);
        Service {
            runtime,
            agents,
            fibers,
            stop: Arc::new(StopOnDrop(CancellationToken::new())),
        }
    }
}

/// Running agents. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Service {
    runtime: Runtime,
    agents: Agents,
    fibers: Handlers,
    stop: Arc<StopOnDrop>,
}

/// Tells the supervisor to stop when nobody has the service any more.
#[derive(Debug)]
struct StopOnDrop(CancellationToken);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// How a submission ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reply {
    /// The submission.
    pub submission_id: String,
    /// Completed, failed or aborted.
    pub outcome: Outcome,
    /// The text of the answer; empty when there is none.
    pub text: String,
    /// Why it was not completed.
    pub error: Option<Failure>,
    /// What it used.
    pub used: Used,
}

impl Service {
    /// Sends a message. When this returns, it is durable.
    ///
    /// # Errors
    ///
    /// When the agent cannot run, or the message is refused; nothing is kept then.
    pub async fn send(
        &self,
        agent: &str,
        instance: &str,
        message: Outgoing,
    ) -> Result<Receipt, Error> {
        self.agents.check(agent)?;
        check_instance(instance)?;
        Ok(self
            .runtime
            .submit(&actor(agent, instance), message.into_submission())
            .await?)
    }

    /// Waits for the answer to a submission.
    ///
    /// # Errors
    ///
    /// When there is no such submission, or the process is stopping.
    pub async fn reply(
        &self,
        agent: &str,
        instance: &str,
        submission: &str,
    ) -> Result<Reply, Error> {
        let actor = actor(agent, instance);
        let settled = self.runtime.settled(&actor, submission).await?;
        Ok(reply_to(&**self.store(), &actor, settled).await?)
    }

    /// Sends a message and waits for the answer.
    ///
    /// # Errors
    ///
    /// As [`Service::send`] and [`Service::reply`].
    pub async fn ask(
        &self,
        agent: &str,
        instance: &str,
        message: Outgoing,
    ) -> Result<Reply, Error> {
        let receipt = self.send(agent, instance, message).await?;
        self.reply(agent, instance, &receipt.submission_id).await
    }

    /// Compacts a conversation now, behind what it has open: a summary stands for its beginning from
    /// then on. `None` when there was nothing to summarise.
    ///
    /// # Errors
    ///
    /// When no summary could be had; nothing changes then.
    pub async fn compact(
        &self,
        agent: &str,
        instance: &str,
        instructions: Option<String>,
    ) -> Result<Option<Compaction>, Error> {
        let reply = self
            .ask(agent, instance, Outgoing::compact(instructions))
            .await?;
        if let Some(failure) = reply.error {
            return Err(failure.into());
        }
        let conversation = self.conversation(agent, instance).await?;
        let made = conversation.compactions.into_iter().rev();
        let ours = |one: &Compacted| one.submission.as_deref() == Some(&reply.submission_id);
        Ok(made.into_iter().find(ours).map(|one| one.record))
    }

    /// Asks to abort one submission, or all of the conversation. `false` when there was none.
    ///
    /// # Errors
    ///
    /// When the store fails.
    pub async fn abort(
        &self,
        agent: &str,
        instance: &str,
        submission: Option<&str>,
    ) -> Result<bool, Error> {
        Ok(self
            .runtime
            .abort(&actor(agent, instance), submission)
            .await?)
    }

    /// Answers an approval or a question, once, however often it is sent; the run goes on in this process. Returns
    /// the actor and the submission that waited.
    ///
    /// # Errors
    ///
    /// When there is no such approval, or it was answered differently before.
    pub async fn answer(&self, answered: Answered) -> Result<(ActorId, String), Error> {
        let found = approval::find(&**self.store(), &answered.approval_id).await?;
        let Some((actor, approval)) = found else {
            let what = format!("nothing waits for approval {}", answered.approval_id);
            let hint = "see `bowline show` for what is pending";
            return Err(Error::failure("approval_not_found", what, hint));
        };
        let answered = Answered {
            answer: approval.check(answered.answer)?,
            ..answered
        };
        if approval.answer.is_some() {
            return Ok((actor, approval.submission_id));
        }
        self.agents.check(actor.name())?;
        let value = serde_json::to_value(&answered)
            .map_err(|error| Error::failure("approval_invalid", error.to_string(), ""))?;
        let submission = self.runtime.answer(&actor, value).await?;
        Ok((actor, submission))
    }

    /// The approvals of a conversation, answered or not.
    ///
    /// # Errors
    ///
    /// When they cannot be read.
    pub async fn approvals(&self, agent: &str, instance: &str) -> Result<Vec<Approval>, Error> {
        Ok(approval::of(&**self.store(), &actor(agent, instance)).await?)
    }

    /// The runs of code of a conversation with the calls that they made, oldest first, at most the newest
    /// [`runs::MOST_RUNS`]. Empty where there is no such conversation.
    ///
    /// # Errors
    ///
    /// When they cannot be read.
    pub async fn code_runs(&self, agent: &str, instance: &str) -> Result<Vec<CodeRun>, Error> {
        Ok(runs::of(&**self.store(), &actor(agent, instance)).await?)
    }

    /// Follows a conversation from now on.
    pub fn observe(&self, agent: &str, instance: &str) -> broadcast::Receiver<Arc<Chunk>> {
        self.agents.observers().observe(&actor(agent, instance))
    }

    /// The conversation as it is stored.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub async fn conversation(&self, agent: &str, instance: &str) -> Result<Conversation, Error> {
        Ok(load(&**self.runtime.store(), &actor(agent, instance)).await?)
    }

    /// Sends a message that goes before what a parked run waits for: the request is withdrawn, and the
    /// run goes on with this message. With nothing parked it is the same as [`Service::send`].
    ///
    /// # Errors
    ///
    /// As [`Service::send`].
    pub async fn steer(
        &self,
        agent: &str,
        instance: &str,
        message: Outgoing,
    ) -> Result<Receipt, Error> {
        self.agents.check(agent)?;
        check_instance(instance)?;
        Ok(self
            .runtime
            .steer(&actor(agent, instance), message.into_submission())
            .await?)
    }

    /// Deletes a conversation whole: history, files, children. What runs in it is stopped, and does not
    /// settle. `false` when there was none.
    ///
    /// # Errors
    ///
    /// When the store fails.
    pub async fn delete(&self, agent: &str, instance: &str) -> Result<bool, Error> {
        let actor = actor(agent, instance);
        let known = self.store().head(&actor).await?;
        self.runtime.purge(&actor).await?;
        Ok(known.is_some_and(|head| head.seq > 0))
    }

    /// The submissions that have not settled, in order.
    ///
    /// # Errors
    ///
    /// When they cannot be read.
    pub async fn open_submissions(
        &self,
        agent: &str,
        instance: &str,
    ) -> Result<Vec<Submission>, Error> {
        Ok(submission::open(&**self.runtime.store(), &actor(agent, instance)).await?)
    }

    /// Goes on with what one conversation has open.
    ///
    /// # Errors
    ///
    /// When the process is stopping.
    pub async fn wake(&self, agent: &str, instance: &str) -> Result<(), Error> {
        Ok(self.runtime.wake(&actor(agent, instance)).await?)
    }

    /// Goes on with everything that was interrupted. Returns the number of conversations.
    ///
    /// # Errors
    ///
    /// When the store fails.
    pub async fn resume(&self) -> Result<usize, Error> {
        Ok(self.runtime.resume().await?)
    }

    /// The instances of an agent, in order of their ids, after `after`.
    ///
    /// # Errors
    ///
    /// When they cannot be read.
    pub async fn instances(
        &self,
        agent: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<ActorId>, Error> {
        let after = after.map(|id| actor(agent, id));
        Ok(self
            .store()
            .actors(KIND, Some(agent), after.as_ref(), limit)
            .await?)
    }

    /// The names of the agents, in order.
    pub fn agents(&self) -> impl Iterator<Item = String> {
        self.agents.names()
    }

    /// What an agent is at this moment; `None` when there is none of this name.
    pub fn definition(&self, agent: &str) -> Option<bowline_agent::Definition> {
        self.agents.definition(agent)
    }

    /// Puts an agent in the place of the one of its name, or adds it, while conversations run: each goes
    /// on with it from its next model call on.
    pub fn put_agent(&self, agent: Agent) {
        self.agents.put(agent);
    }

    /// Takes an agent away; its conversations stay, and fail at their next model call. `false` when there
    /// was none.
    pub fn remove_agent(&self, name: &str) -> bool {
        self.agents.remove(name)
    }

    /// Checks that an agent can run: its model is known and has a key, its tools can be mounted. What is
    /// read for that, such as a script, is not read again before [`Service::put_agent`].
    ///
    /// # Errors
    ///
    /// What a message to it would be refused with.
    pub fn check(&self, agent: &str) -> Result<(), Failure> {
        self.agents.check(agent)
    }

    /// Who follows conversations in this process.
    pub fn observers(&self) -> &Observers {
        self.agents.observers()
    }

    /// What each agent came to in this process.
    pub fn tallies(&self) -> BTreeMap<String, Tally> {
        self.agents.tallies()
    }

    /// The fibers: checkpointed tasks, by the handlers of [`Bowline::fiber`].
    pub fn fibers(&self) -> Fibers {
        self.fibers.on(&self.runtime)
    }

    /// What runs the agents.
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// Time, randomness and ids.
    pub fn sources(&self) -> &Sources {
        self.runtime.sources()
    }

    /// The store, for reading.
    pub fn store(&self) -> &Arc<dyn Store> {
        self.runtime.store()
    }

    /// Takes no messages any more, and waits until what runs has come to its end. `false` when that took
    /// longer than `bound`; what still runs goes on until [`Service::stop`].
    pub async fn finish(&self, bound: Duration) -> bool {
        self.runtime.finish(bound).await
    }

    /// Stops in good order; what is open goes on after the next start. `false` when that took longer
    /// than `bound`; nothing is lost then either.
    pub async fn stop(&self, bound: Duration) -> bool {
        self.stop.0.cancel();
        let drained = self.runtime.drain(bound).await;
        self.runtime.store().close().await;
        drained
    }
}

/// Reads the answer to a submission that has settled; who answered may be another one.
pub(crate) async fn reply_to(
    store: &dyn Store,
    actor: &ActorId,
    settled: Settled,
) -> Result<Reply, StoreError> {
    let mut after = settled.after_seq;
    if let Some(host) = &settled.answered_by_submission_id
        && let Some(host) = submission::settled(store, actor, host).await?
    {
        after = host.after_seq;
    }
    Ok(reply_of(&load_after(store, actor, after).await?, settled))
}

/// How a settled submission is answered by its conversation.
pub fn reply_of(conversation: &Conversation, settled: Settled) -> Reply {
    let answered = settled
        .answered_by_submission_id
        .as_deref()
        .unwrap_or(&settled.submission_id);
    let mut used = Used::default();
    for entry in conversation
        .entries
        .iter()
        .filter(|entry| entry.submission.as_deref() == Some(answered))
    {
        match &entry.body {
            EntryBody::Assistant {
                message,
                cost_micro_usd,
                ..
            } => {
                used.calls += 1;
                used.usage += message.usage;
                used.cost_micro_usd += cost_micro_usd.unwrap_or(0);
            }
            EntryBody::ToolResults(results) => {
                used.tool_calls += u32::try_from(results.len()).unwrap_or(u32::MAX)
            }
            EntryBody::User(_) | EntryBody::Signal(_) => {}
        }
    }
    let summaries = conversation.compactions.iter();
    for compacted in summaries.filter(|one| one.submission.as_deref() == Some(answered)) {
        used.usage += compacted.record.usage;
        used.cost_micro_usd += compacted.record.cost_micro_usd.unwrap_or(0);
    }
    let text = match settled.outcome {
        Outcome::Completed => view::answer(conversation, answered),
        Outcome::Failed | Outcome::Aborted => String::new(),
    };
    Reply {
        submission_id: settled.submission_id,
        outcome: settled.outcome,
        text,
        error: settled.error,
        used,
    }
}

/// Checks an instance id: any non-empty text of at most 256 characters without `/`.
///
/// # Errors
///
/// `instance_invalid`.
pub fn check_instance(id: &str) -> Result<(), Error> {
    if id.is_empty()
        || id.chars().count() > 256
        || id.contains('/')
        || id.chars().any(char::is_control)
    {
        let rule = "an instance id has 1 to 256 characters and no `/`";
        return Err(Error::usage(
            "instance_invalid",
            format!("`{}` is no instance id", id.escape_debug()),
            rule,
        ));
    }
    Ok(())
}

/// Reads a conversation from a data directory, beside a process that may be using it. `None` when
/// there is none.
///
/// # Errors
///
/// When it cannot be read.
pub async fn peek(
    store: &dyn Store,
    agent: &str,
    instance: &str,
) -> Result<Option<Conversation>, StoreError> {
    let actor = actor(agent, instance);
    // One that was deleted is still known to the store, by its fence.
    if store.head(&actor).await?.is_none_or(|head| head.seq == 0) {
        return Ok(None);
    }
    load(store, &actor).await.map(Some)
}
