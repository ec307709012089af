//! Every form of attack by name: the limit that ends it, beside a program of somebody else that goes on;
//! and what code tries through the values that the host hands it.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use bowline_sandbox::isolate::{
    Answer, Bindings, Isolate, IsolateError, Isolates, Limits, Program, Start, Status, Target,
    Thrown, Value,
};
use serde_json::{Value as Json, json};

use super::{at, begin, finish, isolates, start, value};

/// The form, a program, and the code of the error that must stop it.
const FORMS: &[(&str, &str, &str)] = &[
    ("loop", "for (;;) {}", "isolate_cpu"),
    (
        "loop that catches",
        "for (;;) try { for (;;); } catch {} finally { continue }",
        "isolate_cpu",
    ),
    (
        "regex that tests",
        "/(a+)+$/.test('a'.repeat(60) + 'b')",
        "isolate_cpu",
    ),
    (
        "regex that looks behind",
        "/(?<=(a|aa)+)b/.exec('a'.repeat(60) + 'c') ?? /^(a|a|aa)*$/u.exec('a'.repeat(60) + 'c')",
        "isolate_cpu",
    ),
    (
        "regex that splits",
        "('x'.repeat(40) + 'y').split(/(x+x+)+z/)",
        "isolate_cpu",
    ),
    (
        "comparator that never ends",
        "[3, 1, 2].sort(() => { for (;;); })",
        "isolate_cpu",
    ),
    (
        "comparator that lies",
        "for (;;) new Array(5e4).fill(0).map((_, i) => i).sort(() => Math.random() - 0.5)",
        "isolate_cpu",
    ),
    (
        "typed array that sorts",
        "const t = new Uint8Array(1 << 20).map((_, i) => i * 31); for (;;) t.sort((a, b) => b - a)",
        "isolate_cpu",
    ),
    (
        "proxy, get",
        "new Proxy({}, { get() { for (;;); } }).x",
        "isolate_cpu",
    ),
    (
        "proxy, ownKeys",
        "Object.keys(new Proxy({}, { ownKeys() { for (;;); } }))",
        "isolate_cpu",
    ),
    (
        "proxy, has",
        "with_('x' in new Proxy({}, { has() { for (;;); } })); function with_() {}",
        "isolate_cpu",
    ),
    (
        "proxy, getPrototypeOf",
        "new Proxy({}, { getPrototypeOf() { for (;;); } }) instanceof Array",
        "isolate_cpu",
    ),
    (
        "proxy, apply and construct",
        "new (new Proxy(class {}, { construct() { for (;;); } }))()",
        "isolate_cpu",
    ),
    (
        "huge array, join",
        "const a = []; a.length = 2 ** 32 - 1; a.join('')",
        "isolate_cpu",
    ),
    (
        "huge array, lastIndexOf",
        "Array.prototype.lastIndexOf.call({ length: 2 ** 53 - 1 }, 1)",
        "isolate_cpu",
    ),
    (
        "huge array, reverse",
        "Array.prototype.reverse.call({ length: 2 ** 53 - 1 })",
        "isolate_cpu",
    ),
    (
        "JSON, getters",
        "JSON.stringify({ get a() { for (;;); } })",
        "isolate_cpu",
    ),
    (
        "JSON, reviver",
        "JSON.parse('{\"a\":[1]}', () => { for (;;); })",
        "isolate_cpu",
    ),
    (
        "JSON, back and forth",
        "const t = JSON.stringify(new Array(1000).fill({ a: [1, 'x'] })); for (;;) JSON.stringify(JSON.parse(t))",
        "isolate_cpu",
    ),
    (
        "string, pieces",
        "for (;;) { let s = ''; for (let i = 0; i < 1e4; i++) s += i }",
        "isolate_cpu",
    ),
    (
        "string, replace",
        "for (;;) 'ab'.repeat(1e5).replaceAll('a', 'b')",
        "isolate_cpu",
    ),
    (
        "string, normalize",
        "for (;;) 'e\\u0301'.repeat(1e4).normalize('NFC')",
        "isolate_cpu",
    ),
    ("BigInt", "(7n ** 3000000n).toString()", "isolate_cpu"),
    (
        "parser",
        "for (;;) eval('(' .repeat(50) + '1' + ')'.repeat(50))",
        "isolate_cpu",
    ),
    (
        "generator",
        "Array.from((function* () { for (;;) yield* []; })())",
        "isolate_cpu",
    ),
    (
        "destructuring of an endless iterator",
        "const [...all] = { [Symbol.iterator]: () => ({ next: () => { for (;;); } }) }",
        "isolate_cpu",
    ),
    (
        "promises, one after the other",
        "const on = () => Promise.resolve().then(on); await on()",
        "isolate_cpu",
    ),
    (
        "promises, thenables",
        "const t = { then(f) { queueMicrotask(() => f(t)) } }; await t",
        "isolate_cpu",
    ),
    (
        "promises, microtasks",
        "const on = () => { queueMicrotask(on) }; on(); await new Promise(() => {})",
        "isolate_cpu",
    ),
    (
        "promises, ever more",
        "const all = []; for (;;) all.push(new Promise(() => {}).then(() => all))",
        "isolate_memory",
    ),
    (
        "promises, a tree",
        "const on = () => { Promise.resolve().then(on); Promise.resolve().then(on) }; on(); await new Promise(() => {})",
        "isolate_memory",
    ),
    (
        "timers",
        "for (;;) setTimeout(() => {}, 0)",
        "isolate_concurrency",
    ),
    (
        "memory, arrays",
        "const a = []; for (;;) a.push(new Array(1000).fill(a))",
        "isolate_memory",
    ),
    (
        "memory, a string that doubles",
        "let s = 'xy'; const a = []; for (;;) a.push((s + a.length).repeat(1e5))",
        "isolate_memory",
    ),
    (
        "memory, a buffer",
        "new ArrayBuffer(2 ** 31 - 1)",
        "isolate_memory",
    ),
    (
        "memory, closures",
        "let f = () => 0; for (;;) { const g = f; f = () => g }",
        "isolate_memory",
    ),
    (
        "memory, caught",
        "const a = []; for (;;) try { a.push(new Uint8Array(1e6)) } catch {}",
        "isolate_memory",
    ),
    (
        "memory, spread",
        "let a = [1]; for (;;) a = [...a, ...a]",
        "isolate_memory",
    ),
    (
        "recursion",
        "const f = (n) => 1 + f(n + 1); f(0)",
        "isolate_stack",
    ),
    (
        "recursion, getters",
        "({ get x() { return this.x } }).x",
        "isolate_stack",
    ),
    (
        "recursion, proxies",
        "const p = new Proxy({}, { get: (_, k) => p[k] }); p.x",
        "isolate_stack",
    ),
    (
        "recursion, toString",
        "const o = { toString: () => '' + o }; '' + o",
        "isolate_stack",
    ),
    ("output", "'x'.repeat(20000)", "isolate_output"),
    ("log", "for (;;) console.log('x')", "isolate_log"),
    (
        "a wait for nothing",
        "await new Promise(() => {})",
        "isolate_deadlock",
    ),
];

fn limits(code: &str) -> Limits {
    // What ends by memory may take its time, so that only one limit can be hit.
    let cpu = if code == "isolate_cpu" { 40 } else { 20_000 };
    Limits {
        cpu: Duration::from_millis(cpu),
        memory: 32 << 20,
        output: 10_000,
        log: 10_000,
        concurrency: 50,
        ..Limits::default()
    }
}

#[test]
fn each_form_is_stopped_by_its_limit_while_another_program_goes_on() {
    let (over, done) = (AtomicBool::new(false), AtomicU32::new(0));
    let mut wrong = Vec::new();
    std::thread::scope(|scope| {
        let (over, done) = (&over, &done);
        scope.spawn(move || {
            while !over.load(Ordering::Acquire) {
                assert_eq!(
                    value("await null; [1, 2, 3].map((n) => n * 2).join()"),
                    Value::from("2,4,6")
                );
                done.fetch_add(1, Ordering::AcqRel);
            }
        });
        for (form, source, code) in FORMS {
            let start = Start {
                limits: limits(code),
                ..start()
            };
            let isolate = finish(begin(source, &Bindings::none(), &start));
            let used = isolate.usage().cpu;
            match isolate.status() {
                Status::Stopped(error) if error.code() == *code => {}
                other => wrong.push(format!("{form}: {other:?}")),
            }
            if used > 3 * start.limits.cpu {
                wrong.push(format!("{form}: used {used:?}"));
            }
        }
        over.store(true, Ordering::Release);
    });
    assert!(wrong.is_empty(), "{wrong:#?}");
    let done = done.load(Ordering::Acquire);
    assert!(done as usize > FORMS.len(), "{done}");
}

/// Answers every call with what `answer` makes of its number, and tells the value at the end.
fn answered(source: &str, mut answer: impl FnMut(u32) -> Answer) -> Json {
    let bindings = Bindings::none().with("host", ["call"]).unwrap();
    let mut isolate = begin(source, &bindings, &start());
    while *isolate.status() == Status::Waiting {
        for call in isolate.take_calls() {
            let with = match call.target {
                Target::Timer { .. } => Answer::Timer,
                Target::Binding { .. } => answer(call.id),
            };
            isolate.answer(call.id, &with, at(1)).unwrap();
        }
    }
    match isolate.status() {
        Status::Completed(value) => value.to_json(),
        other => panic!("{source}\n{other:?}"),
    }
}

#[test]
fn errors_of_the_host_lead_to_nothing_of_the_host() {
    // All that can be reached from an error that a binding throws is what the program has already.
    let source = "async () => {
        const own = new Set(), walk = (o, seen) => {
            if ((typeof o !== 'object' && typeof o !== 'function') || o === null || seen.has(o)) return;
            seen.add(o);
            walk(Object.getPrototypeOf(o), seen);
            for (const key of Reflect.ownKeys(o)) {
                const d = Object.getOwnPropertyDescriptor(o, key);
                for (const v of [d.value, d.get, d.set]) walk(v, seen);
            }
        };
        walk(globalThis, own);
        for (const f of [function* () {}, async () => {}, async function* () {}]) walk(f, own);
        const errors = [];
        for (let i = 0; i < 2; i++) try { await host.call() } catch (e) { errors.push(e) }
        const foreign = [];
        for (const e of errors) {
            const all = new Set();
            walk(e, all);
            for (const o of all) if (o !== e && o !== e.cause && !own.has(o)) foreign.push(String(o));
        }
        const [e] = errors;
        return { foreign, name: e.name, message: e.message, real: e instanceof Error, stack: /\\.rs|wasm|\\/home|\\/root|target/.test(e.stack),
            escape: typeof e.constructor.constructor('return this')().process };
    }";
    let mut error = Thrown::new("Refused", "not allowed");
    error.stack = "at secret (/root/host.rs:1:1)".to_owned();
    let seen = answered(source, |id| {
        if id == 1 {
            Answer::Error(Thrown::new("Refused", "not allowed"))
        } else {
            Answer::Error(error.clone())
        }
    });
    assert_eq!(
        seen,
        json!({"foreign": [], "name": "Refused", "message": "not allowed", "real": true, "stack": false, "escape": "undefined"})
    );
}

#[test]
fn answers_are_data_and_not_thenables_getters_or_prototypes() {
    let source = "async () => {
        let ran = 0;
        const set = (o, k) => Object.defineProperty(o, k, { configurable: true, get() { ran++; return undefined }, set() { ran++ } });
        set(Object.prototype, 'then'); set(Object.prototype, 'a'); set(Object.prototype, 'toJSON'); set(Array.prototype, '0');
        const got = await host.call();
        for (const [o, k] of [[Object.prototype, 'then'], [Object.prototype, 'a'], [Object.prototype, 'toJSON'], [Array.prototype, '0']]) delete o[k];
        return { then: got.then, own: Object.keys(got), proto: Object.getPrototypeOf(got) === Object.prototype,
            evil: [got.evil, {}.evil], a: got.a, list: got.list };
    }";
    let answer = Value::Object(vec![
        ("then".into(), Value::from("data")),
        ("a".into(), Value::Number(1.0)),
        (
            "__proto__".into(),
            Value::Object(vec![("evil".into(), Value::Bool(true))]),
        ),
        ("list".into(), Value::Array(vec![Value::Number(7.0)])),
    ]);
    assert_eq!(
        answered(source, |_| Answer::Value(answer.clone())),
        json!({"then": "data", "own": ["then", "a", "__proto__", "list"], "proto": true,
            "evil": [null, null], "a": 1, "list": [7]})
    );
}

#[test]
fn symbols_thenables_and_conversions_of_a_namespace_call_nothing() {
    let source = "async () => {
        const odd = [];
        for (const key of [Symbol.iterator, Symbol.asyncIterator, Symbol.toPrimitive, Symbol.hasInstance, Symbol.species, Symbol.unscopables,
            Symbol.for('nodejs.util.inspect.custom'), Symbol('x'), 'then', 'catch', 'toJSON', 'valueOf', 'constructor', 'prototype', '__proto__', '__defineGetter__', 'caller', 'arguments'])
            if (host[key] !== undefined) odd.push(String(key));
        await host;
        await Promise.all([host, Promise.resolve(host)]);
        JSON.stringify(host);
        for (const f of [() => `${host}`, () => host + 1, () => [...host], () => ({}) instanceof host, () => structuredClone(host), () => new host.call(), () => host()])
            try { f() } catch {}
        for (const key of ['caller', 'callee', 'arguments', 'prototype', 'constructor'])
            try { const v = host.call[key]; if (v && v !== Function && v !== (async () => {}).constructor) odd.push('call.' + key) } catch {}
        return odd;
    }";
    let mut calls = 0;
    let odd = answered(source, |_| {
        calls += 1;
        Answer::Value(Value::Null)
    });
    assert_eq!(odd, json!([]));
    // Only `new host.call()` may have called what it names.
    assert!(calls <= 1, "{calls}");
}

#[test]
fn programs_that_live_together_share_nothing() {
    let program = |source: &str| Program::new("main.ts", source).unwrap();
    let begin_on = |isolates: &Isolates, source: &str, seed: u8| -> Isolate {
        isolates
            .start(
                isolates.try_admit("test").unwrap(),
                &program(source),
                &Bindings::none().with("host", ["call"]).unwrap(),
                &Start::new([seed; 32], at(0)),
            )
            .unwrap()
    };
    let keep = "async () => {
        const mine = 'SECRET-OF-THE-OTHER'.repeat(1000);
        globalThis.shared = mine;
        for (const f of [() => { Symbol.prototype.leak = mine }, () => { RegExp.prototype.leak = mine }, () => /(SECRET)/.exec(mine),
            () => new Function('v', 'globalThis.leak = v')(mine), () => { Object.prototype.leak = Math.leak = JSON.leak = mine }, () => { host.call.leak = mine }])
            try { f() } catch {}
        return (await host.call(mine)) + ' ' + globalThis.shared.length;
    }";
    let steal = "async () => {
        const found = [typeof shared, typeof leak, {}.leak, Math.leak, JSON.leak, /x/.leak, RegExp.$1 || undefined, host.call.leak, Symbol.for('x').leak].map((v) => v === undefined ? 'undefined' : v);
        const wild = [];
        for (let i = 0; i < 40; i++) {
            const bytes = new Uint8Array(1 << 16);
            if (bytes.some((b) => b !== 0)) wild.push('dirty');
            for (const at of [-1, 1 << 16, 2 ** 31, 2 ** 32, 2 ** 53, '-1', 1e300]) if (bytes[at] !== undefined) wild.push(at);
            for (const at of [-1, 65535.5 + 1, 2 ** 31, 2 ** 32 - 1]) try { new DataView(bytes.buffer).getFloat64(at); wild.push(at) } catch {}
        }
        for (const f of [() => new Uint8Array(new ArrayBuffer(8), 4, 100), () => new ArrayBuffer(8).slice(-1e9, 1e9).byteLength > 8 || f_(), () => new Uint8Array(4).subarray(-1e9, 1e9).length > 4 || f_()])
            try { f(); wild.push('view') } catch {}
        const resizable = new ArrayBuffer(8, { maxByteLength: 64 }), view = new Float64Array(resizable);
        resizable.resize?.(0);
        if (view[0] !== undefined) wild.push('resized');
        await host.call();
        return { found, wild };
        function f_() { throw new RangeError() }
    }";
    let isolates = isolates();
    let mut victims: Vec<_> = (0..4).map(|n| begin_on(isolates, keep, n)).collect();
    let mut thief = begin_on(isolates, steal, 9);
    let again = begin_on(isolates, steal, 9);
    let id = thief.take_calls()[0].id;
    thief
        .answer(id, &Answer::Value(Value::Null), at(1))
        .unwrap();
    let Status::Completed(seen) = thief.status() else {
        panic!("{thief:?}")
    };
    let seen = seen.to_json();
    assert_eq!(seen["wild"], json!([]));
    for found in seen["found"].as_array().unwrap() {
        assert_eq!(found, "undefined", "{seen}");
    }
    // An answer for one is no answer for another: ids belong to the isolate that made the call.
    assert_eq!(
        thief.answer(id, &Answer::Value(Value::Null), at(1)),
        Err(IsolateError::NotWaiting(id))
    );
    assert_eq!(*again.status(), Status::Waiting);
    for victim in &mut victims {
        let id = victim.take_calls()[0].id;
        victim
            .answer(id, &Answer::Value(Value::from("kept")), at(1))
            .unwrap();
        assert_eq!(
            *victim.status(),
            Status::Completed(Value::from("kept 19000"))
        );
    }
}
