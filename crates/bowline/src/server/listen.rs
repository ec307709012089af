//! A listener with its connections.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{Extension, Router};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::Semaphore,
};
use tokio_io_timeout::TimeoutStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::Layer as _;

use super::{App, Settings, Socket, router};
use crate::error::Error;

/// Largest head of a request, in bytes.
const MAX_HEAD: usize = 64 * 1024;
/// Most headers of a request.
const MAX_HEADERS: usize = 100;
/// Most requests at once on one HTTP/2 connection.
const MAX_STREAMS: u32 = 256;
/// How long nothing is accepted after the system refused to, for example for want of file handles.
const BACK_OFF: Duration = Duration::from_millis(100);

/// Where a request came from, among its extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// Over the network.
    Address(SocketAddr),
    /// Through the socket in the data directory, which only the owner of the data can open.
    Local,
}

/// A listener that answers.
#[derive(Debug)]
pub struct Server {
    app: App,
    listener: TcpListener,
    addr: SocketAddr,
    local: Option<Socket>,
}

impl Server {
    /// Takes the address.
    ///
    /// # Errors
    ///
    /// `server_address` when it cannot be had; `server_needs_keys` when others than this machine could
    /// reach it and nobody would have to show a key.
    pub async fn bind(app: App) -> Result<Self, Error> {
        let wanted = app.settings().addr;
        if !wanted.ip().is_loopback() && app.settings().keys.is_empty() {
            return Err(Error::usage(
                "server_needs_keys",
                format!("{wanted} can be reached from elsewhere, and no keys are set"),
                "make one with `bowline auth new`, or listen on 127.0.0.1",
            ));
        }
        let refused = |error: std::io::Error| {
            Error::failure(
                "server_address",
                format!("cannot listen on {wanted}: {error}"),
                "stop what listens there, or choose another address with --addr",
            )
        };
        let listener = TcpListener::bind(wanted).await.map_err(refused)?;
        let addr = listener.local_addr().map_err(refused)?;
        Ok(Self {
            app,
            listener,
            addr,
            local: None,
        })
    }

    /// Answers on the socket of the data directory as well, where the commands of its owner come.
    #[must_use]
    pub fn with_socket(mut self, socket: Socket) -> Self {
        self.local = Some(socket);
        self
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What its routes have.
    pub fn app(&self) -> &App {
        &self.app
    }

    /// Answers until it is told to stop, and then until every connection has ended in good order.
    /// `false` when some had to be cut because that took longer than [`Settings::drain`](super::Settings).
    pub async fn serve(self, stop: CancellationToken) -> bool {
        let Self {
            app,
            listener,
            local,
            ..
        } = self;
        let connections = Connections::new(&app, router(app.clone()));
        let local = local.map(|socket| socket.serve(&app, stop.clone()));
        let (streams, ending) = (app.streams().clone(), app.draining().clone());
        tokio::spawn(async move { streams.supervise(ending).await });
        loop {
            let permit = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                permit = connections.room.clone().acquire_owned() => permit,
            };
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((io, peer)) => {
                    let _ = io.set_nodelay(true);
                    connections.spawn(io, Peer::Address(peer), permit);
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(BACK_OFF).await;
                }
            }
        }
        drop(listener);
        app.draining().cancel();
        let drained = connections.drain(app.settings().drain).await;
        if let Some(local) = local {
            // It is bounded as well, and has begun at the same time.
            let _ = local.await;
        }
        drained
    }
}

/// The connections of a listener.
pub(super) struct Connections {
    router: Router,
    settings: Settings,
    builder: Builder<TokioExecutor>,
    room: Arc<Semaphore>,
    tasks: TaskTracker,
    draining: CancellationToken,
    cut: CancellationToken,
}

impl Connections {
    /// The connections of a listener with these routes.
    pub(super) fn new(app: &App, router: Router) -> Self {
        let settings = app.settings();
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(settings.head_timeout)
            .max_buf_size(MAX_HEAD)
            .max_headers(MAX_HEADERS)
            .keep_alive(true);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX))
            .keep_alive_interval(Some(settings.head_timeout));
        Self {
            router,
            settings: settings.clone(),
            builder,
            room: Arc::new(Semaphore::new(settings.max_connections)),
            tasks: TaskTracker::new(),
            draining: app.draining().clone(),
            cut: CancellationToken::new(),
        }
    }

    /// Answers on a connection, in a task of its own. `held` is let go when it ends.
    pub(super) fn spawn<I>(&self, io: I, peer: Peer, held: impl Send + 'static)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let one = Connection {
            router: self.router.clone(),
            builder: self.builder.clone(),
            peer,
            write_timeout: self.settings.write_timeout,
            draining: self.draining.clone(),
            cut: self.cut.clone(),
        };
        let tls = self.settings.tls.clone();
        let (tls, handshake) = match peer {
            Peer::Address(_) => (tls, self.settings.head_timeout),
            Peer::Local => (None, self.settings.head_timeout),
        };
        self.tasks.spawn(async move {
            match tls {
                None => one.answer(io).await,
                Some(tls) => match tokio::time::timeout(handshake, tls.acceptor().accept(io)).await
                {
                    Ok(Ok(io)) => one.answer(io).await,
                    Ok(Err(error)) => tracing::debug!(?peer, %error, "no handshake"),
                    Err(_) => tracing::debug!(?peer, "the handshake took too long"),
                },
            }
            drop(held);
        });
    }

    /// Waits until each has ended; cuts them after `bound`.
    pub(super) async fn drain(self, bound: Duration) -> bool {
        self.tasks.close();
        let ended = tokio::time::timeout(bound, self.tasks.wait()).await.is_ok();
        self.cut.cancel();
        self.tasks.wait().await;
        ended
    }
}

/// One connection, and what it is answered by.
struct Connection {
    router: Router,
    builder: Builder<TokioExecutor>,
    peer: Peer,
    write_timeout: Duration,
    draining: CancellationToken,
    cut: CancellationToken,
}

impl Connection {
    async fn answer<I>(self, io: I)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        // A reader that takes nothing for long holds what was made for it.
        let mut io = TimeoutStream::new(io);
        io.set_write_timeout(Some(self.write_timeout));
        let io = TokioIo::new(Box::pin(io));
        let service = TowerToHyperService::new(Extension(self.peer).layer(self.router));
        let connection = self.builder.serve_connection_with_upgrades(io, service);
        tokio::pin!(connection);
        let mut ending = false;
        loop {
            tokio::select! {
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(peer = ?self.peer, error, "a connection broke off");
                    }
                    break;
                }
                () = self.draining.cancelled(), if !ending => {
                    ending = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = self.cut.cancelled() => break,
            }
        }
    }
}
