//! The commands beside a process that has the data: through the socket in the data directory they do
//! what they do alone.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::Shutdown,
    os::unix::{
        fs::{FileTypeExt as _, PermissionsExt as _},
        net::UnixStream,
    },
    path::PathBuf,
    process::{Child, Command},
};

use bowline_runtime::Random as _;
use bowline_testkit::seeded::SeededRandom;
use serde_json::Value;

use crate::{
    serve::Serving,
    world::{Ran, World, masked},
};

const SCRIPT: &str = r#"
turns:
  - text: "An answer, in **several** words."
    stream: {chars: 6, delay_ms: 2}
at_end: repeat_last
by_message:
  - match: "^tools"
    turns:
      - thinking: "I look first."
        text: "Let me look."
        tools: [{name: glob, input: {pattern: "*"}}, {name: read, input: {path: "none.txt"}}]
        usage: {input: 100, output: 20}
      - text: "Nothing there."
        usage: {input: 120, output: 5}
  - match: "^consent"
    turns:
      - text: "May I?"
        tools: [{name: bash, input: {command: "echo made"}}]
      - text: "Thank you."
  - match: "^short"
    turns:
      - tools: [{name: glob, input: {pattern: "*"}}]
        usage: {input: 10, output: 3}
      - text: "Short."
        stream: {chars: 1, delay_ms: 40}
        usage: {input: 10, output: 4}
  - match: "^long"
    turns:
      - tools: [{name: glob, input: {pattern: "*"}}]
        usage: {input: 10, output: 3}
      - text: "A longer answer."
        stream: {chars: 1, delay_ms: 60}
        usage: {input: 10, output: 4}
  - match: "^for ever"
    turns:
      - text: "I begin."
        tools: [{name: glob, input: {pattern: "*"}}]
      - text: "never"
        stream: {chars: 1, delay_ms: 600000}
"#;

fn world() -> World {
    let world = World::with_script(SCRIPT);
    world.write(
        "agents/demo/agent.md",
        "---\nmodel: scripted/demo.yaml\napprovals: {bash: required}\n---\nAnswer.\n",
    );
    world.write("notes.bin", "\u{1}\u{2} some bytes");
    world
}

/// All of what a command says, without what differs from one place to another.
fn said(ran: &Ran) -> String {
    let all = regex::Regex::new(r"127\.0\.0\.1:\d+").unwrap();
    all.replace_all(&ran.all(), "[ADDR]").into_owned()
}

fn approval(world: &World, id: &str) -> String {
    let shown = world.run(&["show", "demo", id, "--json"]).lines();
    shown[0]["approvals"][0]["approvalId"]
        .as_str()
        .unwrap_or("appr_none")
        .to_owned()
}

/// What every command says, one after the other.
fn walk(world: &World) -> Vec<(String, String)> {
    let mut all = Vec::new();
    let mut run = |args: &[&str]| {
        let ran = world.run(args);
        all.push((masked(&args.join(" ")), said(&ran)));
    };
    run(&["run", "demo", "--id", "a", "-m", "Hi"]);
    run(&["run", "demo", "--id", "a", "-m", "tools, please", "--json"]);
    run(&["run", "demo", "--id", "a", "-m", "tools again"]);
    let keyed = ["run", "demo", "--id", "b", "-m", "Hi", "--key", "k1"];
    run(&keyed);
    run(&keyed);
    run(&["run", "demo", "--id", "b", "-m", "Other", "--key", "k1"]);
    run(&[
        "run",
        "demo",
        "--id",
        "b",
        "-m",
        "See",
        "--attach",
        "notes.bin",
        "--json",
    ]);
    run(&["run", "demo", "--id", "c", "-m", "consent?"]);
    run(&["run", "demo", "--id", "c", "-m", "consent?", "--json"]);
    let first = approval(world, "c");
    run(&["show", "demo", "c"]);
    run(&["approve", &first]);
    run(&["approve", &first]);
    run(&["reject", &first]);
    run(&["run", "demo", "--id", "c", "-m", "consent!", "--json"]);
    let second = approval(world, "c");
    run(&["answer", &second, "no question"]);
    run(&["reject", &second, "--reason", "not today", "--json"]);
    run(&["run", "demo", "--id", "d", "-m", "consent?", "--quiet"]);
    run(&["abort", "demo", "d"]);
    run(&["abort", "demo", "d", "--json"]);
    run(&["abort", "demo", "d", "sub_none"]);
    run(&["compact", "demo", "d", "--json"]);
    run(&["show", "demo", "a"]);
    run(&["show", "demo", "a", "--json"]);
    run(&["tail", "demo", "a", "--all", "--exit", "--json"]);
    run(&["spend"]);
    run(&["spend", "--calls", "demo", "a", "--json"]);
    run(&["export", "demo", "a", "a.bowline"]);
    for line in [
        "put demo a kept/x.bin notes.bin",
        "put demo a kept/x.bin notes.bin --json",
        "put demo a .. notes.bin",
        "snapshot demo a before",
        "snapshot demo a before",
        "rm demo a kept",
        "rm demo a kept -r",
        "rm demo a kept -r --json",
        "restore demo a before --json",
        "restore demo a nothing",
        "cat demo a kept/x.bin",
        "snapshot demo a before --remove",
        "snapshot demo a before --remove",
        "import demo a",
        "put demo none x notes.bin",
        "log demo a",
        "ls demo a",
    ] {
        let args: Vec<_> = ["workspace"].into_iter().chain(line.split(' ')).collect();
        run(&args);
    }
    run(&["import", "a.bowline"]);
    run(&["import", "a.bowline", "--id", "z", "--json"]);
    run(&["import", "notes.bin"]);
    run(&["import", "none.bowline"]);
    run(&["show", "demo", "z"]);
    run(&["delete", "demo", "a"]);
    run(&["delete", "demo", "a", "--yes"]);
    run(&["show", "demo", "a"]);
    run(&["run", "nobody", "--id", "a", "-m", "Hi"]);
    run(&["show", "demo", "none"]);
    run(&["approve", "appr_none"]);
    all
}

#[test]
fn each_command_says_the_same_with_a_server_as_without() {
    let (alone, beside) = (world(), world());
    let server = Serving::start(&beside);
    let (expected, found) = (walk(&alone), walk(&beside));
    for (expected, found) in expected.iter().zip(&found) {
        assert_eq!(expected, found);
    }
    drop(server);
}

fn socket(world: &World) -> PathBuf {
    world.path().join(".bowline/local.sock")
}

#[test]
fn the_socket_is_the_owners_alone_and_what_it_serves_is_on_no_other_address() {
    let world = world();
    let server = Serving::start(&world);
    let meta = fs::metadata(socket(&world)).unwrap();
    assert!(meta.file_type().is_socket());
    assert_eq!(meta.permissions().mode() & 0o777, 0o600);
    let folder = fs::metadata(world.path().join(".bowline")).unwrap();
    assert_eq!(folder.permissions().mode() & 0o077, 0);
    for path in ["/local", "/local/begin", "/local/delete"] {
        assert_eq!(server.get(path).status, 404, "{path}");
    }
    // Killed, it leaves the socket behind: alone again, and then beside another server.
    server.kill();
    assert!(socket(&world).exists());
    let alone = world.run(&["run", "demo", "--id", "a", "-m", "Hi"]);
    assert_eq!(alone.status, 0, "{}", alone.all());
    let server = Serving::start(&world);
    let beside = world.run(&["run", "demo", "--id", "a", "-m", "Hi"]);
    assert_eq!(beside.status, 0, "{}", beside.all());
    drop(server);
}

#[test]
fn a_data_directory_with_a_long_path_has_a_socket_too() {
    let world = world();
    let data = format!("{}/data", "a-folder-with-a-long-name/".repeat(6));
    world.write("bowline.toml", &format!("[data]\ndir = \"{data}\"\n"));
    let server = Serving::start(&world);
    let ran = world.run(&["run", "demo", "--id", "a", "-m", "Hi"]);
    assert_eq!(ran.status, 0, "{}", ran.all());
    drop(server);
}

/// Random bytes, and requests that begin well; what is random is decided by a seed.
fn noise(random: &SeededRandom) -> Vec<u8> {
    const PATHS: [&str; 9] = [
        "/local",
        "/local/begin",
        "/local/reply",
        "/local/abort",
        "/local/answer",
        "/local/compact",
        "/local/delete",
        "/local/edit",
        "/local/import",
    ];
    const BODIES: [&str; 5] = [
        r#"{"agent":"demo","id":"a","begin":{"send":{"input":{"kind":"user","body":"x"},"key":null,"sizes":[18446744073709551615,1]}}}"#,
        r#"{"agent":"demo","id":"a","submission":"sub_none"}"#,
        r#"{"agent":"demo","id":"a","edit":{"put":{"path":"x"}},"origin":"me"}"#,
        r#"{"agent":"demo","id":"a","begin":{"goOn":"sub_none"}}"#,
        r#"{"id":null}"#,
    ];
    let one = |count: usize| (random.next() % count as u64) as usize;
    let mut body = BODIES[one(5)].as_bytes().to_vec();
    match one(4) {
        0 => body = (0..one(2000)).map(|_| random.next() as u8).collect(),
        1 => {
            let at = one(body.len());
            body[at] = random.next() as u8;
        }
        2 => body.truncate(one(body.len())),
        _ => body.extend(
            b"\n"
                .iter()
                .copied()
                .chain((0..one(300)).map(|_| random.next() as u8)),
        ),
    }
    if one(4) == 0 {
        return body;
    }
    let head = format!(
        "POST {} HTTP/1.1\r\nhost: x\r\nx-bowline-local: {}/2\r\ncontent-length: {}\r\n\r\n",
        PATHS[one(9)],
        env!("CARGO_PKG_VERSION"),
        // Also more than there is, and less.
        body.len() + one(3) * one(50),
    );
    let mut head = head.into_bytes();
    if one(4) == 0 {
        let at = one(head.len());
        head[at] = random.next() as u8;
    }
    [head, body].concat()
}

#[test]
fn whatever_is_sent_to_the_socket_it_goes_on_serving() {
    let world = world();
    let log = world.path().join("server.log");
    let server = Serving::start_with(&world, &[], fs::File::create(&log).unwrap().into());
    assert_eq!(
        world.run(&["run", "demo", "--id", "a", "-m", "Hi"]).status,
        0
    );
    let random = SeededRandom::new(4);
    // A quarter of them without an end.
    let mut open = Vec::new();
    for number in 0..600 {
        let mut stream = UnixStream::connect(socket(&world)).unwrap();
        // It may be cut off before it has said all.
        let _ = stream.write_all(&noise(&random));
        if number % 4 == 0 && open.len() < 100 {
            open.push(stream);
        } else {
            let _ = stream.shutdown(Shutdown::Write);
            let _ = stream.read_to_end(&mut Vec::new());
        }
    }
    let ran = world.run(&["run", "demo", "--id", "b", "-m", "Hi"]);
    assert_eq!(ran.status, 0, "{}", ran.all());
    let shown = world.run(&["abort", "demo", "b", "--json"]);
    assert_eq!(shown.status, 0, "{}", shown.all());
    drop(open);
    drop(server);
    let said = fs::read_to_string(&log).unwrap();
    assert!(!said.contains("panicked"), "{said}");
}

/// Starts a run that does not end, and waits until it has done something.
fn begun(world: &World, args: &[&str]) -> Child {
    let mut child = world.command(args).spawn().unwrap();
    let lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    let found = lines
        .map_while(Result::ok)
        .find(|line| line.contains("tool-output"));
    assert!(found.is_some());
    child
}

/// The last line that a process prints, and its exit code.
fn end(mut child: Child) -> (Option<i32>, Value) {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let last = lines.map_while(Result::ok).last().unwrap_or_default();
    let status = child.wait().unwrap().code();
    (status, serde_json::from_str(&last).unwrap_or_default())
}

fn tell(child: &Child, signal: &str) {
    let pid = child.id().to_string();
    let told = Command::new("kill").args([signal, &pid]).status().unwrap();
    assert!(told.success());
}

const ENDLESS: [&str; 7] = ["run", "demo", "--id", "e", "-m", "for ever", "--json"];

#[test]
fn a_run_beside_a_server_goes_on_without_its_command_and_can_be_aborted_by_another() {
    let world = world();
    let server = Serving::start(&world);
    let mut first = begun(&world, &ENDLESS);
    first.kill().unwrap();
    first.wait().unwrap();
    // The same line follows the same message.
    let mut second = begun_again(&world);
    let abort = world.run(&["abort", "demo", "e", "--json"]);
    assert_eq!(abort.lines()[0]["submissions"][0]["outcome"], "aborted");
    assert_eq!(second.wait().unwrap().code(), Some(1));
    let shown = world.run(&["show", "demo", "e", "--json"]).lines();
    assert_eq!(shown[0]["settlements"].as_array().unwrap().len(), 1);
    drop(server);
}

/// Follows what is there already: nothing more happens in it, so its beginning is waited for.
fn begun_again(world: &World) -> Child {
    let mut args = ENDLESS.to_vec();
    args.retain(|arg| *arg != "--json");
    let mut child = world.command(&args).spawn().unwrap();
    let errors = BufReader::new(child.stderr.as_mut().unwrap()).lines();
    let found = errors
        .map_while(Result::ok)
        .find(|line| line.contains("resuming"));
    assert!(found.is_some());
    child
}

#[test]
fn when_the_server_ends_a_run_beside_it_says_how_to_go_on() {
    let world = world();
    let server = Serving::start(&world);
    let child = begun(&world, &ENDLESS);
    server.kill();
    let (status, last) = end(child);
    assert_eq!(status, Some(1));
    assert_eq!(last["error"]["type"], "local_failed", "{last}");
    assert!(last["error"]["details"].as_str().unwrap().contains("again"));
}

#[test]
fn a_run_that_has_the_data_takes_other_commands_in() {
    let world = world();
    let owner = begun(&world, &ENDLESS);
    let other = world.run(&["run", "demo", "--id", "f", "-m", "Hi"]);
    assert_eq!(other.status, 0, "{}", other.all());
    // Also to agents that it was not started for.
    world.write(
        "agents/other/agent.md",
        "---\nmodel: scripted/other.yaml\napprovals: {bash: required}\n---\nAnswer.\n",
    );
    world.write("agents/other/other.yaml", SCRIPT);
    let other = world.run(&["run", "other", "--id", "a", "-m", "Hi"]);
    assert_eq!(other.status, 0, "{}", other.all());
    world.run(&["run", "other", "--id", "a", "-m", "consent?"]);
    let shown = world.run(&["show", "other", "a", "--json"]).lines();
    let waiting = shown[0]["approvals"][0]["approvalId"].as_str().unwrap();
    let approved = world.run(&["approve", waiting]);
    assert_eq!(approved.status, 0, "{}", approved.all());
    let put = world.run(&["workspace", "put", "other", "a", "x", "notes.bin"]);
    assert_eq!(put.status, 0, "{}", put.all());
    let unknown = world.run(&["run", "nobody", "--id", "a", "-m", "Hi", "--json"]);
    assert_eq!(
        unknown.lines()[0]["error"]["type"],
        "definition_agent_not_found"
    );
    // What is being answered is not changed under it.
    let busy = world.run(&["workspace", "put", "demo", "e", "x", "notes.bin", "--json"]);
    assert_eq!(busy.lines()[0]["error"]["type"], "conversation_busy");
    let abort = world.run(&["abort", "demo", "e"]);
    assert_eq!(abort.status, 0, "{}", abort.all());
    let (status, last) = end(owner);
    assert_eq!(
        (status, last["outcome"].as_str()),
        (Some(1), Some("aborted"))
    );
    assert!(!socket(&world).exists());
}

#[test]
fn a_server_waits_for_a_command_that_has_the_data_and_not_for_another_server() {
    let world = world();
    let owner = begun(&world, &LONG);
    let server = Serving::start(&world);
    let (status, last) = end(owner);
    assert_eq!(status, Some(0), "{last}");
    assert_eq!(last["text"], "A longer answer.");
    let other = world.run(&["serve", "--addr", "127.0.0.1:0", "--json"]);
    assert_eq!(other.status, 1, "{}", other.all());
    let error = &other.lines()[0]["error"];
    assert_eq!(error["type"], "store_locked");
    let pid = format!("process {}", server.child.id());
    assert!(error["details"].as_str().unwrap().contains(&pid), "{error}");
}

const LONG: [&str; 7] = ["run", "demo", "--id", "l", "-m", "long", "--json"];

#[test]
fn runs_beside_each_other_all_come_to_their_end() {
    let world = world();
    // The first has the data, and ends its own work before the others do.
    let first = begun(
        &world,
        &["run", "demo", "--id", "s", "-m", "short", "--json"],
    );
    let second = begun(&world, &LONG);
    let third = begun(
        &world,
        &["run", "demo", "--id", "m", "-m", "long", "--json"],
    );
    for (child, text) in [
        (first, "Short."),
        (second, "A longer answer."),
        (third, "A longer answer."),
    ] {
        let (status, last) = end(child);
        assert_eq!(status, Some(0), "{last}");
        assert_eq!(last["text"], text);
        // No call was cut, and made a second time.
        assert_eq!(last["usage"]["output"], 7, "{last}");
    }
}

#[test]
fn a_run_goes_on_by_itself_when_the_one_that_had_the_data_is_stopped_or_killed() {
    for signal in ["-INT", "-KILL"] {
        let world = world();
        let owner = begun(&world, &ENDLESS);
        let other = begun(&world, &LONG);
        tell(&owner, signal);
        let (status, last) = end(other);
        assert_eq!(status, Some(0), "{signal}: {last}");
        assert_eq!(last["text"], "A longer answer.", "{signal}");
        end(owner);
    }
}

#[test]
fn what_runs_beside_a_server_that_is_stopped_is_answered_first() {
    let world = world();
    let server = Serving::start(&world);
    let child = begun(&world, &LONG);
    tell(&server.child, "-TERM");
    let (status, last) = end(child);
    assert_eq!(status, Some(0), "{last}");
    assert_eq!(last["text"], "A longer answer.");
}

#[test]
fn an_option_that_only_the_owner_of_the_data_can_follow_is_refused() {
    let world = world();
    let server = Serving::start(&world);
    let args = [
        "run",
        "demo",
        "-m",
        "Hi",
        "--model",
        "scripted/demo.yaml",
        "--json",
    ];
    let ran = world.run(&args);
    assert_eq!(ran.status, 2, "{}", ran.all());
    assert_eq!(ran.lines()[0]["error"]["type"], "local_option");
    drop(server);
}

#[test]
fn a_conversation_that_is_brought_in_beside_a_server_goes_on_at_once() {
    let world = world();
    let mut first = begun(&world, &ENDLESS);
    first.kill().unwrap();
    first.wait().unwrap();
    let taken = world.run(&["export", "demo", "e", "e.bowline"]);
    assert_eq!(taken.status, 0, "{}", taken.all());
    assert_eq!(world.run(&["delete", "demo", "e", "--yes"]).status, 0);
    let server = Serving::start(&world);
    let brought = world.run(&["import", "e.bowline", "--id", "f"]);
    assert!(
        brought
            .stderr
            .contains("1 submission open, and going on now"),
        "{}",
        brought.all()
    );
    let aborted = world.run(&["abort", "demo", "f", "--json"]);
    assert_eq!(aborted.lines()[0]["submissions"][0]["outcome"], "aborted");
    drop(server);
}

#[test]
fn an_archive_beside_a_server_is_unpacked_whole_or_not_at_all() {
    let world = world();
    let server = Serving::start(&world);
    assert_eq!(
        world.run(&["run", "demo", "--id", "a", "-m", "Hi"]).status,
        0
    );
    let put = world.run(&["workspace", "put", "demo", "a", "deep/one.txt", "notes.bin"]);
    assert_eq!(put.status, 0, "{}", put.all());
    let export = world.command(&["workspace", "export", "demo", "a"]);
    let packed = { export }.output().unwrap().stdout;
    let import = |bytes: &[u8]| {
        let mut child = world
            .command(&["workspace", "import", "demo", "a", "copy", "--json"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), bytes).unwrap();
        world.ran(child.wait_with_output().unwrap())
    };
    let torn = import(&packed[..packed.len() / 2 + 7]);
    assert_eq!(
        torn.lines()[0]["error"]["type"],
        "workspace_invalid",
        "{}",
        torn.all()
    );
    let noise: Vec<u8> = (0..1_000).map(|n: u16| 0x80 | n.to_le_bytes()[0]).collect();
    let noise = import(&noise).all();
    assert!(noise.contains("it is no tar, tar.gz or zip"), "{noise}");
    let whole = import(&packed);
    assert_eq!(whole.lines()[0]["files"], 1, "{}", whole.all());
    let listed = world.run(&["workspace", "ls", "demo", "a", "-r"]).stdout;
    assert!(listed.contains("copy/deep/one.txt"), "{listed}");
    drop(server);
}
