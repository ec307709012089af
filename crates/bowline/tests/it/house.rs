//! Keeping house: backups, files of one conversation, deletion, what is old.

use std::{fs, sync::Arc, time::Duration};

use bowline::{Agent, Bowline, Outgoing, Render, Retention};
use bowline_runtime::{Sources, SystemRandom};
use bowline_store::MemoryStore;
use bowline_testkit::seeded::SeededClock;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::world::{Ran, World};

const SCRIPT: &str = "turns:\n  - text: I write.\n    tools: [{name: bash, input: {command: echo kept > note.txt}}]\n  - text: Done.\nat_end: repeat_last\n";

fn answered() -> World {
    let world = World::with_script(SCRIPT);
    ok(&world.run(&["run", "demo", "--id", "a", "-m", "Go"]));
    world
}

fn ok(ran: &Ran) {
    assert_eq!(ran.status, 0, "{}", ran.all());
}

fn error(ran: &Ran) -> (i32, String) {
    let line = ran.lines().pop().unwrap();
    let code = line["error"]["type"].as_str().unwrap().to_owned();
    (ran.status, code)
}

fn shown(world: &World, id: &str, more: &[&str]) -> Value {
    let mut args = vec!["show", "demo", id, "--json"];
    args.extend(more);
    let ran = world.run(&args);
    ok(&ran);
    ran.lines()[0].clone()
}

#[test]
fn a_conversation_goes_into_a_file_and_comes_back_whole_under_another_id() {
    let world = answered();
    insta::assert_snapshot!(
        "export",
        world.run(&["export", "demo", "a", "a.bowline"]).all()
    );
    let taken = world.run(&["export", "demo", "a", "a.bowline", "--json"]);
    assert_eq!(error(&taken), (1, "archive_file".to_owned()));
    let there = world.run(&["import", "a.bowline", "--json"]);
    assert_eq!(error(&there), (1, "archive_exists".to_owned()));
    insta::assert_snapshot!(
        "import",
        world.run(&["import", "a.bowline", "--id", "b"]).all()
    );
    let (a, b) = (shown(&world, "a", &[]), shown(&world, "b", &[]));
    assert_eq!(a["messages"], b["messages"]);
    // The copy is a conversation of its own, with its own files.
    ok(&world.run(&["run", "demo", "--id", "b", "-m", "More"]));
    assert_eq!(shown(&world, "a", &[]), a);

    // The same file in another project, where nothing is yet.
    let other = World::with_script(SCRIPT);
    fs::copy(
        world.path().join("a.bowline"),
        other.path().join("a.bowline"),
    )
    .unwrap();
    ok(&other.run(&["import", "a.bowline"]));
    assert_eq!(shown(&other, "a", &[])["messages"], a["messages"]);
    ok(&other.run(&["doctor", "--deep"]));
}

#[test]
fn a_file_that_is_torn_or_tampered_with_changes_nothing() {
    let world = answered();
    ok(&world.run(&["export", "demo", "a", "a.bowline"]));
    let whole = fs::read(world.path().join("a.bowline")).unwrap();
    let mut changed = whole.clone();
    let at = whole.windows(4).position(|part| part == b"kept").unwrap();
    changed[at] = b'K';
    let before = shown(&world, "a", &[]);
    for (name, bytes) in [
        ("torn", &whole[..whole.len() - 9]),
        ("changed", &changed),
        ("other", b"{}"),
    ] {
        fs::write(world.path().join(name), bytes).unwrap();
        let ran = world.run(&["import", name, "--id", "b", "--json"]);
        assert_eq!(error(&ran), (1, "archive_damaged".to_owned()), "{name}");
    }
    assert_eq!(world.run(&["show", "demo", "b"]).status, 2);
    assert_eq!(shown(&world, "a", &[]), before);
}

#[test]
fn a_deleted_conversation_is_gone_and_its_id_can_be_used_again() {
    let world = answered();
    let asked = world.run(&["delete", "demo", "a"]);
    insta::assert_snapshot!("delete_unconfirmed", asked.all());
    shown(&world, "a", &[]);
    insta::assert_snapshot!("delete", world.run(&["delete", "demo", "a", "--yes"]).all());
    let gone = world.run(&["delete", "demo", "a", "--yes", "--json"]);
    assert_eq!(error(&gone), (2, "conversation_not_found".to_owned()));
    ok(&world.run(&["run", "demo", "--id", "a", "-m", "Again"]));
    assert_eq!(
        shown(&world, "a", &[])["settlements"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    ok(&world.run(&["doctor", "--deep"]));
}

#[test]
fn a_backup_is_a_data_directory_and_takes_the_place_of_another() {
    let world = answered();
    insta::assert_snapshot!("backup", mask_size(&world.run(&["backup", "copy"]).all()));
    let again = world.run(&["backup", "copy", "--json"]);
    assert_eq!(error(&again), (2, "backup_exists".to_owned()));
    let before = shown(&world, "a", &[]);
    let mut copied = shown(&world, "a", &["--data", "copy"]);
    let moves = "a message: bowline run demo --id a --data copy -m TEXT";
    assert_eq!(copied["waits"][0]["moves"].take(), moves);
    copied["waits"][0]["moves"] = before["waits"][0]["moves"].clone();
    assert_eq!(copied, before);
    ok(&world.run(&["run", "demo", "--id", "a", "-m", "More"]));

    let there = world.run(&["restore", "copy", "--json"]);
    assert_eq!(error(&there), (2, "data_exists".to_owned()));
    let unasked = world.run(&["restore", "copy", "--replace", "--json"]);
    assert_eq!(error(&unasked), (2, "usage_not_confirmed".to_owned()));
    insta::assert_snapshot!(
        "restore",
        world.run(&["restore", "copy", "--replace", "--yes"]).all()
    );
    assert_eq!(shown(&world, "a", &[]), before);
    assert!(world.path().join(".bowline/store.db.replaced").is_file());
    let none = world.run(&["restore", "nowhere", "--json"]);
    assert_eq!(error(&none), (2, "data_not_found".to_owned()));
}

#[test]
fn a_damaged_backup_is_named_and_changes_nothing() {
    let world = answered();
    ok(&world.run(&["backup", "copy"]));
    let file = world.path().join("copy/store.db");
    let mut bytes = fs::read(&file).unwrap();
    // Wherever it is: pages that were split keep stale copies, which nothing reads.
    for at in 0..bytes.len() - 8 {
        if bytes[at..].starts_with(b"note.txt") {
            bytes[at] = b'N';
        }
    }
    fs::write(&file, bytes).unwrap();
    let before = shown(&world, "a", &[]);
    let ran = world.run(&["restore", "copy", "--replace", "--yes"]);
    assert_eq!(ran.status, 1);
    assert!(
        ran.stderr.contains("it is the backup copy that is damaged"),
        "{}",
        ran.stderr
    );
    assert_eq!(shown(&world, "a", &[]), before);
}

fn mask_size(text: &str) -> String {
    regex::Regex::new(r"\d+ KiB")
        .unwrap()
        .replace(text, "[SIZE]")
        .into_owned()
}

/// What is old goes; what waits, and what is young, stays, whatever its age.
#[tokio::test]
async fn old_conversations_are_deleted_and_what_is_open_never_is() {
    const DAY: Duration = Duration::from_secs(86_400);
    let dir = tempfile::tempdir().unwrap();
    let script = "turns: [{text: Done.}]\nby_message:\n  - match: ask\n    turns: [{tools: [{name: ask_question, input: {question: Well?}}]}, {text: Thanks.}]\n";
    fs::write(dir.path().join("s.yaml"), script).unwrap();
    let folder = dir.path().to_path_buf();
    let agent = Agent::new("demo", move |cx: &mut Render| {
        cx.model("scripted/s.yaml");
        cx.definition().dir = Some(folder.clone());
        cx.definition().tools.push("ask_question".to_owned());
        "Answer."
    });
    let clock = SeededClock::ticking();
    let service = Bowline::on(Arc::new(MemoryStore::new()))
        .agent(agent.unwrap())
        .sources(Sources::new(clock.clone(), Arc::new(SystemRandom)))
        .options(bowline_runtime::RuntimeOptions {
            idle: Duration::ZERO,
            ..Default::default()
        })
        .start_alone();
    service
        .ask("demo", "old", Outgoing::user("Hi"))
        .await
        .unwrap();
    let mut follow = service.observe("demo", "parked");
    service
        .send("demo", "parked", Outgoing::user("ask"))
        .await
        .unwrap();
    while !matches!(
        follow.recv().await.unwrap().body,
        bowline_agent::ChunkBody::ApprovalRequested { .. }
    ) {}
    clock.advance(10 * DAY);
    service
        .ask("demo", "young", Outgoing::user("Hi"))
        .await
        .unwrap();
    let retention = |days| Retention {
        conversations: Some(days * DAY),
    };
    let sweep = async |days| {
        // An actor leaves memory on its own time; awake ones are left alone.
        loop {
            let swept = retention(days)
                .sweep(service.runtime(), &CancellationToken::new())
                .await
                .unwrap();
            let left = service.instances("demo", None, 10).await.unwrap();
            if swept.deleted > 0 || days > 10 || left.len() == 1 {
                return left
                    .iter()
                    .map(|actor| actor.key().to_owned())
                    .collect::<Vec<_>>();
            }
            tokio::task::yield_now().await;
        }
    };
    assert_eq!(sweep(30).await, ["old", "parked", "young"]);
    assert_eq!(sweep(5).await, ["parked", "young"]);
    clock.advance(10 * DAY);
    assert_eq!(sweep(5).await, ["parked"]);
    assert_eq!(
        service
            .open_submissions("demo", "parked")
            .await
            .unwrap()
            .len(),
        1
    );
}
