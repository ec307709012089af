//! Other processes: this test binary, run again with a task in its environment.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{ChildStdout, Command, Stdio},
    sync::Arc,
};

use bowline_store::{SqliteOptions, SqliteStore, Store};

use super::{actor, append, put, record};

const TASK: &str = "BOWLINE_STORE_CHILD";
/// Actors that `commit` writes for at the same time.
pub(crate) const ACTORS: u64 = 8;

/// A child process that was given a task.
pub(crate) struct Child {
    process: std::process::Child,
    output: BufReader<ChildStdout>,
}

impl Child {
    /// Starts the task, under a wrapper such as `strace` where one is given.
    pub(crate) fn start(task: &str, dir: &Path, wrapper: Option<&[&str]>) -> Self {
        let exe = std::env::current_exe().unwrap();
        let mut command = match wrapper {
            Some([program, args @ ..]) => {
                let mut command = Command::new(program);
                command.args(args).arg(exe);
                command
            }
            _ => Command::new(exe),
        };
        command.args(["--exact", "child::task", "--nocapture", "--test-threads=1"]);
        command.env(TASK, format!("{task}:{}", dir.display()));
        let mut process = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        Self { process, output }
    }

    /// The next line that the task printed; `None` at the end.
    pub(crate) fn line(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            if self.output.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            // What the test harness prints around it does not count.
            if let (Some(at), true) = (line.find("> "), line.ends_with('\n')) {
                return Some(line[at + 2..].trim_end().to_owned());
            }
        }
    }

    /// The rest of what it prints, once it has ended.
    pub(crate) fn finish(mut self) -> Vec<String> {
        let lines = std::iter::from_fn(|| self.line()).collect();
        self.process.wait().unwrap();
        lines
    }

    pub(crate) fn kill(mut self) -> Vec<String> {
        self.process.kill().unwrap();
        self.finish()
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "> {line}").unwrap();
    out.flush().unwrap();
}

/// Does nothing unless this process is a child.
#[test]
fn task() {
    let Ok(task) = std::env::var(TASK) else {
        return;
    };
    let (task, dir) = task.split_once(':').unwrap();
    let store = match SqliteStore::open(Path::new(dir), SqliteOptions::default()) {
        Ok(store) => store,
        Err(error) => return say(&format!("error {}", error.code())),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    match task {
        "open" => say("opened"),
        "append" => runtime.block_on(append_until_it_fails(&store)),
        "commit" => runtime.block_on(commit_for_ever(&store)),
        other => panic!("no task {other}"),
    }
}

/// One actor; says each acknowledged sequence, then the first three errors.
async fn append_until_it_fails(store: &SqliteStore) {
    let actor = actor("one");
    let mut seq = 0;
    let mut errors = 0;
    while errors < 3 && seq < 1000 {
        match store.commit(append(&actor, seq, "{}")).await {
            Ok(head) => {
                seq = head;
                say(&format!("ack {seq}"));
            }
            Err(error) => {
                errors += 1;
                say(&format!("error {}", error.code()));
            }
        }
    }
    // Reading goes on.
    say(&format!(
        "head {}",
        store.head(&actor).await.unwrap().map_or(0, |head| head.seq)
    ));
}

/// Several actors; each batch has two records and a row that says how many there are.
async fn commit_for_ever(store: &Arc<SqliteStore>) {
    let writers = (0..ACTORS).map(|n| {
        let store = Arc::clone(store);
        tokio::spawn(async move {
            let actor = actor(&n.to_string());
            let head = store.head(&actor).await.unwrap();
            let (mut seq, epoch) = head.map_or((0, 1), |head| (head.seq, head.epoch + 1));
            loop {
                let mut batch = append(
                    &actor,
                    seq,
                    vec![b'x'; usize::try_from(seq % 7 * 700).unwrap()],
                );
                batch.epoch = epoch;
                batch.records.push(record("{}"));
                batch.rows.push(put("s", "records", (seq + 2).to_string()));
                let Ok(head) = store.commit(batch).await else {
                    break;
                };
                seq = head;
                say(&format!("{n} {seq}"));
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
}
