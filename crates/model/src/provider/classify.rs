//! From a failed response to an [`ErrorKind`].
//!
//! The provider's own error code decides first, then the HTTP status, and the wording of the
//! message last: wording changes, and a message about "too many tokens" may mean a rate limit as
//! well as an overflow.

use std::sync::LazyLock;
use std::time::Duration;

use regex::{RegexSet, RegexSetBuilder};
use reqwest::header::HeaderMap;
use serde_json::Value;

use crate::error::{ErrorKind, ModelError};

/// What a provider said about a failure.
#[derive(Clone, Debug, Default)]
pub struct Failure<'a> {
    /// The provider's name, as the error shall have it.
    pub provider: &'a str,
    /// The HTTP status, or `None` for an error inside a stream.
    pub status: Option<u16>,
    /// How long the provider asks to wait, where a header says so.
    pub retry_after: Option<Duration>,
    /// The error's name where it does not stand in the body.
    pub code: Option<&'a str>,
    /// The body, or the data of the stream's error event.
    pub body: &'a str,
}

/// Classifies a failure, for a [`super::Provider`] of any kind: by the error's code first, then by the
/// status, and by the wording last. The error's message is the provider's, cut to one line.
pub fn classify(failure: &Failure<'_>) -> ModelError {
    let mut told = Told::read(failure.body);
    if let Some(code) = failure.code {
        told.codes.insert(0, code.to_owned());
    }
    // Inside a stream, and from routers, the code may be the HTTP status.
    let coded = || told.codes.iter().find_map(|code| code.parse::<u16>().ok());
    let status = failure.status.or_else(coded);
    // It refuses what is too long without a word.
    let wordless = failure.provider == "cerebras"
        && failure.body.trim().is_empty()
        && matches!(failure.status, Some(400 | 413));
    let kind = told
        .codes
        .iter()
        .find_map(|code| by_code(code, &told.message, failure.retry_after))
        .or_else(|| by_status(status?, &told.message, failure.retry_after))
        .unwrap_or_else(|| by_prose(&told.message, failure.retry_after));
    let wait = || {
        let said = failure
            .retry_after
            .or_else(|| delay_in_prose(&told.message));
        // Google says it beside the message.
        said.or_else(|| delay_in_prose(failure.body))
    };
    let (kind, wait) = match kind {
        _ if wordless => (ErrorKind::ContextOverflow, None),
        ErrorKind::RateLimit { .. } => {
            let retry_after = wait();
            (ErrorKind::RateLimit { retry_after }, None)
        }
        ErrorKind::Overloaded => (ErrorKind::Overloaded, wait()),
        kind => (kind, None),
    };
    let message = match (told.message.is_empty(), failure.status) {
        (false, _) => told.message,
        (true, Some(status)) => format!("the server answered {status} without a message"),
        (true, None) => "the server reported an error without a message".to_owned(),
    };
    let error = ModelError::new(kind, failure.provider, message).with_retry_after(wait);
    match failure.status {
        Some(status) => error.with_status(status),
        None => error,
    }
}

/// Whether a message says that the transcript is larger than the context window.
pub(crate) fn is_overflow(message: &str) -> bool {
    !NOT_OVERFLOW.is_match(message) && OVERFLOW.is_match(message)
}

struct Told {
    codes: Vec<String>,
    message: String,
}

impl Told {
    /// Reads every form of error body that is known: `{"error": {…}}`, `{"error": "…"}`,
    /// `{"message": "…"}`, `{"detail": …}`, any of them in a list, or no JSON at all.
    fn read(body: &str) -> Self {
        let Ok(value) = serde_json::from_str::<Value>(body.trim()) else {
            return Self {
                codes: Vec::new(),
                message: page_text(body),
            };
        };
        let outer = value.get(0).unwrap_or(&value);
        let inner = outer
            .get("error")
            .filter(|error| !error.is_null())
            .unwrap_or(outer);
        let mut codes = Vec::new();
        for object in [inner, outer] {
            for key in ["code", "type", "status", "__type"] {
                match object.get(key) {
                    Some(Value::String(code)) if !codes.contains(code) => codes.push(code.clone()),
                    Some(Value::Number(code)) => codes.push(code.to_string()),
                    _ => {}
                }
            }
        }
        let texts = [
            inner.as_str(),
            inner.get("message").and_then(Value::as_str),
            outer.get("message").and_then(Value::as_str),
            outer.get("detail").and_then(Value::as_str),
        ];
        let mut message = texts.into_iter().flatten().next().map_or_else(
            || {
                outer
                    .get("detail")
                    .map_or_else(|| value.to_string(), Value::to_string)
            },
            str::to_owned,
        );
        // A router passes on what the provider behind it said.
        if let Some(raw) = inner.pointer("/metadata/raw").and_then(Value::as_str) {
            message.push(' ');
            message.push_str(raw);
        }
        Self { codes, message }
    }
}

/// The text of an error page, without its markup.
fn page_text(body: &str) -> String {
    if !body.trim_start().starts_with('<') {
        return body.trim().to_owned();
    }
    let title = body
        .split_once("<title>")
        .and_then(|(_, rest)| rest.split_once("</title>"));
    let title = title.map_or("", |(title, _)| title.trim());
    if title.is_empty() {
        "the server answered with an HTML page".to_owned()
    } else {
        format!("the server answered with an HTML page: {title}")
    }
}

fn by_code(code: &str, message: &str, retry_after: Option<Duration>) -> Option<ErrorKind> {
    if let Some(kind) = by_exception(code, message, retry_after) {
        return Some(kind);
    }
    let kind = match code {
        "context_length_exceeded"
        | "model_context_window_exceeded"
        | "exceed_context_size_error"
        | "request_too_large" => ErrorKind::ContextOverflow,
        "insufficient_quota"
        | "billing_error"
        | "billing_hard_limit_reached"
        | "quota_exceeded"
        | "GoUsageLimitError"
        | "FreeUsageLimitError"
        | "1308" => ErrorKind::Quota,
        // Its text speaks of quota and billing whatever the limit was.
        "RESOURCE_EXHAUSTED" => ErrorKind::RateLimit { retry_after },
        "rate_limit_error" | "rate_limit_exceeded" | "requests" | "tokens" => {
            limit_or_quota(message, retry_after)
        }
        "overloaded_error"
        | "server_error"
        | "api_error"
        | "timeout_error"
        | "UNAVAILABLE"
        | "INTERNAL"
        | "DEADLINE_EXCEEDED"
        | "server_overloaded"
        | "slow_down"
        | "internal_server_error"
        | "service_unavailable" => {
            // Local servers call every failure of theirs a server error.
            if is_overflow(message) {
                ErrorKind::ContextOverflow
            } else {
                ErrorKind::Overloaded
            }
        }
        "authentication_error"
        | "permission_error"
        | "invalid_api_key"
        | "UNAUTHENTICATED"
        | "PERMISSION_DENIED"
        | "unauthorized" => ErrorKind::Auth,
        "model_not_found" => ErrorKind::UnknownModel { closest: None },
        "not_found_error" if message.contains("model") => ErrorKind::UnknownModel { closest: None },
        "content_policy_violation" | "content_filter" | "invalid_prompt" => ErrorKind::Refused,
        _ => return None,
    };
    Some(kind)
}

/// The names of Amazon's exceptions: `com.amazon…#ThrottlingException:http://…`, or in lower camel
/// case inside a stream.
fn by_exception(code: &str, message: &str, retry_after: Option<Duration>) -> Option<ErrorKind> {
    let name = code.rsplit('#').next().unwrap_or(code);
    let name = name.split(':').next().unwrap_or(name);
    let name = name.strip_suffix("Exception")?;
    let kind = match name.to_ascii_lowercase().as_str() {
        "throttling" | "toomanyrequests" => ErrorKind::RateLimit { retry_after },
        "serviceunavailable" | "internalserver" | "modelnotready" | "modelstreamerror"
        | "modeltimeout" | "modelerror" | "internalfailure" => ErrorKind::Overloaded,
        "accessdenied"
        | "unrecognizedclient"
        | "invalidsignature"
        | "expiredtoken"
        | "missingauthenticationtoken"
        | "incompletesignature"
        | "notauthorized" => ErrorKind::Auth,
        "servicequotaexceeded" => ErrorKind::Quota,
        "resourcenotfound" => ErrorKind::UnknownModel { closest: None },
        "validation" if is_overflow(message) => ErrorKind::ContextOverflow,
        "validation" if message.contains("model identifier") => {
            ErrorKind::UnknownModel { closest: None }
        }
        "validation" => ErrorKind::InvalidRequest,
        _ => return None,
    };
    Some(kind)
}

fn by_status(status: u16, message: &str, retry_after: Option<Duration>) -> Option<ErrorKind> {
    let kind = match status {
        403 if OUT_OF_MONEY.is_match(message) => ErrorKind::Quota,
        401 | 403 => ErrorKind::Auth,
        402 => ErrorKind::Quota,
        404 if message.to_lowercase().contains("model") => {
            ErrorKind::UnknownModel { closest: None }
        }
        408 | 409 => ErrorKind::Overloaded,
        413 => ErrorKind::ContextOverflow,
        429 => limit_or_quota(message, retry_after),
        500 if is_overflow(message) => ErrorKind::ContextOverflow,
        500..=599 => ErrorKind::Overloaded,
        300..=399 => ErrorKind::Protocol,
        400..=499 if is_overflow(message) => ErrorKind::ContextOverflow,
        400..=499 if OUT_OF_MONEY.is_match(message) => ErrorKind::Quota,
        400..=499 if BAD_KEY.is_match(message) => ErrorKind::Auth,
        400..=499 => ErrorKind::InvalidRequest,
        _ => return None,
    };
    Some(kind)
}

fn by_prose(message: &str, retry_after: Option<Duration>) -> ErrorKind {
    if is_overflow(message) {
        ErrorKind::ContextOverflow
    } else if OUT_OF_MONEY.is_match(message) {
        ErrorKind::Quota
    } else if LIMITED.is_match(message) {
        ErrorKind::RateLimit { retry_after }
    } else if TRANSIENT.is_match(message) {
        ErrorKind::Overloaded
    } else {
        ErrorKind::InvalidRequest
    }
}

fn limit_or_quota(message: &str, retry_after: Option<Duration>) -> ErrorKind {
    if OUT_OF_MONEY.is_match(message) {
        ErrorKind::Quota
    } else {
        ErrorKind::RateLimit { retry_after }
    }
}

fn set(patterns: &[&str]) -> RegexSet {
    // The patterns are constants and a test compiles them all.
    RegexSetBuilder::new(patterns)
        .case_insensitive(true)
        .build()
        .unwrap_or_else(|_| RegexSet::empty())
}

static NOT_OVERFLOW: LazyLock<RegexSet> = LazyLock::new(|| {
    set(&[
        "^(throttling error|service unavailable|ThrottlingException):",
        "rate.?limit",
        "too many requests",
    ])
});

static OVERFLOW: LazyLock<RegexSet> = LazyLock::new(|| {
    set(&[
        "prompt is too long",
        "prompt too long",
        "prompt exceeds max length",
        "request_too_large",
        "input is too long for requested model",
        "exceeds the context window",
        "input token count.*exceeds the maximum",
        r"maximum prompt length is \d+",
        "reduce the length of the messages",
        r"maximum context length (is|of) \d+ tokens",
        r"exceeds the limit of \d+",
        "exceeds the available context size",
        "greater than the context length",
        "context window exceed",
        "exceeded model token limit",
        r"too large for model with \d+ maximum context length",
        "model_context_window_exceeded",
        "context[_ ]length[_ ]exceeded",
        "too many tokens",
        "token limit exceeded",
        "maximum allowed input length",
        "exceed context limit",
        r"is longer than the model's context length",
        r"prompt has \d+ tokens, but the configured context size",
        "range of input length should be",
    ])
});

static OUT_OF_MONEY: LazyLock<RegexSet> = LazyLock::new(|| {
    set(&[
        "insufficient.?(quota|balance|credit|funds)",
        "credit balance is too low",
        "available balance",
        "out of budget",
        "quota exceeded",
        "exceeded your current quota",
        "billing",
        "monthly usage limit",
        "subscription_sharing_.*limit",
    ])
});

static BAD_KEY: LazyLock<RegexSet> = LazyLock::new(|| {
    set(&[
        "api.?key (is )?(not valid|invalid|expired)",
        "invalid api.?key",
    ])
});

static LIMITED: LazyLock<RegexSet> = LazyLock::new(|| {
    set(&[
        "rate.?limit",
        "too many requests",
        r"\b429\b",
        "resource.?exhausted",
    ])
});

static TRANSIENT: LazyLock<RegexSet> = LazyLock::new(|| {
    set(&[
        "overloaded",
        r"\b(500|502|503|504|520|524|529)\b",
        "service.?unavailable",
        "server.?error",
        "internal.?error",
        "network.?error",
        "connection.?(error|reset|refused|lost|closed)",
        "upstream.?connect",
        r"timed? ?out",
        "provider returned error",
        "terminated",
    ])
});

/// How long a response asks to wait: `retry-after-ms`, `retry-after` in seconds or as a date, or what
/// some send in its place, `x-ratelimit-reset-after` in seconds and `x-ratelimit-reset` as a time. Dates
/// and times count from the response's own `date`, so that no clock of ours is involved. What is longer
/// than can be waited for is the longest there is.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    let number = |text: &str| text.parse::<f64>().ok().filter(|n| *n >= 0.0);
    let seconds = |n: f64| Duration::try_from_secs_f64(n).unwrap_or(Duration::MAX);
    if let Some(millis) = text("retry-after-ms").and_then(number) {
        return Some(seconds(millis / 1000.0));
    }
    let date = |text: &str| {
        jiff::fmt::rfc2822::parse(text)
            .ok()
            .map(|date| date.timestamp())
    };
    let sent = || date(text("date")?);
    if let Some(asked) = text("retry-after") {
        if let Some(n) = number(asked) {
            return Some(seconds(n));
        }
        if let (Some(until), Some(sent)) = (date(asked), sent()) {
            let wait = until.duration_since(sent);
            return Some(Duration::try_from(wait).unwrap_or(Duration::ZERO));
        }
    }
    if let Some(n) = text("x-ratelimit-reset-after").and_then(number) {
        return Some(seconds(n));
    }
    let reset = text("x-ratelimit-reset").and_then(number)?;
    // In milliseconds from some: no date in seconds is so far away.
    let reset = if reset > 1e11 { reset / 1000.0 } else { reset };
    let wait = reset - sent()?.as_second() as f64;
    (wait >= 0.0).then(|| seconds(wait))
}

/// Whether a response says that trying again is no use.
pub(crate) fn is_final(headers: &HeaderMap) -> bool {
    headers
        .get("x-should-retry")
        .is_some_and(|value| value == "false")
}

/// "try again in 1.5s", "retry after 20 seconds", `"retryDelay": "34s"`, "reset after 1h2m3s".
fn delay_in_prose(message: &str) -> Option<Duration> {
    static LEAD: LazyLock<Option<regex::Regex>> = LazyLock::new(|| {
        let words = r#"(?i)(try again in|retry in|retry after|reset after|retryDelay)[":\s]*\d"#;
        regex::Regex::new(words).ok()
    });
    let found = LEAD.as_ref()?.find(message)?;
    duration_at(&message[found.start()..])
}

/// The duration after the words at the start of `text`.
fn duration_at(text: &str) -> Option<Duration> {
    let from = text.find(|ch: char| ch.is_ascii_digit())?;
    let mut rest = &text[from..];
    let mut seconds = 0.0;
    let mut found = false;
    loop {
        let digits = rest
            .find(|ch: char| !ch.is_ascii_digit() && ch != '.')
            .unwrap_or(rest.len());
        let Ok(number) = rest[..digits].parse::<f64>() else {
            break;
        };
        let tail = rest[digits..].trim_start();
        let (unit, length) = if tail.starts_with("ms") {
            (0.001, 2)
        } else if tail.starts_with('h') {
            (3600.0, 1)
        } else if tail.starts_with('m') {
            (60.0, 1)
        } else if tail.starts_with('s') {
            (1.0, 1)
        } else {
            break;
        };
        seconds += number * unit;
        found = true;
        rest = &tail[length..];
    }
    if found {
        Duration::try_from_secs_f64(seconds).ok()
    } else {
        None
    }
}
