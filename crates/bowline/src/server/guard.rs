//! Who is let in: keys, the pages of other sites, rates, and how many follow at once.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use axum::{
    body::{Body, BodyDataStream, Bytes},
    extract::{Query, Request, State},
    http::{HeaderMap, HeaderValue, Method, Uri, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use futures_core::Stream;
use tokio::sync::OwnedSemaphorePermit;

use super::{
    Access, App, Peer, Refusal, Settings, local::wire::MAX_REQUEST, rates::Buckets, socket,
};

/// Headers that a page of another origin may read, where `[server] cors` lets it in.
const EXPOSED: &str = "content-range, etag, flue-error-ref, location, retry-after, stream-closed, stream-cursor, \
    stream-next-offset, stream-up-to-date, x-request-id";
/// Headers that such a page may send.
const ALLOWED: &str = "authorization, content-type, if-match, if-none-match, if-range, idempotency-key, \
    last-event-id, range, traceparent";
/// Methods that such a page may use.
const METHODS: &str = "GET, HEAD, POST, PUT, DELETE";

/// What the guard counts.
#[derive(Debug)]
pub(super) struct Guard {
    addresses: Buckets<IpAddr>,
    strangers: Buckets<IpAddr>,
    keys: Buckets<String>,
}

impl Guard {
    pub(super) fn new(settings: &Settings) -> Self {
        let now = Instant::now();
        Self {
            addresses: Buckets::new(settings.address_rate, now),
            strangers: Buckets::new(settings.stranger_rate, now),
            keys: Buckets::new(settings.key_rate, now),
        }
    }
}

/// Lets a request in, or answers it.
pub(super) async fn guard(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let origin = request.headers().get(header::ORIGIN).cloned();
    let cors = origin
        .filter(|origin| is_listed(app.settings(), origin))
        .filter(|_| !is_stream(request.uri().path()));
    let mut response = match (count(&app, &request), &cors) {
        (Err(refusal), _) => refusal.into_response(),
        (Ok(()), Some(_)) if is_preflight(&request) => preflight(),
        (Ok(()), Some(_) | None) => match admit(&app, &mut request) {
            Ok(()) => follow(&app, next.run(request).await),
            Err(refusal) => refusal.into_response(),
        },
    };
    if let Some(origin) = cors {
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static(EXPOSED),
        );
        headers.append(header::VARY, HeaderValue::from_static("origin"));
    }
    response
}

/// Counts a request of an address, whatever it asks for.
fn count(app: &App, request: &Request) -> Result<(), Refusal> {
    match request.extensions().get::<Peer>() {
        Some(Peer::Address(address)) if !address.ip().to_canonical().is_loopback() => {
            let taken = app.guard().addresses.take(caller(address), Instant::now());
            taken.map_err(Refusal::RateLimited)
        }
        Some(Peer::Address(_) | Peer::Local) | None => Ok(()),
    }
}

/// Who is counted as one: an address, and of IPv6 the network of 64 bits that one customer has.
fn caller(address: &SocketAddr) -> IpAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

fn admit(app: &App, request: &mut Request) -> Result<(), Refusal> {
    let settings = app.settings();
    let peer = request.extensions().get::<Peer>().copied();
    let now = Instant::now();
    // Health says nothing that has to be hidden, and whoever asks for it has no key. A stream's
    // preflight comes from a browser, which shows no key with it.
    let open = matches!(request.uri().path(), "/healthz" | "/readyz")
        || (request.method() == Method::OPTIONS && is_stream(request.uri().path()));
    // The application that the routes were merged into may have let the caller in by itself.
    if request.extensions().get::<Access>().is_some() {
        return Ok(());
    }
    let access = if let Some(Peer::Local) = peer {
        Access::local("socket")
    } else if settings.keys.is_empty() {
        let Some(Peer::Address(address)) = peer else {
            return Err(Refusal::Unauthorized);
        };
        from_this_machine(settings, request, address)?;
        Access::local("loopback")
    } else {
        let by_socket = shown_by_socket(request);
        let key = shown(request.headers()).or(by_socket.as_deref());
        match key.and_then(|key| settings.keys.find(key)) {
            Some(key) => {
                let taken = app.guard().keys.take(key.name.clone(), now);
                taken.map_err(Refusal::RateLimited)?;
                Access::with_key(key.clone())
            }
            None if open => Access::with_streams("anyone", Vec::new()),
            None => {
                if let Some(Peer::Address(address)) = peer {
                    let taken = app.guard().strangers.take(caller(&address), now);
                    taken.map_err(Refusal::RateLimited)?;
                }
                // A browser cannot see why a handshake was refused. It is told by how the connection is
                // closed; nothing is done for a caller without access.
                if is_conversation_socket(request) {
                    return Ok(());
                }
                return Err(Refusal::Unauthorized);
            }
        }
    };
    request.extensions_mut().insert(access);
    // What says that it is too large need not be sent first.
    let length = request.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    let most = match peer {
        Some(Peer::Local) => MAX_REQUEST,
        Some(Peer::Address(_)) | None => settings.max_body,
    };
    if length.is_some_and(|length| length > most) {
        return Err(Refusal::BodyTooLarge);
    }
    Ok(())
}

/// The key that a request shows.
fn shown(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, key) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}

/// The key that a WebSocket shows where a browser can put one: among the protocols that it offers, or in
/// the query. Nothing else may: addresses end up in logs and histories.
fn shown_by_socket(request: &Request) -> Option<String> {
    if !is_conversation_socket(request) {
        return None;
    }
    let offered = socket::protocols(request.headers());
    let among = offered.filter_map(|one| one.strip_prefix(socket::KEY_PROTOCOL));
    if let Some(key) = among.map(str::to_owned).next() {
        return Some(key);
    }
    let query = Query::<Vec<(String, String)>>::try_from_uri(request.uri()).ok()?;
    let named = query.0.into_iter().find(|(name, _)| name == "token");
    named.map(|(_, key)| key)
}

fn is_conversation_socket(request: &Request) -> bool {
    request.method() == Method::GET
        && request.uri().path().starts_with("/agents/")
        && socket::is_upgrade(request.headers())
}

/// Without keys, whoever reaches the loopback address is the owner of the data. A web page that runs
/// in a browser on this machine is not: it shows itself by its origin, or, when it had its own name
/// resolved to this machine, by the host that it asks for.
fn from_this_machine(
    settings: &Settings,
    request: &Request,
    address: SocketAddr,
) -> Result<(), Refusal> {
    if !address.ip().to_canonical().is_loopback() {
        return Err(Refusal::Unauthorized);
    }
    let uri = request.uri();
    let host = match request.headers().get(header::HOST) {
        Some(host) => host.to_str().ok().and_then(host_of),
        None => uri.host().map(str::to_owned),
    };
    // HTTP/1.0 without a host comes from no browser.
    if let Some(host) = host
        && !is_own_host(settings, &host)
    {
        return Err(Refusal::HostNotAllowed);
    } else if request.headers().contains_key(header::HOST)
        && request.headers().get_all(header::HOST).iter().count() != 1
    {
        return Err(Refusal::HostNotAllowed);
    }
    let Some(origin) = request.headers().get(header::ORIGIN) else {
        return Ok(());
    };
    // Streams say by themselves what a foreign page may do.
    if is_stream(uri.path()) || is_listed(settings, origin) {
        return Ok(());
    }
    match host_of_origin(origin) {
        Some(host) if is_own_host(settings, &host) => Ok(()),
        Some(_) | None => Err(Refusal::OriginNotAllowed),
    }
}

fn host_of_origin(origin: &HeaderValue) -> Option<String> {
    let uri: Uri = origin.to_str().ok()?.parse().ok()?;
    uri.host().map(str::to_owned)
}

/// The host of a `Host` header, without its port.
fn host_of(value: &str) -> Option<String> {
    let uri: Uri = value.parse().ok()?;
    uri.host().map(str::to_owned)
}

fn is_this_machine(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.eq_ignore_ascii_case("localhost")
        || bare.to_ascii_lowercase().ends_with(".localhost")
        || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn is_own_host(settings: &Settings, host: &str) -> bool {
    let local = is_this_machine(host);
    let public = || {
        let url = settings.public_url.as_deref()?;
        let uri: Uri = url.parse().ok()?;
        uri.host().map(|own| own.eq_ignore_ascii_case(host))
    };
    local || public().unwrap_or(false)
}

fn is_listed(settings: &Settings, origin: &HeaderValue) -> bool {
    let local =
        || settings.cors_local && host_of_origin(origin).is_some_and(|host| is_this_machine(&host));
    settings
        .cors
        .iter()
        .any(|listed| listed.as_bytes() == origin.as_bytes())
        || local()
}

fn is_stream(path: &str) -> bool {
    path.starts_with("/v1/stream/")
}

fn is_preflight(request: &Request) -> bool {
    request.method() == Method::OPTIONS
        && request
            .headers()
            .contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

fn preflight() -> Response {
    let mut response = axum::http::StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    for (name, value) in [
        (header::ACCESS_CONTROL_ALLOW_METHODS, METHODS),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED),
        (header::ACCESS_CONTROL_MAX_AGE, "600"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Event streams take one of a bounded number of places, for as long as they last.
fn follow(app: &App, response: Response) -> Response {
    let kind = response.headers().get(header::CONTENT_TYPE);
    let events = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
    if !events {
        return response;
    }
    let places = &app.telemetry().places().events;
    match places.room.clone().try_acquire_owned() {
        Ok(place) => response.map(|body| {
            Body::from_stream(Following {
                body: body.into_data_stream(),
                _place: place,
            })
        }),
        Err(_) => Refusal::RateLimited(5).into_response(),
    }
}

/// An event stream in its place.
struct Following {
    body: BodyDataStream,
    _place: OwnedSemaphorePermit,
}

impl Stream for Following {
    type Item = Result<Bytes, axum::Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.body).poll_next(cx)
    }
}
