//! Sockets for the requests that agents, their code and their shells may make.

use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bowline_sandbox::egress::{EgressError, Request, Response, Wire};
use bytes::{Bytes, BytesMut};
use rustls_platform_verifier::Verifier;

/// Places whose connections are kept.
const KEPT: usize = 64;
/// How long a connection that nobody uses is kept.
const IDLE: Duration = Duration::from_secs(30);
/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(10);
/// Addresses of one name that are tried.
const ADDRESSES: usize = 16;

/// The network of this machine. It knows no policy; that is
/// [`Guarded`](bowline_sandbox::egress::Guarded)'s.
///
/// Certificates are checked as the platform does it; the proxies of the environment are not used, since
/// a proxy would choose the address.
#[derive(Debug, Default)]
pub struct Network {
    /// Clients by where they connect to: a client connects to nothing else. The last used comes last.
    clients: Mutex<VecDeque<(Place, reqwest::Client)>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    host: String,
    to: Vec<SocketAddr>,
}

impl Network {
    /// Opens nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    fn client(&self, host: &str, to: &[SocketAddr]) -> Result<reqwest::Client, String> {
        let mut to = to.to_vec();
        to.sort_unstable();
        let place = Place {
            host: host.to_owned(),
            to,
        };
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = clients.iter().position(|(other, _)| *other == place)
            && let Some(found) = clients.remove(at)
        {
            let client = found.1.clone();
            clients.push_back(found);
            return Ok(client);
        }
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls()?)
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .connect_timeout(CONNECT)
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(4)
            .resolve_to_addrs(&place.host, &place.to)
            .no_proxy()
            .user_agent(concat!("bowline/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(why)?;
        if clients.len() == KEPT {
            clients.pop_front();
        }
        clients.push_back((place, client.clone()));
        Ok(client)
    }
}

#[async_trait]
impl Wire for Network {
    async fn resolve(&self, host: &str, port: u16) -> Result<Vec<IpAddr>, String> {
        let found = tokio::net::lookup_host((host, port)).await;
        let found = found.map_err(|_| "its name is not known".to_owned())?;
        Ok(found.map(|address| address.ip()).take(ADDRESSES).collect())
    }

    async fn exchange(
        &self,
        request: Request,
        to: &[SocketAddr],
        limit: u64,
    ) -> Result<Response, EgressError> {
        let url = reqwest::Url::parse(&request.url)
            .map_err(|error| EgressError::Invalid(error.to_string()))?;
        let host = url.host_str().unwrap_or_default().to_owned();
        let broken = |why: String| EgressError::Unreachable {
            host: host.clone(),
            why,
        };
        let method = reqwest::Method::from_bytes(request.method.as_bytes())
            .map_err(|error| EgressError::Invalid(error.to_string()))?;
        let client = self.client(&host, to).map_err(broken)?;
        let mut builder = client.request(method, url);
        for (name, value) in &request.headers {
            builder = builder.header(name, value);
        }
        if !request.body.is_empty() {
            builder = builder.body(request.body);
        }
        let mut response = builder.send().await.map_err(|error| broken(why(error)))?;
        let too_large = || EgressError::ResponseTooLarge(limit);
        if response
            .content_length()
            .is_some_and(|length| length > limit)
        {
            return Err(too_large());
        }
        let headers = response.headers().iter().map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            (name.as_str().to_owned(), value)
        });
        let (status, headers) = (response.status().as_u16(), headers.collect());
        let mut body = BytesMut::new();
        while let Some(piece) = response.chunk().await.map_err(|error| broken(why(error)))? {
            if (body.len() + piece.len()) as u64 > limit {
                return Err(too_large());
            }
            body.extend_from_slice(&piece);
        }
        Ok(Response {
            status,
            url: request.url,
            headers,
            body: Bytes::from(body),
        })
    }
}

/// The innermost cause, which holds no URL.
fn why(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut cause: &dyn std::error::Error = &error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// TLS with ring and the platform's certificates, or those of Mozilla where there are none.
pub(crate) fn tls() -> Result<rustls::ClientConfig, String> {
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Verifier::new(Arc::clone(&ring)).or_else(|_none| {
        let roots = webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned();
        Verifier::new_with_extra_roots(roots, Arc::clone(&ring))
    });
    let mut tls = rustls::ClientConfig::builder_with_provider(ring)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier.map_err(|error| error.to_string())?))
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(tls)
}
