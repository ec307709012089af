use bowline_sandbox::search::{self, Case, GrepQuery};

use crate::support::{World, put};

#[tokio::test]
async fn smart_case_words_and_context() {
    let overlay = World::new().begin().await;
    put(&overlay, "f", "one\nTwo\nthree twofold\n").await;
    let grep = |query: GrepQuery| {
        let overlay = overlay.clone();
        async move {
            let mut lines = Vec::new();
            search::grep(&overlay, &query, "f", |line| {
                lines.push(format!(
                    "{}{}{}",
                    line.line,
                    if line.matched { ':' } else { '-' },
                    line.text
                ));
                true
            })
            .await
            .unwrap();
            lines
        }
    };
    let two = GrepQuery {
        pattern: "two".into(),
        ..GrepQuery::default()
    };
    assert_eq!(grep(two.clone()).await, ["3:three twofold"]);
    assert_eq!(
        grep(GrepQuery {
            case: Case::Smart,
            ..two.clone()
        })
        .await,
        ["2:Two", "3:three twofold"]
    );
    assert_eq!(
        grep(GrepQuery {
            case: Case::Smart,
            word: true,
            ..two.clone()
        })
        .await,
        ["2:Two"]
    );
    assert_eq!(
        grep(GrepQuery { before: 1, ..two }).await,
        ["2-Two", "3:three twofold"]
    );
}

#[tokio::test]
async fn anchors_are_those_of_a_line() {
    let overlay = World::new().begin().await;
    put(&overlay, "f", "ax\nxb\nbx\n\n").await;
    for (pattern, expected) in [("^x", vec![2]), ("x$", vec![1, 3]), ("^$", vec![4])] {
        let query = GrepQuery {
            pattern: pattern.into(),
            ..GrepQuery::default()
        };
        let mut lines = Vec::new();
        let found = search::grep(&overlay, &query, "f", |line| {
            lines.push(line.line);
            true
        });
        found.await.unwrap();
        assert_eq!(lines, expected, "{pattern}");
    }
}

#[tokio::test]
async fn a_search_stops_when_the_caller_has_enough() {
    let overlay = World::new().begin().await;
    for n in 0..20 {
        put(&overlay, &format!("f{n:02}"), "x\n").await;
    }
    let mut seen = 0;
    let query = GrepQuery {
        pattern: "x".into(),
        include: Some("!f00".into()),
        ..GrepQuery::default()
    };
    let summary = search::grep(&overlay, &query, ".", |_| {
        seen += 1;
        seen < 3
    })
    .await
    .unwrap();
    assert!(summary.stopped);
    assert_eq!((seen, summary.files), (3, 3));
}

#[test]
fn a_pattern_matches_whole_relative_paths() {
    let cases = [
        ("*.rs", "a.rs", true),
        ("*.rs", "src/a.rs", false),
        ("**/*.rs", "a.rs", true),
        ("**/*.rs", "src/deep/a.rs", true),
        ("src/**", "src/deep/a.rs", true),
        ("src/**", "src", false),
        ("src/**/x", "src/x", true),
        ("a[12].txt", "a1.txt", true),
        ("a\\[1\\].txt", "a[1].txt", true),
        ("a\\[1\\].txt", "a1.txt", false),
        ("{a,b/c}/*", "b/c/d", true),
        ("{a,b}/*", "b/x", true),
        ("*", ".hidden", true),
        ("a*a", "a", false),
        ("a*a", "aa", true),
    ];
    for (pattern, path, expected) in cases {
        assert_eq!(
            search::Glob::new(pattern).unwrap().matches(path),
            expected,
            "{pattern} {path}"
        );
    }
}
