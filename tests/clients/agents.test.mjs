// AgentClient of `agents`, unchanged, against a real server.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { AgentClient } from "agents/client";
import WebSocket from "ws";
import { Bowline } from "./server.mjs";

let server;
const clients = [];
before(async () => {
  server = await Bowline.start();
});
after(async () => {
  for (const client of clients) client.close();
  await server.stop();
});

/** A client that keeps what it is told. */
function connect(name, options = {}) {
  const told = { states: [], refused: [], waiting: [] };
  const client = new AgentClient({
    agent: "demo",
    name,
    host: `127.0.0.1:${server.port}`,
    WebSocket,
    onStateUpdate: (state, source) => {
      told.states.push([state, source]);
      told.waiting.splice(0).forEach((wake) => wake());
    },
    onStateUpdateError: (error) => {
      told.refused.push(error);
      told.waiting.splice(0).forEach((wake) => wake());
    },
    ...options,
  });
  clients.push(client);
  return { client, told };
}

/** Waits until what was told fits. */
async function until(told, fits, ms = 20_000) {
  const end = Date.now() + ms;
  while (!fits(told)) {
    const left = end - Date.now();
    if (left <= 0) assert.fail(`not told: ${JSON.stringify(told.states).slice(0, 500)} ${told.refused}`);
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, left);
      told.waiting.push(() => {
        clearTimeout(timer);
        resolve();
      });
    });
  }
}

test("a client learns who it talks with, with and without a state", async () => {
  const { client } = connect("identity");
  await client.ready;
  assert.deepEqual([client.identified, client.agent, client.name], [true, "demo", "identity"]);
  assert.equal(client.state, undefined);
});

test("state is shared by all who are connected, and by who comes later", async () => {
  const one = connect("state");
  const two = connect("state");
  await Promise.all([one.client.ready, two.client.ready]);
  one.client.setState({ count: 1 });
  await until(two.told, (told) => told.states.some(([state, source]) => state.count === 1 && source === "server"));
  two.client.setState({ count: 2 });
  await until(one.told, (told) => told.states.some(([state, source]) => state.count === 2 && source === "server"));
  const three = connect("state");
  await three.client.ready;
  assert.deepEqual(three.client.state, { count: 2 });
  // Nobody is told what it said itself.
  assert.equal(one.told.states.filter(([state, source]) => state.count === 1 && source === "server").length, 0);
});

test("a state that is refused comes back as it was", async () => {
  const writer = connect("refused");
  await writer.client.ready;
  writer.client.setState({ count: 1 });
  const reader = connect("refused", { query: { readonly: "true" } });
  await until(reader.told, (told) => told.states.length > 0);
  reader.client.setState({ count: 7 });
  await until(reader.told, (told) => told.refused.length > 0 && told.states.at(-1)[1] === "server");
  assert.deepEqual(reader.told.refused, ["Connection is readonly"]);
  assert.deepEqual(reader.client.state, { count: 1 });
  writer.client.setState({ text: "x".repeat(1_100_000) });
  await until(writer.told, (told) => told.refused.length > 0 && told.states.at(-1)[1] === "server");
  assert.deepEqual(writer.told.refused, ["State update rejected"]);
  assert.deepEqual(writer.client.state, { count: 1 });
});

test("messages are sent, streamed, read and aborted by calls", async () => {
  const { client } = connect("calls");
  await client.ready;
  const receipt = await client.call("send", ["hi", { idempotencyKey: "k1" }]);
  assert.match(receipt.submissionId, /^sub_/);
  assert.equal((await client.call("send", ["hi", { idempotencyKey: "k1" }])).deduplicated, true);
  // Another conversation: a message that comes while the first is answered joins its answer.
  const { client: asking } = connect("asks");
  await asking.ready;
  const chunks = [];
  const reply = await new Promise((resolve, reject) => {
    asking.call("ask", ["tools, please"], {
      stream: { onChunk: (chunk) => chunks.push(chunk), onDone: resolve, onError: reject },
    });
  });
  assert.equal(reply.outcome, "completed");
  assert.match(reply.text, /that is all there is to it/);
  const deltas = chunks.filter((chunk) => chunk.type === "message-delta");
  assert.ok(deltas.length > 3, `${deltas.length} deltas`);
  assert.ok(chunks.some((chunk) => chunk.type === "tool-output"));
  const history = await asking.call("history", []);
  assert.deepEqual(
    history.messages.map((message) => message.role),
    ["user", "assistant"],
  );
  assert.equal((await asking.call("history", [{ limit: 1 }])).messages.length, 1);
  const slow = await client.call("send", [{ kind: "user", body: "for ever" }]);
  assert.deepEqual(await client.call("abort", [slow.submissionId]), { aborted: true });
  await assert.rejects(client.call("nothing", []), /Method nothing does not exist/);
  await assert.rejects(client.call("send", [7]), /a message is a text or an object/);
});

for (const [method, text, state] of [["approve", "It is done.", "output-available"], ["reject", "It is done.", "output-error"]]) {
  test(`a call that waits for a person goes on after ${method}`, async () => {
    const { client } = connect(`consent-${method}`);
    await client.ready;
    const chunks = [];
    const done = new Promise((resolve, reject) => {
      client.call("ask", ["consent, please"], {
        stream: {
          onChunk: (chunk) => {
            chunks.push(chunk);
            const waits = Object.entries(chunk.metadata?.approvals ?? {}).find(([, one]) => one.state === "requested");
            if (waits) client.call(method, [waits[0], method === "reject" ? "not now" : undefined]).catch(reject);
          },
          onDone: resolve,
          onError: reject,
        },
      });
    });
    assert.equal((await done).text, text);
    const { messages } = await client.call("history", []);
    const call = messages.at(-1).parts.find((part) => part.type === "dynamic-tool");
    assert.equal(call.state, state);
    assert.deepEqual(await client.call("approvals", []), []);
    await assert.rejects(client.call("approve", ["appr_none"]), /waits for this approval/);
  });
}

test("a client comes back after the server was started again", async () => {
  const { client, told } = connect("back");
  await client.ready;
  client.setState({ kept: true });
  await client.call("send", ["hi"]);
  await server.stop("SIGTERM");
  await server.up();
  // Made while nobody is there, and sent when it is.
  const history = await client.call("history", []);
  assert.equal(history.messages[0].parts[0].text, "hi");
  await until(told, (told) => told.states.some(([state, source]) => state.kept && source === "server"));
  assert.equal(client.connectionError, null);
});

test("a connection that may not be is closed with a reason and not tried again", async () => {
  for (const [options, code] of [
    [{ agent: "nobody" }, 4404],
    [{ query: { __agents_transport: "capnweb" } }, 4400],
  ]) {
    const { client } = connect("refused", options);
    client.ready?.catch?.(() => {});
    const closed = await new Promise((resolve) => client.addEventListener("close", resolve));
    assert.equal(closed.code, code);
    assert.equal(client.connectionError?.code, code);
  }
});

test("frames that mean nothing are left out", async () => {
  const socket = new WebSocket(`ws://127.0.0.1:${server.port}/agents/demo/odd`);
  const frames = [];
  socket.on("message", (data) => frames.push(JSON.parse(data)));
  await new Promise((resolve) => socket.on("open", resolve));
  for (const odd of ["", "{", "[]", "7", '{"type":"rpc"}', '{"type":"rpc","id":1,"method":2}', '{"type":"cf_agent_state"}']) {
    socket.send(odd);
  }
  socket.send(Buffer.from([0xff, 0xfe]));
  socket.send('{"type":"cf_agent_stream_resume_request","probeId":"p"}');
  for (let number = 0; number < 40; number += 1) {
    socket.send(JSON.stringify({ type: "rpc", id: `c${number}`, method: "history", args: [] }));
  }
  const answered = () => frames.filter((frame) => frame.type === "rpc").length;
  while (answered() < 40) await new Promise((resolve) => socket.once("message", resolve));
  assert.deepEqual(frames[0], { type: "cf_agent_identity", name: "odd", agent: "demo", stateFollows: false });
  assert.deepEqual(
    frames.find((frame) => frame.type === "cf_agent_stream_resume_none"),
    { type: "cf_agent_stream_resume_none", reason: "idle", probeId: "p" },
  );
  assert.ok(frames.filter((frame) => frame.type === "rpc").every((frame) => !frame.success && typeof frame.error === "string"));
  socket.close();
});
