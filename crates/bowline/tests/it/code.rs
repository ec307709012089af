//! `bowline code`.

use crate::{repl::typed, world::World};

#[test]
fn a_file_runs_and_its_result_is_the_answer() {
    let world = World::empty();
    world.write(
        "main.ts",
        "import { twice } from './lib/math';\ninterface In { n: number }\n\
         export default async (input: In) => {\n  console.log('working');\n  \
         await new Promise((done) => setTimeout(done, 1));\n  return { twice: twice(input.n) };\n};\n",
    );
    world.write(
        "lib/math.ts",
        "export const twice = (n: number): number => 2 * n;\n",
    );
    let ran = world.run(&[
        "code",
        "run",
        "main.ts",
        "--module",
        "lib/math.ts",
        "--input",
        "{\"n\": 21}",
    ]);
    assert_eq!(
        (ran.status, ran.stdout.trim()),
        (0, "{\n  \"twice\": 42\n}"),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("working"), "{}", ran.stderr);

    world.write(
        "bad.ts",
        "type A = 1;\nconst a: A = 1;\nthrow new Error(`no ${a}`)\n",
    );
    let ran = world.run(&["code", "run", "bad.ts", "--json"]);
    assert_eq!(ran.status, 1);
    assert!(
        ran.stdout.contains("code_threw") && ran.stdout.contains("Error: no 1"),
        "{}",
        ran.stdout
    );
    assert!(ran.stdout.contains("bad.ts:3:"), "{}", ran.stdout);

    world.write("loop.ts", "for (;;) {}");
    let ran = world.run(&["code", "run", "loop.ts", "--cpu", "0", "--json"]);
    assert_eq!(ran.status, 1);
    assert!(ran.stdout.contains("isolate_cpu"), "{}", ran.stdout);
}

#[test]
fn the_declarations_of_what_an_agents_code_sees_are_printed() {
    let world = World::empty();
    world.write("bowline.toml", "[project]\nname = \"x\"\n");
    world.write(
        "agents/worker/agent.md",
        "---\nmodel: scripted/s.yaml\n---\nWork.\n",
    );
    world.write(
        "agents/worker/tools/say-hello.ts",
        "export const tool = { durable: true };\n/** Says hello. */\nexport default (input: { name: string }): string => input.name;\n",
    );
    let ran = world.run(&["code", "types", "worker"]);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    for part in [
        "declare const state: {",
        "readFile(",
        "declare const step: {",
    ] {
        assert!(ran.stdout.contains(part), "{part}\n{}", ran.stdout);
    }
    assert!(!ran.stdout.contains("codemode"), "{}", ran.stdout);

    world.write(
        "agents/worker/agent.md",
        "---\nmodel: scripted/s.yaml\ncode: true\n---\nWork.\n",
    );
    let ran = world.run(&["code", "types", "worker"]);
    let expected = "  /** Says hello. */\n  say_hello(input: { name: string }): Promise<string>;\n";
    assert!(ran.stdout.contains(expected), "{}", ran.stdout);
    assert!(
        ran.stdout.contains("declare const codemode: {"),
        "{}",
        ran.stdout
    );
}

#[test]
fn declarations_are_those_of_every_binding_of_the_agent() {
    let world = World::empty();
    world.write(
        "bowline.toml",
        "[bindings.tracker]\nopenapi = 'tracker.json'\nexamples = true\n",
    );
    world.write(
        "tracker.json",
        r#"{"openapi": "3.1.0", "info": {"title": "The tracker."}, "servers": [{"url": "https://tracker.test"}],
            "paths": {"/issues": {"post": {"operationId": "open", "summary": "Opens one.",
            "requestBody": {"required": true, "content": {"application/json": {"schema":
            {"type": "object", "required": ["title"], "properties": {"title": {"type": "string"}}}}}},
            "responses": {}}}}}"#,
    );
    let agent = "---\nmodel: scripted/s.yaml\nbindings: [tracker]\n---\nWork.\n";
    world.write("agents/worker/agent.md", agent);
    let ran = world.run(&["code", "types", "worker"]);
    let expected = "declare const tracker: {\n  /** Opens one. */\n  open(input: { body: { title: string } }): Promise<unknown>;\n";
    assert!(ran.stdout.contains(expected), "{}", ran.all());
    assert!(ran.stdout.ends_with("};\n"), "{}", ran.stdout);

    // Nothing is printed that an editor would take for all there is.
    for (agent, error) in [
        ("wroker", "definition_agent_not_found"),
        ("broken", "tool_type"),
        ("lost", "binding_not_found"),
    ] {
        world.write(
            "agents/broken/agent.md",
            "---\nmodel: scripted/s.yaml\n---\nWork.\n",
        );
        world.write(
            "agents/broken/tools/t.ts",
            "/** D. */\nexport default (input: { at: Date }) => 0",
        );
        let lost = "---\nmodel: scripted/s.yaml\nbindings: [trakcer]\n---\nWork.\n";
        world.write("agents/lost/agent.md", lost);
        let ran = world.run(&["code", "types", agent, "--json"]);
        let lines = ran.lines();
        assert_eq!((ran.status, lines.len()), (1, 1), "{agent}: {}", ran.all());
        assert_eq!(lines[0]["error"]["type"], error, "{agent}: {}", ran.all());
    }
}

/// For the prompt to read: each error is told with the lines and columns of all that was typed.
const WRONG: &str = r#"const limit = 3
limit = 4
limit
const limit = 5; limit
interface Person { name: string }
function first(people: Person[]): string {
  return people[0].name.trim();
}
{ first }

first([{ name: 7 } as any])
let n = 0; const { a, b } = {
  a: 1, get b() { throw new Error("no b") },
}
setTimeout(() => { throw new TypeError("late") }, 1); await new Promise((done) => setTimeout(done, 5))
console.log(new Error("kept")); Promise.reject(new Error("alone")); undefined
import { shout as loud } from "./lib/shout.ts"
loud("hi")
loud(null)
loud = 1
import * as all from "lib/shout.ts"; import "./lib/missing.ts"
all.shout("ho")
export const kept = 1
export { kept }
kept + [1, 2
  , 3)]
"#;

#[test]
fn an_error_at_the_prompt_says_where_in_what_was_typed() {
    let world = World::empty();
    world.write(
        "lib/shout.ts",
        "interface Loud {}\nexport const shout = (text: string): string => text.toUpperCase() + \"!\";\n",
    );
    let ran = typed(&world, &["--module", "lib/shout.ts"], WRONG);
    assert_eq!(ran.status, 1, "some lines failed");
    insta::assert_snapshot!(ran.all());
}
