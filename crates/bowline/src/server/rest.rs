//! How long a connection of HTTP/2 may ask for nothing. It can be held open by answering pings alone.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::body::{Body, Bytes};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::{sync::watch, time::timeout};

/// Counts the requests of a connection that are not answered in full.
#[derive(Debug)]
pub(super) struct Requests(watch::Sender<usize>);

impl Requests {
    /// None so far.
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(0))
    }

    /// One more, until what is returned is dropped.
    pub(super) fn begin(&self) -> Busy {
        self.0.send_modify(|many| *many += 1);
        Busy(self.0.clone())
    }

    /// Tells when there have been none for so long.
    pub(super) fn rest(&self, bound: Duration) -> Rest {
        Rest(Some((self.0.subscribe(), bound)))
    }
}

/// A request that is not answered in full.
#[derive(Debug)]
pub(super) struct Busy(watch::Sender<usize>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.send_modify(|many| *many = many.saturating_sub(1));
    }
}

/// Tells when a connection has asked for nothing for a while.
#[derive(Debug)]
pub(super) struct Rest(Option<(watch::Receiver<usize>, Duration)>);

impl Rest {
    /// Never tells: the connection has bounds of its own.
    pub(super) const NEVER: Self = Self(None);

    /// Waits until there were no requests for as long as may be. Cancel-safe; begins anew each time.
    pub(super) async fn over(&mut self) {
        if let Some((requests, bound)) = &mut self.0 {
            while requests.wait_for(|many| *many == 0).await.is_ok() {
                let asked = requests.wait_for(|many| *many > 0);
                if timeout(*bound, asked).await.is_err() {
                    return;
                }
            }
        }
        std::future::pending().await
    }
}

/// The body of an answer; its request lasts until it has been taken.
#[derive(Debug)]
pub(super) struct Lasting {
    body: Body,
    _busy: Busy,
}

impl Lasting {
    /// An answer to a request.
    pub(super) fn new(body: Body, busy: Busy) -> Self {
        Self { body, _busy: busy }
    }
}

impl HttpBody for Lasting {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
