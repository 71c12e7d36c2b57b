// Rates from pages of other origins, in headless Chromium, with fetch alone.
//
//   node ratings.mjs http://ADDRESS KEY PORT
//
// The server lets pages of http://127.0.0.1:PORT read its answers, and no others.
// The first mismatch ends the run with its reason and a non-zero exit code.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { launch } from "./chromium.mjs";

const [address, key, port] = process.argv.slice(2);
assert(port, "usage: node ratings.mjs http://ADDRESS KEY PORT");

// A page that does nothing by itself, on its own port.
async function site(at) {
  const server = createServer((_, response) => {
    response.setHeader("content-type", "text/html");
    response.end("<!doctype html><title>A tenant's page</title>");
  });
  await new Promise((listening) => server.listen(at, "127.0.0.1", listening));
  return server;
}

// What the page is told, as its own script sees it.
function post(page, path, body) {
  return page.evaluate(async ([url, key, body]) => {
    const headers = { authorization: `Bearer ${key}`, "content-type": "application/json" };
    try {
      const answer = await fetch(url, { method: "POST", headers, body: JSON.stringify(body) });
      return { status: answer.status, generation: answer.headers.get("x-generation-id"), body: await answer.json() };
    } catch (error) {
      return { failed: error.name };
    }
  }, [address + path, key, body]);
}

const ours = await site(Number(port));
const stranger = await site(0);
const { page, close } = await launch();
try {
  await page.goto(`http://127.0.0.1:${port}/`);
  assert.notEqual(new URL(page.url()).origin, new URL(address).origin);
  const messages = [{ role: "user", content: "What is the sea?" }];
  const chat = await post(page, "/v1/chat/completions", { model: "assistant", max_tokens: 4, messages });
  assert.equal(chat.status, 200);
  assert.match(chat.generation, /^gen_/, "the page may read the generation's id");
  assert.equal(chat.generation, chat.body.id);

  const rating = { generation_id: chat.generation, thumb: "up", comment: "Thanks", end_user: "ann", idempotency_key: "1" };
  const first = await post(page, "/v1/ratings", rating);
  assert.deepEqual([first.status, first.body.status], [200, "recorded"]);
  assert.match(first.body.id, /^rat_/);
  const again = await post(page, "/v1/ratings", rating);
  assert.deepEqual(again.body, { id: first.body.id, status: "duplicate" });
  console.log("ok: a page of another origin rates, and reads the answer");

  const range = await post(page, "/v1/ratings", { generation_id: chat.generation, score: 9 });
  assert.deepEqual([range.status, range.body.error.param], [400, "score"]);
  assert.match(range.body.error.message, /score: must be a whole number from 1 to 5/);
  const unknown = await post(page, "/v1/ratings", { generation_id: `${chat.generation.slice(0, -4)}0000`, thumb: "up" });
  assert.deepEqual([unknown.status, unknown.body.error.code], [400, "generation_not_found"]);
  console.log("ok: it reads why one was refused");

  await page.goto(`http://127.0.0.1:${stranger.address().port}/`);
  const other = { ...rating, idempotency_key: "2" };
  assert.deepEqual(await post(page, "/v1/ratings", other), { failed: "TypeError" });
  await page.goto(`http://127.0.0.1:${port}/`);
  const mine = await post(page, "/v1/ratings", other);
  assert.deepEqual([mine.status, mine.body.status], [200, "recorded"], "the other page's was not even sent");
  console.log("ok: a page of an origin that is not named cannot");
} catch (error) {
  console.error(`FAILED: ${error.message}`);
  process.exitCode = 1;
} finally {
  await close();
  ours.close();
  stranger.close();
}
