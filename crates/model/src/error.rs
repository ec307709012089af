//! What can go wrong in a call, classified so that a caller can decide what to do and a person
//! knows what to do next.

use std::fmt;
use std::time::Duration;

/// The longest message kept, in characters.
const MAX_MESSAGE: usize = 500;

/// A failed call. Its text is one line and carries no key.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{provider}: {message}")]
pub struct ModelError {
    /// What kind of failure it is.
    pub kind: ErrorKind,
    /// The provider's name, or the name under `[models]`; `models` when none was found.
    pub provider: String,
    /// What happened: one line of at most 500 characters.
    pub message: String,
    /// The HTTP status, when a response came.
    pub status: Option<u16>,
    /// How long the provider asks to wait, where the kind does not say it.
    wait: Option<Duration>,
    /// The provider says that trying again is no use.
    last: bool,
}

/// The classes of failure. Decided by HTTP status and the provider's error code first, and by the
/// wording of the message last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// Too many requests or tokens in a time. Transient.
    RateLimit {
        /// How long the provider asks to wait.
        retry_after: Option<Duration>,
    },
    /// The provider has no capacity or failed inside (5xx). Transient.
    Overloaded,
    /// The key is wrong, expired, or not allowed to do this.
    Auth,
    /// The account has no credit left or has reached its spending limit.
    Quota,
    /// The transcript is larger than the model's context window.
    ContextOverflow,
    /// The provider does not accept the request as it is.
    InvalidRequest,
    /// The connection could not be made, or broke before a response. Transient.
    Network,
    /// The certificate of the server is not to be trusted. Nothing was sent.
    Certificate,
    /// The provider's policy refused the request.
    Refused,
    /// Nothing arrived on an open stream for the idle deadline. Transient.
    Stalled,
    /// The stream ended before the answer did. Transient.
    Cut,
    /// The response was not in the provider's format, or larger than the limits.
    Protocol,
    /// The script of a scripted model has an error, has ended, or expected another request.
    Script,
    /// `[models]` in `bowline.toml` has an entry that cannot be used.
    Config,
    /// The environment variable with the provider's key is not set.
    MissingKey {
        /// The variable.
        var: String,
    },
    /// A spend limit of the project is reached; the provider was not asked.
    SpendLimit {
        /// The limit, in words.
        limit: String,
    },
    /// A spend limit applies, and what the model costs is not known.
    Unpriced,
    /// What was spent before cannot be read, and a spend limit applies.
    Ledger,
    /// There is no such provider, name or model.
    UnknownModel {
        /// The nearest name that does exist.
        closest: Option<String>,
    },
}

impl ModelError {
    /// An error of a kind. The message is cut to one line of 500 characters.
    pub fn new(kind: ErrorKind, provider: impl Into<String>, message: impl AsRef<str>) -> Self {
        Self {
            kind,
            provider: provider.into(),
            message: one_line(message.as_ref(), MAX_MESSAGE),
            status: None,
            wait: None,
            last: false,
        }
    }

    /// The same error with the HTTP status of the response.
    #[must_use]
    pub fn with_status(mut self, status: u16) -> Self {
        self.status = Some(status);
        self
    }

    /// The same error of a provider that asks to wait before the next try. What an error of the kind
    /// `RateLimit` says itself goes before it.
    #[must_use]
    pub fn with_retry_after(mut self, wait: Option<Duration>) -> Self {
        self.wait = wait;
        self
    }

    /// The same error of a provider that says that trying again is no use: it is not transient.
    #[must_use]
    pub fn not_again(mut self) -> Self {
        self.last = true;
        self
    }

    /// The stable name of this kind of error. Each has a page `docs/errors/<code>.md`.
    pub fn code(&self) -> &'static str {
        self.kind.code()
    }

    /// What to do next, in one line.
    pub fn hint(&self) -> String {
        match &self.kind {
            ErrorKind::RateLimit { .. } => {
                "wait, or ask the provider for a higher rate limit".to_owned()
            }
            ErrorKind::Overloaded => "try again in a while, or use another model".to_owned(),
            ErrorKind::Auth => "check the provider's key and what it is allowed to do".to_owned(),
            ErrorKind::Quota => "add credit or raise the limit at the provider".to_owned(),
            ErrorKind::ContextOverflow => {
                "compact the conversation, or use a model with a larger window".to_owned()
            }
            ErrorKind::InvalidRequest => {
                "check the model's settings against the provider's message".to_owned()
            }
            ErrorKind::Network => "check the network and the model's base_url".to_owned(),
            ErrorKind::Certificate => {
                "check the model's base_url, or trust the certificate by SSL_CERT_FILE".to_owned()
            }
            ErrorKind::Refused => "rephrase the request, or use another model".to_owned(),
            ErrorKind::Stalled => {
                "try again; raise the idle deadline if the model is slow to start".to_owned()
            }
            ErrorKind::Cut => "try again; check proxies between here and the provider".to_owned(),
            ErrorKind::Protocol => "check that base_url is a server of this api".to_owned(),
            ErrorKind::Script => "correct the script, or what the agent sends".to_owned(),
            ErrorKind::Config => "correct the entry in bowline.toml".to_owned(),
            ErrorKind::MissingKey { var } => {
                format!("set {var}, or use another model with --model")
            }
            ErrorKind::SpendLimit { .. } => {
                "wait, or raise the limit under [gateway] in bowline.toml".to_owned()
            }
            ErrorKind::Unpriced => {
                "give its price under [models], or set unpriced = \"allow\" under [gateway]"
                    .to_owned()
            }
            ErrorKind::Ledger => "run `bowline doctor`".to_owned(),
            ErrorKind::UnknownModel {
                closest: Some(name),
            } => format!("did you mean `{name}`?"),
            ErrorKind::UnknownModel { closest: None } => {
                "use provider/model, or add the name under [models] in bowline.toml".to_owned()
            }
        }
    }

    /// How long the provider asked to wait before the next try.
    pub fn retry_after(&self) -> Option<Duration> {
        match self.kind {
            ErrorKind::RateLimit { retry_after } => retry_after.or(self.wait),
            _ => self.wait,
        }
    }

    /// Whether another model may well answer what this one did not. Not what lies with the transcript,
    /// or with a limit that holds for every model.
    pub fn is_worth_another_model(&self) -> bool {
        match self.kind {
            ErrorKind::RateLimit { .. }
            | ErrorKind::Overloaded
            | ErrorKind::Network
            | ErrorKind::Stalled
            | ErrorKind::Cut
            | ErrorKind::Certificate
            | ErrorKind::Auth
            | ErrorKind::Quota
            | ErrorKind::InvalidRequest
            | ErrorKind::Refused
            | ErrorKind::Protocol
            | ErrorKind::MissingKey { .. }
            | ErrorKind::UnknownModel { .. } => true,
            ErrorKind::ContextOverflow
            | ErrorKind::Script
            | ErrorKind::Config
            | ErrorKind::SpendLimit { .. }
            | ErrorKind::Unpriced
            | ErrorKind::Ledger => false,
        }
    }

    /// Whether the same call may well succeed later.
    pub fn is_transient(&self) -> bool {
        match self.kind {
            ErrorKind::RateLimit { .. }
            | ErrorKind::Overloaded
            | ErrorKind::Network
            | ErrorKind::Stalled
            | ErrorKind::Cut => !self.last,
            ErrorKind::Certificate
            | ErrorKind::Auth
            | ErrorKind::Quota
            | ErrorKind::ContextOverflow
            | ErrorKind::InvalidRequest
            | ErrorKind::Refused
            | ErrorKind::Protocol
            | ErrorKind::Script
            | ErrorKind::Config
            | ErrorKind::MissingKey { .. }
            | ErrorKind::SpendLimit { .. }
            | ErrorKind::Unpriced
            | ErrorKind::Ledger
            | ErrorKind::UnknownModel { .. } => false,
        }
    }
}

impl ErrorKind {
    /// The stable name of this kind, as [`ModelError::code`].
    pub fn code(&self) -> &'static str {
        match self {
            ErrorKind::RateLimit { .. } => "model_rate_limit",
            ErrorKind::Overloaded => "model_overloaded",
            ErrorKind::Auth => "model_auth",
            ErrorKind::Quota => "model_quota",
            ErrorKind::ContextOverflow => "model_context_overflow",
            ErrorKind::InvalidRequest => "model_invalid_request",
            ErrorKind::Network => "model_network",
            ErrorKind::Certificate => "model_certificate",
            ErrorKind::Refused => "model_refused",
            ErrorKind::Stalled => "model_stalled",
            ErrorKind::Cut => "model_cut",
            ErrorKind::Protocol => "model_protocol",
            ErrorKind::Script => "model_script",
            ErrorKind::Config => "model_config",
            ErrorKind::MissingKey { .. } => "model_missing_key",
            ErrorKind::SpendLimit { .. } => "model_spend_limit",
            ErrorKind::Unpriced => "model_unpriced",
            ErrorKind::Ledger => "model_ledger",
            ErrorKind::UnknownModel { .. } => "model_unknown",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// White space and control characters become single spaces; cut at `max` characters.
pub(crate) fn one_line(text: &str, max: usize) -> String {
    let mut line = String::with_capacity(text.len().min(max));
    let mut gap = false;
    for (count, ch) in text.chars().enumerate() {
        if count >= max {
            line.push('…');
            break;
        }
        if ch.is_whitespace() || ch.is_control() {
            gap = !line.is_empty();
        } else {
            if gap {
                line.push(' ');
                gap = false;
            }
            line.push(ch);
        }
    }
    line
}
