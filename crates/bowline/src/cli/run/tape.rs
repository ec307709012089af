//! What is said to providers in a run, kept in a file or taken from one.

use std::{fs, path::PathBuf};

use bowline_model::cassette::{Cassette, Tape};
use clap::Args;
use serde_json::Value;

use crate::{cli::fault::Fault, error::Error, project::Project};

/// The options for it.
#[derive(Debug, Args)]
pub(super) struct Taped {
    /// Keep what is said to providers in this file, without keys, for --replay and for tests
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Ask no provider: answer as was recorded in this file, in the same order
    #[arg(long, value_name = "FILE", conflicts_with = "record")]
    replay: Option<PathBuf>,
}

impl Taped {
    /// The option that only a process that has the data can follow, if one is given.
    pub(super) fn given(&self) -> Option<&'static str> {
        let record = self.record.as_ref().map(|_| "--record");
        record.or(self.replay.as_ref().map(|_| "--replay"))
    }

    /// The tape that is asked for.
    pub(super) fn tape(&self, project: &Project) -> Result<Option<Tape>, Error> {
        if let Some(path) = &self.record {
            // Said before anything is paid for.
            let folder = path.parent().filter(|dir| !dir.as_os_str().is_empty());
            if folder.is_some_and(|dir| !dir.is_dir()) {
                let why = "its folder is not there".to_owned();
                let path = path.clone();
                return Err(Fault::Cassette { path, why }.into());
            }
            return Ok(Some(Tape::record_without(project.config.secrets.all())));
        }
        let Some(path) = &self.replay else {
            return Ok(None);
        };
        let failed = |why: String| Fault::Cassette {
            path: path.clone(),
            why,
        };
        let text = fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
        let mut cassette = Cassette::parse(&text).map_err(|error| failed(error.to_string()))?;
        for exchange in &mut cassette.exchanges {
            // The date and the ids of a conversation are others each time.
            exchange.request.body = Value::Null;
        }
        Ok(Some(Tape::replay(cassette)))
    }

    /// Writes what was recorded; what was there is replaced.
    pub(super) fn save(&self, tape: Option<&Tape>) -> Result<(), Error> {
        let (Some(path), Some(tape)) = (&self.record, tape) else {
            return Ok(());
        };
        let text = tape.cassette().to_json() + "\n";
        fs::write(path, text).map_err(|error| {
            let (path, why) = (path.clone(), error.to_string());
            Fault::Cassette { path, why }.into()
        })
    }
}
