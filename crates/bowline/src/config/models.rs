//! `[models.NAME]`.

use std::collections::BTreeMap;

use bowline_agent::definition::document::Node;
use bowline_agent::definition::{Fault, FaultKind};
use bowline_model::{Api, NamedModel, Price};

const APIS: [(&str, Api); 6] = [
    ("anthropic", Api::Anthropic),
    ("openai-responses", Api::OpenaiResponses),
    ("openai-chat", Api::OpenaiChat),
    ("scripted", Api::Scripted),
    ("gemini", Api::Gemini),
    ("bedrock", Api::Bedrock),
];

pub(super) fn read(node: &Node) -> Result<BTreeMap<String, NamedModel>, Fault> {
    let mut models = BTreeMap::new();
    for (name, line, node) in node.entries("models")?.iter() {
        if name.is_empty() || name.contains(|c: char| c == '/' || c.is_whitespace()) {
            return Err(Fault::new(
                FaultKind::InvalidValue,
                Some(line),
                format!("`{name}` cannot name a model"),
                "use a name without `/` and spaces",
            ));
        }
        models.insert(name.to_owned(), model(name, node)?);
    }
    Ok(models)
}

fn model(name: &str, node: &Node) -> Result<NamedModel, Fault> {
    const KEYS: [&str; 10] = [
        "api",
        "base_url",
        "key_env",
        "model",
        "context",
        "max_output",
        "price",
        "images",
        "like",
        "background",
    ];
    let keys = node.table(&format!("models.{name}"), &KEYS)?;
    let line = |key: &str| -> Result<Option<String>, Fault> {
        keys.get(key)
            .map(|node| node.line_of_text(key).map(str::to_owned))
            .transpose()
    };
    let tokens = |key: &str| -> Result<Option<u64>, Fault> {
        keys.get(key)
            .map(|node| node.count(key, 1, 100_000_000))
            .transpose()
    };
    let node = keys.require(
        "api",
        "add `api = \"openai-chat\"`, or another of the known formats",
    )?;
    let word = node.word("api", &APIS.map(|(word, _)| word))?;
    let api = APIS.iter().find(|(known, _)| *known == word);
    let api = api.map_or(Api::OpenaiChat, |(_, api)| *api);
    let base_url = line("base_url")?;
    if let (Some(url), Some(node)) = (&base_url, keys.get("base_url"))
        && !(url.starts_with("https://") || url.starts_with("http://"))
    {
        return Err(node.wants("base_url", "a URL that starts with `https://` or `http://`"));
    }
    Ok(NamedModel {
        api,
        base_url,
        key_env: line("key_env")?,
        model: line("model")?,
        context: tokens("context")?,
        max_output: tokens("max_output")?,
        price: keys.get("price").map(price).transpose()?,
        images: keys
            .get("images")
            .map(|node| node.bool("images"))
            .transpose()?,
        like: line("like")?,
        background: keys
            .get("background")
            .map(|node| node.bool("background"))
            .transpose()?
            .unwrap_or(false),
    })
}

fn price(node: &Node) -> Result<Price, Fault> {
    let keys = node.table("price", &["input", "output", "cache_read", "cache_write"])?;
    let required = |key: &str| {
        keys.require(key, "give it in dollars for a million tokens")
            .and_then(|node| node.usd(key))
    };
    let optional = |key: &str| keys.get(key).map(|node| node.usd(key)).transpose();
    Ok(Price {
        input: required("input")?,
        output: required("output")?,
        cache_read: optional("cache_read")?,
        cache_write: optional("cache_write")?,
    })
}
