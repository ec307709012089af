//! A run of code in a process of its own that is killed with SIGKILL, at each point where something can
//! be half done: around each commit, and before and after what each call does.
//!
//! The process is this test binary again. At the point that it is told it says so and stands still; then
//! it is killed from outside. What acts outside asks a service of the parent, which counts. By default
//! every fifth point is tried; `BOWLINE_CODE_KILLS=all cargo test -p bowline-agent --test it code::kill`
//! tries all of them, and kills the process that takes over as well.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bowline_agent::{
    binding::{Binding, CallError, Method},
    tool::{Effect, OnCrash, ToolContext},
};
use bowline_runtime::{Clock as _, Outcome};
use bowline_sandbox::{
    isolate::{Isolates, IsolatesOptions, Value},
    workspace::WriteOptions,
};
use bowline_store::{Batch, CommitError, Seq, SqliteOptions, SqliteStore, Store};
use bowline_testkit::faults::{Death, Fault, Faulty};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use super::{approve, outcome, stage};
use crate::stage::{instance, lines};

/// The variable that makes a test the process that is killed.
const PART: &str = "BOWLINE_CODE_KILL_PART";

/// Ten awaited calls: three act outside, one of them with consent; three write files. The random number
/// shows whether it is the same run that goes on.
const SCRIPT: &str = "async () => {
  const lucky = String(Math.random());
  const made = async (call) => { try { return (await call).sent } catch (error) { return error.name } };
  await book.note(lucky);
  const ann = await made(book.pay('ann', 1));
  await book.note('b');
  const balance = await book.look();
  const bob = await made(book.send('bob', 2));
  await book.note('c');
  const eve = await made(book.pay('eve', 3));
  await tools.write({ path: 'more.txt', content: 'd' });
  const more = await tools.read({ path: 'more.txt' });
  const log = await book.read();
  return [ann, bob, eve, balance, log === lucky + 'bc', more];
}";

/// What the process is to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Part {
    /// Where its data is.
    data: String,
    /// Where compiled engines are kept.
    cache: String,
    /// The port of the service.
    service: u16,
    /// The point at which it stands still; 0 is none.
    point: u64,
    /// What becomes of an effect that was cut.
    on_crash: OnCrash,
    /// It stands still once it waits for a person.
    parks: bool,
    /// Its agent is another version: told otherwise, with more to call.
    newer: bool,
}

/// Counts the points that the process passes.
#[derive(Debug)]
struct Points {
    passed: AtomicU64,
    stop: u64,
}

impl Points {
    fn pass(&self, what: &str) {
        if self.passed.fetch_add(1, Ordering::SeqCst) + 1 == self.stop {
            stand_still(what);
        }
    }
}

/// Says so, and does nothing any more.
fn stand_still(what: &str) -> ! {
    let mut out = std::io::stdout();
    let _ = writeln!(out, "STANDS {what}");
    let _ = out.flush();
    loop {
        std::thread::park();
    }
}

/// Passes a point around each commit.
#[derive(Debug)]
struct Commits(Arc<Points>);

#[async_trait]
impl Fault for Commits {
    fn is_dead(&self) -> bool {
        false
    }

    async fn commit(&self, inner: &dyn Store, batch: Batch) -> Result<Seq, CommitError> {
        self.0.pass("before a commit");
        let done = inner.commit(batch).await;
        self.0.pass("after a commit");
        done
    }
}

/// What the program calls.
struct Book {
    methods: Vec<Method>,
    points: Arc<Points>,
    service: u16,
}

impl Book {
    fn new(part: &Part, points: Arc<Points>) -> Self {
        let outside = |name: &str| {
            Method::new(name, "Moves money.")
                .takes("to", json!({"type": "string"}))
                .takes("amount", json!({"type": "number"}))
                .effect(Effect::Outside(part.on_crash))
        };
        let mut asked = outside("send");
        asked.approval = true;
        let inside = |name: &str| Method::new(name, "Keeps a log.").effect(Effect::None);
        let note = inside("note").takes("text", json!({"type": "string"}));
        let mut methods = vec![outside("pay"), asked, note, inside("read"), inside("look")];
        if part.newer {
            methods.insert(0, inside("burn"));
        }
        Self {
            methods,
            points,
            service: part.service,
        }
    }

    async fn act(
        &self,
        context: &ToolContext,
        method: &str,
        arguments: &[Value],
    ) -> Result<Value, CallError> {
        const LOG: &str = "/workspace/log.txt";
        let thrown = |error: &dyn std::fmt::Display| CallError::new("Error", error.to_string());
        let read = async || {
            let files = context.files.as_ref().unwrap();
            let bytes = files.read(LOG).await.unwrap_or_default();
            String::from_utf8(bytes.to_vec()).unwrap()
        };
        match method {
            "look" => Ok(Value::integer(100)),
            "read" => Ok(Value::from(read().await.as_str())),
            "note" => {
                let text = read().await + arguments[0].as_str().unwrap();
                let files = context.files.as_ref().unwrap();
                let options = WriteOptions::with_parents();
                let written = files.write(LOG, text.into_bytes().into(), &options).await;
                written.map_err(|error| thrown(&error))?;
                Ok(Value::Undefined)
            }
            _ => {
                let mut service = TcpStream::connect(("127.0.0.1", self.service)).unwrap();
                let told = json!({"effect": context.effect_id, "to": arguments[0].to_json()});
                writeln!(service, "{told}").unwrap();
                let mut done = String::new();
                BufReader::new(service).read_line(&mut done).unwrap();
                Ok(Value::from(json!({"sent": arguments[1].to_json()})))
            }
        }
    }
}

#[async_trait]
impl Binding for Book {
    fn name(&self) -> &str {
        "book"
    }

    fn description(&self) -> &str {
        "Money, and a log."
    }

    fn methods(&self) -> &[Method] {
        &self.methods
    }

    async fn call(
        &self,
        context: &ToolContext,
        method: &str,
        arguments: Vec<Value>,
    ) -> Result<Value, CallError> {
        self.points.pass(&format!("before {method}"));
        let done = self.act(context, method, &arguments).await;
        self.points.pass(&format!("after {method}"));
        done
    }
}

impl Part {
    /// What this process is to do, if it is the one that is killed.
    fn of_environment() -> Option<Self> {
        let text = std::env::var(PART).ok()?;
        Some(serde_json::from_str(&text).unwrap())
    }

    fn play(self) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(self.work());
    }

    async fn work(self) {
        let points = Arc::new(Points {
            passed: AtomicU64::new(0),
            stop: self.point,
        });
        let data = Path::new(&self.data);
        let store = SqliteStore::open(data, SqliteOptions::default()).unwrap();
        let mut stage = stage(SCRIPT);
        stage.engine = Some(engine(Path::new(&self.cache)));
        stage.bindings = vec![Arc::new(Book::new(&self, points.clone()))];
        if self.newer {
            stage.instruct("Do the work as it is done now.");
        }
        // Time goes on where the process before was.
        let records = store.read(&instance(), 0, 10_000).await.unwrap();
        if let Some(last) = records.last() {
            let gone = last.record.time.since(stage.clock.now());
            stage.clock.advance(gone + Duration::from_secs(1));
        }
        stage.store = Faulty::with(store.clone(), Commits(points.clone()));
        let process = stage.process(Death::Never);
        let receipt = process.send_keyed("Go", "k").await.unwrap();
        process.runtime.resume().await.unwrap();
        if self.parks {
            let mut follow = process.agents.observers().observe(&instance());
            while stage.conversation().await.approvals.is_empty() {
                follow.recv().await.unwrap();
            }
            // The commit that parks it comes right after the request was told.
            process.runtime.drain(Duration::from_secs(60)).await;
            stand_still("parked");
        }
        approve(&stage, &process).await;
        let settled = process.settled(&receipt).await.unwrap();
        assert_eq!(settled.outcome, Outcome::Completed, "{:?}", settled.error);
        let outcome = outcome(&stage).await;
        let conversation = stage.conversation().await;
        assert_eq!(conversation.settlements.len(), 1);
        assert_eq!(lines(&conversation).last().unwrap(), "assistant: Done. []");
        let passed = points.passed.load(Ordering::SeqCst);
        let mut out = std::io::stdout();
        writeln!(
            out,
            "ENDED {}",
            json!({"outcome": outcome, "points": passed})
        )
        .unwrap();
    }
}

fn engine(cache: &Path) -> Isolates {
    let options = IsolatesOptions {
        cache: Some(cache.to_path_buf()),
        ..IsolatesOptions::default()
    };
    Isolates::open(&options).unwrap()
}

/// A folder with the engine, which is compiled once for all processes.
fn compiled() -> String {
    let folder = std::env::temp_dir().join("bowline-test-engines");
    drop(engine(&folder));
    folder.display().to_string()
}

/// The world outside: it notes what it is asked to do.
struct Service {
    port: u16,
    /// Effect id and person, of each request.
    asked: Arc<Mutex<Vec<(String, String)>>>,
}

impl Service {
    fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked: Arc<Mutex<Vec<(String, String)>>> = Arc::default();
        let noted = asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut line = String::new();
                let mut reader = BufReader::new(stream);
                if reader.read_line(&mut line).unwrap_or(0) == 0 {
                    continue;
                }
                let told: Json = serde_json::from_str(&line).unwrap();
                let word = |key: &str| told[key].as_str().unwrap().to_owned();
                noted.lock().unwrap().push((word("effect"), word("to")));
                let _ = reader.get_mut().write_all(b"done\n");
            }
        });
        Self { port, asked }
    }

    fn take(&self) -> Vec<(String, String)> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

/// How the process came to its end.
#[derive(Debug)]
enum Came {
    /// It stood still there, and was killed.
    Killed(String),
    /// It did all of it.
    Ended(Json),
}

fn start(part: &Part, name: &str, binary: &Path) -> Child {
    Command::new(binary)
        .args(["--exact", name, "--nocapture"])
        .env(PART, serde_json::to_string(part).unwrap())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Runs the process until it stands still or ends; where it stands still it is killed.
fn live(part: &Part, name: &str, binary: &Path) -> Came {
    let mut child = start(part, name, binary);
    let out = BufReader::new(child.stdout.take().unwrap());
    for line in out.lines().map_while(Result::ok) {
        // What the test harness prints has no end of line.
        if let Some((_, point)) = line.split_once("STANDS ") {
            // SIGKILL.
            child.kill().unwrap();
            assert_eq!(child.wait().unwrap().signal(), Some(9));
            return Came::Killed(point.to_owned());
        }
        if let Some((_, ended)) = line.split_once("ENDED ") {
            assert!(child.wait().unwrap().success());
            return Came::Ended(serde_json::from_str(ended).unwrap());
        }
    }
    let output = child.wait_with_output().unwrap();
    panic!("{part:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Kills the process at these points, one after the other, and lets the last one end. The points at
/// which it was killed, and what came of it.
fn killed_at(points: &[u64], part: &Part, name: &str) -> (Vec<String>, Json) {
    let data = tempfile::tempdir().unwrap();
    let binary = std::env::current_exe().unwrap();
    let mut killed = Vec::new();
    for point in points.iter().copied().chain([0]) {
        let part = Part {
            data: data.path().display().to_string(),
            point,
            ..part.clone()
        };
        match live(&part, name, &binary) {
            Came::Killed(at) => killed.push(at),
            // The point lies behind its end.
            Came::Ended(ended) => return (killed, ended),
        }
    }
    panic!("the last process stood still");
}

/// Who got money, once for each effect.
fn people(asked: &[(String, String)]) -> Vec<String> {
    let mut known: Vec<&str> = Vec::new();
    let mut people = Vec::new();
    for (effect, person) in asked {
        if !known.contains(&effect.as_str()) {
            known.push(effect);
            people.push(person.clone());
        }
    }
    people
}

/// Looks at what came of a run: where it was killed, how it ended, and what was asked of the service.
type Check = fn(&[String], &Json, &[(String, String)]);

/// Kills a process at many points; `check` looks at what came of each.
fn campaign(name: &str, on_crash: OnCrash, check: Check) {
    let service = Service::start();
    let part = Part {
        data: String::new(),
        cache: compiled(),
        service: service.port,
        point: 0,
        on_crash,
        parks: false,
        newer: false,
    };
    let (_, whole) = killed_at(&[], &part, name);
    let all = whole["points"].as_u64().unwrap();
    assert!(all >= 36, "{all} points");
    check(&[], &whole["outcome"], &service.take());
    let every = std::env::var("BOWLINE_CODE_KILLS").is_ok_and(|which| which == "all");
    let step = if every { 1 } else { 5 };
    // Another offset for each policy.
    let first = if on_crash == OnCrash::Retry { 2 } else { 4 };
    let mut kills = 0;
    for point in (if every { 1 } else { first }..=all).step_by(step) {
        // A process that takes over has fewer points to pass.
        let points = if every {
            vec![point, 1 + point * 7 % 24]
        } else {
            vec![point]
        };
        let (killed, ended) = killed_at(&points, &part, name);
        kills += killed.len();
        check(&killed, &ended["outcome"], &service.take());
    }
    println!("{all} points, {kills} kills");
}

#[test]
fn a_process_killed_at_any_point_of_a_run_does_each_outside_effect_once() {
    if let Some(part) = Part::of_environment() {
        return part.play();
    }
    let name = "code::kill::a_process_killed_at_any_point_of_a_run_does_each_outside_effect_once";
    campaign(name, OnCrash::Retry, |killed, outcome, asked| {
        assert_eq!(outcome["status"], "completed", "{killed:?} {outcome}");
        let expected = json!([1, 2, 3, 100, true, "d"]);
        assert_eq!(outcome["result"], expected, "{killed:?} {outcome}");
        assert_eq!(people(asked), ["ann", "bob", "eve"], "{killed:?}");
        // Nothing is asked for again but what was cut between its intent and its settlement.
        assert!(asked.len() <= 3 + killed.len(), "{killed:?} {asked:?}");
    });
}

#[test]
fn an_effect_that_must_not_be_repeated_is_done_at_most_once_wherever_the_process_is_killed() {
    if let Some(part) = Part::of_environment() {
        return part.play();
    }
    let name = "code::kill::an_effect_that_must_not_be_repeated_is_done_at_most_once_wherever_the_process_is_killed";
    campaign(name, OnCrash::Unknown, |killed, outcome, asked| {
        assert_eq!(outcome["status"], "completed", "{killed:?} {outcome}");
        let result = outcome["result"].as_array().unwrap();
        assert_eq!(result[3..], [json!(100), json!(true), json!("d")]);
        let mut unknown = 0;
        for (at, (person, amount)) in [("ann", 1), ("bob", 2), ("eve", 3)].iter().enumerate() {
            let times = asked.iter().filter(|(_, to)| to == person).count();
            assert!(times <= 1, "{killed:?} {asked:?}");
            if result[at] == "InterruptedError" {
                unknown += 1;
            } else {
                assert_eq!((&result[at], times), (&json!(amount), 1), "{killed:?}");
            }
        }
        assert!(unknown <= killed.len(), "{killed:?} {outcome}");
    });
}

#[test]
fn a_parked_run_goes_on_weeks_later_in_a_newer_binary_whose_agent_changed() {
    if let Some(part) = Part::of_environment() {
        return part.play();
    }
    let name = "code::kill::a_parked_run_goes_on_weeks_later_in_a_newer_binary_whose_agent_changed";
    let service = Service::start();
    let data = tempfile::tempdir().unwrap();
    let before = Part {
        data: data.path().display().to_string(),
        cache: compiled(),
        service: service.port,
        point: 0,
        on_crash: OnCrash::Unknown,
        parks: true,
        newer: false,
    };
    let old = std::env::current_exe().unwrap();
    let Came::Killed(at) = live(&before, name, &old) else {
        panic!("it did not wait");
    };
    assert_eq!(at, "parked");
    assert_eq!(people(&service.take()), ["ann"]);
    // The new binary is another file, and finds no engine that another one compiled.
    let place = tempfile::tempdir().unwrap();
    let new = place.path().join("newer");
    std::fs::copy(&old, &new).unwrap();
    let after = Part {
        cache: place.path().join("cache").display().to_string(),
        parks: false,
        newer: true,
        ..before
    };
    // It answers three weeks after it was asked.
    let Came::Ended(ended) = live(&after, name, &new) else {
        panic!("it did not end");
    };
    assert_eq!(
        ended["outcome"]["result"],
        json!([1, 2, 3, 100, true, "d"]),
        "{ended}"
    );
    assert_eq!(people(&service.take()), ["bob", "eve"]);
}
