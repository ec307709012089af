//! From the name of a model to something that can be asked.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use crate::catalog::Price;
use crate::error::{ErrorKind, ModelError};
use crate::message::ModelRef;
use crate::provider::Provider;
use crate::request::Thinking;
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
}

impl Api {
    /// The word for it in `bowline.toml` and in [`ModelRef::api`].
    pub fn as_str(self) -> &'static str {
        match self {
            Api::Anthropic => "anthropic",
            Api::OpenaiResponses => "openai-responses",
            Api::OpenaiChat => "openai-chat",
            Api::Scripted => "scripted",
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

/// The models of a project.
#[derive(Clone, Debug)]
pub struct Models {
    settings: ModelSettings,
}

impl Models {
    /// The models of a project. Nothing is read or connected yet.
    pub fn new(settings: ModelSettings) -> Self {
        Self { settings }
    }

    /// Finds a model by `provider/model` (split at the first `/`) or by its name under `[models]`.
    ///
    /// `base_dir` is the folder of the agent: `scripted/FILE.yaml` is relative to it. The script
    /// is read here; nothing is sent.
    ///
    /// # Errors
    ///
    /// `UnknownModel` with the closest name, `MissingKey`, `Config` for an entry that cannot be
    /// used, `Script` for a script that cannot be read or has an error.
    pub fn resolve(&self, name: &str, base_dir: &Path) -> Result<ResolvedModel, ModelError> {
        let _ = (&self.settings, base_dir);
        Err(ModelError::new(
            ErrorKind::UnknownModel { closest: None },
            "models",
            format!("there is no model `{name}`"),
        ))
    }
}
