//! Durable streams as an API.

use std::{sync::Arc, time::Duration};

use bowline_runtime::{
    Sources,
    stream::{
        Append, From, Lifetime, NewFork, NewStream, Offset, Producer, Reading, StreamError,
        StreamOptions, Streams,
        subscription::{Ack, Config, Refusal, Way},
    },
};
use bowline_store::{CommitError, MemoryStore, SqliteOptions, SqliteStore, Store};
use bowline_testkit::{
    faults::{Death, DyingStore},
    sim::clock,
};
use tokio_util::sync::CancellationToken;

const MOST: u64 = 1024 * 1024;

fn open(store: Arc<dyn Store>, sources: &Sources) -> Streams {
    Streams::new(store, sources.clone(), StreamOptions::default())
}

fn text(data: &str) -> NewStream {
    NewStream {
        content_type: Some("text/plain".into()),
        data: data.to_owned().into(),
        ..NewStream::default()
    }
}

fn produced(seq: u64, data: &str) -> Append {
    Append {
        producer: Some(Producer {
            id: "p".into(),
            epoch: 0,
            seq,
        }),
        ..Append::bytes(data.to_owned())
    }
}

async fn collect(mut reading: Reading) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(bytes) = reading.scan.next().await.unwrap() {
        all.extend_from_slice(&bytes);
    }
    assert_eq!(all.len() as u64, reading.end.0 - reading.start.0);
    all
}

/// Everything, in as many readings as it takes.
async fn all(streams: &Streams, path: &str, from: Offset) -> Vec<u8> {
    let (mut from, mut all) = (from, Vec::new());
    loop {
        let reading = streams.read(path, From::At(from), MOST).await.unwrap();
        let (end, done) = (reading.end, reading.is_up_to_date());
        all.extend(collect(reading).await);
        if done {
            return all;
        }
        assert!(
            end > from,
            "a reading that is not the last one must get further"
        );
        from = end;
    }
}

#[tokio::test]
async fn a_retried_append_is_taken_once_wherever_the_process_died() {
    let plan = ["a", "bb", "ccc", "dddd"];
    for death in 1..=6 {
        for point in [Death::Before(death), Death::After(death)] {
            let (inner, sources) = (Arc::new(MemoryStore::new()), clock::sources(1));
            let mut streams = open(DyingStore::new(inner.clone(), point), &sources);
            let mut restarts = 0;
            let mut next = 0;
            while next <= plan.len() {
                let done = match next.checked_sub(1) {
                    None => streams.create("s", text("")).await.map(|_| ()),
                    Some(at) => {
                        let append = produced(at as u64, plan[at]);
                        streams.append("s", append).await.map(|_| ())
                    }
                };
                match done {
                    Ok(()) => next += 1,
                    Err(StreamError::Commit(CommitError::Closed(_)) | StreamError::Store(_)) => {
                        // The next process goes on with the very same append.
                        restarts += 1;
                        assert!(restarts < 3, "{point:?}: only one process dies");
                        streams = open(inner.clone(), &sources);
                    }
                    Err(error) => panic!("{point:?}: {error}"),
                }
            }
            assert_eq!(
                all(&streams, "s", Offset(0)).await,
                b"abbcccdddd",
                "{point:?}"
            );
            let again = streams.append("s", produced(2, "other")).await.unwrap();
            assert!(
                again.duplicate && again.producer == Some((0, 3)),
                "{point:?}"
            );
        }
    }
}

#[tokio::test]
async fn appends_that_wait_together_are_one_commit_in_the_order_they_came() {
    let (store, sources) = (Arc::new(MemoryStore::new()), clock::sources(1));
    let streams = open(store.clone(), &sources);
    streams.create("s", text("")).await.unwrap();
    let before = store.metrics().flushes;
    let appends = (0..100).map(|n| streams.append("s", produced(n, &format!("{n:03}"))));
    let done = futures::future::join_all(appends).await;
    assert!(done.iter().all(Result::is_ok));
    assert_eq!(store.metrics().flushes - before, 1);
    let expected: String = (0..100).map(|n| format!("{n:03}")).collect();
    assert_eq!(all(&streams, "s", Offset(0)).await, expected.as_bytes());
}

/// The byte at each place of the test streams.
fn pattern(at: usize) -> u8 {
    u8::try_from(at * 31 % 251).unwrap()
}

#[tokio::test]
async fn any_offset_reads_the_same_bytes_whatever_blocks_records_forks_and_processes_lie_between() {
    let (store, sources) = (Arc::new(MemoryStore::new()), clock::sources(1));
    let streams = open(store.clone(), &sources);
    streams.create("s", text("")).await.unwrap();
    let mut len = 0;
    // Large ones take several records; many small ones seal blocks by their number.
    let sizes = [3_000_000, 5, 300_000, 1]
        .into_iter()
        .chain((0..1_200).map(|n| n % 7 + 1));
    for size in sizes.chain([700_000, 2]) {
        let data: Vec<u8> = (len..len + size).map(pattern).collect();
        len += size;
        let done = streams.append("s", Append::bytes(data)).await.unwrap();
        assert_eq!(done.next, Offset(len as u64));
    }
    let fork = |source: &str, offset: usize| NewStream {
        fork: Some(NewFork {
            source: source.into(),
            offset: Some(Offset(offset as u64)),
            sub_offset: 0,
        }),
        ..NewStream::default()
    };
    streams.create("f", fork("s", 3_000_005)).await.unwrap();
    let tail: Vec<u8> = (3_000_005..len).map(pattern).collect();
    streams.append("f", Append::bytes(tail)).await.unwrap();
    streams.create("g", fork("f", len - 1)).await.unwrap();
    streams
        .append("g", Append::bytes(vec![pattern(len - 1)]))
        .await
        .unwrap();
    streams.delete("s").await.unwrap();
    streams.delete("f").await.unwrap();
    for streams in [streams, open(store, &sources)] {
        for from in [
            0,
            1,
            999_999,
            2_999_999,
            3_000_000,
            3_000_005,
            3_000_006,
            len - 3,
            len,
        ] {
            let read = all(&streams, "g", Offset(from as u64)).await;
            assert_eq!(read.len(), len - from);
            let wrong = (from..len)
                .zip(read)
                .find(|(at, byte)| pattern(*at) != *byte);
            assert_eq!(wrong, None, "from {from}");
        }
        assert!(matches!(streams.info("s").await, Err(StreamError::Gone)));
    }
}

#[tokio::test]
async fn deleted_sources_stay_for_their_forks_across_a_restart_and_go_with_the_last_one() {
    let (store, sources) = (Arc::new(MemoryStore::new()), clock::sources(1));
    let streams = open(store.clone(), &sources);
    streams.create("a", text("one")).await.unwrap();
    for (path, source) in [("b", "a"), ("c", "b")] {
        let fork = NewFork {
            source: source.into(),
            ..NewFork::default()
        };
        let fork = Some(fork);
        streams
            .create(
                path,
                NewStream {
                    fork,
                    ..NewStream::default()
                },
            )
            .await
            .unwrap();
        streams.delete(source).await.unwrap();
    }
    let streams = open(store.clone(), &sources);
    assert!(matches!(streams.info("a").await, Err(StreamError::Gone)));
    assert!(matches!(
        streams.create("a", text("")).await,
        Err(StreamError::Exists)
    ));
    assert_eq!(all(&streams, "c", Offset(0)).await, b"one");
    streams.delete("c").await.unwrap();
    let gone = async {
        while streams.create("a", text("new")).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone)
        .await
        .unwrap();
    assert_eq!(all(&streams, "a", Offset(0)).await, b"new");
    assert!(matches!(
        streams.info("b").await,
        Err(StreamError::NotFound)
    ));
}

#[tokio::test(start_paused = true)]
async fn a_source_learns_of_forks_that_died_with_the_process() {
    let (inner, sources) = (Arc::new(MemoryStore::new()), clock::sources(1));
    let streams = open(inner.clone(), &sources);
    streams.create("a", text("one")).await.unwrap();
    // The fork is noted at its source, then the process dies before it begins.
    let dying = DyingStore::new(inner.clone(), Death::Before(3));
    let fork = Some(NewFork {
        source: "a".into(),
        ..NewFork::default()
    });
    let new = NewStream {
        fork,
        ..NewStream::default()
    };
    assert!(open(dying, &sources).create("b", new).await.is_err());
    let streams = open(inner.clone(), &sources);
    streams.delete("a").await.unwrap();
    assert!(matches!(streams.info("a").await, Err(StreamError::Gone)));
    tokio::time::advance(Duration::from_secs(61)).await;
    let stop = CancellationToken::new();
    let keeper = tokio::spawn({
        let (streams, stop) = (streams.clone(), stop.clone());
        async move { streams.supervise(stop).await }
    });
    while !matches!(streams.info("a").await, Err(StreamError::NotFound)) {
        tokio::task::yield_now().await;
    }
    stop.cancel();
    keeper.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn time_to_live_slides_with_use_and_counts_across_a_restart() {
    let (store, sources) = (Arc::new(MemoryStore::new()), clock::sources(1));
    let streams = open(store.clone(), &sources);
    let new = NewStream {
        lifetime: Some(Lifetime::Idle(80)),
        ..text("x")
    };
    streams.create("s", new.clone()).await.unwrap();
    for _ in 0..3 {
        tokio::time::advance(Duration::from_secs(60)).await;
        streams.read("s", From::Start, MOST).await.unwrap();
    }
    // What only asks is no use.
    tokio::time::advance(Duration::from_secs(60)).await;
    streams.info("s").await.unwrap();
    let streams = open(store.clone(), &sources);
    streams.info("s").await.unwrap();
    // An eighth of the time may be added by a restart, and no more.
    tokio::time::advance(Duration::from_secs(31)).await;
    assert!(matches!(
        streams.info("s").await,
        Err(StreamError::NotFound)
    ));
    // Who follows uses it all the time.
    assert!(streams.create("s", new).await.unwrap().new);
    let follower = streams.tail("s").await.unwrap();
    tokio::time::advance(Duration::from_secs(500)).await;
    streams.info("s").await.unwrap();
    drop(follower);
    tokio::time::advance(Duration::from_secs(79)).await;
    streams.info("s").await.unwrap();
    tokio::time::advance(Duration::from_secs(2)).await;
    assert!(matches!(
        streams.info("s").await,
        Err(StreamError::NotFound)
    ));
}

#[tokio::test]
async fn readers_see_nothing_of_an_append_whose_flush_failed() {
    let (inner, sources) = (Arc::new(MemoryStore::new()), clock::sources(1));
    let streams = open(DyingStore::new(inner.clone(), Death::Before(2)), &sources);
    streams.create("s", text("kept")).await.unwrap();
    let mut follower = streams.tail("s").await.unwrap();
    assert!(streams.append("s", Append::bytes("lost")).await.is_err());
    let mark = follower.beyond(Offset(4)).await;
    assert!(mark.gone, "followers are sent away, with nothing");
    assert!(streams.append("s", Append::bytes("more")).await.is_err());
    let streams = open(inner, &sources);
    assert_eq!(all(&streams, "s", Offset(0)).await, b"kept");
}

#[tokio::test]
async fn a_full_disk_refuses_appends_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let sources = clock::sources(1);
    let options = SqliteOptions {
        max_pages: Some(400),
        ..SqliteOptions::default()
    };
    let store = SqliteStore::open(dir.path(), options).unwrap();
    let streams = open(store.clone(), &sources);
    streams.create("s", text("")).await.unwrap();
    let mut accepted = 0_u64;
    let mut follower = streams.tail("s").await.unwrap();
    let full = loop {
        let data = vec![b'x'; 50_000];
        match streams
            .append("s", produced(accepted, &String::from_utf8(data).unwrap()))
            .await
        {
            Ok(_) => accepted += 1,
            Err(error) => break error,
        }
    };
    assert!(
        matches!(full, StreamError::Commit(CommitError::Full)),
        "{full}"
    );
    assert!(accepted > 2);
    assert_eq!(
        follower.beyond(Offset(0)).await.tail,
        Offset(accepted * 50_000)
    );
    assert_eq!(
        all(&streams, "s", Offset(0)).await.len() as u64,
        accepted * 50_000
    );
    // The refused append can come again once there is room: its producer's state did not move.
    store.close().await;
    let store = SqliteStore::open(dir.path(), SqliteOptions::default()).unwrap();
    let streams = open(store.clone(), &sources);
    let done = streams
        .append("s", produced(accepted, "room"))
        .await
        .unwrap();
    assert!(!done.duplicate);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_closing_append_reaches_a_live_reader_before_the_end_does() {
    let (store, sources) = (Arc::new(MemoryStore::new()), clock::sources(1));
    let streams = open(store, &sources);
    for round in 0..300 {
        let path = format!("race/{round}");
        streams.create(&path, text("")).await.unwrap();
        let mut follower = streams.tail(&path).await.unwrap();
        let reader = tokio::spawn(async move {
            let (mut place, mut read) = (Offset(0), Vec::new());
            loop {
                let mark = follower.beyond(place).await;
                if mark.tail > place {
                    let reading = follower.read(place, MOST).await.unwrap();
                    place = reading.end;
                    let last = reading.is_final();
                    read.extend(collect(reading).await);
                    if last {
                        return read;
                    }
                } else if mark.closed {
                    return read;
                }
            }
        });
        streams
            .append(&path, Append::bytes("first "))
            .await
            .unwrap();
        let closing = Append {
            closes: true,
            ..Append::bytes("last")
        };
        streams.append(&path, closing).await.unwrap();
        assert_eq!(reader.await.unwrap(), b"first last");
    }
}

#[tokio::test]
async fn a_subscription_keeps_its_cursors_and_its_wake_across_a_restart() {
    let (store, sources) = (Arc::new(MemoryStore::new()), clock::sources(1));
    let streams = open(store.clone(), &sources);
    let config = Config {
        way: Way::PullWake("wakes".into()),
        pattern: Some("jobs/**".into()),
        streams: vec!["other".into()],
        lease_ms: 30_000,
        description: None,
        base_url: String::new(),
    };
    assert!(streams.subscribe("w", config.clone()).await.unwrap());
    assert!(!streams.subscribe("w", config).await.unwrap());
    streams.create("jobs/a/1", text("one")).await.unwrap();
    streams.create("unrelated", text("one")).await.unwrap();
    streams.create("other", text("two")).await.unwrap();
    // The process ends before anybody has claimed the wake; the next one knows what is new.
    let streams = open(store.clone(), &sources);
    let wake = loop {
        match streams.claim("w", "me").await {
            Ok(wake) if wake.streams.len() == 2 => break wake,
            Ok(wake) => {
                let ack = Ack {
                    token: wake.token,
                    wake: wake.id,
                    generation: wake.generation,
                    done: true,
                    ..Ack::default()
                };
                streams.acknowledge("w", ack).await.unwrap();
            }
            Err(StreamError::Subscription(Refusal::NoWork)) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    };
    let ends: Vec<_> = wake
        .streams
        .iter()
        .map(|it| (it.path.clone(), it.tail))
        .collect();
    assert_eq!(
        ends,
        [
            ("jobs/a/1".to_owned(), Offset(3)),
            ("other".to_owned(), Offset(3))
        ]
    );
    // The worker's lease and its token outlive the process as well.
    let streams = open(store.clone(), &sources);
    let ack = Ack {
        token: wake.token.clone(),
        wake: wake.id.clone(),
        generation: wake.generation,
        acks: ends,
        done: true,
    };
    let other = Ack {
        token: "guessed".into(),
        ..ack.clone()
    };
    let refused = streams.acknowledge("w", other).await;
    assert!(matches!(
        refused,
        Err(StreamError::Subscription(Refusal::Token))
    ));
    assert!(!streams.acknowledge("w", ack.clone()).await.unwrap());
    let late = streams.acknowledge("w", ack).await;
    assert!(matches!(
        late,
        Err(StreamError::Subscription(Refusal::Fenced))
    ));
    let streams = open(store, &sources);
    let nothing = streams.claim("w", "me").await;
    assert!(matches!(
        nothing,
        Err(StreamError::Subscription(Refusal::NoWork))
    ));
}
