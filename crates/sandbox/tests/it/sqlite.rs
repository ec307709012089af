//! The workspace on the real engine.

use std::sync::Arc;

use bowline_sandbox::{
    shell::{Shell, ShellOptions, ShellState},
    workspace::WorkspaceLimits,
};
use bowline_store::{SqliteOptions, SqliteStore, Store};

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
