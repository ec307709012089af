//! Numbers of the record kinds that this layer writes. A number is never given out twice, and its
//! meaning never changes; a new format of a body raises the record's version.
//!
//! 1–99 belong to the runtime, 100–199 to the conversations of agents.

/// The actor's rows changed with nothing else to tell: an owner opened it, queued a submission, noted
/// an abort, or released an attempt. The sequence moves with every change that an owner must not
/// miss, so that one which read the rows before it cannot take the actor over. Body: `{"change"}`.
pub const ACTOR_OPENED: u16 = 1;
/// An attempt at a submission began. Body: [`crate::submission::AttemptStarted`].
pub const ATTEMPT_STARTED: u16 = 2;
/// A submission reached its one terminal outcome. Body: [`crate::submission::Settled`].
pub const SUBMISSION_SETTLED: u16 = 3;
/// An effect outside is about to be done. Body: [`crate::effect::Intended`].
pub const EFFECT_INTENDED: u16 = 10;
/// What became of an effect. Body: [`crate::effect::Settlement`].
pub const EFFECT_SETTLED: u16 = 11;
/// A person is asked what became of an effect. Body: [`crate::effect::Question`].
pub const EFFECT_ASKED: u16 = 12;
/// A person said what became of an effect. Body: [`crate::effect::Decided`].
pub const EFFECT_DECIDED: u16 = 13;
/// An effect was undone, or could not be. Body: [`crate::effect::undo::Undone`].
pub const EFFECT_UNDONE: u16 = 14;
/// A fiber was accepted. Body: [`crate::fiber::Accepted`].
pub const FIBER_ACCEPTED: u16 = 20;
/// A fiber replaced its stash. Body: `{"bytes"}`.
pub const FIBER_STASHED: u16 = 21;
/// A fiber cannot go on by itself. Body: `{"reason", "until"}`.
pub const FIBER_INTERRUPTED: u16 = 22;
/// Somebody decided what becomes of an interrupted fiber. Body: [`crate::fiber::Resolution`].
pub const FIBER_RESOLVED: u16 = 23;
/// A message of another actor was taken. Body: [`crate::message::Taken`].
pub const MESSAGE_TAKEN: u16 = 30;
/// The state of the actor was replaced. Body: [`crate::state::Change`].
pub const STATE_CHANGED: u16 = 40;

/// True for a kind that this layer writes; other layers have nothing to read in it, except in those
/// of attempts and settlements.
pub fn is_runtime(kind: u16) -> bool {
    matches!(
        kind,
        ACTOR_OPENED
            | ATTEMPT_STARTED
            | SUBMISSION_SETTLED
            | EFFECT_INTENDED
            | EFFECT_SETTLED
            | EFFECT_ASKED
            | EFFECT_DECIDED
            | EFFECT_UNDONE
            | FIBER_ACCEPTED
            | FIBER_STASHED
            | FIBER_INTERRUPTED
            | FIBER_RESOLVED
            | MESSAGE_TAKEN
            | STATE_CHANGED
    )
}

/// A stream began. Body: [`crate::stream::Meta`].
pub const STREAM_CREATED: u16 = 60;
/// Bytes were appended to a stream, by one or more producers. The body is not JSON: see
/// `stream::entry`.
pub const STREAM_APPENDED: u16 = 61;
/// A stream was deleted, and is kept for its forks. Body: `{}`.
pub const STREAM_DELETED: u16 = 62;
/// Rows of a stream, or of what looks after streams, changed with nothing else to tell. Body: `{}`.
pub const STREAM_CHANGED: u16 = 63;
