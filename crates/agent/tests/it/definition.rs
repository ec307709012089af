//! `agent.md`: what is read, what is refused, and in which words.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bowline_agent::approval::Condition;
use bowline_agent::definition::{
    self, AgentName, Approval, Compaction, Definition, DefinitionError, LimitSettings, Limits,
    LocalSandbox, SandboxKind, list,
};
use bowline_model::Thinking;
use proptest::prelude::*;

fn env(name: &str) -> Option<String> {
    match name {
        "MODEL" => Some("scripted/x.yaml".to_owned()),
        "TURNS" => Some("12".to_owned()),
        "SECRET" => Some("hunter2".to_owned()),
        "EMPTY" => Some(String::new()),
        _ => None,
    }
}

struct Project(tempfile::TempDir);

impl Project {
    fn new(agent_md: &str) -> Self {
        let project = Self(tempfile::tempdir().unwrap());
        project.write("agents/triage/agent.md", agent_md)
    }

    fn write(self, path: &str, text: impl AsRef<[u8]>) -> Self {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn load(&self, name: &str) -> Result<Definition, DefinitionError> {
        definition::load(self.path(), name, &env, &LimitSettings::default())
    }

    /// Code, text without the project's path, and hint.
    fn error(&self, name: &str) -> (&'static str, String, String) {
        self.texts(&self.load(name).unwrap_err())
    }

    fn texts(&self, error: &DefinitionError) -> (&'static str, String, String) {
        let root = format!("{}/", self.path().display());
        (
            error.code(),
            error.to_string().replace(&root, ""),
            error.hint().replace(&root, ""),
        )
    }
}

#[test]
fn the_smallest_agent_has_every_default() {
    let project = Project::new("---\nmodel: a/b\n---\nDo it.\n");
    let definition = project.load("triage").unwrap();
    let mut built = Definition::new(definition.name.clone(), "a/b", "Do it.");
    built.dir = Some(project.path().join("agents/triage"));
    assert_eq!(
        definition, built,
        "directory and builder make the same value"
    );
    assert_eq!(built.sandbox, SandboxKind::Workspace);
    assert_eq!(
        built.limits,
        Limits {
            spend_usd: None,
            turns: 200,
            tool_calls: 1_000,
            wall: Duration::from_secs(3_600),
            attempts: 10,
            tokens: None,
            depth: 4
        }
    );
}

#[test]
fn every_key_that_is_built_is_read() {
    let project = Project::new(
        "\u{feff}---\r\n# a comment\r\ndescription: Finds causes.\r\nmodel: ${MODEL}\r\nthinking: off\r\nsandbox: workspace\r\n\
         skills: [shared]\r\ntools: [open_issue]\r\napprovals: { open_issue: never, bash: {when: \"search(@.command, 'rm')\", expires: 2h} }\r\nfallback: []\r\ncode: false\r\n\
         limits: { spend_usd: 2.00, turns: \"${TURNS}\", wall: 2h, tokens: 1000000, file_mib: 2 }\r\ncompaction: false\r\n---\r\n\
         \r\nSay ${MODEL} as it is.\r\n\r\n- one\r\n",
    )
    .write("agents/triage/skills/own/SKILL.md", "---\nname: own\ndescription: x\n---\nx")
    .write("skills/shared/SKILL.md", "---\nname: shared\ndescription: x\n---\nx")
    .write("skills/broken/SKILL.md", "not loaded")
    .write("agents/triage/workspace/a.txt", "x")
    .write("agents/triage/tools/.gitkeep", "");
    let shared = LimitSettings {
        turns: Some(5),
        attempts: Some(3),
        workspace_entries: Some(7),
        ..LimitSettings::default()
    };
    let definition = definition::load(project.path(), "triage", &env, &shared).unwrap();
    let files = definition.workspace;
    assert_eq!(
        (files.bytes, files.entries, files.file_bytes),
        (1 << 30, 7, 2 << 20)
    );
    assert_eq!(definition.model, "scripted/x.yaml");
    assert_eq!(definition.thinking, Some(Thinking::Off));
    assert_eq!(definition.instructions, "Say ${MODEL} as it is.\n\n- one");
    let skills: Vec<_> = definition
        .skills
        .iter()
        .map(|skill| skill.name.as_str())
        .collect();
    assert_eq!(skills, ["own", "shared"]);
    assert_eq!(definition.tools, ["open_issue"]);
    let rm = Condition::parse("search(@.command, 'rm')").unwrap();
    assert_eq!(definition.approvals["bash"], Approval::When(rm));
    assert_eq!(
        definition.approvals_expire["bash"],
        Duration::from_secs(7_200)
    );
    assert_eq!(definition.compaction, Compaction::Off);
    assert_eq!(
        definition.workspace_seed,
        Some(project.path().join("agents/triage/workspace"))
    );
    let limits = definition.limits;
    assert_eq!(
        (limits.spend_usd, limits.turns, limits.attempts),
        (Some(2_000_000), 12, 3)
    );
    assert_eq!(
        (limits.wall, limits.tokens),
        (Duration::from_secs(7_200), Some(1_000_000))
    );
}

#[test]
#[allow(clippy::too_many_lines, reason = "a table")]
fn mistakes_are_named_with_line_and_next_step() {
    for (text, code, message, hint) in [
        (
            "model: a/b",
            "syntax",
            ":1: the first line is not `---`",
            "start the file with settings between two lines `---`",
        ),
        (
            "---\nmodel: a/b\n",
            "syntax",
            ":1: the settings have no end",
            "close them with a line `---`",
        ),
        (
            "---\n---\nx",
            "missing_key",
            ":2: the key `model` is missing",
            "add `model: provider/model`, or the name of a model in bowline.toml",
        ),
        (
            "---\nmodel: a/b\n\nskils: [a]\n---\nx",
            "unknown_key",
            ":4: unknown key `skils`",
            "did you mean `skills`?",
        ),
        (
            "---\nmodel: a/b\nqqq: 1\n---\nx",
            "unknown_key",
            ":3: unknown key `qqq`",
            "known keys: `description`, `model`, `fallback`, `thinking`, `sandbox`, `skills`, `tools`, `subagents`, `bindings`, `code`, \
             `approvals`, `egress`, `limits`, `compaction`, `result`",
        ),
        (
            "---\nmodel: a/b\nmodel: c/d\n---\nx",
            "syntax",
            ":3: `model` is there twice",
            "keep one of them",
        ),
        (
            "---\nmodel: a/b\nskills: [a\n---\nx",
            "syntax",
            ":3: not valid YAML: unclosed bracket '['",
            "correct the line; texts with `: `, `#`, `{` or `[` need quotes",
        ),
        (
            "---\nmodel: 4\n---\nx",
            "invalid_value",
            ":2: `model` wants a text, not the number `4`",
            "change the value of `model`",
        ),
        (
            "---\nmodel:\n---\nx",
            "invalid_value",
            ":2: `model` wants a text, not nothing",
            "change the value of `model`",
        ),
        (
            "---\n- a\n---\nx",
            "invalid_value",
            ":2: the settings want keys with values, not a list",
            "write `key: value`",
        ),
        (
            "---\nmodel: a/b\nthinking: hihg\n---\nx",
            "invalid_value",
            ":3: `thinking` wants one of `off`, `minimal`, `low`, `medium`, `high`, `xhigh`, `max`, not `hihg`",
            "did you mean `high`?",
        ),
        (
            "---\nmodel: a/b\nskills: a\n---\nx",
            "invalid_value",
            ":3: `skills` wants a list, not `a`",
            "change the value of `skills`",
        ),
        (
            "---\nmodel: a/b\ntools: [a, a]\n---\nx",
            "invalid_value",
            ":3: `tools` lists `a` twice",
            "remove one of them",
        ),
        (
            "---\nmodel: a/b\ntools:\n  - a\n  - B\n---\nx",
            "invalid_value",
            ":5: `B` cannot name a tool",
            "use lower-case letters and digits in words joined by `_` or `-`",
        ),
        (
            "---\nmodel: a/b\nlimits:\n  turns: 3\n  walls: 2h\n---\nx",
            "unknown_key",
            ":5: unknown key `walls` in `limits`",
            "did you mean `wall`?",
        ),
        (
            "---\nmodel: a/b\nlimits: {turns: 0}\n---\nx",
            "invalid_value",
            ":3: `turns` wants a whole number from 1 to 100000, not the number `0`",
            "change the value of `turns`",
        ),
        (
            "---\nmodel: a/b\nlimits: {wall: 2 hours}\n---\nx",
            "invalid_value",
            ":3: `wall` wants a duration such as `30s` or `2h`, from `1s` to `30d`, not `2 hours`",
            "change the value of `wall`",
        ),
        (
            "---\nmodel: a/b\nlimits: {spend_usd: -1}\n---\nx",
            "invalid_value",
            ":3: `spend_usd` wants an amount of dollars such as 2.00, not the number `-1`",
            "change the value of `spend_usd`",
        ),
        (
            "---\nmodel: a/b\nsandbox: workspaces\n---\nx",
            "invalid_value",
            ":3: `sandbox` wants `none`, `workspace`, `{local: DIR}` or `{container: IMAGE}`, not `workspaces`",
            "did you mean `workspace`?",
        ),
        (
            "---\nmodel: ${NOPE}\n---\nx",
            "missing_variable",
            ":2: the environment variable NOPE is not set",
            "set NOPE, or write ${NOPE:-default}",
        ),
        (
            "---\nmodel: a/b\nthinking: ${SECRET}\n---\nx",
            "invalid_value",
            ":3: `thinking` wants one of `off`, `minimal`, `low`, `medium`, `high`, `xhigh`, `max`, not `${SECRET}`",
            "change the value of `thinking`",
        ),
        (
            "---\nmodel: a/b\napprovals: {bash: {when: amount > 100}}\n---\nx",
            "invalid_value",
            ":3: `when` is no condition: it cannot be read from character 7 on",
            "write a filter such as `@.amount > 100`; docs/reference/agent-md.md has more",
        ),
        (
            "---\nmodel: a/b\napprovals: {bash: {when: \"match(@.a, '[')\"}}\n---\nx",
            "invalid_value",
            ":3: `when` is no condition: `[` is no regular expression that can be matched",
            "write a filter such as `@.amount > 100`; docs/reference/agent-md.md has more",
        ),
    ] {
        let project = Project::new(text);
        let (found, error, next) = project.error("triage");
        assert_eq!(found, format!("definition_{code}"), "{error}");
        let expected = format!("agents/triage/agent.md{message}");
        assert_eq!(error, expected);
        assert_eq!(next, hint, "{text}");
        assert!(!error.contains('\n'));
    }
}

#[test]
fn variables_defaults_and_escapes_are_expanded() {
    for (text, expanded) in [
        ("plain $ text", "plain $ text"),
        ("a ${TURNS} b", "a 12 b"),
        ("${TURNS:-x}${UNSET:-y}${EMPTY:-z}", "12yz"),
        ("a${EMPTY}b${UNSET:-}", "ab"),
        ("$${TURNS}", "${TURNS}"),
    ] {
        let project = Project::new(&format!("---\nmodel: a/b\ndescription: '{text}'\n---\nx"));
        let definition = project.load("triage").unwrap();
        assert_eq!(definition.description.as_deref(), Some(expanded), "{text}");
    }
    for (text, message) in [
        ("${UNSET}", "the environment variable UNSET is not set"),
        ("${TURNS", "`${` has no closing `}`"),
        ("${1X}", "`1X` is not the name of a variable"),
        ("${}", "`` is not the name of a variable"),
    ] {
        let project = Project::new(&format!("---\nmodel: '{text}'\n---\nx"));
        let (_, error, _) = project.error("triage");
        assert!(error.ends_with(&format!(":2: {message}")), "{error}");
    }
}

#[test]
fn names_are_lower_case_words_joined_by_hyphens() {
    for good in ["a", "triage", "bug-triage-2", "a1"] {
        assert!(AgentName::new(good).is_ok(), "{good}");
    }
    let long = "a".repeat(65);
    for bad in [
        "", "1a", "-a", "a-", "a--b", "A", "a_b", "a/b", "..", "ä", &long,
    ] {
        assert!(AgentName::new(bad).is_err(), "{bad}");
    }
    let tool = |name: &str| Project::new(&format!("---\nmodel: a/b\ntools: [{name}]\n---\nx"));
    assert!(tool("open_issue").load("triage").is_ok());
    let (_, error, _) = tool("open__issue").error("triage");
    assert!(
        error.ends_with("`open__issue` cannot name a tool"),
        "{error}"
    );
}

#[test]
fn a_directory_of_the_machine_is_named_from_the_project() {
    let text =
        "---\nmodel: a/b\nsandbox: {local: work, read: [tools, /usr], unconfined: true}\n---\nx";
    let project = Project::new(text)
        .write("work/a", "x")
        .write("tools/a", "x");
    let real = project.path().canonicalize().unwrap();
    let expected = LocalSandbox {
        dir: real.join("work"),
        read: vec![real.join("tools"), "/usr".into()],
        unconfined: true,
    };
    let definition = project.load("triage").unwrap();
    assert_eq!(definition.sandbox, SandboxKind::Local(expected));
    let project = Project::new("---\nmodel: a/b\nsandbox: {local: gone}\n---\nx");
    let (code, message, _) = project.error("triage");
    assert_eq!(code, "definition_invalid_value");
    assert!(
        message.contains(":3: `local`: gone: No such file"),
        "{message}"
    );
}

#[test]
fn what_is_not_built_is_refused_and_never_ignored() {
    for (key, what, hint) in [
        ("subagents: [a]", "`subagents`", "remove the key"),
        (
            "sandbox: {container: alpine}",
            "`sandbox: {container: …}`",
            "use `sandbox: workspace`",
        ),
    ] {
        let project = Project::new(&format!("---\nmodel: a/b\n{key}\n---\nx"));
        let expected = format!("agents/triage/agent.md:3: {what}: not supported yet");
        assert_eq!(
            project.error("triage"),
            ("definition_not_supported", expected, hint.to_owned())
        );
    }
    for folder in ["subagents", "workflows", "schedules"] {
        let project = Project::new("---\nmodel: a/b\n---\nx")
            .write(&format!("agents/triage/{folder}/a.ts"), "");
        let (code, message, _) = project.error("triage");
        let expected = format!("agents/triage/{folder}: the folder `{folder}`: not supported yet");
        assert_eq!((code, message), ("definition_not_supported", expected));
    }
}

#[test]
fn a_missing_agent_comes_with_the_ones_that_are_there() {
    let project = Project::new("---\nmodel: a/b\n---\nx")
        .write("agents/review/agent.md", "---\nmodel: a/b\n---\nx");
    let missing = |name: &str| {
        format!(
            "there is no agent `{name}` in {}/agents",
            project.path().display()
        )
    };
    for (name, hint) in [
        (
            "traige",
            "did you mean `triage`? Agents here: `review`, `triage`",
        ),
        ("zzz", "agents here: `review`, `triage`"),
        ("../agents/triage", "did you mean"),
        ("", "agents here"),
    ] {
        let error = project.load(name).unwrap_err();
        assert_eq!(
            (error.code(), error.to_string()),
            ("definition_agent_not_found", missing(name))
        );
        assert!(
            error.hint().starts_with(hint) || name.contains('/'),
            "{}",
            error.hint()
        );
    }
    let empty = tempfile::tempdir().unwrap();
    let error = definition::load(empty.path(), "a", &env, &LimitSettings::default()).unwrap_err();
    assert_eq!(
        error.hint(),
        "create one with `bowline init`, or name another project with --project"
    );
}

#[test]
fn what_cannot_be_read_is_said_clearly() {
    let project = Project::new("---\nmodel: a/b\n---\nx")
        .write("agents/empty/notes.txt", "")
        .write("agents/latin/agent.md", b"---\nmodel: \xe9\n---\n")
        .write("agents/huge/agent.md", vec![b'x'; 300 * 1024])
        .write("agents/Bad_Name/agent.md", "---\nmodel: a/b\n---\nx")
        .write("agents/typo/agent.md", "---\nmodel: a/b\n---\nx")
        .write("agents/typo/skill/x/SKILL.md", "")
        .write(
            "agents/bare/agent.md",
            "---\nmodel: a/b\nsandbox: none\n---\nx",
        )
        .write("agents/bare/workspace/a", "");
    for (name, code, message) in [
        (
            "empty",
            "definition_unreadable",
            "agents/empty/agent.md: cannot be read: No such file or directory (os error 2)",
        ),
        (
            "latin",
            "definition_unreadable",
            "agents/latin/agent.md: is not UTF-8 text",
        ),
        (
            "huge",
            "definition_unreadable",
            "agents/huge/agent.md: is larger than 256 KiB",
        ),
        (
            "typo",
            "definition_unknown_key",
            "agents/typo/skill: unknown folder `skill`",
        ),
        (
            "bare",
            "definition_invalid_value",
            "agents/bare/workspace: the folder `workspace` has no use with `sandbox: none`",
        ),
    ] {
        let (found, error, _) = project.error(name);
        assert_eq!((found, error.as_str()), (code, message));
    }
    assert_eq!(project.error("Bad_Name").0, "definition_invalid_name");

    let file = project.path().join("agents/triage/agent.md");
    let error = definition::load(&file, "a", &env, &LimitSettings::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "{}: cannot be read: Not a directory (os error 20)",
            file.display()
        )
    );
    let gone = list(&project.path().join("gone")).unwrap_err();
    assert_eq!(gone.code(), "definition_unreadable");
}

#[test]
fn a_listed_skill_must_exist() {
    let project = Project::new("---\nmodel: a/b\nskills:\n  - verfy\n---\nx").write(
        "agents/triage/skills/verify/SKILL.md",
        "---\nname: verify\ndescription: x\n---\nx",
    );
    assert_eq!(
        project.error("triage"),
        (
            "skill_not_found",
            "agents/triage/agent.md:4: there is no skill `verfy` in the agent's or the project's skills".to_owned(),
            "did you mean `verify`?".to_owned()
        )
    );
    let flat = Project::new("---\nmodel: a/b\n---\nx").write("agents/triage/skills/verify.md", "x");
    assert_eq!(
        flat.error("triage").1,
        "agents/triage/skills/verify.md: a skill is a folder with a SKILL.md"
    );
}

#[test]
fn the_list_of_agents_has_the_broken_ones_too() {
    let project = Project::new("---\nmodel: ${MODEL}\ndescription: Finds causes.\n---\nx")
        .write("agents/broken/agent.md", "---\nmodle: a/b\n---\nx")
        .write("agents/.hidden/agent.md", "x")
        .write("agents/README.md", "x");
    let agents = list(project.path()).unwrap();
    assert_eq!(agents.len(), 2);
    assert_eq!(agents[0].name, "broken");
    let problem = agents[0].problem.as_ref().unwrap();
    assert_eq!(
        project.texts(problem).1,
        "agents/broken/agent.md:2: unknown key `modle`"
    );
    assert_eq!(agents[1].model.as_deref(), Some("${MODEL}"));
    assert_eq!(
        (
            agents[1].description.as_deref(),
            agents[1].problem.is_none()
        ),
        (Some("Finds causes."), true)
    );
}

#[test]
fn the_examples_of_the_reference_load() {
    let page = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/agent-md.md");
    let page = fs::read_to_string(page).unwrap();
    let examples: Vec<&str> = page
        .split("```markdown\n")
        .skip(1)
        .filter_map(|rest| rest.split("\n```").next())
        .collect();
    assert!(examples.len() >= 2);
    for example in examples {
        let skill = "---\nname: reproduce\ndescription: x\n---\nx";
        if example.contains("\nname: ") {
            let project = Project::new("---\nmodel: a/b\n---\nx")
                .write("agents/triage/skills/reproduce/SKILL.md", example);
            assert_eq!(project.load("triage").unwrap().skills.len(), 1);
        } else {
            Project::new(example)
                .write("skills/reproduce/SKILL.md", skill)
                .load("triage")
                .unwrap();
        }
    }
}

#[test]
fn the_triage_example_loads() {
    let project = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../examples/triage");
    let definition = definition::load(&project, "triage", &env, &LimitSettings::default()).unwrap();
    assert_eq!(definition.skills.len(), 2);
    assert!(definition.workspace_seed.is_some());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let project = Project::new("").write("agents/triage/agent.md", bytes);
        let _ = project.load("triage");
    }

    #[test]
    fn arbitrary_settings_never_panic(settings in "[-a-z:\\[\\]{}&*!|>'\"%@` #~$,.0-9\n\t<?]{0,200}") {
        let project = Project::new(&format!("---\nmodel: a/b\n{settings}\n---\nx"));
        if let Err(error) = project.load("triage") {
            prop_assert!(!error.to_string().contains('\n'));
            prop_assert!(!error.hint().is_empty());
        }
    }
}
