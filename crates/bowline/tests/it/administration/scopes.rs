//! What has been spent, and what a key may see and do.

use super::*;

#[tokio::test]
async fn what_calls_have_cost_is_added_up() {
    let place = Place::open();
    place.settled("demo", "a", "hi").await;
    place.settled("other", "b", "hi").await;
    let spent = place.get("/v1/spend").await.json();
    assert_eq!(names(&spent["rows"], "name"), ["demo", "other"]);
    assert_eq!(spent["total"]["calls"], 2);
    let one = place.get("/v1/agents/demo/a/spend?by=day").await.json();
    assert_eq!(one["total"]["calls"], 1);
    assert_eq!(
        place.get("/v1/spend?since=2999-01-01").await.json()["rows"],
        json!([])
    );
    for query in ["by=week", "since=yesterday", "since=2026-13-01"] {
        assert_eq!(
            place.get(&format!("/v1/spend?{query}")).await.error(),
            "400 invalid_request"
        );
    }
    assert_eq!(
        place.get("/v1/fibers").await.json(),
        json!({"fibers": [], "next": null})
    );
    assert_eq!(
        place.get("/v1/fibers?status=odd").await.error(),
        "400 invalid_request"
    );
    assert_eq!(
        place.get("/v1/fibers/x/fib_none").await.error(),
        "404 fiber_not_found"
    );
}

#[tokio::test]
async fn a_key_sees_and_does_what_it_is_for() {
    let key = |name: &'static str, agent: &str, scope| Key {
        name: name.to_owned(),
        hash: KeyHash::of(name),
        agents: vec![agent.to_owned()],
        scopes: vec![scope],
        streams: Vec::new(),
    };
    let mut place = place(Settings {
        keys: Keys::new([
            key("reader", "demo", Scope::Read),
            key("sender", "demo", Scope::Send),
            key("admin", "*", Scope::Admin),
        ]),
        ..Settings::default()
    });
    assert_eq!(place.get("/v1/agents").await.error(), "401 unauthorized");
    assert_eq!(place.get("/openapi.json").await.error(), "401 unauthorized");
    place.key = Some("admin");
    place.settled("demo", "a", "hi").await;
    place.parked("other", "b").await;
    let waits = place.parked("demo", "c").await;
    let approval = format!("/v1/approvals/{}", waits["approvalId"].as_str().unwrap());
    assert_eq!(
        place.get("/v1/instances").await.json()["instances"]
            .as_array()
            .unwrap()
            .len(),
        3
    );

    place.key = Some("reader");
    assert_eq!(
        names(&place.get("/v1/agents").await.json()["agents"], "name"),
        ["demo"]
    );
    assert_eq!(
        names(&place.get("/v1/approvals").await.json()["approvals"], "id"),
        ["c"]
    );
    assert_eq!(
        names(&place.get("/v1/spend").await.json()["rows"], "name"),
        ["demo"]
    );
    for path in [
        "",
        "/why",
        "/submissions",
        "/approvals",
        "/schedules",
        "/files",
        "/spend",
    ] {
        let path = format!("/v1/agents/demo/a{path}");
        assert_eq!(place.get(&path).await.status, StatusCode::OK, "{path}");
    }
    let yes = json!({"decision": "approve"});
    for (method, path) in [
        ("GET", "/v1/agents/other"),
        ("GET", "/v1/agents/other/b"),
        ("GET", "/v1/instances?agent=demo"),
        ("GET", "/v1/fibers"),
        ("POST", "/v1/fibers/x/y/cancel"),
        ("POST", "/v1/fibers/x/y/resolve"),
        ("DELETE", "/v1/fibers/x/y"),
        ("GET", "/v1/agents/demo/a/export"),
        ("POST", "/v1/agents/demo/a/fork"),
        ("POST", "/v1/agents/demo/a/submissions/x/cancel"),
        ("PUT", "/v1/agents/demo/a/files/x"),
        ("DELETE", "/v1/agents/demo/a/files/x"),
        ("DELETE", "/v1/agents/demo/a/schedules/x"),
        ("DELETE", "/v1/agents/demo/a"),
        ("POST", approval.as_str()),
    ] {
        assert_eq!(
            place.send(method, path, &yes).await.error(),
            "403 forbidden",
            "{method} {path}"
        );
    }
    place.key = Some("sender");
    assert_eq!(
        place.get("/v1/agents/demo/a").await.error(),
        "403 forbidden"
    );
    assert_eq!(
        place.send("POST", &approval, &yes).await.status,
        StatusCode::OK
    );
    place.key = Some("admin");
    let deleted = place.call("DELETE", "/v1/agents/demo/a", &[], b"").await;
    assert_eq!(deleted.status, StatusCode::NO_CONTENT);
    place.service.stop(Duration::from_secs(5)).await;
}
