use bowline_sandbox::workspace::{WorkspaceError, WorkspaceLimits, WriteOptions};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};

use crate::support::{World, posix, put, text};

#[tokio::test]
async fn a_file_is_written_and_read_in_pieces() {
    let world = World::new();
    let overlay = world.begin().await;
    let parts = (0..100u8).map(|n| Ok(Bytes::from(vec![n; 9_999])));
    let size = overlay
        .write_stream("big", stream::iter(parts), &WriteOptions::default())
        .await
        .unwrap();
    assert_eq!(size, 999_900);
    world.commit(&overlay).await;
    let overlay = world.begin().await;
    let pieces: Vec<Bytes> = overlay
        .read_stream("big")
        .await
        .unwrap()
        .try_collect()
        .await
        .unwrap();
    assert!(pieces.iter().all(|piece| piece.len() <= 256 << 10));
    assert_eq!(
        pieces.concat(),
        (0..100u8).flat_map(|n| vec![n; 9_999]).collect::<Vec<u8>>()
    );
}

#[tokio::test]
async fn a_stream_that_fails_leaves_the_file_as_it_was() {
    let limits = WorkspaceLimits {
        step_bytes: 1 << 20,
        ..WorkspaceLimits::default()
    };
    let overlay = World::with_limits(limits).begin().await;
    put(&overlay, "f", "before").await;
    let cut = stream::iter([
        Ok(Bytes::from_static(b"x")),
        Err(WorkspaceError::Invalid("cut".into())),
    ]);
    assert_eq!(
        posix(
            overlay
                .write_stream("f", cut, &WriteOptions::default())
                .await
        ),
        "EINVAL"
    );
    let endless = stream::repeat(()).map(|()| Ok(Bytes::from(vec![0; 100_000])));
    assert_eq!(
        posix(
            overlay
                .write_stream("f", endless, &WriteOptions::default())
                .await
        ),
        "EDQUOT"
    );
    assert_eq!(text(&overlay, "f").await, "before");
}
