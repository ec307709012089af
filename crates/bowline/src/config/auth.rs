//! `[auth]` and `[server]`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bowline_agent::definition::document::Node;
use bowline_agent::definition::{Fault, FaultKind};

use super::{Server, ServerLimits};
use crate::server::{Key, KeyHash, MAX_KEYS, Scope, StreamGrant};
use crate::telemetry::log::Format;

/// Where the certificate of a server is, and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The chain, PEM.
    pub cert: PathBuf,
    /// The private key, PEM.
    pub key: PathBuf,
}

/// What [`address`] takes.
pub(crate) const ADDRESS: &str = "an IP address and port, or `localhost` and port,";

/// Where to listen. `localhost` is 127.0.0.1, and so is a port alone: no name is looked up.
pub(crate) fn address(text: &str) -> Option<SocketAddr> {
    let text = text.trim();
    if let Ok(addr) = text.parse() {
        return Some(addr);
    }
    let port = text.strip_prefix("localhost:").unwrap_or(text);
    // Neither a sign nor a blank belongs to a port.
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    let port = port.parse().ok().filter(|_| digits)?;
    Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
}

pub(super) fn server(node: &Node, project: &Path) -> Result<Server, Fault> {
    let table = node.table(
        "server",
        &[
            "addr",
            "public_url",
            "cors",
            "tls",
            "log",
            "drain",
            "limits",
        ],
    )?;
    let mut server = Server::default();
    if let Some(node) = table.get("addr") {
        server.addr = address(node.text("addr")?)
            .ok_or_else(|| node.wants("addr", &format!("{ADDRESS} such as `127.0.0.1:8787`")))?;
    }
    let is_url = |text: &str| text.starts_with("https://") || text.starts_with("http://");
    if let Some(node) = table.get("public_url") {
        let url = node.line_of_text("public_url")?;
        if !is_url(url) {
            return Err(node.wants("public_url", "a URL such as `https://agents.example`"));
        }
        server.public_url = Some(url.trim_end_matches('/').to_owned());
    }
    if let Some(node) = table.get("cors") {
        for origin in node.list("cors")? {
            let text = origin.line_of_text("cors")?;
            if !is_url(text) || text.matches('/').count() != 2 || text.contains('*') {
                return Err(origin.wants("cors", "an origin such as `https://app.example`"));
            }
            server.cors.push(text.to_owned());
        }
    }
    if let Some(node) = table.get("drain") {
        const HOUR: Duration = Duration::from_secs(3_600);
        server.drain = node.duration("drain", Duration::ZERO, HOUR)?;
    }
    if let Some(node) = table.get("limits") {
        server.limits = limits(node)?;
    }
    if let Some(node) = table.get("log") {
        let words = [Format::Human.word(), Format::Json.word()];
        let word = node.word("log", &words)?;
        server.log = Format::of_word(word).unwrap_or_default();
    }
    if let Some(node) = table.get("tls") {
        let table = node.table("tls", &["cert", "key"])?;
        let file = |key: &str| {
            let node = table.require(key, "give both `cert` and `key`, PEM files")?;
            node.line_of_text(key).map(|file| project.join(file))
        };
        server.tls = Some(Certificate {
            cert: file("cert")?,
            key: file("key")?,
        });
    }
    Ok(server)
}

fn limits(node: &Node) -> Result<ServerLimits, Fault> {
    const MOST: u64 = 1_000_000;
    let table = node.table(
        "limits",
        &[
            "address_rate",
            "stranger_rate",
            "key_rate",
            "followers",
            "connections",
            "body_mib",
        ],
    )?;
    let number = |name: &str, least, most| -> Result<Option<u32>, Fault> {
        let count = table.get(name).map(|node| node.count(name, least, most));
        Ok(count.transpose()?.and_then(|count| count.try_into().ok()))
    };
    Ok(ServerLimits {
        address_rate: number("address_rate", 0, MOST)?,
        stranger_rate: number("stranger_rate", 1, MOST)?,
        key_rate: number("key_rate", 0, MOST)?,
        followers: number("followers", 1, MOST)?,
        connections: number("connections", 1, MOST)?,
        body_mib: number("body_mib", 1, 256)?,
    })
}

pub(super) fn keys(node: &Node) -> Result<Vec<Key>, Fault> {
    let table = node.table("auth", &["keys"])?;
    let Some(node) = table.get("keys") else {
        return Ok(Vec::new());
    };
    let list = node.list("keys")?;
    if list.len() > MAX_KEYS {
        return Err(node.wants("keys", "at most 10,000 keys"));
    }
    let mut keys = Vec::<Key>::new();
    for node in list {
        let key = key(node)?;
        if keys.iter().any(|other| other.name == key.name) {
            return Err(Fault::new(
                FaultKind::InvalidValue,
                Some(node.line()),
                format!("there are two keys with the name `{}`", key.name),
                "give each key a name of its own: logs and rates go by it",
            ));
        }
        keys.push(key);
    }
    Ok(keys)
}

fn key(node: &Node) -> Result<Key, Fault> {
    let table = node.table("keys", &["name", "hash", "agents", "scopes", "streams"])?;
    let hint = "write the line that `bowline auth new` prints";
    let name = table
        .require("name", hint)?
        .line_of_text("name")?
        .to_owned();
    let node = table.require("hash", hint)?;
    let hash = KeyHash::parse(node.line_of_text("hash")?)
        .ok_or_else(|| node.wants("hash", "`sha256:` and 64 hexadecimal digits, never the key"))?;
    let agents = match table.get("agents") {
        Some(node) => texts(node, "agents")?,
        None => vec!["*".to_owned()],
    };
    let mut scopes = Vec::new();
    if let Some(node) = table.get("scopes") {
        for node in node.list("scopes")? {
            let word = node.word("scopes", &["read", "send", "admin"])?;
            scopes.extend(Scope::of_word(word));
        }
    }
    let mut streams = Vec::new();
    if let Some(node) = table.get("streams") {
        for node in node.list("streams")? {
            let table = node.table("streams", &["prefix", "write"])?;
            let prefix = table.require("prefix", "give the beginning of the paths, or \"\"")?;
            let write = table.get("write").map(|node| node.bool("write"));
            streams.push(StreamGrant {
                prefix: prefix.text("prefix")?.trim_start_matches('/').to_owned(),
                write: write.transpose()?.unwrap_or(false),
            });
        }
    }
    Ok(Key {
        name,
        hash,
        agents,
        scopes,
        streams,
    })
}

fn texts(node: &Node, name: &str) -> Result<Vec<String>, Fault> {
    let list = node.list(name)?.iter();
    list.map(|node| node.line_of_text(name).map(str::to_owned))
        .collect()
}
