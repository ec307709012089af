// @flue/sdk, unchanged, against a real server.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { FlueApiError, FlueExecutionError, createFlueClient } from "@flue/sdk";
import { Bowline, counting, text, until } from "./server.mjs";

let server;
before(async () => {
  server = await Bowline.start();
});
after(async () => {
  await server.stop();
});

const user = (body) => ({ kind: "user", body });
/** As JSON has it: without fields that are not there. */
const plain = (value) => JSON.parse(JSON.stringify(value));
const client = (id, options) => createFlueClient({ url: server.conversation(id), ...options });

test("a message is sent, waited for and read", async () => {
  const one = client("plain");
  const receipt = await one.send({ message: user("hi") });
  assert.equal(receipt.streamUrl, server.conversation("plain"));
  assert.match(receipt.submissionId, /^sub_/);
  assert.match(receipt.uid, /^inst_/);
  await one.wait(receipt);
  const reply = await one.read(receipt);
  assert.equal(reply.text, "An answer.");
  assert.equal(reply.uid, receipt.uid);
  // Settled long ago, and by its id alone.
  assert.equal((await one.read(receipt.submissionId)).text, "An answer.");
});

test("an id may have characters that are encoded", async () => {
  const one = client(encodeURIComponent("chat:42@löss"));
  const receipt = await one.send({ message: user("hi") });
  assert.equal((await one.read(receipt)).text, "An answer.");
});

test("a repeated key sends nothing and is answered, also after it settled", async () => {
  const one = client("keyed");
  const first = await one.send({ message: user("hi"), idempotencyKey: "k1" });
  const again = await one.send({ message: user("hi"), idempotencyKey: "k1" });
  assert.equal(again.submissionId, first.submissionId);
  assert.equal(again.deduplicated, true);
  await one.wait(first);
  const settled = await one.send({ message: user("hi"), idempotencyKey: "k1" });
  assert.equal((await one.read(settled)).text, "An answer.");
  assert.equal((await one.history()).messages.filter((message) => message.role === "user").length, 1);
  await assert.rejects(
    one.send({ message: user("something else"), idempotencyKey: "k1" }),
    (error) => error instanceof FlueApiError && error.status === 409 && error.body.error.type === "submission_conflict",
  );
  for (const idempotencyKey of ["", null, 7, "x".repeat(257)]) {
    await assert.rejects(one.send({ message: user("hi"), idempotencyKey }), (error) => error.status === 400);
  }
});

test("a message may say which incarnation it is for", async () => {
  const one = client("incarnation");
  await assert.rejects(
    one.send({ message: user("hi"), uid: "inst_other" }),
    (error) => error.status === 404 && error.body.error.type === "agent_instance_not_found",
  );
  const receipt = await one.send({ message: user("hi"), uid: null, initialData: { plan: "pro" } });
  await one.send({ message: user("hi"), uid: receipt.uid });
  await assert.rejects(
    one.send({ message: user("hi"), uid: null }),
    (error) => error.status === 409 && error.body.error.details.uid === receipt.uid,
  );
  const told = (await one.history()).messages.find((message) => message.role === "system");
  assert.equal(told.parts[0].text, '{"plan":"pro"}');
});

for (const live of ["sse", "long-poll"]) {
  test(`a streamed answer with a tool call is observed by ${live}`, async () => {
    const fetch = counting();
    const one = client(`observed-${live}`, { fetch });
    const observation = one.observe({ live });
    await until(observation, (seen) => seen.phase === "absent", "no conversation");
    const receipt = await one.send({ message: user("tools, please") });
    await observation.refresh();
    const seen = [];
    observation.subscribe(() => seen.push(text(observation.getSnapshot().conversation).length));
    const settled = await until(
      observation,
      (now) => now.conversation?.settlements.some((one) => one.submissionId === receipt.submissionId),
      "the settlement",
    );
    const parts = settled.conversation.messages.at(-1).parts;
    assert.deepEqual(
      parts.map((part) => part.type),
      ["reasoning", "text", "dynamic-tool", "text"],
    );
    assert.equal(parts[2].state, "output-available");
    assert.match(parts[2].output, /found/);
    const { messages, settlements } = await one.history();
    assert.deepEqual(plain(settled.conversation.messages), messages);
    assert.deepEqual(plain(settled.conversation.settlements), settlements);
    // It came in pieces.
    assert.ok(new Set(seen).size > 3, `lengths seen: ${seen}`);
    observation.close();
    assert.ok(fetch.requests < 60, `${fetch.requests} requests`);
  });
}

test("an answer that nobody needs is aborted", async () => {
  const one = client("aborted");
  assert.deepEqual(await one.abort(), { aborted: false });
  const receipt = await one.send({ message: user("for ever") });
  assert.deepEqual(await one.abort(), { aborted: true });
  await assert.rejects(
    one.wait(receipt),
    (error) => error instanceof FlueExecutionError && error.failure === "aborted",
  );
  assert.equal((await one.history()).settlements[0].outcome, "aborted");
});

test("files are kept with the message, and come back as they were", async () => {
  const one = client("files");
  const image = Buffer.from("R0lGODlhAQABAAAAACwAAAAAAQABAAA=", "base64");
  const page = Buffer.from("<script>alert(document.domain)</script>");
  await one.send({
    message: {
      ...user("look"),
      attachments: [
        { type: "image", data: image.toString("base64"), mimeType: "image/gif", filename: "dot.gif" },
        { type: "file", data: page.toString("base64"), mimeType: "text/html", filename: "pa\"ge\n.html" },
      ],
    },
  });
  const files = (await one.history()).messages[0].parts.filter((part) => part.type === "file");
  assert.deepEqual(
    files.map((file) => [file.mediaType, file.size, file.filename]),
    [["image/gif", image.length, "dot.gif"], ["text/html", page.length, 'pa"ge\n.html']],
  );
  assert.equal(files[0].url, one.attachmentUrl(files[0].id));
  const [dot, html] = await Promise.all(files.map((file) => fetch(file.url)));
  assert.deepEqual(Buffer.from(await dot.arrayBuffer()), image);
  assert.equal(dot.headers.get("content-type"), "image/gif");
  assert.equal(dot.headers.get("content-disposition"), "inline");
  assert.equal(dot.headers.get("cache-control"), "private, max-age=31536000, immutable");
  assert.deepEqual(Buffer.from(await html.arrayBuffer()), page);
  assert.equal(html.headers.get("content-type"), "application/octet-stream");
  assert.match(html.headers.get("content-disposition"), /^attachment; filename\*=UTF-8''pa%22ge%0A.html$/);
  for (const answer of [dot, html]) {
    assert.equal(answer.headers.get("content-security-policy"), "sandbox");
    assert.equal(answer.headers.get("x-content-type-options"), "nosniff");
    assert.equal(answer.headers.get("cross-origin-resource-policy"), "cross-origin");
  }
  const missing = await fetch(one.attachmentUrl("file_none"));
  assert.equal(missing.status, 404);
});

for (const signal of ["SIGTERM", "SIGKILL"]) {
  for (const live of ["sse", "long-poll"]) {
    test(`a reader by ${live} goes on after ${signal} in the middle of an answer`, async () => {
      const fetch = counting();
      const one = client(`restart-${signal}-${live}`.toLowerCase(), { fetch });
      const receipt = await one.send({ message: user("slow, please") });
      const observation = one.observe({ live });
      await until(observation, (seen) => text(seen.conversation).length > 30, "the beginning");
      const waited = one.wait(receipt);
      await server.stop(signal);
      await server.up();
      const settled = await until(
        observation,
        (now) => now.conversation?.settlements.some((one) => one.submissionId === receipt.submissionId),
        "the settlement",
        40_000,
      );
      await waited;
      const { messages } = await one.history();
      assert.deepEqual(plain(settled.conversation.messages), messages);
      assert.ok(text({ messages }).endsWith("One word after the other."));
      observation.close();
      assert.ok(fetch.requests < 200, `${fetch.requests} requests`);
    });
  }
}

test("a deleted conversation is begun again as another incarnation", async () => {
  const one = client("deleted");
  const first = await one.send({ message: user("tools, please") });
  await one.wait(first);
  const observation = one.observe({ live: "sse" });
  await until(observation, (seen) => seen.phase === "live", "the conversation");
  assert.equal((await fetch(one.url, { method: "DELETE" })).status, 204);
  const second = await one.send({ message: user("hi") });
  assert.notEqual(second.uid, first.uid);
  await one.wait(second);
  const seen = await until(
    observation,
    (now) => now.conversation?.settlements.some((one) => one.submissionId === second.submissionId),
    "the new conversation",
  );
  assert.equal(seen.conversation.messages.length, 2);
  observation.close();
});

test("beyond the protocol: pages, lists, single submissions, waiting", async () => {
  const one = client("beyond");
  for (let number = 0; number < 3; number += 1) await one.wait(await one.send({ message: user(`hi ${number}`) }));
  const json = async (path, init) => await (await fetch(`${one.url}${path}`, init)).json();
  const last = await json("?limit=2");
  assert.deepEqual(last.messages.map((message) => message.role), ["user", "assistant"]);
  assert.equal(last.more, true);
  const before = await json(`?limit=10&before=${last.messages[0].id}`);
  assert.equal(before.messages.length, 4);
  assert.equal(before.more, false);
  const list = await (await fetch(`${server.url}/agents/demo?limit=1`)).json();
  assert.equal(list.instances.length, 1);
  const rest = await (await fetch(`${server.url}/agents/demo?after=${encodeURIComponent(list.next)}`)).json();
  assert.ok(rest.instances.includes("beyond"));

  const post = (path, body) =>
    fetch(`${one.url}${path}`, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
  const forked = await post("/fork", { id: "beyond-fork" });
  assert.equal(forked.status, 201);
  const other = client("beyond-fork");
  const [mine, theirs] = [await one.history(), await other.history()];
  assert.deepEqual(theirs.messages, mine.messages);
  assert.notEqual(theirs.incarnation, mine.incarnation);
  await other.wait(await other.send({ message: user("hi") }));
  assert.equal((await other.history()).messages.length, 8);
  assert.equal((await one.history()).messages.length, 6);
  assert.equal((await post("/fork", { id: "beyond-fork" })).status, 409);
  const exported = await fetch(`${one.url}/export`);
  assert.match(await exported.text(), /^bowline-instance 1\n/);

  const slow = await one.send({ message: user("for ever") });
  const open = await json(`/submissions/${slow.submissionId}`);
  assert.equal(open.state, "running");
  assert.equal((await (await post("/fork", { id: "busy" })).json()).error.type, "conversation_busy");
  const waiting = json(`/submissions/${slow.submissionId}?wait=30`);
  assert.deepEqual(await json(`/submissions/${slow.submissionId}/abort`, { method: "POST" }), { aborted: true });
  assert.equal((await waiting).outcome, "aborted");
  const answered = await one.send({ message: user("hi") });
  const reply = await json(`/submissions/${answered.submissionId}?wait=30`);
  assert.deepEqual([reply.state, reply.outcome, reply.text], ["settled", "completed", "An answer."]);
});
