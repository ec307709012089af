//! What is told to whoever watches: figures for Prometheus here, lines in [`log`].
//!
//! Labels come from what the project defines and from fixed lists, never from a request: routes are told
//! as templates, agents by their names.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bowline_runtime::census::{BOUNDS, Times};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, MetricEncoder, text},
    metrics::{
        MetricType,
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::ConstGauge,
        histogram::Histogram,
    },
    registry::Registry,
};
use tokio::sync::Semaphore;

use crate::Service;
use process::Process;

pub mod log;
pub(crate) mod process;

/// What [`Telemetry::text`] is.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Methods that are told by their names.
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"];
/// Upper bounds of the time until an answer begins, in seconds.
const ANSWERED: [f64; 12] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0,
];

/// Places of which a bounded number is taken.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    pub(crate) room: Arc<Semaphore>,
    most: usize,
}

impl Places {
    pub(crate) fn new(most: usize) -> Self {
        let most = most.min(Semaphore::MAX_PERMITS);
        Self {
            room: Arc::new(Semaphore::new(most)),
            most,
        }
    }

    fn taken(&self) -> u64 {
        self.most.saturating_sub(self.room.available_permits()) as u64
    }
}

/// What is counted in a server.
#[derive(Clone)]
pub(crate) struct Telemetry(Arc<Inner>);

struct Inner {
    registry: Registry,
    requests: Family<Asked, Counter>,
    answered: Family<Route, Histogram, fn() -> Histogram>,
    places: Taken,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Asked {
    route: String,
    method: &'static str,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    route: String,
}

/// Who is connected.
#[derive(Debug, Clone)]
pub(crate) struct Taken {
    /// Readers of event streams.
    pub(crate) events: Places,
    /// WebSockets.
    pub(crate) sockets: Places,
    /// Connections, those of readers among them.
    pub(crate) connections: Arc<AtomicU64>,
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry").finish_non_exhaustive()
    }
}

impl Telemetry {
    pub(crate) fn new(service: Service, followers: usize) -> Self {
        let places = Taken {
            events: Places::new(followers),
            sockets: Places::new(followers),
            connections: Arc::default(),
        };
        let requests = Family::default();
        let answered = Family::new_with_constructor((|| Histogram::new(ANSWERED)) as fn() -> _);
        let mut registry = Registry::default();
        registry.register(
            "bowline_http_requests",
            "Requests that were answered, by template of their route",
            requests.clone(),
        );
        registry.register(
            "bowline_http_answer_seconds",
            "Time until the head of an answer was ready, by template of the route",
            answered.clone(),
        );
        registry.register_collector(Box::new(Observed {
            service,
            places: places.clone(),
        }));
        Self(Arc::new(Inner {
            registry,
            requests,
            answered,
            places,
        }))
    }

    /// Who is connected.
    pub(crate) fn places(&self) -> &Taken {
        &self.0.places
    }

    /// Counts a request that was answered.
    pub(crate) fn answered(&self, route: Option<&str>, method: &str, status: u16, took: Duration) {
        // Whatever is asked for at no route is told together.
        let route = route.unwrap_or("unknown").to_owned();
        let known = METHODS.into_iter().find(|known| *known == method);
        let asked = Asked {
            route: route.clone(),
            method: known.unwrap_or("other"),
            status,
        };
        self.0.requests.get_or_create(&asked).inc();
        let answered = self.0.answered.get_or_create(&Route { route });
        answered.observe(took.as_secs_f64());
    }

    /// All of it, in the text format of OpenMetrics.
    pub(crate) fn text(&self) -> Result<String, fmt::Error> {
        let mut told = String::new();
        text::encode(&mut told, &self.0.registry)?;
        Ok(told)
    }
}

/// A connection that is counted as long as it lives.
#[derive(Debug)]
pub(crate) struct Connected(Arc<AtomicU64>);

impl Connected {
    pub(crate) fn new(places: &Taken) -> Self {
        places.connections.fetch_add(1, Ordering::Relaxed);
        Self(places.connections.clone())
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What is looked up when somebody asks.
struct Observed {
    service: Service,
    places: Taken,
}

impl fmt::Debug for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observed").finish_non_exhaustive()
    }
}

impl Collector for Observed {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut teller = Teller(encoder);
        self.submissions(&mut teller)?;
        self.agents(&mut teller)?;
        self.store(&mut teller)?;
        self.process(&mut teller)
    }
}

impl Observed {
    fn submissions(&self, teller: &mut Teller<'_>) -> fmt::Result {
        let counts = self.service.runtime().counts();
        teller.count(
            "bowline_submissions_admitted",
            "Messages and other submissions that were admitted",
            &[([], counts.admitted)],
        )?;
        teller.count(
            "bowline_submissions_settled",
            "Submissions that came to their end, by outcome",
            &[
                ([("outcome", "completed")], counts.completed),
                ([("outcome", "failed")], counts.failed),
                ([("outcome", "aborted")], counts.aborted),
            ],
        )?;
        teller.gauge(
            "bowline_submissions_open",
            "Open submissions of the conversations in memory, by state",
            &[
                ([("state", "waiting")], counts.waiting),
                ([("state", "running")], counts.running),
                ([("state", "parked")], counts.parked),
            ],
        )?;
        teller.count(
            "bowline_attempts",
            "Attempts at submissions, again ones among them",
            &[([], counts.attempts)],
        )?;
        teller.gauge(
            "bowline_actors_awake",
            "Conversations and other actors in memory",
            &[([], counts.awake)],
        )?;
        teller.times(
            "bowline_store_commit_seconds",
            "Time of a commit of an actor, with its flush",
            &counts.commits,
        )
    }

    fn agents(&self, teller: &mut Teller<'_>) -> fmt::Result {
        let tallies = self.service.tallies();
        let each = |value: fn(&bowline_agent::census::Tally) -> u64| {
            let row = move |(name, tally)| ([("agent", String::as_str(name))], value(tally));
            tallies.iter().map(row).collect::<Vec<_>>()
        };
        teller.count(
            "bowline_agent_turns",
            "Answers of models that are complete",
            &each(|tally| tally.turns),
        )?;
        teller.count(
            "bowline_agent_failed_calls",
            "Model calls that failed, or were cut",
            &each(|tally| tally.failed_calls),
        )?;
        teller.count(
            "bowline_agent_approvals",
            "Calls that were put to a person",
            &each(|tally| tally.approvals),
        )?;
        teller.count(
            "bowline_agent_compactions",
            "Conversations whose beginning gave way to a summary",
            &each(|tally| tally.compactions),
        )?;
        let (mut tokens, mut calls, mut costs) = (Vec::new(), Vec::new(), Vec::new());
        for (name, tally) in &tallies {
            let agent = ("agent", name.as_str());
            for (kind, count) in [
                ("input", tally.usage.input),
                ("output", tally.usage.output),
                ("cache_read", tally.usage.cache_read),
                ("cache_write", tally.usage.cache_write),
            ] {
                tokens.push(([agent, ("kind", kind)], count));
            }
            calls.push(([agent, ("outcome", "done")], tally.tool_calls));
            calls.push(([agent, ("outcome", "failed")], tally.failed_tool_calls));
            costs.push(([agent], tally.cost_micro_usd as f64 / 1e6));
        }
        teller.count("bowline_agent_tokens", "Tokens of models, by kind", &tokens)?;
        teller.count(
            "bowline_agent_cost_usd",
            "What models cost in dollars, as far as prices are known",
            &costs,
        )?;
        teller.count(
            "bowline_agent_tool_calls",
            "Calls of tools, by how they ended",
            &calls,
        )
    }

    fn store(&self, teller: &mut Teller<'_>) -> fmt::Result {
        let store = self.service.store().metrics();
        for (name, help, value) in [
            (
                "bowline_store_flushes",
                "Flushes to stable storage that commits waited for",
                store.flushes,
            ),
            ("bowline_store_batches", "Batches committed", store.batches),
            ("bowline_store_refused", "Batches refused", store.refused),
            ("bowline_store_records", "Records appended", store.records),
            (
                "bowline_store_checkpoints",
                "Checkpoints made",
                store.checkpoints,
            ),
        ] {
            teller.count(name, help, &[([], value)])?;
        }
        Ok(())
    }

    fn process(&self, teller: &mut Teller<'_>) -> fmt::Result {
        teller.gauge(
            "bowline_readers",
            "Clients that follow, by how",
            &[
                ([("kind", "events")], self.places.events.taken()),
                ([("kind", "websocket")], self.places.sockets.taken()),
            ],
        )?;
        let connections = self.places.connections.load(Ordering::Relaxed);
        teller.gauge(
            "bowline_http_connections",
            "Connections that are open, WebSockets left out",
            &[([], connections)],
        )?;
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let tasks = runtime.metrics().num_alive_tasks() as u64;
            teller.gauge("bowline_tasks", "Tasks that have not ended", &[([], tasks)])?;
        }
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        teller.gauge("bowline_build", "What runs", &[(version, 1)])?;
        let Some(process) = Process::this() else {
            return Ok(());
        };
        teller.count(
            "process_cpu_seconds",
            "Processor time of the process",
            &[([], process.cpu_seconds)],
        )?;
        let resident = (process.resident_kib * 1024.0) as u64;
        for (name, help, value) in [
            (
                "process_resident_memory_bytes",
                "Resident memory of the process",
                resident,
            ),
            ("process_open_fds", "Open file handles", process.files),
            ("process_threads", "Threads of the process", process.threads),
        ] {
            teller.gauge(name, help, &[([], value)])?;
        }
        // Some systems set no limit, and nothing is said then.
        if process.max_files == u64::MAX {
            return Ok(());
        }
        teller.gauge(
            "process_max_fds",
            "Most file handles that may be open",
            &[([], process.max_files)],
        )
    }
}

/// Tells figures one after the other.
struct Teller<'a>(DescriptorEncoder<'a>);

impl Teller<'_> {
    fn count<const N: usize, V>(
        &mut self,
        name: &str,
        help: &str,
        rows: &[([(&str, &str); N], V)],
    ) -> fmt::Result
    where
        V: Copy,
        ConstCounter<V>: EncodeMetric,
    {
        let told = self
            .0
            .encode_descriptor(name, help, None, MetricType::Counter)?;
        tell(told, rows, |value| ConstCounter::new(value))
    }

    fn gauge<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        rows: &[([(&str, &str); N], u64)],
    ) -> fmt::Result {
        let told = self
            .0
            .encode_descriptor(name, help, None, MetricType::Gauge)?;
        tell(told, rows, ConstGauge::new)
    }

    fn times(&mut self, name: &str, help: &str, times: &Times) -> fmt::Result {
        let mut told = self
            .0
            .encode_descriptor(name, help, None, MetricType::Histogram)?;
        let bounds = BOUNDS.iter().map(|bound| *bound as f64 / 1e6);
        let buckets: Vec<_> = bounds.chain([f64::MAX]).zip(times.buckets).collect();
        let (sum, count) = (times.sum_us as f64 / 1e6, times.count());
        told.encode_histogram::<[(&str, &str); 0]>(sum, count, &buckets, None)
    }
}

fn tell<const N: usize, V: Copy, M: EncodeMetric>(
    mut told: MetricEncoder<'_>,
    rows: &[([(&str, &str); N], V)],
    metric: impl Fn(V) -> M,
) -> fmt::Result {
    if let (0, [(_, value)]) = (N, rows) {
        return metric(*value).encode(told);
    }
    for (labels, value) in rows {
        metric(*value).encode(told.encode_family(labels)?)?;
    }
    Ok(())
}
