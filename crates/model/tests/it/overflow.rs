//! Overflows that no error tells of.

use bowline_model::{StopReason, Usage};

use crate::messages::{assistant, reference};

#[test]
fn an_answer_to_more_than_the_window_is_an_overflow_that_nobody_told() {
    let answer = |stop: StopReason, input: u64, cache_read: u64, output: u64| {
        let mut answer = assistant(&reference("openai-chat", "m"), stop, Vec::new());
        answer.usage = Usage {
            input,
            output,
            cache_read,
            ..Usage::default()
        };
        answer.overflowed_silently(1_000)
    };
    assert!(answer(StopReason::Stop, 600, 401, 5));
    assert!(!answer(StopReason::Stop, 600, 400, 5));
    assert!(answer(StopReason::Length, 990, 0, 0));
    assert!(!answer(StopReason::Length, 989, 0, 0));
    assert!(!answer(StopReason::Length, 999, 0, 1));
    assert!(!answer(StopReason::ToolUse, 2_000, 0, 1));
}
