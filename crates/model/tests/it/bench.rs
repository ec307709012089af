//! A model at a server that says what a test wants.

use std::path::Path;
use std::time::Duration;

use bowline_model::{
    Api, Event, ModelError, ModelSettings, Models, NamedModel, Request, ResolvedModel, Secret,
};
use bowline_testkit::provider::{Answer, FakeProvider, RecordedRequest, Reply, Wire};

use crate::messages::{collect, request, user, whole};

pub(crate) const KEY: &str = "sk-test-0123456789abcdef";
/// Long enough for a busy machine, and never waited for unless a test wants it.
pub(crate) const PATIENT: Duration = Duration::from_secs(60);

pub(crate) fn model(base_url: String, wire: Wire, idle: Duration) -> ResolvedModel {
    let api = match wire {
        Wire::Anthropic => Api::Anthropic,
        Wire::Responses => Api::OpenaiResponses,
        Wire::Chat => Api::OpenaiChat,
        Wire::Gemini => Api::Gemini,
    };
    let mut settings = ModelSettings::new(|_| Some(Secret::new(KEY)), ".");
    settings.idle_deadline = idle;
    let entry = NamedModel {
        api,
        base_url: Some(base_url),
        key_env: Some("TEST_KEY".to_owned()),
        model: Some("test-model".to_owned()),
        context: None,
        max_output: Some(8192),
        price: None,
    };
    settings.named.insert("test".to_owned(), entry);
    Models::new(settings)
        .resolve("test", Path::new("."))
        .unwrap()
}

pub(crate) struct Bench {
    pub(crate) server: FakeProvider,
    pub(crate) model: ResolvedModel,
    pub(crate) wire: Wire,
}

impl Bench {
    pub(crate) async fn new(wire: Wire) -> Self {
        Self::with_idle(wire, PATIENT).await
    }

    pub(crate) async fn with_idle(wire: Wire, idle: Duration) -> Self {
        let server = FakeProvider::start().await.unwrap();
        let model = model(server.base_url(wire), wire, idle);
        Self {
            server,
            model,
            wire,
        }
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
        self.answer(reply, request("test-model", vec![user("hello")]))
            .await
    }

    pub(crate) async fn refused(&self, reply: Reply) -> ModelError {
        self.server.push(reply);
        match self
            .model
            .provider
            .stream(request("test-model", vec![user("hello")]))
            .await
        {
            Ok(_) => panic!("{:?}: no error", self.wire),
            Err(error) => error,
        }
    }

    pub(crate) async fn broken(&self, reply: impl Into<Reply>) -> (Vec<Event>, ModelError) {
        self.server.push(reply);
        let stream = self
            .model
            .provider
            .stream(request("test-model", vec![user("hello")]))
            .await
            .unwrap();
        let (events, error) = collect(stream).await;
        (events, error.unwrap())
    }

    pub(crate) fn last(&self) -> RecordedRequest {
        self.server.requests().pop().unwrap()
    }
}
