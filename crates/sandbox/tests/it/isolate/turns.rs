//! Owners take turns where there is not room for all.

use bowline_sandbox::isolate::{Bindings, IsolateError, Isolates, IsolatesOptions, Program, Start};
use bowline_store::Timestamp;
use futures::FutureExt as _;

use super::options;

#[tokio::test]
async fn one_owner_that_asks_for_much_does_not_hold_up_the_others() {
    let isolates = Isolates::open(&IsolatesOptions {
        live: 4,
        live_per_owner: 3,
        waiting: 40,
        ..options()
    })
    .unwrap();
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(isolates.admit("greedy").await.unwrap());
    }
    // It may have no more, though there is room; another may.
    assert!(isolates.try_admit("greedy").is_none());
    let other = isolates.admit("other").await.unwrap();
    let order = std::sync::Mutex::new(Vec::new());
    let wait = |owner: &'static str| {
        let (isolates, order) = (&isolates, &order);
        async move {
            let slot = isolates.admit(owner).await.unwrap();
            order.lock().unwrap().push(owner);
            drop(slot);
        }
    };
    let mut all: Vec<_> = (0..20).map(|_| wait("greedy").boxed_local()).collect();
    all.extend((0..2).flat_map(|_| [wait("a").boxed_local(), wait("b").boxed_local()]));
    let release = async {
        drop(other);
        drop(held);
    };
    futures::join!(futures::future::join_all(all), release);
    let order = order.into_inner().unwrap();
    let last = order.iter().rposition(|owner| *owner != "greedy").unwrap();
    assert_eq!(order.len(), 24);
    assert!(last < 10, "the others waited for too many: {order:?}");
}

#[tokio::test]
async fn those_who_left_the_queue_take_no_room_and_the_queue_is_bounded() {
    let isolates = Isolates::open(&IsolatesOptions {
        live: 1,
        waiting: 2,
        ..options()
    })
    .unwrap();
    let slot = isolates.admit("a").await.unwrap();
    let mut first = Box::pin(isolates.admit("b"));
    let mut second = Box::pin(isolates.admit("c"));
    assert!((&mut first).now_or_never().is_none());
    assert!((&mut second).now_or_never().is_none());
    assert_eq!(
        isolates.admit("d").await.unwrap_err(),
        IsolateError::QueueFull(2)
    );
    drop(first);
    drop(slot);
    drop(second.await.unwrap());
    assert!(isolates.try_admit("e").is_some());
}

#[tokio::test]
async fn one_that_rests_lets_another_be_busy_and_others_need_no_turn() {
    let isolates = Isolates::open(&IsolatesOptions {
        live: 4,
        busy: 1,
        ..options()
    })
    .unwrap();
    let bindings = Bindings::none().with("host", ["ask"]).unwrap();
    let program = Program::new("main.ts", "await host.ask()").unwrap();
    let start = Start::new([1; 32], Timestamp::from_millis(0));
    let slot = isolates.admit_busy("a").await.unwrap();
    let mut first = isolates.start(slot, &program, &bindings, &start).unwrap();
    let mut second = Box::pin(isolates.admit_busy("b"));
    let mut third = Box::pin(isolates.admit_busy("c"));
    assert!((&mut second).now_or_never().is_none());
    assert!((&mut third).now_or_never().is_none());
    drop(isolates.admit("d").await.unwrap());
    first.rest();
    first.rest();
    let second = second.await.unwrap();
    assert!((&mut third).now_or_never().is_none());
    // The end of one that rested is not another end of being busy.
    drop(first);
    assert!((&mut third).now_or_never().is_none());
    drop(second);
    drop(third.await.unwrap());
}
