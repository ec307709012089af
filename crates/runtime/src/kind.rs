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
/// A fiber was accepted. Body: [`crate::fiber::Accepted`].
pub const FIBER_ACCEPTED: u16 = 20;
/// A fiber replaced its stash. Body: `{"bytes"}`.
pub const FIBER_STASHED: u16 = 21;
