//! Incremental parser of server-sent events.
