use bowline_sandbox::{
    shell::{Shell, ShellOptions, ShellState},
    tools::{
        self, BashInput, EditInput, GlobInput, GrepInput, ReadInput, ToolFailure, ToolOutput,
        WriteInput,
    },
    workspace::Overlay,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::support::{World, put, text};

fn input<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

async fn read(overlay: &Overlay, value: Value) -> Result<ToolOutput, ToolFailure> {
    tools::read(overlay, input::<ReadInput>(value)).await
}

async fn edit(overlay: &Overlay, value: Value) -> Result<String, String> {
    let edited = tools::edit(overlay, input::<EditInput>(value)).await;
    edited
        .map(|output| output.text)
        .map_err(|failure| failure.to_string())
}

async fn bash(overlay: &Overlay, value: Value) -> String {
    let shell = Shell::new();
    let run = tools::bash(
        overlay,
        &shell,
        ShellState::default(),
        input::<BashInput>(value),
        ShellOptions::default(),
    )
    .await;
    run.unwrap().output.text
}

#[tokio::test]
async fn read_gives_the_text_and_how_to_go_on() {
    let overlay = World::new().begin().await;
    let lines: String = (1..=2500).map(|n| format!("line {n}\n")).collect();
    put(&overlay, "f", &lines).await;
    let output = read(&overlay, json!({"path": "f"})).await.unwrap().text;
    assert!(output.starts_with("line 1\n"));
    assert!(
        output
            .ends_with("line 2000\n\n[Showing lines 1-2000 of 2500. Use offset=2001 to continue.]"),
        "{}",
        &output[output.len() - 100..]
    );
    let output = read(&overlay, json!({"path": "f", "offset": 2499, "limit": 1}))
        .await
        .unwrap()
        .text;
    assert_eq!(
        output,
        "line 2499\n\n[Showing lines 2499-2499 of 2500. Use offset=2500 to continue.]"
    );
    assert_eq!(
        read(&overlay, json!({"path": "f", "offset": 2500}))
            .await
            .unwrap()
            .text,
        "line 2500\n"
    );
    let failure = read(&overlay, json!({"path": "f", "offset": 2501}))
        .await
        .unwrap_err()
        .to_string();
    assert_eq!(
        failure,
        "Offset 2501 is beyond end of file (2500 lines total)"
    );
    let failure = read(&overlay, json!({"path": "nope"}))
        .await
        .unwrap_err()
        .to_string();
    assert!(failure.starts_with("ENOENT"), "{failure}");
}

#[tokio::test]
async fn read_never_cuts_a_line_but_one_that_is_too_long() {
    let overlay = World::new().begin().await;
    put(
        &overlay,
        "wide",
        format!("{}\n{}\n{}\n", "a".repeat(30_000), "b".repeat(30_000), "c"),
    )
    .await;
    let output = read(&overlay, json!({"path": "wide"})).await.unwrap().text;
    assert!(output.ends_with("a\n\n[Showing lines 1-1 of 3. Use offset=2 to continue.]"));
    put(&overlay, "long", "é".repeat(40_000)).await;
    let output = read(&overlay, json!({"path": "long"})).await.unwrap().text;
    assert!(output.contains("[Line 1 is longer than 50.0KB"));
    assert!(output.starts_with("éé"));
    put(&overlay, "empty", "").await;
    assert_eq!(
        read(&overlay, json!({"path": "empty"})).await.unwrap().text,
        ""
    );
}

#[tokio::test]
async fn read_gives_images_and_pdfs_as_media_by_their_bytes() {
    let overlay = World::new().begin().await;
    let png = b"\x89PNG\r\n\x1a\n\0\0\0rest";
    put(&overlay, "picture.txt", png).await;
    let output = read(&overlay, json!({"path": "picture.txt"}))
        .await
        .unwrap();
    assert_eq!(output.text, "Read image file [image/png]");
    assert_eq!(
        output.media,
        Some(("image/png".into(), bytes::Bytes::from_static(png)))
    );
    put(&overlay, "a.pdf", "%PDF-1.7\n").await;
    assert_eq!(
        read(&overlay, json!({"path": "a.pdf"}))
            .await
            .unwrap()
            .media
            .unwrap()
            .0,
        "application/pdf"
    );
    put(&overlay, "binary", [1, 0, 2]).await;
    assert!(
        read(&overlay, json!({"path": "binary"}))
            .await
            .unwrap_err()
            .to_string()
            .contains("binary file (3B)")
    );
}

#[tokio::test]
async fn write_makes_directories_and_says_how_much() {
    let overlay = World::new().begin().await;
    let output = tools::write(
        &overlay,
        input::<WriteInput>(json!({"path": "a/b/c.txt", "content": "é"})),
    )
    .await
    .unwrap();
    assert_eq!(output.text, "Successfully wrote 2 bytes to a/b/c.txt");
    assert_eq!(text(&overlay, "/workspace/a/b/c.txt").await, "é");
    let failure = tools::write(
        &overlay,
        input::<WriteInput>(json!({"path": "a", "content": ""})),
    )
    .await;
    assert!(failure.unwrap_err().to_string().starts_with("EISDIR"));
}

#[tokio::test]
async fn edit_takes_every_form_that_models_send() {
    let overlay = World::new().begin().await;
    let pair = json!({"oldText": "a", "newText": "b"});
    for edits in [
        json!({"path": "f", "oldText": "a", "newText": "b"}),
        json!({"path": "f", "edits": [pair]}),
        json!({"path": "f", "edits": pair}),
        json!({"path": "f", "edits": serde_json::to_string(&json!([pair])).unwrap()}),
    ] {
        put(&overlay, "f", "xax\r\n").await;
        assert_eq!(
            edit(&overlay, edits).await.unwrap(),
            "Successfully replaced 1 block(s) in f."
        );
        assert_eq!(text(&overlay, "f").await, "xbx\r\n");
    }
    put(&overlay, "f", "a a").await;
    let all = json!({"path": "f", "edits": [{"oldText": "a", "newText": "b", "replaceAll": true}]});
    assert_eq!(
        edit(&overlay, all).await.unwrap(),
        "Successfully replaced 2 block(s) in f."
    );
}

#[tokio::test]
async fn an_edit_that_fails_changes_nothing() {
    let overlay = World::new().begin().await;
    put(&overlay, "f", "one two").await;
    let edits = json!({"path": "f", "edits": [{"oldText": "one", "newText": "1"}, {"oldText": "three", "newText": "3"}]});
    assert!(
        edit(&overlay, edits)
            .await
            .unwrap_err()
            .contains("edits[1].oldText")
    );
    assert_eq!(text(&overlay, "f").await, "one two");
    let missing = edit(
        &overlay,
        json!({"path": "nope", "oldText": "a", "newText": "b"}),
    )
    .await
    .unwrap_err();
    assert!(missing.contains("ENOENT"), "{missing}");
}

#[tokio::test]
async fn bash_gives_both_outputs_and_the_exit_code() {
    let overlay = World::new().begin().await;
    assert_eq!(
        bash(
            &overlay,
            json!({"command": "echo out; echo err >&2; exit 3"})
        )
        .await,
        "out\n\nerr\n\nCommand exited with code 3"
    );
    assert_eq!(
        bash(&overlay, json!({"command": "true"})).await,
        "(no output)"
    );
    let long = bash(&overlay, json!({"command": "seq 1 5000"})).await;
    assert!(long.starts_with("3001\n"), "{}", &long[..50]);
    assert!(long.contains("[Showing lines 3001-5000 of 5000."));
    let wide = bash(
        &overlay,
        json!({"command": "printf 'a\\n'; yes é | head -30000 | tr -d '\\n'"}),
    )
    .await;
    let (end, note) = wide.split_once("\n\n").unwrap();
    assert!(end.len() <= 51_200 && end.chars().all(|c| c == 'é'));
    assert!(note.starts_with("[Showing the last 50.0KB of line 2."));
}

#[tokio::test]
async fn a_failing_command_keeps_its_writes_and_one_out_of_time_does_not() {
    let overlay = World::new().begin().await;
    bash(&overlay, json!({"command": "echo 1 > kept; exit 1"})).await;
    let output = bash(
        &overlay,
        json!({"command": "echo 1 > lost; sleep 30", "timeout": 0.3}),
    )
    .await;
    assert!(
        output.contains(
            "Command timed out after 0.3 seconds.\nThe files that it wrote are as they were before."
        ),
        "{output}"
    );
    assert!(output.ends_with("Command exited with code 124"), "{output}");
    assert!(overlay.exists("kept").await.unwrap());
    assert!(!overlay.exists("lost").await.unwrap());
}

#[tokio::test]
async fn grep_gives_lines_with_their_place() {
    let overlay = World::new().begin().await;
    put(&overlay, "src/a.rs", "fn main() {\n    // MARK: x\n}\n").await;
    put(&overlay, "src/b.txt", "mark MARK(\n").await;
    put(&overlay, "bin", "MARK\0").await;
    let grep = |value: Value| {
        let overlay = overlay.clone();
        async move {
            tools::grep(&overlay, input::<GrepInput>(value))
                .await
                .map(|output| output.text)
        }
    };
    assert_eq!(
        grep(json!({"pattern": "MARK"})).await.unwrap(),
        "src/a.rs:2:    // MARK: x\nsrc/b.txt:1:mark MARK(\n\n[1 binary files were not searched.]"
    );
    assert_eq!(
        grep(json!({"pattern": "MARK", "include": "*.rs", "path": "src"}))
            .await
            .unwrap(),
        "src/a.rs:2:    // MARK: x"
    );
    assert_eq!(
        grep(json!({"pattern": "MARK(", "literal": true, "path": "src"}))
            .await
            .unwrap(),
        "src/b.txt:1:mark MARK("
    );
    assert_eq!(
        grep(json!({"pattern": "nothing", "path": "src"}))
            .await
            .unwrap(),
        "No matches found."
    );
    assert!(
        grep(json!({"pattern": "MARK("}))
            .await
            .unwrap_err()
            .to_string()
            .starts_with("invalid pattern")
    );
    put(&overlay, "many", "x\n".repeat(150) + &"x".repeat(600)).await;
    let output = grep(json!({"pattern": "x", "path": "many"})).await.unwrap();
    assert!(
        output.ends_with("\n\n[Showing 100 of 151 matches. Narrow your search.]"),
        "{output}"
    );
    let output = grep(json!({"pattern": "xx", "path": "many"}))
        .await
        .unwrap();
    assert_eq!(output, format!("many:151:{}...", "x".repeat(500)));
}

#[tokio::test]
async fn glob_finds_names_anywhere_and_paths_by_pattern() {
    let overlay = World::new().begin().await;
    for path in ["a.rs", "src/b.rs", "src/deep/c.rs", "src/d.txt"] {
        put(&overlay, path, "").await;
    }
    let glob = |value: Value| {
        let overlay = overlay.clone();
        async move {
            tools::glob(&overlay, input::<GlobInput>(value))
                .await
                .unwrap()
                .text
        }
    };
    assert_eq!(
        glob(json!({"pattern": "*.rs"})).await,
        "a.rs\nsrc/b.rs\nsrc/deep/c.rs"
    );
    assert_eq!(glob(json!({"pattern": "src/*.rs"})).await, "src/b.rs");
    assert_eq!(glob(json!({"pattern": "**/*.{txt,md}"})).await, "src/d.txt");
    assert_eq!(
        glob(json!({"pattern": "*.rs", "path": "src/deep"})).await,
        "src/deep/c.rs"
    );
    assert_eq!(
        glob(json!({"pattern": "*.zip"})).await,
        "No files found matching pattern."
    );
}
