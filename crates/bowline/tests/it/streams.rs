//! Durable streams over HTTP.

use std::{net::SocketAddr, path::Path, process::Stdio, time::Duration};

use bowline::{
    Bowline,
    server::{App, Server, Settings},
};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::npm;

/// A server in this process.
pub(crate) struct Site {
    pub(crate) addr: SocketAddr,
    pub(crate) app: App,
    stop: CancellationToken,
    serving: tokio::task::JoinHandle<bool>,
    service: bowline::Service,
}

impl Site {
    pub(crate) async fn start(data: &Path) -> Self {
        Self::start_with(Bowline::open(data).unwrap(), "127.0.0.1:0".parse().unwrap()).await
    }

    pub(crate) async fn start_with(bowline: Bowline, addr: SocketAddr) -> Self {
        let service = bowline.start();
        let settings = Settings {
            addr,
            long_poll: Duration::from_millis(500),
            drain: Duration::from_secs(5),
            ..Settings::default()
        };
        let server = Server::bind(App::new(service.clone(), settings))
            .await
            .unwrap();
        let stop = CancellationToken::new();
        Self {
            addr: server.addr(),
            app: server.app().clone(),
            serving: tokio::spawn(server.serve(stop.clone())),
            stop,
            service,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        assert!(self.serving.await.unwrap(), "connections had to be cut");
        self.service.stop(Duration::from_secs(10)).await;
    }
}

/// Runs a file of tests with vitest; answers with how many passed and what failed.
async fn vitest(dir: &Path, file: &str, site: &Site) -> (u64, Vec<String>) {
    let report = dir.join(format!("{file}.json"));
    let run = tokio::process::Command::new("node")
        .args([
            "../node_modules/vitest/vitest.mjs",
            "run",
            file,
            "--root",
            ".",
        ])
        .args(["--reporter=json", "--testTimeout=30000", "--outputFile"])
        .arg(&report)
        .current_dir(dir)
        .env("BOWLINE_URL", site.url())
        .env("BOWLINE_LONG_POLL_MS", "500")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .output();
    let run = tokio::time::timeout(Duration::from_secs(300), run).await;
    let run = run.expect("the suite took more than five minutes").unwrap();
    let text = std::fs::read(&report).unwrap_or_default();
    let report: Value = serde_json::from_slice(&text).unwrap_or_else(|error| {
        let words = String::from_utf8_lossy(&run.stderr);
        panic!("vitest left no report ({error}): {words}")
    });
    let results = report["testResults"].as_array().unwrap();
    let tests = results
        .iter()
        .flat_map(|it| it["assertionResults"].as_array().unwrap());
    let failed = tests.filter(|test| test["status"] != "passed").map(|test| {
        let why = test["failureMessages"][0].as_str().unwrap_or_default();
        let why: String = why.lines().take(6).collect::<Vec<_>>().join("\n    ");
        format!(
            "{}\n    {why}",
            test["fullName"].as_str().unwrap_or_default()
        )
    });
    let failed = failed.collect();
    (report["numPassedTests"].as_u64().unwrap(), failed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_public_conformance_suite_passes_whole() {
    let Some(dir) = npm::project("streams") else {
        return;
    };
    let data = tempfile::tempdir().unwrap();
    let site = Site::start(data.path()).await;
    let (passed, failed) = vitest(&dir, "conformance.test.js", &site).await;
    assert!(
        failed.is_empty(),
        "{} failed:\n{}",
        failed.len(),
        failed.join("\n")
    );
    assert_eq!(passed, 338);
    site.stop().await;
}
