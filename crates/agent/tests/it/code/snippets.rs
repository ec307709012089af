//! Code that people promoted: the model finds it, runs it, and cannot make it.

use bowline_agent::{Definition, code::Snippet};
use bowline_testkit::faults::Death;
use serde_json::json;

use super::{approve, banking, done, outcome, parked, stage};

fn with(definition: &mut Definition, snippets: &[(&str, &str)]) {
    definition.code = Some(bowline_agent::code::default_limits());
    let made = snippets
        .iter()
        .map(|(name, source)| Snippet::new(*name, *source));
    definition.snippets = made.collect::<Result<_, _>>().unwrap();
}

const COUNT: &str = "/** Counts the lines of a file. */\nasync (input: { path: string }) => {\n  \
    const text = await tools.read({ path: input.path });\n  return text.split('\\n').length;\n}";

#[tokio::test]
async fn a_snippet_is_found_described_and_run_with_the_bindings_of_its_agent() {
    let mut stage = stage(
        "const found = await codemode.search('count lines'); const about = await codemode.describe('count-lines'); await tools.write({ path: 'a.txt', content: 'a\\nb\\nc' }); const lines = await codemode.run('count-lines', { path: 'a.txt' }); const twice = await codemode.run('twice', 4); return [found.results[0].path, found.results[0].kind, about.description, about.types, lines, twice];",
    );
    stage.define = |definition| {
        let twice = "async (n) => n + (await codemode.run('plain'))";
        with(
            definition,
            &[("count-lines", COUNT), ("twice", twice), ("plain", "4")],
        );
    };
    done(&stage.process(Death::Never)).await;
    let outcome = outcome(&stage).await;
    assert_eq!(
        outcome["result"],
        json!([
            "count-lines",
            "snippet",
            "Counts the lines of a file.",
            "await codemode.run(\"count-lines\", input?)",
            3,
            8
        ]),
        "{outcome}"
    );
}

#[tokio::test]
async fn a_run_that_was_parked_goes_on_with_the_snippets_that_it_began_with() {
    let (mut stage, bank) = banking(
        "async () => { await bank.send('ann', await codemode.run('amount')); return await codemode.run('amount'); }",
        bowline_agent::OnCrash::Unknown,
    );
    stage.define = |definition| with(definition, &[("amount", "7")]);
    let process = stage.process(Death::Never);
    parked(&process).await;
    drop(process);
    stage.define = |definition| with(definition, &[("amount", "8")]);
    let later = stage.process(Death::Never);
    later.runtime.resume().await.unwrap();
    approve(&stage, &later).await;
    assert_eq!(outcome(&stage).await["result"], 7);
    assert_eq!(bank.seen()[0].1, [json!("ann"), json!(7)]);
}

#[test]
fn what_is_no_snippet_is_refused_with_what_to_do() {
    for (name, source, code, says) in [
        ("../up", "1", "snippet_invalid", "cannot name a snippet"),
        ("Big", "1", "snippet_invalid", "small letters"),
        ("a", "const = 1", "isolate_syntax", "a.ts:1:7"),
    ] {
        let error = Snippet::new(name, source).unwrap_err();
        assert_eq!(error.code(), code);
        assert!(error.to_string().contains(says), "{error}");
    }
    let large = "1;".repeat(40_000);
    assert_eq!(
        Snippet::new("a", large).unwrap_err().code(),
        "snippet_invalid"
    );
    let told = Snippet::new("a", "// One.\n// Two.\n3")
        .unwrap()
        .description;
    assert_eq!(told, "One. Two.");
}
