//! `bowline.toml`: the settings of a project.
//!
//! [`find_project`] finds the folder, [`Config::load`] reads it. The file is read strictly: an
//! unknown key is an error with its line and the closest key, and so is a section of a feature
//! that is not built, as soon as something in it would have no effect.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bowline_agent::definition::document::Node;
use bowline_agent::definition::{Fault, LimitSettings};
use bowline_model::NamedModel;

use crate::retention::Retention;
use crate::server::{Key, Rate, Settings};
use crate::telemetry::log::Format;

mod auth;
pub(crate) mod bindings;
mod code;
mod egress;
mod error;
mod gateway;
mod models;
mod secrets;

pub use auth::Certificate;
pub(crate) use auth::{ADDRESS, address};
pub use bindings::{Auth, AuthKind, BindingSettings, Document};
pub use code::IsolateSettings;
pub use egress::{Egress, HostAuth};
pub use error::{ConfigError, ConfigErrorKind};
pub use gateway::Gateway;
pub use secrets::Secrets;

/// The name of the file.
pub const FILE: &str = "bowline.toml";
/// The largest `bowline.toml` or secrets file, in bytes: 256 KiB.
pub const MAX_FILE: u64 = 256 * 1024;

/// The settings of a project, defaults filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The folder of `bowline.toml`.
    pub project: PathBuf,
    /// `[project] name`. Default: the name of the folder.
    pub name: String,
    /// `[data] dir`: where everything durable is kept. Default `.bowline` in the project.
    pub data: PathBuf,
    /// `[models.NAME]`.
    pub models: BTreeMap<String, NamedModel>,
    /// `[gateway]`: spend limits, rate limits and addresses.
    pub gateway: Gateway,
    /// `[bindings.NAME]`: services that the code of agents may call.
    pub bindings: BTreeMap<String, BindingSettings>,
    /// `[egress]`: what every agent may reach on the network, and the credentials for it.
    pub egress: Egress,
    /// `[limits]`: for agents that set none of their own.
    pub limits: LimitSettings,
    /// `[code]`: what the isolates of a process may use together. What one run may use is in
    /// [`Config::limits`].
    pub isolates: IsolateSettings,
    /// `[server]`.
    pub server: Server,
    /// `[retention]`.
    pub retention: Retention,
    /// `[auth] keys`: who may use the server.
    pub keys: Vec<Key>,
    /// The keys of the secrets file.
    pub secrets: Secrets,
    /// `[secrets] file`. Default `.bowline/secrets.toml` in the project.
    pub secrets_file: PathBuf,
}

/// `[server]`: how the HTTP server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Where it listens. Default `127.0.0.1:8787`.
    pub addr: SocketAddr,
    /// The URL that clients see, where a proxy stands in front.
    pub public_url: Option<String>,
    /// Origins whose pages may use the server. Default none.
    pub cors: Vec<String>,
    /// The certificate. Default: plain HTTP.
    pub tls: Option<Certificate>,
    /// How long a stop may take before connections are cut and what runs is left for the next start.
    /// Default 30 s, at most an hour.
    pub drain: Duration,
    /// How lines of the log are written. Default: for a person.
    pub log: Format,
    /// What is bounded otherwise than usual.
    pub limits: ServerLimits,
}

/// `[server.limits]`: bounds of the server. What is not given is as in [`Settings`](crate::server::Settings).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerLimits {
    /// Requests in a second of one address that is not loopback; 0 sets no limit.
    pub address_rate: Option<u32>,
    /// Requests in a second of one address without a key that is known.
    pub stranger_rate: Option<u32>,
    /// Requests in a second with one key; 0 sets no limit.
    pub key_rate: Option<u32>,
    /// Event streams at once, and WebSockets.
    pub followers: Option<u32>,
    /// Connections at once.
    pub connections: Option<u32>,
    /// The largest body of a request, in MiB.
    pub body_mib: Option<u32>,
}

impl ServerLimits {
    /// Puts what is given into settings.
    pub(crate) fn apply(&self, settings: &mut Settings) {
        let rates = [
            (self.address_rate, &mut settings.address_rate),
            (self.stranger_rate, &mut settings.stranger_rate),
            (self.key_rate, &mut settings.key_rate),
        ];
        for (given, rate) in rates {
            *rate = given.map_or(*rate, Rate::per_second);
        }
        let counts = [
            (self.followers, 1, &mut settings.max_followers),
            (self.connections, 1, &mut settings.max_connections),
            (self.body_mib, 1 << 20, &mut settings.max_body),
        ];
        for (given, unit, count) in counts {
            let given = given.and_then(|given| usize::try_from(given).ok());
            *count = given.map_or(*count, |given| given.saturating_mul(unit));
        }
    }
}

impl Default for Server {
    fn default() -> Self {
        Self {
            addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 8787)),
            public_url: None,
            cors: Vec::new(),
            tls: None,
            drain: Duration::from_secs(30),
            log: Format::Human,
            limits: ServerLimits::default(),
        }
    }
}

/// The nearest folder with a `bowline.toml`: `start` or one above it.
pub fn find_project(start: &Path) -> Option<PathBuf> {
    let start = std::path::absolute(start).ok()?;
    start
        .ancestors()
        .find(|folder| folder.join(FILE).is_file())
        .map(Path::to_path_buf)
}

impl Config {
    /// The settings of a project whose file is empty, without secrets.
    pub fn new(project: impl Into<PathBuf>) -> Self {
        let project = project.into();
        let name = std::path::absolute(&project)
            .ok()
            .and_then(|path| {
                path.file_name()
                    .map(|name| name.to_string_lossy().into_owned())
            })
            .unwrap_or_else(|| "project".to_owned());
        Self {
            name,
            data: project.join(".bowline"),
            models: BTreeMap::new(),
            gateway: Gateway::default(),
            bindings: BTreeMap::new(),
            egress: Egress::default(),
            limits: LimitSettings::default(),
            isolates: IsolateSettings::default(),
            server: Server::default(),
            retention: Retention::default(),
            keys: Vec::new(),
            secrets: Secrets::default(),
            secrets_file: SecretsPlace::Default.file(&project),
            project,
        }
    }

    /// Reads `bowline.toml` in `project`, and its secrets file.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], with the file, the line and what to do next. Nothing is written.
    pub fn load(project: &Path) -> Result<Self, ConfigError> {
        let file = project.join(FILE);
        let text = match read_text(&file) {
            Ok(text) => text,
            Err(Unreadable::Missing) => return Err(ConfigError::no_project(project)),
            Err(Unreadable::Other(why)) => return Err(ConfigError::unreadable(&file, &why)),
        };
        let mut config = Self::new(project);
        let secrets = config
            .read(&text)
            .map_err(|fault| ConfigError::of_file(fault, &file))?;
        config.secrets_file = secrets.file(project);
        config.secrets = secrets.load(project)?;
        Ok(config)
    }

    /// Takes the settings of a file, and says where the secrets are.
    fn read(&mut self, text: &str) -> Result<SecretsPlace, Fault> {
        const SECTIONS: [&str; 12] = [
            "project",
            "data",
            "models",
            "bindings",
            "limits",
            "egress",
            "server",
            "auth",
            "secrets",
            "retention",
            "gateway",
            "code",
        ];
        let root = Node::from_toml(text)?;
        let sections = root.table("", &SECTIONS)?;
        let section = |name: &str, keys: &[&str]| {
            sections
                .get(name)
                .map(|node| node.table(name, keys))
                .transpose()
        };
        if let Some(node) = section("project", &["name"])?.and_then(|table| table.get("name")) {
            node.line_of_text("name")?.clone_into(&mut self.name);
        }
        if let Some(node) = section("data", &["dir"])?.and_then(|table| table.get("dir")) {
            self.data = self.project.join(node.line_of_text("dir")?);
        }
        if let Some(node) = sections.get("models") {
            self.models = models::read(node)?;
        }
        if let Some(node) = sections.get("gateway") {
            self.gateway = gateway::read(node)?;
        }
        if let Some(node) = sections.get("limits") {
            self.limits = LimitSettings::read(node)?;
        }
        if let Some(node) = sections.get("code") {
            (self.limits.code, self.isolates) = code::read(node)?;
        }
        if let Some(node) = sections.get("server") {
            self.server = auth::server(node, &self.project)?;
        }
        if let Some(node) = sections.get("auth") {
            self.keys = auth::keys(node)?;
        }
        if let Some(node) =
            section("retention", &["conversations"])?.and_then(|table| table.get("conversations"))
        {
            const HOUR: Duration = Duration::from_secs(3_600);
            let kept = node.duration("conversations", HOUR, HOUR * 24 * 3_660)?;
            self.retention.conversations = Some(kept);
        }
        if let Some(node) = sections.get("bindings") {
            self.bindings = bindings::read(node)?;
        }
        if let Some(node) = sections.get("egress") {
            self.egress = egress::read(node)?;
        }
        match section("secrets", &["file"])?.and_then(|table| table.get("file")) {
            None => Ok(SecretsPlace::Default),
            Some(node) => Ok(SecretsPlace::Named(node.line_of_text("file")?.to_owned())),
        }
    }
}

/// Where the secrets are.
enum SecretsPlace {
    /// Where they usually are, if they are there.
    Default,
    /// In a file that must be there.
    Named(String),
}

impl SecretsPlace {
    fn file(&self, project: &Path) -> PathBuf {
        match self {
            Self::Default => project.join(".bowline").join("secrets.toml"),
            Self::Named(file) => project.join(file),
        }
    }

    fn load(self, project: &Path) -> Result<Secrets, ConfigError> {
        let required = match self {
            Self::Default => false,
            Self::Named(_) => true,
        };
        Secrets::load(&self.file(project), required)
    }
}

/// Why a file has no text for us.
enum Unreadable {
    Missing,
    Other(String),
}

impl From<std::io::Error> for Unreadable {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::NotFound {
            Self::Missing
        } else {
            Self::Other(format!("cannot be read: {error}"))
        }
    }
}

fn read_text(file: &Path) -> Result<String, Unreadable> {
    if !fs::metadata(file)?.is_file() {
        return Err(Unreadable::Other("is not a file".to_owned()));
    }
    read_open(fs::File::open(file)?)
}

fn read_open(file: fs::File) -> Result<String, Unreadable> {
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(Unreadable::Other("is larger than 256 KiB".to_owned()));
    }
    String::from_utf8(bytes).map_err(|_| Unreadable::Other("is not UTF-8 text".to_owned()))
}
