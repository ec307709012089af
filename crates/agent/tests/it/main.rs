//! Integration tests of the crate, one binary.

mod definition;
mod skill;
mod validate;
