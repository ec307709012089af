// The worker that loads another one for each request: `/noop`, `/trivial`, `/calls`.
import { WorkerEntrypoint } from "cloudflare:workers";

const TRIVIAL = "export default { fetch() { return new Response(String(1 + 1)) } }";
const CALLS = `export default { async fetch(_, env) { const a = await env.HOST.one(1), b = await env.HOST.two(a),
  c = await env.HOST.three(b); return new Response(String(a + b + c)) } }`;

export class Host extends WorkerEntrypoint {
  one() { return 1; }
  two() { return 1; }
  three() { return 1; }
}

let next = 0;
export default {
  async fetch(request, env, context) {
    const path = new URL(request.url).pathname;
    if (path === "/noop") return new Response("noop");
    const calls = path === "/calls";
    const worker = env.LOADER.get(`fresh-${next++}`, () => ({
      compatibilityDate: "2026-01-01",
      mainModule: "main.js",
      modules: { "main.js": calls ? CALLS : TRIVIAL },
      env: calls ? { HOST: context.exports.Host({ props: {} }) } : {},
      globalOutbound: null,
    }));
    return worker.getEntrypoint().fetch(new Request("http://x/"));
  },
};
