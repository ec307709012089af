if (globalThis.web !== undefined) (() => {
  const { web } = globalThis;
  class Headers {
    #map = new Map();
    constructor(init) {
      const pairs = init == null ? [] : typeof init[Symbol.iterator] === "function" ? init : Object.entries(init);
      for (const [name, value] of pairs) this.append(name, value);
    }
    append(name, value) {
      const key = String(name).toLowerCase(), had = this.#map.get(key);
      this.#map.set(key, had === undefined ? String(value) : had + ", " + value);
    }
    set(name, value) { this.#map.set(String(name).toLowerCase(), String(value)); }
    get(name) { return this.#map.get(String(name).toLowerCase()) ?? null; }
    has(name) { return this.#map.has(String(name).toLowerCase()); }
    delete(name) { this.#map.delete(String(name).toLowerCase()); }
    forEach(call, self) { for (const [name, value] of this) call.call(self, value, name, this); }
    *entries() { yield* [...this.#map].sort(([a], [b]) => (a < b ? -1 : 1)); }
    *keys() { for (const [name] of this) yield name; }
    *values() { for (const [, value] of this) yield value; }
    [Symbol.iterator]() { return this.entries(); }
  }
  class Response {
    #body;
    #used = false;
    constructor(body, { status = 200, headers, url = "", redirected = false } = {}) {
      this.#body = body == null ? new Uint8Array(0) : typeof body === "string" ? new TextEncoder().encode(body) : body;
      this.status = status;
      this.ok = status >= 200 && status < 300;
      this.statusText = "";
      this.url = url;
      this.redirected = redirected;
      this.type = "basic";
      this.headers = headers instanceof Headers ? headers : new Headers(headers);
    }
    get bodyUsed() { return this.#used; }
    #take() {
      if (this.#used) throw new TypeError("the body was read already");
      this.#used = true;
      return this.#body;
    }
    async bytes() { return this.#take(); }
    async arrayBuffer() {
      const body = this.#take();
      return body instanceof ArrayBuffer ? body : body.buffer.slice(body.byteOffset, body.byteOffset + body.byteLength);
    }
    async text() { return new TextDecoder().decode(this.#take()); }
    async json() { return JSON.parse(await this.text()); }
    clone() {
      if (this.#used) throw new TypeError("the body was read already");
      return new Response(this.#body, this);
    }
  }
  const fetch = async (input, init = {}) => {
    const from = input !== null && typeof input === "object" && !(input instanceof URL) ? input : {};
    const url = String(from.url ?? input), method = String(init.method ?? from.method ?? "GET").toUpperCase();
    const headers = new Headers(init.headers ?? from.headers);
    const signal = init.signal ?? from.signal;
    let body = init.body ?? from.body;
    signal?.throwIfAborted();
    if ((init.redirect ?? from.redirect ?? "follow") !== "follow")
      throw new TypeError("fetch: redirects are always followed, as far as they may be");
    if (body instanceof URLSearchParams) {
      if (!headers.has("content-type")) headers.set("content-type", "application/x-www-form-urlencoded;charset=UTF-8");
      body = String(body);
    } else if (typeof body === "string") {
      if (!headers.has("content-type")) headers.set("content-type", "text/plain;charset=UTF-8");
    } else if (body != null && !(body instanceof ArrayBuffer) && !ArrayBuffer.isView(body))
      throw new TypeError("fetch: the body must be text, URLSearchParams or binary data");
    const request = { url, method, headers: [...headers] };
    if (body != null) request.body = body;
    const reads = method === "GET" || method === "HEAD";
    let answer = reads ? web.get(request) : web.send(request);
    if (signal) {
      const aborted = new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
      answer = Promise.race([answer, aborted]);
    }
    const { status, headers: received, url: last, body: bytes } = await answer;
    return new Response(bytes, { status, headers: received, url: last, redirected: last !== url });
  };
  for (const [name, value] of Object.entries({ Headers, Response, fetch }))
    Object.defineProperty(globalThis, name, { value, writable: true, configurable: true });
})();
