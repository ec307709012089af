//! The network, for what may use it: default deny, by allow-list.
//!
//! - [`Allow`]: patterns `host[:port][/path]`.
//! - [`Outside`]: sends a request under a policy. Callers know no more than this.
//! - [`Guarded`]: the policy. It checks each URL and each address before anything is sent, follows
//!   redirects itself, attaches a [`Credential`] where it belongs and takes it out of what comes back.
//! - [`Wire`]: one exchange with a server, which the layers above bring; nothing here has a socket.
//!
//! ```
//! # use bowline_sandbox::egress::Allow;
//! let allow = Allow::new(["api.example.com", "*.example.org:8443/v1"])?;
//! assert!(allow.check("https://api.example.com/anything").is_ok());
//! assert!(allow.check("https://a.example.org:8443/v1/items").is_ok());
//! assert!(allow.check("https://a.example.org:8443/v10").is_err());
//! assert!(allow.check("https://example.net/").is_err());
//! # Ok::<(), bowline_sandbox::egress::PatternError>(())
//! ```

mod address;
mod allow;
mod credential;
mod guard;

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;

pub use address::is_public;
pub use allow::{Allow, PatternError};
pub use credential::Credential;
pub use guard::Guarded;

/// A request over HTTP.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// The method, in capitals.
    pub method: String,
    /// An absolute URL, `https` or `http`.
    pub url: String,
    /// Names and values. Names that belong to the connection (`host`, `content-length`, …) are refused.
    pub headers: Vec<(String, String)>,
    /// The body, empty for none.
    pub body: Bytes,
}

impl Request {
    /// A GET without headers.
    pub fn get(url: impl Into<String>) -> Self {
        Self {
            method: "GET".to_owned(),
            url: url.into(),
            headers: Vec::new(),
            body: Bytes::new(),
        }
    }
}

/// A query and a header may hold what only the other side should see.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = self.url.split(['?', '#']).next().unwrap_or_default();
        f.debug_struct("Request")
            .field("method", &self.method)
            .field("url", &url)
            .field("body", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// What came back. Everything in it is hostile.
#[derive(Clone, PartialEq, Eq)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// The URL that answered, after redirects.
    pub url: String,
    /// Names in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// The whole body.
    pub body: Bytes,
}

impl Response {
    /// The first header with this name, in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| value.as_str())
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response")
            .field("status", &self.status)
            .field("body", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// Sends requests under a policy, which it enforces.
#[async_trait]
pub trait Outside: fmt::Debug + Send + Sync + 'static {
    /// Sends a request, follows redirects within the policy, and reads the whole answer. Any status is
    /// an answer. Dropping the future gives the request up.
    ///
    /// # Errors
    ///
    /// [`EgressError`]; it holds no credential.
    async fn send(&self, request: Request) -> Result<Response, EgressError>;
}

/// Sockets, or a stand-in for them.
#[async_trait]
pub trait Wire: fmt::Debug + Send + Sync + 'static {
    /// The addresses of a host name.
    ///
    /// # Errors
    ///
    /// Why there are none, in one line.
    async fn resolve(&self, host: &str, port: u16) -> Result<Vec<IpAddr>, String>;

    /// One exchange. It MUST connect to one of `to` and to nothing else, whatever the host's name says
    /// by then; MUST follow no redirect and use no proxy; and MUST stop reading above `limit` bytes of
    /// body with [`EgressError::ResponseTooLarge`].
    ///
    /// # Errors
    ///
    /// [`EgressError::Unreachable`], without the URL.
    async fn exchange(
        &self,
        request: Request,
        to: &[SocketAddr],
        limit: u64,
    ) -> Result<Response, EgressError>;
}

/// What requests may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EgressLimits {
    /// One request with all its redirects, until its answer is read. Default 30 s.
    pub time: Duration,
    /// The body of a request, in bytes. Default 8 MiB.
    pub request: u64,
    /// The body of an answer, in bytes. Default 16 MiB.
    pub response: u64,
    /// Redirects that are followed. Default 5; with 0 a redirect is the answer.
    pub redirects: u32,
    /// Requests at the same time; more wait within their time. Default 16.
    pub concurrency: usize,
}

impl Default for EgressLimits {
    fn default() -> Self {
        Self {
            time: Duration::from_secs(30),
            request: 8 << 20,
            response: 16 << 20,
            redirects: 5,
            concurrency: 16,
        }
    }
}

/// Why a request was not sent, or not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EgressError {
    /// No pattern allows it.
    #[error("{0} is not on the allow-list; add it to `egress`, or to `hosts` of the binding")]
    Denied(String),
    /// The name leads to an address that is not public.
    #[error("{0} leads to an address that is not public; write the host out in the allow-list")]
    Private(String),
    /// The request makes no sense.
    #[error("the request cannot be sent: {0}")]
    Invalid(String),
    /// The body of the request is larger than the limit.
    #[error("the body of the request has more than {0} bytes; send less at once")]
    RequestTooLarge(u64),
    /// The body of the answer is larger than the limit.
    #[error("the answer has more than {0} bytes; ask for less at once")]
    ResponseTooLarge(u64),
    /// Too many redirects.
    #[error("more than {0} redirects; ask for the address that they lead to")]
    Redirects(u32),
    /// It took too long. Whether the other side acted is not known.
    #[error("{host} did not answer within {} s; try again later", time.as_secs_f32())]
    Timeout {
        /// The host.
        host: String,
        /// The limit.
        time: Duration,
    },
    /// No answer came. Whether the other side acted is not known.
    #[error("{host} cannot be reached: {why}")]
    Unreachable {
        /// The host.
        host: String,
        /// Why, in one line.
        why: String,
    },
}

impl EgressError {
    /// The stable type that users see.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Denied(_) => "egress_denied",
            Self::Private(_) => "egress_private",
            Self::Invalid(_) => "egress_invalid",
            Self::RequestTooLarge(_) => "egress_request_too_large",
            Self::ResponseTooLarge(_) => "egress_response_too_large",
            Self::Redirects(_) => "egress_redirects",
            Self::Timeout { .. } => "egress_timeout",
            Self::Unreachable { .. } => "egress_unreachable",
        }
    }

    /// Whether nothing can have happened on the other side.
    pub fn is_unsent(&self) -> bool {
        match self {
            Self::Denied(_) | Self::Private(_) | Self::Invalid(_) | Self::RequestTooLarge(_) => {
                true
            }
            Self::ResponseTooLarge(_)
            | Self::Redirects(_)
            | Self::Timeout { .. }
            | Self::Unreachable { .. } => false,
        }
    }
}
