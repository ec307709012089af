//! What is known of models: windows, limits, thinking levels, prices.
//!
//! The data is `data/models.toml`. A price or a limit is unknown unless a source states it; an
//! unknown one is `None`, never a guess. `bowline.toml` overrides it under `[models.NAME]`.

use serde::Deserialize;
use serde::de::Error as _;

use crate::message::Usage;

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
    /// The cost of some tokens in micro-dollars, rounded up.
    pub fn cost(&self, usage: &Usage) -> u64 {
        let part = |tokens: u64, rate: u64| u128::from(tokens) * u128::from(rate);
        let sum = part(usage.input, self.input)
            + part(usage.output, self.output)
            + part(usage.cache_read, self.cache_read.unwrap_or(self.input))
            + part(usage.cache_write, self.cache_write.unwrap_or(self.input));
        u64::try_from(sum.div_ceil(1_000_000)).unwrap_or(u64::MAX)
    }
}

/// Micro-dollars as a decimal number of dollars: at least two decimals, at most six.
pub fn format_usd(micro_dollars: u64) -> String {
    let mut text = format!("{}.{:06}", micro_dollars / 1_000_000, micro_dollars % 1_000_000);
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
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
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
        D::Error::custom(format!("`{text}` is not an amount of dollars such as \"0.30\""))
    })
}

fn optional_micros<'de, D: serde::Deserializer<'de>>(input: D) -> Result<Option<u64>, D::Error> {
    micros(input).map(Some)
}
