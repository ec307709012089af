//! A conversation that is longer than its model's window.

use std::sync::{Arc, Mutex};

use bytes::Bytes;

use bowline_agent::tool::elided::History;
use bowline_agent::{
    Outgoing,
    context::{Shape, transcript},
    conversation::EntryBody,
    definition::{Compaction, CompactionSettings},
    record::Trigger,
};
use bowline_model::{ErrorKind, Message, Purpose, Request, UserPart};
use bowline_runtime::Outcome;
use bowline_testkit::{
    faults::Death,
    seeded::{SeededRandom, asked},
};

use crate::window::{Mind, Says, Window, text};

/// Answers everything with a short word, and summaries with another.
fn plain(request: &Request) -> Says {
    Says::Text(match request.position.purpose {
        Purpose::Answer => "Yes.".into(),
        Purpose::Summary => "It was about work.".into(),
    })
}

fn first(request: &Request) -> String {
    match &*request.messages[0] {
        Message::User(user) => match &user.parts[0] {
            UserPart::Text { text } => text.clone(),
            UserPart::File(_) => String::new(),
        },
        Message::Assistant(_) | Message::ToolResult(_) => String::new(),
    }
}

#[tokio::test]
async fn a_conversation_is_compacted_before_its_window_is_full() {
    let window = Window::new(Mind::new(10_000, plain), Some(10_000));
    let process = window.process(Death::Never);
    for _ in 0..12 {
        process.answered(text(4_000)).await;
    }
    let conversation = window.conversation().await;
    assert!(!conversation.compactions.is_empty());
    assert!(
        conversation
            .compactions
            .iter()
            .all(|one| one.record.trigger == Trigger::Threshold)
    );
    let compaction = &conversation.compactions[0].record;
    assert!(
        compaction.tokens_after < compaction.tokens_before / 3 * 2,
        "{compaction:?}"
    );
    // Nothing is lost from the log, and the model sees the summary and the newest messages.
    assert_eq!(conversation.entries.len(), 24);
    let last = window.mind.asked(Purpose::Answer).pop().unwrap();
    assert!(
        first(&last).contains("It was about work."),
        "{}",
        first(&last)
    );
    window.check().await;
    // The whole transcript is a function of the records: a new view is the same.
    let shape = Shape::of(Some(10_000), true);
    let anew = transcript(&conversation, shape, &*window.store)
        .await
        .unwrap();
    assert_eq!(anew[..anew.len() - 1], last.messages[..]);
}

#[tokio::test]
async fn a_call_shares_the_messages_of_the_calls_before_it() {
    let window = Window::new(Mind::new(0, plain), None);
    let process = window.process(Death::Never);
    for _ in 0..6 {
        process.answered("Hi").await;
    }
    let asked = window.mind.asked(Purpose::Answer);
    for pair in asked.windows(2) {
        let shared = pair[0].messages.iter().zip(&pair[1].messages);
        assert!(
            shared
                .into_iter()
                .all(|(one, other)| Arc::ptr_eq(one, other))
        );
        assert!(Arc::ptr_eq(&pair[0].tools, &pair[1].tools));
    }
}

#[tokio::test]
async fn a_summary_carries_the_one_before_it_on_and_follows_instructions() {
    let mut window = Window::new(
        Mind::new(10_000, |request: &Request| match request.position.purpose {
            Purpose::Answer => Says::Text("Yes.".into()),
            Purpose::Summary => Says::Text(format!("Summary {}.", request.position.call)),
        }),
        Some(10_000),
    );
    window.compaction = Compaction::On(CompactionSettings {
        instructions: Some("the numbers".into()),
        keep: Some(500),
        ..CompactionSettings::default()
    });
    let process = window.process(Death::Never);
    for at in 0..24 {
        process.answered(format!("{at} {}", text(4_000))).await;
    }
    let summaries = window.mind.asked(Purpose::Summary);
    assert!(summaries.len() >= 2);
    assert!(
        first(&summaries[1]).contains("<previous-summary>\nSummary 1."),
        "{}",
        first(&summaries[1])
    );
    assert!(
        summaries
            .iter()
            .all(|one| first(one).ends_with("Pay attention to this: the numbers"))
    );
    assert!(summaries.iter().all(|one| one.tools.is_empty()));
}

#[tokio::test]
async fn a_turn_that_is_cut_in_the_middle_keeps_the_words_that_it_began_with() {
    let mut calls = 0;
    let window = Window::new(
        Mind::new(10_000, move |request: &Request| {
            if request.position.purpose == Purpose::Summary {
                return Says::Text("Half done.".into());
            }
            calls += 1;
            if calls <= 12 {
                Says::Calls(vec![3_000])
            } else {
                Says::Text("Done.".into())
            }
        }),
        Some(10_000),
    );
    let process = window.process(Death::Never);
    process.answered("Please count the sheep.").await;
    let conversation = window.conversation().await;
    let compaction = &conversation.compacted().unwrap().record;
    assert_eq!(
        compaction.request.as_deref(),
        Some("Please count the sheep.")
    );
    assert!(
        compaction.summary.contains("Half done.")
            && compaction.summary.contains("Please count the sheep.")
    );
    assert!(first(&window.mind.asked(Purpose::Summary)[0]).contains("<unfinished-turn>"));
    window.check().await;
}

#[tokio::test]
async fn a_full_window_is_dealt_with_once_for_each_message() {
    // Nothing is known of the window, so that the provider has to say it.
    let window = Window::new(Mind::new(3_000, plain), None);
    let process = window.process(Death::Never);
    for _ in 0..8 {
        process.answered(text(3_000)).await;
    }
    let conversation = window.conversation().await;
    let learned = conversation.compactions[0].record.clone();
    assert_eq!(learned.trigger, Trigger::Overflow);
    assert!(
        learned
            .window
            .as_ref()
            .is_some_and(|window| window.tokens < 3_500),
        "{learned:?}"
    );
    window.check().await;

    // A system prompt that is too large cannot be helped, and is not tried for ever.
    let hopeless = Window::new(Mind::new(3_000, plain), None);
    *hopeless.instructions.lock().unwrap() = text(40_000);
    let process = hopeless.process(Death::Never);
    let settled = process.ask("Hi").await;
    assert_eq!(settled.error.unwrap().code, "model_context_overflow");
    assert!(hopeless.mind.asked(Purpose::Answer).len() <= 2);
}

#[tokio::test]
async fn without_compaction_a_full_window_ends_the_submission() {
    let mut window = Window::new(Mind::new(3_000, plain), Some(3_000));
    window.compaction = Compaction::Off;
    let process = window.process(Death::Never);
    process.answered(text(8_000)).await;
    let settled = process.ask(text(8_000)).await;
    assert_eq!(settled.error.unwrap().code, "model_context_overflow");
    assert!(window.conversation().await.compactions.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_summary_that_fails_changes_nothing_while_there_is_room() {
    let failing = |request: &Request| match request.position.purpose {
        Purpose::Answer => Says::Text("Yes.".into()),
        Purpose::Summary => Says::Fails(ErrorKind::Overloaded),
    };
    let window = Window::new(Mind::new(10_000, failing), Some(10_000));
    let process = window.process(Death::Never);
    for _ in 0..7 {
        process.answered(text(4_000)).await;
    }
    assert!(!window.mind.asked(Purpose::Summary).is_empty());
    assert!(window.conversation().await.compactions.is_empty());
    // When there is none any more, the conversation goes on with what can be said without a model.
    for _ in 0..8 {
        process.answered(text(4_000)).await;
    }
    let conversation = window.conversation().await;
    let compaction = &conversation.compacted().unwrap().record;
    assert!(
        compaction.model.is_none() && compaction.summary.contains("What was asked for"),
        "{}",
        compaction.summary
    );
    window.check().await;
}

#[tokio::test]
async fn a_person_can_ask_for_it() {
    let window = Window::new(Mind::new(0, plain), Some(100_000));
    let process = window.process(Death::Never);
    for _ in 0..4 {
        process.answered(text(4_000)).await;
    }
    let settled = process
        .send(Outgoing::compact(Some("the weather".into())))
        .await;
    assert_eq!(settled.outcome, Outcome::Completed);
    let conversation = window.conversation().await;
    assert_eq!(conversation.compactions.len(), 1);
    assert_eq!(conversation.compactions[0].record.trigger, Trigger::Manual);
    assert!(first(&window.mind.asked(Purpose::Summary)[0]).contains("the weather"));
    assert_eq!(conversation.entries.len(), 8, "nobody said anything");
    process.answered("And now?").await;
    window.check().await;
}

#[tokio::test]
async fn a_conversation_of_a_few_words_is_not_summarised() {
    let window = Window::new(Mind::new(0, plain), Some(100_000));
    let process = window.process(Death::Never);
    process.answered("Hello").await;
    let settled = process.send(Outgoing::compact(None)).await;
    assert_eq!(settled.outcome, Outcome::Completed);
    assert!(window.mind.asked(Purpose::Summary).is_empty());
    assert!(window.conversation().await.compactions.is_empty());
}

#[tokio::test]
async fn an_answer_may_be_as_long_as_there_is_room_for_it() {
    let window = Window::new(Mind::new(0, plain), Some(10_000));
    let process = window.process(Death::Never);
    for _ in 0..6 {
        process.answered(text(4_000)).await;
    }
    let asked = window.mind.asked(Purpose::Answer);
    let limits: Vec<u64> = asked.iter().filter_map(|one| one.max_output).collect();
    assert_eq!(limits.len(), 6);
    assert!(limits.is_sorted_by(|one, next| one > next), "{limits:?}");
    for (limit, n) in limits.iter().zip(1..) {
        assert!(*limit + n * 1_000 < 10_000, "{limits:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_summary_that_was_asked_for_and_fails_is_told_and_changes_nothing() {
    let failing = |request: &Request| match request.position.purpose {
        Purpose::Answer => Says::Text("Yes.".into()),
        Purpose::Summary => Says::Fails(ErrorKind::Auth),
    };
    let window = Window::new(Mind::new(0, failing), None);
    let process = window.process(Death::Never);
    process.answered(text(4_000)).await;
    process.answered(text(4_000)).await;
    let settled = process.send(Outgoing::compact(None)).await;
    assert_eq!(settled.error.unwrap().code, "model_auth");
    let conversation = window.conversation().await;
    assert!(conversation.compactions.is_empty() && conversation.entries.len() == 4);
    process.answered("Again").await;
    window.check().await;
}

#[tokio::test]
async fn a_run_that_dies_anywhere_while_it_compacts_ends_as_if_it_had_not() {
    let window = || {
        Window::new(
            Mind::new(10_000, |request: &Request| {
                if request.position.purpose == Purpose::Summary {
                    return Says::Text("Half done.".into());
                }
                // What it does next follows from what it has seen, as with a real model.
                if request.position.call <= 20 {
                    Says::Calls(vec![4_000])
                } else {
                    Says::Text("Done.".into())
                }
            }),
            Some(10_000),
        )
    };
    let whole = window();
    let process = whole.process(Death::Never);
    process.answered("Go").await;
    let commits = process.store.commits();
    let expected = crate::stage::lines(&whole.conversation().await);
    let compactions = whole.conversation().await.compactions.len();
    assert!(compactions >= 2);
    for death in (1..=commits).flat_map(|n| [Death::Before(n), Death::After(n)]) {
        let window = window();
        let first = window.process(death);
        let message = || Outgoing::user("Go").key("k").into_submission();
        if let Ok(receipt) = first
            .runtime
            .submit(&crate::stage::instance(), message())
            .await
        {
            let _ = first
                .runtime
                .settled(&crate::stage::instance(), &receipt.submission_id)
                .await;
        }
        assert!(first.store.is_dead(), "{death:?} never happened");
        let second = window.process(Death::Never);
        let settled = second.send(Outgoing::user("Go").key("k")).await;
        assert_eq!(
            settled.outcome,
            Outcome::Completed,
            "{death:?}: {:?}",
            settled.error
        );
        let conversation = window.conversation().await;
        assert_eq!(crate::stage::lines(&conversation), expected, "{death:?}");
        assert_eq!(conversation.compactions.len(), compactions, "{death:?}");
        window.check().await;
    }
}

#[tokio::test]
async fn what_is_shortened_stays_whole_and_can_be_read() {
    let window = Window::new(
        Mind::new(0, |request: &Request| match request.position.call {
            1 => Says::Calls(vec![100_000, 20_000_000]),
            2 | 3 => {
                let at = request.messages.len() - usize::from(request.position.call == 2);
                let shortened = request.messages[..at]
                    .iter()
                    .rev()
                    .find_map(|message| match &**message {
                        Message::ToolResult(result) if result.name == "give" => Some(result),
                        _ => None,
                    })
                    .unwrap();
                assert!(shortened.text().len() < 70_000);
                assert!(shortened.text().contains("with id"), "{}", shortened.text());
                Says::Reads(shortened.call_id.clone(), 90_000)
            }
            _ => Says::Text("Read.".into()),
        }),
        None,
    );
    let process = window.process(Death::Never);
    process.answered("Give me much").await;
    let conversation = window.conversation().await;
    let EntryBody::ToolResults(results) = &conversation.entries[2].body else {
        panic!()
    };
    // What is too long for a record is a blob, and the log holds its beginning and its end.
    assert!(results[0].whole.is_none() && results[1].whole.is_some());
    assert!(bowline_agent::view::text(&results[1].content).len() < 300_000);
    let history = History::new(window.store.clone(), crate::stage::instance());
    for (result, size) in results.iter().zip([100_000, 20_000_000]) {
        let whole = history.text(&result.tool_call_id).await.unwrap().unwrap();
        assert_eq!(whole, text(size));
    }
    let read: Vec<_> = conversation
        .entries
        .iter()
        .filter_map(|entry| match &entry.body {
            EntryBody::ToolResults(results) if results[0].tool_name == "read_elided" => {
                Some(bowline_agent::view::text(&results[0].content))
            }
            _ => None,
        })
        .collect();
    assert_eq!(read.len(), 2);
    assert!(
        read.iter()
            .all(|piece| piece.starts_with(&text(200_000)[90_000..90_100]))
    );
}

#[tokio::test]
async fn of_the_files_that_stay_after_a_compaction_only_the_newest_are_shown() {
    let window = Window::new(Mind::new(0, plain), Some(100_000));
    let process = window.process(Death::Never);
    for at in 0..8_u8 {
        let image = Bytes::from(vec![at; 100]);
        let message = Outgoing::user("Look").attach(None, "image/png", image);
        assert_eq!(process.send(message).await.outcome, Outcome::Completed);
    }
    let files = |request: &Request| {
        let parts = request.messages.iter().filter_map(|one| match &**one {
            Message::User(user) => Some(&user.parts),
            Message::Assistant(_) | Message::ToolResult(_) => None,
        });
        let files = parts
            .flatten()
            .filter(|part| matches!(part, UserPart::File(_)));
        files.count()
    };
    assert_eq!(files(window.mind.asked(Purpose::Answer).last().unwrap()), 8);
    process.send(Outgoing::compact(None)).await;
    process.answered("And?").await;
    let last = window.mind.asked(Purpose::Answer).pop().unwrap();
    assert!((1..=2).contains(&files(&last)), "{}", files(&last));
    window.check().await;
}

#[tokio::test]
async fn a_change_of_the_tools_is_told_once_and_the_prompt_stays() {
    let window = Window::new(Mind::new(0, plain), None);
    let process = window.process(Death::Never);
    process.answered("Hi").await;
    let system = window.conversation().await.system;
    *window.instructions.lock().unwrap() = "EXTRA work.".into();
    process.answered("Hi").await;
    process.answered("Hi").await;
    let conversation = window.conversation().await;
    assert_eq!(conversation.system, system);
    let told: Vec<_> = conversation
        .entries
        .iter()
        .filter_map(|entry| match &entry.body {
            EntryBody::Signal(signal) => {
                Some((signal.signal_type.as_str(), signal.content.as_str()))
            }
            _ => None,
        })
        .collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(told[0].0, "instructions");
    assert!(told[1].1.contains("New: `extra`."), "{told:?}");
    // A compaction composes the prompt anew.
    process.answered(text(4_000)).await;
    process.send(Outgoing::compact(None)).await;
    assert!(
        window
            .conversation()
            .await
            .system
            .starts_with("EXTRA work.")
    );
}

// What must not happen again, after defects that others shipped.

#[tokio::test]
async fn a_window_of_zero_does_not_compact_each_turn_and_a_413_is_not_the_end() {
    // A provider that answers 413 without a word is `ContextOverflow`: `model::provider::classify`.
    let window = Window::new(Mind::new(20_000, plain), Some(0));
    let process = window.process(Death::Never);
    for _ in 0..10 {
        process.answered(text(4_000)).await;
    }
    assert!(window.conversation().await.compactions.is_empty());
    for _ in 0..14 {
        process.answered(text(4_000)).await;
    }
    let conversation = window.conversation().await;
    assert_eq!(
        conversation.compactions[0].record.trigger,
        Trigger::Overflow
    );
    assert!(
        conversation.compactions.len() < 6,
        "{}",
        conversation.compactions.len()
    );
    window.check().await;
}

#[tokio::test]
async fn a_complete_answer_that_overflowed_silently_is_not_continued_from_the_model() {
    let window = Window::new(
        Mind::new(0, |request: &Request| match request.position.purpose {
            Purpose::Answer => Says::Counted("A complete answer.".into(), 50_000),
            Purpose::Summary => Says::Text("Summary.".into()),
        }),
        Some(10_000),
    );
    let process = window.process(Death::Never);
    process.answered(text(4_000)).await;
    assert_eq!(
        window.mind.asked(Purpose::Answer).len(),
        1,
        "the answer is complete"
    );
    process.answered("Next").await;
    // It is compacted before the next call, which does not end on the model's words.
    assert_eq!(window.conversation().await.compactions.len(), 1);
    window.check().await;
}

#[tokio::test]
async fn a_run_that_ends_without_an_answer_does_not_skip_compaction() {
    let mut window = Window::new(
        Mind::new(10_000, |request: &Request| {
            let ends = request.position.submission_text == "next";
            match request.position.purpose {
                Purpose::Answer if ends => Says::Text("Yes.".into()),
                Purpose::Answer => Says::Calls(vec![9_000, 9_000, 9_000]),
                Purpose::Summary => Says::Text("Summary.".into()),
            }
        }),
        Some(10_000),
    );
    window.turns = 2;
    let process = window.process(Death::Never);
    let settled = process.ask("Go").await;
    assert_eq!(settled.error.unwrap().code, "limit_turns");
    assert!(window.conversation().await.compactions.is_empty());
    process.answered("next").await;
    assert_eq!(window.conversation().await.compactions.len(), 1);
    assert_eq!(
        window.mind.asked(Purpose::Answer).len(),
        3,
        "no call was too large"
    );
    window.check().await;
}

#[tokio::test]
async fn one_giant_tool_result_does_not_leave_a_conversation_without_a_cut() {
    for known in [Some(10_000), None] {
        let window = Window::new(
            Mind::new(10_000, |request: &Request| match request.position.purpose {
                Purpose::Answer if request.position.call == 1 => Says::Calls(vec![2_000_000]),
                Purpose::Answer => Says::Text("Seen.".into()),
                Purpose::Summary => Says::Text("Summary.".into()),
            }),
            known,
        );
        let process = window.process(Death::Never);
        process.answered("Give me everything").await;
        process.answered("Again").await;
        let conversation = window.conversation().await;
        let EntryBody::ToolResults(results) = &conversation.entries[2].body else {
            panic!()
        };
        assert!(results[0].whole.is_some(), "the whole stays");
        window.check().await;
    }
}

/// Histories of the property test; `BOWLINE_HISTORIES` runs more or fewer.
const HISTORIES: u64 = 1_000;

/// The windows, sizes, lies and failures of one history.
struct Fate(Arc<SeededRandom>);

impl Fate {
    fn below(&self, most: u64) -> u64 {
        bowline_runtime::Random::next(&*self.0) % most.max(1)
    }

    fn one_of<T: Copy>(&self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }

    /// Mostly small, sometimes a few times the window.
    fn size(&self, window: u64) -> usize {
        let bytes = window * 4;
        (match self.below(20) {
            0 => bytes + self.below(3 * bytes),
            1..=4 => self.below(bytes / 2),
            _ => self.below(bytes / 12),
        }) as usize
    }
}

#[test]
fn a_conversation_of_ten_times_its_window_never_wedges() {
    let histories = asked("BOWLINE_HISTORIES").unwrap_or(HISTORIES);
    let half = |rest: u64| {
        move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .start_paused(true)
                .build()
                .unwrap();
            for seed in (rest..histories).step_by(2) {
                runtime.block_on(history(seed));
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(half(0));
        scope.spawn(half(1));
    });
}

async fn history(seed: u64) {
    let fate = Arc::new(Fate(SeededRandom::new(seed)));
    let real = fate.one_of(&[3_000, 4_000, 6_000]);
    let known = match fate.below(5) {
        0 => None,
        1 => Some(real * 3),
        2 => Some(real / 2),
        _ => Some(real),
    };
    let failing = fate.one_of(&[0, 0, 30, 100]);
    let calm = Arc::new(Mutex::new(false));
    let said = Arc::new(Mutex::new(0));
    let (mood, dice, more) = (calm.clone(), fate.clone(), said.clone());
    let mut mind = Mind::new(real, move |request: &Request| {
        if request.position.purpose == Purpose::Summary {
            return match dice.below(100) {
                n if n < failing => Says::Fails(match dice.below(4) {
                    0 => ErrorKind::Overloaded,
                    1 => ErrorKind::Auth,
                    2 => ErrorKind::Protocol,
                    _ => ErrorKind::ContextOverflow,
                }),
                99 => Says::Text(text(dice.size(real).min(real as usize * 3))),
                _ => Says::Text("A summary.".into()),
            };
        }
        if *mood.lock().unwrap() || request.position.call > 12 || dice.below(3) == 0 {
            return Says::Text(text(dice.below(400) as usize));
        }
        let calls = 1 + dice.below(3);
        let sizes: Vec<usize> = (0..calls).map(|_| dice.size(real)).collect();
        *more.lock().unwrap() += sizes.iter().sum::<usize>() as u64;
        Says::Calls(sizes)
    });
    mind.bytes = fate.one_of(&[3, 4, 4, 5]);
    mind.counts = fate.below(4) > 0;
    let bytes_per_token = mind.bytes;
    let mut window = Window::new(mind, known);
    window.seed = seed;
    let process = window.process(Death::Never);
    while *said.lock().unwrap() < real * bytes_per_token * 10 {
        let size = fate.size(real);
        let settled = process.ask(text(size)).await;
        *said.lock().unwrap() += size as u64;
        if settled.outcome != Outcome::Completed {
            let error = settled.error;
            panic!("seed {seed}: {error:?}\n{}", window.explained().await);
        }
    }
    *calm.lock().unwrap() = true;
    process.answered("Are you there?").await;
    window.check().await;
}
