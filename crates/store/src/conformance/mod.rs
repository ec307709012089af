//! The suite that each engine must pass.
