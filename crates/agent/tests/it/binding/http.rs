//! Services over HTTP: plain ones, OpenAPI documents, `fetch`.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bowline_agent::{
    Effect, OnCrash,
    binding::{
        Binding as _, Web,
        http::{Service, ServiceEffect},
        openapi::Document,
    },
};
use bowline_sandbox::{
    egress::{EgressError, Outside, Request, Response},
    isolate::{Value, ViewKind},
};
use bytes::Bytes;
use serde_json::{Value as Json, json};

use super::{call, call_with, context};

/// Answers everything with the same, and keeps what was asked.
#[derive(Debug, Default)]
struct Fake {
    asked: Mutex<Vec<Request>>,
    answer: Mutex<Option<(u16, &'static str, &'static str)>>,
}

impl Fake {
    fn answer(&self, status: u16, media: &'static str, body: &'static str) {
        *self.answer.lock().unwrap() = Some((status, media, body));
    }

    fn last(&self) -> Request {
        self.asked.lock().unwrap().last().unwrap().clone()
    }
}

#[async_trait]
impl Outside for Fake {
    async fn send(&self, request: Request) -> Result<Response, EgressError> {
        let url = request.url.clone();
        self.asked.lock().unwrap().push(request);
        let Some((status, media, body)) = *self.answer.lock().unwrap() else {
            return Err(EgressError::Denied("https://x.test".into()));
        };
        Ok(Response {
            status,
            url,
            headers: vec![("content-type".into(), media.into())],
            body: Bytes::from_static(body.as_bytes()),
        })
    }
}

fn header<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    let found = request.headers.iter().find(|(other, _)| other == name);
    found.map(|(_, value)| value.as_str())
}

const DOCUMENT: &str = r##"
openapi: 3.0.3
info: {title: Tracker, version: "1"}
servers: [{url: "https://api.tracker.test/v1"}]
paths:
  /projects/{project}/issues/{id}:
    parameters:
      - {$ref: "#/components/parameters/Project"}
    get:
      operationId: issues.get-one
      summary: One issue.
      parameters:
        - {name: id, in: path, required: true, schema: {type: integer}}
        - {name: fields, in: query, explode: false, schema: {type: array, items: {type: string}}}
        - {name: tag, in: query, schema: {type: array, items: {type: string}}}
        - {name: X-Trace, in: header, schema: {type: string}}
        - {name: Authorization, in: header, schema: {type: string}}
        - {name: body, in: query, schema: {type: string}}
      responses: {"200": {content: {application/json: {schema: {$ref: "#/components/schemas/Issue"}}}}}
  /issues:
    post:
      operationId: create
      requestBody:
        required: true
        content: {application/json: {schema: {$ref: "#/components/schemas/Issue"}}}
      responses: {"201": {content: {application/json: {examples: {first: {$ref: "#/components/examples/Made"}}}}}}
    put:
      operationId: create
      responses: {}
    delete:
      responses: {}
  /upload:
    post: {operationId: upload, requestBody: {content: {multipart/form-data: {schema: {}}}}, responses: {}}
  /broken/{gone}:
    get: {operationId: broken, responses: {}}
components:
  parameters:
    Project: {name: project, in: path, required: true, schema: {type: string}}
  examples:
    Made: {value: {title: made}}
  schemas:
    Issue:
      type: object
      properties:
        title: {type: string}
        parent: {$ref: "#/components/schemas/Issue"}
"##;

fn service(fake: &Arc<Fake>) -> Service {
    let document = Document::parse(DOCUMENT).unwrap();
    let effect = ServiceEffect::default();
    let base = document.server.clone();
    Service::new("tracker", document.title, base, fake.clone(), effect)
        .with_operations(document.operations, effect)
}

#[tokio::test]
async fn a_document_becomes_one_method_for_each_operation() {
    let document = Document::parse(DOCUMENT).unwrap();
    assert_eq!(
        document.warnings,
        [
            "GET /broken/{gone} is left out: it has no parameter for {gone}",
            "PUT /issues is left out: its name `create` is that of POST /issues",
            "POST /upload is left out: its body has no media type that can be sent",
        ]
    );
}

#[tokio::test]
async fn parameters_go_where_the_document_says_and_nowhere_else() {
    let fake = Arc::new(Fake::default());
    let service = service(&fake);
    let names: Vec<&str> = service.methods().iter().map(|m| m.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "create",
            "delete_issues",
            "issues_get_one",
            "get",
            "request"
        ]
    );
    let get = &service.methods()[2];
    assert_eq!(get.effect, Effect::Outside(OnCrash::Retry));
    assert_eq!(
        service.methods()[0].effect,
        Effect::Outside(OnCrash::Unknown)
    );
    let keys: Vec<&String> = get.parameters[0].schema["properties"]
        .as_object()
        .unwrap()
        .keys()
        .collect();
    assert_eq!(
        keys,
        ["X-Trace", "fields", "id", "project", "query_body", "tag"]
    );
    // The cycle is cut, everything else is written out.
    assert_eq!(
        get.returns.as_ref().unwrap()["properties"],
        json!({"title": {"type": "string"}, "parent": {}})
    );

    fake.answer(
        200,
        "application/json; charset=utf-8",
        "{\"b\":1,\"a\":[2]}",
    );
    let input = json!({"project": "a/../b ü", "id": 7, "fields": ["x", "y"], "tag": ["p&q", "r"], "X-Trace": "t", "query_body": "z"});
    let got = call(&service, &context(None), "issues_get_one", input)
        .await
        .unwrap();
    assert_eq!(
        got,
        Value::Object(vec![
            ("b".into(), Value::Number(1.0)),
            ("a".into(), Value::Array(vec![Value::Number(2.0)]))
        ])
    );
    let asked = fake.last();
    assert_eq!(
        asked.url,
        "https://api.tracker.test/v1/projects/a%2F..%2Fb%20%C3%BC/issues/7?fields=x%2Cy&tag=p%26q&tag=r&body=z"
    );
    assert_eq!(
        (header(&asked, "X-Trace"), header(&asked, "idempotency-key")),
        (Some("t"), None)
    );
    for (input, why) in [
        (json!({"id": 1}), "project is missing"),
        (
            json!({"id": 1, "project": ".."}),
            "cannot be a part of a path",
        ),
        (
            json!({"id": 1, "project": "p", "Authorization": "mine"}),
            "there is no \"Authorization\"",
        ),
    ] {
        let thrown = call(&service, &context(None), "issues_get_one", input)
            .await
            .unwrap_err();
        assert!(thrown.message.contains(why), "{thrown}");
    }
}

#[tokio::test]
async fn a_call_that_acts_carries_its_effect_id_and_a_refusal_is_thrown() {
    let fake = Arc::new(Fake::default());
    let service = service(&fake);
    fake.answer(422, "application/json", "{\"why\":\"no title\"}");
    let thrown = call(
        &service,
        &context(None),
        "create",
        json!({"body": {"title": ""}}),
    )
    .await
    .unwrap_err();
    assert_eq!(
        (thrown.name.as_str(), thrown.message.as_str()),
        ("HttpError", "tracker.create: POST /issues answered 422")
    );
    assert_eq!(
        thrown.properties[0],
        ("status".into(), Value::Number(422.0))
    );
    assert_eq!(thrown.properties[1].1.to_json(), json!({"why": "no title"}));
    let asked = fake.last();
    assert_eq!(
        (
            header(&asked, "idempotency-key"),
            header(&asked, "content-type")
        ),
        (Some("eff_1"), Some("application/json"))
    );
    assert_eq!(asked.body, "{\"title\":\"\"}");
    let thrown = call(&service, &context(None), "create", json!({}))
        .await
        .unwrap_err();
    assert!(thrown.message.contains("body is missing"), "{thrown}");
    *fake.answer.lock().unwrap() = None;
    let thrown = call(&service, &context(None), "delete_issues", json!([]))
        .await
        .unwrap_err();
    assert_eq!(
        thrown.properties,
        [("code".into(), Value::from("egress_denied"))]
    );
}

#[tokio::test]
async fn examples_answer_without_asking_anybody() {
    let fake = Arc::new(Fake::default());
    let service = service(&fake).with_examples();
    let context = context(None);
    let create = |input: Json| call(&service, &context, "create", input);
    let made = create(json!({"body": {"title": "x"}})).await.unwrap();
    assert_eq!(made.to_json(), json!({"title": "made"}));
    let thrown = create(json!({})).await.unwrap_err();
    assert!(thrown.message.contains("body is missing"), "{thrown}");
    for method in ["delete_issues", "get"] {
        let input = json!({"path": "/issues"});
        let input = if method == "get" { input } else { json!([]) };
        let thrown = call(&service, &context, method, input).await;
        let message = thrown.unwrap_err().message;
        assert_eq!(
            message,
            format!("tracker answers with examples, and tracker.{method} has none")
        );
    }
    assert!(fake.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_service_without_a_document_takes_any_request_below_its_base() {
    let fake = Arc::new(Fake::default());
    let effect = ServiceEffect {
        on_crash: OnCrash::Ask,
    };
    let base = Some("https://api.test/v2/".to_owned());
    let service = Service::new("api", "", base, fake.clone(), effect);
    assert_eq!(service.methods()[1].effect, Effect::Outside(OnCrash::Ask));
    fake.answer(404, "text/plain", "none");
    let input = json!({"path": "//evil.test/x?a=1", "query": {"b": ["1", 2], "c": null}, "headers": {"accept": "text/plain"}});
    let got = call(&service, &context(None), "get", input).await.unwrap();
    assert_eq!(
        got.to_json(),
        json!({"status": 404, "ok": false, "headers": {"content-type": "text/plain"}, "body": "none"})
    );
    assert_eq!(
        fake.last().url,
        "https://api.test/v2//evil.test/x?a=1&b=1&b=2"
    );
    fake.answer(200, "image/png", "PNG");
    let bytes = Value::View(ViewKind::Uint8, Bytes::from_static(b"\0\x01"));
    let input = Value::Object(vec![
        ("method".into(), Value::from("put")),
        ("path".into(), Value::from("/f")),
        ("body".into(), bytes),
    ]);
    let got = call_with(&service, &context(None), "request", vec![input])
        .await
        .unwrap();
    assert!(matches!(
        got.get("body"),
        Some(Value::View(ViewKind::Uint8, _))
    ));
    let asked = fake.last();
    assert_eq!(
        (
            asked.method.as_str(),
            header(&asked, "content-type"),
            &asked.body[..]
        ),
        ("PUT", Some("application/octet-stream"), &b"\0\x01"[..])
    );
    for (method, input, why) in [
        (
            "get",
            json!({"path": "/x", "method": "DELETE"}),
            "get only reads",
        ),
        ("get", json!({"path": "x"}), "path must begin with /"),
        ("request", json!("/x"), "must be an object"),
    ] {
        let thrown = call(&service, &context(None), method, input)
            .await
            .unwrap_err();
        assert!(thrown.message.contains(why), "{thrown}");
    }
}

#[test]
fn documents_that_are_none_are_refused() {
    for (text, why) in [
        ("{", "no JSON"),
        ("a: [", "no YAML"),
        ("swagger: \"2.0\"", "no OpenAPI 3"),
        ("{\"openapi\":\"3.1.0\",\"paths\":{}}", "no operations"),
    ] {
        let error = Document::parse(text).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
    }
    // References that double at each step do not fill the memory.
    let mut schemas = serde_json::Map::new();
    for n in 0..40 {
        let next = format!("#/components/schemas/S{}", n + 1);
        schemas.insert(
            format!("S{n}"),
            json!({"properties": {"a": {"$ref": next}, "b": {"$ref": next}}}),
        );
    }
    let bomb = json!({"openapi": "3.1.0", "paths": {"/": {"get": {"responses": {"200": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/S0"}}}}}}}}, "components": {"schemas": schemas}});
    let document = Document::parse(&bomb.to_string()).unwrap();
    assert_eq!(document.operations.len(), 1);
}

#[tokio::test]
async fn fetch_only_reads_where_it_says_so() {
    let fake = Arc::new(Fake::default());
    let web = Web::new(fake.clone());
    fake.answer(200, "text/plain", "hello");
    let got: Json = call(
        &web,
        &context(None),
        "get",
        json!({"url": "https://a.test/", "headers": [["accept", "*/*"]]}),
    )
    .await
    .unwrap()
    .to_json();
    assert_eq!(
        (&got["status"], &got["body"]),
        (&json!(200), &json!({"$bytes": "aGVsbG8="}))
    );
    let thrown = call(
        &web,
        &context(None),
        "get",
        json!({"url": "https://a.test/", "method": "POST"}),
    )
    .await
    .unwrap_err();
    assert!(thrown.message.contains("get only reads"), "{thrown}");
    let effects: Vec<Effect> = web.methods().iter().map(|m| m.effect).collect();
    assert_eq!(
        effects,
        [
            Effect::Outside(OnCrash::Retry),
            Effect::Outside(OnCrash::Unknown)
        ]
    );
}

#[tokio::test]
async fn an_operation_is_undone_by_the_one_that_its_document_names() {
    let text = json!({"openapi": "3.1.0", "info": {"title": "Issues"}, "paths": {
        "/issues": {"post": {"operationId": "createIssue", "x-bowline-undo": "close-issue",
            "parameters": [{"name": "owner", "in": "query", "schema": {"type": "string"}}],
            "responses": {}}},
        "/{owner}/issues/{number}/close": {"post": {"operationId": "close-issue",
            "parameters": [
                {"name": "owner", "in": "path", "required": true, "schema": {"type": "string"}},
                {"name": "number", "in": "path", "required": true, "schema": {"type": "integer"}}],
            "responses": {}}},
    }});
    let document = Document::parse(&text.to_string()).unwrap();
    let outside = Arc::new(Fake::default());
    let effect = ServiceEffect::default();
    let base = Some("https://issues.test".to_owned());
    let service = Service::new("issues", "", base, outside.clone(), effect)
        .with_operations(document.operations, effect);
    let reverts = |name: &str| {
        let found = service.methods().iter().find(|one| one.name == name);
        found.unwrap().reverts
    };
    assert!(reverts("createIssue") && !reverts("close_issue"));
    outside.answer(204, "text/plain", "");
    let given = [Value::from(json!({"owner": "ann"}))];
    let gave = Value::from(json!({"number": 7, "title": "one"}));
    let mut context = context(None);
    context.effect_id = Some("eff_1-undo".to_owned());
    service
        .revert(&context, "createIssue", &given, &gave)
        .await
        .unwrap();
    let sent = outside.last();
    assert_eq!(
        (&*sent.method, &*sent.url),
        ("POST", "https://issues.test/ann/issues/7/close")
    );
    assert_eq!(header(&sent, "idempotency-key"), Some("eff_1-undo"));
    outside.answer(409, "text/plain", "no");
    let refused = service
        .revert(&context, "createIssue", &given, &gave)
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("answered 409"), "{refused}");
}
