//! What is known of models: ids, levels of thinking, prices.

use bowline_model::{
    Thinking, Usage,
    catalog::{CatalogModel, Price, ThinkingStyle, find, format_usd, models, parse_usd},
};

/// A model with these levels.
fn with(efforts: &[&str]) -> CatalogModel {
    CatalogModel {
        efforts: efforts.iter().map(|word| (*word).to_owned()).collect(),
        ..models()[0].clone()
    }
}

#[test]
fn every_known_model_cites_its_source_and_has_levels_that_are_known() {
    assert!(!models().is_empty());
    for model in models() {
        assert!(!model.source.is_empty(), "{}", model.id);
        assert_eq!(
            model.thinking == ThinkingStyle::Effort,
            !model.efforts.is_empty(),
            "{}",
            model.id
        );
        for word in &model.efforts {
            assert!(
                with(&[word]).effort(Thinking::Low).is_some(),
                "{}: {word}",
                model.id
            );
        }
    }
}

#[test]
fn a_dated_id_is_found_and_an_unknown_one_is_not() {
    assert_eq!(
        find("anthropic", "claude-haiku-4-5-20251001").unwrap().id,
        "claude-haiku-4-5"
    );
    assert_eq!(find("openai", "gpt-5-2025-08-07").unwrap().id, "gpt-5");
    assert_eq!(find("openai", "gpt-5-mini").unwrap().id, "gpt-5-mini");
    assert!(find("openai", "gpt-99").is_none());
    assert!(find("anthropic", "").is_none());
}

#[test]
fn cost_is_exact_in_micro_dollars_and_rounds_up() {
    let price: Price =
        toml::from_str("input = '3'\noutput = 15\ncache_read = 0.3\ncache_write = '3.75'").unwrap();
    let usage = Usage {
        input: 1000,
        output: 100,
        cache_read: 10_000,
        cache_write: 400,
        cache_write_hour: 0,
    };
    assert_eq!(price.cost(&usage), 3000 + 1500 + 3000 + 1500);
    // What is kept for an hour costs twice what input does.
    let hour = Usage {
        cache_write_hour: 100,
        ..usage
    };
    assert_eq!(price.cost(&hour), 3000 + 1500 + 3000 + 600 + 1125);
    assert_eq!(
        price.cost(&Usage {
            cache_read: 1,
            ..Usage::default()
        }),
        1
    );
    assert_eq!(format_usd(9_000), "0.009");
    assert_eq!(format_usd(12_340_001), "12.340001");
    assert_eq!(format_usd(2_000_000), "2.00");
    for bad in ["-1", "1e3", "", ".", "0.0000001", "x"] {
        assert_eq!(parse_usd(bad), None, "{bad}");
    }
}

#[test]
fn a_missing_level_is_the_next_one_up_and_else_the_highest() {
    for (efforts, level, word) in [
        (
            &["low", "medium", "high"][..],
            Thinking::Minimal,
            Some("low"),
        ),
        (&["low", "medium", "high"], Thinking::Max, Some("high")),
        (&["none", "low"], Thinking::Off, Some("none")),
        (&["low"], Thinking::Off, Some("low")),
        (&[], Thinking::Low, None),
    ] {
        assert_eq!(with(efforts).effort(level), word, "{efforts:?} {level:?}");
    }
}
