//! Effects that a person decides about, and effects that are undone.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bowline_runtime::{
    Attempt, Closing, Failure, Finish, Halt, Instance, Outcome, Program, Progress, Runtime,
    RuntimeOptions, Step, Submission,
    effect::{
        self, Cut, Intended, OnCrash, Question, Status, Verdict,
        undo::{Undo, Undoer, Undos},
    },
};
use bowline_store::{ActorId, MemoryStore, Store, StoreError, StoredRecord};
use bowline_testkit::{
    faults::{Death, DyingStore},
    sim::clock,
};
use serde_json::{Value, json};

use crate::{HOUR, MINUTE, rest};

const INPUT: u16 = 60_001;

/// Does three outside effects, one after the other, then perhaps undoes them.
#[derive(Debug, Clone)]
struct Outside {
    /// What reached the outside: the effect ids, and those of the undos.
    world: Arc<Mutex<Vec<String>>>,
    undoes: bool,
}

#[async_trait]
impl Undoer for Outside {
    async fn undo(&self, undo: &Undo, undo_id: &str) -> Result<(), Failure> {
        self.world.lock().unwrap().push(undo_id.to_owned());
        if undo.input == json!(2) {
            return Err(Failure::new("planned", "it cannot be undone", ""));
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Opened {
    outside: Outside,
    store: Arc<dyn Store>,
    actor: ActorId,
    begun: bool,
    questions: Vec<Question>,
}

#[async_trait]
impl Program for Outside {
    async fn open(
        &self,
        actor: &ActorId,
        store: &Arc<dyn Store>,
    ) -> Result<Box<dyn Instance>, Failure> {
        Ok(Box::new(Opened {
            outside: self.clone(),
            store: store.clone(),
            actor: actor.clone(),
            begun: !store.read(actor, 0, 1).await.unwrap().is_empty(),
            questions: effect::questions(&**store, actor).await.unwrap(),
        }))
    }
}

#[async_trait]
impl Instance for Opened {
    fn accept(&mut self, submission: &Submission) -> Step {
        let mut step = Step::new();
        step.record(INPUT, submission.accepted_at, &0).submission = Some(submission.id.clone());
        step
    }

    fn apply(&mut self, records: &[StoredRecord]) -> Result<(), StoreError> {
        self.begun |= !records.is_empty();
        Ok(())
    }

    fn progress(&self, _: &Submission) -> Progress {
        if self.begun {
            Progress::Interrupted
        } else {
            Progress::Absent
        }
    }

    async fn repair(&mut self, _: &Submission) -> Result<Step, StoreError> {
        Ok(Step::new())
    }

    async fn run(&mut self, attempt: &mut Attempt) -> Finish {
        self.work(attempt).await.unwrap_or_else(Finish::Halted)
    }

    fn answer(&mut self, _: &Submission, answer: &Value) -> Result<Step, Failure> {
        let verdict: Verdict = serde_json::from_value(answer.clone()).unwrap();
        self.decided(verdict)
    }

    fn expire(&mut self, _: &Submission) -> Step {
        self.decided(Verdict::Unknown).unwrap()
    }

    fn close(&mut self, _: &Submission, _: &Closing) -> Step {
        Step::new()
    }
}

impl Opened {
    fn decided(&mut self, verdict: Verdict) -> Result<Step, Failure> {
        let mut step = Step::new();
        let now = self.questions[0].asked_at;
        effect::decide(&mut step, &self.questions[0], verdict, now)?;
        Ok(step)
    }

    async fn work(&mut self, attempt: &Attempt) -> Result<Finish, Halt> {
        let (store, actor) = (self.store.clone(), self.actor.clone());
        self.questions = effect::questions(&*store, &actor).await.unwrap();
        let mut undos = Undos::load(&*store, &actor).await.unwrap();
        for number in 1..=3 {
            let id = format!("eff_{number}");
            let done = store.row(&actor, "done", id.as_bytes()).await.unwrap();
            if done.is_some() {
                continue;
            }
            let open = effect::open(&*store, &actor).await.unwrap();
            let open = open.into_iter().find(|open| open.effect_id == id);
            let question = self.questions.iter().find(|one| one.effect.effect_id == id);
            let status = match (&open, question.and_then(|one| one.verdict)) {
                (Some(intended), _) => match Cut::of(intended, question) {
                    Cut::Again => self.act(&id),
                    Cut::Unknown => Status::Unknown,
                    Cut::Wait => {
                        let mut step = Step::new();
                        let submission = &attempt.submission().id;
                        let question =
                            effect::ask(&mut step, intended, submission, attempt.now(), HOUR);
                        let until = question.expires_at;
                        self.questions = vec![question];
                        return Ok(Finish::Parked { step, until });
                    }
                },
                // The person settled it.
                (None, Some(_)) => Status::Done,
                (None, None) => {
                    let mut step = Step::new();
                    let intended = Intended {
                        effect_id: id.clone(),
                        cause: "test".into(),
                        name: "outside".into(),
                        on_crash: OnCrash::Ask,
                        time: attempt.now(),
                    };
                    effect::intend(&mut step, &intended);
                    attempt.commit(step).await?;
                    self.act(&id)
                }
            };
            let mut step = Step::new();
            if question.is_none_or(|one| one.verdict == Some(Verdict::Again)) {
                effect::settle(&mut step, &id, status, attempt.now());
            }
            effect::forget(&mut step, &id);
            step.put("done", id.as_bytes(), &status);
            let undo = Undo {
                effect_id: id.clone(),
                name: "outside".into(),
                input: json!(number),
                begun: false,
            };
            undos.add(&mut step, undo).unwrap();
            step.record(INPUT, attempt.now(), &number);
            attempt.commit(step).await?;
        }
        if self.outside.undoes {
            undos.run(attempt, &self.outside).await?;
        }
        Ok(Finish::Completed(Step::new()))
    }

    fn act(&self, id: &str) -> Status {
        self.outside.world.lock().unwrap().push(id.to_owned());
        Status::Done
    }
}

fn start(store: Arc<dyn Store>, outside: &Outside) -> Runtime {
    let program: Arc<dyn Program> = Arc::new(outside.clone());
    let programs = [("outside".to_owned(), program)];
    let options = RuntimeOptions::default();
    Runtime::new(store, clock::sources(1), options, programs)
}

fn outside(undoes: bool) -> Outside {
    Outside {
        world: Arc::default(),
        undoes,
    }
}

fn new() -> bowline_runtime::NewSubmission {
    bowline_runtime::NewSubmission {
        payload: Value::Null,
        key: Some("k".into()),
        blobs: Vec::new(),
        trace: None,
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_crash_a_person_says_what_became_of_an_effect_and_it_is_never_done_unasked() {
    let id = ActorId::new("outside", "test", "a");
    // The process dies before the settlement of the second effect: done, and nobody knows.
    for verdict in [Some(Verdict::Done), Some(Verdict::Again), None] {
        let (store, outside) = (Arc::new(MemoryStore::new()), outside(false));
        let first = start(DyingStore::new(store.clone(), Death::Before(5)), &outside);
        let receipt = first.submit(&id, new()).await.unwrap();
        rest().await;
        assert_eq!(*outside.world.lock().unwrap(), ["eff_1", "eff_2"]);

        let next = start(store.clone(), &outside);
        next.resume().await.unwrap();
        tokio::time::sleep(MINUTE).await;
        let questions = effect::questions(&*store, &id).await.unwrap();
        assert_eq!(questions.len(), 1);
        assert_eq!(questions[0].effect.effect_id, "eff_2");
        assert_eq!(outside.world.lock().unwrap().len(), 2, "nothing unasked");
        // Another process; the person takes his time.
        drop(next);
        let later = start(store.clone(), &outside);
        match verdict {
            Some(verdict) => {
                let answer = serde_json::to_value(verdict).unwrap();
                later.answer(&id, answer).await.unwrap();
            }
            None => {
                tokio::time::sleep(HOUR * 2).await;
                later.resume().await.unwrap();
            }
        }
        let settled = later.settled(&id, &receipt.submission_id).await.unwrap();
        assert_eq!(settled.outcome, Outcome::Completed);
        let mut expected = vec!["eff_1", "eff_2", "eff_3"];
        if verdict == Some(Verdict::Again) {
            expected.insert(2, "eff_2");
        }
        assert_eq!(*outside.world.lock().unwrap(), expected, "{verdict:?}");
        assert_eq!(effect::open(&*store, &id).await.unwrap(), []);
        assert_eq!(effect::questions(&*store, &id).await.unwrap(), []);
    }
}

#[tokio::test(start_paused = true)]
async fn effects_are_undone_in_reverse_order_once_each_whichever_commit_the_process_dies_at() {
    let id = ActorId::new("outside", "test", "a");
    let expected = ["eff_3-undo", "eff_2-undo", "eff_1-undo"];
    // 1 is the admission, 2 to 7 the effects, 8 to 13 the undos, 14 the end.
    for number in 8..=14 {
        for death in [Death::Before(number), Death::After(number)] {
            let (store, outside) = (Arc::new(MemoryStore::new()), outside(true));
            let first = start(DyingStore::new(store.clone(), death), &outside);
            first.submit(&id, new()).await.unwrap();
            rest().await;
            let next = start(store.clone(), &outside);
            next.resume().await.unwrap();
            let receipt = next.submit(&id, new()).await.unwrap();
            next.settled(&id, &receipt.submission_id).await.unwrap();
            let mut undone = outside.world.lock().unwrap().split_off(3);
            // One whose end was cut is tried again, with the same id.
            undone.dedup();
            assert_eq!(undone, expected, "{death:?}");
            assert!(Undos::load(&*store, &id).await.unwrap().is_empty());
            let records = store.read(&id, 0, usize::MAX).await.unwrap();
            let ends = records
                .iter()
                .filter(|one| one.record.kind == bowline_runtime::kind::EFFECT_UNDONE);
            assert_eq!(ends.count(), 3, "{death:?}");
        }
    }
}
