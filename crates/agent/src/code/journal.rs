//! What a run leaves in the store until it has ended.
//!
//! Rows of the space [`CODE`]: `run`, who runs what; `snippets`, those that it may run; `journal/N`, the answers that the program got, in
//! their order; `memory`, the program as it waited, which makes the journal before it superfluous;
//! `key`, with which memory is signed; `undo/EFFECT`, what a call was given and gave that can be undone, which
//! stays until it is; and `rolling`, the run that is being undone. They change at boundaries only, each with the record
//! [`Boundary`] that says what happened.

use std::fmt;

use bowline_runtime::{Sources, Step};
use bowline_sandbox::isolate::{Answer, IsolateError, LogLevel, LogLine, Thrown, Value};
use bowline_store::{ActorId, Blob, BlobId, RowChange, Store, StoreError, Timestamp};
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::Value as Json;

use super::{registry::Spaces, runs::RunState, snippet::Snippet};

/// Space of an open run of code.
pub const CODE: &str = "code";
/// Keys of it.
const RUN: &[u8] = b"run";
const MEMORY: &[u8] = b"memory";
const KEY: &[u8] = b"key";
const JOURNAL: &[u8] = b"journal/";
const UNDO: &[u8] = b"undo/";
const SNIPPETS: &[u8] = b"snippets";
const ROLLING: &[u8] = b"rolling";
/// What is larger is a blob, because rows are bounded.
const INLINE: usize = 256 << 10;
/// Entries that are read at once.
const PAGE: usize = 256;

/// A call of a run: its number, and before that the number of the tool's call where a durable tool made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct CallId(u64);

impl CallId {
    /// A call with this number, of the tool with that one; 0 is the code itself.
    pub(crate) fn of(tool: u32, number: u32) -> Self {
        Self((u64::from(tool) << 32) | u64::from(number))
    }

    /// The call of the tool that made it; 0 where the code itself did.
    pub(crate) fn tool(self) -> u32 {
        u32::try_from(self.0 >> 32).unwrap_or(u32::MAX)
    }

    /// Its number in its program.
    pub(crate) fn number(self) -> u32 {
        u32::try_from(self.0 & u64::from(u32::MAX)).unwrap_or(u32::MAX)
    }
}

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.tool() {
            0 => write!(f, "{}", self.number()),
            tool => write!(f, "{tool}.{}", self.number()),
        }
    }
}

/// What a run is: a row that does not change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Head {
    /// `run_…`.
    pub(crate) run_id: String,
    /// The call that asked for it.
    pub(crate) tool_call_id: String,
    /// The submission.
    pub(crate) submission_id: String,
    /// What its random numbers come from, in hexadecimal digits.
    pub(crate) seed: String,
    /// What its clock showed first.
    pub(crate) started: Timestamp,
    /// The image of the engine that it runs in.
    pub(crate) image: String,
    /// What it can call. What the agent has meanwhile does not matter to the program.
    pub(crate) spaces: Spaces,
}

/// An answer that the program got: a row of the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Entry {
    /// The call.
    pub(crate) id: CallId,
    /// What was called; empty for a timer.
    pub(crate) path: String,
    /// What the clock showed from then on.
    pub(crate) now: Timestamp,
    /// How long the run had worked, in milliseconds.
    pub(crate) active_ms: u64,
    /// The answer.
    pub(crate) answer: Settled,
}

/// An answer, as it is written down.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Settled {
    /// A value.
    Value(Coded),
    /// An error, which is thrown.
    Error(Coded),
    /// The time had passed.
    Timer,
    /// None yet: the call is a durable tool, whose program began with this.
    Began(Coded),
}

/// A value in the engine's own form, as text.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Coded(pub(crate) Value);

impl Serialize for Coded {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use base64::Engine as _;
        let text = base64::engine::general_purpose::STANDARD.encode(self.0.encode());
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for Coded {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use base64::Engine as _;
        let text = String::deserialize(deserializer)?;
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(text)
            .map_err(D::Error::custom)?;
        Value::decode(&bytes).map(Self).map_err(D::Error::custom)
    }
}

impl From<&Answer> for Settled {
    fn from(answer: &Answer) -> Self {
        match answer {
            Answer::Value(value) => Self::Value(Coded(value.clone())),
            Answer::Error(error) => Self::Error(Coded(Value::Error(Box::new(error.clone())))),
            Answer::Timer => Self::Timer,
        }
    }
}

/// What an entry is to the program.
pub(crate) enum Told {
    /// The answer to a call.
    Answer(Answer),
    /// The program of a durable tool began.
    Began(Value),
}

impl From<Settled> for Told {
    fn from(settled: Settled) -> Self {
        Self::Answer(match settled {
            Settled::Value(Coded(value)) => Answer::Value(value),
            Settled::Error(Coded(Value::Error(error))) => Answer::Error(*error),
            Settled::Error(Coded(other)) => {
                Answer::Error(Thrown::new("Error", other.to_json().to_string()))
            }
            Settled::Timer => Answer::Timer,
            Settled::Began(Coded(input)) => return Self::Began(input),
        })
    }
}

/// What goes with the memory of a program that waits.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Saved {
    /// The first entry of the journal that the memory has not seen.
    pub(crate) next: u32,
    /// How long the run had worked, in milliseconds.
    pub(crate) active_ms: u64,
    /// The last time that it was shown.
    pub(crate) now: Timestamp,
    /// The calls that it waits for.
    pub(crate) waiting: Vec<Waiting>,
    /// What it has printed.
    pub(crate) log: Vec<(u8, String)>,
    /// The programs of durable tools that it has called.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) parts: Vec<SavedPart>,
    /// The program.
    #[serde(skip)]
    pub(crate) bytes: Bytes,
}

/// The program of a durable tool, saved with the one that called it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SavedPart {
    /// The call that it answers.
    pub(crate) call: u32,
    /// How long the run had worked when it began, in milliseconds.
    pub(crate) began_ms: u64,
    /// How many bytes it has.
    pub(crate) size: usize,
    /// The program.
    #[serde(skip)]
    pub(crate) bytes: Bytes,
}

/// A call that a saved program waits for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Waiting {
    pub(crate) id: CallId,
    /// When a timer is due; nothing for a call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) due: Option<Timestamp>,
    #[serde(default)]
    pub(crate) namespace: String,
    #[serde(default)]
    pub(crate) method: String,
    #[serde(default)]
    pub(crate) arguments: Vec<Coded>,
    /// When it was made.
    pub(crate) made: Timestamp,
}

/// The lines of a log as they are written down, and back.
pub(crate) fn lines(log: &[LogLine]) -> Vec<(u8, String)> {
    let line = |line: &LogLine| {
        let level = match line.level {
            LogLevel::Debug => 0,
            LogLevel::Info => 1,
            LogLevel::Warn => 2,
            LogLevel::Error => 3,
        };
        (level, line.text.clone())
    };
    log.iter().map(line).collect()
}

pub(crate) fn log(lines: Vec<(u8, String)>) -> Vec<LogLine> {
    let line = |(level, text)| {
        let level = match level {
            0 => LogLevel::Debug,
            1 => LogLevel::Info,
            2 => LogLevel::Warn,
            _ => LogLevel::Error,
        };
        LogLine { level, text }
    };
    lines.into_iter().map(line).collect()
}

/// An open run, as it is in the store.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) head: Head,
    /// The snippets as they were when it began.
    pub(crate) snippets: Vec<Snippet>,
    pub(crate) saved: Option<Saved>,
    /// What the program got since it was saved, in order.
    pub(crate) entries: Vec<Entry>,
}

fn journal_key(number: u32) -> Vec<u8> {
    let mut key = JOURNAL.to_vec();
    key.extend(number.to_be_bytes());
    key
}

/// Reads the open run of an actor.
pub(crate) async fn open(store: &dyn Store, actor: &ActorId) -> Result<Option<Open>, StoreError> {
    let Some(row) = store.row(actor, CODE, RUN).await? else {
        return Ok(None);
    };
    let head: Head = decode(&row)?;
    let snippets = match store.row(actor, CODE, SNIPPETS).await? {
        None => Vec::new(),
        Some(row) => decode(&content(store, &row).await?)?,
    };
    let saved = match store.row(actor, CODE, MEMORY).await? {
        None => None,
        Some(row) => {
            let bytes = content(store, &row).await?;
            let (text, mut memory) = split(&bytes)?;
            let mut saved: Saved = decode(&text)?;
            for part in saved.parts.iter_mut().rev() {
                let at = memory.len().checked_sub(part.size);
                let at = at.ok_or_else(|| cut("the memory of code"))?;
                part.bytes = memory.split_off(at);
            }
            Some(Saved {
                bytes: memory,
                ..saved
            })
        }
    };
    let mut entries = Vec::new();
    let mut after: Option<Vec<u8>> = None;
    loop {
        let rows = store
            .scan(actor, CODE, JOURNAL, after.as_deref(), PAGE)
            .await?;
        for row in &rows {
            entries.push(decode(&content(store, &row.value).await?)?);
        }
        match rows.last() {
            Some(last) if rows.len() == PAGE => after = Some(last.key.clone()),
            _ => break,
        }
    }
    Ok(Some(Open {
        head,
        snippets,
        saved,
        entries,
    }))
}

/// The key of an actor's saved programs, where it has one.
pub(crate) async fn key(
    store: &dyn Store,
    actor: &ActorId,
) -> Result<Option<[u8; 32]>, StoreError> {
    let Some(row) = store.row(actor, CODE, KEY).await? else {
        return Ok(None);
    };
    let key = row.as_ref().try_into();
    key.map(Some)
        .map_err(|_| StoreError::Corrupt("the key of saved code has no 32 bytes".to_owned()))
}

pub(crate) fn put_key(step: &mut Step, key: &[u8; 32]) {
    step.rows.push(RowChange::Put {
        space: CODE,
        key: KEY.to_vec(),
        value: Bytes::copy_from_slice(key),
        blobs: Vec::new(),
    });
}

pub(crate) fn put_head(step: &mut Step, head: &Head, snippets: &[Snippet]) {
    step.put(CODE, RUN, head);
    if !snippets.is_empty() {
        let bytes = serde_json::to_vec(snippets).unwrap_or_default();
        put(step, SNIPPETS.to_vec(), bytes.into());
    }
}

pub(crate) fn put_entry(step: &mut Step, number: u32, entry: &Entry) {
    let bytes = serde_json::to_vec(entry).unwrap_or_default();
    put(step, journal_key(number), bytes.into());
}

/// Writes the memory; the journal before it goes.
pub(crate) fn put_saved(step: &mut Step, saved: &Saved) {
    let text = serde_json::to_vec(saved).unwrap_or_default();
    let mut bytes = u32::try_from(text.len())
        .unwrap_or(0)
        .to_be_bytes()
        .to_vec();
    bytes.extend_from_slice(&text);
    bytes.extend_from_slice(&saved.bytes);
    for part in &saved.parts {
        bytes.extend_from_slice(&part.bytes);
    }
    step.rows.push(RowChange::DeletePrefix {
        space: CODE,
        prefix: JOURNAL.to_vec(),
    });
    put(step, MEMORY.to_vec(), bytes.into());
}

/// Forgets the open run; the key stays.
pub(crate) fn forget(step: &mut Step) {
    step.delete(CODE, RUN);
    step.delete(CODE, SNIPPETS);
    step.delete(CODE, MEMORY);
    step.rows.push(RowChange::DeletePrefix {
        space: CODE,
        prefix: JOURNAL.to_vec(),
    });
}

/// What a call was given and gave, for whoever undoes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Reversible {
    pub(crate) namespace: String,
    pub(crate) method: String,
    pub(crate) arguments: Vec<Coded>,
    pub(crate) result: Coded,
}

fn undo_key(effect_id: &str) -> Vec<u8> {
    [UNDO, effect_id.as_bytes()].concat()
}

pub(crate) fn put_reversible(step: &mut Step, effect_id: &str, call: &Reversible) {
    let bytes = serde_json::to_vec(call).unwrap_or_default();
    put(step, undo_key(effect_id), bytes.into());
}

/// What the call with this effect was given and gave.
pub(crate) async fn reversible(
    store: &dyn Store,
    actor: &ActorId,
    effect_id: &str,
) -> Result<Option<Reversible>, StoreError> {
    let row = store.row(actor, CODE, &undo_key(effect_id)).await?;
    match row {
        Some(row) => Ok(Some(decode(&content(store, &row).await?)?)),
        None => Ok(None),
    }
}

/// Forgets how the call with this effect could be undone.
pub(crate) fn forget_reversible(step: &mut Step, effect_id: &str) {
    step.delete(CODE, undo_key(effect_id));
}

/// The run that a submission rolls back which named none.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rolling {
    submission_id: String,
    run_id: String,
}

pub(crate) fn put_rolling(step: &mut Step, submission_id: &str, run_id: &str) {
    let rolling = Rolling {
        submission_id: submission_id.to_owned(),
        run_id: run_id.to_owned(),
    };
    step.put(CODE, ROLLING, &rolling);
}

pub(crate) fn forget_rolling(step: &mut Step) {
    step.delete(CODE, ROLLING);
}

/// The run that this submission had begun to roll back.
pub(crate) async fn rolling(
    store: &dyn Store,
    actor: &ActorId,
    submission_id: &str,
) -> Result<Option<String>, StoreError> {
    let Some(row) = store.row(actor, CODE, ROLLING).await? else {
        return Ok(None);
    };
    let rolling: Rolling = decode(&row)?;
    let ours = rolling.submission_id == submission_id;
    Ok(ours.then_some(rolling.run_id))
}

/// A row with its content, or with the name of the blob that has it.
fn put(step: &mut Step, key: Vec<u8>, bytes: Bytes) {
    let (value, blobs) = if bytes.len() <= INLINE {
        let mut value = vec![0];
        value.extend_from_slice(&bytes);
        (value, Vec::new())
    } else {
        let blob = Blob::new(bytes);
        let id = blob.id;
        step.blobs.push(blob);
        let mut value = vec![1];
        value.extend_from_slice(id.as_bytes());
        (value, vec![id])
    };
    step.rows.push(RowChange::Put {
        space: CODE,
        key,
        value: value.into(),
        blobs,
    });
}

async fn content(store: &dyn Store, row: &Bytes) -> Result<Bytes, StoreError> {
    let corrupt = |what: &str| StoreError::Corrupt(format!("a row of code {what}"));
    match row.first() {
        Some(0) => Ok(row.slice(1..)),
        Some(1) => {
            let id: [u8; 32] = row[1..].try_into().map_err(|_| corrupt("names no blob"))?;
            let id = BlobId::from_bytes(id);
            let found = store.blob(id).await?;
            found.ok_or_else(|| corrupt(&format!("names the blob {id}, which is not there")))
        }
        Some(_) | None => Err(corrupt("has no known form")),
    }
}

fn cut(what: &str) -> StoreError {
    StoreError::Corrupt(format!("{what} is cut"))
}

fn split(bytes: &Bytes) -> Result<(Bytes, Bytes), StoreError> {
    let corrupt = || cut("the memory of code");
    let head: [u8; 4] = bytes
        .get(..4)
        .and_then(|head| head.try_into().ok())
        .ok_or_else(corrupt)?;
    let end = usize::try_from(u32::from_be_bytes(head))
        .unwrap_or(usize::MAX)
        .saturating_add(4);
    if end > bytes.len() {
        return Err(corrupt());
    }
    Ok((bytes.slice(4..end), bytes.slice(end..)))
}

fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, StoreError> {
    serde_json::from_slice(bytes)
        .map_err(|error| StoreError::Corrupt(format!("a row of code does not decode: {error}")))
}

/// 32 random bytes, in hexadecimal digits.
pub(crate) fn new_seed(sources: &Sources) -> String {
    use std::fmt::Write as _;
    (0..4).fold(String::with_capacity(64), |mut text, _| {
        let _ = write!(text, "{:016x}", sources.random());
        text
    })
}

/// The seed as bytes.
pub(crate) fn seed(text: &str) -> Result<[u8; 32], IsolateError> {
    let bad = IsolateError::SavedInvalid("its seed is damaged");
    let bytes = BlobId::parse(text).ok_or(bad)?;
    Ok(*bytes.as_bytes())
}

/// Why a boundary was drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Why {
    /// An effect outside is about to be dispatched.
    Dispatch,
    /// The result of an effect outside is about to be delivered.
    Deliver,
    /// It waits for a person.
    Park,
    /// It has worked for a while.
    Save,
    /// It has ended.
    End,
}

/// Body of `code_boundary`: what a run did since the boundary before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Boundary {
    /// `run_…`.
    pub run_id: String,
    /// The call that asked for the run.
    pub tool_call_id: String,
    /// Why.
    pub boundary: Why,
    /// The calls that were answered since then, in that order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<Called>,
    /// The blob with the list of the calls as JSON, where it is too long for a record; `calls` has the
    /// first of them then, without arguments and results.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls_blob: Option<String>,
    /// How many calls that list has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls_count: Option<u64>,
    /// Bytes of memory that were saved with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saved: Option<u64>,
    /// How it ended: `completed`, `error` or `rolled_back`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// The CPU time that the code took, in microseconds, at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_us: Option<u64>,
}

impl Boundary {
    /// How far the run is when this is the last that is known of it.
    pub fn state(&self) -> RunState {
        match (self.boundary, self.status.as_deref()) {
            (Why::Dispatch | Why::Deliver | Why::Save, _) => RunState::Running,
            (Why::Park, _) => RunState::Paused,
            (Why::End, Some("completed")) => RunState::Completed,
            (Why::End, Some("rolled_back")) => RunState::RolledBack,
            (Why::End, Some(_) | None) => RunState::Error,
        }
    }

    /// How many calls there were besides those of `calls`.
    pub fn more(&self) -> u64 {
        let listed = self.calls.len() as u64;
        self.calls_count.unwrap_or(listed).saturating_sub(listed)
    }

    /// Whether the run ended with it.
    pub fn ends(&self) -> bool {
        self.boundary == Why::End
    }
}

/// A call of a binding.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Called {
    /// Its number in the run, or in the durable tool that made it.
    pub id: u32,
    /// The number of the call of the durable tool that made it; nothing where the code itself did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<u32>,
    /// `binding.method`.
    pub path: String,
    /// Its arguments, shortened to 4 KiB.
    pub arguments: Json,
    /// What it gave, shortened to 4 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Json>,
    /// What it threw.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// When it was made.
    pub time: Timestamp,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// What a person said: `approved`, `edited`, `rejected`, `expired`, `withdrawn` or `answered`; nothing
    /// where nobody was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<String>,
    /// The effect outside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect_id: Option<String>,
}

impl Called {
    /// Its number as people and JSON see it: `3`, or `2.3` where the durable tool of call 2 made it.
    pub fn number(&self) -> String {
        CallId::of(self.within.unwrap_or(0), self.id).to_string()
    }
}
