//! Development only: seeded clock, kill harness, fake provider server, golden files.
//!
//! - [`provider`]: a model provider's server that says what a test wants, in the real wire formats.

pub mod provider;
