//! JavaScript and TypeScript in throw-away isolates.
//!
//! An isolate is QuickJS-NG, compiled to WebAssembly and run by wasmtime: a bug of the engine corrupts
//! only that isolate's own memory, and any code can be stopped at any instruction. It starts as a
//! copy-on-write mapping of an image in which the engine has booted already. Code reaches nothing but
//! the [`Bindings`] it is given: no network, no files, no process, and a clock that the host sets.
//!
//! ```no_run
//! # use bowline_sandbox::isolate::*;
//! # use bowline_store::Timestamp;
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let isolates = Isolates::open(&IsolatesOptions::default())?;        // once for a process
//! let program = Program::new("main.ts", "async () => (await state.readFile('/a')).length")?;
//! let bindings = Bindings::none().with("state", ["readFile", "writeFile"])?;
//! let slot = isolates.admit("agent-name").await?;                     // waits; owners take turns
//! let start = Start::new([7; 32], Timestamp::from_millis(0));
//! let mut run = isolates.start(slot, &program, &bindings, &start)?;   // runs until it waits or ends
//! while *run.status() == Status::Waiting {
//!     for call in run.take_calls() {
//!         // … record it, do it, record the result; then:
//!         run.answer(call.id, &Answer::Value(Value::from("text")), Timestamp::from_millis(5))?;
//!     }
//! }
//! # Ok(()) }
//! ```
//!
//! **Continuations.** While a program waits, its WebAssembly stack is empty, so its memory is all of it:
//! [`Isolate::save`] writes what differs from the image, [`Isolates::restore`] goes on at the very
//! `await`, in this or another process. A program is also deterministic: the same code, seed and input
//! with the same answers in the same order at the same times make the same calls with the same ids, so
//! it can be run again from a journal instead.
//!
//! **Trust.** Everything that comes out of an isolate is hostile: arguments, errors, logs. Only that a
//! call names something in its [`Bindings`] has been checked, outside the guest.
//!
//! - [`Program`]: shapes what models write, strips types, tells positions as the author wrote them.
//! - [`Isolates`], [`Slot`], [`Isolate`]: the engine, room in it, one run.
//! - [`Limits`], [`Usage`], [`IsolateError`]: what a run may use, has used, and why it was stopped.
//! - [`Typed`], [`Script`]: what a person types at a prompt.
//! - [`Value`], [`Thrown`]: what crosses, by structured clone.

mod admission;
mod bindings;
mod engine;
mod error;
mod guest;
mod limits;
mod module_cache;
mod program;
mod run;
mod saved;
mod shape;
mod strip;
mod typed;
mod value;
mod wire;

pub use admission::Slot;
pub use bindings::{BindingError, Bindings, is_reserved_word};
pub use engine::{Isolates, IsolatesOptions};
pub use error::IsolateError;
#[doc(hidden)]
pub use guest::fuzz_messages;
pub use guest::{Call, LogLevel, LogLine, Target};
pub use limits::{Limits, Usage};
pub use program::Program;
pub use run::{Answer, Isolate, Start, Status, Stopper};
pub(crate) use shape::position;
pub(crate) use strip::Problem;
pub use typed::{Script, Typed};
pub use value::{Thrown, Value, ViewKind};
