//! What an edit finds in a file, and what it leaves as it was.

use bowline_sandbox::tools::{Replacement, replace};

fn one(text: &str, old: &str, new: &str) -> Result<String, String> {
    replace(
        text,
        &[Replacement {
            old,
            new,
            all: false,
        }],
        "f",
    )
    .map(|(text, _)| text)
}

#[test]
fn an_exact_text_is_replaced_literally() {
    assert_eq!(one("a $x b", "$x", "$& \\1").unwrap(), "a $& \\1 b");
}

#[test]
fn line_endings_and_byte_order_mark_stay() {
    assert_eq!(
        one("\u{feff}a\r\nb\nc\r\n", "a\nb", "x\ny").unwrap(),
        "\u{feff}x\r\ny\nc\r\n"
    );
    assert_eq!(one("a\nb\r\nc", "c", "d\ne").unwrap(), "a\nb\r\nd\ne");
}

#[test]
fn a_fuzzy_match_changes_only_what_it_matched() {
    let text = "keep \u{201c}this\u{201d}  \nsay \u{201c}hi\u{201d} \u{2014} now   \nend\u{a0}\n";
    assert_eq!(
        one(text, "say \"hi\" - now\n", "done\n").unwrap(),
        "keep \u{201c}this\u{201d}  \ndone\nend\u{a0}\n"
    );
    assert_eq!(one("a  \nb", "a\nb", "c").unwrap(), "c");
    assert_eq!(one("\u{ff0c}\u{fb01}x", "\u{2c}fi", "ok").unwrap(), "okx");
    assert_eq!(one("e\u{301}tat", "\u{e9}tat", "state").unwrap(), "state");
}

#[test]
fn mistakes_are_explained() {
    assert!(
        one("aa", "", "b")
            .unwrap_err()
            .contains("must not be empty")
    );
    assert!(
        one("aa", "a", "b")
            .unwrap_err()
            .contains("Found 2 occurrences")
    );
    assert!(
        one("aa", "x", "b")
            .unwrap_err()
            .contains("whitespace and indentation")
    );
    assert!(one("aa", "aa", "aa").unwrap_err().contains("No changes"));
    let overlapping = [
        Replacement {
            old: "abc",
            new: "x",
            all: false,
        },
        Replacement {
            old: "bcd",
            new: "y",
            all: false,
        },
    ];
    assert!(
        replace("abcd", &overlapping, "f")
            .unwrap_err()
            .contains("edits[0] and edits[1] overlap")
    );
}

#[test]
fn edits_are_matched_against_the_original() {
    let edits = [
        Replacement {
            old: "one",
            new: "two",
            all: false,
        },
        Replacement {
            old: "two",
            new: "three",
            all: false,
        },
    ];
    assert_eq!(
        replace("one two", &edits, "f").unwrap(),
        ("two three".into(), 2)
    );
    let all = [Replacement {
        old: "a",
        new: "b",
        all: true,
    }];
    assert_eq!(replace("a-a", &all, "f").unwrap(), ("b-b".into(), 2));
}
