//! Agents are read again when their files change.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use bowline_agent::{Agent, Agents};
use bowline_model::Models;

use super::log::Log;
use crate::{
    cli::{terminal::Terminal, watch::Changes},
    config::Config,
    error::Error,
    project::Project,
    service::Service,
};

/// How long nothing must change before what changed is read: editors write in several steps.
const QUIET: Duration = Duration::from_millis(100);
/// How long that may go on.
const AT_MOST: Duration = Duration::from_secs(1);
/// Most files and folders that are watched.
const MOST: usize = 20_000;
/// Folders of the project that agents are made of.
const FOLDERS: [&str; 3] = ["agents", "skills", "tools"];
/// The settings, which are read at the start only.
const SETTINGS: &str = "bowline.toml";

/// When a file was changed last, and its length.
type Stamp = (Option<SystemTime>, u64);

/// The files of a project, as they were when they were last read.
pub(super) struct Reload {
    project: Project,
    changes: Changes,
    files: BTreeMap<PathBuf, Stamp>,
    /// Agents that are served.
    served: BTreeSet<String>,
    /// What is wrong with each of the others, so that it is said once.
    wrong: BTreeMap<String, String>,
}

impl Reload {
    pub(super) fn new(project: Project) -> Result<Self, Error> {
        let mut reload = Self {
            changes: Changes::of([project.dir.clone()])?,
            project,
            files: BTreeMap::new(),
            served: BTreeSet::new(),
            wrong: BTreeMap::new(),
        };
        reload.files = reload.look();
        Ok(reload)
    }

    /// The agents that can be served at the start; what is wrong with the others is said.
    pub(super) fn first(&mut self, terminal: Terminal) -> Result<Vec<Agent>, Error> {
        let mut agents = Vec::new();
        for found in self.project.agents()? {
            match self.read(&found.name) {
                Ok((agent, problem)) => {
                    // It may lack no more than a key, and is there to say so.
                    if let Some(problem) = problem {
                        terminal.error(&problem);
                    }
                    self.served.insert(found.name);
                    agents.push(agent);
                }
                Err(error) => {
                    terminal.error(&error);
                    self.wrong.insert(found.name, error.message);
                }
            }
        }
        Ok(agents)
    }

    /// Reads what changes, for ever.
    pub(super) async fn keep(&mut self, service: &Service, log: &Log) {
        for name in &self.served {
            // What is wrong was said.
            let _ = service.check(name);
        }
        loop {
            self.changes.next().await;
            let quiet = async {
                while tokio::time::timeout(QUIET, self.changes.told())
                    .await
                    .is_ok()
                {}
            };
            let _ = tokio::time::timeout(AT_MOST, quiet).await;
            self.take(service, log);
        }
    }

    /// Takes what changed.
    fn take(&mut self, service: &Service, log: &Log) {
        let files = self.look();
        let changed: BTreeSet<_> = files
            .iter()
            .filter(|(path, stamp)| self.files.get(*path) != Some(stamp))
            .chain(
                self.files
                    .iter()
                    .filter(|(path, _)| !files.contains_key(*path)),
            )
            .map(|(path, _)| path.clone())
            .collect();
        if changed.is_empty() {
            return;
        }
        self.files = files;
        if changed.contains(&self.project.dir.join(SETTINGS)) {
            match Config::load(&self.project.dir) {
                Ok(_) => log.settings(),
                Err(error) => log.problem(SETTINGS, &error.into()),
            }
        }
        let agents = self.project.dir.join("agents");
        let shared = changed
            .iter()
            .any(|path| !path.starts_with(&agents) && !path.ends_with(SETTINGS));
        let touched = |name: &str| {
            let folder = agents.join(name);
            shared || changed.iter().any(|path| path.starts_with(&folder))
        };
        let found = match self.project.agents() {
            Ok(found) => found,
            Err(error) => return log.problem("agents", &error),
        };
        let names: BTreeSet<_> = found.into_iter().map(|agent| agent.name).collect();
        for gone in self.served.difference(&names) {
            service.remove_agent(gone);
            log.removed(gone);
        }
        self.served.retain(|name| names.contains(name));
        self.wrong.retain(|name, _| names.contains(name));
        for name in names.iter().filter(|name| touched(name)) {
            self.again(name, service, log);
        }
    }

    /// Reads one agent again.
    fn again(&mut self, name: &str, service: &Service, log: &Log) {
        let known = self.served.contains(name);
        let problem = match self.read(name) {
            Ok((_, Some(problem))) if known => problem,
            Ok((agent, problem)) => {
                service.put_agent(agent);
                // What it needs is read now: a file that breaks later changes nothing.
                let _ = service.check(name);
                self.served.insert(name.to_owned());
                log.read(name, known);
                match problem {
                    Some(problem) => problem,
                    None => {
                        self.wrong.remove(name);
                        return;
                    }
                }
            }
            Err(error) => error,
        };
        if self.wrong.get(name) != Some(&problem.message) {
            self.wrong.insert(name.to_owned(), problem.message.clone());
            log.problem(name, &problem);
            if known {
                log.kept(name);
            }
        }
    }

    /// An agent, and what keeps it from running, where that is not in its own files alone.
    fn read(&self, name: &str) -> Result<(Agent, Option<Error>), Error> {
        let agent = self.project.agent(name, None)?;
        let models = Models::new(self.project.models());
        let sources = bowline_runtime::Sources::system();
        let checked = Agents::new([agent.clone()], models, sources).check(name);
        Ok((agent, checked.err().map(Error::from)))
    }

    /// The files that agents are made of, and watches for their folders.
    fn look(&mut self) -> BTreeMap<PathBuf, Stamp> {
        let mut files = BTreeMap::new();
        let settings = self.project.dir.join(SETTINGS);
        files.extend(stamp(&settings).map(|stamp| (settings, stamp)));
        let mut folders: Vec<_> = FOLDERS
            .iter()
            .map(|name| self.project.dir.join(name))
            .collect();
        let mut left = MOST;
        while let Some(folder) = folders.pop() {
            // Before it is read, so that nothing is missed. One that is not there needs no watch; those
            // that are too many are looked at from time to time.
            let _ = self.changes.add(folder.clone());
            let Ok(entries) = fs::read_dir(&folder) else {
                continue;
            };
            for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
                left = left.saturating_sub(1);
                if left == 0 {
                    return files;
                }
                if path.is_dir() {
                    if !is_passed_over(&path, &self.project.dir) {
                        folders.push(path);
                    }
                } else if let Ok(stamp) = stamp(&path) {
                    files.insert(path, stamp);
                }
            }
        }
        files
    }
}

/// What a conversation starts with is copied when it starts, and what others installed is not ours.
fn is_passed_over(folder: &Path, project: &Path) -> bool {
    let below = folder.strip_prefix(project).unwrap_or(folder);
    let parts: Vec<_> = below.iter().collect();
    matches!(parts.as_slice(), [agents, _, seed] if *agents == "agents" && *seed == "workspace")
        || below.ends_with("node_modules")
        || below.ends_with(".git")
}

fn stamp(path: &Path) -> io::Result<Stamp> {
    let meta = fs::metadata(path)?;
    Ok((meta.modified().ok(), meta.len()))
}
