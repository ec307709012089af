//! What an agent's shell may reach.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use crate::world::World;

/// A server on the loopback that says hello; how often it was asked.
fn server() -> (String, Arc<AtomicU32>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let asked = Arc::new(AtomicU32::new(0));
    let count = asked.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() > 0 {
                head.push(byte[0]);
            }
            count.fetch_add(1, Ordering::SeqCst);
            let answer =
                b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\nconnection: close\r\n\r\nhello\n";
            stream.write_all(answer).unwrap();
        }
    });
    (host, asked)
}

#[test]
fn the_shell_reaches_what_egress_allows_and_names_the_setting_for_the_rest() {
    let (allowed, asked) = server();
    let (other, refused) = server();
    let script = format!(
        r#"
turns:
  - tools: [{{name: bash, input: {{command: "curl -s http://{allowed}/a | tr a-z A-Z"}}}}]
  - expect: {{last_tool: bash, matches: "HELLO"}}
    tools: [{{name: bash, input: {{command: "curl -s http://{other}/b"}}}}]
  - expect: {{last_tool: bash, matches: "not on the allow-list; add it to `egress`"}}
    text: "Done."
at_end: repeat_last
"#
    );
    let world = World::with_script(&script);
    let agent = |egress: &str| {
        let text = format!("---\nmodel: scripted/demo.yaml\n{egress}---\nAnswer.\n");
        world.write("agents/demo/agent.md", &text);
    };
    agent(&format!("egress: [\"http://{allowed}\"]\n"));
    let ran = world.run(&["run", "demo", "-m", "go", "--id", "a", "--quiet"]);
    assert_eq!(
        (ran.status, ran.stdout.as_str()),
        (0, "Done.\n"),
        "{}",
        ran.stderr
    );
    let count = |of: &AtomicU32| of.load(Ordering::SeqCst);
    assert_eq!((count(&asked), count(&refused)), (1, 0));

    agent("");
    let script = format!(
        "turns:\n  - tools: [{{name: bash, input: {{command: \"curl -s http://{allowed}/a\"}}}}]\n  - expect: {{last_tool: bash, matches: \"this agent has no network\"}}\n    text: Done.\n"
    );
    world.write("agents/demo/demo.yaml", &script);
    let ran = world.run(&["run", "demo", "-m", "go", "--id", "b", "--quiet"]);
    assert_eq!(
        (ran.status, ran.stdout.as_str()),
        (0, "Done.\n"),
        "{}",
        ran.stderr
    );
    assert_eq!((count(&asked), count(&refused)), (1, 0));
}
