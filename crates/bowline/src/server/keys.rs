//! Keys: what a caller shows, what is kept of it, and what it allows.
//!
//! A key is `bwl_` and 300 random bits. Only its SHA-256 is kept: with so many random bits there is
//! nothing to guess, so a slow hash would protect nothing and cost every request.

use std::{fmt, sync::Arc};

use bowline_runtime::Sources;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::access::{Scope, StreamGrant};

/// How a key begins, so that scanners for leaked secrets find it.
const PREFIX: &str = "bwl_";
/// How a kept hash begins.
const HASH: &str = "sha256:";
/// Most keys of a server.
pub const MAX_KEYS: usize = 10_000;
/// Longest key that is looked at.
const LONGEST: usize = 256;

/// What is kept of a key. Two of them are compared in constant time, wherever that is done.
#[derive(Clone, Eq)]
pub struct KeyHash([u8; 32]);

impl PartialEq for KeyHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHash(…)")
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HASH)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl KeyHash {
    /// The hash of a key.
    pub fn of(key: &str) -> Self {
        Self(Sha256::digest(key.as_bytes()).into())
    }

    /// Reads `sha256:` and 64 hexadecimal digits. `None` when it is anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix(HASH)?;
        if digits.len() != 64 || !digits.is_ascii() {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self(bytes))
    }
}

/// One key, with what it allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// A name for logs.
    pub name: String,
    /// What is kept of the key.
    pub hash: KeyHash,
    /// Which agents: a name, or a beginning followed by `*`.
    pub agents: Vec<String>,
    /// What may be done with them. [`Scope::Admin`] includes the others.
    pub scopes: Vec<Scope>,
    /// Which streams.
    pub streams: Vec<StreamGrant>,
}

impl Key {
    pub(super) fn allows(&self, scope: Scope, agent: &str) -> bool {
        let fits = |pattern: &String| match pattern.strip_suffix('*') {
            Some(beginning) => agent.starts_with(beginning),
            None => pattern == agent,
        };
        self.has(scope) && self.agents.iter().any(fits)
    }

    pub(super) fn allows_all(&self, scope: Scope) -> bool {
        self.has(scope) && self.agents.iter().any(|pattern| pattern == "*")
    }

    fn has(&self, scope: Scope) -> bool {
        self.scopes
            .iter()
            .any(|has| *has == scope || *has == Scope::Admin)
    }
}

/// The keys of a server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keys(Arc<[Arc<Key>]>);

impl Keys {
    /// These keys; what exceeds [`MAX_KEYS`] is not looked at.
    pub fn new(keys: impl IntoIterator<Item = Key>) -> Self {
        Self(keys.into_iter().take(MAX_KEYS).map(Arc::new).collect())
    }

    /// True when there are none: then only the loopback address is served.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The key that is shown. Every hash is compared, in constant time, so that the time says nothing.
    pub(super) fn find(&self, shown: &str) -> Option<&Arc<Key>> {
        if shown.len() > LONGEST {
            return None;
        }
        let hash = KeyHash::of(shown);
        let mut found = None;
        for key in self.0.iter() {
            if key.hash == hash {
                found = Some(key);
            }
        }
        found
    }
}

/// A fresh key. Whoever holds it can show it; nothing else can bring it back.
pub fn fresh(sources: &Sources) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut key = PREFIX.to_owned();
    for _ in 0..5 {
        let mut bits = sources.random();
        for _ in 0..10 {
            let digit = DIGITS.get((bits & 63) as usize).copied().unwrap_or(b'A');
            key.push(char::from(digit));
            bits >>= 6;
        }
    }
    key
}
