// @flue/react, unchanged, in a real browser.
import assert from "node:assert/strict";
import { createServer, request } from "node:http";
import { once } from "node:events";
import path from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { launch } from "./browser.mjs";
import { Bowline } from "./server.mjs";

let server;
let site;
let browser;

/** A site of one page; what is below /agents goes to the server, as a proxy in front would do it. */
async function serve() {
  const { outputFiles } = await build({
    entryPoints: [path.join(path.dirname(fileURLToPath(import.meta.url)), "page.jsx")],
    bundle: true,
    write: false,
    format: "esm",
    jsx: "automatic",
    define: { "process.env.NODE_ENV": '"production"' },
    nodePaths: [process.env.CLIENTS_MODULES ?? ""].filter(Boolean),
  });
  const page = createServer((asked, answer) => {
    if (asked.url.startsWith("/agents/")) {
      const { method, headers } = asked;
      const passed = request(`${server.url}${asked.url}`, { method, headers }, (given) => {
        answer.writeHead(given.statusCode, given.headers);
        given.pipe(answer);
      });
      passed.on("error", () => answer.destroy());
      answer.on("close", () => passed.destroy());
      asked.pipe(passed);
    } else if (asked.url === "/page.js") {
      answer.writeHead(200, { "content-type": "text/javascript" }).end(outputFiles[0].text);
    } else {
      const id = new URL(asked.url, "http://x").pathname.slice(1);
      answer
        .writeHead(200, { "content-type": "text/html" })
        .end(`<!doctype html><body data-url="/agents/demo/${id}"><div id="root"></div><script type="module" src="/page.js"></script>`);
    }
  });
  page.listen(0, "127.0.0.1");
  await once(page, "listening");
  return page;
}

before(async () => {
  server = await Bowline.start();
  site = await serve();
  browser = await launch();
});
after(async () => {
  await browser?.close();
  site?.closeAllConnections();
  site?.close();
  await server?.stop();
});

async function open(id) {
  const page = await browser.newPage();
  const errors = [];
  page.on("pageerror", (error) => errors.push(String(error)));
  await page.goto(`http://127.0.0.1:${site.address().port}/${id}`);
  await page.waitForSelector('main[data-ready="true"]');
  return { page, errors };
}

async function say(page, text) {
  await page.fill("input", text);
  await page.click("button");
}

const shown = (page) => page.$$eval("section", (all) => all.map((one) => `${one.className}: ${one.innerText}`));

test("a page shows a streamed answer with a tool call, and reloads into the same", async () => {
  const { page, errors } = await open("page");
  await page.evaluate(() => {
    window.lengths = new Set();
    new MutationObserver(() => window.lengths.add(document.querySelector(".assistant")?.innerText.length)).observe(
      document.body,
      { subtree: true, childList: true, characterData: true },
    );
  });
  await say(page, "tools, please");
  await page.waitForSelector('main[data-status="streaming"]');
  await page.waitForSelector('.tool[data-state="output-available"]');
  await page.waitForSelector('main[data-status="idle"]');
  assert.ok((await page.evaluate(() => window.lengths.size)) > 4, "it came in pieces");
  const before = await shown(page);
  assert.deepEqual(before, [
    "user: tools, please",
    "assistant: Let me look.\n\nbash: found\n\nIt says found, and that is all there is to it.",
  ]);
  await page.reload();
  await page.waitForSelector('main[data-ready="true"]');
  assert.deepEqual(await shown(page), before);
  assert.deepEqual(errors, []);
  await page.close();
});

test("a page that is reloaded in the middle of an answer shows all of it", async () => {
  const { page, errors } = await open("reloaded");
  await say(page, "slow, please");
  await page.waitForFunction(() => document.querySelector(".assistant")?.innerText.length > 40);
  await page.reload();
  await page.waitForFunction(() => document.querySelector(".assistant")?.innerText.length > 40);
  const whole = "One word after the other. ".repeat(12).trim();
  await page.waitForFunction((whole) => document.querySelector(".assistant")?.innerText === whole, whole);
  assert.deepEqual(errors, []);
  await page.close();
});
