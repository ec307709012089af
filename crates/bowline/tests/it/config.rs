//! `bowline.toml` and the secrets beside it, as they are read.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use bowline::config::{AuthKind, Config, FILE, IsolateSettings, find_project};
use bowline_agent::definition::CodeLimits;
use bowline_model::{Api, Price};

fn project(text: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(FILE), text).unwrap();
    dir
}

fn secrets(dir: &Path, text: &str, mode: u32) {
    let file = dir.join(".bowline/secrets.toml");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, text).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
}

fn error(dir: &Path) -> (&'static str, String, String) {
    let error = Config::load(dir).unwrap_err();
    let root = format!("{}/", dir.display());
    (
        error.code(),
        error.to_string().replace(&root, ""),
        error.hint().replace(&root, ""),
    )
}

#[test]
fn an_empty_file_has_every_default() {
    let dir = project("");
    let config = Config::load(dir.path()).unwrap();
    assert_eq!(config, Config::new(dir.path()));
    assert_eq!(config.data, dir.path().join(".bowline"));
    assert_eq!(
        config.name,
        dir.path().file_name().unwrap().to_str().unwrap()
    );
    assert_eq!(config.server.addr.to_string(), "127.0.0.1:8787");
}

#[test]
fn every_section_is_read() {
    let dir = project(
        r#"
[project]
name = "shop"
[data]
dir = "var/data"
[models.local]
api = "openai-chat"
base_url = "http://127.0.0.1:11434/v1"
model = "qwen3-coder"
context = 32_768
price = { input = 0.10, output = "0.30" }
[models.fake]
api = "scripted"
model = "fake.yaml"
[limits]
spend_usd = 5
wall = "2h"
[code]
wall = "10m"
cpu = "250ms"
memory_mib = 32
stack_kib = 128
output_kib = 2
log_kib = 3
calls = 4
call_kib = 5
concurrency = 6
isolates = 70
isolates_each = 8
busy = 12
waiting = 9
total_memory_mib = 100
at_once = 11
[server]
addr = "0.0.0.0:80"
limits = {address_rate = 0, key_rate = 50, body_mib = 4}
[egress]
allow = []
[egress.auth."git.example.com/acme"]
basic = "bot"
env = "GIT_TOKEN"
[auth]
[bindings]
"#,
    );
    let config = Config::load(dir.path()).unwrap();
    assert_eq!(
        (config.name.as_str(), config.data),
        ("shop", dir.path().join("var/data"))
    );
    let limits = config.server.limits;
    assert_eq!(
        (limits.address_rate, limits.key_rate, limits.body_mib),
        (Some(0), Some(50), Some(4))
    );
    assert_eq!((limits.stranger_rate, limits.followers), (None, None));
    let [host] = config.egress.auth.as_slice() else {
        panic!("{:?}", config.egress)
    };
    assert!(host.to.check("https://git.example.com/acme/x").is_ok());
    assert!(matches!(&host.auth.kind, AuthKind::Basic(Some(user)) if user == "bot"));
    let local = &config.models["local"];
    assert_eq!((local.api, local.context), (Api::OpenaiChat, Some(32_768)));
    let price = Price {
        input: 100_000,
        output: 300_000,
        cache_read: None,
        cache_write: None,
    };
    assert_eq!(local.price, Some(price));
    assert_eq!(config.models["fake"].model.as_deref(), Some("fake.yaml"));
    assert_eq!(config.limits.spend_usd, Some(5_000_000));
    assert_eq!(config.limits.wall, Some(Duration::from_secs(7_200)));
    let code = config
        .limits
        .code
        .apply(bowline_agent::code::default_limits());
    let expected = CodeLimits {
        wall: Duration::from_secs(600),
        cpu: Duration::from_millis(250),
        memory: 32 << 20,
        stack: 128 << 10,
        output: 2 << 10,
        log: 3 << 10,
        calls: 4,
        call_bytes: 5 << 10,
        concurrency: 6,
    };
    assert_eq!(code, expected);
    let isolates = IsolateSettings {
        live: Some(70),
        each: Some(8),
        busy: Some(12),
        waiting: Some(9),
        memory: Some(100 << 20),
        at_once: Some(11),
    };
    assert_eq!(config.isolates, isolates);
    assert_eq!(config.server.addr.port(), 80);
}

#[test]
#[allow(clippy::too_many_lines, reason = "a table")]
fn mistakes_are_named_with_line_and_next_step() {
    for (text, code, message, hint) in [
        (
            "[project\n",
            "syntax",
            ":1: not valid TOML: ",
            "correct the line",
        ),
        (
            "[project]\nname = 'a'\nname = 'b'\n",
            "syntax",
            ":3: not valid TOML: duplicate key",
            "correct the line",
        ),
        (
            "\n[modles.a]\n",
            "unknown_key",
            ":2: unknown key `modles`",
            "did you mean `models`?",
        ),
        (
            "[data]\n\ndirr = 'x'",
            "unknown_key",
            ":3: unknown key `dirr` in `data`",
            "did you mean `dir`?",
        ),
        (
            "[data]\ndir = 4",
            "invalid_value",
            ":2: `dir` wants a text, not the number `4`",
            "change the value of `dir`",
        ),
        (
            "data = 1",
            "invalid_value",
            ":1: `data` wants keys with values, not the number `1`",
            "change the value of `data`",
        ),
        (
            "[models.a]\nmodel = 'x'",
            "missing_key",
            ":1: the key `api` is missing in `models.a`",
            "add `api = \"openai-chat\"`, or another of the known formats",
        ),
        (
            "[models.a]\napi = 'openai'",
            "invalid_value",
            ":2: `api` wants one of `anthropic`, `openai-responses`, `openai-chat`, `scripted`, `gemini`, `bedrock`, not `openai`",
            "did you mean `openai-chat`?",
        ),
        (
            "[models.a]\napi = 'scripted'\nbase_url = 'x'",
            "invalid_value",
            ":3: `base_url` wants a URL that starts with `https://` or `http://`, not `x`",
            "change the value of `base_url`",
        ),
        (
            "[models.a]\napi = 'scripted'\nprice = {input = 1}",
            "missing_key",
            ":3: the key `output` is missing in `price`",
            "give it in dollars for a million tokens",
        ),
        (
            "[limits]\nturn = 5",
            "unknown_key",
            ":2: unknown key `turn` in `limits`",
            "did you mean `turns`?",
        ),
        (
            "[code]\nstack_kib = 4096",
            "invalid_value",
            ":2: `stack_kib` wants a whole number from 64 to 480, not the number `4096`",
            "change the value of `stack_kib`",
        ),
        (
            "[code]\nisolate = 5",
            "unknown_key",
            ":2: unknown key `isolate` in `code`",
            "did you mean `isolates`?",
        ),
        (
            "[server]\naddr = 'localhost'",
            "invalid_value",
            ":2: `addr` wants an IP address and port, or `localhost` and port, such as `127.0.0.1:8787`, not `localhost`",
            "change the value of `addr`",
        ),
        (
            "[bindings.github]\neffect = 'ask'",
            "missing_key",
            ":1: `[bindings.github]` says neither `openapi` nor `hosts`",
            "add `openapi = \"FILE\"`, or `hosts = [\"api.example.com\"]`",
        ),
        (
            "[bindings.github]\nhosts = ['api.example.com']\nexamples = true",
            "missing_key",
            ":1: `[bindings.github]` has `examples` and no document that gives them",
            "add `openapi = \"FILE\"`, or remove `examples`",
        ),
        (
            "[egress]\nallow = ['a*.example.com']",
            "invalid_value",
            ":2: `a*.example.com` cannot be allowed: `*` stands for a whole host or for its first names",
            "write `host[:port][/path]`, for example `api.example.com`",
        ),
        (
            "[egress.auth.'*.example.com']\nbearer = true\nenv = 'A'",
            "invalid_value",
            ":1: `*.example.com` gets no credential: a `*` does not say which host may have it",
            "write `host[:port][/path]` in quotes, as in `[egress.auth.\"git.example.com\"]`",
        ),
        (
            "[auth]\nkeys = [{name = 'a'}]",
            "missing_key",
            ":2: the key `hash` is missing in `keys`",
            "write the line that `bowline auth new` prints",
        ),
    ] {
        let dir = project(text);
        let (found, error, next) = error(dir.path());
        let expected = format!("bowline.toml{message}");
        assert!(
            if message.ends_with(": ") {
                error.starts_with(&expected)
            } else {
                error == expected
            },
            "\n{error}\n{expected}"
        );
        assert_eq!(
            (found, next.as_str()),
            (format!("config_{code}").as_str(), hint),
            "{text}"
        );
        assert!(!error.contains('\n'));
    }
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(
        Config::load(dir.path()).unwrap_err().code(),
        "config_no_project"
    );
    fs::create_dir(dir.path().join(FILE)).unwrap();
    assert_eq!(error(dir.path()).1, "bowline.toml: is not a file");
}

#[test]
fn the_project_is_the_nearest_folder_upward() {
    let dir = project("");
    let inner = dir.path().join("a/b");
    fs::create_dir_all(&inner).unwrap();
    assert_eq!(find_project(&inner).as_deref(), Some(dir.path()));
    fs::write(dir.path().join("a").join(FILE), "").unwrap();
    assert_eq!(find_project(&inner), Some(dir.path().join("a")));
    assert_eq!(
        find_project(&tempfile::tempdir().unwrap().path().join("none")),
        None
    );
}

#[test]
fn the_environment_wins_over_the_secrets_file_and_neither_is_printed() {
    let dir = project("");
    secrets(
        dir.path(),
        "A_KEY = \"from-file\"\nB_KEY = \"from-file\"\n",
        0o600,
    );
    let config = Config::load(dir.path()).unwrap();
    let lookup = config.secrets.lookup(|name| match name {
        "A_KEY" => Some("from-env".to_owned()),
        "B_KEY" => Some(String::new()),
        _ => None,
    });
    assert_eq!(lookup("A_KEY").unwrap().expose(), "from-env");
    assert_eq!(lookup("B_KEY").unwrap().expose(), "from-file");
    assert!(lookup("C_KEY").is_none());
    let printed = format!("{config:?}");
    assert!(
        printed.contains("A_KEY") && !printed.contains("from-file"),
        "{printed}"
    );
}

#[test]
fn a_secrets_file_is_refused_without_showing_what_is_in_it() {
    let dir = project("");
    secrets(dir.path(), "A = \"x\"", 0o644);
    assert_eq!(
        error(dir.path()),
        (
            "config_secrets",
            ".bowline/secrets.toml: others than its owner may read it (mode 0644)".to_owned(),
            "run `chmod 600 .bowline/secrets.toml`".to_owned()
        )
    );
    for (text, message) in [
        (
            "A = \"x\"\nsk-hunter2",
            ".bowline/secrets.toml:2: is not valid TOML",
        ),
        (
            "\nA = [\"sk-hunter2\"]",
            ".bowline/secrets.toml:2: the value of `A` is not a text",
        ),
    ] {
        secrets(dir.path(), text, 0o600);
        let error = Config::load(dir.path()).unwrap_err();
        assert!(!format!("{error:?}").contains("hunter2"));
        assert_eq!(
            error
                .to_string()
                .replace(&format!("{}/", dir.path().display()), ""),
            message
        );
    }
    let named = project("[secrets]\nfile = 'keys.toml'");
    assert_eq!(error(named.path()).1, "keys.toml: does not exist");
}

#[test]
fn the_examples_of_the_reference_and_the_example_project_load() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = fs::read_to_string(root.join("docs/reference/bowline-toml.md")).unwrap();
    let mut examples = 0;
    for example in page
        .split("```toml\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
    {
        Config::load(project(example).path()).unwrap();
        examples += 1;
    }
    assert!(examples > 0);
    Config::load(&root.join("examples/triage")).unwrap();
}
