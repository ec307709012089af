// workerd with dynamic workers: a new one for each request over loopback; `noop` is the request alone.
// `workerd.mjs RUNS`
import { spawn } from "node:child_process";
import { once as event } from "node:events";
import { Agent, request } from "node:http";
import { createInterface } from "node:readline";
import { row } from "./row.mjs";
import workerd from "workerd";

const runs = Number(process.argv[2]);
const server = spawn(workerd.default ?? workerd, ["serve", "workerd.capnp", "--experimental", "--control-fd=3"], {
  stdio: ["ignore", "inherit", "inherit", "pipe"],
});
process.on("exit", () => server.kill());
server.on("exit", (code) => { if (code) process.exit(1); });
const [line] = await event(createInterface(server.stdio[3]), "line");
const { port } = JSON.parse(line);
const agent = new Agent({ keepAlive: true, maxSockets: 16 });

function get(path, expected) {
  const begin = performance.now();
  return new Promise((resolve, reject) => {
    request({ port, path, host: "127.0.0.1", agent }, (answer) => {
      let text = "";
      answer.on("data", (part) => (text += part));
      answer.on("end", () => (text === expected ? resolve(performance.now() - begin) : reject(new Error(text))));
    }).on("error", reject).end();
  });
}

for (const [what, path, text] of [["a request alone", "/noop", "noop"], ["1 + 1", "/trivial", "2"], ["three calls", "/calls", "3"]]) {
  for (let n = 0; n < 10; n++) await get(path, text);
  for (const many of [1, 16]) await row(`${what}, ${many} at a time`, runs, many, () => get(path, text));
}
server.kill();
process.exit(0);
