//! The machine's `git http-backend`: repositories in a directory, served by git itself.

use std::{
    io::{self, Write as _},
    path::Path,
    process::{Command, Stdio},
};

use bytes::Bytes;

/// A request for a repository.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// The method.
    pub method: String,
    /// Path and query, from `/` on.
    pub target: String,
    /// Names and values.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

impl Asked {
    /// A header, empty when it is missing.
    pub fn header(&self, name: &str) -> &str {
        let mut headers = self.headers.iter();
        let found = headers.find(|(other, _)| other.eq_ignore_ascii_case(name));
        found.map_or("", |(_, value)| value)
    }
}

/// What git answers.
#[derive(Debug, Clone)]
pub struct Answered {
    /// The status.
    pub status: u16,
    /// Names in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

/// Runs git's own CGI program for a request. Pushes are allowed; who asks is not checked here.
///
/// # Errors
///
/// When there is no git, or it answers nothing that makes sense.
pub fn backend(root: &Path, asked: &Asked) -> io::Result<Answered> {
    let (path, query) = asked.target.split_once('?').unwrap_or((&asked.target, ""));
    let settings = ["safe.directory=*", "http.receivepack=true"];
    let mut child = Command::new("git")
        .args(settings.iter().flat_map(|setting| ["-c", setting]))
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("HOME", "/nonexistent")
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("REQUEST_METHOD", &asked.method)
        .env("CONTENT_TYPE", asked.header("content-type"))
        .env("CONTENT_LENGTH", asked.body.len().to_string())
        .env("GIT_PROTOCOL", asked.header("git-protocol"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()?;
    let stdin = child.stdin.take();
    let body = asked.body.clone();
    let writer = std::thread::spawn(move || match stdin {
        Some(mut stdin) => stdin.write_all(&body),
        None => Ok(()),
    });
    let out = child.wait_with_output()?.stdout;
    // What git leaves unread closes the pipe; that is its business.
    let _ = writer.join();
    let broken = || io::Error::other("git http-backend answered nothing that makes sense");
    let end = out.windows(4).position(|four| four == b"\r\n\r\n");
    let (head, body) = out.split_at(end.ok_or_else(broken)?);
    let mut status = 200;
    let mut headers = Vec::new();
    for line in String::from_utf8_lossy(head).lines() {
        let (name, value) = line.split_once(": ").ok_or_else(broken)?;
        if name == "Status" {
            let number = value.split(' ').next().unwrap_or_default();
            status = number.parse().map_err(|_| broken())?;
        }
        headers.push((name.to_ascii_lowercase(), value.to_owned()));
    }
    Ok(Answered {
        status,
        headers,
        body: Bytes::copy_from_slice(body.get(4..).unwrap_or_default()),
    })
}
