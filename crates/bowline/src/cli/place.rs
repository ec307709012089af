//! Where a command works: the project and its data.

use std::{
    env,
    path::{Path, PathBuf},
    sync::Arc,
};

use bowline_agent::{
    Agent, Agents, Conversation, KIND, actor, code::CodeOptions, tool::sandbox::HostAccess,
};
use bowline_model::Models;
use bowline_runtime::{
    Sources,
    submission::{self, State, Submission},
};
use bowline_store::{ActorId, SqliteOptions, SqliteStore, Store, StoreError};

use super::{Global, fault::Fault};
use crate::{
    config,
    error::Error,
    project::{Environment, Project},
    service::{self, Bowline},
};

/// Conversations that an error names at most.
const NAMED: usize = 5;
/// The database within a data directory.
pub(super) const DATABASE: &str = "store.db";

/// A project and its data. Finding it writes nothing.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) project: Project,
    /// The data directory; it may not be there yet.
    pub(super) data: PathBuf,
}

impl Place {
    pub(super) fn find(global: &Global) -> Result<Self, Error> {
        let project = Project::load(&folder(global), environment())?;
        let data = global.data.clone().or_else(data_of_environment);
        let data = data.unwrap_or_else(|| project.config.data.clone());
        Ok(Self { project, data })
    }

    /// What this project runs, on data that was taken.
    pub(super) fn on(&self, store: Arc<SqliteStore>) -> Bowline {
        let retention = self.project.config.retention;
        let mut code = CodeOptions::default();
        self.project.config.isolates.apply(&mut code);
        code.isolates.cache = super::code::cache_folder();
        Bowline::on(store)
            .code(code)
            .models(self.project.models())
            .retention(retention)
            .host(self.host())
    }

    /// This binary is the helper of host directories. An agent in one must reach neither data nor secrets,
    /// nor change what agents may do.
    pub(super) fn host(&self) -> HostAccess {
        let project = &self.project.dir;
        let mut keep_out = vec![
            self.data.clone(),
            self.project.config.secrets_file.clone(),
            project.join("bowline.toml"),
        ];
        keep_out.extend(["agents", "skills", "tools", "channels"].map(|name| project.join(name)));
        let helper = if cfg!(target_os = "linux") {
            // Also when the file was replaced by a newer version meanwhile.
            Ok(PathBuf::from("/proc/self/exe"))
        } else {
            env::current_exe()
        };
        HostAccess {
            helper: helper.unwrap_or_else(|_| PathBuf::from("bowline")),
            keep_out,
        }
    }

    /// An agent that can run, on another model when one is given: its files, its services, its models and their
    /// keys are as it needs them.
    pub(super) fn ready(&self, agent: &str, model: Option<&str>) -> Result<Agent, Error> {
        let found = self.project.agent(agent, model)?;
        let models = Models::new(self.project.models());
        Agents::new([found.clone()], models, Sources::system())
            .with_host(self.host())
            .check(agent)?;
        Ok(found)
    }

    /// Takes the data directory for this process; it is made when it is not there.
    pub(super) fn take(&self) -> Result<Arc<SqliteStore>, Error> {
        self.store(SqliteOptions::default())
    }

    /// True when something was stored here.
    pub(super) fn has_data(&self) -> bool {
        self.data.join(DATABASE).exists()
    }

    /// Opens the data for reading, beside a process that may be using it. `None` when there is none.
    pub(super) fn read(&self) -> Result<Option<Arc<SqliteStore>>, Error> {
        if !self.has_data() {
            return Ok(None);
        }
        let options = SqliteOptions {
            read_only: true,
            ..SqliteOptions::default()
        };
        self.store(options).map(Some)
    }

    fn store(&self, options: SqliteOptions) -> Result<Arc<SqliteStore>, Error> {
        SqliteStore::open(&self.data, options).map_err(|error| {
            let hint = match error {
                StoreError::Io(_) => "check the data directory, or choose another with --data",
                // These say it themselves.
                StoreError::Corrupt(_)
                | StoreError::NewerFormat { .. }
                | StoreError::Locked(_)
                | StoreError::Full
                | StoreError::Closed(_) => "",
            };
            Error {
                hint: hint.to_owned(),
                ..error.into()
            }
        })
    }

    /// Opens one conversation for reading.
    pub(super) async fn conversation(&self, agent: &str, id: &str) -> Result<Reading, Error> {
        service::check_instance(id)?;
        let Some(store) = self.read()? else {
            return Err(self.missing(agent, id, &[]));
        };
        match service::peek(&*store, agent, id).await? {
            Some(conversation) => Ok(Reading {
                store,
                actor: actor(agent, id),
                conversation,
            }),
            None => {
                let known = instances(&*store, agent).await?;
                Err(self.missing(agent, id, &known))
            }
        }
    }

    /// Refuses what comes behind all that a conversation has open, while a part of that waits for a person.
    pub(super) async fn nobody_is_waited_for(&self, agent: &str, id: &str) -> Result<(), Error> {
        let reading = self.conversation(agent, id).await?;
        let open = submission::open(&*reading.store, &reading.actor).await?;
        let parked = |one: &&Submission| matches!(one.state, State::Parked { .. });
        match open.iter().find(parked) {
            Some(waiting) => Err(Fault::Waits(waiting.id.clone()).into()),
            None => Ok(()),
        }
    }

    /// There is no such conversation; perhaps there is not even such an agent.
    pub(super) fn missing(&self, agent: &str, id: &str, known: &[String]) -> Error {
        if known.is_empty()
            && let Err(error) = self.project.definition(agent)
        {
            return error;
        }
        let (agent, id) = (agent.to_owned(), id.escape_debug().to_string());
        Fault::NoConversation {
            agent,
            id,
            known: known.to_vec(),
        }
        .into()
    }
}

/// Says which data is damaged, when some is.
pub(super) fn name_damaged(global: &Global, error: &mut Error) {
    if error.code == "store_corrupt"
        && error.hint.is_empty()
        && let Ok(place) = Place::find(global)
    {
        error.hint = format!(
            "the data is {}; check it with `bowline doctor --deep`, or put a backup in its place with `bowline restore DIR --replace`",
            place.data.join(DATABASE).display()
        );
    }
}

/// A conversation that is read while another process may write it.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) store: Arc<SqliteStore>,
    pub(super) actor: ActorId,
    pub(super) conversation: Conversation,
}

/// Some instances of an agent.
pub(super) async fn instances(store: &dyn Store, agent: &str) -> Result<Vec<String>, StoreError> {
    let found = store.actors(KIND, Some(agent), None, NAMED).await?;
    Ok(found
        .iter()
        .map(|actor| actor.key().escape_debug().to_string())
        .collect())
}

/// The folder where `bowline.toml` should be.
pub(super) fn folder(global: &Global) -> PathBuf {
    match &global.project {
        Some(dir) => dir.clone(),
        None => {
            let here = env::current_dir().unwrap_or_else(|_| PathBuf::from("."));
            let found = config::find_project(&here).unwrap_or_else(|| here.clone());
            // A path below the current folder is easier to read.
            if found == here {
                PathBuf::from(".")
            } else {
                found
            }
        }
    }
}

/// Where `$BOWLINE_DATA` says that data is.
pub(super) fn data_of_environment() -> Option<PathBuf> {
    env::var_os("BOWLINE_DATA")
        .filter(|dir| !dir.is_empty())
        .map(PathBuf::from)
}

/// The environment of this process.
pub(super) fn environment() -> Environment {
    Arc::new(|name| env::var(name).ok())
}

/// Reads a file that was named on the command line.
pub(super) fn read_file(path: &Path, most: u64) -> Result<Vec<u8>, Error> {
    use std::io::Read as _;
    let refuse = |why: String| {
        Error::from(Fault::UnreadableFile {
            path: path.display().to_string(),
            why,
        })
    };
    let file = std::fs::File::open(path).map_err(|error| refuse(error.to_string()))?;
    let meta = file.metadata().map_err(|error| refuse(error.to_string()))?;
    if meta.is_dir() {
        return Err(refuse("is a folder, not a file".to_owned()));
    }
    let mut bytes = Vec::new();
    file.take(most + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| refuse(error.to_string()))?;
    if bytes.len() as u64 > most {
        return Err(refuse(format!("is larger than {} MiB", most >> 20)));
    }
    Ok(bytes)
}
