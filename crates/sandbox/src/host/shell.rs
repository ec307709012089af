//! Bash as a real process.

use std::{
    collections::BTreeMap,
    os::{fd::OwnedFd, unix::net::UnixStream as StdStream},
    path::PathBuf,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
    process::Command,
    sync::Notify,
};

use super::{
    HELPER, HostDir, HostError, HostLimits, confinable,
    message::{Order, Report},
};

/// Longest command, in bytes: the kernel takes no longer argument.
const MAX_COMMAND: usize = 128 * 1024 - 1;
/// What is kept of each stream: its end, in bytes.
const KEPT: usize = 1 << 20;
/// How long the supervisor has to end what it was told to end.
const GRACE: Duration = Duration::from_secs(15);
/// Variables that programs need and that hold no secret.
const PASSED_ON: [&str; 8] = [
    "PATH", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TERM",
];
/// Where programs are when nobody says so.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs commands in a directory.
#[derive(Debug, Clone)]
pub struct HostShell {
    helper: PathBuf,
    read: Vec<PathBuf>,
    unconfined: bool,
    limits: HostLimits,
}

/// One command.
#[derive(Debug, Clone)]
pub struct HostCommand {
    /// For bash.
    pub command: String,
    /// It is ended after this, with all its processes; its exit code is then 124.
    pub timeout: Duration,
}

/// What a command did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostOutcome {
    /// The end of standard output, at most 1 MiB; invalid UTF-8 is replaced.
    pub stdout: String,
    /// The end of standard error, at most 1 MiB; invalid UTF-8 is replaced.
    pub stderr: String,
    /// 0 for success; 124 after a timeout; 137 when it took too much.
    pub exit_code: i32,
    /// The time was up. What it did stays done.
    pub timed_out: bool,
}

impl HostShell {
    /// A shell whose processes are confined. `helper` is a program that calls [`super::helper`] first, such
    /// as the `bowline` binary.
    ///
    /// # Errors
    ///
    /// [`HostError::Unconfinable`].
    pub fn confined(helper: impl Into<PathBuf>) -> Result<Self, HostError> {
        confinable()?;
        Ok(Self::new(helper.into(), false))
    }

    /// A shell whose processes may do all that the user may do who runs this process. They are still
    /// bounded, and end with their command.
    pub fn unconfined(helper: impl Into<PathBuf>) -> Self {
        Self::new(helper.into(), true)
    }

    fn new(helper: PathBuf, unconfined: bool) -> Self {
        Self {
            helper,
            read: Vec::new(),
            unconfined,
            limits: HostLimits::default(),
        }
    }

    /// Directories that processes may read and run programs from, besides those of the system.
    #[must_use]
    pub fn read(mut self, directories: Vec<PathBuf>) -> Self {
        self.read = directories;
        self
    }

    /// Bounds of each command.
    #[must_use]
    pub fn limits(mut self, limits: HostLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Whether processes are not confined.
    pub fn is_unconfined(&self) -> bool {
        self.unconfined
    }

    /// Runs a command in the directory, with `env` added to a scrubbed environment. When it ends, in
    /// whatever way, none of its processes is left. Dropping the future ends it.
    ///
    /// # Errors
    ///
    /// [`HostError::Helper`] when it was not started.
    pub async fn run(
        &self,
        dir: &HostDir,
        command: &HostCommand,
        env: &BTreeMap<String, String>,
    ) -> Result<HostOutcome, HostError> {
        let failed = |what: &str, error: &dyn std::fmt::Display| {
            HostError::Helper(format!("{what}: {error}"))
        };
        if command.command.len() > MAX_COMMAND || command.command.contains('\0') {
            return Ok(HostOutcome {
                stdout: String::new(),
                stderr: format!(
                    "bash: a command has at most {MAX_COMMAND} bytes and no null byte; write a file and run that"
                ),
                exit_code: 2,
                timed_out: false,
            });
        }
        let temporary = Temporary::new().map_err(|error| failed("temporary directory", &error))?;
        let order = self.order(dir, command, env, &temporary);
        let (ours, theirs) = StdStream::pair().map_err(|error| failed("socket", &error))?;
        let mut child = Command::new(&self.helper)
            .args([HELPER, "supervise"])
            .env_clear()
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| failed(&self.helper.display().to_string(), &error))?;
        let streams = child.stdout.take().zip(child.stderr.take());
        let (stdout, stderr) = streams.ok_or_else(|| failed("output", &"no pipe"))?;
        ours.set_nonblocking(true)
            .map_err(|error| failed("socket", &error))?;
        let mut line = UnixStream::from_std(ours).map_err(|error| failed("socket", &error))?;
        let mut text = serde_json::to_vec(&order).map_err(|error| failed("order", &error))?;
        text.push(b'\n');
        line.write_all(&text)
            .await
            .map_err(|error| failed("order", &error))?;
        let budget = Arc::new(Budget::new(self.limits.output_bytes));
        let (out, err) = (
            Tail::collect(stdout, &budget),
            Tail::collect(stderr, &budget),
        );
        let streams = async { tokio::join!(out, err) };
        let supervised = async {
            let reason = watch(&mut line, command.timeout, &budget).await;
            // The status of the supervisor says nothing that its report does not.
            let _ = child.wait().await;
            reason
        };
        let ((out, err), ended) = tokio::join!(streams, supervised);
        self.outcome(out, err, ended, command)
    }

    fn order(
        &self,
        dir: &HostDir,
        command: &HostCommand,
        env: &BTreeMap<String, String>,
        temporary: &Temporary,
    ) -> Order {
        let mut all: BTreeMap<String, String> = PASSED_ON
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)))
            .collect();
        all.entry("PATH".into()).or_insert_with(|| PATH.to_owned());
        let root = dir.root().to_owned();
        for name in ["HOME", "PWD"] {
            all.insert(name.to_owned(), root.clone());
        }
        for name in ["TMPDIR", "TMP", "TEMP"] {
            all.insert(name.to_owned(), temporary.path.display().to_string());
        }
        all.extend(env.clone());
        Order {
            command: command.command.clone(),
            dir: PathBuf::from(root),
            temporary: temporary.path.clone(),
            read: self.read.clone(),
            env: all,
            unconfined: self.unconfined,
            limits: self.limits,
        }
    }

    fn outcome(
        &self,
        out: Tail,
        err: Tail,
        ended: Ended,
        command: &HostCommand,
    ) -> Result<HostOutcome, HostError> {
        let (stdout, mut stderr) = (out.text(), err.text());
        let mut note = |text: String| {
            if !stderr.is_empty() && !stderr.ends_with('\n') {
                stderr.push('\n');
            }
            stderr.push_str(&text);
        };
        let (exit_code, timed_out) = match ended {
            Ended::Reported(Report::Exited(code)) => (code, false),
            Ended::Reported(Report::Exceeded(what)) => {
                note(format!("bash: stopped: the command took {what}"));
                (137, false)
            }
            Ended::Reported(Report::Failed(why)) => return Err(HostError::Helper(why)),
            Ended::TimedOut => {
                let seconds = command.timeout.as_secs_f64();
                note(format!("Command timed out after {seconds} seconds."));
                (124, true)
            }
            Ended::TooMuchOutput => {
                let most = self.limits.output_bytes;
                note(format!(
                    "bash: stopped: the command printed more than {most} bytes; write to a file"
                ));
                (137, false)
            }
            Ended::Reported(Report::Stopped) | Ended::Silent => {
                return Err(HostError::Helper("it ended without a report".to_owned()));
            }
        };
        Ok(HostOutcome {
            stdout,
            stderr,
            exit_code,
            timed_out,
        })
    }
}

/// How a command ended, as seen from here.
enum Ended {
    Reported(Report),
    TimedOut,
    TooMuchOutput,
    /// The supervisor is gone.
    Silent,
}

/// Waits for the report; when it is time, closes the line, which is the order to stop, and waits for that.
async fn watch(line: &mut UnixStream, timeout: Duration, budget: &Budget) -> Ended {
    let (read, mut write) = line.split();
    let mut reports = BufReader::new(read);
    let mut text = String::new();
    let ended = tokio::select! {
        read = reports.read_line(&mut text) => return match read.map(|_| serde_json::from_str(&text)) {
            Ok(Ok(report)) => Ended::Reported(report),
            Ok(Err(_)) | Err(_) => Ended::Silent,
        },
        () = tokio::time::sleep(timeout) => Ended::TimedOut,
        () = budget.spent() => Ended::TooMuchOutput,
    };
    let _ = write.shutdown().await;
    let _ = tokio::time::timeout(GRACE, reports.read_line(&mut text)).await;
    ended
}

/// How much a command may still print.
struct Budget {
    left: AtomicU64,
    spent: Notify,
}

impl Budget {
    fn new(bytes: u64) -> Self {
        Self {
            left: AtomicU64::new(bytes),
            spent: Notify::new(),
        }
    }

    fn take(&self, bytes: u64) {
        let before = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                Some(left.saturating_sub(bytes))
            });
        if before.is_ok_and(|before| before < bytes) {
            self.spent.notify_one();
        }
    }

    async fn spent(&self) {
        self.spent.notified().await;
    }
}

/// The end of a stream.
struct Tail {
    kept: Vec<u8>,
    dropped: u64,
}

impl Tail {
    async fn collect(mut stream: impl AsyncRead + Unpin, budget: &Budget) -> Self {
        let mut tail = Self {
            kept: Vec::new(),
            dropped: 0,
        };
        let mut piece = vec![0; 64 * 1024];
        loop {
            match stream.read(&mut piece).await {
                Ok(0) | Err(_) => return tail,
                Ok(length) => {
                    budget.take(length as u64);
                    tail.push(piece.get(..length).unwrap_or_default());
                }
            }
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        self.kept.extend_from_slice(bytes);
        if self.kept.len() > 2 * KEPT {
            let cut = self.kept.len() - KEPT;
            self.kept.drain(..cut);
            self.dropped += cut as u64;
        }
    }

    fn text(mut self) -> String {
        let cut = self.kept.len().saturating_sub(KEPT);
        self.kept.drain(..cut);
        self.dropped += cut as u64;
        let text = String::from_utf8_lossy(&self.kept);
        if self.dropped == 0 {
            return text.into_owned();
        }
        format!("[{} bytes before this are left out.]\n{text}", self.dropped)
    }
}

/// A directory for the temporary files of one command.
struct Temporary {
    path: PathBuf,
    _kept: tempfile::TempDir,
}

impl Temporary {
    fn new() -> std::io::Result<Self> {
        let dir = tempfile::Builder::new().prefix("bowline-").tempdir()?;
        Ok(Self {
            path: dir.path().canonicalize()?,
            _kept: dir,
        })
    }
}
