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

/// A server on the loopback that tells each request what it said, but for `/moved`, which leads to
/// `elsewhere`.
fn echo(elsewhere: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut said = Vec::new();
            let mut byte = [0];
            while !said.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() > 0 {
                said.push(byte[0]);
            }
            let head = String::from_utf8(said).unwrap().to_ascii_lowercase();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            let mut body = vec![0; length.map_or(0, |text| text.parse().unwrap())];
            stream.read_exact(&mut body).unwrap();
            let told = head + &String::from_utf8(body).unwrap();
            let answer = if told.contains(" /moved ") {
                format!(
                    "HTTP/1.1 302 Found\r\nlocation: http://{elsewhere}/landed\r\ncontent-length: 0"
                )
            } else {
                format!("HTTP/1.1 200 OK\r\ncontent-length: {}", told.len())
            };
            let told = if answer.contains("302") { "" } else { &told };
            let answer = format!("{answer}\r\nconnection: close\r\n\r\n{told}");
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    host
}

/// What code does with the network; `{first}` leads to another origin, `{third}` is not allowed.
const FETCHES: &str = r#"async () => {
  const sent = await fetch("http://{first}/a", { method: "POST", body: new URLSearchParams({ q: "x y" }) });
  const form = await sent.text();
  const headers = { Authorization: "Bearer mine", Cookie: "c=1", "X-Kept": "yes" };
  const there = await (await fetch("http://{first}/b", { headers })).text();
  const moved = await fetch(new URL("http://{first}/moved"), { headers });
  const landed = await moved.text();
  const refused = await fetch("http://{third}/").catch((error) => error.code);
  return [sent.status, form.endsWith("q=x+y"), form.includes("application/x-www-form-urlencoded"),
    there.includes("authorization: bearer mine"), there.includes("cookie: c=1"),
    moved.redirected, landed.includes("get /landed"), landed.includes("x-kept: yes"),
    landed.includes("authorization"), landed.includes("cookie"), refused].join();
}"#;

#[test]
fn code_fetches_what_egress_allows_and_a_redirect_takes_no_credential_elsewhere() {
    let second = echo(String::new());
    let first = echo(second.clone());
    let third = echo(String::new());
    let code = FETCHES
        .replace("{first}", &first)
        .replace("{third}", &third);
    let told = "200,true,true,true,true,true,true,true,false,false,egress_denied";
    let world = World::with_script("turns: []\n");
    world.write("fetch.ts", &code);
    let allowed = [&first, &second].map(|host| format!("http://{host}"));
    let granted = [
        "code",
        "run",
        "fetch.ts",
        "--egress",
        &allowed[0],
        "--egress",
        &allowed[1],
    ];
    let ran = world.run(&granted);
    assert_eq!((ran.status, ran.stdout.trim()), (0, told), "{}", ran.stderr);
    let ran = world.run(&["code", "run", "fetch.ts", "--json"]);
    assert!(
        ran.stdout.contains("fetch is not defined"),
        "{}",
        ran.stdout
    );
    let ran = world.run(&["code", "run", "fetch.ts", "--egress", "a*.test", "--json"]);
    assert!(ran.stdout.contains("egress_pattern"), "{}", ran.stdout);

    let script = |expected: &str| {
        let turns = serde_json::json!({"turns": [
            {"tools": [{"name": "code", "input": {"code": code}}]},
            {"expect": {"last_tool": "code", "matches": expected}, "text": "Done."},
        ]});
        world.write("agents/demo/demo.yaml", &turns.to_string());
    };
    let agent = |egress: &str| {
        let text = format!("---\nmodel: scripted/demo.yaml\ncode: true\n{egress}---\nAnswer.\n");
        world.write("agents/demo/agent.md", &text);
    };
    agent(&format!(
        "egress: [\"{}\", \"{}\"]\n",
        allowed[0], allowed[1]
    ));
    script(told);
    let ran = world.run(&["run", "demo", "-m", "go", "--id", "a", "--quiet"]);
    assert_eq!(ran.stdout, "Done.\n", "{}", ran.stderr);
    agent("");
    script("fetch is not defined");
    let ran = world.run(&["run", "demo", "-m", "go", "--id", "b", "--quiet"]);
    assert_eq!(ran.stdout, "Done.\n", "{}", ran.stderr);

    // A tool in TypeScript has the same, in the files that it imports too, durable or not.
    let library = format!("export const all = {code};\n");
    world.write("agents/demo/lib/all.ts", &library);
    for (name, setting) in [("look", "timeout: \"20s\""), ("look-long", "durable: true")] {
        let tool = format!(
            "import {{ all }} from \"../lib/all\";\nexport const tool = {{ {setting} }};\n\
             /** Looks. */\nexport default async function look(): Promise<string> {{\n  return await all();\n}}\n"
        );
        world.write(&format!("agents/demo/tools/{name}.ts"), &tool);
    }
    let granted = format!("egress: [\"{}\", \"{}\"]\n", allowed[0], allowed[1]);
    let text = format!("---\nmodel: scripted/demo.yaml\n{granted}---\nAnswer.\n");
    world.write("agents/demo/agent.md", &text);
    let turns = serde_json::json!({"turns": [
        {"tools": [{"name": "look", "input": {}}]},
        {"expect": {"last_tool": "look", "matches": told}, "tools": [{"name": "look-long", "input": {}}]},
        {"expect": {"last_tool": "look-long", "matches": told}, "text": "Done."},
    ]});
    world.write("agents/demo/demo.yaml", &turns.to_string());
    let ran = world.run(&["run", "demo", "-m", "go", "--id", "c", "--quiet"]);
    assert_eq!(ran.stdout, "Done.\n", "{}", ran.stderr);
}
