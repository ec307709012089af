//! The example that the README begins with.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpListener,
    path::Path,
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use serde_json::Value;

use crate::world::World;

/// Runs the suite of the library in the workspace that the triage left.
const CHECK: &str = r#"
turns:
  - tools: [{name: bash, input: {command: "sh tests/run.sh"}}]
  - expect: {last_tool: bash, matches: "passed, 0 failed"}
    text: "The suite passes."
"#;

#[test]
fn the_bug_is_reproduced_fixed_and_reported() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/triage");
    let example = example.to_str().unwrap();
    let world = World::empty();
    world.write("check.yaml", CHECK);
    let message = format!("@{example}/bug-report.md");
    let place = ["--project", example, "--data", "data", "--id", "t1"];

    let ran = world.run(&[&["run", "triage", "-m", &message][..], &place].concat());
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    insta::assert_snapshot!(ran.all());

    let model = format!("scripted/{}/check.yaml", world.path().display());
    let check = world.run(
        &[
            &["run", "triage", "-m", "run the suite", "--model", &model][..],
            &place,
        ]
        .concat(),
    );
    assert_eq!(
        (check.status, check.stdout.as_str()),
        (0, "The suite passes.\n"),
        "{}",
        check.stderr
    );
}

/// What a tracker was told, with the key of each call.
type Heard = Arc<Mutex<Vec<(String, Value)>>>;

/// A tracker on this machine, which opens one issue for each key. The first call gets no answer.
struct Tracker {
    url: String,
    heard: Heard,
    first: mpsc::Receiver<()>,
}

impl Tracker {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let heard = Heard::default();
        let (tell, first) = mpsc::channel();
        let (seen, base) = (heard.clone(), url.clone());
        // It ends with the process.
        std::thread::spawn(move || {
            let mut open = Vec::new();
            for stream in listener.incoming() {
                let mut stream = BufReader::new(stream.unwrap());
                stream
                    .get_ref()
                    .set_read_timeout(Some(Duration::from_secs(30)))
                    .unwrap();
                let (mut key, mut length, mut line) = (String::new(), 0, String::new());
                while stream.read_line(&mut line).is_ok_and(|read| read > 2) {
                    let (name, value) = line.split_once(':').unwrap_or((line.trim(), ""));
                    match name.to_ascii_lowercase().as_str() {
                        "idempotency-key" => value.trim().clone_into(&mut key),
                        "content-length" => length = value.trim().parse().unwrap(),
                        _ => {}
                    }
                    line.clear();
                }
                let mut body = vec![0; length];
                if stream.read_exact(&mut body).is_err() {
                    continue;
                }
                let number = {
                    let mut seen = seen.lock().unwrap();
                    seen.push((key, serde_json::from_slice(&body).unwrap()));
                    let keys: BTreeSet<&String> = seen.iter().map(|(key, _)| key).collect();
                    keys.len()
                };
                if open.is_empty() {
                    open.push(stream);
                    tell.send(()).unwrap();
                    continue;
                }
                let body = format!("{{\"number\":{number},\"url\":\"{base}/issues/{number}\"}}");
                let answer = format!(
                    "HTTP/1.1 201 Created\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                    body.len()
                );
                stream.get_mut().write_all(answer.as_bytes()).unwrap();
            }
        });
        Self { url, heard, first }
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// The example in a folder of its own, with this tracker.
fn example(tracker: &Tracker) -> World {
    let world = World::empty();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/triage");
    copy(&example, world.path());
    let file = world.path().join("bowline.toml");
    let settings = fs::read_to_string(&file).unwrap();
    let moved = settings.replace("http://127.0.0.1:4600", &tracker.url);
    assert_ne!(moved, settings);
    let asked = moved.replace("examples = true\n", "");
    assert_ne!(asked, moved);
    fs::write(file, asked).unwrap();
    world
}

/// Asks, approves what waits, kills that while the tracker is asked, and approves again.
fn opened(agent: &str, message: &str) {
    let tracker = Tracker::start();
    let world = example(&tracker);
    let run = ["run", agent, "--id", "t", "--key", "k", "-m", message];
    let asked = world.run(&run);
    assert_eq!(asked.status, 0, "{}", asked.stderr);
    assert!(tracker.heard.lock().unwrap().is_empty());
    let shown = world.run(&["show", agent, "t", "--json"]).lines();
    let wait = &shown[0]["waits"][0];
    assert_eq!(wait["type"], "approval", "{shown:?}");
    let id = wait["approvalId"].as_str().unwrap();
    let approve = ["approve", id];
    let mut killed = world.command(&approve).spawn().unwrap();
    tracker.first.recv_timeout(Duration::from_secs(60)).unwrap();
    killed.kill().unwrap();
    killed.wait().unwrap();
    let done = world.run(&approve);
    assert_eq!(done.status, 0, "{}", done.stderr);
    assert!(done.stdout.contains("The issue is open."), "{}", done.all());
    let again = world.run(&run);
    assert_eq!(
        (again.status, &again.stdout),
        (0, &done.stdout),
        "{}",
        again.stderr
    );

    let heard = tracker.heard.lock().unwrap();
    assert_eq!(
        heard.len(),
        2,
        "the call that was cut, and the same again: {heard:?}"
    );
    assert_eq!(heard[0], heard[1]);
    let (key, issue) = &heard[0];
    assert!(!key.is_empty());
    assert_eq!(
        issue["title"],
        "Credit notes under one euro raise the total"
    );
    assert_eq!(issue["labels"], serde_json::json!(["triage", "billing"]));
}

#[test]
fn the_tool_in_typescript_opens_one_issue_after_a_person_agreed() {
    opened("triage", "Open an issue for it.");
}

#[test]
fn code_of_the_model_opens_one_issue_after_a_person_agreed() {
    opened(
        "triage-code",
        "Credit notes under one euro raise the total.",
    );
}

/// As the README tells it: nobody is at a terminal, and there is no tracker.
#[test]
fn the_issue_is_opened_offline_with_the_commands_that_the_run_names() {
    for (agent, message) in [
        ("triage", "Open an issue for it."),
        (
            "triage-code",
            "Credit notes under one euro raise the total.",
        ),
    ] {
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/triage");
        let world = World::empty();
        let example = example.to_str().unwrap();
        let place = ["--project", example, "--data", "data"];
        let run = [&["run", agent, "--id", "t", "-m", message][..], &place].concat();
        let asked = world.run(&run);
        assert_eq!(asked.status, 0, "{}", asked.stderr);
        let approve = asked
            .stderr
            .split_whitespace()
            .find(|word| word.starts_with("appr_"));
        let id = approve.unwrap_or_else(|| panic!("{}", asked.stderr));
        let done = world.run(&[&["approve", id][..], &place].concat());
        assert_eq!(done.status, 0, "{}", done.stderr);
        assert!(done.stdout.contains("The issue is open."), "{}", done.all());
    }
}
