// The page of the first guide, in a real browser. PAGE is where it is served.
import assert from "node:assert/strict";
import { test } from "node:test";
import { launch } from "./browser.mjs";

const ANSWER = "My notes say that I change a copy of my own, never your files. So ask me for anything.";

test("the page of the guide shows an answer as it streams", async () => {
  const browser = await launch();
  try {
    const page = await browser.newPage({ viewport: { width: 800, height: 480 } });
    const errors = [];
    page.on("pageerror", (error) => errors.push(String(error)));
    await page.goto(process.env.PAGE);
    await page.waitForSelector('main[data-status="idle"]');
    await page.evaluate(() => {
      window.seen = new Set();
      const look = () => window.seen.add(document.querySelector(".assistant")?.lastElementChild?.innerText);
      new MutationObserver(look).observe(document.body, { subtree: true, childList: true, characterData: true });
    });
    await page.fill("input", "May I ask you something?");
    await page.click("button");
    await page.waitForFunction((text) => document.querySelector(".assistant")?.lastElementChild?.innerText === text, ANSWER);
    await page.waitForSelector('main[data-status="idle"]');
    const parts = await page.$$eval("section", (all) => all.map((one) => `${one.className}: ${one.innerText}`));
    assert.deepEqual(parts, [
      "user: May I ask you something?",
      `assistant: I look at my notes first.\n\nread\n\n${ANSWER}`,
    ]);
    const pieces = await page.evaluate(() => [...window.seen]);
    const partial = pieces.filter((text) => text && text !== ANSWER && ANSWER.startsWith(text));
    assert.ok(partial.length > 2, `it came in pieces: ${JSON.stringify(pieces)}`);
    if (process.env.SCREENSHOT) await page.screenshot({ path: process.env.SCREENSHOT });
    assert.deepEqual(errors, []);
  } finally {
    await browser.close();
  }
});
