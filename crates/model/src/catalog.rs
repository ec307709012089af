//! What is known of models: windows, limits, thinking levels, prices.
//!
//! The data is `data/models.toml`. A price or a limit is unknown unless a source states it; an
//! unknown one is `None`, never a guess. `bowline.toml` overrides it under `[models.NAME]`.

use std::sync::LazyLock;

use serde::Deserialize;
use serde::de::Error as _;

use crate::message::Usage;
use crate::request::Thinking;

/// What a model's tokens cost, in micro-dollars (millionths of a US dollar) for a million tokens.
///
/// In `bowline.toml`: `price = {input = "3", output = "15", cache_read = "0.30", cache_write =
/// "3.75"}`, in dollars for a million tokens, as decimal strings or numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// Of uncached input.
    #[serde(deserialize_with = "micros")]
    pub input: u64,
    /// Of output.
    #[serde(deserialize_with = "micros")]
    pub output: u64,
    /// Of input read from the cache. `None`: as uncached input.
    #[serde(default, deserialize_with = "optional_micros")]
    pub cache_read: Option<u64>,
    /// Of input written to the cache. `None`: as uncached input.
    #[serde(default, deserialize_with = "optional_micros")]
    pub cache_write: Option<u64>,
}

impl Price {
    /// The cost of some tokens in micro-dollars, rounded up. What is written to the cache for an hour
    /// costs twice what uncached input does.
    pub fn cost(&self, usage: &Usage) -> u64 {
        let part = |tokens: u64, rate: u64| u128::from(tokens) * u128::from(rate);
        let hour = usage.cache_write_hour.min(usage.cache_write);
        let sum = part(usage.input, self.input)
            + part(usage.output, self.output)
            + part(usage.cache_read, self.cache_read.unwrap_or(self.input))
            + part(hour, self.input.saturating_mul(2))
            + part(
                usage.cache_write - hour,
                self.cache_write.unwrap_or(self.input),
            );
        u64::try_from(sum.div_ceil(1_000_000)).unwrap_or(u64::MAX)
    }
}

/// Micro-dollars as a decimal number of dollars: at least two decimals, at most six.
pub fn format_usd(micro_dollars: u64) -> String {
    let mut text = format!(
        "{}.{:06}",
        micro_dollars / 1_000_000,
        micro_dollars % 1_000_000
    );
    for _ in 0..4 {
        if text.ends_with('0') {
            text.pop();
        }
    }
    text
}

/// Reads a non-negative decimal number of dollars as micro-dollars, exactly. `None` when it is not
/// one, or has more than six decimals.
pub fn parse_usd(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !digits(whole) || !digits(fraction) {
        return None;
    }
    if fraction.len() > 6 {
        return None;
    }
    let whole: u64 = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    let fraction: u64 = format!("{fraction:0<6}").parse().ok()?;
    whole.checked_mul(1_000_000)?.checked_add(fraction)
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Amount {
    Text(String),
    Whole(u64),
    Number(f64),
}

fn micros<'de, D: serde::Deserializer<'de>>(input: D) -> Result<u64, D::Error> {
    let text = match Amount::deserialize(input)? {
        Amount::Text(text) => text,
        Amount::Whole(number) => number.to_string(),
        Amount::Number(number) => number.to_string(),
    };
    parse_usd(text.trim()).ok_or_else(|| {
        D::Error::custom(format!(
            "`{text}` is not an amount of dollars such as \"0.30\""
        ))
    })
}

fn optional_micros<'de, D: serde::Deserializer<'de>>(input: D) -> Result<Option<u64>, D::Error> {
    micros(input).map(Some)
}

/// How a model is told to think.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ThinkingStyle {
    /// It cannot.
    None,
    /// By a budget of tokens.
    Budget,
    /// By a level.
    Effort,
}

/// What is known of a model.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CatalogModel {
    /// The provider's name.
    pub provider: String,
    /// The provider's id, without a date.
    pub id: String,
    /// The context window in tokens, if known.
    #[serde(default)]
    pub context: Option<u64>,
    /// The most output tokens of a call, if known.
    #[serde(default)]
    pub max_output: Option<u64>,
    /// How it is told to think.
    pub thinking: ThinkingStyle,
    /// The levels that it takes, in the provider's words.
    #[serde(default)]
    pub efforts: Vec<String>,
    /// Whether it takes images, if known.
    #[serde(default)]
    pub images: Option<bool>,
    /// Whether it goes on from an answer that is begun, where it does not think.
    #[serde(default)]
    pub prefill: bool,
    /// What it costs, if known.
    #[serde(default)]
    pub price: Option<Price>,
    /// Where the figures are from.
    pub source: String,
}

impl CatalogModel {
    /// The provider's word for a level; `None` when the model takes no level.
    pub fn effort(&self, level: Thinking) -> Option<&str> {
        let efforts: Vec<&str> = self.efforts.iter().map(String::as_str).collect();
        nearest(&efforts, level)
    }
}

/// The level among `efforts` that is nearest to `level`, upward first.
pub(crate) fn nearest<'a>(efforts: &[&'a str], level: Thinking) -> Option<&'a str> {
    let rank = |word: &str| match word {
        "none" => Some(Thinking::Off),
        word => Thinking::ALL
            .into_iter()
            .find(|level| level.as_str() == word),
    };
    let ranked = || efforts.iter().filter_map(|word| Some((rank(word)?, *word)));
    let above = ranked()
        .filter(|(rank, _)| *rank >= level)
        .min_by_key(|(rank, _)| *rank);
    above
        .or_else(|| ranked().max_by_key(|(rank, _)| *rank))
        .map(|(_, word)| word)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Data {
    model: Vec<CatalogModel>,
}

static CATALOG: LazyLock<Vec<CatalogModel>> = LazyLock::new(|| {
    // The data is embedded, and a test reads it.
    toml::from_str::<Data>(include_str!("../data/models.toml"))
        .map(|data| data.model)
        .unwrap_or_default()
});

/// Every model that is known, by provider.
pub fn models() -> &'static [CatalogModel] {
    &CATALOG
}

/// What is known of a provider's model. A date at the end of the id does not matter.
pub fn find(provider: &str, model: &str) -> Option<&'static CatalogModel> {
    let known = |id: &str| {
        CATALOG
            .iter()
            .find(|known| known.provider == provider && known.id == id)
    };
    known(model).or_else(|| known(undated(model)?))
}

/// The id before `-20251001`, `-2025-10-01` or `-latest`.
fn undated(model: &str) -> Option<&str> {
    if let Some(stem) = model.strip_suffix("-latest") {
        return Some(stem);
    }
    let digits = model.len()
        - model
            .trim_end_matches(|ch: char| ch.is_ascii_digit() || ch == '-')
            .len();
    let (stem, date) = model.split_at_checked(model.len().checked_sub(11.min(digits))?)?;
    let iso = date.len() == 11
        && date.starts_with('-')
        && date[1..].split('-').map(str::len).eq([4, 2, 2]);
    if iso {
        return Some(stem);
    }
    let (stem, date) = model.rsplit_once('-')?;
    (date.len() == 8 && date.bytes().all(|byte| byte.is_ascii_digit())).then_some(stem)
}

/// The known `provider/model` that is nearest to what was asked for.
pub(crate) fn closest(wanted: &str, more: impl Iterator<Item = String>) -> Option<String> {
    let known = CATALOG
        .iter()
        .map(|model| format!("{}/{}", model.provider, model.id));
    let mut best: Option<(usize, String)> = None;
    for name in known.chain(more) {
        let bare = name.split_once('/').map_or(name.as_str(), |(_, bare)| bare);
        let distance = strsim::damerau_levenshtein(wanted, &name)
            .min(strsim::damerau_levenshtein(wanted, bare));
        let near = distance <= wanted.chars().count().max(3) / 3;
        if near && best.as_ref().is_none_or(|(least, _)| distance < *least) {
            best = Some((distance, name));
        }
    }
    best.map(|(_, name)| name)
}
