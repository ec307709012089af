//! A model that takes no images.

use std::sync::Arc;

use async_trait::async_trait;

use crate::error::ModelError;
use crate::event::EventStream;
use crate::message::{Message, ModelRef, ResultPart, UserPart};
use crate::provider::{Provider, unreadable};
use crate::request::Request;
use crate::transcript::Transcript;

/// A provider whose model cannot see: it reads of each image that there is one. Its server would refuse
/// every request of a conversation with an image in it.
#[derive(Debug)]
pub(crate) struct Blind(pub(crate) Arc<dyn Provider>);

#[async_trait]
impl Provider for Blind {
    async fn stream(&self, mut request: Request) -> Result<EventStream, ModelError> {
        request.messages = without_images(&request.messages);
        self.0.stream(request).await
    }

    fn resumes(&self) -> bool {
        self.0.resumes()
    }

    async fn cancel(&self, response_id: &str) {
        self.0.cancel(response_id).await;
    }

    fn continues(&self, request: &Request) -> bool {
        self.0.continues(request)
    }

    fn model_ref(&self, model: &str) -> ModelRef {
        self.0.model_ref(model)
    }
}

fn without_images(messages: &Transcript) -> Transcript {
    let messages = messages.iter().map(|message| match &**message {
        Message::User(user) if user.parts.iter().any(shows) => {
            let mut user = user.clone();
            for part in &mut user.parts {
                if let UserPart::File(file) = part
                    && file.is_image()
                {
                    *part = UserPart::Text {
                        text: unreadable(file),
                    };
                }
            }
            Arc::new(Message::User(user))
        }
        Message::ToolResult(result) if result.parts.iter().any(gives) => {
            let mut result = result.clone();
            for part in &mut result.parts {
                if let ResultPart::File(file) = part
                    && file.is_image()
                {
                    *part = ResultPart::Text {
                        text: unreadable(file),
                    };
                }
            }
            Arc::new(Message::ToolResult(result))
        }
        Message::User(_) | Message::ToolResult(_) | Message::Assistant(_) => message.clone(),
    });
    messages.collect()
}

fn shows(part: &UserPart) -> bool {
    matches!(part, UserPart::File(file) if file.is_image())
}

fn gives(part: &ResultPart) -> bool {
    matches!(part, ResultPart::File(file) if file.is_image())
}
