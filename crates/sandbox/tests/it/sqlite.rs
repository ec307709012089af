//! The workspace on the real engine.

use std::{sync::Arc, time::Instant};

use bowline_sandbox::{
    search::{self, GrepQuery},
    shell::{Shell, ShellOptions, ShellState},
    workspace::WorkspaceLimits,
};
use bowline_store::{SqliteOptions, SqliteStore, Store};
use bytes::Bytes;

use crate::support::{World, put, text};

#[tokio::test]
async fn files_survive_closing_the_store() {
    let directory = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let store: Arc<dyn Store> =
            SqliteStore::open(directory.path(), SqliteOptions::default()).unwrap();
        let world = World::on(store.clone(), WorkspaceLimits::default());
        let overlay = world.begin().await;
        if round > 0 {
            assert_eq!(text(&overlay, "log").await, "line\n".repeat(round));
            assert_eq!(
                overlay.read("big").await.unwrap(),
                vec![round as u8; 600_000]
            );
        }
        let options = ShellOptions::default();
        let outcome = Shell::new()
            .run(
                &overlay,
                ShellState::default(),
                "echo line >> log",
                &options,
            )
            .await;
        assert_eq!(outcome.exit_code, 0, "{outcome:?}");
        put(&overlay, "big", vec![round as u8 + 1; 600_000]).await;
        world.commit(&overlay).await;
        store.verify().await.unwrap();
        store.close().await;
    }
}

/// User and system time of this process, in milliseconds.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) * 10.0
}

async fn figure<F: Future<Output = ()>>(
    name: &str,
    times: u32,
    mut operation: impl FnMut(u32) -> F,
) {
    let (cpu_before, start) = (cpu(), Instant::now());
    for n in 0..times {
        operation(n).await;
    }
    let (wall, cpu) = (start.elapsed().as_secs_f64() * 1e3, cpu() - cpu_before);
    println!(
        "{name:<32} wall {:8.4} ms  cpu {:8.4} ms",
        wall / f64::from(times),
        cpu / f64::from(times)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints figures; run alone, in the release profile"]
async fn figures() {
    let directory = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> =
        SqliteStore::open(directory.path(), SqliteOptions::default()).unwrap();
    let mut world = World::on(store, WorkspaceLimits::default());
    let content = Bytes::from("needle or hay, a line of text\n".repeat(68));
    let default = bowline_sandbox::workspace::WriteOptions::with_parents();
    let overlay = world.begin().await;
    figure("write 2 KB", 1000, |n| {
        let (overlay, content, default) = (overlay.clone(), content.clone(), default.clone());
        async move {
            overlay
                .write(&format!("d{}/f{n}", n % 20), content, &default)
                .await
                .unwrap()
        }
    })
    .await;
    let start = (cpu(), Instant::now());
    world.commit(&overlay).await;
    println!(
        "commit of 1,000 files: wall {:.1} ms, cpu {:.0} ms",
        start.1.elapsed().as_secs_f64() * 1e3,
        cpu() - start.0
    );
    world.reopen();
    let overlay = world.begin().await;
    figure("read 2 KB, cold", 1000, |n| {
        let overlay = overlay.clone();
        async move { drop(overlay.read(&format!("d{}/f{n}", n % 20)).await.unwrap()) }
    })
    .await;
    figure("read 2 KB, warm", 100_000, |n| {
        let overlay = overlay.clone();
        async move {
            drop(
                overlay
                    .read(&format!("d{}/f{}", n % 20, n % 1000))
                    .await
                    .unwrap(),
            )
        }
    })
    .await;
    for (name, times) in [("glob over 1,000, first", 1), ("glob over 1,000", 200)] {
        figure(name, times, |_| {
            let overlay = overlay.clone();
            async move {
                assert_eq!(
                    search::glob(&overlay, "**/f*", ".").await.unwrap().len(),
                    1000
                )
            }
        })
        .await;
    }
    figure("grep over 1,000, no match", 100, |_| {
        let overlay = overlay.clone();
        async move {
            let query = GrepQuery {
                pattern: "absent".into(),
                ..GrepQuery::default()
            };
            search::grep(&overlay, &query, ".", |_| true).await.unwrap();
        }
    })
    .await;
    let shell = Arc::new(Shell::new());
    let state = Arc::new(std::sync::Mutex::new(ShellState::default()));
    for (name, command, times) in [
        ("bash echo", "echo hi", 5000),
        ("bash pipeline", "cat d1/f1 | wc -c", 1000),
        ("bash grep -r over 1,000", "grep -r absent . | wc -l", 20),
        ("bash sed -i", "sed -i s/hay/straw/ d1/f1", 500),
    ] {
        figure(name, times, |_| {
            let (overlay, shell, state) = (overlay.child(), shell.clone(), state.clone());
            async move {
                let before = state.lock().unwrap().clone();
                let outcome = shell
                    .run(&overlay, before, command, &ShellOptions::default())
                    .await;
                assert_eq!(outcome.exit_code, 0, "{outcome:?}");
                *state.lock().unwrap() = outcome.state;
            }
        })
        .await;
    }
}
