//! JSON, finding, checksums, and what the model has seen.

use bowline_sandbox::{
    digest::{Digest, digest_file},
    json::{JsonChange, JsonError, query_json, read_json, update_json, write_json},
    search::{FindQuery, find, summarize_tree},
    tools::Seen,
    workspace::{EntryKind, Overlay},
};
use serde_json::json;

use crate::support::{World, put, text};

#[tokio::test]
async fn json_is_queried_and_changed_in_place() {
    let overlay = World::new().begin().await;
    write_json(
        &overlay,
        "d/p.json",
        &json!({"name": "x", "deps": [{"n": "a", "v": 1}, {"n": "b", "v": 2}]}),
    )
    .await
    .unwrap();
    assert_eq!(
        query_json(&overlay, "d/p.json", "$.deps[?@.v > 1].n")
            .await
            .unwrap(),
        [json!("b")]
    );
    assert_eq!(
        query_json(&overlay, "d/p.json", ".deps[0].v")
            .await
            .unwrap(),
        [json!(1)]
    );
    let changes = [
        JsonChange::Set {
            path: "$.deps[*].v".into(),
            value: json!(9),
        },
        JsonChange::Set {
            path: "scripts.test".into(),
            value: json!("run"),
        },
        JsonChange::Delete {
            path: "$.deps[0]".into(),
        },
    ];
    let update = update_json(&overlay, "d/p.json", &changes).await.unwrap();
    assert_eq!(update.places, 4);
    assert!(update.diff.contains("+  \"scripts\": {"), "{}", update.diff);
    let expected = json!({"name": "x", "deps": [{"n": "b", "v": 9}], "scripts": {"test": "run"}});
    assert_eq!(read_json(&overlay, "d/p.json").await.unwrap(), expected);
    let bad = [
        changes[0].clone(),
        JsonChange::Delete {
            path: "$.none".into(),
        },
    ];
    assert!(matches!(
        update_json(&overlay, "d/p.json", &bad).await,
        Err(JsonError::Nothing(_))
    ));
    assert!(matches!(
        query_json(&overlay, "d/p.json", "$[").await,
        Err(JsonError::Path { .. })
    ));
    put(&overlay, "bad.json", "{").await;
    assert!(matches!(
        read_json(&overlay, "bad.json").await,
        Err(JsonError::Malformed { .. })
    ));
}

async fn tree() -> Overlay {
    let overlay = World::new().begin().await;
    put(&overlay, "src/a.rs", "12345").await;
    put(&overlay, "src/deep/b.rs", "1").await;
    put(&overlay, "README", "").await;
    overlay.mkdir("empty", false).await.unwrap();
    overlay.symlink("src", "link").await.unwrap();
    overlay
}

#[tokio::test]
async fn entries_are_found_by_what_they_are() {
    let overlay = tree().await;
    let paths = |query: FindQuery| {
        let overlay = overlay.clone();
        async move {
            let result = find(&overlay, ".", &query).await.unwrap();
            result
                .found
                .into_iter()
                .map(|found| found.path.replace("/workspace/", ""))
                .collect::<Vec<_>>()
        }
    };
    let all = FindQuery::default;
    assert_eq!(
        paths(all()).await,
        [
            "README",
            "empty",
            "link",
            "src",
            "src/a.rs",
            "src/deep",
            "src/deep/b.rs"
        ]
    );
    assert_eq!(
        paths(FindQuery {
            name: Some("*.rs".into()),
            ..all()
        })
        .await,
        ["src/a.rs", "src/deep/b.rs"]
    );
    assert_eq!(
        paths(FindQuery {
            path: Some("src/*".into()),
            ..all()
        })
        .await,
        ["src/a.rs", "src/deep"]
    );
    assert_eq!(
        paths(FindQuery {
            empty: Some(true),
            ..all()
        })
        .await,
        ["README", "empty"]
    );
    assert_eq!(
        paths(FindQuery {
            empty: Some(true),
            max_depth: Some(1),
            ..all()
        })
        .await,
        ["README", "empty"]
    );
    assert_eq!(
        paths(FindQuery {
            min_size: Some(2),
            kinds: vec![EntryKind::File],
            ..all()
        })
        .await,
        ["src/a.rs"]
    );
    assert_eq!(
        paths(FindQuery {
            min_depth: Some(3),
            ..all()
        })
        .await,
        ["src/deep/b.rs"]
    );
    assert_eq!(
        paths(FindQuery {
            kinds: vec![EntryKind::Symlink],
            ..all()
        })
        .await,
        ["link"]
    );
    assert!(find(&overlay, "README", &all()).await.is_err());
}

#[tokio::test]
async fn a_tree_is_summed_up() {
    let summary = summarize_tree(&tree().await, "/workspace").await.unwrap();
    assert_eq!(
        (
            summary.files,
            summary.directories,
            summary.links,
            summary.bytes,
            summary.depth
        ),
        (3, 3, 1, 6, 3)
    );
    assert_eq!(summary.endings["rs"], (2, 6));
    assert_eq!(summary.largest[0], ("/workspace/src/a.rs".into(), 5));
}

#[tokio::test]
async fn checksums_are_those_of_others() {
    let overlay = World::new().begin().await;
    put(&overlay, "f", "abc").await;
    for (digest, expected) in [
        (Digest::Md5, "900150983cd24fb0d6963f7d28e17f72"),
        (Digest::Sha1, "a9993e364706816aba3e25717850c26c9cd0d89d"),
        (
            Digest::Sha256,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        ),
        (
            Digest::Blake3,
            "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85",
        ),
    ] {
        assert_eq!(digest_file(&overlay, "f", digest).await.unwrap(), expected);
    }
}

#[tokio::test]
async fn the_model_is_told_when_a_file_changed_since_it_saw_it() {
    let world = World::new();
    let overlay = world.begin().await;
    put(&overlay, "f", "one\n").await;
    put(&overlay, "big", vec![b'x'; 600_000]).await;
    let mut seen = Seen::default();
    let from = |value: serde_json::Value| value;
    macro_rules! call {
        ($name:ident, $overlay:expr, $input:expr) => {
            seen.$name(&$overlay, serde_json::from_value(from($input)).unwrap())
                .await
                .unwrap()
                .text
        };
    }
    call!(read, overlay, json!({"path": "f"}));
    call!(read, overlay, json!({"path": "/workspace/big", "limit": 1}));
    // What is committed is still the same file, and a model's own writes are known to it.
    world.commit(&overlay).await;
    let overlay = world.begin().await;
    seen = serde_json::from_str(&serde_json::to_string(&seen).unwrap()).unwrap();
    assert!(
        !call!(
            edit,
            overlay,
            json!({"path": "f", "oldText": "one", "newText": "two"})
        )
        .contains("Note")
    );
    assert!(!call!(write, overlay, json!({"path": "big", "content": "small"})).contains("Note"));
    put(&overlay, "f", "two\nand more\n").await;
    let edited = call!(
        edit,
        overlay,
        json!({"path": "~/f", "oldText": "two", "newText": "three"})
    );
    assert!(
        edited.ends_with(
            "[Note: the file had been changed since you last read it; those changes were kept.]"
        ),
        "{edited}"
    );
    assert_eq!(text(&overlay, "f").await, "three\nand more\n");
    put(&overlay, "big", "other").await;
    let written = call!(write, overlay, json!({"path": "big", "content": "mine"}));
    assert!(written.contains("those changes were replaced"), "{written}");
    assert!(!call!(write, overlay, json!({"path": "big", "content": "again"})).contains("Note"));
    overlay.remove("big", false, false).await.unwrap();
    assert!(
        call!(write, overlay, json!({"path": "big", "content": "new"}))
            .contains("had been removed")
    );
}

#[tokio::test]
async fn setting_makes_what_is_missing_and_changes_every_place_that_is_named() {
    let overlay = World::new().begin().await;
    let set = |path: &str, value: serde_json::Value| JsonChange::Set {
        path: path.into(),
        value,
    };
    let delete = |path: &str| JsonChange::Delete { path: path.into() };
    for (before, change, places, after) in [
        (
            json!({"a": [1]}),
            set("a[1].b", json!(2)),
            1,
            json!({"a": [1, {"b": 2}]}),
        ),
        (
            json!({}),
            set("$['c d'].e", json!(3)),
            1,
            json!({"c d": {"e": 3}}),
        ),
        (
            json!([{"n": 1}, {"n": 2}, {"n": 3}]),
            set("$[?@.n > 1].n", json!(0)),
            2,
            json!([{"n": 1}, {"n": 0}, {"n": 0}]),
        ),
        (
            json!([{"n": 1}, {"n": 0}, {"n": 0}]),
            delete("$[?@.n == 0]"),
            2,
            json!([{"n": 1}]),
        ),
    ] {
        write_json(&overlay, "f", &before).await.unwrap();
        let done = update_json(&overlay, "f", &[change]).await.unwrap();
        assert_eq!(done.places, places, "{before}");
        assert_eq!(read_json(&overlay, "f").await.unwrap(), after);
    }
    for change in [set("[7].a[7]", json!(1)), set("$.x[?@.y]", json!(1))] {
        let done = update_json(&overlay, "f", &[change]).await;
        assert!(matches!(done, Err(JsonError::Nothing(_))), "{done:?}");
    }
    let whole = update_json(&overlay, "f", &[delete("$")]).await;
    assert!(matches!(whole, Err(JsonError::Path { .. })), "{whole:?}");
}
