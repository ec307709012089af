//! How a request proves who sends it: a header, Amazon's signature, or a Google access token.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use reqwest::header::{AUTHORIZATION, HOST, HeaderMap, HeaderName, HeaderValue};
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::{ErrorKind, ModelError};
use crate::provider::profile::{self, Keys};
use crate::resolve::{Clock, KeyLookup};
use crate::secret::Secret;

/// An access token is renewed so long before it expires.
const MARGIN: Duration = Duration::from_secs(60);
/// What a Google token is asked for.
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
/// The largest key file that is read, in bytes.
const MAX_KEY_FILE: u64 = 64 * 1024;

/// How requests to a server are authenticated.
#[derive(Clone, Debug)]
pub(crate) enum Auth {
    /// Not at all.
    None,
    /// By a header.
    Header(HeaderName, HeaderValue),
    /// By an AWS Signature Version 4.
    Aws {
        credentials: Credentials,
        region: String,
        clock: Clock,
    },
    /// By an access token that a service account's key is exchanged for.
    Google(Arc<ServiceAccount>),
}

/// What an error is reported as coming from, and how.
fn refused(provider: &str, message: impl AsRef<str>) -> ModelError {
    ModelError::new(ErrorKind::Auth, provider, message)
}

impl Auth {
    /// A header with a key, kept out of logs.
    pub(crate) fn header(
        provider: &str,
        name: HeaderName,
        prefix: &str,
        key: &Secret,
    ) -> Result<Self, ModelError> {
        let text = format!("{prefix}{}", key.expose());
        let mut value = HeaderValue::from_str(&text)
            .map_err(|_| refused(provider, "the key has characters that a key cannot have"))?;
        value.set_sensitive(true);
        Ok(Self::Header(name, value))
    }

    /// Adds what proves who sends a request.
    pub(crate) async fn apply(
        &self,
        provider: &str,
        client: &reqwest::Client,
        url: &str,
        headers: &mut HeaderMap,
        body: &[u8],
    ) -> Result<(), ModelError> {
        match self {
            Self::None => {}
            Self::Header(name, value) => {
                headers.insert(name, value.clone());
            }
            Self::Aws {
                credentials,
                region,
                clock,
            } => {
                let now = now(clock, provider)?;
                signed(credentials, region, now, url, headers, body)
                    .map_err(|why| refused(provider, format!("cannot sign the request: {why}")))?;
            }
            Self::Google(account) => {
                let token = account.token(provider, client).await?;
                let Self::Header(name, value) =
                    Self::header(provider, AUTHORIZATION, "Bearer ", &token)?
                else {
                    return Ok(());
                };
                headers.insert(name, value);
            }
        }
        Ok(())
    }
}

fn now(clock: &Clock, provider: &str) -> Result<SystemTime, ModelError> {
    clock.now().ok_or_else(|| {
        let message = "this provider signs its requests by the time, and was given no clock";
        ModelError::new(ErrorKind::Config, provider, message)
    })
}

fn signed(
    credentials: &Credentials,
    region: &str,
    now: SystemTime,
    url: &str,
    headers: &mut HeaderMap,
    body: &[u8],
) -> Result<(), String> {
    let text = |error: &dyn std::error::Error| error.to_string();
    let identity = credentials.clone().into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name("bedrock")
        .time(now)
        .settings(SigningSettings::default())
        .build()
        .map_err(|error| text(&error))?
        .into();
    let signable = headers
        .iter()
        .filter(|(name, _)| **name != HOST)
        .filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
    let request = SignableRequest::new("POST", url, signable, SignableBody::Bytes(body))
        .map_err(|error| text(&error))?;
    let (instructions, _signature) = sign(request, &params)
        .map_err(|error| text(&error))?
        .into_parts();
    for (name, value) in instructions.headers() {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|error| text(&error))?;
        let mut value = HeaderValue::from_str(value).map_err(|error| text(&error))?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(())
}

/// The region that an address of Bedrock names, or else the usual one.
pub(crate) fn region(base_url: &str, env: &KeyLookup) -> String {
    let named = base_url
        .split_once("://bedrock-runtime.")
        .and_then(|(_, rest)| rest.split_once('.'));
    named.map_or_else(|| usual_region(env), |(region, _)| region.to_owned())
}

/// The region of the environment, or of the profile.
pub(crate) fn usual_region(env: &KeyLookup) -> String {
    let var = |name: &str| env(name).filter(|value| !value.is_empty());
    let set = var("AWS_REGION").or_else(|| var("AWS_DEFAULT_REGION"));
    set.map(|region| region.expose().to_owned())
        .or_else(|| profile::region(env))
        .unwrap_or_else(|| "us-east-1".to_owned())
}

/// AWS credentials from the usual variables: a bearer key, or an access key with its secret; else the
/// access key of the profile in the files of Amazon's tools. Returns what is to be kept out of messages, too.
pub(crate) fn aws(
    provider: &str,
    env: &KeyLookup,
    clock: &Clock,
    region: &str,
) -> Result<(Auth, Vec<Secret>), ModelError> {
    let get = |var: &str| env(var).filter(|key| !key.is_empty());
    if let Some(key) = get("AWS_BEARER_TOKEN_BEDROCK") {
        let auth = Auth::header(provider, AUTHORIZATION, "Bearer ", &key)?;
        return Ok((auth, vec![key]));
    }
    let missing = |var: &str| {
        let profile = profile::name(env);
        let message = format!(
            "the key is missing: {var} is not set, and the profile `{profile}` has no access key"
        );
        let var = var.to_owned();
        ModelError::new(ErrorKind::MissingKey { var }, provider, message)
    };
    let keys = match get("AWS_ACCESS_KEY_ID") {
        Some(id) => Keys {
            id,
            secret: get("AWS_SECRET_ACCESS_KEY").ok_or_else(|| missing("AWS_SECRET_ACCESS_KEY"))?,
            session: get("AWS_SESSION_TOKEN"),
        },
        None => profile::keys(env).ok_or_else(|| missing("AWS_ACCESS_KEY_ID"))?,
    };
    let Keys {
        id,
        secret,
        session,
    } = keys;
    let credentials = Credentials::new(
        id.expose(),
        secret.expose(),
        session.as_ref().map(|token| token.expose().to_owned()),
        None,
        "bowline",
    );
    let mut secrets = vec![secret];
    secrets.extend(session);
    let auth = Auth::Aws {
        credentials,
        region: region.to_owned(),
        clock: clock.clone(),
    };
    Ok((auth, secrets))
}

/// Google credentials from the usual variables: an access token, an API key, or the file of a
/// service account. Returns what is to be kept out of messages, too.
pub(crate) fn google(
    provider: &str,
    env: &KeyLookup,
    clock: &Clock,
) -> Result<(Auth, Vec<Secret>), ModelError> {
    let get = |var: &str| env(var).filter(|key| !key.is_empty());
    if let Some(token) = get("GOOGLE_ACCESS_TOKEN") {
        let auth = Auth::header(provider, AUTHORIZATION, "Bearer ", &token)?;
        return Ok((auth, vec![token]));
    }
    if let Some(key) = get("GOOGLE_CLOUD_API_KEY") {
        let name = HeaderName::from_static("x-goog-api-key");
        return Ok((Auth::header(provider, name, "", &key)?, vec![key]));
    }
    let var = "GOOGLE_APPLICATION_CREDENTIALS";
    let Some(path) = get(var) else {
        let message = format!("the key is missing: {var} is not set");
        let var = var.to_owned();
        return Err(ModelError::new(
            ErrorKind::MissingKey { var },
            provider,
            message,
        ));
    };
    let account = ServiceAccount::read(path.expose(), clock)
        .map_err(|why| refused(provider, format!("the file in {var} {why}")))?;
    let secrets = vec![account.key.clone()];
    Ok((Auth::Google(Arc::new(account)), secrets))
}

/// A Google service account, and the access token that its key was last exchanged for.
#[derive(Debug)]
pub(crate) struct ServiceAccount {
    email: String,
    key: Secret,
    token_uri: String,
    clock: Clock,
    token: Mutex<Option<(Secret, SystemTime)>>,
}

#[derive(Deserialize)]
struct KeyFile {
    client_email: String,
    private_key: String,
    #[serde(default)]
    token_uri: Option<String>,
}

impl ServiceAccount {
    fn read(path: &str, clock: &Clock) -> Result<Self, String> {
        let size = std::fs::metadata(path)
            .map_err(|error| format!("cannot be read: {error}"))?
            .len();
        if size > MAX_KEY_FILE {
            return Err("is too large for a key".to_owned());
        }
        let text =
            std::fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"))?;
        // What serde says of a wrong file may quote it.
        let file: KeyFile = serde_json::from_str(&text)
            .map_err(|_| "is not the key of a service account".to_owned())?;
        let fallback = "https://oauth2.googleapis.com/token";
        Ok(Self {
            email: file.client_email,
            key: Secret::new(file.private_key),
            token_uri: file.token_uri.unwrap_or_else(|| fallback.to_owned()),
            clock: clock.clone(),
            token: Mutex::new(None),
        })
    }

    /// The access token, exchanged anew when there is none that holds for another minute. Two calls
    /// at the same time may both exchange: each token is good.
    async fn token(&self, provider: &str, client: &reqwest::Client) -> Result<Secret, ModelError> {
        let now = now(&self.clock, provider)?;
        if let Some((token, until)) = &*self.lock()
            && now + MARGIN < *until
        {
            return Ok(token.clone());
        }
        let assertion = self
            .assertion(now)
            .map_err(|why| refused(provider, format!("cannot sign in: {why}")))?;
        let form = format!(
            "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion={assertion}"
        );
        let sent = client
            .post(&self.token_uri)
            .header("content-type", "application/x-www-form-urlencoded")
            .timeout(Duration::from_secs(30))
            .body(form)
            .send()
            .await;
        let network = |error: reqwest::Error| {
            let (kind, why) = match super::http::certificate_problem(&error) {
                Some(why) => (ErrorKind::Certificate, format!("the certificate {why}")),
                None => (ErrorKind::Network, super::http::root_cause(&error)),
            };
            let message = format!("cannot exchange the service account's key: {why}");
            ModelError::new(kind, provider, message)
        };
        let response = sent.map_err(network)?;
        let status = response.status();
        let body: Value = response.json().await.map_err(network)?;
        let Some(token) = body["access_token"]
            .as_str()
            .filter(|_| status.is_success())
        else {
            let why = body["error_description"]
                .as_str()
                .or(body["error"].as_str())
                .unwrap_or("no token came back");
            let message = format!("the service account was refused: {why}");
            return Err(refused(provider, self.key.redact(&message)).with_status(status.as_u16()));
        };
        let token = Secret::new(token);
        let lives = body["expires_in"].as_u64().unwrap_or(3600).min(86_400);
        *self.lock() = Some((token.clone(), now + Duration::from_secs(lives)));
        Ok(token)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<(Secret, SystemTime)>> {
        self.token.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The signed claim that is exchanged for a token (RFC 7523).
    fn assertion(&self, now: SystemTime) -> Result<String, String> {
        let der: String = self
            .key
            .expose()
            .lines()
            .map(str::trim)
            .filter(|line| !line.starts_with("-----"))
            .collect();
        let der = STANDARD
            .decode(der)
            .map_err(|_| "the private key is not PEM".to_owned())?;
        let pair = RsaKeyPair::from_pkcs8(&der)
            .map_err(|why| format!("the private key is not usable: {why}"))?;
        let issued = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_err(|_| "the clock is before 1970".to_owned())?
            .as_secs();
        let claims = json!({
            "iss": self.email, "scope": SCOPE, "aud": self.token_uri,
            "iat": issued, "exp": issued + 3600,
        });
        let head = json!({"alg": "RS256", "typ": "JWT"});
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&head), part(&claims));
        let mut signature = vec![0; pair.public().modulus_len()];
        pair.sign(
            &RSA_PKCS1_SHA256,
            &SystemRandom::new(),
            signed.as_bytes(),
            &mut signature,
        )
        .map_err(|_| "the private key does not sign".to_owned())?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

/// Replaces `${VAR}` and `${VAR:-default}` in an address by what the environment says.
///
/// # Errors
///
/// The variable that is not set, or has characters that an address cannot have.
pub(crate) fn expand(text: &str, env: &KeyLookup) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    let mut known: BTreeMap<&str, String> = BTreeMap::new();
    while let Some((before, after)) = rest.split_once("${") {
        out.push_str(before);
        let (inside, tail) = after.split_once('}').unwrap_or((after, ""));
        let (var, default) = match inside.split_once(":-") {
            Some((var, default)) => (var, Some(default)),
            None => (inside, None),
        };
        let value = match known.get(var) {
            Some(value) => value.clone(),
            None => env(var)
                .filter(|value| !value.is_empty())
                .map(|value| value.expose().to_owned())
                .or(default.map(str::to_owned))
                .ok_or_else(|| var.to_owned())?,
        };
        let plain = |ch: char| ch.is_ascii_alphanumeric() || "-._".contains(ch);
        if !value.chars().all(plain) {
            return Err(var.to_owned());
        }
        out.push_str(&value);
        known.insert(var, value);
        rest = tail;
    }
    out.push_str(rest);
    Ok(out)
}
