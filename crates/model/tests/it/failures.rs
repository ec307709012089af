//! What a provider said about a failure, and which class it is.

use bowline_model::provider::{Failure, classify};

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
        "input length and `max_tokens` exceed context limit: 188240 + 32000 > 200000",
        "The input (5000 tokens) is longer than the model's context length (4096 tokens).",
        "prompt has 9000 tokens, but the configured context size is 8192",
        "prompt too long; exceeded max context length by 5 tokens",
        "Range of input length should be [1, 30720]",
    ];
    for message in overflows {
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
        let body = serde_json::json!({"error": {"message": message}}).to_string();
        assert_ne!(
            classified(None, &body),
            "model_context_overflow",
            "{message}"
        );
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
