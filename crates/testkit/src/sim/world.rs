//! Clients, processes, kills, drains and restarts that one seed decides.

use std::{sync::Arc, time::Duration};

use bowline_runtime::{
    NewSubmission, Program, Random, Runtime, RuntimeOptions, Sources,
    alarm::{NewSchedule, When},
    fiber::{Fibers, NewFiber, Resolution},
};
use bowline_store::{ActorId, MemoryStore, Store};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{
    check, clock,
    fiber::{FIBER, Task, TaskEnd, Worker},
    journal::{Event, Journal},
    program::{ASK_WITHIN, End, Plan, Planned},
    store::{ProcessStore, Rates},
};
use crate::seeded::SeededRandom;

/// Kind of the simulated actors.
pub const KIND: &str = "planned";
/// Name of the simulated actors that have children.
pub const PARENT: &str = "parent";
/// Longest simulated time until everything that was admitted has settled after the last fault.
/// Each deaf submission takes an hour and a minute, one after the other.
const SETTLE_WITHIN: Duration = Duration::from_secs(1_000 * 3_600);

/// How many of its last events a broken world shows.
const LAST: usize = 30;

/// What a world did, for the figures of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Batches that became durable.
    pub commits: usize,
    /// Processes that were started.
    pub processes: usize,
    /// Submissions that were acknowledged.
    pub acknowledged: usize,
    /// Messages that were sent from actor to actor.
    pub messages: usize,
    /// Fibers that were accepted.
    pub fibers: usize,
    /// Parked runs that went on.
    pub unparked: usize,
    /// Actors that were deleted.
    pub deleted: usize,
    /// A fingerprint of everything that happened: the same seed gives the same.
    pub fingerprint: u64,
}

/// Lives through the world of a seed and checks what is left of it.
///
/// # Errors
///
/// A line that says which property does not hold, then the last events.
pub fn run(seed: u64) -> Result<Summary, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let _inside = runtime.enter();
    let world = World::new(seed);
    let journal = world.journal.clone();
    let outcome = runtime.block_on(world.live());
    runtime.shutdown_background();
    outcome.map_err(|broken| {
        let events = journal.events();
        let last = events.iter().skip(events.len().saturating_sub(LAST));
        last.fold(broken, |text, event| format!("{text}\n  {event:?}"))
    })
}

struct World {
    random: Arc<SeededRandom>,
    journal: Arc<Journal>,
    truth: Arc<MemoryStore>,
    sources: Sources,
    rates: Rates,
    idle: Duration,
    actors: u64,
    /// Two processes at once, each of which thinks that it is alone.
    rivals: bool,
    processes: Vec<Process>,
    started: usize,
    calls: usize,
    clients: JoinSet<()>,
}

#[derive(Clone)]
struct Process {
    number: usize,
    store: Arc<ProcessStore>,
    runtime: Runtime,
    fibers: Fibers,
    /// Stops its supervisor.
    stop: CancellationToken,
}

impl World {
    fn new(seed: u64) -> Self {
        let random = SeededRandom::new(seed);
        let maybe = |one_of: u64| (random.next().is_multiple_of(2)).then_some(one_of);
        let rates = Rates {
            die_before: maybe(25),
            die_after: maybe(25),
            lost: maybe(40),
            full: maybe(30),
            slow: maybe(10),
        };
        Self {
            rates,
            idle: Duration::from_secs([0, 1, 60][usize::try_from(random.next() % 3).unwrap_or(0)]),
            actors: random.next() % 3 + 1,
            rivals: random.next().is_multiple_of(4),
            journal: Arc::default(),
            truth: Arc::new(MemoryStore::new()),
            sources: clock::sources(random.next()),
            random,
            processes: Vec::new(),
            started: 0,
            calls: 0,
            clients: JoinSet::new(),
        }
    }

    async fn live(mut self) -> Result<Summary, String> {
        for _ in 0..self.random.next() % 30 + 5 {
            self.keep_processes().await;
            self.act().await;
        }
        for process in std::mem::take(&mut self.processes) {
            self.kill(&process);
        }
        while self.clients.join_next().await.is_some() {}
        self.rates = Rates::NONE;
        let last = self.start().await;
        let open = check::acknowledged(&self.journal.events());
        for (actor, submission) in open {
            let settled =
                tokio::time::timeout(SETTLE_WITHIN, last.runtime.settled(&actor, &submission))
                    .await;
            settled
                .map_err(|_| format!("{submission} of {actor} never settled"))?
                .map_err(|error| {
                    format!("{submission} of {actor} was acknowledged, then lost: {error}")
                })?;
        }
        for id in check::fibers(&self.journal.events()) {
            let ended = tokio::time::timeout(SETTLE_WITHIN, last.fibers.wait(FIBER, &id)).await;
            ended
                .map_err(|_| format!("the fiber {id} never ended"))?
                .map_err(|error| format!("the fiber {id} was accepted, then lost: {error}"))?;
        }
        if !self.quiet().await {
            return Err(check::unsettled(&*self.truth).await);
        }
        last.stop.cancel();
        if !last.runtime.drain(Duration::from_secs(60)).await {
            return Err("the last process did not drain".to_owned());
        }
        let events = self.journal.events();
        check::all(&events, &*self.truth, self.rivals).await?;
        Ok(check::summary(&events, &*self.truth).await)
    }

    /// Waits until no actor has anything to go on with: also what nobody was told of settles.
    async fn quiet(&self) -> bool {
        let deadline = tokio::time::Instant::now() + SETTLE_WITHIN;
        let mut before = false;
        while tokio::time::Instant::now() < deadline {
            let nobody = matches!(self.truth.next_wake().await, Ok(None))
                && matches!(self.truth.inbox_actors(1).await.as_deref(), Ok([]));
            // Twice, so that a message on its way has arrived.
            if nobody && before {
                return true;
            }
            before = nobody;
            tokio::time::sleep(Duration::from_secs(600)).await;
        }
        false
    }

    /// Starts what died, as a supervisor would.
    async fn keep_processes(&mut self) {
        let (dead, alive): (Vec<_>, Vec<_>) = std::mem::take(&mut self.processes)
            .into_iter()
            .partition(|process| process.store.is_dead());
        self.processes = alive;
        for process in dead {
            process.stop.cancel();
            self.journal.push(Event::Ended {
                process: process.number,
            });
        }
        let wanted = if self.rivals { 2 } else { 1 };
        while self.processes.len() < wanted {
            let process = self.start().await;
            self.processes.push(process);
        }
    }

    async fn start(&mut self) -> Process {
        let store = ProcessStore::new(
            self.truth.clone(),
            self.journal.clone(),
            self.random.clone(),
            self.rates,
        );
        let program: Arc<dyn Program> = Planned::new(self.journal.clone());
        let handlers = Worker::handlers(self.journal.clone());
        let options = RuntimeOptions {
            idle: self.idle,
            ..RuntimeOptions::default()
        };
        let programs = [(KIND.to_owned(), program), handlers.program()];
        let runtime = Runtime::new(store.clone(), self.sources.clone(), options, programs);
        self.started += 1;
        self.journal.push(Event::Started {
            process: self.started,
        });
        // May die on the way; then the next one is started.
        let _ = runtime.resume().await;
        let stop = CancellationToken::new();
        let (supervised, stopped) = (runtime.clone(), stop.clone());
        tokio::spawn(async move { supervised.supervise(stopped).await });
        Process {
            number: self.started,
            store,
            fibers: handlers.on(&runtime),
            runtime,
            stop,
        }
    }

    fn kill(&self, process: &Process) {
        process.store.kill();
        process.stop.cancel();
        self.journal.push(Event::Ended {
            process: process.number,
        });
    }

    async fn act(&mut self) {
        let process = self.processes[self.below(self.processes.len())].clone();
        match self.random.next() % 19 {
            0..=5 => self.submit(&process),
            6 => {
                let actor = self.actor();
                let known = check::acknowledged(&self.journal.events());
                let known: Vec<_> = known.into_iter().filter(|(of, _)| *of == actor).collect();
                let one = (!known.is_empty()).then(|| known[self.below(known.len())].1.clone());
                let one = one.filter(|_| self.random.next().is_multiple_of(2));
                self.clients.spawn(async move {
                    let _ = process.runtime.abort(&actor, one.as_deref()).await;
                });
            }
            7 => self.kill(&process),
            8 => {
                // In good order, as after SIGTERM.
                process.runtime.drain(Duration::from_secs(5)).await;
                self.kill(&process);
            }
            9 => tokio::time::sleep(Duration::from_millis(self.random.next() % 10_000)).await,
            10 => tokio::time::sleep(Duration::from_secs(self.random.next() % 7_200)).await,
            11 => self.schedule(&process),
            12 | 13 => self.start_fiber(&process),
            14 => self.decide(&process),
            15 => {
                // Somebody answers, or goes past what is waited for.
                let (actor, steers) = (self.actor(), self.random.next().is_multiple_of(2));
                let new = self.new_submission();
                self.clients.spawn(async move {
                    if steers {
                        let _ = process.runtime.steer(&actor, new).await;
                    } else {
                        let _ = process.runtime.answer(&actor, 1.into()).await;
                    }
                });
            }
            16 => {
                let (actor, other) = (self.actor(), self.actor());
                self.clients.spawn(async move {
                    let (runtime, body) = (process.runtime, other.key().into());
                    let _ = runtime.request(&actor, body, ASK_WITHIN).await;
                });
            }
            17 => self.parent(&process),
            _ => {
                for _ in 0..self.random.next() % 20 {
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    fn submit(&mut self, process: &Process) {
        self.calls += 1;
        let (call, actor, journal) = (self.calls, self.actor(), self.journal.clone());
        let key = self
            .random
            .next()
            .is_multiple_of(3)
            .then(|| format!("key-{}", self.random.next() % 4));
        let new = NewSubmission {
            key,
            ..self.new_submission()
        };
        let runtime = process.runtime.clone();
        self.clients.spawn(async move {
            journal.push(Event::Sent { call });
            if let Ok(receipt) = runtime.submit(&actor, new).await {
                let (submission, deduplicated) = (receipt.submission_id, receipt.deduplicated);
                journal.push(Event::Acknowledged {
                    call,
                    actor,
                    submission,
                    deduplicated,
                });
            }
        });
    }

    fn new_submission(&self) -> NewSubmission {
        NewSubmission {
            payload: self.plan().payload(),
            key: None,
            blobs: Vec::new(),
            trace: None,
        }
    }

    fn start_fiber(&mut self, process: &Process) {
        let task = Task {
            steps: u32::try_from(self.random.next() % 4).unwrap_or(0),
            pause: [0, 100, 60_000][self.below(3)],
            end: [
                TaskEnd::Complete,
                TaskEnd::Complete,
                TaskEnd::Interrupt,
                TaskEnd::Interrupt,
                TaskEnd::Fail,
                TaskEnd::Panic,
            ][self.below(6)],
        };
        let new = NewFiber {
            input: serde_json::to_value(task).unwrap_or_default(),
            key: None,
            metadata: serde_json::Value::Null,
        };
        let (fibers, journal) = (process.fibers.clone(), self.journal.clone());
        self.clients.spawn(async move {
            if let Ok(started) = fibers.start(FIBER, new).await {
                journal.push(Event::Fiber {
                    id: started.fiber_id,
                });
            }
        });
    }

    /// Decides about one fiber: it goes on, it is completed, it is cancelled.
    fn decide(&mut self, process: &Process) {
        let known = check::fibers(&self.journal.events());
        if known.is_empty() {
            return;
        }
        let id = known[self.below(known.len())].clone();
        let (fibers, how) = (process.fibers.clone(), self.below(4));
        self.clients.spawn(async move {
            let result = serde_json::Value::Null;
            let _ = match how {
                0 => fibers.cancel(FIBER, &id).await.map(drop),
                1 => {
                    let completed = Resolution::Completed { result };
                    fibers.resolve(FIBER, &id, &completed).await
                }
                _ => {
                    let resume = Resolution::Resume { stash: None };
                    fibers.resolve(FIBER, &id, &resume).await
                }
            };
        });
    }

    /// A parent takes a child, or is deleted with those that it has.
    fn parent(&mut self, process: &Process) {
        let parent = ActorId::new(KIND, PARENT, &format!("{}", self.random.next() % 2));
        let runtime = process.runtime.clone();
        if self.random.next().is_multiple_of(3) && !self.rivals {
            self.clients.spawn(async move {
                let _ = runtime.purge(&parent).await;
            });
            return;
        }
        let plan = Plan {
            child: true,
            ..Plan::steps(1)
        };
        let new = NewSubmission {
            payload: plan.payload(),
            ..self.new_submission()
        };
        self.clients.spawn(async move {
            let _ = runtime.submit(&parent, new).await;
        });
    }

    /// Something that is due once, within hours; perhaps when no process runs.
    fn schedule(&mut self, process: &Process) {
        self.calls += 1;
        let mark = u32::try_from(self.calls).unwrap_or(u32::MAX);
        let when = When::After {
            millis: self.random.next() % 10_000_000,
        };
        let plan = Plan {
            mark,
            ..self.plan()
        };
        let (actor, journal) = (self.actor(), self.journal.clone());
        let runtime = process.runtime.clone();
        self.clients.spawn(async move {
            let new = NewSchedule::new(when, plan.payload());
            if runtime.schedule(&actor, new).await.is_ok() {
                journal.push(Event::Scheduled { actor, mark });
            }
        });
    }

    fn plan(&self) -> Plan {
        let end = match self.random.next() % 18 {
            0..=6 => End::Complete,
            7..=9 => End::CompleteInTwo,
            10 => End::Fail,
            11 => End::Panic,
            12 => End::PanicOnce,
            13 | 14 => End::Hold,
            15 | 16 => End::Park,
            _ => End::Deaf,
        };
        Plan {
            steps: u32::try_from(self.random.next() % 4).unwrap_or(0),
            pause: [0, 0, 100, 60_000][self.below(4)],
            end,
            join: self.random.next().is_multiple_of(3),
            mark: 0,
            tell: self.sometimes(4),
            ask: self.sometimes(6),
            child: false,
        }
    }

    /// The key of an actor, once in so many times.
    fn sometimes(&self, one_of: u64) -> Option<String> {
        let now = self.random.next().is_multiple_of(one_of);
        now.then(|| self.actor().key().to_owned())
    }

    fn actor(&self) -> ActorId {
        ActorId::new(
            KIND,
            "simulated",
            &format!("{}", self.random.next() % self.actors),
        )
    }

    fn below(&self, bound: usize) -> usize {
        usize::try_from(self.random.next() % bound.max(1) as u64).unwrap_or(0)
    }
}
