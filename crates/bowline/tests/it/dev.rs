//! `bowline dev`: agents that change while they are served, and what it says meanwhile.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    process::{ChildStdout, Command, Stdio},
};

use serde_json::Value;

use crate::{
    serve::{Answer, Serving},
    world::{World, masked},
};

const AGENT: &str = "---\nmodel: scripted/demo.yaml\n---\nAnswer.\n";

fn says(text: &str) -> String {
    format!("turns:\n  - text: {text}\nat_end: repeat_last\n")
}

/// A server with what it prints.
struct Dev {
    server: Serving,
    lines: BufReader<ChildStdout>,
}

impl Dev {
    fn start(world: &World) -> Self {
        let mut command = world.command(&["dev", "--addr", "127.0.0.1:0", "--json"]);
        let (server, lines) = Serving::spawn(command.stderr(Stdio::null()));
        Self { server, lines }
    }

    /// The next line of a type.
    fn line(&mut self, kind: &str) -> Value {
        loop {
            let mut line = String::new();
            assert!(self.lines.read_line(&mut line).unwrap() > 0, "no {kind}");
            let line: Value = serde_json::from_str(&line).unwrap();
            if line["type"] == kind {
                return line;
            }
        }
    }

    /// What an agent answers, as the lines tell it.
    fn answer(&mut self, agent: &str, id: &str, text: &str) -> String {
        self.server.tell(agent, id, text);
        let mut said = String::new();
        loop {
            let mut line = String::new();
            assert!(self.lines.read_line(&mut line).unwrap() > 0, "no answer");
            let line: Value = serde_json::from_str(&line).unwrap();
            assert_eq!(line["v"], 1);
            match line["type"].as_str().unwrap() {
                "message-delta" => said.push_str(line["delta"].as_str().unwrap()),
                "submission-settled" => {
                    assert_eq!((&line["agent"], &line["id"]), (&agent.into(), &id.into()));
                    return said;
                }
                _ => {}
            }
        }
    }
}

#[test]
fn an_agent_that_changes_is_read_again_and_one_with_a_mistake_stays_as_it_was() {
    let world = World::with_script(&says("One."));
    let mut dev = Dev::start(&world);
    assert_eq!(dev.answer("demo", "a", "Hi"), "One.");

    world.write("agents/demo/demo.yaml", &says("Two."));
    assert_eq!(dev.line("agent-reloaded")["agent"], "demo");
    assert_eq!(dev.answer("demo", "a", "Hi"), "Two.");

    world.write(
        "agents/demo/agent.md",
        "---\nmodel: scripted/demo.yaml\nmodle: x\n---\nAnswer.\n",
    );
    let problem = dev.line("agent-problem");
    assert_eq!(problem["error"]["type"], "definition_unknown_key");
    let message = problem["error"]["message"].as_str().unwrap();
    assert!(message.contains("agents/demo/agent.md:3"), "{message}");
    assert_eq!(dev.answer("demo", "a", "Hi"), "Two.");
    // So does one whose script cannot be read.
    world.write("agents/demo/agent.md", AGENT);
    assert_eq!(dev.line("agent-reloaded")["agent"], "demo");
    world.write("agents/demo/demo.yaml", "turns: [{");
    assert_eq!(dev.line("agent-problem")["agent"], "demo");
    assert_eq!(dev.answer("demo", "b", "Hi"), "Two.");

    world.write("agents/other/agent.md", AGENT);
    world.write("agents/other/demo.yaml", &says("Other."));
    assert_eq!(dev.line("agent-added")["agent"], "other");
    assert_eq!(dev.answer("other", "a", "Hi"), "Other.");
    fs::remove_dir_all(world.path().join("agents/other")).unwrap();
    assert_eq!(dev.line("agent-removed")["agent"], "other");
    assert_eq!(dev.server.get("/agents/other/a").status, 404);

    world.write("bowline.toml", "[project]\nname = \"renamed\"\n");
    dev.line("settings-changed");
}

#[test]
fn a_request_that_is_refused_is_a_line_that_says_why() {
    let world = World::with_script(&says("One."));
    let mut dev = Dev::start(&world);
    assert_eq!(dev.server.get("/agents/nobody/a?token=hidden").status, 404);
    let line = dev.line("request-refused");
    assert_eq!(line["error"]["type"], "route_not_found");
    assert_eq!(
        (&line["method"], &line["path"], &line["status"]),
        (&"GET".into(), &"/agents/nobody/a".into(), &404.into())
    );
    dev.server.get("/agents/demo/a?offset=nonsense");
    assert_eq!(dev.line("request-refused")["status"], 400);
    drop(dev);

    // The same for a person.
    let mut command = world.command(&["dev", "--addr", "127.0.0.1:0"]);
    let (server, mut lines) = Serving::spawn_said(&mut command);
    server.get("/nothing%1b%5b31m");
    let mut line = String::new();
    while !line.contains('✗') {
        line.clear();
        assert!(lines.read_line(&mut line).unwrap() > 0);
    }
    let (_, line) = line.trim_end().split_once("  ").unwrap();
    assert_eq!(
        line,
        "GET /nothing%1b%5b31m  ✗ 404 route_not_found there is nothing at this path"
    );
}

#[test]
fn a_turn_that_is_under_way_ends_with_the_agent_that_it_began_with() {
    let first = r#"
turns:
  - text: "Let me see what there is, slowly, so that there is time."
    tools: [{name: bash, input: {command: "echo seen"}}]
    stream: {chars: 1, delay_ms: 30}
  - text: "The old end."
"#;
    let world = World::with_script(first);
    let mut dev = Dev::start(&world);
    dev.server.say("a", "Hi");
    dev.line("message-delta");
    // Without a sandbox there is no bash any more, and the second answer is another one.
    world.write(
        "agents/demo/demo.yaml",
        &first.replace("old end", "new end"),
    );
    world.write(
        "agents/demo/agent.md",
        "---\nmodel: scripted/demo.yaml\nsandbox: none\n---\nAnswer anew.\n",
    );
    dev.line("agent-reloaded");
    assert_eq!(dev.line("tool-output")["output"], "seen");
    dev.line("submission-settled");
    let shown = world.run(&["show", "demo", "a"]).stdout;
    assert!(shown.contains("The new end."), "{shown}");
}

#[test]
fn pages_of_this_machine_may_use_it_and_those_of_others_may_not() {
    let world = World::with_script(&says("One."));
    let dev = Dev::start(&world);
    let served = Serving::start(&World::with_script(&says("One.")));
    let asked = |server: &Serving, origin: &str| {
        let head = format!(
            "GET /agents/demo/a HTTP/1.0\r\nHost: {}\r\nOrigin: {origin}\r\n\r\n",
            server.addr
        );
        let answer = Answer::read(server.open(&head, b""));
        let allowed = answer.headers.get("access-control-allow-origin").cloned();
        (answer.status, allowed)
    };
    let own = "http://localhost:5173";
    assert_eq!(asked(&dev.server, own), (404, Some(own.to_owned())));
    assert_eq!(asked(&dev.server, "https://example.com"), (403, None));
    assert_eq!(asked(&served, own), (404, None));
}

#[test]
fn what_happens_is_a_line_each() {
    let world = World::with_script(
        "turns:\n  - text: \"Let me look.\"\n    tools: [{name: bash, input: {command: 'echo found; exit 3'}}]\n    usage: {input: 1200, output: 20}\n  - text: \"Found, and\\nmore.\"\n    usage: {input: 1300, output: 5}\n",
    );
    let mut command = world.command(&["dev", "--addr", "127.0.0.1:0"]);
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap());
    let mut all = String::new();
    lines.read_line(&mut all).unwrap();
    let ran = world.run(&["run", "demo", "--id", "a", "-m", "Is it\nthere?"]);
    assert_eq!(ran.status, 0, "{}", ran.all());
    world.write("agents/demo/agent.md", "no front matter\n");
    while !all.contains("as it was before") {
        assert!(lines.read_line(&mut all).unwrap() > 0, "{all}");
    }
    let stop = Command::new("kill").arg(child.id().to_string()).status();
    assert!(stop.unwrap().success());
    lines.read_to_string(&mut all).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let all = all.replace(&world.path().display().to_string(), "[DIR]");
    let time = regex::Regex::new(r"(?m)^\d\d:\d\d:\d\d").unwrap();
    let addr = regex::Regex::new(r"127\.0\.0\.1:\d+").unwrap();
    let all = addr.replace_all(&masked(&all), "[ADDR]").into_owned();
    insta::assert_snapshot!(time.replace_all(&all, "[CLOCK]"));
}
