//! Providers that are not asked with a plain key.

use std::path::Path;
use std::time::{Duration, SystemTime};

use bowline_model::{Clock, ErrorKind, ModelError, ModelSettings, Models, ResolvedModel, Secret};
use bowline_testkit::provider::{Answer, FakeProvider, Wire};

use crate::messages::{request, user, whole};

/// 2015-08-30 12:36:00 UTC.
fn clock() -> Clock {
    Clock::new(|| SystemTime::UNIX_EPOCH + Duration::from_secs(1_440_938_160))
}

fn resolve(
    vars: &[(&'static str, String)],
    address: String,
    spec: &str,
) -> Result<ResolvedModel, ModelError> {
    let vars = vars.to_vec();
    let find = move |name: &str| {
        let found = vars.iter().find(|(var, _)| *var == name);
        found.map(|(_, value)| Secret::new(value))
    };
    let mut settings = ModelSettings::new(find, ".");
    settings.clock = clock();
    let provider = spec.split('/').next().unwrap_or_default();
    if !address.is_empty() {
        settings.base_urls.insert(provider.to_owned(), address);
    }
    Models::new(settings).resolve(spec, Path::new("."))
}

async fn ask(model: &ResolvedModel, server: &FakeProvider) {
    server.push(Answer::new().text("x"));
    let asked = request(&model.model, vec![user("hello")]);
    whole(model.provider.stream(asked).await.unwrap()).await;
}

#[tokio::test]
async fn an_access_key_of_aws_signs_and_is_not_sent() {
    let server = FakeProvider::start().await.unwrap();
    let vars = [
        ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE".to_owned()),
        (
            "AWS_SECRET_ACCESS_KEY",
            "wJalrXUtnFEMI+EXAMPLEKEY".to_owned(),
        ),
        ("AWS_SESSION_TOKEN", "session-token-example".to_owned()),
        ("AWS_REGION", "eu-central-1".to_owned()),
    ];
    let address = server.base_url(Wire::Bedrock);
    let spec = "bedrock/us.anthropic.claude-haiku-4-5-20251001-v1:0";
    let model = resolve(&vars, address, spec).unwrap();
    ask(&model, &server).await;
    ask(&model, &server).await;
    let sent = server.requests();
    let path = "/model/us.anthropic.claude-haiku-4-5-20251001-v1%3A0/converse-stream";
    assert_eq!(sent[0].path, path);
    let headers = &sent[0].headers;
    let signature = &headers["authorization"];
    let scope =
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/eu-central-1/bedrock/aws4_request";
    assert!(signature.starts_with(scope), "{signature}");
    assert_eq!(headers["x-amz-date"], "20150830T123600Z");
    assert_eq!(headers["x-amz-security-token"], "session-token-example");
    assert!(!format!("{sent:?}").contains("EXAMPLEKEY"));
    // The same request at the same time has the same signature; another one has not.
    assert_eq!(signature, &sent[1].headers["authorization"]);
    server.push(Answer::new().text("x"));
    let asked = request(&model.model, vec![user("something else")]);
    whole(model.provider.stream(asked).await.unwrap()).await;
    assert_ne!(signature, &server.requests()[2].headers["authorization"]);
}

#[tokio::test]
async fn the_access_key_and_the_region_of_a_profile_of_aws_sign() {
    let server = FakeProvider::start().await.unwrap();
    let dir = bowline_testkit::canary::Folder::new().unwrap();
    let home = dir.path().join(".aws");
    std::fs::create_dir(&home).unwrap();
    let keys = "# keys\n[default]\naws_access_key_id = AKIDDEFAULT\n\
                aws_secret_access_key=wJalrDefault\n\n[ work ]\naws_access_key_id=AKIDWORK\n\
                  region = nested\naws_secret_access_key = wJalrWork=/+\naws_session_token = t\n";
    std::fs::write(home.join("credentials"), keys).unwrap();
    let config =
        "[default]\nregion = eu-west-1\n[profile work]\nregion=ap-south-1\n[profile sso]\n";
    std::fs::write(home.join("config"), config).unwrap();
    let home = ("HOME", dir.path().to_str().unwrap().to_owned());
    let spec = "bedrock/amazon.nova-lite-v1:0";
    for (profile, scope) in [
        ("", "AKIDDEFAULT/20150830/eu-west-1/"),
        ("work", "AKIDWORK/20150830/ap-south-1/"),
    ] {
        let vars = [home.clone(), ("AWS_PROFILE", profile.to_owned())];
        let model = resolve(&vars, server.base_url(Wire::Bedrock), spec).unwrap();
        ask(&model, &server).await;
        let sent = server.requests().pop().unwrap();
        let signature = &sent.headers["authorization"];
        assert!(signature.contains(scope), "{signature}");
        assert_eq!(
            sent.headers.contains_key("x-amz-security-token"),
            profile == "work"
        );
    }
    let vars = [home.clone(), ("AWS_PROFILE", "work".to_owned())];
    let model = format!("{:?}", resolve(&vars, String::new(), spec).unwrap());
    assert!(
        model.contains("//bedrock-runtime.ap-south-1.amazonaws.com"),
        "{model}"
    );
    assert!(!model.contains("wJalr"), "{model}");
    let vars = [home, ("AWS_PROFILE", "sso".to_owned())];
    let error = resolve(&vars, String::new(), spec).unwrap_err();
    assert_eq!(error.code(), "model_missing_key");
    assert!(error.message.contains("the profile `sso`"), "{error}");
}

#[tokio::test]
async fn a_service_account_of_google_is_exchanged_once_for_a_token() {
    let server = FakeProvider::start().await.unwrap();
    let dir = bowline_testkit::canary::Folder::new().unwrap();
    let path = dir.path().join("account.json");
    let file = include_str!("service-account.json").replace("TOKEN_URI", &server.token_url());
    std::fs::write(&path, file).unwrap();
    let path = path.to_str().unwrap().to_owned();
    let vars = [("GOOGLE_APPLICATION_CREDENTIALS", path)];
    let address = server.base_url(Wire::Gemini);
    let model = resolve(&vars, address, "vertex/gemini-2.5-flash").unwrap();
    ask(&model, &server).await;
    ask(&model, &server).await;
    assert_eq!(server.exchanges().len(), 1);
    let form = server.exchanges().remove(0);
    assert!(form.starts_with("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer"));
    let assertion = form.rsplit('=').next().unwrap();
    assert_eq!(assertion.split('.').count(), 3);
    for sent in server.requests() {
        assert_eq!(sent.headers["authorization"], "Bearer ya29.fake");
    }
}

#[test]
fn what_a_cloud_needs_is_named_when_it_is_missing() {
    let missing = |spec: &str, vars: &[(&'static str, String)]| {
        let error = resolve(vars, String::new(), spec).unwrap_err();
        match error.kind {
            ErrorKind::MissingKey { var } => var,
            kind => panic!("{kind}"),
        }
    };
    let one = |var| vec![(var, "some-value".to_owned())];
    assert_eq!(missing("bedrock/x", &[]), "AWS_ACCESS_KEY_ID");
    assert_eq!(
        missing("bedrock/x", &one("AWS_ACCESS_KEY_ID")),
        "AWS_SECRET_ACCESS_KEY"
    );
    assert_eq!(missing("vertex/gemini-x", &[]), "GOOGLE_CLOUD_PROJECT");
    assert_eq!(
        missing("vertex/gemini-x", &one("GOOGLE_CLOUD_PROJECT")),
        "GOOGLE_APPLICATION_CREDENTIALS"
    );
    assert_eq!(
        missing("azure/x", &one("AZURE_OPENAI_API_KEY")),
        "AZURE_OPENAI_RESOURCE"
    );
    assert_eq!(
        missing("cloudflare/@cf/x", &one("CLOUDFLARE_API_TOKEN")),
        "CLOUDFLARE_ACCOUNT_ID"
    );
    let file = one("GOOGLE_ACCESS_TOKEN");
    let bad = [
        file[0].clone(),
        ("GOOGLE_CLOUD_PROJECT", "p/../../other".to_owned()),
    ];
    let error = resolve(&bad, String::new(), "vertex/gemini-x").unwrap_err();
    assert!(error.message.contains("an address cannot have"), "{error}");
}
