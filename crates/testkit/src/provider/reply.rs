//! What the server answers.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::Stream;
use tokio::sync::Notify;

use super::{Abandoned, Wire, wire};

/// One reply of the server.
#[derive(Clone, Debug)]
pub enum Reply {
    /// An answer of the model, in the format of the request.
    Answer(Answer),
    /// A failure, in the format of the request.
    Error(ErrorClass),
    /// These bytes, whatever the format.
    Raw {
        /// The HTTP status.
        status: u16,
        /// The headers.
        headers: Vec<(String, String)>,
        /// The body.
        body: Bytes,
    },
}

impl From<Answer> for Reply {
    fn from(answer: Answer) -> Self {
        Reply::Answer(answer)
    }
}

impl Reply {
    /// A failure in the format of the request.
    pub fn error(class: ErrorClass) -> Self {
        Reply::Error(class)
    }

    /// A body with a status and a content type.
    pub fn raw(status: u16, content_type: &str, body: impl Into<Bytes>) -> Self {
        let headers = vec![("content-type".to_owned(), content_type.to_owned())];
        Reply::Raw {
            status,
            headers,
            body: body.into(),
        }
    }

    /// A status 200 stream of these bytes.
    pub fn sse(body: impl Into<Bytes>) -> Self {
        Self::raw(200, "text/event-stream", body)
    }

    /// The same with one more header; only raw replies have headers of their own.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        if let Reply::Raw { headers, .. } = &mut self {
            headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }

    pub(super) fn render(&self, wire: Wire) -> Rendered {
        match self {
            Reply::Answer(answer) => answer.render(wire),
            Reply::Error(class) => {
                let (status, body) = wire::error(wire, *class);
                let mut headers = vec![("content-type".to_owned(), "application/json".to_owned())];
                if wire == Wire::Bedrock {
                    let name = body["__type"].as_str().unwrap_or_default().to_owned();
                    headers.push(("x-amzn-errortype".to_owned(), name));
                }
                Rendered {
                    status,
                    headers,
                    steps: VecDeque::from([Step::Send(body.to_string().into())]),
                }
            }
            Reply::Raw {
                status,
                headers,
                body,
            } => Rendered {
                status: *status,
                headers: headers.clone(),
                steps: VecDeque::from([Step::Send(body.clone())]),
            },
        }
    }
}

/// The classes of failure that every format has a form for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorClass {
    /// Too many requests.
    RateLimit,
    /// No capacity.
    Overloaded,
    /// A wrong key.
    Auth,
    /// No credit left.
    Quota,
    /// A transcript larger than the window.
    ContextOverflow,
    /// A request that is not accepted.
    InvalidRequest,
    /// A model that does not exist.
    UnknownModel,
}

/// The tokens that an answer reports. Nothing is in two fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FakeUsage {
    /// Uncached input.
    pub input: u64,
    /// Output.
    pub output: u64,
    /// Input from the cache.
    pub cache_read: u64,
    /// Input written to the cache; Chat Completions and Responses do not report it.
    pub cache_write: u64,
}

/// Why the answer says that it ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stop {
    /// As the parts say: for its tool calls, or because it is done.
    #[default]
    Natural,
    /// The output limit.
    Length,
    /// A refusal.
    Refused,
}

/// A gate that a stalled answer waits at. Clones are the same gate.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<Notify>);

impl Gate {
    /// A closed gate.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets one answer pass, the next one if none waits yet.
    pub fn open(&self) {
        self.0.notify_one();
    }
}

/// A part of an answer.
#[derive(Clone, Debug)]
pub(super) enum Part {
    Text(String),
    Thinking {
        text: String,
        signature: String,
    },
    Tool {
        id: String,
        name: String,
        arguments: String,
    },
}

#[derive(Clone, Debug)]
enum Fate {
    Whole,
    /// The connection breaks after so many bytes.
    Cut(usize),
    /// The stream ends, properly, after so many events.
    End(usize),
    /// The stream waits after so many events.
    Stall(usize, Gate),
    /// The stream reports a failure after so many events.
    Fail(usize, ErrorClass),
}

/// An answer of the model, built up part by part.
#[derive(Clone, Debug)]
pub struct Answer {
    pub(super) parts: Vec<Part>,
    pub(super) usage: FakeUsage,
    pub(super) stop: Stop,
    pub(super) id: String,
    piece: usize,
    fate: Fate,
}

impl Default for Answer {
    fn default() -> Self {
        Self::new()
    }
}

impl Answer {
    /// An empty answer with the id `resp_fake`.
    pub fn new() -> Self {
        Self {
            parts: Vec::new(),
            usage: FakeUsage {
                input: 10,
                output: 5,
                ..FakeUsage::default()
            },
            stop: Stop::Natural,
            id: "resp_fake".to_owned(),
            piece: usize::MAX,
            fate: Fate::Whole,
        }
    }

    /// Text, streamed in pieces of four characters.
    #[must_use]
    pub fn text(mut self, text: &str) -> Self {
        self.parts.push(Part::Text(text.to_owned()));
        self
    }

    /// A thought. Anthropic sends the signature, Responses keeps it in the encrypted item, Chat
    /// Completions has none.
    #[must_use]
    pub fn thinking(mut self, text: &str, signature: &str) -> Self {
        let (text, signature) = (text.to_owned(), signature.to_owned());
        self.parts.push(Part::Thinking { text, signature });
        self
    }

    /// A tool call with its arguments as text, valid JSON or not.
    #[must_use]
    pub fn tool(mut self, id: &str, name: &str, arguments: &str) -> Self {
        let (id, name) = (id.to_owned(), name.to_owned());
        self.parts.push(Part::Tool {
            id,
            name,
            arguments: arguments.to_owned(),
        });
        self
    }

    /// The tokens. Without it 10 input and 5 output.
    #[must_use]
    pub fn usage(mut self, usage: FakeUsage) -> Self {
        self.usage = usage;
        self
    }

    /// Why it ends.
    #[must_use]
    pub fn stop(mut self, stop: Stop) -> Self {
        self.stop = stop;
        self
    }

    /// Sends the body in pieces of so many bytes, whatever the events.
    #[must_use]
    pub fn in_pieces_of(mut self, bytes: usize) -> Self {
        self.piece = bytes.max(1);
        self
    }

    /// Breaks the connection after so many bytes of the body.
    #[must_use]
    pub fn cut_after_bytes(mut self, bytes: usize) -> Self {
        self.fate = Fate::Cut(bytes);
        self
    }

    /// Ends the stream, as if it were whole, after so many events.
    #[must_use]
    pub fn end_after_events(mut self, events: usize) -> Self {
        self.fate = Fate::End(events);
        self
    }

    /// Waits at `gate` after so many events.
    #[must_use]
    pub fn stall_after_events(mut self, events: usize, gate: &Gate) -> Self {
        self.fate = Fate::Stall(events, gate.clone());
        self
    }

    /// Reports a failure inside the stream after so many events.
    #[must_use]
    pub fn fail_after_events(mut self, events: usize, class: ErrorClass) -> Self {
        self.fate = Fate::Fail(events, class);
        self
    }

    fn render(&self, wire: Wire) -> Rendered {
        let mut events = wire::events(wire, self);
        let mut steps = VecDeque::new();
        let mut rest = Vec::new();
        match &self.fate {
            Fate::Whole | Fate::Cut(_) => {}
            Fate::End(count) => events.truncate(*count),
            Fate::Stall(count, _) => rest = events.split_off((*count).min(events.len())),
            Fate::Fail(count, class) => {
                events.truncate(*count);
                events.push(wire::error_event(wire, *class));
            }
        }
        let mut bytes = events.concat();
        if let Fate::Cut(length) = self.fate {
            bytes.truncate(length);
        }
        for bytes in [bytes, rest.concat()] {
            if let (Fate::Stall(_, gate), false) = (&self.fate, steps.is_empty()) {
                steps.push_back(Step::Wait(gate.clone()));
            }
            let bytes = Bytes::from(bytes);
            let size = self.piece.min(bytes.len()).max(1);
            let mut from = 0;
            while from < bytes.len() {
                let to = (from + size).min(bytes.len());
                steps.push_back(Step::Send(bytes.slice(from..to)));
                from = to;
            }
        }
        if let Fate::Cut(_) = self.fate {
            steps.push_back(Step::Break);
        }
        let media = match wire {
            Wire::Bedrock => "application/vnd.amazon.eventstream",
            Wire::Anthropic | Wire::Responses | Wire::Chat | Wire::Gemini => "text/event-stream",
        };
        Rendered {
            status: 200,
            headers: vec![
                ("content-type".to_owned(), media.to_owned()),
                ("x-amzn-requestid".to_owned(), self.id.clone()),
            ],
            steps,
        }
    }
}

/// A reply in bytes.
#[derive(Clone, Debug)]
pub(super) struct Rendered {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    steps: VecDeque<Step>,
}

#[derive(Clone, Debug)]
enum Step {
    Send(Bytes),
    Wait(Gate),
    Break,
}

impl Rendered {
    pub(super) fn stream(
        &self,
        watched: Abandoned,
    ) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        let state = (self.steps.clone(), watched);
        futures::stream::unfold(
            state,
            |(mut steps, mut watched): (VecDeque<Step>, Abandoned)| async move {
                loop {
                    match steps.pop_front() {
                        None => {
                            watched.finish();
                            return None;
                        }
                        Some(Step::Send(bytes)) => {
                            // Each piece reaches the socket on its own, as far as the system lets it.
                            tokio::task::yield_now().await;
                            return Some((Ok(bytes), (steps, watched)));
                        }
                        Some(Step::Wait(gate)) => gate.0.notified().await,
                        Some(Step::Break) => {
                            watched.whole = true;
                            let error = io::Error::from(io::ErrorKind::ConnectionReset);
                            return Some((Err(error), (steps, watched)));
                        }
                    }
                }
            },
        )
    }
}
