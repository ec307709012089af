// A real `bowline serve` process on a project with one scripted agent.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { cpSync, mkdirSync, mkdtempSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";

const binary = process.env.BOWLINE;

export const script = `
turns:
  - text: "An answer."
at_end: repeat_last
by_message:
  - match: "^tools"
    turns:
      - thinking: "I look first."
        text: "Let me look."
        tools: [{ name: bash, input: { command: "echo found" } }]
        stream: { chars: 4, delay_ms: 15 }
      - text: "It says found, and that is all there is to it."
        stream: { chars: 4, delay_ms: 15 }
  - match: "^slow"
    turns:
      - text: "${"One word after the other. ".repeat(12).trim()}"
        stream: { chars: 5, delay_ms: 40 }
  - match: "^for ever"
    turns:
      - text: "${"and so on ".repeat(400).trim()}"
        stream: { chars: 2, delay_ms: 100 }
  - match: "^consent"
    turns:
      - text: "May I?"
        tools: [{ name: write, input: { path: "new.txt", content: "hello" } }]
      - text: "It is done."
`;

/** A folder with a project. */
export function project() {
  const folder = mkdtempSync(path.join(process.env.BOWLINE_TMP ?? tmpdir(), "clients-"));
  const agent = path.join(folder, "agents", "demo");
  mkdirSync(agent, { recursive: true });
  writeFileSync(path.join(folder, "bowline.toml"), '[project]\nname = "clients"\n');
  writeFileSync(
    path.join(agent, "agent.md"),
    "---\nmodel: scripted/demo.yaml\napprovals: { write: required }\n---\nAnswer.\n",
  );
  writeFileSync(path.join(agent, "demo.yaml"), script);
  return folder;
}

async function freePort() {
  const probe = createServer();
  probe.listen(0, "127.0.0.1");
  await once(probe, "listening");
  const { port } = probe.address();
  probe.close();
  await once(probe, "close");
  return port;
}

/** A server that can be killed and started again on the same address. */
export class Bowline {
  static async start(folder = project()) {
    const server = new Bowline();
    server.folder = folder;
    server.port = await freePort();
    await server.up();
    return server;
  }

  get url() {
    return `http://127.0.0.1:${this.port}`;
  }

  conversation(id) {
    return `${this.url}/agents/demo/${id}`;
  }

  async up() {
    const addr = `127.0.0.1:${this.port}`;
    this.child = spawn(binary, ["serve", "--addr", addr, "--json", "--project", this.folder], {
      stdio: ["ignore", "pipe", "inherit"],
      env: { ...process.env, BOWLINE_LOG: process.env.BOWLINE_LOG ?? "" },
    });
    this.ended = once(this.child, "exit");
    const begun = new Promise((resolve) => {
      let text = "";
      this.child.stdout.on("data", (piece) => {
        text += piece;
        if (text.includes("\n")) resolve(JSON.parse(text.split("\n")[0]));
      });
    });
    const first = await Promise.race([begun, this.ended]);
    if (first.type !== "serving") throw new Error(`the server did not start: ${JSON.stringify(first)}`);
  }

  async stop(signal = "SIGTERM") {
    this.child.kill(signal);
    return await this.ended;
  }
}

/** A fetch that counts requests: a client in a tight loop is a bug of the server. */
export function counting() {
  const counted = async (input, init) => {
    counted.requests += 1;
    return await fetch(input, init);
  };
  counted.requests = 0;
  return counted;
}

/** Waits until an observation fits. */
export async function until(observation, fits, what, ms = 20_000) {
  return await new Promise((resolve, reject) => {
    let unsubscribe = () => {};
    const timer = setTimeout(() => {
      unsubscribe();
      reject(new Error(`not seen: ${what}; last: ${JSON.stringify(observation.getSnapshot())}`));
    }, ms);
    const look = () => {
      const snapshot = observation.getSnapshot();
      if (!fits(snapshot)) return;
      clearTimeout(timer);
      unsubscribe();
      resolve(snapshot);
    };
    unsubscribe = observation.subscribe(look);
    look();
  });
}

/** The text of the messages of one role. */
export function text(conversation, role = "assistant") {
  return (conversation?.messages ?? [])
    .filter((message) => message.role === role)
    .flatMap((message) => message.parts)
    .filter((part) => part.type === "text")
    .map((part) => part.text)
    .join("|");
}
