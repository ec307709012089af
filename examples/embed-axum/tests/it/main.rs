//! The example, asked by somebody with the token and by somebody without.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};

struct Running {
    child: Child,
    addr: String,
}

impl Running {
    fn start(dir: &std::path::Path) -> Self {
        let script = dir.join("greeter.yaml");
        fs::write(&script, "turns: [{text: \"Welcome, Mia.\"}]\n").unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_bowline-embed-axum"))
            .arg(dir.join("data"))
            .env("TOKEN", "open sesame")
            .env("MODEL", format!("scripted/{}", script.display()))
            .env("ADDR", "127.0.0.1:0")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let addr = line.trim().strip_prefix("http://").unwrap().to_owned();
        Self { child, addr }
    }

    /// Asks, as HTTP/1.0 so that the body is what comes until the end. The status, and the body.
    fn ask(&self, line: &str, token: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.addr).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        write!(
            stream,
            "{line} HTTP/1.0\r\nHost: app.example\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, body.to_owned())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_agents_answer_beside_the_applications_own_pages_to_whom_it_lets_in() {
    let dir = tempfile::tempdir().unwrap();
    let mut running = Running::start(dir.path());
    let mia = "/agents/greeter/mia";
    let message = json!({"kind": "user", "body": "Hello!"}).to_string();
    let post = format!("POST {mia}");

    let (status, page) = running.ask("GET /", "", "");
    assert_eq!((status, page.contains("own")), (200, true));
    let (status, body) = running.ask(&post, "guessed", &message);
    assert_eq!((status, body.contains("unauthorized")), (401, true));
    let (status, receipt) = running.ask(&post, "open sesame", &message);
    assert_eq!(status, 202, "{receipt}");
    let receipt: Value = serde_json::from_str(&receipt).unwrap();
    let submission = receipt["submissionId"].as_str().unwrap();
    let wait = format!("GET {mia}/submissions/{submission}?wait=30");
    let (status, reply) = running.ask(&wait, "open sesame", "");
    assert_eq!(status, 200, "{reply}");
    let reply: Value = serde_json::from_str(&reply).unwrap();
    assert_eq!(reply["text"], "Welcome, Mia.");

    // No more than the application grants, and nothing in the place of its own pages.
    let (status, body) = running.ask(&format!("DELETE {mia}"), "open sesame", "");
    assert_eq!((status, body.contains("forbidden")), (403, true));
    assert_eq!(running.ask("GET /none", "", ""), (404, String::new()));
    assert_eq!(running.ask("GET /healthz", "", "").0, 404);

    // It ends in good order although somebody follows the conversation.
    let mut follower = TcpStream::connect(&running.addr).unwrap();
    write!(
        follower,
        "GET {mia}?view=updates&offset=-1&live=sse HTTP/1.1\r\nHost: app.example\r\n\
         Authorization: Bearer open sesame\r\n\r\n"
    )
    .unwrap();
    assert!(follower.read(&mut [0; 64]).unwrap() > 0);
    let pid = running.child.id().to_string();
    let asked = Command::new("kill").args(["-INT", &pid]).status().unwrap();
    assert!(asked.success());
    assert!(running.child.wait().unwrap().success());
}
