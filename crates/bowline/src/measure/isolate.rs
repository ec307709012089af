//! What an isolate costs: the figures of `bowline bench isolate`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bowline_sandbox::isolate::{
    Answer, Bindings, Isolate, IsolateError, Isolates, IsolatesOptions, Limits, Program, Start,
    Status, Value,
};
use bowline_store::Timestamp;
use serde::Serialize;

use super::native;
use crate::error::Error;

const TRIVIAL: &str = "1 + 1";
const THREE_CALLS: &str = "async () => { const a = await host.one(1); const b = await host.two({ a }); \
    const c = await host.three([a, b]); return [a, b, c] }";
const MANY_CALLS: &str =
    "async () => { let n = 0; for (let i = 0; i < 1000; i++) n = await host.one(n); return n }";
const PARKED: &str = "async () => (await host.one({ ask: 'go on?' })).length";
const PARKED_MORE: &str = "async () => { const list = Array.from({ length: 200 }, (_, i) => ({ id: i, name: 'item ' + i })); \
    const byName = new Map(list.map((x) => [x.name, x])); const answer = await host.one(list.length); return byName.size + answer }";
const KERNELS: [(&str, &str); 4] = [
    (
        "fib(27)",
        "const fib = (n) => n < 2 ? n : fib(n - 1) + fib(n - 2); fib(27)",
    ),
    (
        "JSON, 20,000 round trips",
        "const t = JSON.stringify({ a: [1, 2, 3], b: { c: 'text', d: null } }); let n = 0; \
        for (let i = 0; i < 20000; i++) n += JSON.stringify(JSON.parse(t)).length; n",
    ),
    (
        "strings, 100,000 parts",
        "let s = ''; for (let i = 0; i < 100000; i++) s += 'line ' + i + '\\n'; s.split('\\n').map((l) => l.toUpperCase()).join('-').length",
    ),
    (
        "regex, 20,000 matches",
        "const s = 'key=value; '.repeat(20000); [...s.matchAll(/(\\w+)=(\\w+)/g)].length + s.replace(/value/g, 'x').length",
    ),
];

/// The CPU time of what never ends by itself.
const BUDGET: Duration = Duration::from_millis(50);
const ENDLESS: [(&str, &str); 12] = [
    ("loop", "for (;;) try { for (;;); } catch {}"),
    ("regex", "/(a+)+$/.test('a'.repeat(60) + 'b')"),
    ("comparator", "[3, 1, 2].sort(() => { for (;;); })"),
    ("sort", "new Array(3e6).fill(1).sort()"),
    ("proxy", "new Proxy({}, { get() { for (;;); } }).x"),
    ("join", "const a = []; a.length = 2 ** 32 - 1; a.join('')"),
    (
        "JSON",
        "const t = JSON.stringify(new Array(1e4).fill([1, 'x'])); for (;;) JSON.parse(t)",
    ),
    (
        "strings",
        "for (;;) { let s = ''; for (let i = 0; i < 1e4; i++) s += i }",
    ),
    ("BigInt", "(3n ** 4000000n).toString()"),
    (
        "promises",
        "const on = () => Promise.resolve().then(on); await on()",
    ),
    (
        "generator",
        "for (const x of (function* () { for (;;) yield 1 })());",
    ),
    ("parser", "for (;;) eval('(1)')"),
];

/// How much is measured.
#[derive(Clone, Debug)]
pub struct Amount {
    /// Runs for each latency.
    pub runs: usize,
    /// Isolates that live at the same time.
    pub live: u32,
    /// Programs that are parked.
    pub parked: usize,
    /// A native QuickJS to compare loops with: what `PROGRAM FILE.js` runs, with `print`.
    pub qjs: Option<PathBuf>,
}

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// What was measured.
    pub what: String,
    /// The value, or the median.
    pub value: f64,
    /// The 99th of a hundred, where there are many.
    pub p99: Option<f64>,
    /// The unit of both.
    pub unit: &'static str,
}

/// A whole run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Figures {
    /// The rows, in the order they were measured.
    pub rows: Vec<Figure>,
    /// What could not be measured, and why.
    pub notes: Vec<String>,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<58} {:>12} {:>12}", "", "value or p50", "p99")?;
        for figure in &self.rows {
            let p99 = figure
                .p99
                .map(|p99| format!("{p99:.3}"))
                .unwrap_or_default();
            writeln!(
                f,
                "{:<58} {:>12.3} {p99:>12} {}",
                figure.what, figure.value, figure.unit
            )?;
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "{note}"))
    }
}

impl Figures {
    pub(super) fn add(&mut self, what: impl Into<String>, value: f64, unit: &'static str) {
        self.rows.push(Figure {
            what: what.into(),
            value,
            p99: None,
            unit,
        });
    }

    /// Adds the median and the 99th of a hundred, and tells the median in milliseconds.
    fn times(&mut self, what: impl Into<String>, mut times: Vec<Duration>) -> f64 {
        times.sort_unstable();
        let at = |part: usize| {
            times
                .get(times.len() * part / 100)
                .map_or(0.0, |t| t.as_secs_f64() * 1e3)
        };
        self.rows.push(Figure {
            what: what.into(),
            value: at(50),
            p99: Some(at(99)),
            unit: "ms",
        });
        at(50)
    }
}

/// Measures everything; `dir` takes the compiled engine.
///
/// # Errors
/// When the engine cannot be started, or a program does not end as it must.
pub fn isolates(dir: &Path, amount: Amount) -> Result<Figures, Error> {
    Ok(measure(dir, amount)?)
}

fn measure(dir: &Path, amount: Amount) -> Result<Figures, IsolateError> {
    let mut figures = Figures::default();
    let options = IsolatesOptions {
        cache: Some(dir.join(super::agents::CACHE)),
        live: amount.live.max(64),
        live_per_owner: u32::MAX,
        ..IsolatesOptions::default()
    };
    let begin = Instant::now();
    drop(Isolates::open(&options)?);
    figures.add(
        "boot, engine compiled",
        begin.elapsed().as_secs_f64() * 1e3,
        "ms",
    );
    let begin = Instant::now();
    let isolates = Isolates::open(&options)?;
    figures.add(
        "boot, engine from the cache",
        begin.elapsed().as_secs_f64() * 1e3,
        "ms",
    );
    let bench = Bench {
        isolates,
        bindings: Bindings::none()
            .with("host", ["one", "two", "three"])
            .unwrap_or_default(),
    };
    let native = native::kernels(dir, amount.qjs.as_deref(), &KERNELS);
    bench.fresh(amount.runs, &mut figures)?;
    bench.calls(&mut figures)?;
    bench.saved(&amount, &mut figures)?;
    bench.live(amount.live, &mut figures)?;
    bench.kernels(native, &mut figures)?;
    bench.stopped(&mut figures)?;
    types(&mut figures)?;
    Ok(figures)
}

struct Bench {
    isolates: Isolates,
    bindings: Bindings,
}

impl Bench {
    fn start(&self, program: &Program, limits: &Limits) -> Result<Isolate, IsolateError> {
        let slot = self
            .isolates
            .try_admit("bench")
            .ok_or(IsolateError::QueueFull(0))?;
        let mut start = Start::new([7; 32], now());
        start.limits = limits.clone();
        self.isolates.start(slot, program, &self.bindings, &start)
    }

    fn run(&self, program: &Program) -> Result<Isolate, IsolateError> {
        let limits = Limits {
            cpu: Duration::from_secs(60),
            ..Limits::default()
        };
        let mut isolate = self.start(program, &limits)?;
        while *isolate.status() == Status::Waiting {
            for call in isolate.take_calls() {
                isolate.answer(call.id, &Answer::Value(Value::Number(1.0)), now())?;
            }
        }
        match isolate.status() {
            Status::Completed(_) => Ok(isolate),
            Status::Stopped(error) => Err(error.clone()),
            Status::Waiting | Status::Threw(_) => Err(IsolateError::Stopped),
        }
    }

    fn fresh(&self, runs: usize, figures: &mut Figures) -> Result<(), IsolateError> {
        for (what, source) in [
            ("fresh isolate to its result, 1 + 1", TRIVIAL),
            ("fresh isolate, three calls", THREE_CALLS),
        ] {
            let program = Program::new("main.ts", source)?;
            for threads in [1, 16] {
                let begin = Instant::now();
                let (times, cpu) = self.timed(&program, runs, threads)?;
                let all = begin.elapsed();
                figures.times(format!("{what}, {threads} threads"), times);
                figures.add(
                    format!("{what}, {threads} threads, runs"),
                    per_second(runs, all),
                    "1/s",
                );
                if threads == 1 {
                    let each = cpu.as_secs_f64() * 1e3 / float(runs.max(1));
                    figures.add(format!("{what}, CPU time of each"), each, "ms");
                }
            }
        }
        Ok(())
    }

    fn times(
        &self,
        program: &Program,
        runs: usize,
        threads: usize,
    ) -> Result<Vec<Duration>, IsolateError> {
        Ok(self.timed(program, runs, threads)?.0)
    }

    /// How long each run took, and the CPU time of all together.
    fn timed(
        &self,
        program: &Program,
        runs: usize,
        threads: usize,
    ) -> Result<(Vec<Duration>, Duration), IsolateError> {
        let each = runs.div_ceil(threads);
        std::thread::scope(|scope| {
            let all: Vec<_> = (0..threads)
                .map(|_| {
                    scope.spawn(move || -> Result<_, IsolateError> {
                        let used = on_cpu();
                        let run = |_| {
                            let begin = Instant::now();
                            drop(self.run(program)?);
                            Ok(begin.elapsed())
                        };
                        let times: Vec<_> = (0..each).map(run).collect::<Result<_, _>>()?;
                        Ok((times, on_cpu().saturating_sub(used)))
                    })
                })
                .collect();
            let (mut times, mut cpu) = (Vec::with_capacity(runs), Duration::ZERO);
            for thread in all {
                let (own, used) = thread.join().map_err(|_| IsolateError::Stopped)??;
                times.extend(own);
                cpu += used;
            }
            Ok((times, cpu))
        })
    }

    fn calls(&self, figures: &mut Figures) -> Result<(), IsolateError> {
        let program = Program::new("main.ts", MANY_CALLS)?;
        let mut times = Vec::new();
        for _ in 0..20 {
            let begin = Instant::now();
            drop(self.run(&program)?);
            times.push(begin.elapsed() / 1_000);
        }
        figures.times("call of a binding and its answer", times);
        Ok(())
    }

    fn saved(&self, amount: &Amount, figures: &mut Figures) -> Result<(), IsolateError> {
        let key = [1; 32];
        for (what, source) in [
            ("trivial program", PARKED),
            ("200 objects and a Map", PARKED_MORE),
        ] {
            let program = Program::new("main.ts", source)?;
            let (mut saves, mut restores, mut size) = (Vec::new(), Vec::new(), 0);
            for _ in 0..amount.runs.min(500) {
                let mut isolate = self.start(&program, &Limits::default())?;
                let begin = Instant::now();
                let bytes = isolate.save(&key)?;
                saves.push(begin.elapsed());
                size = bytes.len();
                drop(isolate);
                let begin = Instant::now();
                drop(self.restore(&bytes, &key)?);
                restores.push(begin.elapsed());
            }
            figures.times(format!("save, {what}"), saves);
            figures.times(format!("restore, {what}"), restores);
            figures.add(format!("size, {what}"), float(size) / 1024.0, "KiB");
        }
        let program = Program::new("main.ts", PARKED)?;
        let begin = Instant::now();
        let parked = (0..amount.parked)
            .map(|_| self.start(&program, &Limits::default())?.save(&key))
            .collect::<Result<Vec<_>, _>>()?;
        figures.add(
            format!("{} programs started and parked", amount.parked),
            begin.elapsed().as_secs_f64() * 1e3,
            "ms",
        );
        figures.add(
            "their size together",
            float(parked.iter().map(Vec::len).sum()) / 1_048_576.0,
            "MiB",
        );
        let begin = Instant::now();
        for bytes in &parked {
            let mut isolate = self.restore(bytes, &key)?;
            isolate.answer(1, &Answer::Value(Value::from("yes")), now())?;
            if *isolate.status() != Status::Completed(Value::Number(3.0)) {
                return Err(IsolateError::Stopped);
            }
        }
        figures.add(
            "restored and finished",
            begin.elapsed().as_secs_f64() * 1e3,
            "ms",
        );
        Ok(())
    }

    fn restore(&self, bytes: &[u8], key: &[u8; 32]) -> Result<Isolate, IsolateError> {
        let slot = self
            .isolates
            .try_admit("bench")
            .ok_or(IsolateError::QueueFull(0))?;
        self.isolates
            .restore(slot, bytes, key, &self.bindings, &Limits::default(), now())
    }

    fn live(&self, live: u32, figures: &mut Figures) -> Result<(), IsolateError> {
        let program = Program::new("main.ts", PARKED)?;
        let before = (resident("Pss:"), resident("Rss:"));
        let all = (0..live)
            .map(|_| self.start(&program, &Limits::default()))
            .collect::<Result<Vec<_>, _>>()?;
        let many = f64::from(live.max(1));
        let more = (resident("Pss:") - before.0).max(0.0);
        figures.add(
            format!("memory of {} waiting isolates", all.len()),
            more / 1024.0,
            "MiB",
        );
        figures.add("memory of one", more / many, "KiB");
        let mapped = (resident("Rss:") - before.1).max(0.0);
        figures.add(
            "memory of one, the shared image counted in each",
            mapped / many,
            "KiB",
        );
        Ok(())
    }

    fn kernels(
        &self,
        native: Result<Vec<f64>, String>,
        figures: &mut Figures,
    ) -> Result<(), IsolateError> {
        let mut medians = Vec::new();
        for (what, source) in KERNELS {
            let program = Program::new("main.ts", source)?;
            let times = self.times(&program, native::ROUNDS, 1)?;
            medians.push(figures.times(what, times));
        }
        match native {
            Ok(native) => {
                for (((what, _), ours), theirs) in KERNELS.iter().zip(medians).zip(native) {
                    figures.add(format!("{what}, native QuickJS"), theirs, "ms");
                    let ratio = ours / theirs.max(1e-6);
                    figures.add(format!("{what}, ratio to native QuickJS"), ratio, "times");
                }
            }
            Err(why) => figures.notes.push(why),
        }
        Ok(())
    }

    /// How far beyond its budget a program gets before it is stopped, for each form of endless code. Beside
    /// it, in a second thread, an ordinary program runs again and again.
    fn stopped(&self, figures: &mut Figures) -> Result<(), IsolateError> {
        let limits = Limits {
            cpu: BUDGET,
            memory: 256 << 20,
            ..Limits::default()
        };
        let ordinary = Program::new("main.ts", TRIVIAL)?;
        let (over, mut beside) = (AtomicBool::new(false), Ok(Vec::new()));
        std::thread::scope(|scope| {
            let other = scope.spawn(|| {
                let mut times = Vec::new();
                while !over.load(Ordering::Acquire) {
                    times.extend(self.times(&ordinary, 1, 1)?);
                }
                Ok(times)
            });
            let outcome = self.forms(&limits, figures);
            over.store(true, Ordering::Release);
            beside = other.join().map_err(|_| IsolateError::Stopped)?;
            outcome
        })?;
        figures.times("1 + 1 beside those forms", beside?);
        Ok(())
    }

    fn forms(&self, limits: &Limits, figures: &mut Figures) -> Result<(), IsolateError> {
        for (what, source) in ENDLESS {
            let program = Program::new("main.ts", source)?;
            let (mut used, mut excess, mut ends) = (Vec::new(), Vec::new(), String::new());
            for _ in 0..5 {
                let begin = Instant::now();
                let isolate = self.start(&program, limits)?;
                let wall = begin.elapsed();
                // Some use up their memory before their time; an end by any limit is one.
                match isolate.status() {
                    Status::Stopped(IsolateError::Cpu(_)) => {}
                    Status::Stopped(error) => ends = format!(" (ended by {})", error.code()),
                    Status::Waiting | Status::Completed(_) | Status::Threw(_) => {
                        return Err(IsolateError::Fault(format!("{what} ended by itself")));
                    }
                }
                used.push(isolate.usage().cpu);
                excess.push(wall.saturating_sub(BUDGET));
            }
            figures.times(format!("budget of 50 ms, {what}{ends}: CPU used"), used);
            figures.times(
                format!("budget of 50 ms, {what}{ends}: wall beyond it"),
                excess,
            );
        }
        Ok(())
    }
}

fn types(figures: &mut Figures) -> Result<(), IsolateError> {
    let part = "interface Row { id: number; name?: string }\nenum Kind { A, B = 4 }\n\
        class Store<T extends Row> { constructor(private readonly rows: T[]) {}\n  find(id: number): T | undefined { return this.rows.find((r) => r.id === id) }\n}\n\
        const store = new Store<Row>([{ id: Kind.B, name: 'x' } as Row]);\nconst found = store.find(4)!;\n\
        export function describe(row: Row | undefined): string {\n  return row?.name ?? 'none';\n}\n";
    for (lines, runs) in [(50, 200), (2_000, 20)] {
        let mut source = String::new();
        for n in 0..lines / 10 {
            let text = part
                .replace("Store", &format!("Store{n}"))
                .replace("Row", &format!("Row{n}"))
                .replace("Kind", &format!("Kind{n}"))
                .replace("store", &format!("store{n}"))
                .replace("found", &format!("found{n}"))
                .replace("describe", &format!("describe{n}"));
            source.push_str(&text);
        }
        let mut times = Vec::new();
        for _ in 0..runs {
            let begin = Instant::now();
            Program::new("main.ts", &source)?;
            times.push(begin.elapsed());
        }
        figures.times(format!("types stripped, {lines} lines"), times);
    }
    Ok(())
}

fn now() -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000)
}

fn float(number: usize) -> f64 {
    number as f64
}

fn per_second(runs: usize, all: Duration) -> f64 {
    float(runs) / all.as_secs_f64().max(1e-9)
}

/// The CPU time of this thread; zero where `/proc` does not tell it.
fn on_cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = text
        .split_whitespace()
        .next()
        .and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
}

/// A line of `/proc/self/status` in KiB; 0 where it is missing.
pub(super) fn memory_kib(what: &str) -> f64 {
    line_of("/proc/self/status", what)
}

/// Memory of this process in KiB; 0 where `/proc` is missing. All isolates map the pages of the image that
/// they have not changed: `Pss:` counts a page that several mappings share once, `Rss:` in each.
fn resident(what: &str) -> f64 {
    line_of("/proc/self/smaps_rollup", what)
}

fn line_of(file: &str, what: &str) -> f64 {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(what));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number.and_then(|number| number.parse().ok()).unwrap_or(0.0)
}
