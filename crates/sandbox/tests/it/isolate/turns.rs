//! Owners take turns where there is not room for all.

use bowline_sandbox::isolate::{IsolateError, Isolates, IsolatesOptions};
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
