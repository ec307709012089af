use bowline_sandbox::{
    edits::{self, FileChange, FileEdit},
    search::{self, PatchError, unified_diff},
    workspace::Overlay,
};
use bytes::Bytes;

use crate::support::{World, put, text};

/// What `diff` says, applied to the old text, gives the new one.
async fn round_trip(overlay: &Overlay, old: &str, new: &str) {
    put(overlay, "f", old).await;
    let diff = unified_diff(old, new, "a/f", "b/f");
    search::patch(overlay, &diff, "/workspace")
        .await
        .unwrap_or_else(|error| panic!("{error}\n{diff}"));
    assert_eq!(text(overlay, "f").await, new, "{diff}");
}

#[tokio::test]
async fn a_diff_is_a_patch() {
    let overlay = World::new().begin().await;
    let long: String = (0..100).map(|n| format!("line {n}\n")).collect();
    for (old, new) in [
        ("a\nb\nc\n", "a\nx\nc\n"),
        ("a\nb\nc", "a\nb\nc\n"),
        ("a\nb\nc\n", "a\nb\nc"),
        ("a\nb", "a\nc"),
        ("", "a\n"),
        ("a\n", ""),
        ("a\r\nb\r\nc\r\n", "a\r\nx\r\nc\r\n"),
        (
            &long,
            &long
                .replace("line 10\n", "")
                .replace("line 50\n", "fifty\nmore\n")
                .replace("line 99\n", "last"),
        ),
    ] {
        round_trip(&overlay, old, new).await;
    }
    let diff = unified_diff("1\n2\n3\n", "1\n2\n4\n", "x", "x");
    assert_eq!(diff, "--- x\n+++ x\n@@ -1,3 +1,3 @@\n 1\n 2\n-3\n+4\n");
}

#[tokio::test]
async fn a_hunk_is_found_where_it_has_moved_to_and_with_other_context() {
    let overlay = World::new().begin().await;
    put(&overlay, "f", "new\nnew\nOTHER\nb\nc\nd\ne\n").await;
    let diff = "--- a/f\n+++ b/f\n@@ -1,5 +1,5 @@\n a\n b\n-c\n+C\n d\n e\n";
    let done = search::patch(&overlay, diff, "/workspace").await.unwrap();
    assert_eq!(text(&overlay, "f").await, "new\nnew\nOTHER\nb\nC\nd\ne\n");
    assert_eq!((done[0].fuzz, done[0].hunks), (1, 1));
}

#[tokio::test]
async fn files_are_made_and_removed_and_a_reject_changes_nothing() {
    let overlay = World::new().begin().await;
    put(&overlay, "old", "x\n").await;
    let diff = "--- /dev/null\n+++ b/dir/new\n@@ -0,0 +1 @@\n+hello\n--- a/old\n+++ /dev/null\n@@ -1 +0,0 @@\n-x\n";
    let wrong = format!("{diff}--- a/dir/new\n+++ b/dir/new\n@@ -1 +1 @@\n-other\n+y\n");
    let error = search::patch(&overlay, &wrong, "/workspace")
        .await
        .unwrap_err();
    assert!(
        matches!(&error, PatchError::Rejected(rejects) if rejects.len() == 1),
        "{error}"
    );
    assert!(
        error
            .to_string()
            .contains("/workspace/dir/new: @@ -1 +1 @@"),
        "{error}"
    );
    assert!(overlay.exists("old").await.unwrap() && !overlay.exists("dir").await.unwrap());
    search::patch(&overlay, diff, "/workspace").await.unwrap();
    assert_eq!(text(&overlay, "dir/new").await, "hello\n");
    assert!(!overlay.exists("old").await.unwrap());
    for broken in [
        "",
        "--- a/f\n",
        "@@ -1 +1 @@\n",
        "--- a\n+++ b\n@@ -1,9 +1 @@\n x\n",
        "--- a\n+++ b\n@@ -x +1 @@\n",
    ] {
        assert!(
            matches!(
                search::patch(&overlay, broken, "/").await,
                Err(PatchError::Malformed { .. })
            ),
            "{broken:?}"
        );
    }
}

#[tokio::test]
async fn edits_of_many_files_are_all_or_none_and_notice_a_changed_base() {
    let overlay = World::new().begin().await;
    put(&overlay, "a", "one\n").await;
    put(&overlay, "b", "two\n").await;
    let base = Some(edits::hash_file(&overlay, "a").await.unwrap());
    let replace = |old: &str| FileChange::Replace(vec![(old.into(), "x".into(), false)]);
    let edit = |path: &str, base: Option<String>, change: FileChange| FileEdit {
        path: path.into(),
        base,
        change,
    };
    let plan = [
        edit("a", base.clone(), replace("one")),
        edit(
            "c/new",
            Some(String::new()),
            FileChange::Write(Bytes::from_static(b"new\n")),
        ),
        edit("b", None, FileChange::Remove),
    ];
    edits::apply_edits(&overlay, &plan, true).await.unwrap();
    assert_eq!(text(&overlay, "a").await, "one\n");
    let failing = [plan[0].clone(), edit("b", None, replace("absent"))];
    assert!(edits::apply_edits(&overlay, &failing, false).await.is_err());
    assert_eq!(text(&overlay, "a").await, "one\n");
    let results = edits::apply_edits(&overlay, &plan, false).await.unwrap();
    assert_eq!(results[0].diff, "--- a\n+++ a\n@@ -1 +1 @@\n-one\n+x\n");
    assert_eq!(
        (text(&overlay, "a").await, text(&overlay, "c/new").await),
        ("x\n".into(), "new\n".into())
    );
    let stale = edits::apply_edits(&overlay, &plan[..1], false)
        .await
        .unwrap_err();
    assert!(stale.to_string().starts_with("ESTALE"), "{stale}");
}

#[tokio::test]
async fn a_text_is_replaced_in_all_files_that_match() {
    let overlay = World::new().begin().await;
    for path in ["a.rs", "d/b.rs", "c.txt"] {
        put(&overlay, path, "x $y x").await;
    }
    let results = edits::replace_in_files(&overlay, "**/*.rs", "/workspace", ("x", "$1"), false)
        .await
        .unwrap();
    assert_eq!(results.len(), 2);
    assert_eq!(
        (
            text(&overlay, "d/b.rs").await,
            text(&overlay, "c.txt").await
        ),
        ("$1 $y $1".into(), "x $y x".into())
    );
}
