//! What is the server's own fault: who asks learns a name and a reference, the log has the rest.

use bowline_runtime::{Step, kind, submission};
use bowline_store::RowChange;

use super::*;

#[tokio::test]
async fn a_server_without_room_is_not_ready_and_takes_messages_again_when_there_is_some() {
    let data = tempfile::tempdir().unwrap();
    let options = bowline_store::SqliteOptions {
        max_pages: Some(400),
        ..bowline_store::SqliteOptions::default()
    };
    let store = bowline_store::SqliteStore::open(data.path(), options).unwrap();
    let place = place_on(store, Settings::default());
    place.settled("demo", "a", "hi").await;
    assert_eq!(place.get("/readyz").await.status, 200);
    let large = "x".repeat(1_000_000);
    let message = json!({"kind": "user", "body": large});
    let mut refused = None;
    for _ in 0..4 {
        let answer = place.send("POST", "/agents/demo/a", &message).await;
        if answer.status != 202 {
            refused = Some(answer.error());
            break;
        }
    }
    assert_eq!(refused.as_deref(), Some("503 store_full"));
    let ready = place.get("/readyz").await;
    assert_eq!(ready.error(), "503 store_full");
    assert_eq!(ready.header("retry-after"), "1");
    // Alive it is, and what is smaller fits.
    assert_eq!(place.get("/healthz").await.status, 200);
    let small = json!({"kind": "user", "body": "hi"});
    let answer = place.send("POST", "/agents/demo/b", &small).await;
    assert_eq!(answer.status, 202);
    assert_eq!(place.get("/readyz").await.status, 200);
}

#[tokio::test]
async fn an_error_inside_tells_a_reference_and_nothing_of_what_is_inside() {
    let place = Place::open();
    place.settled("demo", "a", "hi").await;
    // Damaged as a disk would: a row that is no settlement.
    let (store, actor) = (place.service.store(), bowline_agent::actor("demo", "a"));
    let head = store.head(&actor).await.unwrap().unwrap();
    let mut step = Step::new();
    step.record(
        kind::ACTOR_OPENED,
        place.service.sources().now(),
        &json!({}),
    );
    let mut batch = Batch::new(actor, head.epoch + 1, head.seq);
    batch.records = step.records;
    batch.rows = vec![RowChange::Put {
        space: submission::SETTLED,
        key: b"sub_0".to_vec(),
        value: Bytes::from_static(b"inside-and-secret"),
        blobs: Vec::new(),
    }];
    store.commit(batch).await.unwrap();
    let answer = place.get("/v1/agents/demo/a/submissions").await;
    assert_eq!(answer.error(), "500 store_corrupt");
    let error = &answer.json()["error"];
    let reference = error["ref"].as_str().unwrap();
    assert!(reference.starts_with("err_"));
    assert_eq!(answer.header("flue-error-ref"), reference);
    assert!(answer.header("x-request-id").starts_with("req_"));
    let said = String::from_utf8_lossy(&answer.body).into_owned();
    assert!(
        !said.contains("decode") && !said.contains("inside-and") && !said.contains("column"),
        "{said}"
    );
    // Each request has an id of its own, also one that is refused.
    let refused = place.get("/nothing").await;
    assert!(refused.header("x-request-id").starts_with("req_"));
    assert_ne!(
        refused.header("x-request-id"),
        answer.header("x-request-id")
    );
}
