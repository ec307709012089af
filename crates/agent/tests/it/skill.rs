//! Skills: the format, its limits, what the model is shown.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};

use bowline_agent::skill::{self, Skill};

fn write(dir: &Path, files: &[(&str, &str)]) {
    for (path, text) in files {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

fn folder(skill_md: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let skill = dir.path().join("pdf");
    write(&skill, &[("SKILL.md", skill_md)]);
    (dir, skill)
}

const GOOD: &str = "---\nname: pdf\ndescription: Read PDFs.\n---\nUse scripts/read.sh.\n";

/// The error with the folder taken out of its text.
fn error(dir: &Path) -> (String, &'static str, String) {
    let error = Skill::load(dir).unwrap_err();
    let text = error
        .to_string()
        .replace(&format!("{}/", dir.display()), "");
    (text, error.code(), error.hint().to_owned())
}

#[test]
fn every_property_of_the_format_is_read() {
    let (_keep, dir) = folder(
        "---\nname: pdf\ndescription: >\n  Read PDFs.\n  Use for forms.\nlicense: MIT\ncompatibility: Needs awk\n\
         metadata:\n  version: 1.0\n  author: jane\nallowed-tools: Bash(git add:*) Read, grep\n---\n\n# PDF\n\nDo it.\n",
    );
    write(
        &dir,
        &[
            ("scripts/read.sh", "cat"),
            ("a.md", "x"),
            (".hidden", "y"),
            (".env.example", "K="),
        ],
    );
    let skill = Skill::load(&dir).unwrap();
    assert_eq!(skill.description, "Read PDFs. Use for forms.");
    assert_eq!(skill.license.as_deref(), Some("MIT"));
    assert_eq!(skill.compatibility.as_deref(), Some("Needs awk"));
    assert_eq!(skill.metadata["version"], "1.0");
    assert_eq!(skill.allowed_tools, ["Bash(git add:*)", "Read", "grep"]);
    assert_eq!(skill.body, "# PDF\n\nDo it.");
    let files: Vec<_> = skill
        .files
        .iter()
        .map(|file| (file.path.as_str(), file.size))
        .collect();
    assert_eq!(files, [("a.md", 1), ("scripts/read.sh", 3)]);
    assert_eq!(
        skill.activation(),
        "# PDF\n\nDo it.\n\nFiles of this skill, for `read_skill_resource`:\n- pdf/a.md (1 bytes)\n\
         - pdf/scripts/read.sh (3 bytes)"
    );
}

#[test]
fn mistakes_are_named_with_their_line() {
    let long = format!("---\nname: pdf\ndescription: {}\n---\nx", "d".repeat(1_025));
    for (text, expected) in [
        ("name: pdf", "SKILL.md:1: the first line is not `---`"),
        ("---\nname: pdf\n", "SKILL.md:1: the settings have no end"),
        (
            "---\nname: pdf\ndescription: x\n---\n",
            "SKILL.md: there are no instructions below the settings",
        ),
        (
            "---\nname: pdf\n---\nx",
            "SKILL.md:2: the key `description` is missing",
        ),
        (
            "---\nname: other\ndescription: x\n---\nx",
            "SKILL.md:2: the name `other` is not that of the folder, `pdf`",
        ),
        (
            "---\nname: P_DF\ndescription: x\n---\nx",
            "SKILL.md:2: a name is lower-case letters and digits in words joined by `-`, starts with a letter, and has at most 64 characters",
        ),
        (
            "---\nname: pdf\ndescripton: x\n---\nx",
            "SKILL.md:3: unknown key `descripton`",
        ),
        (
            "---\nname: pdf\ndescription: x\nmetadata: [a]\n---\nx",
            "SKILL.md:4: `metadata` wants keys with values, not a list",
        ),
        (
            long.as_str(),
            "SKILL.md:3: its description has not between 1 and 1024 characters",
        ),
    ] {
        let (_keep, dir) = folder(text);
        let (message, code, hint) = error(&dir);
        assert_eq!(
            (message.as_str(), code),
            (expected, "skill_invalid"),
            "{text}"
        );
        assert!(!hint.is_empty());
    }
}

#[test]
fn links_and_secrets_are_refused() {
    let key = "-----BEGIN RSA PRIVATE KEY-----\nabc";
    for (path, text) in [
        (".env", "A=1"),
        ("x/.env.local", "A=1"),
        ("id_rsa", ""),
        ("server.pem", ""),
        ("notes.txt", key),
    ] {
        let (_keep, dir) = folder(GOOD);
        write(&dir, &[(path, text)]);
        let (message, code, _) = error(&dir);
        assert_eq!(
            (message, code),
            (
                format!(
                    "{path}: looks like a secret, and the model can read every file of a skill"
                ),
                "skill_unsafe"
            )
        );
    }
    let (_keep, dir) = folder(GOOD);
    std::os::unix::fs::symlink("/etc/hosts", dir.join("hosts")).unwrap();
    assert_eq!(error(&dir).0, "hosts: is a symbolic link");
    let linked = dir.parent().unwrap().join("linked");
    std::os::unix::fs::symlink(&dir, &linked).unwrap();
    assert_eq!(Skill::load(&linked).unwrap_err().code(), "skill_unsafe");
}

#[test]
fn size_is_bounded() {
    let (_keep, dir) = folder(GOOD);
    fs::File::create(dir.join("big.bin"))
        .unwrap()
        .set_len(skill::MAX_FILE_BYTES + 1)
        .unwrap();
    let (message, code, _) = error(&dir);
    assert_eq!(
        (message.as_str(), code),
        (
            "big.bin: a file of more than 1 MiB: more than a skill may have",
            "skill_too_large"
        )
    );
    fs::remove_file(dir.join("big.bin")).unwrap();
    for n in 0..=skill::MAX_FILES {
        fs::write(dir.join(n.to_string()), "").unwrap();
    }
    assert_eq!(error(&dir).1, "skill_too_large");
}

#[test]
fn the_catalogue_has_one_line_for_each_skill() {
    let skills = [
        Skill::new("pdf", "Read\nPDFs.", "x").unwrap(),
        Skill::new("verify", "Check a fix.", "x").unwrap(),
    ];
    assert_eq!(
        skill::catalogue(&skills).unwrap(),
        "## Skills\n\nEach skill holds instructions for one kind of work: when a task fits one, call \
         `activate_skill` with its name before you begin.\n\n- pdf — Read PDFs.\n- verify — Check a fix."
    );
    assert_eq!(skill::catalogue(&[]), None);
    assert_eq!(
        skill::find(&skills, "pfd").unwrap_err(),
        "There is no skill `pfd`. Skills: `pdf`, `verify`."
    );
}

#[test]
fn resources_cannot_be_read_from_outside_the_skill() {
    let (_keep, dir) = folder(GOOD);
    write(&dir, &[("scripts/read.sh", "cat"), ("../secret", "no")]);
    let skills = [Skill::load(&dir).unwrap()];
    assert_eq!(
        skill::read_resource(&skills, "pdf/scripts/read.sh").unwrap(),
        "cat"
    );
    assert_eq!(
        skill::read_resource(&skills, "./pdf/./scripts/read.sh").unwrap(),
        "cat"
    );
    for path in [
        "pdf/../secret",
        "pdf/scripts/../../../secret",
        "pdf//etc/passwd",
        "pdf/SKILL.md",
        "pdf",
        "",
    ] {
        assert!(skill::read_resource(&skills, path).is_err(), "{path}");
    }
    assert_eq!(
        skill::read_resource(&skills, "pdf/../secret").unwrap_err(),
        "There is no file `pdf/../secret`. Files: `pdf/scripts/read.sh`."
    );
    fs::remove_file(dir.join("scripts/read.sh")).unwrap();
    std::os::unix::fs::symlink(dir.join("../secret"), dir.join("scripts/read.sh")).unwrap();
    assert_eq!(
        skill::read_resource(&skills, "pdf/scripts/read.sh").unwrap_err(),
        "Cannot read `pdf/scripts/read.sh`: it is a symbolic link now."
    );
}
