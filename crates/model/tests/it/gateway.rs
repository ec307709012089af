//! Spend limits and rate limits, without a provider.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use async_trait::async_trait;
use bowline_model::gateway::{
    Account, Entry, Gateway, Hour, Ledger, Policy, RateLimit, Scope, SpendLimit, Unpriced, Window,
};
use bowline_model::{ErrorKind, Price, Request};

use crate::messages::{request, user};

/// 2026-11-22 (a Sunday) 10:00 UTC.
const NOW: i64 = 1_795_341_600_000;
const HOUR: i64 = 3_600_000;
const PRICE: Price = Price {
    input: 1_000_000,
    output: 10_000_000,
    cache_read: None,
    cache_write: None,
};

/// What was spent before, and the time.
struct Past(Vec<Entry>, AtomicI64);

impl Past {
    fn none() -> Self {
        Self(Vec::new(), AtomicI64::new(NOW))
    }
}

#[async_trait]
impl Ledger for Past {
    fn now_millis(&self) -> i64 {
        self.1.load(SeqCst)
    }

    async fn entries(&self, since: Hour) -> Result<Vec<Entry>, String> {
        let recent = self.0.iter().filter(|entry| entry.hour >= since);
        Ok(recent.cloned().collect())
    }
}

/// Numbers that a seed decides (splitmix64).
struct Seeded(AtomicU64);

impl Seeded {
    fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    fn next(&self) -> u64 {
        let step = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.0.fetch_add(step, SeqCst).wrapping_add(step);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

fn account(agent: &str, instance: &str) -> Account {
    Account {
        agent: agent.to_owned(),
        instance: instance.to_owned(),
    }
}

fn limit(per: Scope, micro_usd: u64, window: Window) -> SpendLimit {
    SpendLimit {
        per,
        agent: None,
        micro_usd,
        window,
    }
}

fn gateway(spend: Vec<SpendLimit>) -> Gateway {
    Gateway::new(Policy {
        spend,
        ..Policy::default()
    })
}

fn asked(output: u64) -> Request {
    let mut request = request("m", vec![user("hello")]);
    request.max_output = Some(output);
    request
}

#[tokio::test(start_paused = true)]
async fn calls_at_the_same_time_pass_a_limit_by_less_than_one_call() {
    for seed in 0..50 {
        let random = Seeded::new(seed);
        let amount = 20_000 + random.next() % 200_000;
        let scopes = [Scope::Project, Scope::Agent, Scope::Instance];
        let scope = scopes[usize::try_from(seed % 3).unwrap()];
        let gateway = Arc::new(gateway(vec![limit(scope, amount, Window::Day)]));
        let ledger = Arc::new(Past::none());
        let spent = Arc::new(AtomicU64::new(0));
        let most = Arc::new(AtomicU64::new(0));
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..64 {
            let (gateway, ledger) = (gateway.clone(), ledger.clone());
            let (spent, most) = (spent.clone(), most.clone());
            let random = Seeded::new(seed * 1_000 + n);
            tasks.spawn(async move {
                // One agent and one instance, so that each scope holds all of them together.
                let who = account("a", "i");
                for call in 0.. {
                    let id = format!("{n}-{call}");
                    let mut request = asked(1 + random.next() % 2_000);
                    let held = gateway.reserve(&*ledger, &who, &id, Some(&PRICE), &mut request);
                    let bound = match held.await {
                        Ok(held) => {
                            let held = held.unwrap();
                            let bound = held.micro_usd;
                            held.keep();
                            bound
                        }
                        Err(error) => {
                            assert!(matches!(error.kind, ErrorKind::SpendLimit { .. }));
                            assert!(error.message.contains("a day"), "{error}");
                            return;
                        }
                    };
                    most.fetch_max(bound, SeqCst);
                    tokio::time::sleep(Duration::from_millis(random.next() % 500)).await;
                    let cost = random.next() % (bound + 1);
                    spent.fetch_add(cost, SeqCst);
                    gateway.settle(&who, &id, ledger.now_millis(), cost);
                }
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
        let (spent, most) = (spent.load(SeqCst), most.load(SeqCst));
        assert!(spent >= amount, "seed {seed}: all of it can be spent");
        assert!(spent < amount + most, "seed {seed}: {spent} of {amount}");
    }
}

#[tokio::test]
async fn a_limit_counts_what_is_in_its_window_and_its_scope() {
    let entry = |agent: &str, instance: &str, hours: i64, micro_usd| Entry {
        account: account(agent, instance),
        hour: Hour::of(NOW - hours * HOUR),
        micro_usd,
        open: None,
    };
    let past = || {
        let entries = vec![
            entry("a", "1", 2, 600_000),
            entry("a", "2", 30, 600_000),
            entry("b", "1", 200, 600_000),
        ];
        Past(entries, AtomicI64::new(NOW))
    };
    let day = Duration::from_secs(86_400);
    // Who is refused by a limit of one dollar, less what a call reserves.
    let cases = [
        (limit(Scope::Project, 500_000, Window::Day), "a1 a2 b1"),
        (limit(Scope::Project, 700_000, Window::Day), ""),
        (
            limit(Scope::Project, 1_200_000, Window::Rolling(day * 2)),
            "a1 a2 b1",
        ),
        (
            limit(Scope::Agent, 1_200_000, Window::Rolling(day * 2)),
            "a1 a2",
        ),
        (
            limit(Scope::Instance, 600_000, Window::Rolling(day * 2)),
            "a1 a2",
        ),
        (limit(Scope::Project, 1_800_000, Window::Month), "a1 a2 b1"),
        // The week began on Monday, six days ago.
        (limit(Scope::Project, 1_800_000, Window::Week), ""),
    ];
    for (limit, wanted) in cases {
        let gateway = gateway(vec![limit.clone()]);
        let mut refused = Vec::new();
        for (agent, instance) in [("a", "1"), ("a", "2"), ("b", "1")] {
            let (who, ledger) = (account(agent, instance), past());
            let mut request = asked(100);
            let held = gateway.reserve(&ledger, &who, "m", Some(&PRICE), &mut request);
            if held.await.is_err() {
                refused.push(format!("{agent}{instance}"));
            }
        }
        assert_eq!(refused.join(" "), wanted, "{}", limit.describe());
    }
}

#[tokio::test(start_paused = true)]
async fn a_reservation_that_a_crash_left_counts_until_it_is_settled() {
    let who = account("a", "1");
    let left = Entry {
        account: who.clone(),
        hour: Hour::of(NOW),
        micro_usd: 1_000_000,
        open: Some("msg_1".to_owned()),
    };
    let ledger = Past(vec![left], AtomicI64::new(NOW));
    let gateway = gateway(vec![limit(Scope::Project, 1_000_000, Window::Day)]);
    let other = account("b", "1");
    let mut request = asked(100);
    let waits = gateway.reserve(&ledger, &other, "msg_2", Some(&PRICE), &mut request);
    // Nobody settles it: the wait has an end.
    let error = waits.await.unwrap_err();
    assert!(error.message.contains("held by other calls"), "{error}");
    gateway.settle(&who, "msg_1", NOW, 300_000);
    let mut request = asked(100);
    let held = gateway.reserve(&ledger, &other, "msg_2", Some(&PRICE), &mut request);
    held.await.unwrap().unwrap().keep();
}

#[tokio::test]
async fn a_model_of_unknown_price_is_refused_where_a_limit_applies() {
    let spend = vec![SpendLimit {
        agent: Some("a".to_owned()),
        ..limit(Scope::Agent, 1_000_000, Window::Day)
    }];
    let ledger = Past::none();
    let strict = gateway(spend.clone());
    let (who, mut request) = (account("a", "1"), asked(1));
    let held = strict.reserve(&ledger, &who, "m", None, &mut request);
    let error = held.await.unwrap_err();
    assert_eq!(error.code(), "model_unpriced");
    assert!(error.hint().contains("unpriced"), "{}", error.hint());
    let (who, mut request) = (account("b", "1"), asked(1));
    let held = strict.reserve(&ledger, &who, "m", None, &mut request);
    assert!(held.await.unwrap().is_none());
    let lax = Gateway::new(Policy {
        spend,
        unpriced: Unpriced::Allow,
        rates: Vec::new(),
    });
    let (who, mut request) = (account("a", "1"), asked(1));
    let held = lax.reserve(&ledger, &who, "m", None, &mut request);
    assert!(held.await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_rate_limit_spreads_calls_over_minutes() {
    let gateway = Gateway::new(Policy {
        rates: vec![RateLimit {
            provider: "p".to_owned(),
            requests: Some(3),
            tokens: None,
        }],
        ..Policy::default()
    });
    let began = tokio::time::Instant::now();
    for call in 0..10 {
        gateway.pace("p", &asked(1)).await;
        gateway.pace("free", &asked(1)).await;
        let minutes = began.elapsed().as_secs() / 60;
        assert_eq!(minutes, call / 3, "call {call}");
    }
}
