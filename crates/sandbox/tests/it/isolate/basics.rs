//! Programs start, call, wait, go on and end.

use std::time::Duration;

use bowline_sandbox::isolate::{
    Answer, Bindings, IsolateError, LogLevel, Program, Start, Status, Target, Thrown, Value,
};
use serde_json::json;

use super::{at, begin, isolates, run, start, value};

#[test]
fn whatever_form_code_has_its_value_comes_out() {
    for source in [
        "1 + 2",
        "1 + 2;",
        "async () => 1 + 2",
        "async () => { return 1 + 2 }",
        "(() => 3)",
        "export default 3",
        "export default function () { return 3 }",
        "export default async function main() { return 3 }",
        "export default () => 3",
        "function main() { return 3 }",
        "async function main() { return await Promise.resolve(3) }",
        "function () { return 3 }",
        "const three = 1 + 2; return three;",
        "const three: number = 1 + 2; return three;",
        "const x = await Promise.resolve(3); x",
        "(async () => 3)()",
        "```js\n1 + 2\n```",
        "```typescript\nconst x: number = 3;\nx\n```\n",
        "  ```\nreturn 3\n```  ",
        "enum E { A = 3 }\nE.A",
        "let x = 1\nx += 2",
    ] {
        assert_eq!(value(source), Value::Number(3.0), "{source}");
    }
    for (source, expected) in [
        ("", json!(null)),
        ("{ a: 1, b: [2] }", json!({"a": 1, "b": [2]})),
        ("'use me'", json!("use me")),
    ] {
        assert_eq!(value(source).to_json(), expected, "{source}");
    }
}

#[test]
fn a_call_waits_for_its_answer() {
    let bindings = Bindings::none()
        .with("state", ["readFile", "glob"])
        .unwrap();
    let mut isolate = begin(
        "async () => { const [a, b] = await Promise.all([state.readFile('/a', { x: 1n }), state.glob('*')]); return a + b.length }",
        &bindings,
        &start(),
    );
    assert_eq!(*isolate.status(), Status::Waiting);
    let calls = isolate.take_calls();
    assert_eq!(calls.len(), 2);
    assert_eq!(calls[0].id, 1);
    assert_eq!(
        calls[0].target,
        Target::Binding {
            namespace: "state".to_owned(),
            method: "readFile".to_owned(),
            arguments: vec![
                Value::from("/a"),
                Value::Object(vec![("x".to_owned(), Value::BigInt("1".to_owned()))])
            ],
        }
    );
    isolate
        .answer(2, &Answer::Value(Value::from(json!(["p", "q"]))), at(1))
        .unwrap();
    assert_eq!(*isolate.status(), Status::Waiting);
    assert_eq!(
        isolate.answer(2, &Answer::Timer, at(1)),
        Err(IsolateError::NotWaiting(2))
    );
    isolate
        .answer(1, &Answer::Value(Value::Number(40.0)), at(2))
        .unwrap();
    assert_eq!(*isolate.status(), Status::Completed(Value::Number(42.0)));
}

#[test]
fn an_error_of_the_host_is_caught_or_shown_where_it_was_awaited() {
    let bindings = Bindings::none().with("api", ["get"]).unwrap();
    let error = Thrown::new("ApiError", "not found").with("status", Value::Number(404.0));
    let caught =
        "try { await api.get() } catch (e) { [e instanceof Error, e.name, e.message, e.status] }";
    let caught = format!("async () => {{ {} }}", caught.replace("{ [", "{ return ["));
    let mut isolate = begin(&caught, &bindings, &start());
    isolate
        .answer(1, &Answer::Error(error.clone()), at(1))
        .unwrap();
    let Status::Completed(value) = isolate.status() else {
        panic!("{isolate:?}")
    };
    assert_eq!(value.to_json(), json!([true, "ApiError", "not found", 404]));

    let source = "type T = { a: string };\nasync () => {\n  const x: T = await api.get();\n}";
    let source = source.replace("async () =>", "export default async () =>");
    let program = Program::new("main.ts", &source).unwrap();
    let mut isolate = isolates()
        .start(
            isolates().try_admit("test").unwrap(),
            &program,
            &bindings,
            &start(),
        )
        .unwrap();
    isolate.answer(1, &Answer::Error(error), at(1)).unwrap();
    let Status::Threw(Value::Error(error)) = isolate.status() else {
        panic!("{isolate:?}")
    };
    assert!(
        program.locate(&error.stack).contains("main.ts:3:"),
        "{}",
        program.locate(&error.stack)
    );
}

#[test]
fn values_cross_as_structured_clones() {
    let bindings = Bindings::none().with("host", ["echo"]).unwrap();
    let source = "async () => {
        const v = { u: undefined, n: null, i: -7, f: 1.5, z: -0, nan: NaN, b: 123456789012345678901234567890n, s: 'ü😀',
            d: new Date(5), a: [1, , 3], m: new Map([['k', new Set([1])]]), r: /x+/gi, t: new Uint8Array([1, 2, 255]),
            ab: new Uint8Array([9]).buffer, e: new TypeError('bad', { cause: 1 }), deep: { x: { y: [true, false] } } };
        const w = await host.echo(v);
        return [w.u === undefined && 'u' in w, w.n, w.i, w.f, Object.is(w.z, -0), Number.isNaN(w.nan), w.b === v.b, w.s === v.s,
            w.d instanceof Date && w.d.getTime(), w.a.length, w.m.get('k').has(1), w.r.source + w.r.flags, w.t instanceof Uint8Array && w.t[2],
            new Uint8Array(w.ab)[0], w.e instanceof TypeError && w.e.cause, w.deep.x.y];
    }";
    let mut isolate = begin(source, &bindings, &start());
    let call = isolate.take_calls().remove(0);
    let Target::Binding { mut arguments, .. } = call.target else {
        panic!()
    };
    isolate
        .answer(call.id, &Answer::Value(arguments.remove(0)), at(1))
        .unwrap();
    let Status::Completed(value) = isolate.status() else {
        panic!("{isolate:?}")
    };
    assert_eq!(
        value.to_json(),
        json!([
            true,
            null,
            -7,
            1.5,
            true,
            true,
            true,
            true,
            5,
            3,
            true,
            "x+gi",
            255,
            9,
            1,
            [true, false]
        ])
    );
    for source in [
        "() => () => 1",
        "Symbol('x')",
        "new Proxy({}, {})",
        "const a = []; a.push(a); a",
        "({ p: Promise.resolve(1) })",
    ] {
        let isolate = run(source);
        let Status::Threw(Value::Error(error)) = isolate.status() else {
            panic!("{source} {isolate:?}")
        };
        assert_eq!(error.name, "DataCloneError", "{source}");
    }
}

#[test]
fn the_clock_and_chance_are_the_hosts() {
    let source = "async () => { const t = Date.now(); const r = [Math.random(), crypto.randomUUID()];
        await new Promise((done) => setTimeout(done, 1500)); return [t, Date.now() - t, performance.now(), r] }";
    let run = |seed: u8| {
        let mut isolate = begin(source, &Bindings::none(), &Start::new([seed; 32], at(0)));
        let calls = isolate.take_calls();
        assert_eq!(
            calls[0].target,
            Target::Timer {
                after: Duration::from_millis(1500)
            }
        );
        isolate.answer(1, &Answer::Timer, at(1600)).unwrap();
        let Status::Completed(value) = isolate.status() else {
            panic!("{isolate:?}")
        };
        value.to_json()
    };
    let (one, again, other) = (run(1), run(1), run(2));
    assert_eq!(one[0], at(0).as_millis());
    assert_eq!(one[1], 1600);
    assert_eq!(one[2], 1600);
    assert_eq!(one, again);
    assert_ne!(one[3], other[3]);
}

#[test]
fn cancelled_timers_need_no_answer() {
    let mut isolate = begin(
        "const id = setTimeout(() => {}, 5); const other = setTimeout(() => {}, 6); clearTimeout(id);
         await new Promise((done) => setTimeout(() => { clearTimeout(other); done() }, 1)); 'end'",
        &Bindings::none(),
        &start(),
    );
    let ids: Vec<u32> = isolate.take_calls().iter().map(|call| call.id).collect();
    assert_eq!(ids, [2, 3]);
    isolate.answer(3, &Answer::Timer, at(1)).unwrap();
    assert_eq!(isolate.take_cancelled(), [2]);
    assert_eq!(*isolate.status(), Status::Completed(Value::from("end")));
}

#[test]
fn modules_import_each_other_and_nothing_else() {
    let program = Program::new(
        "main.ts",
        "import { twice } from './lib/math';\nimport { n } from 'lib/n.js';\ntwice(n)",
    )
    .unwrap()
    .module(
        "lib/math.ts",
        "import type { N } from './n';\nexport const twice = (x: number): number => 2 * x;",
    )
    .unwrap()
    .module(
        "lib/n.ts",
        "export type N = number; export const n: N = 21;",
    )
    .unwrap();
    let isolate = isolates()
        .start(
            isolates().try_admit("test").unwrap(),
            &program,
            &Bindings::none(),
            &start(),
        )
        .unwrap();
    assert_eq!(
        *isolate.status(),
        Status::Completed(Value::Number(42.0)),
        "{isolate:?}"
    );
    let isolate = run("import fs from 'node:fs'; fs");
    let Status::Threw(Value::Error(error)) = isolate.status() else {
        panic!("{isolate:?}")
    };
    assert!(
        error.message.contains("there is no module 'node:fs'"),
        "{error}"
    );
}

#[test]
fn errors_stand_where_the_author_wrote_them() {
    for (source, place) in [
        ("const a = 1;\nthrow new Error('here')", "main.ts:2:"),
        (
            "interface A {\n  x: number\n}\nconst a: A = { x: 1 };\nfunction f(a: A): never {\n  throw new Error('here')\n}\nf(a)",
            "main.ts:6:",
        ),
        (
            "```ts\ninterface A { x: number }\n\nnull.x\n```",
            "main.ts:4:",
        ),
        (
            "enum E { A, B }\n\n\nclass C { constructor(private x: E) {} f(): void { throw new Error(String(this.x)) } }\nnew C(E.B).f()",
            "main.ts:4:",
        ),
    ] {
        let program = Program::new("main.ts", source).unwrap();
        let isolate = isolates()
            .start(
                isolates().try_admit("test").unwrap(),
                &program,
                &Bindings::none(),
                &start(),
            )
            .unwrap();
        let Status::Threw(Value::Error(error)) = isolate.status() else {
            panic!("{source} {isolate:?}")
        };
        let stack = program.locate(&error.stack);
        assert!(
            stack.lines().next().unwrap_or("").contains(place),
            "{source}\n{stack}\n{}",
            program.script()
        );
    }
    let error = Program::new("main.ts", "```ts\nconst a = 1;\nconst b: = 2;\n```").unwrap_err();
    let IsolateError::Syntax { line, column, .. } = error else {
        panic!("{error:?}")
    };
    assert_eq!((line, column), (3, 10));
}

#[test]
fn logs_come_out_with_their_level() {
    let mut isolate = run(
        "console.log('a', { b: [1, 'x'] }); console.error(new Map([[1, 2]])); console.warn('%s is %d', 'n', 5); Promise.reject(new Error('lost')); 1",
    );
    let log = isolate.take_log();
    assert_eq!(
        (log[0].level, log[0].text.as_str()),
        (LogLevel::Info, "a { b: [ 1, 'x' ] }")
    );
    assert_eq!(
        (log[1].level, log[1].text.as_str()),
        (LogLevel::Error, "Map(1) { 1 => 2 }")
    );
    assert_eq!(
        (log[2].level, log[2].text.as_str()),
        (LogLevel::Warn, "n is 5")
    );
    assert!(
        log[3].text.starts_with("Uncaught (in promise) Error: lost"),
        "{log:?}"
    );
}

#[test]
fn a_parked_program_goes_on_at_its_await() {
    let bindings = Bindings::none().with("host", ["approve"]).unwrap();
    let key = [9; 32];
    let mut isolate = begin(
        "async () => { const seen = new Map([['k', 40]]); let n = 1; const add = () => ++n; add();
            const ok = await host.approve({ what: 'x' }); add(); return [seen.get('k') + n, ok, Math.random()] }",
        &bindings,
        &start(),
    );
    let saved = isolate.save(&key).unwrap();
    assert!(saved.len() < 8192, "{} bytes", saved.len());
    let mut twin = isolates()
        .restore(
            isolates().try_admit("test").unwrap(),
            &saved,
            &key,
            &bindings,
            &start().limits,
            at(0),
        )
        .unwrap();
    assert_eq!(twin.waiting(), [1]);
    assert_eq!(twin.save(&key).unwrap(), saved);
    let weeks = at(21 * 24 * 3_600_000);
    let mut later = isolates()
        .restore(
            isolates().try_admit("test").unwrap(),
            &saved,
            &key,
            &bindings,
            &start().limits,
            weeks,
        )
        .unwrap();
    later
        .answer(1, &Answer::Value(Value::Bool(true)), weeks)
        .unwrap();
    isolate
        .answer(1, &Answer::Value(Value::Bool(true)), at(1))
        .unwrap();
    twin.answer(1, &Answer::Value(Value::Bool(true)), at(1))
        .unwrap();
    let Status::Completed(value) = isolate.status() else {
        panic!("{isolate:?}")
    };
    assert_eq!(value.to_json()[0], 43);
    assert_eq!(isolate.status(), twin.status());
    assert_eq!(isolate.status(), later.status());

    let slot = || isolates().try_admit("test").unwrap();
    let refused = |bytes: &[u8], key: &[u8; 32], bindings: &Bindings| {
        isolates()
            .restore(slot(), bytes, key, bindings, &start().limits, at(0))
            .unwrap_err()
            .code()
    };
    let mut changed = saved.clone();
    changed[100] ^= 1;
    assert_eq!(refused(&changed, &key, &bindings), "isolate_saved_invalid");
    assert_eq!(
        refused(&saved, &[1; 32], &bindings),
        "isolate_saved_invalid"
    );
    assert_eq!(
        refused(&saved[..20], &key, &bindings),
        "isolate_saved_invalid"
    );
    assert_eq!(
        refused(&saved, &key, &Bindings::none()),
        "isolate_saved_bindings"
    );
}
