  // ---- URL, after the WHATWG standard; host names are ASCII ----

  const special = { "http:": "80", "https:": "443", "ws:": "80", "wss:": "443", "ftp:": "21", "file:": "" };
  const setOf = (s) => new Set([...s].map((c) => c.charCodeAt(0)));
  const C0 = new Set();
  const FRAGMENT = setOf(" \"<>`"), QUERY = setOf(" \"#<>"), SPECIAL_QUERY = setOf(" \"#<>'"), PATH = setOf(" \"#<>?`{}^");
  const USER = setOf(" \"#<>?`{}/:;=@[\\]^|");
  const escape = (text, set) => {
    let out = "";
    for (const b of native.utf8(String(text).toWellFormed()))
      out += b <= 31 || b > 126 || set.has(b) ? "%" + b.toString(16).toUpperCase().padStart(2, "0") : String.fromCharCode(b);
    return out;
  };
  const unescapeBytes = (text) => {
    const b = native.utf8(text), out = [];
    for (let i = 0; i < b.length; i++) {
      const h = b[i] === 37 ? String.fromCharCode(b[i + 1], b[i + 2]) : "";
      if (/^[0-9a-fA-F]{2}$/.test(h)) { out.push(parseInt(h, 16)); i += 2; } else out.push(b[i]);
    }
    return new Uint8Array(out);
  };
  const bad = (input) => { const e = new TypeError("Invalid URL"); e.code = "ERR_INVALID_URL"; e.input = input; return e; };
  const ipv4 = (host) => {
    const parts = host.split(".");
    if (parts.at(-1) === "" && parts.length > 1) parts.pop();
    const last = parts.at(-1);
    if (!/^(\d+|0[xX][0-9a-fA-F]*)$/.test(last)) return null;
    if (parts.length > 4) return false;
    const nums = parts.map((p) => (/^0[xX][0-9a-fA-F]*$/.test(p) ? parseInt(p.slice(2) || "0", 16) : /^0[0-7]+$/.test(p) ? parseInt(p, 8) : /^\d+$/.test(p) && !/^0\d*[89]/.test(p) ? Number(p) : NaN));
    if (nums.some((n) => n !== n) || nums.slice(0, -1).some((n) => n > 255)) return false;
    let value = nums.at(-1);
    if (value >= 256 ** (5 - nums.length)) return false;
    nums.slice(0, -1).forEach((n, i) => { value += n * 256 ** (3 - i); });
    return [24, 16, 8, 0].map((s) => Math.floor(value / 2 ** s) % 256).join(".");
  };
  const ipv6 = (text) => {
    let tail = [];
    const v4 = /^(.*:)(\d+)\.(\d+)\.(\d+)\.(\d+)$/.exec(text);
    if (v4) {
      const n = v4.slice(2).map(Number);
      if (n.some((x) => x > 255)) return false;
      text = v4[1] + ((n[0] << 8) | n[1]).toString(16) + ":" + ((n[2] << 8) | n[3]).toString(16);
    }
    const halves = text.split("::");
    if (halves.length > 2) return false;
    const parse = (s) => (s === "" ? [] : s.split(":"));
    const head = parse(halves[0]);
    tail = halves.length === 2 ? parse(halves[1]) : [];
    if ([...head, ...tail].some((p) => !/^[0-9a-fA-F]{1,4}$/.test(p))) return false;
    const gap = 8 - head.length - tail.length;
    if (halves.length === 2 ? gap < 1 : gap !== 0) return false;
    const p = [...head, ...Array(gap).fill("0"), ...tail].map((x) => parseInt(x, 16));
    let best = -1, size = 1;
    for (let i = 0; i < 8; i++) {
      let n = 0;
      while (p[i + n] === 0) n++;
      if (n > size) { best = i; size = n; }
    }
    const h = p.map((x) => x.toString(16));
    return best < 0 ? `[${h.join(":")}]` : `[${h.slice(0, best).join(":")}::${h.slice(best + size).join(":")}]`;
  };
  const parseHost = (text, isSpecial) => {
    if (text.startsWith("[")) return text.endsWith("]") ? ipv6(text.slice(1, -1)) : false;
    if (!isSpecial) return /[\0\t\n\r #/<>?@[\\\]^|]/.test(text) ? false : escape(text, C0);
    const host = native.decode(unescapeBytes(text), false).toLowerCase();
    if (host === "" || /[\0-\x20"#%/:<>?@[\\\]^`{|}\x7f]/.test(host) || /[^\0-\x7f]/.test(host)) return false;
    const v4 = ipv4(host);
    return v4 === null ? host : v4;
  };
  const segments = (path, base, u) => {
    const out = base ? [...base] : [];
    const parts = path.split(u.special ? /[\/\\]/ : "/");
    parts.forEach((part, i) => {
      const dot = part.replace(/%2e/gi, ".");
      const last = i === parts.length - 1;
      if (dot === "..") { if (!(u.protocol === "file:" && out.length === 1 && /^[A-Za-z]:$/.test(out[0]))) out.pop(); if (last) out.push(""); }
      else if (dot === ".") { if (last) out.push(""); }
      else if (u.protocol === "file:" && !out.length && /^[A-Za-z][:|]$/.test(part)) out.push(part[0] + ":");
      else out.push(escape(part, PATH));
    });
    return out;
  };
  const authority = (u, text, input) => {
    const at = text.lastIndexOf("@");
    let rest = text;
    if (at >= 0) {
      const [name, ...pass] = text.slice(0, at).split(":");
      u.username = escape(name, USER);
      u.password = escape(pass.join(":"), USER);
      rest = text.slice(at + 1);
      if (!rest) throw bad(input);
    }
    const m = /^(\[[^\]]*\]|[^:]*)(?::(.*))?$/.exec(rest);
    if (!m || (m[2] && !/^\d*$/.test(m[2]))) throw bad(input);
    if (u.special && m[1] === "") throw bad(input);
    if (m[1] === "" && m[2] !== undefined) throw bad(input);
    const host = m[1] === "" ? "" : parseHost(m[1], u.special);
    if (host === false) throw bad(input);
    u.host = host;
    if (m[2]) {
      const port = Number(m[2]);
      if (port > 65535) throw bad(input);
      u.port = String(port) === special[u.protocol] ? "" : String(port);
    }
  };
  const cut = (text, u) => {
    const hash = text.indexOf("#");
    if (hash >= 0) { u.hash = escape(text.slice(hash + 1), FRAGMENT); text = text.slice(0, hash); }
    const query = text.indexOf("?");
    if (query >= 0) { u.query = escape(text.slice(query + 1), u.special ? SPECIAL_QUERY : QUERY); text = text.slice(0, query); }
    return text;
  };
  const parseUrl = (input, base) => {
    const text = input.replace(/^[\0-\x20]+|[\0-\x20]+$/g, "").replace(/[\t\n\r]/g, "");
    const u = { protocol: "", username: "", password: "", host: null, port: "", path: [], opaque: null, query: null, hash: null, special: false };
    const m = /^([A-Za-z][A-Za-z0-9+.\-]*):(.*)$/s.exec(text);
    let rest = text;
    if (m && !(base && special[m[1].toLowerCase() + ":"] !== undefined && m[1].toLowerCase() + ":" === base.protocol && !/^[\/\\]/.test(m[2]))) {
      u.protocol = m[1].toLowerCase() + ":";
      u.special = Object.hasOwn(special, u.protocol);
      rest = cut(m[2], u);
      if (u.protocol === "file:") {
        const f = /^[\/\\]{2}([^\/\\]*)(.*)$/s.exec(rest);
        let path = f ? f[2] : rest;
        u.host = "";
        if (f && f[1] && !/^[A-Za-z][:|]$/.test(f[1])) { const h = parseHost(f[1], true); if (h === false) throw bad(input); u.host = h === "localhost" ? "" : h; }
        else if (f && f[1]) path = "/" + f[1] + path;
        u.path = segments(path.replace(/^[\/\\]/, ""), null, u);
        return u;
      }
      if (u.special) {
        const body = rest.replace(/^[\/\\]*/, "");
        const end = body.search(/[\/\\]/);
        authority(u, end < 0 ? body : body.slice(0, end), input);
        u.path = segments(end < 0 ? "" : body.slice(end + 1), null, u);
        return u;
      }
      if (rest.startsWith("//")) {
        const end = rest.indexOf("/", 2);
        authority(u, end < 0 ? rest.slice(2) : rest.slice(2, end), input);
        u.path = end < 0 ? [] : segments(rest.slice(end + 1), null, u);
        return u;
      }
      if (rest.startsWith("/")) { u.path = segments(rest.slice(1), null, u); return u; }
      u.opaque = escape(rest, C0);
      return u;
    }
    if (m) rest = m[2];
    if (!base) throw bad(input);
    if (base.opaque !== null && !rest.startsWith("#")) throw bad(input);
    Object.assign(u, base, { path: [...base.path], hash: null });
    if (rest.startsWith("#")) { u.hash = escape(rest.slice(1), FRAGMENT); return u; }
    u.query = null;
    rest = cut(rest, u);
    const slash = u.special ? /^[\/\\]/ : /^\//;
    if ((u.special ? /^[\/\\]{2}/ : /^\/\//).test(rest)) {
      if (u.protocol === "file:") return parseUrl("file:" + rest + (u.query === null ? "" : "?" + u.query) + (u.hash === null ? "" : "#" + u.hash));
      Object.assign(u, { username: "", password: "", port: "" });
      const body = rest.slice(2);
      const end = body.search(u.special ? /[\/\\]/ : /\//);
      authority(u, end < 0 ? body : body.slice(0, end), input);
      u.path = segments(end < 0 ? "" : body.slice(end + 1), null, u);
    } else if (slash.test(rest)) u.path = segments(rest.slice(1), null, u);
    else if (rest === "") { if (u.query === null) u.query = base.query; }
    else u.path = segments(rest, base.path.slice(0, -1), u);
    return u;
  };
  const pathOf = (u) => (u.opaque !== null ? u.opaque : u.path.length || u.special ? "/" + u.path.join("/") : "");
  const hostOf = (u) => (u.host === null ? "" : u.host + (u.port === "" ? "" : ":" + u.port));
  const hrefOf = (u) => u.protocol
    + (u.host !== null ? "//" + (u.username || u.password ? u.username + (u.password ? ":" + u.password : "") + "@" : "") + hostOf(u) : u.opaque === null && u.path.length > 1 && u.path[0] === "" ? "/." : "")
    + pathOf(u) + (u.query === null ? "" : "?" + u.query) + (u.hash === null ? "" : "#" + u.hash);
  const formByte = (text) => {
    let out = "";
    for (const b of native.utf8(String(text).toWellFormed())) {
      const c = String.fromCharCode(b);
      out += b === 32 ? "+" : /[A-Za-z0-9*\-._]/.test(c) ? c : "%" + b.toString(16).toUpperCase().padStart(2, "0");
    }
    return out;
  };
  const parseForm = (text) => text.split("&").filter((p) => p).map((p) => {
    const at = p.indexOf("=");
    const part = (s) => native.decode(unescapeBytes(s.replace(/\+/g, " ")), false);
    return at < 0 ? [part(p), ""] : [part(p.slice(0, at)), part(p.slice(at + 1))];
  });
  let attach, reload;
  class URLSearchParams {
    #list = []; #changed = null;
    static { attach = (p, f) => { p.#changed = f; }; reload = (p, query) => { p.#list = parseForm(query ?? ""); }; }
    constructor(init = "") {
      if (init !== null && typeof init === "object") {
        if (typeof init[Symbol.iterator] === "function") {
          for (const pair of init) {
            const p = [...pair];
            if (p.length !== 2) throw new TypeError("Each query pair must be an iterable [name, value] tuple");
            this.#list.push([String(p[0]), String(p[1])]);
          }
        } else for (const k of Object.keys(init)) this.#list.push([k, String(init[k])]);
      } else this.#list = parseForm(String(init).replace(/^\?/, ""));
    }
    #touch() { this.#changed?.(this.toString()); }
    get size() { return this.#list.length; }
    append(k, v) { this.#list.push([String(k), String(v)]); this.#touch(); }
    delete(k, v) { this.#list = this.#list.filter((p) => p[0] !== String(k) || (v !== undefined && p[1] !== String(v))); this.#touch(); }
    get(k) { return this.#list.find((p) => p[0] === String(k))?.[1] ?? null; }
    getAll(k) { return this.#list.filter((p) => p[0] === String(k)).map((p) => p[1]); }
    has(k, v) { return this.#list.some((p) => p[0] === String(k) && (v === undefined || p[1] === String(v))); }
    set(k, v) {
      const at = this.#list.findIndex((p) => p[0] === String(k));
      if (at < 0) this.#list.push([String(k), String(v)]);
      else { this.#list[at] = [String(k), String(v)]; this.#list = this.#list.filter((p, i) => i <= at || p[0] !== String(k)); }
      this.#touch();
    }
    sort() { this.#list.sort((a, b) => (a[0] < b[0] ? -1 : a[0] > b[0] ? 1 : 0)); this.#touch(); }
    forEach(fn, self) { for (const [k, v] of this.#list) apply(fn, self, [v, k, this]); }
    *entries() { for (const p of this.#list) yield [...p]; }
    *keys() { for (const p of this.#list) yield p[0]; }
    *values() { for (const p of this.#list) yield p[1]; }
    [Symbol.iterator]() { return this.entries(); }
    toString() { return this.#list.map(([k, v]) => formByte(k) + "=" + formByte(v)).join("&"); }
    get [Symbol.toStringTag]() { return "URLSearchParams"; }
  }
  class URL {
    #u; #params = null;
    constructor(input, base) {
      const b = base === undefined ? null : parseUrl(String(base));
      this.#u = parseUrl(String(input), b);
    }
    static canParse(input, base) { try { new URL(input, base); return true; } catch { return false; } }
    static parse(input, base) { try { return new URL(input, base); } catch { return null; } }
    #sync() { if (this.#params) reload(this.#params, this.#u.query); }
    get href() { return hrefOf(this.#u); }
    set href(v) { this.#u = parseUrl(String(v)); this.#sync(); }
    get origin() { const u = this.#u; return u.special && u.protocol !== "file:" ? u.protocol + "//" + hostOf(u) : "null"; }
    get protocol() { return this.#u.protocol; }
    set protocol(v) {
      const m = /^([A-Za-z][A-Za-z0-9+.\-]*)/.exec(String(v));
      const p = m && m[1].toLowerCase() + ":";
      if (p && Object.hasOwn(special, p) === this.#u.special) { this.#u.protocol = p; if (this.#u.port === special[p]) this.#u.port = ""; }
    }
    get username() { return this.#u.username; }
    set username(v) { if (this.#u.host) this.#u.username = escape(v, USER); }
    get password() { return this.#u.password; }
    set password(v) { if (this.#u.host) this.#u.password = escape(v, USER); }
    get host() { return hostOf(this.#u); }
    set host(v) { if (this.#u.opaque === null) { const u = { ...this.#u, username: "", password: "", port: "" }; try { authority(u, String(v).replace(/[\/\\?#].*$/s, ""), v); if (!/:\d/.test(String(v).replace(/^\[[^\]]*\]/, ""))) u.port = this.#u.port; Object.assign(this.#u, { host: u.host, port: u.port }); } catch {} } }
    get hostname() { return this.#u.host ?? ""; }
    set hostname(v) { if (this.#u.opaque === null) { const h = parseHost(String(v).replace(/[:\/\\?#].*$/s, ""), this.#u.special); if (h !== false) this.#u.host = h; } }
    get port() { return this.#u.port; }
    set port(v) { const m = /^\d+/.exec(String(v)); if (String(v) === "") this.#u.port = ""; else if (m && Number(m[0]) < 65536 && this.#u.host) this.#u.port = String(Number(m[0])) === special[this.#u.protocol] ? "" : String(Number(m[0])); }
    get pathname() { return pathOf(this.#u); }
    set pathname(v) { if (this.#u.opaque === null) this.#u.path = segments(String(v).replace(/\?/g, "%3F").replace(/#/g, "%23").replace(this.#u.special ? /^[\/\\]/ : /^\//, ""), null, this.#u); }
    get search() { return this.#u.query ? "?" + this.#u.query : ""; }
    set search(v) { const s = String(v).replace(/^\?/, ""); this.#u.query = s === "" ? null : escape(s, this.#u.special ? SPECIAL_QUERY : QUERY); this.#sync(); }
    get hash() { return this.#u.hash ? "#" + this.#u.hash : ""; }
    set hash(v) { const s = String(v).replace(/^#/, ""); this.#u.hash = s === "" ? null : escape(s, FRAGMENT); }
    get searchParams() {
      if (!this.#params) {
        this.#params = new URLSearchParams(this.#u.query ?? "");
        attach(this.#params, (q) => { this.#u.query = q === "" ? null : q; });
      }
      return this.#params;
    }
    toString() { return this.href; }
    toJSON() { return this.href; }
    get [Symbol.toStringTag]() { return "URL"; }
  }
  define("URL", URL);
  define("URLSearchParams", URLSearchParams);
