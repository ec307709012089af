//! Other repositories, over smart HTTP.
//!
//! What is sent goes through [`Outside`], which knows the allow-list and attaches credentials; no
//! secret is in a URL, in `.git/config` or in a message.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{
    GitError, ObjectId, Repository,
    limits::PACK_BYTES,
    merge::Merged,
    pack::PackWriter,
    refs::{self, Head},
    wire::{Advertised, Answer, DELIMITER, FLUSH, Packet, Packets, line, shown},
};
use crate::{
    egress::{EgressError, Outside, Request, Response},
    workspace::{Overlay, WorkspaceError},
};

/// Commits that a fetch says it has.
const HAVES: usize = 256;
/// How this end calls itself.
const AGENT: &str = concat!("agent=bowline/", env!("CARGO_PKG_VERSION"));
/// What stands for no object.
const NONE: ObjectId = ObjectId([0; 20]);

/// A reference that was moved: name, id before, id after.
pub type Moved = (String, Option<ObjectId>, Option<ObjectId>);

/// What a fetch did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The address.
    pub url: String,
    /// References that were moved here, by their full names.
    pub moved: Vec<Moved>,
    /// Objects that came.
    pub objects: usize,
}

/// What a pull did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// The fetch.
    pub fetched: Fetched,
    /// `HEAD` before.
    pub before: Option<ObjectId>,
    /// `HEAD` after.
    pub after: ObjectId,
    /// A merge commit was made.
    pub merged: bool,
}

/// What a push did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// The address.
    pub url: String,
    /// References that were moved there, by their full names.
    pub moved: Vec<Moved>,
    /// References that the remote refused, and why.
    pub refused: Vec<(String, String)>,
}

/// How to clone.
#[derive(Debug, Clone, Default)]
pub struct CloneOptions {
    /// The branch to check out; default that of the remote.
    pub branch: Option<String>,
    /// Take only so many commits of each branch.
    pub depth: Option<u32>,
}

/// How to push.
#[derive(Debug, Clone, Default)]
pub struct PushOptions {
    /// Move a branch there also when commits of it are lost by that.
    pub force: bool,
    /// Remember the remote branch as the one to pull from.
    pub set_upstream: bool,
    /// Remove the branches there.
    pub delete: bool,
}

/// Checks the address of a remote; gives it without slashes at its end.
pub(crate) fn address(url: &str) -> Result<String, GitError> {
    let rest = url
        .strip_prefix("https://")
        .or_else(|| url.strip_prefix("http://"));
    let Some(rest) = rest else {
        return Err(GitError::Unsupported(format!(
            "the remote '{}': only https:// and http:// URLs",
            hide(url)
        )));
    };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if host.contains('@') {
        return Err(GitError::Refused(
            "fatal: a URL of a remote must not hold a name or password; the host attaches credentials, see docs/guide/workspace.md".into(),
        ));
    }
    if host.is_empty()
        || url.contains(['?', '#'])
        || url.chars().any(|c| c.is_control() || c == ' ')
    {
        return Err(GitError::Refused(format!(
            "fatal: '{}' is not the URL of a repository",
            hide(url)
        )));
    }
    Ok(url.trim_end_matches('/').to_owned())
}

/// A URL without what may be a secret.
fn hide(url: &str) -> String {
    let end = url.find(['?', '#']).unwrap_or(url.len());
    let url = &url[..end];
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => {
            format!("{}://…@{}", &url[..scheme], &url[at + 1..])
        }
        _ => url.to_owned(),
    }
}

async fn ask(outside: &dyn Outside, request: Request, url: &str) -> Result<Response, GitError> {
    let answer = match outside.send(request).await {
        Ok(answer) => answer,
        Err(EgressError::RequestTooLarge(limit)) => {
            let what = format!("fatal: what is sent to '{url}' is too large");
            return Err(GitError::Limit { what, limit });
        }
        Err(EgressError::ResponseTooLarge(limit)) => {
            let what = format!("fatal: what '{url}' sends is too large");
            return Err(GitError::Limit { what, limit });
        }
        Err(error) => {
            let why = format!("fatal: unable to access '{url}': {error}");
            return Err(GitError::Remote(why));
        }
    };
    match answer.status {
        200 => Ok(answer),
        401 | 403 => Err(GitError::Remote(format!(
            "fatal: Authentication failed for '{url}' ({}): this host needs a credential, which is set outside of the workspace; see docs/guide/workspace.md",
            answer.status
        ))),
        404 => Err(GitError::Remote(format!(
            "fatal: repository '{url}' not found"
        ))),
        status => Err(GitError::Remote(format!(
            "fatal: unable to access '{url}': status {status}"
        ))),
    }
}

/// The first exchange; gives where the repository is, after redirects, and the body.
async fn begin(
    outside: &dyn Outside,
    url: &str,
    service: &str,
) -> Result<(String, Bytes), GitError> {
    let tail = format!("/info/refs?service={service}");
    let mut request = Request::get(format!("{url}{tail}"));
    if service == "git-upload-pack" {
        request
            .headers
            .push(("git-protocol".into(), "version=2".into()));
    }
    let answer = ask(outside, request, url).await?;
    let smart = answer
        .header("content-type")
        .is_some_and(|kind| kind.contains(&format!("x-{service}-advertisement")));
    if !smart {
        return Err(GitError::Remote(format!(
            "fatal: '{url}' is not a git repository over smart HTTP"
        )));
    }
    let base = answer.url.strip_suffix(&tail).unwrap_or(url);
    Ok((address(base)?, answer.body))
}

async fn post(
    outside: &dyn Outside,
    url: &str,
    service: &str,
    body: Vec<u8>,
) -> Result<Bytes, GitError> {
    let mut headers = vec![
        (
            "content-type".to_owned(),
            format!("application/x-{service}-request"),
        ),
        (
            "accept".to_owned(),
            format!("application/x-{service}-result"),
        ),
    ];
    if service == "git-upload-pack" {
        headers.push(("git-protocol".into(), "version=2".into()));
    }
    let request = Request {
        method: "POST".into(),
        url: format!("{url}/{service}"),
        headers,
        body: Bytes::from(body),
    };
    Ok(ask(outside, request, url).await?.body)
}

/// What a remote has; also where it is, after redirects.
async fn list(outside: &dyn Outside, url: &str) -> Result<(String, Advertised), GitError> {
    let (url, body) = begin(outside, url, "git-upload-pack").await?;
    let mut packets = Packets::new(body);
    let mut lines = packets.lines()?;
    if lines
        .first()
        .is_some_and(|line| line.starts_with("# service="))
    {
        lines = packets.lines()?;
    }
    if lines.first().map(String::as_str) != Some("version 2") {
        return Err(GitError::Unsupported(
            "a remote without protocol version 2".into(),
        ));
    }
    if lines
        .iter()
        .any(|line| line.starts_with("object-format=") && line != "object-format=sha1")
    {
        return Err(GitError::Unsupported(
            "a remote that does not use SHA-1".into(),
        ));
    }
    let mut ask = Vec::new();
    for text in ["command=ls-refs", AGENT, "object-format=sha1"] {
        line(&mut ask, text);
    }
    ask.extend_from_slice(DELIMITER);
    for text in [
        "symrefs",
        "ref-prefix HEAD",
        "ref-prefix refs/heads/",
        "ref-prefix refs/tags/",
    ] {
        line(&mut ask, text);
    }
    if lines
        .iter()
        .any(|line| line.starts_with("ls-refs=") && line.contains("unborn"))
    {
        line(&mut ask, "unborn");
    }
    ask.extend_from_slice(FLUSH);
    let answer = post(outside, &url, "git-upload-pack", ask).await?;
    Ok((url, Advertised::parse(answer)?))
}

impl Repository {
    /// Copies a remote repository into a directory that is missing or empty.
    ///
    /// # Errors
    ///
    /// [`GitError::Remote`], [`GitError::Refused`], [`GitError::Limit`]; then the directory may hold a
    /// part of it, which a caller drops with its overlay.
    pub async fn clone(
        overlay: &Overlay,
        outside: &dyn Outside,
        url: &str,
        path: &str,
        options: &CloneOptions,
    ) -> Result<(Self, Fetched), GitError> {
        let url = address(url)?;
        match overlay.list(path).await {
            Ok(names) if !names.is_empty() => {
                return Err(GitError::Refused(format!(
                    "fatal: destination path '{path}' already exists and is not an empty directory."
                )));
            }
            Ok(_) | Err(WorkspaceError::NotFound(_)) => {}
            Err(error) => return Err(error.into()),
        }
        let (place, there) = list(outside, &url).await?;
        let wanted = match &options.branch {
            Some(branch) => Some(format!("refs/heads/{branch}")),
            None => there
                .head
                .clone()
                .filter(|name| name.starts_with("refs/heads/")),
        };
        let short = wanted
            .as_deref()
            .and_then(|name| name.strip_prefix("refs/heads/"))
            .unwrap_or("main")
            .to_owned();
        if options.branch.is_some() && !there.refs.contains_key(&format!("refs/heads/{short}")) {
            return Err(GitError::Unknown(format!(
                "fatal: Remote branch {short} not found in upstream origin"
            )));
        }
        let (mut repository, _) = Self::init(overlay, path, &short).await?;
        let mut config = repository.config().await?;
        config.set("remote.origin.url", &url)?;
        config.set("remote.origin.fetch", "+refs/heads/*:refs/remotes/origin/*")?;
        repository.set_config(&config).await?;
        let fetched = repository
            .fetch_from(
                outside,
                (&url, &place),
                &there,
                "origin",
                options.depth,
                false,
            )
            .await?;
        if let Some(name) = there
            .head
            .as_deref()
            .and_then(|name| name.strip_prefix("refs/heads/"))
        {
            repository
                .write_control(
                    "refs/remotes/origin/HEAD",
                    format!("ref: refs/remotes/origin/{name}\n"),
                )
                .await?;
        }
        if let Some(id) = there.refs.get(&format!("refs/heads/{short}")) {
            repository.track(&short, "origin", &short).await?;
            let files = repository.commit_files(Some(*id)).await?;
            repository
                .switch_files(&BTreeMap::new(), &files, "clone")
                .await?;
            repository
                .set_ref(&format!("refs/heads/{short}"), *id)
                .await?;
        }
        Ok((repository, fetched))
    }

    pub(crate) async fn track(
        &self,
        branch: &str,
        remote: &str,
        theirs: &str,
    ) -> Result<(), GitError> {
        let mut config = self.config().await?;
        config.set(&format!("branch.{branch}.remote"), remote)?;
        config.set(
            &format!("branch.{branch}.merge"),
            &format!("refs/heads/{theirs}"),
        )?;
        self.set_config(&config).await
    }

    /// The address of a remote, by its name or as it is.
    pub(crate) async fn remote_url(&self, remote: &str) -> Result<String, GitError> {
        if remote.contains("://") {
            return address(remote);
        }
        let config = self.config().await?;
        let url = config.get(&format!("remote.{remote}.url"));
        let url = url.ok_or_else(|| {
            GitError::Unknown(format!("fatal: '{remote}' does not appear to be a git repository; add it with git remote add"))
        })?;
        address(url)
    }

    /// Takes over what a remote has, into `refs/remotes/REMOTE/`. With `prune` branches that are gone
    /// there are forgotten here.
    ///
    /// # Errors
    ///
    /// [`GitError::Remote`], [`GitError::Corrupt`], [`GitError::Limit`].
    pub async fn fetch(
        &mut self,
        outside: &dyn Outside,
        remote: &str,
        depth: Option<u32>,
        prune: bool,
    ) -> Result<Fetched, GitError> {
        let url = self.remote_url(remote).await?;
        let (place, there) = list(outside, &url).await?;
        let name = if remote.contains("://") {
            "origin"
        } else {
            remote
        };
        self.fetch_from(outside, (&url, &place), &there, name, depth, prune)
            .await
    }

    async fn fetch_from(
        &mut self,
        outside: &dyn Outside,
        (url, place): (&str, &str),
        there: &Advertised,
        name: &str,
        depth: Option<u32>,
        prune: bool,
    ) -> Result<Fetched, GitError> {
        let mut targets: BTreeMap<String, ObjectId> = BTreeMap::new();
        for (full, id) in &there.refs {
            if let Some(short) = full.strip_prefix("refs/heads/") {
                targets.insert(format!("refs/remotes/{name}/{short}"), *id);
            }
        }
        let mut wants = Vec::new();
        for id in targets.values() {
            if depth.is_some() || !self.has(*id).await? {
                wants.push(*id);
            }
        }
        wants.sort_unstable();
        wants.dedup();
        let objects = if wants.is_empty() {
            0
        } else {
            self.fetch_objects(outside, place, &wants, depth).await?
        };
        for id in &wants {
            if !self.has(*id).await? {
                return Err(GitError::Remote(format!(
                    "fatal: remote did not send all necessary objects: {id}"
                )));
            }
        }
        // Tags come where their commits did, and never move.
        for (full, id) in there
            .refs
            .iter()
            .filter(|(full, _)| full.starts_with("refs/tags/"))
        {
            if self.has(*id).await? && self.resolve_ref(full).await?.is_none() {
                targets.insert(full.clone(), *id);
            }
        }
        let mut moved = Vec::new();
        for (full, id) in &targets {
            let before = self.resolve_ref(full).await?;
            if before != Some(*id) {
                self.set_ref(full, *id).await?;
                moved.push((full.clone(), before, Some(*id)));
            }
        }
        if prune {
            for (full, id) in self.refs(&format!("refs/remotes/{name}/")).await? {
                if !targets.contains_key(&full) && !full.ends_with("/HEAD") {
                    self.delete_ref(&full).await?;
                    moved.push((full, Some(id), None));
                }
            }
        }
        Ok(Fetched {
            url: url.to_owned(),
            moved,
            objects,
        })
    }

    async fn fetch_objects(
        &mut self,
        outside: &dyn Outside,
        url: &str,
        wants: &[ObjectId],
        depth: Option<u32>,
    ) -> Result<usize, GitError> {
        let mut ask = Vec::new();
        for text in ["command=fetch", AGENT, "object-format=sha1"] {
            line(&mut ask, text);
        }
        ask.extend_from_slice(DELIMITER);
        for text in ["ofs-delta", "no-progress", "include-tag"] {
            line(&mut ask, text);
        }
        for id in wants {
            line(&mut ask, &format!("want {id}"));
        }
        let shallow = self.shallow().await?;
        for id in &shallow {
            line(&mut ask, &format!("shallow {id}"));
        }
        if let Some(depth) = depth {
            line(&mut ask, &format!("deepen {}", depth.max(1)));
        }
        let heads: Vec<ObjectId> = self.refs("refs/").await?.into_values().collect();
        let mut commits = Vec::new();
        for id in heads {
            if self.has(id).await? && self.commit_at(id).await.is_ok() {
                commits.push(id);
            }
        }
        for entry in self.log(&commits, &[], HAVES).await? {
            line(&mut ask, &format!("have {}", entry.id));
        }
        line(&mut ask, "done");
        ask.extend_from_slice(FLUSH);
        let answer = Answer::parse(post(outside, url, "git-upload-pack", ask).await?)?;
        if answer.pack.is_empty() {
            return Err(GitError::Remote("fatal: the remote sent no pack".into()));
        }
        let objects = self.put_pack(answer.pack).await?;
        let mut shallow = shallow;
        shallow.extend(&answer.shallow);
        shallow.retain(|id| !answer.unshallow.contains(id));
        shallow.sort_unstable();
        shallow.dedup();
        if !shallow.is_empty() {
            let lines = shallow.iter().map(|id| format!("{id}\n")).collect();
            self.write_control("shallow", lines).await?;
        } else {
            self.overlay
                .remove(&format!("{}/shallow", self.dir), false, true)
                .await?;
        }
        Ok(objects)
    }

    /// Fetches, and takes the remote branch over into the one that `HEAD` is on.
    ///
    /// # Errors
    ///
    /// As [`Repository::fetch`]; [`GitError::Refused`] when both sides changed the same lines, or with
    /// `fast_forward_only` when this side has commits of its own.
    pub async fn pull(
        &mut self,
        outside: &dyn Outside,
        remote: Option<&str>,
        branch: Option<&str>,
        fast_forward_only: bool,
    ) -> Result<Pulled, GitError> {
        let Head::Branch(current) = self.head().await? else {
            return Err(GitError::Refused(
                "You are not currently on a branch.".into(),
            ));
        };
        let config = self.config().await?;
        let configured = config.get(&format!("branch.{current}.remote"));
        let remote = remote.or(configured).unwrap_or("origin").to_owned();
        let upstream = config.get(&format!("branch.{current}.merge"));
        let upstream = upstream.and_then(|full| full.strip_prefix("refs/heads/"));
        let Some(branch) = branch.or(upstream).map(str::to_owned) else {
            return Err(GitError::Refused(format!(
                "There is no tracking information for the current branch.\nhint: git pull {remote} <branch>, or git branch --set-upstream-to={remote}/<branch> {current}"
            )));
        };
        let fetched = self.fetch(outside, &remote, None, false).await?;
        let name = if remote.contains("://") {
            "origin"
        } else {
            &remote
        };
        let theirs = self
            .resolve_ref(&format!("refs/remotes/{name}/{branch}"))
            .await?;
        let theirs = theirs.ok_or_else(|| {
            GitError::Unknown(format!("fatal: couldn't find remote ref {branch}"))
        })?;
        let before = self.head_id().await?;
        let label = format!("branch '{branch}' of {}", fetched.url);
        let merged = self.merge(theirs, &label, fast_forward_only).await?;
        let after = match merged {
            Merged::UpToDate => before.unwrap_or(theirs),
            Merged::FastForward(_, id) | Merged::Commit(id) => id,
        };
        Ok(Pulled {
            fetched,
            before,
            after,
            merged: matches!(merged, Merged::Commit(_)),
        })
    }

    /// Moves branches of a remote: each of `specs` is `BRANCH`, `HERE:THERE` or a tag; none means the
    /// branch that `HEAD` is on.
    ///
    /// # Errors
    ///
    /// [`GitError::Refused`] when commits there would be lost (without `force`), [`GitError::Remote`].
    pub async fn push(
        &mut self,
        outside: &dyn Outside,
        remote: &str,
        specs: &[String],
        options: &PushOptions,
    ) -> Result<Pushed, GitError> {
        let url = self.remote_url(remote).await?;
        let updates = self.updates(specs, options.delete).await?;
        let (place, body) = begin(outside, &url, "git-receive-pack").await?;
        let (there, able) = Advertised::parse_push(body)?;
        if able.contains("object-format=") && !able.contains("object-format=sha1") {
            return Err(GitError::Unsupported(
                "a remote that does not use SHA-1".into(),
            ));
        }
        let mut moves = Vec::new();
        for (name, new, force) in updates {
            let old = there.refs.get(&name).copied();
            if old == new {
                continue;
            }
            if let (Some(old), Some(new), false) = (old, new, force || options.force) {
                let forward = self.has(old).await? && self.is_ancestor(old, new).await?;
                if !forward {
                    return Err(GitError::Refused(format!(
                        "To {url}\n ! [rejected]        {name} (non-fast-forward)\nerror: failed to push some refs to '{url}'\nhint: Updates were rejected because the remote has commits that you do not have. Use git pull first."
                    )));
                }
            }
            moves.push((name, old, new));
        }
        let mut refused = Vec::new();
        if !moves.is_empty() {
            let known: Vec<ObjectId> = there.refs.values().copied().collect();
            let report = self.send(outside, &place, &moves, &known).await?;
            refused = report_of(report, &moves)?;
        }
        moves.retain(|(name, _, _)| refused.iter().all(|(other, _)| other != name));
        let named = !remote.contains("://");
        for (name, _, new) in &moves {
            let Some(short) = name.strip_prefix("refs/heads/").filter(|_| named) else {
                continue;
            };
            match new {
                Some(id) => {
                    self.set_ref(&format!("refs/remotes/{remote}/{short}"), *id)
                        .await?
                }
                None => {
                    self.delete_ref(&format!("refs/remotes/{remote}/{short}"))
                        .await?
                }
            }
        }
        if let (true, true, Head::Branch(current)) =
            (options.set_upstream, named, self.head().await?)
        {
            let theirs = specs
                .first()
                .and_then(|spec| spec.split(':').next_back())
                .unwrap_or(&current);
            let theirs = theirs.strip_prefix("refs/heads/").unwrap_or(theirs);
            let theirs = if theirs == "HEAD" { &current } else { theirs };
            self.track(&current, remote, theirs).await?;
        }
        Ok(Pushed {
            url,
            moved: moves,
            refused,
        })
    }

    /// What a push should move: full name there, id, whether by force.
    async fn updates(
        &mut self,
        specs: &[String],
        delete: bool,
    ) -> Result<Vec<(String, Option<ObjectId>, bool)>, GitError> {
        let mut specs = specs.to_vec();
        if specs.is_empty() {
            match self.head().await? {
                Head::Branch(name) => specs.push(name),
                Head::Detached(_) => {
                    return Err(GitError::Refused(
                        "fatal: You are not currently on a branch.".into(),
                    ));
                }
            }
        }
        let mut out = Vec::new();
        for spec in specs {
            let (force, spec) = match spec.strip_prefix('+') {
                Some(spec) => (true, spec),
                None => (false, spec.as_str()),
            };
            let (mut from, mut to) = spec.split_once(':').unwrap_or((spec, spec));
            if delete {
                (from, to) = ("", spec);
            }
            let id = match from {
                "" => None,
                from => Some(self.resolve(from).await.map_err(|_| {
                    GitError::Unknown(format!("error: src refspec {from} does not match any"))
                })?),
            };
            let current = match self.head().await? {
                Head::Branch(name) => name,
                Head::Detached(_) => String::new(),
            };
            let to = if to == "HEAD" { &current } else { to };
            let tag = !from.is_empty()
                && self
                    .resolve_ref(&format!("refs/tags/{from}"))
                    .await?
                    .is_some();
            let full = match to {
                to if to.starts_with("refs/") => to.to_owned(),
                to if tag
                    && self
                        .resolve_ref(&format!("refs/heads/{from}"))
                        .await?
                        .is_none() =>
                {
                    format!("refs/tags/{to}")
                }
                to => format!("refs/heads/{to}"),
            };
            if !refs::valid(&full) {
                return Err(GitError::Refused(format!(
                    "fatal: invalid refspec '{spec}'"
                )));
            }
            out.push((full, id, force));
        }
        Ok(out)
    }

    async fn send(
        &mut self,
        outside: &dyn Outside,
        url: &str,
        moves: &[Moved],
        known: &[ObjectId],
    ) -> Result<Bytes, GitError> {
        let mut body = Vec::new();
        for (at, (name, old, new)) in moves.iter().enumerate() {
            let able = if at == 0 {
                format!("\0 report-status object-format=sha1 {AGENT}")
            } else {
                String::new()
            };
            line(
                &mut body,
                &format!(
                    "{} {} {name}{able}",
                    old.unwrap_or(NONE),
                    new.unwrap_or(NONE)
                ),
            );
        }
        body.extend_from_slice(FLUSH);
        let from: Vec<ObjectId> = moves.iter().filter_map(|(_, _, new)| *new).collect();
        if !from.is_empty() {
            let mut pack = PackWriter::new();
            for id in self.missing_objects(&from, known).await? {
                let (kind, object) = self.object(id).await?;
                pack.add(kind, &object)?;
                if pack.len() as u64 > PACK_BYTES {
                    return Err(GitError::Limit {
                        what: "the push is too large".into(),
                        limit: PACK_BYTES,
                    });
                }
            }
            body.extend_from_slice(&pack.finish());
        }
        post(outside, url, "git-receive-pack", body).await
    }

    pub(crate) async fn shallow(&self) -> Result<Vec<ObjectId>, GitError> {
        let text = self.read_control("shallow").await?;
        let text = text.as_deref().map(String::from_utf8_lossy);
        let lines = text.iter().flat_map(|text| text.lines());
        Ok(lines.filter_map(ObjectId::from_hex).collect())
    }
}

/// The references that a remote refused.
fn report_of(body: Bytes, moves: &[Moved]) -> Result<Vec<(String, String)>, GitError> {
    let mut packets = Packets::new(body);
    let (mut refused, mut unpacked, mut ok) = (Vec::new(), false, 0);
    while let Some(Packet::Data(data)) = packets.next()? {
        let text = String::from_utf8_lossy(&data).trim_end().to_owned();
        if let Some(state) = text.strip_prefix("unpack ") {
            if state != "ok" {
                return Err(GitError::Remote(format!(
                    "error: remote unpack failed: {}",
                    shown(state)
                )));
            }
            unpacked = true;
        } else if let Some(rest) = text.strip_prefix("ng ") {
            let (name, why) = rest.split_once(' ').unwrap_or((rest, "refused"));
            refused.push((name.to_owned(), shown(why)));
        } else if text.starts_with("ok ") {
            ok += 1;
        }
    }
    if !unpacked || ok + refused.len() < moves.len() {
        return Err(GitError::Remote(
            "fatal: the remote did not report what it did; fetch to see".into(),
        ));
    }
    Ok(refused)
}
