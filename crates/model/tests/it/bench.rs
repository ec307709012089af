//! A model at a server that says what a test wants.

pub(crate) use bowline_testkit::canary::KEY;
use std::path::Path;
use std::time::Duration;

use bowline_model::{
    Api, Event, Message, ModelError, ModelSettings, Models, NamedModel, ProviderInfo, Request,
    ResolvedModel, Secret, resolve::providers,
};
use bowline_testkit::provider::{Answer, FakeProvider, RecordedRequest, Reply, Wire};

use crate::messages::{collect, request, user, whole};

/// Long enough for a busy machine, and never waited for unless a test wants it.
pub(crate) const PATIENT: Duration = Duration::from_secs(60);

/// A server of the format, by `[models]`.
pub(crate) fn model(base_url: String, wire: Wire, idle: Duration) -> ResolvedModel {
    let mut settings = settings(idle);
    let entry = NamedModel {
        base_url: Some(base_url),
        key_env: Some("TEST_KEY".to_owned()),
        model: Some("test-model".to_owned()),
        max_output: Some(8192),
        ..NamedModel::new(api(wire))
    };
    settings.named.insert("test".to_owned(), entry);
    Models::new(settings)
        .resolve("test", Path::new("."))
        .unwrap()
}

pub(crate) fn settings(idle: Duration) -> ModelSettings {
    let mut settings = ModelSettings::new(|_| Some(Secret::new(KEY)), ".");
    settings.idle_deadline = idle;
    settings
}

pub(crate) fn api(wire: Wire) -> Api {
    match wire {
        Wire::Anthropic => Api::Anthropic,
        Wire::Responses => Api::OpenaiResponses,
        Wire::Chat => Api::OpenaiChat,
        Wire::Gemini => Api::Gemini,
        Wire::Bedrock => Api::Bedrock,
    }
}

/// An id that the provider takes for one of its models.
fn model_of(provider: &ProviderInfo) -> &'static str {
    match (provider.name, provider.api) {
        ("bedrock", _) => "anthropic.claude-test-v1:0",
        ("openrouter" | "vercel" | "cloudflare-gateway", _) => "anthropic/claude-test",
        ("cloudflare", _) => "@cf/test/model",
        ("anthropic", _) => "claude-test",
        ("openai", _) => "gpt-test",
        (_, Api::Gemini) => "gemini-test",
        (
            _,
            Api::Anthropic | Api::OpenaiResponses | Api::OpenaiChat | Api::Bedrock | Api::Scripted,
        ) => "test-model",
    }
}

/// A model at a server, and the server.
pub(crate) struct Bench {
    pub(crate) server: FakeProvider,
    pub(crate) model: ResolvedModel,
    pub(crate) wire: Wire,
    pub(crate) name: String,
}

impl Bench {
    /// A server of the format, by `[models]`.
    pub(crate) async fn new(wire: Wire) -> Self {
        let server = FakeProvider::start().await.unwrap();
        let model = model(server.base_url(wire), wire, PATIENT);
        Self {
            server,
            model,
            wire,
            name: "test".to_owned(),
        }
    }

    /// Every provider that is known by name, and each format by `[models]`.
    pub(crate) async fn every() -> Vec<Self> {
        Self::every_with_idle(PATIENT).await
    }

    pub(crate) async fn every_with_idle(idle: Duration) -> Vec<Self> {
        let mut benches = Vec::new();
        for wire in Wire::ALL {
            let server = FakeProvider::start().await.unwrap();
            let model = model(server.base_url(wire), wire, idle);
            benches.push(Self {
                server,
                model,
                wire,
                name: "test".to_owned(),
            });
        }
        let mut settings = settings(idle);
        for provider in providers() {
            let wire = Wire::ALL
                .into_iter()
                .find(|wire| api(*wire) == provider.api);
            let server = FakeProvider::start().await.unwrap();
            let address = server.base_url(wire.unwrap());
            settings.base_urls.insert(provider.name.to_owned(), address);
            benches.push(Self {
                server,
                model: benches[0].model.clone(),
                wire: wire.unwrap(),
                name: provider.name.to_owned(),
            });
        }
        let models = Models::new(settings);
        for provider in providers() {
            let bench = benches.iter_mut().find(|bench| bench.name == provider.name);
            let spec = format!("{}/{}", provider.name, model_of(&provider));
            bench.unwrap().model = models.resolve(&spec, Path::new(".")).unwrap();
        }
        benches
    }

    /// Whether the provider is given its own thoughts back.
    pub(crate) fn replays_thoughts(&self) -> bool {
        !matches!(&*self.name, "cohere" | "cerebras" | "mistral")
    }

    pub(crate) fn request(&self, messages: Vec<Message>) -> Request {
        request(&self.model.model, messages)
    }

    pub(crate) async fn answer(
        &self,
        reply: Answer,
        request: Request,
    ) -> bowline_model::AssistantMessage {
        self.server.push(reply);
        whole(self.model.provider.stream(request).await.unwrap()).await
    }

    pub(crate) async fn ask(&self, reply: Answer) -> bowline_model::AssistantMessage {
        self.answer(reply, self.request(vec![user("hello")])).await
    }

    pub(crate) async fn refused(&self, reply: Reply) -> ModelError {
        self.server.push(reply);
        match self
            .model
            .provider
            .stream(self.request(vec![user("hello")]))
            .await
        {
            Ok(_) => panic!("{}: no error", self.name),
            Err(error) => error,
        }
    }

    pub(crate) async fn broken(&self, reply: impl Into<Reply>) -> (Vec<Event>, ModelError) {
        self.server.push(reply);
        let stream = self
            .model
            .provider
            .stream(self.request(vec![user("hello")]))
            .await
            .unwrap();
        let (events, error) = collect(stream).await;
        (events, error.unwrap())
    }

    pub(crate) fn last(&self) -> RecordedRequest {
        self.server.requests().pop().unwrap()
    }
}
