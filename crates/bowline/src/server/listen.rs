//! A listener with its connections.

use std::{fmt::Display, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use axum::{Extension, Router, response::IntoResponse as _};
use hyper::{
    header,
    server::conn::{http1, http2},
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
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

use super::{
    App, Refusal, Socket, Tls, preface,
    rest::{Lasting, Requests, Rest},
    router,
};
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
    http2: http2::Builder<TokioExecutor>,
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
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        http2
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX))
            .keep_alive_interval(Some(settings.head_timeout));
        let how = How {
            router,
            http1,
            http2,
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
pub(super) trait Transport: AsyncRead + AsyncWrite + Unpin + Send + Sync + 'static {
    /// What comes first, up to four bytes, without taking it; nothing where that cannot be seen.
    fn first(&self) -> impl Future<Output = Option<First>> + Send;
}

/// The first bytes of a connection.
type First = [u8; 4];

/// A version of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// 1.0 or 1.1.
    One,
    /// 2.
    Two,
}

impl Transport for TcpStream {
    async fn first(&self) -> Option<First> {
        let mut first = First::default();
        let read = self.peek(&mut first).await.ok()?;
        (read > 0).then_some(first)
    }
}

impl Transport for UnixStream {
    async fn first(&self) -> Option<First> {
        None
    }
}

/// What answers on a connection until that ends. Boxed, so that each kind takes what it needs and no more.
type Answering = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A connection over whatever it comes.
trait Stream: AsyncRead + AsyncWrite + Send {}
impl<I: AsyncRead + AsyncWrite + Send> Stream for I {}

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

    /// What comes first, once it is there; nothing when nothing came in time.
    async fn first<I: Transport>(&self, io: &I) -> Option<Option<First>> {
        tokio::select! {
            biased;
            first = io.first() => Some(first),
            () = self.how.draining.cancelled() => None,
            () = tokio::time::sleep(self.how.head_timeout) => None,
        }
    }

    async fn plain<I: Transport>(self, io: I) -> Option<Answering> {
        let first = match self.peer {
            Peer::Address(_) => self.first(&io).await?,
            Peer::Local => None,
        };
        Some(match (first, self.peer) {
            // The preface begins so, hardly any method does, and of one byte nothing can be told.
            (Some([b'P', b'R' | 0, ..]), _) | (None, Peer::Address(_)) => self.either(io),
            (Some(_), _) | (None, Peer::Local) => self.answer(io),
        })
    }

    async fn secured<I: Transport>(self, tls: Tls, io: I) -> Option<Answering> {
        let peer = self.peer;
        // No handshake begins with a letter, every method does.
        if let Some([letter, ..]) = self.first(&io).await?
            && letter.is_ascii_uppercase()
        {
            return Some(self.misled(io));
        }
        let handshake = tls.acceptor().accept(io);
        match tokio::time::timeout(self.how.head_timeout, handshake).await {
            Ok(Ok(io)) => {
                return Some(match io.get_ref().1.alpn_protocol() {
                    Some(b"http/1.1") => self.answer(io),
                    Some(_) | None => self.either(io),
                });
            }
            Ok(Err(error)) => tracing::debug!(?peer, %error, "no handshake"),
            Err(_) => tracing::debug!(?peer, "the handshake took too long"),
        }
        None
    }

    /// Answers by HTTP/1.
    fn answer<I: AsyncRead + AsyncWrite + Send + 'static>(self, io: I) -> Answering {
        let Self { how, peer } = self;
        let io = TokioIo::new(bounded(&how, io));
        let service = TowerToHyperService::new(Extension(peer).layer(how.router.clone()));
        let connection = how.http1.serve_connection(io, service).with_upgrades();
        Box::pin(until_end(
            connection,
            |it| it.graceful_shutdown(),
            Rest::NEVER,
            how,
            peer,
        ))
    }

    /// Answers by the version that the first bytes tell, which have to come within the time of a head.
    fn either<I: AsyncRead + AsyncWrite + Send + 'static>(self, io: I) -> Answering {
        // Which is rare, so that it is made once for all they come over.
        let io: Pin<Box<dyn Stream>> = Box::pin(io);
        Box::pin(async move {
            let read = tokio::select! {
                biased;
                read = tokio::time::timeout(self.how.head_timeout, preface::read(io)) => read,
                () = self.how.draining.cancelled() => return,
            };
            match read {
                Ok(Ok((Version::One, io))) => self.answer(io).await,
                Ok(Ok((Version::Two, io))) => self.multiplexed(io).await,
                Ok(Err(_)) | Err(_) => {}
            }
        })
    }

    /// Answers by HTTP/2, until nothing was asked for as long as a connection may be idle.
    fn multiplexed<I: AsyncRead + AsyncWrite + Send + 'static>(self, io: I) -> Answering {
        let Self { how, peer } = self;
        let io = TokioIo::new(bounded(&how, io));
        let service = TowerToHyperService::new(Extension(peer).layer(how.router.clone()));
        let requests = Requests::new();
        let rest = requests.rest(how.head_timeout);
        let service = service_fn(move |request| {
            let (busy, answer) = (requests.begin(), service.call(request));
            async move {
                let answer = answer.await;
                answer.map(|answer| answer.map(|body| Lasting::new(body, busy)))
            }
        });
        let connection = how.http2.serve_connection(io, service);
        Box::pin(until_end(
            connection,
            |it| it.graceful_shutdown(),
            rest,
            how,
            peer,
        ))
    }

    /// Tells a client that speaks in the clear where it came to.
    fn misled<I: AsyncRead + AsyncWrite + Send + 'static>(self, io: I) -> Answering {
        let Self { how, peer } = self;
        let io = TokioIo::new(bounded(&how, io));
        let service = service_fn(|_: hyper::Request<hyper::body::Incoming>| async {
            let what = "this port speaks TLS: ask with https://";
            let mut answer = Refusal::InvalidRequest(what.to_owned()).into_response();
            let close = header::HeaderValue::from_static("close");
            answer.headers_mut().insert(header::CONNECTION, close);
            Ok::<_, std::convert::Infallible>(answer)
        });
        let connection = how.http1.serve_connection(io, service);
        Box::pin(until_end(
            connection,
            |it| it.graceful_shutdown(),
            Rest::NEVER,
            how,
            peer,
        ))
    }
}

/// A reader that takes nothing for long holds what was made for it: it is cut.
fn bounded<I: AsyncRead + AsyncWrite>(how: &How, io: I) -> Pin<Box<TimeoutStream<I>>> {
    let mut io = TimeoutStream::new(io);
    io.set_write_timeout(Some(how.write_timeout));
    Box::pin(io)
}

/// Answers until the connection ends, or is cut; when the server stops, or nothing was asked for too long,
/// the request that is under way is the last one.
async fn until_end<C, E: Display>(
    connection: C,
    end: impl Fn(Pin<&mut C>),
    mut rest: Rest,
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
            () = rest.over() => {
                if ending {
                    break;
                }
                ending = true;
                end(connection.as_mut());
            }
            () = how.cut.cancelled() => break,
        }
    }
}
