//! What a submission may use at most.

use std::time::Duration;

use bowline_runtime::{
    Budget, Failure,
    budget::{Hit, Used},
};

#[test]
fn each_budget_that_is_used_up_is_named_and_one_step_less_is_allowed() {
    let budget = Budget {
        spend_usd: Some(2_500_000),
        turns: 3,
        tool_calls: 4,
        wall: Duration::from_secs(5),
        attempts: 6,
        tokens: Some(7),
        depth: 2,
    };
    let used = Used {
        spend_usd: 2_499_999,
        turns: 2,
        tool_calls: 3,
        wall: Duration::from_millis(4_999),
        attempts: 5,
        tokens: 6,
        depth: 2,
    };
    assert_eq!(budget.check(&used), Ok(()));
    let wall = Duration::from_secs(5);
    for (used, hit, code) in [
        (
            Used {
                attempts: 6,
                ..used
            },
            Hit::Attempts(6),
            "submission_retry_exhausted",
        ),
        (Used { wall, ..used }, Hit::Wall(wall), "submission_timeout"),
        (Used { turns: 3, ..used }, Hit::Turns(3), "limit_turns"),
        (
            Used {
                tool_calls: 4,
                ..used
            },
            Hit::ToolCalls(4),
            "limit_tool_calls",
        ),
        (Used { tokens: 7, ..used }, Hit::Tokens(7), "limit_tokens"),
        (
            Used {
                spend_usd: 2_500_000,
                ..used
            },
            Hit::Spend(2_500_000),
            "limit_spend_usd",
        ),
        (Used { depth: 3, ..used }, Hit::Depth(2), "limit_depth"),
    ] {
        assert_eq!(budget.check(&used), Err(hit));
        let failure = Failure::from(hit);
        assert_eq!(failure.code, code);
        assert!(!failure.hint.is_empty());
    }
    assert!(
        Hit::Spend(2_500_000)
            .to_string()
            .ends_with("2.50 US dollars")
    );
    assert!(Hit::Spend(1).to_string().ends_with("0.000001 US dollars"));
    // None is no bound.
    let endless = Used {
        spend_usd: u64::MAX,
        tokens: u64::MAX,
        ..Used::default()
    };
    assert_eq!(Budget::default().check(&endless), Ok(()));
}
