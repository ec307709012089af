//! What proves who asks, kept on this side.

use std::{borrow::Cow, fmt};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use url::Url;

use super::{EgressError, Request};

/// What stands in the place of a secret.
const REDACTED: &str = "[redacted]";
/// Shorter secrets are not looked for in answers: they would be found everywhere.
const SHORTEST: usize = 6;

/// A secret that is attached to requests, and taken out of what comes back. It cannot be printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    place: Place,
    /// What is looked for in answers and errors.
    secrets: Vec<String>,
}

#[derive(Clone, PartialEq, Eq)]
enum Place {
    Header(String, String),
    Query(String, String),
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (place, name) = match &self.place {
            Place::Header(name, _) => ("header", name),
            Place::Query(name, _) => ("query", name),
        };
        f.debug_struct("Credential")
            .field(place, name)
            .finish_non_exhaustive()
    }
}

impl Credential {
    /// A header with the secret as its value.
    pub fn header(name: &str, secret: &str) -> Self {
        Self {
            place: Place::Header(name.to_ascii_lowercase(), secret.to_owned()),
            secrets: vec![secret.to_owned()],
        }
    }

    /// `Authorization: Bearer …`.
    pub fn bearer(secret: &str) -> Self {
        Self {
            place: Place::Header("authorization".to_owned(), format!("Bearer {secret}")),
            secrets: vec![secret.to_owned()],
        }
    }

    /// `Authorization: Basic …`, from `user:password`.
    pub fn basic(secret: &str) -> Self {
        let encoded = STANDARD.encode(secret);
        let password = secret
            .split_once(':')
            .map(|(_, password)| password.to_owned());
        let mut secrets = vec![secret.to_owned(), encoded.clone()];
        secrets.extend(password);
        Self {
            place: Place::Header("authorization".to_owned(), format!("Basic {encoded}")),
            secrets,
        }
    }

    /// A parameter of the query.
    pub fn query(name: &str, secret: &str) -> Self {
        let encoded: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
        Self {
            place: Place::Query(name.to_owned(), secret.to_owned()),
            secrets: vec![secret.to_owned(), encoded],
        }
    }

    /// Puts it into a request, over what stands there.
    pub(super) fn attach(&self, request: &mut Request, url: &mut Url) -> Result<(), EgressError> {
        match &self.place {
            Place::Header(name, value) => {
                if value.contains(['\r', '\n', '\0']) {
                    let why = "the credential has a line break or null byte";
                    return Err(EgressError::Invalid(why.to_owned()));
                }
                request
                    .headers
                    .retain(|(other, _)| !other.eq_ignore_ascii_case(name));
                request.headers.push((name.clone(), value.clone()));
            }
            Place::Query(name, value) => {
                self.detach(url);
                url.query_pairs_mut().append_pair(name, value);
                request.url = url.to_string();
            }
        }
        Ok(())
    }

    /// Takes it out of a URL.
    pub(super) fn detach(&self, url: &mut Url) {
        let Place::Query(name, _) = &self.place else {
            return;
        };
        let others: Vec<(String, String)> = url
            .query_pairs()
            .filter(|(other, _)| other != name)
            .map(|(key, value)| (key.into_owned(), value.into_owned()))
            .collect();
        if others.len() == url.query_pairs().count() {
            return;
        }
        url.set_query(None);
        if !others.is_empty() {
            url.query_pairs_mut().extend_pairs(others);
        }
    }

    /// A text without it.
    pub fn redact(&self, text: &str) -> String {
        let mut text = Cow::Borrowed(text);
        for secret in self.wanted() {
            if text.contains(secret) {
                text = Cow::Owned(text.replace(secret, REDACTED));
            }
        }
        text.into_owned()
    }

    /// A body without it: servers echo what they are sent.
    pub(super) fn redact_body(&self, body: Bytes) -> Bytes {
        let mut body = body;
        for secret in self.wanted() {
            let finder = memchr::memmem::Finder::new(secret);
            let mut out = Vec::new();
            let mut from = 0;
            for at in finder.find_iter(&body) {
                out.extend_from_slice(body.get(from..at).unwrap_or_default());
                out.extend_from_slice(REDACTED.as_bytes());
                from = at + secret.len();
            }
            if from > 0 {
                out.extend_from_slice(body.get(from..).unwrap_or_default());
                body = Bytes::from(out);
            }
        }
        body
    }

    fn wanted(&self) -> impl Iterator<Item = &str> {
        let secrets = self.secrets.iter().map(String::as_str);
        secrets.filter(|secret| secret.len() >= SHORTEST)
    }
}
