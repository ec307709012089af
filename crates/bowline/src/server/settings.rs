//! How the server listens, and its bounds.

use std::{net::SocketAddr, time::Duration};

use super::{Keys, Rate, Tls};

/// How a server listens. Every bound has a default.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where it listens. Port 0 takes any free one. Default `127.0.0.1:8787`.
    pub addr: SocketAddr,
    /// The URL that clients see, without a path behind it, where a proxy stands in front. Default: what
    /// the request's `Host` says.
    pub public_url: Option<String>,
    /// Who is let in. Without keys only the loopback address is served, and whoever reaches it is the
    /// owner of the data.
    pub keys: Keys,
    /// The certificate. Default: plain HTTP.
    pub tls: Option<Tls>,
    /// Origins whose pages may use the server, such as `https://app.example`. Default none.
    pub cors: Vec<String>,
    /// Whether pages that this machine serves, such as `http://localhost:5173`, may use the server too.
    /// Default no; for development.
    pub cors_local: bool,
    /// Requests of one address that is not loopback. Default 200 a second.
    pub address_rate: Rate,
    /// Requests of one address without a key that is known. Default 10 a second.
    pub stranger_rate: Rate,
    /// Requests with one key. Default 2,000 a second.
    pub key_rate: Rate,
    /// Most event streams at once, and most WebSockets; further ones get `rate_limited`, or are closed with
    /// 1013. Default 12,000.
    pub max_followers: usize,
    /// Longest time for a reader to take what is sent; then it is cut. Default 30 s.
    pub write_timeout: Duration,
    /// Largest body of a request, in bytes. Default 32 MiB.
    pub max_body: usize,
    /// Longest time for the head of a request to arrive, and for an idle connection to stay. Default 30 s.
    pub head_timeout: Duration,
    /// Longest time for the body of a request to arrive. Default 60 s.
    pub body_timeout: Duration,
    /// Most connections at once; further ones wait to be accepted. Default 16,384.
    pub max_connections: usize,
    /// How long a long poll waits for something new. Default 30 s.
    pub long_poll: Duration,
    /// How long what readers of a conversation share stays when nobody reads, so that a client that polls
    /// finds it. Default 45 s.
    pub linger: Duration,
    /// How often a quiet event stream says that it is alive. Default 15 s.
    pub heartbeat: Duration,
    /// How long a stop may take before connections are cut. Default 30 s.
    pub drain: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            addr: SocketAddr::from(([127, 0, 0, 1], 8787)),
            public_url: None,
            keys: Keys::default(),
            tls: None,
            cors: Vec::new(),
            cors_local: false,
            address_rate: Rate::per_second(200),
            stranger_rate: Rate::per_second(10),
            key_rate: Rate::per_second(2_000),
            max_followers: 12_000,
            write_timeout: Duration::from_secs(30),
            max_body: 32 * 1024 * 1024,
            head_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(60),
            max_connections: 16_384,
            long_poll: Duration::from_secs(30),
            linger: Duration::from_secs(45),
            heartbeat: Duration::from_secs(15),
            drain: Duration::from_secs(30),
        }
    }
}
