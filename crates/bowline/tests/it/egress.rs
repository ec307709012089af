//! What an agent's shell may reach.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpListener,
    path::Path,
    process::Command,
    sync::{Arc, Mutex},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bowline_testkit::{
    canary::KEY,
    git::{Answered, Asked, backend},
};
use bytes::Bytes;

use crate::world::{Ran, World};

/// What a server was asked.
type Log = Arc<Mutex<Vec<Asked>>>;

/// A server on the loopback.
fn serve(answer: impl Fn(&Asked) -> Answered + Send + 'static) -> (String, Log) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let log = Log::default();
    let kept = log.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let mut asked = Asked::default();
            let mut lines = stream.by_ref().lines().map(Result::unwrap);
            let Some(first) = lines.next() else { continue };
            let mut words = first.split(' ').map(str::to_owned);
            asked.method = words.next().unwrap();
            asked.target = words.next().unwrap();
            for line in lines.take_while(|line| !line.is_empty()) {
                let (name, value) = line.split_once(": ").unwrap();
                asked.headers.push((name.to_owned(), value.to_owned()));
            }
            let mut body = vec![0; asked.header("content-length").parse().unwrap_or(0)];
            stream.read_exact(&mut body).unwrap();
            asked.body = Bytes::from(body);
            let done = answer(&asked);
            kept.lock().unwrap().push(asked);
            let mut head = format!("HTTP/1.1 {} X\r\nconnection: close\r\n", done.status);
            for (name, value) in &done.headers {
                head += &format!("{name}: {value}\r\n");
            }
            head += &format!("content-length: {}\r\n\r\n", done.body.len());
            let stream = stream.get_mut();
            stream.write_all(head.as_bytes()).unwrap();
            stream.write_all(&done.body).unwrap();
        }
    });
    (host, log)
}

fn says(status: u16, header: (&str, &str), body: impl Into<Bytes>) -> Answered {
    Answered {
        status,
        headers: vec![(header.0.to_owned(), header.1.to_owned())],
        body: body.into(),
    }
}

fn count(log: &Log) -> usize {
    log.lock().unwrap().len()
}

fn done(ran: &Ran) {
    let found = (ran.status, ran.stdout.as_str());
    assert_eq!(found, (0, "Done.\n"), "{}", ran.stderr);
}

#[test]
fn the_shell_reaches_what_egress_allows_and_names_the_setting_for_the_rest() {
    let hello = |_: &Asked| says(200, ("content-type", "text/plain"), "hello\n");
    let (allowed, asked) = serve(hello);
    let (other, refused) = serve(hello);
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
    done(&world.run(&["run", "demo", "-m", "go", "--id", "a", "--quiet"]));
    assert_eq!((count(&asked), count(&refused)), (1, 0));

    agent("");
    let script = format!(
        "turns:\n  - tools: [{{name: bash, input: {{command: \"curl -s http://{allowed}/a\"}}}}]\n  - expect: {{last_tool: bash, matches: \"this agent has no network\"}}\n    text: Done.\n"
    );
    world.write("agents/demo/demo.yaml", &script);
    done(&world.run(&["run", "demo", "-m", "go", "--id", "b", "--quiet"]));
    assert_eq!((count(&asked), count(&refused)), (1, 0));
}

/// A server on the loopback that tells each request what it said, but for `/moved`, which leads to
/// `elsewhere`.
fn echo(elsewhere: String) -> String {
    let answer = move |asked: &Asked| {
        if asked.target == "/moved" {
            let to = format!("http://{elsewhere}/landed");
            return says(302, ("location", &to), "");
        }
        let mut head = format!("{} {}\n", asked.method, asked.target);
        for (name, value) in &asked.headers {
            head += &format!("{name}: {value}\n");
        }
        let told = head.to_ascii_lowercase() + &String::from_utf8_lossy(&asked.body);
        says(200, ("x-here", "yes"), told)
    };
    serve(answer).0
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
        {"expect": {"last_tool": "look", "matches": told}, "tools": [{"name": "look_long", "input": {}}]},
        {"expect": {"last_tool": "look_long", "matches": told}, "text": "Done."},
    ]});
    world.write("agents/demo/demo.yaml", &turns.to_string());
    let ran = world.run(&["run", "demo", "-m", "go", "--id", "c", "--quiet"]);
    assert_eq!(ran.stdout, "Done.\n", "{}", ran.stderr);
}

/// A repository with one commit, to be served from `dir`.
fn repository(dir: &Path) {
    let git = |args: &[&str]| {
        let done = Command::new("git")
            .args(["-c", "user.name=a", "-c", "user.email=a@example.com"])
            .args(args)
            .current_dir(dir)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("HOME", "/nonexistent")
            .output()
            .unwrap();
        assert!(done.status.success(), "{args:?}: {done:?}");
    };
    git(&["init", "-q", "-b", "main", "w"]);
    std::fs::write(dir.join("w/note"), "a note\n").unwrap();
    git(&["-C", "w", "add", "-A"]);
    git(&["-C", "w", "commit", "-qm", "One"]);
    git(&["clone", "-q", "--bare", "w", "p.git"]);
}

/// The key is that of all tests: what the world finds of it in the data, in what was printed or in a
/// workspace fails the test.
#[test]
fn credentials_of_hosts_are_attached_outside_of_the_shell() {
    let repositories = tempfile::tempdir().unwrap();
    repository(repositories.path());
    let basic = format!("Basic {}", STANDARD.encode(format!("bot:{KEY}")));
    let (wanted, root) = (basic.clone(), repositories.path().to_owned());
    let (git, pushed) = serve(move |asked| match asked.header("authorization") {
        given if given == wanted => backend(&root, asked).unwrap(),
        _ => says(401, ("www-authenticate", "Basic"), ""),
    });
    let (elsewhere, strange) = serve(|_| says(200, ("x-here", "elsewhere"), "elsewhere\n"));
    let away = format!("http://{elsewhere}/");
    // A service that gives back what it was sent.
    let (api, asked) = serve(move |asked| match asked.target.as_str() {
        "/away" => says(302, ("location", &away), ""),
        _ => {
            let echo = format!("{:?}\n", asked.headers);
            says(200, ("x-echo", asked.header("x-api-key")), echo)
        }
    });
    let world = World::empty();
    let script = format!(
        r#"
turns:
  - tools: [{{name: bash, input: {{command: "git clone -q http://{git}/p.git && cd p && cat note && echo more >> note && git commit -qam Two && git push -q && echo PUSHED"}}}}]
  - expect: {{last_tool: bash, matches: "a note\nPUSHED"}}
    tools: [{{name: bash, input: {{command: "env; set; cat .git/config; git config -l; cat ~/.* ~/.config/* /proc/self/environ 2>/dev/null; echo LOOKED"}}}}]
  - expect: {{last_tool: bash, matches: "LOOKED"}}
    tools: [{{name: bash, input: {{command: "curl -si -H 'X-Api-Key: forged' -H 'Accept-Encoding: gzip' http://{api}/x | tee got; curl -s http://{api}/away; curl -s http://{elsewhere}/"}}}}]
  - expect: {{last_tool: bash, matches: "x-echo: \\[redacted\\][\\s\\S]*elsewhere\nelsewhere"}}
    text: "Done."
at_end: repeat_last
"#
    );
    world.write("agents/demo/demo.yaml", &script);
    let agent = |egress: &str| {
        let text = format!("---\nmodel: scripted/demo.yaml\negress: [{egress}]\n---\nAnswer.\n");
        world.write("agents/demo/agent.md", &text);
    };
    agent(&format!("\"http://{git}\", \"http://{api}\""));
    world.write(
        "bowline.toml",
        &format!(
            r#"
[egress]
allow = ["http://{elsewhere}"]
[egress.auth."{git}/p.git"]
basic = "bot"
env = "GIT_TOKEN"
[egress.auth."{api}"]
header = "X-Api-Key"
env = "API_KEY"
[egress.auth."never.example.com"]
bearer = true
env = "NEVER_SET"
"#
        ),
    );
    let run = |id: &str, env: &[(&str, &str)]| {
        let args = ["run", "demo", "-m", "go", "--id", id, "--quiet", "--json"];
        let output = world.command(&args).envs(env.iter().copied()).output();
        world.ran(output.unwrap())
    };
    let ran = run("a", &[("GIT_TOKEN", KEY), ("API_KEY", KEY)]);
    assert_eq!(ran.status, 0, "{}\n{}", ran.stdout, ran.stderr);
    let all = pushed.lock().unwrap();
    assert!(all.len() >= 4, "{all:?}");
    assert!(
        all.iter().all(|one| one.header("authorization") == basic),
        "{all:?}"
    );
    let first = asked.lock().unwrap()[0].clone();
    assert_eq!(first.header("x-api-key"), KEY);
    assert_eq!(first.header("accept-encoding"), "");
    let strange = strange.lock().unwrap().clone();
    assert_eq!(strange.len(), 2);
    for one in strange {
        assert!(!format!("{one:?}").contains("sk-"), "{one:?}");
    }
    let log = Command::new("git")
        .args(["--git-dir=p.git", "log", "--format=%s", "main"])
        .current_dir(repositories.path())
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(log.stdout).unwrap(), "Two\nOne\n");

    // A secret that is not set stops the agents that may reach its host, and no others.
    let ran = run("b", &[("GIT_TOKEN", KEY)]);
    assert_eq!(ran.status, 1, "{}", ran.stdout);
    assert!(ran.stdout.contains("egress_secret"), "{}", ran.stdout);
    assert!(ran.stdout.contains("needs `API_KEY`"), "{}", ran.stdout);
    agent(&format!("\"http://{git}/other\""));
    world.write("agents/demo/demo.yaml", "turns:\n  - text: Done.\n");
    assert_eq!(run("c", &[]).status, 0);
}
