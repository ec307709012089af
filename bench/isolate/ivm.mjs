// isolated-vm: V8 isolates inside node. `ivm.mjs RUNS`
import { row } from "./row.mjs";
import ivm from "isolated-vm";

const runs = Number(process.argv[2]);
const calls = `(async () => { const call = (n, v) => host.apply(undefined, [n, v], { result: { promise: true } });
  const a = await call("one", 1), b = await call("two", a), c = await call("three", b); return a + b + c })()`;

async function once(code, host) {
  const begin = performance.now();
  const isolate = new ivm.Isolate({ memoryLimit: 64 });
  const context = await isolate.createContext();
  if (host) await context.global.set("host", new ivm.Reference(async () => 1));
  const result = await context.eval(code, { promise: true, copy: true });
  const took = performance.now() - begin;
  isolate.dispose();
  if (result === undefined) throw new Error("no result");
  return took;
}

for (const [what, code, host] of [["1 + 1", "1 + 1", false], ["three calls", calls, true]]) {
  for (let n = 0; n < 10; n++) await once(code, host);
  for (const threads of [1, 16]) await row(`${what}, ${threads} at a time`, runs, threads, () => once(code, host));
}
