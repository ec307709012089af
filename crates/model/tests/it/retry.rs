use std::time::Duration;

use bowline_model::{ErrorKind, ModelError, RetryPolicy};

fn error(kind: ErrorKind) -> ModelError {
    ModelError::new(kind, "p", "m")
}

#[test]
fn transient_errors_wait_twice_as_long_each_time_and_three_times_at_most() {
    let policy = RetryPolicy::default();
    let transient = [
        ErrorKind::RateLimit { retry_after: None },
        ErrorKind::Overloaded,
        ErrorKind::Network,
        ErrorKind::Stalled,
        ErrorKind::Cut,
    ];
    for kind in transient {
        let error = error(kind);
        let waits: Vec<_> = (0..4)
            .map(|attempt| policy.decide(attempt, &error, 1.0))
            .collect();
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(waits, [seconds(2), seconds(4), seconds(8), None]);
        assert_eq!(
            policy.decide(0, &error, 0.0),
            Some(Duration::from_millis(1500))
        );
    }
}

#[test]
fn errors_that_would_come_again_are_not_retried() {
    let permanent = [
        ErrorKind::Auth,
        ErrorKind::Quota,
        ErrorKind::ContextOverflow,
        ErrorKind::InvalidRequest,
        ErrorKind::Refused,
        ErrorKind::Protocol,
        ErrorKind::Script,
        ErrorKind::Config,
        ErrorKind::MissingKey {
            var: "K".to_owned(),
        },
        ErrorKind::UnknownModel { closest: None },
    ];
    for kind in permanent {
        assert_eq!(RetryPolicy::default().decide(0, &error(kind), 0.5), None);
    }
}

#[test]
fn a_wait_that_the_provider_asks_for_is_kept_and_one_beyond_the_cap_gives_up() {
    let policy = RetryPolicy::default();
    let asks = |seconds| {
        error(ErrorKind::RateLimit {
            retry_after: Some(Duration::from_secs(seconds)),
        })
    };
    assert_eq!(
        policy.decide(0, &asks(20), 0.0),
        Some(Duration::from_secs(20))
    );
    assert!(policy.decide(0, &asks(60), 1.0).is_some());
    assert_eq!(policy.decide(0, &asks(61), 0.0), None);
}

#[test]
fn waits_never_pass_the_cap_nor_panic_on_bad_jitter() {
    let policy = RetryPolicy {
        max_retries: u32::MAX,
        ..RetryPolicy::default()
    };
    let error = error(ErrorKind::Overloaded);
    for attempt in [5, 31, 32, 1000] {
        assert_eq!(policy.decide(attempt, &error, f64::NAN), Some(policy.cap));
    }
}
