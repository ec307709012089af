//! One program in its isolate: started, answered, saved, restored, stopped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use bowline_store::Timestamp;
use wasmtime::{Global, Instance, Memory, Store, Trap, TypedFunc, Val};

use super::admission::Slot;
use super::engine::{Isolates, Shared};
use super::guest::{self, Call, End, Guest, LogLine, RUNNING, STOP, STOP_WALL, Waits};
use super::value::{Thrown, Value};
use super::wire::Writer;
use super::{Bindings, IsolateError, Limits, Program, Usage, saved};

/// What a program starts with.
#[derive(Clone, Debug)]
pub struct Start {
    /// Decides `Math.random` and `crypto`: the same seed gives the same numbers.
    pub seed: [u8; 32],
    /// What the program's clock shows until the first answer.
    pub now: Timestamp,
    /// Passed to the function that the program exports.
    pub input: Value,
    /// The export that is called (or, when it is no function, awaited). Default `default`.
    pub entry: String,
    /// What it may use.
    pub limits: Limits,
}

impl Start {
    /// With default limits and no input.
    pub fn new(seed: [u8; 32], now: Timestamp) -> Self {
        Self {
            seed,
            now,
            input: Value::Undefined,
            entry: "default".to_owned(),
            limits: Limits::default(),
        }
    }
}

/// The answer to a call.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// The call's promise resolves to this.
    Value(Value),
    /// The call's promise is rejected with this error.
    Error(Thrown),
    /// The time of a timer has passed.
    Timer,
}

/// Where a program stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Status {
    /// It waits for answers; [`Isolate::take_calls`] has the calls.
    Waiting,
    /// It ended with this value.
    Completed(Value),
    /// It threw this and nobody caught it; most often a [`Value::Error`].
    Threw(Value),
    /// A limit, its engine or its owner stopped it.
    Stopped(IsolateError),
}

/// Stops a program from any thread, at any instruction.
#[derive(Clone, Debug)]
pub struct Stopper(Arc<AtomicU8>);

impl Stopper {
    /// Stops it within about two milliseconds if it runs, and at its next answer if it waits. Its status
    /// becomes [`IsolateError::Stopped`].
    pub fn stop(&self) {
        let _ = self
            .0
            .compare_exchange(RUNNING, STOP, Ordering::AcqRel, Ordering::Acquire);
    }

    /// The same for a program whose time has passed: its status becomes [`IsolateError::Wall`].
    pub fn stop_for_wall(&self) {
        let _ = self
            .0
            .compare_exchange(RUNNING, STOP_WALL, Ordering::AcqRel, Ordering::Acquire);
    }
}

/// A program in its isolate. It holds a [`Slot`] and memory until it ends or is dropped.
///
/// The methods that run the program ([`Isolates::start`], [`Isolate::answer`]) return when it waits or
/// has ended; they take the CPU time that the program takes, and about 1 MiB of stack. Async callers run
/// them with `tokio::task::spawn_blocking` or on threads of their own.
pub struct Isolate {
    live: Option<Live>,
    status: Status,
    usage: Usage,
    calls: Vec<Call>,
    cancelled: Vec<u32>,
    log: Vec<LogLine>,
    unanswered: Vec<u32>,
    stop: Arc<AtomicU8>,
    /// When it started, or was restored.
    started: Timestamp,
    /// Wall clock up to the last answer, in milliseconds, and what of it was before it was restored.
    elapsed: u64,
    carried: u64,
    wall: std::time::Duration,
}

struct Live {
    store: Store<Guest>,
    memory: Memory,
    stack: Global,
    /// Where the stack begins in the image; nothing of a waiting program lies below.
    stack_top: i32,
    /// Where it begins for this program, lower where it may use less of it.
    stack_start: i32,
    alloc: TypedFunc<u32, u32>,
    settle: TypedFunc<(u32, u32), u32>,
    bindings: [u8; 32],
    shared: Arc<Shared>,
    slot: Slot,
}

impl std::fmt::Debug for Isolate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Isolate")
            .field("status", &self.status)
            .field("usage", &self.usage)
            .finish_non_exhaustive()
    }
}

impl Isolates {
    /// Starts a program and runs it until it waits or ends. A program that fails at once is a value with
    /// that status.
    ///
    /// # Errors
    /// [`IsolateError::Engine`] when the pool has no room, which slots prevent.
    pub fn start(
        &self,
        slot: Slot,
        program: &Program,
        bindings: &Bindings,
        start: &Start,
    ) -> Result<Isolate, IsolateError> {
        let guest = Guest::new(
            Arc::clone(&self.shared),
            bindings.clone(),
            start.limits.clone(),
            Usage::default(),
        );
        let (live, instance) = Live::new(&self.shared, slot, guest, bindings.hash())?;
        let mut isolate = Isolate::around(live, start.now, start.limits.wall);
        let message = start_message(program, bindings, start);
        isolate.enter(|live| {
            let run = live.function::<(u32, u32)>(&instance, |exports| &exports.start)?;
            live.send(&run, &message)
        });
        Ok(isolate)
    }

    /// Restores a saved program to the moment at which it was saved. `bindings` must offer what it was
    /// started with, `key` be the key it was saved with; `limits` may differ, what was used counts on.
    /// `now` is the time at which it goes on: the time in which it was parked does not count as its wall
    /// clock, but its own clock will show that it passed.
    ///
    /// # Errors
    /// [`IsolateError::SavedInvalid`], [`IsolateError::SavedImage`] or [`IsolateError::SavedBindings`]
    /// when it does not fit; [`IsolateError::Memory`] when it is larger than its limit.
    pub fn restore(
        &self,
        slot: Slot,
        bytes: &[u8],
        key: &[u8; 32],
        bindings: &Bindings,
        limits: &Limits,
        now: Timestamp,
    ) -> Result<Isolate, IsolateError> {
        let found = saved::open(bytes, key, self.image(), &bindings.hash())?;
        let mut guest = Guest::new(
            Arc::clone(&self.shared),
            bindings.clone(),
            limits.clone(),
            found.usage,
        );
        guest.waiting = found.waiting.iter().copied().collect();
        let (mut live, _) = Live::new(&self.shared, slot, guest, bindings.hash())?;
        live.fill(&found)?;
        let mut isolate = Isolate::around(live, now, limits.wall);
        isolate.elapsed = found.elapsed;
        isolate.carried = found.elapsed;
        Ok(isolate)
    }
}

impl Isolates {
    /// Makes an isolate that runs nothing and compares its memory with the image, byte for byte: no
    /// program may find what another left in the same place. For checks of an installation.
    ///
    /// # Errors
    /// [`IsolateError::Engine`] when the pool has no room.
    pub fn is_fresh(&self, slot: Slot) -> Result<bool, IsolateError> {
        let guest = Guest::new(
            Arc::clone(&self.shared),
            Bindings::none(),
            Limits::default(),
            Usage::default(),
        );
        let (live, _) = Live::new(&self.shared, slot, guest, [0; 32])?;
        Ok(live.memory.data(&live.store) == self.shared.base)
    }
}

impl Live {
    fn new(
        shared: &Arc<Shared>,
        slot: Slot,
        guest: Guest,
        bindings: [u8; 32],
    ) -> Result<(Self, Instance), IsolateError> {
        let mut store = Store::new(&shared.engine, guest);
        store.limiter(|guest| guest);
        store.epoch_deadline_callback(guest::on_tick);
        store.set_epoch_deadline(1);
        let instance = shared.pre.instantiate(&mut store).map_err(|error| {
            let stopped = store.data_mut().stopped.take();
            stopped.unwrap_or_else(|| IsolateError::Engine(format!("{error:#}")))
        })?;
        let exports = &shared.exports;
        let missing = || IsolateError::Engine("the image misses an export".to_owned());
        let memory = instance
            .get_module_export(&mut store, &exports.memory)
            .and_then(wasmtime::Extern::into_memory)
            .ok_or_else(missing)?;
        let stack = instance
            .get_module_export(&mut store, &exports.stack)
            .and_then(wasmtime::Extern::into_global)
            .ok_or_else(missing)?;
        store.data_mut().memory = Some(memory);
        let stack_top = stack.get(&mut store).i32().ok_or_else(missing)?;
        // The engine compares the stack pointer with an address that the image fixes.
        let unused = Limits::STACK
            - store
                .data()
                .limits
                .stack
                .clamp(Limits::STACK_MIN, Limits::STACK);
        let stack_start = stack_top - i32::try_from(unused & !15).unwrap_or(0);
        stack
            .set(&mut store, Val::I32(stack_start))
            .map_err(fault)?;
        let alloc = typed(&mut store, &instance, &exports.alloc).map_err(fault)?;
        let settle = typed(&mut store, &instance, &exports.settle).map_err(fault)?;
        let live = Self {
            store,
            memory,
            stack,
            stack_top,
            stack_start,
            alloc,
            settle,
            bindings,
            shared: Arc::clone(shared),
            slot,
        };
        Ok((live, instance))
    }

    fn function<P: wasmtime::WasmParams>(
        &mut self,
        instance: &Instance,
        which: impl Fn(&super::engine::Exports) -> &wasmtime::ModuleExport,
    ) -> wasmtime::Result<TypedFunc<P, u32>> {
        let shared = Arc::clone(&self.shared);
        typed(&mut self.store, instance, which(&shared.exports))
    }

    /// Puts a message into the guest and runs it.
    fn send(&mut self, run: &TypedFunc<(u32, u32), u32>, message: &[u8]) -> wasmtime::Result<u32> {
        let len = u32::try_from(message.len())?;
        let at = self.alloc.call(&mut self.store, len)?;
        // A guest that was tampered with may give any address; `write` checks it.
        self.memory.write(&mut self.store, at as usize, message)?;
        run.call(&mut self.store, (at, len))
    }

    /// The stack is empty, so memory is all there is.
    fn quiet(&mut self) -> bool {
        self.stack.get(&mut self.store).i32() == Some(self.stack_start)
    }

    fn fill(&mut self, found: &saved::Found) -> Result<(), IsolateError> {
        let have = self.memory.data_size(&self.store) as u64;
        if found.memory > have {
            let pages = (found.memory - have) / 65_536;
            let grown = self.memory.grow(&mut self.store, pages);
            if let Some(why) = self.store.data_mut().stopped.take() {
                return Err(why);
            }
            grown.map_err(fault)?;
        }
        let stack = usize::try_from(self.stack_top).unwrap_or(0);
        saved::apply(&found.delta, stack, self.memory.data_mut(&mut self.store))
    }
}

fn typed<P: wasmtime::WasmParams>(
    store: &mut Store<Guest>,
    instance: &Instance,
    export: &wasmtime::ModuleExport,
) -> wasmtime::Result<TypedFunc<P, u32>> {
    instance
        .get_module_export(&mut *store, export)
        .and_then(wasmtime::Extern::into_func)
        .ok_or_else(|| wasmtime::format_err!("the image misses a function"))?
        .typed(&*store)
}

fn fault(error: wasmtime::Error) -> IsolateError {
    IsolateError::Fault(format!("{error:#}"))
}

impl Isolate {
    fn around(live: Live, started: Timestamp, wall: std::time::Duration) -> Self {
        let guest = live.store.data();
        Self {
            status: Status::Waiting,
            usage: guest.usage,
            calls: Vec::new(),
            cancelled: Vec::new(),
            log: Vec::new(),
            unanswered: Vec::new(),
            stop: Arc::clone(&guest.stop),
            live: Some(live),
            started,
            elapsed: 0,
            carried: 0,
            wall,
        }
    }

    /// Where the program stands.
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// What it has used so far.
    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// The calls that it has made since they were last taken, in their order.
    pub fn take_calls(&mut self) -> Vec<Call> {
        std::mem::take(&mut self.calls)
    }

    /// Timers whose [`Call`] was taken and that it has since cancelled: they need no answer.
    pub fn take_cancelled(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.cancelled)
    }

    /// What it has printed since that was last taken.
    pub fn take_log(&mut self) -> Vec<LogLine> {
        std::mem::take(&mut self.log)
    }

    /// The ids that wait for an answer. Once the program has ended: those that it never awaited.
    pub fn waiting(&self) -> Vec<u32> {
        match &self.live {
            Some(live) => live.store.data().waiting.keys().copied().collect(),
            None => self.unanswered.clone(),
        }
    }

    /// Stops it from another thread.
    pub fn stopper(&self) -> Stopper {
        Stopper(Arc::clone(&self.stop))
    }

    /// Delivers one answer and runs the program until it waits again or ends. `now` is what its clock
    /// shows meanwhile. A value that is larger than a call may be arrives as an error instead.
    ///
    /// Answers are delivered one at a time, so that their order alone decides what happens: to run it
    /// again, deliver the same answers in the same order with the same times.
    ///
    /// # Errors
    /// [`IsolateError::NotWaiting`] when nothing waits for this; the program is as it was. What stops
    /// the program is its [`Isolate::status`].
    pub fn answer(&mut self, id: u32, answer: &Answer, now: Timestamp) -> Result<(), IsolateError> {
        let Some(live) = &mut self.live else {
            return Err(IsolateError::NotWaiting(id));
        };
        let wanted = match answer {
            Answer::Value(_) | Answer::Error(_) => Waits::Call,
            Answer::Timer => Waits::Timer,
        };
        let guest = live.store.data_mut();
        if guest.waiting.get(&id) != Some(&wanted) {
            return Err(IsolateError::NotWaiting(id));
        }
        guest.waiting.remove(&id);
        let since = now.as_millis().saturating_sub(self.started.as_millis());
        self.elapsed = self
            .elapsed
            .max(self.carried + u64::try_from(since).unwrap_or(0));
        if u128::from(self.elapsed) > self.wall.as_millis() {
            let _ =
                self.stop
                    .compare_exchange(RUNNING, STOP_WALL, Ordering::AcqRel, Ordering::Acquire);
        }
        let message = answer_message(id, answer, now, guest.limits.call_bytes);
        self.enter(|live| {
            let settle = live.settle.clone();
            live.send(&settle, &message)
        });
        Ok(())
    }

    /// It waits for something that may take long: another one may be busy in its place. It keeps its own,
    /// and does not count as busy again.
    pub fn rest(&mut self) {
        if let Some(live) = &mut self.live {
            live.slot.rest();
        }
    }

    /// Ends it because its owner wants that, or because its time has passed.
    pub fn discard(&mut self, why: IsolateError) {
        if self.status == Status::Waiting {
            self.end(Status::Stopped(why));
        }
    }

    /// The program as bytes, to be restored by this or another process: its memory as it differs from
    /// the image, compressed, with what it has used and what it waits for, and a code under `key` that
    /// shows changes. The program goes on as it was. Calls already taken are the caller's to keep.
    ///
    /// # Errors
    /// [`IsolateError::NotSavable`] when it has ended.
    pub fn save(&mut self, key: &[u8; 32]) -> Result<Vec<u8>, IsolateError> {
        let Some(live) = &mut self.live else {
            return Err(IsolateError::NotSavable);
        };
        if !live.quiet() {
            return Err(IsolateError::NotSavable);
        }
        let guest = live.store.data();
        let memory = live.memory.data(&live.store);
        let stack = usize::try_from(live.stack_top).unwrap_or(0);
        let head = saved::Head {
            image: &live.shared.image,
            bindings: live.bindings,
            usage: guest.usage,
            elapsed: self.elapsed,
            waiting: &guest.waiting,
        };
        Ok(saved::write(&head, memory, &live.shared.base, stack, key))
    }

    /// Runs the guest once and takes what it left.
    fn enter(&mut self, run: impl FnOnce(&mut Live) -> wasmtime::Result<u32>) {
        let Some(live) = &mut self.live else { return };
        if self.stop.load(Ordering::Acquire) != RUNNING {
            let why = match self.stop.load(Ordering::Acquire) {
                STOP_WALL => IsolateError::Wall(self.wall),
                _ => IsolateError::Stopped,
            };
            return self.end(Status::Stopped(why));
        }
        let shared = Arc::clone(&live.shared);
        live.store.set_epoch_deadline(1);
        live.store.data_mut().begin_slice();
        let outcome = shared.ticking(|| run(live));
        let guest = live.store.data_mut();
        guest.end_slice();
        self.usage = guest.usage;
        self.calls.append(&mut guest.calls);
        self.cancelled.append(&mut guest.cancelled);
        self.log.append(&mut guest.log);
        let stopped = guest.stopped.take();
        let end = guest.end.take();
        let over = guest.usage.cpu > guest.limits.cpu;
        let (cpu, memory) = (guest.limits.cpu, guest.memory_limit());
        let status = match (outcome, stopped, end) {
            (_, Some(why), _) => Status::Stopped(why),
            (Err(error), None, _) => Status::Stopped(trapped(&error)),
            (Ok(_), None, Some(End::Value(value))) => Status::Completed(value),
            (Ok(_), None, Some(End::Threw(value))) => threw(value, memory),
            (Ok(0), None, None) if over => Status::Stopped(IsolateError::Cpu(cpu)),
            (Ok(0), None, None) => return,
            (Ok(2), None, None) => Status::Stopped(IsolateError::Deadlock),
            (Ok(_), None, None) => {
                Status::Stopped(IsolateError::Fault("it ended without a result".to_owned()))
            }
        };
        self.end(status);
    }

    /// The program has ended: its memory and its slot are free at once.
    fn end(&mut self, status: Status) {
        if let Some(live) = self.live.take() {
            self.unanswered = live.store.data().waiting.keys().copied().collect();
        }
        self.status = status;
    }
}

/// What the engine's own checks throw is a limit: recursion that of the stack; a request for more than a
/// 32-bit memory can ever hold, which never reaches the host, that of memory.
fn threw(value: Value, memory: u64) -> Status {
    let error = match &value {
        Value::Error(error) => (error.name.as_str(), error.message.as_str()),
        _ => return Status::Threw(value),
    };
    match error {
        ("RangeError", "Maximum call stack size exceeded") => Status::Stopped(IsolateError::Stack),
        ("InternalError", "out of memory") => Status::Stopped(IsolateError::Memory(memory)),
        _ => Status::Threw(value),
    }
}

fn trapped(error: &wasmtime::Error) -> IsolateError {
    match error.downcast_ref::<Trap>() {
        Some(Trap::StackOverflow) => IsolateError::Stack,
        Some(trap) => IsolateError::Fault(trap.to_string()),
        None => IsolateError::Fault(format!("{error:#}")),
    }
}

fn start_message(program: &Program, bindings: &Bindings, start: &Start) -> Vec<u8> {
    let mut out = Writer::default();
    out.bytes.reserve(program.len() + 512);
    out.float(millis(start.now));
    out.bytes.extend_from_slice(&start.seed);
    out.number(u64::from(start.limits.call_bytes));
    out.number(u64::from(start.limits.output));
    bindings.write(&mut out);
    program.write(&mut out);
    out.text(start.entry.as_bytes());
    out.value(&start.input);
    out.bytes
}

fn answer_message(id: u32, answer: &Answer, now: Timestamp, limit: u32) -> Vec<u8> {
    let mut out = Writer::default();
    out.float(millis(now));
    out.number(u64::from(id));
    let head = out.bytes.len();
    match answer {
        Answer::Value(value) => {
            out.bytes.push(0);
            out.value(value);
        }
        Answer::Error(error) => {
            out.bytes.push(1);
            out.error(error);
        }
        Answer::Timer => out.bytes.push(2),
    }
    let size = out.bytes.len() - head;
    if size > usize::try_from(limit).unwrap_or(usize::MAX) {
        out.bytes.truncate(head);
        out.bytes.push(1);
        let text =
            format!("the result of the call has {size} bytes, {limit} are allowed; ask for less");
        out.error(&Thrown::new("RangeError", text));
    }
    out.bytes
}

fn millis(time: Timestamp) -> f64 {
    time.as_millis() as f64
}
