//! A directory with `bowline.toml` and `agents/`.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use bowline_agent::{
    Agent,
    binding::Binding,
    definition::{self, AgentSummary, Definition},
};
use bowline_model::{ModelSettings, cassette::Tape};
use bowline_sandbox::egress::Allow;

use crate::{config::Config, error::Error, outside::Network};

mod services;

/// What `fetch` may reach without a project; nothing when nothing is granted.
pub(crate) fn web(egress: &Allow) -> Option<Arc<dyn Binding>> {
    services::web(
        egress,
        &services::Credentials::new(),
        &Arc::new(Network::new()),
    )
}

/// Looks up a variable of the environment. The library never reads the environment by itself.
pub type Environment = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// A project that was read.
#[derive(Clone)]
pub struct Project {
    /// Its folder.
    pub dir: PathBuf,
    /// What its `bowline.toml` says.
    pub config: Config,
    /// Records or replays what is said to providers. Default: neither.
    pub tape: Option<Tape>,
    env: Environment,
    wire: Arc<Network>,
}

impl fmt::Debug for Project {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Project")
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

impl Project {
    /// Reads the project in a folder. Nothing is written.
    ///
    /// # Errors
    ///
    /// When there is no `bowline.toml`, or it has a mistake.
    pub fn load(dir: &Path, env: Environment) -> Result<Self, Error> {
        let config = Config::load(dir)?;
        Ok(Self {
            dir: dir.to_path_buf(),
            config,
            tape: None,
            env,
            wire: Arc::new(Network::new()),
        })
    }

    /// What an agent's folder says.
    ///
    /// # Errors
    ///
    /// When there is no such agent, or its files have a mistake.
    pub fn definition(&self, name: &str) -> Result<Definition, Error> {
        Ok(definition::load(
            &self.dir,
            name,
            &*self.env,
            &self.config.limits,
        )?)
    }

    /// An agent of this project, on another model when one is given.
    ///
    /// # Errors
    ///
    /// As [`Project::definition`].
    pub fn agent(&self, name: &str, model: Option<&str>) -> Result<Agent, Error> {
        let mut definition = self.definition(name)?;
        if let Some(model) = model {
            model.clone_into(&mut definition.model);
        }
        let mut bindings = Vec::new();
        for name in &definition.bindings {
            bindings.push(self.binding(name)?);
        }
        let egress = self.config.egress.allow.patterns();
        let egress = Allow::new(egress.chain(definition.egress.patterns()));
        let egress = egress.unwrap_or_default();
        let credentials = self.credentials(&egress)?;
        bindings.extend(services::web(&egress, &credentials, &self.wire));
        let agent = Agent::from_definition(definition).with_bindings(bindings);
        Ok(match services::shell(&egress, &credentials, &self.wire) {
            Some(outside) => agent.with_outside(outside),
            None => agent,
        })
    }

    /// The credentials for what may be reached.
    fn credentials(&self, egress: &Allow) -> Result<services::Credentials, Error> {
        let env = self.env.clone();
        let secrets = self.config.secrets.lookup(move |name| env(name));
        services::credentials(egress, &self.config.egress.auth, &secrets)
    }

    /// A binding of `[bindings]`.
    ///
    /// # Errors
    ///
    /// When there is none of this name, its secret is not set, or its document cannot be read.
    pub fn binding(&self, name: &str) -> Result<Arc<dyn Binding>, Error> {
        let Some(settings) = self.config.bindings.get(name) else {
            return Err(Error::failure(
                "binding_not_found",
                format!("there is no binding `{name}`"),
                format!("add `[bindings.{name}]` to `bowline.toml`"),
            ));
        };
        let env = self.env.clone();
        let secrets = self.config.secrets.lookup(move |name| env(name));
        services::service(&self.dir, name, settings, &secrets, &self.wire)
    }

    /// The agents, with what is wrong with those that cannot be used.
    ///
    /// # Errors
    ///
    /// When the folder cannot be read.
    pub fn agents(&self) -> Result<Vec<AgentSummary>, Error> {
        Ok(definition::list(&self.dir)?)
    }

    /// The models and keys of this project.
    pub fn models(&self) -> ModelSettings {
        let env = self.env.clone();
        let mut settings =
            ModelSettings::new(self.config.secrets.lookup(move |name| env(name)), &self.dir);
        settings.named.clone_from(&self.config.models);
        let gateway = &self.config.gateway;
        settings.gateway = gateway.policy.clone();
        settings.base_urls.clone_from(&gateway.base_urls);
        settings.background.clone_from(&gateway.background);
        settings.cache = gateway.cache;
        settings.tape.clone_from(&self.tape);
        settings.idle_deadline = gateway.idle.unwrap_or(settings.idle_deadline);
        settings
    }
}
