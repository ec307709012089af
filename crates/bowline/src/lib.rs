//! Runs AI agents in production so that nothing accepted is ever lost.
//!
//! A tour:
//!
//! - [`service`]: [`Bowline`], which opens a data directory, and [`Service`], which runs agents on it.
//! - [`project`]: a directory with `bowline.toml` and `agents/`.
//! - [`server`]: agents over HTTP.
//! - [`config`]: what `bowline.toml` says.
//! - [`error`]: what a user is told.
//! - [`outside`]: sockets for requests that agents may make.
//! - [`retention`]: what is deleted when it is old.
//! - [`standing`]: why an instance is not moving.
//! - `follow`: one submission from its beginning to its end.
//! - [`cli`]: the command line.
//! - [`measure`]: what a turn costs.
//!
//! ```no_run
//! use bowline::{Agent, Bowline, Outgoing, Render};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let greeter = Agent::new("greeter", |cx: &mut Render| {
//!     cx.model("anthropic/claude-sonnet-4-6");
//!     "Greet whoever writes, in one line."
//! })?;
//! let service = Bowline::open("./data")?.agent(greeter).start();
//! let reply = service.ask("greeter", "mia", Outgoing::user("Hello!")).await?;
//! assert!(!reply.text.is_empty());
//! # Ok(())
//! # }
//! ```

mod archive;
pub mod cli;
pub mod config;
pub mod error;
mod follow;
pub mod measure;
pub mod outside;
pub mod project;
pub mod retention;
pub mod server;
pub mod service;
pub mod standing;
pub mod telemetry;

pub use bowline_agent::{
    Agent, Effect, OnCrash, Outgoing, Render, Tool, ToolError, ToolOutput, tool,
};
pub use error::Error;
pub use project::Project;
pub use retention::Retention;
pub use service::{Bowline, Reply, Service};
