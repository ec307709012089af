//! From the name of a model to something that can be asked.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::{Duration, SystemTime};

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;

use crate::cassette::Tape;
use crate::catalog::{self, CatalogModel, Price, ThinkingStyle};
use crate::error::{ErrorKind, ModelError};
use crate::gateway::{Gateway, Policy};
use crate::message::ModelRef;
use crate::provider::Provider;
use crate::provider::anthropic::Anthropic;
use crate::provider::auth::{self, Auth};
use crate::provider::bedrock::{self, Bedrock};
use crate::provider::blind::Blind;
use crate::provider::gemini::Gemini;
use crate::provider::http::{self, Server};
use crate::provider::openai_chat::Chat;
use crate::provider::openai_responses::Responses;
use crate::provider::quirks::Quirks;
use crate::provider::scripted::Scripted;
use crate::request::{CacheRetention, Thinking};
use crate::secret::Secret;

/// A wire format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Api {
    /// Anthropic Messages.
    Anthropic,
    /// OpenAI Responses.
    OpenaiResponses,
    /// OpenAI Chat Completions, and every server that is compatible with it.
    OpenaiChat,
    /// The offline model driven by a script.
    Scripted,
    /// Google Gemini.
    Gemini,
    /// Amazon Bedrock Converse.
    Bedrock,
}

impl Api {
    /// The word for it in `bowline.toml` and in [`ModelRef::api`].
    pub fn as_str(self) -> &'static str {
        match self {
            Api::Anthropic => "anthropic",
            Api::OpenaiResponses => "openai-responses",
            Api::OpenaiChat => "openai-chat",
            Api::Scripted => "scripted",
            Api::Gemini => "gemini",
            Api::Bedrock => "bedrock",
        }
    }

    /// Whose models of this format the catalogue knows.
    fn family(self) -> &'static str {
        match self {
            Api::Anthropic => "anthropic",
            Api::Gemini => "google",
            Api::Bedrock => "bedrock",
            Api::OpenaiResponses | Api::OpenaiChat | Api::Scripted => "openai",
        }
    }
}

/// An entry `[models.NAME]` of `bowline.toml`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedModel {
    /// The wire format.
    pub api: Api,
    /// Where the server is, up to and without the path of the call (`/v1` is part of it for the
    /// OpenAI formats). The provider's own address when it is left out.
    #[serde(default)]
    pub base_url: Option<String>,
    /// The environment variable with the key. Without it no key is sent to a server at a
    /// `base_url` of its own; without both, the provider's usual variable is used.
    #[serde(default)]
    pub key_env: Option<String>,
    /// The provider's id of the model; for `scripted`, the script, relative to the project. When
    /// it is left out, `NAME/MODEL` names a model of this server.
    #[serde(default)]
    pub model: Option<String>,
    /// The context window in tokens, where the catalogue does not know it or is wrong.
    #[serde(default)]
    pub context: Option<u64>,
    /// The most output tokens of a call, where the catalogue does not know it or is wrong.
    #[serde(default)]
    pub max_output: Option<u64>,
    /// What tokens cost, where the catalogue does not know it or is wrong.
    #[serde(default)]
    pub price: Option<Price>,
    /// Whether the model takes images, where the catalogue does not know it or is wrong. One that does
    /// not reads in their place that there are some. Default: it does.
    #[serde(default)]
    pub images: Option<bool>,
    /// A provider known by name whose peculiarities this server has: what it does not understand is
    /// not sent, and keys go into the same header. Default: none.
    #[serde(default)]
    pub like: Option<String>,
    /// Only for `openai-responses`: answers are made in the background, where the provider keeps
    /// them, so that one that was cut off is read again instead of paid for again. Default `false`.
    #[serde(default)]
    pub background: bool,
}

impl NamedModel {
    /// An entry that says only the wire format.
    pub fn new(api: Api) -> Self {
        Self {
            api,
            base_url: None,
            key_env: None,
            model: None,
            context: None,
            max_output: None,
            price: None,
            images: None,
            like: None,
            background: false,
        }
    }

    /// What the catalogue knows of its `model`. What the entry says itself goes before it.
    pub fn known(&self) -> Option<&'static CatalogModel> {
        let model = self.model.as_deref()?;
        match self.api {
            Api::Scripted => None,
            Api::Anthropic
            | Api::OpenaiResponses
            | Api::OpenaiChat
            | Api::Gemini
            | Api::Bedrock => catalog::find(self.api.family(), model),
        }
    }
}

/// The time, for the providers whose requests are signed by it. This crate has no clock of its own.
#[derive(Clone, Default)]
pub struct Clock(Option<Arc<dyn Fn() -> SystemTime + Send + Sync>>);

impl Clock {
    /// A clock.
    pub fn new(now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(now)))
    }

    /// The time now, if there is a clock.
    pub fn now(&self) -> Option<SystemTime> {
        self.0.as_ref().map(|now| now())
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Clock").field(&self.0.is_some()).finish()
    }
}

/// Looks up a key by the name of its environment variable.
pub type KeyLookup = Arc<dyn Fn(&str) -> Option<Secret> + Send + Sync>;

/// What [`Models`] needs to know of the project.
#[derive(Clone)]
pub struct ModelSettings {
    /// The entries under `[models]`.
    pub named: BTreeMap<String, NamedModel>,
    /// Where keys come from.
    pub env: KeyLookup,
    /// The folder of `bowline.toml`: scripts of named models are relative to it.
    pub project_dir: PathBuf,
    /// How long a stream may be silent before it counts as stalled. Default 300 s.
    pub idle_deadline: Duration,
    /// How long making a connection may take. Default 10 s.
    pub connect_timeout: Duration,
    /// Other addresses for providers that are known by name, for example of a proxy before them.
    pub base_urls: BTreeMap<String, String>,
    /// Providers known by name whose answers are made in the background, as
    /// [`NamedModel::background`].
    pub background: BTreeSet<String>,
    /// How long providers are asked to keep prompts in their caches. Default [`CacheRetention::Short`].
    pub cache: CacheRetention,
    /// The time, for the providers that sign by it: Bedrock with an access key, Vertex with a service
    /// account. Default: none, and they say so.
    pub clock: Clock,
    /// Records or replays what is said to providers. Default: neither.
    pub tape: Option<Tape>,
    /// Spend limits and rate limits. Default: none.
    pub gateway: Policy,
}

impl ModelSettings {
    /// Settings without named models, with the default deadlines.
    pub fn new(
        env: impl Fn(&str) -> Option<Secret> + Send + Sync + 'static,
        project_dir: impl Into<PathBuf>,
    ) -> Self {
        Self {
            named: BTreeMap::new(),
            env: Arc::new(env),
            project_dir: project_dir.into(),
            idle_deadline: Duration::from_secs(300),
            connect_timeout: Duration::from_secs(10),
            base_urls: BTreeMap::new(),
            background: BTreeSet::new(),
            cache: CacheRetention::default(),
            clock: Clock::default(),
            tape: None,
            gateway: Policy::default(),
        }
    }
}

impl fmt::Debug for ModelSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelSettings")
            .field("named", &self.named)
            .field("project_dir", &self.project_dir)
            .field("idle_deadline", &self.idle_deadline)
            .field("connect_timeout", &self.connect_timeout)
            .finish_non_exhaustive()
    }
}

/// A model that can be asked.
#[derive(Clone, Debug)]
pub struct ResolvedModel {
    /// Whom to ask.
    pub provider: Arc<dyn Provider>,
    /// The provider's id of the model: [`crate::Request::model`].
    pub model: String,
    /// What to call it in a transcript.
    pub reference: ModelRef,
    /// The context window in tokens, if known.
    pub context_window: Option<u64>,
    /// The most output tokens of a call, if known.
    pub max_output: Option<u64>,
    /// What tokens cost, if known.
    pub price: Option<Price>,
    /// The thinking level when the agent does not say: `medium` where the model can think.
    pub default_thinking: Thinking,
}

impl ResolvedModel {
    /// A model of which nothing is known but whom to ask.
    pub fn new(provider: Arc<dyn Provider>, model: impl Into<String>) -> Self {
        let model = model.into();
        Self {
            reference: provider.model_ref(&model),
            provider,
            model,
            context_window: None,
            max_output: None,
            price: None,
            default_thinking: Thinking::Off,
        }
    }
}

/// A provider that is known by name, as `data/providers.toml` has it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct KnownProvider {
    api: Api,
    base_url: String,
    #[serde(default)]
    key_env: Option<String>,
    #[serde(default)]
    key_header: Option<String>,
    #[serde(default)]
    auth: Cloud,
    #[serde(default)]
    families: Vec<String>,
    #[serde(default)]
    quirks: Quirks,
}

/// Whose way of proving who asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Cloud {
    /// A key in a header, or none.
    #[default]
    Key,
    /// Amazon's.
    Aws,
    /// Google Cloud's.
    Google,
}

/// A provider that is known by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderInfo {
    /// Its name, before the `/` of a model.
    pub name: &'static str,
    /// The wire format that it speaks.
    pub api: Api,
    /// Its address, with variables in it as `${VAR}`.
    pub base_url: &'static str,
    /// The environment variables that a key may stand in; empty when it needs none.
    pub key_vars: Vec<&'static str>,
}

/// Every provider that is known by name, in order.
pub fn providers() -> Vec<ProviderInfo> {
    let info = |(name, known): (&'static String, &'static KnownProvider)| ProviderInfo {
        name,
        api: known.api,
        base_url: &known.base_url,
        key_vars: match known.auth {
            Cloud::Key => known.key_env.as_deref().into_iter().collect(),
            Cloud::Aws => vec!["AWS_BEARER_TOKEN_BEDROCK", "AWS_ACCESS_KEY_ID"],
            Cloud::Google => vec![
                "GOOGLE_ACCESS_TOKEN",
                "GOOGLE_CLOUD_API_KEY",
                "GOOGLE_APPLICATION_CREDENTIALS",
            ],
        },
    };
    PROVIDERS.iter().map(info).collect()
}

static PROVIDERS: LazyLock<BTreeMap<String, KnownProvider>> = LazyLock::new(|| {
    // The data is embedded, and a test reads it.
    toml::from_str(include_str!("../data/providers.toml")).unwrap_or_default()
});

/// The models of a project.
#[derive(Clone, Debug)]
pub struct Models {
    settings: ModelSettings,
    /// Models that the program brings itself.
    provided: BTreeMap<String, ResolvedModel>,
    /// For other machines, and for this one, which no proxy can reach.
    clients: Arc<[OnceLock<reqwest::Client>; 2]>,
    gateway: Arc<Gateway>,
}

/// A model before its provider is built.
struct Target<'a> {
    provider: &'a str,
    api: Api,
    base_url: &'a str,
    key_env: Option<&'a str>,
    key_header: Option<&'a str>,
    auth: Cloud,
    quirks: Quirks,
    model: &'a str,
    named: Option<&'a NamedModel>,
}

impl Models {
    /// The models of a project. Nothing is read or connected yet.
    pub fn new(settings: ModelSettings) -> Self {
        let gateway = Arc::new(Gateway::new(settings.gateway.clone()));
        Self {
            settings,
            provided: BTreeMap::new(),
            clients: Arc::default(),
            gateway,
        }
    }

    /// Adds a model that the program brings itself, under a name of its own. It goes before all
    /// others.
    #[must_use]
    pub fn provide(mut self, name: impl Into<String>, model: ResolvedModel) -> Self {
        self.provided.insert(name.into(), model);
        self
    }

    /// What each call asks first.
    pub fn gateway(&self) -> &Arc<Gateway> {
        &self.gateway
    }

    /// How long providers are asked to keep prompts.
    pub fn cache(&self) -> CacheRetention {
        self.settings.cache
    }

    /// Finds a model by its name under `[models]` or by `provider/model` (split at the first `/`).
    ///
    /// `base_dir` is the folder of the agent: `scripted/FILE.yaml` is relative to it. The script
    /// is read here; nothing is sent. Whether a provider has a model that the catalogue does not
    /// know is for the provider to say, when it is first asked.
    ///
    /// # Errors
    ///
    /// `UnknownModel` with the closest name, `MissingKey`, `Config` for an entry that cannot be
    /// used, `Script` for a script that cannot be read or has an error.
    pub fn resolve(&self, name: &str, base_dir: &Path) -> Result<ResolvedModel, ModelError> {
        if let Some(provided) = self.provided.get(name) {
            return Ok(provided.clone());
        }
        if let Some(entry) = self.settings.named.get(name) {
            let Some(model) = &entry.model else {
                let message =
                    format!("[models.{name}] has no `model`: set it, or use {name}/MODEL");
                return Err(ModelError::new(ErrorKind::Config, name, message));
            };
            return self.named(name, entry, model);
        }
        let Some((provider, model)) = name.split_once('/').filter(|(_, model)| !model.is_empty())
        else {
            return Err(self.unknown(name));
        };
        if let Some(entry) = self.settings.named.get(provider) {
            return self.named(provider, entry, model);
        }
        if provider == "scripted" {
            return self.scripted(provider, model, &base_dir.join(model), None);
        }
        let Some(known) = PROVIDERS.get(provider) else {
            return Err(self.unknown(name));
        };
        let own = known.families.is_empty()
            || known
                .families
                .iter()
                .any(|family| model.starts_with(family.as_str()));
        if !own {
            return Err(self.unknown(name));
        }
        let other = self.settings.base_urls.get(provider);
        self.remote(&Target {
            provider,
            api: known.api,
            base_url: other.unwrap_or(&known.base_url),
            key_env: known.key_env.as_deref(),
            key_header: known.key_header.as_deref(),
            auth: known.auth,
            quirks: Quirks {
                background: self.settings.background.contains(provider),
                ..known.quirks.clone()
            },
            model,
            named: None,
        })
    }

    fn named(
        &self,
        name: &str,
        entry: &NamedModel,
        model: &str,
    ) -> Result<ResolvedModel, ModelError> {
        let home = match entry.api {
            Api::Scripted => {
                let path = self.settings.project_dir.join(model);
                return self.scripted(name, model, &path, Some(entry));
            }
            Api::Anthropic => "anthropic",
            Api::OpenaiResponses | Api::OpenaiChat => "openai",
            Api::Gemini => "google",
            Api::Bedrock => "bedrock",
        };
        let known = PROVIDERS.get(home);
        let like = match &entry.like {
            None => None,
            Some(like) => Some(
                PROVIDERS
                    .get(like)
                    .filter(|p| p.api == entry.api)
                    .ok_or_else(|| {
                        let message = format!(
                            "[models.{name}] is like `{like}`, which is no provider that speaks {}",
                            entry.api.as_str()
                        );
                        ModelError::new(ErrorKind::Config, name, message)
                    })?,
            ),
        };
        let key_env = match (&entry.key_env, &entry.base_url) {
            (Some(var), _) => Some(var.as_str()),
            (None, None) => known.and_then(|known| known.key_env.as_deref()),
            (None, Some(_)) => None,
        };
        let base_url = entry
            .base_url
            .as_deref()
            .or(known.map(|known| known.base_url.as_str()));
        let quirks = match (like, &entry.base_url) {
            (Some(like), _) => like.quirks.clone(),
            (None, Some(_)) => Quirks::default(),
            (None, None) => known.map(|known| known.quirks.clone()).unwrap_or_default(),
        };
        self.remote(&Target {
            provider: name,
            api: entry.api,
            base_url: base_url.unwrap_or_default(),
            key_env,
            key_header: like.and_then(|like| like.key_header.as_deref()),
            auth: match (like, entry.api, &entry.key_env) {
                (Some(like), _, _) => like.auth,
                (None, Api::Bedrock, None) => Cloud::Aws,
                (None, _, _) => Cloud::Key,
            },
            quirks: Quirks {
                background: entry.background,
                ..quirks
            },
            model,
            named: Some(entry),
        })
    }

    fn scripted(
        &self,
        provider: &str,
        model: &str,
        path: &Path,
        named: Option<&NamedModel>,
    ) -> Result<ResolvedModel, ModelError> {
        let scripted = Scripted::read(path, provider, model, self.settings.idle_deadline)?;
        Ok(ResolvedModel {
            reference: scripted.model_ref(model),
            provider: Arc::new(scripted),
            model: model.to_owned(),
            context_window: named.and_then(|entry| entry.context),
            max_output: named.and_then(|entry| entry.max_output),
            price: named.and_then(|entry| entry.price),
            default_thinking: Thinking::Off,
        })
    }

    fn remote(&self, target: &Target<'_>) -> Result<ResolvedModel, ModelError> {
        let family = match target.named {
            None => target.provider,
            Some(_) => target.api.family(),
        };
        let known = catalog::find(family, target.model);
        let named = target.named;
        // The same models in a cloud: what they can do is known, what they cost there is not.
        let kin = match target.api {
            Api::Gemini => catalog::find("google", target.model),
            Api::Bedrock => {
                bedrock::claude(target.model).and_then(|model| catalog::find("anthropic", model))
            }
            Api::Anthropic | Api::OpenaiResponses | Api::OpenaiChat | Api::Scripted => None,
        };
        let able = known.or(kin);
        let max_output = named
            .and_then(|entry| entry.max_output)
            .or(known.and_then(|known| known.max_output));
        let server = self.server(target)?;
        let provider: Arc<dyn Provider> = match target.api {
            Api::Anthropic => Arc::new(Anthropic {
                server,
                max_output,
                quirks: target.quirks.clone(),
            }),
            Api::OpenaiResponses => Arc::new(Responses {
                server,
                quirks: target.quirks.clone(),
            }),
            Api::OpenaiChat => Arc::new(Chat {
                server,
                quirks: target.quirks.clone(),
            }),
            Api::Gemini => Arc::new(Gemini { server }),
            Api::Bedrock => Arc::new(Bedrock { server, max_output }),
            Api::Scripted => {
                let message = "a script is not asked over the network";
                return Err(ModelError::new(ErrorKind::Config, target.provider, message));
            }
        };
        let sees = named
            .and_then(|entry| entry.images)
            .or(able.and_then(|able| able.images))
            .unwrap_or(target.quirks.images);
        let provider = if sees {
            provider
        } else {
            Arc::new(Blind(provider))
        };
        let thinks = able.is_some_and(|able| able.thinking != ThinkingStyle::None);
        Ok(ResolvedModel {
            reference: provider.model_ref(target.model),
            provider,
            model: target.model.to_owned(),
            context_window: named
                .and_then(|entry| entry.context)
                .or(known.and_then(|known| known.context)),
            max_output,
            price: named
                .and_then(|entry| entry.price)
                .or(known.and_then(|known| known.price)),
            default_thinking: if thinks {
                Thinking::Medium
            } else {
                Thinking::Off
            },
        })
    }

    fn server(&self, target: &Target<'_>) -> Result<Server, ModelError> {
        let provider = target.provider;
        let config = |message: String| ModelError::new(ErrorKind::Config, provider, message);
        let env = &self.settings.env;
        let lookup: KeyLookup = match target.auth {
            Cloud::Key | Cloud::Google => env.clone(),
            Cloud::Aws => {
                let env = env.clone();
                // It may stand in several places.
                Arc::new(move |var| match var {
                    "AWS_REGION" => Some(Secret::new(auth::usual_region(&env))),
                    var => env(var),
                })
            }
        };
        let base_url = auth::expand(target.base_url, &lookup).map_err(|var| {
            let why = match env(&var) {
                Some(_) => "has characters that an address cannot have",
                None => "is not set",
            };
            let message = format!("{var}, which is part of the address, {why}");
            let kind = ErrorKind::MissingKey { var };
            ModelError::new(kind, provider, message)
        })?;
        let url =
            endpoint(target.api, &base_url).map_err(|why| config(format!("the base_url {why}")))?;
        let (auth, secrets) = self.auth(target, &base_url)?;
        let mut headers = HeaderMap::new();
        if target.api == Api::Anthropic {
            headers.insert("anthropic-version", HeaderValue::from_static("2023-06-01"));
        }
        Ok(Server {
            provider: provider.to_owned(),
            client: self.client(&url)?,
            url,
            auth,
            secrets,
            headers,
            idle: self.settings.idle_deadline,
            tape: self.settings.tape.clone(),
        })
    }

    /// What proves who asks, and what of it must not be repeated.
    fn auth(&self, target: &Target<'_>, base_url: &str) -> Result<(Auth, Vec<Secret>), ModelError> {
        let (provider, settings) = (target.provider, &self.settings);
        if settings.tape.as_ref().is_some_and(Tape::replays) {
            // Nobody is asked.
            return Ok((Auth::None, Vec::new()));
        }
        match target.auth {
            Cloud::Key => {}
            Cloud::Aws => {
                let region = auth::region(base_url, &settings.env);
                return auth::aws(provider, &settings.env, &settings.clock, &region);
            }
            Cloud::Google => return auth::google(provider, &settings.env, &settings.clock),
        }
        let Some(var) = target.key_env else {
            return Ok((Auth::None, Vec::new()));
        };
        let Some(key) = (settings.env)(var).filter(|key| !key.is_empty()) else {
            let kind = ErrorKind::MissingKey {
                var: var.to_owned(),
            };
            let message = format!("the key is missing: {var} is not set");
            return Err(ModelError::new(kind, provider, message));
        };
        let (name, prefix) = match (target.key_header, target.api) {
            (Some("api-key"), _) => (HeaderName::from_static("api-key"), ""),
            (Some("cf-aig-authorization"), _) => {
                (HeaderName::from_static("cf-aig-authorization"), "Bearer ")
            }
            (None, Api::Anthropic) => (HeaderName::from_static("x-api-key"), ""),
            (None, Api::Gemini) => (HeaderName::from_static("x-goog-api-key"), ""),
            (Some(_), _)
            | (None, Api::OpenaiResponses | Api::OpenaiChat | Api::Bedrock | Api::Scripted) => {
                (AUTHORIZATION, "Bearer ")
            }
        };
        Ok((Auth::header(provider, name, prefix, &key)?, vec![key]))
    }

    /// Built once, when the first model that needs it is resolved.
    fn client(&self, url: &str) -> Result<reqwest::Client, ModelError> {
        let here = http::is_loopback(url);
        let client = &self.clients[usize::from(here)];
        if let Some(client) = client.get() {
            return Ok(client.clone());
        }
        let new = http::client(self.settings.connect_timeout, here)?;
        Ok(client.get_or_init(|| new).clone())
    }

    fn unknown(&self, name: &str) -> ModelError {
        let mut closest = catalog::closest(name, self.settings.named.keys().cloned());
        if let (None, Some((provider, model))) = (&closest, name.split_once('/')) {
            let names = PROVIDERS.keys().map(String::as_str);
            let names = names.chain(self.settings.named.keys().map(String::as_str));
            closest = names
                .chain(["scripted"])
                .map(|known| (strsim::damerau_levenshtein(provider, known), known))
                .filter(|(distance, _)| *distance > 0 && *distance <= 2)
                .min()
                .map(|(_, known)| format!("{known}/{model}"));
        }
        let message = format!("there is no model `{name}`");
        ModelError::new(ErrorKind::UnknownModel { closest }, "models", message)
    }
}

/// The address of the call.
fn endpoint(api: Api, base_url: &str) -> Result<String, String> {
    let url = reqwest::Url::parse(base_url)
        .map_err(|error| format!("`{base_url}` is not an address: {error}"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not hold a password: use key_env".to_owned());
    }
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(format!("`{base_url}` is not an http or https address"));
    }
    let base = base_url.trim_end_matches('/');
    Ok(match api {
        Api::Anthropic if base.ends_with("/v1") => format!("{base}/messages"),
        Api::Anthropic => format!("{base}/v1/messages"),
        Api::OpenaiResponses => format!("{base}/responses"),
        // The rest of the path depends on the model.
        Api::Gemini | Api::Bedrock => base.to_owned(),
        Api::OpenaiChat | Api::Scripted => format!("{base}/chat/completions"),
    })
}
