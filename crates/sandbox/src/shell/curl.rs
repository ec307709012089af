//! `curl`, over [`crate::egress`]: one request, the usual options. What it may reach is decided there,
//! and credentials are attached there; none can be given here.

use std::sync::Arc;

use async_trait::async_trait;
use bashkit::{Command, CommandContext, CommandStatus, Result};
use bytes::Bytes;

use super::{
    commands::{PIPE_CLOSED, write},
    fs::{READ_BYTES, WorkspaceFs},
};
use crate::{
    egress::{EgressError, Outside, Request, Response},
    workspace::{WORKING_DIRECTORY, WriteOptions, absolute},
};

pub(crate) struct Curl(pub(crate) Arc<WorkspaceFs>);

/// A parsed command line.
#[derive(Debug, Default)]
struct Call {
    urls: Vec<String>,
    method: Option<String>,
    headers: Vec<(String, String)>,
    /// Pieces of the body, joined by `&`.
    data: Vec<Data>,
    /// `-G`: the data goes into the query.
    query: bool,
    /// Where each body goes: a path, or the name in the URL (`-O`).
    outputs: Vec<Option<String>>,
    head: bool,
    include: bool,
    fail: bool,
    silent: bool,
    show_errors: bool,
    write_out: Option<String>,
}

#[derive(Debug)]
struct Data {
    text: String,
    /// `@` at its start names a file.
    file: bool,
    /// Line ends of a file are kept.
    binary: bool,
}

/// Options that take a value.
const VALUES: [(&str, &str); 18] = [
    ("-X", "--request"),
    ("-H", "--header"),
    ("-d", "--data"),
    ("-o", "--output"),
    ("-A", "--user-agent"),
    ("-e", "--referer"),
    ("-w", "--write-out"),
    ("-m", "--max-time"),
    ("", "--data-raw"),
    ("", "--data-binary"),
    ("", "--data-ascii"),
    ("", "--data-urlencode"),
    ("", "--json"),
    ("", "--url"),
    ("", "--connect-timeout"),
    ("", "--retry"),
    ("-u", "--user"),
    ("-b", "--cookie"),
];

impl Call {
    fn read(args: &[String]) -> std::result::Result<Self, String> {
        let mut call = Self::default();
        let mut args = args.iter().map(String::as_str);
        while let Some(arg) = args.next() {
            if let Some(rest) = arg.strip_prefix("--").filter(|rest| !rest.is_empty()) {
                let (name, value) = rest.split_once('=').map_or((arg, None), |(name, value)| {
                    (&arg[..name.len() + 2], Some(value))
                });
                if let Some((_, long)) = VALUES.iter().find(|(_, long)| *long == name) {
                    let value = value
                        .or_else(|| args.next())
                        .ok_or(format!("option {long}: requires parameter"))?;
                    call.value(long, value)?;
                } else {
                    call.flag(name)?;
                }
            } else if arg.len() > 1 && arg.starts_with('-') {
                let mut rest = &arg[1..];
                while let Some(letter) = rest.chars().next() {
                    rest = &rest[letter.len_utf8()..];
                    let short = format!("-{letter}");
                    if let Some((_, long)) = VALUES.iter().find(|(name, _)| *name == short) {
                        let value = if rest.is_empty() {
                            args.next()
                        } else {
                            Some(rest)
                        };
                        call.value(
                            long,
                            value.ok_or(format!("option {short}: requires parameter"))?,
                        )?;
                        break;
                    }
                    call.flag(&short)?;
                }
            } else {
                call.urls.push(arg.to_owned());
            }
        }
        if call.urls.is_empty() {
            return Err("no URL specified".into());
        }
        Ok(call)
    }

    fn flag(&mut self, name: &str) -> std::result::Result<(), String> {
        match name {
            "-s" | "--silent" => self.silent = true,
            "-S" | "--show-error" => self.show_errors = true,
            "-f" | "--fail" => self.fail = true,
            "-i" | "--include" => self.include = true,
            "-I" | "--head" => self.head = true,
            "-G" | "--get" => self.query = true,
            "-O" | "--remote-name" => self.outputs.push(None),
            "-L"
            | "--location"
            | "--compressed"
            | "-N"
            | "--no-buffer"
            | "--globoff"
            | "-g"
            | "--no-progress-meter" => {}
            "-k" | "--insecure" => return Err("option -k: certificates are always checked".into()),
            other => {
                return Err(format!(
                    "option {other}: is not supported (SH-27 in docs/limits.md)"
                ));
            }
        }
        Ok(())
    }

    fn value(&mut self, name: &str, value: &str) -> std::result::Result<(), String> {
        let plain = |text: &str, file| Data {
            text: text.to_owned(),
            file,
            binary: false,
        };
        match name {
            "--request" => self.method = Some(value.to_ascii_uppercase()),
            "--header" => {
                let Some((name, text)) = value.split_once(':') else {
                    return Err(format!("header '{value}' has no colon"));
                };
                self.headers
                    .push((name.trim().to_ascii_lowercase(), text.trim().to_owned()));
            }
            "--data" | "--data-ascii" => self.data.push(plain(value, true)),
            "--data-raw" => self.data.push(plain(value, false)),
            "--data-binary" => self.data.push(Data {
                binary: true,
                ..plain(value, true)
            }),
            "--data-urlencode" => {
                let (name, text) = value
                    .split_once('=')
                    .map_or((None, value), |(name, text)| (Some(name), text));
                let text: String = url::form_urlencoded::byte_serialize(text.as_bytes()).collect();
                let text = match name {
                    Some(name) if !name.is_empty() => format!("{name}={text}"),
                    _ => text,
                };
                self.data.push(plain(&text, false));
            }
            "--json" => {
                self.data.push(Data {
                    binary: true,
                    ..plain(value, true)
                });
                for name in ["content-type", "accept"] {
                    if !self.headers.iter().any(|(other, _)| other == name) {
                        self.headers.push((name.into(), "application/json".into()));
                    }
                }
            }
            "--output" => self.outputs.push(Some(value.to_owned())),
            "--user-agent" => self.headers.push(("user-agent".into(), value.to_owned())),
            "--referer" => self.headers.push(("referer".into(), value.to_owned())),
            "--write-out" => self.write_out = Some(value.to_owned()),
            "--url" => self.urls.push(value.to_owned()),
            "--cookie" if value.contains('=') => {
                self.headers.push(("cookie".into(), value.to_owned()))
            }
            "--user" => {
                return Err("option -u: credentials are attached outside of the shell, by the host; see docs/guide/workspace.md".into());
            }
            // The egress has times of its own, and nothing is sent twice unasked.
            "--max-time" | "--connect-timeout" | "--retry" => {}
            other => {
                return Err(format!(
                    "option {other}: is not supported (SH-27 in docs/limits.md)"
                ));
            }
        }
        Ok(())
    }
}

/// Exit code of a request that is not allowed.
const REFUSED: i32 = 7;

/// What a response became, or the exit code and message of a failure.
type Sent = std::result::Result<Response, (i32, String)>;

impl Curl {
    async fn body(
        &self,
        ctx: &CommandContext<'_>,
        call: &Call,
        cwd: &str,
    ) -> Result<std::result::Result<Vec<u8>, String>> {
        let mut body = Vec::new();
        for (at, data) in call.data.iter().enumerate() {
            if at > 0 {
                body.push(b'&');
            }
            let Some(file) = data.text.strip_prefix('@').filter(|_| data.file) else {
                body.extend_from_slice(data.text.as_bytes());
                continue;
            };
            let mut bytes = Vec::new();
            if file == "-" {
                while let Some(more) = ctx.stdin.read_chunk().await? {
                    bytes.extend_from_slice(&more);
                    if bytes.len() as u64 > READ_BYTES {
                        return Ok(Err("the standard input is too large".into()));
                    }
                }
            } else {
                match self.0.overlay()?.read_held(&absolute(file, cwd)).await {
                    Ok(read) => bytes.extend_from_slice(&read),
                    Err(error) => {
                        return Ok(Err(format!("Failed to open {file}: {}", error.strerror())));
                    }
                }
            }
            if !data.binary {
                bytes.retain(|byte| !matches!(byte, b'\r' | b'\n'));
            }
            body.extend_from_slice(&bytes);
        }
        Ok(Ok(body))
    }

    async fn send(outside: &dyn Outside, call: &Call, url: &str, body: &[u8]) -> Sent {
        let mut url = if url.contains("://") {
            url.to_owned()
        } else {
            format!("https://{url}")
        };
        let mut headers = call.headers.clone();
        let mut body = Bytes::copy_from_slice(body);
        let mut method = "GET";
        if !call.data.is_empty() {
            if call.query {
                let sign = if url.contains('?') { '&' } else { '?' };
                url = format!("{url}{sign}{}", String::from_utf8_lossy(&body));
                body = Bytes::new();
            } else {
                method = "POST";
                if !headers.iter().any(|(name, _)| name == "content-type") {
                    headers.push((
                        "content-type".into(),
                        "application/x-www-form-urlencoded".into(),
                    ));
                }
            }
        }
        if call.head {
            method = "HEAD";
        }
        let request = Request {
            method: call.method.clone().unwrap_or_else(|| method.into()),
            url,
            headers,
            body,
        };
        outside.send(request).await.map_err(|error| {
            let code = match error {
                EgressError::Denied(_) | EgressError::Private(_) => REFUSED,
                EgressError::Invalid(_) => 3,
                EgressError::RequestTooLarge(_) | EgressError::ResponseTooLarge(_) => 63,
                EgressError::Redirects(_) => 47,
                EgressError::Timeout { .. } => 28,
                EgressError::Unreachable { .. } => 6,
            };
            (code, error.to_string())
        })
    }

    /// Writes one answer; the exit code.
    async fn show(
        &self,
        ctx: &CommandContext<'_>,
        call: &Call,
        answer: &Response,
        to: Option<&Option<String>>,
        cwd: &str,
    ) -> Result<i32> {
        let mut out = Vec::new();
        if call.include || call.head {
            out.extend_from_slice(format!("HTTP/1.1 {}\r\n", answer.status).as_bytes());
            for (name, value) in &answer.headers {
                out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
            }
            out.extend_from_slice(b"\r\n");
        }
        if call.fail && answer.status >= 400 {
            self.complain(
                ctx,
                call,
                &format!("(22) The requested URL returned error: {}", answer.status),
            )
            .await?;
            return Ok(22);
        }
        if !call.head {
            out.extend_from_slice(&answer.body);
        }
        let path = match to {
            None => None,
            Some(Some(path)) if path == "-" => None,
            Some(Some(path)) => Some(path.clone()),
            Some(None) => {
                let name = answer
                    .url
                    .split(['?', '#'])
                    .next()
                    .unwrap_or_default()
                    .rsplit('/')
                    .next()
                    .unwrap_or_default();
                if name.is_empty() || name == ".." || name == "." {
                    self.complain(ctx, call, "(23) the URL has no name for a file; use -o")
                        .await?;
                    return Ok(23);
                }
                Some(name.to_owned())
            }
        };
        match path {
            Some(path) if path == "/dev/null" => {}
            Some(path) => {
                let written = self
                    .0
                    .overlay()?
                    .write(
                        &absolute(&path, cwd),
                        Bytes::from(out),
                        &WriteOptions::default(),
                    )
                    .await;
                if let Err(error) = written {
                    self.complain(ctx, call, &format!("(23) {path}: {}", error.strerror()))
                        .await?;
                    return Ok(23);
                }
            }
            None => {
                if !write(ctx, &self.0, &out).await? {
                    return Ok(PIPE_CLOSED.exit_code);
                }
            }
        }
        if let Some(format) = &call.write_out {
            let text = format
                .replace("%{http_code}", &format!("{:03}", answer.status))
                .replace("%{response_code}", &format!("{:03}", answer.status))
                .replace("%{url_effective}", &answer.url)
                .replace("%{size_download}", &answer.body.len().to_string())
                .replace(
                    "%{content_type}",
                    answer.header("content-type").unwrap_or_default(),
                )
                .replace("\\n", "\n")
                .replace("\\t", "\t");
            write(ctx, &self.0, text.as_bytes()).await?;
        }
        Ok(0)
    }

    async fn complain(&self, ctx: &CommandContext<'_>, call: &Call, message: &str) -> Result<()> {
        if call.silent && !call.show_errors {
            return Ok(());
        }
        ctx.stderr
            .write_all(format!("curl: {message}\n").as_bytes())
            .await
    }
}

#[async_trait]
impl Command for Curl {
    async fn execute(&self, ctx: CommandContext<'_>) -> Result<CommandStatus> {
        let cwd = ctx.cwd.to_str().unwrap_or(WORKING_DIRECTORY).to_owned();
        let call = match Call::read(ctx.args) {
            Ok(call) => call,
            Err(message) => {
                ctx.stderr
                    .write_all(format!("curl: {message}\n").as_bytes())
                    .await?;
                return Ok(CommandStatus::with_code(2));
            }
        };
        let Some(outside) = self.0.outside() else {
            let message = "curl: (7) this agent has no network; list the host under `egress` in its agent.md to allow it\n";
            ctx.stderr.write_all(message.as_bytes()).await?;
            return Ok(CommandStatus::with_code(REFUSED));
        };
        let body = match self.body(&ctx, &call, &cwd).await? {
            Ok(body) => body,
            Err(message) => {
                ctx.stderr
                    .write_all(format!("curl: (26) {message}\n").as_bytes())
                    .await?;
                return Ok(CommandStatus::with_code(26));
            }
        };
        let mut code = 0;
        for (at, url) in call.urls.iter().enumerate() {
            match Self::send(outside.as_ref(), &call, url, &body).await {
                Ok(answer) => {
                    code = self
                        .show(&ctx, &call, &answer, call.outputs.get(at), &cwd)
                        .await?
                }
                Err((failed, message)) => {
                    // What is refused is said also with `-s`: whoever reads it has to know the setting.
                    let call = Call {
                        silent: call.silent && failed != REFUSED,
                        show_errors: call.show_errors,
                        ..Call::default()
                    };
                    self.complain(&ctx, &call, &format!("({failed}) {message}"))
                        .await?;
                    code = failed;
                }
            }
        }
        Ok(CommandStatus::with_code(code))
    }
}
