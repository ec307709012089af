//! What the guest may ask of the host, and what bounds it.
//!
//! Calls only enqueue. Everything the guest passes is hostile: ids must be new, texts are decoded with
//! their limits, and what breaks a rule stops the program.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use wasmtime::{Caller, Linker, Memory, ResourceLimiter, StoreContextMut, UpdateDeadline};

use super::value::Value;
use super::wire::{self, Malformed, Reader};
use super::{Bindings, IsolateError, Limits, Usage};

/// A call that a program made and that waits for its answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// Numbers the calls and timers of a run from 1, in the order in which they were made. The same
    /// code with the same seed, input and answers makes the same calls with the same ids.
    pub id: u32,
    /// What is called.
    pub target: Target,
}

/// What a program calls.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// A method of a binding, with its arguments. Namespace and method are what the program was given;
    /// the arguments may be anything.
    Binding {
        /// The namespace, for example `state`.
        namespace: String,
        /// The method, for example `readFile`.
        method: String,
        /// The arguments as they were passed.
        arguments: Vec<Value>,
    },
    /// `setTimeout` and the like: answer with [`Answer::Timer`](super::Answer::Timer) when the time has
    /// passed.
    Timer {
        /// How long.
        after: Duration,
    },
}

/// One line that a program printed. It may hold line breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// How it was printed.
    pub level: LogLevel,
    /// The text.
    pub text: String,
}

/// How a line was printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// `console.debug`.
    Debug,
    /// `console.log` and `console.info`.
    Info,
    /// `console.warn`.
    Warn,
    /// `console.error`, and rejections that nobody handled.
    Error,
}

/// What waits inside the guest, by id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waits {
    Call,
    Timer,
}

/// How a program ended.
#[derive(Debug)]
pub(super) enum End {
    Value(Value),
    Threw(Value),
}

pub(super) const RUNNING: u8 = 0;
pub(super) const STOP: u8 = 1;
pub(super) const STOP_WALL: u8 = 2;

/// The host's side of one guest.
pub(super) struct Guest {
    pub(super) memory: Option<Memory>,
    pub(super) bindings: Bindings,
    pub(super) limits: Limits,
    pub(super) usage: Usage,
    pub(super) waiting: BTreeMap<u32, Waits>,
    pub(super) calls: Vec<Call>,
    pub(super) cancelled: Vec<u32>,
    pub(super) log: Vec<LogLine>,
    pub(super) end: Option<End>,
    /// Why the guest was stopped, when it was.
    pub(super) stopped: Option<IsolateError>,
    pub(super) stop: Arc<AtomicU8>,
    /// The thread's CPU clock when this slice began.
    began: Duration,
    total: Option<(Arc<super::engine::Shared>, u64)>,
}

impl Guest {
    /// One that runs nothing.
    pub(super) fn idle() -> Self {
        Self {
            memory: None,
            bindings: Bindings::none(),
            limits: Limits {
                memory: Limits::MEMORY_MAX,
                ..Limits::default()
            },
            usage: Usage::default(),
            waiting: BTreeMap::new(),
            calls: Vec::new(),
            cancelled: Vec::new(),
            log: Vec::new(),
            end: None,
            stopped: None,
            stop: Arc::default(),
            began: Duration::ZERO,
            total: None,
        }
    }

    pub(super) fn new(
        shared: Arc<super::engine::Shared>,
        bindings: Bindings,
        limits: Limits,
        usage: Usage,
    ) -> Self {
        let mut guest = Self::idle();
        guest.bindings = bindings;
        guest.limits = limits;
        guest.usage = usage;
        guest.total = Some((shared, 0));
        guest
    }

    pub(super) fn begin_slice(&mut self) {
        self.began = thread_cpu();
        self.usage.slices = self.usage.slices.saturating_add(1);
    }

    pub(super) fn end_slice(&mut self) {
        let now = thread_cpu();
        self.usage.cpu += now.saturating_sub(self.began);
        self.began = now;
    }

    /// Called each tick while the guest runs.
    fn tick(&mut self) -> wasmtime::Result<UpdateDeadline> {
        let why = match self.stop.load(Ordering::Acquire) {
            RUNNING => {
                let used = self.usage.cpu + thread_cpu().saturating_sub(self.began);
                if used <= self.limits.cpu {
                    return Ok(UpdateDeadline::Continue(1));
                }
                IsolateError::Cpu(self.limits.cpu)
            }
            STOP_WALL => IsolateError::Wall(self.limits.wall),
            _ => IsolateError::Stopped,
        };
        Err(self.refuse(why))
    }

    /// Notes why the guest is stopped; the error unwinds it.
    fn refuse(&mut self, why: IsolateError) -> wasmtime::Error {
        self.stopped.get_or_insert(why);
        wasmtime::format_err!("stopped")
    }

    fn register(&mut self, id: u32, waits: Waits) -> wasmtime::Result<()> {
        if self.usage.calls >= self.limits.calls {
            let limit = self.limits.calls;
            return Err(self.refuse(IsolateError::Calls(limit)));
        }
        if self.waiting.len() >= usize::try_from(self.limits.concurrency).unwrap_or(usize::MAX) {
            let limit = self.limits.concurrency;
            return Err(self.refuse(IsolateError::Concurrency(limit)));
        }
        let newest = self.waiting.last_key_value().map_or(0, |(id, _)| *id);
        if id <= newest || id <= self.usage.calls {
            return Err(self.refuse(IsolateError::Fault(
                "a call has an id that was used".to_owned(),
            )));
        }
        self.usage.calls += 1;
        self.waiting.insert(id, waits);
        Ok(())
    }

    fn malformed(&mut self, error: Malformed) -> wasmtime::Error {
        let why = match error {
            Malformed::Format => IsolateError::Fault("a message has no known format".to_owned()),
            Malformed::TooMany => IsolateError::CallSize(u64::from(self.limits.call_bytes)),
        };
        self.refuse(why)
    }

    fn call(&mut self, id: u32, bytes: &[u8]) -> wasmtime::Result<()> {
        if bytes.len() > usize::try_from(self.limits.call_bytes).unwrap_or(usize::MAX) {
            let limit = u64::from(self.limits.call_bytes);
            return Err(self.refuse(IsolateError::CallSize(limit)));
        }
        self.register(id, Waits::Call)?;
        let target = binding(bytes).map_err(|error| self.malformed(error))?;
        if let Target::Binding {
            namespace, method, ..
        } = &target
            && !self.bindings.allow(namespace, method)
        {
            return Err(self.refuse(IsolateError::Fault(
                "it calls what it was not given".to_owned(),
            )));
        }
        self.calls.push(Call { id, target });
        Ok(())
    }

    fn timer(&mut self, id: u32, millis: f64) -> wasmtime::Result<()> {
        self.register(id, Waits::Timer)?;
        let after = Duration::try_from_secs_f64(millis.clamp(0.0, 2_147_483_647.0) / 1_000.0)
            .unwrap_or(Duration::ZERO);
        self.calls.push(Call {
            id,
            target: Target::Timer { after },
        });
        Ok(())
    }

    fn cancel(&mut self, id: u32) {
        if self.waiting.get(&id) == Some(&Waits::Timer) {
            self.waiting.remove(&id);
            let before = self.calls.len();
            self.calls.retain(|call| call.id != id);
            if self.calls.len() == before {
                self.cancelled.push(id);
            }
        }
    }

    fn print(&mut self, level: u32, bytes: &[u8]) -> wasmtime::Result<()> {
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.usage.log = self.usage.log.saturating_add(len).saturating_add(1);
        if self.usage.log > self.limits.log {
            let limit = u64::from(self.limits.log);
            return Err(self.refuse(IsolateError::Log(limit)));
        }
        let level = match level {
            0 => LogLevel::Debug,
            1 => LogLevel::Info,
            2 => LogLevel::Warn,
            3.. => LogLevel::Error,
        };
        self.log.push(LogLine {
            level,
            text: wire::text(bytes),
        });
        Ok(())
    }

    fn done(&mut self, failed: u32, bytes: &[u8]) -> wasmtime::Result<()> {
        let limit = u64::from(self.limits.output);
        if bytes.len() as u64 > limit {
            return Err(self.refuse(IsolateError::Output(limit)));
        }
        let value = Reader::new(bytes).value().map_err(|error| match error {
            Malformed::TooMany => self.refuse(IsolateError::Output(limit)),
            Malformed::Format => self.malformed(error),
        })?;
        self.end = Some(if failed == 0 {
            End::Value(value)
        } else {
            End::Threw(value)
        });
        Ok(())
    }

    fn excess(&mut self, what: u32) -> wasmtime::Error {
        self.refuse(match what {
            0 => IsolateError::CallSize(u64::from(self.limits.call_bytes)),
            1.. => IsolateError::Output(u64::from(self.limits.output)),
        })
    }

    /// What the program may have of memory, in bytes.
    pub(super) fn memory_limit(&self) -> u64 {
        self.limits.memory.clamp(4 << 20, Limits::MEMORY_MAX)
    }

    fn grow(&mut self, desired: usize) -> wasmtime::Result<bool> {
        let desired = desired as u64;
        let limit = self.memory_limit();
        if desired > limit {
            return Err(self.refuse(IsolateError::Memory(limit)));
        }
        let over = match &mut self.total {
            Some((shared, held)) => {
                let more = desired.saturating_sub(*held);
                let all = shared.memory_used.fetch_add(more, Ordering::AcqRel) + more;
                *held += more;
                (all > shared.memory_limit).then_some(shared.memory_limit)
            }
            None => None,
        };
        if let Some(limit) = over {
            return Err(self.refuse(IsolateError::MemoryTotal(limit)));
        }
        self.usage.memory = self.usage.memory.max(desired);
        Ok(true)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if let Some((shared, held)) = &self.total {
            let used: &AtomicU64 = &shared.memory_used;
            used.fetch_sub(*held, Ordering::AcqRel);
        }
    }
}

impl ResourceLimiter for Guest {
    fn memory_growing(
        &mut self,
        _: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        self.grow(desired)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        // The table is made at its full size; the guest has no reason to grow it.
        Ok(current == 0 || desired <= current)
    }
}

/// The CPU time of this thread: a meter, not a clock that a program could see.
fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

fn binding(bytes: &[u8]) -> Result<Target, Malformed> {
    let mut reader = Reader::new(bytes);
    let namespace = reader.text()?;
    let method = reader.text()?;
    let count = reader.number()?;
    let mut arguments = Vec::new();
    for _ in 0..count {
        arguments.push(reader.value()?);
    }
    if !reader.is_empty() {
        return Err(Malformed::Format);
    }
    Ok(Target::Binding {
        namespace,
        method,
        arguments,
    })
}

/// Hands the guest's bytes to `then`; a range outside its memory stops it.
fn with_bytes(
    mut caller: Caller<'_, Guest>,
    at: u32,
    len: u32,
    then: impl FnOnce(&mut Guest, &[u8]) -> wasmtime::Result<()>,
) -> wasmtime::Result<()> {
    let Some(memory) = caller.data().memory else {
        wasmtime::bail!("no memory");
    };
    let (data, guest) = memory.data_and_store_mut(&mut caller);
    match data
        .get(at as usize..)
        .and_then(|rest| rest.get(..len as usize))
    {
        Some(bytes) => then(guest, bytes),
        None => Err(guest.refuse(IsolateError::Fault(
            "a message lies outside its memory".to_owned(),
        ))),
    }
}

/// The imports of the guest: six of ours, and four of WASI that only say no.
pub(super) fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    const NO: i32 = 52;
    linker.func_wrap(
        "host",
        "call",
        |caller: Caller<'_, Guest>, id: u32, at: u32, len: u32| {
            with_bytes(caller, at, len, |guest, bytes| guest.call(id, bytes))
        },
    )?;
    linker.func_wrap(
        "host",
        "timer",
        |mut caller: Caller<'_, Guest>, id: u32, millis: f64| caller.data_mut().timer(id, millis),
    )?;
    linker.func_wrap(
        "host",
        "cancel",
        |mut caller: Caller<'_, Guest>, id: u32| {
            caller.data_mut().cancel(id);
        },
    )?;
    linker.func_wrap(
        "host",
        "log",
        |caller: Caller<'_, Guest>, level: u32, at: u32, len: u32| {
            with_bytes(caller, at, len, |guest, bytes| guest.print(level, bytes))
        },
    )?;
    linker.func_wrap(
        "host",
        "done",
        |caller: Caller<'_, Guest>, failed: u32, at: u32, len: u32| {
            with_bytes(caller, at, len, |guest, bytes| guest.done(failed, bytes))
        },
    )?;
    linker.func_wrap(
        "host",
        "excess",
        |mut caller: Caller<'_, Guest>, what: u32, _: u32| -> wasmtime::Result<()> {
            Err(caller.data_mut().excess(what))
        },
    )?;
    let wasi = "wasi_snapshot_preview1";
    linker.func_wrap(wasi, "fd_close", |_: i32| NO)?;
    linker.func_wrap(wasi, "fd_fdstat_get", |_: i32, _: i32| NO)?;
    linker.func_wrap(wasi, "fd_seek", |_: i32, _: i64, _: i32, _: i32| NO)?;
    linker.func_wrap(wasi, "fd_write", |_: i32, _: i32, _: i32, _: i32| NO)?;
    Ok(())
}

/// What wasmtime calls at each tick.
pub(super) fn on_tick(mut store: StoreContextMut<'_, Guest>) -> wasmtime::Result<UpdateDeadline> {
    store.data_mut().tick()
}

/// What a fuzzer drives: the host's side of an isolate gets `data` as a message of each kind. It must not
/// panic, and must stop at every limit.
#[doc(hidden)]
pub fn fuzz_messages(data: &[u8]) {
    let mut guest = Guest::idle();
    guest.bindings = Bindings::none()
        .with("state", ["readFile"])
        .unwrap_or_default();
    guest.limits = Limits {
        log: 1_000,
        calls: 10,
        concurrency: 5,
        ..Limits::default()
    };
    let (kind, rest) = data
        .split_first()
        .map_or((0, data), |(kind, rest)| (*kind, rest));
    let id = rest.first().map_or(1, |byte| u32::from(*byte));
    for kind in [kind % 5, 0, 1, 2, 3, 4] {
        let outcome = match kind {
            0 => guest.call(id, rest),
            1 => guest.print(id, rest),
            2 => guest.done(id, rest),
            3 => guest.timer(
                id,
                f64::from_bits(u64::from(id).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            ),
            _ => {
                guest.cancel(id);
                Ok(())
            }
        };
        // Each refusal says why.
        assert_eq!(outcome.is_err(), guest.stopped.take().is_some());
        assert!(guest.waiting.len() <= 5 && guest.usage.calls <= 10);
    }
    assert!(guest.log.iter().map(|line| line.text.len()).sum::<usize>() <= 3_000);
    let mut memory = vec![0; 8_192];
    let _ = super::saved::apply(rest, 4_096, &mut memory);
    assert!(memory[..4_096].iter().all(|byte| *byte == 0));
}
