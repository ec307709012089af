//! Checkpointed tasks over HTTP: shown, cancelled, decided about, deleted.

use async_trait::async_trait;
use bowline_runtime::fiber::{Fiber, Handler, NewFiber, Stop};

use super::*;

/// Waits for a person, unless somebody left it a stash.
#[derive(Debug)]
struct Asks;

#[async_trait]
impl Handler for Asks {
    async fn run(&self, fiber: &mut Fiber<'_>) -> Result<Value, Stop> {
        if fiber.input() == "endless" {
            std::future::pending::<()>().await;
        }
        match fiber.stash() {
            Some(stash) => Ok(json!({"went on with": stash})),
            None => Err(Stop::Interrupted {
                reason: "was it paid?".to_owned(),
                within: Duration::from_secs(3_600),
            }),
        }
    }
}

async fn start(place: &Place, input: &str) -> String {
    let new = NewFiber {
        input: json!(input),
        ..NewFiber::default()
    };
    place
        .service
        .fibers()
        .start("pay", new)
        .await
        .unwrap()
        .fiber_id
}

/// Waits until a fiber stands so.
async fn stands(place: &Place, id: &str, status: &str) -> Value {
    let actor = bowline_store::ActorId::new(bowline_runtime::fiber::KIND, "pay", id);
    let mut tail = place.service.store().tail(&actor);
    let mut seen = 0;
    loop {
        let path = format!("/v1/fibers/pay/{id}");
        let fiber = place.get(&path).await.json();
        if fiber["status"] == status {
            return fiber;
        }
        seen = tail.beyond(seen).await.unwrap();
    }
}

#[tokio::test]
async fn a_fiber_is_cancelled_decided_about_once_and_deleted() {
    let bowline = Bowline::on(Arc::new(MemoryStore::new())).fiber("pay", Arc::new(Asks));
    let place = place_of(bowline, Settings::default());
    let post = async |id: &str, what: &str, body: Value| {
        let path = format!("/v1/fibers/pay/{id}/{what}");
        place.send("POST", &path, &body).await
    };

    let endless = start(&place, "endless").await;
    stands(&place, &endless, "running").await;
    let path = format!("/v1/fibers/pay/{endless}");
    let early = place.call("DELETE", &path, &[], b"").await;
    assert_eq!(early.error(), "409 fiber_not_settled");
    let undecided = post(&endless, "resolve", json!({"type": "resume"})).await;
    assert_eq!(undecided.error(), "409 fiber_not_interrupted");
    let cancelled = post(&endless, "cancel", json!(null)).await;
    assert_eq!(cancelled.json(), json!({"cancelled": true}));
    stands(&place, &endless, "aborted").await;
    let again = post(&endless, "cancel", json!(null)).await;
    assert_eq!(again.json(), json!({"cancelled": false}));
    let gone = place.call("DELETE", &path, &[], b"").await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    assert_eq!(place.get(&path).await.error(), "404 fiber_not_found");

    for (body, status, field, value) in [
        (
            json!({"type": "completed", "result": 7}),
            "completed",
            "result",
            json!(7),
        ),
        (
            json!({"type": "failed", "code": "not_paid", "message": "It was not."}),
            "failed",
            "error",
            json!({"type": "not_paid", "message": "It was not."}),
        ),
        (
            json!({"type": "resume", "stash": "paid"}),
            "completed",
            "result",
            json!({"went on with": "paid"}),
        ),
    ] {
        let id = start(&place, "asks").await;
        let waits = stands(&place, &id, "interrupted").await;
        assert_eq!(waits["interrupted"], "was it paid?");
        for wrong in [json!({}), json!({"type": "odd"}), json!({"type": "failed"})] {
            assert_eq!(
                post(&id, "resolve", wrong).await.error(),
                "400 invalid_request"
            );
        }
        let decided = post(&id, "resolve", body.clone()).await;
        assert_eq!(decided.status, StatusCode::NO_CONTENT, "{:?}", decided.body);
        assert_eq!(stands(&place, &id, status).await[field], value);
        assert_eq!(
            post(&id, "resolve", body).await.error(),
            "409 fiber_not_interrupted"
        );
    }
    let settled = place
        .get("/v1/fibers?name=pay&status=completed")
        .await
        .json();
    assert_eq!(settled["fibers"].as_array().unwrap().len(), 2);
    place.service.stop(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_process_without_their_handlers_shows_fibers_and_leaves_them_as_they_are() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let bowline = Bowline::on(store.clone()).fiber("pay", Arc::new(Asks));
    let first = place_of(bowline, Settings::default());
    let id = start(&first, "asks").await;
    stands(&first, &id, "interrupted").await;
    // Without its end, which would close the store for the second one.
    drop(first);
    let other = place_of(Bowline::on(store), Settings::default());
    assert_eq!(stands(&other, &id, "interrupted").await["name"], "pay");
    for what in ["cancel", "resolve"] {
        let path = format!("/v1/fibers/pay/{id}/{what}");
        let refused = other.send("POST", &path, &json!({"type": "resume"})).await;
        assert_eq!(refused.error(), "409 fiber_unknown", "{what}");
    }
    stands(&other, &id, "interrupted").await;
}
