// What programs find besides ECMAScript. It runs once, when the image is made: it costs a run nothing.
// `native` is the shim's; nothing of it stays reachable.
(function (native) {
  "use strict";
  const G = globalThis;
  const define = (name, value) =>
    Object.defineProperty(G, name, { value, writable: true, configurable: true, enumerable: false });
  const { apply, ownKeys, getPrototypeOf } = Reflect;
  const describe = Reflect.getOwnPropertyDescriptor;
  const K = { OBJECT: 1, ARRAY: 2, ERROR: 3 };
  const kindOf = native.kind;
  // Classes by a sample, as their numbers are the engine's.
  const sample = (v) => kindOf(v);
  const kinds = {
    date: sample(new Date(0)), regexp: sample(/x/), map: sample(new Map()), set: sample(new Set()),
    promise: sample(Promise.resolve()), proxy: sample(new Proxy({}, {})), error: sample(new Error()),
    dom: sample(new DOMException("")), array: sample([]), buffer: sample(new ArrayBuffer(0)),
    view: sample(new DataView(new ArrayBuffer(0))), weakmap: sample(new WeakMap()), weakset: sample(new WeakSet()),
    number: sample(Object(1)), string: sample(Object("")), boolean: sample(Object(true)),
    symbol: sample(Object(Symbol())), bigint: sample(Object(1n)), generator: sample((function* () {})()),
  };

  // ---- printing ----

  const ident = /^[A-Za-z_$][\w$]*$/;
  const quote = (s) => {
    const q = !s.includes("'") ? "'" : !s.includes('"') ? '"' : !s.includes("`") ? "`" : "'";
    let out = "";
    for (const c of s) {
      const n = c.charCodeAt(0);
      if (c === "\n") out += "\\n";
      else if (c === "\t") out += "\\t";
      else if (c === "\r") out += "\\r";
      else if (c === "\\") out += "\\\\";
      else if (c === q) out += "\\" + q;
      else if (n < 32 || n === 127) out += "\\x" + n.toString(16).padStart(2, "0").toUpperCase();
      else out += c;
    }
    return q + out + q;
  };
  const symbolKey = (k) => (typeof k === "symbol" ? `[${String(k)}]` : ident.test(k) ? k : quote(k));
  const className = (v) => {
    for (let p = v, n = 0; p && n < 20; p = getPrototypeOf(p), n++) {
      const d = describe(p, "constructor");
      if (d && typeof d.value === "function" && d.value.name) return d.value.name;
    }
    return null;
  };
  const errorText = (e) => {
    let name = "Error", message = "", stack = "";
    try { name = String(e.name); message = String(e.message); stack = typeof e.stack === "string" ? e.stack : ""; } catch {}
    const head = message ? `${name}: ${message}` : name;
    return stack ? `${head}\n${stack.replace(/\n+$/, "")}` : head;
  };
  const primitive = (v, top) => {
    switch (typeof v) {
      case "string": return top ? v : quote(v);
      case "bigint": return `${v}n`;
      case "symbol": return String(v);
      case "number": return Object.is(v, -0) ? "-0" : String(v);
      default: return String(v);
    }
  };
  const join = (items, open, close, prefix) => {
    const head = prefix ? prefix + " " : "";
    if (!items.length) return `${head}${open}${close}`;
    const flat = items.join(", ");
    if (flat.length <= 72 && !flat.includes("\n")) return `${head}${open} ${flat} ${close}`;
    return `${head}${open}\n  ${items.map((i) => i.replace(/\n/g, "\n  ")).join(",\n  ")}\n${close}`;
  };
  const show = (v, depth, seen, top) => {
    if (v === null || (typeof v !== "object" && typeof v !== "function")) return primitive(v, top);
    if (seen.includes(v)) return "[Circular *1]";
    const kind = kindOf(v);
    if (kind === kinds.proxy) return "[Proxy]";
    const next = (x) => show(x, depth - 1, [...seen, v], false);
    const name = className(v);
    const props = (skip) => {
      const out = [];
      for (const k of ownKeys(v)) {
        if (skip && skip(k)) continue;
        const d = describe(v, k);
        if (!d || !d.enumerable) continue;
        const text = d.get ? (d.set ? "[Getter/Setter]" : "[Getter]") : d.set ? "[Setter]" : next(d.value);
        out.push(`${symbolKey(k)}: ${text}`);
        if (out.length > 100) { out.push("…"); break; }
      }
      return out;
    };
    const limited = (list, n) => (n > 100 ? [...list, `... ${n - 100} more item${n === 101 ? "" : "s"}`] : list);
    if (typeof v === "function") {
      const isClass = /^class\b/.test(Function.prototype.toString.call(v));
      const label = isClass ? `[class ${v.name || "(anonymous)"}]` : `[${name ?? "Function"}${v.name ? ": " + v.name : " (anonymous)"}]`;
      const p = props();
      return p.length ? join(p, "{", "}", label) : label;
    }
    if (kind === kinds.error || kind === kinds.dom) {
      const p = depth < 0 ? [] : props((k) => k === "stack" || k === "message");
      const cause = describe(v, "cause");
      if (cause && !cause.enumerable) p.unshift(`[cause]: ${next(cause.value)}`);
      return p.length ? `${errorText(v)} ${join(p, "{", "}")}` : errorText(v);
    }
    if (kind === kinds.date) { const t = Date.prototype.getTime.call(v); return t === t ? new Date(t).toISOString() : "Invalid Date"; }
    if (kind === kinds.regexp) return String(v);
    if (kind === kinds.number || kind === kinds.string || kind === kinds.boolean || kind === kinds.symbol || kind === kinds.bigint)
      return `[${name}: ${primitive(v.valueOf(), false)}]`;
    if (depth < 0) return kind === kinds.array ? "[Array]" : `[${name ?? "Object: null prototype"}]`;
    if (kind === kinds.array) {
      const items = [];
      let holes = 0;
      const flush = () => { if (holes) items.push(`<${holes} empty item${holes > 1 ? "s" : ""}>`); holes = 0; };
      for (let i = 0; i < v.length && items.length < 100; i++) {
        if (!describe(v, i)) { holes++; if (holes > 1e5) break; continue; }
        flush();
        items.push(next(v[i]));
      }
      flush();
      const extra = ownKeys(v).length > v.length + 1 ? props((k) => typeof k === "string" && /^(\d+|length)$/.test(k)) : [];
      return join([...limited(items, v.length), ...extra], "[", "]", name === "Array" ? "" : `${name}(${v.length})`);
    }
    if (kind === kinds.map) {
      const items = [];
      Map.prototype.forEach.call(v, (x, k) => items.length <= 100 && items.push(`${next(k)} => ${next(x)}`));
      return join(items, "{", "}", `${name}(${items.length})`);
    }
    if (kind === kinds.set) {
      const items = [];
      Set.prototype.forEach.call(v, (x) => items.length <= 100 && items.push(next(x)));
      return join(items, "{", "}", `${name}(${items.length})`);
    }
    if (kind === kinds.promise) {
      const [state, value] = native.promise(v);
      return `Promise { ${state === 0 ? "<pending>" : state === 2 ? "<rejected> " + next(value) : next(value)} }`;
    }
    if (kind === kinds.buffer) {
      const b = new Uint8Array(v);
      const hex = Array.from(b.subarray(0, 50), (x) => x.toString(16).padStart(2, "0")).join(" ");
      return `ArrayBuffer { [Uint8Contents]: <${hex}${b.length > 50 ? ` ... ${b.length - 50} more bytes` : ""}>, byteLength: ${b.length} }`;
    }
    if (ArrayBuffer.isView(v) && kind !== kinds.view)
      return join(limited(Array.from(v.subarray(0, 100), (x) => primitive(x, false)), v.length), "[", "]", `${name}(${v.length})`);
    if (kind === kinds.weakmap || kind === kinds.weakset) return `${name} { <items unknown> }`;
    if (kind === kinds.generator) return "Object [Generator] {}";
    const tag = typeof v[Symbol.toStringTag] === "string" && v[Symbol.toStringTag] !== name ? ` [${v[Symbol.toStringTag]}]` : "";
    const label = name === "Object" && !tag ? "" : (name ?? "[Object: null prototype]") + tag;
    return join(props(), "{", "}", label);
  };
  const inspect = (v, top) => {
    try { return show(v, 2, [], top); } catch { return "[a value that cannot be shown]"; }
  };
  const format = (args) => {
    let out = "", i = 0;
    if (typeof args[0] === "string" && args.length > 1 && args[0].includes("%")) {
      i = 1;
      out = args[0].replace(/%[sdifjoOc%]/g, (f) => {
        if (f === "%%") return "%";
        if (i >= args.length) return f;
        const a = args[i++];
        switch (f) {
          case "%s": return typeof a === "string" ? a : typeof a === "object" && a !== null ? inspect(a, false) : primitive(a, true);
          case "%d": return typeof a === "bigint" ? `${a}n` : typeof a === "object" ? "NaN" : String(Number(a));
          case "%i": return typeof a === "bigint" ? `${a}n` : String(parseInt(a, 10));
          case "%f": return String(parseFloat(a));
          case "%j": try { return JSON.stringify(a); } catch { return "[Circular]"; }
          case "%c": return "";
          default: return inspect(a, false);
        }
      });
      if (i < args.length) out += " ";
    }
    return out + args.slice(i).map((a) => inspect(a, true)).join(" ");
  };

  let indent = "";
  const counts = new Map(), starts = new Map();
  const log = (level, args) => {
    const text = format(args);
    native.log(level, indent ? text.replace(/^/gm, indent) : text);
  };
  const LEVEL = { debug: 0, info: 1, warn: 2, error: 3 };
  const table = (data, columns) => {
    if (data === null || typeof data !== "object") return log(LEVEL.info, [data]);
    const rows = data instanceof Map ? [...data] : Object.entries(data);
    const names = [];
    let plain = false;
    for (const [, r] of rows) {
      if (r !== null && typeof r === "object") { for (const k of Object.keys(r)) if (!names.includes(k)) names.push(k); } else plain = true;
    }
    const used = columns ?? names;
    const head = ["(index)", ...used, ...(plain ? ["Values"] : [])];
    const cells = rows.map(([k, r]) => {
      const object = r !== null && typeof r === "object";
      return [String(k), ...used.map((c) => (object && c in r ? inspect(r[c], false) : "")), ...(plain ? [object ? "" : inspect(r, false)] : [])];
    });
    const width = head.map((h, i) => Math.max(h.length, ...cells.map((c) => c[i].length)) + 2);
    const line = (l, m, r) => l + width.map((w) => "─".repeat(w)).join(m) + r;
    const row = (c) => "│" + c.map((x, i) => " " + x.padEnd(width[i] - 1)).join("│") + "│";
    native.log(LEVEL.info, [line("┌", "┬", "┐"), row(head), line("├", "┼", "┤"), ...cells.map(row), line("└", "┴", "┘")].join("\n"));
  };
  const console = {
    log: (...a) => log(LEVEL.info, a), info: (...a) => log(LEVEL.info, a), debug: (...a) => log(LEVEL.debug, a),
    warn: (...a) => log(LEVEL.warn, a), error: (...a) => log(LEVEL.error, a),
    trace: (...a) => log(LEVEL.error, ["Trace:", ...a, "\n" + new Error().stack.replace(/\n+$/, "")]),
    dir: (v) => log(LEVEL.info, [inspect(v, false)]), dirxml: (...a) => log(LEVEL.info, a), table,
    assert: (ok, ...a) => { if (!ok) log(LEVEL.error, a.length ? ["Assertion failed:", ...a] : ["Assertion failed"]); },
    group: (...a) => { if (a.length) log(LEVEL.info, a); indent += "  "; },
    groupCollapsed: (...a) => console.group(...a),
    groupEnd: () => { indent = indent.slice(2); },
    count: (label = "default") => { const n = (counts.get(label) ?? 0) + 1; counts.set(label, n); log(LEVEL.info, [`${label}: ${n}`]); },
    countReset: (label = "default") => { counts.delete(label); },
    time: (label = "default") => { starts.set(label, Date.now()); },
    timeLog: (label = "default", ...a) => log(LEVEL.info, [`${label}: ${Date.now() - (starts.get(label) ?? Date.now())}ms`, ...a]),
    timeEnd: (label = "default") => { console.timeLog(label); starts.delete(label); },
    clear: () => {},
  };
  define("console", console);

  // ---- timers: the host keeps the time ----

  const delay = (ms) => { const n = Number(ms); return n > 0 && n < 2 ** 31 ? Math.max(1, Math.trunc(n)) : 1; };
  const intervals = new Map();
  let nextInterval = 2 ** 31;
  const callable = (fn) => { if (typeof fn !== "function") throw new TypeError("The \"callback\" argument must be of type function"); };
  define("setTimeout", function setTimeout(fn, ms, ...args) {
    callable(fn);
    return native.timer(() => apply(fn, undefined, args), delay(ms));
  });
  define("setInterval", function setInterval(fn, ms, ...args) {
    callable(fn);
    const id = nextInterval++;
    const arm = () => intervals.set(id, native.timer(() => {
      arm();
      apply(fn, undefined, args);
    }, delay(ms)));
    arm();
    return id;
  });
  const clear = (id) => {
    if (intervals.has(id)) { native.cancel(intervals.get(id)); intervals.delete(id); } else if (id !== undefined && id !== null) native.cancel(Number(id));
  };
  define("clearTimeout", function clearTimeout(id) { clear(id); });
  define("clearInterval", function clearInterval(id) { clear(id); });
  define("setImmediate", function setImmediate(fn, ...args) { callable(fn); return native.timer(() => apply(fn, undefined, args), 0); });
  define("clearImmediate", function clearImmediate(id) { clear(id); });

  // ---- values and bytes ----

  define("structuredClone", function structuredClone(value) {
    if (arguments.length === 0) throw new TypeError("structuredClone needs a value");
    return native.clone(value);
  });
  class TextEncoder {
    get encoding() { return "utf-8"; }
    encode(input = "") { return native.utf8(String(input).toWellFormed()); }
    encodeInto(source, target) {
      let read = 0, written = 0;
      for (const c of String(source)) {
        const b = native.utf8(c.toWellFormed());
        if (written + b.length > target.length) break;
        target.set(b, written);
        written += b.length;
        read += c.length;
      }
      return { read, written };
    }
  }
  class TextDecoder {
    #fatal; #bom; #rest = new Uint8Array(0); #begun = false;
    constructor(label = "utf-8", options = {}) {
      if (!/^\s*(utf-?8|unicode-1-1-utf-8|unicode11utf8|unicode20utf8|x-unicode20utf8)\s*$/i.test(label))
        throw new RangeError(`The "${label}" encoding is not supported`);
      this.#fatal = !!options.fatal;
      this.#bom = !!options.ignoreBOM;
    }
    get encoding() { return "utf-8"; }
    get fatal() { return this.#fatal; }
    get ignoreBOM() { return this.#bom; }
    decode(input, options = {}) {
      let bytes = input === undefined ? new Uint8Array(0)
        : ArrayBuffer.isView(input) ? new Uint8Array(input.buffer, input.byteOffset, input.byteLength)
        : kindOf(input) === kinds.buffer ? new Uint8Array(input) : null;
      if (!bytes) throw new TypeError("The \"input\" argument must be an ArrayBuffer or a view");
      if (this.#rest.length) {
        const all = new Uint8Array(this.#rest.length + bytes.length);
        all.set(this.#rest);
        all.set(bytes, this.#rest.length);
        bytes = all;
        this.#rest = new Uint8Array(0);
      }
      if (options.stream) {
        // What may be the beginning of a character waits for the rest of it.
        for (let back = 1; back <= Math.min(3, bytes.length); back++) {
          const b = bytes[bytes.length - back];
          const need = b >= 0xf0 ? 4 : b >= 0xe0 ? 3 : b >= 0xc0 ? 2 : 0;
          if (need) {
            if (need > back) { this.#rest = bytes.slice(bytes.length - back); bytes = bytes.subarray(0, bytes.length - back); }
            break;
          }
          if (b < 0x80) break;
        }
      }
      let text = native.decode(bytes, this.#fatal);
      if (!this.#begun && !this.#bom && text.charCodeAt(0) === 0xfeff) text = text.slice(1);
      if (bytes.length) this.#begun = true;
      if (!options.stream) this.#begun = false;
      return text;
    }
  }
  define("TextEncoder", TextEncoder);
  define("TextDecoder", TextDecoder);

  // ---- crypto: random numbers come from the run's seed ----

  const hex = (b) => Array.from(b, (x) => x.toString(16).padStart(2, "0")).join("");
  const hashes = { "SHA-1": 1, "SHA-256": 256, "SHA-384": 384, "SHA-512": 512 };
  const view = (data) => {
    if (!ArrayBuffer.isView(data) && kindOf(data) !== kinds.buffer) throw new TypeError("The data must be an ArrayBuffer or a view");
    return data;
  };
  define("crypto", {
    getRandomValues(array) {
      const ok = ArrayBuffer.isView(array) && kindOf(array) !== kinds.view && !(array instanceof Float32Array) && !(array instanceof Float64Array);
      if (!ok) throw new DOMException("The data argument must be an integer-type TypedArray", "TypeMismatchError");
      if (array.byteLength > 65536) throw new DOMException(`The requested length exceeds 65,536 bytes`, "QuotaExceededError");
      native.random(array);
      return array;
    },
    randomUUID() {
      const b = new Uint8Array(16);
      native.random(b);
      b[6] = (b[6] & 15) | 64;
      b[8] = (b[8] & 63) | 128;
      const h = hex(b);
      return `${h.slice(0, 8)}-${h.slice(8, 12)}-${h.slice(12, 16)}-${h.slice(16, 20)}-${h.slice(20)}`;
    },
    subtle: {
      async digest(algorithm, data) {
        const name = String(algorithm?.name ?? algorithm).toUpperCase();
        if (!Object.hasOwn(hashes, name)) throw new DOMException("Unrecognized algorithm name", "NotSupportedError");
        return native.digest(hashes[name], view(data));
      },
    },
  });

  // ---- events ----

  class Event {
    #type; #options; #prevented = false; _stop = false; target = null; currentTarget = null;
    constructor(type, options = {}) { this.#type = String(type); this.#options = options ?? {}; Object.defineProperty(this, "_stop", { enumerable: false }); }
    get type() { return this.#type; }
    get bubbles() { return !!this.#options.bubbles; }
    get cancelable() { return !!this.#options.cancelable; }
    get defaultPrevented() { return this.#prevented; }
    preventDefault() { if (this.cancelable) this.#prevented = true; }
    stopPropagation() {}
    stopImmediatePropagation() { this._stop = true; }
  }
  class CustomEvent extends Event {
    #detail;
    constructor(type, options = {}) { super(type, options); this.#detail = options?.detail ?? null; }
    get detail() { return this.#detail; }
  }
  class EventTarget {
    #listeners = new Map();
    addEventListener(type, fn, options) {
      if (fn === null || fn === undefined) return;
      const list = this.#listeners.get(type) ?? [];
      if (list.some((l) => l.fn === fn)) return;
      const once = typeof options === "object" && !!options?.once;
      this.#listeners.set(type, [...list, { fn, once }]);
      const signal = typeof options === "object" ? options?.signal : undefined;
      signal?.addEventListener("abort", () => this.removeEventListener(type, fn));
    }
    removeEventListener(type, fn) { this.#listeners.set(type, (this.#listeners.get(type) ?? []).filter((l) => l.fn !== fn)); }
    dispatchEvent(event) {
      event.target = event.currentTarget = this;
      const on = this["on" + event.type];
      if (typeof on === "function") apply(on, this, [event]);
      for (const l of this.#listeners.get(event.type) ?? []) {
        if (l.once) this.removeEventListener(event.type, l.fn);
        try { typeof l.fn === "function" ? apply(l.fn, this, [event]) : l.fn.handleEvent(event); } catch (e) { report(e); }
        if (event._stop) break;
      }
      return !event.defaultPrevented;
    }
  }
  let makeSignal, abort;
  class AbortSignal extends EventTarget {
    #aborted = false; #reason = undefined;
    constructor(key) { super(); if (key !== makeSignal) throw new TypeError("Illegal constructor"); Object.defineProperty(this, "onabort", { value: null, writable: true, enumerable: false }); }
    static {
      abort = (signal, reason) => {
        if (signal.#aborted) return;
        signal.#aborted = true;
        signal.#reason = reason === undefined ? new DOMException("This operation was aborted", "AbortError") : reason;
        signal.dispatchEvent(new Event("abort"));
      };
    }
    get aborted() { return this.#aborted; }
    get reason() { return this.#reason; }
    throwIfAborted() { if (this.#aborted) throw this.#reason; }
    static abort(reason) { const s = new AbortSignal(makeSignal); abort(s, reason); return s; }
    static timeout(ms) {
      const s = new AbortSignal(makeSignal);
      G.setTimeout(() => abort(s, new DOMException("The operation was aborted due to timeout", "TimeoutError")), ms);
      return s;
    }
    static any(signals) {
      const s = new AbortSignal(makeSignal);
      for (const one of signals) {
        if (one.aborted) { abort(s, one.reason); break; }
        one.addEventListener("abort", () => abort(s, one.reason), { once: true });
      }
      return s;
    }
  }
  makeSignal = Symbol("signal");
  class AbortController {
    #signal = new AbortSignal(makeSignal);
    get signal() { return this.#signal; }
    abort(reason) { abort(this.#signal, reason); }
  }
  for (const [name, value] of Object.entries({ Event, CustomEvent, EventTarget, AbortSignal, AbortController })) define(name, value);

  //@URL@

  define("global", G);
  for (const name of ["SharedArrayBuffer", "Atomics", "navigator", "gc"]) delete G[name];

  const report = (reason) => native.log(LEVEL.error, "Uncaught (in promise) " + inspect(reason, true));
  return {
    report,
    async run(namespace, name, input) {
      const ns = await namespace;
      const value = name in ns ? ns[name] : undefined;
      return typeof value === "function" ? await value(input) : await value;
    },
  };
})
