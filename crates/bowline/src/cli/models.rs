//! `bowline models`.

use std::process::ExitCode;

use bowline_model::{
    Price,
    catalog::{self, CatalogModel, ThinkingStyle},
    format_usd, resolve,
};
use clap::Args;
use serde_json::{Value, json};

use super::{
    Global,
    place::{Place, environment},
    terminal::{Paint, Terminal},
};
use crate::error::Error;

/// List the models that are known, and the providers that can be used.
///
/// A window, a limit or a price is unknown, `-`, unless a source states it. Any model of a provider can be
/// used, listed or not; `[models.NAME]` in bowline.toml gives what is not known.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    bowline models\n  \
    bowline models sonnet\n  \
    bowline models openai/ --json | jq -r '.models[].model'\n  \
    bowline models --providers")]
pub(super) struct Models {
    /// Only those whose `provider/model` contains this
    filter: Option<String>,
    /// List the providers instead: their wire format, and the variables with their key
    #[arg(long)]
    providers: bool,
}

/// One line of the list.
struct Row {
    name: String,
    context: Option<u64>,
    max_output: Option<u64>,
    images: Option<bool>,
    thinking: String,
    price: Option<Price>,
    source: String,
}

pub(super) fn models(
    args: &Models,
    global: &Global,
    terminal: Terminal,
) -> Result<ExitCode, Error> {
    let matches = |name: &str| {
        let filter = args.filter.as_deref().unwrap_or_default();
        name.to_lowercase().contains(&filter.to_lowercase())
    };
    if args.providers {
        return providers(matches, terminal);
    }
    let mut rows = named(global);
    rows.extend(catalog::models().iter().map(known));
    rows.retain(|row| matches(&row.name));
    if terminal.json {
        let rows: Vec<_> = rows.iter().map(Row::json).collect();
        terminal.json(&json!({"type": "models", "models": rows}))?;
        return Ok(ExitCode::SUCCESS);
    }
    if rows.is_empty() {
        terminal.say("no model that is known matches; it can be used nonetheless");
        return Ok(ExitCode::SUCCESS);
    }
    let names = rows.iter().map(|row| row.name.chars().count()).max();
    let names = names.unwrap_or(0).max(5);
    let head = format!(
        "{:names$}  {:>9}  {:>7}  {:>8}  {:>8}  {:>8}  {:>6}  thinking",
        "model", "window", "output", "in $/M", "out $/M", "cached", "images"
    );
    terminal.answer(format!("{}\n", terminal.out.paint(Paint::Strong, head)))?;
    for row in &rows {
        let count = |n: Option<u64>| n.map_or("-".to_owned(), |n| n.to_string());
        let usd = |n: Option<u64>| n.map_or("-".to_owned(), format_usd);
        let price = row.price;
        terminal.answer(format_args!(
            "{:names$}  {:>9}  {:>7}  {:>8}  {:>8}  {:>8}  {:>6}  {}\n",
            row.name,
            count(row.context),
            count(row.max_output),
            usd(price.map(|price| price.input)),
            usd(price.map(|price| price.output)),
            usd(price.and_then(|price| price.cache_read)),
            match row.images {
                Some(true) => "yes",
                Some(false) => "no",
                None => "-",
            },
            row.thinking,
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Those of bowline.toml, where there is one.
fn named(global: &Global) -> Vec<Row> {
    let Ok(place) = Place::find(global) else {
        return Vec::new();
    };
    let models = place.project.config.models.iter();
    let row = |(name, entry): (&String, &bowline_model::NamedModel)| {
        let catalogued = entry.known().map(known);
        let source = catalogued
            .as_ref()
            .map(|row| format!("bowline.toml; {}", row.source));
        let of = |pick: fn(&Row) -> Option<u64>| catalogued.as_ref().and_then(pick);
        Row {
            name: match entry.model {
                Some(_) => name.clone(),
                // A server whose models are named with it.
                None => format!("{name}/…"),
            },
            context: entry.context.or(of(|row| row.context)),
            max_output: entry.max_output.or(of(|row| row.max_output)),
            images: entry
                .images
                .or(catalogued.as_ref().and_then(|row| row.images)),
            thinking: catalogued
                .as_ref()
                .map_or("-".to_owned(), |row| row.thinking.clone()),
            price: entry
                .price
                .or(catalogued.as_ref().and_then(|row| row.price)),
            source: source.unwrap_or("bowline.toml".to_owned()),
        }
    };
    models.map(row).collect()
}

fn known(model: &CatalogModel) -> Row {
    Row {
        name: format!("{}/{}", model.provider, model.id),
        context: model.context,
        max_output: model.max_output,
        images: model.images,
        thinking: match model.thinking {
            ThinkingStyle::None => "no".to_owned(),
            ThinkingStyle::Budget => "budget".to_owned(),
            ThinkingStyle::Effort => model.efforts.join(" "),
        },
        price: model.price,
        source: model.source.trim().replace('\n', " "),
    }
}

impl Row {
    fn json(&self) -> Value {
        let usd = |amount: u64| Value::String(format_usd(amount));
        let price = self.price.map(|price| {
            json!({
                "input": usd(price.input), "output": usd(price.output),
                "cacheRead": price.cache_read.map(usd), "cacheWrite": price.cache_write.map(usd),
            })
        });
        json!({
            "model": self.name, "context": self.context, "maxOutput": self.max_output,
            "images": self.images, "thinking": self.thinking, "price": price, "source": self.source,
        })
    }
}

fn providers(matches: impl Fn(&str) -> bool, terminal: Terminal) -> Result<ExitCode, Error> {
    let env = environment();
    let mut providers = resolve::providers();
    providers.retain(|provider| matches(provider.name));
    let ready = |provider: &bowline_model::ProviderInfo| {
        let mut vars = provider.key_vars.iter();
        provider.key_vars.is_empty() || vars.any(|var| env(var).is_some_and(|key| !key.is_empty()))
    };
    if terminal.json {
        let rows: Vec<_> = providers.iter().map(|provider| json!({
            "provider": provider.name, "api": provider.api.as_str(), "baseUrl": provider.base_url,
            "keyVars": provider.key_vars, "hasKey": ready(provider),
        })).collect();
        terminal.json(&json!({"type": "providers", "providers": rows}))?;
        return Ok(ExitCode::SUCCESS);
    }
    for provider in &providers {
        let keys = provider.key_vars.join(" or ");
        let keys = if keys.is_empty() { "no key" } else { &keys };
        let mark = if ready(provider) { "✓" } else { " " };
        terminal.answer(format_args!(
            "{mark} {:18}  {:16}  {keys}\n",
            provider.name,
            provider.api.as_str(),
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}
