//! `curl` in the shell, over a network that is not there.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bowline_sandbox::{
    egress::{EgressError, Outside, Request, Response},
    shell::{Shell, ShellOptions, ShellOutcome, ShellState},
    workspace::Overlay,
};

use crate::support::{World, put, text};

/// Answers for one host with what it was asked.
#[derive(Debug, Default)]
struct Fake(Mutex<Vec<Request>>);

#[async_trait]
impl Outside for Fake {
    async fn send(&self, request: Request) -> Result<Response, EgressError> {
        if !request.url.starts_with("https://api.test/") {
            return Err(EgressError::Denied(request.url));
        }
        let answer = Response {
            status: if request.url.ends_with("/gone") {
                404
            } else {
                200
            },
            url: request.url.clone(),
            headers: vec![("content-type".into(), "text/plain".into())],
            body: format!("{} {}\n", request.method, request.url).into(),
        };
        self.0.lock().unwrap().push(request);
        Ok(answer)
    }
}

async fn sh(overlay: &Overlay, fake: &Arc<Fake>, command: &str) -> ShellOutcome {
    let options = ShellOptions {
        outside: Some(fake.clone()),
        ..ShellOptions::default()
    };
    let shell = Shell::new();
    shell
        .run(overlay, ShellState::default(), command, &options)
        .await
}

#[tokio::test]
async fn curl_sends_what_it_is_told_and_writes_what_comes_back() {
    let overlay = World::new().begin().await;
    let fake = Arc::new(Fake::default());
    let plain = sh(&overlay, &fake, "curl -s api.test/a | tr a-z A-Z").await;
    assert_eq!(plain.stdout, "GET HTTPS://API.TEST/A\n");

    put(&overlay, "body.json", "{\"a\":\n1}").await;
    let posted = sh(
        &overlay,
        &fake,
        "curl -sS -X PUT --json @body.json -H 'X-Trace: 7' https://api.test/b -o out -w '%{http_code}'",
    )
    .await;
    assert_eq!((posted.exit_code, posted.stdout.as_str()), (0, "200"));
    assert_eq!(text(&overlay, "out").await, "PUT https://api.test/b\n");
    let form = sh(
        &overlay,
        &fake,
        "curl -d a=1 --data-urlencode 'b=x y' https://api.test/c",
    )
    .await;
    assert_eq!(form.stdout, "POST https://api.test/c\n");
    let query = sh(&overlay, &fake, "curl -G -d a=1 https://api.test/d?z").await;
    assert_eq!(query.stdout, "GET https://api.test/d?z&a=1\n");
    let failed = sh(&overlay, &fake, "curl -sSf https://api.test/gone").await;
    assert_eq!((failed.exit_code, failed.stdout.as_str()), (22, ""));

    let asked = fake.0.lock().unwrap();
    let header = |at: usize, name: &str| {
        let found = asked[at].headers.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| value.clone())
    };
    assert_eq!(&asked[1].body[..], b"{\"a\":\n1}");
    assert_eq!(
        header(1, "content-type").as_deref(),
        Some("application/json")
    );
    assert_eq!(header(1, "x-trace").as_deref(), Some("7"));
    assert_eq!(&asked[2].body[..], b"a=1&b=x+y");
}

#[tokio::test]
async fn a_host_that_is_not_allowed_is_refused_even_in_silence() {
    let overlay = World::new().begin().await;
    let fake = Arc::new(Fake::default());
    let refused = sh(&overlay, &fake, "curl -s https://other.test/").await;
    assert_eq!((refused.exit_code, refused.stdout.as_str()), (7, ""));
    assert!(refused.stderr.contains("`egress`"), "{}", refused.stderr);
    assert!(fake.0.lock().unwrap().is_empty());
}
