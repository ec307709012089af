//! Requests that a tool made of the description in `docs/reference/openapi.json`: each answer is one that
//! the description has, none is a fault of the server.
//!
//! The tool is installed once, by the hashes in `tests/clients/openapi`, into the cache of whoever runs
//! the tests.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use bowline::{
    Agent, Bowline, Outgoing, Render,
    server::{Key, KeyHash, Keys, Rate, Scope, Settings},
};
use bowline_agent::definition::Approval;

use crate::{npm, streams::Site};

const KEY: &str = "bwl_of-the-tool";
const SCRIPT: &str = r#"
turns: [{text: "An answer."}]
at_end: repeat_last
by_message:
  - match: "^ask"
    turns:
      - tools: [{name: bash, input: {command: "echo made > made.txt"}}]
      - text: "Done."
"#;

/// Where the tool is installed. `None`, said loudly, without a Python that can install it.
fn tool() -> Option<PathBuf> {
    let able = "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))";
    let python = Command::new("python3").args(["-c", able]).output();
    if !python.is_ok_and(|output| output.status.success()) {
        npm::skipped(
            "no python3 of 3.11 or later with venv and pip here, so the requests of schemathesis were not made",
        );
        return None;
    }
    let list = npm::source("openapi").join("requirements.txt");
    let place = npm::cache("python", &[fs::read(&list).unwrap()]);
    npm::once(&place, |place| {
        let run = |command: &mut Command| {
            let output = command.stdin(Stdio::null()).output().unwrap();
            let words = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{command:?}: {words}");
        };
        run(Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(place));
        run(Command::new(place.join("bin/pip"))
            .args([
                "install",
                "-q",
                "--require-hashes",
                "--only-binary",
                ":all:",
                "-r",
            ])
            .arg(&list));
    });
    Some(place.join("bin/schemathesis"))
}

/// A server with a conversation that was answered, one that waits for a person, a file and a schedule.
async fn start(dir: &Path) -> (Site, String, String) {
    fs::write(dir.join("script.yaml"), SCRIPT).unwrap();
    let folder = dir.to_path_buf();
    let agent = Agent::new("demo", move |cx: &mut Render| {
        cx.model("scripted/script.yaml");
        let definition = cx.definition();
        definition.dir = Some(folder.clone());
        definition
            .approvals
            .insert("bash".to_owned(), Approval::Required);
        "Answer."
    });
    let bowline = Bowline::open(dir.join("data"))
        .unwrap()
        .agent(agent.unwrap());
    let key = Key {
        name: "tool".to_owned(),
        hash: KeyHash::of(KEY),
        agents: vec!["*".to_owned()],
        scopes: vec![Scope::Admin],
        streams: Vec::new(),
    };
    let settings = Settings {
        addr: "127.0.0.1:0".parse().unwrap(),
        keys: Keys::new([key]),
        stranger_rate: Rate::per_second(10_000),
        key_rate: Rate::per_second(10_000),
        drain: Duration::from_secs(5),
        long_poll: Duration::from_millis(100),
        ..Settings::default()
    };
    let site = Site::start_as(bowline, settings).await;
    let service = site.service();
    let reply = service
        .ask("demo", "a", Outgoing::user("hi"))
        .await
        .unwrap();
    let mut chunks = service.observe("demo", "waits");
    service
        .send("demo", "waits", Outgoing::user("ask"))
        .await
        .unwrap();
    let approval = loop {
        let chunk = chunks.recv().await.unwrap();
        if let bowline_agent::ChunkBody::ApprovalRequested { approval } = &chunk.body {
            break approval.approval_id.clone();
        }
    };
    (site, reply.submission_id, approval)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_made_of_the_description_get_the_answers_that_it_has() {
    let Some(tool) = tokio::task::spawn_blocking(tool).await.unwrap() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let (site, submission, approval) = start(dir.path()).await;
    let run = |settings: &'static str, examples: &'static str, more: &'static [&'static str]| {
        let mut command = tokio::process::Command::new(&tool);
        command
            .arg("--config-file")
            .arg(npm::source("openapi").join(settings))
            .args(["run", &format!("{}/openapi.json", site.url())])
            .args(["--max-examples", examples])
            .args(["--seed", "1", "--generation-database", "none", "--no-color"])
            .args(["--no-shrink", "--continue-on-failure"])
            .args(more)
            .env("BOWLINE_KEY", KEY)
            .env("BOWLINE_SUBMISSION", &submission)
            .env("BOWLINE_APPROVAL", &approval)
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        async move {
            let output = tokio::time::timeout(Duration::from_secs(120), command.output()).await;
            let output = output
                .expect("the tool took more than two minutes")
                .unwrap();
            let (out, err) = (
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr),
            );
            assert!(output.status.success(), "{settings}\n{out}\n{err}");
            assert!(out.contains("No issues found"), "{settings}\n{out}\n{err}");
        }
    };
    // Without what would take away the ground under the others.
    let known = &[
        "--exclude-operation-id",
        "instances_delete",
        "--exclude-operation-id",
        "conversations_delete",
        "--phases",
        "coverage,fuzzing",
    ];
    run("known.toml", "4", known).await;
    run("anything.toml", "4", &["--phases", "coverage,fuzzing"]).await;
    site.stop().await;
}
