//! Hostile programs: each is stopped with an error that names what it used up, and reaches nothing.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use bowline_sandbox::isolate::{
    Answer, Bindings, IsolateError, Isolates, IsolatesOptions, Limits, Program, Start, Status,
    Target, Thrown, Value,
};
use serde_json::{Value as Json, json};

use super::{at, begin, finish, isolates, options, run, start, stopped, value};

/// What hostile programs get: little, so that the tests are short.
fn tight() -> Limits {
    Limits {
        cpu: Duration::from_millis(40),
        memory: 32 << 20,
        output: 10_000,
        log: 10_000,
        calls: 100,
        call_bytes: 10_000,
        concurrency: 50,
        ..Limits::default()
    }
}

const ENDLESS: &[&str] = &[
    "while (true) {}",
    "for (;;);",
    "do {} while (1)",
    "for (;;) { try { while (true) {} } catch {} finally { continue } }",
    "outer: for (;;) { for (;;) { continue outer } }",
    "const f = () => { try { for (;;) {} } finally { f() } }; f()",
    "function* g() { for (;;) yield 1 } for (const x of g()) {}",
    "/(a+)+$/.test('a'.repeat(50) + 'b')",
    "/^(([a-z])+.)+[A-Z]([a-z])+$/.test('a'.repeat(60))",
    "'x'.repeat(50000).replace(/(x+x+)+y/g, '')",
    "[1, 2, 3].sort(() => { for (;;) {} })",
    "new Array(2e5).fill(0).map((_, i) => (i * 7919) % 200003).sort((a, b) => { for (let i = 0; i < 500; i++); return a - b })",
    "new Proxy({}, { get() { for (;;) {} } }).x",
    "const p = new Proxy({}, { has: () => true, get: (t, k, r) => r[k + 'x'] }); for (;;) try { p.a } catch {}",
    "Object.defineProperty({}, 'x', { get() { for (;;) {} } }).x",
    "`${{ toString() { for (;;) {} } }}`",
    "+{ [Symbol.toPrimitive]() { for (;;) {} } }",
    "JSON.stringify({ toJSON() { for (;;) {} } })",
    "JSON.parse('[1]', () => { for (;;) {} })",
    "(3n ** 5000000n).toString()",
    "let x = 3n; for (;;) x = x * x % (10n ** 5000n)",
    "let s = ''; for (;;) { s = s.slice(0, 1000) + 'x'.repeat(1000) }",
    "for (;;) 'abc'.split('').reverse().join('')",
    "new Array(4e8).join('x')",
    "Array.from({ length: 2 ** 32 }).length",
    "[].concat.apply([], { length: 2 ** 31 })",
    "Array.prototype.indexOf.call({ length: 2 ** 53 - 1 }, 1)",
    "Array.prototype.includes.call({ length: 1e15 }, 1)",
    "const flood = () => Promise.resolve().then(flood); flood(); await new Promise(() => {})",
    "const flood = () => queueMicrotask(flood); flood(); await new Promise(() => {})",
    "async function f() { for (;;) await null } await f()",
    "for await (const x of (async function* () { for (;;) yield 1 })()) {}",
    "({ then(resolve) { for (;;) {} } })",
    "for (;;) structuredClone({ a: [1, 2, { b: 3 }] })",
    "for (;;) new Date('2020-01-01T00:00:00Z').toISOString()",
    "for (;;) new URL('https://example.com/a/b?c=d#e').href",
    "for (;;) eval('1 + 1')",
    "for (;;) new Function('return 1')()",
    "for (;;) try { null.x } catch (e) { e.stack }",
    "for (;;) crypto.getRandomValues(new Uint8Array(1000))",
    "for (;;) await crypto.subtle.digest('SHA-512', new Uint8Array(1e5))",
    "const t = new Uint8Array(1e6); for (;;) t.sort()",
    "for (;;) new Intl_missing",
    "while (Date.now() < 1e15) {}",
    "label: { for (;;) { switch (1) { case 1: continue } } }",
    "export default { get default() { for (;;) {} }, a: { get b() { for (;;) {} } } }",
];

#[test]
fn no_loop_outlives_its_budget_of_cpu_time() {
    let before = at(0);
    for source in ENDLESS {
        let start = Start {
            limits: tight(),
            ..Start::new([1; 32], before)
        };
        let isolate = finish(begin(source, &Bindings::none(), &start));
        match isolate.status() {
            Status::Stopped(IsolateError::Cpu(_)) => {}
            // Some run out of memory or stack on the way, or the engine refuses them.
            Status::Stopped(IsolateError::Memory(_) | IsolateError::Stack) | Status::Threw(_) => {}
            other => panic!("{source}\n{other:?}"),
        }
        let used = isolate.usage().cpu;
        assert!(used <= 3 * tight().cpu, "{source} used {used:?}");
    }
    for source in &ENDLESS[..8] {
        assert_eq!(stopped(source, tight()).code(), "isolate_cpu", "{source}");
    }
}

#[test]
fn no_program_takes_more_memory_than_it_may() {
    let limits = Limits {
        cpu: Duration::from_secs(20),
        ..tight()
    };
    for source in [
        "const a = []; for (;;) a.push(new Array(10000).fill(1))",
        "const a = []; for (;;) a.push('x'.repeat(100000) + a.length)",
        "new Uint8Array(2 ** 29)",
        "new ArrayBuffer(2 ** 30)",
        "const m = new Map(); for (let i = 0; ; i++) m.set(i, { i })",
        "const s = new Set(); for (let i = 0; ; i++) s.add('k' + i)",
        "let o = {}; for (let i = 0; ; i++) o['p' + i] = i",
        "let n = null; for (;;) n = { n }",
        "[...(function* () { for (;;) yield 'xxxxxxxx' })()]",
        "'x'.repeat(2 ** 29).toUpperCase()",
        "const all = []; for (;;) all.push(Promise.resolve().then(() => {}))",
        "const all = []; for (;;) all.push(() => all)",
        "new Array(2 ** 24).fill({}).map((x) => [x])",
        "JSON.stringify(new Array(2 ** 22).fill('xxxxxxxxxxxxxxxx'))",
        "Array(2 ** 25).fill('ab').join('cd')",
        "let s = 'x'; for (let i = 0; i < 28; i++) s += s; s.split('')",
        "try { const a = []; for (;;) a.push(new Array(10000).fill(1)) } catch { 'caught' }",
        "new TextEncoder().encode('x'.repeat(2 ** 27))",
        "structuredClone(new Uint8Array(2 ** 24))",
    ] {
        assert_eq!(
            stopped(source, limits.clone()).code(),
            "isolate_memory",
            "{source}"
        );
    }
}

#[test]
fn all_programs_together_take_no_more_memory_than_they_may() {
    let program = Program::new(
        "main.ts",
        "const a = new Uint8Array(2 ** 24).fill(1); await new Promise((r) => setTimeout(r, 1)); a.length",
    )
    .unwrap();
    let begin = |isolates: &Isolates| {
        isolates
            .start(
                isolates.try_admit("a").unwrap(),
                &program,
                &Bindings::none(),
                &start(),
            )
            .unwrap()
    };
    let each = begin(isolates()).usage().memory;
    let total = each * 5 / 2;
    let isolates = Isolates::open(&IsolatesOptions {
        memory: total,
        ..options()
    })
    .unwrap();
    let (mut first, second) = (begin(&isolates), begin(&isolates));
    assert_eq!(
        (first.status(), second.status()),
        (&Status::Waiting, &Status::Waiting)
    );
    assert_eq!(
        *begin(&isolates).status(),
        Status::Stopped(IsolateError::MemoryTotal(total))
    );
    first.answer(1, &Answer::Timer, at(1)).unwrap();
    assert_eq!(
        *first.status(),
        Status::Completed(Value::Number(16_777_216.0))
    );
    assert_eq!(*begin(&isolates).status(), Status::Waiting);
}

#[test]
fn recursion_ends_with_the_limit_of_the_stack_and_can_be_caught() {
    for source in [
        "function f() { return f() + 1 } f()",
        "const f = () => [f()]; f()",
        "const o = { get x() { return this.x } }; o.x",
        "class A { constructor() { new A() } } new A()",
        "const o = { toString() { return `${this}` } }; `${o}`",
        "const p = new Proxy({}, { get: (t, k, r) => r[k] }); p.x",
        "const a = []; a[0] = a; const f = (x) => [x].flatMap(f); f(1)",
        "async function f() { await f() } await f()",
    ] {
        let error = stopped(source, Limits::default());
        assert_eq!(error, IsolateError::Stack, "{source}");
    }
    for source in [
        "JSON.parse('['.repeat(1e5))",
        "eval('('.repeat(1e5))",
        "new RegExp('('.repeat(1e5))",
        "let f = () => {}; for (let i = 0; i < 1e5; i++) f = f.bind(null); f()",
        "let o = []; for (let i = 0; i < 1e5; i++) o = [o]; JSON.stringify(o)",
        "let o = []; for (let i = 0; i < 1e5; i++) o = [o]; structuredClone(o)",
        "let o = []; for (let i = 0; i < 1e5; i++) o = [o]; String(o)",
        "let o = []; for (let i = 0; i < 1e5; i++) o = [o]; o",
        "let o = []; for (let i = 0; i < 1e5; i++) o = [o]; o.flat(Infinity)",
        "let p = Promise.resolve(); for (let i = 0; i < 1e5; i++) p = p.then(() => 1); await p",
        "let s = 'x'; for (let i = 0; i < 1e5; i++) s = 'y' + s; s.length",
        "eval('1' + '+1'.repeat(1e5))",
        "/(?:){0,1000000}/.test('')",
    ] {
        let isolate = run(source);
        let fine = match isolate.status() {
            Status::Threw(_) | Status::Completed(_) => true,
            Status::Stopped(error) => matches!(
                error,
                IsolateError::Stack | IsolateError::Cpu(_) | IsolateError::Memory(_)
            ),
            Status::Waiting => false,
        };
        assert!(fine, "{source} {isolate:?}");
    }
    assert_eq!(
        value("let depth = 0; const f = () => { depth++; f() }; try { f() } catch (e) { [e.name, depth > 1000] }; [depth > 1000]").to_json(),
        json!([true])
    );
}

#[test]
fn a_smaller_stack_ends_recursion_sooner_and_can_be_another_when_a_program_goes_on() {
    let bindings = Bindings::none().with("host", ["call"]).unwrap();
    let with = |stack| Limits {
        stack,
        ..Limits::default()
    };
    let count = "let n = 0; const f = () => { n++; f() }; try { f() } catch (e) { if (e.name !== 'RangeError') throw e }";
    let depth = |stack| {
        let start = Start {
            limits: with(stack),
            ..start()
        };
        let isolate = finish(begin(&format!("{count} n"), &Bindings::none(), &start));
        match isolate.status() {
            Status::Completed(Value::Number(depth)) => *depth,
            other => panic!("{other:?}"),
        }
    };
    let (least, most) = (depth(Limits::STACK_MIN), depth(Limits::STACK));
    assert!(least > 50.0 && least * 4.0 < most, "{least} {most}");
    assert_eq!(depth(1), least);
    let deep = "const f = (n) => n && f(n - 1) + 1; f(1000)";
    assert_eq!(value(deep), Value::Number(1000.0));
    assert_eq!(stopped(deep, with(Limits::STACK_MIN)), IsolateError::Stack);

    let source = format!("await host.call(); {count} n");
    for (first, second) in [
        (Limits::STACK_MIN, Limits::STACK),
        (Limits::STACK, Limits::STACK_MIN),
    ] {
        let start = Start {
            limits: with(first),
            ..start()
        };
        let saved = begin(&source, &bindings, &start).save(&[1; 32]).unwrap();
        let slot = isolates().try_admit("test").unwrap();
        let mut again = isolates()
            .restore(slot, &saved, &[1; 32], &bindings, &with(second), at(0))
            .unwrap();
        again
            .answer(1, &Answer::Value(Value::Undefined), at(1))
            .unwrap();
        match again.status() {
            Status::Completed(Value::Number(depth)) => {
                assert!((*depth > 1000.0) == (second == Limits::STACK), "{depth}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn other_limits_stop_programs_too() {
    let bindings = Bindings::none().with("host", ["call"]).unwrap();
    let code = |source: &str| {
        let limits = Limits {
            cpu: Duration::from_secs(5),
            ..tight()
        };
        let mut isolate = begin(source, &bindings, &Start { limits, ..start() });
        while *isolate.status() == Status::Waiting {
            for call in isolate.take_calls() {
                let answer = match call.target {
                    Target::Timer { .. } => Answer::Timer,
                    Target::Binding { .. } => Answer::Value(Value::Null),
                };
                let _ = isolate.answer(call.id, &answer, at(i64::from(call.id)));
            }
        }
        match isolate.status() {
            Status::Stopped(error) => error.code(),
            other => panic!("{source} {other:?}"),
        }
    };
    assert_eq!(code("for (;;) await host.call()"), "isolate_calls");
    assert_eq!(
        code("for (;;) await new Promise((r) => setTimeout(r, 1))"),
        "isolate_calls"
    );
    assert_eq!(code("for (;;) host.call()"), "isolate_concurrency");
    assert_eq!(
        code("for (;;) setTimeout(() => {}, 1)"),
        "isolate_concurrency"
    );
    assert_eq!(code("host.call('x'.repeat(20000))"), "isolate_call_size");
    assert_eq!(
        code(
            "const a = ['x'.repeat(100)]; for (let i = 0; i < 20; i++) a.push(a.slice()); host.call(a)"
        ),
        "isolate_call_size"
    );
    assert_eq!(code("'x'.repeat(20000)"), "isolate_output");
    assert_eq!(code("throw new Error('x'.repeat(20000))"), "isolate_output");
    assert_eq!(code("for (;;) console.log('x'.repeat(100))"), "isolate_log");
    assert_eq!(
        code("for (;;) console.error(new Error('x'))"),
        "isolate_log"
    );
    assert_eq!(code("await new Promise(() => {})"), "isolate_deadlock");
    let large = "x".repeat(Program::MAX_BYTES + 1);
    assert_eq!(
        Program::new("main.ts", &large).unwrap_err().code(),
        "isolate_source_too_large"
    );

    let limits = Limits {
        wall: Duration::from_secs(1),
        ..Limits::default()
    };
    let mut isolate = begin("await host.call()", &bindings, &Start { limits, ..start() });
    isolate
        .answer(1, &Answer::Value(Value::Null), at(1_001))
        .unwrap();
    assert_eq!(
        *isolate.status(),
        Status::Stopped(IsolateError::Wall(Duration::from_secs(1)))
    );
    // A result that is too large is an error that the program can catch.
    let mut isolate = begin(
        "try { await host.call() } catch (e) { globalThis.e = e.message } e",
        &bindings,
        &Start {
            limits: tight(),
            ..start()
        },
    );
    isolate
        .answer(
            1,
            &Answer::Value(Value::from("x".repeat(20_000).as_str())),
            at(1),
        )
        .unwrap();
    assert!(
        matches!(isolate.status(), Status::Completed(Value::String(text)) if text.contains("10000 are allowed")),
        "{isolate:?}"
    );
}

#[test]
fn a_program_is_stopped_from_outside_while_it_runs() {
    let program = Program::new("main.ts", "await host.go(); for (;;) {}").unwrap();
    let bindings = Bindings::none().with("host", ["go"]).unwrap();
    let limits = Limits {
        cpu: Duration::from_secs(600),
        ..Limits::default()
    };
    let mut isolate = isolates()
        .start(
            isolates().try_admit("test").unwrap(),
            &program,
            &bindings,
            &Start { limits, ..start() },
        )
        .unwrap();
    let stopper = isolate.stopper();
    std::thread::scope(|scope| {
        scope.spawn(move || stopper.stop());
        isolate
            .answer(1, &Answer::Value(Value::Null), at(1))
            .unwrap();
    });
    assert_eq!(*isolate.status(), Status::Stopped(IsolateError::Stopped));
}

#[test]
fn programs_see_nothing_but_the_language_and_their_bindings() {
    let names = value(
        "Object.getOwnPropertyNames(globalThis).filter((n) => /process|require|fetch|WebAssembly|Deno|Bun|std|^os$|Worker|XMLHttp|Socket|Shared|Atomics|native|navigator|module|__|import|gc|print|script/i.test(n))",
    );
    assert_eq!(names.to_json(), json!([]));
    for source in [
        "process.exit()",
        "require('fs')",
        "fetch('http://localhost')",
        "new WebAssembly.Module()",
        "Deno.readFile('/')",
        "std.open('/etc/passwd')",
        "os.exec(['ls'])",
        "new Worker('x')",
        "import.meta.resolve('x')",
        "native.log(1, 'x')",
        "Function('return process')()",
        "(0, eval)('require')('fs')",
        "new Error().constructor.constructor('return process')()",
        "await import('fs')",
        "await import('node:fs')",
        "await import('file:///etc/passwd')",
        "await import('https://example.com/x.js')",
        "await import('/etc/passwd')",
        "await import('../../../etc/passwd')",
        "await import('data:text/javascript,export default 1')",
    ] {
        let isolate = run(source);
        assert!(
            matches!(isolate.status(), Status::Threw(_)),
            "{source} {isolate:?}"
        );
    }
    // Not even through the frames of the engine's own code.
    let frames = "Error.prepareStackTrace = (e, s) => s; const found = []; const look = () => { const s = new Error().stack; \
        if (Array.isArray(s)) for (const f of s) for (const k of ['getThis', 'getFunction']) try { const v = f[k]?.(); if (v && v !== globalThis) found.push(String(v).slice(0, 40)) } catch {} }; \
        console.log({ get x() { look(); return 1 }, toString: look }); setTimeout(look, 1); await new Promise((r) => setTimeout(r, 2)); found.filter((t) => /native\\.|timer|host/.test(t))";
    assert_eq!(value(frames).to_json(), json!([]));
}

#[test]
fn bindings_cannot_be_changed_or_imitated() {
    let bindings = Bindings::none().with("state", ["readFile"]).unwrap();
    let source = "async () => {
        const tried = [];
        const attempt = (name, f) => { try { f(); tried.push(name + ' passed') } catch (e) { tried.push(name + ' ' + e.name) } };
        'use strict';
        attempt('set', () => { state.readFile = () => 'fake' });
        attempt('add', () => { state.other = 1 });
        attempt('define', () => Object.defineProperty(state, 'readFile', { value: 1 }));
        attempt('delete', () => { delete state.readFile });
        attempt('proto', () => Object.setPrototypeOf(state, {}));
        attempt('replace', () => { globalThis.state = {} });
        attempt('remove', () => { delete globalThis.state });
        attempt('redefine', () => Object.defineProperty(globalThis, 'state', { value: 1 }));
        Object.prototype.writeFile = () => 'polluted';
        Object.prototype.then = (f) => f('polluted');
        Function.prototype.call = Function.prototype.apply = () => 'polluted';
        Promise.prototype.then = () => 'polluted';
        Array.prototype.push = () => 'polluted';
        const seen = [typeof state.writeFile, typeof state.constructor, typeof state.__proto__, typeof state.then, state.readFile === state.readFile, Object.keys(state)];
        delete Object.prototype.then;
        const text = await state.readFile('/a');
        return { tried, seen, text };
    }";
    let mut isolate = begin(source, &bindings, &start());
    assert_eq!(isolate.take_calls().len(), 1, "{isolate:?}");
    isolate
        .answer(1, &Answer::Value(Value::from("real")), at(1))
        .unwrap();
    let Status::Completed(value) = isolate.status() else {
        panic!("{isolate:?}")
    };
    let value = value.to_json();
    let tried: Vec<&str> = value["tried"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Json::as_str)
        .collect();
    assert!(
        tried.iter().all(|line| line.ends_with("TypeError")),
        "{tried:?}"
    );
    assert_eq!(
        value["seen"],
        json!([
            "undefined",
            "undefined",
            "undefined",
            "undefined",
            true,
            ["readFile"]
        ])
    );
    assert_eq!(value["text"], "real");
    for namespace in [
        "constructor!",
        "",
        "Promise",
        "await",
        "console",
        "a b",
        "1a",
        "globalThis",
    ] {
        assert!(
            Bindings::none().with(namespace, ["x"]).is_err(),
            "{namespace}"
        );
    }
    // Ids and names come from outside the program's reach; unknown methods are no functions.
    let isolate = finish(begin("state.nothing()", &bindings, &start()));
    assert!(
        matches!(isolate.status(), Status::Threw(Value::Error(error)) if error.name == "TypeError"),
        "{isolate:?}"
    );
}

#[test]
fn hostile_values_do_not_reach_the_host_as_anything_but_data() {
    let bindings = Bindings::none().with("host", ["call"]).unwrap();
    let source = "async () => {
        const results = [];
        for (const make of [
            () => ({ get x() { throw new Error('getter') } }),
            () => ({ get x() { delete this.y; return 1 }, y: 2, z: 3 }),
            () => { const m = new Map([[1, { get g() { m.clear(); m.set(5, 6); return 7 } }], [2, 3]]); return m },
            () => { const a = [{ get g() { a.length = 0; return 1 } }, 2, 3]; return a },
            () => Object.assign(new Error('e'), { get name() { throw 1 } }),
            () => new Proxy([], {}), () => [function () {}], () => Symbol.iterator,
            () => { const u = new Uint8Array(8); u.buffer.transfer?.(); return u },
            () => { const e = new Error('x'); e.stack = 5; e.name = { toString() { throw 2 } }; return e },
            () => ({ toJSON() { return 'no' }, valueOf() { return 'no' } }),
            () => Object.create({ inherited: 1 }), () => new (class A { #p = 1; q = 2 })(), () => new Date(NaN), () => Object(1n),
            () => '\\ud800', () => ({ ['__proto__']: 1, constructor: 2 }),
        ]) try { results.push(await host.call(make()) ?? 'ok') } catch (e) { results.push(String(e?.name ?? e)) }
        return results.length;
    }";
    let mut isolate = begin(source, &bindings, &start());
    let mut passed = Vec::new();
    while *isolate.status() == Status::Waiting {
        for call in isolate.take_calls() {
            if let Target::Binding { arguments, .. } = &call.target {
                passed.push(arguments[0].to_json());
            }
            isolate
                .answer(call.id, &Answer::Error(Thrown::new("Refused", "no")), at(1))
                .unwrap();
        }
    }
    assert_eq!(
        *isolate.status(),
        Status::Completed(Value::Number(17.0)),
        "{isolate:?}"
    );
    assert!(
        passed.contains(&json!({"x": 1, "z": 3}))
            || passed.contains(&json!({"x": 1, "y": null, "z": 3})),
        "{passed:?}"
    );
    assert!(passed.contains(&json!("\u{fffd}")), "{passed:?}");
    assert!(
        passed.contains(&json!({"__proto__": 1, "constructor": 2})),
        "{passed:?}"
    );
}

#[test]
fn nothing_is_left_for_the_next_program() {
    // One slot, so that every program gets the same.
    let isolates = Isolates::open(&IsolatesOptions {
        live: 1,
        ..options()
    })
    .unwrap();
    let dirty = Program::new(
        "main.ts",
        "globalThis.secret = 'left behind'; Array.prototype.evil = 1; const keep = []; \
         for (let i = 0; i < 300; i++) keep.push('secret '.repeat(1000 + i)); await new Promise((r) => setTimeout(r, 1))",
    )
    .unwrap();
    let look = Program::new("main.ts", "[typeof secret, [].evil, Math.random()]").unwrap();
    let slot = || isolates.try_admit("one").unwrap();
    let mut first = None;
    for round in 0..40 {
        let mut isolate = isolates
            .start(slot(), &dirty, &Bindings::none(), &start())
            .unwrap();
        assert_eq!(*isolate.status(), Status::Waiting);
        if round % 2 == 0 {
            isolate.answer(1, &Answer::Timer, at(1)).unwrap();
        }
        drop(isolate);
        assert!(isolates.is_fresh(slot()).unwrap(), "round {round}");
        let isolate = isolates
            .start(slot(), &look, &Bindings::none(), &start())
            .unwrap();
        let Status::Completed(value) = isolate.status() else {
            panic!("{isolate:?}")
        };
        assert_eq!(value.to_json()[0], "undefined");
        assert_eq!(*first.get_or_insert_with(|| value.clone()), *value);
    }
    let isolate = isolates
        .start(
            slot(),
            &Program::new("main.ts", "for (;;) globalThis['x' + Math.random()] = [1]").unwrap(),
            &Bindings::none(),
            &Start {
                limits: tight(),
                ..start()
            },
        )
        .unwrap();
    assert!(matches!(isolate.status(), Status::Stopped(_)));
    assert!(isolates.is_fresh(slot()).unwrap());
}

#[test]
fn others_run_while_hostile_programs_do() {
    let limits = Limits {
        cpu: Duration::from_millis(200),
        ..Limits::default()
    };
    let (over, done) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        let hostile: Vec<_> = (0..4)
            .map(|_| {
                let limits = limits.clone();
                scope.spawn(move || stopped("for (;;) {}", limits).code())
            })
            .collect();
        let (over, done) = (&over, &done);
        scope.spawn(move || {
            while !over.load(Ordering::Acquire) {
                assert_eq!(value("1 + 1"), Value::Number(2.0));
                done.fetch_add(1, Ordering::AcqRel);
            }
        });
        for thread in hostile {
            assert_eq!(thread.join().unwrap(), "isolate_cpu");
        }
        over.store(true, Ordering::Release);
    });
    assert!(done.load(Ordering::Acquire) > 10, "{done:?}");
}

#[test]
fn a_program_that_nests_without_end_is_refused_and_the_process_goes_on() {
    let many = |piece: &str| piece.repeat(150_000);
    let pairs = [
        ("(", ")"),
        ("[", "]"),
        ("{", "}"),
        ("(/)/,", ")"),
        ("(\"\\\n)\",", ")"),
    ];
    let mut sources: Vec<String> = pairs
        .iter()
        .map(|(open, close)| format!("{}1{}", many(open), many(close)))
        .collect();
    for prefix in [
        "!",
        "-",
        "typeof ",
        "x=>",
        "x=",
        "1?1:",
        "if(1)",
        "if(1);else ",
        "a:",
        "1**",
    ] {
        let prefix = prefix.repeat(1_000_000 / prefix.len());
        sources.push(format!("let x: number = 1; {prefix}1"));
        sources.push(format!("{prefix}1"));
    }
    for piece in [".b", "[0]", "()", "+1", "`${1}`", "as T "] {
        let piece = piece.repeat(1_000_000 / piece.len());
        sources.push(format!("let x: number = a{piece}"));
    }
    sources.push(format!(
        "let x: {}number{} = 1",
        "Array<".repeat(50_000),
        ">".repeat(50_000)
    ));
    sources.push(format!("let x: {}1", "1 extends 1 ? 1 : ".repeat(50_000)));
    for source in sources {
        let begin: String = source.chars().take(40).collect();
        // A stack that runs out ends the process: then this is the last line.
        println!("{begin}");
        let _ = Program::new("main.ts", &source);
    }
    // What people write is not refused.
    let long = "if (a === \"x\") { f(a, [1, 2], { b: c.d + 1 }); }\n".repeat(2_000);
    assert!(Program::new("main.ts", &long).is_ok());
}
