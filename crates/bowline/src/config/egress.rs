//! `[egress]`: what every agent may reach, and how the hosts know who asks.

use bowline_agent::definition::document::Node;
use bowline_agent::definition::{Fault, FaultKind, allow_list};
use bowline_sandbox::egress::Allow;

use super::bindings::{Auth, auth};

/// `[egress]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Egress {
    /// `allow`: what every agent may reach on the network, besides its own `egress`. Default: nothing.
    pub allow: Allow,
    /// `[egress.auth."HOST"]`: credentials for hosts that are allowed, attached here. They allow nothing by
    /// themselves.
    pub auth: Vec<HostAuth>,
}

/// One `[egress.auth."HOST"]`.
#[derive(Clone, Debug, PartialEq)]
pub struct HostAuth {
    /// The one pattern: where the credential goes.
    pub to: Allow,
    /// How it is sent, and where it is.
    pub auth: Auth,
}

pub(super) fn read(node: &Node) -> Result<Egress, Fault> {
    let keys = node.table("egress", &["allow", "auth"])?;
    let mut found = Egress::default();
    if let Some(node) = keys.get("allow") {
        found.allow = allow_list(node)?;
    }
    let Some(node) = keys.get("auth") else {
        return Ok(found);
    };
    for (pattern, line, node) in node.entries("auth")?.iter() {
        let wrong = |why: &str| {
            Fault::new(
                FaultKind::InvalidValue,
                Some(line),
                format!("`{pattern}` gets no credential: {why}"),
                "write `host[:port][/path]` in quotes, as in `[egress.auth.\"git.example.com\"]`",
            )
        };
        let to = Allow::new([pattern]).map_err(|error| wrong(error.why))?;
        if !to.names_hosts() {
            return Err(wrong("a `*` does not say which host may have it"));
        }
        let auth = auth(node)?;
        found.auth.push(HostAuth { to, auth });
    }
    Ok(found)
}
