//! The schedules of a live actor: registered, cancelled, and fired by its mailbox task.

use bowline_store::Wake;

use super::Actor;
use crate::{
    alarm::{MAX_ID, MAX_SCHEDULES, NewSchedule, Overlap, SCHEDULES, Schedule, invalid, too_many},
    error::RuntimeError,
    step::Step,
    submission::{MAX_QUEUED, NewSubmission, Outcome, Settled, State, Submission},
};

impl Actor {
    /// Registers a schedule. When this returns, it is durable.
    pub(super) async fn schedule(&mut self, new: NewSchedule) -> Result<Schedule, RuntimeError> {
        let id = match &new.id {
            Some(id) if id.is_empty() || id.len() > MAX_ID => {
                return Err(invalid("the id of a schedule has 1 to 256 bytes").into());
            }
            Some(id) => id.clone(),
            None => self.parts.sources.id("sched_"),
        };
        match self.schedules.get(&id) {
            Some(known) if known.is(&new) => return Ok(known.clone()),
            None if self.schedules.len() >= MAX_SCHEDULES => return Err(too_many().into()),
            Some(_) | None => {}
        }
        let schedule = Schedule::register(id, new, self.parts.sources.now())?;
        let mut step = Step::new();
        step.put(SCHEDULES, schedule.id.as_bytes(), &schedule);
        self.note(&mut step, "schedule registered");
        let before = self.schedules.put(schedule.clone());
        if let Err(error) = self.commit(step, self.open_wake()).await {
            self.schedules.remove(&schedule.id);
            before.map(|before| self.schedules.put(before));
            return Err(error.into());
        }
        Ok(schedule)
    }

    /// Removes a schedule; what it admitted before goes on.
    pub(super) async fn unschedule(&mut self, id: &str) -> Result<bool, RuntimeError> {
        let Some(before) = self.schedules.remove(id) else {
            return Ok(false);
        };
        let mut step = Step::new();
        step.delete(SCHEDULES, id.as_bytes());
        self.note(&mut step, "schedule cancelled");
        if let Err(error) = self.commit(step, self.open_wake()).await {
            self.schedules.put(before);
            return Err(error.into());
        }
        Ok(true)
    }

    /// Admits each tick that is due, as far as there is room, in order of their times.
    pub(super) async fn fire_due(&mut self) -> Result<(), RuntimeError> {
        while self.has_room() {
            let Some(due) = self.schedules.due(self.parts.sources.now()) else {
                return Ok(());
            };
            self.fire(due).await?;
        }
        Ok(())
    }

    /// One tick, or the last one again: the submission, and the schedule moved on, are one commit.
    async fn fire(&mut self, mut due: Schedule) -> Result<(), RuntimeError> {
        let now = self.parts.sources.now();
        let again = due.again.is_some_and(|again| again <= now) && (due.over || due.next > now);
        let still_open = |open: &Submission| due.last.as_ref() == Some(&open.id);
        let left_out = !again && due.overlap == Overlap::Skip && self.queue.iter().any(still_open);
        let mut step = Step::new();
        let mut admitted = None;
        if !left_out {
            let new = NewSubmission {
                payload: due.payload.clone(),
                key: None,
                blobs: Vec::new(),
                trace: None,
            };
            admitted = self.admit(new, &mut step).await?.ok();
            due.tries = if again { due.tries + 1 } else { 1 };
            due.again = None;
            due.last = admitted.as_ref().map(|submission| submission.id.clone());
        }
        if !again {
            match due.after_next(now) {
                Some(next) => due.next = next,
                None => due.over = true,
            }
        }
        let kept = !due.over || (due.retry.is_some() && due.last.is_some());
        if kept {
            step.put(SCHEDULES, due.id.as_bytes(), &due);
            self.schedules.put(due);
        } else {
            step.delete(SCHEDULES, due.id.as_bytes());
            self.schedules.remove(&due.id);
        }
        self.note(
            &mut step,
            if again {
                "schedule retried"
            } else {
                "schedule due"
            },
        );
        // When this fails the actor stops, and what it has in memory goes with it.
        let Some(submission) = admitted else {
            self.commit(step, self.open_wake()).await?;
            return Ok(());
        };
        self.next_number += 1;
        if self.queue.is_empty() && self.running.is_none() {
            // It begins with the same commit, since nothing is before it.
            self.begin(submission, step).await?;
        } else {
            self.commit(step, self.open_wake()).await?;
            self.queue.push_back(submission);
        }
        self.parts.runtime.census().admitted();
        Ok(())
    }

    /// The schedules whose last tick has settled, and what becomes of them: sent again after a
    /// failure, gone when there is nothing more to come.
    pub(super) fn after_settled(
        &self,
        step: &mut Step,
        settled: &[Settled],
    ) -> Vec<(String, Option<Schedule>)> {
        let mut changed = Vec::new();
        for end in settled {
            let Some(schedule) = self.schedules.of(&end.submission_id) else {
                continue;
            };
            if schedule.retry.is_none() {
                continue;
            }
            let schedule = match end.outcome {
                Outcome::Failed => {
                    let fraction = self.parts.sources.fraction();
                    schedule.clone().failed(end.settled_at, fraction)
                }
                Outcome::Completed | Outcome::Aborted => schedule.clone(),
            };
            let id = schedule.id.clone();
            if schedule.at().is_none() {
                step.delete(SCHEDULES, id.as_bytes());
                changed.push((id, None));
            } else if schedule.again.is_some() {
                step.put(SCHEDULES, id.as_bytes(), &schedule);
                changed.push((id, Some(schedule)));
            }
        }
        changed
    }

    /// Takes in what [`Actor::after_settled`] decided.
    pub(super) fn change_schedules(&mut self, changed: Vec<(String, Option<Schedule>)>) {
        for (id, schedule) in changed {
            self.schedules.remove(&id);
            if let Some(schedule) = schedule {
                self.schedules.put(schedule);
            }
        }
    }

    /// True when one more submission can be admitted: there is room, and the actor is not stopping.
    pub(super) fn has_room(&self) -> bool {
        !self.stopping && self.queue.len() < MAX_QUEUED
    }

    /// True when a tick has come and can be admitted.
    pub(super) fn is_tick_due(&self) -> bool {
        self.has_room() && self.schedules.due(self.parts.sources.now()).is_some()
    }

    /// When what is open has to go on: at once, when its time of waiting is over, or never.
    fn open_wake(&self) -> Wake {
        match self.queue.front() {
            None => Wake::Clear,
            Some(Submission {
                state: State::Parked { until, .. },
                abort_requested_at: None,
                ..
            }) => Wake::At(*until),
            Some(_) => Wake::At(self.parts.sources.now()),
        }
    }

    /// The one wake of the actor: what is given, or the earliest tick when that comes before.
    pub(super) fn not_after_schedules(&self, wake: Wake) -> Wake {
        match (wake, self.schedules.next()) {
            (Wake::At(time), Some(tick)) => Wake::At(time.min(tick)),
            (Wake::Clear, Some(tick)) => Wake::At(tick),
            (Wake::Keep | Wake::At(_) | Wake::Clear, _) => wake,
        }
    }

    /// Makes the wake in the store what the rows say, where it is not, before the actor sleeps.
    pub(super) async fn correct_wake(&mut self) -> Result<(), RuntimeError> {
        let wake = self.not_after_schedules(self.open_wake());
        let is_right = match wake {
            Wake::At(time) => self.position.wake == Some(time),
            Wake::Clear | Wake::Keep => self.position.wake.is_none(),
        };
        if !is_right {
            let mut step = Step::new();
            self.note(&mut step, "wake corrected");
            self.commit(step, wake).await?;
        }
        Ok(())
    }
}
