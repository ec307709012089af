//! The policy of requests.

use std::{net::SocketAddr, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Semaphore;
use url::{Host, Url};

use super::{
    Allow, Credential, EgressError, EgressLimits, Outside, Request, Response, Wire,
    allow::{is_local_name, origin, parse},
};

/// Headers that are the connection's own, or that would change how a request is read.
const OWN: &[&str] = &[
    "host",
    "connection",
    "content-length",
    "expect",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// Headers that do not follow a redirect to another origin.
const PRIVATE: &[&str] = &["authorization", "cookie", "x-api-key", "x-auth-token"];
/// Headers by which a body comes back in a form that a credential is not found in.
const HIDING: &[&str] = &["accept-encoding", "range", "if-range"];
/// Headers that tell of a body.
const OF_BODY: &[&str] = &["content-type", "content-encoding", "content-language"];
/// Headers of one request.
const MAX_HEADERS: usize = 100;
/// Bytes of a URL.
const MAX_URL: usize = 16 << 10;

/// Requests over a [`Wire`] under an allow-list and limits. Cheap to clone; clones share the limits.
#[derive(Debug, Clone)]
pub struct Guarded {
    wire: Arc<dyn Wire>,
    allow: Allow,
    limits: EgressLimits,
    credentials: Vec<Held>,
    room: Arc<Semaphore>,
}

/// A credential, and where it goes; without that, everywhere that is allowed.
#[derive(Debug, Clone)]
struct Held {
    to: Option<Allow>,
    credential: Credential,
}

impl Guarded {
    /// Requests to what `allow` allows.
    pub fn new(wire: Arc<dyn Wire>, allow: Allow, limits: EgressLimits) -> Self {
        Self {
            wire,
            allow,
            limits,
            credentials: Vec::new(),
            room: Arc::new(Semaphore::new(limits.concurrency.max(1))),
        }
    }

    /// With a credential, which goes to the origin of each request and never along a redirect to
    /// another one. Over plain HTTP it goes only to this machine, or where a pattern says `http://`.
    #[must_use]
    pub fn with_credential(self, credential: Credential) -> Self {
        self.holding(None, credential)
    }

    /// With a credential for what `to` matches and nothing else; of several the one whose pattern names
    /// most of the path goes along. It allows nothing: what is asked must be on the allow-list as well, and
    /// by the name of its host: who may ask everybody has not been given every authority.
    /// Otherwise as [`Guarded::with_credential`], the `http://` being that of `to`.
    #[must_use]
    pub fn with_credential_for(self, to: Allow, credential: Credential) -> Self {
        self.holding(Some(to), credential)
    }

    fn holding(mut self, to: Option<Allow>, credential: Credential) -> Self {
        self.credentials.push(Held { to, credential });
        self
    }

    /// The allow-list.
    pub fn allow(&self) -> &Allow {
        &self.allow
    }

    async fn follow(&self, mut request: Request, first: &Url) -> Result<Response, EgressError> {
        let mut url = first.clone();
        let mut left = self.limits.redirects;
        // Whoever is elsewhere does not decide where a credential goes, not even back.
        let mut at_home = true;
        loop {
            let held = self.held(&url).filter(|_| at_home);
            let response = self.hop(&request, &url, held).await?;
            let next = match (response.status, response.header("location")) {
                (301 | 302 | 303 | 307 | 308, Some(location)) if self.limits.redirects > 0 => {
                    url.join(location).map_err(|_| {
                        EgressError::Invalid(format!("{} redirects to no URL", origin(&url)))
                    })?
                }
                _ => return Ok(self.cleaned(response, url)),
            };
            left = left
                .checked_sub(1)
                .ok_or(EgressError::Redirects(self.limits.redirects))?;
            let next = parse(next.as_str())?;
            let get = match response.status {
                303 => request.method != "HEAD",
                301 | 302 => request.method == "POST",
                _ => false,
            };
            if get {
                "GET".clone_into(&mut request.method);
                request.body = Bytes::new();
                request
                    .headers
                    .retain(|(name, _)| !is_one_of(name, OF_BODY));
            }
            if next.origin() != url.origin() {
                request
                    .headers
                    .retain(|(name, _)| !is_one_of(name, PRIVATE));
            }
            at_home &= next.origin() == first.origin();
            url = next;
        }
    }

    /// The credential for a URL.
    fn held(&self, url: &Url) -> Option<&Held> {
        let mut found: Option<(usize, &Held)> = None;
        for held in &self.credentials {
            let fit = match &held.to {
                None => Some(0),
                Some(to) => to.closeness(url),
            };
            if let Some(fit) = fit
                && found.is_none_or(|(best, _)| fit > best)
            {
                found = Some((fit, held));
            }
        }
        found.map(|(_, held)| held)
    }

    /// One exchange, after all that can be checked before it.
    async fn hop(
        &self,
        request: &Request,
        url: &Url,
        held: Option<&Held>,
    ) -> Result<Response, EgressError> {
        let allowed = self.allow.allowed(url)?;
        let port = url.port_or_known_default().unwrap_or(443);
        let addresses = match url.host() {
            Some(Host::Ipv4(address)) => vec![address.into()],
            Some(Host::Ipv6(address)) => vec![address.into()],
            Some(Host::Domain(name)) => {
                let found = self.wire.resolve(name, port).await;
                found.map_err(|why| EgressError::Unreachable {
                    host: name.to_owned(),
                    why: self.redacted(&why),
                })?
            }
            None => Vec::new(),
        };
        // One address that is somebody's own among public ones is a trick as well.
        if addresses.is_empty() || !addresses.iter().all(|address| allowed.may_be_at(*address)) {
            return Err(EgressError::Private(host(url)));
        }
        let to: Vec<SocketAddr> = addresses
            .iter()
            .map(|address| (*address, port).into())
            .collect();
        let mut request = Request {
            url: url.to_string(),
            ..request.clone()
        };
        let held = held.filter(|held| held.to.is_none() || allowed.explicit);
        if let Some(held) = held {
            self.may_carry(url, held)?;
            request.headers.retain(|(name, _)| !is_one_of(name, HIDING));
            held.credential.attach(&mut request, &mut url.clone())?;
        }
        let done = self.wire.exchange(request, &to, self.limits.response).await;
        done.map_err(|error| match error {
            EgressError::Unreachable { host, why } => EgressError::Unreachable {
                host,
                why: self.redacted(&why),
            },
            EgressError::Invalid(why) => EgressError::Invalid(self.redacted(&why)),
            error => error,
        })
    }

    /// Whether a credential may be sent there.
    fn may_carry(&self, url: &Url, held: &Held) -> Result<(), EgressError> {
        let local = match url.host() {
            Some(Host::Domain(name)) => is_local_name(name),
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        };
        let plain = held.to.as_ref().unwrap_or(&self.allow).asks_for_plain(url);
        if url.scheme() == "https" || local || plain {
            return Ok(());
        }
        let why = format!(
            "{} would get the credential over plain HTTP; use https",
            origin(url)
        );
        Err(EgressError::Invalid(why))
    }

    fn cleaned(&self, mut response: Response, mut url: Url) -> Response {
        for Held { to, credential } in &self.credentials {
            if to.as_ref().is_none_or(|to| to.closeness(&url).is_some()) {
                credential.detach(&mut url);
            }
            for (_, value) in &mut response.headers {
                *value = credential.redact(value);
            }
            response.body = credential.redact_body(response.body);
        }
        response.url = url.into();
        response
    }

    fn redacted(&self, text: &str) -> String {
        let credentials = self.credentials.iter();
        credentials.fold(text.to_owned(), |text, held| held.credential.redact(&text))
    }
}

#[async_trait]
impl Outside for Guarded {
    async fn send(&self, request: Request) -> Result<Response, EgressError> {
        let url = checked(&request, &self.limits)?;
        let time = self.limits.time;
        let work = async {
            // The semaphore is never closed.
            let _room = self.room.acquire().await;
            self.follow(request, &url).await
        };
        let done = tokio::time::timeout(time, work).await;
        done.unwrap_or_else(|_| {
            Err(EgressError::Timeout {
                host: host(&url),
                time,
            })
        })
    }
}

/// Refuses a request that makes no sense, or that a server could read in two ways.
fn checked(request: &Request, limits: &EgressLimits) -> Result<Url, EgressError> {
    let invalid = |why: String| Err(EgressError::Invalid(why));
    if request.url.len() > MAX_URL {
        return invalid(format!("the URL has more than {MAX_URL} bytes"));
    }
    let url = parse(&request.url)?;
    let method = request.method.as_str();
    if method.is_empty() || method.len() > 32 || !method.bytes().all(|b| b.is_ascii_uppercase()) {
        return invalid("the method must be a word in capitals, such as POST".to_owned());
    }
    if matches!(method, "CONNECT" | "TRACE") {
        return invalid(format!("{method} is not sent"));
    }
    if request.headers.len() > MAX_HEADERS {
        return invalid(format!("it has more than {MAX_HEADERS} headers"));
    }
    for (name, value) in &request.headers {
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if name.is_empty() || name.len() > 256 || !name.bytes().all(token) {
            return invalid("a header has an impossible name".to_owned());
        }
        if is_one_of(name, OWN) {
            return invalid(format!(
                "the header `{}` is not yours to set",
                name.to_ascii_lowercase()
            ));
        }
        if value.len() > MAX_URL || value.bytes().any(|b| b < 0x20 && b != b'\t' || b == 0x7f) {
            return invalid(format!(
                "the header `{}` has an impossible value",
                name.to_ascii_lowercase()
            ));
        }
    }
    if request.body.len() as u64 > limits.request {
        return Err(EgressError::RequestTooLarge(limits.request));
    }
    Ok(url)
}

fn is_one_of(name: &str, names: &[&str]) -> bool {
    names.iter().any(|other| name.eq_ignore_ascii_case(other))
}

fn host(url: &Url) -> String {
    url.host_str().unwrap_or_default().to_owned()
}
