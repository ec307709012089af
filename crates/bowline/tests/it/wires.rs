//! Conversations by the binary on each wire format.

use std::path::Path;
use std::process::Output;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bowline_testkit::canary::KEY;
use bowline_testkit::provider::{Answer, FakeProvider, Reply, Wire};
use serde_json::{Value, json};

use crate::world::World;

/// A word that the grep has to find, where the key must not be.
const MARKER: &str = "marker-of-the-tool";

/// The name in `bowline.toml`, for the agent too.
fn name(wire: Wire) -> &'static str {
    match wire {
        Wire::Anthropic => "anthropic",
        Wire::Responses => "openai-responses",
        Wire::Chat => "openai-chat",
        Wire::Gemini => "gemini",
        Wire::Bedrock => "bedrock",
    }
}

/// A project with an agent on a model of each format.
fn project(server: &FakeProvider) -> World {
    let world = World::empty();
    let mut models = String::new();
    for wire in Wire::ALL {
        let (api, url) = (name(wire), server.base_url(wire));
        models += &format!(
            "[models.of-{api}]\napi = \"{api}\"\nbase_url = \"{url}\"\nmodel = \"fake-1\"\n\
             key_env = \"FAKE_KEY\"\n"
        );
        world.write(
            &format!("agents/{api}/agent.md"),
            &format!("---\nmodel: of-{api}\n---\nWork.\n"),
        );
    }
    world.write("bowline.toml", &models);
    world
}

fn run(world: &World, line: &[&str]) -> Output {
    let mut command = world.command(line);
    let command = command.env("FAKE_KEY", KEY).env("BOWLINE_LOG", "trace");
    command.output().unwrap()
}

fn last(output: &Output) -> Value {
    let said = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(said.lines().last().unwrap()).unwrap()
}

fn holds(bytes: &[u8], text: &str) -> bool {
    let text = text.as_bytes();
    bytes.windows(text.len()).any(|part| part == text)
}

/// Every file below a folder that holds a text.
fn holding(dir: &Path, text: &str, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            holding(&path, text, found);
        } else if std::fs::read(&path).is_ok_and(|bytes| holds(&bytes, text)) {
            found.push(path.display().to_string());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_of_an_unknown_tool_is_answered_with_an_error_that_the_model_reads() {
    let server = FakeProvider::start().await.unwrap();
    let world = project(&server);
    for wire in Wire::ALL {
        server.push(Answer::new().tool("call_1", "teleport", r#"{"to": "Mars"}"#));
        server.push(Answer::new().text("On foot, then."));
        let output = run(
            &world,
            &["run", name(wire), "--id", "1", "-m", "Go.", "--json"],
        );
        assert!(output.status.success(), "{wire:?}: {}", last(&output));
        assert_eq!(last(&output)["text"], "On foot, then.", "{wire:?}");
        let requests = server.requests();
        let read = String::from_utf8_lossy(&requests.last().unwrap().raw).into_owned();
        assert!(
            read.contains(r#"Tool \"teleport\" not found"#),
            "{wire:?}: {read}"
        );
    }
}

/// Each command is a process of its own, so the second request reads what the first one has kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_and_a_pdf_that_were_read_are_shown_to_the_model_also_after_a_restart() {
    let server = FakeProvider::start().await.unwrap();
    let world = project(&server);
    let files = [
        ("a.png", b"\x89PNG\r\n\x1a\nPIXELS-OF-THE-IMAGE".as_slice()),
        ("a.pdf", b"%PDF-1.7 PAGES-OF-THE-DOCUMENT".as_slice()),
    ];
    for wire in Wire::ALL {
        let seed = world
            .path()
            .join("agents")
            .join(name(wire))
            .join("workspace");
        std::fs::create_dir_all(&seed).unwrap();
        for (file, bytes) in files {
            std::fs::write(seed.join(file), bytes).unwrap();
        }
        let image = Answer::new().tool("call_1", "read", r#"{"path": "a.png"}"#);
        server.push(image.tool("call_2", "read", r#"{"path": "a.pdf"}"#));
        server.push(Answer::new().text("Seen."));
        server.push(Answer::new().text("Still seen."));
        for message in ["Look.", "Again."] {
            let output = run(
                &world,
                &["run", name(wire), "--id", "1", "-m", message, "--json"],
            );
            assert!(output.status.success(), "{wire:?}: {}", last(&output));
            let requests = server.requests();
            let sent = String::from_utf8_lossy(&requests.last().unwrap().raw).into_owned();
            for (file, bytes) in files {
                let found = sent.contains(&STANDARD.encode(bytes));
                assert!(found, "{wire:?} {message} {file}: {sent}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_in_no_store_log_trace_prompt_archive_or_workspace() {
    let server = FakeProvider::start().await.unwrap();
    let world = project(&server);
    // Looks for the key, keeps what it finds, and says so much that it is stored apart.
    let search = format!(
        "(env; set; echo \"$FAKE_KEY\"; cat /proc/self/environ; echo {MARKER}) > found.txt; \
         cat found.txt; seq 1 40000"
    );
    let search = json!({ "command": search }).to_string();
    for wire in Wire::ALL {
        let agent = name(wire);
        // An error that repeats the key ends a first submission.
        let echo = format!(r#"{{"error":{{"type":"x","message":"bad key {KEY}"}},"key":"{KEY}"}}"#);
        server.push(Reply::raw(401, "application/json", echo));
        let failed = run(
            &world,
            &["run", agent, "--id", "1", "-m", "Go.", "--json", "-vv"],
        );
        assert!(!failed.status.success());
        assert_eq!(last(&failed)["error"]["type"], "model_auth", "{wire:?}");
        server.push(
            Answer::new()
                .text("Looking.")
                .tool("call_1", "bash", &search),
        );
        server.push(Answer::new().text("Done."));
        let worked = run(
            &world,
            &["run", agent, "--id", "1", "-m", "On.", "--json", "-vv"],
        );
        assert!(worked.status.success(), "{wire:?}: {}", last(&worked));
        assert!(holds(&worked.stdout, MARKER), "{wire:?}: the tool ran");
        assert!(
            holds(&worked.stderr, "TRACE"),
            "there is a trace to look at"
        );
        let files = run(&world, &["workspace", "export", agent, "1"]);
        assert!(holds(&files.stdout, MARKER), "{wire:?}: the file is there");
        let archive = format!("{agent}.bowline");
        let exported = run(&world, &["export", agent, "1", &archive, "-vv"]);
        assert!(exported.status.success());
        let shown = run(&world, &["show", agent, "1", "--json"]);
        assert!(shown.status.success());
        for output in [&failed, &worked, &files, &exported, &shown] {
            for said in [&output.stdout, &output.stderr] {
                let text = String::from_utf8_lossy(said);
                assert!(!text.contains(KEY), "{wire:?}: {text}");
            }
        }
    }
    assert_eq!(server.requests().len(), 3 * Wire::ALL.len());
    for request in server.requests() {
        assert!(!holds(&request.raw, KEY), "in a prompt");
        assert!(!request.path.contains(KEY), "in an address");
    }
    let mut marked = Vec::new();
    holding(world.path(), MARKER, &mut marked);
    let archives = marked.iter().filter(|path| path.ends_with(".bowline"));
    assert_eq!(archives.count(), Wire::ALL.len(), "{marked:?}");
    assert!(marked.iter().any(|path| path.contains("/.bowline/")));
    let mut found = Vec::new();
    holding(world.path(), KEY, &mut found);
    assert!(found.is_empty(), "{found:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_recorded_of_a_run_is_replayed_without_a_provider_and_a_key() {
    let server = FakeProvider::start().await.unwrap();
    let world = project(&server);
    let file = world.path().join("said.json").display().to_string();
    let message = ["--json", "-m", "Go."];
    for wire in Wire::ALL {
        let agent = name(wire);
        let search = json!({"command": format!("echo {MARKER}; echo $FAKE_KEY")}).to_string();
        server.push(Answer::new().tool("call_1", "bash", &search));
        server.push(Answer::new().text("Found it."));
        let live = run(
            &world,
            &[&["run", agent, "--record", &file], &message[..]].concat(),
        );
        assert!(live.status.success(), "{wire:?}: {}", last(&live));
        let recorded = std::fs::read_to_string(&file).unwrap();
        assert!(recorded.contains("echo marker-of-the-tool") || wire == Wire::Bedrock);
        assert!(!recorded.contains(KEY), "{wire:?}: {recorded}");
        let asked = server.requests().len();
        // Another conversation, in which the date and the ids are others.
        let line = [&["run", agent, "--replay", &file], &message[..]].concat();
        let again = world.command(&line).output().unwrap();
        assert!(again.status.success(), "{wire:?}: {}", last(&again));
        assert_eq!(last(&again)["text"], "Found it.", "{wire:?}");
        assert_eq!(last(&again)["usage"], last(&live)["usage"], "{wire:?}");
        assert!(holds(&again.stdout, MARKER), "{wire:?}: the tool ran again");
        assert_eq!(server.requests().len(), asked, "nobody was asked");
    }
    std::fs::write(&file, "{}").unwrap();
    let line = [&["run", "anthropic", "--replay", &file], &message[..]].concat();
    let none = world.command(&line).output().unwrap();
    assert_eq!(last(&none)["error"]["type"], "cassette_failed");
    let asked = server.requests().len();
    let line = [
        &["run", "anthropic", "--record", "/nowhere/x"],
        &message[..],
    ]
    .concat();
    assert_eq!(
        last(&run(&world, &line))["error"]["type"],
        "cassette_failed"
    );
    assert_eq!(
        server.requests().len(),
        asked,
        "before anything is paid for"
    );
}
