// `bowline bench workspace` beside its peers, in the same run:
//
//     node bench/workspace.mjs [PATH OF bowline] [ROUNDS] [PATH OF rg]
//
// Bowline's own figures hold those of ripgrep on tmpfs, where there is one.
// The peers are installed with `npm ci` from the lock file in this folder into a cache. Where that
// cannot be done the table says so and has Bowline's figures alone. `@cloudflare/shell` works on SQLite
// in memory (sql.js), so nothing of its figures is a flush; just-bash keeps files in memory.
import { execFileSync, spawnSync } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync } from "node:fs";
import { createRequire } from "node:module";
import { homedir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const bowline = process.argv[2] ?? join(here, "../target/debug/bowline");
const rounds = Number(process.argv[3] ?? 5);
const rg = process.argv[4];
const cache = join(process.env.XDG_CACHE_HOME || join(homedir(), ".cache"), "bowline/bench-peers");

function install() {
  mkdirSync(cache, { recursive: true });
  for (const file of ["package.json", "package-lock.json"]) copyFileSync(join(here, file), join(cache, file));
  if (existsSync(join(cache, "node_modules/.bowline"))) return null;
  const ran = spawnSync("npm", ["ci", "--ignore-scripts", "--no-audit", "--no-fund"], { cwd: cache, encoding: "utf8" });
  if (ran.status !== 0) return `npm ci failed: ${(ran.stderr || String(ran.error)).trim().split("\n").pop()}`;
  mkdirSync(join(cache, "node_modules/.bowline"));
  return null;
}

const FILES = 1000;
const path = (n) => `/d${n % 20}/f${n}`;
const content = "needle or hay, a line of text\n".repeat(68);

async function timed(samples, what, times, operation) {
  const cpu = process.cpuUsage();
  const start = performance.now();
  for (let n = 0; n < times; n++) await operation(n);
  const wall = (performance.now() - start) / times;
  const used = process.cpuUsage(cpu);
  const row = (samples[what] ??= { wall: [], cpu: [] });
  row.wall.push(wall);
  row.cpu.push((used.user + used.system) / 1000 / times);
}

async function cloudflare(load, samples) {
  const { Workspace } = await load("@cloudflare/shell");
  const sql = await (await load("sql.js")).default();
  const db = new sql.Database();
  const statements = new Map();
  const rows = (text, params) => {
    if (!statements.has(text)) statements.set(text, db.prepare(text));
    const statement = statements.get(text);
    statement.bind(params.map((value) => (value === undefined ? null : value)));
    const found = [];
    while (statement.step()) found.push(statement.getAsObject());
    statement.reset();
    return found;
  };
  const backend = { query: (text, ...params) => rows(text, params), run: (text, ...params) => void rows(text, params) };
  const files = new Workspace({ sql: backend, name: () => "bench" });
  const { createWorkspaceStateBackend } = await load("@cloudflare/shell");
  const state = createWorkspaceStateBackend(files);
  await timed(samples, "write 1,000 files of 2 KB, one durable step", 1, async () => {
    for (let n = 0; n < FILES; n++) await files.writeFile(path(n), content);
  });
  await timed(samples, "write 1,000 files of 2 KB, 1,000 durable steps", 1, async () => {
    for (let n = 0; n < FILES; n++) await files.writeFile(path(n), content);
  });
  for (const what of ["read 1,000 files of 2 KB, first time", "read 1,000 files of 2 KB, again"])
    await timed(samples, what, 1, async () => {
      for (let n = 0; n < FILES; n++) await files.readFile(path(n));
    });
  await timed(samples, "glob **/f* over 1,000 files", 5, () => files.glob("/**/f*"));
  await timed(samples, "grep over 1,000 files, no match", 3, () => state.searchFiles("/**/f*", "absent"));
  await timed(samples, "grep over 1,000 files, 68 lines in each", 3, () => state.searchFiles("/**/f*", "hay"));
  await timed(samples, "edit 1,000 files, one durable step", 1, () =>
    state.replaceInFiles("/**/f*", "needle or hay", "straw"));
}

async function justBash(load, samples) {
  const { Bash } = await load("just-bash");
  const files = {};
  for (let n = 0; n < FILES; n++) files[`/w${path(n)}`] = content;
  const bash = new Bash({ files, cwd: "/w" });
  const exec = async (command) => {
    const done = await bash.exec(command);
    if (done.exitCode !== 0) throw new Error(done.stderr);
  };
  for (const [what, command, times] of [
    ["bash: echo hi", "echo hi", 200],
    ["bash: cat f | wc -c", "cat d1/f1 | wc -c", 100],
    ["bash: cat f | sort | uniq -c | head -1", "cat d1/f1 | sort | uniq -c | head -1", 100],
    ["bash: grep -r absent . | wc -l", "grep -r absent . | wc -l", 5],
    ["bash: find . -name 'f*' | wc -l", "find . -name 'f*' | wc -l", 5],
    ["bash: echo hi > file", "echo hi > d1/new", 100],
    ["bash: sed -i in a file of 2 KB", "sed -i s/hay/straw/ d1/f1", 50],
  ]) await timed(samples, what, times, () => exec(command));
}

const middle = (all) => [...all].sort((a, b) => a - b)[Math.floor(all.length / 2)];
const missing = install();
const peers = {};
if (missing) console.log(`The peers could not be installed: ${missing}\n`);
const ours = {};
const notes = new Set();
// One round of each in turn, so that other work on the machine meets them alike.
for (let round = 0; round < rounds; round++) {
  const args = ["bench", "workspace", "--rounds", "1", "--json", ...(rg ? ["--rg", rg] : [])];
  const report = JSON.parse(execFileSync(bowline, args, { encoding: "utf8" }));
  for (const note of report.notes) notes.add(note);
  for (const row of report.rows) {
    const kept = (ours[row.what] ??= { wall: [], cpu: [] });
    kept.wall.push(row.wallMs);
    kept.cpu.push(row.cpuMs);
  }
  if (missing) continue;
  const resolve = createRequire(join(cache, "package.json"));
  const load = async (name) => {
    try {
      return await import(pathToFileURL(join(cache, "node_modules", name, entry(name))));
    } catch (error) {
      return resolve(name);
    }
  };
  const entry = (name) => {
    const manifest = resolve(join(cache, "node_modules", name, "package.json"));
    const main = manifest.exports?.["."]?.import ?? manifest.module ?? manifest.main;
    return typeof main === "string" ? main : (main.default ?? main.node);
  };
  for (const [name, run] of [["@cloudflare/shell 0.4.3", cloudflare], ["just-bash 3.4.2", justBash]])
    await run(load, (peers[name] ??= {}));
}
for (const note of notes) console.log(`${note}\n`);
console.log("| operation | Bowline, wall / CPU ms | peer | wall / CPU ms | times, wall | times, CPU |\n|---|---|---|---|---|---|");
// The clock of the processor has ticks of 10 ms: only the mean of all rounds says something.
const mean = (all) => all.reduce((sum, one) => sum + one, 0) / all.length;
const show = (row) => `${middle(row.wall).toFixed(4)} / ${mean(row.cpu).toFixed(4)}`;
for (const [what, row] of Object.entries(ours)) {
  const [name, rows] = Object.entries(peers).find(([, rows]) => rows[what]) ?? [];
  const peer = rows?.[what];
  const wall = peer ? (middle(peer.wall) / middle(row.wall)).toFixed(1) : "";
  const cpu = peer && mean(row.cpu) > 0 ? (mean(peer.cpu) / mean(row.cpu)).toFixed(1) : "";
  console.log(`| ${what.replaceAll("|", "\\|")} | ${show(row)} | ${name ?? ""} | ${peer ? show(peer) : ""} | ${wall} | ${cpu} |`);
}
for (const what of ["no match", "68 lines in each"]) {
  const theirs = ours[`ripgrep on tmpfs, ${what}`];
  if (!theirs) continue;
  const times = middle(ours[`grep over 1,000 files, ${what}`].wall) / middle(theirs.wall);
  console.log(`\ngrep, ${what}: ${times.toFixed(2)} times the time of ripgrep`);
}
