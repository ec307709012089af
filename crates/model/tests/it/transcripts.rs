//! The transcript as it is stored.

use bowline_model::{
    AssistantMessage, AssistantPart, FilePart, Message, ModelRef, ResultPart, StopReason, ToolCall,
    ToolResult, Usage, UserMessage, UserPart,
};
use bytes::Bytes;

#[test]
fn a_transcript_survives_json_unchanged() {
    let messages = vec![
        Message::User(UserMessage {
            parts: vec![
                UserPart::Text {
                    text: "look".into(),
                },
                UserPart::File(FilePart {
                    media_type: "image/png".into(),
                    name: None,
                    data: Bytes::from_static(&[0, 255, 7]),
                }),
            ],
        }),
        Message::Assistant(AssistantMessage {
            model: ModelRef {
                api: "a".into(),
                provider: "p".into(),
                model: "m".into(),
            },
            parts: vec![
                AssistantPart::Thinking {
                    text: String::new(),
                    signature: Some("s".into()),
                    redacted: true,
                },
                AssistantPart::ToolCall(ToolCall::from_text("1".into(), "t".into(), "[1]")),
            ],
            stop: StopReason::ToolUse,
            usage: Usage {
                input: 1,
                output: 2,
                cache_read: 3,
                cache_write: 4,
                cache_write_hour: 2,
            },
            response_id: None,
        }),
        Message::ToolResult(ToolResult {
            call_id: "1".into(),
            name: "t".into(),
            parts: vec![ResultPart::Text { text: "no".into() }],
            is_error: true,
        }),
    ];
    let json = serde_json::to_value(&messages).unwrap();
    assert_eq!(json[0]["parts"][1]["data"], "AP8H");
    assert_eq!(json[1]["role"], "assistant");
    assert_eq!(json[1]["parts"][1]["invalidArguments"], "[1]");
    assert_eq!(json[2]["callId"], "1");
    assert_eq!(
        serde_json::from_value::<Vec<Message>>(json).unwrap(),
        messages
    );
}
