//! `[gateway]`: what stands between agents and model providers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bowline_agent::definition::Fault;
use bowline_agent::definition::document::Node;
use bowline_model::CacheRetention;
use bowline_model::gateway::{Policy, RateLimit, Scope, SpendLimit, Unpriced, Window};

/// `[gateway]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gateway {
    /// `spend`, `unpriced` and `rates`. Default: no limits.
    pub policy: Policy,
    /// `idle`: how long a stream may be silent. Default five minutes.
    pub idle: Option<Duration>,
    /// `base_urls`: other addresses for providers known by name.
    pub base_urls: BTreeMap<String, String>,
    /// `background`: providers whose answers are made in the background.
    pub background: BTreeSet<String>,
    /// `cache`: how long providers are asked to keep prompts. Default as long as they usually do.
    pub cache: CacheRetention,
}

const DAY: Duration = Duration::from_secs(86_400);

pub(super) fn read(node: &Node) -> Result<Gateway, Fault> {
    const KEYS: [&str; 7] = [
        "spend",
        "unpriced",
        "rates",
        "idle",
        "base_urls",
        "background",
        "cache",
    ];
    let keys = node.table("gateway", &KEYS)?;
    let list = |key: &str| keys.get(key).map(|node| node.list(key)).transpose();
    let mut gateway = Gateway::default();
    for node in list("spend")?.unwrap_or_default() {
        gateway.policy.spend.push(spend(node)?);
    }
    if let Some(node) = keys.get("unpriced") {
        gateway.policy.unpriced = match node.word("unpriced", &["refuse", "allow"])? {
            "allow" => Unpriced::Allow,
            _ => Unpriced::Refuse,
        };
    }
    for node in list("rates")?.unwrap_or_default() {
        gateway.policy.rates.push(rate(node)?);
    }
    if let Some(node) = keys.get("idle") {
        gateway.idle = Some(node.duration("idle", Duration::from_secs(1), DAY)?);
    }
    if let Some(node) = keys.get("base_urls") {
        for (name, _, node) in node.entries("base_urls")?.iter() {
            let url = node.line_of_text(name)?;
            if !(url.starts_with("https://") || url.starts_with("http://")) {
                let wanted = "a URL that starts with `https://` or `http://`";
                return Err(node.wants(name, wanted));
            }
            gateway.base_urls.insert(name.to_owned(), url.to_owned());
        }
    }
    if let Some(node) = keys.get("background") {
        let names = node.names("background")?.into_iter();
        gateway.background = names.map(|(name, _)| name.to_owned()).collect();
    }
    if let Some(node) = keys.get("cache") {
        gateway.cache = match node.word("cache", &["none", "short", "long"])? {
            "none" => CacheRetention::None,
            "long" => CacheRetention::Long,
            _ => CacheRetention::Short,
        };
    }
    Ok(gateway)
}

fn spend(node: &Node) -> Result<SpendLimit, Fault> {
    let keys = node.table("spend", &["usd", "window", "per", "agent"])?;
    let per = match keys.get("per") {
        None => Scope::Project,
        Some(node) => match node.word("per", &["project", "agent", "instance"])? {
            "agent" => Scope::Agent,
            "instance" => Scope::Instance,
            _ => Scope::Project,
        },
    };
    let agent = keys.get("agent").map(|node| node.line_of_text("agent"));
    let window = keys.require(
        "window",
        "add `window = \"day\"`, or a duration such as `24h`",
    )?;
    Ok(SpendLimit {
        per,
        agent: agent.transpose()?.map(str::to_owned),
        micro_usd: keys
            .require("usd", "give the amount in dollars, such as `usd = \"20\"`")?
            .usd("usd")?,
        window: match window.as_text().map(str::trim) {
            Some("day") => Window::Day,
            Some("week") => Window::Week,
            Some("month") => Window::Month,
            _ => Window::Rolling(window.duration("window", DAY / 24, 366 * DAY)?),
        },
    })
}

fn rate(node: &Node) -> Result<RateLimit, Fault> {
    let keys = node.table("rates", &["provider", "requests", "tokens"])?;
    let count = |key: &str| {
        keys.get(key)
            .map(|node| node.count(key, 1, u64::from(u32::MAX)))
            .transpose()
    };
    let provider = keys.require("provider", "name the provider that it holds for")?;
    Ok(RateLimit {
        provider: provider.line_of_text("provider")?.to_owned(),
        requests: count("requests")?.and_then(|count| u32::try_from(count).ok()),
        tokens: count("tokens")?,
    })
}
