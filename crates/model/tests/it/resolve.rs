use bowline_testkit::canary::KEY;
use std::path::Path;

use bowline_model::{
    Api, ErrorKind, ModelError, ModelSettings, Models, NamedModel, ResolvedModel, Secret, Thinking,
    catalog, resolve::providers,
};

fn settings() -> ModelSettings {
    let key = |var: &str| (var == "ANTHROPIC_API_KEY").then(|| Secret::new(KEY));
    ModelSettings::new(key, "/nowhere")
}

fn resolve(name: &str) -> Result<ResolvedModel, ModelError> {
    Models::new(settings()).resolve(name, Path::new("."))
}

fn named(entry: NamedModel) -> Models {
    let mut settings = settings();
    settings.named.insert("mine".to_owned(), entry);
    Models::new(settings)
}

fn entry(api: Api) -> NamedModel {
    NamedModel::new(api)
}

#[test]
fn a_known_model_brings_its_window_its_price_and_its_thinking() {
    let model = resolve("anthropic/claude-haiku-4-5-20251001").unwrap();
    assert_eq!(model.model, "claude-haiku-4-5-20251001");
    assert_eq!(model.context_window, Some(200_000));
    assert_eq!(model.price.unwrap().output, 5_000_000);
    assert_eq!(model.default_thinking, Thinking::Medium);
}

#[test]
fn unknown_names_are_answered_with_the_closest() {
    let closest = |name: &str| match resolve(name).unwrap_err().kind {
        ErrorKind::UnknownModel { closest } => closest,
        other => panic!("{name}: {other:?}"),
    };
    let some = |name: &str| Some(name.to_owned());
    assert_eq!(
        closest("antropic/claude-haiku-4-5"),
        some("anthropic/claude-haiku-4-5")
    );
    assert_eq!(
        closest("claude-haiku-45"),
        some("anthropic/claude-haiku-4-5")
    );
    assert_eq!(
        closest("anthropic/cluade-haiku-4-5"),
        some("anthropic/claude-haiku-4-5")
    );
    assert_eq!(closest("olama/qwen"), some("ollama/qwen"));
    assert_eq!(closest("something-else-altogether"), None);
    assert_eq!(closest(""), None);
    let hint = resolve("olama/qwen").unwrap_err().hint();
    assert_eq!(hint, "did you mean `ollama/qwen`?");
}

#[test]
fn a_missing_key_names_its_variable_and_no_key_is_ever_printed() {
    let error = resolve("openai/gpt-5").unwrap_err();
    assert_eq!(
        error.kind,
        ErrorKind::MissingKey {
            var: "OPENAI_API_KEY".to_owned()
        }
    );
    assert!(error.hint().contains("OPENAI_API_KEY"));
    let model = resolve("anthropic/claude-haiku-4-5").unwrap();
    let debug = format!("{model:?} {:?}", settings());
    assert!(!debug.contains(KEY), "{debug}");
}

#[test]
fn a_local_server_needs_no_key_and_takes_any_model() {
    let model = resolve("ollama/library/qwen3:8b").unwrap();
    assert_eq!(model.model, "library/qwen3:8b");
    assert_eq!((model.context_window, model.price), (None, None));
    assert_eq!(model.default_thinking, Thinking::Off);
}

#[test]
fn a_named_model_overrides_what_the_catalogue_says() {
    let models = named(NamedModel {
        model: Some("claude-haiku-4-5".to_owned()),
        context: Some(1000),
        ..entry(Api::Anthropic)
    });
    let model = models.resolve("mine", Path::new(".")).unwrap();
    assert_eq!(
        (model.context_window, model.max_output),
        (Some(1000), Some(64_000))
    );
    assert_eq!(model.reference.provider, "mine");
}

#[test]
fn a_named_server_without_a_model_takes_it_from_the_name() {
    let server = NamedModel {
        base_url: Some("http://localhost:9/v1/".to_owned()),
        ..entry(Api::OpenaiChat)
    };
    let model = named(server.clone())
        .resolve("mine/a/b", Path::new("."))
        .unwrap();
    assert_eq!(model.model, "a/b");
    let error = named(server).resolve("mine", Path::new(".")).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Config);
}

#[test]
fn a_bad_address_is_a_configuration_error() {
    for bad in [
        "",
        "localhost:80",
        "file:///x",
        "http://user:secret-word@host/v1",
    ] {
        let entry = NamedModel {
            base_url: Some(bad.to_owned()),
            model: Some("m".to_owned()),
            ..entry(Api::OpenaiChat)
        };
        let error = named(entry).resolve("mine", Path::new(".")).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Config, "{bad}");
        assert!(!error.to_string().contains("secret-word"), "{error}");
    }
}

#[test]
fn scripts_are_found_beside_the_agent_and_named_ones_in_the_project() {
    let dir = bowline_testkit::canary::Folder::new().unwrap();
    std::fs::write(dir.path().join("s.yaml"), "turns: [{text: hi}]").unwrap();
    let model = Models::new(settings())
        .resolve("scripted/s.yaml", dir.path())
        .unwrap();
    assert_eq!(
        (&*model.reference.api, &*model.model),
        ("scripted", "s.yaml")
    );
    let mut in_project = settings();
    in_project.project_dir = dir.path().to_owned();
    let scripted = NamedModel {
        model: Some("s.yaml".to_owned()),
        ..entry(Api::Scripted)
    };
    in_project.named.insert("fake".to_owned(), scripted);
    let model = Models::new(in_project)
        .resolve("fake", Path::new("/elsewhere"))
        .unwrap();
    assert_eq!(model.reference.provider, "fake");
    let missing = Models::new(settings())
        .resolve("scripted/none.yaml", dir.path())
        .unwrap_err();
    assert_eq!(missing.code(), "model_script");
    assert!(missing.to_string().contains("none.yaml"));
}

#[test]
fn a_server_may_be_like_a_known_provider_of_its_format() {
    let like = |provider: &str| NamedModel {
        base_url: Some("http://127.0.0.1:9/v1".to_owned()),
        model: Some("m".to_owned()),
        like: Some(provider.to_owned()),
        ..entry(Api::OpenaiChat)
    };
    named(like("mistral"))
        .resolve("mine", Path::new("."))
        .unwrap();
    for other in ["anthropic", "nobody"] {
        let error = named(like(other))
            .resolve("mine", Path::new("."))
            .unwrap_err();
        assert_eq!(error.kind, ErrorKind::Config);
        assert!(error.message.contains("no provider that speaks"), "{error}");
    }
}

#[test]
fn every_known_provider_can_be_resolved() {
    let known = providers();
    assert!(!known.is_empty());
    let models = Models::new(ModelSettings::new(|_| Some(Secret::new("key")), "."));
    for provider in known {
        let id = catalog::models()
            .iter()
            .find(|model| model.provider == provider.name)
            .map_or("x", |model| model.id.as_str());
        let spec = format!("{}/{id}", provider.name);
        let resolved = models.resolve(&spec, Path::new(".")).unwrap();
        assert_eq!(resolved.reference.provider, provider.name);
    }
}
