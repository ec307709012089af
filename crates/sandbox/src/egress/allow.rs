//! Which URLs may be asked.

use std::{net::IpAddr, sync::Arc};

use url::{Host, Url};

use super::{
    EgressError,
    address::{is_private_network, is_public},
};

/// Patterns `host[:port][/path]` that a URL has to match one of. Empty, as by default, allows nothing.
///
/// - `host` is a name, an address, `*.example.com` for every name below `example.com`, or `*` for every
///   name and address.
/// - Without a port the standard ones are meant: 443 for `https`, 80 for `http`. `:*` means any port.
/// - `/path` is the start of the path, by whole names: `/v1` allows `/v1` and `/v1/items`, not `/v10`.
/// - `https://` or `http://` may stand before it, and then only this scheme is allowed.
///
/// A host that is written out may lie in a private network; what only a wildcard allows may not. This
/// machine is reached as `localhost` or by its address alone, so no other name can lead to it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allow(Arc<[Pattern]>);

/// A pattern cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{pattern}` cannot be allowed: {why}; write `host[:port][/path]`, for example `api.example.com`"
)]
pub struct PatternError {
    /// The pattern.
    pub pattern: String,
    /// What is wrong with it.
    pub why: &'static str,
}

impl PatternError {
    /// The stable type that users see.
    pub fn code(&self) -> &'static str {
        "egress_pattern"
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Pattern {
    text: String,
    scheme: Option<&'static str>,
    host: HostPattern,
    port: Port,
    /// Without a `/` at its end; empty for any.
    path: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum HostPattern {
    Any,
    /// `.example.com`
    Below(String),
    Name(String),
    Address(IpAddr),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Port {
    Standard,
    Any,
    Number(u16),
}

/// A URL that may be asked, if its host leads to the right addresses.
#[derive(Debug, Clone)]
pub(super) struct Allowed {
    pub(super) url: Url,
    /// Whether a pattern names the host, as opposed to a wildcard.
    pub(super) explicit: bool,
}

impl Allow {
    /// From patterns.
    ///
    /// # Errors
    ///
    /// [`PatternError`].
    pub fn new<S: AsRef<str>>(patterns: impl IntoIterator<Item = S>) -> Result<Self, PatternError> {
        let patterns = patterns
            .into_iter()
            .map(|text| Pattern::parse(text.as_ref()));
        Ok(Self(patterns.collect::<Result<_, _>>()?))
    }

    /// Whether it allows nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The patterns as they were written.
    pub fn patterns(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|pattern| pattern.text.as_str())
    }

    /// Whether a URL may be asked, its addresses apart.
    ///
    /// # Errors
    ///
    /// [`EgressError::Denied`], [`EgressError::Invalid`].
    pub fn check(&self, url: &str) -> Result<(), EgressError> {
        self.allowed(&parse(url)?).map(|_| ())
    }

    /// Whether each pattern names one host, and not any, or any below one.
    pub fn names_hosts(&self) -> bool {
        self.0.iter().all(Pattern::names_host)
    }

    /// The patterns that name one host.
    #[must_use]
    pub fn named(&self) -> Self {
        let named = self.0.iter().filter(|pattern| pattern.names_host());
        Self(named.cloned().collect())
    }

    /// Whether there may be a URL that both allow.
    pub fn meets(&self, other: &Self) -> bool {
        let mut pairs = self
            .0
            .iter()
            .flat_map(|one| other.0.iter().map(move |two| (one, two)));
        pairs.any(|(one, two)| one.meets(two))
    }

    /// How much of the path the closest pattern for a URL names, in bytes; none when no pattern has it.
    pub(super) fn closeness(&self, url: &Url) -> Option<usize> {
        let matching = self.0.iter().filter(|pattern| pattern.matches(url));
        matching.map(|pattern| pattern.path.len()).max()
    }

    /// Whether a pattern that says `http://` allows a URL.
    pub(super) fn asks_for_plain(&self, url: &Url) -> bool {
        let plain = |pattern: &&Pattern| pattern.scheme == Some("http");
        self.0
            .iter()
            .filter(plain)
            .any(|pattern| pattern.matches(url))
    }

    pub(super) fn allowed(&self, url: &Url) -> Result<Allowed, EgressError> {
        let matching = || self.0.iter().filter(|pattern| pattern.matches(url));
        if matching().next().is_none() {
            return Err(EgressError::Denied(origin(url)));
        }
        let explicit = matching().any(Pattern::names_host);
        Ok(Allowed {
            url: url.clone(),
            explicit,
        })
    }
}

impl Allowed {
    /// Whether the host may have this address.
    pub(super) fn may_be_at(&self, address: IpAddr) -> bool {
        match self.url.host() {
            Some(Host::Domain(name)) if is_local_name(name) => {
                self.explicit && address.to_canonical().is_loopback()
            }
            Some(Host::Domain(_)) => {
                is_public(address) || (self.explicit && is_private_network(address))
            }
            Some(Host::Ipv4(_) | Host::Ipv6(_)) => self.explicit || is_public(address),
            None => false,
        }
    }
}

/// Names of this machine.
pub(super) fn is_local_name(name: &str) -> bool {
    let name = name.trim_end_matches('.');
    name == "localhost" || name.ends_with(".localhost")
}

/// A URL that this speaks: HTTP, with a host, without a name and password, without a fragment.
pub(super) fn parse(url: &str) -> Result<Url, EgressError> {
    let invalid = |why: &str| EgressError::Invalid(why.to_owned());
    let mut url =
        Url::parse(url).map_err(|error| invalid(&format!("the URL is wrong: {error}")))?;
    if !matches!(url.scheme(), "https" | "http") {
        return Err(invalid("the URL must begin with https:// or http://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(invalid("the URL must not hold a name or password"));
    }
    // `example.com.` is `example.com`.
    if let Some(name) = url.domain().and_then(|name| name.strip_suffix('.')) {
        let name = name.to_owned();
        url.set_host(Some(&name))
            .map_err(|_| invalid("the URL has an impossible host"))?;
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(invalid("the URL has no host"));
    }
    url.set_fragment(None);
    Ok(url)
}

/// Scheme, host and port, for messages.
pub(super) fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, PatternError> {
        let wrong = |why| PatternError {
            pattern: text.to_owned(),
            why,
        };
        let rest = text.trim();
        let (scheme, rest) = match rest.split_once("://") {
            None => (None, rest),
            Some(("https", rest)) => (Some("https"), rest),
            Some(("http", rest)) => (Some("http"), rest),
            Some(_) => return Err(wrong("only https and http are spoken")),
        };
        if rest.contains(['?', '#', '@', '\\', '%']) || rest.contains(char::is_whitespace) {
            return Err(wrong("it has a character that no host or path has"));
        }
        let (host, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let path = path.trim_end_matches('/');
        if path
            .split('/')
            .skip(1)
            .any(|name| matches!(name, "" | "." | ".."))
        {
            return Err(wrong("its path has an empty name or dots"));
        }
        if path.contains('*') {
            return Err(wrong("a path is a beginning and takes no `*`"));
        }
        let (host, port) = match host.rsplit_once(':') {
            // The last colon of an address of IPv6 is inside of its brackets.
            Some((name, port)) if !port.ends_with(']') => (
                name,
                port_of(port).ok_or_else(|| wrong("its port is no number"))?,
            ),
            _ => (host, Port::Standard),
        };
        let host = match host {
            "" => return Err(wrong("it has no host")),
            "*" => HostPattern::Any,
            _ => match host.strip_prefix("*.") {
                Some(below) => match Host::parse(below) {
                    Ok(Host::Domain(name)) if !name.contains('*') => {
                        HostPattern::Below(format!(".{name}"))
                    }
                    _ => return Err(wrong("what follows `*.` is no name")),
                },
                None if host.contains('*') => {
                    return Err(wrong("`*` stands for a whole host or for its first names"));
                }
                None => match Host::parse(host) {
                    Ok(Host::Domain(name)) => {
                        HostPattern::Name(name.trim_end_matches('.').to_owned())
                    }
                    Ok(Host::Ipv4(address)) => HostPattern::Address(address.into()),
                    Ok(Host::Ipv6(address)) => HostPattern::Address(address.into()),
                    Err(_) => return Err(wrong("its host is no name and no address")),
                },
            },
        };
        Ok(Self {
            text: text.to_owned(),
            scheme,
            host,
            port,
            path: path.to_owned(),
        })
    }

    fn names_host(&self) -> bool {
        match self.host {
            HostPattern::Name(_) | HostPattern::Address(_) => true,
            HostPattern::Any | HostPattern::Below(_) => false,
        }
    }

    /// Whether a URL may match both.
    fn meets(&self, other: &Self) -> bool {
        let scheme = match (self.scheme, other.scheme) {
            (Some(one), Some(two)) => one == two,
            (None, _) | (_, None) => true,
        };
        let port = match (self.port, other.port) {
            (Port::Any, _) | (_, Port::Any) => true,
            // Which number is meant depends on the scheme.
            (Port::Standard, Port::Standard) => true,
            (Port::Number(one), Port::Number(two)) => one == two,
            (Port::Standard, Port::Number(port)) | (Port::Number(port), Port::Standard) => {
                matches!(port, 80 | 443)
            }
        };
        let within = |path: &str, start: &str| {
            let rest = path.strip_prefix(start);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let path = within(&self.path, &other.path) || within(&other.path, &self.path);
        scheme && port && path && self.host.meets(&other.host)
    }

    fn matches(&self, url: &Url) -> bool {
        let host = match (&self.host, url.host()) {
            (HostPattern::Any, Some(_)) => true,
            (HostPattern::Below(suffix), Some(Host::Domain(name))) => name.ends_with(suffix),
            (HostPattern::Name(name), Some(Host::Domain(other))) => name == other,
            (HostPattern::Address(address), Some(Host::Ipv4(other))) => {
                *address == IpAddr::V4(other)
            }
            (HostPattern::Address(address), Some(Host::Ipv6(other))) => {
                *address == IpAddr::V6(other)
            }
            (
                HostPattern::Any
                | HostPattern::Below(_)
                | HostPattern::Name(_)
                | HostPattern::Address(_),
                _,
            ) => false,
        };
        let port = match self.port {
            Port::Any => true,
            Port::Standard => url.port().is_none(),
            Port::Number(port) => url.port_or_known_default() == Some(port),
        };
        host && port
            && self.scheme.is_none_or(|scheme| scheme == url.scheme())
            && self.has(url.path())
    }

    /// Whether a path begins as it should. What hides a `/` or a dot is not taken.
    fn has(&self, path: &str) -> bool {
        if self.path.is_empty() {
            return true;
        }
        let lower = path.to_ascii_lowercase();
        let hidden = ["%2f", "%5c", "%2e", "%00"]
            .iter()
            .any(|code| lower.contains(code));
        let rest = path.strip_prefix(self.path.as_str());
        !hidden && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl HostPattern {
    fn meets(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) | (_, Self::Any) => true,
            (Self::Below(one), Self::Below(two)) => one.ends_with(two) || two.ends_with(one),
            (Self::Below(suffix), Self::Name(name)) | (Self::Name(name), Self::Below(suffix)) => {
                name.ends_with(suffix)
            }
            (Self::Name(_) | Self::Address(_), Self::Name(_) | Self::Address(_)) => self == other,
            (Self::Below(_), Self::Address(_)) | (Self::Address(_), Self::Below(_)) => false,
        }
    }
}

fn port_of(text: &str) -> Option<Port> {
    match text {
        "*" => Some(Port::Any),
        text => text
            .parse()
            .ok()
            .filter(|port| *port != 0)
            .map(Port::Number),
    }
}
