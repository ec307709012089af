//! Signs wakes and sends them to webhooks.
//!
//! The key is made when it is first needed and kept in the store, so that receivers can keep the
//! public half across restarts.

use std::{fmt, net::IpAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bowline_runtime::{
    Sources, kind,
    stream::subscription::{Call, Deliver},
};
use bowline_sandbox::egress::is_public;
use bowline_store::{ActorId, Batch, Record, RowChange, Store};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::error::Error;

/// How long a webhook may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Most bytes of a webhook's answer that are looked at.
const MAX_ANSWER: usize = 64 * 1024;
const SEED: &str = "seed";

/// Sends wakes.
pub(in crate::server) struct Webhooks {
    store: Arc<dyn Store>,
    sources: Sources,
    key: OnceCell<Key>,
    client: OnceCell<reqwest::Client>,
}

struct Key {
    pair: Ed25519KeyPair,
    id: String,
}

impl fmt::Debug for Webhooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhooks").finish_non_exhaustive()
    }
}

impl Webhooks {
    pub(in crate::server) fn new(store: Arc<dyn Store>, sources: Sources) -> Arc<Self> {
        Arc::new(Self {
            store,
            sources,
            key: OnceCell::new(),
            client: OnceCell::new(),
        })
    }

    /// The id of the key that signs.
    pub(super) async fn key_id(&self) -> Result<String, Error> {
        Ok(self.key().await?.id.clone())
    }

    /// The public keys, as a JWK set.
    pub(super) async fn keys(&self) -> Result<Value, Error> {
        let key = self.key().await?;
        let x = URL_SAFE_NO_PAD.encode(key.pair.public_key().as_ref());
        Ok(json!({"keys": [{
            "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": key.id, "x": x,
        }]}))
    }

    async fn key(&self) -> Result<&Key, Error> {
        self.key.get_or_try_init(|| self.load()).await
    }

    async fn load(&self) -> Result<Key, Error> {
        let actor = ActorId::new("stream", "signing", "key");
        let seed = match self.store.row(&actor, SEED, b"").await? {
            Some(seed) => seed.to_vec(),
            None => {
                let seed: Vec<u8> = (0..4)
                    .flat_map(|_| self.sources.random().to_le_bytes())
                    .collect();
                let head = self.store.head(&actor).await?;
                let (epoch, seq) = head.map_or((1, 0), |head| (head.epoch + 1, head.seq));
                let mut batch = Batch::new(actor, epoch, seq);
                batch.records.push(Record {
                    kind: kind::STREAM_CHANGED,
                    version: 1,
                    time: self.sources.now(),
                    conversation: String::new(),
                    submission: None,
                    attempt: None,
                    turn: None,
                    body: "{}".into(),
                    blobs: Vec::new(),
                });
                batch.rows.push(RowChange::Put {
                    space: SEED,
                    key: Vec::new(),
                    value: seed.clone().into(),
                    blobs: Vec::new(),
                });
                self.store.commit(batch).await?;
                seed
            }
        };
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| unusable())?;
        let public = pair.public_key().as_ref();
        let id = format!(
            "ds_{}",
            URL_SAFE_NO_PAD.encode(public.get(..9).unwrap_or(public))
        );
        Ok(Key { pair, id })
    }

    async fn client(&self) -> Result<&reqwest::Client, String> {
        let make = async || {
            let tls = crate::outside::tls()?;
            reqwest::Client::builder()
                .tls_backend_preconfigured(tls)
                .redirect(reqwest::redirect::Policy::none())
                .timeout(TIMEOUT)
                .dns_resolver(Arc::new(Public))
                .no_proxy()
                .build()
                .map_err(|error| error.to_string())
        };
        self.client.get_or_try_init(make).await
    }
}

fn unusable() -> Error {
    Error::failure(
        "store_corrupt",
        "the key that signs webhooks cannot be read",
        "restore a backup",
    )
}

#[async_trait]
impl Deliver for Webhooks {
    async fn deliver(&self, call: Call) -> Result<bool, String> {
        let (base, url) = (&call.base_url, &call.url);
        check(url)?;
        let id = &call.subscription;
        let streams: Vec<Value> = call
            .wake
            .streams
            .iter()
            .map(super::subscription::link)
            .collect();
        let encoded = super::subscription::encode(id);
        let body = json!({
            "subscription_id": id,
            "wake_id": call.wake.id,
            "generation": call.wake.generation,
            "streams": streams,
            "callback_url": format!("{base}{}__ds/subscriptions/{encoded}/callback", super::ROOT),
            "callback_token": call.wake.token,
        })
        .to_string();
        let key = self.key().await.map_err(|error| error.to_string())?;
        let seconds = self.sources.now().as_millis() / 1000;
        let signed = key.pair.sign(format!("{seconds}.{body}").as_bytes());
        let signature = URL_SAFE_NO_PAD.encode(signed.as_ref());
        let signature = format!("t={seconds},kid={},ed25519={signature}", key.id);
        let request = self
            .client()
            .await?
            .post(url)
            .header("content-type", "application/json")
            .header("webhook-signature", signature)
            .body(body);
        let mut response = request.send().await.map_err(|error| {
            // The URL may hold what only its receiver should know.
            error.without_url().to_string()
        })?;
        if !response.status().is_success() {
            return Err(format!("it answered {}", response.status()));
        }
        let mut answer = Vec::new();
        while let Ok(Some(chunk)) = response.chunk().await {
            if answer.len() + chunk.len() > MAX_ANSWER {
                break;
            }
            answer.extend_from_slice(&chunk);
        }
        let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
        Ok(answer.get("done").and_then(Value::as_bool).unwrap_or(false))
    }
}

/// The stable name of the error for a URL that [`check`] refuses.
pub(super) fn code() -> &'static str {
    "subscription_webhook_refused"
}

/// Refuses what is not a webhook out there: only HTTPS, only public addresses, and this machine's own
/// loopback, where HTTP is fine too.
pub(super) fn check(url: &str) -> Result<(), String> {
    let parsed = reqwest::Url::parse(url).map_err(|error| format!("it is no URL: {error}"))?;
    let host = parsed.host_str().unwrap_or_default().to_owned();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let loopback = match bare.parse::<IpAddr>() {
        Ok(address) => address.is_loopback(),
        Err(_) => bare.eq_ignore_ascii_case("localhost"),
    };
    match parsed.scheme() {
        "https" | "http" if loopback => return Ok(()),
        "https" => {}
        _ => return Err("it must begin with https://".to_owned()),
    }
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Err("it must not hold a name or password".to_owned());
    }
    if let Ok(address) = bare.parse::<IpAddr>() {
        return is_public(address).then_some(()).ok_or_else(private);
    }
    Ok(())
}

fn private() -> String {
    "it leads to a private address".to_owned()
}

/// Finds the addresses of a host, and none but public ones: whoever owns a name may let it lead
/// anywhere, also between two looks.
#[derive(Debug)]
struct Public;

impl reqwest::dns::Resolve for Public {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        Box::pin(async move {
            let local = name.as_str().eq_ignore_ascii_case("localhost");
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let wanted = |address: &std::net::SocketAddr| {
                let ip = address.ip();
                if local {
                    ip.is_loopback()
                } else {
                    is_public(ip)
                }
            };
            let found: Vec<_> = found.filter(wanted).collect();
            if found.is_empty() {
                return Err(private().into());
            }
            Ok(Box::new(found.into_iter()) as reqwest::dns::Addrs)
        })
    }
}
