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
#[derive(Debug, Default)]
pub(crate) struct Failure<'a> {
    pub(crate) provider: &'a str,
    /// The HTTP status, or `None` for an error inside a stream.
    pub(crate) status: Option<u16>,
    pub(crate) retry_after: Option<Duration>,
    /// The error's name where it does not stand in the body.
    pub(crate) code: Option<&'a str>,
    /// The body, or the data of the stream's error event.
    pub(crate) body: &'a str,
}

/// Classifies a failure. The error's message is the provider's, cut to one line.
pub(crate) fn classify(failure: &Failure<'_>) -> ModelError {
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
    let kind = match kind {
        _ if wordless => ErrorKind::ContextOverflow,
        ErrorKind::RateLimit { retry_after: None } => ErrorKind::RateLimit {
            retry_after: delay_in_prose(&told.message),
        },
        kind => kind,
    };
    let message = match (told.message.is_empty(), failure.status) {
        (false, _) => told.message,
        (true, Some(status)) => format!("the server answered {status} without a message"),
        (true, None) => "the server reported an error without a message".to_owned(),
    };
    let error = ModelError::new(kind, failure.provider, message);
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

/// How long a response asks to wait: `retry-after-ms`, or `retry-after` in seconds or as a date.
/// A date counts from the response's own `date`, so that no clock of ours is involved.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    let number = |text: &str| {
        text.parse::<f64>()
            .ok()
            .filter(|n| n.is_finite() && *n >= 0.0)
    };
    if let Some(millis) = text("retry-after-ms").and_then(number) {
        return Duration::try_from_secs_f64(millis / 1000.0).ok();
    }
    let asked = text("retry-after")?;
    if let Some(seconds) = number(asked) {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let date = |text: &str| {
        jiff::fmt::rfc2822::parse(text)
            .ok()
            .map(|date| date.timestamp())
    };
    let wait = date(asked)?.duration_since(date(text("date")?)?);
    Some(Duration::try_from(wait).unwrap_or(Duration::ZERO))
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn classified(status: Option<u16>, body: &str) -> &'static str {
        classify(&Failure {
            provider: "p",
            status,
            body,
            ..Failure::default()
        })
        .code()
    }

    #[test]
    fn the_patterns_compile() {
        for set in [
            &NOT_OVERFLOW,
            &OVERFLOW,
            &OUT_OF_MONEY,
            &BAD_KEY,
            &LIMITED,
            &TRANSIENT,
        ] {
            assert!(!set.is_empty());
        }
        assert!(delay_in_prose("try again in 1s").is_some());
    }

    #[test]
    fn each_providers_words_for_an_overflow_are_known() {
        let overflows = [
            "prompt is too long: 213462 tokens > 200000 maximum",
            "Input is too long for requested model.",
            "Your input exceeds the context window of this model",
            "The input token count (1196265) exceeds the maximum number of tokens allowed",
            "This model's maximum prompt length is 131072 but the request contains 537812 tokens",
            "Please reduce the length of the messages or completion",
            "This endpoint's maximum context length is 16385 tokens. However, you requested 20000",
            "maximum context length of 4096 tokens",
            "prompt token count of 200000 exceeds the limit of 128000",
            "the request exceeds the available context size, try increasing it",
            "tokens to keep from the initial prompt is greater than the context length",
            "invalid params, context window exceeds limit",
            "Your request exceeded model token limit: 262144",
            "Prompt contains 40000 tokens, too large for model with 32768 maximum context length",
            "model_context_window_exceeded",
            "context_length_exceeded",
            "context length exceeded",
            "Too many tokens",
            "Token limit exceeded",
            "prompt exceeds max length",
            "request_too_large",
            "Context window exceeded",
            "maximum allowed input length is 10",
            "The input (5000 tokens) is longer than the model's context length (4096 tokens).",
            "prompt has 9000 tokens, but the configured context size is 8192",
            "prompt too long; exceeded max context length by 5 tokens",
            "Range of input length should be [1, 30720]",
        ];
        for message in overflows {
            assert!(is_overflow(message), "{message}");
            let body = serde_json::json!({"error": {"message": message}}).to_string();
            for status in [Some(400), Some(422), Some(500), None] {
                assert_eq!(
                    classified(status, &body),
                    "model_context_overflow",
                    "{status:?} {message}"
                );
            }
            // The status has the last word where it is clear.
            assert_eq!(
                classified(Some(429), &body),
                "model_rate_limit",
                "{message}"
            );
            assert_eq!(
                classified(Some(503), &body),
                "model_overloaded",
                "{message}"
            );
        }
    }

    #[test]
    fn what_only_sounds_like_an_overflow_is_none() {
        for message in [
            "ThrottlingException: Too many tokens, please wait before trying again.",
            "Throttling error: Too many tokens",
            "Service unavailable: too many tokens",
            "Rate limit reached: too many tokens per minute",
            "Too many requests",
            "400 (no body)",
            "invalid api key",
        ] {
            assert!(!is_overflow(message), "{message}");
        }
    }

    #[test]
    fn the_code_decides_before_the_status_and_the_status_before_the_prose() {
        let body = |code: &str, message: &str| {
            serde_json::json!({"error": {"code": code, "message": message}}).to_string()
        };
        let cases = [
            (
                Some(400),
                body("rate_limit_exceeded", "too many tokens"),
                "model_rate_limit",
            ),
            (
                Some(500),
                body("context_length_exceeded", "oops"),
                "model_context_overflow",
            ),
            (
                Some(400),
                body("insufficient_quota", "rate limit"),
                "model_quota",
            ),
            (
                Some(429),
                body("", "You exceeded your current quota"),
                "model_quota",
            ),
            (
                Some(429),
                body("", "monthly usage limit reached"),
                "model_quota",
            ),
            (Some(401), body("", "overloaded"), "model_auth"),
            (Some(413), body("", "rate limit"), "model_context_overflow"),
            (
                Some(404),
                body("", "The model `x` does not exist"),
                "model_unknown",
            ),
            (
                Some(404),
                body("", "no such route"),
                "model_invalid_request",
            ),
            (
                Some(400),
                body("", "API key not valid. Please pass one."),
                "model_auth",
            ),
            (Some(402), body("", ""), "model_quota"),
            (Some(408), body("", ""), "model_overloaded"),
            (Some(520), body("", ""), "model_overloaded"),
            (None, body("", "Overloaded"), "model_overloaded"),
            (None, body("", "upstream connect error"), "model_overloaded"),
            (
                None,
                body("", "request id 5002911 failed"),
                "model_invalid_request",
            ),
            (None, body("429", "slow down"), "model_rate_limit"),
            (None, body("", "error 429"), "model_rate_limit"),
        ];
        for (status, body, wanted) in cases {
            assert_eq!(classified(status, &body), wanted, "{status:?} {body}");
        }
    }

    #[test]
    fn only_cerebras_refuses_a_transcript_without_a_word() {
        let kind = |provider: &str, status: u16| {
            classify(&Failure {
                provider,
                status: Some(status),
                ..Failure::default()
            })
            .code()
        };
        assert_eq!(kind("cerebras", 400), "model_context_overflow");
        assert_eq!(kind("cerebras", 413), "model_context_overflow");
        assert_eq!(kind("cerebras", 429), "model_rate_limit");
        assert_eq!(kind("groq", 400), "model_invalid_request");
    }

    #[test]
    fn every_form_of_error_body_is_read() {
        let message = |body: &str| {
            classify(&Failure {
                provider: "p",
                status: Some(400),
                body,
                ..Failure::default()
            })
            .message
        };
        assert_eq!(message(r#"{"error":{"message":"a"}}"#), "a");
        assert_eq!(message(r#"{"error":"b"}"#), "b");
        assert_eq!(message(r#"{"message":"c"}"#), "c");
        assert_eq!(message(r#"{"detail":"d"}"#), "d");
        assert_eq!(message(r#"{"detail":[{"loc":1}]}"#), r#"[{"loc":1}]"#);
        assert_eq!(
            message(r#"[{"error":{"message":"e","status":"INVALID"}}]"#),
            "e"
        );
        assert_eq!(message("plain\n text"), "plain text");
        assert_eq!(message(""), "the server answered 400 without a message");
        let routed = r#"{"error":{"message":"f","metadata":{"raw":"g"}}}"#;
        assert_eq!(message(routed), "f g");
    }
}
