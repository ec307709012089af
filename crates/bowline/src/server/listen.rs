//! A listener with its connections.

use std::{fmt::Display, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixStream},
    sync::Semaphore,
    task::JoinSet,
};
use tokio_io_timeout::TimeoutStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::Layer as _;

use super::{App, Socket, Tls, router};
use crate::{
    error::Error,
    telemetry::{Connected, Taken},
};

/// Largest head of a request, in bytes.
const MAX_HEAD: usize = 64 * 1024;
/// Most headers of a request.
const MAX_HEADERS: usize = 100;
/// Most requests at once on one HTTP/2 connection.
const MAX_STREAMS: u32 = 256;
/// Most connections at once that come while the server stops.
const MAX_LATE: usize = 64;
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

    /// Answers until it is told to stop, and then until every connection has ended in good order. Whoever
    /// comes meanwhile is still answered, once: `/readyz` says 503 then, and so does a message.
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
        app.draining().cancel();
        let drained = connections.end(&app, listener).await;
        if let Some(local) = local {
            // It is bounded as well, and has begun at the same time.
            let _ = local.await;
        }
        drained
    }
}

/// The connections of a listener.
pub(super) struct Connections {
    how: Arc<How>,
    tls: Option<Tls>,
    room: Arc<Semaphore>,
    tasks: TaskTracker,
    places: Taken,
}

/// How connections are answered. They share it, so that one that rests holds little.
#[derive(Clone)]
struct How {
    router: Router,
    http1: http1::Builder,
    /// Finds out the version by itself, which costs each connection a larger buffer.
    either: auto::Builder<TokioExecutor>,
    head_timeout: Duration,
    write_timeout: Duration,
    draining: CancellationToken,
    cut: CancellationToken,
}

impl Connections {
    /// The connections of a listener with these routes.
    pub(super) fn new(app: &App, router: Router) -> Self {
        let settings = app.settings();
        let mut http1 = http1::Builder::new();
        http1
            .timer(TokioTimer::new())
            .header_read_timeout(settings.head_timeout)
            .max_buf_size(MAX_HEAD)
            .max_headers(MAX_HEADERS)
            .keep_alive(true);
        let mut either = auto::Builder::new(TokioExecutor::new());
        either
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(settings.head_timeout)
            .max_buf_size(MAX_HEAD)
            .max_headers(MAX_HEADERS)
            .keep_alive(true);
        either
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX))
            .keep_alive_interval(Some(settings.head_timeout));
        let how = How {
            router,
            http1,
            either,
            head_timeout: settings.head_timeout,
            write_timeout: settings.write_timeout,
            draining: app.draining().clone(),
            cut: CancellationToken::new(),
        };
        Self {
            how: Arc::new(how),
            tls: settings.tls.clone(),
            room: Arc::new(Semaphore::new(settings.max_connections)),
            tasks: TaskTracker::new(),
            places: app.telemetry().places().clone(),
        }
    }

    /// Answers on a connection, in a task of its own. `held` is let go when it ends.
    pub(super) fn spawn<I: Transport>(&self, io: I, peer: Peer, held: impl Send + 'static) {
        let one = Connection {
            how: self.how.clone(),
            peer,
        };
        let counted = Connected::new(&self.places);
        let tls = self.tls(peer);
        self.tasks.spawn(async move {
            one.serve(tls, io).await;
            drop((held, counted));
        });
    }

    fn tls(&self, peer: Peer) -> Option<Tls> {
        match peer {
            Peer::Address(_) => self.tls.clone(),
            Peer::Local => None,
        }
    }

    /// Answers one request of each further connection, so that whoever looks sees that the server stops.
    async fn turn_away(&self, listener: &TcpListener) -> std::convert::Infallible {
        let mut late = JoinSet::new();
        let mut how = How {
            // It has one request to make, and is not to be hurried.
            draining: CancellationToken::new(),
            ..How::clone(&self.how)
        };
        how.http1.keep_alive(false);
        how.either.http1().keep_alive(false);
        let how = Arc::new(how);
        loop {
            tokio::select! {
                Some(_) = late.join_next() => {}
                accepted = listener.accept(), if late.len() < MAX_LATE => {
                    let Ok((io, peer)) = accepted else {
                        tokio::time::sleep(BACK_OFF).await;
                        continue;
                    };
                    let (how, peer) = (how.clone(), Peer::Address(peer));
                    late.spawn(Connection { how, peer }.serve(self.tls(peer), io));
                }
            }
        }
    }

    /// Waits until each has ended; cuts them after `bound`.
    pub(super) async fn drain(self, bound: Duration) -> bool {
        self.tasks.close();
        let ended = tokio::time::timeout(bound, self.tasks.wait()).await.is_ok();
        self.how.cut.cancel();
        self.tasks.wait().await;
        ended
    }

    /// Takes no more messages, and waits until what runs and each connection has ended, WebSockets as
    /// well; cuts connections after a while. What still runs then is for whoever has the service.
    async fn end(self, app: &App, listener: TcpListener) -> bool {
        self.tasks.close();
        app.sockets().close();
        let bound = app.settings().drain;
        let all = async { tokio::join!(self.tasks.wait(), app.sockets().wait()) };
        let both = async {
            let connections = tokio::time::timeout(bound, all);
            tokio::join!(connections, app.service().finish(bound))
        };
        let (ended, finished) = tokio::select! {
            (ended, finished) = both => (ended.is_ok(), finished),
            never = self.turn_away(&listener) => match never {},
        };
        if !finished {
            tracing::warn!("what still runs is stopped; the next start goes on with it");
        }
        drop(listener);
        self.how.cut.cancel();
        self.tasks.wait().await;
        ended
    }
}

/// What connections come over.
pub(super) trait Transport: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// The version that is spoken, once that can be seen.
    fn version(&self) -> impl Future<Output = Version> + Send;
}

/// A version of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// 1.0 or 1.1.
    One,
    /// Not 1, or not to be told yet.
    Other,
}

impl Transport for TcpStream {
    async fn version(&self) -> Version {
        const PREFACE: &[u8] = b"PRI ";
        let mut first = [0; PREFACE.len()];
        match self.peek(&mut first).await {
            Ok(read @ 1..) if !PREFACE.starts_with(&first[..read]) => Version::One,
            Ok(_) | Err(_) => Version::Other,
        }
    }
}

impl Transport for UnixStream {
    async fn version(&self) -> Version {
        Version::One
    }
}

/// What answers on a connection until that ends. Boxed, so that each kind takes what it needs and no more.
type Answering = Pin<Box<dyn Future<Output = ()> + Send>>;

/// One connection, and what it is answered by.
struct Connection {
    how: Arc<How>,
    peer: Peer,
}

impl Connection {
    /// Answers until the connection ends, behind a handshake where there is a certificate.
    async fn serve<I: Transport>(self, tls: Option<Tls>, io: I) {
        let answering = match tls {
            None => self.plain(io).await,
            Some(tls) => Box::pin(self.secured(tls, io)).await,
        };
        if let Some(answering) = answering {
            answering.await;
        }
    }

    async fn plain<I: Transport>(self, io: I) -> Option<Answering> {
        let version = tokio::select! {
            biased;
            version = io.version() => version,
            () = self.how.draining.cancelled() => return None,
            () = tokio::time::sleep(self.how.head_timeout) => return None,
        };
        Some(self.answer(version, io))
    }

    async fn secured<I: Transport>(self, tls: Tls, io: I) -> Option<Answering> {
        let peer = self.peer;
        let handshake = tls.acceptor().accept(io);
        match tokio::time::timeout(self.how.head_timeout, handshake).await {
            Ok(Ok(io)) => {
                let version = match io.get_ref().1.alpn_protocol() {
                    Some(b"http/1.1") => Version::One,
                    Some(_) | None => Version::Other,
                };
                return Some(self.answer(version, io));
            }
            Ok(Err(error)) => tracing::debug!(?peer, %error, "no handshake"),
            Err(_) => tracing::debug!(?peer, "the handshake took too long"),
        }
        None
    }

    fn answer<I>(self, version: Version, io: I) -> Answering
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self { how, peer } = self;
        // A reader that takes nothing for long holds what was made for it.
        let mut io = TimeoutStream::new(io);
        io.set_write_timeout(Some(how.write_timeout));
        let io = TokioIo::new(Box::pin(io));
        let service = TowerToHyperService::new(Extension(peer).layer(how.router.clone()));
        match version {
            Version::One => {
                let connection = how.http1.serve_connection(io, service).with_upgrades();
                Box::pin(until_end(
                    connection,
                    |it| it.graceful_shutdown(),
                    how,
                    peer,
                ))
            }
            Version::Other => Box::pin(async move {
                let either = how.either.clone();
                let connection = either.serve_connection_with_upgrades(io, service);
                until_end(connection, |it| it.graceful_shutdown(), how, peer).await;
            }),
        }
    }
}

/// Answers until the connection ends, or is cut; when the server stops, the request that is under way is
/// the last one.
async fn until_end<C, E: Display>(
    connection: C,
    end: impl Fn(Pin<&mut C>),
    how: Arc<How>,
    peer: Peer,
) where
    C: Future<Output = Result<(), E>>,
{
    tokio::pin!(connection);
    let mut ending = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(?peer, %error, "a connection broke off");
                }
                break;
            }
            () = how.draining.cancelled(), if !ending => {
                ending = true;
                end(connection.as_mut());
            }
            () = how.cut.cancelled() => break,
        }
    }
}
