//! Conversations as files, brought into a data directory.

use std::io::Read;

use bowline_agent::{KIND, actor};
use bowline_runtime::submission;
use bowline_store::{Dump, DumpError, Store};
use serde::{Deserialize, Serialize};

use crate::{error::Error, service::check_instance};

/// A conversation that was brought in.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Imported {
    /// The agent.
    pub(crate) agent: String,
    /// The conversation.
    pub(crate) id: String,
    /// How many submissions it has open.
    pub(crate) open: usize,
}

/// Reads and verifies a file, and takes it in under another id where one is given. All of it, or nothing.
///
/// # Errors
///
/// When the file is damaged or holds something else, or there is such a conversation already.
pub(crate) async fn import(
    store: &dyn Store,
    mut file: impl Read + Send,
    id: Option<String>,
) -> Result<Imported, Error> {
    let dump = Dump::read(&mut file)?;
    if dump.actor.kind() != KIND {
        let what = format!("it holds a {}, not a conversation", dump.actor.kind());
        return Err(DumpError::Damaged(what).into());
    }
    let agent = dump.actor.name().to_owned();
    let id = id.unwrap_or_else(|| dump.actor.key().to_owned());
    check_instance(&id)?;
    let actor = actor(&agent, &id);
    dump.put(store, &actor).await?;
    let open = submission::open(store, &actor).await?.len();
    Ok(Imported { agent, id, open })
}
