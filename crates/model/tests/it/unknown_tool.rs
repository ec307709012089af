//! Calls of tools that were not offered.

use bowline_model::{Message, ResultPart, StopReason, ToolResult};
use bowline_testkit::provider::Answer;
use serde_json::json;

use crate::bench::Bench;
use crate::messages::user;

#[tokio::test]
async fn a_call_of_an_unknown_tool_is_passed_on_and_its_error_goes_back() {
    for bench in Bench::every().await {
        let name = bench.name.as_str();
        let answer = Answer::new().tool("call_a", "teleport", r#"{"to": "Mars"}"#);
        let message = bench.ask(answer).await;
        assert_eq!(message.stop, StopReason::ToolUse, "{name}");
        let calls: Vec<_> = message.tool_calls().collect();
        assert_eq!(calls.len(), 1, "{name}");
        assert_eq!((&*calls[0].id, &*calls[0].name), ("call_a", "teleport"));
        assert_eq!(calls[0].arguments, json!({"to": "Mars"}), "{name}");
        assert_eq!(calls[0].invalid_arguments, None, "{name}");
        // What the loop answers reaches the model beside the call, though the tool is none of the
        // request's.
        let refused = Message::ToolResult(ToolResult {
            call_id: "call_a".to_owned(),
            name: "teleport".to_owned(),
            parts: vec![ResultPart::Text {
                text: "no tool is called so".to_owned(),
            }],
            is_error: true,
        });
        let history = vec![user("hello"), Message::Assistant(message), refused];
        let next = bench
            .answer(Answer::new().text("Sorry."), bench.request(history))
            .await;
        assert_eq!(next.text(), "Sorry.", "{name}");
        let raw = String::from_utf8(bench.last().raw.to_vec()).unwrap();
        assert!(
            raw.contains("teleport") && raw.contains("Mars"),
            "{name}: {raw}"
        );
        assert!(raw.contains("no tool is called so"), "{name}: {raw}");
    }
}
