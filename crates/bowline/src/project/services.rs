//! The bindings of a project: what `[bindings.NAME]` becomes.

use std::{path::Path, sync::Arc, time::Duration};

use bowline_agent::binding::{
    Binding, Web,
    http::{Service, ServiceEffect},
    openapi::{self, MAX_DOCUMENT},
};
use bowline_model::Secret;
use bowline_sandbox::{
    egress::{Allow, Credential, EgressLimits, Guarded, Outside, Request},
    git::limits::EXCHANGE_BYTES,
};

use crate::{
    config::{Auth, AuthKind, BindingSettings, Document, HostAuth, bindings::global},
    error::Error,
    outside::Network,
};

/// Looks a secret up by its name.
pub(super) type Secrets<'a> = &'a dyn Fn(&str) -> Option<Secret>;

/// Credentials of `[egress.auth]`, and where each goes.
pub(super) type Credentials = Vec<(Allow, Credential)>;

/// The credentials for hosts that are allowed by name. The others are left alone: they need not be set.
///
/// # Errors
///
/// When the secret of one is not set.
pub(super) fn credentials(
    egress: &Allow,
    settings: &[HostAuth],
    secrets: Secrets<'_>,
) -> Result<Credentials, Error> {
    let needed = settings
        .iter()
        .filter(|settings| egress.meets(&settings.to));
    let found = needed.map(|HostAuth { to, auth }| {
        let credential = credential(auth, secrets).ok_or_else(|| {
            let host = to.patterns().next().unwrap_or_default();
            let what = format!("the host `{host}` needs `{}`, which is not set", auth.env);
            let next = "set the variable, or add it to the secrets file";
            Error::failure("egress_secret", what, next)
        })?;
        Ok((to.clone(), credential))
    });
    found.collect()
}

/// What `fetch` may reach; nothing when nothing is granted.
pub(super) fn web(
    egress: &Allow,
    credentials: &Credentials,
    wire: &Arc<Network>,
) -> Option<Arc<dyn Binding>> {
    let outside = outside(egress, credentials, EgressLimits::default(), wire)?;
    Some(Arc::new(Web::new(outside)))
}

/// What `git` and `curl` in the shell may reach; nothing when nothing is granted. A repository is
/// larger than what code fetches, and takes longer; the limits of `git` itself are the ones that count.
pub(super) fn shell(
    egress: &Allow,
    credentials: &Credentials,
    wire: &Arc<Network>,
) -> Option<Arc<dyn Outside>> {
    let limits = EgressLimits {
        time: Duration::from_secs(120),
        request: EXCHANGE_BYTES,
        response: EXCHANGE_BYTES,
        ..EgressLimits::default()
    };
    outside(egress, credentials, limits, wire)
}

fn outside(
    egress: &Allow,
    credentials: &Credentials,
    limits: EgressLimits,
    wire: &Arc<Network>,
) -> Option<Arc<dyn Outside>> {
    if egress.is_empty() {
        return None;
    }
    let mut guarded = Guarded::new(wire.clone(), egress.clone(), limits);
    for (to, credential) in credentials {
        guarded = guarded.with_credential_for(to.clone(), credential.clone());
    }
    Some(Arc::new(guarded))
}

/// A service as a binding.
///
/// # Errors
///
/// When its secret is not set, or its document cannot be read.
pub(super) fn service(
    project: &Path,
    name: &str,
    settings: &BindingSettings,
    secrets: Secrets<'_>,
    wire: &Arc<Network>,
) -> Result<Arc<dyn Binding>, Error> {
    let document = match &settings.document {
        None => None,
        Some(place) => Some(document(project, name, place, settings, wire)?),
    };
    let from = match &settings.document {
        Some(Document::Url(url)) => Some(url.as_str()),
        Some(Document::File(_)) | None => None,
    };
    let server = document
        .as_ref()
        .and_then(|document| document.server.as_deref());
    let base = base(settings, server, from).map_err(|why| unusable(name, &why))?;
    let hosts = hosts(settings, base.as_deref(), from).map_err(|why| unusable(name, why))?;
    let mut guarded = Guarded::new(wire.clone(), hosts, settings.limits);
    // Nothing is sent where examples answer, so no key is needed.
    if let Some(auth) = settings.auth.as_ref().filter(|_| !settings.examples) {
        let credential = credential(auth, secrets).ok_or_else(|| {
            let what = format!(
                "the binding `{name}` needs `{}`, which is not set",
                auth.env
            );
            let next = "set the variable, or add it to the secrets file";
            Error::failure("binding_secret", what, next)
        })?;
        guarded = guarded.with_credential(credential);
    }
    let effect = ServiceEffect {
        on_crash: settings.effect,
    };
    let title = document.as_ref().map(|document| document.title.clone());
    let described = settings.description.clone().or(title).unwrap_or_default();
    let service = Service::new(global(name), described, base, Arc::new(guarded), effect);
    let service = match document {
        Some(document) => {
            for warning in &document.warnings {
                tracing::warn!(binding = name, "{warning}");
            }
            service.with_operations(document.operations, effect)
        }
        None => service,
    };
    Ok(Arc::new(if settings.examples {
        service.with_examples()
    } else {
        service
    }))
}

/// What may be asked.
fn hosts(
    settings: &BindingSettings,
    base: Option<&str>,
    from: Option<&str>,
) -> Result<Allow, &'static str> {
    let Some(base) = base else {
        return Ok(settings.hosts.clone());
    };
    if !settings.hosts.is_empty() {
        let allowed = settings.hosts.check(base);
        allowed.map_err(|_| "`hosts` does not allow its base")?;
        return Ok(settings.hosts.clone());
    }
    // A document from the network does not decide where a credential goes.
    let elsewhere = from.is_some_and(|from| origin(from) != origin(base));
    if elsewhere && settings.base_url.is_none() {
        return Err("its document names a server on another host; set `hosts` or `base_url`");
    }
    let host = origin(base).and_then(|host| Allow::new([host]).ok());
    host.ok_or("its base is no URL")
}

/// A credential, when its secret is set.
fn credential(auth: &Auth, secrets: Secrets<'_>) -> Option<Credential> {
    let secret = secrets(&auth.env)?;
    let secret = secret.expose();
    Some(match &auth.kind {
        AuthKind::Bearer => Credential::bearer(secret),
        AuthKind::Basic(None) => Credential::basic(secret),
        AuthKind::Basic(Some(user)) => Credential::basic(&format!("{user}:{secret}")),
        AuthKind::Header(header) => Credential::header(header, secret),
        AuthKind::Query(parameter) => Credential::query(parameter, secret),
    })
}

/// Where paths start.
fn base(
    settings: &BindingSettings,
    server: Option<&str>,
    from: Option<&str>,
) -> Result<Option<String>, String> {
    if let Some(base) = &settings.base_url {
        return Ok(Some(base.clone()));
    }
    if let Some(server) = server.filter(|server| server.contains("://")) {
        return Ok(Some(server.to_owned()));
    }
    if let Some(from) = from {
        let joined = reqwest::Url::parse(from).and_then(|from| from.join(server.unwrap_or("/")));
        let joined = joined.map_err(|_| "its server is no URL".to_owned())?;
        return Ok(Some(joined.to_string()));
    }
    let mut patterns = settings.hosts.patterns();
    if let Some(first) = patterns.next().filter(|first| !first.contains('*')) {
        if first.contains("://") {
            return Ok(Some(first.to_owned()));
        }
        let host = first.split(['/', ':']).next().unwrap_or_default();
        let local = host == "localhost" || host.starts_with("127.") || first.starts_with("[::1]");
        let scheme = if local { "http" } else { "https" };
        return Ok(Some(format!("{scheme}://{first}")));
    }
    match server {
        Some(_) => Err("its document names no host; set `base_url`".to_owned()),
        None => Ok(None),
    }
}

/// Scheme, host and port of a URL, as a pattern.
fn origin(url: &str) -> Option<String> {
    let url = reqwest::Url::parse(url).ok()?;
    Some(url.origin().ascii_serialization())
}

fn document(
    project: &Path,
    name: &str,
    place: &Document,
    settings: &BindingSettings,
    wire: &Arc<Network>,
) -> Result<openapi::Document, Error> {
    let text = match place {
        Document::File(file) => read(&project.join(file))
            .map_err(|why| unusable(name, &format!("its document {file} cannot be read: {why}")))?,
        Document::Url(url) => fetch(url, settings, wire)
            .map_err(|why| unusable(name, &format!("its document cannot be fetched: {why}")))?,
    };
    openapi::Document::parse(&text).map_err(|error| {
        Error::failure(
            error.code(),
            format!("the document of the binding `{name}` cannot be used: {error}"),
            "correct the document, or `openapi` in `bowline.toml`",
        )
    })
}

fn read(file: &Path) -> Result<String, String> {
    use std::io::Read as _;
    let mut text = String::new();
    let open = std::fs::File::open(file).map_err(|error| error.to_string())?;
    let mut limited = open.take(MAX_DOCUMENT as u64 + 1);
    limited
        .read_to_string(&mut text)
        .map_err(|error| error.to_string())?;
    Ok(text)
}

/// Reads a document once, before anything runs. Its host is what was written in the settings; no
/// credential is sent for it. On a thread of its own, since callers may be inside of a runtime.
fn fetch(url: &str, settings: &BindingSettings, wire: &Arc<Network>) -> Result<String, String> {
    let host = origin(url).ok_or("it is no URL")?;
    let allow = Allow::new([host]).map_err(|error| error.to_string())?;
    let guarded = Guarded::new(wire.clone(), allow, settings.limits);
    let request = Request::get(url);
    let done = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let answer = runtime.block_on(guarded.send(request));
        answer.map_err(|error| error.to_string())
    });
    let answer = done
        .join()
        .map_err(|_| "it failed inside".to_owned())
        .and_then(|answer| answer)?;
    if answer.status != 200 {
        return Err(format!("the server answered {}", answer.status));
    }
    String::from_utf8(answer.body.to_vec()).map_err(|_| "it is no text".to_owned())
}

fn unusable(name: &str, why: &str) -> Error {
    Error::failure(
        "binding_invalid",
        format!("the binding `{name}` cannot be used: {why}"),
        "correct `[bindings]` in `bowline.toml`",
    )
}
