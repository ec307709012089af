//! The engine of all isolates of a process: settings, image, pool, and the tick that stops programs.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, InstancePre, Linker, Module, ModuleExport,
    OptLevel, PoolingAllocationConfig, Store,
};

use super::admission::{Admission, Slot};
use super::guest::{self, Guest};
use super::{IsolateError, Limits, module_cache};

/// The guest, booted; `guest/build.sh` and `cargo xtask guest` make it.
pub(super) const IMAGE: &[u8] = include_bytes!("../../guest/image.wasm");
/// Its SHA-256 in hexadecimal digits and a newline.
const IMAGE_SHA256: &str = include_str!("../../guest/image.sha256");

/// How many milliseconds pass between two looks at a running program.
const TICK: Duration = Duration::from_millis(1);
/// For how many ticks the thread goes on when nothing runs, so that runs soon after need not wake it.
const LINGER: u32 = 100;

/// Settings of [`Isolates`].
#[derive(Clone, Debug)]
pub struct IsolatesOptions {
    /// A folder of this user (made with mode 0700) that keeps the compiled engine between processes.
    /// Without it each start compiles for about a second. Default none.
    pub cache: Option<PathBuf>,
    /// Isolates that live at the same time in this process. Default 1,000, at most 10,000.
    pub live: u32,
    /// How many of them one owner may have. Default 100.
    pub live_per_owner: u32,
    /// How many of all may be busy: admitted by [`Isolates::admit_busy`] and not yet at
    /// [`Isolate::rest`](super::Isolate::rest). It keeps the memory of many short programs small. Default 64.
    pub busy: u32,
    /// Programs that may wait for an isolate. Default 10,000.
    pub waiting: u32,
    /// Memory of all isolates together, in bytes. Default 4 GiB.
    pub memory: u64,
}

impl Default for IsolatesOptions {
    fn default() -> Self {
        Self {
            cache: None,
            live: 1_000,
            live_per_owner: 100,
            busy: 64,
            waiting: 10_000,
            memory: 4 << 30,
        }
    }
}

/// Makes isolates. Cheap to clone; one for a process is enough.
#[derive(Clone)]
pub struct Isolates {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) engine: Engine,
    /// SHA-256 of the image in hexadecimal digits.
    pub(super) image: String,
    bytes: Bytes,
    cache: Option<PathBuf>,
    pub(super) pre: InstancePre<Guest>,
    pub(super) exports: Exports,
    /// The memory that every isolate starts with.
    pub(super) base: Vec<u8>,
    pub(super) memory_limit: u64,
    /// The same for all images of an engine, as are who waits and the tick.
    pub(super) memory_used: Arc<AtomicU64>,
    pub(super) admission: Arc<Admission>,
    ticker: Arc<TickerHandle>,
}

/// The tick ends when nobody uses the engine any more.
struct TickerHandle(Arc<Ticker>);

impl Drop for TickerHandle {
    fn drop(&mut self) {
        self.0.closed.store(true, Ordering::Release);
        self.0.nudge();
    }
}

pub(super) struct Exports {
    pub(super) memory: ModuleExport,
    pub(super) stack: ModuleExport,
    pub(super) alloc: ModuleExport,
    pub(super) start: ModuleExport,
    pub(super) settle: ModuleExport,
}

impl std::fmt::Debug for Isolates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Isolates").finish_non_exhaustive()
    }
}

impl Isolates {
    /// Starts the engine: milliseconds with a warm cache, about a second of compiling without.
    ///
    /// # Errors
    /// [`IsolateError::Engine`] when this machine cannot run it, for example for want of address space.
    pub fn open(options: &IsolatesOptions) -> Result<Self, IsolateError> {
        let live = options.live.clamp(1, 10_000);
        let engine = Engine::new(&config(live)).map_err(failed)?;
        let ticker = Ticker::start(engine.clone())?;
        Shared::open(
            &Bytes::from_static(IMAGE),
            image_hash().to_owned(),
            Around {
                engine,
                cache: options.cache.clone(),
                memory_limit: options.memory,
                memory_used: Arc::default(),
                admission: Admission::new(options, live),
                ticker: Arc::new(TickerHandle(ticker)),
            },
        )
    }

    /// The same engine with another image, for programs that were saved with that one. All images of an
    /// engine share its limits and its room. It compiles for about a second where the cache has not got it.
    ///
    /// # Errors
    /// [`IsolateError::SavedImage`] when `bytes` are not the image with this SHA-256, [`IsolateError::Engine`]
    /// when they are no image that this engine can run.
    pub fn with_image(&self, bytes: &Bytes, hash: &str) -> Result<Self, IsolateError> {
        use std::fmt::Write as _;
        let digest = Sha256::digest(bytes);
        let found = digest.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        });
        if found != hash {
            return Err(IsolateError::SavedImage);
        }
        let shared = &self.shared;
        let around = Around {
            engine: shared.engine.clone(),
            cache: shared.cache.clone(),
            memory_limit: shared.memory_limit,
            memory_used: Arc::clone(&shared.memory_used),
            admission: Arc::clone(&shared.admission),
            ticker: Arc::clone(&shared.ticker),
        };
        Shared::open(bytes, found, around)
    }

    /// Waits for room for one more isolate. Owners (an agent's name, for example) take turns, so that
    /// one that asks for many does not hold up the others.
    ///
    /// # Errors
    /// [`IsolateError::QueueFull`] when too many wait already.
    pub async fn admit(&self, owner: &str) -> Result<Slot, IsolateError> {
        self.shared.admission.admit(owner, false).await
    }

    /// The same for a program that counts as busy until it ends, or its caller says that it waits for
    /// something that takes its time: see [`IsolatesOptions::busy`].
    ///
    /// # Errors
    /// As [`Isolates::admit`].
    pub async fn admit_busy(&self, owner: &str) -> Result<Slot, IsolateError> {
        self.shared.admission.admit(owner, true).await
    }

    /// Room for one more isolate, if there is some and nobody waits for it.
    pub fn try_admit(&self, owner: &str) -> Option<Slot> {
        self.shared.admission.try_admit(owner, false)
    }

    /// The identity of the image, on which saved programs depend: a SHA-256 in hexadecimal digits.
    pub fn image(&self) -> &str {
        &self.shared.image
    }

    /// The image itself. Who saves programs keeps it beside them: another version may begin with another
    /// image, and goes on with those through [`Isolates::with_image`].
    pub fn image_bytes(&self) -> Bytes {
        self.shared.bytes.clone()
    }
}

/// What all images of an engine have in common.
struct Around {
    engine: Engine,
    cache: Option<PathBuf>,
    memory_limit: u64,
    memory_used: Arc<AtomicU64>,
    admission: Arc<Admission>,
    ticker: Arc<TickerHandle>,
}

fn failed(error: wasmtime::Error) -> IsolateError {
    IsolateError::Engine(format!("{error:#}"))
}

impl Shared {
    fn open(bytes: &Bytes, image: String, around: Around) -> Result<Isolates, IsolateError> {
        let Around {
            engine,
            cache,
            memory_limit,
            memory_used,
            admission,
            ticker,
        } = around;
        let module = module_cache::module(&engine, bytes, &image, cache.as_deref())?;
        let mut linker = Linker::new(&engine);
        guest::link(&mut linker).map_err(failed)?;
        let pre = linker.instantiate_pre(&module).map_err(failed)?;
        let exports = Exports::new(&module)?;
        let mut store = Store::new(&engine, Guest::idle());
        store.set_epoch_deadline(u64::MAX / 2);
        let instance = pre.instantiate(&mut store).map_err(failed)?;
        let base = instance
            .get_memory(&mut store, "memory")
            .map(|memory| memory.data(&store).to_vec())
            .unwrap_or_default();
        drop(store);
        Ok(Isolates {
            shared: Arc::new(Self {
                engine,
                image,
                bytes: bytes.clone(),
                cache,
                pre,
                exports,
                base,
                memory_limit,
                memory_used,
                admission,
                ticker,
            }),
        })
    }
}

fn image_hash() -> &'static str {
    IMAGE_SHA256.trim_ascii_end()
}

impl Exports {
    fn new(module: &Module) -> Result<Self, IsolateError> {
        let export = |name: &str| {
            module
                .get_export_index(name)
                .ok_or_else(|| IsolateError::Engine(format!("the image has no export {name}")))
        };
        Ok(Self {
            memory: export("memory")?,
            stack: export("__stack_pointer")?,
            alloc: export("sb_alloc")?,
            start: export("sb_start")?,
            settle: export("sb_settle")?,
        })
    }
}

fn config(live: u32) -> Config {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_core_instances(live)
        .total_memories(live)
        .total_tables(live)
        .max_memories_per_module(1)
        .max_tables_per_module(1)
        .table_elements(4_096)
        .max_memory_size(usize::try_from(Limits::MEMORY_MAX).unwrap_or(usize::MAX))
        .max_unused_warm_slots(64)
        .linear_memory_keep_resident(4 << 20)
        .table_keep_resident(64 << 10)
        .pagemap_scan(if swapless() {
            Enabled::Auto
        } else {
            Enabled::No
        });
    let mut config = Config::new();
    config
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
        .memory_init_cow(true)
        .memory_guaranteed_dense_image_size(64 << 20)
        .memory_reservation(4 << 30)
        .memory_guard_size(32 << 20)
        .epoch_interruption(true)
        // Code runs on threads that may have 2 MiB of stack.
        .max_wasm_stack(1 << 20)
        .cranelift_opt_level(OptLevel::Speed)
        .wasm_backtrace_max_frames(None)
        .wasm_multi_memory(false)
        .wasm_relaxed_simd(false)
        .wasm_tail_call(false)
        .wasm_memory64(false);
    config
}

/// Whether no page of this process can ever be swapped out. Only then may wasmtime find dirty pages
/// with `PAGEMAP_SCAN`: it does not see those that were swapped out, so the next program in the slot
/// would find them.
fn swapless() -> bool {
    let no_areas =
        std::fs::read_to_string("/proc/swaps").is_ok_and(|text| text.lines().count() <= 1);
    // Compressed memory that was set up is about to be one.
    let zram = std::fs::read_to_string("/sys/block/zram0/disksize");
    no_areas && zram.map_or(true, |size| size.trim() == "0")
}

/// Moves the engine's epoch while something runs; sleeps otherwise.
struct Ticker {
    running: AtomicUsize,
    closed: AtomicBool,
    idle: Mutex<bool>,
    wake: Condvar,
}

impl Ticker {
    fn start(engine: Engine) -> Result<Arc<Self>, IsolateError> {
        let ticker = Arc::new(Self {
            running: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            idle: Mutex::new(false),
            wake: Condvar::new(),
        });
        let this = Arc::clone(&ticker);
        std::thread::Builder::new()
            .name("isolate-tick".to_owned())
            .spawn(move || this.run(&engine))
            .map_err(|error| IsolateError::Engine(error.to_string()))?;
        Ok(ticker)
    }

    fn run(&self, engine: &Engine) {
        let mut unused = 0;
        while !self.closed.load(Ordering::Acquire) {
            std::thread::sleep(TICK);
            engine.increment_epoch();
            unused = if self.running.load(Ordering::Acquire) == 0 {
                unused + 1
            } else {
                0
            };
            if unused > LINGER {
                let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
                *idle = true;
                while self.running.load(Ordering::SeqCst) == 0
                    && !self.closed.load(Ordering::Acquire)
                {
                    idle = self.wake.wait(idle).unwrap_or_else(PoisonError::into_inner);
                }
                *idle = false;
                unused = 0;
            }
        }
    }

    fn enter(&self) {
        if self.running.fetch_add(1, Ordering::SeqCst) == 0 {
            self.nudge();
        }
    }

    fn nudge(&self) {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if *idle {
            self.wake.notify_one();
        }
    }

    fn leave(&self) {
        self.running.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Shared {
    /// While the guest runs, the tick does.
    pub(super) fn ticking<T>(&self, run: impl FnOnce() -> T) -> T {
        struct Leave<'a>(&'a Ticker);
        impl Drop for Leave<'_> {
            fn drop(&mut self) {
                self.0.leave();
            }
        }
        self.ticker.0.enter();
        let _leave = Leave(&self.ticker.0);
        run()
    }
}
