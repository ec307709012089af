//! What an agent is and how it decides.
//!
//! A tour:
//!
//! - [`definition`]: an agent as a directory describes it; [`render`]: as a Rust function does.
//! - [`skill`]: instructions that a model reads when it needs them.
//! - [`input`]: what is sent to an agent.
//! - [`program`]: [`Agents`], the program that the runtime runs for actors of the kind `agent`.
//! - `instance`: one live instance; `turn`: its loop, a state machine over records.
//! - [`record`]: the facts of a conversation; [`conversation`]: their fold.
//! - [`context`]: what the model sees; [`view`]: what a person sees; [`live`]: as it happens;
//!   [`feed`]: from any point on, as it becomes durable.
//! - [`spend`]: what model calls have cost.
//! - [`tool`]: what a model may do; [`approval`]: what waits for a person first;
//!   [`attachment`]: the files of a conversation.
//! - [`edit`]: changes of an instance's files from outside.
//! - [`binding`]: what code in an isolate may call; [`code`]: code mode, which runs it.
//! - [`census`]: what is counted for whoever watches.

pub mod approval;
pub mod attachment;
pub mod binding;
pub mod census;
pub mod code;
pub mod context;
pub mod conversation;
pub mod definition;
pub mod edit;
pub mod feed;
pub mod input;
mod instance;
pub mod live;
pub mod program;
pub mod record;
pub mod render;
pub mod skill;
pub mod spend;
pub mod tool;
mod turn;
pub mod view;

pub use conversation::Conversation;
pub use definition::Definition;
pub use input::{Input, Outgoing};
pub use live::{Chunk, ChunkBody, Observers};
pub use program::{Agents, KIND, actor, declarations, load, load_after};
pub use render::{Agent, Render};
pub use tool::{Effect, OnCrash, Tool, ToolError, ToolOutput};
