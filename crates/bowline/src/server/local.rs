//! The socket in a data directory: how the commands of the data's owner reach the process that has it.
//!
//! It is not reachable over a network, takes nobody but the owner of the data and root, and asks for no
//! key. Its routes, below `/local/`, are served here only; every other route is served as well.
//!
//! - [`Socket`]: the listener. `routes`: what it answers. `wire`: what both ends say.

use std::{
    fs::{self, File, Permissions},
    io,
    os::{
        fd::AsRawFd as _,
        unix::fs::{MetadataExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::{UnixListener, UnixStream},
    sync::Semaphore,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::{App, Peer, listen::Connections};

mod routes;
pub(crate) mod wire;

pub(super) use routes::routes;

/// Its name in the data directory.
const NAME: &str = "local.sock";
/// Most connections at once; further ones wait.
const MAX_CONNECTIONS: usize = 256;
/// Longest path that every system takes for a socket, in bytes.
const MAX_PATH: usize = 100;
/// How long nothing is accepted after the system refused to.
const BACK_OFF: Duration = Duration::from_millis(100);

/// The socket of a data directory. It goes when this is dropped.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    file: Bound,
}

/// The file of a socket; it goes when this is dropped.
#[derive(Debug)]
struct Bound(PathBuf);

impl Socket {
    /// Makes the socket. Only the process that has the data directory may do this: what lies there from
    /// one that was killed is replaced.
    ///
    /// # Errors
    ///
    /// When the directory cannot be written, or its path is too long for a socket and the system offers
    /// no shorter one.
    pub fn bind(data: &Path) -> io::Result<Self> {
        let place = Place::of(data)?;
        match fs::remove_file(&place.lasting) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(&place.short)?;
        fs::set_permissions(&place.short, Permissions::from_mode(0o600))?;
        let file = Bound(place.lasting);
        Ok(Self { listener, file })
    }

    /// Answers on it in tasks of their own until `stop`, and then until every connection has ended, at
    /// most for the drain of the settings.
    pub fn serve(self, app: &App, stop: CancellationToken) -> JoinHandle<()> {
        let connections = Connections::new(app, super::routes::local_router(app.clone()));
        let (room, drain) = (
            Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            app.settings().drain,
        );
        let draining = app.draining().clone();
        let Self { listener, file } = self;
        tokio::spawn(async move {
            loop {
                let permit = tokio::select! {
                    biased;
                    () = stop.cancelled() => break,
                    permit = room.clone().acquire_owned() => permit,
                };
                let accepted = tokio::select! {
                    biased;
                    () = stop.cancelled() => break,
                    accepted = listener.accept() => accepted,
                };
                match accepted {
                    Ok((io, _)) if is_owner(&io) => connections.spawn(io, Peer::Local, permit),
                    Ok(_) => tracing::warn!("somebody else was turned away from the local socket"),
                    Err(error) => {
                        tracing::warn!(%error, "a local connection was not accepted");
                        tokio::time::sleep(BACK_OFF).await;
                    }
                }
            }
            // Who comes now waits for whoever has the data next, and not for the end of this one.
            drop(listener);
            draining.cancel();
            connections.drain(drain).await;
            drop(file);
        })
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Connects to the process that has a data directory. `None` when nobody listens there.
///
/// # Errors
///
/// When somebody listens who has no business there, or the socket may not be used.
pub(crate) async fn connect(data: &Path) -> io::Result<Option<UnixStream>> {
    let place = match Place::of(data) {
        Ok(place) => place,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let stream = match UnixStream::connect(&place.short).await {
        Ok(stream) => stream,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let (uid, owner) = (stream.peer_cred()?.uid(), fs::metadata(data)?.uid());
    if uid == owner || uid == 0 {
        return Ok(Some(stream));
    }
    let why = format!("user {uid} listens there, who does not own the data");
    Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
}

/// Whether the other end is this process's user, or root.
fn is_owner(io: &UnixStream) -> bool {
    let own = rustix::process::geteuid().as_raw();
    io.peer_cred()
        .is_ok_and(|peer| peer.uid() == own || peer.uid() == 0)
}

/// Where the socket is.
#[derive(Debug)]
struct Place {
    /// By a path that stays true.
    lasting: PathBuf,
    /// By one that is short enough, as long as the directory is open.
    short: PathBuf,
    _directory: Option<File>,
}

impl Place {
    fn of(data: &Path) -> io::Result<Self> {
        let lasting = fs::canonicalize(data)?.join(NAME);
        let plain = |lasting: PathBuf| Self {
            short: lasting.clone(),
            lasting,
            _directory: None,
        };
        if lasting.as_os_str().len() <= MAX_PATH || !cfg!(target_os = "linux") {
            return Ok(plain(lasting));
        }
        let directory = File::open(data)?;
        let short = format!("/proc/self/fd/{}/{NAME}", directory.as_raw_fd());
        Ok(Self {
            lasting,
            short: short.into(),
            _directory: Some(directory),
        })
    }
}
